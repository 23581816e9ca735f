//! `groupshot rescue`: what operations in flight left is brought to an end, and no listener is opened.

use std::path::Path;

use crate::config::Config;
use crate::snapshot::Recovered;

use super::frozen;
use super::parts::Parts;
use super::{StartError, library_dir, machines, raise_open_files, relocate, take_store};

/// Recovers as a start of the server does, but waits for the end of each operation that is at work. What cannot
/// be ended now stays for the next run, or start.
///
/// # Errors
/// [`StartError`]: a server runs, or a journal or the database needs somebody to look at it.
pub async fn rescue(data_dir: &Path, config: &Config) -> Result<Recovered, StartError> {
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
    recovered.map_err(|e| StartError::recovery(&data_dir, e))
}
