//! Whether one request stalls another: Identify of an administrator while a reader has 40 queries of 500 terms under
//! way, over Identify with nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::process::Process;
use crate::{load, subject, verdict};

/// The slowest of a hundred Identify may take so many times as long beside the queries.
const TIMES: f64 = 3.0;
/// Queries at a time.
const QUERIES: usize = 40;

pub(crate) fn run(short: bool) {
    let (machines, rounds) = if short { (50, 1) } else { (200, 4) };
    let server = Process::start(machines);
    let identify = subject::identify(server.address);
    let term = "__PATH LIKE '%r%o%o%t%v%zz'";
    let condition = vec![term; 500].join(" OR ");
    let text = format!("SELECT * FROM Msvm_ComputerSystem WHERE {condition}");
    let query = Arc::new(subject::as_reader(subject::query(server.address, &text)));
    // Both log on before anything is measured.
    let _verified = load::exchange(server.address, &identify);
    let (status, answer) = load::exchange(server.address, &query);
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        alone.extend(times(&server, &identify));
        let stop = Arc::new(AtomicBool::new(false));
        let readers = (0..QUERIES).map(|_| {
            let (query, stop, address) = (query.clone(), stop.clone(), server.address);
            thread::spawn(move || {
                let mut answered = 0;
                while !stop.load(Ordering::Relaxed) {
                    let (status, _) = load::exchange(address, &query);
                    assert!(matches!(status, 200 | 500));
                    answered += 1;
                }
                answered
            })
        });
        let readers: Vec<_> = readers.collect();
        // All of them are under way by then.
        thread::sleep(Duration::from_millis(500));
        beside.extend(times(&server, &identify));
        stop.store(true, Ordering::Relaxed);
        let answered: u32 = readers.into_iter().map(|r| r.join().unwrap()).sum();
        println!("fair: {answered} queries answered meanwhile");
    }
    let (alone, beside) = (worst(alone), worst(beside));
    let ratio = beside / alone;
    println!(
        "fair: Identify p99 {beside:.0} us beside {QUERIES} queries, {alone:.0} us without, ratio {ratio:.2}, \
         target <= {TIMES}: {}",
        verdict(ratio <= TIMES)
    );
}

/// Microseconds of each Identify, one after the other with a pause between, for some seconds.
fn times(server: &Process, identify: &[u8]) -> Vec<f64> {
    let mut connection = load::Connection::open(server.address);
    let mut times = Vec::new();
    for _ in 0..200 {
        let began = Instant::now();
        let (status, _) = connection.exchange(identify);
        times.push(began.elapsed().as_secs_f64() * 1e6);
        assert_eq!(status, 200);
        thread::sleep(Duration::from_millis(10));
    }
    times
}

/// Of a hundred the slowest.
fn worst(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() - 1 - times.len() / 100]
}
