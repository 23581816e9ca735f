//! Object paths: host, namespace, class and keys, and their text in every form that clients write.
//!
//! `\\HOST\root\virtualization\v2:Msvm_ComputerSystem.CreationClassName="Msvm_ComputerSystem",Name="…"`:
//! a WMI object path. Host and namespace may be absent, `/` may stand for `\`, a class without keys may end
//! in `=@`, key values may stand in single or double quotes with `\` as escape, or be numbers or booleans.

use std::fmt;

use super::class::Class;
use super::name::Name;
use super::value::Value;
use crate::text::catalog::cim as texts;
use crate::text::{Argument, Message, Text, told_by_text};

mod read;

pub use read::PathError;

/// The path of an instance (or, without keys, of a class).
///
/// A key value is typed where the path was checked against the schema ([`Path::typed`]); as read from text
/// it is a string (also where it is a reference), an integer (`Uint64`/`Sint64`) or a boolean.
///
/// Two paths are equal if they name the same object: host, namespace, class and key names are compared
/// without case, keys in any order, strings in ASCII without case (H-17), integers of any width by their
/// number. A path without host or namespace equals only another one without.
#[derive(Debug, Clone)]
pub struct Path {
    /// Host, if the path names one other than `.`.
    pub host: Option<String>,
    /// Namespace with `/` as separator, if the path names one.
    pub namespace: Option<String>,
    /// Class.
    pub class: Name,
    /// Keys in the order given, each name once.
    pub keys: Vec<(Name, Value)>,
    /// Keys of the class are left out, and meant is the one object that has those given, if there is exactly one.
    /// Only selectors may be so (rule X-3): a path in text that lacks a key names nothing.
    pub partial: bool,
}

/// The keys of a path do not fit the class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyError {
    /// A key of the class is absent.
    Missing {
        /// The class.
        class: String,
        /// The key that is absent.
        key: String,
    },
    /// The path names a key that the class has not.
    Unknown {
        /// The class.
        class: String,
        /// The name as the path has it.
        key: String,
    },
    /// The value is not of the type of the key.
    Mistyped {
        /// The class.
        class: String,
        /// The key.
        key: String,
        /// Its type.
        expected: String,
        /// What was given.
        got: Argument,
    },
}

impl KeyError {
    /// In words.
    #[must_use]
    pub fn text(&self) -> Text {
        let of = |message: Message, class: &str, key: &str| {
            message.with("class", class).with("key", key)
        };
        match self {
            Self::Missing { class, key } => of(texts::KEY_MISSING, class, key),
            Self::Unknown { class, key } => of(texts::KEY_UNKNOWN, class, key),
            Self::Mistyped {
                class,
                key,
                expected,
                got,
            } => of(texts::KEY_TYPE, class, key)
                .with("expected", expected)
                .with("got", got),
        }
    }
}
told_by_text!(KeyError);

impl Path {
    /// A path without host and keys.
    #[must_use]
    pub fn new(namespace: &str, class: impl Into<Name>) -> Self {
        Self {
            host: None,
            namespace: Some(namespace.to_owned()),
            class: class.into(),
            keys: Vec::new(),
            partial: false,
        }
    }

    /// Adds a key.
    #[must_use]
    pub fn key(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.keys.push((Name::from(name), value.into()));
        self
    }

    /// The path with this host.
    #[must_use]
    pub fn on(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.keys.iter().find(|(n, _)| *n == *key).map(|(_, v)| v)
    }

    /// The text of a string key.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }

    /// Is it, or a reference among its keys, [partial](Self::partial)?
    #[must_use]
    pub fn lacks_keys(&self) -> bool {
        let mut inner = self.keys.iter().filter_map(|(_, v)| v.as_reference());
        self.partial || inner.any(Self::lacks_keys)
    }

    /// Reads a path in any form that clients write; see the module. The host `.` is dropped, `\` in the
    /// namespace becomes `/`.
    ///
    /// # Errors
    /// The text is no object path.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        read::path(text)
    }

    /// The same path with the keys of `class`, in its order, each value in the type of its key. Strings are
    /// read as that type: a WS-Management selector has no other form. The class is named as in `class`;
    /// whether it is the one that the path meant is for the caller to see.
    ///
    /// # Errors
    /// A key is unknown, missing or mistyped. The paths in reference keys are read but not checked further;
    /// [`Schema::resolve`](crate::cim::schema::Schema::resolve) does that.
    pub fn typed(&self, class: &Class) -> Result<Self, KeyError> {
        match self.read(class)? {
            (path, None) => Ok(path),
            (_, Some(missing)) => Err(missing),
        }
    }

    /// As [`Path::typed`], but keys may be missing: the path is [partial](Self::partial) then.
    ///
    /// # Errors
    /// A key is unknown or mistyped, or there is none.
    pub fn typed_in_part(&self, class: &Class) -> Result<Self, KeyError> {
        match self.read(class)? {
            (path, Some(missing)) if path.keys.is_empty() => Err(missing),
            (path, missing) => Ok(Self {
                partial: missing.is_some(),
                ..path
            }),
        }
    }

    /// The keys of `class` that are there, typed, and what is wrong with the first that is not.
    fn read(&self, class: &Class) -> Result<(Self, Option<KeyError>), KeyError> {
        let named = |key: &Name| (class.name.to_string(), key.to_string());
        for (key, _) in &self.keys {
            if !class.keys().any(|p| p.name == *key) {
                let (class, key) = named(key);
                return Err(KeyError::Unknown { class, key });
            }
        }
        let mut keys = Vec::with_capacity(self.keys.len());
        let mut missing = None;
        for property in class.keys() {
            let value = self.get(property.name.as_str());
            let Some(value) = value.filter(|v| !v.is_null()) else {
                let (class, key) = named(&property.name);
                missing.get_or_insert(KeyError::Missing { class, key });
                continue;
            };
            let converted = match value {
                Value::String(text) => Value::parse(&property.ty, text),
                other => other.clone().convert(&property.ty),
            };
            let value = converted.map_err(|e| {
                let (class, key) = named(&property.name);
                KeyError::Mistyped {
                    class,
                    key,
                    expected: e.expected,
                    got: e.got,
                }
            })?;
            keys.push((property.name.clone(), value));
        }
        let path = Self {
            host: self.host.clone(),
            namespace: self.namespace.clone(),
            class: class.name.clone(),
            keys,
            partial: false,
        };
        Ok((path, missing))
    }

    /// The text with `/` instead of `\` before the class, as some clients store it.
    #[must_use]
    pub fn with_slashes(&self) -> impl fmt::Display {
        Written {
            path: self,
            slash: '/',
        }
    }
}

impl crate::text::Word for Path {}

/// The WMI path: host in upper case, `\` in the namespace, keys in the order they stand.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Written {
            path: self,
            slash: '\\',
        }
        .fmt(f)
    }
}

struct Written<'a> {
    path: &'a Path,
    slash: char,
}

impl fmt::Display for Written<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, slash } = self;
        if let Some(namespace) = &path.namespace {
            if let Some(host) = &path.host {
                write!(f, "{slash}{slash}{}{slash}", host.to_ascii_uppercase())?;
            }
            write!(f, "{}:", namespace.replace('/', &slash.to_string()))?;
        }
        write!(f, "{}", path.class)?;
        for (n, (name, value)) in path.keys.iter().enumerate() {
            write!(f, "{}{name}=", if n == 0 { '.' } else { ',' })?;
            write_key(f, value)?;
        }
        Ok(())
    }
}

/// Numbers and booleans stand bare, everything else in quotes.
fn write_key(f: &mut fmt::Formatter<'_>, value: &Value) -> fmt::Result {
    let text = value.lexical().unwrap_or_default();
    if value.as_integer().is_some() {
        return f.write_str(&text);
    }
    if matches!(value, Value::Boolean(_)) {
        return f.write_str(&text.to_ascii_uppercase());
    }
    f.write_str("\"")?;
    for c in text.chars() {
        if matches!(c, '\\' | '"') {
            f.write_str("\\")?;
        }
        write!(f, "{c}")?;
    }
    f.write_str("\"")
}

impl PartialEq for Path {
    fn eq(&self, other: &Self) -> bool {
        let same_text = |a: &Option<String>, b: &Option<String>| match (a, b) {
            (Some(a), Some(b)) => a.eq_ignore_ascii_case(b),
            (None, None) => true,
            _ => false,
        };
        self.class == other.class
            && same_text(&self.namespace, &other.namespace)
            && same_text(&self.host, &other.host)
            && self.same_keys(other)
    }
}

impl Path {
    /// Have both the same keys with equal values, in whatever order?
    #[must_use]
    pub fn same_keys(&self, other: &Self) -> bool {
        self.keys.len() == other.keys.len() && self.fits(other)
    }

    /// Has the other path every key of this one with an equal value?
    #[must_use]
    pub fn fits(&self, other: &Self) -> bool {
        self.keys.iter().all(|(name, value)| {
            other
                .get(name.as_str())
                .is_some_and(|theirs| same_key(value, theirs))
        })
    }
}

fn same_key(a: &Value, b: &Value) -> bool {
    if let (Value::String(a), Value::String(b)) = (a, b) {
        return a.eq_ignore_ascii_case(b);
    }
    match (a.as_integer(), b.as_integer()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

impl std::str::FromStr for Path {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::parse(text)
    }
}

/// Fuzz entry: what can be read is also read from its own text, and is the same.
#[must_use]
pub fn fuzz(text: &str) -> bool {
    let Ok(path) = Path::parse(text) else {
        return true;
    };
    [path.to_string(), path.with_slashes().to_string()]
        .iter()
        .all(|text| Path::parse(text).as_ref() == Ok(&path))
}

#[cfg(test)]
mod tests;
