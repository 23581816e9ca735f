//! The library beside a file that does not answer: an image on a FUSE file system whose process stands still, as one
//! on a hung mount.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::yield_now;
use std::time::Duration;

use groupshot::clock::ManualClock;
use groupshot::engine::import::{NewDisk, NewMachine, import};
use groupshot::engine::library::Library;
use groupshot::engine::qcow2::chain::Roots;
use groupshot::engine::{Compute, Top};
use groupshot::id::VmId;
use groupshot::inventory::{Format, PowerState};
use jiff::Timestamp;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::tools::{Opened, full};

/// A file that `qemu-storage-daemon` serves over FUSE.
struct Served {
    daemon: Child,
    file: PathBuf,
}

impl Served {
    fn new(folder: &Path) -> Self {
        let (image, file) = (folder.join("under.raw"), folder.join("served.raw"));
        for (path, length) in [(&image, 1 << 20), (&file, 0)] {
            File::create(path).unwrap().set_len(length).unwrap();
        }
        let daemon = Command::new("qemu-storage-daemon")
            .arg("--blockdev")
            .arg(format!(
                "driver=file,node-name=f,filename={}",
                image.display()
            ))
            .arg("--export")
            .arg(format!(
                "type=fuse,id=e,node-name=f,writable=on,mountpoint={}",
                file.display()
            ))
            .stdin(Stdio::null())
            .spawn()
            .expect("install qemu-storage-daemon");
        let mut served = Self { daemon, file };
        while fs::metadata(&served.file).unwrap().len() == 0 {
            assert!(
                served.daemon.try_wait().unwrap().is_none(),
                "qemu-storage-daemon ended"
            );
            yield_now();
        }
        served
    }

    fn send(&self, signal: Signal) {
        let process = Pid::from_raw(i32::try_from(self.daemon.id()).unwrap());
        kill(process, signal).unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // On TERM it takes its mount away. A panic may have left it stopped.
        for signal in [Signal::SIGCONT, Signal::SIGTERM] {
            self.send(signal);
        }
        let _ = self.daemon.wait();
    }
}

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
    };
    import(data, &new, &Roots::default(), Timestamp::UNIX_EPOCH)
        .unwrap()
        .id
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_file_that_does_not_answer_keeps_no_machine_but_its_own_from_work() {
    if !full("an image on a hung file system") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    let (image, other) = (folder.path().join("a.raw"), folder.path().join("b.raw"));
    fs::write(&image, [1; 4096]).unwrap();
    fs::write(&other, [2; 4096]).unwrap();
    let served = Served::new(folder.path());
    let healthy = machine(&data, "healthy", &image);
    let hung = machine(&data, "hung", &served.file);
    let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
    let library = Arc::new(Library::open(&data, clock.clone()).unwrap());
    assert_eq!(library.machines().len(), 2);

    served.send(Signal::SIGSTOP);
    // What the kernel still remembers of the file is asked for by an open no more.
    clock.advance(SECOND);
    assert_eq!(library.machines().len(), 2, "shown as they were");
    assert!(library.is_silent());
    // From here on nobody waits, however often they ask.
    for _ in 0..1000 {
        clock.advance(SECOND);
        assert_eq!(library.machines().len(), 2);
        assert_eq!(library.shown_state(hung), PowerState::Off);
        assert!(!library.is_ailing(healthy) && library.trouble(healthy).is_none());
    }
    // All that an operation on the other machine needs.
    assert_eq!(library.state(healthy), PowerState::Off);
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

    served.send(Signal::SIGCONT);
    while library.is_silent() {
        yield_now();
    }
    assert_eq!(
        library.machine(healthy).unwrap().disks[0].file,
        other,
        "the late look is of an older state"
    );
    clock.advance(SECOND);
    assert_eq!(library.machines().len(), 2);
    assert!(!library.is_silent());
}

#[test]
fn what_runs_is_shown_by_the_look_and_told_at_once_to_who_must_know() {
    if !full("a running machine") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    let image = folder.path().join("a.raw");
    fs::write(&image, [1; 4096]).unwrap();
    let id = machine(&data, "web", &image);
    let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
    let library = Library::open(&data, clock.clone()).unwrap();
    let qemu = Opened::new(&image, &[]);
    assert_eq!(library.state(id), PowerState::Running);
    assert_eq!(
        library.shown_state(id),
        PowerState::Off,
        "no file is opened to show it"
    );
    clock.advance(SECOND);
    assert_eq!(library.shown_state(id), PowerState::Running);
    drop(qemu);
    clock.advance(SECOND);
    assert_eq!(library.shown_state(id), PowerState::Off);
}
