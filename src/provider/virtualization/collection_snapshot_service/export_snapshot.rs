//! `ExportSnapshot`: a snapshot set as files that stand on their own, below a folder that the operator allows.
//!
//! `docs/semantics.md` §1 and §3.

use crate::cim::Value;
use crate::inventory::JobKind;
use crate::provider::{Context, Outcome};
use crate::snapshot::{ExportRefused, ExportRequest};
use crate::text::Text;
use crate::text::catalog::provider as texts;

use super::super::call::Call;
use super::super::element::Element;
use super::super::outcome::{self, Refusal, management};
use super::super::service::ServiceMethod;
use super::settings;

const SETTINGS_CLASS: &str = "Msvm_CollectionSnapshotExportSettingData";

/// The in-parameters.
pub(super) struct ExportSnapshot(ExportRequest);

impl ServiceMethod for ExportSnapshot {
    const NAME: &'static str = "ExportSnapshot";
    const KIND: JobKind = JobKind::ExportSnapshotSet;

    fn read(call: &Call<'_>) -> Result<Self, Refusal> {
        let parameter = "SnapshotCollection";
        let set = match call.element(parameter, "CIM_Collection") {
            Ok(Element::Set(id)) => id,
            Ok(_) => return Err(invalid(texts::NO_SNAPSHOT_SET.with("parameter", parameter))),
            Err(text) => return Err(invalid(text)),
        };
        let Some(directory) = call.arguments.get("ExportDirectory").as_str() else {
            let text = texts::PARAMETER_NULL.with("parameter", "ExportDirectory");
            return Err(invalid(text));
        };
        Ok(Self(ExportRequest {
            set,
            directory: directory.to_owned(),
            storage: storage(call.ctx, call.arguments.get("ExportSettingData"))?,
            owner: call.ctx.identity.user.to_string(),
        }))
    }

    async fn run(self, call: &Call<'_>) -> Result<Outcome, Refusal> {
        let exported = call.deps.coordinator.export(self.0).await;
        let accepted = exported.map_err(|refused| {
            let (code, text) = match refused {
                ExportRefused::Failed(text) => (management::FAILED, text),
                ExportRefused::NotSupported(text) => (management::NOT_SUPPORTED, text),
                ExportRefused::InvalidParameter(text) => (management::INVALID_PARAMETER, text),
                ExportRefused::InUse(text) => (management::IN_USE, text),
                ExportRefused::InvalidState(text) => (management::INVALID_STATE, text),
            };
            Refusal::new(code, text)
        })?;
        Ok(outcome::started(call.deps, call.ctx, accepted.job, Vec::new()).await)
    }
}

/// Do ExportSettingData ask for the disks too? By default they do.
fn storage(ctx: &Context, value: &Value) -> Result<bool, Refusal> {
    let parameter = ("ExportSettingData", value);
    let Some(settings) = settings::read(ctx, parameter, SETTINGS_CLASS).map_err(invalid)? else {
        return Ok(true);
    };
    if let Some(unknown) = settings.get("BackupIntent").and_then(Value::as_u64)
        && !matches!(unknown, 1 | 2)
    {
        return Err(invalid(texts::BACKUP_INTENT.with("value", unknown)));
    }
    let base = settings.get("DifferentialBackupBase");
    if base.and_then(Value::as_str).is_some_and(|b| !b.is_empty()) {
        let text = texts::DIFFERENTIAL_BACKUP_BASE.text();
        return Err(Refusal::new(management::NOT_SUPPORTED, text));
    }
    let copy = settings.get("CopyVmStorage").and_then(Value::as_bool);
    Ok(copy.unwrap_or(true))
}

fn invalid(text: Text) -> Refusal {
    Refusal::new(management::INVALID_PARAMETER, text)
}
