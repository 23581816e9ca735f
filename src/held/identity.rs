//! What a file is, by its descriptor.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{FileType, Stat, fstat};

/// The user whom [`trust`] names.
static TRUSTED: AtomicU32 = AtomicU32::new(0);

/// Counts this user's folders as private: the owner of the data directory, when root works on it for a server that
/// runs as another user.
pub fn trust(owner: u32) {
    TRUSTED.store(owner, Ordering::Relaxed);
}

/// The user whom [`trust`] named last; root if nobody was.
pub(super) fn trusted() -> u32 {
    TRUSTED.load(Ordering::Relaxed)
}

/// What stands behind a descriptor. Device and inode name it as long as this process lives; only the inode may
/// be compared with what another process has recorded (btrfs, NFS and LVM give other device numbers after a
/// start of the host).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// `st_dev`; for comparison within this process.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
    /// `st_uid`.
    pub owner: u32,
    /// `st_gid`.
    pub group: u32,
    /// `st_nlink`: how many names it has.
    pub links: u64,
    /// The permission bits, with set-user-id and sticky.
    pub mode: u32,
    /// Length in bytes.
    pub length: u64,
    /// What kind of file.
    pub kind: Kind,
}

/// Kinds of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Folder,
    /// A symbolic link.
    Link,
    /// A socket.
    Socket,
    /// A device or pipe.
    Other,
}

impl Identity {
    /// Of an open file or folder (`fstat`).
    ///
    /// # Errors
    /// The I/O error.
    pub fn of(held: impl AsFd) -> io::Result<Self> {
        Ok(Self::from(&fstat(held)?))
    }

    /// Whether both are the same file; within one process.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Whether nobody but root, this process's user and the owner of the data directory can change it; of a
    /// folder: the names in it. Only what is held is judged, not the way to it.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.is_ours() && self.mode & 0o022 == 0
    }

    /// Whether, of a folder, nobody else can exchange what is in it and leads to `below`.
    pub(super) fn keeps(&self, below: &Self) -> bool {
        // In a sticky folder only the owner of a name, or of the folder, may rename it.
        let kept = self.mode & 0o1000 != 0 && self.is_ours() && below.is_ours();
        self.is_private() || kept
    }

    /// Whether root, this process's user or the owner of the data directory owns it.
    fn is_ours(&self) -> bool {
        let own = [
            0,
            nix::unistd::geteuid().as_raw(),
            TRUSTED.load(Ordering::Relaxed),
        ];
        own.contains(&self.owner)
    }
}

/// The nearest folder above a file in which somebody else than root and the server's user may exchange what leads to
/// it, with its owner and mode. A folder that cannot be looked at is passed over.
#[must_use]
pub fn exposed(file: &Path) -> Option<(PathBuf, u32, u32)> {
    let mut below = super::open(file, false).and_then(Identity::of).ok()?;
    for folder in file.ancestors().skip(1) {
        // One that may not be read may be looked at all the same.
        let stat = super::ask(folder, || Ok(rustix::fs::stat(folder)?));
        let Ok(it) = stat.map(|stat| Identity::from(&stat)) else {
            continue;
        };
        if !it.keeps(&below) {
            return Some((folder.to_owned(), it.owner, it.mode));
        }
        below = it;
    }
    None
}

impl From<&Stat> for Identity {
    fn from(stat: &Stat) -> Self {
        let raw = stat.st_mode;
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            owner: stat.st_uid,
            group: stat.st_gid,
            links: wide(stat.st_nlink),
            mode: raw & 0o7777,
            length: u64::try_from(stat.st_size).unwrap_or_default(),
            kind: match FileType::from_raw_mode(raw) {
                FileType::RegularFile => Kind::File,
                FileType::Directory => Kind::Folder,
                FileType::Symlink => Kind::Link,
                FileType::Socket => Kind::Socket,
                _ => Kind::Other,
            },
        }
    }
}

/// The field has another width on each processor.
fn wide(number: impl Into<u64>) -> u64 {
    number.into()
}

/// Why what stands there is not what was meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    /// A symbolic link stands there.
    #[error("a symbolic link stands there")]
    Link,
    /// A folder, device, pipe or socket stands there.
    #[error("what stands there is no regular file")]
    NotRegular,
    /// Another file than the expected one stands there.
    #[error("another file stands there (inode {found} instead of {expected})")]
    Other {
        /// The inode that was expected.
        expected: u64,
        /// The inode that is there.
        found: u64,
    },
    /// The file has other names as well (hard links), and nothing tells that it is the one that was meant.
    #[error("it has {0} names (hard links)")]
    Names(u64),
    /// A file of another user stands there.
    #[error("it belongs to user {found}, not to user {expected} any more")]
    Owner {
        /// The user it belonged to.
        expected: u32,
        /// The user it belongs to.
        found: u32,
    },
    /// The way to it leads through a link that was not there when it was recorded.
    #[error("a symbolic link above it leads elsewhere")]
    Astray,
    /// A folder that is not the server's has the name of one of its own.
    #[error("the folder of that name holds nothing that the server makes")]
    NotOurs,
    /// Nothing is recorded of a file of that name.
    #[error("it lies under the image and was not there when the image was imported")]
    Unrecorded,
    /// Others than root and the server may exchange what is in the folder.
    #[error(
        "the folder belongs to user {owner} and has the mode {mode:o}: others could exchange what the server keeps in it"
    )]
    Shared {
        /// `st_uid` of the folder.
        owner: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// Somebody exchanged a file while it was moved, and what came out could not be put back: its place was taken.
    #[error("somebody exchanged it meanwhile; what stood there (inode {found}) is kept {}", .place.told())]
    Kept {
        /// The inode of what is kept.
        found: u64,
        /// Where.
        place: Keep,
    },
}

/// Where something foreign is kept that could not be put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// In the folder of ours for what is removed.
    Trash,
    /// In the folder of ours that it was exchanged or moved into.
    There,
}

impl Keep {
    fn told(self) -> String {
        match self {
            Self::Trash => format!("in a folder {TRASH}-… beside it"),
            Self::There => "in the server's own folder that it was moved to".to_owned(),
        }
    }
}

/// The folder of ours in which a file of a shared folder is looked at before it is unlinked.
pub(super) const TRASH: &str = ".groupshot-trash";

impl From<Foreign> for io::Error {
    fn from(foreign: Foreign) -> Self {
        Self::other(foreign)
    }
}

/// What stands in the place of the expected file, if that is what the error tells.
#[must_use]
pub fn foreign(error: &io::Error) -> Option<Foreign> {
    error.get_ref()?.downcast_ref::<Foreign>().copied()
}
