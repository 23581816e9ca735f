//! Every operation keeps to `image_roots`, also when they were narrowed after a set was taken.

use std::fs;

use super::scene::{COMPLETED, INVALID_STATE, Scene, end, seen};
use crate::support::server::{run_in, text};
use crate::support::site::{Ground, Image};
use crate::support::wire::{STARTED, Wire};

/// A machine with a set, and a configuration under which its images lie outside.
fn narrowed(ground: Ground) -> (Scene, String, String) {
    let mut scene = Scene::new(ground, Image::Raw, &["--overlay-ok"]);
    let server = scene.site.serve();
    let (_wire, set) = scene.with_a_set(&server);
    scene.writes(3);
    let other = scene.site.images.join("other");
    fs::create_dir(&other).unwrap();
    let exports = scene.site.images.join("exports");
    fs::create_dir(&exports).unwrap();
    let config = format!(
        "[engine]\nimage_roots = [{:?}]\n[export]\nroots = [{:?}]\n",
        other.to_str().unwrap(),
        exports.to_str().unwrap()
    );
    (scene, set, config)
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn no_operation_touches_an_image_outside_of_image_roots() {
    for ground in [Ground::Host, Ground::Xfs] {
        let (scene, set, config) = narrowed(ground);
        let server = scene.site.serve_configured(&config);
        let wire = Wire::new(&server);
        let (image, top) = (seen(&scene.image), scene.site.top(&scene.machine, 0));
        let active = seen(&top);
        let group = wire.define("again", &[&scene.machine.id]).unwrap();
        let refused = [
            wire.create(&group, "two").unwrap(),
            wire.apply(&set).unwrap(),
        ];
        for refused in refused {
            let why = wire.why(&refused);
            assert_eq!(refused.value, INVALID_STATE, "{ground:?}: {why}");
            assert!(why.contains("image folders"), "{ground:?}: {why}");
        }
        let exports = scene.site.images.join("exports");
        let exported = wire.export(&set, exports.to_str().unwrap(), None).unwrap();
        let why = match exported.value {
            STARTED => {
                let job = end(&wire, &exported, "exported");
                assert_ne!((job.state, job.code), (COMPLETED, 0), "{job:?}");
                job.error
            }
            _ => wire.why(&exported),
        };
        assert!(why.contains("image folders"), "{ground:?}: {why}");
        scene.site.wait_for_journals();
        assert_eq!(fs::read_dir(&exports).unwrap().count(), 0);
        let gone = wire.destroy(&set).unwrap();
        let job = end(&wire, &gone, "destroyed");
        assert_eq!(job.state, COMPLETED, "{job:?}");
        scene.site.wait_for_journals();
        assert_eq!(seen(&scene.image), image, "{ground:?}");
        assert_eq!(seen(&top), active, "{ground:?}");
        let file = scene.site.configuration(&config);
        let fix = ["--config", file.to_str().unwrap(), "--fix", "--yes"];
        let said = scene.doctor(&fix);
        assert_eq!(seen(&scene.image), image, "{ground:?}: {said}");
        drop(server);
        let said = scene.doctor(&fix);
        assert_eq!(seen(&scene.image), image, "{ground:?}: {said}");
        assert_eq!(seen(&top), active, "{ground:?}");
        let second = scene.image.with_file_name("second.raw");
        fs::copy(&scene.image, &second).unwrap();
        let args = [
            "vm",
            "import",
            "--config",
            file.to_str().unwrap(),
            "second",
            second.to_str().unwrap(),
        ];
        let out = run_in(&scene.site.data, &args, "");
        let said = text(&out.stderr);
        assert!(!out.status.success(), "{said}");
        assert!(said.contains(second.to_str().unwrap()), "{said}");
    }
}

/// A repair of the check-up keeps to them as well.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn no_mode_of_a_clone_outside_of_image_roots_is_set() {
    let (scene, set, config) = narrowed(Ground::Xfs);
    let server = scene.site.serve_configured(&config);
    let wire = Wire::new(&server);
    let kept = wire.shown().unwrap().sets[&set].members[0].disks["disk0"].clone();
    drop(server);
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&kept, fs::Permissions::from_mode(0o644)).unwrap();
    let before = seen(&kept);
    let file = scene.site.configuration(&config);
    let said = scene.doctor(&["--config", file.to_str().unwrap(), "--fix", "--yes"]);
    assert_eq!(seen(&kept), before, "{said}");
    assert!(said.contains("image folders"), "{said}");
}
