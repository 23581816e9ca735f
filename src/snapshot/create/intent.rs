//! What the journal knows of a create from its beginning.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::engine::{FileId, Graph, Plan, Runner, Top};
use crate::id::VmId;
use crate::inventory::{Sealed, SnapshotSet, Sockets};

/// The seals of captured disks, by machine and disk id.
pub type Seals = BTreeMap<VmId, BTreeMap<String, Vec<Sealed>>>;

/// What new files are, by machine and disk id.
pub type Made = BTreeMap<VmId, BTreeMap<String, FileId>>;

/// SHA-256 of the copies of definitions, by machine.
pub type Digests = BTreeMap<VmId, String>;

/// Everything that recovery needs to know of a create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The set to be; its times stand for the moment of acceptance until the cut.
    pub set: SnapshotSet,
    /// What is done to each member, in the order of `set.members`.
    pub members: Vec<Member>,
    /// The run of the host in which members stand still for it, if any of them runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
}

/// What its journal tells later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum Record {
    /// Every file is made and durable.
    Prepared {
        /// Those that machines open themselves.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        made: Made,
    },
    /// It goes back, and nothing that this machine has written is in its new files alone, but for those that stay: the
    /// others may be removed from here on.
    Decided {
        /// The machine.
        machine: VmId,
    },
    /// Something else may have written the file that a machine had left, so what that has written since does not fit it.
    Stale {
        /// The machine.
        machine: VmId,
        /// The disk.
        disk: String,
    },
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
    /// What it is captured from if it is not off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<Runs>,
}

/// A machine that runs or is paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runs {
    /// It runs, and goes on afterwards. Else it is paused, and stays so.
    pub goes_on: bool,
    /// Its guest is brought to rest before it is stopped.
    pub quiesces: bool,
    /// Its disks; it must have the same when it is stopped.
    pub graph: Graph,
    /// The disks that it captures itself.
    pub takes: BTreeSet<String>,
    /// What runs it: no other process is let go, thawed or put back for it. Older journals do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<Runner>,
    /// Where it is reached. Older journals do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sockets: Option<Sockets>,
}

impl Member {
    /// The plans that the machine carries out itself.
    pub(crate) fn taken(&self) -> Vec<&Plan> {
        let takes = |plan: &&Plan| {
            let runs = self.runs.as_ref();
            runs.is_some_and(|runs| runs.takes.contains(&plan.disk.id))
        };
        self.plans.iter().filter(takes).collect()
    }

    /// The plans that the driver carries out.
    pub(crate) fn left(&self) -> Vec<&Plan> {
        let taken = self.taken();
        let left = self.plans.iter().filter(|plan| !taken.contains(plan));
        left.collect()
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_that_tells_neither_processes_nor_new_files_is_read() {
        let record = r#"{"record":"prepared"}"#;
        let prepared: Record = serde_json::from_str(record).unwrap();
        let nothing = Record::Prepared {
            made: Made::default(),
        };
        assert_eq!(prepared, nothing);
        assert_eq!(serde_json::to_string(&nothing).unwrap(), record);
        let text = r#"{"goes_on":true,"quiesces":false,"graph":{},"takes":[]}"#;
        let runs: Runs = serde_json::from_str(text).unwrap();
        assert_eq!((&runs.runner, &runs.sockets), (&None, &None));
        assert_eq!(serde_json::to_string(&runs).unwrap(), text);
        let all = Record::Prepared {
            made: [(VmId::from_u128(1), [("disk0".to_owned(), (7, 8))].into())].into(),
        };
        let written = serde_json::to_string(&all).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&written).unwrap(), all);
    }
}
