//! Names of classes, properties, methods, parameters and qualifiers: compared without case.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A CIM element name. Keeps the case it was declared with, compares in ASCII without case
/// (DSP0004 5.2: element names are case-insensitive).
#[derive(Clone)]
pub struct Name(Arc<str>);

impl Name {
    /// The name as declared.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self(Arc::from(text))
    }
}

impl From<String> for Name {
    fn from(text: String) -> Self {
        Self(Arc::from(text))
    }
}

/// Order of two names without case, byte by byte.
#[must_use]
pub fn compare(a: &str, b: &str) -> Ordering {
    let differ = |(a, b): &(u8, u8)| a != b && !a.eq_ignore_ascii_case(b);
    match a.bytes().zip(b.bytes()).find(differ) {
        Some((a, b)) => a.to_ascii_lowercase().cmp(&b.to_ascii_lowercase()),
        None => a.len().cmp(&b.len()),
    }
}

/// A number that is the same for names that are equal without case, and seldom for others.
pub(super) fn folded(name: &str) -> u64 {
    let word = |octets: &[u8]| {
        let lower = octets.iter().map(|octet| u64::from(octet | 0x20));
        lower.fold(0, |word, octet| word << 8 | octet)
    };
    let words = name.as_bytes().chunks(8).map(word);
    words.fold(0, |hash: u64, word| {
        (hash.rotate_left(5) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    })
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Name {}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        self.0.eq_ignore_ascii_case(other)
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        self.0.eq_ignore_ascii_case(other)
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for byte in self.0.bytes() {
            state.write_u8(byte.to_ascii_lowercase());
        }
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl crate::text::Word for Name {}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::hash::DefaultHasher;

    use super::*;

    fn hash(name: &Name) -> u64 {
        let mut state = DefaultHasher::new();
        name.hash(&mut state);
        state.finish()
    }

    #[test]
    fn names_compare_without_case_and_keep_it() {
        let (a, b) = (Name::from("ElementName"), Name::from("elementNAME"));
        assert_eq!(a, b);
        assert_eq!(a, "ELEMENTNAME");
        assert_eq!(a.cmp(&b), Ordering::Equal);
        assert_eq!(hash(&a), hash(&b));
        assert_eq!(folded("ElementName"), folded("elementNAME"));
        assert_ne!(folded("ElementName"), folded("NameElement"));
        assert_eq!(a.to_string(), "ElementName");
        assert_ne!(a, Name::from("Element"));
        let sorted: BTreeSet<_> = ["b", "A", "a_", "Z"].map(Name::from).into();
        let names: Vec<_> = sorted.iter().map(Name::as_str).collect();
        assert_eq!(names, ["A", "a_", "b", "Z"]);
    }
}
