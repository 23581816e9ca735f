//! `vm import --qmp`: a QEMU that runs is asked whether it has exactly the images that are named.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::qemu::Sockets;
use crate::support::server::{run_in, text};
use crate::support::site::{Ground, Image, Site};
use crate::support::until;

/// A site with the sockets of a machine.
struct Scene {
    site: Site,
    sockets: Sockets,
}

impl Scene {
    fn new() -> Self {
        Self {
            site: Site::new(Ground::Host),
            sockets: Sockets::new(),
        }
    }

    /// `vm import` with both monitors and these arguments.
    fn import(&self, args: &[&str]) -> Output {
        self.import_to(&self.site.data, args)
    }

    fn import_to(&self, data: &Path, args: &[&str]) -> Output {
        let sockets = [1, 2].map(|n| self.sockets.qmp(n));
        let monitors = sockets
            .iter()
            .flat_map(|it| ["--qmp", it.to_str().unwrap()]);
        let monitors: Vec<_> = monitors.collect();
        run_in(
            data,
            &[&["vm", "import", "web"], args, &monitors[..]].concat(),
            "",
        )
    }

    /// The same, once its QEMU answers in time, which it may not do on a busy host.
    fn answered(&self, data: &Path, args: &[&str]) -> Output {
        let mut out = self.import_to(data, args);
        for _ in 0..20 {
            if text(&out.stderr).contains("does not greet") {
                out = self.import_to(data, args);
            }
        }
        out
    }

    fn run(&self, args: &[&str]) -> Output {
        run_in(&self.site.data, args, "")
    }

    /// The import is refused with all these words.
    fn refused(&self, args: &[&str], words: &[&str]) {
        let out = match words.iter().any(|word| word.contains("does not greet")) {
            true => self.import(args),
            false => self.answered(&self.site.data, args),
        };
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{said}");
        for word in words {
            assert!(said.contains(word), "{word}: {said}");
        }
        let listed = text(&self.run(&["vm", "list"]).stdout);
        assert!(!listed.contains("web"), "nothing was written: {listed}");
    }

    /// The import goes well, into a data directory of its own.
    fn taken(&self, args: &[&str]) -> TempDir {
        let data = tempfile::tempdir().unwrap();
        let out = self.answered(data.path(), args);
        assert!(out.status.success(), "{}", text(&out.stderr));
        data
    }
}

fn drive(file: &Path, format: &str) -> String {
    format!("file={},format={format},if=virtio", file.display())
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_running_machine_is_imported_when_its_qemu_has_exactly_these_images() {
    let scene = Scene::new();
    let system = scene.site.image("system", Image::Chain, 1);
    let data = scene.site.image("data", Image::Raw, 2);
    let (link, cd) = (
        scene.site.images.join("link.qcow2"),
        scene.site.images.join("cd.iso"),
    );
    symlink(&system, &link).unwrap();
    std::fs::write(&cd, [0; 4096]).unwrap();
    let images = [system.to_str().unwrap(), data.to_str().unwrap()];
    // By a link, below a filter, and beside a medium that is not captured.
    let below = format!(
        r#"{{"driver":"throttle","node-name":"top","throttle-group":"all","file":{{"driver":"qcow2","file":{{"driver":"file","filename":"{}"}}}}}}"#,
        link.display()
    );
    let qemu = scene.sockets.start(&[
        "-object",
        "throttle-group,id=all",
        "-blockdev",
        &below,
        "-device",
        "virtio-blk,drive=top",
        "-drive",
        &drive(&data, "raw"),
        "-cdrom",
        cd.to_str().unwrap(),
    ]);
    let own = scene.taken(&images);
    let lists = |state: &str| {
        let listed = || run_in(own.path(), &["vm", "list"], "").stdout;
        until(state, || text(&listed()).contains(state));
    };
    lists("running");
    let shown = || -> Value {
        let shown = run_in(own.path(), &["--json", "vm", "show", "web"], "");
        serde_json::from_slice(&shown.stdout).unwrap()
    };
    until("running", || shown()["state"] == "running");
    let shown = shown();
    assert_eq!(shown["qmp"][1], scene.sockets.qmp(2).to_str().unwrap());

    scene.refused(&images[..1], &["web", "also writes virtio0", "data.raw"]);
    scene.refused(
        &[images[0], images[1], "--agent", "/run/none"],
        &["/run/none is no socket of the QEMU"],
    );
    let other = scene.site.image("other", Image::Raw, 3);
    let named = [images[0], images[1], other.to_str().unwrap()];
    scene.refused(
        &named,
        &[
            "disk2",
            "does not write",
            "other.raw",
            "virtio0",
            "data.raw",
        ],
    );
    qemu.quit();
    // Off, with or without what the sockets have left.
    let own = scene.taken(&images);
    let listed = text(&run_in(own.path(), &["vm", "list"], "").stdout);
    assert!(listed.contains("  off  "), "{listed}");
    // As its QEMU names it by options.
    let options = format!(
        r#"file=json:{{"driver":"qcow2",,"file":{{"driver":"file",,"filename":"{}"}}}},if=virtio"#,
        system.display()
    );
    let qemu = scene
        .sockets
        .start(&["-drive", &options, "-drive", &drive(&data, "raw")]);
    scene.taken(&images);
    qemu.quit();
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_qemu_that_shows_its_guest_something_else_is_refused() {
    let scene = Scene::new();
    let image = scene.site.image("web", Image::Qcow2, 1);
    let named = image.to_str().unwrap();
    // The guest sees the container.
    let qemu = scene.sockets.start(&["-drive", &drive(&image, "raw")]);
    scene.refused(&[named], &["disk0", "open as raw", "qcow2"]);
    qemu.quit();
    // What it writes goes into a file without a name.
    let qemu = scene
        .sockets
        .start(&["-snapshot", "-drive", &drive(&image, "qcow2")]);
    scene.refused(&[named], &["disk0", "does not write", "web.qcow2"]);
    qemu.quit();
    // A part of the file.
    let raw = scene.site.image("raw", Image::Raw, 1);
    let part = format!(
        "driver=raw,node-name=part,offset=512,file.driver=file,file.filename={}",
        raw.display()
    );
    let qemu = scene
        .sockets
        .start(&["-blockdev", &part, "-device", "virtio-blk,drive=part"]);
    scene.refused(
        &[raw.to_str().unwrap()],
        &["disk0", "holds a disk of", "shows its guest one of"],
    );
    qemu.quit();
    // Another file has its name now.
    let qemu = scene.sockets.start(&["-drive", &drive(&raw, "raw")]);
    std::fs::rename(&raw, scene.site.images.join("away.raw")).unwrap();
    std::fs::write(&raw, [0; 512]).unwrap();
    scene.refused(
        &[raw.to_str().unwrap()],
        &["disk0", "does not write", "raw.raw"],
    );
    qemu.quit();
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn the_variables_of_the_firmware_are_no_disk_and_jobs_are_waited_for() {
    let scene = Scene::new();
    let image = scene.site.image("web", Image::Qcow2, 1);
    let flash = ["code", "vars"].map(|name| scene.site.images.join(name));
    for file in &flash {
        std::fs::write(file, vec![0; 256 << 10]).unwrap();
    }
    let flash = flash.map(|file| format!("if=pflash,format=raw,file={}", file.display()));
    let qemu = scene.sockets.start(&[
        "-S",
        "-drive",
        &format!("{},readonly=on", flash[0]),
        "-drive",
        &flash[1],
        "-drive",
        &drive(&image, "qcow2"),
    ]);
    let named = image.to_str().unwrap();
    scene.taken(&[named]);
    let target = scene.site.images.join("copy");
    let mirror = json!({"job-id": "copy0", "device": "virtio0", "target": target, "sync": "full", "format": "raw"});
    qemu.tell("drive-mirror", &mirror);
    scene.refused(&[named], &["jobs", "copy0"]);
    qemu.quit();
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_monitor_of_somebody_else_is_left_to_them() {
    let scene = Scene::new();
    let image = scene.site.image("web", Image::Qcow2, 1);
    let named = image.to_str().unwrap();
    let session = scene.sockets.path().join("libvirt/qemu");
    std::fs::create_dir_all(&session).unwrap();
    for (socket, manager) in [
        ("/run/libvirt/qemu/web.qmp", "libvirt"),
        ("/var/run/qemu-server/100.qmp", "Proxmox VE"),
        (session.join("web.qmp").to_str().unwrap(), "libvirt"),
    ] {
        let out = scene.run(&[
            "vm",
            "import",
            "web",
            named,
            "--qmp",
            socket,
            "--unmanaged-ok",
        ]);
        let said = text(&out.stderr);
        assert!(
            !out.status.success() && said.contains(manager) && said.contains(socket),
            "{said}"
        );
    }
    let manager = scene.sockets.path().join("manager");
    let monitor = scene.sockets.monitor("manager");
    let qemu = scene
        .sockets
        .start(&["-drive", &drive(&image, "qcow2"), "-monitor", &monitor]);
    scene.taken(&[named]);
    let connected = UnixStream::connect(&manager).unwrap();
    scene.refused(
        &[named],
        &[
            "somebody else is connected",
            manager.to_str().unwrap(),
            "--unmanaged-ok",
        ],
    );
    scene.taken(&[named, "--unmanaged-ok"]);
    let more = [named, "--unmanaged-ok", "--overlay-ok"];
    let both = scene.answered(&scene.site.data, &more);
    assert_eq!(both.status.code(), Some(2), "overlays would go stale");
    drop(connected);
    // Somebody has the monitors themselves.
    let (first, second) = (scene.sockets.qmp(1), scene.sockets.qmp(2));
    let first = UnixStream::connect(first).unwrap();
    scene.refused(&[named], &["qmp1", "somebody else is connected"]);
    let second = UnixStream::connect(second).unwrap();
    scene.refused(&[named], &["does not greet"]);
    drop((first, second));
    // Of two machines only one can be behind a socket.
    assert!(scene.answered(&scene.site.data, &[named]).status.success());
    let other = scene.site.image("other", Image::Raw, 1);
    let socket = scene.sockets.qmp(1);
    let out = scene.run(&[
        "vm",
        "import",
        "other",
        other.to_str().unwrap(),
        "--qmp",
        socket.to_str().unwrap(),
    ]);
    assert!(!out.status.success(), "{}", text(&out.stdout));
    qemu.quit();
    let out = scene.run(&[
        "vm",
        "import",
        "other",
        other.to_str().unwrap(),
        "--qmp",
        socket.to_str().unwrap(),
    ]);
    let said = text(&out.stderr);
    assert!(said.contains("is the socket of machine web"), "{said}");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn one_monitor_is_warned_of_and_a_machine_that_runs_without_it_is_refused() {
    let scene = Scene::new();
    let image = scene.site.image("web", Image::Qcow2, 1);
    let named = image.to_str().unwrap();
    let (socket, none) = (scene.sockets.qmp(1), scene.sockets.path().join("none"));
    let import = |socket: &Path| {
        scene.run(&[
            "vm",
            "import",
            "web",
            named,
            "--qmp",
            socket.to_str().unwrap(),
        ])
    };
    let qemu = scene.sockets.start(&["-drive", &drive(&image, "qcow2")]);
    let said = text(&scene.run(&["vm", "import", "web", named]).stderr);
    assert!(
        said.contains("open for writing") && said.contains("--qmp"),
        "{said}"
    );
    let said = text(&import(&none).stderr);
    assert!(
        said.contains("open for writing") && said.contains("none"),
        "{said}"
    );
    // Only one of the two is there.
    let both = [
        "vm",
        "import",
        "web",
        named,
        "--qmp",
        socket.to_str().unwrap(),
        "--qmp",
        none.to_str().unwrap(),
    ];
    let said = text(&scene.run(&both).stderr);
    assert!(said.contains("none is no socket of the QEMU"), "{said}");
    let said = text(&import(&socket).stderr);
    assert!(said.contains("has one monitor"), "{said}");
    qemu.quit();
}
