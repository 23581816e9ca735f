//! Who may call what: `docs/semantics.md` §8 against every method of the schema.

use groupshot::cim::Schema;
use groupshot::cim::schema::VIRTUALIZATION_V2;
use groupshot::handler::Role;
use groupshot::provider::roles;

use super::world::World;

#[tokio::test]
async fn the_table_knows_every_method_of_the_schema() {
    let schema = Schema::builtin();
    let mut known = 0;
    for class in schema.classes(VIRTUALIZATION_V2) {
        for method in &class.methods {
            let name = method.name.as_str();
            let role = roles::required(class, name);
            assert!(role.is_some(), "{}.{name}", class.name);
            // a superclass in the URI must not change what is needed
            for above in class.lineage().filter(|c| c.method(name).is_some()) {
                assert_eq!(roles::required(above, name), role, "{}.{name}", above.name);
            }
            known += 1;
        }
    }
    assert!(known > 20);
}

#[tokio::test]
async fn the_roles_are_those_of_the_decision() {
    let schema = Schema::builtin();
    let reader = ["Msvm_ConcreteJob.GetError", "Msvm_ConcreteJob.GetErrorEx"];
    let operator = [
        "Msvm_CollectionSnapshotService.CreateSnapshot",
        "Msvm_CollectionSnapshotService.ExportSnapshot",
        "Groupshot_SnapshotCheck.CheckSnapshot",
        "Msvm_CollectionManagementService.DefineCollection",
        "Msvm_CollectionManagementService.AddMember",
        "Msvm_CollectionManagementService.RemoveMember",
        "Msvm_CollectionManagementService.RemoveMemberById",
        "Msvm_CollectionManagementService.RenameCollection",
        "Msvm_ConcreteJob.RequestStateChange",
    ];
    let administrator = [
        "Msvm_CollectionSnapshotService.ApplySnapshot",
        "Msvm_CollectionSnapshotService.DestroySnapshot",
        "Msvm_VirtualSystemSnapshotService.ApplySnapshot",
        "Msvm_VirtualSystemSnapshotService.DestroySnapshot",
        "Msvm_VirtualSystemSnapshotService.DestroySnapshotTree",
        "Msvm_CollectionManagementService.DestroyCollection",
        "Msvm_CollectionManagementService.StopService",
        "Msvm_ComputerSystem.RequestStateChange",
    ];
    let rows = [
        (Role::Reader, &reader[..]),
        (Role::Operator, &operator[..]),
        (Role::Administrator, &administrator[..]),
    ];
    for (role, methods) in rows {
        for method in methods {
            let (class, name) = method.split_once('.').unwrap();
            let class = schema.class(VIRTUALIZATION_V2, class).unwrap();
            assert_eq!(roles::required(class, name), Some(role), "{method}");
        }
    }
}

#[tokio::test]
async fn a_role_below_is_refused_with_the_one_that_is_needed() {
    let world = World::new(0).await;
    let class = world.class("Msvm_CollectionSnapshotService");
    let method = class.method("CreateSnapshot").unwrap();
    let reader = world.ctx_of("rita", Role::Reader).identity;
    let error = roles::check(&reader, class, method).unwrap_err();
    assert!(error.text.english().contains("operator"), "{error}");
    let operator = world.ctx_of("otto", Role::Operator).identity;
    roles::check(&operator, class, method).unwrap();
}
