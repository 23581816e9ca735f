//! The driver of one operation in flight. `run` takes the steps up to the commit point; `finish` goes through those
//! after it, and retries each until it succeeds; `resume` continues what a dead process left. An error or a cancel
//! before the commit point leads to the undo (`undo`). Cancels, progress and waits for silent files are handled here
//! too.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::sync::watch;
use tokio::task::JoinError;

use crate::engine::{Compute, Drivers, EngineError, EngineErrorKind, Hold};
use crate::failpoint::FailedOnOrder;
use crate::held::{Post, Standing};
use crate::id::{SetId, VmId};
use crate::inventory::{JobError, Machine};
use crate::job::Worker;
use crate::snapshot::saga::core::Core;
use crate::snapshot::saga::guard::Guard;
use crate::snapshot::saga::journal::{Journal, Line, WriteError};
use crate::snapshot::saga::kind::{Kind, PartWork, Step, WholeWork, Work};
use crate::snapshot::saga::leases::{Lease, Stand};
use crate::snapshot::saga::word::Word;
use crate::store::{State, StoreError};
use crate::text::catalog::job as cancelled;
use crate::text::catalog::snapshot as texts;
use crate::text::{Argument, Text};

/// First and longest pause between two attempts to go forward, or to undo.
pub(super) const RETRY: (Duration, Duration) =
    (Duration::from_millis(250), Duration::from_secs(30));
/// So often it waits, about 4 s in all, for the folder of an image before what it has made there is left to others. The
/// process that planned holds the folder; another one, after a death, finds it or does not.
pub(crate) const PATIENT: u32 = 4;
/// How often it is looked whether a thread stands at a file that does not answer.
const GLANCE: Duration = Duration::from_millis(500);
/// ErrorCode of a job that failed; a kind may have another.
pub(super) const FAILED: u16 = 2;
/// ErrorCode of a job that was cancelled.
const CANCELLED: u16 = 32768;

/// How far a recovered operation came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Working,
    /// It tries again and again; why.
    Waiting(Text),
    /// It has ended; forward, or undone.
    Done {
        forward: bool,
    },
}

/// Where the operation of a dead process goes on.
pub(crate) enum GoOn {
    /// It was not captured: back.
    Back(JobError),
    /// Its word is CUT, and no record says so yet.
    Window,
    /// It was committed. `published`: only what comes after that is left.
    Finish { published: bool },
}

/// An operation and everything it holds. Dropping it lets go of the images, then of the machines.
pub(crate) struct Operation<K: Kind> {
    pub(crate) core: Arc<Core>,
    pub(crate) kind: K,
    pub(crate) journal: Mutex<Journal>,
    /// `None` if the job ended before the journal did, or never began.
    pub(crate) worker: Option<Worker>,
    pub(crate) verdict: watch::Sender<Verdict>,
    pub(crate) holds: Mutex<BTreeMap<VmId, Hold>>,
    pub(crate) lease: Lease,
    /// Its commit word, once machines may stand still for it.
    pub(crate) word: OnceLock<Arc<Word>>,
    /// Who lets them go if this process cannot.
    pub(crate) guard: Mutex<Option<Guard>>,
    /// How often it has waited.
    pub(crate) waited: AtomicU32,
}

/// How the parts of a step are worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// After the first failure, or a cancel, no further part is begun.
    OrNone,
    /// Each, whatever becomes of the others.
    All,
    /// As [`Way::All`], to undo what was done.
    Back,
}

/// Why a step before the commit point did not go on.
pub(super) enum Stop {
    Undo(JobError),
    Broken(String),
}

/// Why a step after the commit point, or of the undo, did not end yet.
pub(super) enum Trouble {
    Wait(Text),
    /// For want of room.
    Full(Text),
    Broken(String),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Broken(_) => Self::Broken(error.to_string()),
            StoreError::Full(_) => Self::Full(texts::STORE_FAILED.with("cause", error)),
            _ => Self::Wait(texts::STORE_FAILED.with("cause", error)),
        }
    }
}

impl From<WriteError> for Trouble {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Refused(..) => {
                let text = texts::JOURNAL_FAILED.with("cause", error.why());
                match error.is_no_room() {
                    true => Self::Full(text),
                    false => Self::Wait(text),
                }
            }
            WriteError::Broken(..) => Self::Broken(error.to_string()),
        }
    }
}

impl From<FailedOnOrder> for Trouble {
    fn from(error: FailedOnOrder) -> Self {
        Self::Wait(texts::ORDERED.with("cause", error))
    }
}

impl From<FailedOnOrder> for Stop {
    fn from(error: FailedOnOrder) -> Self {
        Self::Undo(failed(texts::ORDERED.with("cause", error), Vec::new()))
    }
}

impl<K: Kind> Operation<K> {
    /// From the beginning.
    pub(crate) async fn run(self: Arc<Self>) {
        let set = self.set();
        let end = match self.take(0).await {
            Ok(()) => self.finish(false).await,
            Err(Stop::Undo(error)) => self.back(error).await,
            Err(Stop::Broken(cause)) => Err(cause),
        };
        match end {
            Ok(()) => {
                self.drop_holds().await;
                self.core.stock();
                tracing::debug!(kind = K::NAME, %set, "Journal closed");
            }
            Err(cause) => self.halt(cause).await,
        }
    }

    /// What a dead process left.
    pub(crate) async fn resume(self: Arc<Self>, at: GoOn) {
        let (forward, end) = match at {
            GoOn::Finish { published } => (true, self.finish(published).await),
            GoOn::Back(error) => (false, self.back(error).await),
            GoOn::Window => match self.from_window().await {
                Ok(()) => (true, self.finish(false).await),
                Err(Stop::Undo(error)) => (false, self.back(error).await),
                Err(Stop::Broken(cause)) => (false, Err(cause)),
            },
        };
        match end {
            Ok(()) => {
                self.drop_holds().await;
                self.core.stock();
                self.verdict.send_replace(Verdict::Done { forward });
            }
            Err(cause) => self.halt(cause).await,
        }
    }

    /// Nothing is let go before the process ends: nobody knows what is durable.
    async fn halt(&self, cause: String) {
        self.core.break_down(cause);
        std::future::pending::<()>().await;
    }

    /// From the step of that number.
    pub(super) async fn take(self: &Arc<Self>, from: usize) -> Result<(), Stop> {
        if let (true, Some(worker)) = (K::TAKE.is_empty() && !K::DEFERS, &self.worker) {
            worker.commit_point(); // the intent was the commit; whoever cancelled meanwhile came too late
        }
        for step in K::TAKE.iter().skip(from) {
            self.stop_if_cancelled()?;
            self.core.pass(K::NAME, step.name, "before")?;
            self.progress(step.percent, step.doing.text());
            match step.work {
                Work::Parts { run, .. } => {
                    let failures = self.each(step, run, Way::OrNone).await;
                    self.stop_if_cancelled()?;
                    if !failures.is_empty() {
                        return Err(self.unable(step, failures));
                    }
                }
                Work::Window {
                    run, fences, keep, ..
                } => {
                    if self.kind.stops_in().is_some() {
                        self.window(step, run, fences, keep).await?;
                    }
                }
                Work::Record(record) => {
                    let record = record(&self.kind);
                    let commits = K::commits(&record);
                    if commits && self.worker.as_ref().is_some_and(|w| !w.commit_point()) {
                        self.stop_if_cancelled()?;
                    }
                    self.append(Line::of(&record)).await.map_err(|e| match e {
                        Trouble::Wait(text) | Trouble::Full(text) => {
                            Stop::Undo(failed(text, Vec::new()))
                        }
                        Trouble::Broken(cause) => Stop::Broken(cause),
                    })?;
                    if commits {
                        let _no_way_back = self.core.pass(K::NAME, step.name, "after");
                        return Ok(());
                    }
                }
                Work::Whole(_) | Work::Publish | Work::Clear => {}
            }
            self.core.pass(K::NAME, step.name, "after")?;
        }
        Ok(())
    }

    /// A step failed, of which these are the reasons.
    pub(super) fn unable(&self, step: &Step<K>, failures: Vec<EngineError>) -> Stop {
        let Some(first) = failures.first() else {
            return Stop::Undo(failed(texts::INTERNAL.text(), Vec::new()));
        };
        let what = K::WORDS.failed.with("set", self.set());
        let what = what.with("doing", step.doing.text());
        let what = what.with("cause", &first.text);
        let code = match first.kind {
            EngineErrorKind::Unsupported => K::INVALID_STATE,
            _ => FAILED,
        };
        Stop::Undo(JobError {
            code,
            ..failed(what, texts_of(failures))
        })
    }

    /// Only forward: what cannot be done now is tried until it can (`docs/cut.md` §3). The job stays open and
    /// says what it waits for; members stay held.
    async fn finish(self: &Arc<Self>, published: bool) -> Result<(), String> {
        let publish = |step: &Step<K>| matches!(step.work, Work::Publish);
        let done = K::FINISH.iter().position(publish).filter(|_| published);
        for step in K::FINISH.iter().skip(done.map_or(0, |publish| publish + 1)) {
            let mut pause = RETRY.0;
            loop {
                match self.finish_step(step).await {
                    Ok(()) => {
                        if pause > RETRY.0 {
                            self.lease.doing(step.doing.text()); // it waits no more
                        }
                        break;
                    }
                    Err(Trouble::Broken(cause)) => return Err(cause),
                    Err(Trouble::Full(_)) if self.kind.frees() && self.core.make_room().await => {}
                    Err(Trouble::Wait(cause) | Trouble::Full(cause)) => {
                        let why = K::WORDS.finish_waits.with("set", self.set());
                        self.wait(why.with("cause", cause), &mut pause).await;
                    }
                }
            }
        }
        Ok(())
    }

    async fn finish_step(self: &Arc<Self>, step: &Step<K>) -> Result<(), Trouble> {
        self.core.pass(K::NAME, step.name, "before")?;
        self.progress(step.percent, step.doing.text());
        match step.work {
            Work::Parts { run, .. } => {
                let failures = self.each(step, run, Way::All).await;
                let is_full = |e: &&EngineError| e.kind == EngineErrorKind::Full;
                let full = failures.iter().find(is_full).map(|e| e.text.clone());
                if let Some(first) = texts_of(failures).into_iter().next() {
                    let broken = self.core.broken.borrow().clone();
                    let waits = full.map_or(Trouble::Wait(first), Trouble::Full);
                    return Err(broken.map_or(waits, Trouble::Broken));
                }
            }
            Work::Publish => {
                // Whoever sees the end of the job may start the machines at once, on their new files.
                // What the set keeps stays closed to whoever starts one on an old file.
                self.let_go().await?;
                self.publish().await?;
            }
            Work::Whole(run) => self.whole(run).await?,
            Work::Clear => self.clear().await?,
            Work::Record(record) => self.append(Line::of(&record(&self.kind))).await?,
            Work::Window { .. } => {} // it comes before the commit
        }
        Ok(self.core.pass(K::NAME, step.name, "after")?)
    }

    async fn publish(&self) -> Result<(), Trouble> {
        let state = self.core.deps.store.state();
        let Some((status, changes)) = self.kind.publish(&state) else {
            return Ok(()); // this or a dead process came so far
        };
        if let Some(worker) = &self.worker {
            let mut ended = worker.complete(status.clone(), changes.clone()).await;
            if let (Err(StoreError::Refused(_)), Some(by)) = (&ended, self.paused()) {
                let why = texts::PAUSED.with("status", status).with("user", by);
                ended = worker.pause(why, changes.clone()).await;
            }
            match ended {
                Err(StoreError::Refused(_)) => {} // the job has ended; the result is published all the same
                result => return Ok(result?),
            }
        }
        let changes = Box::new(move |_: &State| changes);
        self.core.deps.store.transact(changes).await?;
        Ok(())
    }

    pub(super) async fn wait(&self, why: Text, pause: &mut Duration) {
        tracing::warn!(set = %self.set(), why = why.english(), "Waiting to try again");
        self.progress(0, why.clone());
        self.lease.waits(why.clone());
        self.verdict.send_replace(Verdict::Waiting(why));
        self.waited.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(*pause).await;
        *pause = (*pause * 2).min(RETRY.1);
    }

    /// Works on every part, several at a time; why those that failed did.
    pub(super) async fn each(
        self: &Arc<Self>,
        step: &Step<K>,
        run: PartWork<K>,
        way: Way,
    ) -> Vec<EngineError> {
        let of = self.kind.parts().len();
        let (or_none, span) = (way == Way::OrNone, span(step));
        let mut waits = K::WAITS.iter();
        let queue = waits.find(|(name, _)| *name == step.name);
        let queue = queue.map(|(_, queue)| *queue);
        let stop = Arc::new(AtomicBool::new(false));
        let mut results = stream::iter(0..of)
            .map(|n| {
                let (operation, stop) = (Arc::clone(self), Arc::clone(&stop));
                async move {
                    if or_none && (stop.load(Ordering::SeqCst) || operation.is_cancelled()) {
                        return None;
                    }
                    let name = operation.kind.parts().get(n).map_or("", K::name).to_owned();
                    let doing = Arc::clone(&operation);
                    let _place = match queue {
                        Some(queue) => {
                            let crowds = &operation.core.crowds;
                            crowds.enter(queue, || operation.paused().is_some()).await
                        }
                        None => None,
                    };
                    let work = operation.blocking(&name, move || doing.one(n, run));
                    Some((n, work.await))
                }
            })
            .buffer_unordered(self.core.deps.limits.parallel.max(1));
        let (mut failures, mut count) = (Vec::new(), 0);
        loop {
            let next = tokio::time::timeout(GLANCE, results.next()).await;
            let (n, result) = match next {
                Ok(None) => break,
                Ok(Some(Some(done))) => done,
                Ok(Some(None)) => continue,
                Err(_) => {
                    if way != Way::All {
                        self.end_if_cancelled().await;
                    }
                    continue;
                }
            };
            let name = self.kind.parts().get(n).map_or("", K::name);
            match result {
                Ok(Ok(())) => {
                    count += 1;
                    let percent = match way {
                        Way::Back => 0, // it stays where it was
                        Way::OrNone | Way::All => self.kind.percent(span, count),
                    };
                    self.progress(percent, member_done(step, name, count, of));
                }
                Ok(Err(e)) => {
                    stop.store(true, Ordering::SeqCst);
                    failures.push(e);
                }
                Err(panicked) => {
                    tracing::error!(%panicked, step = step.name, "A step panicked");
                    stop.store(true, Ordering::SeqCst);
                    let failed = texts::MEMBER_FAILED.with("machine", name);
                    failures.push(EngineError {
                        kind: EngineErrorKind::Failed,
                        text: failed.with("cause", texts::INTERNAL.text()),
                    });
                }
            }
        }
        failures
    }

    /// Does what is one thing for all parts.
    async fn whole(self: &Arc<Self>, run: WholeWork<K>) -> Result<(), Trouble> {
        let operation = Arc::clone(self);
        match self.blocking("", move || run(&operation)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if error.kind == EngineErrorKind::Broken => {
                Err(Trouble::Broken(error.to_string()))
            }
            Ok(Err(error)) if error.kind == EngineErrorKind::Full => Err(Trouble::Full(error.text)),
            Ok(Err(error)) => Err(Trouble::Wait(error.text)),
            Err(panicked) => {
                tracing::error!(%panicked, "A step panicked");
                Err(Trouble::Wait(texts::INTERNAL.text()))
            }
        }
    }

    /// Has work done on a thread that may wait for files, and tells when it stands at one that does not answer, and when
    /// it does no more. It is of this machine, or of all.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        machine: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let post = Post::default();
        let at = post.clone();
        let mut work = tokio::task::spawn_blocking(move || at.attend(work));
        let mut told = None;
        loop {
            let done = tokio::time::timeout(GLANCE, &mut work).await;
            let now = post.standing();
            if now != told {
                self.stands(number, machine, now.as_ref());
                told = now;
            }
            if let Ok(done) = done {
                return done;
            }
        }
    }

    /// Tells that a thread of its stands, or that it does no more, under a number of this wait.
    fn stands(&self, number: u64, machine: &str, standing: Option<&Standing>) {
        let (set, job) = (self.set(), self.kind.job());
        let all = || self.kind.machines().join(", ");
        let machines = if machine.is_empty() {
            all()
        } else {
            machine.to_owned()
        };
        let stand = standing.map(|standing| {
            let text = match machine {
                "" => texts::STANDS_AT_ONE.text(),
                machine => texts::STANDS.with("machine", machine),
            };
            let text = text.with("file", any_of(&standing.files));
            tracing::warn!(%job, %set, %machines, why = text.english(), "An operation waits for a file that does not answer");
            let files = standing.files.clone();
            Stand { files, text }
        });
        if stand.is_none() {
            tracing::warn!(%job, %set, %machines, "The file that an operation waited for answers again");
        }
        let first = self.lease.stands(number, stand);
        if let Some(why) = &first {
            self.verdict.send_replace(Verdict::Waiting(why.clone()));
        }
        if let Some(worker) = &self.worker {
            worker.stands(first);
        }
    }

    fn one(&self, n: usize, run: PartWork<K>) -> Result<(), EngineError> {
        let done = self.kind.parts().get(n).map_or(Ok(()), |p| run(self, p));
        if let Err(error) = &done
            && error.kind == EngineErrorKind::Broken
        {
            self.core.break_down(error.to_string());
        }
        done
    }

    /// Adds a record to the journal, from a thread that works on a part.
    pub(crate) fn record(&self, record: &K::Record) -> Result<(), EngineError> {
        self.write(Line::of(record)).map_err(|e| {
            if matches!(e, WriteError::Broken(..)) {
                self.core.break_down(e.to_string());
            }
            let kind = match e.is_no_room() {
                true => EngineErrorKind::Full,
                false => EngineErrorKind::Failed,
            };
            let text = texts::JOURNAL_FAILED.with("cause", e.why());
            EngineError { kind, text }
        })
    }

    pub(super) async fn append(self: &Arc<Self>, line: io::Result<Line>) -> Result<(), Trouble> {
        let operation = Arc::clone(self);
        let append = self.blocking("", move || operation.write(line));
        Ok(append.await.map_err(panicked)??)
    }

    fn write(&self, line: io::Result<Line>) -> Result<(), WriteError> {
        let mut journal = self.journal();
        match line {
            Ok(line) => journal.append(&line),
            Err(e) => Err(WriteError::Refused(journal.path().to_owned(), e)),
        }
    }

    pub(super) async fn clear(self: &Arc<Self>) -> Result<(), Trouble> {
        let operation = Arc::clone(self);
        let remove = self.blocking("", move || {
            let kind = &operation.kind;
            if kind.stops_in().is_some() {
                let removed = Word::remove(&operation.core.journals(), kind.job());
                let refused = |e| WriteError::Refused(operation.journal().path().to_owned(), e);
                removed.map_err(refused)?;
            }
            operation.journal().remove()
        });
        Ok(remove.await.map_err(panicked)??)
    }

    pub(super) fn stop_if_cancelled(&self) -> Result<(), Stop> {
        let Some((_, by)) = self.worker.as_ref().and_then(Worker::cancelled) else {
            return Ok(());
        };
        Err(Stop::Undo(JobError {
            code: CANCELLED,
            description: cancelled::CANCELLED.with("user", by),
            details: Vec::new(),
        }))
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.worker
            .as_ref()
            .is_some_and(|w| w.cancelled().is_some())
    }

    /// Who has asked to leave for later what can wait.
    pub(crate) fn paused(&self) -> Option<String> {
        let worker = self.worker.as_ref().filter(|_| K::DEFERS);
        worker.and_then(Worker::paused)
    }

    pub(crate) fn progress(&self, percent: u8, status: Text) {
        if let Some(worker) = &self.worker {
            worker.progress(percent, status);
        }
    }

    pub(crate) fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self) -> SetId {
        self.kind.set()
    }

    /// Holds the machine's images from now until the end, if that is not so already.
    pub(crate) fn hold(&self, machine: &Machine) -> Result<(), EngineError> {
        let mut holds = self.holds();
        if let Entry::Vacant(place) = holds.entry(machine.id) {
            place.insert(self.core.deps.compute.hold(machine)?);
        }
        Ok(())
    }

    /// [`Operation::hold`] of one of which new files may be held already: its active ones too, if they are not.
    pub(crate) fn hold_ended(&self, machine: &Machine) -> Result<(), EngineError> {
        let mut holds = self.holds();
        let hold = holds.entry(machine.id).or_default();
        // What is kept frozen is kept from everybody, from this process too.
        let frozen = &self.core.deps.frozen;
        let is_left = |file: &Path| !hold.covers(file) && !frozen.holds(file);
        let disks = machine.disks.iter().filter(|disk| is_left(&disk.file));
        let left = Machine {
            disks: disks.cloned().collect(),
            ..machine.clone()
        };
        if !left.disks.is_empty() {
            hold.join(self.core.deps.compute.hold(&left)?);
        }
        Ok(())
    }

    /// Holds one more file for the machine, if it is not held already.
    pub(crate) fn hold_also(
        &self,
        machine: VmId,
        file: &Path,
        take: impl FnOnce() -> Result<Hold, EngineError>,
    ) -> Result<(), EngineError> {
        let mut holds = self.holds();
        let hold = holds.entry(machine).or_default();
        if !hold.covers(file) {
            hold.join(take()?);
        }
        Ok(())
    }

    /// What was to be removed, in a folder that others `may_take` away: where it is away, or another stands in its place,
    /// the files are left to `remember`, and nobody is held for their sake.
    ///
    /// # Errors
    /// It was not done, for another reason or not yet for long; that of `remember`.
    pub(crate) fn or_left(
        &self,
        done: Result<(), EngineError>,
        may_take: bool,
        remember: impl FnOnce(&Core) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let is_away = |e: &EngineError| e.kind == EngineErrorKind::Unsupported && may_take;
        let patient = self.waited.load(Ordering::Relaxed) < PATIENT;
        match done {
            Err(e) if is_away(&e) && !patient => remember(&self.core),
            done => done,
        }
    }

    /// The machine, or `None` if its definition was removed since. One that merely cannot be read now is
    /// waited for.
    pub(crate) fn present(
        &self,
        machine: VmId,
        name: &str,
        definition: &Path,
    ) -> Result<Option<Arc<Machine>>, EngineError> {
        if let Some(machine) = self.compute().machine(machine) {
            return Ok(Some(machine));
        }
        match fs::symlink_metadata(definition) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            _ => Err(EngineError {
                kind: EngineErrorKind::Failed,
                text: texts::MEMBER_UNREADABLE.with("machine", name),
            }),
        }
    }

    /// Whether one of the holds is on this image.
    pub(crate) fn is_held(&self, file: &Path) -> bool {
        let holds = self.holds();
        holds.values().any(|hold| hold.covers(file))
    }

    /// Lets go of the images, but for what the set keeps; on a thread that may wait for them.
    async fn let_go(self: &Arc<Self>) -> Result<(), Trouble> {
        let operation = Arc::clone(self);
        let gone = self.blocking("", move || {
            let holds = std::mem::take(&mut *operation.holds());
            let frozen = &operation.core.deps.frozen;
            frozen.take_over(holds.into_values(), &operation.kind.keeps());
        });
        gone.await.map_err(|panicked| {
            tracing::error!(%panicked, "Letting go of images panicked");
            Trouble::Wait(texts::INTERNAL.text())
        })
    }

    /// Lets go of the images that are still held, on a thread that may wait for them.
    async fn drop_holds(&self) {
        let holds = std::mem::take(&mut *self.holds());
        if holds.is_empty() {
            return;
        }
        let dropped = self.blocking("", move || drop(holds));
        if let Err(panicked) = dropped.await {
            tracing::error!(%panicked, "Letting go of images panicked");
        }
    }

    fn holds(&self) -> MutexGuard<'_, BTreeMap<VmId, Hold>> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn drivers(&self) -> &Drivers {
        &self.core.deps.storage
    }

    pub(crate) fn compute(&self) -> &dyn Compute {
        &*self.core.deps.compute
    }
}

/// From the percent of the step to that of the next one.
fn span<K: Kind>(step: &Step<K>) -> (u8, u8) {
    let all = K::TAKE.iter().chain(K::FINISH);
    let later = all.map(|s| s.percent).filter(|p| *p > step.percent);
    (step.percent, later.min().unwrap_or(step.percent))
}

pub(super) fn texts_of(failures: Vec<EngineError>) -> Vec<Text> {
    failures.into_iter().map(|error| error.text).collect()
}

/// The error of something that failed.
pub(crate) fn failed(description: Text, details: Vec<Text>) -> JobError {
    JobError {
        code: FAILED,
        description,
        details,
    }
}

/// One of these files, of which nothing may be known.
fn any_of(files: &[PathBuf]) -> Argument {
    let mut files = files
        .iter()
        .rev()
        .map(|file| Argument::from(file.display()));
    let Some(last) = files.next() else {
        return texts::ONE_OF_FILES.text().into();
    };
    files.fold(last, |others, file| {
        texts::ANY_OF
            .with("first", file)
            .with("others", others)
            .into()
    })
}

fn member_done<K: Kind>(step: &Step<K>, name: &str, count: usize, of: usize) -> Text {
    if name.is_empty() {
        return step.doing.text(); // its one part is all of it
    }
    texts::PROGRESS
        .with("doing", step.doing.text())
        .with("machine", name)
        .with("count", count)
        .with("of", of)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the form that map_err asks for"
)]
fn panicked(error: JoinError) -> Trouble {
    Trouble::Broken(format!("writing the journal: {error}"))
}

/// A step panicked on its thread.
pub(super) fn panicked_at(error: &JoinError, step: &str) -> EngineError {
    tracing::error!(%error, step, "A step panicked");
    EngineError {
        kind: EngineErrorKind::Failed,
        text: texts::INTERNAL.text(),
    }
}
