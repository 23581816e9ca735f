//! An image is known by its inode number and the time of its birth, as recorded at import. What is not recorded is not
//! taken, and an older record is completed once.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::chain::over_a_base;
use super::scene::{Scene, Swap, assert_refused, end, seen};
use crate::support::server::{run_in, text};
use crate::support::site::{Ground, Image, SIZE};
use crate::support::wire::Wire;

fn tops(scene: &Scene) -> PathBuf {
    let machines = scene.site.data.join("machines");
    machines.join(&scene.machine.id).join("tops.json")
}

fn read(scene: &Scene) -> Value {
    serde_json::from_slice(&fs::read(tops(scene)).unwrap()).unwrap()
}

fn edit(scene: &Scene, change: impl FnOnce(&mut Value)) {
    let mut all = read(scene);
    change(&mut all);
    all.as_object_mut().unwrap().remove("checksum");
    fs::write(tops(scene), serde_json::to_vec(&all).unwrap()).unwrap();
}

/// As the version before this one wrote it.
fn make_old(scene: &Scene) {
    edit(scene, |all| {
        all.as_object_mut().unwrap().remove("complete");
        let image = all["images"]["disk0"].as_object_mut().unwrap();
        image.remove("born");
        for below in image["below"].as_array_mut().unwrap() {
            below.as_object_mut().unwrap().remove("born");
        }
    });
}

fn accept(scene: &Scene, name: &str) -> (bool, String) {
    let out = run_in(
        &scene.site.data,
        &["vm", "set", name, "--accept-image", "--yes"],
        "",
    );
    (out.status.success(), text(&out.stderr))
}

/// A file of root, which others may not read, that is made in the folder once the image is gone, until one has its
/// number.
fn heir(image: &Path) -> PathBuf {
    let number = fs::metadata(image).unwrap().ino();
    fs::remove_file(image).unwrap();
    for n in 0..256 {
        let file = image.with_file_name(format!("backup-{n}"));
        fs::write(&file, vec![9; SIZE]).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        if fs::metadata(&file).unwrap().ino() == number {
            return file;
        }
    }
    panic!("no file was given the number {number}");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_file_that_was_given_the_inode_number_of_an_image_is_not_taken_for_it() {
    // Where nobody else makes files: the next one is given the number.
    let scene = Scene::new(Ground::Ext4, Image::Raw, &["--overlay-ok"]);
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    let group = scene.group(&wire);
    let heir = heir(&scene.image);
    scene.other(&[&"mv", &heir, &scene.image]);
    let before = seen(&scene.image);
    let refused = wire.create(&group, "one").unwrap();
    assert_refused(&wire, &refused, &scene.image, "a file of root");
    drop(server);
    let born = read(&scene)["images"]["disk0"]["born"].clone();
    assert!(born.is_i64(), "{born}");
    assert!(seen(&scene.image) == before);
    let server = scene.site.serve();
    let refused = Wire::new(&server).create(&group, "one").unwrap();
    assert_refused(&Wire::new(&server), &refused, &scene.image, "after a start");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_lies_under_an_image_is_recorded_or_the_image_is_neither_imported_nor_accepted() {
    let (scene, base) = over_a_base();
    let recorded = read(&scene);
    let [below] = recorded["images"]["disk0"]["below"]
        .as_array()
        .unwrap()
        .as_slice()
    else {
        panic!("{recorded}");
    };
    assert_eq!(below["file"], base.to_str().unwrap());
    assert_eq!(below["owner"], 65_534);
    let gone = base.with_extension("gone");
    scene.other(&[&"mv", &base, &gone]);
    let (went, said) = accept(&scene, "web-2");
    assert!(!went && said.contains(base.to_str().unwrap()), "{said}");
    assert_eq!(read(&scene), recorded);
    let args = ["vm", "import", "web-3", scene.image.to_str().unwrap()];
    let out = run_in(&scene.site.data, &args, "");
    assert!(!out.status.success(), "{}", text(&out.stderr));
    scene.other(&[&"mv", &gone, &base]);
    let (went, said) = accept(&scene, "web-2");
    assert!(went, "{said}");
    assert_eq!(read(&scene), recorded);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_image_of_which_nothing_is_recorded_is_not_taken_until_its_operator_agrees() {
    let (scene, _) = over_a_base();
    let whole = read(&scene);
    let lost: [&dyn Fn(&mut Value); 3] = [
        &|all| drop(all["images"].as_object_mut().unwrap().remove("disk0")),
        &|all| {
            drop(
                all["images"]["disk0"]
                    .as_object_mut()
                    .unwrap()
                    .remove("below"),
            )
        },
        &|all| {
            drop(
                all["images"]["disk0"]
                    .as_object_mut()
                    .unwrap()
                    .remove("born"),
            )
        },
    ];
    for (n, lose) in lost.into_iter().enumerate() {
        edit(&scene, lose);
        let as_lost = read(&scene)["images"].clone();
        let server = scene.site.serve();
        let wire = Wire::new(&server);
        let group = wire
            .define(&format!("of {n}"), &[&scene.machine.id])
            .unwrap();
        let refused = wire.create(&group, "one").unwrap();
        let why = wire.why(&refused);
        assert_eq!(refused.value, 5, "{n}: {why}");
        for part in ["web-2", "disk0", "--accept-image"] {
            assert!(why.contains(part), "{n}: {part}: {why}");
        }
        drop(server);
        // Neither the start nor the refusal has recorded anything.
        assert_eq!(read(&scene)["images"], as_lost, "{n}");
        let (went, said) = accept(&scene, "web-2");
        assert!(went, "{n}: {said}");
        assert_eq!(read(&scene)["images"], whole["images"], "{n}");
    }
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    wire.take(&scene.group(&wire), "accepted");
    scene.site.wait_for_journals();
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_an_older_version_recorded_of_images_is_completed_by_the_first_start_where_it_agrees() {
    let (scene, base) = over_a_base();
    let whole = read(&scene);
    make_old(&scene);
    let out = run_in(&scene.site.data, &["vm", "show", "web-2"], "");
    assert!(out.status.success(), "{}", text(&out.stderr));
    drop(scene.site.serve());
    assert_eq!(read(&scene)["images"], whole["images"]);
    assert_eq!(read(&scene)["complete"], true);
    // A version before that knew nothing of chains, and the first one nothing of images.
    for nothing in ["below", "image"] {
        make_old(&scene);
        edit(&scene, |all| match nothing {
            "below" => drop(
                all["images"]["disk0"]
                    .as_object_mut()
                    .unwrap()
                    .remove("below"),
            ),
            _ => drop(all.as_object_mut().unwrap().remove("images")),
        });
        drop(scene.site.serve());
        assert_eq!(read(&scene)["images"], whole["images"], "{nothing}");
    }
    // Another file is not what was recorded, nor is what the owner of the image could not read, also if it is recorded.
    let exchanges: [&dyn Fn(); 3] = [
        &|| {
            let copy = base.with_extension("copy");
            fs::copy(&base, &copy).unwrap();
            chown(&copy, Some(65_534), Some(65_534)).unwrap();
            fs::rename(&copy, &base).unwrap();
        },
        &|| {
            chown(&base, Some(0), Some(0)).unwrap();
            fs::set_permissions(&base, fs::Permissions::from_mode(0o600)).unwrap();
        },
        &|| {
            let found = fs::metadata(&base).unwrap();
            edit(&scene, |all| {
                let below = &mut all["images"]["disk0"]["below"][0];
                below["inode"] = found.ino().into();
                below["owner"] = found.uid().into();
            });
        },
    ];
    for (n, exchange) in exchanges.into_iter().enumerate() {
        edit(&scene, |all| all["images"] = whole["images"].clone());
        make_old(&scene);
        if n == 1 {
            edit(&scene, |all| {
                drop(
                    all["images"]["disk0"]
                        .as_object_mut()
                        .unwrap()
                        .remove("below"),
                );
            });
        }
        exchange();
        let server = scene.site.serve();
        let wire = Wire::new(&server);
        let group = wire
            .define(&format!("of {n}"), &[&scene.machine.id])
            .unwrap();
        let refused = wire.create(&group, "one").unwrap();
        assert_eq!(refused.value, 5, "{n}: {}", wire.why(&refused));
        assert!(wire.why(&refused).contains("--accept-image"), "{n}");
        drop(server);
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_somebody_put_in_the_place_of_an_unrecorded_image_is_not_recorded_by_a_start() {
    let scene = Scene::new(Ground::Host, Image::Raw, &["--overlay-ok"]);
    let group = scene.group(&Wire::new(&scene.site.serve()));
    let whole = fs::read(tops(&scene)).unwrap();
    // Of the first version, and lost as a whole.
    let lost: [&dyn Fn(); 2] = [
        &|| {
            edit(&scene, |all| {
                let all = all.as_object_mut().unwrap();
                all.remove("images");
                all.remove("complete");
            });
        },
        &|| {
            fs::remove_file(tops(&scene)).unwrap();
            let said = scene.doctor(&["--fix", "--yes"]);
            assert!(tops(&scene).exists(), "{said}");
        },
    ];
    for swap in [Swap::Link, Swap::HardLink, Swap::Foreign, Swap::FolderLink] {
        for (n, lose) in lost.iter().enumerate() {
            let what = format!("{swap:?} {n}");
            scene.swap(&scene.image, swap);
            let before = scene.guarded(&scene.image, swap);
            lose();
            let server = scene.site.serve();
            let wire = Wire::new(&server);
            let refused = wire.create(&group, "one").unwrap();
            let why = wire.why(&refused);
            assert_eq!(refused.value, 5, "{what}: {why}");
            drop(server);
            assert!(read(&scene)["images"]["disk0"].is_null(), "{what}");
            assert_eq!(scene.guarded(&scene.image, swap), before, "{what}");
            scene.swap_back(&scene.image, swap);
            fs::write(tops(&scene), &whole).unwrap();
        }
    }
    // What nobody else can have put there is.
    for lose in lost {
        lose();
        drop(scene.site.serve());
        let recorded = read(&scene)["images"].clone();
        let whole: Value = serde_json::from_slice(&whole).unwrap();
        assert_eq!(recorded, whole["images"]);
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn nothing_is_merged_into_a_later_file_that_was_given_the_number_of_an_image() {
    let mut scene = Scene::new(Ground::Host, Image::Raw, &["--overlay-ok"]);
    let server = scene.site.serve();
    let (_, set) = scene.with_a_set(&server);
    drop(server);
    scene.writes(7);
    // As if the file that stands there was made after the one that was recorded was removed.
    edit(&scene, |all| {
        let born = &mut all["images"]["disk0"]["born"];
        *born = (born.as_i64().unwrap() - 1).into();
    });
    let before = seen(&scene.image);
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    let gone = wire.destroy(&set).unwrap();
    if gone.job.is_some() {
        end(&wire, &gone, "destroyed");
        scene.site.wait_for_journals();
    }
    assert!(seen(&scene.image) == before);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_pipe_that_a_header_names_is_not_opened() {
    let (scene, _) = over_a_base();
    let pipe = scene.site.images.join("pipe");
    crate::support::tools::run("mkfifo", &[&pipe]);
    fs::set_permissions(&pipe, fs::Permissions::from_mode(0o600)).unwrap();
    let group = scene.group(&Wire::new(&scene.site.serve()));
    let (named, image) = (pipe.to_str().unwrap(), scene.image.to_str().unwrap());
    let rebase = ["rebase", "-u", "-F", "raw", "-b", named, image];
    let [a, b, c, d, e, f, g] = rebase;
    scene.other(&[&"qemu-img", &a, &b, &c, &d, &e, &f, &g]);
    // Whoever writes into it waits for a reader, and one is enough to have him go on.
    let writer = {
        let pipe = pipe.clone();
        thread::spawn(move || fs::write(pipe, b"of root").is_ok())
    };
    thread::sleep(Duration::from_millis(100));
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    let refused = wire.create(&group, "one").unwrap();
    assert_eq!(refused.value, 5, "{}", wire.why(&refused));
    scene.doctor(&[]);
    drop(server);
    scene.doctor(&[]);
    assert!(!writer.is_finished(), "somebody has opened the pipe");
    let (went, said) = accept(&scene, "web-2");
    assert!(!went && said.contains(named), "{said}");
    assert!(!writer.is_finished(), "the command has opened the pipe");
    assert_eq!(fs::read(&pipe).unwrap(), b"of root");
    assert!(writer.join().unwrap());
}
