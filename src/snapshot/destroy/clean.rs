//! Cleaning up after one snapshot: unlink, merge, and go on until there is nothing more to do.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::engine::{At, EngineError, EngineErrorKind, Hold, Merge, Merged, Stamp, Survey, Watch};
use crate::held;
use crate::inventory::RunState;
use crate::snapshot::destroy::free::Remover;
use crate::snapshot::destroy::left::Left;
use crate::snapshot::destroy::look::survey;
use crate::snapshot::destroy::relink::{pass, relink, reseal, undefine, unsettled};
use crate::snapshot::destroy::{CLEAN, Destroy, Member, Record, again};
use crate::snapshot::known::Known;
use crate::snapshot::saga::accept::named;
use crate::snapshot::saga::claims::{FileGuard, FileUser};
use crate::snapshot::saga::core::Core;
use crate::snapshot::saga::kind::Kind as _;
use crate::snapshot::saga::operation::Operation;
use crate::text::Text;
use crate::text::catalog::snapshot as texts;

/// Attempts at a lock that our own freezer may take in between.
const ATTEMPTS: u32 = 50;
const MIB: u64 = 1 << 20;

/// Locks on the files that this member's merges write, kept until its end.
type Locks = BTreeMap<PathBuf, Hold>;

pub(super) fn clean(operation: &Operation<Destroy>, member: &Member) -> Result<(), EngineError> {
    let core = &operation.core;
    let (mut skip, mut locks, mut planned) = (BTreeSet::new(), Locks::new(), false);
    go_on(operation, member, &mut locks)?;
    let mut left = Left::default();
    let remover = Remover {
        core,
        kind: Destroy::NAME,
        name: &member.name,
        alone: &|files| alone(operation, files, &|| false),
        keep: &|why| keep(operation, why),
    };
    // The simulation has no files.
    while !member.layers.is_empty() {
        let mut survey = match survey(core, member) {
            Ok(survey) => survey,
            Err(e) => {
                keep(operation, e.text);
                left.blind = true;
                break;
            }
        };
        survey.touch(&operation.kind.written());
        if !planned {
            operation.kind.meter.plan(member.machine, survey.merges());
            planned = true;
        }
        if remover.sweep(member, &*survey, &mut left)? {
            continue;
        }
        let Some((layer, judged)) = survey.mergeable(&skip) else {
            left.files.extend(survey.doubtful());
            left.files.extend(survey.astray(&left.removed));
            break;
        };
        let layer = layer.file;
        let merged = match judged {
            Ok(merge) => {
                let still = |survey: &dyn Survey| survey.still(&merge);
                let done = one(operation, member, &merge, &mut locks, &still)?;
                operation.kind.meter.leave(member.machine, &merge.child);
                done
            }
            Err(why) => Err(why),
        };
        if let Err(why) = merged {
            keep(operation, why);
            skip.insert(layer);
        }
    }
    if !operation.kind.merges().is_empty() {
        reseal(operation, member)?;
    }
    left.remember(core, member)?;
    undefine(member)
}

/// Merges whose content was in the lower file when a process died.
fn go_on(
    operation: &Operation<Destroy>,
    member: &Member,
    locks: &mut Locks,
) -> Result<(), EngineError> {
    let merges = operation.kind.merges().clone();
    for (merge, seen) in merges.iter().filter(|(m, _)| m.machine == member.machine) {
        let is_as_then = |file: &Path, then: Stamp| {
            let content = |s: Stamp| (s.length, s.seconds, s.nanos);
            let now = operation.core.deps.storage.files().stamp(file);
            now.is_ok_and(|now| content(now) == content(then))
        };
        // Written since by whoever started the machine: what is in the lower file is old. So it is if the lower file
        // was put back as it was before, or one of another content in its place. The child still lies on it and shows what it
        // should; it is merged again or stays.
        let Some(ended) = seen.filter(|ended| is_as_then(&merge.child, ended.child)) else {
            continue;
        };
        let Some(parent) = ended.parent else {
            // What lay on the child may lie on the lower file by now, so that this is no merge of two neighbours to
            // whoever looks: it is done again here, unless somebody runs on the lower file or keeps it.
            let is_free = |survey: &dyn Survey| match survey.names_of(&merge.parent).first() {
                None => survey.require_own_above(&merge.parent),
                Some(_) => Err(texts::MERGE_PENDING.with("file", merge.parent.display())),
            };
            if survey(&operation.core, member).is_ok_and(|survey| is_free(&*survey).is_ok())
                && let Err(why) = one(operation, member, merge, locks, &is_free)?
            {
                keep(operation, why);
            }
            continue;
        };
        if !is_as_then(&merge.parent, parent) {
            continue;
        }
        // Its tops cannot be written, and the child may be one of them: both show the same, and stay.
        if operation
            .core
            .deps
            .compute
            .machine(member.machine)
            .is_none()
            && !is_kept(&operation.core, &merge.child)
        {
            continue;
        }
        let files = [merge.parent.clone(), merge.child.clone()];
        let _alone = alone(operation, &files, &|| false);
        if let Some(machine) = operation.core.deps.compute.machine(member.machine) {
            operation.hold(&machine)?;
        }
        match before_relink(operation, member, merge, locks)? {
            Ok(())
                if is_as_then(&merge.child, ended.child) && is_as_then(&merge.parent, parent) =>
            {
                relink(operation, member, merge)?;
            }
            Ok(()) => {} // written while it was waited
            // It still lies on the lower file and shows the same.
            Err(why) => keep(operation, why),
        }
        files.iter().for_each(|file| drop(locks.remove(file)));
    }
    Ok(())
}

/// That no other machine has anything on the files of a finished merge, of which the lower one may become an active file
/// and the overlay goes, and that none comes before that is so.
fn before_relink(
    operation: &Operation<Destroy>,
    member: &Member,
    merge: &Merge,
    locks: &mut Locks,
) -> Result<Result<(), Text>, EngineError> {
    let (core, files) = (&operation.core, [&merge.parent, &merge.child]);
    let at = At::new(&member.name, &merge.disk);
    for file in files {
        if held::symlink_metadata(file).is_ok()
            && !operation.is_held(file)
            && let Err(e) = lock(operation, &at, file, locks)
        {
            return Ok(Err(e.text));
        }
    }
    if let Err(why) = require_off(core, member, merge) {
        return Ok(Err(why));
    }
    let survey = match again::held(core, member, &merge.parent, &|| false) {
        Ok(survey) => survey,
        Err(why) => return Ok(Err(why)),
    };
    if let Some(why) = unsettled(&*survey, merge) {
        return Ok(Err(why));
    }
    let mut files = files.into_iter();
    Ok(files.try_for_each(|file| survey.require_own_above(file)))
}

/// That nothing runs the machine whose files are merged: where there are no locks, those that are held keep nobody out.
fn require_off(core: &Core, member: &Member, merge: &Merge) -> Result<(), Text> {
    match core.deps.compute.state(member.machine) {
        RunState::Off => Ok(()),
        state => {
            let text = texts::MERGE_RUNNING.with("machine", &member.name);
            let text = text.with("state", named(state));
            Err(text.with("file", merge.parent.display()))
        }
    }
}

/// Whether a snapshot names the file.
fn is_kept(core: &Core, file: &Path) -> bool {
    let known = Known::of(core);
    known.disks().any(|disk| disk.file == file) || !known.unreadable.is_empty()
}

/// One merge, if `judge` lets it be once nothing is waited for any more. Inside, why the layer is kept; outside,
/// trouble after which it only goes forward.
fn one(
    operation: &Operation<Destroy>,
    member: &Member,
    merge: &Merge,
    locks: &mut Locks,
    judge: &dyn Fn(&dyn Survey) -> Result<(), Text>,
) -> Result<Result<(), Text>, EngineError> {
    let core = &operation.core;
    let at = At::new(&member.name, &merge.disk);
    let pending = || {
        Ok(Err(
            texts::MERGE_PENDING.with("file", merge.parent.display())
        ))
    };
    let paused = || operation.paused().is_some();
    // Whoever cancels need not wait for an export either.
    let files = [merge.parent.clone(), merge.child.clone()];
    let Some(_alone) = alone(operation, &files, &paused) else {
        return pending();
    };
    if paused() {
        return pending();
    }
    if let Some(machine) = core.deps.compute.machine(member.machine)
        && let Err(e) = operation.hold(&machine)
    {
        return Ok(Err(e.text));
    }
    for file in [&merge.parent, &merge.child] {
        if !operation.is_held(file)
            && let Err(e) = lock(operation, &at, file, locks)
        {
            return Ok(Err(e.text));
        }
    }
    if let Err(why) = require_off(core, member, merge) {
        files.iter().for_each(|file| drop(locks.remove(file)));
        return Ok(Err(why));
    }
    // Others have come while the files were waited for.
    let survey = again::held(core, member, &merge.parent, &paused);
    let judged = survey.and_then(|mut survey| {
        survey.touch(&operation.kind.written());
        judge(&*survey)
    });
    if let Err(why) = judged {
        files.iter().for_each(|file| drop(locks.remove(file)));
        return Ok(Err(why));
    }
    pass(core, "merge", "before")?;
    let begun = Record::Merge {
        merge: merge.clone(),
    };
    operation.record(&begun)?;
    operation.kind.take_up(begun);
    operation.kind.meter.begin(core.deps.clock.elapsed());
    let progress = |done: u64, of: u64| told(operation, member, merge, (done, of));
    let files = core.deps.storage.files();
    let watch = Watch {
        progress: &progress,
        cancelled: &paused,
    };
    match files.merge(&at, merge, &*core.deps.compute, &watch) {
        Ok(Merged::Done) => {}
        Ok(Merged::Cancelled) => return pending(),
        Err(e) => return Ok(Err(e.text)),
    }
    pass(core, "merge", "after")?;
    let seen = |file: &Path| files.stamp(file).map_err(|e| at.io(file, &e));
    let merged = Record::Merged {
        child: merge.child.clone(),
        seen: seen(&merge.child)?,
        parent: Some(seen(&merge.parent)?),
    };
    operation.record(&merged)?;
    operation.kind.take_up(merged);
    pass(core, "named", "before")?;
    relink(operation, member, merge)?;
    locks.remove(&merge.child);
    Ok(Ok(()))
}

/// Shows how far a merge is, in bytes.
fn told(operation: &Operation<Destroy>, member: &Member, merge: &Merge, (done, of): (u64, u64)) {
    let (meter, machines) = (&operation.kind.meter, operation.kind.parts().len());
    let now = operation.core.deps.clock.elapsed();
    meter.step(member.machine, &merge.child, (done, of), now);
    let text = texts::MERGING
        .with("machine", &member.name)
        .with("disk", &merge.disk)
        .with("done", done / MIB)
        .with("of", of.div_ceil(MIB));
    let percent = meter.percent(CLEAN, machines).unwrap_or(CLEAN.0);
    operation.progress(percent, meter.told(text, machines));
}

/// No QEMU opens the file as long as it is in `locks`; our own freezer lets it go.
fn lock(
    operation: &Operation<Destroy>,
    at: &At,
    file: &Path,
    locks: &mut Locks,
) -> Result<(), EngineError> {
    if locks.contains_key(file) {
        return Ok(());
    }
    let mut left = ATTEMPTS;
    loop {
        operation.core.deps.frozen.release([file]);
        match operation.core.deps.storage.files().hold(at, file) {
            Ok(lock) => {
                locks.insert(file.to_owned(), lock);
                return Ok(());
            }
            Err(e) if e.kind != EngineErrorKind::Locked || left == 0 => return Err(e),
            Err(_) => left -= 1,
        }
    }
}

/// Waits until no export reads these files; `None` if it is given up before that.
fn alone(
    operation: &Operation<Destroy>,
    files: &[PathBuf],
    given_up: &dyn Fn() -> bool,
) -> Option<FileGuard> {
    let set = operation.kind.intent.set;
    let user = FileUser {
        job: operation.kind.intent.job,
        doing: texts::DESTROYING.with("set", set),
    };
    operation.core.claims.write(files, user, |in_use| {
        let why = texts::DESTROY_WAITS.with("set", set);
        operation.progress(CLEAN.0, why.with("cause", in_use.text()));
        match given_up() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })
}

fn keep(operation: &Operation<Destroy>, why: Text) {
    tracing::info!(set = %operation.kind.intent.set, why = why.english(), "A hidden layer stays");
    let mut kept = operation.kind.kept();
    if !kept.contains(&why) {
        kept.push(why);
    }
}
