//! Writing `<CLASS>` (DSP0201 5.2, rules C-2 to C-4). The elements are in no namespace.

use super::super::class::{Class, Method, Parameter, Property, Qualifier, Qualifiers};
use super::super::value::{Type, Value};
use crate::xml::Writer;

/// How much of a declaration is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Detail {
    /// The qualifiers.
    pub qualifiers: bool,
    /// The class that introduced each property and method.
    pub class_origin: bool,
    /// What is inherited, too.
    pub inherited: bool,
    /// The names of all superclasses.
    pub hierarchy: bool,
    /// The qualifiers that only people read.
    pub descriptions: bool,
}

/// Qualifiers that only people read; left out where a declaration would be too large (rule C-9).
const DESCRIPTIONS: [&str; 2] = ["Description", "MappingStrings"];

/// Qualifiers that Windows writes in another case than their declaration; some clients compare with case.
const SPELLING: [(&str, &str); 8] = [
    ("Key", "key"),
    ("Read", "read"),
    ("Write", "write"),
    ("Static", "static"),
    ("Association", "association"),
    ("Indication", "indication"),
    ("Abstract", "abstract"),
    ("Dynamic", "dynamic"),
];

/// Writes the declaration of a class.
pub fn write_class(out: &mut Writer, class: &Class, detail: Detail) {
    let lineage: Vec<&str> = class.lineage().skip(1).map(|c| c.name.as_str()).collect();
    let derivation = lineage.join(",");
    let mut attributes = vec![("NAME", class.name.as_str())];
    if let Some(superclass) = lineage.first() {
        attributes.push(("SUPERCLASS", superclass));
        if detail.hierarchy {
            attributes.push(("DERIVATION", &derivation));
        }
    }
    out.open("", "CLASS", &attributes);
    qualifiers(out, &class.qualifiers, &[], detail);
    let wanted = |propagated: bool| detail.inherited || !propagated;
    for property in class.properties.iter().filter(|p| wanted(p.propagated)) {
        self::property(out, property, detail);
    }
    for method in class.methods.iter().filter(|m| wanted(m.propagated)) {
        self::method(out, method, detail);
    }
    out.close("", "CLASS");
}

/// Writes the name of a class, as a declaration without any specification.
pub fn write_class_name(out: &mut Writer, class: &Class) {
    out.empty("", "CLASSNAME", &[("NAME", class.name.as_str())]);
}

fn property(out: &mut Writer, property: &Property, detail: Detail) {
    let (element, ty) = match (&property.ty, property.array) {
        (Type::Reference(class), _) => ("PROPERTY.REFERENCE", ("REFERENCECLASS", class.as_str())),
        (ty, false) => ("PROPERTY", ("TYPE", ty.keyword())),
        (ty, true) => ("PROPERTY.ARRAY", ("TYPE", ty.keyword())),
    };
    let mut attributes = vec![("NAME", property.name.as_str()), ty];
    origin(
        &mut attributes,
        property.origin.as_str(),
        property.propagated,
        detail,
    );
    out.open("", element, &attributes);
    qualifiers(out, &property.qualifiers, &[], detail);
    value(out, &property.default);
    out.close("", element);
}

fn origin<'a>(
    attributes: &mut Vec<(&'static str, &'a str)>,
    origin: &'a str,
    propagated: bool,
    detail: Detail,
) {
    if detail.class_origin {
        attributes.push(("CLASSORIGIN", origin));
    }
    if propagated {
        attributes.push(("PROPAGATED", "true"));
    }
}

fn method(out: &mut Writer, method: &Method, detail: Detail) {
    let ty = ("TYPE", method.returns.keyword());
    let mut attributes = vec![("NAME", method.name.as_str()), ty];
    origin(
        &mut attributes,
        method.origin.as_str(),
        method.propagated,
        detail,
    );
    out.open("", "METHOD", &attributes);
    qualifiers(out, &method.qualifiers, &[], detail);
    for (n, parameter) in method.parameters.iter().enumerate() {
        self::parameter(out, n, parameter, detail);
    }
    out.close("", "METHOD");
}

fn parameter(out: &mut Writer, n: usize, parameter: &Parameter, detail: Detail) {
    let (element, ty) = match (&parameter.ty, parameter.array) {
        (Type::Reference(class), array) => (
            match array {
                true => "PARAMETER.REFARRAY",
                false => "PARAMETER.REFERENCE",
            },
            ("REFERENCECLASS", class.as_str()),
        ),
        (ty, false) => ("PARAMETER", ("TYPE", ty.keyword())),
        (ty, true) => ("PARAMETER.ARRAY", ("TYPE", ty.keyword())),
    };
    out.open("", element, &[("NAME", parameter.name.as_str()), ty]);
    if detail.qualifiers {
        // Clients put the parameters in the order of their ID, and tell the directions by IN and OUT only.
        let fixed = |out: &mut Writer, name: &str, ty: &str, value: &str| {
            let attributes = [
                ("NAME", name),
                ("TYPE", ty),
                ("OVERRIDABLE", "false"),
                ("TOSUBCLASS", "false"),
                ("TOINSTANCE", "true"),
            ];
            out.open("", "QUALIFIER", &attributes);
            out.element("", "VALUE", &[], value);
            out.close("", "QUALIFIER");
        };
        fixed(out, "ID", "sint32", &n.to_string());
        if parameter.input {
            fixed(out, "IN", "boolean", "TRUE");
        }
        if parameter.output {
            fixed(out, "OUT", "boolean", "TRUE");
        }
    }
    qualifiers(out, &parameter.qualifiers, &["In", "Out", "ID"], detail);
    out.close("", element);
}

fn qualifiers(out: &mut Writer, all: &Qualifiers, but: &[&str], detail: Detail) {
    if !detail.qualifiers {
        return;
    }
    for qualifier in all.0.iter() {
        let named = |names: &[&str]| names.iter().any(|name| qualifier.name == **name);
        if !named(but) && (detail.descriptions || !named(&DESCRIPTIONS)) {
            self::qualifier(out, qualifier);
        }
    }
}

fn qualifier(out: &mut Writer, qualifier: &Qualifier) {
    let declared = qualifier.name.as_str();
    let spelt = SPELLING.iter().find(|(name, _)| qualifier.name == **name);
    let name = spelt.map_or(declared, |(_, spelt)| spelt);
    let mut attributes = vec![("NAME", name)];
    if qualifier.propagated {
        attributes.push(("PROPAGATED", "true"));
    }
    attributes.push(("TYPE", qualifier.ty.keyword()));
    if !qualifier.overridable {
        attributes.push(("OVERRIDABLE", "false"));
    }
    if !qualifier.to_subclass {
        attributes.push(("TOSUBCLASS", "false"));
    }
    if name == "key" {
        attributes.push(("TOINSTANCE", "true"));
    }
    out.open("", "QUALIFIER", &attributes);
    value(out, &qualifier.value);
    out.close("", "QUALIFIER");
}

fn value(out: &mut Writer, value: &Value) {
    match value {
        Value::Null => {}
        Value::Array(items) => {
            out.open("", "VALUE.ARRAY", &[]);
            items.iter().for_each(|item| self::value(out, item));
            out.close("", "VALUE.ARRAY");
        }
        Value::Boolean(b) => out.element("", "VALUE", &[], if *b { "TRUE" } else { "FALSE" }),
        other => out.element("", "VALUE", &[], &other.lexical().unwrap_or_default()),
    }
}
