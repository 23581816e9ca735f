//! What is refused, what fails, what is cancelled: nothing of it leaves anything.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use crate::support::gate::Gate;
use crate::support::server::{run_in, text};
use crate::support::site::{Ground, Site};
use crate::support::tools::Mount;
use crate::support::wire::Wire;

use super::{Rig, STARTED, content};

fn settings(class: &str, property: &str, ty: &str, value: &str) -> String {
    format!(
        "<INSTANCE CLASSNAME=\"{class}\"><PROPERTY NAME=\"{property}\" TYPE=\"{ty}\">\
         <VALUE>{value}</VALUE></PROPERTY></INSTANCE>"
    )
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn no_way_leads_out_of_the_roots() {
    let rig = Rig::new(Ground::Host);
    let outside = rig.site.images.join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, rig.root.join("link")).unwrap();
    symlink("../outside", rig.root.join("up")).unwrap();
    fs::write(rig.root.join("file"), b"").unwrap();
    let server = rig.serve("");
    let wire = Wire::new(&server);
    let set = wire.take(&rig.group(&wire), "0001");
    rig.site.wait_for_journals();
    let left = rig.left();
    let root = rig.root();
    let table = [
        ("", "absolute"),
        ("exports", "absolute"),
        ("C:\\exports", "absolute"),
        (outside.to_str().unwrap(), "[export] roots"),
        ("/", "[export] roots"),
        (&format!("{root}-not"), "[export] roots"),
        (&format!("{root}/../outside"), "[export] roots"),
        (&format!("{root}/link"), "[export] roots"),
        (&format!("{root}/up"), "[export] roots"),
        (&format!("{root}/nowhere"), "is not there"),
        (&format!("{root}/file"), "not a directory"),
    ];
    for (directory, word) in table {
        let refused = wire.export(&set, directory, None).unwrap();
        assert_eq!(refused.value, 32773, "{directory}");
        let why = wire.why(&refused);
        assert!(
            why.contains("ExportDirectory") && why.contains(word),
            "{directory}: {why}"
        );
    }
    assert_eq!(rig.left(), left);
    assert!(fs::read_dir(&outside).unwrap().next().is_none());
    drop(server);
    // Without a configured root there is nowhere to export to.
    fs::write(&rig.config, "").unwrap();
    let server = rig.serve("");
    let wire = Wire::new(&server);
    let refused = wire.export(&set, root, None).unwrap();
    assert_eq!(refused.value, 32773);
    assert!(wire.why(&refused).contains("exports nowhere"));
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn bad_settings_sets_and_targets_have_their_own_values() {
    let rig = Rig::new(Ground::Host);
    let server = rig.serve("");
    let wire = Wire::new(&server);
    let group = rig.group(&wire);
    let set = wire.take(&group, "0001");
    let class = "Msvm_CollectionSnapshotExportSettingData";
    let table = [
        (settings(class, "BackupIntent", "uint16", "3"), 32773),
        (settings(class, "BackupIntent", "uint16", "0"), 32773),
        (settings(class, "NoSuch", "string", "x"), 32773),
        (
            settings(
                "Msvm_VirtualSystemSnapshotSettingData",
                "ElementName",
                "string",
                "x",
            ),
            32773,
        ),
        ("<INSTANCE".to_owned(), 32773),
        (
            settings(class, "DifferentialBackupBase", "string", "x"),
            32770,
        ),
    ];
    for (text, value) in table {
        let refused = wire.export(&set, rig.root(), Some(&text)).unwrap();
        assert_eq!(refused.value, value, "{text}");
        assert!(!wire.why(&refused).is_empty());
    }
    let unknown = "00000000-0000-4000-8000-00000000DEAD";
    for bad in [unknown, group.as_str()] {
        assert_eq!(wire.export(bad, rig.root(), None).unwrap().value, 32773);
    }
    fs::create_dir(rig.root.join(&set)).unwrap();
    let refused = wire.export(&set, rig.root(), None).unwrap();
    assert_eq!(refused.value, 32775);
    assert!(
        wire.why(&refused).contains("exists"),
        "{}",
        wire.why(&refused)
    );
    assert_eq!(rig.left(), [set]);
}

/// Somebody makes the target while the export is at work.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_target_that_comes_meanwhile_is_not_replaced_and_not_removed() {
    let rig = Rig::new(Ground::Host);
    let gate = Gate::new();
    let server = rig.serve(&gate.at("export.manifest.after"));
    let wire = Wire::new(&server);
    let set = wire.take(&rig.group(&wire), "0001");
    let started = wire.export(&set, rig.root(), None).unwrap();
    let theirs = rig.root.join(&set);
    fs::create_dir(&theirs).unwrap();
    fs::write(theirs.join("mine"), b"mine").unwrap();
    gate.open();
    let ended = wire.end(&started.job.unwrap()).unwrap();
    assert_eq!((ended.state, ended.code), (10, 32768), "{ended:?}");
    assert!(ended.error.contains("exists"), "{ended:?}");
    assert_eq!(fs::read(theirs.join("mine")).unwrap(), b"mine");
    assert_eq!(rig.left(), [set]);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_cancel_at_any_step_leaves_nothing() {
    for point in [
        "read.after",
        "copy.before",
        "copy.after",
        "manifest.after",
        "reveal.after",
    ] {
        let rig = Rig::new(Ground::Host);
        let gate = Gate::new();
        let server = rig.serve(&gate.at(&format!("export.{point}")));
        let wire = Wire::new(&server);
        let set = wire.take(&rig.group(&wire), "0001");
        let job = wire.export(&set, rig.root(), None).unwrap().job.unwrap();
        gate.reached();
        assert_eq!(wire.cancel(&job), 4096, "{point}");
        gate.open();
        let ended = wire.end(&job).unwrap();
        assert_eq!((ended.state, ended.code), (8, 32768), "{point}: {ended:?}");
        assert_eq!(rig.left(), [] as [String; 0], "{point}");
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_full_disk_leaves_nothing_and_a_later_export_goes_through() {
    // Room for the reserve of 64 MiB and a part of three disks of 1 MiB.
    let mount = Mount::tmpfs("size=66m");
    let rig = Rig::with_root(Site::new(Ground::Host), mount.path().to_owned());
    let server = rig.serve("");
    let wire = Wire::new(&server);
    let set = wire.take(&rig.group(&wire), "0001");
    let job = wire.export(&set, rig.root(), None).unwrap().job.unwrap();
    let ended = wire.end(&job).unwrap();
    assert_eq!((ended.state, ended.code), (10, 32768), "{ended:?}");
    assert!(ended.error.contains(" free, "), "{ended:?}");
    assert_eq!(rig.left(), [] as [String; 0]);
    crate::support::tools::run("mount", &["-o", "remount,size=90m", rig.root()]);
    let job = wire.export(&set, rig.root(), None).unwrap().job.unwrap();
    assert_eq!(wire.end(&job).unwrap().state, 7);
    rig.assert_whole(&set, &content(&rig.machines), "with room");
}

/// A file of the set is gone: the job says which, and what was begun is removed.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_missing_file_of_the_set_is_named() {
    let rig = Rig::new(Ground::Host);
    let server = rig.serve("");
    let wire = Wire::new(&server);
    let set = wire.take(&rig.group(&wire), "0001");
    let lost = &rig.machines[1].images[0];
    fs::rename(lost, lost.with_extension("away")).unwrap();
    let started = wire.export(&set, rig.root(), None).unwrap();
    assert_eq!(started.value, STARTED);
    let ended = wire.end(&started.job.unwrap()).unwrap();
    assert_eq!((ended.state, ended.code), (10, 32768), "{ended:?}");
    assert!(ended.error.contains(lost.to_str().unwrap()), "{ended:?}");
    assert_eq!(rig.left(), [] as [String; 0]);
}

/// The undo waits where it cannot be done; the set is free again once it could.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_undo_that_cannot_be_done_is_tried_until_it_can() {
    let mount = Mount::tmpfs("size=90m");
    let rig = Rig::with_root(Site::new(Ground::Host), mount.path().to_owned());
    let gate = Gate::new();
    let server = rig.serve(&gate.at("export.copy.after"));
    let wire = Wire::new(&server);
    let set = wire.take(&rig.group(&wire), "0001");
    let job = wire.export(&set, rig.root(), None).unwrap().job.unwrap();
    gate.reached();
    mount.read_only();
    gate.open();
    let ended = wire.end(&job).unwrap();
    assert_eq!(ended.state, 10, "{ended:?}");
    assert_eq!(rig.left().len(), 1, "it could not be removed");
    crate::support::tools::run("mount", &["-o", "remount,rw", rig.root()]);
    let began = Instant::now();
    while !rig.left().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(50));
    }
    rig.site.wait_for_journals();
}

/// A copy of a definition that was changed, or exchanged with that of another machine, goes into no export.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_set_whose_copy_of_a_definition_was_changed_is_not_exported_and_the_check_up_names_it() {
    let rig = Rig::new(Ground::Host);
    let server = rig.serve("");
    let wire = Wire::new(&server);
    let set = wire.take(&rig.group(&wire), "0001");
    rig.site.wait_for_journals();
    let [web, db] = [0, 1].map(|n: usize| {
        let folder = rig.site.data.join("sets").join(&set);
        folder.join(&rig.machines[n].id).join("vm.toml")
    });
    let whole = [&web, &db].map(|file| fs::read(file).unwrap());
    let findings = || text(&run_in(&rig.site.data, &["doctor"], "").stdout);
    assert!(!findings().contains("vm.toml"), "{}", findings());
    let mut flipped = whole[0].clone();
    flipped[whole[0].len() / 2] ^= 1;
    let [of_web, of_db] = &whole;
    let cases = [
        ("a bit", [Some(&flipped), Some(of_db)], "kept-changed"),
        ("exchanged", [Some(of_db), Some(of_web)], "kept-changed"),
        ("gone", [None, Some(of_db)], "kept-missing"),
    ];
    for (what, content, kind) in cases {
        for (file, content) in [&web, &db].into_iter().zip(content) {
            match content {
                Some(content) => fs::write(file, content).unwrap(),
                None => fs::remove_file(file).unwrap(),
            }
        }
        let refused = wire.export(&set, rig.root(), None).unwrap();
        assert_eq!(refused.value, 32775, "{what}");
        let why = wire.why(&refused);
        let file = web.to_str().unwrap();
        assert!(why.contains(file), "{what}: {why}");
        let both = why.contains(db.to_str().unwrap());
        assert_eq!(both, what == "exchanged", "{what}: {why}");
        assert!(rig.left().is_empty(), "{what}");
        let found = findings();
        let named = |line: &str| line.contains(kind) && line.contains(file);
        assert!(found.lines().any(named), "{what}: {found}");
    }
    for (file, content) in [&web, &db].into_iter().zip(whole) {
        fs::write(file, content).unwrap();
    }
    let job = wire.export(&set, rig.root(), None).unwrap().job.unwrap();
    assert_eq!(wire.end(&job).unwrap().state, 7);
    rig.assert_whole(&set, &content(&rig.machines), "put back");
}
