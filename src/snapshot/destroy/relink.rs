//! What follows the content: records, headers and active files name another file, durably, before the old
//! one goes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use tokio::runtime::Handle;

use crate::engine::failure::{self, At};
use crate::engine::graph::{self, is_ours};
use crate::engine::{EngineError, EngineErrorKind, Top, merge};
use crate::held::{self, Identity};
use crate::id::SnapshotId;
use crate::inventory::{Position, Sealed, SnapshotSet};
use crate::snapshot::core::Core;
use crate::snapshot::damage;
use crate::snapshot::destroy::files::Survey;
use crate::snapshot::destroy::{Destroy, Member, Merge};
use crate::snapshot::known;
use crate::snapshot::operation::Operation;
use crate::store::{Change, State, StoreError};
use crate::text::Text;
use crate::text::catalog::snapshot as texts;

/// Removes the record beside the files of a set that goes as a whole: from here on nothing tells of it but the journal,
/// and the database for a moment. Of a set that loses a member the next transaction writes it anew.
pub(super) fn unrecord(operation: &Operation<Destroy>) -> Result<(), EngineError> {
    let (core, intent) = (&operation.core, &operation.kind.intent);
    let state = core.deps.store.state();
    let goes = |id: SnapshotId| intent.members.iter().any(|m| m.snapshot == id);
    let stays = state.sets.get(&intent.set).map(|set| &set.members);
    let stays = stays.is_some_and(|members| members.iter().any(|m| !goes(m.id)));
    match intent.tidies || stays {
        true => Ok(()),
        false => known::forget(core, intent.set),
    }
}

/// Takes all that is destroyed out of the records in one transaction: children stand on what it stood on.
pub(super) fn forget(operation: &Operation<Destroy>) -> Result<(), EngineError> {
    let members = operation.kind.intent.members.clone();
    let files: Vec<_> = members.iter().flat_map(|m| m.captured.clone()).collect();
    transact(&operation.core, move |state| forgotten(state, &members))?;
    let frozen = &operation.core.deps.frozen;
    frozen.release(files.iter().map(PathBuf::as_path));
    Ok(())
}

fn forgotten(state: &State, members: &[Member]) -> Vec<Change> {
    let parents: BTreeMap<_, _> = members.iter().map(|m| (m.snapshot, m.parent)).collect();
    let onto = |mut parent: Option<SnapshotId>| {
        for _ in 0..=parents.len() {
            let Some(next) = parent.and_then(|p| parents.get(&p)) else {
                break;
            };
            parent = *next;
        }
        parent
    };
    let mut changes = Vec::new();
    for set in state.sets.values() {
        let mut new = SnapshotSet::clone(set);
        new.members.retain(|m| !parents.contains_key(&m.id));
        for member in &mut new.members {
            member.parent = onto(member.parent);
        }
        if new.members.is_empty() && !set.members.is_empty() {
            changes.push(Change::RemoveSet(set.id));
        } else if new != **set {
            changes.push(Change::PutSet(new));
        }
    }
    for (machine, old) in state.positions.iter() {
        let new = Position {
            parent: onto(old.parent),
            last_applied: old.last_applied.filter(|id| !parents.contains_key(id)),
        };
        if new != *old {
            changes.push(Change::PutPosition(*machine, new));
        }
    }
    changes
}

/// Whoever named the child of a finished merge names the lower file; then the child goes.
pub(super) fn relink(
    operation: &Operation<Destroy>,
    member: &Member,
    merge: &Merge,
) -> Result<(), EngineError> {
    let core = &operation.core;
    let at = At::new(&member.name, &merge.disk);
    let survey = Survey::take(core, member)?;
    let parent = |e: io::Error| at.io(&merge.parent, &e);
    for grandchild in survey.graph.children(&merge.child) {
        let inode = survey.inode(&grandchild.file);
        let inode = inode.map_err(|e| at.io(&grandchild.file, &e))?;
        let (parent, format) = (&merge.parent, merge.parent_format);
        merge::name(&at, &grandchild.file, Some(inode), parent, format)?;
    }
    pass(core, "named", "after")?;
    let names: Vec<_> = survey.names_of(&merge.child).cloned().collect();
    if is_ours(&core.sets(), &merge.parent) {
        // Until an active file, which is written, it is as all that is kept.
        let active = names.iter().any(|n| n.by.is_none());
        let inodes = merge.inodes;
        let mode = match active {
            true => merge::expected(&merge.child, inodes.child)
                .and_then(Identity::of)
                .map_or(0o600, |child| child.mode & 0o777),
            false => 0o444,
        };
        let lower = merge::expected(&merge.parent, inodes.parent).map_err(parent)?;
        let set = held::set_mode(&lower, mode).and_then(|()| lower.sync_all());
        set.map_err(parent)?;
    }
    for name in names.iter().filter(|n| n.by.is_none()) {
        let top = Top {
            file: merge.parent.clone(),
            format: merge.parent_format,
        };
        let tops = BTreeMap::from([(name.disk.clone(), top)]);
        core.deps.compute.set_tops(name.machine, &tops)?;
    }
    pass(core, "tops", "after")?;
    let (names, moved) = (names, merge.clone());
    transact(core, move |state| {
        let sets = names.iter().filter_map(|n| n.by);
        let renamed = |(set, snapshot): (_, SnapshotId)| {
            let mut new = SnapshotSet::clone(state.sets.get(&set)?);
            for member in new.members.iter_mut().filter(|m| m.id == snapshot) {
                for disk in member.disks.iter_mut().filter(|d| d.file == moved.child) {
                    disk.file.clone_from(&moved.parent);
                    disk.format = moved.parent_format;
                }
            }
            Some(Change::PutSet(new))
        };
        sets.filter_map(renamed).collect()
    })?;
    pass(core, "records", "after")?;
    core.deps.frozen.release([merge.child.as_path()]);
    let child = merge.inodes.child;
    unlink(core, &merge.child, child).map_err(|e| at.io(&merge.child, &e))?;
    pass(core, "unlink", "after")
}

/// Seals again what the merges of this operation have changed, in one transaction. Until then nobody looks: the
/// machine is leased.
pub(super) fn reseal(operation: &Operation<Destroy>, member: &Member) -> Result<(), EngineError> {
    let core = &operation.core;
    let survey = Survey::take(core, member).ok().map(|mut survey| {
        survey.touch(&operation.kind.merges());
        survey
    });
    let state = core.deps.store.state();
    let members = state.sets.values().flat_map(|set| &set.members);
    let own = members.filter(|m| m.machine == member.machine);
    let machine = core.deps.compute.machine(member.machine);
    let machine = machine.as_deref();
    let mut sealed = BTreeMap::new();
    for (snapshot, disk) in own.flat_map(|m| m.disks.iter().map(move |d| (m, d))) {
        if disk.sealed.is_empty() {
            continue;
        }
        let at = At::new(&member.name, &disk.id);
        let old = |s: &Sealed| disk.sealed.iter().find(|o| o.file == s.file);
        let now = match &survey {
            Some(survey) => damage::seal(&at, machine, (disk, None), &BTreeSet::new()).map(|now| {
                // What was not touched keeps its seal: who else has changed it must show.
                let seal = |s: Sealed| match survey.touched().contains(&s.file) {
                    true => s,
                    false => old(&s).cloned().unwrap_or(s),
                };
                now.into_iter().map(seal).collect()
            }),
            None => Ok(Vec::new()),
        };
        // What cannot be read now is sealed by a later look.
        let now: Vec<_> = now.unwrap_or_default();
        sealed.insert((snapshot.id, disk.id.clone()), now);
    }
    transact(core, move |state| {
        let new = state.sets.values().filter_map(|old| {
            let mut new = SnapshotSet::clone(old);
            for member in &mut new.members {
                for disk in &mut member.disks {
                    if let Some(now) = sealed.get(&(member.id, disk.id.clone())) {
                        disk.sealed.clone_from(now);
                    }
                }
            }
            (new != **old).then_some(Change::PutSet(new))
        });
        new.collect()
    })
}

/// Unlinks a file of ours durably, with `inode` only the one that has it, and the folders above it that are empty
/// then. Whether it was there.
pub(super) fn unlink(core: &Core, file: &Path, inode: Option<u64>) -> io::Result<bool> {
    let ours = match graph::ours(file) {
        Err(e) if failure::kind(&e) == EngineErrorKind::Missing => return Ok(false),
        ours => ours?,
    };
    let was_there = ours.discard(inode)?;
    let own = if file.starts_with(core.sets()) { 2 } else { 1 };
    match ours.remove_folders(own) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(was_there),
        removed => removed.map(|()| was_there),
    }
}

/// A transaction from a blocking thread.
pub(super) fn transact(
    core: &Core,
    changes: impl FnOnce(&State) -> Vec<Change> + Send + 'static,
) -> Result<(), EngineError> {
    match Handle::current().block_on(core.deps.store.transact(Box::new(changes))) {
        Ok(_) => Ok(()),
        Err(e) => {
            if matches!(e, StoreError::Broken(_)) {
                core.break_down(e.to_string());
            }
            Err(error(texts::STORE_FAILED.with("cause", e)))
        }
    }
}

pub(super) fn pass(core: &Core, step: &str, side: &str) -> Result<(), EngineError> {
    let passed = core.pass("destroy", step, side);
    passed.map_err(|e| error(texts::ORDERED.with("cause", e)))
}

pub(super) fn error(text: Text) -> EngineError {
    EngineError {
        kind: EngineErrorKind::Failed,
        text,
    }
}

/// As clients see an I/O error with a copy of a definition.
pub(super) fn definition(member: &Member, cause: &io::Error) -> EngineError {
    EngineError {
        kind: failure::kind(cause),
        text: texts::DEFINITION_UNREMOVED
            .with("machine", &member.name)
            .with("cause", cause),
    }
}
