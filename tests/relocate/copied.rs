//! A data directory that was copied, restored or moved to another file system is another directory: nothing writes to
//! it before somebody has said what it is, and a copy never takes from the original.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use groupshot::server::HERE_FAILPOINTS;

use super::{assert_linked, ok};
use crate::support::server::{Options, Server, binary, run_in, text};
use crate::support::site::{Ground, Image, Machine, Site, assert_holds};
use crate::support::tools::{self};
use crate::support::wire::Wire;

const SIGKILL: i32 = 9;

/// A machine on an image with a backing file, over overlays, with a set, and what the set must hold.
struct Original {
    site: Site,
    web: Machine,
    group: String,
    set: String,
    captured: Vec<u8>,
}

impl Original {
    fn new() -> Self {
        let site = Site::new(Ground::Host);
        let mut web = site.machine("web", &[Image::Chain], 1);
        let server = site.serve();
        let wire = Wire::new(&server);
        let group = wire.define("all", &[&web.id]).unwrap();
        let set = wire.take(&group, "one");
        site.wait_for_journals();
        let captured = web.content[0].clone();
        let top = site.top(&web, 0);
        web.write(&top, 0, 65536, 65536, 17);
        drop((wire, server));
        Self {
            site,
            web,
            group,
            set,
            captured,
        }
    }

    /// Set and active disk, as this server shows them, hold what they must.
    fn assert_whole(&self, server: &Server, what: &str) {
        let shown = Wire::new(server).shown().unwrap();
        let set = &shown.sets[&self.set];
        assert!(!set.is_damaged(), "{what}: {set:?}");
        let folder = server.data.canonicalize().unwrap();
        let member = &set.members[0];
        assert!(member.definition.starts_with(&folder), "{what}: {member:?}");
        assert_holds(&member.disks["disk0"], &self.captured, what);
        self.assert_active(server, what);
    }

    fn assert_active(&self, server: &Server, what: &str) {
        let shown = Wire::new(server).shown().unwrap();
        let top = &shown.tops[&(self.web.id.clone(), "disk0".to_owned())];
        assert_holds(top, &self.web.content[0], what);
    }

    fn destroy(&self, server: &Server) {
        let wire = Wire::new(server);
        let gone = wire.destroy(&self.set).unwrap();
        assert_eq!(wire.end(&gone.job.unwrap()).unwrap().state, 7);
    }
}

fn copy(from: &Path, to: &Path) {
    tools::run("cp", &["-a", from.to_str().unwrap(), to.to_str().unwrap()]);
}

fn serve(data: &Path) -> Result<Server, String> {
    Server::try_with(&Options {
        data: Some(data),
        ..Options::default()
    })
}

/// Refused with exit code 3, in one line that names the way out.
fn assert_refused(out: &Output) -> String {
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(3), "{said}");
    assert!(said.contains("directory.json"), "{said}");
    assert!(said.contains("groupshot relocate"), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    said
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_copied_data_directory_is_refused_by_everything_that_writes() {
    let original = Original::new();
    let data = &original.site.data;
    let dup = data.with_file_name("dup");
    copy(data, &dup);
    let image = original.site.image("other", Image::Raw, 3);
    let before = original.site.tree();
    let end = serve(&dup).map(drop).unwrap_err();
    assert!(end.contains("exit status: 3"), "{end}");
    assert!(end.contains("groupshot relocate"), "{end}");
    let writes: [&[&str]; 6] = [
        &["rescue"],
        &["doctor", "--fix", "--yes"],
        &["vm", "import", "other", image.to_str().unwrap()],
        &["vm", "remove", "web"],
        &["user", "add", "ann", "--role", "reader", "--password-stdin"],
        &["user", "remove", "admin"],
    ];
    for args in writes {
        let said = assert_refused(&run_in(&dup, args, "correct horse"));
        let moved = format!("--from {} --apply", data.display());
        assert!(said.contains(&moved), "{args:?}: {said}");
    }
    // Who only reads is told.
    let reads: [(&[&str], &str); 3] = [
        (&["vm", "list"], "web"),
        (&["vm", "show", "web"], "web"),
        (&["user", "list"], "admin"),
    ];
    for (args, shown) in reads {
        let read = run_in(&dup, args, "");
        assert!(ok(&read).contains(shown), "{args:?}");
        assert!(text(&read.stderr).contains("directory.json"), "{args:?}");
    }
    // A machine that is started by such a path writes what the original runs on.
    assert_refused(&run_in(&dup, &["vm", "path", "web"], ""));
    assert_refused(&run_in(&dup, &["history"], ""));
    let found = run_in(&dup, &["doctor"], "");
    let found = text(&found.stdout);
    assert!(found.contains("data-directory-copied"), "{found}");
    assert_eq!(found.lines().count(), 2, "and nothing else: {found}");
    // Without its database, it is not made again either.
    let database = dup.join("groupshot.db");
    let kept = dup.with_file_name("kept.db");
    fs::rename(&database, &kept).unwrap();
    let files = || fs::read_dir(&dup).unwrap().count();
    let there = files();
    let said = assert_refused(&run_in(&dup, &["doctor", "--rebuild", "--yes"], ""));
    assert!(said.contains(&format!("{}", data.display())), "{said}");
    assert_eq!(files(), there, "nothing is made");
    fs::rename(&kept, &database).unwrap();
    // Its paths lead to the original.
    let told = run_in(
        &dup,
        &["relocate", "--here", "--apply", "--accept-copied"],
        "",
    );
    let said = text(&told.stderr);
    assert_eq!(told.status.code(), Some(3), "{said}");
    assert!(
        said.contains(&format!("data directory {}", data.display())),
        "{said}"
    );
    assert_eq!(original.site.tree(), before);
    fs::remove_file(image).unwrap();
    original.assert_whole(&original.site.serve(), "the original");
    assert_eq!(serve(&dup).map(drop).unwrap_err(), end, "still");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_copy_that_is_bound_and_its_original_take_nothing_from_each_other() {
    let original = Original::new();
    let (data, images) = (original.site.data.clone(), original.site.images.clone());
    let (dup, other) = (data.with_file_name("dup"), images.with_file_name("others"));
    copy(&data, &dup);
    let before = original.site.tree();
    let from = [
        "relocate",
        "--from",
        data.to_str().unwrap(),
        "--to",
        dup.to_str().unwrap(),
    ];
    let shared = run_in(&dup, &[&from[..], &["--apply"]].concat(), "");
    let said = text(&shared.stderr);
    assert_eq!(shared.status.code(), Some(3), "{said}");
    let image = original.web.images[0].display().to_string();
    assert!(said.contains(&image) && said.contains("original"), "{said}");
    assert!(serve(&dup).is_err(), "nothing is written");
    assert_eq!(original.site.tree(), before);

    copy(&images, &other);
    let both = [
        "--from",
        images.to_str().unwrap(),
        "--to",
        other.to_str().unwrap(),
    ];
    let all = [&from[..], &both, &["--definitions", "--apply"]].concat();
    let unconfirmed = run_in(&dup, &all, "");
    let said = text(&unconfirmed.stderr);
    assert_eq!(unconfirmed.status.code(), Some(1), "{said}");
    assert!(said.contains("--accept-copied"), "{said}");
    let told = ok(&run_in(
        &dup,
        &[&all[..], &["--accept-copied"]].concat(),
        "",
    ));
    assert!(told.contains("written"), "{told}");
    // By its link nobody starts the machine of the copy from what the original runs on.
    let active = original.site.top(&original.web, 0);
    assert_linked(&data, &original.web, 0, &active);
    let copied = dup.join(active.strip_prefix(&data).unwrap());
    assert_linked(&dup, &original.web, 0, &copied);
    let again = ok(&run_in(&dup, &["relocate", "--here"], ""));
    assert!(again.contains("bound here already"), "{again}");
    for (first, second) in [(&data, &dup), (&dup, &data)] {
        let name = first.display().to_string();
        let mut server = serve(first).unwrap();
        original.assert_active(&server, &name);
        if first == &data {
            original.assert_whole(&server, &name);
            original.destroy(&server);
            original.assert_active(&server, &name);
        }
        server.stop();
        let mut server = serve(second).unwrap();
        original.assert_active(&server, &name);
        if second == &dup {
            original.assert_whole(&server, &name);
            original.destroy(&server);
        }
        server.stop();
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_directory_that_was_moved_to_another_file_system_is_bound_by_its_relocation() {
    let mut original = Original::new();
    let old = original.site.data.clone();
    let new = old.with_file_name("new");
    copy(&old, &new);
    fs::remove_dir_all(&old).unwrap();
    original.site.data.clone_from(&new);
    assert!(serve(&new).is_err());
    let from = ["relocate", "--from", old.to_str().unwrap(), "--apply"];
    ok(&run_in(&new, &from, ""));
    let server = serve(&new).unwrap();
    original.assert_whole(&server, "moved");
    Wire::new(&server).take(&original.group, "later");
}

/// The original with its data directory put back from a copy.
fn restored() -> (Original, PathBuf) {
    let original = Original::new();
    let data = original.site.data.clone();
    let aside = data.with_file_name("aside");
    fs::rename(&data, &aside).unwrap();
    copy(&aside, &data);
    (original, data)
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_restored_directory_is_bound_once_every_copied_file_is_confirmed() {
    let (original, data) = restored();
    assert!(
        serve(&data)
            .map(drop)
            .unwrap_err()
            .contains("exit status: 3")
    );
    let apply = ["relocate", "--here", "--apply"];
    let set = format!("set `one` {}, machine web, disk disk0", original.set);
    // A second set keeps an overlay in the directory: that one is a copy now.
    let told = ok(&run_in(&data, &["relocate", "--here"], ""));
    assert!(told.contains("say --apply"), "{told}");
    ok(&run_in(&data, &apply, ""));
    let mut server = serve(&data).unwrap();
    original.assert_whole(&server, "restored");
    let wire = Wire::new(&server);
    let second = wire.take(&original.group, "two");
    original.site.wait_for_journals();
    server.stop();
    let aside = data.with_file_name("aside too");
    fs::rename(&data, &aside).unwrap();
    copy(&aside, &data);
    let told = ok(&run_in(&data, &["relocate", "--here"], ""));
    let copied = set
        .replace("`one`", "`two`")
        .replace(&original.set, &second);
    assert!(told.contains(&copied) && told.contains("inode"), "{told}");
    let refused = run_in(&data, &apply, "");
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("--accept-copied"));
    assert!(serve(&data).is_err(), "nothing is written");
    ok(&run_in(
        &data,
        &[&apply[..], &["--accept-copied"]].concat(),
        "",
    ));
    let server = serve(&data).unwrap();
    original.assert_whole(&server, "restored again");
    let shown = Wire::new(&server).shown().unwrap();
    assert!(!shown.sets[&second].is_damaged(), "it was confirmed");
}

/// `tops.json` records the inodes of images, the records of sets those of frozen files: a copy has others.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_copy_of_directory_and_images_is_used_as_the_original_was() {
    let (mut original, data) = restored();
    let images = original.site.images.clone();
    let aside = images.with_file_name("images aside");
    fs::rename(&images, &aside).unwrap();
    copy(&aside, &images);
    let apply = ["relocate", "--here", "--apply", "--accept-copied"];
    let told = ok(&run_in(&data, &apply, ""));
    let image = original.web.images[0].display().to_string();
    assert!(told.contains(&image) && told.contains("inode"), "{told}");
    let mut server = serve(&data).unwrap();
    original.assert_whole(&server, "copied");
    let wire = Wire::new(&server);
    let second = wire.take(&original.group, "two");
    original.site.wait_for_journals();
    let captured = original.web.content[0].clone();
    let top = original.site.top(&original.web, 0);
    original.web.write(&top, 0, 131_072, 4096, 18);
    // Its overlay goes into the image.
    original.destroy(&server);
    original.site.wait_for_journals();
    original.assert_active(&server, "merged");
    let shown = wire.shown().unwrap();
    let set = &shown.sets[&second];
    assert!(!set.is_damaged(), "{set:?}");
    let kept = &set.members[0].disks["disk0"];
    assert_eq!(kept, &original.web.images[0]);
    assert_holds(kept, &captured, "merged");
    let applied = wire.apply(&second).unwrap();
    assert_eq!(wire.end(&applied.job.unwrap()).unwrap().state, 7);
    original.site.wait_for_journals();
    assert_holds(&original.site.top(&original.web, 0), &captured, "applied");
    server.stop();
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn binding_that_is_killed_at_any_step_is_done_again() {
    for point in HERE_FAILPOINTS {
        let (original, data) = restored();
        let end = Command::new(binary())
            .args([
                "relocate",
                "--here",
                "--apply",
                "--accept-copied",
                "--data-dir",
            ])
            .arg(&data)
            .env("GROUPSHOT_FAILPOINTS", format!("{point}=abort"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(end.status.signal(), Some(SIGKILL), "{point}: {end:?}");
        ok(&run_in(
            &data,
            &["relocate", "--here", "--apply", "--accept-copied"],
            "",
        ));
        original.assert_whole(&serve(&data).unwrap(), point);
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_directory_without_an_id_is_an_old_one_and_gets_one_at_its_first_start() {
    let original = Original::new();
    let id = original.site.data.join("directory.json");
    let first = fs::read_to_string(&id).unwrap();
    fs::remove_file(&id).unwrap();
    ok(&run_in(&original.site.data, &["rescue"], ""));
    assert!(!id.exists(), "only a server gives one");
    let mut server = original.site.serve();
    original.assert_whole(&server, "an old directory");
    server.stop();
    let given = fs::read_to_string(&id).unwrap();
    assert_ne!(given, first);
    drop(original.site.serve());
    assert_eq!(fs::read_to_string(&id).unwrap(), given, "once");
    // What is not as it was written tells nothing.
    fs::write(&id, given.replace("inode", "Inode")).unwrap();
    assert_refused(&run_in(&original.site.data, &["rescue"], ""));
    ok(&run_in(
        &original.site.data,
        &["relocate", "--here", "--apply"],
        "",
    ));
    original.assert_whole(&original.site.serve(), "mended");
}
