//! The window of an operation: the part of it in which machines stand still (`docs/cut.md` §2).
//!
//! It is one asynchronous function over all parts at once, on a thread and runtime of its own, so that nothing that the
//! server does for others delays a machine that stands still; between the first stop and the last resume nothing in it
//! waits for a disk, the store, the log or the progress of a job. It ends with the commit word. Where it fails, machines
//! are let go first, and only then is anything written.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use futures_util::future::{self, BoxFuture};
use tokio::runtime::{Builder, Handle};
use tokio_util::task::AbortOnDropHandle;

use crate::audit::Event;
use crate::engine::{EngineError, EngineErrorKind, Fence};
use crate::id::{JobId, SetId, VmId};
use crate::snapshot::saga::core::{Core, JOURNALS};
use crate::snapshot::saga::guard::Guard;
use crate::snapshot::saga::guard::wire::{Report, Ward};
use crate::snapshot::saga::journals;
use crate::snapshot::saga::kind::{
    Fences, Freeing, Keep, Kind, PartWork, Release, Step, WindowWork, Work,
};
use crate::snapshot::saga::operation::{
    Operation, RETRY, Stop, Way, failed, panicked_at, texts_of,
};
use crate::snapshot::saga::word::{Note, Word};
use crate::text::Text;
use crate::text::catalog::snapshot as texts;

/// So much longer than a window the guard waits.
const MARGIN: Duration = Duration::from_secs(1);
/// How long a start waits for the guards of dead processes before it does what they have left, and how long it then waits
/// for them to hear of it.
const GUARDS: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3));
/// For letting one machine go on, before it is tried again.
pub(crate) const RELEASE: Duration = Duration::from_secs(5);
/// How long a set whose members are all captured waits for one that does not go on, or whose guest stays frozen.
const GOING_ON: Duration = Duration::from_secs(10);
/// The longest pause before a machine that stands still is asked again to go on.
pub(super) const RELEASE_PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked whether the time is up, or the job was cancelled.
const TICK: Duration = Duration::from_millis(10);

/// What came of an attempt to let machines go.
#[derive(Debug, Default)]
pub(crate) struct Released {
    /// Why some do not go on yet.
    pub(crate) failed: Vec<EngineError>,
    /// Where all stand since.
    pub(crate) standing: Standing,
}

/// The machines that an operation has stopped, or may have, and that do not go on yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing {
    /// Those that were stopped.
    pub(crate) stopped: BTreeSet<VmId>,
    /// Those whose guest was frozen, and whether it was seen to be so since it runs again.
    pub(crate) frozen: BTreeMap<VmId, bool>,
    /// Those at which an undo of a dead process may have left something that keeps their disks from going on.
    pub(crate) blocked: BTreeSet<VmId>,
    /// Why what was captured of a machine is not what was promised.
    pub(crate) doubts: BTreeMap<VmId, EngineError>,
    /// Why the files of one that has ended could not be kept from others.
    pub(crate) taken: BTreeMap<VmId, EngineError>,
}

impl Standing {
    /// Whether a machine is owed nothing any more.
    pub(crate) fn is_free(&self, machine: VmId) -> bool {
        !self.stopped.contains(&machine) && !self.frozen.contains_key(&machine)
    }
}

/// What `work` gives; nothing if it takes longer than that by the clock of the server.
pub(crate) async fn within<T>(
    core: &Core,
    limit: Duration,
    work: impl Future<Output = T>,
) -> Option<T> {
    let clock = &core.deps.clock;
    let until = clock.elapsed().saturating_add(limit);
    let mut work = pin!(work);
    loop {
        match tokio::time::timeout(TICK, &mut work).await {
            Ok(done) => return Some(done),
            Err(_) if clock.elapsed() >= until => return None,
            Err(_) => {}
        }
    }
}

/// An open window.
pub(crate) struct Frame<K: Kind> {
    operation: Arc<Operation<K>>,
    word: Arc<Word>,
    limit: Mutex<Limit>,
    /// The runtime that the window is not on.
    others: Handle,
}

/// How long a window may stay open.
#[derive(Debug, Clone, Copy)]
struct Limit {
    /// By the clock of the server.
    until: Duration,
    /// The time that there was, for who asks why it is up.
    budget: Duration,
}

impl<K: Kind> Frame<K> {
    /// What this is the window of.
    pub(crate) fn operation(&self) -> &Operation<K> {
        &self.operation
    }

    /// There is no more time than this from now on.
    pub(crate) fn shorten(&self, budget: Duration) {
        let clock = &self.operation.core.deps.clock;
        let until = clock.elapsed().saturating_add(budget);
        let mut limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        if until < limit.until {
            *limit = Limit { until, budget };
            if let Some(guard) = &*self.operation.guard() {
                guard.within(budget.saturating_add(MARGIN));
            }
        }
    }

    fn limit(&self) -> Limit {
        *self.limit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes something of the part of this number, for whoever comes after this process.
    pub(crate) fn note(&self, part: usize, note: Note) {
        self.word.note(part, note);
    }

    /// Has work on files done where the window waits for it no longer than it wants to, not even with its end.
    pub(crate) fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.others.spawn_blocking(work)
    }

    /// Passes the fail point `<kind>.<name>.<side>`.
    ///
    /// # Errors
    /// On order.
    pub(crate) fn pass(&self, name: &str, side: &str) -> Result<(), EngineError> {
        let passed = self.operation.core.pass(K::NAME, name, side);
        passed.map_err(|e| refused(texts::ORDERED.with("cause", e)))
    }

    /// What `work` gives, as long as this process may still ask machines for anything. It is looked at before each step of
    /// the work: this process may have stood still since the one before, and the guard have let all machines go.
    ///
    /// # Errors
    /// Of the work; [`Frame::may_go_on`].
    pub(crate) async fn bounded<T>(
        &self,
        work: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        let mut work = pin!(work);
        let mut work = poll_fn(|context| match self.may_go_on() {
            Ok(()) => work.as_mut().poll(context),
            Err(error) => Poll::Ready(Err(error)),
        });
        loop {
            // Whoever is polled once more after its time looks again.
            if let Ok(done) = tokio::time::timeout(TICK, &mut work).await {
                return done;
            }
        }
    }

    /// Whether the window is still open.
    ///
    /// # Errors
    /// Somebody else has let the machines go, the guard is gone, somebody has cancelled, or the time is up.
    fn may_go_on(&self) -> Result<(), EngineError> {
        if !self.word.is_armed() {
            return Err(refused(texts::WINDOW_FIRED.text()));
        }
        self.guarded()?;
        if self.operation.is_cancelled() {
            return Err(refused(texts::WINDOW_CANCELLED.text()));
        }
        let limit = self.limit();
        if self.operation.core.deps.clock.elapsed() >= limit.until {
            let seconds = i64::try_from(limit.budget.as_secs()).unwrap_or(i64::MAX);
            return Err(refused(texts::WINDOW_LATE.with("seconds", seconds)));
        }
        Ok(())
    }

    /// All machines are captured: the word becomes CUT, and they may go on.
    ///
    /// # Errors
    /// Somebody else has let them go before, or would not any more if this process died.
    pub(crate) fn commit(&self) -> Result<(), EngineError> {
        self.guarded()?;
        let cut = self.word.cut();
        cut.then_some(())
            .ok_or_else(|| refused(texts::WINDOW_FIRED.text()))
    }

    /// The guard is still there, if there is one.
    fn guarded(&self) -> Result<(), EngineError> {
        match self.operation.guard().as_mut().is_some_and(Guard::is_gone) {
            true => Err(refused(texts::GUARD_GONE.text())),
            false => Ok(()),
        }
    }
}

fn refused(text: Text) -> EngineError {
    EngineError {
        kind: EngineErrorKind::Failed,
        text,
    }
}

/// The window among the steps of a kind.
struct Place<K: Kind> {
    number: usize,
    step: &'static Step<K>,
    release: Release<K>,
    again: PartWork<K>,
}

fn place_of<K: Kind>() -> Option<Place<K>> {
    let mut steps = K::TAKE.iter().enumerate();
    steps.find_map(|(number, step)| match step.work {
        Work::Window { release, again, .. } => Some(Place {
            number,
            step,
            release,
            again,
        }),
        _ => None,
    })
}

impl<K: Kind> Operation<K> {
    /// Arms the word, starts the guard, goes through the window, and waits until every machine goes on again.
    pub(super) async fn window(
        self: &Arc<Self>,
        step: &Step<K>,
        run: WindowWork<K>,
        fences: Fences<K>,
        keep: Keep<K>,
    ) -> Result<(), Stop> {
        let _open = self.core.windows.token();
        let operation = Arc::clone(self);
        let arm = move || {
            let (journals, kind) = (operation.core.journals(), &operation.kind);
            Word::arm(&journals, kind.job(), kind.parts().len())
        };
        let armed = match self.blocking("", arm).await {
            Ok(armed) => armed
                .map(Arc::new)
                .map_err(|e| refused(texts::WORD_FAILED.with("cause", &e))),
            Err(panicked) => Err(panicked_at(&panicked, step.name)),
        };
        let word = armed.map_err(|e| self.unable(step, vec![e]))?;
        let word = Arc::clone(self.word.get_or_init(|| word));
        let fenced = fences(&self.core, &self.kind).await;
        let fenced = fenced.map_err(|e| self.unable(step, vec![e]))?;
        // Not on the runtime of the window: what that waits for keeps nobody's files open to others.
        let keeping = tokio::spawn(keep(Arc::clone(self), &fenced.guests));
        let _keeping = AbortOnDropHandle::new(keeping);
        if !fenced.wards.is_empty() {
            let guard = self.start_guard(Arc::clone(&word), fenced.wards).await;
            *self.guard() = Some(guard.map_err(|e| self.unable(step, vec![e]))?);
        }
        let operation = Arc::clone(self);
        let on_its_own = move || operation.on_its_own(word, move |frame| run(frame, fenced.guests));
        let done = match self.blocking("", on_its_own).await {
            Ok(done) => done,
            Err(panicked) => Err(panicked_at(&panicked, step.name)),
        };
        self.stop_if_cancelled()?;
        done.map_err(|e| self.unable(step, vec![e]))?;
        self.go_on().await
    }

    async fn start_guard(
        &self,
        word: Arc<Word>,
        fences: Vec<(Ward, Fence)>,
    ) -> Result<Guard, EngineError> {
        let program = self.core.deps.guard.clone();
        let patience = self.core.deps.limits.window.saturating_add(MARGIN);
        let start = move || Guard::start(&program, &word, patience, &fences);
        let started = self.blocking("", start).await;
        let started = started.unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
        started.map_err(|e| refused(texts::GUARD_FAILED.with("cause", e)))
    }

    fn guard(&self) -> MutexGuard<'_, Option<Guard>> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody stands still any more, and what was made is about to be undone: the guard ends, unless an undo may hold up a
    /// machine.
    pub(super) async fn undoes(&self) {
        let watches = self.guard().as_ref().is_some_and(Guard::watches_undo);
        if !watches {
            self.disarm().await;
        }
    }

    /// Nobody stands still any more: ends the guard, and tells what it has done, if it had to.
    pub(super) async fn disarm(&self) {
        let Some(guard) = self.guard().take() else {
            return;
        };
        if let Err(panicked) = self.blocking("", || guard.disarm()).await {
            tracing::error!(%panicked, "Ending a guard panicked");
        }
        if let Some(report) = self.word.get().and_then(|word| word.reported()) {
            tell(&self.core, self.set(), self.kind.job(), &report);
        }
    }

    /// What speaks against the capture of guests that were not frozen any more when they were asked: the guard may have
    /// thawed them, and seen them frozen until then.
    async fn doubted(&self, doubts: BTreeMap<VmId, EngineError>) -> Vec<EngineError> {
        self.disarm().await;
        let report = self.word.get().and_then(|word| word.reported());
        let is_left = |id: VmId| !report.as_ref().is_some_and(|it| it.was_frozen(id));
        let left = doubts.into_iter().filter(|(id, _)| is_left(*id));
        left.map(|(_, doubt)| doubt).collect()
    }

    /// Goes through the window on a thread and runtime of its own. Blocks.
    fn on_its_own(
        self: Arc<Self>,
        word: Arc<Word>,
        run: impl FnOnce(Frame<K>) -> BoxFuture<'static, Result<(), EngineError>> + Send + 'static,
    ) -> Result<(), EngineError> {
        let failed = |cause: String| refused(texts::WINDOW_FAILED.with("cause", cause));
        let mut runtime = Builder::new_current_thread();
        let runtime = runtime.enable_all().build();
        let runtime = runtime.map_err(|e| failed(e.to_string()))?;
        let others = Handle::current();
        let through = move || {
            runtime.block_on(async move {
                let until = self.core.deps.clock.elapsed();
                let until = until.saturating_add(self.core.deps.limits.window);
                let frame = Frame {
                    operation: Arc::clone(&self),
                    word: Arc::clone(&word),
                    others,
                    limit: Mutex::new(Limit {
                        until,
                        budget: self.core.deps.limits.window,
                    }),
                };
                let done = run(frame).await;
                if done.is_err() {
                    // From here on it cannot become CUT, and the guard need not hurry.
                    let _was_armed = word.fire_first();
                    if let Some(guard) = &*self.guard() {
                        guard.longer(RELEASE.saturating_mul(2).saturating_add(MARGIN));
                    }
                    // What does not go on now is tried again before anything is undone.
                    let _again = self.let_go_on().await;
                }
                done
            })
            // The end of the runtime waits for drivers that still work on files: before anything is undone, and when every
            // machine was let go.
        };
        let thread = thread::Builder::new().name("window".to_owned());
        let thread = thread.spawn(through).map_err(|e| failed(e.to_string()))?;
        thread
            .join()
            .unwrap_or_else(|_| Err(refused(texts::INTERNAL.text())))
    }

    /// Lets every machine go on that stands still for this operation. May be repeated.
    pub(super) async fn let_go_on(&self) -> Released {
        release_of(&self.core, &self.kind, &|machine| self.is_free(machine)).await
    }

    /// Tells the guard that a machine is owed nothing any more, whatever becomes of the others.
    pub(crate) fn is_free(&self, machine: VmId) {
        if let Some(guard) = &*self.guard() {
            guard.free([machine]);
        }
    }

    /// All are captured: waits until every machine goes on. Goes back if what was captured is not what was promised, if
    /// that takes too long, or if somebody cancels.
    pub(super) async fn go_on(self: &Arc<Self>) -> Result<(), Stop> {
        let clock = &self.core.deps.clock;
        let until = clock.elapsed().saturating_add(GOING_ON);
        let mut pause = RETRY.0;
        let doubts = loop {
            let released = self.let_go_on().await;
            let Some(first) = released.failed.first() else {
                break released.standing.doubts;
            };
            self.stop_if_cancelled()?;
            if clock.elapsed() >= until {
                return Err(self.not_captured(released.failed));
            }
            let why = K::WORDS.finish_waits.with("set", self.set());
            let why = why.with("cause", &first.text);
            self.lease.stuck(why.clone());
            self.wait(why, &mut pause).await;
            pause = pause.min(RELEASE_PAUSE);
        };
        let doubts = self.doubted(doubts).await;
        if !doubts.is_empty() {
            return Err(self.not_captured(doubts));
        }
        if let Some(word) = self.word.get() {
            word.free();
        }
        Ok(())
    }

    /// All were captured, and what speaks against a set of that.
    fn not_captured(&self, why: Vec<EngineError>) -> Stop {
        let cause = why.first().map(|first| first.text.clone());
        let what = K::WORDS.failed.with("set", self.set());
        let what = what.with("doing", texts::CUTTING.text());
        let what = what.with("cause", cause.unwrap_or_else(|| texts::INTERNAL.text()));
        Stop::Undo(failed(what, texts_of(why)))
    }

    /// What a dead process left whose word is CUT: forward from there, if what was captured has stayed as it was since.
    pub(super) async fn from_window(self: &Arc<Self>) -> Result<(), Stop> {
        let Some(place) = place_of::<K>() else {
            return self.take(K::TAKE.len()).await;
        };
        // Files may not answer, and some machine may stand still yet.
        let _tried_again = self.let_go_on().await;
        let changed = self.each(place.step, place.again, Way::All).await;
        if !changed.is_empty() {
            return Err(self.not_captured(changed));
        }
        self.go_on().await?;
        self.take(place.number + 1).await
    }
}

/// Says in the log and in the audit log what a guard has done.
fn tell(core: &Core, set: SetId, job: JobId, report: &Report) {
    let (cause, machines, left) = (report.cause.name(), report.machines(), report.left());
    tracing::error!(%set, %job, cause, machines = machines.join(", "), stuck = left.join(", "), "The guard has let machines go");
    let audit = core.deps.audit.clone();
    let (set, job) = (set.to_string(), job.to_string());
    core.tasks.spawn(async move {
        let fired = Event::GuardFired {
            set,
            job,
            cause,
            machines,
            left,
        };
        audit.note(&fired).await;
    });
}

/// Before any journal is taken up: lets machines go that stand still for an operation of a dead process, all of them at
/// once, and not before its guard has ended. What came of it, by job.
pub(crate) async fn release_all(core: &Arc<Core>) -> BTreeMap<JobId, Released> {
    let shared = Arc::clone(core);
    let read = tokio::task::spawn_blocking(move || {
        let folder = shared.deps.data_dir.join(JOURNALS);
        // Also where one of them is damaged or cannot be read: the others have machines too.
        let stories = journals::read_any(&folder, shared.kinds).unwrap_or_else(|error| {
            tracing::error!(folder = %folder.display(), %error, "Journals: machines that a dead process has stopped are not let go");
            Vec::new()
        });
        let stories = stories.into_iter();
        // A word that cannot be read keeps nobody standing.
        let words = stories.map(|story| (story.word(&folder), story));
        let open = words.filter_map(|(word, story)| match word {
            Ok(word) => word
                .filter(|word| !word.is_free())
                .map(|word| (story, Some(Arc::new(word)))),
            Err(_) => Some((story, None)),
        });
        open.collect::<Vec<_>>()
    });
    let stories = read.await.unwrap_or_default();
    let words = stories.iter().filter_map(|(_, word)| word.clone());
    let words: Vec<_> = words.collect();
    // It has the connections to the monitors, and does the same.
    if within(core, GUARDS.0, guards_end(&words)).await.is_none() {
        tracing::error!(
            "The guard of a dead process does not end, as a machine is stuck; what it has left is done here"
        );
        let taken = words.clone();
        let take_over = move || taken.iter().for_each(|word| word.take_over());
        if let Err(panicked) = tokio::task::spawn_blocking(take_over).await {
            tracing::error!(%panicked, "Taking over from a guard panicked");
        }
        if within(core, GUARDS.1, guards_end(&words)).await.is_none() {
            tracing::error!("A guard neither ends nor listens: is it stopped?");
        }
    }
    let released = stories.iter().map(|(story, word)| async {
        let report = word.as_ref().and_then(|word| word.reported());
        if let Some(report) = &report {
            tell(core, story.set().0, story.job(), report);
        }
        let released = story.release(core, word.as_deref()).await;
        (story.job(), released)
    });
    let released: BTreeMap<_, _> = future::join_all(released).await.into_iter().collect();
    for (job, released) in &released {
        for error in &released.failed {
            tracing::error!(%job, %error, "A machine that a dead process has stopped cannot be let go now");
        }
        if released.failed.is_empty() {
            tracing::warn!(%job, "Machines that a dead process may have stopped go on");
        }
    }
    released
}

/// Comes back when no guard has a hand on any of these words any more.
async fn guards_end(words: &[Arc<Word>]) {
    while words.iter().any(|word| word.is_guarded()) {
        tokio::time::sleep(TICK).await;
    }
}

/// What lets machines go, of a kind that stops some.
pub(crate) fn release_of<'a, K: Kind>(
    core: &'a Core,
    kind: &'a K,
    is_free: Freeing<'a>,
) -> BoxFuture<'a, Released> {
    match place_of::<K>() {
        Some(place) => (place.release)(core, kind, is_free),
        None => Box::pin(future::ready(Released::default())),
    }
}
