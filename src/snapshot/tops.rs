//! The active files of a machine: whether those that `tops.json` names can be that, and where it is gone, damaged or not its
//! own, found again where only one file can be the active one.
//!
//! An active file is kept by no snapshot and nothing lies on it. A second one of that kind, a path in `vm.toml` that
//! was another at a cut, or a frozen file that has lost what lay on it, and nothing is concluded.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::engine::definition::{self, DEFINITION, Definition, DiskEntry, TOPS, Tops};
use crate::engine::graph::{self, Graph, Whose};
use crate::engine::names::{beside, is_named_as, is_under_top, overlays};
use crate::engine::qcow2::chain::{self, by_suffix};
use crate::engine::{At, Doubt, EngineError, EngineErrorKind, Machines, Top};
use crate::held;
use crate::id::{JobId, SnapshotId, VmId};
use crate::inventory::{Disk, Format, Machine, Snapshot, SnapshotDisk, SnapshotSet};
use crate::snapshot::care;
use crate::snapshot::chosen;
use crate::snapshot::coordinator::Coordinator;
use crate::snapshot::copies;
use crate::snapshot::known::{self, Known};
use crate::snapshot::orphans;
use crate::snapshot::saga::core::Core;
use crate::snapshot::saga::leases::{Mode, Resource};
use crate::store::State;
use crate::store::record::SETS;
use crate::text::catalog::snapshot as texts;

/// How deep our files lie at most: clones of a clone that became the active file lie below it.
const DEPTH: u8 = 8;

impl Coordinator {
    /// The active files of a machine whose `tops.json` is not there or damaged, by disk. Blocks.
    ///
    /// # Errors
    /// In words why they are not known.
    pub fn lost_tops(&self, machine: VmId) -> Result<BTreeMap<String, Top>, String> {
        Lost::of(&self.core, machine)?.tops()
    }

    /// Whether the recorded active files of a machine can be the active ones: no set keeps them, nothing of the machine
    /// lies on them, and they are not away while another file that nothing names is there. An older copy of `tops.json`,
    /// or that of another machine, is found so. Blocks.
    ///
    /// # Errors
    /// [`Doubt`].
    pub fn judge_tops(&self, machine: &Machine) -> Result<(), Doubt> {
        let data_dir = &self.core.deps.data_dir;
        judge(data_dir, machine, || {
            let state = self.core.deps.store.state();
            let known = Known::in_state(data_dir, &state);
            Judged::in_state(data_dir, machine, (known, &state)).doubt()
        })
    }

    /// Writes `tops.json` of the machine anew, if it is not there, damaged or another's, and its active files are known;
    /// gives these.
    ///
    /// # Errors
    /// In words why it was not written.
    pub async fn write_lost_tops(&self, machine: VmId) -> Result<BTreeMap<String, Top>, String> {
        let held = [(Resource::Machine(machine), Mode::Exclusive)];
        let doing = texts::TOPS_ANEW.with("machine", machine);
        let lease = self.core.leases.lease(JobId::random(), doing, &held);
        let lease = lease.map_err(|busy| self.core.busy(&busy).english())?;
        let core = Arc::clone(&self.core);
        let written = tokio::task::spawn_blocking(move || {
            // Held until it is written, whoever waits for it.
            let _lease = lease;
            // No machine comes meanwhile whose image lies on one of these files.
            let _turn = chosen::turn(&core)?;
            let lost = Lost::of(&core, machine)?;
            let tops = lost.tops()?;
            let written = core
                .deps
                .compute
                .restore_tops(machine, &lost.recorded(&tops));
            written.map_err(|e| {
                if e.kind == EngineErrorKind::Broken {
                    core.break_down(e.to_string());
                }
                e.to_string()
            })?;
            Ok(tops)
        });
        written.await.map_err(|e| e.to_string())?
    }
}

/// Judges active files by the records of sets, for whoever serves no data directory.
pub struct RecordedSets {
    data_dir: PathBuf,
    known: Known,
    /// What the database tells, if it is open.
    state: Option<Arc<State>>,
}

impl RecordedSets {
    /// What the records of a data directory tell now. Blocks.
    #[must_use]
    pub fn of(data_dir: &Path) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            known: Known::recorded(data_dir),
            state: None,
        }
    }

    /// [`RecordedSets::of`], with what a database tells that is open. Blocks.
    #[must_use]
    pub fn with(data_dir: &Path, state: Arc<State>) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            known: Known::in_state(data_dir, &state),
            state: Some(state),
        }
    }

    /// [`Coordinator::judge_tops`]. Blocks.
    ///
    /// # Errors
    /// [`Doubt`].
    pub fn judge_tops(&self, machine: &Machine) -> Result<(), Doubt> {
        judge(&self.data_dir, machine, || self.judged(machine).doubt())
    }

    /// [`RecordedSets::judge_tops`] by what the names of the files and the records of sets tell. No image is looked at.
    ///
    /// # Errors
    /// [`Doubt`].
    pub fn judge_names(&self, machine: &Machine) -> Result<(), Doubt> {
        judge(&self.data_dir, machine, || {
            let judged = self.judged(machine);
            judged.first(|entry, disk| judged.by_name(entry, disk))
        })
    }

    fn judged<'a>(&'a self, machine: &'a Machine) -> Judged<'a> {
        let known = self.known.clone();
        match &self.state {
            Some(state) => Judged::in_state(&self.data_dir, machine, (known, state)),
            None => Judged::new(&self.data_dir, machine, known),
        }
    }
}

fn judge(
    data_dir: &Path,
    machine: &Machine,
    doubt: impl FnOnce() -> Option<String>,
) -> Result<(), Doubt> {
    let is_open = || {
        let open = care::in_flight(data_dir);
        open.is_ok_and(|open| open.machines.contains(&machine.id))
    };
    // What an operation does with the files of the machine is judged after it has ended.
    if is_open() {
        return Err(Doubt::Open);
    }
    match doubt() {
        None => Ok(()),
        Some(_) if is_open() => Err(Doubt::Open),
        Some(why) => Err(Doubt::Tops(why)),
    }
}

/// A machine with the active files that its `tops.json` names, and what is known beside it.
struct Judged<'a> {
    data_dir: &'a Path,
    machine: &'a Machine,
    known: Known,
    /// What sets keep of the machine, and what lies under that, each with the name of a set.
    kept: BTreeMap<PathBuf, String>,
    /// What nothing needs any more and could not be removed.
    left: BTreeSet<PathBuf>,
    /// The snapshot that the machine stands on, as far as that is known.
    last: Option<SnapshotId>,
}

impl<'a> Judged<'a> {
    fn new(data_dir: &'a Path, machine: &'a Machine, known: Known) -> Self {
        let mut kept = BTreeMap::new();
        for set in known.sets() {
            let own = set.members.iter().filter(|m| m.machine == machine.id);
            for disk in own.flat_map(|m| &m.disks).filter(|d| graph::is_file(d)) {
                let below = disk.sealed.iter().map(|s| &s.file);
                kept.extend(below.map(|file| (file.clone(), set.name.clone())));
                kept.insert(disk.file.clone(), set.name.clone());
            }
        }
        Self {
            data_dir,
            machine,
            known,
            kept,
            left: BTreeSet::new(),
            last: None,
        }
    }

    /// With what the database tells.
    fn in_state(data_dir: &'a Path, machine: &'a Machine, (known, state): (Known, &State)) -> Self {
        Self {
            left: left_in(state),
            last: state.position(machine.id).parent,
            ..Self::new(data_dir, machine, known)
        }
    }

    /// In words, why a disk cannot run on what is recorded.
    fn doubt(&self) -> Option<String> {
        self.first(|entry, disk| {
            let by_name = self.by_name(entry, disk);
            by_name.or_else(|| self.by_files(entry, disk))
        })
    }

    /// The first disk that this has something against.
    fn first(&self, judge: impl Fn(&DiskEntry, &Disk) -> Option<String>) -> Option<String> {
        let defined = Definition::load(&self.machine.definition, self.machine.id).ok()?;
        let mut disks = defined.disk.iter().filter_map(|entry| {
            let disk = self.machine.disks.iter().find(|d| d.id == entry.id)?;
            let why = judge(entry, disk)?;
            let top = disk.file.display();
            Some(format!("disk {} is to run on {top}, {why}", disk.id))
        });
        disks.next()
    }

    /// The image as it was imported.
    fn image<'b>(&'b self, entry: &'b DiskEntry) -> &'b Path {
        let image = self.machine.images.get(&entry.id);
        image.map_or(entry.path.as_path(), |i| i.file.as_path())
    }

    /// Whether the active file is that image, and whether it is one of ours.
    fn kind(&self, entry: &DiskEntry, top: &Path) -> (bool, bool) {
        let is_image = top == self.image(entry) || top == entry.path;
        (is_image, graph::is_ours(&self.data_dir.join(SETS), top))
    }

    /// What the name of the active file tells. No image is looked at.
    fn by_name(&self, entry: &DiskEntry, disk: &Disk) -> Option<String> {
        let top = disk.file.as_path();
        let (is_image, is_ours) = self.kind(entry, top);
        if let Some(set) = self.keeper(top, is_image) {
            return Some(format!("which snapshot set `{set}` keeps"));
        }
        if self.left.contains(top) {
            return Some("which a deleted snapshot set or an apply has left".to_owned());
        }
        if is_ours && !is_image && !is_named_as(self.machine.id, &entry.id, top) {
            return Some("which was made for another machine or disk".to_owned());
        }
        if !is_ours && !is_image {
            return Some(match self.imported_with(top) {
                Some(other) => format!("which machine {other} was imported with"),
                None => "which is neither its image nor a file of this data directory".to_owned(),
            });
        }
        None
    }

    /// What the files tell that are there.
    fn by_files(&self, entry: &DiskEntry, disk: &Disk) -> Option<String> {
        let top = disk.file.as_path();
        let (is_image, is_ours) = self.kind(entry, top);
        if !is_ours && !is_image {
            return None;
        }
        let image = self.image(entry);
        let unnamed = self.unnamed(entry, top);
        if is_ours && is_gone(top) {
            let other = unnamed.first().map(PathBuf::as_path);
            let whole = || !is_gone(image) && !self.kept.contains_key(image);
            let other = other.or_else(|| whole().then_some(image))?;
            let other = other.display();
            return Some(format!("which is not there, and nothing names {other}"));
        }
        if let Some(above) = unnamed.iter().find(|file| lies_on(file, top)) {
            let above = above.display();
            return Some(format!("on which {above} lies, which nothing names"));
        }
        // After an apply the active file is another one, and the old one may be there for somebody else.
        let last = id(self.last(&entry.id)?);
        let on_last = |file: &Path| last.is_some() && self.stands_on(&entry.id, file) == last;
        let other = unnamed.iter().find(|file| on_last(file))?;
        let other = other.display();
        let why = format!(
            "which does not lie on what the machine stands on, as {other} does, which nothing names"
        );
        // On what it lies that does not answer is not known.
        (!on_last(top) && !is_silent_below(top)).then_some(why)
    }

    /// What the snapshot that the machine stands on keeps of the disk, where the active file lies on that.
    fn last(&self, disk: &str) -> Option<&Path> {
        let snapshot = self.known.members().find(|m| Some(m.id) == self.last)?;
        let mut disks = snapshot.disks.iter().filter(|d| is_under_top(d));
        let kept = disks.find(|d| d.id == disk)?;
        Some(&kept.file)
    }

    /// The first file under this one that a snapshot of the disk has captured.
    fn stands_on(&self, disk: &str, file: &Path) -> Option<(u64, u64)> {
        let own = self
            .known
            .members()
            .filter(|m| m.machine == self.machine.id);
        let captured = own.flat_map(|m| &m.disks).filter(|d| d.id == disk);
        let captured: BTreeSet<_> = captured.filter_map(|d| id(&d.file)).collect();
        let format = by_suffix(file).unwrap_or(Format::Raw);
        let (layers, _) = chain::readable(file, format);
        let mut below = layers.iter().skip(1).map(|l| l.id);
        below.find(|id| captured.contains(id))
    }

    /// The set that keeps the file, or needs it under one that it keeps. The image of the machine may be what a set of
    /// another one lies on.
    fn keeper(&self, file: &Path, is_image: bool) -> Option<&str> {
        if let Some(own) = self.kept.get(file) {
            return Some(own);
        }
        let mut sets = self.known.sets().filter(|set| {
            let others = set.members.iter().filter(|m| m.machine != self.machine.id);
            let mut disks = others.flat_map(|m| &m.disks).filter(|d| graph::is_file(d));
            !is_image && disks.any(|kept| kept.file == file)
        });
        sets.next().map(|set| set.name.as_str())
    }

    /// The files that carry the name of the disk and that neither a set nor `tops.json` names.
    fn unnamed(&self, entry: &DiskEntry, top: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let named = BTreeSet::from([top.to_owned()]);
        let own = self.machine.id.to_string();
        let sets = self.data_dir.join(SETS);
        let sets = held::ask(&sets, || fs::read_dir(&sets));
        for set in sets.into_iter().flatten().flatten() {
            orphans::walk(&set.path().join(&own), DEPTH, false, &named, &mut found);
        }
        for folder in beside(&entry.path) {
            orphans::walk(&folder, DEPTH, false, &named, &mut found);
        }
        found.retain(|file| {
            is_named_as(self.machine.id, &entry.id, file)
                && by_suffix(file).is_some()
                && !self.left.contains(file)
                && !self.kept.contains_key(file)
        });
        found
    }

    /// The machine whose definition names the file.
    fn imported_with(&self, file: &Path) -> Option<String> {
        let machines = self.data_dir.join(definition::MACHINES);
        let ids = held::ask(&machines, || fs::read_dir(&machines));
        let ids = ids.into_iter().flatten().flatten();
        let ids = ids.filter_map(|it| it.file_name().to_str()?.parse::<VmId>().ok());
        let mut others = ids.filter(|id| *id != self.machine.id).filter_map(|id| {
            let other = machines.join(id.to_string()).join(DEFINITION);
            Definition::load(&other, id).ok()
        });
        let other = others.find(|other| other.disk.iter().any(|d| d.path == file));
        other.map(|other| other.name)
    }
}

/// Whether one file is under the other, as far as its chain can be read.
fn lies_on(file: &Path, below: &Path) -> bool {
    let id = id(below);
    let (layers, _) = chain::readable(file, by_suffix(file).unwrap_or(Format::Raw));
    layers.iter().any(|l| l.file == below || Some(l.id) == id)
}

/// Whether it is not known what lies under the file, as that does not answer.
fn is_silent_below(file: &Path) -> bool {
    let (_, unread) = chain::readable(file, by_suffix(file).unwrap_or(Format::Raw));
    unread.is_some_and(|file| held::is_silent(&file))
}

/// Device and inode.
pub(super) fn id(file: &Path) -> Option<(u64, u64)> {
    let meta = held::metadata(file).ok()?;
    Some((meta.dev(), meta.ino()))
}

pub(super) fn is_gone(file: &Path) -> bool {
    held::metadata(file).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound)
}

/// The files that deleted sets have left.
fn left(core: &Core) -> BTreeSet<PathBuf> {
    left_in(&core.deps.store.state())
}

fn left_in(state: &State) -> BTreeSet<PathBuf> {
    state.leftovers.values().map(|l| l.file.clone()).collect()
}

/// A machine whose active files are looked for, and what is known of it.
pub(super) struct Lost<'a> {
    core: &'a Core,
    machine: VmId,
    folder: PathBuf,
    definition: Definition,
    known: Known,
}

impl<'a> Lost<'a> {
    /// Of a machine without a `tops.json` that can be relied on.
    fn of(core: &'a Core, machine: VmId) -> Result<Self, String> {
        let lost = Self::known(core, machine)?;
        match lost.folder.join(TOPS).symlink_metadata() {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.to_string()),
            _ if lost.is_lost() => Ok(lost),
            _ => Err(format!("{TOPS} is there")),
        }
    }

    /// Of any machine.
    pub(super) fn known(core: &'a Core, machine: VmId) -> Result<Self, String> {
        let folder = core.deps.data_dir.join(definition::MACHINES);
        let folder = folder.join(machine.to_string());
        let definition = Definition::load(&folder.join(DEFINITION), machine);
        Ok(Self {
            core,
            machine,
            folder,
            definition: definition.map_err(|text| text.english())?,
            known: Known::of(core).whole().map_err(|e| e.to_string())?,
        })
    }

    /// Whether `tops.json` is not there, damaged or not its own.
    pub(super) fn is_lost(&self) -> bool {
        let file = self.folder.join(TOPS);
        let is_away = || {
            let found = file.symlink_metadata();
            found.is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound)
        };
        let is_doubtful = || self.core.deps.compute.is_doubtful(self.machine);
        is_away() || definition::is_damaged(&file) || is_doubtful()
    }

    /// # Errors
    /// An operation on the machine is at work, or has died; or it may be one.
    pub(super) fn require_at_rest(&self) -> Result<(), String> {
        let open = care::journals(self.core).map_err(|e| e.to_string())?;
        let mut open = open.into_iter();
        // One that cannot be understood may be of any machine.
        let own = open.find(|(_, told)| match told {
            Ok(story) => story.machines().contains(&self.machine),
            Err(_) => true,
        });
        own.map_or(Ok(()), |(journal, _)| {
            Err(format!(
                "an operation has not ended ({}): `groupshot rescue --data-dir {}` ends it",
                journal.display(),
                self.core.deps.data_dir.display()
            ))
        })
    }

    fn tops(&self) -> Result<BTreeMap<String, Top>, String> {
        self.require_at_rest()?;
        let mut tops = BTreeMap::new();
        for disk in &self.definition.disk {
            tops.insert(disk.id.clone(), self.found_top(disk)?);
        }
        Ok(tops)
    }

    /// The one file that can be the active one of the disk.
    ///
    /// # Errors
    /// In words why it is not known, and what to do.
    pub(super) fn found_top(&self, disk: &DiskEntry) -> Result<Top, String> {
        let (id, data_dir) = (&disk.id, self.core.deps.data_dir.display());
        // Without these nobody can name one of them.
        let candidates = self.candidates(disk);
        let candidates = candidates.map_err(|why| format!("disk {id}: {why}"))?;
        self.top(disk, candidates).map_err(|why| {
            format!(
                "disk {id}: {why}; whoever knows the file names it, with no server running: `groupshot vm set {} --active {id}=FILE --data-dir {data_dir}`",
                self.machine
            )
        })
    }

    /// Where the path of the definition leads is not recorded until a snapshot is taken.
    pub(super) fn recorded(&self, tops: &BTreeMap<String, Top>) -> BTreeMap<String, Top> {
        let mut tops = tops.clone();
        let disks = &self.definition.disk;
        tops.retain(|id, top| disks.iter().all(|d| d.id != *id || d.path != top.file));
        tops
    }

    /// The one of these that can be the active one of the disk.
    fn top(&self, disk: &DiskEntry, candidates: Vec<(PathBuf, Format)>) -> Result<Top, String> {
        self.require_same_path(disk)?;
        let kept = self.kept();
        let at = At::new(&self.definition.name, &disk.id);
        let graph = self.graph(&at, &candidates).map_err(|e| e.to_string())?;
        let is_kept = |file: &Path| kept.iter().any(|(k, _)| graph.is_same(k, file));
        let mut left = candidates;
        let given_up = self::left(self.core);
        left.retain(|(file, _)| {
            graph.children(file).is_empty() && !is_kept(file) && !given_up.contains(file)
        });
        let (file, format) = only_one(left)?;
        self.require_grown(disk, &file, &graph)?;
        Ok(Top { file, format })
    }

    /// The image, and every file of ours that carries the name of the disk. The server makes none without a suffix.
    pub(super) fn candidates(&self, disk: &DiskEntry) -> Result<Vec<(PathBuf, Format)>, String> {
        let image = held::metadata(&disk.path).ok().filter(Metadata::is_file);
        image.ok_or_else(|| format!("{} is not there", disk.path.display()))?;
        let mut found = vec![(disk.path.clone(), disk.format)];
        let mut folders = beside(&disk.path);
        folders.insert(self.core.sets());
        let mut files = Vec::new();
        for folder in folders {
            orphans::walk(&folder, DEPTH, false, &BTreeSet::new(), &mut files);
        }
        let own = files
            .into_iter()
            .filter(|f| is_named_as(self.machine, &disk.id, f));
        for file in own {
            found.extend(by_suffix(&file).map(|format| (file, format)));
        }
        Ok(found)
    }

    /// What lies on what: the candidates, and all of [`Lost::lay`].
    pub(super) fn graph(
        &self,
        at: &At,
        candidates: &[(PathBuf, Format)],
    ) -> Result<Graph, EngineError> {
        let mut graph = Graph::read(at, candidates.iter().cloned(), [])?;
        self.lay(at, &mut graph)?;
        Ok(graph)
    }

    /// Adds what snapshots keep, what machines run on or may run on, and what was set aside of this one. What of the first
    /// two cannot be read counts as lying on all that it is known to have lain on.
    ///
    /// # Errors
    /// Something cannot be seen, and may lie on any file; what can be is added.
    pub(super) fn lay(&self, at: &At, graph: &mut Graph) -> Result<(), EngineError> {
        let compute = &self.core.deps.compute;
        let machines = compute.machines();
        let mut seen = Ok(());
        for member in self.known.members() {
            for disk in member.disks.iter().filter(|d| self.in_files(d)) {
                let whose = Whose {
                    machine: machines.get(&member.machine).map(Arc::as_ref),
                    disk: &disk.id,
                    sealed: &disk.sealed,
                };
                let file = (disk.file.as_path(), disk.format);
                seen = seen.and(graph.lay(at, whose, file, || disk.known_below()));
            }
        }
        for machine in machines.values() {
            for disk in &machine.disks {
                let whose = Whose {
                    machine: Some(machine),
                    disk: &disk.id,
                    sealed: &[],
                };
                let below = || compute.below(machine.id, &disk.id);
                seen = seen.and(graph.lay(at, whose, (&disk.file, disk.format), below));
            }
        }
        seen = seen.and(self.lay_untold(at, graph, &machines));
        for file in overlays(&self.aside(), self.machine) {
            seen = seen.and(graph.follow_if_there(at, [(file, Format::Qcow2)]));
        }
        seen
    }

    /// Adds what the other machines may run on whose active files nobody tells: what is recorded of them, which may be
    /// older than they are, and each file that may be one.
    ///
    /// # Errors
    /// What such a machine needs is neither recorded nor seen.
    fn lay_untold(
        &self,
        at: &At,
        graph: &mut Graph,
        machines: &Machines,
    ) -> Result<(), EngineError> {
        let all = self.core.deps.compute.recorded()?;
        let untold = all.iter().map(|it| it.machine);
        let untold = untold.filter(|id| *id != self.machine && !machines.contains_key(id));
        let untold: Vec<_> = untold.collect();
        let recorded = known::unread_of(all, machines, Some(self.machine));
        for it in recorded.iter().flatten() {
            graph.recorded(&it.top.file, it.top.format, &it.below);
        }
        let mut is_seen = true;
        for id in untold {
            let other = Self::known(self.core, id);
            let disks = other.iter().flat_map(|other| &other.definition.disk);
            let files = disks.map(|disk| other.as_ref().ok()?.candidates(disk).ok());
            let files: Option<Vec<_>> = files.collect();
            is_seen &= other.is_ok() && files.is_some();
            for (file, format) in files.into_iter().flatten().flatten() {
                is_seen &= graph.follow(at, file, format).is_ok();
            }
        }
        match is_seen {
            true => Ok(()),
            false => recorded.map(drop),
        }
    }

    /// Every file that a snapshot names.
    fn kept(&self) -> Vec<(PathBuf, Format)> {
        let disks = self.known.disks().filter(|d| self.in_files(d));
        disks.map(|d| (d.file.clone(), d.format)).collect()
    }

    fn in_files(&self, disk: &SnapshotDisk) -> bool {
        self.core.deps.storage.in_files(disk)
    }

    /// Where the path was another at a cut, the active file may lie where nobody looks for it.
    fn require_same_path(&self, disk: &DiskEntry) -> Result<(), String> {
        for snapshot in self.snapshots() {
            let copy = match copies::read(snapshot) {
                Err(copy) if copy.gone && lies_on_image(snapshot, disk) => continue,
                copy => copy.map_err(|copy| copy.text.english())?,
            };
            let was = Definition::parse(&copy, &snapshot.definition, self.machine);
            let was = was.map_err(|text| text.english())?.disk;
            if was.iter().any(|d| d.id == disk.id && *d != *disk) {
                let file = self.folder.join(DEFINITION);
                return Err(format!(
                    "{} names another image than at a cut",
                    file.display()
                ));
            }
        }
        Ok(())
    }

    pub(super) fn snapshots(&self) -> impl Iterator<Item = &Snapshot> {
        let members = self.known.members();
        members.filter(|m| m.machine == self.machine)
    }

    pub(super) fn known_sets(&self) -> impl Iterator<Item = &Arc<SnapshotSet>> {
        self.known.sets()
    }

    pub(super) const fn core(&self) -> &Core {
        self.core
    }

    pub(super) const fn machine(&self) -> VmId {
        self.machine
    }

    pub(super) fn name(&self) -> &str {
        &self.definition.name
    }

    pub(super) fn sets(&self) -> PathBuf {
        self.core.sets()
    }

    /// Where files that nothing names are moved to.
    pub(super) fn aside(&self) -> PathBuf {
        self.core.deps.data_dir.join(orphans::ASIDE)
    }

    /// Whether a deleted set has left the file.
    pub(super) fn is_left(&self, file: &Path, graph: &Graph) -> bool {
        left(self.core).iter().any(|it| graph.is_same(it, file))
    }

    pub(super) fn disks(&self) -> &[DiskEntry] {
        &self.definition.disk
    }

    pub(super) fn disk(&self, id: &str) -> Option<&DiskEntry> {
        self.definition.disk.iter().find(|d| d.id == id)
    }

    pub(super) fn overlay_ok(&self) -> bool {
        self.definition.overlay_ok()
    }

    /// The file that is recorded as the active one of the disk, whatever that is worth.
    pub(super) fn recorded_file(&self, disk: &DiskEntry) -> Option<PathBuf> {
        let stored = Tops::load(&self.folder.join(TOPS)).ok()?;
        let top = stored.tops.get(&disk.id);
        Some(top.map_or_else(|| disk.path.clone(), |top| top.file.clone()))
    }

    /// What a machine wrote since its last overlay capture, or apply of one, lies on the file of that snapshot.
    fn require_grown(&self, disk: &DiskEntry, file: &Path, graph: &Graph) -> Result<(), String> {
        let ours = graph::is_ours(&self.core.sets(), file);
        let mode = held::metadata(file)
            .map_err(|e| e.to_string())?
            .permissions()
            .mode();
        if ours && mode & 0o222 == 0 {
            let shown = file.display();
            return Err(format!(
                "what lay on {shown} is gone: nobody may write that file, as it is with those that sets keep; if somebody \
                 has closed the active file itself, `chmod u+w {shown}` opens it again"
            ));
        }
        let state = self.core.deps.store.state();
        let position = state.position(self.machine);
        let Some((_, snapshot)) = position.parent.and_then(|id| state.snapshot(id)) else {
            return Ok(());
        };
        let on = |kept: &SnapshotDisk| {
            graph
                .chain(file)
                .iter()
                .any(|n| graph.is_same(&n.file, &kept.file))
        };
        let mut of_overlay = snapshot
            .disks
            .iter()
            .filter(|d| d.id == disk.id && is_under_top(d));
        match of_overlay.all(on) {
            true => Ok(()),
            false => Err(format!(
                "{} does not lie on the last snapshot",
                file.display()
            )),
        }
    }
}

/// Whether the record of the snapshot tells that the image of the disk was this one at its cut.
fn lies_on_image(snapshot: &Snapshot, disk: &DiskEntry) -> bool {
    let mut disks = snapshot.disks.iter().filter(|d| d.id == disk.id);
    disks.any(|kept| {
        let sealed = kept.sealed.iter().map(|s| &s.file);
        let mut files = sealed.chain([&kept.file]);
        files
            .any(|file| *file == disk.path || id(file).is_some_and(|it| id(&disk.path) == Some(it)))
    })
}

/// # Errors
/// In words, if there is none or more than one.
fn only_one(mut left: Vec<(PathBuf, Format)>) -> Result<(PathBuf, Format), String> {
    match (left.pop(), left.as_slice()) {
        (None, _) => Err("no file is there that could be the active one".to_owned()),
        (Some(one), []) => Ok(one),
        (Some((one, _)), others) => {
            let all = others.iter().map(|(file, _)| file).chain([&one]);
            let all: Vec<_> = all.map(|file| file.display().to_string()).collect();
            Err(format!(
                "more than one file could be the active one: {}",
                all.join(", ")
            ))
        }
    }
}
