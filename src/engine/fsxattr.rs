//! What ext4 and XFS keep of a file in `struct fsxattr`: its project, by which quotas are counted, and how XFS is to lay
//! out what is written to it. Two ioctls that no crate here wraps (`ioctl_xfs_fsgetxattr(2)`).

#![expect(unsafe_code, reason = "FS_IOC_FSGETXATTR has no safe wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use rustix::io::Errno;
use rustix::ioctl::{Getter, Opcode, Setter, ioctl, opcode};

use crate::text::Text;
use crate::text::catalog::engine as texts;

/// `struct fsxattr`
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fsxattr {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    pad: [u8; 8],
}

/// `FS_IOC_FSGETXATTR`
const GET: Opcode = opcode::read::<Fsxattr>(b'X', 31);
/// `FS_IOC_FSSETXATTR`
const SET: Opcode = opcode::write::<Fsxattr>(b'X', 32);
/// `FS_XFLAG_PROJINHERIT`
const INHERITS: u32 = 0x200;
/// `FS_XFLAG_EXTSIZE`
const EXTENT_SIZE: u32 = 0x800;
/// `FS_XFLAG_NODEFRAG`
const NO_DEFRAG: u32 = 0x2000;
/// `FS_XFLAG_COWEXTSIZE`
const COW_EXTENT_SIZE: u32 = 0x1_0000;

/// The extent size hint that QEMU's tools give images, bytes.
const QEMUS_EXTENT_SIZE: u32 = 1 << 20;

impl Fsxattr {
    /// With one hint of another file.
    fn with(self, other: &Self, bit: u32) -> Self {
        let mut it = Self {
            flags: (self.flags & !bit) | (other.flags & bit),
            ..self
        };
        match bit {
            EXTENT_SIZE => it.extent_size = other.extent_size,
            COW_EXTENT_SIZE => it.cow_extent_size = other.cow_extent_size,
            _ => {}
        }
        it
    }
}

/// The project of a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Project {
    /// Its id; 0 for none.
    pub(crate) id: u32,
    /// What is made in the folder, or moved into it, must be of the same.
    pub(crate) inherits: bool,
}

/// The project of the file.
///
/// # Errors
/// The file system has no projects.
pub(crate) fn of(file: impl AsFd) -> io::Result<Project> {
    let it = get(file)?;
    Ok(Project {
        id: it.project,
        inherits: it.flags & INHERITS != 0,
    })
}

/// Gives the file to a project.
///
/// # Errors
/// The file system has no projects, or this process may not.
pub(crate) fn set(file: &File, project: u32) -> io::Result<()> {
    let it = Fsxattr {
        project,
        ..get(file)?
    };
    put(file, it)
}

/// Has XFS lay out what is written to the file as it does with `base`: extent size hints, and whether it may be
/// defragmented. In words what of it is refused. The extent size can only be changed as long as the file has no content.
pub(crate) fn take_hints(file: &File, base: &File) -> Vec<Text> {
    let Ok(theirs) = get(base) else {
        return Vec::new(); // it has none
    };
    let (bytes, cow_bytes) = (theirs.extent_size, theirs.cow_extent_size);
    let hints = [
        (EXTENT_SIZE, texts::EXTENT_SIZE_LOST.with("bytes", bytes)),
        (
            COW_EXTENT_SIZE,
            texts::COW_EXTENT_SIZE_LOST.with("bytes", cow_bytes),
        ),
        (NO_DEFRAG, texts::NO_DEFRAG_LOST.text()),
    ];
    let mut lost = Vec::new();
    for (bit, text) in hints {
        let Err(cause) = take_hint(file, &theirs, bit) else {
            continue;
        };
        // QEMU's tools give it to each image that they make on XFS. An overlay on another file system goes without, as
        // they would have made it there.
        let is_default = bit == EXTENT_SIZE && bytes == QEMUS_EXTENT_SIZE;
        if !(is_default && are_apart(file, base)) {
            lost.push(text.with("cause", cause));
        }
    }
    lost
}

/// Gives the file one hint, or takes it away.
///
/// # Errors
/// Why the file does not have it.
fn take_hint(file: &File, theirs: &Fsxattr, bit: u32) -> io::Result<()> {
    let own = match get(file) {
        Err(_) if theirs.flags & bit == 0 => return Ok(()),
        own => own?,
    };
    let wanted = own.with(theirs, bit);
    if wanted == own {
        return Ok(());
    }
    put(file, wanted)?;
    // ext4 takes it without a word and does not keep it.
    let now = get(file)?;
    match now.with(theirs, bit) == now {
        true => Ok(()),
        false => Err(Errno::OPNOTSUPP.into()),
    }
}

/// Whether the files are on two file systems.
fn are_apart(one: &File, other: &File) -> bool {
    let device = |file: &File| file.metadata().ok().map(|it| it.dev());
    device(one) != device(other)
}

fn get(file: impl AsFd) -> io::Result<Fsxattr> {
    // SAFETY: the opcode is that of FS_IOC_FSGETXATTR, which writes one `struct fsxattr`, all of it.
    Ok(unsafe { ioctl(file, Getter::<GET, Fsxattr>::new())? })
}

fn put(file: &File, it: Fsxattr) -> io::Result<()> {
    // SAFETY: the opcode is that of FS_IOC_FSSETXATTR, which reads one `struct fsxattr`.
    unsafe { ioctl(file, Setter::<SET, Fsxattr>::new(it)) }.map_err(io::Error::from)
}
