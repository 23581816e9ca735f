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

/// Progress is stored when it has gone on by this many percent.
const COARSE: u8 = 10;

impl Jobs {
    /// Sweeps once a second until `stop`. What fails is logged and tried again.
    pub async fn run(&self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if let Err(error) = self.sweep().await {
                tracing::warn!(%error, "jobs: sweep");
            }
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
