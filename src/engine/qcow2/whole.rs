//! Whether a file still reaches as far as its own tables say. A file that was cut off begins like a good one.

use std::fs::File;
use std::io;
use std::path::Path;

use super::header::Header;
use super::refcounts::read_count;
use super::tables::{Tables, cut, length, read_padded, read_table, size};
use crate::held;

/// Refcount tables that a sane image does not exceed, in bytes (as QEMU).
const TABLE_MAX: u64 = 8 << 20;

/// Reads a few places of the file; all of its tables only where these tell of clusters behind its end, which a writer
/// that died may have left as well.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] for a file that was cut off, or is damaged otherwise; else the I/O error.
pub(crate) fn require(path: &Path, file: &File, header: &Header) -> io::Result<()> {
    match held::ask(path, || seems_whole(file, header))? {
        true => Ok(()),
        false => walk(path, file, header),
    }
}

fn seems_whole(file: &File, header: &Header) -> io::Result<bool> {
    let end = file.metadata()?.len();
    let l1 = u64::from(header.l1_entries) * 8;
    if l1 > 0 && header.l1_offset.saturating_add(l1) > end {
        return Err(cut());
    }
    let cluster = 1_u64 << header.cluster_bits;
    let table = u64::from(header.refcount_clusters) * cluster;
    if header.refcount_offset >= end || table > TABLE_MAX {
        return Err(cut());
    }
    let blocks = read_table(file, header.refcount_offset, size(table / 8))?;
    let Some(last) = blocks.iter().rposition(|block| *block != 0) else {
        return Ok(true);
    };
    let counted = match blocks.get(last) {
        Some(block) if block.saturating_add(cluster) <= end => {
            let mut bytes = vec![0; size(cluster)];
            read_padded(file, *block, &mut bytes)?;
            let order = header.refcount_order;
            let counts = size((cluster * 8) >> order);
            let used = (0..counts)
                .rev()
                .find(|n| read_count(&bytes, order, *n) > 0);
            used.map_or(0, |n| {
                (length(last * counts) + length(n)).saturating_mul(cluster)
            })
        }
        _ => u64::MAX,
    };
    Ok(counted < end)
}

fn walk(path: &Path, file: &File, header: &Header) -> io::Result<()> {
    let open = || Tables::open(file.try_clone()?, header.clone());
    let mut tables = held::ask(path, open)?;
    let (mut at, disk) = (0, header.size);
    while at < disk {
        // One look each: all of them may take long on a disk that answers.
        at += held::ask(path, || tables.run(at, disk - at))?.1;
    }
    Ok(())
}
