//! `groupshot rescue`: the server is dead, and what it was doing is brought to an end without another one.

use std::fs;
use std::process::Output;
use std::time::Duration;

use crate::support::server::{Server, run_in};
use crate::support::site::{Ground, Image, Machine, Site, assert_holds};
use crate::support::tools::{self};
use crate::support::wire::Wire;

use super::{code, fails, json, ok, said};

fn rescue(site: &Site, args: &[&str]) -> Output {
    run_in(&site.data, &[&["rescue"], args].concat(), "")
}

/// The server dies at this point of what `call` begins.
fn dies_at(site: &Site, point: &str, call: impl FnOnce(&Wire)) {
    let mut server = site.serve_with(&[&format!("{point}=abort")]);
    call(&Wire::new(&server));
    let status = server.wait(Duration::from_secs(60));
    assert!(status.expect("it dies").code().is_none(), "{point}");
    assert_eq!(site.journals().len(), 1, "{point}");
}

fn group(server: &Server, machines: &[&Machine]) -> String {
    let ids: Vec<_> = machines.iter().map(|m| m.id.as_str()).collect();
    Wire::new(server).define("all", &ids).unwrap()
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn each_operation_is_finished_or_undone_and_every_machine_let_go() {
    let site = Site::new(Ground::Host);
    let mut web = site.machine("web", &[Image::Raw], 1);
    let db = site.machine("db", &[Image::Qcow2], 2);
    let group = group(&site.serve(), &[&web, &db]);
    let told = ok(&rescue(&site, &[]));
    assert_eq!(told, "nothing was left in flight\n");

    dies_at(&site, "create.prepared.after", |wire| {
        let _ = wire.create(&group, "no");
    });
    let told = json(&rescue(&site, &["--json"]));
    assert_eq!(told["undone"][0]["kind"], "create", "{told}");
    assert_eq!(
        told["undone"][0]["machines"],
        serde_json::json!(["web", "db"])
    );
    assert_eq!(site.kept(), Vec::<std::path::PathBuf>::new());

    dies_at(&site, "create.commit.after", |wire| {
        let _ = wire.create(&group, "yes");
    });
    let told = ok(&rescue(&site, &[]));
    for part in [
        "finished, the set is complete",
        "machine web: let go, off",
        "machine db: let go, off",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(site.journals().is_empty());
    let top = site.top(&web, 0);
    web.write(&top, 0, 0, 4096, 9); // QEMU's tools could not if it were held
    let set = {
        let server = site.serve();
        let shown = Wire::new(&server).shown().unwrap();
        assert!(
            shown.jobs.values().all(|job| job.state > 6),
            "{:?}",
            shown.jobs
        );
        assert_eq!(shown.sets.len(), 1);
        let (id, set) = shown.sets.into_iter().next().unwrap();
        let member = set.members.iter().find(|m| m.machine == web.id).unwrap();
        assert_holds(
            &member.disks["disk0"],
            &[1; crate::support::site::SIZE],
            "kept",
        );
        id
    };

    dies_at(&site, "apply.commit.after", |wire| {
        let _ = wire.apply(&set);
    });
    let told = ok(&rescue(&site, &[]));
    assert!(
        told.contains("every disk holds what the set holds"),
        "{told}"
    );
    assert_holds(
        &site.top(&web, 0),
        &[1; crate::support::site::SIZE],
        "applied",
    );

    dies_at(&site, "destroy.merge.after", |wire| {
        let _ = wire.destroy(&set);
    });
    let told = ok(&rescue(&site, &[]));
    assert!(
        told.contains("the snapshots and their files are gone"),
        "{told}"
    );
    assert_holds(
        &site.top(&web, 0),
        &[1; crate::support::site::SIZE],
        "merged",
    );
    tools::assert_clean(&site.top(&db, 0));
    assert_eq!(ok(&rescue(&site, &[])), "nothing was left in flight\n");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_cannot_be_ended_is_told_with_its_machines_and_why() {
    let site = Site::new(Ground::Host);
    let web = site.machine("web", &[Image::Raw], 1);
    let server = site.serve();
    let group = group(&server, &[&web]);
    fails(&rescue(&site, &[]), 4, "stop the server first");
    drop(server);
    dies_at(&site, "create.commit.after", |wire| {
        let _ = wire.create(&group, "one");
    });
    // The new active file cannot be recorded.
    let way = site
        .data
        .join("machines")
        .join(&web.id)
        .join("tops.json.new");
    fs::create_dir(&way).unwrap();
    fs::write(way.join("x"), b"").unwrap();
    let out = rescue(&site, &[]);
    fails(&out, 1, "1 operation cannot be ended now");
    for part in [
        "create of set",
        "cannot be ended now",
        "machine web: still held",
    ] {
        assert!(said(&out).contains(part), "{part}: {}", said(&out));
    }
    let out = rescue(&site, &["--json"]);
    let told: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let why = told["stuck"][0]["why"].as_str().unwrap();
    assert!(why.contains("active files cannot be recorded"), "{why}");
    fs::remove_dir_all(&way).unwrap();
    ok(&rescue(&site, &[]));
    let left = fs::read_dir(site.data.join("journal")).unwrap();
    assert_eq!(left.count(), 0);

    let journal = site
        .data
        .join("journal/8B5879E2-07EA-4B6B-92AA-0AF0176BAFBC.log");
    fs::write(&journal, b"no journal of ours").unwrap();
    let damaged = rescue(&site, &[]);
    fails(&damaged, 1, journal.to_str().unwrap());
    assert!(journal.exists());
    let nowhere = run_in(&site.data.join("nowhere"), &["rescue"], "");
    assert_eq!(code(&nowhere), 1);
    assert!(!site.data.join("nowhere").exists(), "nothing is made");
}

/// Nobody holds then what it works on.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn nothing_is_recorded_of_what_an_operation_that_died_works_on_before_it_has_ended() {
    let site = Site::new(Ground::Host);
    let mut web = site.machine("web", &[Image::Raw], 1);
    let clone = site.images.join("clone.qcow2");
    let (image, clone) = (web.images[0].to_str().unwrap(), clone.to_str().unwrap());
    let make = [
        "create", "-q", "-f", "qcow2", "-F", "raw", "-b", image, clone,
    ];
    tools::run("qemu-img", &make);
    let mut sets = Vec::new();
    {
        let server = site.serve();
        let group = group(&server, &[&web]);
        let wire = Wire::new(&server);
        for n in 1..3_u8 {
            sets.push(wire.take(&group, &format!("set {n}")));
            site.wait_for_journals();
            let top = site.top(&web, 0);
            web.write(&top, 0, usize::from(n) * 4096, 4096, n + 1);
        }
        ok(&server.cli(&["collection", "delete", "all"]));
    }
    dies_at(&site, "destroy.merge.before", |wire| {
        let _ = wire.destroy(&sets[0]);
    });
    let before = site.tree();
    let commands: [&[&str]; 3] = [
        &["vm", "import", "clone", "--overlay-ok", clone],
        &["vm", "set", "web", "--accept-image", "--yes"],
        &["vm", "remove", "web"],
    ];
    for command in commands {
        let out = run_in(&site.data, command, "");
        let told = said(&out);
        assert_ne!(out.status.code(), Some(0), "{command:?}: {told}");
        assert!(told.contains("`groupshot rescue"), "{command:?}: {told}");
    }
    // Another command that has the data directory is no server, which would hold what it works on.
    let other = fs::File::open(site.data.join("groupshot.lock")).unwrap();
    other.lock().unwrap();
    for command in &commands[..2] {
        let out = run_in(&site.data, command, "");
        let told = said(&out);
        assert_ne!(out.status.code(), Some(0), "{command:?}: {told}");
        assert!(told.contains("another command has"), "{command:?}: {told}");
    }
    drop(other);
    let settled = |tree: std::collections::BTreeMap<_, _>| -> Vec<_> {
        let kept = tree.into_iter();
        kept.filter(|(f, _): &(std::path::PathBuf, _)| !f.ends_with(".lock"))
            .collect()
    };
    assert!(settled(site.tree()) == settled(before));
    ok(&rescue(&site, &[]));
    ok(&run_in(&site.data, commands[0], ""));
    assert_holds(&site.top(&web, 0), &web.content[0], "its active file");
}
