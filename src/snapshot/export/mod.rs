//! Exporting a set: every disk as a stand-alone file, the definitions and a manifest, in one new directory.
//!
//! ```text
//!   read (lease of every file) ▶ copy ▶ manifest ▶ reveal (rename) ▶ commit ▶ publish (job 7) ▶ clear
//! ```
//!
//! All of it is written under a name of its own beside the target, which appears whole by one rename. The journal tells
//! which folder was made for it before anything is in it; the undo takes back and removes that one, wherever its name
//! leads to, and of anything else nothing that is not empty.

mod intent;
mod manifest;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::engine::qcow2::writer::SIZE_MAX;
use crate::held::{self, Folder, Origin};
use crate::id::{JobId, SetId, VmId};
use crate::inventory::{Affected, JobKind, Service, SnapshotSet, What};
use crate::job::NewJob;
use crate::snapshot::copies;
use crate::snapshot::damage;
use crate::snapshot::directory::Directory;
use crate::snapshot::meter::Meter;
use crate::snapshot::saga::accept::{self, Unanswered};
use crate::snapshot::saga::answer::{Accepted, Refused};
use crate::snapshot::saga::claims::FileGuard;
use crate::snapshot::saga::core::Core;
use crate::snapshot::saga::kind::{Fate, Kind, Step, Words};
use crate::snapshot::saga::leases::{Mode, Resource};
use crate::snapshot::saga::start::start;
use crate::store::{Change, State};
use crate::text::Text;
use crate::text::catalog::snapshot as texts;

pub use intent::{Intent, Record};
pub use steps::FAILPOINTS;

use manifest::Written;

/// A wish for an export, checked for form by the provider.
#[derive(Debug, Clone)]
pub struct ExportRequest {
    /// The set.
    pub set: SetId,
    /// The directory in which the exported one is made.
    pub directory: String,
    /// The disks too, or definitions only.
    pub storage: bool,
    /// The user who called.
    pub owner: String,
}

/// Not even begun; nothing was changed. Each is one return value of ExportSnapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportRefused {
    /// 32768: the store or the journal cannot be written.
    Failed(Text),
    /// 32770: the disks of this engine have no content.
    NotSupported(Text),
    /// 32773: no such set, a directory that is not allowed or not there.
    InvalidParameter(Text),
    /// 32774: an operation changes the set.
    InUse(Text),
    /// 32775: the target exists, or a disk of the set is damaged.
    InvalidState(Text),
}

/// A set being exported.
pub(crate) struct Export {
    intent: Intent,
    /// The one part that its steps work on.
    part: [(); 1],
    reading: Mutex<Reading>,
    written: Mutex<BTreeMap<VmId, Written>>,
    /// The folder that was made for it.
    made: Mutex<Made>,
    /// What the undo had to leave.
    left: Mutex<Option<Text>>,
    /// How far the copy is.
    meter: Meter,
}

/// What the copy reads.
#[derive(Debug, Default)]
struct Reading {
    /// The set with the files that its disks have now.
    set: Option<SnapshotSet>,
    /// Keeps those files as they are.
    _guard: Option<FileGuard>,
}

/// The folder of an export.
#[derive(Debug, Default)]
struct Made {
    /// Which one it is, as the journal tells.
    origin: Option<Origin>,
    /// It, in the process that made it.
    held: Option<Folder>,
}

impl Export {
    fn reading(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn left_behind(&self) -> MutexGuard<'_, Option<Text>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn written(&self) -> MutexGuard<'_, BTreeMap<VmId, Written>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kind for Export {
    type Part = ();
    type Intent = Intent;
    type Record = Record;

    const NAME: &'static str = "export";
    const FATE: Fate = Fate::Stays;
    const TAKE: &'static [Step<Self>] = steps::TAKE;
    const FINISH: &'static [Step<Self>] = steps::FINISH;
    const FAILED: u16 = 32768;
    const INVALID_STATE: u16 = 32775;
    const WORDS: Words = Words {
        failed: texts::EXPORT_FAILED,
        failed_undoing: None,
        interrupted: texts::EXPORT_INTERRUPTED,
        interrupted_undoing: None,
        undoing: texts::EXPORT_UNDOING,
        undo_waits: texts::EXPORT_UNDO_WAITS,
        finish_waits: texts::EXPORT_FINISH_WAITS,
        recovering: texts::EXPORT_RECOVERING,
    };

    fn new(intent: Intent) -> Self {
        Self {
            intent,
            part: [()],
            reading: Mutex::default(),
            written: Mutex::default(),
            made: Mutex::default(),
            left: Mutex::default(),
            meter: Meter::default(),
        }
    }

    fn intent(&self) -> &Intent {
        &self.intent
    }

    fn commits(record: &Record) -> bool {
        *record == Record::Exported
    }

    fn what(&self) -> What {
        What::Export
    }

    fn job(&self) -> JobId {
        self.intent.job
    }

    fn set(&self) -> SetId {
        self.intent.set.id
    }

    fn parts(&self) -> &[()] {
        &self.part
    }

    fn name((): &()) -> &str {
        ""
    }

    fn machines(&self) -> Vec<String> {
        let members = self.intent.set.members.iter();
        members.map(|m| m.machine_name.clone()).collect()
    }

    fn replay(&mut self, record: Record) {
        if let Record::Made { folder } = record {
            self.made().origin = Some(folder);
        }
    }

    fn resources(&self) -> Vec<(Resource, Mode)> {
        vec![(Resource::Set(self.intent.set.id), Mode::Shared)]
    }

    /// What stands under its last name is somebody's.
    fn fits(&self, _: &Core, committed: bool) -> bool {
        let Some(made) = self.made().origin.filter(|_| !committed) else {
            return true;
        };
        let place = self.intent.directory.held();
        let revealed = place.and_then(|place| place.is(&self.intent.target(), &made));
        match revealed {
            Ok(revealed) => !revealed,
            Err(error) => !held::is_silence(&error),
        }
    }

    fn names(&self, _: &mut BTreeSet<PathBuf>) {}

    fn left(&self) -> Option<Text> {
        self.left_behind().clone()
    }

    fn publish(&self, _: &State) -> Option<(Text, Vec<Change>)> {
        let status = texts::EXPORT_COMPLETED.with("set", self.intent.set.id);
        let target = self.intent.directory.path().join(self.intent.target());
        Some((status.with("target", target.display()), Vec::new()))
    }
}

/// Checks the request against the state, holds the set and starts the job. Answers once job and journal are durable.
///
/// # Errors
/// [`ExportRefused`].
pub(crate) async fn export(
    core: &Arc<Core>,
    request: ExportRequest,
) -> Result<Accepted, ExportRefused> {
    let directory = Directory::of(&request.directory, &core.deps.exports.roots);
    let directory = directory.map_err(ExportRefused::InvalidParameter)?;
    let (intent, place) = check(Arc::clone(core), request, directory).await?;
    let accepting = core.accepting(begin(Arc::clone(core), intent, place)).await;
    accepting.map_err(|refused| match refused {
        Refused::Failed(text) => ExportRefused::Failed(text),
        Refused::InvalidParameter(text) => ExportRefused::InvalidParameter(text),
        // The only state that is asked for there: whether someone changes the set, or exports it to that place.
        Refused::InvalidState(text) => ExportRefused::InUse(text),
    })
}

/// What is to be done, if it can be, and its place.
async fn check(
    core: Arc<Core>,
    request: ExportRequest,
    directory: Directory,
) -> Result<(Intent, Resource), ExportRefused> {
    let wanted = request.set;
    let noticed = damage::notice(&core, None, move |set| set.id == wanted).await;
    if let Err(Refused::Failed(text)) = noticed.map_err(|e| core.store_failed(&e)) {
        return Err(ExportRefused::Failed(text));
    }
    let set = set_of(&core.deps.store.state(), request.set);
    let set = set.map_err(ExportRefused::InvalidParameter)?;
    if request.storage
        && let Some(disk) = damage::damaged(&set).next()
    {
        return Err(ExportRefused::InvalidState(disk.text()));
    }
    let drivers = &core.deps.storage;
    let mut disks = set.members.iter().flat_map(|m| &m.disks);
    if request.storage
        && let Some(disk) = disks.find(|d| !drivers.has_content(&d.driver))
    {
        let text = texts::EXPORT_NO_CONTENT.with("driver", &disk.driver);
        return Err(ExportRefused::NotSupported(text));
    }
    if request.storage
        && let Some(text) = too_large(&set)
    {
        return Err(ExportRefused::InvalidState(text));
    }
    let intent = Intent {
        job: JobId::random(),
        set,
        storage: request.storage,
        directory,
        exported: core.deps.clock.now(),
        owner: request.owner,
    };
    let (shared, root) = (Arc::clone(&core), intent.directory.clone());
    let checked = accept::answered(move || {
        if intent.storage {
            answering(&shared, &intent.set)?;
        }
        for member in &intent.set.members {
            let read = copies::read(member);
            read.map_err(|copy| ExportRefused::InvalidState(copy.text))?;
        }
        // As where a thread was left behind at it: one cause has one code.
        let unusable = |e| match held::is_silence(&e) {
            true => ExportRefused::InvalidState(intent.directory.refusal(&e)),
            false => ExportRefused::InvalidParameter(intent.directory.refusal(&e)),
        };
        let place = intent.directory.open().map_err(unusable)?;
        let resource = Resource::Export(intent.set.id, place.key().map_err(unusable)?);
        if place.has(&intent.target()).map_err(unusable)? {
            return Err(ExportRefused::InvalidState(intent.exists()));
        }
        let directory = intent.directory.clone().holding(&place);
        let directory = directory.map_err(unusable)?;
        let intent = Intent {
            directory,
            ..intent
        };
        Ok((intent, resource))
    });
    checked.await.unwrap_or_else(|error| {
        if let Unanswered::Silent(file) = &error
            && root.has(file)
        {
            return Err(ExportRefused::InvalidState(root.silent()));
        }
        Err(match error.refused(&core) {
            Refused::Failed(text) => ExportRefused::Failed(text),
            other => ExportRefused::InvalidState(other.text().clone()),
        })
    })
}

/// Refuses a set of which a file is known not to answer.
fn answering(core: &Core, set: &SnapshotSet) -> Result<(), ExportRefused> {
    core.deps.compute.catch_up();
    for member in &set.members {
        let files = member.disks.iter().flat_map(|d| &d.sealed);
        if let Some(sealed) = files.into_iter().find(|s| held::is_silent(&s.file)) {
            let text = texts::MEMBER_SILENT.with("machine", &member.machine_name);
            let text = text.with("file", sealed.file.display());
            return Err(ExportRefused::InvalidState(text));
        }
    }
    Ok(())
}

/// That the first disk which is too large for the image that an export makes of it is so.
fn too_large(set: &SnapshotSet) -> Option<Text> {
    let disks = set
        .members
        .iter()
        .flat_map(|m| m.disks.iter().map(move |d| (m, d)));
    let (member, disk) = disks.into_iter().find(|(_, d)| d.size > SIZE_MAX)?;
    let text = texts::EXPORT_TOO_LARGE
        .with("machine", &member.machine_name)
        .with("disk", &disk.id);
    Some(text.with("size", disk.size).with("limit", SIZE_MAX))
}

fn set_of(state: &State, id: SetId) -> Result<SnapshotSet, Text> {
    let set = state.sets.get(&id).map(|set| SnapshotSet::clone(set));
    set.ok_or_else(|| texts::EXPORT_NO_SET.with("set", id))
}

async fn begin(core: Arc<Core>, intent: Intent, place: Resource) -> Result<Accepted, Refused> {
    let ids = Accepted {
        job: intent.job,
        set: intent.set.id,
    };
    let doing = texts::EXPORTING.with("set", ids.set);
    let leased = accept::lease(&core, ids.job, doing.clone(), move |state| {
        set_of(state, ids.set).map_err(Refused::InvalidParameter)?;
        let wanted = [
            (Resource::Set(ids.set), Mode::Shared),
            (place, Mode::Exclusive),
        ];
        Ok(((), wanted.to_vec()))
    });
    let ((), lease) = leased.await?;
    let about = (intent.set).about(&core.deps.store.state().collections, |_| true);
    let machines = intent.set.members.iter();
    let machines = machines.map(|m| Affected::Machine(m.machine));
    let job = NewJob {
        id: ids.job,
        kind: JobKind::ExportSnapshotSet,
        service: Service::CollectionSnapshot,
        owner: intent.owner.clone(),
        affected: machines.chain([Affected::Set(ids.set)]).collect(),
        about: about.directory(intent.directory.path().display()),
        set: None,
        status: doing,
    };
    start(&core, Export::new(intent), job, BTreeMap::new(), lease).await?;
    Ok(ids)
}
