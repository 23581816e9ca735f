//! What a snapshot keeps of a disk, opened as it was sealed.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::engine::EngineError;
use crate::engine::failure::At;
use crate::engine::image;
use crate::engine::qcow2::chain::{self, Layer, Within};
use crate::held::Foreign;
use crate::inventory::{Machine, Sealed, SnapshotDisk};

/// Opens the file and all below it: each must be one of the files that were sealed with it, which is seen before
/// anything of its content is read. What nobody has sealed yet is judged as what was imported with its `machine` is.
/// What lies in the place is opened by its descriptor.
///
/// # Errors
/// As [`chain::open`]; another file stands in the place of one of them.
pub(crate) fn open(
    at: &At,
    machine: Option<&Machine>,
    kept: &SnapshotDisk,
    within: Within<'_>,
) -> Result<Vec<Layer>, EngineError> {
    if kept.sealed.is_empty() {
        let top = (kept.file.as_path(), kept.format);
        return image::open_accepted(at, machine, &kept.id, top, within);
    }
    let sealed = &mut |file: &Path, real: &Path, open: &File| {
        let meta = open.metadata().map_err(|e| at.io(file, &e))?;
        let found = meta.ino();
        let times = (meta.len(), (meta.ctime(), meta.ctime_nsec()));
        // An inode number says nothing where the way leads to another file system.
        let is_it = |s: &&Sealed| {
            let same = s.seal.inode == found;
            same && (s.file == real || (s.seal.length, s.seal.changed) == times)
        };
        if kept.sealed.iter().any(|s| is_it(&s)) {
            return Ok(());
        }
        let mut own = kept.sealed.iter();
        let own = own.find(|s| s.file == real || s.file == file);
        let expected = own.or(kept.sealed.first()).map_or(0, |s| s.seal.inode);
        Err(at.io(file, &Foreign::Other { expected, found }.into()))
    };
    chain::open_judged(at, &kept.file, kept.format, within, sealed)
}
