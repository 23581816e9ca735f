//! Parameters of methods, read: references to things that exist, texts, numbers.

use crate::cim::{Path, Value};
use crate::provider::{Arguments, Context};
use crate::text::Text;
use crate::text::catalog::provider as texts;

use super::Deps;
use super::element::Element;

/// The existing element that the parameter refers to; the reason otherwise.
pub(super) fn element(
    deps: &Deps,
    ctx: &Context,
    arguments: &Arguments,
    parameter: &str,
    declared: &str,
) -> Result<Element, Text> {
    let Value::Reference(path) = arguments.get(parameter) else {
        return Err(texts::PARAMETER_NULL.with("parameter", parameter));
    };
    Element::resolve(&deps.view(), &ctx.schema, path, declared)
        .ok_or_else(|| no_such(parameter, declared, path))
}

fn no_such(parameter: &str, declared: &str, path: &Path) -> Text {
    texts::REFERENCE_TO_NOTHING
        .with("parameter", parameter)
        .with("class", declared)
        .with("path", path)
}
