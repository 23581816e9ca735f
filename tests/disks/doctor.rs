//! `groupshot doctor`: what it finds with and without a server, what `--fix` does about it, death in between.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value as Json;

use super::damage::scribble;
use crate::support::pki::{Authority, Wish};
use crate::support::server::{Options, Server, binary, on_a_terminal, run_in, text};
use crate::support::site::{Ground, Image, Machine, Site, assert_holds, older_database};
use crate::support::tools::Opened;
use crate::support::wire::Wire;

const COMPLETED: u64 = 7;

/// A site with one machine in one group and two sets of it; no server runs.
struct Scene {
    site: Site,
    machine: Machine,
    sets: Vec<String>,
}

impl Scene {
    fn new() -> Self {
        let site = Site::new(Ground::Host);
        let machine = site.machine("web", &[Image::Raw], 1);
        let mut server = site.serve();
        let wire = Wire::new(&server);
        let group = wire.define("all", &[&machine.id]).unwrap();
        let sets = vec![wire.take(&group, "first"), wire.take(&group, "second")];
        site.wait_for_journals();
        server.stop();
        Self {
            site,
            machine,
            sets,
        }
    }

    fn image(&self) -> &Path {
        &self.machine.images[0]
    }

    fn doctor(&self, more: &[&str]) -> Output {
        run_in(&self.site.data, &[&["--json", "doctor"], more].concat(), "")
    }

    /// Kind and object of every finding; the exit code must fit them.
    fn finds(&self) -> Vec<(String, String)> {
        found(&self.doctor(&[]))
    }

    /// The base is changed, and the first set goes: the base stays as a hidden layer that nobody merges.
    fn keeps_a_changed_base(&self) {
        let server = self.site.serve();
        let wire = Wire::new(&server);
        scribble(self.image());
        let gone = wire.destroy(&self.sets[0]).unwrap();
        assert_eq!(wire.end(&gone.job.unwrap()).unwrap().state, COMPLETED);
        self.site.wait_for_journals();
    }
}

/// Kind and object of every finding but that the machine of the test is short of space.
pub(crate) fn found(output: &Output) -> Vec<(String, String)> {
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    let shown: Json =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {said}"));
    assert_eq!(shown["version"], 1);
    let findings = shown["findings"].as_array().unwrap();
    let needs = findings.iter().any(|f| f["severity"] != "info");
    assert_eq!(output.status.code(), Some(i32::from(needs)), "{said}");
    let mut all = Vec::new();
    for finding in findings {
        for part in ["kind", "severity", "object", "text"] {
            assert!(finding[part].is_string(), "{finding}");
        }
        assert!(finding["fix"].is_string() || finding["fix"].is_null());
        let part = |name: &str| finding[name].as_str().unwrap().to_owned();
        all.push((part("kind"), part("object")));
    }
    all.retain(|(kind, _)| kind != "space-low");
    all
}

fn kinds(found: &[(String, String)]) -> Vec<&str> {
    found.iter().map(|(kind, _)| kind.as_str()).collect()
}

#[test]
fn where_all_is_well_it_says_so_with_a_server_and_without() {
    let scene = Scene::new();
    assert_eq!(scene.finds(), []);
    let mut server = scene.site.serve();
    assert_eq!(scene.finds(), []);
    let socket = scene.site.data.join("groupshot.sock");
    let mode = socket.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    server.kill();
    // The socket of a dead server is in nobody's way.
    assert_eq!(scene.finds(), []);
    let mut server = scene.site.serve();
    assert_eq!(scene.finds(), []);
    server.stop();
    assert!(!socket.exists());
    let nowhere = run_in(&scene.site.data.join("nowhere"), &["doctor"], "");
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(text(&nowhere.stderr).contains("nowhere"));
    let images = run_in(&scene.site.images, &["doctor"], "");
    assert_eq!(images.status.code(), Some(1));
    assert!(text(&images.stderr).contains("no data directory"));
    assert!(!scene.site.images.join("groupshot.lock").exists());
}

#[test]
fn a_server_in_a_folder_of_a_long_name_is_asked_too() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("a".repeat(100)).join("b".repeat(100));
    fs::create_dir_all(&data).unwrap();
    let _server = Server::with(&Options {
        args: &["--engine", "sim"],
        data: Some(&data),
        ..Options::default()
    });
    assert_eq!(found(&run_in(&data, &["--json", "doctor"], "")), []);
}

#[test]
fn a_damaged_disk_is_accepted_only_when_that_is_asked_for() {
    let scene = Scene::new();
    scribble(scene.image());
    let all = scene.finds();
    // Both sets lie on it, and so does the machine.
    let told = ("damaged".to_owned(), scene.image().display().to_string());
    assert_eq!(all, [told]);
    let asked = run_in(&scene.site.data, &["doctor", "--fix"], "");
    assert_eq!(asked.status.code(), Some(2), "nobody can be asked");
    assert!(text(&asked.stderr).contains("--yes"));
    assert_eq!(found(&scene.doctor(&["--fix", "--yes"])), all);
    let fixed = scene.doctor(&["--fix", "--yes", "--accept-damaged"]);
    assert_eq!(found(&fixed), []);
    let fixed: Json = serde_json::from_slice(&fixed.stdout).unwrap();
    let done = fixed["fixed"][0]["done"].as_str().unwrap();
    let (file, it) = (
        scene.image().display(),
        fs::metadata(scene.image()).unwrap(),
    );
    let told = format!("accepted: {file} (inode {} of user {})", it.ino(), it.uid());
    assert_eq!(done, told);
    // And once more while a server runs, which is asked.
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    scribble(scene.image());
    assert_eq!(kinds(&scene.finds()), ["damaged"]);
    let human = text(&run_in(&scene.site.data, &["doctor"], "").stdout);
    assert!(human.contains("error  damaged"), "{human}");
    assert_eq!(
        found(&scene.doctor(&["--fix", "--yes", "--accept-damaged"])),
        []
    );
    let applied = wire.apply(&scene.sets[0]).unwrap();
    assert_eq!(wire.end(&applied.job.unwrap()).unwrap().state, COMPLETED);
}

#[test]
fn files_that_nothing_names_are_moved_aside_and_those_of_others_are_left() {
    let scene = Scene::new();
    let lost = scene.site.data.join("sets/one/two/lost.qcow2");
    let other = scene.site.images.join(".groupshot/other/disk.raw");
    let put = || {
        for file in [&lost, &other] {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "the only copy").unwrap();
        }
    };
    let shown = |file: &Path| ("orphan".to_owned(), file.display().to_string());
    put();
    assert_eq!(scene.finds().len(), 2);
    assert!(lost.exists() && other.exists(), "looking changes nothing");
    assert_eq!(found(&scene.doctor(&["--fix", "--yes"])), [shown(&other)]);
    let aside = scene.site.data.join("orphans/one/two/lost.qcow2");
    assert_eq!(fs::read_to_string(&aside).unwrap(), "the only copy");
    // The next one of that name does not replace it.
    let _server = scene.site.serve();
    put();
    assert_eq!(found(&scene.doctor(&["--fix", "--yes"])), [shown(&other)]);
    assert!(!lost.exists() && other.exists());
    assert!(aside.exists() && PathBuf::from(format!("{}.1", aside.display())).exists());
}

#[test]
fn what_cannot_be_read_or_lies_elsewhere_is_named() {
    let scene = Scene::new();
    let spare = scene.site.machine("spare", &[Image::Raw], 2);
    let broken = scene.site.machine("broken", &[Image::Raw], 3);
    fs::remove_file(&spare.images[0]).unwrap();
    let definition = scene.site.file_of(&broken.id, "vm.toml");
    fs::write(&definition, "nonsense").unwrap();
    let all = scene.finds();
    let shown = |kind: &str, file: &Path| (kind.to_owned(), file.display().to_string());
    assert!(
        all.contains(&shown("image-missing", &spare.images[0])),
        "{all:?}"
    );
    assert!(
        all.contains(&shown("definition-unreadable", &definition)),
        "{all:?}"
    );
    let config = scene.site.configuration(
        "[engine]\nimage_roots = [\"/nowhere\"]\n[snapshot]\nchain_cap = 4\nreserve = \"1024TiB\"\n",
    );
    let looked = scene.doctor(&["--config", config.to_str().unwrap()]);
    let kinds: Vec<_> = kinds(&found(&looked))
        .into_iter()
        .map(str::to_owned)
        .collect();
    assert!(kinds.iter().any(|k| k == "chain-deep"), "{kinds:?}");
    assert!(text(&looked.stdout).contains("\"space-low\""));
    let outside = scene.site.machine("outside", &[Image::Raw], 4);
    let looked = found(&scene.doctor(&["--config", config.to_str().unwrap()]));
    assert!(
        looked.contains(&shown("image-outside-roots", &outside.images[0])),
        "{looked:?}"
    );
    // A file that sets need.
    fs::remove_file(scene.image()).unwrap();
    let all = scene.finds();
    assert!(
        all.contains(&shown("kept-missing", scene.image())),
        "{all:?}"
    );
    let journal = scene
        .site
        .data
        .join("journal/8B5879E2-07EA-4B6B-92AA-0AF0176BAFBC.log");
    fs::write(&journal, "this is no journal of ours").unwrap();
    assert!(
        scene
            .finds()
            .contains(&shown("journal-unreadable", &journal))
    );
    assert!(journal.exists());
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_somebody_else_has_open_is_told() {
    let scene = Scene::new();
    let running = Opened::new(&scene.site.top(&scene.machine, 0), &[]);
    let all = scene.finds();
    assert_eq!(kinds(&all), ["running"], "good to know, and no more");
    drop(running);
    let frozen = Opened::new(scene.image(), &[]);
    let all = scene.finds();
    assert_eq!(kinds(&all), ["frozen-open"]);
    assert_eq!(all[0].1, scene.image().display().to_string());
    drop(frozen);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_frozen_file_that_the_server_could_not_lock_is_told() {
    let scene = Scene::new();
    let opened = Opened::new(scene.image(), &[]);
    let _server = scene.site.serve();
    let image = scene.image().display().to_string();
    let expected = ["frozen-unlocked", "frozen-open"].map(|k| (k.to_owned(), image.clone()));
    assert_eq!(scene.finds(), expected);
    drop(opened);
    assert_eq!(scene.finds(), [], "it is locked by now");
}

#[test]
fn certificates_that_somebody_should_look_at_are_told_with_a_server_and_without() {
    let scene = Scene::new();
    let authority = Authority::new(&scene.site.images, "ca");
    let pair = authority.issue(&Wish {
        years: (2000, 2001),
        ..Wish::named("old")
    });
    fs::set_permissions(&pair.key, Permissions::from_mode(0o644)).unwrap();
    let text_of = |https: &str| {
        let (certificate, key) = (pair.certificate.display(), pair.key.display());
        format!(
            "[listen]\nhttp = \"127.0.0.1:0\"\n{https}[tls]\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n"
        )
    };
    let https = text_of("https = \"127.0.0.1:0\"\n");
    let config = scene.site.configuration(&https);
    let told = |output: &Output| {
        assert_eq!(kinds(&found(output)), ["certificate", "certificate"]);
        let said = text(&output.stdout);
        assert!(said.contains("has expired on 2001-01-01"), "{said}");
        assert!(
            said.contains("every user of this host may open this key"),
            "{said}"
        );
    };
    told(&scene.doctor(&["--config", config.to_str().unwrap()]));
    let mut server = scene.site.serve_configured(&https);
    told(&scene.doctor(&[]));
    server.stop();
    // Nobody is shown it, so nobody needs to look.
    let plain = scene.site.configuration(&text_of(""));
    assert_eq!(
        found(&scene.doctor(&["--config", plain.to_str().unwrap()])),
        []
    );
}

/// `doctor --fix` on a terminal, with somebody who types one of `keys` at each question. Exit code and screen.
fn fix_on_a_terminal(data: &Path, keys: &[&str]) -> (Option<i32>, String) {
    let data = data.to_str().unwrap();
    on_a_terminal(&["doctor", "--fix", "--data-dir", data], &[], keys)
}

#[test]
fn on_a_terminal_each_repair_is_asked_for_and_only_a_yes_has_it_done() {
    let scene = Scene::new();
    let [one, two] = ["one", "two"].map(|name| scene.site.data.join("sets/lost").join(name));
    fs::create_dir_all(one.parent().unwrap()).unwrap();
    for file in [&one, &two] {
        fs::write(file, "the only copy").unwrap();
    }
    const END_OF_INPUT: &str = "\x04";
    const CTRL_C: &str = "\x03";
    for no in ["n\n", "\n", "what?\n", END_OF_INPUT] {
        let (code, said) = fix_on_a_terminal(&scene.site.data, &[no, no]);
        assert_eq!(code, Some(1), "{no:?}: {said}");
        assert!(
            said.contains("lost/one: ") && said.contains("Move it into orphans/"),
            "{said}"
        );
        assert!(said.contains("2 findings need somebody"), "{said}");
        assert!(one.exists() && two.exists(), "{no:?}: {said}");
    }
    let (code, said) = fix_on_a_terminal(&scene.site.data, &[CTRL_C]);
    assert_eq!(code, Some(130), "{said}");
    assert!(
        one.exists() && two.exists() && !said.contains("lost/two"),
        "{said}"
    );
    // With the first repair done, a Ctrl-C at the second question leaves that one.
    let (code, said) = fix_on_a_terminal(&scene.site.data, &["y\n", CTRL_C]);
    assert_eq!(code, Some(130), "{said}");
    assert!(!one.exists() && two.exists(), "{said}");
    let _server = scene.site.serve();
    let (code, said) = fix_on_a_terminal(&scene.site.data, &["YES\n"]);
    assert_eq!(
        code,
        if said.contains("space-low") {
            Some(1)
        } else {
            Some(0)
        },
        "{said}"
    );
    assert!(!two.exists() && scene.finds().is_empty(), "{said}");
}

#[test]
fn a_frozen_file_that_may_be_written_is_closed_again() {
    let scene = Scene::new();
    // The first overlay, which the second set has frozen.
    let folder = scene
        .site
        .data
        .join("sets")
        .join(&scene.sets[0])
        .join(&scene.machine.id);
    let frozen = folder.join("disk0.qcow2");
    let open = || fs::set_permissions(&frozen, Permissions::from_mode(0o644)).unwrap();
    let mode = || frozen.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o444);
    open();
    // The mode is part of what is sealed.
    assert_eq!(kinds(&scene.finds()), ["frozen-writable", "damaged"]);
    let fixed = found(&scene.doctor(&["--fix", "--yes"]));
    assert_eq!(kinds(&fixed), ["damaged"]);
    assert_eq!(mode(), 0o444);
    assert_eq!(
        found(&scene.doctor(&["--fix", "--yes", "--accept-damaged"])),
        []
    );
    // Sealed with that mode, by a server that found no seals: closing it damages nothing.
    open();
    let database = older_database(&scene.site.data);
    let stripped = "UPDATE sets SET record = json_remove(record, '$.members[0].disks[0].sealed')";
    assert_eq!(database.execute(stripped, []).unwrap(), 2);
    drop(database);
    let _server = scene.site.serve();
    assert_eq!(kinds(&scene.finds()), ["frozen-writable"]);
    assert_eq!(found(&scene.doctor(&["--fix", "--yes"])), []);
    assert_eq!(mode(), 0o444);
}

#[test]
fn closing_a_file_to_writers_throws_away_no_seal_of_what_is_away() {
    let scene = Scene::new();
    let folder = scene.site.data.join("sets").join(&scene.sets[0]);
    let frozen = folder.join(&scene.machine.id).join("disk0.qcow2");
    fs::set_permissions(&frozen, Permissions::from_mode(0o644)).unwrap();
    let database = older_database(&scene.site.data);
    let stripped = "UPDATE sets SET record = json_remove(record, '$.members[0].disks[0].sealed')";
    assert_eq!(database.execute(stripped, []).unwrap(), 2);
    drop(database);
    let _server = scene.site.serve();
    assert_eq!(kinds(&scene.finds()), ["frozen-writable"]);
    let aside = scene.site.images.join("aside");
    fs::rename(scene.image(), &aside).unwrap();
    scene.doctor(&["--fix", "--yes"]);
    let mode = frozen.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o444);
    scribble(&aside);
    fs::rename(&aside, scene.image()).unwrap();
    assert_eq!(kinds(&scene.finds()), ["damaged"]);
}

#[test]
fn an_operation_that_cannot_end_is_told_with_its_reason() {
    let scene = Scene::new();
    let server = scene.site.serve_with(&["destroy.clean.before=error"]);
    let wire = Wire::new(&server);
    let gone = wire.destroy(&scene.sets[0]).unwrap();
    let job = gone.job.unwrap();
    let mut seen = Vec::new();
    while wire.job(&job).unwrap().state < COMPLETED {
        seen.extend(scene.finds());
    }
    assert!(
        seen.contains(&("stuck".to_owned(), format!("job {job}"))),
        "{seen:?}"
    );
    scene.site.wait_for_journals();
    assert_eq!(scene.finds(), []);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_merge_on_request_stands_once_in_the_history() {
    let scene = Scene::new();
    scene.keeps_a_changed_base();
    let _accepted = scene.doctor(&["--fix", "--yes", "--accept-damaged"]);
    let merged = scene.doctor(&["--fix", "--yes"]);
    let done = "hidden layers of machine web that were merged: 1";
    assert!(text(&merged.stdout).contains(done), "{merged:?}");
    assert_eq!(scene.finds(), []);
    let _server = scene.site.serve();
    let history = run_in(&scene.site.data, &["--json", "history"], "");
    let history = text(&history.stdout);
    assert_eq!(history.matches(done).count(), 1, "{history}");
    assert!(!history.contains("pending-merge"), "{history}");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_pending_merge_is_done_and_a_repair_that_dies_is_gone_on_with() {
    let points = [
        "destroy.job.after",
        "destroy.merge.before",
        "destroy.merge.after",
        "destroy.tops.after",
        "destroy.records.after",
        "destroy.unlink.after",
        "destroy.publish.after",
    ];
    for point in points {
        let scene = Scene::new();
        scene.keeps_a_changed_base();
        let kept = kinds(&scene.finds()).join(" ");
        assert_eq!(kept, "damaged hidden-layer", "{point}");
        assert_eq!(
            kinds(&found(&scene.doctor(&[
                "--fix",
                "--yes",
                "--accept-damaged"
            ]))),
            ["pending-merge"],
            "{point}"
        );
        let mut expected = scene.machine.content[0].clone();
        expected[4096..4608].fill(0xEE);
        let killed = Command::new(binary())
            .args(["doctor", "--fix", "--yes", "--data-dir"])
            .arg(&scene.site.data)
            .env("GROUPSHOT_FAILPOINTS", format!("{point}=abort"))
            .output()
            .unwrap();
        assert_eq!(
            killed.status.code(),
            None,
            "{point}: {}",
            text(&killed.stderr)
        );
        assert_eq!(kinds(&scene.finds()), ["open-journal"], "{point}");
        // What it had under way is ended first; if that was nothing yet, the merge is asked for again.
        while !found(&scene.doctor(&["--fix", "--yes"])).is_empty() {}
        let server = scene.site.serve();
        let shown = Wire::new(&server).shown().unwrap();
        let set = &shown.sets[&scene.sets[1]];
        assert!(!set.is_damaged(), "{point}");
        assert_holds(&set.members[0].disks["disk0"], &expected, point);
        let top = &shown.tops[&(scene.machine.id.clone(), "disk0".to_owned())];
        assert_holds(top, &expected, point);
        assert_eq!(
            set.members[0].disks["disk0"],
            scene.image(),
            "{point}: merged"
        );
    }
}
