//! What an operation has left: files that could not be removed, or of which it could not be seen whether something lies
//! on them, or whose folder was away. Nothing may lie on them or under them, so no file leads to them later: they are
//! remembered, until an operation on the machine, or a start, removes them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use crate::engine::{EngineError, Layer, Recorded, Retain};
use crate::held;
use crate::id::VmId;
use crate::inventory::{Leftover, Sealed};
use crate::snapshot::destroy::Member;
use crate::snapshot::forgotten::{self, Forgotten};
use crate::snapshot::known::{self, Known};
use crate::snapshot::orphans;
use crate::snapshot::saga::core::Core;
use crate::store::{Change, State};

/// What one cleaning could not remove.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// Nothing could be removed: it is not known what lies on what.
    pub(super) blind: bool,
    /// These were not.
    pub(super) files: BTreeSet<PathBuf>,
    /// Those of them that could not be though nothing lay on them at that moment.
    pub(super) free: BTreeSet<PathBuf>,
    /// These are gone.
    pub(super) removed: BTreeSet<PathBuf>,
}

/// What is remembered of a machine.
pub(super) fn of(state: &State, machine: VmId) -> impl Iterator<Item = &Leftover> {
    let all = state.leftovers.values();
    all.filter(move |l| l.machine == machine)
}

/// Who may need a file of which nothing is known but its name: nothing tells it from one that has become somebody's
/// meanwhile, but that nobody names it.
pub(super) struct Needed {
    recorded: Result<Vec<Recorded>, EngineError>,
    known: Known,
    forgotten: io::Result<Vec<Forgotten>>,
}

/// Why such a file stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Need {
    /// It is an active file, or one that a set keeps.
    Named,
    /// It may be: what names files cannot be read, or is away.
    Perhaps(PathBuf),
    /// A set may need it of which only this folder is left.
    Forgotten(PathBuf),
    /// Something that is named may lie on it.
    Under,
}

impl Needed {
    /// As it is now. Blocks.
    pub(super) fn of(core: &Core) -> Self {
        Self {
            recorded: core.deps.compute.recorded(),
            known: Known::of(core),
            forgotten: forgotten::of(core),
        }
    }

    /// Who needs it. Blocks.
    pub(super) fn by(&self, core: &Core, left: &Leftover) -> Option<Need> {
        let compute = &core.deps.compute;
        let Ok(recorded) = &self.recorded else {
            return Some(Need::Perhaps(compute.recorded_in(None)));
        };
        let is_it = |file: &Path| file == left.file || is_same(file, &left.file);
        let actives = recorded.iter().filter_map(|it| it.active.as_ref());
        let mut tops = actives.flat_map(|actives| actives.tops.values());
        let mut kept = self.known.disks();
        if tops.any(|top| is_it(&top.file)) || kept.any(|disk| is_it(&disk.file)) {
            return Some(Need::Named);
        }
        if let Some(it) = recorded.iter().find(|it| it.active.is_none()) {
            return Some(Need::Perhaps(it.file.clone()));
        }
        let is_there = recorded.iter().any(|it| it.machine == left.machine);
        if !is_there && !known::is_gone_for_good(core, left.machine) {
            return Some(Need::Perhaps(compute.recorded_in(Some(left.machine))));
        }
        if let Some((file, _)) = self.known.unreadable.first() {
            return Some(Need::Perhaps(file.clone()));
        }
        // What such a set kept is named by nothing else.
        match &self.forgotten {
            Err(_) => return Some(Need::Perhaps(core.sets())),
            Ok(sets) => {
                if let Some(set) = sets.first() {
                    return Some(Need::Forgotten(set.folder.clone()));
                }
            }
        }
        orphans::needs_left(core, &left.file).then_some(Need::Under)
    }
}

/// Whether one file has both names.
fn is_same(one: &Path, other: &Path) -> bool {
    let id = |file: &Path| {
        let found = held::look_at(file).ok()?;
        Some((found.device, found.inode))
    };
    id(one).is_some_and(|it| id(other) == Some(it))
}

/// Removes what was out of reach, as far as it is back. Blocks.
///
/// # Errors
/// The store's.
pub(crate) fn sweep(core: &Core) -> Result<(), EngineError> {
    let left = core.deps.store.state().leftovers.clone();
    let unreached: Vec<_> = left.values().filter(|l| l.sealed.is_none()).collect();
    if unreached.is_empty() {
        return Ok(());
    }
    let needed = Needed::of(core);
    let unreached = unreached
        .into_iter()
        .filter(|left| needed.by(core, left).is_none());
    let (files, sets) = (core.deps.storage.files(), core.sets());
    let is_gone = |left: &Leftover| {
        let gone = files.is_gone(&*core.deps.compute, left.machine, &left.file);
        gone.unwrap_or(false)
    };
    let gone = unreached.filter(|left| match files.unlink(&sets, &left.file, None) {
        Ok(was_there) => was_there || is_gone(left),
        Err(_) => false,
    });
    let gone = gone.map(|left| Change::RemoveLeftover(left.file.clone()));
    let gone: Vec<_> = gone.collect();
    match gone.is_empty() {
        true => Ok(()),
        false => core.transact(move |_| gone),
    }
}

impl Left {
    /// Remembers what is left now and forgets what is not any more, durably.
    ///
    /// # Errors
    /// The store's.
    pub(super) fn remember(&self, core: &Core, member: &Member) -> Result<(), EngineError> {
        let (state, known) = (core.deps.store.state(), Known::of(core));
        let old: BTreeMap<_, _> = of(&state, member.machine)
            .map(|l| (l.file.clone(), l.clone()))
            .collect();
        let mut new = old.clone();
        let skipped =
            |l: &&Layer| member.captured.contains(&l.file) || self.files.contains(&l.file);
        let files = member.layers.iter().filter(skipped);
        let files = files.filter(|l| !self.removed.contains(&l.file));
        let (own, sets) = (core.deps.storage.files(), core.sets());
        let files = files.filter(|l| own.is_ours(&sets, &l.file) && !is_kept(&known, l));
        for layer in files {
            let left = leftover(own, member, layer);
            let is_gone = || own.is_gone(&*core.deps.compute, member.machine, &layer.file);
            if left.sealed.is_some() {
                new.insert(layer.file.clone(), left);
            } else if !new.contains_key(&layer.file) && !is_gone().unwrap_or(false) {
                let (machine, file) = (&member.name, layer.file.display());
                // What something may lie on must not go by its name later: nothing would tell that any more.
                if self.free.contains(&layer.file) {
                    tracing::warn!(%machine, %file, "It cannot be looked at; it stays until it can be removed and nothing names it");
                    new.insert(layer.file.clone(), left);
                } else {
                    tracing::warn!(%machine, %file, "It cannot be looked at, and something may lie on it; it stays until somebody moves it away");
                }
            }
        }
        new.retain(|file, _| self.blind || self.files.contains(file));
        if new == old {
            return Ok(());
        }
        let gone = old.into_keys().filter(|file| !new.contains_key(file));
        let gone: Vec<_> = gone.map(Change::RemoveLeftover).collect();
        let changes = gone
            .into_iter()
            .chain(new.into_values().map(Change::PutLeftover));
        let changes: Vec<_> = changes.collect();
        core.transact(move |_| changes)
    }
}

fn is_kept(known: &Known, layer: &Layer) -> bool {
    known.disks().any(|d| d.file == layer.file)
}

/// Without a seal if the file cannot be looked at now: then it goes by its name, once nobody names it.
fn leftover(files: &dyn Retain, member: &Member, layer: &Layer) -> Leftover {
    let file = held::canonicalize(&layer.file);
    let file = file.unwrap_or_else(|_| layer.file.clone());
    let mut sealed = member.sealed.iter();
    let known = sealed.find(|s| s.file == layer.file || s.file == file);
    let known = known.cloned();
    let now = || {
        let seal = files.seal_own(&layer.file)?;
        let file = file.clone();
        Some(Sealed { file, seal })
    };
    Leftover {
        machine: member.machine,
        machine_name: member.name.clone(),
        disk: layer.disk.clone(),
        file: layer.file.clone(),
        format: layer.format,
        sealed: known.or_else(now),
    }
}
