//! HTTP/1.1 by hand, so that tests can send what no client library would.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use groupshot::tls::{Trust, connector};
use rustls_pki_types::ServerName;
use tokio_rustls::rustls::{ClientConnection, StreamOwned};

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    /// Status code.
    pub(crate) status: u16,
    /// Header lines as sent.
    pub(crate) headers: Vec<(String, String)>,
    /// Body.
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The first header of that name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }

    /// Text of the first element of that local name, wherever it stands.
    pub(crate) fn element(&self, local: &str) -> Option<String> {
        let text = self.text();
        for (at, _) in text.match_indices('<') {
            let tag = &text[at + 1..];
            let name = tag.split(['>', ' ', '/']).next().unwrap();
            if name.rsplit(':').next() == Some(local) && !tag.starts_with('/') {
                let open = tag.find('>')?;
                if tag[..open].ends_with('/') {
                    return Some(String::new());
                }
                let inner = &tag[open + 1..];
                return inner.split('<').next().map(str::to_owned);
            }
        }
        None
    }
}

/// A connection.
pub(crate) struct Connection(BufReader<Stream>);

enum Stream {
    Plain(TcpStream),
    Secure(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Secure(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Secure(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Secure(stream) => stream.flush(),
        }
    }
}

impl Connection {
    /// Connects; reads give up after a minute.
    pub(crate) fn open(address: SocketAddr) -> Self {
        Self(BufReader::new(Stream::Plain(connect(address))))
    }

    /// Connects with TLS; the server must show a certificate for localhost that `trust` believes.
    pub(crate) fn secure(address: SocketAddr, trust: &Trust) -> Self {
        let config = Arc::clone(connector(trust).unwrap().config());
        let name = ServerName::try_from("localhost").unwrap();
        let client = ClientConnection::new(config, name).unwrap();
        let stream = StreamOwned::new(client, connect(address));
        Self(BufReader::new(Stream::Secure(Box::new(stream))))
    }

    /// The certificate that the server has shown.
    pub(crate) fn fingerprint(&self) -> String {
        let Stream::Secure(stream) = self.0.get_ref() else {
            panic!("no TLS");
        };
        let shown = stream.conn.peer_certificates().unwrap();
        groupshot::tls::fingerprint(&shown[0])
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.get_mut().write_all(bytes)
    }

    /// Ends our side.
    pub(crate) fn finish(&mut self) {
        let socket = match self.0.get_ref() {
            Stream::Plain(socket) => socket,
            Stream::Secure(stream) => &stream.sock,
        };
        let _ = socket.shutdown(std::net::Shutdown::Write);
    }

    /// Reads one answer; `None` if the server closed the connection instead.
    pub(crate) fn receive(&mut self) -> Option<Response> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            match self.0.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                Ok(_) if head.is_empty() => return None,
                Err(e) if head.is_empty() && e.kind() == std::io::ErrorKind::ConnectionReset => {
                    return None;
                }
                other => panic!(
                    "answer ends in its head ({other:?}): {}",
                    String::from_utf8_lossy(&head)
                ),
            }
        }
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status: u16 = lines
            .next()
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        let headers: Vec<_> = lines
            .map(|l| l.split_once(':').unwrap())
            .map(|(n, v)| (n.to_owned(), v.trim().to_owned()))
            .collect();
        let mut response = Response {
            status,
            headers,
            body: Vec::new(),
        };
        if status == 100 {
            return Some(response);
        }
        let length: usize = response
            .header("content-length")
            .map_or(0, |v| v.parse().unwrap());
        response.body = vec![0; length];
        self.0.read_exact(&mut response.body).unwrap();
        Some(response)
    }

    /// Sends a POST to `/wsman` with Basic credentials and reads the answer.
    pub(crate) fn post(&mut self, user: &str, password: &str, body: &[u8]) -> Response {
        self.try_post(user, password, body).expect("an answer")
    }

    /// [`Connection::post`] of somebody whose connection may be closed instead.
    pub(crate) fn try_post(&mut self, user: &str, password: &str, body: &[u8]) -> Option<Response> {
        let head = format!(
            "POST /wsman HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\nContent-Type: application/soap+xml;charset=UTF-8\r\nContent-Length: {}\r\n\r\n",
            basic(user, password),
            body.len()
        );
        self.send(head.as_bytes()).ok()?;
        self.send(body).ok()?;
        self.receive()
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// The value of an Authorization header.
pub(crate) fn basic(user: &str, password: &str) -> String {
    let pair = format!("{user}:{password}");
    format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(pair)
    )
}
