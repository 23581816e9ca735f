//! `Msvm_CollectionSnapshotService`: one file for each method (create, apply, destroy, export, convert).

mod apply_snapshot;
mod convert_to_reference_point;
pub(super) mod create_snapshot;
mod destroy_snapshot;
mod export_snapshot;
mod settings;

use crate::inventory::Service;

use super::element::SNAPSHOT_SERVICE;
use super::service::{Row, Table, instance};

use apply_snapshot::ApplySnapshot;
use convert_to_reference_point::ConvertToReferencePoint;
use create_snapshot::CreateSnapshot;
use destroy_snapshot::DestroySnapshot;
use export_snapshot::ExportSnapshot;

/// `Msvm_CollectionSnapshotService`
pub(super) static TABLE: Table = Table {
    classes: &[SNAPSHOT_SERVICE],
    service: Some(Service::CollectionSnapshot),
    instance: |deps, class, language| instance(deps, class, Service::CollectionSnapshot, language),
    methods: &[
        Row::of::<CreateSnapshot>(),
        Row::of::<ApplySnapshot>(),
        Row::of::<DestroySnapshot>(),
        Row::of::<ExportSnapshot>(),
        Row::of::<ConvertToReferencePoint>(),
    ],
};
