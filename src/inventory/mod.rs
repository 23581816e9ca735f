//! What the product keeps: machines, collections, snapshot sets and jobs as plain records with typed ids.
//!
//! These records go into the store, the journal and the engines. They know nothing of CIM; `provider`
//! turns them into instances.

mod history;
mod run_state;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::audit::About;
use crate::id::{CollectionId, JobId, SetId, SnapshotId, VmId};
use crate::text::Text;

pub use history::{ByName, Ended, Ending, Met, Query, What};
pub use run_state::{RunState, Trouble};

/// The most characters of a name of a machine, a collection or a set: `MaxLen` of the names in the CIM schema
/// (`CIM_System.Name`, `CIM_CollectionOfMSEs.CollectionID`); ElementName, which carries them, has none of its own.
/// An answer must hold any object.
pub const NAME_MAX: usize = 256;

/// Has the name more than [`NAME_MAX`] characters?
#[must_use]
pub fn is_too_long(name: &str) -> bool {
    name.chars().nth(NAME_MAX).is_some()
}

/// The name as clients see it: one that is too long, from before there was a limit, ends in `…`.
#[must_use]
pub fn shown(name: &str) -> Cow<'_, str> {
    if !is_too_long(name) {
        return Cow::Borrowed(name);
    }
    let kept = name.chars().take(NAME_MAX - 1);
    Cow::Owned(kept.chain(['…']).collect())
}

/// Format of a disk image. Raw is never guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// qcow2, version 2 or 3.
    Qcow2,
    /// Plain bytes.
    Raw,
}

impl Format {
    /// `qcow2` or `raw`: QEMU's driver name and our file suffix.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        }
    }
}

/// A disk of a machine as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Its id within the machine: `disk0`.
    pub id: String,
    /// The active file (top of the chain), absolute.
    pub file: PathBuf,
    /// Format of that file.
    pub format: Format,
    /// Virtual size in bytes.
    pub size: u64,
}

/// The file under an active file that names it from its own folder: QEMU finds it only by the path of the active file
/// itself, and by no link to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relative {
    /// As the header names it.
    pub name: String,
    /// The file, absolute.
    pub file: PathBuf,
    /// Its format.
    pub format: Format,
}

/// A virtual machine as the engine knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Its GUID.
    pub id: VmId,
    /// Its display name; not unique.
    pub name: String,
    /// Its disks in the order of the definition.
    pub disks: Vec<Disk>,
    /// The directory that holds its definition; absolute, exists.
    pub directory: PathBuf,
    /// The definition file; absolute, exists.
    pub definition: PathBuf,
    /// When it was imported.
    pub created: Timestamp,
    /// Whoever starts it looks up its active files first, so an overlay may become one.
    pub overlay_ok: bool,
    /// Somebody else may manage it.
    pub unmanaged_ok: bool,
    /// Whatever runs it may have disks open that it never writes out, whatever the guest asks for.
    pub no_flush_ok: bool,
    /// What is recorded of its imported images, by disk id.
    pub images: BTreeMap<String, Image>,
    /// What its active files name from their own folders, by disk id.
    pub relative: BTreeMap<String, Relative>,
    /// Where whatever runs it is asked.
    pub sockets: Sockets,
}

/// The sockets of whatever runs a machine, as its definition names them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sockets {
    /// QMP monitors. None: nothing is known of it while it runs.
    pub qmp: Vec<PathBuf>,
    /// The guest agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<PathBuf>,
}

impl Machine {
    /// What is recorded of the image that stands at this path, if that is one of its imported ones.
    #[must_use]
    pub fn image(&self, file: &Path) -> Option<&Image> {
        let mut images = self.images.values();
        images.find(|i| i.file == file || i.named == file)
    }
}

/// What is recorded of an image when it is imported: what must stand there later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Its path in the definition.
    pub named: PathBuf,
    /// Where that led: the same path with symbolic links resolved.
    pub file: PathBuf,
    /// `st_ino`. No device number: it may be another one after each start of the host.
    pub inode: u64,
    /// What tells it from a later file with the same number.
    #[serde(default, skip_serializing_if = "Born::is_unrecorded")]
    pub born: Born,
    /// `st_uid`.
    pub owner: u32,
    /// The permission bits.
    pub mode: u32,
    /// `st_nlink`.
    pub links: u64,
    /// What lies under it, from above, each with nothing under itself; `None` where an older version has not recorded
    /// that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<Vec<Self>>,
}

/// When a file was born, as far as that is recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Option<i64>", into = "Option<i64>")]
pub enum Born {
    /// An older version has not recorded it.
    #[default]
    Unrecorded,
    /// The file system does not tell it.
    Untold,
    /// In nanoseconds since 1970 (`stx_btime`).
    At(i64),
}

impl Born {
    /// Whether an older version has not recorded it.
    #[must_use]
    pub fn is_unrecorded(&self) -> bool {
        *self == Self::Unrecorded
    }
}

impl From<Option<i64>> for Born {
    fn from(born: Option<i64>) -> Self {
        born.map_or(Self::Untold, Self::At)
    }
}

impl From<Born> for Option<i64> {
    fn from(born: Born) -> Self {
        match born {
            Born::At(nanos) => Some(nanos),
            Born::Untold | Born::Unrecorded => None,
        }
    }
}

impl Image {
    /// It and what lies under it.
    pub fn chain(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(self.below.iter().flatten())
    }
}

impl Machine {
    /// The machine as one word of a command line: its name where a shell takes that as it stands, else its id.
    #[must_use]
    pub fn word(&self) -> String {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        match !self.name.is_empty() && !self.name.starts_with('-') && self.name.bytes().all(plain) {
            true => self.name.clone(),
            false => self.id.to_string(),
        }
    }
}

/// What a collection collects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CollectionKind {
    /// Virtual machines: `Msvm_VirtualSystemCollection`, Type 0.
    Machines,
    /// Collections: `Msvm_ManagementCollection`, Type 1.
    Collections,
}

/// A group of machines or of groups. INVARIANT: only the list that `kind` names is ever filled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collection {
    /// Its GUID.
    pub id: CollectionId,
    /// Its name; may repeat.
    pub name: String,
    /// What it collects.
    pub kind: CollectionKind,
    /// Member machines in the order they were added.
    pub machines: Vec<VmId>,
    /// Member groups in the order they were added.
    pub collections: Vec<CollectionId>,
    /// When it was defined.
    pub created: Timestamp,
}

/// SnapshotType of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SetKind {
    /// 1: an ordinary checkpoint.
    Standard,
    /// 2: for backup and replication.
    Recovery,
}

/// How much of a guest's state a snapshot is sure to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Consistency {
    /// ConsistencyLevel 1: the guest's applications had flushed, or it was off.
    Application,
    /// ConsistencyLevel 2: as after a power cut.
    Crash,
}

/// A disk as a snapshot keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotDisk {
    /// Id of the disk within its machine.
    pub id: String,
    /// The file that holds the captured content, absolute.
    pub file: PathBuf,
    /// Its format.
    pub format: Format,
    /// Virtual size at the cut, bytes.
    pub size: u64,
    /// Name of the storage driver that made it: `overlay`, `reflink`, `sim`.
    pub driver: String,
    /// That file and every file under it, as they were once frozen. Empty where there is no file, and in a
    /// record of an older version until the server has looked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sealed: Vec<Sealed>,
    /// What of it was found changed since; kept until a person accepts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damage: Option<Damage>,
}

impl SnapshotDisk {
    /// The files that lay under its file when that was sealed; `None` if it is not sealed.
    #[must_use]
    pub fn known_below(&self) -> Option<Vec<PathBuf>> {
        let (_itself, below) = self.sealed.split_first()?;
        Some(below.iter().map(|sealed| sealed.file.clone()).collect())
    }
}

/// What a frozen file looks like: a write, a change of its mode and another file in its place all show.
///
/// No device number: it may be another one after each start of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Seal {
    /// `st_ino`.
    pub inode: u64,
    /// Length in bytes.
    pub length: u64,
    /// `st_mtim`: seconds since 1970, and nanoseconds of the second.
    pub modified: (i64, i64),
    /// `st_ctim`, likewise.
    pub changed: (i64, i64),
}

impl Seal {
    /// Of a file of which this is told.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A file with its seal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sealed {
    /// Absolute, symbolic links resolved.
    pub file: PathBuf,
    /// As it was once frozen.
    pub seal: Seal,
}

/// Files under a captured disk that somebody else has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// As [`Sealed::file`]; at least one.
    pub files: Vec<PathBuf>,
    /// When the first of them was noticed.
    pub noticed: Timestamp,
}

/// The snapshot of one machine, member of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its ConfigurationID.
    pub id: SnapshotId,
    /// The machine.
    pub machine: VmId,
    /// Name of the machine at the cut.
    pub machine_name: String,
    /// Display name.
    pub name: String,
    /// The snapshot that the machine stood on before this one was taken.
    pub parent: Option<SnapshotId>,
    /// The captured disks.
    pub disks: Vec<SnapshotDisk>,
    /// Disks left out because nothing here can capture them (IgnoreNonSnapshottableDisks), by id.
    pub left_out: Vec<String>,
    /// The level reached.
    pub consistency: Consistency,
    /// Copy of the machine's definition at the cut; absolute, exists.
    pub definition: PathBuf,
    /// SHA-256 of that copy in hexadecimal digits, as it was written; an older version took none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition_sha256: Option<String>,
    /// When its disks were captured.
    pub cut_at: Timestamp,
}

/// A snapshot set: what one CreateSnapshot made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotSet {
    /// Its GUID.
    pub id: SetId,
    /// Display name.
    pub name: String,
    /// Standard or recovery.
    pub kind: SetKind,
    /// The collection that was passed; the link ends when that collection is destroyed.
    pub collection: Option<CollectionId>,
    /// When the set was taken (the cut).
    pub created: Timestamp,
    /// Its members, one a machine.
    pub members: Vec<Snapshot>,
    /// First to last capture of the set.
    pub window: SignedDuration,
    /// Who took it.
    pub owner: String,
    /// The job that made it.
    pub job: JobId,
}

/// The most disks that [`LeftOut`] names.
const LEFT_OUT_NAMED: usize = 8;
/// The most characters of a machine's name in it.
const LEFT_OUT_NAME_MAX: usize = 64;

/// The disks that snapshots do not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// How many.
    pub count: usize,
    /// The first of them in words, with their machines; its length is bounded.
    pub named: String,
}

impl LeftOut {
    /// Of these snapshots; `None` if they hold every disk.
    pub fn of<'a>(members: impl Iterator<Item = &'a Snapshot>) -> Option<Self> {
        let disks = members.flat_map(|m| m.left_out.iter().map(move |disk| (m, disk)));
        let (mut count, mut named) = (0, Vec::new());
        for (member, disk) in disks {
            if count < LEFT_OUT_NAMED {
                let name = member.machine_name.chars().take(LEFT_OUT_NAME_MAX);
                named.push(format!("{} {disk}", name.collect::<String>()));
            }
            count += 1;
        }
        if count > LEFT_OUT_NAMED {
            named.push("…".to_owned());
        }
        let named = named.join(", ");
        (count > 0).then_some(Self { count, named })
    }
}

/// A file that nothing needs any more and that could not be removed: something that may lie on it was away, or its folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leftover {
    /// The machine.
    pub machine: VmId,
    /// Its name at the cut.
    pub machine_name: String,
    /// The disk.
    pub disk: String,
    /// The file, absolute.
    pub file: PathBuf,
    /// Its format.
    pub format: Format,
    /// What it must be still: another file at its path is not ours. `None` of what an operation has made under a name
    /// that no other ever uses, in a folder that was away when it was to go.
    pub sealed: Option<Sealed>,
}

/// Where a machine stands in its tree of snapshots.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The snapshot its active disks grow from.
    pub parent: Option<SnapshotId>,
    /// The snapshot that was applied last.
    pub last_applied: Option<SnapshotId>,
}

/// JobState as far as anyone can see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// 4
    Running,
    /// 7
    Completed,
    /// 8
    Terminated,
    /// 9
    Killed,
    /// 10
    Exception,
}

impl JobState {
    /// The number in `JobState`.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::Running => 4,
            Self::Completed => 7,
            Self::Terminated => 8,
            Self::Killed => 9,
            Self::Exception => 10,
        }
    }

    /// Has it ended?
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        !matches!(self, Self::Running)
    }
}

/// What a job does; the number is its JobType.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobKind {
    /// 198
    CreateSnapshotSet,
    /// 71 (ours)
    ApplySnapshotSet,
    /// 72 (ours)
    DestroySnapshotSet,
    /// 62 (ours)
    ExportSnapshotSet,
    /// 190
    DefineCollection,
    /// 191
    DestroyCollection,
    /// 192
    RenameCollection,
    /// 193
    AddMember,
    /// 194
    RemoveMember,
    /// 0: a request that was refused and belongs to no kind above.
    Other,
}

impl JobKind {
    /// The number in `JobType`.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::CreateSnapshotSet => 198,
            Self::ApplySnapshotSet => 71,
            Self::DestroySnapshotSet => 72,
            Self::ExportSnapshotSet => 62,
            Self::DefineCollection => 190,
            Self::DestroyCollection => 191,
            Self::RenameCollection => 192,
            Self::AddMember => 193,
            Self::RemoveMember => 194,
            Self::Other => 0,
        }
    }
}

/// The service that owns a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// `Msvm_CollectionSnapshotService`
    CollectionSnapshot,
    /// `Msvm_CollectionManagementService`
    CollectionManagement,
    /// `Msvm_VirtualSystemSnapshotService`
    VirtualSystemSnapshot,
}

/// Why a job did not end well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobError {
    /// ErrorCode: the method's return value, or 32768 and up. Never 0.
    pub code: u16,
    /// ErrorDescription.
    pub description: Text,
    /// What each failing member had to say; becomes one more GetErrorEx text each.
    pub details: Vec<Text>,
}

/// Something a job works on or made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Affected {
    /// A member machine.
    Machine(VmId),
    /// A snapshot set; for a create job only from the commit that ends it.
    Set(SetId),
    /// A collection that a management job changed.
    Collection(CollectionId),
}

/// Terminate (8) or kill (9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CancelKind {
    /// RequestedState 4.
    Terminate,
    /// RequestedState 5.
    Kill,
}

/// An accepted request to stop a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelRequest {
    /// How.
    pub kind: CancelKind,
    /// Who asked.
    pub by: String,
}

/// A job, running or ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its InstanceID.
    pub id: JobId,
    /// What it does.
    pub kind: JobKind,
    /// The service whose method started it.
    pub service: Service,
    /// Its state.
    pub state: JobState,
    /// 0..=99 while it runs, 100 only when completed. Kept coarse in the store, fine in memory.
    pub percent: u8,
    /// What it is doing or did; `JobStatus`.
    pub status: Text,
    /// Can RequestStateChange still end it?
    pub cancellable: bool,
    /// The user who called.
    pub owner: String,
    /// What it works on.
    pub affected: Vec<Affected>,
    /// For a create job the set it is to make (fixed at acceptance).
    pub set: Option<SetId>,
    /// Why it did not end well; there exactly in states 8, 9 and 10.
    pub error: Option<JobError>,
    /// The same with names, as they were when it was accepted: for the log and the history.
    #[serde(default, skip_serializing_if = "About::is_empty")]
    pub about: About,
    /// The cancel that was accepted; kept so that a restart does not forget it.
    #[serde(default)]
    pub cancel: Option<CancelRequest>,
    /// When it was accepted.
    pub submitted: Timestamp,
    /// When it began to work.
    pub started: Timestamp,
    /// When its state last changed.
    pub changed: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, left_out: &[&str]) -> Snapshot {
        Snapshot {
            id: SnapshotId::from_u128(1),
            machine: VmId::from_u128(1),
            machine_name: name.to_owned(),
            name: String::new(),
            parent: None,
            disks: Vec::new(),
            left_out: left_out.iter().map(ToString::to_string).collect(),
            consistency: Consistency::Crash,
            definition: PathBuf::new(),
            definition_sha256: None,
            cut_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn disks_that_are_left_out_are_counted_and_the_first_are_named() {
        let whole = member("db", &[]);
        assert_eq!(LeftOut::of([&whole].into_iter()), None);
        let two = member("web", &["disk1", "disk2"]);
        let told = LeftOut::of([&whole, &two].into_iter()).unwrap();
        assert_eq!((told.count, &*told.named), (2, "web disk1, web disk2"));
        let long = member(&"ä".repeat(256), &["disk0"; 9]);
        let told = LeftOut::of([&two, &long].into_iter()).unwrap();
        assert_eq!(told.count, 11);
        assert!(told.named.ends_with("disk0, …"), "{}", told.named);
        assert!(told.named.chars().count() < 1000);
    }

    #[test]
    fn a_name_that_is_too_long_is_shown_cut() {
        let fits = "ä".repeat(NAME_MAX);
        assert_eq!(shown(&fits), fits);
        let cut = shown(&(fits.clone() + "b")).into_owned();
        assert_eq!(cut.chars().count(), NAME_MAX);
        assert!(cut.ends_with("ä…"), "{cut}");
    }
}
