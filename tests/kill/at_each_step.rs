//! Death at each named place of a create, of its undo, of the store, and of the recovery after it.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use groupshot::snapshot::create::FAILPOINTS;

use crate::support::server::Server;
use crate::support::site::{Ground, Image, Site, assert_holds};
use crate::support::tools::Opened;
use crate::support::wire::Wire;

use super::ledger::{Ledger, Refusal};

const SIGKILL: i32 = 9;

/// Whether a set is there after a death at this point: from the commit point on.
fn survives(point: &str) -> bool {
    !of_the_undo(point) && place(point) >= place("create.commit.after")
}

fn place(point: &str) -> usize {
    FAILPOINTS.iter().position(|p| *p == point).unwrap()
}

fn of_the_undo(point: &str) -> bool {
    point.contains(".abort.") || point.contains(".undone.")
}

/// The points that a recovery passes after a death at `point`, forward or back. What was published with the end of the
/// job is not done again.
fn of_recovery(point: &str, forward: bool) -> impl Iterator<Item = &'static str> {
    let steps: &[&str] = match forward {
        true if place(point) >= place("create.publish.after") => &[".clear."],
        true => &[".record.", ".tops.", ".publish.", ".clear."],
        false => &[".abort.", ".undone."],
    };
    let passed = move |p: &&&str| steps.iter().any(|s| p.contains(s));
    FAILPOINTS.iter().filter(passed).copied()
}

pub(super) fn assert_killed(server: &mut Server, what: &str) {
    let status = server.wait(Duration::from_secs(60));
    let status = status.unwrap_or_else(|| panic!("{what}: never passed"));
    assert_eq!(status.signal(), Some(SIGKILL), "{what}: {status}");
}

/// A start that dies while it recovers; a recovery that takes longer than is waited for opens the listener first.
pub(super) fn assert_killed_again(started: Result<Server, String>, what: &str, point: &str) {
    match started {
        Ok(mut server) => assert_killed(&mut server, &format!("{what}: {point}")),
        Err(said) => assert!(said.contains("signal: 9"), "{what}: {said}"),
    }
}

/// Two sets of two machines; the server dies at `point` of the second, and then at each of `again` while
/// it recovers. Then it must be as if it had been whole or never begun.
fn dies_at(site: &Site, point: &str, again: &[&str]) {
    let what = format!("{point}, then {again:?}");
    let machines = vec![
        site.machine("web", &[Image::Raw, Image::Qcow2], 1),
        site.machine("db", &[Image::Chain], 2),
    ];
    let mut ledger = Ledger::new(machines);
    let mut orders = Vec::new();
    if of_the_undo(point) {
        orders.push("create.settle.before#2=error".to_owned());
        orders.push(format!("{point}=abort"));
    } else {
        orders.push(format!("{point}#2=abort"));
    }
    let orders: Vec<_> = orders.iter().map(String::as_str).collect();
    let mut server = site.serve_with(&orders);
    let wire = Wire::new(&server);
    let group = ledger.define(&wire, "all").unwrap();
    ledger.write(site, 3000, 70_000, 11);
    let first = ledger.take(&wire, &group, "0001");
    assert!(first.is_ok(), "{what}: {first:?}");
    site.wait_for_journals();
    ledger.write(site, 60_000, 200_000, 12);
    let before = site.tree();
    match ledger.take(&wire, &group, "0002") {
        Err(Refusal::Gone(_)) | Ok(()) => {} // its end may be seen before the last steps
        Err(refused) => panic!("{what}: {refused:?}"),
    }
    assert_killed(&mut server, &what);
    for point in again {
        assert_killed_again(site.try_serve(&[&format!("{point}=abort")]), &what, point);
    }
    let server = site.serve();
    let wire = Wire::new(&server);
    let shown = ledger.check(site, &wire, &what);
    assert_eq!(Ledger::is_there(&shown, "0002"), survives(point), "{what}");
    if !survives(point) {
        assert_eq!(site.tree(), before, "{what}: as before");
    }
    // And on it goes.
    ledger.write(site, 10_000, 30_000, 13);
    ledger.take(&wire, &group, "0003").unwrap();
    site.wait_for_journals();
    let shown = ledger.check(site, &wire, &what);
    assert!(Ledger::is_there(&shown, "0003"), "{what}");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn at_every_point_of_a_create_over_overlays() {
    for point in FAILPOINTS.iter() {
        dies_at(&Site::new(Ground::Host), point, &[]);
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn at_every_point_of_a_create_over_clones() {
    // The file system is small.
    for points in FAILPOINTS.chunks(8) {
        let site = Site::new(Ground::Xfs);
        for (n, point) in points.iter().enumerate() {
            dies_at(&site.beside(n), point, &[]);
        }
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn at_every_point_of_the_recovery_too() {
    let long = std::env::var_os("GROUPSHOT_TEST_LONG").is_some();
    let some = [
        "create.intent.after",
        "create.settle.after",
        "create.commit.after",
        "create.record.after",
        "create.tops.after",
    ];
    let first: BTreeSet<&str> = match long {
        true => FAILPOINTS[1..].iter().copied().collect(),
        false => some.into(),
    };
    for point in first {
        let forward = survives(point);
        let again: Vec<_> = of_recovery(point, forward).collect();
        // What is done already when the journal is gone is not done again.
        if point == "create.clear.after" {
            continue;
        }
        for second in &again {
            dies_at(&Site::new(Ground::Host), point, &[second]);
            if !long {
                continue;
            }
            for third in of_recovery(second, forward) {
                // Once the journal is removed there is nothing more to recover.
                if *second != "create.clear.after" {
                    dies_at(&Site::new(Ground::Host), point, &[second, third]);
                }
            }
        }
    }
}

/// Every commit of the database is a place to die at as well, before it and after it.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn at_every_commit_of_the_store() {
    let mut reached = 0;
    for point in ["store.recorded", "store.commit", "store.committed"] {
        for nth in 1..=6 {
            let site = Site::new(Ground::Host);
            let mut ledger = Ledger::new(vec![site.machine("web", &[Image::Qcow2], 1)]);
            let what = format!("{point}#{nth}");
            let mut server = site.serve_with(&[&format!("{what}=abort")]);
            let wire = Wire::new(&server);
            let gone = |r: Result<(), Refusal>| matches!(r, Err(Refusal::Gone(_)));
            let mut group = String::new();
            let defined = ledger.define(&wire, "all").map(|id| group = id);
            let dead = gone(defined.map_err(Refusal::from))
                || gone(ledger.take(&wire, &group, "0001"))
                || gone(ledger.take(&wire, &group, "0002"));
            if dead {
                assert_killed(&mut server, &what);
                reached += 1;
            }
            drop(server);
            let server = site.serve();
            ledger.check(&site, &Wire::new(&server), &what);
        }
    }
    assert!(reached >= 10, "only {reached} commits");
}

/// The set is cut, the server is dead, and somebody starts a machine on its old file: the switch waits for
/// it, the others are served, and the end comes when the machine is off again.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_machine_that_was_started_meanwhile_is_waited_for() {
    let site = Site::new(Ground::Host);
    let machine = site.machine("web", &[Image::Raw], 1);
    let other = site.machine("other", &[Image::Raw], 2);
    let mut server = site.serve_with(&["create.commit.after=abort"]);
    let wire = Wire::new(&server);
    let group = wire.define("web", &[&machine.id]).unwrap();
    let others = wire.define("others", &[&other.id]).unwrap();
    let created = wire.create(&group, "0001");
    assert_killed(&mut server, "create.commit.after");
    let runs = Opened::new(&machine.images[0], &[]);
    let server = site.serve();
    let wire = Wire::new(&server);
    wire.take(&others, "others");
    let refused = wire.create(&group, "0002").unwrap();
    assert_eq!(refused.value, 5);
    assert!(wire.why(&refused).contains("web"), "{}", wire.why(&refused));
    let open = wire.shown().unwrap();
    let open: Vec<_> = open.jobs.values().filter(|job| job.state == 4).collect();
    let [job] = open[..] else { panic!("{open:?}") };
    assert!(created.is_err() || created.unwrap().job.as_ref() == Some(&job.id));
    // Between two tries it is told what is waited for.
    let image = machine.images[0].to_str().unwrap();
    wire.until(&job.id, |job| job.status.contains(image))
        .unwrap();
    drop(runs);
    assert_eq!(wire.end(&job.id).unwrap().state, 7);
    let shown = wire.shown().unwrap();
    let set = shown.sets.values().find(|set| set.name == "0001").unwrap();
    assert_holds(
        &set.members[0].disks["disk0"],
        &machine.content[0],
        "captured",
    );
    site.wait_for_journals();
    wire.take(&group, "0003");
}
