//! Images of every make that QEMU has: captured, exported, applied, merged, each against QEMU's own reading; and what
//! is refused of them, before anything is written.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{IFlags, XattrFlags};

use crate::support::server::{Server, run_in, text};
use crate::support::site::{Ground, Image, Machine, SIZE, Site, assert_holds};
use crate::support::tools::{
    self, Mount, assert_clean, assert_equal, forget_backing_format, run, try_run,
};
use crate::support::wire::{STARTED, Wire};

use super::scene::Scene;

const INVALID_STATE: u64 = 5;

fn path(file: &Path) -> &str {
    file.to_str().unwrap()
}

/// Virtual size in bytes as QEMU shows it.
fn virtual_size(image: &Path) -> u64 {
    let told = run("qemu-img", &["info", "-U", "--output=json", path(image)]);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    told["virtual-size"].as_u64().unwrap()
}

/// An image with something in every kind of cluster.
fn image(site: &Site, name: &str, options: &str) -> PathBuf {
    let (raw, image) = (site.images.join("content.raw"), site.images.join(name));
    let text: Vec<u8> = (0..3 << 20).map(|n: u32| (n / 700 % 251) as u8).collect();
    fs::write(&raw, text).unwrap();
    let convert = ["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options];
    run(
        "qemu-img",
        &[&convert[..], &[path(&raw), path(&image)]].concat(),
    );
    fs::remove_file(raw).unwrap();
    tools::write(&image, "qcow2", 9, "100k", "3k");
    let zero = [
        "-c",
        "write -z 700k 70k",
        "-c",
        "discard 1M 256k",
        path(&image),
    ];
    run("qemu-io", &zero);
    image
}

/// What the disk holds, as QEMU reads it.
fn content(site: &Site, name: &str, top: &Path) -> PathBuf {
    let raw = site.images.join(name);
    run(
        "qemu-img",
        &["convert", "-U", "-O", "raw", path(top), path(&raw)],
    );
    raw
}

fn import(site: &Site, name: &str, image: &Path) -> Machine {
    site.import(name, &["--overlay-ok", path(image)], vec![vec![0; SIZE]])
}

fn destroy(site: &Site, wire: &Wire, set: &str) -> String {
    let gone = wire.destroy(set).unwrap();
    assert_eq!(gone.value, STARTED, "{}", wire.why(&gone));
    let job = wire.end(&gone.job.unwrap()).unwrap();
    assert_eq!(job.state, 7, "{job:?}");
    site.wait_for_journals();
    job.status
}

fn exporting(site: &Site, more: &str) -> (Server, PathBuf) {
    let out = site.images.join("out");
    let _there = fs::create_dir(&out);
    let roots = format!("[export]\nroots = [\"{}\"]\n{more}", out.display());
    (site.serve_configured(&roots), out)
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn packed_and_subclustered_images_are_exported_applied_and_merged() {
    for options in [
        "compat=0.10,cluster_size=4k",
        "cluster_size=512",
        "compression_type=zstd,cluster_size=2M",
        "compression_type=zstd,cluster_size=4k",
        "extended_l2=on,cluster_size=16k",
        "extended_l2=on,compression_type=zstd,cluster_size=128k",
        "extended_l2=on,refcount_bits=64,cluster_size=2M",
    ] {
        let site = Site::new(Ground::Host);
        let image = image(&site, "disk.qcow2", options);
        let machine = import(&site, "web", &image);
        let (server, out) = exporting(&site, "");
        let wire = Wire::new(&server);
        let group = wire.define("all", &[&machine.id]).unwrap();
        let before = content(&site, "before.raw", &image);
        let first = wire.take(&group, "first");
        site.wait_for_journals();
        let top = site.top(&machine, 0);
        tools::write(&top, "qcow2", 7, "101k", "512");
        tools::write(&top, "qcow2", 8, "1100k", "300k");
        run("qemu-io", &["-c", "write -z 2M 1k", path(&top)]);
        let after = content(&site, "after.raw", &top);
        let second = wire.take(&group, "second");
        site.wait_for_journals();

        let exported = wire.export(&first, path(&out), None).unwrap();
        assert_eq!(exported.value, STARTED, "{}", wire.why(&exported));
        let job = wire.end(&exported.job.unwrap()).unwrap();
        assert_eq!(job.state, 7, "{options}: {job:?}");
        let exported = out.join("first").join("web").join("disk0.qcow2");
        let exported = if exported.exists() {
            exported
        } else {
            found(&out)
        };
        assert_equal((&exported, "qcow2"), (&before, "raw"));
        assert_clean(&exported);

        let applied = wire.apply(&first).unwrap();
        let applied = wire.end(&applied.job.unwrap()).unwrap();
        assert_eq!(applied.state, 7, "{options}: {applied:?}");
        site.wait_for_journals();
        assert_equal((&site.top(&machine, 0), "qcow2"), (&before, "raw"));
        let applied = wire.apply(&second).unwrap();
        assert_eq!(wire.end(&applied.job.unwrap()).unwrap().state, 7);
        site.wait_for_journals();
        for set in [second, first] {
            let said = destroy(&site, &wire, &set);
            assert!(!said.contains("hidden"), "{options}: {said}");
        }
        assert_eq!(site.top(&machine, 0), image, "{options}");
        assert_equal((&image, "qcow2"), (&after, "raw"));
        assert_clean(&image);
        assert_eq!(site.kept(), Vec::<PathBuf>::new(), "{options}");
    }
}

/// The one image of an export.
fn found(out: &Path) -> PathBuf {
    let entries = fs::read_dir(out).unwrap().map(|e| e.unwrap().path());
    let mut found: Vec<_> = entries
        .flat_map(|e| match e.is_dir() {
            true => vec![found_in(&e)],
            false => Vec::new(),
        })
        .flatten()
        .collect();
    found.pop().unwrap()
}

fn found_in(folder: &Path) -> Option<PathBuf> {
    let mut entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    entries.find_map(|e| match e.is_dir() {
        true => found_in(&e),
        false => e.ends_with("disk0.qcow2").then_some(e),
    })
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_size_that_is_no_multiple_of_512_is_shown_as_qemu_shows_it() {
    let site = Site::new(Ground::Host);
    let image = site.images.join("odd.qcow2");
    run(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", path(&image), "6M"],
    );
    let file = File::options().write(true).open(&image).unwrap();
    file.write_all_at(&((6_u64 << 20) + 100).to_be_bytes(), 24)
        .unwrap();
    let raw = site.images.join("odd.raw");
    fs::write(&raw, vec![5; (1 << 20) + 100]).unwrap();
    let expected = [(&image, 6 << 20), (&raw, (1 << 20) + 512)];
    for (file, size) in expected {
        assert_eq!(virtual_size(file), size, "{}", file.display());
        let name = file.extension().unwrap().to_str().unwrap();
        let machine = import(&site, name, file);
        let (server, out) = exporting(&site, "");
        let wire = Wire::new(&server);
        let group = wire.define(name, &[&machine.id]).unwrap();
        let set = wire.take(&group, name);
        site.wait_for_journals();
        assert_eq!(virtual_size(&site.top(&machine, 0)), size);
        let exported = wire.export(&set, path(&out), None).unwrap();
        assert_eq!(wire.end(&exported.job.unwrap()).unwrap().state, 7);
        assert_eq!(virtual_size(&found(&out)), size);
        site.wait_for_journals();
        destroy(&site, &wire, &set);
        assert_eq!(virtual_size(file), size);
        fs::remove_dir_all(out).unwrap();
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_image_whose_header_names_no_backing_format_holds_up_nobody() {
    let site = Site::new(Ground::Host);
    let base = site.image("base", Image::Qcow2, 1);
    let old = site.images.join("old.qcow2");
    let over = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"];
    run(
        "qemu-img",
        &[&over[..], &[path(&base), path(&old)]].concat(),
    );
    forget_backing_format(&old);
    let machine = import(&site, "old", &old);
    let mut other = site.machine("other", &[Image::Qcow2], 2);
    let server = site.serve();
    let wire = Wire::new(&server);
    let both = wire.define("both", &[&machine.id, &other.id]).unwrap();
    let alone = wire.define("alone", &[&other.id]).unwrap();
    for group in [&both, &alone] {
        let set = wire.take(group, "x");
        site.wait_for_journals();
        let top = site.top(&other, 0);
        other.write(&top, 0, 4096, 4096, 3);
        let said = destroy(&site, &wire, &set);
        assert!(!said.contains("hidden"), "{said}");
        assert_eq!(site.kept(), Vec::<PathBuf>::new());
    }
    drop(server);
    let file = base.with_extension("img");
    fs::rename(&base, &file).unwrap();
    let unsafe_rebase = ["rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b"];
    run(
        "qemu-img",
        &[&unsafe_rebase[..], &[path(&file), path(&old)]].concat(),
    );
    forget_backing_format(&old);
    let again = site.images.join("again.qcow2");
    fs::copy(&old, &again).unwrap();
    let refused = run_in(&site.data, &["vm", "import", "again", path(&again)], "");
    let said = text(&refused.stderr);
    assert!(
        said.contains("backing file") && said.contains("qemu-img rebase -u"),
        "{said}"
    );
    // What was recorded at the import holds; without it the image is refused, and others are merged all the same.
    let mut server = site.serve();
    let wire = Wire::new(&server);
    let set = wire.take(&both, "recorded");
    site.wait_for_journals();
    destroy(&site, &wire, &set);
    server.stop();
    unrecord(&site, &machine, "backing_formats");
    let server = site.serve();
    let wire = Wire::new(&server);
    let refused = wire.create(&both, "y").unwrap();
    assert_eq!(refused.value, INVALID_STATE);
    let why = wire.why(&refused);
    assert!(why.contains("vm set old --backing-format"), "{why}");
    let set = wire.take(&alone, "z");
    site.wait_for_journals();
    let said = destroy(&site, &wire, &set);
    assert!(!said.contains("hidden"), "{said}");
    assert_eq!(site.kept(), Vec::<PathBuf>::new());
    for target in ["disk0=qcow2", &format!("{}=qcow2", path(&old))] {
        unrecord(&site, &machine, "backing_formats");
        let set = ["vm", "set", "old", "--backing-format", target, "--yes"];
        let out = run_in(&site.data, &set, "");
        assert!(out.status.success(), "{}", text(&out.stderr));
    }
    std::thread::sleep(std::time::Duration::from_millis(1500)); // the server looks once a second
    wire.take(&both, "again");
    site.wait_for_journals();
}

/// Takes a record out of `tops.json`, as if an older version had written it.
fn unrecord(site: &Site, machine: &Machine, key: &str) {
    let file = site
        .data
        .join("machines")
        .join(&machine.id)
        .join("tops.json");
    let tops = fs::read(&file).unwrap();
    let mut tops: serde_json::Value = serde_json::from_slice(&tops).unwrap();
    for key in [key, "checksum"] {
        tops.as_object_mut().unwrap().remove(key);
    }
    fs::write(&file, tops.to_string()).unwrap();
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_machine_whose_image_is_away_holds_up_what_its_image_lies_on_and_nothing_else() {
    let site = Site::new(Ground::Host);
    let mut web = site.machine("web", &[Image::Raw], 1);
    let other = site.machine("other", &[Image::Qcow2], 2);
    let image = &other.images[0];
    let aside = image.with_extension("aside");
    for (lies, again) in [(false, false), (true, false), (true, true)] {
        let mut server = site.serve();
        let mut wire = Wire::new(&server);
        let group = wire.define("all", &[&web.id]).unwrap();
        let first = wire.take(&group, "first");
        site.wait_for_journals();
        let top = site.top(&web, 0);
        web.write(&top, 0, 8192, 4096, 3);
        let second = wire.take(&group, "second");
        site.wait_for_journals();
        let active = site.top(&web, 0);
        web.write(&active, 0, 4096, 4096, 4);
        if lies {
            // Somebody puts the other machine onto what the set keeps of this one.
            let onto = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"];
            run(
                "qemu-img",
                &[&onto[..], &[path(&top), path(image)]].concat(),
            );
        }
        let before = content(&site, "other.raw", image);
        std::thread::sleep(std::time::Duration::from_millis(1500)); // the server looks once a second
        let _looked = wire.shown().unwrap();
        fs::rename(image, &aside).unwrap();
        if again {
            server.stop();
            server = site.serve();
            wire = Wire::new(&server);
        }
        let said = destroy(&site, &wire, &second);
        assert_eq!(said.contains(path(image)), lies, "{said}");
        let merged = site.top(&web, 0) == top;
        assert_eq!(merged, !lies, "{said}");
        fs::rename(&aside, image).unwrap();
        assert_equal((image, "qcow2"), (&before, "raw"));
        assert_holds(&site.top(&web, 0), &web.content[0], "active");
        run(
            "qemu-img",
            &["create", "-q", "-f", "qcow2", path(image), "1M"],
        );
        destroy(&site, &wire, &first);
        server.stop();
    }
}

/// The image is where nothing can be cloned, and the overlay over it where it can: later sets are clones of that.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_was_cloned_beside_an_overlay_is_no_orphan() {
    let site = Site::with_data_on(Mount::file_system("xfs"));
    let machine = site.machine("web", &[Image::Raw], 1);
    let server = site.serve();
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&machine.id]).unwrap();
    let sets = ["first", "second", "third"].map(|name| wire.take(&group, name));
    site.wait_for_journals();
    let beside = |file: &PathBuf| file.ends_with(".groupshot");
    assert!(site.kept().iter().any(beside), "{:?}", site.kept());
    let before = site.tree();
    let said = run_in(&site.data, &["doctor", "--fix", "--yes"], "");
    assert_eq!(text(&said.stdout), "all is well\n");
    assert_eq!(site.tree(), before);
    for set in sets {
        destroy(&site, &wire, &set);
    }
    assert!(site.kept().is_empty(), "{:?}", site.kept());
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_layer_under_an_active_file_that_cannot_be_read_is_no_orphan() {
    let site = Site::new(Ground::Host);
    let mut machine = site.machine("web", &[Image::Raw], 1);
    let mut server = site.serve();
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&machine.id]).unwrap();
    wire.take(&group, "first");
    site.wait_for_journals();
    let layer = site.top(&machine, 0);
    machine.write(&layer, 0, 8192, 4096, 3);
    run("qemu-img", &["bitmap", "--add", path(&layer), "backup"]);
    let second = wire.take(&group, "second");
    site.wait_for_journals();
    let said = destroy(&site, &wire, &second);
    assert!(said.contains("hidden layers: 1"), "{said}");
    server.stop();
    let top = site.top(&machine, 0);
    let file = File::options().read(true).write(true).open(&top).unwrap();
    let mut magic = [0; 4];
    file.read_exact_at(&mut magic, 0).unwrap();
    file.write_all_at(&[0; 4], 0).unwrap();
    let out = run_in(&site.data, &["doctor", "--fix", "--yes"], "");
    let said = text(&out.stdout);
    assert!(!said.contains("orphan") && layer.exists(), "{said}");
    file.write_all_at(&magic, 0).unwrap();
    assert_holds(&top, &machine.content[0], "active");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_raw_image_that_was_cut_off_is_refused_until_somebody_says_it_is_whole() {
    let site = Site::new(Ground::Host);
    let machine = site.machine("web", &[Image::Raw], 1);
    let image = &machine.images[0];
    let half = u64::try_from(SIZE / 2).unwrap();
    let file = File::options().write(true).open(image).unwrap();
    file.set_len(half).unwrap();
    let server = site.serve();
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&machine.id]).unwrap();
    let before = site.tree();
    let refused = wire.create(&group, "x").unwrap();
    assert_eq!(refused.value, INVALID_STATE);
    let why = wire.why(&refused);
    assert!(
        why.contains(path(image)) && why.contains("vm set web --accept-size disk0"),
        "{why}"
    );
    assert_eq!(site.tree(), before);
    let found = run_in(&site.data, &["doctor"], "");
    let found = text(&found.stdout);
    assert!(
        found.contains("image-unreadable") && found.contains("cut off"),
        "{found}"
    );
    let accept = ["vm", "set", "web", "--accept-size", "disk0", "--yes"];
    let out = run_in(&site.data, &accept, "");
    assert!(out.status.success(), "{}", text(&out.stderr));
    std::thread::sleep(std::time::Duration::from_millis(1500)); // the server looks once a second
    wire.take(&group, "x");
    site.wait_for_journals();
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_bitmap_in_use_is_removed_as_the_refusal_says() {
    let site = Site::new(Ground::Host);
    let image = site.image("disk", Image::Qcow2, 1);
    run("qemu-img", &["bitmap", "--add", path(&image), "backup"]);
    let file = File::options().read(true).write(true).open(&image).unwrap();
    let mut header = [0; 4096];
    file.read_exact_at(&mut header, 0).unwrap();
    let kind = [0x23, 0x85, 0x28, 0x75];
    let at = header.windows(4).position(|w| w == kind).unwrap();
    let directory = u64::from_be_bytes(header[at + 24..at + 32].try_into().unwrap());
    file.write_all_at(&3_u32.to_be_bytes(), directory + 12)
        .unwrap();
    let refused = run_in(&site.data, &["vm", "import", "web", path(&image)], "");
    let said = text(&refused.stderr);
    let advice = format!("qemu-img bitmap --remove {} backup", path(&image));
    assert!(said.contains(&advice), "{said}");
    let words: Vec<_> = advice.split(' ').skip(1).collect();
    run("qemu-img", &words);
    import(&site, "web", &image);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_cannot_be_captured_is_refused_with_its_reason_before_anything_is_written() {
    let site = Site::new(Ground::Host);
    let mut deep = site.images.clone();
    while deep.as_os_str().len() < 900 {
        deep.push("a-folder-with-a-name-of-some-length-in-which-another-one-lies");
    }
    deep.push("b".repeat(180));
    fs::create_dir_all(&deep).unwrap();
    let long = deep.join("disk.raw");
    fs::write(&long, vec![1; SIZE]).unwrap();
    let huge = site.images.join("huge.qcow2");
    let create = ["create", "-q", "-f", "qcow2", "-o", "cluster_size=2M"];
    run("qemu-img", &[&create[..], &[path(&huge), "1E"]].concat());
    let short = site.image("short", Image::Qcow2, 3);
    let wanted = [
        ("long", long, "1023"),
        ("huge", huge, "2 PiB"),
        ("short", short.clone(), "cut off"),
    ];
    let machines = wanted.map(|(name, file, word)| (import(&site, name, &file), word));
    let half = short.metadata().unwrap().len() / 2;
    File::options()
        .write(true)
        .open(&short)
        .unwrap()
        .set_len(half)
        .unwrap();
    let server = site.serve();
    let wire = Wire::new(&server);
    for (machine, word) in machines {
        let group = wire.define(&machine.name, &[&machine.id]).unwrap();
        let before = site.tree();
        let checked = server.cli(&["snapshot", "create", &machine.name, "--check"]);
        let checked = text(&checked.stdout).to_owned() + &text(&checked.stderr);
        assert!(checked.contains(word), "{}: {checked}", machine.name);
        let refused = wire.create(&group, "x").unwrap();
        assert_eq!(refused.value, INVALID_STATE, "{}", machine.name);
        let why = wire.why(&refused);
        assert!(
            why.contains(word) && why.contains(path(&machine.images[0])),
            "{why}"
        );
        assert_eq!(site.tree(), before, "{}", machine.name);
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn the_check_up_tells_of_an_active_file_that_was_cut_off_as_the_next_set_would() {
    let mut scene = Scene::bare();
    let mut server = scene.site.serve();
    scene.take(&server, 2);
    let top = scene.site.top(&scene.machine, 0);
    scene.machine.write(&top, 0, 0, 256 << 10, 9);
    assert!(!scene.doctor(&[]).1.contains("image-unreadable"));
    let file = File::options().write(true).open(&top).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    let wire = Wire::new(&server);
    let refused = wire.create(&scene.group, "x").unwrap();
    assert_eq!(refused.value, INVALID_STATE);
    let why = wire.why(&refused);
    assert!(why.contains("cut off") && why.contains(path(&top)), "{why}");
    let tells = || {
        let (code, said) = scene.doctor(&[]);
        let line = said.lines().find(|l| l.contains("image-unreadable"));
        assert!(
            line.is_some_and(|l| l.contains("machine web, disk disk0")),
            "{said}"
        );
        assert!(said.contains(path(&top)) && code == Some(1), "{said}");
    };
    tells();
    server.stop();
    tells();
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_link_that_no_file_system_of_the_data_directory_can_hold_is_told_as_such() {
    let site = Site::with_data_on(Mount::file_system("xfs"));
    let mut deep = site.images.clone();
    while deep.as_os_str().len() < 1020 {
        deep.push("a-folder-with-a-name-of-some-length-in-which-another-one-lies");
    }
    fs::create_dir_all(&deep).unwrap();
    let long = deep.join("disk.raw");
    fs::write(&long, vec![1; SIZE]).unwrap();
    import(&site, "long", &long);
    let out = run_in(&site.data, &["vm", "path", "long"], "");
    let said = text(&out.stderr);
    let bytes = format!("it has {} bytes", long.as_os_str().len());
    assert!(said.contains(&bytes) && said.contains("1023"), "{said}");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_disk_too_large_for_an_exported_image_is_captured_and_its_export_refused() {
    let site = Site::new(Ground::Xfs);
    let huge = site.images.join("huge.qcow2");
    let create = ["create", "-q", "-f", "qcow2", "-o", "cluster_size=2M"];
    run("qemu-img", &[&create[..], &[path(&huge), "1E"]].concat());
    let machine = import(&site, "huge", &huge);
    let (server, out) = exporting(&site, "");
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&machine.id]).unwrap();
    let set = wire.take(&group, "x");
    site.wait_for_journals();
    let refused = wire.export(&set, path(&out), None).unwrap();
    let why = wire.why(&refused);
    assert_eq!(refused.value, 32775);
    assert!(why.contains("1 EiB"), "{why}");
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
    let applied = wire.apply(&set).unwrap();
    assert_eq!(wire.end(&applied.job.unwrap()).unwrap().state, 7);
}

/// Mode, flags, project with the extent size hints, and attributes of a file.
fn kept(file: &Path) -> (u32, u32, [String; 3], Vec<Vec<u8>>) {
    let open = File::open(file).unwrap();
    let flags = IFlags::NODUMP | IFlags::NOATIME;
    let flags = rustix::fs::ioctl_getflags(&open).unwrap() & flags;
    let told = ["lsproj", "extsize", "cowextsize"].map(|asked| {
        match try_run("xfs_io", &["-r", "-c", asked, path(file)]) {
            (true, said) => said,
            (false, _) => String::new(), // no XFS
        }
    });
    let attributes = ["user.note", "trusted.note"].map(|name| {
        let mut value = vec![0; 64];
        let length = rustix::fs::fgetxattr(&open, name, value.as_mut_slice()).unwrap_or(0);
        value.truncate(length);
        value
    });
    (
        open.metadata().unwrap().mode() & 0o7777,
        flags.bits(),
        told,
        attributes.to_vec(),
    )
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_apply_keeps_mode_flags_project_hints_and_attributes() {
    for ground in [Ground::Xfs, Ground::Btrfs] {
        for mode in [0o444, 0o640, 0o4755] {
            let site = Site::new(ground);
            // QEMU's tools give each image an extent size hint of 1 MiB.
            let machine = site.machine("web", &[Image::Qcow2], 1);
            let plain = site.machine("plain", &[Image::Raw], 1);
            if ground == Ground::Xfs {
                // What is made in the folder from now on has this one at first.
                let set = ["-r", "-c", "extsize 131072", path(&site.images)];
                run("xfs_io", &set);
            }
            let image = &machine.images[0];
            let open = File::open(image).unwrap();
            for name in ["user.note", "trusted.note"] {
                rustix::fs::fsetxattr(&open, name, name.as_bytes(), XattrFlags::empty()).unwrap();
            }
            let flags = rustix::fs::ioctl_getflags(&open).unwrap();
            rustix::fs::ioctl_setflags(&open, flags | IFlags::NODUMP | IFlags::NOATIME).unwrap();
            if ground == Ground::Xfs {
                let set = ["-r", "-c", "chproj 42", "-c", "cowextsize 65536"];
                run("xfs_io", &[&set[..], &[path(image)]].concat());
            }
            fs::set_permissions(image, fs::Permissions::from_mode(mode)).unwrap();
            let (before, plainly) = (kept(image), kept(&plain.images[0]));
            if ground == Ground::Xfs {
                assert!(before.2[1].contains("[1048576]"), "{before:?}");
                assert!(before.2[2].contains("[65536]"), "{before:?}");
                assert!(plainly.2[1].contains("[0]"), "{plainly:?}");
            }
            let server = site.serve();
            let wire = Wire::new(&server);
            let group = wire.define("all", &[&machine.id, &plain.id]).unwrap();
            let set = wire.take(&group, "x");
            site.wait_for_journals();
            let inode = image.metadata().unwrap().ino();
            let applied = wire.apply(&set).unwrap();
            let job = wire.end(&applied.job.unwrap()).unwrap();
            assert_eq!(job.state, 7, "{job:?}");
            site.wait_for_journals();
            assert_ne!(image.metadata().unwrap().ino(), inode, "replaced");
            assert_eq!(kept(image), before, "{ground:?} {mode:o}");
            assert_eq!(kept(&plain.images[0]), plainly, "{ground:?}");
            assert_eq!(before.0, mode);
        }
    }
}

/// On ext4 the disk goes on in an overlay, which has them too.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_apply_over_overlays_keeps_the_inode_flags_of_ext4() {
    let (images, data) = (Mount::file_system("ext4"), Mount::file_system("ext4"));
    let site = Site::on(&images, &data);
    let machine = site.machine("web", &[Image::Raw], 1);
    run("chattr", &["+A", "+d", "+s", path(&machine.images[0])]);
    let server = site.serve();
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&machine.id]).unwrap();
    let set = wire.take(&group, "x");
    site.wait_for_journals();
    let flags = |file: &Path| {
        let told = run("lsattr", &[path(file)]);
        let told = told.split(' ').next().unwrap().to_owned();
        ["A", "d", "s"].map(|flag| told.contains(flag))
    };
    // A file of ours that nobody may write would be taken for one that a set keeps.
    for (given, wanted) in [(0o440, 0o640), (0o660, 0o660)] {
        let before = site.top(&machine, 0);
        assert_eq!(flags(&before), [true; 3]);
        fs::set_permissions(&before, fs::Permissions::from_mode(given)).unwrap();
        let applied = wire.apply(&set).unwrap();
        let job = wire.end(&applied.job.unwrap()).unwrap();
        assert_eq!(job.state, 7, "{job:?}");
        site.wait_for_journals();
        let top = site.top(&machine, 0);
        assert_ne!(top, before);
        assert_eq!(flags(&top), [true; 3], "{job:?}");
        let mode = top.metadata().unwrap().mode() & 0o7777;
        assert_eq!(mode, wanted, "{job:?}");
    }
    assert!(server.log().contains("lost=mode 440"), "{}", server.log());
}

/// An overlay that a machine goes on in has to be written. That its image was not is told.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_overlay_over_an_image_that_is_only_read_is_told() {
    let site = Site::new(Ground::Ext4);
    let machine = site.machine("web", &[Image::Raw], 1);
    fs::set_permissions(&machine.images[0], fs::Permissions::from_mode(0o444)).unwrap();
    let server = site.serve();
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&machine.id]).unwrap();
    wire.take(&group, "x");
    let mode = site.top(&machine, 0).metadata().unwrap().mode() & 0o7777;
    assert_eq!(mode, 0o644);
    let log = server.log();
    assert_eq!(log.matches("mode 444").count(), 1, "{log}");
    assert!(log.contains("lost=mode 444"), "{log}");
}

/// The overlay lies on a file system that has no hints, no projects, or neither flags nor anything else.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_the_file_system_of_an_overlay_does_not_have_is_told() {
    for data in [
        Mount::file_system("ext4"),
        Mount::file_system("btrfs"),
        Mount::tmpfs("size=256m"),
    ] {
        let images = Mount::file_system_with("xfs", &["-m", "reflink=0"]);
        let site = Site::on(&images, &data);
        // QEMU's tools give each image an extent size hint of 1 MiB: that nobody has chosen.
        let plain = site.machine("plain", &[Image::Qcow2], 1);
        let chosen = site.machine("chosen", &[Image::Raw], 1);
        let told = |file: &Path| run("xfs_io", &["-r", "-c", "extsize", path(file)]);
        assert!(told(&plain.images[0]).contains("[1048576]"));
        let image = &chosen.images[0];
        // A hint can be given as long as there is no content.
        let content = fs::read(image).unwrap();
        File::create(image).unwrap();
        let set = ["-c", "extsize 131072", "-c", "chattr +f", "-c", "chproj 42"];
        run("xfs_io", &[&set[..], &[path(image)]].concat());
        let mut open = File::options().write(true).open(image).unwrap();
        std::io::Write::write_all(&mut open, &content).unwrap();
        let server = site.serve();
        let wire = Wire::new(&server);
        let group = wire.define("all", &[&plain.id, &chosen.id]).unwrap();
        let set = wire.take(&group, "x");
        let lost = [
            "extent size hint of 131072 bytes",
            "from being defragmented",
            "project id 42",
        ];
        let log = server.log();
        for lost in lost {
            assert!(log.contains(lost), "{lost}: {log}");
        }
        assert!(!log.contains("1048576"), "{log}");
        site.wait_for_journals();
        // The overlay has none of it, so an apply loses nothing.
        let applied = wire.apply(&set).unwrap();
        let job = wire.end(&applied.job.unwrap()).unwrap();
        assert_eq!(job.state, 7, "{job:?}");
    }
}

/// Where it has them, an overlay gets the hints of the image.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_overlay_on_xfs_has_the_hints_of_its_image() {
    let mount = Mount::file_system_with("xfs", &["-m", "reflink=0"]);
    let site = Site::whole_on(&mount);
    let machine = site.machine("web", &[Image::Qcow2], 1);
    run("xfs_io", &["-c", "chattr +f", path(&machine.images[0])]);
    let server = site.serve();
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&machine.id]).unwrap();
    let set = wire.take(&group, "x");
    site.wait_for_journals();
    let hints = |file: &Path| {
        ["extsize", "lsattr"].map(|asked| {
            let told = run("xfs_io", &["-r", "-c", asked, path(file)]);
            told.split([' ', '\n']).next().unwrap().to_owned()
        })
    };
    let (image, captured) = (hints(&machine.images[0]), site.top(&machine, 0));
    assert!(
        image[0].contains("[1048576]") && image[1].contains('f'),
        "{image:?}"
    );
    assert_ne!(captured, machine.images[0]);
    assert_eq!(hints(&captured), image);
    let applied = wire.apply(&set).unwrap();
    let job = wire.end(&applied.job.unwrap()).unwrap();
    assert_eq!(job.state, 7, "{job:?}");
    site.wait_for_journals();
    assert_eq!(hints(&site.top(&machine, 0)), image);
    let log = server.log();
    assert!(!log.contains("does not keep all"), "{log}");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_image_of_another_project_than_its_folder_is_refused_before_an_apply() {
    let site = Site::new(Ground::Xfs);
    let machine = site.machine("web", &[Image::Raw], 1);
    let folder = ["-r", "-c", "chproj 7", "-c", "chattr +P"];
    run("xfs_io", &[&folder[..], &[path(&site.images)]].concat());
    let server = site.serve();
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&machine.id]).unwrap();
    let set = wire.take(&group, "x");
    site.wait_for_journals();
    let applied = wire.apply(&set).unwrap();
    let job = wire.end(&applied.job.unwrap()).unwrap();
    assert_eq!(job.state, 10, "{job:?}");
    assert!(job.error.contains("project"), "{job:?}");
    site.wait_for_journals();
    run(
        "xfs_io",
        &["-r", "-c", "chproj 7", path(&machine.images[0])],
    );
    let applied = wire.apply(&set).unwrap();
    let job = wire.end(&applied.job.unwrap()).unwrap();
    assert_eq!(job.state, 7, "{job:?}");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn the_doctor_says_what_it_did_and_not_what_it_tried() {
    let site = Site::new(Ground::Host);
    let mut machine = site.machine("web", &[Image::Qcow2], 1);
    let image = machine.images[0].clone();
    let server = site.serve_with(&["merge.filled#1=error", "merge.filled#2=error"]);
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&machine.id]).unwrap();
    let set = wire.take(&group, "x");
    site.wait_for_journals();
    let top = site.top(&machine, 0);
    machine.write(&top, 0, 4096, 512, 2);
    let said = destroy(&site, &wire, &set);
    assert!(said.contains("hidden layers: 1"), "{said}");
    let fix = || {
        let out = run_in(&site.data, &["doctor", "--fix", "--yes"], "");
        (
            out.status.code(),
            text(&out.stdout).to_owned() + &text(&out.stderr),
        )
    };
    let (code, said) = fix();
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("it is still so") && said.contains("merge.filled"),
        "{said}"
    );
    let (code, said) = fix();
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("hidden layers of machine web that were merged: 1"),
        "{said}"
    );
    assert_holds(&image, &machine.content[0], "merged");
    assert_eq!(site.top(&machine, 0), image);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_chain_that_was_imported_deep_is_no_finding() {
    let site = Site::new(Ground::Host);
    let mut below = site.image("base", Image::Qcow2, 1);
    for n in 0..30 {
        let next = site.images.join(format!("layer{n}.qcow2"));
        let over = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"];
        run(
            "qemu-img",
            &[&over[..], &[path(&below), path(&next)]].concat(),
        );
        below = next;
    }
    import(&site, "deep", &below);
    let out = run_in(&site.data, &["doctor"], "");
    let said = text(&out.stdout);
    assert!(!said.contains("chain-deep"), "{said}");
}
