//! The dependencies of the providers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::cim::Schema;
use crate::clock::SharedClock;
use crate::engine::Observed;
use crate::job::Jobs;
use crate::snapshot::Coordinator;
use crate::store::Store;

use super::kept::Kept;
use super::view::View;

/// The dependencies of the providers.
#[derive(Clone)]
pub struct Deps {
    /// The classes.
    pub schema: Arc<Schema>,
    /// Collections, sets, jobs.
    pub store: Arc<dyn Store>,
    /// The job service over that store.
    pub jobs: Arc<Jobs>,
    /// Machines, as they were observed last.
    pub machines: watch::Receiver<Arc<Observed>>,
    /// Takes snapshot sets.
    pub coordinator: Arc<Coordinator>,
    /// Time.
    pub clock: SharedClock,
    /// Name of this host, upper case.
    pub host: Arc<str>,
    /// `[snapshot] inline_wait`: how long a call waits for its own job; zero means never.
    pub inline_wait: Duration,
    /// An index of the files that snapshots name.
    pub kept: Arc<Kept>,
}

impl Deps {
    /// A view of the present state.
    pub(super) fn view(&self) -> View {
        View {
            state: self.store.state(),
            observed: Arc::clone(&self.machines.borrow()),
            host: self.host.clone(),
            kept: self.kept.clone(),
        }
    }
}
