//! What is measured: the server as it is served, on simulated machines, and the requests of a real client to it.

use std::net::SocketAddr;
use std::process::Command;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use groupshot::auth::users;
use groupshot::client::{Client, Credentials};
use groupshot::config::Config;
use groupshot::engine::settings::EngineKind;
use groupshot::handler::Role;
use groupshot::server::Server;
use tokio::runtime::Runtime;

/// The user of the benchmarks.
const USER: &str = "bench";
/// Another user, who only reads.
const READER: &str = "read1";
/// Their password.
const PASSWORD: &str = "a password of the usual length";

/// URIs of classes begin so.
pub(crate) const WMI: &str =
    "http://schemas.microsoft.com/wbem/wsman/1/wmi/root/virtualization/v2/";

/// The server in this process.
pub(crate) struct Subject {
    pub(crate) address: SocketAddr,
    _data: tempfile::TempDir,
}

impl Subject {
    /// Serves three simulated machines for the life of `runtime`.
    pub(crate) fn start(runtime: &Runtime) -> Self {
        let data = data_dir();
        let mut config = Config::default();
        config.listen.http.set_port(0);
        config.engine.default = EngineKind::Sim;
        let server = runtime
            .block_on(Server::start(data.path(), &config))
            .unwrap();
        let address = server.address();
        runtime.spawn(async move { server.run_until(std::future::pending()).await });
        Self {
            address,
            _data: data,
        }
    }
}

/// A data directory in which the user exists.
pub(crate) fn data_dir() -> tempfile::TempDir {
    let data = tempfile::tempdir().unwrap();
    users::add(data.path(), USER, Role::Administrator, PASSWORD).unwrap();
    users::add(data.path(), READER, Role::Reader, PASSWORD).unwrap();
    data
}

/// A client command of the program against the server at `address`; its JSON.
pub(crate) fn command(address: SocketAddr, args: &[&str]) -> serde_json::Value {
    let output = Command::new(env!("CARGO_BIN_EXE_groupshot"))
        .args(args)
        .arg("--json")
        .env("GROUPSHOT_URL", format!("http://{address}/wsman"))
        .env("GROUPSHOT_USER", USER)
        .env("GROUPSHOT_PASSWORD", PASSWORD)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {text}{error}");
    serde_json::from_str(&text).unwrap()
}

/// A local command of the program on this data directory; its JSON.
pub(crate) fn local(data: &std::path::Path, args: &[&str]) -> serde_json::Value {
    let output = Command::new(env!("CARGO_BIN_EXE_groupshot"))
        .args(args)
        .arg("--json")
        .arg("--data-dir")
        .arg(data)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A client of the server at `address`.
pub(crate) fn client(address: SocketAddr) -> Client {
    let credentials = Credentials {
        user: USER.into(),
        password: PASSWORD.into(),
    };
    Client::new(&format!("http://{address}/wsman"), &credentials).unwrap()
}

/// The id of a job that has ended: that of a snapshot set of one machine.
pub(crate) fn ended_job(address: SocketAddr) -> String {
    command(address, &["collection", "create", "bench", "sim-000001"]);
    command(address, &["snapshot", "create", "bench"]);
    let jobs = command(address, &["job", "list"]);
    jobs["jobs"][0]["id"].as_str().unwrap().to_owned()
}

/// Identify, as the recorded client sends it.
pub(crate) fn identify(address: SocketAddr) -> Vec<u8> {
    let body = recorded(include_str!(
        "../fixtures/wire/pypsrp-basic/identify.request.txt"
    ));
    post(address, &body)
}

/// Get of the snapshot service with all its keys.
pub(crate) fn get(address: SocketAddr) -> Vec<u8> {
    let body = recorded(include_str!(
        "../fixtures/wire/pypsrp-basic/get.request.txt"
    ));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let host = host.trim().split('.').next().unwrap().to_uppercase();
    post(address, &body.replace("@HOST@", &host))
}

/// Enumerate of all computer systems, the host and three machines, in one answer.
pub(crate) fn enumerate(address: SocketAddr) -> Vec<u8> {
    let body = recorded(include_str!(
        "../fixtures/wire/pypsrp-basic/enumerate.request.txt"
    ));
    post(address, &body)
}

/// A WQL query whose items come in one answer, however many.
pub(crate) fn query(address: SocketAddr, text: &str) -> Vec<u8> {
    let body = recorded(include_str!(
        "../fixtures/wire/pypsrp-basic/enumerate_wql.request.txt"
    ));
    let asked = "select * from Msvm_ComputerSystem where Name='@HOST@'";
    assert!(body.contains(asked));
    post(address, &roomy(&body.replace(asked, text)))
}

/// A Pull-driven Enumerate that gives nothing but its context, and takes answers of any size.
pub(crate) fn open(address: SocketAddr) -> Vec<u8> {
    let body = recorded(include_str!(
        "../fixtures/wire/pypsrp-basic/pull.request.txt"
    ));
    post(address, &roomy(&body))
}

/// Pull of the next `count` items.
pub(crate) fn pull(address: SocketAddr, context: &str, count: usize) -> Vec<u8> {
    let body = recorded(include_str!(
        "../fixtures/wire/pypsrp-basic/pull.2.request.txt"
    ));
    let body = body.replace("@CONTEXT@", context).replace(
        ">2</wsen:MaxElements>",
        &format!(">{count}</wsen:MaxElements>"),
    );
    post(address, &roomy(&body))
}

/// `Msvm_ConcreteJob.GetErrorEx` of that job.
pub(crate) fn get_error_ex(address: SocketAddr, job: &str) -> Vec<u8> {
    let body = recorded(include_str!(
        "../fixtures/wire/pypsrp-basic/enumerate.request.txt"
    ));
    let uri = format!("{WMI}Msvm_ConcreteJob");
    let selectors = format!(
        "<wsman:SelectorSet><wsman:Selector Name=\"InstanceID\">{job}</wsman:Selector></wsman:SelectorSet></s:Header>"
    );
    let input = format!("<s:Body><j:GetErrorEx_INPUT xmlns:j=\"{uri}\"/></s:Body></s:Envelope>");
    let (header, _) = body.split_once("<s:Body>").unwrap();
    let header = header
        .replace(
            "http://schemas.xmlsoap.org/ws/2004/09/enumeration/Enumerate",
            &format!("{uri}/GetErrorEx"),
        )
        .replace(&format!("{WMI}Msvm_ComputerSystem"), &uri)
        .replace("</s:Header>", &selectors);
    post(address, &format!("{header}{input}"))
}

/// `CreateSnapshot` of that collection.
pub(crate) fn create_snapshot(address: SocketAddr, collection: &str) -> Vec<u8> {
    let body = recorded(include_str!(
        "../fixtures/wire/pypsrp-basic/invoke.request.txt"
    ));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let host = host.trim().split('.').next().unwrap().to_uppercase();
    let body = body
        .replace("@HOST@", &host)
        .replace("@COLLECTION@", collection);
    post(address, &body)
}

/// The body of a recorded request.
pub(crate) fn recorded(file: &str) -> String {
    file.split_once("\n\n").unwrap().1.to_owned()
}

/// The body with room for answers of any size.
pub(crate) fn roomy(body: &str) -> String {
    body.replace(">153600<", ">16777216<")
}

/// The request as the reader sends it. Both names are equally long.
pub(crate) fn as_reader(request: Vec<u8>) -> Vec<u8> {
    let credentials = |user| BASE64_STANDARD.encode(format!("{user}:{PASSWORD}"));
    let request = String::from_utf8(request).unwrap();
    request
        .replace(&credentials(USER), &credentials(READER))
        .into_bytes()
}

/// The whole request: the headers of the recorded client, its body with what belongs to this server.
pub(crate) fn post(address: SocketAddr, body: &str) -> Vec<u8> {
    let body = body.replace("@ADDRESS@", &address.to_string());
    assert!(!body.contains('@'), "a place is not filled in: {body}");
    let credentials = BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}"));
    format!(
        "POST /wsman HTTP/1.1\r\nHost: {address}\r\nUser-Agent: Python PSRP Client\r\n\
         Accept-Encoding: identity\r\nAccept: */*\r\nConnection: keep-alive\r\n\
         Content-Type: application/soap+xml;charset=UTF-8\r\nContent-Length: {}\r\n\
         Authorization: Basic {credentials}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
