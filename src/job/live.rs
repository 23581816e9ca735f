//! The in-memory state of a running job: progress, an accepted cancel, and whether the commit point has been passed.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use jiff::Timestamp;

use crate::id::JobId;
use crate::inventory::{CancelRequest, Job};
use crate::text::Text;

use super::end::{Outcome, terminate};

/// A running job in memory.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) id: JobId,
    /// Taken over from an earlier process.
    pub(super) adopted: bool,
    now: Mutex<Now>,
    ended: watch::Sender<bool>,
}

/// The part that moves.
#[derive(Debug)]
struct Now {
    percent: u8,
    status: Text,
    /// What it waits for; shown instead of the status.
    stands: Option<Text>,
    cancel: Option<CancelRequest>,
    committed: bool,
    /// How and when it has ended, as long as the store does not take that.
    end: Option<(Outcome, Timestamp)>,
}

impl Live {
    /// A job as the store has it.
    pub(super) fn of(job: &Job, adopted: bool) -> Self {
        Self {
            id: job.id,
            adopted,
            now: Mutex::new(Now {
                percent: job.percent,
                status: job.status.clone(),
                stands: None,
                cancel: job.cancel.clone(),
                committed: !job.cancellable,
                end: None,
            }),
            ended: watch::channel(false).0,
        }
    }

    /// Goes on to `percent` (at most 99), never back; no further once it is cancelled, unless it is taken over from an
    /// earlier process: that one is done to its end.
    pub(super) fn progress(&self, percent: u8, status: Text) {
        let mut now = self.now();
        if now.cancel.is_none() || self.adopted {
            now.percent = now.percent.max(percent.min(99));
        }
        now.status = status;
    }

    /// Waits for this, or for nothing any more.
    pub(super) fn stands(&self, at: Option<Text>) {
        self.now().stands = at;
    }

    /// Writes this moment into a copy of the stored job.
    pub(super) fn show(&self, job: &mut Job) {
        let now = self.now();
        job.percent = job.percent.max(now.percent);
        job.status.clone_from(&now.status);
        job.cancellable = !now.committed;
        job.cancel.clone_from(&now.cancel);
    }

    /// As clients see it: with what it waits for, which is of this process, and an end that is not stored yet is one.
    pub(super) fn show_to_clients(&self, job: &mut Job) {
        self.show(job);
        if let Some(stands) = &self.now().stands {
            job.status.clone_from(stands);
        }
        if let Some((outcome, at)) = self.now().end.clone() {
            terminate(job, outcome, at);
        }
    }

    /// Has it ended for clients, though the store does not take that yet.
    pub(super) fn hold(&self, outcome: Outcome, at: Timestamp) {
        self.now().end.get_or_insert((outcome, at));
        self.end();
    }

    /// When it has ended, if the store did not take that.
    pub(super) fn held_since(&self) -> Option<Timestamp> {
        self.now().end.as_ref().map(|(_, at)| *at)
    }

    /// Enters a cancel; a kill goes over a terminate. `false` past the commit point.
    pub(super) fn cancel(&self, request: CancelRequest) -> bool {
        let mut now = self.now();
        if now.committed || now.end.is_some() {
            return false;
        }
        if now.cancel.as_ref().is_none_or(|c| c.kind < request.kind) {
            now.cancel = Some(request);
        }
        true
    }

    pub(super) fn cancelled(&self) -> Option<CancelRequest> {
        self.now().cancel.clone()
    }

    /// Passes the commit point unless a cancel came first.
    pub(super) fn commit_point(&self) -> bool {
        let mut now = self.now();
        now.committed |= now.cancel.is_none();
        now.committed
    }

    pub(super) fn committed(&self) -> bool {
        self.now().committed
    }

    pub(super) fn end(&self) {
        self.ended.send_replace(true);
    }

    pub(super) fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Waits for [`Live::end`].
    pub(super) async fn ended(&self) {
        let mut ended = self.ended.subscribe();
        let _ = ended.wait_for(|e| *e).await;
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
