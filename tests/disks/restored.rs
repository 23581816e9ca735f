//! Images that are lost come back from a set, at their paths.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;

use crate::support::server::{run_in, text};
use crate::support::site::{Ground, Image, Site, assert_holds};
use crate::support::wire::{STARTED, Wire};

const COMPLETED: u64 = 7;

/// Neither keeps the other from being replaced: what cannot be read of both is given up.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn images_that_cannot_be_read_are_replaced_at_their_paths() {
    let site = Site::new(Ground::Xfs);
    let machines = ["web", "db"].map(|name| site.machine(name, &[Image::Qcow2], 1));
    for (machine, name) in machines.iter().zip(["web", "db"]) {
        fs::set_permissions(&machine.images[0], Permissions::from_mode(0o640)).unwrap();
        chown(&machine.images[0], Some(1234), Some(1235)).unwrap();
        let accept = ["vm", "set", name, "--accept-image", "--yes"];
        let out = run_in(&site.data, &accept, "");
        assert!(out.status.success(), "{}", text(&out.stderr));
    }
    let server = site.serve();
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&machines[0].id, &machines[1].id]);
    let group = group.unwrap();
    let set = wire.take(&group, "whole");
    let before: Vec<PathBuf> = site.tree().into_keys().collect();
    // An empty file stands for one that was removed, as the manual says.
    let [header, all] = [&machines[0].images[0], &machines[1].images[0]];
    let file = File::options().write(true).open(header).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0; 4096], 0).unwrap();
    drop(file);
    fs::remove_file(all).unwrap();
    File::create_new(all).unwrap();
    fs::set_permissions(all, Permissions::from_mode(0o640)).unwrap();
    chown(all, Some(1234), Some(1235)).unwrap();

    let accepted = wire.apply(&set).unwrap();
    assert_eq!(accepted.value, STARTED, "{}", wire.why(&accepted));
    let job = wire.end(&accepted.job.unwrap()).unwrap();
    assert_eq!(job.state, COMPLETED, "{job:?}");
    site.wait_for_journals();
    let shown = wire.shown().unwrap();
    for machine in &machines {
        let image = &machine.images[0];
        assert_eq!(&shown.tops[&(machine.id.clone(), "disk0".into())], image);
        assert_holds(image, &machine.content[0], "applied");
        let meta = fs::metadata(image).unwrap();
        let owner = (meta.uid(), meta.gid(), meta.mode() & 0o777);
        assert_eq!(owner, (1234, 1235, 0o640));
    }
    let after: Vec<PathBuf> = site.tree().into_keys().collect();
    assert_eq!(after, before);
}
