//! From one object along its associations, against the plain list of every association.

use std::collections::BTreeSet;

use groupshot::cim::{Instance, Path, Type};
use groupshot::provider::{Status, Traversal};

use super::associations::full;
use super::world::{World, machine};

/// The association instances of the whole world.
fn links(world: &World) -> Vec<Instance> {
    let classes = world.schema.classes("root/virtualization/v2");
    let served = classes.filter(|c| c.is_association() && world.registry.provider(c).is_some());
    let names: Vec<String> = served.map(|c| c.name.to_string()).collect();
    names.iter().flat_map(|name| world.all(name)).collect()
}

/// Name and object of each reference, with the keys in the order of their class.
fn ends(world: &World, link: &Instance) -> Vec<(String, Path)> {
    let references = link
        .values()
        .filter(|(p, _)| matches!(p.ty, Type::Reference(_)));
    references
        .map(|(p, v)| (p.name.to_string(), same(world, v.as_reference().unwrap())))
        .collect()
}

fn same(world: &World, path: &Path) -> Path {
    world.get(path).unwrap().path().unwrap()
}

fn keys(found: impl Iterator<Item = Instance>) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for instance in found {
        let key = instance.path().unwrap().to_string();
        assert!(keys.insert(key.clone()), "{key} comes twice");
    }
    keys
}

fn references(world: &World, path: &Path, traversal: &Traversal) -> BTreeSet<String> {
    let found = world.registry.references(&world.ctx(), path, traversal);
    keys(found.unwrap().map(Result::unwrap))
}

fn associators(world: &World, path: &Path, traversal: &Traversal) -> BTreeSet<String> {
    let found = world.registry.associators(&world.ctx(), path, traversal);
    keys(found.unwrap().map(Result::unwrap))
}

#[tokio::test]
async fn every_object_reaches_exactly_what_the_list_of_links_says() {
    let world = full().await;
    let links = links(&world);
    let objects: Vec<Path> = world
        .all("CIM_ManagedElement")
        .iter()
        .map(|i| i.path().unwrap())
        .collect();
    assert!(objects.len() > 20, "{}", objects.len());
    for object in &objects {
        let (mut near, mut far) = (BTreeSet::new(), BTreeSet::new());
        for link in &links {
            let ends = ends(&world, link);
            if ends.iter().any(|(_, end)| end == object) {
                near.insert(link.path().unwrap().to_string());
                let others = ends.iter().filter(|(_, end)| end != object);
                far.extend(others.map(|(_, end)| end.to_string()));
            }
        }
        let all = Traversal::default();
        assert_eq!(references(&world, object, &all), near, "{object}");
        assert_eq!(associators(&world, object, &all), far, "{object}");
    }
}

#[tokio::test]
async fn each_limit_and_each_pair_of_limits_leaves_what_fits() {
    let world = full().await;
    let links = links(&world);
    let object = same(&world, &machine(1));
    let mut cases = 0;
    for link in links
        .iter()
        .filter(|l| ends(&world, l).iter().any(|(_, e)| *e == object))
    {
        let (near, far): (Vec<_>, Vec<_>) = ends(&world, link)
            .into_iter()
            .partition(|(_, e)| *e == object);
        let ((role, _), (result_role, end)) = (&near[0], &far[0]);
        let leaf = world.class(end.class.as_str());
        for bits in 0..16_u8 {
            let on = |bit: u8| bits & (1 << bit) != 0;
            let traversal = Traversal {
                association: on(0).then(|| link.class().clone()),
                role: on(1).then(|| role.to_uppercase()),
                result: on(2).then(|| leaf.clone()),
                result_role: on(3).then(|| result_role.to_lowercase()),
                ..Traversal::default()
            };
            let fits = |l: &Instance| {
                let ends = ends(&world, l);
                let inside = ends.iter().find(|(_, e)| *e == object);
                let outside = ends.iter().find(|(_, e)| *e != object);
                let (Some((near, _)), Some((far, end))) = (inside, outside) else {
                    return None;
                };
                let good = (!on(0) || l.class().is_a(link.class().name.as_str()))
                    && (!on(1) || near == role)
                    && (!on(2) || world.class(end.class.as_str()).is_a(leaf.name.as_str()))
                    && (!on(3) || far == result_role);
                good.then(|| (l.path().unwrap().to_string(), end.to_string()))
            };
            let wanted: (BTreeSet<String>, BTreeSet<String>) =
                links.iter().filter_map(fits).unzip();
            assert!(!wanted.0.is_empty());
            assert_eq!(
                references(&world, &object, &traversal),
                wanted.0,
                "{traversal:?}"
            );
            assert_eq!(
                associators(&world, &object, &traversal),
                wanted.1,
                "{traversal:?}"
            );
            cases += 1;
        }
    }
    assert!(cases > 100, "{cases}");
}

#[tokio::test]
async fn a_superclass_stands_for_what_is_below_it() {
    let world = full().await;
    let traversal = Traversal {
        association: Some(world.class("CIM_ElementSettingData").clone()),
        result: Some(world.class("CIM_SettingData").clone()),
        ..Traversal::default()
    };
    let found = associators(&world, &machine(1), &traversal);
    assert!(!found.is_empty());
    assert!(
        found
            .iter()
            .all(|f| f.contains("Msvm_VirtualSystemSettingData"))
    );
    let traversal = Traversal {
        result: Some(world.class("Msvm_ConcreteJob").clone()),
        role: Some("Member".to_owned()),
        ..Traversal::default()
    };
    assert!(associators(&world, &machine(1), &traversal).is_empty());
}

#[tokio::test]
async fn only_associations_with_the_qualifier_are_ways() {
    let world = full().await;
    let from = same(&world, &machine(1));
    let with = |qualifier: &str| Traversal {
        association_qualifier: Some(qualifier.to_owned()),
        ..Traversal::default()
    };
    let all = associators(&world, &from, &Traversal::default());
    assert_eq!(associators(&world, &from, &with("association")), all);
    assert!(!all.is_empty());
    assert!(associators(&world, &from, &with("Nix")).is_empty());
    assert!(references(&world, &from, &with("Nix")).is_empty());
}

#[tokio::test]
async fn from_nothing_no_way_leads() {
    let world = full().await;
    let all = Traversal::default();
    let nobody = machine(99);
    for error in [
        world.registry.references(&world.ctx(), &nobody, &all).err(),
        world
            .registry
            .associators(&world.ctx(), &nobody, &all)
            .err(),
    ] {
        assert_eq!(error.unwrap().status, Status::NotFound);
    }
}
