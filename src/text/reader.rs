//! What the readers of TOML and JSON say is wrong with a text, in words for whoever wrote it: not in those of the
//! program's types.

use std::io;
use std::ops::Range;

/// What was expected, as the reader calls it, and as people do.
const EXPECTED: &[(&str, &str)] = &[
    ("u8", "a whole number from 0 to 255"),
    ("u16", "a whole number from 0 to 65535"),
    ("u32", "a whole number from 0 to 4294967295"),
    ("u64", "a whole number, 0 or more"),
    ("usize", "a whole number, 0 or more"),
    ("a boolean", "true or false"),
    ("a string", "a text in quotes"),
    ("path string", "a path in quotes"),
    ("string only", "a text in quotes"),
    ("string or table", "a text in quotes"),
    ("socket address", ADDRESS),
    ("a sequence", "a list in [ ]"),
    ("a map", "a table"),
];
const ADDRESS: &str = "an address with a port, such as \"127.0.0.1:5985\" or \"[::]:5986\"";

/// The reason that a reader gives for a key, a value or a place in a text, in words of the field and in one line.
#[must_use]
pub fn told(message: &str) -> String {
    let message = message.replace('\n', " ");
    if message.contains("socket address") {
        return format!("expected {ADDRESS}");
    }
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let (name, known) = rest.split_once(", expected ").unwrap_or((rest, ""));
        return format!("unknown key {name}{}", known_ones(known));
    }
    if let Some(name) = message.strip_prefix("missing field ") {
        return format!("the key {name} is missing");
    }
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        let (found, known) = rest.split_once(", expected ").unwrap_or((rest, ""));
        return format!("expected {}, found {found}", known);
    }
    if let Some(expected) = message.strip_prefix("wanted ") {
        return format!("expected {}", people(expected));
    }
    let wrong = ["invalid type: ", "invalid value: ", "invalid length "];
    let wrong = wrong.iter().find_map(|kind| message.strip_prefix(kind));
    match wrong.and_then(|rest| rest.split_once(", expected ")) {
        Some((found, expected)) => {
            format!("expected {}, found {}", people(expected), thing(found))
        }
        None => syntax(&message),
    }
}

/// [`told`] with the line of the place in the text that it is about.
#[must_use]
pub fn told_of(text: &str, message: &str, place: Option<Range<usize>>) -> String {
    let before = place.and_then(|place| text.get(..place.start));
    match before {
        Some(before) => {
            let line = before.matches('\n').count() + 1;
            format!("line {line}: {}", told(message))
        }
        None => told(message),
    }
}

/// The reason why a text is not the JSON that it should be.
#[must_use]
pub fn told_of_json(error: &serde_json::Error) -> String {
    if !error.is_data() {
        return format!(
            "not valid JSON at line {}, column {}",
            error.line(),
            error.column()
        );
    }
    let message = error.to_string();
    told(message.split(" at line ").next().unwrap_or_default())
}

/// Why a file could not be read as a text.
#[must_use]
pub fn told_of_file(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
        _ => error.to_string(),
    }
}

/// What is wrong with the form of a text.
fn syntax(message: &str) -> String {
    match message {
        "" => "it cannot be understood".to_owned(),
        message => format!("it cannot be understood: {message}"),
    }
}

fn people(expected: &str) -> String {
    if expected.starts_with("struct ") || expected.contains("enum ") {
        return "a table of keys".to_owned();
    }
    let known = EXPECTED.iter().find(|(reader, _)| *reader == expected);
    known.map_or_else(|| expected.to_owned(), |(_, people)| (*people).to_owned())
}

/// What stands there, from ``integer `5` `` or `string "a"`.
fn thing(found: &str) -> String {
    let value = |prefix: &str| {
        let rest = found.strip_prefix(prefix)?;
        // A number too long for the usual types is followed by the one that holds it: `99…9` as i128.
        let quoted = rest
            .strip_prefix('`')
            .and_then(|rest| rest.rsplit_once('`'));
        Some(quoted.map_or(rest, |(value, _)| value).to_owned())
    };
    let number = value("integer ").or_else(|| value("floating point "));
    if let Some(number) = number {
        return format!("the number {number}");
    }
    if let Some(text) = value("string ").or_else(|| value("boolean ")) {
        return text;
    }
    match found {
        "sequence" => "a list".to_owned(),
        "map" => "a table".to_owned(),
        other if other.contains("datetime") => "a date".to_owned(),
        other => other.to_owned(),
    }
}

fn known_ones(known: &str) -> String {
    match known.is_empty() || known.starts_with("there are no") {
        true => String::new(),
        false => format!(", expected {}", known),
    }
}
