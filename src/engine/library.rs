//! The embedded library of machines: one folder each under `machines/` of the data directory.
//!
//! Readers share one snapshot. It is renewed at most once a second, when someone asks and a file behind it
//! has changed; so a running server notices an import within a second and sleeps when nobody asks.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use jiff::Timestamp;

use crate::clock::SharedClock;
use crate::engine::definition::{
    self, DEFINITION, Definition, DiskEntry, MACHINES, SeenTop, TOPS, TOPS_NEW, Tops,
};
use crate::engine::failure::{At, kind};
use crate::engine::links::{self, Names};
use crate::engine::qcow2::backing;
use crate::engine::qcow2::chain::{self, Roots};
use crate::engine::qcow2::header::Header;
use crate::engine::reflink::{self, FOLDER};
use crate::engine::{
    Compute, EngineError, EngineErrorKind, Hold, Machines, Stamp, Top, locks, stage,
};
use crate::held::{self, NotReplaced};
use crate::id::VmId;
use crate::inventory::{Disk, Format, Machine, PowerState};
use crate::text::catalog::engine as texts;
use crate::text::{Message, Text};

const RENEW_AFTER_MILLIS: u64 = 1000;
const SECTOR: u64 = 512;

/// A file of the library that cannot be used as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub text: Text,
    /// It is only this disk, of which no set may be taken: a path or a format in the definition has no effect, or its
    /// active file was cut off.
    pub idle_disk: Option<String>,
}

impl Problem {
    fn new(file: &Path, text: Text) -> Self {
        Self {
            file: file.to_owned(),
            text,
            idle_disk: None,
        }
    }
}

/// The library of machines of one data directory.
pub struct Library {
    directory: PathBuf,
    roots: Roots,
    clock: SharedClock,
    machines: ArcSwap<Machines>,
    problems: ArcSwap<Vec<Problem>>,
    entries: Mutex<BTreeMap<VmId, Entry>>,
    /// Where links by name led when they were last made.
    named: Mutex<Option<Names>>,
    /// Clock time of the last look, in milliseconds.
    looked: AtomicU64,
}

/// A machine as loaded, and the files it was loaded from.
struct Entry {
    seen: Vec<(PathBuf, Option<Stamp>)>,
    machine: Option<Arc<Machine>>,
    /// What lies under the active file of a disk, and what was recorded to, by disk id.
    below: BTreeMap<String, Vec<PathBuf>>,
    /// The disks of which that cannot be seen now.
    unseen: Vec<String>,
    /// What was seen of active files and is not recorded.
    unrecorded: BTreeMap<String, SeenTop>,
    problems: Vec<Problem>,
}

impl Entry {
    /// Whether the files are as they were.
    fn is_current(&self) -> bool {
        let mut files = self.seen.iter();
        files.all(|(file, stamp)| stamp_of(file) == *stamp)
    }

    /// What lay under a file that cannot be read any more is known from before.
    fn remember(&mut self, old: &Self) {
        let unseen = old.below.iter().filter(|(id, _)| self.unseen.contains(id));
        for (disk, below) in unseen {
            let known = self.below.entry(disk.clone()).or_default();
            let more = below.iter().filter(|file| !known.contains(file));
            let more: Vec<_> = more.cloned().collect();
            known.extend(more);
        }
    }

    fn misnamed(&self) -> Option<(String, Text)> {
        let mut all = self.problems.iter();
        all.find_map(|p| Some((p.idle_disk.clone()?, p.text.clone())))
    }
}

impl Library {
    /// Opens the library of a data directory and loads every machine. A broken definition is logged, left
    /// out and listed by [`Library::problems`].
    ///
    /// # Errors
    /// The folder `machines` can be neither made nor read.
    pub fn open(data_dir: &Path, clock: SharedClock) -> Result<Self, EngineError> {
        Self::open_within(data_dir, clock, Roots::default())
    }

    /// [`Library::open`] where an active file outside `roots` is a problem.
    ///
    /// # Errors
    /// As there.
    pub fn open_within(
        data_dir: &Path,
        clock: SharedClock,
        roots: Roots,
    ) -> Result<Self, EngineError> {
        let directory = machines_directory(data_dir);
        let fail = |e: io::Error| directory_failed(&directory, &e);
        stage::make_dirs(&directory, 1).map_err(fail)?;
        for id in machine_ids(&directory).map_err(fail)? {
            // A process that died while it replaced the file left this.
            let _ = held::discard(&directory.join(id.to_string()).join(TOPS_NEW), 1, None);
        }
        let library = Self {
            looked: AtomicU64::new(millis(&clock)),
            directory,
            roots,
            clock,
            machines: ArcSwap::default(),
            problems: ArcSwap::default(),
            entries: Mutex::default(),
            named: Mutex::default(),
        };
        library.renew(&mut library.lock());
        Ok(library)
    }

    /// Records the images of machines of which an older version has recorded nothing; to be called once no operation
    /// is open. What fails for one machine is logged, and done at the next start.
    pub fn record_images(&self) {
        let mut entries = self.lock();
        let machines: Vec<_> = entries.keys().copied().collect();
        for id in machines {
            let folder = self.directory.join(id.to_string());
            let (Ok(defined), Ok(mut stored)) = (
                Definition::load(&folder.join(DEFINITION), id),
                Tops::load(&folder.join(TOPS)),
            ) else {
                continue;
            };
            let is_known = |d: &DiskEntry| {
                let image = stored.images.get(&d.id);
                image.is_some_and(|i| i.named == d.path && i.below.is_some())
            };
            if defined.disk.iter().all(is_known) || !stored.record_images(&defined) {
                continue;
            }
            match stored.save(&folder.join(TOPS)) {
                Ok(()) => tracing::info!(machine = %id, "Its images are recorded"),
                Err(error) => {
                    let error = io::Error::from(error);
                    tracing::warn!(machine = %id, %error, "Its images cannot be recorded");
                }
            }
        }
        self.renew(&mut entries);
    }

    /// What is wrong with files of the library now.
    #[must_use]
    pub fn problems(&self) -> Arc<Vec<Problem>> {
        self.look();
        self.problems.load_full()
    }

    /// [`Library::problems`] by a look that is made now.
    #[must_use]
    pub fn problems_now(&self) -> Arc<Vec<Problem>> {
        self.renew(&mut self.lock());
        self.problems.load_full()
    }

    /// Renews the snapshot if the last look is a second old and nobody else is at it.
    fn look(&self) {
        let now = millis(&self.clock);
        if now.saturating_sub(self.looked.load(Ordering::Acquire)) < RENEW_AFTER_MILLIS {
            return;
        }
        if let Ok(mut entries) = self.entries.try_lock() {
            self.looked.store(now, Ordering::Release);
            self.renew(&mut entries);
        }
    }

    fn renew(&self, entries: &mut BTreeMap<VmId, Entry>) {
        let ids = match machine_ids(&self.directory) {
            Ok(ids) => ids,
            Err(e) => {
                tracing::warn!(directory = %self.directory.display(), error = %e, "machines cannot be listed");
                return;
            }
        };
        let mut changed = entries.len();
        entries.retain(|id, _| ids.contains(id));
        changed -= entries.len();
        for id in ids {
            let old = entries.get(&id);
            if old.is_some_and(Entry::is_current) {
                continue;
            }
            let mut new = load(
                &self.directory,
                id,
                old.and_then(|e| e.machine.as_deref()),
                &self.roots,
            );
            if let Some(old) = old {
                new.remember(old);
            }
            self.record_seen(id, std::mem::take(&mut new.unrecorded));
            for problem in &new.problems {
                if old.is_none_or(|e| !e.problems.contains(problem)) {
                    tracing::warn!(file = %problem.file.display(), "{}", problem.text);
                }
            }
            follow(
                old.and_then(|e| e.machine.as_deref()),
                new.machine.as_deref(),
            );
            entries.insert(id, new);
            changed += 1;
        }
        if changed > 0 {
            let machine = |(id, e): (&VmId, &Entry)| Some((*id, Arc::clone(e.machine.as_ref()?)));
            self.machines
                .store(Arc::new(entries.iter().filter_map(machine).collect()));
            let problems = entries.values().flat_map(|e| e.problems.clone()).collect();
            self.problems.store(Arc::new(problems));
            self.name(entries);
        }
    }

    /// Has the names lead to their machines, if any came, went or has another one.
    fn name(&self, entries: &BTreeMap<VmId, Entry>) {
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
    fn record_seen(&self, id: VmId, seen: BTreeMap<String, SeenTop>) {
        if seen.is_empty() {
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

    /// Adds `tops` to what `old` finds in the file.
    fn record_tops(
        &self,
        id: VmId,
        tops: &BTreeMap<String, Top>,
        old: impl FnOnce(&Path) -> Result<Tops, (EngineErrorKind, io::Error)>,
    ) -> Result<(), EngineError> {
        let mut entries = self.lock();
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
        let mut stored = old(&file).map_err(fail)?;
        for (disk, top) in tops {
            stored.tops.insert(disk.clone(), top.clone());
            match SeenTop::of(&top.file, top.format) {
                Some(seen) => stored.seen.insert(disk.clone(), seen),
                None => stored.seen.remove(disk),
            };
        }
        // A file of ours may have taken the place of an image.
        if let Ok(defined) = Definition::load(&folder.join(DEFINITION), id) {
            stored.record_images(&defined);
        }
        stored.save(&file).map_err(|e| match e {
            NotReplaced::Refused(e) => fail((kind(&e), e)),
            NotReplaced::Broken(e) => fail((EngineErrorKind::Broken, e)),
        })?;
        self.renew(&mut entries);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<VmId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Compute for Library {
    fn machines(&self) -> Arc<Machines> {
        self.look();
        self.machines.load_full()
    }

    /// Off, unless another process has a disk open for writing: then something runs the machine.
    fn state(&self, id: VmId) -> PowerState {
        let runs = self.machine(id).is_some_and(|m| {
            m.disks
                .iter()
                .any(|d| d.file.is_file() && locks::is_written(&d.file).unwrap_or(false))
        });
        if runs {
            PowerState::Running
        } else {
            PowerState::Off
        }
    }

    fn trouble(&self, id: VmId) -> Option<Text> {
        let folder = self.directory.join(id.to_string());
        let problems = self.problems();
        let is_broken = self.machine(id).is_none();
        let mut own = problems
            .iter()
            .filter(|p| is_broken && p.file.parent() == Some(&folder));
        own.next().map(|p| p.text.clone())
    }

    fn is_ailing(&self, id: VmId) -> bool {
        let problems = self.problems();
        let is_one = |disk: &Disk| problems.iter().any(|p| p.file == disk.file);
        self.machine(id).is_some_and(|m| m.disks.iter().any(is_one))
    }

    fn below(&self, id: VmId, disk: &str) -> Option<Vec<PathBuf>> {
        self.lock().get(&id)?.below.get(disk).cloned()
    }

    fn misnamed(&self, id: VmId) -> Option<(String, Text)> {
        let entries = self.lock();
        let known = entries.get(&id)?;
        if known.is_current() {
            return known.misnamed();
        }
        let before = known.machine.as_deref();
        load(&self.directory, id, before, &self.roots).misnamed()
    }

    fn set_tops(&self, id: VmId, tops: &BTreeMap<String, Top>) -> Result<(), EngineError> {
        let unread = |e: io::Error| (kind(&e), e);
        self.record_tops(id, tops, |file| Tops::load(file).map_err(unread))
    }

    fn restore_tops(&self, id: VmId, tops: &BTreeMap<String, Top>) -> Result<(), EngineError> {
        self.record_tops(id, tops, |file| match fs::symlink_metadata(file) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Tops::new(None)),
            Err(e) => Err((kind(&e), e)),
            Ok(_) if definition::is_damaged(file) => {
                // Kept for whoever wants to know what stood there.
                let aside = file.with_extension("json.damaged");
                let kept = fs::read(file).and_then(|was| Ok(held::replace(&aside, &was, 0o640)?));
                kept.map_err(|e| (kind(&e), e))?;
                Ok(Tops::new(None))
            }
            Ok(_) => Err((EngineErrorKind::Failed, io::ErrorKind::AlreadyExists.into())),
        })
    }

    fn roots(&self) -> Roots {
        self.roots.clone()
    }

    fn hold(&self, machine: &Machine) -> Result<Hold, EngineError> {
        Hold::of(machine)
    }
}

/// Has the links of a machine lead to its active files where those are others than before.
fn follow(before: Option<&Machine>, now: Option<&Machine>) {
    let Some(machine) = now else { return };
    let files = |m: &Machine| -> Vec<_> {
        let disks = m.disks.iter();
        disks.map(|d| (d.id.clone(), d.file.clone())).collect()
    };
    if before.is_some_and(|before| files(before) == files(machine)) {
        return;
    }
    if let Err(error) = links::follow(machine) {
        let machine = machine.id;
        tracing::warn!(%machine, %error, "Links to its active files could not all be made");
    }
}

/// Makes the links to one machine, if one is new, and the names of all.
pub(crate) fn link(directory: &Path, machines: &Machines, new: Option<&Machine>) {
    follow(None, new);
    let ids = machine_ids(directory).unwrap_or_default();
    let unreadable = ids.into_iter().filter(|id| !machines.contains_key(id));
    let names = links::names(machines.values().map(Arc::as_ref));
    if let Err(error) = links::name(directory, &names, &unreadable.collect::<Vec<_>>()) {
        tracing::warn!(%error, "Links to machines by their names could not all be made");
    }
}

/// Every machine of a data directory as its files are now, and what is wrong with the others.
///
/// # Errors
/// The folder `machines` is there and cannot be read.
pub fn scan(data_dir: &Path) -> Result<(Machines, Vec<Problem>), EngineError> {
    let directory = machines_directory(data_dir);
    let ids = match machine_ids(&directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other.map_err(|e| directory_failed(&directory, &e))?,
    };
    let mut machines = Machines::new();
    let mut problems = Vec::new();
    for id in ids {
        let entry = load(&directory, id, None, &Roots::default());
        machines.extend(entry.machine.map(|m| (id, m)));
        problems.extend(entry.problems);
    }
    Ok((machines, problems))
}

/// Where the machines of a data directory are.
#[must_use]
pub fn machines_directory(data_dir: &Path) -> PathBuf {
    data_dir.join(MACHINES)
}

pub(crate) fn directory_failed(directory: &Path, error: &io::Error) -> EngineError {
    EngineError {
        kind: kind(error),
        text: texts::DIRECTORY_FAILED
            .with("file", directory.display())
            .with("cause", error),
    }
}

pub(crate) fn unknown(id: VmId) -> EngineError {
    EngineError {
        kind: EngineErrorKind::Missing,
        text: texts::MACHINE_UNKNOWN.with("machine", id),
    }
}

/// The folders that are named as a GUID is written; all else (an import under way) is passed over.
pub(crate) fn machine_ids(directory: &Path) -> io::Result<Vec<VmId>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let id = name
            .to_str()
            .and_then(|n| Some((n, n.parse::<VmId>().ok()?)));
        ids.extend(id.filter(|(n, id)| id.to_string() == *n).map(|(_, id)| id));
    }
    ids.sort_unstable();
    Ok(ids)
}

/// Loads one machine. Sizes that cannot be read now are taken from `before`.
fn load(directory: &Path, id: VmId, before: Option<&Machine>, roots: &Roots) -> Entry {
    let folder = directory.join(id.to_string());
    let (definition, tops) = (folder.join(DEFINITION), folder.join(TOPS));
    // Stamps first: a change while we read shows at the next look.
    let mut seen = vec![stamped(&definition), stamped(&tops)];
    let broken = |file: &Path, text: Text, seen| Entry {
        seen,
        machine: None,
        below: BTreeMap::new(),
        unseen: Vec::new(),
        unrecorded: BTreeMap::new(),
        problems: vec![Problem::new(file, text)],
    };
    let defined = match Definition::load(&definition, id) {
        Ok(it) => it,
        Err(text) => return broken(&definition, text, seen),
    };
    let stored = match Tops::load(&tops) {
        Ok(it) => it,
        Err(e) => {
            let text = match e.kind() {
                io::ErrorKind::NotFound => texts::TOPS_MISSING.text(),
                io::ErrorKind::InvalidData => texts::TOPS_DAMAGED.with("cause", e),
                _ => texts::DEFINITION_READ.with("cause", e),
            };
            return broken(&tops, text.with("file", tops.display()), seen);
        }
    };
    for (image, format) in &stored.backing_formats {
        backing::record(image, *format);
    }
    let mut problems = Vec::new();
    let mut disks = Vec::new();
    let (mut below, mut unseen) = (BTreeMap::new(), Vec::new());
    let mut unrecorded = BTreeMap::new();
    for entry in &defined.disk {
        let mut disk = disk(entry, &stored);
        let recorded = stored.seen.get(&entry.id);
        let now = SeenTop::of(&disk.file, disk.format);
        unseen.extend(now.is_none().then(|| disk.id.clone()));
        let all = recorded
            .cloned()
            .map_or(now.clone(), |seen| Some(seen.with(now.as_ref())));
        if let Some(all) = all {
            below.insert(disk.id.clone(), all.below.clone());
            if recorded != Some(&all) {
                unrecorded.insert(disk.id.clone(), all);
            }
        }
        seen.push(stamped(&disk.file));
        if roots.admit(&disk.file).is_ok_and(|inside| !inside) {
            let text = roots.outside(&At::new(&defined.name, &disk.id), &disk.file);
            problems.push(Problem::new(&disk.file, text));
        }
        if let Some(message) = idle(entry, &resolved(entry, &stored), &disk) {
            let text = At::new(&defined.name, &disk.id).text(message, &definition);
            let text = text.with("path", entry.path.display());
            let text = text.with("format", entry.format.as_str());
            problems.push(Problem {
                idle_disk: Some(disk.id.clone()),
                ..Problem::new(&definition, text.with("active", disk.file.display()))
            });
        }
        match virtual_size(&disk.file, disk.format) {
            Ok(size) => {
                disk.size = size;
                // A qcow2 file tells by itself whether it is whole.
                let was = recorded.map_or(0, |seen| seen.size);
                if disk.format == Format::Raw && size < was {
                    let text = At::new(&defined.name, &disk.id).text(texts::SHRUNK, &disk.file);
                    let text = text.with("size", size).with("was", was);
                    problems.push(Problem {
                        idle_disk: Some(disk.id.clone()),
                        ..Problem::new(&disk.file, text)
                    });
                }
            }
            Err(e) => {
                let known = before.and_then(|m| m.disks.iter().find(|d| d.id == disk.id));
                disk.size = known.map_or(0, |d| d.size);
                let text = At::new(&defined.name, &disk.id).text(texts::FILE_FAILED, &disk.file);
                problems.push(Problem::new(&disk.file, text.with("cause", e)));
            }
        }
        disks.push(disk);
    }
    let created = stored.imported.or_else(|| modified(&definition));
    let overlay_ok = defined.overlay_ok();
    Entry {
        seen,
        machine: Some(Arc::new(Machine {
            id,
            name: defined.name,
            disks,
            directory: folder,
            definition,
            created: created.unwrap_or(Timestamp::UNIX_EPOCH),
            overlay_ok,
            images: stored.images,
        })),
        below,
        unseen,
        unrecorded,
        problems,
    }
}

fn disk(entry: &DiskEntry, stored: &Tops) -> Disk {
    let top = stored.tops.get(&entry.id);
    let file = match top {
        Some(top) if top.file != entry.path => top.file.clone(),
        _ => resolved(entry, stored),
    };
    Disk {
        id: entry.id.clone(),
        file,
        format: top.map_or(entry.format, |t| t.format),
        size: 0,
    }
}

/// Where the path of a disk leads: as was recorded at import, or as it is now where nothing is recorded.
fn resolved(entry: &DiskEntry, stored: &Tops) -> PathBuf {
    let recorded = stored.images.get(&entry.id);
    match recorded.filter(|i| i.named == entry.path) {
        Some(image) => image.file.clone(),
        None => entry
            .path
            .canonicalize()
            .unwrap_or_else(|_| entry.path.clone()),
    }
}

/// What is to be said of a path that is neither the active file nor under it, nor in the folder of one of ours that
/// has taken its place there, or of another format than that file is of. Of what cannot be read nothing is said.
fn idle(entry: &DiskEntry, path: &Path, disk: &Disk) -> Option<Message> {
    let as_format = |format| (format != entry.format).then_some(texts::FORMAT_IDLE);
    if path == disk.file {
        return as_format(disk.format);
    }
    let (layers, unreadable) = chain::readable(&disk.file, disk.format);
    let key = fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
    let folders = [
        Some(path.with_file_name(FOLDER)),
        reflink::folder_of(path).ok(),
    ];
    let beside = |file: &Path| {
        let folder = file.ancestors().nth(2);
        let mut folders = folders.iter().flatten();
        folders.any(|of| Some(of.as_path()) == folder)
    };
    if let Some(own) = layers.iter().find(|l| l.file == path || Some(l.id) == key) {
        return as_format(own.format);
    }
    let is_own = unreadable.is_some() || layers.iter().any(|l| beside(&l.file));
    (!is_own).then_some(texts::PATH_IDLE)
}

fn virtual_size(file: &Path, format: Format) -> io::Result<u64> {
    let open = held::open(file, false)?;
    match format {
        Format::Raw => Ok(open.metadata()?.len().next_multiple_of(SECTOR)),
        Format::Qcow2 => match Header::load(&open)? {
            Ok(header) => Ok(header.size),
            Err(_) => Err(io::Error::other("no readable qcow2 header")),
        },
    }
}

fn stamped(file: &Path) -> (PathBuf, Option<Stamp>) {
    (file.to_owned(), stamp_of(file))
}

fn stamp_of(file: &Path) -> Option<Stamp> {
    fs::metadata(file).ok().map(|m| Stamp::of(&m))
}

fn modified(file: &Path) -> Option<Timestamp> {
    let time = fs::metadata(file).ok()?.modified().ok()?;
    Timestamp::try_from(time).ok()
}

fn millis(clock: &SharedClock) -> u64 {
    u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX)
}
