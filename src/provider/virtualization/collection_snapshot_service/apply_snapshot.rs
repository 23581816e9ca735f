//! `ApplySnapshot`: every machine of a set goes back to its snapshot. `docs/semantics.md` §1 to §3.

use crate::provider::{Arguments, Context, Outcome};
use crate::snapshot::ApplyRequest;
use crate::text::Text;
use crate::text::catalog::provider as texts;

use super::super::Deps;
use super::super::element::Element;
use super::super::outcome::{self, Refusal, snapshot};
use super::super::reference;

pub(super) async fn invoke(
    deps: &Deps,
    ctx: &Context,
    arguments: &Arguments,
) -> Result<Outcome, Refusal> {
    let (parameter, declared) = ("SnapshotCollection", "CIM_Collection");
    let set = match reference::element(deps, ctx, arguments, parameter, declared) {
        Ok(Element::Set(set)) => set,
        Ok(_) => return Err(invalid(texts::NO_SNAPSHOT_SET.with("parameter", parameter))),
        Err(text) => return Err(invalid(text)),
    };
    let request = ApplyRequest {
        set,
        only: None,
        owner: ctx.identity.user.to_string(),
    };
    let accepted = deps.coordinator.apply(request).await?;
    Ok(outcome::started(deps, ctx, accepted.job, Vec::new()).await)
}

fn invalid(text: Text) -> Refusal {
    Refusal::new(snapshot::INVALID_PARAMETER, text)
}
