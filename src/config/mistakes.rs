//! All mistakes of a file: what is refused is told and taken out, until the rest can be read; then it is checked.

use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer, Error};

use crate::text::reader;

use super::Config;

/// One thing that is wrong in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The line, from 1.
    pub line: usize,
    /// `limits.envelope`; empty if no key is to blame.
    pub key: String,
    /// What is wrong there and what was expected, in one line, with the key.
    pub text: String,
}

/// Reads the text of a file. One that is no TOML has one mistake: what follows it may mean anything.
pub(super) fn read(text: &str) -> Result<Config, Vec<Mistake>> {
    let table = DeTable::parse(text).map_err(|error| vec![syntax(text, &error)])?;
    let (config, mut found) = largest_part(text, table.clone());
    if let Some(config) = config {
        let gone: Vec<String> = found.iter().map(|m| m.key.clone()).collect();
        let is_gone = |key: &str| {
            gone.iter()
                .any(|g| g == key || key.split('.').next() == Some(g))
        };
        let mut senseless = config.senseless();
        senseless.retain(|s| !is_gone(s.key) && !s.other.is_some_and(is_gone));
        found.extend(senseless.into_iter().map(|wrong| Mistake {
            line: line_of(text, table.get_ref(), wrong.key),
            key: wrong.key.to_owned(),
            text: format!("{} {}", wrong.key, wrong.reason),
        }));
        if found.is_empty() {
            return Ok(config);
        }
    }
    found.sort_by_key(|mistake| mistake.line);
    Err(found)
}

/// What can be read of the file, and what cannot. Each round takes one key out.
fn largest_part(text: &str, mut rest: Spanned<DeTable<'_>>) -> (Option<Config>, Vec<Mistake>) {
    let mut found = Vec::new();
    loop {
        let error = match Config::deserialize(Deserializer::from(rest.clone())) {
            Ok(config) => return (Some(config), found),
            Err(error) => error,
        };
        let reason = reader::told(error.message()).english();
        let at = error.span().map_or(0, |span| span.start);
        let line = line_at(text, at);
        match take_out(rest.get_mut(), at) {
            Some(key) => {
                let text = match key.contains('.') {
                    true => format!("{key}: {reason}"),
                    false => reason,
                };
                found.push(Mistake { line, key, text });
            }
            None => {
                found.push(Mistake {
                    line,
                    key: String::new(),
                    text: reason,
                });
                return (None, found);
            }
        }
    }
}

/// Takes out the key that stands at this place, or whose value does; its name with the section.
fn take_out(table: &mut DeTable<'_>, at: usize) -> Option<String> {
    let mut wrong = None;
    for (name, section) in &mut *table {
        if let DeValue::Table(keys) = section.get_mut()
            && let Some(key) = keyed(keys, at)
        {
            keys.remove(key.as_str());
            return Some(format!("{}.{key}", name.get_ref()));
        }
        if name.span().contains(&at) || holds(section, at) {
            wrong = Some(name.get_ref().to_string());
        }
    }
    let name = wrong?;
    table.remove(name.as_str());
    Some(name)
}

fn keyed(keys: &DeTable<'_>, at: usize) -> Option<String> {
    let mut entries = keys.iter();
    let (key, _) = entries.find(|(key, value)| key.span().contains(&at) || holds(value, at))?;
    Some(key.get_ref().to_string())
}

/// The parts are asked too: those of `[[…]]` lie outside of the whole.
fn holds(value: &Spanned<DeValue<'_>>, at: usize) -> bool {
    value.span().contains(&at)
        || match value.get_ref() {
            DeValue::Table(keys) => keyed(keys, at).is_some(),
            DeValue::Array(values) => values.iter().any(|value| holds(value, at)),
            _ => false,
        }
}

fn syntax(text: &str, error: &Error) -> Mistake {
    let span: Option<Range<usize>> = error.span();
    let at = span.map_or(0, |span| span.start);
    let before = text.get(..at).unwrap_or(text).rsplit('\n').next();
    let column = before.unwrap_or_default().chars().count() + 1;
    Mistake {
        line: line_at(text, at),
        key: String::new(),
        text: format!(
            "column {column}: {}",
            reader::told(error.message()).english()
        ),
    }
}

fn line_of(text: &str, table: &DeTable<'_>, key: &str) -> usize {
    let place = || {
        let (section, key) = key.split_once('.')?;
        let DeValue::Table(keys) = table.get(section)?.get_ref() else {
            return None;
        };
        Some(keys.get_key_value(key)?.0.span().start)
    };
    line_at(text, place().unwrap_or(0))
}

fn line_at(text: &str, at: usize) -> usize {
    let before = text.get(..at).unwrap_or(text);
    before.matches('\n').count() + 1
}
