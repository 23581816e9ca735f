//! What an operator says of images that their files do not tell for sure: the format of a backing file, and that an
//! image is smaller on purpose. It is kept in `tops.json`, beside the active files.

use std::io;
use std::path::{Path, PathBuf};

use crate::engine::definition::{self, SeenTop, TOPS, Tops};
use crate::engine::failure::{At, kind};
use crate::engine::qcow2::backing;
use crate::engine::qcow2::chain::{self, Layer, Roots};
use crate::engine::{EngineError, EngineErrorKind, Hold, library};
use crate::held;
use crate::id::VmId;
use crate::inventory::{Disk, Format, Machine};
use crate::text::catalog::engine as texts;

/// What is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// Of a disk, by its id, or of an image in the chain of one, by its path: the format of the file under it.
    pub backing_formats: Vec<(String, Format)>,
    /// Disks, by their ids, whose active file counts as whole as it is now.
    pub whole: Vec<String>,
}

impl Said {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.backing_formats.is_empty() && self.whole.is_empty()
    }
}

/// Records it, durably; says whether there was anything to record. The active files are held meanwhile, so that no
/// operation records others. Whoever calls holds the library against other commands.
///
/// # Errors
/// [`EngineErrorKind::Missing`] if there is no such machine, disk or file of one; [`EngineErrorKind::Locked`] while an
/// operation or a process has a disk; [`EngineErrorKind::Denied`] if a file that is meant, or one under it, lies outside
/// `roots`; nothing was recorded then.
pub fn record(data_dir: &Path, id: VmId, said: &Said, roots: &Roots) -> Result<bool, EngineError> {
    let (machines, _) = library::scan(data_dir)?;
    let machine = machines.get(&id).ok_or_else(|| library::unknown(id))?;
    let _held = Hold::of(machine)?;
    let file = machine.directory.join(TOPS);
    let failed = |e: io::Error| EngineError {
        kind: kind(&e),
        text: texts::TOPS_WRITE
            .with("machine", &machine.name)
            .with("cause", e),
    };
    let load = || Tops::load(&file).map_err(failed);
    let turned = definition::in_turn(&machine.directory, failed, load, |new| {
        for (target, format) in &said.backing_formats {
            new.backing_formats
                .insert(naming(machine, target, roots)?, *format);
        }
        for target in &said.whole {
            let disk = machine.disks.iter().find(|d| d.id == *target);
            let disk = disk.ok_or_else(|| unknown(machine, target))?;
            let (layers, unread) = chain::readable(&disk.file, disk.format);
            require_within(
                &At::disk(machine, disk),
                (&layers, unread.as_deref()),
                roots,
            )?;
            let seen = SeenTop::of(&disk.file, disk.format).ok_or_else(|| {
                let at = At::disk(machine, disk);
                at.io(&disk.file, &io::ErrorKind::InvalidData.into())
            })?;
            new.seen.insert(disk.id.clone(), seen);
        }
        Ok(())
    })?;
    if turned.new == turned.old {
        return Ok(false);
    }
    turned.new.save(&file).map_err(|e| failed(e.into()))?;
    Ok(true)
}

/// The image whose header names no format that the target means.
fn naming(machine: &Machine, target: &str, roots: &Roots) -> Result<PathBuf, EngineError> {
    let of_disk = machine.disks.iter().find(|d| d.id == target);
    let disks: Vec<&Disk> = match of_disk {
        Some(disk) => vec![disk],
        None => machine.disks.iter().collect(),
    };
    let path = held::canonicalize(Path::new(target)).ok();
    for disk in disks {
        let (layers, unread) = chain::readable(&disk.file, disk.format);
        let mut silent = layers.iter().filter(|layer| {
            let header = layer.header.as_ref();
            let names = header.is_some_and(|h| backing::of(&layer.file, h).is_some());
            names && header.is_some_and(|h| h.backing_format().is_none())
        });
        let found = silent.find(|layer| {
            of_disk.is_some() || (path.is_some() && held::canonicalize(&layer.file).ok() == path)
        });
        if let Some(found) = found {
            require_within(
                &At::disk(machine, disk),
                (&layers, unread.as_deref()),
                roots,
            )?;
            return Ok(found.file.clone());
        }
    }
    Err(unknown(machine, target))
}

/// Refuses a chain with a file outside `roots`, also the one whose format is to be said. What cannot be reached is nobody's
/// to be opened.
fn require_within(
    at: &At,
    (layers, unread): (&[Layer], Option<&Path>),
    roots: &Roots,
) -> Result<(), EngineError> {
    let mut files = layers
        .iter()
        .map(|layer| layer.file.as_path())
        .chain(unread);
    let is_outside = |file: &&Path| roots.admit(file).is_ok_and(|inside| !inside);
    match files.find(is_outside) {
        None => Ok(()),
        Some(file) => Err(EngineError {
            kind: EngineErrorKind::Denied,
            text: roots.outside(at, file),
        }),
    }
}

fn unknown(machine: &Machine, target: &str) -> EngineError {
    EngineError {
        kind: EngineErrorKind::Missing,
        text: texts::NOT_SILENT
            .with("machine", &machine.name)
            .with("target", target),
    }
}
