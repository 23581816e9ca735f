//! Log set-up: `tracing` to standard error, as text or JSON lines.

use std::io::{IsTerminal, Write};

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

/// The levels, least to most.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Can that be a `level`? A part is a level, or `TARGET=LEVEL`. The filter itself takes any word for a target of
/// which everything is told.
///
/// # Errors
/// Which part of it is none.
pub fn check(level: &str) -> Result<(), String> {
    let is_level = |text: &str| LEVELS.iter().any(|l| l.eq_ignore_ascii_case(text));
    let is_target = |text: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "_:-[]{}".contains(c);
        !text.is_empty() && text.chars().all(fits)
    };
    for part in level.split(',').map(str::trim) {
        let fits = match part.rsplit_once('=') {
            None => is_level(part),
            Some((target, level)) => is_target(target) && is_level(level),
        };
        if !fits || EnvFilter::try_new(part).is_err() {
            return Err(format!(
                "`{part}` is neither a level ({}) nor TARGET=LEVEL",
                LEVELS.join(", ")
            ));
        }
    }
    Ok(())
}

/// Standard error, to which everything can be written: what nobody hears is lost.
struct Heard(std::io::Stderr);

impl Write for Heard {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _lost = self.0.write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let _lost = self.0.flush();
        Ok(())
    }
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
        // Where a line cannot be written, as on a full disk, it is lost, and that is nothing to end for.
        .log_internal_errors(false)
        .with_writer(|| Heard(std::io::stderr()));
    let _already_started = match format {
        Format::Text => builder.with_target(false).try_init(),
        Format::Json => builder.json().try_init(),
    };
    Ok(())
}

/// What was logged.
#[cfg(test)]
#[derive(Clone, Default)]
pub(crate) struct Told(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

#[cfg(test)]
impl Told {
    pub(crate) fn told(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[cfg(test)]
impl Write for Told {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What this thread logs from now on, as long as the other one is kept.
#[cfg(test)]
pub(crate) fn heard() -> (Told, tracing::subscriber::DefaultGuard) {
    let told = Told::default();
    let writer = told.clone();
    let builder = tracing_subscriber::fmt().with_ansi(false);
    let subscriber = builder.with_writer(move || writer.clone()).finish();
    (told, tracing::subscriber::set_default(subscriber))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_a_level_or_one_of_a_target() {
        for good in [
            "info",
            "WARN",
            "groupshot=debug,warn",
            "hyper::proto=trace, info",
            "off",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "inof",
            "",
            "info,",
            "groupshot",
            "groupshot=inof",
            "=info",
            "a=b=c",
            "a b=info",
        ] {
            let told = check(bad).unwrap_err();
            assert!(
                told.contains("off, error, warn, info, debug, trace"),
                "{bad}: {told}"
            );
        }
    }
}
