//! Writing `<INSTANCE>` text.
//!
//! NAME is the first attribute of each property element: Microsoft's error reader takes the first attribute
//! for the name. A property without value has no VALUE.

use super::super::class::Property;
use super::super::instance::Instance;
use super::super::value::{Type, Value};
use super::reference;
use crate::xml::Writer;

/// The text of an instance, all properties in declared order. Embedded instances go as escaped text, marked
/// by `EmbeddedObject`.
#[must_use]
pub fn write_instance(instance: &Instance) -> String {
    let mut out = Writer::with_capacity(1024);
    let class = instance.class().name.as_str();
    out.open("", "INSTANCE", &[("CLASSNAME", class)]);
    for (property, value) in instance.values() {
        write_property(&mut out, property, value);
    }
    out.close("", "INSTANCE");
    out.into_string()
}

fn write_property(out: &mut Writer, property: &Property, value: &Value) {
    let name = ("NAME", property.name.as_str());
    let (element, array_element, second) = match (&property.ty, property.array) {
        (Type::Reference(class), false) => {
            let class = ("REFERENCECLASS", class.as_str());
            ("PROPERTY.REFERENCE", "", class)
        }
        (Type::Reference(class), true) => {
            let class = ("REFERENCECLASS", class.as_str());
            ("PROPERTY.REFARRAY", "VALUE.REFARRAY", class)
        }
        (ty, false) => ("PROPERTY", "", ("TYPE", ty.keyword())),
        (ty, true) => ("PROPERTY.ARRAY", "VALUE.ARRAY", ("TYPE", ty.keyword())),
    };
    let mut attributes = vec![name, second];
    let first = value.as_array().map_or(Some(value), |items| items.first());
    if matches!(first, Some(Value::Instance(_))) {
        attributes.push(("EmbeddedObject", "instance"));
    }
    match value {
        Value::Null => out.empty("", element, &attributes),
        Value::Array(items) => {
            out.open("", element, &attributes);
            out.open("", array_element, &[]);
            items.iter().for_each(|item| write_value(out, item));
            out.close("", array_element);
            out.close("", element);
        }
        one => {
            out.open("", element, &attributes);
            write_value(out, one);
            out.close("", element);
        }
    }
}

fn write_value(out: &mut Writer, value: &Value) {
    match value {
        Value::Reference(path) => reference::write(out, path),
        Value::Instance(inner) => out.element("", "VALUE", &[], &write_instance(inner)),
        Value::Boolean(b) => out.element("", "VALUE", &[], if *b { "TRUE" } else { "FALSE" }),
        other => out.element("", "VALUE", &[], &other.lexical().unwrap_or_default()),
    }
}
