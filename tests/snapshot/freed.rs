//! What an apply frees: the old active files and the hidden layers that they lay on. All of it goes with whoever takes
//! away the last thing on it; what cannot be seen meanwhile is remembered, and goes with the next operation.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use groupshot::failpoint::FailedOnOrder;
use groupshot::id::SetId;
use groupshot::inventory::{Format, JobState, Leftover};
use groupshot::snapshot::destroy::FREE_FAILPOINTS;
use groupshot::snapshot::{ApplyRequest, Passage};
use groupshot::store::{Change, Store as _};

use super::destroy::{assert_gone, assert_in_order, contents, destroy, take, write};
use super::world::{Left, World, furnish, group, put};
use crate::support::tools::{self};

fn nothing() -> Passage {
    Box::new(|_| Ok(()))
}

/// Applies the snapshot of the first machine.
async fn apply(world: &World, set: SetId) {
    let snapshot = world.store.state().sets[&set].members[0].id;
    let wanted = ApplyRequest {
        set,
        only: Some(snapshot),
        owner: "tester".into(),
    };
    let accepted = world.coordinator.apply(wanted).await.unwrap();
    let job = world.end(accepted).await;
    assert_eq!(job.state, JobState::Completed, "{job:?}");
}

fn first_top(world: &World) -> PathBuf {
    let machine = world.store.state().sets.values().next().unwrap().members[0].machine;
    world.machines()[&machine].disks[0].file.clone()
}

/// One machine and two sets, of which the second is destroyed: its file could not be merged, so it stays as a hidden
/// layer under the active one. The first set, that layer, the active file.
async fn with_hidden_layer(root: &Path) -> (World, SetId, PathBuf, PathBuf) {
    let world = furnish(root, 1).await;
    let first = take(&world, 1).await[0];
    let hidden = first_top(&world);
    tools::run(
        "qemu-img",
        &["bitmap", "--add", hidden.to_str().unwrap(), "backup"],
    );
    let accepted = world.create(group()).await.unwrap();
    assert_eq!(world.end(accepted).await.state, JobState::Completed);
    write(&world, 77, 30_000).await;
    let job = destroy(&world, accepted.set).await;
    let said = job.status.english();
    assert!(said.contains("hidden layers: 1"), "{said}");
    let active = first_top(&world);
    assert!(hidden.exists() && active != hidden);
    (world, first, hidden, active)
}

#[tokio::test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
async fn an_apply_takes_along_the_hidden_layer_that_it_bares() {
    let root = tempfile::tempdir().unwrap();
    let (world, first, hidden, active) = with_hidden_layer(root.path()).await;
    apply(&world, first).await;
    assert!(!active.exists() && !hidden.exists());
    assert_in_order(&world, "after the apply").await;
    destroy(&world, first).await;
    assert_in_order(&world, "after the last set").await;
    assert_gone(&world);
}

#[tokio::test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
async fn a_hidden_layer_under_another_set_stays_and_goes_with_that_one() {
    let root = tempfile::tempdir().unwrap();
    let (world, first, hidden, active) = with_hidden_layer(root.path()).await;
    let accepted = world.create(group()).await.unwrap();
    world.end(accepted).await;
    let kept = contents(&world).await;
    apply(&world, first).await;
    assert!(
        hidden.exists() && active.exists(),
        "the third set needs both"
    );
    let key = |it: &&String| it.starts_with(&accepted.set.to_string());
    let now = contents(&world).await;
    let name = kept.keys().find(key).unwrap();
    assert!(kept[name] == now[name]);
    destroy(&world, accepted.set).await;
    assert!(!hidden.exists() && !active.exists());
    destroy(&world, first).await;
    assert_in_order(&world, "after the last set").await;
    assert_gone(&world);
}

#[tokio::test(start_paused = true)]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
async fn whatever_is_left_to_free_when_the_process_dies_is_freed_by_the_next() {
    let points = FREE_FAILPOINTS.iter().filter(|p| p.starts_with("apply"));
    for (point, times) in points.flat_map(|p| [(p, 1), (p, 2)]) {
        let root = tempfile::tempdir().unwrap();
        let (world, first, hidden, active) = with_hidden_layer(root.path()).await;
        let left = Arc::new(Mutex::new((0, None)));
        let (folder, store, kept) = (world.root.clone(), world.store.clone(), left.clone());
        let dying = world.with(Box::new(move |name| {
            let mut kept = kept.lock().unwrap();
            kept.0 += u32::from(name == *point);
            if name == *point && kept.0 == times {
                kept.1 = Some(Left::take(&folder, &*store));
            }
            Ok(())
        }));
        apply(&dying, first).await;
        let left = left.lock().unwrap().1.take().unwrap();
        let store = left.restore(&world.root).await;
        let world = World::open(&world.root, store, nothing());
        let recovered = world.coordinator.recover().await.unwrap();
        let what = format!("{point} {times}");
        assert!(recovered.stuck.is_empty(), "{what}: {recovered:?}");
        assert!(recovered.orphans.is_empty(), "{what}: {recovered:?}");
        assert!(!active.exists() && !hidden.exists(), "{what}");
        assert_in_order(&world, &what).await;
    }
}

/// Two machines and a set; the first is put back while the image of the second is away, which is recorded to have lain
/// on the first one's.
async fn put_back_blindly(root: &Path) -> (World, SetId, PathBuf) {
    let world = furnish(root, 2).await;
    let set = take(&world, 1).await[0];
    let old = first_top(&world);
    let first = world.store.state().sets[&set].members[0].machine;
    let others = world.machines();
    let other = others.values().find(|m| m.id != first).unwrap();
    let tops = other.directory.join("tops.json");
    let mut recorded: serde_json::Value =
        serde_json::from_slice(&fs::read(&tops).unwrap()).unwrap();
    let below = &mut recorded["seen"][&other.disks[0].id]["below"];
    below
        .as_array_mut()
        .unwrap()
        .push(old.to_str().unwrap().into());
    recorded.as_object_mut().unwrap().remove("checksum");
    fs::write(&tops, recorded.to_string()).unwrap();
    let other = other.disks[0].file.clone();
    let aside = other.with_extension("aside");
    let moves = (other.clone(), aside.clone());
    let blind = world.with(Box::new(move |name| {
        if name == "apply.discard.before" {
            fs::rename(&moves.0, &moves.1).map_err(|e| FailedOnOrder(e.to_string()))?;
        }
        Ok(())
    }));
    apply(&blind, set).await;
    assert!(old.exists(), "the missing file may lie on it");
    let left = blind.coordinator.leftovers();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].0.file == old && left[0].1.is_some(), "{left:?}");
    fs::rename(aside, other).unwrap();
    let world = world.with(nothing());
    assert_in_order(&world, "remembered").await;
    (world, set, old)
}

#[tokio::test(start_paused = true)]
async fn an_active_file_that_could_not_be_removed_goes_with_the_next_operation_on_its_machine() {
    for next in ["apply", "destroy", "tidy"] {
        let root = tempfile::tempdir().unwrap();
        let (world, set, old) = put_back_blindly(root.path()).await;
        match next {
            "apply" => apply(&world, set).await,
            "destroy" => assert_eq!(destroy(&world, set).await.state, JobState::Completed),
            _ => {
                let machine = world.store.state().sets[&set].members[0].machine;
                let tidied = world.coordinator.tidy(machine, "tester".into()).await;
                world.end(tidied.unwrap()).await;
            }
        }
        assert!(!old.exists(), "{next}");
        assert!(world.coordinator.leftovers().is_empty(), "{next}");
        assert_in_order(&world, next).await;
    }
}

/// Neither to be removed nor to be looked at in that moment.
#[tokio::test(start_paused = true)]
async fn an_active_file_that_cannot_even_be_looked_at_is_remembered_and_goes_later() {
    let root = tempfile::tempdir().unwrap();
    let world = furnish(root.path(), 1).await;
    let set = take(&world, 1).await[0];
    let old = first_top(&world);
    let folder = old.parent().unwrap().to_owned();
    let aside = root.path().join("aside");
    let moves = (folder.clone(), aside.clone());
    let blind = world.with(Box::new(move |name| {
        if name == "apply.free.before" {
            let moved = fs::rename(&moves.0, &moves.1);
            moved
                .and_then(|()| symlink(&moves.1, &moves.0))
                .map_err(|e| FailedOnOrder(e.to_string()))?;
        }
        Ok(())
    }));
    apply(&blind, set).await;
    fs::remove_file(&folder).unwrap();
    fs::rename(aside, &folder).unwrap();
    assert!(old.exists());
    let left = world.store.state().leftovers.clone();
    assert!(left.contains_key(&old), "{left:?}");
    let world = world.with(nothing());
    let left = world.coordinator.leftovers();
    assert!(left.len() == 1 && left[0].0.file == old, "{left:?}");
    assert_eq!(world.coordinator.orphans(), Vec::<PathBuf>::new());
    assert_in_order(&world, "remembered").await;
    assert!(!old.exists(), "the next start removes it");
    assert!(world.store.state().leftovers.is_empty());
}

/// What a set kept of which only its folder is left may be needed, and nothing names it: whether it could be looked at
/// when it was bared makes no difference.
#[tokio::test(start_paused = true)]
async fn what_a_forgotten_set_may_keep_is_removed_by_no_start() {
    let root = tempfile::tempdir().unwrap();
    let world = furnish(root.path(), 1).await;
    let set = take(&world, 1).await[0];
    let old = first_top(&world);
    let machine = world.store.state().sets[&set].members[0].machine;
    let forgotten = world
        .root
        .join("data/sets")
        .join(SetId::random().to_string());
    let copy = forgotten.join(machine.to_string()).join("vm.toml");
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    fs::write(&copy, "of a set that nothing knows").unwrap();
    let folder = old.parent().unwrap().to_owned();
    let aside = root.path().join("aside");
    let moves = (folder.clone(), aside.clone());
    let blind = world.with(Box::new(move |name| {
        if name == "apply.discard.before" && !moves.1.exists() {
            let moved = fs::rename(&moves.0, &moves.1);
            moved
                .and_then(|()| symlink(&moves.1, &moves.0))
                .map_err(|e| FailedOnOrder(e.to_string()))?;
        }
        Ok(())
    }));
    apply(&blind, set).await;
    fs::remove_file(&folder).unwrap();
    fs::rename(aside, &folder).unwrap();
    let left = world.store.state().leftovers.clone();
    assert!(
        left.get(&old).is_none_or(|l| l.sealed.is_some()),
        "{left:?}"
    );
    // Nor if it is remembered by its name, as a file that could not be removed is.
    let named = Leftover {
        machine,
        machine_name: "m0".to_owned(),
        disk: "disk0".to_owned(),
        file: old.clone(),
        format: Format::Qcow2,
        sealed: None,
    };
    put(&*world.store, vec![Change::PutLeftover(named)]).await;
    let world = world.with(nothing());
    world.coordinator.recover().await.unwrap();
    assert!(old.exists());
    let told = world.coordinator.leftovers();
    assert!(told.len() == 1 && told[0].1.is_some(), "{told:?}");
    // It is given up.
    fs::remove_dir_all(&forgotten).unwrap();
    let world = world.with(nothing());
    world.coordinator.recover().await.unwrap();
    assert!(!old.exists());
}

#[tokio::test(start_paused = true)]
async fn another_file_in_the_place_of_an_old_active_one_is_not_removed() {
    let root = tempfile::tempdir().unwrap();
    let (world, set, old) = put_back_blindly(root.path()).await;
    fs::remove_file(&old).unwrap();
    fs::write(&old, "of somebody else").unwrap();
    apply(&world, set).await;
    assert_eq!(fs::read_to_string(&old).unwrap(), "of somebody else");
    assert_eq!(world.coordinator.orphans(), [old]);
}
