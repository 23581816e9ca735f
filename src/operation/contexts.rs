//! Open enumerations: who may pull them, how many there may be, when they are forgotten.
//!
//! ```text
//!              open                 take                      page written, more to come
//!   (Enumerate) ────▶ waiting ──────────────▶ in a Pull ──────────────────────────────▶ waiting
//!                        │ idle too long,          │ last item delivered, Release meanwhile
//!                        ▼ Release                 ▼
//!                     forgotten                forgotten
//! ```
//!
//! The table holds no clock: the moment is an argument (`Clock::elapsed`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::id::WireId;

use super::cursor::Cursor;

/// How many enumerations may be open, and how long one may wait for its next Pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContextLimits {
    /// Open enumerations of one user (rule Q-6).
    pub per_user: usize,
    /// Open enumerations of all users together (rule Q-5).
    pub total: usize,
    /// Octets with which the open enumerations of one user were asked for. What is kept of a filter takes up to some
    /// 50 times its length.
    pub octets_per_user: usize,
    /// Those of all users together.
    pub octets: usize,
    /// An enumeration without `n:Expires` is forgotten when no Pull came for this long (rule Q-7).
    pub idle: Duration,
    /// The longest `n:Expires` that is granted (rule E-2).
    pub longest: Duration,
}

impl Default for ContextLimits {
    fn default() -> Self {
        Self {
            per_user: 1500,
            total: 10_000,
            octets_per_user: 1 << 20,
            octets: 8 << 20,
            idle: Duration::from_secs(60),
            longest: Duration::from_secs(3600),
        }
    }
}

/// How long an open enumeration lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lifetime {
    /// Until it is idle for [`ContextLimits::idle`].
    Idle,
    /// This long from the Enumerate on, whatever is pulled.
    Fixed(Duration),
}

/// Too many open enumerations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// Of this user.
    User,
    /// Of all users.
    Total,
    /// Their filters are too long in all: of this user.
    OctetsOfUser,
    /// Of all users.
    Octets,
}

/// Why a context cannot be pulled or released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unusable {
    /// There is none of that id: never, or no longer.
    Unknown,
    /// Another user opened it.
    NotYours,
    /// A Pull is working on it at this moment.
    Busy,
}

/// The open enumerations of the server.
#[derive(Debug)]
pub(super) struct Contexts {
    limits: ContextLimits,
    table: Mutex<Table>,
    /// One was opened.
    opened: Notify,
}

#[derive(Debug, Default)]
struct Table {
    entries: BTreeMap<WireId, Entry>,
    /// INVARIANT: for each user the number of its entries, and their octets; none without an entry.
    per_user: BTreeMap<Arc<str>, Share>,
    /// INVARIANT: the octets of all entries.
    octets: usize,
}

#[derive(Debug, Default)]
struct Share {
    entries: usize,
    octets: usize,
}

#[derive(Debug)]
struct Entry {
    owner: Arc<str>,
    octets: usize,
    lifetime: Lifetime,
    /// Forgotten at this moment, unless a Pull holds it: that does not expire.
    deadline: Duration,
    /// `None` while a Pull works on it.
    cursor: Option<Box<Cursor>>,
}

impl Contexts {
    /// No open enumerations.
    #[must_use]
    pub(super) fn new(limits: ContextLimits) -> Self {
        Self {
            limits,
            table: Mutex::default(),
            opened: Notify::new(),
        }
    }

    /// The limits it keeps.
    #[must_use]
    pub(super) fn limits(&self) -> &ContextLimits {
        &self.limits
    }

    /// How many enumerations are open.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.table().entries.len()
    }

    /// Opens a context of `owner` that goes on where `cursor` stands, and was asked for with so many octets. `id` is
    /// fresh.
    ///
    /// # Errors
    /// [`Full`]; the cursor is lost then.
    pub(super) fn open(
        &self,
        id: WireId,
        owner: &Arc<str>,
        (cursor, octets): (Cursor, usize),
        lifetime: Lifetime,
        now: Duration,
    ) -> Result<(), Full> {
        let mut gone = Gone::default();
        let mut table = self.table();
        if table.full(owner, octets, &self.limits).is_some() {
            gone = table.forget_expired(now);
        }
        if let Some(full) = table.full(owner, octets, &self.limits) {
            drop(table);
            drop(gone);
            return Err(full);
        }
        table.octets += octets;
        let share = table.per_user.entry(owner.clone()).or_default();
        share.entries += 1;
        share.octets += octets;
        let life = match lifetime {
            Lifetime::Idle => self.limits.idle,
            Lifetime::Fixed(life) => life,
        };
        table.entries.insert(
            id,
            Entry {
                owner: owner.clone(),
                octets,
                lifetime,
                deadline: now.saturating_add(life),
                cursor: Some(Box::new(cursor)),
            },
        );
        drop(table);
        drop(gone);
        self.opened.notify_one();
        Ok(())
    }

    /// Waits until any is open. For one who sweeps.
    pub(super) async fn any(&self) {
        while self.len() == 0 {
            self.opened.notified().await;
        }
    }

    /// Takes the cursor of a context for one Pull; nobody else can until the [`Lease`] ends.
    ///
    /// # Errors
    /// [`Unusable`].
    pub(super) fn take(
        &self,
        id: WireId,
        user: &str,
        now: Duration,
    ) -> Result<(Lease<'_>, Box<Cursor>), Unusable> {
        let _gone = self.expire(id, user, now);
        let mut table = self.table();
        let entry = table.live(id, user)?;
        let cursor = entry.cursor.take().ok_or(Unusable::Busy)?;
        let lease = Lease {
            contexts: self,
            id,
            open: true,
        };
        Ok((lease, cursor))
    }

    /// Forgets a context, also one that a Pull works on: that Pull is its last.
    ///
    /// # Errors
    /// [`Unusable::Unknown`] and [`Unusable::NotYours`].
    pub(super) fn release(&self, id: WireId, user: &str, now: Duration) -> Result<(), Unusable> {
        let _expired = self.expire(id, user, now);
        let mut table = self.table();
        table.live(id, user)?;
        let gone = table.forget(id);
        drop(table);
        drop(gone);
        Ok(())
    }

    /// Forgets what has expired.
    pub(super) fn sweep(&self, now: Duration) {
        let gone = self.table().forget_expired(now);
        drop(gone);
    }

    /// Forgets the entry if it is the user's and has expired.
    fn expire(&self, id: WireId, user: &str, now: Duration) -> Gone {
        let mut table = self.table();
        let entry = table.entries.get(&id);
        match entry.is_some_and(|e| &*e.owner == user && e.expired(now)) {
            true => table.forget(id),
            false => Gone::default(),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Every change of the table is complete before anything in it can panic.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// What is full for one more entry of so many octets?
    fn full(&self, owner: &Arc<str>, octets: usize, limits: &ContextLimits) -> Option<Full> {
        let none = Share::default();
        let own = self.per_user.get(owner).unwrap_or(&none);
        let is_over = |sum: usize, limit| sum.saturating_add(octets) > limit;
        match () {
            () if self.entries.len() >= limits.total => Some(Full::Total),
            () if own.entries >= limits.per_user => Some(Full::User),
            () if is_over(own.octets, limits.octets_per_user) => Some(Full::OctetsOfUser),
            () if is_over(self.octets, limits.octets) => Some(Full::Octets),
            () => None,
        }
    }

    /// The entry, if it is the user's.
    fn live(&mut self, id: WireId, user: &str) -> Result<&mut Entry, Unusable> {
        let entry = self.entries.get_mut(&id).ok_or(Unusable::Unknown)?;
        match &*entry.owner == user {
            true => Ok(entry),
            false => Err(Unusable::NotYours),
        }
    }

    fn forget_expired(&mut self, now: Duration) -> Gone {
        let expired = self.entries.iter().filter(|(_, e)| e.expired(now));
        let expired: Vec<WireId> = expired.map(|(id, _)| *id).collect();
        Gone(
            expired
                .into_iter()
                .flat_map(|id| self.forget(id).take())
                .collect(),
        )
    }

    fn forget(&mut self, id: WireId) -> Gone {
        let Some(entry) = self.entries.remove(&id) else {
            return Gone::default();
        };
        self.octets -= entry.octets;
        if let Some(share) = self.per_user.get_mut(&entry.owner) {
            share.entries -= 1;
            share.octets -= entry.octets;
            if share.entries == 0 {
                self.per_user.remove(&entry.owner);
            }
        }
        Gone(vec![entry])
    }
}

/// What is no longer in the table. A filter, and a moment of everything that nobody else looks at any more, take a
/// while to be freed: that is done on another thread, and never under the lock of the table.
#[must_use]
#[derive(Debug, Default)]
struct Gone(Vec<Entry>);

impl Gone {
    fn take(mut self) -> Vec<Entry> {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Gone {
    fn drop(&mut self) {
        let entries = std::mem::take(&mut self.0);
        if !entries.is_empty()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn_blocking(move || drop(entries));
        }
    }
}

impl Entry {
    fn expired(&self, now: Duration) -> bool {
        self.cursor.is_some() && self.deadline <= now
    }
}

/// The right to pull one context. Dropped without [`Lease::give_back`], it closes the context.
#[derive(Debug)]
pub(super) struct Lease<'a> {
    contexts: &'a Contexts,
    id: WireId,
    open: bool,
}

impl Lease<'_> {
    /// Puts the cursor back for the next Pull. `false` if the context was released meanwhile.
    #[must_use]
    pub(super) fn give_back(mut self, cursor: Box<Cursor>, now: Duration) -> bool {
        let mut table = self.contexts.table();
        self.open = false;
        let Some(entry) = table.entries.get_mut(&self.id) else {
            return false;
        };
        entry.cursor = Some(cursor);
        if entry.lifetime == Lifetime::Idle {
            entry.deadline = now.saturating_add(self.contexts.limits.idle);
        }
        true
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if self.open {
            let gone = self.contexts.table().forget(self.id);
            drop(gone);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ContextLimits = ContextLimits {
        per_user: 2,
        total: 3,
        octets_per_user: 100,
        octets: 150,
        idle: Duration::from_secs(60),
        longest: Duration::from_secs(600),
    };

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn open(contexts: &Contexts, user: &str, now: u64) -> Result<WireId, Full> {
        let (id, now) = (WireId::random(), seconds(now));
        contexts
            .open(
                id,
                &Arc::from(user),
                (Cursor::empty(), 40),
                Lifetime::Idle,
                now,
            )
            .map(|()| id)
    }

    fn pull(contexts: &Contexts, id: WireId, user: &str, now: u64) -> Result<bool, Unusable> {
        let (lease, cursor) = contexts.take(id, user, seconds(now))?;
        Ok(lease.give_back(cursor, seconds(now)))
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_sweeps_while_nothing_is_open() {
        let contexts = Contexts::new(LIMITS);
        let mut any = std::pin::pin!(contexts.any());
        assert!(tokio::time::timeout(LIMITS.idle, &mut any).await.is_err());
        open(&contexts, "ann", 0).unwrap();
        assert!(tokio::time::timeout(LIMITS.idle, any).await.is_ok());
        contexts.any().await;
        contexts.sweep(LIMITS.idle);
        let again = tokio::time::timeout(LIMITS.idle, contexts.any()).await;
        assert!(again.is_err(), "it is forgotten");
    }

    #[test]
    fn e_10_each_user_and_all_together_have_a_limit() {
        let contexts = Contexts::new(LIMITS);
        let first = open(&contexts, "ann", 0).unwrap();
        open(&contexts, "ann", 0).unwrap();
        assert_eq!(open(&contexts, "ann", 0), Err(Full::User));
        open(&contexts, "bob", 0).unwrap();
        assert_eq!(open(&contexts, "bob", 0), Err(Full::Total));
        contexts.release(first, "ann", seconds(0)).unwrap();
        open(&contexts, "bob", 0).unwrap();
    }

    #[test]
    fn the_filters_of_each_user_and_of_all_together_have_a_length() {
        let limits = ContextLimits {
            per_user: 10,
            total: 10,
            ..LIMITS
        };
        let contexts = Contexts::new(limits);
        let first = open(&contexts, "ann", 0).unwrap();
        open(&contexts, "ann", 0).unwrap();
        assert_eq!(open(&contexts, "ann", 0), Err(Full::OctetsOfUser));
        open(&contexts, "bob", 0).unwrap();
        assert_eq!(open(&contexts, "bob", 0), Err(Full::Octets));
        contexts.release(first, "ann", seconds(0)).unwrap();
        open(&contexts, "ann", 0).unwrap();
        open(&contexts, "bob", 60).unwrap();
        assert_eq!(contexts.table().octets, 40, "the others have expired");
    }

    /// Items that say on which thread they are freed, and whether the table was free then.
    struct Watched(
        Arc<Contexts>,
        std::sync::mpsc::Sender<(std::thread::ThreadId, bool)>,
    );

    impl Iterator for Watched {
        type Item = Result<crate::operation::cursor::Item, crate::provider::Error>;

        fn next(&mut self) -> Option<Self::Item> {
            None
        }
    }

    impl Drop for Watched {
        #[expect(clippy::disallowed_methods, reason = "a bound for a test that fails")]
        fn drop(&mut self) {
            // Whoever takes it here for a moment lets it go again.
            let begun = std::time::Instant::now();
            let mut is_free = false;
            while !is_free && begun.elapsed() < Duration::from_secs(60) {
                std::thread::yield_now();
                is_free = self.0.table.try_lock().is_ok();
            }
            let _ = self.1.send((std::thread::current().id(), is_free));
        }
    }

    #[tokio::test]
    async fn what_is_forgotten_is_freed_elsewhere_and_not_under_the_lock() {
        let contexts = Arc::new(Contexts::new(LIMITS));
        let (freed, seen) = std::sync::mpsc::channel();
        let watched = |now| {
            let items = Watched(contexts.clone(), freed.clone());
            let Cursor { shape, pace, .. } = Cursor::empty();
            let cursor = Cursor::new(shape, pace, Box::new(items));
            let id = WireId::random();
            let owner = Arc::from("ann");
            let opened = contexts.open(id, &owner, (cursor, 0), Lifetime::Idle, seconds(now));
            opened.unwrap();
            id
        };
        let elsewhere = || {
            let (thread, is_free) = seen.recv().unwrap();
            assert!(is_free, "the table is locked");
            assert_ne!(thread, std::thread::current().id());
        };
        watched(0);
        contexts.sweep(seconds(60));
        elsewhere();
        let id = watched(60);
        contexts.release(id, "ann", seconds(60)).unwrap();
        elsewhere();
        let id = watched(60);
        assert_eq!(pull(&contexts, id, "ann", 120), Err(Unusable::Unknown));
        elsewhere();
        watched(120);
        watched(120);
        watched(180);
        elsewhere();
        elsewhere();
    }

    #[test]
    fn expired_contexts_make_room() {
        let contexts = Contexts::new(LIMITS);
        open(&contexts, "ann", 0).unwrap();
        open(&contexts, "ann", 0).unwrap();
        assert_eq!(open(&contexts, "ann", 59), Err(Full::User));
        open(&contexts, "ann", 60).unwrap();
        assert_eq!(contexts.len(), 1);
    }

    #[test]
    fn e_3_a_context_belongs_to_its_user() {
        let contexts = Contexts::new(LIMITS);
        let id = open(&contexts, "ann", 0).unwrap();
        assert_eq!(pull(&contexts, id, "bob", 0), Err(Unusable::NotYours));
        assert_eq!(
            contexts.release(id, "bob", seconds(0)),
            Err(Unusable::NotYours)
        );
        assert_eq!(pull(&contexts, id, "ann", 0), Ok(true));
    }

    #[test]
    fn q_7_every_pull_restarts_the_idle_limit() {
        let contexts = Contexts::new(LIMITS);
        let id = open(&contexts, "ann", 0).unwrap();
        assert_eq!(pull(&contexts, id, "ann", 59), Ok(true));
        assert_eq!(pull(&contexts, id, "ann", 118), Ok(true));
        assert_eq!(pull(&contexts, id, "ann", 178), Err(Unusable::Unknown));
        assert_eq!(contexts.len(), 0);
    }

    #[test]
    fn e_2_a_granted_expiry_is_not_prolonged_by_pulls() {
        let contexts = Contexts::new(LIMITS);
        let fixed = Lifetime::Fixed(seconds(100));
        let id = WireId::random();
        contexts
            .open(
                id,
                &Arc::from("ann"),
                (Cursor::empty(), 0),
                fixed,
                seconds(0),
            )
            .unwrap();
        assert_eq!(pull(&contexts, id, "ann", 99), Ok(true));
        assert_eq!(pull(&contexts, id, "ann", 100), Err(Unusable::Unknown));
    }

    #[test]
    fn a_second_pull_at_the_same_time_is_refused_and_harms_nothing() {
        let contexts = Contexts::new(LIMITS);
        let id = open(&contexts, "ann", 0).unwrap();
        let (lease, cursor) = contexts.take(id, "ann", seconds(0)).unwrap();
        assert_eq!(pull(&contexts, id, "ann", 0), Err(Unusable::Busy));
        contexts.sweep(seconds(1000));
        assert!(
            lease.give_back(cursor, seconds(1000)),
            "a working pull does not expire"
        );
        assert_eq!(pull(&contexts, id, "ann", 1001), Ok(true));
    }

    #[test]
    fn e_15_a_release_during_a_pull_is_honoured() {
        let contexts = Contexts::new(LIMITS);
        let id = open(&contexts, "ann", 0).unwrap();
        let (lease, cursor) = contexts.take(id, "ann", seconds(0)).unwrap();
        contexts.release(id, "ann", seconds(0)).unwrap();
        assert!(!lease.give_back(cursor, seconds(0)));
        assert_eq!(pull(&contexts, id, "ann", 0), Err(Unusable::Unknown));
    }

    #[test]
    fn a_lease_that_is_dropped_closes_the_context() {
        let contexts = Contexts::new(LIMITS);
        let id = open(&contexts, "ann", 0).unwrap();
        drop(contexts.take(id, "ann", seconds(0)).unwrap());
        assert_eq!(contexts.len(), 0);
        assert_eq!(
            open(&contexts, "ann", 0).map(|_| ()),
            Ok(()),
            "the quota is free again"
        );
    }

    #[test]
    fn the_sweep_forgets_what_nobody_pulls() {
        let contexts = Contexts::new(LIMITS);
        open(&contexts, "ann", 0).unwrap();
        open(&contexts, "bob", 30).unwrap();
        contexts.sweep(seconds(60));
        assert_eq!(contexts.len(), 1);
        contexts.sweep(seconds(90));
        assert_eq!(contexts.len(), 0);
    }
}
