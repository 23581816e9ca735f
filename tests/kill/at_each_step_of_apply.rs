//! Death at each named place of an apply and of its undo: afterwards every disk of every member holds what the
//! set holds, or every disk holds what it held before.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use groupshot::snapshot::apply::FAILPOINTS;

use crate::support::site::{Ground, Image, Machine, Site, assert_holds};
use crate::support::wire::Wire;

const SIGKILL: i32 = 9;

fn of_the_undo(point: &str) -> bool {
    point.contains(".abort.") || point.contains(".undone.")
}

/// Whether the disks have gone back after a death at this point: from the commit point on.
fn goes_forward(point: &str) -> bool {
    let place = |p: &str| FAILPOINTS.iter().position(|x| *x == p).unwrap();
    !of_the_undo(point) && place(point) >= place("apply.commit.after")
}

fn write(site: &Site, machines: &mut [Machine], offset: usize, byte: u8) {
    for machine in machines {
        for disk in 0..machine.images.len() {
            let top = site.top(machine, disk);
            machine.write(&top, disk, offset, 90_000, byte);
        }
    }
}

fn assert_content(site: &Site, machines: &[Machine], content: &[Vec<Vec<u8>>], what: &str) {
    for (machine, disks) in machines.iter().zip(content) {
        for (n, expected) in disks.iter().enumerate() {
            let top = site.top(machine, n);
            assert_holds(&top, expected, &format!("{what}: {}", machine.name));
        }
    }
}

fn dies_at(site: &Site, point: &str) {
    let mut machines = vec![
        site.machine("web", &[Image::Raw, Image::Qcow2], 1),
        site.machine("db", &[Image::Chain], 2),
    ];
    let mut orders = vec![format!("{point}=abort")];
    if of_the_undo(point) {
        orders.push("apply.prepare.after=error".to_owned());
    }
    let orders: Vec<_> = orders.iter().map(String::as_str).collect();
    let mut server = site.serve_with(&orders);
    let wire = Wire::new(&server);
    let ids: Vec<_> = machines.iter().map(|m| m.id.clone()).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let group = wire.define("all", &ids).unwrap();
    write(site, &mut machines, 3000, 11);
    let set = wire.take(&group, "first");
    site.wait_for_journals();
    let captured: Vec<_> = machines.iter().map(|m| m.content.clone()).collect();
    write(site, &mut machines, 60_000, 12);
    let written: Vec<_> = machines.iter().map(|m| m.content.clone()).collect();
    let before = site.tree();
    // The answer may be lost with the server.
    let asked = wire.apply(&set);
    let job = asked.ok().and_then(|a| a.job);
    let status = server.wait(Duration::from_secs(60));
    let status = status.unwrap_or_else(|| panic!("{point}: never passed"));
    assert_eq!(status.signal(), Some(SIGKILL), "{point}: {status}");

    let server = site.serve();
    site.wait_for_journals();
    let wire = Wire::new(&server);
    let shown = wire.shown().unwrap();
    for job in shown.jobs.values() {
        assert!(job.state > 6, "{point}: open: {job:?}");
    }
    let expected = if goes_forward(point) {
        &captured
    } else {
        &written
    };
    assert_content(site, &machines, expected, point);
    if let Some(job) = job {
        let state = shown.jobs[&job].state;
        assert_eq!(state == 7, goes_forward(point), "{point}: {state}");
    }
    if !goes_forward(point) {
        assert_eq!(site.tree(), before, "{point}: as before");
    }
    for name in site.beside_definitions() {
        let known = ["vm.toml", "tops.json"].contains(&name.as_str());
        assert!(known, "{point}: {name} is left");
    }
    assert_named(site, &wire, &machines, point);
    // And on it goes: the same set again, and a set of that.
    let again = wire.apply(&set).unwrap();
    assert_eq!(wire.end(&again.job.unwrap()).unwrap().state, 7, "{point}");
    site.wait_for_journals();
    assert_content(site, &machines, &captured, point);
    wire.take(&group, "second");
    site.wait_for_journals();
    assert_named(site, &wire, &machines, point);
}

/// Every file that is left is an active file, or one that a set names.
fn assert_named(site: &Site, wire: &Wire, machines: &[Machine], what: &str) {
    let shown = wire.shown().unwrap();
    let members = shown.sets.values().flat_map(|set| &set.members);
    let mut named: Vec<_> = members
        .flat_map(|m| m.disks.values().chain([&m.definition]))
        .cloned()
        .collect();
    let records = shown.sets.keys();
    named.extend(records.map(|set| site.data.join("sets").join(set).join("set.json")));
    for machine in machines {
        named.extend((0..machine.images.len()).map(|n| site.top(machine, n)));
    }
    for path in site.kept() {
        let known = match path.is_dir() {
            true => named.iter().any(|file| file.starts_with(&path)),
            false => named.contains(&path),
        };
        assert!(known, "{what}: {} belongs to nothing", path.display());
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn at_every_point_of_an_apply_over_overlays() {
    for point in FAILPOINTS.iter() {
        dies_at(&Site::new(Ground::Host), point);
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn at_every_point_of_an_apply_over_clones() {
    // The file system is small.
    for points in FAILPOINTS.chunks(8) {
        let site = Site::new(Ground::Xfs);
        for (n, point) in points.iter().enumerate() {
            dies_at(&site.beside(n), point);
        }
    }
}
