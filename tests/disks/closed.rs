//! What sets keep is closed to writers by its mode. An active file is not taken for that, whatever mode somebody has given
//! it or its image.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::scene::Scene;
use crate::support::wire::{STARTED, Wire};

fn mode(file: &Path) -> u32 {
    fs::metadata(file).unwrap().mode() & 0o7777
}

fn set_mode(file: &Path, mode: u32) {
    fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
}

impl Scene {
    fn actives(&self) -> [std::path::PathBuf; 2] {
        [0, 1].map(|disk| self.site.top(&self.machine, disk))
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_active_file_can_be_written_whatever_mode_the_one_before_it_had() {
    let mut scene = Scene::new();
    scene
        .actives()
        .iter()
        .for_each(|file| set_mode(file, 0o440));
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    let applied = wire.apply(&scene.sets[1]).unwrap();
    assert_eq!(applied.value, STARTED, "{}", wire.why(&applied));
    assert_eq!(wire.end(&applied.job.unwrap()).unwrap().state, 7);
    scene.site.wait_for_journals();
    for active in scene.actives() {
        assert_eq!(mode(&active), 0o640, "its owner can write it");
    }
    // The newest overlay is merged into the one of a set that goes, which becomes the active file.
    scene.take(&server, 7);
    let newest = scene.actives();
    newest.iter().for_each(|file| set_mode(file, 0o440));
    let wire = Wire::new(&server);
    let gone = wire.destroy(scene.sets.last().unwrap()).unwrap();
    assert_eq!(gone.value, STARTED, "{}", wire.why(&gone));
    assert_eq!(wire.end(&gone.job.unwrap()).unwrap().state, 7);
    scene.site.wait_for_journals();
    for (active, before) in scene.actives().iter().zip(&newest) {
        assert_ne!(active, before, "it was merged");
        assert!(active.starts_with(&scene.site.data), "{active:?}");
        assert_eq!(mode(active), 0o640, "{active:?}");
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn who_has_closed_an_active_file_himself_is_told_how_to_open_it() {
    let scene = Scene::new();
    let actives = scene.actives();
    actives.iter().for_each(|file| set_mode(file, 0o444));
    fs::remove_file(scene.folder().join("tops.json")).unwrap();
    let (code, said) = scene.doctor(&["--fix", "--yes"]);
    assert_eq!(code, Some(1), "{said}");
    let opens = format!("`chmod u+w {}`", actives[0].display());
    assert!(said.contains(&opens), "{opens}: {said}");
    let named = format!("disk0={}", actives[0].display());
    let set = ["vm", "set", "web", "--active", &named, "--yes"];
    let out = crate::support::server::run_in(&scene.site.data, &set, "");
    let said = crate::support::server::text(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains(&opens), "{opens}: {said}");
    actives.iter().for_each(|file| set_mode(file, 0o644));
    let (_, said) = scene.doctor(&["--fix", "--yes"]);
    assert!(said.contains("written: disk0 runs on"), "{said}");
    assert_eq!(scene.actives(), actives);
    scene.assert_whole("opened again");
}

/// It was closed again by the end of the create, and is as it was before that.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_a_create_that_fails_had_closed_has_its_own_mode_again() {
    let scene = Scene::new();
    for wanted in [0o444, 0o640] {
        let actives = scene.actives();
        actives.iter().for_each(|file| set_mode(file, wanted));
        let server = scene.site.serve_with(&["create.settle.after=error"]);
        let wire = Wire::new(&server);
        let failed = wire.create(&scene.group, "fails").unwrap();
        assert_eq!(failed.value, STARTED, "{}", wire.why(&failed));
        let job = wire.end(&failed.job.unwrap()).unwrap();
        assert_eq!(job.state, 10, "{job:?}");
        scene.site.wait_for_journals();
        assert_eq!(scene.actives(), actives);
        assert_eq!(actives.each_ref().map(|file| mode(file)), [wanted; 2]);
    }
}
