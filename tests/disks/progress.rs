//! How far an operation is: in bytes, by the job, by a repair, and where a cancel has left it.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::doctor::found;
use crate::support::gate::Gate;
use crate::support::server::{Server, binary, run_in};
use crate::support::site::{Ground, Image, SIZE, Site};
use crate::support::wire::Wire;

const TERMINATED: u64 = 8;
const HALF: std::ops::RangeInclusive<u64> = 45..=57;

/// A machine with two disks of which as much was written since the first set; the server holds at the end of the
/// first merge.
fn with_two_merges(site: &Site, gate: &Gate) -> (Server, Wire, String) {
    let mut machine = site.machine("web", &[Image::Raw, Image::Raw], 1);
    let server = site.serve_with(&[&gate.at("destroy.named.before")]);
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&machine.id]).unwrap();
    let first = wire.take(&group, "first");
    site.wait_for_journals();
    for disk in 0..2 {
        let top = site.top(&machine, disk);
        machine.write(&top, disk, 0, SIZE, 7);
    }
    wire.take(&group, "second");
    site.wait_for_journals();
    (server, wire, first)
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn merges_are_counted_in_bytes_and_a_cancelled_job_keeps_its_percent() {
    let (site, gate) = (Site::new(Ground::Host), Gate::new());
    let (_server, wire, first) = with_two_merges(&site, &gate);
    let job = wire.destroy(&first).unwrap().job.unwrap();
    gate.reached();
    let half = wire.job(&job).unwrap();
    assert!(HALF.contains(&half.percent), "{half:?}");
    let said = "merging machine web, disk disk0: 1 of 1 MiB";
    assert!(half.status.starts_with(said), "{half:?}");
    assert_eq!(wire.cancel(&job), 4096);
    gate.open();
    let ended = wire.end(&job).unwrap();
    assert_eq!((ended.state, ended.percent), (TERMINATED, half.percent));
    site.wait_for_journals();
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_repair_tells_how_far_it_is_with_a_server_and_without() {
    for served in [true, false] {
        let (site, gate) = (Site::new(Ground::Host), Gate::new());
        let (mut server, wire, first) = with_two_merges(&site, &gate);
        let job = wire.destroy(&first).unwrap().job.unwrap();
        gate.reached();
        wire.cancel(&job);
        gate.open();
        wire.end(&job).unwrap();
        site.wait_for_journals();
        server.stop();
        let gate = Gate::new();
        let order = gate.at("destroy.named.before");
        let _server = served.then(|| site.serve_with(&[&order]));
        let mut repair = Command::new(binary());
        repair.args(["doctor", "--fix", "--yes", "--data-dir"]);
        repair.arg(&site.data).env("GROUPSHOT_FAILPOINTS", &order);
        let mut repair = repair.stderr(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(repair.stderr.take().unwrap());
        let mut said = said.lines().map(Result::unwrap);
        let far = said.find(|line| line.contains("merging machine web, disk disk1: 1 of 1 MiB"));
        assert!(far.is_some(), "served: {served}");
        gate.open();
        assert_eq!(said.filter(|line| line.contains("not repaired")).count(), 0);
        repair.wait().unwrap();
        assert_eq!(found(&run_in(&site.data, &["--json", "doctor"], "")), []);
    }
}
