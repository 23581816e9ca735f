//! What is recorded of the images that an operator has imported, with the chains under them, and whether what stands
//! there is still that.
//!
//! Who may rename in an image's folder may put anything in its place. A link, a file of another user or one with a
//! second name (hard link) is refused until the operator says that it is meant; another regular file of the same
//! owner is taken and told, for so operators restore images.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::engine::failure::At;
use crate::engine::place::Place;
use crate::engine::qcow2::chain::{self, Layer, Roots, Within};
use crate::engine::{EngineError, EngineErrorKind, graph, reflink};
use crate::held::{self, Folder, Foreign, Identity, Kind};
use crate::inventory::{Disk, Format, Image, Machine};
use crate::text::catalog::engine as texts;

/// Resolves the links in the path of an image, once, and records what stands there and what lies under it.
///
/// # Errors
/// The I/O error; it is no regular file.
pub(crate) fn record(named: &Path, format: Format) -> io::Result<Image> {
    seen(named, format).map(|(image, _)| image)
}

/// [`record`], and the devices of the files: with the inodes they tell one file from another in this process.
///
/// # Errors
/// As [`record`].
pub(crate) fn seen(named: &Path, format: Format) -> io::Result<(Image, Vec<u64>)> {
    let (image, device) = one(named)?;
    let (layers, unreadable) = chain::readable(&image.file, format);
    let below = layers.iter().skip(1).map(|layer| one(&layer.file));
    let below = below.collect::<io::Result<Vec<_>>>()?;
    let (below, devices): (Vec<_>, Vec<_>) = below.into_iter().unzip();
    let image = Image {
        below: unreadable.is_none().then_some(below),
        ..image
    };
    Ok((image, [&[device], devices.as_slice()].concat()))
}

fn one(named: &Path) -> io::Result<(Image, u64)> {
    let real = held::canonicalize(named)?;
    let name = real.file_name().ok_or(Foreign::NotRegular)?;
    let folder = Folder::resolve(real.parent().unwrap_or(Path::new("/")))?;
    let found = Identity::of(folder.open_file(name, false)?)?;
    let image = Image {
        named: named.to_owned(),
        file: real.clone(),
        inode: found.inode,
        owner: found.owner,
        mode: found.mode,
        links: found.links,
        below: None,
    };
    Ok((image, found.device))
}

/// The record with what lies under the image, where an older version has not recorded that; of that image alone.
pub(crate) fn completed(old: &Image, format: Format) -> Option<Image> {
    let new = record(&old.file, format).ok()?;
    let is_it = old.below.is_none() && new.inode == old.inode;
    (is_it && new.below.is_some()).then(|| Image {
        below: new.below,
        ..old.clone()
    })
}

/// The record of what stands in the place of a recorded image now, if that and what lies under it is to be taken
/// without a word of the operator.
pub(crate) fn renewed(old: &Image, format: Format) -> Option<Image> {
    let new = record(&old.file, format).ok()?;
    let is_taken = |old: &Image, new: &Image| judge(old, &new.file, &identity(new)).is_ok();
    let is_known = |new: &Image| {
        let mut known = old.below.iter().flatten();
        known.any(|old| old.file == new.file && is_taken(old, new))
    };
    if !is_taken(old, &new)
        || old.below.is_some() && !new.below.as_ref().is_some_and(|b| b.iter().all(is_known))
    {
        return None;
    }
    Some(Image {
        named: old.named.clone(),
        ..joined(new, Some(old))
    })
}

/// The record with what was recorded under the image before: sets that were taken then lie on that.
pub(crate) fn joined(new: Image, old: Option<&Image>) -> Image {
    let Some(mut below) = new.below.clone() else {
        return new;
    };
    let before = old.into_iter().flat_map(|old| old.below.iter().flatten());
    let before = before.filter(|old| !below.iter().any(|b| b.file == old.file));
    let before: Vec<_> = before.cloned().collect();
    below.extend(before);
    Image {
        below: Some(below),
        ..new
    }
}

/// Whether the server made the file for this machine, in its own folders: nobody else names what lies under it. A path
/// alone tells nothing of that, as others may make folders of these names beside an image: the file is found by the way
/// to one of ours, on which nobody else can exchange anything.
///
/// # Errors
/// It has the name of such a file, and is none.
fn is_made(
    machine: &Machine,
    real: &Path,
    found: &Identity,
    place: Option<&Place>,
) -> io::Result<bool> {
    if !has_made_name(machine, real) {
        return Ok(false);
    }
    require_ours(real, found, place).map(|()| true)
}

/// Refuses a file that is not in a folder of ours, in that `place` if it lies in it.
fn require_ours(real: &Path, found: &Identity, place: Option<&Place>) -> io::Result<()> {
    let there = match place.filter(|place| place.has(real)) {
        Some(place) => place.ours(real)?,
        None => graph::ours(real)?,
    };
    let there = there.folder()?.look(there.name())?;
    match there.is_some_and(|there| there.is_same(found)) {
        true => Ok(()),
        false => Err(Foreign::NotOurs.into()),
    }
}

fn has_made_name(machine: &Machine, real: &Path) -> bool {
    let id = machine.id.to_string();
    let data_dir = machine.directory.ancestors().nth(2);
    let sets = data_dir.map(|data_dir| data_dir.join(held::SETS));
    let has_id =
        |name: Option<&OsStr>| name.is_some_and(|n| n.as_bytes().starts_with(id.as_bytes()));
    match reflink::is_clone(real) {
        true => has_id(real.file_name()),
        false => {
            sets.is_some_and(|sets| real.starts_with(sets))
                && has_id(real.parent().and_then(Path::file_name))
        }
    }
}

/// Whether the file is the recorded one, moved to another name on the file system where it stood.
fn is_moved(image: &Image, found: &Identity) -> bool {
    let place = image.file.parent().unwrap_or(Path::new("/"));
    let stood = Folder::resolve(place).ok().filter(|f| f.path() == place);
    let stood = stood.and_then(|folder| folder.identity().ok());
    stood.is_some_and(|folder| folder.device == found.device)
        && (image.inode, image.owner) == (found.inode, found.owner)
}

fn identity(image: &Image) -> Identity {
    Identity {
        inode: image.inode,
        owner: image.owner,
        links: image.links,
        mode: image.mode,
        device: 0,
        group: 0,
        length: 0,
        kind: Kind::File,
    }
}

/// The chain under the active file of a disk. Each file is compared with what was recorded before anything of its
/// content is read: it is refused if it stands at the place of an imported image, or of one under it, and is not to be
/// taken for it, and if it lies under the image and did not when that was imported.
///
/// # Errors
/// [`EngineErrorKind::Unsupported`] naming the file, what stands there and what to do; as [`chain::open`].
pub(crate) fn open(
    at: &At,
    machine: &Machine,
    disk: &Disk,
    file: &Path,
    within: Within<'_>,
) -> Result<Vec<Layer>, EngineError> {
    let mut judge = Judge::new(machine, &disk.id, true).within(within.1);
    let judge = &mut |file: &Path, real: &Path, open: &File| judge.admit(at, file, real, open);
    let opened = chain::open_judged(at, file, disk.format, within, judge);
    opened.map_err(|error| linked(at, machine, file).unwrap_or(error))
}

/// Whether what stands in the place of the active file is not taken for what was recorded. Nothing of its content is
/// read.
pub(crate) fn is_foreign(machine: &Machine, disk: &Disk) -> bool {
    let at = At::disk(machine, disk);
    let Ok(top) = chain::top(&at, &disk.file, &Roots::default(), None) else {
        return false;
    };
    let look =
        || Ok(Judge::new(machine, &disk.id, true).look(&at, &top.file, &top.real, &top.open));
    held::ask(&disk.file, look).is_ok_and(|looked| looked.is_err())
}

/// Whether a link stands in the place of the image that is the active file.
pub(crate) fn is_linked(machine: &Machine, disk: &Disk) -> bool {
    linked(&At::disk(machine, disk), machine, &disk.file).is_some()
}

/// That a link stands in the place of an image; where it leads is not looked at.
fn linked(at: &At, machine: &Machine, file: &Path) -> Option<EngineError> {
    machine.image(file).filter(|image| image.file == file)?;
    let is_link = held::symlink_metadata(file).is_ok_and(|it| it.is_symlink());
    is_link.then(|| swapped(at, file, Foreign::Link))
}

/// That the file has the name of one of ours, and is none.
fn astray(at: &At, file: &Path, error: &io::Error) -> EngineError {
    match held::foreign(error) {
        Some(_) => EngineError {
            kind: EngineErrorKind::Unsupported,
            text: at
                .text(texts::FOLDER_SWAPPED, file)
                .with("folder", file.ancestors().nth(2).unwrap_or(file).display())
                .with("cause", error),
        },
        None => at.io(file, error),
    }
}

/// Whether a file that is open is to be taken for an image without a word of the operator.
///
/// # Errors
/// Why it is not.
pub(crate) fn require_taken(image: &Image, real: &Path, open: &File) -> io::Result<()> {
    judge(image, real, &Identity::of(open)?)?;
    Ok(())
}

fn swapped(at: &At, file: &Path, found: Foreign) -> EngineError {
    EngineError {
        kind: EngineErrorKind::Unsupported,
        text: at.text(texts::IMAGE_SWAPPED, file).with("cause", found),
    }
}

/// [`open`] of what a set keeps and its operator takes as it is now: other files of the same owners are taken.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_accepted(
    at: &At,
    machine: Option<&Machine>,
    disk: &str,
    (file, format): (&Path, Format),
    within: Within<'_>,
) -> Result<Vec<Layer>, EngineError> {
    let judge = machine.map(|machine| Judge::new(machine, disk, false));
    let mut judge = judge.map(|judge| judge.within(within.1));
    let judge = &mut |file: &Path, real: &Path, open: &File| match &mut judge {
        Some(judge) => judge.admit(at, file, real, open),
        // Of a machine that is gone nothing is recorded; a clone of it is known by its folder.
        None if reflink::is_clone(real) => {
            let found = Identity::of(open).map_err(|e| at.io(file, &e))?;
            require_ours(real, &found, within.1).map_err(|e| astray(at, file, &e))
        }
        None => Ok(()),
    };
    chain::open_judged(at, file, format, within, judge)
}

/// Refuses a chain as [`open`] does, once it is open.
///
/// # Errors
/// As [`open`].
pub(crate) fn check(
    at: &At,
    machine: &Machine,
    disk: &Disk,
    layers: &[Layer],
) -> Result<(), EngineError> {
    let (mut judge, mut layers) = (Judge::new(machine, &disk.id, true), layers.iter());
    layers.try_for_each(|layer| judge.admit(at, &layer.file, &layer.real, &layer.open))
}

/// Looks at the files of one chain, from above.
struct Judge<'a> {
    machine: &'a Machine,
    disk: &'a str,
    frozen: bool,
    /// So many were looked at.
    seen: usize,
    /// So many the server made for this machine; they lie above what was imported.
    made: usize,
    /// What is recorded of the image, if the chain stands on it.
    own: Option<&'a Image>,
    /// The folder that is held, through which what lies in it was opened.
    place: Option<&'a Place>,
}

impl<'a> Judge<'a> {
    fn new(machine: &'a Machine, disk: &'a str, frozen: bool) -> Self {
        Self {
            machine,
            disk,
            frozen,
            seen: 0,
            made: 0,
            own: machine.images.get(disk),
            place: None,
        }
    }

    fn within(self, place: Option<&'a Place>) -> Self {
        Self { place, ..self }
    }

    fn admit(&mut self, at: &At, file: &Path, real: &Path, open: &File) -> Result<(), EngineError> {
        let is_other = self.look(at, file, real, open)?;
        if is_other {
            tracing::warn!(
                machine = self.machine.name,
                disk = self.disk,
                file = %file.display(),
                "Another file stands in the place of the image; it has the same owner and is taken"
            );
        }
        Ok(())
    }

    /// Whether the file is another one, which is taken all the same.
    fn look(
        &mut self,
        at: &At,
        file: &Path,
        real: &Path,
        open: &File,
    ) -> Result<bool, EngineError> {
        let found = Identity::of(open).map_err(|e| at.io(file, &e))?;
        let is_first = self.seen == 0;
        self.seen = self.seen.saturating_add(1);
        if self.made.saturating_add(1) == self.seen {
            let made = is_made(self.machine, real, &found, self.place);
            if made.map_err(|e| astray(at, file, &e))? {
                self.made = self.seen;
                return Ok(false);
            }
        }
        let Some(own) = self.own else {
            return Ok(false);
        };
        let is_at = |image: &Image| image.file == real || image.file == file || image.named == file;
        // Its definition names another image since.
        if is_first && !is_at(own) {
            self.own = None;
            return Ok(false);
        }
        let image = match &own.below {
            _ if is_at(own) => Some(own),
            None => return Ok(false),
            Some(below) => {
                let named = below.iter().find(|image| is_at(image));
                named.or_else(|| below.iter().find(|image| is_moved(image, &found)))
            }
        };
        let judged = match image {
            None => Err(Foreign::Unrecorded),
            // Something is frozen on it.
            Some(image) if self.frozen && self.made > 0 && found.inode != image.inode => {
                Err(other(image, &found))
            }
            Some(image) => judge(image, real, &found),
        };
        judged.map_err(|foreign| swapped(at, file, foreign))
    }
}

/// Whether the file is another one, which is taken all the same. An inode number says nothing where a link that was
/// not there leads to another file system.
fn judge(image: &Image, real: &Path, found: &Identity) -> Result<bool, Foreign> {
    if real != image.file && !is_moved(image, found) {
        return Err(Foreign::Astray);
    }
    if found.inode == image.inode {
        return match found.links > image.links.max(1) {
            true => Err(Foreign::Names(found.links)),
            false => Ok(false),
        };
    }
    if found.owner != image.owner {
        return Err(Foreign::Owner {
            expected: image.owner,
            found: found.owner,
        });
    }
    if found.links != 1 {
        return Err(Foreign::Names(found.links));
    }
    // Whoever may rename there may put a file there that he cannot read himself.
    match held::exposed(real).filter(|(_, folder, mode)| *folder != found.owner || mode & 0o22 != 0)
    {
        Some((_, owner, mode)) => Err(Foreign::Shared { owner, mode }),
        None => Ok(true),
    }
}

fn other(image: &Image, found: &Identity) -> Foreign {
    Foreign::Other {
        expected: image.inode,
        found: found.inode,
    }
}
