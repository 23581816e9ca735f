//! Somebody exchanges files all the time while sets are taken, applied and destroyed.

use std::fs;
use std::os::unix::fs::{chown, symlink};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::scene::{Exchange, Scene, seen};
use crate::support::site::{Ground, Image, content};
use crate::support::wire::{STARTED, Wire};

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn nothing_foreign_is_kept_or_written_while_an_image_is_exchanged_all_the_time() {
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
        let exchange = Exchange::start(&scene.image, &aside);
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
        exchange.stop();
        // On whichever side it ended: both are looked at, the image in its own place last.
        let names = [&scene.image, &aside];
        let links = names.iter().filter(|name| name.is_symlink());
        assert_eq!(links.count(), 1, "{ground:?} {real:?}");
        for is_link in [true, false] {
            if scene.image.is_symlink() != is_link {
                renameat_with(CWD, &scene.image, CWD, &aside, RenameFlags::EXCHANGE).unwrap();
            }
            let what = format!("{ground:?} {is_link} {real:?}");
            if !is_link {
                // An apply that is committed ends once the image is there.
                scene.site.wait_for_journals();
            }
            assert!(seen(&scene.victim) == before, "{what}");
            let shown = wire.shown().unwrap();
            for member in shown.sets.values().flat_map(|set| &set.members) {
                // That it is damaged may be said of the image, never of what the link led to.
                let lies_on = member.notes.iter().any(|n| n.contains("victim.raw"));
                assert!(!lies_on, "{what} {member:?}");
                // What an overlay lies on is found by name.
                if !is_link {
                    let held = content(&member.disks["disk0"]);
                    assert!(held.iter().all(|b| *b != 9), "{what} {member:?}");
                }
            }
        }
    }
}
