//! How both file drivers stage a file: `<new_file>.part` until the cut renames it to its name.
//!
//! The name alone tells how far a plan got, so each call is idempotent: `prepare` and `cut` return at once if the file
//! has its final name. Whether an operation rolls forward or back is decided by its journal only.
//!
//! A machine that runs opens its new file itself, before it goes on with it, and a file that it has open is never renamed.
//! So that one has its final name from `prepare` on, and the name tells only that it is whole.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::engine::beside::Beside;
use crate::engine::failure::{At, kind, ours};
use crate::engine::qcow2::chain::Roots;
use crate::engine::qcow2::header::Header;
use crate::engine::qcow2::writer::SECTOR;
use crate::engine::{EngineError, EngineErrorKind, Kept, NewThere, Plan, Stamp};
use crate::engine::{files, graph};
use crate::held::{self, Folder, Foreign, Ours};
use crate::inventory::{Format, Machine, Sealed, SnapshotDisk};
use crate::text::catalog::engine as texts;

/// What a plan has left on the disk, by inspection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing of the plan is there.
    Absent,
    /// Its file is there, the cut is not done or not complete.
    Prepared,
    /// The file holds a complete cut.
    Cut,
}

/// How often a directory that another plan's undo removes is made again.
const ATTEMPTS: u32 = 100;
/// The folders above a new file that go with it: `<set>/<machine>`, or `.groupshot/<set>` beside an image.
pub(crate) const LEVELS: usize = 2;

/// The name of the file until it is cut.
pub(crate) fn part(plan: &Plan) -> PathBuf {
    let mut name = plan.file().new_file.clone().into_os_string();
    name.push(".part");
    name.into()
}

/// Creates `dir` and what is missing above it, durably. The last `own` places of the path are ours: nobody may lead
/// us elsewhere there, or exchange what is in them.
pub(crate) fn make_dirs(dir: &Path, own: usize) -> io::Result<()> {
    held::make_folders(dir, own).map(|_| ())
}

/// Where the new file of a plan is made.
pub(crate) fn place(plan: &Plan) -> io::Result<Ours> {
    place_of(&plan.file().new_file, plan.file().place.as_ref())
}

/// Where a file is made: in that folder of images, by its descriptor, or in folders of ours elsewhere.
pub(crate) fn place_of(file: &Path, place: Option<&Beside>) -> io::Result<Ours> {
    match place {
        Some(place) => place.ours(file),
        None => graph::ours(file),
    }
}

/// The same file under its staged name.
fn staging(plan: &Plan) -> io::Result<Ours> {
    let part = part(plan);
    Ok(place(plan)?.named(part.file_name().ok_or(io::ErrorKind::InvalidInput)?))
}

/// Creates the staged file, empty, with its directories. An older attempt is replaced.
///
/// Plans share directories: the undo of another plan may remove one that it finds empty between the moment
/// we made it and the moment our file is in it. Then it is made again.
pub(crate) fn create(plan: &Plan) -> io::Result<File> {
    create_file(&staging(plan)?)
}

/// [`create`] for any file in directories of ours.
pub(crate) fn create_file(file: &Ours) -> io::Result<File> {
    let mut left = ATTEMPTS;
    loop {
        let created = file.make().and_then(|folder| {
            folder.remove_ours(file.name())?;
            folder.create_new(file.name(), 0o600)
        });
        left -= 1;
        match created {
            Err(e) if e.kind() == io::ErrorKind::NotFound && left > 0 => {}
            done => return done,
        }
    }
}

/// A file without a name in the folder: it is gone once it is closed.
pub(crate) fn nameless(folder: &Path) -> io::Result<File> {
    Folder::follow(folder)?.nameless(0o600)
}

/// Makes the names in the folder of the new file durable.
pub(crate) fn sync_folder(plan: &Plan) -> io::Result<()> {
    place(plan)?.folder()?.sync()
}

/// Opens the staged file for writing.
pub(crate) fn staged(plan: &Plan) -> io::Result<File> {
    let staged = staging(plan)?;
    staged.folder()?.open_file(staged.name(), true)
}

/// Looks how far the plan came.
pub(crate) fn probe(plan: &Plan) -> Result<Found, EngineError> {
    let there = |file: io::Result<Ours>| match file {
        Err(e) if is_gone(&e) => Ok(false),
        file => Ok(file?.look()?.is_some()),
    };
    let there = |file| there(file).map_err(|e| trouble(plan, &e));
    Ok(if there(place(plan))? {
        Found::Cut
    } else if there(staging(plan))? {
        Found::Prepared
    } else {
        Found::Absent
    })
}

/// Gives the staged file its name. Never replaces a file.
pub(crate) fn commit(plan: &Plan) -> Result<(), EngineError> {
    let named = staging(plan).and_then(|staged| {
        let folder = staged.folder()?;
        let name = plan.file().new_file.file_name();
        folder.rename_new(staged.name(), &folder, name.unwrap_or_default())
    });
    named.map_err(|e| trouble(plan, &e))
}

/// Makes a cut file and the directories above it durable.
pub(crate) fn settle(plan: &Plan) -> Result<(), EngineError> {
    let at = At::plan(plan);
    if probe(plan)? != Found::Cut {
        return Err(at.error(EngineErrorKind::Failed, texts::NOT_CUT, &plan.disk.file));
    }
    let synced = place(plan).and_then(|file| {
        let open = file.folder()?.open_file(file.name(), false)?;
        open.sync_all()?;
        file.sync()
    });
    synced.map_err(|e| trouble(plan, &e))
}

/// Makes durable what a machine has written to its disk until now.
pub(crate) fn flush(plan: &Plan) -> Result<(), EngineError> {
    let synced = source(plan)?.sync_data();
    synced.map_err(|e| At::plan(plan).io(&plan.disk.file, &e))
}

/// Seals what was captured, with all under it. A file that was captured where it stands must be the one that was planned.
pub(crate) fn seal(
    plan: &Plan,
    disk: &SnapshotDisk,
    machine: Option<&Machine>,
    known: &BTreeSet<Sealed>,
) -> Result<Vec<Sealed>, EngineError> {
    let at = &At::plan(plan);
    let within = (&Roots::default(), plan.file().place.as_ref());
    let seals = files::seal(Kept { at, machine, disk }, within, known)?;
    let expected = plan.file().seen.inode;
    let found = seals.first().map_or(expected, |top| top.seal.inode);
    match disk.file == plan.disk.file && found != expected {
        true => Err(at.io(&disk.file, &Foreign::Other { expected, found }.into())),
        false => Ok(seals),
    }
}

/// Removes both names of the file, and then the directories above it as far as they are empty.
/// Others may make and remove the same directories meanwhile. The staged name goes last: it may be [a note](Plan::note_put_back)
/// on the other one.
///
/// # Errors
/// [`EngineErrorKind::Unsupported`]: its folder of images is away, or another stands in its place, and what was made
/// there with it.
pub(crate) fn undo(plan: &Plan) -> Result<(), EngineError> {
    let file = match place(plan) {
        Err(e) if is_gone(&e) => {
            return plan.file().place.as_ref().map_or(Ok(()), |place| {
                Err(place.trouble(&At::plan(plan), &plan.disk.file, &e))
            });
        }
        file => file,
    };
    let undone = || {
        let file = file?;
        file.discard(None)?;
        staging(plan)?.discard(None)?;
        file.remove_folders(LEVELS)
    };
    undone().map_err(|e| trouble(plan, &e))
}

/// Whether the folder that the error is about is not there any more.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    kind(error) == EngineErrorKind::Missing
}

/// Refuses what was captured of a machine that was not off if it is a disk of another size than was planned: a disk that
/// somebody resizes between the stop of its machine and its capture is cut short by whatever covers it, and nothing tells.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`]: it has another size, or is damaged.
pub(crate) fn require_size(plan: &Plan, captured: &File) -> io::Result<()> {
    let size = match plan.disk.format {
        Format::Raw => captured.metadata()?.len().next_multiple_of(SECTOR),
        Format::Qcow2 => {
            let header = Header::load(captured)?;
            let header = header.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            header.size
        }
    };
    let planned = plan.disk.size;
    match size == planned {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it has {size} bytes and not {planned}"),
        )),
    }
}

/// That what was captured is no whole disk, if that is what the error says.
pub(crate) fn not_whole(plan: &Plan, error: &io::Error) -> Option<EngineError> {
    let text = At::plan(plan).text(texts::CLONE_DAMAGED, &plan.disk.file);
    (error.kind() == io::ErrorKind::InvalidData).then(|| EngineError {
        kind: EngineErrorKind::Failed,
        text: text.with("cause", error),
    })
}

/// What an error with the new file of a plan means.
pub(crate) fn trouble(plan: &Plan, error: &io::Error) -> EngineError {
    match &plan.file().place {
        Some(place) if held::foreign(error).is_some() => {
            place.trouble(&At::plan(plan), &plan.disk.file, error)
        }
        _ => ours(plan, &plan.file().new_file, error),
    }
}

/// [`Plan::note_put_back`].
pub(super) fn note_put_back(plan: &Plan) -> Result<(), EngineError> {
    flush(plan)?;
    let noted = create(plan).and_then(|note| {
        note.sync_all()?;
        sync_folder(plan)
    });
    noted.map_err(|e| trouble(plan, &e))
}

/// [`Plan::forget_put_back`].
pub(super) fn forget_put_back(plan: &Plan) -> Result<(), EngineError> {
    let forgotten = staging(plan).and_then(|note| note.discard(None));
    forgotten.map(drop).map_err(|e| trouble(plan, &e))
}

/// The new file of a machine that has gone on with it, open, unless it is noted as stale, or not there.
pub(crate) fn gone_on(plan: &Plan) -> Result<Option<File>, EngineError> {
    match new_there(plan)?.is_stale {
        true => Ok(None),
        false => open_new(plan),
    }
}

/// What stands at the place of the new file.
pub(crate) fn new_there(plan: &Plan) -> Result<NewThere, EngineError> {
    let is_stale = match staging(plan).and_then(|note| note.look()) {
        Err(e) if is_gone(&e) => false,
        note => note.map_err(|e| trouble(plan, &e))?.is_some(),
    };
    let meta = open_new(plan)?.map(|file| file.metadata()).transpose();
    let meta = meta.map_err(|e| trouble(plan, &e))?;
    Ok(NewThere {
        file: meta.map(|meta| (meta.dev(), meta.ino())),
        is_stale,
    })
}

/// The new file, open, if it is there.
pub(crate) fn open_new(plan: &Plan) -> Result<Option<File>, EngineError> {
    let open = || {
        let file = place(plan)?;
        match file.look()? {
            None => Ok(None),
            Some(_) => file.folder()?.open_file(file.name(), false).map(Some),
        }
    };
    match open() {
        Err(e) if is_gone(&e) => Ok(None),
        open => open.map_err(|e| trouble(plan, &e)),
    }
}

/// The permission bits of a file that a set keeps: nobody writes it, nobody reads it who could not read it before.
pub(crate) const fn kept_mode(mode: u32) -> u32 {
    mode & 0o444 | 0o400
}

/// Opens the old top, if it is as it was when planned; of a machine that is not off it is the same file, whatever was
/// written to it.
pub(crate) fn source(plan: &Plan) -> Result<File, EngineError> {
    let at = At::plan(plan);
    let file = &plan.disk.file;
    let open = old_top(plan).map_err(|e| at.io(file, &e))?;
    let now = Stamp::of(&open.metadata().map_err(|e| at.io(file, &e))?);
    let seen = plan.file().seen;
    let is_same = match plan.is_off() {
        true => now == seen,
        false => (now.device, now.inode) == (seen.device, seen.inode),
    };
    match is_same {
        true => Ok(open),
        false => Err(at.error(EngineErrorKind::Failed, texts::CHANGED, file)),
    }
}

/// Opens the old top, whatever has become of it.
pub(crate) fn old_top(plan: &Plan) -> io::Result<File> {
    let file = &plan.disk.file;
    match plan.file().place.as_ref().filter(|place| place.has(file)) {
        Some(place) => place.open(file),
        None => held::open(file, false),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::engine::capture::NewFile;
    use crate::id::{SetId, VmId};
    use crate::inventory::Disk;

    #[test]
    fn a_link_in_our_own_directories_is_refused_and_one_above_is_not() {
        let root = tempfile::tempdir().unwrap();
        let real = root.path().join("real");
        let link = root.path().join("link");
        fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        make_dirs(&link.join("a/b"), 2).unwrap();
        assert!(real.join("a/b").is_dir());
        assert!(make_dirs(&link.join("c"), 2).is_err());
        assert!(!real.join("c").exists());
    }

    #[test]
    fn plans_that_share_directories_stage_while_others_undo() {
        let root = tempfile::tempdir().unwrap();
        let image = root.path().join("image.raw");
        fs::write(&image, b"x").unwrap();
        let seen = Stamp::of(&fs::metadata(&image).unwrap());
        let set = SetId::random();
        let plan = |machine: VmId| Plan {
            driver: "test".to_owned(),
            set,
            machine,
            machine_name: "m".to_owned(),
            disk: Disk {
                id: "disk0".to_owned(),
                file: image.clone(),
                format: Format::Raw,
                size: 1,
            },
            own: NewFile {
                new_file: root.path().join(format!("own/{set}/{machine}")),
                seen,
                place: None,
                live: None,
                made: None,
                mode: None,
            },
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let plan = plan(VmId::random());
                scope.spawn(move || {
                    for _ in 0..50 {
                        create(&plan).unwrap();
                        undo(&plan).unwrap();
                    }
                });
            }
        });
        assert!(!root.path().join("own").exists());
    }
}
