//! How single values are read: lengths of time, sizes, where the audit goes.

use std::fmt;
use std::time::Duration;

use serde::{Deserializer, de};

use super::AuditTo;

/// `true`, `false` or the path of a file.
pub(super) fn audit_to<'de, D: Deserializer<'de>>(deserializer: D) -> Result<AuditTo, D::Error> {
    struct Visitor;
    impl de::Visitor<'_> for Visitor {
        type Value = AuditTo;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("true (in the log), false (nowhere) or the path of a file")
        }

        fn visit_bool<E: de::Error>(self, on: bool) -> Result<AuditTo, E> {
            Ok(if on { AuditTo::Log } else { AuditTo::Off })
        }

        fn visit_str<E: de::Error>(self, path: &str) -> Result<AuditTo, E> {
            match path {
                "" => Err(E::invalid_value(de::Unexpected::Str(path), &self)),
                path => Ok(AuditTo::File(path.into())),
            }
        }
    }
    deserializer.deserialize_any(Visitor)
}

/// A length of time: whole seconds, or text with units (`1h 30m`, `2s`, `500ms`).
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
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
pub(super) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
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
