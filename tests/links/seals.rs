//! Seals are neither thrown away nor made anew from what merely stands at a path: not by a destroy while a folder is
//! hidden, not by a repair, not for a file that has but the name of a clone.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::scene::{COMPLETED, INVALID_STATE, Scene, end, seen};
use crate::support::gate::Gate;
use crate::support::site::{Ground, Image, Machine, SIZE, assert_holds};
use crate::support::wire::Wire;

/// The second machine, with a disk in the folder of the second user that is cloned, and one on the host's file system
/// that is kept by overlays.
fn of_two_disks(scene: &Scene) -> Machine {
    let cloned = scene.image.with_file_name("two.raw");
    let covered = scene.site.data.with_file_name("two-1.raw");
    for (file, byte) in [(&cloned, 3), (&covered, 4)] {
        fs::write(file, vec![byte; SIZE]).unwrap();
    }
    std::os::unix::fs::chown(&cloned, Some(65_534), Some(65_534)).unwrap();
    let args = [
        "--overlay-ok",
        cloned.to_str().unwrap(),
        covered.to_str().unwrap(),
    ];
    let content = vec![vec![3; SIZE], vec![4; SIZE]];
    scene.site.import("two", &args, content)
}

/// What the record beside the files of a set says of its disks, by their ids: how many files are sealed.
fn sealed(scene: &Scene, set: &str) -> Vec<(String, usize)> {
    let file = scene.site.data.join("sets").join(set).join("set.json");
    let record: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let members = record["set"]["members"].as_array().unwrap().iter();
    let disks = members.flat_map(|m| m["disks"].as_array().unwrap());
    let count = |d: &serde_json::Value| d["sealed"].as_array().map_or(0, Vec::len);
    disks
        .map(|d| (d["id"].as_str().unwrap().to_owned(), count(d)))
        .collect()
}

/// Puts a file of root in the place of a clone, in folders of the second user; the server's lie aside.
fn pose(scene: &Scene, kept: &Path) -> PathBuf {
    let folder = kept.parent().unwrap();
    let ours = folder.parent().unwrap();
    let secret = ours.with_file_name("of-root");
    fs::copy(&scene.victim, &secret).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    if ours.exists() {
        scene.other(&[&"mv", &ours, &ours.with_file_name("aside")]);
    }
    scene.other(&[&"mkdir", &"-p", &folder]);
    scene.other(&[&"mv", &secret, &kept]);
    ours.with_file_name("aside")
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_destroy_throws_no_seal_away_while_a_folder_is_hidden() {
    let scene = Scene::new(Ground::Xfs, Image::Raw, &[]);
    let two = of_two_disks(&scene);
    let exports = scene.site.images.join("exports");
    fs::create_dir(&exports).unwrap();
    let gate = Gate::new();
    let server = scene.serve_exporting(&exports, &gate.at("destroy.unlink.after"));
    let wire = Wire::new(&server);
    let group = wire.define("two", &[&two.id]).unwrap();
    let sets = ["one", "two"].map(|name| {
        let set = wire.take(&group, name);
        scene.site.wait_for_journals();
        set
    });
    let kept = wire.shown().unwrap().sets[&sets[1]].members[0].disks["disk0"].clone();
    let ours = kept.ancestors().nth(2).unwrap().to_owned();
    let aside = ours.with_file_name("aside");
    let all = [("disk0".to_owned(), 1), ("disk1".to_owned(), 1)];
    let gone = wire.destroy(&sets[0]).unwrap();
    scene.is_at_the_gate(&wire, (&gone, &gate), "merged");
    scene.other(&[&"mv", &ours, &aside]);
    gate.open();
    assert_eq!(end(&wire, &gone, "hidden").state, COMPLETED);
    scene.site.wait_for_journals();
    assert_eq!(sealed(&scene, &sets[1]), all);
    let looked = || scene.doctor(&["--json"]);
    looked();
    assert!(!wire.shown().unwrap().sets[&sets[1]].is_damaged(), "away");
    // It comes back with a file of root in the clone's place.
    pose(&scene, &kept);
    let before = seen(&kept);
    looked();
    assert!(wire.shown().unwrap().sets[&sets[1]].is_damaged());
    let refused = wire.export(&sets[1], exports.to_str().unwrap(), None);
    assert_ne!(refused.unwrap().value, 0);
    assert_eq!(fs::read_dir(&exports).unwrap().count(), 0);
    assert_eq!(seen(&kept), before);
    // And as it was.
    fs::remove_dir_all(&ours).unwrap();
    fs::rename(&aside, &ours).unwrap();
    let said = scene.doctor(&["--fix", "--yes", "--accept-damaged"]);
    let shown = wire.shown().unwrap();
    assert!(!shown.sets[&sets[1]].is_damaged(), "{said}");
    for (disk, byte) in [("disk0", 3), ("disk1", 4)] {
        let file = &shown.sets[&sets[1]].members[0].disks[disk];
        assert_holds(file, &vec![byte; SIZE], disk);
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_merge_into_a_file_that_was_exchanged_since_shows_as_damage() {
    let mut scene = Scene::new(Ground::Host, Image::Raw, &["--overlay-ok"]);
    let gate = Gate::new();
    let server = scene.site.serve_with(&[&gate.at("destroy.unlink.after")]);
    let (wire, first) = scene.with_a_set(&server);
    scene.writes(7);
    let group = wire.define("again", &[&scene.machine.id]).unwrap();
    let second = wire.take(&group, "two");
    scene.site.wait_for_journals();
    // The image has the content of the second set now, and is exchanged for another file of the same owner.
    let gone = wire.destroy(&first).unwrap();
    scene.is_at_the_gate(&wire, (&gone, &gate), "merged");
    let aside = scene.image.with_extension("aside");
    scene.other(&[&"mv", &scene.image, &aside]);
    scene.other(&[&"cp", &"-a", &aside, &scene.image]);
    gate.open();
    assert_eq!(end(&wire, &gone, "exchanged").state, COMPLETED);
    scene.site.wait_for_journals();
    scene.doctor(&[]);
    assert!(wire.shown().unwrap().sets[&second].is_damaged());
    let refused = wire.apply(&second).unwrap();
    assert_eq!(refused.value, INVALID_STATE, "{}", wire.why(&refused));
}

/// With a server and without.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_has_but_the_name_of_a_clone_is_not_accepted_as_damage() {
    let scene = Scene::new(Ground::Xfs, Image::Raw, &[]);
    let server = scene.site.serve();
    let (wire, set) = scene.with_a_set(&server);
    let kept = wire.shown().unwrap().sets[&set].members[0].disks["disk0"].clone();
    drop((wire, server));
    let ours = kept.ancestors().nth(2).unwrap().to_owned();
    for running in [false, true] {
        let server = running.then(|| scene.site.serve());
        let aside = pose(&scene, &kept);
        let before = seen(&kept);
        let inode = fs::metadata(&kept).unwrap().ino();
        let said = scene.doctor(&["--fix", "--yes", "--accept-damaged"]);
        let told = format!("{} (inode {inode} of user 0)", kept.display());
        assert!(said.contains(&told), "{running}: {said}");
        assert!(said.contains("not repaired"), "{running}: {said}");
        assert_eq!(seen(&kept), before, "{running}: {said}");
        let own = server.unwrap_or_else(|| scene.site.serve());
        let wire = Wire::new(&own);
        assert!(wire.shown().unwrap().sets[&set].is_damaged(), "{said}");
        let refused = wire.apply(&set).unwrap();
        assert_eq!(refused.value, INVALID_STATE, "{}", wire.why(&refused));
        assert_eq!(seen(&kept), before);
        drop((wire, own));
        fs::remove_dir_all(&ours).unwrap();
        fs::rename(&aside, &ours).unwrap();
        let said = scene.doctor(&["--fix", "--yes", "--accept-damaged"]);
        assert!(said.contains("accepted: "), "{running}: {said}");
    }
    assert_holds(&kept, &scene.machine.content[0], "kept");
}
