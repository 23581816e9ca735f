//! Qualifier types, and the qualifiers that an element ends up with (DSP0004 5.6).

use std::collections::BTreeMap;

use crate::cim::class::{Qualifier, Qualifiers};
use crate::cim::name::Name;
use crate::cim::value::{Type, Value};

use super::convert;
use super::diagnostic::{Diagnostic, Rule, Span};
use super::syntax::{Flavor, QualifierType, QualifierUse, Scope};

/// The qualifier types in force.
#[derive(Default)]
pub(super) struct QualifierTypes<'a>(BTreeMap<Name, &'a QualifierType>);

/// What the qualifiers stand at.
pub(super) struct Element<'a> {
    /// Scopes, any of which makes a qualifier welcome.
    pub(super) scopes: &'a [Scope],
    /// For messages: `property CIM_X.Y`.
    pub(super) name: &'a dyn Fn() -> String,
}

impl<'a> QualifierTypes<'a> {
    /// Adds a type. The first declaration of a name wins.
    pub(super) fn add(&mut self, declared: &'a QualifierType, errors: &mut Vec<Diagnostic>) {
        let name = &declared.name.name;
        if let Some(first) = self.0.get(name) {
            errors.push(
                Diagnostic::error(
                    Rule::Duplicate,
                    &declared.name.span,
                    format!("qualifier {name} is declared twice"),
                    "expected one declaration",
                )
                .also(&first.name.span, "first declared here"),
            );
            return;
        }
        if let Some(default) = &declared.default
            && let Err(expected) = convert::value(&default.value, &declared.ty, declared.array)
        {
            errors.push(Diagnostic::error(
                Rule::QualifierType,
                &default.span,
                format!("the default of qualifier {name} does not fit its type"),
                expected,
            ));
        }
        contradictions(name, &declared.flavors, errors);
        self.0.insert(name.clone(), declared);
    }

    /// Adds the type unless there is one of that name.
    pub(super) fn add_missing(&mut self, declared: &'a QualifierType) {
        self.0.entry(declared.name.name.clone()).or_insert(declared);
    }

    /// The qualifiers written at an element, on top of those it inherits.
    pub(super) fn apply(
        &self,
        uses: &[QualifierUse],
        inherited: Option<&Qualifiers>,
        element: &Element<'_>,
        errors: &mut Vec<Diagnostic>,
    ) -> Qualifiers {
        let base = inherited.map(inherit).unwrap_or_default();
        if uses.is_empty() {
            return base;
        }
        let mut all = base.0.to_vec();
        for (at, written) in uses.iter().enumerate() {
            let name = &written.name.name;
            let first = uses.iter().take(at).find(|q| q.name.name == *name);
            if let Some(first) = first {
                errors.push(
                    Diagnostic::error(
                        Rule::Duplicate,
                        &written.name.span,
                        format!("qualifier {name} stands twice at {}", (element.name)()),
                        "expected it once",
                    )
                    .also(&first.name.span, "first written here"),
                );
                continue;
            }
            let Some(qualifier) = self.read(written, element, errors) else {
                continue;
            };
            match all.iter_mut().find(|q| q.name == qualifier.name) {
                Some(old) => {
                    if !old.overridable && old.value != qualifier.value {
                        errors.push(Diagnostic::error(
                            Rule::QualifierOverride,
                            &written.name.span,
                            format!(
                                "qualifier {name} of {} may not be changed by a subclass",
                                (element.name)()
                            ),
                            "expected the inherited value",
                        ));
                        continue;
                    }
                    *old = qualifier;
                }
                None => all.push(qualifier),
            }
        }
        Qualifiers(all.into())
    }

    /// One written qualifier, checked against its type.
    fn read(
        &self,
        written: &QualifierUse,
        element: &Element<'_>,
        errors: &mut Vec<Diagnostic>,
    ) -> Option<Qualifier> {
        let name = &written.name.name;
        let Some(declared) = self.0.get(name) else {
            errors.push(Diagnostic::error(
                Rule::UnknownQualifier,
                &written.name.span,
                format!("qualifier {name} is not declared"),
                "expected a declared qualifier",
            ));
            return None;
        };
        let scoped = |s: &Scope| *s == Scope::Any || element.scopes.contains(s);
        if !declared.scopes.iter().any(scoped) {
            let scopes: Vec<_> = declared.scopes.iter().map(|s| s.keyword()).collect();
            errors.push(
                Diagnostic::error(
                    Rule::QualifierScope,
                    &written.name.span,
                    format!("qualifier {name} does not belong at {}", (element.name)()),
                    format!("expected only at: {}", scopes.join(", ")),
                )
                .also(&declared.name.span, "declared here"),
            );
        }
        let value = match &written.value {
            None if declared.ty == Type::Boolean && !declared.array => Value::Boolean(true),
            None => Value::Null,
            Some(given) => match convert::value(&given.value, &declared.ty, declared.array) {
                Ok(value) => value,
                Err(expected) => {
                    errors.push(
                        Diagnostic::error(
                            Rule::QualifierType,
                            &given.span,
                            format!("the value of qualifier {name} does not fit its type"),
                            expected,
                        )
                        .also(&declared.name.span, "declared here"),
                    );
                    Value::Null
                }
            },
        };
        let (overridable, to_subclass) = flavors(declared, written, errors);
        Some(Qualifier {
            name: declared.name.name.clone(),
            ty: declared.ty.clone(),
            value,
            overridable,
            to_subclass,
            propagated: false,
        })
    }
}

/// Overridable and to-subclass, as declared and as restated. A use may tighten its declaration, not loosen it.
fn flavors(
    declared: &QualifierType,
    written: &QualifierUse,
    errors: &mut Vec<Diagnostic>,
) -> (bool, bool) {
    let says = |list: &[(Flavor, Span)], flavor| list.iter().any(|(f, _)| *f == flavor);
    let mut overridable = !says(&declared.flavors, Flavor::DisableOverride);
    let mut to_subclass = !says(&declared.flavors, Flavor::Restricted);
    contradictions(&written.name.name, &written.flavors, errors);
    for (flavor, span) in &written.flavors {
        let loosens = match flavor {
            Flavor::EnableOverride => !overridable,
            Flavor::ToSubclass => !to_subclass,
            _ => false,
        };
        if loosens {
            let message = format!(
                "flavor {} contradicts the declaration of qualifier {}",
                flavor.keyword(),
                written.name.name
            );
            // MOF out of WMI says ToSubclass everywhere.
            let diagnostic = match flavor {
                Flavor::ToSubclass => Diagnostic::warning(
                    Rule::QualifierFlavor,
                    span,
                    message,
                    "ignored: the declaration says Restricted",
                ),
                _ => Diagnostic::error(
                    Rule::QualifierFlavor,
                    span,
                    message,
                    "expected the declared flavor or a tighter one",
                ),
            };
            errors.push(diagnostic.also(&declared.name.span, "declared here"));
        }
    }
    overridable &= !says(&written.flavors, Flavor::DisableOverride);
    to_subclass &= !says(&written.flavors, Flavor::Restricted);
    (overridable, to_subclass)
}

fn contradictions(name: &Name, flavors: &[(Flavor, Span)], errors: &mut Vec<Diagnostic>) {
    for (one, other) in [
        (Flavor::EnableOverride, Flavor::DisableOverride),
        (Flavor::ToSubclass, Flavor::Restricted),
    ] {
        let find = |flavor| flavors.iter().find(|(f, _)| *f == flavor);
        if let (Some((_, a)), Some((_, b))) = (find(one), find(other)) {
            errors.push(
                Diagnostic::error(
                    Rule::QualifierFlavor,
                    b,
                    format!(
                        "qualifier {name} is both {} and {}",
                        one.keyword(),
                        other.keyword()
                    ),
                    "expected one of the two",
                )
                .also(a, "the other is here"),
            );
        }
    }
}

/// What a subclass or an overriding element gets of these qualifiers. Shares them where nothing changes.
pub(super) fn inherit(qualifiers: &Qualifiers) -> Qualifiers {
    if qualifiers.0.iter().all(|q| q.to_subclass && q.propagated) {
        return qualifiers.clone();
    }
    let passed_on = qualifiers.0.iter().filter(|q| q.to_subclass).cloned();
    Qualifiers(
        passed_on
            .map(|q| Qualifier {
                propagated: true,
                ..q
            })
            .collect(),
    )
}
