//! Disks of a QEMU that runs, captured by our drivers with the commands that a set gives it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use groupshot::engine::locks::FrozenLock;
use groupshot::engine::{At, Live, Plan, Top};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::rigs::{FileRig, Image, Rig, SIZE, set};
use crate::support::qemu::{Client, Qemu, Sockets};
use crate::support::tools;

/// A QEMU with the disk of the rig, and what it was before.
struct Runs<'a> {
    rig: &'a FileRig,
    monitor: RefCell<Client>,
    qemu: Qemu,
}

impl<'a> Runs<'a> {
    fn new(rig: &'a FileRig, sockets: &Sockets, more: &[&str]) -> Self {
        let machine = rig.machine();
        let disk = &machine.disks[0];
        let node = json!({
            "driver": disk.format.as_str(),
            "node-name": "disk0",
            "file": {"driver": "file", "filename": disk.file},
        });
        let node = node.to_string();
        let disk = [
            "-blockdev",
            node.as_str(),
            "-device",
            "virtio-blk-pci,drive=disk0,id=dev0",
        ];
        let qemu = sockets.start(&[&disk[..], more].concat());
        let monitor = RefCell::new(qemu.client());
        Self { rig, monitor, qemu }
    }

    fn quit(self) {
        drop(self.monitor);
        self.qemu.quit();
    }

    /// The guest fills its disk, and flushes it.
    fn writes(&self, pattern: u8) {
        for command in [format!("write -P {pattern} 0 {SIZE}"), "flush".to_owned()] {
            let line = format!("qemu-io -d /machine/peripheral/dev0/virtio-backend \"{command}\"");
            let said = self.tell("human-monitor-command", &json!({"command-line": line}));
            assert!(!said.to_string().contains("rror"), "{said}");
        }
    }

    fn plan(&self, number: u128, user: Option<u32>) -> Plan {
        let machine = self.rig.machine();
        let live = Some(Live { user });
        let plan = self
            .rig
            .storage()
            .plan(&machine, &machine.disks[0], set(number), live);
        plan.unwrap().expect("the driver holds the disk")
    }

    fn tell(&self, command: &str, arguments: &Value) -> Value {
        self.monitor.borrow_mut().tell(command, arguments)
    }

    fn attach(&self, plan: &Plan) {
        let file = self.rig.storage().top_after(plan).file;
        let node = json!({
            "driver": "qcow2",
            "node-name": "gs0",
            "backing": null,
            "file": {"driver": "file", "filename": file},
        });
        self.tell("blockdev-add", &node);
    }

    fn goes_on_with_it(&self) {
        let snapshot = json!({
            "type": "blockdev-snapshot",
            "data": {"node": "disk0", "overlay": "gs0"},
        });
        self.tell("transaction", &json!({"actions": [snapshot]}));
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn the_old_file_of_a_qemu_that_goes_on_with_an_overlay_stays_as_it_was_at_the_cut() {
    for image in [Image::Raw, Image::Qcow2] {
        let (rig, sockets) = (FileRig::overlay(image), Sockets::new());
        let machine = rig.machine();
        let runs = Runs::new(&rig, &sockets, &[]);
        let storage = rig.storage();
        let plan = runs.plan(1, Some(0));
        runs.writes(6); // lengths and times move after the plan
        storage.prepare(&plan).unwrap();
        runs.attach(&plan);
        runs.writes(7);
        storage.flush(&plan).unwrap();
        assert!(
            storage.settle(&plan).is_err(),
            "QEMU still writes the old file"
        );
        runs.tell("stop", &json!({}));
        runs.goes_on_with_it();
        runs.tell("cont", &json!({}));
        storage.settle(&plan).unwrap();
        let sealed = storage
            .seal(&plan, Some(&machine), &BTreeSet::new())
            .unwrap();
        let _frozen = FrozenLock::take(&At::plan(&plan), &plan.disk.file).unwrap();
        runs.writes(8);
        let again = storage
            .seal(&plan, Some(&machine), &BTreeSet::new())
            .unwrap();
        assert_eq!(sealed, again, "the guest writes to the overlay alone");
        runs.quit();
        rig.assert_captured(&plan, 7);
        let Top { file, .. } = storage.top_after(&plan);
        tools::assert_clean(&file);
        rig.assert_top(&storage.top_after(&plan), 8);
        let again = storage
            .seal(&plan, Some(&machine), &BTreeSet::new())
            .unwrap();
        assert_eq!(sealed, again);
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_clone_of_a_qemu_that_stands_still_is_whole() {
    for image in [Image::Raw, Image::Qcow2] {
        let (rig, sockets) = (FileRig::reflink("xfs", image), Sockets::new());
        let runs = Runs::new(&rig, &sockets, &[]);
        let storage = rig.storage();
        let plan = runs.plan(1, Some(0));
        storage.prepare(&plan).unwrap();
        runs.writes(7);
        storage.flush(&plan).unwrap();
        runs.tell("stop", &json!({}));
        storage.cut(&plan).unwrap();
        runs.tell("cont", &json!({}));
        storage.settle(&plan).unwrap();
        runs.writes(8);
        rig.assert_captured(&plan, 7);
        runs.quit();
        rig.assert_top(&storage.top_after(&plan), 8);
        rig.assert_captured(&plan, 7);
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_a_qemu_that_was_killed_has_written_to_its_overlay_is_told_from_an_empty_one() {
    for writes in [true, false] {
        let (rig, sockets) = (FileRig::overlay(Image::Qcow2), Sockets::new());
        let runs = Runs::new(&rig, &sockets, &[]);
        let storage = rig.storage();
        runs.writes(7);
        let plan = runs.plan(1, None);
        storage.prepare(&plan).unwrap();
        runs.attach(&plan);
        runs.tell("stop", &json!({}));
        runs.goes_on_with_it();
        runs.tell("cont", &json!({}));
        if writes {
            runs.writes(8);
        }
        runs.qemu.signal(Signal::SIGKILL);
        drop(runs);
        let top = storage.top_after(&plan);
        let outlived = storage.outlived(&plan).unwrap();
        assert_eq!(outlived, writes.then(|| top.clone()));
        rig.assert_top(&top, if writes { 8 } else { 7 });
        storage.undo(&plan).unwrap();
        assert!(!top.file.exists());
    }
}

/// QEMU opens its files as another user once it runs.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_qemu_of_another_user_gets_to_its_overlay_and_nobody_else_does() {
    const NOBODY: u32 = 65534;
    let (rig, sockets) = (FileRig::overlay(Image::Raw), Sockets::new());
    let image = rig.machine().disks[0].file.clone();
    let root = image.ancestors().nth(2).unwrap();
    fs::set_permissions(root, Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&image, Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&image, Some(NOBODY), Some(NOBODY)).unwrap();
    let runs = Runs::new(&rig, &sockets, &["-runas", "nobody"]);
    let storage = rig.storage();
    let plan = runs.plan(1, Some(NOBODY));
    storage.prepare(&plan).unwrap();
    runs.attach(&plan);
    runs.tell("stop", &json!({}));
    runs.goes_on_with_it();
    runs.tell("cont", &json!({}));
    storage.settle(&plan).unwrap();
    runs.writes(8);
    let new = storage.top_after(&plan).file;
    let reads = |user: &str| {
        let args = [
            "--reuid",
            user,
            "--regid",
            user,
            "--clear-groups",
            "head",
            "-c1",
        ];
        tools::try_run("setpriv", &[&args[..], &[new.to_str().unwrap()]].concat()).0
    };
    assert!(reads("65534") && !reads("65533"));
    // Its folders are closed to whoever is not let through.
    let folder = new.parent().unwrap();
    let listed = [
        "--reuid",
        "65533",
        "--regid",
        "65533",
        "--clear-groups",
        "ls",
    ];
    let (ok, _) = tools::try_run(
        "setpriv",
        &[&listed[..], &[folder.to_str().unwrap()]].concat(),
    );
    assert!(!ok);
    runs.quit();
    rig.assert_captured(&plan, 1);
}
