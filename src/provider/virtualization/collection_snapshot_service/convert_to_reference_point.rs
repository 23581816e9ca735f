//! `ConvertToReferencePoint`: says what is wrong with the call; reference points do not exist here yet.

use crate::inventory::{JobKind, SetKind, What};
use crate::provider::Outcome;
use crate::text::catalog::provider as texts;

use super::super::call::Call;
use super::super::element::{Element, SET};
use super::super::outcome::{Refusal, not_supported, snapshot};
use super::super::service::ServiceMethod;

/// The in-parameter: the kind of the set, if it is one.
pub(super) struct ConvertToReferencePoint(Option<SetKind>);

impl ServiceMethod for ConvertToReferencePoint {
    const NAME: &'static str = "ConvertToReferencePoint";
    const KIND: JobKind = JobKind::Other;
    const WHAT: What = What::Convert;

    /// A bad reference → 4 (`docs/semantics.md` §3).
    fn read(call: &Call<'_>) -> Result<Self, Refusal> {
        let set = match call.element("AffectedSnapshotCollection", SET) {
            Ok(Element::Set(id)) => call.deps.store.state().sets.get(&id).cloned(),
            Ok(_) => None,
            Err(text) => return Err(Refusal::new(snapshot::INVALID_PARAMETER, text)),
        };
        Ok(Self(set.map(|s| s.kind)))
    }

    /// A set of standard snapshots → 6; else not supported (`docs/semantics.md` §3).
    async fn run(self, call: &Call<'_>) -> Result<Outcome, Refusal> {
        Err(match self.0 {
            Some(SetKind::Standard) => {
                let text = texts::NO_REFERENCE_POINT_OF_STANDARD.text();
                Refusal::new(snapshot::INVALID_TYPE, text)
            }
            _ => not_supported(snapshot::NOT_SUPPORTED, call.method),
        })
    }
}
