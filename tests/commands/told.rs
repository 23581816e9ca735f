//! What commands tell besides their result: active files that are others since, colours where they are wanted.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value as Json;

use crate::support::server::{binary, on_a_terminal, run_in, text};
use crate::support::site::{Ground, Image, Site};

use super::{json, ok};

/// Help and version as well as results.
#[test]
fn what_cannot_be_written_ends_with_1_and_one_line() {
    let data = tempfile::tempdir().unwrap();
    for line in [
        "--help",
        "-h",
        "--version",
        "vm list --help",
        "help snapshot",
        "completions bash",
        "user list",
        "quickstart --exit --listen 127.0.0.1:0",
    ] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
        let out = Command::new(binary())
            .args(line.split(' '))
            .env("GROUPSHOT_DATA_DIR", data.path())
            .current_dir(data.path())
            .stdout(full.unwrap())
            .output()
            .unwrap();
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{line}: {said}");
        let own = said.lines().filter(|l| l.starts_with("groupshot: "));
        assert_eq!(own.count(), 1, "{line}: {said}");
        assert!(said.contains("No space left on device"), "{line}: {said}");
    }
    let out = Command::new("sh")
        .args(["-c", "\"$0\" --help | true; exit ${PIPESTATUS:-0}"])
        .arg(binary())
        .output()
        .unwrap();
    assert!(
        out.status.success() && out.stderr.is_empty(),
        "nobody reads it"
    );
}

#[test]
fn what_changes_active_files_tells_which() {
    let site = Site::new(Ground::Host);
    let web = site.machine("web", &[Image::Raw], 1);
    let db = site.machine("db", &[Image::Raw], 2);
    let server = site.serve();
    ok(&server.cli(&["collection", "create", "all", "web", "db"]));
    let active = || site.top(&web, 0).to_str().unwrap().to_owned();
    let image = web.images[0].to_str().unwrap();
    let taken = json(&server.cli(&["snapshot", "create", "all", "--name", "first", "--json"]));
    let changed = taken["changed"].as_array().unwrap();
    assert_eq!(changed.len(), 2, "{taken}");
    let of = |all: &[Json], name: &str| all.iter().find(|c| c["name"] == name).unwrap().clone();
    let one = of(changed, "web");
    assert_eq!(
        (&one["machine"], &one["disk"]),
        (&web.id.as_str().into(), &"disk0".into())
    );
    assert_eq!(
        (&one["from"], &one["to"]),
        (&image.into(), &active().into())
    );
    let before = active();
    let applied = ["snapshot", "apply", "first", "--member", "web", "--yes"];
    let told = ok(&server.cli(&applied));
    let line = format!(
        "the active file of web, disk0 is now {}; it was {before}",
        active()
    );
    assert!(told.lines().any(|l| l == line), "{line}: {told}");
    assert!(!told.contains("of db,"), "{told}");
    let before = active();
    let gone = json(&server.cli(&["snapshot", "delete", "first", "--yes", "--json"]));
    let changed = gone["changed"].as_array().unwrap();
    let one = of(changed, "web");
    assert_eq!(
        (&one["from"], &one["to"]),
        (&before.into(), &active().into())
    );
    assert_eq!(of(changed, "db")["to"], db.images[0].to_str().unwrap());
    let running = ["snapshot", "create", "all", "--no-wait", "--json"];
    let running = json(&server.cli(&running));
    assert_eq!(running.get("changed"), None, "{running}");
}

/// Passes on what a client and the server at `to` say, and kills that before its word that a job has completed.
fn killed_at_the_end(to: SocketAddr, pid: Pid) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            if let Ok(server) = TcpStream::connect(to) {
                std::thread::spawn(move || pass_on(client, server, pid));
            }
        }
    });
    address
}

fn pass_on(mut client: TcpStream, mut server: TcpStream, pid: Pid) {
    let (mut from, mut into) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || io::copy(&mut from, &mut into));
    let (mut said, mut part) = (Vec::new(), [0; 65536]);
    while let Ok(length @ 1..) = server.read(&mut part) {
        said.extend_from_slice(&part[..length]);
        let (ends, is_whole) = {
            let said = text(&said);
            (
                said.contains("JobState>7<"),
                said.trim_end().ends_with("Envelope>"),
            )
        };
        if ends && is_whole {
            kill(pid, Signal::SIGKILL).unwrap();
        }
        if !ends || is_whole {
            client.write_all(&said).unwrap();
            said.clear();
        }
    }
    let _closed = client.shutdown(Shutdown::Both);
}

#[test]
fn active_files_that_cannot_be_asked_for_any_more_are_not_told_to_be_unchanged() {
    let site = Site::new(Ground::Host);
    site.machine("web", &[Image::Raw], 1);
    let server = site.serve();
    ok(&server.cli(&["collection", "create", "all", "web"]));
    let pid = Pid::from_raw(server.pid().try_into().unwrap());
    let proxy = killed_at_the_end(server.address, pid);
    let url = format!("http://{proxy}/wsman");
    let out = server.cli(&["snapshot", "create", "all", "--json", "--url", &url]);
    let taken = json(&out);
    assert_eq!(taken.get("changed"), Some(&Json::Null), "{taken}");
    assert!(taken["set"].is_string(), "{taken}");
}

#[test]
fn colours_are_on_a_terminal_only_unless_told_otherwise() {
    let site = Site::new(Ground::Host);
    site.machine("web", &[Image::Raw], 1);
    site.serve().stop();
    std::fs::create_dir_all(site.data.join("sets/lost")).unwrap();
    std::fs::write(site.data.join("sets/lost/one"), "x").unwrap();
    let red = "\u{1b}[3";
    let piped = |args: &[&str]| {
        let out = run_in(&site.data, &[args, &["doctor"]].concat(), "");
        let all = format!("{}{}", text(&out.stdout), text(&out.stderr));
        assert!(all.contains("warning"), "{all}");
        all
    };
    assert!(!piped(&[]).contains(red));
    assert!(piped(&["--color", "always"]).contains(red));
    assert!(!piped(&["--color", "never"]).contains(red));
    let data = site.data.to_str().unwrap();
    let shown = |env: &[(&str, &str)], args: &[&str]| {
        let args = [args, &["doctor", "--data-dir", data]].concat();
        let env = [&[("TERM", "xterm")], env].concat();
        on_a_terminal(&args, &env, &[]).1
    };
    assert!(shown(&[], &[]).contains(red));
    assert!(!shown(&[("NO_COLOR", "1")], &[]).contains(red));
    assert!(!shown(&[("TERM", "dumb")], &[]).contains(red));
    assert!(!shown(&[], &["--color", "never"]).contains(red));
    let json = Command::new(binary())
        .args(["--color", "always", "--json", "doctor", "--data-dir", data])
        .output()
        .unwrap();
    assert!(!text(&json.stdout).contains(red), "JSON has none");
}

#[test]
fn what_is_set_and_imported_holds_for_the_next_command_at_once() {
    let site = Site::new(Ground::Host);
    let image = site.image("web", Image::Raw, 1);
    let server = site.serve();
    for round in 0..3 {
        let name = format!("web-{round}");
        let image = match round {
            0 => image.clone(),
            _ => site.image(&name, Image::Raw, 1),
        };
        ok(&run_in(
            &site.data,
            &["vm", "import", &name, image.to_str().unwrap()],
            "",
        ));
        ok(&server.cli(&["collection", "create", &name, &name]));
        ok(&run_in(
            &site.data,
            &["vm", "set", &name, "--overlay-ok", "--yes"],
            "",
        ));
        ok(&server.cli(&["snapshot", "create", &name]));
    }
}
