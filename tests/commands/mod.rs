//! The program at a shell: results, JSON, exit codes. Everything goes through the real binary.

mod check;
mod fit;
mod history;
mod interrupts;
mod local;
mod machines;
mod prompt;
mod quickstart;
mod remote;
mod requests;
mod rescue;
mod shapes;
mod shown;
mod told;
mod walk;
mod words;

use std::process::Output;

use crate::support::server::text;

/// Exit code of a command, with what it said where that helps.
fn code(output: &Output) -> i32 {
    output
        .status
        .code()
        .unwrap_or_else(|| panic!("ended by a signal: {}", said(output)))
}

/// Both streams.
fn said(output: &Output) -> String {
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

/// Asserts success; gives standard output.
fn ok(output: &Output) -> String {
    assert_eq!(code(output), 0, "{}", said(output));
    text(&output.stdout)
}

/// Asserts this exit code and one clear line on standard error that holds `part`.
fn fails(output: &Output, exit: i32, part: &str) {
    let line = text(&output.stderr);
    assert_eq!(code(output), exit, "{}", said(output));
    let is_own = |l: &&str| l.starts_with("groupshot: ") || l.starts_with(r#"{"error":"#);
    let own: Vec<&str> = line.lines().filter(is_own).collect();
    assert_eq!(own.len(), 1, "{line}");
    assert!(own[0].contains(part), "{line}");
}

/// The one JSON object on standard output; asserts success and `version`.
fn json(output: &Output) -> serde_json::Value {
    let value: serde_json::Value = serde_json::from_str(&ok(output)).unwrap();
    assert_eq!(value["version"], 1);
    value
}
