//! qcow2 images as far as this program reads and writes them by itself: the header, a new image, the
//! backing chain. QEMU `docs/interop/qcow2.rst` is the format's text.

pub mod backing;
pub mod chain;
pub mod header;
pub mod sequential;
pub mod writer;

pub(crate) mod editor;
pub(crate) mod tables;
pub(crate) mod unpack;
pub(crate) mod whole;

mod refcounts;

/// `QFI\xfb`.
pub const MAGIC: [u8; 4] = [0x51, 0x46, 0x49, 0xfb];

const EXT_END: u32 = 0;
const EXT_BACKING_FORMAT: u32 = 0xE279_2ACA;
const EXT_BITMAPS: u32 = 0x2385_2875;
const EXT_DATA_FILE: u32 = 0x4441_5441;

/// The longest backing file name that QEMU reads, in bytes.
const BACKING_NAME_MAX: usize = 1023;

#[cfg(test)]
mod tests;
