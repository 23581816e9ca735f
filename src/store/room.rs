//! Room on the file system of the data directory: what is missing where it is full, and what is kept for whoever gives
//! room back.

use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::statvfs;

use crate::held::{self, Folder, Identity};
use crate::text::Text;
use crate::text::catalog::store as texts;

/// How much is kept, in bytes: the log of the database, journal, and records of a delete of many machines.
pub const KEPT: u64 = 4 << 20;
/// Name of the file that keeps it.
const FILE: &str = "groupshot.ballast";
/// The unit of a file's blocks.
pub(crate) const BLOCK: u64 = 512;

/// What a file system has left where something found no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Bytes for users other than root.
    pub bytes: u64,
    /// Files that can still be made.
    pub files: u64,
}

impl Left {
    /// On the file system of this folder.
    ///
    /// # Errors
    /// The system's.
    pub fn on(folder: &Path) -> io::Result<Self> {
        let stat = held::ask(folder, || Ok(statvfs(folder)?))?;
        let files = match stat.f_files {
            0 => u64::MAX, // it does not count them
            _ => stat.f_favail,
        };
        Ok(Self {
            bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            files,
        })
    }

    /// Why there was no room for what failed so, and what to do.
    #[must_use]
    pub fn text(self, error: &io::Error) -> Text {
        match self {
            _ if error.kind() == io::ErrorKind::QuotaExceeded => texts::QUOTA.text(),
            Self { bytes, .. } if bytes < KEPT => {
                let text = texts::FULL.with("free", bytes);
                text.with("needed", KEPT)
            }
            Self { files: 0, .. } => texts::NO_FILES.text(),
            // It wanted more than is kept, or there is room again.
            _ => texts::NO_ROOM.with("cause", error),
        }
    }
}

/// Whether that means that there is no room.
pub(crate) fn is_missing(error: &io::Error) -> bool {
    let kinds = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
    kinds.contains(&error.kind())
}

/// Why there is no room in this folder; the system's own words where it cannot be asked.
pub(crate) fn missing(folder: &Path, error: &io::Error) -> Text {
    let left = Left::on(folder);
    left.map_or_else(
        |_| texts::NO_ROOM.with("cause", error),
        |left| left.text(error),
    )
}

/// A file that holds room and nothing else. What gives room back, but needs some to begin, lets it go.
#[derive(Debug)]
pub(crate) struct Ballast {
    directory: PathBuf,
    /// The file that this process has made.
    made: Mutex<Option<Identity>>,
}

impl Ballast {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            made: Mutex::default(),
        }
    }

    /// Makes it where it is missing, and as much again stays free. Blocks.
    ///
    /// # Errors
    /// The disk's; there is none then.
    pub(crate) fn fill(&self) -> io::Result<()> {
        let mut own = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let file = self.directory.join(FILE);
        // A copy may be all holes. Some file systems tell the blocks of a file seconds later, or never.
        let is_own =
            |found: &Identity| own.is_some_and(|own| own.is_same(found) && own.born == found.born);
        let is_whole = held::symlink_metadata(&file).is_ok_and(|m| m.blocks() * BLOCK >= KEPT)
            || held::look_at(&file).is_ok_and(|found| is_own(&found));
        if is_whole || Left::on(&self.directory)?.bytes < 2 * KEPT {
            return Ok(());
        }
        held::remove_file(&file)?;
        let made = Folder::open(&self.directory)?.create_new(FILE, 0o640)?;
        let kept = made
            .write_all_at(&incompressible(KEPT), 0)
            .and_then(|()| made.sync_all())
            .and_then(|()| Identity::of(&made));
        match kept {
            Ok(identity) => *own = Some(identity),
            Err(_) => _ = held::remove_file(&file)?,
        }
        kept.map(|_| ())
    }

    /// Lets it go: `false` if there was none. Blocks.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn release(&self) -> io::Result<bool> {
        let mut own = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        *own = None;
        let gone = held::remove_file(&self.directory.join(FILE))?;
        if gone {
            // Some file systems give its blocks to others only then.
            held::sync_folder(&self.directory)?;
        }
        Ok(gone)
    }
}

/// So many bytes that no file system makes fewer blocks of; always the same (SplitMix64).
fn incompressible(length: u64) -> Vec<u8> {
    let mut state = 0_u64;
    let words = (0..length.div_ceil(8)).flat_map(|_| {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (word ^ (word >> 31)).to_le_bytes()
    });
    words.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_with_both_amounts_or_as_what_it_is() {
        let why = |bytes, files, kind: io::ErrorKind| {
            let left = Left { bytes, files };
            left.text(&kind.into()).english()
        };
        let told = |bytes, files| why(bytes, files, io::ErrorKind::StorageFull);
        let full = told(4096, 0);
        for part in [
            "4 KiB (4096 bytes)",
            "4 MiB (4194304 bytes)",
            "snapshot set",
        ] {
            assert!(full.contains(part), "{part}: {full}");
        }
        assert!(told(KEPT, 0).contains("no further file"));
        assert!(!told(KEPT, 1).contains("quota"), "room again");
        for left in [0, KEPT] {
            let quota = why(left, left, io::ErrorKind::QuotaExceeded);
            assert!(quota.contains("quota"), "{quota}");
        }
    }

    #[test]
    fn the_ballast_has_its_blocks_and_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let ballast = Ballast::new(folder.path().to_owned());
        assert!(!ballast.release().unwrap());
        for _ in 0..2 {
            ballast.fill().unwrap();
            ballast.fill().unwrap();
            let there = std::fs::metadata(folder.path().join(FILE)).unwrap();
            assert!(there.blocks() * BLOCK >= KEPT && there.len() == KEPT);
            assert!(ballast.release().unwrap());
        }
        let copy = std::fs::File::create(folder.path().join(FILE)).unwrap();
        copy.set_len(KEPT).unwrap();
        ballast.fill().unwrap();
        let there = std::fs::metadata(folder.path().join(FILE)).unwrap();
        assert!(there.blocks() * BLOCK >= KEPT, "no copy of holes");
    }

    /// On zfs or btrfs a block of zeroes, or of the same bytes again, takes none.
    #[test]
    fn the_ballast_takes_its_room_on_a_file_system_that_compresses_too() {
        let folder = tempfile::tempdir().unwrap();
        let ballast = Ballast::new(folder.path().to_owned());
        ballast.fill().unwrap();
        let bytes = std::fs::read(folder.path().join(FILE)).unwrap();
        let mut chunks: Vec<_> = bytes.chunks(4096).collect();
        for chunk in &chunks {
            let mut counts = [0_u32; 256];
            chunk
                .iter()
                .for_each(|byte| counts[usize::from(*byte)] += 1);
            let most = counts.iter().max().unwrap();
            assert!(*most < 48, "16 of each are to be expected: {most}");
        }
        let all = chunks.len();
        chunks.sort_unstable();
        chunks.dedup();
        assert_eq!(chunks.len(), all);
    }

    /// zfs tells the blocks of a file some seconds after they were written.
    #[test]
    fn a_ballast_of_this_process_is_not_written_again_for_its_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let ballast = Ballast::new(folder.path().to_owned());
        ballast.fill().unwrap();
        let file = folder.path().join(FILE);
        let own = held::look_at(&file).unwrap();
        let holes = std::fs::File::options().write(true).open(&file).unwrap();
        holes.set_len(0).unwrap();
        holes.set_len(KEPT).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().blocks(), 0);
        ballast.fill().unwrap();
        assert!(held::look_at(&file).unwrap().is_same(&own));
        // Another process judges by what is there.
        Ballast::new(folder.path().to_owned()).fill().unwrap();
        assert!(std::fs::metadata(&file).unwrap().blocks() * BLOCK >= KEPT);
    }
}
