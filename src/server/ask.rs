//! Requests to the server that runs on a data directory, or carried out here if none does: the history, lock-outs.

use std::io;
use std::path::Path;

use crate::clock::SystemClock;
use crate::doctor::line::{self, Answer, Tell, Unlock, Wish};
use crate::inventory::{Ended, Query};
use crate::store;
use crate::store::lock::{DirectoryLock, LockError};
use crate::store::sqlite::{OpenError, SqliteStore};

use super::{StartError, existing_data_dir, has_served, relocate, require_database};

/// How operations ended that the query looks for, the newest first.
///
/// # Errors
/// [`StartError`].
pub async fn history(data_dir: &Path, query: Query) -> Result<Vec<Ended>, StartError> {
    let data_dir = existing_data_dir(data_dir)?;
    if is_served(&data_dir)? {
        return match ask(&data_dir, Wish::History(query), nobody()).await? {
            Answer::History(all) => Ok(all),
            other => Err(unexpected(other)),
        };
    }
    if !has_served(&data_dir) {
        return Ok(Vec::new());
    }
    require_database(&data_dir)?;
    relocate::writable(&data_dir)?;
    let store = SqliteStore::open(&data_dir)?;
    let now = SystemClock::shared().now();
    let found = store::look_back(&store, &query, now).await;
    found.map_err(StartError::failed)
}

/// Ends lock-outs; the addresses at which something was locked out, or `None` where no server runs: lock-outs are
/// forgotten with the server.
///
/// # Errors
/// [`StartError`].
pub async fn unlock(data_dir: &Path, wish: Unlock) -> Result<Option<Vec<String>>, StartError> {
    let data_dir = existing_data_dir(data_dir)?;
    if !is_served(&data_dir)? {
        return Ok(None);
    }
    match ask(&data_dir, Wish::Unlock(wish), nobody()).await? {
        Answer::Unlocked(opened) => Ok(Some(opened)),
        other => Err(unexpected(other)),
    }
}

fn is_served(data_dir: &Path) -> Result<bool, StartError> {
    match DirectoryLock::take(data_dir) {
        Ok(_free) => Ok(false),
        Err(LockError::Busy { .. }) => Ok(true),
        Err(other) => Err(OpenError::Lock(other).into()),
    }
}

/// Asks the server of the data directory, which tells how far it is meanwhile.
///
/// # Errors
/// [`StartError::Busy`] if someone has the data directory and does not answer.
pub(super) async fn ask(data_dir: &Path, wish: Wish, tell: Tell) -> Result<Answer, StartError> {
    let data_dir = data_dir.to_owned();
    let asked = tokio::task::spawn_blocking(move || {
        line::ask(&data_dir, wish, &tell).map_err(|error| unanswered(&data_dir, &error))
    });
    asked.await.map_err(StartError::failed)?
}

/// Why who has the data directory does not answer, as far as its lock tells; or that it may not be asked.
pub(super) fn unanswered(data_dir: &Path, error: &io::Error) -> StartError {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return StartError::io(data_dir, error);
    }
    let holder = match DirectoryLock::is_free(data_dir) {
        // The kernel alone is left of it, and no socket answers for that.
        Err(busy @ LockError::Busy { ending: true, .. }) => {
            return StartError::Busy(busy.to_string());
        }
        Err(busy @ LockError::Busy { .. }) => busy.to_string(),
        _ => format!("data directory {} was in use", data_dir.display()),
    };
    StartError::Busy(format!("{holder}; no server answers in it: {error}"))
}

/// Where no progress is wanted.
pub(super) fn nobody() -> Tell {
    Tell::new(None)
}

/// The error for an answer to something else than was asked.
pub(super) fn unexpected(answer: Answer) -> StartError {
    StartError::Failed(match answer {
        Answer::Error(why) => why,
        _ => "unexpected answer from the server; is it a different version?".to_owned(),
    })
}
