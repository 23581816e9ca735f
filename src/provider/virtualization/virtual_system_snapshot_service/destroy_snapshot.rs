//! `DestroySnapshot`: destroys the snapshot of one machine, whichever set that belongs to; the last one takes its set along.
//! `docs/semantics.md` §1 to §3.

use crate::inventory::{JobKind, Service};
use crate::provider::Outcome;
use crate::snapshot::DestroyRequest;

use super::super::call::Call;
use super::super::outcome::{self, Refusal};
use super::super::service::ServiceMethod;
use super::snapshot_of;

/// The in-parameter.
pub(super) struct DestroySnapshot(DestroyRequest);

impl ServiceMethod for DestroySnapshot {
    const NAME: &'static str = "DestroySnapshot";
    const KIND: JobKind = JobKind::DestroySnapshotSet;

    fn read(call: &Call<'_>) -> Result<Self, Refusal> {
        let (set, snapshot) = snapshot_of(call, "AffectedSnapshot")?;
        Ok(Self(DestroyRequest {
            set,
            snapshot: Some(snapshot),
            service: Service::VirtualSystemSnapshot,
            owner: call.ctx.identity.user.to_string(),
        }))
    }

    async fn run(self, call: &Call<'_>) -> Result<Outcome, Refusal> {
        let accepted = call.deps.coordinator.destroy(self.0).await?;
        Ok(outcome::started(call.deps, call.ctx, accepted.job, Vec::new()).await)
    }
}
