//! Values and their types (DSP0004 5.2.1, table of intrinsic data types).

use std::fmt;

use super::datetime::DateTime;
use super::instance::Instance;
use super::name::Name;
use super::path::Path;
use crate::text::catalog::cim as texts;
use crate::text::{Argument, Text, told_by_text};

/// An intrinsic type. Whether it is an array stands beside it, at the property or parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// `boolean`
    Boolean,
    /// `uint8`
    Uint8,
    /// `uint16`
    Uint16,
    /// `uint32`
    Uint32,
    /// `uint64`
    Uint64,
    /// `sint8`
    Sint8,
    /// `sint16`
    Sint16,
    /// `sint32`
    Sint32,
    /// `sint64`
    Sint64,
    /// `real32`
    Real32,
    /// `real64`
    Real64,
    /// `char16`
    Char16,
    /// `string`; also where an `EmbeddedInstance` qualifier says what the text holds
    String,
    /// `datetime`: timestamp or interval
    DateTime,
    /// `C ref`: a reference to an instance of `C` or of a subclass of it
    Reference(Name),
}

impl Type {
    /// The MOF keyword, or the class name of a reference.
    #[must_use]
    pub fn keyword(&self) -> &str {
        match self {
            Self::Boolean => "boolean",
            Self::Uint8 => "uint8",
            Self::Uint16 => "uint16",
            Self::Uint32 => "uint32",
            Self::Uint64 => "uint64",
            Self::Sint8 => "sint8",
            Self::Sint16 => "sint16",
            Self::Sint32 => "sint32",
            Self::Sint64 => "sint64",
            Self::Real32 => "real32",
            Self::Real64 => "real64",
            Self::Char16 => "char16",
            Self::String => "string",
            Self::DateTime => "datetime",
            Self::Reference(class) => class.as_str(),
        }
    }
}

impl crate::text::Word for Type {}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.keyword())?;
        if matches!(self, Self::Reference(_)) {
            f.write_str(" ref")?;
        }
        Ok(())
    }
}

/// A value. [`Value::Null`] and an empty [`Value::Array`] are different things.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// No value.
    Null,
    /// `boolean`
    Boolean(bool),
    /// `uint8`
    Uint8(u8),
    /// `uint16`
    Uint16(u16),
    /// `uint32`
    Uint32(u32),
    /// `uint64`
    Uint64(u64),
    /// `sint8`
    Sint8(i8),
    /// `sint16`
    Sint16(i16),
    /// `sint32`
    Sint32(i32),
    /// `sint64`
    Sint64(i64),
    /// `real32`
    Real32(f32),
    /// `real64`
    Real64(f64),
    /// `char16`: one UTF-16 code unit
    Char16(u16),
    /// `string`
    String(String),
    /// `datetime`
    DateTime(DateTime),
    /// A reference.
    Reference(Box<Path>),
    /// An embedded object or instance that came or goes as markup, not as text.
    Instance(Box<Instance>),
    /// An array of values of one type, none of them [`Value::Null`] or an array.
    Array(Vec<Self>),
}

/// The value does not fit the type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeError {
    /// The type that was asked for, with `[]` for an array.
    pub expected: String,
    /// What there was: the type of the value, or the text that cannot be read as one.
    pub got: Argument,
}

impl TypeError {
    /// In words.
    #[must_use]
    pub fn text(&self) -> Text {
        let text = texts::TYPE.with("expected", &self.expected);
        text.with("got", &self.got)
    }
}
told_by_text!(TypeError);

impl Value {
    /// Is there no value?
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The text of a string value.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The value of a `boolean`.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Boolean(b) => Some(*b),
            _ => None,
        }
    }

    /// The value of any unsigned integer type.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Uint8(n) => Some(u64::from(*n)),
            Self::Uint16(n) => Some(u64::from(*n)),
            Self::Uint32(n) => Some(u64::from(*n)),
            Self::Uint64(n) => Some(*n),
            _ => None,
        }
    }

    /// The path of a reference.
    #[must_use]
    pub fn as_reference(&self) -> Option<&Path> {
        match self {
            Self::Reference(path) => Some(path),
            _ => None,
        }
    }

    /// The elements of an array.
    #[must_use]
    pub fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(values) => Some(values),
            _ => None,
        }
    }

    /// Does the value fit a property of this type? Null fits every one. References fit by form only:
    /// whether the class is right is a question for the schema.
    #[must_use]
    pub fn fits(&self, ty: &Type, array: bool) -> bool {
        match self {
            Self::Null => true,
            Self::Array(values) => {
                array && values.iter().all(|v| !v.is_null() && v.fits(ty, false))
            }
            _ if array => false,
            Self::Instance(_) => matches!(ty, Type::String),
            Self::Boolean(_) => matches!(ty, Type::Boolean),
            Self::Uint8(_) => matches!(ty, Type::Uint8),
            Self::Uint16(_) => matches!(ty, Type::Uint16),
            Self::Uint32(_) => matches!(ty, Type::Uint32),
            Self::Uint64(_) => matches!(ty, Type::Uint64),
            Self::Sint8(_) => matches!(ty, Type::Sint8),
            Self::Sint16(_) => matches!(ty, Type::Sint16),
            Self::Sint32(_) => matches!(ty, Type::Sint32),
            Self::Sint64(_) => matches!(ty, Type::Sint64),
            Self::Real32(_) => matches!(ty, Type::Real32),
            Self::Real64(_) => matches!(ty, Type::Real64),
            Self::Char16(_) => matches!(ty, Type::Char16),
            Self::String(_) => matches!(ty, Type::String),
            Self::DateTime(_) => matches!(ty, Type::DateTime),
            Self::Reference(_) => matches!(ty, Type::Reference(_)),
        }
    }
}

macro_rules! from {
    ($($variant:ident($rust:ty)),*) => {
        $(impl From<$rust> for Value {
            fn from(value: $rust) -> Self {
                Self::$variant(value)
            }
        })*
    };
}

from!(
    Boolean(bool),
    Uint8(u8),
    Uint16(u16),
    Uint32(u32),
    Uint64(u64),
    Sint8(i8),
    Sint16(i16),
    Sint32(i32),
    Sint64(i64),
    Real32(f32),
    Real64(f64),
    String(String),
    DateTime(DateTime)
);

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<Path> for Value {
    fn from(path: Path) -> Self {
        Self::Reference(Box::new(path))
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl<T: Into<Self>> From<Vec<T>> for Value {
    fn from(values: Vec<T>) -> Self {
        Self::Array(values.into_iter().map(Into::into).collect())
    }
}
