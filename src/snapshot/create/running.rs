//! Members that are not off: what is looked at before a set of them is accepted, and what they open for it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::engine::{At, Described, EngineError, EngineErrorKind, Live, Plan, Running};
use crate::inventory::{Consistency, Machine, RunState};
use crate::snapshot::create::{Create, Member, Runs};
use crate::snapshot::saga::accept::{self, Needs};
use crate::snapshot::saga::answer::Refused;
use crate::snapshot::saga::core::Core;
use crate::snapshot::saga::operation::Operation;
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
pub(super) fn attach(core: &Core, member: &Member) -> Result<(), EngineError> {
    let taken = member.taken();
    if taken.is_empty() {
        return Ok(());
    }
    let monitor = monitor(core, member)?;
    let monitor = monitor.ok_or_else(|| no_answer(&member.name))?;
    ask(core, &member.name, monitor.attach(&taken))
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
    let taken = member.taken();
    if taken.is_empty() {
        return Ok(BTreeSet::new());
    }
    let machine = operation.present(member.machine, &member.name, &member.definition.from)?;
    let tops = machine.as_ref().map(|machine| machine.tops());
    let (mut stay, mut rest) = (BTreeMap::new(), Vec::new());
    for plan in taken {
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
        let monitor = monitor(core, member)?;
        match (&monitor, &machine) {
            (Some(monitor), _) => ask(core, &member.name, monitor.detach(&rest))?,
            (None, Some(machine)) => operation.hold(machine)?, // nobody starts it while that is decided
            (None, None) => {}
        }
        let ended = monitor.is_none() && machine.is_some();
        let (mut goes_on, mut alone) = (BTreeMap::new(), BTreeMap::new());
        for plan in rest {
            if let Some(top) = drivers.of(plan)?.outlived(plan)? {
                let disk = plan.disk.id.clone();
                let stale = operation.kind.stale();
                match ended && !stale.contains(&(member.machine, disk.clone())) {
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
