//! The graph of backing files: which disk file lies on which, read from the image headers, starting at the files that
//! machines and snapshots name. It is not stored, so a pending merge is found again by reading the headers.
//!
//! The owner of an image can write anything into its header. Headers of files of other users are trusted only in a chain
//! that is what was imported or captured ([`chain_of`]); else these files count as lying on what is recorded ([`Under`]).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::engine::beside;
use crate::engine::definition::Definition;
use crate::engine::failure::At;
use crate::engine::qcow2::backing::{self, Doubt};
use crate::engine::qcow2::chain;
use crate::engine::qcow2::header::Header;
use crate::engine::whose::key;
use crate::engine::{EngineError, EngineErrorKind, reflink, sim};
use crate::held::{self, Identity, Ours, Way};
use crate::inventory::{Format, Machine, SnapshotDisk};

pub use crate::engine::whose::{Chain, Key, Under, Whose, chain_of};

/// A file of a chain, and the one under it that its header names.
type Looked = (Node, Option<(PathBuf, Format)>);

/// Every file that is reachable from the named ones.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    nodes: BTreeMap<Key, Node>,
    /// What each name led to when it was looked at: nobody asks again a file that may not answer any more.
    names: BTreeMap<PathBuf, Key>,
}

/// One file.
#[derive(Debug, Clone)]
pub struct Node {
    /// Absolute, as it was first named.
    pub file: PathBuf,
    /// Its format.
    pub format: Format,
    /// What it is; `None` of one that cannot be looked at, or is not to be taken for what stands there.
    found: Option<Identity>,
    /// What its header says is known.
    is_read: bool,
    /// The file under it.
    below: Option<Key>,
    /// The files that may lie under it, where it cannot be read now.
    perhaps: Under,
}

impl Node {
    /// It cannot be read now, or is not what it was, and may lie on anything that it lay on.
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.below.is_none() && !self.perhaps.is_empty()
    }

    /// Permission bits.
    #[must_use]
    pub fn mode(&self) -> u32 {
        self.found.map_or(0, |found| found.mode)
    }
}

impl Graph {
    /// Reads the chains under these files.
    ///
    /// # Errors
    /// A file that is not there or cannot be read: it may lie on any other, so nothing is known then. Those
    /// of `may_be_gone` may be not there.
    pub fn read(
        at: &At,
        named: impl IntoIterator<Item = (PathBuf, Format)>,
        may_be_gone: impl IntoIterator<Item = (PathBuf, Format)>,
    ) -> Result<Self, EngineError> {
        let mut graph = Self::default();
        for (file, format) in named {
            graph.follow(at, file, format)?;
        }
        graph.follow_if_there(at, may_be_gone)?;
        Ok(graph)
    }

    /// Adds the chains under files that may be not there.
    ///
    /// # Errors
    /// One cannot be read.
    pub fn follow_if_there(
        &mut self,
        at: &At,
        files: impl IntoIterator<Item = (PathBuf, Format)>,
    ) -> Result<(), EngineError> {
        for (file, format) in files {
            match self.follow(at, file, format) {
                Err(e) if e.kind == EngineErrorKind::Missing => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Adds the chain under a file.
    ///
    /// # Errors
    /// As [`Graph::read`].
    pub fn follow(&mut self, at: &At, file: PathBuf, format: Format) -> Result<(), EngineError> {
        let mut next = Some((file, format));
        while let Some((file, format)) = next.take() {
            // As one look: what is read of a file may stand as well as the opening of it.
            let look = || Ok(self.look(at, &file, format));
            let found = held::ask(&file, look).map_err(|e| at.io(&file, &e))?;
            let (key, looked) = found?;
            self.names.insert(file, key);
            let Some((mut node, below)) = looked else {
                break;
            };
            if let Some((below, format)) = below {
                let meta = held::metadata(&below).map_err(|e| at.io(&below, &e))?;
                node.below = Some((meta.dev(), meta.ino()));
                next = Some((below, format));
            }
            if let Some(known) = self.nodes.remove(&key) {
                node.perhaps = known.perhaps;
            }
            self.nodes.insert(key, node);
        }
        Ok(())
    }

    /// The file and what its header names; only which it is if it is known.
    fn look(
        &self,
        at: &At,
        file: &Path,
        format: Format,
    ) -> Result<(Key, Option<Looked>), EngineError> {
        let io = |e: io::Error| at.io(file, &e);
        let open = held::open_any(file).map_err(io)?;
        let own = Identity::of(&open).map_err(io)?;
        let key = (own.device, own.inode);
        // Whoever named it first may have called it raw, or does not know what lies under it.
        let known = self.nodes.get(&key);
        if known.is_some_and(|node| node.is_read || format == Format::Raw) {
            return Ok((key, None));
        }
        let node = Node {
            file: file.to_owned(),
            format,
            found: Some(own),
            is_read: format != Format::Raw,
            below: None,
            perhaps: Under::default(),
        };
        if format == Format::Raw {
            return Ok((key, Some((node, None))));
        }
        let refuse = |m| at.error(EngineErrorKind::Unsupported, m, file);
        let header = Header::load(&open).map_err(io)?;
        let header = header.map_err(|e| refuse(e.message()))?;
        let Some(below) = backing::of(file, &header) else {
            return Ok((key, Some((node, None))));
        };
        // Where no format is recorded it may be either: it is looked into.
        match below.likely() {
            Some(format) => Ok((key, Some((node, Some((below.file, format)))))),
            None => {
                let doubt = below.format.err().unwrap_or(Doubt::Unrecorded);
                Err(chain::doubtful(at, file, &below.file, doubt))
            }
        }
    }

    /// Adds the chain under a file of somebody. Where that cannot be read, the file stands on all that it is `known` to
    /// have lain on, as far as that is there.
    ///
    /// # Errors
    /// As [`Graph::read`], where nothing is known of it either.
    pub fn follow_known(
        &mut self,
        at: &At,
        whose: Whose<'_>,
        (file, format): (&Path, Format),
        known: impl FnOnce() -> Option<Vec<PathBuf>>,
    ) -> Result<(), EngineError> {
        let Err(error) = self.follow(at, file.to_owned(), format) else {
            return Ok(());
        };
        let Some(known) = known() else {
            return Err(error);
        };
        tracing::debug!(%error, "Counts as lying on all that it lay on");
        let under = whose.under(&Chain::unknown(file), &known);
        self.stand(file, format, under, key(file));
        Ok(())
    }

    /// Adds the chain under a file, as far as its headers are trusted. If they are not, or it cannot be read, the file
    /// counts as lying on all that it is `known` to have lain on; a chain that is refused does not count at all, whatever
    /// its names lead to.
    ///
    /// # Errors
    /// As [`Graph::follow_known`].
    pub fn lay(
        &mut self,
        at: &At,
        whose: Whose<'_>,
        (file, format): (&Path, Format),
        known: impl FnOnce() -> Option<Vec<PathBuf>>,
    ) -> Result<(), EngineError> {
        let mut chain = chain_of(at, whose, file, format);
        if let Some(error) = chain.refused.take() {
            tracing::debug!(%error, "Counts as lying on what is recorded of it");
            let known = known().ok_or(error)?;
            self.stand(file, format, whose.under(&chain, &known), None);
            return Ok(());
        }
        if chain.unreadable.is_some() {
            return self.follow_known(at, whose, (file, format), known);
        }
        let below = chain.layers.iter().skip(1).map(Some).chain([None]);
        for (layer, below) in chain.layers.iter().zip(below) {
            let is_read = layer.format != Format::Raw;
            self.names.entry(layer.file.clone()).or_insert(layer.id);
            let known = self.nodes.get(&layer.id);
            if known.is_some_and(|node| node.is_read || !is_read) {
                continue;
            }
            let perhaps = known.map(|node| node.perhaps.clone());
            let node = Node {
                file: layer.file.clone(),
                format: layer.format,
                found: Identity::of(&layer.open).ok(),
                is_read,
                below: below.map(|below| below.id),
                perhaps: perhaps.unwrap_or_default(),
            };
            self.nodes.insert(layer.id, node);
        }
        Ok(())
    }

    /// Adds an active file by what is recorded of it alone: it is not looked into, and stands on all that.
    pub(crate) fn recorded(&mut self, file: &Path, format: Format, known: &[PathBuf]) {
        let nobodys = Whose {
            machine: None,
            disk: "",
            sealed: &[],
        };
        let under = nobodys.under(&Chain::unknown(file), known);
        self.stand(file, format, under, key(file));
    }

    fn stand(&mut self, file: &Path, format: Format, under: Under, found: Option<Key>) {
        // No file has this device number: one that is away has none.
        let away = (
            u64::MAX,
            u64::try_from(self.nodes.len()).unwrap_or(u64::MAX),
        );
        let key_of_it = found.unwrap_or(away);
        self.names.insert(file.to_owned(), key_of_it);
        if format == Format::Raw {
            return; // on nothing
        }
        let node = self.nodes.entry(key_of_it).or_insert_with(|| Node {
            file: file.to_owned(),
            format,
            found: found.and_then(|_| held::look_at(file).ok()),
            is_read: false,
            below: None,
            perhaps: Under::default(),
        });
        node.perhaps.join(under);
    }

    /// Whether one of these files is in the chain of the other.
    #[must_use]
    pub fn is_over(&self, file: &Path, below: &BTreeSet<Key>) -> bool {
        let mut next = self.key(file);
        let mut left = self.nodes.len();
        while let Some(key) = next {
            if below.contains(&key) {
                return true;
            }
            let node = self.nodes.get(&key).filter(|_| left > 0);
            (next, left) = (node.and_then(|node| node.below), left.saturating_sub(1));
        }
        false
    }

    /// Device and inode of those of the files that are there.
    pub fn keys<'a>(&self, files: impl IntoIterator<Item = &'a Path>) -> BTreeSet<Key> {
        files
            .into_iter()
            .filter_map(|file| self.key(file))
            .collect()
    }

    /// The file by any of its names.
    #[must_use]
    pub fn node(&self, file: &Path) -> Option<&Node> {
        self.nodes.get(&self.key(file)?)
    }

    /// Whether both names are of one file.
    #[must_use]
    pub fn is_same(&self, one: &Path, other: &Path) -> bool {
        one == other || self.key(one).is_some_and(|k| self.key(other) == Some(k))
    }

    /// The files that lie directly on this one.
    #[must_use]
    pub fn children(&self, file: &Path) -> Vec<&Node> {
        let Some(key) = self.key(file) else {
            return Vec::new();
        };
        let found = self.nodes.get(&key).and_then(|node| node.found);
        let found = found.or_else(|| held::look_at(file).ok());
        let may_be = |n: &Node| {
            n.perhaps.keys.contains(&key) || found.is_some_and(|found| n.perhaps.has(&found))
        };
        let nodes = self.nodes.values();
        let is_on = |n: &&Node| n.below == Some(key) || may_be(n);
        nodes.filter(is_on).collect()
    }

    /// Whether the header of this one names the file: of what only may lie on it nobody knows.
    #[must_use]
    pub fn is_right_on(&self, node: &Node, file: &Path) -> bool {
        node.below.is_some() && node.below == self.key(file)
    }

    /// The file and everything under it, from above.
    #[must_use]
    pub fn chain(&self, file: &Path) -> Vec<&Node> {
        let mut chain = Vec::new();
        let mut next = self.key(file);
        while let Some(node) = next.and_then(|k| self.nodes.get(&k)) {
            if chain.len() > self.nodes.len() {
                break; // a loop
            }
            chain.push(node);
            next = node.below;
        }
        chain
    }

    fn key(&self, file: &Path) -> Option<Key> {
        self.names.get(file).copied().or_else(|| key(file))
    }

    /// Every file that is reachable.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.nodes.values().map(|n| n.file.as_path())
    }
}

/// The files that were the active ones of the machine when it was imported.
#[must_use]
pub fn imported(machine: &Machine) -> Vec<PathBuf> {
    let definition = Definition::load(&machine.definition, machine.id);
    let disks = definition.map(|d| d.disk).unwrap_or_default();
    let named = disks.into_iter().map(|d| d.path);
    named
        .chain(machine.images.values().map(|i| i.file.clone()))
        .collect()
}

/// Whether the disk of a snapshot is a real file, by its record alone: for whoever has no drivers. Who has them asks
/// [`crate::engine::Drivers::in_files`].
#[must_use]
pub fn is_file(disk: &SnapshotDisk) -> bool {
    disk.driver != sim::NAME
}

/// Whether the server made the file: it lies under `sets` of the data directory, or is a clone beside an
/// image.
#[must_use]
pub fn is_ours(sets: &Path, file: &Path) -> bool {
    file.starts_with(sets) || reflink::is_clone(file)
}

/// How many folders above a file that the server made are the server's: `sets/<set>/<machine>` of the data directory,
/// or `.groupshot/<set>` beside an image.
#[must_use]
pub fn own_folders(file: &Path) -> usize {
    match reflink::is_clone(file) {
        true => 2,
        false => 3,
    }
}

/// Whether the file lies in a folder for clones, beside an image.
#[must_use]
pub fn is_clone(file: &Path) -> bool {
    reflink::is_clone(file)
}

/// The place of a file that the server made. No link is on the way to a clone; the data directory is the operator's.
///
/// # Errors
/// As [`Ours::of`].
pub fn ours(file: &Path) -> io::Result<Ours> {
    let levels = own_folders(file);
    if !reflink::is_clone(file) {
        return Ours::of(file, levels, Way::Beneath);
    }
    let ours = Ours::of(file, levels, Way::Straight)?;
    Ok(ours.within(beside::clones()))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;
    use crate::engine::qcow2::writer::NewImage;

    fn overlay(folder: &Path, name: &str, on: &Path, format: Format) -> PathBuf {
        let file = folder.join(name);
        let new = NewImage {
            size: 1 << 20,
            backing: Some((on, format)),
        };
        new.write(&File::create(&file).unwrap()).unwrap();
        file
    }

    #[test]
    fn branches_and_other_names_of_a_file_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base.raw");
        fs::write(&base, [0; 512]).unwrap();
        let one = overlay(dir.path(), "one.qcow2", &base, Format::Raw);
        let top = overlay(dir.path(), "top.qcow2", &one, Format::Qcow2);
        let link = dir.path().join("link.qcow2");
        std::os::unix::fs::symlink(&one, &link).unwrap();
        let branch = overlay(dir.path(), "branch.qcow2", &link, Format::Qcow2);
        let at = At::new("m", "d");
        let gone = (dir.path().join("gone.qcow2"), Format::Qcow2);
        let named = [top.clone(), branch.clone()].map(|f| (f, Format::Qcow2));
        let graph = Graph::read(&at, named.clone(), [gone.clone()]).unwrap();
        assert_eq!(graph.children(&one).len(), 2);
        assert_eq!(graph.children(&base).len(), 1);
        assert_eq!(graph.chain(&top).len(), 3);
        assert_eq!(graph.files().count(), 4);
        assert!(graph.is_same(&link, &one));
        // A file that is not there may lie on any other.
        let named = named.into_iter().chain([gone]);
        let error = Graph::read(&at, named, []).unwrap_err();
        assert_eq!(error.kind, EngineErrorKind::Missing);
        fs::remove_file(&base).unwrap();
        assert!(Graph::read(&at, [(top, Format::Qcow2)], []).is_err());
    }

    #[test]
    fn ours_is_what_lies_in_our_folders() {
        let sets = Path::new("/data/sets");
        assert!(is_ours(sets, Path::new("/data/sets/S/M/disk0.qcow2")));
        assert!(is_ours(sets, Path::new("/images/.groupshot/S/M-disk0.raw")));
        assert!(!is_ours(sets, Path::new("/images/web.raw")));
        assert!(!is_ours(sets, Path::new("/images/.groupshot.raw")));
    }
}
