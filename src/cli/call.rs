//! Calls of methods, and what their answers say: accepted or refused, and how the job that came with it ended.

use serde_json::Value as Json;

use crate::client::{Client, Object, Reference, Value};

use super::actives::{Actives, Changed};
use super::failure::Failure;
use super::job;
use super::output::Output;

/// Calls a method. A return value other than these is a failure; its reason stands in the job that came with it, if
/// one did.
pub(super) async fn accepted(
    client: &Client,
    target: &Reference,
    method: &str,
    arguments: &[(&str, Value)],
    values: &[u64],
) -> Result<Object, Failure> {
    let answer = client.invoke(target, method, arguments).await?;
    match answer.number("ReturnValue") {
        Some(value) if values.contains(&value) => Ok(answer),
        _ => Err(refused(client, method, &answer).await),
    }
}

async fn refused(client: &Client, method: &str, answer: &Object) -> Failure {
    let value = answer.text("ReturnValue");
    let reason = match answer.get("Job").reference() {
        Some(job) => client.get(job).await.ok(),
        None => None,
    };
    let reason = reason.map(|job| job.text("ErrorDescription").to_owned());
    Failure::failed(format_args!(
        "{method} was refused: {} (return value {value})",
        reason.as_deref().unwrap_or("the server gave no reason")
    ))
}

/// What CreateSnapshot and CheckSnapshot are given.
pub(super) fn snapshot_arguments(
    collection: Reference,
    settings: &str,
    kind: &str,
) -> [(&'static str, Value); 3] {
    [
        ("Collection", collection.into()),
        ("SnapshotSettings", settings.into()),
        ("SnapshotType", kind.into()),
    ]
}

/// The id of the job that came with an answer.
pub(super) fn job_id(answer: &Object) -> Option<&str> {
    answer.get("Job").reference()?.text("InstanceID")
}

/// Follows the job of an accepted call, if there is one and if that is wanted, and tells the result.
pub(super) async fn ended(
    client: &Client,
    answer: &Object,
    no_wait: bool,
    output: &Output,
    result: Json,
    done: impl FnOnce() -> String,
) -> Result<(), Failure> {
    match followed(client, answer, no_wait, output, &result).await? {
        true => output.result(result, done),
        false => output.result(result, || running(answer)),
    }
}

/// What is said of a job that nobody waits for.
fn running(answer: &Object) -> String {
    format!("job {}", job_id(answer).unwrap_or_default())
}

/// [`ended`] of an operation that may give machines other active files; these are told too.
pub(super) async fn ended_on(
    client: &Client,
    answer: &Object,
    before: &Actives,
    output: &Output,
    mut result: Json,
    done: String,
) -> Result<(), Failure> {
    followed(client, answer, false, output, &result).await?;
    let changed = before.changed(&before.again(client).await);
    if let Json::Object(fields) = &mut result {
        let objects = changed.iter().map(Changed::object);
        fields.insert("changed".to_owned(), objects.collect());
    }
    output.result(result, || {
        let lines = changed.iter().map(|c| format!("\n{}", c.in_words()));
        format!("{done}{}", lines.collect::<String>())
    })
}

/// Waits for the job of an accepted call, if there is one and if that is wanted; `false` if it was not.
async fn followed(
    client: &Client,
    answer: &Object,
    no_wait: bool,
    output: &Output,
    result: &Json,
) -> Result<bool, Failure> {
    let Some(running) = answer.get("Job").reference() else {
        return Ok(true);
    };
    if no_wait {
        return Ok(false);
    }
    let ended = job::wait(client, running, output).await;
    let ended = ended.map_err(|failure| lost(&failure, result, output))?;
    match job::failure(&ended) {
        Some(failure) => Err(failure),
        None => Ok(true),
    }
}

/// The failure of a call whose job could not be followed to its end: it says what to look for.
fn lost(failure: &Failure, result: &Json, output: &Output) -> Failure {
    let text = |field: &str| result.get(field).and_then(Json::as_str);
    let (job, set) = (text("job").unwrap_or_default(), text("set"));
    let of = set.map(|set| format!(" of snapshot set {set}"));
    let mut told = result.clone();
    if let (true, Json::Object(fields)) = (output.is_json(), &mut told) {
        fields.insert("error".to_owned(), failure.message.as_str().into());
        // What is said on standard error stands in any case.
        let _ = output.result(told, String::new);
    }
    let message = format!(
        "{}; how job {job}{} ends is not known: `groupshot job show {job}` tells once the server is there",
        failure.message,
        of.unwrap_or_default()
    );
    Failure::new(failure.exit, message)
}
