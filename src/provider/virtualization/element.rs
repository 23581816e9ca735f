//! What the classes of this namespace stand for, and the object path of each thing, both ways.
//!
//! The forms of the keys are those of Hyper-V where clients compare them: upper-case GUIDs without braces,
//! `Microsoft:<GUID>` for settings, `Microsoft:<GUID>\<disk>\0\D` for disks.

use crate::cim::schema::VIRTUALIZATION_V2;
use crate::cim::{Path, Schema};
use crate::id::{CollectionId, JobId, SetId, SnapshotId, VmId};
use crate::inventory::{CollectionKind, Service};
use crate::provider::registry::as_leaf;

use super::view::View;

/// Something that has a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Element {
    /// This host.
    Host,
    /// A virtual machine.
    Machine(VmId),
    /// The settings a machine runs with.
    ActiveSettings(VmId),
    /// The settings a snapshot keeps.
    SnapshotSettings(SnapshotId),
    /// A disk of either.
    Disk(Owner, String),
    /// A collection; its kind decides its class.
    Group(CollectionId, CollectionKind),
    /// A snapshot set.
    Set(SetId),
    /// A job.
    Job(JobId),
    /// A service.
    Service(Service),
    /// What tells of what CreateSnapshot would do.
    SnapshotCheck,
}

/// Whose disk it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// A machine's, as it is now.
    Machine(VmId),
    /// A snapshot's.
    Snapshot(SnapshotId),
}

/// `Msvm_ComputerSystem`
pub(super) const COMPUTER_SYSTEM: &str = "Msvm_ComputerSystem";
/// `Msvm_VirtualSystemSettingData`
pub(super) const SETTINGS: &str = "Msvm_VirtualSystemSettingData";
/// `Msvm_StorageAllocationSettingData`
pub(super) const DISK: &str = "Msvm_StorageAllocationSettingData";
/// `Msvm_VirtualSystemCollection`
pub(super) const MACHINE_GROUP: &str = "Msvm_VirtualSystemCollection";
/// `Msvm_ManagementCollection`
pub(super) const GROUP_OF_GROUPS: &str = "Msvm_ManagementCollection";
/// `Msvm_SnapshotCollection`
pub(super) const SET: &str = "Msvm_SnapshotCollection";
/// `Msvm_ConcreteJob`
pub(super) const JOB: &str = "Msvm_ConcreteJob";
/// `Msvm_CollectionSnapshotService`
pub(super) const SNAPSHOT_SERVICE: &str = "Msvm_CollectionSnapshotService";
/// `Msvm_CollectionManagementService`
pub(super) const MANAGEMENT_SERVICE: &str = "Msvm_CollectionManagementService";

/// `Msvm_VirtualSystemSnapshotService`
pub(super) const VM_SNAPSHOT_SERVICE: &str = "Msvm_VirtualSystemSnapshotService";

/// `Groupshot_SnapshotCheck`
pub(super) const SNAPSHOT_CHECK: &str = "Groupshot_SnapshotCheck";
/// InstanceID of its only instance.
pub(super) const SNAPSHOT_CHECK_ID: &str = "Groupshot:SnapshotCheck";

const LEAVES: [&str; 11] = [
    COMPUTER_SYSTEM,
    SETTINGS,
    DISK,
    MACHINE_GROUP,
    GROUP_OF_GROUPS,
    SET,
    JOB,
    SNAPSHOT_SERVICE,
    MANAGEMENT_SERVICE,
    VM_SNAPSHOT_SERVICE,
    SNAPSHOT_CHECK,
];

impl Element {
    /// Its leaf class.
    pub(super) const fn class(&self) -> &'static str {
        match self {
            Self::Host | Self::Machine(_) => COMPUTER_SYSTEM,
            Self::ActiveSettings(_) | Self::SnapshotSettings(_) => SETTINGS,
            Self::Disk(..) => DISK,
            Self::Group(_, CollectionKind::Machines) => MACHINE_GROUP,
            Self::Group(_, CollectionKind::Collections) => GROUP_OF_GROUPS,
            Self::Set(_) => SET,
            Self::Job(_) => JOB,
            Self::Service(Service::CollectionSnapshot) => SNAPSHOT_SERVICE,
            Self::Service(Service::CollectionManagement) => MANAGEMENT_SERVICE,
            Self::Service(Service::VirtualSystemSnapshot) => VM_SNAPSHOT_SERVICE,
            Self::SnapshotCheck => SNAPSHOT_CHECK,
        }
    }

    /// Its path on the host of that name; the path itself names no host.
    pub(super) fn path(&self, host: &str) -> Path {
        let path = Path::new(VIRTUALIZATION_V2, self.class());
        match self {
            Self::Host => system_path(path, host),
            Self::Machine(id) => system_path(path, &id.to_string()),
            Self::ActiveSettings(id) => path.key("InstanceID", settings_id(id)),
            Self::SnapshotSettings(id) => path.key("InstanceID", settings_id(id)),
            Self::Disk(owner, disk) => path.key("InstanceID", disk_id(*owner, disk)),
            Self::Group(id, _) => path.key("CollectionID", id.to_string()),
            Self::Set(id) => path.key("CollectionID", id.to_string()),
            Self::Job(id) => path.key("InstanceID", id.to_string()),
            Self::SnapshotCheck => path.key("InstanceID", SNAPSHOT_CHECK_ID),
            Self::Service(service) => path
                .key("CreationClassName", self.class())
                .key("Name", service_name(*service))
                .key("SystemCreationClassName", COMPUTER_SYSTEM)
                .key("SystemName", host),
        }
    }

    /// The existing element of the leaf class `class` with the keys of `path`.
    pub(super) fn find(view: &View, class: &str, path: &Path) -> Option<Self> {
        let element = match class {
            COMPUTER_SYSTEM => find_system(view, path),
            SETTINGS => find_settings(view, own_part(path.text("InstanceID")?)?),
            DISK => find_disk(view, path.text("InstanceID")?),
            MACHINE_GROUP => {
                let id = parse(path.text("CollectionID")?)?;
                Some(Self::Group(id, CollectionKind::Machines))
            }
            GROUP_OF_GROUPS => {
                let id = parse(path.text("CollectionID")?)?;
                Some(Self::Group(id, CollectionKind::Collections))
            }
            SET => parse(path.text("CollectionID")?).map(Self::Set),
            JOB => parse(path.text("InstanceID")?).map(Self::Job),
            SNAPSHOT_SERVICE => find_service(view, path, Service::CollectionSnapshot),
            MANAGEMENT_SERVICE => find_service(view, path, Service::CollectionManagement),
            VM_SNAPSHOT_SERVICE => find_service(view, path, Service::VirtualSystemSnapshot),
            SNAPSHOT_CHECK => {
                key_is(path, "InstanceID", SNAPSHOT_CHECK_ID).then_some(Self::SnapshotCheck)
            }
            _ => None,
        };
        element.filter(|e| view.has(e))
    }

    /// The machine of this host that a path names, whether it exists or not.
    pub(super) fn machine_named(host: &str, path: &Path) -> Option<VmId> {
        if !is_here(host, path) {
            return None;
        }
        let is_system =
            path.class == *COMPUTER_SYSTEM && key_is(path, "CreationClassName", COMPUTER_SYSTEM);
        is_system.then(|| parse(path.text("Name")?)).flatten()
    }

    /// The existing element that a reference means. Its class may be a superclass of the leaf, up to
    /// `declared`; host and namespace may be left out, but not be others (`docs/semantics.md` §2).
    pub(super) fn resolve(
        view: &View,
        schema: &Schema,
        path: &Path,
        declared: &str,
    ) -> Option<Self> {
        if !is_here(&view.host, path) {
            return None;
        }
        let namespace = path.namespace.as_deref().unwrap_or(VIRTUALIZATION_V2);
        if !namespace.eq_ignore_ascii_case(VIRTUALIZATION_V2) {
            return None;
        }
        let class = schema.class(VIRTUALIZATION_V2, path.class.as_str())?;
        if !class.is_a(declared) {
            return None;
        }
        schema
            .subtree(VIRTUALIZATION_V2, class.name.as_str())
            .iter()
            .filter_map(|leaf| Some((leaf_name(leaf.name.as_str())?, as_leaf(leaf, path)?)))
            .find_map(|(leaf, path)| Self::find(view, leaf, &path))
    }
}

/// Does the path name no other host than this one?
fn is_here(own: &str, path: &Path) -> bool {
    let here = |host: &String| {
        host.eq_ignore_ascii_case(own) || host == "." || host.eq_ignore_ascii_case("localhost")
    };
    path.host.as_ref().is_none_or(here)
}

/// Name of the service instance; Hyper-V publishes only the last, so the others are ours; all stay.
pub(super) const fn service_name(service: Service) -> &'static str {
    match service {
        Service::CollectionSnapshot => "vssCollectionSnapshot",
        Service::CollectionManagement => "collectionManagement",
        Service::VirtualSystemSnapshot => "vssnapsvc",
    }
}

/// InstanceID of settings.
pub(super) fn settings_id(guid: &impl ToString) -> String {
    format!("Microsoft:{}", guid.to_string())
}

/// InstanceID of a disk.
pub(super) fn disk_id(owner: Owner, disk: &str) -> String {
    let owner = match owner {
        Owner::Machine(id) => id.to_string(),
        Owner::Snapshot(id) => id.to_string(),
    };
    format!(r"Microsoft:{owner}\{disk}\0\D")
}

fn system_path(path: Path, name: &str) -> Path {
    path.key("CreationClassName", COMPUTER_SYSTEM)
        .key("Name", name)
}

fn leaf_name(class: &str) -> Option<&'static str> {
    LEAVES
        .into_iter()
        .find(|leaf| leaf.eq_ignore_ascii_case(class))
}

/// A GUID as keys carry it: in any case, without braces.
fn parse<T: std::str::FromStr>(guid: &str) -> Option<T> {
    if guid.starts_with('{') {
        return None;
    }
    guid.parse().ok()
}

fn key_is(path: &Path, key: &str, value: &str) -> bool {
    path.text(key)
        .is_some_and(|text| text.eq_ignore_ascii_case(value))
}

fn find_system(view: &View, path: &Path) -> Option<Element> {
    if !key_is(path, "CreationClassName", COMPUTER_SYSTEM) {
        return None;
    }
    if key_is(path, "Name", &view.host) {
        return Some(Element::Host);
    }
    parse(path.text("Name")?).map(Element::Machine)
}

/// The owner of settings: the GUID of a machine or of a snapshot.
fn find_settings(view: &View, guid: &str) -> Option<Element> {
    let active = parse(guid).map(Element::ActiveSettings)?;
    if view.has(&active) {
        return Some(active);
    }
    parse(guid).map(Element::SnapshotSettings)
}

fn find_disk(view: &View, instance_id: &str) -> Option<Element> {
    let mut parts = own_part(instance_id)?.split('\\');
    let (guid, disk) = (parts.next()?, parts.next()?);
    let end = (parts.next()?, parts.next()?, parts.next());
    if end.0 != "0" || !end.1.eq_ignore_ascii_case("D") || end.2.is_some() {
        return None;
    }
    let owner = match find_settings(view, guid)? {
        Element::ActiveSettings(id) => Owner::Machine(id),
        Element::SnapshotSettings(id) => Owner::Snapshot(id),
        _ => return None,
    };
    let mut disks = view.disk_ids(owner).into_iter();
    let id = disks.find(|id| id.eq_ignore_ascii_case(disk))?;
    Some(Element::Disk(owner, id))
}

/// What follows `Microsoft:` in an InstanceID.
fn own_part(instance_id: &str) -> Option<&str> {
    let (authority, own) = instance_id.split_once(':')?;
    authority.eq_ignore_ascii_case("Microsoft").then_some(own)
}

fn find_service(view: &View, path: &Path, service: Service) -> Option<Element> {
    let element = Element::Service(service);
    let same = key_is(path, "CreationClassName", element.class())
        && key_is(path, "Name", service_name(service))
        && key_is(path, "SystemCreationClassName", COMPUTER_SYSTEM)
        && key_is(path, "SystemName", &view.host);
    same.then_some(element)
}
