//! What a server hands out, without a schema: texts, references, lists.

/// A value of a property or parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// No value.
    Null,
    /// Any simple value in its text form; date and time too.
    Text(String),
    /// A reference to an instance.
    Reference(Reference),
}

impl Value {
    /// The text of a simple value.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The reference.
    #[must_use]
    pub fn reference(&self) -> Option<&Reference> {
        match self {
            Self::Reference(reference) => Some(reference),
            _ => None,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Reference> for Value {
    fn from(reference: Reference) -> Self {
        Self::Reference(reference)
    }
}

/// An instance by namespace, class and keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// With `/`.
    pub namespace: String,
    /// The class.
    pub class: String,
    /// Names and values of the keys.
    pub keys: Vec<(String, Value)>,
}

impl Reference {
    /// A reference without keys: a class, or its only instance.
    #[must_use]
    pub fn new(namespace: &str, class: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            class: class.to_owned(),
            keys: Vec::new(),
        }
    }

    /// Adds a key.
    #[must_use]
    pub fn key(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.keys.push((name.to_owned(), value.into()));
        self
    }

    /// The text of a key.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        let found = self.keys.iter().find(|(n, _)| n.eq_ignore_ascii_case(key));
        found.and_then(|(_, v)| v.text())
    }
}

/// An instance, or the output of a method: an array stands as one entry for each element.
#[derive(Debug, Clone, PartialEq, Eq)]
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
        self.get(name).text().unwrap_or_default()
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
        self.all(name).filter_map(Value::text)
    }
}
