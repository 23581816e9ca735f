//! How the files of a machine are looked at, with all who may have something on them.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::engine::{EngineError, EngineErrorKind, Named, Scene, Subject, Survey};
use crate::held;
use crate::snapshot::destroy::Member;
use crate::snapshot::forgotten;
use crate::snapshot::known::{self, Known};
use crate::snapshot::names::{self, Told};
use crate::snapshot::orphans::ASIDE;
use crate::snapshot::saga::core::Core;
use crate::text::catalog::snapshot as texts;

/// Looks that end at a missing file before it counts as missing.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(20);

/// Looks, without the places that do not answer: what others have there counts as lying on all that it lay on.
///
/// # Errors
/// Something that may lie on these files cannot be seen.
pub(super) fn survey(core: &Arc<Core>, member: &Member) -> Result<Box<dyn Survey>, EngineError> {
    let (shared, member) = (Arc::clone(core), member.clone());
    let taken = held::look(move || settled(&shared, &member));
    taken.map_err(|e| unseen(&e))?
}

/// Files of other machines may go or change while we look, by their own cleaning: what is missing is
/// missing only if it is so every time, and other trouble is trouble if it is the same twice.
///
/// # Errors
/// Something that may lie on these files cannot be seen.
#[expect(
    clippy::disallowed_methods,
    reason = "on a blocking thread, for milliseconds; the cleaning of another machine tells nobody"
)]
fn settled(core: &Core, member: &Member) -> Result<Box<dyn Survey>, EngineError> {
    let (mut left, mut last) = (ATTEMPTS, None);
    loop {
        match look(core, member, false) {
            Err(e)
                if left > 0
                    && (e.kind == EngineErrorKind::Missing || last.as_ref() != Some(&e)) =>
            {
                (left, last) = (left - 1, Some(e));
                thread::sleep(PAUSE);
            }
            // What others cannot be seen to lie on may be known.
            Err(_) => return look(core, member, true),
            seen => return seen,
        }
    }
}

fn look(core: &Core, member: &Member, by_record: bool) -> Result<Box<dyn Survey>, EngineError> {
    let files = core.deps.storage.files();
    files.survey(scene(core, member, by_record)?)
}

/// With `by_record` files of other machines that cannot be read count as lying on all that they lay on.
fn scene(core: &Core, member: &Member, by_record: bool) -> Result<Scene, EngineError> {
    let compute = &core.deps.compute;
    let machines = compute.machines();
    if !machines.contains_key(&member.machine) && compute.recorded_of(member.machine).is_some() {
        return Err(EngineError {
            kind: EngineErrorKind::Failed,
            text: texts::MEMBER_UNREADABLE.with("machine", &member.name),
        });
    }
    let mut named: Vec<_> = names::active(&machines).collect();
    // What another machine runs on is needed, also where its definition cannot be read or has the disk no more.
    let mut untold = BTreeMap::new();
    for it in known::unread(core, &machines, Some(member.machine))? {
        untold.insert((it.machine, it.disk.clone()), it.below);
        named.push(Named {
            machine: it.machine,
            machine_name: it.machine.to_string(),
            disk: it.disk,
            file: it.top.file,
            format: it.top.format,
            by: None,
        });
    }
    let known = Known::of(core).whole()?;
    let in_files = names::kept(&known).filter(|(_, disk)| core.deps.storage.in_files(disk));
    named.extend(in_files.map(|(named, _)| named));
    let forgotten = forgotten::of(core).map_err(|e| unseen(&e))?;
    let mut forgotten = forgotten.into_iter();
    let forgotten = forgotten.find(|set| set.machines.contains(&member.machine));
    Ok(Scene {
        compute: Arc::clone(compute),
        machines,
        sets: core.sets(),
        aside: core.deps.data_dir.join(ASIDE),
        of: Subject {
            machine: member.machine,
            name: member.name.clone(),
            layers: member.layers.clone(),
        },
        named,
        untold,
        records: Arc::new(Told::of(known, compute).and(&member.sealed, &member.damaged)),
        forgotten: forgotten.map(|set| set.folder),
        by_record,
    })
}

fn unseen(cause: &io::Error) -> EngineError {
    EngineError {
        kind: EngineErrorKind::Failed,
        text: texts::SETS_UNREADABLE.with("cause", cause),
    }
}
