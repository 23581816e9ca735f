//! The server dies inside an operation while something else stands in the place of a file, and starts again on it.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;

use super::scene::{COMPLETED, Scene, Swap, seen};
use crate::support::gate::Gate;
use crate::support::site::{Ground, Image, assert_holds};
use crate::support::wire::Wire;

const SWAPPED: [Swap; 4] = [Swap::Link, Swap::HardLink, Swap::Foreign, Swap::FolderLink];

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn who_dies_in_a_merge_writes_nothing_that_somebody_put_there_meanwhile() {
    for point in [
        "destroy.merge.before",
        "destroy.merge.after",
        "destroy.tops.after",
    ] {
        for swap in SWAPPED {
            let what = format!("{point} {swap:?}");
            let mut scene = Scene::new(Ground::Host, Image::Raw, &["--overlay-ok"]);
            let gate = Gate::new();
            let mut server = scene.site.serve_with(&[&gate.at(point)]);
            let (wire, set) = scene.with_a_set(&server);
            scene.writes(7);
            let gone = wire.destroy(&set).unwrap();
            scene.is_at_the_gate(&wire, (&gone, &gate), &what);
            scene.swap(&scene.image, swap);
            let before = scene.guarded(&scene.image, swap);
            server.kill();
            drop(gate);
            let server = scene.site.serve();
            let wire = Wire::new(&server);
            let job = gone.job.clone().unwrap();
            let waits = wire
                .until(&job, |j| j.state > 6 || j.status.contains("wait"))
                .unwrap();
            assert_eq!(
                scene.guarded(&scene.image, swap),
                before,
                "{what}: {waits:?}"
            );
            scene.swap_back(&scene.image, swap);
            let job = wire.end(&job).unwrap();
            assert_eq!(job.state, COMPLETED, "{what}: {job:?}");
            scene.site.wait_for_journals();
            let top = scene.site.top(&scene.machine, 0);
            assert_holds(&top, &scene.machine.content[0], &what);
        }
    }
}

/// The content is in the base, and nothing names that yet.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn who_dies_after_a_merge_drops_no_overlay_whose_base_was_put_back_meanwhile() {
    for by_name in [false, true] {
        let what = format!("by name: {by_name}");
        let mut scene = Scene::new(Ground::Host, Image::Raw, &["--overlay-ok"]);
        let backup = fs::read(&scene.image).unwrap();
        let gate = Gate::new();
        let mut server = scene.site.serve_with(&[&gate.at("destroy.named.before")]);
        let (wire, set) = scene.with_a_set(&server);
        scene.writes(7);
        let gone = wire.destroy(&set).unwrap();
        scene.is_at_the_gate(&wire, (&gone, &gate), &what);
        server.kill();
        drop(gate);
        let restored = scene.image.with_extension("restored");
        match by_name {
            true => {
                fs::write(&restored, &backup).unwrap();
                chown(&restored, Some(65_534), Some(65_534)).unwrap();
                fs::rename(&restored, &scene.image).unwrap();
            }
            false => fs::write(&scene.image, &backup).unwrap(),
        }
        let server = scene.site.serve();
        let wire = Wire::new(&server);
        let job = gone.job.clone().unwrap();
        let job = wire
            .until(&job, |j| j.state > 6 || j.status.contains("wait"))
            .unwrap();
        let top = scene.site.top(&scene.machine, 0);
        assert_holds(&top, &scene.machine.content[0], &format!("{what}: {job:?}"));
        if by_name {
            assert_eq!(fs::read(&scene.image).unwrap(), backup, "{what}: {job:?}");
        }
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn who_dies_in_a_capture_keeps_nothing_that_somebody_put_there_meanwhile() {
    for ground in [Ground::Host, Ground::Xfs] {
        for point in [
            "create.prepare.after",
            "create.cut.before",
            "create.cut.after",
            "create.settle.after",
        ] {
            for swap in [Swap::Link, Swap::FolderLink] {
                let what = format!("{ground:?} {point} {swap:?}");
                let scene = Scene::new(ground, Image::Raw, &["--overlay-ok"]);
                let gate = Gate::new();
                let mut server = scene.site.serve_with(&[&gate.at(point)]);
                let wire = Wire::new(&server);
                let group = scene.group(&wire);
                let created = wire.create(&group, "one").unwrap();
                scene.is_at_the_gate(&wire, (&created, &gate), &what);
                scene.swap(&scene.image, swap);
                let before = scene.guarded(&scene.image, swap);
                server.kill();
                drop(gate);
                let mut server = scene.site.serve();
                assert_eq!(scene.guarded(&scene.image, swap), before, "{what}");
                scene.swap_back(&scene.image, swap);
                server.stop();
                let server = scene.site.serve();
                let wire = Wire::new(&server);
                scene.site.wait_for_journals();
                for set in wire.shown().unwrap().sets.values() {
                    let kept = set.members[0].disks["disk0"].clone();
                    assert_holds(&kept, &scene.machine.content[0], &what);
                }
                wire.take(&group, "whole again");
                scene.site.wait_for_journals();
                let top = scene.site.top(&scene.machine, 0);
                assert_holds(&top, &scene.machine.content[0], &what);
            }
        }
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn who_dies_in_an_export_removes_nothing_through_what_somebody_put_there_meanwhile() {
    for point in [
        "export.copy.before",
        "export.copy.after",
        "export.reveal.before",
        "export.reveal.after",
    ] {
        let scene = Scene::new(Ground::Host, Image::Raw, &["--overlay-ok"]);
        let at = |name: &str| scene.site.images.join(name);
        let (root, guarded) = (at("exports"), at("guarded"));
        let own = guarded.join(&scene.machine.id);
        for folder in [&root, &guarded, &own] {
            fs::create_dir(folder).unwrap();
        }
        for name in ["disk0.qcow2", "vm.toml"] {
            fs::write(own.join(name), "of somebody else").unwrap();
        }
        chown(&root, Some(65_534), Some(65_534)).unwrap();
        let gate = Gate::new();
        let serve = |orders: &str| scene.serve_exporting(&root, orders);
        let mut server = serve(&gate.at(point));
        let (wire, set) = scene.with_a_set(&server);
        let started = wire.export(&set, root.to_str().unwrap(), None).unwrap();
        scene.is_at_the_gate(&wire, (&started, &gate), point);
        let job = started.job.clone().unwrap();
        let part = root.join(format!(".groupshot-{set}-{job}.part"));
        let whole = root.join(&set);
        let (part, aside) = match part.is_dir() {
            true => (part, root.join("aside")),
            false => (whole, root.join("aside")),
        };
        if part.is_dir() {
            scene.other(&[&"mv", &part, &aside]);
        }
        scene.other(&[&"ln", &"-s", &guarded, &part]);
        server.kill();
        drop(gate);
        let server = serve("");
        let wire = Wire::new(&server);
        let ended = wire
            .until(&job, |j| j.state > 6 || j.status.contains("wait"))
            .unwrap();
        for name in ["disk0.qcow2", "vm.toml"] {
            let there = fs::read(own.join(name)).unwrap();
            assert_eq!(there, b"of somebody else", "{point}: {ended:?}");
        }
        assert_eq!(count(&guarded), 1, "{point}: {ended:?}");
        assert_eq!(count(&own), 2, "{point}: {ended:?}");
    }
}

fn count(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

/// The folder above the folder of the image is a link.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_folder_two_levels_above_an_image_that_is_exchanged_is_noticed() {
    for ground in [Ground::Host, Ground::Xfs] {
        let mut scene = Scene::new(ground, Image::Raw, &["--overlay-ok"]);
        chown(&scene.site.images, Some(65_534), Some(65_534)).unwrap();
        let server = scene.site.serve();
        let wire = Wire::new(&server);
        let group = scene.group(&wire);
        let set = wire.take(&group, "one");
        scene.site.wait_for_journals();
        let first = scene.machine.content[0].clone();
        scene.writes(3);
        let pool = scene.site.images.join("pool");
        let trap = scene.site.images.join("trap");
        let below = scene.image.strip_prefix(&pool).unwrap();
        fs::create_dir_all(trap.join(below).parent().unwrap()).unwrap();
        fs::copy(&scene.victim, trap.join(below)).unwrap();
        let aside = scene.site.images.join("aside");
        scene.other(&[&"mv", &pool, &aside]);
        scene.other(&[&"ln", &"-s", &trap, &pool]);
        let before = seen(&trap.join(below));
        for refused in [
            wire.create(&group, "two").unwrap(),
            wire.apply(&set).unwrap(),
        ] {
            let why = wire.why(&refused);
            assert_eq!(refused.value, 5, "{ground:?}: {why}");
            assert!(why.contains(pool.to_str().unwrap()), "{ground:?}: {why}");
        }
        let said = scene.doctor(&["--fix", "--yes"]);
        assert_eq!(seen(&trap.join(below)), before, "{ground:?}: {said}");
        fs::remove_file(&pool).unwrap();
        fs::rename(&aside, &pool).unwrap();
        let top = scene.site.top(&scene.machine, 0);
        assert_holds(&top, &scene.machine.content[0], "put back");
        // What the overlay lies on counts as damaged until its operator has looked at it.
        if ground == Ground::Xfs {
            let applied = wire.apply(&set).unwrap();
            let job = super::scene::end(&wire, &applied, "put back");
            assert_eq!(job.state, COMPLETED, "{job:?}");
            scene.site.wait_for_journals();
            assert_holds(&scene.image, &first, "applied");
        }
    }
}
