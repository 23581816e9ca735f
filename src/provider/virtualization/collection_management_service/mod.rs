//! `Msvm_CollectionManagementService`: defines collections and their members. Every method is done when it
//! answers (`docs/semantics.md` §4).

mod define_collection;
mod destroy_collection;
mod members;
mod rename_collection;

use crate::audit::About;
use crate::id::CollectionId;
use crate::inventory::{self, Collection, Ended, Ending, NAME_MAX, Service};
use crate::provider::Outcome;
use crate::snapshot::Coordinator;
use crate::store::{self, Change, State};
use crate::text::catalog::provider as texts;
use crate::text::{Text, is_blank};

use super::about;
use super::call::Call;
use super::element::{Element, MANAGEMENT_SERVICE};
use super::outcome::{self, Refusal, management};
use super::service::{Row, Table, instance};

use define_collection::DefineCollection;
use destroy_collection::DestroyCollection;
use members::{AddMember, RemoveMember, RemoveMemberById};
use rename_collection::RenameCollection;

/// `Msvm_CollectionManagementService`
pub(super) static TABLE: Table = Table {
    classes: &[MANAGEMENT_SERVICE],
    service: Some(Service::CollectionManagement),
    instance: |deps, class, language| {
        instance(deps, class, Service::CollectionManagement, language)
    },
    methods: &[
        Row::of::<DefineCollection>(),
        Row::of::<DestroyCollection>(),
        Row::of::<RenameCollection>(),
        Row::of::<AddMember>(),
        Row::of::<RemoveMember>(),
        Row::of::<RemoveMemberById>(),
    ],
};

/// The existing collection that the parameter `Collection` refers to.
fn collection(call: &Call<'_>) -> Result<CollectionId, Refusal> {
    match call.element("Collection", "CIM_CollectionOfMSEs") {
        Ok(Element::Group(id, _)) => Ok(id),
        Ok(_) => Err(invalid(
            texts::NO_COLLECTION.with("parameter", "Collection"),
        )),
        Err(text) => Err(invalid(text)),
    }
}

/// The parameter's text, which must be neither empty nor too long.
fn name(call: &Call<'_>, parameter: &str) -> Result<String, Refusal> {
    let name = call.arguments.get(parameter).as_str();
    match name.filter(|n| !n.trim().is_empty()) {
        Some(name) if inventory::is_too_long(name) => {
            let text = texts::NAME_TOO_LONG.with("parameter", parameter);
            Err(invalid(text.with("limit", NAME_MAX)))
        }
        Some(name) if is_blank(name) => {
            Err(invalid(texts::NAME_BLANK.with("parameter", parameter)))
        }
        Some(name) => Ok(name.to_owned()),
        None => Err(invalid(texts::NAME_EMPTY.with("parameter", parameter))),
    }
}

/// Makes the changes that `decide` finds right on the newest state; durable when it returns, and in the history.
/// `about` is named beside what the parameters mean. What changes nothing is only told in the log.
async fn commit<F>(call: &Call<'_>, about: About, decide: F) -> Result<Outcome, Refusal>
where
    F: FnOnce(&State) -> Result<Vec<Change>, Refusal> + Send + 'static,
{
    let named = about::of(call.deps, &call.ctx.schema, call.arguments.named());
    let now = call.deps.clock.now();
    let mut ended = Ended {
        what: call.what,
        outcome: Ending::Completed,
        job: None,
        user: call.ctx.identity.user.to_string(),
        about: named.and(&about),
        started: now,
        ended: now,
        reason: String::new(),
        code: None,
        recovered: false,
    };
    let clock = call.deps.clock.clone();
    let decided = store::decide(&*call.deps.store, move |state| {
        let mut changes = decide(state)?;
        let changed = !changes.is_empty();
        ended.ended = clock.now();
        match changed {
            true => changes.push(Change::Ended(ended.clone())),
            false => texts::NOTHING_TO_CHANGE
                .text()
                .english()
                .clone_into(&mut ended.reason),
        }
        Ok((changes, (changed, ended)))
    });
    match decided.await {
        Ok(Ok((changed, ended))) => {
            ended.tell();
            Ok(Outcome {
                changed,
                ..outcome::value(outcome::COMPLETED)
            })
        }
        Ok(Err(refusal)) => Err(refusal),
        Err(error) => {
            let text = texts::STORE_FAILED.with("reason", error);
            Err(Refusal::new(management::FAILED, text))
        }
    }
}

fn invalid(text: Text) -> Refusal {
    Refusal::new(management::INVALID_PARAMETER, text)
}

/// No operation holds the group; while one does, its members stay as they are.
fn check_free(coordinator: &Coordinator, id: CollectionId) -> Result<(), Refusal> {
    if coordinator.held(id) {
        let text = texts::COLLECTION_IN_USE.with("collection", id);
        return Err(Refusal::new(management::INVALID_STATE, text));
    }
    Ok(())
}

/// The collection in the newest state; it may have been destroyed since its reference was read.
fn existing(state: &State, id: CollectionId) -> Result<Collection, Refusal> {
    match state.collections.get(&id) {
        Some(collection) => Ok(Collection::clone(collection)),
        None => Err(invalid(texts::NO_SUCH_COLLECTION.with("collection", id))),
    }
}
