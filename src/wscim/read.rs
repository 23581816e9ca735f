//! Values and instances from XML (rules I-3 to I-6, and the "accept in" column of section 6.3).

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine;

use crate::cim::cimxml::{CimXmlError, EMBEDDED_MAX};
use crate::cim::class::Qualifiers;
use crate::cim::{Class, Instance, Parameter, Path, Property, Type, TypeError, Value};
use crate::soap::ns;
use crate::text::catalog::{cim as cim_texts, wire as texts};
use crate::text::{Text, told_by_text};
use crate::xml::{Element, WHITE_SPACE};

use super::epr::{Reference, SelectorError};
use super::uri::ClassUri;

/// Why markup is no value of what was declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The text is of another type.
    Type(TypeError),
    /// More than one element for a single value.
    Twice,
    /// A nil element among those of an array.
    NilInArray,
    /// An endpoint reference that cannot be read.
    Reference(SelectorError),
    /// An embedded instance of a class that is not known.
    Class(String),
    /// More than [`EMBEDDED_MAX`] instances inside each other.
    Depth,
    /// An embedded instance with a property that its class does not have.
    Property {
        /// The class.
        class: String,
        /// The property.
        property: String,
    },
}

impl Error {
    /// In words.
    #[must_use]
    pub fn text(&self) -> Text {
        match self {
            Self::Type(TypeError { expected, got }) => {
                let text = texts::VALUE_TYPE.with("expected", expected);
                text.with("got", got)
            }
            Self::Twice => texts::VALUE_TWICE.text(),
            Self::NilInArray => texts::NIL_IN_ARRAY.text(),
            Self::Reference(error) => error.text(),
            Self::Class(class) => texts::VALUE_CLASS.with("class", class),
            Self::Depth => CimXmlError::Depth.text(),
            Self::Property { class, property } => texts::VALUE_PROPERTY
                .with("class", class)
                .with("property", property),
        }
    }
}
told_by_text!(Error);

impl From<TypeError> for Error {
    fn from(error: TypeError) -> Self {
        Self::Type(error)
    }
}

impl From<SelectorError> for Error {
    fn from(error: SelectorError) -> Self {
        Self::Reference(error)
    }
}

/// What a value is declared as.
#[derive(Debug, Clone, Copy)]
pub struct Declared<'a> {
    ty: &'a Type,
    array: bool,
    qualifiers: &'a Qualifiers,
}

impl<'a> From<&'a Parameter> for Declared<'a> {
    fn from(parameter: &'a Parameter) -> Self {
        Self {
            ty: &parameter.ty,
            array: parameter.array,
            qualifiers: &parameter.qualifiers,
        }
    }
}

impl<'a> From<&'a Property> for Declared<'a> {
    fn from(property: &'a Property) -> Self {
        Self {
            ty: &property.ty,
            array: property.array,
            qualifiers: &property.qualifiers,
        }
    }
}

/// Reads a value from the elements of its name; none mean null. An embedded instance is a [`Value::Instance`] if it comes
/// as markup, and else its text.
///
/// # Errors
/// [`Error`].
pub fn value(
    elements: &[Element<'_>],
    declared: Declared<'_>,
    reference: &Reference<'_>,
) -> Result<Value, Error> {
    nested(elements, declared, (reference, 0))
}

/// Who reads, and in how many instances.
type Reader<'r> = (&'r Reference<'r>, usize);

fn nested(
    elements: &[Element<'_>],
    declared: Declared<'_>,
    reader: Reader<'_>,
) -> Result<Value, Error> {
    match elements {
        [] => Ok(Value::Null),
        [only] if is_nil(*only) => Ok(Value::Null),
        [only] if declared.array && declared.qualifiers.is("OctetString") => octets(&only.text())
            .map_or_else(
                || Ok(Value::Array(vec![scalar(*only, declared, reader)?])),
                Ok,
            ),
        _ if declared.array => elements
            .iter()
            .map(|e| match is_nil(*e) {
                true => Err(Error::NilInArray),
                false => scalar(*e, declared, reader),
            })
            .collect::<Result<Vec<_>, _>>()
            .map(Value::Array),
        [only] => scalar(*only, declared, reader),
        _ => Err(Error::Twice),
    }
}

fn is_nil(element: Element<'_>) -> bool {
    matches!(element.attribute(ns::XSI, "nil"), Some("true" | "1"))
}

/// An octet string in base64, as OMI writes it; `None` if it is a plain number.
fn octets(text: &str) -> Option<Value> {
    let text = text.trim_matches(WHITE_SPACE);
    if Value::parse(&Type::Uint8, text).is_ok() {
        return None;
    }
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(text)
        .ok()?;
    Some(Value::from(bytes))
}

fn scalar(
    element: Element<'_>,
    declared: Declared<'_>,
    reader: Reader<'_>,
) -> Result<Value, Error> {
    let inner = element.children().next();
    match (declared.ty, inner) {
        (Type::Reference(_), _) => reference_value(element, reader.0),
        (Type::DateTime, Some(inner)) if inner.namespace() == ns::COMMON => {
            Ok(Value::parse(declared.ty, &inner.text())?)
        }
        (Type::String, Some(inner)) if declared.qualifiers.embedded().is_some() => {
            let embedded = embedded(element, inner, reader)?;
            Ok(Value::Instance(Box::new(embedded)))
        }
        (_, Some(inner)) => Err(Error::Type(TypeError {
            expected: declared.ty.to_string(),
            got: cim_texts::ELEMENT.with("element", inner.local()).into(),
        })),
        (_, None) => Ok(Value::parse(declared.ty, &element.text())?),
    }
}

/// A reference: an endpoint reference, bare or in its own element; an instance with the keys as its
/// properties, as OMI's client sends it; or path text (rule I-4).
fn reference_value(element: Element<'_>, reference: &Reference<'_>) -> Result<Value, Error> {
    if let Some(path) = reference.read_wrapped(element)? {
        return Ok(path.into());
    }
    if element.children().next().is_none() {
        let path = Value::parse(&Type::Reference("object path".into()), &element.trimmed())?;
        return Ok(match path {
            Value::Reference(path) => reference.typed(*path).into(),
            other => other,
        });
    }
    if element.child(ns::ADDRESSING, "Address").is_none()
        && let Some((class, namespace)) = class_of_type(element)
    {
        let mut path = Path::new(namespace.as_deref().unwrap_or(reference.namespace), class);
        for key in element.children() {
            let text = Value::String(key.text().into_owned());
            path.keys.push((key.local().into(), text));
        }
        return Ok(reference.selected(path).into());
    }
    Ok(reference.read(element)?.into())
}

/// The class that `xsi:type="q:<Class>_Type"` names, and its namespace if the URI of `q` tells. The attribute
/// is taken from any namespace: OMI binds `xsi` to the wrong one.
fn class_of_type<'d>(element: Element<'d>) -> Option<(&'d str, Option<Cow<'d, str>>)> {
    let (_, _, ty) = element.attributes().find(|(_, name, _)| *name == "type")?;
    let (prefix, local) = ty.split_once(':').unwrap_or(("", ty));
    let class = local.strip_suffix("_Type")?;
    let namespace = element
        .resolve(prefix)
        .and_then(ClassUri::parse)
        .and_then(|uri| uri.namespace);
    Some((class, namespace))
}

/// An embedded instance as markup: an element of its class inside, or its properties inside and its class
/// in `xsi:type` (rule I-5 b).
fn embedded(
    element: Element<'_>,
    inner: Element<'_>,
    (reference, depth): Reader<'_>,
) -> Result<Instance, Error> {
    let reader = (reference, depth + 1);
    if reader.1 > EMBEDDED_MAX {
        return Err(Error::Depth);
    }
    match class_of_type(element) {
        Some((class, namespace)) => {
            let class = find(class, namespace.as_deref(), reference)?;
            properties(&class, element, reader)
        }
        None => of_its_name(inner, reader),
    }
}

/// Reads an instance: an element whose name, in a class URI as namespace, is the class.
///
/// # Errors
/// [`Error`]; a property that stands in the markup must be one of the class and fit.
pub fn instance(element: Element<'_>, reference: &Reference<'_>) -> Result<Instance, Error> {
    of_its_name(element, (reference, 0))
}

fn of_its_name(element: Element<'_>, reader: Reader<'_>) -> Result<Instance, Error> {
    let namespace = ClassUri::parse(element.namespace()).and_then(|uri| uri.namespace);
    let class = find(element.local(), namespace.as_deref(), reader.0)?;
    properties(&class, element, reader)
}

fn find(
    class: &str,
    namespace: Option<&str>,
    reference: &Reference<'_>,
) -> Result<Arc<Class>, Error> {
    let namespace = namespace.unwrap_or(reference.namespace);
    let found = reference.schema.class(namespace, class);
    found.cloned().ok_or_else(|| Error::Class(class.to_owned()))
}

fn properties(
    class: &Arc<Class>,
    element: Element<'_>,
    reader: Reader<'_>,
) -> Result<Instance, Error> {
    let unknown = |property: &str| Error::Property {
        class: class.name.to_string(),
        property: property.to_owned(),
    };
    let mut instance = Instance::new(class);
    let mut left: Vec<Element<'_>> = element.children().collect();
    while let Some(first) = left.first().copied() {
        let name = first.local();
        let (same, others) = left
            .into_iter()
            .partition(|e| e.local().eq_ignore_ascii_case(name));
        left = others;
        let same: Vec<Element<'_>> = same;
        let property = class.property(name).ok_or_else(|| unknown(name))?;
        let value = nested(&same, property.into(), reader)?;
        if !property.accepts(&value) {
            return Err(Error::Type(TypeError {
                expected: property.declared_type(),
                got: value.describe().into(),
            }));
        }
        instance.set(name, value).map_err(|_| unknown(name))?;
    }
    Ok(instance)
}
