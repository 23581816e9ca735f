//! The sets that anything is known of: those of the store, and those of which only the record beside their files is
//! there. What one of them names is needed, whoever asks.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::engine::{EngineError, EngineErrorKind, Machines, Recorded, Top};
use crate::held::NotReplaced;
use crate::id::{SetId, VmId};
use crate::inventory::{Snapshot, SnapshotDisk, SnapshotSet};
use crate::snapshot::saga::core::Core;
use crate::store::State;
use crate::store::record::{self, SETS, SetRecord};
use crate::text::catalog::snapshot as texts;

/// An active file that no machine tells.
#[derive(Debug, Clone)]
pub(crate) struct Unread {
    /// Its machine.
    pub(crate) machine: VmId,
    /// Its disk.
    pub(crate) disk: String,
    /// The file.
    pub(crate) top: Top,
    /// All that it is recorded to lie on.
    pub(crate) below: Vec<PathBuf>,
}

/// The active files that none of these machines tells: those of machines that are in the library and cannot be read now,
/// and of disks that a definition has lost. They are needed with all that they lie on, as it is recorded. Not those of
/// the machine `but`. Blocks.
///
/// # Errors
/// It is not recorded what such a machine needs: that may be any file.
pub(crate) fn unread(
    core: &Core,
    machines: &Machines,
    but: Option<VmId>,
) -> Result<Vec<Unread>, EngineError> {
    unread_of(core.deps.compute.recorded()?, machines, but)
}

/// [`unread`] of what is recorded.
///
/// # Errors
/// As there.
pub(crate) fn unread_of(
    all: Vec<Recorded>,
    machines: &Machines,
    but: Option<VmId>,
) -> Result<Vec<Unread>, EngineError> {
    let unknown = |id: VmId, file: &Path| {
        let text = texts::ACTIVE_UNKNOWN.with("machine", id);
        EngineError {
            kind: EngineErrorKind::Failed,
            text: text.with("file", file.display()),
        }
    };
    let mut unread = Vec::new();
    for it in all.into_iter().filter(|it| Some(it.machine) != but) {
        let (id, file) = (it.machine, it.file);
        let actives = it.active.ok_or_else(|| unknown(id, &file))?;
        let machine = machines.get(&id);
        if machine.is_none() && !actives.complete {
            return Err(unknown(id, &file));
        }
        let is_told = |disk: &str| machine.is_some_and(|m| m.disks.iter().any(|d| d.id == disk));
        let actives = actives.all.into_iter();
        for active in actives.filter(|active| !is_told(&active.disk)) {
            let below = match active.below {
                Some(below) => below,
                // A disk that its definition has no more; an older version has recorded its file alone.
                None if machine.is_some() => Vec::new(),
                None => return Err(unknown(id, &file)),
            };
            unread.push(Unread {
                machine: id,
                disk: active.disk,
                top: active.top,
                below,
            });
        }
    }
    Ok(unread)
}

/// Whether a machine is gone for good: nothing of it is in the library, and no collection and no set names it, as
/// `vm remove` requires. One that cannot be read, or whose folder is set aside for a moment, is not. Blocks.
pub(crate) fn is_gone_for_good(core: &Core, machine: VmId) -> bool {
    let state = core.deps.store.state();
    let mut collections = state.collections.values();
    core.deps.compute.recorded_of(machine).is_none()
        && !collections.any(|collection| collection.machines.contains(&machine))
        && !Known::of(core)
            .members()
            .any(|member| member.machine == machine)
}

/// All sets at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    sets: BTreeMap<SetId, Arc<SnapshotSet>>,
    /// Records of sets that the store does not know and that cannot be understood, each with the reason.
    pub(crate) unreadable: Vec<(PathBuf, String)>,
}

impl Known {
    /// What is known now. Blocks.
    pub(crate) fn of(core: &Core) -> Self {
        // A set that is published meanwhile had its record before that, and has it on.
        Self::in_state(&core.deps.data_dir, &core.deps.store.state())
    }

    /// What this state of the store and the records of sets tell. Blocks.
    pub(crate) fn in_state(data_dir: &Path, state: &State) -> Self {
        Self::with(data_dir, BTreeMap::clone(&state.sets))
    }

    /// What the records of sets alone tell. Blocks.
    pub(crate) fn recorded(data_dir: &Path) -> Self {
        Self::with(data_dir, BTreeMap::new())
    }

    /// These.
    #[cfg(test)]
    pub(crate) fn of_sets(sets: impl IntoIterator<Item = SnapshotSet>) -> Self {
        let sets = sets.into_iter().map(|set| (set.id, Arc::new(set)));
        Self {
            sets: sets.collect(),
            unreadable: Vec::new(),
        }
    }

    fn with(data_dir: &Path, sets: BTreeMap<SetId, Arc<SnapshotSet>>) -> Self {
        let there: BTreeSet<_> = sets.keys().copied().collect();
        let wanted = |id| !there.contains(&id);
        let mut known = Self {
            sets,
            unreadable: Vec::new(),
        };
        match record::all(data_dir, wanted) {
            Ok(records) => {
                for (id, read) in records {
                    match read {
                        Ok(record) => drop(known.sets.insert(id, Arc::new(record.set))),
                        Err(why) => known.unreadable.push((record::path(data_dir, id), why)),
                    }
                }
            }
            Err(error) => {
                let why = format!("cannot be read: {error}");
                known.unreadable.push((data_dir.join(SETS), why));
            }
        }
        known
    }

    /// The same, if each record that matters can be understood.
    ///
    /// # Errors
    /// One of them cannot: nobody knows what it names.
    pub(crate) fn whole(self) -> Result<Self, EngineError> {
        match self.unreadable.first() {
            None => Ok(self),
            Some((file, why)) => Err(EngineError {
                kind: EngineErrorKind::Failed,
                text: texts::SET_UNREADABLE
                    .with("file", file.display())
                    .with("cause", why),
            }),
        }
    }

    /// Each set.
    pub(crate) fn sets(&self) -> impl Iterator<Item = &Arc<SnapshotSet>> {
        self.sets.values()
    }

    /// The set of that id.
    pub(crate) fn set(&self, id: SetId) -> Option<&Arc<SnapshotSet>> {
        self.sets.get(&id)
    }

    /// Each snapshot of a machine.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Snapshot> {
        self.sets().flat_map(|set| &set.members)
    }

    /// Each captured disk.
    pub(crate) fn disks(&self) -> impl Iterator<Item = &SnapshotDisk> {
        self.members().flat_map(|member| &member.disks)
    }
}

/// Writes the record of a set beside its files, durably.
///
/// # Errors
/// It cannot be written now, or nobody knows what is on the disk.
pub(crate) fn record(core: &Core, record: &SetRecord) -> Result<(), EngineError> {
    let written = record.ensure(&core.deps.data_dir);
    written.map_err(|error| unrecorded(core, record.set.id, error))
}

/// What the record of a set beside its files says, if it is there.
///
/// # Errors
/// It cannot be read or understood: nobody knows what it names.
pub(crate) fn read(core: &Core, set: SetId) -> Result<Option<SetRecord>, EngineError> {
    let read = record::read(&core.deps.data_dir, set);
    let read = read.map_err(|e| unrecorded(core, set, NotReplaced::Refused(e)))?;
    read.transpose().map_err(|why| {
        let file = record::path(&core.deps.data_dir, set);
        let text = texts::SET_UNREADABLE.with("file", file.display());
        EngineError {
            kind: EngineErrorKind::Failed,
            text: text.with("cause", why),
        }
    })
}

/// Removes the record of a set beside its files, durably.
///
/// # Errors
/// It cannot be removed now, or nobody knows what is on the disk.
pub(crate) fn forget(core: &Core, set: SetId) -> Result<(), EngineError> {
    let removed = record::remove(&core.deps.data_dir, set);
    removed.map_err(|error| unrecorded(core, set, error))
}

fn unrecorded(core: &Core, set: SetId, error: NotReplaced) -> EngineError {
    let kind = match &error {
        NotReplaced::Refused(e) => EngineErrorKind::of(e),
        NotReplaced::Broken(_) => EngineErrorKind::Broken,
    };
    let file = record::path(&core.deps.data_dir, set);
    let text = texts::SET_UNRECORDED
        .with("set", set)
        .with("file", file.display())
        .with("cause", io::Error::from(error));
    EngineError { kind, text }
}
