//! A link above an image leads to another file system, where a file of the same name has the same inode number.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::scene::{COMPLETED, Scene, assert_refused, end, seen};
use crate::support::gate::Gate;
use crate::support::server::{Options, Server};
use crate::support::site::{Ground, Image, SIZE, assert_holds};
use crate::support::tools::Mount;
use crate::support::wire::{STARTED, Wire};

/// A file of root on `mount` that has this name and inode number.
fn twin(mount: &Mount, of: &Path) -> PathBuf {
    let wanted = fs::metadata(of).unwrap().ino();
    let trap = mount.path().join("trap");
    // A file system of the same make gives the same numbers, in one of its parts.
    for part in 0..16 {
        let folder = mount.path().join(["", "1", "2", "3"][part % 4]);
        fs::create_dir_all(&folder).unwrap();
        for number in 0..64 {
            let number = format!("{part}-{number}");
            let file = folder.join(number);
            fs::write(&file, "").unwrap();
            if fs::metadata(&file).unwrap().ino() == wanted {
                fs::create_dir(&trap).unwrap();
                let twin = trap.join(of.file_name().unwrap());
                fs::write(&file, vec![9; SIZE]).unwrap();
                fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
                fs::rename(&file, &twin).unwrap();
                return twin;
            }
        }
    }
    panic!("no file has the number {wanted}");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_inode_number_on_another_file_system_is_no_proof() {
    let mut scene = Scene::new(Ground::Xfs, Image::Raw, &["--overlay-ok"]);
    let mount = Mount::file_system("xfs");
    let twin = twin(&mount, &scene.image);
    let folder = scene.image.parent().unwrap().to_owned();
    let aside = folder.with_file_name("aside");
    let swap = |scene: &Scene| {
        scene.other(&[&"mv", &folder, &aside]);
        scene.other(&[&"ln", &"-s", &twin.parent().unwrap(), &folder]);
    };
    let swap_back = || {
        fs::remove_file(&folder).unwrap();
        fs::rename(&aside, &folder).unwrap();
    };
    let before = seen(&twin);
    let gate = Gate::new();
    // Nothing is cloned, so an overlay lies on the image.
    let config = scene.site.configuration("[snapshot]\nclone_extents = 0\n");
    let args = ["--config", config.to_str().unwrap()];
    let server = Server::with(&Options {
        args: &args,
        env: &[("GROUPSHOT_FAILPOINTS", &gate.at("destroy.merge.before"))],
        data: Some(&scene.site.data),
        ..Options::default()
    });
    let wire = Wire::new(&server);
    let group = scene.group(&wire);
    swap(&scene);
    let refused = wire.create(&group, "none").unwrap();
    assert_refused(&wire, &refused, &scene.image, "captured");
    swap_back();
    let set = wire.take(&group, "one");
    scene.site.wait_for_journals();
    let top = scene.site.top(&scene.machine, 0);
    assert_ne!(top, scene.image);
    scene.writes(7);
    let gone = wire.destroy(&set).unwrap();
    assert_eq!(gone.value, STARTED, "{}", wire.why(&gone));
    gate.reached();
    swap(&scene);
    gate.open();
    let job = end(&wire, &gone, "merged");
    assert_eq!(job.state, COMPLETED, "{job:?}");
    scene.site.wait_for_journals();
    assert!(seen(&twin) == before, "{job:?}");
    swap_back();
    let top = scene.site.top(&scene.machine, 0);
    assert_holds(&top, &scene.machine.content[0], "put back");
    // What a set keeps is not taken from there either.
    let set = wire.take(&group, "two");
    scene.site.wait_for_journals();
    swap(&scene);
    let refused = wire.apply(&set).unwrap();
    assert_refused(&wire, &refused, &scene.image, "applied");
    assert!(seen(&twin) == before, "applied");
}
