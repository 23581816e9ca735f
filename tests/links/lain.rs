//! An image on which a machine lies whose own chain is refused, or cannot be read: it is replaced by no apply, wherever it
//! was moved to.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use super::chain::over_a_base;
use super::scene::{COMPLETED, Scene, end};
use crate::support::server::{run_in, text};
use crate::support::site::{Ground, Image, SIZE, assert_holds};
use crate::support::wire::Wire;

fn accept(scene: &Scene, name: &str) {
    let accept = ["vm", "set", name, "--accept-image", "--yes"];
    let out = run_in(&scene.site.data, &accept, "");
    assert!(out.status.success(), "{name}: {}", text(&out.stderr));
}

/// How `db` comes to stand elsewhere than what is recorded of the image on it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moved {
    /// A link leads to it.
    ByLink,
    /// Nothing stands in its old place, and its definition names the new one.
    Away,
    /// It is a copy on another file system, to which a link of root leads.
    Copied,
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn no_apply_replaces_an_image_on_which_one_lies_that_is_refused() {
    for moved in [Moved::ByLink, Moved::Away, Moved::Copied] {
        let scene = Scene::new(Ground::Xfs, Image::Qcow2, &[]);
        let folder = scene.site.images.join("of-db");
        let to = match moved {
            Moved::Copied => scene.site.images.join("copies/of-db"),
            _ => scene.site.images.join("moved"),
        };
        fs::create_dir(&folder).unwrap();
        let base = folder.join("db.raw");
        fs::rename(scene.site.image("db", Image::Raw, 5), &base).unwrap();
        let args = ["--overlay-ok", base.to_str().unwrap()];
        let db = scene.site.import("db", &args, vec![vec![5; SIZE]]);
        let rebase: [&dyn AsRef<std::ffi::OsStr>; 8] = [
            &"qemu-img",
            &"rebase",
            &"-u",
            &"-b",
            &base,
            &"-F",
            &"raw",
            &scene.image,
        ];
        scene.other(&rebase);
        accept(&scene, "web");
        if moved == Moved::Copied {
            // Another file of the same file system is no less another one.
            fs::create_dir(to.parent().unwrap()).unwrap();
            fs::create_dir(&to).unwrap();
            fs::copy(&base, to.join("db.raw")).unwrap();
            fs::rename(&folder, folder.with_extension("away")).unwrap();
        } else {
            fs::rename(&folder, &to).unwrap();
        }
        match moved {
            Moved::ByLink | Moved::Copied => symlink(&to, &folder).unwrap(),
            Moved::Away => {
                let definition = scene.site.data.join("machines").join(&db.id);
                let definition = definition.join("vm.toml");
                let text = fs::read_to_string(&definition).unwrap();
                let named = |at: &Path| at.to_str().unwrap().to_owned();
                let text = text.replace(&named(&folder), &named(&to));
                fs::write(&definition, text).unwrap();
            }
        }
        accept(&scene, "db");
        let server = scene.site.serve();
        let wire = Wire::new(&server);
        let set = wire.take(&wire.define("db", &[&db.id]).unwrap(), "of db");
        scene.site.wait_for_journals();
        let image = to.join("db.raw");
        let number = |file: &Path| fs::metadata(file).unwrap().ino();
        let before = number(&image);
        let job = end(&wire, &wire.apply(&set).unwrap(), "applied");
        assert_eq!(job.state, COMPLETED, "{moved:?} {job:?}");
        scene.site.wait_for_journals();
        assert_eq!(number(&image), before, "{moved:?}");
        let top = scene.site.top(&db, 0);
        assert_ne!(top, image, "{moved:?}");
        assert_holds(&top, &db.content[0], "applied");
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn no_import_takes_a_base_that_was_moved_from_under_an_image() {
    let (scene, base) = over_a_base();
    let moved = base.with_file_name("moved.raw");
    fs::rename(&base, &moved).unwrap();
    let import = [
        "vm",
        "import",
        "--overlay-ok",
        "new",
        moved.to_str().unwrap(),
    ];
    let out = run_in(&scene.site.data, &import, "");
    let told = text(&out.stderr);
    assert!(!out.status.success(), "{told}");
    assert!(told.contains("web-2"), "{told}");
}
