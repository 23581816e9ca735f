//! `groupshot job …`, and waiting for a job that a command started.

use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value as Json, json};
use tokio::time::Instant;

use crate::cim::Path;
use crate::client::{Client, Object};

use super::failure::{Exit, Failure};
use super::naming::pick;
use super::output::{Output, moment, one_line, table};
use super::remote::{NAMESPACE, Remote, sendable};
use super::stop::{self, Interrupts};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show the jobs that the server still knows.
    List {
        #[command(flatten)]
        remote: Remote,
    },
    /// Show one job.
    Show {
        #[command(flatten)]
        remote: Remote,
        /// Its id.
        job: String,
    },
    /// End a job; what it did so far is undone.
    Cancel {
        #[command(flatten)]
        remote: Remote,
        /// Its id.
        job: String,
    },
}

const CLASS: &str = "Msvm_ConcreteJob";
const SUBMITTED: &str = "TimeSubmitted";
/// How often a running job is looked at.
const POLL: Duration = Duration::from_millis(200);
/// So long a job that was cancelled may show the same before nobody waits for its end any more.
const PATIENCE: Duration = Duration::from_secs(15);
/// RequestedState: end the job, undo what it did.
const TERMINATE: &str = "4";

pub(super) async fn run(command: Command, output: &Output) -> Result<(), Failure> {
    if let Command::Show { job, .. } | Command::Cancel { job, .. } = &command {
        sendable("id", job)?;
    }
    match command {
        Command::List { remote } => list(&remote.client()?, output).await,
        Command::Show { remote, job } => {
            let client = remote.client()?;
            show(&client, &full_id(&client, &job).await?, output).await
        }
        Command::Cancel { remote, job } => {
            let client = remote.client()?;
            let job = full_id(&client, &job).await?;
            if !cancel(&client, &reference(&job)).await? {
                return Err(Failure::failed(
                    "the job has ended or can no longer be stopped",
                ));
            }
            let running = reference(&job);
            let interrupts = listen(&running, output)?;
            let how = (Some(PATIENCE), Some(&interrupts));
            let ended = followed(&client, &running, output, how).await?;
            if !has_ended(&ended) {
                return Err(Failure::failed(format_args!(
                    "job {job} is cancelled and has not ended yet: it does not get on; its status: {}",
                    ended.text("JobStatus")
                )));
            }
            output.result(fields(&ended), || format!("job {job}: {}", state(&ended)))
        }
    }
}

async fn list(client: &Client, output: &Output) -> Result<(), Failure> {
    let mut jobs = client.enumerate(NAMESPACE, CLASS).await?;
    jobs.sort_by(|a, b| a.text(SUBMITTED).cmp(b.text(SUBMITTED)));
    let mut rows = vec![
        ["SUBMITTED (UTC)", "ID", "STATE", "%", "WHAT", "STATUS"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for job in &jobs {
        rows.push(vec![
            moment(job.text(SUBMITTED)),
            job.text("InstanceID").to_owned(),
            state(job).to_owned(),
            job.text("PercentComplete").to_owned(),
            job.text("ElementName").to_owned(),
            job.text("JobStatus").to_owned(),
        ]);
    }
    let objects: Vec<Json> = jobs.iter().map(fields).collect();
    output.result(json!({"jobs": objects}), || table(&rows))
}

async fn show(client: &Client, id: &str, output: &Output) -> Result<(), Failure> {
    let job = client.get(&reference(id)).await?;
    output.result(fields(&job), || {
        let mut lines = format!(
            "job      {id}\nwhat     {}\nstate    {}\npercent  {}\nstatus   {}\n",
            job.text("ElementName"),
            state(&job),
            job.text("PercentComplete"),
            job.text("JobStatus"),
        );
        if !job.text("ErrorDescription").is_empty() {
            lines += &format!(
                "error    {}: {}\n",
                job.text("ErrorCode"),
                job.text("ErrorDescription")
            );
        }
        lines
    })
}

pub(super) fn reference(id: &str) -> Path {
    Path::new(NAMESPACE, CLASS).key("InstanceID", id)
}

/// The id that is meant: that of the job whose id is the word, or begins so.
async fn full_id(client: &Client, wanted: &str) -> Result<String, Failure> {
    let jobs = client.enumerate(NAMESPACE, CLASS).await?;
    let of = |job: &Object| (job.text("InstanceID").to_owned(), String::new());
    match pick(&jobs, wanted, "job", of)? {
        Some(job) => Ok(of(job).0),
        None => Err(Failure::failed(format_args!(
            "there is no job `{}`: a job is removed some time after its end; `groupshot history` knows it longer",
            one_line(wanted)
        ))),
    }
}

/// Asks the server to end the job; `false` if that is not possible any more.
async fn cancel(client: &Client, job: &Path) -> Result<bool, Failure> {
    let arguments = [("RequestedState", TERMINATE.into())];
    let answer = client.invoke(job, "RequestStateChange", &arguments).await?;
    match answer.number("ReturnValue") {
        Some(0 | 4096) => Ok(true),
        Some(4097) => Ok(false),
        other => Err(Failure::failed(format_args!(
            "the server does not stop the job (return value {})",
            other.unwrap_or_default()
        ))),
    }
}

/// Shows the job's progress until it has ended. Ctrl-C asks the server to end it and goes on waiting; a second one ends
/// this process.
pub(super) async fn wait(client: &Client, job: &Path, output: &Output) -> Result<Object, Failure> {
    // Before anything is shown: from then on Ctrl-C means the job.
    let interrupts = listen(job, output)?;
    followed(client, job, output, (None, Some(&interrupts))).await
}

/// The same where somebody else hears Ctrl-C.
pub(super) async fn wait_for_end(
    client: &Client,
    job: &Path,
    output: &Output,
) -> Result<Object, Failure> {
    followed(client, job, output, (None, None)).await
}

fn listen(job: &Path, output: &Output) -> Result<Interrupts, Failure> {
    let id = job.text("InstanceID").unwrap_or_default();
    let goes_on = format!(
        "interrupted; how job {id} ends is not waited for: `groupshot job show {id}` tells"
    );
    stop::interrupts(goes_on, *output).map_err(Failure::failed)
}

/// The same; no longer than until the job has shown the same for `patience`.
async fn followed(
    client: &Client,
    job: &Path,
    output: &Output,
    (patience, interrupts): (Option<Duration>, Option<&Interrupts>),
) -> Result<Object, Failure> {
    let interrupted = async {
        match interrupts {
            Some(interrupts) => interrupts.asked.cancelled().await,
            None => std::future::pending().await,
        }
    };
    let mut interrupted = std::pin::pin!(interrupted);
    let mut progress = output.progress();
    let mut cancelled = false;
    let mut shown = (0, String::new(), Instant::now());
    loop {
        let now = client.get(job).await?;
        // How it has ended is told by whoever waits.
        if has_ended(&now) {
            return Ok(now);
        }
        let percent = now.number("PercentComplete").unwrap_or(0);
        let status = now.text("JobStatus");
        progress.show(percent, status);
        if (shown.0, shown.1.as_str()) != (percent, status) {
            shown = (percent, status.to_owned(), Instant::now());
        }
        if patience.is_some_and(|limit| shown.2.elapsed() >= limit) {
            return Ok(now);
        }
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            () = &mut interrupted, if !cancelled => {
                cancelled = true;
                output.note(match cancel(client, job).await? {
                    true => "cancelling; waiting for the end",
                    false => "too late to cancel; waiting for the end",
                });
            }
        }
    }
}

/// 2 to 6 are the states of a job that goes on.
fn has_ended(job: &Object) -> bool {
    job.number("JobState").is_some_and(|state| state > 6)
}

/// The failure that an ended job stands for; `None` if it ended well.
pub(super) fn failure(job: &Object) -> Option<Failure> {
    let text = job.text("ErrorDescription");
    match job.number("JobState") {
        Some(7) => None,
        _ => Some(Failure::new(
            Exit::Job,
            format_args!("job {} {}: {text}", job.text("InstanceID"), state(job)),
        )),
    }
}

pub(super) fn fields(job: &Object) -> Json {
    json!({
        "id": job.text("InstanceID"),
        "submitted": job.text(SUBMITTED),
        "what": job.text("ElementName"),
        "state": state(job),
        "percent": job.number("PercentComplete"),
        "status": job.text("JobStatus"),
        "errorCode": job.number("ErrorCode"),
        "error": job.text("ErrorDescription"),
    })
}

fn state(job: &Object) -> &'static str {
    match job.number("JobState") {
        Some(2) => "new",
        Some(3) => "starting",
        Some(4) => "running",
        Some(5) => "suspended",
        Some(6) => "shutting down",
        Some(7) => "completed",
        Some(8) => "terminated",
        Some(9) => "killed",
        Some(10) => "failed",
        _ => "unknown",
    }
}
