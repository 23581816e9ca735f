//! The steps of an apply in order; `undo` removes what `prepare` made.

use std::sync::LazyLock;

use crate::engine::{Driver, EngineError, RevertPlan};
use crate::snapshot::apply::{Apply, Member, ended};
use crate::snapshot::destroy::{self, Freed};
use crate::snapshot::saga::claims::InUse;
use crate::snapshot::saga::kind::{Kind, Step, Work, points};
use crate::snapshot::saga::operation::Operation;
use crate::snapshot::unreached::Unreached;
use crate::text::catalog::snapshot as texts;

/// Up to and including the commit record, which is the last step.
pub(crate) const TAKE: &[Step<Apply>] = &[
    Step {
        name: "prepare",
        percent: 1,
        doing: texts::APPLY_PREPARING,
        work: Work::Parts {
            run: prepare,
            undo: Some(undo),
        },
    },
    Step {
        name: "commit",
        percent: 70,
        doing: texts::APPLY_COMMITTING,
        work: Work::Record(Apply::record),
    },
];

/// After the commit point.
pub(crate) const FINISH: &[Step<Apply>] = &[
    Step {
        name: "revert",
        percent: 75,
        doing: texts::APPLY_REVERTING,
        work: Work::Parts {
            run: revert,
            undo: None,
        },
    },
    Step {
        name: "tops",
        percent: 85,
        doing: texts::SWITCHING,
        work: Work::Parts {
            run: switch,
            undo: None,
        },
    },
    Step {
        name: "discard",
        percent: 90,
        doing: texts::APPLY_TIDYING,
        work: Work::Parts {
            run: discard_old,
            undo: None,
        },
    },
    Step {
        name: "publish",
        percent: 95,
        doing: texts::APPLY_PUBLISHING,
        work: Work::Publish,
    },
    Step {
        name: "tidy",
        percent: 98,
        doing: texts::APPLY_TIDYING,
        work: Work::Parts {
            run: tidy,
            undo: None,
        },
    },
    Step {
        name: "clear",
        percent: 99,
        doing: texts::CLEARING,
        work: Work::Clear,
    },
];

/// Every fail point of an apply, in the order in which they are passed; those of the undo last.
pub static FAILPOINTS: LazyLock<Vec<&'static str>> = LazyLock::new(points::<Apply>);

fn driver<'a>(
    operation: &'a Operation<Apply>,
    revert: &RevertPlan,
) -> Result<&'a dyn Driver, EngineError> {
    operation.drivers().of_revert(revert)
}

fn prepare(operation: &Operation<Apply>, member: &Member) -> Result<(), EngineError> {
    for revert in &member.reverts {
        let prepared = driver(operation, revert)?.prepare_revert(revert)?;
        operation.kind.note(member, &revert.disk.id, prepared);
    }
    hold_new(operation, member)
}

/// Holds the new files beside the old ones, so that nobody opens one while it takes its place.
fn hold_new(operation: &Operation<Apply>, member: &Member) -> Result<(), EngineError> {
    for revert in &member.reverts {
        operation.hold_also(member.machine, revert.made(), || {
            driver(operation, revert)?.hold_revert(revert)
        })?;
    }
    Ok(())
}

fn undo(operation: &Operation<Apply>, member: &Member) -> Result<(), EngineError> {
    let undone = member
        .reverts
        .iter()
        .map(|revert| {
            let undone = driver(operation, revert)?.undo_revert(revert);
            or_left(operation, revert, undone)
        })
        .collect::<Vec<_>>();
    undone.into_iter().collect() // only now, so that a failure stops the undo of no other disk
}

/// Whether the new file is gone from where it was made, or is remembered as one that could not be reached.
fn or_left(
    operation: &Operation<Apply>,
    revert: &RevertPlan,
    gone: Result<(), EngineError>,
) -> Result<(), EngineError> {
    let made = Unreached {
        machine: revert.machine,
        machine_name: &revert.machine_name,
        disk: &revert.disk.id,
        file: revert.made().to_owned(),
    };
    operation.or_left(gone, revert.is_beside(), |core| made.remember(core))
}

/// After the end of the job nothing is done to a machine any more: it may run by then.
fn is_over(operation: &Operation<Apply>) -> bool {
    ended(&operation.core.deps.store.state(), operation.kind.job())
}

fn revert(operation: &Operation<Apply>, member: &Member) -> Result<(), EngineError> {
    let machine = operation.present(member.machine, &member.name, &member.definition)?;
    let Some(machine) = machine.filter(|_| !is_over(operation)) else {
        return Ok(());
    };
    operation.hold(&machine)?;
    hold_new(operation, member)?;
    for revert in &member.reverts {
        driver(operation, revert)?.revert(revert)?;
    }
    Ok(())
}

fn switch(operation: &Operation<Apply>, member: &Member) -> Result<(), EngineError> {
    let machine = operation.present(member.machine, &member.name, &member.definition)?;
    if machine.is_none() || is_over(operation) {
        return Ok(());
    }
    let made = operation.kind.made(member.machine);
    operation
        .compute()
        .set_applied(member.machine, &member.tops, &made)
}

/// Removes the old tops that are ours, and what lay under them, if nothing needs it any more, as long as they are held:
/// a machine that is started by an old name after that finds nothing to write into. The operator's own files are never
/// removed. A step of its own, after all members were switched: none looks while another's old file goes.
fn discard_old(operation: &Operation<Apply>, member: &Member) -> Result<(), EngineError> {
    let machine = operation.present(member.machine, &member.name, &member.definition)?;
    if machine.is_none() || is_over(operation) {
        return Ok(());
    }
    let core = &operation.core;
    let in_files = |r: &RevertPlan| core.deps.storage.in_files(&r.kept);
    let moved = |r: &&RevertPlan| r.moves() && in_files(r);
    let old: Vec<_> = member.reverts.iter().filter(moved).collect();
    let old = old.iter().map(|r| &r.disk);
    let mut layers = member.layers.clone();
    if layers.is_empty() && old.len() > 0 {
        // A journal of a version that did not note them.
        let also = old
            .clone()
            .map(|d| (d.id.clone(), d.file.clone(), d.format));
        layers = destroy::all_layers(core, member.machine, &member.name, also.collect());
    }
    if layers.is_empty() {
        return Ok(()); // the simulation has no files
    }
    let freed = Freed {
        machine: member.machine,
        name: &member.name,
        tops: old.map(|d| d.file.clone()).collect(),
        layers,
    };
    let waiting = |in_use: &InUse| operation.progress(90, in_use.text());
    destroy::after_apply(core, freed, operation.kind.job(), &waiting)
}

/// Removes the safety copies. The new files stay, also where no machine is found that runs on them: its definition may
/// have a mistake, or its folder be set aside, and one of them may be its active file. Files of nobody are told.
fn tidy(operation: &Operation<Apply>, member: &Member) -> Result<(), EngineError> {
    for revert in &member.reverts {
        let settled = driver(operation, revert)?.settle_revert(revert);
        or_left(operation, revert, settled)?;
    }
    Ok(())
}
