//! Starts that must fail, with one line that says why and the exit code that
//! `docs/reference/commands.md` lists; and
//! damage that must not keep the server from starting.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use crate::support::server::{Options, Server, run_in, text};
use crate::support::site::{Ground, Image, Site, assert_holds, is_spare};
use crate::support::until;
use crate::support::wire::Wire;

mod journals;
mod old;
mod older;
mod records;

const FAILED: i32 = 1;
const REFUSED: i32 = 3;
const BUSY: i32 = 4;

/// The one line of a server that does not start.
fn refusal(site: &Site, args: &[&str], code: i32) -> String {
    let data = Some(site.data.as_path());
    let options = Options {
        args,
        data,
        ..Options::default()
    };
    let Err(said) = Server::try_with(&options) else {
        panic!("it started");
    };
    let said = said
        .strip_prefix(&format!("exit status: {code}: "))
        .unwrap_or_else(|| panic!("{said}"));
    let (log, line) = said
        .trim_end()
        .rsplit_once('\n')
        .unwrap_or(("", said.trim_end()));
    assert!(
        !log.contains("groupshot: ") && !log.contains("panicked"),
        "{said}"
    );
    let line = line
        .strip_prefix("groupshot: ")
        .unwrap_or_else(|| panic!("{said}"));
    line.to_owned()
}

#[test]
fn a_second_server_on_the_directory_ends_with_4_and_names_the_first() {
    let site = Site::new(Ground::Host);
    let first = site.serve();
    let line = refusal(&site, &[], BUSY);
    assert!(line.contains(&first.pid().to_string()), "{line}");
    assert!(line.contains(site.data.to_str().unwrap()), "{line}");
    Wire::new(&first).shown().unwrap();
}

#[test]
fn a_port_in_use_ends_with_4_and_names_it() {
    let site = Site::new(Ground::Host);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    // The last one given counts.
    let file = site.data.join("groupshot.toml");
    fs::write(&file, format!("[listen]\nhttp = \"{address}\"\n")).unwrap();
    let out = std::process::Command::new(crate::support::server::binary())
        .args(["serve", "--config"])
        .arg(&file)
        .arg("--data-dir")
        .arg(&site.data)
        .output()
        .unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(BUSY), "{said}");
    let last = said.lines().last().unwrap();
    assert!(
        last.starts_with("groupshot: ") && last.contains(&address),
        "{said}"
    );
}

#[test]
fn a_damaged_database_is_refused_and_left_as_it_is() {
    let site = Site::new(Ground::Host);
    let mut server = site.serve();
    let wire = Wire::new(&server);
    for n in 0..40 {
        wire.define(&format!("group {n}"), &[]).unwrap();
    }
    server.stop();
    let file = site.data.join("groupshot.db");
    let whole = fs::read(&file).unwrap();
    let middle = whole.len() / 2;
    let mut no_text = whole.clone();
    let name = b"group 17";
    for at in 0..whole.len() - name.len() {
        if whole[at..].starts_with(name) {
            no_text[at] = 0xff;
        }
    }
    let mut scribbled = whole.clone();
    scribbled[middle - 3000..middle + 3000].fill(0x5a);
    let damages = [
        ("not a database", vec![b'x'; whole.len()]),
        ("scribbled over", scribbled),
        ("cut short", whole[..middle].to_vec()),
        ("no text", no_text),
    ];
    for (how, bytes) in damages {
        fs::write(&file, &bytes).unwrap();
        let line = refusal(&site, &[], REFUSED);
        let typed = format!("doctor --rebuild --data-dir {}`", site.data.display());
        for part in ["groupshot.db is damaged", &typed] {
            assert!(line.contains(part), "{how}: {part}: {line}");
        }
        assert_eq!(fs::read(&file).unwrap(), bytes, "{how}: it was written");
    }
    fs::write(&file, &whole).unwrap();
    assert_eq!(
        Wire::new(&site.serve()).shown().unwrap().collections.len(),
        40
    );
}

/// A site whose server died with everything prepared, and the journal that it left.
fn interrupted() -> (Site, PathBuf, String) {
    let site = Site::new(Ground::Host);
    let machine = site.machine("web", &[Image::Raw], 1);
    let mut server = site.serve_with(&["create.prepared.after=abort"]);
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&machine.id]).unwrap();
    let _dies = wire.create(&group, "x");
    server.wait(std::time::Duration::from_secs(60)).unwrap();
    let [journal] = <[PathBuf; 1]>::try_from(site.journals()).unwrap();
    (site, journal, group)
}

fn recovers(site: &Site, group: &str) {
    let server = site.serve();
    let wire = Wire::new(&server);
    assert_eq!(site.journals(), [] as [PathBuf; 0]);
    assert_eq!(site.kept(), [] as [PathBuf; 0]);
    let shown = wire.shown().unwrap();
    assert!(shown.sets.is_empty() && shown.jobs.values().all(|j| j.state == 10));
    wire.take(group, "after");
}

#[test]
fn a_torn_journal_is_recovered() {
    for cut in [1, 9, 20] {
        let (site, journal, group) = interrupted();
        let mut bytes = fs::read(&journal).unwrap();
        let (_, end) = groupshot::snapshot::journal::read(&bytes).unwrap();
        bytes[end - cut..].fill(0);
        for length in [end - cut, bytes.len()] {
            let torn = groupshot::snapshot::journal::read(&bytes[..length]);
            assert!(torn.unwrap().1 < end - cut);
        }
        fs::write(&journal, bytes).unwrap();
        recovers(&site, &group);
    }
}

/// The power went before the file's own name was durable. A server that stops leaves no spares.
#[test]
fn a_journal_under_the_name_of_a_spare_is_recovered() {
    let (site, journal, group) = interrupted();
    let folder = journal.parent().unwrap();
    let left = || fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    let spare = left().find(|file| is_spare(file)).unwrap();
    fs::rename(&journal, &spare).unwrap();
    recovers(&site, &group);
    assert!(left().any(|file| is_spare(&file)), "it keeps some ready");
    site.serve().stop();
    assert_eq!(left().collect::<Vec<_>>(), [] as [PathBuf; 0]);
}

/// A spare holds no operation: whatever a disk has made of it, it is made anew.
#[test]
fn a_spare_journal_with_stray_bytes_keeps_no_server_from_starting() {
    let (site, journal, group) = interrupted();
    let folder = journal.parent().unwrap().to_owned();
    let left = || fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path());
    let spares: Vec<_> = left().filter(|file| is_spare(file)).collect();
    let mut padded = vec![0; 64 << 10]; // as the server writes it
    padded[0] = 1;
    fs::write(&spares[0], padded).unwrap();
    fs::write(&spares[1], b"what is this?").unwrap();
    let out = run_in(&site.data, &["doctor"], "");
    let said = text(&out.stdout);
    assert!(
        said.contains("open-journal") && !said.contains("journal-unreadable"),
        "{said}"
    );
    recovers(&site, &group);
    // What is long enough may have been a journal.
    let mut server = site.serve();
    server.kill();
    let spare = left().find(|file| is_spare(file)).unwrap();
    fs::write(&spare, [1; 200]).unwrap();
    let refuses = |how: &str| {
        let line = refusal(&site, &[], REFUSED);
        let out = run_in(&site.data, &["rescue"], "");
        assert_eq!(out.status.code(), Some(REFUSED), "{how}");
        let doctor = run_in(&site.data, &["doctor"], "");
        for said in [line, text(&out.stderr), text(&doctor.stdout)] {
            for part in [spare.to_str().unwrap(), "move it away"] {
                assert!(said.contains(part), "{how}: {part}: {said}");
            }
        }
    };
    refuses("stray bytes");
    fs::remove_file(&spare).unwrap();
    fs::create_dir(&spare).unwrap();
    refuses("a folder");
    fs::remove_dir(&spare).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", &spare).unwrap();
    refuses("a link");
    fs::remove_file(&spare).unwrap();
    nix::unistd::mkfifo(&spare, nix::sys::stat::Mode::S_IRWXU).unwrap();
    refuses("a pipe");
    fs::remove_file(&spare).unwrap();
    drop(site.serve());
}

/// By who starts, who asks and who checks up, with commands that can be typed as they stand.
fn users_are_refused(site: &Site) {
    let line = refusal(site, &[], REFUSED);
    let out = run_in(&site.data, &["user", "list"], "");
    assert_eq!(out.status.code(), Some(REFUSED), "{}", text(&out.stderr));
    let doctor = run_in(&site.data, &["doctor"], "");
    assert_eq!(doctor.status.code(), Some(FAILED), "{doctor:?}");
    let found = text(&doctor.stdout);
    assert!(found.contains("users-unreadable"), "{found}");
    let here = site.data.display();
    for said in [line, text(&out.stderr), found] {
        for part in [
            "users.json".to_owned(),
            format!("`groupshot user accept --data-dir {here}`"),
            format!("`groupshot user add NAME --role ROLE --data-dir {here}`"),
        ] {
            assert!(said.contains(&part), "{part}: {said}");
        }
    }
}

/// Each refusal of users ends with what to do.
#[test]
fn a_users_file_that_makes_no_sense_is_refused_with_the_way_out() {
    let site = Site::new(Ground::Host);
    let file = site.data.join("users.json");
    let whole = fs::read_to_string(&file).unwrap();
    let role = whole.replace("administrator", "emperor");
    assert_ne!(role, whole);
    for bytes in [&whole[..whole.len() / 2], &role, ""] {
        fs::write(&file, bytes).unwrap();
        users_are_refused(&site);
    }
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    users_are_refused(&site);
    fs::remove_dir(&file).unwrap();
    // A role that is none, corrected.
    fs::write(&file, whole.replace("administrator", "reader")).unwrap();
    let out = run_in(&site.data, &["user", "accept"], "");
    assert!(out.status.success(), "{}", text(&out.stderr));
    drop(site.serve());
}

#[test]
fn a_damaged_journal_is_refused_and_named_and_nothing_is_touched() {
    let (site, journal, group) = interrupted();
    let whole = fs::read(&journal).unwrap();
    let mut flipped = whole.clone();
    flipped[100] ^= 1;
    for bytes in [flipped, b"what is this?".to_vec(), vec![0xff; 4000]] {
        fs::write(&journal, &bytes).unwrap();
        let before = site.tree();
        let line = refusal(&site, &[], FAILED);
        assert!(line.contains(journal.to_str().unwrap()), "{line}");
        assert_eq!(site.tree(), before);
    }
    fs::write(&journal, &whole).unwrap();
    recovers(&site, &group);
}

/// It looks as if nothing had been written yet, but it has had its name since its first record was on the disk.
#[test]
fn a_journal_whose_first_record_cannot_be_told_is_refused_with_the_way_out() {
    let (site, journal, group) = interrupted();
    let whole = fs::read(&journal).unwrap();
    let mut longer = whole.clone();
    longer[8 + 2] ^= 0x40; // the length of the first record
    for bytes in [&longer[..], &whole[..30], &whole[..8], b""] {
        fs::write(&journal, bytes).unwrap();
        let before = site.tree();
        let line = refusal(&site, &[], FAILED);
        let typed = format!(
            "`groupshot doctor --rebuild --data-dir {}`",
            site.data.display()
        );
        for part in [journal.to_str().unwrap(), "is damaged", &typed] {
            assert!(line.contains(part), "{part}: {line}");
        }
        let doctor = run_in(&site.data, &["doctor"], "");
        let said = text(&doctor.stdout);
        assert!(said.contains("journal-unreadable"), "{said}");
        assert_eq!(site.tree(), before);
    }
    fs::write(&journal, &whole).unwrap();
    recovers(&site, &group);
}

#[test]
fn a_broken_definition_keeps_nobody_else_from_being_served() {
    let site = Site::new(Ground::Host);
    let good = site.machine("good", &[Image::Raw], 1);
    let bad = site.machine("bad", &[Image::Raw], 2);
    let (mine, both) = {
        let mut server = site.serve();
        let wire = Wire::new(&server);
        let mine = wire.define("mine", &[&good.id]).unwrap();
        let both = wire.define("both", &[&good.id, &bad.id]).unwrap();
        server.stop();
        (mine, both)
    };
    let definition = site.data.join("machines").join(&bad.id).join("vm.toml");
    let text = fs::read_to_string(&definition).unwrap();
    for broken in ["", "id = 7", "\u{0}\u{1}", &text.replace("raw", "vhdx")] {
        fs::write(&definition, broken).unwrap();
        let server = site.serve();
        let wire = Wire::new(&server);
        let refused = wire.create(&both, "both").unwrap();
        assert_eq!(refused.value, 5, "{broken:?}");
        let why = wire.why(&refused);
        assert!(why.contains(&bad.id), "{why}");
        let before = wire.shown().unwrap().sets.len();
        let set = wire.take(&mine, &format!("mine {before}"));
        let shown = wire.shown().unwrap();
        if before == 0 {
            let file = &shown.sets[&set].members[0].disks["disk0"];
            assert_holds(file, &good.content[0], "captured");
        }
    }
    fs::write(&definition, text).unwrap();
    Wire::new(&site.serve()).take(&both, "both");
}

/// What was told to a client is in the log, and the log is not what it was.
#[test]
fn a_database_that_has_lost_a_part_of_its_log_is_refused_with_3_and_left_as_it_is() {
    let site = Site::new(Ground::Host);
    let machine = site.machine("web", &[Image::Raw], 1);
    let mut server = site.serve();
    let wire = Wire::new(&server);
    let group = wire.define("web", &[&machine.id]).unwrap();
    let sets: Vec<_> = ["a", "b", "c"].map(|name| wire.take(&group, name)).into();
    site.wait_for_journals();
    server.kill();
    let log = site.data.join("groupshot.db-wal");
    let whole = fs::read(&log).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 8] ^= 1;
    for damaged in [Some(&flipped[..]), Some(&whole[..whole.len() / 2]), None] {
        match damaged {
            Some(bytes) => fs::write(&log, bytes).unwrap(),
            None => fs::remove_file(&log).unwrap(),
        }
        let before = site.tree();
        let line = refusal(&site, &[], REFUSED);
        for part in ["groupshot.db", "groupshot.commits", "is lost"] {
            assert!(line.contains(part), "{part}: {line}");
        }
        for command in [&["doctor", "--fix", "--yes"][..], &["rescue"]] {
            let out = run_in(&site.data, command, "");
            let said = text(&out.stderr);
            assert_eq!(out.status.code(), Some(REFUSED), "{command:?}: {said}");
        }
        assert!(site.tree() == before, "nothing is merged or moved");
        if let Some(bytes) = damaged {
            assert_eq!(fs::read(&log).unwrap(), bytes, "the log is left as it is");
        }
    }
    fs::write(&log, &whole).unwrap();
    let shown = Wire::new(&site.serve()).shown().unwrap();
    assert!(
        sets.iter().all(|set| shown.sets.contains_key(set)),
        "{shown:?}"
    );
}

#[test]
fn a_users_file_that_somebody_else_has_changed_is_refused_until_it_is_accepted() {
    let site = Site::new(Ground::Host);
    let file = site.data.join("users.json");
    let whole = fs::read_to_string(&file).unwrap();
    let changed = whole.replace("administrator", "reader");
    assert_ne!(changed, whole);
    fs::write(&file, &changed).unwrap();
    let line = refusal(&site, &[], REFUSED);
    assert!(
        line.contains("users.json") && line.contains("user accept"),
        "{line}"
    );
    let listed = run_in(&site.data, &["user", "list"], "");
    assert_eq!(listed.status.code(), Some(REFUSED));
    let accepted = run_in(&site.data, &["user", "accept"], "");
    assert!(accepted.status.success(), "{accepted:?}");
    drop(site.serve());
    // One of before there were checksums gets its own.
    let lines = whole.lines().filter(|line| !line.contains("checksum"));
    let old = lines.collect::<Vec<_>>().join("\n");
    fs::write(&file, &old).unwrap();
    drop(site.serve());
    let now = fs::read_to_string(&file).unwrap();
    assert!(
        now.contains("checksum") && now.contains("administrator"),
        "{now}"
    );
}

#[test]
fn users_that_are_gone_are_told_at_the_start_and_by_the_check_up() {
    let site = Site::new(Ground::Host);
    let machine = site.machine("web", &[Image::Raw], 1);
    let tells = |said: &str| {
        let line = said.lines().find(|l| l.contains("users.json is gone"));
        line.is_some_and(|l| l.contains("nobody can log on") && l.contains("groupshot user add"))
    };
    let file = site.data.join("users.json");
    let whole = fs::read(&file).unwrap();
    let doctor = || run_in(&site.data, &["doctor"], "");
    let gone = || {
        fs::remove_file(&file).unwrap();
        let server = site.serve();
        let found = doctor();
        fs::write(&file, &whole).unwrap();
        let in_check_up = tells(&text(&found.stdout));
        if in_check_up {
            until("a line of the log", || tells(&server.log()));
        }
        let told = (tells(&server.log()), in_check_up);
        (told, found.status.code())
    };
    // A directory in which nothing was done yet has no users at first.
    assert_eq!(gone().0, (false, false));
    let server = site.serve();
    Wire::new(&server).define("all", &[&machine.id]).unwrap();
    drop(server);
    assert_eq!(gone(), ((true, true), Some(1)));
    assert_eq!(doctor().status.code(), Some(0));
}

#[test]
fn a_broken_users_file_and_a_file_for_a_directory_are_named() {
    let site = Site::new(Ground::Host);
    fs::remove_file(site.data.join("users.json")).unwrap();
    fs::write(site.data.join("users.json"), "{ nobody }").unwrap();
    let line = refusal(&site, &[], REFUSED);
    assert!(line.contains("users.json"), "{line}");
    let file = site.images.join("file");
    fs::write(&file, "").unwrap();
    let options = Options {
        data: Some(Path::new(&file)),
        ..Options::default()
    };
    let said = Server::try_with(&options).err().unwrap();
    assert!(said.contains(file.to_str().unwrap()), "{said}");
}
