//! The operator's check-up of one data directory: what is wrong there, and what can be done about it.
//!
//! `look` finds, `cure` repairs, one finding at a time and each repair repeatable. Without a server both work in
//! the process that asks; with one they are asked of it over a socket (`line`).

pub mod line;

mod cure;
mod fold;
mod look;
mod needs;
mod remains;

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::auth::Authenticator;
use crate::clock::SharedClock;
use crate::engine::Compute;
use crate::engine::locks::FrozenFiles;
use crate::engine::space::Reserve;
use crate::snapshot::Coordinator;
use crate::store::Store;

/// What can be wrong; the codes are part of the contract with scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// A journal that is damaged or from another version: no server starts.
    JournalUnreadable,
    /// An operation that has not ended, and no server works on it.
    OpenJournal,
    /// Recorded paths lie in another data directory, and their files in this one.
    DataDirectoryMoved,
    /// The data directory is not the one that its id was made for: a copy, or restored.
    DataDirectoryCopied,
    /// The database and the records of sets beside their files do not know the same sets: no server starts.
    SetRecords,
    /// Files of a set that neither the database nor a record knows.
    SetUnknown,
    /// `users.json` cannot be read or was changed: no server starts.
    UsersUnreadable,
    /// An operation that cannot end now; its machines are held.
    Stuck,
    /// A folder that is away with all files that are named in it.
    FolderMissing,
    /// A folder with several needed files into which the server may not go.
    FolderUnreadable,
    /// A definition, or a `tops.json`, that cannot be read.
    DefinitionUnreadable,
    /// A path in a definition on which the machine does not run.
    PathIdle,
    /// An active file to which no link leads, for it names the file under it from its own folder.
    Unlinked,
    /// An active file, or a file under one, that is not there.
    ImageMissing,
    /// An active file, or a file under one, that cannot be read as what it should be.
    ImageUnreadable,
    /// A file that does not answer, as on a hung mount.
    Silent,
    /// An active file outside `image_roots`.
    ImageOutsideRoots,
    /// A folder in which others than root and the server may exchange images.
    ImageExposed,
    /// A folder for exports that others than root and the server may exchange.
    ExportExposed,
    /// A file that a snapshot set needs is not there.
    KeptMissing,
    /// A file that a snapshot set needs is not as it was written.
    KeptChanged,
    /// A frozen file that its mode lets be written.
    FrozenWritable,
    /// A frozen file that is not locked against writers while the server runs.
    FrozenUnlocked,
    /// A frozen file that another process has open for writing.
    FrozenOpen,
    /// Files of sets were changed after they were captured.
    Damaged,
    /// A collection with a member that is not in the library any more.
    MemberGone,
    /// A machine that something runs.
    Running,
    /// A hidden layer that can be merged now.
    PendingMerge,
    /// A hidden layer that must stay for now.
    HiddenLayer,
    /// A file that a destroyed set has left.
    Leftover,
    /// A file that nothing names.
    Orphan,
    /// Less free space than the reserve.
    SpaceLow,
    /// A chain of files that nears `chain_cap`.
    ChainDeep,
    /// A certificate that expires, or a key that others may read.
    Certificate,
    /// Something could not be looked at.
    Unknown,
}

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Data is missing or not what it should be, or the server cannot work.
    Error,
    /// Somebody should look.
    Warning,
    /// Good to know; nothing needs to be done.
    Info,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What is wrong.
    pub kind: FindingKind,
    /// How much it matters.
    pub severity: Severity,
    /// What it is about: a file, a machine, a disk of a set. With `kind` it names the finding.
    pub object: String,
    /// In words.
    pub text: String,
    /// What a repair would do; `None` if there is none.
    pub fix: Option<String>,
    /// The files that it is about, where the object is a folder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// The machines that it is about, where it is about several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<Concerned>,
    /// The snapshot sets that it is about, where it is about several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<Concerned>,
}

/// A machine or set that a finding is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concerned {
    /// Its id.
    pub id: String,
    /// Its name; empty if that is not known.
    pub name: String,
}

impl Concerned {
    fn new(id: &impl ToString, name: &str) -> Self {
        Self {
            id: id.to_string(),
            name: name.to_owned(),
        }
    }
}

impl Finding {
    /// Must somebody do something?
    #[must_use]
    pub fn needs_somebody(&self) -> bool {
        self.severity != Severity::Info
    }
}

/// A file of the library of machines that cannot be used as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibraryProblem {
    /// Which kind.
    pub kind: FindingKind,
    /// The file.
    pub file: PathBuf,
    /// In words.
    pub text: String,
}

/// Looks at what is wrong with the library now.
pub type LibraryProblems = Box<dyn Fn() -> Vec<LibraryProblem> + Send + Sync>;

/// Looks whether the TLS files will do.
pub type Certificates = Box<dyn Fn() -> Vec<String> + Send + Sync>;

/// Looks whether something of the data directory is as it should be; else what was found and what to do.
pub type Directory = Box<dyn Fn() -> Option<String> + Send + Sync>;

/// Freezes what is to be frozen, as the server does by itself a moment later, and gives what is.
pub type Freeze = Box<dyn Fn() -> Arc<FrozenFiles> + Send + Sync>;

/// What a check-up works with.
pub struct Deps {
    /// The operations and records of the data directory.
    pub coordinator: Arc<Coordinator>,
    /// The machines.
    pub compute: Arc<dyn Compute>,
    /// The state of sets.
    pub store: Arc<dyn Store>,
    /// Time.
    pub clock: SharedClock,
    /// Who is locked out; `None` where no server runs.
    pub logons: Option<Arc<Authenticator>>,
    /// What is kept frozen by this process; `None` where no server runs.
    pub frozen: Option<Freeze>,
    /// What is wrong with definitions and active files.
    pub library: LibraryProblems,
    /// Warnings about certificates.
    pub certificates: Certificates,
    /// Whether the data directory is the one that it was.
    pub directory: Directory,
    /// Whether the database and the records of sets know the same sets.
    pub records: Directory,
    /// Whether the users can be read.
    pub users: Directory,
    /// What must stay free.
    pub reserve: Reserve,
    /// Where sets may be exported to.
    pub export_roots: Vec<PathBuf>,
    /// The deepest chain that is allowed.
    pub chain_cap: usize,
    /// The data directory.
    pub data_dir: PathBuf,
}

/// Looks and repairs.
pub struct Doctor {
    deps: Deps,
}

impl Doctor {
    /// A doctor for one data directory.
    #[must_use]
    pub fn new(deps: Deps) -> Arc<Self> {
        Arc::new(Self { deps })
    }
}
