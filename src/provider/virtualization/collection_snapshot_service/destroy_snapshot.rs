//! `DestroySnapshot`: a whole set goes. For clients it is gone from the acceptance of the job on; the job ends
//! when its files are merged.

use crate::inventory::{JobState, Service};
use crate::provider::{Arguments, Context, Outcome};
use crate::snapshot::{DestroyRequest, Refused};
use crate::text::catalog::provider as texts;

use super::super::Deps;
use super::super::element::Element;
use super::super::outcome::{COMPLETED, JOB_STARTED, Refusal, snapshot};
use super::super::reference;

const PARAMETER: &str = "AffectedSnapshotCollection";

pub(super) async fn invoke(
    deps: &Deps,
    ctx: &Context,
    arguments: &Arguments,
) -> Result<Outcome, Refusal> {
    let invalid = |text| Refusal::new(snapshot::INVALID_PARAMETER, text);
    let set = match reference::element(deps, ctx, arguments, PARAMETER, "CIM_Collection") {
        Ok(Element::Set(id)) => id,
        Ok(_) => {
            let text = texts::NOT_A_SNAPSHOT_SET.with("parameter", PARAMETER);
            return Err(invalid(text));
        }
        Err(text) => return Err(invalid(text)),
    };
    let request = DestroyRequest {
        set,
        snapshot: None,
        service: Service::CollectionSnapshot,
        owner: ctx.identity.user.to_string(),
    };
    let accepted = deps.coordinator.destroy(request).await;
    let accepted = accepted.map_err(|refused| match refused {
        Refused::Failed(text) => Refusal::new(snapshot::FAILED, text),
        Refused::InvalidParameter(text) => invalid(text),
        Refused::InvalidState(text) => Refusal::new(snapshot::INVALID_STATE, text),
    })?;
    // As for CreateSnapshot: a quarter of the client's time is left for the answer.
    let wait = deps.inline_wait.min(ctx.timeout - ctx.timeout / 4);
    if !wait.is_zero()
        && let Some(job) = deps.jobs.wait(accepted.job, wait).await
        && job.state == JobState::Completed
    {
        return Ok(Outcome {
            return_value: COMPLETED.into(),
            outputs: Vec::new(),
            changed: true,
        });
    }
    let job = Element::Job(accepted.job).path(&deps.host);
    Ok(Outcome {
        return_value: JOB_STARTED.into(),
        outputs: vec![("Job", job.into())],
        changed: true,
    })
}
