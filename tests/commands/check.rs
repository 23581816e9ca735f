//! `groupshot snapshot create --check`: the answer that a set would get, and nothing happens.

use std::process::Output;

use crate::support::gate::Gate;
use crate::support::server::{Options, Server, run_in};
use crate::support::site::{Ground, Image, Site};
use crate::support::tools::Opened;
use crate::support::wire::{STARTED, Wire};

use super::{fails, ok, said};

fn check(server: &Server, args: &[&str]) -> Output {
    server.cli(&[&["snapshot", "create", "all", "--check"], args].concat())
}

fn told(out: &Output) -> serde_json::Value {
    serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", said(out)))
}

/// Checks and takes: the same value and the same words.
fn as_the_set(site: &Site, server: &Server, group: &str, args: &[&str], settings: &[(&str, &str)]) {
    let before = (site.tree(), Wire::new(server).shown().unwrap().jobs);
    let checked = told(&check(server, &[&["--json"], args].concat()));
    let wire = Wire::new(server);
    assert_eq!(
        (site.tree(), wire.shown().unwrap().jobs),
        before,
        "nothing is done"
    );
    let created = wire.create_with(group, settings).unwrap();
    let value = checked["returnValue"].as_u64().unwrap();
    match created.value {
        STARTED => {
            let job = wire.end(&created.job.unwrap()).unwrap();
            assert_eq!(job.code, value, "{checked}: {job:?}");
            let why = checked["reason"].as_str().unwrap();
            assert!(job.error.contains(why), "{checked}: {job:?}");
            site.wait_for_journals();
        }
        refused => {
            assert_eq!(refused, value, "{checked}");
            assert_eq!(wire.why(&created), checked["reason"].as_str().unwrap());
        }
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_check_gives_the_answer_of_the_set_and_does_nothing() {
    let site = Site::new(Ground::Host);
    let web = site.machine("web", &[Image::Raw, Image::Chain], 1);
    let plain = site.image("plain", Image::Raw, 2);
    let import = ["--json", "vm", "import", "plain", plain.to_str().unwrap()];
    let plain_id = told(&run_in(&site.data, &import, ""))["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let server = site.serve();
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&web.id]).unwrap();
    let before = site.tree();
    let text = ok(&check(&server, &[]));
    for part in [
        "web",
        "disk0",
        "disk1",
        "overlay",
        "the set would be taken",
        web.images[0].to_str().unwrap(),
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let json = told(&check(
        &server,
        &["--json", "--recovery", "--consistency", "crash"],
    ));
    assert_eq!(
        (&json["accepted"], &json["version"]),
        (&true.into(), &1.into())
    );
    let disk = &json["disks"][1];
    assert_eq!(
        [
            &disk["machine"],
            &disk["name"],
            &disk["disk"],
            &disk["driver"],
            &disk["reason"]
        ],
        [&*web.id, "web", "disk1", "overlay", ""]
    );
    assert!(!disk["fileSystem"].as_str().unwrap().is_empty());
    assert_eq!(site.tree(), before);
    assert!(site.journals().is_empty());

    as_the_set(&site, &server, &group, &[], &[]);
    // A member whose definition allows no overlay: refused, and so if the disk were left out, for it has no other.
    let add = ["collection", "add", "all", &plain_id];
    ok(&server.cli(&add));
    let out = check(&server, &[]);
    fails(&out, 1, "overlay_ok");
    assert!(said(&out).contains("(return value 5)"), "{}", said(&out));
    assert!(
        !said(&out).contains("leave this disk out"),
        "it has no other: {}",
        said(&out)
    );
    as_the_set(&site, &server, &group, &[], &[]);
    let all = told(&run_in(&site.data, &["history", "--json"], ""));
    let refused = all["history"][0]["machines"].as_array().unwrap().iter();
    let refused: Vec<_> = refused.map(|m| &m["name"]).collect();
    assert_eq!(
        refused,
        ["web", "plain"],
        "what the set would have held: {all}"
    );
    let left_out = check(&server, &["--json", "--ignore-non-snapshottable-disks"]);
    let json = told(&left_out);
    assert_eq!(
        (left_out.status.code(), &json["returnValue"]),
        (Some(1), &5.into()),
        "{json}"
    );
    let disks = json["disks"].as_array().unwrap();
    let disk = disks.iter().find(|d| d["name"] == "plain").unwrap();
    assert_eq!(disk["driver"], "");
    assert!(
        disk["reason"].as_str().unwrap().contains("overlay_ok"),
        "{disk}"
    );
    ok(&server.cli(&["collection", "remove", "all", &plain_id]));
    // Something runs a member.
    let running = Opened::new(&plain, &[]);
    ok(&server.cli(&add));
    as_the_set(&site, &server, &group, &[], &[]);
    drop(running);
    ok(&server.cli(&["collection", "remove", "all", &plain_id]));
    ok(&server.cli(&["collection", "remove", "all", &web.id]));
    as_the_set(&site, &server, &group, &[], &[]);
}

#[test]
fn the_audit_names_the_collection_of_a_check_as_of_a_set() {
    let data = tempfile::tempdir().unwrap();
    let config = data.path().join("groupshot.toml");
    let audit = data.path().join("audit.log");
    std::fs::write(&config, format!("[log]\naudit = {audit:?}\n")).unwrap();
    let server = Server::with(&Options {
        args: &[
            "--engine",
            "sim",
            "--machines",
            "2",
            "--config",
            config.to_str().unwrap(),
        ],
        ..Options::default()
    });
    ok(&server.cli(&["collection", "create", "all", "sim-000001"]));
    ok(&check(&server, &[]));
    ok(&server.cli(&["snapshot", "create", "all"]));
    let lines = std::fs::read_to_string(audit).unwrap();
    let lines = lines
        .lines()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
    let named = lines.map(|l| (l["method"].clone(), l["collections"][0]["name"].clone()));
    let named: Vec<_> = named
        .filter(|(method, _)| method.as_str().unwrap().contains("Snapshot"))
        .collect();
    let row = |method: &str| (method.into(), "all".into());
    assert_eq!(
        named,
        [
            row("Groupshot_SnapshotCheck.CheckSnapshot"),
            row("Msvm_CollectionSnapshotService.CreateSnapshot"),
        ]
    );
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_check_sees_clones_space_and_the_cap_of_chains() {
    let site = Site::new(Ground::Xfs);
    let web = site.machine("web", &[Image::Qcow2], 1);
    let group = {
        let server = site.serve();
        let group = Wire::new(&server).define("all", &[&web.id]).unwrap();
        let json = told(&check(&server, &["--json"]));
        let disk = &json["disks"][0];
        assert_eq!([&disk["driver"], &disk["fileSystem"]], ["reflink", "xfs"]);
        group
    };
    assert!(!site.images.join(".groupshot").exists(), "left nothing");
    for config in [
        "[snapshot]\nreserve = \"8TiB\"\n",
        "[snapshot]\nclone_extents = 0\nchain_cap = 1\n",
    ] {
        let server = site.serve_configured(config);
        let out = check(&server, &[]);
        assert_eq!(out.status.code(), Some(1), "{config}: {}", said(&out));
        as_the_set(&site, &server, &group, &[], &[]);
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_check_names_the_job_that_holds_a_member() {
    let site = Site::new(Ground::Host);
    let web = site.machine("web", &[Image::Raw], 1);
    let gate = Gate::new();
    let server = site.serve_with(&[&gate.at("create.prepared.before")]);
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&web.id]).unwrap();
    let first = wire.create(&group, "first").unwrap().job.unwrap();
    gate.reached();
    let held = check(&server, &[]);
    fails(&held, 1, &first);
    gate.open();
    assert_eq!(wire.end(&first).unwrap().state, 7);
    ok(&check(&server, &[]));
}
