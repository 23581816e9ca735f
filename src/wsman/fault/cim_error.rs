//! CIM errors: which fault a status becomes, and the error instance in the detail (rules F-20 to F-22).

use crate::cim::Status;
use crate::text::Text;
use crate::xml::Writer;

use super::{Fault, FaultKind, table};

/// What was tried; decides the fault of [`Status::InvalidParameter`] and its like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tried {
    /// Finding the instance by its selectors: Get, Enumerate, Delete.
    Select,
    /// A method call.
    Invoke,
    /// Put or Create.
    Write,
}

impl Fault {
    /// The fault for a CIM status (rule F-22).
    #[must_use]
    pub fn from_status(status: Status, text: Text, tried: Tried) -> Self {
        kind(status, tried).fault(text).because(status)
    }
}

fn kind(status: Status, tried: Tried) -> &'static FaultKind {
    match status {
        Status::Failed => &table::INTERNAL_ERROR,
        Status::AccessDenied => &table::ACCESS_DENIED,
        Status::InvalidNamespace | Status::InvalidClass => &table::RESOURCE_NOT_FOUND,
        Status::InvalidParameter => match tried {
            Tried::Select => &table::INVALID_SELECTORS,
            Tried::Invoke => &table::INVALID_PARAMETER,
            Tried::Write => &table::INVALID_REPRESENTATION,
        },
        Status::NotFound => &table::INSTANCE_NOT_FOUND,
        Status::NotSupported | Status::MethodNotFound => &table::ACTION_MISMATCH,
        Status::MethodNotAvailable => &table::ACTION_NOT_SUPPORTED,
        Status::AlreadyExists => &table::ALREADY_EXISTS,
        Status::NoSuchProperty => match tried {
            Tried::Invoke => &table::INVALID_PARAMETER_NAME,
            Tried::Select => &table::UNEXPECTED_SELECTORS,
            Tried::Write => &table::INVALID_XML_VALUES,
        },
        Status::TypeMismatch => match tried {
            Tried::Invoke => &table::PARAMETER_TYPE_MISMATCH,
            Tried::Select => &table::SELECTOR_TYPEMISMATCH,
            Tried::Write => &table::INVALID_XML_VALUES,
        },
        Status::QueryLanguageNotSupported => &table::ENUMERATE_FILTER_DIALECT_REQUESTED_UNAVAILABLE,
        Status::InvalidQuery => &table::ENUMERATE_CANNOT_PROCESS_FILTER,
        Status::InvalidEnumerationContext => &table::ENUMERATE_INVALID_ENUMERATION_CONTEXT,
        Status::InvalidOperationTimeout => &table::INVALID_TIMEOUT_HEADER,
        Status::ServerLimitsExceeded => &table::QUOTA_MAX_OPERATIONS,
        Status::ServerIsShuttingDown => &table::ENDPOINT_UNAVAILABLE,
    }
}

/// HRESULT and PowerShell's error category of a status (columns of rule F-22).
fn microsoft(status: Status) -> (u32, u32) {
    match status {
        Status::Failed => (0x8004_1001, 0),
        Status::AccessDenied => (0x8004_1003, 18),
        Status::InvalidNamespace => (0x8004_100E, 10),
        Status::InvalidParameter => (0x8004_1008, 5),
        Status::InvalidClass => (0x8004_1010, 10),
        Status::NotFound => (0x8004_1002, 13),
        Status::NotSupported => (0x8004_100C, 11),
        Status::AlreadyExists => (0x8004_1019, 20),
        Status::NoSuchProperty => (0x8004_1031, 10),
        Status::TypeMismatch => (0x8004_1005, 9),
        Status::QueryLanguageNotSupported => (0x8004_1018, 11),
        Status::InvalidQuery => (0x8004_1017, 5),
        Status::MethodNotAvailable => (0x8004_1055, 11),
        Status::MethodNotFound => (0x8004_102E, 10),
        Status::InvalidEnumerationContext => (0x8033_801B, 10),
        Status::InvalidOperationTimeout => (0x8033_8081, 5),
        Status::ServerLimitsExceeded => (0x8033_81A6, 30),
        Status::ServerIsShuttingDown => (0x8033_8014, 21),
    }
}

/// Microsoft's number of a status.
pub(super) fn hresult(status: Status) -> u32 {
    microsoft(status).0
}

/// Writes the error instance. Every property says its type, as the clients read it without a class.
pub(super) fn write(w: &mut Writer, status: Status, message: &str, omi: bool) {
    let class = if omi { "OMI_Error" } else { "MSFT_WmiError" };
    let (code, category) = microsoft(status);
    let uri = crate::wscim::Family::Dmtf.class_uri("", class);
    let ty = format!("p:{class}_Type");
    let declared = [
        ("xmlns:p", &*uri),
        ("xmlns:b", crate::soap::ns::BINDING),
        ("xmlns:xsi", crate::soap::ns::XSI),
        ("xmlns:cim", crate::soap::ns::COMMON),
        ("b:IsCIM_Error", "true"),
        ("xsi:type", &ty),
    ];
    w.open("p", class, &declared);
    let mut text = |name: &str, value: &str| {
        w.element("p", name, &[("xsi:type", "cim:cimString")], value);
    };
    text("CIMStatusCodeDescription", &format!("{status:?}"));
    text("Message", message);
    if omi {
        text("MessageID", &format!("OMI:MI_Result:{}", status.code()));
        text("OMI_Error_Message", message);
        text("OMI_Type", "MI");
    } else {
        text("MessageID", &format!("HRESULT 0x{code:08x}"));
        text("error_Type", "HRESULT");
        text("error_WindowsErrorMessage", message);
    }
    text("OwningEntity", "Groupshot");
    let (category_name, code_name, code) = if omi {
        ("OMI_Category", "OMI_Code", status.code())
    } else {
        ("error_Category", "error_Code", code)
    };
    let mut number = |name: &str, ty: &str, value: u32| {
        w.element("p", name, &[("xsi:type", ty)], &value.to_string());
    };
    number("CIMStatusCode", "cim:cimUnsignedInt", status.code());
    number("ErrorSourceFormat", "cim:cimUnsignedShort", 0);
    number("ErrorType", "cim:cimUnsignedShort", 0);
    number("PerceivedSeverity", "cim:cimUnsignedShort", 6);
    number("ProbableCause", "cim:cimUnsignedShort", 0);
    number(category_name, "cim:cimUnsignedInt", category);
    number(code_name, "cim:cimUnsignedInt", code);
    for name in [
        "ErrorSource",
        "OtherErrorSourceFormat",
        "OtherErrorType",
        "ProbableCauseDescription",
    ] {
        w.empty("p", name, &[("xsi:nil", "true")]);
    }
    w.close("p", class);
}
