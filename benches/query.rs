//! Queries at a thousand and a hundred thousand instances: what is looked up costs the same, what is filtered costs
//! its share of every instance.

use std::time::Instant;

use crate::process::Process;
use crate::{load, median, spread, subject, verdict};

/// A look-up among a hundred times the instances may take so many times as long.
const LOOK_UP_TIMES: f64 = 1.5;
/// A filtered walk over a hundred times the instances may take so many times as long per instance.
const FILTER_TIMES: f64 = 1.2;

pub(crate) fn run(short: bool) {
    let (many, rounds) = if short { (10_000, 20) } else { (100_000, 200) };
    let (large, small) = (Process::start(many), Process::start(1000));
    let key = "SELECT * FROM Msvm_ComputerSystem WHERE CreationClassName='Msvm_ComputerSystem' \
               AND Name='5EED51B0-0000-4000-8000-0000000001F4'";
    let by = |condition: &str| format!("SELECT * FROM Msvm_ComputerSystem WHERE {condition}");
    let rows = [
        ("keys", key.to_owned(), rounds, 1),
        (
            "Name alone",
            by("Name='5EED51B0-0000-4000-8000-0000000001F4'"),
            rounds,
            1,
        ),
        ("ElementName", by("ElementName='sim-000500'"), rounds, 1),
        (
            "filter",
            by("Caption='Virtual Machine' AND ElementName LIKE 'sim-00050[0-9]'"),
            rounds / 10,
            10,
        ),
    ];
    for (name, text, rounds, hits) in rows {
        let (mut at_large, mut at_small) = (Vec::new(), Vec::new());
        // The first of each is not counted: it logs on, and makes the index.
        for round in 0..=rounds {
            for (server, times) in [(&large, &mut at_large), (&small, &mut at_small)] {
                let took = ask(server, &text, hits);
                if round > 0 {
                    times.push(took);
                }
            }
        }
        let (low, high) = spread(at_large.clone());
        let (large, small) = (median(at_large), median(at_small));
        let growth = large / small;
        let (label, value, limit) = match hits {
            1 => ("growth", growth, LOOK_UP_TIMES),
            _ => (
                "growth per instance",
                growth * 1000.0 / many as f64,
                FILTER_TIMES,
            ),
        };
        println!(
            "query by {name}: {large:.0} us ({low:.0}..{high:.0}) among {many}, {small:.0} us among 1000, \
             {label} {value:.2}, target <= {limit}: {}",
            verdict(value <= limit)
        );
    }
}

/// Microseconds of one query that has so many hits.
fn ask(server: &Process, text: &str, hits: usize) -> f64 {
    let request = subject::query(server.address, text);
    let mut connection = load::Connection::open(server.address);
    let began = Instant::now();
    let (status, answer) = connection.exchange(&request);
    let took = began.elapsed().as_secs_f64() * 1e6;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        answer.matches("</p:Msvm_ComputerSystem>").count(),
        hits,
        "{answer}"
    );
    took
}
