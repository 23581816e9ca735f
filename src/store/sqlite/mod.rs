//! The durable store: SQLite in WAL mode with `synchronous=FULL`, written by one thread.
//!
//! ```text
//!   transact ──▶ queue ──▶ writer: decide, decide, … (each on the state the one before left)
//!                                  └▶ one COMMIT ──▶ publish ──▶ answer all
//! ```
//!
//! Records are JSON texts, one row each. What is on disk is read whole at start and never again, but for the history.

mod counter;
mod errno;
mod history;
mod rows;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use async_trait::async_trait;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

use super::lock::{DirectoryLock, LockError};
use crate::held::{self, Folder, Identity};
use crate::inventory::Ended;

use super::feed::{Commits, Feed};
use super::{Decision, Held, Number, State, Store, StoreError};
use counter::Counter;
use writer::{Request, Writer};

/// Name of the database file in the data directory.
pub const FILE: &str = "groupshot.db";

/// How many callers may wait for the writer before `transact` itself waits.
const QUEUE: usize = 1024;

/// The store of a data directory. Dropping it finishes what is queued and closes the database.
#[derive(Debug)]
pub struct SqliteStore {
    feed: Arc<Feed>,
    queue: Mutex<Option<mpsc::Sender<Request>>>,
    broken: watch::Receiver<Option<String>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// As it was opened.
    transactions: u64,
    recorded: AtomicBool,
    lock: DirectoryLock,
}

/// What a database holds that nobody has opened.
#[derive(Debug)]
pub struct Looked {
    /// Its records.
    pub state: State,
    /// What else it holds.
    pub held: Held,
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data directory cannot be taken, perhaps because another server has it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// SQLite refuses the file.
    #[error("{file}: {source}", file = .file.display())]
    Sqlite {
        /// The database file.
        file: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The check of the file found damage.
    #[error("{file} is damaged: {finding}; restore it from a backup, or move it away with its log and run `groupshot doctor --rebuild --data-dir {here}`, which makes it anew from the records of the sets", file = .file.display(), here = above(.file).display())]
    Damaged {
        /// The database file.
        file: PathBuf,
        /// The first finding.
        finding: String,
    },
    /// A later version of the program made the file.
    #[error("{file} has format {found}, this program knows up to {known}", file = .file.display())]
    Newer {
        /// The database file.
        file: PathBuf,
        /// `user_version` of the file.
        found: i64,
        /// The newest that is known here.
        known: i64,
    },
    /// The database has lost transactions that it had: its log is not what it was, or it is an older copy.
    #[error(
        "{file} holds {found} transactions and had {counted}: what was acknowledged since is lost; put it and its log ({log}) back as they were, or restore a backup with its {counter}; or run `groupshot doctor --rebuild --data-dir {here}`, which shows what it makes again from the records of sets",
        here = above(.file).display(), file = .file.display(), log = .log.display(), counter = .counter.display()
    )]
    Behind {
        /// The database file.
        file: PathBuf,
        /// Its log.
        log: PathBuf,
        /// Where the number stands.
        counter: PathBuf,
        /// How many it holds.
        found: u64,
        /// How many it had.
        counted: u64,
    },
    /// The file that counts the transactions of the database cannot be relied on.
    #[error(
        "{file} is damaged: {finding}; it counts what the database must hold: look whether anything is missing, and remove it, for a new one to be made",
        file = .file.display()
    )]
    Counter {
        /// That file.
        file: PathBuf,
        /// What is wrong with it.
        finding: String,
    },
    /// The writer thread cannot be started.
    #[error("cannot start the database writer: {0}")]
    Thread(io::Error),
}

/// The data directory of its database.
fn above(file: &Path) -> &Path {
    file.parent().unwrap_or(file)
}

impl SqliteStore {
    /// Takes the directory, which must exist, checks its database (made if missing), brings it to today's
    /// format and reads all of it.
    ///
    /// # Errors
    /// [`OpenError`]; the directory is free again then.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        Self::open_with(directory, true)
    }

    /// [`SqliteStore::open`] for somebody who makes again what it has lost: it may hold less than is counted, and is
    /// made anew if it is missing. The count goes on.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_to_rebuild(directory: &Path) -> Result<Self, OpenError> {
        Self::open_with(directory, false)
    }

    /// What a database holds, however much is counted. Nothing is written.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn look(directory: &Path) -> Result<Looked, OpenError> {
        let _lock = DirectoryLock::take(directory)?;
        let file = directory.join(FILE);
        let counted = counted(directory)?.unwrap_or_default();
        if file.metadata().map_or(0, |m| m.len()) == 0 {
            return Ok(Looked {
                state: State::default(),
                held: Held {
                    transactions: 0,
                    counted,
                    recorded: false,
                },
            });
        }
        require_access(&file)?;
        let mut connection = rows::connect(&file)?;
        rows::check(&connection, &file)?;
        let read = read_all(&file, counted);
        let (state, held) = rows::migrated(&mut connection, &file, false, read)?;
        Ok(Looked { state, held })
    }

    /// [`SqliteStore::look`] that refuses what [`SqliteStore::open`] would.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn inspect(directory: &Path) -> Result<Looked, OpenError> {
        let looked = Self::look(directory)?;
        require_all(
            directory,
            Some(looked.held.counted),
            looked.held.transactions,
        )?;
        Ok(looked)
    }

    fn open_with(directory: &Path, whole: bool) -> Result<Self, OpenError> {
        let lock = DirectoryLock::take(directory)?;
        let file = directory.join(FILE);
        let counted = counted(directory)?;
        let require_all = |found| match whole {
            true => require_all(directory, counted, found),
            false => Ok(()),
        };
        // SQLite takes the log of an empty file away.
        if file.metadata().map_or(0, |m| m.len()) == 0 {
            require_all(0)?;
        }
        close_to_others(&file).map_err(|source| LockError::Io {
            file: file.clone(),
            source,
        })?;
        require_access(&file)?;
        let mut connection = rows::connect(&file)?;
        rows::check(&connection, &file)?;
        // Before anything is written: whoever has lost the log may have it still.
        require_all(rows::number(&connection, &file)?)?;
        let read = read_all(&file, counted.unwrap_or_default());
        let (state, held) = rows::migrated(&mut connection, &file, true, read)?;
        let number = held.transactions.max(counted.unwrap_or_default());
        let counter = counter(directory, counted, number)?;
        rows::close_with_checkpoint(&connection, &file)?;
        let connection = (connection, directory.to_owned());
        Self::run(connection, state, (counter, number), held, lock)
    }

    /// What it held beside its records when it was opened, and whether every set has had its record since.
    #[must_use]
    pub fn held(&self) -> Held {
        Held {
            transactions: self.transactions,
            counted: self.transactions,
            recorded: self.recorded.load(Ordering::SeqCst),
        }
    }

    /// Notes that every set has its record beside its files from now on, durably.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn mark_recorded(&self) -> Result<(), StoreError> {
        let gone = || StoreError::Broken("the database writer is gone".to_owned());
        let (answer, answered) = oneshot::channel();
        let queue = self.queue().ok_or_else(gone)?;
        let request = Request::Recorded { answer };
        queue.send(request).await.map_err(|_| gone())?;
        let marked = answered.await.map_err(|_| gone())?;
        marked.map_err(|error| StoreError::Refused(error.to_string()))?;
        self.recorded.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Holds the data directory as long as this process lives ([`DirectoryLock::keep`]).
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn keep_directory(&self, directory: &Path) -> Result<(), OpenError> {
        let kept = self.lock.keep();
        let failed = |source| LockError::Io {
            file: directory.to_owned(),
            source,
        };
        Ok(kept.map_err(failed)?)
    }

    /// Finishes what is queued and closes the database, not the lock of its directory. Who comes later is told that
    /// the writer is gone.
    pub fn close(&self) {
        *locked(&self.queue) = None;
        let writer = locked(&self.writer).take();
        if let Some(writer) = writer {
            let _ = writer.join();
        }
    }

    fn queue(&self) -> Option<mpsc::Sender<Request>> {
        locked(&self.queue).clone()
    }

    /// Resolves with the reason when the store has broken; the process has to stop then (`docs/cut.md` §3).
    /// Never resolves otherwise.
    pub async fn broken(&self) -> String {
        let mut broken = self.broken.clone();
        let reason = broken.wait_for(Option::is_some).await;
        match reason.ok().and_then(|reason| reason.clone()) {
            Some(reason) => reason,
            None => "the database writer is gone".to_owned(),
        }
    }

    fn run(
        connection: (Connection, PathBuf),
        state: State,
        counter: (Counter, u64),
        held: Held,
        lock: DirectoryLock,
    ) -> Result<Self, OpenError> {
        let feed = Arc::new(Feed::new(state));
        let (queue, requests) = mpsc::channel(QUEUE);
        let (report, broken) = watch::channel(None);
        let writer = Writer::new(connection, Arc::clone(&feed), counter, report);
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run(requests))
            .map_err(OpenError::Thread)?;
        Ok(Self {
            feed,
            queue: Mutex::new(Some(queue)),
            broken,
            writer: Mutex::new(Some(writer)),
            transactions: held.transactions,
            recorded: held.recorded.into(),
            lock,
        })
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads everything, and what is known beside it.
fn read_all(file: &Path, counted: u64) -> impl Fn(&Connection) -> Result<(State, Held), OpenError> {
    move |connection| {
        let (state, transactions) = rows::load(connection, file)?;
        let recorded = rows::is_recorded(connection, file)?;
        let held = Held {
            transactions,
            counted,
            recorded,
        };
        Ok((state, held))
    }
}

/// How many transactions are counted; `None` where nothing is.
fn counted(directory: &Path) -> Result<Option<u64>, OpenError> {
    let file = counter::path(directory);
    let counted = counter::read(&file).map_err(|source| LockError::Io {
        file: file.clone(),
        source,
    })?;
    counted.map_err(|finding| OpenError::Counter { file, finding })
}

/// Refuses a database that holds less than is counted.
fn require_all(directory: &Path, counted: Option<u64>, found: u64) -> Result<(), OpenError> {
    match counted {
        Some(counted) if counted > found => Err(OpenError::Behind {
            file: directory.join(FILE),
            log: directory.join(format!("{FILE}-wal")),
            counter: counter::path(directory),
            found,
            counted,
        }),
        _ => Ok(()),
    }
}

/// The counter, brought up to what the database holds: a process may have died between the two.
fn counter(directory: &Path, counted: Option<u64>, number: u64) -> Result<Counter, OpenError> {
    let path = counter::path(directory);
    let open = || {
        let mut counter = Counter::open(&path, number)?;
        if counted.is_some_and(|counted| counted < number) {
            counter.write(number, true)?;
        }
        Ok(counter)
    };
    Ok(open().map_err(|source| LockError::Io {
        file: path.clone(),
        source,
    })?)
}

/// Makes the file if it is missing, for owner and group only. SQLite gives what it puts beside it the same
/// mode; it opens its own files by name, and through no link.
fn close_to_others(file: &Path) -> io::Result<()> {
    let (folder, name) = Folder::of(file)?;
    let open = folder.open_or_create(name, 0o640)?;
    let mode = Identity::of(&open)?.mode;
    match mode & 0o007 {
        0 => Ok(()),
        _ => held::set_mode(&open, mode & 0o770),
    }
}

/// Whether this process may read and write the database and its log, which SQLite would not tell.
fn require_access(file: &Path) -> Result<(), LockError> {
    let mut log = file.as_os_str().to_owned();
    log.push("-wal");
    for file in [file.to_owned(), PathBuf::from(log)] {
        match held::open(&file, true) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(source) if held::foreign(&source).is_none() => {
                return Err(LockError::Io { file, source });
            }
            _ => {}
        }
    }
    Ok(())
}

#[async_trait]
impl Store for SqliteStore {
    fn state(&self) -> Arc<State> {
        self.feed.state()
    }

    fn subscribe(&self) -> Commits {
        self.feed.subscribe()
    }

    /// Once queued the decision is run, whether or not the caller still waits.
    async fn transact(&self, decide: Decision) -> Result<Arc<State>, StoreError> {
        let gone = || StoreError::Broken("the database writer is gone".to_owned());
        let (answer, answered) = oneshot::channel();
        let queue = self.queue().ok_or_else(gone)?;
        let request = Request::Change { decide, answer };
        queue.send(request).await.map_err(|_| gone())?;
        match answered.await.map_err(|_| gone())? {
            Ok(result) => result,
            Err(panicked) => std::panic::resume_unwind(panicked),
        }
    }

    async fn history(
        &self,
        mut before: Option<Number>,
    ) -> Result<Vec<(Number, Ended)>, StoreError> {
        let gone = || StoreError::Broken("the database writer is gone".to_owned());
        loop {
            let (answer, answered) = oneshot::channel();
            let queue = self.queue().ok_or_else(gone)?;
            let request = Request::LookBack { before, answer };
            queue.send(request).await.map_err(|_| gone())?;
            let page = answered.await.map_err(|_| gone())?;
            let page = page.map_err(|error| StoreError::Refused(error.to_string()))?;
            let last = page.last().map(|(number, _)| *number);
            let read = read(page);
            // A page with nothing that can be read is not the last one.
            if !read.is_empty() || last.is_none() {
                return Ok(read);
            }
            before = last;
        }
    }
}

/// What cannot be read was written by a later version: its place is kept for the next page. What is not as it was written
/// is told by nobody but the log.
fn read(page: Vec<(Number, String)>) -> Vec<(Number, Ended)> {
    let read = page.into_iter().filter_map(|(number, text)| {
        if !history::is_whole(&text) {
            tracing::warn!(
                number,
                "An entry of the history is damaged: its checksum is wrong"
            );
            return None;
        }
        let ended = serde_json::from_str(&text);
        let ended =
            ended.inspect_err(|error| tracing::debug!(number, %error, "An entry of the history"));
        Some((number, ended.ok()?))
    });
    read.collect()
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests;
