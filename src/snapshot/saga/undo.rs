//! The way back: what was done before the commit point is undone, last step first. A job may end while its undo is
//! still pending: its text then, and how files that the undo could not remove are reported afterwards.

use std::sync::Arc;

use crate::audit::About;
use crate::inventory::{Ended, Ending, Job, JobError};
use crate::snapshot::saga::kind::{Kind, Work};
use crate::snapshot::saga::operation::{FAILED, Operation, RETRY, Stop, Trouble, Way, texts_of};
use crate::snapshot::saga::story;
use crate::snapshot::saga::window::RELEASE_PAUSE;
use crate::store::{Change, State, StoreError};

impl<K: Kind> Operation<K> {
    /// Undoes everything. If that cannot be done now, the job ends all the same and the members stay held
    /// until it can.
    pub(super) async fn back(self: &Arc<Self>, mut error: JobError) -> Result<(), String> {
        if error.code == FAILED {
            error.code = K::FAILED;
        }
        // Machines first: some may stand still.
        let mut standing = self.let_go_on().await.failed;
        if standing.is_empty() {
            self.undoes().await;
        }
        if let Some(word) = self.word.get() {
            word.fire(); // also where all were captured: whoever recovers this goes back as well
            if standing.is_empty() {
                word.back();
            }
        }
        self.progress(0, K::WORDS.undoing.with("set", self.set()));
        let _only_before = self.core.pass(K::NAME, "abort", "before");
        match self.append(story::abort(error.clone())).await {
            Err(Trouble::Broken(cause)) => return Err(cause),
            // It only tells the next process the cause; without it, that process undoes as well.
            Err(Trouble::Wait(cause) | Trouble::Full(cause)) => {
                tracing::warn!(cause = cause.english(), "Abort is not recorded")
            }
            Ok(()) => {}
        }
        let _ = self.core.pass(K::NAME, "abort", "after");
        let mut pause = RETRY.0;
        loop {
            let mut failures = texts_of(std::mem::take(&mut standing));
            // What is prepared is in use by a machine that was not let go.
            let steps = K::TAKE.iter().rev().filter(|_| failures.is_empty());
            let steps: Vec<_> = steps.collect();
            for step in steps {
                if let Work::Parts {
                    undo: Some(undo), ..
                } = step.work
                {
                    failures.extend(texts_of(self.each(step, undo, Way::Back).await));
                }
            }
            let Some(first) = failures.first() else {
                break;
            };
            let why = K::WORDS
                .undo_waits
                .with("set", self.set())
                .with("cause", first);
            self.lease.stuck(why.clone());
            let mut error = error.clone();
            error.details.extend(failures);
            self.end_before_undo(error).await?;
            self.wait(why, &mut pause).await;
            standing = self.let_go_on().await.failed;
            if !standing.is_empty() {
                pause = pause.min(RELEASE_PAUSE);
            }
            if standing.is_empty() {
                self.undoes().await;
                if let Some(word) = self.word.get() {
                    word.back();
                }
            }
        }
        self.disarm().await;
        if pause > RETRY.0 {
            self.lease.doing(K::WORDS.undoing.with("set", self.set())); // it waits no more
        }
        let _ = self.core.pass(K::NAME, "undone", "before");
        match self.worker.as_ref().filter(|worker| !worker.has_ended()) {
            Some(worker) => {
                error.details.extend(self.kind.left());
                recorded(worker.fail(error, Vec::new()).await)?;
            }
            None => self.note_left().await?,
        }
        let _ = self.core.pass(K::NAME, "undone", "after");
        let mut pause = RETRY.0;
        while let Err(trouble) = self.clear().await {
            match trouble {
                Trouble::Broken(cause) => return Err(cause),
                Trouble::Wait(why) | Trouble::Full(why) => self.wait(why, &mut pause).await,
            }
        }
        Ok(())
    }

    /// If a cancel came while a thread hangs on a silent file, ends the job now; the members stay leased until the file
    /// answers and the undo is done.
    pub(super) async fn end_if_cancelled(&self) {
        let Some(why) = self.lease.standing() else {
            return;
        };
        if let Err(Stop::Undo(mut error)) = self.stop_if_cancelled() {
            let waits = K::WORDS.undo_waits.with("set", self.set());
            error.details.push(waits.with("cause", why));
            if let Err(cause) = self.end_before_undo(error).await {
                self.core.break_down(cause);
            }
        }
    }

    /// The job ends, and says that the undo is still to come.
    async fn end_before_undo(&self, mut error: JobError) -> Result<(), String> {
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

    /// If the job ended before the undo did, reports what the undo could not remove: in the job, as long as that is
    /// kept, and in the history.
    async fn note_left(&self) -> Result<(), String> {
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
fn recorded(ended: Result<(), StoreError>) -> Result<(), String> {
    match ended {
        Err(StoreError::Broken(cause)) => Err(cause),
        _ => Ok(()),
    }
}
