//! An older copy of the database and of `tops.json` over files that went on since: whatever was done in between, following
//! what each message says ends with a machine that works and holds what it wrote last.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use groupshot::server::choose_tops;
use groupshot::snapshot::Choosing;

use crate::support::server::{Server, run_in, text};
use crate::support::site::{Ground, Image, Machine, Site, assert_holds};
use crate::support::tools;
use crate::support::wire::Wire;

/// What was done between the backup and its return.
#[derive(Debug, Clone, Copy)]
enum Since {
    Taken,
    Deleted(&'static [usize]),
    Applied(usize),
    AppliedAndDeleted(usize, &'static [usize]),
}

struct Scene {
    site: Site,
    web: Machine,
    group: String,
    sets: Vec<String>,
    holds: Vec<Vec<u8>>,
}

impl Scene {
    /// Three sets between writes.
    fn new() -> (Self, Server) {
        let site = Site::new(Ground::Host);
        let web = site.machine("web", &[Image::Qcow2], 1);
        let server = site.serve();
        let group = Wire::new(&server).define("all", &[&web.id]).unwrap();
        let mut scene = Self {
            site,
            web,
            group,
            sets: Vec::new(),
            holds: Vec::new(),
        };
        (0..3).for_each(|n| scene.takes(&server, n));
        (scene, server)
    }

    fn takes(&mut self, server: &Server, n: u8) {
        self.holds.push(self.web.content[0].clone());
        let set = Wire::new(server).take(&self.group, &format!("set {n}"));
        self.sets.push(set);
        self.site.wait_for_journals();
        self.writes(n);
    }

    fn writes(&mut self, n: u8) {
        let top = self.site.top(&self.web, 0);
        self.web
            .write(&top, 0, (usize::from(n) + 1) * 8192, 8192, n + 2);
    }

    fn does(&mut self, server: &Server, since: Since) {
        let wire = Wire::new(server);
        let ends = |accepted: Option<String>| {
            assert_eq!(wire.end(&accepted.unwrap()).unwrap().state, 7);
            self.site.wait_for_journals();
        };
        let delete = |sets: &[usize]| {
            for set in sets {
                ends(wire.destroy(&self.sets[*set]).unwrap().job);
            }
        };
        match since {
            Since::Taken => self.takes(server, 3),
            Since::Deleted(sets) => delete(sets),
            Since::Applied(set) | Since::AppliedAndDeleted(set, _) => {
                ends(wire.apply(&self.sets[set]).unwrap().job);
                self.web.content[0] = self.holds[set].clone();
                self.writes(9);
                if let Since::AppliedAndDeleted(_, sets) = since {
                    let wire = Wire::new(server);
                    for set in sets {
                        let job = wire.destroy(&self.sets[*set]).unwrap().job;
                        assert_eq!(wire.end(&job.unwrap()).unwrap().state, 7);
                        self.site.wait_for_journals();
                    }
                }
            }
        }
    }

    fn backed_up(&self) -> Vec<PathBuf> {
        let names = ["groupshot.db", "groupshot.db-wal", "groupshot.commits"];
        let tops = Path::new("machines").join(&self.web.id).join("tops.json");
        let names = names.iter().map(PathBuf::from).chain([tops]);
        names.map(|name| self.site.data.join(name)).collect()
    }

    fn read(&self) -> Vec<Option<Vec<u8>>> {
        let files = self.backed_up().into_iter();
        files.map(|file| fs::read(file).ok()).collect()
    }

    fn put_back(&self, backup: &[Option<Vec<u8>>]) {
        for (file, bytes) in self.backed_up().iter().zip(backup) {
            match bytes {
                Some(bytes) => fs::write(file, bytes).unwrap(),
                None => drop(fs::remove_file(file)),
            }
        }
    }

    fn runs(&self, args: &[&str]) -> (Option<i32>, String) {
        let out = run_in(&self.site.data, args, "");
        let said = text(&out.stdout) + &text(&out.stderr);
        (out.status.code(), said)
    }

    /// What a start and the check-up advise is done, until nothing is advised any more. `last` is what the operator knows.
    fn follow(&self, last: &Path, what: &str) {
        for _ in 0..4 {
            let Err(refused) = self.site.try_serve(&[]) else {
                break;
            };
            assert!(
                refused.contains("`groupshot doctor --rebuild"),
                "{what}: {refused}"
            );
            let (code, said) = self.runs(&["doctor", "--rebuild", "--yes"]);
            assert_eq!(code, Some(0), "{what}: {said}");
        }
        let (_, said) = self.runs(&["doctor", "--fix", "--yes"]);
        let advised = format!("`groupshot vm set {} --active disk0=FILE", self.web.id);
        if said.contains(&advised) {
            let named = format!("disk0={}", last.display());
            let (code, said) = self.runs(&["vm", "set", "web", "--active", &named, "--yes"]);
            assert_eq!(code, Some(0), "{what}: {said}");
        }
        let (code, said) = self.runs(&["doctor"]);
        assert_eq!(code, Some(0), "{what}: {said}");
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn after_an_older_backup_over_newer_files_what_is_advised_ends_in_a_machine_that_works() {
    let all = [
        Since::Taken,
        Since::Deleted(&[2]),
        Since::Deleted(&[1]),
        Since::Deleted(&[2, 1]),
        Since::Deleted(&[0, 1, 2]),
        Since::Applied(0),
        Since::AppliedAndDeleted(0, &[2]),
    ];
    for since in all {
        let what = format!("{since:?}");
        let (mut scene, mut server) = Scene::new();
        server.stop();
        let backup = scene.read();
        server = scene.site.serve();
        scene.does(&server, since);
        server.stop();
        let last = scene.site.top(&scene.web, 0);
        scene.put_back(&backup);

        scene.follow(&last, &what);
        assert_eq!(scene.site.top(&scene.web, 0), last, "{what}");
        let server = scene.site.serve();
        let wire = Wire::new(&server);
        assert_holds(&last, &scene.web.content[0], &what);
        let shown = wire.shown().unwrap();
        for (set, holds) in scene.sets.iter().zip(&scene.holds) {
            if let Some(set) = shown.sets.get(set) {
                assert!(!set.is_damaged(), "{what}: {set:?}");
                assert_holds(&set.members[0].disks["disk0"], holds, &what);
            }
        }
        wire.take(&scene.group, "after");
        scene.site.wait_for_journals();
        for set in wire.shown().unwrap().sets.keys() {
            let job = wire.destroy(set).unwrap().job.unwrap();
            assert_eq!(wire.end(&job).unwrap().state, 7, "{what}");
            scene.site.wait_for_journals();
        }
        assert_holds(&scene.site.top(&scene.web, 0), &scene.web.content[0], &what);
    }
}

/// The database is lost, and of one set its folder too: what it has captured lies in that of another.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_a_set_has_captured_whose_record_is_lost_is_told_and_left_by_a_repair() {
    let (mut scene, mut server) = Scene::new();
    scene.does(&server, Since::Applied(0));
    let captured = |n: usize| {
        let shown = Wire::new(&server).shown().unwrap();
        shown.sets[&scene.sets[n]].members[0].disks["disk0"].clone()
    };
    let (kept, above) = (captured(1), captured(2));
    server.stop();
    let folder = |n: usize| scene.site.data.join("sets").join(&scene.sets[n]);
    for name in ["groupshot.db", "groupshot.db-wal", "groupshot.commits"] {
        let _may_be_absent = fs::remove_file(scene.site.data.join(name));
    }
    assert!(above.starts_with(folder(1)) && kept.starts_with(folder(0)));
    fs::remove_dir_all(folder(1)).unwrap();
    fs::remove_dir_all(folder(2)).unwrap();
    let (code, said) = scene.runs(&["doctor", "--rebuild", "--yes"]);
    assert_eq!(code, Some(0), "{said}");
    for _ in 0..2 {
        let (code, said) = scene.runs(&["doctor", "--fix", "--yes"]);
        assert_eq!(code, Some(1), "{said}");
        let line = said.lines().find(|l| l.contains(kept.to_str().unwrap()));
        assert!(line.unwrap().contains("a set has captured it"), "{said}");
        assert!(kept.exists());
    }
    // Nor is it taken as an active file: what is covered is merged into later.
    let named = format!("disk0={}", kept.display());
    let (code, said) = scene.runs(&["vm", "set", "web", "--active", &named, "--yes"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("is frozen, and nothing tells for whom"),
        "{said}"
    );
    assert_holds(&kept, &scene.holds[1], "captured");
    assert_holds(
        &scene.site.top(&scene.web, 0),
        &scene.web.content[0],
        "active",
    );
}

/// Clones lie beside their image, and nothing that a delete of them leaves is written.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_delete_of_clones_that_the_database_has_lost_is_made_again() {
    let site = Site::new(Ground::Xfs);
    let web = site.machine("web", &[Image::Raw], 1);
    let mut server = site.serve();
    let group = Wire::new(&server).define("all", &[&web.id]).unwrap();
    let set = Wire::new(&server).take(&group, "a");
    site.wait_for_journals();
    server.stop();
    let names = ["groupshot.db", "groupshot.commits"];
    let backup = names.map(|name| fs::read(site.data.join(name)).unwrap());
    server = site.serve();
    let wire = Wire::new(&server);
    let job = wire.destroy(&set).unwrap().job.unwrap();
    assert_eq!(wire.end(&job).unwrap().state, 7);
    site.wait_for_journals();
    server.stop();
    let _log = fs::remove_file(site.data.join("groupshot.db-wal"));
    for (name, bytes) in names.iter().zip(backup) {
        fs::write(site.data.join(name), bytes).unwrap();
    }
    let rebuild = |more: &[&str]| {
        let out = run_in(&site.data, &[&["doctor", "--rebuild"], more].concat(), "");
        text(&out.stdout) + &text(&out.stderr)
    };
    // Not while the image is away: so may the clone be.
    let image = &web.images[0];
    let away = image.with_extension("away");
    fs::rename(image, &away).unwrap();
    let said = rebuild(&[]);
    assert!(
        said.contains(&set) && !said.contains("counts as destroyed"),
        "{said}"
    );
    fs::rename(&away, image).unwrap();
    let said = rebuild(&["--yes"]);
    assert!(said.contains("counts as destroyed"), "{said}");
    let server = site.serve();
    assert!(Wire::new(&server).shown().unwrap().sets.is_empty());
    assert_holds(image, &web.content[0], "the image");
}

/// Nothing that is there is written or lost by a word, be it wrong.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_file_that_something_needs_is_covered_when_it_is_named_as_the_active_one() {
    let (scene, mut server) = Scene::new();
    let last = scene.site.top(&scene.web, 0);
    let named = |file: &Path| format!("disk0={}", file.display());
    let choose = |file: &Path, more: &[&str]| {
        let named = named(file);
        scene.runs(&[&["vm", "set", "web", "--active", &named], more].concat())
    };
    // While a server runs, and where nobody agrees.
    let (code, said) = choose(&last, &["--yes"]);
    assert_eq!(code, Some(4), "{said}");
    server.stop();
    let before = scene.site.tree();
    let (code, said) = choose(&last, &[]);
    assert_eq!(code, Some(2), "{said}");
    let foreign = scene.site.images.join("foreign.qcow2");
    fs::copy(&last, &foreign).unwrap();
    let (code, said) = choose(&foreign, &["--yes"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&last.display().to_string()), "{said}");
    fs::remove_file(&foreign).unwrap();
    let (code, said) = scene.runs(&["vm", "set", "web", "--active", "disk7=/a", "--yes"]);
    assert_eq!(code, Some(1), "{said}");
    let settled = |tree: BTreeMap<PathBuf, _>| -> Vec<_> {
        tree.into_iter()
            .filter(|(f, _)| !f.ends_with(".lock"))
            .collect()
    };
    assert!(
        settled(scene.site.tree()) == settled(before.clone()),
        "nothing was done"
    );

    // The last file is lost with what was written into it; the machine goes on from its last set.
    let kept = {
        let server = scene.site.serve();
        let shown = Wire::new(&server).shown().unwrap();
        shown.sets[&scene.sets[2]].members[0].disks["disk0"].clone()
    };
    fs::remove_file(&last).unwrap();
    let (code, said) = choose(&kept, &["--yes"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("a new and empty overlay") && said.contains("set 2"),
        "{said}"
    );
    let top = scene.site.top(&scene.web, 0);
    assert!(top != last && top != kept, "{}", top.display());
    let (code, said) = scene.runs(&["doctor"]);
    assert_eq!(code, Some(0), "{said}");
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    assert_holds(&top, &scene.holds[2], "from the last set");
    let shown = wire.shown().unwrap();
    for (set, holds) in scene.sets.iter().zip(&scene.holds) {
        let set = &shown.sets[set];
        assert!(!set.is_damaged(), "{set:?}");
        assert_holds(&set.members[0].disks["disk0"], holds, "kept");
    }
    wire.take(&scene.group, "after");
}

/// Between the question and the answer somebody puts another file there.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_was_shown_of_an_active_file_is_what_is_done_or_nothing_is() {
    let (scene, mut server) = Scene::new();
    let last = scene.site.top(&scene.web, 0);
    server.stop();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let choose = |what| {
        let machine = scene.web.id.parse().unwrap();
        let named = BTreeMap::from([("disk0".to_owned(), last.clone())]);
        runtime.block_on(choose_tops(&scene.site.data, machine, named, what, &[]))
    };
    let shown = choose(Choosing::Show).unwrap();
    assert!(shown.told[0].contains("as recorded"), "{shown:?}");
    let other = last.with_extension("other");
    fs::copy(&last, &other).unwrap();
    fs::rename(&other, &last).unwrap();
    let tops = scene.site.file_of(&scene.web.id, "tops.json");
    let before = fs::read(&tops).unwrap();
    let refused = choose(Choosing::AsShown(shown)).unwrap_err().to_string();
    assert!(refused.contains("not so any more"), "{refused}");
    assert_eq!(fs::read(&tops).unwrap(), before);
    let shown = choose(Choosing::Show).unwrap();
    assert_eq!(choose(Choosing::AsShown(shown.clone())).unwrap(), shown);
    assert_eq!(choose(Choosing::Do).unwrap(), shown);
}

/// The way out that is named for it can be gone.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_machine_whose_active_file_is_not_known_can_be_allowed_an_overlay() {
    let (scene, mut server) = Scene::new();
    let shown = Wire::new(&server).shown().unwrap();
    let kept = shown.sets[&scene.sets[2]].members[0].disks["disk0"].clone();
    server.stop();
    let set = |words: &[&str]| scene.runs(&[&["vm", "set", "web"], words].concat());
    let (code, said) = set(&["--no-overlay-ok", "--yes"]);
    assert_eq!(code, Some(0), "{said}");
    fs::remove_file(scene.site.top(&scene.web, 0)).unwrap();
    fs::write(scene.site.file_of(&scene.web.id, "tops.json"), "{").unwrap();
    let named = format!("disk0={}", kept.display());
    let (code, said) = set(&["--active", &named, "--yes"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("--overlay-ok"), "{said}");
    let (code, said) = set(&["--overlay-ok"]);
    assert_eq!(code, Some(2), "nobody agrees: {said}");
    let (code, said) = set(&["--accept-image", "--yes"]);
    assert_eq!(code, Some(1), "{said}");
    for changed in ["is changed", "is so already"] {
        let (code, said) = set(&["--overlay-ok", "--yes"]);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains(changed), "{said}");
    }
    let (code, said) = set(&["--active", &named, "--yes"]);
    assert_eq!(code, Some(0), "{said}");
    assert_holds(
        &scene.site.top(&scene.web, 0),
        &scene.holds[2],
        "from the last set",
    );
}

/// The operator takes an older file, goes on there, repairs and deletes: the newest file is whole where it was moved to.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_delete_writes_nothing_under_what_a_wrong_word_left_and_a_repair_set_aside() {
    let (mut scene, mut server) = Scene::new();
    let last = scene.site.top(&scene.web, 0);
    let newest = scene.web.content[0].clone();
    let shown = Wire::new(&server).shown().unwrap();
    let kept = shown.sets[&scene.sets[2]].members[0].disks["disk0"].clone();
    server.stop();
    let named = format!("disk0={}", kept.display());
    let twice = ["vm", "set", "web", "--active", &named, "--active", &named];
    let (code, said) = scene.runs(&twice);
    assert_eq!(code, Some(2), "{said}");
    let (code, said) = scene.runs(&["vm", "set", "web", "--active", &named, "--yes"]);
    assert_eq!(code, Some(0), "{said}");
    let top = scene.site.top(&scene.web, 0);
    let far = newest.len() / 2;
    scene.web.content[0] = scene.holds[2].clone();
    scene.web.write(&top, 0, far, 8192, 77);
    let (_, said) = scene.runs(&["doctor", "--fix", "--yes"]);
    let sets = scene.site.data.join("sets");
    let aside = scene.site.data.join("orphans");
    let aside = aside.join(last.strip_prefix(&sets).unwrap());
    assert!(aside.exists() && !last.exists(), "{said}");
    let named = format!("disk0={}", aside.display());
    let (code, said) = scene.runs(&["vm", "set", "web", "--active", &named, "--yes"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(last.to_str().unwrap()), "{said}");
    server = scene.site.serve();
    scene.does(&server, Since::Deleted(&[2]));
    server.stop();
    assert_holds(&aside, &newest, "set aside");
    assert_holds(&top, &scene.web.content[0], "active");
}

/// An older backup made another machine unreadable whose image lies on the file that is named.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_file_under_a_machine_that_cannot_be_read_is_covered_when_it_is_named_as_the_active_one() {
    let site = Site::new(Ground::Host);
    let web = site.machine("web", &[Image::Qcow2], 1);
    let base = web.images[0].clone();
    let mut server = site.serve();
    let group = Wire::new(&server).define("all", &[&web.id]).unwrap();
    let set = Wire::new(&server).take(&group, "a");
    site.wait_for_journals();
    let top = site.top(&web, 0);
    let upper = site.images.join("upper.qcow2");
    let (file, below) = (upper.to_str().unwrap(), base.to_str().unwrap());
    let make = [
        "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", below, file,
    ];
    tools::run("qemu-img", &make);
    let other = site.import("other", &["--overlay-ok", file], web.content.clone());
    let wire = Wire::new(&server);
    let job = wire.destroy(&set).unwrap().job.unwrap();
    wire.end(&job).unwrap();
    site.wait_for_journals();
    server.stop();
    assert_ne!(top, base);
    fs::remove_file(&top).unwrap();
    fs::write(site.file_of(&other.id, "tops.json"), "{").unwrap();
    let named = format!("disk0={}", base.display());
    let args = ["vm", "set", "web", "--active", &named, "--yes"];
    let out = run_in(&site.data, &args, "");
    let said = text(&out.stdout) + &text(&out.stderr);
    assert_eq!(out.status.code(), Some(0), "{said}");
    assert!(said.contains("a new and empty overlay"), "{said}");
    assert!(said.contains(file), "{said}");
    assert_ne!(site.top(&web, 0), base);
}
