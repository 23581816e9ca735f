//! `DefineCollection`: a new, empty group.

use crate::audit::About;
use crate::id::CollectionId;
use crate::inventory::{Collection, CollectionKind, JobKind};
use crate::provider::Outcome;
use crate::store::{Change, State};
use crate::text::catalog::provider as texts;

use super::super::call::Call;
use super::super::element::Element;
use super::super::outcome::Refusal;
use super::super::service::ServiceMethod;
use super::{commit, invalid, name};

/// The in-parameters.
pub(super) struct DefineCollection {
    name: String,
    kind: CollectionKind,
    id: CollectionId,
}

impl ServiceMethod for DefineCollection {
    const NAME: &'static str = "DefineCollection";
    const KIND: JobKind = JobKind::DefineCollection;

    fn read(call: &Call<'_>) -> Result<Self, Refusal> {
        Ok(Self {
            name: name(call, "Name")?,
            kind: kind(call)?,
            id: id(call)?,
        })
    }

    async fn run(self, call: &Call<'_>) -> Result<Outcome, Refusal> {
        let Self { name, kind, id } = self;
        let about = About::default().collection(id, &name);
        let collection = Collection {
            id,
            name,
            kind,
            machines: Vec::new(),
            collections: Vec::new(),
            created: call.deps.clock.now(),
        };
        let outcome = commit(call, about, move |state| {
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
}

fn kind(call: &Call<'_>) -> Result<CollectionKind, Refusal> {
    match call.arguments.get("Type").as_u64() {
        Some(0) => Ok(CollectionKind::Machines),
        Some(1) => Ok(CollectionKind::Collections),
        Some(other) => Err(invalid(texts::COLLECTION_TYPE.with("value", other))),
        None => Err(invalid(texts::PARAMETER_NULL.with("parameter", "Type"))),
    }
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
