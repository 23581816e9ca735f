//! Where the clusters of a disk lie in a qcow2 image: its L1 and L2 tables, read and checked.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::header::Header;

/// The cluster or table that an entry names has refcount 1.
pub(crate) const COPIED: u64 = 1 << 63;
/// The whole cluster reads as zero.
pub(crate) const ZERO: u64 = 1;
const COMPRESSED: u64 = 1 << 62;
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const SECTOR: u64 = 512;

/// What an L2 entry says about one cluster of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The backing file has it.
    Unallocated,
    /// It reads as zero; a host cluster may be kept for it.
    Zero(Option<u64>),
    /// It lies at this offset.
    Data(u64),
    /// It is compressed into these bytes, whole sectors of them.
    Compressed(u64, u64),
}

impl Entry {
    /// Reads an entry of an image with this header.
    pub(crate) fn read(raw: u64, header: &Header) -> io::Result<Self> {
        if raw & COMPRESSED != 0 {
            let shift = 62 - (header.cluster_bits - 8);
            let offset = raw & ((1 << shift) - 1) & !(SECTOR - 1);
            let sectors = ((raw & (COMPRESSED - 1)) >> shift) + 1;
            return Ok(Self::Compressed(offset, sectors * SECTOR));
        }
        let host = raw & OFFSET;
        if !host.is_multiple_of(1 << header.cluster_bits) || (header.version < 3 && raw & ZERO != 0)
        {
            return Err(damaged("an L2 entry is not possible"));
        }
        let host = (host != 0).then_some(host);
        Ok(match host {
            _ if raw & ZERO != 0 => Self::Zero(host),
            Some(host) => Self::Data(host),
            None => Self::Unallocated,
        })
    }
}

/// What an image itself holds of a range of its disk, without its backing file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Offset on the disk.
    pub(crate) at: u64,
    /// Bytes.
    pub(crate) length: u64,
    /// What is there.
    pub(crate) kind: Kind,
}

/// See [`Extent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Zeroes.
    Zero,
    /// The bytes from this offset of the file on.
    Data(u64),
    /// Bytes that must be unpacked.
    Compressed,
}

/// The L1 table of an open image, and its L2 tables on demand.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) file: File,
    pub(crate) header: Header,
    l1: Vec<u64>,
    /// The L2 table that was read last.
    last: Option<(usize, Vec<u64>)>,
}

impl Tables {
    pub(crate) fn open(file: File, header: Header) -> io::Result<Self> {
        let l1 = read_table(&file, header.l1_offset, size(header.l1_entries.into()))?;
        Ok(Self {
            file,
            header,
            l1,
            last: None,
        })
    }

    /// What the image holds of its disk from `from` up to `to`, in order; neighbours that go on in the
    /// file are one extent.
    pub(crate) fn extents(&mut self, from: u64, to: u64) -> io::Result<Vec<Extent>> {
        let cluster = 1_u64 << self.header.cluster_bits;
        let to = to.min(self.header.size);
        let mut found: Vec<Extent> = Vec::new();
        let mut at = from;
        while at < to {
            let index = size(at / self.covers());
            if self.l2(index)?.is_none() {
                at = (at / self.covers() + 1) * self.covers();
                continue;
            }
            let next = (at / cluster + 1) * cluster;
            let raw = self.raw(index, at);
            let kind = match Entry::read(raw, &self.header)? {
                Entry::Unallocated => None,
                Entry::Zero(_) => Some(Kind::Zero),
                Entry::Data(host) => Some(Kind::Data(host + at % cluster)),
                Entry::Compressed(..) => Some(Kind::Compressed),
            };
            if let Some(kind) = kind {
                let length = next.min(to) - at;
                push(&mut found, Extent { at, length, kind });
            }
            at = next;
        }
        Ok(found)
    }

    /// Bytes of the disk under one L2 table.
    fn covers(&self) -> u64 {
        1 << (2 * self.header.cluster_bits - 3)
    }

    fn raw(&self, index: usize, at: u64) -> u64 {
        let place = size((at % self.covers()) >> self.header.cluster_bits);
        let table = self.last.as_ref().filter(|(i, _)| *i == index);
        table.and_then(|(_, t)| t.get(place)).copied().unwrap_or(0)
    }

    fn l2(&mut self, index: usize) -> io::Result<Option<()>> {
        if self.last.as_ref().is_some_and(|(i, _)| *i == index) {
            return Ok(Some(()));
        }
        let entry = self.l1.get(index).copied().unwrap_or(0);
        let Some(offset) = l2_offset(entry, &self.header)? else {
            return Ok(None);
        };
        let entries = size(1 << (self.header.cluster_bits - 3));
        self.last = Some((index, read_table(&self.file, offset, entries)?));
        Ok(Some(()))
    }
}

fn push(found: &mut Vec<Extent>, new: Extent) {
    if let Some(last) = found.last_mut().filter(|l| l.at + l.length == new.at) {
        let goes_on = match (last.kind, new.kind) {
            (Kind::Zero, Kind::Zero) | (Kind::Compressed, Kind::Compressed) => true,
            (Kind::Data(a), Kind::Data(b)) => a + last.length == b,
            _ => false,
        };
        if goes_on {
            last.length += new.length;
            return;
        }
    }
    found.push(new);
}

/// Where the L2 table of an L1 entry lies, if there is one.
pub(crate) fn l2_offset(entry: u64, header: &Header) -> io::Result<Option<u64>> {
    let offset = entry & OFFSET;
    if !offset.is_multiple_of(1 << header.cluster_bits) {
        return Err(damaged("an L1 entry is not possible"));
    }
    Ok((offset != 0).then_some(offset))
}

/// Reads a table of big-endian numbers; what lies behind the end of the file is 0.
pub(crate) fn read_table(file: &File, offset: u64, entries: usize) -> io::Result<Vec<u64>> {
    let mut bytes = vec![0; entries * 8];
    read_padded(file, offset, &mut bytes)?;
    let numbers = bytes.as_chunks::<8>().0.iter();
    Ok(numbers.map(|n| u64::from_be_bytes(*n)).collect())
}

/// A table as it stands in the file.
pub(crate) fn table_bytes(table: &[u64]) -> Vec<u8> {
    table.iter().flat_map(|n| n.to_be_bytes()).collect()
}

/// Reads all of `into`; zeroes behind the end of the file.
pub(crate) fn read_padded(file: &File, offset: u64, into: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while let Some(rest) = into.get_mut(done..).filter(|r| !r.is_empty()) {
        match file.read_at(rest, offset.saturating_add(length(done))) {
            Ok(0) => {
                rest.fill(0);
                break;
            }
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// The image contradicts itself.
pub(crate) fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A number of bytes or entries as memory counts them.
pub(crate) fn size(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// And back.
pub(crate) fn length(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
