//! What several tests share: the real program as a child process, clients, real disks.

pub(crate) mod chance;
pub(crate) mod disk;
pub(crate) mod gate;
pub(crate) mod guest;
pub(crate) mod http;
pub(crate) mod journal;
pub(crate) mod pages;
pub(crate) mod pki;
pub(crate) mod qemu;
pub(crate) mod remote;
pub(crate) mod server;
pub(crate) mod site;
pub(crate) mod tools;
pub(crate) mod wire;

use std::time::{Duration, Instant};

/// Waits until it is so, as long as a busy host may take for it.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "not so: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
