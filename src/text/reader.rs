//! What the readers of TOML and JSON say is wrong with a text, in words for whoever wrote it: not in those of the
//! program's types.

use std::io;
use std::ops::Range;

use super::catalog::reader as texts;
use super::{Argument, Message, Text};

/// What was expected, as the reader calls it, and as people do.
const EXPECTED: &[(&str, Message)] = &[
    ("u64", texts::WHOLE_NUMBER),
    ("usize", texts::WHOLE_NUMBER),
    ("a boolean", texts::BOOLEAN),
    ("a string", texts::QUOTED_TEXT),
    ("path string", texts::QUOTED_PATH),
    ("string only", texts::QUOTED_TEXT),
    ("string or table", texts::QUOTED_TEXT),
    ("socket address", texts::ADDRESS),
    ("a sequence", texts::LIST_IN_BRACKETS),
    ("a map", texts::TABLE),
];

/// The reason that a reader gives for a key, a value or a place in a text, in words of the field and in one line.
#[must_use]
pub fn told(message: &str) -> Text {
    let message = message.replace('\n', " ");
    if message.contains("socket address") {
        return texts::EXPECTED.with("expected", texts::ADDRESS);
    }
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let (key, known) = rest.split_once(", expected ").unwrap_or((rest, ""));
        return match known.is_empty() || known.starts_with("there are no") {
            true => texts::UNKNOWN_KEY.with("key", key),
            false => texts::UNKNOWN_KEY_OF.with("key", key).with("known", known),
        };
    }
    if let Some(key) = message.strip_prefix("missing field ") {
        return texts::MISSING_KEY.with("key", key);
    }
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        let (found, known) = rest.split_once(", expected ").unwrap_or((rest, ""));
        let text = texts::EXPECTED_FOUND.with("expected", known);
        return text.with("found", found);
    }
    if let Some(expected) = message.strip_prefix("wanted ") {
        return texts::EXPECTED.with("expected", people(expected));
    }
    let wrong = ["invalid type: ", "invalid value: ", "invalid length "];
    let wrong = wrong.iter().find_map(|kind| message.strip_prefix(kind));
    match wrong.and_then(|rest| rest.split_once(", expected ")) {
        Some((found, expected)) => {
            let text = texts::EXPECTED_FOUND.with("expected", people(expected));
            text.with("found", thing(found))
        }
        None => syntax(&message),
    }
}

/// [`told`] with line and column of the place in the text that it is about.
#[must_use]
pub fn told_of(text: &str, message: &str, place: Option<Range<usize>>) -> Text {
    let before = place.and_then(|place| text.get(..place.start));
    let Some(before) = before else {
        return told(message);
    };
    let line = before.matches('\n').count() + 1;
    let last = before.rsplit('\n').next().unwrap_or_default();
    let at = texts::AT.with("line", line);
    at.with("column", last.chars().count() + 1)
        .with("reason", told(message))
}

/// The reason why a text is not the JSON that it should be.
#[must_use]
pub fn told_of_json(error: &serde_json::Error) -> Text {
    if !error.is_data() {
        let text = texts::NOT_JSON.with("line", error.line());
        return text.with("column", error.column());
    }
    let message = error.to_string();
    told(message.split(" at line ").next().unwrap_or_default())
}

/// Why a file could not be read as a text.
#[must_use]
pub fn told_of_file(error: &io::Error) -> Argument {
    match error.kind() {
        io::ErrorKind::InvalidData => texts::NOT_UTF8.into(),
        _ => error.into(),
    }
}

/// What is wrong with the form of a text, as the reader calls it, by a part of that, and as people do.
const FORMS: &[(&str, Message)] = &[
    ("unexpected key or value", texts::LINE_GOES_ON),
    ("must be quoted", texts::UNQUOTED),
    ("escape", texts::ESCAPE),
    ("unicode", texts::ESCAPE),
    ("string", texts::OPEN_TEXT),
    ("quote", texts::OPEN_TEXT),
    ("duplicate key", texts::KEY_TWICE),
    ("no value", texts::NO_VALUE),
    ("missing value", texts::VALUE_MISSING),
    ("assignment", texts::NO_VALUE),
    ("comma", texts::COMMA),
    ("unclosed", texts::OPEN_BRACKET),
    ("opening", texts::NO_BRACKET),
    ("recurs", texts::TOO_DEEP),
    ("comment", texts::COMMENT_WRONG),
    ("carriage return", texts::CARRIAGE_RETURN),
    ("integer", texts::NUMBER_WRONG),
    ("float", texts::NUMBER_WRONG),
    ("number", texts::NUMBER_WRONG),
    ("numeric", texts::NUMBER_WRONG),
    ("radix", texts::NUMBER_WRONG),
    ("sign", texts::NUMBER_WRONG),
    ("zero", texts::NUMBER_WRONG),
    ("date", texts::DATE_WRONG),
    ("time", texts::DATE_WRONG),
    ("key", texts::KEY_WRONG),
    ("value", texts::VALUE_WRONG),
    ("array", texts::LIST_WRONG),
    ("table", texts::TABLE_WRONG),
];

/// What is wrong with the form of a text, and what was expected there.
fn syntax(message: &str) -> Text {
    let (what, expected) = message.split_once(", expected ").unwrap_or((message, ""));
    let known = FORMS.iter().find(|(reader, _)| what.contains(reader));
    let wrong = known.map_or(texts::OUT_OF_PLACE, |(_, people)| *people);
    let expected: Argument = match expected {
        "" => return wrong.text(),
        "key" => texts::A_KEY.into(),
        "value" => texts::A_VALUE.into(),
        other if other.starts_with("newline") => texts::LINE_END.into(),
        other if other.contains("string") => texts::QUOTED_TEXT.into(),
        other if other.contains("letters") => texts::LETTERS.into(),
        other => other.into(),
    };
    let text = texts::EXPECTED_THERE.with("wrong", wrong);
    text.with("expected", expected)
}

fn people(expected: &str) -> Argument {
    if expected.starts_with("struct ") || expected.contains("enum ") {
        return texts::TABLE_OF_KEYS.into();
    }
    let last = match expected {
        "u8" => u64::from(u8::MAX),
        "u16" => u64::from(u16::MAX),
        "u32" => u64::from(u32::MAX),
        _ => {
            let known = EXPECTED.iter().find(|(reader, _)| *reader == expected);
            return known.map_or_else(|| expected.into(), |(_, people)| (*people).into());
        }
    };
    texts::WHOLE_NUMBER_TO.with("last", last).into()
}

/// What stands there, from ``integer `5` `` or `string "a"`.
fn thing(found: &str) -> Argument {
    let value = |prefix: &str| {
        let rest = found.strip_prefix(prefix)?;
        // A number too long for the usual types is followed by the one that holds it: `99…9` as i128.
        let quoted = rest
            .strip_prefix('`')
            .and_then(|rest| rest.rsplit_once('`'));
        Some(quoted.map_or(rest, |(value, _)| value))
    };
    if let Some(number) = value("integer ").or_else(|| value("floating point ")) {
        return texts::NUMBER.with("number", number).into();
    }
    if let Some(text) = value("string ").or_else(|| value("boolean ")) {
        return text.into();
    }
    match found {
        "sequence" => texts::LIST.into(),
        "map" => texts::TABLE.into(),
        other if other.contains("datetime") => texts::DATE.into(),
        other => other.into(),
    }
}
