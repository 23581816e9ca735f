//! Names of a copied or moved data directory that still lead into another one, or to what the original names too.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::engine::relocate::{Moves, Survey};
use crate::held;
use crate::id::SetId;
use crate::inventory::{Leftover, Snapshot, SnapshotDisk, SnapshotSet};
use crate::store::State;

use super::identity::Binding;

/// A data directory that is not bound where it is, as it will be once these folders count as moved.
pub(super) struct Place<'a> {
    pub(super) data_dir: &'a Path,
    pub(super) binding: Option<&'a Binding>,
    pub(super) moves: &'a Moves,
    /// Whether the operator's definitions will name the new places too.
    pub(super) definitions: bool,
}

impl Place<'_> {
    /// The names that lead into another data directory, or to what the original names too: whoever merges there takes
    /// it from the other.
    pub(super) fn astray(
        &self,
        state: &State,
        survey: &Survey,
        journaled: &BTreeSet<PathBuf>,
    ) -> Vec<String> {
        let mut all: BTreeMap<PathBuf, String> = survey.files.clone();
        for file in journaled {
            let whose = "an operation in flight".to_owned();
            all.entry(file.clone()).or_insert(whose);
        }
        for member in state.sets.values().flat_map(|set| &set.members) {
            let file = self.moves.or_same(&member.definition);
            let whose = format!("the definition of machine {}", member.machine_name);
            all.entry(file).or_insert(whose);
        }
        for left in state.leftovers.values() {
            let whose = format!("machine {}, disk {}", left.machine_name, left.disk);
            all.entry(self.moves.or_same(&left.file)).or_insert(whose);
        }
        let mut found: BTreeMap<PathBuf, Vec<(&PathBuf, &String)>> = BTreeMap::new();
        for (file, whose) in &all {
            if let Some(other) = self.elsewhere(file) {
                found.entry(other).or_default().push((file, whose));
            }
        }
        let here = self.data_dir.display();
        let told = found.iter().filter_map(|(other, files)| {
            let (file, whose) = files.first()?;
            let (other, file) = (other.display(), file.display());
            Some(format!(
                "{} of its paths lead into the data directory {other}, as {file} ({whose}): `groupshot relocate --data-dir {here} --from {other} --apply` makes them lead into this one, and binds it",
                files.len()
            ))
        });
        let mut told: Vec<_> = told.collect();
        told.extend(self.shared(state, survey));
        told
    }

    /// Another data directory, if the file is one of its own.
    pub(super) fn elsewhere(&self, file: &Path) -> Option<PathBuf> {
        let real = file.parent().and_then(|f| held::canonicalize(f).ok());
        if real.is_some_and(|real| real.starts_with(self.data_dir)) {
            return None;
        }
        let is_id = |name: Option<&std::ffi::OsStr>| {
            name.and_then(|n| n.to_str())
                .is_some_and(|n| n.parse::<SetId>().is_ok())
        };
        // `sets/<set>/<machine>/<file>`
        let machine = file.parent()?;
        let set = machine.parent()?;
        let sets = set.parent()?;
        let ours =
            sets.ends_with(held::SETS) && is_id(machine.file_name()) && is_id(set.file_name());
        let other = sets.parent().filter(|_| ours)?;
        (other != self.data_dir).then(|| other.to_owned())
    }

    /// What lies elsewhere and operations may write or remove, where the original is seen to be there.
    fn shared(&self, state: &State, survey: &Survey) -> Vec<String> {
        let from: Vec<_> = self.moves.all().iter().map(|m| m.from.as_path()).collect();
        let original = self.binding.and_then(|b| b.original(self.data_dir, &from));
        let Some(original) = original else {
            return Vec::new();
        };
        let mut written: BTreeMap<PathBuf, String> = BTreeMap::new();
        let mut add = |recorded: &Path, now: PathBuf, whose: String| {
            // By a link or another mount it may be the same file in its new place.
            if is_same(&now, recorded) {
                written.entry(now).or_insert(whose);
            }
        };
        for (recorded, whose) in &survey.written {
            add(recorded, self.moves.or_same(recorded), whose.clone());
        }
        for path in &survey.paths {
            let now = match self.definitions {
                true => self.moves.or_same(&path.file),
                false => path.file.clone(),
            };
            let whose = format!("machine {}, disk {}", path.machine, path.disk);
            add(&path.file, now, whose);
        }
        for left in state.leftovers.values() {
            let whose = format!("machine {}, disk {}", left.machine_name, left.disk);
            add(&left.file, self.moves.or_same(&left.file), whose);
        }
        let outside = written.iter().filter(|(file, _)| {
            let real = held::canonicalize(file);
            let real = real.unwrap_or_else(|_| file.to_path_buf());
            !real.starts_with(self.data_dir) && self.elsewhere(file).is_none()
        });
        let told = outside.map(|(file, whose)| {
            format!(
                "{whose}: {} is named by the original too, which is still in {}: copy it, and give --from, --to (both twice with the data directory) and --definitions; or move the original away if it is never used again",
                file.display(),
                original.display()
            )
        });
        told.collect()
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    let id = |file: &Path| held::metadata(file).ok().map(|m| (m.dev(), m.ino()));
    one == other || (id(one).is_some() && id(one) == id(other))
}

/// Whose file it is, in words.
pub(super) fn whose(set: &SnapshotSet, member: &Snapshot, disk: &SnapshotDisk) -> String {
    format!(
        "set `{}` {}, machine {}, disk {}",
        set.name, set.id, member.machine_name, disk.id
    )
}

/// The same of what a deleted set has left.
pub(super) fn left_of(left: &Leftover) -> String {
    format!(
        "what is left of machine {}, disk {}",
        left.machine_name, left.disk
    )
}
