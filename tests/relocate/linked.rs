//! Where the paths to start machines by lead after a relocation: never to what nobody has vouched for, and to nothing of
//! before.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use super::{arguments, assert_linked, ok};
use crate::support::server::{run_in, text};
use crate::support::site::{Ground, Image, Machine, Site};
use crate::support::tools::{Mount, run};
use crate::support::wire::Wire;

/// Moves the folder; both its places.
fn moved(from: &mut PathBuf, to: &str) -> [(PathBuf, PathBuf); 1] {
    let to = from.with_file_name(to);
    fs::rename(&*from, &to).unwrap();
    [(std::mem::replace(from, to.clone()), to)]
}

fn relocate(site: &Site, moved: &[(PathBuf, PathBuf)]) -> Output {
    let more = ["--apply", "--definitions"];
    run_in(&site.data, &arguments(moved, &more), "")
}

fn link(site: &Site, machine: &Machine) -> PathBuf {
    let disks = site.data.join("machines").join(&machine.id).join("disks");
    disks.join("disk0")
}

/// Its image is what a set keeps, and can be written.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn no_relocation_leads_a_link_to_an_active_file_that_is_in_doubt() {
    let mut site = Site::new(Ground::Host);
    let web = site.machine("web", &[Image::Raw], 1);
    let sound = site.machine("sound", &[Image::Raw], 2);
    let tops = site.file_of(&web.id, "tops.json");
    let before = fs::read(&tops).unwrap();
    let server = site.serve();
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&web.id, &sound.id]).unwrap();
    wire.take(&group, "one");
    site.wait_for_journals();
    drop((wire, server));
    let active = site.top(&web, 0);
    // It names the image.
    fs::write(&tops, before).unwrap();

    let images = moved(&mut site.images, "moved-images");
    let out = relocate(&site, &images);
    let (said, _) = (text(&out.stderr), ok(&out));
    assert_eq!(fs::read_link(link(&site, &web)).unwrap(), active);
    assert!(said.contains("is an older copy"), "{said}");
    assert!(!said.contains("is removed"), "{said}");
    assert_linked(&site.data, &sound, 0, &site.top(&sound, 0));

    // What it leads to now is not where it was, and nobody knows whether it is still what is meant.
    let data = moved(&mut site.data, "moved-data");
    let out = relocate(&site, &data);
    let (said, _) = (text(&out.stderr), ok(&out));
    let gone = link(&site, &web);
    assert!(gone.symlink_metadata().is_err(), "{said}");
    assert!(said.contains("is an older copy"), "{said}");
    let told = format!("{} led to what was moved and is removed", gone.display());
    assert!(said.contains(&told), "{told}: {said}");
    assert_linked(&site.data, &sound, 0, &site.top(&sound, 0));
}

/// A definition that only its names of disks can be read of.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_machine_that_cannot_be_read_keeps_no_link_to_what_was_moved() {
    let mut site = Site::new(Ground::Host);
    let web = site.machine("web", &[Image::Raw], 1);
    let definition = site.file_of(&web.id, "vm.toml");
    let sound = fs::read_to_string(&definition).unwrap();
    fs::write(&definition, format!("unknown = 1\n{sound}")).unwrap();
    drop(site.serve());
    let images = moved(&mut site.images, "moved-images");
    let out = relocate(&site, &images);
    let (said, _) = (text(&out.stderr), ok(&out));
    let gone = link(&site, &web);
    assert!(gone.symlink_metadata().is_err(), "{said}");
    assert!(said.contains(gone.to_str().unwrap()), "{said}");
    assert!(said.contains("vm.toml"), "{said}");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_link_that_no_relocation_can_make_is_told() {
    let mut site = Site::new(Ground::Host);
    let web = site.machine("web", &[Image::Raw], 1);
    drop(site.serve());
    // As a copy that follows links leaves it.
    let link = link(&site, &web);
    fs::remove_file(&link).unwrap();
    fs::write(&link, "a copy").unwrap();
    let images = moved(&mut site.images, "moved-images");
    let out = relocate(&site, &images);
    let (said, _) = (text(&out.stderr), ok(&out));
    assert!(said.contains("no machine can be started by"), "{said}");
    assert!(said.contains(link.to_str().unwrap()), "{said}");
    assert_eq!(fs::read(&link).unwrap(), b"a copy");
    assert!(!site.data.join("relocate.json").exists());
    // So it is at an import.
    let by_name = site.data.join("machines/by-name/db");
    fs::write(&by_name, "mine").unwrap();
    let image = site.image("db", Image::Raw, 2);
    let import = ["vm", "import", "db", image.to_str().unwrap()];
    let out = run_in(&site.data, &import, "");
    let (said, _) = (text(&out.stderr), ok(&out));
    assert!(said.contains(by_name.to_str().unwrap()), "{said}");
}

/// It goes on leading to what was moved; in a copy to what the original runs on.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn no_relocation_ends_as_long_as_a_link_leads_elsewhere() {
    let mut site = Site::with_data_on(Mount::file_system("ext4"));
    let web = site.machine("web", &[Image::Raw], 1);
    drop(site.serve());
    let link = link(&site, &web);
    let (disks, old) = (link.parent().unwrap(), fs::read_link(&link).unwrap());
    let fixed = |flag: &str| drop(run("chattr", &[Path::new(flag), disks]));
    fixed("+i");
    let images = moved(&mut site.images, "moved-images");
    let out = relocate(&site, &images);
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(4), "{said}");
    assert!(said.contains(link.to_str().unwrap()), "{said}");
    assert!(said.contains("groupshot relocate --apply"), "{said}");
    assert_eq!(fs::read_link(&link).unwrap(), old);
    let refused = site.try_serve(&[]).err().expect("it is not finished");
    assert!(refused.contains("groupshot relocate --apply"), "{refused}");
    fixed("-i");
    ok(&run_in(&site.data, &["relocate", "--apply"], ""));
    assert_eq!(fs::read_link(&link).unwrap(), site.images.join("web-0.raw"));
    drop(site.serve());
}
