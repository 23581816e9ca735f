//! What methods return: return values, references, and the failed job that says why a call was refused.

use crate::audit::About;
use crate::cim::{Method, Value};
use crate::id::{CollectionId, JobId};
use crate::inventory::{JobError, JobKind, JobState};
use crate::job::NewJob;
use crate::provider::{Context, Outcome};
use crate::snapshot::Refused;
use crate::text::Text;
use crate::text::catalog::provider as texts;

use super::about;
use super::call::Call;
use super::deps::Deps;
use super::element::Element;

/// 0: Completed with No Error.
pub(super) const COMPLETED: u32 = 0;
/// 4096: Method Parameters Checked - Job Started.
pub(super) const JOB_STARTED: u32 = 4096;

/// So much of what a client sent, or of any other cause, is quoted in the job of a refused call: everybody who lists
/// jobs must be able to read it.
const QUOTE_MAX: usize = 4096;

/// Return values of the snapshot methods (`docs/semantics.md` §1.5).
pub(super) mod snapshot {
    /// Not Supported
    pub(crate) const NOT_SUPPORTED: u16 = 1;
    /// Failed
    pub(crate) const FAILED: u16 = 2;
    /// Invalid Parameter
    pub(crate) const INVALID_PARAMETER: u16 = 4;
    /// Invalid State
    pub(crate) const INVALID_STATE: u16 = 5;
    /// Invalid Type
    pub(crate) const INVALID_TYPE: u16 = 6;
}

/// Return values of everything else.
pub(super) mod management {
    /// Failed
    pub(crate) const FAILED: u16 = 32768;
    /// Not Supported
    pub(crate) const NOT_SUPPORTED: u16 = 32770;
    /// Invalid parameter
    pub(crate) const INVALID_PARAMETER: u16 = 32773;
    /// System is in use
    pub(crate) const IN_USE: u16 = 32774;
    /// Invalid state for this operation
    pub(crate) const INVALID_STATE: u16 = 32775;
}

/// A method said no; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The return value.
    pub(super) code: u16,
    /// Why, for the client.
    pub(super) text: Text,
}

impl Refusal {
    pub(super) const fn new(code: u16, text: Text) -> Self {
        Self { code, text }
    }
}

impl From<Refused> for Refusal {
    /// In the error family of the snapshot methods.
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Failed(text) => Self::new(snapshot::FAILED, text),
            Refused::InvalidParameter(text) => Self::new(snapshot::INVALID_PARAMETER, text),
            Refused::InvalidState(text) => Self::new(snapshot::INVALID_STATE, text),
        }
    }
}

/// A bare return value; nothing was changed.
pub(super) fn value(return_value: impl Into<u32>) -> Outcome {
    Outcome {
        return_value: return_value.into().into(),
        outputs: Vec::new(),
        changed: false,
    }
}

/// The answer to an accepted call: 0 and `results` if the job ends well within the inline time, else 4096, the job
/// and `results` (`docs/semantics.md` §1.1).
pub(super) async fn started(
    deps: &Deps,
    ctx: &Context,
    job: JobId,
    results: Vec<(&'static str, Value)>,
) -> Outcome {
    // A client that gives up before we answer would never learn of its job: keep a quarter of its time.
    let wait = deps.inline_wait.min(ctx.timeout - ctx.timeout / 4);
    let ended = if wait.is_zero() {
        None
    } else {
        deps.jobs.wait(job, wait).await
    };
    let mut outcome = Outcome {
        return_value: COMPLETED.into(),
        outputs: results,
        changed: true,
    };
    if ended.is_none_or(|job| job.state != JobState::Completed) {
        outcome.return_value = JOB_STARTED.into();
        let job = Element::Job(job).path(&deps.host);
        outcome.outputs.push(("Job", job.into()));
    }
    outcome
}

/// The answer to a refused call. Where the method has an output parameter `Job`, it names a job that ended
/// before it began and carries the reason (`docs/semantics.md` §1.2).
pub(super) async fn refused(call: &Call<'_>, refusal: Refusal) -> Outcome {
    let (deps, ctx) = (call.deps, call.ctx);
    let mut outcome = value(refusal.code);
    let Some(service) = call.service else {
        return outcome;
    };
    let new = NewJob {
        id: JobId::random(),
        kind: call.kind,
        service,
        owner: ctx.identity.user.to_string(),
        affected: Vec::new(),
        about: about(call),
        set: None,
        status: texts::JOB_REFUSED.text(),
    };
    let error = JobError {
        code: refusal.code,
        description: refusal.text.shortened(QUOTE_MAX),
        details: Vec::new(),
    };
    let named = call.method.parameter("Job").is_some();
    match deps.jobs.refused(new, call.what, named, error).await {
        Ok(job) if named => {
            let path = Element::Job(job).path(&deps.host);
            outcome.outputs.push(("Job", path.into()));
        }
        Ok(_) => {}
        // The return value stands; only its explanation is lost.
        Err(error) => tracing::warn!(%error, method = %call.method.name, "refusal not recorded"),
    }
    outcome
}

/// What a refused call is about. A set that was not taken has the machines that it would have had.
fn about(call: &Call<'_>) -> About {
    let (deps, schema) = (call.deps, &call.ctx.schema);
    let mut about = about::of(deps, schema, call.arguments.named());
    if call.kind != JobKind::CreateSnapshotSet {
        return about;
    }
    let named = about.collections.iter().filter_map(|it| it.id.parse().ok());
    let named: Vec<CollectionId> = named.collect();
    for id in named {
        about = about.and(&about::members(&deps.view(), id));
    }
    about
}

/// The refusal of a method that nothing here backs.
pub(super) fn not_supported(code: u16, method: &Method) -> Refusal {
    Refusal::new(code, texts::NOT_SUPPORTED.with("method", &method.name))
}
