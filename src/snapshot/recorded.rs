//! What the records of sets beside their files tell and the database does not, and the other way round: found at each
//! start, before anything is done with the files of sets, and made right by whoever is asked for it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use crate::engine::is_in_files;
use crate::id::{SetId, SnapshotId, VmId};
use crate::inventory::{SnapshotDisk, SnapshotSet};
use crate::snapshot::care;
use crate::snapshot::forgotten::{self, Forgotten};
use crate::snapshot::kinds::KINDS;
use crate::store::record::{self, SETS, SetRecord};
use crate::store::{Held, State};

/// The most sets that one line names.
const NAMED: usize = 8;

/// A disk of a set with files that are not where they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Away {
    /// The set.
    pub set: SetId,
    /// Its name.
    pub name: String,
    /// The snapshot of the machine.
    pub snapshot: SnapshotId,
    /// The disk.
    pub disk: String,
    /// The files: below `sets/` of the data directory, and not there.
    pub files: Vec<PathBuf>,
}

/// What differs. Sets of operations that have not ended are left out, but for those that only their record tells of and
/// nobody is making: what destroys a part of such a set needs the rest to be known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differing {
    /// Sets that only a record tells of.
    pub unknown: Vec<SetRecord>,
    /// Sets that the database holds as they were before.
    pub newer: Vec<SetRecord>,
    /// Records that cannot be relied on, each with the reason.
    pub unreadable: Vec<(SetId, String)>,
    /// Those of them that are of sets that the database does not know: what such a set was, nobody knows.
    pub beyond: BTreeSet<SetId>,
    /// Sets that should have a record, by name.
    pub unrecorded: Vec<(SetId, String)>,
    /// Sets whose files are away.
    pub away: Vec<Away>,
    /// Records to be written: sets that have none, or one that says something else than the database.
    pub stale: Vec<SetRecord>,
    /// Sets of which only their folder is left. They keep no server from starting.
    pub forgotten: Vec<Forgotten>,
    /// Operations that have not ended.
    pub open: usize,
}

/// Compares the database of a data directory with the records below it. Blocks.
///
/// # Errors
/// A folder cannot be read.
pub fn compare(data_dir: &Path, state: &State, held: Held) -> io::Result<Differing> {
    let busy = care::in_flight(data_dir)?;
    let mut found = Differing {
        open: busy.open,
        forgotten: forgotten::find(data_dir, KINDS, |id| state.sets.contains_key(&id))?,
        ..Differing::default()
    };
    let is_told = |id: &SetId| busy.made.contains(id) || state.sets.contains_key(id);
    let wanted = |id| !busy.sets.contains(&id) || !is_told(&id);
    let mut records = record::all(data_dir, wanted)?;
    for set in state.sets.values().filter(|s| !busy.sets.contains(&s.id)) {
        let now = SetRecord::new(set, &state.collections, held.transactions);
        let mut told: &SnapshotSet = set;
        // An operation on a machine of it that has not ended may be changing it, record first.
        let is_at_rest = !set
            .members
            .iter()
            .any(|m| busy.machines.contains(&m.machine));
        match records.remove(&set.id) {
            None => {
                if held.recorded {
                    found.unrecorded.push((set.id, set.name.clone()));
                }
                found.stale.extend(is_at_rest.then_some(now));
            }
            Some(Err(why)) => found.unreadable.push((set.id, why)),
            Some(Ok(record))
                if is_at_rest && is_later(record.transaction, held) && record.set != now.set =>
            {
                found.newer.push(record);
                told = found.newer.last().map_or(told, |newer| &newer.set);
            }
            Some(Ok(record)) if record.says(&now) => {}
            Some(Ok(_)) => found.stale.extend(is_at_rest.then_some(now)),
        }
        // Of two records the later one tells which files there are.
        let away: Vec<_> = away(data_dir, told, &busy.machines).collect();
        found.away.extend(away);
    }
    for (id, read) in records {
        match read {
            Ok(record) => {
                let away: Vec<_> = away(data_dir, &record.set, &busy.machines).collect();
                found.away.extend(away);
                found.unknown.push(record);
            }
            Err(why) => {
                found.beyond.insert(id);
                found.unreadable.push((id, why));
            }
        }
    }
    Ok(found)
}

/// Whether a transaction that a record was written for is one that the database has lost. The last one may have died
/// between its records and its commit, unless it is counted: that comes after the commit.
fn is_later(transaction: u64, held: Held) -> bool {
    let next = held.transactions.saturating_add(1);
    transaction > next || (transaction == next && transaction <= held.counted)
}

fn away<'a>(
    data_dir: &Path,
    set: &'a SnapshotSet,
    busy: &'a BTreeSet<VmId>,
) -> impl Iterator<Item = Away> + use<'a> {
    let sets = data_dir.join(SETS);
    let members = set.members.iter().filter(|m| !busy.contains(&m.machine));
    let disks = members.flat_map(|m| m.disks.iter().map(move |d| (m, d)));
    disks.filter_map(move |(member, disk)| {
        let files = gone(&sets, disk);
        (!files.is_empty()).then(|| Away {
            set: set.id,
            name: set.name.clone(),
            snapshot: member.id,
            disk: disk.id.clone(),
            files,
        })
    })
}

/// Files of the disk below `sets` that are not there, and of which nobody knows that yet. Images, and clones beside
/// them, may be on a mount of their own that comes later.
fn gone(sets: &Path, disk: &SnapshotDisk) -> Vec<PathBuf> {
    if !is_in_files(disk) {
        return Vec::new();
    }
    let known: Vec<_> = disk.damage.iter().flat_map(|d| &d.files).collect();
    let sealed = disk.sealed.iter().map(|s| &s.file);
    let files: BTreeSet<_> = sealed.chain([&disk.file]).collect();
    let ours = files.into_iter().filter(|f| f.starts_with(sets));
    let gone = ours.filter(|file| !known.contains(file) && is_gone(file));
    gone.cloned().collect()
}

pub(crate) fn is_gone(file: &Path) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    let found = file.symlink_metadata();
    found.is_err_and(|e| matches!(e.kind(), NotFound | NotADirectory))
}

impl Differing {
    /// What matters before the operations in flight have come to their end: they may bring the rest about.
    #[must_use]
    pub fn before_recovery(mut self) -> Self {
        self.unrecorded.clear();
        self.away.clear();
        self
    }

    /// The sets that the database does not know, or not as they were last, by name.
    #[must_use]
    pub fn lost(&self) -> Option<String> {
        let lost: Vec<_> = self.unknown.iter().chain(&self.newer).collect();
        let name = |r: &&SetRecord| format!("`{}` {}", r.set.name, r.set.id);
        (!lost.is_empty()).then(|| named(&lost, name))
    }

    /// In one line what differs and what to do; `None` if a server may work on the directory.
    #[must_use]
    pub fn told(&self, data_dir: &Path) -> Option<String> {
        let mut parts = Vec::new();
        if let Some(sets) = self.lost() {
            parts.push(format!(
                "the database does not hold these snapshot sets, or not as they were last: {sets}"
            ));
        }
        let unreadable = self.unreadable.iter();
        let (beyond, known): (Vec<_>, Vec<_>) =
            unreadable.partition(|(id, _)| self.beyond.contains(id));
        let file = |(id, why): &&(SetId, String)| {
            format!("{} {why}", record::path(data_dir, *id).display())
        };
        if !known.is_empty() {
            let files = named(&known, file);
            parts.push(format!(
                "records of snapshot sets cannot be relied on: {files}"
            ));
        }
        if !self.unrecorded.is_empty() {
            let sets = named(&self.unrecorded, |(id, name)| format!("`{name}` {id}"));
            let file = record::FILE;
            parts.push(format!(
                "the records ({file}) of these snapshot sets are away: {sets}"
            ));
        }
        if !self.away.is_empty() {
            let mut sets: BTreeMap<SetId, &Away> = BTreeMap::new();
            for away in &self.away {
                sets.entry(away.set).or_insert(away);
            }
            let sets: Vec<_> = sets.into_values().collect();
            let sets = named(&sets, |away| {
                let file = away.files.first().map(|f| f.display().to_string());
                let (name, file) = (&away.name, file.unwrap_or_default());
                format!("`{name}` {} ({file})", away.set)
            });
            parts.push(format!(
                "files that these snapshot sets need are away: {sets}"
            ));
        }
        let here = data_dir.display();
        let made_again = (!parts.is_empty()).then(|| {
            format!(
                "{}; put the database and {SETS}/ of {here} back as they belong together (a mount, a backup), or run `groupshot doctor --rebuild --data-dir {here}`, which shows what it makes again from what is there",
                parts.join("; ")
            )
        });
        let by_hand = (!beyond.is_empty()).then(|| {
            format!(
                "records of snapshot sets that the database does not know cannot be relied on: {}; `groupshot doctor --rebuild --data-dir {here}` cannot bring these sets back: put each record back from a backup, or move the folder of the set out of {SETS}/, and the set is lost",
                named(&beyond, file)
            )
        });
        let parts: Vec<_> = made_again.into_iter().chain(by_hand).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

/// The first of them, and how many more there are.
fn named<T>(all: &[T], name: impl Fn(&T) -> String) -> String {
    let mut names: Vec<_> = all.iter().take(NAMED).map(name).collect();
    if let Some(more) = all.len().checked_sub(NAMED).filter(|more| *more > 0) {
        names.push(format!("and {more} more"));
    }
    names.join(", ")
}
