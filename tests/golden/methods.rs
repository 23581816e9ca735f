//! The methods around a set after it was taken, in both URI families: what would be taken, applied, destroyed, and
//! what is not offered.

use groupshot::inventory::JobState;
use groupshot::wscim::Family;

use super::ask::{Ask, epr};
use super::book::Book;
use super::world::{FAMILIES, Options, World, collection, create_snapshot, machine};

const SETS: &str = "Msvm_CollectionSnapshotService";
const SNAPSHOTS: &str = "Msvm_VirtualSystemSnapshotService";
const SYSTEM: &str = "Msvm_ComputerSystem";

#[tokio::test]
async fn i_10_to_i_15_every_other_method() {
    let mut book = Book::open("methods");
    for family in FAMILIES {
        let world = World::with_collection(Options::default()).await;
        let kind = format!("{}<p:SnapshotType>2</p:SnapshotType>", collection(family));
        let check = Ask::invoke(family, "Groupshot_SnapshotCheck", "CheckSnapshot", &kind);
        book.check("check", family, &world.send(&check).await);
        on_the_set(&mut book, &world, family).await;
        for (name, class, method) in [
            ("convert-set", SETS, "ConvertToReferencePoint"),
            ("convert-snapshot", SNAPSHOTS, "ConvertToReferencePoint"),
            ("destroy-tree", SNAPSHOTS, "DestroySnapshotTree"),
            ("clear-state", SNAPSHOTS, "ClearSnapshotState"),
        ] {
            let ask = Ask::invoke(family, class, method, "");
            book.check(name, family, &world.send(&ask).await);
        }
        let id = machine(2).to_string();
        let member = epr(
            family,
            SYSTEM,
            &[("CreationClassName", SYSTEM), ("Name", &id)],
        );
        let parameters = format!("<p:Member>{member}</p:Member>{}", collection(family));
        let service = "Msvm_CollectionManagementService";
        let remove = Ask::invoke(family, service, "RemoveMember", &parameters);
        book.check("remove-member", family, &world.send(&remove).await);
    }
    book.close();
}

/// Takes a set, applies it and destroys it.
async fn on_the_set(book: &mut Book, world: &World, family: Family) {
    let taken = world.send(&create_snapshot(family, 2, "")).await;
    assert_eq!(world.ended(taken.job()).await, JobState::Completed);
    let set = taken.selector("<p:ResultingSnapshotCollection>", "CollectionID");
    let set = epr(family, "Msvm_SnapshotCollection", &[("CollectionID", set)]);
    for (name, method, parameter) in [
        ("apply", "ApplySnapshot", "SnapshotCollection"),
        ("destroy", "DestroySnapshot", "AffectedSnapshotCollection"),
    ] {
        let set = format!("<p:{parameter}>{set}</p:{parameter}>");
        let reply = world.send(&Ask::invoke(family, SETS, method, &set)).await;
        book.check(name, family, &reply);
        assert_eq!(world.ended(reply.job()).await, JobState::Completed);
    }
}
