//! The port by which what snapshots keep is held on to and given up again: seals, the look at who lies on what, merges
//! of layers that nobody names, and the removal of files.
//!
//! What the coordinator knows goes in as a [`Scene`]: who names which file, and what is recorded of it. What the files tell
//! comes out as a [`Survey`]. The order of a merge, with what is written into the journal between its steps, is the
//! coordinator's.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::engine::merge;
use crate::engine::qcow2::chain::Roots;
use crate::engine::{At, Compute, EngineError, Hold, Kept, Machines, Stamp, Uses};
use crate::id::{SetId, SnapshotId, VmId};
use crate::inventory::{Format, Machine, Seal, Sealed};
use crate::text::Text;

pub use crate::engine::merge::{Inodes, Merged, Watch};
pub use crate::engine::whose::Whose;

/// A file that a machine has, or had.
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
    /// What does it: `of` is the machine, `roots` where both files must lie.
    pub(crate) fn work<'a>(
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

/// A name of a disk file.
#[derive(Debug, Clone)]
pub struct Named {
    /// The machine.
    pub machine: VmId,
    /// Its name.
    pub machine_name: String,
    /// The disk.
    pub disk: String,
    /// The file.
    pub file: PathBuf,
    /// Its format.
    pub format: Format,
    /// The snapshot that keeps it; `None` for the active file of the machine.
    pub by: Option<(SetId, SnapshotId)>,
}

/// What is recorded of files.
pub trait Records: Send + Sync {
    /// As what the named one and all under it were frozen.
    fn sealed(&self, named: &Named) -> &[Sealed];

    /// The files that the named one is known to have lain on.
    fn below(&self, named: &Named) -> Option<Vec<PathBuf>>;

    /// As what the file was frozen, by this name or by where that leads.
    fn seals(&self, file: &Path) -> Vec<Seal>;

    /// Whether somebody else is known to have changed it.
    fn is_marked(&self, file: &Path) -> bool;
}

/// The machine whose files are looked at.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The machine.
    pub machine: VmId,
    /// Its name.
    pub name: String,
    /// Every file of it, with everything under it.
    pub layers: Vec<Layer>,
}

/// Who names what at one moment, as far as records tell.
pub struct Scene {
    /// The machines.
    pub compute: Arc<dyn Compute>,
    /// They, as they were when this was put together.
    pub machines: Arc<Machines>,
    /// Where the files of sets are.
    pub sets: PathBuf,
    /// Where files that nothing names are moved to.
    pub aside: PathBuf,
    /// Whose files are looked at.
    pub of: Subject,
    /// Every name of a file.
    pub named: Vec<Named>,
    /// What the active files of machines that cannot be read are recorded to lie on, by machine and disk.
    pub untold: BTreeMap<(VmId, String), Vec<PathBuf>>,
    /// What is recorded.
    pub records: Arc<dyn Records>,
    /// The folder of a forgotten set of the machine: any file of it may be what that set kept.
    pub forgotten: Option<PathBuf>,
    /// Files of other machines that cannot be read count as lying on all that they lay on.
    pub by_record: bool,
}

/// Active files of machines that cannot be read or have come since, each with all that it is recorded to lie on; `None` if
/// that is not known. Asked once what snapshots keep has been looked at, which may take long.
pub type Untold = Box<dyn Fn() -> Option<Vec<(PathBuf, Vec<PathBuf>)>>>;

/// Who names which files at one moment, of all machines and sets.
pub struct Census {
    /// The machines.
    pub machines: Arc<Machines>,
    /// Every name of a file.
    pub named: Vec<Named>,
    /// What the machines do not tell.
    pub untold: Untold,
    /// What is recorded.
    pub records: Arc<dyn Records>,
    /// Something is not known that may name any file.
    pub unsure: bool,
}

/// The files of a machine as they are at one moment, and what follows from who names them.
pub trait Survey: Send {
    /// Notes what these merges have written, finished (`true`) or not: the lower files, and the headers of what lies on
    /// them once it was named anew.
    fn touch(&mut self, merges: &[(Merge, bool)]);

    /// The overlays that can be merged now, each with the bytes that its file has on the disk.
    fn merges(&self) -> Vec<(PathBuf, u64)>;

    /// The files of ours that nobody names and nothing lies on, and those of which that is so once these are gone; from
    /// above.
    fn free(&self, skip: &BTreeSet<PathBuf>) -> Vec<Layer>;

    /// The files of ours that nobody names, and that stay for the sake of one that cannot be read, or of a forgotten set.
    fn doubtful(&self) -> Vec<PathBuf>;

    /// What nothing needs, was not removed and is not surely gone: the folder of it is away, or another stands in its
    /// place.
    fn astray(&self, removed: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf>;

    /// A layer that nobody names with something on it, and how it is merged, or why it cannot be.
    fn mergeable(&self, skip: &BTreeSet<PathBuf>) -> Option<(Layer, Result<Merge, Text>)>;

    /// That the merge may be done as it was judged before.
    ///
    /// # Errors
    /// Why not.
    fn still(&self, merge: &Merge) -> Result<(), Text>;

    /// Whether there is room for a merge now.
    ///
    /// # Errors
    /// Why not.
    fn fits(&self, merge: &Merge) -> Result<(), Text>;

    /// By whom the file is named.
    fn names_of(&self, file: &Path) -> Vec<&Named>;

    /// That nobody but the machine has anything that lies right on the file.
    ///
    /// # Errors
    /// Who has.
    fn require_own_above(&self, file: &Path) -> Result<(), Text>;

    /// A file of another machine that cannot be read now and may lie on this one.
    fn away_over(&self, file: &Path) -> Option<&Path>;

    /// Whether the file is there and the first that [`Survey::free`] may give.
    fn is_leaf(&self, file: &Path) -> bool;

    /// The inode of the file as it was frozen, if it was.
    fn frozen_inode(&self, file: &Path) -> Option<u64>;

    /// What lies right on the child of a finished merge names the lower file, durably.
    ///
    /// # Errors
    /// It cannot be done now.
    fn rename(&self, merge: &Merge) -> Result<(), EngineError>;

    /// The lower file of a finished merge, if it is ours, gets the mode of what takes its place: of an active file, or of
    /// one that is kept.
    ///
    /// # Errors
    /// It cannot be set now.
    fn set_mode(&self, merge: &Merge) -> Result<(), EngineError>;
}

/// A chain from above, as far as it is known.
#[derive(Debug, Clone, Default)]
pub struct Chained {
    /// The files.
    pub files: Vec<(PathBuf, Format)>,
    /// The file of which it is not known what lies under it.
    pub unreadable: Option<PathBuf>,
    /// Whether all of it is known.
    pub is_whole: bool,
}

/// Whether the files of a merge are those that its records tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    /// It is that one, or does not answer.
    There,
    /// Nothing stands there.
    Gone,
    /// It is another one, or cannot be opened.
    Other,
}

/// Keeps what snapshots hold in files, and gives it up. A driver that keeps nothing in files has none
/// ([`crate::engine::Driver::retain`]).
pub trait Retain: Send + Sync + 'static {
    /// Seals what a snapshot keeps of a disk and everything under it, as it is now.
    ///
    /// # Errors
    /// One of the files is not there or cannot be read; what stands in the place of an image of the machine, or of a file
    /// under it, is not to be taken for it.
    fn seal(&self, kept: Kept<'_>, known: &BTreeSet<Sealed>) -> Result<Vec<Sealed>, EngineError>;

    /// The seal of a sealed file that this program has changed since: of that very file, and of no other in its place.
    ///
    /// # Errors
    /// It cannot be opened; another file stands there.
    fn again(&self, sealed: &Sealed) -> io::Result<Sealed>;

    /// A file with those that lie under it, as far as that can be read and is believed.
    fn chain(&self, at: &At, whose: Whose<'_>, top: (&Path, Format)) -> Chained;

    /// The files that were the active ones of the machine when it was imported.
    fn imported(&self, machine: &Machine) -> Vec<PathBuf>;

    /// Whether it has made the file; `sets` is where the files of sets are.
    fn is_ours(&self, sets: &Path, file: &Path) -> bool;

    /// Whether it has made the file for this machine.
    fn is_made_for(&self, sets: &Path, machine: VmId, file: &Path) -> bool;

    /// Whether it has made the file beside an image, in a folder that others may take away.
    fn is_beside(&self, file: &Path) -> bool;

    /// The folders that others may take away in which it may have made files of an image.
    fn beside(&self, image: &Path) -> BTreeSet<PathBuf>;

    /// The machine that it has made the file for, as its name tells.
    fn machine_of(&self, file: &Path) -> Option<VmId>;

    /// Whether the file is called as an image.
    fn is_image(&self, file: &Path) -> bool;

    /// Whether a file that it has made is surely gone. Of one beside an image that is so if the image stands where it was
    /// made, and the file does not; the folder of another one goes with the last file in it.
    ///
    /// # Errors
    /// It cannot be seen; the folder of the image is not there, or another stands in its place.
    fn is_gone(&self, compute: &dyn Compute, machine: VmId, file: &Path) -> io::Result<bool>;

    /// Looks who lies on what.
    ///
    /// # Errors
    /// Something that may lie on these files cannot be seen.
    fn survey(&self, scene: Scene) -> Result<Box<dyn Survey>, EngineError>;

    /// Counts who needs each file, directly or under another one. What can be seen in another way by the next look is
    /// looked at again, each time by a new `census`; what nothing answers for counts as lying on all that it lay on.
    fn uses(&self, census: Box<dyn Fn() -> Census + Send + Sync>) -> Uses;

    /// Holds a file that is to be written.
    ///
    /// # Errors
    /// [`crate::engine::EngineErrorKind::Locked`] if anyone has it open.
    fn hold(&self, at: &At, file: &Path) -> Result<Hold, EngineError>;

    /// What a file looks like now.
    ///
    /// # Errors
    /// Nothing is there, or it cannot be reached.
    fn stamp(&self, file: &Path) -> io::Result<Stamp>;

    /// Whether parent and child of a merge are those that were recorded.
    fn stands(&self, merge: &Merge) -> [Stands; 2];

    /// Merges a child into its parent. Takes long. It may die at any moment and be begun again, as long as the child is
    /// there.
    ///
    /// # Errors
    /// As [`crate::engine::merge::Merge::run`].
    fn merge(
        &self,
        at: &At,
        merge: &Merge,
        compute: &dyn Compute,
        watch: &Watch<'_>,
    ) -> Result<Merged, EngineError>;

    /// Closes a file that it has made to writers, if it is one of those `inodes`, or none is known: its seal before, and
    /// now.
    ///
    /// # Errors
    /// It cannot be done; another file stands there.
    fn close(&self, file: &Path, inodes: &[u64]) -> io::Result<(Seal, Seal)>;

    /// The seal of a file that it has made, by no other way than that to one of ours; `None` if it cannot be told.
    fn seal_own(&self, file: &Path) -> Option<Seal>;

    /// Whether a file that it has made is there.
    fn is_there(&self, file: &Path) -> bool;

    /// Removes a file that it has made, durably; with `inode` only the one that has it. So it does with the folders above
    /// that are empty then. Whether it was there.
    ///
    /// # Errors
    /// It is there and cannot be removed.
    fn unlink(&self, sets: &Path, file: &Path, inode: Option<u64>) -> io::Result<bool>;
}
