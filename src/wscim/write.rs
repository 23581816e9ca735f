//! Values, instances and method results as XML (rules I-10 to I-18).

use crate::cim::class::{Property, Qualifiers};
use crate::cim::query::Column;
use crate::cim::{Class, Instance, Method, Type, Value, cimxml};
use crate::soap::ns;
use crate::xml::Writer;

use super::{Style, epr};

/// Writes an instance as an element of its class: every property in the order of its name, also null ones.
/// With `cast` it is written as an instance of that superclass, with the properties of it only (rule E-31).
pub fn instance(w: &mut Writer, instance: &Instance, cast: Option<&Class>, style: Style) {
    let class = cast.unwrap_or_else(|| instance.class());
    let name = class.name.as_str();
    let uri = style.family.class_uri(&class.namespace, name);
    let ty = format!("p:{name}_Type");
    w.open(
        "p",
        name,
        &[
            ("xmlns:p", &uri),
            ("xmlns:xsi", ns::XSI),
            ("xmlns:cim", ns::COMMON),
            ("xsi:type", &ty),
        ],
    );
    properties(w, "p", instance, cast, style);
    w.close("p", name);
}

/// Writes only the named properties of an instance, in `w:XmlFragment`, in the order of their names; one that the
/// class does not have is left out (R8.2.1-10). The prefix `w` is that of the envelope.
pub fn fragment(w: &mut Writer, instance: &Instance, names: &[String], style: Style) {
    let class = instance.class();
    let uri = style
        .family
        .class_uri(&class.namespace, class.name.as_str());
    let attributes = [
        ("xmlns:p", &*uri),
        ("xmlns:xsi", ns::XSI),
        ("xmlns:cim", ns::COMMON),
    ];
    w.open("w", "XmlFragment", &attributes);
    for (property, value) in instance.by_name() {
        if names.iter().any(|name| property.name == **name) {
            Out::of(property, "p").write(w, value, style);
        }
    }
    w.close("w", "XmlFragment");
}

fn properties(
    w: &mut Writer,
    prefix: &str,
    instance: &Instance,
    cast: Option<&Class>,
    style: Style,
) {
    for (property, value) in instance.by_name() {
        if cast.is_some_and(|class| class.index(property.name.as_str()).is_none()) {
            continue;
        }
        Out::of(property, prefix).write(w, value, style);
    }
}

/// Writes the columns of a query as Windows does: an element each, in no namespace, by name (rule E-43).
pub fn columns(w: &mut Writer, columns: &[Column], instance: &Instance, style: Style) {
    w.open("w", "XmlFragment", &[("xmlns:xsi", ns::XSI)]);
    for column in columns {
        let element = Out {
            prefix: "",
            name: column.name.as_str(),
            ty: &column.ty,
            array: column.array,
            qualifiers: None,
        };
        element.write(w, &column.value(instance), style);
    }
    w.close("w", "XmlFragment");
}

/// Writes `<Method>_OUTPUT`: output parameters in declared order, then ReturnValue (rules I-10 to I-15).
/// `resource_uri` is that of the request, as it came. Parameters that `outputs` does not name are null.
pub fn output(
    w: &mut Writer,
    resource_uri: &str,
    method: &Method,
    outputs: &[(&str, Value)],
    return_value: &Value,
    style: Style,
) {
    let name = format!("{}_OUTPUT", method.name);
    w.open(
        "p",
        &name,
        &[
            ("xmlns:p", resource_uri),
            ("xmlns:xsi", ns::XSI),
            ("xmlns:cim", ns::COMMON),
        ],
    );
    for parameter in method.parameters.iter().filter(|p| p.output) {
        let value = outputs.iter().find(|(n, _)| parameter.name == *n);
        let element = Out {
            prefix: "p",
            name: parameter.name.as_str(),
            ty: &parameter.ty,
            array: parameter.array,
            qualifiers: Some(&parameter.qualifiers),
        };
        element.write(w, value.map_or(&Value::Null, |(_, v)| v), style);
    }
    let element = Out {
        prefix: "p",
        name: "ReturnValue",
        ty: &method.returns,
        array: false,
        qualifiers: None,
    };
    element.write(w, return_value, style);
    w.close("p", &name);
}

/// An element that carries a property or parameter.
struct Out<'a> {
    prefix: &'a str,
    name: &'a str,
    ty: &'a Type,
    array: bool,
    qualifiers: Option<&'a Qualifiers>,
}

impl<'a> Out<'a> {
    fn of(property: &'a Property, prefix: &'a str) -> Self {
        Self {
            prefix,
            name: property.name.as_str(),
            ty: &property.ty,
            array: property.array,
            qualifiers: Some(&property.qualifiers),
        }
    }

    fn write(&self, w: &mut Writer, value: &Value, style: Style) {
        match value {
            Value::Null if self.array && style.precise_arrays => w.empty(
                self.prefix,
                self.name,
                &[
                    ("xmlns:m", ns::MICROSOFT),
                    ("xsi:nil", "true"),
                    ("m:IsNullArray", "true"),
                ],
            ),
            Value::Null => w.empty_with(self.prefix, self.name, r#" xsi:nil="true""#),
            Value::Array(values) => values.iter().for_each(|v| self.scalar(w, v, style)),
            scalar => self.scalar(w, scalar, style),
        }
    }

    fn scalar(&self, w: &mut Writer, value: &Value, style: Style) {
        let ty = [("xsi:type", type_name(self.ty))];
        // The prefix of the types is declared where the properties have one.
        let show_types = style.show_types && !self.prefix.is_empty();
        let attributes: &[_] = if show_types { &ty } else { &[] };
        match value {
            Value::String(text) => return w.element(self.prefix, self.name, attributes, text),
            Value::Instance(embedded) if self.is_embedded_as_markup() => {
                return self.embedded(w, embedded, style);
            }
            _ => {}
        }
        w.open(self.prefix, self.name, attributes);
        match value {
            Value::Uint8(n) => w.number(*n),
            Value::Uint16(n) => w.number(*n),
            Value::Uint32(n) => w.number(*n),
            Value::Uint64(n) => w.number(*n),
            Value::DateTime(moment) => {
                let (name, text) = moment.to_xml();
                let prefix = if self.prefix.is_empty() { "" } else { "cim" };
                w.element(prefix, name, &[], &text);
            }
            Value::Reference(path) => epr::write(w, path, style.family),
            Value::Instance(embedded) => w.text(&cimxml::write_instance(embedded)),
            other => w.text(&other.lexical().unwrap_or_default()),
        }
        w.close(self.prefix, self.name);
    }

    /// As markup, not as text?
    fn is_embedded_as_markup(&self) -> bool {
        self.qualifiers.is_some_and(|q| q.is("EmbeddedObject"))
    }

    /// The properties of an embedded instance directly inside of the element.
    fn embedded(&self, w: &mut Writer, embedded: &Instance, style: Style) {
        let class = embedded.class();
        let uri = style
            .family
            .class_uri(&class.namespace, class.name.as_str());
        let ty = format!("q:{}_Type", class.name);
        let attributes = [("xmlns:q", &*uri), ("xsi:type", &*ty)];
        w.open(self.prefix, self.name, &attributes);
        properties(w, "q", embedded, None, style);
        w.close(self.prefix, self.name);
    }
}

/// The WS-CIM name of a type, with the prefix `cim` (DSP0230 7.2, table of section 6.3).
fn type_name(ty: &Type) -> &'static str {
    match ty {
        Type::Boolean => "cim:cimBoolean",
        Type::Uint8 => "cim:cimUnsignedByte",
        Type::Uint16 => "cim:cimUnsignedShort",
        Type::Uint32 => "cim:cimUnsignedInt",
        Type::Uint64 => "cim:cimUnsignedLong",
        Type::Sint8 => "cim:cimByte",
        Type::Sint16 => "cim:cimShort",
        Type::Sint32 => "cim:cimInt",
        Type::Sint64 => "cim:cimLong",
        Type::Real32 => "cim:cimFloat",
        Type::Real64 => "cim:cimDouble",
        Type::Char16 => "cim:cimChar16",
        Type::String => "cim:cimString",
        Type::DateTime => "cim:cimDateTime",
        Type::Reference(_) => "cim:cimReference",
    }
}
