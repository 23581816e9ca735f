//! `VALUE.REFERENCE`: an object path as elements, or as text, which WMI writes (DSP0201 5.2.4.4).

use super::super::lexical::integer;
use super::super::name::Name;
use super::super::path::Path;
use super::super::value::{Type, Value};
use crate::text::Text;
use crate::text::catalog::cim as texts;
use crate::xml::{Element, Writer};

/// Reads what a `VALUE.REFERENCE` holds; the error says what was found instead.
pub(super) fn read(element: Element<'_>) -> Result<Path, Text> {
    match element.children().next() {
        Some(child) => object(child),
        None => Path::parse(&element.text()).map_err(|e| e.text()),
    }
}

/// `INSTANCEPATH`, `LOCALINSTANCEPATH`, `INSTANCENAME` and the same for classes.
fn object(element: Element<'_>) -> Result<Path, Text> {
    match element.local() {
        "INSTANCEPATH" | "LOCALINSTANCEPATH" | "CLASSPATH" | "LOCALCLASSPATH" => within(element),
        "INSTANCENAME" => {
            let mut path = class(element, "CLASSNAME")?;
            for binding in element.children() {
                let (name, value) = key(binding)?;
                if path.get(name.as_str()).is_some() {
                    return Err(texts::KEY_TWICE.with("key", name));
                }
                path.keys.push((name, value));
            }
            Ok(path)
        }
        "CLASSNAME" => class(element, "NAME"),
        other => Err(found_in(other, "VALUE.REFERENCE")),
    }
}

/// A path with its namespace before it.
fn within(element: Element<'_>) -> Result<Path, Text> {
    let mut children = element.children();
    let (Some(place), Some(object_name), None) =
        (children.next(), children.next(), children.next())
    else {
        return Err(lacks_both(element, "namespace", "name"));
    };
    let (host, local) = match place.local() {
        "LOCALNAMESPACEPATH" => (None, Some(place)),
        "NAMESPACEPATH" => (
            place.child(place.namespace(), "HOST"),
            place.child(place.namespace(), "LOCALNAMESPACEPATH"),
        ),
        other => return Err(found_in(other, element.local())),
    };
    let parts: Vec<_> = local
        .into_iter()
        .flat_map(|l| l.children())
        .filter_map(|part| part.attribute("", "NAME"))
        .collect();
    if parts.is_empty() || !matches!(object_name.local(), "INSTANCENAME" | "CLASSNAME") {
        return Err(lacks_both(element, "namespace", "name"));
    }
    let host = host.map(|h| h.trimmed().into_owned());
    Ok(Path {
        host: host.filter(|h| h != "." && !h.is_empty()),
        namespace: Some(parts.join("/").replace('\\', "/")),
        ..object(object_name)?
    })
}

fn class(element: Element<'_>, attribute: &'static str) -> Result<Path, Text> {
    let name = element.attribute("", attribute).map(str::trim);
    let name = name.filter(|n| !n.is_empty()).ok_or_else(|| {
        let text = texts::ELEMENT_LACKS.with("element", element.local());
        text.with("what", attribute)
    })?;
    Ok(Path {
        host: None,
        namespace: None,
        class: Name::from(name),
        keys: Vec::new(),
        partial: false,
    })
}

fn key(binding: Element<'_>) -> Result<(Name, Value), Text> {
    let name = binding.attribute("", "NAME").map(Name::from);
    let (Some(name), Some(value)) = (name, binding.children().next()) else {
        return Err(lacks_both(binding, "name", "value"));
    };
    let text = value.text();
    let value = match (value.local(), value.attribute("", "VALUETYPE")) {
        ("VALUE.REFERENCE", _) => Some(Value::from(read(value)?)),
        ("KEYVALUE", Some("numeric")) => integer(&text).and_then(|n| {
            Value::integer(&Type::Uint64, n).or_else(|| Value::integer(&Type::Sint64, n))
        }),
        ("KEYVALUE", Some("boolean")) => Value::parse(&Type::Boolean, &text).ok(),
        ("KEYVALUE", _) => Some(Value::String(text.clone().into_owned())),
        _ => None,
    };
    let value = value.ok_or_else(|| texts::KEY_TEXT.with("text", &*text).with("key", &name))?;
    Ok((name, value))
}

fn found_in(found: &str, parent: &str) -> Text {
    let text = texts::ELEMENT_IN.with("element", found);
    text.with("parent", parent)
}

fn lacks_both(element: Element<'_>, what: &'static str, other: &'static str) -> Text {
    let text = texts::ELEMENT_LACKS_BOTH.with("element", element.local());
    text.with("what", what).with("other", other)
}

/// Writes a `VALUE.REFERENCE`.
pub(super) fn write(out: &mut Writer, path: &Path) {
    out.open("", "VALUE.REFERENCE", &[]);
    let wrapper = match (&path.namespace, &path.host) {
        (None, _) => None,
        (Some(_), None) => Some("LOCALINSTANCEPATH"),
        (Some(_), Some(_)) => Some("INSTANCEPATH"),
    };
    if let Some(wrapper) = wrapper {
        out.open("", wrapper, &[]);
        if let Some(host) = &path.host {
            out.open("", "NAMESPACEPATH", &[]);
            out.element("", "HOST", &[], host);
        }
        out.open("", "LOCALNAMESPACEPATH", &[]);
        for part in path.namespace.iter().flat_map(|n| n.split('/')) {
            out.empty("", "NAMESPACE", &[("NAME", part)]);
        }
        out.close("", "LOCALNAMESPACEPATH");
        if path.host.is_some() {
            out.close("", "NAMESPACEPATH");
        }
    }
    instance_name(out, path);
    if let Some(wrapper) = wrapper {
        out.close("", wrapper);
    }
    out.close("", "VALUE.REFERENCE");
}

fn instance_name(out: &mut Writer, path: &Path) {
    out.open("", "INSTANCENAME", &[("CLASSNAME", path.class.as_str())]);
    for (name, value) in &path.keys {
        out.open("", "KEYBINDING", &[("NAME", name.as_str())]);
        let ty = match value {
            Value::Boolean(_) => "boolean",
            other if other.as_integer().is_some() => "numeric",
            _ => "string",
        };
        match value {
            Value::Reference(path) => write(out, path),
            other => {
                let text = other.lexical().unwrap_or_default();
                out.element("", "KEYVALUE", &[("VALUETYPE", ty)], &text);
            }
        }
        out.close("", "KEYBINDING");
    }
    out.close("", "INSTANCENAME");
}
