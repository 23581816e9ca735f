//! What must outlive the process: collections, sets, positions, leftovers of sets, jobs.
//!
//! All of it stands in memory as an immutable [`State`] that readers take whole. A change is a closure over
//! the newest state, run by the one writer; its batch is durable before the new state is published and the
//! caller gets its answer. Many callers share one fdatasync (group commit).
//!
//! Who acts on changes listens to the [`feed`] of commits.
//!
//! [`sqlite`] is the durable store, [`memory`] keeps the same promises for as long as the process lives; [`record`]
//! is what is known of each set outside the database, written before each transaction that changes the set.

mod apply;
pub mod feed;
pub mod lock;
pub mod memory;
pub mod record;
pub mod room;
pub mod sqlite;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::id::{CollectionId, JobId, SetId, SnapshotId, VmId};
use crate::inventory::{
    ByName, Collection, Ended, Job, Leftover, Met, Position, Query, Snapshot, SnapshotSet,
};
use crate::text::catalog::store as texts;
use crate::text::{Text, told_by_text};

use feed::Commits;

/// Everything the store holds, at one revision.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Grows by one with each transaction that changed something; begins at 0 in each process.
    pub revision: u64,
    /// Collections by id.
    pub collections: Arc<BTreeMap<CollectionId, Arc<Collection>>>,
    /// Snapshot sets by id.
    pub sets: Arc<BTreeMap<SetId, Arc<SnapshotSet>>>,
    /// Derived from `sets`: where each member snapshot stands, its set and its place among the members.
    pub snapshots: Arc<BTreeMap<SnapshotId, (SetId, usize)>>,
    /// Position of each machine that has one.
    pub positions: Arc<BTreeMap<VmId, Position>>,
    /// What destroyed snapshots have left, by file.
    pub leftovers: Arc<BTreeMap<PathBuf, Leftover>>,
    /// Jobs by id.
    pub jobs: Arc<BTreeMap<JobId, Arc<Job>>>,
}

impl State {
    /// The set that holds the snapshot, and the snapshot itself.
    #[must_use]
    pub fn snapshot(&self, id: SnapshotId) -> Option<(&Arc<SnapshotSet>, &Snapshot)> {
        let (set, place) = self.snapshots.get(&id)?;
        let set = self.sets.get(set)?;
        Some((set, set.members.get(*place)?))
    }

    /// Where the machine stands; the default if it never had a snapshot.
    #[must_use]
    pub fn position(&self, machine: VmId) -> Position {
        self.positions.get(&machine).cloned().unwrap_or_default()
    }
}

/// What is known of a database apart from its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// How many transactions it holds.
    pub transactions: u64,
    /// How many are counted beside it: it has had that many, whatever it holds now.
    pub counted: u64,
    /// Whether each of its sets has had a record beside its files since some start.
    pub recorded: bool,
}

/// One change of one record.
#[derive(Debug, Clone)]
pub enum Change {
    /// Adds or replaces a collection.
    PutCollection(Collection),
    /// Removes a collection.
    RemoveCollection(CollectionId),
    /// Adds or replaces a set with its members.
    PutSet(SnapshotSet),
    /// Removes a set with its members.
    RemoveSet(SetId),
    /// Sets the position of a machine.
    PutPosition(VmId, Position),
    /// Forgets the position of a machine.
    RemovePosition(VmId),
    /// Adds or replaces what a destroyed snapshot has left.
    PutLeftover(Leftover),
    /// Forgets it: the file is gone, or needed by others.
    RemoveLeftover(PathBuf),
    /// Adds or replaces a job.
    PutJob(Job),
    /// Removes a job.
    RemoveJob(JobId),
    /// Adds to the history; no part of the [`State`].
    Ended(Ended),
}

/// The store could not do it. After [`StoreError::Broken`] nothing more is written by this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// Writing or syncing failed; the process must stop and recover (`docs/cut.md` §3).
    Broken(String),
    /// The disk is full, as told; nothing of the transaction is kept, the store goes on.
    Full(Text),
    /// The record of a set beside its files cannot be written; nothing of the transaction is kept, the store goes on.
    Unrecorded(String),
    /// The transaction asks for what cannot be kept (a path that is no UTF-8, an end of a job that has
    /// ended); nothing of it is kept, the store goes on.
    Refused(String),
}

impl StoreError {
    /// In words.
    #[must_use]
    pub fn text(&self) -> Text {
        match self {
            Self::Broken(reason) | Self::Refused(reason) => texts::DATABASE.with("reason", reason),
            Self::Full(why) => why.clone(),
            Self::Unrecorded(reason) => texts::UNRECORDED.with("reason", reason),
        }
    }
}
told_by_text!(StoreError);

/// Decides on a change, given the newest state. `Err(reason)` leaves everything as it is; the closure
/// hands its own reason out through what it captures.
pub type Decision = Box<dyn FnOnce(&State) -> Vec<Change> + Send>;

/// A durable store.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The newest published state.
    fn state(&self) -> Arc<State>;

    /// The commits from now on. What was committed before stands in [`Store::state`], read after this.
    fn subscribe(&self) -> Commits;

    /// Runs `decide` on the newest state and makes its changes durable, all or none. An empty list
    /// commits nothing. Returns the state after it.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was changed then.
    async fn transact(&self, decide: Decision) -> Result<Arc<State>, StoreError>;

    /// A page of the history, the newest first: what stands before the entry of this number.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn history(&self, before: Option<Number>) -> Result<Vec<(Number, Ended)>, StoreError>;
}

/// Numbers the entries of the history; grows with each.
pub type Number = i64;

/// How long the history goes back.
pub const HISTORY_KEPT: Duration = Duration::from_secs(30 * 86_400);

/// Why nothing of the history is told.
#[derive(Debug, thiserror::Error)]
pub enum LookBackError {
    /// It cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the query names by the beginning of an id means several things.
    #[error("{0}")]
    Several(String),
}

/// What the history has of operations that a query looks for, the newest first.
///
/// # Errors
/// [`LookBackError`].
pub async fn look_back(
    store: &dyn Store,
    query: &Query,
    now: Timestamp,
) -> Result<Vec<Ended>, LookBackError> {
    let mut by_name = ByName::default();
    loop {
        let (found, met) = look_through(store, query, now, by_name).await?;
        match met.names() {
            Some(names) => by_name = names,
            None => {
                return met
                    .several(query)
                    .map_or(Ok(found), |why| Err(LookBackError::Several(why)));
            }
        }
    }
}

/// All pages once.
async fn look_through(
    store: &dyn Store,
    query: &Query,
    now: Timestamp,
    by_name: ByName,
) -> Result<(Vec<Ended>, Met), StoreError> {
    let (mut found, mut before, mut met) = (Vec::new(), None, Met::default());
    loop {
        let page = store.history(before).await?;
        let last = page.last().map(|(last, _)| *last);
        for ended in choose(page, query, now, by_name) {
            met.take_up(query, &ended, by_name);
            if found.len() < query.limit {
                found.push(ended);
            }
        }
        // What is beyond the limit may begin with the same letters.
        let enough = found.len() >= query.limit && !query.is_by_beginning();
        if last.is_none() || enough {
            return Ok((found, met));
        }
        before = last;
    }
}

/// Those of a page that are looked for, and not too old to be shown.
fn choose(
    page: Vec<(Number, Ended)>,
    query: &Query,
    now: Timestamp,
    by_name: ByName,
) -> impl Iterator<Item = Ended> {
    let kept = now.saturating_sub(HISTORY_KEPT).unwrap_or(Timestamp::MIN);
    let all = page.into_iter().map(|(_, ended)| ended);
    all.filter(move |ended| ended.ended >= kept && query.fits(ended, by_name))
}

/// [`Store::transact`] for a closure that may refuse with a reason of its own.
///
/// # Errors
/// The store's error outside, the closure's inside.
pub async fn decide<T, E, F>(store: &dyn Store, f: F) -> Result<Result<T, E>, StoreError>
where
    T: Send + 'static,
    E: Send + 'static,
    F: FnOnce(&State) -> Result<(Vec<Change>, T), E> + Send + 'static,
{
    let (tx, rx) = std::sync::mpsc::sync_channel(1);
    store
        .transact(Box::new(move |state| match f(state) {
            Ok((changes, value)) => {
                let _ = tx.send(Ok(value));
                changes
            }
            Err(reason) => {
                let _ = tx.send(Err(reason));
                Vec::new()
            }
        }))
        .await?;
    rx.try_recv()
        .map_err(|_| StoreError::Broken("the writer dropped a transaction".to_owned()))
}
