//! The contract: what the coordinator and recovery may ask of any driver.

use std::path::PathBuf;

use groupshot::engine::{Plan, RevertRequest, Top};
use groupshot::id::JobId;

use super::rigs::{FileRig, Image, Rig, SimRig, set};

#[test]
fn sim_keeps_the_contract() {
    keeps_the_contract(&SimRig::new());
}

#[test]
fn overlay_of_raw_keeps_the_contract() {
    keeps_the_contract(&FileRig::overlay(Image::Raw));
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn overlay_of_qcow2_keeps_the_contract() {
    keeps_the_contract(&FileRig::overlay(Image::Qcow2));
    keeps_the_contract(&FileRig::overlay(Image::Chain));
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn reflink_on_xfs_keeps_the_contract() {
    for image in [Image::Raw, Image::Qcow2, Image::Chain] {
        keeps_the_contract(&FileRig::reflink("xfs", image));
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn reflink_on_btrfs_keeps_the_contract() {
    for image in [Image::Raw, Image::RawNoCow, Image::Qcow2, Image::Chain] {
        keeps_the_contract(&FileRig::reflink("btrfs", image));
    }
}

fn keeps_the_contract(rig: &dyn Rig) {
    planning_leaves_nothing_behind(rig);
    cut_without_prepare_fails(rig);
    undo_at_every_point_leaves_nothing(rig);
    every_step_may_be_repeated_and_the_capture_stands(rig);
    a_revert_restores_and_its_undo_leaves_all_as_it_was(rig);
}

fn plan(rig: &dyn Rig, number: u128) -> Plan {
    let machine = rig.machine();
    rig.storage()
        .plan(&machine, &machine.disks[0], set(number))
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
            storage.cut(&plan).unwrap();
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
        assert!(storage.settle(&plan).is_err(), "nothing is cut");
    }
    for _ in 0..2 {
        storage.cut(&plan).unwrap();
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

fn a_revert_restores_and_its_undo_leaves_all_as_it_was(rig: &dyn Rig) {
    let storage = rig.storage();
    rig.write(&old_top(&plan(rig, 90)), 0x11);
    let plan = plan(rig, 90);
    storage.prepare(&plan).unwrap();
    storage.cut(&plan).unwrap();
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
