//! The window of an operation: the part of it in which machines stand still (`docs/cut.md` §2).
//!
//! It is one asynchronous function over all parts at once, on a thread and runtime of its own, so that nothing that the
//! server does for others delays a machine that stands still; between the first stop and the last resume nothing in it
//! waits for a disk, the store, the log or the progress of a job. It ends with the commit word. Where it fails, machines
//! are let go first, and only then is anything written.

use std::collections::BTreeMap;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use futures_util::future::{self, BoxFuture};
use tokio::runtime::Builder;
use tokio_util::task::AbortOnDropHandle;

use crate::audit::Event;
use crate::engine::{EngineError, EngineErrorKind, Fence};
use crate::id::{JobId, SetId, VmId};
use crate::snapshot::saga::core::{Core, JOURNALS};
use crate::snapshot::saga::guard::Guard;
use crate::snapshot::saga::guard::wire::{Report, Ward};
use crate::snapshot::saga::journals;
use crate::snapshot::saga::kind::{Fences, Keep, Kind, Release, Step, WindowWork, Work};
use crate::snapshot::saga::operation::{Operation, RETRY, Stop, failed, panicked_at, texts_of};
use crate::snapshot::saga::word::Word;
use crate::text::Text;
use crate::text::catalog::snapshot as texts;

/// So much longer than a window the guard waits.
const MARGIN: Duration = Duration::from_secs(1);
/// How long a start waits for the guards of dead processes before it does what they have left, and how long it then waits
/// for them to hear of it.
const GUARDS: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3));
/// For letting one machine go on, before it is tried again.
pub(crate) const RELEASE: Duration = Duration::from_secs(5);
/// The longest pause before a machine that stands still is asked again to go on.
pub(super) const RELEASE_PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked whether the time is up, or the job was cancelled.
const TICK: Duration = Duration::from_millis(10);

/// What came of an attempt to let machines go.
#[derive(Debug, Default)]
pub(crate) struct Released {
    /// The machines that are owed nothing any more.
    pub(crate) free: Vec<VmId>,
    /// Why some do not go on yet.
    pub(crate) failed: Vec<EngineError>,
    /// Why what was captured of a machine is not what was promised, though all were captured.
    pub(crate) doubts: Vec<(VmId, EngineError)>,
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

    /// Passes the fail point `<kind>.<name>.<side>`.
    ///
    /// # Errors
    /// On order.
    pub(crate) fn pass(&self, name: &str, side: &str) -> Result<(), EngineError> {
        let passed = self.operation.core.pass(K::NAME, name, side);
        passed.map_err(|e| refused(texts::ORDERED.with("cause", e)))
    }

    /// What `work` gives, as long as there is time left and nobody cancels.
    ///
    /// # Errors
    /// Of the work; that the time is up, or that somebody has cancelled.
    pub(crate) async fn bounded<T>(
        &self,
        work: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        let clock = &self.operation.core.deps.clock;
        let mut work = pin!(work);
        loop {
            if let Ok(done) = tokio::time::timeout(TICK, &mut work).await {
                return done;
            }
            self.guarded()?;
            if self.operation.is_cancelled() {
                return Err(refused(texts::WINDOW_CANCELLED.text()));
            }
            let limit = self.limit();
            if clock.elapsed() >= limit.until {
                let seconds = i64::try_from(limit.budget.as_secs()).unwrap_or(i64::MAX);
                return Err(refused(texts::WINDOW_LATE.with("seconds", seconds)));
            }
        }
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

/// The place of the window among the steps of a kind, with what lets machines go.
fn place_of<K: Kind>() -> Option<(usize, Release<K>)> {
    K::TAKE
        .iter()
        .enumerate()
        .find_map(|(n, step)| match step.work {
            Work::Window { release, .. } => Some((n, release)),
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
        let arm = move || Word::arm(&operation.core.journals(), operation.kind.job());
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
        self.go_on(Vec::new()).await
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
    async fn doubted(&self, doubts: Vec<(VmId, EngineError)>) -> Vec<EngineError> {
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
        let through = move || {
            runtime.block_on(async move {
                let until = self.core.deps.clock.elapsed();
                let until = until.saturating_add(self.core.deps.limits.window);
                let frame = Frame {
                    operation: Arc::clone(&self),
                    word,
                    limit: Mutex::new(Limit {
                        until,
                        budget: self.core.deps.limits.window,
                    }),
                };
                let done = run(frame).await;
                if done.is_err() {
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
        let released = release_of(&self.core, &self.kind).await;
        if !released.failed.is_empty()
            && let Some(guard) = &*self.guard()
        {
            guard.free(released.free.iter().copied());
        }
        released
    }

    /// All are captured: waits until every machine goes on. Goes back if what was captured is not what was promised.
    pub(super) async fn go_on(
        self: &Arc<Self>,
        mut doubts: Vec<(VmId, EngineError)>,
    ) -> Result<(), Stop> {
        let mut pause = RETRY.0;
        loop {
            let mut released = self.let_go_on().await;
            let Some(first) = released.failed.first() else {
                doubts.append(&mut released.doubts);
                break;
            };
            let why = K::WORDS.finish_waits.with("set", self.set());
            let why = why.with("cause", &first.text);
            self.lease.stuck(why.clone());
            self.wait(why, &mut pause).await;
            pause = pause.min(RELEASE_PAUSE);
        }
        let doubts = self.doubted(doubts).await;
        let Some(first) = doubts.first() else {
            if let Some(word) = self.word.get() {
                word.free();
            }
            return Ok(());
        };
        let what = K::WORDS.failed.with("set", self.set());
        let doing = texts::CUTTING.text();
        let what = what.with("doing", doing).with("cause", &first.text);
        Err(Stop::Undo(failed(what, texts_of(doubts))))
    }

    /// What a dead process left whose word is CUT: forward from there.
    pub(super) async fn from_window(
        self: &Arc<Self>,
        doubts: Vec<(VmId, EngineError)>,
    ) -> Result<(), Stop> {
        self.go_on(doubts).await?;
        let place = place_of::<K>().map_or(K::TAKE.len(), |(place, _)| place);
        self.take(place + 1).await
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
        let released = story.release(core, report.as_ref()).await;
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
pub(crate) fn release_of<'a, K: Kind>(core: &'a Core, kind: &'a K) -> BoxFuture<'a, Released> {
    match place_of::<K>() {
        Some((_, release)) => release(core, kind),
        None => Box::pin(future::ready(Released::default())),
    }
}
