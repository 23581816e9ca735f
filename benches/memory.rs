//! Row 3: resident memory of the server process, at rest and while a thousand connections are busy.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::process::Process;
use crate::{load, subject, verdict};

/// At rest, in MiB.
const AT_REST: f64 = 15.0;
/// With [`CONNECTIONS`] busy ones, in MiB.
const BUSY: f64 = 40.0;
const CONNECTIONS: usize = 1000;

pub(crate) fn run(short: bool) {
    let time = Duration::from_secs(if short { 1 } else { 10 });
    let server = Process::start(3);
    let get = subject::get(server.address);
    thread::sleep(time / 5);
    let fresh = server.resident();
    let (status, _) = load::exchange(server.address, &get);
    assert_eq!(status, 200);
    thread::sleep(time / 5);
    let rest = server.resident();
    println!(
        "at rest: {fresh:.1} MiB, after the first login {rest:.1} MiB, target <= {AT_REST}: {}",
        verdict(rest <= AT_REST)
    );
    let done = AtomicBool::new(false);
    let most = thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0_f64;
            while !done.load(Ordering::Relaxed) {
                most = most.max(server.resident());
                thread::sleep(Duration::from_millis(20));
            }
            most
        });
        load::throughput(server.address, &get, CONNECTIONS, time);
        done.store(true, Ordering::Relaxed);
        watch.join().unwrap()
    });
    println!(
        "{CONNECTIONS} connections busy with Get: {most:.1} MiB at most, target <= {BUSY}: {}",
        verdict(most <= BUSY)
    );
}
