//! What the compiler has to say about a source, and how it is shown: file, line, column, the line itself and a caret.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use ariadne::{Config, IndexType, Label, Report, ReportKind};

/// A MOF source: its name as the user knows it, and its text.
#[derive(Debug, PartialEq, Eq)]
pub struct SourceText {
    /// File name or another name that tells the user where the text came from.
    pub name: String,
    /// The text, as UTF-8.
    pub text: String,
    /// Its place among the sources compiled together.
    pub order: usize,
}

/// A stretch of one source, in bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Span {
    /// The source.
    pub source: Arc<SourceText>,
    /// Where in its text.
    pub range: Range<usize>,
}

impl Span {
    /// Line and column of the first character, both from 1; the column counts characters.
    #[must_use]
    pub fn line_column(&self) -> (usize, usize) {
        let before = self
            .source
            .text
            .get(..self.range.start)
            .unwrap_or(&self.source.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
        (line, column)
    }

    /// From the start of this stretch to the end of that one.
    #[must_use]
    pub fn to(&self, end: &Self) -> Self {
        Self {
            source: self.source.clone(),
            range: self.range.start..end.range.end.max(self.range.start),
        }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:?}", self.source.name, self.range)
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The classes can be used all the same.
    Warning,
    /// What was found cannot be used.
    Error,
}

/// Which rule the source breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Text that is no MOF.
    Syntax,
    /// A literal that cannot be read: a number out of all ranges, an unknown escape.
    Literal,
    /// An `instance of` declaration: only classes and qualifiers are compiled.
    InstanceNotSupported,
    /// A compiler directive that is not known.
    Pragma,
    /// A file named by `#pragma include` that is not among the sources.
    Include,
    /// A qualifier type, class, property, method or parameter declared twice.
    Duplicate,
    /// A superclass that is declared nowhere.
    UnknownSuperclass,
    /// A class that is its own ancestor.
    InheritanceCycle,
    /// More levels of classes than are allowed.
    InheritanceDepth,
    /// A qualifier without a declaration.
    UnknownQualifier,
    /// A qualifier at an element that its scope does not name.
    QualifierScope,
    /// A qualifier whose value does not fit its declared type.
    QualifierType,
    /// Flavours that contradict each other or the declaration.
    QualifierFlavor,
    /// A qualifier value that a subclass changes although it may not.
    QualifierOverride,
    /// An inherited element redeclared without `Override`, or `Override` of something that is not inherited.
    Override,
    /// An overriding element of another type.
    OverrideType,
    /// A method overridden with other parameters.
    OverrideSignature,
    /// A reference overridden by one to a class that does not derive from the old one.
    ReferenceNotCovariant,
    /// A key introduced below a class that has keys, or an array as key.
    Key,
    /// An association with fewer than two references, or below a class that is none.
    Association,
    /// A reference in a class that is no association.
    ReferenceOutsideAssociation,
    /// A reference to a class that is declared nowhere.
    UnknownReference,
    /// An embedded instance of a class that is declared nowhere, or on something that is no string.
    EmbeddedInstance,
    /// A default value that does not fit the property.
    Default,
    /// `ValueMap` and `Values` that do not belong together or not to the type.
    ValueMap,
}

impl Rule {
    /// A short, stable name to look the rule up by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Literal => "literal",
            Self::InstanceNotSupported => "instance-not-supported",
            Self::Pragma => "pragma",
            Self::Include => "include",
            Self::Duplicate => "duplicate",
            Self::UnknownSuperclass => "unknown-superclass",
            Self::InheritanceCycle => "inheritance-cycle",
            Self::InheritanceDepth => "inheritance-depth",
            Self::UnknownQualifier => "unknown-qualifier",
            Self::QualifierScope => "qualifier-scope",
            Self::QualifierType => "qualifier-type",
            Self::QualifierFlavor => "qualifier-flavor",
            Self::QualifierOverride => "qualifier-override",
            Self::Override => "override",
            Self::OverrideType => "override-type",
            Self::OverrideSignature => "override-signature",
            Self::ReferenceNotCovariant => "reference-not-covariant",
            Self::Key => "key",
            Self::Association => "association",
            Self::ReferenceOutsideAssociation => "reference-outside-association",
            Self::UnknownReference => "unknown-reference",
            Self::EmbeddedInstance => "embedded-instance",
            Self::Default => "default",
            Self::ValueMap => "value-map",
        }
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The rule.
    pub rule: Rule,
    /// What is wrong, in one line, with the names of the things concerned.
    pub message: String,
    /// Where.
    pub span: Span,
    /// What was expected there, or what the caret points at.
    pub label: String,
    /// Another place that has to do with it: the first declaration, the overridden property.
    pub also: Option<(Span, String)>,
}

impl Diagnostic {
    /// An error; `label` tells what was expected at the place.
    #[must_use]
    pub fn error(rule: Rule, span: &Span, message: String, label: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            rule,
            message,
            span: span.clone(),
            label: label.into(),
            also: None,
        }
    }

    /// A warning.
    #[must_use]
    pub fn warning(rule: Rule, span: &Span, message: String, label: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(rule, span, message, label)
        }
    }

    /// Adds a second place.
    #[must_use]
    pub fn also(mut self, span: &Span, label: impl Into<String>) -> Self {
        self.also = Some((span.clone(), label.into()));
        self
    }

    /// Several lines for people: message, place, the source line and a caret. Ends with a newline.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        render_all(std::slice::from_ref(self), color)
    }

    fn report(&self, color: bool) -> Report<'static, (SourceId, Range<usize>)> {
        let kind = match self.severity {
            Severity::Error => ReportKind::Error,
            Severity::Warning => ReportKind::Warning,
        };
        let config = Config::new()
            .with_color(color)
            .with_index_type(IndexType::Byte);
        let place = |span: &Span| (SourceId::of(span), span.range.clone());
        let mut report = Report::build(kind, place(&self.span))
            .with_config(config)
            .with_code(self.rule.name())
            .with_message(&self.message)
            .with_label(Label::new(place(&self.span)).with_message(&self.label));
        if let Some((span, label)) = &self.also {
            report = report.with_label(Label::new(place(span)).with_message(label));
        }
        report.finish()
    }
}

/// The findings one below the other, each as [`Diagnostic::render`] writes it; every source is read once.
#[must_use]
pub fn render_all(diagnostics: &[Diagnostic], color: bool) -> String {
    let texts: BTreeMap<usize, &Span> = diagnostics
        .iter()
        .flat_map(|d| std::iter::once(&d.span).chain(d.also.iter().map(|(span, _)| span)))
        .map(|span| (span.source.order, span))
        .collect();
    let mut cache = ariadne::sources(
        texts
            .into_values()
            .map(|span| (SourceId::of(span), span.source.text.clone())),
    );
    let mut out = Vec::new();
    for diagnostic in diagnostics {
        let written = diagnostic.report(color).write(&mut cache, &mut out);
        if written.is_err() {
            out.extend_from_slice(format!("{diagnostic}\n").as_bytes());
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Which source, shown by its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct SourceId {
    order: usize,
    name: String,
}

impl SourceId {
    fn of(span: &Span) -> Self {
        Self {
            order: span.source.order,
            name: span.source.name.clone(),
        }
    }
}

impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Display for Diagnostic {
    /// One line: `file:line:column: error[rule]: message (label)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.span.line_column();
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(
            f,
            "{}:{line}:{column}: {severity}[{}]: {}",
            self.span.source.name,
            self.rule.name(),
            self.message
        )?;
        if !self.message.contains(&self.label) {
            write!(f, " ({})", self.label)?;
        }
        Ok(())
    }
}
