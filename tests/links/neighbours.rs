//! Whoever may rename above the folders of several images, or has named a file of somebody else under his own.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use super::scene::{COMPLETED, Scene, end, seen};
use crate::support::gate::Gate;
use crate::support::server::{run_in, text};
use crate::support::site::{Ground, Image, SIZE, assert_holds};
use crate::support::tools::run;
use crate::support::wire::Wire;

/// Of two machines, the user who owns their images and the folders in which those lie.
const OWNER: u32 = 1_234;

/// The machines `web` and `db` on `disk.raw` in a folder each, below one of `above`: those folders, and what the import
/// of the last has said.
fn two(scene: &Scene, above: u32) -> ([PathBuf; 2], String) {
    let vms = scene.site.images.join("vms");
    fs::create_dir(&vms).unwrap();
    chown(&vms, Some(above), Some(above)).unwrap();
    let mut said = String::new();
    let folders = ["app", "db"].map(|name| {
        let folder = vms.join(name);
        fs::create_dir(&folder).unwrap();
        let image = folder.join("disk.raw");
        fs::write(&image, vec![name.len() as u8; SIZE]).unwrap();
        fs::set_permissions(&image, fs::Permissions::from_mode(0o600)).unwrap();
        for it in [&image, &folder] {
            chown(it, Some(OWNER), Some(OWNER)).unwrap();
        }
        let args = [
            "vm",
            "import",
            "--overlay-ok",
            name,
            image.to_str().unwrap(),
        ];
        let out = run_in(&scene.site.data, &args, "");
        said = text(&out.stderr);
        assert!(out.status.success(), "{said}");
        folder
    });
    (folders, said)
}

fn id(scene: &Scene, name: &str) -> String {
    let out = run_in(&scene.site.data, &["--json", "vm", "show", name], "");
    let shown: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    shown["id"].as_str().unwrap().to_owned()
}

fn swap(by: &dyn Fn(&Path, &Path), [one, other]: &[PathBuf; 2]) {
    let aside = one.with_file_name("aside");
    by(one, &aside);
    by(other, one);
    by(&aside, other);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn who_may_rename_far_above_images_gets_no_set_of_one_in_the_place_of_another() {
    for ground in [Ground::Host, Ground::Xfs] {
        let scene = Scene::new(ground, Image::Raw, &[]);
        let (folders, said) = two(&scene, 65_534);
        let vms = folders[0].parent().unwrap();
        assert!(said.contains(vms.to_str().unwrap()), "{said}");
        let server = scene.site.serve();
        let wire = Wire::new(&server);
        let group = wire.define("app", &[&id(&scene, "app")]).unwrap();
        // Clones leave the image as it is; an overlay would freeze it.
        let set = (ground == Ground::Xfs).then(|| wire.take(&group, "before"));
        scene.site.wait_for_journals();
        let image = folders[0].join("disk.raw");
        let by_other = |from: &Path, to: &Path| scene.other(&[&"mv", &from, &to]);
        swap(&by_other, &folders);
        let before = seen(&image);
        let refused = wire.create(&group, "one").unwrap();
        let why = wire.why(&refused);
        assert_eq!(refused.value, 5, "{ground:?}: {why}");
        for part in [image.to_str().unwrap(), vms.to_str().unwrap(), "65534"] {
            assert!(why.contains(part), "{ground:?}: {part}: {why}");
        }
        if let Some(set) = set {
            let refused = wire.apply(&set).unwrap();
            assert_eq!(refused.value, 5, "{ground:?}: {}", wire.why(&refused));
        }
        assert!(seen(&image) == before, "{ground:?}");
        swap(&by_other, &folders);
        wire.take(&group, "put back");
        scene.site.wait_for_journals();
        let said = scene.doctor(&[]);
        let told = said.lines().any(|line| {
            let names = line.contains("app, db") && line.contains("65534");
            line.contains("image-exposed") && line.contains(vms.to_str().unwrap()) && names
        });
        assert!(told, "{said}");
    }
}

/// Once the new file stands there, and before it is recorded.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_an_apply_puts_below_a_folder_of_others_is_taken_and_nothing_that_they_put_there() {
    for (dies, swaps) in [(false, false), (true, false), (false, true)] {
        let what = format!("dies: {dies}, swaps: {swaps}");
        let scene = Scene::new(Ground::Xfs, Image::Raw, &[]);
        let (folders, _) = two(&scene, 65_534);
        let image = folders[0].join("disk.raw");
        let gate = Gate::new();
        let mut server = scene.site.serve_with(&[&gate.at("apply.revert.after")]);
        let wire = Wire::new(&server);
        let group = wire.define("app", &[&id(&scene, "app")]).unwrap();
        let set = wire.take(&group, "before");
        scene.site.wait_for_journals();
        fs::write(&image, vec![7; SIZE]).unwrap();
        let applied = wire.apply(&set).unwrap();
        scene.is_at_the_gate(&wire, (&applied, &gate), &what);
        let by_other = |from: &Path, to: &Path| scene.other(&[&"mv", &from, &to]);
        if swaps {
            swap(&by_other, &folders);
        }
        if dies {
            server.kill();
            server = scene.site.serve();
        }
        gate.open();
        let wire = Wire::new(&server);
        let job = end(&wire, &applied, &what);
        assert_eq!(job.state, COMPLETED, "{what}: {job:?}");
        scene.site.wait_for_journals();
        if swaps {
            let before = seen(&image);
            let refused = wire.create(&group, "exchanged").unwrap();
            assert_eq!(refused.value, 5, "{what}: {}", wire.why(&refused));
            assert!(seen(&image) == before, "{what}");
            swap(&by_other, &folders);
        }
        assert_holds(&image, &vec![3; SIZE], &what);
        wire.take(&group, "after");
        scene.site.wait_for_journals();
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn the_image_of_another_machine_is_not_taken_in_the_place_of_an_image() {
    let scene = Scene::new(Ground::Host, Image::Raw, &[]);
    let (folders, _) = two(&scene, 0);
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    let group = wire.define("app", &[&id(&scene, "app")]).unwrap();
    let by_root = |from: &Path, to: &Path| fs::rename(from, to).unwrap();
    swap(&by_root, &folders);
    let refused = wire.create(&group, "one").unwrap();
    let why = wire.why(&refused);
    assert_eq!(refused.value, 5, "{why}");
    for part in [
        "the image",
        folders[1].to_str().unwrap(),
        &id(&scene, "db"),
        "--accept-image",
    ] {
        assert!(why.contains(part), "{part}: {why}");
    }
    swap(&by_root, &folders);
    wire.take(&group, "put back");
    scene.site.wait_for_journals();
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_image_over_a_file_that_its_owner_could_not_read_is_imported_once_that_is_confirmed() {
    let scene = Scene::new(Ground::Host, Image::Raw, &[]);
    let image = scene.image.with_file_name("over.qcow2");
    let (named, victim) = (image.to_str().unwrap(), scene.victim.to_str().unwrap());
    let args = [
        "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", victim, named, "1M",
    ];
    run("qemu-img", &args);
    chown(&image, Some(65_534), Some(65_534)).unwrap();
    let import = |more: &[&str]| {
        let args = [&["vm", "import", "over", named], more].concat();
        let out = run_in(&scene.site.data, &args, "");
        (out.status.success(), text(&out.stderr))
    };
    let (went, said) = import(&[]);
    for part in [victim, "65534", "--accept-image"] {
        assert!(!went && said.contains(part), "{part}: {said}");
    }
    // A file that he may read in a folder that he may not pass is none of his either.
    let hidden = scene.site.images.join("hidden");
    fs::create_dir(&hidden).unwrap();
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o700)).unwrap();
    let within = hidden.join("open.raw");
    fs::write(&within, vec![3; SIZE]).unwrap();
    run(
        "qemu-img",
        &[
            "rebase",
            "-u",
            "-F",
            "raw",
            "-b",
            within.to_str().unwrap(),
            named,
        ],
    );
    let (went, said) = import(&[]);
    assert!(!went && said.contains(within.to_str().unwrap()), "{said}");
    run(
        "qemu-img",
        &["rebase", "-u", "-F", "raw", "-b", victim, named],
    );
    let (went, said) = import(&["--accept-image"]);
    let chain = format!("{named} of user 65534, over {victim} of user 0");
    assert!(went && said.contains(&chain), "{said}");
    let shown = run_in(&scene.site.data, &["vm", "show", "over"], "");
    let shown = text(&shown.stdout);
    assert!(shown.contains(&chain), "{shown}");
    let shown = run_in(&scene.site.data, &["--json", "vm", "show", "over"], "");
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let below = &shown["disks"][0]["image"][1];
    assert_eq!(below["file"], victim);
    assert_eq!(
        (&below["owner"], &below["mode"]),
        (&0.into(), &"0600".into())
    );
    // What anybody may read needs no word.
    fs::set_permissions(&scene.victim, fs::Permissions::from_mode(0o644)).unwrap();
    let second = image.with_file_name("second.qcow2");
    fs::copy(&image, &second).unwrap();
    chown(&second, Some(65_534), Some(65_534)).unwrap();
    let args = ["vm", "import", "second", second.to_str().unwrap()];
    let out = run_in(&scene.site.data, &args, "");
    assert!(out.status.success(), "{}", text(&out.stderr));
}
