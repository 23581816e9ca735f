//! The driver for file systems that share blocks (XFS, btrfs): the snapshot is a clone of the image, and
//! the image stays the active file.
//!
//! Clones lie in `.groupshot/<set guid>/` beside the image, because a clone must share its file system; where the
//! image is named by a symbolic link, beside what the link leads to.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{IFlags, ioctl_ficlone};

use crate::engine::beside::{self, Beside, FOLDER};
use crate::engine::capture::NewFile;
use crate::engine::extents;
use crate::engine::failure::{At, kind};
use crate::engine::files::InFiles;
use crate::engine::qcow2::chain::{self, Layer, Roots};
use crate::engine::qcow2::editor;
use crate::engine::qcow2::header::Header;
use crate::engine::space::Reserve;
use crate::engine::stage::Found;
use crate::engine::{
    Capture, Driver, EngineError, EngineErrorKind, Hold, Live, Plan, Prepared, Read, Retain,
    Revert, RevertPlan, RevertRequest, Stamp, Top,
};
use crate::engine::{exchange, image, stage};
use crate::held::{self, Folder};
use crate::id::SetId;
use crate::inventory::{Disk, Format, Machine, Sealed, SnapshotDisk};
use crate::text::Text;
use crate::text::catalog::engine as texts;

const NAME: &str = "reflink";

/// The reflink driver.
#[derive(Debug)]
pub struct Reflink {
    reserve: Reserve,
    roots: Roots,
    extents: u64,
}

impl Reflink {
    /// The driver.
    #[must_use]
    pub fn new(reserve: Reserve) -> Self {
        Self {
            reserve,
            roots: Roots::default(),
            extents: u64::MAX,
        }
    }

    /// Takes no image with a file outside `roots`.
    #[must_use]
    pub fn within(self, roots: Roots) -> Self {
        Self { roots, ..self }
    }

    /// Leaves images of more extents than this to another driver: cloning takes time for each of them.
    #[must_use]
    pub fn at_most(self, extents: u64) -> Self {
        Self { extents, ..self }
    }

    /// Whether the image is too fragmented to be cloned quickly. If the extents cannot be counted, only the trial clone
    /// decides.
    fn is_scattered(&self, file: &Path, open: &File) -> bool {
        let Ok(extents) = extents::count(open) else {
            return false;
        };
        let scattered = extents > self.extents;
        if scattered {
            tracing::info!(file = %file.display(), extents, limit = self.extents,                 "Too many extents to clone; another driver is asked");
        }
        scattered
    }
}

impl Driver for Reflink {
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

impl InFiles for Reflink {
    fn roots(&self) -> &Roots {
        &self.roots
    }
}

impl Capture for Reflink {
    /// Tries a real clone: the name of the file system tells nothing (other mounts, NOCOW files, quotas).
    fn plan(
        &self,
        machine: &Machine,
        disk: &Disk,
        set: SetId,
        live: Option<Live>,
    ) -> Result<Option<Plan>, EngineError> {
        let at = At::disk(machine, disk);
        let file = recorded(machine, disk);
        let beside = file.parent().unwrap_or(Path::new("/"));
        let place = match Beside::of(&at, beside, file) {
            // One of ours, in a data directory that the operator names by a link.
            Err(e)
                if e.kind == EngineErrorKind::Unsupported
                    && machine.image(&disk.file).is_none() =>
            {
                return Ok(None);
            }
            place => place?,
        };
        let chain = image::open(&at, machine, disk, file, (&self.roots, Some(&place)))?;
        // What a machine is writing now need not be whole; the clone is looked at.
        let stands = usize::from(live.is_some());
        chain::require_whole(&at, chain.get(stands..).unwrap_or_default())?;
        let Some(top) = chain.first() else {
            return Ok(None);
        };
        let meta = top.open.metadata().map_err(|e| at.io(file, &e))?;
        if self.is_scattered(file, &top.open) {
            return Ok(None);
        }
        let name = format!("{}-{}.{}", machine.id, disk.id, disk.format.as_str());
        let plan = Plan {
            driver: NAME.to_owned(),
            set,
            machine: machine.id,
            machine_name: machine.name.clone(),
            disk: Disk {
                file: file.to_owned(),
                size: top.size,
                ..disk.clone()
            },
            own: NewFile {
                new_file: beside.join(FOLDER).join(set.to_string()).join(name),
                seen: Stamp::of(&meta),
                place: Some(place.clone()),
                live,
                made: None,
                mode: None,
            },
        };
        // A failed trial (FICLONE unsupported, other mount, folder not writable) is no fault of the disk: another driver
        // may be able to capture it.
        let held = trial(&place, &top.open).is_ok() && header_of_clone(&plan, &chain).is_ok();
        Ok(held.then_some(plan))
    }

    fn room(&self, plan: &Plan) -> Result<(), EngineError> {
        let folder = stage::place(plan).map_err(|e| stage::trouble(plan, &e))?;
        let shown = folder.root().path().display();
        let root = folder.root().place(".");
        self.reserve.require(&At::plan(plan), &root, shown)
    }

    fn prepare(&self, plan: &Plan) -> Result<(), EngineError> {
        if stage::probe(plan)? == Found::Cut {
            return Ok(());
        }
        let at = At::plan(plan);
        require_place(plan)?;
        let source = stage::source(plan)?;
        self.room(plan)?;
        stage(plan, &source)
            .and_then(|_| stage::sync_folder(plan))
            .map_err(|e| stage::trouble(plan, &e))?;
        match plan.is_off() {
            // What the machine wrote last may still be in memory only.
            true => source.sync_all().map_err(|e| at.io(&plan.disk.file, &e)),
            false => Ok(()),
        }
    }

    fn flush(&self, plan: &Plan) -> Result<(), EngineError> {
        stage::flush(plan)
    }

    fn cut(&self, plan: &Plan) -> Result<(), EngineError> {
        let at = At::plan(plan);
        let io = |e: io::Error| stage::trouble(plan, &e);
        match stage::probe(plan)? {
            Found::Cut => return Ok(()),
            Found::Prepared => {}
            Found::Absent => {
                return Err(at.error(
                    EngineErrorKind::Failed,
                    texts::NOT_PREPARED,
                    &plan.disk.file,
                ));
            }
        }
        require_place(plan)?;
        let source = stage::source(plan)?;
        let target = stage::staged(plan).map_err(io)?;
        clone(&target, &source).map_err(io)?;
        if plan.disk.format == Format::Qcow2 {
            let (file, within) = (&plan.disk.file, (&self.roots, plan.file().place.as_ref()));
            let planned = &mut |_: &Path, real: &Path, open: &File| match real == file {
                true => require_planned(plan, open),
                false => Ok(()),
            };
            let chain = chain::open_judged(&at, file, plan.disk.format, within, planned)?;
            if let Some(area) = header_of_clone(plan, &chain)? {
                target.write_all_at(&area, 0).map_err(io)?;
            }
        }
        // The clone gets the image's mode without the write bits, so it is no more readable than the image.
        let mode = held::Identity::of(&source).map_err(io)?.mode;
        held::set_mode(&target, stage::kept_mode(mode)).map_err(io)?;
        // A writer that came while we cloned shows here at the latest.
        stage::source(plan)?;
        stage::commit(plan)
    }

    fn settle(&self, plan: &Plan) -> Result<(), EngineError> {
        require_place(plan)?;
        stage::settle(plan)?;
        match plan.is_off() {
            true => Ok(()),
            false => require_whole(plan),
        }
    }

    fn top_after(&self, plan: &Plan) -> Top {
        Top {
            file: plan.disk.file.clone(),
            format: plan.disk.format,
        }
    }

    fn captured(&self, plan: &Plan) -> SnapshotDisk {
        SnapshotDisk {
            id: plan.disk.id.clone(),
            file: plan.file().new_file.clone(),
            format: plan.disk.format,
            size: plan.disk.size,
            driver: NAME.to_owned(),
            sealed: Vec::new(),
            damage: None,
        }
    }

    fn undo(&self, plan: &Plan) -> Result<(), EngineError> {
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

impl Revert for Reflink {
    /// Reverts in place (exchanges the new file with the image) if nothing else is based on the image, the formats are
    /// equal and the clone was made from this image. Otherwise the new file becomes the active file at its own path, if
    /// the definition allows that.
    fn plan_revert(&self, request: RevertRequest<'_>) -> Result<RevertPlan, EngineError> {
        let (machine, disk, kept) = (request.machine, request.disk, request.kept);
        let at = At::disk(machine, disk);
        let image = recorded(machine, disk);
        // As sealed: an older version named it by a path with links.
        let clone = kept
            .sealed
            .first()
            .map_or(&kept.file, |sealed| &sealed.file);
        let in_place = !request.shared && disk.format == kept.format;
        let named = machine.image(&disk.file).map_or(&disk.file, |i| &i.named);
        let image = (in_place && belongs(named, image, clone)).then(|| image.to_owned());
        let (folder, beside) = match &image {
            Some(image) => (folder_to_exchange(image, request.set), image),
            None => (clone.parent().unwrap_or(Path::new("/")).to_owned(), clone),
        };
        let stem = format!("{}-{}", machine.id, disk.id);
        let new_file = exchange::beside(&folder, &stem, request.job, kept.format.as_str());
        let root = new_file.ancestors().nth(stage::LEVELS + 1);
        let place = Beside::of(&at, root.unwrap_or(Path::new("/")), beside)?;
        let new = (new_file, kept.format);
        exchange::plan(NAME, request, new, (image, Some(place)), &self.roots)
    }

    fn prepare_revert(&self, revert: &RevertPlan) -> Result<Prepared, EngineError> {
        let at = At::revert(revert);
        if let Some(place) = &revert.file().place {
            let root = place.here(&at, &revert.disk.file)?;
            self.reserve
                .require(&at, &root.place("."), place.folder.display())?;
        }
        exchange::clone(revert, &self.roots)
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

/// The path of the active file of a disk as it was recorded at import, links resolved.
fn recorded<'a>(machine: &'a Machine, disk: &'a Disk) -> &'a Path {
    machine.image(&disk.file).map_or(&disk.file, |i| &i.file)
}

/// Refuses a clone that is not a whole disk of the planned size: that a machine was stopped does not prove that its
/// writes have arrived.
fn require_whole(plan: &Plan) -> Result<(), EngineError> {
    let look = || -> io::Result<()> {
        let clone = stage::place(plan)?;
        let open = clone.folder()?.open_file(clone.name(), false)?;
        if plan.disk.format == Format::Qcow2 {
            let header = Header::load(&open)?;
            let header = header.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            editor::check(&open, &header)?;
        }
        stage::require_size(plan, &open)
    };
    look().map_err(|e| stage::not_whole(plan, &e).unwrap_or_else(|| stage::trouble(plan, &e)))
}

/// Refuses if another folder stands in the place of the one that was planned in.
fn require_place(plan: &Plan) -> Result<(), EngineError> {
    let place = plan.file().place.as_ref();
    place.map_or(Ok(()), |place| {
        place.here(&At::plan(plan), &plan.disk.file).map(|_| ())
    })
}

/// The folder for the clones of an image. A symbolic link is followed: its target may lie on another file system.
///
/// # Errors
/// Where the link leads cannot be seen.
pub fn folder_of(image: &Path) -> io::Result<PathBuf> {
    let real = match held::symlink_metadata(image)?.is_symlink() {
        true => held::canonicalize(image)?,
        false => image.to_owned(),
    };
    Ok(real.with_file_name(FOLDER))
}

/// Whether the file is in a folder for clones.
pub(crate) fn is_clone(file: &Path) -> bool {
    file.ancestors().nth(2).and_then(Path::file_name) == Some(FOLDER.as_ref())
}

/// Whether the clone was made of the image that `named` leads to: it lies beside it, or, from an older version, beside
/// the link. Such a version also made a file in the folder for clones the active one.
fn belongs(named: &Path, image: &Path, clone: &Path) -> bool {
    let place = clone.ancestors().nth(3);
    let link = named
        .parent()
        .and_then(|folder| held::canonicalize(folder).ok());
    let is_ours = is_clone(image) && image.ancestors().nth(3) == place;
    place == image.parent() || place == link.as_deref() || is_ours
}

/// Where the file is made that is exchanged with the image: on its file system.
fn folder_to_exchange(image: &Path, set: SetId) -> PathBuf {
    match image.parent() {
        Some(folder) if is_clone(image) => folder.to_owned(),
        _ => image.with_file_name(FOLDER).join(set.to_string()),
    }
}

/// The empty target of the clone under its staged name. An older attempt is replaced.
fn stage(plan: &Plan, source: &File) -> io::Result<File> {
    let target = stage::create(plan)?;
    take_flags(&target, source)?;
    Ok(target)
}

/// Clones beside the image into a file without a name: no journal tells of a plan yet, so nothing may be
/// left if the process dies here.
fn trial(place: &Beside, source: &File) -> io::Result<()> {
    let beside = place.held()?;
    require_own(&beside)?;
    let target = beside.nameless(0o600)?;
    take_flags(&target, source)?;
    // An apply gives the image's owner and mode to what takes its place.
    exchange::take_over(&target, source)?;
    clone(&target, source)
}

/// Refuses if somebody else has made the folder for clones, or may exchange what is in it.
fn require_own(beside: &Folder) -> io::Result<()> {
    match beside.look(FOLDER)? {
        None => Ok(()),
        Some(_) => beside::require_clones(&beside.child(FOLDER)?),
    }
}

/// What keeps this process from making a file beside the image that may take its place, if it is a permission.
pub(crate) fn forbidden(image: &Path) -> Option<Text> {
    let folder = folder_of(image).ok()?;
    let beside = held::canonicalize(folder.parent()?).ok()?;
    let folder = Folder::straight(&beside).ok()?;
    if let Err(e) = require_own(&folder) {
        let text = texts::FILE_CAUSE.with("file", beside.join(FOLDER).display());
        return Some(text.with("cause", e));
    }
    let target = match folder.nameless(0o600) {
        Ok(target) => target,
        Err(e) if kind(&e) == EngineErrorKind::Denied => {
            let text = texts::MAY_NOT_MAKE.with("folder", beside.display());
            return Some(text.with("cause", e));
        }
        Err(_) => return None,
    };
    exchange::forbidden(&target, &held::open(image, false).ok()?)
}

fn take_flags(target: &File, source: &File) -> io::Result<()> {
    // btrfs clones a file without copy-on-write only into another such, and the flag takes only on an
    // empty file.
    held::take_flags(target, source, IFlags::NOCOW)
}

fn clone(target: &File, source: &File) -> io::Result<()> {
    Ok(ioctl_ficlone(target, source)?)
}

/// Refuses another file than the one that was planned.
fn require_planned(plan: &Plan, open: &File) -> Result<(), EngineError> {
    let (at, file) = (At::plan(plan), &plan.disk.file);
    let found = held::Identity::of(open).map_err(|e| at.io(file, &e))?;
    match (found.device, found.inode) == (plan.file().seen.device, plan.file().seen.inode) {
        true => Ok(()),
        false => Err(at.error(EngineErrorKind::Failed, texts::CHANGED, file)),
    }
}

/// The header area that the clone needs because it lies in another folder than the image, and nothing is recorded of
/// the clone but what its header says: `None` if the image names no backing file, or by an absolute path with a format.
fn header_of_clone(plan: &Plan, chain: &[Layer]) -> Result<Option<Vec<u8>>, EngineError> {
    let (at, file) = (At::plan(plan), &plan.disk.file);
    let Some(top) = chain.first() else {
        return Ok(None);
    };
    require_planned(plan, &top.open)?;
    let Some(header) = &top.header else {
        return Ok(None);
    };
    let Some(name) = header.backing.as_deref().map(OsStr::from_bytes) else {
        return Ok(None);
    };
    if Path::new(name).is_absolute() && header.backing_format().is_some() {
        return Ok(None);
    }
    let area = chain.get(1).and_then(|below| {
        let path: PathBuf = below.file.clone();
        header.with_backing(path.as_os_str().as_bytes(), below.format.as_str())
    });
    match area {
        Some(area) => Ok(Some(area)),
        None => Err(at.error(EngineErrorKind::Unsupported, texts::HEADER_FULL, file)),
    }
}
