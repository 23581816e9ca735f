//! The users file: edited by `groupshot user …`, followed by a running server.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::SharedClock;
use crate::document::{self, Damaged};
use crate::handler::Role;
use crate::held;

use super::password;

/// Name of the file in the data directory.
pub const FILE: &str = "users.json";

/// Format of the file.
const VERSION: u32 = 1;

/// How often a server looks whether the file is another.
const LOOK: Duration = Duration::from_millis(250);

/// How long who logs on waits for that.
const PATIENCE: Duration = Duration::from_millis(500);

/// Longest name of a user, in bytes.
const NAME_MAX: usize = 128;

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The name it logs on with; letter case counts.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Argon2id hash of its password as a PHC string.
    pub password: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    users: Vec<User>,
}

type Table = BTreeMap<String, Arc<User>>;

/// Why the users could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// Not a name that Basic can carry.
    #[error("`{0}` is no user name: 1 to 128 bytes, no colon, no control characters")]
    Name(String),
    /// The empty password.
    #[error("the password is empty")]
    EmptyPassword,
    /// There is one of that name.
    #[error("there is a user `{0}` already")]
    Exists(String),
    /// Nobody else is an administrator.
    #[error(
        "`{0}` is the last administrator: without one nobody can apply or delete snapshot sets; add another first, or say --force"
    )]
    LastAdministrator(String),
    /// There is none of that name.
    #[error("there is no user `{0}`")]
    Unknown(String),
    /// The password cannot be hashed.
    #[error("password hash: {0}")]
    Hash(String),
    /// The file cannot be read or replaced.
    #[error("{file}: {source}", file = .file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not what `groupshot user` writes.
    #[error("{file} is no users file: {reason}; put it back from a backup, or correct it and run `groupshot user accept --data-dir {here}`, or move it away and add the users again (`groupshot user add NAME --role ROLE --data-dir {here}`)", file = .file.display(), here = above(.file).display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
    /// The file is, and somebody or something else has changed it since.
    #[error(
        "{file} was changed by something else than `groupshot user`: restore it, or, if it is right as it is, run `groupshot user accept --data-dir {here}`",
        file = .0.display(),
        here = above(.0).display()
    )]
    Changed(PathBuf),
}

/// The data directory of its users.
fn above(file: &Path) -> &Path {
    file.parent().unwrap_or(file)
}

/// Can that be the name of a user? Basic sends it before a colon.
#[must_use]
pub fn is_name(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len())
        && !name.contains(':')
        && !name.chars().any(char::is_control)
}

/// Adds a user to the data directory.
///
/// # Errors
/// [`UserError`]; nothing was changed then.
pub fn add(directory: &Path, name: &str, role: Role, password: &str) -> Result<(), UserError> {
    if !is_name(name) {
        return Err(UserError::Name(name.to_owned()));
    }
    let user = User {
        name: name.to_owned(),
        role,
        password: hash(password)?,
    };
    edit(directory, |users| {
        if users.contains_key(name) {
            return Err(UserError::Exists(name.to_owned()));
        }
        users.insert(name.to_owned(), Arc::new(user));
        Ok(())
    })
}

/// Removes a user.
///
/// # Errors
/// [`UserError`]; nothing was changed then.
pub fn remove(directory: &Path, name: &str, last_too: bool) -> Result<(), UserError> {
    edit(directory, |users| match users.remove(name) {
        None => Err(UserError::Unknown(name.to_owned())),
        Some(gone) => {
            let administers = |user: &User| user.role == Role::Administrator;
            let left = users.values().any(|user| administers(user));
            match !administers(&gone) || left || last_too {
                true => Ok(()),
                false => Err(UserError::LastAdministrator(name.to_owned())),
            }
        }
    })
}

/// Gives a user another password.
///
/// # Errors
/// [`UserError`]; nothing was changed then.
pub fn set_password(directory: &Path, name: &str, password: &str) -> Result<(), UserError> {
    let password = hash(password)?;
    edit(directory, |users| match users.get_mut(name) {
        Some(user) => {
            Arc::make_mut(user).password = password;
            Ok(())
        }
        None => Err(UserError::Unknown(name.to_owned())),
    })
}

/// All users in the order of their names.
///
/// # Errors
/// [`UserError`].
pub fn list(directory: &Path) -> Result<Vec<User>, UserError> {
    let table = checked(&directory.join(FILE))?;
    Ok(table.into_values().map(Arc::unwrap_or_clone).collect())
}

/// Argon2id with a fresh salt, as a PHC string.
pub(super) fn hash(password: &str) -> Result<String, UserError> {
    if password.is_empty() {
        return Err(UserError::EmptyPassword);
    }
    password::hash(password).map_err(UserError::Hash)
}

/// Takes the file as it is now, whoever has changed it: it gets a new checksum. Gives the users in it.
///
/// # Errors
/// [`UserError`]; nothing was changed then.
pub fn accept(directory: &Path) -> Result<Vec<User>, UserError> {
    let trust = Trust::Anything;
    edit_as(directory, trust, |_| Ok(()))?;
    list(directory)
}

/// That the file is not there, and what to do, for a directory in which `work` was done by users.
#[must_use]
pub fn gone(directory: &Path, work: bool) -> Option<String> {
    let file = directory.join(FILE);
    let is_gone = held::metadata(&file).is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
    (work && is_gone).then(|| {
        format!(
            "{} is gone, and there are sets or collections: nobody can log on; put it back as it was last, for an older \
             one brings back users and passwords that were taken away, or add the users again (`groupshot user add NAME \
             --role ROLE --data-dir {}`)",
            file.display(),
            directory.display()
        )
    })
}

/// Gives a file of before there were checksums its own. Does nothing to any other.
///
/// # Errors
/// [`UserError`]; the file is as it was then.
pub fn vouch(directory: &Path) -> Result<(), UserError> {
    let file = directory.join(FILE);
    match read(&file, Trust::Checked)? {
        Some(document) if !document.checked => edit(directory, |_| Ok(())),
        _ => Ok(()),
    }
}

/// Whether a wrong checksum matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    Checked,
    Anything,
}

fn edit(
    directory: &Path,
    change: impl FnOnce(&mut Table) -> Result<(), UserError>,
) -> Result<(), UserError> {
    edit_as(directory, Trust::Checked, change)
}

/// Changes the file as one: two commands at once do not lose each other's work, and a reader sees the
/// old file or the new one.
fn edit_as(
    directory: &Path,
    trust: Trust,
    change: impl FnOnce(&mut Table) -> Result<(), UserError>,
) -> Result<(), UserError> {
    let file = directory.join(FILE);
    let failed = |source| UserError::Io {
        file: file.clone(),
        source,
    };
    let turn = File::open(directory).map_err(failed)?;
    turn.lock().map_err(failed)?;
    let mut users = table(read(&file, trust)?);
    change(&mut users)?;
    let document = Document {
        version: VERSION,
        users: users.into_values().map(Arc::unwrap_or_clone).collect(),
    };
    let text = document::write(&document).map_err(failed)?;
    held::replace(&file, &text, 0o600).map_err(|e| failed(e.into()))
}

/// No file is no users.
fn read(file: &Path, trust: Trust) -> Result<Option<document::Document<Document>>, UserError> {
    let text = match held::read_short(file) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) if held::foreign(&e).is_some() => {
            return Err(UserError::Malformed {
                file: file.to_path_buf(),
                reason: e.to_string(),
            });
        }
        Err(source) => {
            return Err(UserError::Io {
                file: file.to_path_buf(),
                source,
            });
        }
    };
    let malformed = |reason: String| UserError::Malformed {
        file: file.to_path_buf(),
        reason,
    };
    let read = match trust {
        Trust::Checked => document::read(&text),
        Trust::Anything => document::read_unchecked(&text),
    };
    // Nobody can accept what makes no sense.
    let sense = || document::read_unchecked::<Document>(&text);
    let document: document::Document<Document> = read.map_err(|damaged| match damaged {
        Damaged::Checksum => match sense() {
            Err(Damaged::Malformed(reason)) => malformed(reason.english()),
            _ => UserError::Changed(file.to_path_buf()),
        },
        Damaged::Malformed(reason) => malformed(reason.english()),
    })?;
    let version = document.body.version;
    if version != VERSION {
        let reason = format!("version {version}, this program knows {VERSION}");
        return Err(malformed(reason));
    }
    Ok(Some(document))
}

fn table(document: Option<document::Document<Document>>) -> Table {
    let users = document
        .map(|d| d.body.users)
        .unwrap_or_default()
        .into_iter();
    users.map(|u| (u.name.clone(), Arc::new(u))).collect()
}

fn checked(file: &Path) -> Result<Table, UserError> {
    read(file, Trust::Checked).map(table)
}

/// The users of a data directory as they are now.
#[derive(Clone)]
pub struct Users {
    file: Arc<Path>,
    clock: SharedClock,
    seen: Arc<Mutex<Seen>>,
}

struct Seen {
    table: Arc<Table>,
    stamp: Option<Stamp>,
    looked: Duration,
    /// Somebody looks at the file.
    looking: bool,
    /// The system could read the file when it was read last.
    is_read: bool,
}

/// Tells one file from the next: a replaced file is another inode.
type Stamp = (u64, i64, i64, u64);

impl Users {
    /// Follows the file of the data directory; it need not exist.
    ///
    /// # Errors
    /// [`UserError`] if it exists and cannot be read.
    pub fn follow(directory: &Path, clock: SharedClock) -> Result<Self, UserError> {
        let file = directory.join(FILE);
        let stamp = stamp(&file);
        let seen = Seen {
            table: Arc::new(checked(&file)?),
            stamp,
            looked: clock.elapsed(),
            looking: false,
            is_read: true,
        };
        Ok(Self {
            file: Arc::from(file),
            clock,
            seen: Arc::new(Mutex::new(seen)),
        })
    }

    /// Are there no users, as of the last look at the file?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen().table.is_empty()
    }

    /// The user of that name, as of a quarter of a second ago at most where the file answers.
    pub async fn find(&self, name: &str) -> Option<Arc<User>> {
        if self.begins_look() {
            let own = self.clone();
            let look = tokio::task::spawn_blocking(move || own.look());
            let _late = tokio::time::timeout(PATIENCE, look).await;
        }
        self.seen().table.get(name).cloned()
    }

    /// Whether it is time for another look, which the caller makes; one at a time.
    fn begins_look(&self) -> bool {
        let (mut seen, now) = (self.seen(), self.clock.elapsed());
        let begins = !seen.looking && now >= seen.looked + LOOK;
        if begins {
            (seen.looked, seen.looking) = (now, true);
        }
        begins
    }

    /// A file that cannot be read leaves the users as they were: it was edited by hand, and whoever did
    /// so finds the reason in the log. Nobody waits for the file but who looks.
    fn look(&self) {
        self.look_by(checked);
    }

    fn look_by(&self, read: impl FnOnce(&Path) -> Result<Table, UserError>) {
        let (before, now) = (self.seen().stamp, stamp(&self.file));
        let read = (now != before).then(|| read(&self.file));
        let mut seen = self.seen();
        seen.looking = false;
        let Some(read) = read else { return };
        // What the system could not read this time is read next time: somebody may have been removed.
        let is_read = !matches!(read, Err(UserError::Io { .. }));
        let was_read = std::mem::replace(&mut seen.is_read, is_read);
        if is_read {
            seen.stamp = now;
        }
        match read {
            Ok(table) => seen.table = Arc::new(table),
            Err(error) if is_read || was_read => tracing::error!(%error, "users stay as they were"),
            Err(_) => {} // told
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Users").field("file", &self.file).finish()
    }
}

fn stamp(file: &Path) -> Option<Stamp> {
    let meta = fs::symlink_metadata(file).ok()?;
    Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn a_file_that_cannot_be_read_for_a_moment_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::at("2026-01-02T03:04:05Z".parse().unwrap());
        let users = Users::follow(dir.path(), clock).unwrap();
        add(dir.path(), "ann", Role::Administrator, "secret").unwrap();
        let none = |file: &Path| {
            Err(UserError::Io {
                file: file.to_owned(),
                source: io::ErrorKind::Other.into(),
            })
        };
        users.look_by(none);
        assert!(users.is_empty());
        users.look();
        assert!(users.seen().table.contains_key("ann"));
    }
}
