//! The providers of `root/virtualization/v2`, one file or folder for each class, registered in [`registry`].
//!
//! `element` maps between objects and CIM paths, `view` is a consistent read view of store and machines, `reference`
//! reads parameters, `outcome` builds return values and refusals, `associations` holds all associations in one table,
//! `about` says for the audit log what a call concerned.

mod about;
mod associations;
mod collection_management_service;
mod collection_of_mses;
mod collection_snapshot_service;
mod computer_system;
mod concrete_job;
mod element;
mod kept;
mod names;
mod outcome;
mod reference;
mod service;
mod snapshot_check;
mod snapshot_collection;
mod storage_allocation_setting_data;
mod view;
mod virtual_system_setting_data;
mod virtual_system_snapshot_service;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::cim::Schema;
use crate::clock::SharedClock;
use crate::engine::Observed;
use crate::job::Jobs;
use crate::snapshot::Coordinator;
use crate::store::Store;

use super::{Provider, Registry, RegistryError};

use associations::Associations;
use collection_management_service::CollectionManagementService;
use collection_of_mses::Groups;
use collection_snapshot_service::CollectionSnapshotService;
use computer_system::ComputerSystems;
use concrete_job::ConcreteJobs;
pub use kept::Kept;
use names::MachineNames;
use snapshot_check::SnapshotCheck;
use snapshot_collection::SnapshotCollections;
use storage_allocation_setting_data::Disks;
use view::View;
use virtual_system_setting_data::Settings;
use virtual_system_snapshot_service::VirtualSystemSnapshotService;

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
    fn view(&self) -> View {
        View {
            state: self.store.state(),
            observed: Arc::clone(&self.machines.borrow()),
            host: self.host.clone(),
            kept: self.kept.clone(),
        }
    }
}

/// Classes that only live as text inside parameters, or are only referred to.
const EMBEDDED_ONLY: &[&str] = &[
    "Msvm_Error",
    "Msvm_VirtualSystemSnapshotSettingData",
    "Msvm_CollectionSnapshotExportSettingData",
    "Msvm_ReferencePointCollection",
    "Msvm_VirtualSystemReferencePoint",
];

/// The registry of everything that is served.
///
/// # Errors
/// [`RegistryError`] if schema and providers do not match.
pub fn registry(deps: Deps) -> Result<Registry, RegistryError> {
    let schema = deps.schema.clone();
    let names = Arc::new(MachineNames::default());
    let providers: Vec<Arc<dyn Provider>> = vec![
        Arc::new(ComputerSystems(deps.clone(), names.clone())),
        Arc::new(Settings(deps.clone(), names)),
        Arc::new(Disks(deps.clone())),
        Arc::new(Groups(deps.clone())),
        Arc::new(SnapshotCollections(deps.clone())),
        Arc::new(ConcreteJobs(deps.clone())),
        Arc::new(CollectionSnapshotService(deps.clone())),
        Arc::new(CollectionManagementService(deps.clone())),
        Arc::new(VirtualSystemSnapshotService(deps.clone())),
        Arc::new(SnapshotCheck(deps.clone())),
        Arc::new(Associations(deps)),
    ];
    Registry::new(schema, providers, EMBEDDED_ONLY)
}
