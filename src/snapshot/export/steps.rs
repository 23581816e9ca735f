//! The steps of an export in order, and their undos: `unread` lets go of the files, `hide` takes the final name back,
//! and `remove` removes everything that was written.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::document;
use crate::engine;
use crate::engine::{At, EngineError, EngineErrorKind, Flat, Kept, Read, Target};
use crate::held::{self, Folder};
use crate::inventory::{Snapshot, SnapshotDisk, SnapshotSet};
use crate::job::Worker;
use crate::snapshot::copies;
use crate::snapshot::directory::Place;
use crate::snapshot::export::manifest::{self, Definition, Manifest, Written};
use crate::snapshot::export::{Export, Made, Reading, Record, set_of};
use crate::snapshot::saga::claims::FileUser;
use crate::snapshot::saga::core::Core;
use crate::snapshot::saga::kind::{Step, Work, points};
use crate::snapshot::saga::operation::Operation;
use crate::text::catalog::snapshot as texts;
use crate::text::{Argument, Message, Text};

/// Up to and including the commit record, which is the last step.
pub(crate) const TAKE: &[Step<Export>] = &[
    Step {
        name: "read",
        percent: 1,
        doing: texts::EXPORT_READING,
        work: Work::Parts {
            run: read,
            undo: Some(unread),
        },
    },
    Step {
        name: "copy",
        percent: COPY.0,
        doing: texts::EXPORT_COPYING,
        work: Work::Parts {
            run: copy,
            undo: Some(remove),
        },
    },
    Step {
        name: "manifest",
        percent: COPY.1,
        doing: texts::EXPORT_MANIFEST,
        work: Work::Parts {
            run: describe,
            undo: None, // `remove` takes it too
        },
    },
    Step {
        name: "reveal",
        percent: 96,
        doing: texts::EXPORT_REVEALING,
        work: Work::Parts {
            run: reveal,
            undo: Some(hide),
        },
    },
    Step {
        name: "commit",
        percent: 97,
        doing: texts::EXPORT_COMMITTING,
        work: Work::Record(|_| Record::Exported),
    },
];

/// After the commit point.
pub(crate) const FINISH: &[Step<Export>] = &[
    Step {
        name: "publish",
        percent: 98,
        doing: texts::EXPORT_PUBLISHING,
        work: Work::Publish,
    },
    Step {
        name: "clear",
        percent: 99,
        doing: texts::CLEARING,
        work: Work::Clear,
    },
];

/// Progress when the copy begins and ends.
const COPY: (u8, u8) = (2, 94);
const MIB: u64 = 1 << 20;

/// Every fail point of an export, in the order in which they are passed; those of the undo last.
pub static FAILPOINTS: LazyLock<Vec<&'static str>> = LazyLock::new(points::<Export>);

type Op = Operation<Export>;

/// Takes every file of every chain for reading. Destroying another set may meanwhile have given a disk another
/// file: then once more.
fn read(op: &Op, (): &()) -> Result<(), EngineError> {
    let user = FileUser {
        job: op.kind.intent.job,
        doing: texts::EXPORTING.with("set", op.kind.intent.set.id),
    };
    loop {
        let set = set_now(op)?;
        let files = files(op, &set)?;
        let guard = op.core.claims.read(&files, user.clone(), |in_use| {
            progress(op, 1, in_use.text());
            go_on(op)
        });
        let Some(guard) = guard else {
            return Ok(()); // cancelled
        };
        if set_now(op)? == set {
            *op.kind.reading() = Reading {
                set: Some(set),
                _guard: Some(guard),
            };
            return Ok(());
        }
    }
}

fn unread(op: &Op, (): &()) -> Result<(), EngineError> {
    *op.kind.reading() = Reading::default();
    Ok(())
}

fn set_now(op: &Op) -> Result<SnapshotSet, EngineError> {
    let set = set_of(&op.core.deps.store.state(), op.kind.intent.set.id);
    set.map_err(|text| EngineError {
        kind: EngineErrorKind::Missing,
        text,
    })
}

fn files(op: &Op, set: &SnapshotSet) -> Result<Vec<PathBuf>, EngineError> {
    let mut files = Vec::new();
    for member in set.members.iter().filter(|_| op.kind.intent.storage) {
        for disk in &member.disks {
            let sources = reading(&op.core, member, disk, |read, kept| read.sources(kept))?;
            files.extend(sources);
        }
    }
    files.sort_unstable();
    files.dedup();
    Ok(files)
}

/// Has the driver of a disk read what the snapshot keeps of it.
fn reading<T>(
    core: &Core,
    member: &Snapshot,
    disk: &SnapshotDisk,
    read: impl FnOnce(&dyn Read, Kept<'_>) -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    let machine = core.deps.compute.machine(member.machine);
    let kept = Kept {
        at: &At::new(&member.machine_name, &disk.id),
        machine: machine.as_deref(),
        disk,
    };
    match core.deps.storage.reader(disk) {
        Some(reader) => read(reader, kept),
        None => Err(EngineError {
            kind: EngineErrorKind::Unsupported,
            text: texts::EXPORT_NO_CONTENT.with("driver", &disk.driver),
        }),
    }
}

fn copy(op: &Op, (): &()) -> Result<(), EngineError> {
    let Some(set) = op.kind.reading().set.clone() else {
        return Ok(()); // cancelled before
    };
    let place = open(op)?;
    let temporary = op.kind.intent.temporary();
    let make = || {
        let here = place.make(&temporary)?;
        let made = Made {
            origin: Some(here.origin()?),
            held: Some(here.again()?),
        };
        Ok((here, made))
    };
    let (here, made) = make().map_err(|e| failed(op, &e))?;
    let origin = made.origin;
    *op.kind.made() = made;
    if let Some(folder) = origin {
        op.record(&Record::Made { folder })?;
    }
    for member in &set.members {
        op.kind.meter.plan(member.machine, weights(op, member));
    }
    op.kind.meter.begin(op.core.deps.clock.elapsed());
    for member in &set.members {
        let Some(written) = copy_member(op, &here, member)? else {
            return Ok(()); // cancelled
        };
        op.kind.written().insert(member.machine, written);
    }
    // What stands from here on is durable and needs the chains no more.
    unread(op, &())
}

/// The bytes of each disk of a member, as far as they are known before: twice those of its files, for it is written and
/// read back.
fn weights(op: &Op, member: &Snapshot) -> Vec<(PathBuf, u64)> {
    let disks = member.disks.iter().filter(|_| op.kind.intent.storage);
    let weight = |disk: &SnapshotDisk| {
        let bytes = reading(&op.core, member, disk, |read, kept| Ok(read.weight(kept)));
        let bytes = bytes.unwrap_or_default();
        (PathBuf::from(&disk.id), bytes.saturating_mul(2))
    };
    disks.map(weight).collect()
}

/// Copies one machine into its folder. `None`: cancelled.
fn copy_member(op: &Op, here: &Folder, member: &Snapshot) -> Result<Option<Written>, EngineError> {
    let folder = here.make_new(member.machine.to_string(), 0o750);
    let folder = folder.map_err(|e| failed(op, &e))?;
    let mut disks = BTreeMap::new();
    for disk in member.disks.iter().filter(|_| op.kind.intent.storage) {
        let mut step = |done: u64, of: u64| {
            told(op, member, disk, (done, of));
            go_on(op)
        };
        let Some(flat) = copy_disk(op, &folder, member, disk, &mut step)? else {
            return Ok(None);
        };
        disks.insert(disk.id.clone(), flat);
    }
    let definition = define(op, &folder, member, &disks)?;
    folder.sync().map_err(|e| failed(op, &e))?;
    Ok(Some(Written { definition, disks }))
}

/// Shows how far the copy of a disk is: the first half of its bytes are written, the second half read back.
fn told(op: &Op, member: &Snapshot, disk: &SnapshotDisk, (done, of): (u64, u64)) {
    let (meter, machines) = (&op.kind.meter, op.kind.intent.set.members.len());
    // While it is looked what there is, nothing is known yet.
    if of > 1 || done > 0 {
        let now = op.core.deps.clock.elapsed();
        meter.step(member.machine, Path::new(&disk.id), (done, of), now);
    }
    let bytes = of / 2;
    let (message, done) = match done > bytes {
        true => (texts::EXPORT_CHECK, done - bytes),
        false => (texts::EXPORT_DISK, done),
    };
    let text = message
        .with("machine", &member.machine_name)
        .with("disk", &disk.id)
        .with("done", done / MIB)
        .with("of", bytes.div_ceil(MIB));
    let percent = meter.percent(COPY, machines).unwrap_or(COPY.0);
    progress(op, percent, meter.told(text, machines));
}

fn copy_disk(
    op: &Op,
    folder: &Folder,
    member: &Snapshot,
    disk: &SnapshotDisk,
    step: engine::Step<'_>,
) -> Result<Option<Flat>, EngineError> {
    let name = manifest::disk_file(member.machine, &disk.id);
    let shown = op.kind.intent.directory.path();
    let shown = shown.join(op.kind.intent.target()).join(&name);
    let target = Target {
        file: &folder.place(Path::new(&name).file_name().unwrap_or_default()),
        shown: &shown,
    };
    let reserve = &op.core.deps.exports.reserve;
    reading(&op.core, member, disk, |read, kept| {
        read.copy(kept, target, reserve, step)
    })
}

/// Writes the machine's definition as it was at the cut; with disks, they are the exported files.
fn define(
    op: &Op,
    folder: &Folder,
    member: &Snapshot,
    disks: &BTreeMap<String, Flat>,
) -> Result<Definition, EngineError> {
    let unreadable = |cause: Argument| EngineError {
        kind: EngineErrorKind::Failed,
        text: texts::EXPORT_DEFINITION
            .with("machine", &member.machine_name)
            .with("cause", cause),
    };
    let text = copies::read(member).map_err(|copy| EngineError {
        kind: EngineErrorKind::Unsupported,
        text: copy.text,
    })?;
    let text = match op.kind.intent.storage {
        true => {
            let files = disks.keys().map(|id| (id.clone(), format!("{id}.qcow2")));
            let compute = &op.core.deps.compute;
            let text = compute.definition_with(&text, &files.collect());
            text.map_err(|e| unreadable(e.into()))?
        }
        false => text,
    };
    let file = folder.place(manifest::DEFINITION);
    let written = write(folder, manifest::DEFINITION, text.as_bytes());
    written.map_err(|e| failed(op, &e))?;
    Ok(Definition {
        file: format!("{}/{}", member.machine, manifest::DEFINITION),
        sha256: sha256_of(&file).map_err(|e| failed(op, &e))?,
    })
}

fn describe(op: &Op, (): &()) -> Result<(), EngineError> {
    let intent = &op.kind.intent;
    let by = (intent.exported, intent.owner.as_str());
    let manifest = Manifest::new(intent.job, by, &intent.set, op.kind.written().clone());
    let written = || {
        let made = op.kind.made();
        let here = made.held.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let bytes = serde_json::to_vec_pretty(&manifest).map_err(io::Error::other)?;
        write(here, manifest::NAME, &bytes)?;
        here.sync()
    };
    written().map_err(|e| failed(op, &e))
}

fn reveal(op: &Op, (): &()) -> Result<(), EngineError> {
    let intent = &op.kind.intent;
    let place = open(op)?;
    let made = op.kind.made().origin;
    let made = made.ok_or_else(|| failed(op, &io::ErrorKind::NotFound.into()))?;
    let renamed = place.rename(&intent.temporary(), &intent.target(), &made);
    renamed.map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => EngineError {
            kind: EngineErrorKind::Failed,
            text: intent.exists(),
        },
        _ => failed(op, &e),
    })
}

/// Gives what was revealed its temporary name back, if it is what was made.
fn hide(op: &Op, (): &()) -> Result<(), EngineError> {
    let intent = &op.kind.intent;
    let (Some(made), Some(place)) = (op.kind.made().origin, open_if_there(op)?) else {
        return Ok(());
    };
    match place.rename(&intent.target(), &intent.temporary(), &made) {
        Err(e) if held::foreign(&e).is_some() => Ok(()), // another's
        Err(e) => match e.kind() {
            io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::AlreadyExists => Ok(()),
            _ => Err(failed(op, &e)),
        },
        Ok(()) => Ok(()),
    }
}

/// Removes what was written: all that is in the folder that this process has made, wherever that lies now, and the folder
/// itself under its own names. Of a folder that nothing tells to be that one, only an empty one.
fn remove(op: &Op, (): &()) -> Result<(), EngineError> {
    let place = open_if_there(op)?;
    let left = discard(op, place.as_ref()).map_err(|e| failed(op, &e))?;
    if let Some(left) = &left {
        tracing::warn!(job = %op.kind.intent.job, "{}", left.english());
    }
    *op.kind.left_behind() = left;
    Ok(())
}

/// What of it had to stay.
fn discard(op: &Op, place: Option<&Place>) -> io::Result<Option<Text>> {
    let intent = &op.kind.intent;
    let temporary = intent.temporary();
    let told = |message: Message| {
        let folder = intent.directory.path().join(&temporary);
        Some(message.with("folder", folder.display()))
    };
    let mut made = op.kind.made();
    // One that was removed has no name any more.
    let is_there = |held: &Folder| io::Result::Ok(held.identity()?.links > 0);
    if let Some(held) = &made.held
        && is_there(held)?
    {
        held.empty()?;
    }
    let Some(place) = place else {
        return Ok(made.origin.and_then(|_| told(texts::EXPORT_ASTRAY)));
    };
    let Some(origin) = made.origin else {
        let stays = place.remove_empty(&temporary)?;
        return Ok(told(texts::EXPORT_NOT_OURS).filter(|_| stays));
    };
    for name in [&temporary, &intent.target()] {
        if place.remove(name, &origin)? {
            *made = Made::default();
            return Ok(None);
        }
    }
    Ok(match &made.held {
        Some(held) => told(texts::EXPORT_MOVED).filter(|_| is_there(held).unwrap_or(true)),
        None => told(texts::EXPORT_ASTRAY),
    })
}

fn open(op: &Op) -> Result<Place, EngineError> {
    let directory = &op.kind.intent.directory;
    directory.here().map_err(|e| unusable(op, &e))
}

/// The directory, whatever stands in its place now. One that is gone, or that another one stands in the place of after
/// a start, holds nothing of ours.
fn open_if_there(op: &Op) -> Result<Option<Place>, EngineError> {
    match op.kind.intent.directory.held() {
        Ok(place) => Ok(Some(place)),
        Err(e) if EngineErrorKind::of(&e) == EngineErrorKind::Missing => Ok(None),
        Err(e) if held::foreign(&e).is_some() => Ok(None),
        Err(e) => Err(unusable(op, &e)),
    }
}

fn unusable(op: &Op, error: &io::Error) -> EngineError {
    EngineError {
        kind: EngineErrorKind::of(error),
        text: op.kind.intent.directory.refusal(error),
    }
}

fn failed(op: &Op, error: &io::Error) -> EngineError {
    let directory = op.kind.intent.directory.path();
    let message = match EngineErrorKind::of(error) {
        EngineErrorKind::Full => texts::EXPORT_FULL,
        _ => texts::EXPORT_WRITE,
    };
    EngineError {
        kind: EngineErrorKind::of(error),
        text: message
            .with("directory", directory.display())
            .with("cause", error),
    }
}

/// Of the file as it is read back.
fn sha256_of(file: &Path) -> io::Result<String> {
    Ok(document::sha256(&fs::read(file)?))
}

/// Writes a file into a folder of ours, durably but for its name. An older attempt is replaced.
fn write(folder: &Folder, name: &str, bytes: &[u8]) -> io::Result<()> {
    folder.remove_ours(name)?;
    let mut file = folder.create_new(name, 0o640)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn go_on(op: &Op) -> ControlFlow<()> {
    match op.worker.as_ref().and_then(Worker::cancelled) {
        Some(_) => ControlFlow::Break(()),
        None => ControlFlow::Continue(()),
    }
}

fn progress(op: &Op, percent: u8, status: Text) {
    if let Some(worker) = &op.worker {
        worker.progress(percent, status);
    }
}
