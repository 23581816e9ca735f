//! `Msvm_VirtualSystemSnapshotService`: works on the snapshots of single machines.

mod apply_snapshot;
mod destroy_snapshot;

use crate::id::{SetId, SnapshotId};
use crate::inventory::{JobKind, Service, What};
use crate::text::catalog::provider as texts;

use super::call::Call;
use super::element::{Element, VM_SNAPSHOT_SERVICE};
use super::outcome::{Refusal, management, snapshot};
use super::service::{Row, Table, instance};

use apply_snapshot::ApplySnapshot;
use destroy_snapshot::DestroySnapshot;

/// `Msvm_VirtualSystemSnapshotService`
pub(super) static TABLE: Table = Table {
    classes: &[VM_SNAPSHOT_SERVICE],
    service: Some(Service::VirtualSystemSnapshot),
    instance: |deps, class, language| {
        instance(deps, class, Service::VirtualSystemSnapshot, language)
    },
    methods: &[
        Row::of::<ApplySnapshot>(),
        Row::of::<DestroySnapshot>(),
        Row::not_supported(
            "CreateSnapshot",
            JobKind::CreateSnapshotSet,
            What::Create,
            snapshot::NOT_SUPPORTED,
        ),
        Row::not_supported(
            "ConvertToReferencePoint",
            JobKind::Other,
            What::Convert,
            snapshot::NOT_SUPPORTED,
        ),
        Row::not_supported(
            "DestroySnapshotTree",
            JobKind::Other,
            What::Other,
            management::NOT_SUPPORTED,
        ),
        Row::not_supported(
            "ClearSnapshotState",
            JobKind::Other,
            What::Other,
            management::NOT_SUPPORTED,
        ),
    ],
};

/// The snapshot that `parameter` names, and the set that it is of.
fn snapshot_of(call: &Call<'_>, parameter: &str) -> Result<(SetId, SnapshotId), Refusal> {
    let invalid = |text| Refusal::new(snapshot::INVALID_PARAMETER, text);
    let declared = "CIM_VirtualSystemSettingData";
    let id = match call.element(parameter, declared) {
        Ok(Element::SnapshotSettings(id)) => id,
        Ok(_) => return Err(invalid(texts::NO_SNAPSHOT.with("parameter", parameter))),
        Err(text) => return Err(invalid(text)),
    };
    let state = call.deps.store.state();
    let found = state.snapshots.get(&id).map(|(set, _)| (*set, id));
    found.ok_or_else(|| invalid(texts::NO_SNAPSHOT.with("parameter", parameter)))
}
