//! The port by which disks go back to what a snapshot keeps: a [`RevertPlan`], what is done by it, and its undo.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::engine::beside::Beside;
use crate::engine::{EngineError, Hold, Stamp, Top, exchange};
use crate::id::{JobId, SetId, VmId};
use crate::inventory::{Disk, Format, Image, Machine, SnapshotDisk};
use crate::text::Text;

/// How one disk goes back to what a snapshot keeps. Goes into the journal before anything is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevertPlan {
    /// [`crate::engine::Driver::name`] of the driver that made the snapshot.
    pub driver: String,
    /// The set.
    pub set: SetId,
    /// The machine.
    pub machine: VmId,
    /// Its name when planned, for messages.
    pub machine_name: String,
    /// The disk as it was when planned; `disk.file` is the old top.
    pub disk: Disk,
    /// The disk as the snapshot keeps it.
    pub kept: SnapshotDisk,
    /// What its driver alone knows of it.
    #[serde(flatten)]
    pub(in crate::engine) own: NewFile,
}

/// The file that a driver makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct NewFile {
    /// The new top, or what is exchanged with the old one.
    pub(in crate::engine) new_file: PathBuf,
    /// Its format.
    pub(in crate::engine) new_format: Format,
    /// The recorded path of the old top, links resolved, if the new file takes its place there.
    pub(in crate::engine) in_place: Option<PathBuf>,
    /// The old top as it was when planned.
    pub(in crate::engine) seen: Stamp,
    /// The folder of images that the new file is made in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::engine) place: Option<Beside>,
}

impl RevertPlan {
    /// Whether the active file stands where the new one was made, as nothing but the exchange of the two leaves it.
    /// Blocks.
    #[must_use]
    pub fn is_exchanged(&self) -> bool {
        exchange::is_exchanged(self)
    }

    /// Whether another file becomes the active one.
    #[must_use]
    pub fn moves(&self) -> bool {
        !self.is_in_place() && self.disk.file != self.file().new_file
    }

    /// Whether the new file is made beside an image, in a folder that others may take away.
    #[must_use]
    pub fn is_beside(&self) -> bool {
        self.file().place.is_some()
    }

    /// Whether the new file takes the place of the old one, and the old one is kept beside it until the end.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        self.file().in_place.is_some()
    }

    /// The name under which the new file is made.
    #[must_use]
    pub fn made(&self) -> &Path {
        &self.file().new_file
    }

    pub(in crate::engine) const fn file(&self) -> &NewFile {
        &self.own
    }

    /// The active file before the revert.
    #[must_use]
    pub fn old_top(&self) -> Top {
        Top {
            file: self.disk.file.clone(),
            format: self.disk.format,
        }
    }
}

/// What was made for a [`RevertPlan`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prepared {
    /// What the new file does not keep of the old one beside its content.
    pub lost: Vec<Text>,
    /// The new file, if it takes the place of the old one: as it may be recorded there.
    pub made: Option<Image>,
}

/// What a [`RevertPlan`] is planned from.
#[derive(Debug, Clone, Copy)]
pub struct RevertRequest<'a> {
    /// The job; names of new files come from it.
    pub job: JobId,
    /// The set.
    pub set: SetId,
    /// The machine.
    pub machine: &'a Machine,
    /// Its disk as it is now.
    pub disk: &'a Disk,
    /// The disk as the snapshot keeps it.
    pub kept: &'a SnapshotDisk,
    /// A snapshot or another file needs the active file as it is: it must not be replaced.
    pub shared: bool,
}

/// Puts disks back to what this driver keeps of them.
pub trait Revert: Send + Sync + 'static {
    /// A plan to put a disk back to what this driver keeps of it. Leaves nothing behind.
    ///
    /// # Errors
    /// What is kept, or the active file, is missing or unreadable.
    fn plan_revert(&self, request: RevertRequest<'_>) -> Result<RevertPlan, EngineError>;

    /// Makes and fsyncs the new file. May be repeated before the revert.
    ///
    /// # Errors
    /// [`EngineError`]; call `undo_revert` then.
    fn prepare_revert(&self, revert: &RevertPlan) -> Result<Prepared, EngineError>;

    /// Holds the new file as a running machine would, as far as it is not the active file yet.
    ///
    /// # Errors
    /// [`crate::engine::EngineErrorKind::Locked`] if anyone has it open.
    fn hold_revert(&self, revert: &RevertPlan) -> Result<Hold, EngineError>;

    /// Puts the new file in the place of the old one, durably, where it is to stand there. May be repeated.
    ///
    /// # Errors
    /// [`EngineError`]; it is tried again.
    fn revert(&self, revert: &RevertPlan) -> Result<(), EngineError>;

    /// The active file of the disk after the revert.
    fn top_reverted(&self, revert: &RevertPlan) -> Top;

    /// Removes what the revert needed no longer: the exchanged-out content. May be repeated.
    ///
    /// # Errors
    /// [`EngineError`]; it is tried again.
    fn settle_revert(&self, revert: &RevertPlan) -> Result<(), EngineError>;

    /// Removes whatever was prepared. Only before `revert`.
    ///
    /// # Errors
    /// [`EngineError`]; recovery tries again.
    fn undo_revert(&self, revert: &RevertPlan) -> Result<(), EngineError>;
}
