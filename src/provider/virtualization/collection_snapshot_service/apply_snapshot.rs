//! `ApplySnapshot`: every machine of a set goes back to its snapshot. `docs/semantics.md` §1 to §3.

use crate::inventory::JobKind;
use crate::provider::Outcome;
use crate::snapshot::ApplyRequest;
use crate::text::Text;
use crate::text::catalog::provider as texts;

use super::super::call::Call;
use super::super::element::Element;
use super::super::outcome::{self, Refusal, snapshot};
use super::super::service::ServiceMethod;

/// The in-parameters.
pub(super) struct ApplySnapshot(ApplyRequest);

impl ServiceMethod for ApplySnapshot {
    const NAME: &'static str = "ApplySnapshot";
    const KIND: JobKind = JobKind::ApplySnapshotSet;

    fn read(call: &Call<'_>) -> Result<Self, Refusal> {
        let parameter = "SnapshotCollection";
        let set = match call.element(parameter, "CIM_Collection") {
            Ok(Element::Set(set)) => set,
            Ok(_) => return Err(invalid(texts::NO_SNAPSHOT_SET.with("parameter", parameter))),
            Err(text) => return Err(invalid(text)),
        };
        Ok(Self(ApplyRequest {
            set,
            only: None,
            owner: call.ctx.identity.user.to_string(),
        }))
    }

    async fn run(self, call: &Call<'_>) -> Result<Outcome, Refusal> {
        let accepted = call.deps.coordinator.apply(self.0).await?;
        Ok(outcome::started(call.deps, call.ctx, accepted.job, Vec::new()).await)
    }
}

fn invalid(text: Text) -> Refusal {
    Refusal::new(snapshot::INVALID_PARAMETER, text)
}
