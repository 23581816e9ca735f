//! `Msvm_ConcreteJob`: a job as clients watch it, and its methods.

mod errors;
mod request_state_change;

use std::sync::Arc;

use async_trait::async_trait;

use crate::audit::About;
use crate::cim::{Class, DateTime, Instance, Method, Path, Value};
use crate::inventory::{Job, JobKind, JobState};
use crate::provider::{Arguments, Context, Error, Instances, Outcome, Provider, Status};
use crate::text::catalog::provider as texts;
use crate::text::{Language, Message, Text};

use super::about;
use super::deps::Deps;
use super::element::{Element, JOB};
use super::outcome;

/// `OperationalStatus` 2.
const OK: u16 = 2;
/// `OperationalStatus` 6.
const ERROR: u16 = 6;
/// `HealthState` 5.
const HEALTHY: u16 = 5;
/// `HealthState` 20.
const MAJOR_FAILURE: u16 = 20;
/// `LocalOrUtcTime` 2.
const UTC: u16 = 2;

/// Serves `Msvm_ConcreteJob`.
pub(super) struct ConcreteJobs(pub(super) Deps);

#[async_trait]
impl Provider for ConcreteJobs {
    fn classes(&self) -> &'static [&'static str] {
        &[JOB]
    }

    fn enumerate(&self, ctx: &Context, class: &Arc<Class>) -> Result<Instances, Error> {
        let (deps, class, language) = (self.0.clone(), class.clone(), ctx.language);
        Ok(Box::new(deps.view().jobs().filter_map(move |element| {
            let Element::Job(id) = element else {
                return None;
            };
            deps.jobs
                .get(id)
                .map(|job| instance(&deps, &class, &job, language))
        })))
    }

    fn count(&self, _ctx: &Context, _class: &Class) -> Option<u64> {
        u64::try_from(self.0.store.state().jobs.len()).ok()
    }

    fn get(
        &self,
        ctx: &Context,
        class: &Arc<Class>,
        path: &Path,
    ) -> Result<Option<Instance>, Error> {
        let job = self.find(path);
        job.map(|job| instance(&self.0, class, &job, ctx.language))
            .transpose()
    }

    fn about(&self, _ctx: &Context, path: &Path, _values: &[(&str, &Value)]) -> About {
        let view = self.0.view();
        let job = Element::find(&view, JOB, path);
        job.map_or_else(About::default, |job| {
            about::add(&view, &job, About::default())
        })
    }

    async fn invoke(
        &self,
        ctx: &Context,
        path: &Path,
        method: &Method,
        arguments: Arguments,
    ) -> Result<Outcome, Error> {
        let job = self.find(path).ok_or_else(|| {
            let id = path.text("InstanceID").unwrap_or_default();
            Error::new(Status::NotFound, texts::JOB_GONE.with("job", id))
        })?;
        match method.name.as_str() {
            "RequestStateChange" => {
                request_state_change::invoke(&self.0, ctx, &job, &arguments).await
            }
            "GetError" => errors::get_error(&self.0, ctx, &job),
            "GetErrorEx" => errors::get_error_ex(&self.0, ctx, &job),
            // KillJob, deprecated in favour of RequestStateChange
            _ => Ok(outcome::value(outcome::snapshot::NOT_SUPPORTED)),
        }
    }
}

impl ConcreteJobs {
    fn find(&self, path: &Path) -> Option<Job> {
        match Element::find(&self.0.view(), JOB, path) {
            Some(Element::Job(id)) => self.0.jobs.get(id),
            // One that the store had no room for is in no view.
            _ => self.0.jobs.get(path.text("InstanceID")?.parse().ok()?),
        }
    }
}

fn instance(
    deps: &Deps,
    class: &Arc<Class>,
    job: &Job,
    language: Language,
) -> Result<Instance, Error> {
    let title = title(job.kind).text().render(language);
    let status = job.status.render(language);
    let failed = job.error.is_some();
    let percent = if job.state == JobState::Completed {
        100
    } else {
        job.percent.min(99)
    };
    let instance = Instance::new(class)
        .with("InstanceID", job.id.to_string())?
        .with("Name", title.as_str())?
        .with("Caption", title.as_str())?
        .with("ElementName", title.as_str())?
        .with("Description", title.as_str())?
        .with("OperationalStatus", vec![if failed { ERROR } else { OK }])?
        .with("StatusDescriptions", vec![status.as_str()])?
        .with("HealthState", health(job.state))?
        .with("JobState", job.state.number())?
        .with("JobStatus", status.as_str())?
        .with("JobType", job.kind.number())?
        .with("PercentComplete", u16::from(percent))?
        .with("Cancellable", job.cancellable && !job.state.is_terminal())?
        .with("Owner", job.owner.as_str())?
        .with("DeleteOnCompletion", true)?
        .with("JobRunTimes", 1_u32)?;
    with_error(with_times(instance, deps, job)?, job, language)
}

fn with_times(instance: Instance, deps: &Deps, job: &Job) -> Result<Instance, Error> {
    let until = if job.state.is_terminal() {
        job.changed
    } else {
        deps.clock.now()
    };
    let elapsed = until.duration_since(job.started).unsigned_abs();
    instance
        .with("LocalOrUtcTime", UTC)?
        .with("TimeSubmitted", DateTime::utc(job.submitted))?
        .with("StartTime", DateTime::utc(job.started))?
        .with("TimeOfLastStateChange", DateTime::utc(job.changed))?
        .with("ElapsedTime", DateTime::interval(elapsed))?
        .with("TimeBeforeRemoval", DateTime::interval(deps.jobs.keep()))
        .map_err(Error::from)
}

fn with_error(instance: Instance, job: &Job, language: Language) -> Result<Instance, Error> {
    let Some(error) = &job.error else {
        return Ok(instance.with("ErrorCode", 0_u16)?);
    };
    instance
        .with("ErrorCode", error.code)?
        .with("ErrorDescription", error.description.render(language))?
        .with("ErrorSummaryDescription", summary(job).render(language))
        .map_err(Error::from)
}

/// One line: what was to be done and how it ended.
fn summary(job: &Job) -> Text {
    let words = match job.state {
        JobState::Terminated => texts::SUMMARY_TERMINATED,
        JobState::Killed => texts::SUMMARY_KILLED,
        _ => texts::SUMMARY_FAILED,
    };
    words.with("job", title(job.kind).text())
}

const fn health(state: JobState) -> u16 {
    match state {
        JobState::Exception => MAJOR_FAILURE,
        _ => HEALTHY,
    }
}

const fn title(kind: JobKind) -> Message {
    match kind {
        JobKind::CreateSnapshotSet => texts::TITLE_CREATE_SNAPSHOT,
        JobKind::ApplySnapshotSet => texts::TITLE_APPLY_SNAPSHOT,
        JobKind::DestroySnapshotSet => texts::TITLE_DESTROY_SNAPSHOT,
        JobKind::ExportSnapshotSet => texts::TITLE_EXPORT_SNAPSHOT,
        JobKind::DefineCollection => texts::TITLE_DEFINE_COLLECTION,
        JobKind::DestroyCollection => texts::TITLE_DESTROY_COLLECTION,
        JobKind::RenameCollection => texts::TITLE_RENAME_COLLECTION,
        JobKind::AddMember => texts::TITLE_ADD_MEMBER,
        JobKind::RemoveMember => texts::TITLE_REMOVE_MEMBER,
        JobKind::Other => texts::TITLE_OTHER,
    }
}
