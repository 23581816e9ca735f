//! Members that are not off: what is looked at before a set of them is accepted, and what they open for it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::engine::{Described, EngineError, EngineErrorKind, Live, Plan, Running};
use crate::inventory::{Consistency, Machine, RunState};
use crate::snapshot::create::{Member, Runs};
use crate::snapshot::saga::accept::{self, Needs};
use crate::snapshot::saga::answer::Refused;
use crate::snapshot::saga::core::Core;
use crate::snapshot::saga::plan::refused;
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
    let (told, quiesces, frozen) = told.map_err(refused)?;
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
    let runs = Runs {
        goes_on: told.state == RunState::Running,
        quiesces,
        graph: told.graph,
        takes: BTreeSet::new(),
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

/// The disks that the machine captures itself.
pub(crate) fn taken(core: &Core, machine: &Machine, plans: &[Plan]) -> BTreeSet<String> {
    let monitor = core.deps.compute.running(machine.id);
    let takes = |plan: &&Plan| monitor.as_ref().is_some_and(|it| it.takes(plan));
    let taken = plans.iter().filter(takes);
    taken.map(|plan| plan.disk.id.clone()).collect()
}

/// Makes the files of a member known to the machine that will go on with them. Blocks.
///
/// # Errors
/// It cannot open them.
pub(super) fn attach(core: &Core, member: &Member) -> Result<(), EngineError> {
    let taken = member.taken();
    if taken.is_empty() {
        return Ok(());
    }
    let monitor = monitor(core, member)?;
    let monitor = monitor.ok_or_else(|| no_answer(&member.name))?;
    ask(core, &member.name, monitor.attach(&taken))
}

/// Has the machine forget them. One that nothing runs any more has forgotten them. Blocks.
///
/// # Errors
/// It is tried again.
pub(super) fn detach(core: &Core, member: &Member) -> Result<(), EngineError> {
    let taken = member.taken();
    if taken.is_empty() {
        return Ok(());
    }
    match monitor(core, member)? {
        Some(monitor) => ask(core, &member.name, monitor.detach(&taken)),
        None => Ok(()),
    }
}

/// The way to a member; none if it is off. Blocks.
///
/// # Errors
/// It is not off, and there is no way to it.
pub(super) fn monitor(
    core: &Core,
    member: &Member,
) -> Result<Option<Arc<dyn Running>>, EngineError> {
    let compute = &core.deps.compute;
    if let Some(monitor) = compute.running(member.machine) {
        return Ok(Some(monitor));
    }
    match (
        compute.state(member.machine),
        compute.running(member.machine),
    ) {
        (RunState::Off, _) => Ok(None),
        (_, Some(monitor)) => Ok(Some(monitor)),
        (_, None) => Err(no_answer(&member.name)),
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
