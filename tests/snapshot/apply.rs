//! Applying a set: the disks hold what was captured, whatever fails or dies on the way; and who is refused.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use groupshot::failpoint::FailedOnOrder;
use groupshot::id::{SetId, VmId};
use groupshot::inventory::JobState;
use groupshot::snapshot::apply::FAILPOINTS;
use groupshot::snapshot::{ApplyRequest, Mode, Passage, Recovered, Refused, Resource};
use groupshot::store::Store;

use super::world::{Left, World, furnish, group};
use crate::support::disk;

fn nothing() -> Passage {
    Box::new(|_| Ok(()))
}

fn fails_at(point: &'static str) -> Passage {
    let left = Mutex::new(Some(point));
    Box::new(
        move |name| match left.lock().unwrap().take_if(|p| *p == name) {
            Some(point) => Err(FailedOnOrder(point.to_owned())),
            None => Ok(()),
        },
    )
}

fn of_the_undo(point: &str) -> bool {
    point.contains(".abort.") || point.contains(".undone.")
}

fn before_the_commit(point: &str) -> bool {
    let of = |p: &str| FAILPOINTS.iter().position(|x| *x == p).unwrap();
    of(point) < of("apply.commit.after")
}

/// The first sector of every machine, as it would see it.
async fn content(world: &World) -> BTreeMap<VmId, u8> {
    let mut content = BTreeMap::new();
    for (id, machine) in world.machines().iter() {
        let image = &machine.disks[0];
        let it = disk::read(&image.file, image.format).await;
        let sector = &it[4096..4096 + 512];
        assert!(sector.iter().all(|b| *b == sector[0]));
        content.insert(*id, sector[0]);
    }
    content
}

async fn write(world: &World, byte: u8) {
    for machine in world.machines().values() {
        let image = &machine.disks[0];
        disk::write(&image.file, image.format, &[byte; 512], 4096).await;
    }
}

async fn take(world: &World) -> SetId {
    let world = world.with(nothing());
    let accepted = world.create(group()).await.unwrap();
    assert_eq!(world.end(accepted).await.state, JobState::Completed);
    accepted.set
}

pub(super) fn request(set: SetId) -> ApplyRequest {
    ApplyRequest {
        set,
        only: None,
        owner: "tester".into(),
    }
}

async fn apply(world: &World, set: SetId) {
    let world = world.with(nothing());
    let accepted = world.coordinator.apply(request(set)).await.unwrap();
    let job = world.end(accepted).await;
    assert_eq!(job.state, JobState::Completed, "{job:?}");
}

/// A set of content as furnished, then 0xBB is written.
async fn prepared(root: &Path) -> (World, SetId, BTreeMap<VmId, u8>) {
    let world = furnish(root, 2).await;
    world.coordinator.recover().await.unwrap();
    let old = content(&world).await;
    let set = take(&world).await;
    let world = world.with(nothing());
    write(&world, 0xBB).await;
    (world, set, old)
}

/// The tops are the only files besides those that the sets keep, and every position says so.
async fn assert_tidy(world: &World, at: &str) {
    let again = world.with(nothing());
    let found = again.coordinator.recover().await.unwrap();
    assert_eq!(found, Recovered::default(), "{at}");
}

#[tokio::test]
async fn the_disks_hold_what_was_captured_however_often_and_whatever_came_between() {
    let root = tempfile::tempdir().unwrap();
    let (world, first, old) = prepared(root.path()).await;
    let second = take(&world).await;
    let world = world.with(nothing());
    write(&world, 0xCC).await;
    apply(&world, first).await;
    assert_eq!(content(&world.with(nothing())).await, old);
    let state = world.store.state();
    for member in &state.sets[&first].members {
        let position = state.position(member.machine);
        assert_eq!(position.parent, Some(member.id));
        assert_eq!(position.last_applied, Some(member.id));
    }
    write(&world.with(nothing()), 0xDD).await;
    apply(&world, first).await;
    assert_eq!(content(&world.with(nothing())).await, old, "again");
    apply(&world, second).await;
    let kept = content(&world.with(nothing())).await;
    assert!(kept.values().all(|b| *b == 0xBB), "{kept:?}");
    // A branch: the new set grows from the second, the first is as it was.
    apply(&world, first).await;
    let branch = take(&world).await;
    let state = world.store.state();
    let parents: Vec<_> = state.sets[&branch]
        .members
        .iter()
        .map(|m| m.parent)
        .collect();
    let firsts: Vec<_> = state.sets[&first]
        .members
        .iter()
        .map(|m| Some(m.id))
        .collect();
    assert_eq!(parents, firsts);
    assert_tidy(&world, "a branch").await;
}

#[tokio::test]
async fn one_snapshot_of_a_set_alone() {
    let root = tempfile::tempdir().unwrap();
    let (world, set, old) = prepared(root.path()).await;
    let member = world.store.state().sets[&set].members[0].clone();
    let only = ApplyRequest {
        only: Some(member.id),
        ..request(set)
    };
    let accepted = world.coordinator.apply(only).await.unwrap();
    world.end(accepted).await;
    for (machine, byte) in content(&world.with(nothing())).await {
        let expected = if machine == member.machine {
            old[&machine]
        } else {
            0xBB
        };
        assert_eq!(byte, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn unwinds_or_goes_on_at_every_step() {
    for point in FAILPOINTS.iter().filter(|p| !of_the_undo(p)) {
        let root = tempfile::tempdir().unwrap();
        let (world, set, old) = prepared(root.path()).await;
        let before = world.ours();
        let failing = world.with(fails_at(point));
        let accepted = failing.coordinator.apply(request(set)).await;
        let back = before_the_commit(point) && *point != "apply.job.after";
        if point.starts_with("apply.intent") {
            accepted.unwrap_err();
            failing.coordinator.idle().await;
        } else {
            let job = failing.end(accepted.unwrap()).await;
            let state = if back {
                JobState::Exception
            } else {
                JobState::Completed
            };
            assert_eq!(job.state, state, "{point}");
        }
        let after = world.with(nothing());
        if back {
            assert_eq!(after.ours(), before, "{point}");
            assert!(
                content(&after).await.values().all(|b| *b == 0xBB),
                "{point}"
            );
        } else {
            assert_eq!(content(&after).await, old, "{point}");
        }
        assert_tidy(&after, point).await;
    }
}

#[tokio::test(start_paused = true)]
async fn survives_a_kill_at_every_step() {
    for point in FAILPOINTS.iter() {
        let root = tempfile::tempdir().unwrap();
        let (world, set, old) = prepared(root.path()).await;
        let before = world.ours();
        let left = Arc::new(Mutex::new(None));
        let (folder, store, kept) = (world.root.clone(), world.store.clone(), left.clone());
        let dying = world.with(Box::new(move |name| {
            if name == *point {
                let mut kept = kept.lock().unwrap();
                kept.get_or_insert_with(|| Left::take(&folder, &*store));
            }
            if of_the_undo(point) && name == "apply.prepare.after" {
                return Err(FailedOnOrder(name.to_owned()));
            }
            Ok(())
        }));
        dying
            .end(dying.coordinator.apply(request(set)).await.unwrap())
            .await;
        let left = left.lock().unwrap().take();
        let left = left.unwrap_or_else(|| panic!("{point} is never passed"));
        let store = left.restore(&world.root).await;
        let world = World::open(&world.root, store, nothing());
        let recovered = world.coordinator.recover().await.unwrap();
        assert!(
            recovered.stuck.is_empty() && recovered.orphans.is_empty(),
            "{point}: {recovered:?}"
        );
        world.coordinator.idle().await;
        assert!(
            world.jobs.all().iter().all(|j| j.state.is_terminal()),
            "{point}"
        );
        let world = world.with(nothing());
        if before_the_commit(point) || of_the_undo(point) {
            assert_eq!(world.ours(), before, "{point}");
            assert!(
                content(&world).await.values().all(|b| *b == 0xBB),
                "{point}"
            );
        } else {
            assert_eq!(content(&world).await, old, "{point}");
        }
        assert_tidy(&world, point).await;
    }
}

#[tokio::test]
async fn what_cannot_be_applied_is_refused_by_name_and_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let (world, set, _) = prepared(root.path()).await;
    let before = world.ours();
    let refuse = |request| async {
        let refused = world.coordinator.apply(request).await.unwrap_err();
        assert_eq!(world.ours(), before);
        refused
    };
    let unknown = refuse(request(SetId::from_u128(9))).await;
    assert!(
        matches!(unknown, Refused::InvalidParameter(_)),
        "{unknown:?}"
    );
    let job = groupshot::id::JobId::from_u128(7);
    let doing = groupshot::text::catalog::snapshot::WORKING.text();
    let shared = [(Resource::Set(set), Mode::Shared)];
    let export = world
        .coordinator
        .leases()
        .lease(job, doing, &shared)
        .unwrap();
    let busy = refuse(request(set)).await;
    assert!(
        matches!(&busy, Refused::InvalidState(t) if t.english().contains(&job.to_string())),
        "{busy:?}"
    );
    drop(export);
    let member = world.store.state().sets[&set].members[0].clone();
    let kept = &member.disks[0].file;
    std::fs::rename(kept, kept.with_extension("away")).unwrap();
    let missing = refuse(request(set)).await;
    assert!(matches!(missing, Refused::InvalidState(_)), "{missing:?}");
    std::fs::rename(kept.with_extension("away"), kept).unwrap();
    let machine = world.machines()[&member.machine].clone();
    std::fs::remove_dir_all(&machine.directory).unwrap();
    let gone = world
        .with(nothing())
        .coordinator
        .apply(request(set))
        .await
        .unwrap_err();
    let Refused::InvalidState(text) = gone else {
        panic!("{gone:?}")
    };
    assert!(text.english().contains(&machine.name), "{text:?}");
}
