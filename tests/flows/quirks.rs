//! What real clients do against the letter of the standards, or read more strictly than it: rules
//! CL-1 to CL-20 that no other test holds as a whole.

use super::{SYSTEM, server};
use crate::support::http::{Connection, Response};
use crate::support::server::{PASSWORD, USER};

const WMI: &str = "http://schemas.microsoft.com/wbem/wsman/1/wmi/root/virtualization/v2/";
const ENUMERATION: &str = "http://schemas.xmlsoap.org/ws/2004/09/enumeration";
const ID: &str = "uuid:40000000-0000-0000-0000-000000000001";

/// A request with the same MessageID as every other, to a host that this is not, in the spelling of pywinrm
/// and WinRb: `mustUnderstand` in no namespace.
fn ask(
    connection: &mut Connection,
    resource: &str,
    verb: &str,
    headers: &str,
    body: &str,
) -> Response {
    let envelope = format!(
        "<env:Envelope xmlns:env=\"http://www.w3.org/2003/05/soap-envelope\" \
         xmlns:a=\"http://schemas.xmlsoap.org/ws/2004/08/addressing\" xmlns:n=\"{ENUMERATION}\" \
         xmlns:w=\"http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd\" \
         xmlns:p=\"http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd\" \
         xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\"><env:Header>\
         <a:To>http://103040106:5985/wsman</a:To><a:ReplyTo><a:Address mustUnderstand=\"true\">\
         http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</a:Address></a:ReplyTo>\
         <w:MaxEnvelopeSize mustUnderstand=\"true\">153600</w:MaxEnvelopeSize><a:MessageID>{ID}</a:MessageID>\
         <w:ResourceURI mustUnderstand=\"true\">{resource}</w:ResourceURI>\
         <a:Action mustUnderstand=\"true\">{ENUMERATION}/{verb}</a:Action>{headers}</env:Header>\
         <env:Body>{body}</env:Body></env:Envelope>"
    );
    connection.post(USER, PASSWORD, envelope.as_bytes())
}

fn enumerate(connection: &mut Connection, headers: &str, more: &str) -> Response {
    let body = format!(
        "<n:Enumerate><w:OptimizeEnumeration xsi:nil=\"true\"/><w:MaxElements>2</w:MaxElements>{more}</n:Enumerate>"
    );
    ask(
        connection,
        &format!("{WMI}{SYSTEM}"),
        "Enumerate",
        headers,
        &body,
    )
}

fn pull(connection: &mut Connection, resource: &str, context: &str) -> Response {
    let body = format!(
        "<n:Pull><n:EnumerationContext>{context}</n:EnumerationContext>\
         <n:MaxElements>2</n:MaxElements></n:Pull>"
    );
    ask(connection, resource, "Pull", "", &body)
}

#[test]
fn cl_11_one_message_id_for_all_and_what_nobody_knows_is_passed_over() {
    let server = server();
    let mut connection = Connection::open(server.address);
    let unknown = "<x:Trace xmlns:x=\"urn:x\">1</x:Trace><p:SessionId mustUnderstand=\"false\">uuid:1</p:SessionId>";
    let extension =
        "<p:SessionId mustUnderstand=\"false\">uuid:1</p:SessionId><x:More xmlns:x=\"urn:x\"/>";
    let first = enumerate(&mut connection, unknown, extension);
    // The same MessageID again, on the same connection and on another: a request of its own each time.
    let second = enumerate(&mut connection, "", "");
    let third = enumerate(&mut Connection::open(server.address), "", "");
    let mut contexts = Vec::new();
    for answer in [first, second, third] {
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.element("RelatesTo").as_deref(), Some(ID));
        contexts.push(answer.element("EnumerationContext").unwrap());
    }
    contexts.dedup();
    assert_eq!(contexts.len(), 3);
}

#[test]
fn cl_15_a_pull_is_known_by_its_context_alone() {
    let server = server();
    let mut connection = Connection::open(server.address);
    let mut answer = enumerate(&mut connection, "", "");
    let elsewhere = [
        "http://schemas.microsoft.com/wbem/wsman/1/wmi/root/cimv2/*",
        "http://schemas.dmtf.org/wbem/wscim/1/*",
    ];
    for resource in elsewhere {
        let context = answer.element("EnumerationContext").unwrap();
        answer = pull(&mut connection, resource, &context);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(
            answer.text().contains("Msvm_ComputerSystem"),
            "{}",
            answer.text()
        );
    }
}

#[test]
fn cl_4_to_cl_8_answers_are_written_for_parsers_that_know_no_xml() {
    let server = server();
    let mut connection = Connection::open(server.address);
    let mut answer = enumerate(&mut connection, "", "");
    let mut pages = 1;
    loop {
        let text = answer.text();
        assert_eq!(answer.status, 200, "{text}");
        // Nothing that must be understood; all namespaces on the root; no attribute on what ends a page.
        assert!(!text.contains("mustUnderstand"), "{text}");
        for name in ["Items", "EndOfSequence", "EnumerationContext"] {
            assert!(!text.contains(&format!(":{name} ")), "{name} in {text}");
        }
        let (_, body) = text.split_once("<s:Body>").unwrap();
        assert!(
            !body.contains("xmlns:s=") && !body.contains("xmlns:n="),
            "{text}"
        );
        assert!(text.contains(":Items>"), "{text}");
        let context = answer.element("EnumerationContext").unwrap_or_default();
        let ended = text.contains(":EndOfSequence/>");
        assert_eq!(
            ended,
            context.is_empty(),
            "either the end or a context: {text}"
        );
        if ended {
            break;
        }
        answer = pull(&mut connection, &format!("{WMI}{SYSTEM}"), &context);
        pages += 1;
    }
    assert_eq!(pages, 3);
}

#[test]
fn cl_17_a_body_is_not_looked_at_before_the_logon() {
    let server = server();
    let mut connection = Connection::open(server.address);
    for body in ["AWAITING_ENCRYPTION_KEYS", "<open>", "\u{0}"] {
        let request = format!(
            "POST /wsman HTTP/1.1\r\nHost: x\r\nContent-Type: application/soap+xml;charset=UTF-8\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        connection.send(request.as_bytes()).unwrap();
        let answer = connection.receive().unwrap();
        assert_eq!(answer.status, 401, "{}", answer.text());
    }
    // And the empty leg of a logon that has succeeded is an empty 200.
    let answer = connection.post(USER, PASSWORD, b"");
    assert_eq!((answer.status, answer.body.len()), (200, 0));
}
