//! What the journal knows of an apply.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::engine::{Layer, RevertPlan, Top};
use crate::id::{JobId, SetId, SnapshotId, VmId};
use crate::inventory::Image;
use crate::text::Argument;

/// Everything that recovery needs to know of an apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The job.
    pub job: JobId,
    /// The set.
    pub set: SetId,
    /// What is done to each member.
    pub members: Vec<Member>,
}

/// What its journal tells later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum Record {
    /// The commit: every new file is durable. From here it only goes forward.
    Applied {
        /// What the new files do not keep of the old ones beside their content; words from older versions.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        lost: Vec<Argument>,
        /// The new files that take the place of images.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        made: Made,
    },
}

/// The files that this program has made to take the place of images, by machine and disk, as they are recorded there.
pub type Made = BTreeMap<VmId, BTreeMap<String, Image>>;

/// One machine of an [`Intent`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The machine.
    pub machine: VmId,
    /// Its name, for texts.
    pub name: String,
    /// Its definition; a machine without one is gone.
    pub definition: PathBuf,
    /// The snapshot that is applied.
    pub snapshot: SnapshotId,
    /// How each disk goes back; `disk.file` is the old top.
    pub reverts: Vec<RevertPlan>,
    /// The active file of each of these disks afterwards.
    pub tops: BTreeMap<String, Top>,
    /// Every file that the machine has before, with everything under it: after a death nothing else leads to what
    /// the old tops lay on.
    #[serde(default)]
    pub layers: Vec<Layer>,
}
