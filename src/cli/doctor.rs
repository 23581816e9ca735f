//! `groupshot doctor`: what is wrong in a data directory, and with `--fix` its repair. A running server is asked.

use clap::Args;
use serde_json::{Value as Json, json};
use tokio::sync::watch;

use crate::doctor::line::{Answer, Progress, Tell, Wish};
use crate::doctor::{Finding, FindingKind, Severity};
use crate::server::Checkup;

use super::failure::Failure;
use super::local::{ConfigFile, DataDir};
use super::output::{Output, can_ask, confirm, count, table};
use super::rebuild;

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("repair").args(["fix", "rebuild"]))]
pub(super) struct Doctor {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    data: DataDir,
    /// Repair what can be repaired; asks before each repair.
    #[arg(long)]
    fix: bool,
    /// Make again what the database has lost, from the records of snapshot sets beside their files; shows it and asks
    /// first. No server may run.
    #[arg(long)]
    rebuild: bool,
    /// Do not ask. Damaged disks are left as they are.
    #[arg(long, requires = "repair")]
    yes: bool,
    /// Accept damaged disks too, as they are now.
    #[arg(long, requires_all = ["yes", "fix"])]
    accept_damaged: bool,
}

pub(super) fn run(command: &Doctor, output: &Output) -> Result<(), Failure> {
    if command.fix && !command.yes && !can_ask() {
        return Err(Failure::usage(
            "repairs change files: say --yes where nobody can be asked",
        ));
    }
    let data_dir = command.data.path()?;
    if command.rebuild {
        return rebuild::run(&data_dir, command.yes, output);
    }
    let config = command.config.load()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        let checkup = Checkup::open(&data_dir, &config, command.fix)?;
        let fixed = match command.fix {
            true => fix(&checkup, command, output).await?,
            false => Vec::new(),
        };
        show(&look(&checkup).await?, fixed, command.fix, output)
    });
    // What waits for better times is left to the next start.
    runtime.shutdown_background();
    result
}

async fn look(checkup: &Checkup) -> Result<Vec<Finding>, Failure> {
    match checkup.answer(Wish::Look, Tell::new(None)).await? {
        Answer::Findings(findings) => Ok(findings),
        Answer::Error(why) => Err(Failure::failed(why)),
        _ => Err(Failure::failed(
            "unexpected answer from the server; is it a different version?",
        )),
    }
}

/// Repairs one after the other; what was done, or why not.
async fn fix(checkup: &Checkup, command: &Doctor, output: &Output) -> Result<Vec<Json>, Failure> {
    let mut done = Vec::new();
    for finding in look(checkup).await? {
        let Finding {
            kind,
            object,
            text,
            fix: Some(fix),
            ..
        } = finding
        else {
            continue;
        };
        let wanted = match command.yes {
            true => kind != FindingKind::Damaged || command.accept_damaged,
            false => confirm(&format!("{object}: {text}. {}?", capital(&fix)))?,
        };
        if !wanted {
            continue;
        }
        let wish = Wish::Fix {
            kind,
            object: object.clone(),
            progress: true,
        };
        done.push(match watched(checkup, wish, output).await? {
            Answer::Done(did) => {
                output.note(format_args!("{object}: {did}"));
                json!({"kind": kind, "object": object, "done": did})
            }
            Answer::Error(why) => {
                output.note(format_args!("{object}: not repaired: {why}"));
                json!({"kind": kind, "object": object, "error": why})
            }
            _ => continue,
        });
    }
    Ok(done)
}

/// Has it done, and shows how far it is.
async fn watched(checkup: &Checkup, wish: Wish, output: &Output) -> Result<Answer, Failure> {
    let (tell, mut told) = watch::channel::<Option<Progress>>(None);
    let answer = checkup.answer(wish, tell);
    tokio::pin!(answer);
    let mut shown = None;
    loop {
        tokio::select! {
            answer = &mut answer => return Ok(answer?),
            Ok(()) = told.changed() => {
                if let Some(now) = told.borrow_and_update().clone() {
                    let bar = shown.get_or_insert_with(|| output.progress());
                    bar.show(u64::from(now.percent), &now.text);
                }
            }
        }
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

fn show(
    findings: &[Finding],
    fixed: Vec<Json>,
    fixes: bool,
    output: &Output,
) -> Result<(), Failure> {
    let mut fields = json!({"findings": findings});
    if let (true, Json::Object(fields)) = (fixes, &mut fields) {
        fields.insert("fixed".to_owned(), fixed.into());
    }
    output.result(fields, || in_words(findings))?;
    match findings.iter().filter(|f| f.needs_somebody()).count() {
        0 => Ok(()),
        1 => Err(Failure::failed("1 finding needs somebody")),
        n => Err(Failure::failed(format_args!(
            "{} need somebody",
            count(n, "finding")
        ))),
    }
}

fn in_words(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "all is well".to_owned();
    }
    let mut rows = vec![["", "KIND", "WHAT"].map(str::to_owned).to_vec()];
    for finding in findings {
        let severity = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Info => "info",
        };
        let kind = serde_json::to_value(finding.kind).unwrap_or_default();
        let mut what = format!("{}: {}", finding.object, finding.text);
        if let Some(fix) = &finding.fix {
            what.push_str(&format!(" (--fix: {fix})"));
        }
        let kind = kind.as_str().unwrap_or_default().to_owned();
        rows.push(vec![severity.to_owned(), kind, what]);
    }
    table(&rows)
}
