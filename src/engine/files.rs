//! What all drivers that keep snapshots in chains of files have in common: reading them, and giving them up.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::engine::failure::{At, kind};
use crate::engine::flatten::flatten;
use crate::engine::locks::ImageLock;
use crate::engine::merge;
use crate::engine::qcow2::chain::{Layer, Roots, Within, by_suffix};
use crate::engine::qcow2::writer::SIZE_MAX;
use crate::engine::read::{Flat, Kept, Read, Step, Target};
use crate::engine::retain::{
    Census, Chained, Merge, Merged, Retain, Scene, Stands, Survey, Watch, Whose,
};
use crate::engine::space::Reserve;
use crate::engine::{Compute, EngineError, EngineErrorKind, Hold, Stamp, Uses};
use crate::engine::{graph, image, kept, names, stage, survey};
use crate::held::{self, Foreign, Identity, Origin};
use crate::id::VmId;
use crate::inventory::{Format, Machine, Seal, Sealed};

/// A driver that keeps what it captures in files.
pub trait InFiles: Send + Sync + 'static {
    /// Where all files of a chain must lie.
    fn roots(&self) -> &Roots;
}

/// Chains of files, whoever made them.
#[derive(Debug, Default)]
pub(crate) struct Chains(Roots);

impl Chains {
    /// With all their files in these folders.
    pub(crate) const fn within(roots: Roots) -> Self {
        Self(roots)
    }
}

impl InFiles for Chains {
    fn roots(&self) -> &Roots {
        &self.0
    }
}

impl<T: InFiles> Read for T {
    fn largest(&self) -> u64 {
        SIZE_MAX
    }

    fn sources(&self, kept: Kept<'_>) -> Result<Vec<PathBuf>, EngineError> {
        let layers = layers(self, kept)?;
        Ok(layers.into_iter().map(|layer| layer.file).collect())
    }

    fn weight(&self, kept: Kept<'_>) -> u64 {
        let layers = layers(self, kept).unwrap_or_default();
        let files = layers.iter().filter_map(|l| held::metadata(&l.file).ok());
        files.map(|m| m.blocks().saturating_mul(512)).sum()
    }

    fn copy(
        &self,
        kept: Kept<'_>,
        target: Target<'_>,
        reserve: &Reserve,
        step: Step<'_>,
    ) -> Result<Option<Flat>, EngineError> {
        flatten(kept.at, &layers(self, kept)?, target, reserve, step)
    }
}

fn layers(driver: &impl InFiles, of: Kept<'_>) -> Result<Vec<Layer>, EngineError> {
    kept::open(of.at, of.machine, of.disk, (driver.roots(), None))
}

/// Seals the file of a disk and every file under it, as they are now.
///
/// # Errors
/// As [`Retain::seal`].
pub(crate) fn seal(
    of: Kept<'_>,
    within: Within<'_>,
    known: &BTreeSet<Sealed>,
) -> Result<Vec<Sealed>, EngineError> {
    let (at, disk) = (of.at, of.disk);
    let top = (disk.file.as_path(), disk.format);
    let layers = image::open_accepted(at, of.machine, &disk.id, top, within)?;
    let sealed = layers.into_iter().map(|layer| {
        let io = |e: io::Error| at.io(&layer.file, &e);
        let look = || Ok(Seal::of(&layer.open.metadata()?));
        let seal = held::ask(&layer.file, look).map_err(io)?;
        let file = layer.real;
        let sealed = Sealed { file, seal };
        if !known.contains(&sealed)
            // Times that are in memory only would be others after a power cut.
            && let Err(error) = layer.open.sync_all()
        {
            tracing::debug!(file = %sealed.file.display(), %error, "Sealed without a sync");
        }
        Ok(sealed)
    });
    sealed.collect()
}

impl<T: InFiles> Retain for T {
    /// Wherever the files lie: the folders for images may be others by now.
    fn seal(&self, kept: Kept<'_>, known: &BTreeSet<Sealed>) -> Result<Vec<Sealed>, EngineError> {
        seal(kept, (&Roots::default(), None), known)
    }

    fn again(&self, sealed: &Sealed) -> io::Result<Sealed> {
        let open = merge::expected(&sealed.file, Some(Origin::numbered(sealed.seal.inode)))?;
        let seal = held::ask(&sealed.file, || {
            open.sync_all()?;
            Ok(Seal::of(&open.metadata()?))
        });
        let file = sealed.file.clone();
        seal.map(|seal| Sealed { file, seal })
    }

    fn chain(&self, at: &At, whose: Whose<'_>, (file, format): (&Path, Format)) -> Chained {
        let chain = graph::chain_of(at, whose, file, format);
        let is_whole = chain.is_whole();
        let layers = chain.layers.into_iter();
        Chained {
            files: layers.map(|layer| (layer.file, layer.format)).collect(),
            unreadable: chain.unreadable,
            is_whole,
        }
    }

    fn imported(&self, machine: &Machine) -> Vec<PathBuf> {
        graph::imported(machine)
    }

    fn is_ours(&self, sets: &Path, file: &Path) -> bool {
        graph::is_ours(sets, file)
    }

    fn is_made_for(&self, sets: &Path, machine: VmId, file: &Path) -> bool {
        names::is_made_for(sets, machine, file)
    }

    fn is_beside(&self, file: &Path) -> bool {
        graph::is_clone(file)
    }

    fn beside(&self, image: &Path) -> BTreeSet<PathBuf> {
        names::beside(image)
    }

    fn machine_of(&self, file: &Path) -> Option<VmId> {
        names::machine_of(file)
    }

    fn is_image(&self, file: &Path) -> bool {
        by_suffix(file).is_some()
    }

    fn is_gone(&self, compute: &dyn Compute, machine: VmId, file: &Path) -> io::Result<bool> {
        if graph::is_clone(file) {
            return survey::is_gone(compute, machine, file);
        }
        match graph::ours(file) {
            Err(e) if kind(&e) == EngineErrorKind::Missing => Ok(true),
            ours => Ok(ours?.look()?.is_none()),
        }
    }

    fn survey(&self, scene: Scene) -> Result<Box<dyn Survey>, EngineError> {
        Ok(Box::new(survey::Files::look(scene)?))
    }

    fn uses(&self, census: Box<dyn Fn() -> Census + Send + Sync>) -> Uses {
        Uses::of(census)
    }

    fn hold(&self, at: &At, file: &Path) -> Result<Hold, EngineError> {
        ImageLock::take(at, file).map(Hold::on)
    }

    fn stamp(&self, file: &Path) -> io::Result<Stamp> {
        held::symlink_metadata(file).map(|m| Stamp::of(&m))
    }

    fn stands(&self, merge: &Merge) -> [Stands; 2] {
        let inodes = merge.inodes;
        let of = |file, inode| match merge::expected(file, inode) {
            Err(e) if kind(&e) == EngineErrorKind::Missing => Stands::Gone,
            Err(e) if !held::is_silence(&e) => Stands::Other,
            _ => Stands::There,
        };
        [
            of(&merge.parent, inodes.parent),
            of(&merge.child, inodes.child),
        ]
    }

    fn merge(
        &self,
        at: &At,
        merge: &Merge,
        compute: &dyn Compute,
        watch: &Watch<'_>,
    ) -> Result<Merged, EngineError> {
        let (machine, roots) = (compute.machine(merge.machine), compute.roots());
        merge.work(at, &roots, machine.as_deref()).run(watch)
    }

    fn close(&self, file: &Path, inodes: &[u64]) -> io::Result<(Seal, Seal)> {
        let ours = graph::ours(file)?;
        let open = ours.folder()?.open_file(ours.name(), false)?;
        let seal = || Ok::<_, io::Error>(Seal::of(&open.metadata()?));
        let found = Identity::of(&open)?.inode;
        match inodes.first() {
            Some(&expected) if !inodes.contains(&found) => {
                return Err(Foreign::Other { expected, found }.into());
            }
            _ => {}
        }
        let before = seal()?;
        held::set_mode(&open, stage::kept_mode(Identity::of(&open)?.mode))?;
        open.sync_all()?;
        Ok((before, seal()?))
    }

    fn seal_own(&self, file: &Path) -> Option<Seal> {
        let ours = graph::ours(file).ok()?;
        let open = ours.folder().and_then(|f| f.open_file(ours.name(), false));
        Some(Seal::of(&open.ok()?.metadata().ok()?))
    }

    fn is_there(&self, file: &Path) -> bool {
        let there = graph::ours(file).and_then(|ours| ours.look());
        there.is_ok_and(|it| it.is_some())
    }

    fn unlink(&self, sets: &Path, file: &Path, inode: Option<u64>) -> io::Result<bool> {
        let ours = match graph::ours(file) {
            Err(e) if kind(&e) == EngineErrorKind::Missing => return Ok(false),
            ours => ours?,
        };
        let was_there = ours.discard(inode)?;
        let own = if file.starts_with(sets) { 2 } else { 1 };
        match ours.remove_folders(own) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(was_there),
            removed => removed.map(|()| was_there),
        }
    }
}
