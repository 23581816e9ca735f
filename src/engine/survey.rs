//! The files of a machine as they lie on each other now, who names which of them, and what follows from that for those
//! that nobody names any more.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::engine::failure::At;
use crate::engine::graph::{self, Graph, Node, Whose, is_clone, is_ours};
use crate::engine::merge::{self, Inodes};
use crate::engine::names::{is_of_apply, overlays};
use crate::engine::qcow2::chain::Roots;
use crate::engine::retain::{Layer, Merge, Named, Scene, Survey};
use crate::engine::{Compute, EngineError, EngineErrorKind, exchange, image, stage};
use crate::held::{self, Foreign, Identity, Origin};
use crate::id::VmId;
use crate::inventory::{Format, Image, Machine, Seal};
use crate::text::Text;
use crate::text::catalog::snapshot as texts;

impl Named {
    /// That what stands there is not what was imported: then nothing is told of what it holds.
    fn refusal(&self, machine: &Machine) -> Option<EngineError> {
        let at = At::new(&self.machine_name, &self.disk);
        let (top, roots) = ((self.file.as_path(), self.format), Roots::default());
        image::open_accepted(&at, Some(machine), &self.disk, top, (&roots, None)).err()
    }
}

/// The files of a machine at one moment.
pub(crate) struct Files {
    scene: Scene,
    graph: Graph,
    /// Files of the machine that nothing here names: its definition may have lost a disk, or be away. One of them may
    /// be an active file.
    strangers: BTreeSet<PathBuf>,
    /// One of them that cannot be read: it may lie on any file of the machine.
    unreadable: Option<PathBuf>,
    /// What our own merges have changed; it is sealed again when they are done.
    touched: BTreeSet<PathBuf>,
}

impl Files {
    /// Looks.
    ///
    /// # Errors
    /// Something that may lie on these files cannot be seen.
    pub(crate) fn look(scene: Scene) -> Result<Self, EngineError> {
        let (of, machines) = (&scene.of, &scene.machines);
        let mut graph = believed(&scene)?;
        for layer in &of.layers {
            let at = At::new(&of.name, &layer.disk);
            graph.follow_if_there(&at, [(layer.file.clone(), layer.format)])?;
        }
        let mut strangers = overlays(&scene.sets, of.machine);
        // What was set aside may be wanted again, with all that it lies on.
        strangers.extend(overlays(&scene.aside, of.machine));
        let is_away = !machines.contains_key(&of.machine);
        if is_away {
            let layers = of.layers.iter().map(|l| &l.file);
            strangers.extend(layers.filter(|f| is_of_apply(f)).cloned());
        }
        strangers.retain(|file| {
            let is_named = scene.named.iter().any(|n| graph.is_same(&n.file, file));
            let is_known = !is_away && of.layers.iter().any(|l| l.file == *file);
            !is_named && !is_known
        });
        strangers.retain(|file| held::symlink_metadata(file).is_ok());
        let mut unreadable = None;
        for file in &strangers {
            let at = At::new(&of.name, "of no set");
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
            scene,
            graph,
            strangers,
            unreadable,
            touched: BTreeSet::new(),
        })
    }

    /// Whether somebody else has changed the file since it was frozen, or put something else in its place, and
    /// nobody has accepted that.
    fn is_damaged(&self, file: &Path) -> bool {
        if self.scene.records.is_marked(file) {
            return true;
        }
        let Ok(now) = held::symlink_metadata(file).map(|meta| Seal::of(&meta)) else {
            return false;
        };
        if self.which(file).is_err() {
            return true;
        }
        let seals = self.seals(file);
        let touched = self.touched.contains(&held::resolve_above(file));
        !touched && seals.iter().any(|seal| *seal != now)
    }

    /// As what the file was frozen.
    fn seals(&self, file: &Path) -> Vec<Seal> {
        self.scene.records.seals(file)
    }

    fn names(&self, file: &Path) -> impl Iterator<Item = &Named> {
        let same = move |n: &&Named| self.graph.is_same(&n.file, file);
        self.scene.named.iter().filter(same)
    }

    /// Which file stands there, if it is what was frozen or imported there; what is written or removed must be it.
    ///
    /// # Errors
    /// As [`held::open_straight`]; another file than the recorded one, or of one that nothing is recorded of, a second name.
    fn which(&self, file: &Path) -> io::Result<Origin> {
        let open = held::open_straight(file, false)?;
        let found = Identity::of(&open)?;
        let seals = self.seals(file);
        let machine = self.scene.compute.machine(self.scene.of.machine);
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

    fn is_doubtful(&self, file: &Path) -> bool {
        self.scene.forgotten.is_some() || self.unreadable.is_some() || self.strangers.contains(file)
    }

    fn judge(&self, layer: &Layer) -> Result<Merge, Text> {
        let shown = layer.file.display();
        if let Some(folder) = &self.scene.forgotten {
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
        let at = At::new(&self.scene.of.name, &layer.disk);
        let roots = self.scene.compute.roots();
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
        let machine = self.scene.compute.machine(self.scene.of.machine);
        let merge = Merge {
            machine: self.scene.of.machine,
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

    /// Nobody but the machine that this operation holds may name it, and it must be known what it is.
    fn require_own(&self, below: &Path, node: &Node) -> Result<(), Text> {
        if self.strangers.contains(&node.file) {
            let text = texts::KEPT_STRANGER.with("file", below.display());
            return Err(text.with("child", node.file.display()));
        }
        let mut names = self.names(&node.file);
        if names.all(|n| n.machine == self.scene.of.machine) {
            return Ok(());
        }
        let text = texts::KEPT_FOREIGN.with("file", below.display());
        Err(text.with("child", node.file.display()))
    }

    /// The layers that are there and that nobody names.
    fn hidden(&self) -> impl Iterator<Item = &Layer> {
        let there = |l: &&Layer| self.graph.node(&l.file).is_some();
        let layers = self.scene.of.layers.iter().filter(there);
        layers.filter(|l| self.names(&l.file).next().is_none())
    }

    fn is_ours(&self, file: &Path) -> bool {
        is_ours(&self.scene.sets, file)
    }
}

impl Survey for Files {
    fn touch(&mut self, merges: &[(Merge, bool)]) {
        let own = |(m, _): &&(Merge, bool)| m.machine == self.scene.of.machine;
        let mut touched = BTreeSet::new();
        for (merge, merged) in merges.iter().filter(own) {
            touched.insert(held::resolve_above(&merge.parent));
            if *merged {
                let children = self.graph.children(&merge.parent).into_iter();
                let others = children.filter(|n| !self.graph.is_same(&n.file, &merge.child));
                touched.extend(others.map(|n| held::resolve_above(&n.file)));
            }
        }
        self.touched = touched;
    }

    fn away_over(&self, file: &Path) -> Option<&Path> {
        let children = self.graph.children(file).into_iter();
        let mut away = children.filter(|child| child.is_away());
        away.next().map(|child| child.file.as_path())
    }

    fn doubtful(&self) -> Vec<PathBuf> {
        let ours = self.hidden().filter(|l| self.is_ours(&l.file));
        let is_unknown = self.scene.forgotten.is_some() || self.unreadable.is_some();
        let kept = move |l: &Layer| is_unknown && self.graph.children(&l.file).is_empty();
        let doubtful = ours.filter(move |l| self.away_over(&l.file).is_some() || kept(l));
        doubtful.map(|l| l.file.clone()).collect()
    }

    fn astray(&self, removed: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
        let is_gone = |file: &Path| is_gone(&*self.scene.compute, self.scene.of.machine, file);
        let layers = self.scene.of.layers.iter().map(|l| &l.file);
        let clones = layers.filter(|file| is_clone(file) && !removed.contains(*file));
        let idle = clones.filter(|file| {
            let is_needed = self.strangers.contains(*file) || self.names(file).next().is_some();
            !is_needed && self.graph.children(file).is_empty()
        });
        let away = idle.filter(|file| !is_gone(file).unwrap_or(false));
        away.cloned().collect()
    }

    fn names_of(&self, file: &Path) -> Vec<&Named> {
        self.names(file).collect()
    }

    fn free(&self, skip: &BTreeSet<PathBuf>) -> Vec<Layer> {
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
                None => return free.into_iter().cloned().collect(),
            }
        }
    }

    fn is_leaf(&self, file: &Path) -> bool {
        let is_free = !self.is_doubtful(file) && self.graph.children(file).is_empty();
        is_free && self.hidden().any(|l| l.file == file)
    }

    fn mergeable(&self, skip: &BTreeSet<PathBuf>) -> Option<(Layer, Result<Merge, Text>)> {
        let mut layers = self.hidden().filter(|l| !skip.contains(&l.file));
        let layer = layers.find(|l| {
            (l.written || self.is_ours(&l.file)) && !self.graph.children(&l.file).is_empty()
        })?;
        Some((layer.clone(), self.judge(layer)))
    }

    fn merges(&self) -> Vec<(PathBuf, u64)> {
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

    fn still(&self, merge: &Merge) -> Result<(), Text> {
        let changed = || texts::MERGE_PENDING.with("file", merge.parent.display());
        let mut layers = self.hidden();
        let layer = layers.find(|l| l.file == merge.parent);
        match self.judge(layer.ok_or_else(changed)?)? == *merge {
            true => Ok(()),
            false => Err(changed()),
        }
    }

    fn require_own_above(&self, file: &Path) -> Result<(), Text> {
        let mut children = self.graph.children(file).into_iter();
        children.try_for_each(|child| self.require_own(file, child))
    }

    fn fits(&self, merge: &Merge) -> Result<(), Text> {
        let at = At::new(&self.scene.of.name, &merge.disk);
        let machine = self.scene.compute.machine(self.scene.of.machine);
        let roots = self.scene.compute.roots();
        let work = merge.work(&at, &roots, machine.as_deref());
        work.fits().map_err(|e| e.text)
    }

    fn frozen_inode(&self, file: &Path) -> Option<u64> {
        let seals = self.seals(file);
        seals.first().map(|seal| seal.inode)
    }

    fn rename(&self, merge: &Merge) -> Result<(), EngineError> {
        let at = At::new(&self.scene.of.name, &merge.disk);
        let children = self.graph.children(&merge.child).into_iter();
        for grandchild in children.filter(|n| self.graph.is_right_on(n, &merge.child)) {
            let which = self.which(&grandchild.file);
            let which = which.map_err(|e| at.io(&grandchild.file, &e))?;
            let (parent, format) = (&merge.parent, merge.parent_format);
            merge::name(&at, &grandchild.file, Some(which), parent, format)?;
        }
        Ok(())
    }

    fn set_mode(&self, merge: &Merge) -> Result<(), EngineError> {
        if !self.is_ours(&merge.parent) {
            return Ok(());
        }
        let at = At::new(&self.scene.of.name, &merge.disk);
        let parent = |e: io::Error| at.io(&merge.parent, &e);
        // Until an active file, which is written, it is as all that is kept.
        let active = self.names(&merge.child).any(|n| n.by.is_none());
        let inodes = merge.inodes;
        let child = merge::expected(&merge.child, inodes.child).and_then(Identity::of);
        let mode = child.map_or(exchange::ACTIVE, |child| child.mode & 0o777);
        let mode = match active {
            true => mode | exchange::ACTIVE,
            false => stage::kept_mode(mode),
        };
        let lower = merge::expected(&merge.parent, inodes.parent).map_err(parent)?;
        let set = held::set_mode(&lower, mode).and_then(|()| lower.sync_all());
        set.map_err(parent)
    }
}

/// What lies on what. What others write into headers of their own says nothing of our files: of those that lie on one of
/// them the headers are believed no further than what is recorded.
fn believed(scene: &Scene) -> Result<Graph, EngineError> {
    let mut suspects = BTreeSet::new();
    loop {
        let graph = read(scene, &suspects)?;
        let layers = graph.keys(scene.of.layers.iter().map(|l| l.file.as_path()));
        let others = scene.named.iter().enumerate();
        let others = others.filter(|(_, n)| n.machine != scene.of.machine);
        let over = others.filter(|(_, n)| graph.is_over(&n.file, &layers));
        let count = suspects.len();
        suspects.extend(over.map(|(at, _)| at));
        if suspects.len() == count {
            return Ok(graph);
        }
    }
}

fn read(scene: &Scene, suspects: &BTreeSet<usize>) -> Result<Graph, EngineError> {
    let records = &scene.records;
    let mut graph = Graph::default();
    for (at, n) in scene.named.iter().enumerate() {
        let recorded = scene.untold.get(&(n.machine, n.disk.clone()));
        if let Some(recorded) = recorded.filter(|_| n.by.is_none()) {
            graph.recorded(&n.file, n.format, recorded);
            continue;
        }
        let machine = scene.machines.get(&n.machine).map(AsRef::as_ref);
        let is_suspect = suspects.contains(&at);
        // Whose file is away: it may be any machine's.
        let at = At::new(&n.machine_name, &n.disk);
        let whose = Whose {
            machine,
            disk: &n.disk,
            sealed: records.sealed(n),
        };
        let below = || match n.format {
            Format::Raw => Some(Vec::new()),
            Format::Qcow2 => records.below(n),
        };
        if is_suspect {
            graph.lay(&at, whose, (&n.file, n.format), below)?;
            continue;
        }
        let by_record = scene.by_record && n.machine != scene.of.machine;
        let known = || below().filter(|_| by_record);
        let followed = graph.follow_known(&at, whose, (&n.file, n.format), known);
        followed.map_err(|error| match machine {
            Some(machine) => n.refusal(machine).unwrap_or(error),
            None => error,
        })?;
    }
    Ok(graph)
}

/// Whether a clone is surely gone: its image stands where it was made, and it does not.
///
/// # Errors
/// The folder of the image is not there, or another stands in its place.
pub(crate) fn is_gone(compute: &dyn Compute, machine: VmId, clone: &Path) -> io::Result<bool> {
    let ours = graph::ours(clone)?;
    let machine = match compute.known(machine) {
        Ok(machine) => machine,
        Err(trouble) => return Ok(trouble.is_none()),
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

fn is_empty(file: &Path) -> bool {
    held::symlink_metadata(file).is_ok_and(|meta| meta.len() == 0)
}
