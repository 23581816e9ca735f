//! `groupshot config …`

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use crate::config::{Config, ConfigError, Mistake};
use crate::server::{self, Fitness, StartError};

use super::failure::{Exit, Failure};
use super::local::DataDir;
use super::output::{Output, count};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Read a configuration file and say what is wrong with it.
    Check {
        /// The file.
        #[arg(default_value = "groupshot.toml")]
        file: PathBuf,
        #[command(flatten)]
        data: DataDir,
    },
}

pub(super) fn run(command: &Command, output: &Output) -> Result<(), Failure> {
    let Command::Check { file, data } = command;
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(ConfigError::Wrong { file, mistakes }) => {
            return Err(told(&file.display().to_string(), &mistakes, output)?);
        }
        Err(other) => return Err(other.into()),
    };
    let name = file.display().to_string();
    let Fitness { errors, warnings } = server::fitness(&config, &data.path()?);
    if !errors.is_empty() {
        return Err(refused(&name, errors, &warnings, output)?);
    }
    output.result(
        json!({"file": name, "ok": true, "warnings": warnings}),
        || {
            let mut text = format!("{name}: good");
            for warning in &warnings {
                text.push_str("\nwarning: ");
                text.push_str(warning);
            }
            text
        },
    )
}

/// Tells each reason why no server starts with it in a line of its own, or all in one object. The first decides the
/// exit code, as it does for `serve`.
fn refused(
    file: &str,
    errors: Vec<StartError>,
    warnings: &[String],
    output: &Output,
) -> Result<Failure, Failure> {
    let failures: Vec<Failure> = errors.into_iter().map(Failure::from).collect();
    let exit = failures.first().map_or(Exit::Failed, |first| first.exit);
    if output.is_json() {
        let object = |f: &Failure| json!({"kind": f.exit.kind(), "text": f.message});
        let objects: Vec<_> = failures.iter().map(object).collect();
        let result = json!({"file": file, "ok": false, "refusals": objects, "warnings": warnings});
        output.result(result, String::new)?;
        let number = count(failures.len(), "reason");
        let text = format_args!("{file}: a server would not start: {number}");
        return Ok(Failure::new(exit, text));
    }
    for warning in warnings {
        output.note(format_args!("warning: {warning}"));
    }
    let mut failures = failures.into_iter().rev();
    let last = failures.next().map(|f| f.message).unwrap_or_default();
    for failure in failures.rev() {
        output.error(&failure);
    }
    Ok(Failure::new(exit, last))
}

/// Tells each mistake in a line of its own, or all in one object. The last line is the failure.
fn told(file: &str, mistakes: &[Mistake], output: &Output) -> Result<Failure, Failure> {
    if output.is_json() {
        let object = |m: &Mistake| json!({"line": m.line, "key": m.key, "text": m.text});
        let objects: Vec<_> = mistakes.iter().map(object).collect();
        let result = json!({"file": file, "ok": false, "mistakes": objects});
        output.result(result, String::new)?;
        let number = count(mistakes.len(), "mistake");
        return Ok(Failure::new(Exit::Config, format_args!("{file}: {number}")));
    }
    let line =
        |m: &Mistake| Failure::new(Exit::Config, format_args!("{file}:{}: {}", m.line, m.text));
    let mut lines = mistakes.iter().map(line).rev();
    let last = lines.next();
    for failure in lines.rev() {
        output.error(&failure);
    }
    Ok(last.unwrap_or_else(|| Failure::new(Exit::Config, file)))
}
