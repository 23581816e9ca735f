//! Machines that run where no lock tells of it: `locking=off`, or a file system without locks.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use groupshot::audit::Audit;
use groupshot::engine::library::Library;
use groupshot::engine::{Compute, EngineError, Hold, InTurn, Machines, Observed, Recorded, Top};
use groupshot::id::VmId;
use groupshot::inventory::{JobState, Machine, RunState};
use groupshot::snapshot::Passage;
use groupshot::store::Store as _;
use tokio::sync::watch;

use super::destroy::{destroy, take};
use super::world::{World, furnish};

const OFF: u8 = 0;
/// It is started once its state was asked for.
const STARTS: u8 = 1;
const RUNS: u8 = 2;

/// A library of machines that run or not, whatever their files tell.
struct Host {
    library: Arc<Library>,
    state: Arc<AtomicU8>,
}

impl Compute for Host {
    fn observe(&self) -> watch::Receiver<Arc<Observed>> {
        self.library.observe()
    }
    fn machines(&self) -> Arc<Machines> {
        self.library.machines()
    }
    fn state(&self, _: VmId) -> RunState {
        let started = (STARTS, RUNS);
        let (from, to) = started;
        let before = self
            .state
            .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst);
        match before {
            Err(RUNS) => RunState::Running,
            _ => RunState::Off,
        }
    }
    fn recorded(&self) -> Result<Vec<Recorded>, EngineError> {
        self.library.recorded()
    }
    fn recorded_of(&self, id: VmId) -> Option<Recorded> {
        self.library.recorded_of(id)
    }
    fn turn(&self, given_up: &dyn Fn() -> bool) -> std::io::Result<Option<InTurn>> {
        self.library.turn(given_up)
    }
    fn set_tops(&self, id: VmId, tops: &BTreeMap<String, Top>) -> Result<(), EngineError> {
        self.library.set_tops(id, tops)
    }
    fn hold(&self, machine: &Machine) -> Result<Hold, EngineError> {
        self.library.hold(machine)
    }
}

#[tokio::test]
async fn nothing_is_merged_under_a_machine_that_runs_without_locks() {
    let root = tempfile::tempdir().unwrap();
    let first = furnish(root.path(), 1).await;
    let state = Arc::<AtomicU8>::default();
    let of = Arc::clone(&state);
    let nothing: Passage = Box::new(|_| Ok(()));
    let compute = |library| Arc::new(Host { library, state: of }) as Arc<dyn Compute>;
    let store = first.store.clone();
    let world = World::under(root.path(), store, nothing, Audit::default(), compute);
    let sets = take(&world, 3).await;
    let kept: Vec<_> = {
        let state = world.store.state();
        let of = |set| state.sets[set].members[0].disks[0].file.clone();
        sets.iter().map(of).collect()
    };
    let top = world.machines().values().next().unwrap().disks[0]
        .file
        .clone();
    let all = || {
        kept.iter()
            .chain([&top])
            .map(|file| fs::read(file).ok())
            .collect::<Vec<_>>()
    };
    let before = all();
    assert!(before.iter().all(Option::is_some));
    state.store(STARTS, Ordering::SeqCst);
    let job = destroy(&world, sets[1]).await;
    assert_eq!(job.state, JobState::Completed, "{job:?}");
    let said = job.status.english();
    for part in ["hidden layers: 1", "is running", "until it is powered off"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(all() == before, "it lies on all of them");
    state.store(OFF, Ordering::SeqCst);
    let job = destroy(&world, sets[2]).await;
    assert_eq!(job.state, JobState::Completed, "{job:?}");
    let said = job.status.english();
    assert!(said.ends_with("is destroyed"), "{said}");
    assert!(!kept[2].exists() || !top.exists(), "merged now");
}
