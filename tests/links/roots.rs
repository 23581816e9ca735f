//! Every operation keeps to `image_roots`, also when they were narrowed after a set was taken.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::scene::{COMPLETED, INVALID_STATE, Scene, end, seen};
use crate::support::server::{binary, run_in, text};
use crate::support::site::{Ground, Image};
use crate::support::tools::{forget_backing_format, run};
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
    fs::set_permissions(&kept, fs::Permissions::from_mode(0o644)).unwrap();
    let before = seen(&kept);
    let file = scene.site.configuration(&config);
    let said = scene.doctor(&["--config", file.to_str().unwrap(), "--fix", "--yes"]);
    assert_eq!(seen(&kept), before, "{said}");
    assert!(said.contains("image folders"), "{said}");
}

/// A configuration that admits images below these folders alone.
fn only(scene: &Scene, folder: &Path) -> String {
    // What else a server's configuration says is no matter of a command.
    let text = format!(
        "[engine]\ndefault = \"sim\"\nimage_roots = [{folder:?}]\n[log]\naudit = \"nowhere/audit.log\"\n"
    );
    let file = scene.site.configuration(&text);
    file.to_str().unwrap().to_owned()
}

/// The backing file is named by its whole path, in the header of an image that was imported.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn no_relocation_writes_a_header_outside_of_image_roots() {
    let scene = Scene::new(Ground::Host, Image::Raw, &[]);
    let (old, data) = (&scene.site.images, &scene.site.data);
    let (image, base) = (old.join("top.qcow2"), old.join("base.raw"));
    fs::copy(&scene.image, &base).unwrap();
    let create = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b"];
    let files = [&base, &image].map(|file| file.to_str().unwrap());
    run("qemu-img", &[&create[..], &files].concat());
    let imported = run_in(data, &["vm", "import", "top", image.to_str().unwrap()], "");
    assert!(imported.status.success(), "{}", text(&imported.stderr));
    let new = old.with_file_name("moved");
    fs::rename(old, &new).unwrap();
    let moved = new.join("top.qcow2");
    let before = fs::read(&moved).unwrap();
    let relocate = |roots: &Path| {
        let config = only(&scene, roots);
        let (old, new) = (old.to_str().unwrap(), new.to_str().unwrap());
        let args = [
            "relocate",
            "--from",
            old,
            "--to",
            new,
            "--definitions",
            "--apply",
        ];
        run_in(data, &[&args[..], &["--config", &config]].concat(), "")
    };
    let refused = relocate(&scene.site.data);
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("image folders") && said.contains(moved.to_str().unwrap()),
        "{said}"
    );
    assert!(fs::read(&moved).unwrap() == before);
    // Who goes on with what has died keeps to them, though nobody names them any more.
    let config = only(&scene, &new);
    let died = Command::new(binary())
        .args(["relocate", "--definitions", "--apply", "--from"])
        .args([old, Path::new("--to"), &new, Path::new("--data-dir"), data])
        .args(["--config", &config])
        .env("GROUPSHOT_FAILPOINTS", "relocate.planned.after=abort")
        .output()
        .unwrap();
    assert_eq!(died.status.code(), None, "{}", text(&died.stderr));
    let outside = old.with_file_name("outside.qcow2");
    fs::rename(&moved, &outside).unwrap();
    let recorded = |from: &Path, to: &Path| {
        let id = machine_of(data, "top");
        let file = data.join("machines").join(id).join("tops.json");
        let mut tops: serde_json::Value =
            serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        let image = &mut tops["images"]["disk0"];
        assert_eq!(image["file"], from.to_str().unwrap());
        image["file"] = to.to_str().unwrap().into();
        tops.as_object_mut().unwrap().remove("checksum");
        fs::write(&file, tops.to_string()).unwrap();
    };
    let was = old.join("top.qcow2");
    recorded(&was, &outside);
    let go_on = || run_in(data, &["relocate", "--apply"], "");
    let refused = go_on();
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("image folders"), "{said}");
    assert!(fs::read(&outside).unwrap() == before);
    recorded(&outside, &was);
    fs::rename(&outside, &moved).unwrap();
    let done = go_on();
    assert!(done.status.success(), "{}", text(&done.stderr));
    let info = run("qemu-img", &["info", moved.to_str().unwrap()]);
    assert!(
        info.contains(new.join("base.raw").to_str().unwrap()),
        "{info}"
    );
    // A configuration is read as whoever calls may read it, not as the owner of the data directory.
    run("chown", &["-R", "65534:65534", data.to_str().unwrap()]);
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
    let again = relocate(&new);
    assert!(again.status.success(), "{}", text(&again.stderr));
}

/// The id of a machine.
fn machine_of(data: &Path, name: &str) -> String {
    let out = run_in(data, &["--json", "vm", "show", name], "");
    let shown: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    shown["id"].as_str().unwrap().to_owned()
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn no_file_outside_of_image_roots_becomes_an_image_or_an_active_file() {
    let (scene, _, _) = narrowed(Ground::Host);
    let data = &scene.site.data;
    let (images, other) = (scene.site.images.clone(), scene.site.images.join("other"));
    let machine = data.join("machines").join(&scene.machine.id);
    let tops = || fs::read(machine.join("tops.json")).unwrap();
    let active = scene.site.top(&scene.machine, 0);
    let set = |roots: &Path, args: &[&str]| {
        let config = only(&scene, roots);
        let set = ["vm", "set", "web", "--yes", "--config", &config];
        let out = run_in(data, &[&set[..], args].concat(), "");
        (out.status.code(), text(&out.stderr))
    };
    let named = |file: &Path| format!("disk0={}", file.display());
    let (image, overlay) = (named(&scene.image), named(&active));
    for args in [
        &["--accept-image"][..],
        &["--active", &image],
        &["--active", &overlay], // it lies on the image
        &["--accept-size", "disk0"],
        &["--backing-format", "disk0=raw"],
    ] {
        if args[0] == "--backing-format" {
            forget_backing_format(&active);
        }
        let before = tops();
        let (code, said) = set(&other, args);
        assert_ne!(code, Some(0), "{args:?}: {said}");
        assert!(said.contains("image folders"), "{args:?}: {said}");
        assert!(
            said.contains(scene.image.to_str().unwrap()),
            "{args:?}: {said}"
        );
        assert!(tops() == before, "{args:?}");
        let (code, said) = set(&images, args);
        assert_eq!(code, Some(0), "{args:?}: {said}");
    }
}
