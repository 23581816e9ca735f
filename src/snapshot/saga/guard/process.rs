//! The guard itself: a process that waits for the end of a window, and lets machines go if that does not come.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Barrier, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};
use rustix::process::setsid;

use crate::clock::{Clock, SharedClock};
use crate::engine::{Dues, Fence, Freed};
use crate::held;
use crate::id::VmId;
use crate::snapshot::saga::guard::is_readable;
use crate::snapshot::saga::guard::wire::{self, Cause, Reply, Report, Ward};
use crate::snapshot::saga::word::Word;

/// Gives one machine what it is owed; blocks. The last argument waits so long, at most, and tells whether that is still
/// to be done here.
pub type Release = fn(&Fence, Dues, &dyn Clock, &dyn Fn(Duration) -> bool) -> Freed;

/// Among the last that the kernel ends for want of memory.
const SCORE: &[u8] = b"-900";
const SCORES: &str = "/proc/self/oom_score_adj";
/// What the work on one machine needs, bytes.
const STACK: usize = 1 << 20;
/// How often it looks whether its time is up.
const TICK: Duration = Duration::from_millis(100);
/// How long it waits for a word where time does not matter.
const LONG: Duration = Duration::from_secs(3600);
/// Once it is not needed any more, so long for what is being said just now.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Guards the machines that are handed over on `pair`, and comes back when they need no guard any more.
///
/// # Errors
/// It cannot guard them; the server was told so, if there is one.
pub fn run(pair: &OwnedFd, release: Release, clock: &SharedClock) -> io::Result<()> {
    let alone = || {
        setsid()?; // who ends the server at its terminal does not end it
        begin(pair, release, clock)
    };
    match alone() {
        Ok(guarding) => {
            stay();
            wire::answer(pair, &Reply::Ready)?;
            guarding.watch(pair);
            Ok(())
        }
        Err(error) => {
            let _nobody_hears = wire::answer(pair, &Reply::Failed(error.to_string()));
            Err(error)
        }
    }
}

/// Where it is permitted: without it, a host short of memory may take it, or have it wait for its disk.
fn stay() {
    let _not_permitted = adjust(Path::new(SCORES));
    let _not_permitted = mlockall(MlockAllFlags::CURRENT);
}

fn adjust(scores: &Path) -> io::Result<()> {
    held::append(scores, 0)?.write_all(SCORE)
}

/// What the parts of it know of each other.
struct Shared {
    word: Word,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The machines that are owed nothing any more.
    free: BTreeSet<VmId>,
    /// What came of the work on those that are done.
    freed: BTreeMap<VmId, Freed>,
    /// Nobody needs it any more.
    is_over: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits so long, at most, and tells whether a machine is still owed something by this process.
    fn is_needed(&self, owed: Option<VmId>, pause: Duration) -> bool {
        let needs =
            |state: &mut State| !state.is_over && !owed.is_some_and(|it| state.free.contains(&it));
        let waited = self.changed.wait_timeout_while(self.state(), pause, needs);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        // Whoever goes on where a dead server has left it frees the word, or takes the rest over.
        needs(&mut state) && !self.word.is_taken_over() && !self.word.is_free()
    }
}

/// All that is done before it is ready, so that nothing can fail later.
struct Guarding {
    shared: Arc<Shared>,
    /// Until when the server has time, if that matters.
    until: Option<Duration>,
    clock: SharedClock,
    /// Whoever works on a machine waits there.
    gate: Arc<Barrier>,
    wards: Vec<Guarded>,
    /// Who is done says so there.
    done: OwnedFd,
}

/// A machine under guard.
struct Guarded {
    ward: Ward,
    has_jobs: bool,
    /// By what it is reached, until somebody works on it.
    fence: Arc<Mutex<Option<Fence>>>,
}

fn begin(pair: &OwnedFd, release: Release, clock: &SharedClock) -> io::Result<Guarding> {
    let handed = wire::take_over(pair)?;
    let word = Word::of(handed.word)?;
    word.hold()?;
    let gate = Arc::new(Barrier::new(handed.wards.len() + 1));
    let until = clock.elapsed().saturating_add(handed.patience);
    let shared = Arc::new(Shared {
        word,
        state: Mutex::default(),
        changed: Condvar::new(),
    });
    let (done, own) = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let own = Arc::new(own);
    let mut wards = Vec::new();
    for (ward, fence) in handed.wards {
        let guarded = Guarded {
            has_jobs: !fence.jobs.is_empty(),
            fence: Arc::new(Mutex::new(Some(fence))),
            ward,
        };
        let (ward, fence) = (guarded.ward.clone(), Arc::clone(&guarded.fence));
        let (gate, clock, shared) = (Arc::clone(&gate), Arc::clone(clock), Arc::clone(&shared));
        let own = Arc::clone(&own);
        let thread = thread::Builder::new().stack_size(STACK);
        thread.spawn(move || {
            gate.wait();
            let fence = fence.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(fence) = fence {
                work(&shared, &ward, &fence, release, &*clock);
            }
            let _gone = send(&*own, b"\n", SendFlags::NOSIGNAL);
        })?;
        wards.push(guarded);
    }
    Ok(Guarding {
        shared,
        until: Some(until),
        clock: Arc::clone(clock),
        gate,
        wards,
        done,
    })
}

/// Works on one machine, and notes what came of it.
fn work(shared: &Shared, ward: &Ward, fence: &Fence, release: Release, clock: &dyn Clock) {
    let machine = ward.machine;
    let is_free = shared.state().free.contains(&machine);
    let freed = match is_free {
        true => {
            let nothing = Dues {
                goes_on: false,
                thaws: false,
            };
            let needed = |pause| shared.is_needed(None, pause);
            let freed = release(fence, nothing, clock, &needed);
            Freed {
                was_blocked: freed.was_blocked,
                ..of_free(ward)
            }
        }
        false => {
            let needed = |pause| shared.is_needed(Some(machine), pause);
            release(fence, ward.dues, clock, &needed)
        }
    };
    shared.state().freed.insert(machine, freed);
}

/// What the server itself has given a machine.
fn of_free(ward: &Ward) -> Freed {
    Freed {
        goes_on: ward.dues.goes_on,
        was_frozen: ward.dues.thaws,
        is_thawed: ward.dues.thaws,
        ..Freed::default()
    }
}

impl Guarding {
    fn watch(mut self, pair: &OwnedFd) {
        let Some(cause) = self.wait(pair) else {
            return;
        };
        // Where it was CUT, the set stands, and the machines go on all the same.
        let _whose = self.shared.word.fire_first();
        if self.shared.word.is_free() {
            return;
        }
        self.gate.wait();
        self.see_through(pair, cause);
    }

    /// Waits until machines have to be let go, and for what reason; nothing if that is not needed.
    fn wait(&mut self, pair: &OwnedFd) -> Option<Cause> {
        loop {
            let now = self.clock.elapsed();
            let left = self.until.map(|until| until.saturating_sub(now));
            if left.is_some_and(|left| left.is_zero()) {
                return Some(Cause::Late);
            }
            // Its clock may be another one than that of the kernel.
            let tick = left.map_or(LONG, |left| left.min(TICK));
            match is_readable(pair, tick) {
                Ok(true) => match wire::said(pair) {
                    Some(word) => self.hear(word),
                    None => return Some(Cause::Died),
                },
                Ok(false) => {}
                Err(_) => return Some(Cause::Late),
            }
            if self.shared.state().is_over {
                return None;
            }
        }
    }

    fn hear(&mut self, word: wire::Word) {
        match word {
            wire::Word::Free(machine) => {
                self.shared.state().free.insert(machine);
                // Its agent is left to others.
                let mut wards = self.wards.iter();
                if let Some(ward) = wards.find(|it| it.ward.machine == machine) {
                    let mut fence = ward.fence.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(fence) = &mut *fence {
                        (fence.agent, fence.agent_socket) = (None, None);
                    }
                }
            }
            wire::Word::Within(patience) => {
                let patience = Duration::from_millis(patience);
                let until = self.clock.elapsed().saturating_add(patience);
                self.until = self.until.map(|it| it.min(until));
            }
            wire::Word::Longer(patience) => {
                let patience = Duration::from_millis(patience);
                let until = self.clock.elapsed().saturating_add(patience);
                self.until = self.until.map(|_| until);
            }
            wire::Word::Waits => self.until = None,
            wire::Word::Done => self.shared.state().is_over = true,
        }
        self.shared.changed.notify_all();
    }

    /// Waits until all is done that is owed, or nobody needs it any more, and says what has come of it so far.
    fn see_through(&mut self, pair: &OwnedFd, cause: Cause) {
        let mut server = (cause == Cause::Late).then_some(pair);
        let mut done = 0;
        loop {
            self.report(cause);
            if done >= self.wards.len() {
                return;
            }
            let is_over = self.shared.state().is_over;
            let limit = Timespec::try_from(LAST_WORDS).ok().filter(|_| is_over);
            let mut ready = vec![PollFd::new(&self.done, PollFlags::IN)];
            ready.extend(server.map(|pair| PollFd::new(pair, PollFlags::IN)));
            let Ok(count) = rustix::io::retry_on_intr(|| poll(&mut ready, limit.as_ref())) else {
                return;
            };
            let is_ready = |n: usize| ready.get(n).is_some_and(|it| !it.revents().is_empty());
            let (who, said) = (is_ready(0), is_ready(1));
            drop(ready);
            if count == 0 {
                return; // nothing more is to be heard, and its end is waited for
            }
            if who {
                let mut names = [0; 64];
                let read = recv(&self.done, &mut names, RecvFlags::empty());
                done += read.map_or(0, |(_, read)| read);
            }
            if said && let Some(pair) = server {
                match wire::said(pair) {
                    Some(word) => self.hear(word),
                    None => server = None, // it has died meanwhile
                }
            }
        }
    }

    /// Leaves with the word what has come of it. Machines that the server itself has let go are none of it.
    fn report(&self, cause: Cause) {
        let state = self.shared.state();
        let all = self.wards.iter().map(|it| {
            let is_free = state.free.contains(&it.ward.machine);
            let given = is_free.then(|| of_free(&it.ward));
            let freed = state.freed.get(&it.ward.machine).copied().or(given);
            (it, freed.unwrap_or_default(), is_free)
        });
        let told =
            all.filter(|(it, freed, is_free)| !is_free || (it.has_jobs && freed.was_blocked));
        let wards: Vec<_> = told
            .map(|(it, freed, _)| (it.ward.clone(), freed))
            .collect();
        drop(state);
        if !wards.is_empty() {
            self.shared.word.report(&Report { cause, wards });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use jiff::Timestamp;

    use super::*;
    use crate::clock::ManualClock;
    use crate::engine::PutBack;
    use crate::id::JobId;

    const MACHINE: VmId = VmId::from_u128(1);

    /// A guard of one machine whose server has 30 s, by a clock of the test.
    struct Scene {
        clock: Arc<ManualClock>,
        word: Word,
        server: Option<OwnedFd>,
        guard: Option<thread::JoinHandle<()>>,
        _journals: tempfile::TempDir,
    }

    impl Scene {
        fn new(release: Release, jobs: Vec<PutBack>) -> Self {
            let journals = tempfile::tempdir().unwrap();
            let word = Word::arm(journals.path(), JobId::from_u128(1), 1).unwrap();
            let flags = SocketFlags::CLOEXEC;
            let (server, pair) =
                socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
            let (one, other) = UnixStream::pair().unwrap();
            let ward = Ward {
                machine: MACHINE,
                name: "web".to_owned(),
                dues: Dues {
                    goes_on: true,
                    thaws: true,
                },
            };
            let fence = Fence {
                monitor: one.into(),
                monitor_sockets: Vec::new(),
                agent: Some(other.into()),
                agent_socket: None,
                process: None,
                jobs,
            };
            let patience = Duration::from_secs(31);
            wire::hand_over(&server, word.file(), patience, &[(ward, fence)]).unwrap();
            let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
            let shared: SharedClock = clock.clone();
            let guarding = begin(&pair, release, &shared).unwrap();
            let guard = thread::spawn(move || guarding.watch(&pair));
            Self {
                clock,
                word,
                server: Some(server),
                guard: Some(guard),
                _journals: journals,
            }
        }

        fn say(&self, word: &wire::Word) {
            wire::say(self.server.as_ref().unwrap(), word).unwrap();
        }

        fn has_fired(&self) -> bool {
            !self.word.fire_first()
        }

        fn rests(&self) -> bool {
            let _interrupted = poll(&mut [], Timespec::try_from(3 * TICK).ok().as_ref());
            !self.guard.as_ref().unwrap().is_finished()
        }

        /// What it says in the end.
        fn ends(&mut self) -> Option<Report> {
            for _ in 0..100 {
                if !self.rests() {
                    self.guard.take().unwrap().join().unwrap();
                    return self.word.reported();
                }
            }
            panic!("the guard does not end");
        }
    }

    fn gives(_: &Fence, dues: Dues, _: &dyn Clock, _: &dyn Fn(Duration) -> bool) -> Freed {
        Freed {
            goes_on: dues.goes_on,
            is_thawed: dues.thaws,
            ..Freed::default()
        }
    }

    /// The machine is never heard of again.
    fn waits(_: &Fence, _: Dues, _: &dyn Clock, needed: &dyn Fn(Duration) -> bool) -> Freed {
        while needed(Duration::from_secs(1)) {}
        Freed::default()
    }

    #[test]
    fn the_score_of_a_guard_is_what_documents_say() {
        let file = tempfile::NamedTempFile::new().unwrap();
        adjust(file.path()).unwrap();
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "-900");
        assert_eq!(SCORES, "/proc/self/oom_score_adj");
    }

    #[test]
    fn a_guard_has_the_time_that_the_window_has() {
        for (told, seconds) in [(None, 31), (Some(9000), 9), (Some(60_000), 31)] {
            let mut scene = Scene::new(gives, Vec::new());
            if let Some(told) = told {
                scene.say(&wire::Word::Within(told));
                assert!(scene.rests());
            }
            scene
                .clock
                .advance(Duration::from_millis(seconds * 1000 - 1));
            assert!(scene.rests(), "{told:?}");
            scene.clock.advance(Duration::from_millis(1));
            let report = scene.ends().unwrap();
            assert!(scene.has_fired(), "{told:?}");
            assert_eq!(report.cause, Cause::Late);
            assert_eq!(report.left(), Vec::<String>::new());
        }
    }

    #[test]
    fn a_guard_that_is_not_needed_any_more_ends_at_once_and_names_who_is_stuck() {
        let over: [fn(&mut Scene); 2] = [
            |scene| scene.say(&wire::Word::Done),
            |scene| scene.word.take_over(),
        ];
        for (n, end) in over.into_iter().enumerate() {
            let mut scene = Scene::new(waits, Vec::new());
            scene.clock.advance(Duration::from_secs(31));
            assert!(scene.rests(), "the machine is stuck");
            let so_far = scene.word.reported().unwrap();
            assert_eq!(so_far.left(), ["web"], "{n}: while it is at work");
            end(&mut scene);
            let report = scene.ends().unwrap();
            assert_eq!(report.left(), ["web"], "{n}");
        }
    }

    #[test]
    fn a_server_that_dies_while_it_undoes_leaves_its_jobs_to_the_guard() {
        /// By the time it is asked, others have the agent.
        fn ends_a_job(
            fence: &Fence,
            dues: Dues,
            _: &dyn Clock,
            _: &dyn Fn(Duration) -> bool,
        ) -> Freed {
            Freed {
                was_blocked: !dues.goes_on && !dues.thaws && fence.agent.is_none(),
                ..Freed::default()
            }
        }
        let jobs = vec![PutBack {
            job: "gs-1-undo-disk0".to_owned(),
            note: "/nowhere".into(),
        }];
        let mut scene = Scene::new(ends_a_job, jobs);
        scene.say(&wire::Word::Free(MACHINE));
        scene.say(&wire::Word::Waits);
        assert!(scene.rests());
        scene.clock.advance(Duration::from_secs(3600));
        assert!(scene.rests(), "time does not matter");
        scene.server = None;
        let report = scene.ends().unwrap();
        assert_eq!(report.cause, Cause::Died);
        assert_eq!(
            (report.machines(), report.left()),
            (vec!["web".to_owned()], Vec::new())
        );
        assert!(report.freed(MACHINE).was_blocked);
    }
}
