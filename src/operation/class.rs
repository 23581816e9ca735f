//! Class declarations over WS-Management (rules C-1 to C-5, C-9): one by name, or many.

use std::sync::Arc;

use crate::cim::cimxml::{self, Detail};
use crate::cim::{Class, Schema};
use crate::soap::Vocabulary;
use crate::wsman::fault::Fault;
use crate::wsman::request::{ClassList, ClassOptions};
use crate::xml::Writer;

use super::exchange::Exchange;

/// Answers with the declaration; without its descriptions if it would be too large for the client.
pub(super) fn get(exchange: &Exchange<'_>, class: &Class) -> Result<String, Fault> {
    let answer = |descriptions| {
        let mut reply = exchange.reply(Vocabulary::Transfer);
        let detail = detail(exchange.headers.class_options, descriptions);
        cimxml::write_class(reply.body(), class, detail);
        exchange.finish(reply)
    };
    answer(true).or_else(|_| answer(false))
}

/// The classes of a list, by name.
pub(super) fn list(schema: &Schema, list: &ClassList, options: ClassOptions) -> Vec<Arc<Class>> {
    let deep = options.subclasses.unwrap_or(list.below.is_none());
    let above = list.below.as_ref().map(|c| c.name.as_str());
    let belongs = |class: &&Arc<Class>| match (above, &class.superclass) {
        (None, superclass) => deep || superclass.is_none(),
        (Some(above), Some(superclass)) if deep => superclass.is_a(above),
        (Some(above), Some(superclass)) => superclass.name == *above,
        (Some(_), None) => false,
    };
    schema
        .classes(&list.namespace)
        .filter(belongs)
        .cloned()
        .collect()
}

/// Writes a class as an item of an enumeration.
pub(super) fn item(w: &mut Writer, class: &Class, options: ClassOptions, descriptions: bool) {
    if options.names_only {
        cimxml::write_class_name(w, class);
    } else {
        cimxml::write_class(w, class, detail(options, descriptions));
    }
}

fn detail(options: ClassOptions, descriptions: bool) -> Detail {
    Detail {
        qualifiers: options.qualifiers,
        class_origin: options.class_origin,
        inherited: options.inherited,
        hierarchy: options.hierarchy,
        descriptions,
    }
}
