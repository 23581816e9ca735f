//! Death at each named place of an export, of its undo and of the recovery after it.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use groupshot::snapshot::export::FAILPOINTS;

use crate::support::server::Server;
use crate::support::site::Ground;
use crate::support::wire::Wire;

use super::{Rig, content};

const SIGKILL: i32 = 9;

/// Whether the export is there after a death at this point: from the commit point on.
fn survives(point: &str) -> bool {
    let place = |p: &str| FAILPOINTS.iter().position(|x| *x == p).unwrap();
    !of_the_undo(point) && place(point) >= place("export.commit.after")
}

fn of_the_undo(point: &str) -> bool {
    point.contains(".abort.") || point.contains(".undone.")
}

fn assert_killed(server: &mut Server, what: &str) {
    let status = server.wait(Duration::from_secs(60));
    let status = status.unwrap_or_else(|| panic!("{what}: never passed"));
    assert_eq!(status.signal(), Some(SIGKILL), "{what}: {status}");
}

fn dies_at(point: &str, again: &[&str]) {
    let what = format!("{point}, then {again:?}");
    let mut rig = Rig::new(Ground::Host);
    let orders = match of_the_undo(point) {
        true => format!("export.commit.before=error,{point}=abort"),
        false => format!("{point}=abort"),
    };
    let mut server = rig.serve(&orders);
    let wire = Wire::new(&server);
    let group = rig.group(&wire);
    rig.write(3000, 11);
    let set = wire.take(&group, "0001");
    let captured = content(&rig.machines);
    rig.site.wait_for_journals();
    rig.write(60_000, 12);
    // Its answer may be lost, its end may be seen before the last steps.
    let job = wire.export(&set, rig.root(), None).ok().and_then(|s| s.job);
    let ended = job.as_ref().and_then(|id| wire.end(id).ok());
    assert_killed(&mut server, &what);
    for point in again {
        // A recovery that takes longer than is waited for opens the listener first.
        match rig.try_serve(&format!("{point}=abort")) {
            Ok(mut server) => assert_killed(&mut server, &format!("{what}: {point}")),
            Err(said) => assert!(said.contains("signal: 9"), "{what}: {said}"),
        }
    }
    let server = rig.serve("");
    let wire = Wire::new(&server);
    rig.site.wait_for_journals();
    let expected: &[String] = match survives(point) {
        true => std::slice::from_ref(&set),
        false => &[],
    };
    assert_eq!(rig.left(), expected, "{what}");
    if survives(point) {
        rig.assert_whole(&set, &captured, &what);
    }
    if let Some(job) = &job {
        let now = wire.job(job).unwrap();
        assert_eq!(
            now.state,
            if survives(point) { 7 } else { 10 },
            "{what}: {now:?}"
        );
        if let Some(ended) = ended {
            assert_eq!(now.state, ended.state, "{what}: a client saw another end");
        }
    }
    // The set is free: it can be exported again.
    if !survives(point) {
        let job = wire.export(&set, rig.root(), None).unwrap().job.unwrap();
        assert_eq!(wire.end(&job).unwrap().state, 7, "{what}");
        rig.assert_whole(&set, &captured, &what);
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn at_every_point_of_an_export() {
    for point in FAILPOINTS.iter() {
        dies_at(point, &[]);
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn at_every_point_of_the_recovery_of_an_export_too() {
    let back = [
        "abort.before",
        "abort.after",
        "undone.before",
        "undone.after",
    ];
    for first in ["export.copy.after", "export.reveal.after"] {
        for second in back {
            dies_at(first, &[&format!("export.{second}")]);
        }
    }
    for second in [
        "publish.before",
        "publish.after",
        "clear.before",
        "clear.after",
    ] {
        dies_at("export.commit.after", &[&format!("export.{second}")]);
    }
}
