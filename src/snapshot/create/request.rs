//! How a request for a set is accepted: selection, leases, looks, plans, and the start of its job.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use crate::id::{CollectionId, JobId, SetId};
use crate::inventory::{Affected, Consistency, JobKind, Service, SetKind, SnapshotSet};
use crate::job::NewJob;
use crate::snapshot::create::draft::{self, Planned};
use crate::snapshot::create::{Create, running, selection};
use crate::snapshot::damage;
use crate::snapshot::saga::accept;
use crate::snapshot::saga::answer::{Accepted, Refused};
use crate::snapshot::saga::core::Core;
use crate::snapshot::saga::kind::Kind as _;
use crate::snapshot::saga::leases::{Mode, Resource};
use crate::snapshot::saga::plan::plan_each;
use crate::snapshot::saga::start::start;
use crate::snapshot::saga::word;
use crate::text::catalog::snapshot as texts;

/// A request for a snapshot set; the provider has checked the form of its parameters.
#[derive(Debug, Clone)]
pub struct CreateRequest {
    /// The collection of machines, or of collections.
    pub collection: CollectionId,
    /// ElementName of the settings, if given and not empty.
    pub name: Option<String>,
    /// Standard or recovery.
    pub kind: SetKind,
    /// The level wanted.
    pub consistency: Consistency,
    /// Leave out disks that cannot be captured instead of refusing.
    pub ignore_non_snapshottable_disks: bool,
    /// The user who called.
    pub owner: String,
}

/// Checks the request against the state, locks the members and starts the job. Answers once job and journal are durable.
///
/// # Errors
/// [`Refused`].
pub(crate) async fn create(core: Arc<Core>, request: CreateRequest) -> Result<Accepted, Refused> {
    let ids = Accepted {
        job: JobId::random(),
        set: SetId::random(),
    };
    let collection = request.collection;
    let doing = texts::ACCEPTED.with("set", ids.set);
    let taken = accept::lease(&core, ids.job, doing.clone(), move |state| {
        let selection = selection::resolve(state, collection)?;
        let machines = selection.machines.iter();
        let machines = machines.map(|m| (Resource::Machine(*m), Mode::Exclusive));
        let collections = selection.collections.iter();
        let collections = collections.map(|c| (Resource::Collection(*c), Mode::Shared));
        let wanted = machines.chain(collections).collect();
        Ok((selection, wanted))
    });
    let (selection, lease) = taken.await?;
    // Older sets of these machines may have been damaged meanwhile. That does not affect this set, which captures the
    // present content, but it is the moment to notice and report it.
    let under: BTreeSet<_> = selection.machines.iter().copied().collect();
    let concerns = move |set: &SnapshotSet| set.members.iter().any(|m| under.contains(&m.machine));
    let noticed = damage::notice(&core, Some(ids.job), concerns).await;
    noticed.map_err(|e| core.store_failed(&e))?;
    let needs = |gone| running::needs(gone, request.consistency);
    let looked = accept::admit_all(&core, selection.members(needs)).await;
    let leave_out = request.ignore_non_snapshottable_disks;
    let consistency = request.consistency;
    let planned = plan_each(&core, looked, move |core, machine| {
        draft::plan_member(core, ids.set, machine?, leave_out, consistency)
    });
    let planned = planned.await?;
    let boot = match planned.iter().any(Planned::runs) {
        true => Some(word::boot().map_err(no_word)?.to_owned()),
        false => None,
    };
    let (intent, holds) = draft::draft(&core, ids, &request, &selection, planned, boot);
    let about = intent
        .set
        .about(&core.deps.store.state().collections, |_| true);
    let affected = selection.machines.iter();
    let job = NewJob {
        id: ids.job,
        kind: JobKind::CreateSnapshotSet,
        service: Service::CollectionSnapshot,
        owner: request.owner,
        affected: affected.map(|m| Affected::Machine(*m)).collect(),
        about,
        set: Some(ids.set),
        status: doing,
    };
    start(&core, Create::new(intent), job, holds, lease).await?;
    Ok(ids)
}

/// Machines are stopped only where whoever comes after a death can tell what the commit word is worth.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the form that map_err asks for"
)]
fn no_word(error: io::Error) -> Refused {
    Refused::Failed(texts::WORD_FAILED.with("cause", &error))
}
