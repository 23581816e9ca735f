//! Row 6: from a CreateSnapshot request to its answer that the job is durable, over one fdatasync of the same disk:
//! of a simulated machine, and of one machine of a library of many with real images.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use crate::process::Process;
use crate::subject::{self, Subject};
use crate::{load, median, spread, verdict};

/// What the design allows.
const TARGET: f64 = 3.0;

pub(crate) fn run(short: bool) {
    let rounds = if short { 5 } else { 101 };
    let runtime = Runtime::new().unwrap();
    let subject = Subject::start(&runtime);
    let (accepts, syncs, ratios) = measured(subject.address, "sim-000001", rounds);
    let (low, high) = spread(ratios.clone());
    let ratio = median(ratios);
    println!(
        "CreateSnapshot accepted: {:.0} us, one fdatasync {:.0} us, ratio {ratio:.2} ({low:.2}..{high:.2}), \
         target <= {TARGET}: {}",
        median(accepts),
        median(syncs),
        verdict(ratio <= TARGET)
    );
    drop(subject);
    let (many, rounds) = if short { (10, 3) } else { (200, 21) };
    let [one, many_of] = [1, many].map(|machines| of_a_library(machines, rounds));
    println!(
        "the same of one machine with a real image: {one:.0} us; of one of {many} such machines: {many_of:.0} us, \
         ratio {:.2}",
        many_of / one
    );
}

/// Microseconds until a set of one of so many machines is accepted.
fn of_a_library(machines: usize, rounds: u32) -> f64 {
    let (data, images) = (subject::data_dir(), tempfile::tempdir().unwrap());
    for n in 0..machines {
        let image = images.path().join(format!("image-{n}.raw"));
        File::create(&image).unwrap().set_len(1 << 20).unwrap();
        let (name, image) = (format!("machine-{n}"), image.to_str().unwrap());
        subject::local(data.path(), &["vm", "import", "--overlay-ok", &name, image]);
    }
    let server = Process::serving(data, &[]);
    let (accepts, _, _) = measured(server.address, "machine-0", rounds);
    median(accepts)
}

/// Sets of a collection with this machine, one after the other: microseconds until each was accepted, those of a sync
/// before it, and the one over the other.
fn measured(address: SocketAddr, machine: &str, rounds: u32) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let made = subject::command(address, &["collection", "create", "accept", machine]);
    let collection = made["id"].as_str().unwrap_or_else(|| panic!("{made}"));
    let request = subject::create_snapshot(address, collection);
    let mut connection = load::Connection::open(address);
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
        while running(address) {
            thread::sleep(Duration::from_millis(2));
        }
        accepts.push(accept);
        syncs.push(sync);
        ratios.push(accept / sync);
    }
    (accepts, syncs, ratios)
}

fn running(address: SocketAddr) -> bool {
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
