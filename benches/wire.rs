//! Row 1: requests answered per second over kept-alive connections, over what a bare hyper server answers that reads
//! the same bytes and sends an answer of the same size.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::subject::{self, Subject};
use crate::{ceiling, load, median, spread, verdict};

/// What a row asks for.
struct Row {
    name: &'static str,
    target: f64,
    request: fn(SocketAddr, &str) -> Vec<u8>,
}

const ROWS: [Row; 4] = [
    Row {
        name: "Identify",
        target: 0.70,
        request: |address, _| subject::identify(address),
    },
    Row {
        name: "Get",
        target: 0.60,
        request: |address, _| subject::get(address),
    },
    Row {
        name: "Invoke GetErrorEx",
        target: 0.50,
        request: subject::get_error_ex,
    },
    Row {
        name: "Enumerate of 4",
        target: 0.50,
        request: |address, _| subject::enumerate(address),
    },
];

pub(crate) fn run(short: bool) {
    let (rounds, time) = match short {
        true => (3, Duration::from_millis(100)),
        false => (21, Duration::from_millis(400)),
    };
    let runtime = Runtime::new().unwrap();
    let subject = Subject::start(&runtime);
    let job = subject::ended_job(subject.address);
    for row in ROWS {
        let request = (row.request)(subject.address, &job);
        let (status, answer) = load::exchange(subject.address, &request);
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
        let sizes = (request.len(), answer.len());
        let ceiling = ceiling::serve(&runtime, status, answer);
        for connections in [8, 64] {
            let measure = |address| load::throughput(address, &request, connections, time);
            let pair = || (measure(subject.address), measure(ceiling));
            pair();
            let pairs: Vec<(f64, f64)> = (0..rounds).map(|_| pair()).collect();
            let ratios: Vec<f64> = pairs.iter().map(|(ours, bare)| ours / bare).collect();
            let (low, high) = spread(ratios.clone());
            let ratio = median(ratios);
            println!(
                "{:18} {connections:2} connections: {:6.0}/s, bare {:6.0}/s, ratio {ratio:.2} ({low:.2}..{high:.2}), \
                 target >= {:.2}: {}   [{} B in, {} B out]",
                row.name,
                median(pairs.iter().map(|p| p.0).collect()),
                median(pairs.iter().map(|p| p.1).collect()),
                row.target,
                verdict(ratio >= row.target),
                sizes.0,
                sizes.1,
            );
        }
    }
}
