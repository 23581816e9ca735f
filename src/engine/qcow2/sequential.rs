//! A stand-alone qcow2 image written once, from front to back: data where it comes, the tables behind it,
//! the header last. Until [`Sequential::finish`] the file has no header and no program takes it for an image.
//!
//! ```text
//!   cluster 0   1 ..                                            last
//!   header      data, each L2 table behind the data it maps     L1 table, refcount blocks, refcount table
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::writer::{CLUSTER, PER_L1_ENTRY, SECTOR, SIZE_MAX, Tables, header};

/// "Refcount is exactly one", in entries of L1 and L2 tables.
const COPIED: u64 = 1 << 63;
const L2_ENTRIES: u64 = CLUSTER / 8;
/// Clusters that one refcount block covers: entries of 16 bits.
const PER_REFCOUNT_BLOCK: u64 = CLUSTER / 2;

/// An image that is being written.
#[derive(Debug)]
pub struct Sequential {
    file: File,
    size: u64,
    /// Where the next cluster of the file goes.
    end: u64,
    l1: Vec<u64>,
    /// The L2 table that is being filled, with its place in the L1 table.
    l2: Option<(u64, Vec<u64>)>,
    /// The next cluster of the disk that may be given.
    next: u64,
}

impl Sequential {
    /// Begins an image of that virtual size in bytes (rounded up to whole sectors as QEMU does) in an empty file.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] if it is larger than [`SIZE_MAX`].
    pub fn new(file: File, size: u64) -> io::Result<Self> {
        if size > SIZE_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let size = size.next_multiple_of(SECTOR);
        let entries = usize::try_from(size.div_ceil(PER_L1_ENTRY)).unwrap_or(0);
        Ok(Self {
            file,
            size,
            end: CLUSTER,
            l1: vec![0; entries],
            l2: None,
            next: 0,
        })
    }

    /// The most that an image of that virtual size with `data` bytes of whole clusters can take, in bytes.
    #[must_use]
    pub fn length_at_most(size: u64, data: u64) -> u64 {
        let l2_tables = size.div_ceil(PER_L1_ENTRY).min(data.div_ceil(CLUSTER));
        let l1_clusters = (size.div_ceil(PER_L1_ENTRY) * 8).div_ceil(CLUSTER);
        let used = 1 + data.div_ceil(CLUSTER) + l2_tables + l1_clusters;
        let (blocks, table) = refcounts_for(used);
        (used + blocks + table) * CLUSTER
    }

    /// Writes whole clusters of the disk, the first of them at `offset` (a multiple of the cluster). They come in
    /// ascending order; what is never given reads as zeroes.
    ///
    /// # Errors
    /// The I/O error; [`io::ErrorKind::InvalidInput`] for clusters out of order, broken or behind the end.
    pub fn put(&mut self, offset: u64, mut clusters: &[u8]) -> io::Result<()> {
        let mut cluster = offset / CLUSTER;
        let count = u64::try_from(clusters.len()).unwrap_or(u64::MAX) / CLUSTER;
        let whole = offset.is_multiple_of(CLUSTER) && to_usize(count * CLUSTER) == clusters.len();
        if !whole || cluster < self.next || cluster + count > self.size.div_ceil(CLUSTER) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        while !clusters.is_empty() {
            let table = cluster / L2_ENTRIES;
            self.turn_to(table)?;
            let place = cluster % L2_ENTRIES;
            let here =
                (u64::try_from(clusters.len()).unwrap_or(0) / CLUSTER).min(L2_ENTRIES - place);
            let (now, later) = clusters
                .split_at_checked(to_usize(here * CLUSTER))
                .ok_or(io::ErrorKind::InvalidInput)?;
            self.file.write_all_at(now, self.end)?;
            if let Some((_, l2)) = &mut self.l2 {
                let entries = l2.iter_mut().skip(to_usize(place)).take(to_usize(here));
                let hosts = (self.end..).step_by(to_usize(CLUSTER));
                entries.zip(hosts).for_each(|(e, host)| *e = host | COPIED);
            }
            self.end += here * CLUSTER;
            cluster += here;
            clusters = later;
        }
        self.next = cluster;
        Ok(())
    }

    /// Makes what was written so far durable, so that the last sync is short.
    ///
    /// # Errors
    /// The I/O error.
    pub fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Writes the tables and the header and makes all of it durable. The length of the file in bytes.
    ///
    /// # Errors
    /// The I/O error.
    pub fn finish(mut self) -> io::Result<u64> {
        self.store_l2()?;
        let mut tables = Tables {
            l1: self.end,
            l1_entries: u64::try_from(self.l1.len()).unwrap_or(0),
            refcounts: 0,
            refcount_clusters: 0,
        };
        let l1 = bytes(&self.l1);
        self.file.write_all_at(&l1, self.end)?;
        self.end += (tables.l1_entries * 8).next_multiple_of(CLUSTER);
        let first_block = self.end;
        let used = self.end / CLUSTER;
        let (blocks, table) = refcounts_for(used);
        tables.refcounts = first_block + blocks * CLUSTER;
        tables.refcount_clusters = table;
        let total = used + blocks + table;
        for block in 0..blocks {
            let covered = (total - block * PER_REFCOUNT_BLOCK).min(PER_REFCOUNT_BLOCK);
            let counts = 1_u16.to_be_bytes().repeat(to_usize(covered));
            self.file
                .write_all_at(&counts, first_block + block * CLUSTER)?;
        }
        let entries: Vec<u64> = (0..blocks).map(|b| first_block + b * CLUSTER).collect();
        self.file.write_all_at(&bytes(&entries), tables.refcounts)?;
        self.file.set_len(total * CLUSTER)?;
        // Only an image that is whole gets the bytes that make it one.
        self.file.sync_data()?;
        let header = header(self.size, tables, None).ok_or(io::ErrorKind::InvalidInput)?;
        self.file.write_all_at(&header, 0)?;
        self.file.sync_all()?;
        Ok(total * CLUSTER)
    }

    /// Makes `table` the L2 table that is filled.
    fn turn_to(&mut self, table: u64) -> io::Result<()> {
        if self.l2.as_ref().is_none_or(|(it, _)| *it != table) {
            self.store_l2()?;
            self.l2 = Some((table, vec![0; to_usize(L2_ENTRIES)]));
        }
        Ok(())
    }

    fn store_l2(&mut self) -> io::Result<()> {
        let Some((table, l2)) = self.l2.take() else {
            return Ok(());
        };
        self.file.write_all_at(&bytes(&l2), self.end)?;
        if let Some(entry) = self.l1.get_mut(to_usize(table)) {
            *entry = self.end | COPIED;
        }
        self.end += CLUSTER;
        Ok(())
    }
}

/// How many refcount blocks, and clusters of the table that lists them, count `used` clusters and themselves.
fn refcounts_for(used: u64) -> (u64, u64) {
    let (mut blocks, mut table) = (1, 1);
    loop {
        let total = used + blocks + table;
        let needed = total.div_ceil(PER_REFCOUNT_BLOCK);
        let listed = (needed * 8).div_ceil(CLUSTER);
        if (needed, listed) == (blocks, table) {
            return (blocks, table);
        }
        (blocks, table) = (needed.max(blocks), listed.max(table));
    }
}

fn bytes(entries: &[u64]) -> Vec<u8> {
    entries.iter().flat_map(|e| e.to_be_bytes()).collect()
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::content::Content;
    use crate::inventory::Format;

    #[test]
    fn what_was_put_is_read_back_and_the_rest_is_zeroes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.qcow2");
        let size = PER_L1_ENTRY + 3 * CLUSTER + 100;
        let mut image = Sequential::new(File::create_new(&path).unwrap(), size).unwrap();
        let run = [vec![1; 1 << 16], vec![2; 1 << 16]].concat();
        image.put(CLUSTER, &run).unwrap();
        image.put(PER_L1_ENTRY - CLUSTER, &run).unwrap(); // across two L2 tables
        image
            .put(PER_L1_ENTRY + 3 * CLUSTER, &[3; 1 << 16])
            .unwrap(); // the last, broken by the end
        let most = Sequential::length_at_most(size, 5 * CLUSTER);
        let length = image.finish().unwrap();
        assert_eq!(path.metadata().unwrap().len(), length);
        assert!(length <= most, "{length} {most}");
        let mut content = Content::open(&path, Format::Qcow2).unwrap();
        assert_eq!(content.size(), size.next_multiple_of(512));
        let expected = [
            (0, 0),
            (CLUSTER, 1),
            (2 * CLUSTER, 2),
            (3 * CLUSTER, 0),
            (PER_L1_ENTRY - CLUSTER, 1),
            (PER_L1_ENTRY, 2),
            (PER_L1_ENTRY + CLUSTER, 0),
            (PER_L1_ENTRY + 3 * CLUSTER, 3),
        ];
        for (offset, byte) in expected {
            let mut read = [9; 64];
            content.read(&mut read, offset).unwrap();
            assert_eq!(read, [byte; 64], "at {offset}");
        }
    }

    #[test]
    fn clusters_out_of_order_or_behind_the_end_are_refused() {
        let new = || Sequential::new(tempfile::tempfile().unwrap(), 4 * CLUSTER).unwrap();
        let cluster = vec![1; 1 << 16];
        let mut image = new();
        image.put(CLUSTER, &cluster).unwrap();
        assert!(image.put(CLUSTER, &cluster).is_err(), "twice");
        assert!(image.put(0, &cluster).is_err(), "back");
        assert!(image.put(4 * CLUSTER, &cluster).is_err(), "behind the end");
        assert!(new().put(1, &cluster).is_err(), "not at a cluster");
        assert!(new().put(0, &cluster[1..]).is_err(), "not whole");
        assert!(Sequential::new(tempfile::tempfile().unwrap(), SIZE_MAX + 1).is_err());
    }

    #[test]
    fn refcounts_count_themselves() {
        for used in [1, 32_765, 32_766, 32_767, 32_768, 1 << 20, 1 << 34] {
            let (blocks, table) = refcounts_for(used);
            assert!(
                blocks * PER_REFCOUNT_BLOCK >= used + blocks + table,
                "{used}"
            );
            assert!(table * L2_ENTRIES >= blocks, "{used}");
        }
    }
}
