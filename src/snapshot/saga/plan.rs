//! How what an operation does to each of many things is planned, and how what stands in its way is told.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt};

use crate::engine::{EngineError, EngineErrorKind};
use crate::snapshot::saga::accept::answered;
use crate::snapshot::saga::answer::Refused;
use crate::snapshot::saga::core::Core;
use crate::text::Text;
use crate::text::catalog::snapshot as texts;

/// Plans every item on its own blocking thread, several at a time, in their order. An item may be the refusal of a
/// machine that was looked at before, so that it is told with those of the others.
///
/// # Errors
/// All refusals in one.
pub(crate) async fn plan_each<T, P>(
    core: &Arc<Core>,
    items: Vec<T>,
    plan: impl Fn(&Core, T) -> Result<P, Refused> + Clone + Send + 'static,
) -> Result<Vec<P>, Refused>
where
    T: Send + 'static,
    P: Send + 'static,
{
    let planned = stream::iter(items).map(|item| {
        let (shared, plan) = (Arc::clone(core), plan.clone());
        let planned = answered(move || plan(&shared, item));
        planned.map(|planned| planned.unwrap_or_else(|e| Err(e.refused(core))))
    });
    // All of them, also after a refusal: what still runs holds images that the next request may want.
    let planned = planned.buffered(core.deps.limits.parallel.max(1));
    let planned: Vec<_> = planned.collect().await;
    together(planned)
}

/// How many further refusals are told in full.
pub(crate) const TOLD: usize = 20;

/// What all came to, or all refusals in one.
///
/// # Errors
/// As [`joined`].
fn together<T>(results: impl IntoIterator<Item = Result<T, Refused>>) -> Result<Vec<T>, Refused> {
    let (mut fine, mut refusals) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(it) => fine.push(it),
            Err(refused) => refusals.push(refused),
        }
    }
    joined(refusals).map_or(Ok(fine), Err)
}

/// Refusals of several machines as one: of the kind of the first, with the words of all, so that nobody mends one
/// only to meet the next.
pub(crate) fn joined(refusals: Vec<Refused>) -> Option<Refused> {
    let first = refusals.first()?.clone();
    let told = refusals.into_iter().map(|refused| refused.text().clone());
    Some(first.saying(one(told)?))
}

/// Several texts as one: the first and [`TOLD`] more in full.
pub(crate) fn one(several: impl IntoIterator<Item = Text>) -> Option<Text> {
    let mut all = several.into_iter();
    let mut told: Vec<_> = all.by_ref().take(TOLD + 1).collect();
    let more = all.count();
    if more > 0 {
        told.push(texts::REFUSED_MORE.with("count", more));
    }
    let both = |others, one| {
        texts::REFUSED_TOGETHER
            .with("first", one)
            .with("others", others)
    };
    told.into_iter().rev().reduce(both)
}

/// What an engine's error means before anything was begun.
pub(crate) fn refused(error: EngineError) -> Refused {
    match error.kind {
        EngineErrorKind::Full | EngineErrorKind::Broken | EngineErrorKind::Failed => {
            Refused::Failed(error.text)
        }
        EngineErrorKind::Locked
        | EngineErrorKind::Missing
        | EngineErrorKind::Denied
        | EngineErrorKind::Silent
        | EngineErrorKind::Unsupported => Refused::InvalidState(error.text),
    }
}
