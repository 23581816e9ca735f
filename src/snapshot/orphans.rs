//! Files among ours that nothing names.
//!
//! They are listed and never removed: a file of a lost journal may be the only copy of something.
//! Folders that are empty are removed.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::engine::{At, EngineErrorKind, Retain, Whose};
use crate::held::{self, FileKind, Folder};
use crate::id::VmId;
use crate::inventory::{Format, Sealed};
use crate::snapshot::damage;
use crate::snapshot::forgotten;
use crate::snapshot::known::Known;
use crate::snapshot::saga::core::Core;
use crate::store::record::{self, SETS};

/// Where files that nothing names are moved to, below the data directory.
pub(super) const ASIDE: &str = "orphans";

/// The files in `sets/` and beside the images that no machine, no set and no journal names, and that lie under no
/// named one. Only while nothing is at work: empty folders go. Blocks, but not for what does not answer.
pub(crate) fn find(core: &Arc<Core>, named: BTreeSet<PathBuf>) -> Vec<PathBuf> {
    let shared = Arc::clone(core);
    let looked = held::look(move || {
        let needed = Needed::with(&shared, named.clone());
        let mut orphans = Vec::new();
        for folder in folders(&shared, &needed.files) {
            walk(&folder, DEPTH, false, &needed.files, &mut orphans);
        }
        needed.leave(shared.deps.storage.files(), &mut orphans);
        leave_forgotten(&shared, &mut orphans);
        orphans
    });
    // Others may keep clones beside the same image, so folders there stay.
    walk(&core.sets(), DEPTH, true, &BTreeSet::new(), &mut Vec::new());
    looked.unwrap_or_else(|error| {
        tracing::warn!(%error, "Orphans are not looked for");
        Vec::new()
    })
}

/// Whether machines or sets name one of these files, or something that lies on it, as far as can be seen. What is not
/// there is nobody's. Blocks.
pub(crate) fn needs(core: &Core, files: impl IntoIterator<Item = PathBuf>) -> bool {
    let is_gone = |e: io::Error| EngineErrorKind::of(&e) == EngineErrorKind::Missing;
    let is_there = |file: &PathBuf| !held::symlink_metadata(file).is_err_and(is_gone);
    let mut free: Vec<_> = files.into_iter().filter(is_there).collect();
    let there = free.len();
    if there > 0 {
        let needed = Needed::with(core, BTreeSet::new());
        needed.leave(core.deps.storage.files(), &mut free);
    }
    free.len() < there
}

/// The same of one file that is remembered as left: that is no name. Blocks.
pub(crate) fn needs_left(core: &Core, file: &Path) -> bool {
    let mut free = vec![file.to_owned()];
    let needed = Needed::but_for_left(core, BTreeSet::new());
    needed.leave(core.deps.storage.files(), &mut free);
    free.is_empty()
}

/// The file by the real path of its folder; a link that it may be itself is not followed.
fn real(file: &Path) -> Option<PathBuf> {
    let folder = held::canonicalize(file.parent()?).ok()?;
    Some(folder.join(file.file_name()?))
}

/// The same while operations may be at work, whose files `named` tells when asked. Nothing is removed.
pub(crate) fn look(core: &Core, named: impl FnOnce() -> BTreeSet<PathBuf>) -> Vec<PathBuf> {
    let before = Needed::with(core, BTreeSet::new()).files;
    let mut orphans = Vec::new();
    for folder in folders(core, &before) {
        walk(&folder, DEPTH, false, &before, &mut orphans);
    }
    // Whatever made a file since had its journal before, and has it still or has ended.
    let needed = Needed::with(core, named());
    orphans.retain(|file| held::symlink_metadata(file).is_ok());
    needed.leave(core.deps.storage.files(), &mut orphans);
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
    let files = core.deps.storage.files();
    let beside = named.iter().flat_map(|file| files.beside(file));
    beside.chain([core.sets()]).collect()
}

/// What machines and sets name and is not there.
pub(crate) fn missing(core: &Core) -> BTreeSet<PathBuf> {
    // Of those that cannot be read nothing is told: who removes something asks more.
    let recorded = core.deps.compute.recorded().unwrap_or_default();
    let actives = recorded.into_iter().filter_map(|it| it.active);
    let tops = actives.flat_map(|actives| actives.tops.into_values());
    let mut named: BTreeSet<_> = tops.map(|top| top.file).collect();
    // The simulation has no files.
    let machines = core.deps.compute.machines();
    for machine in machines.values().filter(|m| m.definition.is_file()) {
        named.extend(machine.disks.iter().map(|disk| disk.file.clone()));
    }
    for member in Known::of(core).members() {
        let disks = member.disks.iter();
        let disks: Vec<_> = disks.filter(|d| core.deps.storage.in_files(d)).collect();
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

/// What machines and sets name, with what lies under that.
struct Needed {
    files: BTreeSet<PathBuf>,
    /// Machines with a file of which it can neither be seen nor is recorded what it lies on, and those whose folder is set
    /// aside: any other of theirs.
    unsure: BTreeSet<VmId>,
    /// A `tops.json` cannot be read: any file may be needed.
    blind: bool,
}

/// A file that is named, and by whom.
struct Reference {
    machine: VmId,
    disk: String,
    format: Format,
    /// What it is known to lie on.
    below: Option<Vec<PathBuf>>,
    sealed: Vec<Sealed>,
}

impl Reference {
    const fn active(
        machine: VmId,
        disk: String,
        format: Format,
        below: Option<Vec<PathBuf>>,
    ) -> Self {
        Self {
            machine,
            disk,
            format,
            below,
            sealed: Vec::new(),
        }
    }
}

impl Needed {
    /// As it is now, and these.
    fn with(core: &Core, files: BTreeSet<PathBuf>) -> Self {
        let mut needed = Self::but_for_left(core, files);
        let left = core.deps.store.state().leftovers.clone();
        let left = left.values().filter(|l| damage::is_left(l));
        needed.files.extend(left.map(|l| l.file.clone()));
        needed
    }

    /// Without what operations have left.
    fn but_for_left(core: &Core, mut files: BTreeSet<PathBuf>) -> Self {
        let compute = &core.deps.compute;
        let machines = compute.machines();
        let mut named = BTreeMap::<PathBuf, Reference>::new();
        let mut add = |file: PathBuf, new: Reference| match named.entry(file) {
            Entry::Vacant(free) => drop(free.insert(new)),
            Entry::Occupied(mut old) if new.below.is_some() => drop(old.insert(new)),
            Entry::Occupied(_) => {}
        };
        let drivers = core.deps.storage.files();
        let recorded = compute.recorded();
        let mut blind = recorded.is_err();
        let mut there: BTreeSet<_> = machines.keys().copied().collect();
        for it in recorded.unwrap_or_default() {
            let machine = it.machine;
            there.insert(machine);
            let Some(actives) = it.active else {
                blind = true;
                continue;
            };
            for it in actives.all {
                if !machines.contains_key(&machine) {
                    files.extend(it.below.into_iter().flatten());
                }
                let new = Reference::active(machine, it.disk, it.top.format, None);
                add(it.top.file, new);
            }
        }
        for machine in machines.values() {
            for disk in &machine.disks {
                let below = compute.below(machine.id, &disk.id);
                let new = Reference::active(machine.id, disk.id.clone(), disk.format, below);
                add(disk.file.clone(), new);
            }
        }
        let sets = Known::of(core);
        for set in sets.sets() {
            let record = record::path(&core.deps.data_dir, set.id);
            files.extend([record.with_extension("json.new"), record]);
            for member in &set.members {
                files.insert(member.definition.clone());
                for disk in &member.disks {
                    let below = disk.known_below();
                    let id = disk.id.clone();
                    let new = Reference::active(member.machine, id, disk.format, below);
                    let sealed = disk.sealed.clone();
                    add(disk.file.clone(), Reference { sealed, ..new });
                }
            }
        }
        files.extend(sets.unreadable.iter().map(|(file, _)| file.clone()));
        // Of a machine whose folder is set aside nothing tells the active files.
        let state = core.deps.store.state();
        let collected = state.collections.values();
        let collected = collected.flat_map(|collection| collection.machines.iter().copied());
        let captured = sets.members().map(|member| member.machine);
        let mut unsure: BTreeSet<_> = collected.chain(captured).collect();
        unsure.retain(|machine| !there.contains(machine));
        for (file, reference) in named {
            let whose = Whose {
                machine: machines.get(&reference.machine).map(Arc::as_ref),
                disk: &reference.disk,
                sealed: &reference.sealed,
            };
            // A layer that no snapshot names any more lies under one that is named.
            let at = At::new("of any kind", &reference.disk);
            let chain = drivers.chain(&at, whose, (&file, reference.format));
            // What lies under the active file of a machine that cannot be read is told by names of ours alone.
            let is_told = |file: &PathBuf| {
                whose.machine.is_some()
                    || !reference.sealed.is_empty()
                    || drivers.is_made_for(&core.sets(), reference.machine, file)
            };
            let is_whole = chain.is_whole;
            let layers = chain.files.into_iter().map(|(layer, _)| layer);
            files.extend(layers.take_while(is_told));
            if !is_whole {
                let unreadable = chain.unreadable.filter(is_told);
                if reference.below.is_none() {
                    let below = unreadable
                        .as_deref()
                        .map_or(Some(reference.machine), |file| drivers.machine_of(file));
                    unsure.extend(below);
                }
                files.extend(reference.below.into_iter().flatten().chain(unreadable));
            }
            files.insert(file);
        }
        Self {
            files,
            unsure,
            blind,
        }
    }

    /// Leaves of these files those that are of nobody. One folder may be reached by two paths: what is named by the
    /// other path is known.
    fn leave(&self, drivers: &dyn Retain, free: &mut Vec<PathBuf>) {
        if self.blind && !free.is_empty() {
            tracing::warn!(
                "Orphans are not looked for: what a machine of the library needs cannot be read"
            );
            free.clear();
        }
        free.retain(|file| !is_named(&self.files, file) && !self.is_unsure(drivers, file));
        if free.is_empty() {
            return;
        }
        let mut seen: BTreeSet<_> = self.files.iter().filter_map(|f| real(f)).collect();
        free.retain(|file| {
            real(file).is_none_or(|real| !is_named(&seen, &real) && seen.insert(real))
        });
    }

    /// Whether something may lie on the file and cannot be seen.
    fn is_unsure(&self, drivers: &dyn Retain, file: &Path) -> bool {
        let machine = drivers.machine_of(file);
        let unsure = machine.filter(|machine| self.unsure.contains(machine));
        let unsure = unsure.filter(|_| drivers.is_image(file));
        if let Some(machine) = unsure {
            tracing::warn!(file = %file.display(), %machine, "It is no orphan: the machine may need it, or a file of the machine that cannot be read may lie on it");
        }
        unsure.is_some()
    }
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
        if depth > 0 && found.is_some_and(|it| it.kind == FileKind::Folder) {
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
    use crate::engine::Drivers;

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
        let files = BTreeSet::from([clone.clone(), known.clone()]);
        let mut orphans = Vec::new();
        walk(sets.path(), DEPTH, true, &files, &mut orphans);
        assert_eq!(orphans, std::slice::from_ref(&lost));
        let mut told = vec![cloned, deep, known, clone, lost.clone()];
        let unsure = BTreeSet::new();
        let needed = Needed {
            files,
            unsure,
            blind: false,
        };
        needed.leave(Drivers::new(Vec::new()).files(), &mut told);
        assert_eq!(told, std::slice::from_ref(&lost));
    }
}
