//! `AddMember`, `RemoveMember`, `RemoveMemberById`.

use std::collections::BTreeSet;

use crate::audit::About;
use crate::id::{CollectionId, VmId};
use crate::inventory::{Collection, CollectionKind, JobKind};
use crate::provider::Outcome;
use crate::store::{Change, State};
use crate::text::catalog::provider as texts;

use super::super::call::Call;
use super::super::element::Element;
use super::super::outcome::Refusal;
use super::super::service::ServiceMethod;
use super::{check_free, collection, commit, existing, invalid};

/// What can be in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    Machine(VmId),
    Group(CollectionId),
}

/// The in-parameters.
pub(super) struct AddMember {
    member: Member,
    id: CollectionId,
}

impl ServiceMethod for AddMember {
    const NAME: &'static str = "AddMember";
    const KIND: JobKind = JobKind::AddMember;

    fn read(call: &Call<'_>) -> Result<Self, Refusal> {
        Ok(Self {
            member: existing_member(call)?,
            id: collection(call)?,
        })
    }

    async fn run(self, call: &Call<'_>) -> Result<Outcome, Refusal> {
        let Self { member, id } = self;
        let coordinator = call.deps.coordinator.clone();
        commit(call, About::default(), move |state| {
            let mut collection = existing(state, id)?;
            if has(&collection, member) {
                return Ok(Vec::new());
            }
            match (collection.kind, member) {
                (CollectionKind::Machines, Member::Machine(machine)) => {
                    collection.machines.push(machine);
                }
                (CollectionKind::Collections, Member::Group(group)) => {
                    existing(state, group)?;
                    check_no_cycle(state, group, id)?;
                    collection.collections.push(group);
                }
                (CollectionKind::Machines, Member::Group(_)) => {
                    return Err(invalid(texts::ONLY_MACHINES.with("collection", id)));
                }
                (CollectionKind::Collections, Member::Machine(_)) => {
                    return Err(invalid(texts::ONLY_COLLECTIONS.with("collection", id)));
                }
            }
            check_free(&coordinator, id)?;
            Ok(vec![Change::PutCollection(collection)])
        })
        .await
    }
}

/// The in-parameters.
pub(super) struct RemoveMember {
    member: Member,
    id: CollectionId,
}

impl ServiceMethod for RemoveMember {
    const NAME: &'static str = "RemoveMember";
    const KIND: JobKind = JobKind::RemoveMember;

    fn read(call: &Call<'_>) -> Result<Self, Refusal> {
        Ok(Self {
            member: named_member(call)?,
            id: collection(call)?,
        })
    }

    async fn run(self, call: &Call<'_>) -> Result<Outcome, Refusal> {
        let Self { member, id } = self;
        let coordinator = call.deps.coordinator.clone();
        commit(call, About::default(), move |state| {
            let collection = existing(state, id)?;
            if !has(&collection, member) {
                return Err(invalid(texts::NO_MEMBER.with("collection", id)));
            }
            check_free(&coordinator, id)?;
            Ok(vec![Change::PutCollection(without(collection, member))])
        })
        .await
    }
}

/// The in-parameters. As [`RemoveMember`], with the collection by its id, and content if the member is not there.
pub(super) struct RemoveMemberById {
    member: Member,
    id: CollectionId,
}

impl ServiceMethod for RemoveMemberById {
    const NAME: &'static str = "RemoveMemberById";
    const KIND: JobKind = JobKind::RemoveMember;

    fn read(call: &Call<'_>) -> Result<Self, Refusal> {
        let member = named_member(call)?;
        let text = call.arguments.get("CollectionId").as_str();
        let id = text.and_then(|t| t.parse().ok()).ok_or_else(|| {
            let text = texts::ID_IS_NO_GUID
                .with("parameter", "CollectionId")
                .with("value", text.unwrap_or_default());
            invalid(text)
        })?;
        Ok(Self { member, id })
    }

    async fn run(self, call: &Call<'_>) -> Result<Outcome, Refusal> {
        let Self { member, id } = self;
        let coordinator = call.deps.coordinator.clone();
        commit(call, About::default(), move |state| {
            let collection = existing(state, id)?;
            if !has(&collection, member) {
                return Ok(Vec::new());
            }
            check_free(&coordinator, id)?;
            Ok(vec![Change::PutCollection(without(collection, member))])
        })
        .await
    }
}

/// The existing machine or group that the parameter `Member` refers to.
fn existing_member(call: &Call<'_>) -> Result<Member, Refusal> {
    match call.element("Member", "CIM_ManagedElement") {
        Ok(Element::Machine(id)) => Ok(Member::Machine(id)),
        Ok(Element::Group(id, _)) => Ok(Member::Group(id)),
        Ok(other) => Err(invalid(texts::NOT_COLLECTABLE.with("class", other.class()))),
        Err(text) => Err(invalid(text)),
    }
}

/// As [`existing_member`]; a machine that was removed from the library can still leave its groups.
fn named_member(call: &Call<'_>) -> Result<Member, Refusal> {
    existing_member(call).or_else(|refusal| {
        let path = call.arguments.get("Member").as_reference();
        let machine = path.and_then(|path| Element::machine_named(&call.deps.host, path));
        machine.map(Member::Machine).ok_or(refusal)
    })
}

fn has(collection: &Collection, member: Member) -> bool {
    match member {
        Member::Machine(id) => collection.machines.contains(&id),
        Member::Group(id) => collection.collections.contains(&id),
    }
}

fn without(mut collection: Collection, member: Member) -> Collection {
    match member {
        Member::Machine(id) => collection.machines.retain(|m| *m != id),
        Member::Group(id) => collection.collections.retain(|c| *c != id),
    }
    collection
}

/// `group` may go into `into` only if `into` is not `group` or anywhere below it.
fn check_no_cycle(state: &State, group: CollectionId, into: CollectionId) -> Result<(), Refusal> {
    // By any number of ways, each is looked at once.
    let (mut open, mut seen) = (vec![group], BTreeSet::new());
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        if id == into {
            let text = texts::CYCLE.with("member", group).with("collection", into);
            return Err(invalid(text));
        }
        let below = state.collections.get(&id);
        open.extend(below.iter().flat_map(|c| &c.collections));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;

    /// Two collections on each level, each with both of the next one: 2^60 ways lead to the bottom.
    #[test]
    fn a_collection_that_many_ways_lead_to_is_looked_at_once() {
        let id = |level: u128, side: u128| CollectionId::from_u128(2 * level + side + 1);
        let mut state = State::default();
        let collections = Arc::make_mut(&mut state.collections);
        for (level, side) in (0..60).flat_map(|level| [(level, 0), (level, 1)]) {
            let collection = Collection {
                id: id(level, side),
                name: String::new(),
                kind: CollectionKind::Collections,
                machines: Vec::new(),
                collections: vec![id(level + 1, 0), id(level + 1, 1)],
                created: Timestamp::UNIX_EPOCH,
            };
            collections.insert(collection.id, Arc::new(collection));
        }
        assert!(check_no_cycle(&state, id(0, 0), CollectionId::from_u128(0)).is_ok());
        assert!(check_no_cycle(&state, id(0, 0), id(60, 1)).is_err());
    }
}
