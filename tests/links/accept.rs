//! What an operator says of an image: at import, and when something else stands in its place.

use std::fs;
use std::os::unix::fs::{chown, symlink};

use serde_json::Value;

use super::chain::over_a_base;
use super::scene::{Scene, Swap, assert_refused};
use crate::support::server::{run_in, text};
use crate::support::site::{Ground, Image, SIZE, assert_holds};
use crate::support::wire::Wire;

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_image_is_taken_when_its_operator_says_so() {
    let scene = Scene::new(Ground::Host, Image::Raw, &["--overlay-ok"]);
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    let group = scene.group(&wire);
    scene.swap(&scene.image, Swap::Foreign);
    let refused = wire.create(&group, "one").unwrap();
    assert_refused(&wire, &refused, &scene.image, "another owner");
    assert!(
        wire.why(&refused).contains("--accept-image"),
        "{}",
        wire.why(&refused)
    );
    let accept = ["vm", "set", "web", "--accept-image", "--yes"];
    let out = run_in(&scene.site.data, &accept, "");
    assert!(out.status.success(), "{}", text(&out.stderr));
    let said = text(&out.stderr);
    assert!(
        said.contains(&format!("{} of user 0", scene.image.display())),
        "{said}"
    );
    // The server looks for changes of definitions once a second.
    let taken = loop {
        let created = wire.create(&group, "two").unwrap();
        match created.value {
            crate::support::wire::STARTED => break created,
            _ => std::thread::sleep(std::time::Duration::from_millis(50)),
        }
    };
    assert_eq!(super::scene::end(&wire, &taken, "accepted").state, 7);
    let set = taken.set.unwrap();
    scene.site.wait_for_journals();
    let kept = wire.shown().unwrap().sets[&set].members[0].disks["disk0"].clone();
    assert_holds(&kept, &vec![9; SIZE], "accepted");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_import_tells_where_links_lead_and_who_may_exchange_the_image() {
    let scene = Scene::new(Ground::Host, Image::Raw, &[]);
    let other = scene.image.with_file_name("db.raw");
    fs::write(&other, vec![1; SIZE]).unwrap();
    chown(&other, Some(65_534), Some(65_534)).unwrap();
    let link = scene.site.images.join("db.raw");
    symlink(&other, &link).unwrap();
    let args = ["vm", "import", "db", link.to_str().unwrap()];
    let out = run_in(&scene.site.data, &args, "");
    let said = text(&out.stderr);
    assert!(out.status.success(), "{said}");
    for part in [
        &format!("{} leads to {}", link.display(), other.display()),
        "can exchange",
        "user 65534",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // The same in one object.
    let out = run_in(&scene.site.data, &["vm", "remove", "db"], "");
    assert!(out.status.success(), "{}", text(&out.stderr));
    let out = run_in(&scene.site.data, &[&args[..], &["--json"]].concat(), "");
    let told: Value = serde_json::from_slice(&out.stdout).unwrap();
    let named = serde_json::json!([{"file": other, "named": link}]);
    assert_eq!(told["named"], named, "{told}");
    let exposed = told["exposed"].as_array().unwrap();
    let folder = other.parent().unwrap().to_str().unwrap();
    let of_folder = exposed.iter().find(|it| it["folder"] == folder).unwrap();
    assert_eq!(of_folder["file"], other.to_str().unwrap(), "{told}");
    assert_eq!(of_folder["owner"], 65_534, "{told}");
    assert_eq!(of_folder["mode"].as_str().unwrap().len(), 4, "{told}");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_the_kernel_makes_up_is_not_imported() {
    let scene = Scene::new(Ground::Host, Image::Raw, &[]);
    let (pipe, link) = (
        scene.site.images.join("pipe.raw"),
        scene.site.images.join("link.raw"),
    );
    crate::support::tools::run("mkfifo", &[&pipe]);
    symlink("/proc/version", &link).unwrap();
    let files = [
        "/proc/version",
        "/proc/self/environ",
        "/sys/kernel/uevent_seqnum",
        "/dev/null",
        link.to_str().unwrap(),
        pipe.to_str().unwrap(),
    ];
    for file in files {
        let args = ["vm", "import", "no", "--format", "raw", file];
        let out = run_in(&scene.site.data, &args, "");
        let said = text(&out.stderr);
        assert!(!out.status.success(), "{file}: {said}");
        assert!(said.contains(file), "{file}: {said}");
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_base_that_was_moved_with_a_link_left_is_accepted() {
    let (scene, base) = over_a_base();
    let mut server = scene.site.serve();
    let (_, set) = scene.with_a_set(&server);
    server.kill();
    let moved = base.with_file_name("moved.raw");
    fs::rename(&base, &moved).unwrap();
    symlink(&moved, &base).unwrap();
    let said = scene.doctor(&["--fix", "--yes", "--accept-damaged"]);
    let record = scene.site.data.join("sets").join(&set).join("set.json");
    let record: Value = serde_json::from_slice(&fs::read(record).unwrap()).unwrap();
    let disk = &record["set"]["members"][0]["disks"][0];
    assert!(disk["damage"].is_null(), "{said} {disk}");
    let files = disk["sealed"].as_array().unwrap().iter();
    let files: Vec<_> = files.map(|it| it["file"].as_str().unwrap()).collect();
    assert!(files.contains(&moved.to_str().unwrap()), "{disk}");
    let leads = format!("a symbolic link to {}", moved.display());
    assert!(said.contains(&leads), "{said}");
    // Another file in its place is none that was captured.
    fs::rename(&moved, moved.with_extension("away")).unwrap();
    fs::copy(&scene.victim, &moved).unwrap();
    let said = scene.doctor(&["--fix", "--yes", "--accept-damaged"]);
    assert!(!said.contains("accepted: "), "{said}");
}
