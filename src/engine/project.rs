//! The project id of a file, by which quotas of ext4 and XFS are counted: two ioctls that no crate here wraps.

#![expect(unsafe_code, reason = "FS_IOC_FSGETXATTR has no safe wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::ioctl::{Getter, Opcode, Setter, ioctl, opcode};

/// `struct fsxattr`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
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
    // SAFETY: the opcode is that of FS_IOC_FSSETXATTR, which reads one `struct fsxattr`.
    unsafe { ioctl(file, Setter::<SET, Fsxattr>::new(it)) }.map_err(io::Error::from)
}

fn get(file: impl AsFd) -> io::Result<Fsxattr> {
    // SAFETY: the opcode is that of FS_IOC_FSGETXATTR, which writes one `struct fsxattr`, all of it.
    Ok(unsafe { ioctl(file, Getter::<GET, Fsxattr>::new())? })
}
