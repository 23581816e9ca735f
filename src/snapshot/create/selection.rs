//! Which machines a collection means: all below it, each once, in the order of the members.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{CollectionId, VmId};
use crate::inventory;
use crate::snapshot::saga::answer::Refused;
use crate::store::State;
use crate::text::Text;
use crate::text::catalog::snapshot as texts;

/// A collection resolved at one state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Name of the collection that was passed.
    pub(crate) name: String,
    /// That collection and every one below it.
    pub(crate) collections: Vec<CollectionId>,
    /// The machines.
    pub(crate) machines: Vec<VmId>,
    /// The collection that a machine was found in.
    member_of: BTreeMap<VmId, CollectionId>,
}

impl Selection {
    /// The machines, each with what is needed of it; `needs` is given what is said if it is not there.
    pub(crate) fn members<N>(&self, needs: impl Fn(Text) -> N) -> Vec<(VmId, N)> {
        let gone = |id: &VmId| {
            let text = texts::MEMBER_GONE.with("machine", id);
            let text = text.with("collection", &self.name);
            let of = self.member_of.get(id).map(ToString::to_string);
            (*id, needs(text.with("of", of.unwrap_or_default())))
        };
        self.machines.iter().map(gone).collect()
    }
}

/// Resolves `top`; a machine or group that is reached twice counts once, so a cycle ends.
///
/// # Errors
/// No such collection, or no machine below it.
pub(crate) fn resolve(state: &State, top: CollectionId) -> Result<Selection, Refused> {
    let Some(collection) = state.collections.get(&top) else {
        let text = texts::NO_COLLECTION.with("collection", top);
        return Err(Refused::InvalidParameter(text));
    };
    let mut selection = Selection {
        name: inventory::shown(&collection.name).into_owned(),
        collections: Vec::new(),
        machines: Vec::new(),
        member_of: BTreeMap::new(),
    };
    let mut seen = (BTreeSet::new(), BTreeSet::new());
    let mut todo = vec![top];
    while let Some(id) = todo.pop() {
        let Some(collection) = state.collections.get(&id) else {
            continue;
        };
        if !seen.0.insert(id) {
            continue;
        }
        selection.collections.push(id);
        for machine in collection.machines.iter().filter(|m| seen.1.insert(**m)) {
            selection.machines.push(*machine);
            selection.member_of.insert(*machine, id);
        }
        todo.extend(collection.collections.iter().rev());
    }
    if selection.machines.is_empty() {
        let text = texts::EMPTY.with("collection", &selection.name);
        return Err(Refused::InvalidState(text));
    }
    Ok(selection)
}

/// The machines that a set of this collection would hold; none if there is no such collection.
#[must_use]
pub fn machines_of(state: &State, collection: CollectionId) -> Vec<VmId> {
    resolve(state, collection).map_or_else(|_| Vec::new(), |selection| selection.machines)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::inventory::{Collection, CollectionKind};

    fn state(groups: &[(u128, &[u128], &[u128])]) -> State {
        let collections = groups.iter().map(|(id, machines, groups)| {
            let id = CollectionId::from_u128(*id);
            let collection = Collection {
                id,
                name: format!("group-{id}"),
                kind: CollectionKind::Machines,
                machines: machines.iter().map(|m| VmId::from_u128(*m)).collect(),
                collections: groups.iter().map(|g| CollectionId::from_u128(*g)).collect(),
                created: Timestamp::UNIX_EPOCH,
            };
            (id, Arc::new(collection))
        });
        State {
            collections: Arc::new(collections.collect()),
            ..State::default()
        }
    }

    #[test]
    fn all_machines_below_each_once_in_order() {
        let state = state(&[
            (1, &[], &[2, 3]),
            (2, &[11, 12], &[]),
            (3, &[12, 13], &[1]), // a cycle ends
        ]);
        let selection = resolve(&state, CollectionId::from_u128(1)).unwrap();
        let machines: Vec<_> = selection.machines.iter().map(|m| m.as_u128()).collect();
        assert_eq!(machines, [11, 12, 13]);
        assert_eq!(selection.collections.len(), 3);
        // What is told of one that is gone can be typed as it stands, also where a collection below holds it.
        let (id, gone) = selection.members(|gone| gone).pop().unwrap();
        let command = format!(
            "`groupshot collection remove {} {id}`",
            CollectionId::from_u128(3)
        );
        assert!(gone.english().contains(&command), "{}", gone.english());
    }

    #[test]
    fn an_unknown_collection_is_a_parameter_and_an_empty_one_a_state() {
        let state = state(&[(1, &[], &[2]), (2, &[], &[])]);
        let unknown = resolve(&state, CollectionId::from_u128(9)).unwrap_err();
        assert!(matches!(unknown, Refused::InvalidParameter(_)));
        let empty = resolve(&state, CollectionId::from_u128(1)).unwrap_err();
        assert!(matches!(empty, Refused::InvalidState(_)));
    }
}
