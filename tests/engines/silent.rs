//! The library beside a file that does not answer, as one on a hung mount.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, yield_now};
use std::time::Duration;

use groupshot::clock::ManualClock;
use groupshot::engine::import::{NewDisk, NewMachine, import};
use groupshot::engine::library::Library;
use groupshot::engine::qcow2::chain::Roots;
use groupshot::engine::{Compute, Top};
use groupshot::held;
use groupshot::id::VmId;
use groupshot::inventory::{Format, RunState};
use jiff::Timestamp;
use tempfile::TempDir;

use crate::support::remote::Remote;
use crate::support::tools::Opened;

fn machine(data: &Path, name: &str, image: &Path) -> VmId {
    let disk = NewDisk {
        id: None,
        file: image.to_owned(),
        format: Some(Format::Raw),
    };
    let new = NewMachine {
        name: name.into(),
        disks: vec![disk],
        overlay_ok: true,
        accept_images: false,
        sockets: Default::default(),
        unmanaged_ok: false,
    };
    import(data, &new, &Roots::default(), Timestamp::UNIX_EPOCH)
        .unwrap()
        .id
}

const SECOND: Duration = Duration::from_secs(1);

/// A data directory with a machine on the host's file system and one on a file that can hang.
struct Scene {
    folder: TempDir,
    data: PathBuf,
    remote: Remote,
    healthy: VmId,
    hung: VmId,
    clock: Arc<ManualClock>,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        let image = folder.path().join("a.raw");
        fs::write(&image, [1; 4096]).unwrap();
        let remote = Remote::new(folder.path(), "remote");
        Self {
            healthy: machine(&data, "healthy", &image),
            hung: machine(&data, "hung", &remote.image),
            clock: ManualClock::at(Timestamp::UNIX_EPOCH),
            folder,
            data,
            remote,
        }
    }

    fn open(&self) -> Library {
        Library::open(&self.data, self.clock.clone()).unwrap()
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_file_that_does_not_answer_keeps_no_machine_but_its_own_from_work() {
    let scene = Scene::new();
    let (data, remote, clock) = (&scene.data, &scene.remote, &scene.clock);
    let (healthy, hung) = (scene.healthy, scene.hung);
    let [image, other, third] = ["a.raw", "b.raw", "c.raw"].map(|n| scene.folder.path().join(n));
    for file in [&other, &third] {
        fs::write(file, [1; 4096]).unwrap();
    }
    let library = scene.open();
    assert_eq!(library.machines().len(), 2);
    let known = library.machine(hung).unwrap();

    remote.stop();
    clock.advance(SECOND);
    assert_eq!(library.machines().len(), 2, "shown as they were");
    while !held::give_up(&remote.image) {
        yield_now(); // until the look stands there
    }
    assert_eq!(library.silent(hung).as_deref(), Some(&*remote.image));
    assert!(library.silent(healthy).is_none());
    library.catch_up();
    assert!(library.observed().is_ailing(hung) && !library.observed().is_ailing(healthy));
    // What happens to other machines is seen.
    let qemu = Opened::new(&image, &[]);
    let new = machine(data, "new", &third);
    clock.advance(SECOND);
    library.catch_up();
    assert_eq!(library.observed().state(healthy), RunState::Held);
    assert_eq!(library.observed().state(hung), RunState::Off);
    assert!(library.machine(new).is_some());
    assert_eq!(library.machine(hung).unwrap(), known);
    drop(qemu);
    // All that an operation on another machine needs.
    assert_eq!(library.state(healthy), RunState::Off);
    assert!(library.misnamed(healthy).is_none());
    let held = library.hold(&library.machine(healthy).unwrap()).unwrap();
    let top = Top {
        file: other.clone(),
        format: Format::Raw,
    };
    library
        .set_tops(healthy, &BTreeMap::from([("disk0".into(), top)]))
        .unwrap();
    assert_eq!(library.machine(healthy).unwrap().disks[0].file, other);
    drop(held);

    remote.go_on();
    while library.silent(hung).is_some() {
        yield_now();
    }
    clock.advance(SECOND);
    library.catch_up();
    assert_eq!(library.machines().len(), 3);
    let shown = library.machine(healthy).unwrap();
    assert_eq!(shown.disks[0].file, other, "the late look is of before");
    assert!(!library.observed().is_ailing(hung));
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_library_opens_while_a_file_does_not_answer_and_knows_the_rest() {
    let scene = Scene::new();
    let (remote, clock) = (&scene.remote, &scene.clock);
    let (healthy, hung) = (scene.healthy, scene.hung);
    let open = || scene.open();
    let size = open().machine(hung).unwrap().disks[0].size;
    remote.stop();
    let library = thread::scope(|scope| {
        let opening = scope.spawn(open);
        while !opening.is_finished() {
            held::give_up(&remote.image);
            yield_now();
        }
        opening.join().unwrap()
    });
    assert!(library.machine(healthy).is_some());
    let shown = library.machine(hung).unwrap();
    assert_eq!(shown.disks[0].size, size, "as it was recorded");
    assert!(library.observed().is_ailing(hung) && library.silent(hung).is_some());
    remote.go_on();
    while library.silent(hung).is_some() {
        yield_now();
    }
    clock.advance(SECOND);
    library.catch_up();
    assert!(!library.observed().is_ailing(hung));
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_runs_is_shown_by_the_look_and_told_at_once_to_who_must_know() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    let image = folder.path().join("a.raw");
    fs::write(&image, [1; 4096]).unwrap();
    let id = machine(&data, "web", &image);
    let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
    let library = Library::open(&data, clock.clone()).unwrap();
    let qemu = Opened::new(&image, &[]);
    assert_eq!(library.state(id), RunState::Held);
    assert_eq!(
        library.observed().state(id),
        RunState::Off,
        "no file is opened to show it"
    );
    clock.advance(SECOND);
    library.catch_up();
    assert_eq!(library.observed().state(id), RunState::Held);
    drop(qemu);
    clock.advance(SECOND);
    library.catch_up();
    assert_eq!(library.observed().state(id), RunState::Off);
}
