//! Bodies that are no text, no XML, no envelope, or an envelope of something else.

use super::*;

const SCHEMA: Expected = Fault("w:SchemaValidationError", "");
const CHARSET: Expected = Fault("w:EncodingLimit", "CharacterSet");

/// A good request with one thing changed.
fn bent(from: &str, to: &str) -> String {
    let good = get();
    assert!(good.contains(from), "{from}");
    good.replacen(from, to, 1)
}

#[test]
fn n_4_h_2_what_is_no_xml() {
    let mut table = Table::start();
    let in_body = |markup: &str| bent("<s:Body>", &format!("<s:Body>{markup}"));
    let in_header = |markup: &str| bent("<s:Header>", &format!("<s:Header>{markup}"));
    let deep = |n: usize| "<d>".repeat(n) + &"</d>".repeat(n);
    let attributes: String = (0..10_000).fold(String::new(), |mut all, n| {
        write!(all, " a{n}=''").unwrap();
        all
    });
    let namespaces: String = (0..1000).fold(String::new(), |mut all, n| {
        write!(all, "<n{n}:x xmlns:n{n}='urn:{n}'>").unwrap();
        all
    });
    let laughs = (1..12).fold(String::from("<!ENTITY l0 'lol'>"), |mut all, n| {
        write!(
            all,
            "<!ENTITY l{n} '{}'>",
            format!("&l{};", n - 1).repeat(10)
        )
        .unwrap();
        all
    });
    let bomb = format!("<!DOCTYPE s [{laughs}]>{}", in_body("&l11;"));
    let cases = [
        ("no markup", "Hello?".to_owned()),
        ("a bracket", "<".to_owned()),
        ("an open tag", "<a".to_owned()),
        ("an open element", "<a>".to_owned()),
        ("a close tag", "</a>".to_owned()),
        ("white space", " \r\n\t ".to_owned()),
        ("two roots", get() + &get()),
        ("text behind the root", get() + "!"),
        ("tags that do not match", bent("</a:To>", "</a:Too>")),
        ("the end is missing", bent("</s:Envelope>", "")),
        ("cut in the middle", get()[..500].to_owned()),
        ("an attribute without quotes", bent("<a:To>", "<a:To x=1>")),
        ("an attribute twice", bent("<a:To>", "<a:To x='1' x='2'>")),
        (
            "a prefix without declaration",
            bent("<a:To>", "<a:To q:x='1'>"),
        ),
        ("an element of no prefix", in_body("<q:x/>")),
        ("NUL", bent("http://h/wsman", "http://h/\0")),
        ("a reference to NUL", bent("http://h/wsman", "&#0;")),
        (
            "a reference to a control character",
            bent("http://h/wsman", "&#x8;"),
        ),
        (
            "a reference out of range",
            bent("http://h/wsman", "&#x110000;"),
        ),
        (
            "a reference to a surrogate",
            bent("http://h/wsman", "&#xD800;"),
        ),
        ("a reference without end", bent("http://h/wsman", "&amp")),
        ("an unknown entity", bent("http://h/wsman", "&nbsp;")),
        ("a processing instruction", in_body("<?php evil() ?>")),
        ("a comment with two hyphens", in_body("<!-- a -- b -->")),
        ("a comment without end", in_body("<!-- a")),
        ("CDATA without end", in_body("<![CDATA[ a")),
        (
            "a declaration in the middle",
            in_body("<?xml version='1.0'?>"),
        ),
        (
            "another XML version",
            format!("<?xml version='7'?>{}", get()),
        ),
        ("a DTD", format!("<!DOCTYPE s>{}", get())),
        (
            "an external DTD",
            format!("<!DOCTYPE s SYSTEM 'http://127.0.0.1:1/x'>{}", get()),
        ),
        (
            "a file as an entity",
            format!(
                "<!DOCTYPE s [<!ENTITY f SYSTEM 'file:///etc/passwd'>]>{}",
                in_body("&f;")
            ),
        ),
        ("an entity bomb", bomb),
        ("10 000 elements deep in the body", in_body(&deep(10_000))),
        (
            "10 000 elements deep in the header",
            in_header(&deep(10_000)),
        ),
        ("10 000 deep and not closed", in_body(&"<d>".repeat(10_000))),
        ("10 000 attributes", in_body(&format!("<x{attributes}/>"))),
        ("1000 namespaces", in_body(&namespaces)),
    ];
    for (name, body) in cases {
        table.message(name, body, &SCHEMA);
    }
    table.message(
        "a very long name",
        in_body(&format!("<{}/>", "x".repeat(100_000))),
        &SCHEMA,
    );
    table.message(
        "comments and CDATA",
        in_body("<!-- a --><x><![CDATA[</s:Body>]]></x>"),
        &Good,
    );
    table.close();
}

#[test]
fn t_5_t_6_what_is_no_text() {
    let mut table = Table::start();
    let with = |bytes: &[u8]| {
        let good = get();
        let (start, end) = good.split_once("http://h/wsman").unwrap();
        [start.as_bytes(), bytes, end.as_bytes()].concat()
    };
    let wide = |unit: fn(u16) -> [u8; 2]| get().encode_utf16().flat_map(unit).collect::<Vec<_>>();
    let little = wide(u16::to_le_bytes);
    let cases: [(&str, Vec<u8>); 10] = [
        ("a lone byte", with(&[0xC3])),
        ("a stray continuation", with(&[0x80])),
        ("overlong", with(&[0xC0, 0xAF])),
        ("a surrogate in UTF-8", with(&[0xED, 0xA0, 0x80])),
        ("beyond Unicode", with(&[0xF4, 0x90, 0x80, 0x80])),
        (
            "Latin-1",
            with(
                "caf\u{e9}"
                    .chars()
                    .map(|c| c as u8)
                    .collect::<Vec<_>>()
                    .as_slice(),
            ),
        ),
        ("half a unit", little[..little.len() - 1].to_vec()),
        (
            "a lone surrogate",
            [&little[..100], &[0x00, 0xDC], &little[100..]].concat(),
        ),
        (
            "a lone surrogate at the end",
            [&little[..], &[0x00, 0xD8]].concat(),
        ),
        (
            "big endian with the mark of little",
            [&[0xFF, 0xFE][..], &[0xD8, 0x00, 0x00, 0xD8]].concat(),
        ),
    ];
    for (name, body) in cases {
        table.message(name, body, &CHARSET);
    }
    let mark: &[u8] = &[0xFE, 0xFF];
    table.message("UTF-16, little endian, no mark", &little, &Good);
    table.message(
        "UTF-16, big endian, mark",
        [mark, &wide(u16::to_be_bytes)].concat(),
        &Good,
    );
    table.message("UTF-8 with a mark", format!("\u{feff}{}", get()), &Good);
    table.message("padding", get() + "\0\0\0", &Good);
    table.message("the mark and nothing", mark, &SCHEMA);
    table.message(
        "random bytes",
        [0x1F, 0x8B, 0x08, 0x00, 0x90, 0xFF],
        &CHARSET,
    );
    let named = |charset: &str| {
        let (body, auth) = (get(), basic(USER, PASSWORD));
        format!(
            "POST /wsman HTTP/1.1\r\nHost: h\r\nAuthorization: {auth}\r\nContent-Type: application/soap+xml;charset={charset}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    table.bytes("an unknown charset", named("KOI8-R"), &CHARSET);
    table.bytes("UTF-7", named("UTF-7"), &CHARSET);
    table.bytes("a quoted charset", named("\"utf-8\""), &Good);
    table.close();
}

#[test]
fn h_1_to_h_20_what_is_no_good_envelope() {
    let mut table = Table::start();
    let header = |block: &str| bent("</s:Header>", &format!("{block}</s:Header>"));
    let required = Fault("a:MessageInformationHeaderRequired", "");
    let invalid = Fault("a:InvalidMessageInformationHeader", "");
    let cases = [
        (
            "SOAP 1.1",
            bent(
                "http://www.w3.org/2003/05/soap-envelope",
                "http://schemas.xmlsoap.org/soap/envelope/",
            ),
            Fault("s:VersionMismatch", ""),
        ),
        ("HTML", "<html><body/></html>".to_owned(), SCHEMA),
        ("no envelope", "<x/>".to_owned(), SCHEMA),
        ("no Body", bent("<s:Body></s:Body>", ""), SCHEMA),
        ("two Bodies", bent("<s:Body>", "<s:Body/><s:Body>"), SCHEMA),
        (
            "two Headers",
            bent("<s:Header>", "<s:Header/><s:Header>"),
            SCHEMA,
        ),
        (
            "addressing of 2005",
            bent(
                "http://schemas.xmlsoap.org/ws/2004/08/addressing\"",
                "http://www.w3.org/2005/08/addressing\"",
            ),
            required,
        ),
        (
            "another namespace for w",
            bent("wsman/1/wsman.xsd", "wsman/9/wsman.xsd"),
            Fault("a:DestinationUnreachable", "InvalidResourceURI"),
        ),
        ("Action twice", header("<a:Action>x</a:Action>"), invalid),
        (
            "MessageID twice",
            header("<a:MessageID>uuid:2</a:MessageID>"),
            Fault("a:InvalidMessageInformationHeader", ""),
        ),
        (
            "To twice",
            header("<a:To>x</a:To>"),
            Fault("a:InvalidMessageInformationHeader", ""),
        ),
        (
            "ReplyTo twice",
            header("<a:ReplyTo/>"),
            Fault("a:InvalidMessageInformationHeader", ""),
        ),
        (
            "ResourceURI twice",
            header("<w:ResourceURI>x</w:ResourceURI>"),
            Fault("a:InvalidMessageInformationHeader", ""),
        ),
        (
            "SelectorSet twice",
            header("<w:SelectorSet/><w:SelectorSet/>"),
            Fault("a:InvalidMessageInformationHeader", ""),
        ),
        (
            "OptionSet twice",
            header("<w:OptionSet/><w:OptionSet/>"),
            Fault("a:InvalidMessageInformationHeader", ""),
        ),
        (
            "MaxEnvelopeSize twice",
            header(
                "<w:MaxEnvelopeSize>9999</w:MaxEnvelopeSize><w:MaxEnvelopeSize>9999</w:MaxEnvelopeSize>",
            ),
            Fault("a:InvalidMessageInformationHeader", ""),
        ),
        (
            "OperationTimeout twice",
            header(
                "<w:OperationTimeout>PT1S</w:OperationTimeout><w:OperationTimeout>PT1S</w:OperationTimeout>",
            ),
            Fault("a:InvalidMessageInformationHeader", ""),
        ),
        (
            "a header that must be understood",
            header("<q:Q xmlns:q='urn:q' s:mustUnderstand='true'/>"),
            Fault("s:MustUnderstand", ""),
        ),
        (
            "a header that need not",
            header("<q:Q xmlns:q='urn:q' s:mustUnderstand='false'/>"),
            Good,
        ),
        (
            "a huge timeout",
            header("<w:OperationTimeout>P99999999999999999999Y</w:OperationTimeout>"),
            Fault("a:InvalidMessageInformationHeader", "InvalidTimeout"),
        ),
        (
            "a negative timeout",
            header("<w:OperationTimeout>-PT1S</w:OperationTimeout>"),
            Fault("a:InvalidMessageInformationHeader", "InvalidTimeout"),
        ),
        (
            "a huge envelope size",
            header("<w:MaxEnvelopeSize>99999999999999999999999999</w:MaxEnvelopeSize>"),
            Good,
        ),
        (
            "a negative envelope size",
            header("<w:MaxEnvelopeSize>-1</w:MaxEnvelopeSize>"),
            Fault("w:EncodingLimit", "MaxEnvelopeSize"),
        ),
        (
            "a class name with a path",
            bent(SERVICE, "../../etc/passwd"),
            Fault("a:DestinationUnreachable", "InvalidResourceURI"),
        ),
        (
            "an empty Action",
            bent("transfer/Get", ""),
            Fault("a:ActionNotSupported", ""),
        ),
        (
            "an Action in another case",
            bent("transfer/Get", "transfer/get"),
            Fault("a:ActionNotSupported", ""),
        ),
    ];
    for (name, body, expected) in cases {
        table.message(name, body, &expected);
    }
    table.close();
}
