//! Properties and references of a class: inherited, overridden, new.

use crate::cim::class::Property;
use crate::cim::mof::convert;
use crate::cim::mof::diagnostic::{Diagnostic, Rule};
use crate::cim::mof::qualifier::{Element, inherit};
use crate::cim::mof::syntax::{ClassDeclaration, Identifier, PropertyDeclaration, Scope};
use crate::cim::value::{Type, Value};

use super::{Base, Builder};

impl Builder<'_> {
    /// Inherited ones first, an overriding one in its place, then the new ones.
    pub(super) fn properties(&mut self, class: &ClassDeclaration, base: &Base) -> Vec<Property> {
        let mut all: Vec<Property> = base.class().map_or_else(Vec::new, |b| {
            b.properties
                .iter()
                .map(|p| Property {
                    propagated: true,
                    qualifiers: inherit(&p.qualifiers),
                    ..p.clone()
                })
                .collect()
        });
        let class_name = &class.name.name;
        self.unique(
            class.properties.iter().map(|p| &p.name),
            &|name: &Identifier| format!("property {class_name}.{}", name.name),
        );
        for declared in &class.properties {
            let slot = all.iter().position(|p| p.name == declared.name.name);
            let inherited = slot.and_then(|at| all.get(at)).filter(|p| p.propagated);
            let property = self.property(class, declared, inherited, base);
            match slot.and_then(|at| all.get_mut(at)) {
                Some(old) if old.propagated => *old = property,
                Some(_) => {} // a duplicate, reported
                None => all.push(property),
            }
        }
        all
    }

    fn property(
        &mut self,
        class: &ClassDeclaration,
        declared: &PropertyDeclaration,
        inherited: Option<&Property>,
        base: &Base,
    ) -> Property {
        let what = || format!("{}.{}", class.name.name, declared.name.name);
        let scope = match declared.ty {
            Type::Reference(_) => Scope::Reference,
            _ => Scope::Property,
        };
        let element = Element {
            scopes: &[scope],
            name: &|| format!("{} {}", scope.keyword(), what()),
        };
        let qualifiers = self.types.apply(
            &declared.qualifiers,
            inherited.map(|p| &p.qualifiers),
            &element,
            self.errors,
        );
        self.reference(&declared.ty, &declared.ty_span, &what);
        self.embedded(&declared.qualifiers, &declared.ty, &what);
        self.value_map(&declared.qualifiers, &qualifiers, &declared.ty, &what);
        self.property_override(declared, inherited, base, &what);
        let key = qualifiers.is("Key");
        if key {
            self.key(declared, inherited, base, &what);
        }
        Property {
            name: inherited.map_or_else(|| declared.name.name.clone(), |p| p.name.clone()),
            ty: declared.ty.clone(),
            array: declared.array,
            key,
            default: self.default_value(declared, inherited, &what),
            origin: inherited.map_or_else(|| class.name.name.clone(), |p| p.origin.clone()),
            propagated: false,
            qualifiers,
        }
    }

    fn default_value(
        &mut self,
        declared: &PropertyDeclaration,
        inherited: Option<&Property>,
        what: &dyn Fn() -> String,
    ) -> Value {
        let Some(given) = &declared.default else {
            return inherited
                .filter(|p| p.default.fits(&declared.ty, declared.array))
                .map_or(Value::Null, |p| p.default.clone());
        };
        convert::value(&given.value, &declared.ty, declared.array).unwrap_or_else(|expected| {
            self.errors.push(Diagnostic::error(
                Rule::Default,
                &given.span,
                format!("the default of {} does not fit its type", what()),
                expected,
            ));
            Value::Null
        })
    }

    /// Redeclared means overridden, and an override keeps the type.
    fn property_override(
        &mut self,
        declared: &PropertyDeclaration,
        inherited: Option<&Property>,
        base: &Base,
        what: &dyn Fn() -> String,
    ) {
        self.override_qualifier(
            &declared.qualifiers,
            &declared.name,
            inherited.map(|p| &p.origin),
            base,
            what,
        );
        let Some(inherited) = inherited else { return };
        let old = if inherited.array { "[]" } else { "" };
        match (&declared.ty, &inherited.ty) {
            (Type::Reference(new_class), Type::Reference(old_class)) => {
                if !self.declarations.derives(new_class, old_class) {
                    self.errors.push(Diagnostic::warning(
                        Rule::ReferenceNotCovariant,
                        &declared.ty_span,
                        format!(
                            "{} refers to {new_class}; the overridden one refers to {old_class}",
                            what()
                        ),
                        format!("expected {old_class} or a class derived from it"),
                    ));
                }
            }
            (new, same) if new == same && declared.array == inherited.array => {}
            _ => self.errors.push(Diagnostic::error(
                Rule::OverrideType,
                &declared.ty_span,
                format!("{} overrides a property of another type", what()),
                format!("expected {}{old} as in {}", inherited.ty, inherited.origin),
            )),
        }
    }

    /// Keys are settled once, in the class that first has some, and no array is one.
    fn key(
        &mut self,
        declared: &PropertyDeclaration,
        inherited: Option<&Property>,
        base: &Base,
        what: &dyn Fn() -> String,
    ) {
        if declared.array {
            self.errors.push(Diagnostic::error(
                Rule::Key,
                &declared.name.span,
                format!("key {} is an array", what()),
                "expected a scalar as key",
            ));
        }
        if inherited.is_some_and(|p| p.key) {
            return;
        }
        if let Some(base) = base.class()
            && let Some(key) = base.keys().next()
        {
            self.errors.push(Diagnostic::error(
                Rule::Key,
                &declared.name.span,
                format!(
                    "{} is a new key below {}, which has keys",
                    what(),
                    base.name
                ),
                format!("expected no new key beside {}.{}", key.origin, key.name),
            ));
        }
    }
}
