//! Simulated machines (`--engine sim --machines N`): all that clients can do, with no disk behind it, and
//! faults on order. For trying out clients at any scale and for tests.
//!
//! Ids and names follow from the number alone. A disk's content is one number, its generation; a capture
//! keeps the generation of its moment. Both live in memory only.
//!
//! Machines are off until a test has them run ([`Sim::set_state`]); [`Running`] is the way to those that do.

mod running;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::engine::actives;
use crate::engine::capture;
use crate::engine::definition::MACHINES;
use crate::engine::failure::At;
use crate::engine::revert;
use crate::engine::sim::running::{Bells, Guests};
use crate::engine::{
    Capture, Compute, Driver, EngineError, EngineErrorKind, Hold, InTurn, Live, Machines, Observed,
    Plan, Prepared, Recorded, Revert, RevertPlan, RevertRequest, Running, Stamp, Top,
};
use crate::held;
use crate::id::{SetId, VmId};
use crate::inventory::{Disk, Format, Machine, RunState, Sealed, SnapshotDisk};
use crate::text::catalog::engine as texts;

pub use crate::engine::sim::running::Act;

/// A step that hangs on order gives up then, so that a test that fails meanwhile still ends.
const HANG_MAX: Duration = Duration::from_secs(60);

/// Name of the storage driver.
pub const NAME: &str = "sim";
/// Upper half of every simulated machine's GUID.
const IDS: u128 = 0x5EED_51B0_0000_4000_8000_0000_0000_0000;
const DISK_SIZE: u64 = 1 << 30;

/// A step at which a fault can be ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// [`Compute::hold`].
    Hold,
    /// [`Capture::plan`].
    Plan,
    /// [`Capture::prepare`].
    Prepare,
    /// [`Capture::cut`].
    Cut,
    /// [`Capture::settle`].
    Settle,
    /// [`Capture::undo`].
    Undo,
    /// [`Revert::plan_revert`].
    PlanRevert,
    /// [`Revert::prepare_revert`].
    PrepareRevert,
    /// [`Revert::revert`].
    Revert,
    /// [`Revert::settle_revert`].
    SettleRevert,
    /// [`Revert::undo_revert`].
    UndoRevert,
    /// [`Compute::set_tops`].
    SetTops,
    /// [`Running::describe`].
    Describe,
    /// [`Running::attach`].
    Attach,
    /// [`Running::detach`].
    Detach,
    /// [`Running::quiesce`].
    Quiesce,
    /// [`Running::is_frozen`].
    IsFrozen,
    /// [`Running::thaw`].
    Thaw,
    /// [`Running::stop`].
    Stop,
    /// [`Running::cut`].
    Transact,
    /// [`Running::resume`].
    Resume,
    /// [`Running::unblock`].
    Unblock,
}

/// What goes wrong there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The step fails with that kind and does nothing.
    Fail(EngineErrorKind),
    /// The step does not return before [`Sim::release`]; then it fails.
    Hang,
    /// The step answers that it went well and does nothing. At `plan`: no driver holds the disk.
    Lie,
    /// At a step of [`Running`]: it is done, and does not answer before [`Sim::release`].
    Late,
    /// At a step of [`Running`]: whatever runs the machine dies.
    Dies,
    /// At a step of [`Running`]: it is done, and right afterwards somebody else lets the machine run.
    Resumed,
    /// At [`Running::quiesce`]: it is done, and the guest stays at rest for 8 s. At [`Running::thaw`]: it is done, and the
    /// guest says that it was thawed before.
    Lapses,
}

/// A fault on order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// At which machine.
    pub machine: VmId,
    /// At which of its disks; all if `None`.
    pub disk: Option<String>,
    /// At which step.
    pub step: Step,
    /// What happens.
    pub trouble: Trouble,
    /// How many times before it is used up.
    pub times: u32,
}

/// Simulated machines and their storage.
pub struct Sim {
    shown: watch::Sender<Arc<Observed>>,
    /// Where a library of the same data directory has its machines: files of theirs are needed.
    library: PathBuf,
    world: Mutex<World>,
    released: Condvar,
    /// Counts as [`World::releases`], for those who do not block.
    freed: watch::Sender<u64>,
    me: Weak<Self>,
}

#[derive(Default)]
struct World {
    faults: Vec<Fault>,
    /// Counts [`Sim::release`]: whoever hangs waits for the next.
    releases: u64,
    hanging: usize,
    states: BTreeMap<VmId, RunState>,
    generations: BTreeMap<(VmId, String), u64>,
    plans: BTreeMap<Key, Caught>,
    guests: Guests,
    bells: Bells,
}

type Key = (SetId, VmId, String);

#[derive(Clone, Copy)]
enum Caught {
    Prepared,
    Cut(u64),
}

impl Sim {
    /// `count` machines of one disk each. Their shared definition file is written to `data_dir/sim`.
    ///
    /// # Errors
    /// The definition file cannot be written.
    pub fn new(data_dir: &Path, count: u32, now: Timestamp) -> io::Result<Arc<Self>> {
        let directory = data_dir.join("sim");
        held::make_folders(&directory, 0)?;
        let definition = directory.join("machine.toml");
        let text = "# Every simulated machine has this definition.\ndisks = [\"disk0\"]\n";
        held::replace(&definition, text.as_bytes(), 0o640)?;
        let machine = |number: u32| {
            let id = machine_id(number);
            let name = format!("sim-{number:06}");
            let disk = Disk {
                id: "disk0".to_owned(),
                file: directory.join(format!("{name}.raw")),
                format: Format::Raw,
                size: DISK_SIZE,
            };
            let machine = Machine {
                id,
                name,
                disks: vec![disk],
                directory: directory.clone(),
                definition: definition.clone(),
                created: now,
                overlay_ok: false,
                unmanaged_ok: false,
                no_flush_ok: false,
                images: BTreeMap::new(),
                relative: BTreeMap::new(),
                sockets: Default::default(),
            };
            (id, Arc::new(machine))
        };
        let machines = (1..=count).map(machine).collect();
        let library = data_dir.join(MACHINES);
        let machines = Observed::of(Arc::new(machines));
        Ok(Self::of(machines, library, World::default()))
    }

    fn of(shown: Observed, library: PathBuf, world: World) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            shown: watch::Sender::new(Arc::new(shown)),
            library,
            world: Mutex::new(world),
            released: Condvar::new(),
            freed: watch::Sender::default(),
            me: Weak::clone(me),
        })
    }

    /// Orders a fault. The first order that matches a step is served.
    pub fn order(&self, fault: Fault) {
        self.world().faults.push(fault);
    }

    /// Lets everything that hangs go on and fail.
    pub fn release(&self) {
        self.world().releases += 1;
        self.released.notify_all();
        self.freed.send_modify(|count| *count += 1);
    }

    /// Takes back every order, and lets everything that hangs go on and fail.
    pub fn relent(&self) {
        self.world().faults.clear();
        self.release();
    }

    /// How many steps hang now.
    #[must_use]
    pub fn hanging(&self) -> usize {
        self.world().hanging
    }

    /// Makes the machine run, pause or stop.
    pub fn set_state(&self, id: VmId, state: RunState) {
        let mut world = self.world();
        self.put_state(&mut world, id, state);
        if state == RunState::Off {
            world.guests.end(id);
        }
    }

    /// The state before.
    fn put_state(&self, world: &mut World, id: VmId, state: RunState) -> Option<RunState> {
        self.shown
            .send_modify(|shown| Arc::make_mut(shown).put_state(id, state));
        world.states.insert(id, state)
    }

    /// The machine writes to its disk: its content is `generation` from now on.
    pub fn write(&self, id: VmId, disk: &str, generation: u64) {
        self.world()
            .generations
            .insert((id, disk.to_owned()), generation);
    }

    /// The content that the set holds of the disk.
    #[must_use]
    pub fn captured_generation(&self, set: SetId, id: VmId, disk: &str) -> Option<u64> {
        match self.world().plans.get(&(set, id, disk.to_owned())) {
            Some(Caught::Cut(generation)) => Some(*generation),
            _ => None,
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the order for this step, if there is one.
    fn ordered(&self, id: VmId, disk: Option<&str>, step: Step) -> Option<Trouble> {
        let mut world = self.world();
        let wanted = |f: &Fault| {
            f.machine == id
                && f.step == step
                && f.times > 0
                && (f.disk.is_none() || f.disk.as_deref() == disk)
        };
        let fault = world.faults.iter_mut().find(|f| wanted(f))?;
        fault.times -= 1;
        Some(fault.trouble)
    }

    /// Stands until [`Sim::release`]; whoever asked may give up meanwhile.
    async fn stand(&self) {
        let mut freed = self.freed.subscribe();
        self.world().hanging += 1;
        let _standing = Standing(self);
        let _the_simulation_is_gone = freed.changed().await;
    }

    fn failed_on_order(at: &At, step: Step, kind: EngineErrorKind) -> EngineError {
        EngineError {
            kind,
            text: at
                .text(texts::ORDERED, Path::new(""))
                .with("step", format!("{step:?}").to_lowercase()),
        }
    }

    /// Serves an order for this step. `true`: go on; `false`: lie.
    fn pass(&self, at: &At, id: VmId, disk: Option<&str>, step: Step) -> Result<bool, EngineError> {
        let kind = match self.ordered(id, disk, step) {
            None => return Ok(true),
            Some(Trouble::Lie) => return Ok(false),
            Some(Trouble::Fail(kind)) => kind,
            Some(Trouble::Dies | Trouble::Resumed | Trouble::Lapses) => EngineErrorKind::Failed, // of machines that run
            Some(Trouble::Hang | Trouble::Late) => {
                let mut world = self.world();
                let now = world.releases;
                world.hanging += 1;
                let (mut world, _) = self
                    .released
                    .wait_timeout_while(world, HANG_MAX, |w| w.releases == now)
                    .unwrap_or_else(PoisonError::into_inner);
                world.hanging -= 1;
                EngineErrorKind::Failed
            }
        };
        Err(Self::failed_on_order(at, step, kind))
    }

    fn pass_plan(&self, plan: &Plan, step: Step) -> Result<bool, EngineError> {
        self.pass(&At::plan(plan), plan.machine, Some(&plan.disk.id), step)
    }
}

impl Sim {
    fn pass_revert(&self, revert: &RevertPlan, step: Step) -> Result<bool, EngineError> {
        let at = At::revert(revert);
        self.pass(&at, revert.machine, Some(&revert.disk.id), step)
    }

    /// The content of the disk now.
    #[must_use]
    pub fn generation(&self, id: VmId, disk: &str) -> u64 {
        let content = (id, disk.to_owned());
        let world = self.world();
        world.generations.get(&content).copied().unwrap_or(0)
    }
}

/// Somebody who stands without blocking.
struct Standing<'a>(&'a Sim);

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        self.0.world().hanging -= 1;
    }
}

/// The id of machine `number`, counted from 1.
#[must_use]
pub fn machine_id(number: u32) -> VmId {
    VmId::from_u128(IDS | u128::from(number))
}

fn key(plan: &Plan) -> Key {
    (plan.set, plan.machine, plan.disk.id.clone())
}

impl Compute for Sim {
    fn observe(&self) -> watch::Receiver<Arc<Observed>> {
        self.shown.subscribe()
    }

    fn machines(&self) -> Arc<Machines> {
        Arc::clone(&self.shown.borrow().machines)
    }

    fn state(&self, id: VmId) -> RunState {
        self.world()
            .states
            .get(&id)
            .copied()
            .unwrap_or(RunState::Off)
    }

    fn running(&self, id: VmId) -> Option<Arc<dyn Running>> {
        self.monitor(id)
    }

    fn set_tops(&self, id: VmId, tops: &BTreeMap<String, Top>) -> Result<(), EngineError> {
        if !self.pass(&At::new(id, "*"), id, None, Step::SetTops)? {
            return Ok(());
        }
        let unknown = || EngineError {
            kind: EngineErrorKind::Missing,
            text: texts::MACHINE_UNKNOWN.with("machine", id),
        };
        let old = self.machine(id).ok_or_else(unknown)?;
        let mut new = Machine::clone(&old);
        for disk in &mut new.disks {
            if let Some(top) = tops.get(&disk.id) {
                disk.file.clone_from(&top.file);
                disk.format = top.format;
            }
        }
        if new != *old {
            let new = Arc::new(new);
            self.shown.send_modify(|shown| {
                let machines = &mut Arc::make_mut(shown).machines;
                Arc::make_mut(machines).insert(id, new);
            });
        }
        Ok(())
    }

    fn recorded(&self) -> Result<Vec<Recorded>, EngineError> {
        actives::recorded_if_any(&self.library)
    }

    fn recorded_of(&self, id: VmId) -> Option<Recorded> {
        actives::recorded_of(&self.library, id)
    }

    fn recorded_in(&self, id: Option<VmId>) -> PathBuf {
        actives::folder_of(&self.library, id)
    }

    fn turn(&self, given_up: &dyn Fn() -> bool) -> io::Result<Option<InTurn>> {
        actives::turn(&self.library, given_up)
    }

    /// There are no files to hold; a fault on order can refuse.
    fn hold(&self, machine: &Machine) -> Result<Hold, EngineError> {
        self.pass(&At::new(&machine.name, "*"), machine.id, None, Step::Hold)?;
        Ok(Hold::default())
    }
}

impl Driver for Sim {
    fn name(&self) -> &'static str {
        NAME
    }
}

impl Capture for Sim {
    fn plan(
        &self,
        machine: &Machine,
        disk: &Disk,
        set: SetId,
        live: Option<Live>,
    ) -> Result<Option<Plan>, EngineError> {
        let at = At::disk(machine, disk);
        if !self.pass(&at, machine.id, Some(&disk.id), Step::Plan)? {
            return Ok(None);
        }
        let name = format!("{set}-{}-{}.raw", machine.id, disk.id);
        Ok(Some(Plan {
            driver: NAME.to_owned(),
            set,
            machine: machine.id,
            machine_name: machine.name.clone(),
            disk: disk.clone(),
            own: capture::NewFile {
                new_file: machine.directory.join(name),
                seen: Stamp::default(),
                place: None,
                live,
                made: None,
                mode: None,
            },
        }))
    }

    fn prepare(&self, plan: &Plan) -> Result<(), EngineError> {
        if self.pass_plan(plan, Step::Prepare)? {
            let mut world = self.world();
            world.plans.entry(key(plan)).or_insert(Caught::Prepared);
        }
        Ok(())
    }

    fn cut(&self, plan: &Plan) -> Result<(), EngineError> {
        if !self.pass_plan(plan, Step::Cut)? {
            return Ok(());
        }
        self.world().capture(plan)
    }

    fn settle(&self, plan: &Plan) -> Result<(), EngineError> {
        if !self.pass_plan(plan, Step::Settle)? {
            return Ok(());
        }
        match self.world().plans.get(&key(plan)) {
            Some(Caught::Cut(_)) => Ok(()),
            _ => Err(At::plan(plan).error(
                EngineErrorKind::Failed,
                texts::NOT_CUT,
                &plan.file().new_file,
            )),
        }
    }

    fn top_after(&self, plan: &Plan) -> Top {
        Top {
            file: plan.disk.file.clone(),
            format: plan.disk.format,
        }
    }

    fn captured(&self, plan: &Plan) -> SnapshotDisk {
        SnapshotDisk {
            id: plan.disk.id.clone(),
            file: plan.file().new_file.clone(),
            format: plan.disk.format,
            size: plan.disk.size,
            driver: NAME.to_owned(),
            sealed: Vec::new(),
            damage: None,
        }
    }

    fn outlived(&self, plan: &Plan) -> Result<Option<Top>, EngineError> {
        let world = self.world();
        let content = (plan.machine, plan.disk.id.clone());
        let now = world.generations.get(&content).copied().unwrap_or(0);
        let caught = world.plans.get(&key(plan));
        let written = matches!(caught, Some(Caught::Cut(then)) if *then != now);
        Ok(written.then(|| self.top_after(plan)))
    }

    fn undo(&self, plan: &Plan) -> Result<(), EngineError> {
        if self.pass_plan(plan, Step::Undo)? {
            self.world().plans.remove(&key(plan));
        }
        Ok(())
    }

    fn seal(
        &self,
        _: &Plan,
        _: Option<&Machine>,
        _: &BTreeSet<Sealed>,
    ) -> Result<Vec<Sealed>, EngineError> {
        Ok(Vec::new())
    }
}

impl Revert for Sim {
    fn plan_revert(&self, request: RevertRequest<'_>) -> Result<RevertPlan, EngineError> {
        let (machine, disk) = (request.machine, request.disk);
        let at = At::disk(machine, disk);
        self.pass(&at, machine.id, Some(&disk.id), Step::PlanRevert)?;
        Ok(RevertPlan {
            driver: NAME.to_owned(),
            set: request.set,
            machine: machine.id,
            machine_name: machine.name.clone(),
            disk: disk.clone(),
            kept: request.kept.clone(),
            own: revert::NewFile {
                new_file: machine.directory.join(request.job.to_string()),
                new_format: disk.format,
                in_place: Some(disk.file.clone()),
                seen: Stamp::default(),
                place: None,
            },
        })
    }

    fn prepare_revert(&self, revert: &RevertPlan) -> Result<Prepared, EngineError> {
        self.pass_revert(revert, Step::PrepareRevert)?;
        Ok(Prepared::default())
    }

    fn hold_revert(&self, _: &RevertPlan) -> Result<Hold, EngineError> {
        Ok(Hold::default())
    }

    /// What an earlier process captured is not known any more; then the content stays as it is.
    fn revert(&self, revert: &RevertPlan) -> Result<(), EngineError> {
        if self.pass_revert(revert, Step::Revert)? {
            let id = &revert.disk.id;
            if let Some(kept) = self.captured_generation(revert.set, revert.machine, id) {
                self.write(revert.machine, id, kept);
            }
        }
        Ok(())
    }

    fn top_reverted(&self, revert: &RevertPlan) -> Top {
        revert.old_top()
    }

    fn settle_revert(&self, revert: &RevertPlan) -> Result<(), EngineError> {
        self.pass_revert(revert, Step::SettleRevert).map(|_| ())
    }

    fn undo_revert(&self, revert: &RevertPlan) -> Result<(), EngineError> {
        self.pass_revert(revert, Step::UndoRevert).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::turn;
    use crate::id::JobId;

    fn sim(count: u32) -> (tempfile::TempDir, Arc<Sim>) {
        let dir = tempfile::tempdir().unwrap();
        let sim = Sim::new(dir.path(), count, Timestamp::UNIX_EPOCH).unwrap();
        (dir, sim)
    }

    #[test]
    fn machines_follow_from_their_number_alone() {
        let (_dir, sim) = sim(3);
        let all = sim.machines();
        let names: Vec<_> = all.values().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["sim-000001", "sim-000002", "sim-000003"]);
        let second = &all[&machine_id(2)];
        assert!(second.definition.is_file() && second.directory.is_dir());
        assert!(Arc::ptr_eq(&all, &sim.machines()), "one shared snapshot");
    }

    #[test]
    fn each_state_of_a_machine_is_published() {
        let (_dir, sim) = sim(2);
        let mut observed = sim.observe();
        let before = sim.observed();
        sim.set_state(machine_id(2), RunState::Paused);
        assert!(observed.has_changed().unwrap());
        let now = observed.borrow_and_update();
        let states = [1, 2].map(|number| now.state(machine_id(number)));
        assert_eq!(states, [RunState::Off, RunState::Paused]);
        assert!(Arc::ptr_eq(&now.machines, &before.machines));
        assert_eq!(before.state(machine_id(2)), RunState::Off);
    }

    #[test]
    fn a_hundred_thousand_machines_are_cheap_to_list() {
        let (_dir, sim) = sim(100_000);
        assert_eq!(sim.machines().len(), 100_000);
        let last = sim.machine(machine_id(100_000)).unwrap();
        assert_eq!(last.name, "sim-100000");
        sim.set_tops(last.id, &last.tops()).unwrap();
        assert!(
            Arc::ptr_eq(&last, &sim.machine(last.id).unwrap()),
            "nothing changed"
        );
    }

    #[test]
    fn the_turn_at_a_library_of_the_same_data_directory_is_its_turn() {
        let (dir, sim) = sim(1);
        std::fs::create_dir(dir.path().join(MACHINES)).unwrap();
        let other = turn::take(dir.path(), turn::PATIENCE, &|| false).unwrap();
        assert!(other.is_some());
        assert!(sim.turn(&|| true).unwrap().is_none(), "another has it");
        drop(other);
        assert!(sim.turn(&|| false).unwrap().is_some());
    }

    #[test]
    fn a_plan_that_cannot_be_read_tells_what_it_lacks() {
        fn why<T: serde::Serialize + serde::de::DeserializeOwned>(plan: &T, lacks: &str) -> String {
            let mut value = serde_json::to_value(plan).unwrap();
            value.as_object_mut().unwrap().remove(lacks).unwrap();
            let read = serde_json::from_value::<T>(value);
            read.err().unwrap().to_string()
        }
        let (_dir, sim) = sim(1);
        let (set, machine) = (SetId::from_u128(1), sim.machine(machine_id(1)).unwrap());
        let disk = &machine.disks[0];
        let plan = sim.plan(&machine, disk, set, None).unwrap().unwrap();
        sim.prepare(&plan).unwrap();
        sim.cut(&plan).unwrap();
        let kept = Capture::captured(&*sim, &plan);
        let revert = RevertRequest {
            job: JobId::from_u128(1),
            set,
            machine: &machine,
            disk,
            kept: &kept,
            shared: false,
        };
        let revert = sim.plan_revert(revert).unwrap();
        for lacks in ["new_file", "seen"] {
            for why in [why(&plan, lacks), why(&revert, lacks)] {
                assert!(why.contains(lacks), "{why}");
            }
        }
    }

    #[test]
    fn a_fault_is_served_at_its_step_as_often_as_ordered() {
        let (_dir, sim) = sim(2);
        let set = SetId::from_u128(1);
        let machine = sim.machine(machine_id(1)).unwrap();
        let plan = sim
            .plan(&machine, &machine.disks[0], set, None)
            .unwrap()
            .unwrap();
        let order = |step, trouble| {
            sim.order(Fault {
                machine: machine.id,
                disk: None,
                step,
                trouble,
                times: 1,
            });
        };
        order(Step::Prepare, Trouble::Fail(EngineErrorKind::Full));
        let error = sim.prepare(&plan).unwrap_err();
        assert_eq!(error.kind, EngineErrorKind::Full);
        assert!(error.text.english().contains("prepare"), "{error}");
        sim.prepare(&plan).unwrap();
        order(Step::Cut, Trouble::Lie);
        sim.cut(&plan).unwrap();
        assert!(sim.settle(&plan).is_err(), "a lie shows at settle");
        sim.write(machine.id, "disk0", 7);
        sim.cut(&plan).unwrap();
        sim.write(machine.id, "disk0", 8);
        sim.cut(&plan).unwrap();
        assert_eq!(sim.captured_generation(set, machine.id, "disk0"), Some(7));
    }

    #[test]
    fn what_hangs_fails_when_it_is_released() {
        let (_dir, sim) = sim(1);
        let machine = sim.machine(machine_id(1)).unwrap();
        sim.order(Fault {
            machine: machine.id,
            disk: None,
            step: Step::Hold,
            trouble: Trouble::Hang,
            times: 1,
        });
        std::thread::scope(|scope| {
            let held = scope.spawn(|| sim.hold(&machine));
            while sim.hanging() == 0 {
                std::thread::yield_now();
            }
            sim.release();
            assert!(held.join().unwrap().is_err());
        });
    }
}
