//! What the journal knows of a create from its beginning.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::engine::{Plan, Top};
use crate::id::VmId;
use crate::inventory::{Sealed, SnapshotSet};

/// The seals of captured disks, by machine and disk id.
pub type Seals = BTreeMap<VmId, BTreeMap<String, Vec<Sealed>>>;

/// SHA-256 of the copies of definitions, by machine.
pub type Digests = BTreeMap<VmId, String>;

/// Everything that recovery needs to know of a create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The set to be; its times stand for the moment of acceptance until the cut.
    pub set: SnapshotSet,
    /// What is done to each member, in the order of `set.members`.
    pub members: Vec<Member>,
}

/// What its journal tells later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum Record {
    /// Every file is made and durable.
    Prepared,
    /// The commit: every member is captured. From here it only goes forward.
    Cut {
        /// When each machine was captured.
        times: BTreeMap<VmId, Timestamp>,
        /// The seals of each captured disk, by machine and disk.
        #[serde(default)]
        seals: Seals,
        /// The digest of each copy of a definition.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        definitions: Digests,
    },
}

/// One machine of an [`Intent`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The machine.
    pub machine: VmId,
    /// Its name, for texts.
    pub name: String,
    /// Its definition, and the copy that the snapshot will keep.
    pub definition: FileCopy,
    /// How each disk is captured; `disk.file` of a plan is the old top.
    pub plans: Vec<Plan>,
    /// The active file of each captured disk after the cut.
    pub tops: BTreeMap<String, Top>,
}

/// A file to be copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCopy {
    /// From here.
    pub from: PathBuf,
    /// To there.
    pub to: PathBuf,
}

impl Intent {
    /// The set as it is published: with the times of the cut, the seals of its disks and the digests of its definitions.
    #[must_use]
    pub fn finished(
        &self,
        times: &BTreeMap<VmId, Timestamp>,
        seals: &Seals,
        digests: &Digests,
    ) -> SnapshotSet {
        let mut set = self.set.clone();
        for member in &mut set.members {
            member.definition_sha256 = digests.get(&member.machine).cloned();
            let sealed = seals.get(&member.machine);
            for disk in &mut member.disks {
                let sealed = sealed.and_then(|disks| disks.get(&disk.id));
                disk.sealed = sealed.cloned().unwrap_or_default();
            }
            if let Some(time) = times.get(&member.machine) {
                member.cut_at = *time;
            }
        }
        if let (Some(first), Some(last)) = (times.values().min(), times.values().max()) {
            set.created = *last;
            set.window = last.duration_since(*first);
        } else {
            set.window = SignedDuration::ZERO;
        }
        set
    }
}
