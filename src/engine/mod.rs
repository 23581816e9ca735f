//! What the rest of the program asks of machines and their disks, as ports, and the adapters behind them.
//!
//! [`Compute`] knows machines. What is done to their disks is a port for each purpose: [`Capture`], [`Revert`] (puts them
//! back), [`Retain`] (keeps what snapshots hold, and gives it up) and [`Read`]. A [`Driver`] has the first two, and the others
//! as far as its snapshots have files and content; [`Drivers`] finds the one of a disk. A [`Hold`] keeps others away
//! meanwhile. [`Running`] is the port to a machine that runs. The ports, and what they are asked with, are named by
//! `crate::engine::…`; `snapshot` uses nothing else of this module (`tests/tidy.rs`).
//!
//! Adapters: `library` and `sim` are engines, whose [`Running`] is `qemu::live` and `sim`; `reflink`, `overlay` and `sim` are drivers. An
//! engine knows machines and files, not CIM, not the store. Calls of a driver block and are made from blocking threads.

pub mod beside;
pub mod capture;
pub mod content;
pub mod definition;
pub mod drivers;
pub mod failure;
pub mod flatten;
pub mod graph;
pub mod hold;
pub(crate) mod image;
pub mod import;
pub mod kept;
pub mod library;
pub mod links;
pub mod locks;
pub mod merge;
pub(crate) mod names;
pub mod observed;
pub mod overlay;
pub mod qcow2;
pub mod qemu;
pub mod read;
pub mod recorded;
pub mod reflink;
pub mod relocate;
pub mod retain;
pub mod revert;
pub mod runner;
pub mod running;
pub mod setting;
pub mod settings;
pub mod sim;
pub mod space;
pub mod turn;

mod acl;
mod actives;
mod exchange;
mod extents;
mod files;
mod fsxattr;
mod name;
mod stage;
mod survey;
mod uses;
mod whose;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::engine::qcow2::chain::Roots;
use crate::id::VmId;
use crate::inventory::{Disk, Format, Image, Machine, RunState};
use crate::text::{Argument, Text};

pub use capture::{Capture, FileId, Live, NewThere, Plan, PutBack};
pub use drivers::{Driver, Drivers};
pub use failure::At;
pub(crate) use graph::is_file as is_in_files;
pub use hold::{Frozen, Guard, Hold};
pub(crate) use import::referred;
pub use locks::FrozenFiles;
pub use observed::Observed;
pub use read::{Flat, Kept, Read, Step, Target};
pub use retain::{
    Census, Chained, Inodes, Layer, Merge, Merged, Named, Records, Retain, Scene, Stands, Subject,
    Survey, Untold, Watch, Whose,
};
pub use revert::{Prepared, Revert, RevertPlan, RevertRequest};
pub use runner::{Process, Runner};
pub use running::{
    Described, Dues, Event, Fence, Followed, Freed, Graph, Node, QuiesceError, Quiesced, Running,
    Stopped, ThawError,
};
pub use space::Reserve;
pub use uses::Uses;

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

/// What is recorded of a machine beside its definition.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The machine.
    pub machine: VmId,
    /// Where it is recorded.
    pub file: PathBuf,
    /// Its active files; `None` if that cannot be read.
    pub active: Option<Actives>,
}

/// The active files that are recorded of a machine.
#[derive(Debug, Clone, Default)]
pub struct Actives {
    /// Those that are recorded as such, by disk.
    pub tops: BTreeMap<String, Top>,
    /// Those, and the images of disks that were never captured.
    pub all: Vec<Active>,
    /// There are no others.
    pub complete: bool,
}

/// An active file by what is recorded alone.
#[derive(Debug, Clone)]
pub struct Active {
    /// The disk.
    pub disk: String,
    /// The file. Of an image that was never captured the format is what matters here: raw if it lies on nothing.
    pub top: Top,
    /// All that it is recorded to lie on; `None` if nothing is recorded of that.
    pub below: Option<Vec<PathBuf>>,
}

/// A turn of [`Compute::turn`]; it ends when this is dropped.
pub type InTurn = Box<dyn Send>;

/// Knows and runs machines.
pub trait Compute: Send + Sync + 'static {
    /// All machines as they were observed last, and each change of that from now on.
    fn observe(&self) -> watch::Receiver<Arc<Observed>>;

    /// What was observed last. Waits for nothing and looks at no file: for threads that serve.
    fn observed(&self) -> Arc<Observed> {
        Arc::clone(&self.observe().borrow())
    }

    /// The machines now: a shared snapshot that is renewed when definitions change. May wait a moment for files.
    fn machines(&self) -> Arc<Machines>;

    /// One machine.
    fn machine(&self, id: VmId) -> Option<Arc<Machine>> {
        self.machines().get(&id).cloned()
    }

    /// What it does at this moment. Looks at files: to be called from blocking threads.
    fn state(&self, id: VmId) -> RunState;

    /// Waits a moment until [`Compute::observed`] tells what is so, to within a second, and is never held up by a file
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

    /// Has the monitor of a machine that may be stopped watched by what was written down of it, until what this gives is
    /// dropped: nothing that becomes of its definition ends that. Cheap.
    fn follow(&self, _stopped: &Stopped) -> Followed {
        None
    }

    /// Whoever is at the monitor of a machine that was stopped, if that is what ran it, or runs it now, whatever files it
    /// has open. Cheap.
    fn at_monitor(&self, stopped: &Stopped) -> Option<Arc<dyn Running>> {
        self.running(stopped.machine)
    }

    /// Whether it is certain that a machine that was stopped runs no more: what cannot be seen is not. Blocks.
    fn has_ended(&self, stopped: &Stopped) -> bool {
        self.state(stopped.machine) == RunState::Off
    }

    /// The file of a machine that is known not to answer, as on a hung mount. Looks at none.
    fn silent(&self, _id: VmId) -> Option<PathBuf> {
        None
    }

    /// One machine, as it is seen in one look, or [`Observed::trouble`] of it.
    ///
    /// # Errors
    /// Why a machine that is there is not known; `None` if there is none.
    fn known(&self, id: VmId) -> Result<Arc<Machine>, Option<Text>> {
        let _looked = self.machines();
        let observed = self.observed();
        let machine = observed.machines.get(&id).cloned();
        machine.ok_or_else(|| observed.trouble(id).cloned())
    }

    /// Whether nothing of the machine is there.
    fn is_gone(&self, id: VmId) -> bool {
        self.known(id).is_err_and(|trouble| trouble.is_none())
    }

    /// Whether that is because of active files that cannot be the active ones.
    fn is_doubtful(&self, _id: VmId) -> bool {
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

    /// What is recorded of the active files of every machine, also of those that cannot be read now. As long as anything
    /// of a machine is there, the machine is. Blocks.
    ///
    /// # Errors
    /// It cannot be seen which machines there are.
    fn recorded(&self) -> Result<Vec<Recorded>, EngineError>;

    /// The same of one machine; `None` if nothing of it is there. Blocks.
    fn recorded_of(&self, id: VmId) -> Option<Recorded>;

    /// Where the machines are recorded, or this one, for texts.
    fn recorded_in(&self, _id: Option<VmId>) -> PathBuf {
        PathBuf::new()
    }

    /// A turn to change which machines there are, or what they lie on, against all other processes; none if others have
    /// it for too long, or it is given up. Blocks.
    ///
    /// # Errors
    /// It cannot be seen who has it.
    fn turn(&self, given_up: &dyn Fn() -> bool) -> io::Result<Option<InTurn>>;

    /// The definition of a machine with these files as its disks, by their ids.
    ///
    /// # Errors
    /// Why it is none.
    fn definition_with(
        &self,
        definition: &str,
        files: &BTreeMap<String, String>,
    ) -> Result<String, Text> {
        definition::with_disks(definition, files)
    }

    /// The type of the file system that a disk lies on.
    fn file_system(&self, disk: &Disk) -> String {
        space::file_system(&disk.file)
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

impl EngineErrorKind {
    /// The kind of trouble behind an I/O error.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        failure::kind(error)
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
