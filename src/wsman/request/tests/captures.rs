//! What real clients sent (`fixtures/wire`) is read, or refused by the fault that belongs to it.

use std::fs;
use std::path::Path;

use crate::cim::Schema;
use crate::wsman::request::{Incoming, Operation, Request, RequestLimits, receive};

/// The body of a recorded HTTP request and its `Content-Type`.
fn recorded(path: &Path) -> (Option<String>, Vec<u8>) {
    let text = fs::read(path).unwrap();
    // Of a sealed message the clear text counts.
    let mark = b"===== DECRYPTED =====\n";
    if let Some(at) = text.windows(mark.len()).position(|w| w == mark) {
        return (None, text[at + mark.len()..].to_vec());
    }
    let crlf = text
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .map(|at| (at, 4));
    let lf = || text.windows(2).position(|w| w == b"\n\n").map(|at| (at, 2));
    let (end, gap) = crlf.or_else(lf).unwrap();
    let head = String::from_utf8_lossy(&text[..end]).into_owned();
    let content_type = head
        .lines()
        .find(|l| l.to_ascii_lowercase().starts_with("content-type:"))
        .map(|l| l["content-type:".len()..].trim().to_owned());
    (content_type, text[end + gap..].to_vec())
}

fn name(request: &Request) -> &'static str {
    match request.operation {
        Operation::Identify => "Identify",
        Operation::Get(_) => "Get",
        Operation::GetClass(_) => "GetClass",
        Operation::GetConfig(_) => "GetConfig",
        Operation::Enumerate(_) => "Enumerate",
        Operation::Pull(_) => "Pull",
        Operation::Release(_) => "Release",
        Operation::Invoke(_) => "Invoke",
        Operation::End => "End",
    }
}

#[test]
fn recorded_requests_are_read_or_refused_as_they_should_be() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/wire");
    let schema = Schema::builtin();
    let mut seen = String::new();
    let mut folders: Vec<_> = fs::read_dir(root)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    folders.retain(|f| f.is_dir());
    folders.sort();
    for folder in folders {
        let mut files: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        files.sort();
        for file in files {
            let (content_type, body) = recorded(&file);
            // Nothing, or no XML: a logon that carries no request yet.
            if !body.starts_with(b"<") {
                continue;
            }
            let message = Incoming {
                content_type: content_type.as_deref(),
                user_agent: "",
                host: "",
                anonymous: false,
                body: &body,
            };
            let outcome = match receive(&message, &schema, &RequestLimits::default()).request {
                Ok(request) => name(&request).to_owned(),
                Err(rejected) => {
                    assert!(rejected.relates_to.is_some(), "{}", file.display());
                    rejected.fault.kind.name.to_owned()
                }
            };
            let client = folder.file_name().unwrap().to_string_lossy();
            let file = file.file_name().unwrap().to_string_lossy();
            let file = file.trim_end_matches(".request.txt");
            seen.push_str(&format!("{client}/{file}: {outcome}\n"));
        }
    }
    let expected = include_str!("captures.txt");
    assert!(seen == expected, "{seen}");
}
