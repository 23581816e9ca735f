//! A class as MOF text for people: everything it has, what is inherited under the name of the class it comes from.

use std::fmt::Write as _;

use crate::cim::class::{Class, Method, Parameter, Property, Qualifier, Qualifiers};
use crate::cim::name::Name;
use crate::cim::value::Value;

const LINE: usize = 100;

/// The class with all its features.
pub(super) fn class_text(class: &Class) -> String {
    let mut out = String::new();
    let lineage: Vec<_> = class.lineage().map(|c| c.name.as_str()).collect();
    _ = writeln!(out, "// {}: {}", class.namespace, lineage.join(" : "));
    qualifiers(&mut out, &class.qualifiers, "");
    _ = write!(out, "class {}", class.name);
    if let Some(superclass) = &class.superclass {
        _ = write!(out, " : {}", superclass.name);
    }
    out.push_str(" {\n");
    let mut from = None;
    for property in &class.properties {
        origin(&mut out, &mut from, &property.origin);
        self::property(&mut out, property);
    }
    from = None;
    for method in &class.methods {
        origin(&mut out, &mut from, &method.origin);
        self::method(&mut out, method);
    }
    out.push_str("};\n");
    out
}

fn origin<'a>(out: &mut String, from: &mut Option<&'a Name>, here: &'a Name) {
    if *from != Some(here) {
        _ = writeln!(out, "\n    // introduced by {here}");
        *from = Some(here);
    }
}

fn property(out: &mut String, property: &Property) {
    out.push('\n');
    qualifiers(out, &property.qualifiers, "    ");
    _ = write!(out, "    {} {}", property.ty, property.name);
    if property.array {
        out.push_str("[]");
    }
    if !property.default.is_null() {
        _ = write!(out, " = {}", literal(&property.default));
    }
    out.push_str(";\n");
}

fn method(out: &mut String, method: &Method) {
    out.push('\n');
    qualifiers(out, &method.qualifiers, "    ");
    _ = write!(out, "    {} {} (", method.returns, method.name);
    for (n, parameter) in method.parameters.iter().enumerate() {
        out.push_str(if n == 0 { "\n" } else { ",\n" });
        self::parameter(out, parameter);
    }
    out.push_str(");\n");
}

fn parameter(out: &mut String, parameter: &Parameter) {
    let indent = "        ";
    qualifiers(out, &parameter.qualifiers, indent);
    let brackets = if parameter.array { "[]" } else { "" };
    _ = write!(out, "{indent}{} {}{brackets}", parameter.ty, parameter.name);
}

/// `[A, B (1),` with as many to a line as fit.
fn qualifiers(out: &mut String, qualifiers: &Qualifiers, indent: &str) {
    let mut width = 0;
    for (n, qualifier) in qualifiers.0.iter().enumerate() {
        let text = qualifier_text(qualifier, indent);
        let fits = width + text.len() + 2 <= LINE && !text.contains('\n');
        if n == 0 {
            _ = write!(out, "{indent}[");
            width = indent.len() + 1;
        } else if fits {
            out.push_str(", ");
            width += 2;
        } else {
            _ = write!(out, ",\n{indent} ");
            width = indent.len() + 1;
        }
        width = if text.contains('\n') {
            LINE
        } else {
            width + text.len()
        };
        out.push_str(&text);
    }
    if !qualifiers.0.is_empty() {
        out.push_str("]\n");
    }
}

fn qualifier_text(qualifier: &Qualifier, indent: &str) -> String {
    match &qualifier.value {
        Value::Boolean(true) => qualifier.name.to_string(),
        Value::Array(values) => {
            let one_line = format!("{} {}", qualifier.name, literal(&qualifier.value));
            if indent.len() + one_line.len() + 2 <= LINE {
                return one_line;
            }
            let mut text = format!("{} {{", qualifier.name);
            let mut width = LINE;
            for (n, value) in values.iter().enumerate() {
                let value = literal(value);
                if n > 0 {
                    text.push(',');
                }
                if width + value.len() + 2 > LINE {
                    _ = write!(text, "\n{indent}     ");
                    width = indent.len() + 5;
                } else {
                    text.push(' ');
                }
                width += value.len() + 2;
                text.push_str(&value);
            }
            text.push('}');
            text
        }
        value => format!("{} ({})", qualifier.name, literal(value)),
    }
}

/// The value as a MOF literal.
fn literal(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text, '"'),
        Value::DateTime(time) => quoted(&time.to_string(), '"'),
        Value::Char16(unit) => {
            let text = char::from_u32(u32::from(*unit));
            text.map_or_else(
                || format!("'\\x{unit:04X}'"),
                |c| quoted(&c.to_string(), '\''),
            )
        }
        Value::Array(values) => {
            let values: Vec<_> = values.iter().map(literal).collect();
            format!("{{{}}}", values.join(", "))
        }
        Value::Boolean(b) => b.to_string(),
        Value::Uint8(n) => n.to_string(),
        Value::Uint16(n) => n.to_string(),
        Value::Uint32(n) => n.to_string(),
        Value::Uint64(n) => n.to_string(),
        Value::Sint8(n) => n.to_string(),
        Value::Sint16(n) => n.to_string(),
        Value::Sint32(n) => n.to_string(),
        Value::Sint64(n) => n.to_string(),
        // `{:?}` writes the decimal point that MOF asks for.
        Value::Real32(n) => format!("{n:?}"),
        Value::Real64(n) => format!("{n:?}"),
        // Neither stands in a class.
        Value::Null | Value::Reference(_) | Value::Instance(_) => "null".to_owned(),
    }
}

fn quoted(text: &str, quote: char) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if u32::from(c) < 0x20 => _ = write!(out, "\\x{:04X}", u32::from(c)),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}
