//! Death at each named place of a destroy, of its merges, and of the recovery after it.

use groupshot::snapshot::destroy::{FAILPOINTS, MERGE_FAILPOINTS};

use crate::support::gate::Gate;
use crate::support::site::{Ground, Image, Site};
use crate::support::wire::Wire;

use super::at_each_step::{assert_killed, assert_killed_again};
use super::ledger::{Ledger, Refusal};

/// The only point before the commit.
const FIRST: &str = "destroy.intent.before";
/// The journal is durable.
const SECOND: &str = "destroy.intent.after";

/// Three sets of two machines; the server dies at `order` while it destroys `gone`, and then at each of
/// `again` while it recovers. Then the set is gone as if nothing had happened, or has never been touched.
fn dies_at(site: &Site, gone: &str, order: &str, again: &[&str]) {
    let what = format!("{gone}, {order}, then {again:?}");
    let mut ledger = Ledger::new(vec![
        site.machine("web", &[Image::Raw, Image::Qcow2], 1),
        site.machine("db", &[Image::Chain], 2),
    ]);
    let mut server = site.serve_with(&[&format!("{order}=abort")]);
    let wire = Wire::new(&server);
    let group = ledger.define(&wire, "all").unwrap();
    for (n, name) in ["0001", "0002", "0003"].into_iter().enumerate() {
        let byte = u8::try_from(n).unwrap() + 11;
        ledger.write(site, 50_000 * (n + 1), 120_000, byte);
        ledger.take(&wire, &group, name).unwrap();
    }
    site.wait_for_journals();
    ledger.write(site, 180_000, 70_000, 14);
    let before = site.tree();
    let asked = ledger.destroy(&wire, gone);
    if let Err(refused @ Refusal::Value(..)) = asked {
        panic!("{what}: {refused:?}");
    }
    assert_killed(&mut server, &what);
    for point in again {
        assert_killed_again(site.try_serve(&[&format!("{point}=abort")]), &what, point);
    }
    let server = site.serve();
    let wire = Wire::new(&server);
    let shown = ledger.check_all_but_tops(site, &wire, &what);
    ledger.check_content(site, &shown, &what);
    let there = Ledger::is_there(&shown, gone);
    // The job may be durable by then or not: without it nobody was answered, and the journal alone does nothing.
    let stays = order.starts_with(FIRST) || (order.starts_with(SECOND) && there);
    assert_eq!(there, stays, "{what}");
    assert_eq!(shown.sets.len(), if stays { 3 } else { 2 }, "{what}");
    if stays {
        assert_eq!(site.tree(), before, "{what}: as before");
    }
    if let Ok(job) = asked {
        let job = &shown.jobs[&job];
        assert_eq!((job.state, job.code, job.percent), (7, 0, 100), "{what}");
    }
    // And on it goes.
    ledger.write(site, 10_000, 30_000, 15);
    ledger.take(&wire, &group, "0004").unwrap();
    let next = if gone == "0001" { "0002" } else { "0001" };
    let job = ledger.destroy(&wire, next).unwrap();
    assert_eq!(wire.end(&job).unwrap().state, 7, "{what}: {next}");
    site.wait_for_journals();
    let shown = ledger.check_all_but_tops(site, &wire, &what);
    ledger.check_content(site, &shown, &what);
    assert!(!Ledger::is_there(&shown, next), "{what}: {next}");
}

/// A cancel leaves the merges for later; a server that dies before it has closed the journal of that goes on with
/// them all the same (`docs/cut.md` §4).
fn dies_after_a_cancel(order: &str) {
    let site = Site::new(Ground::Host);
    let mut ledger = Ledger::new(vec![
        site.machine("web", &[Image::Raw, Image::Qcow2], 1),
        site.machine("db", &[Image::Chain], 2),
    ]);
    let gate = Gate::new();
    let mut server =
        site.serve_with(&[&gate.at("destroy.forget.before"), &format!("{order}=abort")]);
    let wire = Wire::new(&server);
    let group = ledger.define(&wire, "all").unwrap();
    for (n, name) in ["0001", "0002", "0003"].into_iter().enumerate() {
        let byte = u8::try_from(n).unwrap() + 11;
        ledger.write(&site, 50_000 * (n + 1), 120_000, byte);
        ledger.take(&wire, &group, name).unwrap();
    }
    ledger.write(&site, 180_000, 70_000, 14);
    let job = ledger.destroy(&wire, "0002").unwrap();
    gate.reached();
    assert_eq!(wire.cancel(&job), 4096, "{order}");
    gate.open();
    assert_killed(&mut server, order);
    let server = site.serve();
    let wire = Wire::new(&server);
    site.wait_for_journals();
    // No file is left that only a pending merge would need.
    let shown = ledger.check_all_but_tops(&site, &wire, order);
    ledger.check_content(&site, &shown, order);
    assert!(!Ledger::is_there(&shown, "0002"), "{order}");
    let ended = &shown.jobs[&job];
    let told = order.starts_with("destroy.publish.after") || order.starts_with("destroy.clear");
    assert_eq!(ended.state, if told { 8 } else { 7 }, "{order}: {ended:?}");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_death_after_a_cancel_of_a_destroy_goes_forward() {
    let passed = |p: &&&str| {
        let early = [
            "destroy.intent.",
            "destroy.job.",
            "destroy.unrecord.",
            "destroy.forget.before",
        ];
        !early.iter().any(|e| p.starts_with(e)) && **p != "destroy.clear.after"
    };
    FAILPOINTS
        .iter()
        .filter(passed)
        .for_each(|p| dies_after_a_cancel(p));
}

/// Within the second merge, one is done and others are not begun.
fn orders() -> impl Iterator<Item = String> {
    let merges = MERGE_FAILPOINTS.iter().map(|p| format!("{p}#2"));
    FAILPOINTS.iter().map(ToString::to_string).chain(merges)
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn at_every_point_of_a_destroy_over_overlays() {
    // The imported image, a file of ours and the active file take what lay on what goes.
    for (n, order) in orders().enumerate() {
        let all = order.contains('#') || std::env::var_os("GROUPSHOT_TEST_LONG").is_some();
        let sets = ["0001", "0002", "0003"];
        let chosen = if all { &sets[..] } else { &sets[n % 3..=n % 3] };
        for gone in chosen {
            dies_at(&Site::new(Ground::Host), gone, &order, &[]);
        }
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn at_every_point_of_a_destroy_over_clones() {
    // Clones lie on nothing of ours: there is nothing to merge. The file system is small.
    for points in FAILPOINTS.chunks(6) {
        let site = Site::new(Ground::Xfs);
        for (n, point) in points.iter().enumerate() {
            dies_at(&site.beside(n), "0002", point, &[]);
        }
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn at_every_point_of_the_recovery_of_a_destroy_too() {
    let early = ["destroy.intent.", "destroy.job."];
    let passed = |p: &&&str| !early.iter().any(|e| p.starts_with(e));
    for point in FAILPOINTS.iter().filter(passed) {
        dies_at(
            &Site::new(Ground::Host),
            "0002",
            "destroy.job.after",
            &[point],
        );
    }
    // The second death meets the merge that the first one left.
    for point in MERGE_FAILPOINTS {
        dies_at(
            &Site::new(Ground::Host),
            "0003",
            "destroy.merge.after",
            &[point],
        );
        let left = "destroy.named.before";
        let relinks = !point.contains(".merge.") && *point != left;
        if relinks {
            dies_at(&Site::new(Ground::Host), "0002", left, &[point]);
        }
    }
}
