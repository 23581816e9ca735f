//! A job whose step stands at a file that does not answer any more: it says so, and so do the log, the refusals of
//! others and the check-up, until the file answers.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::gate::Gate;
use crate::support::remote::{Call, Remote};
use crate::support::server::{Server, run_in, text};
use crate::support::site::{Ground, Image, SIZE, Site};
use crate::support::tools::run;
use crate::support::wire::Wire;

/// InvalidState.
const INVALID_STATE: u64 = 5;
const COMPLETED: u64 = 7;
const WAITS: &str = "An operation waits for a file that does not answer";
const WAITS_NO_MORE: &str = "The file that an operation waited for answers again";

/// A file system on which nothing is written, until it is thawed.
struct Frozen(PathBuf);

impl Frozen {
    fn new(mount: &Path) -> Self {
        run("fsfreeze", &["-f", mount.to_str().unwrap()]);
        Self(mount.to_owned())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        run("fsfreeze", &["-u", self.0.to_str().unwrap()]);
    }
}

/// Findings of a kind.
fn found(site: &Site, kind: &str) -> Vec<Value> {
    let out = run_in(&site.data, &["--json", "doctor"], "");
    let told: Value = serde_json::from_slice(&out.stdout).unwrap();
    let all = told["findings"].as_array().unwrap().iter();
    all.filter(|one| one["kind"] == kind).cloned().collect()
}

/// Whether it is told, once it is: a line is written behind the back of whoever told it, and read behind that of the
/// test.
fn logged(server: &Server, what: &str, names: &[&str]) -> bool {
    let begun = Instant::now();
    let mut log = server.log();
    while !log.contains(what) && begun.elapsed() < IN_TIME {
        std::thread::yield_now();
        log = server.log();
    }
    let lines = log.lines().filter(|line| line.contains(what));
    let lines: Vec<_> = lines.collect();
    assert!(lines.len() <= 1, "told once: {log}");
    let names = |line: &&str| line.contains("WARN") && names.iter().all(|n| line.contains(n));
    lines.iter().any(names)
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_job_that_stands_on_a_frozen_file_system_says_so_until_it_is_thawed() {
    let (site, gate) = (Site::new(Ground::Xfs), Gate::new());
    let web = site.machine("web", &[Image::Raw], 1);
    let beside = site.data.join("../beside.raw");
    std::fs::write(&beside, vec![2; SIZE]).unwrap();
    let args = ["--overlay-ok", beside.to_str().unwrap()];
    let host = site.import("host", &args, vec![vec![2; SIZE]]);
    let server = site.serve_with(&[&gate.at("create.cut.before")]);
    let wire = Wire::new(&server);
    let both = wire.define("both", &[&web.id, &host.id]).unwrap();
    let alone = wire.define("alone", &[&host.id]).unwrap();
    let job = wire.create(&both, "kept").unwrap().job.unwrap();
    gate.reached();
    let frozen = Frozen::new(site.images.parent().unwrap());
    gate.open();
    let stands = "does not answer";
    let told = wire.until(&job, |job| job.status.contains(stands)).unwrap();
    let folder = site.images.to_str().unwrap();
    let names = told.status.contains("machine web") && told.status.contains(folder);
    assert!(names && told.state == 4, "{told:?}");
    // The other member is held with it, and whoever wants it is told why.
    let refused = wire.create(&alone, "refused").unwrap();
    let why = wire.why(&refused);
    assert_eq!(refused.value, INVALID_STATE, "{why}");
    assert!(
        why.contains(&job) && why.contains(stands) && why.contains(folder),
        "{why}"
    );
    assert!(logged(&server, WAITS, &[&job, "web", folder]));
    let findings = found(&site, "silent");
    let [one] = findings.as_slice() else {
        panic!("{findings:?}");
    };
    let object = one["object"].as_str().unwrap();
    let words = one["text"].as_str().unwrap();
    assert!(
        object.starts_with(folder) && words.contains(&format!("job {job} waits")),
        "{one}"
    );
    assert!(words.contains("held: ") && words.contains("host"), "{one}");
    assert_eq!(found(&site, "stuck"), [Value::Null; 0]);
    drop(frozen);
    let ended = wire.end(&job).unwrap();
    assert_eq!(ended.state, COMPLETED, "{ended:?}");
    site.wait_for_journals();
    assert!(logged(&server, WAITS_NO_MORE, &[&job, "web"]));
    assert_eq!(found(&site, "silent"), [Value::Null; 0]);
    wire.take(&alone, "free");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_export_whose_image_is_read_no_more_says_so_until_it_is() {
    let (site, gate) = (Site::new(Ground::Host), Gate::new());
    let remote = Remote::new(&site.images, "remote");
    let image = remote.image.to_str().unwrap();
    let far = site.import("far", &["--overlay-ok", image], vec![vec![7; SIZE]]);
    let roots = format!("[export]\nroots = [{:?}]\n", site.images);
    let config = site.configuration(&roots);
    let server = site
        .serve_at(config.to_str().unwrap(), &gate.at("export.copy.before"))
        .unwrap();
    let wire = Wire::new(&server);
    let group = wire.define("far", &[&far.id]).unwrap();
    let set = wire.take(&group, "kept");
    site.wait_for_journals();
    let started = wire.export(&set, site.images.to_str().unwrap(), None);
    let started = started.unwrap();
    let job = started
        .job
        .clone()
        .unwrap_or_else(|| panic!("{}", wire.why(&started)));
    gate.reached();
    // Between open and read.
    let hung = remote.hang(Call::Read);
    gate.open();
    remote.hangs();
    let told = wire.until(&job, |job| job.status.contains(image)).unwrap();
    assert!(told.status.contains("does not answer"), "{told:?}");
    assert!(logged(&server, WAITS, &[&job, &set, "far", image]));
    let findings = found(&site, "silent");
    let [one] = findings.as_slice() else {
        panic!("{findings:?}");
    };
    let words = one["text"].as_str().unwrap();
    assert!(words.contains(&format!("job {job} waits")), "{one}");
    drop(hung);
    let ended = wire.end(&job).unwrap();
    assert_eq!(ended.state, COMPLETED, "{ended:?}");
    assert!(logged(&server, WAITS_NO_MORE, &[&job]));
}

/// Far above what a place may hang before it is silent, for each of a few looks, also on a machine with other work.
const IN_TIME: Duration = Duration::from_secs(240);

/// Local commands on a data directory, all at once: exit code and all that was printed, once nobody prints any more.
fn at_once(site: &Site, all: &[&[&str]]) -> Vec<(Option<i32>, String)> {
    let answers = all.iter().map(|args| {
        let (tell, told) = mpsc::channel();
        let args: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let data = site.data.clone();
        std::thread::spawn(move || {
            let args: Vec<_> = args.iter().map(String::as_str).collect();
            let out = run_in(&data, &args, "");
            let said = text(&out.stdout) + &text(&out.stderr);
            let _too_late = tell.send((out.status.code(), said));
        });
        told
    });
    let answers: Vec<_> = answers.collect();
    let ended = |told: &mpsc::Receiver<_>| told.recv_timeout(IN_TIME).expect("it ends");
    answers.iter().map(ended).collect()
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn local_commands_beside_a_server_at_one_hung_mount_end_and_keep_no_other_waiting() {
    let site = Site::new(Ground::Host);
    let remote = Remote::new(&site.images, "remote");
    let image = remote.image.to_str().unwrap();
    let far = site.import("far", &["--overlay-ok", image], vec![vec![7; SIZE]]);
    let other = site.image("other", Image::Raw, 3);
    for served in [true, false] {
        let server = served.then(|| site.serve());
        let _hung = remote.hang(Call::Lookup);
        if let Some(server) = &server {
            // It looks at files when somebody asks, and the kernel asks the mount once it has forgotten the answer.
            let (wire, over) = (Wire::new(server), AtomicBool::new(false));
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !over.load(Ordering::SeqCst) {
                        wire.state(&far.id);
                        std::thread::sleep(Duration::from_millis(100));
                    }
                });
                remote.hangs();
                over.store(true, Ordering::SeqCst);
            });
        }
        let silent = format!("{image} does not answer");
        let config = site.configuration(&format!("[engine]\nimage_roots = [{image:?}]\n"));
        let all: &[&[&str]] = &[
            &["vm", "list"],
            &["vm", "list"],
            &["vm", "show", "far"],
            &["vm", "import", "again", image],
            &["doctor"],
        ];
        let ended = at_once(&site, all);
        // Apart from `doctor`: both try the lock of the data directory.
        let check: &[&[&str]] = &[&["config", "check", config.to_str().unwrap()]];
        let checked = at_once(&site, check);
        let ended = ended.iter().chain(&checked);
        for (args, (code, said)) in all.iter().chain(check).zip(ended) {
            let well = args[1..].first().is_some_and(|a| *a != "import");
            assert_eq!(*code, Some(i32::from(!well)), "{args:?}: {said}");
            assert!(
                said.contains(&silent) || said.contains("silent"),
                "{args:?}: {said}"
            );
        }
        // What they have left behind holds no turn.
        let import: &[&str] = &["vm", "import", "other", other.to_str().unwrap()];
        let (code, said) = at_once(&site, &[import]).remove(0);
        assert_eq!(code, Some(0), "{said}");
        let remove: &[&str] = &["vm", "remove", "other"];
        let (code, said) = at_once(&site, &[remove]).remove(0);
        assert_eq!(code, Some(0), "{said}");
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_export_root_that_hangs_has_one_code_and_a_finding() {
    let site = Site::new(Ground::Host);
    let remote = Remote::new(&site.images, "remote");
    let root = remote.at.to_str().unwrap();
    let web = site.machine("web", &[Image::Raw], 1);
    let server = site.serve_configured(&format!("[export]\nroots = [{root:?}]\n"));
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&web.id]).unwrap();
    let set = wire.take(&group, "kept");
    site.wait_for_journals();
    let hung = remote.hang(Call::Any);
    for _ in 0..3 {
        let refused = wire.export(&set, root, None).unwrap();
        let why = wire.why(&refused);
        assert_eq!(refused.value, 32775, "{why}");
        assert!(why.contains(&format!("{root} does not answer")), "{why}");
    }
    let findings = found(&site, "silent");
    let [one] = findings.as_slice() else {
        panic!("{findings:?}");
    };
    assert_eq!(one["object"], root, "{one}");
    let words = one["text"].as_str().unwrap();
    assert!(words.contains("no set is exported there"), "{one}");
    drop(hung);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_operation_that_holds_no_machine_is_told_without_a_list_of_them() {
    let (site, gate) = (Site::new(Ground::Host), Gate::new());
    let web = site.machine("web", &[Image::Raw], 1);
    let (folder, aside) = (site.images.join("exports"), site.images.join("aside"));
    std::fs::create_dir(&folder).unwrap();
    let config = site.configuration(&format!("[export]\nroots = [{:?}]\n", site.images));
    let config = config.to_str().unwrap();
    let order = gate.at("export.reveal.before");
    let mut server = site.serve_at(config, &order).unwrap();
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&web.id]).unwrap();
    let set = wire.take(&group, "kept");
    site.wait_for_journals();
    wire.export(&set, folder.to_str().unwrap(), None).unwrap();
    gate.reached();
    server.kill();
    std::fs::rename(&folder, &aside).unwrap();
    std::os::unix::fs::symlink("/", &folder).unwrap();
    let _server = site.serve_at(config, "").unwrap();
    let findings = found(&site, "stuck");
    let [one] = findings.as_slice() else {
        panic!("{findings:?}");
    };
    let words = one["text"].as_str().unwrap();
    assert!(words.contains(&set) && !words.contains("held:"), "{one}");
}
