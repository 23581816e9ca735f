//! An image on a mount that hangs: whoever asks is answered, other machines are worked on, and operations on its own
//! machine are refused by name.

use std::fs;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread::yield_now;
use std::time::{Duration, Instant};

use groupshot::cim::Schema;
use groupshot::cim::schema::VIRTUALIZATION_V2;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::remote::Remote;
use crate::support::server::{PASSWORD, Server, USER, binary, run_in, text};
use crate::support::site::{Ground, Image, Machine, SIZE, Site};
use crate::support::wire::{STARTED, Wire};

/// InvalidState.
const INVALID_STATE: u64 = 5;
/// Status and health of a machine with which all is well.
const WELL: (u64, u64) = (2, 5);

/// A machine on the host's file system, one on a file that hangs, and a set of both.
struct Scene {
    site: Site,
    remote: Remote,
    healthy: Machine,
    hung: Machine,
}

impl Scene {
    fn new() -> Self {
        let site = Site::new(Ground::Host);
        let remote = Remote::new(&site.images, "remote");
        let healthy = site.machine("healthy", &[Image::Raw], 1);
        let file = remote.image.to_str().unwrap();
        let hung = site.import("hung", &["--overlay-ok", file], vec![vec![7; SIZE]]);
        Self {
            site,
            remote,
            healthy,
            hung,
        }
    }
}

/// Every concrete class is enumerated to its end.
fn ask_everything(wire: &Wire) {
    let schema = Schema::builtin();
    let classes = schema.classes(VIRTUALIZATION_V2);
    for class in classes.filter(|class| !class.is_abstract()) {
        wire.count(class.name.as_str());
    }
}

/// A set is taken, applied and destroyed.
fn work(wire: &Wire, group: &str, site: &Site) {
    let set = wire.take(group, "alone");
    for call in [Wire::apply, Wire::destroy] {
        let started = call(wire, &set).unwrap();
        assert_eq!(started.value, STARTED, "{}", wire.why(&started));
        let job = wire.end(&started.job.unwrap()).unwrap();
        assert_eq!(job.state, 7, "{job:?}");
        site.wait_for_journals();
    }
}

/// A process that holds the file open does not end while it hangs: it must answer again before a server is dropped.
struct Thaw<'a>(&'a Remote);

impl Drop for Thaw<'_> {
    fn drop(&mut self) {
        self.0.go_on();
    }
}

fn wait_for_health(wire: &Wire, machine: &Machine) {
    while wire.health(&machine.id) != WELL {
        yield_now();
    }
}

/// One cause is one finding, with all that it is of and its path once.
fn assert_one_finding(scene: &Scene) {
    let file = scene.remote.image.to_str().unwrap();
    let out = run_in(&scene.site.data, &["--json", "doctor"], "");
    let told: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let told = told["findings"].as_array().unwrap();
    let [one] = told.as_slice() else {
        panic!("{told:?}");
    };
    assert_eq!(one["kind"], "silent", "{one}");
    assert_eq!(one["object"], file, "{one}");
    assert_eq!(one["machines"][0]["name"], "hung", "{one}");
    assert_eq!(one["sets"][0]["name"], "both", "{one}");
    let words = one["text"].as_str().unwrap();
    assert!(!words.contains(file) && words.contains("(hung)"), "{one}");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_hung_image_stalls_nobody_but_operations_on_its_own_machine_which_are_refused_by_name() {
    let scene = Scene::new();
    let mut server = scene.site.serve();
    let thaw = Thaw(&scene.remote);
    let wire = Wire::new(&server);
    let ids = [&*scene.healthy.id, &*scene.hung.id];
    let both = wire.define("both", &ids).unwrap();
    let alone = wire.define("alone", &ids[..1]).unwrap();
    let kept = wire.take(&both, "both");
    scene.site.wait_for_journals();
    scene.remote.stop();
    ask_everything(&wire);
    let file = scene.remote.image.to_str().unwrap();
    for call in [
        wire.create(&both, "hung"),
        wire.apply(&kept),
        wire.destroy(&kept),
    ] {
        let (value, why) = call.map(|c| (c.value, wire.why(&c))).unwrap();
        assert_eq!(value, INVALID_STATE, "{why}");
        let names = why.contains("machine hung") && why.contains(file);
        assert!(names && why.contains("does not answer"), "{why}");
    }
    work(&wire, &alone, &scene.site);
    ask_everything(&wire);
    assert_eq!(wire.health(&scene.healthy.id), WELL);
    assert_ne!(wire.health(&scene.hung.id), WELL);
    assert_one_finding(&scene);
    scene.remote.go_on();
    wait_for_health(&wire, &scene.hung);
    server.stop();
    // A start is not held up.
    scene.remote.stop();
    let server = scene.site.serve();
    let thaw = (thaw, Thaw(&scene.remote));
    let wire = Wire::new(&server);
    ask_everything(&wire);
    work(&wire, &alone, &scene.site);
    assert_one_finding(&scene);
    drop(thaw);
    wait_for_health(&wire, &scene.hung);
    wire.take(&both, "again");
}

/// Whether nothing of the process runs any more (`PF_EXITING`), though it is not gone.
fn is_ending(server: &Server) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let flags: u32 = fields.split_whitespace().nth(6).unwrap().parse().unwrap();
    flags & 4 != 0
}

/// Whether a thread of the process stands at a file that does not answer.
fn stands(server: &Server) -> bool {
    let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    let at = |task: fs::DirEntry| fs::read_to_string(task.path().join("wchan"));
    let mut at = tasks.flatten().filter_map(|task| at(task).ok());
    at.any(|at| at == "request_wait_answer")
}

fn within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < limit, "not in time: {what}");
        yield_now();
    }
}

fn terminate(server: &Server) {
    let pid = Pid::from_raw(i32::try_from(server.pid()).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
}

/// A client whose CreateSnapshot of this group stands at the file.
fn creating(server: &Server, group: &str) -> Child {
    let client = Command::new(binary())
        .args(["snapshot", "create", group, "--name", "cut off"])
        .env("GROUPSHOT_URL", server.url())
        .env("GROUPSHOT_USER", USER)
        .env("GROUPSHOT_PASSWORD", PASSWORD)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    within(IN_TIME, "the request", || stands(server));
    client
}

/// Far above `limits.stop_timeout` and what an orderly end takes beyond it, far below `TimeoutStopSec`.
const IN_TIME: Duration = Duration::from_secs(60);

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_server_that_is_told_to_end_does_and_keeps_its_data_directory_until_the_kernel_lets_go() {
    // In order; and at once by a second signal.
    for (code, timeout) in [(0, "1s"), (1, "10m")] {
        let scene = Scene::new();
        let config = format!("[limits]\nstop_timeout = \"{timeout}\"\n");
        let mut server = scene.site.serve_configured(&config);
        let wire = Wire::new(&server);
        let group = wire.define("both", &[&*scene.healthy.id, &*scene.hung.id]);
        let group = group.unwrap();
        wire.take(&group, "kept");
        scene.site.wait_for_journals();
        scene.remote.stop();
        let _thaw = Thaw(&scene.remote);
        let mut client = (code == 1).then(|| creating(&server, &group));
        terminate(&server);
        if code == 1 {
            let hears = || TcpStream::connect(server.address).is_ok();
            within(IN_TIME, "the first signal", || !hears());
            terminate(&server);
        }
        within(IN_TIME, "the end", || is_ending(&server));
        assert!(
            server.wait(Duration::from_millis(50)).is_none(),
            "a file is closed"
        );
        let second = scene.site.try_serve(&[]).map(drop).unwrap_err();
        let told = second.contains("exit status: 4") && second.contains("has ended but for files");
        assert!(told, "{second}");
        for command in ["doctor", "history"] {
            let (done, told) = local(&scene.site, &[command]);
            let same = told.contains("has ended but for files") && !told.contains("no server");
            assert!(!done && same, "{command}: {told}");
        }
        let unmounted = Command::new("umount")
            .args(["-f", "-l"])
            .arg(&scene.remote.at)
            .status();
        assert!(unmounted.unwrap().success());
        let status = server.wait(IN_TIME).expect("it is gone");
        assert_eq!(status.code(), Some(code));
        // Its connection is closed after the file.
        if let Some(client) = &mut client {
            assert!(!client.wait().unwrap().success());
        }
        drop(scene.site.serve());
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_server_that_is_told_to_end_waits_for_no_request_that_stands_at_a_hung_image() {
    let scene = Scene::new();
    let mut server = scene
        .site
        .serve_configured("[limits]\nstop_timeout = \"1s\"\n");
    let thaw = Thaw(&scene.remote);
    let wire = Wire::new(&server);
    let group = wire.define("hung", &[&*scene.hung.id]).unwrap();
    scene.remote.stop();
    let mut client = creating(&server, &group);
    terminate(&server);
    let status = server.wait(IN_TIME).expect("it ends");
    assert_eq!(status.code(), Some(0));
    assert!(!client.wait().unwrap().success());
    drop(thaw);
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    wire.take(&group, "again");
}

/// A local command on the data directory.
fn local(site: &Site, args: &[&str]) -> (bool, String) {
    let out = run_in(&site.data, args, "");
    let told = format!("{}{}", text(&out.stdout), text(&out.stderr));
    (out.status.success(), told)
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_hung_image_stalls_no_local_command_and_operations_on_its_machine_are_refused_by_name() {
    let scene = Scene::new();
    let (site, file) = (&scene.site, scene.remote.image.to_str().unwrap());
    let image = site.image("third", Image::Raw, 3);
    scene.remote.stop();
    let (done, told) = local(site, &["vm", "list"]);
    let silent = format!("{file} does not answer");
    let lines = ["healthy", "hung", &silent, ", silent"];
    assert!(done && lines.iter().all(|l| told.contains(l)), "{told}");
    let (done, told) = local(site, &["--json", "vm", "show", "hung"]);
    let shown: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert!(done && shown["silent"] == file, "{told}");
    assert_eq!(shown["disks"][0]["size"], SIZE, "as it was recorded");
    let begun = Instant::now();
    let (done, told) = local(site, &["vm", "path", "hung"]);
    assert!(done && told.contains("by-name/hung"), "{told}");
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "no image is waited for"
    );
    // Others are worked on.
    for args in [
        &["vm", "import", "third", image.to_str().unwrap()][..],
        &["vm", "set", "third", "--overlay-ok", "--yes"],
        &["vm", "remove", "third"],
    ] {
        let (done, told) = local(site, args);
        assert!(done, "{args:?}: {told}");
    }
    for args in [
        &["vm", "set", "hung", "--accept-image", "--yes"][..],
        &["vm", "remove", "hung"],
        &["vm", "import", "again", file],
    ] {
        let (done, told) = local(site, args);
        assert!(!done && told.contains(&silent), "{args:?}: {told}");
    }
    let config = site.configuration(&format!("[engine]\nimage_roots = [{file:?}]\n"));
    let (done, told) = local(site, &["config", "check", config.to_str().unwrap()]);
    assert!(done && told.contains(&silent), "{told}");
    // Nor does what a server reads at its start.
    let both = [&["config", "check"][..], &["serve", "--config"]];
    for (keys, commands) in [
        (
            format!("https = \"127.0.0.1:0\"\n[tls]\ncertificate = {file:?}\nkey = {file:?}\n"),
            &both[..],
        ),
        // Without HTTPS no server reads it.
        (format!("[tls]\nclient_ca = {file:?}\n"), &both[..1]),
        (format!("[log]\naudit = {file:?}\n"), &both[..]),
    ] {
        let config = format!("[listen]\nhttp = \"127.0.0.1:0\"\n{keys}");
        let config = site.configuration(&config);
        for command in commands {
            let mut run = Command::new("timeout");
            let run = run.arg("60").arg(binary()).args(*command).arg(&config);
            let out = run.arg("--data-dir").arg(&site.data).output().unwrap();
            let told = format!("{}{}", text(&out.stdout), text(&out.stderr));
            assert_eq!(out.status.code(), Some(3), "{keys}: {command:?}: {told}");
            assert!(told.contains("does not answer"), "{told}");
        }
    }
    scene.remote.go_on();
    let (done, told) = local(site, &["vm", "remove", "hung"]);
    assert!(done, "{told}");
}
