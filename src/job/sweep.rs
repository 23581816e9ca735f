//! What is done once a second while jobs run: ends that wait, coarse progress into the store. The removal of old jobs, when
//! the time of one is over.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;

use crate::inventory::Job;
use crate::store::feed::News;
use crate::store::{Change, State, StoreError};

use super::{Inner, Jobs};

/// Time between two sweeps as long as a job runs, or one fails.
const PERIOD: Duration = Duration::from_secs(1);

/// The longest time between two sweeps as long as there are jobs: the wall clock may be set.
const LONGEST: Duration = Duration::from_secs(60);

/// Time between two words about sweeps that go on failing.
const AGAIN: Duration = Duration::from_secs(60);

/// Progress is stored when it has gone on by this many percent.
const COARSE: u8 = 10;

impl Jobs {
    /// Sweeps whenever there is something to do, until `stop`. What fails is logged and tried again.
    pub async fn run(&self, stop: CancellationToken) {
        let mut trouble = Trouble::default();
        loop {
            let swept = self.sweep().await;
            trouble.tell(swept.err(), self.inner.clock.elapsed());
            let due = stop.run_until_cancelled(self.inner.swept_again());
            if due.await.is_none() {
                return;
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

/// When there may be something to sweep again.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// After this time: a job runs.
    After(Duration),
    /// After this time, unless a job begins.
    Until(Duration),
    /// When there is a job.
    Never,
}

impl Inner {
    /// Waits until there may be something to sweep.
    async fn swept_again(&self) {
        // Before the state is read: what is committed after that wakes it.
        let mut commits = self.store.subscribe();
        let next = self.next(&self.store.state());
        let pause = match next {
            Next::After(pause) => {
                drop(commits); // it is not followed meanwhile
                return tokio::time::sleep(pause).await;
            }
            Next::Until(pause) => Some(pause),
            Next::Never => None,
        };
        let wakes = |change: &Change| match change {
            Change::PutJob(job) => pause.is_none() || !job.state.is_terminal(),
            _ => false,
        };
        let begun = async {
            while let Some(News::Commit(commit)) = commits.next().await {
                if commit.changes.iter().any(wakes) {
                    break;
                }
            }
        };
        match pause {
            Some(pause) => drop(tokio::time::timeout(pause, begun).await),
            None => begun.await,
        }
    }

    fn next(&self, state: &State) -> Next {
        let mut first: Option<Duration> = None;
        let now = self.clock.now();
        for job in state.jobs.values() {
            if !job.state.is_terminal() {
                return Next::After(PERIOD);
            }
            let kept = Duration::try_from(now.duration_since(job.changed)).unwrap_or_default();
            let left = self.keep.saturating_sub(kept);
            first = Some(first.map_or(left, |first| first.min(left)));
        }
        first.map_or(Next::Never, |left| Next::Until(left.clamp(PERIOD, LONGEST)))
    }

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
    use jiff::Timestamp;
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::clock::ManualClock;
    use crate::id::JobId;
    use crate::inventory::JobState;
    use crate::job::KEEP_MIN;
    use crate::job::tests::record;
    use crate::store::Store;
    use crate::store::memory::MemoryStore;

    const HOUR: Duration = Duration::from_secs(3600);

    async fn put(store: &MemoryStore, state: JobState) -> JobId {
        let job = record(state);
        let id = job.id;
        let change = vec![Change::PutJob(job)];
        store.transact(Box::new(|_| change)).await.unwrap();
        id
    }

    #[tokio::test(start_paused = true)]
    async fn a_sweep_comes_every_second_while_a_job_runs_and_else_when_one_is_to_go() {
        let store = Arc::new(MemoryStore::new());
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let jobs = Jobs::new(store.clone(), clock.clone(), Duration::ZERO);
        let waits = async || {
            let began = Instant::now();
            let swept = timeout(HOUR, jobs.inner.swept_again()).await;
            swept.is_ok().then(|| began.elapsed())
        };
        assert_eq!(waits().await, None, "there is no job");
        let ended = put(&store, JobState::Completed).await;
        assert_eq!(waits().await, Some(LONGEST));
        clock.advance(KEEP_MIN - 2 * PERIOD);
        assert_eq!(waits().await, Some(2 * PERIOD), "one is to go");
        put(&store, JobState::Running).await;
        assert_eq!(waits().await, Some(PERIOD));
        clock.advance(HOUR);
        jobs.sweep().await.unwrap();
        assert!(!store.state().jobs.contains_key(&ended));
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_begins_ends_the_rest() {
        for before in [None, Some(JobState::Completed)] {
            let store = Arc::new(MemoryStore::new());
            let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
            let jobs = Jobs::new(store.clone(), clock, Duration::ZERO);
            if let Some(state) = before {
                put(&store, state).await;
            }
            let mut rest = std::pin::pin!(jobs.inner.swept_again());
            assert!(timeout(PERIOD, &mut rest).await.is_err());
            put(&store, JobState::Running).await;
            assert!(timeout(PERIOD, rest).await.is_ok(), "{before:?}");
        }
    }

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
