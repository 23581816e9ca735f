//! Each fail point of a create, taken from the program's own list: it fails there, dies there, is
//! cancelled there, and is repeated there.

use std::sync::{Arc, Mutex};

use groupshot::failpoint::FailedOnOrder;
use groupshot::inventory::{CancelKind, JobState};
use groupshot::snapshot::Passage;
use groupshot::snapshot::create::FAILPOINTS;
use groupshot::store::Store;

use super::world::{Left, World, furnish, group};

/// The points of the undo are passed only when something failed.
fn of_the_undo(point: &str) -> bool {
    point.starts_with("create.abort") || point.starts_with("create.undone")
}

fn before_the_commit(point: &str) -> bool {
    let of = |p: &str| FAILPOINTS.iter().position(|x| *x == p).unwrap();
    of(point) < of("create.commit.after")
}

fn of_recovery(point: &str) -> bool {
    let names = ["record", "tops", "publish", "clear", "abort", "undone"];
    names.iter().any(|n| point.contains(&format!(".{n}.")))
}

/// Fails the first passage of each of these points.
fn fails_at(points: &[&str]) -> Passage {
    let points: Vec<_> = points.iter().map(|p| (*p).to_owned()).collect();
    let left = Mutex::new(points);
    Box::new(move |name| {
        let mut left = left.lock().unwrap();
        match left.iter().position(|p| p == name) {
            Some(n) => Err(FailedOnOrder(left.remove(n))),
            None => Ok(()),
        }
    })
}

#[tokio::test(start_paused = true)]
async fn unwinds_at_every_step() {
    for point in FAILPOINTS.iter().filter(|p| !of_the_undo(p)) {
        let root = tempfile::tempdir().unwrap();
        let world = furnish(root.path(), 3).await;
        world.coordinator.recover().await.unwrap();
        let world = world.with(fails_at(&[point]));
        let accepted = world.create(group()).await;
        if point.starts_with("create.intent") {
            accepted.unwrap_err();
            world.coordinator.idle().await;
            world.assert_untouched(point);
            assert!(world.store.state().jobs.is_empty(), "{point}");
            continue;
        }
        let job = world.end(accepted.unwrap()).await;
        if before_the_commit(point) && *point != "create.job.after" {
            assert_eq!(job.state, JobState::Exception, "{point}");
            assert!(job.error.unwrap().description.english().contains(point));
            world.assert_untouched(point);
            // Everything was given back: the next one works.
            let again = world.with(fails_at(&[]));
            let job = again.end(again.create(group()).await.unwrap()).await;
            assert_eq!(job.state, JobState::Completed, "{point}");
            again.assert_whole(point);
        } else {
            // After the commit point a step that failed was repeated.
            world.assert_whole(point);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_step_of_the_end_is_done_twice_as_done_once() {
    let root = tempfile::tempdir().unwrap();
    let world = furnish(root.path(), 2).await;
    world.coordinator.recover().await.unwrap();
    let world = world.with(fails_at(&[
        "create.record.after",
        "create.tops.after",
        "create.publish.after",
        "create.clear.after",
    ]));
    let job = world.end(world.create(group()).await.unwrap()).await;
    assert_eq!(job.state, JobState::Completed);
    world.assert_whole("repeated");
}

/// Remembers what a process would leave that dies at `point`.
fn dies_at(
    point: &'static str,
    also: &'static str,
    world: &World,
) -> (Passage, Arc<Mutex<Option<Left>>>) {
    let left = Arc::new(Mutex::new(None));
    let (root, store, kept) = (world.root.clone(), world.store.clone(), left.clone());
    let passage = Box::new(move |name: &str| {
        if name == point {
            kept.lock()
                .unwrap()
                .get_or_insert_with(|| Left::take(&root, &*store));
        }
        if name == also {
            return Err(FailedOnOrder(name.to_owned()));
        }
        Ok(())
    });
    (passage, left)
}

#[tokio::test(start_paused = true)]
async fn survives_a_kill_at_every_step() {
    for point in FAILPOINTS.iter() {
        let root = tempfile::tempdir().unwrap();
        let world = furnish(root.path(), 2).await;
        world.coordinator.recover().await.unwrap();
        let also = if of_the_undo(point) {
            "create.cut.after"
        } else {
            ""
        };
        let (passage, left) = dies_at(point, also, &world);
        let world = world.with(passage);
        let accepted = world.create(group()).await.unwrap();
        world.end(accepted).await;
        let left = left
            .lock()
            .unwrap()
            .take()
            .unwrap_or_else(|| panic!("{point} is never passed"));
        let back = before_the_commit(point) || of_the_undo(point);
        recovers(&world, &left, back, point).await;
        if ![
            "create.cut.after",
            "create.commit.after",
            "create.record.after",
            "create.publish.after",
        ]
        .contains(point)
        {
            continue;
        }
        // A recovery that dies as well, at each of its own points, is begun again.
        for second in FAILPOINTS.iter().filter(|p| of_recovery(p)) {
            let store = left.restore(&world.root).await;
            let world = World::open(&world.root, store, fails_at(&[]));
            let (passage, again) = dies_at(second, "", &world);
            let world = world.with(passage);
            world.coordinator.recover().await.unwrap();
            world.coordinator.idle().await;
            let again = again.lock().unwrap().take();
            if let Some(again) = again {
                recovers(&world, &again, back, &format!("{point}, then {second}")).await;
            }
        }
    }
}

async fn recovers(world: &World, left: &Left, back: bool, at: &str) {
    let store = left.restore(&world.root).await;
    let world = World::open(&world.root, store, fails_at(&[]));
    let recovered = world.coordinator.recover().await.unwrap();
    assert!(
        recovered.stuck.is_empty() && recovered.orphans.is_empty(),
        "{at}: {recovered:?}"
    );
    world.coordinator.idle().await;
    let jobs = world.jobs.all();
    assert!(jobs.iter().all(|j| j.state.is_terminal()), "{at}");
    if back {
        assert!(jobs.iter().all(|j| j.state == JobState::Exception), "{at}");
        world.assert_untouched(at);
    } else {
        world.assert_whole(at);
    }
    let nothing = world
        .with(fails_at(&[]))
        .coordinator
        .recover()
        .await
        .unwrap();
    assert_eq!(
        nothing,
        groupshot::snapshot::Recovered::default(),
        "{at}: a second time"
    );
}

#[tokio::test(start_paused = true)]
async fn a_cancel_at_every_step_undoes_or_comes_too_late() {
    for (kind, state) in [
        (CancelKind::Terminate, JobState::Terminated),
        (CancelKind::Kill, JobState::Killed),
    ] {
        for point in FAILPOINTS.iter().filter(|p| !of_the_undo(p)).skip(2) {
            let root = tempfile::tempdir().unwrap();
            let world = furnish(root.path(), 2).await;
            world.coordinator.recover().await.unwrap();
            let stop = Arc::new(std::sync::Barrier::new(2));
            let (at, there) = (*point, stop.clone());
            let passed = std::sync::atomic::AtomicBool::new(false);
            let world = world.with(Box::new(move |name| {
                if name == at && !passed.swap(true, std::sync::atomic::Ordering::SeqCst) {
                    there.wait();
                    there.wait();
                }
                Ok(())
            }));
            let (jobs, store) = (world.jobs.clone(), world.store.clone());
            let canceller = std::thread::spawn(move || {
                stop.wait();
                let job = *store.state().jobs.keys().next().unwrap();
                let cancel = jobs.cancel(job, kind, "somebody");
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .build()
                    .unwrap();
                let cancelled = runtime.block_on(cancel).unwrap();
                stop.wait();
                cancelled
            });
            let accepted = world.create(group()).await.unwrap();
            let job = world.end(accepted).await;
            let cancelled = canceller.join().unwrap();
            if before_the_commit(point) {
                assert_eq!(cancelled, groupshot::job::Cancelled::Accepted, "{point}");
                assert_eq!(job.state, state, "{point}");
                assert!(
                    job.error
                        .unwrap()
                        .description
                        .english()
                        .contains("somebody")
                );
                world.assert_untouched(point);
            } else {
                assert_eq!(cancelled, groupshot::job::Cancelled::TooLate, "{point}");
                world.assert_whole(point);
            }
        }
    }
}
