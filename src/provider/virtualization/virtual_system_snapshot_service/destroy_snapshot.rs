//! `DestroySnapshot`: destroys the snapshot of one machine, whichever set that belongs to; the last one takes its set along.
//! `docs/semantics.md` §1 to §3.

use crate::inventory::Service;
use crate::provider::{Arguments, Context, Outcome};
use crate::snapshot::DestroyRequest;

use super::super::Deps;
use super::super::outcome::{self, Refusal};
use super::snapshot_of;

pub(super) async fn invoke(
    deps: &Deps,
    ctx: &Context,
    arguments: &Arguments,
) -> Result<Outcome, Refusal> {
    let (set, snapshot) = snapshot_of(deps, ctx, arguments, "AffectedSnapshot")?;
    let request = DestroyRequest {
        set,
        snapshot: Some(snapshot),
        service: Service::VirtualSystemSnapshot,
        owner: ctx.identity.user.to_string(),
    };
    let accepted = deps.coordinator.destroy(request).await?;
    Ok(outcome::started(deps, ctx, accepted.job, Vec::new()).await)
}
