//! Each set has its record beside its files: what the database has lost is noticed, named and made again, and what a
//! record names is nobody's orphan.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use groupshot::server::REBUILD_FAILPOINTS;

use super::{REFUSED, refusal};
use crate::support::server::{Server, binary, run_in, text};
use crate::support::site::{Ground, Image, Machine, Site, assert_holds};
use crate::support::wire::Wire;

const SIGKILL: i32 = 9;
/// What is left of a database: the file, its log and its count.
const DATABASE: [&str; 3] = ["groupshot.db", "groupshot.db-wal", "groupshot.commits"];

/// A machine over overlays with sets between its writes; no server runs any more.
struct Scene {
    site: Site,
    web: Machine,
    group: String,
    sets: Vec<String>,
    holds: Vec<Vec<u8>>,
    /// The database as it was after the first set.
    first: Vec<Option<Vec<u8>>>,
}

impl Scene {
    /// Three sets; the server is killed, so the database has a log.
    fn new() -> Self {
        let (scene, mut server) = Self::served(true);
        server.kill();
        scene
    }

    /// As the server still runs; `restarted` once, after the first set.
    fn served(restarted: bool) -> (Self, Server) {
        let site = Site::new(Ground::Host);
        let web = site.machine("web", &[Image::Raw], 1);
        let mut server = site.serve();
        let group = Wire::new(&server).define("all", &[&web.id]).unwrap();
        let mut scene = Self {
            web,
            group,
            sets: Vec::new(),
            holds: Vec::new(),
            first: Vec::new(),
            site,
        };
        for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
            scene.holds.push(scene.web.content[0].clone());
            let set = Wire::new(&server).take(&scene.group, name);
            scene.sets.push(set);
            scene.site.wait_for_journals();
            if n == 0 && restarted {
                server.kill();
                scene.first = scene.database();
                server = scene.site.serve();
            }
            let top = scene.site.top(&scene.web, 0);
            let byte = u8::try_from(n).unwrap() + 2;
            scene.web.write(&top, 0, (n + 1) * 8192, 8192, byte);
        }
        (scene, server)
    }

    /// One set goes.
    fn destroys(&self, wire: &Wire, set: usize) {
        let gone = wire.destroy(&self.sets[set]).unwrap();
        assert_eq!(wire.end(&gone.job.unwrap()).unwrap().state, 7);
        self.site.wait_for_journals();
    }

    /// Served with all three sets, and these count as damaged.
    fn assert_damaged(&self, damaged: [bool; 3]) {
        let server = self.site.serve();
        let shown = Wire::new(&server).shown().unwrap();
        let found = [0, 1, 2].map(|n| shown.sets[&self.sets[n]].is_damaged());
        assert_eq!(found, damaged, "{:?}", shown.sets);
    }

    fn database(&self) -> Vec<Option<Vec<u8>>> {
        let files = DATABASE.iter().map(|name| self.site.data.join(name));
        files.map(|file| fs::read(file).ok()).collect()
    }

    fn put_database(&self, files: &[Option<Vec<u8>>]) {
        for (name, bytes) in DATABASE.iter().zip(files) {
            let file = self.site.data.join(name);
            match bytes {
                Some(bytes) => fs::write(file, bytes).unwrap(),
                None => drop(fs::remove_file(file)),
            }
        }
    }

    fn record(&self, set: usize) -> PathBuf {
        let folder = self.site.data.join("sets").join(&self.sets[set]);
        folder.join("set.json")
    }

    fn assert_active(&self, what: &str) {
        let top = self.site.top(&self.web, 0);
        assert_holds(&top, &self.web.content[0], what);
    }

    /// Served with all three sets, and each holds what it held, also when another one goes.
    fn assert_whole(&self, what: &str) {
        let server = self.site.serve();
        let wire = Wire::new(&server);
        let shown = wire.shown().unwrap();
        assert_eq!(shown.sets.len(), 3, "{what}");
        assert!(shown.collections.contains_key(&self.group), "{what}");
        for (set, holds) in self.sets.iter().zip(&self.holds) {
            let set = &shown.sets[set];
            assert!(!set.is_damaged(), "{what}: {set:?}");
            assert_holds(&set.members[0].disks["disk0"], holds, what);
        }
        self.assert_active(what);
    }

    /// One that is in the middle goes, and the rest holds what it held: the machine stands where it stood.
    fn assert_goes_on(&self, what: &str) {
        let server = self.site.serve();
        let wire = Wire::new(&server);
        self.destroys(&wire, 1);
        let shown = wire.shown().unwrap();
        assert!(!self.record(1).exists(), "{what}");
        for n in [0, 2] {
            let set = &shown.sets[&self.sets[n]];
            assert_holds(&set.members[0].disks["disk0"], &self.holds[n], what);
        }
        self.assert_active(what);
        let applied = wire.apply(&self.sets[0]).unwrap();
        assert_eq!(wire.end(&applied.job.unwrap()).unwrap().state, 7, "{what}");
        self.site.wait_for_journals();
        assert_holds(&self.site.top(&self.web, 0), &self.holds[0], what);
    }

    /// The snapshot that the machine stands on, by the database.
    fn stands_on(&self) -> String {
        let database = rusqlite::Connection::open(self.site.data.join("groupshot.db")).unwrap();
        let one = "SELECT record FROM positions WHERE id = ?1";
        let record: String = database
            .query_row(one, [&self.web.id], |row| row.get(0))
            .unwrap();
        let record: serde_json::Value = serde_json::from_str(&record).unwrap();
        record["parent"].as_str().unwrap().to_owned()
    }

    fn last_snapshot(&self) -> String {
        let record: serde_json::Value =
            serde_json::from_slice(&fs::read(self.record(2)).unwrap()).unwrap();
        let id = record["set"]["members"][0]["id"].as_str();
        id.unwrap().to_owned()
    }

    fn rebuild(&self, args: &[&str]) -> Output {
        run_in(
            &self.site.data,
            &[&["doctor", "--rebuild"], args].concat(),
            "",
        )
    }

    /// Made again, and a second time there is nothing to do.
    fn rebuilds(&self, what: &str) {
        for (n, said) in ["rebuilt", "nothing to rebuild"].iter().enumerate() {
            let out = self.rebuild(&["--yes"]);
            let told = text(&out.stdout).to_owned() + &text(&out.stderr);
            assert_eq!(out.status.code(), Some(0), "{what}, {n}: {told}");
            assert!(told.contains(said), "{what}, {n}: {told}");
        }
    }
}

/// As `serve` says it, with the way out.
fn refused(scene: &Scene, parts: &[&str]) -> String {
    let line = refusal(&scene.site, &[], REFUSED);
    let typed = format!(
        "`groupshot doctor --rebuild --data-dir {}`",
        scene.site.data.display()
    );
    for part in parts.iter().chain(&[typed.as_str()]) {
        assert!(line.contains(part), "{part}: {line}");
    }
    line
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn sets_that_the_database_has_lost_are_refused_by_name_and_made_again_from_their_records() {
    let scene = Scene::new();
    let whole = scene.database();
    let log = whole[1].clone().unwrap();
    let mut flipped = log.clone();
    flipped[log.len() / 8] ^= 1;
    let lost = [
        ("a flipped bit", Some(flipped)),
        ("half a log", Some(log[..log.len() / 2].to_vec())),
        ("no log", None),
    ];
    for (what, log) in lost {
        scene.put_database(&[whole[0].clone(), log.clone(), whole[2].clone()]);
        refused(&scene, &["is lost", "`c`", &scene.sets[2]]);
        let before = (scene.site.tree(), scene.database());
        // Shown first, and nothing is written.
        let out = scene.rebuild(&[]);
        let said = text(&out.stdout);
        assert_eq!(out.status.code(), Some(1), "{what}: {said}");
        assert!(
            said.contains(&scene.sets[2]) && said.contains("web"),
            "{said}"
        );
        assert!(before == (scene.site.tree(), scene.database()), "{what}");
        scene.rebuilds(what);
        assert_eq!(scene.stands_on(), scene.last_snapshot(), "{what}");
        scene.assert_whole(what);
    }
    // Without the database it is made anew.
    scene.put_database(&[None, None, None]);
    let line = refusal(&scene.site, &[], REFUSED);
    assert!(line.contains("doctor --rebuild"), "{line}");
    let out = scene.rebuild(&["--yes"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert_eq!(scene.stands_on(), scene.last_snapshot());
    scene.assert_whole("no database");
    scene.assert_goes_on("no database");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_only_a_record_tells_of_is_no_orphan_and_no_pending_merge() {
    let scene = Scene::new();
    // An older copy that was put back whole, with its count.
    scene.put_database(&scene.first);
    let before = scene.site.tree();
    refused(&scene, &["`b`", "`c`", &scene.sets[1], &scene.sets[2]]);
    for args in [
        &["--json", "doctor"][..],
        &["--json", "doctor", "--fix", "--yes"],
    ] {
        let out = run_in(&scene.site.data, args, "");
        let found = crate::disks::doctor::found(&out);
        let kinds: Vec<_> = found.iter().map(|(kind, _)| kind.as_str()).collect();
        assert!(kinds.contains(&"set-records"), "{found:?}");
        for kind in ["orphan", "pending-merge", "hidden-layer", "leftover"] {
            assert!(!kinds.contains(&kind), "{found:?}");
        }
        assert!(scene.site.tree() == before, "{args:?}");
    }
    for args in [&["rescue"][..], &["vm", "remove", "web"]] {
        let out = run_in(&scene.site.data, args, "");
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(REFUSED), "{args:?}: {said}");
        assert!(said.contains(&scene.sets[2]), "{args:?}: {said}");
    }
    assert!(scene.site.tree() == before);
    scene.rebuilds("an older copy");
    assert_eq!(scene.stands_on(), scene.last_snapshot());
    scene.assert_whole("an older copy");
    scene.assert_goes_on("an older copy");
}

/// Or what it noted would go over the newer records, which are all that is left of a merge.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_check_up_notes_nothing_where_the_database_is_an_older_one() {
    let scene = Scene::new();
    let older = scene.database();
    {
        let mut server = scene.site.serve();
        let wire = Wire::new(&server);
        scene.destroys(&wire, 1);
        server.kill();
    }
    scene.put_database(&older);
    let records = || [0, 2].map(|n| fs::read(scene.record(n)).unwrap());
    let before = (scene.site.tree(), records());
    for args in [
        &["doctor"][..],
        &["--json", "doctor"],
        &["doctor", "--fix", "--yes", "--accept-damaged"],
    ] {
        let out = run_in(&scene.site.data, args, "");
        assert_eq!(out.status.code(), Some(1), "{args:?}");
        assert!(before == (scene.site.tree(), records()), "{args:?}");
    }
    let out = scene.rebuild(&["--yes"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let server = scene.site.serve();
    let shown = Wire::new(&server).shown().unwrap();
    for n in [0, 2] {
        let set = &shown.sets[&scene.sets[n]];
        assert!(!set.is_damaged(), "{set:?}");
        assert_holds(&set.members[0].disks["disk0"], &scene.holds[n], "rebuilt");
    }
    scene.assert_active("rebuilt");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_set_whose_record_or_files_are_away_is_refused_by_name_until_they_are_back_or_given_up() {
    let scene = Scene::new();
    let away = scene.site.data.join("away");
    let kept = scene.site.data.join("sets").join(&scene.sets[0]);
    let kept = kept.join(&scene.web.id).join("disk0.qcow2"); // what the second set keeps
    let whole = fs::read(scene.record(1)).unwrap();
    // To rename a frozen file would change it; its folder may go and come.
    let folder = kept.parent().unwrap().to_owned();
    for (file, parts) in [
        (scene.record(1), ["set.json", "`b`"]),
        (folder.clone(), ["`b`", kept.to_str().unwrap()]),
        (scene.site.data.join("sets"), ["set.json", "`a`"]),
    ] {
        fs::rename(&file, &away).unwrap();
        refused(&scene, &parts);
        let made_again = scene.site.data.join("sets");
        if file == made_again {
            let _journal_is_read = fs::remove_dir(&made_again);
        }
        fs::rename(&away, &file).unwrap();
        scene.assert_whole("back again");
    }
    // A record is written anew, byte for byte what it said.
    fs::remove_file(scene.record(1)).unwrap();
    scene.rebuilds("a record");
    let said = |bytes: &[u8]| -> serde_json::Value {
        let record: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        record["set"].clone()
    };
    assert_eq!(said(&fs::read(scene.record(1)).unwrap()), said(&whole));
    scene.assert_whole("a record");
    // An image is somebody else's to mount: the server serves without it.
    fs::rename(&scene.site.images, &away).unwrap();
    drop(scene.site.serve());
    fs::rename(&away, &scene.site.images).unwrap();
    scene.assert_whole("an image");
    // Who gives a file up is served, and the sets that need it are damaged.
    fs::rename(&folder, &away).unwrap();
    scene.rebuilds("a file");
    scene.assert_damaged([false, true, true]);
}

/// Without the database, records tell which files there should be.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn one_rebuild_from_records_alone_tells_the_disks_whose_files_are_away() {
    let scene = Scene::new();
    let folder = scene.site.data.join("sets").join(&scene.sets[0]);
    let folder = folder.join(&scene.web.id);
    fs::rename(&folder, scene.site.data.join("away")).unwrap();
    scene.put_database(&[None, None, None]);
    let out = scene.rebuild(&[]);
    let said = text(&out.stdout);
    for (name, damaged) in [("`a`", false), ("`b`", true), ("`c`", true)] {
        let told = |l: &str| l.contains(name) && l.contains("counts as damaged");
        assert_eq!(said.lines().any(told), damaged, "{name}: {said}");
    }
    scene.rebuilds("records alone");
    scene.assert_damaged([false, true, true]);
}

/// The last two sets: without the database, and without their records.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_set_that_nothing_knows_any_more_is_told_and_keeps_its_files_until_it_is_given_up() {
    let scene = Scene::new();
    let folder = |n: usize| scene.site.data.join("sets").join(&scene.sets[n]);
    let kept = |n: usize| folder(n - 1).join(&scene.web.id).join("disk0.qcow2");
    for n in [1, 2] {
        fs::remove_file(scene.record(n)).unwrap();
    }
    scene.put_database(&[None, None, None]);
    for said in ["rebuilt", "nothing to rebuild"] {
        let out = scene.rebuild(&["--yes"]);
        let told = text(&out.stdout).to_owned() + &text(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{told}");
        assert!(told.contains(said), "{told}");
        for n in [1, 2] {
            let named = |l: &str| l.contains(folder(n).to_str().unwrap()) && l.contains("vm.toml");
            assert!(told.lines().any(named), "{n}: {told}");
        }
    }
    let doctor = |args: &[&str]| {
        let out = run_in(
            &scene.site.data,
            &[&["--json", "doctor"], args].concat(),
            "",
        );
        crate::disks::doctor::found(&out)
    };
    let unknown = [1, 2].map(|n| {
        let folder = folder(n).canonicalize().unwrap();
        (
            "set-unknown".to_owned(),
            folder.to_str().unwrap().to_owned(),
        )
    });
    // A set that is known goes, and what it kept stays for the sake of the others.
    let mut server = scene.site.serve();
    let wire = Wire::new(&server);
    scene.destroys(&wire, 0);
    let before = scene.site.tree();
    for serves in [true, false] {
        for args in [&[][..], &["--fix", "--yes"]] {
            let found = doctor(args);
            for one in &unknown {
                assert!(found.contains(one), "{serves}: {found:?}");
            }
            for kind in ["orphan", "pending-merge", "leftover"] {
                let any = found.iter().any(|(k, _)| k == kind);
                assert!(!any, "{serves}: {found:?}");
            }
            let files = |tree: &std::collections::BTreeMap<PathBuf, _>| -> Vec<PathBuf> {
                let images = tree
                    .keys()
                    .filter(|f| f.starts_with(folder(0).parent().unwrap()));
                images.cloned().collect()
            };
            assert_eq!(files(&scene.site.tree()), files(&before), "{serves}");
        }
        if serves {
            server.stop();
        }
    }
    for n in [1, 2] {
        assert_holds(&kept(n), &scene.holds[n], "what nobody knows");
    }
    scene.assert_active("what nobody knows");
    // Given up, it is merged as any other.
    for n in [1, 2] {
        let copy = folder(n).join(&scene.web.id).join("vm.toml");
        fs::remove_file(copy).unwrap();
    }
    let found = doctor(&["--fix", "--yes"]);
    assert!(!found.iter().any(|(k, _)| k == "set-unknown"), "{found:?}");
    assert!(!kept(2).exists(), "{found:?}");
    scene.assert_active("given up");
}

/// Neither database nor records nor copies of definitions: only images are left.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn where_nothing_can_be_made_again_a_rebuild_says_so_and_no_start_asks_for_one() {
    let scene = Scene::new();
    for n in 0..3 {
        let folder = scene.record(n).with_file_name(&scene.web.id);
        fs::remove_file(folder.join("vm.toml")).unwrap();
        fs::remove_file(scene.record(n)).unwrap();
    }
    scene.put_database(&[None, None, None]);
    let before = scene.site.tree();
    for args in [&[][..], &["--yes"]] {
        let out = scene.rebuild(args);
        let said = text(&out.stdout).to_owned() + &text(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{args:?}: {said}");
        let sets = scene.site.data.join("sets");
        for part in [
            "nothing to rebuild",
            sets.to_str().unwrap(),
            "move sets/ away",
        ] {
            assert!(said.contains(part), "{args:?}: {part}: {said}");
        }
    }
    let line = refusal(&scene.site, &[], REFUSED);
    assert!(line.contains("move sets/ away"), "{line}");
    assert!(!line.contains("--rebuild"), "{line}");
    assert!(scene.site.tree() == before);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_damaged_record_is_named_and_refused_and_never_deleted() {
    let scene = Scene::new();
    let file = scene.record(1);
    let name = file.to_str().unwrap();
    let whole = fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for bytes in [&flipped[..], &whole[..whole.len() / 3], b""] {
        fs::write(&file, bytes).unwrap();
        refused(&scene, &[name]);
        assert_eq!(fs::read(&file).unwrap(), bytes);
    }
    let out = run_in(&scene.site.data, &["rescue"], "");
    assert_eq!(out.status.code(), Some(REFUSED), "{}", text(&out.stderr));
    scene.rebuilds("a damaged record");
    let aside = scene.site.data.join("orphans").join(&scene.sets[1]);
    assert_eq!(fs::read(aside.join("set.json")).unwrap(), b"");
    scene.assert_whole("a damaged record");
    // Of a set that nothing else tells of.
    let other = "8A3D1F00-0000-0000-0000-00000000000A";
    let other = scene.site.data.join("sets").join(other).join("set.json");
    fs::create_dir(other.parent().unwrap()).unwrap();
    fs::write(&other, &flipped).unwrap();
    let before = scene.site.tree();
    let line = refused(&scene, &[other.to_str().unwrap()]);
    assert!(line.contains("cannot bring these sets back"), "{line}");
    assert!(!line.contains("shows what it makes again"), "{line}");
    let out = scene.rebuild(&["--yes"]);
    let said = text(&out.stdout).to_owned() + &text(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains(other.to_str().unwrap()), "{said}");
    let _findings = run_in(&scene.site.data, &["doctor", "--fix", "--yes"], "");
    assert!(scene.site.tree() == before);
    fs::remove_dir_all(other.parent().unwrap()).unwrap();
    scene.assert_whole("moved away");
}

/// Where each commit in a log of SQLite ends.
fn commits(log: &[u8]) -> Vec<usize> {
    const HEADER: usize = 32;
    const FRAME: usize = 24;
    let number = |at: usize| u32::from_be_bytes(log[at..at + 4].try_into().unwrap());
    let frame = FRAME + usize::try_from(number(8)).unwrap();
    let frames = (HEADER..)
        .step_by(frame)
        .take_while(|at| at + frame <= log.len());
    let last = frames.filter(|at| number(at + 4) != 0);
    last.map(|at| at + frame).collect()
}

/// The log is cut after each of its commits: from nothing at all up to whole. The set in the middle is deleted, and what
/// it kept is in the files of the next one.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn no_cut_of_the_log_changes_a_set_that_is_still_there() {
    let (scene, mut server) = Scene::served(false);
    let gone = Wire::new(&server).destroy(&scene.sets[1]).unwrap();
    let gone = Wire::new(&server).end(&gone.job.unwrap()).unwrap();
    assert_eq!(gone.state, 7);
    scene.site.wait_for_journals();
    server.kill();
    let whole = scene.database();
    let log = whole[1].clone().unwrap();
    let still = [0, 2].map(|n| (n, fs::read(scene.record(n)).unwrap()));
    let said = |bytes: &[u8]| -> serde_json::Value {
        let record: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        record["set"].clone()
    };
    let ends = commits(&log);
    assert!(ends.len() > 9, "{ends:?}");
    for end in std::iter::once(0).chain(ends) {
        let what = format!("{end} of {} bytes", log.len());
        scene.put_database(&[
            whole[0].clone(),
            Some(log[..end].to_vec()),
            whole[2].clone(),
        ]);
        let out = scene.rebuild(&["--yes"]);
        let told = text(&out.stdout).to_owned() + &text(&out.stderr);
        assert!(out.status.success(), "{what}: {told}");
        for (n, bytes) in &still {
            let now = fs::read(scene.record(*n)).unwrap();
            assert_eq!(said(&now), said(bytes), "{what}: {told}");
        }
        let mut server = scene.site.serve();
        let shown = Wire::new(&server).shown().unwrap();
        for (n, bytes) in &still {
            let set = &shown.sets[&scene.sets[*n]];
            assert!(!set.is_damaged(), "{what}: {set:?}");
            assert_holds(&set.members[0].disks["disk0"], &scene.holds[*n], &what);
            fs::write(scene.record(*n), bytes).unwrap();
        }
        scene.assert_active(&what);
        server.kill();
        let _of_the_deleted = fs::remove_file(scene.record(1));
    }
}

/// Whatever a rebuild writes over is kept.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn every_record_that_a_rebuild_replaces_is_copied_aside() {
    let scene = Scene::new();
    let folder = scene.site.data.join("sets").join(&scene.sets[0]);
    let before = fs::read(scene.record(1)).unwrap();
    fs::rename(folder.join(&scene.web.id), scene.site.data.join("away")).unwrap();
    scene.rebuilds("a file that is away");
    let aside = scene.site.data.join("orphans").join(&scene.sets[1]);
    assert_ne!(fs::read(scene.record(1)).unwrap(), before);
    assert_eq!(fs::read(aside.join("set.json")).unwrap(), before);
    // And what is there is not written over.
    fs::write(scene.record(1), "half").unwrap();
    scene.rebuilds("a damaged record");
    assert_eq!(fs::read(aside.join("set.json")).unwrap(), before);
    assert_eq!(fs::read(aside.join("set.json.1")).unwrap(), b"half");
}

/// The database comes back as it was before a delete: what the set kept is merged away, and the set goes again.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_delete_that_the_database_has_lost_is_made_again() {
    let scene = Scene::new();
    let whole = scene.database();
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    for set in [0, 1] {
        scene.destroys(&wire, set);
    }
    drop(server);
    scene.put_database(&whole);
    let out = scene.rebuild(&[]);
    let said = text(&out.stdout).to_owned();
    for name in ["`a`", "`b`"] {
        let told = |l: &str| l.contains(name) && l.contains("counts as destroyed");
        assert!(said.lines().any(told), "{name}: {said}");
    }
    assert!(!said.contains("damaged"), "{said}");
    scene.rebuilds("a delete that is lost");
    {
        let server = scene.site.serve();
        let wire = Wire::new(&server);
        let shown = wire.shown().unwrap();
        assert_eq!(shown.sets.len(), 1, "{:?}", shown.sets);
        let last = &shown.sets[&scene.sets[2]];
        assert!(!last.is_damaged(), "{last:?}");
        assert_holds(
            &last.members[0].disks["disk0"],
            &scene.holds[2],
            "the last one",
        );
        scene.assert_active("after a delete that is lost");
        scene.destroys(&wire, 2);
    }
    // None is left, and the machine stands on its image.
    scene.put_database(&whole);
    scene.rebuilds("all deletes are lost");
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    assert!(wire.shown().unwrap().sets.is_empty());
    scene.assert_active("after all deletes are lost");
    wire.take(&scene.group, "d");
}

/// An active file, or one that another set needs, is away with the record and the copy: no delete has done that.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_set_whose_folder_is_away_counts_as_destroyed_by_no_rebuild() {
    let scene = Scene::new();
    let away = scene.site.data.join("away");
    for (n, name) in [(0, "`a`"), (2, "`c`")] {
        let folder = scene.site.data.join("sets").join(&scene.sets[n]);
        fs::rename(&folder, &away).unwrap();
        let out = scene.rebuild(&[]);
        let said = text(&out.stdout);
        assert!(said.contains(name), "{said}");
        assert!(!said.contains("counts as destroyed"), "{said}");
        fs::rename(&away, &folder).unwrap();
    }
}

/// What a set keeps of images that can be cloned lies beside them: with the folders of the sets alone no delete has gone.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_set_whose_clones_are_there_counts_as_destroyed_by_no_rebuild() {
    let site = Site::new(Ground::Xfs);
    let web = site.machine("web", &[Image::Raw], 1);
    let server = site.serve();
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&web.id]).unwrap();
    let set = wire.take(&group, "a");
    site.wait_for_journals();
    drop(server);
    fs::rename(site.data.join("sets"), site.data.join("away")).unwrap();
    let out = run_in(&site.data, &["doctor", "--rebuild"], "");
    let said = text(&out.stdout).to_owned() + &text(&out.stderr);
    assert!(said.contains(&set), "{said}");
    assert!(!said.contains("counts as destroyed"), "{said}");
}

/// The journal tells of the member that goes, and only the record of the others.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_set_that_is_losing_a_member_when_the_database_is_lost_comes_back_whole() {
    let site = Site::new(Ground::Host);
    let web = site.machine("web", &[Image::Raw], 1);
    let db = site.machine("db", &[Image::Raw], 2);
    let mut server = site.serve_with(&["destroy.job.after=abort"]);
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&web.id, &db.id]).unwrap();
    let set = wire.take(&group, "a");
    site.wait_for_journals();
    let _dies = wire.destroy_member(&set, &web.id);
    server.wait(Duration::from_secs(60)).unwrap();
    for name in DATABASE {
        let _may_be_absent = fs::remove_file(site.data.join(name));
    }
    let line = refusal(&site, &[], REFUSED);
    assert!(line.contains("doctor --rebuild"), "{line}");
    let out = run_in(&site.data, &["doctor", "--rebuild", "--yes"], "");
    let said = text(&out.stdout).to_owned() + &text(&out.stderr);
    assert!(out.status.success() && said.contains(&set), "{said}");
    let server = site.serve();
    site.wait_for_journals();
    let shown = Wire::new(&server).shown().unwrap();
    let members = &shown.sets[&set].members;
    assert_eq!(members.len(), 2, "{members:?}");
    for machine in [&web, &db] {
        let member = members.iter().find(|m| m.machine == machine.id).unwrap();
        assert_holds(&member.disks["disk0"], &machine.content[0], "rebuilt");
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_is_no_file_in_the_place_of_a_record_is_named_and_set_aside() {
    let scene = Scene::new();
    let file = scene.record(1);
    let aside = scene.site.data.join("orphans").join(&scene.sets[1]);
    for (n, how) in ["a folder", "a pipe", "a link"].into_iter().enumerate() {
        fs::remove_file(&file).unwrap();
        match n {
            0 => {
                fs::create_dir(&file).unwrap();
                fs::write(file.join("note"), "mine").unwrap();
            }
            1 => nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap(),
            _ => std::os::unix::fs::symlink("/etc/hostname", &file).unwrap(),
        }
        refused(&scene, &[file.to_str().unwrap()]);
        scene.rebuilds(how);
        scene.assert_whole(how);
    }
    let kept = |name: &str| aside.join(name).symlink_metadata().unwrap();
    assert_eq!(
        fs::read_to_string(aside.join("set.json/note")).unwrap(),
        "mine"
    );
    assert!(!kept("set.json.1").is_file() && kept("set.json.2").is_symlink());
}

fn dies(data: &Path, point: &str) -> bool {
    let out = Command::new(binary())
        .args(["doctor", "--rebuild", "--yes", "--data-dir"])
        .arg(data)
        .env("GROUPSHOT_FAILPOINTS", format!("{point}=abort"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    out.status.signal() == Some(SIGKILL)
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_rebuild_that_is_killed_at_any_step_is_done_by_the_next_one() {
    let scene = Scene::new();
    let whole = scene.database();
    let store = [
        "store.recorded",
        "store.commit",
        "store.committed",
        "store.counted",
    ];
    for point in REBUILD_FAILPOINTS.iter().chain(&store) {
        scene.put_database(&[whole[0].clone(), None, whole[2].clone()]);
        assert!(dies(&scene.site.data, point), "{point} is never passed");
        let out = scene.rebuild(&["--yes"]);
        assert!(out.status.success(), "{point}: {}", text(&out.stderr));
        assert_eq!(scene.stands_on(), scene.last_snapshot(), "{point}");
        scene.assert_whole(point);
        // What is made again has what comes after it.
        let out = scene.rebuild(&["--yes"]);
        assert!(text(&out.stdout).contains("nothing to rebuild"), "{point}");
        scene.put_database(&whole);
    }
}

#[test]
fn a_server_that_runs_keeps_a_rebuild_out() {
    let site = Site::new(Ground::Host);
    let _server = site.serve();
    let out = run_in(&site.data, &["doctor", "--rebuild", "--yes"], "");
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(super::BUSY), "{said}");
    assert!(said.contains("stop the server first"), "{said}");
}
