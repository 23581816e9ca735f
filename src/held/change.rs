//! Changing what is held: owner, mode, attributes, and how it is open.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;

use rustix::fs::{
    CWD, IFlags, Mode, OFlags, XattrFlags, chmodat, fremovexattr, fsetxattr, ioctl_getflags,
    ioctl_setflags, openat,
};

use super::folder::{Folder, again, single};
use super::identity::{Foreign, Identity};

/// Sets the permission bits of an open file or folder.
///
/// # Errors
/// The I/O error.
pub fn set_mode(held: &File, mode: u32) -> io::Result<()> {
    held.set_permissions(Permissions::from_mode(mode))
}

/// Sets owner and group of an open file.
///
/// # Errors
/// The I/O error.
pub fn set_owner(held: &File, owner: u32, group: u32) -> io::Result<()> {
    std::os::unix::fs::fchown(held, Some(owner), Some(group))
}

/// Sets an extended attribute of an open file or folder.
///
/// # Errors
/// The I/O error.
pub fn set_attribute(held: impl AsFd, name: &str, value: &[u8]) -> io::Result<()> {
    Ok(fsetxattr(held, name, value, XattrFlags::empty())?)
}

/// Removes an extended attribute of an open file.
///
/// # Errors
/// The I/O error.
pub fn remove_attribute(held: &File, name: &str) -> io::Result<()> {
    Ok(fremovexattr(held, name)?)
}

/// Sets all inode flags of an open file (`chattr`).
///
/// # Errors
/// The I/O error.
pub fn set_flags(held: &File, bits: u32) -> io::Result<()> {
    Ok(ioctl_setflags(held, IFlags::from_bits_retain(bits))?)
}

/// Sets those of the inode flags `wanted` on an empty file that `from` has (`chattr`). Where flags are unknown
/// there is none to take over.
///
/// # Errors
/// The I/O error.
pub fn take_flags(held: &File, from: &File, wanted: IFlags) -> io::Result<()> {
    let theirs = ioctl_getflags(from).unwrap_or(IFlags::empty()) & wanted;
    if theirs.is_empty() {
        return Ok(());
    }
    Ok(ioctl_setflags(held, ioctl_getflags(held)? | theirs)?)
}

/// The same file, open for reading and writing. A read-only file of this process's user is opened too: its mode
/// is lifted for that moment.
///
/// # Errors
/// The I/O error.
pub fn writable(held: &File) -> io::Result<File> {
    let open = || again(held, OFlags::RDWR);
    match open() {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
        opened => return opened,
    }
    let mode = Identity::of(held)?.mode;
    set_mode(held, mode | 0o200)?;
    let opened = open();
    set_mode(held, mode)?;
    opened
}

impl Folder {
    /// Sets the permission bits of what stands under that name, a socket as well, if it is what was looked at
    /// before (within this process).
    ///
    /// # Errors
    /// The I/O error; [`Foreign::Other`].
    pub fn set_mode_of(
        &self,
        name: impl AsRef<std::ffi::OsStr>,
        expected: &Identity,
        mode: u32,
    ) -> io::Result<()> {
        let name = single(name.as_ref())?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let held = openat(self.as_fd(), name, flags, Mode::empty())?;
        let found = Identity::of(&held)?;
        if !found.is_same(expected) {
            let (expected, found) = (expected.inode, found.inode);
            return Err(Foreign::Other { expected, found }.into());
        }
        let own = format!("/proc/self/fd/{}", held.as_raw_fd());
        let mode = Mode::from_raw_mode(mode);
        Ok(chmodat(CWD, own, mode, rustix::fs::AtFlags::empty())?)
    }
}
