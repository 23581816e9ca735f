//! `groupshot.commits`: how many transactions the database has seen, outside its own log. A log that has lost its
//! end looks to SQLite as if that had never been written; this number tells.
//!
//! ```text
//!   slot 0 │ slot 1 │ slot 2        each "groupshot commits 1 NUMBER CHECKSUM", the largest sound one counts
//! ```
//!
//! A commit that changes more than jobs is counted durably, in slots 0 and 1 by turns, so that a torn write leaves the
//! other. All others go into slot 2 without a sync: the acceptance of a job gains none.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::held;

/// Name of the file in the data directory.
pub(super) const FILE: &str = "groupshot.commits";

/// Bytes of a slot: no write of one touches another, whatever the disk's sector is.
const SLOT: u64 = 4096;
/// Slots that are written by turns and synced.
const DURABLE: u64 = 2;
const HEAD: &str = "groupshot commits 1";

/// The open file.
#[derive(Debug)]
pub(super) struct Counter {
    file: File,
    turn: u64,
}

/// Reads the number; `None` if there is no such file.
///
/// # Errors
/// The inner one: the file says nothing that can be relied on.
pub(super) fn read(path: &Path) -> io::Result<Result<Option<u64>, String>> {
    let bytes = match held::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Ok(None)),
        bytes => bytes?,
    };
    let size = usize::try_from(SLOT).unwrap_or(usize::MAX);
    let numbers: Vec<_> = bytes.chunks(size).map(number).collect();
    let of_turns = usize::try_from(DURABLE).unwrap_or(usize::MAX);
    // What was written without a sync says nothing about what was written with one.
    if numbers.iter().take(of_turns).all(Option::is_none) {
        return Ok(Err("it holds no number with a right checksum".to_owned()));
    }
    Ok(Ok(numbers.into_iter().flatten().max()))
}

impl Counter {
    /// Opens the file, made durably with this number if it is not there.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn open(path: &Path, now: u64) -> io::Result<Self> {
        if !path.try_exists()? {
            let slot = slot(now);
            let all: Vec<u8> = [&slot, &slot, &slot]
                .into_iter()
                .flatten()
                .copied()
                .collect();
            held::replace(path, &all, 0o640)?;
        }
        let file = held::open(path, true)?;
        Ok(Self { file, turn: 0 })
    }

    /// Writes the number; durable at return if `durably`.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn write(&mut self, number: u64, durably: bool) -> io::Result<()> {
        if !durably {
            return self.file.write_all_at(&slot(number), DURABLE * SLOT);
        }
        self.turn = (self.turn + 1) % DURABLE;
        self.file.write_all_at(&slot(number), self.turn * SLOT)?;
        self.file.sync_data()
    }
}

/// The place of the file in a data directory.
pub(super) fn path(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

fn slot(number: u64) -> Vec<u8> {
    let mut text = format!("{HEAD} {number} {}\n", checksum(number)).into_bytes();
    text.resize(usize::try_from(SLOT).unwrap_or_default(), 0);
    text
}

fn number(slot: &[u8]) -> Option<u64> {
    let line = slot.split(|b| *b == b'\n').next()?;
    let rest = std::str::from_utf8(line).ok()?.strip_prefix(HEAD)?;
    let (number, sum) = rest.strip_prefix(' ')?.split_once(' ')?;
    let number = number.parse().ok()?;
    (sum == checksum(number)).then_some(number)
}

fn checksum(number: u64) -> String {
    sum(&[HEAD.as_bytes(), &number.to_le_bytes()])
}

/// The first 16 bytes of the SHA-256 of these parts, each with its length before it.
pub(super) fn sum(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(part);
    }
    let mut text = String::with_capacity(32);
    for byte in hash.finalize().iter().take(16) {
        let _never_fails = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_largest_sound_number_counts_and_a_torn_slot_leaves_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let file = path(folder.path());
        assert_eq!(read(&file).unwrap(), Ok(None));
        let mut counter = Counter::open(&file, 7).unwrap();
        assert_eq!(read(&file).unwrap(), Ok(Some(7)));
        counter.write(8, true).unwrap();
        counter.write(9, true).unwrap();
        counter.write(10, false).unwrap();
        assert_eq!(read(&file).unwrap(), Ok(Some(10)));
        let whole = fs::read(&file).unwrap();
        for bit in 0..60 * 8 {
            for at in [0, 4096, 8192] {
                let mut flipped = whole.clone();
                flipped[at + bit / 8] ^= 1 << (bit % 8);
                fs::write(&file, flipped).unwrap();
                let read = read(&file).unwrap().unwrap();
                assert!(
                    read.is_some_and(|n| (8..=10).contains(&n)),
                    "{at} {bit}: {read:?}"
                );
            }
        }
        for length in [0, 5, 100] {
            let zeros = vec![0; length];
            fs::write(&file, zeros).unwrap();
            assert!(read(&file).unwrap().is_err());
        }
    }
}
