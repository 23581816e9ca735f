//! `DestroySnapshot`: a whole set goes. For clients it is gone from the acceptance of the job on; the job ends
//! when its files are merged.

use crate::inventory::{JobKind, Service};
use crate::provider::Outcome;
use crate::snapshot::DestroyRequest;
use crate::text::catalog::provider as texts;

use super::super::call::Call;
use super::super::element::Element;
use super::super::outcome::{self, Refusal, snapshot};
use super::super::service::ServiceMethod;

const PARAMETER: &str = "AffectedSnapshotCollection";

/// The in-parameter.
pub(super) struct DestroySnapshot(DestroyRequest);

impl ServiceMethod for DestroySnapshot {
    const NAME: &'static str = "DestroySnapshot";
    const KIND: JobKind = JobKind::DestroySnapshotSet;

    fn read(call: &Call<'_>) -> Result<Self, Refusal> {
        let invalid = |text| Refusal::new(snapshot::INVALID_PARAMETER, text);
        let set = match call.element(PARAMETER, "CIM_Collection") {
            Ok(Element::Set(id)) => id,
            Ok(_) => {
                let text = texts::NOT_A_SNAPSHOT_SET.with("parameter", PARAMETER);
                return Err(invalid(text));
            }
            Err(text) => return Err(invalid(text)),
        };
        Ok(Self(DestroyRequest {
            set,
            snapshot: None,
            service: Service::CollectionSnapshot,
            owner: call.ctx.identity.user.to_string(),
        }))
    }

    async fn run(self, call: &Call<'_>) -> Result<Outcome, Refusal> {
        let accepted = call.deps.coordinator.destroy(self.0).await?;
        Ok(outcome::started(call.deps, call.ctx, accepted.job, Vec::new()).await)
    }
}
