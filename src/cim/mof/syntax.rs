//! The syntax tree of one source, with the position of each part.

use crate::cim::name::Name;
use crate::cim::value::Type;

use super::diagnostic::Span;

/// What one source declares.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) qualifiers: Vec<QualifierType>,
    pub(super) classes: Vec<ClassDeclaration>,
    /// `#pragma include`.
    pub(super) includes: Vec<(String, Span)>,
}

/// A name with its place.
#[derive(Debug, Clone)]
pub(super) struct Identifier {
    pub(super) name: Name,
    pub(super) span: Span,
}

/// `Qualifier Key : boolean = false, Scope(property, reference), Flavor(DisableOverride, ToSubclass);`
#[derive(Debug)]
pub(super) struct QualifierType {
    pub(super) name: Identifier,
    pub(super) ty: Type,
    pub(super) array: bool,
    pub(super) default: Option<Initializer>,
    pub(super) scopes: Vec<Scope>,
    pub(super) flavors: Vec<(Flavor, Span)>,
}

/// A kind of element that can carry a qualifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Any,
    Schema,
    Class,
    Association,
    Indication,
    Qualifier,
    Property,
    Reference,
    Method,
    Parameter,
}

impl Scope {
    /// The scope of that keyword.
    pub(super) fn named(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|s| s.keyword().eq_ignore_ascii_case(text))
    }

    /// Its keyword.
    pub(super) const fn keyword(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Schema => "schema",
            Self::Class => "class",
            Self::Association => "association",
            Self::Indication => "indication",
            Self::Qualifier => "qualifier",
            Self::Property => "property",
            Self::Reference => "reference",
            Self::Method => "method",
            Self::Parameter => "parameter",
        }
    }

    const ALL: [Self; 10] = [
        Self::Any,
        Self::Schema,
        Self::Class,
        Self::Association,
        Self::Indication,
        Self::Qualifier,
        Self::Property,
        Self::Reference,
        Self::Method,
        Self::Parameter,
    ];
}

/// How a qualifier travels down the class tree (DSP0004 5.6.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flavor {
    EnableOverride,
    DisableOverride,
    ToSubclass,
    Restricted,
    /// A hint for translators; without effect here.
    Translatable,
}

impl Flavor {
    /// The flavour of that keyword.
    pub(super) fn named(text: &str) -> Option<Self> {
        [
            Self::EnableOverride,
            Self::DisableOverride,
            Self::ToSubclass,
            Self::Restricted,
            Self::Translatable,
        ]
        .into_iter()
        .find(|f| f.keyword().eq_ignore_ascii_case(text))
    }

    /// Its keyword.
    pub(super) const fn keyword(self) -> &'static str {
        match self {
            Self::EnableOverride => "EnableOverride",
            Self::DisableOverride => "DisableOverride",
            Self::ToSubclass => "ToSubclass",
            Self::Restricted => "Restricted",
            Self::Translatable => "Translatable",
        }
    }
}

/// A qualifier at an element.
#[derive(Debug)]
pub(super) struct QualifierUse {
    pub(super) name: Identifier,
    pub(super) value: Option<Initializer>,
    pub(super) flavors: Vec<(Flavor, Span)>,
}

/// `= 5`, `= { "a", "b" }`, `("text")`.
#[derive(Debug)]
pub(super) struct Initializer {
    pub(super) value: Constant,
    pub(super) span: Span,
}

/// One constant or a list of them.
#[derive(Debug)]
pub(super) enum Constant {
    Scalar(Literal),
    Array(Vec<Literal>),
}

/// A literal before it meets a type.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Null,
    Boolean(bool),
    Integer(i128),
    Real(f64),
    String(String),
    Char(u16),
    /// `$Name`; only instances have them.
    Alias(String),
}

impl Literal {
    /// What it is, for messages.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean(_) => "a boolean",
            Self::Integer(_) => "an integer",
            Self::Real(_) => "a real number",
            Self::String(_) => "a string",
            Self::Char(_) => "a character",
            Self::Alias(_) => "an alias",
        }
    }
}

/// A class.
#[derive(Debug)]
pub(super) struct ClassDeclaration {
    /// The namespace in force where it stands.
    pub(super) namespace: std::sync::Arc<str>,
    pub(super) qualifiers: Vec<QualifierUse>,
    pub(super) name: Identifier,
    pub(super) superclass: Option<Identifier>,
    pub(super) properties: Vec<PropertyDeclaration>,
    pub(super) methods: Vec<MethodDeclaration>,
}

/// A property or a reference.
#[derive(Debug)]
pub(super) struct PropertyDeclaration {
    pub(super) qualifiers: Vec<QualifierUse>,
    pub(super) ty: Type,
    pub(super) ty_span: Span,
    pub(super) name: Identifier,
    pub(super) array: bool,
    pub(super) default: Option<Initializer>,
}

/// A method.
#[derive(Debug)]
pub(super) struct MethodDeclaration {
    pub(super) qualifiers: Vec<QualifierUse>,
    pub(super) returns: Type,
    pub(super) returns_span: Span,
    pub(super) name: Identifier,
    pub(super) parameters: Vec<ParameterDeclaration>,
}

/// A parameter.
#[derive(Debug)]
pub(super) struct ParameterDeclaration {
    pub(super) qualifiers: Vec<QualifierUse>,
    pub(super) ty: Type,
    pub(super) ty_span: Span,
    pub(super) name: Identifier,
    pub(super) array: bool,
}
