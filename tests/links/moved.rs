//! Folders that were moved, copied or restored, with something else in the place of a file: `relocate` takes for a file
//! what provably is it, or what its operator has confirmed, and writes into none but that.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::scene::{COMPLETED, Exchange, INVALID_STATE, Scene, Untouched, end, seen};
use crate::support::gate::Gate;
use crate::support::server::{binary, run_in, text};
use crate::support::site::{Ground, Image, SIZE, assert_holds};
use crate::support::tools::run;
use crate::support::wire::Wire;

fn copy(from: &Path, to: &Path) {
    run("cp", &["-a", from.to_str().unwrap(), to.to_str().unwrap()]);
}

fn all(out: &Output) -> String {
    text(&out.stdout) + &text(&out.stderr)
}

fn moved<'a>(from: &'a Path, to: &'a Path) -> [&'a str; 5] {
    let [from, to] = [from, to].map(|p| p.to_str().unwrap());
    ["relocate", "--from", from, "--to", to]
}

/// A set kept as a clone, with no server.
fn cloned() -> (Scene, String, PathBuf) {
    let scene = Scene::new(Ground::Xfs, Image::Raw, &[]);
    let server = scene.site.serve();
    let (wire, set) = scene.with_a_set(&server);
    let kept = wire.shown().unwrap().sets[&set].members[0].disks["disk0"].clone();
    drop((wire, server));
    (scene, set, kept)
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn seals_go_along_where_files_are_the_same_and_copies_are_confirmed() {
    let (scene, set, kept) = cloned();
    let folder = scene.image.parent().unwrap().to_owned();
    let [there, back] = ["there", "back"].map(|name| folder.with_file_name(name));
    let is_whole = |what: &str| {
        let server = scene.site.serve();
        let shown = Wire::new(&server).shown().unwrap();
        assert!(!shown.sets[&set].is_damaged(), "{what}");
        let file = &shown.sets[&set].members[0].disks["disk0"];
        assert_holds(file, &scene.machine.content[0], what);
    };
    fs::rename(&folder, &there).unwrap();
    let args = [&moved(&folder, &there)[..], &["--definitions", "--apply"]].concat();
    let out = run_in(&scene.site.data, &args, "");
    assert!(out.status.success(), "{}", all(&out));
    is_whole("moved");
    copy(&there, &back);
    fs::remove_dir_all(&there).unwrap();
    let args = [&moved(&there, &back)[..], &["--definitions", "--apply"]].concat();
    let out = run_in(&scene.site.data, &args, "");
    let said = all(&out);
    assert_eq!(out.status.code(), Some(1), "{said}");
    let new = back.join(kept.strip_prefix(&folder).unwrap());
    let inode = fs::metadata(&new).unwrap().ino();
    for part in [
        "--accept-copied",
        new.to_str().unwrap(),
        &format!("inode {inode}, not "),
        "of user 0",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let args = [&args[..], &["--accept-copied"]].concat();
    let out = run_in(&scene.site.data, &args, "");
    assert!(out.status.success(), "{}", all(&out));
    is_whole("copied");
}

/// As the second user may do: root's file, in folders of his.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_has_but_the_name_of_a_clone_is_not_taken_for_a_copy() {
    let (scene, set, kept) = cloned();
    let folder = scene.image.parent().unwrap().to_owned();
    let there = folder.with_file_name("there");
    let secret = folder.join("of-root");
    fs::copy(&scene.victim, &secret).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    run(
        "touch",
        &["-r", kept.to_str().unwrap(), secret.to_str().unwrap()],
    );
    copy(&folder, &there);
    fs::rename(&folder, folder.with_file_name("gone")).unwrap();
    let new = there.join(kept.strip_prefix(&folder).unwrap());
    let (of_set, ours) = (new.parent().unwrap(), new.ancestors().nth(2).unwrap());
    scene.other(&[&"mv", &ours, &there.join("aside")]);
    scene.other(&[&"mkdir", &"-p", &of_set]);
    scene.other(&[&"mv", &there.join("of-root"), &new]);
    let before = seen(&new);
    let more = ["--definitions", "--apply", "--accept-copied"];
    let args = [&moved(&folder, &there)[..], &more].concat();
    let out = run_in(&scene.site.data, &args, "");
    let said = all(&out);
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    assert!(wire.shown().unwrap().sets[&set].is_damaged(), "{said}");
    let refused = wire.apply(&set).unwrap();
    assert_eq!(refused.value, INVALID_STATE, "{}", wire.why(&refused));
    assert_eq!(seen(&new), before, "{said}");
}

/// He gives his own frozen image the length and the time of a file of root, and leads its path there, by a link or by
/// taking that file into his folder.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_file_of_another_user_is_not_taken_for_a_copy() {
    for by_link in [true, false] {
        let scene = Scene::new(Ground::Host, Image::Raw, &["--overlay-ok"]);
        let name = scene.image.file_name().unwrap();
        let folder = scene.image.parent().unwrap().to_owned();
        let trap = match by_link {
            true => folder.with_file_name("trap"),
            false => folder.join("trap"),
        };
        fs::create_dir(&trap).unwrap();
        fs::copy(&scene.victim, trap.join(name)).unwrap();
        std::os::unix::fs::chown(&trap, Some(65_534), Some(65_534)).unwrap();
        scene.other(&[&"touch", &"-r", &trap.join(name), &scene.image]);
        let server = scene.site.serve();
        let (_, set) = scene.with_a_set(&server);
        drop(server);
        let data = &scene.site.data;
        fs::rename(data, data.with_file_name("aside")).unwrap();
        copy(&data.with_file_name("aside"), data);
        match by_link {
            true => {
                scene.other(&[&"mv", &folder, &folder.with_file_name("mine")]);
                scene.other(&[&"ln", &"-s", &trap, &folder]);
            }
            false => {
                scene.other(&[&"mv", &scene.image, &folder.join("mine")]);
                scene.other(&[&"mv", &trap.join(name), &scene.image]);
            }
        }
        let here = ["relocate", "--here", "--apply", "--accept-copied"];
        let out = run_in(data, &here, "");
        let said = all(&out);
        assert_eq!(out.status.code(), Some(1), "{by_link}: {said}");
        assert!(said.contains("not as recorded"), "{by_link}: {said}");
        let what = match by_link {
            true => "symbolic link",
            false => "belongs to user 0",
        };
        assert!(said.contains(what), "{by_link}: {said}");
        // Bound without it, the set goes on being told.
        let out = run_in(data, &[&here[..], &["--accept-damaged"]].concat(), "");
        assert!(out.status.success(), "{by_link}: {}", all(&out));
        let server = scene.site.serve();
        let wire = Wire::new(&server);
        let refused = wire.apply(&set).unwrap();
        assert_eq!(refused.value, INVALID_STATE, "{by_link}");
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_takes_the_place_of_a_copy_after_it_was_shown_is_recorded_neither_as_sealed_nor_as_the_image()
 {
    let scene = Scene::new(Ground::Host, Image::Raw, &["--overlay-ok"]);
    let server = scene.site.serve();
    let (_, set) = scene.with_a_set(&server);
    drop(server);
    let (data, image) = (&scene.site.data, &scene.image);
    let [restored, other] = ["restored", "other"].map(|it| image.with_extension(it));
    copy(image, &restored);
    fs::rename(&restored, image).unwrap();
    fs::rename(data, data.with_file_name("aside")).unwrap();
    copy(&data.with_file_name("aside"), data);
    let shown = fs::metadata(image).unwrap().ino();
    let gate = Gate::new();
    let child = Command::new(binary())
        .args(["relocate", "--here", "--apply", "--accept-copied"])
        .arg("--data-dir")
        .arg(data)
        .env("GROUPSHOT_FAILPOINTS", gate.at("here.sealed.before"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    gate.reached();
    copy(image, &other);
    let found = fs::metadata(&other).unwrap().ino();
    assert_ne!(shown, found);
    scene.other(&[&"mv", &"-f", &other, image]);
    gate.open();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{}", all(&out));
    let tops = data
        .join("machines")
        .join(&scene.machine.id)
        .join("tops.json");
    let tops: serde_json::Value = serde_json::from_slice(&fs::read(tops).unwrap()).unwrap();
    assert_ne!(tops["images"]["disk0"]["inode"], found, "{}", all(&out));
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    assert!(wire.shown().unwrap().sets[&set].is_damaged());
    let refused = wire.create(&scene.group(&wire), "two").unwrap();
    assert_eq!(refused.value, INVALID_STATE, "{}", wire.why(&refused));
}

/// Two machines whose images were moved together, by a link if that is so, and exchanged there; how sets of each end.
fn moved_together(by_link: bool, exchanged: bool) -> [(u64, String); 2] {
    let scene = Scene::new(Ground::Host, Image::Raw, &["--overlay-ok"]);
    let folder = scene.image.parent().unwrap().to_owned();
    let [there, linked] = ["there", "linked"].map(|name| folder.with_file_name(name));
    let other = folder.join("second.raw");
    fs::write(&other, vec![8; SIZE]).unwrap();
    std::os::unix::fs::chown(&other, Some(65_534), Some(65_534)).unwrap();
    let args = ["--overlay-ok", other.to_str().unwrap()];
    let second = scene.site.import("second", &args, vec![vec![8; SIZE]]);
    drop(scene.site.serve());
    fs::rename(&folder, &there).unwrap();
    std::os::unix::fs::symlink(&there, &linked).unwrap();
    if exchanged {
        let name = scene.image.file_name().unwrap();
        Exchange::once(&there.join(name), &there.join("second.raw"));
    }
    let to = if by_link { linked } else { there };
    let args = [&moved(&folder, &to)[..], &["--definitions", "--apply"]].concat();
    let out = run_in(&scene.site.data, &args, "");
    assert!(out.status.success(), "{}", all(&out));
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    let ends = [&scene.machine, &second].map(|machine| {
        let group = wire.define(&machine.id, &[&machine.id]).unwrap();
        let answer = wire.create(&group, "one").unwrap();
        match answer.value {
            INVALID_STATE => (answer.value, wire.why(&answer)),
            _ => (end(&wire, &answer, "moved").state, String::new()),
        }
    });
    scene.site.wait_for_journals();
    ends
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn images_that_were_moved_to_where_a_link_leads_are_known_there() {
    for by_link in [false, true] {
        let ends = moved_together(by_link, false);
        assert!(
            ends.iter().all(|end| end.0 == COMPLETED),
            "{by_link}: {ends:?}"
        );
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn images_that_were_exchanged_and_moved_are_not_taken_for_each_other() {
    for by_link in [false, true] {
        let ends = moved_together(by_link, true);
        let refused =
            |end: &(u64, String)| end.0 == INVALID_STATE && end.1.contains("is the image");
        assert!(ends.iter().all(refused), "{by_link}: {ends:?}");
    }
}

/// A machine on an overlay of the second user over a base in a folder that is moved, and an overlay of root over a file
/// of its own.
struct Headed {
    scene: Scene,
    old: PathBuf,
    new: PathBuf,
    /// His folder, and that of root.
    folders: [PathBuf; 2],
}

impl Headed {
    fn new() -> Self {
        let scene = Scene::new(Ground::Host, Image::Raw, &[]);
        let at = |name: &str| scene.site.images.join(name);
        let (old, new, root) = (at("old"), at("new"), at("root"));
        let his = scene.image.parent().unwrap().join("headed");
        for folder in [&old, &root] {
            fs::create_dir(folder).unwrap();
        }
        scene.other(&[&"mkdir", &his]);
        let (base, own) = (old.join("base.raw"), root.join("own.raw"));
        fs::write(&base, vec![5; SIZE]).unwrap();
        fs::write(&own, vec![6; SIZE]).unwrap();
        for (folder, on) in [(&his, &base), (&root, &own)] {
            let file = folder.join("headed.qcow2");
            let [on, file] = [on, &file].map(|p| p.to_str().unwrap());
            let made = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", on, file];
            run("qemu-img", &made);
        }
        let image = his.join("headed.qcow2");
        std::os::unix::fs::chown(&image, Some(65_534), Some(65_534)).unwrap();
        let secret = root.join("headed.qcow2");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let args = ["--overlay-ok", image.to_str().unwrap()];
        scene.site.import("headed", &args, vec![vec![5; SIZE]]);
        drop(scene.site.serve());
        fs::rename(&old, &new).unwrap();
        let folders = [his, root];
        Self {
            scene,
            old,
            new,
            folders,
        }
    }

    fn guarded(&self) -> Untouched {
        seen(&self.folders[1].join("headed.qcow2"))
    }

    fn aside(&self) -> PathBuf {
        self.folders[0].with_file_name("mine")
    }

    /// He puts the folder of root in the place of his, by a link, or the file of root in that of his.
    fn swap(&self, by_link: bool) {
        let [his, root] = &self.folders;
        if by_link {
            self.scene.other(&[&"mv", his, &self.aside()]);
            self.scene.other(&[&"ln", &"-s", root, his]);
        } else {
            let image = his.join("headed.qcow2");
            self.scene.other(&[&"mv", &image, &self.aside()]);
            copy(&root.join("headed.qcow2"), &image);
        }
    }

    fn swap_back(&self, by_link: bool) {
        let his = &self.folders[0];
        let at = if by_link {
            his.clone()
        } else {
            his.join("headed.qcow2")
        };
        fs::remove_file(&at).unwrap();
        fs::rename(self.aside(), at).unwrap();
    }

    fn at_stake(&self, by_link: bool) -> Vec<Untouched> {
        let own = self.folders[0].join("headed.qcow2");
        let also = (!by_link).then(|| seen(&own));
        [self.guarded()].into_iter().chain(also).collect()
    }

    fn command(&self, orders: &str, begun: bool) -> Command {
        let mut command = Command::new(binary());
        match begun {
            true => command.arg("relocate"),
            false => command.args(moved(&self.old, &self.new)),
        };
        command
            .args(["--apply", "--data-dir"])
            .arg(&self.scene.site.data)
            .env("GROUPSHOT_FAILPOINTS", orders)
            .stdin(Stdio::null());
        command
    }

    /// The header of his image names the new place.
    fn assert_done(&self, file: &Path, what: &str) {
        let out = Command::new("qemu-img")
            .args(["info", "-U", file.to_str().unwrap()])
            .output()
            .unwrap();
        let said = all(&out);
        let base = self.new.join("base.raw");
        assert!(said.contains(base.to_str().unwrap()), "{what}: {said}");
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_header_is_written_into_the_file_that_was_judged_and_held() {
    for by_link in [true, false] {
        let headed = Headed::new();
        // Before anything is looked at.
        headed.swap(by_link);
        let before = headed.at_stake(by_link);
        let out = headed.command("", false).output().unwrap();
        let said = all(&out);
        assert_eq!(headed.at_stake(by_link), before, "{said}");
        assert!(!said.contains("qemu-img"), "{said}");
        headed.swap_back(by_link);
        // Once it is planned: what is written is what is held.
        let gate = Gate::new();
        let mut command = headed.command(&gate.at("relocate.planned.after"), false);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = child.spawn().unwrap();
        gate.reached();
        headed.swap(by_link);
        let before = headed.at_stake(by_link);
        gate.open();
        let out = child.wait_with_output().unwrap();
        let said = all(&out);
        assert_eq!(headed.at_stake(by_link), before, "{by_link}: {said}");
        let his = match by_link {
            true => headed.aside().join("headed.qcow2"),
            false => headed.aside(),
        };
        headed.assert_done(&his, &said);
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn who_dies_in_a_relocation_writes_into_no_file_that_somebody_put_there_meanwhile() {
    for by_link in [true, false] {
        let headed = Headed::new();
        let orders = "relocate.planned.after=abort";
        let out = headed.command(orders, false).output().unwrap();
        assert_eq!(out.status.code(), None, "{}", all(&out));
        headed.swap(by_link);
        let before = headed.at_stake(by_link);
        let out = headed.command("", true).output().unwrap();
        let said = all(&out);
        assert_eq!(out.status.code(), Some(1), "{by_link}: {said}");
        assert_eq!(headed.at_stake(by_link), before, "{by_link}: {said}");
        headed.swap_back(by_link);
        let out = headed.command("", true).output().unwrap();
        assert!(out.status.success(), "{by_link}: {}", all(&out));
        headed.assert_done(&headed.folders[0].join("headed.qcow2"), "gone on");
    }
}
