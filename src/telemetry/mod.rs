//! Log set-up: `tracing` to standard error, as text or JSON lines, by a thread of its own.

mod queue;

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;
use std::time::Duration;

use tracing::Metadata;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use queue::{Queue, Rank};

/// The target of lines of the audit log.
pub const AUDIT: &str = "audit";

/// The name of events of that target whose line is not lost: whoever logs one holds a [`Room`].
pub const KEPT: &str = "kept";

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

/// The log of this process.
static LOG: OnceLock<Queue> = OnceLock::new();

/// Leaves each line to the thread that writes.
struct Lines(Queue);

/// A line to come.
struct Line {
    queue: Queue,
    rank: Rank,
}

/// Room in the log for one line of the audit log, until it is dropped.
pub struct Room(#[expect(dead_code, reason = "it is held")] Option<queue::Room>);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        let queue = self.0.clone();
        Line {
            queue,
            rank: Rank::Ordinary,
        }
    }

    fn make_writer_for(&'a self, of: &Metadata<'_>) -> Line {
        let rank = match (of.target() == AUDIT, of.name() == KEPT) {
            (true, true) => Rank::Kept,
            (true, false) => Rank::Audit,
            (false, _) => Rank::Ordinary,
        };
        Line {
            rank,
            ..self.make_writer()
        }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.queue.push(bytes, self.rank);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Starts logging for the process. `level` is a filter in the syntax of `tracing_subscriber::EnvFilter`
/// (`info`, `groupshot=debug,warn`, …); lines of the audit log are told whatever it says. A second call changes nothing.
///
/// # Errors
/// The filter's own message, if `level` cannot be read; the system's, if it has no thread to give.
pub fn start(level: &str, format: Format) -> Result<(), String> {
    let filter = EnvFilter::try_new(format!("{level},{AUDIT}=info"));
    let filter = filter.map_err(|e| format!("log level `{level}`: {e}"))?;
    let mut is_new = false;
    let queue = LOG.get_or_init(|| {
        is_new = true;
        Queue::default()
    });
    if is_new {
        let tell = |lines| {
            tracing::warn!(
                lines,
                "Lines of the log are lost: nobody has read standard error"
            );
        };
        let started = queue.start(std::io::stderr(), tell);
        started.map_err(|e| format!("a thread for the log: {e}"))?;
    }
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .log_internal_errors(false)
        .with_writer(Lines(queue.clone()));
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

#[cfg(test)]
type Writer = Box<dyn Fn() -> Box<dyn Write>>;

#[cfg(test)]
thread_local! {
    /// Who gets the lines of this thread.
    static HEARD: std::cell::RefCell<Option<Writer>> = const { std::cell::RefCell::new(None) };
}

/// Ends what [`heard`] began.
#[cfg(test)]
pub(crate) struct Hearing;

#[cfg(test)]
impl Drop for Hearing {
    fn drop(&mut self) {
        HEARD.set(None);
    }
}

/// What this thread logs from now on, as long as the other one is kept.
#[cfg(test)]
pub(crate) fn heard() -> (Told, Hearing) {
    let told = Told::default();
    let writer = told.clone();
    (told, heard_by(move || Box::new(writer.clone())))
}

/// Has what this thread logs from now on written there.
///
/// The subscriber is the process's, only the writer is the thread's: under a subscriber of one thread, a call site that
/// another thread reaches first is switched off for all of them, as `tracing-core` asks that thread's subscriber only.
#[cfg(test)]
pub(crate) fn heard_by(writer: impl Fn() -> Box<dyn Write> + 'static) -> Hearing {
    static SUBSCRIBER: std::sync::Once = std::sync::Once::new();
    SUBSCRIBER.call_once(|| {
        let writer = || -> Box<dyn Write> {
            HEARD.with_borrow(|heard| match heard {
                Some(heard) => heard(),
                None => Box::new(std::io::sink()),
            })
        };
        let builder = tracing_subscriber::fmt().with_ansi(false);
        builder.with_writer(writer).init();
        // For the call sites that were reached while it was set.
        tracing::callsite::rebuild_interest_cache();
    });
    HEARD.set(Some(Box::new(writer)));
    Hearing
}

/// Comes back with room for a line of the audit log, which is not lost then even if nobody reads the log.
pub async fn room() -> Room {
    Room(match LOG.get() {
        Some(queue) => Some(queue.room().await),
        None => None,
    })
}

/// Waits until the log is written, not longer than `limit`: before the process ends.
pub fn finish(limit: Duration) {
    if let Some(queue) = LOG.get() {
        let _nobody_reads = queue.finish(limit);
    }
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
