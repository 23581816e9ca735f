//! Destroying sets in every order: what stays holds what it held, byte for byte, and nothing else is left;
//! also when a step fails or the process dies at one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};

use groupshot::engine::content;
use groupshot::engine::import::{NewDisk, NewMachine, import};
use groupshot::engine::qcow2::chain::Roots;
use groupshot::engine::qcow2::writer::NewImage;
use groupshot::engine::{Compute, Top};
use groupshot::failpoint::FailedOnOrder;
use groupshot::id::{SetId, SnapshotId};
use groupshot::inventory::{CollectionKind, Format, Job, JobKind, JobState, Position, Service};
use groupshot::job::{CancelKind, Cancelled};
use groupshot::snapshot::destroy::{FAILPOINTS, MERGE_FAILPOINTS};
use groupshot::snapshot::{Accepted, DestroyRequest, Passage, Recovered, Refused};
use groupshot::store::{Change, Store, StoreError, record};
use groupshot::text::catalog::store::FULL;
use jiff::Timestamp;

use super::world::{Left, World, collection, furnish, group, put};
use crate::support::disk;
use crate::support::site::is_spare;
use crate::support::tools::{self};

pub(super) type Contents = BTreeMap<String, Vec<u8>>;

fn request(set: SetId, snapshot: Option<SnapshotId>) -> DestroyRequest {
    DestroyRequest {
        set,
        snapshot,
        service: Service::CollectionSnapshot,
        owner: "tester".into(),
    }
}

async fn start(world: &World, set: SetId) -> Result<Accepted, Refused> {
    world.coordinator.destroy(request(set, None)).await
}

pub(super) async fn destroy(world: &World, set: SetId) -> Job {
    let accepted = start(world, set).await.unwrap();
    world.end(accepted).await
}

/// Takes so many sets, writing all over every disk behind each.
pub(super) async fn take(world: &World, count: u8) -> Vec<SetId> {
    world.coordinator.recover().await.unwrap();
    let mut sets = Vec::new();
    for n in 0..count {
        let accepted = world.create(group()).await.unwrap();
        assert_eq!(world.end(accepted).await.state, JobState::Completed);
        sets.push(accepted.set);
        write(world, 100 + n, u64::from(n) * 9_000).await;
    }
    sets
}

pub(super) async fn write(world: &World, pattern: u8, at: u64) {
    for machine in world.machines().values() {
        let image = &machine.disks[0];
        disk::write(&image.file, image.format, &[pattern; 20_000], at).await;
    }
}

async fn read(file: &Path, format: Format) -> Vec<u8> {
    disk::read(file, format).await
}

/// What every snapshot and every active disk holds.
pub(super) async fn contents(world: &World) -> Contents {
    let mut all = Contents::new();
    for set in world.store.state().sets.values() {
        for member in &set.members {
            let disk = &member.disks[0];
            let key = format!("{} {}", set.id, member.machine);
            all.insert(key, read(&disk.file, disk.format).await);
        }
    }
    for machine in world.machines().values() {
        let disk = &machine.disks[0];
        all.insert(
            format!("top {}", machine.id),
            read(&disk.file, disk.format).await,
        );
    }
    all
}

pub(super) fn without(contents: &Contents, set: SetId) -> Contents {
    let mut rest = contents.clone();
    rest.retain(|key, _| !key.starts_with(&set.to_string()));
    rest
}

/// Nothing waits, nothing is lost, and QEMU finds no fault.
pub(super) async fn assert_in_order(world: &World, at: &str) {
    let fresh = world.with(Box::new(|_| Ok(())));
    let recovered = fresh.coordinator.recover().await.unwrap();
    assert_eq!(recovered, Recovered::default(), "{at}");
    if tools::are_there() {
        let images = world.ours().into_iter().chain(world.tops());
        for image in images.filter(|f| f.extension().is_some_and(|e| e == "qcow2")) {
            tools::assert_clean(&image);
        }
    }
}

pub(super) fn assert_gone(world: &World) {
    assert_eq!(world.ours(), Vec::<PathBuf>::new());
    assert!(world.store.state().sets.is_empty());
    for top in world.tops() {
        assert!(top.starts_with(world.root.join("images")), "{top:?}");
    }
    for position in world.store.state().positions.values() {
        assert_eq!(*position, Position::default());
    }
}

#[tokio::test(start_paused = true)]
async fn in_every_order_the_rest_holds_what_it_held() {
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let root = tempfile::tempdir().unwrap();
        let world = furnish(root.path(), 2).await;
        let sets = take(&world, 3).await;
        let mut expected = contents(&world).await;
        assert_eq!(expected.len(), 8);
        for n in order {
            let job = destroy(&world, sets[n]).await;
            assert_eq!(
                (job.state, job.kind),
                (JobState::Completed, JobKind::DestroySnapshotSet)
            );
            assert!(
                job.status.english().ends_with("is destroyed"),
                "{}",
                job.status.english()
            );
            expected = without(&expected, sets[n]);
            assert!(contents(&world).await == expected, "{order:?} at {n}");
            assert!(!world.store.state().sets.contains_key(&sets[n]));
            assert_in_order(&world, &format!("{order:?} at {n}")).await;
        }
        assert_gone(&world);
        let again = start(&world, sets[0]).await.unwrap_err();
        assert!(matches!(again, Refused::InvalidParameter(_)), "{again:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn parents_of_snapshots_and_machines_close_up() {
    let root = tempfile::tempdir().unwrap();
    let world = furnish(root.path(), 1).await;
    let sets = take(&world, 3).await;
    let state = world.store.state();
    let id = |n: usize| state.sets[&sets[n]].members[0].id;
    let machine = *world.machines().keys().next().unwrap();
    let position = Position {
        parent: Some(id(2)),
        last_applied: Some(id(1)),
    };
    put(&*world.store, vec![Change::PutPosition(machine, position)]).await;
    destroy(&world, sets[1]).await;
    let state = world.store.state();
    assert_eq!(state.sets[&sets[2]].members[0].parent, Some(id(0)));
    let position = state.position(machine);
    assert_eq!(
        (position.parent, position.last_applied),
        (Some(id(2)), None)
    );
    destroy(&world, sets[2]).await;
    assert_eq!(world.store.state().position(machine).parent, Some(id(0)));
}

#[tokio::test(start_paused = true)]
async fn one_member_goes_alone_and_the_last_one_takes_the_set_along() {
    let root = tempfile::tempdir().unwrap();
    let world = furnish(root.path(), 2).await;
    let sets = take(&world, 2).await;
    let expected = contents(&world).await;
    let members = world.store.state().sets[&sets[0]].members.clone();
    for (n, member) in members.iter().enumerate() {
        let wanted = request(sets[0], Some(member.id));
        let accepted = world.coordinator.destroy(wanted).await.unwrap();
        assert_eq!(world.end(accepted).await.state, JobState::Completed);
        let state = world.store.state();
        let left = state.sets.get(&sets[0]).map_or(0, |s| s.members.len());
        assert_eq!(left, 1 - n);
        for (key, bytes) in contents(&world).await {
            assert!(expected[&key] == bytes, "{key}");
        }
        assert_in_order(&world, "one member").await;
    }
}

/// Puts the machine onto a new file over the one that its snapshot of `set` keeps, as after an Apply.
pub(super) async fn branch(world: &World, set: SetId) {
    let machine = world.machines().values().next().unwrap().clone();
    let state = world.store.state();
    let members = &state.sets[&set].members;
    let member = members.iter().find(|m| m.machine == machine.id).unwrap();
    let kept = &member.disks[0];
    let old = machine.disks[0].file.clone();
    let new = old.with_file_name("branch.qcow2");
    let image = NewImage {
        size: kept.size,
        backing: Some((&kept.file, kept.format)),
    };
    image.write(&File::create(&new).unwrap()).unwrap();
    let format = Format::Qcow2;
    let top = Top { file: new, format };
    let tops = BTreeMap::from([(machine.disks[0].id.clone(), top)]);
    world.library.set_tops(machine.id, &tops).unwrap();
    fs::remove_file(old).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_layer_with_two_children_stays_until_one_is_left() {
    let root = tempfile::tempdir().unwrap();
    let world = furnish(root.path(), 1).await;
    let sets = take(&world, 3).await;
    branch(&world, sets[1]).await;
    write(&world, 77, 30_000).await;
    let mut expected = contents(&world).await;
    for (set, whole) in [(sets[1], false), (sets[2], true), (sets[0], true)] {
        let job = destroy(&world, set).await;
        assert_eq!(job.state, JobState::Completed);
        let status = job.status.english();
        assert_eq!(status.ends_with("is destroyed"), whole, "{status}");
        assert!(whole || status.contains("2 files lie on"), "{status}");
        expected = without(&expected, set);
        assert!(contents(&world).await == expected, "{status}");
    }
    assert_in_order(&world, "branches").await;
    assert_gone(&world);
}

#[tokio::test(start_paused = true)]
async fn what_was_imported_as_a_backing_file_is_never_written() {
    let root = tempfile::tempdir().unwrap();
    let world = furnish(root.path(), 0).await;
    let images = root.path().join("images");
    let (base, image) = (images.join("base.raw"), images.join("image.qcow2"));
    content::create(&base, Format::Raw, 1 << 20).unwrap();
    let new = NewImage {
        size: 1 << 20,
        backing: Some((&base, Format::Raw)),
    };
    new.write(&File::create(&image).unwrap()).unwrap();
    let new = NewMachine {
        name: "chain".into(),
        disks: vec![NewDisk {
            id: None,
            file: image.clone(),
            format: None,
        }],
        overlay_ok: true,
        accept_images: false,
        sockets: Default::default(),
        unmanaged_ok: false,
    };
    let data = root.path().join("data");
    let machine = import(&data, &new, &Roots::default(), Timestamp::UNIX_EPOCH).unwrap();
    let machines = vec![machine.id];
    let group = collection(group(), CollectionKind::Machines, machines, vec![]);
    put(&*world.store, vec![group]).await;
    let world = world.with(Box::new(|_| Ok(())));
    let before = fs::read(&base).unwrap();
    let sets = take(&world, 2).await;
    let mut expected = contents(&world).await;
    for set in sets {
        assert!(
            destroy(&world, set)
                .await
                .status
                .english()
                .ends_with("is destroyed")
        );
        expected = without(&expected, set);
        assert!(contents(&world).await == expected);
    }
    assert_eq!(world.tops(), [image]);
    assert!(fs::read(&base).unwrap() == before);
    assert_in_order(&world, "imported chain").await;
    assert_gone(&world);
}

/// The process ends and another begins.
pub(super) fn again(world: World, passage: Passage) -> World {
    let (root, store) = (world.root.clone(), world.store.clone());
    drop(world);
    World::open(&root, store, passage)
}

fn points() -> impl Iterator<Item = &'static str> {
    FAILPOINTS.iter().chain(MERGE_FAILPOINTS).copied().skip(1)
}

#[tokio::test(start_paused = true)]
async fn a_step_that_fails_is_done_again() {
    for point in points() {
        let root = tempfile::tempdir().unwrap();
        let world = furnish(root.path(), 2).await;
        let sets = take(&world, 3).await;
        let expected = contents(&world).await;
        let failed = Mutex::new(false);
        let world = again(
            world,
            Box::new(move |name| {
                let mut failed = failed.lock().unwrap();
                if name == point && !*failed {
                    *failed = true;
                    return Err(FailedOnOrder(name.to_owned()));
                }
                Ok(())
            }),
        );
        if point == "destroy.intent.after" {
            assert!(start(&world, sets[1]).await.is_err());
            assert!(contents(&world).await == expected, "{point}");
            continue;
        }
        let job = destroy(&world, sets[1]).await;
        assert!(
            job.status.english().ends_with("is destroyed"),
            "{point}: {}",
            job.status.english()
        );
        assert!(
            contents(&world).await == without(&expected, sets[1]),
            "{point}"
        );
        assert_in_order(&world, point).await;
    }
}

/// The record beside the files is all that tells of the other members then.
#[tokio::test(start_paused = true)]
async fn a_member_that_goes_leaves_the_record_of_a_set_that_the_database_does_not_know() {
    let root = tempfile::tempdir().unwrap();
    let world = furnish(root.path(), 2).await;
    let set = take(&world, 1).await[0];
    let members = world.store.state().sets[&set].members.clone();
    let left = Arc::new(Mutex::new(None));
    let (folder, store, kept) = (world.root.clone(), world.store.clone(), left.clone());
    let world = again(
        world,
        Box::new(move |name| {
            if name == "destroy.job.after" {
                *kept.lock().unwrap() = Some(Left::take(&folder, &*store));
            }
            Ok(())
        }),
    );
    let wish = request(set, Some(members[0].id));
    world.coordinator.destroy(wish).await.unwrap();
    world.coordinator.idle().await;
    let left = left.lock().unwrap().take().unwrap();
    let store = left.restore(&world.root).await;
    let lost = store.transact(Box::new(move |_| vec![Change::RemoveSet(set)]));
    lost.await.unwrap();
    let folder = world.root.clone();
    drop(world);
    let world = World::open(&folder, store, Box::new(|_| Ok(())));
    world.coordinator.recover().await.unwrap();
    world.coordinator.idle().await;
    let record = record::read(&folder.join("data"), set).unwrap();
    let stay = record.unwrap().unwrap().set.members;
    assert_eq!(stay, [members[1].clone()]);
}

/// Its client is told "failed", and the next start must not carry it out: the server stops before anybody builds on that.
#[tokio::test(start_paused = true)]
async fn a_refused_request_whose_journal_cannot_be_removed_stops_the_server_and_is_dropped() {
    let root = tempfile::tempdir().unwrap();
    let world = furnish(root.path(), 2).await;
    let sets = take(&world, 2).await;
    let expected = contents(&world).await;
    let folder = world.root.join("data/journal");
    let moved = Arc::new(Mutex::new(None));
    let (journals, found) = (folder.clone(), moved.clone());
    let world = again(
        world,
        Box::new(move |name| {
            if name != "destroy.intent.after" {
                return Ok(());
            }
            // Something else stands in its place.
            let files = fs::read_dir(&journals).unwrap().map(|f| f.unwrap().path());
            let mut files = files.filter(|f| !is_spare(f));
            let file = files.next().unwrap();
            let aside = file.with_extension("aside");
            fs::rename(&file, &aside).unwrap();
            fs::write(&file, "").unwrap();
            *found.lock().unwrap() = Some((file, aside));
            Err(FailedOnOrder(name.to_owned()))
        }),
    );
    let fatal = world.coordinator.fatal();
    assert!(start(&world, sets[0]).await.is_err());
    let stopped = tokio::time::timeout(std::time::Duration::from_secs(60), fatal).await;
    assert!(stopped.is_ok(), "it goes on");
    let (file, aside) = moved.lock().unwrap().take().unwrap();
    fs::rename(aside, &file).unwrap();
    let world = again(world, Box::new(|_| Ok(())));
    let recovered = world.coordinator.recover().await.unwrap();
    assert!(recovered.finished.is_empty(), "{recovered:?}");
    world.coordinator.idle().await;
    assert!(!file.exists());
    assert!(contents(&world).await == expected);
}

#[tokio::test(start_paused = true)]
async fn a_kill_at_every_step_is_gone_on_from() {
    for (point, nth) in points().flat_map(|p| [(p, 1), (p, 2)]) {
        let root = tempfile::tempdir().unwrap();
        let world = furnish(root.path(), 2).await;
        let sets = take(&world, 3).await;
        let expected = without(&contents(&world).await, sets[1]);
        let left = Arc::new(Mutex::new((0, None)));
        let (folder, store, kept) = (world.root.clone(), world.store.clone(), left.clone());
        let world = again(
            world,
            Box::new(move |name| {
                let mut kept = kept.lock().unwrap();
                if name == point {
                    kept.0 += 1;
                    if kept.0 == nth {
                        kept.1 = Some(Left::take(&folder, &*store));
                    }
                }
                Ok(())
            }),
        );
        destroy(&world, sets[1]).await;
        let ours = world.ours();
        let Some(left) = left.lock().unwrap().1.take() else {
            assert_eq!(nth, 2, "{point} is never passed");
            continue;
        };
        let store = left.restore(&world.root).await;
        let folder = world.root.clone();
        drop(world);
        let world = World::open(&folder, store, Box::new(|_| Ok(())));
        let recovered = world.coordinator.recover().await.unwrap();
        assert!(recovered.stuck.is_empty(), "{point}: {recovered:?}");
        assert!(recovered.orphans.is_empty(), "{point}: {recovered:?}");
        world.coordinator.idle().await;
        assert!(
            world.jobs.all().iter().all(|j| j.state.is_terminal()),
            "{point}"
        );
        assert!(contents(&world).await == expected, "{point} #{nth}");
        assert_eq!(world.ours(), ours, "{point} #{nth}");
        assert_in_order(&world, point).await;
    }
}

/// Other machines are cleaned up at the same time: a file that goes while we look is no reason to give up.
#[tokio::test]
async fn a_file_that_is_missing_for_a_moment_keeps_no_layer() {
    let root = tempfile::tempdir().unwrap();
    let world = furnish(root.path(), 2).await;
    let sets = take(&world, 3).await;
    let expected = without(&contents(&world).await, sets[1]);
    let top = world.tops().pop().unwrap();
    let aside = top.with_extension("aside");
    let world = again(
        world,
        Box::new(move |name| {
            if name == "destroy.clean.before" {
                fs::rename(&top, &aside).unwrap();
                let (top, aside) = (top.clone(), aside.clone());
                std::thread::spawn(move || {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                    fs::rename(aside, top).unwrap();
                });
            }
            Ok(())
        }),
    );
    let job = destroy(&world, sets[1]).await;
    let status = job.status.english();
    assert!(status.ends_with("is destroyed"), "{status}");
    assert!(contents(&world).await == expected);
    assert_in_order(&world, "missing for a moment").await;
}

#[tokio::test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
async fn a_running_member_refuses_it() {
    let root = tempfile::tempdir().unwrap();
    let world = furnish(root.path(), 1).await;
    let sets = take(&world, 1).await;
    let running = tools::Opened::new(&world.tops()[0], &[]);
    match start(&world, sets[0]).await {
        Err(Refused::InvalidState(text)) => assert!(text.english().contains("m0"), "{text:?}"),
        other => panic!("{other:?}"),
    }
    drop(running);
    assert_eq!(destroy(&world, sets[0]).await.state, JobState::Completed);
    assert_gone(&world);
}

/// What is kept for who finds no room is let go for want of room only; each time another file has it then.
#[tokio::test(start_paused = true)]
async fn only_want_of_room_has_a_delete_let_the_ballast_go() {
    for full in [false, true] {
        let root = tempfile::tempdir().unwrap();
        let world = furnish(root.path(), 1).await;
        let sets = take(&world, 1).await;
        let ballast = root.path().join("data/groupshot.ballast");
        let kept = || fs::metadata(&ballast).map(|m| (m.ino(), m.ctime(), m.ctime_nsec()));
        let before = kept().unwrap();
        let (store, once) = (world.store.clone(), Mutex::new(Some(())));
        let world = again(
            world,
            Box::new(move |name| {
                if name != "destroy.publish.before" || once.lock().unwrap().take().is_none() {
                    return Ok(());
                }
                match full {
                    true => store.fail_next(StoreError::Full(FULL.text())),
                    false => return Err(FailedOnOrder(name.to_owned())),
                }
                Ok(())
            }),
        );
        assert_eq!(destroy(&world, sets[0]).await.state, JobState::Completed);
        assert_eq!(kept().ok() == Some(before), !full, "full: {full}");
    }
}

/// A coordinator whose first merge waits until it is let go; `true` comes when it has begun.
fn held_merge(world: World) -> (World, Receiver<()>, Sender<()>) {
    let ((tell, begun), (go, may_go)) = (mpsc::channel(), mpsc::channel());
    let gate = Mutex::new(Some((tell, may_go)));
    let world = again(
        world,
        Box::new(move |name| {
            if name == "destroy.merge.before"
                && let Some((tell, may_go)) = gate.lock().unwrap().take()
            {
                tell.send(()).unwrap();
                may_go.recv().unwrap();
            }
            Ok(())
        }),
    );
    (world, begun, go)
}

/// `docs/cut.md` §4: for clients the set is gone from the acceptance on; a cancel only leaves merges for later.
#[tokio::test]
async fn a_cancel_leaves_merges_for_later_and_the_next_destroy_goes_on_with_them() {
    for (kind, state) in [
        (CancelKind::Terminate, JobState::Terminated),
        (CancelKind::Kill, JobState::Killed),
    ] {
        let root = tempfile::tempdir().unwrap();
        let world = furnish(root.path(), 2).await;
        let sets = take(&world, 3).await;
        let mut expected = without(&contents(&world).await, sets[1]);
        let before = world.ours();
        let (world, begun, go) = held_merge(world);
        let accepted = start(&world, sets[1]).await.unwrap();
        tokio::task::spawn_blocking(move || begun.recv().unwrap())
            .await
            .unwrap();
        assert!(world.jobs.get(accepted.job).unwrap().cancellable);
        let cancelled = world.jobs.cancel(accepted.job, kind, "ann").await;
        assert_eq!(cancelled, Ok(Cancelled::Accepted));
        go.send(()).unwrap();
        let job = world.end(accepted).await;
        let error = job.error.unwrap();
        assert_eq!((job.state, error.code), (state, 32768), "{error:?}");
        assert!(job.percent < 100, "{}", job.percent);
        let said = error.description.english();
        for part in [" is destroyed", "hidden layers: 2", "pending", "by ann"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(!world.store.state().sets.contains_key(&sets[1]));
        assert!(contents(&world).await == expected, "{said}");
        let left: Vec<_> = world.ours();
        let gone = before.iter().filter(|f| !left.contains(f));
        assert!(
            gone.clone()
                .all(|f| f.extension().is_none_or(|e| e != "qcow2")),
            "{gone:?}"
        );
        assert_in_order(&world, "cancelled").await;
        let job = destroy(&world, sets[2]).await;
        assert!(
            job.status.english().ends_with("is destroyed"),
            "{}",
            job.status.english()
        );
        expected = without(&expected, sets[2]);
        assert!(contents(&world).await == expected, "later");
        assert_in_order(&world, "later").await;
        destroy(&world, sets[0]).await;
        assert_gone(&world);
    }
}
