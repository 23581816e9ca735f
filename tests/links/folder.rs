//! The folder that an image lies in is exchanged for a folder of root, or for a link to one, again and again or once.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::scene::{COMPLETED, Exchange, INVALID_STATE, Scene};
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
    let below = |f: PathBuf| Some(f.strip_prefix(folder).ok()?.display().to_string());
    let mut named: Vec<_> = named.filter_map(below).collect();
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
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn nothing_is_done_in_a_folder_that_is_exchanged_with_that_of_an_image_while_sets_are_applied() {
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
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn nothing_is_done_in_a_folder_that_is_exchanged_with_that_of_an_image_while_sets_are_taken() {
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

/// An apply or a create that a server died in at `point`.
struct Died {
    scene: Scene,
    set: String,
    /// What the set holds.
    first: Vec<u8>,
    job: String,
}

impl Died {
    /// Before it dies, `meanwhile` happens. A group of the machine and of those that `others` makes.
    fn at(
        point: &str,
        others: impl FnOnce(&Scene) -> Vec<String>,
        meanwhile: impl FnOnce(&Scene),
    ) -> Self {
        let mut scene = Scene::new(Ground::Xfs, Image::Raw, &[]);
        let others = others(&scene);
        let mut server = scene.site.serve();
        let wire = Wire::new(&server);
        let members = others.iter().map(String::as_str);
        let members: Vec<_> = members.chain([scene.machine.id.as_str()]).collect();
        let group = wire.define("group", &members).unwrap();
        let set = wire.take(&group, "one");
        scene.site.wait_for_journals();
        server.kill();
        let gate = Gate::new();
        let mut server = scene.site.serve_with(&[&gate.at(point)]);
        let wire = Wire::new(&server);
        let first = scene.machine.content[0].clone();
        scene.writes(3);
        let begun = match point.starts_with("apply") {
            true => wire.apply(&set).unwrap(),
            false => wire.create(&group, "two").unwrap(),
        };
        scene.is_at_the_gate(&wire, (&begun, &gate), point);
        meanwhile(&scene);
        server.kill();
        let job = begun.job.unwrap();
        Self {
            scene,
            set,
            first,
            job,
        }
    }

    /// With another machine, whose id this gives too; the folder is moved away with what was made in it.
    fn in_a_group(point: &str) -> (Self, String) {
        let mut other = String::new();
        let others = |scene: &Scene| {
            other = scene.site.machine("db", &[Image::Raw], 2).id;
            vec![other.clone()]
        };
        let died = Self::at(point, others, |scene| moved(scene, true));
        (died, other)
    }

    /// How the job has ended, and what the image holds then.
    fn assert_ended(&self, wire: &Wire, (is_undone, what): (bool, &str)) {
        let job = wire.end(&self.job).unwrap();
        let state = if is_undone { 10 } else { COMPLETED };
        assert_eq!(job.state, state, "{what}: {job:?}");
        let is_applied = what.starts_with("apply") && !is_undone;
        let now = &self.scene.machine.content[0];
        let holds = if is_applied { &self.first } else { now };
        assert_holds(&self.scene.image, holds, what);
    }
}

/// Where an operation has died, and what becomes of it while the folder is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It waits for the folder.
    Waits,
    /// It is undone; what was made there stays until the folder is back.
    Undone,
    /// It is finished but for what was made there.
    Finished,
    /// It needs the folder no more.
    Needless,
}

const FATES: [(&str, Fate); 7] = [
    ("apply.prepare.after", Fate::Undone),
    ("apply.commit.after", Fate::Waits),
    ("apply.revert.after", Fate::Waits),
    ("apply.publish.after", Fate::Finished),
    ("create.prepare.after", Fate::Undone),
    ("create.settle.after", Fate::Undone),
    ("create.commit.after", Fate::Needless),
];

/// It starts again while another folder is there, and once more on the right one.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_died_in_a_folder_that_is_exchanged_touches_no_other() {
    for (point, fate) in FATES {
        for other in OTHERS {
            let what = format!("{point} {other:?}");
            let mut trap = None;
            let mut died = Died::at(
                point,
                |_| Vec::new(),
                |scene| {
                    let set = Trap::new(scene, other);
                    set.swap();
                    trap = Some(set);
                },
            );
            let trap = trap.unwrap();
            let mut server = died.scene.site.serve();
            trap.assert_untouched(&what);
            if fate != Fate::Waits {
                died.scene.site.wait_for_journals();
            }
            let said = died.scene.doctor(&[]);
            let journals = died.scene.site.journals();
            assert_eq!(
                journals.len(),
                usize::from(fate == Fate::Waits),
                "{what}: {said}"
            );
            assert_eq!(
                said.contains("stuck"),
                fate == Fate::Waits,
                "{what}: {said}"
            );
            let is_left = matches!(fate, Fate::Undone | Fate::Finished);
            assert_eq!(said.contains("leftover"), is_left, "{what}: {said}");
            server.kill();
            trap.assert_untouched(&what);
            trap.put_back(&died.scene);
            let server = died.scene.site.serve();
            let wire = Wire::new(&server);
            died.assert_ended(&wire, (fate == Fate::Undone, &what));
            let (set, first) = (died.set.clone(), died.first.clone());
            is_whole(&mut died.scene, &wire, (&set, &first), &what);
            trap.assert_untouched(&what);
        }
    }
}

/// The folder is merely moved away, with what was made in it.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_cannot_be_reached_holds_nobody_and_goes_once_its_folder_is_back() {
    let fates = FATES.into_iter();
    let fates = fates.filter(|(_, fate)| matches!(fate, Fate::Undone | Fate::Finished));
    for (point, fate) in fates {
        let (mut died, other) = Died::in_a_group(point);
        let server = died.scene.site.serve();
        let wire = Wire::new(&server);
        died.scene.site.wait_for_journals();
        let alone = wire.define("db alone", &[&other]).unwrap();
        wire.take(&alone, "free");
        died.scene.site.wait_for_journals();
        let said = died.scene.doctor(&[]);
        assert!(said.contains("leftover"), "{point}: {said}");
        moved(&died.scene, false);
        died.scene.doctor(&["--fix", "--yes"]);
        let folder = died.scene.image.parent().unwrap().to_str().unwrap();
        let empty = run("find", &[folder, "-mindepth", "2", "-type", "d", "-empty"]);
        assert_eq!(empty, "", "{point}");
        died.assert_ended(&wire, (fate == Fate::Undone, point));
        let (set, first) = (died.set.clone(), died.first.clone());
        is_whole(&mut died.scene, &wire, (&set, &first), point);
    }
}

/// The folder of the image goes away, or comes back.
fn moved(scene: &Scene, away: bool) {
    let folder = scene.image.parent().unwrap();
    let aside = folder.with_file_name("aside");
    let (from, to) = if away {
        (folder, &*aside)
    } else {
        (&*aside, folder)
    };
    fs::rename(from, to).unwrap();
}

/// From its commit on a group goes back as one: an operator who cannot bring the folder back takes its machine out.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_committed_apply_holds_its_group_until_the_folder_is_back_or_its_machine_is_taken_out() {
    let (died, other) = Died::in_a_group("apply.commit.after");
    let site = &died.scene.site;
    let server = site.serve();
    let wire = Wire::new(&server);
    let alone = wire.define("db alone", &[&other]).unwrap();
    let held = wire.create(&alone, "held").unwrap();
    assert_eq!(held.value, INVALID_STATE, "{}", wire.why(&held));
    let said = died.scene.doctor(&[]);
    let stuck = said.lines().find(|line| line.contains("stuck"));
    let stuck = stuck.unwrap_or_else(|| panic!("{said}"));
    let folder = died.scene.image.parent().unwrap().to_str().unwrap();
    for part in ["web", "db", folder] {
        assert!(stuck.contains(part), "{part}: {said}");
    }
    let definition = site.data.join("machines").join(&died.scene.machine.id);
    let definition = definition.join("vm.toml");
    fs::rename(&definition, definition.with_extension("aside")).unwrap();
    let job = wire.end(&died.job).unwrap();
    assert_eq!(job.state, COMPLETED, "{job:?}");
    site.wait_for_journals();
    wire.take(&alone, "free");
}
