//! Row 7: requests answered per second over kept-alive connections with TLS, over the same without.

use std::time::Duration;

use groupshot::config::Config;
use groupshot::engine::settings::EngineKind;
use groupshot::server::Server;
use groupshot::tls::{Trust, connector};
use tokio::runtime::Runtime;

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
    runtime.spawn(async move { server.run_until(std::future::pending()).await });
    let trust = Trust {
        insecure: true,
        ..Trust::default()
    };
    let tls = connector(&trust).unwrap();
    let request = subject::get(plain);
    assert_eq!(load::exchange(plain, &request).0, 200);
    for connections in [8, 64] {
        let with = || load::throughput_over(secure, Some(&tls), &request, connections, time);
        let without = || load::throughput(plain, &request, connections, time);
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
