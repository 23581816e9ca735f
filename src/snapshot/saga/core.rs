//! What all operations of one server share: store, jobs, engine, leases, file claims, spare journals, and the switch
//! that stops the server when something cannot be made durable.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::audit::Audit;
use crate::clock::SharedClock;

use crate::engine::{Compute, Drivers, EngineError, EngineErrorKind, FrozenFiles};
use crate::failpoint::FailedOnOrder;
use crate::id::{JobId, VmId};
use crate::job::Jobs;
use crate::snapshot::directory::Exports;
use crate::snapshot::saga::answer::Refused;
use crate::snapshot::saga::claims::FileClaims;
use crate::snapshot::saga::crowd::Crowds;
use crate::snapshot::saga::leases::{Busy, Leases, Resource};
use crate::snapshot::saga::plan;
use crate::snapshot::saga::spares::Spares;
use crate::snapshot::saga::story::Kinds;
use crate::snapshot::spaces::Spaces;
use crate::store::record::SETS;
use crate::store::room::Ballast;
use crate::store::{Change, State, Store, StoreError};
use crate::text::catalog::snapshot as texts;
use crate::text::{Argument, Text};

/// The folder of a data directory for the operations in flight.
pub(crate) const JOURNALS: &str = "journal";

/// What the coordinator works with.
#[derive(Clone)]
pub struct Deps {
    /// The durable state.
    pub store: Arc<dyn Store>,
    /// The job service over the same store.
    pub jobs: Arc<Jobs>,
    /// The machines.
    pub compute: Arc<dyn Compute>,
    /// The storage drivers.
    pub storage: Drivers,
    /// Where the files that a set keeps go from held to frozen.
    pub frozen: Arc<FrozenFiles>,
    /// Where alerts about damaged sets go.
    pub audit: Audit,
    /// Time.
    pub clock: SharedClock,
    /// The data directory; `journal/` and `sets/` are made in it. Absolute.
    pub data_dir: PathBuf,
    /// Where sets may be exported to.
    pub exports: Exports,
    /// Bounds.
    pub limits: Limits,
    /// The program that is started as the guard of a window: this one.
    pub guard: PathBuf,
}

impl Deps {
    pub(crate) fn journals(&self) -> PathBuf {
        self.data_dir.join(JOURNALS)
    }
}

/// Bounds of one operation.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Members that are worked on at the same time, at least 1.
    pub parallel: usize,
    /// From the opening of a window until all machines are captured.
    pub window: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            parallel: 16,
            window: Duration::from_secs(30),
        }
    }
}

/// Passes a fail point; [`crate::failpoint::pass`] outside tests.
pub type Passage = Box<dyn Fn(&str) -> Result<(), FailedOnOrder> + Send + Sync>;

/// What all operations of one server share.
pub(crate) struct Core {
    pub(crate) deps: Deps,
    /// What operations there are.
    pub(crate) kinds: Kinds,
    pub(crate) leases: Leases,
    /// Who reads or rewrites which disk file.
    pub(crate) claims: FileClaims,
    /// Parts of operations that wait for others.
    pub(crate) crowds: Crowds,
    pub(crate) spares: Spares,
    /// Room for what gives room back.
    pub(crate) ballast: Ballast,
    /// What the files of sets take.
    pub(crate) spaces: Spaces,
    /// Filled once something could not be made durable.
    pub(crate) broken: watch::Sender<Option<String>>,
    pub(crate) tasks: TaskTracker,
    /// Windows that are open.
    pub(crate) windows: TaskTracker,
    pub(crate) passage: Passage,
}

impl Core {
    pub(crate) fn new(deps: Deps, kinds: Kinds, passage: Passage) -> Arc<Self> {
        Arc::new(Self {
            spares: Spares::new(deps.journals()),
            ballast: Ballast::new(deps.data_dir.clone()),
            spaces: Spaces::default(),
            deps,
            kinds,
            leases: Leases::default(),
            claims: FileClaims::default(),
            crowds: Crowds::default(),
            broken: watch::Sender::new(None),
            tasks: TaskTracker::new(),
            windows: TaskTracker::new(),
            passage,
        })
    }

    pub(crate) fn journals(&self) -> PathBuf {
        self.deps.journals()
    }

    pub(crate) fn sets(&self) -> PathBuf {
        self.deps.data_dir.join(SETS)
    }

    /// Tells the server to stop at once.
    pub(crate) fn break_down(&self, cause: String) {
        tracing::error!(%cause, "Cannot make state durable; the server must stop and recover");
        self.broken.send_replace(Some(cause));
    }

    /// Comes back, with the cause, when something could not be made durable.
    pub(crate) fn fatal(&self) -> impl Future<Output = String> + Send + use<> {
        let mut broken = self.broken.subscribe();
        async move {
            loop {
                if let Some(cause) = broken.borrow_and_update().clone() {
                    return cause;
                }
                if broken.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// A transaction from a blocking thread.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn transact(
        &self,
        changes: impl FnOnce(&State) -> Vec<Change> + Send + 'static,
    ) -> Result<(), EngineError> {
        let done = self.deps.store.transact(Box::new(changes));
        match Handle::current().block_on(done) {
            Ok(_) => Ok(()),
            Err(e) => {
                if matches!(e, StoreError::Broken(_)) {
                    self.break_down(e.to_string());
                }
                let kind = match e {
                    StoreError::Full(_) => EngineErrorKind::Full,
                    _ => EngineErrorKind::Failed,
                };
                let text = texts::STORE_FAILED.with("cause", e);
                Err(EngineError { kind, text })
            }
        }
    }

    /// Passes the fail point `<kind>.<step>.<side>`.
    pub(crate) fn pass(&self, kind: &str, step: &str, side: &str) -> Result<(), FailedOnOrder> {
        (self.passage)(&format!("{kind}.{step}.{side}"))
    }

    /// Makes what is kept ready for operations to come, where there is room for it.
    pub(crate) fn stock(self: &Arc<Self>) {
        let core = Arc::clone(self);
        self.tasks.spawn_blocking(move || {
            if let Err(error) = core.spares.fill() {
                tracing::warn!(%error, "No spare journals can be made; requests take longer");
            }
            core.keep_room();
        });
    }

    /// Keeps room for what gives room back, if there is some. Blocks.
    pub(crate) fn keep_room(&self) {
        if let Err(error) = self.ballast.fill() {
            tracing::warn!(%error, "No room can be kept for deletes on a full file system");
        }
    }

    /// Lets go of the room that is kept: `false` if there was none.
    pub(crate) async fn make_room(self: &Arc<Self>) -> bool {
        let core = Arc::clone(self);
        let released = tokio::task::spawn_blocking(move || core.ballast.release()).await;
        match released.unwrap_or_else(|e| Err(io::Error::other(e))) {
            Ok(false) => false,
            Ok(true) => {
                tracing::warn!(
                    "A delete does not go on for want of room: what is kept for it is let go"
                );
                true
            }
            Err(error) => {
                tracing::warn!(%error, "The room that is kept for deletes cannot be let go");
                false
            }
        }
    }

    /// Has the job ended, as clients see it?
    pub(crate) fn has_ended(&self, job: JobId) -> bool {
        let job = self.deps.jobs.get(job);
        job.is_some_and(|job| job.state.is_terminal())
    }

    pub(crate) fn store_failed(&self, error: &StoreError) -> Refused {
        if matches!(error, StoreError::Broken(_)) {
            self.break_down(error.to_string());
        }
        Refused::Failed(texts::STORE_FAILED.with("cause", error))
    }

    /// Says who holds what was wanted: the machines of one job together.
    pub(crate) fn busy(&self, busy: &[Busy]) -> Text {
        let mut told: Vec<Text> = Vec::new();
        let mut jobs = BTreeSet::new();
        for one in busy {
            let Resource::Machine(_) = one.resource else {
                told.push(self.held(one));
                continue;
            };
            if !jobs.insert(one.holder.job) {
                continue;
            }
            let names = busy.iter().filter_map(|other| match other.resource {
                Resource::Machine(id) if other.holder.job == one.holder.job => Some(self.name(id)),
                _ => None,
            });
            let mut names: Vec<_> = names.collect();
            let more = names.len().saturating_sub(plan::TOLD);
            names.truncate(plan::TOLD);
            let text = match names.as_slice() {
                [name] => texts::MEMBER_BUSY.with("machine", name),
                names => texts::MEMBERS_BUSY.with("machines", Argument::from_iter(names)),
            };
            told.push(by(text, one));
            if more > 0 {
                told.push(texts::REFUSED_MORE.with("count", more));
            }
        }
        plan::one(told).unwrap_or_else(|| texts::WORKING.text())
    }

    fn name(&self, machine: VmId) -> String {
        let known = self.deps.compute.observed();
        known
            .machines
            .get(&machine)
            .map_or_else(|| machine.to_string(), |m| m.name.clone())
    }

    fn held(&self, busy: &Busy) -> Text {
        let text = match busy.resource {
            Resource::Machine(id) => texts::MEMBER_BUSY.with("machine", self.name(id)),
            Resource::Collection(id) => {
                texts::HELD.with("resource", texts::THE_COLLECTION.with("collection", id))
            }
            Resource::Set(id) => texts::HELD.with("resource", texts::THE_SET.with("set", id)),
            Resource::Export(id, _) => {
                let place = texts::THE_PLACE_OF_EXPORT.with("set", id);
                texts::HELD.with("resource", place)
            }
        };
        by(text, busy)
    }
}

fn by(text: Text, busy: &Busy) -> Text {
    text.with("job", busy.holder.job)
        .with("doing", busy.holder.told())
}
