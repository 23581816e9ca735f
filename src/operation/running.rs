//! Requests under way, so that no user has more of them than allowed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The requests of each user.
#[derive(Debug, Default)]
pub(super) struct Running(Mutex<BTreeMap<Arc<str>, usize>>);

/// One of them, until dropped.
#[derive(Debug)]
pub(super) struct Turn {
    running: Arc<Running>,
    user: Arc<str>,
}

impl Running {
    /// Begins one. `None`: the user has as many as `limit` under way.
    pub(super) fn begin(self: &Arc<Self>, user: &Arc<str>, limit: Option<usize>) -> Option<Turn> {
        let mut users = self.get();
        let count = users.entry(Arc::clone(user)).or_default();
        // At least one is there if the limit is reached: it is its end that takes the entry away.
        if limit.is_some_and(|limit| *count >= limit.max(1)) {
            return None;
        }
        *count += 1;
        Some(Turn {
            running: Arc::clone(self),
            user: Arc::clone(user),
        })
    }

    /// Of all users.
    pub(super) fn all(&self) -> usize {
        self.get().values().sum()
    }

    fn get(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut users = self.running.get();
        if let Some(count) = users.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                users.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_22_each_user_has_its_own_count_and_nothing_is_kept_of_the_past() {
        let running = Arc::new(Running::default());
        let (ann, bob): (Arc<str>, Arc<str>) = ("ann".into(), "bob".into());
        let first = running.begin(&ann, Some(2));
        let second = running.begin(&ann, Some(2));
        assert!(first.is_some() && second.is_some());
        assert!(running.begin(&ann, Some(2)).is_none());
        assert!(running.begin(&bob, Some(2)).is_some());
        assert!(running.begin(&ann, None).is_some());
        drop(first);
        assert!(running.begin(&ann, Some(2)).is_some());
        drop(second);
        assert!(running.get().is_empty());
    }
}
