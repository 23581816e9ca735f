//! What lies under an image is exchanged, or its header names something else.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;

use super::scene::{COMPLETED, SWAPS, Scene, Swap, assert_refused, end};
use crate::support::server::{run_in, text};
use crate::support::site::{Ground, Image, SIZE, assert_holds};
use crate::support::tools::run;
use crate::support::wire::{STARTED, Wire};

/// A machine whose image lies on a file that somebody else may exchange.
pub(super) fn over_a_base() -> (Scene, PathBuf) {
    let scene = Scene::new(Ground::Host, Image::Raw, &["--overlay-ok"]);
    let base = scene.image.with_file_name("base.raw");
    fs::write(&base, vec![6; SIZE]).unwrap();
    let image = scene.image.with_file_name("db.qcow2");
    let named = image.to_str().unwrap();
    run(
        "qemu-img",
        &[
            "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "base.raw", named,
        ],
    );
    for file in [&base, &image] {
        chown(file, Some(65_534), Some(65_534)).unwrap();
    }
    let machine = scene
        .site
        .import("web-2", &["--overlay-ok", named], vec![vec![6; SIZE]]);
    let scene = Scene {
        machine,
        image,
        ..scene
    };
    (scene, base)
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn no_set_is_taken_over_what_somebody_put_under_an_image() {
    let (scene, base) = over_a_base();
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    let group = scene.group(&wire);
    for swap in SWAPS.iter().filter(|s| **s != Swap::FolderLink) {
        let what = format!("{swap:?}");
        scene.swap(&base, *swap);
        let before = scene.guarded(&base, *swap);
        let refused = wire.create(&group, "one").unwrap();
        assert_refused(&wire, &refused, &base, &what);
        assert_eq!(scene.guarded(&base, *swap), before, "{what}");
        scene.swap_back(&base, *swap);
    }
    // Another file of the same owner is taken, as in the place of the image itself.
    let restored = base.with_extension("restored");
    fs::write(&restored, vec![5; SIZE]).unwrap();
    chown(&restored, Some(65_534), Some(65_534)).unwrap();
    scene.other(&[&"mv", &"-f", &restored, &base]);
    let set = wire.take(&group, "restored");
    scene.site.wait_for_journals();
    let kept = wire.shown().unwrap().sets[&set].members[0].disks["disk0"].clone();
    assert_holds(&kept, &vec![5; SIZE], "the restored base");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_header_that_names_another_file_hands_out_nothing_until_its_operator_agrees() {
    let (scene, _) = over_a_base();
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    let group = scene.group(&wire);
    let (image, victim) = (
        scene.image.to_str().unwrap(),
        scene.victim.to_str().unwrap(),
    );
    let name = |file: &str| {
        let name = ["rebase", "-u", "-F", "raw", "-b", file, image];
        scene.other(&[
            &"qemu-img",
            &name[0],
            &name[1],
            &name[2],
            &name[3],
            &name[4],
            &name[5],
            &name[6],
        ]);
    };
    name(victim);
    let before = super::scene::seen(&scene.victim);
    let kept = scene.site.kept();
    let refused = wire.create(&group, "one").unwrap();
    let why = wire.why(&refused);
    assert_eq!(refused.value, 5, "{why}");
    for part in ["web-2", "disk0", victim, "--accept-image"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    assert_eq!(scene.site.kept(), kept);
    let accept = ["vm", "set", "web-2", "--accept-image", "--yes"];
    let out = run_in(&scene.site.data, &accept, "");
    let said = text(&out.stderr);
    assert!(out.status.success() && said.contains(victim), "{said}");
    // The server looks for changes of definitions once a second.
    let taken = loop {
        let created = wire.create(&group, "two").unwrap();
        match created.value {
            STARTED => break created,
            _ => std::thread::sleep(std::time::Duration::from_millis(50)),
        }
    };
    assert_eq!(end(&wire, &taken, "accepted").state, COMPLETED);
    scene.site.wait_for_journals();
    assert_eq!(super::scene::seen(&scene.victim), before);
}
