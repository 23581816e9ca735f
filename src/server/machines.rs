//! The library of machines of a data directory, without a server.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::clock::SystemClock;
use crate::config::Config;
use crate::doctor::line::{self, Answer, Doing, Wish};
use crate::engine::import::{self, Imported, NewMachine};
use crate::engine::library;
use crate::engine::links::{self, Named};
use crate::engine::qcow2::chain;
use crate::engine::recorded::{self, Said};
use crate::engine::reflink::Reflink;
use crate::engine::setting::{self, Changes, Shown};
use crate::engine::settings::EngineKind;
use crate::engine::space::Reserve;
use crate::engine::turn;
use crate::engine::{Capture, Doubt, EngineError, EngineErrorKind};
use crate::held;
use crate::id::{SetId, VmId};
use crate::inventory::{Disk, Format, Machine};
use crate::snapshot::{
    Choosing, RecordedSets, ShownTops, in_flight, named_by_journals, needing, removed,
};
use crate::store::lock::{DirectoryLock, LockError};
use crate::store::{Change, Store};

use super::adapters::roots;
use super::ask::{nobody, unanswered, unexpected};
use super::parts::Parts;
use super::{StartError, identity, library_dir, make_data_dir, relocate, take_store};

/// How long what files tell of recorded active files is waited for.
const GLANCE: Duration = Duration::from_secs(1);
/// How long a server that runs may take to read the library again, and others to have their turn, before nobody waits
/// for it.
const PATIENCE: Duration = Duration::from_secs(3);

/// Takes a machine into the library of a data directory (made if missing), if its images lie in `folders`
/// (anywhere if there are none).
///
/// # Errors
/// [`StartError`] naming machine, disk and file.
pub fn import_machine(
    data_dir: &Path,
    new: &NewMachine,
    folders: &[PathBuf],
) -> Result<Imported, StartError> {
    let data_dir = make_data_dir(data_dir)?;
    library::require_private(&data_dir)?;
    relocate::writable(&data_dir)?;
    untouched(&data_dir, new)?;
    let now = SystemClock::shared().now();
    let imported = {
        let (data_dir, new, folders) = (data_dir.clone(), new.clone(), folders.to_owned());
        bounded(move || import::take_in(&data_dir, &new, &roots(&data_dir, &folders), now))?
    };
    tell(&data_dir);
    Ok(imported)
}

/// Refuses images that an operation which died has not done with: nobody holds them, and they may be half written. While
/// a server runs it holds what it works on.
///
/// # Errors
/// [`StartError::Failed`] naming the file and the way out.
fn untouched(data_dir: &Path, new: &NewMachine) -> Result<(), StartError> {
    if is_served(data_dir) {
        return Ok(());
    }
    let journals = named_by_journals(data_dir).map_err(StartError::failed)?;
    if let Some(why) = journals.unreadable.first() {
        return Err(unended_for_now(
            data_dir,
            &format!("which files it works on is not known: {why}"),
        ));
    }
    if journals.open == 0 {
        return Ok(());
    }
    let files: Vec<_> = new
        .disks
        .iter()
        .map(|d| (d.file.clone(), d.format))
        .collect();
    let named = move || {
        let id = |file: &Path| held::look_at(file).ok().map(|it| (it.device, it.inode));
        let named: BTreeSet<_> = journals.named.iter().filter_map(|file| id(file)).collect();
        let mut chains = files.into_iter().flat_map(|(file, format)| {
            let format = format.or_else(|| chain::by_suffix(&file));
            chain::readable(&file, format.unwrap_or(Format::Raw)).0
        });
        let found = chains.find(|layer| named.contains(&layer.id));
        Ok(found.map(|layer| layer.file))
    };
    match bounded(named)? {
        None => Ok(()),
        Some(file) => Err(unended_for_now(
            data_dir,
            &format!("it works on {}", file.display()),
        )),
    }
}

/// Refuses to record anything of a machine that an operation which died has not done with. While a server runs it says so.
///
/// # Errors
/// [`StartError::Failed`] naming the way out.
fn at_rest(data_dir: &Path, id: VmId) -> Result<(), StartError> {
    let open = in_flight(data_dir).map_err(StartError::failed)?;
    match !is_served(data_dir) && open.machines.contains(&id) {
        false => Ok(()),
        true => Err(unended_for_now(
            data_dir,
            &format!("it works on machine {id}"),
        )),
    }
}

/// [`unended`], unless another command has the data directory: it may be ending it.
fn unended_for_now(data_dir: &Path, what: &str) -> StartError {
    if is_taken(data_dir) {
        return StartError::Busy(format!(
            "another command has the data directory {}, and an operation has not ended: {what}; try again when that command has ended",
            data_dir.display()
        ));
    }
    unended(data_dir, what)
}

fn unended(data_dir: &Path, what: &str) -> StartError {
    StartError::Failed(format!(
        "an operation has not ended since its server died, and {what}: end it with `groupshot rescue --data-dir {}`, or start the server; then try again",
        data_dir.display()
    ))
}

/// Whether a server has the data directory: another command holds no images, and nothing answers for it. Its lock is
/// tried only where something answers: to try it is to have it for a moment, which would keep `doctor` out.
fn is_served(data_dir: &Path) -> bool {
    line::is_answered(data_dir) && is_taken(data_dir)
}

/// Whether a server, or another command, has the data directory.
fn is_taken(data_dir: &Path) -> bool {
    matches!(
        DirectoryLock::is_free(data_dir),
        Err(LockError::Busy { .. })
    )
}

/// Work on files of machines, given up where they do not answer.
fn bounded<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, StartError> {
    Ok(held::bounded(work).map_err(StartError::failed)??)
}

/// The disks of the machine that could be captured by an overlay only, found by trying. Leaves nothing behind.
#[must_use]
pub fn not_clonable<'a>(machine: &'a Machine, config: &Config) -> Vec<&'a Disk> {
    let extents = config.snapshot.clone_extents;
    let reflink = Reflink::new(Reserve::default()).at_most(extents);
    let cannot = |disk: &&Disk| {
        !matches!(
            reflink.plan(machine, disk, SetId::random(), None),
            Ok(Some(_))
        )
    };
    machine.disks.iter().filter(cannot).collect()
}

/// The machines of a data directory, and in words what is wrong with other files of the library.
///
/// # Errors
/// [`StartError`] if the library cannot be read.
pub fn machines(data_dir: &Path) -> Result<(Vec<Machine>, Vec<String>), StartError> {
    let data_dir = library_dir(data_dir)?;
    let sets = RecordedSets::of(&data_dir);
    let other = identity::finding(&data_dir);
    require_unmoved(&data_dir)?;
    // Those of a copy name files of the original.
    let is_own = other.is_none();
    let judge = move |m: &Machine| match is_own {
        true => sets.judge_tops(m),
        false => Ok(()),
    };
    let (machines, problems) = library::scan_judged(&data_dir, judge)?;
    let machines = machines.values().map(|m| Machine::clone(m)).collect();
    let problems = other
        .into_iter()
        .chain(problems.iter().map(library::Problem::told));
    Ok((machines, problems.collect()))
}

/// Whether these machines run: as the server says that runs on the data directory, and holds their monitors; by a look
/// that is made here where none does. Of a machine whose state cannot be told there is none.
///
/// # Errors
/// [`StartError`] in words where states cannot be told; what else is known of the machines is none the less true.
pub fn machine_states(
    data_dir: &Path,
    machines: &[Machine],
) -> Result<BTreeMap<VmId, Doing>, StartError> {
    let data_dir = library_dir(data_dir)?;
    if is_served(&data_dir) {
        match line::ask(&data_dir, Wish::States, &nobody()) {
            Ok(Answer::States(states)) => return Ok(states),
            // An older one, which has no monitors.
            Ok(Answer::Error(_)) => {}
            Ok(other) => return Err(unexpected(other)),
            Err(error) => return Err(unanswered(&data_dir, &error)),
        }
    }
    let machines = machines.to_vec();
    let looked = held::look(move || library::states(&machines));
    let states = looked.map_err(StartError::failed)?;
    let states = states.into_iter().map(|(id, state)| (id, state.into()));
    Ok(states.collect())
}

/// Refuses a data directory that was moved: that its machines name files elsewhere is no mistake of theirs. Of a copy
/// something else is told.
///
/// # Errors
/// [`StartError`] names the way out.
pub(super) fn require_unmoved(data_dir: &Path) -> Result<(), StartError> {
    if identity::finding(data_dir).is_some() {
        return Ok(());
    }
    let machines = library::recorded(data_dir)?;
    let here = data_dir.to_owned();
    // The old place may not answer: it is not there then.
    let moved = move || relocate::moved_with(&here, machines.values().map(|m| &**m));
    let from = held::look(moved).unwrap_or_default();
    from.map_or(Ok(()), |from| {
        Err(StartError::Failed(relocate::moved(data_dir, &from)))
    })
}

/// The machines of a data directory as they were recorded, without those whose active files are in doubt by their names,
/// or by what the files tell in a moment. No image is waited for.
///
/// # Errors
/// [`StartError`] if the library cannot be read; [`StartError::Refused`] if the data directory is not the one that it
/// was: its records may name what the original runs on.
pub fn recorded_machines(data_dir: &Path) -> Result<Vec<Machine>, StartError> {
    let data_dir = library_dir(data_dir)?;
    identity::require(&data_dir)?;
    let sets = RecordedSets::of(&data_dir);
    let machines = library::recorded(&data_dir)?;
    let mut sure: Vec<_> = machines.values().map(|m| Machine::clone(m)).collect();
    require_unmoved(&data_dir)?;
    sure.retain(|m| !is_doubted(&sets.judge_names(m)));
    let (tell, told) = mpsc::channel();
    let judge = {
        let machines = sure.clone();
        move || {
            let doubted = machines.iter().filter(|m| is_doubted(&sets.judge_tops(m)));
            let _given_up = tell.send(doubted.map(|m| m.id).collect::<Vec<_>>());
        }
    };
    thread::Builder::new()
        .spawn(judge)
        .map_err(StartError::failed)?;
    if let Ok(doubted) = told.recv_timeout(GLANCE) {
        sure.retain(|m| !doubted.contains(&m.id));
    }
    Ok(sure)
}

/// As [`library::scan_judged`] has it: what an operation that has not ended does to a machine is no doubt.
fn is_doubted(judged: &Result<(), Doubt>) -> bool {
    matches!(judged, Err(Doubt::Tops(_)))
}

/// What stands at the paths of the images of a machine now, to be shown before it is accepted, if its files lie in
/// `folders` (anywhere if there are none).
///
/// # Errors
/// [`StartError`] naming machine, disk and file.
pub fn shown_images(
    data_dir: &Path,
    id: VmId,
    folders: &[PathBuf],
) -> Result<Vec<Shown>, StartError> {
    let data_dir = library_dir(data_dir)?;
    let folders = folders.to_owned();
    bounded(move || setting::shown(&data_dir, id, &roots(&data_dir, &folders)))
}

/// Changes the definition of a machine as the operator wishes, and records what is said of its images; says whether there was anything to change. A server
/// that runs takes notice.
///
/// # Errors
/// [`StartError::Busy`] if another command is changing the library, or somebody the file; else as there.
pub fn change_machine(
    data_dir: &Path,
    id: VmId,
    changes: &Changes,
    said: &Said,
    folders: &[PathBuf],
) -> Result<bool, StartError> {
    let data_dir = library_dir(data_dir)?;
    relocate::writable(&data_dir)?;
    if changes.accept_images.is_some() || !said.is_empty() {
        at_rest(&data_dir, id)?;
    }
    let turn = turn::take(&data_dir, PATIENCE, &|| false).map_err(StartError::failed)?;
    let Some(_turn) = turn else {
        return Err(StartError::Busy(format!(
            "another command is changing the library of machines in {}; try again when it has ended",
            data_dir.display()
        )));
    };
    let work = {
        let (data_dir, changes, said) = (data_dir.clone(), changes.clone(), said.clone());
        let folders = folders.to_owned();
        move || {
            let roots = roots(&data_dir, &folders);
            // Before anything is recorded.
            if let Some(shown) = &changes.accept_images {
                setting::require_shown(&data_dir, id, shown, &roots)?;
            }
            let recorded = !said.is_empty() && recorded::record(&data_dir, id, &said, &roots)?;
            Ok::<_, EngineError>(setting::change(&data_dir, id, &changes, &roots)? || recorded)
        }
    };
    let changed = match held::bounded(work).map_err(StartError::failed)? {
        Err(error) if error.kind == EngineErrorKind::Locked => {
            return Err(StartError::Busy(error.to_string()));
        }
        done => done?,
    };
    if changed {
        tell(&data_dir);
    }
    Ok(changed)
}

/// Every machine of a data directory, also those that cannot be read, with the name that its definition gives.
///
/// # Errors
/// [`StartError`] if the library cannot be read.
pub fn named_machines(data_dir: &Path) -> Result<Vec<Named>, StartError> {
    let data_dir = library_dir(data_dir)?;
    let folder = library::machines_directory(&data_dir);
    match library::named(&folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        named => named.map_err(|e| StartError::file(&data_dir, &folder, &e)),
    }
}

/// The machine of a data directory that has this name. Where a definition gives none that could be read, that by which
/// a link leads to the machine counts.
///
/// # Errors
/// As [`named_machines`], and [`StartError::Failed`] if the data directory was moved.
pub fn machine_named(data_dir: &Path, name: &str) -> Result<Option<VmId>, StartError> {
    let data_dir = library_dir(data_dir)?;
    require_unmoved(&data_dir)?;
    let led = links::leading(&library::machines_directory(&data_dir), name);
    let has_it = |(id, own): &Named| match own {
        Some(own) => own == name,
        None => led == Some(*id),
    };
    let mut machines = named_machines(&data_dir)?.into_iter();
    Ok(machines.find(has_it).map(|(id, _)| id))
}

/// Tells what becomes of the active files of a machine if its operator names these, by disk, if they lie in `folders`
/// (anywhere if there are none), and makes it so unless it is only to be shown. What is named is not written to where
/// anything else needs it.
///
/// # Errors
/// [`StartError`]; a server must not run.
pub async fn choose_tops(
    data_dir: &Path,
    machine: VmId,
    named: BTreeMap<String, PathBuf>,
    what: Choosing,
    folders: &[PathBuf],
) -> Result<ShownTops, StartError> {
    let data_dir = library_dir(data_dir)?;
    let store = take_store(&data_dir)?;
    relocate::writable(&data_dir)?;
    // Nothing else of a server's configuration counts here.
    let mut config = Config::default();
    config.engine.default = EngineKind::Library;
    config.engine.image_roots = folders.to_owned();
    let parts = Parts::open(&data_dir, &config, store)?;
    relocate::in_place(&parts, &data_dir).await?;
    let chosen = parts.coordinator.choose_tops(machine, named, what).await;
    parts.coordinator.close();
    chosen.map_err(StartError::Failed)
}

/// Has a server that runs take notice now, and not with its next look: whoever comes next means what is there now. One
/// that does not answer looks by itself.
fn tell(data_dir: &Path) {
    if is_served(data_dir) {
        let (data_dir, (done, told)) = (data_dir.to_owned(), mpsc::channel());
        thread::spawn(move || {
            let _by_itself = line::ask(&data_dir, Wish::Renew, &nobody());
            let _nobody_waits = done.send(());
        });
        let _late = told.recv_timeout(PATIENCE);
    }
}

/// Takes a machine out of the library, unless a snapshot set, a collection or an operation needs it. A server that
/// runs on the data directory is asked to.
///
/// # Errors
/// [`StartError::Failed`] naming what needs it; [`StartError::Busy`] if somebody has the data directory and does not
/// answer.
pub async fn remove_machine(data_dir: &Path, id: VmId) -> Result<(), StartError> {
    let store = match take_store(data_dir) {
        Ok(store) => store,
        Err(StartError::Busy(_)) => return ask_to_remove(data_dir, id),
        Err(other) => return Err(other),
    };
    relocate::writable(&library_dir(data_dir)?)?;
    let (state, started) = (store.state(), SystemClock::shared().now());
    let (data_dir, here) = (library_dir(data_dir)?, data_dir.to_owned());
    let open = in_flight(&data_dir).map_err(StartError::failed)?;
    if open.machines.contains(&id) {
        return Err(unended(&data_dir, &format!("it works on machine {id}")));
    }
    let machines = library::recorded(&data_dir)?;
    let name = machines.get(&id).map(|m| m.name.clone());
    bounded(move || import::remove(&here, id, |id| needing(&state, id)))?;
    let ended = SystemClock::shared().now();
    let ended = removed(id, &name.unwrap_or_default(), started, ended);
    let noted = store.transact(Box::new(move |_| vec![Change::Ended(ended)]));
    noted.await.map_err(|e| {
        StartError::Failed(format!(
            "machine {id} is removed, which the history does not tell: {e}"
        ))
    })?;
    Ok(())
}

fn ask_to_remove(data_dir: &Path, machine: VmId) -> Result<(), StartError> {
    match line::ask(data_dir, Wish::Remove { machine }, &nobody()) {
        Ok(Answer::Done(_)) => Ok(()),
        Ok(Answer::Error(why)) => Err(StartError::Failed(why)),
        Ok(other) => Err(unexpected(other)),
        Err(error) => Err(unanswered(data_dir, &error)),
    }
}
