//! Who may call which method: the one table. Reading needs no entry; every user may read.

use crate::cim::{Class, Method};
use crate::handler::{Identity, Role};
use crate::text::catalog::provider as texts;

use super::{Error, Status};

/// The class that introduces the methods, the least role, the methods.
type Row = (&'static str, Role, &'static [&'static str]);

/// A row counts for the subclasses too: a method may be called through the URI of any class that has it.
const TABLE: &[Row] = &[
    (
        "Msvm_CollectionSnapshotService",
        Role::Operator,
        &[
            "CreateSnapshot",
            "ExportSnapshot",
            "ConvertToReferencePoint",
        ],
    ),
    (
        "Msvm_CollectionSnapshotService",
        Role::Administrator,
        &["ApplySnapshot", "DestroySnapshot"],
    ),
    (
        "Groupshot_SnapshotCheck",
        Role::Operator,
        &["CheckSnapshot"],
    ),
    (
        "CIM_VirtualSystemSnapshotService",
        Role::Operator,
        &["CreateSnapshot"],
    ),
    (
        "CIM_VirtualSystemSnapshotService",
        Role::Administrator,
        &["ApplySnapshot", "DestroySnapshot"],
    ),
    (
        "Msvm_VirtualSystemSnapshotService",
        Role::Operator,
        &["ConvertToReferencePoint"],
    ),
    (
        "Msvm_VirtualSystemSnapshotService",
        Role::Administrator,
        &["DestroySnapshotTree", "ClearSnapshotState"],
    ),
    (
        "Msvm_CollectionManagementService",
        Role::Operator,
        &[
            "DefineCollection",
            "RenameCollection",
            "AddMember",
            "RemoveMember",
            "RemoveMemberById",
        ],
    ),
    (
        "Msvm_CollectionManagementService",
        Role::Administrator,
        &["DestroyCollection"],
    ),
    ("CIM_ConcreteJob", Role::Reader, &["GetError"]),
    ("Msvm_ConcreteJob", Role::Reader, &["GetErrorEx"]),
    // of their own jobs; the provider asks for an administrator where the job is another user's
    ("CIM_Job", Role::Operator, &["KillJob"]),
    ("CIM_ConcreteJob", Role::Operator, &["RequestStateChange"]),
    (
        "CIM_EnabledLogicalElement",
        Role::Administrator,
        &["RequestStateChange"],
    ),
    (
        "CIM_Service",
        Role::Administrator,
        &["StartService", "StopService"],
    ),
    (
        "CIM_ComputerSystem",
        Role::Administrator,
        &["SetPowerState"],
    ),
    (
        "Msvm_ComputerSystem",
        Role::Administrator,
        &[
            "RequestReplicationStateChange",
            "RequestReplicationStateChangeEx",
            "InjectNonMaskableInterrupt",
            "InjectNonMaskableInterruptEx",
            "RequestCustomRestore",
        ],
    ),
];

/// The least role that may call the method; `None` if the table does not know the method.
#[must_use]
pub fn required(class: &Class, method: &str) -> Option<Role> {
    class.lineage().find_map(|ancestor| {
        TABLE
            .iter()
            .filter(|(name, ..)| ancestor.name == **name)
            .find(|(.., methods)| methods.iter().any(|m| m.eq_ignore_ascii_case(method)))
            .map(|(_, role, _)| *role)
    })
}

/// May this user call the method? What the table does not know is for administrators.
///
/// # Errors
/// [`Status::AccessDenied`].
pub fn check(identity: &Identity, class: &Class, method: &Method) -> Result<(), Error> {
    let needed = required(class, method.name.as_str()).unwrap_or(Role::Administrator);
    if identity.role >= needed {
        return Ok(());
    }
    let text = texts::ROLE_TOO_LOW
        .with("user", &identity.user)
        .with("role", identity.role)
        .with("method", &method.name)
        .with("needed", needed);
    Err(Error::new(Status::AccessDenied, text))
}
