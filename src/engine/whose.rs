//! Whose a file is: how far the headers of its chain are trusted, and on which files it counts as lying if they are not.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::engine::failure::At;
use crate::engine::names::is_made_for;
use crate::engine::qcow2::chain::{self, Layer};
use crate::engine::{EngineError, image};
use crate::held::{self, Foreign, Identity};
use crate::inventory::{Format, Image, Machine, Seal, Sealed};

/// Device and inode: what makes two names the same file.
pub type Key = (u64, u64);

/// Of whom a file is, and so what is recorded of what lies under it.
#[derive(Debug, Clone, Copy)]
pub struct Whose<'a> {
    /// The machine, unless it is gone or cannot be read.
    pub machine: Option<&'a Machine>,
    /// The disk.
    pub disk: &'a str,
    /// As what the files of a snapshot were frozen; empty of an active file.
    pub sealed: &'a [Sealed],
}

/// A chain from above, as far as it is known.
#[derive(Debug)]
pub struct Chain {
    /// The files.
    pub layers: Vec<Layer>,
    /// The file of which it is not known what lies under it.
    pub unreadable: Option<PathBuf>,
    /// The file under the last one is not what was imported or captured: the header is not trusted.
    pub refused: Option<EngineError>,
}

impl Chain {
    /// Of a file of which nothing is known.
    #[must_use]
    pub fn unknown(file: &Path) -> Self {
        Self {
            layers: Vec::new(),
            unreadable: Some(file.to_owned()),
            refused: None,
        }
    }

    /// Whether all of it is known.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.unreadable.is_none() && self.refused.is_none()
    }
}

/// What lies under a file, by headers of files that are what was imported or captured.
#[must_use]
pub fn chain_of(at: &At, whose: Whose<'_>, file: &Path, format: Format) -> Chain {
    let (mut layers, mut unreadable) = chain::readable(file, format);
    let judged = whose.judge(at, &layers, unreadable.as_deref());
    let refused = judged.err().and_then(|(count, error)| {
        let count = believed(&layers, count);
        let is_cut = count < layers.len() || (unreadable.is_some() && count == layers.len());
        is_cut.then_some((count, error))
    });
    let refused = refused.map(|(count, error)| {
        layers.truncate(count);
        unreadable = None;
        error
    });
    Chain {
        layers,
        unreadable,
        refused,
    }
}

/// How many files from above are trusted to lie on each other if so many are what is recorded: a header of a file of
/// root or of the server's own user was not written by an untrusted user.
fn believed(layers: &[Layer], recorded: usize) -> usize {
    let is_ours = |layer: &Layer| Identity::of(&layer.open).is_ok_and(|it| it.is_ours());
    let ours = layers.iter().take_while(|layer| is_ours(layer)).count();
    match recorded {
        0 => 0, // it is another file
        n if n <= ours => ours.saturating_add(1),
        n => n,
    }
}

impl Whose<'_> {
    /// How many files are what is recorded, and why the next is not.
    fn judge(
        &self,
        at: &At,
        layers: &[Layer],
        unreadable: Option<&Path>,
    ) -> Result<(), (usize, EngineError)> {
        if let Some(machine) = self.machine {
            image::fits(at, machine, self.disk, layers)?;
        }
        let refuse = |n, file: &Path| Err((n, image::swapped(at, file, Foreign::Unrecorded)));
        let is_kept = |layer: &Layer| {
            let is_it = |s: &Sealed| s.file == layer.real && s.seal.inode == layer.id.1;
            self.sealed.iter().any(is_it) || self.is_recorded(&layer.real)
        };
        if !self.sealed.is_empty()
            && let Some(n) = layers.iter().position(|layer| !is_kept(layer))
        {
            return refuse(n, layers.get(n).map_or(Path::new("?"), |it| &it.file));
        }
        let knows_all = !self.sealed.is_empty() || self.image().is_some();
        match unreadable.filter(|_| knows_all && !layers.is_empty()) {
            Some(file) if !self.is_recorded(file) => {
                let is_sealed = self.sealed.iter().any(|s| s.file == file);
                if is_sealed {
                    return Ok(());
                }
                refuse(layers.len(), file)
            }
            _ => Ok(()),
        }
    }

    /// What is recorded of the image of the disk with all that lies under it.
    fn image(&self) -> Option<&Image> {
        let image = self.machine?.images.get(self.disk);
        image.filter(|image| image.below.is_some())
    }

    /// Whether the file has a name that is recorded, or one that the server gives to files of the machine.
    fn is_recorded(&self, file: &Path) -> bool {
        let mut images = self.image().into_iter().flat_map(Image::chain);
        let made = self.machine.and_then(|machine| {
            let data_dir = machine.directory.ancestors().nth(2)?;
            Some(is_made_for(&data_dir.join(held::SETS), machine.id, file))
        });
        made == Some(true) || images.any(|image| image.file == file || image.named == file)
    }
}

impl Whose<'_> {
    /// The files that a file with an incomplete chain counts as lying on: the trusted part of the chain, and what is under
    /// the names that it is `known` to have lain on. A file whose identity is recorded is recognised wherever it was moved
    /// to; what a link in its place leads to counts only if no untrusted user can have put the link there.
    #[must_use]
    pub fn under(&self, chain: &Chain, known: &[PathBuf]) -> Under {
        let mut under = Under::default();
        let believed = chain.layers.iter().skip(1);
        under.keys.extend(believed.map(|layer| layer.id));
        let images = self.machine.and_then(|it| it.images.get(self.disk));
        for file in known {
            let (images_before, seals_before) = (under.images.len(), under.seals.len());
            let images = images.into_iter().flat_map(Image::chain);
            let images = images.filter(|it| it.file == *file || it.named == *file);
            under.images.extend(images.cloned());
            let seals = self.sealed.iter().filter(|it| it.file == *file);
            under.seals.extend(seals.map(|it| it.seal));
            let is_told = (images_before, seals_before) != (under.images.len(), under.seals.len());
            if !is_told || held::is_led(file).unwrap_or(false) {
                under.keys.extend(key(file));
            }
        }
        under
    }
}

/// The files that a file counts as lying on if it cannot be read or its header is not trusted.
#[derive(Debug, Clone, Default)]
pub struct Under {
    /// Files that stand under the recorded names.
    pub keys: BTreeSet<Key>,
    /// What is recorded of imported files, wherever they are now.
    images: Vec<Image>,
    /// As what files were frozen, wherever they are now.
    seals: Vec<Seal>,
}

impl Under {
    /// Whether that file may be one of them.
    #[must_use]
    pub fn has(&self, file: &Identity) -> bool {
        self.keys.contains(&(file.device, file.inode))
            || self.images.iter().any(|it| image::is_it(it, file))
            || self.seals.iter().any(|it| is_sealed(it, file))
    }

    /// Whether it may lie on nothing else.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.images.is_empty() && self.seals.is_empty()
    }

    /// With what another name of the file says.
    pub fn join(&mut self, other: Self) {
        self.keys.extend(other.keys);
        self.images.extend(other.images);
        self.seals.extend(other.seals);
    }
}

/// Whether the file is the frozen one, as far as its seal tells.
fn is_sealed(seal: &Seal, file: &Identity) -> bool {
    (seal.inode, seal.length) == (file.inode, file.length)
}

/// What stands there, links followed.
pub(super) fn key(file: &Path) -> Option<Key> {
    let meta = held::metadata(file).ok()?;
    Some((meta.dev(), meta.ino()))
}
