//! `groupshot history`: how operations ended, from a running server and without one; what the log says of it.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::support::server::{Options, Server, add_user, run_in, text};
use crate::support::site::{Ground, Image, Site};

use super::{code, fails, json, ok};

/// What, outcome and user of each, the newest first.
fn rows(shown: &Json) -> Vec<[String; 3]> {
    let all = shown["history"].as_array().unwrap().iter();
    let row = |it: &Json| ["what", "outcome", "user"].map(|k| it[k].as_str().unwrap().to_owned());
    all.map(row).collect()
}

fn history(data: &Path, args: &[&str]) -> Json {
    json(&run_in(data, &[&["history", "--json"], args].concat(), ""))
}

#[test]
fn how_every_operation_ended_can_be_read_with_its_names_also_after_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    std::fs::create_dir(&data).unwrap();
    add_user(&data);
    let start = || {
        Server::with(&Options {
            args: &["--engine", "sim", "--machines", "3"],
            data: Some(&data),
            ..Options::default()
        })
    };
    let mut server = start();
    let made = json(&server.cli(&["collection", "create", "web", "sim-000001", "--json"]));
    let id = made["id"].as_str().unwrap();
    ok(&server.cli(&["collection", "add", "web", "sim-000002"]));
    let taken = json(&server.cli(&["snapshot", "create", "web", "--name", "first", "--json"]));
    let set = taken["set"].as_str().unwrap();
    let gone = "00000000-0000-4000-8000-00000000DEAD";
    fails(
        &server.cli(&["collection", "remove", id, gone]),
        1,
        "not a member",
    );
    ok(&server.cli(&["snapshot", "delete", "first", "--yes"]));

    let user = "admin";
    let wanted = [
        ["destroy", "completed", user],
        ["remove-member", "refused", user],
        ["create", "completed", user],
        ["add-member", "completed", user],
    ]
    .map(|row| row.map(str::to_owned));
    let all = history(&data, &[]);
    assert_eq!(rows(&all)[..4], wanted, "{all}");
    assert_eq!(rows(&all).last().unwrap()[0], "define-collection");
    let create = &all["history"][2];
    assert_eq!(create["sets"][0]["id"], set);
    assert_eq!(create["sets"][0]["name"], "first");
    assert_eq!(create["collections"][0]["name"], "web");
    let machines: Vec<_> = create["machines"].as_array().unwrap().iter().collect();
    assert_eq!(machines.len(), 2);
    assert_eq!(machines[0]["name"], "sim-000001");
    assert_eq!(create["job"], taken["job"]);
    assert!(create["seconds"].as_f64().unwrap() >= 0.0);
    assert_eq!(create["recovered"], false);
    let refused = &all["history"][1];
    assert!(
        refused["reason"].as_str().unwrap().contains("member"),
        "{refused}"
    );
    assert_eq!(refused["machines"][0]["id"], gone);
    assert_eq!(
        all["history"][0]["sets"][0]["name"], "first",
        "as it was called"
    );

    let count = |args: &[&str]| history(&data, args)["history"].as_array().unwrap().len();
    assert_eq!(count(&["--set", "first"]), 2);
    assert_eq!(count(&["--set", &set.to_lowercase()]), 2);
    assert_eq!(count(&["--set", &format!("{{{set}}}")]), 2);
    assert_eq!(count(&["--set", &set[..8].to_lowercase()]), 2);
    assert_eq!(count(&["--set", &set[..3]]), 0, "too short for an id");
    assert_eq!(count(&["--machine", "sim-000002"]), 3);
    assert_eq!(count(&["--failed"]), 1);
    assert_eq!(count(&["--user", "nobody"]), 0);
    assert_eq!(count(&["--limit", "2"]), 2);
    assert_eq!(count(&["--since", "1h"]), rows(&all).len());
    assert_eq!(count(&["--since", "2999-01-01"]), 0);
    let no_number = run_in(&data, &["history", "--limit", "x"], "");
    assert_eq!(code(&no_number), 2);

    // One without a name of its own, by what the list shows.
    let unnamed = json(&server.cli(&["snapshot", "create", "web", "--json"]));
    let unnamed = unnamed["set"].as_str().unwrap();
    let listed = json(&server.cli(&["snapshot", "list", "--json"]));
    let shown = listed["sets"].as_array().unwrap().iter();
    let shown = shown.clone().find(|s| s["id"] == unnamed).unwrap()["name"].clone();
    assert_eq!(count(&["--set", shown.as_str().unwrap()]), 1);
    assert_eq!(count(&["--set", &unnamed[..13]]), 1);
    let all = history(&data, &[]);

    server.stop();
    assert_eq!(history(&data, &[]), all, "without a server");
    let _server = start();
    assert_eq!(history(&data, &[]), all, "after a restart");
}

#[test]
fn the_history_of_a_copy_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    std::fs::create_dir(&data).unwrap();
    Server::with(&Options {
        args: &["--engine", "sim"],
        data: Some(&data),
        ..Options::default()
    })
    .stop();
    let copy = home.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for file in std::fs::read_dir(&data).unwrap().map(Result::unwrap) {
        if file.file_type().unwrap().is_file() {
            std::fs::copy(file.path(), copy.join(file.file_name())).unwrap();
        }
    }
    fails(
        &run_in(&copy, &["history"], ""),
        3,
        "is not the one that its directory.json was made for",
    );
    ok(&run_in(&data, &["history"], ""));
}

#[test]
fn a_server_that_has_no_place_left_says_so_at_once() {
    let server = Server::start(&[]);
    let come = || UnixStream::connect(server.data.join("groupshot.sock")).unwrap();
    let crowd: Vec<_> = (0..16).map(|_| come()).collect();
    let out = server.local(&["history"]);
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("busy with 16 other requests"), "{said}");
    drop(crowd);
    let begun = Instant::now();
    while !server.local(&["history"]).status.success() {
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
}

/// With a server and without one.
#[test]
fn a_machine_that_leaves_the_library_stands_in_history_and_audit() {
    let site = Site::new(Ground::Host);
    site.machine("web", &[Image::Raw], 1);
    site.machine("db", &[Image::Raw], 2);
    let audit = site.images.join("audit.log");
    let mut server = site.serve_configured(&format!("[log]\naudit = {audit:?}\n"));
    let removed = |name: &str| {
        ok(&run_in(&site.data, &["vm", "remove", name], ""));
        let shown = history(&site.data, &[]);
        assert_eq!(
            rows(&shown)[0],
            ["remove-machine", "completed", "vm remove"].map(str::to_owned)
        );
        let last = &shown["history"][0];
        assert!(last.to_string().contains(&format!("\"{name}\"")), "{last}");
    };
    removed("web");
    let lines = std::fs::read_to_string(&audit).unwrap();
    let line = lines.lines().find(|l| l.contains("machine-removed"));
    assert!(line.is_some_and(|l| l.contains("\"web\"")), "{lines}");
    server.stop();
    removed("db");
}
