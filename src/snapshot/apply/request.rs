//! How a request to apply a set is accepted: leases, looks, plans, and the start of its job.

use std::sync::Arc;

use crate::id::{JobId, SetId, SnapshotId};
use crate::inventory::{Affected, JobKind, RunState, Service};
use crate::job::NewJob;
use crate::snapshot::apply::draft;
use crate::snapshot::apply::{Apply, Intent, resources};
use crate::snapshot::damage;
use crate::snapshot::saga::accept::{self, Needs, about};
use crate::snapshot::saga::answer::{Accepted, Refused};
use crate::snapshot::saga::core::Core;
use crate::snapshot::saga::kind::Kind as _;
use crate::snapshot::saga::plan::plan_each;
use crate::snapshot::saga::start::start;
use crate::text::Text;
use crate::text::catalog::snapshot as texts;

/// A request to apply a set, or one snapshot of it.
#[derive(Debug, Clone)]
pub struct ApplyRequest {
    /// The set.
    pub set: SetId,
    /// Only this snapshot of it; all if `None`.
    pub only: Option<SnapshotId>,
    /// The user who called.
    pub owner: String,
}

/// Locks the members and starts the job that puts their disks back. Answers once job and journal are durable.
///
/// # Errors
/// [`Refused`].
pub(crate) async fn apply(core: Arc<Core>, request: ApplyRequest) -> Result<Accepted, Refused> {
    let ids = Accepted {
        job: JobId::random(),
        set: request.set,
    };
    let only = request.only;
    let noticed = damage::notice(&core, None, move |set| set.id == ids.set).await;
    noticed.map_err(|e| core.store_failed(&e))?;
    let doing = texts::APPLYING.with("set", ids.set);
    let taken = accept::lease(&core, ids.job, doing.clone(), move |state| {
        let Some(set) = state.sets.get(&ids.set) else {
            let text = texts::NO_SET.with("set", ids.set);
            return Err(Refused::InvalidParameter(text));
        };
        let wanted = |id| only.is_none_or(|only| only == id);
        let members = set.members.iter().filter(|m| wanted(m.id));
        let members: Vec<_> = members.cloned().collect();
        let damaged = damage::refusals(set, &members);
        let wanted = resources(ids.set, members.iter().map(|m| m.machine));
        Ok(((members, damaged), wanted))
    });
    let ((snapshots, damaged), lease) = taken.await?;
    let about = about(&core.deps.store.state(), ids.set, &snapshots);
    let members = snapshots.iter().map(|snapshot| {
        let gone = texts::APPLY_MEMBER_GONE.with("machine", &snapshot.machine_name);
        (snapshot.machine, needs(gone))
    });
    let members = members.collect();
    let looked = accept::admit_all(&core, members).await;
    let affected = snapshots.iter().map(|m| Affected::Machine(m.machine));
    let affected = affected.chain([Affected::Set(ids.set)]).collect();
    let (shared, members) = (Arc::clone(&core), snapshots.clone());
    let machines = looked.into_iter().zip(snapshots);
    let machines = machines.map(|(machine, snapshot)| {
        let damaged = damaged.get(&snapshot.id).cloned();
        let machine = machine.and_then(|m| damaged.map_or(Ok(m), Err));
        (machine, snapshot)
    });
    let machines = machines.collect();
    let uses = accept::answered(move || Arc::new(draft::uses(&shared, &members)));
    let uses = uses.await.map_err(|e| e.refused(&core))?;
    let planned = plan_each(&core, machines, move |core, (machine, snapshot)| {
        draft::plan_member(core, ids, machine?, &snapshot, &uses)
    });
    let (members, holds) = planned.await?.into_iter().unzip::<_, _, Vec<_>, Vec<_>>();
    let holds = members.iter().map(|m| m.machine).zip(holds).collect();
    let job = NewJob {
        id: ids.job,
        kind: JobKind::ApplySnapshotSet,
        service: match only {
            Some(_) => Service::VirtualSystemSnapshot,
            None => Service::CollectionSnapshot,
        },
        owner: request.owner,
        affected,
        about,
        set: Some(ids.set),
        status: doing,
    };
    let intent = Intent {
        job: ids.job,
        set: ids.set,
        members,
    };
    start(&core, Apply::new(intent), job, holds, lease).await?;
    Ok(ids)
}

/// What an apply needs of a machine: that nothing runs it, so that other files can become its active ones.
fn needs(gone: Text) -> Needs {
    Needs::new(gone, |state| {
        (state != RunState::Off).then_some(texts::APPLY_MEMBER_RUNNING)
    })
}
