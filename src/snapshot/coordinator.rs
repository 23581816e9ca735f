//! The coordinator: who asks for an operation, and who asks about one.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::failpoint;
use crate::id::{CollectionId, VmId};
use crate::snapshot::damage::Spaces;
use crate::snapshot::saga::claims::FileClaims;
use crate::snapshot::saga::core::{Core, Deps, Passage};
use crate::snapshot::saga::leases::{Holder, Leases, Resource};
use crate::snapshot::saga::spares::Spares;

/// Runs the operations on snapshot sets. Each kind adds the method that accepts it.
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
    /// in [`crate::snapshot::FAILPOINTS`], and makes it fail or stops there.
    #[must_use]
    pub fn passing(deps: Deps, passage: Passage) -> Arc<Self> {
        let core = Core {
            spares: Spares::new(deps.journals()),
            spaces: Spaces::default(),
            deps,
            leases: Leases::default(),
            claims: FileClaims::default(),
            broken: watch::Sender::new(None),
            tasks: TaskTracker::new(),
            passage,
        };
        Arc::new(Self {
            core: Arc::new(core),
        })
    }

    /// Does an operation work on this collection or on one above it? Collection management asks inside
    /// its store decision, so that no edit slips between a check and the lease, and answers 32775.
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

    /// Comes back when no operation is in flight. What cannot end now keeps it waiting: bound it by a
    /// time limit; the next process goes on with what is left.
    pub async fn idle(&self) {
        self.core.tasks.close();
        self.core.tasks.wait().await;
    }

    /// Removes what is kept ready for requests to come. Those that come all the same take longer.
    pub fn close(&self) {
        self.core.spares.close();
    }

    /// Comes back, with the cause, when something could not be made durable: the process must stop at
    /// once and recover at its next start (`docs/cut.md` §3). The server awaits it beside its listener.
    pub fn fatal(&self) -> impl Future<Output = String> + Send + use<> {
        let mut broken = self.core.broken.subscribe();
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
}
