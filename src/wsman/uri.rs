//! The URIs of WS-Management: actions, and what a resource URI can name.

pub use crate::wscim::uri::{ClassUri, Family, WMI, plain_namespace, strip_prefix};

use std::borrow::Cow;

use crate::soap::ns;

use super::config::Part;

/// Every class of a namespace, DMTF form.
pub const ALL_CLASSES: &str = "http://schemas.dmtf.org/wbem/wscim/1/*";
/// Class declarations as CIM-XML (rule C-1).
pub const METADATA: &str = "http://schemas.dmtf.org/wbem/cim-xml/2/cim-schema/2/*";
/// Longest URI or id that is taken, in characters (rules H-12, H-16).
pub const LENGTH_MAX: usize = 2048;

/// Action of WS-Transfer Get, as our own client sends it.
pub const GET: &str = "http://schemas.xmlsoap.org/ws/2004/09/transfer/Get";
/// Action of WS-Enumeration Enumerate, as our own client sends it.
pub const ENUMERATE: &str = "http://schemas.xmlsoap.org/ws/2004/09/enumeration/Enumerate";
/// Action of WS-Enumeration Pull, as our own client sends it.
pub const PULL: &str = "http://schemas.xmlsoap.org/ws/2004/09/enumeration/Pull";

/// Filter dialect: WQL, Microsoft's URI.
pub const WQL: &str = "http://schemas.microsoft.com/wbem/wsman/1/WQL";
/// Filter dialect: WQL, the DMTF's URI.
pub const WQL_DMTF: &str = "http://schemas.dmtf.org/wbem/wsman/1/WQL";
/// Filter dialect: CQL (DSP0202).
pub const CQL: &str = "http://schemas.dmtf.org/wbem/cql/1/dsp0202.pdf";
/// Filter dialect: selectors (DSP0226 annex E).
pub const SELECTOR_FILTER: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/SelectorFilter";
/// Filter dialect: XPath; also where a filter names none.
pub const XPATH: &str = "http://www.w3.org/TR/1999/REC-xpath-19991116";
/// Filter dialect: from an object along its associations (rule E-42).
pub const ASSOCIATION_FILTER: &str =
    "http://schemas.dmtf.org/wbem/wsman/1/cimbinding/associationFilter";
/// The filter dialects of Enumerate.
pub const FILTER_DIALECTS: &[&str] = &[
    WQL,
    WQL_DMTF,
    CQL,
    SELECTOR_FILTER,
    XPATH,
    ASSOCIATION_FILTER,
];

const TRANSFER: &str = "http://schemas.xmlsoap.org/ws/2004/09/transfer/";
const ENUMERATION: &str = "http://schemas.xmlsoap.org/ws/2004/09/enumeration/";
const EVENTING: &str = "http://schemas.xmlsoap.org/ws/2004/08/eventing/";
const MICROSOFT: &str = "http://schemas.microsoft.com/wbem/wsman/1/wsman/";

/// What an action asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action<'a> {
    /// WS-Transfer Get.
    Get,
    /// WS-Transfer Put, Create or Delete.
    Write,
    /// WS-Enumeration Enumerate.
    Enumerate,
    /// WS-Enumeration Pull.
    Pull,
    /// WS-Enumeration Release.
    Release,
    /// Microsoft's `End` and `Cancel` (rule H-42).
    End,
    /// An action of these standards that is not offered: WS-Eventing, and Renew and GetStatus of
    /// WS-Enumeration (rules V-1, E-16).
    NotOffered,
    /// Anything else that can be a class URI with a method: the URI and the name.
    Method(&'a str, &'a str),
    /// Not an action.
    Unknown,
}

impl<'a> Action<'a> {
    /// Tells the action by its URI. The standards compare URIs with case.
    #[must_use]
    pub fn of(uri: &'a str) -> Self {
        if let Some(verb) = uri.strip_prefix(TRANSFER) {
            return match verb {
                "Get" => Self::Get,
                "Put" | "Create" | "Delete" => Self::Write,
                _ => Self::Unknown,
            };
        }
        if let Some(verb) = uri.strip_prefix(ENUMERATION) {
            return match verb {
                "Enumerate" => Self::Enumerate,
                "Pull" => Self::Pull,
                "Release" => Self::Release,
                "Renew" | "GetStatus" => Self::NotOffered,
                _ => Self::Unknown,
            };
        }
        if uri.starts_with(EVENTING) {
            return Self::NotOffered;
        }
        if let Some(verb) = uri.strip_prefix(MICROSOFT) {
            return match verb {
                "End" | "Cancel" => Self::End,
                _ => Self::NotOffered,
            };
        }
        match uri.rsplit_once('/') {
            Some((class, method)) if !method.is_empty() && ClassUri::parse(class).is_some() => {
                Self::Method(class, method)
            }
            _ => Self::Unknown,
        }
    }
}

/// What a resource URI names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource<'a> {
    /// A class.
    Class(ClassUri<'a>),
    /// Every class of a namespace; the DMTF form leaves the namespace to the selector.
    AllClasses(Family, Option<Cow<'a, str>>),
    /// Class declarations.
    Metadata,
    /// The configuration of the service, or a part of it.
    Config(Part),
    /// A part of the configuration that there is only on Windows.
    NoConfig,
    /// Nothing that is known here.
    Unknown,
}

impl<'a> Resource<'a> {
    /// Tells the resource by its URI, without regard to case.
    #[must_use]
    pub fn of(uri: &'a str) -> Self {
        if uri.eq_ignore_ascii_case(ALL_CLASSES) {
            return Self::AllClasses(Family::Dmtf, None);
        }
        if uri.eq_ignore_ascii_case(METADATA) {
            return Self::Metadata;
        }
        match strip_prefix(uri, ns::CONFIG) {
            Some(part) if part.is_empty() || part.starts_with('/') => {
                return Part::of(part).map_or(Self::NoConfig, Self::Config);
            }
            _ => {}
        }
        match ClassUri::parse(uri) {
            Some(ClassUri {
                family,
                namespace,
                class: "*",
            }) => Self::AllClasses(family, namespace),
            Some(class) => Self::Class(class),
            None => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(
        family: Family,
        namespace: Option<&'static str>,
        class: &'static str,
    ) -> Resource<'static> {
        Resource::Class(ClassUri {
            family,
            namespace: namespace.map(Cow::Borrowed),
            class,
        })
    }

    #[test]
    fn h_16_resource_uris_of_every_kind_are_told_apart() {
        let v2 = Some("root/virtualization/v2");
        let wmi = "http://schemas.microsoft.com/wbem/wsman/1/wmi/";
        let dmtf = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/";
        let table = [
            (format!("{dmtf}Msvm_X"), class(Family::Dmtf, None, "Msvm_X")),
            (
                dmtf.to_uppercase() + "msvm_x",
                class(Family::Dmtf, None, "msvm_x"),
            ),
            (
                format!("{wmi}root/virtualization/v2/Msvm_X"),
                class(Family::Wmi, v2, "Msvm_X"),
            ),
            (
                format!("{wmi}root\\virtualization\\v2/Msvm_X"),
                class(Family::Wmi, v2, "Msvm_X"),
            ),
            (
                format!("{wmi}root/virtualization/v2/*"),
                Resource::AllClasses(Family::Wmi, v2.map(Into::into)),
            ),
            (
                "http://schemas.dmtf.org/wbem/wscim/1/*".into(),
                Resource::AllClasses(Family::Dmtf, None),
            ),
            (format!("{dmtf}*"), Resource::AllClasses(Family::Dmtf, None)),
            (METADATA.into(), Resource::Metadata),
            (
                "http://schemas.microsoft.com/wbem/wsman/1/config".into(),
                Resource::Config(Part::All),
            ),
            (
                "http://schemas.microsoft.com/wbem/wsman/1/config/service/AUTH".into(),
                Resource::Config(Part::Auth),
            ),
            (
                "http://schemas.microsoft.com/wbem/wsman/1/config/listener".into(),
                Resource::NoConfig,
            ),
            (
                "http://schemas.microsoft.com/wbem/wsman/1/configx".into(),
                Resource::Unknown,
            ),
            (format!("{wmi}Msvm_X"), Resource::Unknown),
            (dmtf.into(), Resource::Unknown),
            (format!("{dmtf}a/b"), Resource::Unknown),
            (format!("{dmtf}Msvm_X?Name=1"), Resource::Unknown),
            (
                "http://schemas.dmtf.org/wbem/ws-cim/1/cim-schema/2/*".into(),
                Resource::Unknown,
            ),
            (String::new(), Resource::Unknown),
            ("é".into(), Resource::Unknown),
        ];
        for (uri, expected) in table {
            assert_eq!(Resource::of(&uri), expected, "{uri}");
        }
    }

    #[test]
    fn h_11_actions_are_told_apart() {
        let x = "http://schemas.microsoft.com/wbem/wsman/1/wmi/root/virtualization/v2/Msvm_X";
        let method = format!("{x}/DoIt");
        let table = [
            (
                "http://schemas.xmlsoap.org/ws/2004/09/transfer/Get",
                Action::Get,
            ),
            (
                "http://schemas.xmlsoap.org/ws/2004/09/transfer/Put",
                Action::Write,
            ),
            (
                "http://schemas.xmlsoap.org/ws/2004/09/transfer/get",
                Action::Unknown,
            ),
            (
                "http://schemas.xmlsoap.org/ws/2004/09/enumeration/Enumerate",
                Action::Enumerate,
            ),
            (
                "http://schemas.xmlsoap.org/ws/2004/09/enumeration/Pull",
                Action::Pull,
            ),
            (
                "http://schemas.xmlsoap.org/ws/2004/09/enumeration/Release",
                Action::Release,
            ),
            (
                "http://schemas.xmlsoap.org/ws/2004/09/enumeration/Renew",
                Action::NotOffered,
            ),
            (
                "http://schemas.xmlsoap.org/ws/2004/08/eventing/Subscribe",
                Action::NotOffered,
            ),
            (
                "http://schemas.microsoft.com/wbem/wsman/1/wsman/End",
                Action::End,
            ),
            (
                "http://schemas.microsoft.com/wbem/wsman/1/wsman/Cancel",
                Action::End,
            ),
            (
                "http://schemas.microsoft.com/wbem/wsman/1/wsman/KeepAlive",
                Action::NotOffered,
            ),
            (&method, Action::Method(x, "DoIt")),
            ("urn:x", Action::Unknown),
            ("http://example.org/wbem/Get", Action::Unknown),
            ("", Action::Unknown),
        ];
        for (uri, expected) in table {
            assert_eq!(Action::of(uri), expected, "{uri}");
        }
    }
}
