//! What the journal knows of a destroy.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::engine::Stamp;
use crate::engine::failure::At;
use crate::engine::merge::{self, Inodes};
use crate::engine::qcow2::chain::Roots;
use crate::id::{JobId, SetId, SnapshotId, VmId};
use crate::inventory::{Format, Machine, Sealed};

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

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// The disk.
    pub disk: String,
    /// Absolute.
    pub file: PathBuf,
    /// Its format.
    pub format: Format,
    /// The machine has written it: a file that the snapshot keeps, or the imported image. What was under that
    /// is never written.
    pub written: bool,
}

/// A child that goes into its parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merge {
    /// The machine.
    pub machine: VmId,
    /// The disk, for texts.
    pub disk: String,
    /// The lower file.
    pub parent: PathBuf,
    /// Its format.
    pub parent_format: Format,
    /// The qcow2 file that goes into it.
    pub child: PathBuf,
    /// What both were when it was decided; none from an older version.
    #[serde(default)]
    pub inodes: Inodes,
}

impl Merge {
    /// What does it: `of` is the machine and the id of its disk, `roots` where both files must lie.
    pub(super) fn work<'a>(
        &'a self,
        at: &'a At,
        roots: &'a Roots,
        of: Option<&'a Machine>,
    ) -> merge::Merge<'a> {
        merge::Merge {
            at,
            parent: &self.parent,
            parent_format: self.parent_format,
            child: &self.child,
            inodes: self.inodes,
            roots,
            of: of.map(|machine| (machine, self.disk.as_str())),
        }
    }
}
