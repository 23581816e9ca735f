//! Every class: what it lists is found again, and holds the values that clients compare.

use groupshot::cim::schema::VIRTUALIZATION_V2;
use groupshot::cim::{Path, Value};
use groupshot::inventory::RunState;
use groupshot::provider::{Depth, Status};

use super::world::{HOST, MANAGEMENT, SNAPSHOTS, World, machine, machine_id, number, text};

#[tokio::test]
async fn what_a_class_lists_is_found_by_its_own_path() {
    let world = World::new(2).await;
    let group = world.group("web", &[1, 2]).await;
    world.group_of_groups("all", &[&group]).await;
    world.snapshot(&group, 1).await;
    for class in [
        "Msvm_ComputerSystem",
        "Msvm_VirtualSystemSettingData",
        "Msvm_StorageAllocationSettingData",
        "Msvm_VirtualSystemCollection",
        "Msvm_ManagementCollection",
        "Msvm_SnapshotCollection",
        "Msvm_ConcreteJob",
        SNAPSHOTS,
        MANAGEMENT,
    ] {
        let instances = world.all(class);
        assert!(!instances.is_empty(), "{class} is empty");
        let counted = world
            .registry
            .count(&world.ctx(), world.class(class), Depth::Deep);
        assert!(
            counted.is_none_or(|n| n == instances.len() as u64),
            "{class}"
        );
        for instance in instances {
            let path = instance.path().unwrap();
            assert_eq!(world.get(&path).unwrap(), instance);
            let lower = lower_case(&path);
            assert_eq!(world.get(&lower).unwrap(), instance, "{lower}");
        }
    }
}

/// The path with every GUID and name in lower case: strings in keys compare without case.
fn lower_case(path: &Path) -> Path {
    let mut path = path.clone();
    for (_, value) in &mut path.keys {
        *value = value.as_str().unwrap().to_lowercase().into();
    }
    path
}

#[tokio::test]
async fn e_30_a_superclass_lists_the_instances_of_its_leaves() {
    let world = World::new(2).await;
    let systems = world.all("CIM_System");
    assert_eq!(systems.len(), 3);
    let class = world.class("CIM_System");
    let exact = world
        .registry
        .enumerate(&world.ctx(), class, Depth::Exact)
        .unwrap();
    assert_eq!(exact.count(), 0);
    assert_eq!(world.all("CIM_Service").len(), 3);
}

#[tokio::test]
async fn x_1_a_superclass_path_finds_the_leaf() {
    let world = World::new(1).await;
    let mut path = machine(1);
    for class in ["CIM_ComputerSystem", "CIM_System", "cim_managedelement"] {
        path.class = class.into();
        let found = world.get(&path).unwrap();
        assert_eq!(found.class().name, "Msvm_ComputerSystem");
    }
    path.class = "CIM_Service".into();
    assert_eq!(
        world.get(&path).unwrap_err().status,
        Status::InvalidParameter
    );
}

#[tokio::test]
async fn x_2_without_keys_the_only_instance_is_meant() {
    let world = World::new(1).await;
    let service = world.get(&Path::new(VIRTUALIZATION_V2, SNAPSHOTS)).unwrap();
    assert_eq!(service.get("Started"), Some(&Value::Boolean(true)));
    assert_eq!(number(&service, "EnabledState"), 2);
    assert_eq!(text(&service, "SystemName"), HOST);
    // Not even where there is only one at the moment.
    world.group("alone", &[1]).await;
    for class in [
        "Msvm_ComputerSystem",
        "Msvm_VirtualSystemCollection",
        "CIM_Service",
    ] {
        let which = world.get(&Path::new(VIRTUALIZATION_V2, class));
        assert_eq!(
            which.unwrap_err().status,
            Status::InvalidParameter,
            "{class}"
        );
    }
}

fn some(class: &str, key: &str, value: impl Into<Value>) -> Path {
    Path {
        partial: true,
        ..Path::new(VIRTUALIZATION_V2, class).key(key, value)
    }
}

#[tokio::test]
async fn x_3_keys_that_fit_one_instance_name_it() {
    let world = World::new(3).await;
    let group = world.group("web", &[1]).await;
    let id = machine_id(2).to_string();
    for class in ["Msvm_ComputerSystem", "CIM_ComputerSystem", "CIM_System"] {
        let found = world.get(&some(class, "Name", id.to_lowercase())).unwrap();
        assert_eq!(text(&found, "Name"), id);
        let host = world
            .get(&some(class, "Name", HOST.to_lowercase()))
            .unwrap();
        assert_eq!(text(&host, "Caption"), "Hosting Computer System");
    }
    for (service, name) in [
        (SNAPSHOTS, "vssCollectionSnapshot"),
        (MANAGEMENT, "collectionManagement"),
        ("Msvm_VirtualSystemSnapshotService", "vssnapsvc"),
    ] {
        for (key, value) in [
            ("CreationClassName", service),
            ("Name", name),
            ("SystemName", HOST),
            ("SystemCreationClassName", "Msvm_ComputerSystem"),
        ] {
            let found = world.get(&some(service, key, value)).unwrap();
            assert_eq!(text(&found, "CreationClassName"), service);
        }
        let by_class = world.get(&some("CIM_Service", "CreationClassName", service));
        assert_eq!(text(&by_class.unwrap(), "Name"), name);
    }
    let membership =
        |key: &str, to: Path| world.get(&some("Msvm_CollectedVirtualSystems", key, to));
    for to in [
        machine(1),
        some("Msvm_ComputerSystem", "Name", machine_id(1).to_string()),
    ] {
        let link = membership("Member", to).unwrap();
        assert_eq!(link.get("Collection"), Some(&group.clone().into()));
    }
    let status = |path: &Path| world.get(path).unwrap_err().status;
    let several = some(
        "Msvm_ComputerSystem",
        "CreationClassName",
        "Msvm_ComputerSystem",
    );
    assert_eq!(status(&several), Status::InvalidParameter);
    let several = some("CIM_Service", "SystemName", HOST);
    assert_eq!(status(&several), Status::InvalidParameter);
    for none in [
        some(
            "Msvm_ComputerSystem",
            "Name",
            "5EED51B0-0000-4000-8000-0000000000FF",
        ),
        some("Msvm_ComputerSystem", "Name", format!("{{{id}}}")),
        some("Msvm_ComputerSystem", "Name", ""),
        some(
            "Msvm_ComputerSystem",
            "CreationClassName",
            "CIM_ComputerSystem",
        ),
        some(SNAPSHOTS, "Name", "other"),
    ] {
        assert_eq!(status(&none), Status::NotFound, "{none}");
    }
    assert_eq!(
        membership("Member", machine(2)).unwrap_err().status,
        Status::NotFound
    );
    world.group("db", &[1]).await;
    let several = membership("Member", machine(1)).unwrap_err();
    assert_eq!(several.status, Status::InvalidParameter);
}

#[tokio::test]
async fn embedded_only_classes_list_nothing_and_find_nothing() {
    let world = World::new(1).await;
    for (class, key) in [
        ("Msvm_VirtualSystemSnapshotSettingData", "InstanceID"),
        ("Msvm_CollectionSnapshotExportSettingData", "InstanceID"),
        ("Msvm_Error", "x"),
    ] {
        assert!(world.all(class).is_empty());
        let path = Path::new(VIRTUALIZATION_V2, class).key(key, "1");
        assert_eq!(world.get(&path).unwrap_err().status, Status::NotFound);
    }
}

/// A class, how many of its instances have the first value, and what these have besides.
type Row<'a> = (&'a str, usize, &'a [(&'a str, &'a str)]);

/// What clients filter by, and what they look for in what they have found, is as Hyper-V has it.
#[tokio::test]
async fn i_19_constant_texts_are_those_that_clients_compare() {
    let world = World::new(1).await;
    let group = world.group("web", &[1]).await;
    world.snapshot(&group, 1).await;
    world.snapshot(&group, 2).await;
    let settings = "Msvm_VirtualSystemSettingData";
    let kind = |name: &str| format!("Microsoft:Hyper-V:{name}");
    let (active, standard) = (kind("System:Realized"), kind("Snapshot:Realized"));
    let (recovery, hard_disk) = (kind("Snapshot:Recovery"), kind("Virtual Hard Disk"));
    let title = "Hyper-V Virtual System Snapshot Service";
    let about = "Service for creating, destroying, and applying virtual machine snapshots";
    let kept = "Snapshot settings for the virtual machine";
    let id = machine_id(1).to_string();
    let table: &[Row<'_>] = &[
        (
            "Msvm_ComputerSystem",
            1,
            &[
                ("Description", "Microsoft Virtual Machine"),
                ("Caption", "Virtual Machine"),
                ("CreationClassName", "Msvm_ComputerSystem"),
                ("Name", &id),
            ],
        ),
        (
            "Msvm_ComputerSystem",
            1,
            &[
                ("Description", "Microsoft Hosting Computer System"),
                ("Caption", "Hosting Computer System"),
                ("CreationClassName", "Msvm_ComputerSystem"),
                ("Name", HOST),
                ("ElementName", HOST),
            ],
        ),
        (
            settings,
            1,
            &[
                ("VirtualSystemType", &active),
                ("Caption", "Virtual Machine Settings"),
                ("Description", "Active settings for the virtual machine"),
                ("VirtualSystemIdentifier", &id),
                ("InstanceID", &format!("Microsoft:{id}")),
            ],
        ),
        (
            settings,
            1,
            &[
                ("VirtualSystemType", &standard),
                ("Caption", "Virtual Machine Settings"),
                ("Description", kept),
                ("VirtualSystemIdentifier", &id),
            ],
        ),
        (
            settings,
            1,
            &[("VirtualSystemType", &recovery), ("Description", kept)],
        ),
        (
            "Msvm_StorageAllocationSettingData",
            3,
            &[
                ("ResourceSubType", &hard_disk),
                ("Caption", "Hard Disk Image"),
                ("VirtualQuantityUnits", "byte"),
            ],
        ),
        (
            "Msvm_VirtualSystemSnapshotService",
            1,
            &[
                ("Name", "vssnapsvc"),
                ("Caption", title),
                ("ElementName", title),
                ("Description", about),
                ("SystemCreationClassName", "Msvm_ComputerSystem"),
                ("SystemName", HOST),
            ],
        ),
        (
            SNAPSHOTS,
            1,
            &[
                ("Name", "vssCollectionSnapshot"),
                ("SystemCreationClassName", "Msvm_ComputerSystem"),
            ],
        ),
        (
            MANAGEMENT,
            1,
            &[
                ("Name", "collectionManagement"),
                ("SystemCreationClassName", "Msvm_ComputerSystem"),
            ],
        ),
    ];
    for (class, count, texts) in table {
        let (first, value) = texts[0];
        let all = world.all(class);
        let found = || all.iter().filter(|i| text(i, first) == value);
        assert_eq!(found().count(), *count, "{class}.{first} {value:?}");
        for instance in found() {
            for (property, value) in *texts {
                assert_eq!(text(instance, property), *value, "{class}.{property}");
            }
        }
    }
    for class in ["Msvm_ComputerSystem", "CIM_Service"] {
        for instance in world.all(class) {
            let statuses = instance.get("StatusDescriptions");
            // An operation that has just ended may still be told of behind it.
            let Some(Value::Array(statuses)) = statuses else {
                panic!("{class}: {statuses:?}");
            };
            assert_eq!(statuses[0].as_str(), Some("Operating normally"), "{class}");
        }
    }
}

#[tokio::test]
async fn host_and_machines_carry_the_captions_that_clients_filter_by() {
    let world = World::new(2).await;
    world.sim.set_state(machine_id(1), RunState::Held);
    world.sim.set_state(machine_id(2), RunState::Paused);
    let host = &world.all("Msvm_ComputerSystem")[0];
    assert_eq!(text(host, "Name"), HOST);
    assert_eq!(text(host, "Caption"), "Hosting Computer System");
    assert_eq!(
        text(host, "Description"),
        "Microsoft Hosting Computer System"
    );
    for (n, state) in [(1, 2), (2, 9)] {
        let machine = world.get(&machine(n)).unwrap();
        assert_eq!(text(&machine, "Name"), machine_id(n).to_string());
        assert_eq!(text(&machine, "Caption"), "Virtual Machine");
        assert_eq!(text(&machine, "Description"), "Microsoft Virtual Machine");
        assert_eq!(number(&machine, "EnabledState"), state);
        assert_eq!(number(&machine, "HealthState"), 5);
        let statuses = machine.get("OperationalStatus").unwrap();
        assert_eq!(statuses, &Value::from(vec![2_u16]));
    }
    world.sim.set_state(machine_id(1), RunState::Off);
    assert_eq!(number(&world.get(&machine(1)).unwrap(), "EnabledState"), 3);
}

#[tokio::test]
async fn settings_of_machine_and_snapshot_have_the_forms_of_hyper_v() {
    let world = World::new(1).await;
    let group = world.group("web", &[1]).await;
    let of = |kind: &str| {
        let found = world.all("Msvm_VirtualSystemSettingData");
        let mut found = found
            .into_iter()
            .filter(|i| text(i, "VirtualSystemType") == kind);
        found.next().unwrap()
    };
    let active = of("Microsoft:Hyper-V:System:Realized");
    let id = machine_id(1).to_string();
    assert_eq!(text(&active, "InstanceID"), format!("Microsoft:{id}"));
    assert_eq!(active.get("Parent"), Some(&Value::Null));
    world.snapshot(&group, 1).await;
    let standard = of("Microsoft:Hyper-V:Snapshot:Realized");
    world.snapshot(&group, 2).await;
    let recovery = of("Microsoft:Hyper-V:Snapshot:Recovery");
    for snapshot in [&standard, &recovery] {
        assert_eq!(text(snapshot, "VirtualSystemIdentifier"), id);
        let configuration = text(snapshot, "ConfigurationID");
        assert_ne!(configuration, id);
        assert_eq!(
            text(snapshot, "InstanceID"),
            format!("Microsoft:{configuration}")
        );
        assert!(matches!(
            snapshot.get("CreationTime"),
            Some(Value::DateTime(_))
        ));
        let file = std::path::Path::new(text(snapshot, "ConfigurationDataRoot"))
            .join(text(snapshot, "ConfigurationFile"));
        assert!(file.is_file(), "{}", file.display());
    }
    let parent = |of: &groupshot::cim::Instance| {
        format!(
            r#"\\{HOST}\root\virtualization\v2:Msvm_VirtualSystemSettingData.InstanceID="{}""#,
            text(of, "InstanceID")
        )
    };
    assert_eq!(text(&recovery, "Parent"), parent(&standard));
    let active = of("Microsoft:Hyper-V:System:Realized");
    assert_eq!(text(&active, "Parent"), parent(&recovery));
}

#[tokio::test]
async fn each_disk_names_its_file() {
    let world = World::new(1).await;
    let group = world.group("web", &[1]).await;
    world.snapshot(&group, 1).await;
    let disks = world.all("Msvm_StorageAllocationSettingData");
    assert!(disks.len() >= 2);
    for disk in disks {
        assert_eq!(number(&disk, "ResourceType"), 31);
        assert_eq!(
            text(&disk, "ResourceSubType"),
            "Microsoft:Hyper-V:Virtual Hard Disk"
        );
        let resources = disk.get("HostResource").unwrap().as_array().unwrap();
        assert_eq!(resources.len(), 1);
        assert!(resources[0].as_str().unwrap().starts_with('/'));
        let id = text(&disk, "InstanceID");
        assert!(
            id.starts_with("Microsoft:") && id.ends_with(r"\0\D"),
            "{id}"
        );
    }
}

#[tokio::test]
async fn a_hundred_thousand_machines_are_listed_one_by_one() {
    let world = World::new(100_000).await;
    let class = world.class("Msvm_ComputerSystem");
    let ctx = world.ctx();
    let count = world.registry.count(&ctx, class, Depth::Deep);
    assert_eq!(count, Some(100_001));
    let instances = world.registry.enumerate(&ctx, class, Depth::Deep).unwrap();
    assert_eq!(instances.take(10).count(), 10);
    let links = world.class("Msvm_SettingsDefineState");
    let links = world.registry.enumerate(&ctx, links, Depth::Deep).unwrap();
    assert_eq!(links.take(10).count(), 10);
}
