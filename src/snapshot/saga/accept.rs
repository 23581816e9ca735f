//! How an operation of any kind begins: leases, journal, job, task.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinError;

use crate::audit::About;
use crate::engine::{EngineError, EngineErrorKind, Hold};
use crate::held;
use crate::id::{JobId, SetId, VmId};
use crate::inventory::{Disk, Machine, PowerState, Snapshot};
use crate::job::{NewJob, Worker};
use crate::snapshot::Refused;
use crate::snapshot::coordinator::Coordinator;
use crate::snapshot::saga::core::Core;
use crate::snapshot::saga::journal::{Intent, Journal, WriteError};
use crate::snapshot::saga::kind::Kind;
use crate::snapshot::saga::leases::{Busy, Lease, Mode, Resource};
use crate::snapshot::saga::operation::{Operation, Verdict, failed};
use crate::store::{self, State, StoreError};
use crate::text::catalog::snapshot as texts;
use crate::text::{Message, Text};

/// How long an accepted request waits for an operation that has ended for clients and only closes its
/// journal, or for a check.
const CLOSING: Duration = Duration::from_secs(5);
/// How often it is looked whether a blocking thread stands at a file that does not answer.
const GLANCE: Duration = Duration::from_millis(100);

impl Coordinator {
    /// Runs the acceptance of a request to its end, also if its caller goes away meanwhile.
    pub(crate) async fn accepting<T: Send + 'static>(
        &self,
        accept: impl Future<Output = Result<T, Refused>> + Send + 'static,
    ) -> Result<T, Refused> {
        let accepting = self.core.tasks.spawn(accept);
        accepting.await.unwrap_or_else(|e| Err(panicked(&e)))
    }
}

/// Resolves what is wanted and leases it in one store decision: collection edits are decisions too, so
/// none comes between.
///
/// # Errors
/// What `resolve` refuses, or that another operation holds something of it.
pub(crate) async fn lease<T: Send + 'static>(
    core: &Arc<Core>,
    job: JobId,
    doing: Text,
    resolve: impl Fn(&State) -> Result<(T, Vec<(Resource, Mode)>), Refused> + Clone + Send + 'static,
) -> Result<(T, Lease), Refused> {
    let deadline = tokio::time::Instant::now() + CLOSING;
    let mut released = core.leases.released();
    loop {
        released.mark_unchanged();
        let (members, doing, resolve) = (core.leases.clone(), doing.clone(), resolve.clone());
        let decided = store::decide(&*core.deps.store, move |state| {
            let (resolved, wanted) = resolve(state).map_err(Denied::Refused)?;
            let lease = members.lease(job, doing, &wanted);
            Ok((Vec::new(), (resolved, lease.map_err(Denied::Busy)?)))
        });
        match decided.await.map_err(|e| core.store_failed(&e))? {
            Ok(taken) => return Ok(taken),
            Err(Denied::Refused(refused)) => return Err(refused),
            Err(Denied::Busy(busy)) => {
                // Its client has seen the end of the job; only the journal is still to be closed. Or it only looks.
                let ended = busy.holder.brief || core.has_ended(busy.holder.job);
                let closing = busy.holder.is_closing() && ended;
                let next = tokio::time::timeout_at(deadline, released.changed());
                if !closing || next.await.is_err() {
                    return Err(Refused::InvalidState(core.busy(&busy)));
                }
            }
        }
    }
}

enum Denied {
    Refused(Refused),
    Busy(Busy),
}

/// Makes `kind` durable as journal and job and starts its work.
///
/// # Errors
/// [`Refused::Failed`]; nothing was begun then.
pub(crate) async fn start<K: Kind>(
    core: &Arc<Core>,
    kind: K,
    job: NewJob,
    holds: BTreeMap<VmId, Hold>,
    lease: Lease,
) -> Result<(), Refused> {
    let (id, set, machines) = (job.id, kind.set(), kind.machines().len());
    let (journal, worker) = durable::<K>(core, kind.intent(), job).await?;
    let operation = Arc::new(Operation {
        core: Arc::clone(core),
        kind,
        journal: Mutex::new(journal),
        worker: Some(worker),
        verdict: watch::Sender::new(Verdict::Working),
        holds: Mutex::new(holds),
        lease,
        waited: AtomicU32::new(0),
    });
    tracing::info!(what = K::NAME, %set, job = %id, machines, "Operation began");
    core.tasks.spawn(operation.run());
    let shared = Arc::clone(core);
    core.tasks.spawn_blocking(move || {
        if let Err(error) = shared.spares.fill() {
            tracing::warn!(%error, "No spare journals can be made; requests take longer");
        }
    });
    Ok(())
}

/// Journal and job, made durable side by side: two files that need not wait for each other, for nothing is
/// done before both are. Of a process that dies meanwhile, a journal without its job is undone, or removed where nothing
/// undoes it, and a job without its journal ended as lost.
async fn durable<K: Kind>(
    core: &Core,
    intent: Intent,
    job: NewJob,
) -> Result<(Journal, Worker), Refused> {
    core.pass(K::NAME, "intent", "before")
        .map_err(|e| journal_failed(e.to_string()))?;
    let journal = record::<K>(core, job.id, intent);
    match tokio::join!(journal, core.deps.jobs.start(job, Vec::new())) {
        (Ok(journal), Ok(worker)) => {
            let _accepted = core.pass(K::NAME, "job", "after");
            Ok((journal, worker))
        }
        (Ok(journal), Err(error)) => {
            take_back(core, journal).await;
            Err(core.store_failed(&error))
        }
        (Err(refused), Ok(worker)) => {
            // Where the store does not take it back, it ends with the reason.
            let why = failed(refused.text().clone(), Vec::new());
            if let Err(error @ StoreError::Broken(_)) = worker.withdraw(why).await {
                core.store_failed(&error);
            }
            Err(refused)
        }
        (Err(refused), Err(error)) => {
            core.store_failed(&error);
            Err(refused)
        }
    }
}

async fn record<K: Kind>(core: &Core, job: JobId, intent: Intent) -> Result<Journal, Refused> {
    let (folder, spare) = (core.journals(), core.spares.take());
    let create = move || Journal::create(&folder, job, intent, spare);
    let create = tokio::task::spawn_blocking(create);
    let journal = match create.await {
        Ok(Ok(journal)) => journal,
        Ok(Err(e)) => {
            if matches!(e, WriteError::Broken(..)) {
                core.break_down(e.to_string());
            }
            return Err(journal_failed(e.cause().to_string()));
        }
        Err(panicked) => return Err(journal_failed(panicked.to_string())),
    };
    if let Err(e) = core.pass(K::NAME, "intent", "after") {
        take_back(core, journal).await;
        return Err(journal_failed(e.to_string()));
    }
    Ok(journal)
}

/// Removes the journal of a request that is refused. Where that fails the server stops: the next start drops or undoes
/// what the journal tells before anybody can build on the refusal.
async fn take_back(core: &Core, journal: Journal) {
    let removed = tokio::task::spawn_blocking(move || journal.remove()).await;
    let why = match removed {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(panicked) => panicked.to_string(),
    };
    core.break_down(why);
}

fn journal_failed(cause: String) -> Refused {
    Refused::Failed(texts::JOURNAL_FAILED.with("cause", cause))
}

/// Plans every item on its own blocking thread, several at a time, in their order.
///
/// # Errors
/// All refusals in one.
pub(crate) async fn plan_each<T, P>(
    core: &Arc<Core>,
    items: Vec<T>,
    plan: impl Fn(&Core, T) -> Result<P, Refused> + Clone + Send + 'static,
) -> Result<Vec<P>, Refused>
where
    T: Send + 'static,
    P: Send + 'static,
{
    let planned = stream::iter(items).map(|item| {
        let (shared, plan) = (Arc::clone(core), plan.clone());
        let planned = answered(move || plan(&shared, item));
        planned.map(|planned| planned.unwrap_or_else(|e| Err(e.refused(core))))
    });
    // All of them, also after a refusal: what still runs holds images that the next request may want.
    let planned = planned.buffered(core.deps.limits.parallel.max(1));
    let planned: Vec<_> = planned.collect().await;
    together(planned)
}

/// How many further refusals are told in full.
const TOLD: usize = 20;

/// What all came to, or all refusals in one.
///
/// # Errors
/// As [`joined`].
pub(crate) fn together<T>(
    results: impl IntoIterator<Item = Result<T, Refused>>,
) -> Result<Vec<T>, Refused> {
    let (mut fine, mut refusals) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(it) => fine.push(it),
            Err(refused) => refusals.push(refused),
        }
    }
    joined(refusals).map_or(Ok(fine), Err)
}

/// Refusals of several machines as one: of the kind of the first, with the words of all, so that nobody mends one
/// only to meet the next.
pub(crate) fn joined(refusals: Vec<Refused>) -> Option<Refused> {
    let mut all = refusals.into_iter();
    let first = all.next()?;
    let mut told: Vec<_> = std::iter::once(first.text().clone())
        .chain(
            all.by_ref()
                .take(TOLD)
                .map(|refused| refused.text().clone()),
        )
        .collect();
    let more = all.count();
    if more > 0 {
        told.push(texts::REFUSED_MORE.with("count", more));
    }
    let both = |others, one| {
        texts::REFUSED_TOGETHER
            .with("first", one)
            .with("others", others)
    };
    let text = told.into_iter().rev().reduce(both);
    Some(text.map_or(first.clone(), |text| first.saying(text)))
}

/// [`powered_off`] for each of these members, away from the threads that serve; a refusal each where it is not so.
pub(crate) async fn all_powered_off(
    core: &Arc<Core>,
    members: Vec<(VmId, Text)>,
    running: Message,
) -> Vec<Result<Arc<Machine>, Refused>> {
    let shared = Arc::clone(core);
    let look = move || {
        // Once for all of them: where a file does not answer, this takes a while.
        shared.deps.compute.catch_up();
        let members = members.into_iter();
        let looked = members.map(|(id, gone)| powered_off(&shared, id, gone, running));
        looked.collect()
    };
    let looked = answered(look).await;
    looked.unwrap_or_else(|e| vec![Err(e.refused(core))])
}

/// Why what ran on a blocking thread has given nothing.
pub(crate) enum Unanswered {
    /// This file does not answer. The thread stands there until it does.
    Silent(PathBuf),
    /// It panicked.
    Panicked(JoinError),
}

impl Unanswered {
    /// What that means for a request.
    pub(crate) fn refused(self, core: &Core) -> Refused {
        match self {
            Self::Panicked(error) => panicked(&error),
            Self::Silent(file) => {
                let machines = core.deps.compute.machines();
                let has = |m: &&Arc<Machine>| {
                    let mut disks = m.disks.iter();
                    let below = |d: &Disk| core.deps.compute.below(m.id, &d.id);
                    disks.any(|d| d.file == file || below(d).is_some_and(|b| b.contains(&file)))
                };
                let machine = machines.values().find(has).map(|m| m.name.as_str());
                Refused::InvalidState(match machine {
                    Some(machine) => silent(machine, &file),
                    None => texts::FILE_SILENT.with("file", file.display()),
                })
            }
        }
    }
}

fn silent(machine: &str, file: &Path) -> Text {
    let text = texts::MEMBER_SILENT.with("machine", machine);
    text.with("file", file.display())
}

/// What `work` gives on a blocking thread. It is no longer waited for once it stands at a file that does not answer.
///
/// # Errors
/// [`Unanswered`].
pub(crate) async fn answered<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Unanswered> {
    let (tell, told) = oneshot::channel();
    let mut work = tokio::task::spawn_blocking(move || {
        let _nobody_asks = tell.send(thread::current().id());
        work()
    });
    let thread = told.await.ok();
    loop {
        if let Ok(done) = tokio::time::timeout(GLANCE, &mut work).await {
            return done.map_err(Unanswered::Panicked);
        }
        if let Some(file) = thread.and_then(held::silent_at) {
            return Err(Unanswered::Silent(file));
        }
    }
}

/// Waits, away from the threads that serve, until the newest state of all machines is known; for [`powered_off`].
///
/// # Errors
/// A file does not answer.
pub(crate) async fn caught_up(core: &Arc<Core>) -> Result<(), Refused> {
    let shared = Arc::clone(core);
    let looked = answered(move || shared.deps.compute.catch_up()).await;
    looked.map_err(|e| e.refused(core))
}

/// The machine of a member, which must be there, readable and powered off, as was found out when all
/// [were looked at](caught_up) last. `gone` is the refusal if it is not there,
/// `running` the one if it runs (`machine`, `state`).
///
/// # Errors
/// [`Refused::InvalidState`].
pub(crate) fn powered_off(
    core: &Core,
    id: VmId,
    gone: Text,
    running: Message,
) -> Result<Arc<Machine>, Refused> {
    let Some(machine) = core.deps.compute.machine(id) else {
        let unreadable = core.deps.compute.trouble(id);
        let unreadable = unreadable.map(|cause| {
            let text = texts::MEMBER_TROUBLE.with("machine", id);
            text.with("cause", cause)
        });
        return Err(Refused::InvalidState(unreadable.unwrap_or(gone)));
    };
    if let Some(file) = core.deps.compute.silent(id) {
        return Err(Refused::InvalidState(silent(&machine.name, &file)));
    }
    let state = match core.deps.compute.state(id) {
        PowerState::Off => return Ok(machine),
        PowerState::Running => texts::IS_RUNNING,
        PowerState::Paused => texts::IS_PAUSED,
    };
    let text = running.with("machine", &machine.name);
    Err(Refused::InvalidState(text.with("state", state.text())))
}

/// What an operation on these members of a set is about.
pub(crate) fn about(state: &State, set: SetId, members: &[Snapshot]) -> About {
    let among = |it: &Snapshot| members.iter().any(|member| member.id == it.id);
    let set = state.sets.get(&set);
    set.map_or_else(About::default, |set| set.about(&state.collections, among))
}

/// What an engine's error means before anything was begun.
pub(crate) fn refused(error: EngineError) -> Refused {
    match error.kind {
        EngineErrorKind::Full | EngineErrorKind::Broken | EngineErrorKind::Failed => {
            Refused::Failed(error.text)
        }
        EngineErrorKind::Locked
        | EngineErrorKind::Missing
        | EngineErrorKind::Denied
        | EngineErrorKind::Silent
        | EngineErrorKind::Unsupported => Refused::InvalidState(error.text),
    }
}

pub(crate) fn panicked(error: &JoinError) -> Refused {
    tracing::error!(%error, "Accepting an operation panicked");
    Refused::Failed(texts::INTERNAL.text())
}
