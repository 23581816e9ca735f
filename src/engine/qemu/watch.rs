//! The monitors of all machines that have one, each held as long as its QEMU lives.
//!
//! One thread has one task a machine; it begins with the first machine that has a monitor. A task connects when the socket
//! appears, asks for the state after every event that may have changed it and four times a second, and publishes what it knows;
//! whoever asks reads that and waits for nobody. What a process has open is looked at by threads that may block. Whoever
//! has something to be done by a QEMU sends it over the connection of its watch, by a [`Link`].

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use serde_json::json;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, broadcast};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::engine::{Event, Runner};
use crate::id::VmId;

use super::agent::Agent;
use super::answer::{List, Status};
use super::blocks::{self, Finder};
use super::link::{Link, Turns};
use super::live::Known;
use super::peer::{FileId, Peer};
use super::qmp::{Error, Monitor, Patience, Said};

/// How long the parts of a watch take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Between two questions for the state, and between two attempts to connect.
    pub(crate) tick: Duration,
    /// How many ticks an answer may take before the monitor counts as silent.
    pub(crate) late: u32,
    /// For greetings, and for the commands at the beginning.
    pub(crate) patience: Patience,
    /// How many lines are read in a tick.
    pub(crate) lines: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            tick: Duration::from_millis(250),
            late: 3,
            patience: Patience {
                greeting: Duration::from_millis(900),
                reply: Duration::from_secs(5),
            },
            lines: 2000,
        }
    }
}

/// For how many ticks a process that makes no sense is left alone.
const NONSENSE: u32 = 40;
/// For how many ticks one whose connection has ended.
const ENDED: u32 = 1;
/// How much is read in a tick, bytes, beside what was asked for.
const BYTES: u64 = 256 << 10;
/// Between two looks whether it sees a file.
const GLANCE: Duration = Duration::from_millis(20);
/// Events that whoever listens has not taken yet.
const EVENTS: usize = 64;

/// Threads that look at sockets and at what processes have open. No machine has more than two at work, so that those whose
/// files do not answer leave some to the others.
const LOOKING: usize = 512;

/// Events after which the state may be another one.
const TELLING: &[&str] = &[
    "STOP",
    "RESUME",
    "SHUTDOWN",
    "RESET",
    "POWERDOWN",
    "SUSPEND",
    "SUSPEND_DISK",
    "WAKEUP",
    "BLOCK_IO_ERROR",
    "GUEST_PANICKED",
    "GUEST_CRASHLOADED",
    "WATCHDOG",
    "MIGRATION",
];

/// What is known at the monitor of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum View {
    /// Nobody has looked yet.
    Unknown,
    /// Nobody listens there.
    Absent,
    /// A process is there and does not speak, for this reason; what it has open, if it ever was seen.
    Mute(String, Option<Arc<BTreeSet<FileId>>>),
    /// A QEMU.
    Speaks(Speaker),
}

/// A QEMU that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Speaker {
    /// Its process, where the kernel tells.
    pub(crate) peer: Option<Peer>,
    /// `status` of `query-status`.
    pub(crate) status: String,
    /// The files that it has open, or that its disks are named by.
    pub(crate) files: Arc<BTreeSet<FileId>>,
}

/// The watch of one machine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watch(Arc<Shown>);

#[derive(Debug)]
struct Shown {
    view: ArcSwap<View>,
    /// For those who wait until there is one.
    turn: Mutex<()>,
    told: Condvar,
    /// Somebody misses a file.
    again: Notify,
    /// The way to its QEMU, while that is connected.
    link: ArcSwapOption<Link>,
    /// What others do to the machine.
    bell: broadcast::Sender<Event>,
    /// What whoever asks needs to know again.
    known: Mutex<Known>,
    /// The agent of its guest, for whoever may have frozen that.
    agent: Mutex<Option<(PathBuf, Arc<Agent>)>>,
    /// For those who follow all watches.
    changed: Arc<Notify>,
    /// An operation needs it.
    is_kept: AtomicBool,
    /// A guard has the connection too, or had it for the operation that needs it.
    is_lent: AtomicBool,
}

impl Default for Shown {
    fn default() -> Self {
        Self {
            view: ArcSwap::from_pointee(View::Unknown),
            turn: Mutex::default(),
            told: Condvar::new(),
            again: Notify::new(),
            link: ArcSwapOption::empty(),
            bell: broadcast::channel(EVENTS).0,
            known: Mutex::default(),
            agent: Mutex::default(),
            changed: Arc::default(),
            is_kept: AtomicBool::new(false),
            is_lent: AtomicBool::new(false),
        }
    }
}

impl Watch {
    /// What is known now.
    pub(crate) fn view(&self) -> Arc<View> {
        self.0.view.load_full()
    }

    /// What is known, once anything is. Blocks.
    pub(crate) fn known(&self, bound: Duration) -> Arc<View> {
        self.once(bound, |view| *view != View::Unknown)
    }

    /// What is known, once it is this. Blocks.
    pub(crate) fn once(&self, bound: Duration, is_it: impl Fn(&View) -> bool) -> Arc<View> {
        if !is_it(&self.view()) {
            let turn = self.0.turn.lock().unwrap_or_else(PoisonError::into_inner);
            let other = |(): &mut ()| !is_it(&self.view());
            let _late = self.0.told.wait_timeout_while(turn, bound, other);
        }
        self.view()
    }

    fn show(&self, view: View) {
        if *self.view() == view {
            return;
        }
        let turn = self.0.turn.lock();
        self.0.view.store(Arc::new(view));
        drop(turn);
        self.0.told.notify_all();
        self.0.changed.notify_one();
    }

    /// Has the files of the process looked at again: it may have opened others.
    pub(crate) fn look_again(&self) {
        self.0.again.notify_one();
    }

    /// Waits until these files are seen open, by which the machine is known once they are its active ones. Where that
    /// cannot be seen, it is once they are.
    pub(super) async fn sees(&self, files: &[FileId], bound: Duration) {
        let seen = async {
            while !self.has_open(files) {
                self.look_again();
                sleep(GLANCE).await;
            }
        };
        let _unseen = timeout(bound, seen).await;
    }

    fn has_open(&self, wanted: &[FileId]) -> bool {
        match &*self.view() {
            View::Speaks(it) => wanted.iter().all(|id| it.files.contains(id)),
            _ => false,
        }
    }

    /// What is connected, if anything is.
    pub(crate) fn runner(&self) -> Option<Runner> {
        Some(self.link()?.runner.clone())
    }

    /// Whether one of these files was opened in its QEMU to go on with.
    pub(crate) fn has_attached(&self, files: &BTreeSet<FileId>) -> bool {
        self.kept().has_attached(files)
    }

    /// An operation needs it, or none does any more.
    pub(crate) fn keep(&self, is_kept: bool) {
        self.0.is_kept.store(is_kept, Ordering::Relaxed);
        if !is_kept {
            self.0.is_lent.store(false, Ordering::Relaxed);
        }
    }

    /// Somebody else gets the connection too, who needs it when nobody else can use it any more.
    pub(super) fn lend(&self) {
        self.0.is_lent.store(true, Ordering::Relaxed);
    }

    fn is_lent(&self) -> bool {
        self.0.is_lent.load(Ordering::Relaxed) && self.0.is_kept.load(Ordering::Relaxed)
    }

    /// The way to its QEMU, if that is connected.
    pub(super) fn link(&self) -> Option<Arc<Link>> {
        self.0.link.load_full()
    }

    /// What others do to the machine from now on.
    pub(super) fn events(&self) -> broadcast::Receiver<Event> {
        self.0.bell.subscribe()
    }

    /// The agent of the machine, behind this socket: the same for everybody, as it knows what was asked of the guest.
    pub(super) fn agent(&self, machine: &str, socket: &Path) -> Arc<Agent> {
        let kept = self.0.agent.lock();
        let mut kept = kept.unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some((at, agent)) if at == socket => Arc::clone(agent),
            _ => {
                let agent = Arc::new(Agent::new(machine, socket.to_owned()));
                *kept = Some((socket.to_owned(), Arc::clone(&agent)));
                agent
            }
        }
    }

    /// What is kept for whoever asks, until the QEMU is gone.
    pub(super) fn kept(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the way to its QEMU, until this is dropped: then nobody can tell what it does.
    fn open(&self, link: Link) -> Open {
        self.0.link.store(Some(Arc::new(link)));
        Open(self.clone())
    }

    fn ring(&self, event: Event) {
        let _nobody_listens = self.0.bell.send(event);
    }
}

struct Open(Watch);

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(link) = self.0.0.link.swap(None)
            && !self.0.is_lent()
        {
            link.end(); // others may keep it
        }
        *self.0.kept() = Known::default();
        self.0.ring(Event::ShutDown);
    }
}

/// All watches; dropping it ends them.
pub(crate) struct Watches {
    pace: Pace,
    all: Mutex<All>,
    end: CancellationToken,
    /// The view of one is another one.
    changed: Arc<Notify>,
    /// Called then; once for changes that come at the same time.
    told: Arc<dyn Fn() + Send + Sync>,
}

#[derive(Debug, Default)]
struct All {
    /// Of the thread, once there is one.
    runtime: Option<Handle>,
    watches: BTreeMap<VmId, Kept>,
}

#[derive(Debug)]
struct Kept {
    sockets: Vec<PathBuf>,
    watch: Watch,
    task: AbortHandle,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

impl Watches {
    /// No watches yet. What is `told` of changes, on the thread of all watches, must not block.
    pub(crate) fn telling(pace: Pace, told: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            pace,
            all: Mutex::default(),
            end: CancellationToken::new(),
            changed: Arc::default(),
            told: Arc::new(told),
        }
    }

    /// Watches these machines by their sockets from now on, and no others.
    pub(crate) fn follow(&self, wanted: &BTreeMap<VmId, Vec<PathBuf>>) -> BTreeMap<VmId, Watch> {
        let mut all = self.lock();
        all.watches
            .retain(|id, kept| wanted.get(id) == Some(&kept.sockets));
        for (id, sockets) in wanted {
            if all.watches.contains_key(id) {
                continue;
            }
            let Some(runtime) = self.runtime(&mut all) else {
                break; // told
            };
            let watch = Watch(Arc::new(Shown {
                changed: Arc::clone(&self.changed),
                ..Shown::default()
            }));
            let task = Task::new(sockets.clone(), self.pace, watch.clone());
            let kept = Kept {
                sockets: sockets.clone(),
                watch,
                task: runtime.spawn(task.run()).abort_handle(),
            };
            all.watches.insert(*id, kept);
        }
        let known = all.watches.iter();
        known.map(|(id, kept)| (*id, kept.watch.clone())).collect()
    }

    fn runtime(&self, all: &mut All) -> Option<Handle> {
        if all.runtime.is_none() {
            all.runtime = self.start().inspect_err(|error| {
                tracing::error!(%error, "No thread to watch running machines: they show as if they had no monitor");
            }).ok();
        }
        all.runtime.clone()
    }

    fn start(&self) -> std::io::Result<Handle> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(LOOKING)
            .build()?;
        let (handle, end) = (runtime.handle().clone(), self.end.clone());
        let (changed, told) = (Arc::clone(&self.changed), Arc::clone(&self.told));
        let named = thread::Builder::new().name("monitors".to_owned());
        named.spawn(move || {
            runtime.block_on(end.run_until_cancelled(async move {
                loop {
                    changed.notified().await;
                    told();
                }
            }));
            // A look at a file that does not answer is left behind.
            runtime.shutdown_background();
        })?;
        Ok(handle)
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches one machine.
struct Task {
    sockets: Vec<PathBuf>,
    pace: Pace,
    watch: Watch,
    /// A look at files that has not ended.
    look: Option<JoinHandle<Option<BTreeSet<FileId>>>>,
}

impl Task {
    fn new(sockets: Vec<PathBuf>, pace: Pace, watch: Watch) -> Self {
        Self {
            sockets,
            pace,
            watch,
            look: None,
        }
    }

    async fn run(mut self) {
        loop {
            let (view, rest) = match self.connect().await {
                Ok((monitor, socket)) => self.stay(monitor, &socket).await,
                Err(view) => (view, 1),
            };
            self.watch.show(view);
            sleep(self.pace.tick * rest).await;
        }
    }

    /// Follows a QEMU; and where that makes no sense any more, but a guard has the connection too, goes on over the same
    /// one: it is the only way to a machine that may stand still, and whoever waits behind it would get the next.
    async fn stay(&mut self, mut monitor: Monitor, socket: &Path) -> (View, u32) {
        loop {
            let (view, rest) = self.attend(&mut monitor, socket).await;
            if rest == ENDED || !self.watch.is_lent() {
                return (view, rest);
            }
            self.watch.show(view);
            sleep(self.pace.tick).await;
            let again = timeout(self.pace.patience.reply, monitor.renew()).await;
            if !matches!(again, Ok(Ok(()))) {
                sleep(self.pace.tick).await; // it takes nothing now
            }
        }
    }

    /// The first monitor that greets.
    async fn connect(&mut self) -> Result<(Monitor, PathBuf), View> {
        let mut mute = None;
        for socket in &self.sockets {
            match Monitor::reach(socket, self.pace.patience).await {
                Ok(monitor) => return Ok((monitor, socket.clone())),
                // One that ends.
                Err((Error::Closed, Some(peer))) if !peer.lives() => {}
                Err((Error::Absent, _)) => {}
                Err((error, peer)) => {
                    mute.get_or_insert((format!("{}: {error}", socket.display()), peer));
                }
            }
        }
        let Some((why, peer)) = mute else {
            return Err(View::Absent);
        };
        // Whatever it says, it may run the machine.
        let files = match peer {
            Some(peer) => self.apart(move || peer.files().ok()).await,
            None => None,
        };
        Err(View::Mute(why, files.map(Arc::new)))
    }

    /// Follows a QEMU until it is gone or makes no sense any more, and for how many ticks it is then left alone.
    async fn attend(&mut self, monitor: &mut Monitor, socket: &Path) -> (View, u32) {
        let peer = monitor.peer().cloned();
        let mut files = Arc::default();
        let (link, mut requests) = match Link::of(monitor, socket.to_owned()) {
            Ok(linked) => linked,
            Err(error) => return left(&Error::Socket(error), peer.as_ref(), &files),
        };
        match self.files(monitor, &files).await {
            Ok(seen) => files = seen,
            Err(error) => return left(&error, peer.as_ref(), &files),
        }
        let _open = self.watch.open(link);
        let mut turns = Turns::default();
        let mut ticks = interval(self.pace.tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut asked, mut waited, mut dirty) = (None, 0, true);
        let (mut lines, mut looked, mut taken) = (0, true, monitor.taken());
        let mut held_back = false;
        loop {
            if dirty && asked.is_none() {
                let asking = monitor.ask("query-status", json!({}));
                match timeout(self.pace.patience.reply, asking).await {
                    Ok(Ok(id)) => (asked, waited, dirty) = (Some(id), 0, false),
                    Ok(Err(error)) => return left(&error, peer.as_ref(), &files),
                    Err(_) => return (mute("it does not listen", &files), NONSENSE),
                }
            }
            tokio::select! {
                said = monitor.said(), if lines < self.pace.lines && !is_fed(monitor, taken) => {
                    lines += 1;
                    match said {
                        Ok(Said::Reply(id, answer)) if Some(id) == asked => {
                            asked = None;
                            match answer.ok().and_then(|it| it.read::<Status>().status.0) {
                                Some(status) => self.watch.show(View::Speaks(Speaker {
                                    peer: peer.clone(),
                                    status,
                                    files: Arc::clone(&files),
                                })),
                                None => return (mute("it does not tell its status", &files), NONSENSE),
                            }
                        }
                        Ok(Said::Reply(id, answer)) => {
                            let is_missing = asked.is_some_and(|asked| asked < id);
                            let taken = match is_missing {
                                true => Err(Error::Closed),
                                false => turns.take(id, answer),
                            };
                            if let Err(error) = taken {
                                return left(&error, peer.as_ref(), &files);
                            }
                        }
                        Ok(Said::Event(name)) => {
                            dirty |= TELLING.contains(&name.as_str());
                            if let Some(event) = turns.foreign(&name) {
                                self.watch.ring(event);
                            }
                        }
                        Ok(Said::Greeting | Said::Other) => {}
                        Err(error) => return left(&error, peer.as_ref(), &files),
                    }
                }
                _ = ticks.tick() => {
                    (lines, looked, dirty, taken) = (0, false, true, monitor.taken());
                    if mem::take(&mut held_back) {
                        self.watch.look_again();
                    }
                    // Whoever has something long done waits for the answer themselves.
                    if asked.is_some() && !turns.are_awaited() {
                        waited += 1;
                        if waited >= self.pace.late {
                            self.watch.show(mute("it does not answer", &files));
                        }
                    }
                }
                Some(request) = requests.recv(), if turns.have_room() => {
                    let sending = turns.send(monitor, request);
                    match timeout(self.pace.patience.reply, sending).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => return left(&error, peer.as_ref(), &files),
                        Err(_) => return (mute("it does not listen", &files), NONSENSE),
                    }
                }
                () = self.watch.0.again.notified(), if asked.is_none() && turns.is_empty() && !looked => {
                    if self.watch.is_lent() {
                        held_back = true;
                        continue;
                    }
                    looked = true;
                    match self.files(monitor, &files).await {
                        Ok(now) => files = now,
                        Err(error) => return left(&error, peer.as_ref(), &files),
                    }
                    dirty = true;
                }
            }
        }
    }

    /// What the process has open; by the names of its disks where that cannot be seen; as before where neither is told in
    /// time.
    async fn files(
        &mut self,
        monitor: &mut Monitor,
        before: &Arc<BTreeSet<FileId>>,
    ) -> Result<Arc<BTreeSet<FileId>>, Error> {
        if let Some(peer) = monitor.peer().cloned()
            && let Some(files) = self.apart(move || peer.files().ok()).await
        {
            return Ok(Arc::new(files));
        }
        if self.is_standing() {
            return Ok(Arc::clone(before));
        }
        let limit = self.pace.patience.reply;
        let blocks = monitor.execute("query-block", json!({}), limit).await?;
        let nodes = json!({"flat": true});
        let nodes = monitor.execute("query-named-block-nodes", nodes, limit);
        let nodes = nodes.await?;
        let named = self.apart(move || {
            let finder = Finder {
                peer: None,
                open: None,
                sets: &List::default(),
            };
            let devices = blocks::devices(&blocks.read(), &nodes.read());
            let names = devices.iter().filter_map(|device| device.file.as_deref());
            Some(names.filter_map(|name| finder.find(name).ok()).collect())
        });
        Ok(named.await.map_or_else(|| Arc::clone(before), Arc::new))
    }

    /// Looks at files on a thread that may block; nothing where that takes too long. One that stands at a file is not
    /// joined by another.
    async fn apart(
        &mut self,
        look: impl FnOnce() -> Option<BTreeSet<FileId>> + Send + 'static,
    ) -> Option<BTreeSet<FileId>> {
        if self.is_standing() {
            return None;
        }
        let look = self.look.insert(tokio::task::spawn_blocking(look));
        match timeout(self.pace.patience.greeting, look).await {
            Ok(looked) => looked.ok()?,
            Err(_) => None,
        }
    }

    fn is_standing(&self) -> bool {
        self.look.as_ref().is_some_and(|look| !look.is_finished())
    }
}

/// Whether so much was read since the last tick that the rest waits for the next.
fn is_fed(monitor: &Monitor, before: u64) -> bool {
    let room = u64::try_from(monitor.room()).unwrap_or(u64::MAX);
    monitor.taken().saturating_sub(before) > BYTES.saturating_add(room)
}

fn mute(why: &str, files: &Arc<BTreeSet<FileId>>) -> View {
    View::Mute(why.to_owned(), Some(Arc::clone(files)))
}

/// What is known once its monitor is of no use any more. A process that lives on without it may still run the machine.
fn left(error: &Error, peer: Option<&Peer>, files: &Arc<BTreeSet<FileId>>) -> (View, u32) {
    let rest = match error {
        Error::Closed => ENDED, // who ends closes first, and is gone in a moment
        _ => NONSENSE,
    };
    match error {
        // Where it cannot be seen whether it lives, the next attempt tells.
        Error::Closed if peer.is_some_and(|peer| !peer.lives()) => (View::Absent, rest),
        _ => (mute(&error.to_string(), files), rest),
    }
}

/// A watch of these monitors in the runtime of a test.
#[cfg(test)]
pub(super) fn watching(
    sockets: Vec<PathBuf>,
    pace: Pace,
) -> (Watch, tokio_util::task::AbortOnDropHandle<()>) {
    let watch = Watch::default();
    let task = tokio::spawn(Task::new(sockets, pace, watch.clone()).run());
    (watch, tokio_util::task::AbortOnDropHandle::new(task))
}
