//! Reading `<INSTANCE>` text.

use std::collections::BTreeSet;

use super::super::class::{Class, Property};
use super::super::instance::Instance;
use super::super::name::Name;
use super::super::schema::Schema;
use super::super::value::{Type, Value};
use super::{CimXmlError, EMBEDDED_MAX, reference};
use crate::text::Argument;
use crate::text::catalog::cim as parts;
use crate::xml::{self, Element};

/// What may stand around an INSTANCE.
const WRAPPERS: [&str; 11] = [
    "CIM",
    "DECLARATION",
    "DECLARATIONS",
    "DECLGROUP",
    "DECLGROUP.WITHNAME",
    "DECLGROUP.WITHPATH",
    "VALUE.OBJECT",
    "VALUE.NAMEDINSTANCE",
    "VALUE.NAMEDOBJECT",
    "VALUE.OBJECTWITHPATH",
    "VALUE.OBJECTWITHLOCALPATH",
];

/// What stands beside an INSTANCE and tells nothing that is needed.
const PASSED_OVER: [&str; 9] = [
    "CLASS",
    "CLASSPATH",
    "INSTANCENAME",
    "INSTANCEPATH",
    "LOCALCLASSPATH",
    "LOCALINSTANCEPATH",
    "LOCALNAMESPACEPATH",
    "NAMESPACEPATH",
    "QUALIFIER.DECLARATION",
];

/// Reads instances; `depth` counts those around the one at hand.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) schema: &'a Schema,
    pub(super) namespace: &'a str,
    pub(super) depth: usize,
}

impl Reader<'_> {
    pub(super) fn text(self, text: &str) -> Result<Instance, CimXmlError> {
        let text = text.trim_start_matches('\u{FEFF}').trim_start();
        let document = xml::parse(text)?;
        self.only_instance(document.root())
    }

    /// The one INSTANCE in or at `element`.
    fn only_instance(self, element: Element<'_>) -> Result<Instance, CimXmlError> {
        let mut found = Vec::new();
        collect(element, "the text", &mut found)?;
        match found.as_slice() {
            [instance] => self.instance(*instance),
            other => Err(CimXmlError::NotOneInstance(other.len())),
        }
    }

    fn instance(self, element: Element<'_>) -> Result<Instance, CimXmlError> {
        if self.depth > EMBEDDED_MAX {
            return Err(CimXmlError::Depth);
        }
        let class = attribute(element, "CLASSNAME")?;
        let known = self.schema.class(self.namespace, class);
        let class = known.ok_or_else(|| CimXmlError::UnknownClass {
            class: class.to_owned(),
            namespace: self.namespace.to_owned(),
        })?;
        let mut instance = Instance::new(class);
        let mut seen = BTreeSet::new();
        for child in element.children().filter(|c| c.local() != "QUALIFIER") {
            if !child.local().starts_with("PROPERTY") {
                return Err(misplaced(element, child, "PROPERTY elements"));
            }
            let name = attribute(child, "NAME")?;
            let Some(property) = class.property(name) else {
                if is_passed_over(class, child, name) {
                    continue;
                }
                return Err(CimXmlError::UnknownProperty {
                    class: class.name.to_string(),
                    property: name.to_owned(),
                });
            };
            if !seen.insert(Name::from(name)) {
                return Err(CimXmlError::Twice {
                    class: class.name.to_string(),
                    property: property.name.to_string(),
                });
            }
            let value = self.property(class, property, child)?;
            let described = value.describe();
            let set = instance.set(name, value);
            set.map_err(|_| mistyped(class, property, described.into()))?;
        }
        Ok(instance)
    }

    fn property(
        self,
        class: &Class,
        property: &Property,
        element: Element<'_>,
    ) -> Result<Value, CimXmlError> {
        let mut values = element.children().filter(|c| c.local() != "QUALIFIER");
        let Some(value) = values.next() else {
            return Ok(Value::Null);
        };
        if let Some(second) = values.next() {
            return Err(misplaced(element, second, "one value"));
        }
        let is_array = value.local().ends_with("ARRAY");
        if is_array != property.array {
            let got = if is_array {
                parts::ARRAY
            } else {
                parts::ONE_VALUE
            };
            return Err(mistyped(class, property, got.into()));
        }
        let embedded = property.qualifiers.embedded().is_some()
            && (element.attribute("", "EmbeddedObject").is_some()
                || element.attribute("", "EMBEDDEDOBJECT").is_some());
        if !is_array {
            return self.scalar(class, property, embedded, value);
        }
        let items: Result<_, _> = value
            .children()
            .map(|item| match (value.local(), item.local()) {
                ("VALUE.ARRAY", "VALUE")
                | ("VALUE.REFARRAY", "VALUE.REFERENCE")
                | ("VALUE.OBJECTARRAY", "VALUE.OBJECT") => {
                    self.scalar(class, property, embedded, item)
                }
                (array, other) => {
                    let got = parts::ELEMENT_IN.with("element", other);
                    Err(mistyped(class, property, got.with("parent", array).into()))
                }
            })
            .collect();
        items.map(Value::Array)
    }

    /// One `VALUE`, `VALUE.REFERENCE` or `VALUE.OBJECT`.
    fn scalar(
        self,
        class: &Class,
        property: &Property,
        embedded: bool,
        element: Element<'_>,
    ) -> Result<Value, CimXmlError> {
        let inner = Self {
            depth: self.depth + 1,
            ..self
        };
        match (element.local(), &property.ty) {
            ("VALUE", Type::String) if embedded => inner
                .text(&element.text())
                .map(|i| Value::Instance(Box::new(i))),
            ("VALUE", ty) => {
                Value::parse(ty, &element.text()).map_err(|e| mistyped(class, property, e.got))
            }
            ("VALUE.REFERENCE", Type::Reference(_)) => reference::read(element)
                .map(Value::from)
                .map_err(|got| mistyped(class, property, got.into())),
            ("VALUE.OBJECT", Type::String) => inner
                .only_instance(element)
                .map(|i| Value::Instance(Box::new(i))),
            (other, _) => {
                let got = parts::ELEMENT.with("element", other);
                Err(mistyped(class, property, got.into()))
            }
        }
    }
}

/// Every INSTANCE at or below `element`, through the wrapper levels.
fn collect<'d>(
    element: Element<'d>,
    parent: &str,
    found: &mut Vec<Element<'d>>,
) -> Result<(), CimXmlError> {
    match element.local() {
        "INSTANCE" => found.push(element),
        name if PASSED_OVER.contains(&name) => {}
        name if WRAPPERS.contains(&name) => {
            for child in element.children() {
                collect(child, name, found)?;
            }
        }
        name => {
            return Err(CimXmlError::Element {
                parent: parent.to_owned(),
                found: name.to_owned(),
                expected: "INSTANCE",
            });
        }
    }
    Ok(())
}

/// May the property be left out though the class does not know it? System properties, and those of a
/// superclass that knows more at the client than here.
fn is_passed_over(class: &Class, element: Element<'_>, name: &str) -> bool {
    let origin = element.attribute("", "CLASSORIGIN");
    let propagated = element.attribute("", "PROPAGATED");
    name.starts_with("__")
        || origin.is_some_and(|origin| class.name != *origin && class.is_a(origin))
        || propagated.is_some_and(|p| p.eq_ignore_ascii_case("true"))
}

fn attribute<'d>(element: Element<'d>, attribute: &'static str) -> Result<&'d str, CimXmlError> {
    let value = element.attribute("", attribute).map(str::trim);
    value
        .filter(|v| !v.is_empty())
        .ok_or_else(|| CimXmlError::Attribute {
            element: element.local().to_owned(),
            attribute,
        })
}

fn misplaced(parent: Element<'_>, found: Element<'_>, expected: &'static str) -> CimXmlError {
    CimXmlError::Element {
        parent: parent.local().to_owned(),
        found: found.local().to_owned(),
        expected,
    }
}

fn mistyped(class: &Class, property: &Property, got: Argument) -> CimXmlError {
    CimXmlError::Value {
        class: class.name.to_string(),
        property: property.name.to_string(),
        expected: property.declared_type(),
        got,
    }
}
