//! Row 7: requests answered per second over kept-alive connections with TLS, over the same without.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use groupshot::config::{Config, EngineKind};
use groupshot::server::Server;
use groupshot::tls::{Trust, connector};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

use crate::{load, median, spread, subject, verdict};

/// Of ours: encryption may cost so much.
const TARGET: f64 = 0.70;

pub(crate) fn run(short: bool) {
    let (rounds, time) = match short {
        true => (3, Duration::from_millis(100)),
        false => (21, Duration::from_millis(400)),
    };
    let runtime = Runtime::new().unwrap();
    let data = subject::data_dir();
    let mut config = Config::default();
    config.listen.http.set_port(0);
    config.listen.https = Some("127.0.0.1:0".parse().unwrap());
    config.engine.default = EngineKind::Sim;
    let server = runtime
        .block_on(Server::start(data.path(), &config))
        .unwrap();
    let (plain, secure) = (server.address(), server.secure_address().unwrap());
    runtime.spawn(server.run_until(std::future::pending()));
    let trust = Trust {
        insecure: true,
        ..Trust::default()
    };
    let tls = connector(&trust).unwrap();
    let request: Arc<[u8]> = Arc::from(subject::get(plain));
    assert_eq!(load::exchange(plain, &request).0, 200);
    for connections in [8, 64] {
        let with = || throughput(secure, Some(&tls), &request, connections, time);
        let without = || throughput(plain, None, &request, connections, time);
        let pair = || (with(), without());
        pair();
        let pairs: Vec<(f64, f64)> = (0..rounds).map(|_| pair()).collect();
        let ratios: Vec<f64> = pairs.iter().map(|(with, without)| with / without).collect();
        let (low, high) = spread(ratios.clone());
        let ratio = median(ratios);
        println!(
            "Get {connections:2} connections: with TLS {:6.0}/s, plain {:6.0}/s, ratio {ratio:.2} ({low:.2}..{high:.2}), \
             target >= {TARGET:.2}: {}",
            median(pairs.iter().map(|p| p.0).collect()),
            median(pairs.iter().map(|p| p.1).collect()),
            verdict(ratio >= TARGET),
        );
    }
}

/// Requests answered per second, once every handshake is done.
fn throughput(
    address: std::net::SocketAddr,
    tls: Option<&TlsConnector>,
    request: &Arc<[u8]>,
    connections: usize,
    time: Duration,
) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let mut tasks = Vec::new();
        for _ in 0..connections {
            let stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let more = (request.clone(), stop.clone(), answered.clone());
            tasks.push(match tls {
                None => tokio::spawn(busy(stream, more)),
                Some(tls) => {
                    let name = ServerName::try_from("localhost").unwrap();
                    tokio::spawn(busy(tls.connect(name, stream).await.unwrap(), more))
                }
            });
        }
        let began = Instant::now();
        tokio::time::sleep(time).await;
        stop.store(true, Ordering::Relaxed);
        let rate = answered.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
        for task in tasks {
            task.await.unwrap();
        }
        rate
    })
}

type Work = (Arc<[u8]>, Arc<AtomicBool>, Arc<AtomicU64>);

async fn busy(mut stream: impl AsyncRead + AsyncWrite + Unpin, (request, stop, answered): Work) {
    let mut buffer = Vec::with_capacity(64 * 1024);
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(&request).await.unwrap();
        stream.flush().await.unwrap();
        load::read_answer(&mut stream, &mut buffer).await;
        answered.fetch_add(1, Ordering::Relaxed);
    }
}
