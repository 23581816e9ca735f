//! Sets of simulated machines that run: all are captured while all stand still, and whatever fails, dies or cancels,
//! every machine goes on as before.
//!
//! Of four machines the first is off, the second and third run (the third captures its disk itself), the fourth is paused;
//! where guests are brought to rest, the fourth runs too. What runs on while a process dies is a [fork](Sim::fork).

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use groupshot::audit::Audit;
use groupshot::clock::ManualClock;
use groupshot::engine::sim::{Act, Fault, Sim, Step, Trouble, machine_id};
use groupshot::engine::{Compute, EngineErrorKind, drivers::Drivers};
use groupshot::failpoint::FailedOnOrder;
use groupshot::id::VmId;
use groupshot::inventory::{
    CancelKind, CollectionKind, Consistency, Job, JobState, RunState, Trouble as Stopped,
};
use groupshot::job::{Cancelled, Jobs};
use groupshot::snapshot::create::{FAILPOINTS, WINDOW_FAILPOINTS};
use groupshot::snapshot::{
    Accepted, Coordinator, CreateRequest, Deps, Exports, Limits, Passage, Recovered, Refused,
};
use groupshot::store::Store;
use groupshot::store::memory::MemoryStore;
use jiff::Timestamp;

use crate::support::site::is_spare;

use super::world::{Left, collection, group, put, request};

const LIMIT: Duration = Duration::from_secs(600);
const FAILS: Trouble = Trouble::Fail(EngineErrorKind::Failed);
pub(super) const COUNT: u32 = 4;
/// By their numbers.
pub(super) const OFF: u32 = 1;
pub(super) const PLAIN: u32 = 2;
pub(super) const TAKER: u32 = 3;
pub(super) const LAST: u32 = 4;

pub(super) struct Scene {
    pub(super) root: PathBuf,
    level: Consistency,
    clock: Arc<ManualClock>,
    pub(super) store: Arc<MemoryStore>,
    jobs: Arc<Jobs>,
    pub(super) sim: Arc<Sim>,
    pub(super) coordinator: Arc<Coordinator>,
}

/// Who watches over machines that outlive the process, and for how long.
pub(super) struct Guarded {
    pub(super) program: PathBuf,
    pub(super) window: Duration,
    pub(super) audit: Audit,
}

impl Default for Guarded {
    fn default() -> Self {
        Self {
            program: env!("CARGO_BIN_EXE_groupshot").into(),
            window: Limits::default().window,
            audit: Audit::default(),
        }
    }
}

impl Scene {
    pub(super) async fn new(root: &Path, level: Consistency, passage: Passage) -> Self {
        Self::guarded(root, level, Guarded::default(), passage).await
    }

    pub(super) async fn guarded(
        root: &Path,
        level: Consistency,
        guarded: Guarded,
        passage: Passage,
    ) -> Self {
        let store = Arc::new(MemoryStore::new());
        let members = (1..=COUNT).map(machine_id).collect();
        let machines = CollectionKind::Machines;
        put(
            &*store,
            vec![collection(group(), machines, members, vec![])],
        )
        .await;
        let sim = Sim::new(root, COUNT, Timestamp::UNIX_EPOCH).unwrap();
        for n in [PLAIN, TAKER, LAST] {
            sim.set_state(machine_id(n), RunState::Running);
            sim.set_agent(machine_id(n), true);
        }
        if level == Consistency::Crash {
            sim.set_state(machine_id(LAST), RunState::Paused);
        }
        sim.set_taker(machine_id(TAKER), true);
        (1..=COUNT).for_each(|n| sim.write(machine_id(n), "disk0", u64::from(n)));
        let scene = Self::over_with(root, level, store, sim, guarded, passage);
        scene.coordinator.recover().await.unwrap();
        scene
    }

    /// A process over what is there.
    pub(super) fn over(
        root: &Path,
        level: Consistency,
        store: Arc<MemoryStore>,
        sim: Arc<Sim>,
        passage: Passage,
    ) -> Self {
        Self::over_with(root, level, store, sim, Guarded::default(), passage)
    }

    fn over_with(
        root: &Path,
        level: Consistency,
        store: Arc<MemoryStore>,
        sim: Arc<Sim>,
        guarded: Guarded,
        passage: Passage,
    ) -> Self {
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let jobs = Jobs::new(store.clone(), clock.clone(), Duration::from_secs(300));
        let deps = Deps {
            store: store.clone(),
            jobs: jobs.clone(),
            compute: sim.clone(),
            storage: Drivers::new(vec![sim.clone()]),
            frozen: Arc::default(),
            audit: guarded.audit,
            clock: clock.clone(),
            data_dir: root.to_owned(),
            exports: Exports::default(),
            limits: Limits {
                parallel: 2,
                window: guarded.window,
            },
            guard: guarded.program,
        };
        Self {
            root: root.to_owned(),
            level,
            clock,
            store,
            jobs,
            sim,
            coordinator: Coordinator::passing(deps, passage),
        }
    }

    /// The same over again.
    fn again(&self) -> Self {
        let (store, sim) = (self.store.clone(), self.sim.clone());
        Self::over(&self.root, self.level, store, sim, nothing())
    }

    pub(super) fn clock(&self) -> Arc<ManualClock> {
        self.clock.clone()
    }

    fn request(&self) -> CreateRequest {
        CreateRequest {
            consistency: self.level,
            ..request(group())
        }
    }

    pub(super) fn order(&self, n: u32, step: Step, trouble: Trouble, times: u32) {
        self.sim.order(Fault {
            machine: machine_id(n),
            disk: None,
            step,
            trouble,
            times,
        });
    }

    async fn create(&self) -> Result<Accepted, Refused> {
        self.coordinator.create(self.request()).await
    }

    async fn end(&self, accepted: Accepted) -> Job {
        let job = self.jobs.wait(accepted.job, LIMIT).await.unwrap();
        let holder = || self.coordinator.machine_holder(machine_id(TAKER));
        let doing = || holder().map(|it| it.doing.english());
        assert!(job.state.is_terminal(), "{:?}: {job:?}", doing());
        self.coordinator.idle().await;
        job
    }

    pub(super) async fn take(&self) -> Job {
        let accepted = self.create().await.unwrap();
        self.end(accepted).await
    }

    async fn refusal(&self) -> String {
        let Err(Refused::InvalidState(text)) = self.create().await else {
            panic!("it cannot be captured");
        };
        assert!(self.coordinator.machine_holder(machine_id(OFF)).is_none());
        text.english()
    }

    /// What every machine did before, but for those that have died.
    pub(super) fn assert_all_go_on(&self, died: &[u32], at: &str) {
        for n in 1..=COUNT {
            let paused = self.level == Consistency::Crash;
            let state = match n {
                n if died.contains(&n) => RunState::Off,
                OFF => RunState::Off,
                LAST if paused => RunState::Paused,
                _ => RunState::Running,
            };
            assert_eq!(self.sim.state(machine_id(n)), state, "{at}: {n}");
            assert!(!self.sim.is_frozen(machine_id(n)), "{at}: {n} is frozen");
            assert!(!self.sim.is_held(machine_id(n)), "{at}: {n} has no agent");
        }
    }

    /// Journals and words.
    pub(super) fn journals(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.root.join("journal")).unwrap();
        let files = entries.map(|e| e.unwrap().path());
        files.filter(|file| !is_spare(file)).collect()
    }

    /// Nothing of a set is there.
    pub(super) fn assert_untouched(&self, died: &[u32], at: &str) {
        self.assert_all_go_on(died, at);
        assert_eq!(self.journals(), Vec::<PathBuf>::new(), "{at}");
        let state = self.store.state();
        assert!(state.sets.is_empty() && state.positions.is_empty(), "{at}");
        assert_eq!(self.sim.attached(), 0, "{at}");
        assert_eq!(self.sim.captured(), 0, "{at}");
    }

    /// The one set holds every machine as it was.
    pub(super) fn assert_whole(&self, at: &str) {
        self.assert_all_go_on(&[], at);
        assert_eq!(self.journals(), Vec::<PathBuf>::new(), "{at}");
        let state = self.store.state();
        let [set] = &state.sets.values().collect::<Vec<_>>()[..] else {
            panic!("{at}: {:?}", state.sets);
        };
        assert_eq!(set.members.len(), 4, "{at}");
        for n in 1..=COUNT {
            let held = self.sim.captured_generation(set.id, machine_id(n), "disk0");
            assert_eq!(held, Some(u64::from(n)), "{at}: {n}");
        }
        assert_eq!(state.jobs[&set.job].state, JobState::Completed, "{at}");
        assert_one_moment(&self.sim.acts(), at);
    }
}

/// There is a moment at which all machines stood still, and all that run were captured while that was so.
fn assert_one_moment(acts: &[(VmId, Act)], at: &str) {
    let runs = |(id, act): &(VmId, Act)| (*id != machine_id(OFF)).then_some(*act);
    let acts: Vec<_> = acts.iter().filter_map(runs).collect();
    let first = |act| acts.iter().position(|a| *a == act);
    let last = |act| acts.iter().rposition(|a| *a == act);
    assert!(last(Act::Stopped) < first(Act::Captured), "{at}: {acts:?}");
    assert!(last(Act::Captured) < first(Act::Resumed), "{at}: {acts:?}");
    if let Some(frozen) = last(Act::Frozen) {
        assert!(Some(frozen) < first(Act::Stopped), "{at}: {acts:?}");
    }
}

pub(super) fn nothing() -> Passage {
    Box::new(|_| Ok(()))
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

/// All of them, in the order in which they are passed; those of the undo last.
fn points() -> Vec<&'static str> {
    let mut points = FAILPOINTS.clone();
    let window = points.iter().position(|p| *p == "create.window.after");
    points.splice(window.unwrap()..window.unwrap(), WINDOW_FAILPOINTS);
    points
}

fn of_the_undo(point: &str) -> bool {
    point.starts_with("create.abort") || point.starts_with("create.undone")
}

fn place(point: &str) -> usize {
    points().iter().position(|p| *p == point).unwrap()
}

fn before_the_commit(point: &str) -> bool {
    place(point) < place("create.commit.after")
}

const LEVELS: [Consistency; 2] = [Consistency::Crash, Consistency::Application];

#[tokio::test(start_paused = true)]
async fn all_are_captured_while_all_stand_still() {
    for level in LEVELS {
        let root = tempfile::tempdir().unwrap();
        let scene = Scene::new(root.path(), level, nothing()).await;
        let job = scene.take().await;
        assert_eq!(job.state, JobState::Completed, "{:?}", job.error);
        scene.assert_whole("taken");
        let state = scene.store.state();
        let reached: BTreeMap<_, _> = state
            .sets
            .values()
            .flat_map(|set| &set.members)
            .map(|m| (m.machine, m.consistency))
            .collect();
        for n in 1..=COUNT {
            let expected = if n == OFF {
                Consistency::Application // nothing in it is unwritten
            } else {
                level
            };
            assert_eq!(reached[&machine_id(n)], expected, "{n}");
        }
        let thawed = scene.sim.acts().iter().any(|(_, act)| *act == Act::Thawed);
        assert_eq!(thawed, level == Consistency::Application);
    }
}

/// Calls that come before the word.
const BEFORE: [Step; 6] = [
    Step::Prepare,
    Step::Attach,
    Step::Quiesce,
    Step::Stop,
    Step::Transact,
    Step::Cut,
];

#[tokio::test(start_paused = true)]
async fn what_goes_wrong_before_the_word_undoes_all_and_all_go_on() {
    for step in BEFORE {
        for trouble in [FAILS, Trouble::Lie, Trouble::Dies, Trouble::Resumed] {
            let of_running = !matches!(step, Step::Prepare | Step::Cut);
            let harmless = match step {
                Step::Prepare | Step::Cut => !matches!(trouble, Trouble::Fail(_) | Trouble::Lie),
                // It runs then, and as far as it can be seen nobody was disturbed.
                Step::Attach | Step::Quiesce => trouble == Trouble::Resumed,
                _ => false,
            };
            if harmless {
                continue;
            }
            let root = tempfile::tempdir().unwrap();
            let level = Consistency::Application;
            let scene = Scene::new(root.path(), level, nothing()).await;
            let n = if matches!(step, Step::Cut) {
                PLAIN
            } else {
                TAKER
            };
            scene.order(n, step, trouble, 1);
            let at = format!("{step:?}: {trouble:?}");
            let job = scene.take().await;
            assert_eq!(job.state, JobState::Exception, "{at}");
            let died = match trouble {
                Trouble::Dies if of_running => vec![n],
                _ => vec![],
            };
            scene.assert_untouched(&died, &at);
            if died.is_empty() {
                let again = scene.again();
                assert_eq!(again.take().await.state, JobState::Completed, "{at}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_go_on_at_once_is_waited_for_and_the_set_stands() {
    for step in [Step::Resume, Step::Thaw] {
        for trouble in [FAILS, Trouble::Lie] {
            let root = tempfile::tempdir().unwrap();
            let level = Consistency::Application;
            let scene = Scene::new(root.path(), level, nothing()).await;
            scene.order(TAKER, step, trouble, 3);
            let job = scene.take().await;
            assert_eq!(job.state, JobState::Completed, "{step:?}: {:?}", job.error);
            scene.assert_whole(&format!("{step:?}: {trouble:?}"));
        }
    }
}

/// One that dies once all are captured is captured as well.
#[tokio::test(start_paused = true)]
async fn a_machine_that_dies_after_the_word_is_in_the_set() {
    let root = tempfile::tempdir().unwrap();
    let scene = Scene::new(root.path(), Consistency::Crash, nothing()).await;
    scene.order(TAKER, Step::Resume, Trouble::Dies, 1);
    assert_eq!(scene.take().await.state, JobState::Completed);
    scene.assert_all_go_on(&[TAKER], "died");
    assert_eq!(scene.store.state().sets.len(), 1);
}

/// What takes too long is given up, whether it was done or not, and nobody is left standing.
#[tokio::test]
async fn a_window_that_takes_too_long_is_closed() {
    for step in [Step::Quiesce, Step::Stop, Step::Transact] {
        for trouble in [Trouble::Hang, Trouble::Late] {
            let root = tempfile::tempdir().unwrap();
            let level = Consistency::Application;
            let scene = Scene::new(root.path(), level, nothing()).await;
            scene.order(TAKER, step, trouble, 1);
            let at = format!("{step:?}: {trouble:?}");
            let accepted = scene.create().await.unwrap();
            while scene.sim.hanging() == 0 {
                tokio::task::yield_now().await;
            }
            scene.clock.advance(Duration::from_secs(31));
            let job = scene.end(accepted).await;
            assert_eq!(job.state, JobState::Exception, "{at}");
            let error = job.error.unwrap();
            assert!(error.description.english().contains("30 s"), "{at}");
            scene.assert_untouched(&[], &at);
        }
    }
}

/// Windows thaws by itself after 10 s.
#[tokio::test]
async fn a_guest_that_stays_frozen_for_8_s_leaves_the_window_no_more() {
    let root = tempfile::tempdir().unwrap();
    let scene = Scene::new(root.path(), Consistency::Application, nothing()).await;
    scene.order(PLAIN, Step::Quiesce, Trouble::Lapses, 1);
    scene.order(TAKER, Step::Transact, Trouble::Late, 1);
    let accepted = scene.create().await.unwrap();
    while scene.sim.hanging() == 0 {
        tokio::task::yield_now().await;
    }
    scene.clock.advance(Duration::from_secs(9));
    let job = scene.end(accepted).await;
    assert_eq!(job.state, JobState::Exception);
    let error = job.error.unwrap().description.english();
    assert!(error.contains("within 8 s"), "{error}");
    scene.assert_untouched(&[], "8 s");
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_says_at_its_thaw_that_it_had_not_stayed_frozen_undoes_the_set() {
    let root = tempfile::tempdir().unwrap();
    let scene = Scene::new(root.path(), Consistency::Application, nothing()).await;
    scene.order(PLAIN, Step::Thaw, Trouble::Lapses, 1);
    let job = scene.take().await;
    assert_eq!(job.state, JobState::Exception);
    let error = job.error.unwrap().description.english();
    assert!(error.contains("did not stay frozen: "), "{error}");
    scene.assert_untouched(&[], "not held");
}

#[tokio::test]
async fn a_cancel_closes_a_window_that_waits() {
    let root = tempfile::tempdir().unwrap();
    let scene = Scene::new(root.path(), Consistency::Crash, nothing()).await;
    scene.order(TAKER, Step::Stop, Trouble::Late, 1);
    let accepted = scene.create().await.unwrap();
    while scene.sim.hanging() == 0 {
        tokio::task::yield_now().await;
    }
    let cancel = scene
        .jobs
        .cancel(accepted.job, CancelKind::Kill, "somebody");
    assert_eq!(cancel.await.unwrap(), Cancelled::Accepted);
    assert_eq!(scene.end(accepted).await.state, JobState::Killed);
    scene.assert_untouched(&[], "cancelled");
}

/// It is held and told until it answers, and the others go on meanwhile.
#[tokio::test(start_paused = true)]
async fn a_machine_that_cannot_be_let_go_is_stuck_until_it_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let scene = Scene::new(root.path(), Consistency::Crash, nothing()).await;
    scene.order(TAKER, Step::Transact, FAILS, 1);
    scene.order(TAKER, Step::Resume, FAILS, 4);
    let accepted = scene.create().await.unwrap();
    let job = scene.jobs.wait(accepted.job, LIMIT).await.unwrap();
    assert_eq!(job.state, JobState::Exception);
    assert_eq!(scene.sim.state(machine_id(PLAIN)), RunState::Running);
    assert_eq!(scene.sim.state(machine_id(TAKER)), RunState::Paused);
    assert_eq!(scene.sim.attached(), 1, "what it may use is left to it");
    let holder = scene.coordinator.machine_holder(machine_id(TAKER)).unwrap();
    assert!(holder.stuck && holder.job == accepted.job);
    scene.coordinator.idle().await;
    scene.assert_untouched(&[], "stuck");
}

#[tokio::test]
async fn what_cannot_be_captured_as_it_runs_is_5_and_named() {
    for level in LEVELS {
        let id = machine_id(TAKER);
        let said = async |prepare: &dyn Fn(&Sim)| {
            let root = tempfile::tempdir().unwrap();
            let scene = Scene::new(root.path(), level, nothing()).await;
            prepare(&scene.sim);
            let checked = scene.coordinator.check(scene.request()).await;
            let refused = scene.refusal().await;
            assert!(refused.contains("sim-000003"), "{refused}");
            assert_eq!(checked.refused.unwrap().text().english(), refused);
            refused
        };
        // Whatever a monitor does not tell.
        let fails = |step| {
            move |sim: &Sim| {
                sim.order(Fault {
                    machine: id,
                    disk: None,
                    step,
                    trouble: FAILS,
                    times: 2,
                });
            }
        };
        said(&fails(Step::Describe)).await;
        if level == Consistency::Application {
            said(&fails(Step::IsFrozen)).await;
        }
        let jobs = said(&|sim| sim.begin_job(id, "backup0")).await;
        assert!(jobs.contains("backup0"), "{jobs}");
        let resized = said(&|sim| sim.resize(id, "disk0", 7)).await;
        assert!(resized.contains("disk0"), "{resized}");
        let added = said(&|sim| sim.resize(id, "usb1", 7)).await;
        assert!(added.contains("usb1"), "{added}");
        let held = said(&|sim| sim.set_state(id, RunState::Held)).await;
        assert!(held.contains("is running"), "{held}");
        // Its state is known, and there is no way to have it stand still.
        let alone = said(&|sim| sim.set_reached(id, false)).await;
        assert!(alone.contains("is running"), "{alone}");
        let trouble = RunState::Troubled(Stopped::IoError);
        let troubled = said(&|sim| sim.set_state(id, trouble)).await;
        assert!(troubled.contains("io-error"), "{troubled}");
        if level == Consistency::Application {
            let paused = said(&|sim| sim.set_state(id, RunState::Paused)).await;
            assert!(paused.contains("paused"), "{paused}");
            let alone = said(&|sim| sim.set_agent(id, false)).await;
            assert!(alone.contains("agent"), "{alone}");
            let frozen = said(&|sim| sim.freeze(id)).await;
            assert!(frozen.contains("frozen"), "{frozen}");
        } else {
            let alone = |sim: &Sim| {
                sim.set_state(id, RunState::Paused);
                sim.set_reached(id, false);
            };
            let paused = said(&alone).await;
            assert!(paused.contains("is paused"), "{paused}");
        }
    }
}

/// Does `what` to the machines at that point.
fn doing(point: &'static str, what: impl Fn(&Sim) + Send + Sync + 'static) -> (Passage, Handle) {
    let handle = Handle::default();
    let sim = handle.clone();
    let passage = Box::new(move |name: &str| {
        if name == point {
            what(sim.lock().unwrap().as_ref().unwrap());
        }
        Ok(())
    });
    (passage, handle)
}

type Handle = Arc<Mutex<Option<Arc<Sim>>>>;

#[tokio::test(start_paused = true)]
async fn a_disk_that_was_resized_or_added_since_it_was_prepared_fails_the_set() {
    for disk in ["disk0", "usb1"] {
        let (passage, handle) = doing("create.freeze.before", move |sim| {
            sim.resize(machine_id(PLAIN), disk, 7);
        });
        let root = tempfile::tempdir().unwrap();
        let scene = Scene::new(root.path(), Consistency::Crash, passage).await;
        *handle.lock().unwrap() = Some(scene.sim.clone());
        let job = scene.take().await;
        assert_eq!(job.state, JobState::Exception);
        assert!(job.error.unwrap().description.english().contains(disk));
        scene.assert_untouched(&[], disk);
    }
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_somebody_else_has_frozen_is_not_thawed() {
    let (passage, handle) = doing("create.freeze.before", |sim| sim.freeze(machine_id(PLAIN)));
    let root = tempfile::tempdir().unwrap();
    let scene = Scene::new(root.path(), Consistency::Application, passage).await;
    *handle.lock().unwrap() = Some(scene.sim.clone());
    assert_eq!(scene.take().await.state, JobState::Exception);
    assert!(scene.sim.is_frozen(machine_id(PLAIN)), "that is theirs");
    assert!(!scene.sim.is_frozen(machine_id(TAKER)));
}

/// As Windows does after 10 s.
#[tokio::test(start_paused = true)]
async fn a_guest_that_thaws_by_itself_fails_the_set() {
    let (passage, handle) = doing("create.word.before", |sim| sim.unfreeze(machine_id(PLAIN)));
    let root = tempfile::tempdir().unwrap();
    let scene = Scene::new(root.path(), Consistency::Application, passage).await;
    *handle.lock().unwrap() = Some(scene.sim.clone());
    assert_eq!(scene.take().await.state, JobState::Exception);
    scene.assert_untouched(&[], "thawed");
}

#[tokio::test(start_paused = true)]
async fn unwinds_at_every_step_of_each_phase() {
    for level in LEVELS {
        for point in points().into_iter().filter(|p| !of_the_undo(p)) {
            let root = tempfile::tempdir().unwrap();
            let scene = Scene::new(root.path(), level, fails_at(&[point])).await;
            let accepted = scene.create().await;
            if point.starts_with("create.intent") {
                accepted.unwrap_err();
                scene.coordinator.idle().await;
                scene.assert_untouched(&[], point);
                continue;
            }
            let job = scene.end(accepted.unwrap()).await;
            if before_the_commit(point) && point != "create.job.after" {
                assert_eq!(job.state, JobState::Exception, "{point}");
                assert!(job.error.unwrap().description.english().contains(point));
                scene.assert_untouched(&[], point);
                let again = scene.again();
                assert_eq!(again.take().await.state, JobState::Completed, "{point}");
            } else {
                scene.assert_whole(point);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_at_every_step_of_each_phase_undoes_or_comes_too_late() {
    for point in points().into_iter().filter(|p| !of_the_undo(p)).skip(2) {
        let root = tempfile::tempdir().unwrap();
        let stop = Arc::new(Barrier::new(2));
        let (there, passed) = (stop.clone(), AtomicBool::new(false));
        let passage = Box::new(move |name: &str| {
            if name == point && !passed.swap(true, Ordering::SeqCst) {
                there.wait();
                there.wait();
            }
            Ok(())
        });
        let scene = Scene::new(root.path(), Consistency::Application, passage).await;
        let (jobs, store) = (scene.jobs.clone(), scene.store.clone());
        let canceller = std::thread::spawn(move || {
            stop.wait();
            let job = *store.state().jobs.keys().next().unwrap();
            let cancel = jobs.cancel(job, CancelKind::Terminate, "somebody");
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            let cancelled = runtime.block_on(cancel).unwrap();
            stop.wait();
            cancelled
        });
        let job = scene.take().await;
        let cancelled = canceller.join().unwrap();
        if before_the_commit(point) {
            assert_eq!(cancelled, Cancelled::Accepted, "{point}");
            assert_eq!(job.state, JobState::Terminated, "{point}");
            scene.assert_untouched(&[], point);
        } else {
            assert_eq!(cancelled, Cancelled::TooLate, "{point}");
            scene.assert_whole(point);
        }
    }
}

/// What a process leaves that dies at one moment: files, records, and the machines, which run on.
pub(super) type Death = (Left, Arc<Sim>);
pub(super) type Kept = Arc<Mutex<Option<Death>>>;

/// Remembers what a process would leave that dies at `point`; it fails at `also`.
pub(super) fn dies_at(
    root: &Path,
    point: &'static str,
    also: &'static str,
) -> (Passage, Kept, Arc<Mutex<World>>) {
    let left = Kept::default();
    let world = Arc::new(Mutex::new(World::default()));
    let (root, kept, seen) = (root.to_owned(), left.clone(), world.clone());
    let passage = Box::new(move |name: &str| {
        if name == point {
            let world = seen.lock().unwrap();
            let (store, sim) = (world.store.as_ref().unwrap(), world.sim.as_ref().unwrap());
            kept.lock()
                .unwrap()
                .get_or_insert_with(|| (Left::take(&root, &**store), sim.fork()));
        }
        if name == also {
            return Err(FailedOnOrder(name.to_owned()));
        }
        Ok(())
    });
    (passage, left, world)
}

/// What a passage looks at.
#[derive(Default)]
pub(super) struct World {
    store: Option<Arc<MemoryStore>>,
    sim: Option<Arc<Sim>>,
}

impl World {
    pub(super) fn of(scene: &Scene) -> Self {
        Self {
            store: Some(scene.store.clone()),
            sim: Some(scene.sim.clone()),
        }
    }
}

/// Whether a set is there after a death at this point: once the word is CUT, unless nobody can tell any more whether its
/// guests stayed frozen.
fn goes_forward(point: &str, level: Consistency) -> bool {
    let unsure = level == Consistency::Application && point == "create.thaw.after";
    !of_the_undo(point) && place(point) >= place("create.word.after") && !unsure
}

#[tokio::test(start_paused = true)]
async fn survives_a_kill_at_every_step_of_each_phase() {
    for level in LEVELS {
        for point in points() {
            let root = tempfile::tempdir().unwrap();
            let also = match of_the_undo(point) {
                true => "create.capture.after",
                false => "",
            };
            let (passage, left, world) = dies_at(root.path(), point, also);
            let scene = Scene::new(root.path(), level, passage).await;
            *world.lock().unwrap() = World::of(&scene);
            scene.take().await;
            let left = left.lock().unwrap().take();
            let left = left.unwrap_or_else(|| panic!("{point} is never passed"));
            recovers(&scene, &left, goes_forward(point, level), point).await;
            if !SECOND.contains(&point) {
                continue;
            }
            // A recovery that dies as well is begun again.
            for second in points() {
                let (files, sim) = &left;
                let store = files.restore(&scene.root).await;
                let (passage, again, world) = dies_at(&scene.root, second, "");
                let scene = Scene::over(&scene.root, level, store, sim.fork(), passage);
                *world.lock().unwrap() = World::of(&scene);
                scene.coordinator.recover().await.unwrap();
                scene.coordinator.idle().await;
                let again = again.lock().unwrap().take();
                if let Some(again) = again {
                    // Its guests were thawed by the first recovery, which did not come so far as to write that down.
                    let unsure = level == Consistency::Application
                        && place(point) < place("create.window.after")
                        && place(second) < place("create.commit.after");
                    let forward = goes_forward(point, level) && !unsure;
                    let at = format!("{point}, then {second}");
                    match unsure && goes_forward(point, level) {
                        true => ends(&scene, &again, &at).await,
                        false => recovers(&scene, &again, forward, &at).await,
                    }
                }
            }
        }
    }
}

/// Where a second death follows.
const SECOND: [&str; 3] = [
    "create.capture.after",
    "create.word.after",
    "create.window.after",
];

async fn recovered(scene: &Scene, (files, sim): &Death, at: &str) -> Scene {
    let store = files.restore(&scene.root).await;
    let scene = Scene::over(&scene.root, scene.level, store, sim.fork(), nothing());
    let recovered = scene.coordinator.recover().await.unwrap();
    assert!(recovered.stuck.is_empty(), "{at}: {recovered:?}");
    scene.coordinator.idle().await;
    let jobs = scene.jobs.all();
    assert!(jobs.iter().all(|j| j.state.is_terminal()), "{at}");
    scene
}

async fn recovers(scene: &Scene, left: &Death, forward: bool, at: &str) {
    let scene = recovered(scene, left, at).await;
    match forward {
        true => scene.assert_whole(at),
        false => {
            let ended = |job: &Job| job.state == JobState::Exception;
            assert!(scene.jobs.all().iter().all(ended), "{at}");
            scene.assert_untouched(&[], at);
        }
    }
    let nothing = scene.again().coordinator.recover().await.unwrap();
    assert_eq!(nothing, Recovered::default(), "{at}: a second time");
}

/// Wholly there or wholly gone.
async fn ends(scene: &Scene, left: &Death, at: &str) {
    let scene = recovered(scene, left, at).await;
    match scene.store.state().sets.is_empty() {
        true => scene.assert_untouched(&[], at),
        false => scene.assert_whole(at),
    }
}

/// A transaction that a dead process has sent may be carried out all the same: the word decides, not what is seen.
#[tokio::test]
async fn without_the_word_all_goes_back_though_all_were_captured() {
    let root = tempfile::tempdir().unwrap();
    let (passage, left, world) = dies_at(root.path(), "create.word.before", "");
    let scene = Scene::new(root.path(), Consistency::Crash, passage).await;
    *world.lock().unwrap() = World::of(&scene);
    scene.take().await;
    let left = left.lock().unwrap().take().unwrap();
    assert_eq!(left.1.captured(), 4, "all of them");
    recovers(&scene, &left, false, "no word").await;
}

/// Another process, which watches over the machines, has let them go.
#[tokio::test(start_paused = true)]
async fn a_word_that_another_process_has_fired_fails_the_set() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("journal");
    let passage = Box::new(move |name: &str| {
        if name == "create.word.before" {
            let files = std::fs::read_dir(&folder).unwrap();
            let mut files = files.map(|entry| entry.unwrap().path());
            let word = files.find(|file| file.extension().is_some_and(|e| e == "word"));
            let word = std::fs::File::options().write(true).open(word.unwrap());
            word.unwrap().write_all_at(b"FIRE", 0).unwrap();
        }
        Ok(())
    });
    let scene = Scene::new(root.path(), Consistency::Crash, passage).await;
    let job = scene.take().await;
    assert_eq!(job.state, JobState::Exception);
    let error = job.error.unwrap().description.english();
    assert!(error.contains("let go before"), "{error}");
    scene.assert_untouched(&[], "fired");
}

/// The word of a set, among the journals.
fn word_in(journals: &Path) -> std::fs::File {
    let files = std::fs::read_dir(journals).unwrap();
    let mut files = files.map(|entry| entry.unwrap().path());
    let word = files.find(|file| file.extension().is_some_and(|e| e == "word"));
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(word.unwrap());
    file.unwrap()
}

/// A process that stood still finds when it goes on that it was let down meanwhile.
#[tokio::test(start_paused = true)]
async fn whoever_may_not_go_on_asks_no_machine_for_anything_more() {
    for (point, act) in [
        ("create.freeze.before", Act::Frozen),
        ("create.stop.before", Act::Stopped),
        ("create.capture.before", Act::Captured),
    ] {
        for late in [false, true] {
            let root = tempfile::tempdir().unwrap();
            let folder = root.path().join("journal");
            let time: Arc<Mutex<Option<Arc<ManualClock>>>> = Arc::default();
            let clock = time.clone();
            let passage = Box::new(move |name: &str| {
                if name == point {
                    match late {
                        false => word_in(&folder).write_all_at(b"FIRE", 0).unwrap(),
                        true => {
                            let clock = clock.lock().unwrap();
                            clock.as_ref().unwrap().advance(Duration::from_secs(31));
                        }
                    }
                }
                Ok(())
            });
            let scene = Scene::new(root.path(), Consistency::Application, passage).await;
            *time.lock().unwrap() = Some(scene.clock.clone());
            let job = scene.take().await;
            assert_eq!(job.state, JobState::Exception);
            let acts = scene.sim.acts();
            let of_running = |n: u32| move |it: &&(VmId, Act)| it.0 == machine_id(n) && it.1 == act;
            for n in [PLAIN, TAKER, LAST] {
                assert_eq!(
                    acts.iter().filter(of_running(n)).count(),
                    0,
                    "{point}: {acts:?}"
                );
            }
            scene.assert_untouched(&[], point);
        }
    }
}

/// Time passes for the server as long as that does not end.
async fn while_time_passes<T>(clock: Arc<ManualClock>, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        match tokio::time::timeout(Duration::from_millis(100), &mut work).await {
            Ok(done) => return done,
            Err(_) => clock.advance(Duration::from_millis(100)),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn all_are_captured_and_one_does_not_go_on_or_thaw_for_10_s_fails_the_set() {
    for step in [Step::Resume, Step::Thaw] {
        let root = tempfile::tempdir().unwrap();
        let scene = Scene::new(root.path(), Consistency::Application, nothing()).await;
        scene.order(TAKER, step, FAILS, 40);
        let accepted = scene.create().await.unwrap();
        let ended = while_time_passes(scene.clock(), scene.jobs.wait(accepted.job, LIMIT));
        let job = ended.await.unwrap();
        assert_eq!(job.state, JobState::Exception, "{step:?}");
        let error = job.error.unwrap().description.english();
        assert!(error.contains("is being undone"), "{step:?}: {error}");
        let holder = scene.coordinator.machine_holder(machine_id(TAKER)).unwrap();
        assert!(holder.stuck && holder.job == accepted.job, "{step:?}");
        scene.coordinator.idle().await;
        scene.assert_untouched(&[], &format!("{step:?}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_ends_the_wait_for_a_guest_that_does_not_thaw() {
    let root = tempfile::tempdir().unwrap();
    let scene = Scene::new(root.path(), Consistency::Application, nothing()).await;
    scene.order(TAKER, Step::Thaw, FAILS, 40);
    let accepted = scene.create().await.unwrap();
    while !scene.sim.acts().iter().any(|(_, act)| *act == Act::Thawed) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (kind, by) = (CancelKind::Terminate, "somebody");
    let cancelled = scene.jobs.cancel(accepted.job, kind, by).await.unwrap();
    assert_eq!(cancelled, Cancelled::Accepted);
    let job = scene.jobs.wait(accepted.job, LIMIT).await.unwrap();
    assert_eq!(job.state, JobState::Terminated);
    assert!(
        scene.sim.is_frozen(machine_id(TAKER)),
        "it is tried further"
    );
    scene.coordinator.idle().await;
    scene.assert_untouched(&[], "cancelled");
}

/// What a set has let go is no business of it any more, though its undo may wait for days.
#[tokio::test(start_paused = true)]
async fn a_start_leaves_alone_what_a_failed_set_has_let_go() {
    let root = tempfile::tempdir().unwrap();
    let (passage, left, world) =
        dies_at(root.path(), "create.undone.before", "create.capture.after");
    let scene = Scene::new(root.path(), Consistency::Application, passage).await;
    *world.lock().unwrap() = World::of(&scene);
    scene.take().await;
    let (files, sim) = left.lock().unwrap().take().unwrap();
    let store = files.restore(&scene.root).await;
    // Others have paused the one and frozen the other since.
    sim.set_state(machine_id(PLAIN), RunState::Paused);
    sim.freeze(machine_id(TAKER));
    let again = Scene::over(&scene.root, scene.level, store, sim, nothing());
    let recovered = again.coordinator.recover().await.unwrap();
    assert_eq!(recovered.undone.len(), 1, "{recovered:?}");
    again.coordinator.idle().await;
    assert_eq!(again.sim.state(machine_id(PLAIN)), RunState::Paused);
    assert!(again.sim.is_frozen(machine_id(TAKER)));
    assert_eq!(again.journals(), Vec::<PathBuf>::new());
}

/// The others were thawed, and seen frozen until then.
#[tokio::test(start_paused = true)]
async fn a_machine_that_answers_late_at_a_start_costs_no_set() {
    let root = tempfile::tempdir().unwrap();
    let (passage, left, world) = dies_at(root.path(), "create.word.after", "");
    let scene = Scene::new(root.path(), Consistency::Application, passage).await;
    *world.lock().unwrap() = World::of(&scene);
    scene.take().await;
    let (files, sim) = left.lock().unwrap().take().unwrap();
    let store = files.restore(&scene.root).await;
    let again = Scene::over(&scene.root, scene.level, store, sim, nothing());
    again.order(TAKER, Step::Resume, FAILS, 1);
    let recovered = again.coordinator.recover().await.unwrap();
    again.coordinator.idle().await;
    assert!(recovered.undone.is_empty(), "{recovered:?}");
    again.assert_whole("late");
}

/// Where the note of a member stands in the file of the word.
fn note(member: u32) -> u64 {
    64 + 8 * u64::from(member - 1)
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_was_paused_by_others_is_noted_and_stays_so_after_a_death() {
    // What is written.
    let root = tempfile::tempdir().unwrap();
    let (folder, handle) = (root.path().join("journal"), Handle::default());
    let (sim, seen) = (handle.clone(), Arc::new(Mutex::new(0)));
    let noted = seen.clone();
    let passage = Box::new(move |name: &str| {
        match name {
            "create.stop.before" => {
                let sim = sim.lock().unwrap();
                let sim = sim.as_ref().unwrap();
                sim.set_state(machine_id(PLAIN), RunState::Paused);
            }
            "create.abort.before" => {
                let mut value = [0; 8];
                let word = word_in(&folder);
                word.read_exact_at(&mut value, note(PLAIN)).unwrap();
                *noted.lock().unwrap() = u64::from_ne_bytes(value);
            }
            _ => {}
        }
        Ok(())
    });
    let scene = Scene::new(root.path(), Consistency::Crash, passage).await;
    *handle.lock().unwrap() = Some(scene.sim.clone());
    assert_eq!(scene.take().await.state, JobState::Exception);
    assert_eq!(scene.sim.state(machine_id(PLAIN)), RunState::Paused);
    assert_eq!(scene.sim.state(machine_id(TAKER)), RunState::Running);
    assert_eq!(*seen.lock().unwrap(), 2);
    // And what is read.
    let root = tempfile::tempdir().unwrap();
    let (passage, left, world) = dies_at(root.path(), "create.stop.after", "");
    let scene = Scene::new(root.path(), Consistency::Crash, passage).await;
    *world.lock().unwrap() = World::of(&scene);
    scene.take().await;
    let (files, sim) = left.lock().unwrap().take().unwrap();
    let store = files.restore(&scene.root).await;
    let word = word_in(&scene.root.join("journal"));
    word.write_all_at(&2_u64.to_ne_bytes(), note(PLAIN))
        .unwrap();
    let again = Scene::over(&scene.root, scene.level, store, sim, nothing());
    again.coordinator.recover().await.unwrap();
    again.coordinator.idle().await;
    assert_eq!(again.sim.state(machine_id(PLAIN)), RunState::Paused);
    assert_eq!(again.sim.state(machine_id(TAKER)), RunState::Running);
}

/// A set says when its members were captured: not when it was accepted, and not how long its guard took.
#[tokio::test(start_paused = true)]
async fn the_times_of_a_set_are_those_of_its_captures_also_after_a_death() {
    let root = tempfile::tempdir().unwrap();
    let (dies, left, world) = dies_at(root.path(), "create.word.after", "");
    let time: Arc<Mutex<Option<Arc<ManualClock>>>> = Arc::default();
    let clock = time.clone();
    let passage = Box::new(move |name: &str| {
        let seconds = match name {
            "create.cut.after" => 10,  // the guard starts
            "create.stop.after" => 2,  // all stand still
            "create.word.before" => 1, // all are captured
            _ => 0,
        };
        if let Some(clock) = clock.lock().unwrap().as_ref() {
            clock.advance(Duration::from_secs(seconds));
        }
        dies(name)
    });
    let scene = Scene::new(root.path(), Consistency::Crash, passage).await;
    *time.lock().unwrap() = Some(scene.clock.clone());
    *world.lock().unwrap() = World::of(&scene);
    assert_eq!(scene.take().await.state, JobState::Completed);
    let captured = Timestamp::from_second(12).unwrap();
    let assert_true = |scene: &Scene, at: &str| {
        let state = scene.store.state();
        let set = state.sets.values().next().unwrap();
        assert_eq!(set.created, captured, "{at}");
        assert!(set.window.is_zero(), "{at}: {}", set.window);
        let times: Vec<_> = set.members.iter().map(|m| m.cut_at).collect();
        assert_eq!(times, [captured; 4], "{at}");
    };
    assert_true(&scene, "taken");
    let left = left.lock().unwrap().take().unwrap();
    assert_true(&recovered(&scene, &left, "recovered").await, "recovered");
}

/// The word of another run of the host tells nothing, and nobody whom it stopped is there any more.
#[tokio::test]
async fn a_word_of_another_run_of_the_host_counts_for_nothing() {
    let root = tempfile::tempdir().unwrap();
    let (passage, left, world) = dies_at(root.path(), "create.word.after", "");
    let scene = Scene::new(root.path(), Consistency::Crash, passage).await;
    *world.lock().unwrap() = World::of(&scene);
    scene.take().await;
    let (files, sim) = left.lock().unwrap().take().unwrap();
    let store = files.restore(&scene.root).await;
    let mut journals = scene.journals();
    journals.retain(|file| file.extension().is_some_and(|e| e == "log"));
    let [file] = &journals[..] else {
        panic!("{journals:?}")
    };
    let mut records = crate::support::journal::read(&std::fs::read(file).unwrap());
    records[0].rest["boot"] = "another".into();
    std::fs::remove_file(file).unwrap();
    crate::support::journal::write(file.parent().unwrap(), records);
    // The host has started anew: the machines are off.
    for n in [PLAIN, TAKER, LAST] {
        sim.set_state(machine_id(n), RunState::Off);
    }
    let scene = Scene::over(&scene.root, scene.level, store, sim, nothing());
    scene.coordinator.recover().await.unwrap();
    scene.coordinator.idle().await;
    scene.assert_untouched(&[PLAIN, TAKER, LAST], "another run");
}

/// It stands still for a reason of its own.
#[tokio::test]
async fn a_machine_with_an_error_of_its_own_is_not_resumed() {
    let root = tempfile::tempdir().unwrap();
    let (passage, left, world) = dies_at(root.path(), "create.stop.after", "");
    let scene = Scene::new(root.path(), Consistency::Crash, passage).await;
    *world.lock().unwrap() = World::of(&scene);
    scene.take().await;
    let (files, sim) = left.lock().unwrap().take().unwrap();
    let store = files.restore(&scene.root).await;
    let trouble = RunState::Troubled(Stopped::IoError);
    sim.set_state(machine_id(PLAIN), trouble);
    let scene = Scene::over(&scene.root, scene.level, store, sim, nothing());
    let recovered = scene.coordinator.recover().await.unwrap();
    assert!(recovered.stuck.is_empty(), "{recovered:?}");
    assert_eq!(scene.sim.state(machine_id(PLAIN)), trouble);
    assert_eq!(scene.sim.state(machine_id(TAKER)), RunState::Running);
}

/// One journal that cannot be read holds up the operations of all, and the machines of none.
#[tokio::test]
async fn machines_go_on_beside_a_journal_that_cannot_be_read() {
    let root = tempfile::tempdir().unwrap();
    let (passage, left, world) = dies_at(root.path(), "create.stop.after", "");
    let scene = Scene::new(root.path(), Consistency::Crash, passage).await;
    *world.lock().unwrap() = World::of(&scene);
    scene.take().await;
    let (files, sim) = left.lock().unwrap().take().unwrap();
    let store = files.restore(&scene.root).await;
    let strange = scene.root.join("journal/strange.log");
    std::fs::create_dir(&strange).unwrap();
    assert_eq!(sim.state(machine_id(PLAIN)), RunState::Paused);
    let scene = Scene::over(&scene.root, scene.level, store, sim, nothing());
    assert!(scene.coordinator.recover().await.is_err());
    for n in [PLAIN, TAKER] {
        assert_eq!(scene.sim.state(machine_id(n)), RunState::Running);
    }
}

/// A machine that does not answer keeps neither the others nor the listener waiting.
#[tokio::test]
async fn recovery_opens_without_a_machine_that_does_not_answer() {
    let root = tempfile::tempdir().unwrap();
    let (passage, left, world) = dies_at(root.path(), "create.stop.after", "");
    let scene = Scene::new(root.path(), Consistency::Crash, passage).await;
    *world.lock().unwrap() = World::of(&scene);
    scene.take().await;
    let (files, sim) = left.lock().unwrap().take().unwrap();
    let store = files.restore(&scene.root).await;
    let scene = Scene::over(&scene.root, scene.level, store, sim, nothing());
    scene.order(TAKER, Step::Resume, Trouble::Hang, 100);
    let (clock, done) = (scene.clock.clone(), Arc::new(AtomicBool::new(false)));
    let until = done.clone();
    let time = tokio::spawn(async move {
        while !until.load(Ordering::SeqCst) {
            clock.advance(Duration::from_secs(1));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let recovered = scene.coordinator.recover().await.unwrap();
    assert_eq!(recovered.stuck.len(), 1, "{recovered:?}");
    assert_eq!(scene.sim.state(machine_id(PLAIN)), RunState::Running);
    let holder = scene.coordinator.machine_holder(machine_id(TAKER)).unwrap();
    assert!(holder.stuck || holder.recovering, "{holder:?}");
    scene.sim.relent();
    scene.coordinator.idle().await;
    done.store(true, Ordering::SeqCst);
    time.await.unwrap();
    scene.assert_untouched(&[], "it answers again");
}

/// Only a program that can let machines go may read it.
#[tokio::test(start_paused = true)]
async fn the_journal_of_a_set_of_running_machines_has_a_version_of_its_own() {
    for (runs, version) in [(true, 2), (false, 1)] {
        let root = tempfile::tempdir().unwrap();
        let (passage, left, world) = dies_at(root.path(), "create.cut.before", "");
        let scene = Scene::new(root.path(), Consistency::Crash, passage).await;
        if !runs {
            for n in [PLAIN, TAKER, LAST] {
                scene.sim.set_state(machine_id(n), RunState::Off);
            }
        }
        *world.lock().unwrap() = World::of(&scene);
        scene.take().await;
        let (files, _) = left.lock().unwrap().take().unwrap();
        files.restore(&scene.root).await;
        let journals = scene.journals();
        let [file] = &journals[..] else {
            panic!("{journals:?}")
        };
        let bytes = std::fs::read(file).unwrap();
        assert_eq!(&bytes[..8], [&b"GSHOTJ"[..], &[version, 0]].concat());
    }
}
