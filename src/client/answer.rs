//! Reading: from the body of an envelope to generic values. Every reader gives `None` where the body is
//! not what was asked for.

use std::sync::LazyLock;

use crate::cim::{Path, Schema, Value};
use crate::soap::ns;
use crate::wscim::{Names, Reference};
use crate::xml::Element;

use super::Identity;
use super::error::Fault;
use super::value::Object;

/// One page of an enumeration.
pub(super) struct Page {
    /// To pull on with; `None` at the end.
    pub(super) context: Option<String>,
    /// The instances.
    pub(super) items: Vec<Object>,
}

pub(super) fn identity(body: Element<'_>) -> Option<Identity> {
    let response = body.child(ns::IDENTITY, "IdentifyResponse")?;
    let text = |name| {
        let child = response.child(ns::IDENTITY, name);
        child.map(|c| c.trimmed().into_owned()).unwrap_or_default()
    };
    Some(Identity {
        vendor: text("ProductVendor"),
        version: text("ProductVersion"),
    })
}

/// The one element of the body, with its children as properties.
pub(super) fn instance(body: Element<'_>) -> Option<Object> {
    body.children().next().map(object)
}

pub(super) fn page(body: Element<'_>) -> Option<Page> {
    let response = body.children().next()?;
    if !matches!(response.local(), "EnumerateResponse" | "PullResponse") {
        return None;
    }
    // Servers write these two in either namespace.
    let child = |name| response.children().find(|c| c.local() == name);
    let items = child("Items").map(|items| items.children().map(object).collect());
    let ended = child("EndOfSequence").is_some();
    let context = child("EnumerationContext").map(|c| c.trimmed().into_owned());
    Some(Page {
        context: context.filter(|text| !ended && !text.is_empty()),
        items: items.unwrap_or_default(),
    })
}

pub(super) fn fault(body: Element<'_>) -> Option<Fault> {
    let fault = body.child(ns::SOAP, "Fault")?;
    let subcode = fault
        .child(ns::SOAP, "Code")
        .and_then(|code| code.child(ns::SOAP, "Subcode").or(Some(code)))
        .and_then(|code| code.child(ns::SOAP, "Value"))
        .map(|value| local(&value.trimmed()).to_owned());
    let reason = fault
        .child(ns::SOAP, "Reason")
        .and_then(|reason| reason.child(ns::SOAP, "Text"))
        .map(|text| text.trimmed().into_owned());
    let detail = fault.child(ns::SOAP, "Detail");
    let fault_detail = detail.and_then(|d| d.child(ns::WSMAN, "FaultDetail"));
    let wsman_fault = detail.and_then(|d| d.child(ns::FAULT, "WSManFault"));
    let code = wsman_fault.and_then(|f| f.attribute("", "Code"));
    Some(Fault {
        reason: reason.unwrap_or_default(),
        subcode: subcode.unwrap_or_default(),
        detail: fault_detail.map(|d| last_segment(&d.trimmed()).to_owned()),
        code: code.and_then(|code| code.parse().ok()),
        message: wsman_fault
            .and_then(|f| f.child(ns::FAULT, "Message"))
            .map(|m| m.trimmed().into_owned()),
    })
}

fn object(element: Element<'_>) -> Object {
    let properties = element.children();
    Object {
        class: element.local().to_owned(),
        properties: properties
            .map(|p| (p.local().to_owned(), value(p)))
            .collect(),
    }
}

fn value(element: Element<'_>) -> Value {
    if matches!(element.attribute(ns::XSI, "nil"), Some("true" | "1")) {
        return Value::Null;
    }
    if let Some(path) = reference(element) {
        return path.into();
    }
    // cim:Datetime, cim:Interval and the like wrap the text.
    let holder = element.children().next().unwrap_or(element);
    Value::String(holder.text().into_owned())
}

/// The reference in an element: its own content, or an `a:EndpointReference` inside. Whatever address it has, it is of
/// the server that was asked.
fn reference(element: Element<'_>) -> Option<Path> {
    static NO_CLASSES: LazyLock<Schema> = LazyLock::new(|| Schema::new([]));
    let reference = Reference {
        schema: &NO_CLASSES,
        namespace: "",
        names: Names::default(),
    };
    let wrapped = element.child(ns::ADDRESSING, "EndpointReference");
    let path = reference.read(wrapped.unwrap_or(element)).ok()?;
    Some(Path { host: None, ..path })
}

fn local(qname: &str) -> &str {
    qname.split_once(':').map_or(qname, |(_, local)| local)
}

fn last_segment(uri: &str) -> &str {
    uri.rsplit_once('/').map_or(uri, |(_, last)| last)
}
