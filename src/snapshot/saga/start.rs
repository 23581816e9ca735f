//! How an operation that was accepted and planned starts: journal and job, both durable, and a task.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, OnceLock};

use tokio::sync::watch;

use crate::engine::Hold;
use crate::id::{JobId, VmId};
use crate::job::{NewJob, Worker};
use crate::snapshot::saga::answer::Refused;
use crate::snapshot::saga::core::Core;
use crate::snapshot::saga::journal::{Journal, Line, WriteError};
use crate::snapshot::saga::kind::Kind;
use crate::snapshot::saga::leases::Lease;
use crate::snapshot::saga::operation::{Operation, Verdict, failed};
use crate::snapshot::saga::story::intent_of;
use crate::store::StoreError;
use crate::text::Argument;
use crate::text::catalog::snapshot as texts;

/// Makes `kind` durable as journal and job and starts its work.
///
/// # Errors
/// [`Refused::Failed`]; nothing was begun then.
pub(crate) async fn start<K: Kind>(
    core: &Arc<Core>,
    kind: K,
    job: NewJob,
    holds: BTreeMap<VmId, Hold>,
    lease: Lease,
) -> Result<(), Refused> {
    let (id, set, machines) = (job.id, kind.set(), kind.machines().len());
    let begun = durable(core, &kind, job).await;
    core.stock();
    let (journal, worker) = begun?;
    let operation = Arc::new(Operation {
        core: Arc::clone(core),
        kind,
        journal: Mutex::new(journal),
        worker: Some(worker),
        verdict: watch::Sender::new(Verdict::Working),
        holds: Mutex::new(holds),
        lease,
        word: OnceLock::new(),
        guard: Mutex::default(),
        waited: AtomicU32::new(0),
    });
    tracing::info!(what = K::NAME, %set, job = %id, machines, "Operation began");
    core.tasks.spawn(operation.run());
    Ok(())
}

/// Makes journal and job durable in parallel; nothing is done before both are. If the process dies in between, the next
/// start rolls back a journal without a job (or drops it, if its kind has no undo) and ends a job without a journal.
async fn durable<K: Kind>(
    core: &Arc<Core>,
    kind: &K,
    job: NewJob,
) -> Result<(Journal, Worker), Refused> {
    core.pass(K::NAME, "intent", "before")
        .map_err(|e| journal_failed(e.to_string()))?;
    let first = intent_of(kind).map_err(|e| journal_failed(e.to_string()))?;
    let journal = record(core, kind, job.id, first);
    match tokio::join!(journal, begin(core, kind, job)) {
        (Ok(journal), Ok(worker)) => {
            let _accepted = core.pass(K::NAME, "job", "after");
            Ok((journal, worker))
        }
        (Ok(journal), Err(error)) => {
            take_back(core, journal).await;
            Err(core.store_failed(&error))
        }
        (Err(refused), Ok(worker)) => {
            // Where the store does not take it back, it ends with the reason.
            let why = failed(refused.text().clone(), Vec::new());
            if let Err(error @ StoreError::Broken(_)) = worker.withdraw(why).await {
                core.store_failed(&error);
            }
            Err(refused)
        }
        (Err(refused), Err(error)) => {
            core.store_failed(&error);
            Err(refused)
        }
    }
}

/// The job, made durable.
async fn begin<K: Kind>(core: &Arc<Core>, kind: &K, job: NewJob) -> Result<Worker, StoreError> {
    let start = || core.deps.jobs.start(job.clone(), Vec::new());
    match start().await {
        Err(StoreError::Full(_)) if kind.frees() => {
            core.make_room().await;
            start().await
        }
        begun => begun,
    }
}

async fn record<K: Kind>(
    core: &Arc<Core>,
    kind: &K,
    job: JobId,
    first: Line,
) -> Result<Journal, Refused> {
    let create = |spare: Option<PathBuf>| {
        let (core, first) = (Arc::clone(core), first.clone());
        tokio::task::spawn_blocking(move || {
            let created = Journal::create(&core.journals(), job, &first, spare.clone());
            if let (Err(WriteError::Refused(..)), Some(spare)) = (&created, spare) {
                core.spares.give_back(spare);
            }
            created
        })
    };
    let mut created = create(core.spares.take()).await;
    if let (true, Ok(Err(e))) = (kind.frees(), &created)
        && e.is_no_room()
    {
        core.make_room().await;
        created = create(None).await;
    }
    let journal = match created {
        Ok(Ok(journal)) => journal,
        Ok(Err(e)) => {
            if matches!(e, WriteError::Broken(..)) {
                core.break_down(e.to_string());
            }
            return Err(journal_failed(e.why()));
        }
        Err(panicked) => return Err(journal_failed(panicked.to_string())),
    };
    if let Err(e) = core.pass(K::NAME, "intent", "after") {
        take_back(core, journal).await;
        return Err(journal_failed(e.to_string()));
    }
    Ok(journal)
}

/// Removes the journal of a request that is refused. Where that fails the server stops: the next start drops or undoes
/// what the journal tells before anybody can build on the refusal.
async fn take_back(core: &Core, journal: Journal) {
    let removed = tokio::task::spawn_blocking(move || journal.remove()).await;
    let why = match removed {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(panicked) => panicked.to_string(),
    };
    core.break_down(why);
}

fn journal_failed(cause: impl Into<Argument>) -> Refused {
    Refused::Failed(texts::JOURNAL_FAILED.with("cause", cause))
}
