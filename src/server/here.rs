//! `groupshot relocate --here`: a data directory that was copied or restored becomes one of its own.
//!
//! ```text
//!   look: where do all names lead, is each file as it was sealed ▶ what is confirmed is recorded and sealed anew ▶ a new id
//! ```
//!
//! Before the new id is written nothing but this command works on the directory, so all of it may be killed and
//! begun again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::engine::relocate::{Moves, Places, Survey, take_copies};
use crate::failpoint;
use crate::id::DirectoryId;
use crate::inventory::{Leftover, Seal, Sealed};
use crate::snapshot::{named_by_journals, of_each_disk};
use crate::store::{Change, State, Store};

use super::astray::{Place, left_of, whose};
use super::identity::{self, Standing};
use super::likeness::{Differing, Likeness};
use super::relocate::{find_out_what_is_silent, named, settled};
use super::{StartError, library_dir, raise_open_files, take_store};

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
    let data_dir = library_dir(data_dir)?;
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
