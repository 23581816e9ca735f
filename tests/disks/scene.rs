//! A machine with two disks on overlays, and three sets of it.

use std::path::PathBuf;

use crate::support::server::{run_in, text};
use crate::support::site::{Ground, Image, Machine, Site, assert_holds};
use crate::support::wire::{STARTED, Wire};

/// A machine with two disks on overlays, and sets between its writes.
pub(super) struct Scene {
    pub(super) site: Site,
    pub(super) machine: Machine,
    pub(super) group: String,
    pub(super) sets: Vec<String>,
}

impl Scene {
    pub(super) fn new() -> Self {
        let site = Site::new(Ground::Host);
        let mut machine = site.machine("web", &[Image::Raw, Image::Qcow2], 1);
        let mut server = site.serve();
        let wire = Wire::new(&server);
        let group = wire.define("all", &[&machine.id]).unwrap();
        let mut sets = Vec::new();
        for byte in 2..5 {
            for disk in 0..2 {
                let top = site.top(&machine, disk);
                machine.write(&top, disk, usize::from(byte) * 4096, 8192, byte);
            }
            sets.push(wire.take(&group, &format!("set {byte}")));
            site.wait_for_journals();
        }
        server.stop();
        Self {
            site,
            machine,
            group,
            sets,
        }
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.site.data.join("machines").join(&self.machine.id)
    }

    /// Destroys these sets while the machine, or a part of it, is away.
    pub(super) fn destroy(&self, sets: &[usize]) {
        let server = self.site.serve();
        let wire = Wire::new(&server);
        for set in sets {
            let gone = wire.destroy(&self.sets[*set]).unwrap();
            assert_eq!(gone.value, STARTED, "{}", wire.why(&gone));
            let job = wire.end(&gone.job.unwrap()).unwrap();
            assert_eq!(job.state, 7, "{job:?}");
            self.site.wait_for_journals();
        }
    }

    /// The active disks hold what the machine wrote.
    pub(super) fn assert_whole(&self, what: &str) {
        let _server = self.site.serve();
        for (n, content) in self.machine.content.iter().enumerate() {
            assert_holds(&self.site.top(&self.machine, n), content, what);
        }
    }

    pub(super) fn doctor(&self, more: &[&str]) -> (Option<i32>, String) {
        let out = run_in(&self.site.data, &[&["doctor"], more].concat(), "");
        let said = text(&out.stdout).to_owned() + &text(&out.stderr);
        (out.status.code(), said)
    }
}
