//! Where words go: results to standard output, the rest to standard error.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::failure::Failure;
use super::screen::{Color, colored, is_mark};

pub(super) use super::screen::table;
use crate::text::is_obeyed;
pub(super) use crate::text::size;

/// Version of the objects that `--json` prints; grows when a field changes its meaning or goes.
const JSON_VERSION: u32 = 1;

/// Text for people or JSON for scripts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    json: bool,
    quiet: bool,
    color: Color,
}

impl Output {
    pub(super) fn new(json: bool, quiet: bool, color: Color) -> Self {
        Self { json, quiet, color }
    }

    /// Is it JSON that is wanted?
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints a result: `fields` as an object with `version`, or the lines of `text`.
    pub(super) fn result(
        &self,
        fields: Value,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        let line = match (self.json, fields) {
            (false, _) => {
                let on = self.color.on(io::stdout().is_terminal());
                colored(&visible(&text(), true), on)
            }
            (true, Value::Object(mut object)) => {
                object.insert("version".to_owned(), json!(JSON_VERSION));
                Value::Object(object).to_string()
            }
            (true, other) => json!({"version": JSON_VERSION, "result": other}).to_string(),
        };
        if line.is_empty() {
            return Ok(());
        }
        print(format!("{}\n", line.trim_end_matches('\n')).as_bytes())
    }

    /// Says what is going on, on standard error; nothing with `--json` or `--quiet`.
    pub(super) fn note(&self, line: impl std::fmt::Display) {
        if !self.json && !self.quiet {
            let _ = writeln!(io::stderr(), "{}", visible(&line.to_string(), true));
        }
    }

    pub(super) fn error(&self, failure: &Failure) {
        let mut err = io::stderr();
        let _ = match self.json {
            true => {
                let (kind, exit) = (failure.exit.kind(), failure.exit.code());
                let error = json!({"kind": kind, "exit": exit, "message": failure.message});
                let object = json!({"version": JSON_VERSION, "error": error});
                writeln!(err, "{object}")
            }
            false => {
                let message = visible(&failure.message.replace('\n', " "), false);
                let name = match self.color.on(err.is_terminal()) {
                    true => "\u{1b}[31mgroupshot:\u{1b}[0m",
                    false => "groupshot:",
                };
                writeln!(err, "{name} {message}")
            }
        };
    }

    /// A display for a job: a bar on a terminal, else one line for each phase.
    pub(super) fn progress(&self) -> Progress {
        let bar = (!self.json && !self.quiet && io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(100);
            if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent:>3} % {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Progress {
            output: *self,
            bar,
            phase: String::new(),
            told: 0,
        }
    }
}

/// So many hundredths further, progress is told again where there is no terminal.
const LEAP: u64 = 10;

/// A status without the numbers at its end, which change all the time: `: 12 of 40 MiB, …`.
fn stage(status: &str) -> &str {
    match status.rsplit_once(": ") {
        Some((stage, rest)) if rest.starts_with(|c: char| c.is_ascii_digit()) => stage,
        _ => status,
    }
}

/// The display of one job.
pub(super) struct Progress {
    output: Output,
    bar: Option<ProgressBar>,
    phase: String,
    told: u64,
}

impl Progress {
    pub(super) fn show(&mut self, percent: u64, phase: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(percent);
            bar.set_message(visible(phase, false));
        } else if stage(phase) != self.phase || percent >= self.told.saturating_add(LEAP) {
            self.output.note(format_args!("{percent:>3} % {phase}"));
            stage(phase).clone_into(&mut self.phase);
            self.told = percent;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Is somebody there to answer a question?
pub(super) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks on the terminal; no answer is a no.
pub(super) fn confirm(question: &str) -> Result<bool, Failure> {
    write!(io::stderr(), "{} [y/N] ", visible(question, false))?;
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    let answer = line.trim().to_ascii_lowercase();
    Ok(matches!(answer.as_str(), "y" | "yes"))
}

/// Writes to standard output. `groupshot … | head` is no failure.
pub(super) fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// `1 disk`, `2 disks`.
pub(super) fn count(n: usize, one: &str) -> String {
    let ending = if n == 1 { "" } else { "s" };
    format!("{n} {one}{ending}")
}

/// A moment as a server writes it, in whole seconds: `2026-11-20 23:44:04`. Other forms stay.
pub(super) fn moment(wire: &str) -> String {
    match wire.strip_suffix('Z').and_then(|utc| utc.split_once('T')) {
        Some((date, time)) => {
            let seconds = time.split('.').next().unwrap_or(time);
            format!("{date} {seconds}")
        }
        None => wire.to_owned(),
    }
}

/// A name within a sentence or as a line of its own: it cannot pretend to be further lines.
pub(super) fn one_line(name: &str) -> String {
    visible(name, false)
}

/// Text without anything that a terminal would obey: names come from whoever made the things.
pub(super) fn visible(text: &str, lines: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let hidden = is_obeyed(c) || is_mark(c);
        match hidden && !(lines && (c == '\n' || is_mark(c))) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_told_in_whole_seconds() {
        assert_eq!(moment("2026-11-20T23:44:04.123456Z"), "2026-11-20 23:44:04");
        assert_eq!(moment("2026-11-20T23:44:04Z"), "2026-11-20 23:44:04");
        assert_eq!(
            moment("2026-11-20T23:44:04+01:00"),
            "2026-11-20T23:44:04+01:00"
        );
    }
}
