//! The names that the file drivers give to what they make, and what those tell: the set, the machine, the disk and the job.
//!
//! ```text
//!   sets/<set>/<machine>/<disk>.qcow2          an overlay; <disk>-<job>.qcow2 of an apply
//!   .groupshot/<set>/<machine>-<disk>.raw      a clone beside an image; <machine>-<disk>-<job>.* of an apply
//! ```

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::engine::beside::FOLDER;
use crate::engine::overlay;
use crate::engine::reflink::{folder_of, is_clone};
use crate::held;
use crate::id::{JobId, VmId};
use crate::inventory::{Format, SnapshotDisk};

/// The length of an id as text.
const ID: usize = 36;

/// Whether the file has a name that the server gives to what it makes for this machine.
pub(crate) fn is_made_for(sets: &Path, machine: VmId, file: &Path) -> bool {
    let id = machine.to_string();
    let has_id =
        |name: Option<&OsStr>| name.is_some_and(|n| n.as_bytes().starts_with(id.as_bytes()));
    match is_clone(file) {
        true => has_id(file.file_name()),
        false => file.starts_with(sets) && has_id(file.parent().and_then(Path::file_name)),
    }
}

/// The machine that a file of ours was made for: `<machine>/<disk>.*`, or `<machine>-<disk>.*` beside an image.
pub(crate) fn machine_of(file: &Path) -> Option<VmId> {
    let name = match is_clone(file) {
        true => file.file_name()?.to_str()?.get(..ID)?,
        false => file.parent()?.file_name()?.to_str()?,
    };
    name.parse().ok()
}

/// Whether the file is called as one of ours for this disk: `<machine>/<disk>[-<job>].*` or
/// `<machine>-<disk>[-<job>].*`.
pub(crate) fn is_named_as(machine: VmId, disk: &str, file: &Path) -> bool {
    let machine = machine.to_string();
    let stem = file.file_stem().and_then(OsStr::to_str).unwrap_or_default();
    let folder = file.parent().and_then(Path::file_name);
    let clone = stem
        .strip_prefix(&machine)
        .and_then(|s| s.strip_prefix('-'));
    let own = (folder == Some(machine.as_ref())).then_some(stem);
    let job = |rest: &str| {
        rest.strip_prefix('-')
            .is_some_and(|j| j.parse::<JobId>().is_ok())
    };
    let mut rests = clone.into_iter().chain(own);
    rests.any(|name| {
        let rest = name.strip_prefix(disk);
        rest.is_some_and(|rest| rest.is_empty() || job(rest))
    })
}

/// Whether an apply made the file beside an image: `….groupshot/<set>/<machine>-<disk>-<job>.*`.
pub(crate) fn is_of_apply(file: &Path) -> bool {
    let stem = file
        .file_stem()
        .and_then(|s| s.to_str())
        .unwrap_or_default();
    let job = stem.len().checked_sub(ID).and_then(|at| stem.get(at..));
    is_clone(file) && job.is_some_and(|job| job.parse::<JobId>().is_ok()) && stem.len() > 2 * ID + 1
}

/// Whether the active file lies on what the snapshot keeps of a disk from its capture on.
pub(crate) fn is_under_top(disk: &SnapshotDisk) -> bool {
    disk.driver == overlay::NAME
}

/// The overlays in the folders that the server has for a machine, below `sets/` or `orphans/`.
pub(crate) fn overlays(sets: &Path, machine: VmId) -> BTreeSet<PathBuf> {
    let entries = |folder: PathBuf| {
        let found = held::ask(&folder, || fs::read_dir(&folder));
        found.into_iter().flatten().flatten()
    };
    let folders = entries(sets.to_owned()).map(|set| set.path().join(machine.to_string()));
    let files = folders.flat_map(entries).map(|file| file.path());
    let is_of = |file: &Path| {
        file.extension()
            .is_some_and(|e| e == Format::Qcow2.as_str())
    };
    // A second file of one name has a number in `orphans/`.
    let is_numbered = |file: &Path| {
        let number = file.extension().and_then(|e| e.to_str());
        number.is_some_and(|e| e.parse::<u32>().is_ok())
    };
    let is_overlay = |file: &PathBuf| {
        is_of(file) || is_numbered(file) && file.file_stem().is_some_and(|f| is_of(Path::new(f)))
    };
    files.filter(is_overlay).collect()
}

/// Where clones of the image may lie: beside it and, if it is a symbolic link, beside what it leads to.
pub(crate) fn beside(image: &Path) -> BTreeSet<PathBuf> {
    let own = image.with_file_name(FOLDER);
    let real = folder_of(image).ok();
    let leads = |folder: &Path| held::canonicalize(folder).ok();
    let other = real.filter(|real| leads(real) != leads(&own));
    other.into_iter().chain([own]).collect()
}
