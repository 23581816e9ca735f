//! Planning a create: locks the images of each machine, has a driver plan each disk, and builds the intent with every
//! file name before anything is made.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::engine::{EngineError, EngineErrorKind, Hold, Live, Plan};
use crate::id::{SetId, SnapshotId, VmId};
use crate::inventory::{Consistency, Disk, Machine, NAME_MAX, Snapshot, SnapshotSet};
use crate::snapshot::create::selection::Selection;
use crate::snapshot::create::{CreateRequest, FileCopy, Intent, Member, Runs, running};
use crate::snapshot::saga::answer::{Accepted, Refused};
use crate::snapshot::saga::core::Core;
use crate::snapshot::saga::plan::refused;
use crate::text::Text;
use crate::text::catalog::snapshot as texts;

/// A machine that is held, and how its disks will be captured.
pub(crate) struct Planned {
    machine: Arc<Machine>,
    hold: Hold,
    plans: Vec<Plan>,
    left_out: Vec<String>,
    runs: Option<Runs>,
}

/// Holds the machine and plans each of its disks.
///
/// # Errors
/// A disk that is in use, or that nothing here can capture; if such disks are left out, a machine of which nothing else
/// is there.
pub(crate) fn plan_member(
    core: &Core,
    set: SetId,
    machine: Arc<Machine>,
    leave_out: bool,
    consistency: Consistency,
) -> Result<Planned, Refused> {
    let (mut runs, live) = running::look(core, &machine, consistency)?.unzip();
    let hold = match runs {
        None => core.deps.compute.hold(&machine).map_err(refused)?,
        Some(_) => Hold::default(), // whatever runs it holds its images
    };
    // What the definition said before the images were held may be old.
    let machine = core.deps.compute.machine(machine.id).unwrap_or(machine);
    if let Some((_, why)) = core.deps.compute.misnamed(machine.id) {
        return Err(Refused::InvalidState(why));
    }
    let (mut plans, mut left_out, mut why) = (Vec::new(), Vec::new(), None);
    for disk in &machine.disks {
        match planned(core, &machine, disk, set, live) {
            Ok((plan, takes)) => {
                if let (Some(runs), true) = (&mut runs, takes) {
                    runs.takes.insert(disk.id.clone());
                }
                plans.push(plan);
            }
            Err(e) if e.kind == EngineErrorKind::Unsupported => {
                left_out.push(disk.id.clone());
                why = why.or(Some(e.text));
            }
            Err(e) => return Err(refused(e)),
        }
    }
    if let Some(cause) = why
        && (plans.is_empty() || !leave_out)
    {
        return Err(not_captured(&machine, plans.is_empty(), leave_out, cause));
    }
    Ok(Planned {
        machine,
        hold,
        plans,
        left_out,
        runs,
    })
}

/// The plan of a disk, and whether its machine carries it out.
///
/// # Errors
/// As [`crate::engine::Drivers::plan`], and [`EngineErrorKind::Unsupported`] if the machine would have to and cannot.
pub(crate) fn planned(
    core: &Core,
    machine: &Machine,
    disk: &Disk,
    set: SetId,
    live: Option<Live>,
) -> Result<(Plan, bool), EngineError> {
    let plan = core.deps.storage.plan(machine, disk, set, live)?;
    let takes = live.is_some() && running::takes(core, &plan)?;
    Ok((plan, takes))
}

/// The refusal of a machine with a disk that cannot be captured, or with `none` that can. Leaving that disk out is
/// offered only where another one would be captured.
pub(crate) fn not_captured(machine: &Machine, none: bool, leave_out: bool, cause: Text) -> Refused {
    Refused::InvalidState(match (none, leave_out) {
        (false, _) => texts::DISK_NOT_CAPTURABLE.with("cause", cause),
        (true, false) => cause,
        (true, true) => {
            let text = texts::MEMBER_NOT_CAPTURABLE.with("machine", &machine.name);
            text.with("cause", cause)
        }
    })
}

impl Planned {
    /// Whether it is not off.
    pub(crate) fn runs(&self) -> bool {
        self.runs.is_some()
    }
}

/// Everything that will be, with its names.
pub(crate) fn draft(
    core: &Core,
    ids: Accepted,
    request: &CreateRequest,
    selection: &Selection,
    planned: Vec<Planned>,
    boot: Option<String>,
) -> (Intent, BTreeMap<VmId, Hold>) {
    let now = core.deps.clock.now();
    let named = |whose: &str| {
        request
            .name
            .clone()
            .unwrap_or_else(|| default_name(whose, now))
    };
    let state = core.deps.store.state();
    let folder = core.sets().join(ids.set.to_string());
    let (mut snapshots, mut members, mut holds) = (Vec::new(), Vec::new(), BTreeMap::new());
    for member in planned {
        let machine = member.machine;
        let definition = FileCopy {
            from: machine.definition.clone(),
            to: folder.join(machine.id.to_string()).join("vm.toml"),
        };
        let drivers = member.plans.iter().filter_map(|plan| {
            let driver = core.deps.storage.of(plan).ok()?;
            let top = (plan.disk.id.clone(), driver.top_after(plan));
            Some((driver.captured(plan), top))
        });
        let (disks, tops): (Vec<_>, BTreeMap<_, _>) = drivers.unzip();
        snapshots.push(Snapshot {
            id: SnapshotId::random(),
            machine: machine.id,
            machine_name: machine.name.clone(),
            name: named(&machine.name),
            parent: state.position(machine.id).parent,
            disks,
            left_out: member.left_out,
            consistency: match &member.runs {
                Some(runs) if !runs.quiesces => Consistency::Crash,
                _ => Consistency::Application, // if it is off, nothing is unwritten
            },
            definition: definition.to.clone(),
            definition_sha256: None, // known once it is written
            cut_at: now,
        });
        members.push(Member {
            machine: machine.id,
            name: machine.name.clone(),
            definition,
            plans: member.plans,
            tops,
            runs: member.runs,
        });
        holds.insert(machine.id, member.hold);
    }
    let set = SnapshotSet {
        id: ids.set,
        name: named(&selection.name),
        kind: request.kind,
        collection: Some(request.collection),
        created: now,
        members: snapshots,
        window: SignedDuration::ZERO,
        owner: request.owner.clone(),
        job: ids.job,
    };
    let intent = Intent { set, members, boot };
    (intent, holds)
}

/// `<name> - (<UTC time>)`, with as much of the name as fits.
fn default_name(name: &str, now: Timestamp) -> String {
    let time = format!(" - ({})", now.strftime("%Y-%m-%d %H:%M:%SZ"));
    let rest = NAME_MAX.saturating_sub(time.chars().count());
    name.chars().take(rest).chain(time.chars()).collect()
}
