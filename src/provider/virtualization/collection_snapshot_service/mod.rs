//! `Msvm_CollectionSnapshotService`: one file for each method (create, apply, destroy, export, convert).
//!
//! A method returns an `Outcome` or a `Refusal`; `invoke` turns the latter into a return value with a failed job
//! (`outcome::refused`).

mod apply_snapshot;
mod convert_to_reference_point;
pub(super) mod create_snapshot;
mod destroy_snapshot;
mod export_snapshot;
mod settings;

use std::sync::Arc;

use async_trait::async_trait;

use crate::audit::About;
use crate::cim::{Class, Instance, Method, Path, Value};
use crate::inventory::Service;
use crate::provider::{Arguments, Context, Error, Instances, Outcome, Provider};

use super::Deps;
use super::about;
use super::element::{Element, SNAPSHOT_SERVICE};
use super::outcome::{self, refused, snapshot};
use super::service;

/// Serves `Msvm_CollectionSnapshotService`.
pub(super) struct CollectionSnapshotService(pub(super) Deps);

const SERVICE: Service = Service::CollectionSnapshot;

#[async_trait]
impl Provider for CollectionSnapshotService {
    fn classes(&self) -> &'static [&'static str] {
        &[SNAPSHOT_SERVICE]
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
        Element::find(&self.0.view(), SNAPSHOT_SERVICE, path)
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
        let answer = match method.name.as_str() {
            "CreateSnapshot" => create_snapshot::invoke(&self.0, ctx, &arguments).await,
            "ApplySnapshot" => apply_snapshot::invoke(&self.0, ctx, &arguments).await,
            "DestroySnapshot" => destroy_snapshot::invoke(&self.0, ctx, &arguments).await,
            "ConvertToReferencePoint" => {
                Err(convert_to_reference_point::refuse(&self.0, ctx, &arguments))
            }
            "ExportSnapshot" => export_snapshot::invoke(&self.0, ctx, &arguments).await,
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
