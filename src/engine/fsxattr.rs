//! What ext4 and XFS keep of a file in `struct fsxattr`: its project, by which quotas are counted, and how XFS is to lay
//! out what is written to it. Two ioctls that no crate here wraps (`ioctl_xfs_fsgetxattr(2)`).

#![expect(unsafe_code, reason = "FS_IOC_FSGETXATTR has no safe wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

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
    let (Ok(mut own), Ok(theirs)) = (get(file), get(base)) else {
        return Vec::new(); // neither has any
    };
    let take = |own: Fsxattr, bit: u32| Fsxattr {
        flags: (own.flags & !bit) | (theirs.flags & bit),
        ..own
    };
    let mut lost = Vec::new();
    let (extent_size, cow_extent_size) = (theirs.extent_size, theirs.cow_extent_size);
    for (bit, text) in [
        (
            EXTENT_SIZE,
            texts::EXTENT_SIZE_LOST.with("bytes", extent_size),
        ),
        (
            COW_EXTENT_SIZE,
            texts::COW_EXTENT_SIZE_LOST.with("bytes", cow_extent_size),
        ),
        (NO_DEFRAG, texts::NO_DEFRAG_LOST.text()),
    ] {
        let mut wanted = take(own, bit);
        match bit {
            EXTENT_SIZE => wanted.extent_size = extent_size,
            COW_EXTENT_SIZE => wanted.cow_extent_size = cow_extent_size,
            _ => {}
        }
        if wanted == own {
            continue;
        }
        match put(file, wanted) {
            Ok(()) => own = wanted,
            Err(cause) => lost.push(text.with("cause", cause)),
        }
    }
    lost
}

fn get(file: impl AsFd) -> io::Result<Fsxattr> {
    // SAFETY: the opcode is that of FS_IOC_FSGETXATTR, which writes one `struct fsxattr`, all of it.
    Ok(unsafe { ioctl(file, Getter::<GET, Fsxattr>::new())? })
}

fn put(file: &File, it: Fsxattr) -> io::Result<()> {
    // SAFETY: the opcode is that of FS_IOC_FSSETXATTR, which reads one `struct fsxattr`.
    unsafe { ioctl(file, Setter::<SET, Fsxattr>::new(it)) }.map_err(io::Error::from)
}
