//! A machine with two disks on overlays, and three sets of it.

use std::path::PathBuf;

use crate::support::server::{Server, run_in, text};
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
        let mut scene = Self::bare();
        let mut server = scene.site.serve();
        for byte in 2..5 {
            scene.take(&server, byte);
        }
        server.stop();
        scene
    }

    /// Without a set yet.
    pub(super) fn bare() -> Self {
        let site = Site::new(Ground::Host);
        let machine = site.machine("web", &[Image::Raw, Image::Qcow2], 1);
        let server = site.serve();
        let group = Wire::new(&server).define("all", &[&machine.id]).unwrap();
        Self {
            site,
            machine,
            group,
            sets: Vec::new(),
        }
    }

    /// Writes into the active files and takes a set.
    pub(super) fn take(&mut self, server: &Server, byte: u8) {
        for disk in 0..2 {
            let top = self.site.top(&self.machine, disk);
            let at = usize::from(byte) * 4096;
            self.machine.write(&top, disk, at, 8192, byte);
        }
        let set = Wire::new(server).take(&self.group, &format!("set {byte}"));
        self.sets.push(set);
        self.site.wait_for_journals();
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
