//! The call sequences of management and backup programs, step by step, over real HTTP (`docs/flows.md`),
//! with the envelopes of PowerShell's CIM cmdlets: its header order, options, session and operation ids, in UTF-8 and
//! in UTF-16.

mod checklist;
mod cmdlets;
mod jobs;
mod quirks;
mod sets;
mod winrm;

use std::time::{Duration, Instant};

use crate::support::server::{Options, Server};

use cmdlets::{Cmdlets, Object, object};

const SNAPSHOTS: &str = "Msvm_CollectionSnapshotService";
const MANAGEMENT: &str = "Msvm_CollectionManagementService";
const GROUP: &str = "Msvm_VirtualSystemCollection";
const SYSTEM: &str = "Msvm_ComputerSystem";
const SETTINGS: &str = "Msvm_VirtualSystemSettingData";
const SET: &str = "Msvm_SnapshotCollection";

/// A server with simulated machines that are off.
fn server() -> Server {
    Server::start(&["--engine", "sim", "--machines", "4"])
}

/// The same, with an order for a step of the work.
fn server_that(failpoint: &str) -> Server {
    Server::with(&Options {
        args: &["--engine", "sim", "--machines", "4"],
        env: &[("GROUPSHOT_FAILPOINTS", failpoint)],
        ..Options::default()
    })
}

/// The only instance of a service, as every client expects it.
fn service(client: &mut Cmdlets, class: &str) -> Object {
    let mut found = client.instances(class);
    assert_eq!(found.len(), 1, "{class}");
    let service = found.remove(0);
    assert_eq!(service.get("Started"), "true");
    assert_eq!(service.get("EnabledState"), "2");
    service
}

/// Flow 4a, steps 1 to 3: a group of the first `count` machines.
fn group_of(client: &mut Cmdlets, name: &str, count: usize) -> (Object, Vec<Object>) {
    let management = service(client, MANAGEMENT);
    let made = client.invoke(
        &management,
        "DefineCollection",
        &format!("<p:Name>{name}</p:Name><p:Type>0</p:Type>"),
    );
    assert_eq!(made.get("ReturnValue"), "0");
    let group = client.get(&object(
        GROUP,
        &[(
            "CollectionID",
            &made.reference("DefinedCollection", "CollectionID"),
        )],
    ));
    let mut machines = client.instances(SYSTEM);
    machines.retain(|m| m.get("Caption") == "Virtual Machine");
    machines.truncate(count);
    assert_eq!(machines.len(), count);
    for machine in &machines {
        let arguments = format!(
            "<p:Member>{}</p:Member><p:Collection>{}</p:Collection>",
            machine.epr(),
            group.epr()
        );
        let added = client.invoke(&management, "AddMember", &arguments);
        assert_eq!(added.get("ReturnValue"), "0");
    }
    (group, machines)
}

/// Flow 1: reads the job until it ends; what is true on the way is checked at each reading.
fn wait(client: &mut Cmdlets, id: &str) -> Object {
    let job = object("Msvm_ConcreteJob", &[("InstanceID", id)]);
    let until = Instant::now() + Duration::from_secs(60);
    let mut before = 0;
    loop {
        let now = client.get(&job);
        let percent: u32 = now.get("PercentComplete").parse().unwrap();
        assert!(percent >= before, "{percent} after {before}");
        before = percent;
        match now.get("JobState").as_str() {
            "4" => assert!(percent < 100, "100 before the end"),
            "7" | "8" | "9" | "10" => return now,
            other => panic!("JobState {other} is never shown"),
        }
        assert!(Instant::now() < until, "the job does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until it is so.
fn until(mut so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !so() {
        assert!(Instant::now() < until, "it does not end");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn create(client: &mut Cmdlets, group: &Object, settings: &str, kind: u16) -> Object {
    let snapshots = service(client, SNAPSHOTS);
    let arguments = format!(
        "<p:Collection>{}</p:Collection>{settings}<p:SnapshotType>{kind}</p:SnapshotType>",
        group.epr()
    );
    client.invoke(&snapshots, "CreateSnapshot", &arguments)
}

/// Flow 4b, steps 4 to 6: the finished job of a recovery set and the set.
fn take(client: &mut Cmdlets, group: &Object) -> (Object, Object) {
    let started = create(client, group, "", 2);
    assert_eq!(started.get("ReturnValue"), "4096");
    let job = wait(client, &started.reference("Job", "InstanceID"));
    assert_eq!(job.get("JobState"), "7", "{}", job.text);
    let mut sets = client.associated(&job, "", SET);
    assert_eq!(sets.len(), 1);
    (job, sets.remove(0))
}

/// Item 7.4: what every job that has failed tells.
fn assert_tells_why(client: &mut Cmdlets, job: &Object, code: &str) {
    assert_eq!(job.get("ErrorCode"), code);
    assert!(!job.get("ErrorDescription").is_empty());
    assert!(!job.get("ErrorSummaryDescription").is_empty());
    let percent: u32 = job.get("PercentComplete").parse().unwrap();
    assert!(percent < 100, "{percent}");
    let errors = client.invoke(job, "GetErrorEx", "");
    let text = errors.get("Errors");
    assert!(text.contains("<PROPERTY NAME=\"Message\""), "{text}");
    assert!(text.contains("<PROPERTY NAME=\"ErrorSource\""), "{text}");
    let unnamed = text
        .split("<PROPERTY")
        .skip(1)
        .find(|p| !p.starts_with([' ', '.']));
    assert_eq!(unnamed, None);
}

#[test]
fn flow_4a_a_group_is_built_and_found_from_both_ends() {
    let server = server();
    let mut client = Cmdlets::new(&server, false);
    let (group, machines) = group_of(&mut client, "web", 2);
    // Null arrays are told from empty ones, as the cmdlets ask for.
    let array = ":AvailableRequestedStates ";
    let (_, null) = machines[0].text.split_once(array).unwrap();
    assert!(
        null.split_once('>')
            .unwrap()
            .0
            .contains("IsNullArray=\"true\"")
    );
    let members = client.associated(&group, "Msvm_CollectedVirtualSystems", SYSTEM);
    let name = |o: &Object| o.get("Name");
    let mut found: Vec<String> = members.iter().map(name).collect();
    let mut wanted: Vec<String> = machines.iter().map(name).collect();
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted);
    for machine in &machines {
        let groups = client.associated(machine, "Msvm_CollectedVirtualSystems", GROUP);
        assert_eq!(groups.len(), 1);
        assert_eq!(groups[0].get("CollectionID"), group.get("CollectionID"));
    }
    // A group of groups, from the child to its parent and back.
    let management = service(&mut client, MANAGEMENT);
    let outer = client.invoke(
        &management,
        "DefineCollection",
        "<p:Name>all</p:Name><p:Type>1</p:Type>",
    );
    let id = outer.reference("DefinedCollection", "CollectionID");
    let outer = client.get(&object(
        "Msvm_ManagementCollection",
        &[("CollectionID", &id)],
    ));
    let arguments = format!(
        "<p:Member>{}</p:Member><p:Collection>{}</p:Collection>",
        group.epr(),
        outer.epr()
    );
    let added = client.invoke(&management, "AddMember", &arguments);
    assert_eq!(added.get("ReturnValue"), "0");
    let inner = client.associated(&outer, "Msvm_CollectedCollections", "CIM_CollectionOfMSEs");
    assert_eq!(inner.len(), 1);
    assert_eq!(inner[0].class, GROUP);
    let above = client.associated(
        &group,
        "Msvm_CollectedCollections",
        "Msvm_ManagementCollection",
    );
    assert_eq!(above.len(), 1);
}

#[test]
fn flow_4b_a_recovery_set_from_the_call_to_its_disks() {
    let server = server();
    for utf16 in [false, true] {
        let mut client = Cmdlets::new(&server, utf16);
        let (group, machines) = group_of(&mut client, &format!("utf16 {utf16}"), 2);
        // Steps 3 and 4: the class of the settings tells their properties; they go as text.
        let class = client.class("Msvm_VirtualSystemSnapshotSettingData");
        for property in [
            "ConsistencyLevel",
            "GuestBackupType",
            "IgnoreNonSnapshottableDisks",
        ] {
            assert!(
                class.contains(&format!("NAME=\"{property}\"")),
                "{property}"
            );
        }
        let service_class = client.class(SNAPSHOTS);
        assert!(service_class.contains("<VALUE>Method Parameters Checked - Job Started</VALUE>"));
        let settings = "<p:SnapshotSettings>&lt;INSTANCE CLASSNAME=\"Msvm_VirtualSystemSnapshotSettingData\"&gt;\
             &lt;PROPERTY NAME=\"ConsistencyLevel\" TYPE=\"uint8\"&gt;&lt;VALUE&gt;1&lt;/VALUE&gt;&lt;/PROPERTY&gt;\
             &lt;/INSTANCE&gt;</p:SnapshotSettings>";
        let started = create(&mut client, &group, settings, 2);
        assert_eq!(started.get("ReturnValue"), "4096");
        let id = started.reference("Job", "InstanceID");
        let job = wait(&mut client, &id);
        assert_eq!(job.get("JobState"), "7", "{}", job.text);
        assert_eq!(job.get("ErrorCode"), "0");
        assert_eq!(job.get("PercentComplete"), "100");
        assert_eq!(job.get("JobType"), "198");
        // Step 6: exactly one set behind the job, and the same by the group and by the plain list.
        let sets = client.associated(&job, "", SET);
        assert_eq!(sets.len(), 1);
        let set = sets[0].get("CollectionID");
        let affected = client.associated(&job, "Msvm_AffectedJobElement", SYSTEM);
        assert_eq!(affected.len(), 2);
        assert!(client.associated(&job, "", SETTINGS).is_empty());
        let by_group = client.associated(&group, "Msvm_SnapshotOfVirtualSystemCollection", SET);
        assert_eq!(by_group.len(), 1);
        assert_eq!(by_group[0].get("CollectionID"), set);
        assert!(
            client
                .instances(SET)
                .iter()
                .any(|s| s.get("CollectionID") == set)
        );
        // Step 7: the members, their machines and their disks.
        let members = client.associated(&sets[0], "Msvm_CollectedSnapshots", SETTINGS);
        assert_eq!(members.len(), 2);
        for member in &members {
            assert_eq!(
                member.get("VirtualSystemType"),
                "Microsoft:Hyper-V:Snapshot:Recovery"
            );
            let machine = member.get("VirtualSystemIdentifier");
            let machine = machines.iter().find(|m| m.get("Name") == machine).unwrap();
            let of_machine = client.associated(
                machine,
                "Msvm_SnapshotOfVirtualSystem",
                "CIM_VirtualSystemSettingData",
            );
            let id = |s: &&Object| s.get("InstanceID") == member.get("InstanceID");
            assert_eq!(of_machine.iter().filter(id).count(), 1);
            let disks = client.associated(
                member,
                "Msvm_VirtualSystemSettingDataComponent",
                "Msvm_StorageAllocationSettingData",
            );
            assert!(!disks.is_empty());
            for disk in &disks {
                assert_eq!(disk.get("ResourceType"), "31");
                assert_eq!(
                    disk.get("ResourceSubType"),
                    "Microsoft:Hyper-V:Virtual Hard Disk"
                );
                assert!(disk.get("HostResource").starts_with('/'), "{}", disk.text);
            }
        }
    }
}

#[test]
fn flow_7_4_a_call_that_is_refused_leaves_a_job_that_says_why() {
    let server = server();
    let mut client = Cmdlets::new(&server, false);
    let (group, _) = group_of(&mut client, "empty", 0);
    for settings in [
        "",
        "<p:SnapshotSettings/>",
        "<p:SnapshotSettings xsi:nil=\"true\"/>",
    ] {
        let refused = create(&mut client, &group, settings, 1);
        assert_eq!(refused.get("ReturnValue"), "5");
        let id = refused.reference("Job", "InstanceID");
        let job = wait(&mut client, &id);
        assert_eq!(job.get("JobState"), "10");
        assert_tells_why(&mut client, &job, "5");
        assert!(client.associated(&group, "", SET).is_empty());
    }
}
