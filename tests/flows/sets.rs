//! Flow 4b after the set is there: export, apply, destroy. And the rest of flow 4a: what becomes of a group.

use super::cmdlets::{Cmdlets, Object};
use super::{
    GROUP, MANAGEMENT, SET, SETTINGS, SNAPSHOTS, SYSTEM, create, group_of, server, service, take,
    wait,
};
use crate::support::server::Server;

/// Calls a method of the snapshot service that works on a set; its finished job.
fn call(client: &mut Cmdlets, method: &str, arguments: &str) -> Object {
    let snapshots = service(client, SNAPSHOTS);
    let started = client.invoke(&snapshots, method, arguments);
    assert_eq!(started.get("ReturnValue"), "4096", "{}", started.text);
    let job = wait(client, &started.reference("Job", "InstanceID"));
    assert_eq!(job.get("JobState"), "7", "{}", job.text);
    assert_eq!(job.get("PercentComplete"), "100");
    job
}

#[test]
fn flow_4b_apply_goes_back_to_a_set_and_says_so_everywhere() {
    let server = server();
    let mut client = Cmdlets::new(&server, true);
    let (group, machines) = group_of(&mut client, "web", 2);
    let (_, first) = take(&mut client, &group);
    take(&mut client, &group);
    let job = call(
        &mut client,
        "ApplySnapshot",
        &format!(
            "<p:SnapshotCollection>{}</p:SnapshotCollection>",
            first.epr()
        ),
    );
    assert_eq!(job.get("JobType"), "71");
    // The set that was applied is what the job is about, and each machine says which snapshot it is at.
    let about = client.associated(&job, "Msvm_AffectedJobElement", SET);
    assert_eq!(about.len(), 1);
    assert_eq!(about[0].get("CollectionID"), first.get("CollectionID"));
    let members = client.associated(&first, "Msvm_CollectedSnapshots", SETTINGS);
    assert_eq!(members.len(), machines.len());
    for machine in &machines {
        let at = client.associated(machine, "Msvm_LastAppliedSnapshot", SETTINGS);
        assert_eq!(at.len(), 1);
        let id = at[0].get("InstanceID");
        assert!(members.iter().any(|m| m.get("InstanceID") == id));
        let active = client.associated(machine, "Msvm_SettingsDefineState", SETTINGS);
        assert_eq!(active.len(), 1);
        assert!(active[0].get("Parent").contains(&id), "{}", active[0].text);
    }
    // Both sets are still there.
    let sets = client.associated(&group, "Msvm_SnapshotOfVirtualSystemCollection", SET);
    assert_eq!(sets.len(), 2);
}

#[test]
fn flow_4b_destroy_discards_a_set_with_its_members_and_links() {
    let server = server();
    let mut client = Cmdlets::new(&server, false);
    let (group, machines) = group_of(&mut client, "web", 2);
    let before = client.instances(SETTINGS).len();
    let (created, set) = take(&mut client, &group);
    let members = client.associated(&set, "Msvm_CollectedSnapshots", SETTINGS);
    let job = call(
        &mut client,
        "DestroySnapshot",
        &format!(
            "<p:AffectedSnapshotCollection>{}</p:AffectedSnapshotCollection>",
            set.epr()
        ),
    );
    assert_eq!(job.get("JobType"), "72");
    client.get_nothing(&set);
    for member in &members {
        client.get_nothing(member);
    }
    assert_eq!(client.instances(SETTINGS).len(), before);
    assert!(client.associated(&group, "", SET).is_empty());
    assert!(client.associated(&created, "", SET).is_empty());
    for machine in &machines {
        assert!(
            client
                .associated(machine, "Msvm_SnapshotOfVirtualSystem", SETTINGS)
                .is_empty()
        );
    }
    // A second time there is nothing to destroy: refused, with a job that tells.
    let snapshots = service(&mut client, SNAPSHOTS);
    let again = format!(
        "<p:AffectedSnapshotCollection>{}</p:AffectedSnapshotCollection>",
        set.epr()
    );
    let again = client.invoke(&snapshots, "DestroySnapshot", &again);
    assert_eq!(again.get("ReturnValue"), "4");
    let job = wait(&mut client, &again.reference("Job", "InstanceID"));
    super::assert_tells_why(&mut client, &job, "4");
}

#[test]
fn flow_4b_8_export_writes_a_set_below_its_root() {
    let home = tempfile::tempdir().unwrap();
    let (root, config) = (home.path().join("exports"), home.path().join("c.toml"));
    std::fs::create_dir(&root).unwrap();
    std::fs::write(&config, format!("[export]\nroots = [{root:?}]\n")).unwrap();
    let config = config.to_str().unwrap();
    let server = Server::start(&["--engine", "sim", "--machines", "4", "--config", config]);
    let mut client = Cmdlets::new(&server, false);
    let (group, _) = group_of(&mut client, "web", 2);
    let (_, set) = take(&mut client, &group);
    let class = client.class("Msvm_CollectionSnapshotExportSettingData");
    for property in ["CopyVmStorage", "DifferentialBackupBase", "BackupIntent"] {
        assert!(
            class.contains(&format!("NAME=\"{property}\"")),
            "{property}"
        );
    }
    // Simulated disks have no content, so the definitions alone; real ones are exported in tests/python.
    let arguments = |directory: &str| {
        format!(
            "<p:SnapshotCollection>{}</p:SnapshotCollection><p:ExportDirectory>{directory}</p:ExportDirectory>\
             <p:ExportSettingData>&lt;INSTANCE CLASSNAME=\"Msvm_CollectionSnapshotExportSettingData\"&gt;\
             &lt;PROPERTY NAME=\"CopyVmStorage\" TYPE=\"boolean\"&gt;&lt;VALUE&gt;false&lt;/VALUE&gt;&lt;/PROPERTY&gt;\
             &lt;/INSTANCE&gt;</p:ExportSettingData>",
            set.epr()
        )
    };
    let directory = root.to_str().unwrap();
    let job = call(&mut client, "ExportSnapshot", &arguments(directory));
    assert_eq!(job.get("JobType"), "62");
    let written = root.join(set.get("CollectionID")).join("manifest.json");
    assert!(written.is_file());
    // Elsewhere, and a second time at the same place: refused, and why.
    for (directory, code) in [("/", "32773"), (directory, "32775")] {
        let snapshots = service(&mut client, SNAPSHOTS);
        let refused = client.invoke(&snapshots, "ExportSnapshot", &arguments(directory));
        assert_eq!(refused.get("ReturnValue"), code);
        let job = wait(&mut client, &refused.reference("Job", "InstanceID"));
        super::assert_tells_why(&mut client, &job, code);
    }
}

#[test]
fn flow_4a_5_a_group_is_renamed_emptied_and_destroyed_and_its_sets_stay() {
    let server = server();
    let mut client = Cmdlets::new(&server, false);
    let (group, machines) = group_of(&mut client, "web", 2);
    let (_, set) = take(&mut client, &group);
    let call = |client: &mut Cmdlets, method: &str, arguments: &str| {
        let management = service(client, MANAGEMENT);
        let answer = client.invoke(&management, method, arguments);
        answer.get("ReturnValue")
    };
    let epr = group.epr();
    let rename = format!("<p:NewName>shop</p:NewName><p:Collection>{epr}</p:Collection>");
    assert_eq!(call(&mut client, "RenameCollection", &rename), "0");
    assert_eq!(client.get(&group).get("ElementName"), "shop");
    let by_name = client.query(&format!("SELECT * FROM {GROUP} WHERE ElementName = 'shop'"));
    assert_eq!(by_name.len(), 1);
    let member = format!(
        "<p:Member>{}</p:Member><p:Collection>{epr}</p:Collection>",
        machines[0].epr()
    );
    assert_eq!(call(&mut client, "RemoveMember", &member), "0");
    // By its id it may be removed again and again.
    let id = format!(
        "<p:Member>{}</p:Member><p:CollectionId>{}</p:CollectionId>",
        machines[1].epr(),
        group.get("CollectionID")
    );
    for _ in 0..2 {
        assert_eq!(call(&mut client, "RemoveMemberById", &id), "0");
    }
    assert!(
        client
            .associated(&group, "Msvm_CollectedVirtualSystems", SYSTEM)
            .is_empty()
    );
    let refused = create(&mut client, &group, "", 2);
    assert_eq!(refused.get("ReturnValue"), "5");
    let destroy = format!("<p:Collection>{epr}</p:Collection>");
    assert_eq!(call(&mut client, "DestroyCollection", &destroy), "0");
    client.get_nothing(&group);
    assert_eq!(
        client.get(&set).get("CollectionID"),
        set.get("CollectionID")
    );
}
