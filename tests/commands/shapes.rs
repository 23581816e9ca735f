//! `docs/json.md` against what the program prints.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value as Json;

use crate::support::server::{Server, binary, run_in};
use crate::support::site::{Ground, Image, Site};

use super::json;

/// The object that the page shows for a command.
fn shown(page: &str, command: &str) -> Json {
    let (_, rest) = page.split_once(&format!("\n### {command}\n")).unwrap();
    let (_, block) = rest.split_once("```json\n").unwrap();
    serde_json::from_str(block.split_once("\n```").unwrap().0).unwrap()
}

/// Where values stand in an object: `machines[].id`; and where a list is empty or nothing is known.
fn walk(value: &Json, at: &str, places: &mut BTreeSet<String>, open: &mut BTreeSet<String>) {
    match value {
        Json::Object(fields) => {
            for (name, value) in fields {
                let at = format!("{at}.{name}");
                places.insert(at.clone());
                walk(value, &at, places, open);
            }
        }
        Json::Array(items) => {
            if items.is_empty() {
                open.insert(at.to_owned());
            }
            let at = format!("{at}[]");
            items.iter().for_each(|item| walk(item, &at, places, open));
        }
        Json::Null => drop(open.insert(at.to_owned())),
        _ => {}
    }
}

fn assert_as_shown(page: &str, command: &str, printed: &Json) {
    let (mut wanted, mut found) = (BTreeSet::new(), BTreeSet::new());
    let (mut free, mut open) = (BTreeSet::new(), BTreeSet::new());
    walk(&shown(page, command), "", &mut wanted, &mut free);
    walk(printed, "", &mut found, &mut open);
    let new: Vec<_> = found.difference(&wanted).collect();
    assert!(
        new.is_empty(),
        "{command} prints what the page does not show: {new:?}"
    );
    let away = wanted.difference(&found);
    let away: Vec<_> = away
        .filter(|at| !open.iter().any(|open| at.starts_with(open)))
        .collect();
    assert!(
        away.is_empty(),
        "{command} does not print what the page shows: {away:?}"
    );
}

#[test]
fn the_page_shows_what_each_command_prints_with_json() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/json.md");
    let page = fs::read_to_string(page).unwrap();
    let site = Site::new(Ground::Host);
    let image = site.image("web", Image::Qcow2, 1);
    let import = ["vm", "import", "web", image.to_str().unwrap()];
    let local = |command: &str, args: &[&str]| {
        let out = run_in(&site.data, &[args, &["--json"]].concat(), "");
        assert_as_shown(&page, command, &json(&out));
    };
    local("vm import", &import);
    local("vm set", &["vm", "set", "web", "--overlay-ok", "--yes"]);
    local("vm list", &["vm", "list"]);
    local("vm show", &["vm", "show", "web"]);
    local("vm path", &["vm", "path", "web"]);
    local("user list", &["user", "list"]);
    let with_password = run_in(
        &site.data,
        &["user", "add", "ann", "--password-stdin", "--json"],
        "long enough a word\n",
    );
    assert_as_shown(&page, "user add", &json(&with_password));
    local("user remove", &["user", "remove", "ann"]);
    let schema = |command: &str, args: &[&str]| {
        let out = Command::new(binary()).args(args).arg("--json").output();
        assert_as_shown(&page, command, &json(&out.unwrap()));
    };
    schema("schema show", &["schema", "show"]);
    schema(
        "schema show CLASS",
        &["schema", "show", "CIM_ManagedElement"],
    );
    let class = "schemas/virtualization/Msvm_SnapshotCollection.mof";
    let class = Path::new(env!("CARGO_MANIFEST_DIR")).join(class);
    schema(
        "schema check",
        &["schema", "check", class.to_str().unwrap()],
    );
    let file = site.configuration("[listen]\nhttp = \"127.0.0.1:0\"\n");
    let file = file.to_str().unwrap();
    local("config check", &["config", "check", file]);
    let refused = |command: &str, text: &str| {
        fs::write(file, text).unwrap();
        let out = run_in(&site.data, &["config", "check", file, "--json"], "");
        let printed = serde_json::from_slice(&out.stdout).unwrap();
        assert_as_shown(&page, command, &printed);
    };
    refused(
        "config check, refused",
        "[listen]\nhttp = \"192.0.2.1:5985\"\n",
    );
    refused("config check, mistakes", "[limits]\ncontext = 3\n");
    fs::write(
        file,
        format!("[export]\nroots = [\"{}\"]\n", site.images.display()),
    )
    .unwrap();
    let mut server: Server = site.serve_configured(&fs::read_to_string(file).unwrap());
    local("user unlock", &["user", "unlock", "ann"]);
    let remote = |command: &str, args: &[&str]| {
        let printed = json(&server.cli(&[args, &["--json"]].concat()));
        assert_as_shown(&page, command, &printed);
        printed
    };
    remote("collection create", &["collection", "create", "all", "web"]);
    remote("collection list", &["collection", "list"]);
    remote(
        "snapshot create --check",
        &["snapshot", "create", "all", "--check"],
    );
    let taken = remote(
        "snapshot create",
        &["snapshot", "create", "all", "--name", "first"],
    );
    remote("snapshot list", &["snapshot", "list"]);
    remote("snapshot show", &["snapshot", "show", "first"]);
    remote("job list", &["job", "list"]);
    remote("job show", &["job", "show", taken["job"].as_str().unwrap()]);
    remote("snapshot create", &["snapshot", "apply", "first", "--yes"]);
    let place = site.images.to_str().unwrap();
    remote("snapshot export", &["snapshot", "export", "first", place]);
    remote("snapshot create", &["snapshot", "delete", "first", "--yes"]);
    local("history", &["history", "--limit", "5"]);
    remote("collection add", &["collection", "remove", "all", "web"]);
    remote("collection add", &["collection", "add", "all", "web"]);
    remote("collection delete", &["collection", "delete", "all"]);
    local("vm remove", &["vm", "remove", "web"]);
    let none = server.cli(&["snapshot", "show", "none", "--json"]);
    server.stop();
    local("rescue", &["rescue"]);
    let moved = ["relocate", "--from", "/nowhere/images", "--to", place];
    local("relocate", &moved);
    local("relocate --here", &["relocate", "--here"]);
    assert_as_shown(
        &page,
        "error",
        &serde_json::from_slice(&none.stderr).unwrap(),
    );
    fs::create_dir_all(site.data.join("sets/lost")).unwrap();
    fs::write(site.data.join("sets/lost/one"), "the only copy").unwrap();
    let found = run_in(&site.data, &["doctor", "--json"], "");
    assert_as_shown(
        &page,
        "doctor",
        &serde_json::from_slice(&found.stdout).unwrap(),
    );
}
