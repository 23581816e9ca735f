//! Commands on the data directory.

use std::io::{BufRead, BufReader};
use std::process::Command;

use crate::support::server::{Options, Server, binary, run_in};

use super::{code, fails, json, ok, said};

fn run(args: &[&str]) -> std::process::Output {
    Command::new(binary()).args(args).output().unwrap()
}

#[test]
fn machines_are_imported_shown_and_removed() {
    let data = tempfile::tempdir().unwrap();
    let image = data.path().join("disk.raw");
    std::fs::write(&image, vec![7; 4096]).unwrap();
    let image = image.to_str().unwrap();
    let library = data.path().join("data");
    let made = json(&run_in(
        &library,
        &["vm", "import", "web", image, "--json"],
        "",
    ));
    assert_eq!(made["disks"][0]["format"], "raw");
    fails(
        &run_in(&library, &["vm", "import", "twin", image], ""),
        1,
        "disk.raw",
    );
    let list = json(&run_in(&library, &["vm", "list", "--json"], ""));
    assert_eq!(list["machines"][0]["name"], "web");
    assert!(ok(&run_in(&library, &["vm", "show", "web"], "")).contains(image));
    ok(&run_in(&library, &["vm", "remove", "web"], ""));
    fails(
        &run_in(&library, &["vm", "show", "web"], ""),
        1,
        "no machine `web`",
    );
    assert!(std::path::Path::new(image).exists(), "the image stays");
}

#[test]
fn users_are_added_listed_and_removed() {
    let data = tempfile::tempdir().unwrap();
    let user = |args: &[&str]| run_in(data.path(), &[&["user"], args].concat(), "secret\n");
    ok(&user(&[
        "add",
        "ann",
        "--role",
        "reader",
        "--password-stdin",
    ]));
    fails(&user(&["add", "ann", "--password-stdin"]), 1, "ann");
    // The caller's own password is not meant.
    let mut other = Command::new(binary());
    other
        .args(["user", "add", "bob", "--data-dir"])
        .arg(data.path());
    let other = other
        .env("GROUPSHOT_PASSWORD", "mine")
        .stdin(std::process::Stdio::null());
    fails(&other.output().unwrap(), 2, "--password-stdin");
    ok(&user(&["password", "ann", "--password-stdin"]));
    let list = json(&user(&["list", "--json"]));
    assert_eq!(
        list["users"],
        serde_json::json!([{"name": "ann", "role": "reader"}])
    );
    ok(&user(&["remove", "ann"]));
    fails(&user(&["remove", "ann"]), 1, "ann");
}

#[test]
fn a_wrong_configuration_is_exit_3_with_key_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("groupshot.toml");
    std::fs::write(&file, "[limits]\ncontext = 3\n").unwrap();
    let file = file.to_str().unwrap();
    fails(
        &run(&["config", "check", file]),
        3,
        "groupshot.toml:2: limits.context",
    );
    let serve = run_in(folder.path(), &["serve", "--config", file], "");
    fails(&serve, 3, "limits.context");
    std::fs::write(file, "[limits]\ncontexts = 3\n").unwrap();
    ok(&run(&["config", "check", file]));
}

#[test]
fn every_mistake_of_a_configuration_is_told_in_a_line_or_in_one_object() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("groupshot.toml");
    let text = "[listen]\nhttpp = \"a\"\n[limits]\nenvelope = \"12KB\"\nfoo = 1\n[snapshot]\nreserve = -1\n\
                [job]\nkeep = \"1s\"\n[export]\nroots = [\"sets\"]\n";
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let out = run(&["config", "check", file]);
    assert_eq!(code(&out), 3);
    let told = said(&out);
    let lines: Vec<&str> = told.lines().collect();
    let wanted = [
        ":2: listen.httpp: unknown key `httpp`, expected ",
        ":4: limits.envelope: expected a number of bytes",
        ":5: limits.foo: unknown key `foo`, expected ",
        ":7: snapshot.reserve: expected a number of bytes",
        ":9: job.keep must be between 5m and 8784h",
        ":11: export.roots must hold absolute paths, not `sets`",
    ];
    assert_eq!(lines.len(), wanted.len(), "{told}");
    for (line, part) in lines.iter().zip(wanted) {
        assert!(
            line.starts_with("groupshot: ") && line.contains(part),
            "{line}: {part}"
        );
    }
    let out = run(&["config", "check", file, "--json"]);
    fails(&out, 3, "6 mistakes");
    let told: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((&told["version"], &told["ok"]), (&1.into(), &false.into()));
    assert_eq!(told["mistakes"].as_array().unwrap().len(), 6);
    assert_eq!(told["mistakes"][3]["line"], 7);
    assert_eq!(told["mistakes"][3]["key"], "snapshot.reserve");
    let serve = run_in(folder.path(), &["serve", "--config", file], "");
    fails(&serve, 3, "groupshot.toml:2: listen.httpp");
    fails(&serve, 3, "and 5 more");
}

#[test]
fn more_simulated_machines_than_documented_and_folders_that_do_not_fit_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("groupshot.toml");
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        run(&["config", "check", file.to_str().unwrap()])
    };
    let sim = "[engine]\ndefault = \"sim\"\nmachines = 99999999\n";
    fails(&check(sim), 3, ":3: engine.machines must be at most 100000");
    let serve = ["serve", "--engine", "sim", "--machines", "100001"];
    assert_eq!(code(&run_in(folder.path(), &serve, "")), 2);
    let at = folder.path().display();
    let text = format!("[log]\naudit = \"{at}\"\n");
    fails(
        &check(&text),
        3,
        &format!("log.audit: {at}: it is a folder, not a file"),
    );
    let text = format!("[export]\nroots = [\"{at}/gone\", \"{at}\"]\n");
    let told = ok(&check(&text));
    let warned = |part: &str| told.contains(&format!("warning: {part}\n"));
    assert!(
        warned(&format!("export.roots: there is no folder {at}/gone")),
        "{told}"
    );
    assert_eq!(told.matches("export.roots").count(), 1, "{told}");
}

/// A command as somebody to whom the directory is closed.
fn as_a_stranger(data: &std::path::Path, args: &[&str]) -> std::process::Output {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new(binary());
    command.args(args).env("GROUPSHOT_DATA_DIR", data);
    command.env("GROUPSHOT_NEW_PASSWORD", "secret");
    if nix::unistd::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    command.output().unwrap()
}

#[test]
fn what_is_not_permitted_or_not_there_is_told_so() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let image = folder.path().join("disk.raw");
    std::fs::write(&image, vec![7; 4096]).unwrap();
    let image = image.to_str().unwrap();
    ok(&run_in(&data, &["vm", "import", "web", image], ""));
    ok(&run_in(
        &data,
        &["user", "add", "ann", "--password-stdin"],
        "secret\n",
    ));
    let mode = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    mode(folder.path(), 0o755);
    // Whoever may look and not write is not told that somebody else works there.
    mode(&data, 0o555);
    let user = ["user", "add", "bob"];
    for args in [&["doctor"][..], &["vm", "import", "b", image], &user] {
        let out = as_a_stranger(&data, args);
        fails(&out, 4, "ermission denied");
        assert!(!said(&out).contains("in use"), "{}", said(&out));
    }
    mode(&data, 0o000);
    for args in [&["vm", "list"][..], &["user", "list"], &["doctor"], &user] {
        fails(&as_a_stranger(&data, args), 4, "ermission denied");
    }
    mode(&data, 0o700);
    let none = folder.path().join("none");
    for args in [
        &["vm", "list"][..],
        &["vm", "show", "a"],
        &["user", "list"],
        &["doctor"],
    ] {
        let out = run_in(&none, args, "");
        fails(&out, 1, "none: No such file or directory");
        assert!(!none.exists());
    }
    // An address of the documentation (RFC 5737), which no host has.
    let serve = run_in(&data, &["serve", "--listen", "192.0.2.1:0"], "");
    fails(&serve, 4, "cannot listen on 192.0.2.1:0");
}

/// On a disk without room commands and server say so, and leave nothing half done.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn on_a_full_disk_the_reason_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"set -e
mount -t tmpfs -o size=2m,mode=700 tmpfs "$1"
export GROUPSHOT_DATA_DIR="$1" GROUPSHOT_NEW_PASSWORD=secret GROUPSHOT_PASSWORD=secret
"$0" user add admin --role administrator
"$0" serve --engine sim --listen 127.0.0.1:0 >"$2" 2>&1 &
trap 'kill $!; wait' EXIT
for n in $(seq 600); do grep -q 'listening on http' "$2" && break; sleep 0.1; done
export GROUPSHOT_URL=$(grep -o 'http://[^ ]*' "$2" | head -n 1)
"$0" collection create first sim-000001
dd if=/dev/zero of="$1/fill" bs=4k 2>/dev/null || true
for n in $(seq 40); do "$0" collection create "more$n" || break; done
"$0" snapshot create first || true
dd if=/dev/zero of="$1/rest" bs=4k 2>/dev/null || true
"$0" user add bob || true
[ ! -e "$1/users.json.new" ] && echo clean
"#;
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let out = Command::new("unshare")
        .args(["--mount", "bash", "-c", script])
        .arg(binary())
        .arg(&disk)
        .arg(folder.path().join("log"))
        .output()
        .unwrap();
    let told = said(&out);
    assert!(
        told.contains("no space left on the file system of the data directory"),
        "{told}"
    );
    assert!(!told.contains("gave no reason"), "{told}");
    assert!(
        told.contains("users.json: No space left on device"),
        "{told}"
    );
    assert!(told.contains("clean"), "{told}");
}

#[test]
fn a_second_server_on_one_data_directory_or_port_is_exit_4() {
    let server = Server::start(&["--engine", "sim"]);
    let twin = server.local(&["serve", "--listen", "127.0.0.1:0"]);
    fails(&twin, 4, "in use");
    let other = tempfile::tempdir().unwrap();
    let address = server.address.to_string();
    fails(
        &run_in(other.path(), &["serve", "--listen", &address], ""),
        4,
        &address,
    );
}

#[test]
fn sigterm_ends_the_server_in_order() {
    let mut server = Server::with(&Options {
        args: &["--engine", "sim"],
        ..Options::default()
    });
    let pid = nix::unistd::Pid::from_raw(i32::try_from(server.pid()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM).unwrap();
    let status = server
        .wait(std::time::Duration::from_secs(60))
        .expect("it ends");
    assert_eq!(status.code(), Some(0));
}

#[test]
fn the_schema_can_be_looked_at_and_mof_checked() {
    assert!(ok(&run(&["schema", "show"])).contains("Msvm_CollectionSnapshotService"));
    let class = json(&run(&["schema", "show", "msvm_concretejob", "--json"]));
    assert_eq!(class["name"], "Msvm_ConcreteJob");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.mof");
    std::fs::write(&file, "class X : CIM_Missing { [Key] string A; };").unwrap();
    let file = file.to_str().unwrap();
    let check = run(&["schema", "check", file]);
    fails(&check, 1, "1 error, 0 warnings");
    std::fs::write(file, "class X : CIM_ManagedElement { [Key] string A; };").unwrap();
    ok(&run(&["schema", "check", file]));
}

#[test]
fn nobody_who_reads_what_is_printed_is_no_failure() {
    for args in [&["completions", "bash"][..], &["schema", "show"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let out = Command::new(binary()).args(args).stdout(writer).output();
        let out = out.unwrap();
        assert_eq!((code(&out), out.stderr.len()), (0, 0), "{}", said(&out));
    }
}

#[test]
fn a_machine_is_removed_while_the_server_runs_once_nothing_needs_it() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.raw");
    std::fs::write(&image, vec![7; 1 << 20]).unwrap();
    let mut server = Server::start(&[]);
    let image = image.to_str().unwrap();
    ok(&server.local(&["vm", "import", "--overlay-ok", "web", image]));
    ok(&server.local(&["vm", "import", "other", "--format", "raw", &copy(image)]));
    let remove = ["vm", "remove", "web"];
    let created = |out: &std::process::Output| code(out) == 0;
    // The server sees a new machine within a second.
    while !created(&server.cli(&["collection", "create", "one", "web"])) {}
    ok(&server.cli(&["snapshot", "create", "one", "--name", "first"]));
    for runs in [true, false] {
        if !runs {
            server.stop();
        }
        let refused = server.local(&remove);
        for part in [
            "snapshot set `first` ",
            "collection `one` ",
            "groupshot collection remove",
        ] {
            fails(&refused, 1, part);
        }
        let name = if runs { "other" } else { "web" };
        assert_eq!(code(&server.local(&["vm", "show", name])), 0);
        if runs {
            ok(&server.local(&["vm", "remove", "other"]));
            assert_eq!(code(&server.local(&["vm", "show", "other"])), 1);
        }
    }
    let server = Server::with(&Options {
        data: Some(&server.data),
        ..Options::default()
    });
    ok(&server.cli(&["snapshot", "delete", "first", "--yes"]));
    fails(&server.local(&remove), 1, "needed by collection `one` ");
    ok(&server.cli(&["collection", "remove", "one", "web"]));
    ok(&server.local(&remove));
    assert_eq!(code(&server.local(&["vm", "show", "web"])), 1);
    assert!(std::path::Path::new(image).exists());
}

/// Another image beside this one.
fn copy(image: &str) -> String {
    let other = format!("{image}.img");
    std::fs::copy(image, &other).unwrap();
    other
}

#[test]
fn only_vm_list_tells_of_a_broken_machine_and_doubled_names_are_told_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("data");
    for name in ["a.raw", "b.raw"] {
        let image = folder.path().join(name);
        std::fs::write(&image, vec![7; 4096]).unwrap();
        let image = image.to_str().unwrap();
        let import = ["vm", "import", "twin", image, "--allow-duplicate"];
        ok(&run_in(&library, &import, ""));
    }
    let broken = library.join("machines/00000000-0000-4000-8000-00000000DEAD");
    std::fs::create_dir(&broken).unwrap();
    std::fs::write(broken.join("vm.toml"), "?").unwrap();
    let list = run_in(&library, &["vm", "list"], "");
    ok(&list);
    assert!(said(&list).contains("vm.toml"), "{}", said(&list));
    let show = run_in(&library, &["vm", "show", "twin"], "");
    fails(&show, 1, "`twin` is the name of 2 machines; give the id");
    assert!(!said(&show).contains("vm.toml"), "{}", said(&show));
}

#[test]
fn a_server_without_users_says_how_to_add_one_and_listens_where_a_name_leads() {
    let data = tempfile::tempdir().unwrap();
    let mut child = Command::new(binary())
        .args(["serve", "--engine", "sim", "--listen", "localhost:0"])
        .arg("--data-dir")
        .arg(data.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    lines.read_line(&mut line).unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(line.contains("listening on http://"), "{line}");
    let log = said(&out);
    assert_eq!(log.matches("groupshot user add").count(), 1, "{log}");
    assert!(!log.contains("Recovered"), "{log}");
    let wrong = run_in(data.path(), &["serve", "--listen", "5985"], "");
    assert_eq!(code(&wrong), 2);
    assert!(
        said(&wrong).contains("expected ADDRESS:PORT"),
        "{}",
        said(&wrong)
    );
}

#[test]
fn completions_and_manual_pages_are_made() {
    assert!(ok(&run(&["completions", "bash"])).contains("groupshot"));
    let folder = tempfile::tempdir().unwrap();
    ok(&run(&["man", folder.path().to_str().unwrap()]));
    assert!(folder.path().join("groupshot-snapshot-create.1").exists());
    assert_eq!(code(&run(&["no-such-command"])), 2);
}

/// On a full disk as `/dev/full` is one.
#[test]
fn a_result_that_cannot_be_written_is_a_failure() {
    let data = tempfile::tempdir().unwrap();
    for args in [
        &["completions", "bash"][..],
        &["vm", "list"],
        &["--json", "user", "list"],
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full");
        let out = Command::new(binary())
            .args(args)
            .env("GROUPSHOT_DATA_DIR", data.path())
            .stdout(full.unwrap())
            .output()
            .unwrap();
        fails(&out, 1, "No space left");
    }
}
