//! Calls of methods, and what their answers say: accepted or refused, and how the job that came with it ended.

use serde_json::Value as Json;

use crate::client::{Client, Object, Reference, Value};

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
    if let Some(running) = answer.get("Job").reference() {
        if no_wait {
            let line = || format!("job {}", job_id(answer).unwrap_or_default());
            return output.result(result, line);
        }
        let ended = job::wait(client, running, output).await;
        let ended = ended.map_err(|failure| lost(&failure, &result, output))?;
        if let Some(failure) = job::failure(&ended) {
            return Err(failure);
        }
    }
    output.result(result, done)
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
