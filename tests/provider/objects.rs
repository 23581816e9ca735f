//! Every class: what it lists is found again, and holds the values that clients compare.

use groupshot::cim::schema::VIRTUALIZATION_V2;
use groupshot::cim::{Path, Value};
use groupshot::inventory::PowerState;
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
    let several = world.get(&Path::new(VIRTUALIZATION_V2, "Msvm_ComputerSystem"));
    assert_eq!(several.unwrap_err().status, Status::InvalidParameter);
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

#[tokio::test]
async fn host_and_machines_carry_the_captions_that_clients_filter_by() {
    let world = World::new(2).await;
    world.sim.set_state(machine_id(1), PowerState::Running);
    world.sim.set_state(machine_id(2), PowerState::Paused);
    let host = &world.all("Msvm_ComputerSystem")[0];
    assert_eq!(text(host, "Name"), HOST);
    assert_eq!(text(host, "Caption"), "Hosting Computer System");
    for (n, state) in [(1, 2), (2, 9)] {
        let machine = world.get(&machine(n)).unwrap();
        assert_eq!(text(&machine, "Name"), machine_id(n).to_string());
        assert_eq!(text(&machine, "Caption"), "Virtual Machine");
        assert_eq!(number(&machine, "EnabledState"), state);
        assert_eq!(number(&machine, "HealthState"), 5);
        let statuses = machine.get("OperationalStatus").unwrap();
        assert_eq!(statuses, &Value::from(vec![2_u16]));
    }
    world.sim.set_state(machine_id(1), PowerState::Off);
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
