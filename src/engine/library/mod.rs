//! The embedded library of machines: one folder each under `machines/` of the data directory.
//!
//! Readers share one view ([`Observed`]): the machines, what is wrong with them, and which of them run. It is renewed at
//! most once a second, when a request begins; so a running server notices an import within a second and sleeps when
//! nobody asks. The files are looked at by a thread of the library, and by one at a time: a request waits for it for a
//! moment before it begins, and not at all while a file does not answer (a hung mount). It sees what was known last then.
//! What monitors say is taken up when they say it.

mod entry;
mod shelf;
mod states;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::clock::SharedClock;
use crate::engine::actives;
use crate::engine::definition::{self, MACHINES, TOPS, TOPS_NEW, Tops};
use crate::engine::failure::kind;
use crate::engine::image;
use crate::engine::links::{self, Unmade};
use crate::engine::names;
use crate::engine::qcow2::chain::Roots;
use crate::engine::{
    Compute, Doubt, EngineError, EngineErrorKind, Followed, Hold, InTurn, Judge, Machines,
    Observed, Recorded, Running, Stopped, Top, locks, name, stage,
};
use crate::held::{self, FileKind, Folder, Foreign};
use crate::id::VmId;
use crate::inventory::{Image, Machine, RunState, Sockets};
use crate::text::Text;
use crate::text::catalog::engine as texts;

use entry::{is_written, load};
use shelf::Shelf;

pub use states::states;

/// How long a start, or a check-up, waits until every machine was looked at. A place that does not answer is known after
/// a fraction of it.
const AT_START: Duration = Duration::from_secs(20);
/// How long an operation waits for that.
const SETTLED: Duration = Duration::from_secs(15);

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

    /// In words, with the file.
    #[must_use]
    pub fn told(&self) -> String {
        let (file, text) = (self.file.display().to_string(), self.text.english());
        // Most texts begin with the file themselves.
        match text.starts_with(&file) {
            true => text,
            false => format!("{file}: {text}"),
        }
    }
}

/// The library of machines of one data directory.
pub struct Library(Arc<Shelf>);

impl Library {
    /// Opens the library of a data directory and loads every machine. A broken definition is logged, left
    /// out and listed by [`Library::problems_now`].
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
        Self::opened(data_dir, clock, roots, false)
    }

    /// [`Library::open_within`] where recorded active files count once they are judged: see [`Library::judge_by`].
    ///
    /// # Errors
    /// As there.
    pub fn open_judged(
        data_dir: &Path,
        clock: SharedClock,
        roots: Roots,
    ) -> Result<Self, EngineError> {
        Self::opened(data_dir, clock, roots, true)
    }

    /// Has the active files judged of every machine whose `tops.json` was not written by this process. A machine that is
    /// in doubt is as one whose `tops.json` is damaged. Loads every machine; none is known before.
    pub fn judge_by(&self, judge: Judge) {
        self.0.judge_by(judge);
        self.look_first();
    }

    fn opened(
        data_dir: &Path,
        clock: SharedClock,
        roots: Roots,
        judged: bool,
    ) -> Result<Self, EngineError> {
        let directory = machines_directory(data_dir);
        let fail = |e: io::Error| directory_failed(&directory, &e);
        stage::make_dirs(&directory, 1).map_err(fail)?;
        require_private(data_dir)?;
        for id in machine_ids(&directory).map_err(fail)? {
            // A process that died while it replaced the file left this.
            let _ = held::discard(&directory.join(id.to_string()).join(TOPS_NEW), 1, None);
        }
        let shelf = Shelf::new(directory, roots, clock, judged);
        let library = Self(Arc::new(shelf));
        if !judged {
            library.look_first();
        }
        Ok(library)
    }

    /// A machine as it was when it was stopped, as far as that was written down; the rest as it is now, where that is known.
    fn as_stopped(&self, stopped: &Stopped) -> Machine {
        let known = self.0.known(stopped.machine).0;
        let known = known.and_then(|it| it.machine.as_deref().cloned());
        let mut machine = known.unwrap_or_else(|| Machine {
            id: stopped.machine,
            name: stopped.name.clone(),
            disks: Vec::new(),
            directory: PathBuf::new(),
            definition: PathBuf::new(),
            created: jiff::Timestamp::UNIX_EPOCH,
            overlay_ok: false,
            unmanaged_ok: false,
            no_flush_ok: false,
            images: BTreeMap::new(),
            relative: BTreeMap::new(),
            sockets: Sockets::default(),
        });
        if !stopped.sockets.qmp.is_empty() {
            machine.sockets = stopped.sockets.clone();
        }
        machine
    }

    fn look_first(&self) {
        if !self.0.renew(AT_START) {
            tracing::warn!(directory = %self.0.directory.display(), "Not all machines are known yet: files of some do not answer");
        }
    }

    /// Records the images of machines of which an older version has recorded nothing; to be called once no operation
    /// is open. What fails for one machine is logged, and done at the next start.
    pub fn record_images(&self) {
        self.0.renew(AT_START); // those that nobody vouches for are left as they are
        let machines: Vec<_> = self.0.lock().entries.keys().copied().collect();
        let recorded = machines.iter().filter(|id| self.0.record_images(**id));
        if recorded.count() > 0 {
            self.0.renew(AT_START);
        }
    }

    /// What is wrong with files of the library, by a look that is made now. Blocks.
    #[must_use]
    pub fn problems_now(&self) -> Vec<Problem> {
        self.0.renew(AT_START);
        let book = self.0.lock();
        let problems = book.entries.values().flat_map(|e| e.problems.clone());
        problems.collect()
    }
}

impl Compute for Library {
    fn observe(&self) -> watch::Receiver<Arc<Observed>> {
        self.0.states.observe()
    }

    fn machines(&self) -> Arc<Machines> {
        self.0.look();
        Arc::clone(&self.observed().machines)
    }

    /// As its monitor says, if it has one and that is of a process with its disks. Something holds the machine if anybody
    /// else is there, or nobody and another process has a file of a disk open for writing; else it is off.
    fn state(&self, id: VmId) -> RunState {
        let machine = self.machine(id);
        let disks = machine.iter().flat_map(|m| &m.disks);
        let written = || {
            disks.clone().any(|disk| {
                let below = self.below(id, &disk.id).unwrap_or_default();
                is_written(disk, &below)
            })
        };
        self.0.states.settled(id, written)
    }

    fn running(&self, id: VmId) -> Option<Arc<dyn Running>> {
        let (known, _) = self.0.known(id);
        let machine = known?.machine.clone()?;
        let way = self.0.states.way(machine)?;
        Some(Arc::new(way))
    }

    fn follow(&self, stopped: &Stopped) -> Followed {
        let machine = self.as_stopped(stopped);
        let sockets = machine.sockets.qmp.clone();
        self.0.states.keep(stopped.machine, sockets)
    }

    fn at_monitor(&self, stopped: &Stopped) -> Option<Arc<dyn Running>> {
        let machine = Arc::new(self.as_stopped(stopped));
        let way = self.0.states.reached(stopped, machine)?;
        Some(Arc::new(way))
    }

    /// Its process is gone; or nobody listens at its monitor, and all files are there and none is open for writing.
    fn has_ended(&self, stopped: &Stopped) -> bool {
        let is_free = |file: &PathBuf| matches!(locks::is_written(file), Ok(false));
        let is_no_more = |file: &PathBuf| match locks::is_written(file) {
            Err(e) => e.kind() == io::ErrorKind::NotFound,
            Ok(is_written) => !is_written,
        };
        stopped.runner.has_ended()
            || (self.0.states.is_absent(stopped.machine)
                && stopped.files.iter().all(is_free)
                && stopped.new_files.iter().all(is_no_more))
    }

    fn looked(&self) -> BoxFuture<'static, ()> {
        let shelf = Arc::clone(&self.0);
        async move { shelf.looked().await }.boxed()
    }

    fn catch_up(&self) {
        self.0.settle(SETTLED);
    }

    fn renew(&self) -> bool {
        self.0.renew(SETTLED)
    }

    fn silent(&self, id: VmId) -> Option<PathBuf> {
        self.0.silent(id)
    }

    fn is_doubtful(&self, id: VmId) -> bool {
        self.0.is_doubtful(id)
    }

    fn below(&self, id: VmId, disk: &str) -> Option<Vec<PathBuf>> {
        let entry = self.0.known(id).0?;
        let seen = entry.below.get(disk);
        let machine = entry.machine.as_deref();
        let active = machine.and_then(|m| m.disks.iter().find(|d| d.id == disk));
        let sets = self.0.directory.with_file_name(held::SETS);
        let is_made = |file: &Path| names::is_made_for(&sets, id, file);
        let image = machine.and_then(|m| m.images.get(disk));
        let Some(active) = active else {
            return seen.cloned();
        };
        image::known_below(&active.file, seen.map(Vec::as_slice), image, is_made)
    }

    fn misnamed(&self, id: VmId) -> Option<(String, Text)> {
        let (known, _) = self.0.known(id);
        let known = known?;
        if known.is_current() {
            return known.misnamed();
        }
        let before = known.machine.as_deref();
        load(&self.0.directory, id, before, &self.0.roots).misnamed()
    }

    fn set_tops(&self, id: VmId, tops: &BTreeMap<String, Top>) -> Result<(), EngineError> {
        self.set_applied(id, tops, &BTreeMap::new())
    }

    fn set_applied(
        &self,
        id: VmId,
        tops: &BTreeMap<String, Top>,
        made: &BTreeMap<String, Image>,
    ) -> Result<(), EngineError> {
        let unread = |e: io::Error| (kind(&e), e);
        let load = |file: &Path| Tops::load(file).map_err(unread);
        self.0.record_tops(id, (tops, made), load)
    }

    fn restore_tops(&self, id: VmId, tops: &BTreeMap<String, Top>) -> Result<(), EngineError> {
        self.0.record_tops(
            id,
            (tops, &BTreeMap::new()),
            |file| match fs::symlink_metadata(file) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Tops::new(id, None)),
                Err(e) => Err((kind(&e), e)),
                Ok(_) if definition::is_damaged(file) || self.0.is_doubtful(id) => {
                    definition::keep_damaged(file).map_err(|e| (kind(&e), e))?;
                    let mut old = Tops::load(file).unwrap_or_else(|_| Tops::new(id, None));
                    old.machine = Some(id);
                    old.tops.clear();
                    old.seen.clear();
                    Ok(old)
                }
                Ok(_) => Err((EngineErrorKind::Failed, io::ErrorKind::AlreadyExists.into())),
            },
        )?;
        // With the file, what was recorded of images may be gone.
        self.0.record_images(id);
        Ok(())
    }

    fn recorded(&self) -> Result<Vec<Recorded>, EngineError> {
        actives::recorded(&self.0.directory)
    }

    fn recorded_of(&self, id: VmId) -> Option<Recorded> {
        actives::recorded_of(&self.0.directory, id)
    }

    fn recorded_in(&self, id: Option<VmId>) -> PathBuf {
        actives::folder_of(&self.0.directory, id)
    }

    fn turn(&self, given_up: &dyn Fn() -> bool) -> io::Result<Option<InTurn>> {
        actives::turn(&self.0.directory, given_up)
    }

    fn roots(&self) -> Roots {
        self.0.roots.clone()
    }

    fn hold(&self, machine: &Machine) -> Result<Hold, EngineError> {
        Hold::of(machine)
    }
}

/// Has the links of a machine lead to its active files where those are others than before. One after the other, or an
/// older state might have the last word.
fn follow(before: Option<&Machine>, now: Option<&Machine>) -> Result<(), Unmade> {
    let Some(machine) = now else { return Ok(()) };
    match before.is_some_and(|before| links::wanted(before) == links::wanted(machine)) {
        true => Ok(()),
        false => links::follow(machine),
    }
}

fn unlinked(machine: VmId, error: &Unmade) {
    tracing::warn!(%machine, %error, "Links to its active files could not all be made");
}

/// What has become of the links of all machines.
#[derive(Debug, Default)]
pub struct Linked {
    /// What is not as it is wanted.
    pub unmade: Vec<Unmade>,
    /// The machines whose links are not led anywhere, as nobody vouches for their active files or these cannot be read: why,
    /// and the links that were taken away.
    pub unvouched: Vec<(Problem, Vec<PathBuf>)>,
}

/// Has the links of all machines lead to their active files as these are recorded now, and the names to the machines.
/// Links of a machine whose active files are not those that are recorded stay where they lead, but for those that lead to
/// what `is_moved`.
///
/// # Errors
/// As [`scan`].
pub fn link_all(
    data_dir: &Path,
    judge: impl Fn(&Machine) -> Result<(), Doubt> + Send + Sync + 'static,
    is_moved: &dyn Fn(&Path) -> bool,
) -> Result<Linked, EngineError> {
    let directory = machines_directory(data_dir);
    let ids = match machine_ids(&directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Linked::default()),
        ids => ids.map_err(|e| directory_failed(&directory, &e))?,
    };
    let (machines, problems) = scan_judged(data_dir, judge)?;
    let all = machines.values().map(|m| &**m);
    let mut linked = Linked {
        unmade: link(&directory, &machines, all),
        ..Linked::default()
    };
    for id in ids.iter().filter(|id| !machines.contains_key(id)) {
        let folder = directory.join(id.to_string());
        let why = problems.iter().find(|p| p.file.starts_with(&folder));
        match links::forget(&folder, is_moved) {
            Ok(gone) => {
                let why = why.cloned();
                linked.unvouched.extend(why.map(|why| (why, gone)));
            }
            Err(unmade) => linked.unmade.push(unmade),
        }
    }
    Ok(linked)
}

/// Makes the links to the machines that are new, and the names of all. What cannot be made is logged, and given back for
/// those who have no log.
pub(crate) fn link<'a>(
    directory: &Path,
    machines: &Machines,
    new: impl IntoIterator<Item = &'a Machine>,
) -> Vec<Unmade> {
    let mut unmade = Vec::new();
    for machine in new {
        if let Err(error) = links::follow(machine) {
            unlinked(machine.id, &error);
            unmade.push(error);
        }
    }
    let named = named(directory).unwrap_or_default().into_iter();
    let names = links::names(named.map(|it| {
        let is_readable = machines.contains_key(&it.0);
        (it, is_readable)
    }));
    if let Err(error) = links::name(directory, &names) {
        tracing::warn!(%error, "Links to machines by their names could not all be made");
        unmade.push(error);
    }
    unmade
}

/// Every machine of a data directory as its files are now, and what is wrong with the others. A file that does not
/// answer is one of what is wrong; its machine is as it was recorded.
///
/// # Errors
/// The folder `machines` is there and cannot be read.
pub fn scan(data_dir: &Path) -> Result<(Machines, Vec<Problem>), EngineError> {
    scan_judged(data_dir, |_| Ok(()))
}

/// [`scan`] without the machines of which the judge says that they run on other files than recorded.
///
/// # Errors
/// As there.
pub fn scan_judged(
    data_dir: &Path,
    judge: impl Fn(&Machine) -> Result<(), Doubt> + Send + Sync + 'static,
) -> Result<(Machines, Vec<Problem>), EngineError> {
    of_each(data_dir, move |directory, id| {
        let mut entry = load(directory, id, None, &Roots::default());
        if let Some(Err(Doubt::Tops(why))) = entry.machine.as_deref().map(&judge) {
            entry.doubt(&directory.join(id.to_string()).join(TOPS), &why);
        }
        (entry.machine, entry.problems)
    })
}

/// Every machine of a data directory as it was recorded; those that cannot be read are left out. No image is looked at.
///
/// # Errors
/// As [`scan`].
pub fn recorded(data_dir: &Path) -> Result<Machines, EngineError> {
    let recorded =
        |directory: &Path, id| (entry::recorded(directory, id).map(Arc::new), Vec::new());
    Ok(of_each(data_dir, recorded)?.0)
}

fn of_each(
    data_dir: &Path,
    read: impl Fn(&Path, VmId) -> (Option<Arc<Machine>>, Vec<Problem>) + Send + Sync + 'static,
) -> Result<(Machines, Vec<Problem>), EngineError> {
    let directory = machines_directory(data_dir);
    let failed = |e: io::Error| directory_failed(&directory, &e);
    let ids = match machine_ids(&directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other.map_err(failed)?,
    };
    let folder = directory.clone();
    let all = held::look(move || {
        let mut all = (Machines::new(), Vec::new());
        for id in &ids {
            let (machine, problems) = read(&folder, *id);
            all.0.extend(machine.map(|m| (*id, m)));
            all.1.extend(problems);
        }
        all
    });
    all.map_err(failed)
}

/// Every machine in a folder of machines, with the name that its definition gives.
///
/// # Errors
/// The folder cannot be read.
pub(crate) fn named(directory: &Path) -> io::Result<Vec<links::Named>> {
    let ids = machine_ids(directory)?.into_iter();
    let named = |id: VmId| (id, name::name_in(&directory.join(id.to_string()), id));
    Ok(ids.map(named).collect())
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

/// Refuses a library of which a folder is a link, or one in which others than root and this process's user can exchange
/// what is recorded or linked there. One that is not there yet is none.
///
/// # Errors
/// [`EngineError`] names the folder.
pub fn require_private(data_dir: &Path) -> Result<(), EngineError> {
    let directory = machines_directory(data_dir);
    let failed = |e: io::Error| directory_failed(&directory, &e);
    let folder = match Folder::open(&directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(failed)?,
    };
    folder.require_private().map_err(failed)?;
    require_own(&folder, links::BY_NAME)?;
    for id in machine_ids(&directory).map_err(failed)? {
        let name = id.to_string();
        if require_own(&folder, &name)?
            && let Ok(machine) = folder.passing(&name)
        {
            require_own(&machine, links::DISKS)?;
        }
    }
    Ok(())
}

/// Whether a folder of that name is there, which must be no link and private. What else stands there, or cannot be looked
/// at, is told by whoever reads it.
fn require_own(above: &Folder, name: &str) -> Result<bool, EngineError> {
    let refused = |it: Foreign| Err(directory_failed(&above.path().join(name), &it.into()));
    match above.look(name) {
        Ok(Some(it)) if it.kind == FileKind::Link => refused(Foreign::Link),
        Ok(Some(it)) if it.kind == FileKind::Folder && !it.is_private() => {
            let (owner, mode) = (it.owner, it.mode);
            refused(Foreign::Shared { owner, mode })
        }
        Ok(Some(it)) => Ok(it.kind == FileKind::Folder),
        Ok(None) | Err(_) => Ok(false),
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
