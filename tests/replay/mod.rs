//! Requests of real clients against the real program: each gets the answer that `fixtures/wire/expected.tsv` names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use groupshot::tls::Trust;
use groupshot::xml;

use crate::support::http::{Connection, Response, basic};
use crate::support::pki::Authority;
use crate::support::server::{PASSWORD, Server, USER, text};

/// How many requests of each client are recorded.
const RECORDED: &[(&str, usize)] = &[
    ("dracclient", 14),
    ("omicli-hv", 10),
    ("pypsrp-basic", 16),
    ("pypsrp-cert-tls", 16),
    ("pypsrp-kerberos", 18),
    ("pypsrp-ntlm", 19),
    ("pywinrm-basic", 4),
    ("winrb-basic", 12),
    ("winrb-ssl", 14),
    ("winrm-java", 11),
    ("wsmancli-hv", 49),
];
/// What parts a sealed message from its clear text, and what the name of a line says of the latter.
const CLEAR: &str = "===== DECRYPTED =====\n";
const IN_CLEAR: &str = " in clear";
/// The type of a sealed message, of its clear text, and what stands for octets that nobody can open any more.
const MULTIPART: &str = "multipart/encrypted;protocol=\"application/HTTP-SPNEGO-session-encrypted\";\
     boundary=\"Encrypted Boundary\"";
const SOAP: &str = "application/soap+xml;charset=UTF-8";
const OCTETS: &str = "\u{10}\0\0\0sealed";

/// What one line of `expected.tsv` asks: the status and, after it, facts about the body.
struct Expected {
    status: u16,
    facts: Vec<(String, String)>,
}

#[test]
fn every_recorded_request_gets_its_answer() {
    let folder = tempfile::tempdir().unwrap();
    let (config, trust) = certificates(folder.path());
    let config = config.to_str().unwrap();
    let server = Server::start(&[
        "--engine",
        "sim",
        "--machines",
        "7",
        "--tls-listen",
        "127.0.0.1:0",
        "--config",
        config,
    ]);
    let secure = server.secure.as_ref().unwrap().0;
    let collection = collection_of_three(&server);
    let expected = expected();
    let mut wrong = Vec::new();
    for client in folders() {
        let mut context = String::new();
        let is_secure = ["-tls", "-ssl"]
            .iter()
            .any(|end| client.to_str().unwrap().ends_with(end));
        let address = if is_secure { secure } else { server.address };
        for (name, recorded) in exchanges(&client) {
            let Some(expected) = expected.get(&name) else {
                wrong.push(format!("{name} has no line in expected.tsv"));
                continue;
            };
            let request = fill(&recorded, address, &collection, &context);
            let mut connection = match is_secure {
                true => Connection::secure(address, &trust),
                false => Connection::open(address),
            };
            connection.send(request.as_bytes()).unwrap();
            let response = connection.receive().expect("an answer");
            if let Some(found) = response.element("EnumerationContext") {
                context = found;
            }
            if let Err(why) = check(expected, &response) {
                wrong.push(format!(
                    "{name}: {why}\n    {} {}",
                    response.status,
                    response.text()
                ));
            }
            settle(&server, &response);
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn no_recorded_request_is_left_out() {
    let mut expected: BTreeSet<String> = expected().into_keys().collect();
    let mut counted = Vec::new();
    for client in folders() {
        let files = files(&client);
        let mut last: BTreeMap<String, u32> = BTreeMap::new();
        for file in &files {
            let (operation, n) = place(file);
            // No exchange of an operation is missing in the middle.
            let before = last.insert(operation, n).unwrap_or(0);
            assert_eq!(n, before + 1, "{}", file.display());
        }
        for (name, _) in exchanges(&client) {
            assert!(expected.remove(&name), "{name} has no line");
        }
        let name = client.file_name().unwrap().to_str().unwrap().to_owned();
        counted.push((name, files.len()));
    }
    assert!(expected.is_empty(), "lines without a request: {expected:?}");
    let wanted: Vec<_> = RECORDED
        .iter()
        .map(|(n, c)| ((*n).to_owned(), *c))
        .collect();
    assert_eq!(counted, wanted);
}

/// A configuration that takes the client's certificate for an administrator, and the client's files.
fn certificates(folder: &Path) -> (PathBuf, Trust) {
    let ca = Authority::new(folder, "ca");
    ca.server("server");
    let client = ca.client("client");
    let config = folder.join("groupshot.toml");
    let text = format!(
        "[tls]\ncertificate = \"server.crt\"\nkey = \"server.key\"\nclient_ca = \"ca.pem\"\n[roles]\n\
         mappings = [{{ fingerprint = \"{}\", user = \"client\", role = \"administrator\" }}]\n",
        client.fingerprint
    );
    fs::write(&config, text).unwrap();
    let trust = Trust {
        ca: Some(ca.file.clone()),
        insecure: false,
        identity: Some((client.certificate, client.key)),
    };
    (config, trust)
}

fn check(expected: &Expected, response: &Response) -> Result<(), String> {
    if response.status != expected.status {
        return Err(format!(
            "expected {}, got {}",
            expected.status, response.status
        ));
    }
    for (name, value) in &expected.facts {
        let found = match name.as_str() {
            "Subcode" => fault_subcode(response),
            "FaultDetail" => response
                .element("FaultDetail")
                .map(|u| u.rsplit('/').next().unwrap().to_owned()),
            "Action" => response
                .element("Action")
                .map(|u| u.rsplit('/').next().unwrap().to_owned()),
            "items" => Some(items(response).to_string()),
            "challenge" => response.header("www-authenticate").map(str::to_owned),
            other => response.element(other),
        };
        if found.as_deref() != Some(value) {
            return Err(format!("expected {name} `{value}`, got {found:?}"));
        }
    }
    Ok(())
}

/// How many items a page has.
fn items(response: &Response) -> usize {
    let text = response.text();
    let document = xml::parse(&text).unwrap();
    let body = document.root().children().find(|c| c.local() == "Body");
    let answer = body.unwrap().children().next().unwrap();
    let items = answer.children().find(|c| c.local() == "Items");
    items.map_or(0, |i| i.children().count())
}

fn fault_subcode(response: &Response) -> Option<String> {
    let body = response.text();
    let after = body.split("<s:Subcode><s:Value>").nth(1)?;
    Some(after.split('<').next().unwrap().to_owned())
}

/// A request that started a job: the next one must not find the machines held.
fn settle(server: &Server, response: &Response) {
    if response.element("ReturnValue").as_deref() != Some("4096") {
        return;
    }
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let out = server.cli(&["job", "list", "--json"]);
        assert!(out.status.success(), "{}", text(&out.stderr));
        let jobs: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        if jobs["jobs"]
            .as_array()
            .unwrap()
            .iter()
            .all(|j| j["state"] != "running")
        {
            return;
        }
        assert!(Instant::now() < until, "the job does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn collection_of_three(server: &Server) -> String {
    let out = server.cli(&["collection", "create", "replayed", "--json"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let made: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let id = made["id"].as_str().unwrap().to_owned();
    for machine in ["sim-000001", "sim-000002", "sim-000003"] {
        let out = server.cli(&["collection", "add", &id, machine]);
        assert!(out.status.success(), "{}", text(&out.stderr));
    }
    id
}

/// What a client sent, in its order, each with its name in the table. A sealed message is sent twice: as it
/// came, but for its logon, and then its clear text as a plain body.
fn exchanges(client: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for file in files(client) {
        let name = file.strip_prefix(wire()).unwrap().to_str().unwrap();
        let recorded = fs::read_to_string(&file).unwrap();
        match recorded.split_once(CLEAR) {
            None => found.push((name.to_owned(), recorded)),
            Some((sealed, clear)) => {
                let (head, frame) = sealed.split_once("\n\n").unwrap();
                let head = with_password(head);
                let frame = frame.replace('\n', "\r\n").replace("@SEALED@", OCTETS);
                let plain = head.replace(MULTIPART, SOAP);
                assert_ne!(plain, head, "{name}");
                found.push((name.to_owned(), format!("{head}\n\n{frame}")));
                found.push((format!("{name}{IN_CLEAR}"), format!("{plain}\n\n{clear}")));
            }
        }
    }
    found
}

/// The head of a request with a password in the place of a session that is gone.
fn with_password(head: &str) -> String {
    let mut lines: Vec<_> = head
        .lines()
        .filter(|l| !l.starts_with("Authorization:"))
        .collect();
    lines.push("Authorization: Basic @CREDENTIALS@");
    lines.join("\n")
}

fn fill(recorded: &str, address: SocketAddr, collection: &str, context: &str) -> String {
    let (head, body) = recorded.split_once("\n\n").unwrap();
    let host = nix::unistd::gethostname()
        .unwrap()
        .into_string()
        .unwrap()
        .to_uppercase();
    let host = host.split('.').next().unwrap().to_owned();
    let places = |s: &str| {
        s.replace("@ADDRESS@", &address.to_string())
            .replace("@HOST@", &host)
            .replace("@COLLECTION@", collection)
            .replace("@CONTEXT@", context)
            .replace("Basic @CREDENTIALS@", &basic(USER, PASSWORD))
    };
    let body = places(body);
    let head = places(head).replace("@LENGTH@", &body.len().to_string());
    format!("{}\r\n\r\n{body}", head.trim_end().replace('\n', "\r\n"))
}

fn expected() -> BTreeMap<String, Expected> {
    let table = fs::read_to_string(wire().join("expected.tsv")).unwrap();
    let line = |l: &str| {
        let mut cells = l.split('\t');
        let file = cells.next().unwrap().to_owned();
        let status = cells
            .next()
            .unwrap()
            .parse()
            .unwrap_or_else(|_| panic!("no status: {l}"));
        let facts = cells
            .map(|f| f.split_once('=').unwrap())
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .collect();
        (file, Expected { status, facts })
    };
    table
        .lines()
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
        .map(line)
        .collect()
}

fn wire() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/wire")
}

fn folders() -> Vec<PathBuf> {
    sorted(
        fs::read_dir(wire())
            .unwrap()
            .map(|e| e.unwrap().path())
            .filter(|p| p.is_dir())
            .collect(),
    )
}

/// The requests of a client, each operation's exchanges in their order (`x` before `x.2` before `x.10`).
fn files(client: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(client)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort_by_key(|f| place(f));
    files
}

/// The operation that a request belongs to, and which exchange of it this is.
fn place(file: &Path) -> (String, u32) {
    let name = file.file_name().unwrap().to_str().unwrap();
    let name = name.strip_suffix(".request.txt").unwrap();
    match name.split_once('.') {
        Some((operation, n)) => (operation.to_owned(), n.parse().unwrap()),
        None => (name.to_owned(), 1),
    }
}

fn sorted(mut paths: Vec<PathBuf>) -> Vec<PathBuf> {
    paths.sort();
    paths
}
