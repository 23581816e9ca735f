//! `CreateSnapshot`: one snapshot of every machine of a collection, all at one point in time.
//!
//! The parameters become a [`CreateRequest`]; the coordinator does the rest. `docs/semantics.md` §1 to §3.

use crate::cim::Value;
use crate::id::CollectionId;
use crate::inventory::{self, Consistency, JobKind, NAME_MAX, SetKind};
use crate::provider::{Context, Outcome};
use crate::snapshot::CreateRequest;
use crate::text::catalog::provider as texts;
use crate::text::{Text, is_blank};

use super::super::call::Call;
use super::super::element::Element;
use super::super::outcome::{self, Refusal, snapshot};
use super::super::service::ServiceMethod;
use super::settings;

const SETTINGS_CLASS: &str = "Msvm_VirtualSystemSnapshotSettingData";

/// The in-parameters.
pub(super) struct CreateSnapshot(CreateRequest);

impl ServiceMethod for CreateSnapshot {
    const NAME: &'static str = "CreateSnapshot";
    const KIND: JobKind = JobKind::CreateSnapshotSet;

    fn read(call: &Call<'_>) -> Result<Self, Refusal> {
        request(call).map(Self)
    }

    /// 0 and the set if it is ready within the inline time, else 4096, the job and the reference that the set will
    /// have.
    async fn run(self, call: &Call<'_>) -> Result<Outcome, Refusal> {
        let accepted = call.deps.coordinator.create(self.0).await?;
        let set = Element::Set(accepted.set).path(&call.deps.host);
        let set = ("ResultingSnapshotCollection", Value::from(set));
        Ok(outcome::started(call.deps, call.ctx, accepted.job, vec![set]).await)
    }
}

/// Parses and validates the parameters.
pub(crate) fn request(call: &Call<'_>) -> Result<CreateRequest, Refusal> {
    let collection = collection(call)?;
    let kind = kind(call.arguments.get("SnapshotType"))?;
    let settings = call.arguments.get("SnapshotSettings");
    let wishes = wishes(call.ctx, settings).map_err(invalid)?;
    Ok(CreateRequest {
        collection,
        name: wishes.name,
        kind,
        consistency: wishes.consistency.unwrap_or(match kind {
            SetKind::Standard => Consistency::Crash,
            SetKind::Recovery => Consistency::Application,
        }),
        ignore_non_snapshottable_disks: wishes.ignore_non_snapshottable_disks,
        owner: call.ctx.identity.user.to_string(),
    })
}

fn invalid(text: Text) -> Refusal {
    Refusal::new(snapshot::INVALID_PARAMETER, text)
}

fn collection(call: &Call<'_>) -> Result<CollectionId, Refusal> {
    match call.element("Collection", "CIM_CollectionOfMSEs") {
        Ok(Element::Group(id, _)) => Ok(id),
        // Not reached: only groups are of the declared class.
        Ok(_) => Err(invalid(
            texts::NO_COLLECTION.with("parameter", "Collection"),
        )),
        Err(text) => Err(invalid(text)),
    }
}

fn kind(value: &Value) -> Result<SetKind, Refusal> {
    match value.as_u64() {
        Some(1) => Ok(SetKind::Standard),
        Some(2) => Ok(SetKind::Recovery),
        Some(other) => {
            let text = texts::SNAPSHOT_TYPE_NOT_OFFERED.with("type", other);
            Err(Refusal::new(snapshot::INVALID_TYPE, text))
        }
        None => Err(invalid(
            texts::PARAMETER_NULL.with("parameter", "SnapshotType"),
        )),
    }
}

/// What SnapshotSettings ask for; `None` and false where they say nothing.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wishes {
    name: Option<String>,
    consistency: Option<Consistency>,
    ignore_non_snapshottable_disks: bool,
}

/// Reads SnapshotSettings: absent, null or empty text means the defaults.
fn wishes(ctx: &Context, settings: &Value) -> Result<Wishes, Text> {
    let Some(instance) = settings::read(ctx, ("SnapshotSettings", settings), SETTINGS_CLASS)?
    else {
        return Ok(Wishes::default());
    };
    let instance = &*instance;
    let number = |property: &str| instance.get(property).and_then(Value::as_u64);
    if let Some(unknown @ 3..) = number("GuestBackupType") {
        return Err(texts::GUEST_BACKUP_TYPE.with("value", unknown));
    }
    let consistency = match number("ConsistencyLevel") {
        None | Some(0) => None,
        Some(1) => Some(Consistency::Application),
        Some(2) => Some(Consistency::Crash),
        Some(other) => return Err(texts::CONSISTENCY_LEVEL.with("value", other)),
    };
    let name = instance.get("ElementName").and_then(Value::as_str);
    if name.is_some_and(inventory::is_too_long) {
        return Err(texts::ELEMENT_NAME_TOO_LONG.with("limit", NAME_MAX));
    }
    if name.is_some_and(|name| !name.is_empty() && is_blank(name)) {
        return Err(texts::NAME_BLANK.with("parameter", "SnapshotSettings: ElementName"));
    }
    let ignore = instance.get("IgnoreNonSnapshottableDisks");
    Ok(Wishes {
        name: name.filter(|n| !n.is_empty()).map(str::to_owned),
        consistency,
        ignore_non_snapshottable_disks: ignore.and_then(Value::as_bool).unwrap_or(false),
    })
}
