//! The folder that an export is written into is exchanged while it is written.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;

use super::scene::{Exchange, Scene, end, seen};
use crate::support::gate::Gate;
use crate::support::server::Server;
use crate::support::site::{Ground, Image};
use crate::support::wire::{Created, Wire};

/// An export into a folder of the second user that has come to a fail point.
struct Begun<'a> {
    scene: &'a Scene,
    _server: Server,
    wire: Wire,
    gate: Gate,
    set: String,
    started: Created,
}

impl<'a> Begun<'a> {
    /// Below `root`, into `into`.
    fn at(point: &str, scene: &'a Scene, root: &Path, into: &Path) -> Self {
        chown(into, Some(65_534), Some(65_534)).unwrap();
        let gate = Gate::new();
        let server = scene.serve_exporting(root, &gate.at(point));
        let (wire, set) = scene.with_a_set(&server);
        let started = wire.export(&set, into.to_str().unwrap(), None).unwrap();
        scene.is_at_the_gate(&wire, (&started, &gate), point);
        Self {
            scene,
            _server: server,
            wire,
            gate,
            set,
            started,
        }
    }

    /// It goes on, and ends for the sake of that folder.
    fn fails(self, folder: &Path, what: &str) {
        self.gate.open();
        let job = end(&self.wire, &self.started, what);
        assert_ne!((job.state, job.code), (7, 0), "{what}: {job:?}");
        let folder = folder.to_str().unwrap();
        assert!(job.error.contains(folder), "{what}: {job:?}");
        self.scene.site.wait_for_journals();
    }
}

/// The names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = names
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_export_whose_folder_is_exchanged_writes_nowhere_else() {
    for point in [
        "export.copy.before",
        "export.copy.after",
        "export.reveal.before",
    ] {
        let scene = Scene::new(Ground::Host, Image::Raw, &["--overlay-ok"]);
        let at = |name: &str| scene.site.images.join(name);
        let (root, trap, guarded) = (at("exports"), at("trap"), at("guarded"));
        for folder in [&root, &trap, &guarded] {
            fs::create_dir(folder).unwrap();
        }
        chown(&trap, Some(65_534), Some(65_534)).unwrap();
        let begun = Begun::at(point, &scene, &root, &root);
        let (set, job) = (begun.set.clone(), begun.started.job.clone().unwrap());
        let part = root.join(format!(".groupshot-{set}-{job}.part"));
        if point != "export.copy.before" {
            assert!(part.is_dir(), "{point}: {:?}", names(&root));
            scene.other(&[&"mv", &part, &root.join("aside")]);
        }
        scene.other(&[&"ln", &"-s", &guarded, &trap.join(&scene.machine.id)]);
        scene.other(&[&"ln", &"-s", &trap, &part]);
        let before = seen(&guarded.parent().unwrap().join("victim.raw"));
        begun.fails(&root, point);
        assert!(names(&guarded).is_empty(), "{point}: {:?}", names(&guarded));
        assert_eq!(names(&trap), [scene.machine.id.as_str()], "{point}");
        assert_eq!(seen(&scene.victim), before, "{point}");
        assert!(!root.join(&set).exists(), "{point}: {:?}", names(&root));
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_finished_export_in_the_place_of_a_new_one_is_neither_changed_nor_removed() {
    for point in ["export.copy.after", "export.reveal.before"] {
        let scene = Scene::new(Ground::Host, Image::Raw, &["--overlay-ok"]);
        let root = scene.site.images.join("exports");
        fs::create_dir(&root).unwrap();
        chown(&root, Some(65_534), Some(65_534)).unwrap();
        let into = root.to_str().unwrap();
        let server = scene.serve_exporting(&root, "");
        let wire = Wire::new(&server);
        let group = scene.group(&wire);
        let [old, new] = ["one", "two"].map(|name| wire.take(&group, name));
        scene.site.wait_for_journals();
        let done = wire.export(&old, into, None).unwrap();
        let job = end(&wire, &done, point);
        assert_eq!((job.state, job.code), (7, 0), "{point}: {job:?}");
        scene.site.wait_for_journals();
        drop(server);
        let finished = root.join(&old);
        let whole = || {
            let folder = finished.join(&scene.machine.id);
            let manifest = fs::read(finished.join("manifest.json")).unwrap();
            (manifest, names(&folder), names(&finished))
        };
        let before = whole();
        let gate = Gate::new();
        let server = scene.serve_exporting(&root, &gate.at(point));
        let wire = Wire::new(&server);
        let started = wire.export(&new, into, None).unwrap();
        scene.is_at_the_gate(&wire, (&started, &gate), point);
        let job = started.job.clone().unwrap();
        let part = root.join(format!(".groupshot-{new}-{job}.part"));
        scene.other(&[&"mv", &part, &root.join("aside")]);
        scene.other(&[&"mv", &finished, &part]);
        gate.open();
        let job = end(&wire, &started, point);
        assert_ne!((job.state, job.code), (7, 0), "{point}: {job:?}");
        scene.site.wait_for_journals();
        assert!(!root.join(&new).exists(), "{point}: {:?}", names(&root));
        fs::rename(&part, &finished).unwrap();
        assert!(whole() == before, "{point}: {:?}", names(&finished));
    }
}

/// Below the root, where somebody else may rename.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn nothing_is_exported_into_a_folder_that_is_exchanged_with_the_one_that_was_named() {
    for point in [
        "export.read.before",
        "export.copy.after",
        "export.reveal.before",
    ] {
        let scene = Scene::new(Ground::Host, Image::Raw, &["--overlay-ok"]);
        let root = scene.site.images.join("exports");
        let (named, other) = (root.join("named"), root.join("other"));
        for folder in [&root, &named, &other] {
            fs::create_dir(folder).unwrap();
        }
        chown(&root, Some(65_534), Some(65_534)).unwrap();
        fs::write(other.join("mine"), "of root").unwrap();
        let begun = Begun::at(point, &scene, &root, &named);
        Exchange::once(&named, &other);
        begun.fails(&named, point);
        assert_eq!(names(&named), ["mine"], "{point}");
        assert_eq!(names(&other), [""; 0], "{point}");
    }
}
