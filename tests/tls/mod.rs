//! The real program with TLS: its own certificate, the operator's, SIGHUP, the client commands.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use groupshot::tls::Trust;

use crate::support::http::Connection;
use crate::support::pki::Authority;
use crate::support::server::{Options, PASSWORD, Server, USER, binary, text};

const TLS: [&str; 6] = [
    "--tls-listen",
    "127.0.0.1:0",
    "--engine",
    "sim",
    "--machines",
    "3",
];

const IDENTIFY: &str = r#"<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Header/><s:Body><i:Identify xmlns:i="http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd"/></s:Body></s:Envelope>"#;

fn believing(ca: &Path) -> Trust {
    Trust {
        ca: Some(ca.to_owned()),
        ..Trust::default()
    }
}

fn open(server: &Server, trust: &Trust) -> Connection {
    Connection::secure(server.secure.as_ref().unwrap().0, trust)
}

/// `groupshot job list` with these further arguments and this environment.
fn job_list(server: &Server, arguments: &[&str]) -> Output {
    Command::new(binary())
        .args(["job", "list", "--url", &server.secure_url()])
        .args(arguments)
        .env("GROUPSHOT_USER", USER)
        .env("GROUPSHOT_PASSWORD", PASSWORD)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn a_server_without_a_certificate_makes_one_that_its_commands_believe() {
    let server = Server::start(&TLS);
    let own = server.data.join("tls/certificate.pem");
    let (_, fingerprint) = server.secure.clone().unwrap();
    let mode = |file| {
        fs::metadata(server.data.join(file))
            .unwrap()
            .permissions()
            .mode()
    };
    assert_eq!(mode("tls/key.pem") & 0o777, 0o600);
    let mut connection = open(&server, &believing(&own));
    assert_eq!(
        connection.post(USER, PASSWORD, IDENTIFY.as_bytes()).status,
        200
    );
    assert_eq!(connection.fingerprint(), fingerprint, "as printed");

    let own = own.to_str().unwrap();
    for (arguments, code, words) in [
        (&["--ca", own][..], 0, ""),
        (&["--insecure"], 0, ""),
        (&[], 7, "--ca FILE"),
        (&["--ca", "/nonexistent"], 2, "/nonexistent: "),
        (&["--cert", own], 2, "--key"),
        (&["--insecure", "--ca", own], 2, "--ca"),
    ] {
        let out = job_list(&server, arguments);
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
}

/// What Identify tells is what the server takes: no profile too many, none too few.
#[test]
fn o_2_identify_names_the_security_profiles_that_are_offered() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Authority::new(folder.path(), "ca");
    let config = folder.path().join("groupshot.toml");
    fs::write(
        &config,
        "[tls]\nclient_ca = \"ca.pem\"\n[roles]\n\
         mappings = [{ subject = \"CN=ops,O=Example\", user = \"ops\", role = \"reader\" }]\n",
    )
    .unwrap();
    assert!(ca.file.ends_with("ca.pem"));
    let config = ["--config", config.to_str().unwrap()];
    for (arguments, profiles) in [
        (&[][..], &["http/basic"][..]),
        (&TLS, &["http/basic", "https/basic"]),
        (
            &[&TLS[..], &config].concat(),
            &["http/basic", "https/basic", "https/mutual"],
        ),
    ] {
        let server = Server::start(arguments);
        let mut connection = Connection::open(server.address);
        let answer = connection.post(USER, PASSWORD, IDENTIFY.as_bytes()).text();
        let told: Vec<_> = answer
            .split("/wsman/1/wsman/secprofile/")
            .skip(1)
            .map(|rest| rest.split('<').next().unwrap())
            .collect();
        assert_eq!(told, profiles, "{answer}");
    }
}

#[test]
fn commands_log_on_with_a_certificate_in_its_role() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Authority::new(folder.path(), "ca");
    let shown = ca.server("server");
    let (ops, stranger) = (ca.client("ops"), ca.client("stranger"));
    let config = folder.path().join("groupshot.toml");
    fs::write(
        &config,
        "[tls]\ncertificate = \"server.crt\"\nkey = \"server.key\"\nclient_ca = \"ca.pem\"\n[roles]\n\
         mappings = [{ subject = \"CN=ops,O=Example\", user = \"ops\", role = \"reader\" }]\n",
    )
    .unwrap();
    let config = config.to_str().unwrap();
    let server = Server::start(&[&TLS[..], &["--config", config]].concat());
    assert_eq!(server.secure.as_ref().unwrap().1, shown.fingerprint);
    let ca = ca.file.to_str().unwrap();
    let by = |pair: &crate::support::pki::Pair, command: &[&str]| {
        Command::new(binary())
            .args(command)
            .args(["--url", &server.secure_url(), "--ca", ca, "--cert"])
            .arg(&pair.certificate)
            .arg("--key")
            .arg(&pair.key)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let out = by(&ops, &["collection", "list"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let out = by(&ops, &["collection", "create", "x"]);
    assert!(!out.status.success(), "a reader");
    assert!(
        text(&out.stderr).contains("AccessDenied"),
        "{}",
        text(&out.stderr)
    );
    let out = by(&stranger, &["collection", "list"]);
    assert_eq!(out.status.code(), Some(5), "{}", text(&out.stderr));
    assert!(
        text(&out.stderr).contains("stands for no user"),
        "{}",
        text(&out.stderr)
    );
}

#[test]
fn files_that_cannot_be_used_stop_the_start_and_the_check_with_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Authority::new(folder.path(), "ca");
    ca.server("server");
    ca.server("other");
    let file = folder.path().join("groupshot.toml");
    let check = |content: &str| {
        fs::write(&file, content).unwrap();
        let arguments = ["config", "check", file.to_str().unwrap()];
        Command::new(binary()).args(arguments).output().unwrap()
    };
    let out = check("[tls]\ncertificate = \"server.crt\"\nkey = \"server.key\"\n");
    assert!(out.status.success(), "{}", text(&out.stderr));
    let out = check("[tls]\ncertificate = \"server.crt\"\nkey = \"other.key\"\n");
    assert_eq!(out.status.code(), Some(3));
    let said = text(&out.stderr);
    assert!(said.contains("other.key: this is not the key of"), "{said}");
    let errors = said.lines().filter(|line| !line.starts_with("warning: "));
    assert_eq!(errors.count(), 1, "{said}");
    let config = ["--config", file.to_str().unwrap()];
    let options = Options {
        args: &[&TLS[..], &config].concat(),
        ..Options::default()
    };
    let end = Server::try_with(&options).err().expect("it does not start");
    assert!(
        end.contains("exit status: 3") && end.contains("other.key: "),
        "{end}"
    );
}

/// Ends the load, also when the test fails: the threads would be waited for without end.
struct Ending<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

#[test]
fn sighup_exchanges_the_certificate_under_load_and_no_connection_notices() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Authority::new(folder.path(), "ca");
    let first = ca.server("server");
    let config = folder.path().join("groupshot.toml");
    fs::write(
        &config,
        "[tls]\ncertificate = \"server.crt\"\nkey = \"server.key\"\n",
    )
    .unwrap();
    let config = config.to_str().unwrap();
    let server = Server::start(&[&TLS[..], &["--config", config]].concat());
    let trust = believing(&ca.file);
    let hangup = || {
        let pid = nix::unistd::Pid::from_raw(server.pid().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).unwrap();
    };
    let until_shown = |fingerprint: &str| {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let mut connection = open(&server, &trust);
            assert_eq!(
                connection.post(USER, PASSWORD, IDENTIFY.as_bytes()).status,
                200
            );
            if connection.fingerprint() == fingerprint {
                return;
            }
            assert!(Instant::now() < until, "still the old certificate");
        }
    };
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ending = Ending(&stop);
        let load = || {
            let mut connection = open(&server, &trust);
            let mut answers = 0;
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                let answer = connection.post(USER, PASSWORD, IDENTIFY.as_bytes());
                assert_eq!(answer.status, 200);
                answers += 1;
            }
            assert_eq!(connection.fingerprint(), first.fingerprint);
            answers
        };
        let loads: Vec<_> = (0..4).map(|_| scope.spawn(load)).collect();
        until_shown(&first.fingerprint);
        let second = ca.server("server");
        hangup();
        until_shown(&second.fingerprint);
        fs::write(&second.key, "nonsense").unwrap();
        hangup();
        for _ in 0..10 {
            until_shown(&second.fingerprint);
        }
        let third = ca.server("server");
        hangup();
        until_shown(&third.fingerprint);
        drop(ending);
        for load in loads {
            assert!(load.join().unwrap() > 3);
        }
    });
}

#[test]
fn a_11_the_configured_number_of_failures_locks_out_over_tls_too() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("groupshot.toml");
    fs::write(
        &config,
        "[auth]\nlockout_failures = 2\nlockout_seconds = 3600\n",
    )
    .unwrap();
    let config = config.to_str().unwrap();
    let server = Server::start(&[&TLS[..], &["--config", config]].concat());
    let trust = believing(&server.data.join("tls/certificate.pem"));
    let ask = |password: &str| {
        let mut connection = open(&server, &trust);
        connection.post(USER, password, IDENTIFY.as_bytes()).status
    };
    assert_eq!([ask(PASSWORD), ask("a"), ask(PASSWORD)], [200, 401, 200]);
    assert_eq!([ask("a"), ask("b"), ask(PASSWORD)], [401, 401, 401]);
    let mut plain = Connection::open(server.address);
    assert_eq!(plain.post(USER, PASSWORD, IDENTIFY.as_bytes()).status, 401);
}
