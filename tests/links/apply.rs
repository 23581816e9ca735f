//! An image, or what a set keeps of it, is exchanged before the set is applied.

use std::fs;
use std::os::unix::fs::chown;

use super::scene::{COMPLETED, SWAPS, Scene, Swap, assert_refused, end, serve};
use crate::support::gate::Gate;
use crate::support::site::{Ground, Image, SIZE, assert_holds};
use crate::support::wire::Wire;

fn replaces_nothing(with_roots: bool) {
    let mut scene = Scene::new(Ground::Xfs, Image::Raw, &[]);
    let server = serve(&scene, with_roots);
    let (wire, set) = scene.with_a_set(&server);
    let first = scene.machine.content[0].clone();
    scene.writes(3);
    for swap in SWAPS {
        let what = format!("{swap:?} {with_roots}");
        scene.swap(&scene.image, *swap);
        let before = scene.guarded(&scene.image, *swap);
        let refused = wire.apply(&set).unwrap();
        // With the folder goes what the set keeps.
        let named = match swap {
            Swap::FolderLink => scene.image.parent().unwrap(),
            _ => scene.image.as_path(),
        };
        assert_refused(&wire, &refused, named, &what);
        assert_eq!(scene.guarded(&scene.image, *swap), before, "{what}");
        scene.swap_back(&scene.image, *swap);
    }
    let applied = wire.apply(&set).unwrap();
    let job = end(&wire, &applied, "put back");
    assert_eq!(job.state, COMPLETED, "{job:?}");
    assert_holds(&scene.image, &first, "applied");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn nothing_that_somebody_put_in_the_place_of_an_image_is_replaced() {
    replaces_nothing(false);
    replaces_nothing(true);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_image_that_its_owner_restored_is_replaced() {
    let scene = Scene::new(Ground::Xfs, Image::Raw, &[]);
    let server = scene.site.serve();
    let (wire, set) = scene.with_a_set(&server);
    let restored = scene.image.with_extension("restored");
    fs::write(&restored, vec![5; SIZE]).unwrap();
    chown(&restored, Some(65_534), Some(65_534)).unwrap();
    scene.other(&[&"mv", &"-f", &restored, &scene.image]);
    let applied = wire.apply(&set).unwrap();
    let job = end(&wire, &applied, "restored");
    assert_eq!(job.state, COMPLETED, "{job:?}");
    assert_holds(&scene.image, &scene.machine.content[0], "applied");
}

/// After the plan; before the commit it ends, after it the job waits until the image is there again. The folder is
/// waited for by another process only.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_image_exchanged_within_an_apply_is_not_replaced_by_this_process_or_the_next() {
    for swap in [Swap::Link, Swap::HardLink, Swap::FolderLink] {
        for (point, dies) in [
            ("apply.prepare.before", false),
            ("apply.commit.after", false),
            ("apply.commit.after", true),
        ] {
            let what = format!("{swap:?} {point} {dies}");
            let mut scene = Scene::new(Ground::Xfs, Image::Raw, &[]);
            let gate = Gate::new();
            let mut server = scene.site.serve_with(&[&gate.at(point)]);
            let (wire, set) = scene.with_a_set(&server);
            let first = scene.machine.content[0].clone();
            scene.writes(3);
            let applied = wire.apply(&set).unwrap();
            scene.is_at_the_gate(&wire, (&applied, &gate), &what);
            scene.swap(&scene.image, swap);
            let before = scene.guarded(&scene.image, swap);
            if dies {
                server.kill();
                server = scene.site.serve();
            }
            gate.open();
            let wire = Wire::new(&server);
            let id = applied.job.clone().unwrap();
            if point == "apply.prepare.before" {
                let job = wire.end(&id).unwrap();
                assert_ne!((job.state, job.code), (7, 0), "{what}: {job:?}");
                assert!(job.error.contains("disk0"), "{what}: {job:?}");
                scene.site.wait_for_journals();
                assert_eq!(scene.guarded(&scene.image, swap), before, "{what}");
                scene.swap_back(&scene.image, swap);
                continue;
            }
            // The process that planned has the folder in its hand.
            if (swap, dies) == (Swap::FolderLink, false) {
                let job = wire.end(&id).unwrap();
                assert_eq!(job.state, COMPLETED, "{what}: {job:?}");
                scene.site.wait_for_journals();
                assert_eq!(scene.guarded(&scene.image, swap), before, "{what}");
                scene.swap_back(&scene.image, swap);
                assert_holds(&scene.image, &first, &what);
                continue;
            }
            let image = scene.image.to_str().unwrap().to_owned();
            let told = |job: &crate::support::wire::Job| {
                job.state > 6 || (job.status.contains(&image) && job.status.contains("wait"))
            };
            let job = wire.until(&id, told).unwrap();
            assert!(job.state < 7, "{what}: {job:?}");
            assert_eq!(scene.guarded(&scene.image, swap), before, "{what}");
            scene.swap_back(&scene.image, swap);
            let job = wire.end(&id).unwrap();
            assert_eq!(job.state, COMPLETED, "{what}: {job:?}");
            scene.site.wait_for_journals();
            assert_holds(&scene.image, &first, &what);
        }
    }
}
