//! Images that are imported through a symbolic link: the link stays, and what it leads to is what is captured and
//! put back.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::support::server::{run_in, text};
use crate::support::site::{Ground, Image, Machine, SIZE, Site, assert_holds};
use crate::support::wire::{STARTED, Wire};

const COMPLETED: u64 = 7;
const INVALID_STATE: u64 = 5;

/// A machine whose image is named by a link.
struct Linked {
    site: Site,
    machine: Machine,
    link: PathBuf,
    real: PathBuf,
    group: String,
}

impl Linked {
    /// The link lies in `folder`, the image in a folder of its own on the ground.
    fn new(ground: Ground, kind: Image, folder: impl Fn(&Site) -> PathBuf, more: &[&str]) -> Self {
        let site = Site::new(ground);
        let made = site.image("web", kind, 1);
        let name = made.file_name().unwrap().to_owned();
        let pool = site.images.join("pool");
        fs::create_dir(&pool).unwrap();
        let (real, link) = (pool.join(&name), folder(&site).join(&name));
        if kind == Image::Chain {
            let base = "web-base.raw";
            fs::rename(site.images.join(base), pool.join(base)).unwrap();
        }
        fs::rename(made, &real).unwrap();
        symlink(&real, &link).unwrap();
        if kind == Image::Chain {
            symlink(
                pool.join("web-base.raw"),
                link.with_file_name("web-base.raw"),
            )
            .unwrap();
        }
        let args = [more, &[link.to_str().unwrap()]].concat();
        let machine = site.import("web", &args, vec![vec![1; SIZE]]);
        let server = site.serve();
        let group = Wire::new(&server).define("all", &[&machine.id]).unwrap();
        Self {
            site,
            machine,
            link,
            real,
            group,
        }
    }

    /// The machine writes through the link, as whoever starts it by its definition does.
    fn writes(&mut self, byte: u8) {
        let link = self.link.clone();
        self.machine
            .write(&link, 0, usize::from(byte) * 4096, 4096, byte);
    }

    fn take(&self, name: &str) -> (String, PathBuf) {
        let server = self.site.serve();
        let wire = Wire::new(&server);
        let set = wire.take(&self.group, name);
        self.site.wait_for_journals();
        let kept = wire.shown().unwrap().sets[&set].members[0].disks["disk0"].clone();
        (set, kept)
    }

    fn apply(&self, set: &str) {
        let server = self.site.serve();
        let wire = Wire::new(&server);
        let applied = wire.apply(set).unwrap();
        assert_eq!(applied.value, STARTED, "{}", wire.why(&applied));
        let job = wire.end(&applied.job.unwrap()).unwrap();
        assert_eq!(job.state, COMPLETED, "{job:?}");
        self.site.wait_for_journals();
    }

    fn destroy(&self, set: &str) {
        let server = self.site.serve();
        let wire = Wire::new(&server);
        let gone = wire.destroy(set).unwrap();
        assert_eq!(gone.value, STARTED, "{}", wire.why(&gone));
        assert_eq!(wire.end(&gone.job.unwrap()).unwrap().state, COMPLETED);
        self.site.wait_for_journals();
    }

    /// The link leads where it led, where it leads is still the active file, and both names hold `content`.
    fn assert_in_place(&self, content: &[u8], what: &str) {
        assert_eq!(fs::read_link(&self.link).unwrap(), self.real, "{what}");
        assert_eq!(self.site.top(&self.machine, 0), self.real, "{what}");
        assert_holds(&self.link, content, what);
        assert_holds(&self.real, content, what);
    }

    fn doctor(&self) -> String {
        let out = run_in(&self.site.data, &["doctor"], "");
        let said = text(&out.stdout) + &text(&out.stderr);
        assert_eq!(out.status.code(), Some(0), "{said}");
        said
    }
}

fn images(site: &Site) -> PathBuf {
    site.images.clone()
}

/// On the host's file system, not on that of the images.
fn elsewhere(site: &Site) -> PathBuf {
    site.data.parent().unwrap().to_owned()
}

/// Writes, takes, writes, applies; then another set of what is written through the link, and all of it goes.
fn is_captured_and_put_back(mut it: Linked) {
    it.writes(2);
    let first = it.machine.content[0].clone();
    let (one, kept) = it.take("one");
    assert!(kept.starts_with(it.real.parent().unwrap()), "{kept:?}");
    it.writes(3);
    it.apply(&one);
    it.assert_in_place(&first, "applied");
    it.machine.content[0].clone_from(&first);
    it.writes(4);
    let second = it.machine.content[0].clone();
    let (two, kept) = it.take("two");
    assert_holds(&kept, &second, "captured through the link");
    it.apply(&one);
    it.assert_in_place(&first, "applied again");
    it.apply(&two);
    it.assert_in_place(&second, "the later one applied");
    assert!(!it.doctor().contains("orphan"));
    it.destroy(&one);
    it.destroy(&two);
    it.assert_in_place(&second, "all sets destroyed");
    nothing_is_left(&it.real.with_file_name(".groupshot"));
}

/// Not even a folder of a set.
fn nothing_is_left(folder: &Path) {
    let left = fs::read_dir(folder).into_iter().flatten();
    let left: Vec<_> = left.map(|e| e.unwrap().path()).collect();
    assert_eq!(left, [] as [PathBuf; 0]);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_image_behind_a_link_is_replaced_where_it_lies() {
    for ground in [Ground::Xfs, Ground::Btrfs] {
        for kind in [Image::Raw, Image::Qcow2, Image::Chain] {
            is_captured_and_put_back(Linked::new(ground, kind, images, &[]));
        }
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_link_on_another_file_system_than_its_image_does_not_matter() {
    is_captured_and_put_back(Linked::new(Ground::Xfs, Image::Qcow2, elsewhere, &[]));
}

/// As a version did that put the clone beside the link.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_set_whose_clone_lies_beside_the_link_is_put_back_in_place_too() {
    let mut it = Linked::new(Ground::Xfs, Image::Qcow2, images, &[]);
    it.writes(2);
    let first = it.machine.content[0].clone();
    let (one, kept) = it.take("one");
    let (from, to) = (
        it.real.with_file_name(".groupshot"),
        it.link.with_file_name(".groupshot"),
    );
    if kept.starts_with(&from) {
        fs::rename(&from, &to).unwrap();
        let args = ["relocate", "--from", from.to_str().unwrap(), "--to"];
        let args = [&args[..], &[to.to_str().unwrap(), "--apply"]].concat();
        let out = run_in(&it.site.data, &args, "");
        assert!(out.status.success(), "{}", text(&out.stderr));
    }
    it.writes(3);
    it.apply(&one);
    it.assert_in_place(&first, "applied");
    it.machine.content[0].clone_from(&first);
    it.writes(4);
    let second = it.machine.content[0].clone();
    let (two, kept) = it.take("two");
    assert_holds(&kept, &second, "captured through the link");
    it.apply(&one);
    it.apply(&two);
    it.assert_in_place(&second, "both applied");
    assert!(!it.doctor().contains("orphan"));
    it.destroy(&one);
    it.destroy(&two);
    it.assert_in_place(&second, "all sets destroyed");
    nothing_is_left(&from);
    nothing_is_left(&to);
}

/// The imported image is the base of the overlay, under the name of the link.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_image_behind_a_link_is_captured_by_an_overlay_and_merged_again() {
    let mut it = Linked::new(Ground::Host, Image::Qcow2, images, &["--overlay-ok"]);
    it.writes(2);
    let first = it.machine.content[0].clone();
    let (one, _) = it.take("one");
    let overlay = it.site.top(&it.machine, 0);
    assert_ne!(overlay, it.real);
    it.machine.write(&overlay, 0, 0, 4096, 3);
    let second = it.machine.content[0].clone();
    let (two, _) = it.take("two");
    it.apply(&one);
    assert_holds(&it.site.top(&it.machine, 0), &first, "applied");
    it.apply(&two);
    assert_holds(&it.site.top(&it.machine, 0), &second, "the later one");
    assert_holds(&it.real, &first, "the base");
    it.destroy(&two);
    it.destroy(&one);
    assert_holds(&it.site.top(&it.machine, 0), &second, "all destroyed");
    assert_eq!(fs::read_link(&it.link).unwrap(), it.real);
    assert!(!it.doctor().contains("orphan"));
}

/// Another machine lies on the image since: it must stay as it is.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_image_that_cannot_be_replaced_at_its_path_is_not_exchanged_for_another() {
    let site = Site::new(Ground::Xfs);
    let image = site.image("web", Image::Raw, 1);
    let mut machine = site.import("web", &[image.to_str().unwrap()], vec![vec![1; SIZE]]);
    let server = site.serve();
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&machine.id]).unwrap();
    let set = wire.take(&group, "one");
    site.wait_for_journals();
    machine.write(&image, 0, 0, 4096, 2);
    let above = on_it(&site, &machine, &image);
    let before = site.tree();
    let refused = wire.apply(&set).unwrap();
    let why = wire.why(&refused);
    assert_eq!(refused.value, INVALID_STATE, "{why}");
    for part in ["web", "disk0", image.to_str().unwrap(), "overlay_ok"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    assert!(site.tree() == before, "nothing was done");
    fs::remove_file(above).unwrap();
}

/// A second machine whose definition names an overlay over the image.
fn on_it(site: &Site, machine: &Machine, image: &Path) -> PathBuf {
    let above = site.images.join("above.qcow2");
    let args = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b"];
    let args = [
        &args[..],
        &[image.to_str().unwrap(), above.to_str().unwrap()],
    ]
    .concat();
    crate::support::tools::run("qemu-img", &args);
    let other = site.image("other", Image::Qcow2, 1);
    let other = site.import("other", &[other.to_str().unwrap()], Vec::new());
    let file = |id: &str| site.data.join("machines").join(id).join("vm.toml");
    let defined = fs::read_to_string(file(&other.id)).unwrap();
    let named = other.images[0].to_str().unwrap();
    assert_ne!(machine.id, other.id);
    fs::write(
        file(&other.id),
        defined.replace(named, above.to_str().unwrap()),
    )
    .unwrap();
    let server = run_in(&site.data, &["doctor"], "");
    assert!(!text(&server.stdout).contains("path-idle"), "{server:?}");
    above
}

#[test]
fn an_image_that_was_exchanged_for_a_link_is_one_finding() {
    let site = Site::new(Ground::Host);
    let machine = site.machine("web", &[Image::Raw], 1);
    let other = site.image("other", Image::Raw, 2);
    let (image, away) = (&machine.images[0], site.images.join("away"));
    for to in [other.as_path(), Path::new("/nowhere")] {
        fs::rename(image, &away).unwrap();
        symlink(to, image).unwrap();
        let out = run_in(&site.data, &["--json", "doctor"], "");
        let told: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(told["findings"].as_array().unwrap().len(), 1, "{told}");
        fs::remove_file(image).unwrap();
        fs::rename(&away, image).unwrap();
    }
}
