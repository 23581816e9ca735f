//! How many pieces a file is in: the one ioctl that no crate here wraps.

#![expect(unsafe_code, reason = "FIEMAP has no safe wrapper")]

use std::fs::File;
use std::io;

use rustix::ioctl::{Updater, ioctl, opcode};

/// `struct fiemap` without room for extents: the kernel then only counts.
#[repr(C)]
struct Fiemap {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
}

/// `FS_IOC_FIEMAP`
const FIEMAP: rustix::ioctl::Opcode = opcode::read_write::<Fiemap>(b'f', 11);

/// The number of extents of the file. Takes time in proportion, far less than cloning.
///
/// # Errors
/// The file system cannot tell.
pub(crate) fn count(file: &File) -> io::Result<u64> {
    let mut all = Fiemap {
        start: 0,
        length: u64::MAX,
        flags: 0,
        mapped_extents: 0,
        extent_count: 0,
        reserved: 0,
    };
    // SAFETY: the opcode is that of FIEMAP, which reads and writes one `struct fiemap`; with a count of zero
    // the kernel writes nothing behind it.
    unsafe { ioctl(file, Updater::<FIEMAP, Fiemap>::new(&mut all))? };
    Ok(u64::from(all.mapped_extents))
}
