//! The newest state, and the feed of the commits that led to it.
//!
//! Readers take the whole state. Code that has to act on changes subscribes: each commit comes once, in order, after it is
//! durable and published, with the state after it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::{Change, State};

/// How many commits wait for a subscriber. One that falls further behind is told that it missed some.
const BACKLOG: usize = 256;

/// What one commit changed. It holds the transactions that shared the commit.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The state after it.
    pub state: Arc<State>,
    /// Its changes, in order.
    pub changes: Arc<[Change]>,
}

/// What a subscriber hears.
#[derive(Debug, Clone)]
pub enum News {
    /// The next commit.
    Commit(Commit),
    /// More came than wait for one subscriber: what changed is seen only in the state.
    Missed,
}

/// One subscriber's end of the feed.
#[derive(Debug)]
pub struct Commits(broadcast::Receiver<Commit>);

impl Commits {
    /// The next commit; none once the store is gone. Loses nothing when it is dropped before it has ended.
    pub async fn next(&mut self) -> Option<News> {
        match self.0.recv().await {
            Ok(commit) => Some(News::Commit(commit)),
            Err(RecvError::Lagged(_)) => Some(News::Missed),
            Err(RecvError::Closed) => None,
        }
    }
}

/// What a store publishes.
#[derive(Debug)]
pub(super) struct Feed {
    state: ArcSwap<State>,
    commits: broadcast::Sender<Commit>,
}

impl Feed {
    pub(super) fn new(state: State) -> Self {
        Self {
            state: ArcSwap::from_pointee(state),
            commits: broadcast::Sender::new(BACKLOG),
        }
    }

    /// The newest state; waits for nobody.
    pub(super) fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// Commits from now on.
    pub(super) fn subscribe(&self) -> Commits {
        Commits(self.commits.subscribe())
    }

    /// Makes a durable commit known: first as the state, then to subscribers.
    pub(super) fn publish(&self, state: State, changes: Vec<Change>) -> Arc<State> {
        let state = Arc::new(state);
        self.state.store(Arc::clone(&state));
        // Nobody may listen.
        let _ = self.commits.send(Commit {
            state: Arc::clone(&state),
            changes: changes.into(),
        });
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::JobId;

    fn after(revision: u64) -> State {
        State {
            revision,
            ..State::default()
        }
    }

    #[tokio::test]
    async fn each_commit_comes_once_in_order_with_the_state_after_it() {
        let feed = Feed::new(after(0));
        let mut commits = feed.subscribe();
        for revision in 1..=3 {
            feed.publish(after(revision), vec![Change::RemoveJob(JobId::random())]);
        }
        for revision in 1..=3 {
            let Some(News::Commit(commit)) = commits.next().await else {
                panic!("no commit {revision}");
            };
            assert_eq!((commit.state.revision, commit.changes.len()), (revision, 1));
        }
        drop(feed);
        assert!(commits.next().await.is_none());
    }

    #[tokio::test]
    async fn a_subscriber_that_falls_behind_is_told_so_and_goes_on() {
        let feed = Feed::new(after(0));
        let mut commits = feed.subscribe();
        let most = u64::try_from(BACKLOG).unwrap();
        for revision in 1..=most + 1 {
            feed.publish(after(revision), Vec::new());
        }
        assert!(matches!(commits.next().await, Some(News::Missed)));
        let Some(News::Commit(next)) = commits.next().await else {
            panic!("nothing after the gap");
        };
        assert_eq!(next.state.revision, 2);
        assert_eq!(feed.state().revision, most + 1);
    }
}
