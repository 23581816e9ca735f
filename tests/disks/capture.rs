//! Sets of several machines on every ground and of every format, compared by bytes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::support::gate::Gate;
use crate::support::server::{Server, text};
use crate::support::site::{Ground, Image, Machine, SIZE, Site, assert_holds, format};
use crate::support::tools::{self};
use crate::support::wire::Wire;

const QUARTER: usize = SIZE / 4;

/// What every disk held at the moment of a set.
type Captured = Vec<(String, Vec<Vec<Vec<u8>>>)>;

fn on(ground: Ground) {
    let site = Site::new(ground);
    let mut machines = vec![
        site.machine("web", &[Image::Qcow2, Image::Raw], 1),
        site.machine("db", &[Image::Chain], 2),
        site.machine("mail", &[Image::Raw, Image::Chain, Image::Qcow2], 3),
    ];
    let before = stamps(&machines);
    let server = site.serve();
    let wire = Wire::new(&server);
    let ids: Vec<_> = machines.iter().map(|m| m.id.as_str()).collect();
    let group = wire.define("all", &ids).unwrap();

    let mut captured = Captured::new();
    for round in 0..3_u8 {
        let set = wire.take(&group, &format!("round {round}"));
        captured.push((set, machines.iter().map(|m| m.content.clone()).collect()));
        // Over, beside and across what was written before; not on cluster boundaries.
        write(
            &wire,
            &mut machines,
            usize::from(round) * QUARTER + 700,
            10 + round,
        );
    }
    check(&site, &wire, &machines, &captured);
    if ground == Ground::Host {
        assert_eq!(
            stamps(&machines),
            before,
            "the operator's images are only read"
        );
    } else {
        let shown = wire.shown().unwrap();
        for (machine, disk, image) in disks(&machines) {
            let top = &shown.tops[&(machine.id.clone(), disk)];
            assert_eq!(top, image, "a cloned image stays the active file");
        }
        assert!(
            site.images.join(".groupshot").is_dir(),
            "nothing was cloned"
        );
    }
    drop(server);
    // All of it is found again.
    let server = site.serve();
    check(&site, &Wire::new(&server), &machines, &captured);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn every_capture_holds_what_was_written_on_a_host_file_system() {
    on(Ground::Host);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn every_capture_holds_what_was_written_on_xfs() {
    on(Ground::Xfs);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn every_capture_holds_what_was_written_on_btrfs() {
    on(Ground::Btrfs);
}

fn disks(machines: &[Machine]) -> impl Iterator<Item = (&Machine, String, &PathBuf)> {
    machines.iter().flat_map(|m| {
        let images = m.images.iter().enumerate();
        images.map(move |(n, image)| (m, format!("disk{n}"), image))
    })
}

/// Mode, owner, group, size and the times of a file.
type FileStamp = (u32, u32, u32, u64, i64, i64, i64);

/// Mode, owner, length and times of every image and of what lies below it.
fn stamps(machines: &[Machine]) -> BTreeMap<PathBuf, FileStamp> {
    let folder = machines[0].images[0].parent().unwrap();
    let files = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    files
        .filter(|f| f.is_file())
        .map(|file| {
            let m = fs::metadata(&file).unwrap();
            let stamp = (
                m.mode(),
                m.uid(),
                m.gid(),
                m.len(),
                m.mtime(),
                m.mtime_nsec(),
                m.ctime_nsec(),
            );
            (file, stamp)
        })
        .collect()
}

fn write(wire: &Wire, machines: &mut [Machine], offset: usize, byte: u8) {
    let tops = wire.shown().unwrap().tops;
    for machine in machines {
        for disk in 0..machine.images.len() {
            let top = &tops[&(machine.id.clone(), format!("disk{disk}"))];
            machine.write(top, disk, offset, QUARTER / 2 + 1000, byte);
        }
    }
}

/// Every captured and every active disk holds what it must, and no image has an error.
fn check(site: &Site, wire: &Wire, machines: &[Machine], captured: &Captured) {
    let shown = wire.shown().unwrap();
    assert_eq!(shown.sets.len(), captured.len());
    for (n, (set, content)) in captured.iter().enumerate() {
        let set = &shown.sets[set];
        assert_eq!(set.name, format!("round {n}"));
        assert_eq!(set.members.len(), machines.len());
        for (machine, content) in machines.iter().zip(content) {
            let member = set
                .members
                .iter()
                .find(|m| m.machine == machine.id)
                .unwrap();
            assert!(
                member.definition.is_file(),
                "{}",
                member.definition.display()
            );
            assert_eq!(member.disks.len(), content.len());
            for (disk, expected) in content.iter().enumerate() {
                let file = &member.disks[&format!("disk{disk}")];
                let what = format!("set {n}, {} disk{disk}", machine.name);
                assert_holds(file, expected, &what);
                assert_equal(file, expected);
            }
        }
    }
    for machine in machines {
        for (disk, expected) in machine.content.iter().enumerate() {
            let top = &shown.tops[&(machine.id.clone(), format!("disk{disk}"))];
            assert_holds(
                top,
                expected,
                &format!("active {} disk{disk}", machine.name),
            );
        }
    }
    for file in site
        .kept()
        .iter()
        .filter(|f| f.extension().is_some_and(|e| e == "qcow2"))
    {
        tools::assert_clean(file);
    }
    site.wait_for_journals();
}

/// As `qemu-img compare` sees it.
fn assert_equal(file: &Path, expected: &[u8]) {
    let reference = tempfile::NamedTempFile::new().unwrap();
    fs::write(reference.path(), expected).unwrap();
    tools::assert_equal((file, format(file)), (reference.path(), "raw"));
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn the_commands_do_it_too() {
    let site = Site::new(Ground::Host);
    let mut machine = site.machine("web", &[Image::Qcow2], 1);
    let server = site.serve();
    let json = |args: &[&str]| -> serde_json::Value {
        let out = server.cli(&[&["--json"], args].concat());
        assert!(out.status.success(), "{args:?}: {}", text(&out.stderr));
        serde_json::from_slice(&out.stdout).unwrap()
    };
    json(&["collection", "create", "all", "web"]);
    let set = json(&["snapshot", "create", "all", "--name", "first"])["set"].clone();
    let top = active(&server, "web");
    assert_ne!(top, machine.images[0]);
    machine.write(&top, 0, 0, QUARTER, 9);
    let shown = json(&["snapshot", "show", "first"]);
    assert_eq!(shown["id"], set);
    let file = PathBuf::from(shown["members"][0]["disks"][0].as_str().unwrap());
    assert_holds(&file, &[1; SIZE], "captured");
    assert_holds(&top, &machine.content[0], "active");
    assert_eq!(json(&["snapshot", "list"])["sets"][0]["members"], 1);
    assert_eq!(json(&["job", "list"])["jobs"][0]["state"], "completed");
}

/// The active file of `disk0`, as `vm show` names it.
fn active(server: &Server, machine: &str) -> PathBuf {
    let out = server.local(&["--json", "vm", "show", machine]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let shown: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    PathBuf::from(shown["disks"][0]["file"].as_str().unwrap())
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn whoever_could_use_an_image_can_use_its_successor_and_nobody_writes_what_is_kept() {
    for ground in [Ground::Host, Ground::Xfs] {
        let site = Site::new(ground);
        let machine = site.machine("web", &[Image::Qcow2], 1);
        let image = &machine.images[0];
        chown(image, Some(1234), Some(2345)).unwrap();
        fs::set_permissions(image, fs::Permissions::from_mode(0o640)).unwrap();
        let server = site.serve();
        let wire = Wire::new(&server);
        let group = wire.define("all", &[&machine.id]).unwrap();
        let seen = |file: &Path| {
            let m = fs::metadata(file).unwrap();
            (m.mode() & 0o777, m.uid(), m.gid())
        };
        for round in 0..2 {
            wire.take(&group, &format!("{round}"));
            let shown = wire.shown().unwrap();
            let top = &shown.tops[&(machine.id.clone(), "disk0".to_owned())];
            assert_eq!(seen(top), (0o640, 1234, 2345), "{}", top.display());
            assert_eq!(seen(image), (0o640, 1234, 2345), "the operator's own");
            for file in shown
                .sets
                .values()
                .flat_map(|s| s.members[0].disks.values())
            {
                // Nobody reads it who could not read the image.
                assert!(file == image || seen(file).0 == 0o440, "{}", file.display());
                assert_nobody_writes(file);
            }
        }
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_image_in_too_many_pieces_is_captured_by_an_overlay() {
    for ground in [Ground::Xfs, Ground::Btrfs] {
        let site = Site::new(ground);
        let mut machine = site.machine("web", &[Image::Raw, Image::Raw], 1);
        let scattered = fs::File::create(&machine.images[1]).unwrap();
        scattered.set_len(SIZE.try_into().unwrap()).unwrap();
        machine.content[1].fill(0);
        for page in (0..SIZE).step_by(8192) {
            scattered
                .write_all_at(&[7; 4096], page.try_into().unwrap())
                .unwrap();
            machine.content[1][page..page + 4096].fill(7);
        }
        scattered.sync_all().unwrap();
        let server = site.serve_configured("[snapshot]\nclone_extents = 20\n");
        let wire = Wire::new(&server);
        let group = wire.define("all", &[&machine.id]).unwrap();
        let set = wire.take(&group, "now");
        let shown = wire.shown().unwrap();
        let files = &shown.sets[&set].members[0].disks;
        let clones = site.images.join(".groupshot");
        assert!(files["disk0"].starts_with(&clones), "{files:?}");
        assert_eq!(files["disk1"], machine.images[1], "kept under an overlay");
        for (n, expected) in machine.content.iter().enumerate() {
            assert_holds(&files[&format!("disk{n}")], expected, "captured");
        }
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_the_server_makes_for_itself_is_closed_to_others() {
    let site = Site::new(Ground::Host);
    let machine = site.machine("web", &[Image::Raw], 1);
    // The journal is caught while it is there.
    let gate = Gate::new();
    let server = site.serve_with(&[&gate.at("create.clear.before")]);
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&machine.id]).unwrap();
    wire.take(&group, "now");
    assert_eq!(site.journals().len(), 1);
    let (mut folders, mut seen) = (vec![site.data.clone()], 0);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_symlink() {
                continue; // what it leads to is as its own folder is
            }
            if meta.is_dir() {
                folders.push(path.clone());
            } else if path.extension().is_some_and(|e| e == "qcow2") {
                continue; // as its image is
            }
            seen += 1;
            assert_eq!(meta.mode() & 0o007, 0, "{}", path.display());
        }
    }
    assert!(seen > 10, "{seen}");
}

/// QEMU's tools do not open it for writing while the server runs, even as root. The server freezes what it
/// published within a second.
fn assert_nobody_writes(file: &Path) {
    let began = Instant::now();
    let open = ["-f", format(file), "-c", "length", file.to_str().unwrap()];
    loop {
        let (done, said) = tools::try_run("qemu-io", &open);
        if !done {
            assert!(said.contains("lock"), "{}: {said}", file.display());
            return;
        }
        assert!(
            began.elapsed().as_secs() < 60,
            "{} is not frozen",
            file.display()
        );
    }
}
