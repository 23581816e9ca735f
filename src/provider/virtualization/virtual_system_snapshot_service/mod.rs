//! `Msvm_VirtualSystemSnapshotService`: works on the snapshots of single machines.

mod apply_snapshot;
mod destroy_snapshot;

use std::sync::Arc;

use async_trait::async_trait;

use crate::audit::About;
use crate::cim::{Class, Instance, Method, Path, Value};
use crate::id::{SetId, SnapshotId};
use crate::inventory::Service;
use crate::provider::{Arguments, Context, Error, Instances, Outcome, Provider};
use crate::text::catalog::provider as texts;

use super::Deps;
use super::about;
use super::element::{Element, VM_SNAPSHOT_SERVICE};
use super::outcome::{self, Refusal, management, refused, snapshot};
use super::{reference, service};

/// Serves `Msvm_VirtualSystemSnapshotService`.
pub(super) struct VirtualSystemSnapshotService(pub(super) Deps);

const SERVICE: Service = Service::VirtualSystemSnapshot;

#[async_trait]
impl Provider for VirtualSystemSnapshotService {
    fn classes(&self) -> &'static [&'static str] {
        &[VM_SNAPSHOT_SERVICE]
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
        Element::find(&self.0.view(), VM_SNAPSHOT_SERVICE, path)
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
            "ApplySnapshot" => apply_snapshot::invoke(&self.0, ctx, &arguments).await,
            "DestroySnapshot" => destroy_snapshot::invoke(&self.0, ctx, &arguments).await,
            "DestroySnapshotTree" | "ClearSnapshotState" => {
                Err(outcome::not_supported(management::NOT_SUPPORTED, method))
            }
            // CreateSnapshot, ConvertToReferencePoint; and the service itself neither stops nor starts
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

/// The snapshot that `parameter` names, and the set that it is of.
fn snapshot_of(
    deps: &Deps,
    ctx: &Context,
    arguments: &Arguments,
    parameter: &str,
) -> Result<(SetId, SnapshotId), Refusal> {
    let invalid = |text| Refusal::new(snapshot::INVALID_PARAMETER, text);
    let declared = "CIM_VirtualSystemSettingData";
    let id = match reference::element(deps, ctx, arguments, parameter, declared) {
        Ok(Element::SnapshotSettings(id)) => id,
        Ok(_) => return Err(invalid(texts::NO_SNAPSHOT.with("parameter", parameter))),
        Err(text) => return Err(invalid(text)),
    };
    let state = deps.store.state();
    let found = state.snapshots.get(&id).map(|(set, _)| (*set, id));
    found.ok_or_else(|| invalid(texts::NO_SNAPSHOT.with("parameter", parameter)))
}
