//! The transport, by raw sockets against a handler that only says what reached it.

mod bodies;
mod clocks;
mod crowds;
mod refusals;
mod stop;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use groupshot::audit::Audit;
use groupshot::auth::Authenticator;
use groupshot::auth::certificate::Mapping;
use groupshot::auth::settings::AuthSettings;
use groupshot::auth::users::{self, Users};
use groupshot::clock::SystemClock;
use groupshot::handler::{Answer, Caller, Handler, Message, Role};
use groupshot::http::{self, Listener, TransportLimits};
use groupshot::tls::Live;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const BODY_LIMIT: usize = 64 << 10;

/// Says who sent what. A body `panic` panics, a body `wait` waits for a permit.
struct Echo {
    gate: Arc<Semaphore>,
    /// How many have come to the gate.
    waiting: Arc<AtomicUsize>,
}

#[async_trait]
impl Handler for Echo {
    async fn handle(&self, caller: Caller, message: Message) -> Answer {
        match message.body.as_ref() {
            b"panic" => panic!("on order"),
            b"wait" => {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                self.gate.acquire().await.unwrap().forget();
            }
            _ => {}
        }
        let user = caller
            .identity
            .map_or("-".to_owned(), |i| i.user.to_string());
        let user = match caller.secure {
            true => format!("{user} over TLS"),
            false => user,
        };
        let kind = message.content_type.unwrap_or("-".to_owned());
        let size = message.body.len();
        Answer {
            status: if message.body.as_ref() == b"fault" {
                500
            } else {
                200
            },
            content_type: "application/soap+xml;charset=UTF-8",
            body: format!("{user} {kind} {size}").into(),
        }
    }

    fn body_limit(&self) -> usize {
        BODY_LIMIT
    }
}

struct Server {
    address: SocketAddr,
    gate: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        Self::with(TransportLimits::default(), AuthSettings::default()).await
    }

    async fn with(transport: impl Into<http::TransportSettings>, settings: AuthSettings) -> Self {
        Self::listening(transport, settings, None, Vec::new()).await
    }

    async fn listening(
        transport: impl Into<http::TransportSettings>,
        settings: AuthSettings,
        tls: Option<Arc<Live>>,
        mappings: Vec<Mapping>,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        users::add(dir.path(), "ann", Role::Reader, "secret").unwrap();
        let clock = SystemClock::shared();
        let users = Users::follow(dir.path(), clock.clone()).unwrap();
        let auth = Authenticator::new(users, settings, clock).unwrap();
        let auth = Arc::new(auth.with_mappings(mappings));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gate = Arc::new(Semaphore::new(0));
        let waiting = Arc::<AtomicUsize>::default();
        let handler = Arc::new(Echo {
            gate: gate.clone(),
            waiting: waiting.clone(),
        });
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let transport = transport.into();
        let task = tokio::spawn(async move {
            match tls {
                None => http::serve(listener, handler, auth, transport, stopped).await,
                tls => {
                    let socket = listener;
                    let all = vec![Listener { socket, tls }];
                    http::serve_all(all, handler, auth, transport, stopped).await;
                }
            }
            drop(dir);
        });
        Self {
            address,
            gate,
            waiting,
            stop,
            task,
        }
    }

    async fn connect(&self) -> Client {
        let socket = TcpStream::connect(self.address).await.unwrap();
        Client {
            socket,
            unread: Vec::new(),
        }
    }

    /// One request on a connection of its own.
    async fn ask(&self, request: impl AsRef<[u8]>) -> Reply {
        let mut client = self.connect().await;
        client.send(request).await;
        client.reply().await
    }
}

/// The `Authorization` header of the one user.
fn authorization() -> String {
    let pair = BASE64_STANDARD.encode("ann:secret");
    format!("Authorization: Basic {pair}\r\n")
}

/// A POST to /wsman with these headers (each with its line end) and this body.
fn post(headers: &str, body: &str) -> String {
    let length = body.len();
    format!("POST /wsman HTTP/1.1\r\nHost: h\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
}

fn signed_post(body: &str) -> String {
    post(&authorization(), body)
}

struct Client<S = TcpStream> {
    socket: S,
    unread: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Reply {
    fn all(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(n, _)| n == name);
        named.map(|(_, v)| v.as_str()).collect()
    }

    fn closes(&self) -> bool {
        self.all("connection") == ["close"]
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).await.unwrap();
    }

    async fn reply(&mut self) -> Reply {
        match self.try_reply().await {
            Some(reply) => reply,
            None => panic!("closed after {:?}", String::from_utf8_lossy(&self.unread)),
        }
    }

    /// The next reply; `None` if the server closes instead.
    async fn try_reply(&mut self) -> Option<Reply> {
        let end = loop {
            if let Some(end) = self.unread.windows(4).position(|w| w == b"\r\n\r\n") {
                break end;
            }
            self.more().await?;
        };
        let head = String::from_utf8(self.unread.drain(..end + 4).collect()).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        };
        let mut reply = Reply {
            status: status.parse().unwrap(),
            headers: lines.map(header).collect(),
            body: String::new(),
        };
        if reply.status == 100 {
            return Some(reply);
        }
        assert!(reply.all("transfer-encoding").is_empty(), "T-12: {reply:?}");
        let length = reply.all("content-length")[0].parse().unwrap();
        while self.unread.len() < length {
            self.more().await?;
        }
        reply.body = String::from_utf8(self.unread.drain(..length).collect()).unwrap();
        Some(reply)
    }

    async fn is_closed(&mut self) -> bool {
        self.unread.is_empty() && self.more().await.is_none()
    }

    async fn more(&mut self) -> Option<()> {
        let mut buffer = [0; 4096];
        let read = self.socket.read(&mut buffer);
        let read = tokio::time::timeout(Duration::from_secs(60), read).await;
        match read.expect("the server hangs") {
            Ok(0) | Err(_) => None,
            Ok(n) => {
                self.unread.extend_from_slice(&buffer[..n]);
                Some(())
            }
        }
    }
}
