//! Calls of methods, and what their answers say: accepted or refused, and how the job that came with it ended.

use serde_json::Value as Json;

use crate::client::{Client, Object, Reference, Value};

use super::actives::{Before, Changed};
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

/// [`ended`] of an operation that may give machines other active files; these are told too. Where they cannot be read
/// that is said: nothing told must not pass for nothing changed.
pub(super) async fn ended_on(
    client: &Client,
    answer: &Object,
    before: &Before,
    output: &Output,
    mut result: Json,
    done: String,
) -> Result<(), Failure> {
    if matches!(before, Before::Unasked) {
        return ended(client, answer, true, output, result, || done).await;
    }
    followed(client, answer, false, output, &result).await?;
    let changed = before.changed(client).await;
    if let Json::Object(fields) = &mut result {
        fields.insert("changed".to_owned(), told(changed.as_ref().ok()));
    }
    let changed = changed.unwrap_or_else(|failure| {
        output.note(format_args!(
            "warning: which machines have other active files now could not be read: {}; `groupshot vm path NAME` \
             on the host tells them",
            failure.message
        ));
        Vec::new()
    });
    output.result(result, || {
        let lines = changed.iter().map(|c| format!("\n{}", c.in_words()));
        format!("{done}{}", lines.collect::<String>())
    })
}

/// What has changed, for JSON; `null` if that is not known.
fn told(changed: Option<&Vec<Changed>>) -> Json {
    let objects = changed.map(|all| all.iter().map(Changed::object).collect());
    objects.unwrap_or(Json::Null)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Credentials;

    #[tokio::test]
    async fn active_files_that_cannot_be_read_do_not_pass_for_unchanged() {
        let credentials = Credentials {
            user: "ann".into(),
            password: "x".into(),
        };
        // Nothing listens at port 0.
        let client = Client::new("http://127.0.0.1:0/wsman", &credentials).unwrap();
        let before = Before::of_set(&client, "5EED51B0-0000-4000-8000-000000000001", false).await;
        let changed = before.changed(&client).await;
        assert!(changed.is_err(), "{changed:?}");
        assert_eq!(told(changed.as_ref().ok()), Json::Null);
        assert_eq!(told(Some(&Vec::new())), serde_json::json!([]));
    }
}
