//! What the provider itself said of a fault, inside the message of it (rule F-11).

use crate::cim::Status;
use crate::wsman::uri::Family;
use crate::xml::Writer;

use super::cim_error;

/// Who answers for every class.
const PROVIDER: &str = "Groupshot";

/// The class that tells of an operation that went wrong; the family of the request decides where it lives.
const EXTENDED_STATUS: &str = "__ExtendedStatus";

/// What a request wanted of a provider, in the words that WMI has for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The family of the request.
    pub family: Family,
    /// The namespace of the request.
    pub namespace: String,
    /// The operation: `GetObject`, `ExecMethod`, `ExecQuery`.
    pub operation: &'static str,
    /// What it was about: an object path, a class, a query.
    pub parameter: Option<String>,
}

/// Writes the words, which stand before this as well for clients that look no deeper, under the number of the fault,
/// and after them what was attempted. The CIM status has its own instance beside.
pub(super) fn write(
    w: &mut Writer,
    (status, number): (Status, &str),
    text: &str,
    machine: &str,
    attempt: Option<&Attempt>,
) {
    w.open("f", "ProviderFault", &[("provider", PROVIDER)]);
    let attributes = [("Code", number), ("Machine", machine)];
    w.open("f", "WSManFault", &attributes);
    w.element("f", "Message", &[], text);
    w.close("f", "WSManFault");
    if let Some(attempt) = attempt {
        w.open("f", "ExtendedError", &[]);
        extended(w, status, text, attempt);
        w.close("f", "ExtendedError");
    }
    w.close("f", "ProviderFault");
}

fn extended(w: &mut Writer, status: Status, text: &str, attempt: &Attempt) {
    let uri = attempt
        .family
        .class_uri(&attempt.namespace, EXTENDED_STATUS);
    let ty = format!("p:{EXTENDED_STATUS}_Type");
    let declared = [
        ("xmlns:p", &*uri),
        ("xmlns:xsi", crate::soap::ns::XSI),
        ("xsi:type", &*ty),
    ];
    w.open("p", EXTENDED_STATUS, &declared);
    w.element("p", "Description", &[], text);
    w.element("p", "Operation", &[], attempt.operation);
    match &attempt.parameter {
        Some(parameter) => w.element("p", "ParameterInfo", &[], parameter),
        None => w.empty("p", "ParameterInfo", &[("xsi:nil", "true")]),
    }
    w.element("p", "ProviderName", &[], PROVIDER);
    let number = cim_error::hresult(status).to_string();
    w.element("p", "StatusCode", &[], &number);
    w.close("p", EXTENDED_STATUS);
}
