//! Clones of a set that is deleted while it cannot be seen what lies on them: remembered, and removed later.

use std::fs;
use std::path::{Path, PathBuf};

use super::doctor::found;
use crate::support::server::run_in;
use crate::support::site::{Ground, Image, Machine, Site, assert_holds};
use crate::support::wire::Wire;

/// Two machines over clones, sets of one of them, and a clone of somebody else.
struct Scene {
    site: Site,
    web: Machine,
    other: Machine,
    sets: Vec<String>,
    foreign: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let site = Site::new(Ground::Xfs);
        let web = site.machine("web", &[Image::Raw], 1);
        let other = site.machine("other", &[Image::Qcow2], 2);
        let server = site.serve();
        let wire = Wire::new(&server);
        let group = wire.define("all", &[&web.id]).unwrap();
        let sets = vec![wire.take(&group, "first"), wire.take(&group, "second")];
        site.wait_for_journals();
        let foreign = site
            .images
            .join(".groupshot")
            .join(&sets[0])
            .join("foreign.raw");
        fs::write(&foreign, "of somebody else").unwrap();
        Self {
            site,
            web,
            other,
            sets,
            foreign,
        }
    }

    fn clone_of(&self, set: usize) -> PathBuf {
        let folder = self.site.images.join(".groupshot").join(&self.sets[set]);
        folder.join(format!("{}-disk0.raw", self.web.id))
    }

    /// Destroys a set; what its job says at the end.
    fn destroy(&self, set: usize) -> String {
        let server = self.site.serve();
        let wire = Wire::new(&server);
        let gone = wire.destroy(&self.sets[set]).unwrap();
        let job = wire.end(&gone.job.unwrap()).unwrap();
        assert_eq!(job.state, 7, "{job:?}");
        self.site.wait_for_journals();
        job.status
    }

    /// Destroys the first set while the image of the other machine is away.
    fn destroy_without_other(&self) {
        let aside = self.other.images[0].with_extension("aside");
        fs::rename(&self.other.images[0], &aside).unwrap();
        // As a version left it that did not record what its image lies on.
        let tops = self.site.data.join("machines").join(&self.other.id);
        let tops = tops.join("tops.json");
        let recorded = fs::read(&tops).unwrap();
        let mut recorded: serde_json::Value = serde_json::from_slice(&recorded).unwrap();
        for key in ["seen", "checksum"] {
            recorded.as_object_mut().unwrap().remove(key);
        }
        for image in recorded["images"].as_object_mut().unwrap().values_mut() {
            image.as_object_mut().unwrap().remove("below");
        }
        fs::write(&tops, recorded.to_string()).unwrap();
        let said = self.destroy(0);
        let away = self.other.images[0].display().to_string();
        assert!(
            said.contains("machine other, disk disk0") && said.contains(&away),
            "{said}"
        );
        assert!(!said.contains("machine web"), "{said}");
        assert!(self.clone_of(0).exists());
        let all = self.findings(&["--fix", "--yes"]);
        assert!(
            all.contains(&shown("leftover", &self.clone_of(0))),
            "{all:?}"
        );
        assert!(self.clone_of(0).exists(), "something may lie on it");
        let told = run_in(&self.site.data, &["doctor"], "");
        let told = String::from_utf8(told.stdout).unwrap();
        let line = told.lines().find(|l| l.contains("leftover")).unwrap();
        assert!(
            line.contains("machine web, disk disk0") && line.contains(&away),
            "{line}"
        );
        fs::rename(&aside, &self.other.images[0]).unwrap();
    }

    fn findings(&self, more: &[&str]) -> Vec<(String, String)> {
        found(&run_in(
            &self.site.data,
            &[&["--json", "doctor"], more].concat(),
            "",
        ))
    }
}

fn shown(kind: &str, file: &Path) -> (String, String) {
    (kind.to_owned(), file.display().to_string())
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_clone_that_a_deleted_set_has_left_is_removed_once_all_machines_are_there() {
    for (serves, removes) in [(false, false), (true, false), (false, true)] {
        let scene = Scene::new();
        scene.destroy_without_other();
        if removes {
            scene.destroy(1);
            assert!(
                !scene.clone_of(0).exists(),
                "the next set that is deleted takes it along"
            );
        }
        let server = serves.then(|| scene.site.serve());
        let foreign = shown("orphan", &scene.foreign);
        if !removes {
            let left = shown("leftover", &scene.clone_of(0));
            assert_eq!(scene.findings(&[]), [left, foreign.clone()]);
        }
        assert_eq!(
            scene.findings(&["--fix", "--yes"]),
            std::slice::from_ref(&foreign)
        );
        assert_eq!(scene.findings(&[]), [foreign]);
        assert!(!scene.clone_of(0).exists() && scene.foreign.exists());
        assert_eq!(scene.clone_of(1).exists(), !removes);
        drop(server);
        assert_holds(&scene.web.images[0], &scene.web.content[0], "the image");
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_clone_is_removed_also_if_its_own_folder_was_away_or_its_machine_is_gone() {
    let scene = Scene::new();
    let aside = scene.site.images.with_file_name("aside");
    fs::rename(&scene.site.images, &aside).unwrap();
    scene.destroy(0);
    scene.destroy(1);
    fs::rename(&aside, &scene.site.images).unwrap();
    assert!(scene.clone_of(0).exists() && scene.clone_of(1).exists());
    let server = scene.site.serve();
    let taken = server.cli(&["collection", "remove", "all", "web"]);
    assert!(taken.status.success(), "{taken:?}");
    drop(server);
    let out = run_in(&scene.site.data, &["vm", "remove", "web"], "");
    assert!(out.status.success(), "{out:?}");
    let left = [0, 1].map(|n| shown("leftover", &scene.clone_of(n)));
    let all = scene.findings(&[]);
    assert!(left.iter().all(|l| all.contains(l)), "{all:?}");
    assert_eq!(
        scene.findings(&["--fix", "--yes"]),
        [shown("orphan", &scene.foreign)]
    );
    assert!(!scene.clone_of(0).exists() && !scene.clone_of(1).exists());
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn another_file_in_the_place_of_what_was_left_is_not_removed() {
    let scene = Scene::new();
    scene.destroy_without_other();
    fs::remove_file(scene.clone_of(0)).unwrap();
    fs::write(scene.clone_of(0), "of somebody else").unwrap();
    let mut others = [scene.clone_of(0), scene.foreign.clone()].map(|f| shown("orphan", &f));
    others.sort();
    assert_eq!(scene.findings(&["--fix", "--yes"]), others);
    scene.destroy(1);
    assert_eq!(scene.findings(&["--fix", "--yes"]), others);
    assert_eq!(
        fs::read_to_string(scene.clone_of(0)).unwrap(),
        "of somebody else"
    );
}

/// A copy has another inode than what was left.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_a_deleted_set_has_left_is_known_after_its_folder_was_copied_elsewhere() {
    let scene = Scene::new();
    scene.destroy_without_other();
    let (from, to) = (&scene.site.images, scene.site.images.with_extension("new"));
    let (from, to) = (from.to_str().unwrap(), to.to_str().unwrap());
    crate::support::tools::run("cp", &["-a", from, to]);
    fs::remove_dir_all(from).unwrap();
    let args = [
        "relocate",
        "--from",
        from,
        "--to",
        to,
        "--definitions",
        "--apply",
        "--accept-copied",
    ];
    let out = run_in(&scene.site.data, &args, "");
    assert!(out.status.success(), "{out:?}");
    let left = scene.clone_of(0);
    let left = Path::new(to).join(left.strip_prefix(from).unwrap());
    assert!(left.exists());
    let all = scene.findings(&[]);
    assert!(all.contains(&shown("leftover", &left)), "{all:?}");
    let all = scene.findings(&["--fix", "--yes"]);
    assert!(!left.exists(), "{all:?}");
}
