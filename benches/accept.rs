//! Row 6: from a CreateSnapshot request to its answer that the job is durable, over one fdatasync of the same disk.

use std::fs::File;
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use crate::subject::{self, Subject};
use crate::{load, median, spread, verdict};

/// What the design allows.
const TARGET: f64 = 3.0;

pub(crate) fn run(short: bool) {
    let rounds = if short { 5 } else { 101 };
    let runtime = Runtime::new().unwrap();
    let subject = Subject::start(&runtime);
    let made = subject::command(
        subject.address,
        &["collection", "create", "accept", "sim-000001"],
    );
    let collection = made["id"].as_str().unwrap_or_else(|| panic!("{made}"));
    let request = subject::create_snapshot(subject.address, collection);
    let mut connection = load::Connection::open(subject.address);
    let disk = tempfile::tempdir().unwrap();
    let mut file = File::create(disk.path().join("one")).unwrap();
    let (mut accepts, mut syncs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let sync = microseconds(|| {
            file.write_all(&[1; 4096]).unwrap();
            file.sync_data().unwrap();
        });
        let mut answer = (0, String::new());
        let accept = microseconds(|| answer = connection.exchange(&request));
        assert!(answer.1.contains("ReturnValue>4096<"), "{}", answer.1);
        // The next request is for the same collection, which is held until the job ends.
        while running(subject.address) {
            thread::sleep(Duration::from_millis(2));
        }
        accepts.push(accept);
        syncs.push(sync);
        ratios.push(accept / sync);
    }
    let (low, high) = spread(ratios.clone());
    let ratio = median(ratios);
    println!(
        "CreateSnapshot accepted: {:.0} us, one fdatasync {:.0} us, ratio {ratio:.2} ({low:.2}..{high:.2}), \
         target <= {TARGET}: {}",
        median(accepts),
        median(syncs),
        verdict(ratio <= TARGET)
    );
}

fn running(address: std::net::SocketAddr) -> bool {
    let jobs = subject::command(address, &["job", "list"]);
    let jobs = jobs["jobs"].as_array().unwrap();
    let ended = ["completed", "terminated", "killed", "failed"];
    jobs.iter()
        .any(|j| !ended.contains(&j["state"].as_str().unwrap()))
}

fn microseconds(work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    began.elapsed().as_secs_f64() * 1e6
}
