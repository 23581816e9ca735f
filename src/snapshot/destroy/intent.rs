//! What the journal knows of a destroy.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::engine::{Layer, Merge, Stamp};
use crate::id::{JobId, SetId, SnapshotId, VmId};
use crate::inventory::Sealed;

/// Everything that recovery needs to know of a destroy from its beginning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Its job.
    pub job: JobId,
    /// The set.
    pub set: SetId,
    /// The member snapshots that go.
    pub members: Vec<Member>,
    /// Nothing goes: the hidden layers of the one member are merged, and the set stands for nothing.
    #[serde(default)]
    pub tidies: bool,
}

/// What its journal tells later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum Record {
    /// It merges a layer into the one under it.
    Merge {
        /// Every name.
        merge: Merge,
    },
    /// The lower file has the content; from here on names are changed.
    Merged {
        /// The file that goes.
        child: PathBuf,
        /// As it was when it was merged.
        seen: Stamp,
        /// The lower file as it was then; none from an older version.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<Stamp>,
    },
}

/// One snapshot of an [`Intent`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The machine.
    pub machine: VmId,
    /// Its name at the cut, for texts.
    pub name: String,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// What its children stand on afterwards.
    pub parent: Option<SnapshotId>,
    /// The copy of the definition.
    pub definition: PathBuf,
    /// The files that it keeps.
    pub captured: BTreeSet<PathBuf>,
    /// Every file of the machine, with everything under it.
    pub layers: Vec<Layer>,
    /// The files that it keeps and those under them, as they were once frozen.
    #[serde(default)]
    pub sealed: Vec<Sealed>,
    /// Those that are known to be changed by somebody else: none of them is merged.
    #[serde(default)]
    pub damaged: BTreeSet<PathBuf>,
}
