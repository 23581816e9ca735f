//! `Groupshot_SnapshotCheck`, a class of our own: what CreateSnapshot would do. Another server has no such class
//! and says so, so nobody takes a set who only wanted to ask.

use std::sync::Arc;

use crate::cim::{Class, Instance, Value};
use crate::inventory::JobKind;
use crate::provider::{Error, Outcome};
use crate::snapshot::{Checked, CheckedDisk, CreateRequest};
use crate::text::Language;
use crate::text::catalog::provider as texts;

use super::call::Call;
use super::collection_snapshot_service::create_snapshot;
use super::element::{SNAPSHOT_CHECK, SNAPSHOT_CHECK_ID};
use super::outcome::{self, Refusal};
use super::service::{Row, ServiceMethod, Table};

/// `Groupshot_SnapshotCheck`. Nothing is kept of its refused calls.
pub(super) static TABLE: Table = Table {
    classes: &[SNAPSHOT_CHECK],
    service: None,
    instance: |_, class, language| instance(class, language),
    methods: &[Row::of::<CheckSnapshot>()],
};

/// The in-parameters, or what CreateSnapshot would say to them: that is the answer.
struct CheckSnapshot(Result<CreateRequest, Refusal>);

impl ServiceMethod for CheckSnapshot {
    const NAME: &'static str = "CheckSnapshot";
    const KIND: JobKind = JobKind::Other;

    fn read(call: &Call<'_>) -> Result<Self, Refusal> {
        Ok(Self(create_snapshot::request(call)))
    }

    async fn run(self, call: &Call<'_>) -> Result<Outcome, Refusal> {
        let language = call.ctx.language;
        Ok(match self.0 {
            Ok(request) => told(call.deps.coordinator.check(request).await, language),
            Err(refusal) => explained(Some(refusal), language),
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
