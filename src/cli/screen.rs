//! What a terminal shows: colours where they are wanted, and tables that break no id.

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use clap::builder::styling::AnsiColor;

use super::output::visible;

/// When there are colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Color {
    /// On a terminal, unless NO_COLOR is set or TERM is dumb.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Color {
    /// Whether a stream gets colours.
    pub(super) fn on(self, is_terminal: bool) -> bool {
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => is_terminal && !is_set("NO_COLOR") && !is_dumb,
        }
    }
}

/// A word that stands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ink {
    Bad,
    Doubtful,
    Good,
}

/// Where the ink of a word begins, and where it ends: characters that nobody writes. They are taken out or become
/// colours when the text is printed; in names they are made visible before.
const MARKS: [(Ink, char); 3] = [
    (Ink::Bad, '\u{F0001}'),
    (Ink::Doubtful, '\u{F0002}'),
    (Ink::Good, '\u{F0003}'),
];
const END: char = '\u{F0000}';

/// Whether the character is one of ours.
pub(super) fn is_mark(c: char) -> bool {
    (END..='\u{F0003}').contains(&c)
}

/// The words that stand out, of severities, outcomes and states.
fn ink(word: &str) -> Option<Ink> {
    Some(match word {
        "error" | "failed" | "damaged" => Ink::Bad,
        "warning" | "refused" | "cancelled" | "terminated" | "killed" => Ink::Doubtful,
        "completed" => Ink::Good,
        _ => return None,
    })
}

/// The word between marks, if it stands out.
pub(super) fn inked(word: &str) -> String {
    let ink = ink(word.trim_end());
    let mark = ink.and_then(|ink| MARKS.iter().find(|(of, _)| *of == ink));
    mark.map_or_else(|| word.to_owned(), |(_, mark)| format!("{mark}{word}{END}"))
}

/// The text with colours in place of marks, or without them.
pub(super) fn colored(text: &str, on: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let color = match MARKS.iter().find(|(_, mark)| *mark == c) {
            Some((Ink::Bad, _)) => AnsiColor::Red,
            Some((Ink::Doubtful, _)) => AnsiColor::Yellow,
            Some((Ink::Good, _)) => AnsiColor::Green,
            None if c == END => {
                if on {
                    out.push_str("\u{1b}[0m");
                }
                continue;
            }
            None => {
                out.push(c);
                continue;
            }
        };
        if on {
            out.push_str(&color.on_default().render().to_string());
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

/// The columns of the terminal that results go to; `None` if it is none or does not say.
fn columns() -> Option<usize> {
    let out = io::stdout();
    let size = out
        .is_terminal()
        .then(|| rustix::termios::tcgetwinsize(out));
    let columns = size?.ok()?.ws_col;
    Some(usize::from(columns)).filter(|n| *n > 0)
}

/// Rows as columns, the first row as heading; where the terminal is too narrow for that, each row in lines of its own.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    laid_out(rows, columns())
}

fn laid_out(rows: &[Vec<String>], columns: Option<usize>) -> String {
    let widest = |row: &Vec<String>| row.len();
    let number = rows.iter().map(widest).max().unwrap_or(0);
    let shown = |row: &Vec<String>| -> Vec<String> {
        let cells = row.iter().map(|cell| visible(cell, false)).enumerate();
        let cells = cells.map(|(n, cell)| match n + 1 < row.len() {
            true => cut(&cell),
            false => cell,
        });
        cells.collect()
    };
    let rows: Vec<Vec<String>> = rows.iter().map(shown).collect();
    let width = |n: usize| {
        let cells = rows.iter().filter_map(|row| row.get(n));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..number).map(width).collect();
    let gaps = 2 * number.saturating_sub(1);
    let needed = widths.iter().sum::<usize>().saturating_add(gaps);
    match columns {
        Some(columns) if needed > columns && rows.len() > 1 => in_lines(&rows),
        _ => in_columns(&rows, &widths),
    }
}

fn in_columns(rows: &[Vec<String>], widths: &[usize]) -> String {
    let mut out = String::new();
    for (n, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(widths);
        let mut line = String::new();
        let mut gap = 0;
        for (cell, width) in cells {
            line.extend(std::iter::repeat_n(' ', gap));
            line.push_str(&if n == 0 { cell.clone() } else { inked(cell) });
            gap = width.saturating_sub(cell.chars().count()).saturating_add(2);
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Each row as a block of `HEADING  cell`, so that the terminal breaks no id.
fn in_lines(rows: &[Vec<String>]) -> String {
    let Some((heading, rows)) = rows.split_first() else {
        return String::new();
    };
    let widest = heading.iter().map(|h| h.chars().count()).max().unwrap_or(0);
    let mut blocks = Vec::new();
    for row in rows {
        let mut block = String::new();
        for (name, cell) in heading.iter().zip(row).filter(|(_, cell)| !cell.is_empty()) {
            let line = match name.is_empty() {
                true => inked(cell),
                false => format!("{name:widest$}  {}", inked(cell)),
            };
            block.push_str(line.trim_end());
            block.push('\n');
        }
        blocks.push(block);
    }
    blocks.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(a: &str, b: &str) -> Vec<String> {
        vec![a.to_owned(), b.to_owned()]
    }

    #[test]
    fn a_table_has_straight_columns() {
        let text = laid_out(
            &[row("NAME", "ID"), row("web", "1"), row("database", "2")],
            None,
        );
        assert_eq!(text, "NAME      ID\nweb       1\ndatabase  2\n");
    }

    #[test]
    fn a_table_that_is_too_wide_is_told_in_lines_that_break_no_id() {
        let id = "8A3D0E62-7E5B-4C3B-9B66-3F2E6D1C0A11";
        let rows = [row("NAME", "ID"), row("web", id), row("", id)];
        let wide = laid_out(&rows, Some(42));
        assert_eq!(wide.lines().count(), 3, "{wide}");
        let narrow = laid_out(&rows, Some(41));
        assert_eq!(narrow, format!("NAME  web\nID    {id}\n\nID    {id}\n"));
    }

    #[test]
    fn a_name_cannot_command_the_terminal_and_not_push_the_others_away() {
        let text = laid_out(&[row("a\u{1b}[2J\nb", "1\r")], None);
        assert_eq!(text, "a\\u{1b}[2J\\nb  1\\r\n");
        assert_eq!(visible("a\u{202e}b\nשלום", true), "a\\u{202e}b\nשלום");
        let long = "é".repeat(61);
        let text = laid_out(&[row(&long, &long), row(&"é".repeat(60), "x")], None);
        let short = format!("{}…", "é".repeat(59));
        assert_eq!(text, format!("{short}  {long}\n{}  x\n", "é".repeat(60)));
    }

    #[test]
    fn a_word_of_a_state_has_a_colour_and_a_name_cannot_give_itself_one() {
        let rows = [
            row("STATE", "WHAT"),
            row("failed", "x\u{F0001}y"),
            row("failed", "z"),
        ];
        let text = laid_out(&rows, None);
        let plain = colored(&text, false);
        assert_eq!(plain, "STATE   WHAT\nfailed  x\\u{f0001}y\nfailed  z\n");
        let bright = colored(&text, true);
        assert!(
            bright.contains("\u{1b}[31mfailed\u{1b}[0m  z\n"),
            "{bright:?}"
        );
        assert_eq!(bright.matches('\u{1b}').count(), 4);
    }
}
