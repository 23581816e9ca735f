//! What follows the content: records, headers and active files name another file, durably, before the old
//! one goes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::engine::{At, EngineError, EngineErrorKind, Merge, Survey, Top};
use crate::held;
use crate::id::SnapshotId;
use crate::inventory::{Position, Sealed, SnapshotSet};
use crate::snapshot::damage;
use crate::snapshot::destroy::look::survey;
use crate::snapshot::destroy::{Destroy, Member};
use crate::snapshot::known;
use crate::snapshot::saga::core::Core;
use crate::snapshot::saga::operation::Operation;
use crate::store::record::SetRecord;
use crate::store::{Change, State};
use crate::text::Text;
use crate::text::catalog::snapshot as texts;

/// The folders of ours above the copy of a definition: `sets/<set>/<machine>`.
const COPY_FOLDERS: usize = 3;

/// Removes the record beside the files of a set that goes as a whole: from here on nothing tells of it but the journal,
/// and the database for a moment. Of a set that loses a member the next transaction writes it anew.
pub(super) fn unrecord(operation: &Operation<Destroy>) -> Result<(), EngineError> {
    let (core, intent) = (&operation.core, &operation.kind.intent);
    let state = core.deps.store.state();
    let goes = |id: SnapshotId| intent.members.iter().any(|m| m.snapshot == id);
    if intent.tidies {
        return Ok(());
    }
    if let Some(set) = state.sets.get(&intent.set) {
        return match set.members.iter().any(|m| !goes(m.id)) {
            true => Ok(()),
            false => known::forget(core, intent.set),
        };
    }
    // No transaction writes that of a set which the database does not know.
    match known::read(core, intent.set)?.and_then(|record| rest(record, goes)) {
        Some(record) => known::record(core, &record),
        None => known::forget(core, intent.set),
    }
}

/// The record without the members that go, if any stay.
fn rest(mut record: SetRecord, goes: impl Fn(SnapshotId) -> bool) -> Option<SetRecord> {
    record.set.members.retain(|m| !goes(m.id));
    (!record.set.members.is_empty()).then_some(record)
}

/// Takes all that is destroyed out of the records in one transaction: children stand on what it stood on.
pub(super) fn forget(operation: &Operation<Destroy>) -> Result<(), EngineError> {
    let members = operation.kind.intent.members.clone();
    let files: Vec<_> = members.iter().flat_map(|m| m.captured.clone()).collect();
    let parents = members.into_iter().map(|m| (m.snapshot, m.parent));
    let parents = parents.collect();
    operation
        .core
        .transact(move |state| removal(state, &parents))?;
    let frozen = &operation.core.deps.frozen;
    frozen.release(files.iter().map(PathBuf::as_path));
    Ok(())
}

/// What takes snapshots out of the records, each with its parent.
pub(crate) fn removal(
    state: &State,
    parents: &BTreeMap<SnapshotId, Option<SnapshotId>>,
) -> Vec<Change> {
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

/// Why the child of a finished merge stays for now: nobody knows whether a file that is away lies right on it.
pub(super) fn unsettled(survey: &dyn Survey, merge: &Merge) -> Option<Text> {
    let away = survey.away_over(&merge.child)?;
    let text = texts::KEPT_AWAY.with("file", merge.child.display());
    Some(text.with("child", away.display()))
}

/// Whoever named the child of a finished merge names the lower file; then the child goes.
///
/// # Errors
/// It cannot be done now. Who tries again looks first whether it can wait (`clean::before_relink`).
pub(super) fn relink(
    operation: &Operation<Destroy>,
    member: &Member,
    merge: &Merge,
) -> Result<(), EngineError> {
    let core = &operation.core;
    let at = At::new(&member.name, &merge.disk);
    let survey = survey(core, member)?;
    if let Some(why) = unsettled(&*survey, merge) {
        return Err(error(why));
    }
    survey.rename(merge)?;
    pass(core, "named", "after")?;
    survey.set_mode(merge)?;
    let names = survey.names_of(&merge.child);
    for name in names.iter().filter(|n| n.by.is_none()) {
        let top = Top {
            file: merge.parent.clone(),
            format: merge.parent_format,
        };
        let tops = BTreeMap::from([(name.disk.clone(), top)]);
        core.deps.compute.set_tops(name.machine, &tops)?;
    }
    pass(core, "tops", "after")?;
    let (moved, gone) = (merge.clone(), Written::of(merge, true));
    core.transact(move |state| {
        damage::of_each_disk(state, |disk| {
            if disk.file == moved.child {
                disk.file.clone_from(&moved.parent);
                disk.format = moved.parent_format;
            }
            // Nothing lies on it any more.
            disk.sealed.retain(|s| !gone.is_child(&s.file));
        })
    })?;
    pass(core, "records", "after")?;
    core.deps.frozen.release([merge.child.as_path()]);
    let child = merge.inodes.child.map(|child| child.inode());
    let files = core.deps.storage.files();
    let gone = files.unlink(&core.sets(), &merge.child, child);
    gone.map_err(|e| at.io(&merge.child, &e))?;
    pass(core, "unlink", "after")
}

/// Seals again what the merges of this operation have changed, in one transaction: each file that was sealed before, by
/// its inode. What was not changed keeps its seal, and so does what is not there now or is another file: that shows as
/// changed then. Until then nobody looks: the machine is leased.
pub(super) fn reseal(operation: &Operation<Destroy>, member: &Member) -> Result<(), EngineError> {
    let core = &operation.core;
    let merges = operation.kind.merges().clone();
    let merges = merges.iter().filter(|(m, _)| m.machine == member.machine);
    let written: Vec<_> = merges.map(|(m, at)| Written::of(m, at.is_some())).collect();
    let state = core.deps.store.state();
    let members = state.sets.values().flat_map(|set| &set.members);
    let own = members.filter(|m| m.machine == member.machine);
    let mut renewed: BTreeMap<Sealed, Sealed> = BTreeMap::new();
    for disk in own.flat_map(|m| &m.disks) {
        for old in touched(&disk.sealed, &written) {
            if renewed.contains_key(old) {
                continue;
            }
            match core.deps.storage.files().again(old) {
                Ok(now) => drop(renewed.insert(old.clone(), now)),
                Err(error) => {
                    let file = old.file.display();
                    tracing::warn!(%file, %error, "A merged file cannot be sealed again and counts as changed");
                }
            }
        }
    }
    core.transact(move |state| {
        damage::of_each_disk(state, |disk| {
            // An older version has left them until here.
            for gone in written.iter().filter(|w| w.merged) {
                if gone.is_parent(&disk.file) {
                    disk.sealed.retain(|s| !gone.is_child(&s.file));
                }
            }
            for sealed in &mut disk.sealed {
                if let Some(now) = renewed.get(sealed) {
                    sealed.clone_from(now);
                }
            }
        })
    })
}

/// What a merge of this operation has written.
struct Written {
    /// The lower file, as it is named and as it is sealed.
    parent: [PathBuf; 2],
    /// The one that went into it, likewise.
    child: [PathBuf; 2],
    /// The inode of the lower one.
    inode: Option<u64>,
    /// All of it is there, so that what lay on the child may lie on the parent.
    merged: bool,
}

impl Written {
    fn of(merge: &Merge, merged: bool) -> Self {
        let both = |file: &Path| [file.to_owned(), damage::place(file)];
        Self {
            parent: both(&merge.parent),
            child: both(&merge.child),
            inode: merge.inodes.parent.map(|parent| parent.inode()),
            merged,
        }
    }

    fn is_parent(&self, file: &Path) -> bool {
        self.parent.iter().any(|p| p == file)
    }

    fn is_child(&self, file: &Path) -> bool {
        self.child.iter().any(|c| c == file)
    }
}

/// Of the seals of a disk, from above, those of files that were written: the lower files, and what lies right on one, whose
/// header names it anew.
fn touched<'a>(sealed: &'a [Sealed], written: &[Written]) -> Vec<&'a Sealed> {
    let below = sealed.iter().skip(1).map(Some).chain([None]);
    let is_touched = |(it, below): &(&Sealed, Option<&Sealed>)| {
        written.iter().any(|w| {
            let is_merged = w.is_parent(&it.file) && w.inode.is_none_or(|i| i == it.seal.inode);
            let is_on = w.merged && below.is_some_and(|below| w.is_parent(&below.file));
            is_merged || is_on && !w.is_child(&it.file)
        })
    };
    let touched = sealed.iter().zip(below).filter(is_touched);
    touched.map(|(it, _)| it).collect()
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

/// Removes the copy of the definition, durably, and the folders above it that are empty then.
///
/// # Errors
/// It is there and cannot be removed.
pub(super) fn undefine(member: &Member) -> Result<(), EngineError> {
    let copy = &member.definition;
    let gone = held::discard(copy, COPY_FOLDERS, None);
    let gone = gone.and_then(|()| match held::remove_folders(copy, COPY_FOLDERS - 1) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        removed => removed,
    });
    gone.map_err(|cause| EngineError {
        kind: EngineErrorKind::of(&cause),
        text: texts::DEFINITION_UNREMOVED
            .with("machine", &member.name)
            .with("cause", cause),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Inodes;
    use crate::held::Origin;
    use crate::inventory::{Format, Seal};

    fn sealed(names: &[&str]) -> Vec<Sealed> {
        let one = |(n, name): (usize, &&str)| Sealed {
            file: Path::new("/nowhere").join(name),
            seal: Seal {
                inode: u64::try_from(n).unwrap(),
                length: 0,
                modified: (0, 0),
                changed: (0, 0),
            },
        };
        names.iter().enumerate().map(one).collect()
    }

    #[test]
    fn a_merge_touches_the_lower_file_and_what_lies_right_on_it() {
        let merge = |inode: Option<u64>| Merge {
            machine: crate::id::VmId::random(),
            disk: "disk0".into(),
            parent: "/nowhere/parent".into(),
            parent_format: Format::Qcow2,
            child: "/nowhere/child".into(),
            inodes: Inodes {
                parent: inode.map(Origin::numbered),
                child: None,
            },
        };
        let chain = ["top", "upper", "parent", "base"];
        let before = ["top", "child", "parent", "base"];
        let table: [(&[&str], _, _, &[&str]); 6] = [
            (&chain, true, Some(2), &["upper", "parent"]),
            (&chain, false, Some(2), &["parent"]),
            (&before, true, None, &["parent"]),
            // Another file than the one that was merged into.
            (&chain, false, Some(7), &[]),
            (&["upper", "base"], true, Some(2), &[]),
            (&[], true, None, &[]),
        ];
        for (names, merged, inode, expected) in table {
            let written = [Written::of(&merge(inode), merged)];
            let seals = sealed(names);
            let touched = touched(&seals, &written).into_iter();
            let touched: Vec<_> = touched.filter_map(|s| s.file.file_name()).collect();
            assert_eq!(touched, expected, "{names:?} {merged} {inode:?}");
        }
    }
}
