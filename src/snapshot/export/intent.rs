//! What the journal of an export says before anything is made.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::held::Origin;
use crate::id::JobId;
use crate::inventory::SnapshotSet;
use crate::snapshot::directory::Directory;
use crate::text::Text;
use crate::text::catalog::snapshot as texts;

/// Everything that recovery needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The job.
    pub job: JobId,
    /// The set when it was asked for.
    pub set: SnapshotSet,
    /// The disks too, or definitions only.
    pub storage: bool,
    /// The directory in which the exported one is made.
    pub directory: Directory,
    /// When it was asked for.
    pub exported: Timestamp,
    /// Who asked.
    pub owner: String,
}

/// What its journal tells later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum Record {
    /// It has made its folder, and nothing is in it yet.
    Made {
        /// Which one it is.
        folder: Origin,
    },
    /// The commit: it is whole, under its name.
    Exported,
}

impl Intent {
    /// The name of the exported directory.
    pub(crate) fn target(&self) -> String {
        self.set.id.to_string()
    }

    /// Its name until it is whole.
    pub(crate) fn temporary(&self) -> String {
        format!(".groupshot-{}-{}.part", self.set.id, self.job)
    }

    /// Says that the target is there already.
    pub(crate) fn exists(&self) -> Text {
        let target = self.directory.path().join(self.target());
        texts::EXPORT_EXISTS.with("target", target.display())
    }
}
