//! Members that are not off: what is looked at before a set of them is accepted, and what they open for it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::engine::{
    At, Compute, Described, EngineError, EngineErrorKind, Live, Plan, Runner, Running, Stopped,
};
use crate::inventory::{Consistency, Machine, RunState};
use crate::snapshot::create::{Create, Member, Record, Runs};
use crate::snapshot::saga::accept::{self, Needs};
use crate::snapshot::saga::answer::Refused;
use crate::snapshot::saga::core::Core;
use crate::snapshot::saga::operation::Operation;
use crate::snapshot::saga::window::within;
use crate::text::catalog::snapshot as texts;
use crate::text::{Message, Text};

/// How long a machine may take for an answer while it runs.
const ANSWER: Duration = Duration::from_secs(30);

/// What a create and a check need of a machine: that it is off, or that there is a way to capture it as it is. `gone` is
/// said if it is not there.
pub(crate) fn needs(gone: Text, consistency: Consistency) -> Needs {
    match consistency {
        Consistency::Application => Needs::new(gone, at_rest),
        Consistency::Crash => Needs::new(gone, as_it_is),
    }
}

/// What is said of one that cannot be captured as after a power cut.
fn as_it_is(state: RunState) -> Option<Message> {
    match state {
        RunState::Off | RunState::Running | RunState::Paused => None,
        RunState::Held => Some(texts::MEMBER_RUNNING),
        RunState::Troubled(_) => Some(texts::MEMBER_TROUBLED),
    }
}

/// What is said of one whose applications cannot be brought to rest.
fn at_rest(state: RunState) -> Option<Message> {
    match state {
        RunState::Paused => Some(texts::MEMBER_PAUSED),
        state => as_it_is(state),
    }
}

/// What a machine that is not off is captured from, and what drivers need to know of it; nothing if it is off. Blocks.
///
/// # Errors
/// It cannot be captured now, and why.
pub(crate) fn look(
    core: &Core,
    machine: &Machine,
    consistency: Consistency,
) -> Result<Option<(Runs, Live)>, Refused> {
    let invalid = |text: Text| Err(Refused::InvalidState(text));
    let named = |message: Message| message.with("machine", &machine.name);
    let Some(monitor) = core.deps.compute.running(machine.id) else {
        // Whatever is known of one that is not off, nobody can have it stand still.
        return match core.deps.compute.state(machine.id) {
            RunState::Off => Ok(None),
            state => invalid(named(texts::MEMBER_RUNNING).with("state", accept::named(state))),
        };
    };
    let wants_rest = consistency == Consistency::Application;
    let told = ask(core, &machine.name, async {
        let told = monitor.describe().await?;
        let quiesces = wants_rest && told.state == RunState::Running;
        let frozen = quiesces && told.agent && monitor.is_frozen().await?;
        Ok((told, quiesces, frozen))
    });
    // What a machine or its guest does not tell, or tells wrong, is no failure of this server.
    let (told, quiesces, frozen) = told.map_err(|error| Refused::InvalidState(error.text))?;
    if told.state == RunState::Off {
        return Ok(None);
    }
    let way = match wants_rest {
        true => at_rest(told.state),
        false => as_it_is(told.state),
    };
    if let Some(way) = way {
        return invalid(named(way).with("state", accept::named(told.state)));
    }
    if quiesces && !told.agent {
        return invalid(named(texts::MEMBER_NO_AGENT));
    }
    if frozen {
        return invalid(named(texts::MEMBER_FROZEN));
    }
    if let Some(obstacle) = told.obstacle {
        return invalid(obstacle);
    }
    if let Some(job) = told.jobs.first() {
        return invalid(named(texts::MEMBER_JOBS).with("job", job));
    }
    if let Some(disk) = differing(machine, &told) {
        return invalid(named(texts::MEMBER_DISKS).with("disk", disk));
    }
    if told.runner.process.is_none() && told.runner != Runner::default() {
        tracing::info!(
            machine = machine.name,
            "Which process runs the machine cannot be told: it is known by its sockets alone"
        );
    }
    let runs = Runs {
        goes_on: told.state == RunState::Running,
        quiesces,
        graph: told.graph,
        takes: BTreeSet::new(),
        runner: Some(told.runner).filter(|it| *it != Runner::default()),
        sockets: Some(machine.sockets.clone()).filter(|it| !it.qmp.is_empty()),
    };
    Ok(Some((runs, told.live)))
}

/// The first disk that the machine does not have as its definition says, or has beside it.
fn differing(machine: &Machine, told: &Described) -> Option<String> {
    let disks = machine.disks.iter();
    let mut changed = disks.filter(|disk| {
        let node = told.graph.get(&disk.id);
        node.is_none_or(|node| node.file != disk.file || node.size != disk.size)
    });
    let is_known = |id: &&String| machine.disks.iter().any(|disk| disk.id == **id);
    let unknown = || told.graph.keys().find(|id| !is_known(id)).cloned();
    changed.next().map(|disk| disk.id.clone()).or_else(unknown)
}

/// Whether the machine captures a disk itself.
///
/// # Errors
/// It would have to, and cannot: afterwards it has another file, with which only it can go on.
pub(crate) fn takes(core: &Core, plan: &Plan) -> Result<bool, EngineError> {
    let monitor = core.deps.compute.running(plan.machine);
    if monitor.is_some_and(|monitor| monitor.takes(plan)) {
        return Ok(true);
    }
    match core.deps.storage.of(plan)?.top_after(plan).file == plan.disk.file {
        true => Ok(false),
        false => Err(EngineError {
            kind: EngineErrorKind::Unsupported,
            text: At::plan(plan).text(texts::MEMBER_NOT_CLONED, &plan.disk.file),
        }),
    }
}

/// Makes the files of a member known to the machine that will go on with them. Blocks.
///
/// # Errors
/// It cannot open them.
pub(super) fn attach(operation: &Operation<Create>, member: &Member) -> Result<(), EngineError> {
    let (core, create) = (&operation.core, &operation.kind);
    let taken = member.taken();
    if taken.is_empty() {
        return Ok(());
    }
    match Sought::of(core, create, member).find(&*core.deps.compute)? {
        Found::Runs(monitor) => ask(core, &member.name, monitor.attach(&taken)),
        Found::Ended => Err(has_ended(&member.name)),
    }
}

/// Has the machine go back to its old files and forget the new ones; the disks whose new files stay. Those are files that
/// the machine has written to, and that were not put back: what they hold is nowhere else. If nothing runs the machine any
/// more, such a file becomes the active one, and the old one a hidden layer under it. Blocks.
///
/// # Errors
/// It is tried again.
pub(super) fn go_back(
    operation: &Operation<Create>,
    member: &Member,
) -> Result<BTreeSet<String>, EngineError> {
    let (core, drivers) = (&operation.core, operation.drivers());
    let frozen = member.plans.iter().filter(|plan| !plan.is_off());
    let frozen = frozen.map(|plan| Ok(drivers.of(plan)?.captured(plan).file));
    let frozen = frozen.collect::<Result<Vec<_>, EngineError>>()?;
    core.deps
        .frozen
        .release(frozen.iter().map(PathBuf::as_path));
    // What is decided is looked for no more.
    let is_decided = operation.kind.decided().contains(&member.machine);
    let made = |plan| operation.kind.made(plan).filter(|_| !is_decided);
    let taken = member.taken().into_iter();
    let taken: Vec<_> = taken
        .map(|plan| plan.clone().with_made(made(plan)))
        .collect();
    if taken.is_empty() {
        return Ok(BTreeSet::new());
    }
    let machine = operation.present(member.machine, &member.name, &member.definition.from)?;
    let tops = machine.as_ref().map(|machine| machine.tops());
    let (mut stay, mut rest) = (BTreeMap::new(), Vec::new());
    for plan in &taken {
        let new = drivers.of(plan)?.top_after(plan);
        let is_active = tops.as_ref().and_then(|tops| tops.get(&plan.disk.id)) == Some(&new);
        if is_active && new.file != plan.disk.file {
            stay.insert(plan.disk.id.clone(), (texts::OUTLIVED, new)); // an earlier attempt left it so
        } else {
            drivers.of(plan)?.reopen(plan)?;
            rest.push(plan);
        }
    }
    if !rest.is_empty() {
        let sought = Sought::of(core, &operation.kind, member);
        let found = sought.find(&*core.deps.compute)?;
        let mut is_off = false;
        match (&found, &machine) {
            (Found::Runs(monitor), _) => ask(core, &member.name, monitor.detach(&rest))?,
            (Found::Ended, Some(machine)) => is_off = close(operation, machine)?,
            (Found::Ended, None) => {}
        }
        rest.iter()
            .try_for_each(|plan| require_there(operation, plan, &found))?;
        if matches!(found, Found::Ended) {
            close_new(operation, &rest)?;
        }
        let (mut goes_on, mut alone) = (BTreeMap::new(), BTreeMap::new());
        for plan in rest {
            if let Some(top) = drivers.of(plan)?.outlived(plan)? {
                let disk = plan.disk.id.clone();
                let stale = operation.kind.stale();
                match is_off && !stale.contains(&(member.machine, disk.clone())) {
                    true => goes_on.insert(disk, top),
                    false => alone.insert(disk, top),
                };
            }
        }
        if !goes_on.is_empty() {
            operation.compute().set_tops(member.machine, &goes_on)?;
        }
        let told = |what| move |(disk, top)| (disk, (what, top));
        stay.extend(goes_on.into_iter().map(told(texts::OUTLIVED)));
        stay.extend(alone.into_iter().map(told(texts::NOT_PUT_BACK)));
    }
    for (disk, (what, top)) in &stay {
        let text = what.with("machine", &member.name).with("disk", disk);
        operation.kind.stays(text.with("file", top.file.display()));
    }
    Ok(stay.into_keys().collect())
}

/// Refuses to go on where the new file of a plan is not at its place any more, and may hold what is nowhere else; or where
/// another one stands there, which is not ours to remove.
fn require_there(
    operation: &Operation<Create>,
    plan: &Plan,
    found: &Found,
) -> Result<(), EngineError> {
    let driver = operation.drivers().of(plan)?;
    let there = driver.new_there(plan)?;
    let made = operation.kind.made(plan);
    if !made.is_some_and(|made| there.lacks(made)) {
        return Ok(());
    }
    let file = driver.top_after(plan).file;
    let says = |message: Message| At::plan(plan).text(message, &file);
    let missing = |text| EngineError {
        kind: EngineErrorKind::Missing,
        text,
    };
    if there.file.is_some() {
        return Err(missing(says(texts::NEW_REPLACED)));
    }
    // It is removed, or was put back and its machine has forgotten it.
    let is_decided = operation.kind.decided().contains(&plan.machine);
    match found {
        Found::Ended if !is_decided && !there.is_stale => Err(missing(says(texts::NEW_AWAY))),
        _ if is_decided => Ok(()),
        _ => {
            operation.kind.stays(says(texts::PUT_BACK_AWAY));
            Ok(())
        }
    }
}

/// Records that it is decided which of the new files of a machine stay, so that a process that finds the others gone does
/// not look for them.
///
/// # Errors
/// It cannot be recorded.
pub(super) fn decide(operation: &Operation<Create>, member: &Member) -> Result<(), EngineError> {
    let machine = member.machine;
    if !operation.kind.all_made().contains_key(&machine)
        || operation.kind.decided().contains(&machine)
    {
        return Ok(());
    }
    match operation.record(&Record::Decided { machine }) {
        // Room is what the undo makes.
        Err(error) if error.kind == EngineErrorKind::Full => {
            tracing::warn!(%machine, %error, "It is not recorded which of its files stay");
        }
        recorded => recorded?,
    }
    operation.kind.decided().insert(machine);
    Ok(())
}

/// What has become of what ran a member when its set was accepted.
pub(super) enum Found {
    /// It is there.
    Runs(Arc<dyn Running>),
    /// It has ended, whoever runs the machine now.
    Ended,
}

/// What ran a member then, to be looked for: nobody else is told anything in its place.
#[derive(Debug, Clone)]
pub(super) struct Sought {
    stopped: Stopped,
    runner: Option<Runner>,
}

impl Sought {
    /// What ran this member, whose monitor is watched from now on until the operation is over.
    pub(super) fn of(core: &Core, create: &Create, member: &Member) -> Self {
        let runs = member.runs.as_ref();
        let runner = runs.and_then(|runs| runs.runner.clone());
        let sockets = runs.and_then(|runs| runs.sockets.clone());
        let (mut files, mut new_files) = (Vec::new(), Vec::new());
        for plan in &member.plans {
            let [_, new] = plan.names();
            files.push(plan.disk.file.clone());
            // One that was made is there until it is decided that it may go.
            let is_there = create.made(plan).is_some();
            match is_there && !create.decided().contains(&member.machine) {
                true => files.push(new),
                false => new_files.push(new),
            }
        }
        let stopped = Stopped {
            machine: member.machine,
            name: member.name.clone(),
            sockets: sockets.unwrap_or_default(),
            runner: runner.clone().unwrap_or_default(),
            files,
            new_files,
        };
        if runs.is_some() {
            create.follow(&*core.deps.compute, &stopped);
        }
        Self { stopped, runner }
    }

    /// By the monitor of the machine; nothing if nobody is there. Waits for nothing.
    ///
    /// # Errors
    /// It lives, and another one is there in its place.
    pub(super) fn at_monitor(&self, compute: &dyn Compute) -> Result<Option<Found>, EngineError> {
        let Some(monitor) = compute.at_monitor(&self.stopped) else {
            return Ok(None);
        };
        let Some(runner) = &self.runner else {
            return Ok(Some(Found::Runs(monitor)));
        };
        match runner.is(&monitor.runner()) {
            Some(false) if runner.lives() => Err(EngineError {
                kind: EngineErrorKind::Silent,
                text: texts::RUNNER_UNREACHED.with("machine", &self.stopped.name),
            }),
            Some(false) => Ok(Some(Found::Ended)),
            Some(true) | None => Ok(Some(Found::Runs(monitor))),
        }
    }

    /// The same by all that is seen of the machine. Blocks.
    ///
    /// # Errors
    /// There is no way to it, and it is not certain that it has ended.
    pub(super) fn find(&self, compute: &dyn Compute) -> Result<Found, EngineError> {
        if let Some(found) = self.at_monitor(compute)? {
            return Ok(found);
        }
        if self.runner.as_ref().is_some_and(Runner::has_ended) {
            return Ok(Found::Ended);
        }
        // At a start nobody has a monitor before the state is known.
        match (compute.has_ended(&self.stopped), self.at_monitor(compute)?) {
            (true, _) => Ok(Found::Ended),
            (false, Some(found)) => Ok(found),
            (false, None) => Err(no_answer(&self.stopped.name)),
        }
    }
}

/// Keeps everybody from the old files of a machine that has ended, until it is decided what becomes of the new ones. Whether
/// it is off: another process may have them by now, which the job tells. Blocks.
fn close(operation: &Operation<Create>, machine: &Machine) -> Result<bool, EngineError> {
    match operation.hold_ended(machine) {
        Err(error) if error.kind == EngineErrorKind::Locked => {
            operation.kind.stays(error.text);
            Ok(false)
        }
        held => held.map(|()| true),
    }
}

/// The same for the new ones.
///
/// # Errors
/// Somebody has one.
fn close_new(operation: &Operation<Create>, plans: &[&Plan]) -> Result<(), EngineError> {
    for plan in plans {
        let driver = operation.drivers().of(plan)?;
        let new = driver.top_after(plan).file;
        if new != plan.disk.file {
            operation.hold_also(plan.machine, &new, || driver.hold_new(plan))?;
        }
    }
    Ok(())
}

/// If what ran a member has ended: keeps everybody from starting it on files of which it is not decided yet whether a set
/// keeps them. Of one whose disks are all cloned none is. Blocks.
///
/// # Errors
/// Somebody has such a file.
pub(super) fn close_ended(
    operation: &Operation<Create>,
    member: &Member,
) -> Result<(), EngineError> {
    let taken = member.taken();
    match taken.is_empty() {
        true => Ok(()),
        false => close_if_ended(operation, member).map(drop),
    }
}

/// The same of all its active files, at once; whether it has ended. Blocks.
///
/// # Errors
/// Somebody has one of them.
pub(super) fn close_if_ended(
    operation: &Operation<Create>,
    member: &Member,
) -> Result<bool, EngineError> {
    let sought = Sought::of(&operation.core, &operation.kind, member);
    let found = sought.find(&*operation.core.deps.compute);
    if !matches!(found, Ok(Found::Ended)) {
        return Ok(false); // it runs, or its own locks keep others away
    }
    let machine = operation.present(member.machine, &member.name, &member.definition.from)?;
    if let Some(machine) = machine {
        operation.hold_ended(&machine)?;
    }
    close_new(operation, &member.taken())?;
    Ok(true)
}

/// That what was to be captured is not there any more.
pub(super) fn has_ended(machine: &str) -> EngineError {
    EngineError {
        kind: EngineErrorKind::Failed,
        text: texts::HAS_ENDED.with("machine", machine),
    }
}

/// That a machine does not answer.
pub(super) fn no_answer(machine: &str) -> EngineError {
    EngineError {
        kind: EngineErrorKind::Silent,
        text: texts::NO_ANSWER.with("machine", machine),
    }
}

/// Waits on this thread for an answer of a machine.
fn ask<T>(
    core: &Core,
    machine: &str,
    answer: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, EngineError> {
    let answer = Handle::current().block_on(within(core, ANSWER, answer));
    answer.unwrap_or_else(|| Err(no_answer(machine)))
}
