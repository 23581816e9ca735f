//! `log.audit` of the configuration: where audit lines go.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, de};

/// `log.audit`: `true`, `false` or the path of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditTo {
    /// Nowhere.
    Off,
    /// In the log, with the target `audit`.
    Log,
    /// In a file, relative to the configuration file.
    File(PathBuf),
}

impl<'de> Deserialize<'de> for AuditTo {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
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
}
