//! Log set-up: `tracing` to standard error, as text or JSON lines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Can that be a `level`?
///
/// # Errors
/// The filter's own message.
pub fn check(level: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(level);
    filter.map(drop).map_err(|e| e.to_string())
}

/// Starts logging for the process. `level` is a filter in the syntax of `tracing_subscriber::EnvFilter`
/// (`info`, `groupshot=debug,warn`, …). A second call changes nothing.
///
/// # Errors
/// The filter's own message, if `level` cannot be read.
pub fn start(level: &str, format: Format) -> Result<(), String> {
    let filter = EnvFilter::try_new(level).map_err(|e| format!("log level `{level}`: {e}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let _already_started = match format {
        Format::Text => builder.with_target(false).try_init(),
        Format::Json => builder.json().try_init(),
    };
    Ok(())
}
