//! The port by which disks are captured: a [`Plan`], what is done by it, and its undo.
//!
//! Calls block and are made from blocking threads. They are idempotent: `prepare`, `cut` and `undo` done twice are as done
//! once.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::engine::beside::Beside;
use crate::engine::{EngineError, Stamp, Top, stage};
use crate::id::{SetId, VmId};
use crate::inventory::{Disk, Machine, Sealed, SnapshotDisk};

/// How one disk will be captured. Goes into the journal before anything is done, so that recovery knows
/// every name. What is the driver's own of it only the driver reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// [`crate::engine::Driver::name`] of the driver that made the plan.
    pub driver: String,
    /// The set.
    pub set: SetId,
    /// The machine.
    pub machine: VmId,
    /// Its name when planned, for messages.
    pub machine_name: String,
    /// The disk as it was when planned; `disk.file` is the old top.
    pub disk: Disk,
    /// What its driver alone knows of it.
    #[serde(flatten)]
    pub(in crate::engine) own: NewFile,
}

/// The file that a driver makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct NewFile {
    /// The new top (overlay) or the clone (reflink).
    pub(in crate::engine) new_file: PathBuf,
    /// The old top as it was when planned; `cut` refuses if it changed since.
    pub(in crate::engine) seen: Stamp,
    /// The folder of the old top, where the new file is made in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::engine) place: Option<Beside>,
    /// The mode of the old top, where it is closed to writers; an undo gives it back. An older version noted none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::engine) mode: Option<u32>,
}

impl Plan {
    /// The names that the new file has: until the cut, and from then on.
    #[must_use]
    pub fn names(&self) -> [PathBuf; 2] {
        [stage::part(self), self.file().new_file.clone()]
    }

    /// Whether the new file is made beside an image, in a folder that others may take away.
    #[must_use]
    pub fn is_beside(&self) -> bool {
        self.file().place.is_some()
    }

    pub(in crate::engine) const fn file(&self) -> &NewFile {
        &self.own
    }
}

/// Captures disks.
pub trait Capture: Send + Sync + 'static {
    /// A plan to capture the disk, or `None` if this driver cannot capture it (found by trying, not by the name of the
    /// file system). Leaves nothing behind.
    ///
    /// # Errors
    /// No driver can capture the disk: missing, locked, unreadable, no space. [`crate::engine::EngineErrorKind::Unsupported`] if it is
    /// not snapshottable.
    fn plan(&self, machine: &Machine, disk: &Disk, set: SetId)
    -> Result<Option<Plan>, EngineError>;

    /// Is there the space that `prepare` asks for? Writes nothing.
    ///
    /// # Errors
    /// [`crate::engine::EngineErrorKind::Full`].
    fn room(&self, _plan: &Plan) -> Result<(), EngineError> {
        Ok(())
    }

    /// Does everything slow: creates and fsyncs files.
    ///
    /// # Errors
    /// [`EngineError`]; call `undo` then.
    fn prepare(&self, plan: &Plan) -> Result<(), EngineError>;

    /// Captures. Fast; the writers stand still.
    ///
    /// # Errors
    /// [`EngineError`]; call `undo` then.
    fn cut(&self, plan: &Plan) -> Result<(), EngineError>;

    /// Makes the capture durable after the writers have gone on.
    ///
    /// # Errors
    /// [`EngineError`]; call `undo` then.
    fn settle(&self, plan: &Plan) -> Result<(), EngineError>;

    /// The active file of the disk after the cut.
    fn top_after(&self, plan: &Plan) -> Top;

    /// The disk as the snapshot keeps it after the cut.
    fn captured(&self, plan: &Plan) -> SnapshotDisk;

    /// Removes whatever of the plan is there. The old top is the active file again (or still).
    ///
    /// # Errors
    /// [`EngineError`]; recovery tries again.
    fn undo(&self, plan: &Plan) -> Result<(), EngineError>;

    /// Seals what `settle` has made durable, with all that it lies on, as it is now; empty where nothing is kept in files.
    /// `known` are seals of the machine that are durable already.
    ///
    /// # Errors
    /// Something of it is not there or cannot be read, or is not what was planned.
    fn seal(
        &self,
        plan: &Plan,
        machine: Option<&Machine>,
        known: &BTreeSet<Sealed>,
    ) -> Result<Vec<Sealed>, EngineError>;
}
