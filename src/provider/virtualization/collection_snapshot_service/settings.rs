//! Settings that come as text inside a parameter.

use std::borrow::Cow;

use crate::cim::schema::VIRTUALIZATION_V2;
use crate::cim::{Instance, Value, cimxml};
use crate::provider::Context;
use crate::text::Text;
use crate::text::catalog::provider as texts;

/// The settings object of that class; `None` for absent, null or empty text, which mean the defaults.
///
/// # Errors
/// In words what is wrong with the text.
pub(super) fn read<'a>(
    ctx: &Context,
    settings: &'a Value,
    class: &str,
) -> Result<Option<Cow<'a, Instance>>, Text> {
    let instance = match settings {
        Value::Null => return Ok(None),
        Value::String(text) if text.trim().is_empty() => return Ok(None),
        Value::String(text) => {
            let parsed = cimxml::parse_instance(&ctx.schema, VIRTUALIZATION_V2, text);
            Cow::Owned(parsed.map_err(|e| texts::SETTINGS_UNREADABLE.with("reason", e))?)
        }
        Value::Instance(instance) => Cow::Borrowed(&**instance),
        _ => return Err(texts::SETTINGS_UNREADABLE.with("reason", "no text")),
    };
    if !instance.class().is_a(class) {
        return Err(texts::SETTINGS_OF_ANOTHER_CLASS
            .with("class", &instance.class().name)
            .with("expected", class));
    }
    Ok(Some(instance))
}
