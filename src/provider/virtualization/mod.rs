//! The providers of `root/virtualization/v2`, one file or folder for each class, registered in [`registry`].
//!
//! `element` maps between objects and CIM paths, `view` is a consistent read view of store and machines, `service` holds
//! what the services share (a table of methods each), `call` reads parameters, `outcome` builds return values and refusals,
//! `associations` holds all associations in one table, `about` says for the audit log what a call concerned.

mod about;
mod associations;
mod call;
mod collection_management_service;
mod collection_of_mses;
mod collection_snapshot_service;
mod computer_system;
mod concrete_job;
mod deps;
mod element;
mod kept;
mod names;
mod outcome;
mod service;
mod snapshot_check;
mod snapshot_collection;
mod storage_allocation_setting_data;
mod view;
mod virtual_system_setting_data;
mod virtual_system_snapshot_service;

use std::sync::Arc;

use crate::provider::{Provider, Registry, RegistryError};

use associations::Associations;
use collection_of_mses::Groups;
use computer_system::ComputerSystems;
use concrete_job::ConcreteJobs;
pub use deps::Deps;
pub use kept::Kept;
use names::MachineNames;
use service::ServiceProvider;
use snapshot_collection::SnapshotCollections;
use storage_allocation_setting_data::Disks;
use virtual_system_setting_data::VirtualSystemSettings;

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
        Arc::new(VirtualSystemSettings(deps.clone(), names)),
        Arc::new(Disks(deps.clone())),
        Arc::new(Groups(deps.clone())),
        Arc::new(SnapshotCollections(deps.clone())),
        Arc::new(ConcreteJobs(deps.clone())),
        Arc::new(ServiceProvider(
            deps.clone(),
            &collection_snapshot_service::TABLE,
        )),
        Arc::new(ServiceProvider(
            deps.clone(),
            &collection_management_service::TABLE,
        )),
        Arc::new(ServiceProvider(
            deps.clone(),
            &virtual_system_snapshot_service::TABLE,
        )),
        Arc::new(ServiceProvider(deps.clone(), &snapshot_check::TABLE)),
        Arc::new(Associations(deps)),
    ];
    Registry::new(schema, providers, EMBEDDED_ONLY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cim::Schema;
    use crate::cim::schema::VIRTUALIZATION_V2;

    /// Methods that would stop or start the service itself.
    const OF_THE_SERVICE: [&str; 3] = ["RequestStateChange", "StartService", "StopService"];

    #[test]
    fn a_service_has_a_row_for_each_method_of_its_class() {
        let schema = Schema::builtin();
        for table in [
            &collection_snapshot_service::TABLE,
            &collection_management_service::TABLE,
            &virtual_system_snapshot_service::TABLE,
            &snapshot_check::TABLE,
        ] {
            for class in table.classes {
                let class = schema.class(VIRTUALIZATION_V2, class).unwrap();
                let declared = class.methods.iter().map(|m| m.name.as_str());
                let declared = declared.filter(|name| !OF_THE_SERVICE.contains(name));
                let mut declared: Vec<_> = declared.collect();
                let mut rows: Vec<_> = table.methods.iter().map(service::Row::name).collect();
                declared.sort_unstable();
                rows.sort_unstable();
                assert_eq!(rows, declared, "{}", class.name);
            }
        }
    }
}
