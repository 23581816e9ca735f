//! The records of sets beside their files, at the start: they and the database must know the same sets, before
//! anything is done with the files of these; and a directory of before there were any gets them.

use std::path::Path;
use std::sync::Arc;

use crate::held::{self, NotReplaced};
use crate::snapshot::{Differing, compare};
use crate::store::record::{self, SetRecord};
use crate::store::sqlite::{Looked, OpenError, SqliteStore};
use crate::store::{Held, State, Store};

use super::{StartError, relocate};

/// Refuses a database that does not know what the records tell; what operations in flight may still bring about is
/// left out. Blocks.
///
/// # Errors
/// [`StartError::Refused`] names the sets and what to do.
pub(super) fn require_known(data_dir: &Path, store: &SqliteStore) -> Result<(), StartError> {
    let differing = differing(data_dir, &store.state(), store.held())?;
    refuse(data_dir, &differing.before_recovery())
}

/// After recovery: the same, and every set has its record and its files. Then those that have none yet, or one of
/// before, get it.
///
/// # Errors
/// [`StartError`].
pub(super) async fn settle(data_dir: &Path, sqlite: &Arc<SqliteStore>) -> Result<(), StartError> {
    let (here, store) = (data_dir.to_owned(), Arc::clone(sqlite));
    let settled = move || {
        let found = differing(&here, &store.state(), store.held())?;
        refuse(&here, &found)?;
        for set in &found.forgotten {
            tracing::warn!(folder = %set.folder.display(), "{}", set.told(&here));
        }
        if !store.held().recorded && !found.stale.is_empty() {
            tracing::info!(
                sets = found.stale.len(),
                "Snapshot sets get their records beside their files"
            );
        }
        // The sets of what has not ended are not looked at.
        Ok::<_, StartError>(write(&here, &found.stale)? && found.open == 0)
    };
    let settled = tokio::task::spawn_blocking(settled).await;
    if settled.map_err(StartError::failed)?? && !sqlite.held().recorded {
        let marked = sqlite.mark_recorded().await;
        marked.map_err(StartError::failed)?;
    }
    Ok(())
}

/// Whether all of them are written; what is not now is by the next start.
fn write(data_dir: &Path, stale: &[SetRecord]) -> Result<bool, StartError> {
    match record::write_all(data_dir, stale) {
        Ok(_) => Ok(true),
        Err(NotReplaced::Refused(error)) => {
            tracing::warn!(%error, "The records of snapshot sets cannot be written now");
            Ok(false)
        }
        Err(NotReplaced::Broken(error)) => {
            let text = format!("the records of snapshot sets: {error}");
            Err(StartError::Failed(text))
        }
    }
}

fn differing(data_dir: &Path, state: &State, held: Held) -> Result<Differing, StartError> {
    compare(data_dir, state, held).map_err(|e| StartError::io(data_dir, &e))
}

fn refuse(data_dir: &Path, differing: &Differing) -> Result<(), StartError> {
    match differing.told(data_dir) {
        None => Ok(()),
        Some(told) => Err(StartError::Refused(told)),
    }
}

/// What a check-up tells of it, if there is something to tell. What is at work on sets changes them meanwhile, so it
/// counts only if it is found twice.
pub(super) fn finding(data_dir: &Path, store: &SqliteStore, serves: bool) -> Option<String> {
    let mut held = store.held();
    if serves {
        // It has more now than when it was opened, and its records are no newer.
        held.transactions = u64::MAX;
    }
    let look = || match differing(data_dir, &store.state(), held) {
        Ok(found) => found.told(data_dir),
        Err(error) => Some(error.to_string()),
    };
    let found = look()?;
    look().filter(|again| *again == found)
}

/// Opens the database of a data directory.
///
/// # Errors
/// As [`SqliteStore::open`]; one that has lost transactions names the sets that are known all the same.
pub(super) fn open_store(data_dir: &Path) -> Result<SqliteStore, StartError> {
    SqliteStore::open(data_dir).map_err(|error| named(data_dir, error))
}

/// What the start would refuse of a database that is there, and of the records beside it. Nothing is written. Blocks.
///
/// # Errors
/// As [`open_store`] and [`require_known`].
pub(super) fn sound(data_dir: &Path) -> Result<(), StartError> {
    match inspect(data_dir)? {
        Some(looked) => {
            let differing = differing(data_dir, &looked.state, looked.held)?;
            refuse(data_dir, &differing.before_recovery())
        }
        None => Ok(()),
    }
}

/// Refuses a data directory whose sets name files of another one that are here: it was moved. Blocks.
///
/// # Errors
/// [`StartError::Failed`] names the way out.
pub(super) fn require_unmoved(data_dir: &Path) -> Result<(), StartError> {
    let Ok(Some(looked)) = inspect(data_dir) else {
        return Ok(()); // told by `sound`
    };
    let here = data_dir.to_owned();
    // The old place may not answer: it is not there then.
    let moved = held::look(move || relocate::moved_with_sets(&here, &looked.state));
    let from = moved.unwrap_or_default();
    from.map_or(Ok(()), |from| {
        Err(StartError::Failed(relocate::moved(data_dir, &from)))
    })
}

/// What the start would refuse of a data directory whose database and records are [`sound`], where no operation is to be
/// ended before. Nothing is written. Blocks.
///
/// # Errors
/// As [`settle`].
pub(super) fn settled(data_dir: &Path) -> Result<(), StartError> {
    let Ok(Some(looked)) = inspect(data_dir) else {
        return Ok(()); // told by `sound`
    };
    let differing = differing(data_dir, &looked.state, looked.held)?;
    let is_told = differing.clone().before_recovery().told(data_dir).is_some();
    match is_told || differing.open > 0 {
        true => Ok(()),
        false => refuse(data_dir, &differing),
    }
}

/// The database, if there is one.
fn inspect(data_dir: &Path) -> Result<Option<Looked>, StartError> {
    if !data_dir.join("groupshot.db").exists() {
        return Ok(None);
    }
    let looked = SqliteStore::inspect(data_dir);
    looked.map(Some).map_err(|error| named(data_dir, error))
}

/// Whether there are any records, or what stands in their place.
pub(super) fn any(data_dir: &Path) -> bool {
    let sets = std::fs::read_dir(data_dir.join(record::SETS));
    let mut sets = sets.into_iter().flatten().flatten();
    sets.any(|set| set.path().join(record::FILE).symlink_metadata().is_ok())
}

fn named(data_dir: &Path, error: OpenError) -> StartError {
    match error {
        OpenError::Behind { .. } => StartError::Refused(match lost(data_dir) {
            Some(sets) => format!("{error}; sets that records tell of: {sets}"),
            None => error.to_string(),
        }),
        other => other.into(),
    }
}

fn lost(data_dir: &Path) -> Option<String> {
    let looked = SqliteStore::look(data_dir).ok()?;
    let found = compare(data_dir, &looked.state, looked.held).ok()?;
    found.lost()
}
