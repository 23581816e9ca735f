//! `RenameCollection`: another ElementName; the identity stays.

use crate::audit::About;
use crate::inventory::What;
use crate::provider::Outcome;
use crate::store::Change;

use super::super::outcome::Refusal;
use super::{Call, existing};

pub(super) async fn invoke(call: &Call<'_>) -> Result<Outcome, Refusal> {
    let id = call.collection()?;
    let name = call.name("NewName")?;
    let about = About::default().collection(id, &name);
    call.commit(What::RenameCollection, about, move |state| {
        let mut collection = existing(state, id)?;
        if collection.name == name {
            return Ok(Vec::new());
        }
        collection.name = name;
        Ok(vec![Change::PutCollection(collection)])
    })
    .await
}
