//! Who names which disk file now, and what follows from that for the layers of a destroyed snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::engine::definition::MACHINES;
use crate::engine::failure::At;
use crate::engine::graph::{self, Graph, Node, Whose, is_clone, is_file, is_ours};
use crate::engine::merge::Inodes;
use crate::engine::qcow2::chain::Roots;
use crate::engine::{EngineError, EngineErrorKind, image, merge};
use crate::held::{self, Foreign, Identity, Origin};
use crate::id::{JobId, SetId, SnapshotId, VmId};
use crate::inventory::{Format, Image, Machine, Seal, Sealed};
use crate::snapshot::care::ASIDE;
use crate::snapshot::damage;
use crate::snapshot::destroy::{Ended, Layer, Member, Merge};
use crate::snapshot::forgotten;
use crate::snapshot::known::{self, Known};
use crate::snapshot::saga::core::Core;
use crate::text::Text;
use crate::text::catalog::snapshot as texts;

/// Looks that end at a missing file before it counts as missing.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(20);
/// Characters of a GUID.
const GUID: usize = 36;

/// A name of a disk file.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub(super) machine: VmId,
    pub(super) machine_name: String,
    pub(super) disk: String,
    pub(super) file: PathBuf,
    pub(super) format: Format,
    /// The snapshot that keeps it; `None` for the active file of the machine.
    pub(super) by: Option<(SetId, SnapshotId)>,
}

impl Named {
    /// That what stands there is not what was imported: then nothing is told of what it holds.
    fn refusal(&self, machine: &Machine) -> Option<EngineError> {
        let at = At::new(&self.machine_name, &self.disk);
        let (top, roots) = ((self.file.as_path(), self.format), Roots::default());
        image::open_accepted(&at, Some(machine), &self.disk, top, (&roots, None)).err()
    }
}

/// The files as they are at one moment.
pub(super) struct Survey {
    core: Arc<Core>,
    member: Arc<Member>,
    /// Whatever is known to be kept.
    known: Known,
    pub(super) graph: Graph,
    pub(super) named: Vec<Named>,
    /// Files of the machine that nothing here names: its definition may have lost a disk, or be away. One of them may
    /// be an active file.
    strangers: BTreeSet<PathBuf>,
    /// One of them that cannot be read: it may lie on any file of the machine.
    unreadable: Option<PathBuf>,
    /// The folder of a forgotten set of the machine: any file of it may be what that set kept.
    forgotten: Option<PathBuf>,
    /// What our own merges have changed; it is sealed again when they are done.
    touched: BTreeSet<PathBuf>,
}

impl Survey {
    /// Looks, without the places that do not answer: what others have there counts as lying on all that it lay on.
    ///
    /// # Errors
    /// Something that may lie on these files cannot be seen.
    pub(super) fn take(core: &Arc<Core>, member: &Member) -> Result<Self, EngineError> {
        let (shared, member) = (Arc::clone(core), Arc::new(member.clone()));
        let taken = held::look(move || Self::settled(&shared, &member));
        taken.map_err(|e| unseen(&e))?
    }

    /// Files of other machines may go or change while we look, by their own cleaning: what is missing is
    /// missing only if it is so every time, and other trouble is trouble if it is the same twice.
    ///
    /// # Errors
    /// Something that may lie on these files cannot be seen.
    #[expect(
        clippy::disallowed_methods,
        reason = "on a blocking thread, for milliseconds; the cleaning of another machine tells nobody"
    )]
    fn settled(core: &Arc<Core>, member: &Arc<Member>) -> Result<Self, EngineError> {
        let (mut left, mut last) = (ATTEMPTS, None);
        loop {
            match Self::look(core, member, false) {
                Err(e)
                    if left > 0
                        && (e.kind == EngineErrorKind::Missing || last.as_ref() != Some(&e)) =>
                {
                    (left, last) = (left - 1, Some(e));
                    thread::sleep(PAUSE);
                }
                // What others cannot be seen to lie on may be known.
                Err(_) => return Self::look(core, member, true),
                seen => return seen,
            }
        }
    }

    /// With `by_record` files of other machines that cannot be read count as lying on all that they lay on.
    fn look(core: &Arc<Core>, member: &Arc<Member>, by_record: bool) -> Result<Self, EngineError> {
        let machines = core.deps.compute.machines();
        if !machines.contains_key(&member.machine) {
            let folder = core.deps.data_dir.join(MACHINES);
            match fs::symlink_metadata(folder.join(member.machine.to_string())) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                _ => {
                    return Err(EngineError {
                        kind: EngineErrorKind::Failed,
                        text: texts::MEMBER_UNREADABLE.with("machine", &member.name),
                    });
                }
            }
        }
        let mut named = Vec::new();
        for machine in machines.values() {
            named.extend(machine.disks.iter().map(|disk| Named {
                machine: machine.id,
                machine_name: machine.name.clone(),
                disk: disk.id.clone(),
                file: disk.file.clone(),
                format: disk.format,
                by: None,
            }));
        }
        // What another machine runs on is needed, also where its definition cannot be read or has the disk no more.
        let mut unread = BTreeMap::new();
        for it in known::unread(core, &machines, Some(member.machine))? {
            unread.insert((it.machine, it.disk.clone()), it.below);
            named.push(Named {
                machine: it.machine,
                machine_name: it.machine.to_string(),
                disk: it.disk,
                file: it.top.file,
                format: it.top.format,
                by: None,
            });
        }
        let known = Known::of(core).whole()?;
        for set in known.sets() {
            for snapshot in &set.members {
                let disks = snapshot.disks.iter().filter(|d| is_file(d));
                named.extend(disks.map(|disk| Named {
                    machine: snapshot.machine,
                    machine_name: snapshot.machine_name.clone(),
                    disk: disk.id.clone(),
                    file: disk.file.clone(),
                    format: disk.format,
                    by: Some((set.id, snapshot.id)),
                }));
            }
        }
        let forgotten = forgotten::of(core).map_err(|e| unseen(&e))?;
        let mut forgotten = forgotten.into_iter();
        let forgotten = forgotten.find(|set| set.machines.contains(&member.machine));
        let below = |n: &Named| known_below(core, &known, n);
        let read = |suspects: &BTreeSet<usize>| {
            let mut graph = Graph::default();
            for (at, n) in named.iter().enumerate() {
                let recorded = unread.get(&(n.machine, n.disk.clone()));
                if let Some(recorded) = recorded.filter(|_| n.by.is_none()) {
                    graph.recorded(&n.file, n.format, recorded);
                    continue;
                }
                let machine = machines.get(&n.machine).map(Arc::as_ref);
                let is_suspect = suspects.contains(&at);
                // Whose file is away: it may be any machine's.
                let at = At::new(&n.machine_name, &n.disk);
                let sealed = sealed(&known, n);
                let whose = Whose {
                    machine,
                    disk: &n.disk,
                    sealed,
                };
                if is_suspect {
                    graph.lay(&at, whose, (&n.file, n.format), || below(n))?;
                    continue;
                }
                let known = || below(n).filter(|_| by_record && n.machine != member.machine);
                let followed = graph.follow_known(&at, whose, (&n.file, n.format), known);
                followed.map_err(|error| match machine {
                    Some(machine) => n.refusal(machine).unwrap_or(error),
                    None => error,
                })?;
            }
            Ok::<_, EngineError>(graph)
        };
        // What others write into headers of their own says nothing of our files: of those that lie on one of them the
        // headers are believed no further than what is recorded.
        let mut suspects = BTreeSet::new();
        let mut graph = loop {
            let graph = read(&suspects)?;
            let layers = graph.keys(member.layers.iter().map(|l| l.file.as_path()));
            let others = named.iter().enumerate();
            let others = others.filter(|(_, n)| n.machine != member.machine);
            let over = others.filter(|(_, n)| graph.is_over(&n.file, &layers));
            let count = suspects.len();
            suspects.extend(over.map(|(at, _)| at));
            if suspects.len() == count {
                break graph;
            }
        };
        for layer in &member.layers {
            let at = At::new(&member.name, &layer.disk);
            graph.follow_if_there(&at, [(layer.file.clone(), layer.format)])?;
        }
        let mut strangers = overlays(&core.sets(), member.machine);
        // What was set aside may be wanted again, with all that it lies on.
        let aside = core.deps.data_dir.join(ASIDE);
        strangers.extend(overlays(&aside, member.machine));
        let is_away = !machines.contains_key(&member.machine);
        if is_away {
            let layers = member.layers.iter().map(|l| &l.file);
            strangers.extend(layers.filter(|f| is_of_apply(f)).cloned());
        }
        strangers.retain(|file| {
            let is_named = named.iter().any(|n| graph.is_same(&n.file, file));
            let is_known = !is_away && member.layers.iter().any(|l| l.file == *file);
            !is_named && !is_known
        });
        strangers.retain(|file| held::symlink_metadata(file).is_ok());
        let mut unreadable = None;
        for file in &strangers {
            let at = At::new(&member.name, "of no set");
            match graph.follow(&at, file.clone(), Format::Qcow2) {
                // It went meanwhile, or what it lay on did; an empty file lies on nothing.
                Err(e) if e.kind == EngineErrorKind::Missing || is_empty(file) => {}
                Err(error) => {
                    tracing::debug!(%error, "A file that nothing names cannot be read");
                    unreadable = Some(file.clone());
                }
                Ok(()) => {}
            }
        }
        Ok(Self {
            core: Arc::clone(core),
            member: Arc::clone(member),
            known,
            graph,
            named,
            strangers,
            unreadable,
            forgotten: forgotten.map(|set| set.folder),
            touched: BTreeSet::new(),
        })
    }

    /// Notes what these merges have written, finished or not: the lower files, and the headers of what lies
    /// on them once it was named anew.
    pub(super) fn touch(&mut self, merges: &[(Merge, Option<Ended>)]) {
        let own = |(m, _): &&(Merge, Option<Ended>)| m.machine == self.member.machine;
        let mut touched = BTreeSet::new();
        for (merge, merged) in merges.iter().filter(own) {
            touched.insert(damage::place(&merge.parent));
            if merged.is_some() {
                let children = self.graph.children(&merge.parent).into_iter();
                let others = children.filter(|n| !self.graph.is_same(&n.file, &merge.child));
                touched.extend(others.map(|n| damage::place(&n.file)));
            }
        }
        self.touched = touched;
    }

    /// Whether somebody else has changed the file since it was frozen, or put something else in its place, and
    /// nobody has accepted that.
    fn is_damaged(&self, file: &Path) -> bool {
        let mut marks = self.known.disks().filter_map(|d| d.damage.as_ref());
        let place = damage::place(file);
        let is_marked = |files: &dyn Fn(&Path) -> bool| files(file) || files(&place);
        if is_marked(&|f| self.member.damaged.contains(f))
            || marks.any(|d| is_marked(&|f| d.files.iter().any(|x| x == f)))
        {
            return true;
        }
        let Ok(now) = damage::look(file) else {
            return false;
        };
        if self.which(file).is_err() {
            return true;
        }
        let seals = self.seals(file);
        !self.touched.contains(&place) && seals.iter().any(|seal| *seal != now)
    }

    /// As what the file was frozen.
    fn seals(&self, file: &Path) -> Vec<Seal> {
        let all = self.known.disks().flat_map(|d| &d.sealed);
        let own = damage::of_file(all.chain(&self.member.sealed), file);
        own.map(|s| s.seal).collect()
    }

    /// The inode of the file as it was frozen, if it was.
    pub(super) fn frozen_inode(&self, file: &Path) -> Option<u64> {
        let seals = self.seals(file);
        seals.first().map(|seal| seal.inode)
    }

    /// Which file stands there, if it is what was frozen or imported there; what is written or removed must be it.
    ///
    /// # Errors
    /// As [`held::open_straight`]; another file than the recorded one, or of one that nothing is recorded of, a second name.
    pub(super) fn which(&self, file: &Path) -> io::Result<Origin> {
        let open = held::open_straight(file, false)?;
        let found = Identity::of(&open)?;
        let seals = self.seals(file);
        let machine = self.core.deps.compute.machine(self.member.machine);
        let recorded = machine.as_deref().and_then(|m| m.image(file));
        // The number of a file that is removed is given to a later one.
        let later = |image: &Image| image.inode == found.inode && !image::is_it(image, &found);
        if recorded.is_some_and(later) {
            return Err(Foreign::Later(found.inode).into());
        }
        let mut expected = seals.iter().map(|seal| seal.inode);
        let expected = expected.next().or(recorded.map(|image| image.inode));
        match expected {
            Some(expected)
                if seals.iter().any(|s| s.inode == found.inode) || expected == found.inode => {}
            Some(expected) => {
                let found = found.inode;
                return Err(Foreign::Other { expected, found }.into());
            }
            None if found.links > 1 => return Err(Foreign::Names(found.links).into()),
            None => {}
        }
        Ok(found.into())
    }

    /// A file of another machine that cannot be read now and may lie on this one.
    pub(super) fn away_over(&self, file: &Path) -> Option<&Path> {
        let children = self.graph.children(file).into_iter();
        let mut away = children.filter(|child| child.is_away());
        away.next().map(|child| child.file.as_path())
    }

    /// The files of ours that nobody names, and that stay for the sake of such a file, of one that cannot be read or of a
    /// forgotten set: nothing may lead to them later.
    pub(super) fn doubtful(&self) -> impl Iterator<Item = PathBuf> {
        let ours = self.hidden().filter(|l| self.is_ours(&l.file));
        let is_unknown = self.forgotten.is_some() || self.unreadable.is_some();
        let kept = move |l: &Layer| is_unknown && self.graph.children(&l.file).is_empty();
        let doubtful = ours.filter(move |l| self.away_over(&l.file).is_some() || kept(l));
        doubtful.map(|l| l.file.clone())
    }

    /// The clones that nothing needs, that were not removed and are not surely gone: another folder stands, or stood,
    /// in the place of theirs, and they may come back with it.
    pub(super) fn astray(&self, removed: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
        let is_gone = |file: &Path| is_gone(&self.core, self.member.machine, file);
        let layers = self.member.layers.iter().map(|l| &l.file);
        let clones = layers.filter(|file| is_clone(file) && !removed.contains(*file));
        let idle = clones.filter(|file| {
            let is_needed = self.strangers.contains(*file) || self.names_of(file).next().is_some();
            !is_needed && self.graph.children(file).is_empty()
        });
        let away = idle.filter(|file| !is_gone(file).unwrap_or(false));
        away.cloned().collect()
    }

    /// By whom the file is named.
    pub(super) fn names_of(&self, file: &Path) -> impl Iterator<Item = &Named> {
        let same = move |n: &&Named| self.graph.is_same(&n.file, file);
        self.named.iter().filter(same)
    }

    /// The files of ours that nobody names and nothing lies on, and those of which that is so once these are gone;
    /// from above.
    pub(super) fn free(&self, skip: &BTreeSet<PathBuf>) -> Vec<&Layer> {
        let mut free: Vec<&Layer> = Vec::new();
        loop {
            let goes = |n: &Node| free.iter().any(|f| self.graph.is_same(&f.file, &n.file));
            let is_free = |l: &&Layer| {
                let known = skip.contains(&l.file) || free.iter().any(|f| f.file == l.file);
                !known && self.is_ours(&l.file) && !self.is_doubtful(&l.file)
            };
            let mut layers = self.hidden().filter(is_free);
            match layers.find(|l| self.graph.children(&l.file).iter().all(|n| goes(n))) {
                Some(layer) => free.push(layer),
                None => return free,
            }
        }
    }

    fn is_doubtful(&self, file: &Path) -> bool {
        self.forgotten.is_some() || self.unreadable.is_some() || self.strangers.contains(file)
    }

    /// Whether the file is there and the first that [`Survey::free`] may give.
    pub(super) fn is_leaf(&self, file: &Path) -> bool {
        let is_free = !self.is_doubtful(file) && self.graph.children(file).is_empty();
        is_free && self.hidden().any(|l| l.file == file)
    }

    /// A layer with one child, and why it cannot be merged if it cannot.
    pub(super) fn mergeable(
        &self,
        skip: &BTreeSet<PathBuf>,
    ) -> Option<(&Layer, Result<Merge, Text>)> {
        let mut layers = self.hidden().filter(|l| !skip.contains(&l.file));
        let layer = layers.find(|l| {
            (l.written || self.is_ours(&l.file)) && !self.graph.children(&l.file).is_empty()
        })?;
        Some((layer, self.judge(layer)))
    }

    /// The overlays that can be merged now, each with the bytes that its file has on the disk.
    pub(super) fn merges(&self) -> Vec<(PathBuf, u64)> {
        let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
        while let Some((layer, judged)) = self.mergeable(&seen) {
            seen.insert(layer.file.clone());
            if let Ok(merge) = judged {
                let meta = held::symlink_metadata(&merge.child);
                let bytes = meta.map_or(0, |m| m.blocks().saturating_mul(512));
                found.push((merge.child, bytes));
            }
        }
        found
    }

    fn judge(&self, layer: &Layer) -> Result<Merge, Text> {
        let shown = layer.file.display();
        if let Some(folder) = &self.forgotten {
            let text = texts::KEPT_FORGOTTEN.with("file", shown);
            return Err(text.with("folder", folder.display()));
        }
        if let Some(child) = &self.unreadable {
            let text = texts::KEPT_UNREADABLE.with("file", shown);
            return Err(text.with("child", child.display()));
        }
        if let Some(away) = self.away_over(&layer.file) {
            let text = texts::KEPT_AWAY.with("file", shown);
            return Err(text.with("child", away.display()));
        }
        let node = self.graph.node(&layer.file);
        let children = self.graph.children(&layer.file);
        let (Some(node), [child]) = (node, children.as_slice()) else {
            let text = texts::KEPT_BRANCHES.with("file", shown);
            let named = children.iter().map(|n| n.file.display().to_string());
            let text = text.with("children", named.collect::<Vec<_>>().join(", "));
            return Err(text.with("count", children.len()));
        };
        let read_only = node.mode() & 0o222 == 0 && !self.is_ours(&node.file);
        if read_only
            || held::ask(&node.file, || {
                Ok(rustix::fs::access(
                    &node.file,
                    rustix::fs::Access::WRITE_OK,
                )?)
            })
            .is_err()
                && !self.is_ours(&node.file)
        {
            return Err(texts::KEPT_READ_ONLY.with("file", shown));
        }
        if child.format != Format::Qcow2 || !self.is_ours(&child.file) {
            let text = texts::KEPT_FOREIGN.with("file", shown);
            return Err(text.with("child", child.file.display()));
        }
        for file in [&layer.file, &child.file] {
            if self.is_damaged(file) {
                return Err(texts::KEPT_DAMAGED.with("file", file.display()));
            }
        }
        let at = At::new(&self.member.name, &layer.disk);
        let roots = self.core.deps.compute.roots();
        for file in [&layer.file, &child.file] {
            if roots.admit(file).is_ok_and(|inside| !inside) {
                return Err(roots.outside(&at, file));
            }
        }
        let which = |file: &Path| self.which(file).map_err(|e| at.io(file, &e).text);
        let inodes = Inodes {
            parent: Some(which(&layer.file)?),
            child: Some(which(&child.file)?),
        };
        self.require_own(&layer.file, child)?;
        for grandchild in self.graph.children(&child.file) {
            self.require_own(&layer.file, grandchild)?;
            merge::can_name(&at, &grandchild.file, &layer.file, node.format).map_err(|e| e.text)?;
        }
        let machine = self.core.deps.compute.machine(self.member.machine);
        let merge = Merge {
            machine: self.member.machine,
            disk: layer.disk.clone(),
            parent: layer.file.clone(),
            parent_format: node.format,
            child: child.file.clone(),
            inodes,
        };
        let work = merge.work(&at, &roots, machine.as_deref());
        work.check().map_err(|e| e.text)?;
        Ok(merge)
    }

    /// That the merge may be done as it was judged before.
    pub(super) fn still(&self, merge: &Merge) -> Result<(), Text> {
        let changed = || texts::MERGE_PENDING.with("file", merge.parent.display());
        let mut layers = self.hidden();
        let layer = layers.find(|l| l.file == merge.parent);
        match self.judge(layer.ok_or_else(changed)?)? == *merge {
            true => Ok(()),
            false => Err(changed()),
        }
    }

    /// That nobody but the machine has anything that lies right on the file.
    pub(super) fn require_own_above(&self, file: &Path) -> Result<(), Text> {
        let mut children = self.graph.children(file).into_iter();
        children.try_for_each(|child| self.require_own(file, child))
    }

    /// Whether there is room for a merge now; else why not.
    pub(super) fn fits(&self, merge: &Merge) -> Result<(), Text> {
        let at = At::new(&self.member.name, &merge.disk);
        let machine = self.core.deps.compute.machine(self.member.machine);
        let roots = self.core.deps.compute.roots();
        let work = merge.work(&at, &roots, machine.as_deref());
        work.fits().map_err(|e| e.text)
    }

    /// Nobody but the machine that this operation holds may name it, and it must be known what it is.
    fn require_own(&self, below: &Path, node: &Node) -> Result<(), Text> {
        if self.strangers.contains(&node.file) {
            let text = texts::KEPT_STRANGER.with("file", below.display());
            return Err(text.with("child", node.file.display()));
        }
        let mut names = self.names_of(&node.file);
        if names.all(|n| n.machine == self.member.machine) {
            return Ok(());
        }
        let text = texts::KEPT_FOREIGN.with("file", below.display());
        Err(text.with("child", node.file.display()))
    }

    /// The layers that are there and that nobody names.
    fn hidden(&self) -> impl Iterator<Item = &Layer> {
        let there = |l: &&Layer| self.graph.node(&l.file).is_some();
        let layers = self.member.layers.iter().filter(there);
        layers.filter(|l| self.names_of(&l.file).next().is_none())
    }

    fn is_ours(&self, file: &Path) -> bool {
        is_ours(&self.core.sets(), file)
    }
}

fn unseen(cause: &io::Error) -> EngineError {
    EngineError {
        kind: EngineErrorKind::Failed,
        text: texts::SETS_UNREADABLE.with("cause", cause),
    }
}

/// Whether a clone is surely gone: its image stands where it was made, and it does not.
///
/// # Errors
/// The folder of the image is not there, or another stands in its place.
pub(super) fn is_gone(core: &Core, machine: VmId, clone: &Path) -> io::Result<bool> {
    let ours = graph::ours(clone)?;
    let Some(machine) = core.deps.compute.machine(machine) else {
        return Ok(core.deps.compute.trouble(machine).is_none());
    };
    let mut images = machine.images.values();
    let Some(image) = images.find(|i| i.file.parent() == Some(ours.root().path())) else {
        return Ok(true); // an older version's
    };
    let name = image.file.file_name().unwrap_or_default();
    let beside = ours.root().look(name)?;
    let is_it = beside.is_some_and(|it| it.inode == image.inode);
    Ok(is_it && ours.look()?.is_none())
}

/// As what the named one and all under it were frozen.
fn sealed<'a>(known: &'a Known, named: &Named) -> &'a [Sealed] {
    let find = || {
        let (set, snapshot) = named.by?;
        let mut members = known.set(set)?.members.iter();
        let mut disks = members.find(|m| m.id == snapshot)?.disks.iter();
        Some(disks.find(|d| d.id == named.disk)?.sealed.as_slice())
    };
    find().unwrap_or_default()
}

/// The files that the named one is known to have lain on.
fn known_below(core: &Core, known: &Known, named: &Named) -> Option<Vec<PathBuf>> {
    if named.format == Format::Raw {
        return Some(Vec::new());
    }
    let Some((set, snapshot)) = named.by else {
        return core.deps.compute.below(named.machine, &named.disk);
    };
    let members = &known.set(set)?.members;
    let member = members.iter().find(|m| m.id == snapshot)?;
    let disk = member.disks.iter().find(|d| d.id == named.disk)?;
    disk.known_below()
}

/// Whether an apply made the file beside an image: `….groupshot/<set>/<machine>-<disk>-<job>.*`.
fn is_of_apply(file: &Path) -> bool {
    let stem = file
        .file_stem()
        .and_then(|s| s.to_str())
        .unwrap_or_default();
    let job = stem.len().checked_sub(GUID).and_then(|at| stem.get(at..));
    is_clone(file)
        && job.is_some_and(|job| job.parse::<JobId>().is_ok())
        && stem.len() > 2 * GUID + 1
}

fn is_empty(file: &Path) -> bool {
    held::symlink_metadata(file).is_ok_and(|meta| meta.len() == 0)
}

/// The overlays in the folders that the server has for a machine, below `sets/` or `orphans/`.
pub(crate) fn overlays(sets: &Path, machine: VmId) -> BTreeSet<PathBuf> {
    let entries = |folder: PathBuf| {
        let found = held::ask(&folder, || fs::read_dir(&folder));
        found.into_iter().flatten().flatten()
    };
    let folders = entries(sets.to_owned()).map(|set| set.path().join(machine.to_string()));
    let files = folders.flat_map(entries).map(|file| file.path());
    let is_of = |file: &Path| {
        file.extension()
            .is_some_and(|e| e == Format::Qcow2.as_str())
    };
    // A second file of one name has a number in `orphans/`.
    let is_numbered = |file: &Path| {
        let number = file.extension().and_then(|e| e.to_str());
        number.is_some_and(|e| e.parse::<u32>().is_ok())
    };
    let is_overlay = |file: &PathBuf| {
        is_of(file) || is_numbered(file) && file.file_stem().is_some_and(|f| is_of(Path::new(f)))
    };
    files.filter(is_overlay).collect()
}
