//! How both file drivers stage a file: `<new_file>.part` until the cut renames it to its name.
//!
//! The name alone tells how far a plan came, so that recovery needs nothing else to decide.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::engine::failure::{At, ours};
use crate::engine::graph::own_folders;
use crate::engine::{EngineError, EngineErrorKind, Found, Plan, Stamp};
use crate::held::{self, Folder, Foreign};
use crate::text::catalog::engine as texts;

/// How often a directory that another plan's undo removes is made again.
const ATTEMPTS: u32 = 100;

/// The name of the file until it is cut.
pub(crate) fn part(plan: &Plan) -> PathBuf {
    let mut name = plan.new_file.clone().into_os_string();
    name.push(".part");
    name.into()
}

/// Makes renames and unlinks in the directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    held::sync_folder(dir)
}

/// Creates `dir` and what is missing above it, durably. The last `own` places of the path are ours: nobody may lead
/// us elsewhere there, or exchange what is in them.
pub(crate) fn make_dirs(dir: &Path, own: usize) -> io::Result<()> {
    held::make_folders(dir, own).map(|_| ())
}

/// Creates the staged file, empty, with its directories. An older attempt is replaced.
///
/// Plans share directories: the undo of another plan may remove one that it finds empty between the moment
/// we made it and the moment our file is in it. Then it is made again.
pub(crate) fn create(plan: &Plan) -> io::Result<File> {
    create_file(&part(plan))
}

/// [`create`] for any file in directories of ours.
pub(crate) fn create_file(file: &Path) -> io::Result<File> {
    let own = own_folders(file);
    let dir = file.parent().unwrap_or(Path::new("/"));
    let mut left = ATTEMPTS;
    loop {
        let created = held::make_folders(dir, own).and_then(|folder| {
            let name = file.file_name().ok_or(io::ErrorKind::InvalidInput)?;
            folder.remove_ours(name)?;
            folder.create_new(name, 0o600)
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

/// The folder that the plan's files are made in, and the name of the new file there.
fn folder(plan: &Plan) -> io::Result<(Folder, OsString)> {
    held::folder_of_ours(&plan.new_file, own_folders(&plan.new_file))
}

/// Opens the staged file for writing.
pub(crate) fn staged(plan: &Plan) -> io::Result<File> {
    let name = part(plan);
    let name = name.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    folder(plan)?.0.open_file(name, true)
}

/// Looks how far the plan came.
pub(crate) fn probe(plan: &Plan) -> Result<Found, EngineError> {
    let there = |file: &Path| match held::symlink_metadata(file) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(ours(plan, file, &e)),
    };
    Ok(if there(&plan.new_file)? {
        Found::Cut
    } else if there(&part(plan))? {
        Found::Prepared
    } else {
        Found::Absent
    })
}

/// Gives the staged file its name. Never replaces a file.
pub(crate) fn commit(plan: &Plan) -> Result<(), EngineError> {
    let named = folder(plan).and_then(|(folder, name)| {
        let staged = part(plan);
        let staged = staged.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        folder.rename_new(staged, &folder, name)
    });
    named.map_err(|e| ours(plan, &plan.new_file, &e))
}

/// Makes a cut file and the directories above it durable; `levels` of them are ours.
pub(crate) fn settle(plan: &Plan, levels: usize) -> Result<(), EngineError> {
    let at = At::plan(plan);
    if probe(plan)? != Found::Cut {
        return Err(at.error(EngineErrorKind::Failed, texts::NOT_CUT, &plan.disk.file));
    }
    let synced = folder(plan).and_then(|(folder, name)| folder.open_file(name, false)?.sync_all());
    synced.map_err(|e| ours(plan, &plan.new_file, &e))?;
    for dir in plan.new_file.ancestors().skip(1).take(levels + 1) {
        sync_dir(dir).map_err(|e| ours(plan, dir, &e))?;
    }
    Ok(())
}

/// Removes both names of the file, and then the `levels` directories above it as far as they are empty.
/// Others may make and remove the same directories meanwhile.
pub(crate) fn undo(plan: &Plan, levels: usize) -> Result<(), EngineError> {
    for file in [part(plan), plan.new_file.clone()] {
        discard(&file).map_err(|e| ours(plan, &file, &e))?;
    }
    remove_dirs(&plan.new_file, levels).map_err(|e| ours(plan, &plan.new_file, &e))
}

/// Unlinks a file of ours durably; it may be gone already. Where somebody has put another folder in the place of
/// ours, nothing of ours is under that name any more.
pub(crate) fn discard(file: &Path) -> io::Result<()> {
    match held::discard(file, own_folders(file), None) {
        Err(e) if is_exchanged(&e) => {
            tracing::warn!(file = %file.display(), error = %e, "What was made there lies elsewhere now, and stays");
            Ok(())
        }
        discarded => discarded,
    }
}

fn is_exchanged(error: &io::Error) -> bool {
    let foreign = held::foreign(error);
    matches!(foreign, Some(Foreign::Link | Foreign::Shared { .. }))
}

/// Removes the `levels` directories above a file that is gone, as far as they are empty, durably.
pub(crate) fn remove_dirs(file: &Path, levels: usize) -> io::Result<()> {
    held::remove_folders(file, levels)
}

/// Opens the old top, if it is as it was when planned.
pub(crate) fn source(plan: &Plan) -> Result<File, EngineError> {
    let at = At::plan(plan);
    let file = &plan.disk.file;
    let open = held::open(file, false).map_err(|e| at.io(file, &e))?;
    let now = Stamp::of(&open.metadata().map_err(|e| at.io(file, &e))?);
    match now == plan.seen {
        true => Ok(open),
        false => Err(at.error(EngineErrorKind::Failed, texts::CHANGED, file)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::id::{SetId, VmId};
    use crate::inventory::{Disk, Format};

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
            new_file: root.path().join(format!("own/{set}/{machine}")),
            seen,
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let plan = plan(VmId::random());
                scope.spawn(move || {
                    for _ in 0..50 {
                        create(&plan).unwrap();
                        undo(&plan, 2).unwrap();
                    }
                });
            }
        });
        assert!(!root.path().join("own").exists());
    }
}
