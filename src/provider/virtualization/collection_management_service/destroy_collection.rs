//! `DestroyCollection`: the group goes; its members and its snapshot sets stay.

use crate::audit::About;
use crate::id::CollectionId;
use crate::inventory::{Collection, JobKind, SnapshotSet};
use crate::provider::Outcome;
use crate::store::{Change, State};

use super::super::call::Call;
use super::super::outcome::Refusal;
use super::super::service::ServiceMethod;
use super::{check_free, collection, commit, existing};

/// The in-parameter.
pub(super) struct DestroyCollection(CollectionId);

impl ServiceMethod for DestroyCollection {
    const NAME: &'static str = "DestroyCollection";
    const KIND: JobKind = JobKind::DestroyCollection;

    fn read(call: &Call<'_>) -> Result<Self, Refusal> {
        collection(call).map(Self)
    }

    async fn run(self, call: &Call<'_>) -> Result<Outcome, Refusal> {
        let Self(id) = self;
        let coordinator = call.deps.coordinator.clone();
        commit(call, About::default(), move |state| {
            existing(state, id)?;
            check_free(&coordinator, id)?;
            for group in groups_with(state, id) {
                check_free(&coordinator, group.id)?;
            }
            Ok(changes(state, id))
        })
        .await
    }
}

/// The group leaves the groups that hold it, and the link of each of its sets ends.
fn changes(state: &State, id: CollectionId) -> Vec<Change> {
    let mut changes = vec![Change::RemoveCollection(id)];
    for group in groups_with(state, id) {
        let mut group = Collection::clone(group);
        group.collections.retain(|member| *member != id);
        changes.push(Change::PutCollection(group));
    }
    for set in state.sets.values().filter(|s| s.collection == Some(id)) {
        changes.push(Change::PutSet(SnapshotSet {
            collection: None,
            ..SnapshotSet::clone(set)
        }));
    }
    changes
}

fn groups_with(state: &State, id: CollectionId) -> impl Iterator<Item = &Collection> {
    state
        .collections
        .values()
        .map(AsRef::as_ref)
        .filter(move |c| c.collections.contains(&id))
}
