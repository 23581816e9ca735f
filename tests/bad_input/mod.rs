//! Everything that a client can send wrong, by raw sockets to the real program. Each line of the tables
//! names the one right answer: a status, a fault, or a return value; never a hang, a crash, an empty 500,
//! a word about the inside of the server. After each table the server still works.

mod connections;
mod create_snapshot;
mod envelopes;

use std::fmt::Write;

use crate::support::http::{Connection, Response, basic};
use crate::support::server::{Options, PASSWORD, Server, USER};

/// The only right answer.
enum Expected {
    /// This status, and no envelope.
    Status(u16),
    /// 500 with a fault of this subcode and FaultDetail (empty: none).
    Fault(&'static str, &'static str),
    /// 200, and the method returns this.
    Returns(u32),
    /// 200 with an envelope.
    Good,
    /// 200 without a body.
    Nothing,
    /// No answer: the connection is closed.
    Closed,
}

use Expected::{Closed, Fault, Good, Nothing, Returns, Status};

/// Parts of texts that tell about the inside of the server.
const INSIDE: &[&str] = &[
    "panicked", "/src/", ".rs:", "RUST_", "/home", "sqlite", "Os {",
];

const V2: &str = "http://schemas.microsoft.com/wbem/wsman/1/wmi/root/virtualization/v2";
const SERVICE: &str = "Msvm_CollectionSnapshotService";
const ANONYMOUS: &str = "http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous";

/// A server over simulated machines, and what is found wrong with its answers.
struct Table {
    server: Server,
    complaints: String,
    lines: usize,
}

impl Table {
    fn start() -> Self {
        Self::with(&["--engine", "sim", "--machines", "2"])
    }

    fn with(args: &[&str]) -> Self {
        let args = Options {
            args,
            ..Options::default()
        };
        Self {
            server: Server::with(&args),
            complaints: String::new(),
            lines: 0,
        }
    }

    fn connect(&self) -> Connection {
        Connection::open(self.server.address)
    }

    /// Sends a message as the known user and holds the answer against what is expected.
    fn message(&mut self, name: &str, body: impl AsRef<[u8]>, expected: &Expected) {
        let body = body.as_ref();
        let head = format!(
            "POST /wsman HTTP/1.1\r\nHost: h\r\nAuthorization: {}\r\nContent-Type: application/soap+xml\r\nContent-Length: {}\r\n\r\n",
            basic(USER, PASSWORD),
            body.len()
        );
        self.bytes(name, [head.as_bytes(), body].concat(), expected);
    }

    /// Sends bytes on a connection of their own, ends our side, and holds the answer against what is
    /// expected.
    fn bytes(&mut self, name: &str, bytes: impl AsRef<[u8]>, expected: &Expected) {
        let mut connection = self.connect();
        // The server may refuse before it has read everything.
        let _ = connection.send(bytes.as_ref());
        connection.finish();
        let mut response = connection.receive();
        if let Some(response) = &mut response
            && response.body.starts_with(&[0xFE, 0xFF])
        {
            // UTF-16 that is ASCII but for its mark.
            response.body.drain(..2);
            response.body.retain(|b| *b != 0);
        }
        self.check(name, response.as_ref(), expected);
    }

    fn check(&mut self, name: &str, response: Option<&Response>, expected: &Expected) {
        self.lines += 1;
        let why = match response {
            None if matches!(expected, Closed) => return,
            None => "no answer".to_owned(),
            Some(response) => match wrong(response, expected) {
                None => self.leak(response).unwrap_or_default(),
                Some(why) => format!("{why}\n  {} {}", response.status, excerpt(response)),
            },
        };
        if !why.is_empty() {
            writeln!(self.complaints, "{name}: {why}").unwrap();
        }
    }

    fn leak(&self, response: &Response) -> Option<String> {
        let text = response.text();
        let data = self.server.data.display().to_string();
        let mut inside = INSIDE.iter().copied().chain([data.as_str()]);
        inside
            .find(|part| text.contains(part))
            .map(|part| format!("tells {part}: {text}"))
    }

    /// The server still answers, and nothing was wrong.
    fn close(mut self) {
        assert!(self.lines > 5);
        self.message("afterwards, Get", get(), &Good);
        self.message(
            "afterwards, a call",
            call("<p:SnapshotType>3</p:SnapshotType>"),
            &Returns(4),
        );
        let ended = self.server.wait(std::time::Duration::ZERO);
        assert!(ended.is_none(), "the server ended: {ended:?}");
        assert!(self.complaints.is_empty(), "\n{}", self.complaints);
    }
}

/// The interesting part of an answer.
fn excerpt(response: &Response) -> String {
    let text = response.text();
    let body = text.split_once("<s:Body>").map_or(&*text, |(_, body)| body);
    body.chars().take(600).collect()
}

/// What is wrong with the answer.
fn wrong(response: &Response, expected: &Expected) -> Option<String> {
    let text = response.text();
    let is_fault = text.contains("Fault>");
    if response.status == 500 && text.is_empty() {
        return Some("an empty 500".to_owned());
    }
    match *expected {
        Closed => Some("the connection is open".to_owned()),
        Status(status) => (response.status != status || text.contains("Envelope"))
            .then(|| format!("expected {status}")),
        Good => (response.status != 200 || is_fault || text.is_empty())
            .then(|| "expected 200".to_owned()),
        Nothing => {
            (response.status != 200 || !text.is_empty()).then(|| "expected an empty 200".to_owned())
        }
        Returns(value) => {
            let returned = response.element("ReturnValue");
            (response.status != 200 || returned != Some(value.to_string()))
                .then(|| format!("expected the return value {value}"))
        }
        Fault(subcode, detail) => {
            let found = text
                .split_once("<s:Subcode><s:Value>")
                .and_then(|(_, rest)| rest.split('<').next())
                .unwrap_or_default();
            let code = response.element("Value").unwrap_or_default();
            let found = if found.is_empty() {
                code.as_str()
            } else {
                found
            };
            let found_detail = response.element("FaultDetail").unwrap_or_default();
            let found_detail = found_detail.rsplit('/').next().unwrap_or_default();
            let says = response.element("Message").is_some_and(|m| !m.is_empty());
            (response.status != 500 || found != subcode || found_detail != detail || !says)
                .then(|| format!("expected the fault {subcode} {detail}"))
        }
    }
}

/// An envelope: header blocks besides the usual ones, and the body.
fn envelope(action: &str, class: &str, headers: &str, body: &str) -> String {
    format!(
        r#"<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing" xmlns:n="http://schemas.xmlsoap.org/ws/2004/09/enumeration" xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><s:Header><a:To>http://h/wsman</a:To><a:ReplyTo><a:Address>{ANONYMOUS}</a:Address></a:ReplyTo><a:Action>{action}</a:Action><a:MessageID>uuid:00000000-0000-4000-8000-000000000001</a:MessageID><w:ResourceURI>{V2}/{class}</w:ResourceURI>{headers}</s:Header><s:Body>{body}</s:Body></s:Envelope>"#
    )
}

/// Get of the service: a good request.
fn get() -> String {
    let action = "http://schemas.xmlsoap.org/ws/2004/09/transfer/Get";
    envelope(action, SERVICE, "", "")
}

/// A call of CreateSnapshot on the only service.
fn call(parameters: &str) -> String {
    call_on("", parameters)
}

/// A call of CreateSnapshot with these header blocks.
fn call_on(headers: &str, parameters: &str) -> String {
    let input = format!(
        r#"<p:CreateSnapshot_INPUT xmlns:p="{V2}/{SERVICE}">{parameters}</p:CreateSnapshot_INPUT>"#
    );
    let action = format!("{V2}/{SERVICE}/CreateSnapshot");
    envelope(&action, SERVICE, headers, &input)
}
