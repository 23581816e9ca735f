//! The selector filter of DSP0226 (annex E): properties of one class with given values, keys or not.

use std::sync::Arc;

use super::check::{Checker, comparand};
use super::filter::{Condition, Filter};
use super::syntax::Literal;
use super::{Error, Scope, Select};
use crate::cim::{Class, Status, Type};
use crate::text::Text;
use crate::text::catalog::query as texts;

/// The instances of `class` that have every one of these values. Strings are compared without case, as in the
/// selectors of a request.
///
/// # Errors
/// [`Error`]: a name is no property, a property is an array, a datetime or a reference, a value is none of its
/// type or holds a quotation mark.
pub fn select(
    class: &Arc<Class>,
    selectors: &[(&str, &str)],
    scope: &Scope<'_>,
) -> Result<Select, Error> {
    if selectors.is_empty() {
        return Err(error(texts::SELECTOR_EMPTY.text()));
    }
    let checker = Checker {
        scope,
        class,
        alias: None,
        element: None,
        fold: true,
    };
    let parts: Result<Vec<_>, _> = selectors
        .iter()
        .map(|(name, value)| equality(&checker, name, value))
        .collect();
    Ok(Select {
        class: class.clone(),
        columns: None,
        filter: Filter::new(Some(Condition::All(parts?)), true, class),
    })
}

fn equality(checker: &Checker<'_>, name: &str, value: &str) -> Result<Condition, Error> {
    let named = |message: crate::text::Message| message.with("selector", name);
    let property = Some(name).filter(|n| !n.starts_with("__"));
    let Some(typed) = property.and_then(|n| checker.named(n)) else {
        let text = named(texts::SELECTOR_PROPERTY).with("class", &checker.class.name);
        return Err(error(text));
    };
    if typed.is_array() || matches!(typed.ty(), Type::DateTime | Type::Reference(_)) {
        let array = if typed.is_array() { "[]" } else { "" };
        let ty = format!("{}{array}", typed.ty());
        return Err(error(named(texts::SELECTOR_TYPE).with("type", ty)));
    }
    if value.contains(['"', '\'']) {
        return Err(error(named(texts::SELECTOR_QUOTE)));
    }
    match comparand(typed.ty(), &Literal::Text(value.to_owned()), true) {
        Some(with) => Ok(typed.equals(with)),
        None => {
            let text = named(texts::SELECTOR_VALUE).with("expected", typed.ty());
            Err(error(text.with("got", format!("'{value}'"))))
        }
    }
}

fn error(text: Text) -> Error {
    Error {
        status: Status::InvalidQuery,
        text,
    }
}
