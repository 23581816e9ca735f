//! Whether one request stalls another: Identify of an administrator while a reader has 40 queries of 500 terms under
//! way, over Identify with nothing else; and while one reads the machines of a library with an image that does not
//! answer, over the same with the image answering.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::process::Process;
use crate::remote::Remote;
use crate::{load, subject, verdict};

/// The slowest of a hundred Identify may take so many times as long beside the queries.
const TIMES: f64 = 3.0;
/// Queries at a time.
const QUERIES: usize = 40;
/// Connections that read machines beside an image that does not answer.
const READERS: usize = 4;

pub(crate) fn run(short: bool) {
    beside_queries(short);
    beside_a_silent_image(short);
}

fn beside_queries(short: bool) {
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
        let (slow, answered) = times_beside(&server, &identify, &query, QUERIES);
        beside.extend(slow);
        println!("fair: {answered} queries answered meanwhile");
    }
    told(&format!("{QUERIES} queries"), "without", alone, beside);
}

/// Machines with an image each, one of them served by a process that stops: a reader goes on asking for what is read
/// from images.
fn beside_a_silent_image(short: bool) {
    let (machines, rounds) = if short { (5, 1) } else { (50, 4) };
    let (data, images) = (subject::data_dir(), tempfile::tempdir().unwrap());
    let import = |name: &str, file: &Path| {
        let file = file.to_str().unwrap();
        subject::local(data.path(), &["vm", "import", name, file]);
    };
    for n in 0..machines {
        let image = images.path().join(format!("image-{n}.raw"));
        File::create(&image).unwrap().set_len(1 << 20).unwrap();
        import(&format!("machine-{n}"), &image);
    }
    let remote = Remote::new(images.path(), "remote");
    import("silent", &remote.image);
    let server = Process::serving(data, &[]);
    let identify = subject::identify(server.address);
    let text = "SELECT * FROM Msvm_StorageAllocationSettingData";
    let query = Arc::new(subject::as_reader(subject::query(server.address, text)));
    let _verified = load::exchange(server.address, &identify);
    let (status, answer) = load::exchange(server.address, &query);
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
    let (mut healthy, mut silent) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        healthy.extend(times_beside(&server, &identify, &query, READERS).0);
        remote.stop();
        let (slow, answered) = times_beside(&server, &identify, &query, READERS);
        remote.go_on();
        silent.extend(slow);
        println!("fair: {answered} enumerations answered with an image that is silent");
    }
    told("a silent image", "with all answering", healthy, silent);
}

fn told(beside: &str, without: &str, alone: Vec<f64>, slow: Vec<f64>) {
    let (alone, slow) = (worst(alone), worst(slow));
    let ratio = slow / alone;
    println!(
        "fair: Identify p99 {slow:.0} us beside {beside}, {alone:.0} us {without}, ratio {ratio:.2}, \
         target <= {TIMES}: {}",
        verdict(ratio <= TIMES)
    );
}

/// The times of Identify while so many connections send the query over and over, and how many were answered.
fn times_beside(
    server: &Process,
    identify: &[u8],
    query: &Arc<Vec<u8>>,
    connections: usize,
) -> (Vec<f64>, u32) {
    let stop = Arc::new(AtomicBool::new(false));
    let readers = (0..connections).map(|_| {
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
    let times = times(server, identify);
    stop.store(true, Ordering::Relaxed);
    let answered = readers.into_iter().map(|r| r.join().unwrap()).sum();
    (times, answered)
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
