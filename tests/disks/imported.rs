//! A machine is imported, or another image of one accepted, while an operation is about to write or to remove a file that it
//! lies on.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use crate::support::gate::Gate;
use crate::support::server::{Server, run_in, text};
use crate::support::site::{Ground, Image, Machine, SIZE, Site, assert_holds, content, format};
use crate::support::tools::run;
use crate::support::wire::{Created, STARTED, Wire};

const COMPLETED: u64 = 7;

/// The machine `web` on one image.
struct Scene {
    site: Site,
    machine: Machine,
}

impl Scene {
    fn new(kind: Image) -> Self {
        let site = Site::new(Ground::Host);
        let machine = site.machine("web", &[kind], 1);
        Self { site, machine }
    }

    fn image(&self) -> &Path {
        &self.machine.images[0]
    }

    fn write(&mut self, byte: u8) {
        let top = self.site.top(&self.machine, 0);
        self.machine.write(&top, 0, 0, SIZE / 2, byte);
    }

    /// A set, after which the machine goes on to write.
    fn take(&mut self, wire: &Wire, group: &str, byte: u8) -> String {
        let set = wire.take(group, &format!("set {byte}"));
        self.site.wait_for_journals();
        self.write(byte);
        set
    }

    /// An image that lies on another one.
    fn linked(&self, name: &str, base: &Path) -> PathBuf {
        let image = self.site.images.join(name);
        let (base, kind) = (base.to_str().unwrap(), format(base));
        let file = image.to_str().unwrap();
        let make = ["create", "-q", "-f", "qcow2", "-F", kind, "-b", base, file];
        run("qemu-img", &make);
        image
    }

    fn import(&self, name: &str, image: &Path) -> Output {
        let args = ["vm", "import", name, image.to_str().unwrap()];
        run_in(&self.site.data, &args, "")
    }
}

/// What was begun ends well; its status.
fn end(wire: &Wire, begun: &Created) -> String {
    assert_eq!(begun.value, STARTED, "{}", wire.why(begun));
    let job = wire.end(begun.job.as_deref().unwrap()).unwrap();
    assert_eq!(job.state, COMPLETED, "{job:?}");
    job.status
}

fn exporting(site: &Site, point: &str) -> Server {
    let roots = format!("[export]\nroots = [{:?}]\n", site.images.to_str().unwrap());
    let config = site.configuration(&roots);
    site.serve_at(config.to_str().unwrap(), point).unwrap()
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_merge_that_has_waited_writes_into_no_file_that_a_machine_was_imported_onto_meanwhile() {
    for kind in [Image::Qcow2, Image::Raw] {
        let (mut scene, gate) = (Scene::new(kind), Gate::new());
        let clone = scene.linked("clone.qcow2", scene.image());
        let before = content(&clone);
        let server = exporting(&scene.site, &gate.at("export.copy.before"));
        let wire = Wire::new(&server);
        let group = wire.define("all", &[&scene.machine.id]).unwrap();
        let sets = [2, 3].map(|byte| scene.take(&wire, &group, byte));
        let root = scene.site.images.to_str().unwrap();
        let exported = wire.export(&sets[1], root, None).unwrap();
        gate.reached();
        let gone = wire.destroy(&sets[0]).unwrap();
        let job = gone.job.as_deref().unwrap();
        wire.until(job, |job| job.status.contains("waits")).unwrap();
        let out = scene.import("clone", &clone);
        assert!(out.status.success(), "{}", text(&out.stderr));
        gate.open();
        end(&wire, &exported);
        let status = end(&wire, &gone);
        assert_holds(&clone, &before, &format!("{kind:?}: {status}"));
        assert!(status.contains("clone.qcow2"), "{kind:?}: {status}");
        scene.site.wait_for_journals();
        let top = scene.site.top(&scene.machine, 0);
        assert_holds(&top, &scene.machine.content[0], &format!("{kind:?}"));
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn no_image_is_taken_over_a_file_that_is_being_merged_into() {
    let (mut scene, gate) = (Scene::new(Image::Qcow2), Gate::new());
    let other = scene.site.machine("other", &[Image::Qcow2], 5);
    let server = scene.site.serve_with(&[&gate.at("destroy.merge.before")]);
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&scene.machine.id]).unwrap();
    let set = scene.take(&wire, &group, 2);
    let gone = wire.destroy(&set).unwrap();
    gate.reached();
    let merged_into = scene.image().to_str().unwrap().to_owned();
    let refused = |out: Output, code| {
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{said}");
        let named = said.contains(&merged_into) && said.contains("held by another Groupshot");
        assert!(named, "{said}");
    };
    let clone = scene.linked("clone.qcow2", scene.image());
    refused(scene.import("clone", &clone), 1);
    // What stands in the place of an image may lie on it as well.
    let image = &other.images[0];
    std::fs::remove_file(image).unwrap();
    std::fs::rename(&clone, image).unwrap();
    let accept = ["vm", "set", "other", "--accept-image", "--yes"];
    refused(run_in(&scene.site.data, &accept, ""), 4);
    gate.open();
    end(&wire, &gone);
    scene.site.wait_for_journals();
    assert_holds(scene.image(), &scene.machine.content[0], "merged");
    let found = run_in(&scene.site.data, &["vm", "list"], "");
    assert!(
        !text(&found.stdout).contains("clone"),
        "{}",
        text(&found.stdout)
    );
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_file_is_not_removed_from_under_a_machine_that_is_imported_at_that_moment() {
    let (mut scene, gate) = (Scene::new(Image::Raw), Gate::new());
    let server = scene.site.serve_with(&[&gate.at("apply.free.before")]);
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&scene.machine.id]).unwrap();
    let set = scene.take(&wire, &group, 2);
    let old = scene.site.top(&scene.machine, 0);
    let applied = wire.apply(&set).unwrap();
    gate.reached();
    let clone = scene.linked("clone.qcow2", &old);
    let out = std::thread::scope(|scope| {
        let import = scope.spawn(|| scene.import("clone", &clone));
        for _ in 0..100 {
            if import.is_finished() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        gate.open();
        import.join().unwrap()
    });
    end(&wire, &applied);
    scene.site.wait_for_journals();
    let said = text(&out.stderr);
    assert_eq!(out.status.success(), old.exists(), "{said}");
    assert!(said.contains(old.to_str().unwrap()), "{said}");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn after_a_crash_no_file_is_made_active_that_a_machine_was_imported_onto_meanwhile() {
    let (mut scene, gate) = (Scene::new(Image::Qcow2), Gate::new());
    let mut server = scene.site.serve_with(&[&gate.at("destroy.named.before")]);
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&scene.machine.id]).unwrap();
    let set = scene.take(&wire, &group, 2);
    let top = scene.site.top(&scene.machine, 0);
    assert_eq!(wire.destroy(&set).unwrap().value, STARTED);
    gate.reached();
    server.kill();
    gate.open();
    let clone = scene.linked("clone.qcow2", scene.image());
    // By a version that does not look at journals.
    let [journal, away] = ["journal", "away"].map(|name| scene.site.data.join(name));
    std::fs::rename(&journal, &away).unwrap();
    let out = scene.import("clone", &clone);
    std::fs::rename(&away, &journal).unwrap();
    assert!(out.status.success(), "{}", text(&out.stderr));
    let before = content(&clone);
    let _server = scene.site.serve();
    scene.site.wait_for_journals();
    assert_eq!(scene.site.top(&scene.machine, 0), top);
    assert_holds(&top, &scene.machine.content[0], "not merged");
    scene.write(3);
    assert_holds(&clone, &before, "imported");
    let said = text(&run_in(&scene.site.data, &["doctor"], "").stdout).to_owned();
    assert!(said.contains("clone.qcow2"), "{said}");
}
