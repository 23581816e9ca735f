//! Settings that come as text inside a parameter.

use std::borrow::Cow;

use crate::cim::schema::VIRTUALIZATION_V2;
use crate::cim::{Instance, Value, cimxml};
use crate::provider::Context;
use crate::text::catalog::provider as texts;
use crate::text::{Argument, Text};

/// The settings object of that class in the parameter; `None` for absent, null or empty text, which mean the defaults.
///
/// # Errors
/// In words what is wrong with the text.
pub(super) fn read<'a>(
    ctx: &Context,
    (parameter, settings): (&str, &'a Value),
    class: &str,
) -> Result<Option<Cow<'a, Instance>>, Text> {
    let unreadable = |reason: Argument| {
        let text = texts::SETTINGS_UNREADABLE.with("parameter", parameter);
        text.with("reason", reason)
    };
    let instance = match settings {
        Value::Null => return Ok(None),
        Value::String(text) if text.trim().is_empty() => return Ok(None),
        Value::String(text) => {
            let parsed = cimxml::parse_instance(&ctx.schema, VIRTUALIZATION_V2, text);
            Cow::Owned(parsed.map_err(|e| unreadable(e.into()))?)
        }
        Value::Instance(instance) => Cow::Borrowed(&**instance),
        _ => return Err(unreadable(texts::NO_TEXT.text().into())),
    };
    if !instance.class().is_a(class) {
        return Err(texts::SETTINGS_OF_ANOTHER_CLASS
            .with("parameter", parameter)
            .with("class", &instance.class().name)
            .with("expected", class));
    }
    Ok(Some(instance))
}
