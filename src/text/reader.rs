//! What the readers of TOML and JSON say is wrong with a text, in words for the author of the text: not in those of the
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

/// [`told`] with line and column of the place in the text that it is about.
#[must_use]
pub fn told_of(text: &str, message: &str, place: Option<Range<usize>>) -> String {
    let before = place.and_then(|place| text.get(..place.start));
    match before {
        Some(before) => {
            let line = before.matches('\n').count() + 1;
            let column = before
                .rsplit('\n')
                .next()
                .unwrap_or_default()
                .chars()
                .count()
                + 1;
            format!("line {line}, column {column}: {}", told(message))
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

/// What is wrong with the form of a text, as the reader calls it, by a part of that, and as people do.
const FORMS: &[(&str, &str)] = &[
    (
        "unexpected key or value",
        "the line goes on where it should end",
    ),
    (
        "must be quoted",
        "there is no value, or a text without quotes",
    ),
    ("escape", "what stands behind \\ in a text means nothing"),
    ("unicode", "what stands behind \\ in a text means nothing"),
    (
        "string",
        "a text in quotes is not closed, or has a character that must not stand in it",
    ),
    (
        "quote",
        "a text in quotes is not closed, or has a character that must not stand in it",
    ),
    ("duplicate key", "the key stands twice"),
    ("no value", "the key has no value"),
    ("missing value", "a value is missing"),
    ("assignment", "the key has no value"),
    ("comma", "a comma is missing, or there is one too many"),
    ("unclosed", "a bracket is not closed"),
    ("opening", "a bracket is missing"),
    ("recurs", "lists or tables are nested too deep"),
    ("comment", "the comment is not sound"),
    (
        "carriage return",
        "a line ends with a carriage return and no line feed",
    ),
    ("integer", "the number is not sound"),
    ("float", "the number is not sound"),
    ("number", "the number is not sound"),
    ("numeric", "the number is not sound"),
    ("radix", "the number is not sound"),
    ("sign", "the number is not sound"),
    ("zero", "the number is not sound"),
    ("date", "the date or time is not sound"),
    ("time", "the date or time is not sound"),
    ("key", "the key is not sound"),
    ("value", "the value is not sound"),
    ("array", "the list is not sound"),
    ("table", "the table is not sound"),
];

/// What is wrong with the form of a text, and what was expected there.
fn syntax(message: &str) -> String {
    let (what, expected) = message.split_once(", expected ").unwrap_or((message, ""));
    let known = FORMS.iter().find(|(reader, _)| what.contains(reader));
    let told = known.map_or(
        "something stands there that does not belong there",
        |(_, people)| people,
    );
    let expected = match expected {
        "" => return told.to_owned(),
        "key" => "a key",
        "value" => "a value",
        other if other.starts_with("newline") => "the end of the line",
        other if other.contains("string") => "a text in quotes",
        other if other.contains("letters") => "letters, digits, - or _",
        other => other,
    };
    format!("{told}; expected {expected}")
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
