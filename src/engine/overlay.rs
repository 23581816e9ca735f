//! The driver for every file system: a new, empty qcow2 overlay becomes the active file and the old one is frozen as its
//! backing file. The machine must then be started from the overlay, so its definition has to allow that (`overlay_ok`).
//!
//! The overlay is in the data directory and names the old active file by its absolute path. Nobody may write to an old
//! active file any more that the server made itself; the operator's own imported file keeps its mode.
//!
//! A machine that runs goes on with its overlay itself ([`crate::engine::Running::cut`]). It has the overlay open from
//! before that, under its final name; whoever runs it gets there by an entry in the access control lists of the folders of
//! sets. Nothing here locks either file before the machine has gone on.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::engine::acl;
use crate::engine::capture::NewFile;
use crate::engine::failure::{At, ours};
use crate::engine::files::InFiles;
use crate::engine::fsxattr;
use crate::engine::graph;
use crate::engine::links;
use crate::engine::locks::{FrozenLock, ImageLock};
use crate::engine::qcow2::chain::{self, Roots};
use crate::engine::qcow2::header::Header;
use crate::engine::qcow2::tables::Tables;
use crate::engine::qcow2::writer::NewImage;
use crate::engine::space::Reserve;
use crate::engine::stage::Found;
use crate::engine::{
    Capture, Driver, EngineError, EngineErrorKind, Hold, Live, NewThere, Plan, Prepared, Read,
    Retain, Revert, RevertPlan, RevertRequest, Stamp, Top,
};
use crate::engine::{exchange, image as images, reflink, stage};
use crate::held::{self, Folder, Foreign};
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

    /// Lets the user of a machine that runs get to its overlay, through each folder from the data directory down.
    fn let_in(&self, plan: &Plan, user: u32) -> Result<(), EngineError> {
        let data_dir = self.sets.parent().unwrap_or(&self.sets);
        let mut folders: Vec<_> = plan.file().new_file.ancestors().skip(1).collect();
        folders.retain(|folder| folder.starts_with(data_dir));
        for folder in folders.into_iter().rev() {
            let passes = Folder::follow(folder).and_then(|held| acl::let_pass(&held, user));
            passes.map_err(|e| cannot_pass(plan, folder, user, &e))?;
        }
        Ok(())
    }

    /// Sets the mode of an old top that is ours to what `mode` makes of it; the operator's own files are left alone.
    fn set_mode(&self, plan: &Plan, mode: impl Fn(u32) -> u32) -> Result<(), EngineError> {
        let file = &plan.disk.file;
        if !file.starts_with(&self.sets) {
            return Ok(());
        }
        // Durable: its times are noted with the snapshot, and a power cut must not bring back older ones.
        let set = || {
            let (folder, name) = held::folder_of_ours(file, graph::own_folders(file))?;
            let open = folder.open_file(name, false)?;
            let meta = open.metadata()?;
            let (expected, found) = (plan.file().seen.inode, meta.ino());
            if expected != found {
                return Err(Foreign::Other { expected, found }.into());
            }
            let old = meta.mode() & 0o7777;
            if mode(old) != old {
                held::set_mode(&open, mode(old))?;
            }
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
        live: Option<Live>,
    ) -> Result<Option<Plan>, EngineError> {
        let at = At::disk(machine, disk);
        let chain = images::open(&at, machine, disk, &disk.file, (&self.roots, None))?;
        // What a machine is writing now need not be whole, and is not read.
        let stands = usize::from(live.is_some());
        chain::require_whole(&at, chain.get(stands..).unwrap_or_default())?;
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
                live,
                made: None,
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
        let (place, there) = (texts::DATA_DIRECTORY.text(), self.there());
        if let Some(user) = plan
            .file()
            .live
            .and_then(|live| live.user)
            .filter(|u| *u != 0)
            && !acl::is_known(there).unwrap_or(true)
        {
            let error = io::ErrorKind::Unsupported.into();
            return Err(cannot_pass(plan, there, user, &error));
        }
        self.reserve.require(&At::plan(plan), there, place)
    }

    fn prepare(&self, plan: &Plan) -> Result<(), EngineError> {
        if stage::probe(plan)? == Found::Cut {
            return Ok(());
        }
        let at = At::plan(plan);
        let source = stage::source(plan)?;
        self.room(plan)?;
        stage::make_dirs(&self.sets, 1).map_err(|e| ours(plan, &self.sets, &e))?;
        Self::stage(plan, &source).map_err(|e| ours(plan, &plan.file().new_file, &e))?;
        let Some(live) = plan.file().live else {
            // What the machine wrote last may still be in memory only.
            return source.sync_all().map_err(|e| at.io(&plan.disk.file, &e));
        };
        if let Some(user) = live.user {
            self.let_in(plan, user)?;
        }
        stage::commit(plan)?;
        stage::sync_folder(plan).map_err(|e| stage::trouble(plan, &e))
    }

    fn flush(&self, plan: &Plan) -> Result<(), EngineError> {
        stage::flush(plan)
    }

    /// Checks that the old active file has not changed since the plan, and gives the overlay its final name. With the
    /// machine off there is nothing else to capture.
    fn cut(&self, plan: &Plan) -> Result<(), EngineError> {
        if !plan.is_off() {
            let kind = EngineErrorKind::Unsupported;
            return Err(At::plan(plan).error(kind, texts::NOT_STOPPED, &plan.disk.file));
        }
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

    fn stays(&self, plan: &Plan, captured: Option<Timestamp>) -> Result<(), EngineError> {
        let old = stage::source(plan)?;
        if plan.is_off() {
            return Ok(());
        }
        let (at, file) = (At::plan(plan), &plan.disk.file);
        FrozenLock::take(&at, file)?;
        let meta = old.metadata().map_err(|e| at.io(file, &e))?;
        // The time of a capture is known to the microsecond.
        let nanos = i32::try_from(meta.mtime_nsec()).unwrap_or(0);
        let written = Timestamp::new(meta.mtime(), nanos).ok();
        let micros = |time: Timestamp| time.as_microsecond();
        match (written.map(micros), captured.map(micros)) {
            (Some(written), Some(captured)) if written <= captured => Ok(()),
            _ => Err(at.error(EngineErrorKind::Failed, texts::WRITTEN_SINCE, file)),
        }
    }

    fn settle(&self, plan: &Plan) -> Result<(), EngineError> {
        if !plan.is_off() {
            // It reads the old top only, or it has not gone on with the overlay.
            let (at, file) = (At::plan(plan), &plan.disk.file);
            FrozenLock::take(&at, file)?;
            let whole = stage::old_top(plan).and_then(|it| stage::require_size(plan, &it));
            whole.map_err(|e| stage::not_whole(plan, &e).unwrap_or_else(|| at.io(file, &e)))?;
        }
        stage::settle(plan)?;
        self.set_mode(plan, stage::kept_mode)
    }

    fn reopen(&self, plan: &Plan) -> Result<(), EngineError> {
        // Before the overlay is there `settle` has closed nothing. What an older version has planned tells no mode; there
        // the overlay has that of its base.
        let file = plan.file();
        match held::symlink_metadata(&file.new_file) {
            Ok(overlay) => {
                let mode = file.mode.unwrap_or(overlay.mode());
                self.set_mode(plan, |_| mode & 0o7777)
            }
            // It is elsewhere, and in use perhaps.
            Err(_) if file.made.is_some() => {
                self.set_mode(plan, |mode| file.mode.unwrap_or(mode | 0o200) & 0o7777)
            }
            Err(_) => Ok(()),
        }
    }

    fn outlived(&self, plan: &Plan) -> Result<Option<Top>, EngineError> {
        if plan.is_off() {
            return Ok(None);
        }
        let Some(file) = stage::gone_on(plan)? else {
            return Ok(None);
        };
        let new = &plan.file().new_file;
        let written = held::ask(new, || holds_data(&file));
        let written = written.map_err(|e| At::plan(plan).io(new, &e))?;
        Ok(written.then(|| self.top_after(plan)))
    }

    fn new_there(&self, plan: &Plan) -> Result<NewThere, EngineError> {
        match plan.is_off() {
            true => Ok(NewThere::default()),
            false => stage::new_there(plan),
        }
    }

    fn hold_new(&self, plan: &Plan) -> Result<Hold, EngineError> {
        let new = &plan.file().new_file;
        match stage::open_new(plan)? {
            Some(file) => ImageLock::of(&At::plan(plan), new, file).map(Hold::on),
            None => Ok(Hold::default()),
        }
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
        self.reopen(plan)?;
        // Whoever says that it is not in use may have been told wrong.
        let _alone = match plan.is_off() {
            true => None,
            false => alone(plan)?,
        };
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

/// Whether anything was written to an overlay, or discarded in it.
fn holds_data(file: &File) -> io::Result<bool> {
    let header = Header::load(file)?;
    let header = header.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    let size = header.size;
    let mut tables = Tables::open(file.try_clone()?, header)?;
    let mut at = 0;
    while at < size {
        let (kind, length) = tables.run(at, size - at)?;
        if kind.is_some() {
            return Ok(true);
        }
        at += length;
    }
    Ok(false)
}

/// Keeps everybody from the new file of a plan, if it is there and this process does not hold it already.
///
/// # Errors
/// [`EngineErrorKind::Locked`] if somebody has it.
fn alone(plan: &Plan) -> Result<Option<ImageLock>, EngineError> {
    let new = &plan.file().new_file;
    match stage::open_new(plan)? {
        Some(file) => ImageLock::unless_held(&At::plan(plan), new, file),
        None => Ok(None),
    }
}

/// Whoever runs the machine cannot get to its overlay.
fn cannot_pass(plan: &Plan, folder: &Path, user: u32, error: &io::Error) -> EngineError {
    let text = At::plan(plan).text(texts::MAY_NOT_PASS, folder);
    EngineError {
        kind: EngineErrorKind::Denied,
        text: text.with("user", user).with("cause", error),
    }
}

fn image(plan: &Plan) -> NewImage<'_> {
    NewImage {
        size: plan.disk.size,
        backing: Some((&plan.disk.file, plan.disk.format)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::engine::qcow2::editor::Editor;
    use crate::id::VmId;

    fn planned(folder: &Path, live: Option<Live>) -> (Overlay, Plan) {
        let file = folder.join("a.raw");
        fs::write(&file, vec![1; 1 << 20]).unwrap();
        let seen = Stamp::of(&fs::metadata(&file).unwrap());
        let plan = Plan {
            driver: NAME.to_owned(),
            set: SetId::from_u128(1),
            machine: VmId::from_u128(2),
            machine_name: "m".to_owned(),
            disk: Disk {
                id: "disk0".to_owned(),
                file,
                format: Format::Raw,
                size: 1 << 20,
            },
            own: NewFile {
                new_file: folder.join("sets/1/2/disk0.qcow2"),
                seen,
                place: None,
                live,
                made: None,
                mode: None,
            },
        };
        (Overlay::new(folder, Reserve::default(), 32), plan)
    }

    #[test]
    fn an_overlay_whose_data_was_put_back_is_stale() {
        let folder = tempfile::tempdir().unwrap();
        let (overlay, plan) = planned(folder.path(), Some(Live::default()));
        let new = plan.file().new_file.clone();
        assert_eq!(overlay.outlived(&plan), Ok(None), "it is not there");
        overlay.prepare(&plan).unwrap();
        assert!(new.exists() && overlay.cut(&plan).is_err());
        assert_eq!(overlay.outlived(&plan), Ok(None), "it is empty");
        let open = File::options().read(true).write(true).open(&new).unwrap();
        let header = Header::load(&open).unwrap().unwrap();
        let mut editor = Editor::open(open, header).unwrap();
        editor.clear(0, true).unwrap(); // a discard of the guest
        editor.begin().unwrap();
        editor.end().unwrap();
        let kept = Ok(Some(overlay.top_after(&plan)));
        assert_eq!(overlay.outlived(&plan), kept);
        plan.note_put_back().unwrap();
        assert_eq!(overlay.outlived(&plan), Ok(None), "its data was put back");
        plan.forget_put_back().unwrap();
        assert_eq!(overlay.outlived(&plan), kept, "it was not, after all");
        plan.note_put_back().unwrap();
        overlay.undo(&plan).unwrap();
        assert!(!folder.path().join("sets/1").exists());
        assert_eq!(overlay.outlived(&plan), Ok(None));
    }
    #[test]
    fn an_overlay_that_somebody_runs_on_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (overlay, plan) = planned(folder.path(), Some(Live::default()));
        let new = plan.file().new_file.clone();
        overlay.prepare(&plan).unwrap();
        let machine = crate::engine::locks::as_a_machine(&new);
        let error = overlay.undo(&plan).unwrap_err();
        assert_eq!(error.kind, EngineErrorKind::Locked, "{error}");
        assert!(new.exists());
        drop(machine);
        // Whoever undoes it may hold it already.
        let held = overlay.hold_new(&plan).unwrap();
        overlay.undo(&plan).unwrap();
        assert!(!new.exists());
        drop(held);
    }
}
