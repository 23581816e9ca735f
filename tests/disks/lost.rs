//! What the library or the database has lost for a while: nothing that may still be needed is removed, merged or moved.

use std::fs;
use std::os::unix::fs::FileExt;

use groupshot::snapshot::destroy::{FAILPOINTS, MERGE_FAILPOINTS};

use super::scene::Scene;
use crate::support::server::{run_in, text};
use crate::support::site::{Image, Machine, assert_holds, older_database};
use crate::support::tools;
use crate::support::wire::Wire;

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_disk_that_a_definition_has_lost_keeps_what_lies_under_it() {
    for sets in [&[2][..], &[1], &[0, 1, 2]] {
        let scene = Scene::new();
        let file = scene.folder().join("vm.toml");
        let whole = fs::read_to_string(&file).unwrap();
        let second = whole.rfind("[[disk]]").unwrap();
        let rest = whole[second..]
            .find("\n[")
            .map_or(whole.len(), |at| second + at);
        fs::write(&file, whole[..second].to_owned() + &whole[rest..]).unwrap();
        scene.destroy(sets);
        fs::write(&file, whole).unwrap();
        scene.assert_whole(&format!("without {sets:?}"));
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_machine_that_is_away_keeps_its_active_files() {
    for sets in [&[2][..], &[1], &[0, 1, 2]] {
        let scene = Scene::new();
        let away = scene.site.data.join("away");
        fs::rename(scene.folder(), &away).unwrap();
        scene.destroy(sets);
        fs::rename(&away, scene.folder()).unwrap();
        scene.assert_whole(&format!("without {sets:?}"));
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_may_be_the_active_file_of_a_machine_is_not_moved_by_the_doctor() {
    let garbage = Some(&b"garbage = ["[..]);
    // Without its `tops.json`, or with a damaged one, the machine is mended, see `tops`.
    for (name, bytes) in [("vm.toml", garbage), ("vm.toml", None)] {
        let scene = Scene::new();
        let file = scene.folder().join(name);
        let whole = fs::read(&file).unwrap();
        let count = || scene.site.tree().keys().filter(|f| **f != file).count();
        let before = count();
        match bytes {
            Some(bytes) => fs::write(&file, bytes).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        let (code, said) = scene.doctor(&["--fix", "--yes"]);
        assert_eq!(code, Some(1), "{name}: {said}");
        assert_eq!(count(), before, "{name}: {said}");
        assert!(!scene.site.data.join("orphans").exists(), "{name}: {said}");
        fs::write(&file, &whole).unwrap();
        scene.assert_whole(name);
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_old_active_file_that_another_machine_lies_on_outlives_an_apply() {
    let scene = Scene::new();
    let other = scene.site.machine("other", &[Image::Chain], 5);
    let old = [0, 1].map(|disk| scene.site.top(&scene.machine, disk));
    let (image, base) = (other.images[0].to_str().unwrap(), old[0].to_str().unwrap());
    let onto = [
        "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", base, image,
    ];
    tools::run("qemu-img", &onto);
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    let applied = wire.apply(&scene.sets[0]).unwrap();
    assert_eq!(wire.end(&applied.job.unwrap()).unwrap().state, 7);
    scene.site.wait_for_journals();
    assert_holds(&other.images[0], &scene.machine.content[0], "the other one");
    assert!(!old[1].exists(), "nothing lies on this one");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn without_its_database_a_data_directory_with_sets_is_refused() {
    let scene = Scene::new();
    let file = scene.site.data.join("groupshot.db");
    let whole = fs::read(&file).unwrap();
    for empty in [true, false] {
        match empty {
            true => fs::write(&file, "").unwrap(),
            false => fs::remove_file(&file).unwrap(),
        }
        // A server that comes up is a failure at once.
        let told = scene.site.try_serve(&[]).err().unwrap();
        assert!(
            told.contains("groupshot.db") && told.contains("sets/"),
            "{told}"
        );
        for command in [&["doctor", "--fix", "--yes"][..], &["rescue"]] {
            let out = run_in(&scene.site.data, command, "");
            let said = text(&out.stderr);
            assert_eq!(out.status.code(), Some(3), "{command:?}: {said}");
            assert!(
                said.contains("groupshot.db") && said.contains("sets/"),
                "{said}"
            );
        }
        assert!(
            file.metadata().map_or(0, |m| m.len()) == 0,
            "nothing is made"
        );
    }
    fs::write(&file, whole).unwrap();
    scene.assert_whole("with its database again");
    let server = scene.site.serve();
    assert_eq!(Wire::new(&server).shown().unwrap().sets.len(), 3);
}

/// The journal knows its files, and no definition names them any more.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_machine_that_is_away_while_its_destroy_is_recovered_keeps_its_active_files() {
    let points = FAILPOINTS.iter().chain(MERGE_FAILPOINTS);
    for (point, set) in points.flat_map(|p| [(p, 1), (p, 2)]) {
        let scene = Scene::new();
        let order = format!("{point}=abort");
        let mut server = scene.site.serve_with(&[&order]);
        let wire = Wire::new(&server);
        if let Ok(gone) = wire.destroy(&scene.sets[set])
            && let Some(job) = gone.job
        {
            let _ended_or_dead = wire.end(&job);
        }
        server.kill();
        let away = scene.site.data.join("away");
        fs::rename(scene.folder(), &away).unwrap();
        let server = scene.site.serve();
        let _answers = Wire::new(&server).shown();
        drop(server);
        fs::rename(&away, scene.folder()).unwrap();
        scene.assert_whole(&format!("{point}, set {set}"));
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_library_that_is_gone_is_told_with_the_sets_that_need_it() {
    let scene = Scene::new();
    let machines = scene.site.data.join("machines");
    for gone in [scene.folder(), machines] {
        let away = scene.site.data.join("away");
        fs::rename(&gone, &away).unwrap();
        let (code, said) = scene.doctor(&[]);
        let file = scene.folder().join("vm.toml");
        assert_eq!(code, Some(1), "{said}");
        for part in ["kept-missing", file.to_str().unwrap(), "machine web is not"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        fs::rename(&away, &gone).unwrap();
    }
    let (_, said) = scene.doctor(&[]);
    assert!(!said.contains("vm.toml"), "{said}");
}

/// Of a machine that cannot be read now, its active file tells what lies under it, as far as that can be read; what lies
/// deeper may be any file that was made for the machine.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn no_file_is_an_orphan_that_may_lie_under_one_that_cannot_be_read() {
    let scene = Scene::new();
    let top = scene.site.top(&scene.machine, 0);
    let job = |n| format!("disk0-00000000-0000-4000-8000-00000000000{n}.qcow2");
    let [under, deepest] = [1, 2].map(|n| top.with_file_name(job(n)));
    fs::copy(&top, &deepest).unwrap();
    for (file, below) in [(&under, &deepest), (&top, &under)] {
        let [file, below] = [file, below].map(|f| f.to_str().unwrap());
        let args = [
            "create", "-q", "-f", "qcow2", "-b", below, "-F", "qcow2", file,
        ];
        tools::run("qemu-img", &args);
    }
    let open = fs::OpenOptions::new().write(true).open(&under).unwrap();
    open.write_all_at(b"QFI?", 0).unwrap();
    fs::remove_file(scene.folder().join("vm.toml")).unwrap();
    let other = top
        .parent()
        .unwrap()
        .with_file_name("00000000-0000-4000-8000-00000000000A");
    fs::create_dir(&other).unwrap();
    let stray = other.join("disk0.qcow2");
    fs::copy(&deepest, &stray).unwrap();
    let (_, said) = scene.doctor(&[]);
    for (file, is_orphan) in [(stray, true), (under, false), (deepest, false)] {
        let line = said.lines().find(|l| l.contains(file.to_str().unwrap()));
        let told = line.is_some_and(|line| line.contains("orphan"));
        assert_eq!(told, is_orphan, "{}: {said}", file.display());
    }
}

/// How the file of a machine is spoiled.
fn spoil(file: &std::path::Path) -> Vec<u8> {
    let whole = fs::read(file).unwrap();
    let spoiled = match file.ends_with("vm.toml") {
        true => [&whole[..], b"\nx==1\n"].concat(),
        false => whole[..whole.len() - 30].to_vec(),
    };
    fs::write(file, spoiled).unwrap();
    whole
}

/// A linked clone of what another machine runs on, or of what a set of that keeps.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_a_machine_that_cannot_be_read_lies_on_stays() {
    for (name, kept) in [
        ("vm.toml", false),
        ("tops.json", false),
        ("vm.toml", true),
        ("tops.json", true),
    ] {
        let mut scene = Scene::bare();
        let mut server = scene.site.serve();
        scene.take(&server, 2);
        let base = match kept {
            true => scene.site.top(&scene.machine, 1),
            false => scene.machine.images[1].clone(),
        };
        if kept {
            scene.take(&server, 3);
        }
        server.stop();
        for disk in 0..2 {
            let top = scene.site.top(&scene.machine, disk);
            scene.machine.write(&top, disk, 65536, 4096, 7);
        }
        let image = scene.site.images.join("linked.qcow2");
        let [on, file] = [&base, &image].map(|f| f.to_str().unwrap());
        tools::run(
            "qemu-img",
            &["create", "-q", "-f", "qcow2", "-b", on, "-F", "qcow2", file],
        );
        tools::write(&image, "qcow2", 9, "0", "4096");
        let linked = scene.site.import("linked", &["--overlay-ok", file], vec![]);
        let expected = crate::support::site::content(&image);
        if kept {
            let server = scene.site.serve();
            let wire = Wire::new(&server);
            let applied = wire.apply(&scene.sets[0]).unwrap();
            assert_eq!(wire.end(&applied.job.unwrap()).unwrap().state, 7);
            scene.site.wait_for_journals();
        }
        let spoiled = scene.site.data.join("machines").join(&linked.id).join(name);
        let whole = spoil(&spoiled);
        scene.destroy(&[usize::from(kept)]);
        let what = format!("{name}, kept: {kept}");
        assert!(base.exists(), "{what}");
        if kept {
            let (_, said) = scene.doctor(&[]);
            let line = said
                .lines()
                .find(|l| l.contains(on) && l.contains("orphan"));
            assert_eq!(line, None, "{what}: {said}");
        }
        fs::write(&spoiled, whole).unwrap();
        assert_holds(&image, &expected, &what);
        if !kept {
            scene.assert_whole(&what);
        }
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_apply_that_is_recovered_keeps_the_active_files_of_a_machine_that_cannot_be_read() {
    for is_away in [false, true] {
        let mut scene = Scene::bare();
        let mut server = scene.site.serve();
        scene.take(&server, 2);
        server.stop();
        let mut server = scene.site.serve_with(&["apply.tidy.before=abort"]);
        let wire = Wire::new(&server);
        if let Ok(applied) = wire.apply(&scene.sets[0])
            && let Some(job) = applied.job
        {
            let _ended_or_dead = wire.end(&job);
        }
        server.kill();
        for disk in 0..2 {
            let top = scene.site.top(&scene.machine, disk);
            scene.machine.write(&top, disk, 65536, 4096, 7);
        }
        let tops = [0, 1].map(|disk| scene.site.top(&scene.machine, disk));
        let (file, away) = (scene.folder().join("vm.toml"), scene.site.data.join("away"));
        let whole = fs::read(&file).unwrap();
        match is_away {
            true => fs::rename(scene.folder(), &away).unwrap(),
            false => drop(spoil(&file)),
        }
        let server = scene.site.serve();
        let _answers = Wire::new(&server).shown();
        drop(server);
        let (_, said) = scene.doctor(&["--fix", "--yes"]);
        let there = tops.each_ref().map(|top| top.exists());
        match is_away {
            true => fs::rename(&away, scene.folder()).unwrap(),
            false => fs::write(&file, whole).unwrap(),
        }
        assert_eq!(there, [true, true], "away: {is_away}: {said}");
        scene.assert_whole(&format!("away: {is_away}"));
    }
}

/// Only a check-up makes a `tops.json` anew, and that while no operation is open: the destroy must end without it.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_finished_merge_does_not_wait_for_the_tops_json_of_another_machine() {
    let mut scene = Scene::bare();
    let image = scene.site.images.join("other.raw");
    fs::write(&image, vec![5; 65536]).unwrap();
    let file = image.to_str().unwrap();
    let other = scene.site.import("other", &["--overlay-ok", file], vec![]);
    let mut server = scene.site.serve();
    for byte in 2..5 {
        scene.take(&server, byte);
    }
    server.stop();
    let mut server = scene.site.serve_with(&["destroy.named.before=abort"]);
    let wire = Wire::new(&server);
    let _accepted_or_dead = wire.destroy(&scene.sets[1]).map(|begun| {
        let _dead = begun.job.map(|job| wire.end(&job));
    });
    server.kill();
    let tops = scene.site.file_of(&other.id, "tops.json");
    let whole = spoil(&tops);
    let server = scene.site.serve();
    scene.site.wait_for_journals();
    drop(server);
    scene.assert_whole("while it cannot be read");
    fs::write(&tops, whole).unwrap();
    let (_, said) = scene.doctor(&["--fix", "--yes"]);
    scene.assert_whole(&said);
}

/// As an older version has left it behind when it could not reach the folder.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_was_left_out_of_reach_stays_while_it_may_be_an_active_file() {
    for how in ["whole", "vm.toml", "tops.json", "away"] {
        let mut scene = Scene::bare();
        let mut server = scene.site.serve();
        scene.take(&server, 2);
        server.stop();
        let top = scene.site.top(&scene.machine, 0);
        let left = serde_json::json!({
            "machine": scene.machine.id, "disk": "disk0",
            "machine_name": "web", "file": top, "format": "raw", "sealed": null,
        });
        let database = older_database(&scene.site.data);
        let row = (top.to_str().unwrap(), left.to_string());
        let insert = "INSERT INTO leftovers VALUES (?1, ?2)";
        database.execute(insert, row).unwrap();
        drop(database);
        let (folder, away) = (scene.folder(), scene.site.data.join("away"));
        let file = folder.join(how);
        let whole = match how {
            "whole" => None,
            "away" => fs::rename(&folder, &away).map(|()| None).unwrap(),
            _ => Some(spoil(&file)),
        };
        let server = scene.site.serve();
        let _answers = Wire::new(&server).shown();
        drop(server);
        // Nor by a repair, which is not even offered.
        let (_, said) = scene.doctor(&["--fix", "--yes"]);
        let told = |l: &str| l.contains("leftover") && l.contains(top.to_str().unwrap());
        for line in said.lines().filter(|l| told(l)) {
            assert!(line.contains("it may be needed"), "{how}: {line}");
        }
        match whole {
            Some(whole) => fs::write(&file, whole).unwrap(),
            None if how == "away" => fs::rename(&away, &folder).unwrap(),
            None => {}
        }
        assert!(top.exists(), "{how}");
        scene.assert_whole(how);
    }
}

#[test]
fn no_image_of_a_machine_that_cannot_be_read_is_imported_again() {
    let site = crate::support::site::Site::new(crate::support::site::Ground::Host);
    let web: Machine = site.machine("web", &[Image::Raw], 1);
    let folder = site.data.join("machines").join(&web.id);
    let image = web.images[0].to_str().unwrap();
    let import = || {
        let out = run_in(&site.data, &["vm", "import", "twin", image], "");
        (out.status.code(), text(&out.stderr).to_owned())
    };
    spoil(&folder.join("vm.toml"));
    let (code, said) = import();
    assert_ne!(code, Some(0), "{said}");
    assert!(said.contains("already belongs to machine"), "{said}");
    spoil(&folder.join("tops.json"));
    let (code, said) = import();
    assert_ne!(code, Some(0), "{said}");
    for part in [web.id.as_str(), "tops.json", "put that file back"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // A machine that is gone keeps nothing.
    fs::remove_dir_all(&folder).unwrap();
    let (code, said) = import();
    assert_eq!(code, Some(0), "{said}");
}

/// An image that is read-only takes no merge, so that the newest content stays in an overlay after the last set.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn no_machine_is_removed_while_its_newest_content_would_be_left_to_nobody() {
    let mut scene = Scene::bare();
    let mut server = scene.site.serve();
    scene.take(&server, 2);
    server.stop();
    for (disk, byte) in [(0, 7), (1, 8)] {
        let top = scene.site.top(&scene.machine, disk);
        scene.machine.write(&top, disk, 65536, 4096, byte);
    }
    let mode = |mode| {
        for image in &scene.machine.images {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            fs::set_permissions(image, mode).unwrap();
        }
    };
    mode(0o444);
    scene.destroy(&[0]);
    let server = scene.site.serve();
    let taken = server.cli(&["collection", "remove", "all", "web"]);
    assert!(taken.status.success(), "{taken:?}");
    drop(server);
    let top = scene.site.top(&scene.machine, 0);
    let remove = || {
        let out = run_in(&scene.site.data, &["vm", "remove", "web"], "");
        (out.status.code(), text(&out.stderr).to_owned())
    };
    let (code, said) = remove();
    assert_ne!(code, Some(0), "{said}");
    for part in [top.to_str().unwrap(), "groupshot doctor --fix"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(top.exists() && scene.folder().exists());
    // The way on.
    mode(0o644);
    let (_, told) = scene.doctor(&["--fix", "--yes"]);
    let (code, said) = remove();
    assert_eq!(code, Some(0), "{said}; {told}");
    for (image, content) in scene.machine.images.iter().zip(&scene.machine.content) {
        assert_holds(image, content, "merged before the machine went");
    }
}
