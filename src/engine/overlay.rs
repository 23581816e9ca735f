//! The driver for every file system: a new, empty qcow2 overlay becomes the active file and the old one is frozen as its
//! backing file. The machine must then be started from the overlay, so its definition has to allow that (`overlay_ok`).
//!
//! The overlay is in the data directory and names the old active file by its absolute path. An old active file that the
//! server made itself becomes 0444; the operator's own imported file keeps its mode.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::engine::capture::NewFile;
use crate::engine::failure::{At, ours};
use crate::engine::files::InFiles;
use crate::engine::fsxattr;
use crate::engine::graph;
use crate::engine::links;
use crate::engine::qcow2::chain::{self, Roots};
use crate::engine::qcow2::writer::NewImage;
use crate::engine::space::Reserve;
use crate::engine::stage::Found;
use crate::engine::{
    Capture, Driver, EngineError, EngineErrorKind, Hold, Plan, Prepared, Read, Retain, Revert,
    RevertPlan, RevertRequest, Stamp, Top,
};
use crate::engine::{exchange, image as images, reflink, stage};
use crate::held::{self, Foreign};
use crate::id::{JobId, SetId};
use crate::inventory::{Disk, Format, Machine, Sealed, SnapshotDisk};
use crate::text::catalog::engine as texts;

pub(crate) const NAME: &str = "overlay";

/// Where the overlay of this job over the active file of a disk stands.
pub(crate) fn named(folder: &Path, disk: &str, job: JobId) -> PathBuf {
    exchange::beside(folder, disk, job, "qcow2")
}

/// Makes an empty overlay over a file that stays as it is, durably, with its owner and mode.
///
/// # Errors
/// [`EngineError`] naming the file; nothing is left then that anybody would take for a file of a machine.
pub(crate) fn over(at: &At, base: &Top, new: &Path) -> Result<(), EngineError> {
    let (layers, unreadable) = chain::readable(&base.file, base.format);
    let whole = unreadable.map_or(Ok(()), |file| Err((file, io::ErrorKind::InvalidData)));
    whole.map_err(|(file, kind)| at.io(&file, &kind.into()))?;
    let Some(layer) = layers.first() else {
        return Err(at.io(&base.file, &io::ErrorKind::NotFound.into()));
    };
    let image = NewImage {
        size: layer.size,
        backing: Some((&base.file, base.format)),
    };
    image.require(at, &base.file)?;
    let make = || {
        let ours = graph::ours(new)?;
        let file = stage::create_file(&ours)?;
        let mut lost = fsxattr::take_hints(&file, &layer.open);
        image.write(&file)?;
        lost.extend(exchange::take_over(&file, &layer.open)?);
        // What it had before it was frozen is not known.
        exchange::make_writable(&file)?;
        exchange::tell(new, &lost);
        file.sync_all()?;
        ours.folder()?.sync()
    };
    make().map_err(|e: io::Error| at.io(new, &e))
}

/// The overlay driver.
#[derive(Debug)]
pub struct Overlay {
    sets: PathBuf,
    reserve: Reserve,
    chain_cap: usize,
    roots: Roots,
}

impl Overlay {
    /// The driver that keeps its files under `data_dir`. It refuses a disk whose chain would become deeper than
    /// `chain_cap` files.
    #[must_use]
    pub fn new(data_dir: &Path, reserve: Reserve, chain_cap: usize) -> Self {
        Self {
            sets: data_dir.join(held::SETS),
            reserve,
            chain_cap,
            roots: Roots::default(),
        }
    }

    /// Takes no image with a file outside `roots`.
    #[must_use]
    pub fn within(self, roots: Roots) -> Self {
        Self { roots, ..self }
    }

    /// The overlay gets the owner and mode of what lies under it.
    fn require_owner(&self, at: &At, image: &Path, open: &File) -> Result<(), EngineError> {
        let Ok(file) = stage::nameless(self.there()) else {
            return Ok(()); // tried when it is made
        };
        match exchange::forbidden(&file, open) {
            None => Ok(()),
            Some(why) => Err(EngineError {
                kind: EngineErrorKind::Denied,
                text: at.text(texts::OWNER_DENIED, image).with("cause", why),
            }),
        }
    }

    /// The folder for sets, or the nearest above that is there.
    fn there(&self) -> &Path {
        let mut folders = self.sets.ancestors();
        folders.find(|f| held::is_folder(f)).unwrap_or(&self.sets)
    }

    /// Writes the overlay under its staged name, durably. An older attempt is replaced.
    fn stage(plan: &Plan, source: &File) -> io::Result<()> {
        let file = stage::create(plan)?;
        let mut lost = fsxattr::take_hints(&file, source);
        image(plan).write(&file)?;
        lost.extend(exchange::take_over_writable(&file, source)?);
        exchange::tell(&plan.file().new_file, &lost);
        file.sync_all()?;
        stage::sync_folder(plan)
    }

    /// Sets the mode of an old top that is ours; the operator's own files are left alone.
    fn set_mode(&self, plan: &Plan, mode: u32) -> Result<(), EngineError> {
        let file = &plan.disk.file;
        if !file.starts_with(&self.sets) {
            return Ok(());
        }
        // Durable: its times are noted with the snapshot, and a power cut must not bring back older ones.
        let set = || {
            let (folder, name) = held::folder_of_ours(file, graph::own_folders(file))?;
            let open = folder.open_file(name, false)?;
            let (expected, found) = (plan.file().seen.inode, open.metadata()?.ino());
            if expected != found {
                return Err(Foreign::Other { expected, found }.into());
            }
            held::set_mode(&open, mode)?;
            open.sync_all()
        };
        set().map_err(|e: io::Error| At::plan(plan).io(file, &e))
    }
}

impl Driver for Overlay {
    fn name(&self) -> &'static str {
        NAME
    }

    fn retain(&self) -> Option<&dyn Retain> {
        Some(self)
    }

    fn read(&self) -> Option<&dyn Read> {
        Some(self)
    }
}

impl InFiles for Overlay {
    fn roots(&self) -> &Roots {
        &self.roots
    }
}

impl Capture for Overlay {
    fn plan(
        &self,
        machine: &Machine,
        disk: &Disk,
        set: SetId,
    ) -> Result<Option<Plan>, EngineError> {
        let at = At::disk(machine, disk);
        let chain = images::open(&at, machine, disk, &disk.file, (&self.roots, None))?;
        chain::require_whole(&at, &chain)?;
        if !machine.overlay_ok {
            let text = match reflink::forbidden(&disk.file) {
                Some(why) => at.text(texts::CLONE_DENIED, &disk.file).with("cause", why),
                None => at.text(texts::OVERLAY_NOT_OK, &disk.file),
            };
            let kind = EngineErrorKind::Unsupported;
            let text = links::allowing(text, machine, disk);
            return Err(EngineError { kind, text });
        }
        let Some(top) = chain.first() else {
            return Ok(None);
        };
        self.require_owner(&at, &disk.file, &top.open)?;
        let meta = top.open.metadata().map_err(|e| at.io(&disk.file, &e))?;
        let size = top.size;
        let plan = Plan {
            driver: NAME.to_owned(),
            set,
            machine: machine.id,
            machine_name: machine.name.clone(),
            disk: Disk {
                size,
                ..disk.clone()
            },
            own: NewFile {
                new_file: self
                    .sets
                    .join(set.to_string())
                    .join(machine.id.to_string())
                    .join(format!("{}.qcow2", disk.id)),
                seen: Stamp::of(&meta),
                place: None,
                mode: Some(meta.mode() & 0o7777),
            },
        };
        if chain.len() >= self.chain_cap {
            return Err(EngineError {
                kind: EngineErrorKind::Unsupported,
                text: at
                    .text(texts::CHAIN_CAP, &disk.file)
                    .with("limit", self.chain_cap),
            });
        }
        image(&plan).require(&at, &disk.file)?;
        Ok(Some(plan))
    }

    fn room(&self, plan: &Plan) -> Result<(), EngineError> {
        let place = texts::DATA_DIRECTORY.text();
        self.reserve.require(&At::plan(plan), self.there(), place)
    }

    fn prepare(&self, plan: &Plan) -> Result<(), EngineError> {
        if stage::probe(plan)? == Found::Cut {
            return Ok(());
        }
        let at = At::plan(plan);
        let source = stage::source(plan)?;
        stage::make_dirs(&self.sets, 1).map_err(|e| ours(plan, &self.sets, &e))?;
        self.room(plan)?;
        Self::stage(plan, &source).map_err(|e| ours(plan, &plan.file().new_file, &e))?;
        // What the machine wrote last may still be in memory only.
        source.sync_all().map_err(|e| at.io(&plan.disk.file, &e))
    }

    /// Checks that the old active file has not changed since the plan, and gives the overlay its final name. With the
    /// machine off there is nothing else to capture.
    fn cut(&self, plan: &Plan) -> Result<(), EngineError> {
        match stage::probe(plan)? {
            Found::Cut => Ok(()),
            Found::Prepared => {
                stage::source(plan)?;
                stage::commit(plan)
            }
            Found::Absent => Err(At::plan(plan).error(
                EngineErrorKind::Failed,
                texts::NOT_PREPARED,
                &plan.disk.file,
            )),
        }
    }

    fn settle(&self, plan: &Plan) -> Result<(), EngineError> {
        stage::settle(plan)?;
        self.set_mode(plan, 0o444)
    }

    fn top_after(&self, plan: &Plan) -> Top {
        Top {
            file: plan.file().new_file.clone(),
            format: Format::Qcow2,
        }
    }

    fn captured(&self, plan: &Plan) -> SnapshotDisk {
        SnapshotDisk {
            id: plan.disk.id.clone(),
            file: plan.disk.file.clone(),
            format: plan.disk.format,
            size: plan.disk.size,
            driver: NAME.to_owned(),
            sealed: Vec::new(),
            damage: None,
        }
    }

    fn undo(&self, plan: &Plan) -> Result<(), EngineError> {
        // Before the overlay is there `settle` has closed nothing. What an older version has planned tells no mode; there
        // the overlay has that of its base.
        if let Ok(overlay) = held::symlink_metadata(&plan.file().new_file) {
            let mode = plan.file().mode.unwrap_or(overlay.mode());
            self.set_mode(plan, mode & 0o7777)?;
        }
        stage::undo(plan)
    }

    fn seal(
        &self,
        plan: &Plan,
        machine: Option<&Machine>,
        known: &BTreeSet<Sealed>,
    ) -> Result<Vec<Sealed>, EngineError> {
        stage::seal(plan, &self.captured(plan), machine, known)
    }
}

impl Revert for Overlay {
    fn plan_revert(&self, request: RevertRequest<'_>) -> Result<RevertPlan, EngineError> {
        let (set, machine, disk) = (request.set, request.machine, request.disk);
        let kept = request.kept;
        let folder = self.sets.join(set.to_string()).join(machine.id.to_string());
        let new_file = exchange::beside(&folder, &disk.id, request.job, "qcow2");
        let image = NewImage {
            size: kept.size,
            backing: Some((&kept.file, kept.format)),
        };
        image.require(&At::disk(machine, disk), &kept.file)?;
        let new = (new_file, Format::Qcow2);
        exchange::plan(NAME, request, new, (None, None), &self.roots)
    }

    fn prepare_revert(&self, revert: &RevertPlan) -> Result<Prepared, EngineError> {
        let place = texts::DATA_DIRECTORY.text();
        self.reserve
            .require(&At::revert(revert), &self.sets, place)?;
        exchange::overlay(revert, &self.roots)
    }

    fn hold_revert(&self, revert: &RevertPlan) -> Result<Hold, EngineError> {
        exchange::hold(revert)
    }

    fn revert(&self, revert: &RevertPlan) -> Result<(), EngineError> {
        exchange::exchange(revert)
    }

    fn top_reverted(&self, revert: &RevertPlan) -> Top {
        exchange::top(revert)
    }

    fn settle_revert(&self, revert: &RevertPlan) -> Result<(), EngineError> {
        exchange::settle(revert)
    }

    fn undo_revert(&self, revert: &RevertPlan) -> Result<(), EngineError> {
        exchange::undo(revert)
    }
}

fn image(plan: &Plan) -> NewImage<'_> {
    NewImage {
        size: plan.disk.size,
        backing: Some((&plan.disk.file, plan.disk.format)),
    }
}
