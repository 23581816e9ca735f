//! `groupshot config …`

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use crate::clock::SystemClock;
use crate::config::{Config, ConfigError, Mistake};
use crate::server;
use crate::tls;

use super::failure::{Exit, Failure};
use super::output::{Output, count};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Read a configuration file and say what is wrong with it.
    Check {
        /// The file.
        #[arg(default_value = "groupshot.toml")]
        file: PathBuf,
    },
}

pub(super) fn run(command: &Command, output: &Output) -> Result<(), Failure> {
    let Command::Check { file } = command;
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(ConfigError::Wrong { file, mistakes }) => {
            return Err(told(&file.display().to_string(), &mistakes, output)?);
        }
        Err(other) => return Err(other.into()),
    };
    let name = file.display().to_string();
    // Whether HTTPS is switched on here or by `serve --tls-listen`, the files must be sound.
    let mut warnings = tls::check(&config.tls.files(), SystemClock::shared().now())
        .map_err(|error| Failure::new(Exit::Config, error))?;
    warnings.extend(server::misfits(&config));
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
