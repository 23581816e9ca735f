//! Somebody exchanges files all the time while sets are taken, applied and destroyed.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::scene::{Scene, may_run, seen};
use crate::support::site::{Ground, Image, content};
use crate::support::wire::{STARTED, Wire};

/// Runs `work` while both names are exchanged without a pause.
fn while_exchanged(a: &Path, b: &Path, work: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _gone = renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE);
                std::thread::yield_now();
            }
        });
        work();
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn nothing_foreign_is_kept_or_written_while_an_image_is_exchanged_all_the_time() {
    if !may_run("images exchanged all the time") {
        return;
    }
    for ground in [Ground::Host, Ground::Xfs] {
        let mut scene = Scene::new(ground, Image::Raw, &["--overlay-ok"]);
        let server = scene.site.serve();
        let wire = Wire::new(&server);
        let group = scene.group(&wire);
        let first = wire.take(&group, "first");
        scene.site.wait_for_journals();
        scene.writes(3);
        let aside = scene.image.with_file_name("other.raw");
        symlink(&scene.victim, &aside).unwrap();
        chown(scene.image.parent().unwrap(), Some(65_534), Some(65_534)).unwrap();
        let before = seen(&scene.victim);
        let real = fs::metadata(&scene.image).unwrap();
        while_exchanged(&scene.image, &aside, || {
            for n in 0..12 {
                let started = match n % 3 {
                    0 => wire.apply(&first).unwrap(),
                    _ => wire.create(&group, "one").unwrap(),
                };
                if started.value == STARTED {
                    // An apply that is committed waits until the image is there, which is half of the time.
                    wire.end(started.job.as_deref().unwrap()).unwrap();
                }
                if let Some(set) = started.set.filter(|_| n % 3 == 2)
                    && let Ok(gone) = wire.destroy(&set)
                    && gone.value == STARTED
                {
                    wire.end(gone.job.as_deref().unwrap()).unwrap();
                }
            }
        });
        // As it was before: what a set lies on is found by name.
        if scene.image.is_symlink() {
            renameat_with(CWD, &scene.image, CWD, &aside, RenameFlags::EXCHANGE).unwrap();
        }
        scene.site.wait_for_journals();
        assert!(seen(&scene.victim) == before, "{ground:?} {real:?}");
        let shown = wire.shown().unwrap();
        for member in shown.sets.values().flat_map(|set| &set.members) {
            let lies_on = member.notes.iter().any(|n| n.contains("victim.raw"));
            assert!(!lies_on, "{ground:?} {member:?}");
            let kept = &member.disks["disk0"];
            if kept.is_symlink() || !kept.is_file() {
                continue;
            }
            let held = content(kept);
            assert!(held.iter().all(|b| *b != 9), "{ground:?} {member:?}");
        }
    }
}
