//! The qcow2 header: reading it from hostile bytes, and its area anew with another backing file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::{BACKING_NAME_MAX, EXT_BACKING_FORMAT, EXT_BITMAPS, EXT_DATA_FILE, EXT_END, MAGIC};
use crate::engine::space;
use crate::text::Message;
use crate::text::catalog::engine as texts;

const V2_LENGTH: usize = 72;
const V3_LENGTH: usize = 104;

const DIRTY: u64 = 1 << 0;
const CORRUPT: u64 = 1 << 1;
const DATA_FILE: u64 = 1 << 2;
const COMPRESSION: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;
const KNOWN: u64 = DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2;
/// Autoclear bit 0: the bitmaps extension is up to date.
const BITMAPS_VALID: u64 = 1;

/// Extended L2 entries need clusters of 16 KiB: 32 subclusters of one sector.
const EXTENDED_BITS_MIN: u32 = 14;
const COMPRESSION_TYPE: usize = 104;
const SECTOR: u64 = 512;

/// Sizes that QEMU itself refuses to go beyond.
const L1_ENTRIES_MAX: u32 = (32 << 20) / 8;
const EXTENSIONS_MAX: usize = 64;
const BITMAPS_MAX: u32 = 65_535;
const BITMAP_DIRECTORY_MAX: u64 = 1 << 20;

/// The bytes are not a header that this program can trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderError {
    /// Another magic, or too short for one.
    NotQcow2,
    /// Neither version 2 nor 3.
    Version,
    /// A field contradicts the format or another field.
    Damaged,
}

impl HeaderError {
    /// The words for it; they want `machine`, `disk` and `file`.
    #[must_use]
    pub fn message(self) -> Message {
        match self {
            Self::NotQcow2 => texts::NOT_QCOW2,
            Self::Version => texts::BAD_VERSION,
            Self::Damaged => texts::BAD_HEADER,
        }
    }
}

/// How the compressed clusters of an image are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Raw deflate.
    Deflate,
    /// Zstandard frames.
    Zstd,
    /// A type of a later version of the format.
    Unknown,
}

/// One header extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// Its type.
    pub kind: u32,
    /// Its bytes, without padding.
    pub data: Vec<u8>,
}

/// A qcow2 header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// Cluster size is `1 << cluster_bits`.
    pub cluster_bits: u32,
    /// Virtual size in bytes, in whole sectors: QEMU shows no part of one.
    pub size: u64,
    /// 0 none, 1 AES, 2 LUKS.
    pub crypt_method: u32,
    /// Entries of the active L1 table.
    pub l1_entries: u32,
    /// Offset of the active L1 table.
    pub l1_offset: u64,
    /// Offset of the refcount table.
    pub refcount_offset: u64,
    /// Clusters of the refcount table.
    pub refcount_clusters: u32,
    /// A refcount is `1 << refcount_order` bits wide.
    pub refcount_order: u32,
    /// Number of internal snapshots.
    pub snapshots: u32,
    /// Incompatible features; 0 in version 2.
    pub incompatible: u64,
    /// Autoclear features; 0 in version 2.
    pub autoclear: u64,
    /// How compressed clusters are packed.
    pub compression: Compression,
    /// Length of the fixed part.
    pub length: usize,
    /// Name of the backing file as written.
    pub backing: Option<Vec<u8>>,
    /// Every extension in order, without the end mark.
    pub extensions: Vec<Extension>,
    /// The fixed part as read.
    fixed: Vec<u8>,
}

impl Header {
    /// Reads a header from the first bytes of an image: at least its first cluster, or the whole file if
    /// that is shorter. Any bytes are safe; this is a fuzz target.
    ///
    /// # Errors
    /// [`HeaderError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        if bytes.get(..4) != Some(MAGIC.as_slice()) {
            return Err(HeaderError::NotQcow2);
        }
        Self::read(bytes)?.ok_or(HeaderError::Damaged)
    }

    /// Reads the header of an open image. Nothing is read of a file that the kernel makes up.
    ///
    /// # Errors
    /// Outside the I/O error, inside [`HeaderError`].
    pub fn load(file: &File) -> io::Result<Result<Self, HeaderError>> {
        space::require_stored(file)?;
        let fixed = read_up_to(file, 0, V2_LENGTH)?;
        let bits = be32(&fixed, 20).unwrap_or(0);
        if !(9..=21).contains(&bits) {
            return Ok(Self::parse(&fixed));
        }
        Ok(Self::parse(&read_up_to(file, 0, 1 << bits)?))
    }

    /// `Ok(None)` where the bytes end too early or a number does not fit.
    fn read(bytes: &[u8]) -> Result<Option<Self>, HeaderError> {
        let version = be32(bytes, 4).ok_or(HeaderError::Damaged)?;
        if !matches!(version, 2 | 3) {
            return Err(HeaderError::Version);
        }
        Ok(Self::read_fields(bytes, version))
    }

    fn read_fields(bytes: &[u8], version: u32) -> Option<Self> {
        let v3 = version == 3;
        let length = if v3 {
            usize::try_from(be32(bytes, 100)?).ok()?
        } else {
            V2_LENGTH
        };
        let cluster_bits = be32(bytes, 20)?;
        let refcount_order = if v3 { be32(bytes, 96)? } else { 4 };
        if !(9..=21).contains(&cluster_bits) || refcount_order > 6 {
            return None;
        }
        let cluster = 1_usize << cluster_bits;
        if v3 && (length < V3_LENGTH || length > cluster || !length.is_multiple_of(8)) {
            return None;
        }
        let (backing, extensions_end) = backing(bytes, cluster, length)?;
        let header = Self {
            version,
            cluster_bits,
            size: be64(bytes, 24)? / SECTOR * SECTOR,
            crypt_method: be32(bytes, 32)?,
            l1_entries: be32(bytes, 36)?,
            l1_offset: be64(bytes, 40)?,
            refcount_offset: be64(bytes, 48)?,
            refcount_clusters: be32(bytes, 56)?,
            refcount_order,
            snapshots: be32(bytes, 60)?,
            incompatible: if v3 { be64(bytes, 72)? } else { 0 },
            autoclear: if v3 { be64(bytes, 88)? } else { 0 },
            compression: match bytes.get(COMPRESSION_TYPE) {
                Some(1) if length > COMPRESSION_TYPE => Compression::Zstd,
                Some(2..) if length > COMPRESSION_TYPE => Compression::Unknown,
                _ => Compression::Deflate,
            },
            length,
            backing,
            extensions: extensions(bytes, length, extensions_end)?,
            fixed: bytes.get(..length)?.to_vec(),
        };
        header.is_plausible().then_some(header)
    }

    /// Whether L2 entries have a second half, with the state of 32 subclusters.
    #[must_use]
    pub fn is_extended(&self) -> bool {
        self.incompatible & EXTENDED_L2 != 0
    }

    /// Bytes of the disk under one L2 table.
    #[must_use]
    pub fn covers(&self) -> u64 {
        1 << (2 * self.cluster_bits - 3 - u32::from(self.is_extended()))
    }

    /// The L1 table lies on a cluster behind the header and covers the virtual size; no feature contradicts a field.
    fn is_plausible(&self) -> bool {
        let needed = self.size.div_ceil(self.covers());
        let cluster = 1_u64 << self.cluster_bits;
        let packed = self.compression != Compression::Deflate;
        self.size <= i64::MAX.unsigned_abs()
            && (!self.is_extended() || self.cluster_bits >= EXTENDED_BITS_MIN)
            && packed == (self.incompatible & COMPRESSION != 0)
            && self.l1_entries <= L1_ENTRIES_MAX
            && u64::from(self.l1_entries) >= needed
            && (self.l1_entries == 0
                || (self.l1_offset >= cluster && self.l1_offset.is_multiple_of(cluster)))
    }

    /// The recorded format of the backing file.
    #[must_use]
    pub fn backing_format(&self) -> Option<String> {
        let it = self
            .extensions
            .iter()
            .find(|e| e.kind == EXT_BACKING_FORMAT)?;
        Some(String::from_utf8_lossy(&it.data).into_owned())
    }

    /// Why this program does not take the image, judged by the header alone.
    #[must_use]
    pub fn refusal(&self) -> Option<Message> {
        let has = |bit| self.incompatible & bit != 0;
        let data_file = self.extensions.iter().any(|e| e.kind == EXT_DATA_FILE);
        [
            (self.crypt_method != 0, texts::ENCRYPTED),
            (has(DATA_FILE) || data_file, texts::EXTERNAL_DATA),
            (has(CORRUPT), texts::CORRUPT),
            (has(DIRTY), texts::DIRTY),
            (self.incompatible & !KNOWN != 0, texts::UNKNOWN_FEATURE),
            (
                self.compression == Compression::Unknown,
                texts::UNKNOWN_FEATURE,
            ),
            (self.snapshots != 0, texts::INTERNAL_SNAPSHOTS),
        ]
        .into_iter()
        .find_map(|(applies, message)| applies.then_some(message))
    }

    /// Why this program does not merge the image with another: what it would have to keep in step and
    /// does not know how to.
    #[must_use]
    pub fn merge_refusal(&self) -> Option<Message> {
        let bitmaps = self.extensions.iter().any(|e| e.kind == EXT_BITMAPS);
        self.refusal().or(bitmaps.then_some(texts::MERGE_BITMAPS))
    }

    /// The first persistent bitmap that is marked in use: its last writer did not close the image. Stored
    /// bitmaps that are not are no reason to refuse an image.
    ///
    /// # Errors
    /// Outside the I/O error, inside [`HeaderError::Damaged`] for a directory that cannot be read.
    pub fn bitmap_in_use(&self, file: &File) -> io::Result<Result<Option<String>, HeaderError>> {
        let Some(ext) = self.extensions.iter().find(|e| e.kind == EXT_BITMAPS) else {
            return Ok(Ok(None));
        };
        if self.autoclear & BITMAPS_VALID == 0 {
            return Ok(Ok(None));
        }
        let fields = (be32(&ext.data, 0), be64(&ext.data, 8), be64(&ext.data, 16));
        let (Some(count), Some(length), Some(offset)) = fields else {
            return Ok(Err(HeaderError::Damaged));
        };
        if count > BITMAPS_MAX || length > BITMAP_DIRECTORY_MAX {
            return Ok(Err(HeaderError::Damaged));
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let directory = read_up_to(file, offset, length)?;
        Ok(first_in_use(&directory, count).ok_or(HeaderError::Damaged))
    }

    /// The header area with this backing file in place of the old one: everything from offset 0 to the
    /// end of the name. `None` if it does not fit into the first cluster, or there are too many extensions.
    #[must_use]
    pub fn with_backing(&self, backing: &[u8], format: &str) -> Option<Vec<u8>> {
        if backing.len() > BACKING_NAME_MAX {
            return None;
        }
        let mut out = self.fixed.clone();
        let format = Extension {
            kind: EXT_BACKING_FORMAT,
            data: format.as_bytes().to_vec(),
        };
        let others = self.extensions.iter();
        let others = others.filter(|e| e.kind != EXT_BACKING_FORMAT);
        if others.clone().count() >= EXTENSIONS_MAX {
            return None; // one more, and nobody here could read it again
        }
        push_extension(&mut out, &format)?;
        for ext in others {
            push_extension(&mut out, ext)?;
        }
        out.extend_from_slice(&[0; 8]);
        let offset = u64::try_from(out.len()).ok()?;
        out.extend_from_slice(backing);
        out.get_mut(8..16)?.copy_from_slice(&offset.to_be_bytes());
        let length = u32::try_from(backing.len()).ok()?;
        out.get_mut(16..20)?.copy_from_slice(&length.to_be_bytes());
        (out.len() <= 1 << self.cluster_bits).then_some(out)
    }
}

/// Whether the bytes begin as a qcow2 image.
///
/// # Errors
/// The file cannot be read.
pub fn has_magic(file: &File) -> io::Result<bool> {
    Ok(read_up_to(file, 0, MAGIC.len())? == MAGIC)
}

/// The backing name, and where the extensions must end.
fn backing(bytes: &[u8], cluster: usize, length: usize) -> Option<(Option<Vec<u8>>, usize)> {
    let offset = usize::try_from(be64(bytes, 8)?).ok()?;
    let size = usize::try_from(be32(bytes, 16)?).ok()?;
    if offset == 0 || size == 0 {
        return Some((None, cluster.min(bytes.len())));
    }
    let end = offset.checked_add(size)?;
    if size > BACKING_NAME_MAX || offset < length || end > cluster {
        return None;
    }
    Some((Some(bytes.get(offset..end)?.to_vec()), offset))
}

fn extensions(bytes: &[u8], start: usize, end: usize) -> Option<Vec<Extension>> {
    let mut out = Vec::new();
    let mut at = start;
    // A header without room for an end mark ends where the backing name begins.
    while at.checked_add(8)? <= end {
        let kind = be32(bytes, at)?;
        let length = usize::try_from(be32(bytes, at + 4)?).ok()?;
        if kind == EXT_END {
            break;
        }
        let data = bytes.get(at + 8..(at + 8).checked_add(length)?)?;
        if at + 8 + length > end || out.len() == EXTENSIONS_MAX {
            return None;
        }
        out.push(Extension {
            kind,
            data: data.to_vec(),
        });
        at = (at + 8).checked_add(length.checked_next_multiple_of(8)?)?;
    }
    Some(out)
}

pub(super) fn push_extension(out: &mut Vec<u8>, ext: &Extension) -> Option<()> {
    out.extend_from_slice(&ext.kind.to_be_bytes());
    out.extend_from_slice(&u32::try_from(ext.data.len()).ok()?.to_be_bytes());
    out.extend_from_slice(&ext.data);
    out.resize(out.len().checked_next_multiple_of(8)?, 0);
    Some(())
}

/// `None` for a directory that does not hold `count` entries.
fn first_in_use(directory: &[u8], count: u32) -> Option<Option<String>> {
    let mut at = 0_usize;
    let mut found = None;
    for _ in 0..count {
        let in_use = be32(directory, at + 12)? & 1 != 0;
        let name = usize::from(u16::from_be_bytes(
            *directory.get(at + 18..)?.first_chunk()?,
        ));
        let extra = usize::try_from(be32(directory, at + 20)?).ok()?;
        let length = 24_usize.checked_add(name)?.checked_add(extra)?;
        if in_use && found.is_none() {
            // The name lies behind the extra data.
            let begins = at.checked_add(24)?.checked_add(extra)?;
            let name = directory.get(begins..begins.checked_add(name)?)?;
            found = Some(String::from_utf8_lossy(name).into_owned());
        }
        at = at.checked_add(length.checked_next_multiple_of(8)?)?;
        if at > directory.len() {
            return None;
        }
    }
    Some(found)
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The `length` bytes at `offset`, fewer where the file ends.
fn read_up_to(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let end = file.metadata()?.len();
    let there = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
    let mut bytes = vec![0; length.min(there)];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}
