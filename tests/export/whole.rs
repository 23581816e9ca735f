//! What an export holds, and what goes on beside it.

use std::fs;

use crate::support::gate::Gate;
use crate::support::server::{run_in, text};
use crate::support::site::{Ground, assert_holds};
use crate::support::wire::Wire;

use super::{Rig, STARTED, content, manifest, tree};

fn on(ground: Ground) {
    let mut rig = Rig::new(ground);
    let server = rig.serve("");
    let wire = Wire::new(&server);
    let group = rig.group(&wire);
    let mut sets = Vec::new();
    for round in 0..3 {
        rig.write(3000 + 100_000 * round, 20 + round as u8);
        let set = wire.take(&group, &format!("round {round}"));
        sets.push((set, content(&rig.machines)));
        rig.site.wait_for_journals();
    }
    rig.write(500_000, 99);
    let before = rig.site.tree();
    for (set, content) in &sets {
        let started = wire.export(set, rig.root(), None).unwrap();
        assert_eq!(started.value, STARTED, "{}", wire.why(&started));
        let job = started.job.unwrap();
        let ended = wire.end(&job).unwrap();
        assert_eq!(
            (ended.state, ended.percent, ended.code),
            (7, 100, 0),
            "{ended:?}"
        );
        assert!(ended.status.contains(set.as_str()), "{ended:?}");
        let affected = wire.affected(&job);
        assert!(affected.contains(&("Msvm_SnapshotCollection".into(), set.clone())));
        for machine in &rig.machines {
            assert!(affected.contains(&("Msvm_ComputerSystem".into(), machine.id.clone())));
        }
        assert_eq!(affected.len(), 1 + rig.machines.len(), "{affected:?}");
        rig.assert_whole(set, content, &format!("{ground:?}"));
    }
    rig.site.wait_for_journals();
    let mut after = rig.site.tree();
    after.retain(|path, _| !path.starts_with(&rig.root));
    let mut before = before;
    before.remove(&rig.root);
    assert_eq!(after, before, "nothing else was touched");
    // What was exported is a machine again, elsewhere and with no file of ours below it.
    let (set, content) = &sets[1];
    let moved = tempfile::tempdir().unwrap();
    let elsewhere = moved.path().join("moved");
    fs::rename(rig.root.join(set), &elsewhere)
        .or_else(|_| copy(&rig.root.join(set), &elsewhere))
        .unwrap();
    drop(server);
    for (machine, content) in rig.machines.iter().zip(content) {
        let definition = elsewhere.join(&machine.id).join("vm.toml");
        let data = moved.path().join("data");
        let args = [
            "--json",
            "vm",
            "import",
            "--definition",
            definition.to_str().unwrap(),
        ];
        let out = run_in(&data, &args, "");
        assert!(out.status.success(), "{}", text(&out.stderr));
        let shown: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(shown["name"], machine.name.as_str());
        assert_ne!(shown["id"], machine.id.as_str(), "a machine of its own");
        let disks = shown["disks"].as_array().unwrap();
        assert_eq!(disks.len(), content.len());
        for (disk, content) in disks.iter().zip(content) {
            let file = disk["file"].as_str().unwrap();
            assert!(file.starts_with(elsewhere.to_str().unwrap()), "{file}");
            assert_holds(file.as_ref(), content, "imported");
        }
    }
}

fn copy(from: &std::path::Path, to: &std::path::Path) -> std::io::Result<()> {
    for name in tree(from) {
        fs::create_dir_all(to.join(&name).parent().unwrap())?;
        fs::copy(from.join(&name), to.join(&name))?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn every_set_is_exported_as_it_was_captured_on_a_host_file_system() {
    on(Ground::Host);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn every_set_is_exported_as_it_was_captured_on_xfs() {
    on(Ground::Xfs);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn definitions_alone_are_exported_on_request() {
    let rig = Rig::new(Ground::Host);
    let server = rig.serve("");
    let wire = Wire::new(&server);
    let set = wire.take(&rig.group(&wire), "0001");
    let settings = "<INSTANCE CLASSNAME=\"Msvm_CollectionSnapshotExportSettingData\">\
        <PROPERTY NAME=\"CopyVmStorage\" TYPE=\"boolean\"><VALUE>FALSE</VALUE></PROPERTY>\
        <PROPERTY NAME=\"BackupIntent\" TYPE=\"uint16\"><VALUE>2</VALUE></PROPERTY></INSTANCE>";
    let started = wire.export(&set, rig.root(), Some(settings)).unwrap();
    assert_eq!(started.value, STARTED, "{}", wire.why(&started));
    assert_eq!(wire.end(&started.job.unwrap()).unwrap().state, 7);
    let folder = rig.root.join(&set);
    let mut files: Vec<_> = rig
        .machines
        .iter()
        .map(|m| format!("{}/vm.toml", m.id))
        .collect();
    files.push("manifest.json".to_owned());
    files.sort();
    assert_eq!(tree(&folder), files);
    for machine in manifest(&folder)["machines"].as_array().unwrap() {
        for disk in machine["disks"].as_array().unwrap() {
            assert!(disk["image"].is_null(), "{disk}");
            assert_eq!(disk["size"], 1 << 20);
        }
    }
    for machine in &rig.machines {
        let own = rig.site.file_of(&machine.id, "vm.toml");
        let exported = folder.join(&machine.id).join("vm.toml");
        assert_eq!(fs::read(exported).unwrap(), fs::read(own).unwrap());
    }
}

/// While one export stands still others of the same set and a create of the same machines go through.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn exports_and_a_create_go_side_by_side() {
    let mut rig = Rig::new(Ground::Host);
    let other = rig.root.join("other");
    fs::create_dir(&other).unwrap();
    let gate = Gate::new();
    let server = rig.serve(&gate.at("export.copy.after#1"));
    let wire = Wire::new(&server);
    let group = rig.group(&wire);
    let set = wire.take(&group, "0001");
    let captured = content(&rig.machines);
    rig.site.wait_for_journals();
    rig.write(1000, 77);
    let first = wire.export(&set, rig.root(), None).unwrap().job.unwrap();
    gate.reached();
    let second = wire.export(&set, other.to_str().unwrap(), None).unwrap();
    let same = wire.export(&set, rig.root(), None).unwrap();
    assert_eq!(same.value, 32774, "into the same place");
    assert!(wire.why(&same).contains(&first), "{}", wire.why(&same));
    wire.take(&group, "0002");
    assert_eq!(wire.end(&second.job.unwrap()).unwrap().state, 7);
    assert_eq!(wire.job(&first).unwrap().state, 4, "it still stands");
    gate.open();
    assert_eq!(wire.end(&first).unwrap().state, 7);
    fs::remove_dir_all(&other).unwrap();
    rig.assert_whole(&set, &captured, "the first");
}

/// A set that is exported is not applied, and one that is applied is not exported; another set is.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_export_and_an_apply_of_one_set_exclude_each_other() {
    let rig = Rig::new(Ground::Host);
    let (exporting, applying) = (Gate::new(), Gate::new());
    let orders = [
        exporting.at("export.copy.after#1"),
        applying.at("apply.prepare.after#1"),
    ];
    let server = rig.serve(&orders.join(","));
    let wire = Wire::new(&server);
    let group = rig.group(&wire);
    let set = wire.take(&group, "0001");
    let other = wire.take(&group, "0002");
    rig.site.wait_for_journals();
    let job = wire.export(&set, rig.root(), None).unwrap().job.unwrap();
    let refused = wire.apply(&set).unwrap();
    assert_eq!(refused.value, 5);
    assert!(wire.why(&refused).contains(&job), "{}", wire.why(&refused));
    exporting.open();
    assert_eq!(wire.end(&job).unwrap().state, 7);
    rig.site.wait_for_journals();
    fs::remove_dir_all(rig.root.join(&set)).unwrap();
    let applied = wire.apply(&set).unwrap();
    assert_eq!(applied.value, STARTED, "{}", wire.why(&applied));
    let refused = wire.export(&set, rig.root(), None).unwrap();
    assert_eq!(refused.value, 32774);
    let job = applied.job.unwrap();
    assert!(wire.why(&refused).contains(&job), "{}", wire.why(&refused));
    let beside = wire.export(&other, rig.root(), None).unwrap();
    assert_eq!(wire.end(&beside.job.unwrap()).unwrap().state, 7);
    assert_eq!(wire.job(&job).unwrap().state, 4, "it still stands");
    applying.open();
    assert_eq!(wire.end(&job).unwrap().state, 7);
    let captured = content(&rig.machines);
    rig.assert_whole(&other, &captured, "beside the apply");
}

/// A merge waits for whoever reads one of its files, and says for whom; who cancels it need not wait.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_merge_waits_for_an_export_and_says_for_whom() {
    let mut rig = Rig::new(Ground::Host);
    let (first, second) = (Gate::new(), Gate::new());
    // Read leases are held from the step before the copy to its end.
    let orders = [
        first.at("export.copy.before#1"),
        second.at("export.copy.before#2"),
    ];
    let server = rig.serve(&orders.join(","));
    let wire = Wire::new(&server);
    let group = rig.group(&wire);
    let mut sets = Vec::new();
    for n in 0..3 {
        rig.write(4000 + 100_000 * n, 31 + u8::try_from(n).unwrap());
        sets.push(wire.take(&group, &format!("{n}")));
        rig.site.wait_for_journals();
    }
    // The last one lies on the others.
    let (last, captured) = (sets.remove(2), content(&rig.machines));
    rig.write(600_000, 99);
    for (set, gate, cancelled) in [(&sets[0], first, false), (&sets[1], second, true)] {
        let export = wire.export(&last, rig.root(), None).unwrap();
        let export = export.job.unwrap();
        gate.reached();
        let destroyed = wire.destroy(set).unwrap();
        assert_eq!(destroyed.value, STARTED, "{}", wire.why(&destroyed));
        let job = destroyed.job.unwrap();
        let waits = wire
            .until(&job, |job| job.status.contains(&export))
            .unwrap();
        assert_eq!(waits.state, 4, "{waits:?}");
        if cancelled {
            assert_eq!(wire.cancel(&job), STARTED);
            let ended = wire.end(&job).unwrap();
            assert_eq!((ended.state, ended.code), (8, 32768), "{ended:?}");
            assert!(ended.error.contains("pending"), "{ended:?}");
        }
        assert_eq!(wire.job(&export).unwrap().state, 4, "it still stands");
        gate.open();
        assert_eq!(wire.end(&export).unwrap().state, 7);
        assert_eq!(wire.end(&job).unwrap().state, if cancelled { 8 } else { 7 });
        rig.site.wait_for_journals();
        rig.assert_whole(&last, &captured, &format!("cancelled: {cancelled}"));
        fs::remove_dir_all(rig.root.join(&last)).unwrap();
    }
    for (machine, content) in rig.machines.iter().zip(content(&rig.machines)) {
        for (n, content) in content.iter().enumerate() {
            assert_holds(&rig.site.top(machine, n), content, &machine.name);
        }
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_copy_is_counted_in_bytes_and_a_cancelled_job_keeps_its_percent() {
    let (rig, gate) = (Rig::new(Ground::Host), Gate::new());
    let server = rig.serve(&gate.at("export.copy.after"));
    let wire = Wire::new(&server);
    let set = wire.take(&rig.group(&wire), "first");
    let job = wire.export(&set, rig.root(), None).unwrap().job.unwrap();
    gate.reached();
    let copied = wire.job(&job).unwrap();
    assert!((60..100).contains(&copied.percent), "{copied:?}");
    assert_eq!(wire.cancel(&job), 4096);
    gate.open();
    let ended = wire.end(&job).unwrap();
    assert_eq!((ended.state, ended.percent), (8, copied.percent));
    rig.site.wait_for_journals();
    assert_eq!(
        fs::read_dir(&rig.root).unwrap().count(),
        0,
        "nothing is left"
    );
}
