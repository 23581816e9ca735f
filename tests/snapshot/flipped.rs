//! One flipped bit or a cut anywhere in a journal or in the record of a set: it is refused by name, or nothing that a
//! client was told or a machine wrote is missing.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use groupshot::inventory::JobState;
use groupshot::snapshot::compare;
use groupshot::store::{Held, Store, record};

use super::apply::request;
use super::destroy::{Contents, again, contents, destroy, take, write};
use super::world::{Left, World, furnish, group};

/// Each set has its record.
const HELD: Held = Held {
    transactions: 0,
    counted: 0,
    recorded: true,
};

/// Steps through a file.
fn samples(bytes: &[u8]) -> impl Iterator<Item = (String, Vec<u8>)> {
    let long = std::env::var_os("GROUPSHOT_TEST_LONG").is_some();
    let count = if long { 600 } else { 30 };
    let whole = bytes.to_vec();
    let cut = whole.clone();
    let flips = (0..count).map(move |n| {
        let at = (whole.len() * n / count + n * 37) % whole.len();
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (n % 8);
        (format!("bit {} of byte {at}", n % 8), flipped)
    });
    let cuts = (0..16).map(move |part| {
        let length = cut.len() * part / 16;
        (format!("cut to {length}"), cut[..length].to_vec())
    });
    flips.chain(cuts)
}

/// What a process leaves that dies at `point`, once the scene is set.
fn dying(world: World, point: &'static str) -> (World, Arc<Mutex<Option<Left>>>) {
    let left = Arc::new(Mutex::new(None));
    let (root, store, kept) = (world.root.clone(), world.store.clone(), left.clone());
    let passage = Box::new(move |name: &str| {
        if name == point {
            let mut kept = kept.lock().unwrap();
            kept.get_or_insert_with(|| Left::take(&root, &*store));
        }
        Ok(())
    });
    (again(world, passage), left)
}

fn journal(world: &World) -> PathBuf {
    let files = fs::read_dir(world.root.join("data/journal")).unwrap();
    let mut files = files.map(|f| f.unwrap().path());
    files.find(|f| f.metadata().unwrap().len() > 0).unwrap()
}

/// Starts over what was left, with each of the samples in place of its journal. `before`, `after`: what the disks hold
/// without the operation and with it.
async fn starts(world: &World, left: &Left, before: &Contents, after: &Contents, at: &str) {
    drop(left.restore(&world.root).await);
    let file = journal(world);
    let whole = fs::read(&file).unwrap();
    let mut refused = 0;
    for (how, bytes) in samples(&whole) {
        let what = format!("{at}, {how}");
        let store = left.restore(&world.root).await;
        fs::write(journal(world), bytes).unwrap();
        let world = World::open(&world.root, store, Box::new(|_| Ok(())));
        match world.coordinator.recover().await {
            Err(error) => {
                assert!(error.to_string().contains(file.to_str().unwrap()), "{what}");
                refused += 1;
            }
            // A power cut leaves out what it has not written, and changes nothing.
            Ok(_) if how.starts_with("bit") => panic!("{what}: taken for a torn tail"),
            Ok(recovered) => {
                assert!(recovered.stuck.is_empty(), "{what}: {recovered:?}");
                world.coordinator.idle().await;
                // What the start of a server looks at next.
                let state = world.store.state();
                let found = compare(&world.root.join("data"), &state, HELD).unwrap();
                if found.told(&world.root).is_some() {
                    refused += 1;
                    continue;
                }
                let jobs = world.jobs.all();
                assert!(jobs.iter().all(|j| j.state.is_terminal()), "{what}");
                let now = contents(&world).await;
                assert!(now == *before || now == *after, "{what}");
            }
        }
    }
    assert!(refused > 0, "{at}");
}

#[tokio::test(start_paused = true)]
async fn no_flipped_bit_and_no_cut_of_the_journal_of_a_create_loses_a_set() {
    for point in [
        "create.commit.after",
        "create.record.after",
        "create.tops.after",
        "create.publish.after",
    ] {
        let root = tempfile::tempdir().unwrap();
        let world = furnish(root.path(), 2).await;
        world.coordinator.recover().await.unwrap();
        let before = contents(&world).await;
        let (world, left) = dying(world, point);
        let job = world.end(world.create(group()).await.unwrap()).await;
        assert_eq!(job.state, JobState::Completed);
        let after = contents(&world).await;
        let left = left.lock().unwrap().take().unwrap();
        starts(&world, &left, &before, &after, point).await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_flipped_bit_and_no_cut_of_the_journal_of_a_destroy_loses_what_stays() {
    for point in ["destroy.forget.after", "destroy.tops.after"] {
        let root = tempfile::tempdir().unwrap();
        let world = furnish(root.path(), 1).await;
        let sets = take(&world, 3).await;
        let (world, left) = dying(world, point);
        let before = contents(&world).await;
        let job = destroy(&world, sets[1]).await;
        assert_eq!(job.state, JobState::Completed, "{job:?}");
        let after = contents(&world).await;
        assert_ne!(before, after);
        let left = left
            .lock()
            .unwrap()
            .take()
            .unwrap_or_else(|| panic!("{point}: {}", job.status.english()));
        starts(&world, &left, &before, &after, point).await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_flipped_bit_and_no_cut_of_the_journal_of_an_apply_loses_an_active_disk() {
    for point in [
        "apply.commit.after",
        "apply.tops.after",
        "apply.publish.after",
    ] {
        let root = tempfile::tempdir().unwrap();
        let world = furnish(root.path(), 1).await;
        let sets = take(&world, 2).await;
        write(&world, 9, 30_000).await;
        let (world, left) = dying(world, point);
        let before = contents(&world).await;
        let accepted = world.coordinator.apply(request(sets[0])).await.unwrap();
        let job = world.end(accepted).await;
        assert_eq!(job.state, JobState::Completed, "{job:?}");
        let after = contents(&world).await;
        assert_ne!(before, after);
        let left = left.lock().unwrap().take().unwrap();
        starts(&world, &left, &before, &after, point).await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_flipped_bit_and_no_cut_of_the_record_of_a_set_is_taken_for_it() {
    let root = tempfile::tempdir().unwrap();
    let world = furnish(root.path(), 2).await;
    let sets = take(&world, 1).await;
    let data = root.path().join("data");
    let state = world.store.state();
    let whole = compare(&data, &state, HELD).unwrap();
    assert_eq!(whole.told(&data), None);
    let file = record::path(&data, sets[0]);
    let bytes = fs::read(&file).unwrap();
    let mut told = BTreeMap::new();
    for (how, bytes) in samples(&bytes) {
        fs::write(&file, bytes).unwrap();
        for known in [true, false] {
            let state = match known {
                true => state.clone(),
                false => Arc::default(),
            };
            let found = compare(&data, &state, HELD).unwrap();
            match found.told(&data) {
                Some(said) if found.unknown.is_empty() => {
                    assert!(said.contains(file.to_str().unwrap()), "{how}: {said}");
                    *told.entry(known).or_insert(0) += 1;
                }
                // A blank is nobody's loss.
                _ if known => assert_eq!(found, whole, "{how}"),
                _ => assert_eq!(found.unknown[0].set, *world.store.state().sets[&sets[0]]),
            }
        }
    }
    assert!(told[&true] > 30 && told[&false] > 30, "{told:?}");
}
