//! Journals that are not what they were: one that has lost its commit is not undone where the disks show it, and one of
//! before is not carried out again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use groupshot::id::JobId;
use groupshot::snapshot::journal;

use super::{FAILED, refusal};
use crate::support::journal::{Record, read, write as write_journal};
use crate::support::remote::{Call, Remote};
use crate::support::server::{Options, Server, run_in, text};
use crate::support::site::{Ground, Image, Machine, Site, assert_holds};
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
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_apply_in_place_without_its_commit_is_refused_where_the_images_show_it() {
    for point in ["apply.revert.after", "apply.discard.after"] {
        let (site, web, kept) = dies_applying(point);
        let file = left(&site);
        let whole = fs::read(&file).unwrap();
        let alone = |cut: &usize| {
            journal::read(&whole[..*cut])
                .is_ok_and(|(records, length)| length == *cut && records.len() == 1)
        };
        let (_, end) = journal::read(&whole).unwrap();
        let cut = (1..end).rev().find(alone).unwrap();
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

fn assert_goes_on(site: &Site, web: &Machine, sets: usize, what: &str) -> Server {
    let server = site.serve();
    site.wait_for_journals();
    let shown = Wire::new(&server).shown().unwrap();
    assert_eq!(shown.sets.len(), sets, "{what}");
    assert!(shown.sets.values().all(|set| !set.is_damaged()), "{what}");
    assert_holds(&site.top(web, 0), &web.content[0], what);
    server
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_journal_of_an_operation_that_has_ended_is_only_removed() {
    let (site, web, file, bytes) = long_over();
    fs::write(&file, bytes).unwrap();
    let tops = site.file_of(&web.id, "tops.json");
    let before = fs::read(&tops).unwrap();
    let mut server = assert_goes_on(&site, &web, 2, "a journal of before");
    assert_eq!(fs::read(&tops).unwrap(), before);
    assert!(!file.exists());
    server.kill();
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_journal_that_nothing_knows_is_refused_by_name() {
    let (site, web, file, bytes) = long_over();
    let unknown = of_another_job(&file, &bytes, |_| true);
    assert_refused_until_moved_away(&site, &unknown);
    assert_goes_on(&site, &web, 2, "moved away");
    let out = run_in(&site.data, &["doctor"], "");
    assert!(
        !text(&out.stdout).contains("orphan"),
        "{}",
        text(&out.stdout)
    );
}

/// Nothing is touched, and the command that is told helps.
fn assert_refused_until_moved_away(site: &Site, journal: &Path) {
    let before = site.tree();
    let line = refusal(site, &[], super::REFUSED);
    let command = format!("mv {} {}/", journal.display(), site.data.display());
    for part in [journal.to_str().unwrap(), &format!("`{command}`")] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert_eq!(site.tree(), before);
    let mut words = command.split(' ');
    let moved = Command::new(words.next().unwrap()).args(words).status();
    assert!(moved.unwrap().success());
}

/// What a create or an apply has made is what a later set has captured: an old journal without the commit undoes nothing
/// of it.
/// A machine, and a server that dies at that point.
fn dying(point: &str) -> (Site, Machine, Server) {
    let site = Site::new(Ground::Host);
    let web = site.machine("web", &[Image::Raw], 1);
    let server = site.serve_with(&[&format!("{point}=abort")]);
    (site, web, server)
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_journal_without_its_commit_that_nothing_knows_takes_nothing_of_later_sets() {
    for kind in ["create", "apply"] {
        let (site, mut web, mut server) = dying(&format!("{kind}.clear.before"));
        let wire = Wire::new(&server);
        let group = wire.define("all", &[&web.id]).unwrap();
        let captured = web.content[0].clone();
        let died = match kind {
            "create" => wire.create(&group, "a"),
            _ => {
                let a = wire.take(&group, "a");
                site.wait_for_journals();
                wire.apply(&a)
            }
        };
        drop(died);
        server.wait(MINUTE).unwrap();
        let file = left(&site);
        let bytes = fs::read(&file).unwrap();
        let mut server = site.serve();
        site.wait_for_journals();
        let wire = Wire::new(&server);
        let a = wire.shown().unwrap().sets.into_keys().next().unwrap();
        write(&site, &mut web, 2);
        wire.take(&group, "b");
        site.wait_for_journals();
        let mut sets = 2;
        if kind == "create" {
            // Two files lie on what the first set has captured: it stays, and they do.
            for change in [Wire::apply, Wire::destroy] {
                let job = change(&wire, &a).unwrap().job.unwrap();
                assert_eq!(wire.end(&job).unwrap().state, 7);
                site.wait_for_journals();
            }
            web.content[0] = captured;
            sets = 1;
        }
        server.kill();
        let unknown = of_another_job(&file, &bytes, |record| !record.commits());
        assert_refused_until_moved_away(&site, &unknown);
        assert_goes_on(&site, &web, sets, kind);
    }
}

/// As after a rebuild of a database that is lost: what nothing needs is undone, with no word of the database.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_a_dead_process_was_making_is_undone_though_nothing_knows_its_job() {
    for point in ["create.prepare.after", "create.settle.after"] {
        let (site, web, mut server) = dying(point);
        let wire = Wire::new(&server);
        let group = wire.define("all", &[&web.id]).unwrap();
        let before = site.kept();
        let _dies = wire.create(&group, "a");
        server.wait(MINUTE).unwrap();
        assert_ne!(site.kept(), before, "{point}");
        forget_job(&site);
        assert_goes_on(&site, &web, 0, point);
        assert_eq!(site.kept(), before, "{point}");
    }
}

/// A machine over overlays with two sets, whose server dies at `point` while the first one is destroyed; what it left, with
/// the sets and what the second one holds.
fn dies_destroying(point: &str) -> (Site, Machine, [String; 2], Vec<u8>) {
    let site = Site::new(Ground::Host);
    let mut web = site.machine("web", &[Image::Raw], 1);
    let mut server = site.serve_with(&[&format!("{point}=abort")]);
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&web.id]).unwrap();
    let a = wire.take(&group, "a");
    site.wait_for_journals();
    write(&site, &mut web, 2);
    let b = wire.take(&group, "b");
    site.wait_for_journals();
    let kept = web.content[0].clone();
    write(&site, &mut web, 3);
    let _dies = wire.destroy(&a);
    server.wait(MINUTE).unwrap();
    (site, web, [a, b], kept)
}

fn assert_kept(server: &Server, set: &str, kept: &[u8], what: &str) {
    let shown = Wire::new(server).shown().unwrap();
    assert_holds(&shown.sets[set].members[0].disks["disk0"], kept, what);
}

fn assert_gone(site: &Site, set: &str, what: &str) {
    let folder = site.data.join("sets").join(set);
    let kept = site.kept();
    let left: Vec<_> = kept.iter().filter(|it| it.starts_with(&folder)).collect();
    assert!(left.is_empty(), "{what}: {left:?}");
}

/// Its journal is durable and its job is not, or the database was put back as it was before: nobody was told that the set
/// goes, and it stays with all its files.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_destroy_that_nobody_was_told_of_is_only_removed() {
    let (site, web, [_, b], kept) = dies_destroying("destroy.job.after");
    forget_job(&site);
    let before = site.kept();
    let server = assert_goes_on(&site, &web, 2, "a request alone");
    assert_eq!(site.kept(), before);
    assert_kept(&server, &b, &kept, "a request alone");
}

/// What its records tell was done by somebody who had been told, and so it is where nothing knows the set any more: it
/// goes forward with no word of the database.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_destroy_that_was_begun_is_finished_though_nothing_knows_its_job() {
    for point in [
        "destroy.forget.after",
        "destroy.merge.after",
        "destroy.named.after",
        "destroy.unlink.after",
    ] {
        let (site, web, [a, b], kept) = dies_destroying(point);
        forget_job(&site);
        let server = assert_goes_on(&site, &web, 1, point);
        assert_kept(&server, &b, &kept, point);
        assert_gone(&site, &a, point);
    }
}

/// What lay on the overlay names the file under it by then, and no version before told how it left that file.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_merge_whose_journal_is_of_an_older_version_is_gone_on_with_where_files_lie_on_it() {
    for point in ["destroy.named.after", "destroy.records.after"] {
        let site = Site::new(Ground::Host);
        let mut web = site.machine("web", &[Image::Raw], 1);
        let mut server = site.serve_with(&[&format!("{point}=abort")]);
        let wire = Wire::new(&server);
        let group = wire.define("all", &[&web.id]).unwrap();
        let mut sets = Vec::new();
        for byte in 2..5 {
            sets.push((wire.take(&group, "a"), web.content[0].clone()));
            site.wait_for_journals();
            write(&site, &mut web, byte);
        }
        let _dies = wire.destroy(&sets[0].0);
        server.wait(MINUTE).unwrap();
        let file = left(&site);
        let bytes = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap();
        let mut records = read(&bytes);
        for record in records.iter_mut().filter(|it| it.record == "merged") {
            assert!(record.rest.remove("parent").is_some());
        }
        write_journal(file.parent().unwrap(), records);
        let server = assert_goes_on(&site, &web, 2, point);
        for (set, kept) in &sets[1..] {
            assert_kept(&server, set, kept, point);
        }
        assert_gone(&site, &sets[0].0, point);
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_journal_of_a_destroy_that_is_long_over_is_refused_by_name() {
    let (site, web, [_, b], kept) = dies_destroying("destroy.clear.before");
    let file = left(&site);
    let bytes = fs::read(&file).unwrap();
    let mut server = assert_goes_on(&site, &web, 1, "finished");
    server.kill();
    let unknown = of_another_job(&file, &bytes, |_| true);
    assert_refused_until_moved_away(&site, &unknown);
    let server = assert_goes_on(&site, &web, 1, "moved away");
    assert_kept(&server, &b, &kept, "moved away");
}

/// An export that is revealed is whole, and somebody's.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_journal_of_an_export_that_nothing_knows_takes_no_export_that_is_whole() {
    let site = Site::new(Ground::Host);
    let web = site.machine("web", &[Image::Raw], 1);
    let root = site.images.join("exports");
    fs::create_dir(&root).unwrap();
    let config = format!("[export]\nroots = [{root:?}]\n");
    let file = site.configuration(&config);
    let started = site.serve_at(file.to_str().unwrap(), "export.clear.before=abort");
    let mut server = started.unwrap();
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&web.id]).unwrap();
    let set = wire.take(&group, "a");
    site.wait_for_journals();
    let _dies = wire.export(&set, root.to_str().unwrap(), None);
    server.wait(MINUTE).unwrap();
    let file = left(&site);
    let bytes = fs::read(&file).unwrap();
    let mut server = site.serve_configured(&config);
    site.wait_for_journals();
    server.kill();
    assert!(root.join(&set).join("manifest.json").is_file());
    let unknown = of_another_job(&file, &bytes, |record| !record.commits());
    assert_refused_until_moved_away(&site, &unknown);
    assert_goes_on(&site, &web, 1, "an export");
    assert!(root.join(&set).join("manifest.json").is_file());
}

/// Nobody knows then whether it comes from an older copy.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_journal_of_an_export_to_a_root_that_hangs_is_told_as_such() {
    let site = Site::new(Ground::Host);
    let web = site.machine("web", &[Image::Raw], 1);
    let (root, aside) = (site.images.join("exports"), site.images.join("aside"));
    fs::create_dir(&root).unwrap();
    let config = site.configuration(&format!("[export]\nroots = [{root:?}]\n"));
    let started = site.serve_at(config.to_str().unwrap(), "export.manifest.after=abort");
    let mut server = started.unwrap();
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&web.id]).unwrap();
    let set = wire.take(&group, "a");
    site.wait_for_journals();
    let _dies = wire.export(&set, root.to_str().unwrap(), None);
    server.wait(MINUTE).unwrap();
    forget_job(&site);
    let journal = left(&site);
    fs::rename(&root, &aside).unwrap();
    let remote = Remote::new(&site.images, "exports");
    let log = site.images.join("log");
    let options = Options {
        data: Some(&site.data),
        log: Some(&log),
        ..Options::default()
    };
    let line = std::thread::scope(|scope| {
        let hung = remote.hang(Call::Any);
        let started = scope.spawn(|| Server::try_with(&options).map(drop));
        let begun = Instant::now();
        let line = loop {
            let said = fs::read_to_string(&log).unwrap_or_default();
            if let Some((_, line)) = said.split_once("groupshot: ")
                && line.ends_with('\n')
            {
                break line.to_owned();
            }
            assert!(
                begun.elapsed() < 2 * MINUTE && !started.is_finished(),
                "{said}"
            );
            std::thread::sleep(Duration::from_millis(20));
        };
        // Before that the kernel does not let the process go.
        drop(hung);
        let said = started.join().unwrap().unwrap_err();
        assert!(
            said.starts_with(&format!("exit status: {FAILED}")),
            "{said}"
        );
        line
    });
    assert!(line.contains("does not answer"), "{line}");
    assert!(!line.contains("older copy"), "{line}");
    assert!(journal.exists());
    drop(remote);
    fs::remove_dir(&root).unwrap();
    fs::rename(&aside, &root).unwrap();
    assert_goes_on(&site, &web, 1, "it answers");
}

/// The journal that is left is of a job that the database does not know.
fn forget_job(site: &Site) {
    let file = left(site);
    let bytes = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    of_another_job(&file, &bytes, |_| true);
}

/// The same journal of a job that the database has forgotten, with those of the later records.
fn of_another_job(file: &Path, bytes: &[u8], wanted: fn(&Record) -> bool) -> PathBuf {
    let mut records = read(bytes);
    *records[0].job() = JobId::random().to_string().into();
    let mut first = true;
    records.retain(|record| std::mem::take(&mut first) || wanted(record));
    write_journal(file.parent().unwrap(), records)
}
