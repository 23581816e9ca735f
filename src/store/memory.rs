//! A store that forgets with the process: the same order and the same answers, for tests and trials.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use crate::inventory::Ended;

use super::feed::{Commits, Feed};
use super::{Change, Decision, Number, State, Store, StoreError};

/// Keeps its state in memory only.
#[derive(Debug)]
pub struct MemoryStore {
    /// Read without waiting for the writer, so that a decision may read it too.
    feed: Feed,
    /// The one writer, and what its next change is to fail with.
    writer: Mutex<Option<StoreError>>,
    history: Mutex<Vec<Ended>>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self {
            feed: Feed::new(State::default()),
            writer: Mutex::default(),
            history: Mutex::default(),
        }
    }

    /// Lets the next transaction that would change something fail with `error`; after
    /// [`StoreError::Broken`] all later ones fail too.
    pub fn fail_next(&self, error: StoreError) {
        *self.lock() = Some(error);
    }

    fn history(&self) -> std::sync::MutexGuard<'_, Vec<Ended>> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<StoreError>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn state(&self) -> Arc<State> {
        self.feed.state()
    }

    fn subscribe(&self) -> Commits {
        self.feed.subscribe()
    }

    async fn transact(&self, decide: Decision) -> Result<Arc<State>, StoreError> {
        let mut fail_next = self.lock();
        let state = self.state();
        let changes = decide(&state);
        if changes.is_empty() {
            return Ok(state);
        }
        match fail_next.take() {
            None => {
                let ended = changes.iter().filter_map(|change| match change {
                    Change::Ended(ended) => Some(ended.clone()),
                    _ => None,
                });
                self.history().extend(ended);
                Ok(self.feed.publish(state.after(&changes), changes))
            }
            Some(error) => {
                if matches!(error, StoreError::Broken(_)) {
                    *fail_next = Some(error.clone());
                }
                Err(error)
            }
        }
    }

    async fn history(&self, before: Option<Number>) -> Result<Vec<(Number, Ended)>, StoreError> {
        let history = self.history();
        let numbered = (1..).zip(history.iter().cloned());
        let wanted =
            numbered.take_while(|(number, _)| before.is_none_or(|before| *number < before));
        let mut page: Vec<_> = wanted.collect();
        page.reverse();
        Ok(page)
    }
}
