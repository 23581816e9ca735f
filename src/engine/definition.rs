//! The two files of a machine in the library: `vm.toml`, which belongs to the operator, and `tops.json`,
//! which belongs to the server.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::document;
use crate::engine::failure::At;
use crate::engine::library;
use crate::engine::qcow2::backing;
use crate::engine::qcow2::chain::{self, Layer};
use crate::engine::qemu::section::{self, Section};
use crate::engine::{Active, Top, exchange, image};
use crate::held::{self, NotReplaced};
use crate::id::VmId;
use crate::inventory::{self, Format, Image, NAME_MAX, Relative, Sockets};
use crate::text::catalog::engine as texts;
use crate::text::reader;
use crate::text::{Argument, Text};

/// The operator's file.
pub(crate) const DEFINITION: &str = "vm.toml";
/// The server's file.
pub(crate) const TOPS: &str = "tops.json";
/// The folder of machines in a data directory.
pub(crate) const MACHINES: &str = "machines";
const FORMAT: u32 = 1;
/// Permission bits of both files.
const MODE: u32 = 0o640;

/// What stands in `vm.toml`. An unknown key is an error that names it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Definition {
    /// Version of this layout: 1.
    pub(crate) format: u32,
    /// The machine's GUID, also the name of its folder.
    pub(crate) id: VmId,
    /// Display name.
    pub(crate) name: String,
    /// Its disks.
    #[serde(default)]
    pub(crate) disk: Vec<DiskEntry>,
    /// How it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    qemu: Option<Section>,
}

/// One `[[disk]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DiskEntry {
    /// Its id within the machine.
    pub(crate) id: String,
    /// The imported image, absolute.
    pub(crate) path: PathBuf,
    /// Its format.
    pub(crate) format: Format,
}

impl Definition {
    /// A definition of this version.
    pub(crate) fn new(id: VmId, name: String, disk: Vec<DiskEntry>, qemu: Option<Section>) -> Self {
        Self {
            format: FORMAT,
            id,
            name,
            disk,
            qemu,
        }
    }

    /// May an overlay become the active file of a disk?
    pub(crate) fn overlay_ok(&self) -> bool {
        self.qemu.as_ref().is_some_and(|q| q.overlay_ok)
    }

    /// Whether somebody else may manage the machine.
    pub(crate) fn unmanaged_ok(&self) -> bool {
        self.qemu.as_ref().is_some_and(|q| q.unmanaged_ok)
    }

    /// Whether its QEMU may have disks open that it never writes out.
    pub(crate) fn no_flush_ok(&self) -> bool {
        self.qemu.as_ref().is_some_and(|q| q.no_flush_ok)
    }

    /// Where whatever runs it is asked.
    pub(crate) fn sockets(&self) -> Sockets {
        self.qemu.as_ref().map(Section::sockets).unwrap_or_default()
    }

    /// The refusal of a key that this version does not read (`file` is still to be named).
    fn unread(&self) -> Option<Text> {
        let key = self.qemu.as_ref()?.unread()?;
        Some(texts::DEFINITION_QEMU.with("key", key))
    }

    /// Reads an exported definition: its paths start at the folder of the file, its id is the exported machine's.
    pub(crate) fn load_exported(file: &Path) -> Result<Self, Text> {
        let absolute = std::path::absolute(file);
        let mut it = absolute.map_err(Argument::from).and_then(|file| {
            let text = held::read_any_text(&file).map_err(|e| reader::told_of_file(&e))?;
            let mut it: Self = toml::from_str(&text).map_err(|e| told(&text, &e))?;
            for disk in &mut it.disk {
                disk.path = file.with_file_name(&disk.path);
            }
            Ok(it)
        });
        if let Ok(it) = &mut it {
            if let Some(text) = it.unread() {
                return Err(text.with("file", file.display()));
            }
            if it.format != FORMAT {
                let text = texts::DEFINITION_FORMAT.with("format", it.format);
                return Err(text.with("file", file.display()));
            }
        }
        it.map_err(|cause| unread(file, cause))
    }

    /// Reads and checks the file of machine `id`.
    pub(crate) fn load(file: &Path, id: VmId) -> Result<Self, Text> {
        let text = held::read_text(file).map_err(|e| unread(file, reader::told_of_file(&e)))?;
        Self::parse(&text, file, id)
    }

    /// Checks what stands, or is to stand, in the file of machine `id`.
    pub(crate) fn parse(text: &str, file: &Path, id: VmId) -> Result<Self, Text> {
        let it: Self = toml::from_str(text).map_err(|e| unread(file, told(text, &e)))?;
        let refuse = |text: Text| Err(text.with("file", file.display()));
        if let Some(text) = it.unread() {
            return refuse(text);
        }
        if it.format != FORMAT {
            return refuse(texts::DEFINITION_FORMAT.with("format", it.format));
        }
        if it.id != id {
            return refuse(texts::DEFINITION_ID.with("id", it.id));
        }
        it.check().map_err(|(disk, cause)| match disk {
            Some(disk) => texts::DEFINITION_DISK
                .with("file", file.display())
                .with("disk", disk)
                .with("cause", cause),
            None => unread(file, cause),
        })?;
        Ok(it)
    }

    /// The rules that types do not hold: each disk has an id of its own and an absolute path.
    fn check(&self) -> Result<(), (Option<String>, Text)> {
        let at = |disk: &str, text: Text| {
            let text = text.with("machine", &self.name).with("disk", disk);
            Err((Some(disk.to_owned()), text))
        };
        let whole = |text: Text| Err((None, text.with("machine", &self.name)));
        if self.name.trim().is_empty() {
            return whole(texts::NAME_EMPTY.text());
        }
        if inventory::is_too_long(&self.name) {
            return whole(texts::NAME_TOO_LONG.with("limit", NAME_MAX));
        }
        if self.disk.is_empty() {
            return whole(texts::NO_DISKS.text());
        }
        for (n, disk) in self.disk.iter().enumerate() {
            if !is_disk_id(&disk.id) {
                return at(&disk.id, texts::DISK_ID.text());
            }
            if self.disk.iter().take(n).any(|d| d.id == disk.id) {
                return at(&disk.id, texts::DISK_TWICE.text());
            }
            if !disk.path.is_absolute() {
                return at(&disk.id, texts::PATH_FORM.with("file", disk.path.display()));
            }
        }
        let qemu = self.qemu.as_ref().map_or(Ok(()), Section::check);
        qemu.map_err(|text| (None, text))
    }
}

/// The text of a definition with other disk files: each disk that `files` names lies there as qcow2, the others
/// are gone, and so is what is of this host only, of which a comment tells. Everything else stays as the operator wrote
/// it, but for comments.
///
/// # Errors
/// In words what is wrong with the text.
pub fn with_disks(text: &str, files: &BTreeMap<String, String>) -> Result<String, Text> {
    let mut table: toml::Table = text.parse().map_err(|e| told(text, &e))?;
    let disks = table.get_mut("disk").and_then(toml::Value::as_array_mut);
    let disks = disks.ok_or_else(|| texts::NAMES_NO_DISKS.text())?;
    disks.retain_mut(|disk| {
        let id = disk.get("id").and_then(toml::Value::as_str);
        let file = id.and_then(|id| files.get(id));
        if let (Some(file), Some(disk)) = (file, disk.as_table_mut()) {
            disk.insert("path".to_owned(), file.clone().into());
            disk.insert("format".to_owned(), Format::Qcow2.as_str().into());
            return true;
        }
        false
    });
    let lost = section::without_host(&mut table);
    let text = toml::to_string(&table);
    let text = text.map_err(|e| texts::DEFINITION_UNWRITTEN.with("cause", e.to_string()))?;
    Ok(match lost.is_empty() {
        true => text,
        false => format!(
            "# Left out of [qemu], for it is of the host that this was exported from: {}\n{text}",
            lost.join(", ")
        ),
    })
}

/// What is wrong with the text, with the line.
fn told(text: &str, error: &toml::de::Error) -> Text {
    reader::told_of(text, error.message(), error.span())
}

/// A definition that cannot be read.
pub(crate) fn unread(file: &Path, cause: impl Into<Argument>) -> Text {
    let text = texts::DEFINITION_READ.with("file", file.display());
    text.with("cause", cause)
}

/// A path of a definition, and where it stands.
pub(crate) struct DiskPath {
    pub(crate) disk: String,
    pub(crate) path: PathBuf,
    pub(crate) format: Format,
    /// From 1.
    pub(crate) line: usize,
    /// Of the path with its quotes, in bytes.
    place: Range<usize>,
}

/// The name of the machine and the paths of a definition, whatever else stands in it.
///
/// # Errors
/// In words what is wrong with the text.
pub(crate) fn paths(text: &str) -> Result<(String, Vec<DiskPath>), Text> {
    #[derive(Deserialize)]
    struct Outline {
        name: String,
        #[serde(default)]
        disk: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        id: String,
        path: toml::Spanned<PathBuf>,
        format: Format,
    }
    let it: Outline = toml::from_str(text).map_err(|e| told(text, &e))?;
    let path = |entry: Entry| {
        let place = entry.path.span();
        let before = text.get(..place.start).unwrap_or_default();
        DiskPath {
            disk: entry.id,
            path: entry.path.into_inner(),
            format: entry.format,
            line: before.matches('\n').count() + 1,
            place,
        }
    };
    Ok((it.name, it.disk.into_iter().map(path).collect()))
}

/// The text of a definition with another path of one disk; all else stays byte for byte.
///
/// # Errors
/// In words what is wrong with the text.
pub(crate) fn with_path(text: &str, disk: &str, path: &Path) -> Result<String, Text> {
    let (_, paths) = paths(text)?;
    let found = paths.into_iter().find(|p| p.disk == disk);
    let found = found.ok_or_else(|| texts::NAMES_NO_DISK.with("disk", disk))?;
    if found.path == path {
        return Ok(text.to_owned());
    }
    let name = path.to_str().ok_or_else(|| texts::PATH_NOT_UTF8.text())?;
    let mut new = text.to_owned();
    new.replace_range(found.place, &toml::Value::from(name).to_string());
    Ok(new)
}

/// Disk ids become file names and parts of InstanceIDs.
pub(crate) fn is_disk_id(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && !id.starts_with('.')
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// What stands in `tops.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tops {
    /// Version of this layout: 1.
    format: u32,
    /// The machine; a file of an older version does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) machine: Option<VmId>,
    /// When the machine was imported.
    pub(crate) imported: Option<Timestamp>,
    /// The active file of each disk that has had a snapshot, by disk id; others use their own path.
    pub(crate) tops: BTreeMap<String, Top>,
    /// Images whose header does not record the format of the file under them, with that format.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) backing_formats: BTreeMap<PathBuf, Format>,
    /// What is recorded of the imported image of each disk, by disk id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) images: BTreeMap<String, Image>,
    /// All images are recorded that there were: what is not, is not taken. `false` of an older version.
    #[serde(default)]
    pub(crate) complete: bool,
    /// What each active file was seen to be when it was recorded last, by disk id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) seen: BTreeMap<String, SeenTop>,
}

/// An active file as it was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SeenTop {
    /// Virtual size in bytes.
    pub(crate) size: u64,
    /// The files under it, from above.
    pub(crate) below: Vec<PathBuf>,
    /// The file right under it, if it is named from the folder of the active file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) relative: Option<Relative>,
}

impl SeenTop {
    /// The same, with what is seen under it now and was not before.
    pub(crate) fn with(mut self, now: Option<&Self>) -> Self {
        let new = now.into_iter().flat_map(|now| &now.below);
        let new = new.filter(|file| !self.below.contains(file));
        let new: Vec<_> = new.cloned().collect();
        self.below.extend(new);
        if let Some(now) = now {
            self.relative.clone_from(&now.relative);
        }
        self
    }

    /// As it is now; `None` if it cannot be seen with all that lies under it.
    pub(crate) fn of(file: &Path, format: Format) -> Option<Self> {
        let (layers, unreadable) = chain::readable(file, format);
        unreadable.is_none().then(|| Self::of_chain(&layers))?
    }

    /// As it is open, with all that lies under it; `None` if that is nothing.
    pub(crate) fn of_chain(layers: &[Layer]) -> Option<Self> {
        let top = layers.first()?;
        let size = top.size;
        let relative = top.header.as_ref().and_then(backing::relative);
        let relative = relative.zip(layers.get(1));
        let relative = relative.map(|(name, below)| Relative {
            name,
            file: below.file.clone(),
            format: below.format,
        });
        let below = layers.iter().skip(1).map(|l| l.file.clone());
        Some(Self {
            size,
            below: below.collect(),
            relative,
        })
    }
}

/// What `tops.json` of each machine in this folder records; an error where it cannot be read. As long as the folder of
/// a machine is there the machine is, whatever stands in it: `vm remove` takes it away in one step.
///
/// # Errors
/// The folder of machines is there and cannot be read.
pub(crate) fn recorded(machines: &Path) -> io::Result<Vec<(VmId, io::Result<Tops>)>> {
    match recorded_there(machines) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        all => all,
    }
}

/// [`recorded`], where the folder must be there.
///
/// # Errors
/// The folder of machines is away, cannot be read or does not answer.
pub(crate) fn recorded_there(machines: &Path) -> io::Result<Vec<(VmId, io::Result<Tops>)>> {
    let ids = held::ask(machines, || library::machine_ids(machines))?;
    let all = ids.into_iter().filter_map(|id| {
        let stored = stored(machines, id).transpose()?;
        Some((id, stored))
    });
    Ok(all.collect())
}

/// What `tops.json` of a machine in this folder records; `None` if nothing of the machine is there.
///
/// # Errors
/// Something of it is there, and that cannot be read.
pub(crate) fn stored(machines: &Path, id: VmId) -> io::Result<Option<Tops>> {
    let folder = machines.join(id.to_string());
    match Tops::load(&folder.join(TOPS)) {
        Err(_) if is_absent(&folder) => Ok(None),
        stored => stored.map(Some),
    }
}

/// Whether nothing stands there.
fn is_absent(file: &Path) -> bool {
    held::symlink_metadata(file).is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
}

/// The active files that `tops.json` of any machine names, also where its definition cannot be read or has the disk
/// no more. Of those that cannot be read nothing is told: who removes something asks [`recorded`].
pub(crate) fn recorded_tops(data_dir: &Path) -> Vec<(VmId, String, Top)> {
    let all = recorded(&data_dir.join(MACHINES)).unwrap_or_default();
    let read = all
        .into_iter()
        .filter_map(|(id, stored)| Some((id, stored.ok()?)));
    let tops = read.flat_map(|(id, stored)| {
        let tops = stored.tops.into_iter();
        tops.map(move |(disk, top)| (id, disk, top))
    });
    tops.collect()
}

/// What is recorded of images, and of what lies under them, by the machines in this folder.
///
/// # Errors
/// A `tops.json` cannot be read: any image may be of its machine.
pub(crate) fn recorded_images(machines: &Path) -> io::Result<Vec<(VmId, Image)>> {
    let mut all = Vec::new();
    for (id, stored) in recorded(machines)? {
        let file = machines.join(id.to_string()).join(TOPS);
        let stored =
            stored.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", file.display())))?;
        let images = stored.images.values().flat_map(Image::chain);
        all.extend(images.map(|image| (id, image.clone())));
    }
    Ok(all)
}

/// Whether the file is a `tops.json` that holds something else than was written, or no file at all.
pub(crate) fn is_damaged(file: &Path) -> bool {
    Tops::load(file).is_err_and(|e| e.kind() == io::ErrorKind::InvalidData || is_no_file(&e))
}

/// Whether a folder, link or the like stands where a file was to be read.
pub(crate) fn is_no_file(error: &io::Error) -> bool {
    use held::Foreign::{Link, NotRegular};
    matches!(held::foreign(error), Some(Link | NotRegular))
}

/// Keeps what stands in the place of a damaged `tops.json`, for whoever wants to know. What is no file is moved away.
pub(crate) fn keep_damaged(file: &Path) -> io::Result<()> {
    let aside = file.with_extension("json.damaged");
    match held::read(file) {
        Err(e) if is_no_file(&e) => {
            let (folder, name) = held::Folder::of(file)?;
            let found = folder.look(&name)?.ok_or(io::ErrorKind::NotFound)?;
            let to = aside.file_name().unwrap_or_default();
            folder.move_numbered(&name, &found, &folder, to).map(drop)
        }
        was => Ok(held::replace(&aside, &was?, 0o640)?),
    }
}

impl Tops {
    /// No snapshot yet.
    pub(crate) fn new(machine: VmId, imported: Option<Timestamp>) -> Self {
        Self {
            format: FORMAT,
            machine: Some(machine),
            imported,
            tops: BTreeMap::new(),
            backing_formats: BTreeMap::new(),
            seen: BTreeMap::new(),
            images: BTreeMap::new(),
            complete: false,
        }
    }

    /// Records what an older version has not recorded of the images of the definition. Once that is all there is, what
    /// is missing later is missing.
    pub(crate) fn complete_images(&mut self, defined: &Definition, machines: &Path) {
        let is_complete =
            |tops: &Self, disk: &DiskEntry| tops.image_of(disk).is_some_and(image::is_complete);
        for disk in defined.disk.iter().filter(|_| !self.complete) {
            if is_complete(self, disk) {
                continue;
            }
            let (at, old) = (At::new(&defined.name, &disk.id), self.image_of(disk));
            let format = self.format_of(disk, &self.tops);
            let recorded = || recorded_images(machines);
            match image::completed(&at, old, &disk.path, format, &recorded) {
                Ok(new) => drop(self.images.insert(disk.id.clone(), new)),
                Err(why) => tracing::warn!(
                    machine = defined.name,
                    disk = disk.id,
                    file = %disk.path.display(),
                    why,
                    "What stands in the place of the image is not recorded: no set is taken until `groupshot vm set NAME --accept-image`"
                ),
            }
        }
        self.complete |= defined.disk.iter().all(|disk| is_complete(self, disk));
        self.forget_images(defined);
    }

    /// Records the images anew on which nothing lay as long as these were the active files: what may be taken in their
    /// place without a word of the operator. What was `made` to stand there is recorded as it was made, whatever stands
    /// there by now.
    pub(crate) fn renew_images(
        &mut self,
        defined: &Definition,
        before: &BTreeMap<String, Top>,
        made: &BTreeMap<String, Image>,
        machines: &Path,
    ) {
        let recorded = || recorded_images(machines);
        for disk in &defined.disk {
            let Some(old) = self.image_of(disk) else {
                continue;
            };
            let top = before.get(&disk.id);
            if top.is_some_and(|top| top.file != old.file && top.file != old.named) {
                continue;
            }
            let made = made.get(&disk.id).filter(|made| made.file == old.file);
            let new = match made {
                Some(made) => Some(Image {
                    named: old.named.clone(),
                    below: old.below.clone(),
                    ..made.clone()
                }),
                None => {
                    let format = self.format_of(disk, before);
                    image::renewed(old, format, &BTreeMap::new(), &recorded)
                }
            };
            if let Some(new) = new {
                self.images.insert(disk.id.clone(), new);
            }
        }
        self.forget_images(defined);
    }

    /// Forgets the images of disks that the definition has no more, but for those that were captured: a set may keep the
    /// image.
    pub(crate) fn forget_images(&mut self, defined: &Definition) {
        let Self { images, tops, .. } = self;
        let is_defined = |id: &String| defined.disk.iter().any(|d| d.id == *id);
        images.retain(|id, _| is_defined(id) || tops.contains_key(id));
    }

    /// What is recorded of the image that the definition names.
    pub(crate) fn image_of(&self, disk: &DiskEntry) -> Option<&Image> {
        let recorded = self.images.get(&disk.id);
        recorded.filter(|image| image.named == disk.path)
    }

    /// Of the image that the definition names: a file of ours that has taken its place has its own.
    fn format_of(&self, disk: &DiskEntry, tops: &BTreeMap<String, Top>) -> Format {
        let file = self.image_of(disk).map_or(&disk.path, |image| &image.file);
        let top = tops.get(&disk.id);
        let top = top.filter(|top| top.file == *file || top.file == disk.path);
        top.map_or(disk.format, |top| top.format)
    }

    /// The active files by what is recorded here; `is_made` as for [`image::known_below`].
    pub(crate) fn actives(&self, is_made: impl Fn(&Path) -> bool) -> Vec<Active> {
        let disks: BTreeSet<_> = self.tops.keys().chain(self.images.keys()).collect();
        let active = |disk: &String| {
            let (top, image) = (self.tops.get(disk), self.images.get(disk));
            let file = top
                .map(|top| &top.file)
                .or(image.map(|image| &image.file))?;
            let seen = self.seen.get(disk).map(|seen| seen.below.as_slice());
            let of_image = || {
                let image = image.filter(|image| image.file == *file || image.named == *file);
                let below = image?.below.as_ref()?.iter();
                Some(below.map(|image| image.file.clone()).collect())
            };
            let below = image::known_below(file, seen, image, &is_made).or_else(of_image);
            let lies_on_nothing = below.as_ref().is_some_and(Vec::is_empty);
            let image = || Top {
                file: file.clone(),
                format: match lies_on_nothing {
                    true => Format::Raw,
                    false => Format::Qcow2,
                },
            };
            Some(Active {
                disk: disk.clone(),
                top: top.cloned().unwrap_or_else(image),
                below,
            })
        };
        disks.into_iter().filter_map(active).collect()
    }

    /// Reads the file. Every import writes one: where it is not there, nobody knows which files are active. One that was
    /// written for another machine than that of the folder is damaged.
    pub(crate) fn load(file: &Path) -> io::Result<Self> {
        let read = document::read::<Self>(&held::read(file)?)?;
        let folder = file.parent().and_then(Path::file_name);
        let here = folder.and_then(|name| name.to_str()?.parse::<VmId>().ok());
        match (read.body.machine, here) {
            (Some(of), Some(here)) if of != here => {
                let cause = format!("is damaged: it is that of machine {of}");
                Err(io::Error::new(io::ErrorKind::InvalidData, cause))
            }
            _ => Ok(read.body),
        }
    }

    /// Replaces the file durably: write, fsync, rename, fsync of the directory.
    pub(crate) fn save(&self, file: &Path) -> Result<(), NotReplaced> {
        let bytes = document::write(self).map_err(NotReplaced::Refused)?;
        held::replace(file, &bytes, 0o640)
    }
}

/// What [`Tops::save`] calls the file until it is whole.
pub(crate) const TOPS_NEW: &str = "tops.json.new";

/// The turn of whoever reads and rewrites `tops.json` of the machine in this folder: the server, and `vm set`. No image
/// is looked at by who has it.
pub(crate) fn turn(folder: &Path) -> io::Result<Flock<File>> {
    Flock::lock(File::open(folder)?, FlockArg::LockExclusive).map_err(|(_, e)| e.into())
}

/// What [`in_turn`] came to.
pub(crate) struct Turned {
    _turn: Flock<File>,
    /// What stands in the file until it is saved.
    pub(crate) old: Tops,
    /// What it is to become, in this turn.
    pub(crate) new: Tops,
}

/// Has `change` say what becomes of `tops.json` of the machine in this folder, as `load` reads it, and takes the turn
/// to write that. `change` may look at images, which may not answer: nobody waits for its turn meanwhile. Where somebody
/// else has written by then, it is asked anew.
///
/// # Errors
/// What `load` and `change` say; the turn cannot be taken.
pub(crate) fn in_turn<E>(
    folder: &Path,
    failed: impl Fn(io::Error) -> E,
    load: impl Fn() -> Result<Tops, E>,
    change: impl Fn(&mut Tops) -> Result<(), E>,
) -> Result<Turned, E> {
    let mut old = load()?;
    loop {
        let mut new = old.clone();
        change(&mut new)?;
        let turn = turn(folder).map_err(&failed)?;
        let now = load()?;
        if now == old {
            return Ok(Turned {
                _turn: turn,
                old,
                new,
            });
        }
        old = now;
    }
}

/// [`held::replace`] that keeps owner and mode.
pub(crate) fn rewrite(file: &Path, bytes: &[u8]) -> Result<(), NotReplaced> {
    held::replace_as(file, bytes, MODE, |new| {
        exchange::take_over(new, &held::open(file, false)?).map(drop)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ID: &str = "8A3D0000-0000-0000-0000-0000000000FF";

    fn load(rest: &str) -> Result<Definition, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(DEFINITION);
        fs::write(&file, format!("id = \"{ID}\"\nname = \"web-1\"\n{rest}")).unwrap();
        Definition::load(&file, ID.parse().unwrap()).map_err(|t| t.english())
    }

    #[test]
    fn what_another_writes_meanwhile_is_not_lost_and_nobody_waits_for_images() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, file) = (dir.path(), dir.path().join(TOPS));
        Tops::new(ID.parse().unwrap(), None).save(&file).unwrap();
        let load = || Tops::load(&file);
        let asked = std::cell::Cell::new(0);
        let turned = in_turn(
            folder,
            |e| e,
            load,
            |tops| {
                asked.set(asked.get() + 1);
                if asked.get() == 1 {
                    // It is nobody's turn while images are looked at.
                    let other = File::open(folder)?;
                    let other = Flock::lock(other, FlockArg::LockExclusiveNonblock);
                    let _other = other.map_err(|(_, e)| e)?;
                    let mut theirs = load()?;
                    theirs.backing_formats.insert("/b".into(), Format::Raw);
                    theirs.save(&file)?;
                }
                tops.backing_formats.insert("/a".into(), Format::Qcow2);
                Ok(())
            },
        );
        let turned = turned.unwrap();
        assert_eq!(asked.get(), 2, "asked anew");
        let other = Flock::lock(File::open(folder).unwrap(), FlockArg::LockExclusiveNonblock);
        assert!(other.is_err(), "it is our turn");
        turned.new.save(&file).unwrap();
        assert_eq!((turned.old.backing_formats.len(), asked.get()), (1, 2));
        assert_eq!(load().unwrap().backing_formats.len(), 2);
    }

    #[test]
    fn the_image_of_a_disk_that_was_captured_stays_recorded_without_the_disk() {
        let entry = |id: &str| DiskEntry {
            id: id.into(),
            path: format!("/images/{id}").into(),
            format: Format::Raw,
        };
        let defined = Definition::new(
            ID.parse().unwrap(),
            "web-1".into(),
            vec![entry("disk0")],
            None,
        );
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("image");
        let open = File::create(&file).unwrap();
        let image = image::record_of(&file, &open).unwrap();
        let mut tops = Tops::new(ID.parse().unwrap(), None);
        for id in ["disk0", "disk1", "disk2"] {
            tops.images.insert(id.to_owned(), image.clone());
        }
        let top = Top {
            file: "/sets/1/disk1.qcow2".into(),
            format: Format::Qcow2,
        };
        tops.tops.insert("disk1".to_owned(), top);
        let before = tops.tops.clone();
        tops.renew_images(&defined, &before, &BTreeMap::new(), dir.path());
        assert_eq!(tops.images.keys().collect::<Vec<_>>(), ["disk0", "disk1"]);
    }

    #[test]
    fn a_definition_is_read_back_as_it_was_written() {
        let disk = DiskEntry {
            id: "disk0".into(),
            path: "/images/a b\"c.raw".into(),
            format: Format::Raw,
        };
        for overlay_ok in [false, true] {
            let disk = vec![disk.clone()];
            let qemu = Section::new(overlay_ok, &Sockets::default(), false);
            let it = Definition::new(ID.parse().unwrap(), "web-1".into(), disk, qemu);
            assert_eq!(it.overlay_ok(), overlay_ok);
            let text = toml::to_string(&it).unwrap();
            assert_eq!(text.contains("[qemu]\noverlay_ok = true\n"), overlay_ok);
            assert_eq!(toml::from_str(&text), Ok(it));
        }
    }

    #[test]
    fn an_exported_definition_names_the_files_beside_it() {
        let disk = |id: &str| DiskEntry {
            id: id.into(),
            path: format!("/images/{id}.raw").into(),
            format: Format::Raw,
        };
        let it = Definition::new(
            ID.parse().unwrap(),
            "web-1".into(),
            vec![disk("disk0"), disk("disk1")],
            Section::new(true, &Sockets::default(), false),
        );
        let files = BTreeMap::from([("disk1".to_owned(), "disk1.qcow2".to_owned())]);
        let text = with_disks(&toml::to_string(&it).unwrap(), &files).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(DEFINITION);
        fs::write(&file, text).unwrap();
        let read = Definition::load_exported(&file).unwrap();
        assert_eq!((read.id, read.name.as_str()), (it.id, "web-1"));
        assert!(read.overlay_ok(), "its operator said so");
        let only = DiskEntry {
            id: "disk1".into(),
            path: dir.path().join("disk1.qcow2"),
            format: Format::Qcow2,
        };
        assert_eq!(read.disk, [only]);
        assert!(with_disks("name = \"x\"", &files).is_err());
        assert!(with_disks("disk = 1", &files).is_err());
        assert!(with_disks("[[disk", &files).is_err());
    }

    #[test]
    fn one_path_is_written_anew_and_the_rest_stays() {
        let text = "# mine\r\nname = 'web'\n[[disk]]\nid=\"a\"\nformat = \"raw\"\n  path = '/old/a' # here\n\n\
                    [[disk]]\nid = \"b\"\npath = \"/old/b\"\nformat = \"qcow2\"\n[qemu]\nother = 1\n";
        let (name, found) = paths(text).unwrap();
        let lines: Vec<_> = found.iter().map(|p| (p.disk.as_str(), p.line)).collect();
        assert_eq!((name.as_str(), lines), ("web", vec![("a", 6), ("b", 10)]));
        let new = with_path(text, "a", Path::new("/new/\"x\"/a")).unwrap();
        assert_eq!(new, text.replace("'/old/a'", "'/new/\"x\"/a'"));
        assert_eq!(with_path(&new, "a", Path::new("/new/\"x\"/a")), Ok(new));
        assert!(with_path(text, "c", Path::new("/new")).is_err());
        assert!(paths("name = 3").is_err());
    }

    #[test]
    fn a_name_that_is_too_long_makes_a_definition_unreadable_and_is_told() {
        let text = |count| {
            format!(
                "format = 1\nid = \"{ID}\"\nname = \"{}\"\n[[disk]]\nid = \"a\"\npath = \"/a.raw\"\nformat = \"raw\"\n",
                "ä".repeat(count)
            )
        };
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(DEFINITION);
        let load = |count| {
            fs::write(&file, text(count)).unwrap();
            Definition::load(&file, ID.parse().unwrap()).map_err(|t| t.english())
        };
        assert!(load(NAME_MAX).is_ok());
        let error = load(NAME_MAX + 1).unwrap_err();
        assert!(
            error.contains("at most 256 characters") && error.contains(DEFINITION),
            "{error}"
        );
    }

    #[test]
    fn what_is_wrong_in_a_definition_is_named() {
        let disk = "[[disk]]\nid = \"disk0\"\npath = \"/a.raw\"\nformat = \"raw\"\n";
        assert!(load(&format!("format = 1\n{disk}")).is_ok());
        let table = [
            (format!("format = 1\ncolour = 3\n{disk}"), "colour"),
            (format!("format = 1\n{disk}size = 4\n"), "size"),
            (format!("format = 2\n{disk}"), "format = 2"),
            (disk.to_owned(), "format"),
            ("format = 1\n".to_owned(), "at least one disk"),
            (format!("format = 1\n{disk}{disk}"), "disk0 stands twice"),
            (
                format!("format = 1\n{disk}[qemu]\noverlay_ok = true\ncommand = []\n"),
                "key command of section [qemu] is not known to this version",
            ),
            (
                format!("format = 1\n{disk}[qemu]\noverlay_ok = 1\n"),
                "expected true or false",
            ),
            (
                format!("format = 1\n{}", disk.replace("/a.raw", "a.raw")),
                "absolute",
            ),
            (
                format!("format = 1\n{}", disk.replace("disk0", "../x")),
                "../x",
            ),
            (
                format!("format = 1\n{}", disk.replace("\"raw\"", "\"vmdk\"")),
                "vmdk",
            ),
        ];
        for (text, word) in table {
            let error = load(&text).unwrap_err();
            assert!(error.contains(word), "{word}: {error}");
            assert!(error.contains(DEFINITION), "names the file: {error}");
        }
        assert!(Definition::load(Path::new("/nowhere/vm.toml"), ID.parse().unwrap()).is_err());
    }
}
