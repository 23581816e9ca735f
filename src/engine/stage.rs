//! How both file drivers stage a file: `<new_file>.part` until the cut renames it to its name.
//!
//! The name alone tells how far a plan came, so that recovery needs nothing else to decide.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::engine::failure::{At, ours};
use crate::engine::{EngineError, EngineErrorKind, Found, Plan, Stamp};
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
    File::open(dir)?.sync_all()
}

/// Makes the content of a file durable that others may have written.
pub(crate) fn sync_file(file: &Path) -> io::Result<()> {
    File::open(file)?.sync_all()
}

/// Creates `dir` and what is missing above it, durably. Refuses a symbolic link in the last `own` places
/// of the path: those are ours to make, and nobody may lead us elsewhere.
pub(crate) fn make_dirs(dir: &Path, own: usize) -> io::Result<()> {
    let mut missing = Vec::new();
    for (depth, step) in dir.ancestors().enumerate() {
        match fs::symlink_metadata(step) {
            Ok(it) if it.is_dir() || (depth >= own && it.is_symlink()) => {}
            Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => missing.push(step),
            Err(e) => return Err(e),
        }
        if depth >= own && missing.is_empty() {
            break;
        }
    }
    for step in missing.into_iter().rev() {
        match fs::DirBuilder::new().mode(0o750).create(step) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
        if let Some(parent) = step.parent() {
            sync_dir(parent)?;
        }
    }
    Ok(())
}

/// Creates the staged file, empty, with its directories, of which the last `own` are ours. An older attempt
/// is replaced.
///
/// Plans share directories: the undo of another plan may remove one that it finds empty between the moment
/// we made it and the moment our file is in it. Then it is made again.
pub(crate) fn create(plan: &Plan, own: usize) -> io::Result<File> {
    create_file(&part(plan), own)
}

/// [`create`] for any file in directories of ours.
pub(crate) fn create_file(file: &Path, own: usize) -> io::Result<File> {
    let dir = file.parent().unwrap_or(Path::new("/"));
    let mut left = ATTEMPTS;
    loop {
        let created = make_dirs(dir, own)
            .and_then(|()| remove(file))
            .and_then(|()| {
                File::options()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(file)
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
    File::options()
        .write(true)
        .custom_flags(nix::libc::O_TMPFILE)
        .mode(0o600)
        .open(folder)
}

/// Looks how far the plan came.
pub(crate) fn probe(plan: &Plan) -> Result<Found, EngineError> {
    let there = |file: &Path| match fs::symlink_metadata(file) {
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
    renameat_with(CWD, part(plan), CWD, &plan.new_file, RenameFlags::NOREPLACE)
        .map_err(|e| ours(plan, &plan.new_file, &e.into()))
}

/// Makes a cut file and the directories above it durable; `levels` of them are ours.
pub(crate) fn settle(plan: &Plan, levels: usize) -> Result<(), EngineError> {
    let at = At::plan(plan);
    if probe(plan)? != Found::Cut {
        return Err(at.error(EngineErrorKind::Failed, texts::NOT_CUT, &plan.disk.file));
    }
    sync_file(&plan.new_file).map_err(|e| ours(plan, &plan.new_file, &e))?;
    for dir in plan.new_file.ancestors().skip(1).take(levels + 1) {
        sync_dir(dir).map_err(|e| ours(plan, dir, &e))?;
    }
    Ok(())
}

/// Removes both names of the file, and then the `levels` directories above it as far as they are empty.
/// Others may make and remove the same directories meanwhile.
pub(crate) fn undo(plan: &Plan, levels: usize) -> Result<(), EngineError> {
    for file in [part(plan), plan.new_file.clone()] {
        remove(&file).map_err(|e| ours(plan, &file, &e))?;
    }
    remove_dirs(&plan.new_file, levels).map_err(|e| ours(plan, &plan.new_file, &e))
}

/// Removes the `levels` directories above a file that is gone, as far as they are empty, durably.
pub(crate) fn remove_dirs(file: &Path, levels: usize) -> io::Result<()> {
    let mut dirs = file.ancestors().skip(1);
    for dir in dirs.by_ref().take(levels) {
        let removed = sync_dir(dir).and_then(|()| fs::remove_dir(dir));
        match removed {
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => return Ok(()),
            Err(e) if !absent(&e) => return Err(e),
            _ => {}
        }
    }
    match dirs.next().map_or(Ok(()), sync_dir) {
        Err(e) if !absent(&e) => Err(e),
        _ => Ok(()),
    }
}

fn absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Unlinks a file that may be gone already.
pub(crate) fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        // A read-only file system says so before it looks whether there is anything to remove.
        Err(e) if !fs::symlink_metadata(file).is_err_and(|e| absent(&e)) => Err(e),
        _ => Ok(()),
    }
}

/// Refuses if the old top is not as it was when planned.
pub(crate) fn unchanged(plan: &Plan) -> Result<(), EngineError> {
    let at = At::plan(plan);
    let file = &plan.disk.file;
    let now = Stamp::of(&fs::metadata(file).map_err(|e| at.io(file, &e))?);
    if now == plan.seen {
        Ok(())
    } else {
        Err(at.error(EngineErrorKind::Failed, texts::CHANGED, file))
    }
}

#[cfg(test)]
mod tests {
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
                        create(&plan, 2).unwrap();
                        undo(&plan, 2).unwrap();
                    }
                });
            }
        });
        assert!(!root.path().join("own").exists());
    }
}
