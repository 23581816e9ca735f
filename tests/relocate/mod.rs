//! The data directory and the image folders are moved: `groupshot relocate` writes the new paths, all or, after a
//! kill, the rest; then every disk and every set is what it was, and can be worked on.

mod copied;
mod linked;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use groupshot::server::RELOCATE_FAILPOINTS;

use crate::support::server::{binary, run_in, text};
use crate::support::site::{Ground, Image, Machine, Site, assert_holds};
use crate::support::tools::{self};
use crate::support::wire::{STARTED, Wire};

/// A site with sets, and what each set must hold.
struct Filled {
    site: Site,
    machines: Vec<Machine>,
    group: String,
    /// By id, in the order in which they were taken: the disks of every machine.
    sets: Vec<(String, Vec<Vec<Vec<u8>>>)>,
}

/// Machines of every kind with three sets, one of which is a branch. The last one has an absolute backing name.
fn fill(ground: Ground) -> Filled {
    let site = Site::new(ground);
    let mut machines = vec![
        site.machine("web", &[Image::Raw, Image::Qcow2], 1),
        site.machine("db", &[Image::Chain], 2),
    ];
    let server = site.serve();
    let wire = Wire::new(&server);
    let ids: Vec<_> = machines.iter().map(|m| m.id.as_str()).collect();
    let group = wire.define("all", &ids).unwrap();
    let mut sets: Vec<(String, Vec<Vec<Vec<u8>>>)> = Vec::new();
    for (n, name) in ["one", "two", "branch"].into_iter().enumerate() {
        if n == 2 {
            let (first, content) = &sets[0];
            let applied = wire.apply(first).unwrap();
            assert_eq!(wire.end(&applied.job.unwrap()).unwrap().state, 7);
            site.wait_for_journals();
            for (machine, content) in machines.iter_mut().zip(content) {
                machine.content.clone_from(content);
            }
        }
        for machine in &mut machines {
            for disk in 0..machine.images.len() {
                let top = site.top(machine, disk);
                let byte = u8::try_from(10 + n).unwrap();
                machine.write(&top, disk, (n + 1) * 65536, 65536, byte);
            }
        }
        let set = wire.take(&group, name);
        site.wait_for_journals();
        sets.push((set, machines.iter().map(|m| m.content.clone()).collect()));
    }
    for machine in &mut machines {
        let top = site.top(machine, 0);
        machine.write(&top, 0, 4096, 4096, 99);
    }
    drop((wire, server));
    Filled {
        site,
        machines,
        group,
        sets,
    }
}

impl Filled {
    /// Moves both folders; gives where they were, old and new.
    fn move_to(&mut self, data: &Path, images: &Path) -> [(PathBuf, PathBuf); 2] {
        let moved = [
            (self.site.data.clone(), data.to_owned()),
            (self.site.images.clone(), images.to_owned()),
        ];
        for (from, to) in &moved {
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::rename(from, to).unwrap();
        }
        for image in self.machines.iter_mut().flat_map(|m| &mut m.images) {
            *image = images.join(image.file_name().unwrap());
        }
        (self.site.data, self.site.images) = (data.to_owned(), images.to_owned());
        moved
    }

    /// The command for both folders.
    fn relocate(&self, moved: &[(PathBuf, PathBuf)], more: &[&str]) -> Output {
        run_in(&self.site.data, &arguments(moved, more), "")
    }

    /// Every set and every active disk holds what it must, in its new place, with a clean check.
    fn assert_whole(&self, wire: &Wire) {
        let shown = wire.shown().unwrap();
        for (set, content) in &self.sets {
            let set = &shown.sets[set];
            assert!(!set.is_damaged(), "our own writes are no damage: {set:?}");
            for (machine, content) in self.machines.iter().zip(content) {
                let member = set
                    .members
                    .iter()
                    .find(|m| m.machine == machine.id)
                    .unwrap();
                assert!(member.definition.starts_with(&self.site.data), "{member:?}");
                assert!(member.definition.is_file(), "{member:?}");
                for (n, content) in content.iter().enumerate() {
                    let file = &member.disks[&format!("disk{n}")];
                    assert_holds(file, content, &set.name);
                }
            }
        }
        for machine in &self.machines {
            for (n, content) in machine.content.iter().enumerate() {
                let top = &shown.tops[&(machine.id.clone(), format!("disk{n}"))];
                assert_holds(top, content, "active");
            }
        }
    }

    /// The stable link to each active disk leads to it, before any server has looked.
    fn assert_linked(&self) {
        for machine in &self.machines {
            for disk in 0..machine.images.len() {
                let active = self.site.top(machine, disk);
                // To an image that names its backing file from its own folder no link leads.
                if machine.name != "db" || active != machine.images[disk] {
                    assert_linked(&self.site.data, machine, disk, &active);
                }
            }
        }
    }

    /// Nothing of ours and no definition says the old path any more.
    fn assert_forgotten(&self, old: &Path) {
        let old = format!("{}/", old.display());
        for file in self.site.tree().into_keys().filter(|f| f.is_file()) {
            // A copy in a set is the definition as it was at the cut.
            let copy = file.starts_with(self.site.data.join("sets")) && file.ends_with("vm.toml");
            let bytes = fs::read(&file).unwrap();
            let head = &bytes[..bytes.len().min(2048)];
            let said = head.windows(old.len()).any(|w| w == old.as_bytes());
            assert!(copy || !said, "{} says {old}", file.display());
        }
    }
}

fn arguments<'a>(moved: &'a [(PathBuf, PathBuf)], more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["relocate"];
    for (from, to) in moved {
        args.extend([
            "--from",
            from.to_str().unwrap(),
            "--to",
            to.to_str().unwrap(),
        ]);
    }
    args.extend(more);
    args
}

/// The stable link to a disk in this data directory leads to that file.
fn assert_linked(data: &Path, machine: &Machine, disk: usize, active: &Path) {
    let link = data.join(format!("machines/by-name/{}/disk{disk}", machine.name));
    assert_eq!(fs::read_link(&link).unwrap(), active, "{}", link.display());
}

fn ok(out: &Output) -> String {
    assert!(out.status.success(), "{}", text(&out.stderr));
    text(&out.stdout)
}

/// What no relocation may change: modes and owners of every file, by its place in the folder.
fn modes(site: &Site) -> BTreeMap<PathBuf, (u32, u32)> {
    let of = |(path, seen): (PathBuf, crate::support::site::Seen)| {
        let place = path
            .strip_prefix(&site.data)
            .map(|p| Path::new("data").join(p));
        let place = place.or_else(|_| path.strip_prefix(&site.images).map(Path::to_owned));
        (place.unwrap(), (seen.mode, seen.owner.0))
    };
    site.tree().into_iter().map(of).collect()
}

fn every_disk_and_set_goes_along(ground: Ground) {
    let mut filled = fill(ground);
    let (data, images) = (filled.site.data.clone(), filled.site.images.clone());
    let (longer, deep) = (
        "a-name-of-fifty-characters-that-is-longer-than-before",
        "x/y",
    );
    let before = modes(&filled.site);
    let places = [
        (
            data.with_file_name(longer).join("data"),
            images.with_file_name(longer).join("img"),
        ),
        (data.with_file_name("d"), images.with_file_name("i")),
        (
            data.with_file_name(deep).join("data"),
            images.with_file_name(deep).join("images"),
        ),
    ];
    for (data, images) in places {
        let moved = filled.move_to(&data, &images);
        let as_it_was = filled.site.tree();
        let planned = ok(&filled.relocate(&moved, &[]));
        assert!(planned.contains("nothing is written yet"), "{planned}");
        assert!(planned.contains("Yours to change"), "{planned}");
        assert_eq!(filled.site.tree(), as_it_was);
        let told = ok(&filled.relocate(&moved, &["--apply", "--definitions"]));
        assert!(told.contains("written"), "{told}");
        assert_eq!(modes(&filled.site), before);
        for (old, _) in &moved {
            filled.assert_forgotten(old);
        }
        filled.assert_linked();
        let server = filled.site.serve();
        filled.assert_whole(&Wire::new(&server));
        drop(server);
        let again = ok(&filled.relocate(&moved, &["--apply", "--definitions"]));
        assert!(again.contains("nothing in the old place"), "{again}");
    }
    works_on(filled);
}

/// Apply, create, export and destroy of sets that were taken in another place.
fn works_on(mut filled: Filled) {
    let exports = tempfile::tempdir().unwrap();
    let roots = format!("[export]\nroots = [{:?}]\n", exports.path());
    let server = filled.site.serve_configured(&roots);
    let wire = Wire::new(&server);
    let ended = |created: crate::support::wire::Created| {
        assert_eq!(created.value, STARTED, "{}", wire.why(&created));
        let job = wire.end(&created.job.unwrap()).unwrap();
        assert_eq!(job.state, 7, "{job:?}");
        filled.site.wait_for_journals();
    };
    let (second, content) = filled.sets[1].clone();
    ended(
        wire.export(&second, exports.path().to_str().unwrap(), None)
            .unwrap(),
    );
    for (machine, content) in filled.machines.iter().zip(&content) {
        for (n, content) in content.iter().enumerate() {
            let file = format!("{second}/{}/disk{n}.qcow2", machine.id);
            assert_holds(&exports.path().join(file), content, "exported");
        }
    }
    ended(wire.apply(&second).unwrap());
    for (machine, content) in filled.machines.iter_mut().zip(&content) {
        machine.content.clone_from(content);
    }
    filled.assert_whole(&wire);
    let content = filled.machines.iter().map(|m| m.content.clone()).collect();
    filled
        .sets
        .push((wire.take(&filled.group, "later"), content));
    filled.site.wait_for_journals();
    for n in [1, 0, 0, 0] {
        ended(wire.destroy(&filled.sets[n].0).unwrap());
        filled.sets.remove(n);
        filled.assert_whole(&wire);
    }
    assert_eq!(wire.shown().unwrap().sets.len(), 0);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn sets_over_overlays_go_along_to_longer_and_shorter_paths() {
    every_disk_and_set_goes_along(Ground::Host);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn sets_over_clones_go_along_to_longer_and_shorter_paths() {
    every_disk_and_set_goes_along(Ground::Xfs);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn killed_at_each_step_a_relocation_is_finished_by_the_next_run() {
    let mut filled = fill(Ground::Host);
    let mut points: Vec<String> = RELOCATE_FAILPOINTS
        .iter()
        .map(ToString::to_string)
        .collect();
    points.extend(
        ["header.after#2", "active.after#2", "definition.after#2"].map(|p| format!("relocate.{p}")),
    );
    for (n, point) in points.iter().enumerate() {
        let name = ["there", "and-back-again"][n % 2];
        let (data, images) = (filled.site.data.clone(), filled.site.images.clone());
        let (data, images) = (
            data.with_file_name(name),
            images.with_file_name(format!("{name}-i")),
        );
        let moved = filled.move_to(&data, &images);
        let killed = Command::new(binary())
            .args(arguments(
                &moved,
                &["--apply", "--definitions", "--data-dir"],
            ))
            .arg(&filled.site.data)
            .env("GROUPSHOT_FAILPOINTS", format!("{point}=abort"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(
            killed.status.code(),
            None,
            "{point}: {}",
            text(&killed.stderr)
        );
        let begun = !["relocate.planned.before", "relocate.clear.after"].contains(&point.as_str());
        if begun {
            let refused = filled
                .site
                .try_serve(&[])
                .err()
                .expect("no server on half of it");
            assert!(refused.contains("groupshot relocate --apply"), "{refused}");
            let told = ok(&filled.relocate(&[], &[]));
            assert!(told.contains("say --apply to finish"), "{told}");
            let other = filled.relocate(&[("/elsewhere".into(), data.clone())], &["--apply"]);
            assert_eq!(other.status.code(), Some(1), "{}", text(&other.stderr));
        }
        // With nothing but its own record, or as it was called before.
        let again: &[_] = if begun && n % 2 == 0 { &[] } else { &moved };
        ok(&filled.relocate(again, &["--apply", "--definitions"]));
        for (old, _) in &moved {
            filled.assert_forgotten(old);
        }
        filled.assert_linked();
        let server = filled.site.serve();
        filled.assert_whole(&Wire::new(&server));
    }
}

/// Whatever was written by then: the way out is the one that is told.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_relocation_whose_own_record_is_damaged_is_given_again() {
    let mut filled = fill(Ground::Host);
    let points = ["planned", "header", "active", "definition", "records"];
    for (n, point) in points.iter().enumerate() {
        let name = ["there", "and-back-again"][n % 2];
        let (data, images) = (filled.site.data.clone(), filled.site.images.clone());
        let (data, images) = (
            data.with_file_name(name),
            images.with_file_name(format!("{name}-i")),
        );
        let moved = filled.move_to(&data, &images);
        let killed = Command::new(binary())
            .args(arguments(
                &moved,
                &["--apply", "--definitions", "--data-dir"],
            ))
            .arg(&filled.site.data)
            .env(
                "GROUPSHOT_FAILPOINTS",
                format!("relocate.{point}.after=abort"),
            )
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(killed.status.code(), None, "{point}");
        let file = filled.site.data.join("relocate.json");
        let whole = fs::read(&file).unwrap();
        for bytes in [&whole[..whole.len() / 2], b"", b"{}"] {
            fs::write(&file, bytes).unwrap();
            let before = filled.site.tree();
            let start = filled.site.try_serve(&[]).err().expect("on half of it");
            let again = filled.relocate(&moved, &["--apply", "--definitions"]);
            for said in [start, text(&again.stderr)] {
                for part in [file.to_str().unwrap(), "move it away", "groupshot relocate"] {
                    assert!(said.contains(part), "{point}: {part}: {said}");
                }
            }
            assert!(filled.site.tree() == before, "{point}");
        }
        fs::remove_file(&file).unwrap();
        ok(&filled.relocate(&moved, &["--apply", "--definitions"]));
        for (old, _) in &moved {
            filled.assert_forgotten(old);
        }
        // Nobody knows any more who has written the headers of frozen files.
        ok(&run_in(
            &filled.site.data,
            &["doctor", "--fix", "--yes", "--accept-damaged"],
            "",
        ));
        let server = filled.site.serve();
        filled.assert_whole(&Wire::new(&server));
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_is_not_as_it_was_keeps_a_relocation_from_writing_anything() {
    let mut filled = fill(Ground::Host);
    let server = filled.site.serve();
    let busy = filled.relocate(&[("/old".into(), filled.site.data.clone())], &[]);
    assert_eq!(busy.status.code(), Some(4), "{}", text(&busy.stderr));
    drop(server);
    let (data, images) = (
        filled.site.data.with_file_name("d2"),
        filled.site.images.with_file_name("i2"),
    );
    let moved = filled.move_to(&data, &images);
    let refused = |filled: &Filled, moved: &[(PathBuf, PathBuf)], word: &str| {
        let before = filled.site.tree();
        let out = filled.relocate(moved, &["--apply", "--definitions"]);
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{said}");
        assert!(said.contains(word), "{word}: {said}");
        assert!(
            said.contains("nothing is written") || word == "rescue",
            "{said}"
        );
        assert_eq!(filled.site.tree(), before);
    };
    let image = filled.machines[0].images[0].clone();
    let aside = image.with_extension("aside");
    fs::rename(&image, &aside).unwrap();
    refused(&filled, &moved, "is not there");
    fs::write(&image, b"QFI\xfb").unwrap();
    refused(&filled, &moved, "is not the raw image that it was");
    fs::write(&image, [0; 512]).unwrap();
    refused(&filled, &moved, "its disk has 512 bytes, not 1048576");
    fs::rename(&aside, &image).unwrap();
    // Something runs on an overlay whose header would be written.
    let top = filled.site.top(&filled.machines[0], 1);
    let top = filled
        .site
        .data
        .join(top.strip_prefix(&moved[0].0).unwrap());
    let running = tools::Opened::new(&top, &[]);
    refused(&filled, &moved, "in use by another process");
    drop(running);
    let journal = filled.site.data.join("journal/X.log");
    fs::write(&journal, b"x").unwrap();
    refused(&filled, &moved, "rescue");
    fs::remove_file(&journal).unwrap();
    // A server that was killed leaves blank ones, an older version empty ones: nothing is in flight in them.
    fs::write(journal.with_file_name("spare-7.log"), b"").unwrap();
    fs::write(journal.with_file_name("spare-8.log"), vec![0; 64 << 10]).unwrap();
    // Only one of the two folders is named: the rest of each chain still leads to the old place, and is told of.
    let out = filled.relocate(&moved[..1], &[]);
    assert!(ok(&out).contains("nothing is written yet"));
    assert!(
        text(&out.stderr).contains("no --from tells"),
        "{}",
        text(&out.stderr)
    );
    // The image has another time of status than it was sealed with, for it was renamed itself.
    refused(&filled, &moved, "--accept-copied");
    let confirmed = ["--apply", "--definitions", "--accept-copied"];
    ok(&filled.relocate(&moved, &confirmed));
    filled.assert_whole(&Wire::new(&filled.site.serve()));
}

/// It recorded neither inodes nor seals.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_relocation_that_an_older_version_began_is_finished() {
    let mut filled = fill(Ground::Host);
    let (data, images) = (
        filled.site.data.with_file_name("d3"),
        filled.site.images.with_file_name("i3"),
    );
    let moved = filled.move_to(&data, &images);
    for point in ["planned.after", "header.after#2"] {
        let begun = if point == "planned.after" {
            &moved[..]
        } else {
            &[]
        };
        let killed = Command::new(binary())
            .args(arguments(
                begun,
                &["--apply", "--definitions", "--data-dir"],
            ))
            .arg(&filled.site.data)
            .env("GROUPSHOT_FAILPOINTS", format!("relocate.{point}=abort"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(killed.status.code(), None, "{}", text(&killed.stderr));
        let file = data.join("relocate.json");
        let mut plan: serde_json::Value =
            serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        plan["format"] = 1.into();
        let plan_of = plan.as_object_mut().unwrap();
        plan_of.remove("checksum");
        for (list, new) in [("headers", "inode"), ("seals", "sealed")] {
            let all = plan_of[list].as_array_mut().unwrap();
            assert!(!all.is_empty(), "{list}");
            for it in all {
                it.as_object_mut().unwrap().remove(new);
            }
        }
        fs::write(&file, serde_json::to_vec(&plan).unwrap()).unwrap();
    }
    ok(&filled.relocate(&[], &["--apply"]));
    filled.assert_whole(&Wire::new(&filled.site.serve()));
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_imported_image_that_a_set_keeps_is_left_to_its_operator() {
    let site = Site::new(Ground::Host);
    let (base, image) = (
        site.image("base", Image::Raw, 5),
        site.images.join("web.qcow2"),
    );
    let [on, file] = [&base, &image].map(|p| p.to_str().unwrap());
    tools::run(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", "-F", "raw", "-b", on, file],
    );
    let out = run_in(
        &site.data,
        &["--json", "vm", "import", "--overlay-ok", "web", file],
        "",
    );
    let shown: serde_json::Value = serde_json::from_str(&ok(&out)).unwrap();
    let server = site.serve();
    let wire = Wire::new(&server);
    let group = wire
        .define("all", &[shown["id"].as_str().unwrap()])
        .unwrap();
    let set = wire.take(&group, "one");
    site.wait_for_journals();
    drop((wire, server));
    let there = site.images.with_file_name("there");
    fs::rename(&site.images, &there).unwrap();
    let moved = [(site.images.clone(), there)];
    let args = arguments(&moved, &["--apply", "--definitions"]);
    let refused = run_in(&site.data, &args, "");
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    let command = said
        .lines()
        .find_map(|l| l.split_once("old path: "))
        .unwrap()
        .1;
    tools::run("sh", &["-c", command]);
    ok(&run_in(&site.data, &args, ""));
    let server = site.serve();
    let sets = Wire::new(&server).shown().unwrap().sets;
    let content = vec![5; crate::support::site::SIZE];
    assert_holds(&sets[&set].members[0].disks["disk0"], &content, "kept");
}

#[test]
fn the_text_of_a_definition_stays_but_for_its_paths() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    fs::create_dir(&old).unwrap();
    let image = old.join("web.raw");
    fs::write(&image, vec![7; 4096]).unwrap();
    let data = folder.path().join("data");
    ok(&run_in(
        &data,
        &["vm", "import", "web", image.to_str().unwrap()],
        "",
    ));
    let machines = fs::read_dir(data.join("machines")).unwrap();
    let folders = machines.map(|e| e.unwrap().path()).filter(|p| p.is_dir());
    let mut folders = folders.filter(|p| !p.ends_with("by-name"));
    let definition = folders.next().unwrap().join("vm.toml");
    let text = format!(
        "# mine\n{}# the end",
        fs::read_to_string(&definition).unwrap()
    );
    fs::write(&definition, &text).unwrap();
    let inode = fs::metadata(&definition).unwrap().ino();
    fs::rename(&old, &new).unwrap();
    let moved = [(old.clone(), new.clone())];
    let json = ok(&run_in(
        &data,
        &arguments(&moved, &["--apply", "--json"]),
        "",
    ));
    let told: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        told["definitions"][0]["to"],
        new.join("web.raw").to_str().unwrap()
    );
    assert_eq!(
        fs::read_to_string(&definition).unwrap(),
        text,
        "yours to change"
    );
    assert_eq!(fs::metadata(&definition).unwrap().ino(), inode);
    ok(&run_in(
        &data,
        &arguments(&moved, &["--apply", "--definitions"]),
        "",
    ));
    let [from, to] = [&old, &new].map(|p| p.to_str().unwrap());
    assert_eq!(
        fs::read_to_string(&definition).unwrap(),
        text.replace(from, to)
    );
    let shown = ok(&run_in(&data, &["vm", "show", "web"], ""));
    assert!(
        shown.contains(new.join("web.raw").to_str().unwrap()),
        "{shown}"
    );
    let code = |args: &[&str]| run_in(&data, args, "").status.code();
    assert_eq!(code(&["relocate"]), Some(2));
    assert_eq!(code(&["relocate", "--from", "/a", "--from", "/b"]), Some(2));
    assert_eq!(
        code(&["relocate", "--from", "/a", "--to", "/no/such/folder"]),
        Some(1)
    );
}

/// Before its paths are written: neither the server nor the doctor does anything to it.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_moved_data_directory_is_told_and_left_as_it_is_until_it_is_relocated() {
    for ground in [Ground::Host, Ground::Xfs] {
        let mut filled = fill(ground);
        let images = filled.site.images.clone();
        let stray = filled.site.data.join("sets/stray");
        fs::create_dir(&stray).unwrap();
        fs::write(stray.join("file"), "nobody's").unwrap();
        let old = filled.site.data.clone();
        let new = old.with_file_name("moved");
        filled.move_to(&new, &images);
        let before = filled.site.tree();
        let doctor = |more: &[&str]| {
            let out = run_in(&new, &[&["doctor"], more].concat(), "");
            text(&out.stdout) + &text(&out.stderr)
        };
        let command = format!("--from {}", old.display());
        for more in [&[][..], &["--fix", "--yes"]] {
            let said = doctor(more);
            let mut lines = said.lines().filter(|l| l.contains("data-directory-moved"));
            let line = lines.next().unwrap_or_else(|| panic!("{said}"));
            assert!(
                line.contains(&command) && line.contains("relocate"),
                "{line}"
            );
            assert!(!said.contains("moved to"), "{said}");
        }
        // Where the machines run on files of the directory, what is wrong with them is the move and nothing else.
        let is_told = ground == Ground::Host;
        let name = filled.machines[0].name.as_str();
        for args in [
            &["vm", "list"][..],
            &["vm", "show", name],
            &["vm", "path", name],
            &["vm", "set", name, "--overlay-ok"],
            &["vm", "remove", name],
            &["doctor"],
            &["rescue"],
            &["serve", "--listen", "127.0.0.1:0"],
        ] {
            let out = run_in(&new, args, "");
            let said = text(&out.stdout) + &text(&out.stderr);
            assert!(!said.contains("doctor --fix"), "{args:?}: {said}");
            assert!(!is_told || !out.status.success(), "{args:?}: {said}");
            assert!(
                !is_told || said.contains("groupshot relocate --data-dir"),
                "{args:?}: {said}"
            );
        }
        for command in ["serve", "rescue"] {
            let args = [command, "--listen", "127.0.0.1:0"];
            let args = if command == "serve" {
                &args[..]
            } else {
                &args[..1]
            };
            let out = run_in(&new, args, "");
            let said = text(&out.stderr);
            assert_eq!(out.status.code(), Some(1), "{said}");
            assert!(
                said.contains("relocate") && said.contains(old.to_str().unwrap()),
                "{said}"
            );
        }
        assert!(filled.site.tree() == before, "nothing was done");
        let args = ["relocate", "--from", old.to_str().unwrap(), "--apply"];
        let out = run_in(&new, &args, "");
        assert!(out.status.success(), "{}", text(&out.stderr));
        let _server = filled.site.serve();
        let said = doctor(&["--fix", "--yes"]);
        assert!(
            said.contains("moved to") && !said.contains("data-directory-moved"),
            "{said}"
        );
        assert!(!new.join("sets/stray/file").exists());
        for machine in &filled.machines {
            let top = filled.site.top(machine, 0);
            assert_holds(&top, &machine.content[0], "relocated");
        }
    }
}
