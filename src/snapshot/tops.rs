//! The active files of a machine whose `tops.json` is gone or damaged: found again where only one file can be the active one.
//!
//! An active file is kept by no snapshot and nothing lies on it. A second one of that kind, a path in `vm.toml` that
//! was another at a cut, or a frozen file that has lost what lay on it, and nothing is concluded.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::engine::definition::{self, DEFINITION, Definition, DiskEntry, TOPS};
use crate::engine::failure::At;
use crate::engine::graph::{self, Graph};
use crate::engine::qcow2::chain::by_suffix;
use crate::engine::{EngineError, EngineErrorKind, Top};
use crate::held;
use crate::id::{JobId, VmId};
use crate::inventory::{Format, Snapshot, SnapshotDisk};
use crate::snapshot::care;
use crate::snapshot::coordinator::Coordinator;
use crate::snapshot::core::Core;
use crate::snapshot::known::Known;
use crate::snapshot::members::{Mode, Resource};
use crate::snapshot::orphans;
use crate::text::catalog::snapshot as texts;

/// How deep our files lie at most: clones of a clone that became the active file lie below it.
const DEPTH: u8 = 8;
/// As records name the driver that leaves the captured file where it was.
const OVERLAY: &str = "overlay";

impl Coordinator {
    /// The active files of a machine whose `tops.json` is not there or damaged, by disk. Blocks.
    ///
    /// # Errors
    /// In words why they are not known.
    pub fn lost_tops(&self, machine: VmId) -> Result<BTreeMap<String, Top>, String> {
        Lost::of(&self.core, machine)?.tops()
    }

    /// Writes `tops.json` of the machine anew, if it is not there or damaged and its active files are known;
    /// gives these.
    ///
    /// # Errors
    /// In words why it was not written.
    pub async fn write_lost_tops(&self, machine: VmId) -> Result<BTreeMap<String, Top>, String> {
        let held = [(Resource::Machine(machine), Mode::Exclusive)];
        let doing = texts::TOPS_ANEW.with("machine", machine);
        let lease = self.core.members.lease(JobId::random(), doing, &held);
        let lease = lease.map_err(|busy| self.core.busy(&busy).render())?;
        let core = Arc::clone(&self.core);
        let written = tokio::task::spawn_blocking(move || {
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
        let written = written.await.map_err(|e| e.to_string())?;
        drop(lease);
        written
    }
}

/// A machine without a `tops.json` that can be read, and what is known of it.
struct Lost<'a> {
    core: &'a Core,
    machine: VmId,
    folder: PathBuf,
    definition: Definition,
    known: Known,
}

impl<'a> Lost<'a> {
    fn of(core: &'a Core, machine: VmId) -> Result<Self, String> {
        let folder = core.deps.data_dir.join(definition::MACHINES);
        let folder = folder.join(machine.to_string());
        match folder.join(TOPS).symlink_metadata() {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e.to_string()),
            Ok(_) if definition::is_damaged(&folder.join(TOPS)) => {}
            Ok(_) => return Err(format!("{TOPS} is there")),
        }
        let definition = Definition::load(&folder.join(DEFINITION), machine);
        Ok(Self {
            core,
            machine,
            folder,
            definition: definition.map_err(|text| text.render())?,
            known: Known::of(core).whole().map_err(|e| e.to_string())?,
        })
    }

    fn tops(&self) -> Result<BTreeMap<String, Top>, String> {
        let open = care::journals(self.core).map_err(|e| e.to_string())?;
        if !open.is_empty() {
            return Err("an operation has not ended".to_owned());
        }
        let mut tops = BTreeMap::new();
        for disk in &self.definition.disk {
            let top = self.top(disk);
            let top = top.map_err(|why| format!("disk {}: {why}", disk.id))?;
            tops.insert(disk.id.clone(), top);
        }
        Ok(tops)
    }

    /// Where the path of the definition leads is not recorded until a snapshot is taken.
    fn recorded(&self, tops: &BTreeMap<String, Top>) -> BTreeMap<String, Top> {
        let mut tops = tops.clone();
        let disks = &self.definition.disk;
        tops.retain(|id, top| disks.iter().all(|d| d.id != *id || d.path != top.file));
        tops
    }

    /// The one file that can be the active one of the disk.
    fn top(&self, disk: &DiskEntry) -> Result<Top, String> {
        self.require_same_path(disk)?;
        let candidates = self.candidates(disk)?;
        let kept = self.kept();
        let at = At::new(&self.definition.name, &disk.id);
        let graph = self.graph(&at, &candidates).map_err(|e| e.to_string())?;
        let is_kept = |file: &Path| kept.iter().any(|(k, _)| graph.is_same(k, file));
        let mut left = candidates;
        left.retain(|(file, _)| graph.children(file).is_empty() && !is_kept(file));
        let (file, format) = only_one(left)?;
        self.require_grown(disk, &file, &graph)?;
        Ok(Top { file, format })
    }

    /// The image, and every file of ours that carries the name of the disk.
    fn candidates(&self, disk: &DiskEntry) -> Result<Vec<(PathBuf, Format)>, String> {
        let image = held::metadata(&disk.path).ok().filter(Metadata::is_file);
        image.ok_or_else(|| format!("{} is not there", disk.path.display()))?;
        let mut found = vec![(disk.path.clone(), disk.format)];
        let mut folders = orphans::beside(&disk.path);
        folders.insert(self.core.sets());
        let mut files = Vec::new();
        for folder in folders {
            orphans::walk(&folder, DEPTH, false, &BTreeSet::new(), &mut files);
        }
        let own = files.into_iter().filter(|f| self.is_named_as(disk, f));
        for file in own {
            let format = by_suffix(&file).ok_or_else(|| format!("what is {}?", file.display()))?;
            found.push((file, format));
        }
        Ok(found)
    }

    /// `<machine>/<disk>[-<job>].*` or `<machine>-<disk>[-<job>].*`.
    fn is_named_as(&self, disk: &DiskEntry, file: &Path) -> bool {
        let machine = self.machine.to_string();
        let stem = file.file_stem().and_then(OsStr::to_str).unwrap_or_default();
        let folder = file.parent().and_then(Path::file_name);
        let clone = stem
            .strip_prefix(&machine)
            .and_then(|s| s.strip_prefix('-'));
        let own = (folder == Some(machine.as_ref())).then_some(stem);
        let job = |rest: &str| {
            rest.strip_prefix('-')
                .is_some_and(|j| j.parse::<JobId>().is_ok())
        };
        let mut rests = clone.into_iter().chain(own);
        rests.any(|name| {
            let rest = name.strip_prefix(disk.id.as_str());
            rest.is_some_and(|rest| rest.is_empty() || job(rest))
        })
    }

    /// What lies on what: the candidates, what snapshots keep, and what machines run on. What of the latter two cannot
    /// be read counts as lying on all that it is known to have lain on.
    fn graph(&self, at: &At, candidates: &[(PathBuf, Format)]) -> Result<Graph, EngineError> {
        let mut graph = Graph::read(at, candidates.iter().cloned(), [])?;
        for disk in self.known.disks().filter(|d| graph::is_file(d)) {
            graph.follow_known(at, &disk.file, disk.format, || disk.known_below())?;
        }
        let compute = &self.core.deps.compute;
        for machine in compute.machines().values() {
            for disk in &machine.disks {
                let below = || compute.below(machine.id, &disk.id);
                graph.follow_known(at, &disk.file, disk.format, below)?;
            }
        }
        Ok(graph)
    }

    /// Every file that a snapshot names.
    fn kept(&self) -> Vec<(PathBuf, Format)> {
        let disks = self.known.disks().filter(|d| graph::is_file(d));
        disks.map(|d| (d.file.clone(), d.format)).collect()
    }

    /// Where the path was another at a cut, the active file may lie where nobody looks for it.
    fn require_same_path(&self, disk: &DiskEntry) -> Result<(), String> {
        for snapshot in self.snapshots() {
            let was = Definition::load(&snapshot.definition, self.machine);
            let was = was.map_err(|text| text.render())?.disk;
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

    fn snapshots(&self) -> impl Iterator<Item = &Snapshot> {
        let members = self.known.members();
        members.filter(|m| m.machine == self.machine)
    }

    /// What a machine wrote since its last overlay capture, or apply of one, lies on the file of that snapshot.
    fn require_grown(&self, disk: &DiskEntry, file: &Path, graph: &Graph) -> Result<(), String> {
        let ours = graph::is_ours(&self.core.sets(), file);
        let mode = held::metadata(file)
            .map_err(|e| e.to_string())?
            .permissions()
            .mode();
        if ours && mode & 0o222 == 0 {
            return Err(format!("what lay on {} is gone", file.display()));
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
            .filter(|d| d.id == disk.id && d.driver == OVERLAY);
        match of_overlay.all(on) {
            true => Ok(()),
            false => Err(format!(
                "{} does not lie on the last snapshot",
                file.display()
            )),
        }
    }
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
