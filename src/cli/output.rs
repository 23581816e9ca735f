//! Where words go: results to standard output, the rest to standard error.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::failure::Failure;

/// Version of the objects that `--json` prints; grows when a field changes its meaning or goes.
const JSON_VERSION: u32 = 1;

/// Text for people or JSON for scripts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    json: bool,
    quiet: bool,
}

impl Output {
    pub(super) fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet }
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
            (false, _) => visible(&text(), true),
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
                writeln!(err, "groupshot: {message}")
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
        }
    }
}

/// The display of one job.
pub(super) struct Progress {
    output: Output,
    bar: Option<ProgressBar>,
    phase: String,
}

impl Progress {
    pub(super) fn show(&mut self, percent: u64, phase: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(percent);
            bar.set_message(visible(phase, false));
        } else if phase != self.phase {
            self.output.note(format_args!("{percent:>3} % {phase}"));
        }
        phase.clone_into(&mut self.phase);
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

/// Bytes for people: `512 bytes`, `1.5 GiB`. A scaled number is rounded; JSON has the bytes.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut tenths, mut unit) = (None, None);
    for (n, name) in (1_u32..).zip(UNITS) {
        let one = 1_u128 << (10 * n);
        if u128::from(bytes) >= one {
            tenths = Some((u128::from(bytes) * 10 + one / 2) / one);
            unit = Some(name);
        }
    }
    match (tenths, unit) {
        (Some(tenths), Some(unit)) if tenths % 10 == 0 => format!("{} {unit}", tenths / 10),
        (Some(tenths), Some(unit)) => format!("{}.{} {unit}", tenths / 10, tenths % 10),
        _ => format!("{bytes} bytes"),
    }
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

/// Does a terminal turn the text around, or begin another line? Unicode's Bidi_Control and separators.
fn turns(c: char) -> bool {
    matches!(c, '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// Text without anything that a terminal would obey: names come from whoever made the things.
pub(super) fn visible(text: &str, lines: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match (c.is_control() || turns(c)) && !(lines && c == '\n') {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

/// How wide a column may be. The last one has no limit: nothing follows it, and it may hold a path to copy.
const WIDEST: usize = 60;

fn cut(cell: &str) -> String {
    let mut short: String = cell.chars().take(WIDEST).collect();
    if short.len() < cell.len() {
        short.pop();
        short.push('…');
    }
    short
}

/// Rows as columns, the first row as heading.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let shown = |row: &Vec<String>| -> Vec<String> {
        let cells = row.iter().map(|cell| visible(cell, false)).enumerate();
        cells
            .map(|(n, cell)| match n + 1 < row.len() {
                true => cut(&cell),
                false => cell,
            })
            .collect()
    };
    let rows: Vec<Vec<String>> = rows.iter().map(shown).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |n: usize| {
        let cells = rows.iter().filter_map(|row| row.get(n));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths);
        let line: String = cells
            .map(|(cell, width)| format!("{cell:width$}  "))
            .collect();
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_straight_columns() {
        let row = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
        let text = table(&[row("NAME", "ID"), row("web", "1"), row("database", "2")]);
        assert_eq!(text, "NAME      ID\nweb       1\ndatabase  2\n");
    }

    #[test]
    fn a_name_cannot_command_the_terminal_and_not_push_the_others_away() {
        let row = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
        let text = table(&[row("a\u{1b}[2J\nb", "1\r")]);
        assert_eq!(text, "a\\u{1b}[2J\\nb  1\\r\n");
        assert_eq!(visible("a\u{202e}b\nשלום", true), "a\\u{202e}b\nשלום");
        let long = "é".repeat(61);
        let text = table(&[row(&long, &long), row(&"é".repeat(60), "x")]);
        let short = format!("{}…", "é".repeat(59));
        assert_eq!(text, format!("{short}  {long}\n{}  x\n", "é".repeat(60)));
    }

    #[test]
    fn a_size_is_told_in_the_largest_unit_that_it_fills() {
        let table = [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (10 << 30, "10 GiB"),
            (u64::MAX, "16 EiB"),
        ];
        for (bytes, told) in table {
            assert_eq!(size(bytes), told);
        }
    }

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
