//! The reasons to refuse to start a server, as one list: checked by `config check`, which changes nothing, and by the
//! start itself before it begins.

use std::cell::RefCell;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit};
use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::audit::AuditTo;
use crate::auth::users;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::engine::definition::MACHINES;
use crate::engine::library;
use crate::held;
use crate::snapshot::require_journals;
use crate::store::lock::{DirectoryLock, LockError};
use crate::store::sqlite::{self, OpenError};
use crate::text::size_exactly;
use crate::tls;

use super::parts::export_roots;
use super::systemd::Sockets;
use super::{
    JOURNAL, StartError, enough_files, existing_data_dir, has_served, machines, nearest,
    no_data_dir, records, relocate, require_answer, require_database, require_stored,
};

/// What was found: why no server starts, the first reason first, and what is not as it was meant.
#[derive(Debug, Default)]
pub struct Fitness {
    /// Each with the kind that `serve` would end with.
    pub errors: Vec<StartError>,
    /// What lets a server start all the same.
    pub warnings: Vec<String>,
}

/// What is looked at.
struct Look<'a> {
    config: &'a Config,
    data_dir: &'a Path,
    /// Addresses that the server opens itself: none that were handed to it.
    addresses: Vec<SocketAddr>,
    /// HTTPS is spoken, or its files are named.
    secure: bool,
    /// A server has the data directory, and that is all right.
    running: bool,
    /// A server is about to start, and opens the database itself.
    starting: bool,
    /// What certificates, keys and lists give to think about.
    told: RefCell<Vec<String>>,
}

/// One reason for which no server starts.
type Check = fn(&Look<'_>) -> Result<(), StartError>;

/// What a new data directory takes on the disk, and more.
const NEW: usize = 1 << 20;
/// Written at one time to find out whether there is so much.
const CHUNK: usize = 1 << 16;

/// In the order in which the start comes upon them.
const CHECKS: &[Check] = &[
    |it| enough_files(it.config.limits.connections, most_files()).map_err(StartError::Config),
    |it| folder(it.data_dir),
    |it| {
        if it.running {
            Ok(())
        } else {
            there(it, unlocked)
        }
    },
    |it| there(it, require_database),
    |it| room(it.data_dir),
    |it| there(it, relocate::writable),
    |it| there(it, writable_parts),
    |it| audit_file(it.config),
    |it| there(it, known_users),
    |it| free(&it.addresses),
    certificates,
    |it| at_rest(it, records::sound),
    |it| at_rest(it, unmoved),
    |it| at_rest(it, settled),
];

/// Looks at everything, as for a server that opens its own sockets. Where one runs on the data directory, its address
/// is its own, and that is no mistake of the configuration.
#[must_use]
pub fn fitness(config: &Config, data_dir: &Path) -> Fitness {
    if let Err(silent) = require_answer(data_dir) {
        let errors = vec![silent];
        return Fitness {
            errors,
            ..Fitness::default()
        };
    }
    let in_use = there_now(data_dir).and_then(|d| in_use(&d));
    let running = in_use.is_some();
    let addresses = [Some(config.listen.http), config.listen.https];
    let addresses = addresses.into_iter().flatten().filter(|_| !running);
    let look = Look {
        config,
        data_dir,
        addresses: addresses.collect(),
        // Files that are named must be sound, also where `serve --tls-listen` is what switches HTTPS on.
        secure: config.listen.https.is_some()
            || config.tls.certificate.is_some()
            || config.tls.client_ca.is_some(),
        running,
        starting: false,
        told: RefCell::default(),
    };
    let mut found = Fitness::default();
    let errors = CHECKS.iter().filter_map(|check| check(&look).err());
    found.errors.extend(errors);
    found.warnings.extend(
        in_use.map(|text| {
            format!("{text}; whether the addresses are free is not looked at meanwhile")
        }),
    );
    found.warnings.append(&mut look.told.borrow_mut());
    found.warnings.extend(misfits(config));
    found
}

/// Refuses to start where it would fail, on these sockets.
///
/// # Errors
/// The first reason.
pub(super) fn require(
    config: &Config,
    data_dir: &Path,
    handed: &Sockets,
) -> Result<(), StartError> {
    require_answer(data_dir)?;
    let http = Some(config.listen.http).filter(|_| handed.http.is_empty());
    let https = config.listen.https.filter(|_| handed.https.is_empty());
    let look = Look {
        config,
        data_dir,
        addresses: http.into_iter().chain(https).collect(),
        secure: config.listen.https.is_some() || !handed.https.is_empty(),
        running: false,
        starting: true,
        told: RefCell::default(),
    };
    CHECKS.iter().try_for_each(|check| check(&look))
}

/// What the system lets this process open at most.
fn most_files() -> usize {
    let hard = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(_, hard)| hard);
    usize::try_from(hard).unwrap_or(usize::MAX)
}

/// The data directory, absolute, if it is there.
fn there_now(data_dir: &Path) -> Option<PathBuf> {
    data_dir
        .exists()
        .then(|| existing_data_dir(data_dir).ok())?
}

/// A check of a data directory that is there; a new one has nothing that could be wrong.
fn there(it: &Look<'_>, check: fn(&Path) -> Result<(), StartError>) -> Result<(), StartError> {
    there_now(it.data_dir).map_or(Ok(()), |data_dir| check(&data_dir))
}

/// A check of what the start looks at itself, and a server that runs has changed since.
fn at_rest(it: &Look<'_>, check: fn(&Path) -> Result<(), StartError>) -> Result<(), StartError> {
    match it.running || it.starting {
        true => Ok(()),
        false => there(it, check),
    }
}

/// Whether the data directory is where machines and sets were recorded.
fn unmoved(data_dir: &Path) -> Result<(), StartError> {
    machines::require_unmoved(data_dir)?;
    records::require_unmoved(data_dir)
}

/// Whether journals can be understood and, where they leave nothing to be ended, every set is whole.
fn settled(data_dir: &Path) -> Result<(), StartError> {
    require_journals(data_dir).map_err(|e| StartError::recovery(data_dir, e))?;
    records::settled(data_dir)
}

/// Whether the data directory can be used, or made.
fn folder(data_dir: &Path) -> Result<(), StartError> {
    let failed = |e: io::Error| no_data_dir(data_dir, &e);
    let nearest = nearest(data_dir);
    if nearest == data_dir {
        existing_data_dir(data_dir)?;
    }
    if !nearest.metadata().map_err(failed)?.is_dir() {
        return Err(failed(io::ErrorKind::NotADirectory.into()));
    }
    require_stored(data_dir)?;
    permits(nearest, Access::WRITE_OK | Access::EXEC_OK).map_err(failed)
}

fn permits(path: &Path, access: Access) -> io::Result<()> {
    Ok(accessat(CWD, path, access, AtFlags::EACCESS)?)
}

/// Whether there is room for a new database, where there is none yet. One that is there opens on a full disk too.
fn room(data_dir: &Path) -> Result<(), StartError> {
    if has_served(data_dir) {
        return Ok(());
    }
    let nearest = nearest(data_dir);
    let written = held::Folder::follow(nearest).and_then(|folder| {
        let mut file = folder.nameless(0o600)?;
        (0..NEW / CHUNK).try_for_each(|_| file.write_all(&[0; CHUNK]))
    });
    match written.map_err(|e| (e.kind(), e)) {
        Err((io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded, e)) => {
            let needed = size_exactly(u64::try_from(NEW).unwrap_or_default());
            let text = format!("{}: a new database needs {needed}: {e}", nearest.display());
            Err(StartError::Failed(text))
        }
        // Not every file system has files without a name; what else is wrong is told by who comes upon it.
        _ => Ok(()),
    }
}

/// Whether no server has it.
fn unlocked(data_dir: &Path) -> Result<(), StartError> {
    DirectoryLock::is_free(data_dir).map_err(|e| OpenError::Lock(e).into())
}

/// Who has it, in words.
fn in_use(data_dir: &Path) -> Option<String> {
    match DirectoryLock::is_free(data_dir) {
        Err(error @ LockError::Busy { .. }) => Some(error.to_string()),
        _ => None,
    }
}

/// Whether what a server writes in its data directory can be written.
fn writable_parts(data_dir: &Path) -> Result<(), StartError> {
    for name in [JOURNAL, MACHINES, held::SETS, sqlite::FILE] {
        let part = data_dir.join(name);
        if part.symlink_metadata().is_err() {
            continue;
        }
        let usable = || {
            // As whoever makes files in them has it: no link, and nobody else can exchange what is in it.
            if name != sqlite::FILE {
                held::Folder::open(&part)?.require_private()?;
            }
            permits(&part, Access::WRITE_OK | Access::READ_OK)
        };
        usable().map_err(|e| StartError::file(data_dir, &part, &e))?;
    }
    Ok(library::require_private(data_dir)?)
}

/// Whether the audit file can be written, or made.
fn audit_file(config: &Config) -> Result<(), StartError> {
    let AuditTo::File(path) = &config.log.audit else {
        return Ok(());
    };
    let wrong = |why: &dyn std::fmt::Display| {
        StartError::Config(format!("log.audit: {}: {why}", path.display()))
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let (named, folder) = (path.clone(), folder.to_owned());
    let looked = held::bounded(move || match held::metadata(&named) {
        Ok(there) if there.is_dir() => Err("it is a folder, not a file".to_owned()),
        // As the server opens it: no pipe, no link or second name that somebody else may have put there.
        Ok(_) => {
            let opened = held::ask(&named, || held::append(&named, 0o640));
            opened.map(drop).map_err(|e| e.to_string())
        }
        Err(_) if !held::is_folder(&folder) => Err("it has no folder to be in".to_owned()),
        Err(_) => {
            let access = Access::WRITE_OK | Access::EXEC_OK;
            let may = held::ask(&folder, || permits(&folder, access));
            may.map_err(|e| e.to_string())
        }
    });
    looked.map_err(|e| wrong(&e))?.map_err(|why| wrong(&why))
}

/// Whether the users can be read.
fn known_users(data_dir: &Path) -> Result<(), StartError> {
    users::list(data_dir)?;
    Ok(())
}

/// Whether it can be listened at all of them at once.
fn free(addresses: &[SocketAddr]) -> Result<(), StartError> {
    let mut taken = Vec::new();
    for address in addresses {
        let tried = TcpListener::bind(address);
        taken.push(tried.map_err(|e| cannot_listen(*address, &e))?);
    }
    Ok(())
}

/// Why there is no listening.
pub(super) fn cannot_listen(address: SocketAddr, error: &io::Error) -> StartError {
    let text = format!("cannot listen on {address}: {error}");
    match error.kind() {
        io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable => StartError::Busy(text),
        io::ErrorKind::PermissionDenied => StartError::Denied(text),
        _ => StartError::Failed(text),
    }
}

/// Whether the files for TLS are sound, those of a certificate of the server's own too.
fn certificates(it: &Look<'_>) -> Result<(), StartError> {
    if it.starting && !it.secure {
        return Ok(());
    }
    let (directory, now) = (it.data_dir.join("tls"), SystemClock::shared().now());
    let told = match tls::check_in(&it.config.tls.files(), &directory, now) {
        Err(error) if !it.secure => vec![format!("`serve --tls-listen` is refused: {error}")],
        looked => looked?,
    };
    it.told.borrow_mut().extend(told);
    Ok(())
}

/// What of the configuration does not fit this machine as it is now, though a server starts.
fn misfits(config: &Config) -> Vec<String> {
    let mut found = Vec::new();
    for (key, folders) in [
        ("export.roots", &config.export.roots),
        ("engine.image_roots", &config.engine.image_roots),
    ] {
        for root in folders {
            let folder = root.clone();
            let there = held::bounded(move || held::metadata(&folder)).flatten();
            match there {
                Ok(there) if there.is_dir() => {}
                Err(error) if held::is_silence(&error) => found.push(format!("{key}: {error}")),
                Ok(_) | Err(_) => {
                    found.push(format!("{key}: there is no folder {}", root.display()));
                }
            }
        }
    }
    found.extend(exposed_roots(config));
    if config.listen.https.is_none() && config.tls.certificate.is_some() {
        found.push("tls.certificate is shown to nobody: there is no listen.https".to_owned());
    }
    if config.auth.allow_unencrypted && !config.listen.http.ip().is_loopback() {
        found.push("auth.allow_unencrypted: passwords cross the network in the open".to_owned());
    }
    if !config.auth.basic && config.roles.mappings.is_empty() {
        found.push("nobody can log on: auth.basic is off, and roles.mappings is empty".to_owned());
    }
    found
}

/// The roots of exports that others than root and the server can lead elsewhere.
pub(super) fn exposed_roots(config: &Config) -> Vec<String> {
    let roots = export_roots(config).into_iter();
    let told = roots.filter_map(|root| root.exposed());
    told.map(|told| format!("export.roots: {told}")).collect()
}
