//! The declarations of one namespace: which classes there are, who derives from whom, in which order they are built.

use std::collections::{BTreeMap, BTreeSet};

use crate::cim::name::Name;
use crate::cim::value::Type;

use super::diagnostic::{Diagnostic, Rule};
use super::syntax::{ClassDeclaration, Constant, Literal, QualifierUse};

/// Deeper inheritance is refused; real schemas stay below 15.
const DEPTH_MAX: usize = 128;

/// The classes declared in a namespace, and those it takes from the library.
#[derive(Default)]
pub(super) struct Declarations<'a> {
    by_name: BTreeMap<Name, &'a ClassDeclaration>,
    in_order: Vec<&'a ClassDeclaration>,
}

impl<'a> Declarations<'a> {
    /// Adds a class. The first declaration of a name wins.
    pub(super) fn add(&mut self, class: &'a ClassDeclaration, errors: &mut Vec<Diagnostic>) {
        let name = &class.name.name;
        if let Some(first) = self.by_name.get(name) {
            errors.push(
                Diagnostic::error(
                    Rule::Duplicate,
                    &class.name.span,
                    format!("class {name} is declared twice"),
                    "expected one declaration",
                )
                .also(&first.name.span, "first declared here"),
            );
            return;
        }
        self.insert(class);
    }

    fn insert(&mut self, class: &'a ClassDeclaration) {
        self.by_name.insert(class.name.name.clone(), class);
        self.in_order.push(class);
    }

    /// Takes from the library every class that is named here and not declared here, and those that these name.
    pub(super) fn complete(&mut self, library: &Self) {
        let mut next = 0;
        while let Some(class) = self.in_order.get(next).copied() {
            for name in named_by(class) {
                if !self.by_name.contains_key(&name)
                    && let Some(found) = library.by_name.get(&name)
                {
                    self.insert(found);
                }
            }
            next += 1;
        }
    }

    /// Is there such a class?
    pub(super) fn has(&self, name: &Name) -> bool {
        self.by_name.contains_key(name)
    }

    /// Is `class` that `ancestor`, or derived from it?
    pub(super) fn derives(&self, class: &Name, ancestor: &Name) -> bool {
        let mut here = Some(class);
        for _ in 0..DEPTH_MAX {
            match here {
                None => return false,
                Some(name) if name == ancestor => return true,
                Some(name) => {
                    here = self
                        .by_name
                        .get(name)
                        .and_then(|c| c.superclass.as_ref())
                        .map(|s| &s.name);
                }
            }
        }
        false
    }

    /// Every class after its superclass. One with a cycle above it comes too, at some place; one that stands too deep
    /// does not, nor do those below it.
    pub(super) fn build_order(&self, errors: &mut Vec<Diagnostic>) -> Vec<&'a ClassDeclaration> {
        let mut depths: BTreeMap<&Name, usize> = BTreeMap::new();
        let mut order = Vec::with_capacity(self.in_order.len());
        for class in &self.in_order {
            let mut above: Vec<&'a ClassDeclaration> = Vec::new();
            let mut on_the_way: BTreeSet<&Name> = BTreeSet::new();
            let mut here = Some(*class);
            let mut depth = 0;
            while let Some(class) = here {
                if let Some(known) = depths.get(&class.name.name) {
                    depth = *known;
                    break;
                }
                if !on_the_way.insert(&class.name.name) {
                    errors.push(cycle(&above, class));
                    break;
                }
                above.push(class);
                here = class
                    .superclass
                    .as_ref()
                    .and_then(|s| self.by_name.get(&s.name).copied());
            }
            for class in above.into_iter().rev() {
                depth += 1;
                depths.insert(&class.name.name, depth);
                if depth == DEPTH_MAX + 1 {
                    errors.push(too_deep(class));
                }
                if depth <= DEPTH_MAX {
                    order.push(class);
                }
            }
        }
        order
    }
}

fn too_deep(class: &ClassDeclaration) -> Diagnostic {
    Diagnostic::error(
        Rule::InheritanceDepth,
        &class.name.span,
        format!("{} has too many classes above it", class.name.name),
        format!("expected at most {DEPTH_MAX} levels"),
    )
}

fn cycle(path: &[&ClassDeclaration], back_to: &ClassDeclaration) -> Diagnostic {
    let mut names: Vec<&str> = path
        .iter()
        .skip_while(|c| c.name.name != back_to.name.name)
        .map(|c| c.name.name.as_str())
        .collect();
    names.push(back_to.name.name.as_str());
    let at = back_to.superclass.as_ref().unwrap_or(&back_to.name);
    Diagnostic::error(
        Rule::InheritanceCycle,
        &at.span,
        format!("{} is its own ancestor", back_to.name.name),
        format!("the way round: {}", names.join(" : ")),
    )
}

/// Superclass, referred classes, embedded classes.
fn named_by(class: &ClassDeclaration) -> Vec<Name> {
    let mut names: Vec<Name> = class.superclass.iter().map(|s| s.name.clone()).collect();
    let mut take = |ty: Option<&Type>, qualifiers: &[QualifierUse]| {
        if let Some(Type::Reference(name)) = ty {
            names.push(name.clone());
        }
        names.extend(qualifiers.iter().filter_map(embedded_class));
    };
    for property in &class.properties {
        take(Some(&property.ty), &property.qualifiers);
    }
    for method in &class.methods {
        take(None, &method.qualifiers);
        for parameter in &method.parameters {
            take(Some(&parameter.ty), &parameter.qualifiers);
        }
    }
    names
}

/// The class that an `EmbeddedInstance` or `HyperVEmbeddedInstance` qualifier names.
pub(super) fn embedded_class(qualifier: &QualifierUse) -> Option<Name> {
    let name = &qualifier.name.name;
    if *name != *"EmbeddedInstance" && *name != *"HyperVEmbeddedInstance" {
        return None;
    }
    match &qualifier.value.as_ref()?.value {
        Constant::Scalar(Literal::String(class)) => Some(Name::from(class.as_str())),
        _ => None,
    }
}
