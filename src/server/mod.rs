//! The composition root: joins every port to its adapter. `run` is the server, `machines` the library of
//! machines for the commands that act on a data directory.

mod adapters;
mod ask;
mod astray;
mod checkup;
mod fitness;
mod frozen;
mod guard;
mod here;
mod identity;
mod likeness;
mod machines;
mod parts;
mod rebuild;
mod records;
mod relocate;
mod rescue;
mod run;
mod systemd;

use std::io::{Error, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::auth::users::{self, UserError};
use crate::engine::definition::MACHINES;
use crate::engine::library;
use crate::engine::space;
use crate::engine::{EngineError, EngineErrorKind};
use crate::held;
use crate::http;
use crate::snapshot::RecoveryError;
use crate::store::lock::{DirectoryLock, LockError};
use crate::store::sqlite::{self, OpenError, SqliteStore};
use crate::tls::TlsError;

pub use ask::{history, unlock};
pub use checkup::Checkup;
pub use fitness::{Fitness, fitness};
pub use guard::guard;
pub use here::{HERE_FAILPOINTS, Here, HereState, here};
pub use likeness::Differing;
pub use machines::{
    change_machine, choose_tops, import_machine, machine_named, machine_states, machines,
    named_machines, not_clonable, recorded_machines, remove_machine, shown_images,
};
pub use rebuild::{REBUILD_FAILPOINTS, Rebuild, RebuildState, Stands, rebuild};
pub use relocate::{RELOCATE_FAILPOINTS, Relocated, Relocation, relocate};
pub use rescue::{Rescued, rescue};
pub use run::{Reload, Server};
pub use systemd::{Notify, Sockets};

/// The server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process has the data directory, the library or the port.
    #[error("{0}")]
    Busy(String),
    /// The system does not permit it.
    #[error("{0}")]
    Denied(String),
    /// The configuration names something that cannot be used.
    #[error("{0}")]
    Config(String),
    /// The data directory is not the one that it was; somebody has to say what it is.
    #[error("{0}")]
    Refused(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl StartError {
    #[expect(
        clippy::needless_pass_by_value,
        reason = "made for map_err, which hands over what it has"
    )]
    fn failed(cause: impl ToString) -> Self {
        Self::Failed(cause.to_string())
    }

    /// What cannot be read or written in a data directory; the error names the file. What is not permitted is the
    /// operator's to permit, and no reason to make anything anew.
    fn io(data_dir: &Path, error: &Error) -> Self {
        match error.kind() {
            ErrorKind::PermissionDenied => Self::Denied(format!("{error}; {}", way_in(data_dir))),
            ErrorKind::ReadOnlyFilesystem => Self::Denied(error.to_string()),
            _ => Self::failed(error),
        }
    }

    /// [`StartError::io`] with a file of the data directory that the error does not name.
    fn file(data_dir: &Path, file: &Path, error: &Error) -> Self {
        let text = format!("{}: {error}", file.display());
        Self::io(data_dir, &Error::new(error.kind(), text))
    }

    /// Why a data directory cannot be recovered.
    fn recovery(data_dir: &Path, error: RecoveryError) -> Self {
        match error {
            RecoveryError::Io(file, source) => Self::file(data_dir, &file, &source),
            RecoveryError::Spare(..) | RecoveryError::Older(..) => Self::Refused(error.to_string()),
            other => Self::failed(other),
        }
    }
}

/// How what is in a data directory can be read and written by this process.
fn way_in(data_dir: &Path) -> String {
    let (here, own) = (data_dir.display(), nix::unistd::geteuid());
    match data_dir.metadata().map(|there| there.uid()) {
        Ok(owner) if owner != own.as_raw() => format!(
            "{here} belongs to user {owner}, and this process runs as user {own}: run it as that user"
        ),
        _ => format!(
            "what is in {here} must be readable and writable for its owner, user {own}: what root has made there is given to that user by `chown -R --from=0 {own}: {here}`, as root"
        ),
    }
}

impl From<TlsError> for StartError {
    fn from(error: TlsError) -> Self {
        Self::Config(error.to_string())
    }
}

impl From<EngineError> for StartError {
    fn from(error: EngineError) -> Self {
        match error.kind {
            EngineErrorKind::Denied => Self::Denied(error.to_string()),
            _ => Self::failed(error),
        }
    }
}

impl From<UserError> for StartError {
    fn from(error: UserError) -> Self {
        match error {
            UserError::Io { file, source } => {
                Self::file(file.parent().unwrap_or(&file), &file, &source)
            }
            UserError::Changed(_) | UserError::Malformed { .. } => Self::Config(error.to_string()),
            other => Self::failed(other),
        }
    }
}

impl From<OpenError> for StartError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Lock(LockError::Busy { .. }) => Self::Busy(error.to_string()),
            OpenError::Lock(LockError::Io { file, source }) => {
                Self::file(file.parent().unwrap_or(&file), &file, &source)
            }
            OpenError::Behind { .. } | OpenError::Counter { .. } | OpenError::Damaged { .. } => {
                Self::Refused(error.to_string())
            }
            other => Self::failed(other),
        }
    }
}

/// Descriptors for everything but connections: database, journals, images under work, standard streams.
const OWN_FILES: usize = 128;

/// How many files this process may open, once the limit is raised as far as it goes. Every file that a
/// snapshot keeps is held open against writers; the usual limit of 1024 is soon reached.
fn raise_open_files() -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE);
    let raised = limit.and_then(|(_, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        Ok(hard)
    });
    let now = raised.or_else(|error| {
        tracing::warn!(%error, "The limit of open files stays as it is");
        limit.map(|(soft, _)| soft)
    });
    now.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX))
}

/// Can so many connections be open at one time?
///
/// # Errors
/// What the limit of open files is, and what it should be.
fn enough_files(connections: usize, allowed: usize) -> Result<(), String> {
    let needed = connections.saturating_add(http::EXTRA_SOCKETS + OWN_FILES);
    match allowed >= needed {
        true => Ok(()),
        false => Err(format!(
            "limits.connections = {connections} needs {needed} open files and this process may have {allowed}: \
             lower it, or raise the limit (LimitNOFILE= of the unit, ulimit -Hn)"
        )),
    }
}

/// The data directory, absolute; made for this user alone if it is missing.
///
/// # Errors
/// [`StartError`].
pub fn make_data_dir(data_dir: &Path) -> Result<PathBuf, StartError> {
    let failed = |e| no_data_dir(data_dir, &e);
    require_stored(data_dir)?;
    held::make_path(data_dir, 0o700).map_err(failed)?;
    existing_data_dir(data_dir)
}

/// The data directory, or the nearest folder above it that is there.
fn nearest(data_dir: &Path) -> &Path {
    let above = data_dir
        .ancestors()
        .map(|f| match f.as_os_str().is_empty() {
            true => Path::new("."),
            false => f,
        });
    let mut there = above.filter(|f| f.symlink_metadata().is_ok());
    there.next().unwrap_or(Path::new("/"))
}

/// Refuses a data directory that does not answer, before anything is done with it that nobody could end.
///
/// # Errors
/// [`StartError`] names the mount.
pub fn require_answer(data_dir: &Path) -> Result<(), StartError> {
    let folder = data_dir.to_owned();
    let asked = held::bounded(move || {
        held::ask(&folder, || {
            let nearest = nearest(&folder);
            // What is remembered of a folder is no answer.
            let stands = rustix::fs::statfs(nearest).is_ok() && nearest.read_dir().is_ok();
            Ok(stands)
        })
    });
    match asked.flatten() {
        Err(error) if held::is_silence(&error) => Err(no_data_dir(data_dir, &error)),
        // What else is wrong is told by whoever comes upon it.
        _ => Ok(()),
    }
}

/// Refuses a data directory on a file system of the kernel. Such a one may do something else than make a folder.
///
/// # Errors
/// [`StartError`].
fn require_stored(data_dir: &Path) -> Result<(), StartError> {
    let nearest = nearest(data_dir);
    match space::is_on_pseudo(nearest).map_err(|e| no_data_dir(data_dir, &e))? {
        false => Ok(()),
        true => Err(StartError::Failed(format!(
            "data directory {}: {} is on a file system of the kernel, which keeps nothing; give another --data-dir",
            data_dir.display(),
            nearest.display()
        ))),
    }
}

/// The data directory, absolute; it must be there.
///
/// # Errors
/// [`StartError::Denied`] if it may not be looked at, or is another user's and this process is root's; else
/// [`StartError::Failed`].
pub fn existing_data_dir(data_dir: &Path) -> Result<PathBuf, StartError> {
    let failed = |e| no_data_dir(data_dir, &e);
    let found = data_dir.canonicalize().map_err(failed)?;
    if nix::unistd::geteuid().is_root() {
        let entries = || -> Result<Vec<PathBuf>, Error> {
            let own = OWN.iter().map(|name| found.join(name));
            let mut all: Vec<_> = [found.clone()].into_iter().chain(own).collect();
            for folder in [JOURNAL, MACHINES] {
                match found.join(folder).read_dir() {
                    Err(e)
                        if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&e.kind()) => {}
                    read => {
                        for entry in read? {
                            all.push(entry?.path());
                        }
                    }
                }
            }
            Ok(all)
        };
        for file in entries().map_err(failed)? {
            require_roots(&found, &file)?;
        }
    }
    Ok(found)
}

/// [`existing_data_dir`] for a command that works with the library of machines by its paths: what is followed there nobody
/// else can have put there.
///
/// # Errors
/// As there; [`StartError`] naming the folder.
fn library_dir(data_dir: &Path) -> Result<PathBuf, StartError> {
    let found = existing_data_dir(data_dir)?;
    library::require_private(&found)?;
    Ok(found)
}

/// The folder of journals.
const JOURNAL: &str = "journal";
/// What only a server writes, at the top of a data directory.
const OWN: &[&str] = &[
    sqlite::FILE,
    "groupshot.commits",
    JOURNAL,
    held::SETS,
    MACHINES,
    relocate::FILE,
    identity::FILE,
    users::FILE,
];

/// Refuses root what another user has written: what that says is followed.
fn require_roots(data_dir: &Path, file: &Path) -> Result<(), StartError> {
    let owner = match file.symlink_metadata() {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(StartError::file(data_dir, file, &e)),
        Ok(found) => found.uid(),
    };
    if owner == 0 {
        return Ok(());
    }
    let named = file.display();
    // What sets keep is sealed with its owner.
    let way = match file == data_dir {
        true => format!(
            "run it as that user, with `User=` in a unit or by `sudo -u '#{owner}'`; or, if that user is to be believed, \
             give all but what sets keep to root by `find {named} -user {owner} ! -path '{named}/sets/*/*/*' -exec chown \
             -h root: {{}} +`"
        ),
        false => format!(
            "give it to root by `chown root: {named}` if what it says is to be believed, or move it away"
        ),
    };
    Err(StartError::Denied(format!(
        "{named} belongs to user {owner}, and root would follow what that user has written there: {way}"
    )))
}

fn no_data_dir(data_dir: &Path, error: &Error) -> StartError {
    let text = format!("data directory {}: {error}", data_dir.display());
    StartError::io(data_dir, &Error::new(error.kind(), text))
}

/// Refuses a data directory that is not the one that it was, for commands that change it without its records.
///
/// # Errors
/// [`StartError`].
pub fn require_own(data_dir: &Path) -> Result<(), StartError> {
    identity::require(data_dir)
}

/// What a command that only reads a data directory tells of it, if it is not the one that it was.
#[must_use]
pub fn not_own(data_dir: &Path) -> Option<String> {
    identity::finding(&data_dir.canonicalize().ok()?)
}

/// The store, for a command that only works while no server has the data directory.
///
/// # Errors
/// [`StartError`].
fn take_store(data_dir: &Path) -> Result<SqliteStore, StartError> {
    require_database(data_dir)?;
    let store = records::open_store(data_dir).map_err(|error| match error {
        StartError::Busy(why) => StartError::Busy(format!("stop the server first: {why}")),
        other => other,
    })?;
    records::require_known(data_dir, &store)?;
    Ok(store)
}

/// Refuses a data directory with files of snapshot sets and no database: a new one would make them files that nobody
/// needs.
///
/// # Errors
/// [`StartError::Refused`].
fn require_database(data_dir: &Path) -> Result<(), StartError> {
    if !lacks_database(data_dir)? {
        return Ok(());
    }
    let rebuilt = records::any(data_dir).then(|| {
        format!(
            "; or rebuild it from the records of the sets with `groupshot doctor --rebuild --data-dir {}`",
            data_dir.display()
        )
    });
    Err(StartError::Refused(format!(
        "{} is missing or empty, and sets/ holds files of snapshot sets: put the database back{}; or, to start empty, move sets/ away",
        data_dir.join(sqlite::FILE).display(),
        rebuilt.unwrap_or_default()
    )))
}

/// Whether there are files of snapshot sets and no database.
///
/// # Errors
/// The database cannot be looked at.
fn lacks_database(data_dir: &Path) -> Result<bool, StartError> {
    let entries = |folder: PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let members = entries(data_dir.join(held::SETS)).flat_map(|set| entries(set.path()));
    // What lies in the folders of machines, and records of sets.
    let mut files = members.flat_map(|member| entries(member.path()).chain([member]));
    let file = data_dir.join(sqlite::FILE);
    let there = match file.metadata() {
        Err(e) if e.kind() == ErrorKind::NotFound => false,
        Err(e) => return Err(StartError::file(data_dir, &file, &e)),
        Ok(there) => there.len() > 0,
    };
    Ok(!there && files.any(|file| file.path().is_file()))
}

/// Has a server ever run on the data directory? It may have made anything there since.
#[must_use]
pub fn has_served(data_dir: &Path) -> bool {
    data_dir.join(sqlite::FILE).exists()
}

/// Holds the data directory until dropped: no server starts on it meanwhile.
///
/// # Errors
/// [`StartError::Busy`] if a server has it.
pub fn hold_data_dir(data_dir: &Path) -> Result<DirectoryLock, StartError> {
    DirectoryLock::take(data_dir).map_err(|e| OpenError::Lock(e).into())
}
