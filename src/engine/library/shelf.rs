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

use tokio::sync::Notify;

use crate::clock::SharedClock;
use crate::engine::definition::{self, DEFINITION, Definition, SeenTop, TOPS, Tops};
use crate::engine::failure::kind;
use crate::engine::links::{self, Names};
use crate::engine::observed::{Condition, Conditions};
use crate::engine::qcow2::chain::Roots;
use crate::engine::{Doubt, EngineError, EngineErrorKind, Judge, Machines, Top};
use crate::held::{self, NotReplaced};
use crate::id::VmId;
use crate::inventory::{Disk, Image, Machine};
use crate::text::catalog::engine as texts;

use super::entry::{Entry, is_written, load};
use super::states::{States, monitored};
use super::{follow, machine_ids, unknown, unlinked};

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
    /// What their monitors say, and what is shown of all.
    pub(super) states: States,
    book: Mutex<Book>,
    /// Held by who has the links of a machine follow the newest state.
    leading: Mutex<()>,
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
    /// Those of which a disk was open for writing elsewhere when it was looked at last.
    running: BTreeSet<VmId>,
    /// Those of which the links could not all be made: the next look tries again.
    unlinked: BTreeSet<VmId>,
    /// So it is with the names that lead to machines.
    unnamed: bool,
    /// How often active files were recorded: a look that began before is of an older state.
    tops: BTreeMap<VmId, u64>,
    /// Something in it is not published.
    dirty: bool,
}

impl Book {
    fn machines(&self) -> Machines {
        let entries = self.entries.iter();
        let machine = |(id, e): (&VmId, &Arc<Entry>)| Some((*id, Arc::clone(e.machine.as_ref()?)));
        entries.filter_map(machine).collect()
    }

    /// Of those machines of which there is anything to tell.
    fn conditions(&self) -> Conditions {
        let condition = |(id, entry): (&VmId, &Arc<Entry>)| {
            let condition = entry.condition(self.running.contains(id));
            (condition != Condition::default()).then_some((*id, condition))
        };
        self.entries.iter().filter_map(condition).collect()
    }
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
            states: States::default(),
            book: Mutex::default(),
            leading: Mutex::default(),
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
        let before = book.entries.len();
        book.entries.retain(|id, _| ids.contains(id));
        book.tops.retain(|id, _| ids.contains(id));
        book.running.retain(|id| ids.contains(id));
        book.unlinked.retain(|id| ids.contains(id));
        book.dirty |= book.entries.len() != before;
        drop(book);
        for id in ids {
            let silent = self.silent(id).is_some();
            if !silent {
                self.renew_one(id, Some(turn), false);
                let is_unlinked = self.lock().unlinked.contains(&id);
                if is_unlinked {
                    self.lead(id, None);
                }
            }
            if self.looks().begun != turn {
                return; // left behind
            }
            if !silent {
                self.renew_running(id);
            }
        }
        let monitored = monitored(&self.lock().entries);
        self.states.follow(monitored);
        // Also what a look has found that was left behind.
        self.publish();
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
    fn name(&self) {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under this lock, or an older state might have the last word.
        let entries = self.lock().entries.clone();
        let machines = entries.iter();
        let names =
            links::names(machines.map(|(id, e)| ((*id, e.name.clone()), e.machine.is_some())));
        if named.as_ref() == Some(&names) {
            return;
        }
        let made = links::name(&self.directory, &names);
        let was_unnamed = std::mem::replace(&mut self.lock().unnamed, made.is_err());
        match made {
            Ok(()) => *named = Some(names),
            Err(_) if was_unnamed => {} // told
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
        let folder = self.directory.join(id.to_string());
        let file = folder.join(TOPS);
        let saved = definition::turn(&folder).and_then(|_turn| {
            if self.known(id).1 != tops {
                return Ok(());
            }
            let mut stored = Tops::load(&file)?;
            stored.seen.extend(seen);
            Ok(stored.save(&file)?)
        });
        if let Err(error) = saved {
            tracing::warn!(file = %file.display(), %error, "What lies under active files is not recorded");
        }
    }

    /// Looks at one machine, in a look of all or by itself. What was recorded of it meanwhile counts more, and so does a
    /// newer look.
    /// `vouched`: its active files are what this process has just recorded.
    fn renew_one(&self, id: VmId, turn: Option<u64>, vouched: bool) {
        let (old, tops) = self.known(id);
        let current = old.as_deref().filter(|old| old.is_current());
        if current.is_some_and(|old| old.vouched) {
            return;
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
            return;
        }
        self.record_seen(id, tops, std::mem::take(&mut new.unrecorded));
        for problem in &new.problems {
            if old.as_ref().is_none_or(|e| !e.problems.contains(problem)) {
                tracing::warn!(file = %problem.file.display(), "{}", problem.text.english());
            }
        }
        let new = Arc::new(new);
        let is_left = turn.is_some_and(|turn| self.looks().begun != turn);
        let mut book = self.lock();
        let is_newest = !is_left && book.tops.get(&id).copied().unwrap_or_default() == tops;
        if is_newest {
            let is_same = |old: Arc<Entry>| (&old.machine, &old.name) == (&new.machine, &new.name);
            let old = book.entries.insert(id, Arc::clone(&new));
            book.dirty |= !old.is_some_and(is_same);
        }
        drop(book);
        if is_newest {
            // Links never lead to what nobody has vouched for.
            let linked = old.as_ref().filter(|old| old.vouched);
            self.lead(id, linked.and_then(|old| old.machine.as_deref()));
        }
    }

    /// Has the links of a machine lead to its active files, as is known newest, where those are others than `before`.
    fn lead(&self, id: VmId, before: Option<&Machine>) {
        let leading = self.leading.lock();
        let _leading = leading.unwrap_or_else(PoisonError::into_inner);
        // Read under this lock, or an older state might have the last word.
        let (now, _) = self.known(id);
        let now = now.as_ref().filter(|now| now.vouched);
        let before = before.filter(|_| !self.lock().unlinked.contains(&id));
        let led = follow(before, now.and_then(|now| now.machine.as_deref()));
        let mut book = self.lock();
        match led {
            Ok(()) => drop(book.unlinked.remove(&id)),
            Err(error) if book.unlinked.insert(id) => unlinked(id, &error),
            Err(_) => {} // told
        }
    }

    /// Has the active files of a machine judged that was loaded anew, unless the same `tops.json` was before. Whether
    /// there is nothing left to judge.
    fn is_vouched(&self, id: VmId, old: Option<&Entry>, new: &mut Entry) -> bool {
        let judged = |old: &Entry| old.vouched && !old.doubtful && !old.unjudged;
        let same = |old: &Entry| judged(old) && old.machine.is_some() && old.tops() == new.tops();
        if !self.judged || old.is_some_and(same) {
            return true;
        }
        let (Some(judge), Some(machine)) = (self.judge.get(), new.machine.clone()) else {
            return new.machine.is_none();
        };
        let (judged, unseen) = held::failing(|| judge(&machine));
        new.unjudged = unseen.is_some();
        match judged {
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

    /// Whether anything was recorded.
    pub(super) fn record_images(&self, id: VmId) -> bool {
        let folder = self.directory.join(id.to_string());
        let file = folder.join(TOPS);
        let load = || Tops::load(&file);
        let defined = Definition::load(&folder.join(DEFINITION), id);
        let (Ok(defined), Ok(stored)) = (defined, load()) else {
            return false;
        };
        if self
            .known(id)
            .0
            .is_none_or(|entry| !entry.vouched || entry.doubtful)
        {
            return false;
        }
        if stored.complete && stored.machine.is_some() {
            return false;
        }
        let record = |tops: &mut Tops| {
            // Of whom the file is stands in it from now on.
            tops.machine = Some(id);
            tops.complete_images(&defined, &self.directory);
            Ok(())
        };
        let turned = definition::in_turn(&folder, |e| e, load, record);
        let saved = turned.and_then(|turned| match turned.new == turned.old {
            true => Ok(None),
            false => {
                turned.new.save(&file)?;
                Ok(Some(turned.new.images != turned.old.images))
            }
        });
        match &saved {
            Ok(None) => {}
            Ok(Some(true)) => tracing::info!(machine = %id, "Its images are recorded"),
            Ok(Some(false)) => {
                tracing::info!(machine = %id, "The file of its active files tells whose it is");
            }
            Err(error) => {
                tracing::warn!(machine = %id, %error, "Its images cannot be recorded");
            }
        }
        matches!(saved, Ok(Some(_)))
    }

    pub(super) fn known(&self, id: VmId) -> (Option<Arc<Entry>>, u64) {
        let book = self.lock();
        let tops = book.tops.get(&id).copied().unwrap_or_default();
        (book.entries.get(&id).cloned(), tops)
    }

    fn renew_running(&self, id: VmId) {
        let (known, _) = self.known(id);
        let machine = known.as_ref().and_then(|e| e.machine.as_ref());
        let below = |disk: &Disk| known.as_ref().and_then(|it| it.below.get(&disk.id));
        let written = |disk: &Disk| is_written(disk, below(disk).map_or(&[], Vec::as_slice));
        let runs = machine.is_some_and(|m| m.disks.iter().any(written));
        let mut book = self.lock();
        match runs {
            true => book.running.insert(id),
            false => book.running.remove(&id),
        };
    }

    /// Shows what is known.
    fn publish(&self) {
        let mut book = self.lock();
        let is_dirty = std::mem::take(&mut book.dirty);
        let machines = is_dirty.then(|| Arc::new(book.machines()));
        // As long as the book is locked, or an older state might have the last word.
        let conditions = book.conditions();
        self.states.renew(machines, conditions);
        let is_unnamed = book.unnamed;
        drop(book);
        if is_dirty || is_unnamed {
            self.name();
        }
    }

    /// Adds `tops` to what `old` finds in the file; `made` are files of this program that were put in the place of images.
    pub(super) fn record_tops(
        &self,
        id: VmId,
        (tops, made): (&BTreeMap<String, Top>, &BTreeMap<String, Image>),
        old: impl Fn(&Path) -> Result<Tops, (EngineErrorKind, io::Error)>,
    ) -> Result<(), EngineError> {
        let folder = self.directory.join(id.to_string());
        if !folder.join(DEFINITION).is_file() {
            return Err(unknown(id));
        }
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
        let change = |stored: &mut Tops| {
            let before = stored.tops.clone();
            for (disk, (top, seen)) in &new {
                stored.tops.insert((*disk).clone(), (*top).clone());
                match seen {
                    Some(seen) => stored.seen.insert((*disk).clone(), seen.clone()),
                    None => stored.seen.remove(*disk),
                };
            }
            // A file of ours may have taken the place of an image.
            if let Ok(defined) = Definition::load(&folder.join(DEFINITION), id) {
                stored.renew_images(&defined, &before, made, &self.directory);
            }
            Ok(())
        };
        let turned = definition::in_turn(&folder, |e| (kind(&e), e), || old(&file), change);
        let turned = turned.map_err(fail)?;
        let saved = turned.new.save(&file).map_err(|e| match e {
            NotReplaced::Refused(e) => fail((kind(&e), e)),
            NotReplaced::Broken(e) => fail((EngineErrorKind::Broken, e)),
        });
        // A look that began before shows the machine as it was, and must not.
        *self.lock().tops.entry(id).or_default() += 1;
        drop(turned);
        saved?;
        self.renew_one(id, None, true);
        self.publish();
        Ok(())
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc;

    use jiff::Timestamp;

    use super::*;
    use crate::clock::ManualClock;
    use crate::engine::import::{NewDisk, NewMachine, import};
    use crate::inventory::Format;

    const BOUND: Duration = Duration::from_secs(20);

    struct World {
        dir: tempfile::TempDir,
        shelf: Arc<Shelf>,
    }

    impl World {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let directory = dir.path().join("data/machines");
            fs::create_dir_all(&directory).unwrap();
            let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
            let shelf = Arc::new(Shelf::new(directory, Roots::default(), clock, false));
            assert!(shelf.renew(BOUND));
            Self { dir, shelf }
        }

        fn machine(&self, name: &str) -> VmId {
            let folder = self.dir.path().join(name);
            fs::create_dir(&folder).unwrap();
            let file = folder.join("a.raw");
            fs::write(&file, [1; 4096]).unwrap();
            let disk = NewDisk {
                id: None,
                file,
                format: Some(Format::Raw),
            };
            let new = NewMachine {
                name: name.into(),
                disks: vec![disk],
                overlay_ok: true,
                accept_images: false,
                sockets: Default::default(),
                unmanaged_ok: false,
            };
            let data = self.dir.path().join("data");
            let imported = import(&data, &new, &Roots::default(), Timestamp::UNIX_EPOCH);
            imported.unwrap().id
        }

        fn shown(&self, id: VmId) -> Option<Arc<Machine>> {
            let observed = self.shelf.states.observe();
            observed.borrow().machines.get(&id).cloned()
        }

        fn set_top(&self, id: VmId, file: &Path) -> Result<(), EngineError> {
            let file = file.to_owned();
            let format = Format::Raw;
            let tops = BTreeMap::from([("disk0".to_owned(), Top { file, format })]);
            let unread = |e: io::Error| (kind(&e), e);
            let load = |file: &Path| Tops::load(file).map_err(unread);
            self.shelf.record_tops(id, (&tops, &BTreeMap::new()), load)
        }
    }

    #[test]
    fn what_a_look_has_found_that_was_left_behind_is_published_by_the_next() {
        let world = World::new();
        let id = world.machine("web");
        // A look that has put this machine into the book and stands at the next one.
        let turn = world.shelf.looks().begun;
        world.shelf.renew_one(id, Some(turn), false);
        assert!(world.shown(id).is_none());
        assert!(world.shelf.renew(BOUND));
        assert!(world.shown(id).is_some());
        // The same for one that went.
        fs::remove_dir_all(world.shelf.directory.join(id.to_string())).unwrap();
        let mut book = world.shelf.lock();
        book.entries.clear();
        book.dirty = true;
        drop(book);
        assert!(world.shelf.renew(BOUND));
        assert!(world.shown(id).is_none());
    }

    /// In a process of its own, whose file descriptors are no other test's.
    #[test]
    fn a_machine_that_cannot_be_read_for_a_moment_is_read_at_the_next_look() {
        const ALONE: &str = "GROUPSHOT_TEST_ALONE";
        if std::env::var_os(ALONE).is_none() {
            let name = "a_machine_that_cannot_be_read_for_a_moment_is_read_at_the_next_look";
            let own = std::env::current_exe().unwrap();
            let out = std::process::Command::new(own)
                .args(["--exact", &format!("engine::library::shelf::tests::{name}")])
                .env(ALONE, "1")
                .output();
            let out = out.unwrap();
            let told = String::from_utf8_lossy(&out.stdout);
            assert!(told.contains("1 passed"), "{told}");
            return;
        }
        let world = World::new();
        let id = world.machine("web");
        let directory = world.shelf.directory.clone();
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let shelf = Shelf::new(directory, Roots::default(), clock, true);
        let image = world.dir.path().join("web/a.raw");
        // It needs more of them than the machine does.
        let judge = move |_: &Machine| {
            let all = (0..6).map(|_| held::open(&image, false));
            let all = all.collect::<io::Result<Vec<_>>>();
            all.map(drop).map_err(|e| Doubt::Tops(e.to_string()))
        };
        shelf.judge_by(Box::new(judge));
        let is_whole = || {
            let entry = shelf.known(id).0;
            entry.is_some_and(|it| {
                it.machine.is_some() && it.problems.is_empty() && it.unseen.is_empty()
            })
        };
        let mut failed = 0;
        for left in 0..12 {
            shelf.lock().entries.clear();
            let links = shelf.directory.join(id.to_string()).join("disks");
            let _was_made = fs::remove_dir_all(&links);
            let mut all = Vec::new();
            while let Ok(file) = fs::File::open("/dev/null") {
                all.push(file);
            }
            all.truncate(all.len() - left);
            shelf.look_at_all(0);
            drop(all);
            failed += usize::from(!is_whole());
            shelf.look_at_all(0);
            let entry = shelf.known(id).0.unwrap();
            assert!(is_whole() && entry.vouched, "{left} {:?}", entry.problems);
            assert!(links.join("disk0").is_symlink(), "{left}");
        }
        assert!(failed > 0);
    }

    #[test]
    fn links_lead_where_the_newest_state_says_however_late_a_look_ends() {
        let world = World::new();
        let id = world.machine("web");
        assert!(world.shelf.renew(BOUND));
        let before = world.shown(id).unwrap();
        let second = world.dir.path().join("b.raw");
        fs::write(&second, [2; 4096]).unwrap();
        world.set_top(id, &second).unwrap();
        let link = links::by_id(&before, "disk0");
        assert_eq!(fs::read_link(&link).unwrap(), second);
        // A look that had the machine in the book as it was, and comes to its links only now.
        for older in [None, Some(&*before)] {
            world.shelf.lead(id, older);
            assert_eq!(fs::read_link(&link).unwrap(), second);
        }
    }

    #[test]
    fn images_that_do_not_answer_keep_no_other_machine_from_being_recorded() {
        let world = World::new();
        let (hung, healthy) = (world.machine("hung"), world.machine("healthy"));
        assert!(world.shelf.renew(BOUND));
        let tops = world.shelf.directory.join(hung.to_string()).join(TOPS);
        let mut stored = Tops::load(&tops).unwrap();
        stored.images.clear(); // of an older version
        stored.complete = false;
        stored.save(&tops).unwrap();
        let image = world.dir.path().join("hung/a.raw");
        let (stands, other) = (
            image.with_file_name("stands"),
            world.dir.path().join("b.raw"),
        );
        fs::write(&other, [2; 4096]).unwrap();
        let (go, gate) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        thread::scope(|scope| {
            let at = &stands;
            scope.spawn(move || held::ask(at, || Ok(gate.recv().is_ok())));
            while !held::slow_down(&stands) {
                thread::yield_now();
            }
            let (begin, began) = mpsc::channel();
            let shelf = &world.shelf;
            let recording = scope.spawn(move || {
                begin.send(()).unwrap();
                shelf.record_images(hung);
            });
            began.recv().unwrap();
            let world = &world;
            scope.spawn(move || {
                let folder = world.shelf.directory.join(hung.to_string());
                drop(definition::turn(&folder).unwrap());
                tell.send(world.set_top(healthy, &other)).unwrap();
            });
            let recorded = told.recv_timeout(BOUND);
            let stood = !recording.is_finished();
            go.send(()).unwrap();
            assert!(recorded.unwrap().is_ok() && stood);
        });
        assert_eq!(Tops::load(&tops).unwrap().images.len(), 1);
    }
}
