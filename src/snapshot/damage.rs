//! Whether the files that sets keep are as they were once frozen (`docs/cut.md` §5): their seals, the look at
//! them, the mark of a set that somebody else has changed, and a person's word that it is good as it is.
//!
//! What this program itself changes (a merge, the names in a header, a mode) is sealed again while the machine
//! is still leased; a look passes over whatever is leased.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::audit::{Event, Written};
use crate::engine::{At, Drivers, EngineError, EngineErrorKind, Kept};
use crate::held;
use crate::id::{JobId, SetId, SnapshotId, VmId};
use crate::inventory::{Damage, Leftover, Seal, Sealed, Snapshot, SnapshotDisk, SnapshotSet};
use crate::snapshot::saga::accept;
use crate::snapshot::saga::answer::Refused;
use crate::snapshot::saga::core::Core;
use crate::snapshot::saga::leases::{Leases, Mode, Resource};
use crate::snapshot::saga::plan::{joined, refused};
use crate::store::{self, Change, State, Store, StoreError};
use crate::text::Text;
use crate::text::catalog::snapshot as texts;

/// How often the files of all sets are looked at while the server runs: others change them, and no file system tells of
/// that in all cases.
const PERIOD: Duration = Duration::from_secs(10);

/// How long a look waits for an operation that only closes its journal.
const CLOSING: Duration = Duration::from_secs(5);

/// A captured disk of which something was changed by somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedDisk {
    /// The set.
    pub set: SetId,
    /// Its name.
    pub set_name: String,
    /// The snapshot of the machine.
    pub snapshot: SnapshotId,
    /// The machine.
    pub machine: VmId,
    /// Its name at the cut.
    pub machine_name: String,
    /// The disk.
    pub disk: String,
    /// The changed files.
    pub files: Vec<PathBuf>,
}

impl DamagedDisk {
    /// That it is so, naming set, machine, disk and file.
    #[must_use]
    pub fn text(&self) -> Text {
        let file = self.files.first().map(PathBuf::as_path);
        texts::DAMAGED
            .with("set", self.set)
            .with("machine", &self.machine_name)
            .with("disk", &self.disk)
            .with("file", file.unwrap_or(Path::new("?")).display())
    }
}

/// The damaged disks of a set.
pub(crate) fn damaged(set: &SnapshotSet) -> impl Iterator<Item = DamagedDisk> {
    let disks = set
        .members
        .iter()
        .flat_map(|m| m.disks.iter().map(move |d| (m, d)));
    disks.filter_map(|(member, disk)| {
        Some(DamagedDisk {
            set: set.id,
            set_name: set.name.clone(),
            snapshot: member.id,
            machine: member.machine,
            machine_name: member.machine_name.clone(),
            disk: disk.id.clone(),
            files: disk.damage.as_ref()?.files.clone(),
        })
    })
}

/// What stands there now; a link itself, which is never as it was sealed.
///
/// # Errors
/// Nothing is there, or it cannot be reached.
pub(crate) fn look(file: &Path) -> io::Result<Seal> {
    Ok(Seal::of(&held::symlink_metadata(file)?))
}

/// Whether the new file is the old one under another name, to which the old name leads by a link.
fn is_moved(old: &Sealed, new: &Sealed) -> bool {
    let key = |file: &Path| held::look_at(file).ok().map(|it| (it.device, it.inode));
    let is_same = |seal: &Seal| (seal.inode, seal.length, seal.modified);
    let there = key(&old.file);
    is_same(&old.seal) == is_same(&new.seal) && there.is_some() && there == key(&new.file)
}

/// The file with what stands there now, inode and owner, for whoever is to accept it.
#[must_use]
pub fn shown(file: &Path) -> String {
    let what = match held::symlink_metadata(file) {
        Ok(meta) if meta.is_symlink() => match held::canonicalize(file) {
            Ok(real) => format!("a symbolic link to {}", shown(&real)),
            Err(e) => format!("a symbolic link: {e}"),
        },
        Ok(meta) => format!("inode {} of user {}", meta.ino(), meta.uid()),
        Err(e) => e.to_string(),
    };
    format!("{} ({what})", file.display())
}

/// The seal of an open file.
///
/// # Errors
/// It does not answer.
pub fn seal_open(open: &File) -> io::Result<Seal> {
    Ok(Seal::of(&open.metadata()?))
}

/// The path under which a file is sealed: links above it resolved, what stands there itself not followed.
pub(crate) fn place(file: &Path) -> PathBuf {
    held::resolve_above(file)
}

/// The seals of the file by that name, or by where it leads now.
pub(crate) fn of_file<'a>(
    seals: impl Iterator<Item = &'a Sealed>,
    file: &Path,
) -> impl Iterator<Item = &'a Sealed> {
    let place = place(file);
    seals.filter(move |s| s.file == file || s.file == place)
}

/// Whether the file is there and not as sealed. One that is not there now may come back as it was. Blocks.
pub fn is_changed(sealed: &Sealed) -> bool {
    look(&sealed.file).is_ok_and(|now| now != sealed.seal)
}

/// Whether what may stand there is still what was left, and no other file.
pub(crate) fn is_left(left: &Leftover) -> bool {
    !left.sealed.as_ref().is_some_and(is_changed)
}

/// Everything that is sealed for snapshots of this machine.
pub(crate) fn known(state: &State, machine: VmId) -> BTreeSet<Sealed> {
    let members = state.sets.values().flat_map(|s| &s.members);
    let disks = members
        .filter(|m| m.machine == machine)
        .flat_map(|m| &m.disks);
    disks.flat_map(|d| d.sealed.iter().cloned()).collect()
}

/// Has `change` look at each captured disk; the sets in which `it changes one.
pub fn of_each_disk(state: &State, mut change: impl FnMut(&mut SnapshotDisk)) -> Vec<Change> {
    let new = state.sets.values().filter_map(|old| {
        let mut new = SnapshotSet::clone(old);
        let disks = new.members.iter_mut().flat_map(|m| &mut m.disks);
        disks.for_each(&mut change);
        (new != **old).then_some(Change::PutSet(new))
    });
    new.collect()
}

/// Seals what is kept of a disk and everything under it, as it is now; none if it is kept in no file.
fn seal(
    drivers: &Drivers,
    kept: Kept<'_>,
    known: &BTreeSet<Sealed>,
) -> Result<Vec<Sealed>, EngineError> {
    match drivers.in_files(kept.disk) {
        true => drivers.files().seal(kept, known),
        false => Ok(Vec::new()),
    }
}

/// What a look has found at one disk.
struct Found {
    set: SetId,
    machine: VmId,
    snapshot: SnapshotId,
    disk: String,
    what: What,
}

enum What {
    /// These are not as they were sealed.
    Changed(Vec<Sealed>),
    /// Its record is of an older version and had no seals.
    Sealed(Vec<Sealed>),
}

/// Looks at the files of the sets that are `wanted`; marks those that were changed, durably, and tells of each
/// in the log and the audit log. What an operation other than `own` holds is passed over. The lines of the audit log
/// are not waited for, for whoever looks may hold machines; who holds none can wait for what this gives.
///
/// # Errors
/// The marks could not be made durable.
pub(crate) async fn notice(
    core: &Arc<Core>,
    own: Option<JobId>,
    wanted: impl Fn(&SnapshotSet) -> bool + Send + Sync + 'static,
) -> Result<Told, StoreError> {
    let wanted = Arc::new(wanted);
    let deadline = tokio::time::Instant::now() + CLOSING;
    let mut released = core.leases.released();
    let found = loop {
        released.mark_unchanged();
        let (shared, wanted) = (Arc::clone(core), Arc::clone(&wanted));
        let compared = move || {
            let state = shared.deps.store.state();
            compare(&state, &shared, &*wanted)
        };
        let found = match tokio::task::spawn_blocking(move || held::look(compared)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::warn!(%error, "Files of snapshot sets were not looked at");
                Vec::new()
            }
            Err(error) => {
                tracing::error!(%error, "Looking at the files of snapshot sets panicked");
                Vec::new()
            }
        };
        if found.is_empty() {
            return Ok(Told(None));
        }
        // Of one that has ended for clients and only closes its journal nothing more is changed.
        let closing = found.iter().any(|f| {
            let holder = core.leases.holder(Resource::Machine(f.machine));
            holder.is_some_and(|h| h.is_closing() && Some(h.job) != own && core.has_ended(h.job))
        });
        let next = tokio::time::timeout_at(deadline, released.changed());
        if !closing || next.await.is_err() {
            break found;
        }
    };
    let (members, now) = (core.leases.clone(), core.deps.clock.now());
    let marked = store::decide(&*core.deps.store, move |state| {
        Ok::<_, Infallible>(mark(state, found, &members, own, now))
    });
    let Ok(alerts) = marked.await?;
    for disk in &alerts {
        tracing::warn!(set = %disk.set, "{}", disk.text().english());
    }
    let audit = core.deps.audit.clone();
    // No task that a stop waits for: it waits for the lines themselves.
    let lines = tokio::spawn(async move {
        for disk in alerts {
            let mut place = audit.place();
            place.wait().await;
            let written = place.note(&Event::SetDamaged {
                set: disk.set.to_string(),
                machine: disk.machine_name,
                disk: disk.disk,
                files: disk.files,
            });
            written.await;
        }
    });
    Ok(Told(Some(lines)))
}

/// The lines of the audit log about what a look has found, on their way.
pub(crate) struct Told(Option<JoinHandle<()>>);

impl Told {
    /// Waits until they are written.
    pub(crate) async fn written(self) {
        if let Some(lines) = self.0 {
            let _panicked = lines.await;
        }
    }
}

fn compare(state: &State, core: &Core, wanted: impl Fn(&SnapshotSet) -> bool) -> Vec<Found> {
    let (drivers, spaces) = (&core.deps.storage, &core.spaces);
    // Only what has no seals yet needs them.
    let machines = LazyCell::new(|| core.deps.compute.machines());
    let mut seen: BTreeMap<&Path, Option<Seal>> = BTreeMap::new();
    let mut found = Vec::new();
    let look_at = |file: &Path| {
        let meta = held::symlink_metadata(file);
        let meta = meta.inspect_err(|e| spaces.lose(file, e)).ok()?;
        spaces.note(file, &meta);
        Some(Seal::of(&meta))
    };
    for set in state.sets.values().filter(|set| wanted(set)) {
        for (member, disk) in set
            .members
            .iter()
            .flat_map(|m| m.disks.iter().map(move |d| (m, d)))
        {
            let what = if !drivers.in_files(disk) {
                None
            } else if disk.sealed.is_empty() {
                let at = &At::new(&member.machine_name, &disk.id);
                let machine = machines.get(&member.machine).map(Arc::as_ref);
                let kept = Kept { at, machine, disk };
                let sealed = seal(drivers, kept, &BTreeSet::new()).unwrap_or_default();
                (!sealed.is_empty()).then_some(What::Sealed(sealed))
            } else {
                let changed = disk.sealed.iter().filter(|sealed| {
                    let now = seen
                        .entry(&sealed.file)
                        .or_insert_with(|| look_at(&sealed.file));
                    now.is_some_and(|now| now != sealed.seal)
                });
                let changed: Vec<_> = changed.cloned().collect();
                (!changed.is_empty()).then_some(What::Changed(changed))
            };
            found.extend(what.map(|what| Found {
                set: set.id,
                machine: member.machine,
                snapshot: member.id,
                disk: disk.id.clone(),
                what,
            }));
        }
    }
    found
}

/// A set that keeps files by links.
struct Resolved {
    id: SetId,
    /// Where each link leads.
    files: BTreeMap<PathBuf, PathBuf>,
}

impl Resolved {
    /// The set of this moment with files in place of links that lead to them.
    fn now(&self, state: &State) -> Option<SnapshotSet> {
        let old = state.sets.get(&self.id)?;
        let mut new = SnapshotSet::clone(old);
        for disk in new.members.iter_mut().flat_map(|m| &mut m.disks) {
            if let Some(file) = self.files.get(&disk.file) {
                disk.file.clone_from(file);
            }
        }
        (new != **old).then_some(new)
    }
}

fn resolved(drivers: &Drivers, set: &SnapshotSet) -> Option<Resolved> {
    let mut files = BTreeMap::new();
    for disk in set.members.iter().flat_map(|m| &m.disks) {
        if !drivers.in_files(disk) || !is_link(&disk.file) {
            continue;
        }
        let real = held::canonicalize(&disk.file);
        let is_own = |real: &PathBuf| {
            disk.sealed
                .iter()
                .any(|s| s.file == *real && !is_changed(s))
        };
        if let Some(real) = real.ok().filter(is_own) {
            files.insert(disk.file.clone(), real);
        }
    }
    let id = set.id;
    (!files.is_empty()).then_some(Resolved { id, files })
}

fn is_link(file: &Path) -> bool {
    held::symlink_metadata(file).is_ok_and(|m| m.is_symlink())
}

/// What is still so by the newest records, and of each set with new damage one disk to tell of.
fn mark(
    state: &State,
    found: Vec<Found>,
    members: &Leases,
    own: Option<JobId>,
    now: Timestamp,
) -> (Vec<Change>, Vec<DamagedDisk>) {
    let mut sets: BTreeMap<SetId, SnapshotSet> = BTreeMap::new();
    let mut alerts: BTreeMap<SetId, SnapshotId> = BTreeMap::new();
    for one in found {
        let Some(old) = state.sets.get(&one.set) else {
            continue;
        };
        let mut set = sets
            .remove(&one.set)
            .unwrap_or_else(|| SnapshotSet::clone(old));
        if let Some(member) = set.members.iter_mut().find(|m| m.id == one.snapshot) {
            let holder = members.holder(Resource::Machine(member.machine));
            let free = holder.is_none_or(|h| Some(h.job) == own);
            let disk = member.disks.iter_mut().find(|d| d.id == one.disk);
            if free && disk.is_some_and(|disk| take_up(disk, one.what, now)) {
                alerts.entry(one.set).or_insert(one.snapshot);
            }
        }
        sets.insert(one.set, set);
    }
    let told = alerts.iter().filter_map(|(set, snapshot)| {
        let set = sets.get(set)?;
        damaged(set).find(|d| d.snapshot == *snapshot)
    });
    let told = told.collect();
    let changed = sets.into_values();
    let changed = changed.filter(|new| state.sets.get(&new.id).is_some_and(|old| **old != *new));
    (changed.map(Change::PutSet).collect(), told)
}

/// Takes up what was found at the disk; whether it is new damage.
fn take_up(disk: &mut SnapshotDisk, what: What, now: Timestamp) -> bool {
    match what {
        What::Sealed(sealed) => {
            if disk.sealed.is_empty() {
                disk.sealed = sealed;
            }
            false
        }
        What::Changed(changed) => {
            let known = disk.damage.as_ref().map(|d| d.files.clone());
            let known = known.unwrap_or_default();
            // Sealed again meanwhile: it was our own change.
            let still = changed.into_iter().filter(|s| disk.sealed.contains(s));
            let new: Vec<_> = still
                .map(|s| s.file)
                .filter(|f| !known.contains(f))
                .collect();
            let is_new = !new.is_empty();
            if is_new {
                let damage = disk.damage.get_or_insert(Damage {
                    files: Vec::new(),
                    noticed: now,
                });
                damage.files.extend(new);
            }
            is_new
        }
    }
}

/// The refusals to work with those snapshots of a set of which disks are damaged.
pub(crate) fn refusals(set: &SnapshotSet, wanted: &[Snapshot]) -> BTreeMap<SnapshotId, Refused> {
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for disk in damaged(set).filter(|d| wanted.iter().any(|m| m.id == d.snapshot)) {
        let refused = Refused::InvalidState(disk.text());
        all.entry(disk.snapshot).or_default().push(refused);
    }
    let all = all.into_iter();
    all.filter_map(|(id, refused)| Some((id, joined(refused)?)))
        .collect()
}

/// Looks at every set now; whoever waits for the lines of the audit log holds no machine.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn look_at_all(core: &Arc<Core>) -> Result<Told, StoreError> {
    let noticed = notice(core, None, |_| true).await;
    core.spaces.keep(&core.deps.store.state());
    noticed.inspect_err(|e| {
        core.store_failed(e);
    })
}

/// Names the files that sets of an older version keep by symbolic links by where these lead, if that is what was
/// sealed.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn resolve_links(core: &Arc<Core>) -> Result<(), StoreError> {
    let state = core.deps.store.state();
    let mut found = Vec::new();
    for set in state.sets.values() {
        // One by one: where files of one do not answer, the others are resolved all the same.
        let (id, set, shared) = (set.id, Arc::clone(set), Arc::clone(core));
        match accept::answered(move || resolved(&shared.deps.storage, &set)).await {
            Ok(new) => found.extend(new),
            Err(error) => {
                let why = error.refused(core);
                tracing::warn!(set = %id, why = why.text().english(), "Whether its files are named by links is looked at by the next start");
            }
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = found.iter().map(|set| set.id.to_string()).collect();
    tracing::info!(
        sets = names.join(" "),
        "Their files are named by where links lead"
    );
    // An operation that recovery has left at work may have changed a set meanwhile.
    let decide = move |state: &State| {
        let now = found.iter().filter_map(|one| one.now(state));
        now.map(Change::PutSet).collect()
    };
    core.deps.store.transact(Box::new(decide)).await.map(|_| ())
}

/// Looks at the files of every set again and again until `stop`, and marks sets that were changed.
pub(crate) async fn watch(core: &Arc<Core>, stop: CancellationToken) {
    let due = || async {
        until_any_set(&*core.deps.store).await;
        tokio::time::sleep(PERIOD).await;
    };
    while stop.run_until_cancelled(due()).await.is_some() {
        if let Err(error) = look_at_all(core).await {
            tracing::warn!(%error, "A look at the files of snapshot sets could not be recorded");
        }
    }
}

/// Waits until there is a set.
async fn until_any_set(store: &dyn Store) {
    let mut commits = store.subscribe();
    while store.state().sets.is_empty() && commits.next().await.is_some() {}
}

/// A person says that the disk is good as it is now.
///
/// # Errors
/// It is gone or held, a file of it cannot be read, the store cannot be written, or the audit log takes no line.
pub(crate) async fn accept_damage(
    core: Arc<Core>,
    wanted: DamagedDisk,
) -> Result<(String, Written), Refused> {
    let line = core.deps.audit.reserve().await;
    let line = line.map_err(Refused::InvalidState)?;
    let held = [
        (Resource::Set(wanted.set), Mode::Exclusive),
        (Resource::Machine(wanted.machine), Mode::Exclusive),
    ];
    let doing = texts::ACCEPTING.with("set", wanted.set);
    let lease = core.leases.lease(JobId::random(), doing, &held);
    let _lease = lease.map_err(|busy| Refused::InvalidState(core.busy(&busy)))?;
    let gone = || Refused::InvalidState(texts::NO_SET.with("set", wanted.set));
    let state = core.deps.store.state();
    let (_, snapshot) = state.snapshot(wanted.snapshot).ok_or_else(gone)?;
    let disk = snapshot.disks.iter().find(|d| d.id == wanted.disk);
    let disk = disk.cloned().ok_or_else(gone)?;
    let at = At::new(&wanted.machine_name, &wanted.disk);
    let machine = core.deps.compute.machine(wanted.machine);
    let (files, shared) = (wanted.files.clone(), Arc::clone(&core));
    let sealed = accept::answered(move || {
        let kept = Kept {
            at: &at,
            machine: machine.as_deref(),
            disk: &disk,
        };
        let sealed = seal(&shared.deps.storage, kept, &BTreeSet::new())?;
        // What was told to whoever accepts is what was sealed; a header may name another file now.
        let is_known = |new: &Sealed| {
            let mut old = disk.sealed.iter();
            old.any(|old| old.file == new.file || is_moved(old, new)) || files.contains(&new.file)
        };
        if let Some(new) = sealed.iter().find(|new| !is_known(new)) {
            let text = texts::ACCEPT_UNTOLD.with("file", shown(&new.file));
            return Err(EngineError {
                kind: EngineErrorKind::Unsupported,
                text: text.with("disk", &disk.id),
            });
        }
        let files: Vec<_> = files.iter().map(|f| shown(f)).collect();
        Ok((sealed, files.join(", ")))
    });
    let sealed = sealed.await.map_err(|e| e.refused(&core))?;
    let (sealed, files) = sealed.map_err(refused)?;
    let (set, snapshot, id) = (wanted.set, wanted.snapshot, wanted.disk.clone());
    let accepted = core.deps.store.transact(Box::new(move |state| {
        let Some(old) = state.sets.get(&set) else {
            return Vec::new();
        };
        let mut new = SnapshotSet::clone(old);
        let member = new.members.iter_mut().find(|m| m.id == snapshot);
        let disk = member.and_then(|m| m.disks.iter_mut().find(|d| d.id == id));
        if let Some(disk) = disk {
            disk.damage = None;
            disk.sealed = sealed;
        }
        vec![Change::PutSet(new)]
    }));
    accepted.await.map_err(|e| core.store_failed(&e))?;
    tracing::warn!(set = %wanted.set, machine = wanted.machine_name, disk = wanted.disk, files, "A damaged disk is accepted as it is");
    let written = line.note(&Event::DamageAccepted {
        set: wanted.set.to_string(),
        machine: wanted.machine_name.clone(),
        disk: wanted.disk.clone(),
    });
    Ok((files, written))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use jiff::SignedDuration;

    use super::*;
    use crate::id::CollectionId;
    use crate::inventory::{Format, SetKind};
    use crate::store::memory::MemoryStore;

    #[tokio::test(start_paused = true)]
    async fn no_file_is_looked_at_until_there_is_a_set() {
        let store = MemoryStore::new();
        let mut any = std::pin::pin!(until_any_set(&store));
        assert!(tokio::time::timeout(6 * PERIOD, &mut any).await.is_err());
        let other = Change::RemoveCollection(CollectionId::random());
        store.transact(Box::new(|_| vec![other])).await.unwrap();
        assert!(tokio::time::timeout(6 * PERIOD, &mut any).await.is_err());
        let set = Change::PutSet(SnapshotSet {
            id: SetId::random(),
            name: "nightly".to_owned(),
            kind: SetKind::Standard,
            collection: None,
            created: Timestamp::UNIX_EPOCH,
            members: Vec::new(),
            window: SignedDuration::ZERO,
            owner: "ann".to_owned(),
            job: JobId::random(),
        });
        store.transact(Box::new(|_| vec![set])).await.unwrap();
        assert!(tokio::time::timeout(PERIOD, any).await.is_ok());
    }

    #[test]
    fn a_record_without_seals_is_read_and_not_damaged() {
        let old =
            r#"{"id":"disk0","file":"/i/a.raw","format":"raw","size":512,"driver":"overlay"}"#;
        let disk: SnapshotDisk = serde_json::from_str(old).unwrap();
        assert_eq!((disk.sealed.len(), disk.damage.clone()), (0, None));
        assert_eq!(serde_json::to_string(&disk).unwrap(), old);
    }

    #[test]
    fn a_write_and_a_mode_and_another_file_break_the_seal_and_a_read_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().canonicalize().unwrap().join("a.raw");
        fs::write(&file, [1; 512]).unwrap();
        let disk = SnapshotDisk {
            id: "disk0".into(),
            file: file.clone(),
            format: Format::Raw,
            size: 512,
            driver: "overlay".into(),
            sealed: Vec::new(),
            damage: None,
        };
        // The clock of file times is coarse: comes back when it has moved on.
        let tick = || {
            let then = look(&file).unwrap().changed;
            let probe = folder.path().join("probe");
            loop {
                fs::write(&probe, "x").unwrap();
                if look(&probe).unwrap().changed > then {
                    break;
                }
            }
        };
        let fresh = || {
            let kept = Kept {
                at: &At::new("m", "disk0"),
                machine: None,
                disk: &disk,
            };
            let sealed = seal(&Drivers::new(Vec::new()), kept, &BTreeSet::new()).unwrap();
            tick();
            sealed.first().unwrap().clone()
        };
        let sealed = fresh();
        fs::read(&file).unwrap();
        assert!(!is_changed(&sealed));
        fs::write(&file, [2; 512]).unwrap();
        assert!(is_changed(&sealed));
        let sealed = fresh();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o444);
        fs::set_permissions(&file, mode).unwrap();
        assert!(is_changed(&sealed));
        let sealed = fresh();
        let other = folder.path().join("b.raw");
        fs::write(&other, [1; 512]).unwrap();
        fs::rename(&other, &file).unwrap();
        assert!(is_changed(&sealed));
        fs::remove_file(&file).unwrap();
        assert!(!is_changed(&sealed), "it may come back");
    }

    #[test]
    fn damage_is_marked_once_and_stays_until_it_is_accepted() {
        let sealed = Sealed {
            file: "/i/a.raw".into(),
            seal: Seal {
                inode: 1,
                length: 2,
                modified: (3, 4),
                changed: (5, 6),
            },
        };
        let mut disk = SnapshotDisk {
            id: "disk0".into(),
            file: "/i/a.raw".into(),
            format: Format::Raw,
            size: 512,
            driver: "overlay".into(),
            sealed: vec![sealed.clone()],
            damage: None,
        };
        let now = Timestamp::UNIX_EPOCH;
        let changed = || What::Changed(vec![sealed.clone()]);
        assert!(take_up(&mut disk, changed(), now));
        assert!(!take_up(&mut disk, changed(), now), "told once");
        let files = &disk.damage.as_ref().unwrap().files;
        assert_eq!(files.as_slice(), std::slice::from_ref(&sealed.file));
        // Sealed again between the look and the mark: our own change.
        disk.damage = None;
        disk.sealed.clear();
        assert!(!take_up(&mut disk, changed(), now));
        assert_eq!(disk.damage, None);
    }
}
