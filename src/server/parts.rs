//! What works on a data directory, whether it is served or only looked at.

use std::path::Path;
use std::sync::Arc;

use crate::audit::Audit;
use crate::clock::{SharedClock, SystemClock};
use crate::config::Config;
use crate::engine::library::Library;
use crate::engine::locks::FrozenFiles;
use crate::engine::{Compute, Doubt};
use crate::held;
use crate::job::Jobs;
use crate::snapshot::{self, Coordinator, Root};
use crate::store::Store;
use crate::store::sqlite::SqliteStore;

use super::StartError;
use super::adapters::{Adapters, audit, engine, reserve};

/// This program, also where its file was replaced since.
const GUARD: &str = "/proc/self/exe";

/// Every port joined to its adapter; nothing is recovered yet.
pub(super) struct Parts {
    pub(super) clock: SharedClock,
    pub(super) sqlite: Arc<SqliteStore>,
    pub(super) store: Arc<dyn Store>,
    pub(super) compute: Arc<dyn Compute>,
    /// The library, if it is the engine.
    pub(super) library: Option<Arc<Library>>,
    pub(super) jobs: Arc<Jobs>,
    pub(super) audit: Audit,
    pub(super) frozen: Arc<FrozenFiles>,
    pub(super) coordinator: Arc<Coordinator>,
}

impl Parts {
    /// Joins the parts over a store, which holds the data directory for this process alone.
    ///
    /// # Errors
    /// [`StartError`].
    pub(super) fn open(
        data_dir: &Path,
        config: &Config,
        sqlite: SqliteStore,
    ) -> Result<Self, StartError> {
        held::watch();
        let clock = SystemClock::shared();
        let sqlite = Arc::new(sqlite);
        let store: Arc<dyn Store> = sqlite.clone();
        let Adapters {
            compute,
            storage,
            library,
        } = engine(data_dir, config, &clock)?;
        let jobs = Jobs::new(store.clone(), clock.clone(), config.job.keep);
        let audit = audit(config, &clock)?;
        let frozen = Arc::new(FrozenFiles::default());
        let coordinator = Coordinator::new(snapshot::Deps {
            store: store.clone(),
            jobs: jobs.clone(),
            compute: compute.clone(),
            storage,
            frozen: frozen.clone(),
            audit: audit.clone(),
            clock: clock.clone(),
            data_dir: data_dir.to_owned(),
            exports: snapshot::Exports {
                roots: export_roots(config),
                reserve: reserve(config),
            },
            limits: snapshot::Limits::default(),
            guard: GUARD.into(),
        });
        if let Some(library) = &library {
            let judge = Arc::downgrade(&coordinator);
            library.judge_by(Box::new(move |machine| match judge.upgrade() {
                Some(coordinator) => coordinator.judge_tops(machine),
                None => Err(Doubt::Open), // it ends
            }));
        }
        Ok(Self {
            clock,
            sqlite,
            store,
            compute,
            library,
            jobs,
            audit,
            frozen,
            coordinator,
        })
    }
}

/// The folders to which sets may be exported, as they are now.
pub(super) fn export_roots(config: &Config) -> Vec<Root> {
    let roots = config.export.roots.iter();
    roots.map(|root| Root::resolve(root)).collect()
}
