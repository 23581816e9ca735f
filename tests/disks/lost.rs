//! What the library or the database has lost for a while: nothing that may still be needed is removed, merged or moved.

use std::fs;
use std::path::PathBuf;

use crate::support::server::{run_in, text};
use crate::support::site::{Ground, Image, Machine, Site, assert_holds};
use crate::support::tools::full;
use crate::support::wire::{STARTED, Wire};

/// A machine with two disks on overlays, and sets between its writes.
struct Scene {
    site: Site,
    machine: Machine,
    sets: Vec<String>,
}

impl Scene {
    fn new() -> Self {
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
            sets,
        }
    }

    fn folder(&self) -> PathBuf {
        self.site.data.join("machines").join(&self.machine.id)
    }

    /// Destroys these sets while the machine, or a part of it, is away.
    fn destroy(&self, sets: &[usize]) {
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
    fn assert_whole(&self, what: &str) {
        let _server = self.site.serve();
        for (n, content) in self.machine.content.iter().enumerate() {
            assert_holds(&self.site.top(&self.machine, n), content, what);
        }
    }

    fn doctor(&self, more: &[&str]) -> (Option<i32>, String) {
        let out = run_in(&self.site.data, &[&["doctor"], more].concat(), "");
        let said = text(&out.stdout).to_owned() + &text(&out.stderr);
        (out.status.code(), said)
    }
}

#[test]
fn a_disk_that_a_definition_has_lost_keeps_what_lies_under_it() {
    if !full("a disk that is taken out of its definition") {
        return;
    }
    for sets in [&[2][..], &[1], &[0, 1, 2]] {
        let scene = Scene::new();
        let file = scene.folder().join("vm.toml");
        let whole = fs::read_to_string(&file).unwrap();
        let second = whole.rfind("[[disk]]").unwrap();
        let rest = whole[second..]
            .find("\n[")
            .map_or(whole.len(), |at| second + at);
        fs::write(&file, whole[..second].to_owned() + &whole[rest..]).unwrap();
        scene.destroy(sets);
        fs::write(&file, whole).unwrap();
        scene.assert_whole(&format!("without {sets:?}"));
    }
}

#[test]
fn a_machine_that_is_away_keeps_its_active_files() {
    if !full("a machine that is moved away") {
        return;
    }
    for sets in [&[2][..], &[1], &[0, 1, 2]] {
        let scene = Scene::new();
        let away = scene.site.data.join("away");
        fs::rename(scene.folder(), &away).unwrap();
        scene.destroy(sets);
        fs::rename(&away, scene.folder()).unwrap();
        scene.assert_whole(&format!("without {sets:?}"));
    }
}

#[test]
fn what_may_be_the_active_file_of_a_machine_is_not_moved_by_the_doctor() {
    if !full("machines that cannot be read") {
        return;
    }
    for name in ["vm.toml", "tops.json"] {
        let scene = Scene::new();
        let file = scene.folder().join(name);
        let whole = fs::read(&file).unwrap();
        for bytes in [Some(&b"garbage = ["[..]), None] {
            let before = scene.site.tree().keys().filter(|f| **f != file).count();
            match bytes {
                Some(bytes) => fs::write(&file, bytes).unwrap(),
                None => fs::remove_file(&file).unwrap(),
            }
            let (code, said) = scene.doctor(&["--fix", "--yes"]);
            assert_eq!(code, Some(1), "{name}: {said}");
            let after = scene.site.tree().keys().filter(|f| **f != file).count();
            assert_eq!(after, before, "{name}: {said}");
            assert!(!scene.site.data.join("orphans").exists(), "{name}: {said}");
            fs::write(&file, &whole).unwrap();
        }
        scene.assert_whole(name);
    }
}

#[test]
fn without_its_database_a_data_directory_with_sets_is_refused() {
    if !full("a database that is lost") {
        return;
    }
    let scene = Scene::new();
    let file = scene.site.data.join("groupshot.db");
    let whole = fs::read(&file).unwrap();
    for empty in [true, false] {
        match empty {
            true => fs::write(&file, "").unwrap(),
            false => fs::remove_file(&file).unwrap(),
        }
        for command in [
            &["serve", "--listen", "127.0.0.1:0"][..],
            &["doctor", "--fix", "--yes"],
            &["rescue"],
        ] {
            let out = run_in(&scene.site.data, command, "");
            let said = text(&out.stderr);
            assert_eq!(out.status.code(), Some(1), "{command:?}: {said}");
            assert!(
                said.contains("groupshot.db") && said.contains("sets/"),
                "{said}"
            );
        }
        assert!(
            file.metadata().map_or(0, |m| m.len()) == 0,
            "nothing is made"
        );
    }
    fs::write(&file, whole).unwrap();
    scene.assert_whole("with its database again");
    let server = scene.site.serve();
    assert_eq!(Wire::new(&server).shown().unwrap().sets.len(), 3);
}
