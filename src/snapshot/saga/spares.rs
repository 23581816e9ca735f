//! Journal files that are there before anybody needs them: full of zeroes, under names that are durable already.
//!
//! A journal under a new name takes two syncs one after the other, that of the file and that of its folder,
//! before a request is accepted. One that takes over a spare takes that of the file alone, beside the one of
//! the database: its records overwrite blocks that it has already, so that they need no room on a full file system and
//! no change of the file system's own records. A file system that never overwrites in place (btrfs, bcachefs, zfs) gives
//! new blocks all the same. The journal is then renamed, which nobody waits for: after a power cut of the host it may
//! still have the name of a spare, so recovery goes by the content of a journal, never by its name.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::held::{self, sync_folder};
use crate::id::JobId;
use crate::snapshot::saga::journal::is_too_short;
use crate::store::room::BLOCK;

/// How many there are at most; more are made when less than half of them is left.
const ROOM: usize = 8;
/// What each of them holds, in zeroes: the records of an operation on some thirty machines (1.8 KiB for each with one disk).
const FULL: usize = 64 << 10;
const PREFIX: &str = "spare-";

/// The spares of one journal folder. Closed at first: [`Spares::take`] finds none, [`Spares::fill`] makes none.
#[derive(Debug)]
pub(crate) struct Spares {
    folder: PathBuf,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    open: bool,
    ready: Vec<PathBuf>,
    /// Names that are being made.
    coming: usize,
    /// The number of the next name.
    next: usize,
}

/// What to do about something else than a file of zeroes under the name of a spare.
pub(crate) const WAY_OUT: &str = "it has the name of a spare journal, which holds no operation unless the power failed while one began: put it back from a backup if there is one, or move it away and start again";

/// Is it the name of a spare?
pub(crate) fn is_spare(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with(PREFIX))
}

/// The name of the file that a journal is begun in where there is no spare.
pub(crate) fn spare_of(job: JobId) -> String {
    format!("{PREFIX}{job}.log")
}

/// Is it a spare that holds too little to have been taken over by a journal?
pub(crate) fn is_blank_spare(path: &Path) -> bool {
    is_spare(path) && held::read(path).is_ok_and(|bytes| is_too_short(&bytes))
}

/// Holds it nothing but zeroes, if that? It is of no operation then.
pub(crate) fn is_blank(path: &Path) -> bool {
    held::read(path).is_ok_and(|bytes| bytes.iter().all(|byte| *byte == 0))
}

/// Is it a spare as they are made here, for a journal to take over? One of an older version is empty, and one of a
/// copied data directory may be all holes, which are zeroes as well and hold no room. A file system that stores zeroes
/// as holes (zfs, btrfs that compresses) shows none as ready, so each start makes them anew there.
pub(crate) fn is_ready(path: &Path) -> bool {
    let holds = |m: &Metadata| m.blocks().saturating_mul(BLOCK) >= m.len();
    is_whole(path) && held::symlink_metadata(path).is_ok_and(|m| holds(&m))
}

/// Is it a spare of full length with nothing in it, whatever room it takes?
fn is_whole(path: &Path) -> bool {
    let full = u64::try_from(FULL).unwrap_or(u64::MAX);
    let is_full = held::symlink_metadata(path).is_ok_and(|m| m.len() == full);
    is_spare(path) && is_full && is_blank(path)
}

impl Spares {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            table: Mutex::default(),
        }
    }

    /// Takes over those that another process left, and makes what is missing. Blocks.
    ///
    /// # Errors
    /// The disk's; there are fewer spares then, or none.
    pub(crate) fn open(&self, found: Vec<PathBuf>) -> io::Result<()> {
        self.table().open = true;
        // The process that made them may have died before their names were durable.
        sync_folder(&self.folder)?;
        self.table().ready = found;
        self.fill()
    }

    /// One of them, which is the caller's from now on.
    pub(crate) fn take(&self) -> Option<PathBuf> {
        self.table().ready.pop()
    }

    /// Takes back one in which nothing was begun; where it is not as it was, another will be made. Blocks.
    pub(crate) fn give_back(&self, spare: PathBuf) {
        // Made here or found ready, so what it takes is what any takes on this file system.
        let is_whole = is_whole(&spare);
        let mut table = self.table();
        match table.open && is_whole {
            true => table.ready.push(spare),
            false => remove(&spare),
        }
    }

    /// Makes more if there are few; they are durable at return. Blocks.
    ///
    /// # Errors
    /// The disk's; nothing is changed then.
    pub(crate) fn fill(&self) -> io::Result<()> {
        let names = self.claim();
        if names.is_empty() {
            return Ok(());
        }
        let mut made = Vec::new();
        let result = self.make(&names, &mut made);
        let mut table = self.table();
        table.coming -= names.len();
        match &result {
            Ok(()) if table.open => table.ready.append(&mut made),
            _ => made.iter().for_each(|name| remove(name)),
        }
        result
    }

    /// Removes them: a server that has stopped leaves an empty folder.
    pub(crate) fn close(&self) {
        let mut table = self.table();
        table.open = false;
        table.ready.drain(..).for_each(|name| remove(&name));
    }

    /// The names that are to be made now.
    fn claim(&self) -> Vec<PathBuf> {
        let mut table = self.table();
        let there = table.ready.len() + table.coming;
        if !table.open || there > ROOM / 2 {
            return Vec::new();
        }
        let numbers = table.next..table.next + ROOM - there;
        (table.next, table.coming) = (numbers.end, table.coming + numbers.len());
        let name = |n| self.folder.join(format!("{PREFIX}{n}.log"));
        numbers.map(name).collect()
    }

    /// Makes those of the names that are free.
    fn make(&self, names: &[PathBuf], made: &mut Vec<PathBuf>) -> io::Result<()> {
        for name in names {
            match create(name) {
                // A journal that still has such a name, of an operation that cannot end now.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other?,
            }
            made.push(name.clone());
        }
        sync_folder(&self.folder)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn create(file: &Path) -> io::Result<()> {
    let (folder, name) = held::place(file)?;
    let made = folder.create_new(name, 0o640)?;
    let written = made
        .write_all_at(&[0; FULL], 0)
        .and_then(|()| made.sync_all());
    if written.is_err() {
        remove(file);
    }
    written
}

/// A file of zeroes that stays is in nobody's way.
fn remove(name: &Path) {
    if let Err(error) = held::remove_file(name) {
        tracing::debug!(%error, file = %name.display(), "A spare journal stays");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn files(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn there_are_always_some_while_it_is_open_and_none_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        let spares = Spares::new(folder.path().to_owned());
        spares.fill().unwrap();
        assert_eq!((spares.take(), files(folder.path()).len()), (None, 0));
        spares.open(Vec::new()).unwrap();
        for _ in 0..5 * ROOM {
            let spare = spares.take().unwrap();
            assert!(is_ready(&spare) && is_blank_spare(&spare));
            fs::remove_file(spare).unwrap();
            spares.fill().unwrap();
            let there = files(folder.path());
            assert!(there.len() >= ROOM / 2 && there.len() <= ROOM, "{there:?}");
            assert!(there.iter().all(|file| is_spare(file)));
        }
        spares.close();
        spares.fill().unwrap();
        assert_eq!((spares.take(), files(folder.path()).len()), (None, 0));
    }

    #[test]
    fn a_spare_of_holes_is_not_ready() {
        let folder = tempfile::tempdir().unwrap();
        let spares = Spares::new(folder.path().to_owned());
        spares.open(Vec::new()).unwrap();
        let spare = spares.take().unwrap();
        assert!(is_ready(&spare));
        // As a sparse copy makes it.
        let copy = fs::File::create(&spare).unwrap();
        copy.set_len(u64::try_from(FULL).unwrap()).unwrap();
        assert!(is_blank_spare(&spare) && !is_ready(&spare));
    }

    #[test]
    fn a_spare_in_which_nothing_was_begun_is_there_again() {
        let folder = tempfile::tempdir().unwrap();
        let spares = Spares::new(folder.path().to_owned());
        spares.open(Vec::new()).unwrap();
        let spare = spares.take().unwrap();
        spares.give_back(spare.clone());
        assert_eq!(spares.take(), Some(spare.clone()));
        // As a file system shows it that stores zeroes as holes.
        let full = u64::try_from(FULL).unwrap();
        fs::File::create(&spare).unwrap().set_len(full).unwrap();
        spares.give_back(spare.clone());
        assert_eq!(spares.take(), Some(spare.clone()));
        fs::write(&spare, "a part of a record").unwrap();
        spares.give_back(spare.clone());
        assert!(!spare.exists() && spares.take().is_some_and(|other| other != spare));
        // Behind the end of a server.
        let last = spares.take().unwrap();
        spares.close();
        spares.give_back(last.clone());
        assert!(!last.exists() && spares.take().is_none());
    }

    #[test]
    fn a_journal_under_the_name_of_a_spare_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let left = folder.path().join("spare-1.log");
        fs::write(&left, "a journal").unwrap();
        let spares = Spares::new(folder.path().to_owned());
        spares.open(Vec::new()).unwrap();
        while let Some(spare) = spares.take() {
            assert_ne!(spare, left);
        }
        let gone = folder.path().join("nowhere");
        assert!(Spares::new(gone).open(Vec::new()).is_err());
        spares.close();
        assert_eq!(fs::read(left).unwrap(), b"a journal");
    }
}
