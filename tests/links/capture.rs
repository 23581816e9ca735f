//! An image is exchanged before a set is taken of it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use super::scene::{SWAPS, Scene, Swap, assert_refused, end, serve};
use crate::support::server::{run_in, text};
use crate::support::site::{Ground, Image, SIZE, assert_holds};
use crate::support::wire::Wire;

fn hands_out_nothing(ground: Ground, with_roots: bool) {
    let scene = Scene::new(ground, Image::Raw, &["--overlay-ok"]);
    let server = serve(&scene, with_roots);
    let wire = Wire::new(&server);
    let group = scene.group(&wire);
    for swap in SWAPS {
        let what = format!("{swap:?} {ground:?} {with_roots}");
        scene.swap(&scene.image, *swap);
        let before = scene.guarded(&scene.image, *swap);
        let kept = scene.site.kept();
        let refused = wire.create(&group, "one").unwrap();
        assert_refused(&wire, &refused, &scene.image, &what);
        assert_eq!(scene.site.kept(), kept, "{what}");
        assert_eq!(scene.guarded(&scene.image, *swap), before, "{what}");
        scene.swap_back(&scene.image, *swap);
    }
    let set = wire.take(&group, "whole again");
    scene.site.wait_for_journals();
    assert!(wire.shown().unwrap().sets.contains_key(&set));
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn no_set_is_taken_of_what_somebody_put_in_the_place_of_an_image() {
    hands_out_nothing(Ground::Host, false);
    hands_out_nothing(Ground::Xfs, true);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_image_that_its_owner_restored_is_taken_and_told() {
    for ground in [Ground::Host, Ground::Xfs] {
        let scene = Scene::new(ground, Image::Raw, &["--overlay-ok"]);
        let server = scene.site.serve();
        let wire = Wire::new(&server);
        let group = scene.group(&wire);
        let restored = scene.image.with_extension("restored");
        fs::write(&restored, vec![5; SIZE]).unwrap();
        chown(&restored, Some(65_534), Some(65_534)).unwrap();
        scene.other(&[&"mv", &"-f", &restored, &scene.image]);
        let set = wire.take(&group, "one");
        scene.site.wait_for_journals();
        let kept = wire.shown().unwrap().sets[&set].members[0].disks["disk0"].clone();
        assert_holds(&kept, &vec![5; SIZE], "the restored image");
    }
}

/// Who may rename there, and could not read the file himself, could have it captured and exported for him.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_file_of_the_same_owner_is_not_taken_where_somebody_else_may_put_it() {
    let scene = Scene::new(Ground::Host, Image::Raw, &["--overlay-ok"]);
    chown(&scene.image, Some(0), Some(0)).unwrap();
    let accept = ["vm", "set", &scene.machine.id, "--accept-image", "--yes"];
    let out = run_in(&scene.site.data, &accept, "");
    assert!(out.status.success(), "{}", text(&out.stderr));
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    let group = scene.group(&wire);
    let secret = scene.image.with_extension("key");
    fs::write(&secret, vec![5; SIZE]).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    scene.other(&[&"mv", &"-f", &secret, &scene.image]);
    let answer = wire.create(&group, "one").unwrap();
    assert_refused(&wire, &answer, &scene.image, "a file of root");
    drop(server);
    let out = run_in(&scene.site.data, &accept, "");
    assert!(out.status.success(), "{}", text(&out.stderr));
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    wire.take(&group, "accepted");
    scene.site.wait_for_journals();
}

/// What lies under the captured files is looked at once more when they are sealed.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_set_is_not_sealed_over_what_somebody_put_under_it() {
    for swap in [Swap::Link, Swap::FolderLink, Swap::Foreign] {
        let what = format!("{swap:?}");
        let scene = Scene::new(Ground::Host, Image::Raw, &["--overlay-ok"]);
        let mut server = scene.site.serve();
        let wire = Wire::new(&server);
        let group = scene.group(&wire);
        let first = wire.take(&group, "one");
        scene.site.wait_for_journals();
        server.stop();
        let gate = crate::support::gate::Gate::new();
        let server = scene.site.serve_with(&[&gate.at("create.settle.before")]);
        let wire = Wire::new(&server);
        let created = wire.create(&group, "two").unwrap();
        scene.is_at_the_gate(&wire, (&created, &gate), &what);
        scene.swap(&scene.image, swap);
        let before = scene.guarded(&scene.image, swap);
        gate.open();
        let job = end(&wire, &created, &what);
        assert_ne!((job.state, job.code), (7, 0), "{what}: {job:?}");
        assert!(job.error.contains("disk0"), "{what}: {job:?}");
        scene.site.wait_for_journals();
        assert!(
            scene.guarded(&scene.image, swap) == before,
            "{what}: {job:?}"
        );
        let sets: Vec<_> = wire.shown().unwrap().sets.into_keys().collect();
        assert_eq!(sets, [first], "{what}");
        scene.swap_back(&scene.image, swap);
        wire.take(&group, "whole again");
        scene.site.wait_for_journals();
    }
}

/// Between the plan and the cut, and after a start with nothing of it in memory.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_image_exchanged_while_a_set_is_prepared_ends_the_job_and_leaves_nothing() {
    for ground in [Ground::Host, Ground::Xfs] {
        for point in ["create.define.before", "create.prepared.before"] {
            for swap in [Swap::Link, Swap::Foreign, Swap::FolderLink] {
                let what = format!("{ground:?} {point} {swap:?}");
                let scene = Scene::new(ground, Image::Raw, &["--overlay-ok"]);
                let gate = crate::support::gate::Gate::new();
                let server = scene.site.serve_with(&[&gate.at(point)]);
                let wire = Wire::new(&server);
                let group = scene.group(&wire);
                let created = wire.create(&group, "one").unwrap();
                scene.is_at_the_gate(&wire, (&created, &gate), &what);
                scene.swap(&scene.image, swap);
                let before = scene.guarded(&scene.image, swap);
                gate.open();
                let job = end(&wire, &created, &what);
                assert_ne!((job.state, job.code), (7, 0), "{what}: {job:?}");
                assert!(job.error.contains("disk0"), "{what}: {job:?}");
                scene.site.wait_for_journals();
                assert_eq!(scene.guarded(&scene.image, swap), before, "{what}");
                assert!(wire.shown().unwrap().sets.is_empty(), "{what}");
                scene.swap_back(&scene.image, swap);
                wire.take(&group, "whole again");
                scene.site.wait_for_journals();
            }
        }
    }
}
