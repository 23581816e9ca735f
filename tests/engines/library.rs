//! The library of machines: import with its refusals, renewal under a running server, tops, removal.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use groupshot::clock::ManualClock;
use groupshot::engine::import::{NewDisk, NewMachine, import, remove};
use groupshot::engine::library::{Library, scan};
use groupshot::engine::qcow2::chain::Roots;
use groupshot::engine::qcow2::writer::NewImage;
use groupshot::engine::{Compute, EngineError, EngineErrorKind, Hold, Runner, Stopped, Top};
use groupshot::id::VmId;
use groupshot::inventory::{Format, Machine, RunState, Sockets};
use jiff::Timestamp;

use crate::support::tools::{self, Opened};
use crate::support::until;

/// A data directory with a folder for images beside it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.0.path().join("data")).unwrap();
        place
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn raw(&self, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, vec![3; 4096]).unwrap();
        path
    }

    fn qcow2(&self, name: &str, backing: Option<&Path>) -> PathBuf {
        let path = self.0.path().join(name);
        let image = NewImage {
            size: 1 << 20,
            backing: backing.map(|b| (b, Format::Raw)),
        };
        image.write(&fs::File::create(&path).unwrap()).unwrap();
        path
    }

    fn import(&self, name: &str, images: &[&Path]) -> Result<Machine, EngineError> {
        let disks = images.iter().map(|i| disk(i, None)).collect();
        self.import_disks(name, disks)
    }

    fn import_disks(&self, name: &str, disks: Vec<NewDisk>) -> Result<Machine, EngineError> {
        let new = NewMachine {
            name: name.into(),
            disks,
            overlay_ok: true,
            accept_images: false,
            sockets: Default::default(),
            unmanaged_ok: false,
        };
        import(&self.data(), &new, &Roots::default(), Timestamp::UNIX_EPOCH)
    }

    fn open(&self) -> (Library, Arc<ManualClock>) {
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        (Library::open(&self.data(), clock.clone()).unwrap(), clock)
    }
}

fn disk(file: &Path, format: Option<Format>) -> NewDisk {
    NewDisk {
        id: None,
        file: file.to_owned(),
        format,
    }
}

const SECOND: Duration = Duration::from_millis(1000);

#[test]
fn an_imported_machine_is_in_the_library_with_its_images_where_they_were() {
    let place = Place::new();
    let (a, b) = (place.raw("a.raw"), place.qcow2("b.qcow2", None));
    let machine = place.import("web-1", &[&a, &b]).unwrap();
    let (library, _) = place.open();
    assert_eq!(*library.machine(machine.id).unwrap(), machine);
    assert_eq!(machine.created, Timestamp::UNIX_EPOCH);
    assert!(machine.definition.is_file() && machine.directory.is_dir());
    let disks: Vec<_> = machine
        .disks
        .iter()
        .map(|d| (d.id.as_str(), &d.file, d.size))
        .collect();
    assert_eq!(disks, [("disk0", &a, 4096), ("disk1", &b, 1 << 20)]);
    assert_eq!(library.state(machine.id), RunState::Off);
    assert_eq!(fs::read(&a).unwrap(), vec![3; 4096]);
}

#[test]
fn who_may_not_wait_is_given_the_machines_as_they_were_known_last() {
    let place = Place::new();
    let (library, clock) = place.open();
    place.import("web", &[&place.raw("a.raw")]).unwrap();
    clock.advance(SECOND);
    assert_eq!(
        library.observed().machines.len(),
        0,
        "no look is begun for it"
    );
    until("a look", || library.machines().len() == 1);
    assert_eq!(library.observed().machines.len(), 1);
}

#[test]
fn each_change_of_what_is_observed_is_published_and_nothing_else() {
    let place = Place::new();
    let (library, clock) = place.open();
    let mut observed = library.observe();
    let look = || {
        clock.advance(SECOND);
        library.catch_up();
    };
    let image = place.raw("a.raw");
    let machine = place.import("web", &[&image]).unwrap();
    assert!(!observed.has_changed().unwrap(), "nobody has looked");
    look();
    assert!(observed.has_changed().unwrap());
    let seen = Arc::clone(&observed.borrow_and_update());
    assert_eq!(*seen.machines[&machine.id], machine);
    assert_eq!(seen.state(machine.id), RunState::Off);
    assert!(!seen.is_ailing(machine.id) && seen.trouble(machine.id).is_none());
    look();
    assert!(!observed.has_changed().unwrap(), "nothing is new");

    fs::remove_file(&image).unwrap();
    look();
    assert!(observed.borrow_and_update().is_ailing(machine.id));
    let text = fs::read_to_string(&machine.definition).unwrap();
    fs::write(&machine.definition, format!("colour = 3\n{text}")).unwrap();
    look();
    let now = Arc::clone(&observed.borrow_and_update());
    let trouble = now.trouble(machine.id).unwrap().english();
    assert!(trouble.contains("colour"), "{trouble}");
    assert!(now.machines.is_empty() && seen.machines.len() == 1);
    // What this process records is shown before it says so.
    fs::write(&machine.definition, text).unwrap();
    fs::write(&image, [3; 4096]).unwrap();
    look();
    observed.mark_unchanged();
    let top = Top {
        file: place.raw("b.raw"),
        format: Format::Raw,
    };
    let tops = BTreeMap::from([("disk0".to_owned(), top.clone())]);
    library.set_tops(machine.id, &tops).unwrap();
    assert!(observed.has_changed().unwrap());
    let now = observed.borrow_and_update();
    assert_eq!(now.machines[&machine.id].disks[0].file, top.file);
}

#[test]
fn an_image_that_may_not_be_imported_is_named_with_its_reason() {
    let place = Place::new();
    let base = place.raw("base.raw");
    let used = place.raw("used.raw");
    place.import("other", &[&used]).unwrap();
    let magic = place.qcow2("magic.raw", None);
    let qcow2 = place.qcow2("a.qcow2", None);
    let over_used = place.qcow2("over-used.qcow2", Some(&used));
    let over_base = place.qcow2("over-base.qcow2", Some(&base));
    let kept = place.data().join("sets");
    fs::create_dir(&kept).unwrap();
    fs::write(kept.join("k.raw"), "").unwrap();
    let one = |file: &Path, format| vec![disk(file, format)];
    let named = |id: &str| NewDisk {
        id: Some(id.into()),
        ..disk(&base, None)
    };
    let image = place.raw("a.img");
    let unsayable = place.raw("a\u{1}b.raw");
    let table = [
        (one(&magic, None), "begins as a qcow2 image"),
        (one(&magic, Some(Format::Qcow2)), "named as raw"),
        (one(&qcow2, Some(Format::Raw)), "named as qcow2"),
        (one(&image, None), "raw is never guessed"),
        (one(&image, Some(Format::Qcow2)), "not a qcow2 image"),
        (
            one(Path::new("/dev/null"), Some(Format::Raw)),
            "not a regular file",
        ),
        (one(&place.0.path().join("no.raw"), None), "not there"),
        (one(&unsayable, None), "the character U+0001"),
        (one(&used, None), "already belongs to machine other"),
        (one(&over_used, None), "already belongs to machine other"),
        (
            vec![disk(&base, None), disk(&base, None)],
            "already belongs to machine m",
        ),
        (
            vec![disk(&over_base, None), disk(&base, None)],
            "already belongs to machine m",
        ),
        (one(&kept.join("k.raw"), None), "snapshot sets keep"),
        (vec![named("../x")], "../x"),
        (vec![], "at least one disk"),
    ];
    for (disks, word) in table {
        let error = place.import_disks("m", disks).unwrap_err();
        assert!(error.text.english().contains(word), "{word}: {error}");
        assert!(
            !error.text.english().contains('{'),
            "every place is filled: {error}"
        );
    }
    for (name, word) in [
        ("a\u{1b}b", "the character U+001B"),
        (&*"a".repeat(257), "at most 256 characters"),
    ] {
        let error = place.import(name, &[&base]).unwrap_err();
        assert!(error.text.english().contains(word), "{word}: {error}");
    }
    let roots = Roots::new(&[place.data()]);
    let new = NewMachine {
        name: "m".into(),
        disks: one(&base, None),
        overlay_ok: true,
        accept_images: false,
        sockets: Default::default(),
        unmanaged_ok: false,
    };
    let error = import(&place.data(), &new, &roots, Timestamp::UNIX_EPOCH).unwrap_err();
    assert_eq!(error.kind, EngineErrorKind::Denied);
    let (machines, problems) = scan(&place.data()).unwrap();
    assert_eq!(
        (machines.len(), problems.len()),
        (1, 0),
        "nothing was written"
    );
    let left = fs::read_dir(place.data().join("machines")).unwrap().count();
    assert_eq!(left, 3, "one machine, the lock and the names");
}

#[test]
fn machines_may_share_a_base_that_nobody_writes() {
    let place = Place::new();
    let base = place.raw("base.raw");
    for name in ["a", "b"] {
        let top = place.qcow2(&format!("{name}.qcow2"), Some(&base));
        place.import(name, &[&top]).unwrap();
    }
}

#[test]
fn a_running_server_notices_within_a_second_and_keeps_its_snapshot_till_then() {
    let place = Place::new();
    let (library, clock) = place.open();
    let before = library.machines();
    let machine = place.import("web-1", &[&place.raw("a.raw")]).unwrap();
    assert!(Arc::ptr_eq(&before, &library.machines()));
    clock.advance(SECOND);
    library.catch_up();
    let after = library.machines();
    assert_eq!(after.len(), 1);
    clock.advance(SECOND);
    library.catch_up();
    assert!(Arc::ptr_eq(&after, &library.machines()), "nothing changed");
    remove(&place.data(), machine.id, |_| Vec::new()).unwrap();
    clock.advance(SECOND);
    library.catch_up();
    assert!(library.machines().is_empty());
}

#[test]
fn a_broken_definition_is_left_out_and_listed_until_it_is_mended() {
    let place = Place::new();
    let good = place.import("good", &[&place.raw("a.raw")]).unwrap();
    let bad = place.import("bad", &[&place.raw("b.raw")]).unwrap();
    let text = fs::read_to_string(&bad.definition).unwrap();
    fs::write(&bad.definition, format!("colour = 3\n{text}")).unwrap();
    let (library, clock) = place.open();
    assert_eq!(library.machines().keys().collect::<Vec<_>>(), [&good.id]);
    let problems = library.problems_now();
    assert_eq!(problems[0].file, bad.definition);
    assert!(
        problems[0].text.english().contains("colour"),
        "{problems:?}"
    );
    fs::write(&bad.definition, text).unwrap();
    clock.advance(SECOND);
    library.catch_up();
    assert_eq!(library.machines().len(), 2);
    assert!(library.problems_now().is_empty());
}

#[test]
fn a_machine_whose_image_is_gone_stays_and_says_so() {
    let place = Place::new();
    let image = place.raw("a.raw");
    let machine = place.import("web-1", &[&image]).unwrap();
    let (library, clock) = place.open();
    fs::remove_file(&image).unwrap();
    clock.advance(SECOND);
    library.catch_up();
    assert_eq!(
        library.machine(machine.id).unwrap().disks[0].size,
        4096,
        "as last seen"
    );
    assert!(library.problems_now()[0].text.english().contains("a.raw"));
    assert_eq!(library.state(machine.id), RunState::Off);
    let error = library.hold(&machine).unwrap_err();
    assert_eq!(error.kind, EngineErrorKind::Missing);
}

#[test]
fn tops_outlive_the_server_and_the_definition_is_never_rewritten() {
    let place = Place::new();
    let (a, b) = (place.raw("a.raw"), place.raw("b.raw"));
    let machine = place.import("web-1", &[&a, &b]).unwrap();
    let written = fs::read(&machine.definition).unwrap();
    let folder = format!(
        "data/sets/{}/{}",
        groupshot::id::SetId::from_u128(1),
        machine.id
    );
    fs::create_dir_all(place.0.path().join(&folder)).unwrap();
    let top = place.qcow2(&format!("{folder}/disk0.qcow2"), Some(&a));
    let (library, _) = place.open();
    let tops = BTreeMap::from([(
        "disk0".to_owned(),
        Top {
            file: top.clone(),
            format: Format::Qcow2,
        },
    )]);
    library.set_tops(machine.id, &tops).unwrap();
    let rest = BTreeMap::from([("disk1".to_owned(), machine.tops()["disk1"].clone())]);
    library.set_tops(machine.id, &rest).unwrap();
    for library in [library, place.open().0] {
        let now = library.machine(machine.id).unwrap();
        assert_eq!(now.disks[0].file, top);
        assert_eq!(
            (now.disks[0].format, now.disks[0].size),
            (Format::Qcow2, 1 << 20)
        );
        assert_eq!(now.disks[1].file, b, "as it was");
        assert_eq!(now.created, Timestamp::UNIX_EPOCH);
    }
    assert_eq!(fs::read(&machine.definition).unwrap(), written);
    let error = place.import("other", &[&a]).unwrap_err();
    assert!(
        error.text.english().contains("web-1"),
        "still its base: {error}"
    );
}

#[test]
fn a_failed_write_of_tops_leaves_the_old_ones() {
    let place = Place::new();
    let machine = place.import("web-1", &[&place.raw("a.raw")]).unwrap();
    let (library, _) = place.open();
    // A directory stands where the new file would be written.
    fs::create_dir(machine.directory.join("tops.json.new")).unwrap();
    let tops = machine.tops();
    assert!(library.set_tops(machine.id, &tops).is_err());
    assert_eq!(*library.machine(machine.id).unwrap(), machine);
    let unknown = VmId::from_u128(1);
    let error = library.set_tops(unknown, &tops).unwrap_err();
    assert_eq!(error.kind, EngineErrorKind::Missing);
}

#[test]
fn a_machine_that_is_referred_to_or_held_is_not_removed() {
    let place = Place::new();
    let image = place.raw("a.raw");
    let machine = place.import("web-1", &[&image]).unwrap();
    let error = remove(&place.data(), machine.id, |_| vec!["`first`".to_owned()]).unwrap_err();
    assert!(
        error.text.english().contains("is needed by `first`"),
        "{error}"
    );
    let held = Hold::of(&machine).unwrap();
    let error = remove(&place.data(), machine.id, |_| Vec::new()).unwrap_err();
    assert_eq!(error.kind, EngineErrorKind::Locked);
    drop(held);
    remove(&place.data(), machine.id, |_| Vec::new()).unwrap();
    assert!(image.is_file() && !machine.directory.exists());
    let error = remove(&place.data(), machine.id, |_| Vec::new()).unwrap_err();
    assert_eq!(error.kind, EngineErrorKind::Missing);
}

/// Nobody knows then where its newest content is.
#[test]
fn a_machine_whose_active_files_cannot_be_read_is_not_removed() {
    let place = Place::new();
    let machine = place.import("web-1", &[&place.raw("a.raw")]).unwrap();
    let tops = machine.directory.join("tops.json");
    let whole = fs::read(&tops).unwrap();
    for spoiled in [None, Some("garbage = [")] {
        match spoiled {
            None => fs::remove_file(&tops).unwrap(),
            Some(text) => fs::write(&tops, text).unwrap(),
        }
        let error = remove(&place.data(), machine.id, |_| Vec::new()).unwrap_err();
        let told = error.text.english();
        for part in ["tops.json", "`groupshot doctor --fix`"] {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert!(machine.definition.is_file(), "{told}");
    }
    fs::write(&tops, whole).unwrap();
    remove(&place.data(), machine.id, |_| Vec::new()).unwrap();
}

#[test]
fn what_the_server_writes_is_for_its_group_only() {
    let place = Place::new();
    let machine = place.import("web-1", &[&place.raw("a.raw")]).unwrap();
    let others = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o007;
    assert_eq!(others(&machine.directory) + others(&machine.definition), 0);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_machine_that_something_runs_reads_running() {
    let place = Place::new();
    let image = place.raw("a.raw");
    let machine = place.import("web-1", &[&image]).unwrap();
    let (library, _) = place.open();
    let qemu = Opened::new(&image, &[]);
    assert_eq!(library.state(machine.id), RunState::Held);
    assert_eq!(
        library.hold(&machine).unwrap_err().kind,
        EngineErrorKind::Locked
    );
    drop(qemu);
    let _held = library.hold(&machine).unwrap();
    assert_eq!(
        library.state(machine.id),
        RunState::Off,
        "our own hold runs nothing"
    );
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn images_that_qemu_made_are_taken_or_refused() {
    let place = Place::new();
    let home = place.0.path().to_owned();
    let at = |name: &str| home.join(name).to_str().unwrap().to_owned();
    let make = |name: &str, options: &str| {
        let file = at(name);
        tools::run(
            "qemu-img",
            &["create", "-q", "-f", "qcow2", "-o", options, &file, "1M"],
        );
        PathBuf::from(file)
    };
    let snapshots = make("snapshots.qcow2", "compat=1.1");
    tools::run(
        "qemu-img",
        &["snapshot", "-c", "s1", snapshots.to_str().unwrap()],
    );
    let bitmap = make("bitmap.qcow2", "compat=1.1");
    tools::run(
        "qemu-img",
        &["bitmap", "--add", bitmap.to_str().unwrap(), "rp1"],
    );
    let luks = home.join("luks.qcow2");
    let secret = ["--object", "secret,id=s,data=x", "-q", "-f", "qcow2", "-o"];
    let luks_options = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    let rest = [luks_options, luks.to_str().unwrap(), "1M"];
    let create = [&["create"], &secret[..], &rest[..]].concat();
    // On a busy machine QEMU cannot always tell how long a key takes, and says so.
    let made = (0..20).any(|_| tools::try_run("qemu-img", &create).0);
    assert!(made, "no LUKS image");
    let data = make("data.qcow2", &format!("data_file={}", at("data.bin")));
    let table = [
        (make("v2.qcow2", "compat=0.10"), None),
        (make("zstd.qcow2", "compression_type=zstd"), None),
        (
            make("subclusters.qcow2", "extended_l2=on,cluster_size=128k"),
            None,
        ),
        (make("small.qcow2", "cluster_size=512"), None),
        (make("large.qcow2", "cluster_size=2M"), None),
        (make("lazy.qcow2", "lazy_refcounts=on"), None),
        (make("narrow.qcow2", "refcount_bits=1"), None),
        (bitmap, None),
        (snapshots, Some("internal snapshots")),
        (luks, Some("encrypted")),
        (data, Some("external data file")),
    ];
    for (file, refused) in table {
        let got = place.import("m", &[&file]).map_err(|e| e.text.english());
        match refused {
            None => assert_eq!(got.unwrap().disks[0].size, 1 << 20),
            Some(word) => assert!(got.unwrap_err().contains(word), "{}", file.display()),
        }
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_machine_has_ended_only_if_all_of_it_can_be_seen() {
    let place = Place::new();
    let library = Library::open(&place.data(), ManualClock::at(Timestamp::UNIX_EPOCH)).unwrap();
    let (old, new) = (place.raw("old"), place.0.path().join("new"));
    let sockets = Sockets {
        qmp: vec![place.0.path().join("qmp")],
        agent: None,
    };
    let stopped = Stopped {
        machine: VmId::from_u128(7),
        name: "web".to_owned(),
        sockets,
        runner: Runner::default(),
        files: vec![old.clone()],
        new_files: vec![new.clone()],
    };
    assert!(
        !library.has_ended(&stopped),
        "nobody has looked at its monitor"
    );
    let _followed = library.follow(&stopped);
    assert!(library.has_ended(&stopped));
    // Moved or on another file system, under a machine that runs.
    let away = place.0.path().join("away");
    fs::rename(&old, &away).unwrap();
    assert!(!library.has_ended(&stopped));
    fs::rename(&away, &old).unwrap();
    for file in [&old, &new] {
        let runs = Opened::new(&place.raw(file.file_name().unwrap().to_str().unwrap()), &[]);
        assert!(!library.has_ended(&stopped));
        drop(runs);
        assert!(library.has_ended(&stopped));
    }
    // Somebody is at its monitor, and says nothing.
    let _mute = std::os::unix::net::UnixListener::bind(&stopped.sockets.qmp[0]).unwrap();
    until("it is seen", || !library.has_ended(&stopped));
}
