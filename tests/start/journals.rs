//! Journals that are not what they were: one that has lost its commit is not undone where the disks show it, and one of
//! before is not carried out again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use groupshot::id::JobId;
use groupshot::snapshot::journal::{self, Intent, Journal, Record};

use super::{FAILED, refusal};
use crate::support::server::{Server, run_in, text};
use crate::support::site::{Ground, Image, Machine, Site, assert_holds};
use crate::support::tools::full;
use crate::support::wire::Wire;

const MINUTE: Duration = Duration::from_secs(60);

/// The one journal that a server has left.
fn left(site: &Site) -> PathBuf {
    let [journal] = <[PathBuf; 1]>::try_from(site.journals()).unwrap();
    journal
}

fn write(site: &Site, web: &mut Machine, byte: u8) {
    let top = site.top(web, 0);
    web.write(&top, 0, usize::from(byte) * 4096, 4096, byte);
}

/// A site over clones with one set, whose server dies at `point` while it is applied; what the set keeps.
fn dies_applying(point: &str) -> (Site, Machine, Vec<u8>) {
    let site = Site::new(Ground::Xfs);
    let mut web = site.machine("web", &[Image::Raw], 1);
    let mut server = site.serve_with(&[&format!("{point}=abort")]);
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&web.id]).unwrap();
    let set = wire.take(&group, "first");
    site.wait_for_journals();
    let kept = web.content[0].clone();
    write(&site, &mut web, 7);
    let _dies = wire.apply(&set);
    server.wait(MINUTE).unwrap();
    (site, web, kept)
}

/// The images hold the set: nobody may say that every disk is as before.
#[test]
fn an_apply_in_place_without_its_commit_is_refused_where_the_images_show_it() {
    if !full("an apply over clones that is cut short") {
        return;
    }
    for point in ["apply.revert.after", "apply.discard.after"] {
        let (site, web, kept) = dies_applying(point);
        let file = left(&site);
        let whole = fs::read(&file).unwrap();
        let alone = |cut: &usize| {
            journal::read(&whole[..*cut])
                .is_ok_and(|(records, length)| length == *cut && records.len() == 1)
        };
        let cut = (1..whole.len()).rev().find(alone).unwrap();
        fs::write(&file, &whole[..cut]).unwrap();
        let before = site.tree();
        let line = refusal(&site, &[], FAILED);
        for part in [file.to_str().unwrap(), "its last record is missing"] {
            assert!(line.contains(part), "{point}: {part}: {line}");
        }
        assert_eq!(site.tree(), before, "{point}");
        fs::write(&file, &whole).unwrap();
        drop(site.serve());
        site.wait_for_journals();
        assert_holds(&site.top(&web, 0), &kept, point);
    }
}

/// A machine over overlays whose second set was taken, deleted and followed by a third one, and the journal of the second
/// one as it was at its end. The server is dead.
fn long_over() -> (Site, Machine, PathBuf, Vec<u8>) {
    let site = Site::new(Ground::Host);
    let mut web = site.machine("web", &[Image::Raw], 1);
    let mut server = site.serve_with(&["create.clear.before#2=abort"]);
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&web.id]).unwrap();
    wire.take(&group, "a");
    site.wait_for_journals();
    write(&site, &mut web, 2);
    let _dies = wire.create(&group, "b");
    server.wait(MINUTE).unwrap();
    let file = left(&site);
    let bytes = fs::read(&file).unwrap();
    let mut server = site.serve();
    site.wait_for_journals();
    let wire = Wire::new(&server);
    let sets = wire.shown().unwrap().sets;
    let b = sets.keys().find(|id| named(&site, id) == "b").unwrap();
    write(&site, &mut web, 3);
    let gone = wire.destroy(b).unwrap();
    assert_eq!(wire.end(&gone.job.unwrap()).unwrap().state, 7);
    site.wait_for_journals();
    wire.take(&group, "c");
    site.wait_for_journals();
    write(&site, &mut web, 4);
    server.kill();
    (site, web, file, bytes)
}

fn named(site: &Site, set: &str) -> String {
    let record = site.data.join("sets").join(set).join("set.json");
    let record: serde_json::Value = serde_json::from_slice(&fs::read(record).unwrap()).unwrap();
    record["set"]["name"].as_str().unwrap().to_owned()
}

fn assert_goes_on(site: &Site, web: &Machine, what: &str) -> Server {
    let server = site.serve();
    site.wait_for_journals();
    let shown = Wire::new(&server).shown().unwrap();
    assert_eq!(shown.sets.len(), 2, "{what}");
    assert!(shown.sets.values().all(|set| !set.is_damaged()), "{what}");
    assert_holds(&site.top(web, 0), &web.content[0], what);
    server
}

#[test]
fn a_journal_of_an_operation_that_has_ended_is_only_removed() {
    if !full("a journal that is put back") {
        return;
    }
    let (site, web, file, bytes) = long_over();
    fs::write(&file, bytes).unwrap();
    let tops = site.data.join("machines").join(&web.id).join("tops.json");
    let before = fs::read(&tops).unwrap();
    let mut server = assert_goes_on(&site, &web, "a journal of before");
    assert_eq!(fs::read(&tops).unwrap(), before);
    assert!(!file.exists());
    server.kill();
}

#[test]
fn a_journal_that_nothing_knows_is_refused_by_name() {
    if !full("a journal that is put back") {
        return;
    }
    let (site, web, file, bytes) = long_over();
    let unknown = of_another_job(&file, &bytes);
    let before = site.tree();
    let line = refusal(&site, &[], super::REFUSED);
    for part in [unknown.to_str().unwrap(), "move it away"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert_eq!(site.tree(), before);
    fs::remove_file(&unknown).unwrap();
    assert_goes_on(&site, &web, "moved away");
    let out = run_in(&site.data, &["doctor"], "");
    assert!(
        !text(&out.stdout).contains("orphan"),
        "{}",
        text(&out.stdout)
    );
}

/// The same journal of a job that the database has forgotten.
fn of_another_job(file: &Path, bytes: &[u8]) -> PathBuf {
    let (records, _) = journal::read(bytes).unwrap();
    let mut records = records.into_iter();
    let Some(Record::Intent(intent)) = records.next() else {
        panic!("no intent");
    };
    let Intent::Create(mut it) = *intent else {
        panic!("of something else");
    };
    let job = JobId::random();
    it.set.job = job;
    let folder = file.parent().unwrap();
    let mut made = Journal::create(folder, job, Intent::Create(it), None).unwrap();
    records.for_each(|record| made.append(&record).unwrap());
    folder.join(format!("{job}.log"))
}
