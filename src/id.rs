//! Identities: one newtype per kind of thing, each an upper-case GUID in text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::text::Word;

/// The text is not a GUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a GUID of the form 8A3D1F00-0000-0000-0000-000000000000")]
pub struct InvalidGuid(pub String);

macro_rules! guid_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// A fresh random identity (GUID version 4).
            #[must_use]
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }

            /// The identity with these 128 bits; for fixed test data and for machines of the simulation.
            #[must_use]
            pub const fn from_u128(bits: u128) -> Self {
                Self(Uuid::from_u128(bits))
            }

            /// The 128 bits.
            #[must_use]
            pub const fn as_u128(self) -> u128 {
                self.0.as_u128()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:X}", self.0.as_hyphenated())
            }
        }

        impl Word for $name {}

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = InvalidGuid;

            /// Any case, with or without braces; the hyphens must be there.
            fn from_str(text: &str) -> Result<Self, InvalidGuid> {
                let bare = text
                    .strip_prefix('{')
                    .and_then(|t| t.strip_suffix('}'))
                    .unwrap_or(text);
                if bare.len() != 36 {
                    return Err(InvalidGuid(text.to_owned()));
                }
                Uuid::try_parse(bare)
                    .map(Self)
                    .map_err(|_| InvalidGuid(text.to_owned()))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

guid_type!(
    /// A virtual machine; `Msvm_ComputerSystem.Name`.
    VmId
);
guid_type!(
    /// A group of virtual machines or of groups; `CollectionID`.
    CollectionId
);
guid_type!(
    /// A snapshot set; `Msvm_SnapshotCollection.CollectionID`.
    SetId
);
guid_type!(
    /// The snapshot of one machine; `ConfigurationID` of its settings.
    SnapshotId
);
guid_type!(
    /// A job; `Msvm_ConcreteJob.InstanceID`.
    JobId
);
guid_type!(
    /// A data directory; a copy gets another one.
    DirectoryId
);
guid_type!(
    /// A WS-Addressing message, an enumeration context: ids that live on the wire only.
    WireId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guid_is_written_upper_case_and_read_in_any() {
        let id = VmId::from_u128(0x8a3d_0000_0000_0000_0000_0000_0000_00ff);
        let text = id.to_string();
        assert_eq!(text, "8A3D0000-0000-0000-0000-0000000000FF");
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(format!("{{{}}}", text.to_lowercase()).parse(), Ok(id));
    }

    #[test]
    fn what_is_no_guid_is_named() {
        for bad in [
            "",
            "1",
            "8A3D00000000000000000000000000FF",
            "{8A3D0000-0000-0000-0000-0000000000FF",
        ] {
            assert_eq!(bad.parse::<VmId>(), Err(InvalidGuid(bad.to_owned())));
        }
    }
}
