//! What is recorded of the images that an operator has imported, with the chains under them, and whether what stands
//! there is still that.
//!
//! Who may rename in an image's folder may put anything in its place. A link, a file of another user or one with a
//! second name (hard link) is refused until the operator says that it is meant; another regular file of the same
//! owner is taken and told, for so operators restore images.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::engine::beside::Beside;
use crate::engine::definition;
use crate::engine::failure::At;
use crate::engine::qcow2::chain::{self, Layer, Roots, Within};
use crate::engine::{EngineError, EngineErrorKind, graph, names, reflink};
use crate::held::{self, Exposed, Folder, Foreign, Identity};
use crate::id::VmId;
use crate::inventory::{Born, Disk, Format, Image, Machine, Seal};
use crate::text::Argument;
use crate::text::catalog::engine as texts;

/// Tells what is recorded of images by all machines.
pub(crate) type Recorded<'a> = &'a dyn Fn() -> io::Result<Vec<(VmId, Image)>>;

/// What stands at the path of an image, with the chain under it, as it may be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The record.
    pub(crate) image: Image,
    /// The device of each file; with the inodes they tell one file from another in this process.
    pub(crate) devices: Vec<u64>,
    /// The files under the image that its owner could not read.
    pub(crate) closed: Vec<PathBuf>,
}

impl Seen {
    /// A chain that is open, its image named so in the definition: what is recorded is what was checked.
    ///
    /// # Errors
    /// The I/O error.
    pub(crate) fn of(named: &Path, layers: &[Layer]) -> io::Result<Self> {
        let mut all = layers.iter().map(|layer| {
            let found = Identity::of(&layer.open)?;
            Ok((record(&layer.file, &layer.real, &found), found))
        });
        let (image, top) = all.next().ok_or(io::ErrorKind::NotFound)??;
        let under = all.collect::<io::Result<Vec<_>>>()?;
        let devices = [&top].into_iter().chain(under.iter().map(|(_, it)| it));
        let closed = under
            .iter()
            .filter(|(it, found)| !may_read(&top, &it.file, found));
        Ok(Self {
            devices: devices.map(|it| it.device).collect(),
            closed: closed.map(|(it, _)| it.file.clone()).collect(),
            image: Image {
                named: named.to_owned(),
                below: Some(under.iter().map(|(it, _)| it.clone()).collect()),
                ..image
            },
        })
    }

    /// The chain under what stands at this path now, links in it resolved once.
    ///
    /// # Errors
    /// As [`chain::open`].
    pub(crate) fn at(
        at: &At,
        named: &Path,
        format: Format,
        roots: &Roots,
    ) -> Result<Self, EngineError> {
        let real = held::canonicalize(named).map_err(|e| at.io(named, &e))?;
        let layers = chain::open(at, &real, format, roots)?;
        Self::of(named, &layers).map_err(|e| at.io(named, &e))
    }
}

/// The record of a file that is to stand at this path, by its descriptor; what lies under it is not told.
///
/// # Errors
/// The I/O error.
pub(crate) fn record_of(path: &Path, open: &File) -> io::Result<Image> {
    Ok(record(path, path, &Identity::of(open)?))
}

fn record(named: &Path, real: &Path, found: &Identity) -> Image {
    Image {
        named: named.to_owned(),
        file: real.to_owned(),
        inode: found.inode,
        born: found.born.into(),
        owner: found.owner,
        mode: found.mode,
        links: found.links,
        below: None,
    }
}

/// Whether whom the image belongs to could read a file under it, by the permission bits of the file and of the folders
/// above it. Of groups only that of the image is known to be his.
fn may_read(image: &Identity, file: &Path, found: &Identity) -> bool {
    let may = |it: &Identity, bit: u32| {
        let shift = match (it.owner == image.owner, it.group == image.group) {
            (true, _) => 6,
            (false, true) => 3,
            (false, false) => 0,
        };
        it.mode & (bit << shift) != 0
    };
    let mut above = file.ancestors().skip(1);
    image.is_ours()
        || may(found, 0o4)
            && above.all(|folder| held::look_at(folder).is_ok_and(|it| may(&it, 0o1)))
}

/// The record of an older version, with what it lacks: of the very files that were recorded. Where it has none, of what
/// stands there and is no link, and nobody but its owner, root and the server can have put there. Nothing lies under it
/// that its owner could not read himself. For the start of a server alone.
///
/// # Errors
/// In words why nothing is recorded.
pub(crate) fn completed(
    at: &At,
    old: Option<&Image>,
    named: &Path,
    format: Format,
    recorded: Recorded<'_>,
) -> Result<Image, String> {
    let (named, file) = old.map_or((named, named), |old| (&old.named, &old.file));
    let layers = chain::open(at, file, format, &Roots::default()).map_err(|e| e.to_string())?;
    let seen = Seen::of(named, &layers).map_err(|e| e.to_string())?;
    if let Some(closed) = seen.closed.first() {
        let closed = closed.display();
        return Err(format!(
            "its owner could not read {closed}, which lies under it"
        ));
    }
    let new = seen.image;
    let agrees = |old: &Image, new: &Image| {
        let (was, is) = ((old.inode, old.owner), (new.inode, new.owner));
        old.file == new.file && was == is && new.links <= old.links.max(1)
    };
    let Some(old) = old else {
        let placed = layers.first().map_or(Ok(()), |top| {
            require_placed(&top.real, &Identity::of(&top.open)?, recorded)
        });
        return placed.map(|()| new).map_err(|e| e.to_string());
    };
    if !agrees(old, &new) {
        return Err("another file stands there than the one that was recorded".to_owned());
    }
    let born = |old: &Image| {
        let now = new.chain().find(|new| agrees(old, new));
        let now = now.filter(|_| old.born.is_unrecorded());
        now.map_or(old.born, |now| now.born)
    };
    let below = match &old.below {
        Some(below) => below.iter().map(|old| Image {
            born: born(old),
            ..old.clone()
        }),
        None => {
            return Ok(Image {
                born: born(old),
                below: new.below.clone(),
                ..old.clone()
            });
        }
    };
    Ok(Image {
        born: born(old),
        below: Some(below.collect()),
        ..old.clone()
    })
}

/// Whether all is recorded of an image that this version asks for.
pub(crate) fn is_complete(image: &Image) -> bool {
    image.below.is_some() && !image.born.is_unrecorded()
}

/// The record of what stands in the place of a recorded image now, if that and what lies under it is to be taken
/// without a word of the operator; of a file of which it is known how it was `shown` to him, if it is that still.
pub(crate) fn renewed(
    old: &Image,
    format: Format,
    shown: &BTreeMap<PathBuf, Seal>,
    recorded: Recorded<'_>,
) -> Option<Image> {
    let at = At::new("", "");
    let layers = chain::open(&at, &old.file, format, &Roots::default()).ok()?;
    let new = Seen::of(&old.named, &layers).ok()?.image;
    let is_taken = |layer: &Layer| {
        let mut known = old.chain();
        let known = known.find(|old| old.file == layer.real)?;
        if let Some(shown) = shown.get(&layer.real) {
            let now = Seal::of(&layer.open.metadata().ok()?);
            (now == *shown).then_some(())?;
        }
        let found = Identity::of(&layer.open).ok()?;
        judge(known, &layer.real, &found, recorded).ok()
    };
    let all = layers.iter().all(|layer| is_taken(layer).is_some());
    all.then(|| joined(new, Some(old)))
}

/// The record with what was recorded of the disk before: sets that were taken then lie on that.
pub(crate) fn joined(new: Image, old: Option<&Image>) -> Image {
    let Some(mut below) = new.below.clone() else {
        return new;
    };
    let before = old.into_iter().flat_map(Image::chain);
    let before = before.filter(|old| !new.chain().any(|new| new.file == old.file));
    let before = before.map(|old| Image {
        below: None,
        ..old.clone()
    });
    let before: Vec<_> = before.collect();
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
    place: Option<&Beside>,
) -> io::Result<bool> {
    if !has_made_name(machine, real) {
        return Ok(false);
    }
    require_ours(real, found, place).map(|()| true)
}

/// Refuses a file that is not in a folder of ours, in that `place` if it lies in it.
fn require_ours(real: &Path, found: &Identity, place: Option<&Beside>) -> io::Result<()> {
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
    let data_dir = machine.directory.ancestors().nth(2);
    data_dir.is_some_and(|it| names::is_made_for(&it.join(held::SETS), machine.id, real))
}

/// Whether the file is the recorded one, by its number and what tells it from a later one with that number.
pub(crate) fn is_it(image: &Image, found: &Identity) -> bool {
    image.inode == found.inode
        && match image.born {
            Born::At(born) => found.born == Some(born),
            Born::Untold | Born::Unrecorded => found.owner == image.owner,
        }
}

/// Whether the file is the recorded one, moved to another name on the file system where it stood.
fn is_moved(image: &Image, found: &Identity) -> bool {
    let place = image.file.parent().unwrap_or(Path::new("/"));
    let stood = || Folder::resolve(place).ok().filter(|f| f.path() == place);
    let stood = || stood()?.identity().ok();
    is_it(image, found) && stood().is_some_and(|folder| folder.device == found.device)
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

/// Whether what stands in the place of the active file is not taken for what was recorded; of that of which nothing is
/// recorded nothing is known, and neither is of what cannot be looked at. Nothing of its content is read.
pub(crate) fn is_foreign(machine: &Machine, disk: &Disk) -> bool {
    let at = At::disk(machine, disk);
    let Ok(top) = chain::top(&at, &disk.file, &Roots::default(), None) else {
        return false;
    };
    let mut judge = Judge {
        strict: false,
        ..Judge::new(machine, &disk.id, true)
    };
    let look = || Ok(judge.look(&at, &top.file, &top.real, &top.open));
    let looked = held::ask(&disk.file, look);
    let is_refused = |e: EngineError| e.kind == EngineErrorKind::Unsupported;
    looked.is_ok_and(|looked| looked.is_err_and(is_refused))
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
pub(crate) fn require_taken(
    image: &Image,
    real: &Path,
    open: &File,
    recorded: Recorded<'_>,
) -> io::Result<()> {
    judge(image, real, &Identity::of(open)?, recorded)?;
    Ok(())
}

/// That what stands there is not what is recorded.
pub(crate) fn swapped(at: &At, file: &Path, cause: impl Into<Argument>) -> EngineError {
    let text = at.text(texts::IMAGE_SWAPPED, file);
    EngineError {
        kind: EngineErrorKind::Unsupported,
        text: text.with("cause", cause),
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

/// Whether a chain is what was imported or captured of the disk, for whoever asks only what lies on what: what nothing is
/// recorded of is taken.
///
/// # Errors
/// How many files from above are, and as [`open`].
pub(crate) fn fits(
    at: &At,
    machine: &Machine,
    disk: &str,
    layers: &[Layer],
) -> Result<(), (usize, EngineError)> {
    let mut judge = Judge::new(machine, disk, false);
    let mut layers = layers.iter().enumerate();
    layers.try_for_each(|(n, layer)| {
        let judged = judge.look(at, &layer.file, &layer.real, &layer.open);
        judged.map(drop).map_err(|error| (n, error))
    })
}

/// Looks at the files of one chain, from above.
struct Judge<'a> {
    machine: &'a Machine,
    disk: &'a str,
    /// On a file that something is frozen on no other one is taken for it.
    frozen: bool,
    /// What nothing is recorded of is not taken.
    strict: bool,
    /// So many were looked at.
    seen: usize,
    /// So many the server made for this machine; they lie above what was imported.
    made: usize,
    /// What is recorded of the disk, if the chain stands on it.
    own: Option<&'a Image>,
    /// The folder that is held, through which what lies in it was opened.
    place: Option<&'a Beside>,
}

impl<'a> Judge<'a> {
    fn new(machine: &'a Machine, disk: &'a str, frozen: bool) -> Self {
        Self {
            machine,
            disk,
            frozen,
            strict: frozen,
            seen: 0,
            made: 0,
            own: machine.images.get(disk),
            place: None,
        }
    }

    fn within(self, place: Option<&'a Beside>) -> Self {
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
        let is_at =
            |image: &&Image| image.file == real || image.file == file || image.named == file;
        let chain = || self.own.into_iter().flat_map(Image::chain);
        let image = chain()
            .find(is_at)
            .or_else(|| chain().find(|it| is_moved(it, &found)));
        let judged = match (image, self.own) {
            // What a set keeps is held to by its seals; its image may be recorded no more, or not yet with its chain.
            (None, None) if !self.strict => return Ok(false),
            (None, Some(_)) if !self.strict && is_first => {
                self.own = None;
                return Ok(false);
            }
            (None, Some(own)) if !self.strict && own.below.is_none() => return Ok(false),
            (None, Some(_)) if self.made.saturating_add(1) < self.seen => {
                Err(Foreign::Unrecorded.into())
            }
            (None, _) if real != file => Err(Foreign::Astray.into()),
            (None, _) => Err(Foreign::Unknown.into()),
            (Some(image), _) if self.strict && image.born.is_unrecorded() => {
                Err(Foreign::Unborn.into())
            }
            // Something is frozen on it.
            (Some(image), _) if self.frozen && self.made > 0 && !is_it(image, &found) => {
                Err(other(image, &found).into())
            }
            (Some(image), _) => {
                let machines = self.machine.directory.parent();
                let machines = machines.unwrap_or(Path::new("/"));
                judge(image, real, &found, &|| {
                    definition::recorded_images(machines)
                })
            }
        };
        judged.map_err(|cause| match cause.raw_os_error() {
            // It is not known whether it is.
            Some(_) => at.io(file, &cause),
            None if held::is_silence(&cause) => at.io(file, &cause),
            None => swapped(at, file, &cause),
        })
    }
}

/// Whether the file is another one, which is taken all the same. An inode number says nothing where a link that was
/// not there leads to another file system.
///
/// # Errors
/// Why it is not taken.
fn judge(image: &Image, real: &Path, found: &Identity, recorded: Recorded<'_>) -> io::Result<bool> {
    if real != image.file && !is_moved(image, found) {
        return Err(Foreign::Astray.into());
    }
    if is_it(image, found) {
        return match found.links > image.links.max(1) {
            true => Err(Foreign::Names(found.links).into()),
            false => Ok(false),
        };
    }
    if found.owner != image.owner {
        let (expected, found) = (image.owner, found.owner);
        return Err(Foreign::Owner { expected, found }.into());
    }
    require_placed(real, found, recorded).map(|()| true)
}

/// Refuses a file that somebody else than its owner, root and the server may have put there, and one that is recorded as
/// an image in another place, of this machine or of another one.
fn require_placed(real: &Path, found: &Identity, recorded: Recorded<'_>) -> io::Result<()> {
    if found.links != 1 {
        return Err(Foreign::Names(found.links).into());
    }
    // Whoever may rename above it may put a file there that he cannot read himself.
    if let Some(it) = held::exposed(real, found, Some(found.owner))?.pop() {
        return Err(io::Error::other(format!(
            "it is another file, and others than user {} could have put it there: the folder {} belongs to user {} \
             and has the mode {:o}",
            found.owner,
            it.folder.display(),
            it.owner,
            it.mode
        )));
    }
    let mut all = recorded()?.into_iter();
    match all.find(|(_, image)| image.file != real && is_moved(image, found)) {
        None => Ok(()),
        Some((id, image)) => Err(io::Error::other(format!(
            "it is the image {} of machine {id}",
            image.file.display()
        ))),
    }
}

/// The folders above an image in which others than root and the server's user may exchange it, as far as they can be
/// looked at.
#[must_use]
pub(crate) fn exposed(file: &Path) -> Vec<Exposed> {
    let found = held::look_at(file);
    let folders = found.and_then(|found| held::exposed(file, &found, None));
    folders.unwrap_or_default()
}

/// The files that an active file is known to lie on, by what was `seen` under it and what is recorded of the image.
/// `is_made` tells the files that the server makes for the machine.
pub(crate) fn known_below(
    active: &Path,
    seen: Option<&[PathBuf]>,
    image: Option<&Image>,
    is_made: impl Fn(&Path) -> bool,
) -> Option<Vec<PathBuf>> {
    let seen_there = || seen.map(<[PathBuf]>::to_vec);
    let Some(image) = image.filter(|image| image.below.is_some()) else {
        return seen_there();
    };
    let is_recorded = is_made(active) || image.chain().any(|it| it.file == active);
    // What root or the server has written into a header no stranger has.
    if !is_recorded || held::is_trusted(image.owner) {
        return seen_there();
    }
    // What else was once seen there stood in a header that anybody may have written.
    let made = seen.into_iter().flatten().filter(|file| is_made(file));
    let recorded = image.chain().map(|image| &image.file);
    let all = made.chain(recorded).filter(|file| **file != active);
    Some(all.cloned().collect())
}

fn other(image: &Image, found: &Identity) -> Foreign {
    match (image.inode, found.inode) {
        (expected, found) if expected == found => Foreign::Later(found),
        (expected, found) => Foreign::Other { expected, found },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use jiff::Timestamp;

    use super::*;

    #[test]
    fn what_cannot_be_looked_at_is_not_called_another_file() {
        let world = tempfile::tempdir().unwrap();
        let world = world.path().canonicalize().unwrap();
        let (folder, away) = (world.join("images"), world.join("away"));
        fs::create_dir(&folder).unwrap();
        let file = folder.join("a.raw");
        fs::write(&file, [1; 512]).unwrap();
        let image = record_of(&file, &File::open(&file).unwrap()).unwrap();
        let id = VmId::random();
        let mut machine = Machine {
            id,
            name: "web".into(),
            disks: Vec::new(),
            directory: world.join("machines").join(id.to_string()),
            definition: world.join("vm.toml"),
            created: Timestamp::UNIX_EPOCH,
            overlay_ok: false,
            unmanaged_ok: false,
            no_flush_ok: false,
            images: BTreeMap::new(),
            relative: BTreeMap::new(),
            sockets: Default::default(),
        };
        // The owner has restored it.
        let restored = Image {
            inode: image.inode + 1,
            below: Some(Vec::new()),
            ..image
        };
        machine.images.insert("disk0".into(), restored);
        let at = At::new("web", "disk0");
        let layers = chain::open(&at, &file, Format::Raw, &Roots::default()).unwrap();
        assert!(fits(&at, &machine, "disk0", &layers).is_ok());
        fs::rename(&folder, &away).unwrap();
        let (count, error) = fits(&at, &machine, "disk0", &layers).unwrap_err();
        assert_eq!(
            (count, error.kind),
            (0, EngineErrorKind::Missing),
            "{error}"
        );
        fs::rename(&away, &folder).unwrap();
        fs::hard_link(&file, folder.join("b.raw")).unwrap();
        let (_, error) = fits(&at, &machine, "disk0", &layers).unwrap_err();
        assert_eq!(error.kind, EngineErrorKind::Unsupported, "{error}");
    }
}
