//! Faults of messages and header blocks: what is wrong before any class is looked at. Those of requests on a class
//! stand in both URI families; where no class is named, or nothing can be read at all, each stands once.

use groupshot::handler::Role;
use groupshot::wscim::Family;

use super::ask::{ANONYMOUS, Ask, class_uri, transfer};
use super::book::Book;
use super::world::{FAMILIES, World};

const SYSTEM: &str = "Msvm_ComputerSystem";

fn get() -> Ask {
    Ask::get(Family::Wmi, SYSTEM)
}

fn bent(from: &str, to: &str) -> Ask {
    let envelope = get().envelope();
    assert!(envelope.contains(from), "{from}");
    let id = get().message_id;
    Ask::raw(envelope.replace(from, to)).change(|a| a.message_id = id)
}

async fn record(book: &mut Book, family: Option<Family>, cases: Vec<(&str, Ask)>) {
    let world = World::new().await;
    for (name, ask) in cases {
        let mut reply = world.send(&ask).await;
        // Rule F-5: related to the request as soon as its id can be read.
        let readable = !UNREADABLE.contains(&name);
        reply.asked_message_id = ask.message_id.clone().filter(|_| readable);
        match family {
            Some(family) => book.check(name, family, &reply),
            None => book.check_one(name, &reply),
        }
    }
}

/// Cases whose MessageID cannot be read.
const UNREADABLE: &[&str] = &[
    "not-xml",
    "truncated",
    "dtd",
    "unknown-entity",
    "too-deep",
    "bad-utf-8",
    "bad-utf-16",
    "unknown-charset",
    "unknown-media-type",
    "sealed",
    "empty",
    "not-an-envelope",
    "soap-1-1",
    "no-soap-version",
    "two-bodies",
    "no-body",
    "header-behind-body",
    "message-id-empty",
    "message-id-too-long",
];

#[tokio::test]
async fn h_1_h_2_n_4_t_5_t_6_messages() {
    let soap = "http://www.w3.org/2003/05/soap-envelope";
    let deep = format!("{}{}", "<d>".repeat(10_000), "</d>".repeat(10_000));
    let mut bad_utf8 = get().bytes();
    bad_utf8.truncate(200);
    bad_utf8.extend([0xC3, 0x28]);
    let lone = [0xFF, 0xFE, b'<', 0, 0x00, 0xD8, b'a', 0];
    let typed = |media: &str| get().change(|a| a.content_type = Some(media.to_owned()));
    let cases = vec![
        ("not-xml", Ask::raw("Hello?")),
        ("empty", Ask::raw("")),
        ("truncated", Ask::raw(&get().bytes()[..300])),
        (
            "dtd",
            Ask::raw(format!(
                "<!DOCTYPE s [<!ENTITY a \"b\">]>{}",
                get().envelope()
            )),
        ),
        ("unknown-entity", bent("<s:Body>", "<s:Body>&lol;")),
        ("too-deep", bent("<s:Body>", &format!("<s:Body>{deep}"))),
        ("bad-utf-8", Ask::raw(bad_utf8)),
        ("bad-utf-16", Ask::raw(lone)),
        (
            "unknown-charset",
            typed("application/soap+xml;charset=KOI8-R"),
        ),
        ("unknown-media-type", typed("application/json")),
        (
            "sealed",
            typed("multipart/encrypted;protocol=\"application/HTTP-SPNEGO-session-encrypted\""),
        ),
        ("not-an-envelope", Ask::raw("<html/>")),
        (
            "soap-1-1",
            bent(soap, "http://schemas.xmlsoap.org/soap/envelope/"),
        ),
        (
            "no-soap-version",
            Ask::raw("<Envelope><Header/><Body/></Envelope>"),
        ),
        ("two-bodies", bent("</s:Body>", "</s:Body><s:Body/>")),
        ("no-body", bent("<s:Body></s:Body>", "")),
        (
            "header-behind-body",
            bent("</s:Body>", "</s:Body><s:Header/>"),
        ),
    ];
    let mut book = Book::open("faults-message");
    record(&mut book, None, cases).await;
    book.close();
}

#[tokio::test]
async fn h_3_to_h_31_header_blocks() {
    let mut book = Book::open("faults-header");
    for family in FAMILIES {
        record(&mut book, Some(family), on_a_class(family)).await;
    }
    // No URI of the DMTF family names a namespace.
    let differ = get().selector("__cimnamespace", "root/cimv2");
    let differ = vec![("namespaces-differ", differ)];
    record(&mut book, Some(Family::Wmi), differ).await;
    record(&mut book, None, on_no_class()).await;
    book.close();
}

fn on_a_class(family: Family) -> Vec<(&'static str, Ask)> {
    let get = || Ask::get(family, SYSTEM);
    let with = |block: &str| get().header(block);
    let on = |class: &str| get().change(|a| a.resource = Some(class_uri(family, class)));
    let understood = |block: &str| {
        with(&format!(
            "<x:{block} xmlns:x=\"urn:x\" s:mustUnderstand=\"true\"/>"
        ))
    };
    let address = |address: &str| format!("<a:Address>{address}</a:Address>");
    let option = |n: usize| format!("<w:Option Name=\"o{n}\">v</w:Option>");
    let options: String = (0..257).map(option).collect();
    let long = "x".repeat(2049);
    let parameters = format!(
        "<a:ReferenceParameters><x:Long xmlns:x=\"urn:x\">{}</x:Long></a:ReferenceParameters>",
        "x".repeat(33_000)
    );
    vec![
        ("not-understood", understood("Magic")),
        ("action-twice", with("<a:Action>again</a:Action>")),
        (
            "resource-uri-twice",
            with("<w:ResourceURI>again</w:ResourceURI>"),
        ),
        ("no-to", get().change(|a| a.to = None)),
        ("no-action", get().change(|a| a.action = None)),
        ("no-message-id", get().change(|a| a.message_id = None)),
        ("no-reply-to", get().change(|a| a.reply_to = None)),
        (
            "message-id-empty",
            get().change(|a| a.message_id = Some(" ".to_owned())),
        ),
        (
            "message-id-too-long",
            get().change(|a| a.message_id = Some(long.clone())),
        ),
        (
            "reply-to-elsewhere",
            get().change(|a| a.reply_to = Some(address("http://elsewhere/"))),
        ),
        (
            "reply-to-without-address",
            get().change(|a| a.reply_to = Some(String::new())),
        ),
        (
            "reply-parameters-too-long",
            get().change(|a| a.reply_to = Some(address(ANONYMOUS) + &parameters)),
        ),
        (
            "fault-to-elsewhere",
            with("<a:FaultTo><a:Address>http://elsewhere/</a:Address></a:FaultTo>"),
        ),
        (
            "timeout-no-duration",
            with("<w:OperationTimeout>60</w:OperationTimeout>"),
        ),
        (
            "timeout-zero",
            with("<w:OperationTimeout>PT0S</w:OperationTimeout>"),
        ),
        (
            "envelope-size-text",
            with("<w:MaxEnvelopeSize>big</w:MaxEnvelopeSize>"),
        ),
        (
            "envelope-size-too-small",
            with("<w:MaxEnvelopeSize>8191</w:MaxEnvelopeSize>"),
        ),
        (
            "locale",
            with("<w:Locale xml:lang=\"fr\" s:mustUnderstand=\"true\"/>"),
        ),
        (
            "data-locale",
            with("<m:DataLocale xml:lang=\"de-AT\" s:mustUnderstand=\"1\"/>"),
        ),
        (
            "fragment",
            with("<w:FragmentTransfer s:mustUnderstand=\"true\">Name</w:FragmentTransfer>"),
        ),
        (
            "fragment-optional",
            with("<w:FragmentTransfer>Name</w:FragmentTransfer>"),
        ),
        (
            "activity-id-too-long",
            with(&format!("<m:ActivityId>{long}</m:ActivityId>")),
        ),
        (
            "option-without-name",
            with("<w:OptionSet><w:Option>v</w:Option></w:OptionSet>"),
        ),
        (
            "too-many-options",
            with(&format!("<w:OptionSet>{options}</w:OptionSet>")),
        ),
        ("resource-uri-too-long", on(&long)),
        ("resource-uri-without-class", on("")),
        ("not-authenticated", get().change(|a| a.identity = None)),
    ]
}

fn on_no_class() -> Vec<(&'static str, Ask)> {
    let on = |resource: Option<&str>| get().change(|a| a.resource = resource.map(str::to_owned));
    vec![
        ("no-header", bent_header()),
        ("no-resource-uri", on(None)),
        ("resource-uri-unknown", on(Some("http://x/y"))),
        ("config-part", config("Get", "/listener")),
        ("config-put", config("Put", "")),
        (
            "config-option",
            config("Get", "").header(
                "<w:OptionSet><w:Option Name=\"o\" MustComply=\"true\">v</w:Option></w:OptionSet>",
            ),
        ),
        (
            "config-put-by-reader",
            config("Put", "").by("rita", Role::Reader),
        ),
    ]
}

fn bent_header() -> Ask {
    let envelope = get().envelope();
    let (start, rest) = envelope.split_once("<s:Header>").unwrap();
    let (_, end) = rest.split_once("</s:Header>").unwrap();
    Ask::raw(format!("{start}{end}")).change(|a| a.message_id = None)
}

fn config(verb: &str, part: &str) -> Ask {
    let uri = format!("http://schemas.microsoft.com/wbem/wsman/1/config{part}");
    Ask::on(&transfer(verb), &uri)
}
