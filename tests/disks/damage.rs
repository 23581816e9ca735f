//! Files that a set keeps and that somebody else writes: noticed, told once, never applied or exported, never
//! merged, and our own changes are not taken for it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::gate::Gate;
use crate::support::server::{Server, text};
use crate::support::site::{Ground, Image, Machine, Site, assert_holds, older_database};
use crate::support::until;
use crate::support::wire::{Shown, Wire};

const INVALID_STATE: u64 = 5;
const EXPORT_INVALID_STATE: u64 = 32775;
const COMPLETED: u64 = 7;

/// Writes behind the server's back, as one who asks nobody for a lock does.
pub(super) fn scribble(file: &Path) {
    // A mode does not keep root from it.
    let file = File::options().write(true).open(file).unwrap();
    file.write_all_at(&[0xEE; 512], 4096).unwrap();
    file.sync_all().unwrap();
}

/// The notes about damage of a set's members.
fn damage(shown: &Shown, set: &str) -> Vec<String> {
    let members = shown.sets[set].members.iter();
    let notes = members.flat_map(|m| m.notes.clone());
    notes.filter(|n| n.starts_with("damaged: ")).collect()
}

/// A site with one machine in one group, exports allowed and the audit log in a file.
struct Scene {
    site: Site,
    machine: Machine,
    group: String,
    config: String,
}

impl Scene {
    fn new() -> (Self, Server, Wire) {
        let site = Site::new(Ground::Host);
        let machine = site.machine("web", &[Image::Raw], 1);
        let config = format!(
            "[export]\nroots = [{:?}]\n[log]\naudit = {:?}\n",
            site.images,
            site.images.join("audit.log")
        );
        let server = site.serve_configured(&config);
        let wire = Wire::new(&server);
        let group = wire.define("all", &[&machine.id]).unwrap();
        let scene = Self {
            site,
            machine,
            group,
            config,
        };
        (scene, server, wire)
    }

    fn serve(&self) -> (Server, Wire) {
        let server = self.site.serve_configured(&self.config);
        let wire = Wire::new(&server);
        (server, wire)
    }

    /// The audit lines about damage, once there are some: the mark is durable a moment before.
    fn alerts(&self) -> Vec<serde_json::Value> {
        until("an alert", || !self.told().is_empty());
        self.told()
    }

    fn told(&self) -> Vec<serde_json::Value> {
        let log = fs::read_to_string(self.site.images.join("audit.log")).unwrap();
        let lines = log.lines().map(|l| serde_json::from_str(l).unwrap());
        lines
            .filter(|l: &serde_json::Value| l["event"] == "set-damaged")
            .collect()
    }

    fn image(&self) -> &Path {
        &self.machine.images[0]
    }

    /// Neither applied nor exported; the refusals name everything.
    fn assert_refused(&self, wire: &Wire, set: &str) {
        let refused = wire.apply(set).unwrap();
        assert_eq!(refused.value, INVALID_STATE);
        let directory = self.site.images.to_str().unwrap();
        let unexported = wire.export(set, directory, None).unwrap();
        assert_eq!(unexported.value, EXPORT_INVALID_STATE);
        for refused in [refused, unexported] {
            let why = wire.why(&refused);
            for part in [set, "web", "disk0", self.image().to_str().unwrap()] {
                assert!(why.contains(part), "{why}");
            }
        }
        assert!(!self.site.images.join(set).exists());
    }
}

#[test]
fn a_refusal_names_every_disk_of_a_set_that_was_changed() {
    let site = Site::new(Ground::Host);
    let [web, db] = [("web", 1), ("db", 2)].map(|(n, byte)| site.machine(n, &[Image::Raw], byte));
    let server = site.serve_configured(&format!("[export]\nroots = [{:?}]\n", site.images));
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&web.id, &db.id]).unwrap();
    let set = wire.take(&group, "first");
    site.wait_for_journals();
    let images = [&web, &db].map(|m| m.images[0].to_str().unwrap());
    for image in images {
        scribble(Path::new(image));
    }
    let directory = site.images.to_str().unwrap();
    for refused in [
        wire.apply(&set).unwrap(),
        wire.export(&set, directory, None).unwrap(),
    ] {
        let why = wire.why(&refused);
        for image in images {
            assert!(why.contains(image), "{image}: {why}");
        }
    }
}

/// A merge seals anew what it has written, and nothing else.
#[test]
fn what_somebody_else_writes_within_a_merge_is_noticed_though_the_merge_seals_anew() {
    let site = Site::new(Ground::Host);
    let mut machine = site.machine("web", &[Image::Raw], 1);
    let gate = Gate::new();
    let server = site.serve_with(&[&gate.at("destroy.merge.after")]);
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&machine.id]).unwrap();
    let mut sets = Vec::new();
    for (n, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
        sets.push(wire.take(&group, name));
        site.wait_for_journals();
        let top = site.top(&machine, 0);
        machine.write(&top, 0, (n + 1) * 8192, 8192, 7);
    }
    // What `b` and `c` keep is joined; `a` keeps the image, under both.
    let gone = wire.destroy(&sets[1]).unwrap();
    gate.reached();
    scribble(&machine.images[0]);
    gate.open();
    let job = wire.end(&gone.job.unwrap()).unwrap();
    assert_eq!(job.state, COMPLETED, "{job:?}");
    site.wait_for_journals();
    drop((wire, server));
    let server = site.serve();
    let shown = Wire::new(&server).shown().unwrap();
    for set in [0, 2, 3] {
        let told = damage(&shown, &sets[set]);
        let image = machine.images[0].to_str().unwrap();
        assert!(
            told.len() == 1 && told[0].ends_with(image),
            "{set}: {told:?}"
        );
    }
}

#[test]
fn a_base_written_while_no_server_ran_is_noticed_at_the_next_start() {
    let (scene, mut server, wire) = Scene::new();
    let set = wire.take(&scene.group, "before");
    assert_eq!(damage(&wire.shown().unwrap(), &set), [] as [String; 0]);
    server.stop();
    scribble(scene.image());
    let (mut server, wire) = scene.serve();
    let shown = wire.shown().unwrap();
    let told = format!("damaged: disk0: {}", scene.image().display());
    assert_eq!(damage(&shown, &set), [told.as_str()]);
    let before = scene.site.tree();
    scene.assert_refused(&wire, &set);
    assert_eq!(wire.shown().unwrap().tops, shown.tops);
    let log = scene.site.images.join("audit.log");
    let but_log = |mut tree: std::collections::BTreeMap<_, _>| {
        tree.remove(&log);
        tree
    };
    assert_eq!(
        but_log(scene.site.tree()),
        but_log(before),
        "nothing changed"
    );
    let list = text(&server.cli(&["snapshot", "list"]).stdout);
    assert!(list.contains("damaged"), "{list}");
    let show = text(&server.cli(&["snapshot", "show", "before"]).stdout);
    assert!(show.contains(&format!("web: {told}")), "{show}");
    let shown = server.cli(&["--json", "snapshot", "show", "before"]);
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let member = &shown["members"][0];
    assert_eq!(
        (&member["consistency"], &member["damaged"]),
        (&"application".into(), &true.into())
    );
    let (file, image) = (&member["files"][0], scene.image().to_str().unwrap());
    assert_eq!(
        (&file["driver"], &file["file"]),
        (&"overlay".into(), &image.into())
    );
    assert!(file["bytes"].as_u64().unwrap() >= 4096, "{file}");
    let list = server.cli(&["--json", "snapshot", "list"]);
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!(list["sets"][0]["damaged"], true);
    let alerts = scene.alerts();
    assert_eq!(alerts.len(), 1);
    assert!(alerts[0]["address"].is_null(), "no client did it");
    assert_eq!(
        (&alerts[0]["set"], &alerts[0]["disk"]),
        (&set.as_str().into(), &"disk0".into())
    );
    // It is told once, and stays.
    server.stop();
    let (_server, wire) = scene.serve();
    assert_eq!(damage(&wire.shown().unwrap(), &set), [told]);
    assert_eq!(scene.alerts().len(), 1);
}

#[test]
fn a_base_written_while_the_server_runs_is_noticed_when_it_is_wanted() {
    let (scene, _server, wire) = Scene::new();
    let set = wire.take(&scene.group, "before");
    scribble(scene.image());
    scene.assert_refused(&wire, &set);
    // What is captured now is the machine as it is now.
    let later = wire.take(&scene.group, "later");
    let shown = wire.shown().unwrap();
    assert_eq!(damage(&shown, &later), [] as [String; 0]);
    let applied = wire.apply(&later).unwrap();
    let job = wire.end(&applied.job.unwrap()).unwrap();
    assert_eq!(job.state, COMPLETED, "{job:?}");
    assert_eq!(scene.alerts().len(), 1);
}

#[test]
fn a_base_written_while_the_server_runs_is_noticed_before_long() {
    let (scene, _server, wire) = Scene::new();
    let set = wire.take(&scene.group, "before");
    scribble(scene.image());
    let began = Instant::now();
    while damage(&wire.shown().unwrap(), &set).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(120), "not noticed");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(scene.alerts().len(), 1);
}

#[test]
fn what_was_changed_is_destroyed_and_not_merged() {
    let (scene, mut server, wire) = Scene::new();
    let first = wire.take(&scene.group, "first");
    let second = wire.take(&scene.group, "second");
    scribble(scene.image());
    let bytes = fs::read(scene.image()).unwrap();
    let gone = wire.destroy(&first).unwrap();
    let job = wire.end(&gone.job.unwrap()).unwrap();
    assert_eq!(job.state, COMPLETED, "{job:?}");
    assert!(
        job.status.contains("was changed after it was captured"),
        "{job:?}"
    );
    assert_eq!(
        fs::read(scene.image()).unwrap(),
        bytes,
        "nothing is merged into it"
    );
    // The second one lies on it, and goes on saying so.
    let told = format!("damaged: disk0: {}", scene.image().display());
    assert_eq!(damage(&wire.shown().unwrap(), &second), [told.as_str()]);
    scene.site.wait_for_journals();
    server.stop();
    let (_server, wire) = scene.serve();
    assert_eq!(damage(&wire.shown().unwrap(), &second), [told.as_str()]);
}

#[test]
fn a_set_of_an_older_version_has_no_seals_and_is_whole() {
    let (scene, mut server, wire) = Scene::new();
    let set = wire.take(&scene.group, "before");
    scene.site.wait_for_journals();
    server.stop();
    // As a version wrote it that knew of no seals.
    let database = older_database(&scene.site.data);
    let stripped = "UPDATE sets SET record = json_remove(record, '$.members[0].disks[0].sealed')";
    assert_eq!(database.execute(stripped, []).unwrap(), 1);
    drop(database);
    scribble(scene.image());
    let (mut server, wire) = scene.serve();
    assert_eq!(damage(&wire.shown().unwrap(), &set), [] as [String; 0]);
    // From that start on it is looked after.
    server.stop();
    scribble(scene.image());
    let (_server, wire) = scene.serve();
    assert_eq!(damage(&wire.shown().unwrap(), &set).len(), 1);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_a_destroy_changes_is_no_damage() {
    let site = Site::new(Ground::Host);
    let mut machine = site.machine("web", &[Image::Raw, Image::Chain], 1);
    let mut server = site.serve();
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&machine.id]).unwrap();
    let mut sets = Vec::new();
    for byte in 2..7 {
        sets.push((wire.take(&group, "x"), machine.content.clone()));
        for disk in 0..2 {
            let top = site.top(&machine, disk);
            machine.write(&top, disk, usize::from(byte) * 8192, 4096, byte);
        }
    }
    // The middle, the oldest, the newest: merges into files that others keep, headers of others.
    for n in [2, 0, 2] {
        let (set, _) = sets.remove(n);
        let gone = wire.destroy(&set).unwrap();
        assert_eq!(wire.end(&gone.job.unwrap()).unwrap().state, COMPLETED);
        site.wait_for_journals();
    }
    server.stop();
    let server = site.serve();
    let wire = Wire::new(&server);
    let shown = wire.shown().unwrap();
    for (set, content) in &sets {
        assert_eq!(damage(&shown, set), [] as [String; 0]);
        for (n, expected) in content.iter().enumerate() {
            let file = &shown.sets[set].members[0].disks[&format!("disk{n}")];
            assert_holds(file, expected, "kept");
        }
    }
    // Their seals are those of the files as they are now: a write into any of them shows.
    let kept = &shown.sets[&sets[1].0].members[0].disks["disk1"];
    scribble(kept);
    let refused = wire.apply(&sets[1].0).unwrap();
    assert_eq!(refused.value, INVALID_STATE);
}
