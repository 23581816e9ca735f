//! What a create would do, found out by doing all of it that leaves nothing behind: resolve, hold, plan, look for
//! space. Whatever was held is let go at the end.

use std::path::PathBuf;
use std::sync::Arc;

use crate::engine::{EngineError, EngineErrorKind, Hold, Live};
use crate::id::{JobId, SetId};
use crate::inventory::{Consistency, Disk, Machine};
use crate::snapshot::create::{CreateRequest, draft, running, selection};
use crate::snapshot::saga::accept;
use crate::snapshot::saga::answer::Refused;
use crate::snapshot::saga::core::Core;
use crate::snapshot::saga::leases::{Mode, Resource};
use crate::snapshot::saga::plan::{self, plan_each, refused};
use crate::text::Text;
use crate::text::catalog::snapshot as texts;

/// What would become of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Every disk that was looked at, in the order of the members.
    pub disks: Vec<CheckedDisk>,
    /// What the call would answer, or its job end with; `None` if the set would be taken.
    pub refused: Option<Refused>,
}

/// What would become of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedDisk {
    /// The machine.
    pub machine: Arc<Machine>,
    /// Its id within the machine.
    pub disk: String,
    /// The active file.
    pub file: PathBuf,
    /// The storage driver that would capture it, or why none would.
    pub driver: Result<String, Text>,
    /// Type of the file system of the active file.
    pub file_system: String,
}

/// Makes every check that a create makes before it is accepted, and looks for the space that its job would look for.
/// Changes nothing and holds nothing afterwards. A call that comes meanwhile waits for it.
///
/// # Errors
/// [`Refused`]: what was looked at does not matter.
pub(crate) async fn check(core: Arc<Core>, request: CreateRequest) -> Result<Checked, Refused> {
    let (job, set) = (JobId::random(), SetId::random());
    let collection = request.collection;
    let taken = accept::lease(&core, job, texts::CHECKING.text(), move |state| {
        let selection = selection::resolve(state, collection)?;
        let machines = selection.machines.iter();
        let wanted = machines.map(|m| (Resource::Machine(*m), Mode::Brief));
        let wanted = wanted.collect();
        Ok((selection, wanted))
    });
    let (selection, _lease) = taken.await?;
    let needs = |gone| running::needs(gone, request.consistency);
    let looked = accept::admit_all(&core, selection.members(needs)).await;
    let leave_out = request.ignore_non_snapshottable_disks;
    let consistency = request.consistency;
    let members = plan_each(&core, looked, move |core, machine| {
        Ok(match machine {
            Ok(machine) => member(core, set, machine, leave_out, consistency),
            Err(refused) => Member {
                refused: Some(refused),
                ..Member::default()
            },
        })
    });
    let (mut disks, mut refusals, mut later) = (Vec::new(), Vec::new(), Vec::new());
    for member in members.await? {
        disks.extend(member.disks);
        refusals.extend(member.refused);
        later.extend(member.fails);
    }
    Ok(Checked {
        disks,
        refused: plan::joined(refusals).or_else(|| plan::joined(later)),
    })
}

#[derive(Default)]
struct Member {
    disks: Vec<CheckedDisk>,
    /// The call would be refused.
    refused: Option<Refused>,
    /// It would be accepted, and its job fail.
    fails: Option<Refused>,
    /// Why disks cannot be captured.
    left_out: Vec<Text>,
}

/// Holds the machine and looks at each of its disks.
fn member(
    core: &Core,
    set: SetId,
    machine: Arc<Machine>,
    leave_out: bool,
    consistency: Consistency,
) -> Member {
    let mut it = Member::default();
    let runs = running::look(core, &machine, consistency);
    let hold = match runs {
        Ok(None) => core.deps.compute.hold(&machine),
        Ok(Some(_)) | Err(_) => Ok(Hold::default()), // whatever runs it holds its images
    };
    let live = runs.as_ref().ok().and_then(|runs| Some(runs.as_ref()?.1));
    it.refused = runs.err();
    // What the definition said before the images were held may be old.
    let machine = core.deps.compute.machine(machine.id).unwrap_or(machine);
    if let Err(error) = &hold {
        it.refused.get_or_insert(refused(error.clone()));
    }
    let misnamed = core.deps.compute.misnamed(machine.id);
    if let Some((_, why)) = &misnamed {
        it.refused.get_or_insert(Refused::InvalidState(why.clone()));
    }
    for disk in &machine.disks {
        let driver = match (&hold, &misnamed) {
            (Err(error), _) => Err(error.text.clone()),
            (Ok(_), Some((id, why))) if *id == disk.id => Err(why.clone()),
            (Ok(_), _) => plan(core, set, (&machine, live), disk, &mut it),
        };
        it.disks.push(CheckedDisk {
            machine: Arc::clone(&machine),
            disk: disk.id.clone(),
            file: disk.file.clone(),
            driver,
            file_system: core.deps.compute.file_system(disk),
        });
    }
    let none = it.left_out.len() == machine.disks.len();
    if let Some(cause) = it.left_out.first()
        && (none || !leave_out)
    {
        let why = draft::not_captured(&machine, none, leave_out, cause.clone());
        it.refused.get_or_insert(why);
    }
    it
}

/// The driver of the disk, or why there is none; notes what follows for the whole.
fn plan(
    core: &Core,
    set: SetId,
    (machine, live): (&Machine, Option<Live>),
    disk: &Disk,
    member: &mut Member,
) -> Result<String, Text> {
    let storage = &core.deps.storage;
    let plan = draft::planned(core, machine, disk, set, live).map_err(|error| {
        let EngineError { kind, text } = &error;
        if *kind == EngineErrorKind::Unsupported {
            member.left_out.push(text.clone());
        } else {
            member.refused.get_or_insert(refused(error.clone()));
        }
        text.clone()
    });
    let (plan, _) = plan?;
    let room = storage.of(&plan).and_then(|driver| driver.room(&plan));
    room.map_err(|error| {
        member
            .fails
            .get_or_insert(Refused::Failed(error.text.clone()));
        error.text
    })?;
    Ok(plan.driver)
}
