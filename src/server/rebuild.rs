//! `groupshot doctor --rebuild`: what the database has lost is made again from the records of sets beside their files.
//!
//! ```text
//!   look: what differs ▶ shown ▶ records that will be replaced are copied aside ▶ one transaction
//! ```
//!
//! A row of the database gives way only to a record of a later transaction than the database holds: one that is counted,
//! or more than one later, as the last may have died before its commit. Killed before its
//! transaction nothing has changed; after it there is nothing left to do.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use crate::audit::About;
use crate::clock::SystemClock;
use crate::engine::definition::{self, MACHINES};
use crate::engine::graph::{is_clone, is_file};
use crate::failpoint;
use crate::held;
use crate::id::{CollectionId, SetId, SnapshotId, VmId};
use crate::inventory::{
    Collection, Damage, Ended, Ending, Position, Seal, Sealed, Snapshot, SnapshotDisk, SnapshotSet,
    What,
};
use crate::snapshot::destroy::removal;
use crate::snapshot::{Away, Differing, compare, is_changed, is_gone, move_to_orphans};
use crate::store::lock::LockError;
use crate::store::record::{self, SETS, SetRecord};
use crate::store::sqlite::{Looked, OpenError, SqliteStore};
use crate::store::{Change, State, Store};

use super::identity::{self, Standing};
use super::{StartError, existing_data_dir, lacks_database, records};

/// Every fail point, in the order in which they are passed; those of the store between the last two.
pub const REBUILD_FAILPOINTS: &[&str] = &[
    "rebuild.aside.after",
    "rebuild.written.before",
    "rebuild.written.after",
];

/// Where records are copied to before they are replaced, below the data directory.
const ASIDE: &str = "orphans";
/// As whose work it stands in the history.
const OWNER: &str = "doctor";

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RebuildState {
    /// There is nothing to make again.
    Whole,
    /// Nothing is written yet.
    Planned,
    /// It is written.
    Done,
}

/// What is, or was, made again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuild {
    /// Where that stands.
    pub state: RebuildState,
    /// Sets that come back, or as they were last.
    pub sets: Vec<SnapshotSet>,
    /// Collections that come back with them.
    pub collections: Vec<Collection>,
    /// Machines that stand on another snapshot then, by name.
    pub positions: Vec<Stands>,
    /// Sets that go, by name: neither their record nor a copy of a definition is there, and what they kept was merged or
    /// removed, as after a delete that the database has lost.
    pub destroyed: Vec<(SetId, String)>,
    /// Sets whose record is written anew, by name.
    pub records: Vec<(SetId, String)>,
    /// Disks whose files are away: they count as damaged from then on.
    pub damaged: Vec<Away>,
    /// Disks whose files are not as they were captured, as after a delete that the database has lost: they count as
    /// damaged too.
    pub changed: Vec<Away>,
    /// The transactions that the database holds and those that it had, if it has lost some.
    pub behind: Option<(u64, u64)>,
    /// What somebody has to do by hand.
    pub problems: Vec<String>,
    /// Operations that have not ended; the next start ends them.
    pub open: usize,
}

/// A machine and the snapshot that it stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stands {
    /// The machine.
    pub machine: VmId,
    /// Its name at the cut.
    pub name: String,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The set of that.
    pub set: SetId,
}

/// What will be written.
struct Plan {
    told: Rebuild,
    /// Each set that is put.
    sets: BTreeMap<SetId, SnapshotSet>,
    positions: Vec<(VmId, Position)>,
    /// What takes those that go out of the records.
    gone: Vec<Change>,
    /// Records to be copied aside.
    aside: Vec<SetId>,
}

/// Tells what the database of a data directory has lost and can be made again; with `apply` makes it. May be repeated.
///
/// # Errors
/// [`StartError`]; a server must not run.
pub async fn rebuild(data_dir: &Path, apply: bool) -> Result<Rebuild, StartError> {
    let data_dir = existing_data_dir(data_dir)?;
    identity::require_no_original(&data_dir)?;
    let looked = SqliteStore::look(&data_dir).map_err(stop_first)?;
    let plan = plan(&data_dir, &looked)?;
    if !apply || plan.told.state == RebuildState::Whole {
        return Ok(plan.told);
    }
    for id in &plan.aside {
        let copied = copy_aside(&data_dir, *id);
        copied.map_err(|e| StartError::file(&data_dir, &record::path(&data_dir, *id), &e))?;
    }
    pass("aside.after")?;
    pass("written.before")?;
    let store = SqliteStore::open_to_rebuild(&data_dir).map_err(stop_first)?;
    let (changes, mut told) = (plan.changes(SystemClock::shared().now()), plan.told);
    let written = store.transact(Box::new(move |_| changes)).await;
    written.map_err(StartError::failed)?;
    pass("written.after")?;
    told.state = RebuildState::Done;
    Ok(told)
}

fn stop_first(error: OpenError) -> StartError {
    match error {
        OpenError::Lock(LockError::Busy { .. }) => {
            StartError::Busy(format!("stop the server first: {error}"))
        }
        other => other.into(),
    }
}

fn plan(data_dir: &Path, looked: &Looked) -> Result<Plan, StartError> {
    let state = &looked.state;
    let found = compare(data_dir, state, looked.held);
    let mut found = found.map_err(|e| StartError::io(data_dir, &e))?;
    let destroyed = destroyed(data_dir, state, &found);
    found.unrecorded.retain(|(id, _)| !destroyed.contains(id));
    found.away.retain(|away| !destroyed.contains(&away.set));
    let gone = gone(state, &destroyed);
    let names = destroyed.iter().filter_map(|id| state.sets.get(id));
    let destroyed = names.map(|set| (set.id, set.name.clone())).collect();
    let state = &without(state, &gone);
    let (held, counted) = (looked.held.transactions, looked.held.counted);
    let mut plan = Plan {
        told: Rebuild {
            state: RebuildState::Planned,
            sets: lost(&found),
            collections: collections(state, &found),
            positions: Vec::new(),
            destroyed,
            records: found.unrecorded.clone(),
            damaged: found.away.clone(),
            changed: Vec::new(),
            behind: (counted > held).then_some((held, counted)),
            problems: Vec::new(),
            open: found.open,
        },
        sets: BTreeMap::new(),
        positions: Vec::new(),
        gone,
        aside: Vec::new(),
    };
    plan.unreadable(data_dir, state, &found);
    plan.put(state, SystemClock::shared().now());
    plan.replace(data_dir, state)?;
    plan.stand(data_dir, state);
    plan.told.changed = changed(&plan.sets);
    let told = &mut plan.told;
    if plan.sets.is_empty() && plan.gone.is_empty() && told.behind.is_none() {
        told.state = RebuildState::Whole;
        if told.problems.is_empty() && lacks_database(data_dir)? {
            told.problems.push(format!(
                "there is no database, and no record tells of the snapshot sets that the files in {} are of: put one or the other back from a backup; or, to start empty, move {SETS}/ away",
                data_dir.join(SETS).display()
            ));
        }
    }
    Ok(plan)
}

/// The sets of which a destroy that the database has lost has left neither the record nor a copy of a definition, nor all
/// that they kept as it was: it has merged or removed that. Where only the folder of a set is gone, its files are as they
/// were sealed; where another set needs a file that was in such a folder, or no record of any set is there, a mount may be
/// missing; and where a clone of the set is there beside its image, no destroy has gone.
fn destroyed(data_dir: &Path, state: &State, found: &Differing) -> BTreeSet<SetId> {
    let sets = data_dir.join(SETS);
    // Seals of what was copied tell nothing.
    if !matches!(
        identity::look(data_dir),
        Ok(Standing::Bound(_) | Standing::New)
    ) {
        return BTreeSet::new();
    }
    let (is_there, machines) = (records::any(data_dir), data_dir.join(MACHINES));
    // A mount with its image may be missing as well.
    let has_image = |member: &Snapshot, disk: &SnapshotDisk| {
        let stored = definition::stored(&machines, member.machine).ok().flatten();
        let image = stored.and_then(|mut stored| stored.images.remove(&disk.id));
        image.is_some_and(|image| !is_gone(&image.file))
    };
    let is_removed = |member: &Snapshot, disk: &SnapshotDisk| {
        is_gone(&disk.file)
            && match is_clone(&disk.file) {
                true => has_image(member, disk),
                false => is_there && disk.file.starts_with(&sets),
            }
    };
    let unrecorded = found.unrecorded.iter();
    let unrecorded = unrecorded.filter_map(|(id, _)| state.sets.get(id));
    let has_gone = |set: &&Arc<SnapshotSet>| {
        let members = set.members.iter();
        let on_files = members.filter(|m| m.disks.iter().any(is_file));
        let mut copies = on_files.map(|m| &m.definition).peekable();
        let mut disks = set.members.iter().flat_map(|m| &m.disks);
        let members = set.members.iter();
        let kept: Vec<_> = members
            .flat_map(|m| m.disks.iter().map(move |d| (m, d)))
            .collect();
        copies.peek().is_some()
            && copies.all(|copy| is_gone(copy))
            && disks.all(|disk| !is_clone(&disk.file) || is_gone(&disk.file))
            && (kept
                .iter()
                .any(|(m, d)| is_removed(m, d) || d.sealed.iter().any(is_another))
                || kept.iter().all(|(_, d)| d.sealed.iter().any(is_rewritten)))
    };
    let gone: BTreeSet<_> = unrecorded.filter(has_gone).map(|set| set.id).collect();
    let others = found.away.iter().filter(|away| !gone.contains(&away.set));
    let needed: Vec<_> = others.flat_map(|away| &away.files).collect();
    let is_needed = |id: &SetId| {
        let folder = sets.join(id.to_string());
        needed.iter().any(|file| file.starts_with(&folder))
    };
    gone.into_iter().filter(|id| !is_needed(id)).collect()
}

/// Whether a sealed file is there with another inode or length, which nobody who only touched it has left.
fn is_another(sealed: &Sealed) -> bool {
    let key = |seal: &Seal| (seal.inode, seal.length);
    stands(&sealed.file).is_some_and(|now| key(&now) != key(&sealed.seal))
}

/// Whether a sealed file is there and was written since.
fn is_rewritten(sealed: &Sealed) -> bool {
    stands(&sealed.file).is_some_and(|now| now.modified != sealed.seal.modified)
}

/// The seal of what stands there now, if anything does.
fn stands(file: &Path) -> Option<Seal> {
    let now = held::symlink_metadata(file).ok()?;
    Some(Seal::of(&now))
}

/// What takes these sets out of the records.
fn gone(state: &State, sets: &BTreeSet<SetId>) -> Vec<Change> {
    let sets = sets.iter().filter_map(|id| state.sets.get(id));
    let members = sets.flat_map(|set| &set.members);
    let parents: BTreeMap<_, _> = members.map(|m| (m.id, m.parent)).collect();
    match parents.is_empty() {
        true => Vec::new(),
        false => removal(state, &parents),
    }
}

/// The state after that.
fn without(state: &State, gone: &[Change]) -> State {
    let mut state = state.clone();
    let (sets, positions) = (
        Arc::make_mut(&mut state.sets),
        Arc::make_mut(&mut state.positions),
    );
    for change in gone {
        match change {
            Change::RemoveSet(id) => drop(sets.remove(id)),
            Change::PutSet(set) => drop(sets.insert(set.id, Arc::new(set.clone()))),
            Change::PutPosition(machine, at) => drop(positions.insert(*machine, at.clone())),
            _ => {}
        }
    }
    state
}

/// The disks of these sets with files that are there and not as they were sealed. Nobody has told that yet.
fn changed(sets: &BTreeMap<SetId, SnapshotSet>) -> Vec<Away> {
    let mut found = Vec::new();
    for set in sets.values() {
        let disks = set.members.iter();
        for (member, disk) in disks.flat_map(|m| m.disks.iter().map(move |d| (m, d))) {
            let known: Vec<_> = disk.damage.iter().flat_map(|d| &d.files).collect();
            let sealed = disk.sealed.iter().filter(|s| !known.contains(&&s.file));
            let files: BTreeSet<_> = sealed
                .filter(|s| is_changed(s))
                .map(|s| s.file.clone())
                .collect();
            if !files.is_empty() {
                found.push(Away {
                    set: set.id,
                    name: set.name.clone(),
                    snapshot: member.id,
                    disk: disk.id.clone(),
                    files: files.into_iter().collect(),
                });
            }
        }
    }
    found
}

fn lost(found: &Differing) -> Vec<SnapshotSet> {
    let records = found.unknown.iter().chain(&found.newer);
    let mut sets: Vec<_> = records.map(|r| r.set.clone()).collect();
    sets.sort_by_key(|set| (set.created, set.id));
    sets
}

/// The collections of sets that only records tell of, as the newest of these has them.
fn collections(state: &State, found: &Differing) -> Vec<Collection> {
    let mut records: Vec<_> = found.unknown.iter().collect();
    records.sort_by_key(|r| (r.set.created, r.set.id));
    let all = records.into_iter().flat_map(|r| &r.collections);
    let lost = all.filter(|c| !state.collections.contains_key(&c.id));
    let lost: BTreeMap<CollectionId, Collection> = lost.map(|c| (c.id, c.clone())).collect();
    lost.into_values().collect()
}

impl Plan {
    fn unreadable(&mut self, data_dir: &Path, state: &State, found: &Differing) {
        let forgotten = found.forgotten.iter();
        let told = forgotten.map(|set| format!("{}: {}", set.folder.display(), set.told(data_dir)));
        self.told.problems.extend(told);
        for (id, why) in &found.unreadable {
            match state.sets.get(id) {
                Some(set) => {
                    self.told.records.push((*id, set.name.clone()));
                }
                None => self.told.problems.push(format!(
                    "{} {why}, and the database does not know that set: put the record back from a backup, or move it away, and what it names is lost",
                    record::path(data_dir, *id).display()
                )),
            }
        }
    }

    /// Every set that is written, with what is away of it.
    fn put(&mut self, state: &State, now: Timestamp) {
        let lost = self.told.sets.iter().map(|set| (set.id, set.clone()));
        self.sets.extend(lost);
        let known = |id: &SetId| Some((*id, SnapshotSet::clone(state.sets.get(id)?)));
        let records = self.told.records.iter().filter_map(|(id, _)| known(id));
        self.sets.extend(records.collect::<Vec<_>>());
        for away in &self.told.damaged {
            if !self.sets.contains_key(&away.set) {
                self.sets.extend(known(&away.set));
            }
            let set = self.sets.get_mut(&away.set);
            let members = set.into_iter().flat_map(|set| &mut set.members);
            let member = members.filter(|m| m.id == away.snapshot);
            let mut disks = member.flat_map(|m| &mut m.disks);
            if let Some(disk) = disks.find(|d| d.id == away.disk) {
                let damage = disk.damage.get_or_insert(Damage {
                    files: Vec::new(),
                    noticed: now,
                });
                damage.files.extend(away.files.iter().cloned());
            }
        }
    }

    /// The records of what is written that are there and say something else.
    ///
    /// # Errors
    /// One cannot be read.
    fn replace(&mut self, data_dir: &Path, state: &State) -> Result<(), StartError> {
        let lost = self.told.collections.iter();
        let lost = lost.map(|c| (c.id, Arc::new(c.clone())));
        let mut collections = BTreeMap::clone(&state.collections);
        collections.extend(lost);
        for set in self.sets.values() {
            let new = SetRecord::new(set, &collections, 0);
            let old = record::read(data_dir, set.id).map_err(|e| StartError::io(data_dir, &e))?;
            if old.is_some_and(|old| !old.is_ok_and(|old| old.says(&new))) {
                self.aside.push(set.id);
            }
        }
        Ok(())
    }

    /// Where the machines of sets that come back stand: on the snapshot of the set that their active file was made by,
    /// or on the last one.
    fn stand(&mut self, data_dir: &Path, state: &State) {
        let lost = self.told.sets.iter().map(|set| set.id).collect::<Vec<_>>();
        let mut all: BTreeMap<SetId, &SnapshotSet> = BTreeMap::new();
        all.extend(state.sets.iter().map(|(id, set)| (*id, &**set)));
        all.extend(self.sets.iter().map(|(id, set)| (*id, set)));
        let mut of: BTreeMap<VmId, Vec<(SetId, &Snapshot)>> = BTreeMap::new();
        for (id, member) in all
            .values()
            .flat_map(|s| s.members.iter().map(|m| (s.id, m)))
        {
            of.entry(member.machine).or_default().push((id, member));
        }
        let actives = actives(data_dir);
        for (machine, snapshots) in of {
            let newest = snapshots.iter().max_by_key(|(_, m)| m.cut_at);
            let came = |(set, _): &&(SetId, &Snapshot)| lost.contains(set);
            let last = snapshots.iter().filter(came).map(|(_, m)| m.cut_at).max();
            let Some(last) = last else { continue };
            let by_file = snapshots
                .iter()
                .find(|(set, _)| actives.get(&machine) == Some(set));
            let old = state.position(machine);
            let find = |id: SnapshotId| snapshots.iter().find(|(_, m)| m.id == id);
            let known = old.parent.and_then(find).filter(|(_, m)| m.cut_at >= last);
            let Some((set, stands)) = by_file.or(known).or(newest) else {
                continue;
            };
            let new = Position {
                parent: Some(stands.id),
                last_applied: old.last_applied.filter(|id| find(*id).is_some()),
            };
            if new != old {
                self.told.positions.push(Stands {
                    machine,
                    name: stands.machine_name.clone(),
                    snapshot: stands.id,
                    set: *set,
                });
                self.positions.push((machine, new));
            }
        }
    }

    /// All of it in one transaction, which also notes that it was done.
    fn changes(&self, now: Timestamp) -> Vec<Change> {
        let mut changes: Vec<_> = self
            .told
            .collections
            .iter()
            .cloned()
            .map(Change::PutCollection)
            .collect();
        changes.extend(self.gone.iter().cloned());
        let mut about = About::default();
        for (id, name) in &self.told.destroyed {
            about = about.set(*id, name);
        }
        for set in self.sets.values() {
            about = about.set(set.id, &set.name);
            changes.push(Change::PutSet(set.clone()));
        }
        for (machine, position) in &self.positions {
            changes.push(Change::PutPosition(*machine, position.clone()));
        }
        changes.push(Change::Ended(Ended {
            what: What::Repair,
            outcome: Ending::Completed,
            job: None,
            user: OWNER.to_owned(),
            about,
            started: now,
            ended: now,
            reason: "the database was made again from the records of snapshot sets".to_owned(),
            code: None,
            recovered: false,
        }));
        changes
    }
}

/// The set that has made the active file of a machine, where one has: `sets/<set>/<machine>/<file>`.
fn actives(data_dir: &Path) -> BTreeMap<VmId, SetId> {
    let sets = data_dir.join(SETS);
    let tops = definition::recorded_tops(data_dir).into_iter();
    let made = tops.filter_map(|(_, _, top)| {
        let below = top.file.strip_prefix(&sets).ok()?;
        let mut names = below.iter().map(|name| name.to_str().unwrap_or_default());
        let (set, machine) = (names.next()?, names.next()?);
        Some((machine.parse().ok()?, set.parse().ok()?))
    });
    made.collect()
}

/// Keeps a record before it is written anew. What is no file is moved away.
fn copy_aside(data_dir: &Path, set: SetId) -> io::Result<()> {
    let from = record::path(data_dir, set);
    if !from.symlink_metadata()?.is_file() {
        return move_to_orphans(data_dir, &from).map(drop);
    }
    let to: PathBuf = data_dir.join(ASIDE).join(set.to_string());
    held::make_folders(&to, 2)?;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut held::open(&from, false)?, &mut bytes)?;
    // Of two that differ both are kept.
    let numbered = (1_u32..).map(|n| format!("{}.{n}", record::FILE));
    for name in std::iter::once(record::FILE.to_owned()).chain(numbered) {
        let file = to.join(name);
        match held::read(&file) {
            Ok(old) if old != bytes => {}
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => return Ok(held::replace(&file, &bytes, 0o640)?),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn pass(point: &str) -> Result<(), StartError> {
    failpoint::pass(&format!("rebuild.{point}")).map_err(StartError::failed)
}
