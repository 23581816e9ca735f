//! For the check-up and the commands on machines: which files and journals are in use, and by whom, and the small
//! repairs that need no journal of their own.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use crate::audit::{About, Event};
use crate::engine;
use crate::engine::{At, EngineError};
use crate::held::{self, Folder, Way};
use crate::id::{JobId, VmId};
use crate::inventory::{Ended, Ending, Seal, SnapshotDisk, What};
use crate::snapshot::coordinator::Coordinator;
use crate::snapshot::damage;
use crate::snapshot::destroy;
use crate::snapshot::forgotten::{self, Forgotten};
use crate::snapshot::kinds::KINDS;
use crate::snapshot::known::Known;
use crate::snapshot::orphans;
use crate::snapshot::saga::accept::{self, panicked};
use crate::snapshot::saga::answer::Refused;
use crate::snapshot::saga::core::{Core, JOURNALS};
use crate::snapshot::saga::journals::{self, InFlight, Read};
use crate::snapshot::saga::leases::{Holder, Mode, Resource};
use crate::snapshot::saga::plan;
use crate::snapshot::saga::recovery::RecoveryError;
use crate::store::record::SETS;
use crate::store::{Change, State};
use crate::text::Text;
use crate::text::catalog::snapshot as texts;

/// A journal of an operation that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenJournal {
    /// The file.
    pub file: PathBuf,
    /// What the operation does, in words, and its job; or why the journal cannot be understood.
    pub told: Result<(String, JobId), String>,
    /// The machines that its guard had to let go, by name; and those of them that have not said that they go on.
    pub let_go: (Vec<String>, Vec<String>),
}

/// Why a file was not moved aside.
#[derive(Debug, thiserror::Error)]
pub enum SetAside {
    /// It does not lie in `sets/` of the data directory: it may be another's.
    #[error("{0} does not lie in sets/ of the data directory")]
    NotOurs(PathBuf),
    /// A machine that was imported meanwhile may need it.
    #[error("{0}")]
    Needed(String),
    /// It could not be moved.
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
}

/// What keeps a machine in the library: the snapshot sets and collections that hold it, in words.
#[must_use]
pub fn needing(state: &State, id: VmId) -> Vec<String> {
    let sets = state.sets.values();
    let sets = sets.filter(|set| set.members.iter().any(|m| m.machine == id));
    let sets = sets.map(|set| format!("snapshot set `{}` {}", set.name, set.id));
    let collections = state.collections.values();
    let collections = collections.filter(|c| c.machines.contains(&id));
    let collections = collections.map(|c| format!("collection `{}` {}", c.name, c.id));
    sets.chain(collections).collect()
}

/// What the history tells of a machine that has left the library.
#[must_use]
pub fn removed(machine: VmId, name: &str, started: Timestamp, ended: Timestamp) -> Ended {
    Ended {
        what: What::RemoveMachine,
        outcome: Ending::Completed,
        job: None,
        user: "vm remove".to_owned(),
        about: About::default().machine(machine, name),
        started,
        ended,
        reason: "taken out of the library; its images stay where they are".to_owned(),
        code: None,
        recovered: false,
    }
}

impl Coordinator {
    /// Has the machine leave the library by `remove`, which may block, while no operation works on it and none
    /// begins.
    ///
    /// # Errors
    /// What needs the machine, what `remove` says, or that the audit log takes no line.
    pub async fn without(
        &self,
        id: VmId,
        remove: impl FnOnce() -> Result<(), EngineError> + Send + 'static,
    ) -> Result<(), Text> {
        let core = Arc::clone(&self.core);
        let line = core.deps.audit.reserve().await?;
        let removing = self.core.accepting(async move {
            let doing = texts::REMOVING.with("machine", id);
            let started = core.deps.clock.now();
            let name = core.deps.compute.machine(id).map(|m| m.name.clone());
            let called = name.clone().unwrap_or_default();
            let leased =
                accept::lease(&core, JobId::random(), doing, move |state| {
                    match needing(state, id).as_slice() {
                        [] => Ok(((), vec![(Resource::Machine(id), Mode::Exclusive)])),
                        holders => Err(Refused::InvalidState(engine::referred(
                            id,
                            name.as_deref(),
                            holders,
                        ))),
                    }
                });
            let ((), lease) = leased.await?;
            let done = tokio::task::spawn_blocking(move || {
                let _lease = lease;
                remove()
            });
            let done = done.await.map_err(|e| panicked(&e))?;
            done.map_err(plan::refused)?;
            let written = line.note(&Event::MachineRemoved {
                machine: id.to_string(),
                name: &called,
            });
            let ended = removed(id, &called, started, core.deps.clock.now());
            ended.tell();
            let noted = Box::new(move |_: &State| vec![Change::Ended(ended)]);
            if let Err(error) = core.deps.store.transact(noted).await {
                tracing::warn!(%error, "A machine that was removed is not in the history");
            }
            written.await;
            Ok(())
        });
        removing.await.map_err(|refused| refused.text().clone())
    }

    /// Operations that cannot end now, with what they hold.
    #[must_use]
    pub fn stuck(&self) -> Vec<(Holder, Vec<Resource>)> {
        self.core.leases.stuck()
    }

    /// The journals that are there. Blocks.
    ///
    /// # Errors
    /// The folder or a file cannot be read.
    pub fn open_journals(&self) -> io::Result<Vec<OpenJournal>> {
        let all = journals(&self.core)?;
        let folder = self.core.journals();
        let journal = |(file, story): Read| {
            let word = story.as_ref().ok().map(|story| story.word(&folder));
            let word = word.and_then(Result::ok).flatten();
            let report = word.and_then(|word| word.reported());
            OpenJournal {
                file,
                told: story.map(|story| (story.told(), story.job())),
                let_go: report.map_or_else(Default::default, |it| (it.machines(), it.left())),
            }
        };
        Ok(all.into_iter().map(journal).collect())
    }

    /// The files among ours that no machine, no set and no journal names; none as long as a journal or the record of a
    /// set cannot be understood. Blocks.
    #[must_use]
    pub fn orphans(&self) -> Vec<PathBuf> {
        let mut all_read = Known::of(&self.core).unreadable.is_empty();
        let found = orphans::look(&self.core, || {
            let mut named = BTreeSet::new();
            for (_, story) in journals(&self.core).unwrap_or_default() {
                match story {
                    Ok(story) => story.names(&mut named),
                    Err(_) => all_read = false,
                }
            }
            named
        });
        if all_read { found } else { Vec::new() }
    }

    /// The sets of which only their folder is left. Blocks.
    ///
    /// # Errors
    /// A folder or a journal cannot be read.
    pub fn forgotten(&self) -> io::Result<Vec<Forgotten>> {
        forgotten::of(&self.core)
    }

    /// The files that machines and sets name and that are not there. Blocks.
    #[must_use]
    pub fn missing(&self) -> BTreeSet<PathBuf> {
        orphans::missing(&self.core)
    }

    /// The data directories that recorded paths lie in though their files are in this one: it was moved. Blocks.
    #[must_use]
    pub fn moved_from(&self) -> BTreeSet<PathBuf> {
        let missing = self.missing().into_iter();
        let data_dir = &self.core.deps.data_dir;
        let from = missing.filter_map(|file| orphans::moved_from(data_dir, &file));
        from.collect()
    }

    /// Whether the file lies in `sets/` of the data directory, which nobody else puts files into.
    #[must_use]
    pub fn is_in_sets(&self, file: &Path) -> bool {
        file.starts_with(self.core.sets())
    }

    /// Whether sets have made the file: in `sets/` of the data directory, or as a clone beside an image.
    #[must_use]
    pub fn is_of_sets(&self, file: &Path) -> bool {
        let files = self.core.deps.storage.files();
        files.is_ours(&self.core.sets(), file)
    }

    /// Moves a file that nothing names into `orphans/` of the data directory; gives its new path. Nothing is
    /// replaced there. Blocks.
    ///
    /// # Errors
    /// [`SetAside`]; it is where it was then.
    pub fn set_aside(&self, file: &Path) -> Result<PathBuf, SetAside> {
        let sets = self.core.sets();
        let Ok(below) = file.strip_prefix(&sets) else {
            return Err(SetAside::NotOurs(file.to_owned()));
        };
        let turn = destroy::turn(&self.core, file, &|| false);
        let _turn = turn.map_err(|why| SetAside::Needed(why.english()))?;
        if !self.core.deps.compute.renew() || orphans::needs(&self.core, [file.to_owned()]) {
            let text = format!("{} is not nobody's any more", file.display());
            return Err(SetAside::Needed(text));
        }
        let moved = move_aside(&sets, below, &self.core.deps.data_dir.join(orphans::ASIDE));
        moved.map_err(|e| SetAside::Io(file.to_owned(), e))
    }

    /// The frozen files of ours that may be written by their mode, with their machines. Blocks.
    #[must_use]
    pub fn writable(&self) -> Vec<(PathBuf, VmId)> {
        let state = self.core.deps.store.state();
        let members = state.sets.values().flat_map(|set| &set.members);
        let disks = members.flat_map(|m| m.disks.iter().map(move |d| (m, d)));
        let (drivers, sets) = (&self.core.deps.storage, self.core.sets());
        let disks = disks.filter(|(_, d)| drivers.in_files(d));
        let ours = disks.filter(|(_, d)| drivers.files().is_ours(&sets, &d.file));
        let open = ours.filter(|(_, d)| {
            let meta = held::symlink_metadata(&d.file);
            meta.is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o222 != 0)
        });
        let found: BTreeSet<_> = open.map(|(m, d)| (d.file.clone(), m.machine)).collect();
        found.into_iter().collect()
    }

    /// Takes the write bits of such a file. If it was as it was sealed it is sealed anew, by its descriptor; other damage
    /// stays. Who is killed in between leaves a file that looks changed, and no file without a seal.
    ///
    /// # Errors
    /// [`Refused`]: the machine is held, the mode cannot be set, or the store cannot be written.
    pub async fn close_to_writers(&self, file: &Path, machine: VmId) -> Result<(), Refused> {
        let (core, file) = (Arc::clone(&self.core), file.to_owned());
        self.core
            .accepting(close_to_writers(core, file, machine))
            .await
    }

    /// The operation that works on the machine now: what it does with files is no trouble of theirs.
    #[must_use]
    pub fn at_work(&self, machine: VmId) -> Option<Holder> {
        self.core.leases.holder(Resource::Machine(machine))
    }

    /// Waits until nobody holds the machine, or until whoever does cannot end now: then why.
    ///
    /// # Errors
    /// What its holder waits for.
    pub async fn released(&self, machine: VmId) -> Result<(), String> {
        let mut released = self.core.leases.released();
        loop {
            released.mark_unchanged();
            match self.core.leases.holder(Resource::Machine(machine)) {
                None => return Ok(()),
                Some(holder) if holder.recovering || holder.cannot_end() => {
                    return Err(holder.told().english());
                }
                Some(_) => {}
            }
            let _looked = tokio::time::timeout(LOOK, released.changed()).await;
        }
    }

    /// Of the jobs that run now, or of this one, how far the one is that is least so, and what it is at.
    #[must_use]
    pub fn progress(&self, only: Option<JobId>) -> Option<(u8, String)> {
        let jobs = self.core.deps.jobs.all().into_iter();
        let jobs = jobs.filter(|job| only.is_none_or(|id| job.id == id));
        let least = jobs.filter(|job| !job.state.is_terminal());
        let least = least.min_by_key(|job| job.percent)?;
        Some((least.percent, least.status.english()))
    }

    /// What its job said last.
    #[must_use]
    pub fn status_of(&self, job: JobId) -> Option<String> {
        let job = self.core.deps.jobs.get(job);
        job.map(|job| job.status.english())
    }
}

async fn close_to_writers(core: Arc<Core>, file: PathBuf, machine: VmId) -> Result<(), Refused> {
    let held = [(Resource::Machine(machine), Mode::Exclusive)];
    let doing = texts::SEALING.with("file", file.display());
    let lease = core.leases.lease(JobId::random(), doing, &held);
    let lease = lease.map_err(|busy| Refused::InvalidState(core.busy(&busy)))?;
    let (shared, looked) = (Arc::clone(&core), file.clone());
    let inodes = accept::answered(move || inodes_of(&shared, &looked, machine)).await;
    let inodes = inodes.unwrap_or_else(|e| Err(e.refused(&core)))?;
    let (closed, shared) = (file.clone(), Arc::clone(&core));
    let set = accept::answered(move || {
        // Where the file does not answer, the machine stays held until it does.
        let set = shared.deps.storage.files().close(&closed, &inodes);
        (set, damage::place(&closed), lease)
    });
    let (set, place, lease) = set.await.map_err(|e| e.refused(&core))?;
    if let Ok((before, after)) = set {
        let sealed = core.deps.store.transact(Box::new(move |state| {
            damage::of_each_disk(state, |disk| renew(disk, &place, before, after))
        }));
        sealed.await.map_err(|e| core.store_failed(&e))?;
    }
    drop(lease);
    let again = damage::notice(&core, None, |_| true).await;
    again.map_err(|e| core.store_failed(&e))?.written().await;
    set.map(|_| ()).map_err(|e| {
        let text = texts::UNSEALED.with("file", file.display());
        Refused::Failed(text.with("cause", e))
    })
}

/// Seals the file of the disk anew, if it is sealed as it was before.
fn renew(disk: &mut SnapshotDisk, file: &Path, before: Seal, after: Seal) {
    let sealed = disk.sealed.iter_mut();
    let as_it_was = sealed.filter(|s| s.file == file && s.seal == before);
    as_it_was.for_each(|s| s.seal = after);
}

/// Moves what stands in the place of a file of ours below `sets/` into `orphans/` of the data directory. Blocks.
///
/// # Errors
/// It is where it was then.
pub fn move_to_orphans(data_dir: &Path, file: &Path) -> io::Result<PathBuf> {
    let sets = data_dir.join(SETS);
    let below = file.strip_prefix(&sets);
    let below = below.map_err(|_| io::ErrorKind::InvalidInput)?;
    move_aside(&sets, below, &data_dir.join(orphans::ASIDE))
}

/// Moves what stands at `below` in one folder of ours to the same place in another, under a number if that is taken.
fn move_aside(from: &Path, below: &Path, to: &Path) -> io::Result<PathBuf> {
    let name = below.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let folder = below.parent().unwrap_or(Path::new(""));
    let from = Folder::open(from)?.beneath(folder, Way::Straight)?;
    from.require_private()?;
    let found = from.look(name)?.ok_or(io::ErrorKind::NotFound)?;
    let levels = folder.components().count();
    let to = held::make_folders(&to.join(folder), levels + 1)?;
    let new = from.move_numbered(name, &found, &to, name)?;
    Ok(to.path().join(new))
}

/// How often it is looked whether an operation has begun to wait.
const LOOK: std::time::Duration = std::time::Duration::from_millis(500);

/// The inodes that were sealed by the name of a file of the machine. Blocks.
///
/// # Errors
/// [`Refused::InvalidState`]: it lies outside the folders for images.
fn inodes_of(core: &Core, file: &Path, machine: VmId) -> Result<Vec<u64>, Refused> {
    let roots = core.deps.compute.roots();
    if roots.admit(file).is_ok_and(|inside| !inside) {
        let name = core.deps.compute.machine(machine);
        let name = name.map_or_else(|| machine.to_string(), |m| m.name.clone());
        let state = core.deps.store.state();
        let own = state.sets.values().flat_map(|set| &set.members);
        let own = own.filter(|m| m.machine == machine);
        let mut disks = own.flat_map(|m| &m.disks);
        let of = disks.find(|d| d.sealed.iter().any(|s| s.file == file));
        let at = At::new(&name, of.map_or("", |disk| &disk.id));
        return Err(Refused::InvalidState(roots.outside(&at, file)));
    }
    let state = core.deps.store.state();
    let members = state.sets.values().flat_map(|set| &set.members);
    let sealed = members.flat_map(|m| &m.disks).flat_map(|d| &d.sealed);
    let inodes = damage::of_file(sealed, file).map(|s| s.seal.inode);
    Ok(inodes.collect())
}

/// Every journal, and what it tells. Blocks.
///
/// # Errors
/// The folder or a file cannot be read.
pub(crate) fn journals(core: &Core) -> io::Result<Vec<Read>> {
    journals::read(&core.journals(), core.kinds)
}

/// What operations that have not ended may change, by the journals of a data directory. Blocks.
///
/// # Errors
/// The folder or a file cannot be read.
pub(crate) fn in_flight(data_dir: &Path) -> io::Result<InFlight> {
    journals::in_flight(data_dir, KINDS)
}

/// What the journals of a data directory say that nobody works on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Journaled {
    /// How many operations have not ended.
    pub open: usize,
    /// The files that they may make, write or remove.
    pub named: BTreeSet<PathBuf>,
    /// Journals that cannot be understood, each with the reason.
    pub unreadable: Vec<String>,
}

/// What a start would refuse of the journals of a data directory by themselves. Whether they fit what is recorded shows
/// only when their operations are ended. Blocks.
///
/// # Errors
/// [`RecoveryError`].
pub fn require_journals(data_dir: &Path) -> Result<(), RecoveryError> {
    journals::require_readable(&data_dir.join(JOURNALS), KINDS)
}

/// Reads the journals of a data directory. Blocks.
///
/// # Errors
/// The folder or a file cannot be read.
pub fn named_by_journals(data_dir: &Path) -> io::Result<Journaled> {
    let mut found = Journaled::default();
    for (file, story) in journals::read(&data_dir.join(JOURNALS), KINDS)? {
        match story {
            Ok(story) => {
                found.open += 1;
                story.names(&mut found.named);
            }
            Err(why) => found.unreadable.push(format!("{} {why}", file.display())),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{Format, Sealed};

    #[test]
    fn only_a_seal_that_is_still_the_one_looked_at_is_renewed() {
        let seal = |inode| Seal {
            inode,
            length: 2,
            modified: (3, 4),
            changed: (5, 6),
        };
        let sealed = |file: &str, inode| Sealed {
            file: file.into(),
            seal: seal(inode),
        };
        let mut disk = SnapshotDisk {
            id: "disk0".into(),
            file: "/i/a.raw".into(),
            format: Format::Raw,
            size: 512,
            driver: "overlay".into(),
            sealed: vec![
                sealed("/i/a.raw", 1),
                sealed("/i/a.raw", 2),
                sealed("/i/b.raw", 1),
            ],
            damage: None,
        };
        renew(&mut disk, Path::new("/i/a.raw"), seal(1), seal(7));
        let inodes: Vec<_> = disk.sealed.iter().map(|s| s.seal.inode).collect();
        assert_eq!(inodes, [7, 2, 1]);
    }
}
