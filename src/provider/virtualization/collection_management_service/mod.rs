//! `Msvm_CollectionManagementService`: defines collections and their members. Every method is done when it
//! answers (`docs/semantics.md` §4).

mod define_collection;
mod destroy_collection;
mod members;
mod rename_collection;

use std::sync::Arc;

use async_trait::async_trait;

use crate::audit::About;
use crate::cim::{Class, Instance, Method, Path, Value};
use crate::id::CollectionId;
use crate::inventory::{self, Collection, Ended, Ending, NAME_MAX, Service, What};
use crate::provider::{Arguments, Context, Error, Instances, Outcome, Provider};
use crate::snapshot::Coordinator;
use crate::store::{self, Change, State};
use crate::text::catalog::provider as texts;
use crate::text::{Text, is_blank};

use super::Deps;
use super::about;
use super::element::{Element, MANAGEMENT_SERVICE};
use super::outcome::{self, Refusal, management, refused, snapshot};
use super::reference;
use super::service;

/// Serves `Msvm_CollectionManagementService`.
pub(super) struct CollectionManagementService(pub(super) Deps);

const SERVICE: Service = Service::CollectionManagement;

#[async_trait]
impl Provider for CollectionManagementService {
    fn classes(&self) -> &'static [&'static str] {
        &[MANAGEMENT_SERVICE]
    }

    fn is_singleton(&self, _class: &Class) -> bool {
        true
    }

    fn enumerate(&self, ctx: &Context, class: &Arc<Class>) -> Result<Instances, Error> {
        let only = service::instance(class, &self.0.host, SERVICE, ctx.language);
        Ok(Box::new(std::iter::once(only)))
    }

    fn count(&self, _ctx: &Context, _class: &Class) -> Option<u64> {
        Some(1)
    }

    fn get(
        &self,
        ctx: &Context,
        class: &Arc<Class>,
        path: &Path,
    ) -> Result<Option<Instance>, Error> {
        Element::find(&self.0.view(), MANAGEMENT_SERVICE, path)
            .map(|_| service::instance(class, &self.0.host, SERVICE, ctx.language))
            .transpose()
    }

    fn about(&self, ctx: &Context, _path: &Path, values: &[(&str, &Value)]) -> About {
        about::of(&self.0, &ctx.schema, values.iter().copied())
    }

    async fn invoke(
        &self,
        ctx: &Context,
        _path: &Path,
        method: &Method,
        arguments: Arguments,
    ) -> Result<Outcome, Error> {
        let call = Call {
            deps: &self.0,
            ctx,
            arguments: &arguments,
        };
        let answer = match method.name.as_str() {
            "DefineCollection" => define_collection::invoke(&call).await,
            "DestroyCollection" => destroy_collection::invoke(&call).await,
            "RenameCollection" => rename_collection::invoke(&call).await,
            "AddMember" => members::add(&call).await,
            "RemoveMember" => members::remove(&call).await,
            "RemoveMemberById" => members::remove_by_id(&call).await,
            // the service itself neither stops nor starts
            _ => Err(outcome::not_supported(snapshot::NOT_SUPPORTED, method)),
        };
        Ok(match answer {
            Ok(outcome) => outcome,
            Err(refusal) => {
                let call = outcome::Call {
                    deps: &self.0,
                    ctx,
                    service: SERVICE,
                    method,
                };
                refused(&call, &arguments, refusal).await
            }
        })
    }
}

/// One call of a method.
struct Call<'a> {
    deps: &'a Deps,
    ctx: &'a Context,
    arguments: &'a Arguments,
}

impl Call<'_> {
    /// The existing collection that the parameter `Collection` refers to.
    fn collection(&self) -> Result<CollectionId, Refusal> {
        let (deps, ctx) = (self.deps, self.ctx);
        let declared = "CIM_CollectionOfMSEs";
        match reference::element(deps, ctx, self.arguments, "Collection", declared) {
            Ok(Element::Group(id, _)) => Ok(id),
            Ok(_) => Err(invalid(
                texts::NO_COLLECTION.with("parameter", "Collection"),
            )),
            Err(text) => Err(invalid(text)),
        }
    }

    /// The parameter's text, which must be neither empty nor too long.
    fn name(&self, parameter: &str) -> Result<String, Refusal> {
        let name = self.arguments.get(parameter).as_str();
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
    async fn commit<F>(&self, what: What, about: About, decide: F) -> Result<Outcome, Refusal>
    where
        F: FnOnce(&State) -> Result<Vec<Change>, Refusal> + Send + 'static,
    {
        let named = about::of(self.deps, &self.ctx.schema, self.arguments.named());
        let now = self.deps.clock.now();
        let mut ended = Ended {
            what,
            outcome: Ending::Completed,
            job: None,
            user: self.ctx.identity.user.to_string(),
            about: named.and(&about),
            started: now,
            ended: now,
            reason: String::new(),
            code: None,
            recovered: false,
        };
        let clock = self.deps.clock.clone();
        let decided = store::decide(&*self.deps.store, move |state| {
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
