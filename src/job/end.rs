//! How a job ends: the terminal record, its one commit, and ends that have to be tried again.

use std::sync::Arc;

use jiff::Timestamp;

use crate::inventory::{
    Affected, CancelKind, CancelRequest, Ended, Job, JobError, JobKind, JobState, Service,
};
use crate::store::{self, Change, State, StoreError};
use crate::text::catalog::job as texts;
use crate::text::{Message, Text};

use super::Inner;
use super::live::Live;

/// ErrorCode of a job that was cancelled (`docs/semantics.md` §5).
const CANCELLED: u16 = 32768;

/// An end to be written.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) outcome: Outcome,
    pub(super) changes: Vec<Change>,
}

/// How it went.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// Well, with the last status text.
    Completed(Text),
    /// By a cancel that undid nothing; what is done and what is left.
    Paused(Text),
    /// Badly, for this reason, unless a cancel was the reason.
    Failed(JobError),
    /// The same while what it had done is still to be undone.
    Undoing(JobError),
}

impl Inner {
    /// Writes the end of a running job: its terminal record and the changes in one commit.
    pub(super) async fn end(&self, live: &Arc<Live>, end: End) -> Result<(), StoreError> {
        let held = live.held_since();
        let now = held.unwrap_or_else(|| self.clock.now());
        let shown = Arc::clone(live);
        let written = store::decide(&*self.store, move |state| {
            let mut job = running(state, &shown)?;
            terminate(&mut job, end.outcome, now);
            let ended = Ended::of(&job, shown.adopted);
            let mut changes = end.changes;
            changes.push(Change::PutJob(job));
            changes.push(Change::Ended(ended.clone()));
            Ok((changes, ended))
        });
        match written.await? {
            Ok(ended) => {
                if held.is_none() {
                    ended.tell();
                }
                self.forget(live.id);
                live.end();
                Ok(())
            }
            Err(AlreadyEnded(reason)) => Err(StoreError::Refused(reason)),
        }
    }

    /// Leaves an end to the next sweep.
    pub(super) fn end_later(&self, live: Arc<Live>, end: End) {
        let mut later = self.later();
        if later.iter().all(|(waiting, _)| waiting.id != live.id) {
            later.push((live, end));
        }
    }

    /// Has the job ended for clients and for the log, and leaves the record of that to the next sweep.
    pub(super) fn hold(&self, live: &Arc<Live>, end: End) {
        let now = self.clock.now();
        if let Ok(mut job) = running(&self.store.state(), live) {
            terminate(&mut job, end.outcome.clone(), now);
            Ended::of(&job, live.adopted).tell();
        }
        live.hold(end.outcome.clone(), now);
        self.end_later(Arc::clone(live), end);
    }

    /// A worker is gone and its job still runs.
    pub(super) fn lost(&self, live: &Arc<Live>) {
        if self
            .later()
            .iter()
            .any(|(waiting, _)| waiting.id == live.id)
        {
            return;
        }
        tracing::error!(job = %live.id, "the worker of this job went away without ending it");
        let error = JobError {
            code: self.failed_code(live),
            description: texts::WORKER_LOST.text(),
            details: Vec::new(),
        };
        let end = End {
            outcome: Outcome::Failed(error),
            changes: Vec::new(),
        };
        self.end_later(Arc::clone(live), end);
    }

    /// Tries the ends that wait.
    pub(super) async fn end_waiting(&self) -> Result<(), StoreError> {
        let waiting = std::mem::take(&mut *self.later());
        for (live, end) in waiting {
            match self.end(&live, end.clone()).await {
                Ok(()) | Err(StoreError::Refused(_)) => {}
                Err(error) => {
                    self.end_later(live, end);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// "Failed" in the error family of the job's service (`docs/semantics.md` §1).
    fn failed_code(&self, live: &Live) -> u16 {
        match self.store.state().jobs.get(&live.id).map(|j| j.service) {
            Some(Service::CollectionManagement) => 32768,
            Some(Service::CollectionSnapshot | Service::VirtualSystemSnapshot) | None => 2,
        }
    }
}

struct AlreadyEnded(String);

/// The stored job with what its worker last showed.
fn running(state: &State, live: &Live) -> Result<Job, AlreadyEnded> {
    match state.jobs.get(&live.id) {
        Some(job) if !job.state.is_terminal() => {
            let mut job = Job::clone(job);
            live.show(&mut job);
            Ok(job)
        }
        _ => Err(AlreadyEnded(format!("job {} has already ended", live.id))),
    }
}

pub(super) fn terminate(job: &mut Job, outcome: Outcome, now: Timestamp) {
    match outcome {
        Outcome::Completed(status) => {
            job.state = JobState::Completed;
            job.percent = 100;
            job.status = status;
            job.cancel = None;
            if let (JobKind::CreateSnapshotSet, Some(set)) = (job.kind, job.set) {
                job.affected.push(Affected::Set(set));
            }
        }
        Outcome::Paused(why) => {
            let kind = job.cancel.as_ref().map(|cancel| cancel.kind);
            job.state = cancelled_state(kind.unwrap_or(CancelKind::Terminate));
            job.status = why.clone();
            job.error = Some(JobError {
                code: CANCELLED,
                description: why,
                details: Vec::new(),
            });
        }
        Outcome::Failed(error) => fail(job, error, texts::CANCELLED),
        Outcome::Undoing(error) => fail(job, error, texts::CANCELLED_UNDOING),
    }
    job.cancellable = false;
    job.changed = now;
}

/// Ends it badly, in these words if it was cancelled.
fn fail(job: &mut Job, error: JobError, words: Message) {
    let (state, error) = match &job.cancel {
        None => (JobState::Exception, error),
        Some(cancel) => (
            cancelled_state(cancel.kind),
            cancelled(cancel, error, words),
        ),
    };
    job.state = state;
    job.status = error.description.clone();
    job.error = Some(error);
}

const fn cancelled_state(kind: CancelKind) -> JobState {
    match kind {
        CancelKind::Terminate => JobState::Terminated,
        CancelKind::Kill => JobState::Killed,
    }
}

/// Names who cancelled; what the worker had to say stays as details.
fn cancelled(cancel: &CancelRequest, error: JobError, words: Message) -> JobError {
    let description = words.with("user", &cancel.by);
    let mut details = error.details;
    if error.description.id() != texts::CANCELLED.id {
        details.insert(0, error.description);
    }
    JobError {
        code: CANCELLED,
        description,
        details,
    }
}
