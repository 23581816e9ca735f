//! Writing: the requests of the client, in the form that Windows clients use.

use std::time::Duration;

use crate::cim::{Path, Value};
use crate::id::WireId;
use crate::soap::ns;
use crate::wscim::{Family, epr};
use crate::wsman::uri;
use crate::xml::Writer;

/// The largest answer that is asked for, in octets.
const ENVELOPE_MAX: &str = "512000";

pub(super) fn identify() -> String {
    let mut w = Writer::with_capacity(512);
    w.open(
        "s",
        "Envelope",
        &[("xmlns:s", ns::SOAP), ("xmlns:i", ns::IDENTITY)],
    );
    w.empty("s", "Header", &[]);
    w.open("s", "Body", &[]);
    w.empty("i", "Identify", &[]);
    w.close("s", "Body");
    w.close("s", "Envelope");
    w.into_string()
}

pub(super) fn get(target: &Path, timeout: Duration) -> String {
    request(target, uri::GET, timeout, |_| {})
}

/// What is enumerated.
pub(super) enum Wanted<'a> {
    /// Every instance of the class.
    All,
    /// What a WQL query asks for.
    Query(&'a str),
    /// What associations of a class link to an object: object, association, class of the wanted objects.
    Linked(&'a Path, &'a str, &'a str),
}

pub(super) fn enumerate(of: &Path, wanted: &Wanted<'_>, page: usize, timeout: Duration) -> String {
    request(of, uri::ENUMERATE, timeout, |w| {
        w.open("n", "Enumerate", &[("xmlns:n", ns::ENUMERATION)]);
        w.empty("w", "OptimizeEnumeration", &[]);
        w.element("w", "MaxElements", &[], &page.to_string());
        match wanted {
            Wanted::All => {}
            Wanted::Query(text) => w.element("w", "Filter", &[("Dialect", uri::WQL)], text),
            Wanted::Linked(object, association, result) => {
                linked(w, object, association, result);
            }
        }
        w.close("n", "Enumerate");
    })
}

fn linked(w: &mut Writer, object: &Path, association: &str, result: &str) {
    w.open("w", "Filter", &[("Dialect", uri::ASSOCIATION_FILTER)]);
    w.open("b", "AssociatedInstances", &[("xmlns:b", ns::BINDING)]);
    w.open("b", "Object", &[]);
    epr::write(w, object, Family::Wmi);
    w.close("b", "Object");
    w.element("b", "AssociationClassName", &[], association);
    w.element("b", "ResultClassName", &[], result);
    w.close("b", "AssociatedInstances");
    w.close("w", "Filter");
}

pub(super) fn pull(of: &Path, context: &str, page: usize, timeout: Duration) -> String {
    request(of, uri::PULL, timeout, |w| {
        w.open("n", "Pull", &[("xmlns:n", ns::ENUMERATION)]);
        w.element("n", "EnumerationContext", &[], context);
        w.element("n", "MaxElements", &[], &page.to_string());
        w.close("n", "Pull");
    })
}

pub(super) fn invoke(
    target: &Path,
    method: &str,
    arguments: &[(&str, Value)],
    timeout: Duration,
) -> String {
    let resource = resource_uri(target);
    request(target, &format!("{resource}/{method}"), timeout, |w| {
        let input = format!("{method}_INPUT");
        w.open(
            "p",
            &input,
            &[("xmlns:p", &resource), ("xmlns:xsi", ns::XSI)],
        );
        for (name, value) in arguments {
            match value {
                Value::Null => w.empty("p", name, &[("xsi:nil", "true")]),
                Value::Reference(path) => {
                    w.open("p", name, &[]);
                    epr::write(w, path, Family::Wmi);
                    w.close("p", name);
                }
                other => w.element("p", name, &[], &other.lexical().unwrap_or_default()),
            }
        }
        w.close("p", &input);
    })
}

fn request(
    target: &Path,
    action: &str,
    timeout: Duration,
    body: impl FnOnce(&mut Writer),
) -> String {
    const MUST: &[(&str, &str)] = &[("s:mustUnderstand", "true")];
    let mut w = Writer::with_capacity(2048);
    let namespaces = [
        ("xmlns:s", ns::SOAP),
        ("xmlns:a", ns::ADDRESSING),
        ("xmlns:w", ns::WSMAN),
    ];
    w.open("s", "Envelope", &namespaces);
    w.open("s", "Header", &[]);
    w.element("a", "To", &[], ns::ANONYMOUS);
    w.element("w", "ResourceURI", MUST, &resource_uri(target));
    w.open("a", "ReplyTo", &[]);
    w.element("a", "Address", MUST, ns::ANONYMOUS);
    w.close("a", "ReplyTo");
    w.element("a", "Action", MUST, action);
    w.element("w", "MaxEnvelopeSize", MUST, ENVELOPE_MAX);
    w.element("a", "MessageID", &[], &format!("uuid:{}", WireId::random()));
    w.empty(
        "w",
        "Locale",
        &[("xml:lang", "en-US"), ("s:mustUnderstand", "false")],
    );
    let seconds = format!("PT{}.{:03}S", timeout.as_secs(), timeout.subsec_millis());
    w.element("w", "OperationTimeout", &[], &seconds);
    if !target.keys.is_empty() {
        epr::write_selectors(&mut w, target, Family::Wmi);
    }
    w.close("s", "Header");
    w.open("s", "Body", &[]);
    body(&mut w);
    w.close("s", "Body");
    w.close("s", "Envelope");
    w.into_string()
}

fn resource_uri(target: &Path) -> String {
    Family::Wmi.class_uri(namespace(target), target.class.as_str())
}

/// The namespace of a path; an answer without one leads nowhere.
pub(super) fn namespace(path: &Path) -> &str {
    path.namespace.as_deref().unwrap_or_default()
}
