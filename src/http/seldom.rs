//! Log lines that a client can cause as often as it likes are written seldom, with a count.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// From one line to the next.
const PAUSE: Duration = Duration::from_secs(10);

/// A line of its own for each status that is told to clients.
#[derive(Debug, Default)]
pub(super) struct ByStatus(Mutex<BTreeMap<u16, Arc<Seldom>>>);

impl ByStatus {
    /// As [`Seldom::happened`], for this status alone. There are few.
    pub(super) fn happened(&self, status: u16) -> Option<u64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let one = Arc::clone(all.entry(status).or_default());
        drop(all);
        one.happened()
    }
}

/// One kind of line.
#[derive(Debug, Default)]
pub(super) struct Seldom(Mutex<(Option<Instant>, u64)>);

impl Seldom {
    /// Is it time for a line? Then how often this has happened since the last one, this time included.
    pub(super) fn happened(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, times) = &mut *state;
        *times += 1;
        if last.is_some_and(|last| last.elapsed() < PAUSE) {
            return None;
        }
        *last = Some(Instant::now());
        Some(std::mem::take(times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_thousand_are_one_line_and_the_next_one_counts_them() {
        let seldom = Seldom::default();
        let said: Vec<_> = (0..1000).filter_map(|_| seldom.happened()).collect();
        assert_eq!(said, [1]);
        tokio::time::advance(PAUSE).await;
        assert_eq!(seldom.happened(), Some(1000));
        assert_eq!(seldom.happened(), None);
    }
}
