//! `groupshot rescue`: what operations in flight left is brought to an end, and no listener is opened.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::config::Config;
use crate::engine::Compute;
use crate::inventory::RunState;
use crate::snapshot::Recovered;

use super::frozen;
use super::parts::Parts;
use super::{StartError, library_dir, machines, raise_open_files, relocate, take_store};

/// What a rescue has done.
#[derive(Debug)]
pub struct Rescued {
    /// What became of each operation.
    pub recovered: Recovered,
    /// What their machines do now, by name.
    pub states: BTreeMap<String, RunState>,
}

impl Rescued {
    /// The machines that these operations may have stopped, and of which nobody knows what they do now.
    #[must_use]
    pub fn unknown(&self) -> Vec<&str> {
        let found = &self.recovered;
        let stuck = found.stuck.iter().map(|it| &it.operation);
        let all = found.finished.iter().chain(&found.undone).chain(stuck);
        let stopped = all.filter(|it| it.stops).flat_map(|it| &it.machines);
        let names = stopped.map(String::as_str);
        let unknown = names.filter(|name| !self.states.contains_key(*name));
        unknown.collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// Recovers as a start of the server does, but waits for the end of each operation that is at work. What cannot
/// be ended now stays for the next run, or start.
///
/// # Errors
/// [`StartError`]: a server runs, or a journal or the database needs somebody to look at it.
pub async fn rescue(data_dir: &Path, config: &Config) -> Result<Rescued, StartError> {
    raise_open_files();
    let data_dir = library_dir(data_dir)?;
    let store = take_store(&data_dir)?;
    relocate::writable(&data_dir)?;
    machines::require_unmoved(&data_dir)?;
    let parts = Parts::open(&data_dir, config, store)?;
    relocate::in_place(&parts, &data_dir).await?;
    // What cannot be closed to writers now is closed by the next server.
    let _later = frozen::renew(&parts.store, &parts.frozen).await;
    let recovered = parts.coordinator.rescue().await;
    parts.coordinator.close();
    let recovered = recovered.map_err(|e| StartError::recovery(&data_dir, e))?;
    let stuck = recovered.stuck.iter().map(|stuck| &stuck.operation);
    let all = recovered.finished.iter().chain(&recovered.undone);
    let names = all.chain(stuck).flat_map(|it| it.machines.clone());
    let names: Vec<_> = names.collect();
    let looking = tokio::task::spawn_blocking(move || states(&*parts.compute, names));
    let states = looking.await.map_err(StartError::failed)?;
    Ok(Rescued { recovered, states })
}

/// What these machines do now. Blocks.
fn states(compute: &dyn Compute, names: Vec<String>) -> BTreeMap<String, RunState> {
    let machines = compute.machines();
    let states = names.into_iter().filter_map(|name| {
        let machine = machines.values().find(|it| it.name == name)?;
        Some((name, compute.state(machine.id)))
    });
    states.collect()
}
