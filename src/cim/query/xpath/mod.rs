//! XPath 1.0 as a filter of instances: the paths of level 1 (DSP0226 annex D), compared and joined.
//!
//! ```text
//!   text ──lexer──▶ tokens ──parser──▶ Expr ──check──▶ the same Condition that WQL and CQL end in
//! ```
//!
//! The filter is an expression over one item, the element that the instance would be written as, and lets through
//! the items for which it is true; a path is true if it leads to a node. No XML is made: an element below the
//! item is a property, an array so many elements, and a null property nothing but its attribute `xsi:nil`.
//!
//! Three things are as CIM has them and not as plain XML: names of classes and properties have no case, prefixes
//! mean nothing, a step that names a class means its subclasses too; a literal takes the type of the property, so
//! that numbers, datetimes and object paths are compared as such; and what no instance could satisfy, as a name
//! that does not exist, is refused. `docs/decisions/0016-what-an-xpath-filter-means.md` has the reasons.

mod check;
mod lexer;
mod parser;
mod syntax;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::check::Checker;
use super::filter::Filter;
use super::{Error, LENGTH_MAX, Place, Scope, Select};
use crate::cim::{Class, Schema, schema};
use crate::text::catalog::query as texts;

/// The instances for which the filter is true: of `class`, or where none is given of the class that the filter
/// begins with. Strings are compared with case.
///
/// # Errors
/// [`Error`], with the place in the text.
pub fn select(class: Option<&Arc<Class>>, text: &str, scope: &Scope<'_>) -> Result<Select, Error> {
    checked(class, &parser::parse(text)?, scope)
}

fn checked(
    class: Option<&Arc<Class>>,
    expr: &syntax::Expr,
    scope: &Scope<'_>,
) -> Result<Select, Error> {
    let start = Place { line: 1, column: 1 };
    let found = match class {
        Some(class) => class,
        None => {
            let first = check::leading(expr).ok_or_else(|| start.error(texts::XPATH_ROOT))?;
            scope.class(&first.local)?
        }
    };
    let checker = Checker {
        scope,
        class: found,
        alias: None,
        element: None,
        fold: false,
    };
    let condition = check::condition(&checker, expr, class.is_none())?;
    Ok(Select {
        class: found.clone(),
        columns: None,
        filter: Filter::new(Some(condition), false, found),
    })
}

/// Fuzz entry: what can be read is also read from its own text and is the same, and checking never fails
/// otherwise than by an error, nor carrying out by much time.
#[must_use]
pub fn fuzz(text: &str, schema: &Schema) -> bool {
    let Ok(expr) = parser::parse(text) else {
        return true;
    };
    let scope = Scope {
        schema,
        namespace: schema::VIRTUALIZATION_V2,
        host: "HOST",
    };
    let system = schema.class(scope.namespace, "Msvm_ComputerSystem");
    for class in [None, system] {
        if let Ok(select) = checked(class, &expr, &scope) {
            select.try_out();
        }
    }
    let written = expr.to_string();
    // The written form may be longer than what was read.
    written.len() > LENGTH_MAX
        || parser::parse(&written).is_ok_and(|again| again.to_string() == written)
}
