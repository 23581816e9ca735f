//! Who reads or rewrites which disk file in this process: readers side by side, a writer alone (`docs/cut.md` §4).
//!
//! An export reads every file of a chain for minutes; a merge into one of them, or its removal, waits until
//! it has ended. A waiting writer goes before readers that come later. Whoever takes several files takes them
//! in one call and asks for no more while it has them, so nobody waits in a circle. All calls may block and
//! belong on blocking threads.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::held;
use crate::id::JobId;
use crate::text::Text;
use crate::text::catalog::snapshot as texts;

/// How often a waiting caller is asked whether it goes on waiting.
const LOOK: Duration = Duration::from_millis(250);

/// What makes two names the same file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// Device and inode.
    File(u64, u64),
    /// A name with no file behind it.
    Name(PathBuf),
}

impl Key {
    fn of(path: &Path) -> Self {
        held::metadata(path).map_or_else(
            |_| Self::Name(path.to_owned()),
            |m| Self::File(m.dev(), m.ino()),
        )
    }
}

/// The table of files in use. Cloned handles share it.
#[derive(Debug, Clone, Default)]
pub struct FileClaims {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    table: Mutex<Table>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Table {
    /// The number of the next guard.
    next: u64,
    /// Every guard that is held or waited for.
    claims: BTreeMap<u64, Claim>,
}

#[derive(Debug)]
struct Claim {
    user: FileUser,
    writes: bool,
    /// A writer that still waits keeps later readers out, not those that are there.
    waits: bool,
    files: BTreeMap<Key, PathBuf>,
}

/// Who uses a file, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileUser {
    /// The job.
    pub job: JobId,
    /// What it does, in words for other jobs' status.
    pub doing: Text,
}

/// A file is in use by another job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InUse {
    /// The file, by the name that was asked for.
    pub file: PathBuf,
    /// By whom.
    pub by: FileUser,
}

impl InUse {
    /// For the status of the job that waits: for which job, and what that one does.
    #[must_use]
    pub fn text(&self) -> Text {
        texts::FILE_IN_USE
            .with("file", self.file.file_name().unwrap_or_default().display())
            .with("job", self.by.job)
            .with("doing", &self.by.doing)
    }
}

impl FileClaims {
    /// Takes every file for reading, once nobody writes one of them. While it waits, `waiting` is told for whom,
    /// at once and then several times a second; its `Break` gives up.
    ///
    /// `None`: given up.
    pub fn read(
        &self,
        files: &[PathBuf],
        user: FileUser,
        waiting: impl FnMut(&InUse) -> ControlFlow<()>,
    ) -> Option<FileGuard> {
        self.take(files, user, false, waiting)
    }

    /// Takes every file alone, to merge into it or to unlink it, once nobody else uses one of them. Waits as
    /// [`FileClaims::read`] does.
    ///
    /// `None`: given up.
    pub fn write(
        &self,
        files: &[PathBuf],
        user: FileUser,
        waiting: impl FnMut(&InUse) -> ControlFlow<()>,
    ) -> Option<FileGuard> {
        self.take(files, user, true, waiting)
    }

    /// Who uses the file now, if anyone does.
    #[must_use]
    pub fn user(&self, file: &Path) -> Option<FileUser> {
        let key = Key::of(file);
        let table = self.lock();
        let mut held = table.claims.values().filter(|c| !c.waits);
        held.find(|c| c.files.contains_key(&key))
            .map(|c| c.user.clone())
    }

    fn take(
        &self,
        files: &[PathBuf],
        user: FileUser,
        writes: bool,
        mut waiting: impl FnMut(&InUse) -> ControlFlow<()>,
    ) -> Option<FileGuard> {
        let files = files.iter().map(|f| (Key::of(f), f.clone())).collect();
        let mut table = self.lock();
        let number = table.next;
        table.next += 1;
        let claim = Claim {
            user,
            writes,
            waits: true,
            files,
        };
        table.claims.insert(number, claim);
        // From here on the drop of the guard takes the claim back.
        drop(table);
        let guard = FileGuard {
            files: self.clone(),
            number,
        };
        loop {
            let mut table = self.lock();
            let Some(in_use) = table.conflict(number) else {
                if let Some(claim) = table.claims.get_mut(&number) {
                    claim.waits = false;
                }
                return Some(guard);
            };
            drop(table); // what `waiting` does is not ours to know
            if waiting(&in_use).is_break() {
                return None;
            }
            let table = self.lock();
            if table.conflict(number).is_some() {
                let _woken = self.shared.changed.wait_timeout(table, LOOK);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        let table = self.shared.table.lock();
        table.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// What keeps this claim from being held.
    fn conflict(&self, number: u64) -> Option<InUse> {
        let mine = self.claims.get(&number)?;
        let against = |other: &u64, claim: &Claim| {
            let before = !claim.waits || (claim.writes && !mine.writes && *other < number);
            claim.user.job != mine.user.job && before && (claim.writes || mine.writes)
        };
        let mut others = self.claims.iter().filter(|(n, c)| against(n, c));
        others.find_map(|(_, claim)| {
            let (_, file) = mine
                .files
                .iter()
                .find(|(k, _)| claim.files.contains_key(k))?;
            Some(InUse {
                file: file.clone(),
                by: claim.user.clone(),
            })
        })
    }
}

/// Uses its files until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it gives the files back"]
pub struct FileGuard {
    files: FileClaims,
    number: u64,
}

impl Drop for FileGuard {
    fn drop(&mut self) {
        self.files.lock().claims.remove(&self.number);
        self.files.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc;

    use super::*;
    use crate::text::catalog::snapshot::WORKING;

    fn user(n: u128) -> FileUser {
        FileUser {
            job: JobId::from_u128(n),
            doing: WORKING.text(),
        }
    }

    fn at_once(_: &InUse) -> ControlFlow<()> {
        ControlFlow::Break(())
    }

    fn names(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn readers_stand_side_by_side_and_a_writer_stands_alone() {
        let files = FileClaims::default();
        let first = files
            .read(&names(&["/x/a", "/x/b"]), user(1), at_once)
            .unwrap();
        let second = files.read(&names(&["/x/b"]), user(2), at_once).unwrap();
        let mut told = None;
        let refused = files.write(&names(&["/x/b"]), user(3), |in_use| {
            told = Some(in_use.clone());
            ControlFlow::Break(())
        });
        assert!(refused.is_none());
        let told = told.unwrap();
        assert_eq!(
            (told.file.as_path(), told.by.job),
            (Path::new("/x/b"), user(1).job)
        );
        assert!(told.text().english().contains(&user(1).job.to_string()));
        drop(first);
        assert!(files.write(&names(&["/x/b"]), user(3), at_once).is_none());
        let alone = files.write(&names(&["/x/a"]), user(3), at_once).unwrap();
        assert!(files.read(&names(&["/x/a"]), user(1), at_once).is_none());
        assert!(
            files.read(&names(&["/x/a"]), user(3), at_once).is_some(),
            "its own"
        );
        assert_eq!(files.user(Path::new("/x/a")), Some(user(3)));
        drop((alone, second));
        assert_eq!(files.user(Path::new("/x/a")), None);
        assert!(
            files
                .write(&names(&["/x/a", "/x/b"]), user(3), at_once)
                .is_some()
        );
    }

    #[test]
    fn two_names_of_one_file_are_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, b"x").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let files = FileClaims::default();
        let _reading = files.read(&[file], user(1), at_once).unwrap();
        assert!(files.write(&[link], user(2), at_once).is_none());
    }

    #[test]
    fn a_waiting_writer_gets_its_turn_before_later_readers() {
        let files = FileClaims::default();
        let first = files.read(&names(&["/x/a"]), user(1), at_once).unwrap();
        let (say, heard) = mpsc::channel();
        let writer = {
            let files = files.clone();
            std::thread::spawn(move || {
                let mut say = Some(say);
                let guard = files.write(&names(&["/x/a"]), user(2), |_| {
                    if let Some(say) = say.take() {
                        say.send(()).unwrap();
                    }
                    ControlFlow::Continue(())
                });
                guard.is_some()
            })
        };
        heard.recv().unwrap();
        assert!(files.read(&names(&["/x/a"]), user(3), at_once).is_none());
        drop(first);
        assert!(writer.join().unwrap());
        assert!(files.read(&names(&["/x/a"]), user(3), at_once).is_some());
    }

    #[test]
    fn whoever_gives_up_waits_no_more() {
        let files = FileClaims::default();
        let reading = files.read(&names(&["/x/a"]), user(1), at_once).unwrap();
        assert!(files.write(&names(&["/x/a"]), user(2), at_once).is_none());
        assert!(files.read(&names(&["/x/a"]), user(3), at_once).is_some());
        drop(reading);
    }
}
