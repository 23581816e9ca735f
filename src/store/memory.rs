//! A store that forgets with the process: the same order and the same answers, for tests and trials.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use async_trait::async_trait;

use crate::inventory::Ended;

use super::{Change, Decision, Number, State, Store, StoreError};

/// Keeps its state in memory only.
#[derive(Debug, Default)]
pub struct MemoryStore {
    /// The newest state; read without waiting for the writer, so that a decision may read it too.
    state: ArcSwap<State>,
    /// The one writer, and what its next change is to fail with.
    writer: Mutex<Option<StoreError>>,
    history: Mutex<Vec<Ended>>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
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

#[async_trait]
impl Store for MemoryStore {
    fn state(&self) -> Arc<State> {
        self.state.load_full()
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
                let state = Arc::new(state.after(&changes));
                self.state.store(Arc::clone(&state));
                let ended = changes.into_iter().filter_map(|change| match change {
                    Change::Ended(ended) => Some(ended),
                    _ => None,
                });
                self.history().extend(ended);
                Ok(state)
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
