//! A file system that hangs while nobody looks: whoever looks there first, on behalf of other machines, is not kept by it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, yield_now};
use std::time::{Duration, Instant};

use crate::support::gate::Gate;
use crate::support::remote::{Call, Remote};
use crate::support::server::{PASSWORD, Server, USER, binary, run_in, text};
use crate::support::site::{Ground, Image, Machine, SIZE, Site};
use crate::support::tools::run;
use crate::support::wire::{Created, Job, STARTED, Wire};

const COMPLETED: u64 = 7;
const TERMINATED: u64 = 8;
/// Status and health of a machine with which all is well.
const WELL: (u64, u64) = (2, 5);
/// Far above the seconds after which a place is silent, on a busy host.
const IN_TIME: Duration = Duration::from_secs(60);

/// A machine whose image lies on a file of the remote side, with a set, and one that has nothing to do with it.
struct Scene {
    site: Site,
    remote: Remote,
    near: Machine,
    far: Machine,
    config: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let site = Site::new(Ground::Host);
        let remote = Remote::new(&site.images, "remote");
        let image = site.images.join("far.qcow2");
        let (image, base) = (image.to_str().unwrap(), remote.image.to_str().unwrap());
        let args = [
            "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", image,
        ];
        run("qemu-img", &args);
        let far = site.import("far", &["--overlay-ok", image], vec![vec![7; SIZE]]);
        let near = site.machine("near", &[Image::Raw], 1);
        let roots = format!("[export]\nroots = [{:?}]\n", site.images);
        let config = site.configuration(&roots);
        Self {
            site,
            remote,
            near,
            far,
            config,
        }
    }

    fn serve(&self, order: &str) -> Server {
        let config = self.config.to_str().unwrap();
        self.site.serve_at(config, order).unwrap()
    }

    /// A set of each machine alone; that of the near one is given with its group.
    fn sets(&self, wire: &Wire) -> (String, String) {
        let far = wire.define("far", &[&self.far.id]).unwrap();
        wire.take(&far, "far");
        let near = wire.define("near", &[&self.near.id]).unwrap();
        let set = wire.take(&near, "near");
        self.site.wait_for_journals();
        (near, set)
    }
}

/// What is done to the near machine.
#[derive(Debug, Clone, Copy)]
enum Does {
    Create,
    Apply,
    Export,
    Destroy,
}

impl Does {
    const ALL: [Self; 4] = [Self::Create, Self::Apply, Self::Export, Self::Destroy];

    /// Accepted, and nothing is done yet.
    fn begins(self) -> &'static str {
        match self {
            Self::Create => "create.cut.before",
            Self::Apply => "apply.revert.before",
            Self::Export => "export.copy.before",
            Self::Destroy => "destroy.clean.before",
        }
    }

    fn start(self, wire: &Wire, scene: &Scene, (group, set): &(String, String)) -> String {
        let root = scene.site.images.to_str().unwrap();
        let started: Created = match self {
            Self::Create => wire.create(group, "new"),
            Self::Apply => wire.apply(set),
            Self::Export => wire.export(set, root, None),
            Self::Destroy => wire.destroy(set),
        }
        .unwrap();
        let why = wire.why(&started);
        assert_eq!(started.value, STARTED, "{self:?}: {why}");
        started.job.unwrap()
    }
}

fn ends(wire: &Wire, job: &str, what: Does) -> Job {
    let begun = Instant::now();
    loop {
        let now = wire.job(job).unwrap();
        if now.state > 6 {
            return now;
        }
        assert!(begun.elapsed() < IN_TIME, "{what:?} stands: {now:?}");
        yield_now();
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_job_that_is_the_first_to_look_at_a_hung_mount_of_another_machine_goes_on_without_it() {
    for does in Does::ALL {
        let (scene, gate) = (Scene::new(), Gate::new());
        let ready = scene.sets(&Wire::new(&scene.serve("")));
        let server = scene.serve(&gate.at(does.begins()));
        let wire = Wire::new(&server);
        let job = does.start(&wire, &scene, &ready);
        gate.reached();
        let hung = scene.remote.hang(Call::Any);
        gate.open();
        let ended = ends(&wire, &job, does);
        assert_eq!(ended.state, COMPLETED, "{does:?}: {ended:?}");
        // It has let go of its machine.
        if !matches!(does, Does::Destroy) {
            let job = Does::Destroy.start(&wire, &scene, &ready);
            let ended = ends(&wire, &job, Does::Destroy);
            assert_eq!(ended.state, COMPLETED, "{does:?}: {ended:?}");
        }
        drop(hung);
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_request_that_is_the_first_to_look_at_a_hung_mount_of_another_machine_is_accepted() {
    let scene = Scene::new();
    let server = scene.serve("");
    let wire = Wire::new(&server);
    let ready = scene.sets(&wire);
    for does in Does::ALL {
        while wire.health(&scene.far.id) != WELL {
            yield_now();
        }
        // All were looked at just now: the request looks no more, but for itself.
        let hung = scene.remote.hang(Call::Any);
        let job = does.start(&wire, &scene, &ready);
        let ended = ends(&wire, &job, does);
        assert_eq!(ended.state, COMPLETED, "{does:?}: {ended:?}");
        drop(hung);
        scene.site.wait_for_journals();
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_job_that_is_cancelled_while_it_stands_ends_and_is_undone_once_the_file_answers() {
    let (scene, gate) = (Scene::new(), Gate::new());
    let server = scene.serve(&gate.at("export.copy.before"));
    let wire = Wire::new(&server);
    let group = wire.define("far", &[&scene.far.id]).unwrap();
    let set = wire.take(&group, "far");
    scene.site.wait_for_journals();
    let before = scene.site.tree();
    let root = scene.site.images.to_str().unwrap();
    let job = wire.export(&set, root, None).unwrap().job.unwrap();
    gate.reached();
    let hung = scene.remote.hang(Call::Any);
    gate.open();
    scene.remote.hangs();
    let begun = Instant::now();
    let client = Command::new(binary())
        .args(["job", "cancel", &job])
        .env("GROUPSHOT_URL", server.url())
        .env("GROUPSHOT_USER", USER)
        .env("GROUPSHOT_PASSWORD", PASSWORD)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = text(&client.stdout) + &text(&client.stderr);
    assert!(begun.elapsed() < IN_TIME, "{said}");
    assert!(
        client.status.success() && said.contains("terminated"),
        "{said}"
    );
    let ended = wire.job(&job).unwrap();
    assert_eq!(ended.state, TERMINATED, "{ended:?}");
    for told in [&ended.status, &ended.error] {
        assert!(told.contains("is being undone"), "{ended:?}");
    }
    // What it has made is still there, and so is its hold on the set.
    let refused = wire.destroy(&set).unwrap();
    let why = wire.why(&refused);
    assert_ne!(refused.value, STARTED, "{why}");
    // What the undo has to leave is told where it can be read when all is over.
    let part = names(&scene.site.images).find(|name| name.ends_with(".part"));
    let part = scene.site.images.join(part.unwrap());
    let moved = scene.site.images.join("moved");
    fs::rename(&part, &moved).unwrap();
    drop(hung);
    scene.site.wait_for_journals();
    let history = run_in(&scene.site.data, &["history", "--json"], "");
    let history = text(&history.stdout);
    let left = format!("has moved the folder {} of the export away", part.display());
    assert!(history.contains(&left), "{history}");
    fs::remove_dir(&moved).unwrap();
    assert_eq!(scene.site.tree(), before);
    let job = wire.export(&set, root, None).unwrap().job.unwrap();
    assert_eq!(wire.end(&job).unwrap().state, COMPLETED);
}

fn names(folder: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap())
}

/// A machine whose definition is gone has files there, and nothing else leads to them.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_start_looks_for_orphans_and_is_not_kept_by_a_hung_mount() {
    let scene = Scene::new();
    let mut server = scene.serve("");
    let wire = Wire::new(&server);
    let far = wire.define("far", &[&scene.far.id]).unwrap();
    let set = wire.take(&far, "far");
    scene.site.wait_for_journals();
    let gone = wire.destroy(&set).unwrap().job.unwrap();
    assert_eq!(wire.end(&gone).unwrap().state, COMPLETED);
    scene.site.wait_for_journals();
    server.kill();
    let machine = scene.site.data.join("machines").join(&scene.far.id);
    fs::remove_file(machine.join("vm.toml")).unwrap();
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        let hung = scene.remote.hang(Call::Any);
        scope.spawn(|| drop(tell.send(scene.serve(""))));
        let started = told.recv_timeout(IN_TIME);
        drop(hung);
        assert!(started.is_ok(), "the start stands");
    });
}
