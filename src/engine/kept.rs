//! What a snapshot keeps of a disk, opened as it was sealed.

use std::os::unix::fs::MetadataExt;

use crate::engine::EngineError;
use crate::engine::failure::At;
use crate::engine::place::Place;
use crate::engine::qcow2::chain::{self, Layer, Roots};
use crate::held::Foreign;
use crate::inventory::{Sealed, SnapshotDisk};

/// Opens the file and all below it: each must be one of the files that were sealed with it. What lies in `place` is
/// opened by its descriptor.
///
/// # Errors
/// As [`chain::open`]; another file stands in the place of one of them.
pub fn open(
    at: &At,
    kept: &SnapshotDisk,
    roots: &Roots,
    place: Option<&Place>,
) -> Result<Vec<Layer>, EngineError> {
    let layers = chain::open_in(at, &kept.file, kept.format, roots, place)?;
    for layer in layers.iter().filter(|_| !kept.sealed.is_empty()) {
        let found = layer.id.1;
        let meta = layer.open.metadata().map_err(|e| at.io(&layer.file, &e))?;
        let times = (meta.len(), (meta.ctime(), meta.ctime_nsec()));
        // An inode number says nothing where the way leads to another file system.
        let is_it = |s: &&Sealed| {
            let same = s.seal.inode == found;
            same && (s.file == layer.real || (s.seal.length, s.seal.changed) == times)
        };
        if kept.sealed.iter().any(|s| is_it(&s)) {
            continue;
        }
        let mut own = kept.sealed.iter();
        let own = own.find(|s| s.file == layer.real || s.file == layer.file);
        let expected = own.or(kept.sealed.first()).map_or(0, |s| s.seal.inode);
        return Err(at.io(&layer.file, &Foreign::Other { expected, found }.into()));
    }
    Ok(layers)
}
