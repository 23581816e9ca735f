//! `ConvertToReferencePoint`: says what is wrong with the call; reference points do not exist here yet.

use crate::inventory::SetKind;
use crate::provider::{Arguments, Context};
use crate::text::catalog::provider as texts;

use super::super::Deps;
use super::super::element::{Element, SET};
use super::super::outcome::{Refusal, snapshot};
use super::super::reference;

/// A bad reference → 4; a set of standard snapshots → 6; else not supported (`docs/semantics.md` §3).
pub(super) fn refuse(deps: &Deps, ctx: &Context, arguments: &Arguments) -> Refusal {
    let parameter = "AffectedSnapshotCollection";
    let set = match reference::element(deps, ctx, arguments, parameter, SET) {
        Ok(Element::Set(id)) => deps.store.state().sets.get(&id).cloned(),
        Ok(_) => None,
        Err(text) => return Refusal::new(snapshot::INVALID_PARAMETER, text),
    };
    match set.map(|s| s.kind) {
        Some(SetKind::Standard) => {
            let text = texts::NO_REFERENCE_POINT_OF_STANDARD.text();
            Refusal::new(snapshot::INVALID_TYPE, text)
        }
        _ => {
            let text = texts::NOT_SUPPORTED.with("method", "ConvertToReferencePoint");
            Refusal::new(snapshot::NOT_SUPPORTED, text)
        }
    }
}
