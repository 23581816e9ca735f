//! What the services have in common: their one instance, and methods that are not implemented.

use std::sync::Arc;

use crate::cim::{Class, Instance};
use crate::inventory::Service;
use crate::provider::Error;
use crate::text::Language;
use crate::text::catalog::provider as texts;

use super::element::{COMPUTER_SYSTEM, Element, service_name};

/// `EnabledState` 2: Enabled.
const ENABLED: u16 = 2;
/// `OperationalStatus` 2: OK.
const OK: u16 = 2;
/// `HealthState` 5: OK.
const HEALTHY: u16 = 5;

/// The instance of a service: there is exactly one, always started.
pub(super) fn instance(
    class: &Arc<Class>,
    host: &str,
    service: Service,
    language: Language,
) -> Result<Instance, Error> {
    let title = match service {
        Service::CollectionSnapshot => texts::TITLE_SNAPSHOT_SERVICE,
        Service::CollectionManagement => texts::TITLE_MANAGEMENT_SERVICE,
        Service::VirtualSystemSnapshot => texts::TITLE_VM_SNAPSHOT_SERVICE,
    };
    let description = match service {
        Service::VirtualSystemSnapshot => texts::ABOUT_VM_SNAPSHOT_SERVICE,
        _ => title,
    };
    let title = title.text().render(language);
    Instance::new(class)
        .with("CreationClassName", Element::Service(service).class())?
        .with("Name", service_name(service))?
        .with("SystemCreationClassName", COMPUTER_SYSTEM)?
        .with("SystemName", host)?
        .with("Caption", title.as_str())?
        .with("ElementName", title.as_str())?
        .with("Description", description.text().render(language))?
        .with("Started", true)?
        .with("EnabledState", ENABLED)?
        .with("OperationalStatus", vec![OK])?
        .with(
            "StatusDescriptions",
            vec![texts::STATUS_OK.text().render(language)],
        )?
        .with("HealthState", HEALTHY)
        .map_err(Error::from)
}
