//! The worker's end of a running job.

use std::sync::Arc;

use crate::id::JobId;
use crate::inventory::{CancelKind, JobError};
use crate::store::{Change, StoreError};
use crate::text::Text;

use super::Inner;
use super::end::{End, Outcome};
use super::live::Live;

/// The worker's end of a running job. A worker that is dropped before it has ended its job leaves an
/// Exception (10) behind, written by the next sweep.
pub struct Worker {
    pub(super) inner: Arc<Inner>,
    pub(super) live: Arc<Live>,
}

impl Worker {
    /// The job's id.
    #[must_use]
    pub fn id(&self) -> JobId {
        self.live.id
    }

    /// Shows progress, 0..=99; never goes back. In memory at once, in the store now and then.
    pub fn progress(&self, percent: u8, status: Text) {
        self.live.progress(percent, status);
    }

    /// Shows what the job waits for in place of its status, or that it waits no more.
    pub fn stands(&self, at: Option<Text>) {
        self.live.stands(at);
    }

    /// Has the job ended?
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.live.has_ended()
    }

    /// Has someone asked to stop? How and who.
    #[must_use]
    pub fn cancelled(&self) -> Option<(CancelKind, String)> {
        self.live.cancelled().map(|c| (c.kind, c.by))
    }

    /// Who has asked to stop a job that may leave something for later behind its commit point. Nobody has of
    /// an adopted one: after a crash it goes forward to its end (`docs/cut.md` §4).
    #[must_use]
    pub fn paused(&self) -> Option<String> {
        self.cancelled()
            .filter(|_| !self.live.adopted)
            .map(|(_, by)| by)
    }

    /// From here on the job cannot be cancelled. `false` if a cancel came first.
    pub fn commit_point(&self) -> bool {
        self.live.commit_point()
    }

    /// Ends the job well: `changes` and JobState 7 in one commit. A create job gets its set as affected
    /// element in the same commit (`docs/semantics.md` §5). Passes the commit point if that was not done. An
    /// adopted job completes over a cancel: it was past its commit point before the restart.
    ///
    /// # Errors
    /// [`StoreError`], [`StoreError::Refused`] if a cancel came first; the job is still running then and
    /// can be ended by [`Worker::fail`] after the undo.
    pub async fn complete(&self, status: Text, changes: Vec<Change>) -> Result<(), StoreError> {
        if !self.live.adopted && !self.commit_point() {
            let reason = format!("job {} was cancelled", self.live.id);
            return Err(StoreError::Refused(reason));
        }
        let end = End {
            outcome: Outcome::Completed(status),
            changes,
        };
        self.inner.end(&self.live, end).await
    }

    /// Ends the job badly, after the undo: state 8 or 9 if it was cancelled (then ErrorCode 32768 and a
    /// text that names who cancelled), else 10.
    ///
    /// Where the store takes nothing now, as on a full disk, the job has ended for clients all the same: it waits for
    /// nothing. The record of that is made by the first sweep that can; until then it is lost with the process.
    ///
    /// # Errors
    /// [`StoreError::Broken`], [`StoreError::Refused`] of a job that has ended.
    pub async fn fail(&self, error: JobError, changes: Vec<Change>) -> Result<(), StoreError> {
        let outcome = Outcome::Failed(error);
        self.end_badly(End { outcome, changes }).await
    }

    /// [`Worker::fail`] before the undo, which goes on when the job has ended.
    ///
    /// # Errors
    /// As there.
    pub async fn fail_undoing(&self, error: JobError) -> Result<(), StoreError> {
        let outcome = Outcome::Undoing(error);
        let changes = Vec::new();
        self.end_badly(End { outcome, changes }).await
    }

    async fn end_badly(&self, end: End) -> Result<(), StoreError> {
        match self.inner.end(&self.live, end.clone()).await {
            Err(StoreError::Full(_) | StoreError::Unrecorded(_)) => {
                self.inner.hold(&self.live, end);
                Ok(())
            }
            result => result,
        }
    }

    /// Ends a job that a cancel stopped behind its commit point, where nothing is undone: state 8 or 9 with
    /// ErrorCode 32768, and `changes` in the same commit. `why` says what is done, what is left and who
    /// cancelled.
    ///
    /// # Errors
    /// [`StoreError`]; the job is still running then.
    pub async fn pause(&self, why: Text, changes: Vec<Change>) -> Result<(), StoreError> {
        let end = End {
            outcome: Outcome::Paused(why),
            changes,
        };
        self.inner.end(&self.live, end).await
    }

    /// Takes the job back, as if it had never been: what belongs to it could not be made durable, and whoever
    /// called for it is told of no job. Where the store does not take that now, it ends badly for this reason.
    ///
    /// # Errors
    /// As [`Worker::fail`].
    pub async fn withdraw(self, why: JobError) -> Result<(), StoreError> {
        let gone = vec![Change::RemoveJob(self.live.id)];
        match self.inner.store.transact(Box::new(move |_| gone)).await {
            Ok(_) => {
                self.inner.forget(self.live.id);
                self.live.end();
                Ok(())
            }
            Err(error @ StoreError::Broken(_)) => Err(error),
            Err(_) => self.fail(why, Vec::new()).await,
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !self.live.has_ended() {
            self.inner.lost(&self.live);
        }
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("job", &self.live.id)
            .finish()
    }
}
