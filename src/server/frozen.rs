//! Keeps the files that snapshot sets hold frozen: a lock on each says to QEMU and its tools "no writer"
//! (`docs/cut.md` §5), from the commit that publishes a set for as long as the server runs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::engine::EngineError;
use crate::engine::failure::At;
use crate::engine::locks::FrozenFiles;
use crate::engine::sim;
use crate::snapshot::{Unanswered, answered};
use crate::store::feed::{Commits, News};
use crate::store::{Change, State, Store};

/// After this time files that could not be frozen are tried again.
const RETRY: Duration = Duration::from_secs(1);
/// So long after an operation has let a file go all are looked through again: it may have left the file as it was.
const RENEW: Duration = Duration::from_secs(5);

/// Follows the store until `stop`. What cannot be frozen is logged once, until sets change, and tried again.
pub(super) async fn follow(
    store: Arc<dyn Store>,
    frozen: Arc<FrozenFiles>,
    stop: CancellationToken,
) {
    let mut commits = store.subscribe();
    let mut quiet = false;
    loop {
        let seen = store.state().revision;
        let complete = told(renew(&store, &frozen).await, quiet);
        let due = stop.run_until_cancelled(due(&mut commits, seen, again(&frozen, complete)));
        quiet = match due.await.flatten() {
            Some(Due::Changed) => false,
            Some(Due::Again) => true,
            None => return,
        };
    }
}

/// Why the files are frozen anew.
enum Due {
    /// Sets have changed.
    Changed,
    /// It is time for another look.
    Again,
}

/// Waits until a renewal is due that no commit asks for; forever if all is frozen and nothing is let go.
async fn again(frozen: &FrozenFiles, complete: bool) {
    if complete {
        frozen.let_go().await;
        tokio::time::sleep(RENEW).await;
    } else {
        tokio::time::sleep(RETRY).await;
    }
}

/// Waits for the next commit after revision `seen` that changes sets, or until `again`; none once the store is gone.
async fn due(commits: &mut Commits, seen: u64, again: impl Future<Output = ()>) -> Option<Due> {
    let changed = async {
        loop {
            match commits.next().await? {
                News::Commit(commit) if commit.state.revision <= seen => {}
                News::Commit(commit) if !commit.changes.iter().any(is_of_set) => {}
                News::Commit(_) | News::Missed => return Some(Due::Changed),
            }
        }
    };
    tokio::select! {
        due = changed => due,
        () = again => Some(Due::Again),
    }
}

fn is_of_set(change: &Change) -> bool {
    matches!(change, Change::PutSet(_) | Change::RemoveSet(_))
}

/// Logs what could not be frozen, unless that was said before. Whether all of it is frozen.
fn told(renewed: Result<Vec<EngineError>, Unanswered>, quiet: bool) -> bool {
    match renewed {
        Ok(errors) => {
            for error in errors.iter().filter(|_| !quiet) {
                tracing::warn!(%error, "Cannot freeze a file that a snapshot set holds");
            }
            errors.is_empty()
        }
        Err(Unanswered::Silent(file)) => {
            // The next renewal passes it by.
            let file = file.display();
            tracing::warn!(%file, "Not all files that snapshot sets hold are frozen: this one does not answer");
            false
        }
        Err(Unanswered::Panicked(error)) => {
            tracing::error!(%error, "Freezing the files of snapshot sets panicked");
            false
        }
    }
}

/// Freezes what sets hold now. It is no longer waited for once it stands at a file that does not answer.
pub(super) async fn renew(
    store: &Arc<dyn Store>,
    frozen: &Arc<FrozenFiles>,
) -> Result<Vec<EngineError>, Unanswered> {
    let (store, frozen) = (Arc::clone(store), Arc::clone(frozen));
    answered(move || frozen.renew(|| files(&store.state()))).await
}

/// Every file that a set holds and that really exists: not those of the simulation.
pub(super) fn files(state: &State) -> BTreeMap<PathBuf, At> {
    let members = state.sets.values().flat_map(|set| &set.members);
    let disks = members.flat_map(|m| m.disks.iter().map(move |d| (m, d)));
    disks
        .filter(|(_, disk)| disk.driver != sim::NAME)
        .map(|(member, disk)| (disk.file.clone(), At::new(&member.machine_name, &disk.id)))
        .collect()
}

#[cfg(test)]
mod tests {
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::id::{CollectionId, JobId, SetId};
    use crate::store::memory::MemoryStore;

    const HOUR: Duration = Duration::from_secs(3600);

    async fn commit(store: &MemoryStore, change: Change) {
        store.transact(Box::new(|_| vec![change])).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn sets_that_change_are_due_at_once_and_nothing_else_is() {
        let (store, frozen) = (MemoryStore::new(), FrozenFiles::default());
        let mut commits = store.subscribe();
        commit(&store, Change::RemoveSet(SetId::random())).await;
        let seen = store.state().revision;
        commit(&store, Change::RemoveCollection(CollectionId::random())).await;
        let quiet = timeout(HOUR, due(&mut commits, seen, again(&frozen, true))).await;
        assert!(quiet.is_err(), "no set has changed since");
        commit(&store, Change::RemoveSet(SetId::random())).await;
        let due = due(&mut commits, seen, again(&frozen, true)).await;
        assert!(matches!(due, Some(Due::Changed)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_frozen_is_due_again_after_a_second_whatever_else_is_committed() {
        let store = Arc::new(MemoryStore::new());
        let frozen = FrozenFiles::default();
        let mut commits = store.subscribe();
        let other = Arc::clone(&store);
        let busy = tokio::spawn(async move {
            loop {
                commit(&other, Change::RemoveCollection(CollectionId::random())).await;
                sleep(RETRY / 10).await;
            }
        });
        let due = timeout(2 * RETRY, due(&mut commits, 0, again(&frozen, false))).await;
        busy.abort();
        assert!(matches!(due, Ok(Some(Due::Again))));
    }

    #[tokio::test]
    async fn a_renewal_that_panicked_is_not_complete() {
        let panicked = tokio::spawn(async { panic!("on order") })
            .await
            .unwrap_err();
        assert!(!told(Err(Unanswered::Panicked(panicked)), false));
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_operation_has_let_go_is_looked_at_again_without_a_commit() {
        let (store, frozen) = (MemoryStore::new(), FrozenFiles::default());
        let mut commits = store.subscribe();
        frozen.release([]);
        let again = again(&frozen, true);
        let due = timeout(2 * RENEW, due(&mut commits, 0, again)).await;
        assert!(matches!(due, Ok(Some(Due::Again))));
    }

    #[tokio::test(start_paused = true)]
    async fn who_follows_too_slowly_looks_at_the_state_instead() {
        let (store, frozen) = (MemoryStore::new(), FrozenFiles::default());
        let mut commits = store.subscribe();
        commit(&store, Change::RemoveSet(SetId::random())).await;
        // Many more than wait for one subscriber; none of them was held up.
        for _ in 0..1000 {
            commit(&store, Change::RemoveJob(JobId::random())).await;
        }
        let due = timeout(HOUR, due(&mut commits, 0, again(&frozen, true))).await;
        assert!(matches!(due, Ok(Some(Due::Changed))));
    }
}
