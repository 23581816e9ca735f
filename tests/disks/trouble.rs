//! Disks that are full, read-only or gone while a set is taken: a clear end, nothing left behind, and the
//! server goes on.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::gate::Gate;
use crate::support::server::{Options, Server, text};
use crate::support::site::{Ground, Image, Machine, SIZE, Site, assert_holds};
use crate::support::tools::{Bound, Mount};
use crate::support::until;
use crate::support::wire::{Created, Job, STARTED, Wire};

const FAILED: u64 = 2;
const EXCEPTION: u64 = 10;

/// A site with one machine in one group, and its server.
struct Scene {
    server: Server,
    wire: Wire,
    machine: Machine,
    group: String,
    site: Site,
}

impl Scene {
    fn new(site: Site, failpoints: &[&str]) -> Self {
        let machine = site.machine("web", &[Image::Raw, Image::Qcow2], 1);
        let server = site.serve_with(failpoints);
        let wire = Wire::new(&server);
        let group = wire.define("all", &[&machine.id]).unwrap();
        Self {
            server,
            wire,
            machine,
            group,
            site,
        }
    }

    /// Takes a set that is accepted and fails: the job that tells why.
    fn fails(&self) -> Job {
        let created = self.wire.create(&self.group, "x").unwrap();
        assert_eq!(created.value, STARTED, "{}", self.wire.why(&created));
        let job = self.wire.end(&created.job.unwrap()).unwrap();
        self.assert_failed(&job);
        job
    }

    fn assert_failed(&self, job: &Job) {
        assert_eq!((job.state, job.code), (EXCEPTION, FAILED), "{job:?}");
        assert!(job.percent < 100 && job.error.contains("web"), "{job:?}");
        self.assert_no_internals(&job.error);
    }

    /// No text names a path of the data directory.
    fn assert_no_internals(&self, text: &str) {
        assert!(!text.contains(self.site.data.to_str().unwrap()), "{text}");
    }

    /// Nothing is there that was not there before, and a set can be taken that holds what it must.
    fn goes_on(mut self, before: &std::collections::BTreeMap<PathBuf, crate::support::site::Seen>) {
        self.site.wait_for_journals();
        assert_eq!(&self.site.tree(), before);
        assert_eq!(self.wire.shown().unwrap().sets.len(), 0);
        let set = self.wire.take(&self.group, "after");
        let shown = self.wire.shown().unwrap();
        for (n, expected) in self.machine.content.clone().iter().enumerate() {
            let disk = format!("disk{n}");
            assert_holds(
                &shown.sets[&set].members[0].disks[&disk],
                expected,
                "captured",
            );
            let top = &shown.tops[&(self.machine.id.clone(), disk)];
            self.machine.write(top, n, 0, 4096, 9);
            assert_holds(top, &self.machine.content[n], "active");
        }
        assert!(self.server.wait(Duration::ZERO).is_none(), "it still runs");
    }
}

/// Takes all the space that is left, until dropped.
struct Filler(PathBuf);

impl Filler {
    fn fill(folder: &Path) -> Self {
        Self::leave(folder, 0)
    }

    /// Leaves about so many bytes.
    fn leave(folder: &Path, bytes: u64) -> Self {
        let path = folder.join("filler");
        let file = File::create(&path).unwrap();
        let stat = rustix::fs::statvfs(folder).unwrap();
        let free = stat.f_bavail * stat.f_frsize;
        let mut wanted = free.saturating_sub(bytes).max(1);
        let none = rustix::fs::FallocateFlags::empty();
        // The server may take some meanwhile.
        while let Err(e) = rustix::fs::fallocate(&file, none, 0, wanted) {
            assert_eq!(e, rustix::io::Errno::NOSPC);
            wanted -= stat.f_frsize;
        }
        if bytes == 0 {
            let mut at = file.metadata().unwrap().len();
            while std::os::unix::fs::FileExt::write_all_at(&file, &[1; 512], at).is_ok() {
                at += 512;
            }
        }
        Self(path)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn too_little_space_in_the_data_directory_fails_the_job_and_says_how_much() {
    let mount = Mount::tmpfs("size=256m");
    let scene = Scene::new(Site::with_data_on(mount), &[]);
    let filler = Filler::leave(scene.site.data.parent().unwrap(), 20 << 20);
    let before = scene.site.tree();
    let job = scene.fails();
    assert!(job.error.contains("free"), "{}", job.error);
    drop(filler);
    scene.goes_on(&before);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn too_little_space_beside_the_images_fails_the_job_and_says_how_much() {
    let scene = Scene::new(Site::new(Ground::Xfs), &[]);
    let filler = Filler::leave(scene.site.images.parent().unwrap(), 8 << 20);
    let before = scene.site.tree();
    let job = scene.fails();
    assert!(job.error.contains("free"), "{}", job.error);
    drop(filler);
    scene.goes_on(&before);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_full_data_directory_refuses_and_loses_nothing() {
    let scene = Scene::new(Site::with_data_on(Mount::tmpfs("size=256m")), &[]);
    let before = scene.site.tree();
    let filler = Filler::fill(scene.site.data.parent().unwrap());
    let refused = scene.wire.create(&scene.group, "x").unwrap();
    assert_eq!(refused.value, FAILED);
    scene.assert_no_internals(&scene.wire.why(&refused));
    scene.wire.shown().unwrap();
    drop(filler);
    scene.goes_on(&before);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn one_refusal_on_a_full_disk_is_one_line_of_the_log() {
    let site = Site::with_data_on(Mount::tmpfs("size=256m"));
    let log = tempfile::NamedTempFile::new().unwrap();
    let server = Server::with(&Options {
        data: Some(&site.data),
        log: Some(log.path()),
        ..Options::default()
    });
    let counted = |part: &str| {
        let log = fs::read_to_string(log.path()).unwrap();
        log.lines().filter(|line| line.contains(part)).count()
    };
    // A thread of the server writes them, behind the answer perhaps.
    let lines = |part: &str| {
        until(part, || counted(part) > 0);
        counted(part)
    };
    let machine = site.machine("web", &[Image::Raw], 1);
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&machine.id]).unwrap();
    let filler = Filler::fill(site.data.parent().unwrap());
    assert_eq!(wire.create(&group, "x").unwrap().value, FAILED);
    assert_eq!(lines("disk full"), 1);
    drop(filler);
    wire.take(&group, "x");
    assert_eq!((lines("disk full"), lines("has room again")), (1, 1));
}

/// A machine with a set to which it went back, and one that is in nobody's way but for the room it takes; all of it with
/// the audit log on one small file system, whose server has ended.
fn crowded(mount: &Mount) -> (Site, String, String) {
    let site = Site::whole_on(mount);
    let mut machine = site.machine("web", &[Image::Raw, Image::Qcow2], 1);
    let mut server = site.serve();
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&machine.id]).unwrap();
    let first = wire.take(&group, "first");
    for disk in 0..2 {
        machine.write(&site.top(&machine, disk), disk, 0, SIZE / 2, 2);
    }
    let large = wire.take(&group, "large");
    site.wait_for_journals();
    let back = wire.apply(&first).unwrap();
    assert_eq!(wire.end(&back.job.unwrap()).unwrap().state, 7);
    site.wait_for_journals();
    server.stop();
    (site, group, large)
}

/// Room is kept for whoever gives room back: whatever is full, bytes or files, a set can be deleted.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn on_a_full_file_system_a_set_is_deleted_and_all_else_is_refused_with_what_is_missing() {
    for files in [false, true] {
        let mount = Mount::file_system("ext4");
        let (site, group, large) = crowded(&mount);
        let audit = site.data.join("audit.log");
        let config = format!("[log]\naudit = {audit:?}\n");
        let server = site.serve_configured(&config);
        let wire = Wire::new(&server);
        let ballast =
            || fs::metadata(site.data.join("groupshot.ballast")).map_or(0, |m| m.blocks());
        assert_eq!(ballast() * 512, 4 << 20, "it is there from the start");
        let free = || {
            let stat = rustix::fs::statvfs(mount.path()).unwrap();
            (stat.f_bfree * stat.f_frsize, stat.f_ffree)
        };
        let full = match files {
            false => Full::Bytes(Filler::fill(mount.path())),
            true => Full::Files(no_further_file(mount.path())),
        };
        let (before, tree) = (free(), site.tree());
        let refused = wire.create(&group, "x").unwrap();
        let why = match refused.value {
            STARTED => wire.end(&refused.job.unwrap()).unwrap().error,
            value => {
                assert_eq!(value, FAILED);
                wire.why(&refused)
            }
        };
        if !files {
            let exact = "0 bytes free, at least 4 MiB (4194304 bytes) needed";
            assert!(why.contains(exact), "{why}");
        }
        assert!(why.to_lowercase().contains("space"), "{why}");
        site.wait_for_journals();
        let unlogged = |mut tree: std::collections::BTreeMap<PathBuf, _>| {
            tree.remove(&audit);
            tree
        };
        assert_eq!(unlogged(site.tree()), unlogged(tree), "nothing half made");
        let deleted = server.cli(&["snapshot", "delete", "large", "--yes"]);
        let said = text(&deleted.stdout) + &text(&deleted.stderr);
        assert!(deleted.status.success(), "{said}");
        assert!(!said.contains("hidden layer"), "{said}");
        site.wait_for_journals();
        assert!(!wire.shown().unwrap().sets.contains_key(&large));
        assert!(
            free().0 > before.0 + u64::try_from(SIZE / 2).unwrap(),
            "it gives room back"
        );
        let lines = || fs::read_to_string(&audit).unwrap() + &server.log();
        until("a line", || lines().contains("DestroySnapshot"));
        drop(full);
        wire.take(&group, "after");
        site.wait_for_journals();
        let began = Instant::now();
        while ballast() * 512 != 4 << 20 {
            assert!(began.elapsed() < Duration::from_secs(60), "it comes back");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// What fills a file system, until dropped.
#[expect(dead_code, reason = "dropped")]
enum Full {
    Bytes(Filler),
    Files(tempfile::TempDir),
}

/// Leaves no further file of all that the file system can have.
fn no_further_file(folder: &Path) -> tempfile::TempDir {
    let made = tempfile::tempdir_in(folder).unwrap();
    for n in 0.. {
        if File::create(made.path().join(n.to_string())).is_err() {
            break;
        }
    }
    made
}

/// The layer is kept, and that is said: by the command that deletes, and by the check-up, which offers no merge.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_merge_that_has_no_room_is_told_and_not_offered() {
    let mut scene = Scene::new(Site::new(Ground::Ext4), &[]);
    scene.wire.take(&scene.group, "x");
    scene.site.wait_for_journals();
    for disk in 0..2 {
        let top = scene.site.top(&scene.machine, disk);
        scene.machine.write(&top, disk, 4096, 4096, 2);
    }
    let doctor = || text(&scene.server.local(&["--json", "doctor"]).stdout);
    let filler = Filler::fill(scene.site.images.parent().unwrap());
    let deleted = scene.server.cli(&["snapshot", "delete", "x", "--yes"]);
    let told = text(&deleted.stdout);
    for part in ["deleted", "files kept as hidden layers: 2", "may need "] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let sizes = told.contains(" KiB (") && told.contains(" bytes), 0 bytes are free");
    assert!(sizes, "scaled and exact: {told}");
    scene.site.wait_for_journals();
    let found = doctor();
    assert!(found.contains("hidden-layer"), "{found}");
    assert!(!found.contains("pending-merge"), "{found}");
    drop(filler);
    assert!(doctor().contains("pending-merge"), "{}", doctor());
}

/// Accepted, and at work until the step `at`, which stands at the gate.
fn held_at(at: &str) -> (Scene, Created, Gate) {
    let gate = Gate::new();
    let mount = Mount::tmpfs("size=256m");
    let scene = Scene::new(Site::with_data_on(mount), &[&gate.at(at)]);
    let created = scene.wire.create(&scene.group, "x").unwrap();
    assert_eq!(created.value, STARTED, "{}", scene.wire.why(&created));
    gate.reached();
    (scene, created, gate)
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_disk_that_fills_up_after_acceptance_undoes_everything() {
    let (scene, created, gate) = held_at("create.define.before");
    let job = created.job.unwrap();
    let filler = Filler::fill(scene.site.data.parent().unwrap());
    gate.open();
    // The database has no room for the end of the job either: that is kept in memory, and nothing waits for it.
    let failed = scene.wire.end(&job).unwrap();
    assert_eq!(
        (failed.state, failed.code),
        (EXCEPTION, FAILED),
        "{failed:?}"
    );
    assert_eq!(scene.site.kept(), [] as [PathBuf; 0], "undone at once");
    scene.site.wait_for_journals();
    // What its journal took is free again, and may do for another job.
    let next = scene.wire.create(&scene.group, "next").unwrap();
    let why = match next.value {
        STARTED => scene.wire.end(&next.job.unwrap()).unwrap().error,
        value => {
            assert_eq!(value, FAILED, "the disk is full");
            scene.wire.why(&next)
        }
    };
    assert!(!why.contains("held by"), "its members are free: {why}");
    assert!(why.contains("space") || why.contains("free"), "{why}");
    drop(filler);
    let job = scene.wire.job(&job).unwrap();
    assert_eq!((job.state, &job.error), (failed.state, &failed.error));
    scene.assert_no_internals(&job.error);
    assert!(job.error.contains("space"), "{}", job.error);
    scene.site.wait_for_journals();
    let before = scene.site.tree();
    scene.goes_on(&before);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_disk_that_fills_up_after_the_cut_delays_the_set_and_loses_nothing() {
    let (mut scene, created, gate) = held_at("create.tops.before");
    let job = created.job.unwrap();
    let filler = Filler::fill(scene.site.data.parent().unwrap());
    gate.open();
    let waits = scene
        .wire
        .until(&job, |job| job.status.contains("waits"))
        .unwrap();
    assert_eq!(waits.state, 4);
    scene.assert_no_internals(&waits.status);
    drop(filler);
    let ended = scene.wire.end(&job).unwrap();
    assert_eq!(ended.state, 7, "{ended:?}");
    let shown = scene.wire.shown().unwrap();
    let member = &shown.sets[&created.set.unwrap()].members[0];
    for (n, expected) in scene.machine.content.clone().iter().enumerate() {
        assert_holds(&member.disks[&format!("disk{n}")], expected, "captured");
        let top = &shown.tops[&(scene.machine.id.clone(), format!("disk{n}"))];
        scene.machine.write(top, n, 0, 4096, 9);
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_read_only_folder_of_ours_is_told_and_nothing_is_left() {
    for folder in ["sets", "journal"] {
        let scene = Scene::new(Site::new(Ground::Host), &[]);
        let before = scene.site.tree();
        let bound = Bound::read_only(&scene.site.data.join(folder));
        let created = scene.wire.create(&scene.group, "x").unwrap();
        if created.value == STARTED {
            let job = scene.wire.end(&created.job.unwrap()).unwrap();
            scene.assert_failed(&job);
            assert!(job.error.contains("Read-only"), "{}", job.error);
        } else {
            assert_eq!(created.value, FAILED);
            let why = scene.wire.why(&created);
            assert!(why.contains("Read-only"), "{why}");
            scene.assert_no_internals(&why);
        }
        drop(bound);
        scene.goes_on(&before);
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn images_that_are_read_only_are_captured_all_the_same() {
    for ground in [Ground::Host, Ground::Xfs] {
        let scene = Scene::new(Site::new(ground), &[]);
        let _bound = Bound::read_only(&scene.site.images);
        let set = scene.wire.take(&scene.group, "x");
        let shown = scene.wire.shown().unwrap();
        for (n, expected) in scene.machine.content.iter().enumerate() {
            let disk = format!("disk{n}");
            assert_holds(
                &shown.sets[&set].members[0].disks[&disk],
                expected,
                "captured",
            );
            let top = &shown.tops[&(scene.machine.id.clone(), disk)];
            assert!(top.starts_with(&scene.site.data), "{}", top.display());
        }
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn images_that_vanish_or_change_after_acceptance_fail_the_job() {
    for ground in [Ground::Host, Ground::Xfs] {
        for vanish in [true, false] {
            let gate = Gate::new();
            let scene = Scene::new(Site::new(ground), &[&gate.at("create.cut.before")]);
            let before = scene.site.tree();
            let created = scene.wire.create(&scene.group, "x").unwrap();
            let job = created.job.unwrap();
            gate.reached();
            let image = &scene.machine.images[0];
            let away = image.with_extension("away");
            if vanish {
                fs::rename(image, &away).unwrap();
            } else {
                let bytes = fs::read(image).unwrap();
                fs::write(image, &bytes).unwrap(); // the same, but who knows that
            }
            gate.open();
            let job = scene.wire.end(&job).unwrap();
            scene.assert_failed(&job);
            for part in ["disk0", image.to_str().unwrap()] {
                assert!(job.error.contains(part), "{part}: {}", job.error);
            }
            if vanish {
                fs::rename(&away, image).unwrap();
            }
            scene.goes_on(&before);
        }
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn folders_of_ours_that_vanish_are_made_again_or_told() {
    let scene = Scene::new(Site::new(Ground::Host), &[]);
    let before = scene.site.tree();
    let folder = |name: &str| scene.site.data.join(name);
    let make = |folder: &Path| fs::DirBuilder::new().mode(0o750).create(folder).unwrap();
    fs::remove_dir(folder("sets")).unwrap();
    fs::remove_dir_all(folder("journal")).unwrap(); // with the spares in it
    let refused = scene.wire.create(&scene.group, "x").unwrap();
    if refused.value != STARTED {
        assert_eq!(refused.value, FAILED);
        let why = scene.wire.why(&refused);
        assert!(why.contains("journal"), "{why}");
        scene.assert_no_internals(&why);
        make(&folder("journal"));
    }
    if !folder("sets").exists() {
        make(&folder("sets"));
    }
    // The library keeps what it knew; the definition cannot be copied.
    let (home, away) = (folder("machines"), folder("away"));
    fs::rename(&home, &away).unwrap();
    let job = scene.fails();
    assert!(job.error.contains("definition"), "{}", job.error);
    fs::rename(&away, &home).unwrap();
    scene.goes_on(&before);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_failed_sync_of_tops_json_ends_the_server_and_the_next_one_finishes_the_set() {
    let site = Site::new(Ground::Host);
    drop(site.serve()); // a first start replaces files of its own
    let mut scene = Scene::new(site, &["replace.sync=error"]);
    let created = scene.wire.create(&scene.group, "x").unwrap();
    assert_eq!(created.value, STARTED, "{}", scene.wire.why(&created));
    let status = scene.server.wait(Duration::from_secs(60));
    assert!(!status.expect("it ends by itself").success());
    assert_eq!(scene.site.journals().len(), 1);
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    assert_eq!(wire.end(&created.job.unwrap()).unwrap().state, 7);
    let shown = wire.shown().unwrap();
    let member = &shown.sets[&created.set.unwrap()].members[0];
    for (n, expected) in scene.machine.content.iter().enumerate() {
        assert_holds(&member.disks[&format!("disk{n}")], expected, "captured");
    }
}

/// Else a power cut could bring the record of a set back that was said to be destroyed.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_failed_sync_of_a_removed_record_ends_the_server_and_the_next_one_ends_the_destroy() {
    let site = Site::new(Ground::Host);
    let mut scene = Scene::new(site, &["record.remove.sync=error"]);
    let set = scene.wire.take(&scene.group, "x");
    scene.site.wait_for_journals();
    let destroyed = scene.wire.destroy(&set).unwrap();
    assert_eq!(destroyed.value, STARTED, "{}", scene.wire.why(&destroyed));
    let status = scene.server.wait(Duration::from_secs(60));
    assert!(!status.expect("it ends by itself").success());
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    assert_eq!(wire.end(&destroyed.job.unwrap()).unwrap().state, 7);
    assert!(wire.shown().unwrap().sets.is_empty());
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_machine_whose_image_is_away_says_so() {
    let scene = Scene::new(Site::new(Ground::Host), &[]);
    let (image, id) = (&scene.machine.images[1], &scene.machine.id);
    let away = image.with_extension("away");
    let becomes = |expected| {
        let until = Instant::now() + Duration::from_secs(60);
        while scene.wire.health(id) != expected {
            assert!(Instant::now() < until, "it is not {expected:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    assert_eq!(scene.wire.health(id), (2, 5));
    fs::rename(image, &away).unwrap();
    becomes((3, 20));
    fs::rename(&away, image).unwrap();
    becomes((2, 5));
}
