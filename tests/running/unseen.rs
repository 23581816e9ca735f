//! Machines of which the server does not see everything: the files of their process, or their definition.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cut::{DONE, FAILED, Guest, SOON, begin, crash, holds, known};
use crate::support::gate::Gate;
use crate::support::server::{Options, Server, guards, run_in, text};
use crate::support::site::{Ground, Image, Site};
use crate::support::wire::{STARTED, Wire};

/// A server that sees neither the pids nor the files of processes outside, with this fail point.
fn serve(site: &Site, failpoint: &str) -> Server {
    let end = Instant::now() + SOON;
    loop {
        let served = Server::try_with(&Options {
            env: &[("GROUPSHOT_FAILPOINTS", failpoint)],
            data: Some(&site.data),
            elsewhere: true,
            ..Options::default()
        });
        match served {
            Ok(server) => return server,
            // That of before is on its way.
            Err(why) => assert!(why.contains("in use") && Instant::now() < end, "{why}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A set as soon as the server has seen that the machine runs; its job and id.
fn begun(wire: &Wire, group: &str) -> (String, String) {
    let end = Instant::now() + SOON;
    loop {
        let created = wire.create_with(group, &crash("set")).unwrap();
        if created.value == STARTED {
            return (created.job.unwrap(), created.set.unwrap());
        }
        assert!(Instant::now() < end, "{}", wire.why(&created));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_machine_whose_process_and_files_cannot_be_seen_goes_on_after_every_set_by_overlays() {
    let site = Site::new(Ground::Ext4);
    let mut web = Guest::new(&site, "web", &[Image::Qcow2, Image::Raw], 1);
    web.start(&site, &[]);
    let runs = |web: &Guest, at: &str| {
        let end = Instant::now() + SOON;
        while web.status() != "running" {
            assert!(Instant::now() < end, "{at}: it stands still");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    // The second is of a machine that has gone on with other files than those that it was started from.
    for point in [
        "no.point=error",
        "no.point=error",
        "create.capture.after=error",
    ] {
        let server = serve(&site, point);
        let wire = Wire::new(&server);
        let group = wire.define("all", &[&web.machine.id]).unwrap();
        let nodes = web.nodes();
        let (job, set) = begun(&wire, &group);
        let job = wire.end(&job).unwrap();
        runs(&web, point);
        site.wait_for_journals();
        match point.starts_with("no.") {
            true => {
                assert_eq!((job.state, job.code), (DONE, 0), "{job:?}");
                holds(&wire, &set, &web.machine, point);
            }
            false => {
                assert_eq!(job.state, FAILED, "{job:?}");
                assert_eq!(web.nodes(), nodes, "{point}");
            }
        }
        web.write(0, 0, 8192, 9);
        web.write(1, 0, 8192, 8);
    }
    // Its guard dies with it, most often before it has let the machine go: the next server does.
    for (point, whole) in [("create.capture.after", false), ("create.word.after", true)] {
        let mut server = serve(&site, &format!("{point}=abort"));
        let wire = Wire::new(&server);
        let group = wire.define("all", &[&web.machine.id]).unwrap();
        let before = wire.shown().unwrap().sets.len();
        let end = Instant::now() + SOON;
        // It may be dead before it has answered.
        while wire
            .create_with(&group, &crash("set"))
            .is_ok_and(|it| it.value != STARTED)
        {
            assert!(Instant::now() < end, "it is not seen to run");
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(server.wait(SOON).is_some(), "{point} was never passed");
        let server = serve(&site, "no.point=error");
        runs(&web, point);
        site.wait_for_journals();
        let sets = Wire::new(&server).shown().unwrap().sets.len();
        assert_eq!(sets - before, usize::from(whole), "{point}");
    }
    web.quit();
    for disk in 0..2 {
        let top = site.top(&web.machine, disk);
        crate::support::site::assert_holds(&top, &web.machine.content[disk], "the active file");
    }
}

/// A definition as an editor leaves it for a moment.
fn truncated(definition: &Path) -> String {
    let text = fs::read_to_string(definition).unwrap();
    fs::write(definition, "").unwrap();
    text
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_machine_whose_definition_breaks_while_it_stands_still_is_let_go() {
    let site = Site::new(Ground::Xfs);
    let mut web = Guest::new(&site, "web", &[Image::Qcow2], 1);
    web.start(&site, &[]);
    let definition = site.file_of(&web.machine.id, "vm.toml");
    // In a server that lives.
    let gate = Gate::new();
    let mut server = site.serve_with(&[&gate.at("create.stop.after"), "create.word.before=error"]);
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&web.machine.id]).unwrap();
    known(&server, "web", "running");
    let (job, _) = begin(&wire, &group, "set");
    gate.reached();
    assert_eq!(web.status(), "paused");
    let before = truncated(&definition);
    // It is looked at each second.
    std::thread::sleep(Duration::from_secs(3));
    gate.open();
    let job = wire.end(&job).unwrap();
    assert_eq!(job.state, FAILED, "{job:?}");
    assert_eq!(web.status(), "running");
    fs::write(&definition, &before).unwrap();
    site.wait_for_journals();
    server.stop();
    // And at a start, where nobody else is left who knows the machine.
    let gate = Gate::new();
    let mut server = site.serve_with(&[&gate.at("create.stop.after")]);
    let wire = Wire::new(&server);
    known(&server, "web", "running");
    let _begun = begin(&wire, &group, "set");
    gate.reached();
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
    let before = truncated(&definition);
    let rescued = run_in(&site.data, &["rescue"], "");
    assert_eq!(web.status(), "running", "{}", text(&rescued.stdout));
    let told = text(&rescued.stdout);
    assert!(
        told.contains("machine web:") && told.contains("not known"),
        "{told}"
    );
    assert_eq!(rescued.status.code(), Some(1), "{}", text(&rescued.stderr));
    fs::write(&definition, &before).unwrap();
    let server = site.serve();
    known(&server, "web", "running");
    site.wait_for_journals();
    assert!(site.kept().is_empty(), "{:?}", site.kept());
    web.quit();
    known(&server, "web", "off");
}
