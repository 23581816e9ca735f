//! The table of `docs/semantics.md` §3, as far as this level decides it.

use std::fs;

use groupshot::id::{CollectionId, VmId};
use groupshot::inventory::{CollectionKind, Consistency, JobState};
use groupshot::snapshot::Refused;
use groupshot::store::Store;

use super::world::{collection, furnish, group, put, request};

#[tokio::test]
async fn an_unknown_collection_is_4() {
    let root = tempfile::tempdir().unwrap();
    let world = furnish(root.path(), 1).await;
    let refused = world.create(CollectionId::from_u128(99)).await;
    assert!(matches!(refused, Err(Refused::InvalidParameter(_))));
}

#[tokio::test]
async fn an_empty_collection_and_a_vanished_member_are_5() {
    let root = tempfile::tempdir().unwrap();
    let world = furnish(root.path(), 1).await;
    world.coordinator.recover().await.unwrap();
    let (empty, gone) = (CollectionId::from_u128(2), CollectionId::from_u128(3));
    let nobody = VmId::from_u128(77);
    let machines = CollectionKind::Machines;
    let changes = vec![
        collection(empty, machines, vec![], vec![]),
        collection(gone, machines, vec![nobody], vec![]),
    ];
    put(&*world.store, changes).await;
    let Err(Refused::InvalidState(text)) = world.create(empty).await else {
        panic!("an empty collection");
    };
    assert!(text.english().contains("group 2"));
    let Err(Refused::InvalidState(text)) = world.create(gone).await else {
        panic!("a machine that is gone");
    };
    assert!(text.english().contains(&nobody.to_string()));
    world.assert_untouched("refused");
    assert!(world.store.state().jobs.is_empty());
}

#[tokio::test]
async fn a_management_collection_takes_every_machine_below_it_once() {
    let root = tempfile::tempdir().unwrap();
    let world = furnish(root.path(), 3).await;
    world.coordinator.recover().await.unwrap();
    let ids: Vec<_> = world.machines().keys().copied().collect();
    let (other, top) = (CollectionId::from_u128(2), CollectionId::from_u128(3));
    let changes = vec![
        collection(other, CollectionKind::Machines, ids[1..].to_vec(), vec![]),
        collection(
            top,
            CollectionKind::Collections,
            vec![],
            vec![other, group()],
        ),
    ];
    put(&*world.store, changes).await;
    let job = world.end(world.create(top).await.unwrap()).await;
    assert_eq!(job.state, JobState::Completed);
    world.assert_whole("nested");
    let state = world.store.state();
    let set = state.sets.values().next().unwrap();
    assert_eq!(set.collection, Some(top), "the collection that was passed");
}

#[tokio::test]
async fn names_come_from_the_settings_or_from_collection_machine_and_time() {
    let root = tempfile::tempdir().unwrap();
    let world = furnish(root.path(), 1).await;
    world.coordinator.recover().await.unwrap();
    world.end(world.create(group()).await.unwrap()).await;
    let mut named = request(group());
    named.name = Some("before the update".into());
    named.consistency = Consistency::Crash;
    let accepted = world.coordinator.create(named).await.unwrap();
    world.end(accepted).await;
    let state = world.store.state();
    let second = &state.sets[&accepted.set];
    assert_eq!(second.name, "before the update");
    assert_eq!(second.members[0].name, "before the update");
    assert_eq!(
        second.members[0].consistency,
        Consistency::Application,
        "it is off"
    );
    let first = state.sets.values().find(|s| s.id != accepted.set).unwrap();
    assert_eq!(first.name, "group 1 - (1970-01-01 00:00:00Z)");
    assert_eq!(first.members[0].name, "m0 - (1970-01-01 00:00:00Z)");
    assert_eq!(second.members[0].parent, Some(first.members[0].id));
}

#[tokio::test]
async fn a_missing_image_is_5_and_names_it() {
    let root = tempfile::tempdir().unwrap();
    let world = furnish(root.path(), 2).await;
    world.coordinator.recover().await.unwrap();
    fs::remove_file(root.path().join("images/m1.raw")).unwrap();
    let Err(Refused::InvalidState(text)) = world.create(group()).await else {
        panic!("the image is gone");
    };
    assert!(text.english().contains("m1.raw"), "{text:?}");
    world.assert_untouched("refused");
}
