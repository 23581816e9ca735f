//! What is known of all machines, and the looks at their files that renew it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::clock::SharedClock;
use crate::engine::definition::{self, DEFINITION, Definition, DiskEntry, SeenTop, TOPS, Tops};
use crate::engine::failure::kind;
use crate::engine::links::{self, Names};
use crate::engine::qcow2::chain::Roots;
use crate::engine::{Doubt, EngineError, EngineErrorKind, Judge, Machines, Top};
use crate::held::{self, NotReplaced};
use crate::id::VmId;
use crate::text::catalog::engine as texts;

use super::entry::{Entry, is_written, load};
use super::{Problem, directory_failed, follow, machine_ids, unknown};

const RENEW_AFTER_MILLIS: u64 = 1000;
/// How long whoever asks waits for a look at the files. On disks that answer it takes a fraction of that.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often who must have a look looks whether it gets on.
const SLICE: Duration = Duration::from_millis(100);
/// Most threads of looks; all but one of them stand at a place each that does not answer.
const THREADS: usize = 16;

pub(super) struct Shelf {
    pub(super) directory: PathBuf,
    pub(super) roots: Roots,
    /// Active files that others have recorded count once they are judged.
    judged: bool,
    judge: OnceLock<Judge>,
    clock: SharedClock,
    pub(super) machines: ArcSwap<Machines>,
    pub(super) problems: ArcSwap<Vec<Problem>>,
    /// Those of which a disk was open for writing elsewhere at the last look.
    pub(super) running: ArcSwap<BTreeSet<VmId>>,
    book: Mutex<Book>,
    /// Held by who writes a `tops.json`.
    recording: Mutex<()>,
    /// Where links by name led when they were last made.
    named: Mutex<Option<Names>>,
    /// Clock time of the last look, in milliseconds.
    looked: AtomicU64,
    looks: Mutex<Looks>,
    /// A look has ended.
    ended: Condvar,
    /// The same for tasks.
    told: Notify,
}

/// What was found of each machine. No file is looked at while it is locked.
#[derive(Default)]
pub(super) struct Book {
    pub(super) entries: BTreeMap<VmId, Arc<Entry>>,
    running: BTreeSet<VmId>,
    /// How often active files were recorded: a look that began before is of an older state.
    tops: BTreeMap<VmId, u64>,
}

/// The looks at all machines, one after the other, each by a thread of its own. One that stands at a file that does not
/// answer is left behind, and the next begins without it.
#[derive(Default)]
struct Looks {
    /// The newest that was begun, from 1, and the newest that came to its end.
    begun: u64,
    ended: u64,
    /// By whom the newest is made, as long as it is under way.
    thread: Option<ThreadId>,
    /// Somebody has waited for the newest in vain: nobody else does, unless they must.
    slow: bool,
    /// Threads that live.
    threads: usize,
}

impl Looks {
    /// Whether the newest is under way and gets on.
    fn is_under_way(&self) -> bool {
        let stands = |thread| held::silent_at(thread).is_some();
        self.thread.is_some_and(|thread| !stands(thread))
    }
}

fn millis(clock: &SharedClock) -> u64 {
    u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX)
}
impl Shelf {
    pub(super) fn new(directory: PathBuf, roots: Roots, clock: SharedClock, judged: bool) -> Self {
        Self {
            judged,
            judge: OnceLock::new(),
            looked: AtomicU64::new(millis(&clock)),
            directory,
            roots,
            clock,
            machines: ArcSwap::default(),
            problems: ArcSwap::default(),
            running: ArcSwap::default(),
            book: Mutex::default(),
            recording: Mutex::default(),
            named: Mutex::default(),
            looks: Mutex::default(),
            ended: Condvar::new(),
            told: Notify::new(),
        }
    }

    /// Has the snapshot renewed if the last look is a second old, and waits for that a moment.
    pub(super) fn look(self: &Arc<Self>) {
        let looks = self.trigger();
        if looks.slow || !looks.is_under_way() {
            return;
        }
        let wanted = looks.begun;
        let waits = |looks: &mut Looks| looks.ended < wanted && !looks.slow;
        let waited = self.ended.wait_timeout_while(looks, PATIENCE, waits);
        let (mut looks, _) = waited.unwrap_or_else(PoisonError::into_inner);
        looks.slow |= looks.ended < wanted;
    }

    /// [`Shelf::look`] for tasks.
    pub(super) async fn looked(self: &Arc<Self>) {
        let mut told = pin!(self.told.notified());
        told.as_mut().enable();
        let wanted = {
            let looks = self.trigger();
            if looks.slow || !looks.is_under_way() {
                return;
            }
            looks.begun
        };
        let _late = tokio::time::timeout(PATIENCE, told).await;
        let mut looks = self.looks();
        looks.slow |= looks.ended < wanted;
    }

    /// Waits for a look that is no more than a second old; all but those machines are looked at whose files do not
    /// answer. Of those that are silent longer than `bound` it is found out later.
    pub(super) fn settle(self: &Arc<Self>, bound: Duration) -> bool {
        let wanted = match self.is_old() {
            true => self.looks().begun + 1,
            false => return true,
        };
        self.wait(wanted, bound)
    }

    /// [`Shelf::settle`] for a look that begins now.
    pub(super) fn renew(self: &Arc<Self>, bound: Duration) -> bool {
        let wanted = self.looks().begun + 1;
        self.wait(wanted, bound)
    }

    fn wait(self: &Arc<Self>, wanted: u64, bound: Duration) -> bool {
        let mut left = bound.as_millis() / SLICE.as_millis();
        let mut looks = self.looks();
        loop {
            if looks.ended >= wanted {
                return true;
            }
            if left == 0 {
                return false;
            }
            left -= 1;
            looks = self.begin(looks);
            let ended = looks.ended;
            let waits = |looks: &mut Looks| looks.ended == ended;
            let waited = self.ended.wait_timeout_while(looks, SLICE, waits);
            (looks, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn is_old(&self) -> bool {
        let now = millis(&self.clock);
        now.saturating_sub(self.looked.load(Ordering::Acquire)) >= RENEW_AFTER_MILLIS
    }

    fn trigger(self: &Arc<Self>) -> MutexGuard<'_, Looks> {
        let looks = self.looks();
        match self.is_old() {
            true => self.begin(looks),
            false => looks,
        }
    }

    /// Begins a look unless one is under way that gets on.
    fn begin<'a>(self: &'a Arc<Self>, mut looks: MutexGuard<'a, Looks>) -> MutexGuard<'a, Looks> {
        if looks.is_under_way() || looks.threads >= THREADS {
            return looks;
        }
        let (shelf, turn) = (Arc::clone(self), looks.begun + 1);
        let now = millis(&self.clock);
        let named = thread::Builder::new().name("library".to_owned());
        match named.spawn(move || shelf.look_now(turn, now)) {
            Ok(thread) => {
                looks.begun = turn;
                looks.thread = Some(thread.thread().id());
                looks.threads += 1;
                looks.slow = false;
            }
            Err(error) => tracing::error!(%error, "No thread to look at the machines"),
        }
        looks
    }

    fn look_now(&self, turn: u64, now: u64) {
        let looked = catch_unwind(AssertUnwindSafe(|| self.look_at_all(turn)));
        if looked.is_err() {
            tracing::error!("Looking at the machines panicked");
        }
        let mut looks = self.looks();
        looks.threads -= 1;
        if looks.begun == turn {
            self.looked.store(now, Ordering::Release);
            (looks.thread, looks.slow, looks.ended) = (None, false, turn);
        }
        drop(looks);
        self.ended.notify_all();
        self.told.notify_waiters();
    }

    fn looks(&self) -> MutexGuard<'_, Looks> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at every machine. No lock is held while a file is looked at.
    fn look_at_all(&self, turn: u64) {
        let ids = match machine_ids(&self.directory) {
            Ok(ids) => ids,
            Err(e) => {
                tracing::warn!(directory = %self.directory.display(), error = %e, "machines cannot be listed");
                return;
            }
        };
        let mut book = self.lock();
        let mut changed = book.entries.len();
        book.entries.retain(|id, _| ids.contains(id));
        book.tops.retain(|id, _| ids.contains(id));
        book.running.retain(|id| ids.contains(id));
        changed -= book.entries.len();
        drop(book);
        for id in ids {
            let silent = self.silent(id).is_some();
            if !silent && self.renew_one(id, Some(turn), false) {
                changed += 1;
            }
            if self.looks().begun != turn {
                return; // left behind
            }
            if !silent {
                self.renew_running(id);
            }
        }
        if changed > 0 {
            self.publish();
        }
        let running = self.lock().running.clone();
        if **self.running.load() != running {
            self.running.store(Arc::new(running));
        }
    }

    /// The file of the machine that does not answer, if one is known not to.
    pub(super) fn silent(&self, id: VmId) -> Option<PathBuf> {
        if !held::is_any_silent() {
            return None;
        }
        let (known, _) = self.known(id);
        Some(known?.silent()?.to_owned())
    }

    /// Has the names lead to their machines, if any came, went or has another one.
    fn name(&self, entries: &BTreeMap<VmId, Arc<Entry>>) {
        let machines = entries.values().filter_map(|e| e.machine.as_deref());
        let names = links::names(machines);
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if named.as_ref() == Some(&names) {
            return;
        }
        let unreadable = entries.iter().filter(|(_, e)| e.machine.is_none());
        let unreadable: Vec<_> = unreadable.map(|(id, _)| *id).collect();
        match links::name(&self.directory, &names, &unreadable) {
            Ok(()) => *named = Some(names),
            Err(error) => {
                let directory = self.directory.display();
                tracing::warn!(%directory, %error, "Links to machines by their names could not all be made");
            }
        }
    }

    /// Records what was seen of active files: it is needed when they are away.
    fn record_seen(&self, id: VmId, tops: u64, seen: BTreeMap<String, SeenTop>) {
        if seen.is_empty() {
            return;
        }
        let recording = self.recording.lock();
        let _recording = recording.unwrap_or_else(PoisonError::into_inner);
        if self.known(id).1 != tops {
            return;
        }
        let file = self.directory.join(id.to_string()).join(TOPS);
        let saved = Tops::load(&file).and_then(|mut stored| {
            stored.seen.extend(seen);
            Ok(stored.save(&file)?)
        });
        if let Err(error) = saved {
            tracing::warn!(file = %file.display(), %error, "What lies under active files is not recorded");
        }
    }

    /// Looks at one machine, in a look of all or by itself; whether it is not as before. What was recorded of it
    /// meanwhile counts more, and so does a newer look.
    /// `vouched`: its active files are what this process has just recorded.
    fn renew_one(&self, id: VmId, turn: Option<u64>, vouched: bool) -> bool {
        let (old, tops) = self.known(id);
        let current = old.as_deref().filter(|old| old.is_current());
        if current.is_some_and(|old| old.vouched) {
            return false;
        }
        let before = old.as_ref().and_then(|e| e.machine.as_deref());
        let mut new = match current {
            Some(only_to_judge) => only_to_judge.clone(),
            None => load(&self.directory, id, before, &self.roots),
        };
        if let Some(old) = &old {
            new.remember(old);
        }
        new.vouched |= vouched || self.is_vouched(id, old.as_deref(), &mut new);
        if current.is_some() && !new.vouched {
            return false;
        }
        self.record_seen(id, tops, std::mem::take(&mut new.unrecorded));
        for problem in &new.problems {
            if old.as_ref().is_none_or(|e| !e.problems.contains(problem)) {
                tracing::warn!(file = %problem.file.display(), "{}", problem.text);
            }
        }
        let new = Arc::new(new);
        let is_left = turn.is_some_and(|turn| self.looks().begun != turn);
        let mut book = self.lock();
        let is_newest = !is_left && book.tops.get(&id).copied().unwrap_or_default() == tops;
        if is_newest {
            book.entries.insert(id, Arc::clone(&new));
        }
        drop(book);
        if is_newest {
            // Links never lead to what nobody has vouched for.
            let linked = old.as_ref().filter(|old| old.vouched);
            let linked = linked.and_then(|old| old.machine.as_deref());
            follow(linked, new.machine.as_deref().filter(|_| new.vouched));
        }
        is_newest
    }

    /// Has the active files of a machine judged that was loaded anew, unless the same `tops.json` was before. Whether
    /// there is nothing left to judge.
    fn is_vouched(&self, id: VmId, old: Option<&Entry>, new: &mut Entry) -> bool {
        let same = |old: &Entry| old.vouched && !old.doubtful && old.tops() == new.tops();
        if !self.judged || old.is_some_and(same) {
            return true;
        }
        let (Some(judge), Some(machine)) = (self.judge.get(), new.machine.clone()) else {
            return new.machine.is_none();
        };
        match judge(&machine) {
            Ok(()) => true,
            Err(Doubt::Open) => false,
            Err(Doubt::Tops(why)) => {
                let folder = self.directory.join(id.to_string());
                new.doubt(&folder.join(TOPS), &why);
                true
            }
        }
    }

    /// Has the active files of all machines judged from now on.
    pub(super) fn judge_by(&self, judge: Judge) {
        let _only_one = self.judge.set(judge);
    }

    /// Whether `tops.json` of the machine names other files than the active ones.
    pub(super) fn is_doubtful(&self, id: VmId) -> bool {
        let (known, _) = self.known(id);
        known.is_some_and(|known| known.doubtful && known.is_current())
    }

    pub(super) fn record_images(&self, id: VmId) {
        let recording = self.recording.lock();
        let _recording = recording.unwrap_or_else(PoisonError::into_inner);
        let folder = self.directory.join(id.to_string());
        let (Ok(defined), Ok(mut stored)) = (
            Definition::load(&folder.join(DEFINITION), id),
            Tops::load(&folder.join(TOPS)),
        ) else {
            return;
        };
        // Of whom the file is stands in it from now on.
        let of = stored.machine.replace(id);
        if self
            .known(id)
            .0
            .is_none_or(|entry| !entry.vouched || entry.doubtful)
        {
            return;
        }
        let is_known = |d: &DiskEntry| {
            let image = stored.images.get(&d.id);
            image.is_some_and(|i| i.named == d.path && i.below.is_some())
        };
        let all_known = defined.disk.iter().all(is_known);
        let recorded = !all_known && stored.record_images(&defined);
        if of.is_some() && !recorded {
            return;
        }
        match stored.save(&folder.join(TOPS)) {
            Ok(()) => match recorded {
                true => tracing::info!(machine = %id, "Its images are recorded"),
                false => {
                    tracing::info!(machine = %id, "The file of its active files tells whose it is")
                }
            },
            Err(error) => {
                let error = io::Error::from(error);
                tracing::warn!(machine = %id, %error, "Its images cannot be recorded");
            }
        }
    }

    pub(super) fn known(&self, id: VmId) -> (Option<Arc<Entry>>, u64) {
        let book = self.lock();
        let tops = book.tops.get(&id).copied().unwrap_or_default();
        (book.entries.get(&id).cloned(), tops)
    }

    fn renew_running(&self, id: VmId) {
        let (known, _) = self.known(id);
        let machine = known.as_ref().and_then(|e| e.machine.as_ref());
        let runs = machine.is_some_and(|m| m.disks.iter().any(is_written));
        let mut book = self.lock();
        match runs {
            true => book.running.insert(id),
            false => book.running.remove(&id),
        };
    }

    /// Shows what is known.
    fn publish(&self) {
        let book = self.lock();
        let machine = |(id, e): (&VmId, &Arc<Entry>)| Some((*id, Arc::clone(e.machine.as_ref()?)));
        self.machines
            .store(Arc::new(book.entries.iter().filter_map(machine).collect()));
        let problems = book.entries.values().flat_map(|e| e.problems.clone());
        self.problems.store(Arc::new(problems.collect()));
        let entries = book.entries.clone();
        drop(book);
        self.name(&entries);
    }

    /// Adds `tops` to what `old` finds in the file.
    pub(super) fn record_tops(
        &self,
        id: VmId,
        tops: &BTreeMap<String, Top>,
        old: impl FnOnce(&Path) -> Result<Tops, (EngineErrorKind, io::Error)>,
    ) -> Result<(), EngineError> {
        let folder = self.directory.join(id.to_string());
        if !folder.join(DEFINITION).is_file() {
            return Err(unknown(id));
        }
        let turn = definition::turn(&folder);
        let _turn = turn.map_err(|e| directory_failed(&folder, &e))?;
        let file = folder.join(TOPS);
        let fail = |(kind, e): (EngineErrorKind, io::Error)| EngineError {
            kind,
            text: texts::TOPS_WRITE
                .with("machine", id)
                .with("file", file.display())
                .with("cause", e),
        };
        let seen = |top: &Top| SeenTop::of(&top.file, top.format);
        let new: Vec<_> = tops
            .iter()
            .map(|(disk, top)| (disk, (top, seen(top))))
            .collect();
        let recording = self.recording.lock();
        let recording = recording.unwrap_or_else(PoisonError::into_inner);
        let mut stored = old(&file).map_err(fail)?;
        for (disk, (top, seen)) in new {
            stored.tops.insert(disk.clone(), top.clone());
            match seen {
                Some(seen) => stored.seen.insert(disk.clone(), seen),
                None => stored.seen.remove(disk),
            };
        }
        // A file of ours may have taken the place of an image.
        if let Ok(defined) = Definition::load(&folder.join(DEFINITION), id) {
            stored.record_images(&defined);
        }
        let saved = stored.save(&file).map_err(|e| match e {
            NotReplaced::Refused(e) => fail((kind(&e), e)),
            NotReplaced::Broken(e) => fail((EngineErrorKind::Broken, e)),
        });
        // A look that began before shows the machine as it was, and must not.
        *self.lock().tops.entry(id).or_default() += 1;
        drop(recording);
        saved?;
        self.renew_one(id, None, true);
        self.publish();
        Ok(())
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
