//! What a server may not do to an image is told before anything is promised, with the cause.

use std::fs::{self, Permissions};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::server::{Options, Server, binary, run_in, text};
use crate::support::site::{Ground, Image, Machine, SIZE, Site, assert_holds};
use crate::support::tools::{self};
use crate::support::wire::{STARTED, Wire};

const COMPLETED: u64 = 7;
const EXCEPTION: u64 = 10;
const INVALID_STATE: u64 = 5;
/// Whom the image belongs to; then whom the server runs as.
const OWNER: u32 = 1234;
const SERVER: u32 = 4321;

/// A site that another user's server can work on, and a machine in the group `all`.
fn scene(ground: Ground, more: &[&str]) -> (Site, Machine, String) {
    let site = Site::new(ground);
    let image = site.image("web", Image::Raw, 1);
    let args = [more, &[image.to_str().unwrap()]].concat();
    let machine = site.import("web", &args, vec![vec![1; SIZE]]);
    let group = Wire::new(&site.serve()).define("all", &[&machine.id]);
    for folder in [&site.data, &site.images] {
        for above in folder
            .ancestors()
            .skip(1)
            .filter(|a| *a != Path::new("/tmp"))
        {
            if above.starts_with("/tmp") {
                fs::set_permissions(above, Permissions::from_mode(0o755)).unwrap();
            }
        }
        let owner = format!("{SERVER}:{SERVER}");
        tools::run("chown", &["-R", &owner, folder.to_str().unwrap()]);
    }
    fs::set_permissions(&image, Permissions::from_mode(0o666)).unwrap();
    (site, machine, group.unwrap())
}

fn serve(site: &Site) -> Server {
    Server::with(&Options {
        data: Some(&site.data),
        user: Some(SERVER),
        ..Options::default()
    })
}

/// The set and its check are refused with the same words, all of `parts` among them.
fn refused(site: &Site, server: &Server, group: &str, parts: &[&str]) {
    let wire = Wire::new(server);
    let before = site.tree();
    let created = wire.create(group, "x").unwrap();
    let why = wire.why(&created);
    assert_eq!(created.value, INVALID_STATE, "{why}");
    for part in parts {
        assert!(why.contains(part), "{part}: {why}");
    }
    let out = server.cli(&["--json", "snapshot", "create", "all", "--check"]);
    let said = text(&out.stdout);
    assert_eq!(out.status.code(), Some(1), "{said}");
    let checked: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(checked["reason"].as_str(), Some(why.as_str()));
    assert!(site.tree() == before, "nothing was done");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_image_whose_owner_cannot_be_kept_is_not_captured_and_both_users_are_named() {
    for (ground, more) in [
        (Ground::Xfs, &[][..]),
        (Ground::Xfs, &["--overlay-ok"]),
        (Ground::Host, &["--overlay-ok"]),
    ] {
        let (site, machine, group) = scene(ground, more);
        let image = &machine.images[0];
        chown(image, Some(OWNER), Some(OWNER)).unwrap();
        let server = serve(&site);
        let (owner, user) = (OWNER.to_string(), SERVER.to_string());
        let parts = ["web", "disk0", image.to_str().unwrap(), &owner, &user];
        refused(&site, &server, &group, &parts);
        chown(image, Some(SERVER), Some(SERVER)).unwrap();
        let wire = Wire::new(&server);
        let set = wire.take(&group, "own");
        site.wait_for_journals();
        let applied = wire.apply(&set).unwrap();
        let job = wire.end(&applied.job.unwrap()).unwrap();
        assert_eq!(job.state, COMPLETED, "{job:?}");
    }
}

/// Local commands of root, beside a server that runs as a user of its own: each is done as that user.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_root_makes_in_the_data_directory_is_its_owners() {
    let (site, _, group) = scene(Ground::Host, &["--overlay-ok"]);
    let mut server = serve(&site);
    Wire::new(&server).take(&group, "first");
    site.wait_for_journals();
    server.stop();
    let run = |args: &[&str]| {
        let out = run_in(&site.data, args, "secret\n");
        assert!(out.status.success(), "{args:?}: {}", text(&out.stderr));
    };
    let config = site.configuration("[listen]\nhttp = \"127.0.0.1:0\"\n");
    fs::remove_file(site.data.join("groupshot.lock")).unwrap();
    run(&["config", "check", config.to_str().unwrap()]);
    let database = ["groupshot.db", "groupshot.db-wal", "groupshot.db-shm"];
    for file in database.map(|file| site.data.join(file)) {
        let _may_be_gone = fs::remove_file(file);
    }
    run(&["doctor", "--rebuild", "--yes"]);
    run(&["user", "add", "second", "--password-stdin"]);
    let image = site.image("db", Image::Raw, 2);
    chown(&image, Some(SERVER), Some(SERVER)).unwrap();
    run(&["vm", "import", "db", image.to_str().unwrap()]);
    let lost = site.data.join("sets/lost");
    fs::create_dir(&lost).unwrap();
    fs::write(lost.join("one"), "x").unwrap();
    for it in [&lost, &lost.join("one")] {
        chown(it, Some(SERVER), Some(SERVER)).unwrap();
    }
    run(&["doctor", "--fix", "--yes"]);
    assert!(site.data.join("orphans/lost/one").is_file());
    let server = serve(&site);
    let wire = Wire::new(&server);
    assert_eq!(wire.count("Msvm_ComputerSystem"), 3);
    let all = tools::run("find", &[site.data.to_str().unwrap(), "-user", "0"]);
    assert_eq!(all, "", "of root");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn root_serves_no_data_directory_that_another_user_has_written() {
    let (site, machine, _) = scene(Ground::Host, &["--overlay-ok"]);
    let here = site.data.display().to_string();
    let refused = |file: &str, advice: &str| {
        let options = Options {
            data: Some(&site.data),
            ..Options::default()
        };
        let refused = Server::try_with(&options).map(drop).unwrap_err();
        for part in ["exit status: 4", file, "belongs to user 4321", advice] {
            assert!(refused.contains(part), "{part}: {refused}");
        }
    };
    refused(&here, "`sudo -u '#4321'`");
    refused(
        &here,
        &format!("! -path '{here}/sets/*/*/*' -exec chown -h root: {{}} +`"),
    );
    // By a command that root gives, it is what that user's own server would be told.
    let config = site.configuration("[listen]\nhttp = \"127.0.0.1:0\"\n");
    let out = run_in(
        &site.data,
        &["config", "check", config.to_str().unwrap()],
        "",
    );
    assert!(out.status.success(), "{}", text(&out.stderr));
    tools::run("chown", &["-R", "0:0", &here]);
    let mut server = site.serve();
    server.stop();
    let machine = format!("machines/{}", machine.id);
    for name in ["journal/left.log", "machines", &machine] {
        let file = site.data.join(name);
        if !file.exists() {
            fs::write(&file, "").unwrap();
        }
        chown(&file, Some(SERVER), Some(SERVER)).unwrap();
        let named = file.to_str().unwrap();
        refused(named, &format!("`chown root: {named}`"));
        for args in [&["rescue"][..], &["doctor"], &["vm", "list"]] {
            let out = run_in(&site.data, args, "");
            let told = text(&out.stderr);
            assert_eq!(out.status.code(), Some(4), "{args:?}: {told}");
            assert!(told.contains("belongs to user 4321"), "{args:?}: {told}");
        }
        match file.is_dir() {
            true => chown(&file, Some(0), Some(0)).unwrap(),
            false => fs::remove_file(&file).unwrap(),
        }
    }
    drop(site.serve());
}

/// What he has written there may name any file.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_command_of_root_follows_what_another_user_has_recorded_as_that_user() {
    let (site, machine, group) = scene(Ground::Xfs, &[]);
    chown(&machine.images[0], Some(SERVER), Some(SERVER)).unwrap();
    let options = Options {
        data: Some(&site.data),
        env: &[("GROUPSHOT_FAILPOINTS", "create.cut.after=abort")],
        user: Some(SERVER),
        ..Options::default()
    };
    let mut server = Server::with(&options);
    let _died = Wire::new(&server).create(&group, "one");
    while TcpStream::connect(server.address).is_ok() {
        std::thread::sleep(Duration::from_millis(10));
    }
    server.kill();
    let made = ["-mindepth", "3", "-path", "*/.groupshot/*", "-type", "f"];
    let made = [&[site.images.to_str().unwrap()], &made[..]].concat();
    let made = tools::run("find", &made);
    let clone = Path::new(made.trim());
    assert!(clone.is_file(), "{made}");
    let folder = clone.parent().unwrap().to_str().unwrap();
    // Only root may take it away now.
    tools::run("chown", &["0:0", folder]);
    fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    let out = run_in(&site.data, &["rescue"], "");
    let told = text(&out.stdout) + &text(&out.stderr);
    assert!(clone.is_file(), "{told}");
    tools::run("chown", &[&format!("{SERVER}:{SERVER}"), folder]);
    let out = run_in(&site.data, &["rescue"], "");
    assert!(out.status.success(), "{}", text(&out.stderr));
    drop(serve(&site));
    assert!(!clone.exists(), "{told}");
    for folder in [&site.data, &site.images] {
        let all = tools::run("find", &[folder.to_str().unwrap(), "-user", "0"]);
        assert_eq!(all, "", "of root");
    }
}

/// It is as it was written, so nothing is to be made anew.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_may_not_be_read_is_told_apart_from_what_is_damaged() {
    let (site, _, group) = scene(Ground::Host, &["--overlay-ok"]);
    let mut server = serve(&site);
    let set = Wire::new(&server).take(&group, "first");
    site.wait_for_journals();
    server.kill();
    let journal = fs::read_dir(site.data.join("journal")).unwrap();
    let journal = journal.map(|entry| entry.unwrap().path()).next().unwrap();
    let in_data = |name: &str| site.data.join(name);
    for file in [
        // A start that gets further has SQLite remove it.
        in_data("groupshot.db-wal"),
        in_data(&format!("sets/{set}/set.json")),
        in_data(&format!("sets/{set}")),
        journal,
        in_data("groupshot.db"),
        in_data("groupshot.commits"),
        in_data("directory.json"),
        in_data("users.json"),
    ] {
        let before = fs::metadata(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let before = before.permissions();
        chown(&file, Some(0), Some(0)).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        let options = Options {
            data: Some(&site.data),
            user: Some(SERVER),
            ..Options::default()
        };
        let refused = Server::try_with(&options).map(drop).unwrap_err();
        let advice = format!("`chown -R --from=0 {SERVER}: {}`", site.data.display());
        let name = file.display().to_string();
        for part in ["exit status: 4", "Permission denied", &name, &advice] {
            assert!(refused.contains(part), "{part}: {refused}");
        }
        assert!(!refused.contains("--rebuild"), "{refused}");
        chown(&file, Some(SERVER), Some(SERVER)).unwrap();
        fs::set_permissions(&file, before).unwrap();
    }
    assert_eq!(Wire::new(&serve(&site)).count("Msvm_ComputerSystem"), 2);
}

/// No server runs, so none is to be stopped, and none to be asked.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_is_not_permitted_to_a_command_is_not_called_in_use() {
    let (site, _, _) = scene(Ground::Host, &["--overlay-ok"]);
    let advice = format!("`chown -R --from=0 {SERVER}: {}`", site.data.display());
    for name in ["groupshot.lock", "groupshot.db"] {
        let file = site.data.join(name);
        chown(&file, Some(0), Some(0)).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        for args in [
            &["vm", "remove", "web"][..],
            &["rescue"],
            &["relocate", "--here"],
        ] {
            let out = Command::new(binary())
                .args(args)
                .env("GROUPSHOT_DATA_DIR", &site.data)
                .uid(SERVER)
                .gid(SERVER)
                .output()
                .unwrap();
            let told = text(&out.stderr);
            assert_eq!(out.status.code(), Some(4), "{args:?}: {told}");
            for part in [&*advice, "Permission denied", name] {
                assert!(told.contains(part), "{args:?}: {part}: {told}");
            }
            assert!(!told.contains("server"), "{args:?}: {told}");
        }
        chown(&file, Some(SERVER), Some(SERVER)).unwrap();
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_image_that_may_not_be_looked_at_is_not_called_missing() {
    let (site, _, _) = scene(Ground::Host, &["--overlay-ok"]);
    let server = serve(&site);
    chown(&site.images, Some(0), Some(0)).unwrap();
    fs::set_permissions(&site.images, Permissions::from_mode(0o700)).unwrap();
    let told = text(&server.local(&["--json", "doctor"]).stdout);
    assert!(told.contains("image-unreadable"), "{told}");
    assert!(!told.contains("missing"), "{told}");
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_folder_that_the_server_may_not_enter_is_one_finding() {
    let (site, web, _) = scene(Ground::Host, &["--overlay-ok"]);
    let db = site.machine("db", &[Image::Raw, Image::Raw], 1);
    let server = serve(&site);
    chown(&site.images, Some(0), Some(0)).unwrap();
    fs::set_permissions(&site.images, Permissions::from_mode(0o700)).unwrap();
    let told = text(&server.local(&["--json", "doctor"]).stdout);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let mut found = told["findings"].as_array().unwrap().clone();
    found.retain(|f| f["severity"] != "info" && f["kind"] != "space-low");
    let [one] = found.as_slice() else {
        panic!("{found:#?}");
    };
    assert_eq!(one["kind"], "folder-unreadable");
    assert_eq!(one["object"], site.images.to_str().unwrap());
    let mut files: Vec<_> = db.images.iter().chain(&web.images).collect();
    files.sort();
    assert_eq!(one["files"], serde_json::json!(files));
    let machines = one["machines"].as_array().unwrap().iter();
    let machines: Vec<_> = machines.map(|m| &m["name"]).collect();
    assert_eq!(machines, ["db", "web"]);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_folder_that_the_server_may_not_write_is_named() {
    let (site, _, group) = scene(Ground::Xfs, &[]);
    chown(&site.images, Some(0), Some(0)).unwrap();
    fs::set_permissions(&site.images, Permissions::from_mode(0o755)).unwrap();
    let server = serve(&site);
    let folder = site.images.display().to_string();
    let cause = format!("files cannot be made in {folder}: Permission denied");
    refused(
        &site,
        &server,
        &group,
        &["web", "disk0", &cause, "overlay_ok"],
    );
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn folders_above_an_image_need_only_be_passable() {
    for ground in [Ground::Host, Ground::Xfs] {
        let (site, _, group) = scene(ground, &["--overlay-ok"]);
        let above = site.images.parent().unwrap();
        chown(above, Some(0), Some(0)).unwrap();
        fs::set_permissions(above, Permissions::from_mode(0o711)).unwrap();
        let server = serve(&site);
        let wire = Wire::new(&server);
        let set = wire.take(&group, "x");
        site.wait_for_journals();
        for call in [Wire::apply, Wire::destroy] {
            let begun = call(&wire, &set).unwrap();
            assert_eq!(begun.value, STARTED, "{}", wire.why(&begun));
            let job = wire.end(&begun.job.unwrap()).unwrap();
            assert_eq!(job.state, COMPLETED, "{job:?}");
            site.wait_for_journals();
        }
    }
}

/// Before the commit, so that nothing is changed and the machine is free again.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn what_cannot_be_replaced_fails_the_apply_and_every_disk_is_as_before() {
    let site = Site::new(Ground::Xfs);
    let mut machine = site.machine("web", &[Image::Raw, Image::Raw], 1);
    let server = site.serve();
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&machine.id]).unwrap();
    let first = machine.content.clone();
    let set = wire.take(&group, "one");
    let images = machine.images.clone();
    machine.write(&images[1], 1, 0, 4096, 2);
    site.wait_for_journals();
    for fixed in [&images[1], &site.images] {
        let fixed = fixed.to_str().unwrap();
        let before = site.tree();
        tools::run("chattr", &["+i", fixed]);
        let applied = wire.apply(&set).unwrap();
        assert_eq!(applied.value, STARTED, "{}", wire.why(&applied));
        let job = wire.end(&applied.job.unwrap()).unwrap();
        tools::run("chattr", &["-i", fixed]);
        assert_eq!(job.state, EXCEPTION, "{job:?}");
        for part in ["web", "chattr", fixed] {
            assert!(job.error.contains(part), "{part}: {job:?}");
        }
        site.wait_for_journals();
        assert!(site.tree() == before, "nothing was done");
    }
    let away = images[1].with_extension("away");
    fs::rename(&images[1], &away).unwrap();
    fs::create_dir(&images[1]).unwrap();
    let applied = wire.apply(&set).unwrap();
    let why = wire.why(&applied);
    assert_eq!(applied.value, INVALID_STATE, "{why}");
    for part in ["web", "disk1", images[1].to_str().unwrap()] {
        assert!(why.contains(part), "{part}: {why}");
    }
    fs::remove_dir(&images[1]).unwrap();
    fs::rename(&away, &images[1]).unwrap();
    let applied = wire.apply(&set).unwrap();
    let job = wire.end(&applied.job.unwrap()).unwrap();
    assert_eq!(job.state, COMPLETED, "{job:?}");
    for (image, content) in images.iter().zip(&first) {
        assert_holds(image, content, "applied");
    }
    let out = run_in(&site.data, &["doctor"], "");
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stdout));
}
