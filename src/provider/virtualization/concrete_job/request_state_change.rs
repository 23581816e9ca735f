//! `Msvm_ConcreteJob.RequestStateChange`: terminate or kill a job.

use crate::cim::{DateTime, Value};
use crate::handler::Role;
use crate::inventory::Job;
use crate::job::{CancelKind, Cancelled};
use crate::provider::{Arguments, Context, Error, Outcome, Status};
use crate::text::catalog::provider as texts;

use super::super::deps::Deps;
use super::super::outcome;

/// Not Supported: a real state, which these jobs do not have.
const NOT_SUPPORTED: u32 = 1;
/// Invalid Parameter.
const INVALID_PARAMETER: u32 = 5;
/// Invalid State Transition: the job has ended or is past its commit point.
const INVALID_TRANSITION: u32 = 4097;
/// Use of Timeout Parameter Not Supported.
const NO_TIMEOUT: u32 = 4098;

pub(super) async fn invoke(
    deps: &Deps,
    ctx: &Context,
    job: &Job,
    arguments: &Arguments,
) -> Result<Outcome, Error> {
    let own = job.owner == *ctx.identity.user;
    if !own && ctx.identity.role < Role::Administrator {
        let text = texts::NOT_OWN_JOB
            .with("user", &ctx.identity.user)
            .with("job", job.id);
        return Err(Error::new(Status::AccessDenied, text));
    }
    let kind = match arguments.get("RequestedState").as_u64() {
        Some(4) => CancelKind::Terminate,
        Some(5) => CancelKind::Kill,
        // start, suspend, service
        Some(2 | 3 | 6) => return Ok(outcome::value(NOT_SUPPORTED)),
        _ => return Ok(outcome::value(INVALID_PARAMETER)),
    };
    if !is_no_time(arguments.get("TimeoutPeriod")) {
        return Ok(outcome::value(NO_TIMEOUT));
    }
    let cancelled = deps.jobs.cancel(job.id, kind, &ctx.identity.user).await;
    let accepted = matches!(cancelled, Ok(Cancelled::Accepted));
    let user = &*ctx.identity.user;
    tracing::info!(job = %job.id, user, accepted, "A job is to be stopped");
    match cancelled {
        Ok(Cancelled::Accepted) => Ok(Outcome {
            return_value: outcome::JOB_STARTED.into(),
            outputs: Vec::new(),
            changed: true,
        }),
        Ok(Cancelled::TooLate) => Ok(outcome::value(INVALID_TRANSITION)),
        Ok(Cancelled::Unknown) => {
            let text = texts::JOB_GONE.with("job", job.id);
            Err(Error::new(Status::NotFound, text))
        }
        Err(error) => {
            let text = texts::STORE_FAILED.with("reason", error);
            Err(Error::new(Status::Failed, text))
        }
    }
}

/// Null or an interval of zero.
const fn is_no_time(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::DateTime(DateTime::Interval { micros }) => *micros == 0,
        _ => false,
    }
}
