//! Jobs: durable from the answer on, with progress, cancel and a definite end.
//!
//! ```text
//!            start                    commit of the work
//!   (none) ────────▶ Running (4) ───────────────────────▶ Completed (7)
//!                      │  ▲ percent, status (memory)
//!                      ├── error, recovery rolled back ──▶ Exception (10)
//!                      ├── cancel, undo done ────────────▶ Terminated (8)
//!                      └── kill, undo done ──────────────▶ Killed (9)
//! ```
//!
//! A job stays Running while its undo runs, unless the undo has to wait: then the job ends and says that the undo is
//! pending. A cancelled destroy undoes nothing; it leaves its merges for later. The steps and their undo belong to
//! `snapshot`.

mod end;
mod live;
pub mod settings;
mod sweep;
mod worker;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::audit::About;
use crate::clock::SharedClock;
use crate::id::JobId;
use crate::inventory::{
    Affected, CancelRequest, Ended, Job, JobError, JobKind, JobState, Service, What,
};
use crate::store::{self, Change, Store, StoreError};
use crate::text::Text;

use end::End;
use live::Live;

pub use crate::inventory::CancelKind;
pub use worker::Worker;

/// Refused jobs that are kept for one user; the oldest makes room.
const REFUSED_PER_USER: usize = 64;

/// The shortest time that an ended job is kept (`docs/semantics.md` §5).
const KEEP_MIN: Duration = Duration::from_secs(5 * 60);

/// A job to be.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Its id; the caller makes it so that its journal can name it.
    pub id: JobId,
    /// What it does.
    pub kind: JobKind,
    /// Whose method it is.
    pub service: Service,
    /// Who called.
    pub owner: String,
    /// What it works on from the start.
    pub affected: Vec<Affected>,
    /// The same and all else that it is about, with names.
    pub about: About,
    /// The set a create job is to make.
    pub set: Option<crate::id::SetId>,
    /// First status text.
    pub status: Text,
}

/// What RequestStateChange found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// Accepted; the job will end 8 or 9.
    Accepted,
    /// Past its commit point, or ended: 4097.
    TooLate,
    /// No such job.
    Unknown,
}

/// The job service: starts jobs, shows them with live progress, ends them.
pub struct Jobs {
    inner: Arc<Inner>,
}

/// What the service and its workers share.
pub(crate) struct Inner {
    store: Arc<dyn Store>,
    clock: SharedClock,
    keep: Duration,
    live: Mutex<BTreeMap<JobId, Arc<Live>>>,
    /// Ends that the store did not take, or that nobody wrote.
    later: Mutex<Vec<(Arc<Live>, End)>>,
    refused: Mutex<BTreeMap<String, VecDeque<JobId>>>,
    /// Refused jobs that a full disk did not take, oldest first: until the process ends or others push them out.
    unstored: Mutex<VecDeque<Job>>,
}

impl Jobs {
    /// The service over this store. Jobs are removed `keep` after their end (at least five minutes) by
    /// [`Jobs::sweep`].
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: SharedClock, keep: Duration) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::new(Inner {
                store,
                clock,
                keep: keep.max(KEEP_MIN),
                live: Mutex::default(),
                later: Mutex::default(),
                refused: Mutex::default(),
                unstored: Mutex::default(),
            }),
        })
    }

    /// How long an ended job is kept: TimeBeforeRemoval.
    #[must_use]
    pub fn keep(&self) -> Duration {
        self.inner.keep
    }

    /// Makes the job durable in state Running, together with `also`, and hands out its worker's end.
    ///
    /// # Errors
    /// [`StoreError`]; there is no job then.
    pub async fn start(&self, new: NewJob, mut also: Vec<Change>) -> Result<Worker, StoreError> {
        let job = self.record(new);
        // In memory first: who finds the job in the store must be able to cancel it.
        let live = self.inner.show(&job);
        also.push(Change::PutJob(job));
        match self.inner.store.transact(Box::new(move |_| also)).await {
            Ok(_) => Ok(self.worker(live)),
            Err(error) => {
                self.inner.forget(live.id);
                live.end();
                Err(error)
            }
        }
    }

    /// Records a job that ended before it began (state 10), for a method that answers 1..6. Keeps the
    /// newest 64 of them per user. One that a full disk does not take can be read by its id all the same, while
    /// this process runs and no 64 others of its sort came after it: it is what tells that the disk is full.
    /// `shown`: the answer names the job; else only the history has it.
    ///
    /// # Errors
    /// [`StoreError`], but not [`StoreError::Full`].
    pub async fn refused(
        &self,
        new: NewJob,
        what: What,
        shown: bool,
        error: JobError,
    ) -> Result<JobId, StoreError> {
        let mut job = self.record(new);
        let id = job.id;
        job.state = JobState::Exception;
        job.cancellable = false;
        job.status = error.description.clone();
        job.error = Some(error);
        let mut ended = Ended::refused(&job, what);
        ended.job = shown.then_some(id);
        ended.tell();
        let mut changes = vec![Change::Ended(ended)];
        if shown {
            let oldest = self.inner.make_room(&job.owner, id);
            changes.extend(oldest.map(Change::RemoveJob));
            changes.push(Change::PutJob(job.clone()));
        }
        let stored = self.inner.store.transact(Box::new(move |_| changes)).await;
        match stored {
            Ok(_) => {}
            Err(StoreError::Full(_)) if shown => self.inner.keep_unstored(job),
            Err(StoreError::Full(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(id)
    }

    /// The job, with the progress of this moment.
    #[must_use]
    pub fn get(&self, id: JobId) -> Option<Job> {
        let live = self.inner.live(id);
        match self.inner.store.state().jobs.get(&id) {
            Some(job) => Some(at_this_moment(job, live.as_deref())),
            None => self.inner.unstored(id),
        }
    }

    /// All jobs, in the order of their ids, with the progress of this moment.
    #[must_use]
    pub fn all(&self) -> Vec<Job> {
        let live = self.inner.all_live().clone();
        let state = self.inner.store.state();
        let jobs = state.jobs.values();
        jobs.map(|job| at_this_moment(job, live.get(&job.id).map(Arc::as_ref)))
            .collect()
    }

    /// Jobs that the last process left Running; recovery finishes or undoes each through [`Jobs::adopt`].
    #[must_use]
    pub fn open_jobs(&self) -> Vec<Job> {
        let live = self.inner.all_live();
        let state = self.inner.store.state();
        let jobs = state.jobs.values();
        jobs.filter(|job| !job.state.is_terminal() && !live.contains_key(&job.id))
            .map(|job| Job::clone(job))
            .collect()
    }

    /// The worker's end of a job that the last process left Running. `None` if there is no such job, if it
    /// has ended or if it has a worker.
    #[must_use]
    pub fn adopt(&self, id: JobId) -> Option<Worker> {
        let job = self.inner.store.state().jobs.get(&id).map(Arc::clone)?;
        let mut live = self.inner.all_live();
        if job.state.is_terminal() || live.contains_key(&id) {
            return None;
        }
        let shown = Arc::new(Live::of(&job, true));
        live.insert(id, Arc::clone(&shown));
        Some(self.worker(shown))
    }

    /// Asks the job to stop. Durable before it is accepted: a restart does not forget it. A kill goes over
    /// an earlier terminate.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was asked then.
    pub async fn cancel(
        &self,
        id: JobId,
        kind: CancelKind,
        by: &str,
    ) -> Result<Cancelled, StoreError> {
        let Some(job) = self.inner.store.state().jobs.get(&id).map(Arc::clone) else {
            return Ok(Cancelled::Unknown);
        };
        let live = match self.inner.live(id) {
            Some(live) if !job.state.is_terminal() && !live.committed() && !live.has_ended() => {
                live
            }
            _ => return Ok(Cancelled::TooLate),
        };
        let request = CancelRequest {
            kind,
            by: by.to_owned(),
        };
        let stored = self.store_cancel(&live, request.clone()).await?;
        Ok(if stored && live.cancel(request) {
            Cancelled::Accepted
        } else {
            Cancelled::TooLate
        })
    }

    /// Waits until the job has ended or `limit` is over; the job as it is then. A job without a worker is
    /// not waited for.
    pub async fn wait(&self, id: JobId, limit: Duration) -> Option<Job> {
        if let Some(live) = self.inner.live(id) {
            let _ = tokio::time::timeout(limit, live.ended()).await;
        }
        self.get(id)
    }

    /// Notes the cancel, and how far the job has come: that is what it keeps, in another process too.
    async fn store_cancel(
        &self,
        live: &Arc<Live>,
        request: CancelRequest,
    ) -> Result<bool, StoreError> {
        let live = Arc::clone(live);
        let decided = store::decide(&*self.inner.store, move |state| {
            let Some(job) = state
                .jobs
                .get(&live.id)
                .filter(|job| !job.state.is_terminal())
            else {
                return Err(());
            };
            if job.cancel.as_ref().is_some_and(|c| c.kind >= request.kind) {
                return Ok((Vec::new(), ()));
            }
            let mut job = Job::clone(job);
            live.show(&mut job);
            job.cancel = Some(request);
            Ok((vec![Change::PutJob(job)], ()))
        });
        Ok(decided.await?.is_ok())
    }

    fn record(&self, new: NewJob) -> Job {
        let now = self.inner.clock.now();
        Job {
            id: new.id,
            kind: new.kind,
            service: new.service,
            state: JobState::Running,
            percent: 0,
            status: new.status,
            cancellable: true,
            owner: new.owner,
            affected: new.affected,
            about: new.about,
            set: new.set,
            error: None,
            cancel: None,
            submitted: now,
            started: now,
            changed: now,
        }
    }

    fn worker(&self, live: Arc<Live>) -> Worker {
        Worker {
            inner: Arc::clone(&self.inner),
            live,
        }
    }
}

impl Inner {
    fn live(&self, id: JobId) -> Option<Arc<Live>> {
        self.all_live().get(&id).cloned()
    }

    fn show(&self, job: &Job) -> Arc<Live> {
        let live = Arc::new(Live::of(job, false));
        self.all_live().insert(job.id, Arc::clone(&live));
        live
    }

    fn forget(&self, id: JobId) {
        self.all_live().remove(&id);
    }

    /// Counts one more refused job of the user; the one that has to go for it.
    fn make_room(&self, owner: &str, id: JobId) -> Option<JobId> {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let ids = refused.entry(owner.to_owned()).or_default();
        ids.push_back(id);
        if ids.len() > REFUSED_PER_USER {
            ids.pop_front()
        } else {
            None
        }
    }

    fn keep_unstored(&self, job: Job) {
        let mut jobs = self.unstored.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.push_back(job);
        if jobs.len() > REFUSED_PER_USER {
            jobs.pop_front();
        }
    }

    fn unstored(&self, id: JobId) -> Option<Job> {
        let jobs = self.unstored.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.iter().find(|job| job.id == id).cloned()
    }

    fn all_live(&self) -> MutexGuard<'_, BTreeMap<JobId, Arc<Live>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn later(&self) -> MutexGuard<'_, Vec<(Arc<Live>, End)>> {
        self.later.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn at_this_moment(stored: &Job, live: Option<&Live>) -> Job {
    let mut job = stored.clone();
    if let Some(live) = live
        && !job.state.is_terminal()
    {
        live.show_to_clients(&mut job);
    }
    job
}

#[cfg(test)]
mod tests;
