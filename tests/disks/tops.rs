//! A machine whose `tops.json` is gone is used by nobody; it is made anew where its active files are known.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::scene::Scene;
use crate::support::gate::Gate;
use crate::support::server::{binary, run_in, text};
use crate::support::site::{Ground, Image, Machine, SIZE, Seen, Site, assert_holds};
use crate::support::tools::{self};
use crate::support::until;
use crate::support::wire::{Created, Wire};

const REFUSED: u64 = 5;
/// What the doctor offers.
const ANEW: &str = "--fix: make it anew";

impl Scene {
    fn tops(&self) -> PathBuf {
        self.folder().join("tops.json")
    }

    /// The doctor repairs nothing, says why not, and leaves everything as it is.
    fn is_not_made_anew(&self, why: &str) {
        let before = self.site.tree();
        let (code, said) = self.doctor(&["--fix", "--yes"]);
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains("tops.json") && said.contains("cannot be made anew"),
            "{said}"
        );
        assert!(said.contains(why), "{why}: {said}");
        assert!(self.site.tree() == before, "{said}");
    }
}

impl Scene {
    /// The doctor finds something wrong, and says this of it.
    fn finds(&self, parts: &[&str], what: &str) -> String {
        let (code, said) = self.doctor(&[]);
        assert_eq!(code, Some(1), "{what}: {said}");
        for part in parts {
            assert!(said.contains(part), "{what}: {part}: {said}");
        }
        said
    }

    /// The doctor makes it anew.
    fn is_made_anew(&self, what: &str) -> String {
        let (_, said) = self.doctor(&["--fix", "--yes"]);
        assert!(said.contains("written: disk0 runs on"), "{what}: {said}");
        said
    }
}

fn parsed(tops: &[u8]) -> serde_json::Value {
    serde_json::from_slice(tops).unwrap()
}

/// Every file but those that a server locks.
fn settled(site: &Site) -> Vec<(PathBuf, Seen)> {
    let kept = site.tree().into_iter();
    kept.filter(|(f, _)| !f.ends_with(".lock")).collect()
}

fn assert_refused(wire: &Wire, created: &Created, what: &str) {
    let why = wire.why(created);
    assert_eq!(created.value, REFUSED, "{what}: {why}");
    assert!(
        why.contains("tops.json") && why.contains("doctor --fix"),
        "{what}: {why}"
    );
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_machine_without_tops_json_is_refused_by_name_until_it_is_made_anew() {
    let scene = Scene::new();
    let whole = fs::read(scene.tops()).unwrap();
    fs::remove_file(scene.tops()).unwrap();
    let before = settled(&scene.site);
    let mut server = scene.site.serve();
    let wire = Wire::new(&server);
    let (create, set) = (wire.create(&scene.group, "x").unwrap(), &scene.sets[1]);
    assert_refused(&wire, &create, "create");
    assert_refused(&wire, &wire.apply(set).unwrap(), "apply");
    assert_refused(&wire, &wire.destroy(set).unwrap(), "destroy");
    let image = scene.machine.images[0].to_str().unwrap();
    let again = run_in(&scene.site.data, &["vm", "import", "again", image], "");
    assert_eq!(again.status.code(), Some(1));
    let said = text(&again.stderr);
    assert!(said.contains("already belongs to machine web"), "{said}");
    let list = run_in(&scene.site.data, &["vm", "list"], "");
    assert!(text(&list.stderr).contains("tops.json"), "{list:?}");
    server.stop();
    assert!(settled(&scene.site) == before, "nothing was done");

    // With a server and without.
    for serves in [false, true] {
        let server = serves.then(|| scene.site.serve());
        let _gone = fs::remove_file(scene.tops());
        scene.finds(&["definition-unreadable", ANEW], "gone");
        scene.is_made_anew("gone");
        let (_, said) = scene.doctor(&[]);
        assert!(!said.contains("definition-unreadable"), "{said}");
        let now = parsed(&fs::read(scene.tops()).unwrap());
        assert_eq!(now["tops"], parsed(&whole)["tops"]);
        drop(server);
    }
    scene.assert_whole("made anew");
    scene.destroy(&[1, 0, 2]);
    scene.assert_whole("made anew, and all sets destroyed");
    // The images are the active files now, as nothing else can be.
    fs::remove_file(scene.tops()).unwrap();
    let (_, said) = scene.doctor(&["--fix", "--yes"]);
    assert!(said.contains(&format!("disk0 runs on {image}")), "{said}");
    scene.assert_whole("made anew without a set");
}

/// Who imports a machine meanwhile may put it over the file that is found.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn active_files_are_written_anew_in_the_turn_of_the_library() {
    let scene = Scene::new();
    fs::remove_file(scene.tops()).unwrap();
    // Nobody gets a turn by this.
    let lock = scene.site.data.join("machines/.lock");
    let _if_there = fs::remove_file(&lock);
    fs::create_dir(&lock).unwrap();
    let (code, said) = scene.doctor(&["--fix", "--yes"]);
    assert!(code != Some(0) && !scene.tops().exists(), "{said}");
    fs::remove_dir(&lock).unwrap();
    scene.is_made_anew("in a turn");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_damaged_tops_json_is_refused_by_name_until_it_is_made_anew() {
    let scene = Scene::new();
    let whole = fs::read_to_string(scene.tops()).unwrap();
    // Another file that is there as well, the half of it, and no JSON at all.
    let flipped = whole.replacen(&scene.sets[2], &scene.sets[1], 1);
    assert_ne!(flipped, whole);
    for damaged in [&flipped, &whole[..whole.len() / 2], "garbage = ["] {
        fs::write(scene.tops(), damaged).unwrap();
        let server = scene.site.serve();
        let wire = Wire::new(&server);
        assert_refused(&wire, &wire.create(&scene.group, "x").unwrap(), damaged);
        scene.finds(&["is damaged"], damaged);
        drop(server);
        scene.is_made_anew(damaged);
        let aside = scene.tops().with_extension("json.damaged");
        assert_eq!(fs::read_to_string(aside).unwrap(), *damaged);
        scene.assert_whole(damaged);
    }
}

/// What stands there is kept, whatever it is.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_is_no_file_in_the_place_of_tops_json_is_set_aside_and_that_made_anew() {
    let scene = Scene::new();
    let aside = |name: &str| scene.folder().join(name);
    for (n, how) in ["a folder", "a link", "a pipe"].into_iter().enumerate() {
        fs::remove_file(scene.tops()).unwrap();
        match n {
            0 => {
                fs::create_dir(scene.tops()).unwrap();
                fs::write(scene.tops().join("note"), "mine").unwrap();
            }
            1 => std::os::unix::fs::symlink("/etc/hostname", scene.tops()).unwrap(),
            _ => nix::unistd::mkfifo(&scene.tops(), nix::sys::stat::Mode::S_IRWXU).unwrap(),
        }
        let server = scene.site.serve();
        let wire = Wire::new(&server);
        assert_refused(&wire, &wire.create(&scene.group, "x").unwrap(), how);
        scene.finds(&[ANEW], how);
        drop(server);
        scene.is_made_anew(how);
        scene.assert_whole(how);
    }
    let note = fs::read_to_string(aside("tops.json.damaged/note"));
    assert_eq!(note.unwrap(), "mine");
    assert!(aside("tops.json.damaged.1").is_symlink());
    assert!(aside("tops.json.damaged.2").symlink_metadata().is_ok());
}

/// A server refuses whatever works with the files of the machine, and says what to do.
fn assert_all_refused(scene: &Scene, what: &str) {
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    let create = wire.create(&scene.group, "x").unwrap();
    assert_refused(&wire, &create, what);
    let state = wire.shown().unwrap();
    for set in scene
        .sets
        .iter()
        .filter(|set| state.sets.contains_key(*set))
    {
        assert_refused(&wire, &wire.apply(set).unwrap(), what);
        assert_refused(&wire, &wire.destroy(set).unwrap(), what);
    }
}

impl Scene {
    fn link(&self) -> PathBuf {
        let link = self.site.data.join("machines/by-name/web/disk0");
        fs::read_link(link).unwrap()
    }

    /// What stands in `tops.json` is found to be old, all that works with the machine is refused, and it is repaired.
    fn assert_repaired(&self, old: &[u8], what: &str) {
        let actives = || [0, 1].map(|disk| self.site.top(&self.machine, disk));
        let (active, whole) = (actives(), fs::read(self.tops()));
        fs::write(self.tops(), old).unwrap();
        let before = settled(&self.site);
        assert_all_refused(self, what);
        assert_eq!(self.link(), active[0], "{what}");
        let told = ["definition-unreadable", ANEW, "is an older copy"];
        let said = self.finds(&told, what);
        assert!(!said.contains("orphan"), "{what}: {said}");
        // Nor does a command beside it tell anybody to start what the file names.
        let list = run_in(&self.site.data, &["vm", "list"], "");
        assert!(
            text(&list.stderr).contains("is an older copy"),
            "{what}: {list:?}"
        );
        // On a busy host it may not be told in time what the files say.
        let path = || run_in(&self.site.data, &["--json", "vm", "path", "web"], "");
        until(what, || !path().status.success());
        assert!(settled(&self.site) == before, "{what}");
        let said = self.is_made_anew(what);
        assert!(!self.site.data.join("orphans").exists(), "{what}: {said}");
        assert_eq!(actives(), active, "{what}");
        let now = parsed(&fs::read(self.tops()).unwrap());
        let whole = parsed(&whole.unwrap());
        assert_eq!(now["machine"], whole["machine"], "{what}");
        let (_, said) = self.doctor(&[]);
        assert!(!said.contains("definition-unreadable"), "{what}: {said}");
        self.assert_whole(what);
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_older_copy_of_tops_json_is_used_by_nobody_and_made_anew() {
    let mut scene = Scene::bare();
    let mut copies = vec![fs::read(scene.tops()).unwrap()];
    let mut server = scene.site.serve();
    for byte in 2..5 {
        scene.take(&server, byte);
        copies.push(fs::read(scene.tops()).unwrap());
    }
    // One that is put in place under a server.
    let whole = copies.pop().unwrap();
    let wire = Wire::new(&server);
    fs::write(scene.tops(), &copies[1]).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let created = wire.create(&scene.group, "x").unwrap();
    assert_refused(&wire, &created, "under a server");
    fs::write(scene.tops(), &whole).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    scene.take(&server, 5);
    copies.push(whole);
    server.stop();
    for (n, old) in copies.iter().enumerate() {
        scene.assert_repaired(old, &format!("after set {n}"));
    }
    // What it names was merged into what lies under it.
    let last = fs::read(scene.tops()).unwrap();
    scene.destroy(&[3]);
    scene.assert_repaired(&last, "the file of a merge");
    let last = fs::read(scene.tops()).unwrap();
    scene.destroy(&[1, 0, 2]);
    scene.assert_repaired(&last, "no set is left");
    let server = scene.site.serve();
    scene.take(&server, 6);
    drop(server);
    scene.assert_whole("the next set");
}

/// An apply leaves the old active file where another machine lies on it.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_older_copy_of_tops_json_is_noticed_though_what_it_names_is_there_for_somebody_else() {
    let scene = Scene::new();
    let other = scene.site.machine("other", &[Image::Chain], 5);
    let old = scene.site.top(&scene.machine, 0);
    let (image, base) = (other.images[0].to_str().unwrap(), old.to_str().unwrap());
    let onto = [
        "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", base, image,
    ];
    tools::run("qemu-img", &onto);
    let copy = fs::read(scene.tops()).unwrap();
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    let applied = wire.apply(&scene.sets[0]).unwrap();
    assert_eq!(wire.end(&applied.job.unwrap()).unwrap().state, 7);
    scene.site.wait_for_journals();
    drop(server);
    assert!(old.exists());
    fs::write(scene.tops(), &copy).unwrap();
    assert_all_refused(&scene, "the old one is there");
    scene.finds(
        &["does not lie on what the machine stands on"],
        "the old one is there",
    );
    scene.is_made_anew("the old one is there");
    assert_ne!(scene.site.top(&scene.machine, 0), old);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn tops_json_of_two_machines_that_were_exchanged_are_used_by_nobody_and_made_anew() {
    let scene = Scene::new();
    let other = scene.site.machine("other", &[Image::Raw, Image::Qcow2], 7);
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    let group = wire.define("other", &[&other.id]).unwrap();
    wire.take(&group, "first");
    scene.site.wait_for_journals();
    drop(server);
    let files = [scene.machine.id.clone(), other.id.clone()];
    let files = files.map(|id| scene.site.data.join("machines").join(id).join("tops.json"));
    let bare = |bytes: Vec<u8>| {
        let mut tops = parsed(&bytes);
        let map = tops.as_object_mut().unwrap();
        map.remove("machine").unwrap();
        map.remove("checksum").unwrap();
        serde_json::to_vec(&tops).unwrap()
    };
    // As this version writes them, and as an older one did.
    for older in [false, true] {
        let whole = [0, 1].map(|n| fs::read(&files[n]).unwrap());
        let put = whole.clone().map(|bytes| match older {
            true => bare(bytes),
            false => bytes,
        });
        fs::write(&files[0], &put[1]).unwrap();
        fs::write(&files[1], &put[0]).unwrap();
        assert_all_refused(&scene, "exchanged");
        let said = scene.finds(&[], "exchanged");
        let unreadable = said.matches("definition-unreadable").count();
        assert_eq!(unreadable, 2, "{said}");
        assert!(
            !said.contains("orphan") && !said.contains("path-idle"),
            "{said}"
        );
        let said = scene.is_made_anew("exchanged");
        assert_eq!(said.matches("written: disk0 runs on").count(), 2, "{said}");
        for n in [0, 1] {
            let (now, whole) = (parsed(&fs::read(&files[n]).unwrap()), parsed(&whole[n]));
            assert_eq!(now["tops"], whole["tops"]);
            assert_eq!(now["machine"], whole["machine"]);
        }
        scene.assert_whole("exchanged");
    }
    // Of an older version, and its own: it tells whose it is from the next start on.
    let whole = fs::read(&files[0]).unwrap();
    fs::write(&files[0], bare(whole.clone())).unwrap();
    scene.assert_whole("of an older version");
    assert_eq!(fs::read(&files[0]).unwrap(), whole);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn tops_json_of_a_copy_elsewhere_is_used_by_nobody_and_made_anew() {
    let scene = Scene::new();
    let copy = tempfile::tempdir().unwrap();
    let own = scene.site.data.to_str().unwrap();
    let copied = copy.path().join("data");
    tools::run("cp", &["-a", own, copied.to_str().unwrap()]);
    let active = scene.site.top(&scene.machine, 0);
    // As relocate writes it there.
    let moved = fs::read_to_string(scene.tops()).unwrap();
    let moved = moved.replace(own, copied.to_str().unwrap());
    let mut moved: serde_json::Value = serde_json::from_str(&moved).unwrap();
    moved.as_object_mut().unwrap().remove("checksum").unwrap();
    moved.as_object_mut().unwrap().remove("machine").unwrap();
    fs::write(scene.tops(), moved.to_string()).unwrap();
    assert_all_refused(&scene, "of a copy");
    assert_eq!(scene.link(), active);
    let why = "neither its image nor a file of this data directory";
    let said = scene.finds(&["definition-unreadable", why], "of a copy");
    assert!(!said.contains("orphan"), "{said}");
    scene.is_made_anew("of a copy");
    assert_eq!(scene.site.top(&scene.machine, 0), active);
    scene.assert_whole("of a copy");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn where_it_is_not_certain_which_file_is_active_nothing_is_made_anew() {
    let scene = Scene::new();
    let active = scene.site.top(&scene.machine, 0);
    let whole = fs::read(scene.tops()).unwrap();
    fs::remove_file(scene.tops()).unwrap();
    let job = "8B5879E2-07EA-4B6B-92AA-0AF0176BAFBC";
    let second = active.with_file_name(format!("disk0-{job}.qcow2"));
    fs::copy(&active, &second).unwrap();
    scene.is_not_made_anew("more than one file could be the active one");
    fs::remove_file(&second).unwrap();

    let aside = scene.site.data.join("aside");
    fs::rename(&active, &aside).unwrap();
    scene.is_not_made_anew("no file is there that could be the active one");
    // One that does not lie on the last set.
    let foreign = scene.site.image("foreign", Image::Qcow2, 9);
    fs::copy(&foreign, &active).unwrap();
    scene.is_not_made_anew("does not lie on the last snapshot");
    fs::rename(&aside, &active).unwrap();

    let file = scene.folder().join("vm.toml");
    let defined = fs::read_to_string(&file).unwrap();
    let image = scene.machine.images[0].to_str().unwrap();
    let other = scene.site.image("other", Image::Raw, 9);
    fs::write(&file, defined.replace(image, other.to_str().unwrap())).unwrap();
    scene.is_not_made_anew("another image than at a cut");
    fs::write(&file, defined).unwrap();

    let journal = scene.site.data.join("journal").join(format!("{job}.log"));
    fs::write(&journal, "this is no journal of ours").unwrap();
    scene.is_not_made_anew("an operation has not ended");
    fs::remove_file(&journal).unwrap();
    fs::write(scene.tops(), whole).unwrap();
    scene.assert_whole("put back");
}

/// A server whose log is a file.
struct Logged {
    child: Child,
    log: tempfile::NamedTempFile,
}

impl Logged {
    fn new(data: &Path) -> Self {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut server = Command::new(binary());
        server
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data);
        let server = server.stdout(Stdio::null()).stderr(log.reopen().unwrap());
        let child = server.spawn().unwrap();
        Self { child, log }
    }

    fn count(&self, words: &str) -> usize {
        fs::read_to_string(self.log.path())
            .unwrap()
            .matches(words)
            .count()
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_path_that_is_edited_after_a_set_is_told_to_have_no_effect() {
    for ground in [Ground::Host, Ground::Xfs] {
        let site = Site::new(ground);
        let machine = site.machine("web", &[Image::Raw], 1);
        let mut server = site.serve();
        let wire = Wire::new(&server);
        let group = wire.define("all", &[&machine.id]).unwrap();
        let set = wire.take(&group, "first");
        let applied = wire.apply(&set).unwrap();
        assert_eq!(wire.end(&applied.job.unwrap()).unwrap().state, 7);
        site.wait_for_journals();
        server.stop();
        told_once(&site, &machine);
        assert_holds(&site.top(&machine, 0), &machine.content[0], "after all");
    }
}

/// Until it is put right; what was taken before stays usable.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn no_set_is_taken_of_a_machine_whose_definition_names_another_file() {
    for ground in [Ground::Host, Ground::Xfs] {
        let site = Site::new(ground);
        let machine = site.machine("web", &[Image::Raw, Image::Qcow2], 1);
        let other = site.image("other", Image::Raw, 2);
        let server = site.serve();
        let wire = Wire::new(&server);
        let group = wire.define("all", &[&machine.id]).unwrap();
        let set = wire.take(&group, "first");
        site.wait_for_journals();
        let file = site.data.join("machines").join(&machine.id).join("vm.toml");
        let whole = fs::read_to_string(&file).unwrap();
        let (old, new) = (machine.images[0].to_str().unwrap(), other.to_str().unwrap());
        let format = whole.replacen("format = \"raw\"", "format = \"qcow2\"", 1);
        for (edited, named) in [(whole.replace(old, new), new), (format, old)] {
            fs::write(&file, edited).unwrap();
            let before = site.tree();
            let ignore = ("IgnoreNonSnapshottableDisks", "true");
            for settings in [&[][..], &[ignore]] {
                let refused = wire.create_with(&group, settings).unwrap();
                assert_eq!(refused.value, REFUSED);
                let (why, top) = (wire.why(&refused), site.top(&machine, 0));
                for part in ["web", "disk0", named, top.to_str().unwrap(), "again"] {
                    assert!(why.contains(part), "{part}: {why}");
                }
            }
            let out = server.cli(&["snapshot", "create", &group, "--check"]);
            let said = text(&out.stdout) + &text(&out.stderr);
            assert_eq!(out.status.code(), Some(1), "{said}");
            assert!(said.contains(named) && said.contains("again"), "{said}");
            assert!(site.tree() == before, "nothing was done");
            let applied = wire.apply(&set).unwrap();
            assert_eq!(wire.end(&applied.job.unwrap()).unwrap().state, 7);
            site.wait_for_journals();
        }
        let gone = wire.destroy(&set).unwrap();
        assert_eq!(wire.end(&gone.job.unwrap()).unwrap().state, 7);
        site.wait_for_journals();
        assert_holds(&site.top(&machine, 0), &machine.content[0], "after all");
        fs::write(&file, &whole).unwrap();
        wire.take(&group, "put right");
    }
}

/// The path is edited while a server runs, and written back.
fn told_once(site: &Site, machine: &Machine) {
    let file = site.data.join("machines").join(&machine.id).join("vm.toml");
    let whole = fs::read_to_string(&file).unwrap();
    let other = site.image("other", Image::Raw, 2);
    let (old, new) = (machine.images[0].to_str().unwrap(), other.to_str().unwrap());
    let server = Logged::new(&site.data);
    while !site.data.join("groupshot.sock").exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let doctor = || text(&run_in(&site.data, &["doctor"], "").stdout);
    assert!(!doctor().contains("path-idle"));
    fs::write(&file, whole.replace(old, new)).unwrap();
    for _ in 0..3 {
        let said = doctor();
        let line = said.lines().find(|l| l.contains("path-idle")).unwrap();
        let top = site.top(machine, 0).display().to_string();
        assert!(
            line.contains(new) && line.contains(&format!("runs on {top}")),
            "{line}"
        );
    }
    assert_eq!(server.count("has no effect"), 1);
    fs::write(&file, &whole).unwrap();
    assert!(!doctor().contains("path-idle"));
}

/// Its set keeps the image from then on, and `tops.json` still names that.
#[test]
fn vm_path_and_vm_list_agree_on_a_machine_of_which_a_set_is_taken_just_now() {
    let (site, gate) = (Site::new(Ground::Host), Gate::new());
    let image = site.image("web", Image::Raw, 1);
    let args = ["--overlay-ok", image.to_str().unwrap()];
    let web = site.import("web", &args, vec![vec![1; SIZE]]);
    let server = site.serve_with(&[&gate.at("create.tops.before")]);
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&web.id]).unwrap();
    let job = wire.create(&group, "taken").unwrap().job.unwrap();
    gate.reached();
    for command in [&["vm", "list"][..], &["vm", "path", "web"]] {
        let out = run_in(&site.data, command, "");
        let told = format!("{}{}", text(&out.stdout), text(&out.stderr));
        assert!(out.status.success() && told.contains("web"), "{told}");
    }
    gate.open();
    assert_eq!(wire.end(&job).unwrap().state, 7);
}
