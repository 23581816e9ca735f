//! How the file drivers put a disk back to what a snapshot keeps.
//!
//! A new file is made and durable before the commit. Either it becomes the new top under its own name, or it
//! is exchanged with the active file at its path: what stood there then lies under the internal name, as the
//! safety copy, until [`settle`]. Which of both files stands where is told by the inode of the old one.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    Access, AtFlags, IFlags, accessat, fgetxattr, flistxattr, ioctl_ficlone, ioctl_getflags,
};

use crate::engine::beside::Beside;
use crate::engine::failure::{At, kind};
use crate::engine::fsxattr::{self, Project};
use crate::engine::links;
use crate::engine::locks::ImageLock;
use crate::engine::qcow2::chain::{self, Roots};
use crate::engine::qcow2::writer::NewImage;
use crate::engine::revert::NewFile;
use crate::engine::stage;
use crate::engine::{
    EngineError, EngineErrorKind, Hold, Prepared, RevertPlan, RevertRequest, Stamp, Top, image,
    kept,
};
use crate::held::{self, Folder, Ours};
use crate::id::SetId;
use crate::inventory::Format;
use crate::text::catalog::engine as texts;
use crate::text::{Argument, Language, Message, Text};

/// Access rules beyond the mode that a new top takes over from the old one.
const ATTRIBUTES: &[&str] = &[ACL, "security.selinux"];
const ACL: &str = "system.posix_acl_access";
/// Extended attributes that others have noted on a file.
const NOTES: &[&str] = &["user.", "trusted."];

/// The plan, once what is kept is there with all below it. Another file becomes the active one only where the
/// definition allows it.
pub(crate) fn plan(
    driver: &str,
    request: RevertRequest<'_>,
    (new_file, new_format): (PathBuf, Format),
    (in_place, place): (Option<PathBuf>, Option<Beside>),
    roots: &Roots,
) -> Result<RevertPlan, EngineError> {
    let (machine, disk, kept) = (request.machine, request.disk, request.kept);
    let at = At::disk(machine, disk);
    let layers = kept::open(&at, Some(machine), kept, (roots, place.as_ref()))?;
    chain::require_whole(&at, &layers)?;
    if in_place.is_none() && !machine.overlay_ok {
        let kind = EngineErrorKind::Unsupported;
        let text = at.text(texts::REVERT_MOVES, &disk.file);
        let text = links::allowing(text, machine, disk);
        return Err(EngineError { kind, text });
    }
    let io = |e: io::Error| at.io(&disk.file, &e);
    let old = in_place.as_ref().unwrap_or(&disk.file);
    let active = chain::top(&at, old, roots, place.as_ref())?;
    image::check(&at, machine, disk, std::slice::from_ref(&active))?;
    let meta = active.open.metadata().map_err(io)?;
    Ok(RevertPlan {
        driver: driver.to_owned(),
        set: request.set,
        machine: machine.id,
        machine_name: machine.name.clone(),
        disk: disk.clone(),
        kept: kept.clone(),
        own: NewFile {
            new_file,
            new_format,
            in_place,
            seen: Stamp::of(&meta),
            place,
        },
    })
}

/// The active file after the revert.
pub(crate) fn top(revert: &RevertPlan) -> Top {
    match &revert.file().in_place {
        Some(_) => revert.old_top(),
        None => Top {
            file: revert.file().new_file.clone(),
            format: revert.file().new_format,
        },
    }
}

/// Makes the new file, an empty overlay over the kept one, durably. An older attempt is replaced.
pub(crate) fn overlay(revert: &RevertPlan, roots: &Roots) -> Result<Prepared, EngineError> {
    kept::open(&At::revert(revert), None, &revert.kept, (roots, None))?;
    let image = NewImage {
        size: revert.kept.size,
        backing: Some((&revert.kept.file, revert.kept.format)),
    };
    make(revert, |file| image.write(file))
}

/// As [`overlay`], a clone of the kept file.
pub(crate) fn clone(revert: &RevertPlan, roots: &Roots) -> Result<Prepared, EngineError> {
    let place = revert.file().place.as_ref();
    let layers = kept::open(&At::revert(revert), None, &revert.kept, (roots, place))?;
    make(revert, |file| {
        let kept = layers.first().ok_or(io::ErrorKind::NotFound)?;
        held::take_flags(file, &kept.open, IFlags::NOCOW)?;
        Ok(ioctl_ficlone(file, &*kept.open)?)
    })
}

fn make(
    revert: &RevertPlan,
    content: impl FnOnce(&File) -> io::Result<()>,
) -> Result<Prepared, EngineError> {
    let old = revert.file().in_place.as_ref().unwrap_or(&revert.disk.file);
    let at = At::revert(revert);
    if let Some(place) = &revert.file().place {
        place.here(&at, old)?;
    }
    let base = match placed(revert, old) {
        Some(place) => place.open(old),
        None => held::open(old, false),
    };
    let base = base.map_err(|e| at.io(old, &e))?;
    let meta = base.metadata().map_err(|e| at.io(old, &e))?;
    if (meta.dev(), meta.ino()) != (revert.file().seen.device, revert.file().seen.inode) {
        return Err(at.error(EngineErrorKind::Unsupported, texts::REPLACED, old));
    }
    let make = || {
        require_removable(revert, &base)?;
        let new = new_file(revert)?;
        let file = stage::create_file(&new)?;
        let mut lost = fsxattr::take_hints(&file, &base);
        content(&file)?;
        lost.extend(match &revert.file().in_place {
            Some(_) => take_over(&file, &base)?,
            None => take_over_writable(&file, &base)?,
        });
        tell(
            revert
                .file()
                .in_place
                .as_ref()
                .unwrap_or(&revert.file().new_file),
            &lost,
        );
        file.sync_all()?;
        new.folder()?.sync()?;
        // As it is in a folder of ours: in its place others may exchange it.
        let in_place = revert.file().in_place.as_ref();
        let made = in_place
            .map(|path| image::record_of(path, &file))
            .transpose()?;
        Ok(Prepared { lost, made })
    };
    make().map_err(|e| trouble(revert, &e))
}

/// The folder of images that is held, if the file lies in it.
fn placed<'a>(revert: &'a RevertPlan, file: &Path) -> Option<&'a Beside> {
    revert.file().place.as_ref().filter(|place| place.has(file))
}

/// Where the new file is made.
fn new_file(revert: &RevertPlan) -> io::Result<Ours> {
    stage::place_of(&revert.file().new_file, revert.file().place.as_ref())
}

/// Whether the old file can go from its place after the commit, where it has to.
fn require_removable(revert: &RevertPlan, base: &File) -> io::Result<()> {
    let made = |file: &Path| {
        let mut above = file.ancestors().skip(1).take(2);
        let is_set = |f: &Path| f.file_name()?.to_str()?.parse::<SetId>().ok();
        above.any(|folder| is_set(folder).is_some())
    };
    let old = match &revert.file().in_place {
        Some(image) => image,
        None if made(&revert.disk.file) => &revert.disk.file,
        None => return Ok(()),
    };
    let folder = old.parent().unwrap_or(Path::new("/"));
    let held = match placed(revert, old) {
        Some(place) if place.folder == folder => place.held()?.again()?,
        _ => Folder::follow(folder)?,
    };
    for (it, fd) in [(old.as_path(), base.as_fd()), (folder, held.as_fd())] {
        let kept = IFlags::IMMUTABLE | IFlags::APPEND;
        let flags = ioctl_getflags(fd);
        if flags.is_ok_and(|flags| flags.intersects(kept)) {
            let text = format!("{} has the attribute i or a (chattr)", it.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
    }
    if revert.file().in_place.is_some()
        && let (Ok(own), Ok(above)) = (fsxattr::of(base), fsxattr::of(&held))
        && above.inherits
        && own.id != above.id
    {
        let text = format!(
            "{} is of project {}, and its folder keeps every other than {} from being moved into it (chattr -p)",
            old.display(),
            own.id,
            above.id
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    let denied = |e| io::Error::new(e, format!("{} cannot be written", folder.display()));
    accessat(
        &held,
        ".",
        Access::WRITE_OK | Access::EXEC_OK,
        AtFlags::EACCESS,
    )
    .map_err(|e| denied(io::Error::from(e).kind()))?;
    let (user, file, above) = (nix::unistd::geteuid(), base.metadata()?, held.identity()?);
    let owners = [0, file.uid(), above.owner];
    match above.mode & 0o1000 == 0 || owners.contains(&user.as_raw()) {
        true => Ok(()),
        false => Err(denied(io::ErrorKind::PermissionDenied)),
    }
}

/// Holds the new file as a running machine would, if it is there and not yet the active one.
///
/// # Errors
/// Someone has it open.
pub(crate) fn hold(revert: &RevertPlan) -> Result<Hold, EngineError> {
    let io = |e: io::Error| trouble(revert, &e);
    let new = new_file(revert).map_err(io)?;
    let inode = new.look().map_err(io)?.map(|it| it.inode);
    if inode.is_none() || inode == Some(revert.file().seen.inode) {
        return Ok(Hold::default());
    }
    let open = new.folder().and_then(|f| f.open_file(new.name(), false));
    let open = open.map_err(io)?;
    ImageLock::of(&At::revert(revert), &revert.file().new_file, open).map(Hold::on)
}

/// Exchanges the new file with the active one, if it is to stand at its path and does not yet. Told by inodes alone:
/// it may be another process, after a start of the host, that goes on here.
///
/// # Errors
/// Neither of both files is the one that was active.
pub(crate) fn exchange(revert: &RevertPlan) -> Result<(), EngineError> {
    let Some(path) = &revert.file().in_place else {
        return Ok(());
    };
    let io = |e: io::Error| trouble(revert, &e);
    let replaced = || At::revert(revert).error(EngineErrorKind::Unsupported, texts::REPLACED, path);
    let above = path.parent().unwrap_or(Path::new("/"));
    let folder = match placed(revert, path).filter(|place| place.folder == above) {
        Some(place) => place.held().map_err(|e| {
            let at = At::revert(revert);
            place.trouble(&at, path, &e)
        })?,
        None => Arc::new(Folder::straight(above).map_err(io)?),
    };
    let name = path.file_name().unwrap_or_default();
    let new = new_file(revert).map_err(io)?;
    let new_name = new.name();
    let ours = match new.folder() {
        // It was settled already.
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let here = folder.look(name).map_err(io)?;
            let is_old = here.is_none_or(|it| it.inode == revert.file().seen.inode);
            return if is_old { Err(replaced()) } else { Ok(()) };
        }
        found => found.map_err(io)?,
    };
    let old = Some(revert.file().seen.inode);
    let inode = |it: Option<held::Identity>| it.map(|it| it.inode);
    let here = inode(folder.look(name).map_err(io)?);
    let there = inode(ours.look(new_name).map_err(io)?);
    match (here, there) {
        (Some(was), Some(new)) if here == old => {
            let exchanged = folder.exchange(name, was, &ours, new_name, new);
            exchanged.map_err(|e| match held::foreign(&e) {
                Some(_) => At::revert(revert).io(path, &e),
                None => io(e),
            })?;
        }
        _ if here.is_none() || here == old || (there.is_some() && there != old) => {
            return Err(replaced());
        }
        _ => {}
    }
    folder.sync().and_then(|()| ours.sync()).map_err(io)
}

/// Whether both have changed places.
pub(crate) fn is_exchanged(revert: &RevertPlan) -> bool {
    let there = || new_file(revert)?.look();
    let is_old = |it: held::Identity| it.inode == revert.file().seen.inode;
    revert.file().in_place.is_some() && there().is_ok_and(|it| it.is_some_and(is_old))
}

/// Removes the safety copy of a revert in place. The new file of another is the active one and stays.
pub(crate) fn settle(revert: &RevertPlan) -> Result<(), EngineError> {
    match revert.file().in_place {
        Some(_) => discard_new(revert),
        None => Ok(()),
    }
}

/// Removes what was made. The old file is never removed, wherever it stands.
pub(crate) fn undo(revert: &RevertPlan) -> Result<(), EngineError> {
    // Only where the two change places can it stand there. Elsewhere the number may be used again.
    let old = Some(revert.file().seen.inode);
    if revert.file().in_place.is_some()
        && let Some(file) = reached(revert)?
    {
        let there = file.look().map_err(|e| trouble(revert, &e))?;
        if there.map(|it| it.inode) == old {
            return Ok(());
        }
    }
    discard_new(revert)
}

/// Removes the new file, or what was exchanged for it, and the folders that were made for it and are empty.
fn discard_new(revert: &RevertPlan) -> Result<(), EngineError> {
    let Some(file) = reached(revert)? else {
        return Ok(());
    };
    let gone = || {
        file.discard(None)?;
        match &revert.file().in_place {
            Some(_) => file.remove_folders(stage::LEVELS),
            None => Ok(()),
        }
    };
    gone().map_err(|e| trouble(revert, &e))
}

/// Where the new file is; `None` if its folders are gone.
///
/// # Errors
/// [`EngineErrorKind::Unsupported`]: its folder of images is away, or another stands in its place.
fn reached(revert: &RevertPlan) -> Result<Option<Ours>, EngineError> {
    match (new_file(revert), &revert.file().place) {
        (Ok(file), _) => Ok(Some(file)),
        (Err(e), None) if stage::is_gone(&e) => Ok(None),
        (Err(e), Some(place)) if stage::is_gone(&e) => {
            Err(place.trouble(&At::revert(revert), &revert.disk.file, &e))
        }
        (Err(e), _) => Err(trouble(revert, &e)),
    }
}

/// Where a file of this job stands beside the kept one: `<stem>-<job>.<suffix>`.
pub(crate) fn beside(
    folder: &Path,
    stem: &str,
    job: impl std::fmt::Display,
    suffix: &str,
) -> PathBuf {
    folder.join(format!("{stem}-{job}.{suffix}"))
}

/// Gives a file what the base has beside its content: owner, access control list, label, what users and
/// administrators have noted on it, project, inode flags, mode. In words what of it the file system or the kernel
/// does not let be kept. [`fsxattr::take_hints`] comes before there is content.
///
/// # Errors
/// The I/O error; owner, mode, list and label are kept or it fails.
pub(crate) fn take_over(file: &File, base: &File) -> io::Result<Vec<Text>> {
    take_over_as(file, base, |mode| mode)
}

/// [`take_over`] for a file of ours that becomes the active one: its owner can write to it, whatever the mode of the base.
pub(crate) fn take_over_writable(file: &File, base: &File) -> io::Result<Vec<Text>> {
    take_over_as(file, base, |mode| mode | ACTIVE)
}

/// A file of ours that its owner may not write is one that sets keep: nothing else tells that where records are lost.
pub(crate) const ACTIVE: u32 = 0o600;

fn take_over_as(file: &File, base: &File, as_mode: fn(u32) -> u32) -> io::Result<Vec<Text>> {
    let (own, theirs) = (file.metadata()?, base.metadata()?);
    if (own.uid(), own.gid()) != (theirs.uid(), theirs.gid()) {
        held::set_owner(file, theirs.uid(), theirs.gid())?;
    }
    for name in ATTRIBUTES {
        // Most files have neither; what is not there, or is so already, needs no copy.
        let (own, wanted) = (attribute(file, name), attribute(base, name));
        if !wanted.is_empty() && own != wanted {
            held::set_attribute(file, name, &wanted)?;
        } else if *name == ACL && wanted.is_empty() && !own.is_empty() {
            held::remove_attribute(file, name)?; // the folder has given it one
        }
    }
    let mut lost = Vec::new();
    for name in notes(base) {
        match held::set_attribute(file, &name, &attribute(base, &name)) {
            Ok(()) => {}
            Err(e)
                if [io::ErrorKind::Unsupported, io::ErrorKind::PermissionDenied]
                    .contains(&e.kind()) =>
            {
                let text = texts::ATTRIBUTE_LOST.with("name", name);
                lost.push(text.with("cause", e));
            }
            Err(e) => return Err(e),
        }
    }
    if let Ok(Project { id, .. }) = fsxattr::of(base)
        && let Err(e) = take_project(file, id)
    {
        lost.push(texts::PROJECT_LOST.with("id", id).with("cause", e));
    }
    lost.extend(take_flags(file, base));
    let mode = theirs.mode() & 0o7777;
    held::set_mode(file, as_mode(mode))?;
    if file.metadata()?.mode() & 0o7777 != mode {
        lost.push(texts::MODE_LOST.with("mode", format!("{mode:o}")));
    }
    Ok(lost)
}

/// Has the owner of a file read and write it.
///
/// # Errors
/// The I/O error.
pub(crate) fn make_writable(file: &File) -> io::Result<()> {
    let mode = file.metadata()?.mode() & 0o7777;
    match mode | ACTIVE {
        wanted if wanted == mode => Ok(()),
        wanted => held::set_mode(file, wanted),
    }
}

/// Gives the file to a project; a file system without projects has all files in none.
fn take_project(file: &File, id: u32) -> io::Result<()> {
    match fsxattr::of(file) {
        Ok(own) if own.id == id => Ok(()),
        Err(_) if id == 0 => Ok(()),
        Ok(_) => fsxattr::set(file, id),
        Err(error) => Err(error),
    }
}

/// Tells the log what is not kept.
pub(crate) fn tell(file: &Path, lost: &[Text]) {
    if !lost.is_empty() {
        let lost = lost.iter().collect::<Argument>().render(Language::EnUs);
        tracing::warn!(file = %file.display(), %lost, "The file in the place of an image does not keep all that the image has");
    }
}

/// Inode flags that say how a file is treated and are not of its content, with what `chattr` calls them.
const FLAGS: &[(u32, Message)] = &[
    (0x0000_0001, texts::FLAG_SECURE),
    (0x0000_0002, texts::FLAG_UNDELETABLE),
    (0x0000_0004, texts::FLAG_COMPRESSED),
    (0x0000_0008, texts::FLAG_SYNCHRONOUS),
    (0x0000_0040, texts::FLAG_NO_DUMP),
    (0x0000_0080, texts::FLAG_NO_ATIME),
    (0x0000_0400, texts::FLAG_NOT_COMPRESSED),
    (0x0000_4000, texts::FLAG_DATA_JOURNAL),
    (0x0000_8000, texts::FLAG_NO_TAIL),
    (0x0080_0000, texts::FLAG_NO_COW),
    (0x0200_0000, texts::FLAG_DAX),
];

/// Makes these flags the same; what cannot be is given back.
fn take_flags(file: &File, base: &File) -> Vec<Text> {
    let Ok(theirs) = ioctl_getflags(base) else {
        return Vec::new(); // it has none
    };
    let Ok(own) = ioctl_getflags(file) else {
        let lost = FLAGS.iter().filter(|(bit, _)| theirs.bits() & bit != 0);
        return lost.map(|(_, flag)| flag.text()).collect();
    };
    let kept = FLAGS.iter().fold(0, |all, (bit, _)| all | bit);
    let wanted = (own.bits() & !kept) | (theirs.bits() & kept);
    if wanted == own.bits() {
        return Vec::new();
    }
    if held::set_flags(file, wanted).is_err() {
        let mut now = own.bits();
        for (bit, _) in FLAGS {
            let differs = (now ^ wanted) & bit != 0;
            if differs && held::set_flags(file, now ^ bit).is_ok() {
                now ^= bit;
            }
        }
    }
    // Some file systems take a flag without a word and do not set it.
    let now = ioctl_getflags(file).map_or(own.bits(), |now| now.bits());
    let lost = FLAGS.iter().filter(|(bit, _)| (now ^ wanted) & bit != 0);
    lost.map(|(_, flag)| flag.text()).collect()
}

/// The names of the extended attributes that users and administrators have noted.
fn notes(file: &File) -> Vec<String> {
    let mut names = vec![0; 64 << 10]; // the kernel's limit
    let length = flistxattr(file, names.as_mut_slice()).unwrap_or(0);
    names.truncate(length);
    let names = names.split(|octet| *octet == 0);
    let names = names.filter_map(|name| std::str::from_utf8(name).ok());
    let names = names.filter(|name| NOTES.iter().any(|of| name.starts_with(of)));
    names.map(str::to_owned).collect()
}

/// Why this process may not give a file of its own the owner and mode of the image; `None` if it may.
pub(crate) fn forbidden(file: &File, base: &File) -> Option<Text> {
    let error = take_over(file, base).err()?;
    let owner = base.metadata().ok()?;
    (kind(&error) == EngineErrorKind::Denied).then(|| {
        texts::MAY_NOT_GIVE
            .with("user", owner.uid())
            .with("group", owner.gid())
            .with("own", nix::unistd::geteuid().as_raw())
            .with("cause", error)
    })
}

/// An extended attribute; empty if the file has none of that name.
fn attribute(file: &File, name: &str) -> Vec<u8> {
    let mut value = vec![0; 64 << 10]; // the kernel's limit
    let length = fgetxattr(file, name, value.as_mut_slice()).unwrap_or(0);
    value.truncate(length);
    value
}

fn trouble(revert: &RevertPlan, error: &io::Error) -> EngineError {
    tracing::warn!(file = %revert.file().new_file.display(), %error, "A file of a revert");
    if let (Some(place), true) = (&revert.file().place, held::foreign(error).is_some()) {
        return place.trouble(&At::revert(revert), &revert.disk.file, error);
    }
    EngineError {
        kind: kind(error),
        text: At::revert(revert)
            .text(texts::REVERT_FAILED, &revert.disk.file)
            .with("cause", error),
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    /// As on a file system that has no inode flags.
    #[test]
    fn flags_are_told_where_a_file_has_none() {
        let base = tempfile::tempfile().unwrap();
        let (pipe, _other) = io::pipe().unwrap();
        let pipe = File::from(std::os::fd::OwnedFd::from(pipe));
        assert!(ioctl_getflags(&pipe).is_err());
        assert_eq!(take_flags(&pipe, &base), []);
        let has_none = |e: &io::Error| {
            let errno = Errno::from_io_error(e);
            errno.is_some_and(|it| [Errno::NOTTY, Errno::OPNOTSUPP].contains(&it))
        };
        match held::set_flags(&base, IFlags::NODUMP.bits()) {
            // Nor does the file system of temporary files have any.
            Err(e) if has_none(&e) => return,
            set => set.unwrap(),
        }
        assert_eq!(take_flags(&pipe, &base), [texts::FLAG_NO_DUMP.text()]);
    }
}
