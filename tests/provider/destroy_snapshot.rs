//! DestroySnapshot: for clients the set, or the snapshot of one machine, is gone, with all its links.

use groupshot::cim::schema::VIRTUALIZATION_V2;
use groupshot::cim::{Instance, Path, Status, Value};

use super::world::{VM_SNAPSHOTS, World, job_id, machine_id, output, returned, text};

const SERVICE: &str = super::world::SNAPSHOTS;
const PARAMETER: &str = "AffectedSnapshotCollection";

#[tokio::test]
async fn a_destroyed_set_is_gone_with_its_links() {
    let world = World::new(2).await;
    let group = world.group("g", &[1, 2]).await;
    let first = world.snapshot(&group, 1).await;
    let second = world.snapshot(&group, 1).await;
    let wanted = [(PARAMETER, Value::from(first.clone()))];
    let outcome = world.call(SERVICE, "DestroySnapshot", &wanted).await;
    assert_eq!(returned(&outcome), 4096);
    assert!(output(&outcome, "Job").is_some());
    let job = world.ended(&outcome).await;
    assert_eq!((job.state.number(), job.kind.number()), (7, 72), "{job:?}");
    assert!(
        job.status.english().ends_with("is destroyed"),
        "{}",
        job.status.english()
    );
    assert_eq!(job.id, job_id(&outcome));
    assert_eq!(world.get(&first).unwrap_err().status, Status::NotFound);
    world.get(&second).unwrap();
    assert_eq!(world.all("Msvm_SnapshotCollection").len(), 1);
    assert_eq!(world.all("Msvm_SnapshotOfVirtualSystem").len(), 2);
    let again = world.call(SERVICE, "DestroySnapshot", &wanted).await;
    assert_eq!(returned(&again), 4);
}

#[tokio::test]
async fn what_is_no_set_is_4() {
    let world = World::new(1).await;
    let group = world.group("g", &[1]).await;
    for value in [Value::Null, Value::from(group)] {
        let outcome = world
            .call(SERVICE, "DestroySnapshot", &[(PARAMETER, value)])
            .await;
        assert_eq!(returned(&outcome), 4);
        assert!(!world.reason(&outcome).is_empty());
    }
}

#[tokio::test]
async fn one_snapshot_is_destroyed_alone_and_the_last_one_takes_the_set_along() {
    let world = World::new(2).await;
    let group = world.group("two", &[1, 2]).await;
    let set = world.snapshot(&group, 1).await;
    let path = |key: &str| {
        Path::new(VIRTUALIZATION_V2, "Msvm_VirtualSystemSettingData").key("InstanceID", key)
    };
    let active = path(&format!("Microsoft:{}", machine_id(1)));
    for wrong in [
        Value::Null,
        active.into(),
        path("Microsoft:none").into(),
        set.clone().into(),
    ] {
        let wanted = [("AffectedSnapshot", wrong)];
        let outcome = world.call(VM_SNAPSHOTS, "DestroySnapshot", &wanted).await;
        assert_eq!(returned(&outcome), 4);
        assert!(!world.reason(&outcome).is_empty());
    }
    let settings = world.all("Msvm_VirtualSystemSettingData");
    let kept = |s: &&Instance| text(s, "VirtualSystemType").contains(":Snapshot:");
    for (n, snapshot) in settings.iter().filter(kept).enumerate() {
        let key = path(text(snapshot, "InstanceID"));
        let wanted = [("AffectedSnapshot", Value::from(key.clone()))];
        let outcome = world.call(VM_SNAPSHOTS, "DestroySnapshot", &wanted).await;
        assert_eq!(returned(&outcome), 4096);
        let job = world.ended(&outcome).await;
        assert_eq!((job.state.number(), job.kind.number()), (7, 72), "{job:?}");
        let said = job.status.english();
        let alone = said.starts_with("the snapshot of machine ");
        assert_eq!(alone, n == 0, "{said}");
        assert_eq!(world.get(&key).unwrap_err().status, Status::NotFound);
        assert_eq!(world.get(&set).is_ok(), n == 0, "{said}");
        assert_eq!(world.all("Msvm_CollectedSnapshots").len(), 1 - n);
    }
    let owners = world.all("Msvm_OwningJobElement");
    let owner = |link: &Instance| {
        let owner = link.get("OwningElement").unwrap();
        owner.as_reference().unwrap().class.to_string()
    };
    assert_eq!(
        owners.iter().filter(|o| owner(o) == VM_SNAPSHOTS).count(),
        6
    );
}

#[tokio::test]
async fn a_client_sees_children_move_to_the_parent_of_what_is_destroyed() {
    let world = World::new(1).await;
    let group = world.group("one", &[1]).await;
    let mut snapshots = Vec::new();
    for _ in 0..3 {
        let set = world.snapshot(&group, 1).await;
        let links = world.all("Msvm_CollectedSnapshots");
        let of_set = |l: &&Instance| l.get("Collection").unwrap().as_reference() == Some(&set);
        let link = links.iter().find(of_set).unwrap();
        snapshots.push(link.get("Member").unwrap().as_reference().unwrap().clone());
    }
    let guid = |n: usize| {
        let id = snapshots[n].text("InstanceID").unwrap();
        id.rsplit(':').next().unwrap().to_owned()
    };
    let parent = |path: &Path| match world.get(path).unwrap().get("Parent").unwrap() {
        Value::Null => None,
        value => Some(value.as_str().unwrap().to_owned()),
    };
    let is = |path: &Path, n: usize| parent(path).is_some_and(|p| p.contains(&guid(n)));
    let active = Path::new(VIRTUALIZATION_V2, "Msvm_VirtualSystemSettingData")
        .key("InstanceID", format!("Microsoft:{}", machine_id(1)));
    let applied = || world.all("Msvm_LastAppliedSnapshot").len();
    assert!(is(&active, 2) && is(&snapshots[2], 1) && is(&snapshots[1], 0));
    let call = async |method: &str, parameter: &str, n: usize| {
        let wanted = [(parameter, Value::from(snapshots[n].clone()))];
        let outcome = world.call(VM_SNAPSHOTS, method, &wanted).await;
        assert_eq!(world.ended(&outcome).await.state.number(), 7);
    };
    call("ApplySnapshot", "Snapshot", 1).await;
    assert!(is(&active, 1) && applied() == 1);
    call("DestroySnapshot", "AffectedSnapshot", 1).await;
    assert!(is(&active, 0) && is(&snapshots[2], 0), "both move up");
    assert_eq!(applied(), 0, "what was applied is gone");
    call("DestroySnapshot", "AffectedSnapshot", 0).await;
    assert_eq!((parent(&active), parent(&snapshots[2])), (None, None));
}
