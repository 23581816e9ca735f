//! The beginning of accepting a request, whatever its kind: leases what it works on, and checks that the machines are
//! there and in a state that the operation can work with. `plan` and `start` do the rest. A refusal has changed nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinError;

use crate::audit::About;
use crate::held;
use crate::id::{JobId, SetId, VmId};
use crate::inventory::{Disk, Machine, RunState, Snapshot};
use crate::snapshot::saga::answer::Refused;
use crate::snapshot::saga::core::Core;
use crate::snapshot::saga::leases::{Busy, Holder, Lease, Mode, Resource};
use crate::store::{self, State};
use crate::text::catalog::snapshot as texts;
use crate::text::{Message, Text};

/// How long acceptance waits for a lease whose holder is about to let go: an operation whose job has ended and that
/// only has to remove its journal, or a check.
const CLOSING: Duration = Duration::from_secs(5);
/// How often it is looked whether a blocking thread stands at a file that does not answer.
const GLANCE: Duration = Duration::from_millis(100);

impl Core {
    /// Runs the acceptance of a request to its end, also if its caller goes away meanwhile.
    pub(crate) async fn accepting<T: Send + 'static>(
        &self,
        accept: impl Future<Output = Result<T, Refused>> + Send + 'static,
    ) -> Result<T, Refused> {
        let accepting = self.tasks.spawn(accept);
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
                let ended = |holder: &Holder| holder.brief || core.has_ended(holder.job);
                let closing = |busy: &Busy| busy.holder.is_closing() && ended(&busy.holder);
                let closing = busy.iter().all(closing);
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
    Busy(Vec<Busy>),
}

/// [`admit`] for each of these members, away from the threads that serve; a refusal each where it is not admitted.
pub(crate) async fn admit_all(
    core: &Arc<Core>,
    members: Vec<(VmId, Needs)>,
) -> Vec<Result<Arc<Machine>, Refused>> {
    let shared = Arc::clone(core);
    let look = move || {
        // Once for all of them: where a file does not answer, this takes a while.
        shared.deps.compute.catch_up();
        let members = members.into_iter();
        let looked = members.map(|(id, needs)| admit(&shared, id, needs));
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
                let machines = Arc::clone(&core.deps.compute.observed().machines);
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

/// Waits, away from the threads that serve, until the newest state of all machines is known; for [`admit`].
///
/// # Errors
/// A file does not answer.
pub(crate) async fn caught_up(core: &Arc<Core>) -> Result<(), Refused> {
    let shared = Arc::clone(core);
    let looked = answered(move || shared.deps.compute.catch_up()).await;
    looked.map_err(|e| e.refused(core))
}

/// What an operation needs of a machine.
#[derive(Debug, Clone)]
pub(crate) struct Needs {
    /// The refusal if it is not there.
    gone: Text,
    /// What is said (`machine`, `state`) of one that is in a state in which the operation can do nothing with it.
    stands_in_the_way: fn(RunState) -> Option<Message>,
}

impl Needs {
    /// A machine that is in a state of which `stands_in_the_way` has nothing to say.
    pub(crate) fn new(gone: Text, stands_in_the_way: fn(RunState) -> Option<Message>) -> Self {
        Self {
            gone,
            stands_in_the_way,
        }
    }
}

/// The machine of a member, which must be there, readable and in a state that the operation can work with, as was found
/// out when all [were looked at](caught_up) last.
///
/// # Errors
/// [`Refused::InvalidState`].
pub(crate) fn admit(core: &Core, id: VmId, needs: Needs) -> Result<Arc<Machine>, Refused> {
    let machine = match core.deps.compute.known(id) {
        Ok(machine) => machine,
        Err(trouble) => {
            let unreadable = trouble.map(|cause| {
                let text = texts::MEMBER_TROUBLE.with("machine", id);
                text.with("cause", cause)
            });
            return Err(Refused::InvalidState(unreadable.unwrap_or(needs.gone)));
        }
    };
    if let Some(file) = core.deps.compute.silent(id) {
        return Err(Refused::InvalidState(silent(&machine.name, &file)));
    }
    let state = core.deps.compute.state(id);
    match (needs.stands_in_the_way)(state) {
        None => Ok(machine),
        Some(way) => {
            let text = way.with("machine", &machine.name);
            Err(Refused::InvalidState(text.with("state", named(state))))
        }
    }
}

/// The state in words.
pub(crate) fn named(state: RunState) -> Text {
    match state {
        RunState::Off => texts::IS_OFF.text(),
        RunState::Running | RunState::Held => texts::IS_RUNNING.text(),
        RunState::Paused => texts::IS_PAUSED.text(),
        RunState::Troubled(trouble) => texts::IS_TROUBLED.with("trouble", trouble.name()),
    }
}

/// What an operation on these members of a set is about.
pub(crate) fn about(state: &State, set: SetId, members: &[Snapshot]) -> About {
    let among = |it: &Snapshot| members.iter().any(|member| member.id == it.id);
    let set = state.sets.get(&set);
    set.map_or_else(About::default, |set| set.about(&state.collections, among))
}

pub(crate) fn panicked(error: &JoinError) -> Refused {
    tracing::error!(%error, "Accepting an operation panicked");
    Refused::Failed(texts::INTERNAL.text())
}
