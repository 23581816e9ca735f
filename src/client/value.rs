//! What a server hands out, without a schema: an object whose values are texts and references.

use crate::cim::Value;

/// An instance, or the output of a method: an array stands as one entry for each element. A simple value, date and time
/// too, is the text that was sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// The class; of an output the name of its element.
    pub class: String,
    /// Names and values in the order sent.
    pub properties: Vec<(String, Value)>,
}

impl Object {
    /// The (first) value of a property; null if it is not there.
    #[must_use]
    pub fn get(&self, name: &str) -> &Value {
        self.all(name).next().unwrap_or(&Value::Null)
    }

    /// The (first) text of a property; empty if there is none.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.get(name).as_str().unwrap_or_default()
    }

    /// The number in a property.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.text(name).trim().parse().ok()
    }

    /// Every value of an array property.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Value> {
        self.properties
            .iter()
            .filter(move |(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v)
    }

    /// The texts of an array property.
    pub fn texts<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.all(name).filter_map(Value::as_str)
    }
}
