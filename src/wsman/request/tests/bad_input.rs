//! What hostile and broken clients send: always a fault, never a panic, never a wrong reading.

use crate::framing::Charset;
use crate::wsman::fault::{FaultKind, table};
use crate::wsman::fixture::{Ask, schema};
use crate::wsman::request::{Incoming, Received, RequestLimits, receive};

fn take(content_type: Option<&str>, body: &[u8]) -> Received {
    let message = Incoming {
        content_type,
        user_agent: "",
        host: "",
        anonymous: false,
        body,
    };
    receive(&message, schema(), &RequestLimits::default())
}

/// Who has not logged on has nothing read but Identify, however much stands in the body.
#[test]
fn a_11_of_nobody_nothing_but_identify_is_read() {
    let read = |text: &str| {
        let message = Incoming {
            content_type: None,
            user_agent: "",
            host: "",
            anonymous: true,
            body: text.as_bytes(),
        };
        receive(&message, schema(), &RequestLimits::default()).request
    };
    let wrong = Ask::get("<nonsense/>").text;
    let rejected = read(&wrong).unwrap_err();
    assert_eq!(rejected.fault.kind.name, table::ACCESS_DENIED.name);
    assert!(rejected.relates_to.is_some(), "F-5");
    let identify = r#"<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Header/><s:Body><i:Identify xmlns:i="http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd"/></s:Body></s:Envelope>"#;
    assert!(read(identify).is_ok());
}

fn refused(content_type: Option<&str>, body: &[u8], kind: &'static FaultKind, names: &str) {
    let rejected = take(content_type, body).request.unwrap_err();
    assert_eq!(rejected.fault.kind.name, kind.name, "{rejected:?}");
    let text = rejected.fault.text.english();
    assert!(text.contains(names), "{names:?} is not named in {text:?}");
    assert_eq!(rejected.relates_to, None);
}

#[test]
fn n_4_hostile_xml_is_a_schema_error() {
    let good = Ask::get("").text;
    let bomb = format!(r#"<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;&x;">]>{good}"#);
    let deep = good.replace(
        "<s:Body>",
        &format!(
            "<s:Body>{}{}",
            "<n:a>".repeat(10_000),
            "</n:a>".repeat(10_000)
        ),
    );
    let wide = good.replace(
        "<s:Body>",
        &format!(
            "<s:Body {}>",
            (0..100).map(|n| format!("k{n}='' ")).collect::<String>()
        ),
    );
    let table = [
        (bomb, "document type"),
        (deep, "nested too deeply"),
        (wide, "too many attributes"),
        (good.replace("<s:Body>", "<s:Body>&who;"), "who"),
        (
            good.replace("<s:Body>", "<s:Body><?pi?>"),
            "processing instruction",
        ),
        (good.replace("<s:Body>", "<s:Body><z:x/>"), "prefix z"),
        (good.replace("</s:Body>", ""), "byte"),
        (good.clone() + "<x/>", "outside"),
        (good[..good.len() / 2].to_owned(), "byte"),
        (String::new(), "ends too early"),
        ("AWAITING_ENCRYPTION_KEYS".into(), "outside"),
        ("<a/>".into(), "Envelope"),
        (good.replace("uuid:1", "uuid:\u{1}"), "does not allow"),
    ];
    for (text, names) in table {
        refused(
            None,
            text.as_bytes(),
            &table::SCHEMA_VALIDATION_ERROR,
            names,
        );
    }
}

#[test]
fn t_5_t_6_bad_bytes_and_charsets_are_encoding_limits() {
    let good = Ask::get("").text;
    let kind = &table::CHARACTER_SET;
    let mut bad = good.clone().into_bytes();
    bad[100] = 0xFF;
    refused(None, &bad, kind, "byte 100");
    let mut odd: Vec<u8> = good.encode_utf16().flat_map(u16::to_le_bytes).collect();
    odd.push(7);
    refused(Some("text/xml;charset=utf-16"), &odd, kind, "UTF-16");
    let latin = Some("application/soap+xml;charset=iso-8859-1");
    refused(latin, good.as_bytes(), kind, "iso-8859-1");
    refused(
        Some("application/json"),
        good.as_bytes(),
        &table::UNSUPPORTED_MEDIA,
        "application/json",
    );
    let sealed = Some("multipart/encrypted;protocol=\"application/HTTP-SPNEGO-session-encrypted\"");
    refused(
        sealed,
        b"--Encrypted Boundary",
        &table::UNSUPPORTED_FEATURE,
        "not supported yet",
    );
}

#[test]
fn t_6_every_encoding_gives_the_same_request() {
    let good = Ask::get("").text;
    let pretty = good.replace("><", ">\r\n  <");
    for charset in [Charset::Utf8, Charset::Utf16Le, Charset::Utf16Be] {
        for text in [&good, &pretty] {
            let received = take(None, &charset.encode(text.clone()));
            assert_eq!(received.charset, charset);
            let request = received.request.unwrap();
            assert_eq!(request.headers.message_id.as_deref(), Some("uuid:1"));
        }
    }
}

#[test]
fn n_1_prefixes_do_not_matter() {
    let good = Ask::get("").text;
    let mut renamed = good;
    for (old, new) in [("s", "env"), ("a", "wsa"), ("w", "wsman")] {
        renamed = renamed
            .replace(&format!("<{old}:"), &format!("<{new}:"))
            .replace(&format!("</{old}:"), &format!("</{new}:"))
            .replace(&format!(" {old}:"), &format!(" {new}:"))
            .replace(&format!("xmlns:{old}="), &format!("xmlns:{new}="));
    }
    let request = take(None, renamed.as_bytes()).request;
    assert!(request.is_ok(), "{request:?}\n{renamed}");
}

#[test]
fn f_5_a_fault_relates_to_the_request_as_soon_as_its_id_is_read() {
    let id = |ask: &Ask| ask.received().request.unwrap_err().relates_to;
    let broken = Ask::get("<a:To>again</a:To>");
    assert_eq!(id(&broken).as_deref(), Some("uuid:1"));
    assert_eq!(id(&Ask::get("").replace("uuid:1", " ")), None);
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let _ = take(None, &bytes);
    }

    #[test]
    fn no_cut_and_no_flipped_byte_makes_it_panic(at in 0usize..1400, with in proptest::num::u8::ANY) {
        let good = Ask::get("<w:OptionSet><w:Option Name='x'>1</w:Option></w:OptionSet>").text;
        let mut bytes = good.into_bytes();
        let at = at.min(bytes.len() - 1);
        bytes[at] = with;
        let _ = take(None, &bytes);
        let _ = take(None, &bytes[..at]);
    }
}
