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
use crate::store::State;
use crate::store::Store;

/// How often a new revision of the store is looked for.
const TICK: Duration = Duration::from_millis(200);
/// After so many ticks files that could not be frozen are tried again.
const RETRY: u32 = 5;

/// Follows the store until `stop`. What cannot be frozen is logged once a revision and tried again.
pub(super) async fn follow(
    store: Arc<dyn Store>,
    frozen: Arc<FrozenFiles>,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(TICK);
    let (mut seen, mut idle, mut complete) = (None, 0, true);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let state = store.state();
        idle += 1;
        if seen == Some(state.revision) && (complete || idle < RETRY) {
            continue;
        }
        let quiet = seen == Some(state.revision);
        (seen, idle) = (Some(state.revision), 0);
        complete = match renew(&store, &frozen).await {
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
                true
            }
        };
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
