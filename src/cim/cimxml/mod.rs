//! `<INSTANCE>` text: what clients pass as a settings string and read as an error (DSP0201).
//!
//! Read are the dialects that clients produce: CIM-DTD 2.0 and WMI-DTD 2.0 as `GetText` writes them, and the
//! text of the MI serialiser, bare or in the wrapper elements of a declaration. The class rules: the `TYPE`
//! attributes are not looked at. Written is plain CIM-DTD.

use super::instance::Instance;
use super::schema::Schema;
use crate::text::catalog::xml as texts;
use crate::text::{Argument, Message, Text, told_by_text};
use crate::xml;

mod class;
mod read;
mod reference;
mod write;

pub use class::{Detail, write_class, write_class_name};
pub use write::write_instance;

/// Deepest nesting of embedded instances that is read.
pub const EMBEDDED_MAX: usize = 8;

/// The text is no instance of a class of the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CimXmlError {
    /// Not well-formed, or with what is never read: a DOCTYPE, entities, processing instructions.
    Xml(xml::Error),
    /// The text holds no INSTANCE, or more than one.
    NotOneInstance(usize),
    /// An element stands where it does not belong.
    Element {
        /// The element around it.
        parent: String,
        /// The element that was found.
        found: String,
        /// What may stand there.
        expected: &'static str,
    },
    /// An attribute is absent.
    Attribute {
        /// The element.
        element: String,
        /// The attribute that it lacks.
        attribute: &'static str,
    },
    /// The namespace has no such class.
    UnknownClass {
        /// The class that was named.
        class: String,
        /// The namespace that was searched.
        namespace: String,
    },
    /// The class has no such property.
    UnknownProperty {
        /// The class.
        class: String,
        /// The property that was named.
        property: String,
    },
    /// A property is given twice.
    Twice {
        /// The class.
        class: String,
        /// The property.
        property: String,
    },
    /// The value does not fit the property.
    Value {
        /// The class.
        class: String,
        /// The property.
        property: String,
        /// Its type, with `[]` for an array.
        expected: String,
        /// What was given.
        got: Argument,
    },
    /// More than [`EMBEDDED_MAX`] instances inside each other.
    Depth,
}

impl CimXmlError {
    /// In words.
    #[must_use]
    pub fn text(&self) -> Text {
        let of = |message: Message, class: &str, property: &str| {
            message.with("class", class).with("property", property)
        };
        match self {
            Self::Xml(error) => texts::INSTANCE_XML.with("cause", error),
            Self::NotOneInstance(count) => texts::INSTANCES.with("count", *count),
            Self::Element {
                parent,
                found,
                expected,
            } => texts::ELEMENT
                .with("parent", parent)
                .with("found", found)
                .with("expected", *expected),
            Self::Attribute { element, attribute } => texts::ATTRIBUTE
                .with("element", element)
                .with("attribute", *attribute),
            Self::UnknownClass { class, namespace } => {
                let text = texts::NO_CLASS.with("class", class);
                text.with("namespace", namespace)
            }
            Self::UnknownProperty { class, property } => of(texts::NO_PROPERTY, class, property),
            Self::Twice { class, property } => of(texts::PROPERTY_TWICE, class, property),
            Self::Value {
                class,
                property,
                expected,
                got,
            } => of(texts::VALUE, class, property)
                .with("expected", expected)
                .with("got", got),
            Self::Depth => texts::INSTANCE_DEPTH.text(),
        }
    }
}
told_by_text!(CimXmlError);

impl From<xml::Error> for CimXmlError {
    fn from(error: xml::Error) -> Self {
        Self::Xml(error)
    }
}

/// Reads the text of one instance of a class of `namespace` (written with `/`). A byte order mark and an XML
/// declaration may stand in front. Properties that the text does not mention keep the default of the class;
/// those without value become null. Qualifiers and system properties (`__PATH`, …) are passed over, and
/// inherited properties that the class does not know.
///
/// # Errors
/// [`CimXmlError`]; it names the property and what was expected.
pub fn parse_instance(
    schema: &Schema,
    namespace: &str,
    text: &str,
) -> Result<Instance, CimXmlError> {
    read::Reader {
        schema,
        namespace,
        depth: 0,
    }
    .text(text)
}

/// Fuzz entry: what can be read is also read from its own text, and is written the same again.
#[must_use]
pub fn fuzz(schema: &Schema, namespace: &str, text: &str) -> bool {
    let Ok(instance) = parse_instance(schema, namespace, text) else {
        return true;
    };
    let written = write_instance(&instance);
    parse_instance(schema, namespace, &written).is_ok_and(|again| write_instance(&again) == written)
}

#[cfg(test)]
mod tests;
