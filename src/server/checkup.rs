//! The operator's check-up: by the server that runs on the data directory, or by the process that asks.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::auth::{Authenticator, users};
use crate::config::Config;
use crate::doctor::line::{Answer, Tell, Wish};
use crate::doctor::{self, Doctor, FindingKind, Freeze, LibraryProblem};
use crate::engine::definition::{DEFINITION, MACHINES, TOPS};
use crate::engine::library::{Library, Problem};
use crate::engine::qcow2::chain::Roots;
use crate::held;
use crate::store::State;
use crate::store::lock::{DirectoryLock, LockError};
use crate::store::sqlite::{self, OpenError};
use crate::tls;

use super::adapters::{reserve, roots};
use super::parts::Parts;
use super::{
    StartError, ask, existing_data_dir, frozen, identity, no_data_dir, records, relocate,
    require_database,
};

/// Who looks at a data directory.
pub enum Checkup {
    /// This process; no server starts meanwhile.
    Here(Arc<Doctor>),
    /// The server that runs on it.
    Server(PathBuf),
}

impl Checkup {
    /// Takes the data directory, which must exist, or finds that a server has it. The configuration counts where
    /// none has. `repairs`: not only to look.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn open(data_dir: &Path, config: &Config, repairs: bool) -> Result<Self, StartError> {
        let data_dir = existing_data_dir(data_dir)?;
        // Nothing is made where nothing of ours is. Who may not look does not know.
        let mut known = false;
        for name in [sqlite::FILE, MACHINES, "users.json"] {
            let there = data_dir.join(name).try_exists();
            known |= there.map_err(|e| no_data_dir(&data_dir, &e))?;
        }
        if !known {
            return Err(StartError::Failed(format!(
                "{} is no data directory",
                data_dir.display()
            )));
        }
        match DirectoryLock::take(&data_dir) {
            Ok(lock) => drop(lock),
            Err(LockError::Busy { .. }) => return Ok(Self::Server(data_dir)),
            Err(other) => return Err(OpenError::Lock(other).into()),
        }
        require_database(&data_dir)?;
        let store = records::open_store(&data_dir)?;
        match repairs {
            true => relocate::writable(&data_dir)?,
            false => relocate::settled(&data_dir)?,
        }
        let parts = Parts::open(&data_dir, config, store)?;
        Ok(Self::Here(doctor(&parts, &data_dir, config, None)))
    }

    /// Has it done, and tells how far it is meanwhile.
    ///
    /// # Errors
    /// [`StartError::Busy`] if someone has the data directory and does not answer.
    pub async fn answer(&self, wish: Wish, tell: Tell) -> Result<Answer, StartError> {
        let data_dir = match self {
            Self::Here(doctor) => return Ok(doctor.answer(wish, &tell).await),
            Self::Server(data_dir) => data_dir,
        };
        ask::ask(data_dir, wish, tell).await
    }
}

/// The doctor of these parts; `logons`: of the server that works on them.
pub(super) fn doctor(
    parts: &Parts,
    data_dir: &Path,
    config: &Config,
    logons: Option<Arc<Authenticator>>,
) -> Arc<Doctor> {
    let (library, folders) = (parts.library.clone(), config.engine.image_roots.clone());
    let roots = roots(data_dir, &folders);
    let (files, own, clock) = (
        config.tls.files(),
        data_dir.join("tls"),
        parts.clock.clone(),
    );
    let (secure, serves) = (config.listen.https.is_some(), logons.is_some());
    Doctor::new(doctor::Deps {
        coordinator: parts.coordinator.clone(),
        compute: parts.compute.clone(),
        store: parts.store.clone(),
        frozen: serves.then(|| freeze(parts)),
        clock: parts.clock.clone(),
        logons,
        library: Box::new(move || problems(library.as_deref(), &roots)),
        certificates: Box::new(move || match secure || own.is_dir() {
            true => {
                tls::check_in(&files, &own, clock.now()).unwrap_or_else(|e| vec![e.to_string()])
            }
            false => Vec::new(),
        }),
        directory: Box::new({
            let data_dir = data_dir.to_owned();
            move || identity::finding(&data_dir)
        }),
        records: Box::new({
            let (data_dir, store) = (data_dir.to_owned(), parts.sqlite.clone());
            move || records::finding(&data_dir, &store, serves)
        }),
        users: Box::new({
            let (data_dir, store, config) =
                (data_dir.to_owned(), parts.store.clone(), config.clone());
            move || match users::list(&data_dir) {
                Ok(_) => gone(&data_dir, &config, &store.state()),
                Err(error) => Some(error.to_string()),
            }
        }),
        reserve: reserve(config),
        export_roots: config.export.roots.clone(),
        chain_cap: config.snapshot.chain_cap,
        data_dir: data_dir.to_owned(),
    })
}

/// That the users are gone, if certificates are not all that anybody logs on with.
pub(super) fn gone(data_dir: &Path, config: &Config, state: &State) -> Option<String> {
    let work = !state.sets.is_empty() || !state.collections.is_empty();
    users::gone(data_dir, work && config.roles.mappings.is_empty())
}

fn freeze(parts: &Parts) -> Freeze {
    let (frozen, store) = (parts.frozen.clone(), parts.store.clone());
    Box::new(move || {
        let _told_as_not_locked = frozen.renew(|| frozen::files(&store.state()));
        frozen.clone()
    })
}

fn problems(library: Option<&Library>, roots: &Roots) -> Vec<LibraryProblem> {
    let Some(library) = library else {
        return Vec::new();
    };
    let problem = |p: &Problem| {
        let name = p.file.file_name().unwrap_or_default();
        let kind = if p.idle_disk.is_some() && name == DEFINITION {
            FindingKind::PathIdle
        } else if name == DEFINITION || name == TOPS {
            FindingKind::DefinitionUnreadable
        } else if let Err(error) = held::metadata(&p.file) {
            match error.kind() {
                _ if held::is_silence(&error) => FindingKind::Silent,
                ErrorKind::NotFound | ErrorKind::NotADirectory => FindingKind::ImageMissing,
                _ => FindingKind::ImageUnreadable,
            }
        } else if roots.admit(&p.file).is_ok_and(|inside| !inside) {
            FindingKind::ImageOutsideRoots
        } else {
            FindingKind::ImageUnreadable
        };
        LibraryProblem {
            kind,
            file: p.file.clone(),
            text: p.text.english(),
        }
    };
    library.problems_now().iter().map(problem).collect()
}
