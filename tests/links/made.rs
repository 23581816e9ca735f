//! Folders of root stand in the place of those that exports are written into: nothing of them is removed, renamed or
//! written into.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::scene::{COMPLETED, Scene, become_other, end};
use crate::support::gate::Gate;
use crate::support::server::{binary, run_in, text};
use crate::support::site::{Ground, Image};
use crate::support::tools::run;
use crate::support::wire::Wire;

/// So many exports are begun while a folder is exchanged with theirs.
const ROUNDS: usize = 30;

/// A root for exports that belongs to the second user, and in it a folder that only root may look into.
struct Trap {
    scene: Scene,
    root: PathBuf,
    guarded: PathBuf,
    /// It, whatever its name.
    held: File,
    before: String,
}

impl Trap {
    fn new() -> Self {
        let scene = Scene::new(Ground::Host, Image::Raw, &["--overlay-ok"]);
        let root = scene.site.images.join("exports");
        let guarded = root.join("guarded");
        fs::create_dir_all(guarded.join("deep")).unwrap();
        fs::write(guarded.join("deep/mine"), "of root").unwrap();
        fs::set_permissions(&guarded, fs::Permissions::from_mode(0o700)).unwrap();
        chown(&root, Some(65_534), Some(65_534)).unwrap();
        let held = File::open(&guarded).unwrap();
        let before = below(&held);
        Self {
            scene,
            root,
            guarded,
            held,
            before,
        }
    }

    /// The folder that an export is written into.
    fn part(&self, set: &str, job: &str) -> PathBuf {
        self.root.join(format!(".groupshot-{set}-{job}.part"))
    }

    /// The second user puts the folder of root under that name.
    fn spring(&self, name: &Path) {
        self.scene.other(&[&"mv", &"-T", &self.guarded, &name]);
    }

    fn inode(&self) -> u64 {
        self.held.metadata().unwrap().ino()
    }

    /// The folder of root is as it was, and has that name.
    fn assert_untouched(&self, name: &Path, what: &str) {
        assert_eq!(below(&self.held), self.before, "{what}");
        assert_eq!(fs::metadata(name).unwrap().ino(), self.inode(), "{what}");
    }
}

/// All that is in a folder.
fn below(folder: &File) -> String {
    let told = "%P %i %m %U %n %s %T@\n";
    let folder = format!("/proc/{}/fd/{}/", std::process::id(), folder.as_raw_fd());
    run("find", &[&folder, "-mindepth", "1", "-printf", told])
}

/// Ends a thread, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_stands_in_the_place_of_an_export_that_was_killed_is_not_removed() {
    for (point, revealed) in [
        ("export.read.after", false),
        ("export.copy.after", false),
        ("export.reveal.before", false),
        ("export.reveal.after", true),
    ] {
        let trap = Trap::new();
        let (scene, root) = (&trap.scene, &trap.root);
        let gate = Gate::new();
        let mut server = scene.serve_exporting(root, &gate.at(point));
        let (wire, set) = scene.with_a_set(&server);
        let started = wire.export(&set, root.to_str().unwrap(), None).unwrap();
        scene.is_at_the_gate(&wire, (&started, &gate), point);
        let job = started.job.clone().unwrap();
        server.kill();
        drop(gate);
        let part = trap.part(&set, &job);
        let own = if revealed {
            root.join(&set)
        } else {
            part.clone()
        };
        let moved = root.join("moved");
        if own.exists() {
            scene.other(&[&"mv", &"-T", &own, &moved]);
        }
        trap.spring(&own);
        let server = scene.serve_exporting(root, "");
        let wire = Wire::new(&server);
        let job = wire.end(&job).unwrap();
        scene.site.wait_for_journals();
        trap.assert_untouched(&own, point);
        assert_ne!(job.state, COMPLETED, "{point}: {job:?}");
        assert!(!job.error.contains("nothing"), "{point}: {job:?}");
        let history = text(&run_in(&scene.site.data, &["history", "--json"], "").stdout);
        assert!(
            history.contains(part.to_str().unwrap()),
            "{point}: {history}"
        );
        assert_eq!(moved.exists(), point != "export.read.after", "{point}");
    }
}

/// A kill without an attack leaves nothing.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_was_made_for_an_export_that_was_killed_is_removed() {
    for point in ["export.copy.after", "export.reveal.after"] {
        let trap = Trap::new();
        let (scene, root) = (&trap.scene, &trap.root);
        let gate = Gate::new();
        let mut server = scene.serve_exporting(root, &gate.at(point));
        let (wire, set) = scene.with_a_set(&server);
        let started = wire.export(&set, root.to_str().unwrap(), None).unwrap();
        scene.is_at_the_gate(&wire, (&started, &gate), point);
        server.kill();
        drop(gate);
        let server = scene.serve_exporting(root, "");
        Wire::new(&server).end(&started.job.unwrap()).unwrap();
        scene.site.wait_for_journals();
        assert_eq!(names(root), ["guarded"], "{point}");
        trap.assert_untouched(&trap.guarded, point);
    }
}

/// Whoever may read jobs knows the name before the folder is made.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_stands_in_the_place_of_an_export_before_it_begins_is_not_removed() {
    let trap = Trap::new();
    let (scene, root) = (&trap.scene, &trap.root);
    let gate = Gate::new();
    let server = scene.serve_exporting(root, &gate.at("export.read.after"));
    let (wire, set) = scene.with_a_set(&server);
    let started = wire.export(&set, root.to_str().unwrap(), None).unwrap();
    scene.is_at_the_gate(&wire, (&started, &gate), "before the copy");
    let part = trap.part(&set, started.job.as_deref().unwrap());
    trap.spring(&part);
    gate.open();
    let job = end(&wire, &started, "taken");
    assert_ne!(job.state, COMPLETED, "{job:?}");
    scene.site.wait_for_journals();
    trap.assert_untouched(&part, "taken");
    assert!(!root.join(&set).exists());
}

/// As soon as a folder of ours is there, the second user exchanges it: under its own name, which he knows, and under any
/// other.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn no_export_is_written_into_a_folder_that_is_exchanged_with_one_that_was_just_made() {
    let trap = Trap::new();
    let (scene, root) = (&trap.scene, &trap.root);
    let gates: Vec<_> = (1..=ROUNDS).map(|_| Gate::new()).collect();
    let orders = gates.iter().zip(1..);
    let orders = orders.map(|(gate, n)| gate.at(&format!("export.read.after#{n}")));
    let server = scene.serve_exporting(root, &orders.collect::<Vec<_>>().join(","));
    let (wire, set) = scene.with_a_set(&server);
    let exchange =
        |name: &Path| renameat_with(CWD, &trap.guarded, CWD, name, RenameFlags::EXCHANGE);
    for (n, gate) in gates.into_iter().enumerate() {
        let what = format!("{n}");
        let started = wire.export(&set, root.to_str().unwrap(), None).unwrap();
        scene.is_at_the_gate(&wire, (&started, &gate), &what);
        let part = trap.part(&set, started.job.as_deref().unwrap());
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _stopping = Stop(&stop);
            scope.spawn(|| {
                become_other();
                while !stop.load(Ordering::Relaxed) && exchange(&part).is_err() {
                    std::hint::spin_loop();
                }
            });
            scope.spawn(|| {
                become_other();
                while !stop.load(Ordering::Relaxed) {
                    let ours = names(root).into_iter();
                    for name in ours.filter(|name| name.starts_with(".groupshot-trash")) {
                        let _gone = exchange(&root.join(name));
                    }
                }
            });
            gate.open();
            end(&wire, &started, &what);
            scene.site.wait_for_journals();
        });
        assert_eq!(below(&trap.held), trap.before, "{what}");
        let all = names(root).into_iter().map(|name| root.join(name));
        let is_his = |name: &PathBuf| fs::metadata(name).unwrap().ino() == trap.inode();
        let (his, ours): (Vec<_>, Vec<_>) = all.partition(is_his);
        for folder in ours {
            fs::remove_dir_all(folder).unwrap();
        }
        fs::rename(&his[0], &trap.guarded).unwrap();
    }
}

/// The folder is moved away while it is written: what was in it goes, wherever it is.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_an_export_has_written_is_removed_from_a_folder_that_was_moved_away() {
    let trap = Trap::new();
    let (scene, root) = (&trap.scene, &trap.root);
    let gate = Gate::new();
    let server = scene.serve_exporting(root, &gate.at("export.copy.after"));
    let (wire, set) = scene.with_a_set(&server);
    let started = wire.export(&set, root.to_str().unwrap(), None).unwrap();
    scene.is_at_the_gate(&wire, (&started, &gate), "copied");
    let part = trap.part(&set, started.job.as_deref().unwrap());
    let moved = root.join("moved");
    scene.other(&[&"mv", &"-T", &part, &moved]);
    assert!(!names(&moved).is_empty());
    gate.open();
    let job = end(&wire, &started, "moved");
    assert_ne!(job.state, COMPLETED, "{job:?}");
    assert!(!job.error.contains("nothing"), "{job:?}");
    scene.site.wait_for_journals();
    assert_eq!(names(&moved), [""; 0]);
    let history = text(&run_in(&scene.site.data, &["history", "--json"], "").stdout);
    assert!(history.contains("has moved the folder"), "{history}");
}

/// The root is in a folder of the second user: he leads it elsewhere once the server runs.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_root_that_is_led_elsewhere_later_is_refused_and_told_before() {
    let scene = Scene::new(Ground::Host, Image::Raw, &["--overlay-ok"]);
    let pool = scene.site.images.join("pool");
    let (root, guarded) = (pool.join("exports"), scene.site.images.join("guarded"));
    fs::create_dir(&guarded).unwrap();
    scene.other(&[&"mkdir", &root]);
    let server = scene.serve_exporting(&root, "");
    let (wire, set) = scene.with_a_set(&server);
    scene.other(&[&"mv", &root, &pool.join("aside")]);
    scene.other(&[&"ln", &"-s", &guarded, &root]);
    let refused = wire.export(&set, root.to_str().unwrap(), None).unwrap();
    let why = wire.why(&refused);
    assert_eq!(refused.value, 32_773, "{why}");
    assert!(why.contains(root.to_str().unwrap()), "{why}");
    assert!(names(&guarded).is_empty());
    let told = |said: &str| said.contains(pool.to_str().unwrap()) && said.contains("65534");
    let said = scene.doctor(&[]);
    assert!(said.contains("export-exposed") && told(&said), "{said}");
    drop(server);
    let config = scene.site.configuration(&format!(
        "[listen]\nhttp = \"127.0.0.1:0\"\n[export]\nroots = [{:?}]\n",
        root.to_str().unwrap()
    ));
    let args = ["config", "check", config.to_str().unwrap()];
    let out = run_in(&scene.site.data, &args, "");
    let said = text(&out.stdout) + &text(&out.stderr);
    assert!(said.contains("export.roots") && told(&said), "{said}");
    let mut starting = Command::new(binary())
        .args(["serve", "--config", config.to_str().unwrap(), "--data-dir"])
        .arg(&scene.site.data)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(starting.stderr.take().unwrap()).lines();
    let said = log.map_while(Result::ok).find(|line| told(line));
    starting.kill().unwrap();
    starting.wait().unwrap();
    assert!(said.unwrap().contains("export.roots"));
}
