//! The answer to Identify (rules O-1, O-2).

use crate::soap::ns;
use crate::xml::Writer;

/// What the service tells about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product<'a> {
    /// `ProductVendor`.
    pub vendor: &'a str,
    /// Our version, for those who have authenticated; `None` tells nothing.
    pub version: Option<&'a str>,
    /// URIs of the security profiles that are switched on; told only together with the version.
    pub security_profiles: &'a [&'a str],
}

/// The whole envelope. It has an empty header, as Windows writes it.
#[must_use]
pub fn envelope(product: &Product<'_>) -> String {
    let mut w = Writer::with_capacity(1024);
    w.open(
        "s",
        "Envelope",
        &[("xml:lang", "en-US"), ("xmlns:s", ns::SOAP)],
    );
    w.raw("<s:Header/><s:Body>");
    w.open(
        "wsmid",
        "IdentifyResponse",
        &[("xmlns:wsmid", ns::IDENTITY)],
    );
    w.element("wsmid", "ProtocolVersion", &[], ns::WSMAN);
    w.element("wsmid", "ProductVendor", &[], product.vendor);
    // Clients read the number after "Stack:" to tell the generations of the protocol apart.
    w.open("wsmid", "ProductVersion", &[]);
    match product.version {
        Some(version) => w.text(&format!("OS: {version} SP: 0.0 Stack: 3.0")),
        None => w.text("OS: 0.0.0 SP: 0.0 Stack: 3.0"),
    }
    w.close("wsmid", "ProductVersion");
    if product.version.is_some() && !product.security_profiles.is_empty() {
        w.open("wsmid", "SecurityProfiles", &[]);
        for profile in product.security_profiles {
            w.element("wsmid", "SecurityProfileName", &[], profile);
        }
        w.close("wsmid", "SecurityProfiles");
    }
    w.close("wsmid", "IdentifyResponse");
    w.raw("</s:Body></s:Envelope>");
    w.into_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o_1_and_o_2_what_identify_tells_depends_on_who_asks() {
        let mut product = Product {
            vendor: "Groupshot <x>",
            version: Some("0.1.0"),
            security_profiles: &["urn:basic"],
        };
        let text = envelope(&product);
        let expected = r#"<s:Envelope xml:lang="en-US" xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Header/><s:Body><wsmid:IdentifyResponse xmlns:wsmid="http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd"><wsmid:ProtocolVersion>http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd</wsmid:ProtocolVersion><wsmid:ProductVendor>Groupshot &lt;x&gt;</wsmid:ProductVendor><wsmid:ProductVersion>OS: 0.1.0 SP: 0.0 Stack: 3.0</wsmid:ProductVersion><wsmid:SecurityProfiles><wsmid:SecurityProfileName>urn:basic</wsmid:SecurityProfileName></wsmid:SecurityProfiles></wsmid:IdentifyResponse></s:Body></s:Envelope>"#;
        assert_eq!(text, expected);
        product.version = None;
        let text = envelope(&product);
        assert!(text.contains(">OS: 0.0.0 SP: 0.0 Stack: 3.0<"), "{text}");
        assert!(
            !text.contains("SecurityProfile") && !text.contains("0.1.0"),
            "{text}"
        );
    }
}
