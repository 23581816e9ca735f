//! `CreateSnapshot`: one snapshot of every machine of a collection, all at one point in time.
//!
//! The parameters become a [`CreateRequest`]; the coordinator does the rest. `docs/semantics.md` §1 to §3.

use crate::cim::Value;
use crate::inventory::{self, Consistency, NAME_MAX, SetKind};
use crate::provider::{Arguments, Context, Outcome};
use crate::snapshot::{Accepted, CreateRequest};
use crate::text::catalog::provider as texts;
use crate::text::{Text, is_blank};

use super::super::Deps;
use super::super::element::Element;
use super::super::outcome::{self, Refusal, snapshot};
use super::super::reference;
use super::settings;

const SETTINGS_CLASS: &str = "Msvm_VirtualSystemSnapshotSettingData";

/// Answers the call.
pub(super) async fn invoke(
    deps: &Deps,
    ctx: &Context,
    arguments: &Arguments,
) -> Result<Outcome, Refusal> {
    let request = request(deps, ctx, arguments)?;
    let accepted = deps
        .coordinator
        .create(request)
        .await
        .map_err(Refusal::from)?;
    Ok(answer(deps, ctx, accepted).await)
}

/// The wish that the parameters stand for.
pub(crate) fn request(
    deps: &Deps,
    ctx: &Context,
    arguments: &Arguments,
) -> Result<CreateRequest, Refusal> {
    let collection = collection(deps, ctx, arguments)?;
    let kind = kind(arguments.get("SnapshotType"))?;
    let wishes = wishes(ctx, arguments.get("SnapshotSettings")).map_err(invalid)?;
    Ok(CreateRequest {
        collection,
        name: wishes.name,
        kind,
        consistency: wishes.consistency.unwrap_or(match kind {
            SetKind::Standard => Consistency::Crash,
            SetKind::Recovery => Consistency::Application,
        }),
        ignore_non_snapshottable_disks: wishes.ignore_non_snapshottable_disks,
        owner: ctx.identity.user.to_string(),
    })
}

/// The answer to an accepted call: 0 and the set if it is ready within the inline time, else 4096, the job
/// and the reference that the set will have.
async fn answer(deps: &Deps, ctx: &Context, accepted: Accepted) -> Outcome {
    let set = Element::Set(accepted.set).path(&deps.host);
    let set = ("ResultingSnapshotCollection", Value::from(set));
    outcome::started(deps, ctx, accepted.job, vec![set]).await
}

fn invalid(text: Text) -> Refusal {
    Refusal::new(snapshot::INVALID_PARAMETER, text)
}

fn collection(
    deps: &Deps,
    ctx: &Context,
    arguments: &Arguments,
) -> Result<crate::id::CollectionId, Refusal> {
    let declared = "CIM_CollectionOfMSEs";
    match reference::element(deps, ctx, arguments, "Collection", declared) {
        Ok(Element::Group(id, _)) => Ok(id),
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
