//! Sets of which nothing is left but their folder: neither the database nor a record knows them. What such a set kept
//! is not known, so nothing of its machines is merged, removed or moved before the operator gives it up.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::held;
use crate::id::{SetId, VmId};
use crate::snapshot::copies::COPY;
use crate::snapshot::saga::core::Core;
use crate::snapshot::saga::journals;
use crate::snapshot::saga::story::Kinds;
use crate::store::record::{self, SETS};

/// The folder of such a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forgotten {
    /// The set.
    pub set: SetId,
    /// Its folder.
    pub folder: PathBuf,
    /// The machines that it held: those with a copy of their definition.
    pub machines: BTreeSet<VmId>,
    /// These copies. A set is given up by moving them away.
    pub definitions: Vec<PathBuf>,
}

impl Forgotten {
    /// In one line what it is and what to do.
    #[must_use]
    pub fn told(&self, data_dir: &Path) -> String {
        let machines: Vec<_> = self.machines.iter().map(ToString::to_string).collect();
        let copies = self.definitions.iter().map(|f| f.display().to_string());
        format!(
            "files of a snapshot set that neither the database nor a record knows; machines: {}; what the set kept is not known, so nothing of these machines is merged, removed or moved into orphans/: put its record ({}) back from a backup and run `groupshot doctor --rebuild --data-dir {}`; or, to give the set up, move away {}, but not the folder, in which there may be active files",
            machines.join(", "),
            record::FILE,
            data_dir.display(),
            copies.collect::<Vec<_>>().join(", ")
        )
    }
}

/// The forgotten sets below the data directory of these parts. Blocks.
///
/// # Errors
/// A folder or a journal cannot be read.
pub(crate) fn of(core: &Core) -> io::Result<Vec<Forgotten>> {
    let store = &core.deps.store;
    find(&core.deps.data_dir, core.kinds, |id| {
        store.state().sets.contains_key(&id)
    })
}

/// The forgotten sets below a data directory whose database holds those that `is_stored` tells. Blocks.
///
/// # Errors
/// A folder or a journal cannot be read.
pub(crate) fn find(
    data_dir: &Path,
    kinds: Kinds,
    is_stored: impl Fn(SetId) -> bool,
) -> io::Result<Vec<Forgotten>> {
    let mut found = Vec::new();
    for (name, folder) in folders(&data_dir.join(SETS))? {
        if let Some(set) = id::<SetId>(&name)
            && !is_stored(set)
        {
            let (mut machines, mut definitions) = (BTreeSet::new(), Vec::new());
            for (name, folder) in folders(&folder)? {
                let copy = folder.join(COPY);
                if let Some(machine) = id::<VmId>(&name)
                    && held::symlink_metadata(&copy).is_ok()
                {
                    machines.insert(machine);
                    definitions.push(copy);
                }
            }
            definitions.sort();
            found.push(Forgotten {
                set,
                folder,
                machines,
                definitions,
            });
        }
    }
    found.retain(|set| !set.machines.is_empty());
    if found.is_empty() {
        return Ok(found);
    }
    // Whoever was making or destroying such a set has its journal still, or has ended since.
    let busy = journals::in_flight(data_dir, kinds)?;
    let is_there = |copy: &PathBuf| held::symlink_metadata(copy).is_ok();
    found.retain(|it| !busy.sets.contains(&it.set) && !is_stored(it.set));
    let mut forgotten = Vec::new();
    for it in found {
        if !record::is_there(data_dir, it.set)? && it.definitions.iter().any(is_there) {
            forgotten.push(it);
        }
    }
    forgotten.sort_by_key(|it| it.set);
    Ok(forgotten)
}

/// The id that a folder has as its name.
fn id<T: std::str::FromStr + ToString>(name: &str) -> Option<T> {
    let id: T = name.parse().ok()?;
    (id.to_string() == name).then_some(id)
}

/// What lies in a folder, with the names.
fn folders(folder: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let entries = match fs::read_dir(folder) {
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        entries => {
            entries.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", folder.display())))?
        }
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}
