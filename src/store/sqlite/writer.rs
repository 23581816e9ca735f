//! The one thread that writes: it drains its queue into one transaction, commits, publishes, answers.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::{Connection, ErrorCode, TransactionBehavior, ffi};
use tokio::sync::{mpsc, oneshot, watch};

use crate::failpoint;
use crate::held::NotReplaced;
use crate::store::feed::Feed;
use crate::store::{Change, record, room};

use super::counter::Counter;
use super::history::{self, Trim};
use super::rows::{self, Row};
use super::{Decision, Number, State, StoreError, errno};

/// Most decisions in one commit: bounds how long the first of them waits.
const BATCH: usize = 256;

/// Rows written between two checkpoints. One in a commit of its own takes some pages of the log, which so stays at a few
/// megabytes.
const ROWS_PER_CHECKPOINT: usize = 300;

/// What a caller hears: the state or an error, or the panic of its own decision.
pub(super) type Outcome = Result<Result<Arc<State>, StoreError>, Box<dyn Any + Send>>;

/// A page of the history, as it is stored.
pub(super) type Page = rusqlite::Result<Vec<(Number, String)>>;

/// What a caller wants.
pub(super) enum Request {
    /// One transaction.
    Change {
        decide: Decision,
        answer: oneshot::Sender<Outcome>,
    },
    /// To note that every set has its record.
    Recorded {
        answer: oneshot::Sender<rusqlite::Result<()>>,
    },
    /// What the history has before this number.
    LookBack {
        before: Option<Number>,
        answer: oneshot::Sender<Page>,
    },
}

/// The writing end of the store.
pub(super) struct Writer {
    connection: Connection,
    directory: PathBuf,
    feed: Arc<Feed>,
    report: watch::Sender<Option<String>>,
    rows_since_checkpoint: usize,
    counter: Counter,
    /// How many transactions the database holds.
    number: u64,
    trim: Trim,
    /// The disk was full at the last commit.
    full: bool,
}

/// Decisions that were run and wait for their commit.
struct Batch {
    state: State,
    rows: Vec<Row>,
    changes: Vec<Change>,
    waiting: Vec<oneshot::Sender<Outcome>>,
}

impl Writer {
    pub(super) fn new(
        (connection, directory): (Connection, PathBuf),
        feed: Arc<Feed>,
        (counter, number): (Counter, u64),
        report: watch::Sender<Option<String>>,
    ) -> Self {
        Self {
            connection,
            directory,
            feed,
            report,
            rows_since_checkpoint: 0,
            counter,
            number,
            trim: Trim::default(),
            full: false,
        }
    }

    /// Serves until every sender is gone.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(first) = requests.blocking_recv() {
            let mut batch = self.begin();
            self.take(first, &mut batch);
            while batch.waiting.len() < BATCH
                && let Ok(next) = requests.try_recv()
            {
                self.take(next, &mut batch);
            }
            self.finish(batch);
        }
    }

    /// Runs a decision, or reads at once: what it finds is durable.
    fn take(&self, request: Request, batch: &mut Batch) {
        match request {
            Request::Change { decide, answer } => {
                batch.decide(decide, answer, |state, changes| self.record(state, changes));
            }
            Request::Recorded { answer } => {
                let _ = answer.send(rows::mark_recorded(&self.connection));
            }
            Request::LookBack { before, answer } => {
                let _ = answer.send(history::page(&self.connection, before));
            }
        }
    }

    /// Writes what the transaction will have made of sets beside their files, durably.
    fn record(&self, state: &State, changes: &[Change]) -> Result<(), StoreError> {
        if let Some(reason) = self.report.borrow().clone() {
            return Err(StoreError::Broken(reason));
        }
        match record::renew(&self.directory, state, changes, self.number + 1) {
            Ok(false) => Ok(()),
            Ok(true) => {
                failpoint::pass("store.recorded").map_err(|e| StoreError::Unrecorded(e.to_string()))
            }
            Err(NotReplaced::Refused(error)) if room::is_missing(&error) => {
                Err(StoreError::Full(room::missing(&self.directory, &error)))
            }
            Err(NotReplaced::Refused(error)) => Err(StoreError::Unrecorded(error.to_string())),
            Err(NotReplaced::Broken(error)) => {
                Err(self.broken(format!("the record of a snapshot set: {error}")))
            }
        }
    }

    fn begin(&self) -> Batch {
        Batch {
            state: State::clone(&self.feed.state()),
            rows: Vec::new(),
            changes: Vec::new(),
            waiting: Vec::new(),
        }
    }

    fn finish(&mut self, batch: Batch) {
        let result = self.make_durable(batch);
        if let Err((waiting, error)) = result {
            for answer in waiting {
                let _ = answer.send(Ok(Err(error.clone())));
            }
        }
    }

    fn make_durable(
        &mut self,
        batch: Batch,
    ) -> Result<(), (Vec<oneshot::Sender<Outcome>>, StoreError)> {
        let Batch {
            state,
            rows,
            changes,
            waiting,
        } = batch;
        if let Some(reason) = self.report.borrow().clone() {
            return Err((waiting, StoreError::Broken(reason)));
        }
        let state = if rows.is_empty() {
            self.feed.state()
        } else {
            if let Err(error) = self.commit(&rows, &state) {
                return Err((waiting, self.judge(&error)));
            }
            if let Err(error) = self.count(rows.iter().any(|row| !row.is_job())) {
                return Err((waiting, error));
            }
            if std::mem::take(&mut self.full) {
                tracing::info!("database: the disk has room again");
            }
            self.feed.publish(state, changes)
        };
        for answer in waiting {
            let _ = answer.send(Ok(Ok(Arc::clone(&state))));
        }
        self.checkpoint(rows.len());
        Ok(())
    }

    /// Counts the transaction that was committed, outside the database's own log, before anybody is answered.
    fn count(&mut self, durably: bool) -> Result<(), StoreError> {
        self.number += 1;
        match self.counter.write(self.number, durably) {
            // A number that stays behind only notices less.
            Err(error) if room::is_missing(&error) => {
                tracing::warn!(%error, "The transactions of the database are not counted");
                Ok(())
            }
            Err(error) => Err(self.broken(format!("counting its transactions: {error}"))),
            Ok(()) => failpoint::pass("store.counted").map_err(|e| self.broken(e.to_string())),
        }
    }

    fn broken(&self, reason: String) -> StoreError {
        tracing::error!(%reason, "database: broken, nothing more is written");
        self.report.send_replace(Some(reason.clone()));
        StoreError::Broken(reason)
    }

    fn commit(&mut self, rows: &[Row], state: &State) -> rusqlite::Result<()> {
        let number = self.number + 1;
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        for row in rows {
            row.write(&transaction)?;
        }
        rows::count(&transaction, number, state)?;
        let ended: Vec<_> = rows.iter().filter_map(Row::ended).collect();
        self.trim.after(&ended, &transaction)?;
        failpoint::pass("store.commit").map_err(on_order)?;
        transaction.commit()?;
        failpoint::pass("store.committed").map_err(on_order)
    }

    /// A full disk leaves the transaction undone and the file sound. After anything else (above all a
    /// failed sync) nobody knows what is on the disk, so this process writes no more.
    fn judge(&mut self, error: &rusqlite::Error) -> StoreError {
        if self.is_full(error) && self.connection.is_autocommit() {
            let is_full = error.sqlite_error_code() == Some(ErrorCode::DiskFull);
            let kind = match is_full {
                true => io::ErrorKind::StorageFull,
                false => io::ErrorKind::QuotaExceeded,
            };
            let why = room::missing(&self.directory, &kind.into());
            // What is refused has its end to be noted too, and fails once more.
            if !std::mem::replace(&mut self.full, true) {
                let (directory, why) = (self.directory.display(), why.english());
                tracing::error!(%error, %directory, why, "database: disk full");
            }
            return StoreError::Full(why);
        }
        self.broken(error.to_string())
    }

    fn is_full(&self, error: &rusqlite::Error) -> bool {
        let rusqlite::Error::SqliteFailure(error, _) = error else {
            return false;
        };
        match error.extended_code {
            ffi::SQLITE_FULL => true,
            // A quota is a full disk by another name, which SQLite does not know.
            ffi::SQLITE_IOERR_WRITE => {
                errno::last(&self.connection).kind() == io::ErrorKind::QuotaExceeded
            }
            _ => false,
        }
    }

    /// Moves the log into the database file now and then. Done here and not by SQLite's own trigger,
    /// because that one ignores a failed sync.
    fn checkpoint(&mut self, written: usize) {
        self.rows_since_checkpoint += written;
        if self.rows_since_checkpoint < ROWS_PER_CHECKPOINT {
            return;
        }
        self.rows_since_checkpoint = 0;
        let done = self
            .connection
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        if let Err(error) = done
            && error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy)
        {
            let _ = self.judge(&error);
        }
    }
}

impl Batch {
    /// Runs a decision; `record` notes outside the database what its changes lead to.
    fn decide(
        &mut self,
        decide: Decision,
        answer: oneshot::Sender<Outcome>,
        record: impl FnOnce(&State, &[Change]) -> Result<(), StoreError>,
    ) {
        let state = &self.state;
        let changes = match catch_unwind(AssertUnwindSafe(|| decide(state))) {
            Ok(changes) => changes,
            Err(panicked) => {
                let _ = answer.send(Err(panicked));
                return;
            }
        };
        let rows: Result<Vec<_>, _> = changes.iter().map(Row::of).collect();
        let decided = rows.map_err(StoreError::Refused).and_then(|rows| {
            let after = state.after(&changes);
            record(&after, &changes)?;
            Ok((rows, after))
        });
        match decided {
            Ok((rows, after)) => {
                self.rows.extend(rows);
                self.changes.extend(changes);
                self.state = after;
                self.waiting.push(answer);
            }
            Err(error) => {
                let _ = answer.send(Ok(Err(error)));
            }
        }
    }
}

fn on_order(failed: failpoint::FailedOnOrder) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(failed))
}
