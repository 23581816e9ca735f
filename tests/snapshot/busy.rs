//! Who comes at the same time: exactly one wins, the other is told at once whom it met.

use std::fs::File;
use std::sync::{Arc, Barrier};

use groupshot::engine::failure::At;
use groupshot::engine::locks::ImageLock;
use groupshot::id::{CollectionId, JobId};
use groupshot::inventory::{CollectionKind, JobState};
use groupshot::snapshot::{Mode, Refused, Resource};
use groupshot::store::Store;
use groupshot::text::catalog::snapshot::CHECKING;

use super::world::{collection, furnish, group, put};

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_share_a_member_one_wins_and_the_group_is_held() {
    let root = tempfile::tempdir().unwrap();
    let world = furnish(root.path(), 3).await;
    world.coordinator.recover().await.unwrap();
    let ids: Vec<_> = world.machines().keys().copied().collect();
    let (other, free) = (CollectionId::from_u128(2), CollectionId::from_u128(3));
    let machines = CollectionKind::Machines;
    let changes = vec![
        collection(group(), machines, ids[..2].to_vec(), vec![]),
        collection(other, machines, ids[1..].to_vec(), vec![]),
        collection(free, machines, ids[2..].to_vec(), vec![]),
    ];
    put(&*world.store, changes).await;
    // The first set stands before its cut until the others have been answered.
    let (gate, there) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let passage = (gate.clone(), there.clone());
    let once = std::sync::atomic::AtomicBool::new(false);
    let world = world.with(Box::new(move |name| {
        if name == "create.cut.before" && !once.swap(true, std::sync::atomic::Ordering::SeqCst) {
            passage.0.wait();
            passage.1.wait();
        }
        Ok(())
    }));
    let first = world.create(group()).await.unwrap();
    tokio::task::spawn_blocking(move || gate.wait())
        .await
        .unwrap();
    assert!(world.coordinator.held(group()));
    assert!(!world.coordinator.held(other), "only its machine is held");
    let holder = world.coordinator.machine_holder(ids[1]).unwrap();
    assert_eq!(holder.job, first.job);
    let Err(Refused::InvalidState(text)) = world.create(other).await else {
        panic!("m1 is held");
    };
    let (text, name) = (text.english(), &world.machines()[&ids[1]].name);
    assert!(
        text.contains(name) && text.contains(&first.job.to_string()),
        "{text}"
    );
    let second = world.create(free).await.unwrap();
    tokio::task::spawn_blocking(move || there.wait())
        .await
        .unwrap();
    for accepted in [first, second] {
        assert_eq!(world.end(accepted).await.state, JobState::Completed);
    }
    assert!(!world.coordinator.held(group()));
    assert_eq!(world.store.state().sets.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_waits_for_a_check_and_is_not_refused() {
    let root = tempfile::tempdir().unwrap();
    let world = Arc::new(furnish(root.path(), 1).await);
    world.coordinator.recover().await.unwrap();
    let machine = *world.machines().keys().next().unwrap();
    let leases = world.coordinator.leases();
    let wanted = [(Resource::Machine(machine), Mode::Brief)];
    let looking = leases
        .lease(JobId::random(), CHECKING.text(), &wanted)
        .unwrap();
    let taking = tokio::spawn({
        let world = world.clone();
        async move { world.create(group()).await }
    });
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert!(!taking.is_finished(), "it waits");
    drop(looking);
    let accepted = taking.await.unwrap().unwrap();
    assert_eq!(world.end(accepted).await.state, JobState::Completed);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sees_the_end_of_a_job_can_begin_the_next_at_once() {
    let root = tempfile::tempdir().unwrap();
    let world = furnish(root.path(), 2).await;
    world.coordinator.recover().await.unwrap();
    for _ in 0..5 {
        let accepted = world.create(group()).await.unwrap();
        let job = world
            .jobs
            .wait(accepted.job, std::time::Duration::from_secs(60));
        assert_eq!(job.await.unwrap().state, JobState::Completed);
        assert!(!world.coordinator.held(group()));
    }
}

#[tokio::test]
async fn an_image_that_another_process_uses_is_5() {
    let root = tempfile::tempdir().unwrap();
    let world = furnish(root.path(), 2).await;
    world.coordinator.recover().await.unwrap();
    let image = root.path().join("images/m1.raw");
    let lock = ImageLock::take(&At::new("other", "disk0"), &image).unwrap();
    let Err(Refused::InvalidState(text)) = world.create(group()).await else {
        panic!("the image is in use");
    };
    assert!(text.english().contains("m1.raw"), "{text:?}");
    world.assert_untouched("locked");
    drop(lock);
    let job = world.end(world.create(group()).await.unwrap()).await;
    assert_eq!(job.state, JobState::Completed);
    assert!(File::open(image).is_ok());
}
