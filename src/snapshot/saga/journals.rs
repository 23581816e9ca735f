//! What the journals of a data directory tell while nobody recovers.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::held;
use crate::id::{SetId, VmId};
use crate::snapshot::saga::core::JOURNALS;
use crate::snapshot::saga::journal::{self, Unreadable};
use crate::snapshot::saga::kind::Fate;
use crate::snapshot::saga::recovery::RecoveryError;
use crate::snapshot::saga::spares::{WAY_OUT, is_blank_spare, is_spare};
use crate::snapshot::saga::story::{self, Kinds, Story};

/// A journal and what it tells, or why it cannot be understood.
pub(crate) type Read = (PathBuf, Result<Arc<dyn Story>, String>);

/// What operations that have not ended may change.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    /// How many there are.
    pub(crate) open: usize,
    /// The sets that they make or destroy.
    pub(crate) sets: BTreeSet<SetId>,
    /// Those of them that they make: their records come before the database knows them.
    pub(crate) made: BTreeSet<SetId>,
    /// The machines that they work on.
    pub(crate) machines: BTreeSet<VmId>,
}

/// Reads that from the journals of a data directory; one that cannot be understood tells of nothing. Blocks.
///
/// # Errors
/// The folder or a file cannot be read.
pub(crate) fn in_flight(data_dir: &Path, kinds: Kinds) -> io::Result<InFlight> {
    let mut found = InFlight::default();
    let journals = read(&data_dir.join(JOURNALS), kinds)?.into_iter();
    for story in journals.filter_map(|(_, told)| told.ok()) {
        found.open += 1;
        found.machines.extend(story.machines());
        let (set, fate) = story.set();
        if fate == Fate::Made {
            found.made.insert(set);
        }
        if fate != Fate::Stays {
            found.sets.insert(set);
        }
    }
    Ok(found)
}

/// Every journal in a folder, and what it tells. A spare without a whole record is of nothing that was begun. Blocks.
///
/// # Errors
/// The folder or a file cannot be read.
pub(crate) fn read(folder: &Path, kinds: Kinds) -> io::Result<Vec<Read>> {
    let all = read_all(folder, kinds).and_then(whole);
    let all =
        all.map_err(|(file, e)| io::Error::new(e.kind(), format!("{}: {e}", file.display())))?;
    let told = |wrong| match wrong {
        Wrong::Spare(why) => format!("{why}; {WAY_OUT}"),
        Wrong::Unreadable(why) => why.to_string(),
        Wrong::Unread(e) => e.to_string(),
    };
    let all = all.into_iter();
    Ok(all.map(|(path, read)| (path, read.map_err(told))).collect())
}

/// What those journals of a folder tell that can be read and understood. Blocks.
///
/// # Errors
/// The folder cannot be read.
pub(super) fn read_any(folder: &Path, kinds: Kinds) -> io::Result<Vec<Arc<dyn Story>>> {
    let all = read_all(folder, kinds).map_err(|(_, e)| e)?;
    Ok(all.into_iter().filter_map(|(_, told)| told.ok()).collect())
}

/// All of them, if each file can be read.
fn whole(all: Vec<Understood>) -> Result<Vec<Understood>, (PathBuf, io::Error)> {
    let each = all.into_iter().map(|(path, told)| match told {
        Err(Wrong::Unread(e)) => Err((path, e)),
        told => Ok((path, told)),
    });
    each.collect()
}

/// What a start would refuse of the journals in a folder by themselves. Nothing is written. Blocks.
///
/// # Errors
/// [`RecoveryError`] of the first one that cannot be read or understood.
pub(crate) fn require_readable(folder: &Path, kinds: Kinds) -> Result<(), RecoveryError> {
    let all = read_all(folder, kinds).and_then(whole);
    let all = all.map_err(|(file, e)| RecoveryError::Io(file, e))?;
    all.into_iter().try_for_each(|(path, read)| match read {
        Ok(_) => Ok(()),
        Err(Wrong::Spare(why)) => Err(RecoveryError::Spare(path, why)),
        Err(Wrong::Unreadable(why)) => Err(RecoveryError::Unreadable(path, why)),
        Err(Wrong::Unread(e)) => Err(RecoveryError::Io(path, e)),
    })
}

/// Why a journal cannot be understood.
enum Wrong {
    /// It has the name of a spare.
    Spare(String),
    Unreadable(Unreadable),
    /// The file cannot be read.
    Unread(io::Error),
}

type Understood = (PathBuf, Result<Arc<dyn Story>, Wrong>);

/// An error is that of the folder.
fn read_all(folder: &Path, kinds: Kinds) -> Result<Vec<Understood>, (PathBuf, io::Error)> {
    let mut found = Vec::new();
    let at = |file: &Path| {
        let file = file.to_owned();
        move |e: io::Error| (file, e)
    };
    let entries = match held::ask(folder, || fs::read_dir(folder)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries.map_err(at(folder))?,
    };
    for entry in entries {
        let path = entry.map_err(at(folder))?.path();
        if path.extension().is_none_or(|e| e != "log") {
            continue;
        }
        let bytes = match held::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue, // it has ended meanwhile
            Err(e) if is_spare(&path) && held::foreign(&e).is_some() => {
                found.push((path, Err(Wrong::Spare(format!("is in the way: {e}")))));
                continue;
            }
            Err(e) => {
                found.push((path, Err(Wrong::Unread(e))));
                continue;
            }
            Ok(bytes) => bytes,
        };
        let told =
            journal::read_file(&path, &bytes).and_then(|(lines, _)| match lines.is_empty() {
                true => Ok(None),
                false => story::read(kinds, &lines).map(Some),
            });
        match told {
            Ok(None) => {}
            Ok(Some(story)) => found.push((path, Ok(story))),
            Err(_) if is_blank_spare(&path) => {} // the next start makes it anew
            Err(unreadable) if is_spare(&path) => {
                found.push((path, Err(Wrong::Spare(unreadable.to_string()))));
            }
            Err(unreadable) => found.push((path, Err(Wrong::Unreadable(unreadable)))),
        }
    }
    Ok(found)
}
