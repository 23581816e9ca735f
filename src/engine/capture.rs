//! The port by which disks are captured: a [`Plan`], what is done by it, and its undo.
//!
//! Calls block and are made from blocking threads. They are idempotent: `prepare`, `cut` and `undo` done twice are as done
//! once.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::beside::Beside;
use crate::engine::{EngineError, Hold, Stamp, Top, stage};
use crate::held;
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
    /// What the machine was if it was not off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::engine) live: Option<Live>,
    /// The new file once it was made, where that is known.
    #[serde(skip)]
    pub(in crate::engine) made: Option<FileId>,
}

/// A file by device and inode.
pub type FileId = (u64, u64);

/// What stands where the new file of a plan is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NewThere {
    /// The file.
    pub file: Option<FileId>,
    /// It is noted that nothing in it is of use any more: see [`Plan::note_put_back`].
    pub is_stale: bool,
}

impl NewThere {
    /// Whether the file that was made is not what stands here. Devices have other numbers after a boot.
    #[must_use]
    pub fn lacks(&self, made: FileId) -> bool {
        self.file.is_none_or(|(_, inode)| inode != made.1)
    }
}

/// A machine that is not off, as far as the storage of its disks goes: something has their files open and writes to them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// The user id whose rights count when it opens a file; none where this process has to see to nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<u32>,
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

    /// Whether the machine was off when it was planned.
    #[must_use]
    pub const fn is_off(&self) -> bool {
        self.own.live.is_none()
    }

    /// Makes the old file of a machine that has gone on with its new one durable, and notes beside the new one, durably
    /// too, that the old one has all that was written since: the new one is stale from then on, though it holds data. To be
    /// called before the machine is back on the old one, when both are equal and nothing is written any more; if it stays on
    /// the new one after all, [`Plan::forget_put_back`] comes before it writes there. Blocks.
    ///
    /// # Errors
    /// It is not noted.
    pub fn note_put_back(&self) -> Result<(), EngineError> {
        stage::note_put_back(self)
    }

    /// Takes the note back, durably. Blocks.
    ///
    /// # Errors
    /// It may stand still.
    pub fn forget_put_back(&self) -> Result<(), EngineError> {
        stage::forget_put_back(self)
    }

    pub(in crate::engine) const fn made(&self) -> Option<FileId> {
        self.own.made
    }

    /// The same, with what its new file is.
    #[must_use]
    pub fn with_made(mut self, made: Option<FileId>) -> Self {
        self.own.made = made;
        self
    }

    pub(in crate::engine) const fn file(&self) -> &NewFile {
        &self.own
    }
}

/// A job of a machine that puts back what its new file holds, by which another process knows what to do with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutBack {
    /// What the machine calls it.
    pub job: String,
    /// Where [`Plan::note_put_back`] leaves its note.
    pub note: PathBuf,
}

impl PutBack {
    /// Whether it is noted that all was put back, durably from now on: the job may take its last step then, and must not be
    /// given up any more. Blocks.
    ///
    /// # Errors
    /// That cannot be seen, or made durable.
    pub fn is_noted(&self) -> io::Result<bool> {
        let note = match held::open(&self.note, false) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            note => note?,
        };
        // Whoever made it may have died before it was durable.
        note.sync_all()?;
        held::sync_folder(self.note.parent().unwrap_or(Path::new("/")))?;
        Ok(true)
    }
}

/// Captures disks.
pub trait Capture: Send + Sync + 'static {
    /// A plan to capture the disk, or `None` if this driver cannot capture it (found by trying, not by the name of the
    /// file system). `live` is what has the disk open if the machine is not off. Leaves nothing behind.
    ///
    /// # Errors
    /// No driver can capture the disk: missing, locked, unreadable, no space. [`crate::engine::EngineErrorKind::Unsupported`] if it is
    /// not snapshottable.
    fn plan(
        &self,
        machine: &Machine,
        disk: &Disk,
        set: SetId,
        live: Option<Live>,
    ) -> Result<Option<Plan>, EngineError>;

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

    /// Of a machine that is not off: makes durable what it has written so far, last of all that comes before it is
    /// stopped, so that it need not stand still for that.
    ///
    /// # Errors
    /// [`EngineError`]; call `undo` then.
    fn flush(&self, _plan: &Plan) -> Result<(), EngineError> {
        Ok(())
    }

    /// Captures. Fast; the writers stand still. Not called where the machine [does it](crate::engine::Running::takes).
    ///
    /// # Errors
    /// [`EngineError`]; call `undo` then.
    fn cut(&self, plan: &Plan) -> Result<(), EngineError>;

    /// What was captured where it stands is as it was then: at this time or, of a machine that is off, when it was planned.
    /// Nobody writes it now.
    ///
    /// # Errors
    /// It may have changed, and why, or that cannot be told.
    fn stays(&self, _plan: &Plan, _captured: Option<Timestamp>) -> Result<(), EngineError> {
        Ok(())
    }

    /// Makes the capture durable after the writers have gone on.
    ///
    /// # Errors
    /// [`EngineError`]; call `undo` then.
    fn settle(&self, plan: &Plan) -> Result<(), EngineError>;

    /// The active file of the disk after the cut.
    fn top_after(&self, plan: &Plan) -> Top;

    /// The disk as the snapshot keeps it after the cut.
    fn captured(&self, plan: &Plan) -> SnapshotDisk;

    /// Lets the machine write the old top again, which `settle` has closed: before one that runs is back on it. May be
    /// done at any time before `undo`, and again.
    ///
    /// # Errors
    /// [`EngineError`]; recovery tries again.
    fn reopen(&self, _plan: &Plan) -> Result<(), EngineError> {
        Ok(())
    }

    /// The new top, if a machine that captured its disk itself has written to it since, and was not put back on the old
    /// one: what it holds is nowhere else. Asked only when nothing has it open any more.
    ///
    /// # Errors
    /// That cannot be told; recovery tries again.
    fn outlived(&self, _plan: &Plan) -> Result<Option<Top>, EngineError> {
        Ok(None)
    }

    /// What stands at the place of a new file that the machine opens itself.
    ///
    /// # Errors
    /// That cannot be seen.
    fn new_there(&self, _plan: &Plan) -> Result<NewThere, EngineError> {
        Ok(NewThere::default())
    }

    /// Keeps everybody else from a new file that the machine had open itself and has no more; nothing if it is not there.
    ///
    /// # Errors
    /// [`crate::engine::EngineErrorKind::Locked`] if somebody has it.
    fn hold_new(&self, _plan: &Plan) -> Result<Hold, EngineError> {
        Ok(Hold::default())
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Format;

    #[test]
    fn a_plan_of_a_machine_that_is_off_stands_in_the_journal_as_ever() {
        let plan = |live| Plan {
            driver: "test".to_owned(),
            set: SetId::from_u128(1),
            machine: VmId::from_u128(2),
            machine_name: "m".to_owned(),
            disk: Disk {
                id: "disk0".to_owned(),
                file: "/images/a.raw".into(),
                format: Format::Raw,
                size: 1,
            },
            own: NewFile {
                new_file: "/data/a.qcow2".into(),
                seen: Stamp::default(),
                place: None,
                live,
                made: None,
                mode: None,
            },
        };
        for (live, wanted) in [
            (None, None),
            (Some(Live::default()), Some("{}")),
            (Some(Live { user: Some(7) }), Some("{\"user\":7}")),
        ] {
            let plan = plan(live);
            let written = serde_json::to_value(&plan).unwrap();
            let live = written.get("live").map(ToString::to_string);
            assert_eq!(live.as_deref(), wanted);
            assert_eq!(serde_json::from_value::<Plan>(written).unwrap(), plan);
        }
    }
}
