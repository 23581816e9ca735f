//! Commands on the library of machines.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::support::server::{PASSWORD, Server, USER, on_a_terminal, run_in};
use crate::support::site::{Ground, Image, Site};

use super::{code, fails, json, ok, said};

/// A machine `web` on a raw image that nobody may capture by an overlay; its `vm.toml`.
fn forbidding(site: &Site) -> PathBuf {
    let image = site.image("web", Image::Raw, 1);
    let args = ["vm", "import", "web", image.to_str().unwrap(), "--json"];
    let made = json(&run_in(&site.data, &args, ""));
    let id = made["id"].as_str().unwrap();
    site.data.join("machines").join(id).join("vm.toml")
}

#[test]
fn what_a_definition_allows_is_set_on_request_and_its_text_stays() {
    let site = Site::new(Ground::Host);
    let file = forbidding(&site);
    let old = format!("# mine\n{}", fs::read_to_string(&file).unwrap());
    fs::write(&file, &old).unwrap();
    let mode = fs::metadata(&file).unwrap().mode();
    let set = |more: &[&str]| run_in(&site.data, &[&["vm", "set", "web"], more].concat(), "");
    fails(&set(&["--overlay-ok"]), 2, "--yes");
    assert_eq!(fs::read_to_string(&file).unwrap(), old);
    let told = set(&["--overlay-ok", "--yes"]);
    assert!(ok(&told).contains(file.to_str().unwrap()));
    assert!(said(&told).contains("qcow2"), "{}", said(&told));
    let new = format!("{old}\n[qemu]\noverlay_ok = true\n");
    assert_eq!(fs::read_to_string(&file).unwrap(), new);
    assert_eq!(fs::metadata(&file).unwrap().mode(), mode);
    assert!(ok(&set(&["--overlay-ok"])).contains("so already"));
    let back = json(&set(&["--no-overlay-ok", "--yes", "--json"]));
    assert_eq!(
        (&back["overlayOk"], &back["changed"]),
        (&false.into(), &true.into())
    );
    for usage in [&["--yes"][..], &["--overlay-ok", "--no-overlay-ok"]] {
        assert_eq!(code(&set(usage)), 2, "{usage:?}");
    }
}

#[test]
fn on_a_terminal_a_change_of_a_definition_is_asked_for() {
    let site = Site::new(Ground::Host);
    let file = forbidding(&site);
    let old = fs::read_to_string(&file).unwrap();
    let data = site.data.to_str().unwrap();
    let args = ["vm", "set", "web", "--overlay-ok", "--data-dir", data];
    let (exit, said) = on_a_terminal(&args, &[], &["n\n"]);
    assert_eq!(
        (exit, fs::read_to_string(&file).unwrap()),
        (Some(1), old),
        "{said}"
    );
    let (exit, said) = on_a_terminal(&args, &[], &["y\n"]);
    assert_eq!(exit, Some(0), "{said}");
    assert!(
        fs::read_to_string(&file)
            .unwrap()
            .contains("overlay_ok = true")
    );
}

#[test]
fn a_definition_is_not_set_while_another_command_has_the_library() {
    let site = Site::new(Ground::Host);
    let file = forbidding(&site);
    let old = fs::read_to_string(&file).unwrap();
    let set = || {
        run_in(
            &site.data,
            &["vm", "set", "web", "--overlay-ok", "--yes"],
            "",
        )
    };
    let lock = fs::File::open(site.data.join("machines/.lock")).unwrap();
    let lock = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
    fails(&set(), 4, "another command");
    drop(lock);
    assert_eq!(fs::read_to_string(&file).unwrap(), old);
    ok(&set());
}

#[test]
fn a_running_server_takes_notice_of_what_is_set() {
    let site = Site::new(Ground::Host);
    let file = forbidding(&site);
    let server = site.serve();
    ok(&server.cli(&["collection", "create", "all", "web"]));
    let refused = server.cli(&["snapshot", "create", "all"]);
    fails(&refused, 1, "groupshot vm set web --overlay-ok");
    fails(&refused, 1, file.to_str().unwrap());
    ok(&server.local(&["vm", "set", "web", "--overlay-ok", "--yes"]));
    eventually(|| server.cli(&["snapshot", "create", "all"]).status.success());
}

/// Until it holds; a server looks at its files once a second.
fn eventually(mut holds: impl FnMut() -> bool) {
    for _ in 0..600 {
        if holds() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("it never came to hold");
}

/// The path by name of a disk, as the program tells it.
fn path_of(site: &Site, machine: &str) -> String {
    let out = run_in(&site.data, &["vm", "path", machine, "disk0"], "");
    ok(&out).trim_end().to_owned()
}

#[test]
fn the_path_by_name_leads_to_the_active_file_through_sets_restarts_and_renames() {
    let site = Site::new(Ground::Host);
    let machine = site.machine("web", &[Image::Raw], 1);
    let leads_to = |path: &str| fs::read_link(path).unwrap();
    let path = path_of(&site, "web");
    let by_name = site.data.join("machines/by-name");
    assert_eq!(PathBuf::from(&path), by_name.join("web/disk0"));
    assert_eq!(leads_to(&path), machine.images[0]);
    let mut server = site.serve();
    ok(&server.cli(&["collection", "create", "all", "web"]));
    ok(&server.cli(&["snapshot", "create", "all", "--name", "first"]));
    let overlay = site.top(&machine, 0);
    assert_ne!(overlay, machine.images[0]);
    assert_eq!(
        (path_of(&site, "web"), leads_to(&path)),
        (path.clone(), overlay)
    );
    ok(&server.cli(&["snapshot", "apply", "first", "--yes"]));
    assert_eq!(leads_to(&path), site.top(&machine, 0));
    server.stop();
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/elsewhere", by_name.join("gone")).unwrap();
    let astray = run_in(&site.data, &["vm", "path", "web"], "");
    fails(&astray, 1, "does not lead to the active file");
    let server = site.serve();
    assert_eq!(leads_to(&path_of(&site, "web")), site.top(&machine, 0));
    assert!(!by_name.join("gone").is_symlink());
    let definition = site.data.join("machines").join(&machine.id).join("vm.toml");
    let renamed = fs::read_to_string(&definition)
        .unwrap()
        .replace("\"web\"", "\"a/b\"");
    fs::write(&definition, renamed).unwrap();
    eventually(|| {
        ok(&server.cli(&["collection", "list"]));
        server.cli(&["snapshot", "list"]);
        by_name.join("a%2Fb/disk0").exists() && !by_name.join("web").is_symlink()
    });
    assert_eq!(leads_to(&path_of(&site, "a/b")), site.top(&machine, 0));
}

#[test]
fn a_name_that_two_machines_have_or_no_folder_can_hold_leads_nowhere_and_it_is_said_why() {
    let site = Site::new(Ground::Host);
    let import = |name: &str, more: &[&str], n: u8| {
        let image = site.image(&format!("image{n}"), Image::Qcow2, n);
        let args = [&["vm", "import", name, image.to_str().unwrap()], more].concat();
        run_in(&site.data, &args, "")
    };
    ok(&import("twin", &[], 1));
    assert!(path_of(&site, "twin").ends_with("/by-name/twin/disk0"));
    let id = json(&run_in(&site.data, &["vm", "show", "twin", "--json"], ""))["id"].clone();
    let id = id.as_str().unwrap();
    fails(&import("twin", &[], 2), 1, id);
    ok(&import("twin", &["--allow-duplicate"], 3));
    let path = |machine: &str, more: &[&str]| {
        run_in(&site.data, &[&["vm", "path", machine], more].concat(), "")
    };
    fails(&path("twin", &[]), 1, id);
    // The beginning of an id is enough, as long as it begins one only.
    let other = json(&run_in(&site.data, &["vm", "list", "--json"], ""));
    let ids = other["machines"].as_array().unwrap().iter();
    let unique = ids
        .filter(|m| m["id"].as_str().unwrap().starts_with(&id[..8]))
        .count()
        == 1;
    if unique {
        fails(
            &path(&id[..8].to_lowercase(), &[]),
            1,
            "is also the name of",
        );
    }
    let told = json(&path(id, &["--json"]));
    assert!(told["disks"][0]["path"].is_null(), "{told}");
    let by_id = told["disks"][0]["byId"].as_str().unwrap();
    assert_eq!(
        fs::read_link(by_id).unwrap(),
        PathBuf::from(told["disks"][0]["active"].as_str().unwrap())
    );
    let long = "ü".repeat(128);
    ok(&import(&long, &[], 4));
    fails(&path(&long, &[]), 1, "takes 256 bytes");
    ok(&run_in(&site.data, &["vm", "remove", id], ""));
    assert!(path_of(&site, "twin").ends_with("/by-name/twin/disk0"));
}

#[test]
fn the_name_of_a_machine_that_cannot_be_read_is_not_given_to_another() {
    type Break = fn(&str) -> String;
    let site = Site::new(Ground::Host);
    let run = |args: &[&str]| run_in(&site.data, args, "");
    let import = |name: &str, file: &str, more: &[&str]| {
        let image = site.image(file, Image::Raw, 1);
        run(&[&["vm", "import", name, image.to_str().unwrap()], more].concat())
    };
    let by_name = site.data.join("machines/by-name");
    let breaks: [(&str, &str, Break); 4] = [
        ("key", "vm.toml", |text| format!("colour = 3\n{text}")),
        ("syntax", "vm.toml", |text| {
            text.replace("format = 1", "format =")
        }),
        ("nothing", "vm.toml", |_| String::new()),
        ("tops", "tops.json", |text| {
            text.replace("\"tops\"", "\"tips\"")
        }),
    ];
    for (name, file, broken) in breaks {
        ok(&import(name, name, &[]));
        let first = fs::read_link(by_name.join(name)).unwrap();
        let first_id = first.parent().unwrap().file_name().unwrap();
        let first_id = first_id.to_str().unwrap().to_owned();
        let file = site.file_of(&first_id, file);
        let text = fs::read_to_string(&file).unwrap();
        assert_ne!(broken(&text), text);
        fs::write(&file, broken(&text)).unwrap();
        fails(
            &run(&["vm", "show", name]),
            1,
            match name {
                "nothing" => "there is no machine",
                _ => "`groupshot vm list` tells why",
            },
        );
        fails(&run(&["vm", "show", &first_id]), 1, "tells why");
        let again = format!("{name}-again");
        fails(&import(name, &again, &[]), 1, &first_id);
        if file.ends_with("tops.json") {
            fs::write(&file, text).unwrap(); // no import is possible before
            continue;
        }
        let second = json(&import(name, &again, &["--allow-duplicate", "--json"]));
        let second = second["id"].as_str().unwrap();
        assert_eq!(fs::read_link(by_name.join(name)).unwrap(), first, "{name}");
        fails(&run(&["vm", "path", second]), 1, &first_id);
        if name != "nothing" {
            fails(&run(&["vm", "remove", name]), 1, second);
        }
        let mut server = site.serve();
        ok(&server.cli(&["collection", "list"]));
        server.stop();
        assert_eq!(fs::read_link(by_name.join(name)).unwrap(), first, "{name}");
        fs::write(&file, text).unwrap();
        ok(&run(&["vm", "remove", second]));
        assert!(path_of(&site, name).starts_with(by_name.to_str().unwrap()));
        assert_eq!(fs::read_link(by_name.join(name)).unwrap(), first, "{name}");
    }
}

#[test]
fn no_link_comes_to_be_while_one_of_two_machines_of_a_name_cannot_be_read() {
    let site = Site::new(Ground::Host);
    let import = |n: u8| {
        let image = site.image(&format!("image{n}"), Image::Raw, n);
        let args = ["vm", "import", "twin", image.to_str().unwrap(), "--json"];
        let made = json(&run_in(
            &site.data,
            &[&args[..], &["--allow-duplicate"]].concat(),
            "",
        ));
        made["id"].as_str().unwrap().to_owned()
    };
    let (first, second) = (import(1), import(2));
    let link = site.data.join("machines/by-name/twin");
    assert!(!link.is_symlink());
    let server = site.serve();
    // It looks at all of them.
    let look = || assert!(said(&server.local(&["doctor"])).contains(&first));
    let definition = site.file_of(&first, "vm.toml");
    let text = fs::read_to_string(&definition).unwrap();
    // In the end nothing tells the name any more but what the server knows.
    for broken in [text.replace("format = 1", "format ="), String::new()] {
        fs::write(&definition, broken).unwrap();
        look();
        assert!(!link.is_symlink());
        fails(&run_in(&site.data, &["vm", "path", &second], ""), 1, "twin");
    }
    ok(&run_in(&site.data, &["vm", "remove", &second], ""));
    drop(server);
}

#[test]
fn a_file_of_the_kernel_is_no_image_whoever_names_it() {
    let site = Site::new(Ground::Host);
    let definition = forbidding(&site);
    let image = site.images.join("web.raw");
    fs::remove_file(&image).unwrap();
    std::os::unix::fs::symlink("/proc/version", &image).unwrap();
    let run = |args: &[&str]| run_in(&site.data, args, "");
    let kernel = "lies on a file system of the kernel";
    let accept = || run(&["vm", "set", "web", "--accept-image", "--yes"]);
    fails(&accept(), 1, kernel);
    let text = fs::read_to_string(&definition).unwrap();
    for format in ["raw", "qcow2"] {
        let edited = text.replace(image.to_str().unwrap(), "/proc/version");
        let edited = edited.replace("\"raw\"", &format!("{format:?}"));
        assert_ne!(edited, text);
        fs::write(&definition, edited).unwrap();
        fails(&accept(), 1, kernel);
        let list = run(&["vm", "list"]);
        assert!(
            ok(&list).contains("web") && said(&list).contains(kernel),
            "{}",
            said(&list)
        );
        let problems = json(&run(&["vm", "list", "--json"]))["problems"].clone();
        assert!(problems.to_string().contains(kernel), "{problems}");
    }
    let server = site.serve();
    ok(&server.cli(&["collection", "create", "all", "web"]));
    fails(&server.cli(&["snapshot", "create", "all"]), 1, kernel);
}

#[test]
fn an_active_file_that_no_link_can_start_has_none_until_its_header_names_a_whole_path() {
    let site = Site::new(Ground::Host);
    let image = site.image("with space", Image::Chain, 7);
    let reads = |file: &Path| {
        let args = ["-r", "-U", "-f", "qcow2", "-c", "read -P 7 0 4096"];
        let out = std::process::Command::new("qemu-io")
            .args(args)
            .arg(file)
            .output();
        let out = out.unwrap();
        out.status.success() && !said(&out).contains("Pattern verification failed")
    };
    // What QEMU does with such an image by a link.
    let link = site.data.join("link");
    std::os::unix::fs::symlink(&image, &link).unwrap();
    assert!(reads(&image) && !reads(&link));
    let path = image.to_str().unwrap();
    let imported = run_in(
        &site.data,
        &["vm", "import", "web", path, "--overlay-ok"],
        "",
    );
    assert!(ok(&imported).contains("machine `web`"));
    let other = site.image("other", Image::Chain, 8);
    let other = ["vm", "import", "db", other.to_str().unwrap(), "--json"];
    let other = json(&run_in(&site.data, &other, ""));
    let why = other["unlinked"][0]["why"].as_str().unwrap();
    assert!(why.contains("qemu-img rebase"), "{other}");
    ok(&run_in(&site.data, &["vm", "remove", "db"], ""));
    let command = |said: &str| {
        let (_, command) = said.split_once("`qemu-img rebase").unwrap();
        format!("qemu-img rebase{}", command.split_once('`').unwrap().0)
    };
    let rebase = command(&said(&imported));
    let vm_path = || run_in(&site.data, &["vm", "path", "web"], "");
    fails(&vm_path(), 1, &rebase);
    fails(&vm_path(), 1, path);
    let told = json(&run_in(&site.data, &["vm", "path", "web", "--json"], ""));
    let told = &told["disks"][0];
    assert!(told["path"].is_null() && told["byId"].is_null(), "{told}");
    assert_eq!(told["active"], path);
    let links = site.data.join("machines/by-name/web");
    let count = || fs::read_dir(&links).unwrap().count();
    assert_eq!(count(), 0);
    let server = site.serve();
    let doctor = || said(&server.local(&["doctor"]));
    assert!(doctor().contains(&rebase), "{}", doctor());
    // An overlay of ours names the image by its whole path; without it everything is as it was.
    ok(&server.cli(&["collection", "create", "all", "web"]));
    ok(&server.cli(&["snapshot", "create", "all", "--name", "one"]));
    assert!(reads(Path::new(&path_of(&site, "web"))));
    ok(&server.cli(&["snapshot", "delete", "one", "--yes"]));
    site.wait_for_journals();
    eventually(|| count() == 0);
    fails(&vm_path(), 1, "rebase");
    // As it was told, in a shell.
    let done = std::process::Command::new("sh")
        .args(["-c", &rebase])
        .status();
    assert!(done.unwrap().success());
    eventually(|| {
        server.cli(&["snapshot", "list"]);
        count() == 1
    });
    assert!(reads(Path::new(&path_of(&site, "web"))));
    assert!(!doctor().contains("rebase"), "{}", doctor());
}

#[test]
fn a_refusal_names_every_machine_that_it_concerns_and_the_way_on() {
    let site = Site::new(Ground::Host);
    for (n, name) in [(1, "web"), (2, "two words"), (3, "db")] {
        let image = site.image(&format!("image{n}"), Image::Raw, n);
        let args = ["vm", "import", name, image.to_str().unwrap()];
        ok(&run_in(&site.data, &args, ""));
    }
    let list = json(&run_in(&site.data, &["vm", "list", "--json"], ""));
    let machines = list["machines"].as_array().unwrap();
    let server = site.serve();
    ok(&server.cli(&["collection", "create", "all", "web", "two words", "db"]));
    for more in [&[][..], &["--check"], &["--json"]] {
        let refused = server.cli(&[&["snapshot", "create", "all"], more].concat());
        for machine in machines {
            let (id, name) = (
                machine["id"].as_str().unwrap(),
                machine["name"].as_str().unwrap(),
            );
            let word = if name.contains(' ') { id } else { name };
            fails(
                &refused,
                1,
                &format!("groupshot vm set {word} --overlay-ok"),
            );
            fails(&refused, 1, &format!("machines/{id}/vm.toml"));
            fails(&refused, 1, &format!("machines/by-name/{name}/disk0"));
        }
    }
    let refused = server.cli(&["snapshot", "create", "all", "--json"]);
    let error: serde_json::Value = serde_json::from_slice(&refused.stderr).unwrap();
    assert_eq!(
        (&error["version"], &error["error"]["kind"]),
        (&1.into(), &"failed".into())
    );
    assert_eq!(error["error"]["exit"], 1);
}

#[test]
fn errors_of_usage_are_objects_with_json_and_notes_are_left_out_with_quiet() {
    let site = Site::new(Ground::Host);
    let wrong = run_in(&site.data, &["vm", "show", "--json"], "");
    assert_eq!(code(&wrong), 2);
    let error: serde_json::Value = serde_json::from_slice(&wrong.stderr).unwrap();
    assert_eq!(error["error"]["kind"], "usage");
    let image = site.image("web", Image::Qcow2, 1);
    let import = [
        "vm",
        "import",
        "web",
        image.to_str().unwrap(),
        "--overlay-ok",
        "--quiet",
    ];
    let quiet = run_in(&site.data, &import, "");
    assert!(ok(&quiet).contains("machine `web`"));
    assert!(quiet.stderr.is_empty(), "{}", said(&quiet));
    fails(
        &run_in(&site.data, &["vm", "show", "none", "--quiet"], ""),
        1,
        "none",
    );
}

#[test]
fn the_last_administrator_is_removed_only_by_force() {
    let site = Site::new(Ground::Host);
    let user = |args: &[&str]| run_in(&site.data, &[&["user"], args].concat(), "secret\n");
    ok(&user(&["add", "ann", "--password-stdin"]));
    fails(&user(&["remove", USER]), 1, "last administrator");
    ok(&user(&["remove", "ann"]));
    ok(&user(&[
        "add",
        "ann",
        "--role",
        "administrator",
        "--password-stdin",
    ]));
    ok(&user(&["remove", USER]));
    fails(&user(&["remove", "ann"]), 1, "--force");
    ok(&user(&["remove", "ann", "--force"]));
}

#[test]
fn a_name_that_a_collection_has_is_refused_and_an_ambiguous_one_lists_its_ids() {
    let server = Server::start(&["--engine", "sim", "--machines", "2"]);
    let create =
        |more: &[&str]| server.cli(&[&["collection", "create", "all", "--json"], more].concat());
    let first = json(&create(&[]))["id"].clone();
    let first = first.as_str().unwrap();
    fails(&create(&[]), 1, first);
    let second = json(&create(&["--allow-duplicate"]))["id"].clone();
    let delete = |name: &str| server.cli(&["collection", "delete", name]);
    fails(&delete("all"), 1, first);
    fails(&delete("all"), 1, second.as_str().unwrap());
    fails(&delete(&first[..3]), 1, "there is no collection");
    let beginning = (4..37)
        .find(|n| first[..*n] != second.as_str().unwrap()[..*n])
        .unwrap();
    ok(&delete(&first[..beginning].to_lowercase()));
    ok(&delete("all"));
}

#[test]
fn an_apply_is_asked_for_and_only_a_yes_has_it_done() {
    let server = Server::start(&["--engine", "sim", "--machines", "2"]);
    ok(&server.cli(&["collection", "create", "all", "sim-000001"]));
    ok(&server.cli(&["snapshot", "create", "all", "--name", "first"]));
    fails(&server.cli(&["snapshot", "apply", "first"]), 2, "--yes");
    let url = server.url();
    let env = [
        ("GROUPSHOT_URL", url.as_str()),
        ("GROUPSHOT_USER", USER),
        ("GROUPSHOT_PASSWORD", PASSWORD),
    ];
    let apply = ["snapshot", "apply", "first"];
    let (exit, said) = on_a_terminal(&apply, &env, &["n\n"]);
    assert_eq!(exit, Some(1), "{said}");
    assert!(said.contains("nothing is applied"), "{said}");
    let (exit, said) = on_a_terminal(&apply, &env, &["y\n"]);
    assert_eq!(exit, Some(0), "{said}");
}
