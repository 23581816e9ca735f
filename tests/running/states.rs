//! What a server shows of machines that QEMU runs, stops and ends, over the wire and by `vm list`.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::qemu::{Qemu, Sockets};
use crate::support::server::{Server, run_in, text};
use crate::support::site::{Ground, Image, Machine, Site};
use crate::support::until;
use crate::support::wire::Wire;

/// Far above the second that is promised, which the tests of `engine::qemu` hold by a clock of their own: a busy host.
const SOON: Duration = Duration::from_secs(60);

const ENABLED: u64 = 2;
const DISABLED: u64 = 3;
const QUIESCE: u64 = 9;
const OK: u64 = 2;
const DEGRADED: u64 = 3;

struct Scene {
    site: Site,
    sockets: Sockets,
    machine: Machine,
    server: Server,
    wire: Wire,
}

impl Scene {
    /// A machine of one disk with so many monitors, imported while it is off.
    fn new(monitors: usize) -> Self {
        let (site, sockets) = (Site::new(Ground::Host), Sockets::new());
        let image = site.image("web", Image::Qcow2, 1);
        let all: Vec<_> = (1..=monitors).map(|n| sockets.qmp(n)).collect();
        let mut args = vec!["--overlay-ok", image.to_str().unwrap()];
        args.extend(all.iter().flat_map(|it| ["--qmp", it.to_str().unwrap()]));
        let machine = site.import("web", &args, Vec::new());
        let server = site.serve();
        let wire = Wire::new(&server);
        Self {
            site,
            sockets,
            machine,
            server,
            wire,
        }
    }

    fn image(&self) -> &Path {
        &self.machine.images[0]
    }

    fn drive(&self) -> String {
        format!("file={},format=qcow2,if=virtio", self.image().display())
    }

    fn start(&self, more: &[&str]) -> Qemu {
        self.sockets
            .start(&[&["-drive", &self.drive()], more].concat())
    }

    /// Shows this soon, over the wire and at a shell.
    fn shows(&self, state: u64, status: u64, word: &str) {
        let until = Instant::now() + SOON;
        loop {
            let (now, first, words) = self.wire.state(&self.machine.id);
            let listed = text(&self.server.local(&["vm", "list"]).stdout);
            if (now, first) == (state, status) && listed.contains(&format!("  {word}  ")) {
                return;
            }
            assert!(
                Instant::now() < until,
                "{word}: it shows {now}, {first}, {words}; {listed}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn refused(&self, group: &str, word: &str) {
        let rest = [("ElementName", "set"), ("ConsistencyLevel", "1")];
        let created = self.wire.create_with(group, &rest).unwrap();
        assert_eq!(created.value, 5, "{created:?}");
        let why = self.wire.why(&created);
        assert!(why.contains("web") && why.contains(word), "{word}: {why}");
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn the_state_of_a_machine_is_that_of_its_qemu_and_its_sets_are_refused_until_it_is_off() {
    let scene = Scene::new(2);
    let group = scene.wire.define("all", &[&scene.machine.id]).unwrap();
    scene.shows(DISABLED, OK, "off");
    let qemu = scene.start(&["-S"]);
    scene.shows(ENABLED, DEGRADED, "troubled (prelaunch)");
    assert!(scene.wire.state(&scene.machine.id).2.contains("prelaunch"));
    scene.refused(&group, "prelaunch");
    qemu.tell("cont", &json!({}));
    scene.shows(ENABLED, OK, "running");
    scene.refused(&group, "running");
    qemu.tell("stop", &json!({}));
    scene.shows(QUIESCE, OK, "paused");
    scene.refused(&group, "paused");
    qemu.tell("cont", &json!({}));
    scene.shows(ENABLED, OK, "running");
    let shown = scene.server.local(&["--json", "vm", "show", "web"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(
        (&shown["state"], &shown["reason"]),
        (&json!("running"), &Value::Null)
    );
    qemu.quit();
    scene.shows(DISABLED, OK, "off");
    let set = scene.wire.take(&group, "set");
    assert!(!set.is_empty());
    // From the overlay of that set, by another process.
    let top = scene.site.top(&scene.machine, 0);
    let drive = format!("file={},format=qcow2,if=virtio", top.display());
    let qemu = scene.sockets.start(&["-drive", &drive]);
    scene.shows(ENABLED, OK, "running");
    qemu.signal(Signal::SIGKILL);
    scene.shows(DISABLED, OK, "off");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_qemu_that_does_not_answer_shows_its_machine_as_held() {
    let scene = Scene::new(1);
    let group = scene.wire.define("all", &[&scene.machine.id]).unwrap();
    let qemu = scene.start(&[]);
    scene.shows(ENABLED, OK, "running");
    qemu.signal(Signal::SIGSTOP);
    scene.shows(ENABLED, OK, "held");
    scene.refused(&group, "web");
    qemu.signal(Signal::SIGCONT);
    scene.shows(ENABLED, OK, "running");
    qemu.quit();
    // Without the monitor, and with that of another machine.
    let qemu = scene.sockets.start_with(&["-drive", &scene.drive()]);
    scene.shows(ENABLED, OK, "held");
    qemu.quit();
    scene.shows(DISABLED, OK, "off");
    let other = scene.sockets.start(&[]);
    scene.shows(ENABLED, OK, "held");
    other.quit();
    scene.shows(DISABLED, OK, "off");
    // A client that came first has the only monitor.
    let qemu = scene.start(&[]);
    drop(qemu);
    scene.shows(DISABLED, OK, "off");
    let mut server = scene.server;
    server.stop();
    let qemu = scene.sockets.start(&[
        "-drive",
        &format!(
            "file={},format=qcow2,if=virtio",
            scene.machine.images[0].display()
        ),
    ]);
    let client = UnixStream::connect(scene.sockets.qmp(1)).unwrap();
    // On a busy host the monitor may answer too late for one look.
    let lists = |state: &str| {
        let listed = || run_in(&scene.site.data, &["vm", "list"], "").stdout;
        until(state, || text(&listed()).contains(state));
    };
    lists("held");
    drop(client);
    lists("running");
    qemu.tell("stop", &json!({}));
    lists("paused");
    qemu.quit();
    lists("off");
}

/// A start on a file under the active one, without a monitor.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_machine_of_which_any_file_is_written_is_held() {
    let scene = Scene::new(1);
    let group = scene.wire.define("all", &[&scene.machine.id]).unwrap();
    scene.shows(DISABLED, OK, "off");
    scene.wire.take(&group, "set");
    assert_ne!(scene.site.top(&scene.machine, 0), scene.image());
    let mut server = scene.server;
    server.stop(); // it keeps that file from whoever would write it
    let lists = |state: &str| {
        let listed = || run_in(&scene.site.data, &["vm", "list"], "").stdout;
        until(state, || text(&listed()).contains(&format!("  {state}  ")));
    };
    lists("off");
    let mode = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(&scene.machine.images[0], mode).unwrap();
    let drive = format!(
        "file={},format=qcow2,if=virtio",
        scene.machine.images[0].display()
    );
    let qemu = scene.sockets.start_with(&["-drive", &drive]);
    lists("held");
    let again = scene.site.serve();
    let shown = || {
        let shown = again.local(&["--json", "vm", "show", "web"]);
        serde_json::from_slice::<Value>(&shown.stdout).unwrap()["state"].clone()
    };
    until("held", || shown() == "held");
    qemu.quit();
    until("off", || shown() == "off");
}

/// A start with `-snapshot` takes no lock on the image for writing.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_machine_that_only_reads_its_image_is_not_off() {
    let scene = Scene::new(2);
    let qemu = scene.start(&["-snapshot"]);
    scene.shows(ENABLED, OK, "running");
    qemu.quit();
    scene.shows(DISABLED, OK, "off");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn machines_without_a_monitor_cost_no_thread_and_those_with_one_share_it() {
    let (site, sockets) = (Site::new(Ground::Host), Sockets::new());
    let server = site.serve();
    let threads = || {
        let all = std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
        let name = |task: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(task.unwrap().path().join("comm"))
        };
        all.filter_map(|task| name(task).ok())
            .filter(|name| name.trim() == "monitors")
            .count()
    };
    let import = |name: &str, more: &[&str]| {
        let image = site.image(name, Image::Raw, 1);
        site.import(
            name,
            &[&[image.to_str().unwrap()], more].concat(),
            Vec::new(),
        );
    };
    import("plain", &[]);
    assert_eq!(threads(), 0);
    // A thread has its name once it runs.
    for n in 1..=2 {
        import(
            &format!("web{n}"),
            &["--qmp", sockets.qmp(n).to_str().unwrap()],
        );
    }
    until("a thread", || threads() > 0);
    assert_eq!(threads(), 1);
}
