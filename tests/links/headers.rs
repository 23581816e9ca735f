//! The owner of an image writes into its header what he likes: it says nothing of files of others, and nobody seals what
//! it names.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use rustix::fs::{XattrFlags, getxattr, setxattr};

use super::scene::{Scene, may_run};
use crate::support::server::Server;
use crate::support::site::{Ground, Image, SIZE};
use crate::support::tools::run;
use crate::support::wire::Wire;

fn ended(mut server: Server) {
    server.kill();
}

#[test]
fn accepting_a_damaged_disk_seals_no_file_that_it_did_not_lie_on() {
    if !may_run("headers that name files of others, and repairs") {
        return;
    }
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
fn a_folder_of_images_opens_no_clone_to_its_owner() {
    if !may_run("folders that hand on a group and access lists") {
        return;
    }
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
