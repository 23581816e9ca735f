//! A machine whose `tops.json` is gone is used by nobody; it is made anew where its active files are known.

use std::fs;
use std::path::PathBuf;

use super::scene::Scene;
use crate::support::server::{run_in, text};
use crate::support::site::Image;
use crate::support::tools::full;
use crate::support::wire::{Created, Wire};

const REFUSED: u64 = 5;

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

fn assert_refused(wire: &Wire, created: &Created, what: &str) {
    let why = wire.why(created);
    assert_eq!(created.value, REFUSED, "{what}: {why}");
    assert!(
        why.contains("tops.json") && why.contains("doctor --fix"),
        "{what}: {why}"
    );
}

#[test]
fn a_machine_without_tops_json_is_refused_by_name_until_it_is_made_anew() {
    if !full("overlays that are active files") {
        return;
    }
    let scene = Scene::new();
    let whole = fs::read(scene.tops()).unwrap();
    fs::remove_file(scene.tops()).unwrap();
    let before = scene.site.tree();
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
    let old = |tree: std::collections::BTreeMap<PathBuf, _>| {
        let kept = tree.into_iter().filter(|(f, _)| !f.ends_with(".lock"));
        kept.collect::<Vec<_>>()
    };
    assert!(
        old(scene.site.tree()) == old(before),
        "nothing was done to any file"
    );

    // With a server and without.
    for serves in [false, true] {
        let server = serves.then(|| scene.site.serve());
        let _gone = fs::remove_file(scene.tops());
        let (code, said) = scene.doctor(&[]);
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains("definition-unreadable") && said.contains("--fix: make it anew"),
            "{said}"
        );
        let (_, said) = scene.doctor(&["--fix", "--yes"]);
        assert!(said.contains("written: disk0 runs on"), "{said}");
        let (_, said) = scene.doctor(&[]);
        assert!(!said.contains("definition-unreadable"), "{said}");
        let tops = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
        assert_eq!(
            tops(&fs::read(scene.tops()).unwrap())["tops"],
            tops(&whole)["tops"]
        );
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

#[test]
fn where_it_is_not_certain_which_file_is_active_nothing_is_made_anew() {
    if !full("overlays that are active files") {
        return;
    }
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
