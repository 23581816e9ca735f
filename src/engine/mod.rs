//! The two ports, [`Compute`] (knows machines) and [`Storage`] (captures disks and puts them back), and their adapters:
//! `library` and `sim` for the former, `reflink`, `overlay` and `sim` for the latter. [`running::Running`] is the port to a
//! machine that runs; `sim` alone has an adapter.
//!
//! An engine knows machines and files, not CIM, not the store. Calls of a [`Storage`] driver block and are made from
//! blocking threads. They are idempotent: `prepare`, `cut` and `undo` done twice are as done once.

pub mod content;
pub mod definition;
pub mod drivers;
pub mod failure;
pub mod flatten;
pub mod graph;
pub(crate) mod image;
pub mod import;
pub mod kept;
pub mod library;
pub mod links;
pub mod locks;
pub mod merge;
pub mod overlay;
pub mod place;
pub mod qcow2;
pub mod qemu;
pub mod recorded;
pub mod reflink;
pub mod relocate;
pub mod running;
pub mod setting;
pub mod sim;
pub mod space;
pub mod turn;

mod extents;
mod name;
mod project;
mod revert;
mod stage;
mod whose;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture};
use serde::{Deserialize, Serialize};

use crate::engine::place::Place;
use crate::engine::qcow2::chain::Roots;
use crate::engine::running::Running;
use crate::id::{JobId, SetId, VmId};
use crate::inventory::{Disk, Format, Image, Machine, RunState, SnapshotDisk};
use crate::text::{Argument, Text};

/// Every machine of the engine at one moment, by id.
pub type Machines = BTreeMap<VmId, Arc<Machine>>;

/// Looks whether the files that are recorded as the active ones of a machine can be that. Blocks, and asks no engine.
pub type Judge = Box<dyn Fn(&Machine) -> Result<(), Doubt> + Send + Sync>;

/// Why a [`Judge`] does not vouch for active files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// An operation on the machine has not ended: it cannot be told yet.
    Open,
    /// They are others, for this reason.
    Tops(String),
}

/// Knows and runs machines.
pub trait Compute: Send + Sync + 'static {
    /// The machines now. Cheap: a shared snapshot that the engine renews when definitions change.
    fn machines(&self) -> Arc<Machines>;

    /// [`Compute::machines`] as they were known last: waits for nothing, for who has to name them on a thread that serves.
    fn known(&self) -> Arc<Machines> {
        self.machines()
    }

    /// One machine.
    fn machine(&self, id: VmId) -> Option<Arc<Machine>> {
        self.machines().get(&id).cloned()
    }

    /// What it does at this moment. Looks at files: to be called from blocking threads.
    fn state(&self, id: VmId) -> RunState;

    /// What it did when it was last looked at, within a second where its files answer. Opens no file itself.
    fn shown_state(&self, id: VmId) -> RunState {
        self.state(id)
    }

    /// Waits a moment until [`Compute::machines`] tells what is so, to within a second, and is never held up by a file
    /// that does not answer.
    fn looked(&self) -> BoxFuture<'static, ()> {
        future::ready(()).boxed()
    }

    /// Waits until every machine was looked at within a second, but for those whose files do not answer. Blocks: for
    /// operations, so that it is known what they must not wait for.
    fn catch_up(&self) {}

    /// [`Compute::catch_up`] by a look that begins now; whether it came to its end. For whoever writes or removes a file
    /// that a machine of the last second may lie on.
    fn renew(&self) -> bool {
        true
    }

    /// The way to a machine that runs or is paused; none where this engine has no monitor of it. Cheap: connects nowhere.
    fn running(&self, _id: VmId) -> Option<Arc<dyn Running>> {
        None
    }

    /// The file of a machine that is known not to answer, as on a hung mount. Looks at none.
    fn silent(&self, _id: VmId) -> Option<PathBuf> {
        None
    }

    /// Why a machine that is there is not among [`Compute::machines`]: what describes it cannot be read, or tells of active
    /// files that cannot be the active ones.
    fn trouble(&self, _id: VmId) -> Option<Text> {
        None
    }

    /// Whether that is because of active files that cannot be the active ones.
    fn is_doubtful(&self, _id: VmId) -> bool {
        false
    }

    /// Whether the active file of one of its disks is away, cannot be read, or lies where it must not.
    fn is_ailing(&self, _id: VmId) -> bool {
        false
    }

    /// The files that lay under the active file of a disk when it was last seen with all of them: what it may need
    /// while it cannot be read. `None` if that is not known.
    fn below(&self, _id: VmId, _disk: &str) -> Option<Vec<PathBuf>> {
        None
    }

    /// The first disk whose active file is not the one that the definition names and does not lie on it, as the
    /// definition is now, and why that is so. No set may be taken then: nobody knows which file is meant.
    fn misnamed(&self, _id: VmId) -> Option<(String, Text)> {
        None
    }

    /// Where images and their backing files must lie.
    fn roots(&self) -> Roots {
        Roots::default()
    }

    /// Makes `tops` the active files of the machine, durably (write, fsync, rename, fsync of the
    /// directory). Disks that are not named keep theirs.
    ///
    /// # Errors
    /// [`EngineError`]; the old tops stand then. [`EngineErrorKind::Broken`] if a sync failed: either may stand.
    fn set_tops(&self, id: VmId, tops: &BTreeMap<String, Top>) -> Result<(), EngineError>;

    /// [`Compute::set_tops`] after an apply that has put files which this program made in the place of images: `made`, by
    /// disk. The files themselves are not checked again.
    ///
    /// # Errors
    /// As there.
    fn set_applied(
        &self,
        id: VmId,
        tops: &BTreeMap<String, Top>,
        _made: &BTreeMap<String, Image>,
    ) -> Result<(), EngineError> {
        self.set_tops(id, tops)
    }

    /// [`Compute::set_tops`] for a machine of which no active files are recorded any more; `tops` are all of them.
    ///
    /// # Errors
    /// As there; also if some are recorded.
    fn restore_tops(&self, id: VmId, tops: &BTreeMap<String, Top>) -> Result<(), EngineError> {
        self.set_tops(id, tops)
    }

    /// Keeps everyone else from starting the machine or writing its disks as long as the [`Hold`] lives: from planning
    /// until right before the result is published (`docs/cut.md` §5).
    ///
    /// # Errors
    /// [`EngineErrorKind::Locked`] if another process or operation has one of the disks.
    fn hold(&self, machine: &Machine) -> Result<Hold, EngineError>;
}

/// The image locks of one machine; dropping it releases them.
#[derive(Debug, Default)]
#[must_use = "dropping it lets the disks go"]
pub struct Hold {
    /// One lock a disk; empty where the engine has no files.
    pub locks: Vec<locks::ImageLock>,
}

/// What a file looked like: enough to see that someone else changed it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
    /// Length in bytes.
    pub length: u64,
    /// Modification time, whole seconds since 1970.
    pub seconds: i64,
    /// Modification time, nanoseconds of the second.
    pub nanos: i64,
}

impl Stamp {
    /// The stamp of a file with this metadata.
    #[must_use]
    pub fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            seconds: metadata.mtime(),
            nanos: metadata.mtime_nsec(),
        }
    }
}

/// The active file of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Top {
    /// Absolute.
    pub file: PathBuf,
    /// Its format.
    pub format: Format,
}

/// What a driver needs to have stopped while it cuts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Every writer must stand still.
    NeedsPause,
    /// The driver cuts a group of disks atomically by itself.
    AtomicGroup,
}

/// How one disk will be captured. Goes into the journal before anything is done, so that recovery knows
/// every name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// [`Storage::name`] of the driver that made the plan.
    pub driver: String,
    /// The set.
    pub set: SetId,
    /// The machine.
    pub machine: VmId,
    /// Its name when planned, for messages.
    pub machine_name: String,
    /// The disk as it was when planned; `disk.file` is the old top.
    pub disk: Disk,
    /// The file that the driver will make: the new top (overlay) or the clone (reflink).
    pub new_file: PathBuf,
    /// The old top as it was when planned; `cut` refuses if it changed since.
    pub seen: Stamp,
    /// The folder of the old top, where the new file is made in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
}

impl Plan {
    /// The names that the new file has: until the cut, and from then on.
    #[must_use]
    pub fn names(&self) -> [PathBuf; 2] {
        [stage::part(self), self.new_file.clone()]
    }
}

/// How one disk goes back to what a snapshot keeps. Goes into the journal before anything is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revert {
    /// [`Storage::name`] of the driver that made the snapshot.
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
    /// The file that is made: the new top, or what is exchanged with the old one.
    pub new_file: PathBuf,
    /// Its format.
    pub new_format: Format,
    /// The recorded path of the old top, links resolved, if the new file takes its place there.
    pub in_place: Option<PathBuf>,
    /// The old top as it was when planned.
    pub seen: Stamp,
    /// The folder of images that the new file is made in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
}

impl Revert {
    /// Whether the active file stands where the new one was made, as nothing but the exchange of the two leaves it.
    /// Blocks.
    #[must_use]
    pub fn is_exchanged(&self) -> bool {
        revert::is_exchanged(self)
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

/// What was made for a [`Revert`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prepared {
    /// What the new file does not keep of the old one beside its content.
    pub lost: Vec<Text>,
    /// The new file, if it takes the place of the old one: as it may be recorded there.
    pub made: Option<Image>,
}

/// What a [`Revert`] is planned from.
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

/// What a plan has left on the disk, by inspection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing of the plan is there.
    Absent,
    /// Its file is there, the cut is not done or not complete.
    Prepared,
    /// The file holds a complete cut.
    Cut,
}

/// Captures disks and puts them back.
pub trait Storage: Send + Sync + 'static {
    /// `overlay`, `reflink`, `sim`. Recorded in plans and snapshots, so it must never change.
    fn name(&self) -> &'static str;

    /// Whether its snapshots have content in files, and so can be exported.
    fn has_content(&self) -> bool {
        true
    }

    /// What must stand still during the cut.
    fn scope(&self) -> Scope;

    /// A plan to capture the disk, or `None` if this driver cannot capture it (found by trying, not by the name of the
    /// file system). Leaves nothing behind.
    ///
    /// # Errors
    /// No driver can capture the disk: missing, locked, unreadable, no space. [`EngineErrorKind::Unsupported`] if it is
    /// not snapshottable.
    fn plan(&self, machine: &Machine, disk: &Disk, set: SetId)
    -> Result<Option<Plan>, EngineError>;

    /// Is there the space that `prepare` asks for? Writes nothing.
    ///
    /// # Errors
    /// [`EngineErrorKind::Full`].
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

    /// What of the plan is on the disk.
    ///
    /// # Errors
    /// [`EngineError`] if it cannot be seen.
    fn probe(&self, plan: &Plan) -> Result<Found, EngineError>;

    /// A plan to put a disk back to what this driver keeps of it. Leaves nothing behind.
    ///
    /// # Errors
    /// What is kept, or the active file, is missing or unreadable.
    fn plan_revert(&self, request: RevertRequest<'_>) -> Result<Revert, EngineError>;

    /// Makes and fsyncs the new file. May be repeated before the revert.
    ///
    /// # Errors
    /// [`EngineError`]; call `undo_revert` then.
    fn prepare_revert(&self, revert: &Revert) -> Result<Prepared, EngineError>;

    /// Locks the new file as a running machine would, as far as it is not the active file yet.
    ///
    /// # Errors
    /// [`EngineErrorKind::Locked`] if anyone has it open.
    fn hold_revert(&self, revert: &Revert) -> Result<Option<locks::ImageLock>, EngineError>;

    /// Puts the new file in the place of the old one, durably, where it is to stand there. May be repeated.
    ///
    /// # Errors
    /// [`EngineError`]; it is tried again.
    fn revert(&self, revert: &Revert) -> Result<(), EngineError>;

    /// The active file of the disk after the revert.
    fn top_reverted(&self, revert: &Revert) -> Top;

    /// Removes what the revert needed no longer: the exchanged-out content. May be repeated.
    ///
    /// # Errors
    /// [`EngineError`]; it is tried again.
    fn settle_revert(&self, revert: &Revert) -> Result<(), EngineError>;

    /// Removes whatever was prepared. Only before `revert`.
    ///
    /// # Errors
    /// [`EngineError`]; recovery tries again.
    fn undo_revert(&self, revert: &Revert) -> Result<(), EngineError>;
}

impl Machine {
    /// The active file of every disk, by disk id.
    #[must_use]
    pub fn tops(&self) -> BTreeMap<String, Top> {
        let top = |d: &Disk| Top {
            file: d.file.clone(),
            format: d.format,
        };
        self.disks.iter().map(|d| (d.id.clone(), top(d))).collect()
    }
}

/// An engine could not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .text.english())]
pub struct EngineError {
    /// Which kind of trouble.
    pub kind: EngineErrorKind,
    /// For the client: names machine, disk and cause, never a secret.
    pub text: Text,
}

impl From<EngineError> for Argument {
    fn from(error: EngineError) -> Self {
        error.text.into()
    }
}

/// Kinds of trouble, as far as callers act on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineErrorKind {
    /// Another process holds the image.
    Locked,
    /// A file or directory is not there.
    Missing,
    /// No space.
    Full,
    /// Not permitted, read-only.
    Denied,
    /// This image cannot be captured by this program (encrypted, foreign format, chain too deep, …).
    Unsupported,
    /// A sync failed: nobody knows what is on the disk, so the process must stop and recover.
    Broken,
    /// The file system does not answer.
    Silent,
    /// Anything else.
    Failed,
}
