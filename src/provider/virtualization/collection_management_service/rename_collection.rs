//! `RenameCollection`: another ElementName; the identity stays.

use crate::audit::About;
use crate::id::CollectionId;
use crate::inventory::JobKind;
use crate::provider::Outcome;
use crate::store::Change;

use super::super::call::Call;
use super::super::outcome::Refusal;
use super::super::service::ServiceMethod;
use super::{collection, commit, existing, name};

/// The in-parameters.
pub(super) struct RenameCollection {
    id: CollectionId,
    name: String,
}

impl ServiceMethod for RenameCollection {
    const NAME: &'static str = "RenameCollection";
    const KIND: JobKind = JobKind::RenameCollection;

    fn read(call: &Call<'_>) -> Result<Self, Refusal> {
        Ok(Self {
            id: collection(call)?,
            name: name(call, "NewName")?,
        })
    }

    async fn run(self, call: &Call<'_>) -> Result<Outcome, Refusal> {
        let Self { id, name } = self;
        let about = About::default().collection(id, &name);
        commit(call, about, move |state| {
            let mut collection = existing(state, id)?;
            if collection.name == name {
                return Ok(Vec::new());
            }
            collection.name = name;
            Ok(vec![Change::PutCollection(collection)])
        })
        .await
    }
}
