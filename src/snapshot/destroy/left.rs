//! What an operation has left: files that could not be removed, or of which it could not be seen whether something lies
//! on them, or whose folder was away. Nothing may lie on them or under them, so no file leads to them later: they are
//! remembered, until an operation on the machine, or a start, removes them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::engine::EngineError;
use crate::engine::definition::{self, MACHINES};
use crate::engine::graph::{self, is_ours};
use crate::held;
use crate::id::VmId;
use crate::inventory::{Leftover, Sealed};
use crate::snapshot::damage;
use crate::snapshot::destroy::files::is_gone;
use crate::snapshot::destroy::relink::unlink;
use crate::snapshot::destroy::{Layer, Member};
use crate::snapshot::known::{self, Known};
use crate::snapshot::saga::core::Core;
use crate::store::{Change, State};

/// What one cleaning could not remove.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// Nothing could be removed: it is not known what lies on what.
    pub(super) blind: bool,
    /// These could not, and nothing lies on them.
    pub(super) files: BTreeSet<PathBuf>,
    /// These are gone.
    pub(super) removed: BTreeSet<PathBuf>,
}

/// What is remembered of a machine.
pub(super) fn of(state: &State, machine: VmId) -> impl Iterator<Item = &Leftover> {
    let all = state.leftovers.values();
    all.filter(move |l| l.machine == machine)
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
    let machines = core.deps.data_dir.join(MACHINES);
    let Ok(recorded) = definition::recorded(&machines) else {
        return Ok(()); // any of them may be an active file
    };
    let known = Known::of(core);
    // Nothing tells it from a file that has become somebody's meanwhile, but that nobody names it.
    let is_free = |left: &&Leftover| {
        let is_there = recorded.iter().any(|(id, _)| *id == left.machine);
        let mut all = recorded.iter();
        (is_there || known::is_gone_for_good(core, left.machine))
            && all.all(|(_, stored)| {
                let tops = stored.as_ref().map(|stored| &stored.tops);
                tops.is_ok_and(|tops| tops.values().all(|top| top.file != left.file))
            })
            && known.unreadable.is_empty()
            && known.disks().all(|disk| disk.file != left.file)
    };
    let unreached = unreached.into_iter().filter(is_free);
    let gone = unreached.filter(|left| match unlink(core, &left.file, None) {
        Ok(was_there) => was_there || is_gone(core, left.machine, &left.file).unwrap_or(false),
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
        let files = files.filter(|l| is_ours(&core.sets(), &l.file) && !is_kept(&known, l));
        new.extend(files.filter_map(|l| Some((l.file.clone(), leftover(member, l)?))));
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

/// `None` if nobody could tell the file from another one.
fn leftover(member: &Member, layer: &Layer) -> Option<Leftover> {
    let file = held::canonicalize(&layer.file);
    let file = file.unwrap_or_else(|_| layer.file.clone());
    let mut sealed = member.sealed.iter();
    let known = sealed.find(|s| s.file == layer.file || s.file == file);
    let known = known.cloned();
    let now = || {
        // By no other way than that to a file of ours.
        let ours = graph::ours(&layer.file).ok()?;
        let open = ours.folder().and_then(|f| f.open_file(ours.name(), false));
        let seal = damage::seal_open(&open.ok()?).ok()?;
        let file = file.clone();
        Some(Sealed { file, seal })
    };
    Some(Leftover {
        machine: member.machine,
        machine_name: member.name.clone(),
        disk: layer.disk.clone(),
        file: layer.file.clone(),
        format: layer.format,
        sealed: Some(known.or_else(now)?),
    })
}
