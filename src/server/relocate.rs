//! `groupshot relocate`: recorded paths after the data directory or image folders were moved.
//!
//! ```text
//!   look, check everything ▶ relocate.json ▶ headers ▶ tops.json ▶ vm.toml ▶ records ▶ links ▶ relocate.json goes
//! ```
//!
//! `relocate.json` says what will stand where, so what a dead process began is done again from its start, and no
//! server starts meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::clock::SystemClock;
use crate::document;
use crate::engine::EngineError;
use crate::engine::graph::is_file;
use crate::engine::library;
use crate::engine::relocate::{
    Active, Defined, Held, Move, Moves, Named, Naming, Places, Survey, take_along,
};
use crate::failpoint;
use crate::held;
use crate::id::{SetId, SnapshotId};
use crate::inventory::{Damage, Leftover, Machine, Seal, Sealed, SnapshotDisk, SnapshotSet};
use crate::snapshot::{RecordedSets, is_blank, seal_open};
use crate::store::sqlite::SqliteStore;
use crate::store::{Change, State, Store};

use super::adapters::roots;
use super::astray::{Place, left_of, whose};
use super::identity::{self, Standing};
use super::likeness::{Differing, Likeness};
use super::parts::Parts;
use super::{JOURNAL, StartError, library_dir, raise_open_files, take_store};

/// What was begun, in the data directory.
pub(super) const FILE: &str = "relocate.json";
const FORMAT: u32 = 2;
/// Of a version that recorded no inodes and cleared seals.
const OLD_FORMAT: u32 = 1;

/// Every fail point, in the order in which they are passed.
pub const RELOCATE_FAILPOINTS: &[&str] = &[
    "relocate.planned.before",
    "relocate.planned.after",
    "relocate.header.after",
    "relocate.active.after",
    "relocate.definition.after",
    "relocate.records.after",
    "relocate.links.after",
    "relocate.bound.after",
    "relocate.clear.after",
];

/// What was, or will be, written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relocated {
    /// Where that stands.
    pub state: Relocation,
    /// What was moved.
    pub moves: Vec<Move>,
    /// Each path: what names it, and where it leads.
    pub changes: Vec<(String, PathBuf)>,
    /// Lines of the operator's definitions that go on naming the old place.
    pub yours: Vec<Defined>,
    /// What keeps it from being done.
    pub problems: Vec<String>,
    /// What the operator should know.
    pub notes: Vec<String>,
    /// The frozen files that are copies, each to be confirmed.
    pub differing: Vec<Differing>,
    /// How many of them nobody has confirmed.
    pub unconfirmed: usize,
    /// The data directory is another one than it was, and its paths would not all lead into it.
    pub astray: bool,
}

/// How far a relocation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relocation {
    /// Nothing was asked for, and nothing is begun.
    Unasked,
    /// Checked, and nothing is written.
    Planned,
    /// A process began it and died.
    Begun,
    /// All of it is written.
    Done,
}

/// The file [`FILE`]: it may be carried out any number of times.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    format: u32,
    moves: Vec<Move>,
    headers: Vec<Naming>,
    active: Vec<Active>,
    definitions: Vec<Defined>,
    disks: Vec<KeptDisk>,
    copies: Vec<KeptCopy>,
    seals: Vec<KeptSeals>,
    /// Of what deleted sets have left: copies that count as that, by the old path. An older version took none along.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    left: Vec<Sealed>,
    /// Folders outside of which no header is written, whoever goes on with it; none from an older version, and anywhere if
    /// there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    roots: Vec<PathBuf>,
}

/// A snapshot will name this file of a disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct KeptDisk {
    set: SetId,
    snapshot: SnapshotId,
    disk: String,
    file: PathBuf,
}

/// A snapshot will name this copy of its machine's definition.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct KeptCopy {
    set: SetId,
    snapshot: SnapshotId,
    definition: PathBuf,
}

/// The seals of this disk name files that were moved or are written.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct KeptSeals {
    set: SetId,
    snapshot: SnapshotId,
    disk: String,
    /// What was changed before the move goes on being told.
    damage: Option<Damage>,
    /// Its seals then, but for the files whose headers are written; of an older version: those that it has, by the new
    /// paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealed: Option<Vec<Sealed>>,
}

/// Looks what of a data directory names paths in folders that were moved, and checks what lies in the new
/// places; with `apply` writes the new paths, those in `vm.toml` only if `definitions` are asked for, if each frozen file
/// that is a copy is confirmed. No header of a file outside `folders` is written, if there are any. What a dead process
/// began is finished instead.
///
/// # Errors
/// [`StartError`]; after an error with `apply` it may be called again.
pub async fn relocate(
    data_dir: &Path,
    moves: &Moves,
    folders: &[PathBuf],
    (definitions, apply): (bool, bool),
    confirm: &(dyn Fn(&Differing) -> bool + Sync),
) -> Result<Relocated, StartError> {
    raise_open_files();
    let data_dir = library_dir(data_dir)?;
    let store = take_store(&data_dir)?;
    let asked = moves.all();
    let standing = identity::look(&data_dir)?;
    if let Some(plan) = begun(&data_dir)? {
        if !asked.is_empty() && asked != plan.moves.as_slice() {
            return Err(unfinished(&data_dir, &plan));
        }
        let mut told = plan.told(Relocation::Begun);
        if apply {
            plan.require_own(&data_dir, &standing)?;
            let held = plan.hold(&data_dir, folders)?;
            told.notes = plan.carry_out(&data_dir, &store, &held).await?;
            told.state = Relocation::Done;
        }
        return Ok(told);
    }
    if asked.is_empty() {
        return Ok(Plan::new(asked).told(Relocation::Unasked));
    }
    nothing_in_flight(&data_dir)?;
    find_out_what_is_silent(&data_dir);
    let state = store.state();
    // What it holds stays held until all of it is written.
    let places = places(&data_dir, moves, folders)?;
    let survey = Survey::take(&data_dir, &places, &named(&state));
    let survey = survey.map_err(StartError::failed)?;
    let (mut plan, mut told) = plan(&state, &places, moves, definitions, &survey);
    plan.roots = folders.to_owned();
    if let Standing::Other(binding, found) = &standing {
        let place = Place {
            data_dir: &data_dir,
            binding: binding.as_ref(),
            moves,
            definitions,
        };
        let astray = place.astray(&state, &survey, &BTreeSet::new());
        told.astray = !astray.is_empty();
        told.problems.extend(astray);
        let unbound = told.changes.is_empty();
        told.notes
            .extend(unbound.then(|| identity::told(&data_dir, binding.as_ref(), found)));
    }
    if apply && told.problems.is_empty() {
        told.unconfirmed = told.differing.iter().filter(|d| !confirm(d)).count();
        if told.unconfirmed > 0 {
            return Ok(told);
        }
        if !told.changes.is_empty() {
            plan.begin(&data_dir)?;
            let notes = plan.carry_out(&data_dir, &store, &survey.held).await?;
            told.notes.extend(notes);
        }
        told.state = Relocation::Done;
    }
    Ok(told)
}

/// The files that are named, of which none outside `folders` is written (anywhere if there are none).
fn places(data_dir: &Path, moves: &Moves, folders: &[PathBuf]) -> Result<Places, StartError> {
    let places = Places::of(data_dir, moves).map_err(StartError::failed)?;
    Ok(places.within(roots(data_dir, folders)))
}

/// What is to be written, and how that is told.
fn plan(
    state: &State,
    places: &Places,
    moves: &Moves,
    definitions: bool,
    survey: &Survey,
) -> (Plan, Relocated) {
    let mut plan = Plan::new(moves.all());
    plan.headers.clone_from(&survey.headers);
    plan.active.clone_from(&survey.active);
    let mut yours = survey.definitions.clone();
    if definitions {
        plan.definitions = std::mem::take(&mut yours);
    }
    let mut problems = survey.problems.clone();
    plan.records(state, moves, &mut problems);
    let now = SystemClock::shared().now();
    let differing = plan.keep_seals(state, places, moves, now);
    let mut told = plan.told(Relocation::Planned);
    let (copies, others): (Vec<_>, Vec<_>) =
        differing.into_iter().partition(|d| d.copied.is_some());
    told.differing = copies;
    told.notes.clone_from(&survey.notes);
    told.notes.extend(others.iter().map(|d| {
        let file = d.file.display();
        format!("{}: {file}: {}; it counts as damaged", d.whose, d.how)
    }));
    told.notes
        .extend(survey.unlike.iter().map(|(whose, file, cause)| {
            let file = file.display();
            format!("{whose}: {file}: {cause}, and no --from tells that it was moved")
        }));
    told.notes.sort();
    told.notes.dedup();
    (told.problems, told.yours) = (problems, yours);
    (plan, told)
}

/// Refuses a data directory that was moved: its files are not where machines and sets name them, so nothing could be
/// captured, applied or recovered, and what is written meanwhile would lie beside them.
///
/// # Errors
/// [`StartError::Failed`] naming the old place and the command.
pub(super) async fn in_place(parts: &Parts, data_dir: &Path) -> Result<(), StartError> {
    let coordinator = parts.coordinator.clone();
    let from = tokio::task::spawn_blocking(move || coordinator.moved_from()).await;
    let from = from.map_err(StartError::failed)?;
    match from.first() {
        None => Ok(()),
        Some(from) => Err(StartError::Failed(moved(data_dir, from))),
    }
}

/// A data directory that was moved, in words.
pub(super) fn moved(here: &Path, from: &Path) -> String {
    let (here, from) = (here.display(), from.display());
    format!(
        "{here} was moved: recorded paths lie in {from}, and their files are here; move it back, or run `groupshot relocate --data-dir {here} --from {from} --apply`"
    )
}

/// Where the data directory was when the active file of one of these machines was recorded, if that lies there no more
/// and is here.
pub(super) fn moved_with<'m>(
    data_dir: &Path,
    machines: impl IntoIterator<Item = &'m Machine>,
) -> Option<PathBuf> {
    let mut disks = machines.into_iter().flat_map(|machine| &machine.disks);
    disks.find_map(|disk| moved_from(data_dir, &disk.file))
}

/// The same by the files of sets.
pub(super) fn moved_with_sets(data_dir: &Path, state: &State) -> Option<PathBuf> {
    let mut members = state.sets.values().flat_map(|set| &set.members);
    members.find_map(|member| {
        let disks = member.disks.iter().filter(|disk| is_file(disk));
        let mut files = disks.map(|disk| disk.file.as_path()).peekable();
        let definition = files.peek().is_some().then_some(&*member.definition);
        let mut files = files.chain(definition);
        files.find_map(|file| moved_from(data_dir, file))
    })
}

/// Where the data directory was when this file of it was recorded.
fn moved_from(data_dir: &Path, file: &Path) -> Option<PathBuf> {
    let mut above = file.ancestors().filter(|a| a.ends_with(held::SETS));
    let from = above.find_map(|sets| {
        let here = data_dir
            .join(held::SETS)
            .join(file.strip_prefix(sets).ok()?);
        let from = sets.parent()?;
        (from != data_dir && held::is_file(&here)).then(|| from.to_owned())
    })?;
    (!held::is_file(file)).then_some(from)
}

/// Refuses a data directory whose relocation is begun and not finished.
///
/// # Errors
/// [`StartError::Failed`] says how to finish it.
pub(super) fn settled(data_dir: &Path) -> Result<(), StartError> {
    match begun(data_dir)? {
        Some(plan) => Err(unfinished(data_dir, &plan)),
        None => Ok(()),
    }
}

/// Refuses a data directory that may not be written to as it is: its relocation is not finished, or it is another one
/// than it was.
///
/// # Errors
/// [`StartError`] says what to do.
pub(super) fn writable(data_dir: &Path) -> Result<(), StartError> {
    settled(data_dir)?;
    identity::require(data_dir)
}

fn unfinished(data_dir: &Path, plan: &Plan) -> StartError {
    let moves = plan.moves.iter();
    let moves = moves.map(|m| format!("{} to {}", m.from.display(), m.to.display()));
    StartError::Failed(format!(
        "a relocation ({}) was begun and not finished: run `groupshot relocate --apply --data-dir {}`",
        moves.collect::<Vec<_>>().join(", "),
        data_dir.display()
    ))
}

fn begun(data_dir: &Path) -> Result<Option<Plan>, StartError> {
    let file = data_dir.join(FILE);
    let failed = |e: &dyn std::fmt::Display| StartError::Failed(format!("{}: {e}", file.display()));
    let bytes = match held::read(&file) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|e| StartError::file(data_dir, &file, &e))?,
    };
    let plan = document::read::<Plan>(&bytes).map_err(|e| {
        StartError::Failed(format!(
            "{} {e}: a relocation was begun, and what of it is written is not known; put the file back from a backup, or move it away and give the same command again (`groupshot relocate --data-dir {} --apply` with every --from, and with --here where that was given), which finds what still names the old places; frozen files that were written already count as changed then, until `groupshot doctor --fix` accepts them",
            file.display(),
            data_dir.display()
        ))
    })?.body;
    match plan.format {
        FORMAT | OLD_FORMAT => Ok(Some(plan)),
        other => Err(failed(&format!(
            "has format {other}, this program reads {FORMAT}: finish with the program that wrote it"
        ))),
    }
}

/// The journals name paths too, and recovery follows them.
fn nothing_in_flight(data_dir: &Path) -> Result<(), StartError> {
    let folder = data_dir.join(JOURNAL);
    let entries = match fs::read_dir(&folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|e| StartError::file(data_dir, &folder, &e))?,
    };
    // What is blank waits for an operation to come: a server that was killed left it.
    let open = entries.filter_map(Result::ok).filter(|entry| {
        let file = entry.path();
        file.extension().is_some_and(|e| e == "log") && !is_blank(&file)
    });
    match open.count() {
        0 => Ok(()),
        open => Err(StartError::Failed(format!(
            "operations in flight in {}: {open}; move everything back, run `groupshot rescue`, and move it again",
            folder.display()
        ))),
    }
}

/// The disk files of every snapshot.
pub(super) fn named(state: &State) -> Vec<Named> {
    let members = state.sets.values().flat_map(|set| &set.members);
    let disks = members.flat_map(|m| m.disks.iter().map(move |d| (m, d)));
    let disks = disks.filter(|(_, d)| is_file(d));
    disks
        .map(|(member, disk)| Named {
            machine: member.machine_name.clone(),
            disk: disk.id.clone(),
            file: disk.file.clone(),
            format: disk.format,
            size: Some(disk.size),
        })
        .collect()
}

impl KeptSeals {
    fn apply(&self, disk: &mut SnapshotDisk, moves: &Moves, written: &BTreeMap<PathBuf, Seal>) {
        disk.damage.clone_from(&self.damage);
        match &self.sealed {
            Some(sealed) => disk.sealed.clone_from(sealed),
            None => {
                let sealed = disk.sealed.iter_mut();
                sealed.for_each(|s| s.file = moves.or_same(&s.file));
            }
        }
        let damaged = self.damage.iter().flat_map(|d| &d.files);
        let damaged: BTreeSet<_> = damaged.collect();
        for sealed in &mut disk.sealed {
            let now = written.get(&sealed.file);
            let now = now.filter(|now| now.inode == sealed.seal.inode);
            if let Some(now) = now.filter(|_| !damaged.contains(&sealed.file)) {
                sealed.seal = *now;
            }
        }
    }
}

impl Plan {
    fn new(moves: &[Move]) -> Self {
        Self {
            format: FORMAT,
            moves: moves.to_vec(),
            headers: Vec::new(),
            active: Vec::new(),
            definitions: Vec::new(),
            disks: Vec::new(),
            copies: Vec::new(),
            seals: Vec::new(),
            left: Vec::new(),
            roots: Vec::new(),
        }
    }

    /// What becomes of the seals, after the headers to write are known: those of what is provably the same stay, those of
    /// copies are theirs once they are confirmed, and the rest is told as damage. Gives what differs.
    fn keep_seals(
        &mut self,
        state: &State,
        places: &Places,
        moves: &Moves,
        now: Timestamp,
    ) -> Vec<Differing> {
        let written: BTreeSet<_> = self.headers.iter().map(|h| h.file.clone()).collect();
        let (mut differing, mut looked) = (BTreeSet::new(), BTreeMap::new());
        for set in state.sets.values() {
            let disks = set.members.iter();
            for (member, disk) in disks.flat_map(|m| m.disks.iter().map(move |d| (m, d))) {
                let mut sealed = disk.sealed.iter();
                if !sealed.any(|s| moves.map(&s.file).is_some() || written.contains(&s.file)) {
                    continue;
                }
                let known = disk.damage.iter().flat_map(|d| &d.files);
                let mut files: BTreeSet<_> =
                    known.map(|f| places.real(&moves.or_same(f))).collect();
                let mut kept = Vec::new();
                for old in &disk.sealed {
                    let (file, mut seal) = (places.real(&moves.or_same(&old.file)), old.seal);
                    let whose = whose(set, member, disk);
                    let is_it = looked
                        .entry(old.clone())
                        .or_insert_with(|| Likeness::of(places, &whose, &file, &seal));
                    match is_it {
                        Likeness::Differs(it) if !files.contains(&file) => match it.copied {
                            Some(now) => {
                                seal = now;
                                differing.insert(it.clone());
                            }
                            None => {
                                differing.insert(it.clone());
                                files.insert(file.clone());
                            }
                        },
                        Likeness::Same | Likeness::Gone | Likeness::Differs(_) => {}
                    }
                    kept.push(Sealed { file, seal });
                }
                let noticed = disk.damage.as_ref().map_or(now, |d| d.noticed);
                self.seals.push(KeptSeals {
                    set: set.id,
                    snapshot: member.id,
                    disk: disk.id.clone(),
                    damage: (!files.is_empty()).then(|| Damage {
                        files: files.into_iter().collect(),
                        noticed,
                    }),
                    sealed: Some(kept),
                });
            }
        }
        for left in state.leftovers.values() {
            let Some(old) = left.sealed.as_ref() else {
                continue;
            };
            let Some(file) = moves.map(&old.file) else {
                continue;
            };
            let whose = left_of(left);
            let found = Likeness::of(places, &whose, &places.real(&file), &old.seal);
            // What was changed is not ours to remove, as before the move.
            if let Likeness::Differs(it) = found
                && let Some(seal) = it.copied
            {
                let file = left.file.clone();
                self.left.push(Sealed { file, seal });
                differing.insert(it);
            }
        }
        differing.into_iter().collect()
    }

    /// What will stand in the records of snapshots.
    fn records(&mut self, state: &State, moves: &Moves, problems: &mut Vec<String>) {
        for set in state.sets.values() {
            for member in &set.members {
                let (set, snapshot) = (set.id, member.id);
                for disk in member.disks.iter().filter(|d| is_file(d)) {
                    self.disks
                        .extend(moves.map(&disk.file).map(|file| KeptDisk {
                            set,
                            snapshot,
                            disk: disk.id.clone(),
                            file,
                        }));
                }
                let Some(definition) = moves.map(&member.definition) else {
                    continue;
                };
                if !definition.is_file() {
                    problems.push(format!("{} is not there", definition.display()));
                }
                self.copies.push(KeptCopy {
                    set,
                    snapshot,
                    definition,
                });
            }
        }
    }

    fn told(&self, state: Relocation) -> Relocated {
        let mut changes = Vec::new();
        for it in &self.headers {
            changes.push((
                format!("backing file of {}", it.file.display()),
                it.backing.clone(),
            ));
        }
        for it in &self.active {
            let what = format!("active file of machine {}, disk {}", it.machine, it.disk);
            changes.push((what, it.top.file.clone()));
        }
        for it in &self.definitions {
            let what = format!("{}:{}: disk {}", it.definition.display(), it.line, it.disk);
            changes.push((what, it.to.clone()));
        }
        for it in &self.disks {
            let what = format!("snapshot {}, disk {}", it.snapshot, it.disk);
            changes.push((what, it.file.clone()));
        }
        for it in &self.copies {
            let what = format!("snapshot {}, definition", it.snapshot);
            changes.push((what, it.definition.clone()));
        }
        Relocated {
            state,
            moves: self.moves.clone(),
            changes,
            yours: Vec::new(),
            problems: Vec::new(),
            notes: Vec::new(),
            differing: Vec::new(),
            unconfirmed: 0,
            astray: false,
        }
    }

    /// Whether it was begun in this data directory, and not in one that this is a copy of.
    fn require_own(&self, data_dir: &Path, standing: &Standing) -> Result<(), StartError> {
        let Standing::Other(binding, found) = standing else {
            return Ok(());
        };
        let moves = Moves::default();
        let place = Place {
            data_dir,
            binding: None,
            moves: &moves,
            definitions: false,
        };
        let headers = self.headers.iter().flat_map(|h| [&h.file, &h.backing]);
        let actives = self.active.iter().map(|a| &a.top.file);
        let disks = self.disks.iter().map(|d| &d.file);
        let mut files = headers.chain(actives).chain(disks);
        match files.find(|file| place.elsewhere(file).is_some()) {
            None => Ok(()),
            Some(file) => Err(StartError::Refused(format!(
                "{}; its {FILE} is a copy too: it would write {}",
                identity::told(data_dir, binding.as_ref(), found),
                file.display()
            ))),
        }
    }

    /// Makes the plan durable: from here on it is only gone on with.
    fn begin(&self, data_dir: &Path) -> Result<(), StartError> {
        pass("planned", "before")?;
        let bytes = document::write(self).map_err(StartError::failed)?;
        held::replace(&data_dir.join(FILE), &bytes, 0o640)
            .map_err(|e| failed(data_dir, io::Error::from(e)))?;
        pass("planned", "after")
    }

    /// Holds every image whose header will be written, after the process that planned is dead.
    fn hold(&self, data_dir: &Path, folders: &[PathBuf]) -> Result<Held, StartError> {
        let moves = Moves::new(self.moves.clone()).map_err(StartError::Failed)?;
        let places = places(data_dir, &moves, folders)?.within(roots(data_dir, &self.roots));
        let headers = self.headers.iter();
        let held = headers.map(|h| Ok((h.file.clone(), h.hold(&places)?)));
        let held: Result<_, EngineError> = held.collect();
        held.map_err(StartError::failed)
    }

    /// Writes all of it. Gives what the operator should know.
    async fn carry_out(
        &self,
        data_dir: &Path,
        store: &SqliteStore,
        held: &Held,
    ) -> Result<Vec<String>, StartError> {
        let mut written = BTreeMap::new();
        for header in &self.headers {
            let Some(image) = held.get(&header.file) else {
                return Err(failed(&header.file, io::ErrorKind::NotFound.into()));
            };
            header.write(image).map_err(StartError::failed)?;
            pass("header", "after")?;
            let seal = seal_open(image.file()).map_err(|e| failed(&header.file, e))?;
            written.insert(header.file.clone(), seal);
        }
        for active in &self.active {
            active.write(data_dir).map_err(|e| failed(data_dir, e))?;
            pass("active", "after")?;
        }
        let shown = self.shown(&written);
        take_along(data_dir, self.moves.clone(), &shown).map_err(|e| failed(data_dir, e))?;
        for it in &self.definitions {
            it.write().map_err(|e| failed(&it.definition, e))?;
            pass("definition", "after")?;
        }
        let plan = self.clone();
        let changes = Box::new(move |state: &State| plan.changes(state, &written));
        store.transact(changes).await.map_err(StartError::failed)?;
        pass("records", "after")?;
        // By the new paths it is judged which files may be active.
        let notes = self.link(data_dir, store.state())?;
        pass("links", "after")?;
        identity::renew(data_dir)?;
        pass("bound", "after")?;
        held::remove_file(&data_dir.join(FILE))
            .and_then(|_| held::sync_folder(data_dir))
            .map_err(|e| failed(data_dir, e))?;
        pass("clear", "after")?;
        Ok(notes)
    }

    /// Has the links of machines lead to the new places: whoever starts one by its link writes where that leads, in a copy
    /// to the original. Gives those that could not be made, and machines that have none.
    ///
    /// # Errors
    /// A link is left that leads elsewhere.
    fn link(&self, data_dir: &Path, state: Arc<State>) -> Result<Vec<String>, StartError> {
        let sets = RecordedSets::with(data_dir, state);
        let moves = Moves::new(self.moves.clone()).map_err(StartError::Failed)?;
        let is_moved = |to: &Path| moves.map(to).is_some();
        let judge = move |machine: &Machine| sets.judge_tops(machine);
        let linked = library::link_all(data_dir, judge, &is_moved)?;
        if let Some(left) = linked.unmade.iter().find(|it| it.astray) {
            return Err(StartError::io(
                data_dir,
                &io::Error::new(
                    left.error.kind(),
                    format!(
                        "{left}: by it a machine is started from a file that is not its active one; put it right and run `groupshot relocate --apply --data-dir {}` again",
                        data_dir.display()
                    ),
                ),
            ));
        }
        let unmade = linked.unmade.iter();
        let unmade = unmade.map(|it| it.text().english());
        let unvouched = linked.unvouched.iter().map(|(why, gone)| {
            let gone = gone
                .iter()
                .map(|link| format!("; {} led to what was moved and is removed", link.display()));
            why.told() + &gone.collect::<String>()
        });
        Ok(unmade.chain(unvouched).collect())
    }

    /// The sealed files that are what was sealed, or copies that were confirmed, as they are to be now.
    fn shown(&self, written: &BTreeMap<PathBuf, Seal>) -> BTreeMap<PathBuf, Seal> {
        let mut shown = BTreeMap::new();
        for kept in &self.seals {
            let damaged: BTreeSet<_> = kept.damage.iter().flat_map(|d| &d.files).collect();
            let sealed = kept.sealed.iter().flatten();
            for sealed in sealed.filter(|s| !damaged.contains(&s.file)) {
                let now = written.get(&sealed.file);
                let now = now.filter(|now| now.inode == sealed.seal.inode);
                shown.insert(sealed.file.clone(), *now.unwrap_or(&sealed.seal));
            }
        }
        shown
    }

    /// The records of snapshots with their new paths.
    fn changes(&self, state: &State, written: &BTreeMap<PathBuf, Seal>) -> Vec<Change> {
        let moves = Moves::new(self.moves.clone()).unwrap_or_default();
        let renamed = |old: &SnapshotSet| {
            let mut new = old.clone();
            for member in &mut new.members {
                let mine = |set: SetId, id: SnapshotId| set == old.id && id == member.id;
                for disk in &mut member.disks {
                    let mut all = self.disks.iter();
                    if let Some(it) = all.find(|d| mine(d.set, d.snapshot) && d.disk == disk.id) {
                        disk.file.clone_from(&it.file);
                    }
                    let mut all = self.seals.iter();
                    if let Some(it) = all.find(|d| mine(d.set, d.snapshot) && d.disk == disk.id) {
                        it.apply(disk, &moves, written);
                    }
                }
                if let Some(it) = self.copies.iter().find(|c| mine(c.set, c.snapshot)) {
                    member.definition.clone_from(&it.definition);
                }
            }
            (new != *old).then_some(Change::PutSet(new))
        };
        let sets = state.sets.values().filter_map(|set| renamed(set));
        sets.chain(self.leftovers(state, &moves)).collect()
    }

    /// What deleted sets have left, with its new paths.
    fn leftovers(&self, state: &State, moves: &Moves) -> Vec<Change> {
        let moved = state.leftovers.values().filter_map(|old| {
            let mut new = Leftover {
                file: moves.map(&old.file)?,
                ..old.clone()
            };
            if let Some(sealed) = &mut new.sealed
                && let Some(file) = moves.map(&sealed.file)
            {
                sealed.file = file;
                let copied = self.left.iter().find(|copy| copy.file == old.file);
                sealed.seal = copied.map_or(sealed.seal, |copy| copy.seal);
            }
            Some([
                Change::RemoveLeftover(old.file.clone()),
                Change::PutLeftover(new),
            ])
        });
        moved.flatten().collect()
    }
}

/// Looks at the files of all machines, so that nobody stands later at one that does not answer.
pub(super) fn find_out_what_is_silent(data_dir: &Path) {
    let _told_by_the_survey = library::scan(data_dir);
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "made for map_err, which hands over what it has"
)]
fn failed(file: &Path, cause: io::Error) -> StartError {
    let text = format!("{}: {cause}", file.display());
    match cause.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            StartError::Denied(text)
        }
        _ => StartError::Failed(text),
    }
}

fn pass(step: &str, side: &str) -> Result<(), StartError> {
    failpoint::pass(&format!("relocate.{step}.{side}")).map_err(StartError::failed)
}
