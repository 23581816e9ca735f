//! The port by which what snapshots keep is read: for an export. A driver whose snapshots have no content has none
//! ([`crate::engine::Driver::read`]).

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::engine::{At, EngineError, Reserve};
use crate::inventory::{Machine, SnapshotDisk};

/// What a snapshot keeps of a disk.
#[derive(Debug, Clone, Copy)]
pub struct Kept<'a> {
    /// Machine and disk, for texts.
    pub at: &'a At,
    /// The machine, unless it is gone or cannot be read.
    pub machine: Option<&'a Machine>,
    /// The disk as the snapshot keeps it.
    pub disk: &'a SnapshotDisk,
}

/// Where a copy is written.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The file; it must not exist.
    pub file: &'a Path,
    /// What texts call it.
    pub shown: &'a Path,
}

/// A stand-alone copy of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flat {
    /// Virtual size in bytes.
    pub size: u64,
    /// Length of the file in bytes.
    pub length: u64,
    /// SHA-256 of the file as it is read back, in lower-case hexadecimal digits.
    pub sha256: String,
}

/// Told how many bytes of how many are done; a `Break` gives up.
pub type Step<'a> = &'a mut (dyn FnMut(u64, u64) -> ControlFlow<()> + Send);

/// Reads what snapshots keep.
pub trait Read: Send + Sync + 'static {
    /// The largest virtual size of a disk, in bytes, of which [`Read::copy`] makes a copy.
    fn largest(&self) -> u64;

    /// Every file that must stay as it is while the disk is read.
    ///
    /// # Errors
    /// One of them is not there or cannot be read, or is not what was sealed.
    fn sources(&self, kept: Kept<'_>) -> Result<Vec<PathBuf>, EngineError>;

    /// The bytes that these files take, as far as can be seen: how long the copy takes in proportion to others.
    fn weight(&self, kept: Kept<'_>) -> u64;

    /// Copies the disk into a new stand-alone qcow2 file, durably but for its name. Refuses first if the file system of the
    /// target would have less than `reserve` left. `None`: `step` gave up. Then, and after an error, the target is gone.
    ///
    /// # Errors
    /// [`EngineError`] naming the file that could not be read or written.
    fn copy(
        &self,
        kept: Kept<'_>,
        target: Target<'_>,
        reserve: &Reserve,
        step: Step<'_>,
    ) -> Result<Option<Flat>, EngineError>;
}
