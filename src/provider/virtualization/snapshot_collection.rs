//! `Msvm_SnapshotCollection`: what one CreateSnapshot made.

use std::sync::Arc;

use async_trait::async_trait;

use crate::cim::{Class, Instance, Path};
use crate::id::SetId;
use crate::inventory::{self, JobState, LeftOut, SetKind, Snapshot, SnapshotSet};
use crate::provider::{Context, Error, Instances, Provider, Status};
use crate::text::Language;
use crate::text::catalog::provider as texts;

use super::deps::Deps;
use super::element::{Element, SET};
use super::view::View;

/// Serves `Msvm_SnapshotCollection`.
pub(super) struct SnapshotCollections(pub(super) Deps);

#[async_trait]
impl Provider for SnapshotCollections {
    fn classes(&self) -> &'static [&'static str] {
        &[SET]
    }

    fn enumerate(&self, ctx: &Context, class: &Arc<Class>) -> Result<Instances, Error> {
        let view = self.0.view();
        let (class, language) = (class.clone(), ctx.language);
        Ok(Box::new(view.sets().filter_map(move |element| {
            let Element::Set(id) = element else {
                return None;
            };
            view.state
                .sets
                .get(&id)
                .map(|set| instance(&class, set, language))
        })))
    }

    fn count(&self, _ctx: &Context, _class: &Class) -> Option<u64> {
        u64::try_from(self.0.store.state().sets.len()).ok()
    }

    fn get(
        &self,
        ctx: &Context,
        class: &Arc<Class>,
        path: &Path,
    ) -> Result<Option<Instance>, Error> {
        let view = self.0.view();
        if let Some(Element::Set(id)) = Element::find(&view, SET, path) {
            let set = view.state.sets.get(&id);
            return set
                .map(|set| instance(class, set, ctx.language))
                .transpose();
        }
        match path.text("CollectionID").and_then(|id| id.parse().ok()) {
            Some(promised) => not_yet(&view, promised),
            None => Ok(None),
        }
    }
}

/// A reference that CreateSnapshot gave out is readable when its job has completed; until then, and if it
/// fails, the answer names that job (`docs/semantics.md` §1).
fn not_yet(view: &View, promised: SetId) -> Result<Option<Instance>, Error> {
    let job = view
        .state
        .jobs
        .values()
        .find(|job| job.set == Some(promised));
    let Some(job) = job else {
        return Ok(None);
    };
    let words = match job.state {
        JobState::Running => texts::SET_NOT_YET_MADE,
        JobState::Completed => texts::SET_GONE,
        JobState::Terminated | JobState::Killed | JobState::Exception => texts::SET_NOT_MADE,
    };
    let text = words.with("set", promised).with("job", job.id);
    Err(Error::new(Status::NotFound, text))
}

fn instance(class: &Arc<Class>, set: &SnapshotSet, language: Language) -> Result<Instance, Error> {
    Instance::new(class)
        .with("CollectionID", set.id.to_string())?
        .with("ElementName", &*inventory::shown(&set.name))?
        .with("Description", description(set, language))
        .map_err(Error::from)
}

/// Kind, size, stun window, what is left out and damage in words; the class has no property of their own for them.
fn description(set: &SnapshotSet, language: Language) -> String {
    let words = match set.kind {
        SetKind::Standard => texts::SET_OF_STANDARD_SNAPSHOTS,
        SetKind::Recovery => texts::SET_OF_RECOVERY_SNAPSHOTS,
    };
    let whole = words
        .with("members", set.members.len())
        .with("micros", set.window.as_micros());
    let whole = match LeftOut::of(set.members.iter()) {
        None => whole,
        Some(LeftOut { count, named }) => texts::SET_LEFT_OUT
            .with("description", whole)
            .with("count", count)
            .with("disks", named),
    };
    let is_damaged = |m: &&Snapshot| m.disks.iter().any(|d| d.damage.is_some());
    match set.members.iter().filter(is_damaged).count() {
        0 => whole.render(language),
        count => texts::SET_DAMAGED
            .with("description", whole)
            .with("count", count)
            .render(language),
    }
}
