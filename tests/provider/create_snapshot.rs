//! `CreateSnapshot`: the table of `docs/semantics.md` §3, row by row, and the replies of its section 1.

use std::time::Duration;

use groupshot::cim::schema::VIRTUALIZATION_V2;
use groupshot::cim::{Instance, Path, Value};
use groupshot::engine::EngineErrorKind;
use groupshot::engine::sim::{Fault, Step, Trouble};
use groupshot::inventory::RunState;
use groupshot::provider::{Outcome, Status};
use groupshot::store::{Change, Store};

use super::world::{
    HOST, SNAPSHOTS, VM_SNAPSHOTS, World, job_id, machine, machine_id, number, output, reference,
    returned, text,
};

/// Settings text with these properties, in the DTD of `CimSerializer`.
fn settings(properties: &[(&str, &str)]) -> String {
    let mut out = String::from(r#"<INSTANCE CLASSNAME="Msvm_VirtualSystemSnapshotSettingData">"#);
    for (name, value) in properties {
        let ty = match *name {
            "ElementName" => "string",
            "IgnoreNonSnapshottableDisks" => "boolean",
            _ => "uint8",
        };
        out += &format!(r#"<PROPERTY NAME="{name}" TYPE="{ty}"><VALUE>{value}</VALUE></PROPERTY>"#);
    }
    out + "</INSTANCE>"
}

async fn one_machine() -> (World, Path) {
    let world = World::new(1).await;
    let group = world.group("web", &[1]).await;
    (world, group)
}

#[tokio::test]
async fn an_accepted_call_answers_4096_the_job_and_the_reference() {
    let (world, group) = one_machine().await;
    let outcome = world.create(&group, 1, "").await;
    assert_eq!(returned(&outcome), 4096, "{}", world.reason(&outcome));
    assert!(outcome.changed);
    let set = reference(&outcome, "ResultingSnapshotCollection");
    assert_eq!(set.class, "Msvm_SnapshotCollection");
    let job = world.ended(&outcome).await;
    assert_eq!(job.state.number(), 7, "{:?}", job.error);
    let made = world.get(&set).unwrap();
    assert_eq!(made.path().unwrap(), set);
    assert_eq!(world.all("Msvm_CollectedSnapshots").len(), 1);
}

#[tokio::test]
async fn a_call_that_ends_within_the_inline_time_answers_0_without_job() {
    let world = World::waiting(1, Duration::from_secs(20)).await;
    let group = world.group("web", &[1]).await;
    let outcome = world.create(&group, 2, "").await;
    assert_eq!(returned(&outcome), 0);
    assert_eq!(output(&outcome, "Job"), None);
    let set = reference(&outcome, "ResultingSnapshotCollection");
    world.get(&set).unwrap();
}

#[tokio::test]
async fn a_type_that_nothing_offers_is_6() {
    let (world, group) = one_machine().await;
    for kind in [0, 3, 32767, 32768, 65535] {
        let outcome = world.create(&group, kind, "").await;
        assert_eq!(returned(&outcome), 6, "type {kind}");
        assert!(world.reason(&outcome).contains(&kind.to_string()));
        assert_eq!(output(&outcome, "ResultingSnapshotCollection"), None);
    }
}

#[tokio::test]
async fn null_collection_or_type_is_4() {
    let (world, group) = one_machine().await;
    let collection = ("Collection", Value::from(group));
    let kind = ("SnapshotType", Value::from(1_u16));
    for (arguments, named) in [
        (vec![], "Collection"),
        (vec![kind], "Collection"),
        (vec![collection], "SnapshotType"),
    ] {
        let outcome = world.call(SNAPSHOTS, "CreateSnapshot", &arguments).await;
        assert_eq!(returned(&outcome), 4);
        let reason = world.reason(&outcome);
        assert!(reason.contains(named), "{reason}");
    }
}

#[tokio::test]
async fn a_collection_may_be_named_by_superclass_host_and_namespace() {
    let (world, group) = one_machine().await;
    let mut forms = vec![group.clone().on(HOST), group.clone().on("testhost")];
    let mut bare = group.clone();
    bare.namespace = None;
    forms.push(bare);
    let mut above = group.clone();
    above.class = "CIM_CollectionOfMSEs".into();
    forms.push(above);
    let mut other_case = group;
    other_case.class = "msvm_virtualsystemcollection".into();
    other_case.namespace = Some("ROOT/Virtualization/V2".to_owned());
    forms.push(other_case);
    for form in forms {
        let outcome = world.create(&form, 1, "").await;
        assert_eq!(
            returned(&outcome),
            4096,
            "{form}: {}",
            world.reason(&outcome)
        );
        world.ended(&outcome).await;
    }
}

#[tokio::test]
async fn a_reference_to_the_wrong_thing_is_4() {
    let (world, group) = one_machine().await;
    let set = world.snapshot(&group, 1).await;
    let unknown = Path::new(VIRTUALIZATION_V2, "Msvm_VirtualSystemCollection")
        .key("CollectionID", "00000000-0000-0000-0000-000000000000");
    let elsewhere = group.clone().on("OTHERHOST");
    let mut other_namespace = group.clone();
    other_namespace.namespace = Some("root/cimv2".to_owned());
    let mut too_general = group.clone();
    too_general.class = "CIM_Collection".into();
    let mut other_kind = group.clone();
    other_kind.class = "Msvm_ManagementCollection".into();
    let mut no_keys = group;
    no_keys.keys.clear();
    for wrong in [
        set,
        machine(1),
        unknown,
        elsewhere,
        other_namespace,
        too_general,
        other_kind,
        no_keys,
    ] {
        let outcome = world.create(&wrong, 1, "").await;
        assert_eq!(returned(&outcome), 4, "{wrong}");
        assert!(world.reason(&outcome).contains("Collection"));
    }
}

#[tokio::test]
async fn settings_give_level_and_name() {
    let (world, group) = one_machine().await;
    let consistency = |level: &str| format!("consistency: {level}");
    for (kind, text_of_settings, expected) in [
        (1, String::new(), "crash"),
        (2, String::new(), "application"),
        (1, settings(&[("ConsistencyLevel", "0")]), "crash"),
        (1, settings(&[("ConsistencyLevel", "1")]), "application"),
        (2, settings(&[("ConsistencyLevel", "2")]), "crash"),
        (2, settings(&[("GuestBackupType", "2")]), "application"),
        (1, settings(&[("ElementName", "before")]), "crash"),
    ] {
        let before: Vec<_> = world.all("Msvm_VirtualSystemSettingData");
        let outcome = world.create(&group, kind, &text_of_settings).await;
        assert_eq!(returned(&outcome), 4096, "{}", world.reason(&outcome));
        let job = world.ended(&outcome).await;
        assert_eq!(job.state.number(), 7, "{:?}", job.error);
        let all = world.all("Msvm_VirtualSystemSettingData");
        let new = all.iter().find(|i| {
            let id = text(i, "InstanceID");
            before.iter().all(|b| text(b, "InstanceID") != id)
        });
        let new = new.unwrap();
        let notes = new.get("Notes").unwrap().as_array().unwrap();
        // an off machine is consistent whatever was asked; it never says less than was asked
        let note = notes[0].as_str().unwrap();
        assert!(
            note == consistency(expected) || note == consistency("application"),
            "{text_of_settings}: {note}"
        );
        let set = world
            .get(&reference(&outcome, "ResultingSnapshotCollection"))
            .unwrap();
        if text_of_settings.contains("before") {
            assert_eq!(text(&set, "ElementName"), "before");
            assert_eq!(text(new, "ElementName"), "before");
        } else {
            assert!(text(&set, "ElementName").starts_with("web - ("));
        }
    }
}

#[tokio::test]
async fn a_name_of_a_set_that_is_too_long_is_4_and_told_with_its_limit() {
    let (world, group) = one_machine().await;
    let named = |count| settings(&[("ElementName", &"a".repeat(count))]);
    let outcome = world.create(&group, 1, &named(256)).await;
    assert_eq!(returned(&outcome), 4096, "{}", world.reason(&outcome));
    world.ended(&outcome).await;
    let outcome = world.create(&group, 1, &named(257)).await;
    assert_eq!(returned(&outcome), 4);
    let reason = world.reason(&outcome);
    assert!(reason.contains("SnapshotSettings: ElementName"), "{reason}");
    assert!(reason.contains("at most 256 characters"), "{reason}");
}

#[tokio::test]
async fn settings_that_cannot_be_read_are_told_under_the_name_of_their_parameter() {
    let (world, group) = one_machine().await;
    let set = world.snapshot(&group, 1).await;
    for wrong in ["<INSTANCE", &settings(&[("ConsistencyLevel", "1")])] {
        let arguments = [
            ("SnapshotCollection", set.clone().into()),
            ("ExportDirectory", "/".into()),
            ("ExportSettingData", wrong.into()),
        ];
        let outcome = world.call(SNAPSHOTS, "ExportSnapshot", &arguments).await;
        assert_eq!(returned(&outcome), 32773);
        let reason = world.reason(&outcome);
        assert!(
            reason.starts_with("parameter ExportSettingData"),
            "{reason}"
        );
    }
    let outcome = world.create(&group, 1, "<INSTANCE").await;
    let reason = world.reason(&outcome);
    assert!(reason.starts_with("parameter SnapshotSettings"), "{reason}");
}

#[tokio::test]
async fn settings_are_read_in_the_dialects_that_clients_write() {
    let (world, group) = one_machine().await;
    let wmi = r#"<INSTANCE CLASSNAME="Msvm_VirtualSystemSnapshotSettingData">
        <QUALIFIER NAME="dynamic" TYPE="boolean"><VALUE>TRUE</VALUE></QUALIFIER>
        <PROPERTY NAME="__PATH" CLASSORIGIN="___SYSTEM" TYPE="string"/>
        <PROPERTY NAME="Caption" CLASSORIGIN="CIM_ManagedElement" PROPAGATED="true" TYPE="string"><VALUE>x</VALUE></PROPERTY>
        <PROPERTY NAME="ConsistencyLevel" TYPE="sint32" MODIFIED="TRUE"><VALUE>2</VALUE></PROPERTY>
        <PROPERTY NAME="GuestBackupType" TYPE="uint8"></PROPERTY>
        <PROPERTY NAME="IgnoreNonSnapshottableDisks" TYPE="boolean"><VALUE>TRUE</VALUE></PROPERTY>
      </INSTANCE>"#;
    let with_mark = format!("\u{feff}{wmi}");
    for form in [wmi, &with_mark] {
        let outcome = world.create(&group, 2, form).await;
        assert_eq!(returned(&outcome), 4096, "{}", world.reason(&outcome));
        world.ended(&outcome).await;
    }
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_4() {
    let (world, group) = one_machine().await;
    for (bad, named) in [
        (settings(&[("ConsistencyLevel", "3")]), "ConsistencyLevel"),
        (settings(&[("GuestBackupType", "3")]), "GuestBackupType"),
        (
            settings(&[("ConsistencyLevel", "high")]),
            "ConsistencyLevel",
        ),
        (settings(&[("Colour", "1")]), "Colour"),
        ("<INSTANCE CLASSNAME=\"Msvm_VirtualSystem".to_owned(), ""),
        ("ConsistencyLevel = 1".to_owned(), ""),
        (
            r#"<INSTANCE CLASSNAME="Msvm_CollectionSnapshotExportSettingData"/>"#.to_owned(),
            "Msvm_CollectionSnapshotExportSettingData",
        ),
        (
            r#"<INSTANCE CLASSNAME="Win32_Process"/>"#.to_owned(),
            "Win32_Process",
        ),
    ] {
        let outcome = world.create(&group, 1, &bad).await;
        assert_eq!(returned(&outcome), 4, "{bad}");
        let reason = world.reason(&outcome);
        assert!(reason.contains(named), "{bad}: {reason}");
    }
    assert!(world.all("Msvm_SnapshotCollection").is_empty());
}

#[tokio::test]
async fn empty_settings_are_the_defaults() {
    let (world, group) = one_machine().await;
    for empty in ["", " \r\n", &settings(&[])] {
        let outcome = world.create(&group, 1, empty).await;
        assert_eq!(returned(&outcome), 4096);
        world.ended(&outcome).await;
    }
}

#[tokio::test]
async fn an_empty_collection_is_5() {
    let world = World::new(1).await;
    let group = world.group("nobody", &[]).await;
    let above = world.group_of_groups("above", &[&group]).await;
    for empty in [group, above] {
        let outcome = world.create(&empty, 1, "").await;
        assert_eq!(returned(&outcome), 5);
    }
}

#[tokio::test]
async fn a_member_in_the_wrong_state_is_5_and_named() {
    let world = World::new(2).await;
    let group = world.group("web", &[1, 2]).await;
    for state in [RunState::Paused, RunState::Held] {
        world.sim.set_state(machine_id(2), state);
        let outcome = world.create(&group, 2, "").await;
        assert_eq!(returned(&outcome), 5, "{state:?}");
        assert_names_machine_2(&world, &outcome);
    }
}

fn assert_names_machine_2(world: &World, outcome: &Outcome) {
    let reason = world.reason(outcome);
    let machine = world.get(&machine(2)).unwrap();
    assert!(reason.contains(text(&machine, "ElementName")), "{reason}");
}

#[tokio::test]
async fn a_member_that_another_operation_holds_is_5_at_once_and_named() {
    let world = World::new(2).await;
    let first = world.group("first", &[1, 2]).await;
    let second = world.group("second", &[2]).await;
    let running = world.hanging(&first).await;
    let outcome = world.create(&second, 1, "").await;
    assert_eq!(returned(&outcome), 5);
    assert_names_machine_2(&world, &outcome);
    world.sim.release();
    world.ended(&running).await;
}

#[tokio::test]
async fn a_disk_that_cannot_be_captured_is_5_and_so_is_a_member_without_any_other() {
    let (world, group) = one_machine().await;
    let active = world.all("Msvm_StorageAllocationSettingData");
    let disk = text(&active[0], "ElementName").to_owned();
    let unfit = || Fault {
        machine: machine_id(1),
        disk: Some(disk.clone()),
        step: Step::Plan,
        trouble: Trouble::Lie,
        times: 1,
    };
    for settings_text in [
        String::new(),
        settings(&[("IgnoreNonSnapshottableDisks", "FALSE")]),
    ] {
        world.sim.order(unfit());
        let outcome = world.create(&group, 1, &settings_text).await;
        assert_eq!(returned(&outcome), 5);
        assert!(world.reason(&outcome).contains(&disk));
    }
    world.sim.order(unfit());
    let ignoring = settings(&[("IgnoreNonSnapshottableDisks", "TRUE")]);
    let outcome = world.create(&group, 1, &ignoring).await;
    assert_eq!(returned(&outcome), 5);
    let reason = world.reason(&outcome);
    assert!(reason.contains("machine sim-000001"), "{reason}");
    assert!(reason.contains("no disk that can be captured"), "{reason}");
    assert_eq!(output(&outcome, "ResultingSnapshotCollection"), None);
}

#[tokio::test]
async fn disks_that_are_left_out_are_told_by_the_set_its_members_and_the_apply() {
    let (world, group) = one_machine().await;
    let path = world.snapshot(&group, 1).await;
    let whole = text(&world.get(&path).unwrap(), "Description").to_owned();
    assert!(!whole.contains("left out"), "{whole}");
    let mut set = {
        let state = world.store.state();
        state.sets.values().next().unwrap().as_ref().clone()
    };
    set.members[0].left_out = vec!["disk1".to_owned(), "disk2".to_owned()];
    let change = Change::PutSet(set);
    let written = world.store.transact(Box::new(|_| vec![change]));
    written.await.unwrap();
    let told = "; disks left out: 2 (sim-000001 disk1, sim-000001 disk2)";
    let partial = world.get(&path).unwrap();
    assert_eq!(text(&partial, "Description"), whole + told);
    let settings = world.all("Msvm_VirtualSystemSettingData");
    let kept = settings
        .iter()
        .find(|i| text(i, "VirtualSystemType").contains("Snapshot"));
    let notes = kept.unwrap().get("Notes").unwrap().as_array().unwrap();
    assert!(notes.contains(&"not captured: disk1".into()), "{notes:?}");
    let arguments = [("SnapshotCollection", path.into())];
    let outcome = world.call(SNAPSHOTS, "ApplySnapshot", &arguments).await;
    world.ended(&outcome).await;
    let job = world.get(&reference(&outcome, "Job")).unwrap();
    let status = text(&job, "JobStatus");
    assert!(
        status.contains("is applied") && status.ends_with(told),
        "{status}"
    );
}

#[tokio::test]
async fn a_group_of_groups_takes_each_machine_once() {
    let world = World::new(3).await;
    let one = world.group("one", &[1, 2]).await;
    let two = world.group("two", &[2, 3]).await;
    let above = world.group_of_groups("all", &[&one, &two]).await;
    let set = world.snapshot(&above, 1).await;
    assert_eq!(world.all("Msvm_CollectedSnapshots").len(), 3);
    let links = world.all("Msvm_SnapshotOfVirtualSystemCollection");
    assert_eq!(links.len(), 1);
    assert_eq!(
        links[0].get("Antecedent").unwrap().as_reference(),
        Some(&above)
    );
    assert_eq!(
        links[0].get("Dependent").unwrap().as_reference(),
        Some(&set)
    );
}

#[tokio::test]
async fn a_refusal_carries_a_job_that_tells_why() {
    let (world, group) = one_machine().await;
    let outcome = world.create(&group, 0, "").await;
    assert!(!outcome.changed);
    let job = world.get(&reference(&outcome, "Job")).unwrap();
    assert_eq!(number(&job, "JobState"), 10);
    assert_eq!(number(&job, "ErrorCode"), 6);
    assert_eq!(number(&job, "JobType"), 198);
    assert!(!text(&job, "ErrorSummaryDescription").is_empty());
}

#[tokio::test]
async fn a_set_that_is_not_there_yet_is_not_found_and_its_job_is_named() {
    let (world, group) = one_machine().await;
    world.sim.order(Fault {
        machine: machine_id(1),
        disk: None,
        step: Step::Cut,
        trouble: Trouble::Fail(EngineErrorKind::Failed),
        times: 1,
    });
    let outcome = world.create(&group, 1, "").await;
    assert_eq!(returned(&outcome), 4096);
    let job = world.ended(&outcome).await;
    assert_eq!(job.state.number(), 10);
    let error = world
        .get(&reference(&outcome, "ResultingSnapshotCollection"))
        .unwrap_err();
    assert_eq!(error.status, Status::NotFound);
    let named = job_id(&outcome).to_string();
    assert!(error.text.english().contains(&named), "{error}");
    assert!(world.all("Msvm_SnapshotCollection").is_empty());
    assert!(world.all("Msvm_SnapshotOfVirtualSystem").is_empty());
}

#[tokio::test]
async fn what_is_not_backed_says_so() {
    let (world, group) = one_machine().await;
    let standard = world.snapshot(&group, 1).await;
    let recovery = world.snapshot(&group, 2).await;
    let applied = [("SnapshotCollection", Value::from(standard.clone()))];
    let applied = world.call(SNAPSHOTS, "ApplySnapshot", &applied).await;
    assert_eq!(returned(&applied), 4096);
    world.ended(&applied).await;
    let standard = Value::from(standard);
    let convert = "AffectedSnapshotCollection";
    for (method, parameter, value, code) in [
        ("ApplySnapshot", "SnapshotCollection", Value::Null, 4),
        (
            "ApplySnapshot",
            "SnapshotCollection",
            group.clone().into(),
            4,
        ),
        ("ConvertToReferencePoint", convert, standard, 6),
        ("ConvertToReferencePoint", convert, recovery.into(), 1),
        ("ConvertToReferencePoint", convert, group.into(), 4),
        ("ConvertToReferencePoint", convert, Value::Null, 4),
    ] {
        let outcome = world.call(SNAPSHOTS, method, &[(parameter, value)]).await;
        assert_eq!(returned(&outcome), code, "{method}");
        assert!(!world.reason(&outcome).is_empty());
    }
    for service in [SNAPSHOTS, VM_SNAPSHOTS, super::world::MANAGEMENT] {
        for method in ["RequestStateChange", "StartService", "StopService"] {
            let outcome = world.call(service, method, &[]).await;
            assert_eq!(returned(&outcome), 1, "{method}");
        }
    }
}

#[tokio::test]
async fn one_snapshot_is_applied_alone_and_its_job_is_of_its_own_service() {
    let world = World::new(2).await;
    let group = world.group("two", &[1, 2]).await;
    let set = world.snapshot(&group, 1).await;
    let settings = world.all("Msvm_VirtualSystemSettingData");
    let of_first = |s: &&Instance| {
        text(s, "VirtualSystemIdentifier") == machine_id(1).to_string()
            && text(s, "VirtualSystemType").contains(":Snapshot:")
    };
    let snapshot = settings.iter().find(of_first).unwrap();
    let key = text(snapshot, "InstanceID");
    let path = |key: &str| {
        Path::new(VIRTUALIZATION_V2, "Msvm_VirtualSystemSettingData").key("InstanceID", key)
    };
    let argument = [("Snapshot", Value::from(path(key)))];
    let outcome = world.call(VM_SNAPSHOTS, "ApplySnapshot", &argument).await;
    assert_eq!(returned(&outcome), 4096);
    assert_eq!(world.ended(&outcome).await.state.number(), 7);
    let applied = world.all("Msvm_LastAppliedSnapshot");
    assert_eq!(applied.len(), 1, "{applied:?}");
    let owners = world.all("Msvm_OwningJobElement");
    let owned = owners.iter().filter(|o| {
        let owner = o.get("OwningElement").unwrap().as_reference().unwrap();
        owner.class == *VM_SNAPSHOTS
    });
    assert_eq!(owned.count(), 1);
    let active = format!("Microsoft:{}", machine_id(1));
    for wrong in [
        Value::Null,
        path(&active).into(),
        path("Microsoft:none").into(),
        set.into(),
    ] {
        let outcome = world
            .call(VM_SNAPSHOTS, "ApplySnapshot", &[("Snapshot", wrong)])
            .await;
        assert_eq!(returned(&outcome), 4);
        assert!(!world.reason(&outcome).is_empty());
    }
    for (method, code) in [
        ("CreateSnapshot", 1),
        ("ConvertToReferencePoint", 1),
        ("DestroySnapshotTree", 32770),
        ("ClearSnapshotState", 32770),
    ] {
        let outcome = world.call(VM_SNAPSHOTS, method, &[]).await;
        assert_eq!(returned(&outcome), code, "{method}");
    }
}
