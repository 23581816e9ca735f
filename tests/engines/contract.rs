//! The contract: what the coordinator and recovery may ask of any driver.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use groupshot::engine::{
    At, Census, Compute, EngineError, Hold, InTurn, Kept, Layer, Live, Machines, Merged, Named,
    Observed, Plan, Read, Recorded, Records, Reserve, Retain, RevertRequest, Scene, Stands,
    Subject, Survey, Target, Top, Watch, Whose,
};
use groupshot::id::{JobId, SetId, SnapshotId, VmId};
use groupshot::inventory::{Format, Machine, RunState, Seal, Sealed, SnapshotDisk};
use tokio::sync::watch;

use super::rigs::{FileRig, Image, Rig, SimRig, set};
use crate::support::tools;

#[test]
fn sim_keeps_the_contract() {
    keeps_the_contract(SimRig::new);
}

#[test]
fn overlay_of_raw_keeps_the_contract() {
    keeps_the_contract(|| FileRig::overlay(Image::Raw));
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn overlay_of_qcow2_keeps_the_contract() {
    keeps_the_contract(|| FileRig::overlay(Image::Qcow2));
    keeps_the_contract(|| FileRig::overlay(Image::Chain));
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn reflink_on_xfs_keeps_the_contract() {
    for image in [Image::Raw, Image::Qcow2, Image::Chain] {
        keeps_the_contract(|| FileRig::reflink("xfs", image));
    }
}

#[test]
fn overlays_of_machines_that_run_keep_the_contract() {
    keeps_the_contract(|| FileRig::overlay(Image::Raw).that_runs(Live::default()));
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn overlays_over_qcow2_of_machines_that_run_keep_the_contract() {
    for image in [Image::Qcow2, Image::Chain] {
        keeps_the_contract(|| FileRig::overlay(image).that_runs(Live::default()));
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn clones_of_machines_that_run_keep_the_contract() {
    for image in [Image::Raw, Image::Qcow2, Image::Chain] {
        keeps_the_contract(|| FileRig::reflink("xfs", image).that_runs(Live::default()));
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn reflink_on_btrfs_keeps_the_contract() {
    for image in [Image::Raw, Image::RawNoCow, Image::Qcow2, Image::Chain] {
        keeps_the_contract(|| FileRig::reflink("btrfs", image));
    }
}

fn keeps_the_contract<R: Rig>(new: impl Fn() -> R) {
    let rig = &new();
    planning_leaves_nothing_behind(rig);
    cut_without_prepare_fails(rig);
    undo_at_every_point_leaves_nothing(rig);
    every_step_may_be_repeated_and_the_capture_stands(rig);
    a_revert_restores_and_its_undo_leaves_all_as_it_was(rig);
    // On what earlier captures have left others lie.
    what_is_kept_is_sealed_read_and_given_up(&new());
    if rig.live().is_some() {
        what_runs_is_captured_as_it_is_at_the_cut(&new());
    }
}

fn plan(rig: &dyn Rig, number: u128) -> Plan {
    let machine = rig.machine();
    rig.storage()
        .plan(&machine, &machine.disks[0], set(number), rig.live())
        .unwrap()
        .expect("the driver holds the disk")
}

fn old_top(plan: &Plan) -> Top {
    Top {
        file: plan.disk.file.clone(),
        format: plan.disk.format,
    }
}

fn planning_leaves_nothing_behind(rig: &dyn Rig) {
    let plan = plan(rig, 1);
    assert_eq!(plan.driver, rig.storage().name());
    assert_eq!(rig.left_behind(), [""; 0].map(Into::<PathBuf>::into));
}

fn cut_without_prepare_fails(rig: &dyn Rig) {
    let plan = plan(rig, 2);
    let error = rig.storage().cut(&plan).unwrap_err();
    assert!(error.text.english().contains("disk0"), "{error}");
    assert!(rig.storage().settle(&plan).is_err());
    assert_eq!(rig.left_behind(), Vec::<PathBuf>::new());
}

fn undo_at_every_point_leaves_nothing(rig: &dyn Rig) {
    let storage = rig.storage();
    let machine = rig.machine();
    let top = &machine.tops()["disk0"];
    rig.write(top, 2);
    for steps in 0..=3 {
        let plan = plan(rig, 3);
        if steps >= 1 {
            storage.prepare(&plan).unwrap();
        }
        if steps >= 2 {
            rig.capture(&plan);
        }
        if steps >= 3 {
            storage.settle(&plan).unwrap();
        }
        for _ in 0..2 {
            storage.undo(&plan).unwrap();
            assert_eq!(rig.left_behind(), Vec::<PathBuf>::new());
        }
        rig.assert_top(&old_top(&plan), 2);
        rig.write(&old_top(&plan), 2);
    }
}

fn every_step_may_be_repeated_and_the_capture_stands(rig: &dyn Rig) {
    let storage = rig.storage();
    let machine = rig.machine();
    rig.write(&machine.tops()["disk0"], 3);
    let plan = plan(rig, 4);
    for _ in 0..2 {
        storage.prepare(&plan).unwrap();
        // Where the machine goes on itself, only its word tells that.
        assert!(
            rig.takes() || storage.settle(&plan).is_err(),
            "nothing is cut"
        );
    }
    for _ in 0..2 {
        rig.capture(&plan);
    }
    for _ in 0..2 {
        storage.settle(&plan).unwrap();
    }
    storage.prepare(&plan).unwrap();
    let settled = storage.settle(&plan);
    assert!(settled.is_ok(), "a cut is never prepared away: {settled:?}");
    let (captured, top) = (storage.captured(&plan), storage.top_after(&plan));
    assert_eq!(
        (captured.id.as_str(), captured.size),
        ("disk0", plan.disk.size)
    );
    assert_eq!(captured.driver, storage.name());
    rig.assert_captured(&plan, 3);
    rig.assert_top(&top, 3);
    rig.write(&top, 4);
    rig.assert_captured(&plan, 3);
    rig.assert_top(&top, 4);
}

fn what_runs_is_captured_as_it_is_at_the_cut(rig: &dyn Rig) {
    let storage = rig.storage();
    let plan = plan(rig, 5);
    rig.write(&old_top(&plan), 5);
    storage.prepare(&plan).unwrap();
    rig.write(&old_top(&plan), 6);
    storage.flush(&plan).unwrap();
    rig.capture(&plan);
    storage.settle(&plan).unwrap();
    rig.assert_captured(&plan, 6);
    let new = storage.top_after(&plan);
    rig.assert_top(&new, 6);
    assert_eq!(
        storage.outlived(&plan),
        Ok(None),
        "nothing was written since"
    );
    storage.reopen(&plan).unwrap();
    rig.write(&old_top(&plan), 6);
    // Another file in its place is none of the machine's.
    let image = &plan.disk.file;
    let aside = image.with_extension("aside");
    std::fs::rename(image, &aside).unwrap();
    std::fs::copy(&aside, image).unwrap();
    assert!(storage.flush(&plan).is_err());
    std::fs::rename(&aside, image).unwrap();
    storage.flush(&plan).unwrap();
}

fn a_revert_restores_and_its_undo_leaves_all_as_it_was(rig: &dyn Rig) {
    let storage = rig.storage();
    rig.write(&old_top(&plan(rig, 90)), 0x11);
    let plan = plan(rig, 90);
    storage.prepare(&plan).unwrap();
    rig.capture(&plan);
    storage.settle(&plan).unwrap();
    let (top, kept) = (storage.top_after(&plan), storage.captured(&plan));
    rig.write(&top, 0x22);
    let machine = rig.machine();
    let mut disk = plan.disk.clone();
    (disk.file, disk.format) = (top.file.clone(), top.format);
    for shared in [true, false] {
        let before = rig.left_behind();
        let revert = storage
            .plan_revert(RevertRequest {
                job: JobId::from_u128(u128::from(shared)),
                set: plan.set,
                machine: &machine,
                disk: &disk,
                kept: &kept,
                shared,
            })
            .unwrap();
        assert_eq!(rig.left_behind(), before, "planning leaves nothing");
        storage.undo_revert(&revert).unwrap();
        storage.prepare_revert(&revert).unwrap();
        storage.prepare_revert(&revert).unwrap();
        storage.undo_revert(&revert).unwrap();
        storage.undo_revert(&revert).unwrap();
        assert_eq!(rig.left_behind(), before, "its undo leaves nothing");
        rig.assert_top(&top, 0x22);
        storage.prepare_revert(&revert).unwrap();
        let held = storage.hold_revert(&revert).unwrap();
        storage.revert(&revert).unwrap();
        storage.revert(&revert).unwrap();
        drop(held);
        let new = storage.top_reverted(&revert);
        rig.assert_top(&new, 0x11);
        if !revert.is_in_place() {
            rig.assert_top(&top, 0x22); // somebody may need it as it is
        }
        storage.settle_revert(&revert).unwrap();
        storage.settle_revert(&revert).unwrap();
        if revert.is_in_place() {
            assert_eq!(rig.left_behind(), before, "the safety copy is gone");
        }
        rig.assert_top(&new, 0x11);
        rig.assert_captured(&plan, 0x11);
    }
}

/// One captured disk, and who names what of it.
struct Captured<'a> {
    rig: &'a dyn Rig,
    machine: Machine,
    top: Top,
    kept: SnapshotDisk,
    /// What the machine has written since.
    now: u8,
}

fn what_is_kept_is_sealed_read_and_given_up(rig: &dyn Rig) {
    let storage = rig.storage();
    rig.write(&old_top(&plan(rig, 91)), 0x33);
    let plan = plan(rig, 91);
    let machine = rig.machine();
    storage.prepare(&plan).unwrap();
    rig.capture(&plan);
    storage.settle(&plan).unwrap();
    let sealed = storage.seal(&plan, Some(&machine), &BTreeSet::new());
    let kept = SnapshotDisk {
        sealed: sealed.unwrap(),
        ..storage.captured(&plan)
    };
    let top = storage.top_after(&plan);
    let mut it = Captured {
        rig,
        machine,
        top,
        kept,
        now: 0x33,
    };
    match storage.retain() {
        Some(retain) => it.is_sealed_and_told(retain),
        None => assert_eq!(it.kept.sealed, [], "nothing is kept in files"),
    }
    if let Some(read) = storage.read() {
        it.is_read(read);
    }
    // Without QEMU's tools no overlay is written.
    if it.top.format == Format::Raw || tools::are_there() {
        it.now = 0x44;
        rig.write(&it.top, it.now);
    }
    match storage.retain() {
        Some(retain) => it.is_given_up(retain),
        None => storage.undo(&plan).unwrap(),
    }
}

impl Captured<'_> {
    fn at(&self) -> At {
        At::new(&self.machine.name, &self.kept.id)
    }

    fn sets(&self) -> PathBuf {
        self.machine
            .directory
            .ancestors()
            .nth(2)
            .unwrap()
            .join("sets")
    }

    fn is_sealed_and_told(&self, retain: &dyn Retain) {
        let (at, sets, id) = (self.at(), self.sets(), self.machine.id);
        let kept = Kept {
            at: &at,
            machine: Some(&self.machine),
            disk: &self.kept,
        };
        let first = self.kept.sealed.first().expect("it is sealed");
        assert_eq!(
            retain.seal(kept, &BTreeSet::new()).unwrap(),
            self.kept.sealed
        );
        assert_eq!(
            retain.again(first).unwrap(),
            *first,
            "nobody has changed it"
        );
        let later = Sealed {
            seal: Seal {
                inode: first.seal.inode + 1,
                ..first.seal
            },
            ..first.clone()
        };
        assert!(retain.again(&later).is_err(), "another file");
        let whose = Whose {
            machine: Some(&self.machine),
            disk: &self.kept.id,
            sealed: &self.kept.sealed,
        };
        let chain = retain.chain(&at, whose, (&self.kept.file, self.kept.format));
        assert!(chain.is_whole && chain.unreadable.is_none());
        assert_eq!(chain.files.len(), self.kept.sealed.len());
        // What it makes it knows again, and for whom; the image of the operator is not its own.
        let image = &self.machine.disks[0].file;
        assert!(!retain.is_ours(&sets, image) && retain.imported(&self.machine).contains(image));
        let made = match self.kept.file == *image {
            true => &self.top.file,
            false => &self.kept.file,
        };
        assert!(retain.is_ours(&sets, made) && retain.is_made_for(&sets, id, made));
        assert!(!retain.is_made_for(&sets, VmId::from_u128(8), made));
        let beside = retain.beside(image);
        let lies_beside = beside.iter().any(|folder| made.starts_with(folder));
        assert_eq!(lies_beside, retain.is_beside(made));
        assert!(retain.is_image(made) && retain.is_there(made));
        assert!(retain.seal_own(made).is_some() && retain.stamp(made).is_ok());
        let hold = retain.hold(&at, &self.top.file).unwrap();
        assert!(hold.covers(&self.top.file));
        let error = retain.hold(&at, &self.top.file).unwrap_err();
        assert!(error.text.english().contains("disk0"), "{error}");
        drop(hold);
        drop(retain.hold(&at, &self.top.file).unwrap());
    }

    fn is_read(&self, read: &dyn Read) {
        let at = self.at();
        let kept = Kept {
            at: &at,
            machine: Some(&self.machine),
            disk: &self.kept,
        };
        assert!(self.kept.size <= read.largest());
        let sources = read.sources(kept).unwrap();
        assert_eq!(sources.len(), self.kept.sealed.len());
        assert!(sources.contains(&self.kept.file) && read.weight(kept) > 0);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("copy.qcow2");
        let target = Target {
            file: &file,
            shown: Path::new("/shown/copy.qcow2"),
        };
        let none = Reserve {
            bytes: 0,
            percent: 0,
        };
        let mut give_up = |_: u64, _: u64| ControlFlow::Break(());
        assert_eq!(read.copy(kept, target, &none, &mut give_up), Ok(None));
        assert!(!file.exists(), "nothing is left of it");
        let all = Reserve {
            bytes: u64::MAX,
            percent: 0,
        };
        let mut go_on = |_: u64, _: u64| ControlFlow::Continue(());
        assert!(read.copy(kept, target, &all, &mut go_on).is_err() && !file.exists());
        let flat = read.copy(kept, target, &none, &mut go_on).unwrap().unwrap();
        assert_eq!(flat.size, self.kept.size);
        assert_eq!(flat.length, std::fs::metadata(&file).unwrap().len());
        self.rig.assert_content_of(&file, Format::Qcow2, 0x33);
    }

    /// The snapshot is gone: what it kept is merged, or removed, and the machine has what it had.
    fn is_given_up(&self, retain: &dyn Retain) {
        let compute: Arc<dyn Compute> = Arc::new(One(self.running_on(&self.top)));
        let named = |top: &Top, by| Named {
            machine: self.machine.id,
            machine_name: self.machine.name.clone(),
            disk: self.kept.id.clone(),
            file: top.file.clone(),
            format: top.format,
            by,
        };
        let file = Top {
            file: self.kept.file.clone(),
            format: self.kept.format,
        };
        let keeper = (SetId::from_u128(91), SnapshotId::from_u128(91));
        let active = named(&self.top, None);
        let kept = named(&file, Some(keeper));
        let uses = |names: Vec<Named>| {
            let (machines, kept) = (compute.machines(), self.kept.clone());
            retain.uses(Box::new(move || Census {
                machines: Arc::clone(&machines),
                named: names.clone(),
                untold: Box::new(|| Some(Vec::new())),
                records: Arc::new(Of(kept.clone())),
                unsure: false,
            }))
        };
        let both = uses(vec![active.clone(), kept.clone()]);
        let shares = self.kept.file == self.machine.disks[0].file;
        assert_eq!(both.more_than(1, &self.kept.file), shares);
        assert!(!both.more_than(2, &self.kept.file));
        let survey = |names: Vec<Named>| {
            retain.survey(Scene {
                compute: Arc::clone(&compute),
                machines: compute.machines(),
                sets: self.sets(),
                aside: self.sets().with_file_name("orphans"),
                of: Subject {
                    machine: self.machine.id,
                    name: self.machine.name.clone(),
                    layers: self.layers(),
                },
                named: names,
                untold: BTreeMap::new(),
                records: Arc::new(Of(self.kept.clone())),
                forgotten: None,
                by_record: false,
            })
        };
        // As long as a set names it, nothing goes.
        let whole = survey(vec![active.clone(), kept]).unwrap();
        assert!(whole.free(&BTreeSet::new()).is_empty());
        assert!(whole.mergeable(&BTreeSet::new()).is_none());
        assert_eq!(whole.names_of(&self.kept.file).len(), 1);
        let bare = survey(vec![active]).unwrap();
        assert!(bare.doubtful().is_empty() && bare.away_over(&self.kept.file).is_none());
        match shares {
            true => self.is_merged(retain, &*compute, &*bare),
            false => self.is_removed(retain, &*compute, &*bare),
        }
    }

    fn is_removed(&self, retain: &dyn Retain, compute: &dyn Compute, survey: &dyn Survey) {
        let (file, sets) = (&self.kept.file, self.sets());
        let free = survey.free(&BTreeSet::new());
        assert_eq!(free.first().map(|layer| &layer.file), Some(file));
        assert!(survey.is_leaf(file) && survey.mergeable(&BTreeSet::new()).is_none());
        let inode = survey.frozen_inode(file);
        assert_eq!(
            inode,
            self.kept.sealed.first().map(|sealed| sealed.seal.inode)
        );
        let other = inode.map(|inode| inode + 1);
        assert!(retain.unlink(&sets, file, other).is_err() && retain.is_there(file));
        assert!(retain.unlink(&sets, file, inode).unwrap());
        assert!(!retain.unlink(&sets, file, inode).unwrap(), "it is gone");
        assert!(!retain.is_there(file));
        assert!(
            retain
                .is_gone(compute, self.machine.id, file)
                .unwrap_or(true)
        );
        self.rig.assert_top(&self.top, self.now);
    }

    fn is_merged(&self, retain: &dyn Retain, compute: &dyn Compute, survey: &dyn Survey) {
        let (at, sets) = (self.at(), self.sets());
        assert!(survey.free(&BTreeSet::new()).is_empty() && !survey.is_leaf(&self.kept.file));
        let (layer, judged) = survey.mergeable(&BTreeSet::new()).expect("one layer");
        assert_eq!(layer.file, self.kept.file);
        let merge = judged.unwrap();
        assert_eq!(
            (&merge.parent, &merge.child),
            (&self.kept.file, &self.top.file)
        );
        survey.still(&merge).unwrap();
        survey.fits(&merge).unwrap();
        assert_eq!(survey.merges().len(), 1);
        assert_eq!(retain.stands(&merge), [Stands::There; 2]);
        let (progress, stop, go_on) = (|_: u64, _: u64| {}, || true, || false);
        let cancelled = Watch {
            progress: &progress,
            cancelled: &stop,
        };
        let done = Watch {
            progress: &progress,
            cancelled: &go_on,
        };
        assert_eq!(
            retain.merge(&at, &merge, compute, &cancelled),
            Ok(Merged::Cancelled)
        );
        for _ in 0..2 {
            assert_eq!(retain.merge(&at, &merge, compute, &done), Ok(Merged::Done));
        }
        survey.rename(&merge).unwrap();
        survey.set_mode(&merge).unwrap();
        let is_gone = |file: &Path| retain.is_gone(compute, self.machine.id, file).unwrap();
        assert!(!is_gone(&merge.child), "it is there");
        assert!(retain.unlink(&sets, &merge.child, None).unwrap());
        assert!(is_gone(&merge.child));
        assert_eq!(retain.stands(&merge), [Stands::There, Stands::Gone]);
        let lower = Top {
            file: merge.parent,
            format: merge.parent_format,
        };
        self.rig.assert_top(&lower, self.now);
    }

    fn layers(&self) -> Vec<Layer> {
        let layer = |file: &Path, format, written| Layer {
            disk: self.kept.id.clone(),
            file: file.to_owned(),
            format,
            written,
        };
        let mut layers = vec![layer(&self.kept.file, self.kept.format, true)];
        if self.top.file != self.kept.file {
            layers.push(layer(&self.top.file, self.top.format, false));
        }
        layers
    }

    fn running_on(&self, top: &Top) -> Machine {
        let mut machine = self.machine.clone();
        machine.disks[0].file.clone_from(&top.file);
        machine.disks[0].format = top.format;
        machine
    }
}

/// What is recorded of the one disk.
struct Of(SnapshotDisk);

impl Records for Of {
    fn sealed(&self, named: &Named) -> &[Sealed] {
        match named.by {
            Some(_) => &self.0.sealed,
            None => &[],
        }
    }

    fn below(&self, named: &Named) -> Option<Vec<PathBuf>> {
        self.0.known_below().filter(|_| named.by.is_some())
    }

    fn seals(&self, file: &Path) -> Vec<Seal> {
        let own = self.0.sealed.iter().filter(|sealed| sealed.file == file);
        own.map(|sealed| sealed.seal).collect()
    }

    fn is_marked(&self, _: &Path) -> bool {
        false
    }
}

/// An engine of one machine.
struct One(Machine);

impl Compute for One {
    fn observe(&self) -> watch::Receiver<Arc<Observed>> {
        watch::Sender::new(Arc::new(Observed::of(self.machines()))).subscribe()
    }

    fn machines(&self) -> Arc<Machines> {
        Arc::new([(self.0.id, Arc::new(self.0.clone()))].into())
    }

    fn state(&self, _: VmId) -> RunState {
        RunState::Off
    }

    fn recorded(&self) -> Result<Vec<Recorded>, EngineError> {
        Ok(Vec::new())
    }

    fn recorded_of(&self, _: VmId) -> Option<Recorded> {
        None
    }

    /// No other process knows of it.
    fn turn(&self, _: &dyn Fn() -> bool) -> io::Result<Option<InTurn>> {
        Ok(Some(Box::new(())))
    }

    fn set_tops(&self, _: VmId, _: &BTreeMap<String, Top>) -> Result<(), EngineError> {
        Ok(())
    }

    fn hold(&self, machine: &Machine) -> Result<Hold, EngineError> {
        Hold::of(machine)
    }
}
