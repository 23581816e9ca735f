//! `manifest.json` of an exported set: what is there, how to check it, and where it came from.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::Flat;
use crate::id::{CollectionId, JobId, SetId, SnapshotId, VmId};
use crate::inventory::{Consistency, SetKind, Snapshot, SnapshotSet};

/// Its name in the exported directory.
pub(crate) const NAME: &str = "manifest.json";
/// The name of a machine's definition in its folder.
pub(crate) const DEFINITION: &str = "vm.toml";
const FORMAT: &str = "groupshot-export";
/// Grows when a field changes its meaning or goes.
const VERSION: u32 = 1;

/// The whole file. Names of files are relative to its directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    format: String,
    version: u32,
    /// The job that wrote it.
    pub(crate) job: JobId,
    exported: Timestamp,
    exported_by: String,
    set: Set,
    machines: Vec<Machine>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Set {
    id: SetId,
    name: String,
    kind: SetKind,
    collection: Option<CollectionId>,
    created: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Machine {
    id: VmId,
    name: String,
    snapshot: SnapshotId,
    parent: Option<SnapshotId>,
    consistency: Consistency,
    captured: Timestamp,
    definition: Definition,
    disks: Vec<Disk>,
    /// Disks that the set does not hold.
    left_out: Vec<String>,
}

/// A file of the export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Definition {
    pub(crate) file: String,
    pub(crate) sha256: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Disk {
    id: String,
    /// Virtual size in bytes.
    size: u64,
    /// Its file; nothing where only definitions were exported.
    image: Option<Image>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Image {
    file: String,
    format: String,
    /// Length of the file in bytes.
    length: u64,
    sha256: String,
}

/// What was written of one machine.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub(crate) definition: Definition,
    /// By disk id.
    pub(crate) disks: BTreeMap<String, Flat>,
}

/// Where the file of a disk lies in the export.
pub(crate) fn disk_file(machine: VmId, disk: &str) -> String {
    format!("{machine}/{disk}.qcow2")
}

impl Manifest {
    pub(crate) fn new(
        job: JobId,
        (exported, exported_by): (Timestamp, &str),
        set: &SnapshotSet,
        mut written: BTreeMap<VmId, Written>,
    ) -> Self {
        let machine = |member: &Snapshot| {
            let written = written.remove(&member.machine)?;
            Some(Machine::new(member, &written))
        };
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            job,
            exported,
            exported_by: exported_by.to_owned(),
            machines: set.members.iter().filter_map(machine).collect(),
            set: Set {
                id: set.id,
                name: set.name.clone(),
                kind: set.kind,
                collection: set.collection,
                created: set.created,
            },
        }
    }
}

impl Machine {
    fn new(member: &Snapshot, written: &Written) -> Self {
        let disk = |disk: &crate::inventory::SnapshotDisk| {
            let flat = written.disks.get(&disk.id);
            Disk {
                id: disk.id.clone(),
                size: flat.map_or(disk.size, |f| f.size),
                image: flat.map(|flat| Image {
                    file: disk_file(member.machine, &disk.id),
                    format: "qcow2".to_owned(),
                    length: flat.length,
                    sha256: flat.sha256.clone(),
                }),
            }
        };
        Self {
            id: member.machine,
            name: member.machine_name.clone(),
            snapshot: member.id,
            parent: member.parent,
            consistency: member.consistency,
            captured: member.cut_at,
            disks: member.disks.iter().map(disk).collect(),
            definition: written.definition.clone(),
            left_out: member.left_out.clone(),
        }
    }
}
