//! The window of a create: members that run are brought to rest, stopped, captured and let go, all at once.
//!
//! ```text
//!   [freeze] ▶ stop and compare ▶ capture: machines, then drivers ▶ word CUT ▶ resume ▶ thaw
//! ```
//!
//! Each arrow is a barrier: nobody goes over it before all are there, so all are captured while all stand still.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures_util::future::{self, BoxFuture};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::oneshot;

use crate::engine::{
    At, Dues, EngineError, EngineErrorKind, Event, Fence, Graph, Plan, QuiesceError, Quiesced,
    Running, ThawError,
};
use crate::id::VmId;
use crate::inventory::{RunState, Trouble};
use crate::snapshot::create::running::{self, Found, Sought, has_ended, no_answer};
use crate::snapshot::create::{Create, Member, Runs};
use crate::snapshot::saga::accept;
use crate::snapshot::saga::core::Core;
use crate::snapshot::saga::guard::wire::Ward;
use crate::snapshot::saga::kind::{Fenced, Freeing};
use crate::snapshot::saga::operation::Operation;
use crate::snapshot::saga::window::{Frame, RELEASE, Released, within};
use crate::snapshot::saga::word::Note;
use crate::text::catalog::snapshot as texts;
use crate::text::{Message, Text};

/// So long the guests of others stay frozen for a machine that does not go on at once.
const SWIFT: Duration = Duration::from_millis(500);

/// The fail points within a window, in the order in which they are passed. Only a set with members that run passes them.
pub const WINDOW_FAILPOINTS: [&str; 12] = [
    "create.freeze.before",
    "create.freeze.after",
    "create.stop.before",
    "create.stop.after",
    "create.capture.before",
    "create.capture.after",
    "create.word.before",
    "create.word.after",
    "create.resume.before",
    "create.resume.after",
    "create.thaw.before",
    "create.thaw.after",
];

/// How often it is looked whether what told of its end has ended.
const GLANCE: Duration = Duration::from_millis(5);

/// A member that runs or is paused, as it was found before the window.
struct Guest {
    /// Its place among the members.
    place: usize,
    machine: Arc<dyn Running>,
    events: Receiver<Event>,
}

/// All of them.
pub(crate) struct Guests(Vec<Guest>);

/// The same with what is known of it.
struct Seen<'a> {
    number: usize,
    member: &'a Member,
    runs: &'a Runs,
    machine: Arc<dyn Running>,
    events: Receiver<Event>,
}

type Done = Result<(), EngineError>;

/// Goes through the window.
pub(super) fn run(frame: Frame<Create>, guests: Guests) -> BoxFuture<'static, Done> {
    Box::pin(async move {
        let through = through(&frame, guests).await;
        through.map_err(|error| somebody_has(&frame.operation().kind).unwrap_or(error))
    })
}

/// Why the files of a machine that has ended meanwhile are not kept from others: it says more than that it has.
fn somebody_has(create: &Create) -> Option<EngineError> {
    create.standing().taken.values().next().cloned()
}

fn through(frame: &Frame<Create>, guests: Guests) -> BoxFuture<'_, Done> {
    Box::pin(async move {
        let operation = frame.operation();
        let (core, create) = (&*operation.core, &operation.kind);
        let mut guests = seen(create, guests.0);
        let left = left(core, &guests)?;
        frame.pass("freeze", "before")?;
        frame.bounded(freeze(frame, &guests)).await?;
        frame.pass("freeze", "after")?;
        frame.pass("stop", "before")?;
        frame.bounded(stop(frame, &guests)).await?;
        frame.pass("stop", "after")?;
        frame.pass("capture", "before")?;
        frame.bounded(capture(frame, &guests)).await?;
        frame.pass("capture", "after")?;
        frame.pass("word", "before")?;
        let told = frame.bounded(told(&guests)).await;
        guests.iter_mut().try_for_each(undisturbed)?;
        told?;
        somebody_has(create).map_or(Ok(()), Err)?;
        frame.commit()?;
        frame.pass("word", "after")?;
        // From here on a machine that does not go on is waited for: the set stands.
        frame.pass("resume", "before")?;
        let (stopped, frozen) = standing(create);
        let free = |id| frame.operation().is_free(id);
        let swift = |id| resume(core, create, id, (Look::Afterwards, SWIFT), &free);
        let _waited_for = future::join_all(stopped.into_iter().map(swift)).await;
        // From here on something else may have an old file, if its machine ends.
        let frozen_files = Arc::clone(&core.deps.frozen);
        let kept = frame.apart(move || frozen_files.take_over([], &left));
        frame.pass("resume", "after")?;
        frame.pass("thaw", "before")?;
        let (slow, _) = standing(create);
        let frozen = frozen.difference(&slow);
        let frozen = frozen.map(|id| thaw(core, create, *id, &free));
        let kept = within(core, RELEASE, kept);
        let _waited_for = future::join(future::join_all(frozen), kept).await;
        frame.pass("thaw", "after")
    })
}

/// Finds the members that will stand still, and what the guard is given of those that outlive this process.
pub(super) fn fences<'a>(
    core: &'a Core,
    create: &'a Create,
) -> BoxFuture<'a, Result<Fenced<Create>, EngineError>> {
    Box::pin(async move {
        let guests = guests(core, create)?;
        let each = guests.iter().map(|guest| async move {
            let Some((member, runs)) = known(create, guest) else {
                return Ok(None);
            };
            let dues = Dues {
                goes_on: runs.goes_on,
                thaws: runs.quiesces,
            };
            let ward = Ward {
                machine: member.machine,
                name: member.name.clone(),
                dues,
            };
            let taken = member.taken();
            let fence = guest.machine.fence(runs.quiesces, &taken);
            let fence = within(core, RELEASE, fence).await;
            let fence = fence.unwrap_or_else(|| Err(no_answer(&member.name)))?;
            Ok(fence.map(|fence| {
                let runner = runs.runner.clone().unwrap_or_default();
                (ward, Fence { runner, ..fence })
            }))
        });
        let each = future::join_all(each).await;
        let wards = each.into_iter().filter_map(Result::transpose);
        let wards = wards.collect::<Result<_, EngineError>>()?;
        let guests = Guests(guests);
        Ok(Fenced { wards, guests })
    })
}

/// Closes the files of each member that ends, as soon as it has.
pub(super) fn keep(operation: Arc<Operation<Create>>, guests: &Guests) -> BoxFuture<'static, ()> {
    let each = guests.0.iter().map(move |guest| {
        let events = guest.events.resubscribe();
        closed_in_time(Arc::clone(&operation), guest.place, events)
    });
    let each = future::join_all(each.collect::<Vec<_>>());
    Box::pin(async move { drop(each.await) })
}

async fn closed_in_time(
    operation: Arc<Operation<Create>>,
    place: usize,
    mut events: Receiver<Event>,
) {
    loop {
        match events.recv().await {
            Ok(Event::ShutDown) | Err(RecvError::Closed) => break,
            Ok(_) | Err(RecvError::Lagged(_)) => {}
        }
    }
    // It may only have shut its guest down, or be on its way.
    loop {
        let own = Arc::clone(&operation);
        let closed = tokio::task::spawn_blocking(move || {
            let member = own.kind.intent.members.get(place);
            let closed = member.map_or(Ok(true), |it| running::close_if_ended(&own, it));
            if let (Err(error), Some(member)) = (&closed, member) {
                let mut standing = own.kind.standing();
                standing.taken.insert(member.machine, error.clone());
            }
            !matches!(closed, Ok(false))
        });
        if closed.await.unwrap_or(true) {
            return;
        }
        tokio::time::sleep(GLANCE).await;
    }
}

/// The files that machines leave when they are captured, which are kept.
fn left(core: &Core, guests: &[Seen<'_>]) -> Result<BTreeMap<PathBuf, At>, EngineError> {
    let taken = guests.iter().flat_map(|guest| guest.member.taken());
    let left = taken.map(|plan| {
        let file = core.deps.storage.of(plan)?.captured(plan).file;
        Ok((file, At::plan(plan)))
    });
    left.collect()
}

/// Lets every machine go on, and then its guest, all at once: none waits for another one. Whoever may freeze its guest again
/// has the agent from then on.
pub(super) fn release<'a>(
    core: &'a Core,
    create: &'a Create,
    free: Freeing<'a>,
) -> BoxFuture<'a, Released> {
    Box::pin(async move {
        let standing = create.standing().clone();
        let members = create.intent.members.iter().map(|member| member.machine);
        members.filter(|id| standing.is_free(*id)).for_each(free);
        let standing = &standing;
        let members = create.intent.members.iter();
        let each = members.filter_map(|member| Some((member, member.runs.as_ref()?)));
        let each = each.map(|(member, runs)| async move {
            let id = member.machine;
            if standing.stopped.contains(&id) {
                resume(core, create, id, (Look::Before, RELEASE), free).await?;
            }
            if standing.blocked.contains(&id) {
                unblock(core, create, member).await?; // before its guest is asked to write
            }
            if standing.frozen.contains_key(&id) {
                thaw(core, create, id, free).await?;
            }
            if runs.quiesces
                && let Some(machine) = core.deps.compute.running(id)
            {
                let _busy = within(core, RELEASE, machine.leave()).await;
            }
            Done::Ok(())
        });
        let each = future::join_all(each).await;
        Released {
            failed: each.into_iter().filter_map(Done::err).collect(),
            standing: create.standing().clone(),
        }
    })
}

/// The machines that were stopped, and those whose guest was frozen.
fn standing(create: &Create) -> (BTreeSet<VmId>, BTreeSet<VmId>) {
    let standing = create.standing();
    let frozen = standing.frozen.keys().copied().collect();
    (standing.stopped.clone(), frozen)
}

fn guests(core: &Core, create: &Create) -> Result<Vec<Guest>, EngineError> {
    let members = create.intent.members.iter().enumerate();
    let guests = members.filter(|(_, member)| member.runs.is_some());
    let guests = guests.map(|(place, member)| {
        let sought = Sought::of(core, create, member);
        let found = sought.at_monitor(&*core.deps.compute)?;
        let machine = match found {
            Some(Found::Runs(machine)) => machine,
            Some(Found::Ended) => return Err(has_ended(&member.name)),
            None => return Err(no_answer(&member.name)),
        };
        Ok(Guest {
            place,
            events: machine.events(),
            machine,
        })
    });
    guests.collect()
}

fn known<'a>(create: &'a Create, guest: &Guest) -> Option<(&'a Member, &'a Runs)> {
    let member = create.intent.members.get(guest.place)?;
    Some((member, member.runs.as_ref()?))
}

fn seen(create: &Create, guests: Vec<Guest>) -> Vec<Seen<'_>> {
    let seen = guests.into_iter().filter_map(|guest| {
        let (member, runs) = known(create, &guest)?;
        Some(Seen {
            number: guest.place,
            member,
            runs,
            machine: guest.machine,
            events: guest.events,
        })
    });
    seen.collect()
}

/// Everyone is waited for, also after a failure; the first one counts.
async fn all(work: impl Iterator<Item = impl Future<Output = Done>>) -> Done {
    let done = future::join_all(work).await;
    done.into_iter().collect()
}

async fn freeze(frame: &Frame<Create>, guests: &[Seen<'_>]) -> Done {
    let create = &frame.operation().kind;
    let quiesced = guests.iter().filter(|guest| guest.runs.quiesces);
    all(quiesced.map(|guest| async {
        let id = guest.member.machine;
        create.standing().frozen.insert(id, false);
        match guest.machine.quiesce().await {
            Ok(Quiesced { count: 0, .. }) => Err(of(guest.member, texts::NOTHING_FROZEN)),
            Ok(Quiesced { limit, .. }) => {
                limit.into_iter().for_each(|limit| frame.shorten(limit));
                Ok(())
            }
            Err(QuiesceError::Untouched(error)) => {
                create.standing().frozen.remove(&id); // not ours to thaw
                Err(error)
            }
            Err(QuiesceError::Failed(error)) => Err(error),
        }
    }))
    .await
}

async fn stop(frame: &Frame<Create>, guests: &[Seen<'_>]) -> Done {
    let create = &frame.operation().kind;
    all(guests.iter().map(|guest| async {
        if guest.runs.goes_on {
            create.standing().stopped.insert(guest.member.machine);
        }
        let (before, graph) = guest.machine.stop().await?;
        let wanted = match guest.runs.goes_on {
            true => RunState::Running,
            false => RunState::Paused,
        };
        if before != wanted {
            stood_already(frame, guest, before);
            let text = texts::STANDS_ALREADY.with("machine", &guest.member.name);
            return Err(failed(text.with("state", accept::named(before))));
        }
        match differing(&guest.runs.graph, &graph) {
            None => Ok(()),
            Some(disk) => {
                let text = texts::GRAPH_CHANGED.with("machine", &guest.member.name);
                Err(failed(text.with("disk", disk)))
            }
        }
    }))
    .await
}

/// A machine was stopped, and what it did before that is not what it did when the set was accepted.
fn stood_already(frame: &Frame<Create>, guest: &Seen<'_>, before: RunState) {
    let (create, id) = (&frame.operation().kind, guest.member.machine);
    if before == RunState::Running {
        create.standing().stopped.insert(id); // somebody else has let it go
        return;
    }
    // It stands still for another reason, and is let go for this one by nobody.
    let is_free = {
        let mut standing = create.standing();
        standing.stopped.remove(&id);
        standing.is_free(id)
    };
    let note = Note {
        captured: None,
        stood: true,
    };
    frame.note(guest.number, note);
    if is_free {
        frame.operation().is_free(id);
    }
}

/// The first disk that is not in both as it is in the other.
fn differing<'a>(planned: &'a Graph, found: &'a Graph) -> Option<&'a String> {
    let changed = |id: &&String| found.get(*id) != planned.get(*id);
    let mut changed = planned.keys().filter(changed);
    let added = || found.keys().find(|id| !planned.contains_key(*id));
    changed.next().or_else(added)
}

/// What machines capture comes first: what fails there is undone by a machine that has not gone on yet.
async fn capture(frame: &Frame<Create>, guests: &[Seen<'_>]) -> Done {
    let operation = frame.operation();
    let (core, create) = (&*operation.core, &operation.kind);
    let captured = |number, member: &Member| {
        let now = core.deps.clock.now();
        create.captured(member.machine, now);
        let note = Note {
            captured: Some(now),
            stood: false,
        };
        frame.note(number, note);
    };
    // Nothing has changed in those that are off, so they are captured as they are when the others stand still.
    let off = create.intent.members.iter().enumerate();
    let off = off.filter(|(_, member)| member.runs.is_none());
    off.for_each(|(number, member)| captured(number, member));
    let taken = guests.iter().map(|guest| async {
        let taken = guest.member.taken();
        if !taken.is_empty() {
            guest.machine.cut(&taken).await?;
        }
        captured(guest.number, guest.member);
        Ok(())
    });
    all(taken).await?;
    let left = guests.iter().map(|guest| async {
        let left = guest.member.left();
        if left.is_empty() {
            return Ok(());
        }
        all(left.into_iter().map(|plan| cut(core, plan))).await?;
        captured(guest.number, guest.member);
        Ok(())
    });
    all(left).await
}

/// Captures a disk by its driver.
async fn cut(core: &Core, plan: &Plan) -> Done {
    let (drivers, plan) = (core.deps.storage.clone(), plan.clone());
    let cut = tokio::task::spawn_blocking(move || drivers.of(&plan)?.cut(&plan));
    cut.await
        .unwrap_or_else(|_| Err(failed(texts::INTERNAL.text())))
}

/// Has everyone answer once more: what somebody else has done to a machine before that is told by then.
async fn told(guests: &[Seen<'_>]) -> Done {
    all(guests
        .iter()
        .map(|guest| async { guest.machine.state().await.map(drop) }))
    .await
}

/// Whether nobody else has touched the machine since the window was opened.
fn undisturbed(guest: &mut Seen<'_>) -> Done {
    let event = match guest.events.try_recv() {
        Err(TryRecvError::Empty) => return Ok(()),
        Ok(Event::Stopped) => texts::EVENT_STOPPED,
        Ok(Event::Reset) => texts::EVENT_RESET,
        Ok(Event::ShutDown) => texts::EVENT_SHUT_DOWN,
        Ok(Event::Resumed) | Err(_) => texts::EVENT_RESUMED, // or nobody knows
    };
    let text = texts::INTERFERED.with("machine", &guest.member.name);
    Err(failed(text.with("event", event.text())))
}

/// When it is looked what a machine does that is to go on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// One that has got into trouble since is left as it is.
    Before,
    /// It was stopped a moment ago, and waits.
    Afterwards,
}

/// Lets a machine go on that was stopped.
async fn resume(
    core: &Core,
    create: &Create,
    id: VmId,
    (look, limit): (Look, Duration),
    free: Freeing<'_>,
) -> Done {
    let resumed = with_machine(core, create, id, limit, |machine, name| async move {
        // One that somebody has reset meanwhile waits to be started.
        if look == Look::Before
            && let RunState::Troubled(trouble) = machine.state().await?
            && trouble != Trouble::Prelaunch
        {
            return Ok(()); // it does not stand still for this operation
        }
        machine.resume().await?;
        match machine.state().await? {
            RunState::Paused | RunState::Troubled(Trouble::Prelaunch) => {
                Err(failed(texts::STILL_STOPPED.with("machine", name)))
            }
            _ => Ok(()),
        }
    });
    resumed.await?;
    let is_free = {
        let mut standing = create.standing();
        standing.stopped.remove(&id);
        standing.is_free(id)
    };
    if is_free {
        free(id);
    }
    Ok(())
}

/// Ends what an undo of a dead process may have left at a machine.
async fn unblock(core: &Core, create: &Create, member: &Member) -> Done {
    let id = member.machine;
    let unblocked = with_machine(core, create, id, RELEASE, |machine, _| async move {
        machine.unblock(&member.taken()).await
    });
    unblocked.await?;
    create.standing().blocked.remove(&id);
    Ok(())
}

/// Thaws a guest that was frozen. Its machine runs.
async fn thaw(core: &Core, create: &Create, id: VmId, free: Freeing<'_>) -> Done {
    let thawed = with_machine(core, create, id, RELEASE, |machine, name| async move {
        let seen = create.standing().frozen.get(&id).copied();
        if !machine.is_frozen().await? && seen == Some(false) {
            let doubt = failed(texts::THAWED_EARLY.with("machine", name));
            create.standing().doubts.insert(id, doubt);
        }
        if let Some(seen) = create.standing().frozen.get_mut(&id) {
            *seen = true;
        }
        match machine.thaw().await {
            Ok(()) => {}
            Err(ThawError::NotHeld(error)) => {
                create.standing().doubts.insert(id, error);
            }
            Err(ThawError::Frozen(error)) => return Err(error),
        }
        match machine.is_frozen().await? {
            true => Err(failed(texts::STILL_FROZEN.with("machine", name))),
            false => Ok(()),
        }
    });
    thawed.await?;
    create.standing().frozen.remove(&id);
    free(id);
    Ok(())
}

/// Has something done by a machine, within its time; one that is off has nothing to do any more.
async fn with_machine<'a, F: Future<Output = Done>>(
    core: &'a Core,
    create: &'a Create,
    id: VmId,
    limit: Duration,
    work: impl FnOnce(Arc<dyn Running>, &'a str) -> F,
) -> Done {
    let mut members = create.intent.members.iter();
    let Some(member) = members.find(|member| member.machine == id) else {
        return Ok(());
    };
    let name = member.name.as_str();
    let sought = Sought::of(core, create, member);
    let done = async {
        let found = match sought.at_monitor(&*core.deps.compute)? {
            Some(found) => found,
            None => {
                let compute = Arc::clone(&core.deps.compute);
                let found = left_behind(move || sought.find(&*compute)).await;
                found.unwrap_or_else(|| Err(no_answer(name)))?
            }
        };
        match found {
            Found::Runs(machine) => work(machine, name).await,
            Found::Ended => Ok(()), // and nobody else is told anything in its place
        }
    };
    let done = within(core, limit, done).await;
    done.unwrap_or_else(|| Err(no_answer(name)))
}

/// What `look` gives on a thread for which nobody waits in the end: a file that it looks at may not answer, and neither the
/// start of the server nor the end of a window is kept by that.
async fn left_behind<T: Send + 'static>(look: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (tell, told) = oneshot::channel();
    let thread = thread::Builder::new().name("look".to_owned());
    let began = thread.spawn(move || {
        let _nobody_waits = tell.send(look());
    });
    began.ok()?;
    told.await.ok()
}

fn of(member: &Member, message: Message) -> EngineError {
    failed(message.with("machine", &member.name))
}

fn failed(text: Text) -> EngineError {
    EngineError {
        kind: EngineErrorKind::Failed,
        text,
    }
}
