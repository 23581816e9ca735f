//! The refcounts of a qcow2 image, as its tables say they must be, and the file brought to it.
//!
//! All counts are kept in memory, two bytes a cluster. They are never read from the file but to compare:
//! what the file counts higher was leaked by a dead writer and is put right; what it counts lower is damage.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::header::Header;
use super::tables::{damaged, length, read_padded, read_table, size, table_bytes};

/// Refcounts of an image that is open for writing.
#[derive(Debug)]
pub(crate) struct Refcounts {
    cluster: u64,
    order: u32,
    counts: Vec<u16>,
    /// The refcount table: where each block lies, 0 where none is.
    table: Vec<u64>,
    /// Where the table lies in the file, and its bytes there.
    table_offset: u64,
    table_bytes: u64,
    /// Blocks that the file does not have as memory has them.
    dirty: BTreeSet<usize>,
    /// No cluster below this one is free.
    hint: usize,
}

/// Where the header names the refcount table and its clusters.
const TABLE_POINTER: u64 = 48;
/// Bytes of the refcount table that a sane image does not exceed (as QEMU: 8 MiB).
const TABLE_MAX: u64 = 8 << 20;

impl Refcounts {
    /// Counts for a file of `bytes`; nothing is counted yet but what the refcounts take themselves.
    pub(crate) fn open(file: &File, header: &Header, bytes: u64) -> io::Result<Self> {
        let cluster = 1_u64 << header.cluster_bits;
        let clusters = u64::from(header.refcount_clusters);
        let offset = header.refcount_offset;
        if clusters * cluster > TABLE_MAX || offset == 0 || !offset.is_multiple_of(cluster) {
            return Err(damaged("the refcount table is not possible"));
        }
        let mut it = Self {
            cluster,
            order: header.refcount_order,
            counts: vec![0; size(bytes.div_ceil(cluster))],
            table: read_table(file, offset, size(clusters * cluster / 8))?,
            table_offset: offset,
            table_bytes: clusters * cluster,
            dirty: BTreeSet::new(),
            hint: 0,
        };
        it.count(offset, clusters * cluster)?;
        for block in it.table.clone() {
            if !block.is_multiple_of(cluster) {
                return Err(damaged("the refcount table names no cluster"));
            }
            if block != 0 {
                it.count(block, cluster)?;
            }
        }
        Ok(it)
    }

    /// Counts every cluster that the range touches.
    pub(crate) fn count(&mut self, offset: u64, bytes: u64) -> io::Result<()> {
        for cluster in self.touched(offset, bytes) {
            let count = self
                .counts
                .get_mut(cluster)
                .filter(|c| u64::from(**c) < limit(self.order))
                .ok_or_else(|| damaged("an entry lies outside the image"))?;
            *count += 1;
        }
        Ok(())
    }

    /// Takes the range out of the counts.
    pub(crate) fn free(&mut self, offset: u64, bytes: u64) {
        for cluster in self.touched(offset, bytes) {
            if let Some(count) = self.counts.get_mut(cluster) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.hint = self.hint.min(cluster);
                }
            }
            self.dirty.insert(cluster / self.per_block());
        }
    }

    /// Whether the cluster at `offset` belongs to one entry alone.
    pub(crate) fn is_single(&self, offset: u64) -> bool {
        self.counts.get(size(offset / self.cluster)) == Some(&1)
    }

    /// Compares with the file, once everything is counted. Leaks become dirty blocks.
    pub(crate) fn compare(&mut self, file: &File) -> io::Result<()> {
        let per_block = self.per_block();
        let counted = self.counts.len().div_ceil(per_block);
        let mut bytes = vec![0; size(self.cluster)];
        for block in 0..counted.max(self.table.len()) {
            match self.table.get(block) {
                Some(offset) if *offset != 0 => read_padded(file, *offset, &mut bytes)?,
                _ if block >= counted => continue,
                _ => bytes.fill(0),
            }
            if bytes == self.block_bytes(block) {
                continue;
            }
            for place in 0..per_block {
                let counted = self.counts.get(block * per_block + place).copied();
                if read_count(&bytes, self.order, place) < u64::from(counted.unwrap_or(0)) {
                    return Err(damaged("a refcount is too low (qemu-img check)"));
                }
            }
            self.dirty.insert(block);
        }
        Ok(())
    }

    /// Takes `clusters` free neighbours; where they begin.
    pub(crate) fn allocate(&mut self, clusters: usize) -> u64 {
        let first = self.find(clusters);
        let end = first + clusters;
        if self.counts.len() < end {
            self.counts.resize(end, 0);
        }
        for cluster in first..end {
            if let Some(count) = self.counts.get_mut(cluster) {
                *count = 1;
            }
            self.dirty.insert(cluster / self.per_block());
        }
        if clusters == 1 {
            self.hint = end;
        }
        length(first) * self.cluster
    }

    fn find(&self, clusters: usize) -> usize {
        let is_free = |at: &usize| self.counts.get(*at) == Some(&0);
        if clusters == 1 {
            return (self.hint..self.counts.len())
                .find(is_free)
                .unwrap_or(self.counts.len());
        }
        let tail = (0..self.counts.len()).rev().take_while(is_free).count();
        self.counts.len() - tail
    }

    /// End of the last cluster in use, in bytes.
    pub(crate) fn end(&self) -> u64 {
        let used = self.counts.iter().rposition(|c| *c != 0);
        length(used.map_or(0, |last| last + 1)) * self.cluster
    }

    /// Brings the file to the counts, durably: a cluster that was allocated may be written after it, and
    /// one that was freed must not be named by anything in the file any more.
    pub(crate) fn publish(&mut self, file: &File) -> io::Result<()> {
        if self.dirty.is_empty() {
            return Ok(());
        }
        let (grown, new) = self.make_room();
        for block in std::mem::take(&mut self.dirty) {
            let offset = self.table.get(block).copied().unwrap_or(0);
            file.write_all_at(&self.block_bytes(block), offset)?;
        }
        file.sync_data()?;
        if let Some((offset, bytes)) = grown {
            file.write_all_at(&table_bytes(&self.table), offset)?;
            file.sync_data()?;
            let clusters = u32::try_from(bytes / self.cluster).map_err(io::Error::other)?;
            let mut pointer = offset.to_be_bytes().to_vec();
            pointer.extend(clusters.to_be_bytes());
            file.write_all_at(&pointer, TABLE_POINTER)?;
            file.sync_data()?;
            let (old, length) = (self.table_offset, self.table_bytes);
            (self.table_offset, self.table_bytes) = (offset, bytes);
            self.free(old, length);
            return self.publish(file);
        }
        for block in &new {
            let offset = self.table.get(*block).copied().unwrap_or(0);
            let place = self.table_offset + length(*block) * 8;
            file.write_all_at(&offset.to_be_bytes(), place)?;
        }
        if new.is_empty() {
            return Ok(());
        }
        file.sync_data()
    }

    /// Gives every dirty block a place, and the table if it is too short. Each place needs counting
    /// itself, so this goes round until nothing is missing. The new place of the table with its bytes, and
    /// the blocks that are new.
    fn make_room(&mut self) -> (Option<(u64, u64)>, Vec<usize>) {
        let (mut grown, mut new) = (None, Vec::new());
        loop {
            let last = self.dirty.last().copied().unwrap_or(0);
            if last >= self.table.len() {
                if let Some((offset, bytes)) = grown {
                    self.free(offset, bytes); // nothing names it yet
                }
                // Half as much again, so that a growing image does not come here often.
                let clusters = (length(last + 1) * 12).div_ceil(self.cluster);
                self.table.resize(size(clusters * self.cluster / 8), 0);
                let offset = self.allocate(size(clusters));
                grown = Some((offset, clusters * self.cluster));
                continue;
            }
            let is_missing = |block: &usize| self.table.get(*block) == Some(&0);
            let Some(block) = self.dirty.iter().copied().find(is_missing) else {
                return (grown, new);
            };
            let offset = self.allocate(1);
            if let Some(entry) = self.table.get_mut(block) {
                *entry = offset;
            }
            new.push(block);
        }
    }

    fn block_bytes(&self, block: usize) -> Vec<u8> {
        let mut bytes = vec![0; size(self.cluster)];
        let per_block = self.per_block();
        let first = block * per_block;
        let end = (first + per_block).min(self.counts.len());
        let counts = self.counts.get(first..end).unwrap_or_default();
        for (place, count) in counts.iter().enumerate() {
            write_count(&mut bytes, self.order, place, *count);
        }
        bytes
    }

    /// Counts in one block.
    fn per_block(&self) -> usize {
        size((self.cluster * 8) >> self.order)
    }

    fn touched(&self, offset: u64, bytes: u64) -> std::ops::Range<usize> {
        let end = offset.saturating_add(bytes).div_ceil(self.cluster);
        size(offset / self.cluster)..size(end)
    }
}

/// The greatest count of that width, as far as memory holds it.
fn limit(order: u32) -> u64 {
    match order {
        0..=3 => (1 << (1 << order)) - 1,
        _ => u16::MAX.into(),
    }
}

/// Counts narrower than a byte fill it from its low end; wider ones are big-endian.
pub(super) fn read_count(block: &[u8], order: u32, place: usize) -> u64 {
    if order < 3 {
        let (byte, shift, mask) = narrow(order, place);
        return u64::from((block.get(byte).copied().unwrap_or(0) >> shift) & mask);
    }
    let width = 1 << (order - 3);
    let bytes = block.get(place * width..(place + 1) * width);
    let bytes = bytes.unwrap_or_default().iter();
    bytes.fold(0, |n, byte| n << 8 | u64::from(*byte))
}

fn write_count(block: &mut [u8], order: u32, place: usize, count: u16) {
    if order < 3 {
        let (byte, shift, mask) = narrow(order, place);
        if let Some(byte) = block.get_mut(byte) {
            let count = u8::try_from(count).unwrap_or(mask) & mask;
            *byte = (*byte & !(mask << shift)) | (count << shift);
        }
        return;
    }
    let width = 1_usize << (order - 3);
    let low = u64::from(count).to_be_bytes();
    let into = block.get_mut(place * width..(place + 1) * width);
    if let (Some(into), Some(from)) = (into, low.get(8 - width..)) {
        into.copy_from_slice(from);
    }
}

fn narrow(order: u32, place: usize) -> (usize, u32, u8) {
    let per_byte = 8_usize >> order;
    let shift = u32::try_from(place % per_byte).unwrap_or(0) << order;
    let mask = u8::try_from(limit(order)).unwrap_or(u8::MAX);
    (place / per_byte, shift, mask)
}
