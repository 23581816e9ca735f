//! What properties, methods and parameters have in common: classes they name, value maps, duplicates.

use crate::cim::class::Qualifiers;
use crate::cim::mof::convert;
use crate::cim::mof::diagnostic::{Diagnostic, Rule, Span};
use crate::cim::mof::literal::{self, Number};
use crate::cim::mof::namespace::embedded_class;
use crate::cim::mof::syntax::{Identifier, QualifierUse};
use crate::cim::value::{Type, Value};

use super::Builder;

impl Builder<'_> {
    /// A reference names a class that exists.
    pub(super) fn reference(&mut self, ty: &Type, span: &Span, what: &dyn Fn() -> String) {
        if let Type::Reference(class) = ty
            && !self.declarations.has(class)
        {
            self.errors.push(Diagnostic::error(
                Rule::UnknownReference,
                span,
                format!("{} refers to {class}, which is not declared", what()),
                "expected a declared class",
            ));
        }
    }

    /// `EmbeddedInstance` stands at strings and names a class that exists.
    pub(super) fn embedded(
        &mut self,
        written: &[QualifierUse],
        ty: &Type,
        what: &dyn Fn() -> String,
    ) {
        for qualifier in written {
            let Some(class) = embedded_class(qualifier) else {
                continue;
            };
            let span = qualifier
                .value
                .as_ref()
                .map_or(&qualifier.name.span, |v| &v.span);
            if *ty != Type::String {
                self.errors.push(Diagnostic::error(
                    Rule::EmbeddedInstance,
                    &qualifier.name.span,
                    format!("{} carries an embedded instance but is a {ty}", what()),
                    "expected a string",
                ));
            }
            if !self.declarations.has(&class) {
                self.errors.push(Diagnostic::error(
                    Rule::EmbeddedInstance,
                    span,
                    format!("{} embeds {class}, which is not declared", what()),
                    "expected a declared class",
                ));
            }
        }
    }

    /// `ValueMap` fits the type, and `Values` has one label for each of its entries.
    pub(super) fn value_map(
        &mut self,
        written: &[QualifierUse],
        qualifiers: &Qualifiers,
        ty: &Type,
        what: &dyn Fn() -> String,
    ) {
        let place = |name: &str| written.iter().find(|q| q.name.name == *name);
        let Some(at) = place("ValueMap").or_else(|| place("Values")) else {
            return;
        };
        let array = |name: &str| {
            qualifiers
                .get(name)
                .and_then(|q| q.value.as_array())
                .unwrap_or_default()
        };
        let (map, labels) = (array("ValueMap"), array("Values"));
        let mut warn = |message: String, label: String| {
            self.errors.push(Diagnostic::warning(
                Rule::ValueMap,
                &at.name.span,
                message,
                label,
            ));
        };
        if *ty == Type::Boolean {
            warn(
                format!("{} is a boolean with a value map", what()),
                "expected no value map".to_owned(),
            );
            return;
        }
        if !map.is_empty() && !labels.is_empty() && map.len() != labels.len() {
            warn(
                format!(
                    "{} has {} values and {} labels",
                    what(),
                    map.len(),
                    labels.len()
                ),
                "expected one label for each value".to_owned(),
            );
        }
        let strange = |value: &&Value| value.as_str().is_some_and(|text| !maps(text, ty));
        if let Some(entry) = map.iter().find(strange).and_then(Value::as_str) {
            warn(
                format!("{} maps {entry:?}, which is no {ty}", what()),
                format!("expected values of {ty}, or ranges of them"),
            );
        }
    }

    /// A name stands once among its like.
    pub(super) fn unique<'n>(
        &mut self,
        names: impl Iterator<Item = &'n Identifier>,
        what: &dyn Fn(&Identifier) -> String,
    ) {
        let mut seen = std::collections::BTreeMap::new();
        for name in names {
            if let Some(first) = seen.insert(&name.name, &name.span) {
                self.errors.push(
                    Diagnostic::error(
                        Rule::Duplicate,
                        &name.span,
                        format!("{} is declared twice", what(name)),
                        "expected one declaration",
                    )
                    .also(first, "first declared here"),
                );
                seen.insert(&name.name, first);
            }
        }
    }
}

/// Is it a value of the type, or a range `a..b`, `a..`, `..b`, `..`? Texts map anything.
fn maps(entry: &str, ty: &Type) -> bool {
    if !convert::is_integer(ty) {
        return true;
    }
    let fits = |text: &str| match literal::number(text) {
        Ok(Number::Integer(n)) => convert::integer(n, ty).is_some(),
        _ => false,
    };
    match entry.split_once("..") {
        Some((low, high)) => (low.is_empty() || fits(low)) && (high.is_empty() || fits(high)),
        None => fits(entry),
    }
}
