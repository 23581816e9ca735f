//! The owner of an image writes into its header what he likes: it says nothing of files of others, and nobody seals what
//! it names.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{XattrFlags, getxattr, setxattr};

use super::scene::{COMPLETED, Scene, end};
use crate::support::gate::Gate;
use crate::support::server::{Server, run_in, text};
use crate::support::site::{Ground, Image, Machine, SIZE, assert_holds};
use crate::support::tools::run;
use crate::support::wire::{STARTED, Wire};

/// The machine `db` of root beside that of the second user, with its base.
fn neighbour(scene: &Scene, more: &[&str]) -> (Machine, PathBuf) {
    let base = scene.site.image("db", Image::Raw, 5);
    let args = [more, &[base.to_str().unwrap()]].concat();
    let db = scene.site.import("db", &args, vec![vec![5; SIZE]]);
    (db, base)
}

/// The second user names `file` in the header of his image.
fn name(scene: &Scene, file: &Path, format: &str) {
    let rebase: [&dyn AsRef<std::ffi::OsStr>; 8] = [
        &"qemu-img",
        &"rebase",
        &"-u",
        &"-b",
        &file,
        &"-F",
        &format,
        &scene.image,
    ];
    scene.other(&rebase);
}

fn ended(mut server: Server) {
    server.kill();
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn the_active_file_of_a_machine_that_cannot_be_read_goes_with_no_set_of_another() {
    let scene = Scene::new(Ground::Host, Image::Qcow2, &["--overlay-ok"]);
    let (mut db, _) = neighbour(&scene, &["--overlay-ok"]);
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    wire.take(&wire.define("db", &[&db.id]).unwrap(), "of db");
    let set = wire.take(&scene.group(&wire), "of web");
    scene.site.wait_for_journals();
    let top = scene.site.top(&db, 0);
    db.write(&top, 0, 8192, 8192, 7);
    ended(server);
    let definition = scene.site.data.join("machines").join(&db.id);
    let definition = definition.join("vm.toml");
    let defined = fs::read_to_string(&definition).unwrap();
    fs::write(&definition, format!("{defined}oops\n")).unwrap();
    let honest = fs::read(&scene.image).unwrap();
    name(&scene, &top, "qcow2");
    let gate = Gate::new();
    let server = scene.site.serve_with(&[&gate.at("destroy.clean.before")]);
    let wire = Wire::new(&server);
    let gone = wire.destroy(&set).unwrap();
    scene.is_at_the_gate(&wire, (&gone, &gate), "destroyed");
    fs::write(&scene.image, &honest).unwrap();
    gate.open();
    let job = end(&wire, &gone, "destroyed");
    assert_eq!(job.state, COMPLETED, "{job:?}");
    assert!(top.exists(), "{job:?}");
    assert_holds(&top, &db.content[0], "destroyed");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_a_header_named_once_holds_up_no_merge_when_the_image_is_away() {
    let scene = Scene::new(Ground::Host, Image::Qcow2, &["--overlay-ok"]);
    let (mut db, base) = neighbour(&scene, &["--overlay-ok"]);
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    let set = wire.take(&wire.define("db", &[&db.id]).unwrap(), "of db");
    scene.site.wait_for_journals();
    db.write(&scene.site.top(&db, 0), 0, 8192, 8192, 7);
    ended(server);
    name(&scene, &base, "raw");
    ended(scene.site.serve()); // has seen the header
    let tops = scene.site.data.join("machines").join(&scene.machine.id);
    let tops = fs::read_to_string(tops.join("tops.json")).unwrap();
    assert!(!tops.contains(base.to_str().unwrap()), "{tops}");
    fs::rename(&scene.image, scene.image.with_extension("away")).unwrap();
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    let job = end(&wire, &wire.destroy(&set).unwrap(), "merged");
    assert_eq!(job.state, COMPLETED, "{job:?}");
    scene.site.wait_for_journals();
    assert_eq!(scene.site.top(&db, 0), base, "{job:?}");
    assert_holds(&base, &db.content[0], "merged");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_header_of_others_holds_up_no_apply_and_no_import() {
    let scene = Scene::new(Ground::Xfs, Image::Qcow2, &[]);
    let (db, base) = neighbour(&scene, &[]);
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    let set = wire.take(&wire.define("db", &[&db.id]).unwrap(), "of db");
    scene.site.wait_for_journals();
    name(&scene, &base, "raw");
    let applied = wire.apply(&set).unwrap();
    assert_eq!(applied.value, STARTED, "{}", wire.why(&applied));
    let job = end(&wire, &applied, "applied");
    assert_eq!(job.state, COMPLETED, "{job:?}");
    scene.site.wait_for_journals();
    assert_holds(&base, &db.content[0], "applied");
    let new = scene.site.image("new", Image::Raw, 3);
    name(&scene, &new, "raw");
    let import = ["vm", "import", "new", new.to_str().unwrap()];
    let out = run_in(&scene.site.data, &import, "");
    assert!(out.status.success(), "{}", text(&out.stderr));
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn accepting_a_damaged_disk_seals_no_file_that_it_did_not_lie_on() {
    let scene = Scene::new(Ground::Host, Image::Qcow2, &["--overlay-ok"]);
    let first = scene.site.image("first", Image::Raw, 3);
    let second = scene.image.with_file_name("second.qcow2");
    fs::copy(&scene.image, &second).unwrap();
    let files = [&first, &second].map(|file| file.to_str().unwrap());
    let args = [&["--overlay-ok"], files.as_slice()].concat();
    let both = scene.site.import("both", &args, vec![vec![3; SIZE]; 2]);
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    let group = wire.define("both", &[&both.id]).unwrap();
    let set = wire.take(&group, "with both");
    scene.site.wait_for_journals();
    ended(server);
    // Its operator takes the second disk out.
    let definition = scene.site.data.join("machines").join(&both.id);
    let definition = definition.join("vm.toml");
    let defined = fs::read_to_string(&definition).unwrap();
    let (without, rest) = defined.rsplit_once("[[disk]]").unwrap();
    let other = rest.find("[qemu]").map_or("", |at| &rest[at..]);
    fs::write(&definition, format!("{without}{other}")).unwrap();
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    wire.take(&group, "with one");
    scene.site.wait_for_journals();
    ended(server);
    let victim = scene.victim.to_str().unwrap();
    let rebase = ["rebase", "-u", "-b", victim, "-F", "raw", files[1]];
    run("qemu-img", &rebase);
    let said = scene.doctor(&["--fix", "--yes", "--accept-damaged"]);
    let record = scene.site.data.join("sets").join(&set).join("set.json");
    let record = fs::read_to_string(record).unwrap();
    assert!(!record.contains(victim), "{said}");
    assert!(said.contains(victim), "{said}");
    let shown: serde_json::Value = serde_json::from_str(&record).unwrap();
    let disks = &shown["set"]["members"][0]["disks"];
    assert!(disks[1]["damage"].is_object(), "{record}");
}

/// An access list for user 65534 beside the owner, the group and the rest, as the kernel keeps it.
fn list() -> Vec<u8> {
    let none = u32::MAX;
    let entries = [
        (1_u16, 7_u16, none),
        (2, 7, 65_534),
        (4, 5, none),
        (16, 7, none),
        (32, 5, none),
    ];
    let entry = |(tag, may, of): (u16, u16, u32)| {
        let parts = [
            &tag.to_le_bytes()[..],
            &may.to_le_bytes(),
            &of.to_le_bytes(),
        ];
        parts.concat()
    };
    let entries = entries.into_iter().flat_map(entry);
    2_u32.to_le_bytes().into_iter().chain(entries).collect()
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_folder_of_images_opens_no_clone_to_its_owner() {
    for by_list in [false, true] {
        let scene = Scene::new(Ground::Xfs, Image::Raw, &[]);
        let (mode, folder) = (fs::Permissions::from_mode, scene.image.parent().unwrap());
        fs::set_permissions(&scene.image, mode(0o600)).unwrap();
        match by_list {
            true => setxattr(
                folder,
                "system.posix_acl_default",
                &list(),
                XattrFlags::empty(),
            )
            .unwrap(),
            false => fs::set_permissions(folder, mode(0o2755)).unwrap(),
        }
        let server = scene.site.serve();
        let (_, set) = scene.with_a_set(&server);
        let clones = folder.join(".groupshot");
        let of_set = clones.join(&set);
        let made = fs::read_dir(&of_set).unwrap().map(|it| it.unwrap().path());
        let made: Vec<_> = made.collect();
        assert_eq!(made.len(), 1, "{made:?}");
        for it in [&clones, &of_set, &made[0]] {
            let meta = fs::metadata(it).unwrap();
            let expected = if meta.is_dir() { 0o750 } else { 0o400 };
            assert_eq!(meta.mode() & 0o7777, expected, "{by_list} {it:?}");
            assert_eq!(meta.gid(), 0, "{by_list} {it:?}");
            for name in ["system.posix_acl_default", "system.posix_acl_access"] {
                let kept = getxattr(it, name, &mut [0_u8; 256][..]);
                assert!(kept.is_err(), "{by_list} {it:?} {name}");
            }
        }
    }
}
