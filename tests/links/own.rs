//! Something else stands in the place of a file or folder of the data directory, into which somebody else may write.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::scene::{Scene, seen};
use crate::support::server::{Options, Server, run_in, text};
use crate::support::site::{Ground, Image};
use crate::support::tools::run;
use crate::support::wire::{Job, Wire};

/// A data directory in which everybody may rename.
fn open_to_all() -> Scene {
    let scene = Scene::new(Ground::Host, Image::Raw, &["--overlay-ok"]);
    let mode = fs::Permissions::from_mode(0o777);
    fs::set_permissions(&scene.site.data, mode).unwrap();
    scene
}

/// The names in a folder.
fn names(folder: &Path) -> Vec<PathBuf> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    names.sort();
    names
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn no_server_starts_on_what_somebody_put_in_the_place_of_its_files() {
    let scene = open_to_all();
    drop(scene.site.serve());
    for name in ["groupshot.lock", "groupshot.db", "journal", "sets"] {
        let file = scene.site.data.join(name);
        let aside = scene.site.data.join("aside");
        for kind in ["link", "second name", "pipe"] {
            if file.is_dir() && kind != "link" {
                continue;
            }
            let is_folder = file.is_dir();
            fs::rename(&file, &aside).unwrap();
            match kind {
                "pipe" => drop(run("mkfifo", &[&file])),
                "second name" => fs::hard_link(&scene.victim, &file).unwrap(),
                _ if is_folder => symlink(scene.victim.parent().unwrap(), &file).unwrap(),
                _ => symlink(&scene.victim, &file).unwrap(),
            }
            let before = seen(&scene.victim);
            let started = scene.site.try_serve(&[]);
            let said = started
                .map(|_| "it started".to_owned())
                .unwrap_or_else(|said| said);
            assert!(
                said.contains(file.to_str().unwrap()),
                "{name} {kind}: {said}"
            );
            assert!(seen(&scene.victim) == before, "{name} {kind}: {said}");
            fs::remove_file(&file).unwrap();
            fs::rename(&aside, &file).unwrap();
        }
    }
    drop(scene.site.serve());
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn no_pipe_in_the_place_of_a_file_that_is_read_holds_anybody_up() {
    let scene = open_to_all();
    drop(scene.site.serve());
    let aside = scene.site.data.join("aside");
    for name in ["users.json", "directory.json", "groupshot.commits"] {
        let file = scene.site.data.join(name);
        fs::rename(&file, &aside).unwrap();
        run("mkfifo", &[&file]);
        let said = scene.site.try_serve(&[]).map(|_| "it started".to_owned());
        let said = said.unwrap_or_else(|said| said);
        assert!(said.contains(name), "{name}: {said}");
        fs::rename(&aside, &file).unwrap();
    }
    let machine = scene.site.data.join("machines").join(&scene.machine.id);
    for name in ["vm.toml", "tops.json"] {
        let file = machine.join(name);
        fs::rename(&file, &aside).unwrap();
        run("mkfifo", &[&file]);
        let out = run_in(&scene.site.data, &["doctor"], "");
        let said = text(&out.stdout) + &text(&out.stderr);
        assert!(said.contains(file.to_str().unwrap()), "{name}: {said}");
        fs::rename(&aside, &file).unwrap();
    }
    drop(scene.site.serve());
}

/// Also where the link leads to what stood there.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn nothing_in_the_data_directory_is_read_through_a_link() {
    let scene = open_to_all();
    let secure = "[listen]\nhttp = \"127.0.0.1:0\"\nhttps = \"127.0.0.1:0\"\n";
    drop(scene.site.serve_configured(secure));
    let config = scene.site.configuration(secure);
    let aside = scene.site.data.join("aside");
    let linked = |file: &Path| {
        fs::rename(file, &aside).unwrap();
        symlink(&aside, file).unwrap();
    };
    let back = |file: &Path| {
        fs::remove_file(file).unwrap();
        fs::rename(&aside, file).unwrap();
    };
    for name in [
        "users.json",
        "directory.json",
        "tls/certificate.pem",
        "tls/key.pem",
        "tls",
    ] {
        let file = scene.site.data.join(name);
        linked(&file);
        let started = Server::try_with(&Options {
            args: &["--config", config.to_str().unwrap()],
            data: Some(&scene.site.data),
            ..Options::default()
        });
        let said = started.map_or_else(|said| said, |_| "it started".to_owned());
        assert!(
            said.contains(name) && said.contains("link"),
            "{name}: {said}"
        );
        if name == "users.json" {
            let out = run_in(&scene.site.data, &["user", "list"], "");
            assert_eq!(out.status.code(), Some(3), "{}", text(&out.stderr));
        }
        back(&file);
    }
    // The machine cannot be used.
    let file = scene.site.data.join("machines").join(&scene.machine.id);
    let file = file.join("vm.toml");
    linked(&file);
    let out = run_in(&scene.site.data, &["vm", "list"], "");
    let said = text(&out.stderr);
    assert!(
        said.contains(file.to_str().unwrap()) && said.contains("link"),
        "{said}"
    );
    assert!(!text(&out.stdout).contains(&scene.machine.id));
    back(&file);
    drop(scene.site.serve());
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_journal_that_somebody_put_there_is_no_journal_of_ours() {
    let scene = open_to_all();
    drop(scene.site.serve());
    let journal = scene
        .site
        .data
        .join("journal/8B5879E2-07EA-4B6B-92AA-0AF0176BAFBC.log");
    let before = seen(&scene.victim);
    symlink(&scene.victim, &journal).unwrap();
    let said = scene
        .site
        .try_serve(&[])
        .map(|_| String::new())
        .unwrap_err();
    assert!(said.contains(journal.to_str().unwrap()), "{said}");
    fs::remove_file(&journal).unwrap();
    // Whoever looks does not wait for the other end of a pipe.
    run("mkfifo", &[&journal]);
    let out = run_in(&scene.site.data, &["doctor"], "");
    let said = text(&out.stdout) + &text(&out.stderr);
    assert!(said.contains("journal"), "{said}");
    assert_eq!(seen(&scene.victim), before);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn no_orphan_is_moved_through_a_link_and_none_out_of_a_folder_of_others() {
    let scene = open_to_all();
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    wire.take(&scene.group(&wire), "one");
    scene.site.wait_for_journals();
    drop(server);
    let lost = scene.site.data.join("sets/lost.qcow2");
    fs::write(&lost, "lost").unwrap();
    let trap = scene.site.images.join("trap");
    fs::create_dir(&trap).unwrap();
    let aside = scene.site.data.join("orphans");
    scene.other(&[&"ln", &"-s", &trap, &aside]);
    let said = scene.doctor(&["--fix", "--yes"]);
    assert!(lost.exists() && names(&trap).is_empty(), "{said}");
    assert!(said.contains(lost.to_str().unwrap()), "{said}");
    scene.other(&[&"rm", &aside]);
    // A folder in which somebody else may exchange the file.
    let sets = scene.site.data.join("sets");
    let shared = sets.join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
    let his = shared.join("his.qcow2");
    fs::write(&his, "his").unwrap();
    let said = scene.doctor(&["--fix", "--yes"]);
    assert!(his.exists(), "{said}");
    assert_eq!(fs::read(aside.join("lost.qcow2")).unwrap(), b"lost");
    // A link among ours is moved as a link.
    let link = sets.join("link.qcow2");
    symlink(&scene.victim, &link).unwrap();
    let before = seen(&scene.victim);
    let said = scene.doctor(&["--fix", "--yes"]);
    assert!(!link.is_symlink(), "{said}");
    assert!(aside.join("link.qcow2").is_symlink(), "{said}");
    assert_eq!(seen(&scene.victim), before);
}

/// The folder `sets/` is a link to a copy of itself that belongs to root.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn nothing_is_done_in_a_folder_that_was_put_in_the_place_of_the_sets() {
    let mut scene = open_to_all();
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    let group = scene.group(&wire);
    let set = wire.take(&group, "one");
    scene.site.wait_for_journals();
    scene.writes(3);
    let sets = scene.site.data.join("sets");
    let (copy, aside) = (scene.site.images.join("copy"), sets.with_file_name("aside"));
    run(
        "cp",
        &["-a", sets.to_str().unwrap(), copy.to_str().unwrap()],
    );
    scene.other(&[&"mv", &sets, &aside]);
    scene.other(&[&"ln", &"-s", &copy, &sets]);
    let below = |folder: &Path| run("find", &[folder.to_str().unwrap(), "-ls"]);
    let before = (below(&copy), below(&aside));
    let image = seen(&scene.image);
    let refused = wire.create(&group, "two").unwrap();
    let named = match refused.job.as_deref() {
        Some(job) => wire.end(job).unwrap().error,
        None => wire.why(&refused),
    };
    assert!(named.contains("symbolic link"), "{named}");
    // What it has to write waits until the folder is back.
    let gone = wire.destroy(&set).unwrap();
    let job = gone.job.as_deref().unwrap();
    let waits = |job: &Job| job.status.contains("waits") && job.status.contains("symbolic link");
    wire.until(job, waits).unwrap();
    scene.doctor(&["--fix", "--yes"]);
    assert_eq!((below(&copy), below(&aside)), before);
    assert_eq!(seen(&scene.image), image);
    drop(server);
    let said = scene
        .site
        .try_serve(&[])
        .map(|_| String::new())
        .unwrap_err();
    assert!(said.contains(sets.to_str().unwrap()), "{said}");
    fs::remove_file(&sets).unwrap();
    fs::rename(&aside, &sets).unwrap();
    drop(scene.site.serve());
    let top = scene.site.top(&scene.machine, 0);
    crate::support::site::assert_holds(&top, &scene.machine.content[0], "put back");
}
