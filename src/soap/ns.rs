//! The namespaces of the messages, and the prefixes that answers give them (rule N-1).

/// SOAP 1.2, prefix `s`.
pub const SOAP: &str = "http://www.w3.org/2003/05/soap-envelope";
/// WS-Addressing, August 2004, prefix `a`.
pub const ADDRESSING: &str = "http://schemas.xmlsoap.org/ws/2004/08/addressing";
/// WS-Transfer, prefix `x`.
pub const TRANSFER: &str = "http://schemas.xmlsoap.org/ws/2004/09/transfer";
/// WS-Enumeration, prefix `n`.
pub const ENUMERATION: &str = "http://schemas.xmlsoap.org/ws/2004/09/enumeration";
/// WS-Eventing, prefix `e`.
pub const EVENTING: &str = "http://schemas.xmlsoap.org/ws/2004/08/eventing";
/// WS-Management (DSP0226), prefix `w`.
pub const WSMAN: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd";
/// WS-Management CIM binding (DSP0227), prefix `b`.
pub const BINDING: &str = "http://schemas.dmtf.org/wbem/wsman/1/cimbinding.xsd";
/// Microsoft's extensions (MS-WSMV), prefix `p` in headers, `m` on values.
pub const MICROSOFT: &str = "http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd";
/// Identify, prefix `wsmid`.
pub const IDENTITY: &str = "http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd";
/// WS-CIM common types (DSP0230), prefix `cim`.
pub const COMMON: &str = "http://schemas.dmtf.org/wbem/wscim/1/common";
/// XML Schema instance, prefix `xsi`.
pub const XSI: &str = "http://www.w3.org/2001/XMLSchema-instance";
/// Microsoft's fault detail, prefix `f`.
pub const FAULT: &str = "http://schemas.microsoft.com/wbem/wsman/1/wsmanfault";
/// The configuration resource, prefix `cfg`; also its resource URI.
pub const CONFIG: &str = "http://schemas.microsoft.com/wbem/wsman/1/config";

/// The address that stands for "whoever asked".
pub const ANONYMOUS: &str = "http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous";

/// The anonymous address of the next version of WS-Addressing.
const ANONYMOUS_2005: &str = "http://www.w3.org/2005/08/addressing/anonymous";

/// Does the address name nobody but the server that is asked?
#[must_use]
pub fn is_anonymous(address: &str) -> bool {
    let address = address.strip_suffix('/').unwrap_or(address);
    address == ANONYMOUS || address == ANONYMOUS_2005
}
