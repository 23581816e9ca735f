//! The table of faults and the envelopes made of it.

use std::collections::BTreeSet;

use super::cim_error::Tried;
use super::{Attempt, Code, Extra, Fault, FaultHeaders, FaultKind, table};
use crate::cim::Status;
use crate::soap::ns;
use crate::text::Language;
use crate::text::catalog::wire;
use crate::wsman::request::Client;
use crate::wsman::uri::Family;
use crate::xml::{Element, parse};

const HEADERS: FaultHeaders<'static> = FaultHeaders {
    language: Language::EnUs,
    message_id: "uuid:2",
    relates_to: Some("uuid:1"),
    reply_parameters: "",
    client: Client::Other,
    machine: "hv1",
    attempt: None,
};

/// Every fault code, by the list of which [`FaultKind`] is right: code, subcode, detail, action, number.
const ROWS: &[(&FaultKind, &str, &str, &str, &str, u32)] = {
    use table as t;
    const A: &str = "http://schemas.xmlsoap.org/ws/2004/08/addressing/fault";
    const W: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/fault";
    const N: &str = "http://schemas.xmlsoap.org/ws/2004/09/enumeration/fault";
    const X: &str = "http://schemas.xmlsoap.org/ws/2004/09/transfer/fault";
    const E: &str = "http://schemas.xmlsoap.org/ws/2004/08/eventing/fault";
    &[
        (
            &t::SOAP_VERSION_MISMATCH,
            "s:VersionMismatch",
            "",
            "",
            A,
            0x8033_800D,
        ),
        (
            &t::SOAP_FAULT_MUST_UNDERSTAND,
            "s:MustUnderstand",
            "",
            "",
            A,
            0x8033_8010,
        ),
        (&t::ACCESS_DENIED, "s:Sender", "w:AccessDenied", "", W, 5),
        (
            &t::ACTION_MISMATCH,
            "s:Sender",
            "a:ActionNotSupported",
            "ActionMismatch",
            A,
            0x8033_8031,
        ),
        (
            &t::ACTION_NOT_SUPPORTED,
            "s:Sender",
            "a:ActionNotSupported",
            "",
            A,
            0x8033_8013,
        ),
        (
            &t::ENUMERATE_CANNOT_PROCESS_FILTER,
            "s:Sender",
            "n:CannotProcessFilter",
            "",
            N,
            0x8033_801A,
        ),
        (
            &t::INVALID_RESOURCE_URI,
            "s:Sender",
            "a:DestinationUnreachable",
            "InvalidResourceURI",
            A,
            0x8033_803B,
        ),
        (
            &t::RESOURCE_NOT_FOUND,
            "s:Sender",
            "a:DestinationUnreachable",
            "InvalidResourceURI",
            A,
            0x8033_8000,
        ),
        (
            &t::INSTANCE_NOT_FOUND,
            "s:Sender",
            "a:DestinationUnreachable",
            "",
            A,
            0x8033_8000,
        ),
        (
            &t::URI_LIMIT,
            "s:Sender",
            "w:EncodingLimit",
            "URILimitExceeded",
            W,
            0x8033_802D,
        ),
        (
            &t::MIN_ENVELOPE_SIZE,
            "s:Sender",
            "w:EncodingLimit",
            "MinimumEnvelopeLimit",
            W,
            0x8033_807E,
        ),
        (
            &t::MAX_ENVELOPE_SIZE_EXCEEDED,
            "s:Sender",
            "w:EncodingLimit",
            "MaxEnvelopeSizeExceeded",
            W,
            0x8033_8048,
        ),
        (
            &t::UNREPORTABLE_SUCCESS,
            "s:Sender",
            "w:EncodingLimit",
            "UnreportableSuccess",
            W,
            0x8033_804D,
        ),
        (
            &t::SELECTOR_LIMIT,
            "s:Sender",
            "w:EncodingLimit",
            "SelectorLimit",
            W,
            0x8033_804A,
        ),
        (
            &t::CHARACTER_SET,
            "s:Sender",
            "w:EncodingLimit",
            "CharacterSet",
            W,
            0x8033_804C,
        ),
        (
            &t::ENDPOINT_UNAVAILABLE,
            "s:Receiver",
            "a:EndpointUnavailable",
            "",
            A,
            0x8033_8014,
        ),
        (
            &t::ENUMERATE_FILTER_DIALECT_REQUESTED_UNAVAILABLE,
            "s:Sender",
            "n:FilterDialectRequestedUnavailable",
            "",
            N,
            0x8033_8019,
        ),
        (
            &t::INTERNAL_ERROR,
            "s:Receiver",
            "w:InternalError",
            "",
            W,
            0x54F,
        ),
        (
            &t::INVALID_TIMEOUT_HEADER,
            "s:Sender",
            "a:InvalidMessageInformationHeader",
            "InvalidTimeout",
            W,
            0x8033_8081,
        ),
        (
            &t::ENUMERATE_INVALID_ENUMERATION_CONTEXT,
            "s:Receiver",
            "n:InvalidEnumerationContext",
            "",
            N,
            0x8033_801B,
        ),
        (
            &t::ENUMERATE_INVALID_EXPIRATION_TIME,
            "s:Sender",
            "n:InvalidExpirationTime",
            "",
            N,
            0x8033_8016,
        ),
        (
            &t::INVALID_MESSAGE_INFORMATION_HEADER,
            "s:Sender",
            "a:InvalidMessageInformationHeader",
            "",
            A,
            0x8033_800F,
        ),
        (
            &t::PARAMETER_TYPE_MISMATCH,
            "s:Sender",
            "w:InvalidParameter",
            "TypeMismatch",
            W,
            0x8033_8054,
        ),
        (
            &t::INVALID_PARAMETER_NAME,
            "s:Sender",
            "w:InvalidParameter",
            "InvalidName",
            W,
            0x8033_8055,
        ),
        (
            &t::INVALID_PARAMETER,
            "s:Sender",
            "w:InvalidParameter",
            "",
            W,
            0x8033_803A,
        ),
        (
            &t::INVALID_REPRESENTATION,
            "s:Sender",
            "x:InvalidRepresentation",
            "",
            X,
            0x8033_8015,
        ),
        (
            &t::INSUFFICIENT_SELECTORS,
            "s:Sender",
            "w:InvalidSelectors",
            "InsufficientSelectors",
            W,
            0x8033_805A,
        ),
        (
            &t::UNEXPECTED_SELECTORS,
            "s:Sender",
            "w:InvalidSelectors",
            "UnexpectedSelectors",
            W,
            0x8033_805B,
        ),
        (
            &t::SELECTOR_TYPEMISMATCH,
            "s:Sender",
            "w:InvalidSelectors",
            "TypeMismatch",
            W,
            0x8033_805C,
        ),
        (
            &t::INVALID_SELECTOR_VALUE,
            "s:Sender",
            "w:InvalidSelectors",
            "InvalidValue",
            W,
            0x8033_805D,
        ),
        (
            &t::DUPLICATE_SELECTORS,
            "s:Sender",
            "w:InvalidSelectors",
            "DuplicateSelectors",
            W,
            0x8033_805F,
        ),
        (
            &t::MESSAGE_INFORMATION_HEADER_REQUIRED,
            "s:Sender",
            "a:MessageInformationHeaderRequired",
            "",
            A,
            0x8033_8011,
        ),
        (
            &t::QUOTA_MAX_OPERATIONS,
            "s:Sender",
            "w:QuotaLimit",
            "",
            W,
            2_150_859_174,
        ),
        (
            &t::SCHEMA_VALIDATION_ERROR,
            "s:Sender",
            "w:SchemaValidationError",
            "",
            W,
            0x8033_8041,
        ),
        (
            &t::OPERATION_TIMEDOUT,
            "s:Receiver",
            "w:TimedOut",
            "",
            W,
            0x8033_8029,
        ),
        (
            &t::UNSUPPORTED_ADDRESSING_MODE,
            "s:Sender",
            "w:UnsupportedFeature",
            "AddressingMode",
            W,
            0x8033_8076,
        ),
        (
            &t::FRAGMENT_TRANSFER_NOT_SUPPORTED,
            "s:Sender",
            "w:UnsupportedFeature",
            "FragmentLevelAccess",
            W,
            0x8033_8077,
        ),
        (
            &t::MAX_ELEMENTS_NOT_SUPPORTED,
            "s:Sender",
            "w:UnsupportedFeature",
            "MaxElements",
            W,
            0x8033_811D,
        ),
        (
            &t::ENUMERATION_MODE_UNSUPPORTED,
            "s:Sender",
            "w:UnsupportedFeature",
            "EnumerationMode",
            W,
            0x8033_8086,
        ),
        (
            &t::POLYMORPHISM_MODE_UNSUPPORTED,
            "s:Receiver",
            "b:PolymorphismModeNotSupported",
            "",
            W,
            0x8033_8137,
        ),
        (
            &t::DIFFERENT_CIM_SELECTOR,
            "s:Receiver",
            "w:InternalError",
            "",
            W,
            0x8033_813B,
        ),
        (
            &t::EVENTING_UNABLE_TO_RENEW,
            "s:Receiver",
            "e:UnableToRenew",
            "",
            E,
            0x8033_8024,
        ),
    ]
};

fn text_of(element: Element<'_>, path: &[(&str, &str)]) -> String {
    let found = path
        .iter()
        .try_fold(element, |at, (namespace, local)| at.child(namespace, local));
    found.map_or_else(String::new, |e| e.text().into_owned())
}

fn body_of<'d>(root: Element<'d>) -> Element<'d> {
    let body = root.child(ns::SOAP, "Body").unwrap();
    body.child(ns::SOAP, "Fault").unwrap()
}

#[test]
fn f_1_every_row_is_written_with_its_code_subcode_detail_action_and_number() {
    for (kind, code, subcode, detail, action, number) in ROWS {
        let envelope = kind.fault(wire::NO_HEADER.text()).envelope(&HEADERS);
        let document = parse(&envelope).unwrap();
        let root = document.root();
        let header = root.child(ns::SOAP, "Header").unwrap();
        let fault = body_of(root);
        let name = kind.name;
        assert_eq!(
            text_of(header, &[(ns::ADDRESSING, "Action")]),
            *action,
            "{name}"
        );
        let at = [(ns::SOAP, "Code"), (ns::SOAP, "Value")];
        assert_eq!(text_of(fault, &at), *code, "{name}");
        let at = [
            (ns::SOAP, "Code"),
            (ns::SOAP, "Subcode"),
            (ns::SOAP, "Value"),
        ];
        assert_eq!(text_of(fault, &at), *subcode, "{name}");
        let uri = match *detail {
            "" => String::new(),
            detail => format!("http://schemas.dmtf.org/wbem/wsman/1/wsman/faultDetail/{detail}"),
        };
        let at = [(ns::SOAP, "Detail"), (ns::WSMAN, "FaultDetail")];
        assert_eq!(text_of(fault, &at), uri, "{name}");
        let native = fault
            .child(ns::SOAP, "Detail")
            .unwrap()
            .child(ns::FAULT, "WSManFault")
            .unwrap();
        assert_eq!(
            native.attribute("", "Code"),
            Some(&*number.to_string()),
            "{name}"
        );
        assert_eq!(native.attribute("", "Machine"), Some("hv1"), "{name}");
    }
}

#[test]
fn f_3_every_kind_is_well_formed_and_its_prefix_is_declared() {
    let mut names = BTreeSet::new();
    for kind in table::ALL {
        assert!(names.insert(kind.name), "{} stands twice", kind.name);
        let envelope = kind.fault(wire::NO_HEADER.text()).envelope(&HEADERS);
        let document = parse(&envelope).unwrap();
        let fault = body_of(document.root());
        let has_subcode = !matches!(kind.code, Code::VersionMismatch | Code::MustUnderstand);
        assert_eq!(!kind.subcode.is_empty(), has_subcode, "{}", kind.name);
        if let Some((prefix, _)) = kind.subcode.split_once(':') {
            assert!(fault.resolve(prefix).is_some(), "{} {prefix}", kind.name);
        }
    }
}

#[test]
fn f_5_f_6_f_10_reason_message_and_relation_are_there() {
    let fault = table::INVALID_PARAMETER_NAME.fault(
        wire::PARAMETER_UNKNOWN
            .with("parameter", "<Nope>")
            .with("method", "Do"),
    );
    let envelope = fault.envelope(&HEADERS);
    let document = parse(&envelope).unwrap();
    let root = document.root();
    assert_eq!(
        root.attribute(crate::xml::XML_NAMESPACE, "lang"),
        Some("en-US")
    );
    let header = root.child(ns::SOAP, "Header").unwrap();
    let order: Vec<_> = header.children().map(|h| h.local()).collect();
    assert_eq!(order, ["Action", "MessageID", "To", "RelatesTo"]);
    assert_eq!(text_of(header, &[(ns::ADDRESSING, "RelatesTo")]), "uuid:1");
    let fault = body_of(root);
    let words = "the method Do has no parameter <Nope>";
    assert_eq!(
        text_of(fault, &[(ns::SOAP, "Reason"), (ns::SOAP, "Text")]),
        words
    );
    let at = [
        (ns::SOAP, "Detail"),
        (ns::FAULT, "WSManFault"),
        (ns::FAULT, "Message"),
    ];
    assert_eq!(text_of(fault, &at), words);

    let unrelated = FaultHeaders {
        language: Language::EnUs,
        relates_to: None,
        reply_parameters: "<k xmlns=\"urn:q\">v</k>",
        ..HEADERS
    };
    let envelope = table::SCHEMA_VALIDATION_ERROR
        .fault(wire::NO_HEADER.text())
        .envelope(&unrelated);
    let document = parse(&envelope).unwrap();
    let header = document.root().child(ns::SOAP, "Header").unwrap();
    assert!(header.child(ns::ADDRESSING, "RelatesTo").is_none());
    assert_eq!(text_of(header, &[("urn:q", "k")]), "v");
}

#[test]
fn h_1_h_3_h_11_extra_parts_are_written() {
    let written = |extra: Extra| {
        let fault = table::ACTION_NOT_SUPPORTED.fault(wire::NO_HEADER.text());
        fault.with(extra).envelope(&HEADERS)
    };
    let action = written(Extra::Action("urn:<x>".into()));
    assert!(
        action.contains("<s:Detail><a:Action>urn:&lt;x&gt;</a:Action>"),
        "{action}"
    );
    let block = written(Extra::NotUnderstood {
        namespace: "urn:q".into(),
        local: "Foo".into(),
    });
    assert!(
        block.contains(r#"<s:NotUnderstood qname="q:Foo" xmlns:q="urn:q"/></s:Header>"#),
        "{block}"
    );
    let upgrade = written(Extra::Upgrade);
    assert!(
        upgrade.contains(r#"<s:SupportedEnvelope qname="s:Envelope"/>"#),
        "{upgrade}"
    );
}

#[test]
fn f_2_omi_gets_only_actions_that_it_knows() {
    for kind in table::ALL {
        let fault = kind.fault(wire::NO_HEADER.text());
        let known = [
            "addressing/fault",
            "wsman/1/wsman/fault",
            "2004/08/eventing/fault",
        ];
        let action = fault.action(Client::Omi);
        assert!(known.iter().any(|k| action.ends_with(k)), "{action}");
    }
    let gone = table::ENUMERATE_INVALID_ENUMERATION_CONTEXT.fault(wire::NO_CONTEXT.text());
    assert!(
        gone.action(Client::Other)
            .ends_with("2004/09/enumeration/fault")
    );
}

#[test]
fn f_20_a_cim_status_comes_with_an_error_instance() {
    let fault = Fault::from_status(Status::NotFound, wire::NO_HEADER.text(), Tried::Select);
    let class = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/MSFT_WmiError";
    let envelope = fault.envelope(&HEADERS);
    let document = parse(&envelope).unwrap();
    let detail = body_of(document.root()).child(ns::SOAP, "Detail").unwrap();
    let error = detail.child(class, "MSFT_WmiError").unwrap();
    assert_eq!(error.attribute(ns::BINDING, "IsCIM_Error"), Some("true"));
    assert_eq!(
        error.attribute(ns::XSI, "type"),
        Some("p:MSFT_WmiError_Type")
    );
    for (name, text) in [
        ("CIMStatusCode", "6"),
        ("MessageID", "HRESULT 0x80041002"),
        ("error_Code", "2147749890"),
        ("error_Category", "13"),
        ("error_Type", "HRESULT"),
    ] {
        assert_eq!(text_of(error, &[(class, name)]), text, "{name}");
    }
    for property in error.children() {
        let typed = property
            .attribute(ns::XSI, "type")
            .or(property.attribute(ns::XSI, "nil"));
        assert!(typed.is_some(), "{} has no type", property.local());
    }
    assert!(detail.child(ns::FAULT, "WSManFault").is_some());
    let plain = table::INSTANCE_NOT_FOUND.fault(wire::NO_HEADER.text());
    assert!(!plain.envelope(&HEADERS).contains("MSFT_WmiError"));
}

#[test]
fn f_21_omi_gets_its_own_error_class() {
    let omi = FaultHeaders {
        language: Language::EnUs,
        client: Client::Omi,
        ..HEADERS
    };
    let fault = Fault::from_status(
        Status::InvalidParameter,
        wire::NO_HEADER.text(),
        Tried::Invoke,
    );
    let envelope = fault.envelope(&omi);
    for part in [
        "<p:OMI_Error ",
        "OMI:MI_Result:4<",
        "p:OMI_Code",
        "p:OMI_Category",
        "p:OMI_Error_Message",
    ] {
        assert!(envelope.contains(part), "{part} is not in {envelope}");
    }
    assert!(!envelope.contains("MSFT_WmiError"));
}

#[test]
fn f_11_what_a_provider_said_is_nested_under_the_number_of_the_fault() {
    let fault = Fault::from_status(Status::NotFound, wire::NO_HEADER.text(), Tried::Select);
    let words = fault.text.english();
    let envelope = fault.envelope(&HEADERS);
    let nested = format!(
        "<f:Message>{words}<f:ProviderFault provider=\"Groupshot\"><f:WSManFault Code=\"{}\" Machine=\"hv1\">\
         <f:Message>{words}</f:Message></f:WSManFault></f:ProviderFault></f:Message>",
        2_150_858_752_u32
    );
    assert!(envelope.contains(&nested), "{envelope}");
    // Not where no provider was asked, and not for OMI's strict reader.
    let own = table::ACCESS_DENIED.fault(wire::NO_HEADER.text());
    assert!(!own.envelope(&HEADERS).contains("ProviderFault"));
    let omi = FaultHeaders {
        language: Language::EnUs,
        client: Client::Omi,
        ..HEADERS
    };
    assert!(!fault.envelope(&omi).contains("ProviderFault"));
}

#[test]
fn f_11_what_was_attempted_is_told_in_the_family_of_the_request() {
    let fault = Fault::from_status(Status::NotFound, wire::NO_HEADER.text(), Tried::Select);
    let words = fault.text.english();
    let xsi = ns::XSI;
    for (family, uri, parameter, told) in [
        (
            Family::Wmi,
            "http://schemas.microsoft.com/wbem/wsman/1/wmi/root/cimv2/__ExtendedStatus",
            Some("A.B=\"<c>\""),
            "<p:ParameterInfo>A.B=\"&lt;c&gt;\"</p:ParameterInfo>",
        ),
        (
            Family::Dmtf,
            "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/__ExtendedStatus",
            None,
            "<p:ParameterInfo xsi:nil=\"true\"/>",
        ),
    ] {
        let attempt = Attempt {
            family,
            namespace: "root/cimv2".to_owned(),
            operation: "GetObject",
            parameter: parameter.map(str::to_owned),
        };
        let headers = FaultHeaders {
            language: Language::EnUs,
            attempt: Some(&attempt),
            ..HEADERS
        };
        let expected = format!(
            "</f:WSManFault><f:ExtendedError><p:__ExtendedStatus xmlns:p=\"{uri}\" xmlns:xsi=\"{xsi}\" \
             xsi:type=\"p:__ExtendedStatus_Type\"><p:Description>{words}</p:Description>\
             <p:Operation>GetObject</p:Operation>{told}<p:ProviderName>Groupshot</p:ProviderName>\
             <p:StatusCode>{}</p:StatusCode></p:__ExtendedStatus></f:ExtendedError></f:ProviderFault>",
            0x8004_1002_u32
        );
        let envelope = fault.envelope(&headers);
        assert!(envelope.contains(&expected), "{envelope}");
        let error = "<p:error_Code xsi:type=\"cim:cimUnsignedInt\">2147749890</p:error_Code>";
        assert!(envelope.contains(error), "{envelope}");
        let omi = FaultHeaders {
            language: Language::EnUs,
            client: Client::Omi,
            ..headers
        };
        assert!(!fault.envelope(&omi).contains("ExtendedStatus"));
    }
}

#[test]
fn f_24_an_internal_error_is_found_in_the_log_by_its_activity() {
    let internal = table::INTERNAL_ERROR.fault(wire::NO_HEADER.text());
    let envelope = internal.envelope(&HEADERS);
    let document = parse(&envelope).unwrap();
    let header = document.root().child(ns::SOAP, "Header").unwrap();
    let told = text_of(header, &[(ns::MICROSOFT, "ActivityId")]);
    assert_eq!(told, HEADERS.activity());
    assert_eq!(HEADERS.message_id, format!("uuid:{told}"));
    let other = table::ACCESS_DENIED.fault(wire::NO_HEADER.text());
    assert!(!other.envelope(&HEADERS).contains("ActivityId"));
}

#[test]
fn f_22_every_status_has_its_fault_and_hresult() {
    use Status as S;
    use Tried::{Invoke, Select, Write};
    use table as t;
    let rows: &[(Status, Tried, &FaultKind, &str)] = &[
        (S::Failed, Invoke, &t::INTERNAL_ERROR, "0x80041001"),
        (S::AccessDenied, Invoke, &t::ACCESS_DENIED, "0x80041003"),
        (
            S::InvalidNamespace,
            Select,
            &t::RESOURCE_NOT_FOUND,
            "0x8004100e",
        ),
        (
            S::InvalidParameter,
            Invoke,
            &t::INVALID_PARAMETER,
            "0x80041008",
        ),
        (
            S::InvalidParameter,
            Select,
            &t::INVALID_SELECTORS,
            "0x80041008",
        ),
        (
            S::InvalidParameter,
            Write,
            &t::INVALID_REPRESENTATION,
            "0x80041008",
        ),
        (
            S::InvalidClass,
            Select,
            &t::RESOURCE_NOT_FOUND,
            "0x80041010",
        ),
        (S::NotFound, Select, &t::INSTANCE_NOT_FOUND, "0x80041002"),
        (S::NotSupported, Select, &t::ACTION_MISMATCH, "0x8004100c"),
        (S::AlreadyExists, Write, &t::ALREADY_EXISTS, "0x80041019"),
        (
            S::NoSuchProperty,
            Invoke,
            &t::INVALID_PARAMETER_NAME,
            "0x80041031",
        ),
        (
            S::TypeMismatch,
            Invoke,
            &t::PARAMETER_TYPE_MISMATCH,
            "0x80041005",
        ),
        (
            S::QueryLanguageNotSupported,
            Select,
            &t::ENUMERATE_FILTER_DIALECT_REQUESTED_UNAVAILABLE,
            "0x80041018",
        ),
        (
            S::InvalidQuery,
            Select,
            &t::ENUMERATE_CANNOT_PROCESS_FILTER,
            "0x80041017",
        ),
        (
            S::MethodNotAvailable,
            Invoke,
            &t::ACTION_NOT_SUPPORTED,
            "0x80041055",
        ),
        (S::MethodNotFound, Invoke, &t::ACTION_MISMATCH, "0x8004102e"),
        (
            S::InvalidEnumerationContext,
            Select,
            &t::ENUMERATE_INVALID_ENUMERATION_CONTEXT,
            "0x8033801b",
        ),
        (
            S::InvalidOperationTimeout,
            Select,
            &t::INVALID_TIMEOUT_HEADER,
            "0x80338081",
        ),
        (
            S::ServerLimitsExceeded,
            Select,
            &t::QUOTA_MAX_OPERATIONS,
            "0x803381a6",
        ),
        (
            S::ServerIsShuttingDown,
            Select,
            &t::ENDPOINT_UNAVAILABLE,
            "0x80338014",
        ),
    ];
    for (status, tried, kind, hresult) in rows {
        let fault = Fault::from_status(*status, wire::NO_HEADER.text(), *tried);
        assert_eq!(fault.kind.name, kind.name, "{status:?}");
        let envelope = fault.envelope(&HEADERS);
        assert!(
            envelope.contains(&format!(">HRESULT {hresult}<")),
            "{status:?}"
        );
        let code = format!("cim:cimUnsignedInt\">{}</p:CIMStatusCode>", status.code());
        assert!(envelope.contains(&code), "{status:?}");
    }
}
