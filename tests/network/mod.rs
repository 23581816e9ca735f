//! The real program as a service on a network: crowds of clients, signals, the service manager, the audit log.

mod audit;
mod flood;
mod hostile;
mod stop;
mod systemd;

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::gate::Gate;
use crate::support::http::{Connection, Response};
use crate::support::server::{PASSWORD, USER, binary, run_in};

const V2: &str = "http://schemas.microsoft.com/wbem/wsman/1/wmi/root/virtualization/v2";

/// `groupshot serve` over a simulation, with its log.
struct Run {
    child: Child,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Run {
    /// Starts `serve` on a fresh directory as `prepare` wants it; the first port is a free one.
    fn start(config: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        for (user, role) in [
            (USER, "administrator"),
            ("otto", "operator"),
            ("rita", "reader"),
        ] {
            let args = ["user", "add", user, "--role", role, "--password-stdin"];
            assert!(run_in(&data, &args, PASSWORD).status.success());
        }
        fs::write(folder.path().join("groupshot.toml"), config).unwrap();
        let log = folder.path().join("log");
        let mut command = Command::new(binary());
        command
            .args(["serve", "--engine", "sim", "--machines", "2"])
            .args(["--listen", "127.0.0.1:0", "--data-dir"])
            .arg(&data)
            .arg("--config")
            .arg(folder.path().join("groupshot.toml"))
            .stdin(Stdio::null())
            .stdout(File::create(folder.path().join("out")).unwrap())
            .stderr(File::create(&log).unwrap());
        prepare(&mut command);
        Self {
            child: command.spawn().unwrap(),
            log,
            _folder: folder,
        }
    }

    fn folder(&self) -> &Path {
        self._folder.path()
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// The address after `listening on http://` or `https://`.
    fn address(&self, scheme: &str) -> SocketAddr {
        let start = format!("listening on {scheme}://");
        let out = self.folder().join("out");
        let mut found = None;
        until("it listens", || {
            let text = fs::read_to_string(&out).unwrap();
            let rest = text.split_once(&start).map(|(_, rest)| rest.to_owned());
            found = rest.and_then(|r| r.split_once('/')?.0.parse().ok());
            found.is_some() && text.contains("listening on http://")
        });
        found.unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + limit;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for it, a minute at most.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < end, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A request envelope.
fn envelope(action: &str, resource: &str, selectors: &[(&str, &str)], body: &str) -> String {
    let each = selectors.iter();
    let each =
        each.map(|(name, value)| format!("<w:Selector Name=\"{name}\">{value}</w:Selector>"));
    let set = match selectors.is_empty() {
        true => String::new(),
        false => format!(
            "<w:SelectorSet>{}</w:SelectorSet>",
            each.collect::<String>()
        ),
    };
    format!(
        r#"<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing" xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd" xmlns:n="http://schemas.xmlsoap.org/ws/2004/09/enumeration"><s:Header><a:To>http://h/wsman</a:To><w:ResourceURI>{resource}</w:ResourceURI><a:ReplyTo><a:Address>http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</a:Address></a:ReplyTo><a:Action>{action}</a:Action><a:MessageID>uuid:11111111-1111-1111-1111-111111111111</a:MessageID>{set}</s:Header><s:Body>{body}</s:Body></s:Envelope>"#
    )
}

/// A call of a method; the INPUT element's content is `input`.
fn invoke(class: &str, method: &str, selectors: &[(&str, &str)], input: &str) -> String {
    let resource = format!("{V2}/{class}");
    let body = format!("<p:{method}_INPUT xmlns:p=\"{resource}\">{input}</p:{method}_INPUT>");
    envelope(&format!("{resource}/{method}"), &resource, selectors, &body)
}

/// An Enumerate of all of a class.
fn enumerate(class: &str) -> String {
    let action = "http://schemas.xmlsoap.org/ws/2004/09/enumeration/Enumerate";
    envelope(action, &format!("{V2}/{class}"), &[], "<n:Enumerate/>")
}

/// One request of a user on a connection of its own.
fn ask(address: SocketAddr, user: &str, body: &str) -> Response {
    Connection::open(address).post(user, PASSWORD, body.as_bytes())
}
