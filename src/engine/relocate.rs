//! What files name by an absolute path, after folders were moved: found, checked against what lies in the new
//! place, and written again.
//!
//! Nothing here decides twice: a survey says what will stand where, and writing that may be repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::engine::definition::{self, DEFINITION, Definition, MACHINES, TOPS, Tops};
use crate::engine::failure::At;
use crate::engine::graph::{self, is_ours};
use crate::engine::library;
use crate::engine::locks::ImageLock;
use crate::engine::merge;
use crate::engine::qcow2::backing;
use crate::engine::qcow2::chain::Roots;
use crate::engine::qcow2::header::{Header, has_magic};
use crate::engine::{EngineError, Top, image};
use crate::held::{self, Foreign, Identity};
use crate::id::VmId;
use crate::inventory::{Born, Format, Image, Seal};
use crate::text::Reason;

const SECTOR: u64 = 512;

/// A folder that was moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Where it was, as it stands in recorded paths; absolute.
    pub from: PathBuf,
    /// Where it is now; absolute.
    pub to: PathBuf,
}

/// Folders that were moved together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moves(Vec<Move>);

impl Moves {
    /// These folders.
    ///
    /// # Errors
    /// In words, if a path could mean two things after the move.
    pub fn new(moves: Vec<Move>) -> Result<Self, String> {
        let nested = |one: &Path, other: &Path| one.starts_with(other) || other.starts_with(one);
        for (n, one) in moves.iter().enumerate() {
            for other in moves.iter().skip(n + 1) {
                if one.from == other.from {
                    return Err(format!("{} is named twice", one.from.display()));
                }
                if nested(&one.from, &other.to) || nested(&one.to, &other.from) {
                    let (one, other) = (one.from.display(), other.from.display());
                    return Err(format!(
                        "the places of {one} and {other} before and after lie in each other: relocate them one after the other"
                    ));
                }
            }
        }
        Ok(Self(moves))
    }

    /// The moves.
    #[must_use]
    pub fn all(&self) -> &[Move] {
        &self.0
    }

    /// Where the path leads now, if it lies in a folder that was moved. A path that lies in a new place
    /// already stays, also where the new place is within the old one.
    #[must_use]
    pub fn map(&self, path: &Path) -> Option<PathBuf> {
        let depth = |folder: &Path| folder.components().count();
        let fits = self.0.iter().filter(|m| path.starts_with(&m.from));
        let one = fits.max_by_key(|m| depth(&m.from))?;
        let mut arrived = self.0.iter().filter(|m| path.starts_with(&m.to));
        if arrived.any(|m| depth(&m.to) > depth(&one.from)) {
            return None;
        }
        let rest = path.strip_prefix(&one.from).ok()?;
        let new = match rest.as_os_str().is_empty() {
            true => one.to.clone(),
            false => one.to.join(rest),
        };
        (new != path).then_some(new)
    }

    /// Where the path leads now, moved or not.
    #[must_use]
    pub fn or_same(&self, path: &Path) -> PathBuf {
        self.map(path).unwrap_or_else(|| path.to_owned())
    }
}

/// A qcow2 file, ours or active, will name this backing file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Naming {
    /// Name of the machine, for messages.
    pub machine: String,
    /// Its disk.
    pub disk: String,
    /// The file, links resolved.
    pub file: PathBuf,
    /// What it was when that was planned; none from an older version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inode: Option<u64>,
    /// What lies under it.
    pub backing: PathBuf,
    /// Format of that.
    pub format: Format,
}

/// `tops.json` will name this active file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Active {
    /// The machine.
    pub machine: VmId,
    /// Its disk.
    pub disk: String,
    /// The active file.
    pub top: Top,
}

/// A path in a `vm.toml`, which is the operator's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Defined {
    /// The file.
    pub definition: PathBuf,
    /// Its line, from 1.
    pub line: usize,
    /// The disk.
    pub disk: String,
    /// What stands there.
    pub from: PathBuf,
    /// Where that is now.
    pub to: PathBuf,
}

/// A disk file that something names, as it is named now.
#[derive(Debug, Clone)]
pub struct Named {
    /// Whose disk it is.
    pub machine: String,
    /// Which one.
    pub disk: String,
    /// The recorded path.
    pub file: PathBuf,
    /// Its format.
    pub format: Format,
    /// Virtual size in bytes of what a snapshot keeps; `None` for the active file of a machine.
    pub size: Option<u64>,
}

/// What the files of a data directory will say, and what keeps them from it.
#[derive(Debug, Default)]
pub struct Survey {
    /// Backing names in headers.
    pub headers: Vec<Naming>,
    /// Active files.
    pub active: Vec<Active>,
    /// Lines of the operator's definitions.
    pub definitions: Vec<Defined>,
    /// What has to be put right first.
    pub problems: Vec<String>,
    /// What the operator should know.
    pub notes: Vec<String>,
    /// Files that are not what is recorded of them, and were not moved: whose, which, and why.
    pub unlike: Vec<(String, PathBuf, String)>,
    /// Every file that is named, in a record or a header, where it is now, and whose it is.
    pub files: BTreeMap<PathBuf, String>,
    /// What records name, as it is recorded, and whose it is: operations may write or remove these files.
    pub written: BTreeMap<PathBuf, String>,
    /// The paths that stand in the operator's definitions.
    pub paths: Vec<Named>,
    /// Each image whose header will be written, open and held.
    pub held: Held,
    seen: BTreeSet<PathBuf>,
}

/// Images that are open and held, by their paths.
pub type Held = BTreeMap<PathBuf, ImageLock>;

/// The files that a data directory names, where they are now. None is opened through a link but those that the operator
/// has in the new place of a folder that he has moved.
#[derive(Debug)]
pub struct Places {
    sets: PathBuf,
    moves: Moves,
    /// What is recorded of imported images and of what lies under them.
    images: Vec<(VmId, Image)>,
    /// What is written lies in each of them.
    roots: Vec<Roots>,
}

impl Places {
    /// Those of the data directory, once these folders are moved.
    ///
    /// # Errors
    /// The records of a machine cannot be read.
    pub fn of(data_dir: &Path, moves: &Moves) -> io::Result<Self> {
        let mut it = Self {
            sets: data_dir.join(held::SETS),
            moves: moves.clone(),
            images: Vec::new(),
            roots: Vec::new(),
        };
        let machines = library::machines_directory(data_dir);
        let ids = match library::machine_ids(&machines) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(it),
            ids => ids?,
        };
        for id in ids {
            // Of one that is not there any more nothing is known.
            let tops = Tops::load(&machines.join(id.to_string()).join(TOPS));
            for image in tops.into_iter().flat_map(|t| t.images.into_values()) {
                let below = image.below.iter().flatten().cloned();
                let all: Vec<_> = below.chain([image.clone()]).collect();
                it.images.extend(all.into_iter().map(|image| {
                    let moved = Image {
                        named: moves.or_same(&image.named),
                        file: resolved(moves, &moves.or_same(&image.file)),
                        ..image
                    };
                    (id, moved)
                }));
            }
        }
        Ok(it)
    }

    /// No file outside `roots` is opened to be written, nor outside of those that were said before.
    #[must_use]
    pub fn within(mut self, roots: Roots) -> Self {
        self.roots.push(roots);
        self
    }

    /// What is recorded of the image of that name.
    #[must_use]
    pub fn image(&self, file: &Path) -> Option<&Image> {
        let mut all = self.images.iter().map(|(_, image)| image);
        all.find(|image| image.file == file || image.named == file)
    }

    /// The path of a file as it is opened.
    #[must_use]
    pub fn real(&self, file: &Path) -> PathBuf {
        let image = self.image(file).map(|image| image.file.clone());
        image.unwrap_or_else(|| resolved(&self.moves, file))
    }

    /// Opens a file; one of ours by the way to it, on which nobody else can exchange anything.
    ///
    /// # Errors
    /// As [`held::open_straight`]; as [`held::Ours::folder`].
    pub fn open(&self, file: &Path) -> io::Result<File> {
        let real = self.real(file);
        if !is_ours(&self.sets, &real) {
            return held::open_straight(&real, false);
        }
        let ours = graph::ours(&real)?;
        ours.folder()?.open_file(ours.name(), false)
    }

    /// [`Places::open`] of a file whose header is to be written: one of ours, or what is to be taken for an image.
    ///
    /// # Errors
    /// As there; it lies outside the roots, is not what was imported, or nothing is recorded of it.
    pub fn open_to_write(&self, file: &Path) -> io::Result<File> {
        let real = self.real(file);
        self.roots.iter().try_for_each(|it| it.require(&real))?;
        let open = self.open(file)?;
        if !is_ours(&self.sets, &real) {
            let unrecorded = || io::Error::other("nothing is recorded of an image there");
            let image = self.image(&real).ok_or_else(unrecorded)?;
            image::require_taken(image, &real, &open, &|| Ok(born(self.images.clone())))?;
        }
        Ok(open)
    }

    /// Whether the open file is one that belongs to whom it should, and has no second name: one of ours, or as was
    /// recorded at import.
    ///
    /// # Errors
    /// Why it is not, or that nothing tells.
    pub fn require_owner(&self, file: &Path, open: &File) -> io::Result<()> {
        let (real, found) = (self.real(file), Identity::of(open)?);
        if is_ours(&self.sets, &real) {
            return Ok(()); // nobody else can have put it there
        }
        let unrecorded = || io::Error::other("nothing is recorded of its owner");
        let expected = self.image(&real).ok_or_else(unrecorded)?.owner;
        match (found.owner == expected, found.links) {
            (true, 1) => Ok(()),
            (true, links) => Err(Foreign::Names(links).into()),
            (false, _) => Err(Foreign::Owner {
                expected,
                found: found.owner,
            }
            .into()),
        }
    }
}

impl Survey {
    /// Looks through the machines of the data directory and the chains under everything that is named by them or
    /// by `named`. Holds what will be written until it is dropped.
    ///
    /// # Errors
    /// A folder or file of the library cannot be read.
    pub fn take(data_dir: &Path, places: &Places, named: &[Named]) -> io::Result<Self> {
        let mut it = Self::default();
        for machine in it.machines(data_dir, &places.moves)? {
            it.chain(places, &machine);
        }
        for named in named {
            it.chain(places, named);
        }
        Ok(it)
    }

    /// Reads each machine's two files; gives its active files.
    fn machines(&mut self, data_dir: &Path, moves: &Moves) -> io::Result<Vec<Named>> {
        let mut named = Vec::new();
        let folders = match fs::read_dir(data_dir.join(MACHINES)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(named),
            other => other?,
        };
        for entry in folders {
            let folder = entry?.path();
            let name = folder.file_name().and_then(OsStr::to_str);
            let Some(id) = name.and_then(|n| n.parse::<VmId>().ok()) else {
                continue;
            };
            named.extend(self.machine(&folder, id, moves)?);
        }
        Ok(named)
    }

    fn machine(&mut self, folder: &Path, id: VmId, moves: &Moves) -> io::Result<Vec<Named>> {
        let mut named = Vec::new();
        let (definition, tops) = (folder.join(DEFINITION), folder.join(TOPS));
        let at = |file: &Path, e: io::Error| io::Error::other(format!("{}: {e}", file.display()));
        let text = held::read_text(&definition).map_err(|e| at(&definition, e))?;
        let (machine, paths) = match definition::paths(&text) {
            Ok(read) => read,
            Err(cause) => {
                self.problems
                    .push(format!("{}: {}", definition.display(), cause.english()));
                return Ok(Vec::new());
            }
        };
        let tops = Tops::load(&tops).map_err(|e| at(&tops, e))?.tops;
        let active = |disk: &str, file: &Path, format| Named {
            machine: machine.clone(),
            disk: disk.to_owned(),
            file: file.to_owned(),
            format,
            size: None,
        };
        for path in paths {
            let defined = active(&path.disk, &path.path, path.format);
            self.paths.push(defined.clone());
            if !tops.contains_key(&path.disk) {
                named.push(defined);
            }
            if let Some(to) = moves.map(&path.path) {
                self.definitions.push(Defined {
                    definition: definition.clone(),
                    line: path.line,
                    disk: path.disk,
                    from: path.path,
                    to,
                });
            }
        }
        for (disk, top) in tops {
            let format = top.format;
            named.push(active(&disk, &top.file, format));
            self.active.extend(moves.map(&top.file).map(|file| Active {
                machine: id,
                disk,
                top: Top { file, format },
            }));
        }
        Ok(named)
    }

    /// Follows the chain under a named file, as it will be.
    fn chain(&mut self, places: &Places, named: &Named) {
        let moves = &places.moves;
        let mut next = Some((named.file.clone(), named.format, named.size));
        let whose = format!("machine {}, disk {}", named.machine, named.disk);
        let recorded = self.written.entry(named.file.clone());
        recorded.or_insert_with(|| whose.clone());
        while let Some((recorded, format, size)) = next.take() {
            let file = moves.or_same(&recorded);
            let known = self.files.entry(file.clone());
            known.or_insert_with(|| whose.clone());
            if !self.seen.insert(file.clone()) && size.is_none() {
                return;
            }
            let header = match look(&file, format, size) {
                Ok(header) => header,
                Err(cause) => {
                    match file == recorded {
                        false => self
                            .problems
                            .push(format!("{whose}: {}: {cause}", file.display())),
                        // It was so before, or another folder was moved too.
                        true => self.unlike.push((whose, file, cause)),
                    }
                    return;
                }
            };
            if file != recorded && recorded.exists() && !is_same(&recorded, &file) {
                self.notes.push(format!(
                    "{} is still there: nothing will name it any more",
                    recorded.display()
                ));
            }
            next = header.and_then(|header| self.under(places, named, &file, &header));
        }
    }

    /// What lies under the file, as its header names it now.
    fn under(
        &mut self,
        places: &Places,
        named: &Named,
        file: &Path,
        header: &Header,
    ) -> Option<(PathBuf, Format, Option<u64>)> {
        let moves = &places.moves;
        let below = backing::of(file, header)?;
        let (recorded, format) = (below.file, below.format);
        let Ok(format) = format else {
            let file = file.display();
            self.problems.push(format!(
                "{file} does not record the format of its backing file"
            ));
            return None;
        };
        let name = Path::new(OsStr::from_bytes(header.backing.as_deref()?));
        // What is named by a relative path is found from where the file is.
        if let Some(backing) = moves.map(name).filter(|_| name.is_absolute()) {
            // Apply may have put a file of ours in the place of an active image.
            let active = named.size.is_none() && file == moves.or_same(&named.file);
            match (active || is_ours(&places.sets, file)).then(|| places.open_to_write(file)) {
                Some(Ok(open)) => {
                    self.will_name(named, (&places.real(file), open), backing, format);
                }
                Some(Err(why)) => self.problems.push(format!(
                    "{} names its backing file by the old path, and is not written: {why}",
                    file.display()
                )),
                None => self.problems.push(format!(
                    "{file}, which you imported, names its backing file by the old path: \
                     qemu-img rebase -u -F {} -b {} {file}",
                    format.as_str(),
                    backing.display(),
                    file = file.display(),
                )),
            }
        }
        Some((recorded, format, None))
    }

    fn will_name(
        &mut self,
        named: &Named,
        (file, open): (&Path, File),
        backing: PathBuf,
        format: Format,
    ) {
        if self.headers.iter().any(|h| h.file == file) {
            return;
        }
        let at = At::new(&named.machine, &named.disk);
        let inode = Identity::of(&open).map(|found| found.inode).ok();
        let free = merge::can_name_in(&at, file, &open, &backing, format)
            .and_then(|()| ImageLock::of(&at, file, open));
        match free {
            Ok(lock) => drop(self.held.insert(file.to_owned(), lock)),
            Err(e) => self.problems.push(e.to_string()),
        }
        self.headers.push(Naming {
            machine: named.machine.clone(),
            disk: named.disk.clone(),
            file: file.to_owned(),
            inode,
            backing,
            format,
        });
    }
}

/// Of what is recorded of images that whose time of birth is told. A number alone may be that of another file once the
/// images are on another file system.
fn born(mut images: Vec<(VmId, Image)>) -> Vec<(VmId, Image)> {
    images.retain(|(_, image)| matches!(image.born, Born::At(_)));
    images
}

/// The path with the links resolved that lead to the new place of a folder.
fn resolved(moves: &Moves, file: &Path) -> PathBuf {
    let arrived = moves.0.iter().filter(|m| file.starts_with(&m.to));
    let arrived = arrived.max_by_key(|m| m.to.components().count());
    let real = arrived.and_then(|m| {
        let to = held::canonicalize(&m.to).ok()?;
        Some(to.join(file.strip_prefix(&m.to).ok()?))
    });
    real.unwrap_or_else(|| file.to_owned())
}

/// Whether the file is what is recorded of it; its header, if it has one.
fn look(file: &Path, format: Format, size: Option<u64>) -> Result<Option<Header>, String> {
    let said = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => "is not there".to_owned(),
        _ => e.to_string(),
    };
    let open = held::open(file, false).map_err(said)?;
    let meta = open.metadata().map_err(said)?;
    let header = match format {
        Format::Qcow2 => {
            let header = Header::load(&open).map_err(said)?;
            Some(header.map_err(|_| "is not the qcow2 image that it was".to_owned())?)
        }
        Format::Raw if has_magic(&open).map_err(said)? => {
            return Err("is not the raw image that it was: it begins as qcow2".to_owned());
        }
        Format::Raw => None,
    };
    let found = match &header {
        Some(header) => header.size,
        None => meta.len().next_multiple_of(SECTOR),
    };
    match size.filter(|size| *size != found) {
        Some(size) => Err(format!(
            "is not the image that it was: its disk has {found} bytes, not {size}"
        )),
        None => Ok(header),
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    let real = |p: &Path| p.canonicalize().ok();
    real(one).is_some_and(|one| real(other) == Some(one))
}

impl Naming {
    /// Opens and holds the file again, after the process that planned is dead.
    ///
    /// # Errors
    /// It is another file, or cannot be opened or held.
    pub fn hold(&self, places: &Places) -> Result<ImageLock, EngineError> {
        let at = At::new(&self.machine, &self.disk);
        let open = || {
            let open = places.open_to_write(&self.file)?;
            let found = Identity::of(&open)?.inode;
            match self.inode.filter(|expected| *expected != found) {
                Some(expected) => Err(Foreign::Other { expected, found }.into()),
                None => Ok(open),
            }
        };
        let open = open().map_err(|e| at.io(&self.file, &e))?;
        ImageLock::of(&at, &self.file, open)
    }

    /// Writes the header, durably, unless it says so already: of the file that is held, whatever stands at its path.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn write(&self, held: &ImageLock) -> Result<(), EngineError> {
        let (at, open) = (At::new(&self.machine, &self.disk), held.file());
        let header = Header::load(open).map_err(|e| at.io(&self.file, &e))?;
        let says = |h: &Header| {
            h.backing.as_deref() == Some(self.backing.as_os_str().as_bytes())
                && h.backing_format().as_deref() == Some(self.format.as_str())
        };
        match header.is_ok_and(|h| says(&h)) {
            true => Ok(()),
            false => merge::name_in(&at, &self.file, open, &self.backing, self.format),
        }
    }
}

impl Active {
    /// Writes the machine's `tops.json`, durably, unless it says so already.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn write(&self, data_dir: &Path) -> io::Result<()> {
        let folder = data_dir.join(MACHINES).join(self.machine.to_string());
        let file = folder.join(TOPS);
        let mut tops = Tops::load(&file)?;
        let old = tops.tops.insert(self.disk.clone(), self.top.clone());
        match old.as_ref() == Some(&self.top) {
            true => Ok(()),
            false => Ok(tops.save(&file)?),
        }
    }
}

/// Forgets what was seen of active files before they were moved, and takes what was said of images along: first all paths,
/// so that an image is known by its new one, then what stands there, where it is to be taken for it. May be repeated.
///
/// `shown`: files that were confirmed as copies, or are as they were sealed; no other is taken in their place.
///
/// # Errors
/// A `tops.json` cannot be read or written.
pub fn take_along(
    data_dir: &Path,
    moves: Vec<Move>,
    shown: &BTreeMap<PathBuf, Seal>,
) -> io::Result<()> {
    let moves = Moves(moves);
    each_tops(data_dir, |_, new| {
        // The next look records it anew.
        new.seen.clear();
        let formats = std::mem::take(&mut new.backing_formats).into_iter();
        new.backing_formats = formats
            .map(|(f, format)| (moves.or_same(&f), format))
            .collect();
        for image in new.images.values_mut() {
            let below = image.below.iter_mut().flatten();
            let below = below.map(|b| (&mut b.named, &mut b.file));
            for (named, file) in below.chain([(&mut image.named, &mut image.file)]) {
                *named = moves.or_same(named);
                *file = resolved(&moves, &moves.or_same(file));
            }
        }
    })?;
    // On another file system it has another inode, and so has what lies under it.
    let arrived = |file: &Path| {
        let mut all = moves.0.iter();
        all.any(|m| file.starts_with(&m.to) || file.starts_with(resolved(&moves, &m.to)))
    };
    renew(data_dir, shown, |image| arrived(&image.file))
}

/// Takes what stands in the place of these images now for them: copies, as somebody has confirmed them. May be repeated.
///
/// # Errors
/// A `tops.json` cannot be read or written.
pub fn take_copies(data_dir: &Path, copied: &BTreeMap<PathBuf, Seal>) -> io::Result<()> {
    renew(data_dir, copied, |image| copied.contains_key(&image.file))
}

/// Records what stands in the place of the images on which a file is `meant`, if that is to be taken for them.
fn renew(
    data_dir: &Path,
    shown: &BTreeMap<PathBuf, Seal>,
    meant: impl Fn(&Image) -> bool,
) -> io::Result<()> {
    let machines = library::machines_directory(data_dir);
    each_tops(data_dir, |id, new| {
        let defined = Definition::load(&machines.join(id.to_string()).join(DEFINITION), id);
        let Ok(defined) = defined else { return };
        for (disk, image) in &mut new.images {
            let mut entries = defined.disk.iter();
            if let Some(entry) = entries.find(|d| d.id == *disk)
                && image.chain().any(&meant)
                && let Some(now) = image::renewed(image, entry.format, shown, &|| {
                    definition::recorded_images(&machines).map(born)
                })
            {
                *image = now;
            }
        }
    })
}

/// Writes each `tops.json` that this changes.
fn each_tops(data_dir: &Path, change: impl Fn(VmId, &mut Tops)) -> io::Result<()> {
    let machines = library::machines_directory(data_dir);
    for id in library::machine_ids(&machines)? {
        let file = machines.join(id.to_string()).join(TOPS);
        let old = Tops::load(&file)?;
        let mut new = old.clone();
        change(id, &mut new);
        if new != old {
            new.save(&file)?;
        }
    }
    Ok(())
}

impl Defined {
    /// Writes the path into the definition, durably, and leaves the rest of its text, its owner and its mode.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn write(&self) -> io::Result<()> {
        let text = held::read_text(&self.definition)?;
        let new = definition::with_path(&text, &self.disk, &self.to);
        let new = new.map_err(|text| io::Error::other(Reason::new(text, ())))?;
        match new == text {
            true => Ok(()),
            false => Ok(definition::rewrite(&self.definition, new.as_bytes())?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moves(list: &[(&str, &str)]) -> Result<Moves, String> {
        let one = |(from, to): &(&str, &str)| Move {
            from: from.into(),
            to: to.into(),
        };
        Moves::new(list.iter().map(one).collect())
    }

    /// A copy was given the number that another image had on the old file system, which tells no times of birth.
    #[test]
    fn a_number_of_another_file_system_makes_no_copy_the_image_of_another_machine() {
        let world = tempfile::tempdir().unwrap();
        let world = world.path().canonicalize().unwrap();
        let (old, new) = (world.join("old"), world.join("new"));
        fs::create_dir(&new).unwrap();
        for name in ["a.raw", "b.raw"] {
            fs::write(new.join(name), name).unwrap();
        }
        let found = Identity::of(File::open(new.join("a.raw")).unwrap()).unwrap();
        let mut ids = Vec::new();
        for (name, inode) in [("a.raw", 1), ("b.raw", found.inode)] {
            let id = VmId::random();
            let image = Image {
                named: old.join(name),
                file: old.join(name),
                inode,
                born: Born::Untold,
                owner: found.owner,
                mode: found.mode,
                links: 1,
                below: Some(Vec::new()),
            };
            let folder = world.join(MACHINES).join(id.to_string());
            fs::create_dir_all(&folder).unwrap();
            let tops = serde_json::json!({
                "format": 1, "imported": null, "tops": {}, "complete": true, "images": {"disk0": image},
            });
            fs::write(folder.join(TOPS), tops.to_string()).unwrap();
            ids.push(id);
        }
        let moves = Moves::new(vec![Move {
            from: old,
            to: new.clone(),
        }]);
        let moves = moves.unwrap();
        let places = Places::of(&world, &moves).unwrap();
        places.open_to_write(&new.join("a.raw")).unwrap();
        let definition = world.join(MACHINES).join(ids[0].to_string());
        let text = format!(
            "format = 1\nid = \"{}\"\nname = \"a\"\n[[disk]]\nid = \"disk0\"\npath = {:?}\nformat = \"raw\"\n",
            ids[0],
            new.join("a.raw")
        );
        fs::write(definition.join(DEFINITION), text).unwrap();
        take_along(&world, moves.0, &BTreeMap::new()).unwrap();
        let tops = Tops::load(&definition.join(TOPS)).unwrap();
        assert_eq!(tops.images["disk0"].inode, found.inode);
    }

    #[test]
    fn a_path_moves_once_by_whole_names_and_the_deepest_folder() {
        let it = moves(&[("/old/gs", "/new/gs"), ("/old/gs/images", "/pool")]).unwrap();
        let map = |path: &str| it.map(Path::new(path)).map(|p| p.display().to_string());
        let table = [
            ("/old/gs/sets/a", Some("/new/gs/sets/a")),
            ("/old/gs/images/b", Some("/pool/b")),
            ("/old/gs2/c", None),
            ("/old/gs", Some("/new/gs")),
            ("/new/gs/sets/a", None),
        ];
        for (path, new) in table {
            assert_eq!(map(path).as_deref(), new, "{path}");
        }
    }

    #[test]
    fn what_is_in_its_new_place_stays_also_inside_the_old_one() {
        let deeper = moves(&[("/srv", "/srv/gs")]).unwrap();
        let new = deeper.map(Path::new("/srv/a")).unwrap();
        assert_eq!(new, Path::new("/srv/gs/a"));
        assert_eq!(deeper.map(&new), None);
        let higher = moves(&[("/srv/gs", "/srv")]).unwrap();
        let new = higher.map(Path::new("/srv/gs/a")).unwrap();
        assert_eq!(new, Path::new("/srv/a"));
        assert_eq!(higher.map(&new), None);
    }

    #[test]
    fn folders_that_change_places_are_refused() {
        for list in [
            [("/a", "/b"), ("/b", "/a")],
            [("/a", "/b"), ("/a", "/c")],
            [("/a", "/b/x"), ("/b", "/c")],
        ] {
            assert!(moves(&list).is_err(), "{list:?}");
        }
    }
}
