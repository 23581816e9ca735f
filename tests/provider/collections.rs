//! Collection management: the rules of `docs/semantics.md` §4.

use groupshot::cim::schema::VIRTUALIZATION_V2;
use groupshot::cim::{Path, Value};
use groupshot::inventory::{Collection, NAME_MAX};
use groupshot::store::{Change, Store, StoreError};
use groupshot::text::catalog::store::FULL;

use super::world::{HOST, MANAGEMENT, World, machine, number, output, reference, returned, text};

async fn call(world: &World, method: &str, arguments: &[(&str, Value)]) -> u64 {
    let outcome = world.call(MANAGEMENT, method, arguments).await;
    let value = returned(&outcome);
    if value == 0 {
        assert_eq!(output(&outcome, "Job"), None);
    } else {
        assert!(!world.reason(&outcome).is_empty());
        assert!(!outcome.changed);
    }
    value
}

fn members(member: &Path, collection: &Path) -> [(&'static str, Value); 2] {
    [
        ("Member", member.clone().into()),
        ("Collection", collection.clone().into()),
    ]
}

#[tokio::test]
async fn define_gives_the_id_asked_for_or_a_fresh_one() {
    let world = World::new(1).await;
    let id = "8a3d0000-0000-0000-0000-0000000000ff";
    let arguments = [
        ("Name", "web".into()),
        ("Id", id.into()),
        ("Type", 0_u16.into()),
    ];
    let outcome = world.call(MANAGEMENT, "DefineCollection", &arguments).await;
    assert_eq!(returned(&outcome), 0);
    let path = reference(&outcome, "DefinedCollection");
    assert_eq!(path.class, "Msvm_VirtualSystemCollection");
    assert_eq!(path.text("CollectionID"), Some(id.to_uppercase().as_str()));
    assert_eq!(text(&world.get(&path).unwrap(), "ElementName"), "web");
    assert_eq!(call(&world, "DefineCollection", &arguments).await, 32773);

    for id in [Value::Null, Value::from("")] {
        let arguments = [("Name", "web".into()), ("Id", id), ("Type", 1_u16.into())];
        let outcome = world.call(MANAGEMENT, "DefineCollection", &arguments).await;
        let path = reference(&outcome, "DefinedCollection");
        assert_eq!(path.class, "Msvm_ManagementCollection");
    }
    assert_eq!(world.all("CIM_CollectionOfMSEs").len(), 3);
}

#[tokio::test]
async fn define_refuses_what_makes_no_collection() {
    let world = World::new(1).await;
    for (name, id, kind) in [
        (Value::Null, Value::Null, Value::from(0_u16)),
        ("".into(), Value::Null, 0_u16.into()),
        ("a".into(), "17".into(), 0_u16.into()),
        ("a".into(), Value::Null, 2_u16.into()),
        ("a".into(), Value::Null, Value::Null),
    ] {
        let arguments = [("Name", name), ("Id", id), ("Type", kind)];
        assert_eq!(call(&world, "DefineCollection", &arguments).await, 32773);
    }
    assert!(world.all("CIM_CollectionOfMSEs").is_empty());
}

/// A client may name a machine by its Name alone, in an endpoint reference; in text it names nothing so.
#[tokio::test]
async fn x_3_a_reference_by_some_keys_means_the_one_object_that_has_them() {
    let world = World::new(2).await;
    let group = world.group("web", &[]).await;
    let named = |key: &str, value: &str| Path {
        partial: true,
        ..Path::new(VIRTUALIZATION_V2, "Msvm_ComputerSystem").key(key, value)
    };
    let id = machine(1).text("Name").unwrap().to_owned();
    let text = Path::parse(&format!(r#"Msvm_ComputerSystem.Name="{id}""#)).unwrap();
    for refused in [
        text,
        named("CreationClassName", "Msvm_ComputerSystem"),
        named("Name", "5EED51B0-0000-4000-8000-0000000000FF"),
        named("Name", &id).on("elsewhere"),
        named("Name", HOST),
    ] {
        let arguments = members(&refused, &group);
        assert_eq!(
            call(&world, "AddMember", &arguments).await,
            32773,
            "{refused}"
        );
    }
    assert!(world.all("Msvm_CollectedVirtualSystems").is_empty());
    let by_name = members(&named("Name", &id), &group);
    assert_eq!(call(&world, "AddMember", &by_name).await, 0);
    let link = world.all("Msvm_CollectedVirtualSystems").remove(0);
    assert_eq!(link.get("Member"), Some(&machine(1).into()));
    assert_eq!(call(&world, "RemoveMember", &by_name).await, 0);
}

#[tokio::test]
async fn rename_changes_the_name_and_nothing_else() {
    let world = World::new(1).await;
    let group = world.group("web", &[1]).await;
    let rename = |name: &str| {
        [
            ("Collection", Value::from(group.clone())),
            ("NewName", Value::from(name)),
        ]
    };
    assert_eq!(call(&world, "RenameCollection", &rename("db")).await, 0);
    assert_eq!(text(&world.get(&group).unwrap(), "ElementName"), "db");
    assert_eq!(world.all("Msvm_CollectedVirtualSystems").len(), 1);
    assert_eq!(call(&world, "RenameCollection", &rename("")).await, 32773);
}

#[tokio::test]
async fn a_name_that_is_too_long_is_32773_and_told_with_its_limit() {
    let world = World::new(1).await;
    let group = world.group(&"&".repeat(NAME_MAX), &[1]).await;
    let name = Value::from("&".repeat(NAME_MAX + 1));
    let define = [("Name", name.clone()), ("Type", 0_u16.into())];
    let rename = [("Collection", group.clone().into()), ("NewName", name)];
    for (method, arguments, parameter) in [
        ("DefineCollection", define, "parameter Name "),
        ("RenameCollection", rename, "parameter NewName "),
    ] {
        let outcome = world.call(MANAGEMENT, method, &arguments).await;
        assert_eq!(returned(&outcome), 32773);
        let reason = world.reason(&outcome);
        assert!(reason.contains(parameter), "{reason}");
        assert!(reason.contains("at most 256 characters"), "{reason}");
    }
    assert_eq!(world.all("CIM_CollectionOfMSEs").len(), 1);
}

#[tokio::test]
async fn a_longer_name_from_before_the_limit_is_shown_cut_and_harms_nobody() {
    let world = World::new(1).await;
    let group = world.group("web", &[1]).await;
    let mut old: Collection = {
        let state = world.store.state();
        state.collections.values().next().unwrap().as_ref().clone()
    };
    old.name = "<".repeat(400_000);
    let change = Change::PutCollection(old);
    let written = world.store.transact(Box::new(|_| vec![change]));
    written.await.unwrap();
    let shown = world.all("CIM_CollectionOfMSEs").remove(0);
    let shown = text(&shown, "ElementName").to_owned();
    assert_eq!(shown.chars().count(), NAME_MAX);
    assert!(shown.ends_with('…'), "{shown}");
    let set = world.get(&world.snapshot(&group, 1).await).unwrap();
    let name = text(&set, "ElementName");
    assert!(name.ends_with("Z)"), "{name}");
    assert_eq!(name.chars().count(), NAME_MAX);
    let arguments = [("Collection", group.into())];
    assert_eq!(call(&world, "DestroyCollection", &arguments).await, 0);
}

#[tokio::test]
async fn what_a_refused_call_sent_is_quoted_up_to_a_limit() {
    let world = World::new(1).await;
    let id = Value::from("&".repeat(400_000));
    let arguments = [("Name", "a".into()), ("Id", id), ("Type", 0_u16.into())];
    let outcome = world.call(MANAGEMENT, "DefineCollection", &arguments).await;
    assert_eq!(returned(&outcome), 32773);
    let reason = world.reason(&outcome);
    assert!(reason.len() < 5000, "{}", reason.len());
    assert!(reason.contains("parameter Id must be a GUID"), "{reason}");
}

#[tokio::test]
async fn adding_twice_is_0_and_adding_the_wrong_thing_32773() {
    let world = World::new(2).await;
    let group = world.group("web", &[1]).await;
    let above = world.group_of_groups("above", &[&group]).await;
    let top = world.group_of_groups("top", &[&above]).await;
    let host = Path::new(VIRTUALIZATION_V2, "Msvm_ComputerSystem")
        .key("CreationClassName", "Msvm_ComputerSystem")
        .key("Name", HOST);
    let service = world.all(MANAGEMENT)[0].path().unwrap();
    for (member, collection, code) in [
        (&machine(1), &group, 0),
        (&group, &above, 0),
        (&host, &group, 32773),
        (&service, &group, 32773),
        (&machine(3), &group, 32773),
        (&machine(1), &above, 32773),
        (&above, &group, 32773),
        (&group, &group, 32773),
        (&above, &above, 32773),
        (&top, &above, 32773),
        (&machine(2), &machine(1), 32773),
        (&machine(2), &group, 0),
    ] {
        let code_now = call(&world, "AddMember", &members(member, collection)).await;
        assert_eq!(code_now, code, "{member} into {collection}");
    }
    assert_eq!(world.all("Msvm_CollectedVirtualSystems").len(), 2);
    assert_eq!(world.all("Msvm_CollectedCollections").len(), 2);
}

#[tokio::test]
async fn a_machine_may_be_in_several_groups() {
    let world = World::new(1).await;
    world.group("one", &[1]).await;
    world.group("two", &[1]).await;
    assert_eq!(world.all("Msvm_CollectedVirtualSystems").len(), 2);
}

#[tokio::test]
async fn removing_a_stranger_is_32773_but_0_by_id() {
    let world = World::new(2).await;
    let group = world.group("web", &[1]).await;
    let id = group.text("CollectionID").unwrap();
    let by_id = |id: &str| {
        [
            ("Member", Value::from(machine(1))),
            ("CollectionId", Value::from(id)),
        ]
    };
    let elsewhere = members(&machine(1).on("OTHERHOST"), &group);
    assert_eq!(call(&world, "RemoveMember", &elsewhere).await, 32773);
    let stranger = members(&machine(2), &group);
    assert_eq!(call(&world, "RemoveMember", &stranger).await, 32773);
    let member = members(&machine(1), &group);
    assert_eq!(call(&world, "RemoveMember", &member).await, 0);
    assert_eq!(call(&world, "RemoveMember", &member).await, 32773);
    assert_eq!(call(&world, "RemoveMemberById", &by_id(id)).await, 0);
    assert_eq!(call(&world, "AddMember", &member).await, 0);
    assert_eq!(call(&world, "RemoveMemberById", &by_id(id)).await, 0);
    assert!(world.all("Msvm_CollectedVirtualSystems").is_empty());
    assert_eq!(call(&world, "RemoveMemberById", &by_id("17")).await, 32773);
    let unknown = by_id("00000000-0000-0000-0000-000000000000");
    assert_eq!(call(&world, "RemoveMemberById", &unknown).await, 32773);
}

#[tokio::test]
async fn destroy_keeps_the_sets_and_ends_their_link() {
    let world = World::new(1).await;
    let group = world.group("web", &[1]).await;
    world.group_of_groups("above", &[&group]).await;
    let set = world.snapshot(&group, 1).await;
    assert_eq!(world.all("Msvm_SnapshotOfVirtualSystemCollection").len(), 1);
    let arguments = [("Collection", group.clone().into())];
    assert_eq!(call(&world, "DestroyCollection", &arguments).await, 0);
    assert!(world.get(&group).is_err());
    world.get(&set).unwrap();
    assert!(
        world
            .all("Msvm_SnapshotOfVirtualSystemCollection")
            .is_empty()
    );
    assert!(world.all("Msvm_CollectedCollections").is_empty());
    assert_eq!(call(&world, "DestroyCollection", &arguments).await, 32773);

    // the same id again is another collection
    let again = [
        ("Name", "web".into()),
        ("Id", group.text("CollectionID").unwrap().into()),
        ("Type", 0_u16.into()),
    ];
    assert_eq!(call(&world, "DefineCollection", &again).await, 0);
    assert!(
        world
            .all("Msvm_SnapshotOfVirtualSystemCollection")
            .is_empty()
    );
}

#[tokio::test]
async fn while_an_operation_holds_the_group_its_members_stay() {
    let world = World::new(2).await;
    let group = world.group("web", &[1]).await;
    let running = world.hanging(&group).await;
    let new = members(&machine(2), &group);
    assert_eq!(call(&world, "AddMember", &new).await, 32775);
    let old = members(&machine(1), &group);
    assert_eq!(call(&world, "RemoveMember", &old).await, 32775);
    let by_id = [
        ("Member", machine(1).into()),
        ("CollectionId", group.text("CollectionID").unwrap().into()),
    ];
    assert_eq!(call(&world, "RemoveMemberById", &by_id).await, 32775);
    let destroy = [("Collection", group.clone().into())];
    assert_eq!(call(&world, "DestroyCollection", &destroy).await, 32775);
    let rename = [("Collection", group.into()), ("NewName", "db".into())];
    assert_eq!(call(&world, "RenameCollection", &rename).await, 0);
    world.sim.release();
    world.ended(&running).await;
    assert_eq!(call(&world, "DestroyCollection", &destroy).await, 0);
}

#[tokio::test]
async fn what_cannot_be_recorded_is_32768_and_nothing_changed() {
    let world = World::new(1).await;
    let before = world.revision();
    world.store.fail_next(StoreError::Full(FULL.text()));
    let arguments = [("Name", "web".into()), ("Type", 0_u16.into())];
    let outcome = world.call(MANAGEMENT, "DefineCollection", &arguments).await;
    assert_eq!(returned(&outcome), 32768);
    assert!(world.all("CIM_CollectionOfMSEs").is_empty());
    // the job that tells why is the only trace
    assert_eq!(world.revision(), before + 1);
    let job = world.get(&reference(&outcome, "Job")).unwrap();
    assert_eq!(number(&job, "ErrorCode"), 32768);
    assert_eq!(number(&job, "JobType"), 190);
}

#[tokio::test]
async fn a_refusal_tells_why_even_where_it_cannot_be_recorded() {
    let world = World::new(1).await;
    world.store.fail_next(StoreError::Full(FULL.text()));
    let arguments = [("Name", "web".into()), ("Type", 7_u16.into())];
    let outcome = world.call(MANAGEMENT, "DefineCollection", &arguments).await;
    assert_eq!(returned(&outcome), 32773);
    let job = world.get(&reference(&outcome, "Job")).unwrap();
    assert_eq!(number(&job, "ErrorCode"), 32773);
}
