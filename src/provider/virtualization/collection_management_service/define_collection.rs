//! `DefineCollection`: a new, empty group.

use crate::audit::About;
use crate::id::CollectionId;
use crate::inventory::{Collection, CollectionKind, What};
use crate::provider::Outcome;
use crate::store::{Change, State};
use crate::text::catalog::provider as texts;

use super::super::element::Element;
use super::super::outcome::Refusal;
use super::{Call, invalid};

pub(super) async fn invoke(call: &Call<'_>) -> Result<Outcome, Refusal> {
    let name = call.name("Name")?;
    let kind = match call.arguments.get("Type").as_u64() {
        Some(0) => CollectionKind::Machines,
        Some(1) => CollectionKind::Collections,
        Some(other) => return Err(invalid(texts::COLLECTION_TYPE.with("value", other))),
        None => return Err(invalid(texts::PARAMETER_NULL.with("parameter", "Type"))),
    };
    let id = id(call)?;
    let about = About::default().collection(id, &name);
    let collection = Collection {
        id,
        name,
        kind,
        machines: Vec::new(),
        collections: Vec::new(),
        created: call.deps.clock.now(),
    };
    let outcome = call
        .commit(What::DefineCollection, about, move |state| {
            check_new(state, id)?;
            Ok(vec![Change::PutCollection(collection)])
        })
        .await?;
    let path = Element::Group(id, kind).path(&call.deps.host);
    Ok(Outcome {
        outputs: vec![("DefinedCollection", path.into())],
        ..outcome
    })
}

/// The id that was asked for, or a fresh one.
fn id(call: &Call<'_>) -> Result<CollectionId, Refusal> {
    match call.arguments.get("Id").as_str() {
        None | Some("") => Ok(CollectionId::random()),
        Some(text) => text.parse().map_err(|_| {
            invalid(
                texts::ID_IS_NO_GUID
                    .with("parameter", "Id")
                    .with("value", text),
            )
        }),
    }
}

/// No group and no snapshot set has the id yet: both are collections, and CollectionID is their key.
fn check_new(state: &State, id: CollectionId) -> Result<(), Refusal> {
    let set = crate::id::SetId::from_u128(id.as_u128());
    if state.collections.contains_key(&id) || state.sets.contains_key(&set) {
        return Err(invalid(texts::COLLECTION_EXISTS.with("collection", id)));
    }
    Ok(())
}
