//! Trouble on order, on simulated machines: what fails, what waits, what stops the process.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use groupshot::clock::ManualClock;
use groupshot::engine::EngineErrorKind;
use groupshot::engine::drivers::Drivers;
use groupshot::engine::sim::{Fault, Sim, Step, Trouble, machine_id};
use groupshot::id::JobId;
use groupshot::inventory::{CollectionKind, Damage, Job, JobState, RunState};
use groupshot::job::Jobs;
use groupshot::snapshot::{
    Accepted, ApplyRequest, Coordinator, Deps, Exports, Limits, Mode, RecoveryError, Refused,
    Resource,
};
use groupshot::store::memory::MemoryStore;
use groupshot::store::{Change, Store, StoreError};
use groupshot::text::catalog::snapshot::WORKING;
use groupshot::text::catalog::store::FULL;
use jiff::Timestamp;

use crate::support::site::is_spare;

use super::world::{collection, group, put, request};

struct Simulated {
    store: Arc<MemoryStore>,
    jobs: Arc<Jobs>,
    sim: Arc<Sim>,
    coordinator: Arc<Coordinator>,
}

impl Simulated {
    async fn new(root: &Path, count: u32) -> Self {
        let store = Arc::new(MemoryStore::new());
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let jobs = Jobs::new(store.clone(), clock.clone(), Duration::from_secs(300));
        let sim = Sim::new(root, count, Timestamp::UNIX_EPOCH).unwrap();
        let deps = Deps {
            store: store.clone(),
            jobs: jobs.clone(),
            compute: sim.clone(),
            storage: Drivers::new(vec![sim.clone()]),
            frozen: Arc::default(),
            audit: Default::default(),
            clock,
            data_dir: root.to_owned(),
            exports: Exports::default(),
            limits: Limits {
                parallel: 4,
                ..Limits::default()
            },
            guard: env!("CARGO_BIN_EXE_groupshot").into(),
        };
        let members = (1..=count).map(machine_id).collect();
        let machines = CollectionKind::Machines;
        put(
            &*store,
            vec![collection(group(), machines, members, vec![])],
        )
        .await;
        let coordinator = Coordinator::new(deps);
        coordinator.recover().await.unwrap();
        Self {
            store,
            jobs,
            sim,
            coordinator,
        }
    }

    fn order(&self, step: Step, trouble: Trouble, times: u32) {
        self.order_of(2, step, trouble, times);
    }

    fn order_of(&self, machine: u32, step: Step, trouble: Trouble, times: u32) {
        self.sim.order(Fault {
            machine: machine_id(machine),
            disk: None,
            step,
            trouble,
            times,
        });
    }

    async fn create(&self) -> Result<Accepted, Refused> {
        self.coordinator.create(request(group())).await
    }

    async fn end(&self, accepted: Accepted) -> Job {
        let job = self
            .jobs
            .wait(accepted.job, Duration::from_secs(3600))
            .await;
        job.unwrap()
    }
}

const FAILS_FOR_NOW: Trouble = Trouble::Fail(EngineErrorKind::Missing);
const FAILS: Trouble = Trouble::Fail(EngineErrorKind::Failed);

#[tokio::test(start_paused = true)]
async fn one_member_that_fails_undoes_them_all_and_is_named() {
    for step in [Step::Prepare, Step::Cut, Step::Settle] {
        let root = tempfile::tempdir().unwrap();
        let world = Simulated::new(root.path(), 5).await;
        world.order(step, FAILS, 1);
        let accepted = world.create().await.unwrap();
        let job = world.end(accepted).await;
        assert_eq!(job.state, JobState::Exception, "{step:?}");
        let error = job.error.unwrap();
        let text = error.description.english();
        assert!(error.code != 0 && text.contains("sim-000002"), "{text:?}");
        world.coordinator.idle().await;
        for n in 1..=5 {
            let captured = world
                .sim
                .captured_generation(accepted.set, machine_id(n), "disk0");
            assert_eq!(captured, None, "{step:?}");
        }
        assert!(world.store.state().sets.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_lies_at_the_cut_fails_the_set() {
    let root = tempfile::tempdir().unwrap();
    let world = Simulated::new(root.path(), 2).await;
    world.order(Step::Cut, Trouble::Lie, 1);
    let job = world.end(world.create().await.unwrap()).await;
    assert_eq!(job.state, JobState::Exception);
}

#[tokio::test]
async fn a_disk_that_no_driver_holds_is_5_and_so_is_a_member_of_which_nothing_is_left() {
    let root = tempfile::tempdir().unwrap();
    let world = Simulated::new(root.path(), 2).await;
    world.order(Step::Plan, Trouble::Lie, 2);
    let Err(Refused::InvalidState(text)) = world.create().await else {
        panic!("nothing can capture the disk");
    };
    let text = text.english();
    assert!(
        text.contains("sim-000002") && text.contains("disk0"),
        "{text}"
    );
    let mut lenient = request(group());
    lenient.ignore_non_snapshottable_disks = true;
    let Err(Refused::InvalidState(text)) = world.coordinator.create(lenient.clone()).await else {
        panic!("nothing of the second member can be captured");
    };
    let text = text.english();
    for part in ["sim-000002", "no disk that can be captured", "disk0"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(world.store.state().sets.is_empty());
    let accepted = world.coordinator.create(lenient).await.unwrap();
    assert_eq!(world.end(accepted).await.state, JobState::Completed);
}

#[tokio::test]
async fn a_running_or_paused_member_is_5_and_named() {
    let root = tempfile::tempdir().unwrap();
    let world = Simulated::new(root.path(), 2).await;
    for (state, word) in [(RunState::Held, "running"), (RunState::Paused, "paused")] {
        world.sim.set_state(machine_id(2), state);
        let Err(Refused::InvalidState(text)) = world.create().await else {
            panic!("it is {word}");
        };
        let text = text.english();
        assert!(
            text.contains("sim-000002") && text.contains(word),
            "{text:?}"
        );
    }
    assert!(world.coordinator.machine_holder(machine_id(1)).is_none());
}

/// The refusal names exactly these of five machines.
fn assert_names(refused: &Refused, machines: &[u32], what: &str) {
    let Refused::InvalidState(text) = refused else {
        panic!("{what}: {refused:?}");
    };
    let text = text.english();
    for n in 1..=5 {
        let named = text.contains(&format!("sim-{n:06}"));
        assert_eq!(named, machines.contains(&n), "{what}, {n}: {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_names_every_machine_whatever_is_in_its_way() {
    let root = tempfile::tempdir().unwrap();
    let world = Simulated::new(root.path(), 5).await;
    let taken = world.create().await.unwrap();
    assert_eq!(world.end(taken).await.state, JobState::Completed);
    world.coordinator.idle().await;
    world.sim.set_state(machine_id(2), RunState::Held);
    world.order_of(4, Step::Plan, Trouble::Lie, 2);
    assert_names(&world.create().await.unwrap_err(), &[2, 4], "create");
    let checked = world.coordinator.check(request(group())).await;
    assert_names(&checked.refused.unwrap(), &[2, 4], "check");
    let mut set = (*world.store.state().sets[&taken.set]).clone();
    let damaged = [1, 3].map(machine_id);
    let members = set.members.iter_mut();
    for member in members.filter(|m| damaged.contains(&m.machine)) {
        member.disks[0].damage = Some(Damage {
            files: vec!["/images/base.raw".into()],
            noticed: Timestamp::UNIX_EPOCH,
        });
    }
    put(&*world.store, vec![Change::PutSet(set)]).await;
    world.order_of(4, Step::PlanRevert, FAILS_FOR_NOW, 1);
    let apply = ApplyRequest {
        set: taken.set,
        only: None,
        owner: "tester".into(),
    };
    let refused = world.coordinator.apply(apply).await.unwrap_err();
    assert_names(&refused, &[1, 2, 3, 4], "apply");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_names_every_machine_that_is_held_and_each_of_its_holders() {
    let root = tempfile::tempdir().unwrap();
    let world = Simulated::new(root.path(), 5).await;
    let leases = world.coordinator.leases();
    let of = |n| (Resource::Machine(machine_id(n)), Mode::Exclusive);
    let [one, two] = [JobId::from_u128(1), JobId::from_u128(2)];
    let held = [
        leases.lease(one, WORKING.text(), &[of(1), of(3)]),
        leases.lease(two, WORKING.text(), &[of(4)]),
    ];
    let held = held.map(Result::unwrap);
    let refused = world.create().await.unwrap_err();
    assert_names(&refused, &[1, 3, 4], "held");
    let text = refused.text().english();
    for job in [one, two] {
        let told = format!("held by job {job}: at work");
        assert_eq!(text.matches(&told).count(), 1, "{text}");
    }
    drop(held);
    assert!(world.create().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn after_the_cut_a_full_disk_or_tops_that_fail_are_waited_for() {
    let root = tempfile::tempdir().unwrap();
    let world = Simulated::new(root.path(), 3).await;
    world.order(Step::SetTops, Trouble::Fail(EngineErrorKind::Full), 8);
    let job = world.end(world.create().await.unwrap()).await;
    assert_eq!(job.state, JobState::Completed);
    world.order(Step::SetTops, Trouble::Hang, 1);
    let accepted = world.create().await.unwrap();
    while world.sim.hanging() == 0 {
        tokio::task::yield_now().await;
    }
    world.store.fail_next(StoreError::Full(FULL.text()));
    world.sim.release();
    assert_eq!(world.end(accepted).await.state, JobState::Completed);
    assert_eq!(world.store.state().sets.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_cannot_be_done_ends_the_job_and_keeps_the_machines() {
    let root = tempfile::tempdir().unwrap();
    let world = Simulated::new(root.path(), 2).await;
    world.order(Step::Cut, FAILS, 1);
    world.order(Step::Undo, FAILS, 3);
    let accepted = world.create().await.unwrap();
    let job = world.end(accepted).await;
    assert_eq!(job.state, JobState::Exception);
    let holder = world.coordinator.machine_holder(machine_id(1)).unwrap();
    assert!(holder.stuck && holder.job == accepted.job);
    let Err(Refused::InvalidState(text)) = world.create().await else {
        panic!("it is stuck");
    };
    assert!(
        text.english().contains(&accepted.set.to_string()),
        "{text:?}"
    );
    assert!(!world.coordinator.held(group()), "its collection is free");
    world.coordinator.idle().await;
    let job = world.end(world.create().await.unwrap()).await;
    assert_eq!(job.state, JobState::Completed);
}

/// How many journals there are.
fn journals(root: &Path) -> usize {
    let entries = std::fs::read_dir(root.join("journal")).unwrap();
    let journal = |path: &std::path::PathBuf| !is_spare(path);
    entries.map(|e| e.unwrap().path()).filter(journal).count()
}

#[tokio::test(start_paused = true)]
async fn a_store_that_breaks_stops_the_process_and_lets_nothing_go() {
    let root = tempfile::tempdir().unwrap();
    let world = Simulated::new(root.path(), 2).await;
    world.order(Step::SetTops, Trouble::Hang, 1);
    let fatal = world.coordinator.fatal();
    world.create().await.unwrap();
    while world.sim.hanging() == 0 {
        tokio::task::yield_now().await;
    }
    world.store.fail_next(StoreError::Broken("fsync".into()));
    world.sim.release();
    assert!(fatal.await.contains("fsync"));
    assert!(world.coordinator.machine_holder(machine_id(1)).is_some());
    assert_eq!(journals(root.path()), 1);
}

#[tokio::test]
async fn a_failed_sync_of_the_active_files_stops_the_process_and_is_not_repeated() {
    let root = tempfile::tempdir().unwrap();
    let world = Simulated::new(root.path(), 2).await;
    world.order(Step::SetTops, Trouble::Fail(EngineErrorKind::Broken), 1);
    let fatal = world.coordinator.fatal();
    let accepted = world.create().await.unwrap();
    let cause = fatal.await;
    assert!(cause.contains(&machine_id(2).to_string()), "{cause}");
    // A second attempt would succeed and publish the set.
    tokio::time::sleep(Duration::from_millis(1000)).await;
    let state = world.store.state();
    assert!(state.sets.is_empty());
    assert_eq!(state.jobs[&accepted.job].state, JobState::Running);
    assert!(world.coordinator.machine_holder(machine_id(1)).is_some());
}

#[tokio::test]
async fn a_full_store_refuses_with_2_and_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let world = Simulated::new(root.path(), 2).await;
    world.store.fail_next(StoreError::Full(FULL.text()));
    let refused = world.create().await;
    assert!(matches!(refused, Err(Refused::Failed(_))), "{refused:?}");
    assert_eq!(journals(root.path()), 0);
    assert!(world.coordinator.machine_holder(machine_id(1)).is_none());
}

#[tokio::test]
async fn a_journal_of_another_version_keeps_the_server_from_opening() {
    let root = tempfile::tempdir().unwrap();
    let world = Simulated::new(root.path(), 1).await;
    std::fs::write(root.path().join("journal/x.log"), b"GSHOTJ\x09\x00").unwrap();
    let error = world.coordinator.recover().await.unwrap_err();
    assert!(matches!(error, RecoveryError::Unreadable(..)));
    assert!(error.to_string().contains("version 9"), "{error}");
}
