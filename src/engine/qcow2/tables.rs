//! Where the clusters of a disk lie in a qcow2 image: its L1 and L2 tables, read and checked.
//!
//! An L2 entry stands for one cluster. With extended entries it has a second half, which tells of each of 32
//! subclusters whether it is stored (low half) and whether it reads as zero (high half).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::header::Header;

/// The cluster or table that an entry names has refcount 1.
pub(crate) const COPIED: u64 = 1 << 63;
/// The whole cluster reads as zero; not in extended entries.
pub(crate) const ZERO: u64 = 1;
const COMPRESSED: u64 = 1 << 62;
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const SECTOR: u64 = 512;
/// Subclusters of a cluster with extended entries.
const PARTS: u64 = 32;
/// Numbers of an L2 table that are read at once: 4 KiB of it.
const SLICE: usize = 512;
/// Slices that are remembered: a chain of 64 files then takes 8 MiB.
const SLICES: usize = 32;

/// An L2 entry as it stands in a table; without extended entries the second half is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RawEntry {
    pub(crate) first: u64,
    pub(crate) second: u64,
}

impl RawEntry {
    /// The cluster lies at this place of the file, all of it.
    pub(crate) fn data(host: u64, header: &Header) -> Self {
        Self {
            first: host | COPIED,
            second: if header.is_extended() { ALL } else { 0 },
        }
    }

    /// The cluster reads as zero; such entries are of version 3 only.
    pub(crate) fn zero(header: &Header) -> Self {
        match header.is_extended() {
            true => Self {
                first: 0,
                second: ALL << PARTS,
            },
            false => Self {
                first: ZERO,
                second: 0,
            },
        }
    }

    /// How many numbers an entry takes.
    pub(crate) fn width(header: &Header) -> usize {
        1 + usize::from(header.is_extended())
    }
}

/// Every subcluster.
const ALL: u64 = (1 << PARTS) - 1;

/// What an L2 entry says about one cluster of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The backing file has it.
    Unallocated,
    /// It reads as zero; a host cluster may be kept for it.
    Zero(Option<u64>),
    /// It lies at this offset.
    Data(u64),
    /// It is compressed into these bytes: where they begin, and how many at most.
    Compressed(u64, u64),
    /// Its subclusters differ: where the stored ones lie, and the second half of the entry.
    Mixed(Option<u64>, u64),
}

impl Entry {
    /// Reads an entry of an image with this header.
    pub(crate) fn read(raw: RawEntry, header: &Header) -> io::Result<Self> {
        let impossible = || damaged("an L2 entry is not possible");
        if raw.first & COMPRESSED != 0 {
            let shift = 62 - (header.cluster_bits - 8);
            let offset = raw.first & ((1 << shift) - 1);
            let sectors = ((raw.first & (COMPRESSED - 1)) >> shift) + 1;
            return Ok(Self::Compressed(offset, sectors * SECTOR - offset % SECTOR));
        }
        let host = raw.first & OFFSET;
        let zero = raw.first & ZERO != 0 && !header.is_extended();
        if !host.is_multiple_of(1 << header.cluster_bits) || (header.version < 3 && zero) {
            return Err(impossible());
        }
        let host = (host != 0).then_some(host);
        if !header.is_extended() {
            return Ok(match host {
                _ if zero => Self::Zero(host),
                Some(host) => Self::Data(host),
                None => Self::Unallocated,
            });
        }
        let (stored, zero) = (raw.second & ALL, raw.second >> PARTS);
        if stored & zero != 0 || (host.is_none() && stored != 0) {
            return Err(impossible());
        }
        Ok(match host {
            Some(host) if stored == ALL => Self::Data(host),
            _ if zero == ALL => Self::Zero(host),
            None if zero == 0 => Self::Unallocated,
            _ => Self::Mixed(host, raw.second),
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
    pub(crate) kind: ExtentKind,
}

/// See [`Extent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExtentKind {
    /// Zeroes.
    Zero,
    /// The bytes from this offset of the file on.
    Data(u64),
    /// Bytes that must be unpacked: where the packed ones begin, and how many they are at most.
    Compressed(u64, u64),
}

/// The L1 table of an open image, and its L2 tables on demand.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) file: File,
    pub(crate) header: Header,
    /// Bytes of the file when it was opened: nothing that is named lies behind them.
    end: u64,
    l1: Vec<u64>,
    /// Slices of L2 tables by their place in the file, the one that was asked for last at the end.
    slices: Vec<(u64, Vec<u64>)>,
}

impl Tables {
    pub(crate) fn open(file: File, header: Header) -> io::Result<Self> {
        let l1 = read_table(&file, header.l1_offset, size(header.l1_entries.into()))?;
        Ok(Self {
            end: file.metadata()?.len(),
            file,
            header,
            l1,
            slices: Vec::new(),
        })
    }

    fn cluster(&self) -> u64 {
        1 << self.header.cluster_bits
    }

    /// What the image holds of its disk from `from` up to `to`, in order; neighbours that go on in the
    /// file are one extent.
    pub(crate) fn extents(&mut self, from: u64, to: u64) -> io::Result<Vec<Extent>> {
        let to = to.min(self.header.size);
        let mut found: Vec<Extent> = Vec::new();
        let mut at = from;
        while at < to {
            let (kind, length) = self.run(at, to - at)?;
            found.extend(kind.map(|kind| Extent { at, length, kind }));
            at += length;
        }
        Ok(found)
    }

    /// What the image holds at `at`, `None` for nothing, and for how many of the next `limit` bytes that goes on;
    /// at least one byte. The disk must reach as far.
    pub(crate) fn run(&mut self, at: u64, limit: u64) -> io::Result<(Option<ExtentKind>, u64)> {
        let (kind, mut length) = self.first(at)?;
        while length < limit {
            let (next, more) = self.first(at.saturating_add(length))?;
            let goes_on = match (kind, next) {
                (None, None) | (Some(ExtentKind::Zero), Some(ExtentKind::Zero)) => true,
                (Some(ExtentKind::Data(a)), Some(ExtentKind::Data(b))) => a + length == b,
                _ => false,
            };
            if !goes_on {
                break;
            }
            length = length.saturating_add(more);
        }
        Ok((kind, length.min(limit)))
    }

    /// [`Tables::run`] as far as one entry tells it.
    fn first(&mut self, at: u64) -> io::Result<(Option<ExtentKind>, u64)> {
        let (cluster, covers) = (self.cluster(), self.header.covers());
        let index = size(at / covers);
        let Some(entry) = self.l1.get(index) else {
            return Ok((None, u64::MAX - at)); // behind the disk
        };
        let Some(table) = l2_offset(*entry, &self.header)? else {
            return Ok((None, covers - at % covers));
        };
        let inside = at % cluster;
        let rest = cluster - inside;
        let raw = self.raw(table, (at % covers) >> self.header.cluster_bits)?;
        Ok(match Entry::read(raw, &self.header)? {
            Entry::Unallocated => (None, rest),
            Entry::Zero(_) => (Some(ExtentKind::Zero), rest),
            Entry::Data(at) => (Some(ExtentKind::Data(self.host(at, inside)?)), rest),
            Entry::Compressed(at, bytes) => {
                self.host(at, 0)?;
                (Some(ExtentKind::Compressed(at, bytes)), rest)
            }
            Entry::Mixed(at, bits) => {
                let (part, length) = (inside * PARTS / cluster, cluster / PARTS);
                let rest = length - inside % length;
                let is = |bit: u64| bits >> bit & 1 != 0;
                match at {
                    Some(at) if is(part) => (Some(ExtentKind::Data(self.host(at, inside)?)), rest),
                    _ if is(part + PARTS) => (Some(ExtentKind::Zero), rest),
                    _ => (None, rest),
                }
            }
        })
    }

    /// The place in the file. What begins behind its end is not there: the file was cut.
    fn host(&self, host: u64, inside: u64) -> io::Result<u64> {
        match host < self.end {
            true => Ok(host + inside),
            false => Err(cut()),
        }
    }

    /// The entry at that place of the L2 table that lies at `table`.
    fn raw(&mut self, table: u64, place: u64) -> io::Result<RawEntry> {
        let width = RawEntry::width(&self.header);
        let (first, slice_bytes) = (size(place) * width, length(SLICE) * 8);
        // A table of the smallest clusters is shorter than a slice.
        let slice = slice_bytes.min(self.cluster());
        let offset = table + length(first) * 8 / slice * slice;
        let known = self.slices.iter().rposition(|(at, _)| *at == offset);
        match known {
            Some(known) if known + 1 == self.slices.len() => {}
            Some(known) => {
                let slice = self.slices.remove(known);
                self.slices.push(slice);
            }
            None => {
                if offset.saturating_add(slice) > self.end {
                    return Err(cut());
                }
                let entries = read_table(&self.file, offset, size(slice / 8))?;
                if self.slices.len() == SLICES {
                    self.slices.remove(0);
                }
                self.slices.push((offset, entries));
            }
        }
        let place = first % size(slice / 8);
        let entries = self.slices.last().map(|(_, entries)| entries.as_slice());
        let entries = entries.and_then(|e| e.get(place..)).unwrap_or_default();
        let number = |n: usize| entries.get(n).copied().unwrap_or(0);
        Ok(RawEntry {
            first: number(0),
            second: if width > 1 { number(1) } else { 0 },
        })
    }
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

/// The file is shorter than its own tables say.
pub(crate) fn cut() -> io::Error {
    damaged("the file ends before what its tables name: it was cut off")
}

/// A number of bytes or entries as memory counts them.
pub(crate) fn size(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// And back.
pub(crate) fn length(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
