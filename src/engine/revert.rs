//! How the file drivers put a disk back to what a snapshot keeps.
//!
//! A new file is made and durable before the commit. Either it becomes the new top under its own name, or it
//! is exchanged with the active file at its path: what stood there then lies under the internal name, as the
//! safety copy, until [`settle`]. Which of both files stands where is told by the inode of the old one.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{
    Access, AtFlags, CWD, IFlags, RenameFlags, XattrFlags, accessat, fgetxattr, flistxattr,
    fremovexattr, fsetxattr, ioctl_ficlone, ioctl_getflags, ioctl_setflags, renameat_with,
};
use rustix::io::Errno;

use crate::engine::failure::{At, kind};
use crate::engine::links;
use crate::engine::locks::ImageLock;
use crate::engine::project;
use crate::engine::qcow2::chain::{self, Roots};
use crate::engine::qcow2::writer::NewImage;
use crate::engine::stage::{self, remove, sync_dir};
use crate::engine::{EngineError, EngineErrorKind, Revert, RevertRequest, Stamp, Top};
use crate::id::SetId;
use crate::inventory::Format;
use crate::text::catalog::engine as texts;

/// The folders above a new file that are ours.
const LEVELS: usize = 2;
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
    new_file: PathBuf,
    new_format: Format,
    in_place: Option<PathBuf>,
) -> Result<Revert, EngineError> {
    let (machine, disk, kept) = (request.machine, request.disk, request.kept);
    let at = At::disk(machine, disk);
    let layers = chain::open(&at, &kept.file, kept.format, &Roots::default())?;
    chain::require_whole(&at, &layers)?;
    if in_place.is_none() && !machine.overlay_ok {
        let kind = EngineErrorKind::Unsupported;
        let text = at.text(texts::REVERT_MOVES, &disk.file);
        let text = links::allowing(text, machine, disk);
        return Err(EngineError { kind, text });
    }
    let meta = fs::metadata(&disk.file).map_err(|e| at.io(&disk.file, &e))?;
    if !meta.is_file() {
        return Err(at.error(EngineErrorKind::Unsupported, texts::NOT_REGULAR, &disk.file));
    }
    Ok(Revert {
        driver: driver.to_owned(),
        set: request.set,
        machine: machine.id,
        machine_name: machine.name.clone(),
        disk: disk.clone(),
        kept: kept.clone(),
        new_file,
        new_format,
        in_place,
        seen: Stamp::of(&meta),
    })
}

/// The active file after the revert.
pub(crate) fn top(revert: &Revert) -> Top {
    match &revert.in_place {
        Some(_) => revert.old_top(),
        None => Top {
            file: revert.new_file.clone(),
            format: revert.new_format,
        },
    }
}

/// Makes the new file, an empty overlay over the kept one, durably. An older attempt is replaced.
pub(crate) fn overlay(revert: &Revert) -> Result<(), EngineError> {
    let image = NewImage {
        size: revert.kept.size,
        backing: Some((&revert.kept.file, revert.kept.format)),
    };
    make(revert, |file| image.write(file))
}

/// Makes the new file, a clone of the kept one, durably. An older attempt is replaced.
pub(crate) fn clone(revert: &Revert) -> Result<(), EngineError> {
    make(revert, |file| {
        let kept = File::open(&revert.kept.file)?;
        if ioctl_getflags(&kept).is_ok_and(|f| f.contains(IFlags::NOCOW)) {
            ioctl_setflags(file, ioctl_getflags(file)? | IFlags::NOCOW)?;
        }
        Ok(ioctl_ficlone(file, &kept)?)
    })
}

fn make(revert: &Revert, content: impl FnOnce(&File) -> io::Result<()>) -> Result<(), EngineError> {
    let old = &revert.disk.file;
    let base = File::open(old).map_err(|e| At::revert(revert).io(old, &e))?;
    let make = || {
        require_removable(revert)?;
        let folder = revert.new_file.parent().unwrap_or(Path::new("/"));
        let file = stage::create_file(&revert.new_file, LEVELS)?;
        content(&file)?;
        match &revert.in_place {
            Some(image) => tell(image, &take_over(&file, &base)?),
            None => take_over_writable(&file, &base, &revert.new_file)?,
        }
        file.sync_all()?;
        sync_dir(folder)
    };
    make().map_err(|e| trouble(revert, &e))
}

/// Whether the old file can go from its place after the commit, where it has to.
fn require_removable(revert: &Revert) -> io::Result<()> {
    let made = |file: &Path| {
        let mut above = file.ancestors().skip(1).take(2);
        let is_set = |f: &Path| f.file_name()?.to_str()?.parse::<SetId>().ok();
        above.any(|folder| is_set(folder).is_some())
    };
    let old = match &revert.in_place {
        Some(image) => image,
        None if made(&revert.disk.file) => &revert.disk.file,
        None => return Ok(()),
    };
    let folder = old.parent().unwrap_or(Path::new("/"));
    for it in [old.as_path(), folder] {
        let kept = IFlags::IMMUTABLE | IFlags::APPEND;
        let flags = File::open(it).and_then(|f| Ok(ioctl_getflags(f)?));
        if flags.is_ok_and(|flags| flags.intersects(kept)) {
            let text = format!("{} has the attribute i or a (chattr)", it.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
    }
    if revert.in_place.is_some()
        && let (Ok(own), Ok(above)) = (
            File::open(old).and_then(|f| project::of(&f)),
            File::open(folder).and_then(|f| project::of(&f)),
        )
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
        CWD,
        folder,
        Access::WRITE_OK | Access::EXEC_OK,
        AtFlags::EACCESS,
    )
    .map_err(|e| denied(io::Error::from(e).kind()))?;
    let (user, file, above) = (
        nix::unistd::geteuid(),
        fs::metadata(old)?,
        fs::metadata(folder)?,
    );
    let owners = [0, file.uid(), above.uid()];
    match above.mode() & 0o1000 == 0 || owners.contains(&user.as_raw()) {
        true => Ok(()),
        false => Err(denied(io::ErrorKind::PermissionDenied)),
    }
}

/// Holds the new file as a running machine would, if it is there and not yet the active one.
///
/// # Errors
/// Someone has it open.
pub(crate) fn hold(revert: &Revert) -> Result<Option<ImageLock>, EngineError> {
    let id = inode(&revert.new_file).map_err(|e| trouble(revert, &e))?;
    if id.is_none() || id == Some((revert.seen.device, revert.seen.inode)) {
        return Ok(None);
    }
    ImageLock::take(&At::revert(revert), &revert.new_file).map(Some)
}

/// Exchanges the new file with the active one, if it is to stand at its path and does not yet.
///
/// # Errors
/// Neither of both files is the one that was active.
pub(crate) fn exchange(revert: &Revert) -> Result<(), EngineError> {
    let Some(path) = &revert.in_place else {
        return Ok(());
    };
    let io = |e: io::Error| trouble(revert, &e);
    let old = Some((revert.seen.device, revert.seen.inode));
    let (here, there) = (
        inode(path).map_err(io)?,
        inode(&revert.new_file).map_err(io)?,
    );
    if here == old && there.is_some() {
        renameat_with(CWD, &revert.new_file, CWD, path, RenameFlags::EXCHANGE)
            .map_err(|e| io(e.into()))?;
    } else if here.is_none() || here == old || (there.is_some() && there != old) {
        return Err(At::revert(revert).error(EngineErrorKind::Failed, texts::REPLACED, path));
    }
    for file in [path, &revert.new_file] {
        sync_dir(file.parent().unwrap_or(Path::new("/"))).map_err(io)?;
    }
    Ok(())
}

/// Removes the safety copy of a revert in place. The new file of another is the active one and stays.
pub(crate) fn settle(revert: &Revert) -> Result<(), EngineError> {
    match revert.in_place {
        Some(_) => discard_new(revert),
        None => Ok(()),
    }
}

/// Removes what was made. The old file is never removed, wherever it stands.
pub(crate) fn undo(revert: &Revert) -> Result<(), EngineError> {
    let io = |e: io::Error| trouble(revert, &e);
    // Only where the two change places can it stand there. Elsewhere the number may be used again.
    let old = Some((revert.seen.device, revert.seen.inode));
    if revert.in_place.is_some() && inode(&revert.new_file).map_err(io)? == old {
        return Ok(());
    }
    discard_new(revert)
}

/// Removes the new file, or what was exchanged for it, and the folders that were made for it and are empty.
fn discard_new(revert: &Revert) -> Result<(), EngineError> {
    let gone = discard(&revert.new_file);
    let gone = gone.and_then(|()| match &revert.in_place {
        Some(_) => stage::remove_dirs(&revert.new_file, LEVELS),
        None => Ok(()),
    });
    gone.map_err(|e| trouble(revert, &e))
}

/// Unlinks a file durably; it may be gone already, and its folder with it.
pub(crate) fn discard(file: &Path) -> io::Result<()> {
    remove(file)?;
    match sync_dir(file.parent().unwrap_or(Path::new("/"))) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        synced => synced,
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
/// does not let be kept.
///
/// # Errors
/// The I/O error; owner, mode, list and label are kept or it fails.
pub(crate) fn take_over(file: &File, base: &File) -> io::Result<Vec<String>> {
    let (own, theirs) = (file.metadata()?, base.metadata()?);
    if (own.uid(), own.gid()) != (theirs.uid(), theirs.gid()) {
        fchown(file, Some(theirs.uid()), Some(theirs.gid()))?;
    }
    for name in ATTRIBUTES {
        // Most files have neither; what is not there, or is so already, needs no copy.
        let (own, wanted) = (attribute(file, name), attribute(base, name));
        if !wanted.is_empty() && own != wanted {
            fsetxattr(file, *name, &wanted, XattrFlags::empty())?;
        } else if *name == ACL && wanted.is_empty() && !own.is_empty() {
            fremovexattr(file, *name)?; // the folder has given it one
        }
    }
    let mut lost = Vec::new();
    for name in notes(base) {
        match fsetxattr(file, &name, &attribute(base, &name), XattrFlags::empty()) {
            Ok(()) => {}
            Err(e @ (Errno::OPNOTSUPP | Errno::PERM)) => {
                lost.push(format!("extended attribute {name} ({e})"));
            }
            Err(e) => return Err(e.into()),
        }
    }
    if let (Ok(own), Ok(theirs)) = (project::of(file), project::of(base))
        && own.id != theirs.id
        && let Err(e) = project::set(file, theirs.id)
    {
        lost.push(format!("project id {} ({e})", theirs.id));
    }
    lost.extend(take_flags(file, base));
    let mode = theirs.mode() & 0o7777;
    file.set_permissions(Permissions::from_mode(mode))?;
    if file.metadata()?.mode() & 0o7777 != mode {
        lost.push(format!("mode {mode:o}"));
    }
    Ok(lost)
}

/// [`take_over`] for a file that becomes a writable one of ours; what is not kept is told in the log.
pub(crate) fn take_over_writable(file: &File, base: &File, named: &Path) -> io::Result<()> {
    tell(named, &take_over(file, base)?);
    let mode = file.metadata()?.mode() & 0o7777;
    file.set_permissions(Permissions::from_mode(mode | 0o600))
}

fn tell(file: &Path, lost: &[String]) {
    if !lost.is_empty() {
        let lost = lost.join(", ");
        tracing::warn!(file = %file.display(), %lost, "The file in the place of an image does not keep all that the image has");
    }
}

/// Inode flags that say how a file is treated and are not of its content (`chattr`), with their names there.
const FLAGS: &[(u32, &str)] = &[
    (0x0000_0001, "s (secure deletion)"),
    (0x0000_0002, "u (undeletable)"),
    (0x0000_0004, "c (compressed)"),
    (0x0000_0008, "S (synchronous)"),
    (0x0000_0040, "d (no dump)"),
    (0x0000_0080, "A (no atime)"),
    (0x0000_0400, "m (not compressed)"),
    (0x0000_4000, "j (data journal)"),
    (0x0000_8000, "t (no tail-merging)"),
    (0x0080_0000, "C (no copy-on-write)"),
    (0x0200_0000, "x (direct access)"),
];

/// Makes these flags the same; what cannot be is given back.
fn take_flags(file: &File, base: &File) -> Vec<String> {
    let (Ok(own), Ok(theirs)) = (ioctl_getflags(file), ioctl_getflags(base)) else {
        return Vec::new();
    };
    let kept = FLAGS.iter().fold(0, |all, (bit, _)| all | bit);
    let wanted = (own.bits() & !kept) | (theirs.bits() & kept);
    if wanted == own.bits() {
        return Vec::new();
    }
    if ioctl_setflags(file, IFlags::from_bits_retain(wanted)).is_err() {
        let mut now = own.bits();
        for (bit, _) in FLAGS {
            let differs = (now ^ wanted) & bit != 0;
            if differs && ioctl_setflags(file, IFlags::from_bits_retain(now ^ bit)).is_ok() {
                now ^= bit;
            }
        }
    }
    // Some file systems take a flag without a word and do not set it.
    let now = ioctl_getflags(file).map_or(own.bits(), |now| now.bits());
    let lost = FLAGS.iter().filter(|(bit, _)| (now ^ wanted) & bit != 0);
    lost.map(|(_, name)| format!("flag {name}")).collect()
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

/// Why this process may not give a file of its own the owner and mode of the image, in words; `None` if it may.
pub(crate) fn forbidden(file: &File, image: &Path) -> Option<String> {
    let base = File::open(image).ok()?;
    let error = take_over(file, &base).err()?;
    let owner = base.metadata().ok()?;
    (kind(&error) == EngineErrorKind::Denied).then(|| {
        format!(
            "it belongs to user {} and group {}, and the server, which runs as user {}, may not give them to another file: {error}",
            owner.uid(),
            owner.gid(),
            nix::unistd::geteuid()
        )
    })
}

/// An extended attribute; empty if the file has none of that name.
fn attribute(file: &File, name: &str) -> Vec<u8> {
    let mut value = vec![0; 64 << 10]; // the kernel's limit
    let length = fgetxattr(file, name, value.as_mut_slice()).unwrap_or(0);
    value.truncate(length);
    value
}

fn inode(file: &Path) -> io::Result<Option<(u64, u64)>> {
    match fs::symlink_metadata(file) {
        Ok(meta) => Ok(Some((meta.dev(), meta.ino()))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn trouble(revert: &Revert, error: &io::Error) -> EngineError {
    tracing::warn!(file = %revert.new_file.display(), %error, "A file of a revert");
    EngineError {
        kind: kind(error),
        text: At::revert(revert)
            .text(texts::REVERT_FAILED, &revert.disk.file)
            .with("cause", error),
    }
}
