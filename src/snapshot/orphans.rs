//! Files among ours that nothing names.
//!
//! They are listed and never removed: a file of a lost journal may be the only copy of something.
//! Folders that are empty are removed.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::engine::definition;
use crate::engine::failure::At;
use crate::engine::graph::{self, Whose};
use crate::engine::place::FOLDER;
use crate::held::{self, Folder, Kind};
use crate::snapshot::core::Core;
use crate::snapshot::damage;
use crate::snapshot::forgotten;
use crate::snapshot::known::Known;
use crate::store::record::{self, SETS};

/// The files in `sets/` and beside the images that no machine, no set and no journal names, and that lie under no
/// named one. Only while nothing is at work: empty folders go.
pub(crate) fn find(core: &Core, named: BTreeSet<PathBuf>) -> Vec<PathBuf> {
    let named = with_known(core, named);
    let mut orphans = Vec::new();
    for folder in folders(core, &named) {
        let ours = folder == core.sets(); // others may keep clones beside the same image
        walk(&folder, DEPTH, ours, &named, &mut orphans);
    }
    leave_known(&mut orphans, &named);
    leave_forgotten(core, &mut orphans);
    orphans
}

/// One folder may be reached by two paths: what is named by the other path is known.
fn leave_known(orphans: &mut Vec<PathBuf>, named: &BTreeSet<PathBuf>) {
    if orphans.is_empty() {
        return;
    }
    let mut seen: BTreeSet<_> = named.iter().filter_map(|f| real(f)).collect();
    orphans
        .retain(|file| real(file).is_none_or(|real| !is_named(&seen, &real) && seen.insert(real)));
}

/// The file by the real path of its folder; a link that it may be itself is not followed.
fn real(file: &Path) -> Option<PathBuf> {
    let folder = held::canonicalize(file.parent()?).ok()?;
    Some(folder.join(file.file_name()?))
}

/// The same while operations may be at work, whose files `named` tells when asked. Nothing is removed.
pub(crate) fn look(core: &Core, named: impl FnOnce() -> BTreeSet<PathBuf>) -> Vec<PathBuf> {
    let before = with_known(core, BTreeSet::new());
    let mut orphans = Vec::new();
    for folder in folders(core, &before) {
        walk(&folder, DEPTH, false, &before, &mut orphans);
    }
    // Whatever made a file since had its journal before, and has it still or has ended.
    let named = with_known(core, named());
    orphans.retain(|file| !is_named(&named, file) && held::symlink_metadata(file).is_ok());
    leave_known(&mut orphans, &named);
    leave_forgotten(core, &mut orphans);
    orphans
}

/// What lies in the folder of a forgotten set is told with that. Where nobody knows whether there is one, nothing is an
/// orphan.
fn leave_forgotten(core: &Core, orphans: &mut Vec<PathBuf>) {
    if orphans.is_empty() {
        return;
    }
    match forgotten::of(core) {
        Ok(sets) => orphans.retain(|file| !sets.iter().any(|set| file.starts_with(&set.folder))),
        Err(error) => {
            tracing::warn!(%error, "Orphans are not looked for");
            orphans.clear();
        }
    }
}

fn folders(core: &Core, named: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    let beside = named.iter().flat_map(|file| beside(file));
    beside.chain([core.sets()]).collect()
}

/// Where clones of the image may lie: beside it and, if it is a symbolic link, beside what it leads to.
pub(crate) fn beside(image: &Path) -> BTreeSet<PathBuf> {
    let own = image.with_file_name(FOLDER);
    let real = graph::clones_of(image).ok();
    let other = real.filter(|real| real.canonicalize().ok() != own.canonicalize().ok());
    other.into_iter().chain([own]).collect()
}

/// What machines and sets name and is not there.
pub(crate) fn missing(core: &Core) -> BTreeSet<PathBuf> {
    let tops = definition::recorded_tops(&core.deps.data_dir).into_iter();
    let mut named: BTreeSet<_> = tops.map(|(_, _, top)| top.file).collect();
    // The simulation has no files.
    let machines = core.deps.compute.machines();
    for machine in machines.values().filter(|m| m.definition.is_file()) {
        named.extend(machine.disks.iter().map(|disk| disk.file.clone()));
    }
    for member in Known::of(core).members() {
        let disks: Vec<_> = member.disks.iter().filter(|d| graph::is_file(d)).collect();
        let definition = (!disks.is_empty()).then(|| member.definition.clone());
        let files = disks.iter().map(|disk| disk.file.clone());
        named.extend(files.chain(definition));
    }
    named.retain(|file| held::metadata(file).is_err_and(|e| !held::is_silence(&e)));
    named
}

/// The data directory that a path below `sets/` of it was recorded in, if that file is below `sets/` of ours now.
pub(crate) fn moved_from(data_dir: &Path, missing: &Path) -> Option<PathBuf> {
    let mut above = missing.ancestors().filter(|a| a.ends_with(SETS));
    above.find_map(|sets| {
        let here = data_dir.join(SETS).join(missing.strip_prefix(sets).ok()?);
        let there = sets.parent()?;
        (there != data_dir && here.is_file()).then(|| there.to_owned())
    })
}

/// Adds what machines and sets name, and what lies under that.
fn with_known(core: &Core, mut named: BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    let compute = &core.deps.compute;
    let machines = compute.machines();
    let mut known = Vec::new();
    for machine in machines.values() {
        known.extend(machine.disks.iter().map(|disk| {
            let below = compute.below(machine.id, &disk.id);
            let top = (disk.file.clone(), disk.format);
            (machine.id, disk.id.clone(), top, below, Vec::new())
        }));
    }
    for (id, disk, top) in definition::recorded_tops(&core.deps.data_dir) {
        known.push((id, disk, (top.file, top.format), None, Vec::new()));
    }
    let sets = Known::of(core);
    for set in sets.sets() {
        let record = record::path(&core.deps.data_dir, set.id);
        named.extend([record.with_extension("json.new"), record]);
        for member in &set.members {
            named.insert(member.definition.clone());
            known.extend(member.disks.iter().map(|disk| {
                let (below, sealed) = (disk.known_below(), disk.sealed.clone());
                let top = (disk.file.clone(), disk.format);
                (member.machine, disk.id.clone(), top, below, sealed)
            }));
        }
    }
    named.extend(sets.unreadable.into_iter().map(|(file, _)| file));
    let left = core.deps.store.state().leftovers.clone();
    let left = left.values().filter(|l| damage::is_left(l));
    named.extend(left.map(|l| l.file.clone()));
    for (id, disk, (file, format), below, sealed) in known {
        let whose = Whose {
            machine: machines.get(&id).map(Arc::as_ref),
            disk: &disk,
            sealed: &sealed,
        };
        // A layer that no snapshot names any more lies under one that is named.
        let chain = graph::chain_of(&At::new("of any kind", &disk), whose, &file, format);
        let is_whole = chain.is_whole();
        let layers = chain.layers.into_iter().map(|layer| layer.file);
        // What lies under the active file of a machine that cannot be read is told by names of ours alone.
        let is_told = |file: &PathBuf| {
            whose.machine.is_some()
                || !sealed.is_empty()
                || graph::is_made_for(&core.sets(), id, file)
        };
        named.extend(layers.take_while(is_told));
        named.extend(below.filter(|_| !is_whole).into_iter().flatten());
        named.insert(file);
    }
    named
}

/// Folders on the longest way to a file of ours: `<set>/<machine>/.groupshot/<set>` below `sets/`, where an overlay was
/// cloned.
const DEPTH: u8 = 4;

/// Whether the file is named, or something is that lies below it.
fn is_named(named: &BTreeSet<PathBuf>, file: &Path) -> bool {
    // What lies below a path comes right after it.
    let mut from = named.range::<Path, _>((Bound::Included(file), Bound::Unbounded));
    from.next().is_some_and(|first| first.starts_with(file))
}

pub(crate) fn walk(
    folder: &Path,
    depth: u8,
    ours: bool,
    named: &BTreeSet<PathBuf>,
    orphans: &mut Vec<PathBuf>,
) {
    // A link in its place leads to nothing of ours.
    if let Ok(folder) = Folder::open(folder) {
        walk_in(&folder, depth, ours, named, orphans);
    }
}

fn walk_in(
    folder: &Folder,
    depth: u8,
    ours: bool,
    named: &BTreeSet<PathBuf>,
    orphans: &mut Vec<PathBuf>,
) {
    for name in folder.names().unwrap_or_default() {
        let path = folder.path().join(&name);
        let found = folder.look(&name).ok().flatten();
        if depth > 0 && found.is_some_and(|it| it.kind == Kind::Folder) {
            if let Ok(child) = folder.child(&name) {
                walk_in(&child, depth - 1, ours, named, orphans);
            }
            if ours {
                let _not_empty = folder.remove_folder(&name);
            }
        } else if !is_named(named, &path) {
            orphans.push(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_nothing_names_is_listed_and_left_and_empty_folders_go() {
        let sets = tempfile::tempdir().unwrap();
        let member = sets.path().join("set/machine");
        fs::create_dir_all(&member).unwrap();
        fs::create_dir_all(sets.path().join("empty/one")).unwrap();
        let (known, lost) = (member.join("known"), member.join("lost"));
        fs::write(&known, "").unwrap();
        fs::write(&lost, "").unwrap();
        let mut orphans = Vec::new();
        walk(
            sets.path(),
            DEPTH,
            true,
            &BTreeSet::from([known]),
            &mut orphans,
        );
        assert_eq!(orphans, std::slice::from_ref(&lost));
        assert!(lost.exists());
        assert!(!sets.path().join("empty").exists());
    }

    /// However deep what is named lies.
    #[test]
    fn no_folder_that_holds_what_is_named_is_an_orphan() {
        let sets = tempfile::tempdir().unwrap();
        let cloned = sets.path().join("set/machine/.groupshot/other");
        let deep = cloned.join("deeper/still");
        fs::create_dir_all(&deep).unwrap();
        let (clone, lost, known) = (
            cloned.join("clone"),
            cloned.join("lost"),
            deep.join("known"),
        );
        for file in [&clone, &lost, &known] {
            fs::write(file, "").unwrap();
        }
        let named = BTreeSet::from([clone.clone(), known.clone()]);
        let mut orphans = Vec::new();
        walk(sets.path(), DEPTH, true, &named, &mut orphans);
        assert_eq!(orphans, std::slice::from_ref(&lost));
        let mut told = vec![cloned, deep, known, clone, lost.clone()];
        leave_known(&mut told, &named);
        assert_eq!(told, std::slice::from_ref(&lost));
    }
}
