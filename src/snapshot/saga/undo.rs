//! Jobs that end before what their operation has done is undone: what they say, and where it is told what the undo had to
//! leave.

use crate::audit::About;
use crate::inventory::{Ended, Ending, Job, JobError};
use crate::snapshot::saga::kind::Kind;
use crate::snapshot::saga::operation::Operation;
use crate::store::{Change, State, StoreError};

impl<K: Kind> Operation<K> {
    /// The job ends, and says that the undo is still to come.
    pub(crate) async fn end_before_undo(&self, mut error: JobError) -> Result<(), String> {
        let Some(worker) = self.worker.as_ref().filter(|worker| !worker.has_ended()) else {
            return Ok(());
        };
        let words = [
            (K::WORDS.failed, K::WORDS.failed_undoing),
            (K::WORDS.interrupted, K::WORDS.interrupted_undoing),
        ];
        let mut words = words.into_iter();
        let said = words.find(|(done, _)| done.id == error.description.id());
        if let Some((_, Some(undoing))) = said {
            error.description = error.description.in_words_of(undoing);
        }
        recorded(worker.fail_undoing(error).await)
    }

    /// What the undo had to leave is told where its job has ended before: by the job, as long as that is kept, and by the
    /// history.
    pub(crate) async fn note_left(&self) -> Result<(), String> {
        let Some(left) = self.kind.left() else {
            return Ok(());
        };
        let (id, now) = (self.kind.job(), self.core.deps.clock.now());
        let (what, set) = (self.kind.what(), self.kind.set());
        let decide = move |state: &State| {
            let Some(job) = state.jobs.get(&id) else {
                return vec![Change::Ended(Ended {
                    what,
                    outcome: Ending::Failed,
                    job: Some(id),
                    user: String::new(),
                    about: About::default().set(set, ""),
                    started: now,
                    ended: now,
                    reason: left.english(),
                    code: None,
                    recovered: true,
                })];
            };
            let mut job = Job::clone(job);
            let ended = Ended {
                ended: now,
                reason: left.english(),
                ..Ended::of(&job, false)
            };
            match &mut job.error {
                Some(error) if error.details.contains(&left) => return Vec::new(), // by a dead process
                Some(error) => error.details.push(left),
                None => {}
            }
            vec![Change::PutJob(job), Change::Ended(ended)]
        };
        let noted = self.core.deps.store.transact(Box::new(decide)).await;
        if let Err(error) = &noted {
            tracing::warn!(%error, "What an undo had to leave is told by the log only");
        }
        recorded(noted.map(drop))
    }
}

/// Whether it is recorded that a job has ended, or it had ended already.
pub(crate) fn recorded(ended: Result<(), StoreError>) -> Result<(), String> {
    match ended {
        Err(StoreError::Broken(cause)) => Err(cause),
        _ => Ok(()),
    }
}
