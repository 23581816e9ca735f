//! Header rules, H-1 to H-42.

use std::time::Duration;

use crate::text::Language;
use crate::wsman::fault::{Extra, Fault, FaultKind, table};
use crate::wsman::fixture::{Ask, GET, WMI};
use crate::wsman::request::{Client, Operation};
use crate::wsman::uri::Family;

fn assert_fault(fault: &Fault, kind: &'static FaultKind, names: &str) {
    assert_eq!(fault.kind.name, kind.name, "{fault:?}");
    let text = fault.text.english();
    assert!(text.contains(names), "{names:?} is not named in {text:?}");
}

/// Asserts that a request with `from` replaced by `to` is refused as `kind`, naming `names`.
fn refused(ask: &Ask, from: &str, to: &str, kind: &'static FaultKind, names: &str) {
    assert_fault(&ask.replace(from, to).fault(), kind, names);
}

fn long() -> String {
    "x".repeat(2049)
}

#[test]
fn h_1_another_soap_version_is_a_version_mismatch() {
    let ask = Ask::get("");
    let fault = ask
        .replace(
            "http://www.w3.org/2003/05/soap-envelope",
            "http://schemas.xmlsoap.org/soap/envelope/",
        )
        .fault();
    assert_fault(&fault, &table::SOAP_VERSION_MISMATCH, "SOAP 1.2");
    assert_eq!(fault.extra, Extra::Upgrade);
    assert!(matches!(ask.request().operation, Operation::Get(_)));
}

#[test]
fn h_2_an_envelope_has_one_header_then_one_body() {
    let ask = Ask::get("");
    for (from, to) in [
        ("<s:Header>", "<s:Header/><s:Header>"),
        ("<s:Body>", "<s:Body/><s:Body>"),
        ("<s:Body></s:Body>", ""),
        ("<s:Header>", "<s:Other/><s:Header>"),
        ("</s:Body>", "</s:Body><s:Other/>"),
        ("<s:Header>", "<w:Header>"),
    ] {
        let ask = match from {
            "<s:Header>" if to == "<w:Header>" => {
                ask.replace(from, to).replace("</s:Header>", "</w:Header>")
            }
            _ => ask.replace(from, to),
        };
        assert_fault(&ask.fault(), &table::SCHEMA_VALIDATION_ERROR, "envelope");
    }
    let fault = ask.without("s:Header").fault();
    assert_fault(&fault, &table::SCHEMA_VALIDATION_ERROR, "Header");
}

#[test]
fn h_3_an_unknown_block_counts_only_where_it_must_be_understood() {
    let block =
        |attributes: &str| Ask::get(&format!(r#"<q:Foo xmlns:q="urn:q" {attributes}>1</q:Foo>"#));
    for attributes in [
        "",
        r#"s:mustUnderstand="false""#,
        // Not SOAP's attribute: some clients write it on whatever they send.
        r#"mustUnderstand="true""#,
        r#"s:mustUnderstand="true" s:role="urn:other""#,
    ] {
        block(attributes).request();
    }
    for attributes in [
        r#"s:mustUnderstand="true""#,
        r#"s:mustUnderstand="1""#,
        r#"s:mustUnderstand="1" s:role="http://www.w3.org/2003/05/soap-envelope/role/next""#,
    ] {
        let fault = block(attributes).fault();
        assert_fault(&fault, &table::SOAP_FAULT_MUST_UNDERSTAND, "Foo");
        let expected = Extra::NotUnderstood {
            namespace: "urn:q".into(),
            local: "Foo".into(),
        };
        assert_eq!(fault.extra, expected);
    }
}

#[test]
fn h_4_a_known_block_stands_once_and_in_any_order() {
    for block in [
        "<a:To>x</a:To>",
        "<a:Action>x</a:Action>",
        "<a:MessageID>x</a:MessageID>",
        "<a:ReplyTo/>",
        "<w:ResourceURI>x</w:ResourceURI>",
        "<w:SelectorSet/>",
    ] {
        let name = &block[3..block.find(['>', '/']).unwrap()];
        let fault = Ask::get(block).fault();
        assert_fault(&fault, &table::INVALID_MESSAGE_INFORMATION_HEADER, name);
    }
    let doubled = "<w:MaxEnvelopeSize>9999</w:MaxEnvelopeSize>".repeat(2);
    let fault = Ask::get(&doubled).fault();
    assert_fault(
        &fault,
        &table::INVALID_MESSAGE_INFORMATION_HEADER,
        "MaxEnvelopeSize",
    );
    let to = "<a:To>http://h:5985/wsman</a:To>";
    let moved = Ask::get("")
        .replace(to, "")
        .replace("</s:Header>", &format!("{to}</s:Header>"));
    moved.request();
}

#[test]
fn h_10_to_is_required_and_not_compared() {
    let fault = Ask::get("").without("a:To").fault();
    assert_fault(&fault, &table::MESSAGE_INFORMATION_HEADER_REQUIRED, "a:To");
    let other = Ask::get("").replace("http://h:5985/wsman", "http://windows-host:5985/wsman");
    other.request();
}

#[test]
fn h_11_action_is_required_and_known() {
    let ask = Ask::get("");
    assert_fault(
        &ask.without("a:Action").fault(),
        &table::MESSAGE_INFORMATION_HEADER_REQUIRED,
        "a:Action",
    );
    for action in [
        "urn:x",
        "http://schemas.xmlsoap.org/ws/2004/09/transfer/Fetch",
        "http://schemas.xmlsoap.org/ws/2004/08/eventing/Subscribe",
        "http://schemas.xmlsoap.org/ws/2004/09/enumeration/Renew",
    ] {
        let fault = ask.replace(GET, action).fault();
        assert_fault(&fault, &table::ACTION_NOT_SUPPORTED, action);
        assert_eq!(fault.extra, Extra::Action(action.into()));
    }
    // Known, but not for this class.
    for verb in ["Put", "Create", "Delete"] {
        let action = format!("http://schemas.xmlsoap.org/ws/2004/09/transfer/{verb}");
        refused(&ask, GET, &action, &table::ACTION_MISMATCH, verb);
    }
    assert_eq!(ask.request().headers.action, GET);
}

#[test]
fn h_12_message_id_is_required_any_text_up_to_its_limit() {
    let ask = Ask::get("");
    assert_fault(
        &ask.without("a:MessageID").fault(),
        &table::MESSAGE_INFORMATION_HEADER_REQUIRED,
        "a:MessageID",
    );
    let kind = &table::INVALID_MESSAGE_INFORMATION_HEADER;
    refused(&ask, "uuid:1", "", kind, "a:MessageID");
    refused(&ask, "uuid:1", &long(), kind, "a:MessageID");
    let request = ask.replace("uuid:1", "\n  urn:uuid:Ab \n").request();
    assert_eq!(request.headers.message_id.as_deref(), Some("urn:uuid:Ab"));
}

#[test]
fn h_13_reply_to_is_required_anonymous_and_its_parameters_come_back() {
    let ask = Ask::get("");
    let anonymous = "http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous";
    assert_fault(
        &ask.without("a:ReplyTo").fault(),
        &table::MESSAGE_INFORMATION_HEADER_REQUIRED,
        "a:ReplyTo",
    );
    let kind = &table::UNSUPPORTED_ADDRESSING_MODE;
    refused(
        &ask,
        anonymous,
        "http://elsewhere/",
        kind,
        "http://elsewhere/",
    );
    assert_fault(
        &ask.without("a:Address").fault(),
        &table::INVALID_MESSAGE_INFORMATION_HEADER,
        "a:ReplyTo",
    );
    ask.replace(anonymous, &format!(" {anonymous}/ ")).request();
    let parameters =
        "</a:Address><a:ReferenceParameters><q:k xmlns:q=\"urn:q\">v</q:k></a:ReferenceParameters>";
    let with = ask.replace("</a:Address>", parameters);
    let expected = "<c:k xmlns:c=\"urn:q\">v</c:k>";
    assert_eq!(with.request().headers.reply_parameters, expected);
    let rejected = with.replace(GET, "urn:x").received().request.unwrap_err();
    assert_eq!(rejected.reply_parameters, expected);
    assert_eq!(rejected.relates_to.as_deref(), Some("uuid:1"));
}

#[test]
fn h_13_what_goes_back_is_bounded_however_often_its_namespace_is_written() {
    let ask = Ask::get("");
    let with = |namespace: &str, times: usize| {
        let parameters = format!(
            "</a:Address><a:ReferenceParameters xmlns:x=\"{namespace}\">{}</a:ReferenceParameters>",
            "<x:a/>".repeat(times)
        );
        ask.replace("</a:Address>", &parameters)
    };
    let copies = with("urn:x", 1000).request().headers.reply_parameters;
    assert_eq!(copies, "<c:a xmlns:c=\"urn:x\"></c:a>".repeat(1000));
    let many = with(&"u".repeat(2048), 41_000);
    assert_fault(&many.fault(), &table::ENCODING_LIMIT, "32768");
    let rejected = many.received().request.unwrap_err();
    assert_eq!(rejected.reply_parameters, "");
    let fault = with(&"u".repeat(240_000), 1).fault();
    assert_fault(&fault, &table::SCHEMA_VALIDATION_ERROR, "2048");
}

#[test]
fn what_a_fault_quotes_is_short() {
    let quoted = "x".repeat(100_000);
    let fault = Ask::get("").replace(GET, &quoted).fault();
    assert_fault(
        &fault,
        &table::INVALID_MESSAGE_INFORMATION_HEADER,
        "a:Action",
    );
    let header = format!("<w:OperationTimeout>{quoted}</w:OperationTimeout>");
    let fault = Ask::get(&header).fault();
    assert_fault(&fault, &table::INVALID_TIMEOUT_HEADER, "xxx");
    assert!(fault.text.english().len() < 3000);
}

#[test]
fn h_14_fault_to_is_anonymous_or_absent() {
    let with = |address: &str| {
        Ask::get(&format!(
            "<a:FaultTo><a:Address>{address}</a:Address></a:FaultTo>"
        ))
    };
    with("http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous").request();
    let fault = with("http://elsewhere/").fault();
    assert_fault(&fault, &table::UNSUPPORTED_ADDRESSING_MODE, "a:FaultTo");
}

#[test]
fn h_16_resource_uri_is_required_known_and_not_too_long() {
    let ask = Ask::get("");
    let uri = &format!("{WMI}T_System");
    let invalid = &table::INVALID_RESOURCE_URI;
    assert_fault(
        &ask.without("w:ResourceURI").fault(),
        invalid,
        "w:ResourceURI",
    );
    refused(&ask, uri, "", invalid, "w:ResourceURI");
    refused(&ask, uri, "urn:what", invalid, "urn:what");
    refused(&ask, uri, &long(), &table::URI_LIMIT, "2048");
    let unknown = &table::RESOURCE_NOT_FOUND;
    refused(&ask, uri, &format!("{WMI}T_Nope"), unknown, "T_Nope");
    refused(
        &ask,
        uri,
        &uri.replace("v2", "v9"),
        unknown,
        "root/virtualization/v9",
    );
    let backslashes = uri.replace("root/virtualization/v2", r"ROOT\Virtualization\v2");
    let request = ask.replace(uri, &format!(" {backslashes} ")).request();
    assert_eq!(request.headers.resource_uri, backslashes);
    assert_eq!(request.headers.family, Family::Wmi);
}

#[test]
fn h_19_operation_timeout_is_a_positive_duration_and_capped() {
    let with = |text: &str| Ask::get(&format!("<w:OperationTimeout>{text}</w:OperationTimeout>"));
    for (text, seconds) in [
        ("PT5.000S", 5),
        (" PT1M ", 60),
        ("PT1M30S", 60),
        ("P1D", 60),
    ] {
        let timeout = with(text).request().headers.timeout;
        assert_eq!(timeout, Duration::from_secs(seconds), "{text}");
    }
    assert_eq!(
        Ask::get("").request().headers.timeout,
        Duration::from_secs(60)
    );
    for text in ["", "60", "PT0S", "-PT5S", "PT", "2030-01-01T00:00:00Z"] {
        assert_fault(
            &with(text).fault(),
            &table::INVALID_TIMEOUT_HEADER,
            "w:OperationTimeout",
        );
    }
}

#[test]
fn h_20_max_envelope_size_is_a_number_with_a_floor_and_capped() {
    let with = |text: &str| {
        Ask::get(&format!(
            "<w:MaxEnvelopeSize s:mustUnderstand=\"true\">{text}</w:MaxEnvelopeSize>"
        ))
    };
    let size = |ask: Ask| ask.request().headers.max_envelope_size;
    assert_eq!(size(with(" 8192 ")), 8192);
    assert_eq!(size(with("99999999999999999999999")), 500 * 1024);
    assert_eq!(size(Ask::get("")), 500 * 1024);
    assert_fault(&with("8191").fault(), &table::MIN_ENVELOPE_SIZE, "8191");
    for text in ["", "-1", "many", "1e9"] {
        assert_fault(
            &with(text).fault(),
            &table::MAX_ENVELOPE_SIZE,
            "w:MaxEnvelopeSize",
        );
    }
}

#[test]
fn h_21_and_h_22_a_language_is_a_wish_unless_it_must_be_understood() {
    let block = |name: &str, language: &str, must: &str| {
        Ask::get(&format!(
            r#"<{name} xml:lang="{language}" s:mustUnderstand="{must}"/>"#
        ))
    };
    let language = block("w:Locale", "de-DE", "false")
        .request()
        .headers
        .language;
    assert_eq!(language, Language::EnUs);
    block("w:Locale", "en-us", "true").request();
    block("p:DataLocale", "de-DE", "false").request();
    let fault = block("w:Locale", "de-DE", "true").fault();
    assert_fault(
        &fault,
        &table::MUSTUNDERSTAND_ON_LOCALE_UNSUPPORTED,
        "de-DE",
    );
    let fault = block("p:DataLocale", "de-DE", "true").fault();
    assert_fault(&fault, &table::DATA_LOCALE_UNSUPPORTED, "de-DE");
}

#[test]
fn h_23_to_h_25_options_are_understood_and_two_have_an_effect() {
    let with = |options: &str| {
        Ask::get(&format!(
            r#"<w:OptionSet s:mustUnderstand="true">{options}</w:OptionSet>"#
        ))
    };
    let headers = with("").request().headers;
    assert!(!headers.precise_arrays && !headers.show_types);
    let headers = with(
        r#"<w:Option Name="__MI_CallbackRegistration" Type="xs:int">11</w:Option><w:Option Name="wmi:x" MustComply="true" xsi:nil="true"/><w:Option Name="msftwinrm:UsePreciseArrays" Type="xs:boolean">true</w:Option><w:Option Name="ShowExtensions">1</w:Option>"#,
    )
    .request()
    .headers;
    assert!(headers.precise_arrays && headers.show_types);
    let style = headers.style();
    assert!(style.precise_arrays && style.show_types && style.family == Family::Wmi);
    assert_fault(
        &with("<w:Option/>").fault(),
        &table::OPTIONS_INVALID_NAME,
        "Name",
    );
    let many = r#"<w:Option Name="o"/>"#.repeat(257);
    assert_fault(&with(&many).fault(), &table::OPTION_LIMIT, "256");
}

#[test]
fn h_23_an_option_that_must_be_complied_with_is_refused_where_there_are_no_options() {
    let with = |must: &str| {
        let option = format!("<w:Option Name=\"a\"/><w:Option Name=\"o\" {must}>x</w:Option>");
        let set = format!("<w:OptionSet>{option}</w:OptionSet>");
        Ask::new(
            GET,
            "http://schemas.microsoft.com/wbem/wsman/1/config",
            &set,
            "",
        )
    };
    for must in ["MustComply=\"true\"", "MustComply=\"1\""] {
        assert_fault(
            &with(must).fault(),
            &table::OPTIONS_NOT_SUPPORTED,
            "option o",
        );
    }
    for must in ["", "MustComply=\"false\""] {
        assert!(with(must).received().request.is_ok(), "{must}");
    }
}

#[test]
fn h_26_to_h_32_known_blocks_of_no_effect_are_understood() {
    for block in [
        r#"<w:RequestEPR s:mustUnderstand="true"/>"#,
        r#"<p:SessionId s:mustUnderstand="true">uuid:2</p:SessionId>"#,
        r#"<p:OperationID s:mustUnderstand="true">uuid:2</p:OperationID>"#,
        r#"<p:SequenceId s:mustUnderstand="true">1</p:SequenceId>"#,
        r#"<p:ActivityId s:mustUnderstand="true">x</p:ActivityId>"#,
        r#"<p:CompressionType s:mustUnderstand="true">xpress</p:CompressionType>"#,
        r#"<a:From s:mustUnderstand="true"/><a:From/><a:RelatesTo>x</a:RelatesTo>"#,
    ] {
        let headers = Ask::get(block).request().headers;
        assert!(!headers.wants_count);
    }
    let headers = Ask::get("<w:RequestTotalItemsCountEstimate/>")
        .request()
        .headers;
    assert!(headers.wants_count);
    let fault = Ask::get(&format!("<p:ActivityId>{}</p:ActivityId>", long())).fault();
    assert_fault(
        &fault,
        &table::INVALID_MESSAGE_INFORMATION_HEADER,
        "p:ActivityId",
    );
}

#[test]
fn h_28_fragment_transfer_is_refused_by_name() {
    let with = |must: &str| {
        Ask::get(&format!(
            "<w:FragmentTransfer {must}>Name</w:FragmentTransfer>"
        ))
    };
    let fault = with(r#"s:mustUnderstand="true""#).fault();
    assert_fault(
        &fault,
        &table::FRAGMENT_TRANSFER_NOT_SUPPORTED,
        "w:FragmentTransfer",
    );
    for must in ["", r#"s:mustUnderstand="false""#] {
        let fault = with(must).fault();
        assert_fault(
            &fault,
            &table::INVALID_MESSAGE_INFORMATION_HEADER,
            "mustUnderstand",
        );
    }
}

#[test]
fn h_33_security_headers_are_not_understood() {
    let block = r#"<q:Security xmlns:q="http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd" s:mustUnderstand="true"/>"#;
    let fault = Ask::get(block).fault();
    assert_fault(&fault, &table::SOAP_FAULT_MUST_UNDERSTAND, "Security");
}

#[test]
fn h_42_end_and_cancel_need_no_reply_to() {
    for verb in ["End", "Cancel"] {
        let action = format!("http://schemas.microsoft.com/wbem/wsman/1/wsman/{verb}");
        let uri = "http://schemas.microsoft.com/wbem/wsman/1/wsman/FullDuplex";
        let ask = Ask::new(&action, uri, "<p:OperationID>uuid:4</p:OperationID>", "");
        let request = ask.without("a:ReplyTo").request();
        assert!(matches!(request.operation, Operation::End), "{request:?}");
    }
}

#[test]
fn o_1_identify_needs_no_headers() {
    let identify = |header: &str| Ask {
        text: format!(
            r#"<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope">{header}<s:Body><i:Identify xmlns:i="http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd"/></s:Body></s:Envelope>"#
        ),
    };
    for header in [
        "",
        "<s:Header/>",
        r#"<s:Header><q:x xmlns:q="urn:q" s:mustUnderstand="1"/></s:Header>"#,
    ] {
        let request = identify(header).request();
        assert!(matches!(request.operation, Operation::Identify));
        assert_eq!(request.headers.message_id, None);
    }
}

#[test]
fn f_2_omi_is_known_by_its_agent_or_by_how_it_shouts() {
    assert_eq!(Client::of("xplat http client", "http://h/"), Client::Omi);
    assert_eq!(Client::of("", "HTTP://127.0.0.1:5985/wsman/"), Client::Omi);
    assert_eq!(Client::of("", "http://h/"), Client::Other);
    assert_eq!(Client::of("openwsman 2.2.0", "HTTP://h/"), Client::Other);
}
