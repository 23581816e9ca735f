//! Simulated machines that run: the port [`Running`], with faults on order at each call.
//!
//! A machine that stands still has to be captured by whoever captures it, else the capture fails; and each call that has
//! an effect is noted, so that a test sees in which order machines were stopped, captured and let go.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;

use crate::engine::failure::At;
use crate::engine::running::{
    Described, Event, Fence, Graph, Node, QuiesceError, Quiesced, Running, ThawError,
};
use crate::engine::sim::{Caught, Key, Sim, Step, Trouble, World, key};
use crate::engine::{Compute, EngineError, EngineErrorKind, Live, Observed, Plan, Runner, Stamp};
use crate::id::VmId;
use crate::inventory::RunState;
use crate::text::catalog::engine as texts;

/// Events that nobody has taken yet.
const EVENTS: usize = 64;

/// What had an effect on a simulated machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Its guest was frozen.
    Frozen,
    /// It was stopped.
    Stopped,
    /// A disk was captured, by the machine or by the driver.
    Captured,
    /// It was let go.
    Resumed,
    /// Its guest was thawed.
    Thawed,
}

/// What the world knows of the machines that run.
#[derive(Clone, Default)]
pub(super) struct Guests {
    /// Those with an agent.
    agents: BTreeSet<VmId>,
    /// Those that are seen to run, and that nobody can ask for anything.
    unreached: BTreeSet<VmId>,
    frozen: BTreeSet<VmId>,
    /// Jobs at work on the disks of a machine.
    jobs: BTreeMap<VmId, Vec<String>>,
    /// Those that capture their disks themselves.
    takers: BTreeSet<VmId>,
    /// What they have opened for that.
    attached: BTreeSet<Key>,
    /// Those whose disks wait for the last step of an undo.
    blocked: BTreeSet<VmId>,
    /// Those whose agent this process keeps from others.
    held: BTreeSet<VmId>,
    /// Disks that have another size than their definition says, or are not in it.
    sizes: BTreeMap<(VmId, String), u64>,
    acts: Vec<(VmId, Act)>,
    /// Which process runs a machine, by a number.
    runners: BTreeMap<VmId, u64>,
    /// For how long a guest stays at rest that does not do so for long.
    lapse: Option<Duration>,
    /// By what others reach those that outlive the process.
    fences: BTreeMap<VmId, Arc<Fence>>,
}

impl Guests {
    pub(super) fn act(&mut self, id: VmId, act: Act) {
        self.acts.push((id, act));
    }

    /// What runs the machine has ended, and all that it had in memory is gone.
    pub(super) fn end(&mut self, id: VmId) {
        self.frozen.remove(&id);
        self.held.remove(&id);
        self.blocked.remove(&id);
        self.attached.retain(|(_, machine, _)| *machine != id);
    }
}

/// Where the events of a machine go.
pub(super) type Bells = BTreeMap<VmId, broadcast::Sender<Event>>;

impl Sim {
    /// Gives the guest of the machine an agent, or takes it.
    pub fn set_agent(&self, id: VmId, there: bool) {
        let mut world = self.world();
        match there {
            true => world.guests.agents.insert(id),
            false => world.guests.agents.remove(&id),
        };
    }

    /// Gives or takes the way to the machine; its state is seen all the same.
    pub fn set_reached(&self, id: VmId, reached: bool) {
        let mut world = self.world();
        match reached {
            true => world.guests.unreached.remove(&id),
            false => world.guests.unreached.insert(id),
        };
    }

    /// Whether the machine captures its disks itself instead of leaving them to the driver.
    pub fn set_taker(&self, id: VmId, takes: bool) {
        let mut world = self.world();
        match takes {
            true => world.guests.takers.insert(id),
            false => world.guests.takers.remove(&id),
        };
    }

    /// For how long guests stay at rest that [do not do so for long](Trouble::Lapses), instead of 8 s.
    pub fn set_lapse(&self, lapse: Duration) {
        self.world().guests.lapse = Some(lapse);
    }

    /// The machine outlives this process, and others reach it by this.
    pub fn set_fence(&self, id: VmId, fence: Fence) {
        self.world().guests.fences.insert(id, Arc::new(fence));
    }

    /// The process with this number runs the machine from now on.
    pub fn set_runner(&self, id: VmId, number: u64) {
        self.world().guests.runners.insert(id, number);
    }

    /// Somebody else lets the machine go on.
    pub fn go_on(&self, id: VmId) {
        let mut world = self.world();
        self.put_state(&mut world, id, RunState::Running);
        world.guests.act(id, Act::Resumed);
        drop(world);
        self.ring(id, Event::Resumed);
    }

    /// Somebody else freezes the guest.
    pub fn freeze(&self, id: VmId) {
        self.world().guests.frozen.insert(id);
    }

    /// The guest thaws without being asked to.
    pub fn unfreeze(&self, id: VmId) {
        self.world().guests.frozen.remove(&id);
    }

    /// How many disks are captured.
    #[must_use]
    pub fn captured(&self) -> usize {
        let world = self.world();
        let captured = world.plans.values();
        captured.filter(|it| matches!(it, Caught::Cut(_))).count()
    }

    /// Whether the guest is frozen.
    #[must_use]
    pub fn is_frozen(&self, id: VmId) -> bool {
        self.world().guests.frozen.contains(&id)
    }

    /// Whether this process keeps the agent of the guest from others.
    #[must_use]
    pub fn is_held(&self, id: VmId) -> bool {
        self.world().guests.held.contains(&id)
    }

    /// An undo has left the machine right before its last step: it writes nothing to its disks.
    pub fn block(&self, id: VmId) {
        self.world().guests.blocked.insert(id);
    }

    /// Whether the disks of the machine wait for that.
    #[must_use]
    pub fn is_blocked(&self, id: VmId) -> bool {
        self.world().guests.blocked.contains(&id)
    }

    /// A job is at work on disks of the machine.
    pub fn begin_job(&self, id: VmId, name: &str) {
        let mut world = self.world();
        world
            .guests
            .jobs
            .entry(id)
            .or_default()
            .push(name.to_owned());
    }

    /// Somebody resizes a disk of the running machine, or adds one.
    pub fn resize(&self, id: VmId, disk: &str, size: u64) {
        let mut world = self.world();
        world.guests.sizes.insert((id, disk.to_owned()), size);
    }

    /// How many disks machines have opened that they do not use yet or do not use any more.
    #[must_use]
    pub fn attached(&self) -> usize {
        self.world().guests.attached.len()
    }

    /// What had an effect on machines, in order.
    #[must_use]
    pub fn acts(&self) -> Vec<(VmId, Act)> {
        self.world().guests.acts.clone()
    }

    /// The machines as they are now, in a simulation of their own: what runs on while a process that works on them dies.
    /// Faults on order stay behind.
    #[must_use]
    pub fn fork(&self) -> Arc<Self> {
        let world = self.world();
        let mut guests = world.guests.clone();
        guests.held.clear(); // connections end with their process
        let world = World {
            faults: Vec::new(),
            hanging: 0,
            releases: 0,
            bells: Bells::new(),
            states: world.states.clone(),
            generations: world.generations.clone(),
            plans: world.plans.clone(),
            guests,
        };
        Self::of(
            Observed::clone(&self.observed()),
            self.library.clone(),
            world,
        )
    }

    /// A machine has a monitor as long as a process runs it.
    pub(super) fn monitor(&self, id: VmId) -> Option<Arc<dyn Running>> {
        let runs = !matches!(self.state(id), RunState::Off | RunState::Held)
            && !self.world().guests.unreached.contains(&id);
        let sim = self.me.upgrade().filter(|_| runs)?;
        Some(Arc::new(Monitor { sim, id }))
    }

    fn ring(&self, id: VmId, event: Event) {
        let bell = self.world().bell(id);
        let _nobody_listens = bell.send(event);
    }
}

impl World {
    fn bell(&mut self, id: VmId) -> broadcast::Sender<Event> {
        let new = || broadcast::channel(EVENTS).0;
        self.bells.entry(id).or_insert_with(new).clone()
    }

    /// Notes that the disk of a plan is captured, as it is now. What is captured already stays as it is.
    ///
    /// # Errors
    /// The machine runs meanwhile, or nothing was prepared.
    pub(super) fn capture(&mut self, plan: &Plan) -> Result<(), EngineError> {
        let failed =
            |message| At::plan(plan).error(EngineErrorKind::Failed, message, &plan.file().new_file);
        let content = (plan.machine, plan.disk.id.clone());
        let generation = self.generations.get(&content).copied().unwrap_or(0);
        let runs = self.states.get(&plan.machine) == Some(&RunState::Running);
        match self.plans.get_mut(&key(plan)) {
            Some(Caught::Cut(_)) => Ok(()),
            Some(Caught::Prepared) if runs => Err(failed(texts::NOT_STOPPED)),
            Some(capture) => {
                *capture = Caught::Cut(generation);
                self.guests.act(plan.machine, Act::Captured);
                Ok(())
            }
            None => Err(failed(texts::NOT_PREPARED)),
        }
    }
}

/// What is left to do at a call once the faults on order are served.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    /// All of it.
    All,
    /// Nothing, and it went well.
    Nothing,
    /// All of it, and somebody resumes the machine right afterwards.
    Resumed,
    /// All of it, and no answer before [`Sim::release`].
    Late,
    /// The same, and what is at rest does not stay so for long.
    Lapsed,
}

/// For how long a guest stays at rest that does not do so for long.
const LAPSE: Duration = Duration::from_secs(8);

/// The way to one machine.
struct Monitor {
    sim: Arc<Sim>,
    id: VmId,
}

impl Monitor {
    fn name(&self) -> String {
        let machine = self.sim.machine(self.id);
        machine.map_or_else(|| self.id.to_string(), |m| m.name.clone())
    }

    fn at(&self) -> At {
        At::new(self.name(), "*")
    }

    fn gone(&self) -> EngineError {
        self.at()
            .error(EngineErrorKind::Missing, texts::NO_MONITOR, Path::new(""))
    }

    /// Serves an order for this call.
    async fn call(&self, step: Step) -> Result<Left, EngineError> {
        if matches!(self.sim.state(self.id), RunState::Off | RunState::Held) {
            return Err(self.gone());
        }
        let Some(trouble) = self.sim.ordered(self.id, None, step) else {
            return Ok(Left::All);
        };
        let failed = |kind| Err(Sim::failed_on_order(&self.at(), step, kind));
        match trouble {
            Trouble::Fail(kind) => failed(kind),
            Trouble::Lie => Ok(Left::Nothing),
            Trouble::Late => Ok(Left::Late),
            Trouble::Resumed => Ok(Left::Resumed),
            Trouble::Lapses => Ok(Left::Lapsed),
            Trouble::Hang => {
                self.sim.stand().await;
                failed(EngineErrorKind::Failed)
            }
            Trouble::Dies => {
                let mut world = self.sim.world();
                self.sim.put_state(&mut world, self.id, RunState::Off);
                world.guests.end(self.id);
                drop(world);
                self.sim.ring(self.id, Event::ShutDown);
                Err(self.gone())
            }
        }
    }

    /// What happens once the work of a call is done.
    async fn done(&self, left: Left) -> Result<(), EngineError> {
        match left {
            Left::All | Left::Nothing | Left::Lapsed => Ok(()),
            Left::Resumed => {
                self.sim.go_on(self.id);
                Ok(())
            }
            Left::Late => {
                self.sim.stand().await;
                Ok(())
            }
        }
    }

    fn graph(&self) -> Graph {
        let machine = self.sim.machine(self.id);
        let disks = machine.iter().flat_map(|m| &m.disks);
        let mut graph: Graph = disks
            .map(|disk| {
                let node = Node {
                    file: disk.file.clone(),
                    size: disk.size,
                };
                (disk.id.clone(), node)
            })
            .collect();
        for ((id, disk), size) in &self.sim.world().guests.sizes {
            if *id == self.id {
                let new = || Node {
                    file: disk.into(),
                    size: 0,
                };
                graph.entry(disk.clone()).or_insert_with(new).size = *size;
            }
        }
        graph
    }
}

#[async_trait]
impl Running for Monitor {
    fn runner(&self) -> Runner {
        let runner = self.sim.world().guests.runners.get(&self.id).copied();
        let Some(number) = runner else {
            return Runner::default();
        };
        let stamp = Stamp {
            inode: number,
            ..Stamp::default()
        };
        Runner {
            sockets: [("/monitor".into(), stamp)].into(),
            ..Runner::default()
        }
    }

    async fn describe(&self) -> Result<Described, EngineError> {
        let left = self.call(Step::Describe).await?;
        let graph = self.graph();
        let state = self.sim.state(self.id);
        let (jobs, agent) = {
            let world = self.sim.world();
            let jobs = world.guests.jobs.get(&self.id).cloned();
            (jobs, world.guests.agents.contains(&self.id))
        };
        self.done(left).await?;
        Ok(Described {
            state,
            graph,
            jobs: jobs.unwrap_or_default(),
            agent,
            live: Live::default(),
            runner: self.runner(),
            obstacle: None,
        })
    }

    async fn state(&self) -> Result<RunState, EngineError> {
        let left = self.call(Step::Describe).await?;
        let state = self.sim.state(self.id);
        self.done(left).await?;
        Ok(state)
    }

    fn takes(&self, _: &Plan) -> bool {
        self.sim.world().guests.takers.contains(&self.id)
    }

    async fn attach(&self, plans: &[&Plan]) -> Result<(), EngineError> {
        let left = self.call(Step::Attach).await?;
        if left != Left::Nothing {
            let mut world = self.sim.world();
            let plans = plans.iter().map(|plan| key(plan));
            world.guests.attached.extend(plans);
        }
        self.done(left).await
    }

    async fn detach(&self, plans: &[&Plan]) -> Result<(), EngineError> {
        let left = self.call(Step::Detach).await?;
        if left != Left::Nothing {
            let mut world = self.sim.world();
            for plan in plans {
                world.guests.attached.remove(&key(plan));
                if let Some(capture) = world.plans.get_mut(&key(plan)) {
                    *capture = Caught::Prepared; // it is back on what it had
                }
            }
        }
        self.done(left).await
    }

    async fn quiesce(&self) -> Result<Quiesced, QuiesceError> {
        let left = self.call(Step::Quiesce).await;
        let left = left.map_err(QuiesceError::Failed)?;
        if left != Left::Nothing {
            let mut world = self.sim.world();
            if world.states.get(&self.id) != Some(&RunState::Running)
                || !world.guests.agents.contains(&self.id)
            {
                return Err(QuiesceError::Failed(self.gone()));
            }
            if !world.guests.frozen.insert(self.id) {
                world.guests.held.remove(&self.id);
                let kind = EngineErrorKind::Failed;
                let before = self.at().error(kind, texts::FROZEN_BEFORE, Path::new(""));
                return Err(QuiesceError::Untouched(before));
            }
            world.guests.held.insert(self.id);
            world.guests.act(self.id, Act::Frozen);
        }
        let lapses = left == Left::Lapsed;
        self.done(left).await.map_err(QuiesceError::Failed)?;
        Ok(Quiesced {
            count: 1,
            limit: lapses.then(|| self.sim.world().guests.lapse.unwrap_or(LAPSE)),
        })
    }

    async fn is_frozen(&self) -> Result<bool, EngineError> {
        let left = self.call(Step::IsFrozen).await?;
        if self.sim.state(self.id) != RunState::Running {
            return Err(self.gone()); // the agent runs in the guest
        }
        let frozen = self.sim.is_frozen(self.id);
        self.done(left).await?;
        if !frozen {
            self.sim.world().guests.held.remove(&self.id);
        }
        Ok(frozen)
    }

    async fn leave(&self) {
        let mut world = self.sim.world();
        if !world.guests.frozen.contains(&self.id) {
            world.guests.held.remove(&self.id);
        }
    }

    async fn thaw(&self) -> Result<(), ThawError> {
        let left = self.call(Step::Thaw).await;
        let left = left.map_err(ThawError::Frozen)?;
        if self.sim.state(self.id) != RunState::Running {
            return Err(ThawError::Frozen(self.gone()));
        }
        if left != Left::Nothing {
            let mut world = self.sim.world();
            if world.guests.frozen.remove(&self.id) {
                world.guests.act(self.id, Act::Thawed);
            }
        }
        let lapsed = left == Left::Lapsed;
        self.done(left).await.map_err(ThawError::Frozen)?;
        match lapsed {
            false => Ok(()),
            true => {
                let text = texts::NOT_HELD.with("machine", self.name());
                Err(ThawError::NotHeld(EngineError {
                    kind: EngineErrorKind::Failed,
                    text: text.with("cause", "it was thawed before"),
                }))
            }
        }
    }

    async fn stop(&self) -> Result<(RunState, Graph), EngineError> {
        let left = self.call(Step::Stop).await?;
        let before = self.sim.state(self.id);
        if left != Left::Nothing {
            let mut world = self.sim.world();
            let state = self.sim.put_state(&mut world, self.id, RunState::Paused);
            if state == Some(RunState::Running) {
                world.guests.act(self.id, Act::Stopped);
            }
        }
        self.done(left).await?;
        Ok((before, self.graph()))
    }

    async fn cut(&self, plans: &[&Plan]) -> Result<(), EngineError> {
        let left = self.call(Step::Transact).await?;
        if left != Left::Nothing {
            let mut world = self.sim.world();
            for plan in plans {
                if !world.guests.attached.contains(&key(plan)) {
                    return Err(self.gone());
                }
            }
            plans.iter().try_for_each(|plan| world.capture(plan))?;
        }
        self.done(left).await
    }

    async fn resume(&self) -> Result<(), EngineError> {
        let left = self.call(Step::Resume).await?;
        if left != Left::Nothing {
            let mut world = self.sim.world();
            let state = self.sim.put_state(&mut world, self.id, RunState::Running);
            if state == Some(RunState::Paused) {
                world.guests.act(self.id, Act::Resumed);
            }
        }
        self.done(left).await
    }

    async fn unblock(&self, plans: &[&Plan]) -> Result<(), EngineError> {
        let left = self.call(Step::Unblock).await?;
        if left != Left::Nothing && !plans.is_empty() {
            self.sim.world().guests.blocked.remove(&self.id);
        }
        self.done(left).await
    }

    async fn fence(&self, quiesces: bool, _: &[&Plan]) -> Result<Option<Fence>, EngineError> {
        if quiesces {
            self.sim.world().guests.held.insert(self.id);
        }
        let fence = self.sim.world().guests.fences.get(&self.id).cloned();
        let Some(fence) = fence else {
            return Ok(None);
        };
        let own = |connection: &OwnedFd| {
            let own = connection.try_clone();
            own.map_err(|e| self.at().io(Path::new(""), &e))
        };
        Ok(Some(Fence {
            monitor: own(&fence.monitor)?,
            monitor_sockets: fence.monitor_sockets.clone(),
            agent: fence.agent.as_ref().map(own).transpose()?,
            agent_socket: fence.agent_socket.clone(),
            runner: fence.runner.clone(),
            jobs: fence.jobs.clone(),
        }))
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.sim.world().bell(self.id).subscribe()
    }
}
