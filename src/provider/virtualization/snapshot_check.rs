//! `Groupshot_SnapshotCheck`, a class of our own: what CreateSnapshot would do. Another server has no such class
//! and says so, so nobody takes a set who only wanted to ask.

use std::sync::Arc;

use async_trait::async_trait;

use crate::audit::About;
use crate::cim::{Class, Instance, Method, Path, Value};
use crate::provider::{Arguments, Context, Error, Instances, Outcome, Provider};
use crate::snapshot::{Checked, CheckedDisk};
use crate::text::Language;
use crate::text::catalog::provider as texts;

use super::Deps;
use super::about;
use super::collection_snapshot_service::create_snapshot;
use super::element::{Element, SNAPSHOT_CHECK, SNAPSHOT_CHECK_ID};
use super::outcome::{self, Refusal, snapshot};

/// Serves `Groupshot_SnapshotCheck`.
pub(super) struct SnapshotCheck(pub(super) Deps);

#[async_trait]
impl Provider for SnapshotCheck {
    fn classes(&self) -> &'static [&'static str] {
        &[SNAPSHOT_CHECK]
    }

    fn is_singleton(&self, _class: &Class) -> bool {
        true
    }

    fn enumerate(&self, ctx: &Context, class: &Arc<Class>) -> Result<Instances, Error> {
        Ok(Box::new(std::iter::once(instance(class, ctx.language))))
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
        Element::find(&self.0.view(), SNAPSHOT_CHECK, path)
            .map(|_| instance(class, ctx.language))
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
        if method.name != *"CheckSnapshot" {
            let refusal = outcome::not_supported(snapshot::NOT_SUPPORTED, method);
            return Ok(outcome::value(refusal.code));
        }
        Ok(match create_snapshot::request(&self.0, ctx, &arguments) {
            Ok(request) => told(self.0.coordinator.check(request).await, ctx.language),
            Err(refusal) => explained(Some(refusal), ctx.language),
        })
    }
}

fn instance(class: &Arc<Class>, language: Language) -> Result<Instance, Error> {
    let title = texts::TITLE_SNAPSHOT_CHECK.text().render(language);
    Instance::new(class)
        .with("InstanceID", SNAPSHOT_CHECK_ID)?
        .with("Caption", title.as_str())?
        .with("ElementName", title.as_str())?
        .with("Description", title.as_str())
        .map_err(Error::from)
}

/// One value in each list for each disk.
fn told(checked: Checked, language: Language) -> Outcome {
    let mut outcome = explained(checked.refused.map(Refusal::from), language);
    let mut list = |name, value: &dyn Fn(&CheckedDisk) -> String| {
        let values: Vec<String> = checked.disks.iter().map(value).collect();
        outcome.outputs.push((name, Value::from(values)));
    };
    list("Machines", &|d| d.machine.id.to_string());
    list("MachineNames", &|d| d.machine.name.clone());
    list("Disks", &|d| d.disk.clone());
    list("Files", &|d| d.file.display().to_string());
    list("FileSystems", &|d| d.file_system.clone());
    list("Drivers", &|d| d.driver.clone().unwrap_or_default());
    list("Reasons", &|d| {
        let why = d.driver.as_ref().err();
        why.map(|text| text.render(language)).unwrap_or_default()
    });
    outcome
}

/// The return value that CreateSnapshot, or its job, would have, and why.
fn explained(refusal: Option<Refusal>, language: Language) -> Outcome {
    let Some(refusal) = refusal else {
        return outcome::value(outcome::COMPLETED);
    };
    let mut outcome = outcome::value(refusal.code);
    let why = Value::from(refusal.text.render(language).as_str());
    outcome.outputs.push(("Explanation", why));
    outcome
}
