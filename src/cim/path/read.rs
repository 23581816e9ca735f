//! Reading of object path text.

use super::super::lexical::integer;
use super::super::name::Name;
use super::super::value::Value;
use super::Path;
use crate::text::catalog::cim as texts;
use crate::text::{Text, told_by_text};

/// More keys than any class has; a longer list is refused before it is compared with itself.
const KEYS_MAX: usize = 64;

/// The text is no object path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathError {
    /// `\\HOST\…` without a namespace and `:` after it.
    Namespace,
    /// The namespace has an empty part or a character that does not belong there.
    NamespaceName(String),
    /// There is no class name where one is due.
    ClassName(String),
    /// Something other than `.`, `=@` or the end follows the class name.
    AfterClass(String),
    /// There is no key name where one is due.
    KeyName(String),
    /// There is no `=` after a key name.
    Equals(String),
    /// A key has no value, or one that is neither quoted nor a number nor a boolean.
    Value(String),
    /// The closing quote is missing.
    Quote(String),
    /// Two keys have the same name.
    Twice(String),
    /// Something other than `,` follows a value.
    AfterValue(String),
    /// The path has more than 64 keys.
    TooMany,
}

impl PathError {
    /// In words.
    #[must_use]
    pub fn text(&self) -> Text {
        match self {
            Self::Namespace => texts::PATH_HOST.text(),
            Self::NamespaceName(namespace) => texts::PATH_NAMESPACE.with("namespace", namespace),
            Self::ClassName(class) => texts::PATH_CLASS.with("class", class),
            Self::AfterClass(class) => texts::PATH_AFTER_CLASS.with("class", class),
            Self::KeyName(key) => texts::PATH_KEY.with("key", key),
            Self::Equals(key) => texts::PATH_EQUALS.with("key", key),
            Self::Value(key) => texts::PATH_VALUE.with("key", key),
            Self::Quote(key) => texts::PATH_QUOTE.with("key", key),
            Self::Twice(key) => texts::PATH_KEY_TWICE.with("key", key),
            Self::AfterValue(key) => texts::PATH_AFTER_VALUE.with("key", key),
            Self::TooMany => texts::PATH_KEYS.with("max", KEYS_MAX),
        }
    }
}
told_by_text!(PathError);

/// Reads a whole path.
pub(super) fn path(text: &str) -> Result<Path, PathError> {
    let text = text.trim();
    let (host, text) = host(text)?;
    // a ':' that stands before any '=' and quote ends the namespace; later ones belong to values
    let head = text.find([':', '=', '"', '\'']).and_then(|at| {
        let (head, rest) = text.split_at_checked(at)?;
        rest.strip_prefix(':').map(|rest| (head, rest))
    });
    let (namespace, text) = match head {
        Some((head, rest)) => (Some(namespace(head)?), rest),
        None if host.is_some() => return Err(PathError::Namespace),
        None => (None, text),
    };
    let (class, rest) = name(text);
    if class.is_empty() {
        return Err(PathError::ClassName(excerpt(text)));
    }
    let keys = match rest.trim_start() {
        "" | "=@" => Vec::new(),
        rest => match rest.strip_prefix('.') {
            Some(rest) => keys(rest)?,
            None => return Err(PathError::AfterClass(class.to_owned())),
        },
    };
    Ok(Path {
        host: host.filter(|h| *h != ".").map(str::to_owned),
        namespace,
        class: Name::from(class),
        keys,
        partial: false,
    })
}

fn is_slash(c: char) -> bool {
    matches!(c, '\\' | '/')
}

/// Splits `\\HOST\` off.
fn host(text: &str) -> Result<(Option<&str>, &str), PathError> {
    let Some(rest) = text.strip_prefix(is_slash) else {
        return Ok((None, text));
    };
    let Some(rest) = rest.strip_prefix(is_slash) else {
        // a single slash: the namespace is written from the root
        return Ok((None, rest));
    };
    match rest.split_once(is_slash) {
        Some((host, rest)) if is_host(host) => Ok((Some(host), rest)),
        _ => Err(PathError::Namespace),
    }
}

fn is_host(host: &str) -> bool {
    !host.is_empty()
        && host
            .chars()
            .all(|c| c.is_alphanumeric() || "._-:[]%".contains(c))
}

fn namespace(text: &str) -> Result<String, PathError> {
    let word = |part: &str| {
        !part.is_empty()
            && part
                .chars()
                .all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'))
    };
    if text.split(is_slash).all(word) {
        Ok(text.replace('\\', "/"))
    } else {
        Err(PathError::NamespaceName(excerpt(text)))
    }
}

/// The element name at the front (DSP0004 A: a letter or `_`, then letters, digits and `_`), and the rest.
fn name(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !(c.is_alphanumeric() || c == '_'))
        .unwrap_or(text.len());
    match text.split_at_checked(end) {
        Some((name, rest)) if !name.starts_with(char::is_numeric) => (name, rest),
        _ => ("", text),
    }
}

fn keys(mut text: &str) -> Result<Vec<(Name, Value)>, PathError> {
    let mut keys: Vec<(Name, Value)> = Vec::new();
    loop {
        let (key, rest) = name(text.trim_start());
        if key.is_empty() {
            return Err(PathError::KeyName(excerpt(text)));
        }
        if keys.iter().any(|(known, _)| *known == *key) {
            return Err(PathError::Twice(key.to_owned()));
        }
        if keys.len() == KEYS_MAX {
            return Err(PathError::TooMany);
        }
        let rest = rest.trim_start().strip_prefix('=');
        let rest = rest.ok_or_else(|| PathError::Equals(key.to_owned()))?;
        let (value, rest) = value(key, rest.trim_start())?;
        keys.push((Name::from(key), value));
        let rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(keys);
        }
        let rest = rest.strip_prefix(',');
        text = rest.ok_or_else(|| PathError::AfterValue(key.to_owned()))?;
    }
}

fn value<'a>(key: &str, text: &'a str) -> Result<(Value, &'a str), PathError> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''));
    if let Some((quote, rest)) = quote.and_then(|q| Some((q, text.strip_prefix(q)?))) {
        let quoted = quoted(quote, rest);
        return quoted.ok_or_else(|| PathError::Quote(key.to_owned()));
    }
    let end = text.find(',').unwrap_or(text.len());
    let (word, rest) = text.split_at_checked(end).unwrap_or((text, ""));
    let word = word.trim_end();
    let value = if word.eq_ignore_ascii_case("true") {
        Some(Value::Boolean(true))
    } else if word.eq_ignore_ascii_case("false") {
        Some(Value::Boolean(false))
    } else {
        integer(word).and_then(|n| match u64::try_from(n) {
            Ok(n) => Some(Value::Uint64(n)),
            Err(_) => i64::try_from(n).ok().map(Value::Sint64),
        })
    };
    let value = value.ok_or_else(|| PathError::Value(key.to_owned()))?;
    Ok((value, rest))
}

/// The text up to the closing quote, and what follows it. `\` escapes itself and both quotes; before
/// anything else it is an ordinary character, for clients that forget to escape.
fn quoted(quote: char, text: &str) -> Option<(Value, &str)> {
    let mut content = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c == quote {
            return Some((Value::String(content), rest.as_str()));
        }
        if c == '\\' && rest.as_str().starts_with(['\\', '"', '\'']) {
            content.extend(rest.next());
        } else {
            content.push(c);
        }
    }
    None
}

/// The first characters of a text, for an error.
fn excerpt(text: &str) -> String {
    text.chars().take(64).collect()
}
