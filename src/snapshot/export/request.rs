//! How a request for an export is accepted: what can be refused is looked at first, then leases, and the start of its job.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::engine::Drivers;
use crate::held;
use crate::id::{JobId, SetId};
use crate::inventory::{Affected, JobKind, Service, SnapshotSet};
use crate::job::NewJob;
use crate::snapshot::copies;
use crate::snapshot::damage;
use crate::snapshot::directory::Directory;
use crate::snapshot::export::{Export, Intent, set_of};
use crate::snapshot::saga::accept::{self, Unanswered};
use crate::snapshot::saga::answer::{Accepted, Refused};
use crate::snapshot::saga::core::Core;
use crate::snapshot::saga::kind::Kind as _;
use crate::snapshot::saga::leases::{Mode, Resource};
use crate::snapshot::saga::plan;
use crate::snapshot::saga::start::start;
use crate::text::Text;
use crate::text::catalog::snapshot as texts;

/// A request for an export; the provider has checked the form of its parameters.
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
    let drivers = &core.deps.storage;
    let mut disks = set.members.iter().flat_map(|m| &m.disks);
    if request.storage
        && let Some(disk) = disks.find(|d| drivers.reader(d).is_none())
    {
        let text = texts::EXPORT_NO_CONTENT.with("driver", &disk.driver);
        return Err(ExportRefused::NotSupported(text));
    }
    let mut unfit = Vec::new();
    if request.storage {
        unfit.extend(damage::damaged(&set).map(|disk| disk.text()));
        unfit.extend(too_large(drivers, &set));
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
            unfit.extend(silent(&shared, &intent.set));
        }
        let members = intent.set.members.iter();
        unfit.extend(
            members
                .filter_map(|m| copies::read(m).err())
                .map(|c| c.text),
        );
        if let Some(text) = plan::one(unfit) {
            return Err(ExportRefused::InvalidState(text));
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

/// Of each machine of which a file is known not to answer, that it does not.
fn silent(core: &Core, set: &SnapshotSet) -> Vec<Text> {
    core.deps.compute.catch_up();
    let silent = set.members.iter().filter_map(|member| {
        let mut files = member.disks.iter().flat_map(|d| &d.sealed);
        let sealed = files.find(|s| held::is_silent(&s.file))?;
        let text = texts::MEMBER_SILENT.with("machine", &member.machine_name);
        Some(text.with("file", sealed.file.display()))
    });
    silent.collect()
}

/// Of each disk that is too large for the image which an export makes of it, that it is.
fn too_large(drivers: &Drivers, set: &SnapshotSet) -> impl Iterator<Item = Text> {
    let disks = set
        .members
        .iter()
        .flat_map(|m| m.disks.iter().map(move |d| (m, d)));
    disks.filter_map(|(member, disk)| {
        let limit = drivers.reader(disk)?.largest();
        (disk.size > limit).then(|| {
            let text = texts::EXPORT_TOO_LARGE
                .with("machine", &member.machine_name)
                .with("disk", &disk.id);
            text.with("size", disk.size).with("limit", limit)
        })
    })
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
