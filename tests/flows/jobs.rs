//! Flow 1, waiting for a job, and flow 4c, jobs that fail.

use super::cmdlets::{Cmdlets, Object, object};
use super::{SET, SETTINGS, assert_tells_why, create, group_of, server_that, take, until, wait};
use crate::support::gate::Gate;
use crate::support::server::Server;

const JOB: &str = "Msvm_ConcreteJob";
const AFFECTED: &str = "Msvm_AffectedJobElement";

/// A server whose first capture waits before it cuts, until the gate is opened.
fn held() -> (Server, Gate) {
    let gate = Gate::new();
    (server_that(&gate.at("create.cut.before")), gate)
}

/// What clients read for display (`docs/flows.md` §1), while it runs and when it has ended.
const SHOWN: &[&str] = &[
    "InstanceID",
    "Caption",
    "Description",
    "ElementName",
    "JobStatus",
    "ElapsedTime",
    "Cancellable",
    "JobType",
    "Owner",
    "PercentComplete",
    "JobState",
    "StatusDescriptions",
    "OperationalStatus",
    "TimeSubmitted",
    "UntilTime",
    "TimeOfLastStateChange",
    "DetailedStatus",
    "LocalOrUtcTime",
    "ErrorCode",
    "ErrorDescription",
    "ErrorSummaryDescription",
];

#[test]
fn flow_1_a_job_is_followed_from_its_reference_to_its_end_and_stays() {
    let (server, gate) = held();
    let mut client = Cmdlets::new(&server, true);
    let (group, _) = group_of(&mut client, "web", 2);
    let started = create(&mut client, &group, "", 2);
    assert_eq!(started.get("ReturnValue"), "4096");
    let id = started.reference("Job", "InstanceID");
    let set = started.reference("ResultingSnapshotCollection", "CollectionID");
    let set = object(SET, &[("CollectionID", &set)]);
    // Step 1: the reference carries keys only. The first reading: it runs, and cannot be taken for done.
    let job = object(JOB, &[("InstanceID", &id)]);
    let first = client.get(&job);
    assert_eq!(first.get("JobState"), "4");
    assert_eq!(first.get("Cancellable"), "true");
    assert_eq!(first.get("ErrorCode"), "0");
    for property in SHOWN {
        first.get(property);
    }
    // What it will bring is not there yet, and the text names the job.
    assert!(client.get_nothing(&set).contains(&id));
    assert!(client.associated(&job, "", SET).is_empty());
    // Steps 2 and 5.
    gate.open();
    let last = wait(&mut client, &id);
    assert_eq!(last.get("JobState"), "7", "{}", last.text);
    assert_eq!(last.get("PercentComplete"), "100");
    assert_eq!(last.get("ErrorCode"), "0");
    assert_eq!(last.get("OperationalStatus"), "2");
    // Step 6: it and its links outlive the end by the configured hour, read as often as a client likes.
    let kept = "Interval xmlns:c=\"http://schemas.dmtf.org/wbem/wscim/1/common\">P0DT1H0M0S<";
    assert!(last.text.contains(kept), "{}", last.text);
    for _ in 0..3 {
        assert_eq!(client.get(&job).get("JobState"), "7");
        let sets = client.associated(&job, "", SET);
        assert_eq!(sets.len(), 1);
        assert_eq!(
            sets[0].get("CollectionID"),
            client.get(&set).get("CollectionID")
        );
    }
}

/// Jobs on a machine as os-win looks for them, those that have ended left out.
fn running_on(client: &mut Cmdlets, machine: &Object, host: &str) -> Vec<Object> {
    let path = machine.path(host);
    let query = format!(
        "SELECT * FROM {AFFECTED} WHERE AffectedElement = '{}'",
        doubled(&path)
    );
    let links = client.query(&query);
    let mut jobs = Vec::new();
    for link in links {
        let id = link.reference("AffectingElement", "InstanceID");
        let job = client.get(&object(JOB, &[("InstanceID", &id)]));
        if job.get("JobState") == "4" {
            jobs.push(job);
        }
    }
    jobs
}

/// A path as the literal of a query.
fn doubled(path: &str) -> String {
    path.replace('\\', "\\\\")
}

#[test]
fn flow_1_7_the_jobs_of_a_machine_are_found_by_it_and_stopped() {
    let (server, gate) = held();
    let mut client = Cmdlets::new(&server, false);
    let (group, machines) = group_of(&mut client, "web", 2);
    let before = client.instances(SETTINGS).len();
    let host = host(&mut client);
    assert!(running_on(&mut client, &machines[0], &host).is_empty());
    let started = create(&mut client, &group, "", 2);
    assert_eq!(started.get("ReturnValue"), "4096");
    let id = started.reference("Job", "InstanceID");
    let running = running_on(&mut client, &machines[0], &host);
    assert_eq!(running.len(), 1);
    assert_eq!(running[0].get("InstanceID"), id);
    assert_eq!(running[0].get("Cancellable"), "true");
    let kill = "<p:RequestedState>5</p:RequestedState>";
    let killed = client.invoke(&running[0], "RequestStateChange", kill);
    assert_eq!(killed.get("ReturnValue"), "4096");
    gate.open();
    until(|| running_on(&mut client, &machines[0], &host).is_empty());
    let job = wait(&mut client, &id);
    assert_eq!(job.get("JobState"), "9");
    assert_tells_why(&mut client, &job, "32768");
    // Too late for a second one.
    let again = client.invoke(&job, "RequestStateChange", kill);
    assert_eq!(again.get("ReturnValue"), "4097");
    assert!(client.instances(SET).is_empty());
    assert_eq!(client.instances(SETTINGS).len(), before);
    // And the machines are free for the next.
    take(&mut client, &group);
}

#[test]
fn flow_4c_a_set_that_fails_fails_as_a_whole() {
    let server = server_that("create.cut.before=error");
    let mut client = Cmdlets::new(&server, false);
    let (group, machines) = group_of(&mut client, "web", 3);
    let before = client.instances(SETTINGS).len();
    let started = create(&mut client, &group, "", 2);
    assert_eq!(started.get("ReturnValue"), "4096");
    let job = wait(&mut client, &started.reference("Job", "InstanceID"));
    assert_eq!(job.get("JobState"), "10");
    let code = job.get("ErrorCode");
    assert_ne!(code, "0");
    assert_tells_why(&mut client, &job, &code);
    assert_eq!(job.get("OperationalStatus"), "6");
    // No set, no member of one, no link.
    assert!(client.instances(SET).is_empty());
    assert!(client.associated(&job, "", SET).is_empty());
    assert!(client.associated(&group, "", SET).is_empty());
    assert_eq!(client.instances(SETTINGS).len(), before);
    for machine in &machines {
        let kept = client.associated(machine, "Msvm_SnapshotOfVirtualSystem", SETTINGS);
        assert!(kept.is_empty());
    }
    take(&mut client, &group);
}

/// The name of the host as its services tell it.
fn host(client: &mut Cmdlets) -> String {
    super::service(client, super::SNAPSHOTS).get("SystemName")
}
