//! Hidden layers of a machine: files that no snapshot names and others still lie on, and their merge on request.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::audit::About;
use crate::engine::{At, EngineError};
use crate::id::{JobId, SetId, VmId};
use crate::inventory::{Affected, JobKind, Leftover, Machine, Service};
use crate::job::NewJob;
use crate::snapshot::damage;
use crate::snapshot::destroy::left::{Need, Needed};
use crate::snapshot::destroy::look::survey;
use crate::snapshot::destroy::{Destroy, Intent, Member, draft, free, left};
use crate::snapshot::saga::accept::{self, admit};
use crate::snapshot::saga::answer::{Accepted, Refused};
use crate::snapshot::saga::core::Core;
use crate::snapshot::saga::kind::Kind as _;
use crate::snapshot::saga::leases::{Mode, Resource};
use crate::snapshot::saga::start::start;
use crate::text::Text;
use crate::text::catalog::snapshot as texts;

/// A file that no snapshot names and another one lies on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hidden {
    /// The machine.
    pub machine: VmId,
    /// The disk.
    pub disk: String,
    /// The file.
    pub file: PathBuf,
    /// Why it cannot be merged now; `None` if it can.
    pub why: Option<Text>,
}

/// The hidden layers of a machine. Blocks.
///
/// # Errors
/// A file of some machine cannot be seen, so nothing is known of what lies on what.
pub(crate) fn hidden(core: &Arc<Core>, machine: &Machine) -> Result<Vec<Hidden>, EngineError> {
    let member = member(core, machine.id, &machine.name);
    if member.layers.is_empty() {
        return Ok(Vec::new());
    }
    let survey = survey(core, &member)?;
    let (mut hidden, mut seen) = (Vec::new(), BTreeSet::new());
    while let Some((layer, judged)) = survey.mergeable(&seen) {
        seen.insert(layer.file.clone());
        hidden.push(Hidden {
            machine: machine.id,
            disk: layer.disk.clone(),
            file: layer.file.clone(),
            why: judged.and_then(|merge| survey.fits(&merge)).err(),
        });
    }
    Ok(hidden)
}

/// What operations have left, each with the reason why it cannot be removed now. Blocks.
pub(crate) fn leftovers(core: &Arc<Core>) -> Vec<(Leftover, Option<Text>)> {
    let all = core.deps.store.state().leftovers.clone();
    let files = core.deps.storage.files();
    let ours = all.values().filter(|l| damage::is_left(l));
    let away = |left: &Leftover| {
        let gone = files.is_gone(&*core.deps.compute, left.machine, &left.file);
        let away = files.is_beside(&left.file) && !gone.unwrap_or(false);
        away.then(|| (left.clone(), Some(texts::LEFT_AWAY.text())))
    };
    let needed = Needed::of(core);
    let told = ours.filter_map(|left| {
        if left.sealed.is_none() {
            match needed.by(core, left) {
                Some(Need::Named) => return None,
                Some(Need::Perhaps(file)) => {
                    let why = texts::LEFT_NEEDED.with("file", file.display());
                    return Some((left.clone(), Some(why)));
                }
                Some(Need::Forgotten(folder)) => {
                    let why = texts::KEPT_FORGOTTEN.with("file", left.file.display());
                    let why = why.with("folder", folder.display());
                    return Some((left.clone(), Some(why)));
                }
                Some(Need::Under) => {
                    return Some((left.clone(), Some(texts::LEFT_UNDER.text())));
                }
                None => {}
            }
            // Nothing lay on it, or could.
            return if files.is_there(&left.file) {
                Some((left.clone(), None))
            } else {
                away(left)
            };
        }
        let member = member(core, left.machine, &left.machine_name);
        match survey(core, &member) {
            Err(error) => Some((
                left.clone(),
                Some(texts::LEFT_DOUBTFUL.with("cause", error)),
            )),
            // What others lie on is a hidden layer; what is not there is forgotten with the next look.
            Ok(survey) => match survey.away_over(&left.file) {
                Some(away) => {
                    let at = At::new(&left.machine_name, &left.disk);
                    let error = at.io(away, &io::ErrorKind::NotFound.into());
                    Some((
                        left.clone(),
                        Some(texts::LEFT_DOUBTFUL.with("cause", error)),
                    ))
                }
                None if survey.is_leaf(&left.file) => Some((left.clone(), None)),
                None => away(left),
            },
        }
    });
    told.collect()
}

/// Starts the job that merges the hidden layers of a machine that is powered off, and removes what its destroyed
/// snapshots have left, also if it is gone itself. Goes forward from the answer on.
///
/// # Errors
/// [`Refused`].
pub(crate) async fn tidy(
    core: Arc<Core>,
    machine: VmId,
    owner: String,
) -> Result<Accepted, Refused> {
    let ids = Accepted {
        job: JobId::random(),
        set: SetId::random(),
    };
    let doing = texts::TIDYING.with("machine", machine);
    let wanted = vec![(Resource::Machine(machine), Mode::Exclusive)];
    let leased = accept::lease(&core, ids.job, doing.clone(), move |_| {
        Ok(((), wanted.clone()))
    });
    let ((), lease) = leased.await?;
    let shared = Arc::clone(&core);
    let member = accept::answered(move || {
        let name = name(&shared, machine)?;
        Ok((member(&shared, machine, &name), name))
    });
    let member = member.await;
    let (member, called) = member.unwrap_or_else(|e| Err(e.refused(&core)))?;
    let intent = Intent {
        job: ids.job,
        set: ids.set,
        members: vec![member],
        tidies: true,
    };
    let job = NewJob {
        id: ids.job,
        kind: JobKind::DestroySnapshotSet,
        service: Service::CollectionSnapshot,
        owner,
        affected: vec![Affected::Machine(machine)],
        about: About::default().machine(machine, &called),
        set: None,
        status: doing,
    };
    start(&core, Destroy::new(intent), job, BTreeMap::new(), lease).await?;
    Ok(ids)
}

/// The name of a machine that is powered off, or gone and has left something.
fn name(core: &Core, machine: VmId) -> Result<String, Refused> {
    let compute = &core.deps.compute;
    if compute.is_gone(machine) {
        let state = core.deps.store.state();
        if let Some(left) = left::of(&state, machine).next() {
            return Ok(left.machine_name.clone());
        }
    }
    compute.catch_up();
    let gone = texts::MEMBER_UNREADABLE.with("machine", machine);
    let machine = admit(core, machine, draft::needs(gone))?;
    Ok(machine.name.clone())
}

/// The machine with all its files, and no snapshot that goes.
fn member(core: &Core, machine: VmId, name: &str) -> Member {
    let layers = free::all_layers(core, machine, name, Vec::new());
    free::bare(core, machine, name, BTreeSet::new(), layers)
}
