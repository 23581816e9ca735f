//! What an operator has the server do is not begun of which no line can be kept in the audit log.

use std::fs;

use groupshot::audit::Audit;
use groupshot::clock::ManualClock;
use groupshot::engine::import;
use groupshot::snapshot::{DamagedDisk, Refused};
use jiff::Timestamp;

use super::destroy::take;
use super::world::{World, furnish, machine};

/// So many lines wait for the file at most.
const QUEUE: usize = 4096;

async fn accept(world: &World, disk: &DamagedDisk) -> Result<String, Refused> {
    let (files, written) = world.coordinator.accept_damage(disk).await?;
    // Nothing of it is held while the line is written.
    assert_eq!(world.coordinator.at_work(disk.machine), None);
    written.await;
    Ok(files)
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
    let audit = Audit::to_file(&file, ManualClock::at(Timestamp::UNIX_EPOCH)).unwrap();
    let passage = Box::new(groupshot::failpoint::pass);
    let world = World::audited(root.path(), world.store.clone(), passage, audit.clone());
    world.coordinator.look_at_files().await.unwrap();
    let damaged = world.coordinator.damaged();
    assert_eq!(damaged.len(), 1);
    let lines = || fs::read_to_string(&file).unwrap();
    assert_eq!(lines().lines().count(), 1, "damaged");

    let mut places = Vec::new();
    for _ in 0..QUEUE {
        let mut place = audit.place();
        place.wait().await;
        places.push(place);
    }
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
