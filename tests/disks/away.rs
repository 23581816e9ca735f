//! What is away: a folder with all that is in it is one finding, and so is each collection with a member that is gone.

use std::fs::{self, File};
use std::path::Path;

use groupshot::engine::qcow2::writer::NewImage;
use groupshot::inventory::Format;
use serde_json::Value as Json;

use super::damage::scribble;
use crate::support::server::{run_in, text};
use crate::support::site::{Ground, Image, SIZE, Site};
use crate::support::wire::Wire;

fn look(site: &Site) -> Vec<Json> {
    look_with(site, &[])
}

fn look_with(site: &Site, more: &[&str]) -> Vec<Json> {
    let out = run_in(&site.data, &[&["--json", "doctor"], more].concat(), "");
    let shown: Json = serde_json::from_slice(&out.stdout).unwrap();
    let mut all = shown["findings"].as_array().unwrap().clone();
    all.retain(|f| f["kind"] != "space-low");
    all
}

fn names(list: &Json) -> Vec<&str> {
    let all = list.as_array().unwrap().iter();
    all.map(|one| one["name"].as_str().unwrap()).collect()
}

#[test]
fn a_folder_that_is_away_is_one_finding_with_all_that_needs_it() {
    let site = Site::new(Ground::Host);
    let machines = ["db", "mail", "web"].map(|name| site.machine(name, &[Image::Raw], 1));
    let mut server = site.serve();
    let wire = Wire::new(&server);
    let ids = machines.each_ref().map(|m| m.id.as_str());
    let group = wire.define("all", &ids).unwrap();
    wire.take(&group, "first");
    wire.take(&group, "second");
    site.wait_for_journals();
    assert_eq!(look(&site), [] as [Json; 0]);
    let aside = site.images.with_file_name("aside");
    fs::rename(&site.images, &aside).unwrap();
    let found = look(&site);
    let [one] = found.as_slice() else {
        panic!("{found:#?}");
    };
    assert_eq!(
        (&one["kind"], &one["severity"]),
        (&"folder-missing".into(), &"error".into())
    );
    assert_eq!(one["object"], site.images.to_str().unwrap());
    assert_eq!(names(&one["sets"]), ["first", "second"]);
    let files = one["files"].as_array().unwrap();
    for machine in &machines {
        let image = machine.images[0].to_str().unwrap();
        assert!(files.iter().any(|f| f == image), "{image}: {one:#}");
    }
    let text = one["text"].as_str().unwrap();
    for part in ["the folder is not there", "2 snapshot sets (first, second)"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // Where its file system is not mounted, the folder is there and empty.
    fs::create_dir(&site.images).unwrap();
    let found = look(&site);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(
        found[0]["text"]
            .as_str()
            .unwrap()
            .contains("is its file system mounted?")
    );
    fs::remove_dir(&site.images).unwrap();
    server.stop();
    let found = look(&site);
    assert_eq!(found.len(), 1, "without a server: {found:#?}");
    fs::rename(&aside, &site.images).unwrap();
    assert_eq!(look(&site), [] as [Json; 0]);
}

/// The only finding, which is of that kind and about that file.
#[track_caller]
fn only(found: &[Json], kind: &str, object: &Path) -> Json {
    let [one] = found else {
        panic!("{found:#?}");
    };
    assert_eq!(one["kind"], kind, "{one:#}");
    assert_eq!(one["object"], object.to_str().unwrap(), "{one:#}");
    one.clone()
}

#[test]
fn what_became_of_one_file_is_one_finding_with_all_that_lies_on_it() {
    let site = Site::new(Ground::Host);
    let base = site.images.join("golden.raw");
    fs::write(&base, vec![1; SIZE]).unwrap();
    let clones = ["a", "b", "c"].map(|name| {
        let image = site.images.join(name).with_extension("qcow2");
        let new = NewImage {
            size: SIZE.try_into().unwrap(),
            backing: Some((&base, Format::Raw)),
        };
        new.write(&File::create(&image).unwrap()).unwrap();
        let args = ["--overlay-ok", image.to_str().unwrap()];
        site.import(name, &args, vec![vec![1; SIZE]])
    });
    assert_eq!(look(&site), [] as [Json; 0]);
    let aside = site.images.join("aside");
    fs::rename(&base, &aside).unwrap();
    let one = only(&look(&site), "image-missing", &base);
    assert_eq!(names(&one["machines"]), ["a", "b", "c"]);
    fs::rename(&aside, &base).unwrap();
    let mut server = site.serve();
    let wire = Wire::new(&server);
    let ids = clones.each_ref().map(|m| m.id.as_str());
    let group = wire.define("all", &ids).unwrap();
    wire.take(&group, "first");
    wire.take(&group, "second");
    site.wait_for_journals();
    assert_eq!(look(&site), [] as [Json; 0]);
    fs::rename(&base, &aside).unwrap();
    let with_a_server = only(&look(&site), "kept-missing", &base);
    server.stop();
    for one in [with_a_server, only(&look(&site), "kept-missing", &base)] {
        assert_eq!(names(&one["machines"]), ["a", "b", "c"]);
        assert_eq!(names(&one["sets"]), ["first", "second"]);
    }
    fs::rename(&aside, &base).unwrap();
    scribble(&base);
    let one = only(&look(&site), "damaged", &base);
    assert_eq!(names(&one["machines"]), ["a", "b", "c"]);
    assert_eq!(names(&one["sets"]), ["first", "second"]);
    let text = one["text"].as_str().unwrap();
    for part in [
        "6 disks of 3 machines (a, b, c) need it",
        "2 snapshot sets (first, second) are neither applied nor exported",
        "the active files of 3 machines (a, b, c) lie on it",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // One repair for all of them.
    let fixed = look_with(&site, &["--fix", "--yes", "--accept-damaged"]);
    assert_eq!(fixed, [] as [Json; 0]);
    let _server = site.serve();
    assert_eq!(look(&site), [] as [Json; 0]);
}

#[test]
fn roots_that_are_too_narrow_are_one_finding() {
    let site = Site::new(Ground::Host);
    let machines = ["a", "b", "c"].map(|name| site.machine(name, &[Image::Raw], 1));
    let config = site.configuration("[engine]\nimage_roots = [\"/nowhere\"]\n");
    let found = look_with(&site, &["--config", config.to_str().unwrap()]);
    let named = Path::new("[engine] image_roots");
    let one = only(&found, "image-outside-roots", named);
    assert_eq!(names(&one["machines"]), ["a", "b", "c"]);
    let files = machines.map(|m| m.images[0].to_str().unwrap().to_owned());
    assert_eq!(one["files"], serde_json::json!(files));
}

#[test]
fn a_member_that_is_gone_is_told_by_the_list_and_the_check_up() {
    let site = Site::new(Ground::Host);
    let [web, db] = ["web", "db"].map(|name| site.machine(name, &[Image::Raw], 1));
    let mut server = site.serve();
    let wire = Wire::new(&server);
    wire.define("all", &[&web.id, &db.id]).unwrap();
    server.stop();
    fs::remove_dir_all(site.data.join("machines").join(&db.id)).unwrap();
    let server = site.serve();
    let found = look(&site);
    let gone: Vec<_> = found
        .iter()
        .filter(|f| f["kind"] == "member-gone")
        .collect();
    assert_eq!(gone.len(), 1, "{found:#?}");
    assert_eq!(gone[0]["object"], "collection all");
    assert_eq!(gone[0]["machines"][0]["id"], db.id.as_str());
    let listed = server.cli(&["collection", "list", "--json"]);
    let listed: Json = serde_json::from_slice(&listed.stdout).unwrap();
    let all = &listed["collections"][0];
    assert_eq!(all["gone"], serde_json::json!([db.id]));
    assert_eq!(all["members"], serde_json::json!([web.id]));
    let told = server.cli(&["collection", "list"]);
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains(&format!("1 and 1 gone: {}", db.id)), "{told}");
    // What the finding advises ends it.
    // The beginning of an id is enough, as it is for one that is there.
    let out = server.cli(&["collection", "remove", "all", &db.id[..8]]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(look(&site).iter().all(|f| f["kind"] != "member-gone"));
}
