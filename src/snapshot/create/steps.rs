//! The steps of a create in order, and their undos: `undefine` for the copy of the definition, `undo_disks` for
//! everything that `prepare`, `cut` and `settle` made.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::LazyLock;

use crate::document;
use crate::engine::{At, EngineError, EngineErrorKind, Plan};
use crate::held;
use crate::snapshot::create::{Create, Member, Record, running, window};
use crate::snapshot::damage;
use crate::snapshot::known;
use crate::snapshot::saga::kind::{Step, Work, points};
use crate::snapshot::saga::operation::Operation;
use crate::snapshot::unreached::Unreached;
use crate::store::record::SetRecord;
use crate::text::catalog::snapshot as texts;

/// Up to and including the commit record, which is the last step.
pub(crate) const TAKE: &[Step<Create>] = &[
    Step {
        name: "define",
        percent: 1,
        doing: texts::DEFINING,
        work: Work::Parts {
            run: define,
            undo: Some(undefine),
        },
    },
    Step {
        name: "prepare",
        percent: 5,
        doing: texts::PREPARING,
        work: Work::Parts {
            run: prepare,
            undo: Some(undo_disks),
        },
    },
    Step {
        name: "prepared",
        percent: 50,
        doing: texts::RECORDING,
        work: Work::Record(|create| Record::Prepared {
            made: create.all_made().clone(),
        }),
    },
    Step {
        name: "cut",
        percent: 52,
        doing: texts::CUTTING,
        work: Work::Parts {
            run: cut,
            undo: None, // `undo_disks` of prepare removes a cut as well
        },
    },
    // Those that are off stand still from acceptance on, so it does not matter that they are captured before the others.
    Step {
        name: "window",
        percent: 60,
        doing: texts::CUTTING,
        work: Work::Window {
            run: window::run,
            fences: window::fences,
            keep: window::keep,
            release: window::release,
            again,
        },
    },
    Step {
        name: "settle",
        percent: 70,
        doing: texts::SETTLING,
        work: Work::Parts {
            run: settle,
            undo: None,
        },
    },
    Step {
        name: "commit",
        percent: 85,
        doing: texts::COMMITTING,
        work: Work::Record(|create| Record::Cut {
            times: create.times(),
            seals: create.seals().clone(),
            definitions: create.digests().clone(),
        }),
    },
];

/// After the commit point.
pub(crate) const FINISH: &[Step<Create>] = &[
    Step {
        name: "record",
        percent: 86,
        doing: texts::SET_RECORDING,
        work: Work::Whole(record),
    },
    Step {
        name: "tops",
        percent: 88,
        doing: texts::SWITCHING,
        work: Work::Parts {
            run: switch,
            undo: None,
        },
    },
    Step {
        name: "publish",
        percent: 97,
        doing: texts::PUBLISHING,
        work: Work::Publish,
    },
    Step {
        name: "clear",
        percent: 99,
        doing: texts::CLEARING,
        work: Work::Clear,
    },
];

/// Every fail point of a create, in the order in which they are passed; those of the undo last.
pub static FAILPOINTS: LazyLock<Vec<&'static str>> = LazyLock::new(points::<Create>);

fn define(operation: &Operation<Create>, member: &Member) -> Result<(), EngineError> {
    let copy = || -> io::Result<String> {
        let to = &member.definition.to;
        let folder = held::make_folders(to.parent().unwrap_or(Path::new("/")), 3)?;
        let name = to.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        folder.remove_ours(name)?;
        let mut bytes = Vec::new();
        held::open(&member.definition.from, false)?.read_to_end(&mut bytes)?;
        let mut target = folder.create_new(name, 0o640)?;
        target.write_all(&bytes)?;
        target.sync_all()?;
        folder.sync()?;
        Ok(document::sha256(&bytes))
    };
    let digest = copy().map_err(|e| trouble(member, &e))?;
    operation.kind.digests().insert(member.machine, digest);
    Ok(())
}

fn undefine(_: &Operation<Create>, member: &Member) -> Result<(), EngineError> {
    let clear = || -> io::Result<()> {
        let to = &member.definition.to;
        held::discard(to, 3, None)?;
        held::remove_folders(to, 2)
    };
    clear().map_err(|e| trouble(member, &e))
}

fn prepare(operation: &Operation<Create>, member: &Member) -> Result<(), EngineError> {
    let drivers = operation.drivers();
    member
        .plans
        .iter()
        .try_for_each(|plan| drivers.of(plan)?.prepare(plan))?;
    for plan in member.taken() {
        if let Some(file) = drivers.of(plan)?.new_there(plan)?.file {
            let mut made = operation.kind.all_made();
            let made = made.entry(member.machine).or_default();
            made.insert(plan.disk.id.clone(), file);
        }
    }
    running::attach(operation, member)
}

fn undo_disks(operation: &Operation<Create>, member: &Member) -> Result<(), EngineError> {
    let stay = running::go_back(operation, member)?;
    running::decide(operation, member)?;
    let drivers = operation.drivers();
    let undone = member
        .plans
        .iter()
        .filter(|plan| !stay.contains(&plan.disk.id))
        .map(|plan| {
            let undone = drivers.of(plan)?.undo(plan);
            let made = plan.names().map(|file| Unreached {
                machine: plan.machine,
                machine_name: &plan.machine_name,
                disk: &plan.disk.id,
                file,
            });
            operation.or_left(undone, plan.is_beside(), |core| {
                made.into_iter().try_for_each(|file| file.remember(core))
            })
        })
        .collect::<Vec<_>>();
    undone.into_iter().collect() // only now, so that a failure stops the undo of no other disk
}

/// Of a machine that is off. Others come in the window, and it is the last thing before it that what they have written
/// is made durable.
fn cut(operation: &Operation<Create>, member: &Member) -> Result<(), EngineError> {
    let drivers = operation.drivers();
    if member.runs.is_some() {
        let mut plans = member.plans.iter();
        return plans.try_for_each(|plan| drivers.of(plan)?.flush(plan));
    }
    for plan in &member.plans {
        drivers.of(plan)?.cut(plan)?;
    }
    let now = operation.core.deps.clock.now();
    operation.kind.captured(member.machine, now);
    Ok(())
}

/// The process that captured is dead, and whatever it held was anybody's since.
fn again(operation: &Operation<Create>, member: &Member) -> Result<(), EngineError> {
    let drivers = operation.drivers();
    let mut kept = Vec::new();
    for plan in &member.plans {
        let driver = drivers.of(plan)?;
        if driver.captured(plan).file == plan.disk.file {
            kept.push((driver, plan));
        }
    }
    if kept.is_empty() {
        return Ok(()); // what was captured is a file of its own
    }
    if member.runs.is_some() {
        let files = kept.iter();
        let files = files.map(|(_, plan)| (plan.disk.file.clone(), At::plan(plan)));
        operation.core.deps.frozen.take_over([], &files.collect());
    } else if let Some(machine) =
        operation.present(member.machine, &member.name, &member.definition.from)?
    {
        operation.hold(&machine)?;
    }
    let captured = operation.kind.times().get(&member.machine).copied();
    let stays = kept.into_iter().map(|(driver, plan)| {
        let stays = driver.stays(plan, captured);
        stays.or_else(|error| stale(operation, member, plan, error))
    });
    stays.collect::<Vec<_>>().into_iter().collect()
}

/// The old file of a disk may have changed since it was captured: what its machine has written elsewhere since does not fit
/// it any more.
fn stale(
    operation: &Operation<Create>,
    member: &Member,
    plan: &Plan,
    error: EngineError,
) -> Result<(), EngineError> {
    let machine = member.machine;
    let is_known = [EngineErrorKind::Failed, EngineErrorKind::Locked].contains(&error.kind);
    if is_known
        && member.runs.is_some()
        && operation
            .kind
            .stale()
            .insert((machine, plan.disk.id.clone()))
    {
        let disk = plan.disk.id.clone();
        operation.record(&Record::Stale { machine, disk })?;
    }
    Err(error)
}

fn settle(operation: &Operation<Create>, member: &Member) -> Result<(), EngineError> {
    let drivers = operation.drivers();
    let known = damage::known(&operation.core.deps.store.state(), member.machine);
    running::close_ended(operation, member)?;
    let machine = operation.compute().machine(member.machine);
    let mut sealed = BTreeMap::new();
    for plan in &member.plans {
        let driver = drivers.of(plan)?;
        match driver.settle(plan) {
            // Somebody writes it, and whatever holds what its machine has written since is on another one.
            Err(error) if error.kind == EngineErrorKind::Locked => {
                stale(operation, member, plan, error)?;
            }
            settled => settled?,
        }
        if member.runs.is_some() {
            // Nothing is held of it: whoever starts it on an old file now would write to what the set keeps.
            let kept = (driver.captured(plan).file, At::plan(plan));
            let frozen = &operation.core.deps.frozen;
            frozen.take_over([], &BTreeMap::from([kept]));
        }
        let seals = driver.seal(plan, machine.as_deref(), &known)?;
        if let Some(sealed) = seals.first()
            && let Ok(meta) = held::symlink_metadata(&sealed.file)
        {
            operation.core.spaces.note(&sealed.file, &meta);
        }
        sealed.insert(plan.disk.id.clone(), seals);
    }
    operation.kind.seals().insert(member.machine, sealed);
    Ok(())
}

/// Writes `set.json`, durably, before any machine can be started on the new files.
fn record(operation: &Operation<Create>) -> Result<(), EngineError> {
    let core = &operation.core;
    let state = core.deps.store.state();
    let set = operation.kind.finished();
    if state.sets.contains_key(&set.id) {
        return Ok(()); // it is published, and changed since perhaps
    }
    known::record(core, &SetRecord::new(&set, &state.collections, 0))
}

/// A machine whose definition was removed since has no tops any more; one that merely cannot be read now is
/// waited for, as it would go on writing to a file that the snapshot keeps.
fn switch(operation: &Operation<Create>, member: &Member) -> Result<(), EngineError> {
    let compute = operation.compute();
    let from = &member.definition.from;
    let Some(machine) = operation.present(member.machine, &member.name, from)? else {
        return Ok(());
    };
    let now = machine.tops();
    // If nothing has to be switched, an earlier attempt did it, and the machine may be running by now: it is not held.
    // Nor is one that runs: whatever runs it holds its images.
    let is_off = member.runs.is_none();
    if is_off
        && member
            .tops
            .iter()
            .any(|(disk, top)| now.get(disk) != Some(top))
    {
        operation.hold(&machine)?;
    }
    compute.set_tops(member.machine, &member.tops)
}

fn trouble(member: &Member, error: &io::Error) -> EngineError {
    tracing::warn!(file = %member.definition.to.display(), %error, "The copy of a definition");
    EngineError {
        kind: EngineErrorKind::of(error),
        text: texts::DEFINITION_FAILED
            .with("machine", &member.name)
            .with("cause", error),
    }
}
