//! One machine as its files tell it.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use crate::engine::beside::FOLDER;
use crate::engine::definition::{
    DEFINITION, Definition, DiskEntry, SeenTop, TOPS, Tops, is_no_file,
};
use crate::engine::failure::At;
use crate::engine::graph::{self, Chain, Whose};
use crate::engine::image;
use crate::engine::observed::Condition;
use crate::engine::qcow2::backing;
use crate::engine::qcow2::chain::{self, Roots};
use crate::engine::qcow2::header::Header;
use crate::engine::qemu::peer::FileId;
use crate::engine::reflink;
use crate::engine::{Stamp, locks, name, space};
use crate::held;
use crate::id::VmId;
use crate::inventory::{Disk, Format, Machine};
use crate::text::catalog::engine as texts;
use crate::text::{Message, Text};

use super::Problem;

const SECTOR: u64 = 512;

/// A machine as loaded, and the files it was loaded from.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) seen: Vec<(PathBuf, Option<Stamp>)>,
    pub(super) machine: Option<Arc<Machine>>,
    /// How it is called, also if it cannot be read otherwise; as it was before, where that cannot be read either.
    pub(super) name: Option<String>,
    /// What lies under the active file of a disk, and what was recorded to, by disk id.
    pub(super) below: BTreeMap<String, Vec<PathBuf>>,
    /// The disks of which that cannot be seen now.
    pub(super) unseen: Vec<String>,
    /// What was seen of active files and is not recorded.
    pub(super) unrecorded: BTreeMap<String, SeenTop>,
    pub(super) problems: Vec<Problem>,
    /// Its active files were written by us, or judged.
    pub(super) vouched: bool,
    /// They were judged to be others than those that are recorded.
    pub(super) doubtful: bool,
    /// The system failed to read a file of it: the next look loads it again, whether or not a file has changed.
    pub(super) unread: bool,
    /// So it was when its active files were judged, which is done again then.
    pub(super) unjudged: bool,
}

impl Entry {
    /// The file of it that does not answer, if one is known not to. Looks at none.
    pub(super) fn silent(&self) -> Option<&Path> {
        let mut files = self.seen.iter().map(|(file, _)| file.as_path());
        files.find(|file| held::is_silent(file))
    }

    /// What is to be shown of it, if anybody has a file of it open for writing, or nobody. Looks at none.
    pub(super) fn condition(&self, written: bool) -> Condition {
        let is_of = |disk: &Disk| self.problems.iter().any(|p| p.file == disk.file);
        let mut disks = self.machine.iter().flat_map(|m| &m.disks);
        let is_silent = held::is_any_silent() && self.silent().is_some();
        let broken = self.problems.first().filter(|_| self.machine.is_none());
        Condition {
            written,
            ailing: is_silent || disks.any(is_of),
            trouble: broken.map(|p| p.text.clone()),
        }
    }

    /// The active files that are there, by device and inode. Looks at none.
    pub(super) fn files(&self) -> Vec<FileId> {
        let disks = self.machine.iter().flat_map(|m| &m.disks);
        let stamp = |disk: &Disk| {
            let mut seen = self.seen.iter();
            let stamp = seen.find(|(file, _)| *file == disk.file)?.1?;
            Some((stamp.device, stamp.inode))
        };
        disks.filter_map(stamp).collect()
    }

    /// `tops.json` as it was read.
    pub(super) fn tops(&self) -> Option<&Stamp> {
        let mut seen = self.seen.iter();
        seen.find(|(file, _)| file.ends_with(TOPS))?.1.as_ref()
    }

    /// The machine is not used: `tops.json` names files that are not its active ones.
    pub(super) fn doubt(&mut self, tops: &Path, why: &str) {
        let text = texts::TOPS_DOUBTFUL.with("file", tops.display());
        self.problems = vec![Problem::new(tops, text.with("cause", why))];
        self.machine = None;
        self.unrecorded.clear();
        self.doubtful = true;
    }

    /// Whether what is known of it is what its files tell: all were read, and are as they were.
    pub(super) fn is_current(&self) -> bool {
        let mut files = self.seen.iter();
        !self.unread && !self.unjudged && files.all(|(file, stamp)| stamp_of(file) == *stamp)
    }

    /// What lay under a file that cannot be read any more is known from before, and so is a name.
    pub(super) fn remember(&mut self, old: &Self) {
        if self.name.is_none() {
            self.name.clone_from(&old.name);
        }
        let unseen = old.below.iter().filter(|(id, _)| self.unseen.contains(id));
        for (disk, below) in unseen {
            let known = self.below.entry(disk.clone()).or_default();
            let more = below.iter().filter(|file| !known.contains(file));
            let more: Vec<_> = more.cloned().collect();
            known.extend(more);
        }
    }

    pub(super) fn misnamed(&self) -> Option<(String, Text)> {
        let mut all = self.problems.iter();
        all.find_map(|p| Some((p.idle_disk.clone()?, p.text.clone())))
    }
}

/// Loads one machine. Sizes that cannot be read now are taken from `before`.
pub(super) fn load(directory: &Path, id: VmId, before: Option<&Machine>, roots: &Roots) -> Entry {
    let (loaded, unseen) = held::failing(|| load_now(directory, id, before, roots));
    Entry {
        unread: unseen.is_some(),
        ..loaded
    }
}

fn load_now(directory: &Path, id: VmId, before: Option<&Machine>, roots: &Roots) -> Entry {
    let folder = directory.join(id.to_string());
    let (definition, tops) = (folder.join(DEFINITION), folder.join(TOPS));
    // Stamps first: a change while we read shows at the next look.
    let mut seen = vec![stamped(&definition), stamped(&tops)];
    let broken = |file: &Path, text: Text, seen| Entry {
        seen,
        machine: None,
        name: name::name_in(&folder, id),
        below: BTreeMap::new(),
        unseen: Vec::new(),
        unrecorded: BTreeMap::new(),
        problems: vec![Problem::new(file, text)],
        vouched: true,
        doubtful: false,
        unread: false,
        unjudged: false,
    };
    let defined = match Definition::load(&definition, id) {
        Ok(it) => it,
        Err(text) => return broken(&definition, text, seen),
    };
    let stored = match Tops::load(&tops) {
        Ok(it) => it,
        Err(e) => {
            let text = match e.kind() {
                io::ErrorKind::NotFound => texts::TOPS_MISSING.text(),
                io::ErrorKind::InvalidData => texts::TOPS_DAMAGED.with("cause", e),
                _ if is_no_file(&e) => {
                    texts::TOPS_DAMAGED.with("cause", format!("cannot be read: {e}"))
                }
                _ => texts::DEFINITION_READ.with("cause", e),
            };
            return broken(&tops, text.with("file", tops.display()), seen);
        }
    };
    for (image, format) in &stored.backing_formats {
        backing::record(image, *format);
    }
    let mut problems = Vec::new();
    let mut disks = Vec::new();
    let (mut below, mut unseen) = (BTreeMap::new(), Vec::new());
    let mut unrecorded = BTreeMap::new();
    let bare = machine(folder.clone(), defined.clone(), stored.clone(), Vec::new());
    let mut relative = BTreeMap::new();
    for entry in &defined.disk {
        let mut disk = disk(entry, &stored);
        let recorded = stored.seen.get(&entry.id);
        // What a foreign file holds is nobody's business.
        let foreign = image::is_foreign(&bare, &disk);
        let now = match foreign || image::is_linked(&bare, &disk) {
            true => None,
            false => {
                let whose = Whose {
                    machine: Some(&bare),
                    disk: &disk.id,
                    sealed: &[],
                };
                let at = At::disk(&bare, &disk);
                let chain = graph::chain_of(&at, whose, &disk.file, disk.format);
                let whole = Some(chain).filter(Chain::is_whole);
                whole.and_then(|chain| SeenTop::of_chain(&chain.layers))
            }
        };
        unseen.extend(now.is_none().then(|| disk.id.clone()));
        let all = recorded
            .cloned()
            .map_or(now.clone(), |seen| Some(seen.with(now.as_ref())));
        if let Some(all) = all {
            seen.extend(all.below.iter().map(|file| stamped(file)));
            below.insert(disk.id.clone(), all.below.clone());
            relative.extend(all.relative.clone().map(|it| (disk.id.clone(), it)));
            if recorded != Some(&all) {
                unrecorded.insert(disk.id.clone(), all);
            }
        }
        seen.push(stamped(&disk.file));
        if roots.admit(&disk.file).is_ok_and(|inside| !inside) {
            let text = roots.outside(&At::new(&defined.name, &disk.id), &disk.file);
            problems.push(Problem::new(&disk.file, text));
        }
        if let Some(message) = idle(entry, &resolved(entry, &stored), &disk) {
            let text = At::new(&defined.name, &disk.id).text(message, &definition);
            let text = text.with("path", entry.path.display());
            let text = text.with("format", entry.format.as_str());
            problems.push(Problem {
                idle_disk: Some(disk.id.clone()),
                ..Problem::new(&definition, text.with("active", disk.file.display()))
            });
        }
        let known = before.and_then(|m| m.disks.iter().find(|d| d.id == disk.id));
        let known = known.map_or(recorded.map_or(0, |seen| seen.size), |d| d.size);
        match (!foreign).then(|| virtual_size(&disk.file, disk.format)) {
            None => disk.size = known,
            Some(Ok(size)) => {
                disk.size = size;
                // A qcow2 file tells by itself whether it is whole.
                let was = recorded.map_or(0, |seen| seen.size);
                if disk.format == Format::Raw && size < was {
                    let text = At::new(&defined.name, &disk.id).text(texts::SHRUNK, &disk.file);
                    let text = text.with("size", size).with("was", was);
                    problems.push(Problem {
                        idle_disk: Some(disk.id.clone()),
                        ..Problem::new(&disk.file, text)
                    });
                }
            }
            Some(Err(e)) => {
                disk.size = known;
                let message = match held::is_silence(&e) {
                    true => texts::FILE_SILENT,
                    false => texts::FILE_FAILED,
                };
                let text = At::new(&defined.name, &disk.id).text(message, &disk.file);
                problems.push(Problem::new(&disk.file, text.with("cause", e)));
            }
        }
        disks.push(disk);
    }
    let machine = machine(folder, defined, stored, disks);
    Entry {
        seen,
        name: Some(machine.name.clone()),
        machine: Some(Arc::new(Machine {
            relative,
            ..machine
        })),
        below,
        unseen,
        unrecorded,
        problems,
        vouched: false,
        doubtful: false,
        unread: false,
        unjudged: false,
    }
}

/// One machine as it was recorded, if it can be read. Its files are not looked at.
pub(super) fn recorded(directory: &Path, id: VmId) -> Option<Machine> {
    let folder = directory.join(id.to_string());
    let defined = Definition::load(&folder.join(DEFINITION), id).ok()?;
    let stored = Tops::load(&folder.join(TOPS)).ok()?;
    let known = |entry| {
        let disk: Disk = disk(entry, &stored);
        let size = stored.seen.get(&disk.id).map_or(0, |seen| seen.size);
        Disk { size, ..disk }
    };
    let disks = defined.disk.iter().map(known).collect();
    Some(machine(folder, defined, stored, disks))
}

fn machine(folder: PathBuf, defined: Definition, stored: Tops, disks: Vec<Disk>) -> Machine {
    let definition = folder.join(DEFINITION);
    let seen = stored.seen.into_iter();
    let relative = seen.filter_map(|(disk, seen)| Some((disk, seen.relative?)));
    let created = stored.imported.or_else(|| modified(&definition));
    Machine {
        id: defined.id,
        overlay_ok: defined.overlay_ok(),
        unmanaged_ok: defined.unmanaged_ok(),
        no_flush_ok: defined.no_flush_ok(),
        sockets: defined.sockets(),
        name: defined.name,
        disks,
        directory: folder,
        definition,
        created: created.unwrap_or(Timestamp::UNIX_EPOCH),
        images: stored.images,
        relative: relative.collect(),
    }
}

/// The active files of a machine that are there, by device and inode.
pub(super) fn file_ids(machine: &Machine) -> Vec<FileId> {
    let disks = machine.disks.iter();
    let ids = disks.filter_map(|disk| stamp_of(&disk.file));
    ids.map(|stamp| (stamp.device, stamp.inode)).collect()
}

/// Whether another process has the active file open for writing, or one of these that lie under it.
pub(super) fn is_written(disk: &Disk, below: &[PathBuf]) -> bool {
    let mut chain = std::iter::once(&disk.file).chain(below);
    chain.any(|file| locks::is_written(file).unwrap_or(false))
}

/// What lies under an active file now.
pub(super) fn chain_of(disk: &Disk) -> Vec<PathBuf> {
    let (layers, _) = chain::readable(&disk.file, disk.format);
    layers.into_iter().skip(1).map(|it| it.file).collect()
}

fn disk(entry: &DiskEntry, stored: &Tops) -> Disk {
    let top = stored.tops.get(&entry.id);
    let file = match top {
        Some(top) if top.file != entry.path => top.file.clone(),
        _ => resolved(entry, stored),
    };
    Disk {
        id: entry.id.clone(),
        file,
        format: top.map_or(entry.format, |t| t.format),
        size: 0,
    }
}

/// Where the path of a disk leads: as was recorded at import, or as it is now where nothing is recorded.
fn resolved(entry: &DiskEntry, stored: &Tops) -> PathBuf {
    let recorded = stored.images.get(&entry.id);
    match recorded.filter(|i| i.named == entry.path) {
        Some(image) => image.file.clone(),
        None => held::canonicalize(&entry.path).unwrap_or_else(|_| entry.path.clone()),
    }
}

/// What is to be said of a path that is neither the active file nor under it, nor in the folder of one of ours that
/// has taken its place there, or of another format than that file is of. Of what cannot be read nothing is said.
fn idle(entry: &DiskEntry, path: &Path, disk: &Disk) -> Option<Message> {
    let as_format = |format| (format != entry.format).then_some(texts::FORMAT_IDLE);
    if path == disk.file {
        return as_format(disk.format);
    }
    let (layers, unreadable) = chain::readable(&disk.file, disk.format);
    let key = held::metadata(path).ok().map(|m| (m.dev(), m.ino()));
    let folders = [
        Some(path.with_file_name(FOLDER)),
        reflink::folder_of(path).ok(),
    ];
    let beside = |file: &Path| {
        let folder = file.ancestors().nth(2);
        let mut folders = folders.iter().flatten();
        folders.any(|of| Some(of.as_path()) == folder)
    };
    if let Some(own) = layers.iter().find(|l| l.file == path || Some(l.id) == key) {
        return as_format(own.format);
    }
    let is_own = unreadable.is_some() || layers.iter().any(|l| beside(&l.file));
    (!is_own).then_some(texts::PATH_IDLE)
}

fn virtual_size(file: &Path, format: Format) -> io::Result<u64> {
    held::ask(file, || {
        let open = held::open(file, false)?;
        space::require_stored(&open)?;
        match format {
            Format::Raw => Ok(open.metadata()?.len().next_multiple_of(SECTOR)),
            Format::Qcow2 => match Header::load(&open)? {
                Ok(header) => Ok(header.size),
                Err(_) => Err(io::Error::other("no readable qcow2 header")),
            },
        }
    })
}

fn stamped(file: &Path) -> (PathBuf, Option<Stamp>) {
    (file.to_owned(), stamp_of(file))
}

fn stamp_of(file: &Path) -> Option<Stamp> {
    held::metadata(file).ok().map(|m| Stamp::of(&m))
}

fn modified(file: &Path) -> Option<Timestamp> {
    let time = held::metadata(file).ok()?.modified().ok()?;
    Timestamp::try_from(time).ok()
}
