//! What the files of sets take on their file systems.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::held;
use crate::store::State;

/// The space that the files of sets took when they were looked at last, in bytes, shared ones included.
#[derive(Debug, Default)]
pub(crate) struct Spaces(Mutex<BTreeMap<PathBuf, u64>>);

impl Spaces {
    /// Takes note of a file.
    pub(crate) fn note(&self, file: &Path, meta: &fs::Metadata) {
        const BLOCK: u64 = 512;
        let bytes = meta.blocks().saturating_mul(BLOCK);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(file) {
            Some(known) => *known = bytes,
            None => drop(all.insert(file.to_owned(), bytes)),
        }
    }

    /// A file that does not answer takes what it took; of one that is not there nothing is said.
    pub(crate) fn lose(&self, file: &Path, error: &io::Error) {
        if !held::is_silence(error) {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.remove(file);
        }
    }

    pub(crate) fn of(&self, file: &Path) -> Option<u64> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(file).copied()
    }

    /// Forgets what no set names.
    pub(crate) fn keep(&self, state: &State) {
        let members = state.sets.values().flat_map(|set| &set.members);
        let disks = members.flat_map(|member| &member.disks);
        let named: BTreeSet<_> = disks.flat_map(|d| &d.sealed).map(|s| &s.file).collect();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|file, _| named.contains(file));
    }
}
