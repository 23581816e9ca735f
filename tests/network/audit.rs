//! Every method of the schema, by every role, over HTTP: who is let through, and what the audit log says.

use groupshot::cim::schema::VIRTUALIZATION_V2;
use groupshot::cim::{Class, Method, Schema, Type};
use groupshot::handler::Role;
use groupshot::provider::roles;
use serde_json::Value;

use super::*;

/// Stands in every text that is sent.
const SECRET: &str = "hunter2-in-an-argument";

const ROLES: [(&str, Role); 3] = [
    ("rita", Role::Reader),
    ("otto", Role::Operator),
    (USER, Role::Administrator),
];

fn lines(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap();
    text.lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

fn audited() -> (Run, SocketAddr, PathBuf) {
    let server = Run::start("[log]\naudit = \"audit.log\"\n", |_| {});
    let address = server.address("http");
    let file = server.folder().join("audit.log");
    (server, address, file)
}

/// A call with a secret in each text, of an object that does not exist.
fn call(class: &Class, method: &Method) -> String {
    let selectors: Vec<_> = class
        .keys()
        .map(|k| (k.name.as_str(), SECRET_FREE))
        .collect();
    let texts = method
        .parameters
        .iter()
        .filter(|p| p.input && !p.array && p.ty == Type::String);
    let input: String = texts
        .map(|p| format!("<p:{0}>{SECRET}</p:{0}>", p.name))
        .collect();
    invoke(
        class.name.as_str(),
        method.name.as_str(),
        &selectors,
        &input,
    )
}

/// Names of objects are told.
const SECRET_FREE: &str = "nothing";

#[test]
fn every_method_by_every_role_is_let_through_or_denied_and_told_of_once() {
    let (_server, address, file) = audited();
    let schema = Schema::builtin();
    let mut seen = 0;
    let mut calls = 0;
    for (user, role) in ROLES {
        let mut connection = Connection::open(address);
        for class in schema.classes(VIRTUALIZATION_V2) {
            for method in &class.methods {
                let needed = roles::required(class, method.name.as_str()).unwrap();
                let name = format!("{}.{} by {user}", class.name, method.name);
                let reply = connection.post(user, PASSWORD, call(class, method).as_bytes());
                let denied = reply.text().contains("w:AccessDenied");
                assert_eq!(denied, role < needed, "{name}: {}", reply.text());
                let all = lines(&file);
                let fresh = &all[seen..];
                assert_eq!(
                    fresh.len(),
                    usize::from(needed > Role::Reader),
                    "{name}: {}",
                    reply.text()
                );
                for line in fresh {
                    assert_eq!(line["event"], "call", "{name}");
                    assert_eq!(line["user"], user, "{name}");
                    assert_eq!(line["role"], role.to_string(), "{name}");
                    assert_eq!(line["method"], format!("{}.{}", class.name, method.name));
                    assert_eq!(line["fault"] == "AccessDenied", denied, "{name}: {line}");
                    assert!(
                        line["result"].is_u64() || line["fault"].is_string(),
                        "{name}: {line}"
                    );
                    assert!(line["address"].as_str().unwrap().starts_with("127.0.0.1:"));
                }
                seen = all.len();
                calls += 1;
            }
        }
    }
    assert!(calls > 100 && seen > 60, "{calls} calls, {seen} lines");
    let text = fs::read_to_string(&file).unwrap();
    assert!(!text.contains(SECRET) && !text.contains(PASSWORD));
}

/// What the protocol itself has: a reader may read, and nobody may do what no class offers.
#[test]
fn every_operation_of_the_protocol_answers_each_role_alike() {
    let (_server, address, file) = audited();
    let transfer = "http://schemas.xmlsoap.org/ws/2004/09/transfer";
    let class = format!("{V2}/Msvm_ComputerSystem");
    let eventing = "http://schemas.xmlsoap.org/ws/2004/08/eventing/Subscribe";
    let config = "http://schemas.microsoft.com/wbem/wsman/1/config";
    let identify = r#"<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Header/><s:Body><i:Identify xmlns:i="http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd"/></s:Body></s:Envelope>"#;
    let pull = "http://schemas.xmlsoap.org/ws/2004/09/enumeration/Pull";
    let nothing = "<n:Pull><n:EnumerationContext>x</n:EnumerationContext></n:Pull>";
    let named = [("Name", "nothing")];
    for (what, message) in [
        ("Identify", identify.to_owned()),
        (
            "Get",
            envelope(&format!("{transfer}/Get"), &class, &named, ""),
        ),
        (
            "config",
            envelope(&format!("{transfer}/Get"), config, &[], ""),
        ),
        ("Enumerate", enumerate("Msvm_ComputerSystem")),
        ("Pull", envelope(pull, &class, &[], nothing)),
        (
            "Put",
            envelope(&format!("{transfer}/Put"), &class, &named, "<x/>"),
        ),
        (
            "Create",
            envelope(&format!("{transfer}/Create"), &class, &[], "<x/>"),
        ),
        (
            "Delete",
            envelope(&format!("{transfer}/Delete"), &class, &named, ""),
        ),
        ("Subscribe", envelope(eventing, &class, &[], "")),
    ] {
        let answers = ROLES.map(|(user, _)| {
            let reply = ask(address, user, &message);
            let subcode = reply
                .text()
                .split("<s:Subcode>")
                .nth(1)
                .map(|t| t.split("</s:Subcode>").next().unwrap().to_owned());
            (reply.status, subcode)
        });
        assert_eq!(answers[0], answers[2], "{what}");
        assert_eq!(answers[1], answers[2], "{what}");
        let reads = ["Identify", "config", "Enumerate"].contains(&what);
        assert_eq!(
            answers[0].0,
            if reads { 200 } else { 500 },
            "{what}: {answers:?}"
        );
    }
    assert_eq!(lines(&file), [] as [Value; 0], "nothing was changed");
}

#[test]
fn failed_logons_and_lock_outs_are_told_and_no_unknown_name_is() {
    let config = "[log]\naudit = \"audit.log\"\n[auth]\nlockout_failures = 3\n";
    let server = Run::start(config, |_| {});
    let address = server.address("http");
    let file = server.folder().join("audit.log");
    let get = enumerate("Msvm_ComputerSystem");
    for (user, password) in [
        ("otto", "guessed-1"),
        (SECRET, "x"),
        ("otto", "guessed-2"),
        ("otto", "guessed-3"),
    ] {
        let reply = Connection::open(address).post(user, password, get.as_bytes());
        assert_eq!(reply.status, 401);
    }
    let text = fs::read_to_string(&file).unwrap();
    for secret in ["guessed", SECRET, PASSWORD] {
        assert!(!text.contains(secret), "{text}");
    }
    let told: Vec<_> = lines(&file)
        .iter()
        .map(|l| {
            let word = |key: &str| l[key].as_str().unwrap_or("-").to_owned();
            (word("event"), word("user"), word("what"))
        })
        .collect();
    let row = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
    assert_eq!(
        told,
        [
            row("logon-failed", "otto", "-"),
            row("logon-failed", "-", "-"),
            row("logon-failed", "otto", "-"),
            row("logon-failed", "otto", "-"),
            row("locked-out", "otto", "user"),
        ]
    );
    let reasons: Vec<_> = lines(&file).iter().map(|l| l["reason"].clone()).collect();
    assert_eq!(reasons[..2], ["wrong-password", "unknown-user"]);
    until("the log tells it", || {
        let log = server.said();
        log.contains("wrong password") && log.contains("there is no such user")
    });
    let log = server.said();
    assert!(
        !log.contains("are required") && !log.contains(SECRET),
        "{log}"
    );
}

/// Into the log with what was to stand in the file, whatever the log is told to leave out.
#[test]
fn a_line_that_the_file_does_not_take_is_in_the_log_whatever_that_leaves_out() {
    for audit in ["\"/dev/full\"", "true"] {
        let config = format!("[log]\nlevel = \"off\"\naudit = {audit}\n");
        let server = Run::start(&config, |_| {});
        let mut connection = Connection::open(server.address("http"));
        let body = invoke(
            "Msvm_ConcreteJob",
            "RequestStateChange",
            &[("InstanceID", "1")],
            "",
        );
        let reply = connection.post("rita", PASSWORD, body.as_bytes());
        assert!(reply.text().contains("w:AccessDenied"), "{}", reply.text());
        until("the line is in the log", || {
            let said = server.said();
            let line = said.contains("RequestStateChange") && said.contains("AccessDenied");
            line && said.contains("rita") && said.lines().count() == 1
        });
    }
}

#[test]
fn a_right_password_of_a_locked_user_is_told_to_the_operator_only_who_can_unlock_it() {
    let config = "[log]\naudit = \"audit.log\"\n[auth]\nlockout_failures = 2\n";
    let server = Run::start(config, |_| {});
    let address = server.address("http");
    let file = server.folder().join("audit.log");
    let get = enumerate("Msvm_ComputerSystem");
    let ask =
        |user: &str, password: &str| Connection::open(address).post(user, password, get.as_bytes());
    for _ in 0..2 {
        assert_eq!(ask("otto", "wrong").status, 401);
    }
    let undated = |text: String| -> String {
        let lines = text
            .lines()
            .filter(|l| !l.to_ascii_lowercase().starts_with("date"));
        lines.collect::<Vec<_>>().join("\n")
    };
    let wrong = undated(ask("otto", "wrong").text());
    assert_eq!(
        undated(ask("otto", PASSWORD).text()),
        wrong,
        "the client hears the same"
    );
    until("the log tells it apart", || {
        ask("otto", PASSWORD);
        let told = lines(&file);
        let right = told
            .iter()
            .any(|l| l["reason"] == "locked-out-right-password");
        right && server.said().contains("the password is right")
    });
    assert_eq!(
        ask("rita", PASSWORD).status,
        200,
        "loopback is not locked as an address"
    );
    let data = server.folder().join("data");
    let unlock = |args: &[&str]| {
        let out = run_in(&data, &[&["--json", "user", "unlock"], args].concat(), "");
        let shown: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(shown["version"], 1);
        shown
    };
    assert_eq!(
        unlock(&["otto"])["unlocked"],
        serde_json::json!(["127.0.0.1"])
    );
    assert_eq!(ask("otto", PASSWORD).status, 200);
    assert_eq!(unlock(&["otto"])["unlocked"], serde_json::json!([]));
    for _ in 0..2 {
        assert_eq!(ask("otto", "wrong").status, 401);
    }
    assert_eq!(ask("otto", PASSWORD).status, 401);
    let opened = unlock(&["--address", "127.0.0.1"]);
    assert_eq!(opened["unlocked"], serde_json::json!(["127.0.0.1"]));
    assert_eq!(ask("otto", PASSWORD).status, 200);
    assert!(
        lines(&file)
            .iter()
            .any(|l| l["event"] == "unlocked" && l["user"] == "otto")
    );
}

/// Whoever may do nothing fills no disk.
#[test]
fn a_call_that_is_denied_again_and_again_is_told_once_in_ten_seconds_for_each_user_and_method() {
    let (server, address, file) = audited();
    let schema = Schema::builtin();
    let class = schema
        .class(VIRTUALIZATION_V2, "Msvm_CollectionManagementService")
        .unwrap();
    let mut most = 0;
    for (user, method) in [
        ("rita", "DefineCollection"),
        ("rita", "DestroyCollection"),
        ("otto", "DestroyCollection"),
    ] {
        let message = call(class, class.method(method).unwrap());
        let begun = Instant::now();
        for _ in 0..30 {
            assert!(
                ask(address, user, &message)
                    .text()
                    .contains("w:AccessDenied")
            );
        }
        // One in 10 s: on a busy host the calls take longer.
        most += 1 + usize::try_from(begun.elapsed().as_secs() / 10).unwrap();
    }
    assert!(most < 90, "slower than the rate");
    assert!((3..=most).contains(&lines(&file).len()), "{most}");
    let said = || server.said().matches("Call refused").count();
    until("it is logged", || said() >= 3);
    assert!(said() <= most, "{most}");
}

#[test]
fn sighup_opens_the_audit_file_again() {
    let (server, address, file) = audited();
    let schema = Schema::builtin();
    let class = schema
        .class(VIRTUALIZATION_V2, "Msvm_CollectionManagementService")
        .unwrap();
    let denied = |method: &str, n: usize| {
        let message = call(class, class.method(method).unwrap());
        ask(address, "rita", &message);
        until("the line is there", || {
            file.exists() && lines(&file).len() == n
        });
    };
    denied("DefineCollection", 1);
    fs::rename(&file, file.with_extension("1")).unwrap();
    server.signal(Signal::SIGHUP);
    until("it is made again", || file.exists());
    denied("DestroyCollection", 1);
    assert_eq!(lines(&file.with_extension("1")).len(), 1);
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode & !0o640, 0, "{mode:o}");
}
