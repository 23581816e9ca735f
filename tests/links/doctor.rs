//! What the check-up tells and repairs while something else stands in the place of a file.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use super::scene::{Scene, Swap, seen};
use crate::support::server::{run_in, text};
use crate::support::site::{Ground, Image, SIZE, assert_holds};
use crate::support::tools::run;
use crate::support::wire::Wire;

/// A machine with a set kept as a clone in a folder that somebody else may exchange.
fn cloned() -> (Scene, std::path::PathBuf) {
    let scene = Scene::new(Ground::Xfs, Image::Raw, &[]);
    let server = scene.site.serve();
    let (wire, set) = scene.with_a_set(&server);
    let kept = wire.shown().unwrap().sets[&set].members[0].disks["disk0"].clone();
    (scene, kept)
}

fn mode(file: &std::path::Path) -> u32 {
    fs::metadata(file).unwrap().permissions().mode() & 0o7777
}

/// With a server and without.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_repair_gives_no_mode_to_what_somebody_put_in_the_place_of_a_clone() {
    let (scene, kept) = cloned();
    let folder = kept.parent().unwrap();
    let ours = folder.parent().unwrap();
    let aside = ours.with_file_name("aside");
    for running in [false, true] {
        let server = running.then(|| scene.site.serve());
        let before = seen(&scene.victim);
        scene.other(&[&"mv", &ours, &aside]);
        scene.other(&[&"mkdir", &"-p", &folder]);
        scene.other(&[&"ln", &"-s", &scene.victim, &kept]);
        let said = scene.doctor(&["--fix", "--yes"]);
        assert_eq!(seen(&scene.victim), before, "{running}: {said}");
        fs::remove_dir_all(ours).unwrap();
        // A link to a folder of root, in which a file of his has the name.
        let trap = scene.site.images.join("trap");
        let trapped = trap.join(folder.file_name().unwrap());
        fs::create_dir_all(&trapped).unwrap();
        let guarded = trapped.join(kept.file_name().unwrap());
        fs::copy(&scene.victim, &guarded).unwrap();
        fs::set_permissions(&guarded, fs::Permissions::from_mode(0o600)).unwrap();
        let before = seen(&guarded);
        scene.other(&[&"ln", &"-s", &trap, &ours]);
        let said = scene.doctor(&["--fix", "--yes"]);
        assert_eq!(seen(&guarded), before, "{running}: {said}");
        fs::remove_file(ours).unwrap();
        // That folder itself.
        fs::rename(&trap, ours).unwrap();
        let said = scene.doctor(&["--fix", "--yes"]);
        assert_eq!(mode(&kept), 0o600, "{running}: {said}");
        fs::remove_dir_all(ours).unwrap();
        fs::rename(&aside, ours).unwrap();
        drop(server);
    }
    assert_holds(&kept, &scene.machine.content[0], "kept");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_clone_that_may_be_written_is_closed_and_no_other_file_is() {
    let (scene, kept) = cloned();
    fs::set_permissions(&kept, fs::Permissions::from_mode(0o644)).unwrap();
    let said = scene.doctor(&["--fix", "--yes"]);
    assert_eq!(mode(&kept), 0o444, "{said}");
}

/// Whoever agrees to a damaged disk means that somebody wrote it, not that it is another's file.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_foreign_file_in_the_place_of_an_image_is_not_accepted_as_damage() {
    let scene = Scene::new(Ground::Host, Image::Raw, &["--overlay-ok"]);
    let server = scene.site.serve();
    let (wire, set) = scene.with_a_set(&server);
    let accept = ["--fix", "--yes", "--accept-damaged"];
    for swap in [Swap::HardLink, Swap::Foreign, Swap::FolderLink, Swap::Link] {
        scene.swap(&scene.image, swap);
        let before = scene.guarded(&scene.image, swap);
        let said = scene.doctor(&accept);
        let refused = wire.apply(&set).unwrap();
        assert_eq!(refused.value, 5, "{swap:?}: {said}");
        assert!(wire.shown().unwrap().sets[&set].is_damaged(), "{swap:?}");
        assert!(
            said.contains(scene.image.to_str().unwrap()),
            "{swap:?}: {said}"
        );
        assert!(
            scene.guarded(&scene.image, swap) == before,
            "{swap:?}: {said}"
        );
        scene.swap_back(&scene.image, swap);
    }
    let said = scene.doctor(&accept);
    assert!(
        !wire.shown().unwrap().sets[&set].is_damaged(),
        "put back: {said}"
    );
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn the_check_up_names_each_folder_in_which_others_may_exchange_images() {
    let scene = Scene::new(Ground::Host, Image::Raw, &[]);
    let folder = scene.image.parent().unwrap();
    let second = folder.join("db.raw");
    fs::copy(&scene.image, &second).unwrap();
    chown(&second, Some(65_534), Some(65_534)).unwrap();
    let own = vec![vec![1; SIZE]];
    scene.site.import("db", &[second.to_str().unwrap()], own);
    scene.site.machine("safe", &[Image::Raw], 2);
    let out = run_in(&scene.site.data, &["--json", "doctor"], "");
    let looked: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let findings = looked["findings"].as_array().unwrap();
    let exposed: Vec<_> = findings
        .iter()
        .filter(|f| f["kind"] == "image-exposed")
        .collect();
    let [above, finding] = exposed.as_slice() else {
        panic!("{}", text(&out.stdout));
    };
    assert_eq!(above["object"], folder.parent().unwrap().to_str().unwrap());
    assert_eq!(finding["object"], folder.to_str().unwrap());
    for finding in [above, finding] {
        assert_eq!(finding["severity"], "info");
        let told = finding["text"].as_str().unwrap();
        assert!(told.contains("db, web") && told.contains("65534"), "{told}");
    }
}

/// With a server and without. Nothing of what a foreign file holds is told, by the refusal of a set neither.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn the_check_up_tells_of_each_image_that_no_set_is_taken_of() {
    let mut scene = Scene::new(Ground::Host, Image::Qcow2, &["--overlay-ok"]);
    scene.victim.set_extension("qcow2");
    let hidden = "/srv/hidden-name.raw";
    let victim = scene.victim.to_str().unwrap();
    let args = [
        "create", "-q", "-f", "qcow2", "-F", "raw", "-u", "-b", hidden, victim, "77M",
    ];
    run("qemu-img", &args);
    fs::set_permissions(&scene.victim, fs::Permissions::from_mode(0o600)).unwrap();
    let group = scene.group(&Wire::new(&scene.site.serve()));
    let second = scene.image.with_extension("second");
    let swaps = [Swap::Foreign, Swap::HardLink, Swap::Link, Swap::FolderLink];
    let swaps: Vec<_> = swaps.into_iter().map(Some).chain([None]).collect();
    for swap in swaps {
        match swap {
            Some(swap) => scene.swap(&scene.image, swap),
            None => fs::hard_link(&scene.image, &second).unwrap(),
        }
        let look = |what: &str| {
            let said = scene.doctor(&[]);
            let told = said.lines().any(|line| {
                line.contains("image-unreadable")
                    && line.contains("machine web, disk disk0")
                    && line.contains("vm set web --accept-image")
            });
            assert!(told, "{swap:?}, {what}: {said}");
            assert!(!said.contains(hidden), "{swap:?}, {what}: {said}");
            let shown = run_in(&scene.site.data, &["--json", "vm", "show", "web"], "");
            let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
            assert_eq!(shown["disks"][0]["size"], SIZE, "{swap:?}, {what}: {shown}");
        };
        look("without a server");
        let server = scene.site.serve();
        let wire = Wire::new(&server);
        look("with a server");
        let refused = wire.create(&group, "one").unwrap();
        let why = wire.why(&refused);
        assert_eq!(refused.value, 5, "{swap:?}: {why}");
        assert!(!why.contains(hidden), "{swap:?}: {why}");
        drop(server);
        match swap {
            Some(swap) => scene.swap_back(&scene.image, swap),
            None => fs::remove_file(&second).unwrap(),
        }
    }
    let said = scene.doctor(&[]);
    assert!(!said.contains("image-unreadable"), "put back: {said}");
}
