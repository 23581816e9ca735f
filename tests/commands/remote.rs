//! Commands that speak to a server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use crate::support::gate::Gate;
use crate::support::server::{Options, PASSWORD, Server, USER, binary, on_a_terminal, run_in};

use super::{code, fails, json, ok, said};

#[test]
fn collections_and_snapshot_sets_from_the_shell() {
    let server = Server::start(&["--engine", "sim", "--machines", "4"]);
    let made = json(&server.cli(&["collection", "create", "web", "sim-000001", "--json"]));
    let id = made["id"].as_str().unwrap();
    ok(&server.cli(&["collection", "add", "web", "sim-000002", "sim-000003"]));
    ok(&server.cli(&["collection", "remove", id, "sim-000003"]));
    let list = json(&server.cli(&["collection", "list", "--json"]));
    assert_eq!(
        list["collections"][0]["members"].as_array().unwrap().len(),
        2
    );

    let taken = json(&server.cli(&["snapshot", "create", "web", "--name", "a <b>", "--json"]));
    let (set, job) = (
        taken["set"].as_str().unwrap(),
        taken["job"].as_str().unwrap(),
    );
    let sets = json(&server.cli(&["snapshot", "list", "--json"]));
    assert_eq!(sets["sets"][0]["name"], "a <b>");
    assert_eq!(sets["sets"][0]["members"], 2);
    let shown = json(&server.cli(&["snapshot", "show", set, "--json"]));
    assert_eq!(shown["members"].as_array().unwrap().len(), 2);
    assert_eq!(shown["members"][0]["disks"].as_array().unwrap().len(), 1);
    let ended = json(&server.cli(&["job", "show", job, "--json"]));
    assert_eq!(
        (&ended["state"], &ended["percent"]),
        (&"completed".into(), &100.into())
    );
    fails(&server.cli(&["job", "cancel", job]), 1, "ended");
    assert_eq!(
        json(&server.cli(&["job", "list", "--json"]))["jobs"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    // A machine that left the library is known by its id only; the server decides whether it is a member.
    let left = "00000000-0000-4000-8000-00000000DEAD";
    fails(
        &server.cli(&["collection", "remove", id, left]),
        1,
        "not a member",
    );
    ok(&server.cli(&["collection", "delete", "web"]));
    fails(
        &server.cli(&["collection", "delete", "web"]),
        1,
        "no collection `web`",
    );
}

#[test]
fn what_is_named_by_its_id_needs_no_list_and_a_long_name_is_refused() {
    let server = Server::start(&["--engine", "sim", "--machines", "2"]);
    let long = "<".repeat(257);
    let refused = server.cli(&["collection", "create", &long]);
    fails(&refused, 1, "at most 256 characters");
    let create =
        |args: &[&str]| json(&server.cli(&[&["collection", "create"], args, &["--json"]].concat()));
    let id_of = |made: &serde_json::Value| made["id"].as_str().unwrap().to_owned();
    let machines = json(&server.cli(&["collection", "list", "--json"]));
    assert_eq!(machines["collections"].as_array().unwrap().len(), 0);
    let web = id_of(&create(&[&"&".repeat(256), "sim-000001"]));
    let above = id_of(&create(&["above", "--groups", &web.to_lowercase()]));
    let taken = json(&server.cli(&["snapshot", "create", &web, "--json"]));
    let set = taken["set"].as_str().unwrap();
    let braced = format!("{{{set}}}");
    for set in [set, &set.to_lowercase(), &braced] {
        ok(&server.cli(&["snapshot", "show", set]));
    }
    ok(&server.cli(&["snapshot", "delete", set, "--yes"]));
    fails(
        &server.cli(&["snapshot", "show", set]),
        1,
        "no snapshot set",
    );
    let gone = json(&server.cli(&["collection", "delete", &web, "--json"]));
    assert_eq!(gone["groups"][0], above.as_str());
    ok(&server.cli(&["collection", "delete", &above]));
}

#[test]
fn a_member_that_is_named_twice_is_one_member() {
    let server = Server::start(&["--engine", "sim", "--machines", "2"]);
    let made = ok(&server.cli(&["collection", "create", "q", "sim-000001", "sim-000001"]));
    assert!(made.ends_with(" with 1 member\n"), "{made}");
}

#[test]
fn a_set_is_exported_from_the_shell() {
    let home = tempfile::tempdir().unwrap();
    let (root, config) = (home.path().join("exports"), home.path().join("c.toml"));
    std::fs::create_dir(&root).unwrap();
    std::fs::write(&config, format!("[export]\nroots = [{root:?}]\n")).unwrap();
    let server = Server::start(&["--engine", "sim", "--config", config.to_str().unwrap()]);
    ok(&server.cli(&["collection", "create", "web", "sim-000001"]));
    let taken = json(&server.cli(&["snapshot", "create", "web", "--name", "a", "--json"]));
    let set = taken["set"].as_str().unwrap();
    let root = root.to_str().unwrap();
    let with_disks = server.cli(&["snapshot", "export", "a", root]);
    fails(&with_disks, 1, "simulated disks have no content");
    fails(
        &server.cli(&["snapshot", "export", "a", "/"]),
        1,
        "[export] roots",
    );
    fails(&server.cli(&["snapshot", "export", "b", root]), 1, "`b`");
    let alone = ["snapshot", "export", "a", root, "--definitions-only"];
    let done = json(&server.cli(&[&alone[..], &["--json"]].concat()));
    assert_eq!(done["set"], set);
    let folder = done["directory"].as_str().unwrap();
    assert!(std::path::Path::new(folder).join("manifest.json").is_file());
    fails(&server.cli(&alone), 1, "exists already");
}

#[test]
fn a_ctrl_c_that_comes_too_late_waits_for_the_set() {
    let gate = Gate::new();
    let server = Server::with(&Options {
        args: &["--engine", "sim"],
        env: &[("GROUPSHOT_FAILPOINTS", &gate.at("create.tops.after"))],
        ..Options::default()
    });
    ok(&server.cli(&["collection", "create", "web", "sim-000001"]));
    let mut child = Command::new(binary())
        .args(["snapshot", "create", "web"])
        .env("GROUPSHOT_URL", server.url())
        .env("GROUPSHOT_USER", USER)
        .env("GROUPSHOT_PASSWORD", PASSWORD)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    while !next().contains("switching machines") {}
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::SIGINT).unwrap();
    while !next().contains("too late to cancel") {}
    gate.open();
    let out = ok(&child.wait_with_output().unwrap());
    assert!(out.contains("snapshot set "), "{out}");
}

/// A server over one simulated machine with a set `first` of it.
fn with_a_set(failpoints: &str) -> Server {
    let server = Server::with(&Options {
        args: &["--engine", "sim"],
        env: &[("GROUPSHOT_FAILPOINTS", failpoints)],
        ..Options::default()
    });
    ok(&server.cli(&["collection", "create", "web", "sim-000001"]));
    ok(&server.cli(&["snapshot", "create", "web", "--name", "first"]));
    server
}

#[test]
fn a_set_is_applied_by_name_or_id_and_its_job_is_followed() {
    let server = with_a_set("");
    let set = json(&server.cli(&["snapshot", "list", "--json"]))["sets"][0]["id"].clone();
    let said = server.cli(&["snapshot", "apply", "first", "--yes"]);
    assert!(
        ok(&said).contains("snapshot set `first` "),
        "{}",
        super::said(&said)
    );
    let applied = json(&server.cli(&[
        "snapshot",
        "apply",
        set.as_str().unwrap(),
        "--yes",
        "--json",
    ]));
    assert_eq!(applied["set"], set);
    let job = applied["job"].as_str().unwrap();
    let ended = json(&server.cli(&["job", "show", job, "--json"]));
    assert_eq!(ended["state"], "completed");
    let one = |machine| server.cli(&["snapshot", "apply", "first", "--yes", "--member", machine]);
    ok(&one("sim-000001"));
    fails(&one("sim-000002"), 1, "holds nothing of");
    let begun = json(&server.cli(&["snapshot", "apply", "first", "--yes", "--no-wait", "--json"]));
    assert_ne!(begun["job"], applied["job"]);
    fails(
        &server.cli(&["snapshot", "apply", "second", "--yes"]),
        1,
        "no snapshot set `second`",
    );
}

#[test]
fn an_apply_that_fails_is_exit_6_and_says_why() {
    let server = with_a_set("apply.prepare.after=error");
    fails(
        &server.cli(&["snapshot", "apply", "first", "--yes"]),
        6,
        "apply.prepare.after",
    );
    ok(&server.cli(&["snapshot", "apply", "first", "--yes"]));
}

#[test]
fn a_ctrl_c_before_the_commit_undoes_the_apply() {
    let gate = Gate::new();
    let server = with_a_set(&gate.at("apply.prepare.after"));
    let mut child = Command::new(binary())
        .args(["snapshot", "apply", "first", "--yes"])
        .env("GROUPSHOT_URL", server.url())
        .env("GROUPSHOT_USER", USER)
        .env("GROUPSHOT_PASSWORD", PASSWORD)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    while !next().contains(" % ") {}
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::SIGINT).unwrap();
    while !next().contains("cancelling") {}
    gate.open();
    while !next().contains("terminated") {}
    assert_eq!(child.wait().unwrap().code(), Some(6));
    ok(&server.cli(&["snapshot", "apply", "first", "--yes"]));
}

#[test]
fn a_set_is_deleted_by_name_or_id_and_its_job_is_followed() {
    let server = with_a_set("");
    ok(&server.cli(&["snapshot", "create", "web", "--name", "second"]));
    let said = server.cli(&["snapshot", "delete", "first", "--yes"]);
    assert!(
        ok(&said).contains("snapshot set `first` "),
        "{}",
        super::said(&said)
    );
    let left = json(&server.cli(&["snapshot", "list", "--json"]));
    let [second] = &left["sets"].as_array().unwrap()[..] else {
        panic!("{left}")
    };
    assert_eq!(second["name"], "second");
    fails(
        &server.cli(&["snapshot", "delete", "first", "--yes"]),
        1,
        "no snapshot set `first`",
    );
    let id = second["id"].as_str().unwrap();
    let gone = json(&server.cli(&["snapshot", "delete", id, "--yes", "--json"]));
    assert_eq!(gone["set"], id);
    let job = gone["job"].as_str().unwrap();
    let ended = json(&server.cli(&["job", "show", job, "--json"]));
    assert_eq!(ended["state"], "completed");
}

#[test]
fn a_delete_that_fails_once_goes_on_and_no_wait_tells_the_job() {
    let server = with_a_set("destroy.forget.before=error");
    let begun = server.cli(&[
        "snapshot",
        "delete",
        "first",
        "--yes",
        "--no-wait",
        "--json",
    ]);
    let begun = json(&begun);
    let job = begun["job"].as_str().unwrap();
    let began = std::time::Instant::now();
    while json(&server.cli(&["job", "show", job, "--json"]))["state"] != "completed" {
        assert!(began.elapsed().as_secs() < 60, "never ends");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

#[test]
fn a_delete_asks_on_a_terminal_and_is_refused_where_nobody_can_be_asked() {
    let server = with_a_set("");
    let refused = server.cli(&["snapshot", "delete", "first"]);
    fails(&refused, 2, "--yes");
    // A terminal, with somebody who types.
    let answered = |answer: &str| {
        let env = [
            ("GROUPSHOT_URL", server.url()),
            ("GROUPSHOT_USER", USER.to_owned()),
            ("GROUPSHOT_PASSWORD", PASSWORD.to_owned()),
        ];
        let env = env.each_ref().map(|(key, value)| (*key, value.as_str()));
        let line = ["snapshot", "delete", "first"];
        let (code, said) = on_a_terminal(&line, &env, &[&format!("{answer}\n")]);
        assert!(
            said.contains("`first`") && said.contains("with 1 member?"),
            "{said}"
        );
        code
    };
    let sets = || {
        let list = json(&server.cli(&["snapshot", "list", "--json"]));
        list["sets"].as_array().unwrap().len()
    };
    for no in ["", "n", "first"] {
        assert_eq!(answered(no), Some(1), "{no:?}");
        assert_eq!(sets(), 1, "{no:?}");
    }
    assert_eq!(answered("y"), Some(0));
    assert_eq!(sets(), 0);
}

#[test]
fn lists_tell_when_and_a_name_cannot_command_the_terminal() {
    let server = Server::start(&["--engine", "sim"]);
    ok(&server.cli(&["collection", "create", "web", "sim-000001"]));
    let create = |name: &str| ok(&server.cli(&["snapshot", "create", "web", "--name", name]));
    create("z\u{9b}2J");
    create(&"a".repeat(61));
    let sets = json(&server.cli(&["snapshot", "list", "--json"]));
    assert_eq!(sets["sets"][0]["name"], "z\u{9b}2J");
    assert!(sets["sets"][0]["taken"].as_str() < sets["sets"][1]["taken"].as_str());
    let text = ok(&server.cli(&["snapshot", "list"]));
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("TAKEN (UTC)  "), "{text}");
    assert!(lines[1].contains(r"z\u{9b}2J"), "{text}");
    assert!(
        lines[2].contains("aaa… ") && lines[2].starts_with("20"),
        "{text}"
    );
    let jobs = json(&server.cli(&["job", "list", "--json"]));
    assert!(jobs["jobs"][0]["submitted"].as_str() < jobs["jobs"][1]["submitted"].as_str());
    let text = ok(&server.cli(&["job", "list"]));
    assert!(text.starts_with("SUBMITTED (UTC)  "), "{text}");
}

#[test]
fn a_name_cannot_pretend_to_be_lines_and_what_xml_cannot_hold_is_not_sent() {
    let server = Server::start(&["--engine", "sim"]);
    let name = "a\nb\u{202e}c";
    let shown = r"a\nb\u{202e}c";
    let made = ok(&server.cli(&["collection", "create", name, "sim-000001"]));
    assert!(
        made.starts_with(&format!("collection `{shown}` ")),
        "{made}"
    );
    ok(&server.cli(&["snapshot", "create", name, "--name", name]));
    let text = ok(&server.cli(&["snapshot", "show", name]));
    assert_eq!(text.lines().next(), Some(shown), "{text}");
    for (bad, told) in [
        ("a\u{1b}[2J", "U+001B"),
        ("\u{1}", "U+0001"),
        ("x\u{fffe}", "U+FFFE"),
    ] {
        fails(&server.cli(&["collection", "create", bad]), 2, told);
        let set = ["snapshot", "create", name, "--name", bad];
        fails(&server.cli(&set), 2, told);
        fails(&server.cli(&[&set[..], &["--check"]].concat()), 2, told);
        fails(&server.cli(&["job", "show", bad]), 2, told);
        fails(&server.local(&["vm", "import", bad, "none.raw"]), 2, told);
    }
}

#[test]
fn a_reader_who_checks_hears_that_it_is_denied() {
    let server = Server::start(&["--engine", "sim"]);
    ok(&server.cli(&["collection", "create", "web", "sim-000001"]));
    let add = [
        "user",
        "add",
        "rita",
        "--role",
        "reader",
        "--password-stdin",
    ];
    ok(&run_in(&server.data, &add, PASSWORD));
    let check = ["snapshot", "create", "web", "--check", "--user", "rita"];
    // The server sees a new user within a second.
    let mut out = server.cli(&check);
    while code(&out) == 5 {
        out = server.cli(&check);
    }
    fails(&out, 1, "AccessDenied");
    assert!(!said(&out).contains("does not check"), "{}", said(&out));
}

#[test]
fn what_is_refused_tells_why() {
    let server = Server::start(&["--engine", "sim"]);
    ok(&server.cli(&["collection", "create", "empty"]));
    fails(
        &server.cli(&["snapshot", "create", "empty"]),
        1,
        "return value 5",
    );
    fails(
        &server.cli(&["collection", "create", "x", "no-such-machine"]),
        1,
        "no-such-machine",
    );
    fails(
        &server.cli(&["job", "show", "no-such-job"]),
        1,
        "there is no job `no-such-job`",
    );
}

#[test]
fn a_server_that_dies_under_a_command_leaves_the_ids_of_job_and_set() {
    for json_wanted in [false, true] {
        let gate = Gate::new();
        let mut server = Server::with(&Options {
            args: &["--engine", "sim"],
            env: &[("GROUPSHOT_FAILPOINTS", &gate.at("create.prepare.after"))],
            ..Options::default()
        });
        ok(&server.cli(&["collection", "create", "web", "sim-000001"]));
        let mut command = Command::new(binary());
        command.args(["snapshot", "create", "web"]);
        if json_wanted {
            command.arg("--json");
        }
        let child = command
            .env("GROUPSHOT_URL", server.url())
            .env("GROUPSHOT_USER", USER)
            .env("GROUPSHOT_PASSWORD", PASSWORD)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        gate.reached();
        let jobs = json(&server.cli(&["job", "list", "--json"]));
        let job = jobs["jobs"][0]["id"].as_str().unwrap().to_owned();
        server.kill();
        let out = child.wait_with_output().unwrap();
        fails(&out, 7, &format!("groupshot job show {job}"));
        assert!(said(&out).contains(" of snapshot set "), "{}", said(&out));
        if json_wanted {
            let told: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
            assert_eq!(told["job"], job.as_str());
            assert!(said(&out).contains(told["set"].as_str().unwrap()));
            assert!(told["error"].as_str().unwrap().contains("cannot reach"));
        }
    }
}

#[test]
fn an_empty_user_is_a_usage_error_that_names_the_option() {
    let list = ["job", "list", "--user", "", "--url", "http://127.0.0.1:1"];
    let out = Command::new(binary())
        .args(list)
        .env("GROUPSHOT_PASSWORD", PASSWORD)
        .output()
        .unwrap();
    fails(&out, 2, "--user");
}

#[test]
fn a_server_that_is_not_there_is_exit_7_and_a_wrong_password_exit_5() {
    let server = Server::start(&["--engine", "sim"]);
    let list = |url: &str, password: &str| {
        Command::new(binary())
            .args(["job", "list", "--url", url, "--user", USER])
            .env("GROUPSHOT_PASSWORD", password)
            .output()
            .unwrap()
    };
    ok(&list(&server.url(), PASSWORD));
    fails(&list(&server.url(), "wrong"), 5, USER);
    fails(&list("http://127.0.0.1:1", PASSWORD), 7, "127.0.0.1:1");
    fails(&list("127.0.0.1:1", PASSWORD), 2, "http://");
}

/// Answers each request so, without an envelope.
fn refusing(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/wsman", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // What has come is read, or the answer would not arrive.
            let _ = stream.read(&mut [0; 64 << 10]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    url
}

#[test]
fn what_a_server_says_of_a_refusal_is_told_with_its_exit_code() {
    for (answer, exit, told) in [
        (
            "403 Forbidden\r\ncontent-type: text/plain;charset=UTF-8\r\ncontent-length: 12\r\n\r\nNo scheme.\nX",
            5,
            "answered HTTP 403: No scheme",
        ),
        (
            "403 Forbidden\r\ncontent-length: 0\r\n\r\n",
            5,
            "answered HTTP 403: this user may not",
        ),
        (
            "403 Forbidden\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>",
            5,
            "answered HTTP 403: this user may not",
        ),
        (
            "400 Bad Request\r\ncontent-type: Text/Plain\r\ncontent-length: 4\r\n\r\nWhy.",
            1,
            "answered HTTP 400: Why",
        ),
        (
            "413 Payload Too Large\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\nWhy.",
            1,
            "answered HTTP 413: Why",
        ),
        (
            "500 Internal Server Error\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\nWhy.",
            1,
            "answered HTTP 500: Why",
        ),
        (
            "503 Service Unavailable\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\nWhy.\n",
            1,
            "answered HTTP 503: Why",
        ),
    ] {
        let answer: &str = Box::leak(format!("HTTP/1.1 {answer}").into_boxed_str());
        let out = Command::new(binary())
            .args(["job", "list", "--url", &refusing(answer), "--user", USER])
            .env("GROUPSHOT_PASSWORD", PASSWORD)
            .output()
            .unwrap();
        fails(&out, exit, told);
    }
}
