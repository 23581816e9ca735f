//! What is done once a second: ends that wait, coarse progress into the store, removal of old jobs.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::inventory::Job;
use crate::store::{Change, State, StoreError};

use super::{Inner, Jobs};

/// Time between two sweeps.
const PERIOD: Duration = Duration::from_secs(1);

/// Time between two words about sweeps that go on failing.
const AGAIN: Duration = Duration::from_secs(60);

/// Progress is stored when it has gone on by this many percent.
const COARSE: u8 = 10;

impl Jobs {
    /// Sweeps once a second until `stop`. What fails is logged and tried again.
    pub async fn run(&self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut trouble = Trouble::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let swept = self.sweep().await;
            trouble.tell(swept.err(), self.inner.clock.elapsed());
        }
    }

    /// Writes ends that wait, stores progress that has gone on by ten percent, removes jobs whose time is
    /// over. Commits nothing if there is nothing to do.
    ///
    /// # Errors
    /// [`StoreError`]; the rest is left to the next sweep.
    pub async fn sweep(&self) -> Result<(), StoreError> {
        self.inner.end_waiting().await?;
        let inner = Arc::clone(&self.inner);
        if inner.due(&inner.store.state()).is_empty() {
            return Ok(());
        }
        let decide = move |state: &State| inner.due(state);
        self.inner.store.transact(Box::new(decide)).await?;
        Ok(())
    }
}

/// Sweeps that fail one after the other: told when they begin to, once a minute, and when they do no more.
#[derive(Default)]
struct Trouble {
    /// When it was told last.
    told: Option<Duration>,
}

impl Trouble {
    /// What is told of a sweep that ended so at this moment.
    fn says(&mut self, failed: bool, now: Duration) -> Says {
        match (failed, self.told) {
            (true, Some(told)) if now.saturating_sub(told) < AGAIN => Says::Nothing,
            (true, _) => {
                self.told = Some(now);
                Says::Trouble
            }
            (false, Some(_)) => {
                self.told = None;
                Says::Well
            }
            (false, None) => Says::Nothing,
        }
    }

    fn tell(&mut self, error: Option<StoreError>, now: Duration) {
        match (self.says(error.is_some(), now), error) {
            (Says::Trouble, Some(error)) => {
                tracing::warn!(%error, "How jobs stand cannot be recorded; it is tried again every second");
            }
            (Says::Well, _) => tracing::info!("How jobs stand is recorded again"),
            _ => {}
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Says {
    Nothing,
    Trouble,
    Well,
}

impl Inner {
    /// What a sweep has to change in `state`.
    fn due(&self, state: &State) -> Vec<Change> {
        let keep = SignedDuration::try_from(self.keep).unwrap_or(SignedDuration::MAX);
        let now = self.clock.now();
        let live = self.all_live().clone();
        let mut changes = Vec::new();
        for job in state.jobs.values() {
            if job.state.is_terminal() {
                if now.duration_since(job.changed) >= keep {
                    changes.push(Change::RemoveJob(job.id));
                }
            } else if let Some(live) = live.get(&job.id) {
                let mut shown = Job::clone(job);
                live.show(&mut shown);
                if shown.percent >= job.percent.saturating_add(COARSE) {
                    // Only a cancel that is durable already may stand in the record.
                    shown.cancel.clone_from(&job.cancel);
                    changes.push(Change::PutJob(shown));
                }
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_told_at_its_begin_once_a_minute_and_at_its_end() {
        let mut trouble = Trouble::default();
        let at = Duration::from_secs;
        for (second, failed, says) in [
            (0, false, Says::Nothing),
            (1, true, Says::Trouble),
            (2, true, Says::Nothing),
            (60, true, Says::Nothing),
            (61, true, Says::Trouble),
            (62, false, Says::Well),
            (63, false, Says::Nothing),
            (64, true, Says::Trouble),
        ] {
            assert_eq!(trouble.says(failed, at(second)), says, "{second}");
        }
    }
}
