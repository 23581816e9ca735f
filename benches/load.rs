//! The load: N keep-alive connections that send one request after another and read the answers whole.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Requests answered per second by `address` over `connections` connections.
pub(crate) fn throughput(
    address: SocketAddr,
    request: &[u8],
    connections: usize,
    time: Duration,
) -> f64 {
    throughput_over(address, None, request, connections, time)
}

/// The same over TLS, if there is a connector; the time begins when every handshake is done.
pub(crate) fn throughput_over(
    address: SocketAddr,
    tls: Option<&TlsConnector>,
    request: &[u8],
    connections: usize,
    time: Duration,
) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let work = Work {
            request: Arc::from(request),
            stop: Arc::default(),
            answered: Arc::default(),
        };
        let mut tasks = Vec::new();
        for _ in 0..connections {
            let stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            tasks.push(match tls {
                None => tokio::spawn(work.clone().go_on(stream)),
                Some(tls) => {
                    let name = ServerName::try_from("localhost").unwrap();
                    tokio::spawn(work.clone().go_on(tls.connect(name, stream).await.unwrap()))
                }
            });
        }
        // The first connections are answered while the last ones still shake hands.
        let before = work.answered.load(Ordering::Relaxed);
        let began = Instant::now();
        tokio::time::sleep(time).await;
        let answered = work.answered.load(Ordering::Relaxed) - before;
        let rate = answered as f64 / began.elapsed().as_secs_f64();
        work.stop.store(true, Ordering::Relaxed);
        for task in tasks {
            task.await.unwrap();
        }
        rate
    })
}

/// What every connection does, and how often it was done.
#[derive(Clone)]
struct Work {
    request: Arc<[u8]>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
}

impl Work {
    async fn go_on(self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut buffer = Vec::with_capacity(64 * 1024);
        while !self.stop.load(Ordering::Relaxed) {
            stream.write_all(&self.request).await.unwrap();
            stream.flush().await.unwrap();
            read_answer(&mut stream, &mut buffer).await;
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// One request on a connection of its own: status and body of the answer.
pub(crate) fn exchange(address: SocketAddr, request: &[u8]) -> (u16, Vec<u8>) {
    let (status, body) = Connection::open(address).exchange(request);
    (status, body.into_bytes())
}

/// A connection for one request after another.
pub(crate) struct Connection {
    runtime: tokio::runtime::Runtime,
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let stream = runtime.block_on(TcpStream::connect(address)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            runtime,
            stream,
            buffer: Vec::new(),
        }
    }

    /// Status and body of the answer.
    pub(crate) fn exchange(&mut self, request: &[u8]) -> (u16, String) {
        let Self {
            runtime,
            stream,
            buffer,
        } = self;
        let head = runtime.block_on(async {
            stream.write_all(request).await.unwrap();
            read_answer(stream, buffer).await
        });
        let status = std::str::from_utf8(&buffer[9..12])
            .unwrap()
            .parse()
            .unwrap();
        (status, String::from_utf8(buffer[head..].to_vec()).unwrap())
    }
}

/// Reads one answer into `buffer`; the length of its head.
async fn read_answer(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> usize {
    buffer.clear();
    loop {
        let n = stream.read_buf(buffer).await.unwrap();
        assert!(
            n > 0,
            "connection closed: {}",
            String::from_utf8_lossy(buffer)
        );
        let Some(head) = buffer
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .map(|p| p + 4)
        else {
            continue;
        };
        let text = std::str::from_utf8(&buffer[..head]).unwrap();
        let length: usize = text
            .lines()
            .find_map(|l| {
                l.split_once(':')
                    .filter(|(n, _)| n.eq_ignore_ascii_case("content-length"))
            })
            .map_or(0, |(_, v)| v.trim().parse().unwrap());
        while buffer.len() < head + length {
            assert!(
                stream.read_buf(buffer).await.unwrap() > 0,
                "answer ends early"
            );
        }
        return head;
    }
}
