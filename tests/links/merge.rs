//! The base of a set, or a file that a set keeps, is exchanged before the set is destroyed.

use std::fs;

use super::scene::{COMPLETED, SWAPS, Scene, Swap, end, serve};
use crate::support::site::{Ground, Image, assert_holds};
use crate::support::wire::{STARTED, Wire};

/// Destroys the only set while something else stands in the place of the file that the overlay goes into.
fn is_not_merged(kind: Image, swap: Swap, with_roots: bool, noticed: bool) {
    let what = format!("{kind:?} {swap:?} {with_roots} {noticed}");
    let mut scene = Scene::new(Ground::Host, kind, &["--overlay-ok"]);
    let server = serve(&scene, with_roots);
    let wire = Wire::new(&server);
    let group = scene.group(&wire);
    let set = wire.take(&group, "one");
    scene.site.wait_for_journals();
    scene.writes(7);
    let top = scene.site.top(&scene.machine, 0);
    scene.swap(&scene.image, swap);
    let before = scene.guarded(&scene.image, swap);
    if noticed {
        scene.doctor(&[]);
        let refused = wire.apply(&set).unwrap();
        assert_eq!(refused.value, 5, "{what}: {}", wire.why(&refused));
        let why = wire.why(&refused);
        assert!(why.contains(scene.image.to_str().unwrap()), "{what}: {why}");
    }
    let gone = wire.destroy(&set).unwrap();
    assert_eq!(gone.value, STARTED, "{what}: {}", wire.why(&gone));
    let job = end(&wire, &gone, &what);
    assert_eq!(job.state, COMPLETED, "{what}: {job:?}");
    scene.site.wait_for_journals();
    assert_eq!(scene.guarded(&scene.image, swap), before, "{what}");
    assert_eq!(scene.site.top(&scene.machine, 0), top, "{what}: {job:?}");
    scene.doctor(&["--fix", "--yes"]);
    assert_eq!(scene.guarded(&scene.image, swap), before, "{what}: doctor");
    scene.swap_back(&scene.image, swap);
    assert_holds(&top, &scene.machine.content[0], &what);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn no_overlay_is_merged_into_what_somebody_put_in_the_place_of_its_base() {
    for swap in SWAPS {
        is_not_merged(Image::Raw, *swap, false, false);
    }
    is_not_merged(Image::Qcow2, Swap::Link, false, true);
    is_not_merged(Image::Raw, Swap::Link, true, true);
    is_not_merged(Image::Raw, Swap::HardLink, true, false);
}

/// The check before the merge has seen the base; then it is exchanged.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_base_that_is_exchanged_at_the_last_moment_is_not_written() {
    for point in [
        "destroy.merge.before",
        "destroy.merge.after",
        "destroy.named.after",
    ] {
        for swap in [Swap::Link, Swap::HardLink, Swap::FolderLink] {
            let what = format!("{point} {swap:?}");
            let mut scene = Scene::new(Ground::Host, Image::Raw, &["--overlay-ok"]);
            let gate = crate::support::gate::Gate::new();
            let server = scene.site.serve_with(&[&gate.at(point)]);
            let wire = Wire::new(&server);
            let group = scene.group(&wire);
            let set = wire.take(&group, "one");
            scene.site.wait_for_journals();
            scene.writes(7);
            let gone = wire.destroy(&set).unwrap();
            scene.is_at_the_gate(&wire, (&gone, &gate), &what);
            scene.swap(&scene.image, swap);
            let before = scene.guarded(&scene.image, swap);
            gate.open();
            let job = end(&wire, &gone, &what);
            assert_eq!(job.state, COMPLETED, "{what}: {job:?}");
            scene.site.wait_for_journals();
            assert_eq!(scene.guarded(&scene.image, swap), before, "{what}");
            scene.swap_back(&scene.image, swap);
            let top = scene.site.top(&scene.machine, 0);
            assert_holds(&top, &scene.machine.content[0], &what);
        }
    }
}

/// The folder for clones belongs to the server, the one above it does not.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_somebody_put_in_the_place_of_a_clone_or_its_folder_is_left_alone() {
    let mut scene = Scene::new(Ground::Xfs, Image::Raw, &[]);
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    let group = scene.group(&wire);
    let (first, second) = (wire.take(&group, "one"), wire.take(&group, "two"));
    scene.site.wait_for_journals();
    let kept = |set: &str| wire.shown().unwrap().sets[set].members[0].disks["disk0"].clone();
    let (kept, other) = (kept(&first), kept(&second));
    let ours = kept.ancestors().nth(2).unwrap();
    let aside = ours.with_file_name("aside");
    scene.other(&[&"mv", &ours, &aside]);
    let folder = kept.parent().unwrap();
    scene.other(&[&"mkdir", &"-p", &folder, &other.parent().unwrap()]);
    scene.other(&[&"ln", &"-s", &scene.victim, &kept]);
    fs::hard_link(&scene.victim, &other).unwrap();
    let before = super::scene::seen(&scene.victim);
    for set in [&first, &second] {
        let refused = wire.apply(set).unwrap();
        assert_eq!(refused.value, 5, "{}", wire.why(&refused));
        let gone = wire.destroy(set).unwrap();
        let job = end(&wire, &gone, "destroyed");
        assert_eq!(job.state, COMPLETED, "{job:?}");
        // The link leads to what the other set names as well; nothing is to be removed then.
        let told = job.status.contains(".groupshot");
        assert!(told || *set == first, "{job:?}");
        scene.site.wait_for_journals();
    }
    let said = scene.doctor(&["--fix", "--yes"]);
    assert_eq!(super::scene::seen(&scene.victim), before, "{said}");
    assert!(kept.is_symlink() && other.exists(), "{said}");
    // No set is taken into a folder that is not ours.
    scene.writes(3);
    let refused = wire.create(&group, "three").unwrap();
    assert_eq!(refused.value, 5, "{}", wire.why(&refused));
    assert!(
        wire.why(&refused).contains(".groupshot"),
        "{}",
        wire.why(&refused)
    );
}

/// The second user writes the neighbour's base into the header of his own image, or puts a link to the neighbour's active
/// file in the place of it.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_image_that_leads_to_a_file_of_another_machine_holds_up_no_merge_of_that_one() {
    for (kind, by_link) in [
        (Image::Qcow2, false),
        (Image::Qcow2, true),
        (Image::Raw, true),
    ] {
        let scene = Scene::new(Ground::Host, kind, &["--overlay-ok"]);
        let (image, base) = (
            scene.image.to_str().unwrap(),
            scene.site.image("db", Image::Raw, 5),
        );
        let mut db = scene.site.import(
            "db",
            &["--overlay-ok", base.to_str().unwrap()],
            vec![vec![5; crate::support::site::SIZE]],
        );
        let server = scene.site.serve();
        let wire = Wire::new(&server);
        let group = wire.define("db", &[&db.id]).unwrap();
        let sets = ["one", "two"].map(|name| wire.take(&group, name));
        scene.site.wait_for_journals();
        let top = scene.site.top(&db, 0);
        db.write(&top, 0, 8192, 8192, 7);
        let named = base.to_str().unwrap();
        match by_link {
            true => scene.other(&[&"ln", &"-sfn", &top.to_str().unwrap(), &image]),
            false => scene.other(&[
                &"qemu-img",
                &"rebase",
                &"-u",
                &"-b",
                &named,
                &"-F",
                &"raw",
                &image,
            ]),
        };
        for set in sets.iter().rev() {
            let gone = wire.destroy(set).unwrap();
            let job = end(&wire, &gone, "merged");
            assert_eq!(job.state, COMPLETED, "{job:?}");
            assert!(!job.status.contains("lie on"), "{job:?}");
            scene.site.wait_for_journals();
            assert_holds(&scene.site.top(&db, 0), &db.content[0], "merged");
        }
        assert_eq!(scene.site.top(&db, 0), base, "{kind:?} {by_link}");
    }
}
