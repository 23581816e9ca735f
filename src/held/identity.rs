//! What a file is, by its descriptor.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Statx, StatxFlags, makedev, statx};

use crate::text::catalog::held as texts;
use crate::text::{Reason, Text, told_by_text};

/// What stands behind a descriptor. Device and inode name it as long as this process lives; what another process has
/// recorded is compared by inode and time of birth (btrfs, NFS and LVM give other device numbers after a start of the
/// host, and the number of a file that is removed is given to a later one).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// `st_dev`; for comparison within this process.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
    /// `stx_btime`, in nanoseconds since 1970; `None` where the file system does not tell it.
    pub born: Option<i64>,
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
    pub kind: FileKind,
}

/// Kinds of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
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
    /// Of an open file or folder.
    ///
    /// # Errors
    /// The I/O error.
    pub fn of(held: impl AsFd) -> io::Result<Self> {
        Self::at(held, Path::new(""), AtFlags::EMPTY_PATH)
    }

    /// Of what stands under a name (`statx`).
    pub(super) fn at(from: impl AsFd, name: &Path, flags: AtFlags) -> io::Result<Self> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        Ok(Self::from(&statx(from, name, flags, wanted)?))
    }

    /// Whether both are the same file; within one process.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Whether nobody but root and this process's user can change it; of a folder: the names in it. Only what is held is
    /// judged, not the way to it.
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

    /// Whether root or this process's user owns it.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        is_trusted(self.owner)
    }
}

/// Whether this is root or this process's user.
#[must_use]
pub fn is_trusted(user: u32) -> bool {
    [0, nix::unistd::geteuid().as_raw()].contains(&user)
}

/// What a path leads to, links followed; what may not be read may be looked at all the same.
///
/// # Errors
/// The I/O error.
pub fn look_at(path: &Path) -> io::Result<Identity> {
    super::ask(path, || Identity::at(CWD, path, AtFlags::empty()))
}

/// A folder in which others may exchange what leads to a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exposed {
    /// The folder.
    pub folder: PathBuf,
    /// Who owns it.
    pub owner: u32,
    /// Its permission bits.
    pub mode: u32,
}

/// All folders above a file that was found there, from the nearest up, in which somebody else than root, the server's
/// user and `but` may exchange what leads to it.
///
/// # Errors
/// A folder cannot be looked at.
pub fn exposed(path: &Path, file: &Identity, but: Option<u32>) -> io::Result<Vec<Exposed>> {
    let mut found = Vec::new();
    let mut below = *file;
    let is_known = |it: &Identity| it.is_ours() || Some(it.owner) == but;
    for folder in path.ancestors().skip(1) {
        let it = look_at(folder)?;
        // In a sticky folder only the owner of a name, or of the folder, may rename it.
        let kept = it.mode & 0o022 == 0 || it.mode & 0o1000 != 0 && is_known(&below);
        if !is_known(&it) || !kept {
            let (owner, mode) = (it.owner, it.mode);
            found.push(Exposed {
                folder: folder.to_owned(),
                owner,
                mode,
            });
        }
        below = it;
    }
    Ok(found)
}

/// Whether nobody but root and the server's user can have put a link on the way to what a path leads to; where none is
/// there, nobody has.
///
/// # Errors
/// Something on the way cannot be looked at.
pub fn is_led(path: &Path) -> io::Result<bool> {
    let parts = |path: &Path| -> Vec<OsString> {
        let parts = path.components().rev();
        parts.map(|part| part.as_os_str().to_owned()).collect()
    };
    let mut left = parts(path);
    let (mut reached, mut links) = (PathBuf::from("/"), 0);
    while let Some(part) = left.pop() {
        if part == ".." {
            reached.pop();
            continue;
        }
        let next = reached.join(&part);
        let it = super::ask(&next, || {
            Identity::at(CWD, &next, AtFlags::SYMLINK_NOFOLLOW)
        })?;
        if it.kind != FileKind::Link {
            reached = next;
            continue;
        }
        links += 1;
        if links > LINKS || !exposed(&next, &it, None)?.is_empty() {
            return Ok(false);
        }
        let to = super::ask(&next, || std::fs::read_link(&next))?;
        left.extend(parts(&to));
    }
    Ok(true)
}

/// So many the kernel follows.
const LINKS: u32 = 40;

impl From<&Statx> for Identity {
    fn from(stat: &Statx) -> Self {
        let (raw, born) = (u32::from(stat.stx_mode), stat.stx_btime);
        let has_born = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        Self {
            device: makedev(stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            born: has_born.then(|| {
                let seconds = born.tv_sec.saturating_mul(NANOS);
                seconds.saturating_add(i64::from(born.tv_nsec))
            }),
            owner: stat.stx_uid,
            group: stat.stx_gid,
            links: u64::from(stat.stx_nlink),
            mode: raw & 0o7777,
            length: stat.stx_size,
            kind: match FileType::from_raw_mode(raw) {
                FileType::RegularFile => FileKind::File,
                FileType::Directory => FileKind::Folder,
                FileType::Symlink => FileKind::Link,
                FileType::Socket => FileKind::Socket,
                _ => FileKind::Other,
            },
        }
    }
}

/// Of a second.
const NANOS: i64 = 1_000_000_000;

/// Why what stands there is not what was meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// A symbolic link stands there.
    Link,
    /// A folder, device, pipe or socket stands there.
    NotRegular,
    /// Another file than the expected one stands there.
    Other {
        /// The inode that was expected.
        expected: u64,
        /// The inode that is there.
        found: u64,
    },
    /// A later file with the same inode number stands there.
    Later(u64),
    /// The file has other names as well (hard links), and nothing tells that it is the one that was meant.
    Names(u64),
    /// A file of another user stands there.
    Owner {
        /// The user it belonged to.
        expected: u32,
        /// The user it belongs to.
        found: u32,
    },
    /// The way to it leads through a link that was not there when it was recorded.
    Astray,
    /// A folder that is not the server's has the name of one of its own.
    NotOurs,
    /// Nothing is recorded of a file of that name.
    Unrecorded,
    /// Nothing is recorded of an image there.
    Unknown,
    /// The record is of an older version and does not tell the file from a later one with the same inode number.
    Unborn,
    /// Others than root and the server may exchange what is in the folder.
    Shared {
        /// `st_uid` of the folder.
        owner: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// Somebody exchanged a file while it was moved, and what came out could not be put back: its place was taken.
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

impl Foreign {
    /// In words.
    #[must_use]
    pub fn text(&self) -> Text {
        match *self {
            Self::Link => texts::LINK.text(),
            Self::NotRegular => texts::NOT_REGULAR.text(),
            Self::Other { expected, found } => {
                let text = texts::OTHER.with("found", found);
                text.with("expected", expected)
            }
            Self::Later(inode) => texts::LATER.with("inode", inode),
            Self::Names(count) => texts::NAMES.with("count", count),
            Self::Owner { expected, found } => {
                let text = texts::OWNER.with("found", found);
                text.with("expected", expected)
            }
            Self::Astray => texts::ASTRAY.text(),
            Self::NotOurs => texts::NOT_OURS.text(),
            Self::Unrecorded => texts::UNRECORDED.text(),
            Self::Unknown => texts::UNKNOWN.text(),
            Self::Unborn => texts::UNBORN.text(),
            Self::Shared { owner, mode } => {
                let text = texts::SHARED.with("owner", owner);
                text.with("mode", format!("{mode:o}"))
            }
            Self::Kept { found, place } => match place {
                Keep::Trash => {
                    let text = texts::KEPT_BESIDE.with("found", found);
                    text.with("folder", TRASH)
                }
                Keep::There => texts::KEPT_THERE.with("found", found),
            },
        }
    }
}

told_by_text!(Foreign);

/// The folder of ours in which a file of a shared folder is looked at before it is unlinked.
pub(super) const TRASH: &str = ".groupshot-trash";

impl From<Foreign> for io::Error {
    fn from(foreign: Foreign) -> Self {
        let text = foreign.text();
        Self::other(Reason::new(text, foreign))
    }
}

/// What stands in the place of the expected file, if that is what the error tells.
#[must_use]
pub fn foreign(error: &io::Error) -> Option<Foreign> {
    Reason::of(error)?.told::<Foreign>().copied()
}
