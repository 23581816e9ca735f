//! What CreateSnapshot refuses before it begins, and what it leaves out when told to.

use std::fs;

use crate::support::gate::Gate;
use crate::support::site::{Ground, Image, Site, assert_holds};
use crate::support::tools::{self, Opened};
use crate::support::wire::{STARTED, Wire};

const INVALID_STATE: u64 = 5;

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn disks_that_nobody_can_capture_are_left_out_only_when_told_so() {
    let site = Site::new(Ground::Host);
    let mut machine = site.machine("web", &[Image::Raw, Image::Qcow2], 1);
    // Since the import the image was given an internal snapshot: nothing here can capture that.
    tools::run(
        "qemu-img",
        &[
            "snapshot",
            "-c",
            "mine",
            machine.images[1].to_str().unwrap(),
        ],
    );
    let server = site.serve();
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&machine.id]).unwrap();
    let before = site.tree();
    for settings in [&[][..], &[("IgnoreNonSnapshottableDisks", "false")]] {
        let refused = wire.create_with(&group, settings).unwrap();
        assert_eq!(refused.value, INVALID_STATE);
        let why = wire.why(&refused);
        assert!(why.contains("web") && why.contains("disk1"), "{why}");
        for word in [
            "IgnoreNonSnapshottableDisks",
            "`--ignore-non-snapshottable-disks`",
        ] {
            assert!(why.contains(word), "{why}");
        }
        assert_eq!(site.tree(), before);
    }
    let ignore = [
        ("IgnoreNonSnapshottableDisks", "true"),
        ("ElementName", "rest"),
    ];
    let created = wire.create_with(&group, &ignore).unwrap();
    assert_eq!(created.value, STARTED, "{}", wire.why(&created));
    let ended = wire.end(&created.job.unwrap()).unwrap();
    assert_eq!(ended.state, 7);
    let told = "disks left out: 1 (web disk1)";
    assert!(ended.status.ends_with(told), "{}", ended.status);
    let shown = wire.shown().unwrap();
    let member = &shown.sets[&created.set.unwrap()].members[0];
    assert_eq!(member.disks.keys().collect::<Vec<_>>(), ["disk0"]);
    assert!(
        member.notes.iter().any(|n| n.contains("disk1")),
        "{:?}",
        member.notes
    );
    let top = |disk: &str| &shown.tops[&(machine.id.clone(), disk.to_owned())];
    assert_eq!(*top("disk1"), machine.images[1], "left as it is");
    let disk0 = top("disk0").clone();
    machine.write(&disk0, 0, 0, 4096, 7);
    assert_holds(&disk0, &machine.content[0], "active");
    assert_holds(
        &member.disks["disk0"],
        &[1; crate::support::site::SIZE],
        "captured",
    );
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_member_that_another_process_holds_is_named() {
    let site = Site::new(Ground::Host);
    let free = site.machine("free", &[Image::Raw], 1);
    let held = site.machine("held", &[Image::Raw, Image::Raw], 1);
    let server = site.serve();
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&free.id, &held.id]).unwrap();
    let before = site.tree();
    let writer = Opened::new(&held.images[1], &[]);
    let refused = wire.create(&group, "x").unwrap();
    assert_eq!(refused.value, INVALID_STATE);
    let why = wire.why(&refused);
    assert!(why.contains("machine held"), "{why}");
    assert_eq!(site.tree(), before);
    drop(writer);
    let _reader = Opened::new(&held.images[1], &["-r"]);
    wire.take(&group, "now");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn of_two_sets_of_one_machine_at_once_the_second_is_refused_and_named() {
    let site = Site::new(Ground::Host);
    let machines = ["a", "b", "c"].map(|n| site.machine(n, &[Image::Raw], 1));
    let [a, b, c] = machines.each_ref().map(|m| m.id.as_str());
    let gate = Gate::new();
    let server = site.serve_with(&[&gate.at("create.prepared.before")]);
    let (one, two) = (Wire::new(&server), Wire::new(&server));
    let left = one.define("left", &[a, b]).unwrap();
    let right = one.define("right", &[b, c]).unwrap();
    let first = one.create(&left, "left").unwrap();
    assert_eq!(first.value, STARTED);
    let refused = two.create(&right, "right").unwrap();
    assert_eq!(refused.value, INVALID_STATE);
    let why = two.why(&refused);
    let job = first.job.unwrap();
    assert!(why.contains("machine b") && why.contains(&job), "{why}");
    gate.open();
    assert_eq!(one.end(&job).unwrap().state, 7);
    // Only the first passage stands; and the machine is free at once.
    let set = two.take(&right, "right");
    let shown = two.shown().unwrap();
    assert_eq!(shown.sets.len(), 2);
    let members = &shown.sets[&set].members;
    for machine in &machines[1..] {
        let member = members.iter().find(|m| m.machine == machine.id).unwrap();
        assert_holds(&member.disks["disk0"], &machine.content[0], &machine.name);
    }
    site.wait_for_journals();
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_missing_backing_file_or_folder_is_named() {
    let site = Site::new(Ground::Host);
    let machine = site.machine("web", &[Image::Chain], 1);
    let server = site.serve();
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&machine.id]).unwrap();
    let base = site.images.join("web-0-base.raw");
    let away = site.images.with_file_name("away");
    for (gone, named) in [
        (&base, &base),
        (&machine.images[0], &machine.images[0]),
        (&site.images, &machine.images[0]),
    ] {
        let before = site.tree();
        fs::rename(gone, &away).unwrap();
        let refused = wire.create(&group, "x").unwrap();
        assert_eq!(refused.value, INVALID_STATE, "{}", gone.display());
        let why = wire.why(&refused);
        for part in ["web", "disk0", named.to_str().unwrap()] {
            assert!(why.contains(part), "{part}: {why}");
        }
        fs::rename(&away, gone).unwrap();
        assert_eq!(site.tree(), before);
    }
    wire.take(&group, "again");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn images_outside_the_configured_folders_are_refused_with_file_and_folders() {
    let site = Site::new(Ground::Host);
    let (inside, linked) = (
        site.images.join("inside"),
        site.images.join("inside/linked"),
    );
    fs::create_dir(&inside).unwrap();
    let good = inside.join("good.raw");
    fs::write(&good, vec![1; crate::support::site::SIZE]).unwrap();
    // Its own place is allowed; where the link leads is not.
    let elsewhere = site.image("elsewhere", Image::Raw, 2);
    std::os::unix::fs::symlink(&site.images, &linked).unwrap();
    let bad = linked.join("elsewhere.raw");
    let config = format!("[engine]\nimage_roots = [{:?}]\n", inside);
    let file = site.configuration(&config);
    let import = |name: &str, image: &std::path::Path, more: &[&str]| {
        let args = [
            &["--json", "vm", "import", "--overlay-ok", name][..],
            &[image.to_str().unwrap()],
            more,
        ]
        .concat();
        crate::support::server::run_in(&site.data, &args, "")
    };
    let configured = ["--config", file.to_str().unwrap()];
    let refused = import("web", &bad, &configured);
    let said = crate::support::server::text(&refused.stderr);
    for part in ["web", bad.to_str().unwrap(), inside.to_str().unwrap()] {
        assert!(!refused.status.success() && said.contains(part), "{said}");
    }
    let mut ids = Vec::new();
    // Whoever imports without the configuration meets it when a set is taken.
    for (name, image, more) in [("ok", &good, &configured[..]), ("web", &bad, &[])] {
        let out = import(name, image, more);
        let shown: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        ids.push(shown["id"].as_str().unwrap().to_owned());
    }
    let server = site.serve_configured(&config);
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&ids[0], &ids[1]]).unwrap();
    let before = site.tree();
    let refused = wire.create(&group, "x").unwrap();
    assert_eq!(refused.value, INVALID_STATE);
    let why = wire.why(&refused);
    assert!(
        why.contains(elsewhere.to_str().unwrap()) && why.contains(inside.to_str().unwrap()),
        "{why}"
    );
    assert_eq!(site.tree(), before);
    let group = wire.define("good", &[&ids[0]]).unwrap();
    // The second set has a file of the data directory below it.
    wire.take(&group, "one");
    wire.take(&group, "two");
    assert_eq!(fs::read(&elsewhere).unwrap()[0], 2);
}

/// On ext4, tmpfs and most others: only reflink needs no word of the definition.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_overlay_is_made_only_where_the_definition_allows_it() {
    let site = Site::new(Ground::Host);
    let import = |args: &[&str]| {
        let out =
            crate::support::server::run_in(&site.data, &[&["vm", "import"], args].concat(), "");
        let said = crate::support::server::text(&out.stderr);
        assert!(out.status.success(), "{said}");
        said
    };
    let [first, second] = ["a", "b"].map(|n| site.image(n, Image::Raw, 1));
    let said = import(&["plain", first.to_str().unwrap()]);
    for part in ["warning", "disk0", "plain", "--overlay-ok", "vm.toml"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let said = import(&["--overlay-ok", "told", second.to_str().unwrap()]);
    assert!(
        said.contains("boot what is stale") && said.contains("/by-name/told/disk0"),
        "{said}"
    );
    let show = |name: &str| {
        let out = crate::support::server::run_in(&site.data, &["--json", "vm", "show", name], "");
        serde_json::from_slice::<serde_json::Value>(&out.stdout).unwrap()
    };
    let (plain, told) = (show("plain"), show("told"));
    assert_eq!([&plain["overlayOk"], &told["overlayOk"]], [false, true]);
    let [plain, told] = [plain, told].map(|m| m["id"].as_str().unwrap().to_owned());
    let server = site.serve();
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&plain, &told]).unwrap();
    let before = site.tree();
    let refused = wire.create(&group, "x").unwrap();
    assert_eq!(refused.value, INVALID_STATE);
    let why = wire.why(&refused);
    for part in ["plain", "disk0", "a.raw", "overlay_ok"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    assert_eq!(site.tree(), before);
    // Left out it would have nothing in the set.
    let ignore = [("IgnoreNonSnapshottableDisks", "true")];
    let refused = wire.create_with(&group, &ignore).unwrap();
    assert_eq!(refused.value, INVALID_STATE);
    let why = wire.why(&refused);
    for part in ["machine plain has no disk", "overlay_ok"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    assert_eq!(site.tree(), before);
    let tops = wire.shown().unwrap().tops;
    assert_eq!(tops[&(plain.clone(), "disk0".to_owned())], first);
    // Its operator allows it: from then on it is captured as any other.
    let definition = site.data.join("machines").join(&plain).join("vm.toml");
    let text = fs::read_to_string(&definition).unwrap();
    fs::write(&definition, text + "[qemu]\noverlay_ok = true\n").unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let created = wire.create(&group, "both").unwrap();
        if created.value == STARTED {
            assert_eq!(wire.end(&created.job.unwrap()).unwrap().state, 7);
            break;
        }
        assert!(std::time::Instant::now() < until, "{}", wire.why(&created));
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn where_images_are_cloned_no_overlay_needs_to_be_allowed() {
    for ground in [Ground::Xfs, Ground::Btrfs] {
        let site = Site::new(ground);
        let image = site.image("web", Image::Chain, 1);
        let args = ["--json", "vm", "import", "web", image.to_str().unwrap()];
        let out = crate::support::server::run_in(&site.data, &args, "");
        let shown: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(shown["notClonable"], serde_json::json!([]));
        assert!(!site.images.join(".groupshot").exists(), "left nothing");
        let config = |extents: u32| format!("[snapshot]\nclone_extents = {extents}\n");
        let server = site.serve_configured(&config(20000));
        let wire = Wire::new(&server);
        let group = wire
            .define("all", &[shown["id"].as_str().unwrap()])
            .unwrap();
        wire.take(&group, "cloned");
        drop((wire, server));
        // Too many pieces for a clone, and no overlay allowed.
        let server = site.serve_configured(&config(0));
        let wire = Wire::new(&server);
        let refused = wire.create(&group, "x").unwrap();
        assert_eq!(refused.value, INVALID_STATE);
        let why = wire.why(&refused);
        assert!(
            why.contains("clone_extents") && why.contains("overlay_ok"),
            "{why}"
        );
    }
}

/// A set that would make a chain deeper than the cap is refused and named, until one is destroyed.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_chain_at_its_cap_refuses_the_set_until_another_is_destroyed() {
    let site = Site::new(Ground::Host);
    let machine = site.machine("web", &[Image::Raw], 1);
    let server = site.serve_configured("[snapshot]\nchain_cap = 3\n");
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&machine.id]).unwrap();
    let sets = ["a", "b"].map(|name| wire.take(&group, name));
    site.wait_for_journals();
    let before = site.tree();
    let refused = wire.create(&group, "c").unwrap();
    assert_eq!(refused.value, INVALID_STATE);
    let why = wire.why(&refused);
    assert!(why.contains("web") && why.contains("chain_cap"), "{why}");
    assert_eq!(site.tree(), before);
    let destroyed = wire.destroy(&sets[0]).unwrap();
    assert_eq!(wire.end(&destroyed.job.unwrap()).unwrap().state, 7);
    wire.take(&group, "c");
}
