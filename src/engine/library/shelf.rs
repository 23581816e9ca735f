//! What is known of all machines, and the looks at their files that renew it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::clock::SharedClock;
use crate::engine::definition::{self, DEFINITION, Definition, DiskEntry, SeenTop, TOPS, Tops};
use crate::engine::failure::kind;
use crate::engine::links::{self, Names};
use crate::engine::qcow2::chain::Roots;
use crate::engine::{EngineError, EngineErrorKind, Machines, Top};
use crate::held::NotReplaced;
use crate::id::VmId;
use crate::inventory::Machine;
use crate::text::catalog::engine as texts;

use super::entry::{Entry, is_written, load};
use super::{Problem, directory_failed, follow, machine_ids, unknown};

const RENEW_AFTER_MILLIS: u64 = 1000;
/// How long whoever asks waits for a look at the files. On disks that answer it takes a fraction of that.
const PATIENCE: Duration = Duration::from_millis(500);

pub(super) struct Shelf {
    pub(super) directory: PathBuf,
    pub(super) roots: Roots,
    clock: SharedClock,
    pub(super) machines: ArcSwap<Machines>,
    pub(super) problems: ArcSwap<Vec<Problem>>,
    /// Those of which a disk was open for writing elsewhere at the last look.
    pub(super) running: ArcSwap<BTreeSet<VmId>>,
    book: Mutex<Book>,
    /// Held by who looks at all machines.
    renewing: Mutex<()>,
    /// Held by who writes a `tops.json`.
    recording: Mutex<()>,
    /// Where links by name led when they were last made.
    named: Mutex<Option<Names>>,
    /// Clock time of the last look, in milliseconds.
    looked: AtomicU64,
    look: Mutex<Look>,
    ended: Condvar,
}

/// What was found of each machine. No file is looked at while it is locked.
#[derive(Default)]
pub(super) struct Book {
    pub(super) entries: BTreeMap<VmId, Arc<Entry>>,
    /// How often active files were recorded: a look that began before is of an older state.
    tops: BTreeMap<VmId, u64>,
}

/// A look at the files by a thread of the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// None is under way.
    Idle,
    /// One is, and who asks waits for it.
    Looks,
    /// One is, and somebody has waited for it in vain: nobody else does.
    Silent,
}

fn millis(clock: &SharedClock) -> u64 {
    u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX)
}
impl Shelf {
    pub(super) fn new(directory: PathBuf, roots: Roots, clock: SharedClock) -> Self {
        Self {
            looked: AtomicU64::new(millis(&clock)),
            directory,
            roots,
            clock,
            machines: ArcSwap::default(),
            problems: ArcSwap::default(),
            running: ArcSwap::default(),
            book: Mutex::default(),
            renewing: Mutex::default(),
            recording: Mutex::default(),
            named: Mutex::default(),
            look: Mutex::new(Look::Idle),
            ended: Condvar::new(),
        }
    }

    /// Is a look under way for which nobody waits any more?
    pub(super) fn is_silent(&self) -> bool {
        *self.looking() == Look::Silent
    }

    /// Has the snapshot renewed if the last look is a second old.
    pub(super) fn look(self: &Arc<Self>) {
        let now = millis(&self.clock);
        if now.saturating_sub(self.looked.load(Ordering::Acquire)) < RENEW_AFTER_MILLIS {
            return;
        }
        let mut look = self.looking();
        if *look == Look::Idle {
            let shelf = Arc::clone(self);
            let named = thread::Builder::new().name("library".to_owned());
            match named.spawn(move || shelf.look_now(now)) {
                Ok(_) => *look = Look::Looks,
                Err(error) => tracing::error!(%error, "No thread to look at the machines"),
            }
        }
        if *look == Look::Looks {
            let waits = |look: &mut Look| *look == Look::Looks;
            let waited = self.ended.wait_timeout_while(look, PATIENCE, waits);
            let (mut look, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if *look == Look::Looks {
                *look = Look::Silent;
                tracing::warn!(directory = %self.directory.display(), "A file of a machine does not answer; machines are shown as they were before");
            }
        }
    }

    fn look_now(&self, now: u64) {
        let looked = catch_unwind(AssertUnwindSafe(|| self.renew()));
        if looked.is_err() {
            tracing::error!("Looking at the machines panicked");
        }
        self.looked.store(now, Ordering::Release);
        let mut look = self.looking();
        if *look == Look::Silent {
            self.looked.store(millis(&self.clock), Ordering::Release);
            tracing::info!(directory = %self.directory.display(), "The files of the machines answer again");
        }
        *look = Look::Idle;
        self.ended.notify_all();
    }

    fn looking(&self) -> MutexGuard<'_, Look> {
        self.look.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at every machine. No lock is held while a file is looked at but the one that keeps other looks away.
    pub(super) fn renew(&self) {
        let _one_at_a_time = self.renewing.lock().unwrap_or_else(PoisonError::into_inner);
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
        changed -= book.entries.len();
        drop(book);
        for id in ids {
            if self.renew_one(id) {
                changed += 1;
            }
        }
        self.renew_running();
        if changed > 0 {
            self.publish();
        }
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

    /// Looks at one machine; whether it is not as before. What was recorded of it meanwhile counts more.
    fn renew_one(&self, id: VmId) -> bool {
        let (old, tops) = self.known(id);
        if old.as_deref().is_some_and(Entry::is_current) {
            return false;
        }
        let before = old.as_ref().and_then(|e| e.machine.as_deref());
        let mut new = load(&self.directory, id, before, &self.roots);
        if let Some(old) = &old {
            new.remember(old);
        }
        self.record_seen(id, tops, std::mem::take(&mut new.unrecorded));
        for problem in &new.problems {
            if old.as_ref().is_none_or(|e| !e.problems.contains(problem)) {
                tracing::warn!(file = %problem.file.display(), "{}", problem.text);
            }
        }
        let new = Arc::new(new);
        let mut book = self.lock();
        let is_newest = book.tops.get(&id).copied().unwrap_or_default() == tops;
        if is_newest {
            book.entries.insert(id, Arc::clone(&new));
        }
        drop(book);
        if is_newest {
            follow(before, new.machine.as_deref());
        }
        is_newest
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
        let is_known = |d: &DiskEntry| {
            let image = stored.images.get(&d.id);
            image.is_some_and(|i| i.named == d.path && i.below.is_some())
        };
        if defined.disk.iter().all(is_known) || !stored.record_images(&defined) {
            return;
        }
        match stored.save(&folder.join(TOPS)) {
            Ok(()) => tracing::info!(machine = %id, "Its images are recorded"),
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

    fn renew_running(&self) {
        let entries = self.lock().entries.clone();
        let is_written = |m: &Arc<Machine>| m.disks.iter().any(is_written);
        let runs = |e: &Arc<Entry>| e.machine.as_ref().is_some_and(is_written);
        let running = entries.iter().filter(|(_, e)| runs(e));
        let running: BTreeSet<_> = running.map(|(id, _)| *id).collect();
        if **self.running.load() != running {
            self.running.store(Arc::new(running));
        }
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
        self.renew_one(id);
        self.publish();
        Ok(())
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
