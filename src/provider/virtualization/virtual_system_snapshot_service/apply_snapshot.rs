//! `ApplySnapshot`: one machine goes back to its snapshot, whichever set that belongs to. `docs/semantics.md` §1 to §3.

use crate::inventory::JobKind;
use crate::provider::Outcome;
use crate::snapshot::ApplyRequest;

use super::super::call::Call;
use super::super::outcome::{self, Refusal};
use super::super::service::ServiceMethod;
use super::snapshot_of;

/// The in-parameter.
pub(super) struct ApplySnapshot(ApplyRequest);

impl ServiceMethod for ApplySnapshot {
    const NAME: &'static str = "ApplySnapshot";
    const KIND: JobKind = JobKind::ApplySnapshotSet;

    fn read(call: &Call<'_>) -> Result<Self, Refusal> {
        let (set, snapshot) = snapshot_of(call, "Snapshot")?;
        Ok(Self(ApplyRequest {
            set,
            only: Some(snapshot),
            owner: call.ctx.identity.user.to_string(),
        }))
    }

    async fn run(self, call: &Call<'_>) -> Result<Outcome, Refusal> {
        let accepted = call.deps.coordinator.apply(self.0).await?;
        Ok(outcome::started(call.deps, call.ctx, accepted.job, Vec::new()).await)
    }
}
