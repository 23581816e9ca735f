//! File systems that are full, read-only or changed under us: a clear error, and nothing left behind.

use std::fs;
use std::path::{Path, PathBuf};

use groupshot::engine::drivers::Drivers;
use groupshot::engine::overlay::Overlay;
use groupshot::engine::reflink::Reflink;
use groupshot::engine::space::Reserve;
use groupshot::engine::{Capture, Driver, EngineErrorKind, Live};
use groupshot::id::VmId;
use groupshot::inventory::{Disk, Format, Machine};
use jiff::Timestamp;

use super::rigs::{imported, set};
use crate::support::tools::Mount;

const NO_RESERVE: Reserve = Reserve {
    bytes: 0,
    percent: 0,
};

fn machine(image: &Path) -> Machine {
    Machine {
        id: VmId::from_u128(9),
        name: "web-1".into(),
        disks: vec![Disk {
            id: "disk0".into(),
            file: image.to_owned(),
            format: Format::Raw,
            size: 1 << 20,
        }],
        directory: image.with_file_name("machines").join("web-1"),
        definition: PathBuf::from("/"),
        created: Timestamp::UNIX_EPOCH,
        overlay_ok: true,
        unmanaged_ok: false,
        no_flush_ok: false,
        images: imported(image, &[]),
        relative: Default::default(),
        sockets: Default::default(),
    }
}

fn image(dir: &Path) -> PathBuf {
    let image = dir.join("a.raw");
    fs::write(&image, vec![5; 1 << 20]).unwrap();
    image
}

/// Plans, expects `prepare` to fail so, and that undo leaves the data directory as it was.
fn prepare_fails(driver: &dyn Driver, machine: &Machine, data: &Path, kind: EngineErrorKind) {
    let plan = driver
        .plan(machine, &machine.disks[0], set(1), None)
        .unwrap()
        .unwrap();
    let error = driver.prepare(&plan).unwrap_err();
    assert_eq!(error.kind, kind, "{error}");
    driver.undo(&plan).unwrap();
    assert!(plan.names().iter().all(|name| !name.exists()));
    let sets = data.join("sets");
    assert!(!sets.exists() || fs::read_dir(sets).unwrap().next().is_none());
}

#[test]
fn a_reserve_that_is_not_there_refuses_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let machine = machine(&image(dir.path()));
    let reserve = Reserve {
        bytes: u64::MAX,
        percent: 0,
    };
    let overlay = Overlay::new(dir.path(), reserve, 32);
    prepare_fails(&overlay, &machine, dir.path(), EngineErrorKind::Full);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_full_file_system_is_named_as_full() {
    let dir = tempfile::tempdir().unwrap();
    let data = Mount::tmpfs("size=8k");
    let machine = machine(&image(dir.path()));
    let overlay = Overlay::new(data.path(), NO_RESERVE, 32);
    prepare_fails(&overlay, &machine, data.path(), EngineErrorKind::Full);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_read_only_file_system_is_named_as_denied() {
    let dir = tempfile::tempdir().unwrap();
    let data = Mount::tmpfs("size=1m");
    data.read_only();
    let machine = machine(&image(dir.path()));
    let overlay = Overlay::new(data.path(), NO_RESERVE, 32);
    prepare_fails(&overlay, &machine, data.path(), EngineErrorKind::Denied);
}

#[test]
fn a_disk_that_changed_since_the_plan_is_not_cut() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path());
    let machine = machine(&image);
    let overlay = Overlay::new(dir.path(), NO_RESERVE, 32);
    let plan = overlay
        .plan(&machine, &machine.disks[0], set(1), None)
        .unwrap()
        .unwrap();
    overlay.prepare(&plan).unwrap();
    fs::write(&image, vec![6; 2 << 20]).unwrap();
    let error = overlay.cut(&plan).unwrap_err();
    assert!(error.text.english().contains("a.raw changed"), "{error}");
    assert!(!plan.names()[1].exists(), "nothing is cut");
    overlay.undo(&plan).unwrap();
}

#[test]
fn only_a_file_that_the_server_made_changes_its_mode() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |f: &Path| fs::metadata(f).unwrap().permissions().mode() & 0o777;
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path());
    fs::set_permissions(&image, fs::Permissions::from_mode(0o640)).unwrap();
    let overlay = Overlay::new(dir.path(), NO_RESERVE, 32);
    let mut machine = machine(&image);
    let mut tops = Vec::new();
    for number in 1..=2 {
        let plan = overlay
            .plan(&machine, &machine.disks[0], set(number), None)
            .unwrap()
            .unwrap();
        overlay.prepare(&plan).unwrap();
        overlay.cut(&plan).unwrap();
        overlay.settle(&plan).unwrap();
        let top = overlay.top_after(&plan);
        assert_eq!(mode(&top.file), 0o640, "as its base");
        machine.disks[0].file.clone_from(&top.file);
        machine.disks[0].format = top.format;
        tops.push((plan, top.file));
    }
    assert_eq!(mode(&image), 0o640, "the operator's own");
    assert_eq!(mode(&tops[0].1), 0o440, "ours, frozen");
    overlay.undo(&tops[1].0).unwrap();
    assert_eq!(mode(&tops[0].1), 0o640, "ours, active again");
}

#[test]
fn a_disk_that_no_driver_holds_is_told_from_one_in_trouble() {
    let dir = tempfile::tempdir().unwrap();
    let mut machine = machine(&image(dir.path()));
    let shallow = Drivers::new(vec![std::sync::Arc::new(Overlay::new(
        dir.path(),
        NO_RESERVE,
        1,
    ))]);
    let planned = |m: &Machine, live| shallow.plan(m, &m.disks[0], set(1), live).unwrap_err();
    let plan = |m: &Machine| planned(m, None);
    let error = plan(&machine);
    assert_eq!(error.kind, EngineErrorKind::Unsupported);
    assert_eq!(planned(&machine, Some(Live::default())), error);
    let words = error.to_string();
    assert!(
        words.contains("chain_cap") && words.contains("web-1"),
        "{words}"
    );
    machine.disks[0].file = dir.path().join("gone.raw");
    assert_eq!(plan(&machine).kind, EngineErrorKind::Missing);
    machine.disks[0].file = "/dev/zero".into();
    assert_eq!(plan(&machine).kind, EngineErrorKind::Unsupported);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_user_who_cannot_be_let_through_is_told_with_the_folder() {
    let (dir, data) = (tempfile::tempdir().unwrap(), Mount::ramfs());
    let machine = machine(&image(dir.path()));
    let overlay = Overlay::new(data.path(), NO_RESERVE, 32);
    let plan = |user| {
        let live = Some(Live { user });
        let plan = overlay.plan(&machine, &machine.disks[0], set(1), live);
        plan.unwrap().unwrap()
    };
    let other = plan(Some(65534));
    let error = overlay.room(&other).unwrap_err();
    assert_eq!(error.kind, EngineErrorKind::Denied);
    for part in ["disk0", "65534", data.path().to_str().unwrap()] {
        assert!(error.text.english().contains(part), "{part}: {error}");
    }
    assert_eq!(overlay.prepare(&other), Err(error));
    overlay.undo(&other).unwrap();
    // Who may pass anyway, or is as this process, needs no list.
    for user in [None, Some(0)] {
        let own = plan(user);
        overlay.room(&own).unwrap();
        overlay.prepare(&own).unwrap();
        overlay.undo(&own).unwrap();
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn reflink_leaves_alone_what_cannot_be_cloned() {
    let tmpfs = Mount::tmpfs("size=4m");
    let machine = machine(&image(tmpfs.path()));
    let reflink = Reflink::new(NO_RESERVE);
    assert_eq!(
        reflink.plan(&machine, &machine.disks[0], set(1), None),
        Ok(None)
    );
    assert_eq!(
        fs::read_dir(tmpfs.path()).unwrap().count(),
        1,
        "nothing left behind"
    );
}

#[test]
fn whoever_could_use_the_base_can_use_the_overlay() {
    const ACL: &str = "system.posix_acl_access";
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path());
    // Version 2; owner rw-, user 1234 r--, group r--, mask r--, others none.
    let entries: [(u16, u16, u32); 5] = [
        (0x01, 6, u32::MAX),
        (0x02, 4, 1234),
        (0x04, 4, u32::MAX),
        (0x10, 4, u32::MAX),
        (0x20, 0, u32::MAX),
    ];
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, permission, id) in entries {
        acl.extend(tag.to_le_bytes());
        acl.extend(permission.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    if rustix::fs::setxattr(&image, ACL, &acl, rustix::fs::XattrFlags::empty()).is_err() {
        eprintln!("no access control lists on {}", dir.path().display());
        return;
    }
    // What users have noted goes along.
    let note = ("user.backup", b"weekly");
    rustix::fs::setxattr(&image, note.0, note.1, rustix::fs::XattrFlags::empty()).unwrap();
    let machine = machine(&image);
    let overlay = Overlay::new(dir.path(), NO_RESERVE, 32);
    let plan = overlay
        .plan(&machine, &machine.disks[0], set(1), None)
        .unwrap()
        .unwrap();
    overlay.prepare(&plan).unwrap();
    overlay.cut(&plan).unwrap();
    for (name, wanted) in [(ACL, acl.as_slice()), (note.0, note.1)] {
        let mut got = vec![0; 256];
        let length = rustix::fs::getxattr(&plan.names()[1], name, &mut got[..]).unwrap();
        assert_eq!(got[..length], *wanted, "{name}");
    }
}
