//! What an operator has the server do is not begun of which no line can be kept in the audit log.

use std::fs;
use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt;
use groupshot::audit::{Audit, Place};
use groupshot::clock::ManualClock;
use groupshot::engine::import;
use groupshot::snapshot::{DamagedDisk, Refused};
use jiff::Timestamp;
use tokio::time::timeout;

use super::destroy::take;
use super::world::{World, furnish, group, machine};

/// So many lines wait for the file at most.
const QUEUE: usize = 4096;

async fn accept(world: &World, disk: &DamagedDisk) -> Result<String, Refused> {
    let (files, written) = world.coordinator.accept_damage(disk).await?;
    // Nothing of it is held while the line is written.
    assert_eq!(world.coordinator.at_work(disk.machine), None);
    written.await;
    Ok(files)
}

/// As many lines as wait for the file are on their way.
async fn all_places(audit: &Audit) -> Vec<Place> {
    let mut places = Vec::new();
    for _ in 0..QUEUE {
        let mut place = audit.place();
        place.wait().await;
        places.push(place);
    }
    places
}

/// A set of one machine whose image somebody else has written since, which nobody has noticed yet.
async fn damaged(root: &Path, audit: &Audit) -> World {
    let world = furnish(root, 1).await;
    let image = world.tops().pop().unwrap();
    take(&world, 1).await;
    fs::write(&image, vec![9; 64 << 10]).unwrap();
    let passage = Box::new(groupshot::failpoint::pass);
    World::audited(root, world.store.clone(), passage, audit.clone())
}

fn to_file(file: &Path) -> Audit {
    Audit::to_file(file, ManualClock::at(Timestamp::UNIX_EPOCH)).unwrap()
}

/// Waits for a line of that kind.
async fn told(file: &Path, event: &str) {
    let told = async {
        while !fs::read_to_string(file).unwrap().contains(event) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(60), told).await.expect(event);
}

#[tokio::test]
async fn a_set_that_is_found_damaged_on_the_way_keeps_no_machine_until_its_line_is_written() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("audit.log");
    let audit = to_file(&file);
    let world = damaged(root.path(), &audit).await;
    let places = all_places(&audit).await;
    let create = timeout(Duration::from_secs(60), world.create(group()));
    let accepted = create.await.expect("nothing of it waits").unwrap();
    world.end(accepted).await;
    assert_eq!(world.coordinator.damaged().len(), 1);
    assert_eq!(fs::read_to_string(&file).unwrap(), "");
    drop(places);
    told(&file, "set-damaged").await;
}

#[tokio::test]
async fn damage_that_is_accepted_is_so_whoever_waits_for_it() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("audit.log");
    let audit = to_file(&file);
    let world = damaged(root.path(), &audit).await;
    world.coordinator.look_at_files().await.unwrap();
    let damaged = world.coordinator.damaged();
    let gone = world.coordinator.accept_damage(&damaged[0]).now_or_never();
    assert!(gone.is_none(), "it is under way");
    told(&file, "damage-accepted").await;
    assert_eq!(world.coordinator.damaged(), []);
}

/// The first member of the set is damaged, the second machine is in no set.
#[tokio::test]
async fn damage_is_accepted_and_a_machine_removed_only_with_a_place_for_the_line() {
    let root = tempfile::tempdir().unwrap();
    let world = furnish(root.path(), 1).await;
    let image = world.tops().pop().unwrap();
    take(&world, 1).await;
    let idle = root.path().join("images/idle.raw");
    fs::write(&idle, [1; 512]).unwrap();
    let data = root.path().join("data");
    let idle = machine(&data, "idle", idle);
    fs::write(&image, vec![9; 64 << 10]).unwrap();

    let file = root.path().join("audit.log");
    let audit = to_file(&file);
    let passage = Box::new(groupshot::failpoint::pass);
    let world = World::audited(root.path(), world.store.clone(), passage, audit.clone());
    world.coordinator.look_at_files().await.unwrap();
    let damaged = world.coordinator.damaged();
    assert_eq!(damaged.len(), 1);
    let lines = || fs::read_to_string(&file).unwrap();
    assert_eq!(lines().lines().count(), 1, "damaged");

    let places = all_places(&audit).await;
    let remove = || {
        let data = data.clone();
        world
            .coordinator
            .without(idle, move || import::remove(&data, idle, |_| Vec::new()))
    };
    tokio::time::pause();
    let refused = remove().await.unwrap_err().english();
    assert!(refused.contains(file.to_str().unwrap()), "{refused}");
    let refused = accept(&world, &damaged[0]).await.unwrap_err();
    assert!(refused.text().english().contains(file.to_str().unwrap()));
    tokio::time::resume();
    assert_eq!(world.coordinator.damaged(), damaged);
    assert_eq!(world.machines().len(), 2);

    drop(places);
    remove().await.unwrap();
    accept(&world, &damaged[0]).await.unwrap();
    let lines = lines();
    let told = lines.lines().skip(1);
    let told = told.map(|line| ["machine-removed", "damage-accepted"].map(|e| line.contains(e)));
    assert_eq!(told.collect::<Vec<_>>(), [[true, false], [false, true]]);
}
