//! Classes out of declarations: flattened, overridden, checked.

mod feature;
mod method;
mod property;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cim::class::{Class, Qualifiers};
use crate::cim::mof::diagnostic::{Diagnostic, Rule};
use crate::cim::mof::namespace::Declarations;
use crate::cim::mof::qualifier::{Element, QualifierTypes};
use crate::cim::mof::syntax::{ClassDeclaration, Scope};
use crate::cim::name::Name;

/// Builds the classes of one namespace. A class whose superclass is missing is checked for itself and left out.
pub(in crate::cim::mof) fn build(
    namespace: &Arc<str>,
    types: &QualifierTypes<'_>,
    declarations: &Declarations<'_>,
    errors: &mut Vec<Diagnostic>,
) -> Vec<Arc<Class>> {
    let order = declarations.build_order(errors);
    let mut builder = Builder {
        namespace,
        types,
        declarations,
        built: BTreeMap::new(),
        errors,
    };
    let mut classes = Vec::with_capacity(order.len());
    for declared in order {
        if let Some(class) = builder.class(declared) {
            builder.built.insert(class.name.clone(), class.clone());
            classes.push(class);
        }
    }
    classes
}

struct Builder<'a> {
    namespace: &'a Arc<str>,
    types: &'a QualifierTypes<'a>,
    declarations: &'a Declarations<'a>,
    built: BTreeMap<Name, Arc<Class>>,
    errors: &'a mut Vec<Diagnostic>,
}

/// What stands above a class.
enum Base {
    /// It is a root.
    None,
    Class(Arc<Class>),
    /// A superclass that is unknown or could not be built; what depends on it is not judged.
    Missing,
}

impl Base {
    fn class(&self) -> Option<&Arc<Class>> {
        match self {
            Self::Class(class) => Some(class),
            _ => None,
        }
    }
}

impl Builder<'_> {
    fn class(&mut self, declared: &ClassDeclaration) -> Option<Arc<Class>> {
        let base = self.base(declared);
        let qualifiers = self.class_qualifiers(declared, base.class());
        let properties = self.properties(declared, &base);
        let methods = self.methods(declared, &base);
        let superclass = match base {
            Base::Missing => return None,
            Base::Class(class) => Some(class),
            Base::None => None,
        };
        let class = Class::new(
            declared.name.name.clone(),
            self.namespace.clone(),
            superclass,
            properties,
            methods,
            qualifiers,
        );
        self.association(declared, &class);
        Some(Arc::new(class))
    }

    fn base(&mut self, declared: &ClassDeclaration) -> Base {
        let Some(superclass) = &declared.superclass else {
            return Base::None;
        };
        if let Some(class) = self.built.get(&superclass.name) {
            return Base::Class(class.clone());
        }
        if !self.declarations.has(&superclass.name) {
            self.errors.push(Diagnostic::error(
                Rule::UnknownSuperclass,
                &superclass.span,
                format!(
                    "{} derives from {}, which is not declared",
                    declared.name.name, superclass.name
                ),
                "expected a declared class",
            ));
        }
        Base::Missing
    }

    fn class_qualifiers(
        &mut self,
        declared: &ClassDeclaration,
        base: Option<&Arc<Class>>,
    ) -> Qualifiers {
        let carries = |name: &str| {
            declared.qualifiers.iter().any(|q| q.name.name == *name)
                || base.is_some_and(|b| b.qualifiers.is(name))
        };
        let mut scopes = vec![Scope::Class];
        if carries("Association") {
            scopes.push(Scope::Association);
        }
        if carries("Indication") {
            scopes.push(Scope::Indication);
        }
        let element = Element {
            scopes: &scopes,
            name: &|| format!("class {}", declared.name.name),
        };
        let inherited = base.map(|b| &b.qualifiers);
        self.types
            .apply(&declared.qualifiers, inherited, &element, self.errors)
    }

    /// An association has at least two references, and is one from its root on; nothing else has references.
    fn association(&mut self, declared: &ClassDeclaration, class: &Class) {
        let name = &declared.name;
        let is_reference =
            |ty: &crate::cim::value::Type| matches!(ty, crate::cim::value::Type::Reference(_));
        let references = class
            .properties
            .iter()
            .filter(|p| is_reference(&p.ty))
            .count();
        if class.is_association() {
            if references < 2 {
                self.errors.push(Diagnostic::error(
                    Rule::Association,
                    &name.span,
                    format!(
                        "association {} has {references} of at least 2 references",
                        name.name
                    ),
                    "expected two references",
                ));
            }
            if let Some(base) = &class.superclass
                && !base.is_association()
            {
                self.errors.push(Diagnostic::error(
                    Rule::Association,
                    &name.span,
                    format!("association {} derives from {}", name.name, base.name),
                    "expected an association as superclass",
                ));
            }
        } else if !class.qualifiers.is("Indication") {
            for property in declared.properties.iter().filter(|p| is_reference(&p.ty)) {
                self.errors.push(Diagnostic::error(
                    Rule::ReferenceOutsideAssociation,
                    &property.ty_span,
                    format!(
                        "{}.{} is a reference, but the class is no association",
                        name.name, property.name.name
                    ),
                    "expected references in associations only",
                ));
            }
        }
    }
}
