//! Changes the tables of a qcow2 image that nobody has open, so that whoever dies in between leaves an
//! image without damage: clusters are counted before anything names them, and named by nothing before
//! their count is taken back. What can be left is a count too high, which the next [`Editor::open`] puts
//! right.
//!
//! ```text
//!   allocate ─▶ counts (fsync) ─▶ contents (fsync) ─▶ L2 tables (fsync) ─▶ L1 table (fsync) ─▶ frees
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::header::Header;
use super::refcounts::Refcounts;
use super::tables::{
    COPIED, Entry, RawEntry, damaged, l2_offset, length, read_table, size, table_bytes,
};
use crate::failpoint;

/// Where the header has these fields.
const SIZE: u64 = 24;
const L1_POINTER: u64 = 36;
const AUTOCLEAR: u64 = 88;

/// An image open for changes. Each round is [`Editor::set`] for its clusters, [`Editor::begin`], the
/// writing of their contents by the caller, [`Editor::end`].
#[derive(Debug)]
pub(crate) struct Editor {
    pub(crate) file: File,
    pub(crate) header: Header,
    refcounts: Refcounts,
    l1: Vec<u64>,
    /// The L2 tables of this round, by their place in L1.
    l2: BTreeMap<usize, L2>,
    /// What this round lets go.
    freed: Vec<(u64, u64)>,
}

#[derive(Debug)]
struct L2 {
    offset: u64,
    entries: Vec<u64>,
    changed: bool,
}

/// Reads all tables of an image and compares its refcounts with them; writes nothing.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] for an image that is damaged; else the I/O error.
pub(crate) fn check(file: &File, header: &Header) -> io::Result<()> {
    counted(file, header).map(drop)
}

/// The refcounts as the tables say they must be, compared with those of the file, and the L1 table.
fn counted(file: &File, header: &Header) -> io::Result<(Refcounts, Vec<u64>)> {
    let cluster = 1_u64 << header.cluster_bits;
    let mut refcounts = Refcounts::open(file, header, file.metadata()?.len())?;
    let l1_entries = u64::from(header.l1_entries);
    let l1 = read_table(file, header.l1_offset, size(l1_entries))?;
    refcounts.count(0, cluster)?;
    refcounts.count(header.l1_offset, l1_entries * 8)?;
    for raw in &l1 {
        let Some(offset) = l2_offset(*raw, header)? else {
            continue;
        };
        refcounts.count(offset, cluster)?;
        let table = read_table(file, offset, size(cluster / 8))?;
        for raw in table.chunks(RawEntry::width(header)).map(raw_entry) {
            if let Some((offset, bytes)) = extent(Entry::read(raw, header)?, cluster) {
                refcounts.count(offset, bytes)?;
            }
        }
    }
    refcounts.compare(file)?;
    Ok((refcounts, l1))
}

impl Editor {
    /// Reads all tables, checks the refcounts against them and repairs what a dead writer leaked.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for an image that is damaged; it was not written then.
    pub(crate) fn open(file: File, header: Header) -> io::Result<Self> {
        let (mut refcounts, l1) = counted(&file, &header)?;
        refcounts.publish(&file)?;
        let it = Self {
            file,
            header,
            refcounts,
            l1,
            l2: BTreeMap::new(),
            freed: Vec::new(),
        };
        if it.header.version > 2 && it.header.autoclear != 0 {
            // Whatever these features keep in step, this writer does not.
            it.file.write_all_at(&[0; 8], AUTOCLEAR)?;
            it.file.sync_data()?;
        }
        Ok(it)
    }

    pub(crate) fn cluster(&self) -> u64 {
        1 << self.header.cluster_bits
    }

    /// Makes room in L1 for a disk of `bytes`. The disk has its old size until [`Editor::resize`].
    pub(crate) fn grow(&mut self, bytes: u64) -> io::Result<()> {
        let entries = size(bytes.div_ceil(self.covers()));
        if entries <= self.l1.len() {
            return Ok(());
        }
        let old = (self.header.l1_offset, length(self.l1.len()) * 8);
        let clusters = (length(entries) * 8).div_ceil(self.cluster());
        let offset = self.refcounts.allocate(size(clusters));
        self.refcounts.publish(&self.file)?;
        self.l1.resize(entries, 0);
        let mut table = table_bytes(&self.l1);
        table.resize(size(clusters * self.cluster()), 0);
        self.file.write_all_at(&table, offset)?;
        self.file.sync_data()?;
        let entries = u32::try_from(entries).map_err(io::Error::other)?;
        let mut pointer = entries.to_be_bytes().to_vec();
        pointer.extend(offset.to_be_bytes());
        self.file.write_all_at(&pointer, L1_POINTER)?;
        self.file.sync_data()?;
        (self.header.l1_entries, self.header.l1_offset) = (entries, offset);
        pass("grown")?;
        self.refcounts.free(old.0, old.1);
        self.refcounts.publish(&self.file)
    }

    /// What the image says about the cluster of the disk at `at`.
    pub(crate) fn entry(&mut self, at: u64) -> io::Result<Entry> {
        let (index, place) = self.place(at);
        self.load(index)?;
        let entries = self.l2.get(&index).and_then(|t| t.entries.get(place..));
        Entry::read(raw_entry(entries.unwrap_or_default()), &self.header)
    }

    /// The host cluster for the contents of the cluster at `at`: the one it has if it has it alone, else a
    /// new one. Whether it holds the old contents.
    pub(crate) fn host(&mut self, at: u64) -> io::Result<(u64, bool)> {
        let old = self.entry(at)?;
        match old {
            Entry::Data(host) if self.refcounts.is_single(host) => Ok((host, true)),
            Entry::Zero(Some(host)) | Entry::Mixed(Some(host), _)
                if self.refcounts.is_single(host) =>
            {
                self.put(at, RawEntry::data(host, &self.header))?;
                Ok((host, false))
            }
            _ => {
                let host = self.refcounts.allocate(1);
                self.let_go(old);
                self.put(at, RawEntry::data(host, &self.header))?;
                Ok((host, false))
            }
        }
    }

    /// Lets the cluster at `at` read as zero (version 3 only), or as what the backing file has.
    pub(crate) fn clear(&mut self, at: u64, zero: bool) -> io::Result<()> {
        let old = self.entry(at)?;
        let new = match zero {
            true => RawEntry::zero(&self.header),
            false => RawEntry::default(),
        };
        if old == Entry::read(new, &self.header)? {
            return Ok(());
        }
        self.let_go(old);
        self.put(at, new)
    }

    /// Whether this round has nothing to do; what was looked at is forgotten then.
    pub(crate) fn is_unchanged(&mut self) -> bool {
        let unchanged = self.l2.values().all(|t| !t.changed);
        if unchanged {
            self.l2.clear();
        }
        unchanged
    }

    /// Everything that this round names is counted, durably: its contents may be written.
    pub(crate) fn begin(&mut self) -> io::Result<()> {
        self.refcounts.publish(&self.file)?;
        let end = self.refcounts.end();
        if self.file.metadata()?.len() < end {
            self.file.set_len(end)?;
        }
        pass("counted")
    }

    /// The contents are written: makes them durable, names them, and lets the old ones go.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        pass("filled")?;
        let tables: Vec<_> = std::mem::take(&mut self.l2).into_iter().collect();
        let changed = || tables.iter().filter(|(_, t)| t.changed);
        for (_, table) in changed() {
            self.file
                .write_all_at(&table_bytes(&table.entries), table.offset)?;
        }
        if changed().next().is_some() {
            self.file.sync_data()?;
        }
        pass("mapped")?;
        let mut named = false;
        for (index, table) in changed() {
            let raw = table.offset | COPIED;
            if let Some(entry) = self.l1.get_mut(*index).filter(|e| **e != raw) {
                *entry = raw;
                let at = self.header.l1_offset + length(*index) * 8;
                self.file.write_all_at(&raw.to_be_bytes(), at)?;
                named = true;
            }
        }
        if named {
            self.file.sync_data()?;
        }
        pass("named")?;
        for (offset, bytes) in std::mem::take(&mut self.freed) {
            self.refcounts.free(offset, bytes);
        }
        Ok(())
    }

    /// Gives the disk this size, lets go what lies behind it, and makes all of it durable.
    pub(crate) fn resize(&mut self, bytes: u64) -> io::Result<()> {
        let before = self.header.size;
        if before != bytes {
            self.file.write_all_at(&bytes.to_be_bytes(), SIZE)?;
            self.file.sync_data()?;
            self.header.size = bytes;
            pass("resized")?;
        }
        let mut at = bytes.next_multiple_of(self.cluster());
        while at < before {
            let (index, _) = self.place(at);
            if self.l1.get(index).is_none_or(|raw| *raw == 0) {
                at = length(index + 1) * self.covers();
                continue;
            }
            self.clear(at, false)?;
            at += self.cluster();
            if at.is_multiple_of(self.covers()) {
                self.end()?;
            }
        }
        self.end()?;
        self.refcounts.publish(&self.file)?;
        self.file.sync_all()
    }

    fn covers(&self) -> u64 {
        self.header.covers()
    }

    /// The L2 table by its place in L1, and where in it the entry begins.
    fn place(&self, at: u64) -> (usize, usize) {
        let place = (at % self.covers()) >> self.header.cluster_bits;
        let begins = size(place) * RawEntry::width(&self.header);
        (size(at / self.covers()), begins)
    }

    fn load(&mut self, index: usize) -> io::Result<()> {
        if self.l2.contains_key(&index) {
            return Ok(());
        }
        let raw = self.l1.get(index).copied();
        let raw = raw.ok_or_else(|| damaged("the L1 table is too short"))?;
        if let Some(offset) = l2_offset(raw, &self.header)? {
            let entries = read_table(&self.file, offset, size(self.cluster() / 8))?;
            let changed = false;
            let table = L2 {
                offset,
                entries,
                changed,
            };
            self.l2.insert(index, table);
        }
        Ok(())
    }

    fn put(&mut self, at: u64, raw: RawEntry) -> io::Result<()> {
        let (index, place) = self.place(at);
        self.load(index)?;
        let entries = size(self.cluster() / 8);
        let (refcounts, tables) = (&mut self.refcounts, &mut self.l2);
        let table = tables.entry(index).or_insert_with(|| L2 {
            offset: refcounts.allocate(1),
            entries: vec![0; entries],
            changed: true,
        });
        table.changed = true;
        let entry = table.entries.get_mut(place..).unwrap_or_default();
        let halves = [raw.first, raw.second];
        let halves = halves.into_iter().take(RawEntry::width(&self.header));
        entry.iter_mut().zip(halves).for_each(|(e, half)| *e = half);
        Ok(())
    }

    fn let_go(&mut self, old: Entry) {
        self.freed.extend(extent(old, self.cluster()));
    }
}

/// The fail points of a merge into a qcow2 file, in order.
pub(crate) const FAILPOINTS: &[&str] = &[
    "merge.grown",
    "merge.counted",
    "merge.filled",
    "merge.mapped",
    "merge.named",
    "merge.resized",
];

fn pass(step: &str) -> io::Result<()> {
    failpoint::pass(&format!("merge.{step}")).map_err(io::Error::other)
}

/// The bytes of the file that an entry takes.
fn extent(entry: Entry, cluster: u64) -> Option<(u64, u64)> {
    match entry {
        Entry::Unallocated | Entry::Zero(None) | Entry::Mixed(None, _) => None,
        Entry::Data(host) | Entry::Zero(Some(host)) | Entry::Mixed(Some(host), _) => {
            Some((host, cluster))
        }
        Entry::Compressed(offset, bytes) => Some((offset, bytes)),
    }
}

/// The entry that these numbers of a table begin with; a second one is its second half where entries have one.
fn raw_entry(numbers: &[u64]) -> RawEntry {
    let number = |n: usize| numbers.get(n).copied().unwrap_or(0);
    RawEntry {
        first: number(0),
        second: number(1),
    }
}
