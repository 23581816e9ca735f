//! Layers that cannot be merged when their snapshot is destroyed: they stay, the job says why, and they go with a
//! later set (`docs/cut.md` §4). And branches, whose headers are ours to change.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use groupshot::id::SetId;
use groupshot::inventory::JobState;
use groupshot::snapshot::ApplyRequest;
use groupshot::store::Store as _;

use super::destroy::{
    again, assert_gone, assert_in_order, branch, contents, destroy, take, without, write,
};
use super::world::{World, furnish, group};
use crate::support::tools::Mount;

/// Destroys the set; everything else holds what it held. What the job says.
async fn rest_stays(world: &World, set: SetId) -> String {
    let expected = without(&contents(world).await, set);
    let job = destroy(world, set).await;
    assert_eq!(job.state, JobState::Completed, "{job:?}");
    let said = job.status.english();
    assert!(contents(world).await == expected, "{said}");
    said
}

/// The set goes with a layer that is kept because of `why`; a later one takes the layer along.
async fn is_kept_until_later(world: &World, sets: &[SetId], why: &str, undo: impl FnOnce()) {
    let said = rest_stays(world, sets[0]).await;
    assert!(said.contains("hidden layers: 1"), "{said}");
    assert!(said.contains(why), "{said}");
    assert_in_order(world, why).await;
    undo();
    // A change of the mode is one that a person has to accept.
    world.coordinator.look_at_files().await.unwrap();
    for disk in world.coordinator.damaged() {
        let _accepted = world.coordinator.accept_damage(&disk).await.unwrap();
    }
    for set in &sets[1..] {
        let said = rest_stays(world, *set).await;
        assert!(said.ends_with("is destroyed"), "{said}");
    }
    assert_in_order(world, "later").await;
    assert_gone(world);
}

#[tokio::test]
async fn a_read_only_image_is_not_written_until_it_may_be() {
    let root = tempfile::tempdir().unwrap();
    let world = furnish(root.path(), 1).await;
    let image = world.tops().pop().unwrap();
    fs::set_permissions(&image, Permissions::from_mode(0o444)).unwrap();
    let sets = take(&world, 3).await;
    let before = fs::read(&image).unwrap();
    let again = || {
        assert!(fs::read(&image).unwrap() == before);
        fs::set_permissions(&image, Permissions::from_mode(0o644)).unwrap();
    };
    is_kept_until_later(&world, &sets, "is read-only", again).await;
}

#[tokio::test]
async fn a_file_that_another_machine_names_is_not_changed() {
    let root = tempfile::tempdir().unwrap();
    let world = furnish(root.path(), 1).await;
    let sets = take(&world, 3).await;
    let state = world.store.state();
    let file = |n: usize| state.sets[&sets[n]].members[0].disks[0].file.clone();
    // Somebody has written a machine by hand over what the third set keeps.
    let machine = world.machines().values().next().unwrap().clone();
    let (id, other) = (
        machine.id.to_string(),
        "0D1A6D6B-0F6B-4B52-9F3B-6A2C8E9E5A11",
    );
    let text = fs::read_to_string(&machine.definition).unwrap();
    let image = world.root.join("images/m0.raw");
    let text = text
        .replace(&id, other)
        .replace("\"m0\"", "\"by hand\"")
        .replace(image.to_str().unwrap(), file(2).to_str().unwrap())
        .replace("\"raw\"", "\"qcow2\"");
    let folder = world.root.join("data/machines").join(other);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("vm.toml"), text).unwrap();
    let tops = r#"{"format": 1, "imported": null, "tops": {}}"#;
    fs::write(folder.join("tops.json"), tops).unwrap();
    let world = again(world, Box::new(|_| Ok(())));
    assert_eq!(world.machines().len(), 2);
    let why = "not this machine's alone";
    let said = rest_stays(&world, sets[1]).await;
    assert!(
        said.contains("hidden layers: 1") && said.contains(why),
        "{said}"
    );
    fs::remove_dir_all(&folder).unwrap();
    let world = again(world, Box::new(|_| Ok(())));
    for set in [sets[0], sets[2]] {
        let said = rest_stays(&world, set).await;
        assert!(said.ends_with("is destroyed"), "{said}");
    }
    assert_gone(&world);
}

#[tokio::test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
async fn without_room_for_the_worst_case_nothing_is_merged() {
    let disk = Mount::tmpfs("size=16m");
    let world = furnish(disk.path(), 1).await;
    let sets = take(&world, 3).await;
    let filler = disk.path().join("filler");
    fill(disk.path(), &filler);
    let free = || fs::remove_file(&filler).unwrap();
    // A set whose captured file is one of ours: what lies on it has to be copied.
    is_kept_until_later(&world, &[sets[1], sets[0], sets[2]], "free", free).await;
}

/// Takes all the room but a few pages.
fn fill(folder: &Path, filler: &Path) {
    let stat = rustix::fs::statvfs(folder).unwrap();
    let free = usize::try_from(stat.f_bavail * stat.f_frsize).unwrap();
    fs::write(filler, vec![1; free - (32 << 10)]).unwrap();
}

#[tokio::test]
async fn a_file_under_two_branches_is_merged_and_both_headers_follow() {
    let root = tempfile::tempdir().unwrap();
    let world = furnish(root.path(), 1).await;
    let sets = take(&world, 3).await;
    branch(&world, sets[1]).await;
    write(&world, 77, 30_000).await;
    // What the second set keeps lies alone on what goes, and two files lie on it.
    let said = rest_stays(&world, sets[0]).await;
    assert!(said.ends_with("is destroyed"), "{said}");
    assert_in_order(&world, "branches").await;
    rest_stays(&world, sets[1]).await;
    rest_stays(&world, sets[2]).await;
    assert_gone(&world);
}

async fn apply(world: &World, set: SetId) {
    let wanted = ApplyRequest {
        set,
        only: None,
        owner: "tester".into(),
    };
    let accepted = world.coordinator.apply(wanted).await.unwrap();
    assert_eq!(world.end(accepted).await.state, JobState::Completed);
}

/// A tree as applies make it: three sets, back to the first, a fourth, back to the third.
#[tokio::test]
async fn in_every_order_after_applies_too() {
    let orders = (0..24).map(|n| {
        let mut left = vec![0, 1, 2, 3];
        [n / 6, n / 2 % 3, n % 2, 0].map(|at| left.remove(at))
    });
    for order in orders {
        let root = tempfile::tempdir().unwrap();
        let world = furnish(root.path(), 1).await;
        let mut sets = take(&world, 3).await;
        apply(&world, sets[0]).await;
        write(&world, 88, 12_000).await;
        let accepted = world.create(group()).await.unwrap();
        assert_eq!(world.end(accepted).await.state, JobState::Completed);
        sets.push(accepted.set);
        write(&world, 89, 25_000).await;
        apply(&world, sets[2]).await;
        write(&world, 90, 40_000).await;
        for n in order {
            rest_stays(&world, sets[n]).await;
        }
        assert_in_order(&world, &format!("{order:?}")).await;
        assert_gone(&world);
    }
}
