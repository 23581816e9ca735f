//! The owner of an image writes into its header what he likes: it says nothing of files of others, and nobody seals what
//! it names.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use rustix::fs::{XattrFlags, getxattr, setxattr};

use super::scene::{Scene, may_run};
use crate::support::site::{Ground, Image};

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
