//! Methods of a class with their parameters, and the rule of `Override` that they share with properties.

use crate::cim::class::{Method, Parameter};
use crate::cim::mof::diagnostic::{Diagnostic, Rule};
use crate::cim::mof::qualifier::{Element, inherit};
use crate::cim::mof::syntax::{
    ClassDeclaration, Constant, Identifier, Literal, MethodDeclaration, ParameterDeclaration,
    QualifierUse, Scope,
};
use crate::cim::name::Name;

use super::{Base, Builder};

impl Builder<'_> {
    /// Inherited ones first, an overriding one in its place, then the new ones.
    pub(super) fn methods(&mut self, class: &ClassDeclaration, base: &Base) -> Vec<Method> {
        let mut all: Vec<Method> = base.class().map_or_else(Vec::new, |b| {
            b.methods
                .iter()
                .map(|m| Method {
                    propagated: true,
                    qualifiers: inherit(&m.qualifiers),
                    ..Method::clone(m)
                })
                .collect()
        });
        let class_name = &class.name.name;
        self.unique(
            class.methods.iter().map(|m| &m.name),
            &|name: &Identifier| format!("method {class_name}.{}", name.name),
        );
        for declared in &class.methods {
            let slot = all.iter().position(|m| m.name == declared.name.name);
            let inherited = slot.and_then(|at| all.get(at)).filter(|m| m.propagated);
            let method = self.method(class, declared, inherited, base);
            match slot.and_then(|at| all.get_mut(at)) {
                Some(old) if old.propagated => *old = method,
                Some(_) => {} // a duplicate, reported
                None => all.push(method),
            }
        }
        all
    }

    fn method(
        &mut self,
        class: &ClassDeclaration,
        declared: &MethodDeclaration,
        inherited: Option<&Method>,
        base: &Base,
    ) -> Method {
        let what = || format!("{}.{}", class.name.name, declared.name.name);
        let element = Element {
            scopes: &[Scope::Method],
            name: &|| format!("method {}", what()),
        };
        let qualifiers = self.types.apply(
            &declared.qualifiers,
            inherited.map(|m| &m.qualifiers),
            &element,
            self.errors,
        );
        self.reference(&declared.returns, &declared.returns_span, &what);
        self.embedded(&declared.qualifiers, &declared.returns, &what);
        self.value_map(&declared.qualifiers, &qualifiers, &declared.returns, &what);
        self.override_qualifier(
            &declared.qualifiers,
            &declared.name,
            inherited.map(|m| &m.origin),
            base,
            &what,
        );
        self.unique(
            declared.parameters.iter().map(|p| &p.name),
            &|name: &Identifier| format!("parameter {} of {}", name.name, what()),
        );
        let parameters = declared
            .parameters
            .iter()
            .map(|p| self.parameter(p, inherited, &what))
            .collect();
        if let Some(inherited) = inherited {
            self.signature(declared, inherited, &what);
        }
        Method {
            name: inherited.map_or_else(|| declared.name.name.clone(), |m| m.name.clone()),
            returns: declared.returns.clone(),
            parameters,
            origin: inherited.map_or_else(|| class.name.name.clone(), |m| m.origin.clone()),
            propagated: false,
            is_static: qualifiers.is("Static"),
            qualifiers,
        }
    }

    fn parameter(
        &mut self,
        declared: &ParameterDeclaration,
        overridden: Option<&Method>,
        method: &dyn Fn() -> String,
    ) -> Parameter {
        let what = || format!("parameter {} of {}", declared.name.name, method());
        let element = Element {
            scopes: &[Scope::Parameter],
            name: &what,
        };
        let inherited = overridden.and_then(|m| m.parameter(declared.name.name.as_str()));
        let qualifiers = self.types.apply(
            &declared.qualifiers,
            inherited.map(|p| &p.qualifiers),
            &element,
            self.errors,
        );
        self.reference(&declared.ty, &declared.ty_span, &what);
        self.embedded(&declared.qualifiers, &declared.ty, &what);
        self.value_map(&declared.qualifiers, &qualifiers, &declared.ty, &what);
        // [DSP0004] gives In the default true: a parameter is input unless it is only output.
        let output = qualifiers.is("Out");
        let says_in = qualifiers.get("In").is_some();
        Parameter {
            name: declared.name.name.clone(),
            ty: declared.ty.clone(),
            array: declared.array,
            input: if says_in {
                qualifiers.is("In")
            } else {
                !output
            },
            output,
            qualifiers,
        }
    }

    /// An overriding method keeps the return type and the parameters.
    fn signature(
        &mut self,
        declared: &MethodDeclaration,
        inherited: &Method,
        what: &dyn Fn() -> String,
    ) {
        if declared.returns != inherited.returns {
            self.errors.push(Diagnostic::error(
                Rule::OverrideType,
                &declared.returns_span,
                format!("{} overrides a method that returns another type", what()),
                format!("expected {} as in {}", inherited.returns, inherited.origin),
            ));
        }
        for parameter in &declared.parameters {
            let Some(old) = inherited.parameter(parameter.name.name.as_str()) else {
                continue;
            };
            if parameter.ty != old.ty || parameter.array != old.array {
                let brackets = if old.array { "[]" } else { "" };
                self.errors.push(Diagnostic::error(
                    Rule::OverrideType,
                    &parameter.ty_span,
                    format!(
                        "parameter {} of {} has another type than in the overridden method",
                        old.name,
                        what()
                    ),
                    format!("expected {}{brackets} as in {}", old.ty, inherited.origin),
                ));
            }
        }
        let names = |parameters: &mut dyn Iterator<Item = &Name>| {
            parameters
                .map(Name::to_string)
                .collect::<Vec<_>>()
                .join(", ")
        };
        let same = declared.parameters.len() == inherited.parameters.len()
            && declared
                .parameters
                .iter()
                .zip(&inherited.parameters)
                .all(|(new, old)| new.name.name == old.name);
        if !same {
            let old = names(&mut inherited.parameters.iter().map(|p| &p.name));
            self.errors.push(Diagnostic::warning(
                Rule::OverrideSignature,
                &declared.name.span,
                format!(
                    "{} has other parameters than the method it overrides",
                    what()
                ),
                format!("expected ({old}) as in {}", inherited.origin),
            ));
        }
    }

    /// What is declared again must say `Override`, and `Override` must find something.
    pub(super) fn override_qualifier(
        &mut self,
        written: &[QualifierUse],
        name: &Identifier,
        inherited_from: Option<&Name>,
        base: &Base,
        what: &dyn Fn() -> String,
    ) {
        let qualifier = written.iter().find(|q| q.name.name == *"Override");
        match (qualifier, inherited_from, base) {
            (None, Some(origin), _) => self.errors.push(Diagnostic::error(
                Rule::Override,
                &name.span,
                format!("{} is inherited from {origin} and declared again", what()),
                format!("expected the qualifier Override (\"{}\")", name.name),
            )),
            (Some(q), None, Base::None | Base::Class(_)) => self.errors.push(Diagnostic::error(
                Rule::Override,
                &q.name.span,
                format!("{} overrides nothing", what()),
                "expected an inherited element of that name",
            )),
            (Some(q), Some(_), _) => {
                let given = match q.value.as_ref().map(|v| &v.value) {
                    Some(Constant::Scalar(Literal::String(text))) => text.as_str(),
                    _ => name.name.as_str(),
                };
                if name.name != *given {
                    self.errors.push(Diagnostic::error(
                        Rule::Override,
                        &q.name.span,
                        format!("{} overrides {given}", what()),
                        format!("expected Override (\"{}\")", name.name),
                    ));
                }
            }
            _ => {}
        }
    }
}
