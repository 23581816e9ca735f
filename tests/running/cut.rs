//! Sets of machines that QEMU runs: what is kept, how machines go on, and what somebody else does meanwhile.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::gate::Gate;
use crate::support::qemu::{Qemu, Sockets};
use crate::support::server::{Server, guards, run_in, text};
use crate::support::site::{Ground, Image, Machine, SIZE, Site, assert_holds, format};
use crate::support::wire::{Job, STARTED, Wire};
use crate::support::{tools, until};

/// What a server does to a machine that a dead one has left stopped.
pub(super) const SOON: Duration = Duration::from_secs(10);
pub(super) const FAILED: u64 = 10;
pub(super) const DONE: u64 = 7;
pub(super) const INVALID_STATE: u64 = 5;

/// A machine and what runs it.
pub(super) struct Guest {
    pub(super) machine: Machine,
    pub(super) sockets: Sockets,
    pub(super) qemu: Option<Qemu>,
}

impl Guest {
    /// A machine of these disks, each filled with `byte`, with both monitors.
    pub(super) fn new(site: &Site, name: &str, kinds: &[Image], byte: u8) -> Self {
        let sockets = Sockets::new();
        let images: Vec<_> = kinds
            .iter()
            .enumerate()
            .map(|(n, kind)| site.image(&format!("{name}-{n}"), *kind, byte))
            .collect();
        let monitors = [1, 2].map(|n| sockets.qmp(n));
        let mut args = vec!["--overlay-ok"];
        args.extend(images.iter().map(|it| it.to_str().unwrap()));
        for monitor in &monitors {
            args.extend(["--qmp", monitor.to_str().unwrap()]);
        }
        let content = vec![vec![byte; SIZE]; images.len()];
        Self {
            machine: site.import(name, &args, content),
            sockets,
            qemu: None,
        }
    }

    /// Starts it from its active files.
    pub(super) fn start(&mut self, site: &Site, more: &[&str]) {
        let disks = 0..self.machine.images.len();
        let drives: Vec<_> = disks
            .map(|n| {
                let top = site.top(&self.machine, n);
                format!("file={},format={},if=virtio", top.display(), format(&top))
            })
            .collect();
        let drives = drives.iter().flat_map(|it| ["-drive", it.as_str()]);
        let args: Vec<_> = drives.chain(more.iter().copied()).collect();
        self.qemu = Some(self.sockets.start(&args));
    }

    pub(super) fn qemu(&self) -> &Qemu {
        self.qemu.as_ref().unwrap()
    }

    pub(super) fn tell(&self, command: &str, arguments: &Value) -> Value {
        self.qemu().tell(command, arguments)
    }

    pub(super) fn status(&self) -> String {
        let told = self.tell("query-status", &json!({}));
        told["status"].as_str().unwrap().to_owned()
    }

    /// The guest writes to a disk.
    pub(super) fn write(&mut self, disk: usize, offset: usize, length: usize, byte: u8) {
        let line = format!("qemu-io virtio{disk} \"write -P {byte} {offset} {length}\"");
        self.tell("human-monitor-command", &json!({"command-line": line}));
        self.machine.content[disk][offset..offset + length].fill(byte);
    }

    pub(super) fn quit(&mut self) {
        self.qemu.take().unwrap().quit();
    }

    /// How many nodes its QEMU has.
    pub(super) fn nodes(&self) -> usize {
        let nodes = self.tell("query-named-block-nodes", &json!({"flat": true}));
        nodes.as_array().unwrap().len()
    }
}

/// Waits until the server knows it as running, paused or off.
pub(super) fn known(server: &Server, name: &str, state: &str) {
    let until = Instant::now() + SOON;
    loop {
        let shown = server.local(&["--json", "vm", "show", name]);
        let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
        if shown["state"] == state {
            return;
        }
        assert!(Instant::now() < until, "{name}: {shown}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(super) fn crash(name: &str) -> [(&str, &str); 2] {
    [("ElementName", name), ("ConsistencyLevel", "2")]
}

/// Begins a set that captures machines as they are; its job and id.
pub(super) fn begin(wire: &Wire, group: &str, name: &str) -> (String, String) {
    let created = wire.create_with(group, &crash(name)).unwrap();
    assert_eq!(created.value, STARTED, "{}", wire.why(&created));
    (created.job.unwrap(), created.set.unwrap())
}

pub(super) fn take(wire: &Wire, group: &str, name: &str) -> String {
    let (job, set) = begin(wire, group, name);
    let job = wire.end(&job).unwrap();
    assert_eq!((job.state, job.code), (DONE, 0), "{job:?}");
    set
}

/// The file that a set keeps of a disk.
fn kept(wire: &Wire, set: &str, machine: &Machine, disk: usize) -> PathBuf {
    let shown = wire.shown().unwrap();
    let mut members = shown.sets[set].members.iter();
    let member = members.find(|it| it.machine == machine.id).unwrap();
    member.disks[&format!("disk{disk}")].clone()
}

pub(super) fn holds(wire: &Wire, set: &str, machine: &Machine, what: &str) {
    for (disk, content) in machine.content.iter().enumerate() {
        let file = kept(wire, set, machine, disk);
        assert_holds(&file, content, &format!("{what}: disk{disk}"));
    }
}

/// The set is refused, for this reason.
fn refused(wire: &Wire, group: &str, words: &[&str]) {
    let created = wire.create_with(group, &crash("no")).unwrap();
    let why = wire.why(&created);
    assert_eq!(created.value, INVALID_STATE, "{why}");
    for word in words {
        assert!(why.contains(word), "{word}: {why}");
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn running_paused_and_off_machines_are_captured_by_clones_and_are_as_before_afterwards() {
    let site = Site::new(Ground::Xfs);
    let mut web = Guest::new(&site, "web", &[Image::Chain, Image::Raw], 1);
    let mut idle = Guest::new(&site, "idle", &[Image::Qcow2], 2);
    let cold = site.machine("cold", &[Image::Qcow2], 3);
    let server = site.serve();
    let wire = Wire::new(&server);
    let ids = [&web.machine.id, &idle.machine.id, &cold.id].map(String::as_str);
    let group = wire.define("all", &ids).unwrap();
    web.start(&site, &[]);
    idle.start(&site, &[]);
    idle.tell("stop", &json!({}));
    known(&server, "web", "running");
    known(&server, "idle", "paused");
    web.write(0, 65536, 131_072, 7);
    web.write(1, 4096, 8192, 8);
    let set = take(&wire, &group, "first");
    let then = web.machine.clone();
    assert_eq!(
        (web.status(), idle.status()),
        ("running".into(), "paused".into())
    );
    web.write(0, 0, SIZE, 9);
    web.write(1, 0, SIZE, 9);
    holds(&wire, &set, &then, "web");
    holds(&wire, &set, &idle.machine, "idle");
    holds(&wire, &set, &cold, "cold");
    // A second one, of what is there now.
    let second = take(&wire, &group, "second");
    holds(&wire, &second, &web.machine, "web");
    holds(&wire, &set, &then, "web");
    // A clone is needed by nobody; and nothing is put back under a machine that runs.
    let applied = wire.apply(&set).unwrap();
    assert_eq!(applied.value, INVALID_STATE);
    assert!(wire.why(&applied).contains("web"), "{}", wire.why(&applied));
    let destroyed = wire.destroy(&set).unwrap();
    let job = wire.end(&destroyed.job.unwrap()).unwrap();
    assert_eq!((job.state, job.code), (DONE, 0), "{job:?}");
    assert_eq!(web.status(), "running");
    web.quit();
    idle.quit();
    known(&server, "web", "off");
    holds(&wire, &second, &web.machine, "web");
    site.wait_for_journals();
}

/// What somebody else does while the set is taken.
type Act = fn(&Guest);

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_somebody_else_does_to_a_machine_meanwhile_fails_its_set() {
    let site = Site::new(Ground::Xfs);
    let mut web = Guest::new(&site, "web", &[Image::Qcow2], 1);
    let other = site.image("other", Image::Raw, 2);
    web.start(&site, &["-device", "virtio-scsi-pci,id=scsi"]);
    let add =
        json!({"driver": "raw", "node-name": "new", "file": {"driver": "file", "filename": other}});
    web.tell("blockdev-add", &add);
    let table: [(&str, &str, Act); 8] = [
        ("create.stop.before", "exports", |web| {
            let socket = web.sockets.path().join("nbd");
            let address = json!({"type": "unix", "data": {"path": socket}});
            web.tell("nbd-server-start", &json!({"addr": address}));
            let node = web.tell("query-block", &json!({}))[0]["inserted"]["node-name"].clone();
            let export = json!({"type": "nbd", "id": "out", "node-name": node, "writable": false});
            web.tell("block-export-add", &export);
        }),
        ("create.stop.before", "copy0", |web| {
            let copy = web.sockets.path().join("copy");
            let mirror = json!({"job-id": "copy0", "device": "virtio0", "target": copy, "sync": "full", "format": "raw"});
            web.tell("drive-mirror", &mirror);
        }),
        ("create.stop.after", "resumed", |web| {
            web.tell("cont", &json!({}));
        }),
        ("create.capture.after", "resumed", |web| {
            web.tell("cont", &json!({}));
        }),
        ("create.stop.after", "reset", |web| {
            web.tell("system_reset", &json!({}));
        }),
        ("create.stop.before", "paused", |web| {
            web.tell("stop", &json!({}));
        }),
        ("create.stop.before", "disk0", |web| grows(web, 0, 2 * SIZE)),
        ("create.stop.after", "disk0", |web| grows(web, 0, 3 * SIZE)),
    ];
    for (point, word, act) in table {
        let gate = Gate::new();
        let mut server = site.serve_with(&[&gate.at(point)]);
        let wire = Wire::new(&server);
        let group = wire.define("all", &[&web.machine.id]).unwrap();
        known(&server, "web", "running");
        let (job, _) = begin(&wire, &group, "set");
        gate.reached();
        act(&web);
        gate.open();
        fails(&wire, &job, word);
        // Whoever has stopped it before lets it go.
        let stands = word == "paused";
        assert_eq!(web.status(), if stands { "paused" } else { "running" });
        if stands {
            web.tell("cont", &json!({}));
        }
        site.wait_for_journals();
        assert!(site.kept().is_empty(), "{word}: {:?}", site.kept());
        server.stop();
        if word == "exports" {
            web.tell("block-export-del", &json!({"id": "out"}));
        }
        for job in web.tell("query-block-jobs", &json!({})).as_array().unwrap() {
            let end = json!({"device": job["device"], "force": true});
            web.tell("block-job-cancel", &end);
            while web.tell("query-jobs", &json!({})) != json!([]) {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
    // One more disk.
    let gate = Gate::new();
    let server = site.serve_with(&[&gate.at("create.stop.before")]);
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&web.machine.id]).unwrap();
    known(&server, "web", "running");
    let (job, _) = begin(&wire, &group, "set");
    gate.reached();
    let plug = json!({"driver": "scsi-hd", "bus": "scsi.0", "drive": "new", "id": "plugged"});
    web.tell("device_add", &plug);
    gate.open();
    fails(&wire, &job, "plugged");
    assert_eq!(web.status(), "running");
    // Now it is seen before.
    refused(&wire, &group, &["web", "plugged", "other.raw"]);
    web.quit();
}

/// Gives a disk another size.
fn grows(web: &Guest, disk: usize, size: usize) {
    let device = format!("virtio{disk}");
    web.tell("block_resize", &json!({"device": device, "size": size}));
}

pub(super) fn fails(wire: &Wire, job: &str, word: &str) -> Job {
    let job = wire.end(job).unwrap();
    assert_eq!(job.state, FAILED, "{word}: {job:?}");
    assert!(
        job.error.contains(word) && job.error.contains("web"),
        "{word}: {job:?}"
    );
    job
}

/// Whether a process of ours keeps everybody else from a file: it has the byte that QEMU does not use.
fn is_held(file: &Path) -> bool {
    let file = std::fs::File::open(file).unwrap();
    let mut lock = libc::flock {
        l_type: libc::F_WRLCK.try_into().unwrap(),
        l_whence: libc::SEEK_SET.try_into().unwrap(),
        l_start: 301,
        l_len: 1,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock)).unwrap();
    i32::from(lock.l_type) != libc::F_UNLCK
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_machine_that_dies_while_its_set_is_taken_fails_it_and_the_others_go_on() {
    let site = Site::new(Ground::Xfs);
    let mut web = Guest::new(&site, "web", &[Image::Qcow2], 1);
    let mut db = Guest::new(&site, "db", &[Image::Raw], 2);
    web.start(&site, &[]);
    db.start(&site, &[]);
    let gate = Gate::new();
    let server = site.serve_with(&[&gate.at("create.stop.after")]);
    let wire = Wire::new(&server);
    let ids = [&web.machine.id, &db.machine.id].map(String::as_str);
    let group = wire.define("all", &ids).unwrap();
    known(&server, "web", "running");
    known(&server, "db", "running");
    let (job, _) = begin(&wire, &group, "set");
    gate.reached();
    web.qemu().signal(Signal::SIGKILL);
    web.qemu = None;
    // Nobody starts it on a file of which it is not decided yet what becomes of it.
    until("it is closed", || is_held(&web.machine.images[0]));
    assert!(!is_held(&db.machine.images[0]), "its QEMU has that");
    gate.open();
    fails(&wire, &job, "shut down");
    assert_eq!(db.status(), "running");
    known(&server, "web", "off");
    site.wait_for_journals();
    assert!(!is_held(&web.machine.images[0]), "it is decided");
    assert!(site.kept().is_empty(), "{:?}", site.kept());
    web.start(&site, &[]);
    known(&server, "web", "running");
    let set = take(&wire, &group, "set");
    holds(&wire, &set, &web.machine, "web");
    holds(&wire, &set, &db.machine, "db");
    web.quit();
    db.quit();
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_server_that_dies_in_the_window_leaves_machines_to_its_guard_and_the_set_to_the_next_start() {
    let site = Site::new(Ground::Xfs);
    let mut web = Guest::new(&site, "web", &[Image::Qcow2, Image::Raw], 1);
    web.start(&site, &[]);
    for (point, whole) in [
        ("create.stop.after", false),
        ("create.capture.after", false),
        ("create.word.after", true),
        ("create.resume.after", true),
    ] {
        let mut server = site.serve_with(&[&format!("{point}=abort")]);
        let wire = Wire::new(&server);
        let group = wire.define("all", &[&web.machine.id]).unwrap();
        known(&server, "web", "running");
        let before = wire.shown().unwrap().sets;
        // It may be dead before it has answered.
        let _answer = wire.create_with(&group, &crash("set"));
        assert!(server.wait(SOON).is_some(), "{point} was never passed");
        let died = Instant::now();
        while web.status() != "running" {
            assert!(died.elapsed() < SOON, "{point}: it stands still");
            std::thread::sleep(Duration::from_millis(5));
        }
        while !guards(&site.data).is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let found = text(&run_in(&site.data, &["doctor"], "").stdout);
        // A server that has let it go has told the guard so.
        let by_guard = found.contains("its guard let web go");
        assert_eq!(by_guard, point != "create.resume.after", "{point}: {found}");
        eprintln!(
            "{point}: it ran again {:?} after it was seen dead",
            died.elapsed()
        );
        let server = site.serve();
        let wire = Wire::new(&server);
        known(&server, "web", "running");
        assert_eq!(web.status(), "running", "{point}");
        site.wait_for_journals();
        let sets = wire.shown().unwrap().sets;
        let new: Vec<_> = sets.keys().filter(|id| !before.contains_key(*id)).collect();
        assert_eq!(new.len(), usize::from(whole), "{point}");
        for set in new {
            holds(&wire, set, &web.machine, point);
        }
    }
    web.quit();
}

fn die(server: &mut Server) {
    let pid = Pid::from_raw(server.pid().try_into().unwrap());
    kill(pid, Signal::SIGKILL).unwrap();
    assert!(server.wait(SOON).is_some());
}

/// However long it takes; and whoever looks meanwhile is told.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_qemu_that_hangs_when_its_server_dies_is_waited_for_by_the_guard() {
    let site = Site::new(Ground::Xfs);
    let mut web = Guest::new(&site, "web", &[Image::Qcow2], 1);
    web.start(&site, &[]);
    let gate = Gate::new();
    let mut server = site.serve_with(&[&gate.at("create.stop.after")]);
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&web.machine.id]).unwrap();
    known(&server, "web", "running");
    let _begun = begin(&wire, &group, "set");
    gate.reached();
    assert_eq!(web.status(), "paused");
    web.qemu().signal(Signal::SIGSTOP);
    die(&mut server);
    std::thread::sleep(Duration::from_secs(10));
    assert_eq!(guards(&site.data).len(), 1, "the guard is at work");
    let found = text(&run_in(&site.data, &["doctor"], "").stdout);
    assert!(found.contains("web: stuck"), "{found}");
    web.qemu().signal(Signal::SIGCONT);
    let until = Instant::now() + SOON;
    while web.status() != "running" {
        assert!(Instant::now() < until, "it stands still");
        std::thread::sleep(Duration::from_millis(20));
    }
    while !guards(&site.data).is_empty() {
        assert!(Instant::now() < until, "the guard does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    let found = text(&run_in(&site.data, &["doctor"], "").stdout);
    assert!(
        found.contains("its guard let web go") && !found.contains("stuck"),
        "{found}"
    );
    let told = text(&run_in(&site.data, &["rescue"], "").stdout);
    assert!(told.contains("undone"), "{told}");
    web.quit();
}

/// It runs, and nothing that its guest writes gets to its disk.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_merge_that_a_dead_server_has_left_before_its_last_step_is_ended_by_the_guard() {
    let site = Site::new(Ground::Ext4);
    let mut web = Guest::new(&site, "web", &[Image::Qcow2], 1);
    web.start(&site, &[]);
    let gate = Gate::new();
    let orders = [
        gate.at("create.abort.after"),
        "create.word.before=error".to_owned(),
    ];
    let mut server = site.serve_with(&[&orders[0], &orders[1]]);
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&web.machine.id]).unwrap();
    known(&server, "web", "running");
    let _begun = begin(&wire, &group, "set");
    gate.reached();
    assert_eq!(web.status(), "running");
    assert_eq!(guards(&site.data).len(), 1, "it watches the undo");
    web.write(0, 65536, 65536, 9);
    // As the server does, and no further.
    let blocks = web.tell("query-block", &json!({}));
    let overlay = blocks[0]["inserted"]["node-name"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(overlay.starts_with("gs-"), "{blocks}");
    let nodes = web.tell("query-named-block-nodes", &json!({"flat": true}));
    let image = web.machine.images[0].to_str().unwrap();
    let mut nodes = nodes.as_array().unwrap().iter();
    let base = nodes.find(|node| node["drv"] == "qcow2" && node["file"] == image);
    let base = base.unwrap()["node-name"].as_str().unwrap();
    let ours = format!("{}-undo-disk0", overlay.strip_suffix("-0").unwrap());
    let commit = json!({"job-id": ours, "device": overlay, "top-node": overlay, "base-node": base, "auto-finalize": false});
    web.tell("block-commit", &commit);
    let comes_to = |status: &str| {
        let until = Instant::now() + SOON;
        loop {
            let jobs = web.tell("query-jobs", &json!({}));
            let found = jobs[0]["status"].as_str().unwrap_or("none").to_owned();
            if found == status {
                return;
            }
            assert!(Instant::now() < until, "{status}: {jobs}");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    comes_to("ready");
    web.tell("job-complete", &json!({"id": ours}));
    comes_to("pending");
    die(&mut server);
    comes_to("none");
    let until = Instant::now() + SOON;
    while !guards(&site.data).is_empty() {
        assert!(Instant::now() < until, "the guard does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    // It is on the overlay still, and writes.
    let blocks = web.tell("query-block", &json!({}));
    assert_eq!(blocks[0]["inserted"]["node-name"], overlay.as_str());
    web.write(0, 131_072, 65536, 10);
    let told = text(&run_in(&site.data, &["rescue"], "").stdout);
    assert!(told.contains("undone"), "{told}");
    assert!(site.kept().is_empty(), "{:?}", site.kept());
    web.write(0, 0, 4096, 11);
    web.quit();
    assert_holds(&web.machine.images[0], &web.machine.content[0], "the image");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn where_the_guard_is_killed_too_a_rescue_lets_machines_go_and_says_that_they_run() {
    let site = Site::new(Ground::Xfs);
    let mut web = Guest::new(&site, "web", &[Image::Qcow2], 1);
    web.start(&site, &[]);
    let gate = Gate::new();
    let mut server = site.serve_with(&[&gate.at("create.stop.after")]);
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&web.machine.id]).unwrap();
    known(&server, "web", "running");
    let _begun = begin(&wire, &group, "set");
    gate.reached();
    assert_eq!(web.status(), "paused");
    for pid in guards(&site.data) {
        kill(pid, Signal::SIGKILL).unwrap();
    }
    kill(
        Pid::from_raw(server.pid().try_into().unwrap()),
        Signal::SIGKILL,
    )
    .unwrap();
    assert!(server.wait(SOON).is_some());
    assert_eq!(web.status(), "paused");
    let told = text(&run_in(&site.data, &["rescue"], "").stdout);
    assert!(told.contains("machine web: let go, running"), "{told}");
    assert!(told.contains("undone"), "{told}");
    assert_eq!(web.status(), "running");
    web.quit();
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_machine_that_cannot_be_captured_as_it_runs_is_refused_and_told_why() {
    let site = Site::new(Ground::Xfs);
    let mut web = Guest::new(&site, "web", &[Image::Qcow2], 1);
    let server = site.serve();
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&web.machine.id]).unwrap();
    let sees = |state| known(&server, "web", state);
    let image = web.machine.images[0].clone();

    // What it writes goes into a file without a name.
    web.start(&site, &["-snapshot"]);
    sees("running");
    refused(&wire, &group, &["disk0", "does not write"]);
    web.quit();
    sees("off");

    // Nobody knows what is written.
    let careless = format!(
        "file={},format=qcow2,if=virtio,cache=unsafe",
        image.display()
    );
    web.qemu = Some(web.sockets.start(&["-drive", &careless]));
    sees("running");
    refused(&wire, &group, &["virtio0", "no-flush", "no_flush_ok"]);
    let definition = site.file_of(&web.machine.id, "vm.toml");
    let text = std::fs::read_to_string(&definition).unwrap();
    let allowed = text.replace("[qemu]\n", "[qemu]\nno_flush_ok = true\n");
    assert_ne!(text, allowed);
    std::fs::write(&definition, allowed).unwrap();
    let until = Instant::now() + SOON;
    while wire.create_with(&group, &crash("careless")).unwrap().value != STARTED {
        assert!(Instant::now() < until, "it is not allowed");
        std::thread::sleep(Duration::from_millis(50));
    }
    site.wait_for_journals();
    web.quit();
    std::fs::write(&definition, text).unwrap();
    sees("off");

    web.start(&site, &[]);
    sees("running");
    // A job of somebody else.
    let copy = site.images.join("copy");
    let mirror = json!({"job-id": "copy0", "device": "virtio0", "target": copy, "sync": "full", "format": "raw"});
    web.tell("drive-mirror", &mirror);
    refused(&wire, &group, &["web", "copy0"]);
    web.tell(
        "block-job-cancel",
        &json!({"device": "copy0", "force": true}),
    );
    // An export.
    let socket = web.sockets.path().join("nbd");
    let address = json!({"type": "unix", "data": {"path": socket}});
    web.tell("nbd-server-start", &json!({"addr": address}));
    let node = web.tell("query-block", &json!({}))[0]["inserted"]["node-name"].clone();
    let export = json!({"type": "nbd", "id": "out", "node-name": node, "writable": false});
    web.tell("block-export-add", &export);
    refused(&wire, &group, &["web", "exports", "out"]);
    web.tell("block-export-del", &json!({"id": "out"}));
    // Somebody who may manage it.
    let monitor = json!({"id": "mon0", "backend": {"type": "socket", "data": {
        "addr": {"type": "unix", "data": {"path": web.sockets.path().join("manager")}}, "wait": false}}});
    web.tell("chardev-add", &monitor);
    let client = std::os::unix::net::UnixStream::connect(web.sockets.path().join("manager"));
    let is_seen = || {
        let all = web.tell("query-chardev", &json!({}));
        let names = all.as_array().unwrap().iter();
        let mut names = names.map(|it| it["filename"].as_str().unwrap());
        names.any(|name| name.starts_with("unix:") && name.contains("manager"))
    };
    while !is_seen() {
        std::thread::sleep(Duration::from_millis(20));
    }
    refused(&wire, &group, &["web", "manager", "unmanaged_ok"]);
    drop(client);
    let until = Instant::now() + SOON;
    while wire.create_with(&group, &crash("again")).unwrap().value != STARTED {
        assert!(Instant::now() < until, "it is still refused");
        std::thread::sleep(Duration::from_millis(50));
    }
    site.wait_for_journals();
    // It names no agent.
    let rest = [("ElementName", "rest"), ("ConsistencyLevel", "1")];
    let created = wire.create_with(&group, &rest).unwrap();
    assert_eq!(created.value, INVALID_STATE);
    let why = wire.why(&created);
    assert!(why.contains("agent"), "{why}");
    web.quit();
}

/// A server and its guard die while `web` stands still.
fn both_die(site: &Site, web: &Guest) {
    let gate = Gate::new();
    let mut server = site.serve_with(&[&gate.at("create.capture.after")]);
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&web.machine.id]).unwrap();
    known(&server, "web", "running");
    let _begun = begin(&wire, &group, "set");
    gate.reached();
    for pid in guards(&site.data) {
        kill(pid, Signal::SIGKILL).unwrap();
    }
    let server_pid = Pid::from_raw(server.pid().try_into().unwrap());
    kill(server_pid, Signal::SIGKILL).unwrap();
    assert!(server.wait(SOON).is_some());
    assert_eq!(web.status(), "paused");
}

/// On its old file, by whoever watches over it; and stopped by somebody, for a reason of their own.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_qemu_that_was_started_in_the_place_of_the_one_that_was_stopped_is_not_touched() {
    for ground in [Ground::Xfs, Ground::Ext4] {
        let site = Site::new(ground);
        let mut web = Guest::new(&site, "web", &[Image::Qcow2], 1);
        web.start(&site, &[]);
        both_die(&site, &web);
        web.qemu().signal(Signal::SIGKILL);
        web.qemu = None;
        web.start(&site, &[]);
        web.tell("stop", &json!({}));
        let told = text(&run_in(&site.data, &["rescue"], "").stdout);
        assert!(told.contains("undone"), "{told}");
        assert_eq!(web.status(), "paused", "nobody has asked it to go on");
        assert!(site.kept().is_empty(), "{:?}", site.kept());
        web.write(0, 0, 4096, 7);
        web.quit();
        assert_holds(&web.machine.images[0], &web.machine.content[0], "its file");
    }
}

/// Where nothing can be cloned.
fn over(web: &Guest, set: &str, wire: &Wire, base: &Path) {
    let file = kept(wire, set, &web.machine, 0);
    assert_eq!(file, base, "the old active file is what is kept");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn sets_by_overlays_leave_a_chain_from_whose_top_the_machine_starts_again() {
    let site = Site::new(Ground::Ext4);
    let mut web = Guest::new(&site, "web", &[Image::Qcow2, Image::Raw], 1);
    let server = site.serve();
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&web.machine.id]).unwrap();
    web.start(&site, &[]);
    known(&server, "web", "running");
    let mut sets = Vec::new();
    for round in 1..=3_u8 {
        let offset = usize::from(round) * 65536;
        web.write(0, offset, 131_072, 10 + round);
        web.write(1, offset, 131_072, 20 + round);
        let base = site.top(&web.machine, 0);
        let set = take(&wire, &group, &format!("set {round}"));
        over(&web, &set, &wire, &base);
        sets.push((set, web.machine.clone()));
        assert_eq!(web.status(), "running");
    }
    web.write(0, 0, 4096, 99);
    web.write(1, 0, 4096, 99);
    for (set, then) in &sets {
        holds(&wire, set, then, set);
    }
    let destroyed = wire.destroy(&sets[2].0).unwrap();
    assert_eq!(destroyed.value, INVALID_STATE, "not while it runs");
    web.quit();
    known(&server, "web", "off");
    for disk in 0..2 {
        let top = site.top(&web.machine, disk);
        assert_holds(&top, &web.machine.content[disk], "the active file");
    }
    web.start(&site, &[]);
    known(&server, "web", "running");
    // Of nodes that QEMU has named itself now.
    let set = take(&wire, &group, "after the start");
    holds(&wire, &set, &web.machine, "after the start");
    web.quit();
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_set_by_overlays_that_fails_leaves_the_machine_on_its_old_files_with_all_it_has_written() {
    let site = Site::new(Ground::Ext4);
    let mut web = Guest::new(&site, "web", &[Image::Qcow2, Image::Raw], 1);
    // With a filter on top, which has to stay.
    let filtered = format!(
        "driver=throttle,node-name=top,throttle-group=all,file.driver=qcow2,file.file.driver=file,file.file.filename={}",
        web.machine.images[0].display()
    );
    let raw = format!(
        "file={},format=raw,if=virtio",
        web.machine.images[1].display()
    );
    let args = [
        "-object",
        "throttle-group,id=all",
        "-blockdev",
        &filtered,
        "-device",
        "virtio-blk,drive=top,id=vd0",
        "-drive",
        &raw,
    ];
    web.qemu = Some(web.sockets.start(&args));
    let before = web.nodes();
    for point in [
        "create.stop.after",
        "create.word.before",
        "create.settle.before",
    ] {
        let mut server = site.serve_with(&[&format!("{point}=error")]);
        let wire = Wire::new(&server);
        let group = wire.define("all", &[&web.machine.id]).unwrap();
        known(&server, "web", "running");
        let (job, _) = begin(&wire, &group, "set");
        let job = wire.end(&job).unwrap();
        assert_eq!(job.state, FAILED, "{point}: {job:?}");
        site.wait_for_journals();
        assert_eq!(web.status(), "running", "{point}");
        assert_eq!(web.nodes(), before, "{point}");
        assert!(site.kept().is_empty(), "{point}: {:?}", site.kept());
        server.stop();
    }
    let told = web.tell("query-block", &json!({}));
    let tops = told.as_array().unwrap().iter();
    let tops: Vec<_> = tops
        .filter_map(|it| it["inserted"]["node-name"].as_str())
        .collect();
    assert!(tops.contains(&"top"), "{tops:?}");
    let line = json!({"command-line": "qemu-io -d /machine/peripheral/vd0/virtio-backend \"write -P 77 0 65536\""});
    web.tell("human-monitor-command", &line);
    web.machine.content[0][..65536].fill(77);
    web.quit();
    for disk in 0..2 {
        let image = &web.machine.images[disk];
        assert_holds(image, &web.machine.content[disk], "the image");
    }
}

/// The file that its QEMU went on with.
fn overlay(web: &Guest) -> PathBuf {
    let blocks = web.tell("query-block", &json!({}));
    let mut files = blocks.as_array().unwrap().iter();
    let file = files.find_map(|it| it["inserted"]["file"].as_str());
    PathBuf::from(file.unwrap())
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_overlay_that_somebody_has_moved_away_is_put_back_all_the_same_and_stays_where_it_is() {
    let site = Site::new(Ground::Ext4);
    let mut web = Guest::new(&site, "web", &[Image::Qcow2], 1);
    web.start(&site, &[]);
    let before = web.nodes();
    for dies in [false, true] {
        let gate = Gate::new();
        let mut server = site.serve_with(&[&gate.at("create.capture.after")]);
        let wire = Wire::new(&server);
        let group = wire.define("all", &[&web.machine.id]).unwrap();
        known(&server, "web", "running");
        let (job, _) = begin(&wire, &group, "set");
        gate.reached();
        let (new, moved) = (overlay(&web), site.data.join(format!("moved-{dies}")));
        assert_ne!(new, web.machine.images[0], "it goes on with an overlay");
        std::fs::rename(&new, &moved).unwrap();
        // What it writes now is in the overlay alone.
        web.tell("cont", &json!({}));
        web.write(0, 65536, 65536, if dies { 6 } else { 5 });
        if dies {
            let server_pid = Pid::from_raw(server.pid().try_into().unwrap());
            kill(server_pid, Signal::SIGKILL).unwrap();
            assert!(server.wait(SOON).is_some());
            gate.open();
            while !guards(&site.data).is_empty() {
                std::thread::sleep(Duration::from_millis(5));
            }
            drop(server);
            server = site.serve();
        } else {
            gate.open();
            fails(&wire, &job, "resumed");
            let told = text(&server.local(&["--json", "history"]).stdout);
            assert!(told.contains(new.to_str().unwrap()), "{told}");
        }
        site.wait_for_journals();
        assert_eq!((web.status(), web.nodes()), ("running".into(), before));
        assert_eq!(overlay(&web), web.machine.images[0]);
        assert!(
            moved.exists() && site.kept().is_empty(),
            "{:?}",
            site.kept()
        );
        server.stop();
    }
    web.quit();
    assert_holds(&web.machine.images[0], &web.machine.content[0], "its file");
}

/// What he may pass he may have to pass again, when his machine is started from an overlay.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_user_who_was_let_through_opens_nothing_once_his_sets_are_gone() {
    const NOBODY: u32 = 65534;
    let site = Site::new(Ground::Ext4);
    let set_mode = |folder: &Path, mode| {
        std::fs::set_permissions(folder, Permissions::from_mode(mode)).unwrap();
    };
    set_mode(site.data.parent().unwrap(), 0o755);
    set_mode(&site.data, 0o750);
    let mut web = Guest::new(&site, "web", &[Image::Qcow2], 1);
    let image = web.machine.images[0].clone();
    std::os::unix::fs::chown(&image, Some(NOBODY), Some(NOBODY)).unwrap();
    web.start(&site, &["-runas", "nobody"]);
    let server = site.serve();
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&web.machine.id]).unwrap();
    known(&server, "web", "running");
    let nobody = |script: &str, files: &[PathBuf]| {
        let user = NOBODY.to_string();
        let args = [
            "--reuid",
            &user,
            "--regid",
            &user,
            "--clear-groups",
            "sh",
            "-c",
            script,
            "sh",
        ];
        let files = files.iter().map(|file| file.to_str().unwrap());
        let args: Vec<_> = args.into_iter().chain(files).collect();
        tools::try_run("setpriv", &args).1
    };
    let opened = "for f; do head -c1 \"$f\" > /dev/null 2>&1 && echo \"$f\"; done; true";
    let passed = "cd \"$1\" && echo passed; ls \"$1\" 2>/dev/null";
    assert!(!nobody(passed, std::slice::from_ref(&site.data)).contains("passed"));
    let set = take(&wire, &group, "set");
    let top = site.top(&web.machine, 0);
    assert!(top.starts_with(&site.data), "{top:?}");
    assert!(nobody(opened, std::slice::from_ref(&top)).contains(top.to_str().unwrap()));
    web.quit();
    known(&server, "web", "off");
    let destroyed = wire.destroy(&set).unwrap();
    let job = wire.end(&destroyed.job.unwrap()).unwrap();
    assert_eq!((job.state, job.code), (DONE, 0), "{job:?}");
    site.wait_for_journals();
    assert!(site.kept().is_empty(), "{:?}", site.kept());
    for folder in [site.data.clone(), site.data.join("sets")] {
        assert_eq!(nobody(passed, &[folder]).trim(), "passed");
    }
    let (_, found) = tools::try_run("find", &[site.data.to_str().unwrap(), "-type", "f"]);
    let ours: Vec<_> = found.lines().map(PathBuf::from).collect();
    assert!(ours.len() > 5, "{ours:?}");
    assert_eq!(nobody(opened, &ours).trim(), "");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_somebody_else_does_meanwhile_leaves_a_machine_on_its_old_files_in_their_new_size() {
    let site = Site::new(Ground::Ext4);
    let mut web = Guest::new(&site, "web", &[Image::Qcow2, Image::Raw], 1);
    web.start(&site, &[]);
    let before = web.nodes();
    let table: [(&str, &str, Act); 5] = [
        ("create.stop.after", "resumed", |web| {
            web.tell("cont", &json!({}));
        }),
        ("create.capture.after", "resumed", |web| {
            web.tell("cont", &json!({}));
        }),
        ("create.capture.after", "reset", |web| {
            web.tell("system_reset", &json!({}));
        }),
        ("create.stop.after", "disk0", |web| grows(web, 0, 2 * SIZE)),
        ("create.stop.after", "disk1", |web| grows(web, 1, 2 * SIZE)),
    ];
    for (point, word, act) in table {
        let gate = Gate::new();
        let mut server = site.serve_with(&[&gate.at(point)]);
        let wire = Wire::new(&server);
        let group = wire.define("all", &[&web.machine.id]).unwrap();
        known(&server, "web", "running");
        let (job, _) = begin(&wire, &group, "set");
        gate.reached();
        act(&web);
        gate.open();
        fails(&wire, &job, word);
        assert_eq!(web.status(), "running", "{point}: {word}");
        site.wait_for_journals();
        assert_eq!(web.nodes(), before, "{point}: {word}");
        assert!(site.kept().is_empty(), "{word}: {:?}", site.kept());
        server.stop();
    }
    let told = web.tell("query-block", &json!({}));
    for disk in 0..2 {
        let size = &told[disk]["inserted"]["image"]["virtual-size"];
        assert_eq!(*size, json!(2 * SIZE), "{told}");
        web.machine.content[disk].resize(2 * SIZE, 0);
        web.write(disk, SIZE, 65536, 9);
    }
    web.quit();
    for disk in 0..2 {
        let image = &web.machine.images[disk];
        assert_holds(image, &web.machine.content[disk], "the image");
    }
}
