//! `vm import`: takes a machine into the library, by reference. The images stay where they are. One that runs is asked at
//! its monitor whether they are its disks.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::engine::definition::{self, DEFINITION, Definition, DiskEntry, SeenTop, TOPS, Tops};
use crate::engine::failure::At;
use crate::engine::graph::{self, Under, Whose};
use crate::engine::image::Seen;
use crate::engine::library::{self, directory_failed, machines_directory};
use crate::engine::links::Unmade;
use crate::engine::locks;
use crate::engine::names;
use crate::engine::qcow2::chain::{self, Layer, Roots};
use crate::engine::qcow2::header::has_magic;
use crate::engine::qemu::admit::{self, Wanted};
use crate::engine::qemu::section::Section;
use crate::engine::{EngineError, EngineErrorKind, Hold, Machines, beside, space, stage, turn};
use crate::held::{self, Foreign, Identity};
use crate::id::VmId;
use crate::inventory::{self, Format, Image, Machine, NAME_MAX, Sockets};
use crate::text::catalog::engine as texts;
use crate::text::{Text, is_blank};
use crate::xml;

/// A machine to import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMachine {
    /// Display name.
    pub name: String,
    /// Its disks, at least one.
    pub disks: Vec<NewDisk>,
    /// `[qemu] overlay_ok`: an overlay may become the active file of a disk.
    pub overlay_ok: bool,
    /// Also images over files that the owners of the images could not read.
    pub accept_images: bool,
    /// Where whatever runs it is asked.
    pub sockets: Sockets,
    /// `[qemu] unmanaged_ok`: also if somebody else is connected to its QEMU, and may manage it.
    pub unmanaged_ok: bool,
}

/// A machine that was taken in.
#[derive(Debug)]
pub struct Imported {
    /// The machine.
    pub machine: Machine,
    /// What was taken on trust, in sentences.
    pub notes: Vec<Text>,
}

/// A disk to import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDisk {
    /// Its id; `disk0`, `disk1`, … by place if `None`.
    pub id: Option<String>,
    /// The image; a relative path starts at the current directory.
    pub file: PathBuf,
    /// Its format; taken from the suffix `.qcow2` or `.raw` if `None`, never from the content.
    pub format: Option<Format>,
}

impl NewMachine {
    /// The machine that an exported definition describes; it becomes a machine of its own, with its own id.
    ///
    /// # Errors
    /// [`EngineErrorKind::Failed`] naming the file.
    pub fn exported(definition: &Path) -> Result<Self, EngineError> {
        let defined = Definition::load_exported(definition).map_err(|text| EngineError {
            kind: EngineErrorKind::Failed,
            text,
        })?;
        let disk = |disk: DiskEntry| NewDisk {
            id: Some(disk.id),
            file: disk.path,
            format: Some(disk.format),
        };
        Ok(Self {
            overlay_ok: defined.overlay_ok(),
            accept_images: false,
            sockets: Sockets::default(),
            unmanaged_ok: false,
            name: defined.name,
            disks: defined.disk.into_iter().map(disk).collect(),
        })
    }
}

/// [`take_in`] for one that has nothing to tell.
///
/// # Errors
/// As there.
pub fn import(
    data_dir: &Path,
    new: &NewMachine,
    roots: &Roots,
    now: Timestamp,
) -> Result<Machine, EngineError> {
    take_in(data_dir, new, roots, now).map(|it| it.machine)
}

/// Checks the images with their chains, and the QEMU that runs them, and writes the definition, durably.
///
/// # Errors
/// [`EngineError`] naming machine, disk and file; nothing was written then.
pub fn take_in(
    data_dir: &Path,
    new: &NewMachine,
    roots: &Roots,
    now: Timestamp,
) -> Result<Imported, EngineError> {
    if new.name.trim().is_empty() {
        return Err(unsupported(texts::NAME_EMPTY.text()));
    }
    if is_blank(&new.name) {
        return Err(unsupported(texts::NAME_BLANK.text()));
    }
    if inventory::is_too_long(&new.name) {
        return Err(unsupported(texts::NAME_TOO_LONG.with("limit", NAME_MAX)));
    }
    if let Some(character) = beyond_xml(&new.name) {
        return Err(unsupported(texts::NAME_XML.with("character", character)));
    }
    if new.disks.is_empty() {
        return Err(unsupported(texts::NO_DISKS.with("machine", &new.name)));
    }
    let directory = machines_directory(data_dir);
    let fail = |e: io::Error| directory_failed(&directory, &e);
    stage::make_dirs(&directory, 1).map_err(fail)?;
    let mut disks: Vec<DiskEntry> = Vec::new();
    let machine = VmId::random();
    let mut tops = Tops::new(machine, Some(now));
    let mut opened = Vec::new();
    for (n, disk) in new.disks.iter().enumerate() {
        let id = disk.id.clone().unwrap_or_else(|| format!("disk{n}"));
        let at = At::new(&new.name, &id);
        let text = |message| at.text(message, &disk.file);
        if !definition::is_disk_id(&id) {
            return Err(unsupported(text(texts::DISK_ID)));
        }
        if disks.iter().any(|d| d.id == id) {
            return Err(unsupported(text(texts::DISK_TWICE)));
        }
        let (path, format) = image(&at, disk, data_dir)?;
        let real = held::canonicalize(&path).map_err(|e| at.io(&path, &e))?;
        if !roots.admit_real(&real) {
            return Err(EngineError {
                kind: EngineErrorKind::Denied,
                text: roots.outside(&at, &path),
            });
        }
        let layers = chain::open(&at, &real, format, roots)?;
        let magic = layers.first().filter(|_| format == Format::Raw);
        let magic = magic.map(|raw| has_magic(&raw.open)).transpose();
        if magic.map_err(|e| at.io(&path, &e))? == Some(true) {
            return Err(unsupported(at.text(texts::FORMAT_MAGIC, &path)));
        }
        let image = Seen::of(&path, &layers).map_err(|e| at.io(&path, &e))?;
        if let Some(file) = image.closed.first().filter(|_| !new.accept_images) {
            let text = at.text(texts::IMAGE_CLOSED, file);
            return Err(unsupported(text.with("owner", image.image.owner)));
        }
        tops.backing_formats.extend(chain::unrecorded(&layers));
        let seen = SeenTop::of_chain(&layers);
        tops.seen.extend(seen.map(|seen| (id.clone(), seen)));
        tops.images.insert(id.clone(), image.image);
        disks.push(DiskEntry { id, path, format });
        opened.push(layers);
    }
    let qemu = Section::new(new.overlay_ok, &new.sockets, new.unmanaged_ok);
    qemu.as_ref()
        .map_or(Ok(()), Section::check)
        .map_err(unsupported)?;
    let definition = Definition::new(machine, new.name.clone(), disks, qemu);
    let mut notes = asked(new, &definition, &opened)?;
    tops.complete = true;
    // Now that all of it has answered: others wait for their turn.
    let _one_at_a_time = exclusive(&directory).map_err(fail)?;
    // Before it is looked whose they are: nobody is about to write or to remove one, or to make it an active file, and
    // whoever begins from here on sees this machine.
    for (disk, layers) in definition.disk.iter().zip(&opened) {
        let at = At::new(&new.name, &disk.id);
        for layer in layers {
            locks::require_idle(&at, &layer.real, layer.id)?;
        }
    }
    let (others, _) = library::scan(data_dir)?;
    not_shared(new, &others)?;
    let mut used = Used::of(&others);
    let unknown = used.note_unreadable(&directory, &others)?;
    for (disk, layers) in definition.disk.iter().zip(&opened) {
        used.add(&At::new(&new.name, &disk.id), &new.name, layers)?;
    }
    if let Some(unknown) = unknown {
        return Err(unknown);
    }
    write(&directory, &definition, &tops).map_err(fail)?;
    let (mut all, _) = library::scan(data_dir)?;
    let new = all.get(&definition.id).map(|m| m.as_ref());
    let unmade = library::link(&directory, &all, new);
    notes.extend(unmade.iter().map(Unmade::text));
    let imported = all.remove(&definition.id);
    let machine = imported.ok_or_else(|| library::unknown(definition.id))?;
    Ok(Imported {
        machine: Machine::clone(&machine),
        notes,
    })
}

/// Asks whatever runs the machine whether these are its disks.
fn asked(
    new: &NewMachine,
    definition: &Definition,
    opened: &[Vec<Layer>],
) -> Result<Vec<Text>, EngineError> {
    let disks = definition.disk.iter().zip(opened);
    let wanted = disks.filter_map(|(disk, layers)| {
        let top = layers.first()?;
        Some(Wanted {
            disk: &disk.id,
            file: &top.real,
            id: top.id,
            format: top.format,
            size: top.size,
        })
    });
    let wanted: Vec<_> = wanted.collect();
    admit::admit(&new.name, &new.sockets, new.unmanaged_ok, &wanted)
}

/// Refuses the socket of another machine: only one can be behind it.
fn not_shared(new: &NewMachine, others: &Machines) -> Result<(), EngineError> {
    let all = |sockets: &Sockets| -> Vec<PathBuf> {
        sockets.qmp.iter().chain(&sockets.agent).cloned().collect()
    };
    let own = all(&new.sockets);
    for other in others.values() {
        let theirs = all(&other.sockets);
        if let Some(shared) = own.iter().find(|socket| theirs.contains(socket)) {
            let text = texts::SOCKET_USED.with("machine", &new.name);
            let text = text.with("file", shared.display());
            return Err(unsupported(text.with("other", &other.name)));
        }
    }
    Ok(())
}

/// Takes the machine out of the library. Its images and the files of its former snapshots stay.
///
/// # Errors
/// [`EngineErrorKind::Missing`] if there is no such machine, [`EngineErrorKind::Locked`] if something runs
/// it, [`EngineErrorKind::Failed`] if `holders` names what needs it.
pub fn remove(
    data_dir: &Path,
    id: VmId,
    holders: impl FnOnce(VmId) -> Vec<String>,
) -> Result<(), EngineError> {
    let directory = machines_directory(data_dir);
    let fail = |e: io::Error| directory_failed(&directory, &e);
    let folder = directory.join(id.to_string());
    if !folder.is_dir() {
        return Err(library::unknown(id));
    }
    let _one_at_a_time = exclusive(&directory).map_err(fail)?;
    let (machines, _) = library::scan(data_dir)?;
    let sets = holders(id);
    if !sets.is_empty() {
        let name = machines.get(&id).map(|m| m.name.as_str());
        return Err(EngineError {
            kind: EngineErrorKind::Failed,
            text: referred(id, name, &sets),
        });
    }
    let sets = sets_beside(&directory);
    let name = machines
        .get(&id)
        .map(|m| inventory::shown(&m.name).into_owned());
    let stored = definition::stored(&directory, id).map_err(|cause| EngineError {
        kind: EngineErrorKind::Failed,
        text: texts::ACTIVE_UNREAD
            .with("machine", name.clone().unwrap_or_else(|| id.to_string()))
            .with("file", folder.join(TOPS).display())
            .with("cause", cause),
    })?;
    if let Some((disk, file)) = stored.and_then(|it| stranded(it, &sets)) {
        return Err(EngineError {
            kind: EngineErrorKind::Failed,
            text: texts::ACTIVE_STRANDED
                .with("machine", name.unwrap_or_else(|| id.to_string()))
                .with("disk", disk)
                .with("file", file.display()),
        });
    }
    let _held = match machines.get(&id) {
        Some(machine) => match Hold::of(machine) {
            // Nobody knows whether something runs it.
            Err(e) if matches!(e.kind, EngineErrorKind::Locked | EngineErrorKind::Silent) => {
                return Err(e);
            }
            other => other.ok(), // an image that is gone keeps nobody from removing its machine
        },
        None => None,
    };
    // Out of sight in one step: a reader never meets half a machine.
    let gone = directory.join(format!(".gone-{id}"));
    let held = held::Folder::open(&directory).map_err(fail)?;
    let name = |path: &Path| path.file_name().unwrap_or_default().to_owned();
    let own = held.child(name(&folder)).and_then(|own| own.origin());
    let own = own.map_err(fail)?;
    held.rename_new(name(&folder), &held, name(&gone))
        .map_err(fail)?;
    held.sync().map_err(fail)?;
    let (left, _) = library::scan(data_dir)?;
    let _lead_nowhere = library::link(&directory, &left, None);
    held.remove_tree(name(&gone), &own)
        .map_err(fail)
        .map(|_| ())
}

/// The first disk whose active file is one that the server has made: without the machine nobody would know what is
/// newest, and no machine can be imported from there.
fn stranded(stored: Tops, sets: &Path) -> Option<(String, PathBuf)> {
    let is_made = |file: &Path| {
        let real = held::canonicalize(file);
        real.is_ok_and(|real| graph::is_ours(sets, &real))
    };
    let mut tops = stored.tops.into_iter().map(|(disk, top)| (disk, top.file));
    tops.find(|(_, file)| is_made(file))
}

/// Why a machine cannot leave the library.
pub(crate) fn referred(id: VmId, name: Option<&str>, holders: &[String]) -> Text {
    let named = name.map(|name| format!("`{}` {id}", inventory::shown(name)));
    let named = named.unwrap_or_else(|| id.to_string());
    let text = texts::MACHINE_REFERRED.with("machine", named);
    text.with("holders", holders.join(", "))
}

/// The absolute path and the format of an image that may be imported.
fn image(at: &At, disk: &NewDisk, data_dir: &Path) -> Result<(PathBuf, Format), EngineError> {
    let io = |e: io::Error| at.io(&disk.file, &e);
    let path = std::path::absolute(&disk.file).map_err(io)?;
    let Some(text) = path.to_str() else {
        return Err(unsupported(at.text(texts::PATH_FORM, &path)));
    };
    if let Some(character) = beyond_xml(text) {
        let text = at.text(texts::PATH_XML, &path);
        return Err(unsupported(text.with("character", character)));
    }
    let real = held::canonicalize(&path).map_err(io)?;
    let sets = sets_beside(&machines_directory(data_dir));
    let folder = Path::new(beside::FOLDER);
    if real.starts_with(&sets) || real.components().any(|c| c.as_os_str() == folder) {
        return Err(unsupported(at.text(texts::IMAGE_KEPT, &path)));
    }
    let format = format(at, disk, &path)?;
    let open = match held::open(&real, false) {
        Err(e) if held::foreign(&e) == Some(Foreign::NotRegular) => {
            return Err(unsupported(at.text(texts::NOT_REGULAR, &path)));
        }
        opened => opened.map_err(io)?,
    };
    if space::is_pseudo(&open) {
        return Err(unsupported(at.text(texts::NOT_STORED, &path)));
    }
    Ok((path, format))
}

/// The folder of sets beside that of machines, links resolved.
fn sets_beside(machines: &Path) -> PathBuf {
    let sets = machines.with_file_name(held::SETS);
    sets.canonicalize().unwrap_or(sets)
}

/// The first character that no answer can hold.
fn beyond_xml(text: &str) -> Option<String> {
    let found = text.chars().find(|c| !xml::allowed(*c))?;
    Some(format!("U+{:04X}", u32::from(found)))
}

fn format(at: &At, disk: &NewDisk, path: &Path) -> Result<Format, EngineError> {
    match (disk.format, chain::by_suffix(path)) {
        (Some(said), Some(suffix)) if said != suffix => Err(unsupported(
            at.text(texts::FORMAT_SUFFIX, path)
                .with("suffix", suffix.as_str())
                .with("format", said.as_str()),
        )),
        (Some(format), _) | (None, Some(format)) => Ok(format),
        (None, None) => Err(unsupported(at.text(texts::FORMAT_NEEDED, path))),
    }
}

/// Which file belongs to whom. Machines may share a backing file, but nobody's active file may be part of
/// another's chain.
#[derive(Default)]
struct Used {
    /// Active files by device and inode, with the machine's name.
    tops: BTreeMap<(u64, u64), String>,
    /// Backing files likewise.
    below: BTreeMap<(u64, u64), String>,
    /// What lies under active files whose chains are not whole, with the machine's name.
    under: Vec<(String, Under)>,
}

impl Used {
    fn of(machines: &Machines) -> Self {
        let mut used = Self::default();
        for machine in machines.values() {
            for disk in &machine.disks {
                let at = At::disk(machine, disk);
                let whose = Whose {
                    machine: Some(machine),
                    disk: &disk.id,
                    sealed: &[],
                };
                let chain = graph::chain_of(&at, whose, &disk.file, disk.format);
                used.note(&machine.name, &chain.layers);
                if !chain.is_whole() {
                    let recorded = machine.images.get(&disk.id).into_iter();
                    let recorded = recorded.flat_map(Image::chain).map(|it| it.file.clone());
                    let recorded: Vec<_> = recorded.filter(|it| *it != disk.file).collect();
                    let under = whose.under(&chain, &recorded);
                    used.under.push((machine.name.clone(), under));
                }
                // A chain that cannot be read now still has its active file.
                if chain.layers.is_empty() && chain.refused.is_none() {
                    note_file(&mut used.tops, &machine.name, &disk.file);
                }
            }
        }
        used
    }

    /// The files of machines that cannot be used now: they are theirs all the same, by what is recorded of them.
    /// Gives the refusal where that cannot be read of one.
    fn note_unreadable(
        &mut self,
        directory: &Path,
        others: &Machines,
    ) -> Result<Option<EngineError>, EngineError> {
        let mut unknown = None;
        let failed = |e: io::Error| directory_failed(directory, &e);
        for (id, stored) in definition::recorded(directory).map_err(failed)? {
            if others.contains_key(&id) {
                continue;
            }
            let folder = directory.join(id.to_string());
            let text = held::read_text(&folder.join(DEFINITION)).unwrap_or_default();
            let (name, paths) = definition::paths(&text).unwrap_or_default();
            let name = if name.is_empty() {
                id.to_string()
            } else {
                name
            };
            for path in &paths {
                note_file(&mut self.tops, &name, &path.path);
            }
            let stored = match stored {
                Ok(stored) => stored,
                Err(e) => {
                    let text = texts::IMAGES_UNKNOWN.with("machine", inventory::shown(&name));
                    unknown = Some(EngineError {
                        kind: EngineErrorKind::Failed,
                        text: text
                            .with("file", folder.join(TOPS).display())
                            .with("cause", e),
                    });
                    continue;
                }
            };
            let sets = sets_beside(directory);
            for active in stored.actives(|file| names::is_made_for(&sets, id, file)) {
                for file in active.below.iter().flatten() {
                    note_file(&mut self.below, &name, file);
                }
                note_file(&mut self.tops, &name, &active.top.file);
            }
            for image in stored.images.values() {
                note_file(&mut self.tops, &name, &image.file);
            }
        }
        Ok(unknown)
    }

    fn note(&mut self, name: &str, layers: &[Layer]) {
        for (n, layer) in layers.iter().enumerate() {
            let list = if n == 0 {
                &mut self.tops
            } else {
                &mut self.below
            };
            list.insert(layer.id, name.to_owned());
        }
    }

    /// Refuses a chain that meets another's, else notes it.
    fn add(&mut self, at: &At, name: &str, layers: &[Layer]) -> Result<(), EngineError> {
        for (n, layer) in layers.iter().enumerate() {
            let found = Identity::of(&layer.open).map_err(|e| at.io(&layer.file, &e))?;
            let mut under = self.under.iter().filter(|(_, under)| under.has(&found));
            let under = under.next().map(|(name, _)| name);
            let as_backing = self.below.get(&layer.id).or(under).filter(|_| n == 0);
            if let Some(other) = self.tops.get(&layer.id).or(as_backing) {
                let text = at.text(texts::IMAGE_USED, &layer.file);
                return Err(unsupported(text.with("other", other)));
            }
        }
        self.note(name, layers);
        Ok(())
    }
}

fn note_file(list: &mut BTreeMap<(u64, u64), String>, name: &str, file: &Path) {
    use std::os::unix::fs::MetadataExt;
    if let Ok(meta) = held::metadata(file) {
        list.insert((meta.dev(), meta.ino()), name.to_owned());
    }
}

/// Writes the machine's folder aside and renames it into place.
fn write(directory: &Path, definition: &Definition, tops: &Tops) -> io::Result<()> {
    let held = held::Folder::open(directory)?;
    let aside = format!(".new-{}", definition.id);
    let made = held.make_new(&aside, 0o750)?;
    let written = write_files(&made, definition, tops)
        .and_then(|()| held.rename_new(&aside, &held, definition.id.to_string()));
    if written.is_err()
        && let Ok(origin) = made.origin()
    {
        let _ = held.remove_tree(&aside, &origin);
    }
    written.and_then(|()| held.sync())
}

fn write_files(folder: &held::Folder, definition: &Definition, tops: &Tops) -> io::Result<()> {
    let folder = folder.path();
    let text = toml::to_string(definition).map_err(io::Error::other)?;
    held::replace(&folder.join(DEFINITION), text.as_bytes(), 0o640)?;
    Ok(tops.save(&folder.join(TOPS))?)
}

/// Imports, removals and changes of one data directory take turns. Nobody waits for ever for one that stands at a place
/// which does not answer.
fn exclusive(directory: &Path) -> io::Result<turn::Turn> {
    let busy =
        "another command or operation has the library of machines; try again when it has ended";
    let turn = turn::take_in(directory, turn::PATIENCE, &|| false)?;
    turn.ok_or_else(|| io::Error::new(io::ErrorKind::WouldBlock, busy))
}

fn unsupported(text: Text) -> EngineError {
    EngineError {
        kind: EngineErrorKind::Unsupported,
        text,
    }
}
