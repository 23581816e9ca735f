//! The folder that an image lies in is exchanged for a folder of root, or for a link to one, again and again or once.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::scene::{COMPLETED, Exchange, INVALID_STATE, Scene, may_run};
use crate::support::gate::Gate;
use crate::support::site::{Ground, Image, assert_holds};
use crate::support::tools::run;
use crate::support::wire::{Created, STARTED, Wire};

/// So often an operation is begun while the folder is exchanged.
const ROUNDS: usize = 60;

/// What is exchanged with the folder of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Other {
    /// A folder of root that nobody else may look into.
    Folder,
    /// A link to that.
    Link,
    /// The same with the folder above the folder of the image.
    Above,
    /// The same with the folder for clones beside the image.
    Clones,
}

const OTHERS: [Other; 4] = [Other::Folder, Other::Link, Other::Above, Other::Clones];

/// The two names that are exchanged, and the folder of root.
struct Trap {
    own: PathBuf,
    other: PathBuf,
    guarded: PathBuf,
    before: String,
}

impl Trap {
    fn new(scene: &Scene, kind: Other) -> Self {
        let folder = scene.image.parent().unwrap();
        let pool = folder.parent().unwrap();
        let own = match kind {
            Other::Above => pool.to_owned(),
            Other::Clones => folder.join(".groupshot"),
            _ => folder.to_owned(),
        };
        let beside = own.with_file_name("other");
        let guarded = match kind {
            Other::Link => scene.site.images.join("guarded"),
            _ => beside.clone(),
        };
        fs::create_dir(&guarded).unwrap();
        fs::write(guarded.join("mine"), "of root").unwrap();
        fs::set_permissions(&guarded, fs::Permissions::from_mode(0o700)).unwrap();
        match kind {
            Other::Link => symlink(&guarded, &beside).unwrap(),
            Other::Above => chown(&scene.site.images, Some(65_534), Some(65_534)).unwrap(),
            Other::Folder | Other::Clones => {}
        }
        let mut trap = Self {
            own,
            other: beside,
            guarded,
            before: String::new(),
        };
        trap.before = trap.below();
        trap
    }

    /// Everything in the folder of root, wherever it stands.
    fn below(&self) -> String {
        let guarded = [&self.guarded, &self.own, &self.other];
        let guarded = guarded.into_iter().find(|f| f.join("mine").exists());
        let told = "%P %i %m %U %n %s %T@\n";
        let folder = guarded.unwrap().to_str().unwrap();
        // The folder's own change time is that of its name.
        run("find", &[folder, "-mindepth", "1", "-printf", told])
    }

    fn swap(&self) {
        renameat_with(CWD, &self.own, CWD, &self.other, RenameFlags::EXCHANGE).unwrap();
    }

    /// As it was in the beginning, whichever side it is on.
    fn put_back(&self, scene: &Scene) {
        let is_other = |name: &Path| name.is_symlink() || name.join("mine").exists();
        if is_other(&self.own) {
            self.swap();
        }
        assert!(scene.image.exists() && is_other(&self.other));
    }

    fn assert_untouched(&self, what: &str) {
        assert_eq!(self.below(), self.before, "{what}");
    }
}

/// Whether an operation ended well; else it was refused, or failed, for what stands in the place of something.
fn ended_well(wire: &Wire, answer: &Created, what: &str) -> bool {
    if answer.value != STARTED {
        let why = wire.why(answer);
        assert_eq!(answer.value, INVALID_STATE, "{what}: {why}");
        return false;
    }
    let job = wire.end(answer.job.as_deref().unwrap()).unwrap();
    if (job.state, job.code) != (COMPLETED, 0) {
        assert_eq!(job.code, INVALID_STATE, "{what}: {job:?}");
        assert!(job.error.contains("web"), "{what}: {job:?}");
        return false;
    }
    true
}

/// The files that lie in the folder of the image.
fn beside(scene: &Scene) -> Vec<String> {
    let folder = scene.image.parent().unwrap().to_str().unwrap();
    let found = run(
        "find",
        &[folder, "-mindepth", "1", "-type", "f", "-printf", "%P\n"],
    );
    let found = found.lines().filter(|file| *file != "other/mine");
    let mut found: Vec<_> = found.map(str::to_owned).collect();
    found.sort();
    found
}

/// Nothing is left of what was tried, and all goes on as if nobody had been there.
fn is_whole(scene: &mut Scene, wire: &Wire, (set, first): (&str, &[u8]), what: &str) {
    scene.site.wait_for_journals();
    let shown = wire.shown().unwrap();
    let members = shown.sets.values().flat_map(|s| &s.members);
    let kept = members.map(|m| m.disks["disk0"].clone());
    let named = kept.chain([scene.image.clone()]);
    let folder = scene.image.parent().unwrap();
    let mut named: Vec<_> = named
        .map(|f| f.strip_prefix(folder).unwrap().display().to_string())
        .collect();
    named.sort();
    assert_eq!(beside(scene), named, "{what}");
    let applied = wire.apply(set).unwrap();
    assert!(ended_well(wire, &applied, what), "{what}");
    scene.site.wait_for_journals();
    assert_holds(&scene.image, first, what);
    assert_eq!(beside(scene), named, "{what}");
    // That others may exchange the folder is told all the time.
    let said = scene.doctor(&[]);
    let findings = said.lines().skip(1).filter(|l| !l.is_empty());
    let mut others = findings.filter(|l| !l.contains("image-exposed"));
    assert_eq!(others.next(), None, "{what}: {said}");
}

#[test]
fn nothing_is_done_in_a_folder_that_is_exchanged_with_that_of_an_image_while_sets_are_applied() {
    if !may_run("folders exchanged all the time while sets are applied") {
        return;
    }
    for (ground, other) in OTHERS
        .into_iter()
        .flat_map(|o| [(Ground::Xfs, o)])
        .chain([(Ground::Btrfs, Other::Folder)])
    {
        let what = format!("{ground:?} {other:?}");
        let mut scene = Scene::new(ground, Image::Raw, &[]);
        let server = scene.site.serve();
        let (wire, set) = scene.with_a_set(&server);
        let first = scene.machine.content[0].clone();
        scene.writes(3);
        let trap = Trap::new(&scene, other);
        let exchange = Exchange::start(&trap.own, &trap.other);
        for n in 0..ROUNDS {
            let applied = wire.apply(&set).unwrap();
            ended_well(&wire, &applied, &format!("{what} {n}"));
        }
        exchange.stop();
        trap.put_back(&scene);
        trap.assert_untouched(&what);
        is_whole(&mut scene, &wire, (&set, &first), &what);
        trap.assert_untouched(&what);
    }
}

#[test]
fn nothing_is_done_in_a_folder_that_is_exchanged_with_that_of_an_image_while_sets_are_taken() {
    if !may_run("folders exchanged all the time while sets are taken") {
        return;
    }
    for other in OTHERS {
        let what = format!("{other:?}");
        let mut scene = Scene::new(Ground::Xfs, Image::Raw, &[]);
        let server = scene.site.serve();
        let wire = Wire::new(&server);
        let group = scene.group(&wire);
        let set = wire.take(&group, "one");
        scene.site.wait_for_journals();
        let first = scene.machine.content[0].clone();
        scene.writes(3);
        let trap = Trap::new(&scene, other);
        let exchange = Exchange::start(&trap.own, &trap.other);
        let destroyed = |set: &str, what: &str| {
            let gone = wire.destroy(set).unwrap();
            ended_well(&wire, &gone, what)
        };
        for n in 0..ROUNDS {
            let what = format!("{what} {n}");
            let created = wire.create(&group, "more").unwrap();
            if ended_well(&wire, &created, &what) {
                destroyed(&created.set.unwrap(), &what);
            }
        }
        exchange.stop();
        trap.put_back(&scene);
        trap.assert_untouched(&what);
        scene.site.wait_for_journals();
        for left in wire.shown().unwrap().sets.into_keys() {
            assert!(left == set || destroyed(&left, &what), "{what}");
        }
        // What could not be removed meanwhile goes with the next one.
        let more = wire.take(&group, "more");
        assert!(destroyed(&more, &what), "{what}");
        is_whole(&mut scene, &wire, (&set, &first), &what);
        trap.assert_untouched(&what);
    }
}

/// The server dies within an apply, starts again while another folder is there, and once more on the right one.
#[test]
fn an_apply_that_died_waits_for_the_folder_of_its_image_and_touches_no_other() {
    if !may_run("kills within applies while folders are exchanged") {
        return;
    }
    for point in [
        "apply.prepare.after",
        "apply.commit.after",
        "apply.revert.after",
        "apply.publish.after",
    ] {
        for other in OTHERS {
            let what = format!("{point} {other:?}");
            let mut scene = Scene::new(Ground::Xfs, Image::Raw, &[]);
            let gate = Gate::new();
            let mut server = scene.site.serve_with(&[&gate.at(point)]);
            let (wire, set) = scene.with_a_set(&server);
            let first = scene.machine.content[0].clone();
            scene.writes(3);
            let applied = wire.apply(&set).unwrap();
            scene.is_at_the_gate(&wire, (&applied, &gate), &what);
            let trap = Trap::new(&scene, other);
            trap.swap();
            server.kill();
            drop(gate);
            let mut server = scene.site.serve();
            trap.assert_untouched(&what);
            let said = scene.doctor(&[]);
            assert!(said.contains(&set), "{what}: {said}");
            let journals = scene.site.journals();
            assert_eq!(journals.len(), 1, "{what}: {said}");
            server.kill();
            trap.put_back(&scene);
            let server = scene.site.serve();
            let wire = Wire::new(&server);
            let job = wire.end(&applied.job.unwrap()).unwrap();
            scene.site.wait_for_journals();
            if point == "apply.prepare.after" {
                assert_eq!(job.state, 10, "{what}: {job:?}");
                assert_holds(&scene.image, &scene.machine.content[0], &what);
            } else {
                assert_eq!(job.state, COMPLETED, "{what}: {job:?}");
                assert_holds(&scene.image, &first, &what);
            }
            is_whole(&mut scene, &wire, (&set, &first), &what);
            trap.assert_untouched(&what);
        }
    }
}

/// The same of a create.
#[test]
fn a_create_that_died_waits_for_the_folder_of_its_image_and_touches_no_other() {
    if !may_run("kills within captures while folders are exchanged") {
        return;
    }
    for point in [
        "create.prepare.after",
        "create.settle.after",
        "create.commit.after",
    ] {
        for other in OTHERS {
            let what = format!("{point} {other:?}");
            let mut scene = Scene::new(Ground::Xfs, Image::Raw, &[]);
            let mut server = scene.site.serve();
            let wire = Wire::new(&server);
            let group = scene.group(&wire);
            let set = wire.take(&group, "one");
            scene.site.wait_for_journals();
            server.kill();
            let gate = Gate::new();
            let mut server = scene.site.serve_with(&[&gate.at(point)]);
            let wire = Wire::new(&server);
            let first = scene.machine.content[0].clone();
            scene.writes(3);
            let created = wire.create(&group, "two").unwrap();
            scene.is_at_the_gate(&wire, (&created, &gate), &what);
            let trap = Trap::new(&scene, other);
            trap.swap();
            server.kill();
            drop(gate);
            let mut server = scene.site.serve();
            trap.assert_untouched(&what);
            server.kill();
            trap.put_back(&scene);
            let server = scene.site.serve();
            let wire = Wire::new(&server);
            let job = wire.end(&created.job.unwrap()).unwrap();
            let state = if point == "create.commit.after" {
                COMPLETED
            } else {
                10
            };
            assert_eq!(job.state, state, "{what}: {job:?}");
            assert_holds(&scene.image, &scene.machine.content[0], &what);
            is_whole(&mut scene, &wire, (&set, &first), &what);
            trap.assert_untouched(&what);
        }
    }
}
