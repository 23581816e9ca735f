//! `groupshot relocate --here`: a data directory that was copied or restored becomes one of its own.
//!
//! ```text
//!   look: where do all names lead, is each file as it was sealed ▶ what is confirmed is recorded and sealed anew ▶ a new id
//! ```
//!
//! Before the new id is written nothing but this command works on the directory, so all of it may be killed and
//! begun again.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::engine::relocate::{Moves, Places, Survey, take_copies};
use crate::failpoint;
use crate::held;
use crate::id::{DirectoryId, SetId};
use crate::inventory::{Leftover, Seal, Sealed, Snapshot, SnapshotDisk, SnapshotSet};
use crate::snapshot::{named_by_journals, of_each_disk};
use crate::store::{Change, State, Store};

use super::identity::{self, Binding, Standing};
use super::likeness::{Differing, Likeness};
use super::relocate::{find_out_what_is_silent, named, settled};
use super::{StartError, existing_data_dir, raise_open_files, take_store};

/// Every fail point, in the order in which they are passed.
pub const HERE_FAILPOINTS: &[&str] = &[
    "here.sealed.before",
    "here.images.after",
    "here.sealed.after",
    "here.bound.after",
];

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HereState {
    /// It is bound here, or has no id yet: there is nothing to do.
    Bound,
    /// Checked, and nothing is written.
    Planned,
    /// It was bound.
    Done,
}

/// What was found, and done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Here {
    /// Where that stands.
    pub state: HereState,
    /// The id that it has now, if it is bound.
    pub id: Option<DirectoryId>,
    /// Why it is not bound, in words.
    pub found: String,
    /// The files that are not as they are recorded.
    pub differing: Vec<Differing>,
    /// How many of them nobody has confirmed.
    pub unconfirmed: usize,
    /// What keeps it from being bound.
    pub problems: Vec<String>,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// Checks everything that a data directory names, and with `apply` binds it to where it is, if each file that is not
/// as recorded is confirmed. What was copied is sealed as it is now; what was changed goes on being told as damage.
///
/// # Errors
/// [`StartError`]; after an error with `apply` it may be called again.
pub async fn here(
    data_dir: &Path,
    apply: bool,
    confirm: &(dyn Fn(&Differing) -> bool + Sync),
) -> Result<Here, StartError> {
    raise_open_files();
    let data_dir = existing_data_dir(data_dir)?;
    let store = take_store(&data_dir)?;
    settled(&data_dir)?;
    let mut told = Here {
        state: HereState::Bound,
        id: None,
        found: String::new(),
        differing: Vec::new(),
        unconfirmed: 0,
        problems: Vec::new(),
        notes: Vec::new(),
    };
    let binding = match identity::look(&data_dir)? {
        Standing::New => return Ok(told),
        Standing::Bound(binding) => {
            told.id = Some(binding.id());
            return Ok(told);
        }
        Standing::Other(binding, found) => {
            (told.state, told.found) = (HereState::Planned, found);
            find_out_what_is_silent(&data_dir);
            binding
        }
    };
    let state = store.state();
    let moves = Moves::default();
    let places = Places::of(&data_dir, &moves).map_err(StartError::failed)?;
    let survey = Survey::take(&data_dir, &places, &named(&state));
    let survey = survey.map_err(StartError::failed)?;
    let journals = named_by_journals(&data_dir).map_err(StartError::failed)?;
    let place = Place {
        data_dir: &data_dir,
        binding: binding.as_ref(),
        moves: &moves,
        definitions: false,
    };
    told.problems = place.astray(&state, &survey, &journals.named);
    told.problems.extend(journals.unreadable);
    if journals.open > 0 {
        told.notes.push(format!(
            "operations in flight: {}; the next start ends them",
            journals.open
        ));
    }
    told.differing = differing(&state, &survey, &places);
    if !apply || !told.problems.is_empty() {
        return Ok(told);
    }
    told.unconfirmed = told.differing.iter().filter(|d| !confirm(d)).count();
    if told.unconfirmed > 0 {
        return Ok(told);
    }
    let copied = told.differing.iter();
    let copied = copied.filter_map(|d| Some((d.file.clone(), d.copied?)));
    let copied: BTreeMap<_, _> = copied.collect();
    pass("sealed.before")?;
    take_copies(&data_dir, &copied).map_err(StartError::failed)?;
    pass("images.after")?;
    let changes = Box::new(move |state: &State| resealed(state, &copied));
    store.transact(changes).await.map_err(StartError::failed)?;
    pass("sealed.after")?;
    let id = DirectoryId::random();
    identity::bind(&data_dir, id)?;
    pass("bound.after")?;
    (told.state, told.id) = (HereState::Done, Some(id));
    Ok(told)
}

/// A data directory that is not bound where it is, as it will be once these folders count as moved.
pub(super) struct Place<'a> {
    pub(super) data_dir: &'a Path,
    pub(super) binding: Option<&'a Binding>,
    pub(super) moves: &'a Moves,
    /// Whether the operator's definitions will name the new places too.
    pub(super) definitions: bool,
}

impl Place<'_> {
    /// The names that lead into another data directory, or to what the original names too: whoever merges there takes
    /// it from the other.
    pub(super) fn astray(
        &self,
        state: &State,
        survey: &Survey,
        journaled: &BTreeSet<PathBuf>,
    ) -> Vec<String> {
        let mut all: BTreeMap<PathBuf, String> = survey.files.clone();
        for file in journaled {
            let whose = "an operation in flight".to_owned();
            all.entry(file.clone()).or_insert(whose);
        }
        for member in state.sets.values().flat_map(|set| &set.members) {
            let file = self.moves.or_same(&member.definition);
            let whose = format!("the definition of machine {}", member.machine_name);
            all.entry(file).or_insert(whose);
        }
        for left in state.leftovers.values() {
            let whose = format!("machine {}, disk {}", left.machine_name, left.disk);
            all.entry(self.moves.or_same(&left.file)).or_insert(whose);
        }
        let mut found: BTreeMap<PathBuf, Vec<(&PathBuf, &String)>> = BTreeMap::new();
        for (file, whose) in &all {
            if let Some(other) = self.elsewhere(file) {
                found.entry(other).or_default().push((file, whose));
            }
        }
        let here = self.data_dir.display();
        let told = found.iter().filter_map(|(other, files)| {
            let (file, whose) = files.first()?;
            let (other, file) = (other.display(), file.display());
            Some(format!(
                "{} of its paths lead into the data directory {other}, as {file} ({whose}): `groupshot relocate --data-dir {here} --from {other} --apply` makes them lead into this one, and binds it",
                files.len()
            ))
        });
        let mut told: Vec<_> = told.collect();
        told.extend(self.shared(state, survey));
        told
    }

    /// Another data directory, if the file is one of its own.
    pub(super) fn elsewhere(&self, file: &Path) -> Option<PathBuf> {
        let real = file.parent().and_then(|f| held::canonicalize(f).ok());
        if real.is_some_and(|real| real.starts_with(self.data_dir)) {
            return None;
        }
        let is_id = |name: Option<&std::ffi::OsStr>| {
            name.and_then(|n| n.to_str())
                .is_some_and(|n| n.parse::<SetId>().is_ok())
        };
        // `sets/<set>/<machine>/<file>`
        let machine = file.parent()?;
        let set = machine.parent()?;
        let sets = set.parent()?;
        let ours =
            sets.ends_with(held::SETS) && is_id(machine.file_name()) && is_id(set.file_name());
        let other = sets.parent().filter(|_| ours)?;
        (other != self.data_dir).then(|| other.to_owned())
    }

    /// What lies elsewhere and operations may write or remove, where the original is seen to be there.
    fn shared(&self, state: &State, survey: &Survey) -> Vec<String> {
        let from: Vec<_> = self.moves.all().iter().map(|m| m.from.as_path()).collect();
        let original = self.binding.and_then(|b| b.original(self.data_dir, &from));
        let Some(original) = original else {
            return Vec::new();
        };
        let mut written: BTreeMap<PathBuf, String> = BTreeMap::new();
        let mut add = |recorded: &Path, now: PathBuf, whose: String| {
            // By a link or another mount it may be the same file in its new place.
            if is_same(&now, recorded) {
                written.entry(now).or_insert(whose);
            }
        };
        for (recorded, whose) in &survey.written {
            add(recorded, self.moves.or_same(recorded), whose.clone());
        }
        for path in &survey.paths {
            let now = match self.definitions {
                true => self.moves.or_same(&path.file),
                false => path.file.clone(),
            };
            let whose = format!("machine {}, disk {}", path.machine, path.disk);
            add(&path.file, now, whose);
        }
        for left in state.leftovers.values() {
            let whose = format!("machine {}, disk {}", left.machine_name, left.disk);
            add(&left.file, self.moves.or_same(&left.file), whose);
        }
        let outside = written.iter().filter(|(file, _)| {
            let real = held::canonicalize(file);
            let real = real.unwrap_or_else(|_| file.to_path_buf());
            !real.starts_with(self.data_dir) && self.elsewhere(file).is_none()
        });
        let told = outside.map(|(file, whose)| {
            format!(
                "{whose}: {} is named by the original too, which is still in {}: copy it, and give --from, --to (both twice with the data directory) and --definitions; or move the original away if it is never used again",
                file.display(),
                original.display()
            )
        });
        told.collect()
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    let id = |file: &Path| held::metadata(file).ok().map(|m| (m.dev(), m.ino()));
    one == other || (id(one).is_some() && id(one) == id(other))
}

/// The files that are not as they are recorded.
fn differing(state: &State, survey: &Survey, places: &Places) -> Vec<Differing> {
    let mut found = BTreeSet::new();
    for (whose, file, how) in &survey.unlike {
        found.insert(Differing {
            whose: whose.clone(),
            file: file.clone(),
            how: how.clone(),
            copied: None,
        });
    }
    for set in state.sets.values() {
        for member in &set.members {
            for disk in &member.disks {
                let whose = whose(set, member, disk);
                let known = disk.damage.iter().flat_map(|d| &d.files);
                let known: BTreeSet<_> = known.collect();
                let sealed = disk.sealed.iter().filter(|s| !known.contains(&s.file));
                found.extend(sealed.filter_map(|s| unlike(places, &whose, s)));
            }
        }
    }
    for left in state.leftovers.values() {
        let whose = left_of(left);
        let sealed = left.sealed.iter();
        found.extend(sealed.filter_map(|s| unlike(places, &whose, s)));
    }
    found.into_iter().collect()
}

/// Whose file it is, in words.
pub(super) fn whose(set: &SnapshotSet, member: &Snapshot, disk: &SnapshotDisk) -> String {
    format!(
        "set `{}` {}, machine {}, disk {}",
        set.name, set.id, member.machine_name, disk.id
    )
}

/// The same of what a deleted set has left.
pub(super) fn left_of(left: &Leftover) -> String {
    format!(
        "what is left of machine {}, disk {}",
        left.machine_name, left.disk
    )
}

fn unlike(places: &Places, whose: &str, sealed: &Sealed) -> Option<Differing> {
    match Likeness::of(places, whose, &sealed.file, &sealed.seal) {
        Likeness::Differs(it) => Some(it),
        // One that is not there is told of with its chain.
        Likeness::Same | Likeness::Gone => None,
    }
}

/// The records with these copies in the place of what was sealed.
fn resealed(state: &State, copied: &BTreeMap<PathBuf, Seal>) -> Vec<Change> {
    let renew = |sealed: &mut Sealed| {
        if let Some(now) = copied.get(&sealed.file) {
            sealed.seal = *now;
        }
    };
    let mut changes = of_each_disk(state, |disk| {
        let known = disk.damage.iter().flat_map(|d| &d.files);
        let known: BTreeSet<_> = known.cloned().collect();
        let sealed = disk.sealed.iter_mut();
        sealed.filter(|s| !known.contains(&s.file)).for_each(renew);
    });
    for old in state.leftovers.values() {
        let mut new = Leftover::clone(old);
        new.sealed.iter_mut().for_each(renew);
        if new != *old {
            changes.push(Change::PutLeftover(new));
        }
    }
    changes
}

fn pass(point: &str) -> Result<(), StartError> {
    failpoint::pass(&format!("here.{point}")).map_err(StartError::failed)
}
