//! How a request to destroy a set, or a snapshot of it, is accepted: leases, looks, plans, and the start of its job.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::id::{JobId, SetId, SnapshotId, VmId};
use crate::inventory::{Affected, JobKind, Service, SnapshotSet};
use crate::job::NewJob;
use crate::snapshot::damage;
use crate::snapshot::destroy::draft::draft;
use crate::snapshot::destroy::{Destroy, Intent};
use crate::snapshot::saga::accept::{self, about};
use crate::snapshot::saga::answer::{Accepted, Refused};
use crate::snapshot::saga::core::Core;
use crate::snapshot::saga::kind::Kind as _;
use crate::snapshot::saga::leases::{Mode, Resource};
use crate::snapshot::saga::plan::plan_each;
use crate::snapshot::saga::start::start;
use crate::text::catalog::snapshot as texts;

/// A request to destroy a set or a part of it.
#[derive(Debug, Clone)]
pub struct DestroyRequest {
    /// The set.
    pub set: SetId,
    /// Only this member snapshot of it; all of them if `None`.
    pub snapshot: Option<SnapshotId>,
    /// The service whose method was called.
    pub service: Service,
    /// The user who called.
    pub owner: String,
}

/// Checks the request against the state, locks the members and the set and starts the job. Answers once job and journal
/// are durable; from then on it goes forward.
///
/// # Errors
/// [`Refused`].
pub(crate) async fn destroy(core: Arc<Core>, request: DestroyRequest) -> Result<Accepted, Refused> {
    let ids = Accepted {
        job: JobId::random(),
        set: request.set,
    };
    let (set, only) = (request.set, request.snapshot);
    let doing = match only {
        None => texts::DESTROYING.with("set", set),
        Some(_) => texts::DESTROYING_MEMBER.with("set", set),
    };
    let machines = core.deps.store.state().sets.get(&set).map(machines);
    let machines = machines.unwrap_or_default();
    // Sets of the same machines share files with it.
    let concerns =
        move |set: &SnapshotSet| set.members.iter().any(|m| machines.contains(&m.machine));
    let noticed = damage::notice(&core, None, concerns).await;
    noticed.map_err(|e| core.store_failed(&e))?;
    let (snapshots, lease) = accept::lease(&core, ids.job, doing.clone(), move |state| {
        let found = state.sets.get(&set).map(|s| s.members.clone());
        let mut found = found.unwrap_or_default();
        found.retain(|m| only.is_none_or(|id| m.id == id));
        if found.is_empty() {
            return Err(Refused::InvalidParameter(texts::NO_SET.with("set", set)));
        }
        let machines = found.iter().map(|m| Resource::Machine(m.machine));
        let wanted = machines.chain([Resource::Set(set)]);
        let wanted = wanted.map(|r| (r, Mode::Exclusive)).collect();
        Ok((found, wanted))
    })
    .await?;
    let about = about(&core.deps.store.state(), set, &snapshots);
    let affected = snapshots.iter().map(|m| Affected::Machine(m.machine));
    let affected = affected.chain([Affected::Set(set)]).collect();
    accept::caught_up(&core).await?;
    let members = plan_each(&core, snapshots, draft).await?;
    let intent = Intent {
        job: ids.job,
        set,
        members,
        tidies: false,
    };
    let job = NewJob {
        id: ids.job,
        kind: JobKind::DestroySnapshotSet,
        service: request.service,
        owner: request.owner,
        affected,
        about,
        set: None,
        status: doing,
    };
    start(&core, Destroy::new(intent), job, BTreeMap::new(), lease).await?;
    Ok(ids)
}

fn machines(set: &Arc<SnapshotSet>) -> BTreeSet<VmId> {
    set.members.iter().map(|m| m.machine).collect()
}
