//! `Msvm_ConcreteJob.GetError` and `GetErrorEx`: why a job did not end well, as `Msvm_Error` texts.

use crate::cim::schema::VIRTUALIZATION_V2;
use crate::cim::{Instance, cimxml};
use crate::inventory::{Job, JobError};
use crate::provider::{Context, Error, Outcome, Status};
use crate::text::Text;
use crate::text::catalog::provider as texts;

use super::super::deps::Deps;
use super::super::element::Element;
use super::super::outcome;

/// `ErrorSourceFormat` 2: an object path.
const OBJECT_PATH: u16 = 2;
/// `CIMStatusCode` 1: CIM_ERR_FAILED.
const FAILED: u32 = 1;
/// `PerceivedSeverity` 4: high.
const HIGH: u16 = 4;

/// The first error; none if the job runs or ended well.
pub(super) fn get_error(deps: &Deps, ctx: &Context, job: &Job) -> Result<Outcome, Error> {
    let mut outcome = outcome::value(outcome::COMPLETED);
    if let Some(error) = &job.error {
        let text = error_text(deps, ctx, job, &error.description)?;
        outcome.outputs.push(("Error", text.into()));
    }
    Ok(outcome)
}

/// All errors: the job's own, then one for each member that had something to say.
pub(super) fn get_error_ex(deps: &Deps, ctx: &Context, job: &Job) -> Result<Outcome, Error> {
    let mut outcome = outcome::value(outcome::COMPLETED);
    if let Some(error) = &job.error {
        let errors = messages(error)
            .map(|message| error_text(deps, ctx, job, message))
            .collect::<Result<Vec<String>, Error>>()?;
        outcome.outputs.push(("Errors", errors.into()));
    }
    Ok(outcome)
}

fn messages(error: &JobError) -> impl Iterator<Item = &Text> {
    std::iter::once(&error.description).chain(&error.details)
}

fn error_text(deps: &Deps, ctx: &Context, job: &Job, message: &Text) -> Result<String, Error> {
    let class = ctx
        .schema
        .class(VIRTUALIZATION_V2, "Msvm_Error")
        .ok_or_else(|| {
            let text = texts::NO_INSTANCE_OF.with("class", "Msvm_Error");
            Error::new(Status::Failed, text)
        })?;
    let source = Element::Job(job.id).path(&deps.host).on(&deps.host);
    let instance = Instance::new(class)
        .with("ErrorSource", source.to_string())?
        .with("ErrorSourceFormat", OBJECT_PATH)?
        .with("CIMStatusCode", FAILED)?
        .with("PerceivedSeverity", HIGH)?
        .with("OwningEntity", "Groupshot")?
        .with("MessageID", message.id())?
        .with("Message", message.render(ctx.language))?;
    Ok(cimxml::write_instance(&instance))
}
