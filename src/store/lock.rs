//! One server per data directory.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::fd::IntoRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::held::Folder;

/// More than the digits of a process id, octets.
const PID_MOST: u64 = 64;

/// Name of the file that is locked; it stays when the server is gone, its lock does not.
const FILE: &str = "groupshot.lock";

/// Holds the data directory for this process, until dropped or until the process is gone however it dies.
#[derive(Debug)]
pub struct DirectoryLock {
    file: File,
    /// It is held for as long as the process lives.
    kept: AtomicBool,
}

/// The directory could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it (exit code 4).
    #[error("data directory {directory} is in use by {holder}; one server per directory", directory = .directory.display())]
    Busy {
        /// The directory.
        directory: PathBuf,
        /// `process N`, or `another process` if it did not say.
        holder: String,
        /// It has ended, and only the kernel has not closed all its files yet.
        ending: bool,
    },
    /// The lock file cannot be made, opened or locked.
    #[error("{file}: {source}", file = .file.display())]
    Io {
        /// The lock file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DirectoryLock {
    /// Takes `directory`, which must exist, by `flock` on a file in it. Never waits.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn take(directory: &Path) -> Result<Self, LockError> {
        let path = directory.join(FILE);
        let failed = |source| LockError::Io {
            file: path.clone(),
            source,
        };
        let folder = Folder::follow(directory).map_err(failed)?;
        let mut file = folder.open_or_create(FILE, 0o640).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let directory = directory.to_path_buf();
                let (holder, ending) = holder(&mut file);
                return Err(LockError::Busy {
                    directory,
                    holder,
                    ending,
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // The number is for people only. A full disk must not keep the server from starting.
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        let kept = AtomicBool::new(false);
        Ok(Self { file, kept })
    }
}

impl DirectoryLock {
    /// Holds the directory as long as this process lives, also when the lock is dropped. The kernel lets it go, after
    /// it has closed everything else: a thread that still writes keeps it.
    ///
    /// # Errors
    /// No more files can be opened.
    pub fn keep(&self) -> io::Result<()> {
        // The same description, and so the same lock.
        let _until_the_end = self.file.try_clone()?.into_raw_fd();
        self.kept.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether nobody has `directory` now; nothing is made there.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn is_free(directory: &Path) -> Result<(), LockError> {
        match directory.join(FILE).symlink_metadata() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            _ => Self::take(directory).map(drop),
        }
    }
}

impl Drop for DirectoryLock {
    /// A process that this one has just started has the lock too until it executes its program, so closing the file alone
    /// may let go a moment too late.
    fn drop(&mut self) {
        if !*self.kept.get_mut() {
            let _closed_anyway = self.file.unlock();
        }
    }
}

/// Who has it, and whether that is ending.
fn holder(file: &mut File) -> (String, bool) {
    let mut text = String::new();
    let pid: Option<u32> = file
        .take(PID_MOST)
        .read_to_string(&mut text)
        .ok()
        .and_then(|_| text.trim().parse().ok());
    match pid {
        None => ("another process".to_owned(), false),
        Some(pid) if is_ending(pid) => {
            let holder = format!(
                "process {pid}, which has ended but for files that the kernel cannot close, as where they lie does not \
                 answer: mend it or unmount it by force"
            );
            (holder, true)
        }
        Some(pid) => (format!("process {pid}"), false),
    }
}

/// Whether nothing of the process runs any more, though it is not gone (`PF_EXITING` in `proc_pid_stat(5)`).
fn is_ending(pid: u32) -> bool {
    const EXITING: u32 = 4;
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name of the program may hold anything.
    let fields = text.rsplit_once(')').map(|(_, rest)| rest);
    let flags = fields.and_then(|rest| rest.split_whitespace().nth(6)?.parse::<u32>().ok());
    flags.is_some_and(|flags| flags & EXITING != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_held_once_and_free_again_when_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirectoryLock::take(dir.path()).unwrap();
        let Err(LockError::Busy { holder, .. }) = DirectoryLock::take(dir.path()) else {
            panic!("taken twice");
        };
        assert_eq!(holder, format!("process {}", std::process::id()));
        // As a child has it between fork and exec.
        let inherited = first.file.try_clone().unwrap();
        drop(first);
        DirectoryLock::take(dir.path()).unwrap();
        drop(inherited);
    }

    #[test]
    fn a_directory_that_is_kept_is_held_until_the_process_ends() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirectoryLock::take(dir.path()).unwrap();
        lock.keep().unwrap();
        drop(lock);
        let busy = DirectoryLock::take(dir.path()).unwrap_err();
        assert!(matches!(busy, LockError::Busy { .. }), "{busy}");
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        let text = DirectoryLock::take(&missing).unwrap_err().to_string();
        assert!(text.contains("missing/groupshot.lock"), "{text}");
    }
}
