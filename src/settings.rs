//! What the sections of the configuration share: how lengths of time and sizes are read, and what is told of a value that
//! makes no sense. Each section is in the module that it is for, with its defaults and checks; `config` joins them.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserializer, de};

/// No wait that is configured is longer.
pub const DAY: Duration = Duration::from_secs(86_400);
/// Nor is any number of things larger: what is counted fits into memory.
pub const COUNT_MAX: usize = 1_000_000_000;

/// A value that has the right type and still makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Senseless {
    /// `limits.envelope`.
    pub key: &'static str,
    /// The key that it does not go with. What is told of a value that could not be read would be guessed.
    pub other: Option<&'static str>,
    /// How the sentence that begins with the key goes on.
    pub reason: String,
}

impl Senseless {
    /// One that is senseless by itself.
    #[must_use]
    pub fn new(key: &'static str, reason: impl Into<String>) -> Self {
        Self {
            key,
            other: None,
            reason: reason.into(),
        }
    }

    /// One that needs another key, which is not given.
    #[must_use]
    pub fn alone(key: &'static str, other: &'static str) -> Self {
        Self {
            key,
            other: Some(other),
            reason: format!("needs {other} beside it"),
        }
    }

    /// That these paths are absolute.
    pub fn relative<'p>(
        key: &'static str,
        paths: &'p [PathBuf],
    ) -> impl Iterator<Item = Self> + use<'p> {
        let relative = paths.iter().filter(|path| !path.is_absolute());
        relative.map(move |path| {
            let reason = format!("must hold absolute paths, not `{}`", path.display());
            Self::new(key, reason)
        })
    }
}

/// A length of time: whole seconds, or text with units (`1h 30m`, `2s`, `500ms`).
///
/// # Errors
/// It is none.
pub fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    struct Visitor;
    impl de::Visitor<'_> for Visitor {
        type Value = Duration;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a length of time: seconds, or text such as \"2s\", \"500ms\", \"1h 30m\"")
        }

        fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Duration, E> {
            let unsigned = u64::try_from(seconds);
            unsigned
                .map(Duration::from_secs)
                .map_err(|_| E::invalid_value(de::Unexpected::Signed(seconds), &self))
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
            let wrong = || E::invalid_value(de::Unexpected::Str(text), &self);
            let signed: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
            Duration::try_from(signed).map_err(|_| wrong())
        }
    }
    deserializer.deserialize_any(Visitor)
}

/// A number of octets: a number, or text with a unit (`512KiB`, `10GiB`).
///
/// # Errors
/// It is none.
pub fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    struct Visitor;
    impl de::Visitor<'_> for Visitor {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number of bytes, or text such as \"512KiB\", \"256MiB\", \"10GiB\"")
        }

        fn visit_i64<E: de::Error>(self, octets: i64) -> Result<u64, E> {
            u64::try_from(octets)
                .map_err(|_| E::invalid_value(de::Unexpected::Signed(octets), &self))
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
            parse_size(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
        }
    }
    deserializer.deserialize_any(Visitor)
}

fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(unit_at)?;
    let factor = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1_u64 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}
