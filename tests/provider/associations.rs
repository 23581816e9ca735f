//! Every association: enumerable, gettable, and the same from both ends.

use std::collections::BTreeSet;

use groupshot::cim::{Class, Path, Type};
use groupshot::inventory::Position;
use groupshot::store::{Change, Store};

use super::world::{HOST, World, machine, machine_id};

/// `docs/semantics.md` §6.
const SERVED: [&str; 16] = [
    "Msvm_AffectedJobElement",
    "Msvm_CollectedCollections",
    "Msvm_CollectedSnapshots",
    "Msvm_CollectedVirtualSystems",
    "Msvm_ElementSettingData",
    "Msvm_HostedDependency",
    "Msvm_HostedService",
    "Msvm_LastAppliedSnapshot",
    "Msvm_MostCurrentSnapshotInBranch",
    "Msvm_OwningJobElement",
    "Msvm_ParentChildSettingData",
    "Msvm_ServiceAffectsElement",
    "Msvm_SettingsDefineState",
    "Msvm_SnapshotOfVirtualSystem",
    "Msvm_SnapshotOfVirtualSystemCollection",
    "Msvm_VirtualSystemSettingDataComponent",
];

/// Three machines, groups, two sets one upon the other, one of them applied.
pub(super) async fn full() -> World {
    let world = World::new(3).await;
    let group = world.group("web", &[1, 2]).await;
    let below = world.group_of_groups("below", &[&group]).await;
    world.group_of_groups("above", &[&below]).await;
    world.snapshot(&group, 1).await;
    world.snapshot(&group, 2).await;
    let position = world.store.state().position(machine_id(1));
    let applied = Position {
        last_applied: position.parent,
        ..position
    };
    let change = Change::PutPosition(machine_id(1), applied);
    world
        .store
        .transact(Box::new(|_| vec![change]))
        .await
        .unwrap();
    world
}

fn ends(class: &Class) -> Vec<&str> {
    let references = class.properties.iter();
    references
        .filter(|p| matches!(p.ty, Type::Reference(_)))
        .map(|p| p.name.as_str())
        .collect()
}

fn key(path: &Path) -> String {
    path.to_string()
}

#[tokio::test]
async fn every_association_has_instances_that_are_found_by_their_path() {
    let world = full().await;
    for name in SERVED {
        let instances = world.all(name);
        assert!(!instances.is_empty(), "{name} is empty");
        for instance in instances {
            assert_eq!(instance.class().name, *name);
            let path = instance.path().unwrap();
            assert_eq!(world.get(&path).unwrap(), instance);
        }
    }
}

#[tokio::test]
async fn a_reference_key_may_name_host_and_leave_out_namespace() {
    let world = full().await;
    for name in SERVED {
        let instance = world.all(name).remove(0);
        let mut path = instance.path().unwrap();
        for (n, (_, value)) in path.keys.iter_mut().enumerate() {
            let mut end = value.as_reference().unwrap().clone();
            if n == 0 {
                end = end.on(&HOST.to_lowercase());
            } else {
                end.namespace = None;
            }
            *value = end.into();
        }
        assert_eq!(world.get(&path).unwrap(), instance);
    }
}

#[tokio::test]
async fn both_ends_of_every_end_exist() {
    let world = full().await;
    for name in SERVED {
        for instance in world.all(name) {
            for end in ends(instance.class()) {
                let path = instance.get(end).unwrap().as_reference().unwrap();
                world
                    .get(path)
                    .unwrap_or_else(|e| panic!("{name}.{end}: {e}"));
            }
        }
    }
}

#[tokio::test]
async fn every_association_is_the_same_from_both_ends() {
    let world = full().await;
    let objects: Vec<Path> = world
        .all("CIM_ManagedElement")
        .iter()
        .map(|i| i.path().unwrap())
        .collect();
    for name in SERVED {
        let class = world.class(name);
        let listed = world.all(name);
        let all: BTreeSet<String> = listed.iter().map(|i| key(&i.path().unwrap())).collect();
        assert_eq!(all.len(), listed.len(), "{name} lists a pair twice");
        for end in ends(class) {
            let mut from_end = BTreeSet::new();
            for object in &objects {
                let provider = world.registry.provider(class).unwrap();
                let found = provider.references(&world.ctx(), class, end, object);
                for instance in found.unwrap() {
                    let instance = instance.unwrap();
                    assert_eq!(instance.get(end).unwrap().as_reference(), Some(object));
                    from_end.insert(key(&instance.path().unwrap()));
                }
            }
            assert_eq!(from_end, all, "{name} from its {end}");
        }
    }
}

#[tokio::test]
async fn a_pair_that_is_not_linked_is_not_found() {
    let world = full().await;
    let linked = world.all("Msvm_CollectedVirtualSystems").remove(0);
    let mut path = linked.path().unwrap();
    for (name, value) in &mut path.keys {
        if *name == *"Member" {
            *value = machine(3).into();
        }
    }
    assert!(world.get(&path).is_err());
}

#[tokio::test]
async fn the_snapshot_tree_grows_from_the_last_set() {
    let world = full().await;
    let machine_path = key(&machine(1));
    let current: Vec<_> = world
        .all("Msvm_MostCurrentSnapshotInBranch")
        .into_iter()
        .filter(|i| key(i.get("Antecedent").unwrap().as_reference().unwrap()) == machine_path)
        .collect();
    assert_eq!(current.len(), 1);
    let snapshot = world
        .get(current[0].get("Dependent").unwrap().as_reference().unwrap())
        .unwrap();
    assert_eq!(
        snapshot.get("VirtualSystemType").unwrap().as_str(),
        Some("Microsoft:Hyper-V:Snapshot:Recovery")
    );
    // set 2 over set 1, active over set 2, for two machines
    assert_eq!(world.all("Msvm_ParentChildSettingData").len(), 4);
}
