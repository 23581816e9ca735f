//! A new qcow2 image: version 3, 64 KiB clusters, nothing allocated.
//!
//! ```text
//!   cluster 0        1               2               3 ..
//!   header           refcount table  refcount block  L1 table
//! ```

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::header::{Extension, push_extension};
use super::{BACKING_NAME_MAX, EXT_BACKING_FORMAT, MAGIC};
use crate::engine::failure::At;
use crate::engine::{EngineError, EngineErrorKind};
use crate::inventory::Format;
use crate::text::catalog::engine as texts;

const CLUSTER_BITS: u32 = 16;
/// Bytes of a cluster in every image written here.
pub const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// Bytes of a disk that one L1 entry covers: one L2 table of 8192 entries.
pub(super) const PER_L1_ENTRY: u64 = CLUSTER * (CLUSTER / 8);
/// QEMU reads no larger L1 table.
const L1_BYTES_MAX: u64 = 32 << 20;
const HEADER_LENGTH: u32 = 112;
pub(crate) const SECTOR: u64 = 512;

/// The largest disk that an image written here can have, in bytes: 2 PiB.
pub const SIZE_MAX: u64 = L1_BYTES_MAX / 8 * PER_L1_ENTRY;

/// What to write.
#[derive(Debug, Clone, Copy)]
pub struct NewImage<'a> {
    /// Virtual size in bytes; rounded up to whole sectors as QEMU does.
    pub size: u64,
    /// Absolute path and format of the backing file.
    pub backing: Option<(&'a Path, Format)>,
}

impl NewImage<'_> {
    /// Can it be written: neither too large nor its backing path too long?
    #[must_use]
    pub fn fits(&self) -> bool {
        self.size <= SIZE_MAX && self.name() <= BACKING_NAME_MAX
    }

    fn name(&self) -> usize {
        self.backing.map_or(0, |(p, _)| p.as_os_str().len())
    }

    /// That it can be written, for an image over `file`.
    ///
    /// # Errors
    /// [`EngineErrorKind::Unsupported`] with the reason why it cannot.
    pub fn require(&self, at: &At, file: &Path) -> Result<(), EngineError> {
        let text = if self.size > SIZE_MAX {
            let text = at.text(texts::DISK_TOO_LARGE, file);
            text.with("size", self.size).with("limit", SIZE_MAX)
        } else if self.name() > BACKING_NAME_MAX {
            let text = at.text(texts::BACKING_NAME_LONG, file);
            let text = text.with("length", self.name());
            text.with("limit", BACKING_NAME_MAX)
        } else {
            return Ok(());
        };
        let kind = EngineErrorKind::Unsupported;
        Err(EngineError { kind, text })
    }

    /// Writes it into an empty file. Syncs nothing.
    ///
    /// # Errors
    /// The I/O error; [`io::ErrorKind::InvalidInput`] if it does not fit.
    pub fn write(&self, file: &File) -> io::Result<()> {
        if !self.fits() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let size = self.size.next_multiple_of(SECTOR);
        let l1_entries = size.div_ceil(PER_L1_ENTRY);
        let l1_clusters = (l1_entries * 8).div_ceil(CLUSTER);
        let tables = Tables {
            l1: 3 * CLUSTER,
            l1_entries,
            refcounts: CLUSTER,
            refcount_clusters: 1,
        };
        let header = header(size, tables, self.backing).ok_or(io::ErrorKind::InvalidInput)?;
        // Every cluster that is there has refcount 1: at most 515, so one block is enough.
        let used = usize::try_from(3 + l1_clusters).unwrap_or(0);
        file.set_len((3 + l1_clusters) * CLUSTER)?;
        file.write_all_at(&header, 0)?;
        file.write_all_at(&(2 * CLUSTER).to_be_bytes(), CLUSTER)?;
        file.write_all_at(&1_u16.to_be_bytes().repeat(used), 2 * CLUSTER)
    }
}

/// Where the tables of an image lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tables {
    /// Offset of the L1 table.
    pub(super) l1: u64,
    /// Its entries.
    pub(super) l1_entries: u64,
    /// Offset of the refcount table.
    pub(super) refcounts: u64,
    /// Its clusters.
    pub(super) refcount_clusters: u64,
}

/// The header of a version 3 image; `None` if a number or the backing path does not fit.
pub(super) fn header(
    size: u64,
    tables: Tables,
    backing: Option<(&Path, Format)>,
) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&3_u32.to_be_bytes());
    out.extend_from_slice(&[0; 12]); // backing file: below
    out.extend_from_slice(&CLUSTER_BITS.to_be_bytes());
    out.extend_from_slice(&size.to_be_bytes());
    out.extend_from_slice(&0_u32.to_be_bytes()); // not encrypted
    out.extend_from_slice(&u32::try_from(tables.l1_entries).ok()?.to_be_bytes());
    out.extend_from_slice(&tables.l1.to_be_bytes());
    out.extend_from_slice(&tables.refcounts.to_be_bytes());
    out.extend_from_slice(&u32::try_from(tables.refcount_clusters).ok()?.to_be_bytes());
    out.extend_from_slice(&[0; 12]); // no internal snapshots
    out.extend_from_slice(&[0; 24]); // no features
    out.extend_from_slice(&4_u32.to_be_bytes()); // refcounts of 16 bits
    out.extend_from_slice(&HEADER_LENGTH.to_be_bytes());
    out.extend_from_slice(&[0; 8]); // compression type: zlib
    let Some((path, format)) = backing else {
        out.extend_from_slice(&[0; 8]);
        return Some(out);
    };
    let format = Extension {
        kind: EXT_BACKING_FORMAT,
        data: format.as_str().into(),
    };
    push_extension(&mut out, &format)?;
    out.extend_from_slice(&[0; 8]); // end of extensions
    let name = path.as_os_str().as_bytes();
    let offset = u64::try_from(out.len()).ok()?;
    out.get_mut(8..16)?.copy_from_slice(&offset.to_be_bytes());
    let length = u32::try_from(name.len()).ok()?;
    out.get_mut(16..20)?.copy_from_slice(&length.to_be_bytes());
    out.extend_from_slice(name);
    Some(out)
}
