//! Calls of methods, and what their answers say: accepted or refused, and how the job that came with it ended.

use serde_json::Value as Json;

use crate::cim::{Path, Value};
use crate::client::{Client, Object};

use super::actives::{Before, Changed};
use super::failure::Failure;
use super::job;
use super::output::{Output, one_line};

/// Calls a method. A return value other than these is a failure; its reason stands in the job that came with it, if
/// one did.
pub(super) async fn accepted(
    client: &Client,
    target: &Path,
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
    let reason = match answer.get("Job").as_reference() {
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
    collection: Path,
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
    answer.get("Job").as_reference()?.text("InstanceID")
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
        Some(status) => {
            let more = further(&status);
            output.result(with(result, "status", status.as_str().into()), || {
                format!("{}{more}", done())
            })
        }
        None => output.result(result, || running(answer)),
    }
}

/// The object with one more field.
fn with(mut object: Json, name: &str, value: Json) -> Json {
    if let Json::Object(fields) = &mut object {
        fields.insert(name.to_owned(), value);
    }
    object
}

/// What the last status of a job tells beyond that all is done, as a line of its own: what was left out, kept or lost.
fn further(status: &str) -> String {
    let clauses = status.split_once("; ").map(|(_, rest)| rest);
    let rest = clauses.map(|rest| match rest.strip_prefix("members: ") {
        Some(rest) => rest.split_once("; ").map_or("", |(_, rest)| rest),
        None => rest,
    });
    match rest {
        None | Some("") => String::new(),
        Some(rest) => format!("\n{}", one_line(rest)),
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
    result: Json,
    done: String,
) -> Result<(), Failure> {
    if matches!(before, Before::Unasked) {
        return ended(client, answer, true, output, result, || done).await;
    }
    let status = followed(client, answer, false, output, &result).await?;
    let status = status.unwrap_or_default();
    let changed = before.changed(client).await;
    let result = with(result, "changed", told(changed.as_ref().ok()));
    let result = with(result, "status", status.as_str().into());
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
        format!("{done}{}{}", further(&status), lines.collect::<String>())
    })
}

/// What has changed, for JSON; `null` if that is not known.
fn told(changed: Option<&Vec<Changed>>) -> Json {
    let objects = changed.map(|all| all.iter().map(Changed::object).collect());
    objects.unwrap_or(Json::Null)
}

/// Waits for the job of an accepted call, if there is one and if that is wanted, and gives its last status; `None` if it
/// was not wanted.
async fn followed(
    client: &Client,
    answer: &Object,
    no_wait: bool,
    output: &Output,
    result: &Json,
) -> Result<Option<String>, Failure> {
    let Some(running) = answer.get("Job").as_reference() else {
        return Ok(Some(String::new()));
    };
    if no_wait {
        return Ok(None);
    }
    let ended = job::wait(client, running, output).await;
    let ended = ended.map_err(|failure| lost(&failure, result, output))?;
    match job::failure(&ended) {
        Some(failure) => Err(failure),
        None => Ok(Some(ended.text("JobStatus").to_owned())),
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

    #[test]
    fn what_a_status_tells_beyond_the_end_is_a_line() {
        for (status, line) in [
            ("", ""),
            ("Completed", ""),
            ("snapshot set 1 is complete; members: 2", ""),
            (
                "snapshot set 1 is destroyed; files kept: 1; no room",
                "\nfiles kept: 1; no room",
            ),
            (
                "set 1 is complete; members: 2; disks left out: 1 (a)",
                "\ndisks left out: 1 (a)",
            ),
        ] {
            assert_eq!(further(status), line, "{status}");
        }
    }

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
