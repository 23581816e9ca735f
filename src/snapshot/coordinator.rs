//! The public face of this module: [`Coordinator`]. It starts operations of each kind, answers questions about those in
//! flight and about the files of sets, and recovers. The work itself is done elsewhere.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::audit::Written;
use crate::engine::EngineError;
use crate::failpoint;
use crate::id::{CollectionId, VmId};
use crate::inventory::{Leftover, Machine};
use crate::snapshot::apply::{self, ApplyRequest};
use crate::snapshot::copies::{self, UnsoundCopy};
use crate::snapshot::create::{self, Checked, CreateRequest};
use crate::snapshot::damage::{self, DamagedDisk};
use crate::snapshot::destroy::{self, DestroyRequest, Hidden};
use crate::snapshot::export::{self, ExportRefused, ExportRequest};
use crate::snapshot::kinds::KINDS;
use crate::snapshot::orphans;
use crate::snapshot::saga::answer::{Accepted, Refused};
use crate::snapshot::saga::claims::FileClaims;
use crate::snapshot::saga::core::{Core, Deps, Passage};
use crate::snapshot::saga::leases::{Holder, Leases, Resource};
use crate::snapshot::saga::recovery::{self, PATIENCE, Recovered, RecoveryError};
use crate::store::StoreError;
use crate::text::Text;

/// Runs the operations on snapshot sets.
pub struct Coordinator {
    pub(super) core: Arc<Core>,
}

impl Coordinator {
    /// A coordinator that holds nothing yet. Call [`Coordinator::recover`] once before anything else.
    #[must_use]
    pub fn new(deps: Deps) -> Arc<Self> {
        Self::passing(deps, Box::new(failpoint::pass))
    }

    /// The same with other fail points than those of the environment: a test sees each passage, named as
    /// in [`crate::snapshot::create::FAILPOINTS`] and those of the other kinds, and makes it fail or stops there.
    #[must_use]
    pub fn passing(deps: Deps, passage: Passage) -> Arc<Self> {
        let core = Core::new(deps, KINDS, passage);
        Arc::new(Self { core })
    }
}

/// The operations. Each request is answered once job and journal are durable; a caller that hangs up before that does
/// not interrupt it.
impl Coordinator {
    /// Checks the request against the state, locks the members and starts the job.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn create(&self, request: CreateRequest) -> Result<Accepted, Refused> {
        let core = Arc::clone(&self.core);
        self.core.accepting(create::create(core, request)).await
    }

    /// Makes every check that [`Coordinator::create`] makes before it accepts, and looks for the space that its
    /// job would look for. Changes nothing and holds nothing afterwards. A call that comes meanwhile waits for it.
    pub async fn check(&self, request: CreateRequest) -> Checked {
        let core = Arc::clone(&self.core);
        let checked = self.core.accepting(create::check(core, request)).await;
        checked.unwrap_or_else(|refused| Checked {
            refused: Some(refused),
            ..Checked::default()
        })
    }

    /// Locks the members and starts the job that puts their disks back.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn apply(&self, request: ApplyRequest) -> Result<Accepted, Refused> {
        let core = Arc::clone(&self.core);
        self.core.accepting(apply::apply(core, request)).await
    }

    /// Checks the request against the state, locks the members and the set and starts the job, which goes forward from
    /// the answer on.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn destroy(&self, request: DestroyRequest) -> Result<Accepted, Refused> {
        let core = Arc::clone(&self.core);
        self.core.accepting(destroy::destroy(core, request)).await
    }

    /// Starts the job that merges the hidden layers of a machine that is powered off, and removes what its destroyed
    /// snapshots have left, also if it is gone itself. Goes forward from the answer on.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn tidy(&self, machine: VmId, owner: String) -> Result<Accepted, Refused> {
        let tidied = destroy::tidy(Arc::clone(&self.core), machine, owner);
        self.core.accepting(tidied).await
    }

    /// Checks the request against the state, holds the set and starts the job.
    ///
    /// # Errors
    /// [`ExportRefused`].
    pub async fn export(&self, request: ExportRequest) -> Result<Accepted, ExportRefused> {
        export::export(&self.core, request).await
    }
}

/// From start to stop.
impl Coordinator {
    /// Recovers. To be called once, before any request is served.
    ///
    /// # Errors
    /// [`RecoveryError`]: someone has to look before the server may open.
    pub async fn recover(&self) -> Result<Recovered, RecoveryError> {
        self.recover_within(Some(PATIENCE)).await
    }

    /// [`Coordinator::recover`] for `groupshot rescue`: without a time limit for operations that make progress; those
    /// that have to wait are retried for 5 s more.
    ///
    /// # Errors
    /// As there.
    pub async fn rescue(&self) -> Result<Recovered, RecoveryError> {
        self.recover_within(None).await
    }

    async fn recover_within(&self, patience: Option<Duration>) -> Result<Recovered, RecoveryError> {
        let (mut recovered, named) = recovery::recover(&self.core, patience).await?;
        self.sweep().await?;
        let core = Arc::clone(&self.core);
        let found = tokio::task::spawn_blocking(move || orphans::find(&core, named));
        recovered.orphans = found
            .await
            .map_err(|e| RecoveryError::Broken(e.to_string()))?;
        for file in &recovered.orphans {
            tracing::warn!(file = %file.display(), "No machine, set or journal names this file");
        }
        Ok(recovered)
    }

    /// Removes what earlier operations could not reach. A folder that does not answer is not waited for.
    async fn sweep(&self) -> Result<(), RecoveryError> {
        let core = Arc::clone(&self.core);
        let swept = tokio::task::spawn_blocking(move || destroy::sweep(&core));
        if let Ok(Ok(Err(error))) = tokio::time::timeout(PATIENCE, swept).await {
            tracing::warn!(%error, "What is left of earlier operations stays");
        }
        let broken = self.core.broken.borrow().clone();
        broken.map_or(Ok(()), |cause| Err(RecoveryError::Broken(cause)))
    }

    /// Comes back when no operation is in flight. What cannot end now keeps it waiting: bound it by a
    /// time limit; the next process goes on with what is left.
    pub async fn idle(&self) {
        self.core.tasks.close();
        self.core.tasks.wait().await;
    }

    /// Comes back when no window is open any more: machines go on then, or were told to.
    pub async fn windows(&self) {
        self.core.windows.close();
        self.core.windows.wait().await;
    }

    /// Removes what is kept ready for requests to come. Those that come all the same take longer.
    pub fn close(&self) {
        self.core.spares.close();
    }

    /// Comes back, with the cause, when something could not be made durable: the process must stop at
    /// once and recover at its next start (`docs/cut.md` §3). The server awaits it beside its listener.
    pub fn fatal(&self) -> impl Future<Output = String> + Send + use<> {
        self.core.fatal()
    }
}

/// Who works on what.
impl Coordinator {
    /// Whether an operation has leased this collection (its own, or as part of a group above it) and its job has not
    /// ended. Collection management asks inside its store decision, so that no edit slips between a check and the
    /// lease, and answers 32775.
    #[must_use]
    pub fn held(&self, collection: CollectionId) -> bool {
        let holder = self.core.leases.holder(Resource::Collection(collection));
        holder.is_some_and(|holder| !self.core.has_ended(holder.job))
    }

    /// Who works on this machine.
    #[must_use]
    pub fn machine_holder(&self, machine: VmId) -> Option<Holder> {
        self.core.leases.holder(Resource::Machine(machine))
    }

    /// The table of leases, for operations of other modules (export, removal of a machine).
    #[must_use]
    pub fn leases(&self) -> &Leases {
        &self.core.leases
    }

    /// The table of disk files in use: readers and mergers wait for each other.
    #[must_use]
    pub fn claims(&self) -> &FileClaims {
        &self.core.claims
    }
}

/// The files of sets.
impl Coordinator {
    /// The hidden layers of a machine. Blocks.
    ///
    /// # Errors
    /// A file of some machine cannot be seen, so nothing is known of what lies on what.
    pub fn hidden(&self, machine: &Machine) -> Result<Vec<Hidden>, EngineError> {
        destroy::hidden(&self.core, machine)
    }

    /// What operations have left, each with the reason why it cannot be removed now. Blocks.
    #[must_use]
    pub fn leftovers(&self) -> Vec<(Leftover, Option<Text>)> {
        destroy::leftovers(&self.core)
    }

    /// The copies of definitions that are not what their sets need. Blocks.
    #[must_use]
    pub fn unsound_copies(&self) -> Vec<UnsoundCopy> {
        copies::unsound(&self.core)
    }

    /// Has the log tell of them, without being waited for.
    pub fn tell_of_copies(&self) {
        let core = Arc::clone(&self.core);
        self.core.tasks.spawn_blocking(move || {
            for copy in copies::unsound(&core) {
                tracing::warn!(machine = %copy.machine, "{}", copy.text.english());
            }
        });
    }

    /// The space that a file of a set takes on its file system, in bytes, shared ones included, as it was when it was
    /// looked at last; none if it was not there. Looks at nothing.
    #[must_use]
    pub fn space_of(&self, file: &Path) -> Option<u64> {
        self.core.spaces.of(file)
    }

    /// Looks at every set now; see [`Coordinator::watch_files`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn look_at_files(&self) -> Result<(), StoreError> {
        damage::look_at_all(&self.core).await?.written().await;
        Ok(())
    }

    /// Names the files that sets of an older version keep by symbolic links by where these lead, if that is what was
    /// sealed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn resolve_links(&self) -> Result<(), StoreError> {
        damage::resolve_links(&self.core).await
    }

    /// Looks at the files of every set again and again until `stop`, and marks sets that were changed.
    pub async fn watch_files(&self, stop: CancellationToken) {
        damage::watch(&self.core, stop).await;
    }

    /// Every damaged disk, as the records tell.
    #[must_use]
    pub fn damaged(&self) -> Vec<DamagedDisk> {
        let state = self.core.deps.store.state();
        let sets = state.sets.values();
        sets.flat_map(|set| damage::damaged(set)).collect()
    }

    /// A person says that the disk is good as it is now: it is sealed again and no longer damaged. Gives the files that
    /// were changed, with what stands there, and the end of the writing of the audit line.
    ///
    /// # Errors
    /// [`Refused`]: it is gone or held, a file of it cannot be read, the store cannot be written, or the audit log takes
    /// no line.
    pub async fn accept_damage(&self, wanted: &DamagedDisk) -> Result<(String, Written), Refused> {
        let accepted = damage::accept_damage(Arc::clone(&self.core), wanted.clone());
        self.core.accepting(accepted).await
    }
}
