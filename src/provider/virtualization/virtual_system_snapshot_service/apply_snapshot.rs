//! `ApplySnapshot`: one machine goes back to its snapshot, whichever set that belongs to. `docs/semantics.md` §1 to §3.

use crate::provider::{Arguments, Context, Outcome};
use crate::snapshot::ApplyRequest;

use super::super::Deps;
use super::super::outcome::{self, Refusal};
use super::snapshot_of;

pub(super) async fn invoke(
    deps: &Deps,
    ctx: &Context,
    arguments: &Arguments,
) -> Result<Outcome, Refusal> {
    let (set, snapshot) = snapshot_of(deps, ctx, arguments, "Snapshot")?;
    let request = ApplyRequest {
        set,
        only: Some(snapshot),
        owner: ctx.identity.user.to_string(),
    };
    let accepted = deps.coordinator.apply(request).await?;
    Ok(outcome::started(deps, ctx, accepted.job, Vec::new()).await)
}
