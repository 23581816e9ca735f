//! `config check` and `serve` refuse the same, with the same exit code and reason.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value as Json;

use crate::support::pki::{Authority, Wish};
use crate::support::remote::{Call, Remote};
use crate::support::server::{Options, Server, binary, run_in, text};
use crate::support::site::{Ground, Image, Site};
use crate::support::tools::Mount;

/// A file and a data directory.
struct Place {
    home: tempfile::TempDir,
    data: PathBuf,
    user: Option<u32>,
}

impl Place {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let data = home.path().join("data");
        fs::create_dir(&data).unwrap();
        Self {
            home,
            data,
            user: None,
        }
    }

    fn data(&self) -> PathBuf {
        self.data.clone()
    }

    fn run(&self, args: &[&str]) -> Output {
        use std::os::unix::process::CommandExt as _;
        // One that starts all the same is ended.
        let mut command = Command::new("timeout");
        command.arg("60").arg(binary()).args(args);
        command.arg("--data-dir").arg(self.data());
        if let Some(user) = self.user.filter(|_| nix::unistd::geteuid().is_root()) {
            command.uid(user).gid(user);
        }
        command.output().unwrap()
    }

    /// Both refuse this with that code, and say the same.
    fn refused(&self, what: &str, config: &str, code: i32) {
        let file = self.home.path().join("groupshot.toml");
        fs::write(&file, format!("{config}\n")).unwrap();
        let file = file.to_str().unwrap();
        let check = self.run(&["config", "check", file]);
        let serve = self.run(&["serve", "--config", file]);
        let (said, ended) = (text(&check.stderr), text(&serve.stderr));
        assert_eq!(serve.status.code(), Some(code), "{what}: serve: {ended}");
        assert_eq!(check.status.code(), Some(code), "{what}: check: {said}");
        let reason = ended.lines().last().unwrap();
        assert!(reason.starts_with("groupshot: "), "{what}: {ended}");
        assert!(
            said.lines().any(|line| line == reason),
            "{what}: {said}{reason}"
        );
        let told = self.run(&["config", "check", file, "--json"]);
        let told: Json = serde_json::from_slice(&told.stdout).unwrap();
        assert_eq!(told["ok"], false, "{what}: {told}");
        let first = told["refusals"][0]["text"].as_str().unwrap();
        assert!(reason.ends_with(first), "{what}: {told}: {reason}");
    }
}

const FREE: &str = "[listen]\nhttp = \"127.0.0.1:0\"";

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_disk_without_room_for_a_new_database_is_refused() {
    let mount = Mount::tmpfs("size=256k");
    let mut place = Place::new();
    place.data = mount.path().join("data");
    let config = "[listen]\nhttp = \"127.0.0.1:0\"";
    place.refused("a new database needs 1 MiB", config, 1);
    assert!(!place.data.exists(), "nothing is made");
}

/// Files that are read at the start, and by commands: none is read without end.
#[test]
fn a_file_of_any_length_is_refused_by_name_and_not_read_to_its_end() {
    let place = Place::new();
    let long = place.home.path().join("long");
    // Sparse: no room is taken.
    fs::File::create(&long).unwrap().set_len(1 << 40).unwrap();
    let long = long.to_str().unwrap();
    let too_long = |said: &str| {
        assert!(
            said.contains("longer than 128 MiB") && said.contains("long"),
            "{said}"
        );
    };
    for args in [&["config", "check", long][..], &["serve", "--config", long]] {
        let out = place.run(args);
        assert_eq!(out.status.code(), Some(3), "{}", text(&out.stderr));
        too_long(&text(&out.stderr));
    }
    for tls in [
        format!("client_ca = {long:?}"),
        format!("certificate = {long:?}\nkey = {long:?}"),
    ] {
        let config = format!("{FREE}\nhttps = \"127.0.0.1:0\"\n[tls]\n{tls}\n");
        place.refused("a file that is too long", &config, 3);
        let file = place.home.path().join("groupshot.toml");
        let out = place.run(&["config", "check", file.to_str().unwrap()]);
        too_long(&text(&out.stderr));
    }
    fs::hard_link(long, place.data.join("users.json")).unwrap();
    for args in [&["user", "list"][..], &["serve", "--listen", "127.0.0.1:0"]] {
        let out = place.run(args);
        assert!(!out.status.success());
        too_long(&text(&out.stderr).replace("users.json", "long"));
    }
}

/// A mount that hangs, with the data directory on it.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_data_directory_that_does_not_answer_is_refused_by_name() {
    let mut place = Place::new();
    let remote = Remote::new(place.home.path(), "remote");
    place.data = remote.at.join("data");
    let silent = format!("{} does not answer", place.data.display());
    let file = place.home.path().join("groupshot.toml");
    fs::write(&file, FREE).unwrap();
    let file = file.to_str().unwrap();
    for args in [
        &["config", "check", file][..],
        &["serve", "--config", file],
        &["vm", "list"],
        &["doctor"],
        &["user", "list"],
    ] {
        let hung = remote.hang(Call::Any);
        let mut child = Command::new(binary())
            .args(args)
            .arg("--data-dir")
            .arg(&place.data)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let told = std::io::BufReader::new(child.stderr.take().unwrap());
        // Not to the end, which the kernel may put off until the mount answers.
        for read in std::io::BufRead::lines(told) {
            line = read.unwrap();
            if line.starts_with("groupshot: ") {
                break;
            }
        }
        assert!(line.contains(&silent), "{args:?}: {line}");
        drop(hung);
        assert_eq!(child.wait().unwrap().code(), Some(1), "{args:?}");
    }
}

#[test]
fn what_serve_refuses_config_check_refuses_with_the_same_code_and_reason() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("[listen]\nhttp = \"{}\"", taken.local_addr().unwrap());
    Place::new().refused("a port that is taken", &listen, 4);
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = port.local_addr().unwrap().port(); // free again
    let listen = format!("[listen]\nhttp = \"0.0.0.0:{port}\"\nhttps = \"127.0.0.1:{port}\"");
    Place::new().refused("one port twice", &listen, 4);
    let listen = "[listen]\nhttp = \"192.0.2.1:5985\"";
    Place::new().refused("an address of another host", listen, 4);
    let limits = format!("{FREE}\n[limits]\nconnections = 900000000");
    Place::new().refused("too many connections", &limits, 3);

    let place = Place::new();
    fs::remove_dir(place.data()).unwrap();
    fs::write(place.data(), "").unwrap();
    place.refused("a file in place of the data directory", FREE, 1);

    let place = Place::new();
    let audit = format!("{FREE}\n[log]\naudit = \"data\"");
    place.refused("a folder as audit file", &audit, 3);
    let audit = format!("{FREE}\n[log]\naudit = \"nowhere/audit.log\"");
    place.refused("an audit file in no folder", &audit, 3);
    let (audit, pipe) = (
        format!("{FREE}\n[log]\naudit = \"pipe\""),
        place.home.path().join("pipe"),
    );
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    place.refused("a pipe in the place of the audit file", &audit, 3);

    let place = Place::new();
    fs::write(place.data().join("users.json"), "{}").unwrap();
    place.refused("users that make no sense", FREE, 3);

    let place = Place::new();
    let lost = place.data().join("sets/one/two");
    fs::create_dir_all(&lost).unwrap();
    fs::write(lost.join("disk0.qcow2"), "x").unwrap();
    place.refused("files of sets without a database", FREE, 3);
}

#[test]
fn a_data_directory_on_a_file_system_of_the_kernel_is_refused_by_both() {
    for folder in [
        "/proc/groupshot",
        "/sys/groupshot/data",
        "/proc/self",
        "/dev/pts/x",
    ] {
        let place = Place {
            data: folder.into(),
            ..Place::new()
        };
        place.refused(folder, FREE, 1);
        let user = ["user", "add", "x", "--role", "reader", "--password-stdin"];
        let told = place.run(&user);
        let told = text(&told.stderr);
        assert!(told.contains("a file system of the kernel"), "{told}");
    }
}

#[test]
fn data_directories_of_others_and_copies_are_refused_by_both() {
    let mut place = Place::new();
    place.user = Some(65534);
    if nix::unistd::geteuid().is_root() {
        place.refused("a data directory of somebody else", FREE, 4);
        fs::remove_dir(place.data()).unwrap();
        place.refused("a folder in which none can be made", FREE, 4);
    }
    let (place, other) = (Place::new(), Place::new());
    let mut server = Server::with(&Options {
        data: Some(&other.data()),
        ..Options::default()
    });
    server.stop();
    for file in fs::read_dir(other.data()).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            fs::copy(file.path(), place.data().join(file.file_name())).unwrap();
        }
    }
    place.refused("a copy", FREE, 3);
}

#[test]
fn a_database_that_is_damaged_or_behind_is_refused_by_both() {
    let stopped = || {
        let place = Place::new();
        let mut server = Server::with(&Options {
            data: Some(&place.data()),
            ..Options::default()
        });
        let url = server.url();
        assert!(!url.is_empty());
        server.stop();
        place
    };
    let place = stopped();
    let file = place.data().join("groupshot.db");
    let mut bytes = fs::read(&file).unwrap();
    bytes[..16].fill(b'x');
    fs::write(&file, bytes).unwrap();
    place.refused("a file that is no database", FREE, 3);
    let place = stopped();
    let record = place
        .data()
        .join("sets/51C752F5-DCC1-4097-A24C-D6081FE7DCE1");
    fs::create_dir_all(&record).unwrap();
    fs::write(record.join("set.json"), "{}").unwrap();
    place.refused("a record that makes no sense", FREE, 3);
}

/// What the start finds out after the configuration: a place with a machine and two sets, broken in one way after the
/// other.
#[test]
fn what_the_start_refuses_of_sets_journals_and_a_moved_directory_is_refused_by_both() {
    let site = Site::new(Ground::Host);
    let machine = site.machine("web", &[Image::Raw], 1);
    let mut server = site.serve();
    for args in [
        &["collection", "create", "all", "web"][..],
        &["snapshot", "create", "all", "--name", "one"],
        &["snapshot", "create", "all", "--name", "two"],
    ] {
        let out = server.cli(args);
        assert!(out.status.success(), "{}", text(&out.stderr));
    }
    server.stop();
    let mut place = Place::new();
    place.data.clone_from(&site.data);
    let file = place.home.path().join("groupshot.toml");
    fs::write(&file, FREE).unwrap();
    let is_good = |place: &Place| {
        let good = place.run(&["config", "check", file.to_str().unwrap()]);
        assert!(good.status.success(), "{}", text(&good.stderr));
    };
    is_good(&place);

    for (name, code) in [("x.log", 1), ("spare-x.log", 3)] {
        let journal = site.data.join("journal").join(name);
        fs::write(&journal, vec![b'x'; 4096]).unwrap();
        place.refused(name, FREE, code);
        fs::remove_file(&journal).unwrap();
    }

    let away = place.home.path().join("away");
    let sets: Vec<_> = fs::read_dir(site.data.join("sets")).unwrap().collect();
    let record = sets[0].as_ref().unwrap().path().join("set.json");
    // The second set keeps what the machine ran on after the first.
    let kept: Vec<_> = site.kept().into_iter().filter(|f| f.is_file()).collect();
    let active = site.top(&machine, 0);
    let is_kept = |f: &&PathBuf| f.extension().is_some_and(|e| e == "qcow2") && **f != active;
    let kept = kept.iter().find(is_kept).unwrap();
    for (what, gone) in [
        ("a set without its record", &record),
        ("a set without a file", kept),
    ] {
        fs::rename(gone, &away).unwrap();
        place.refused(what, FREE, 3);
        fs::rename(&away, gone).unwrap();
    }
    is_good(&place);

    place.data = site.data.with_file_name("moved");
    fs::rename(&site.data, &place.data).unwrap();
    place.refused("a data directory that was moved", FREE, 1);
    // Only sets tell it then.
    let machine = place.data.join("machines").join(&machine.id);
    fs::rename(&machine, &away).unwrap();
    place.refused("one that was moved without its machines", FREE, 1);
    fs::rename(&away, &machine).unwrap();
    fs::rename(&place.data, &site.data).unwrap();
}

#[test]
fn files_for_tls_are_refused_by_both() {
    let place = Place::new();
    let home = place.home.path();
    let authority = Authority::new(home, "ca");
    let [own, other] = ["own", "other"].map(|name| authority.issue(&Wish::named(name)));
    fs::rename(&own.certificate, home.join("a.pem")).unwrap();
    fs::rename(&other.key, home.join("b.key")).unwrap();
    let pipe = home.join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let tls = "[listen]\nhttp = \"127.0.0.1:0\"\nhttps = \"127.0.0.1:0\"\n[tls]\n";
    for (what, files) in [
        (
            "a certificate that is away",
            "certificate = \"x.pem\"\nkey = \"b.key\"",
        ),
        (
            "a key of another certificate",
            "certificate = \"a.pem\"\nkey = \"b.key\"",
        ),
        (
            "a key that is none",
            "certificate = \"a.pem\"\nkey = \"a.pem\"",
        ),
        ("no CA of clients", "client_ca = \"b.key\""),
        (
            "a pipe in the place of a certificate",
            "certificate = \"pipe\"\nkey = \"b.key\"",
        ),
        (
            "a pipe in the place of a key",
            "certificate = \"a.pem\"\nkey = \"pipe\"",
        ),
        ("a pipe in the place of a CA", "client_ca = \"pipe\""),
    ] {
        place.refused(what, &format!("{tls}{files}"), 3);
    }
}

/// Nobody makes files of ours by way of what somebody else has put there, or may exchange.
#[test]
fn what_stands_in_the_place_of_a_folder_of_the_server_is_refused_by_both() {
    let place = Place::new();
    let options = Options {
        data: Some(&place.data),
        ..Options::default()
    };
    Server::with(&options).stop();
    let machine = "machines/51C752F5-DCC1-4097-A24C-D6081FE7DCE1";
    let (disks, by_name) = (&format!("{machine}/disks"), "machines/by-name");
    let secure = &format!("{FREE}\nhttps = \"127.0.0.1:0\"");
    let aside = place.home.path().join("aside");
    for (name, config, code) in [
        ("journal", FREE, 1),
        ("machines", FREE, 1),
        ("sets", FREE, 1),
        (machine, FREE, 1),
        (disks, FREE, 1),
        (by_name, FREE, 1),
        ("tls", secure, 3),
    ] {
        let folder = place.data.join(name);
        if !folder.is_dir() {
            fs::create_dir(&folder).unwrap();
        }
        let mode = |mode| fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
        let refused = |what: &str| {
            place.refused(&format!("{name}: {what}"), config, code);
            if name.starts_with("machines") {
                for args in [&["vm", "list"][..], &["relocate"], &["vm", "path", "x"]] {
                    let out = place.run(args);
                    let said = text(&out.stderr);
                    assert_eq!(out.status.code(), Some(1), "{name} {what} {args:?}: {said}");
                    assert!(said.contains(name), "{name} {what} {args:?}: {said}");
                }
            }
        };
        mode(0o777);
        refused("all may change it");
        mode(0o750);
        fs::rename(&folder, &aside).unwrap();
        symlink(&aside, &folder).unwrap();
        refused("a link in its place");
        fs::remove_file(&folder).unwrap();
        if !name.starts_with(machine) && name != by_name {
            fs::write(&folder, "").unwrap();
            refused("a file in its place");
            fs::remove_file(&folder).unwrap();
        }
        fs::rename(&aside, &folder).unwrap();
    }
    fs::remove_dir_all(place.data.join(machine)).unwrap();
    Server::with(&options).stop();
}

/// It is looked at where HTTPS is to be spoken.
#[test]
fn what_stands_in_the_place_of_certificates_keeps_no_server_without_https_from_starting() {
    let place = Place::new();
    fs::write(place.data.join("tls"), "").unwrap();
    let file = place.home.path().join("groupshot.toml");
    fs::write(&file, FREE).unwrap();
    let check = place.run(&["config", "check", file.to_str().unwrap()]);
    let said = text(&check.stdout) + &text(&check.stderr);
    assert_eq!(check.status.code(), Some(0), "{said}");
    assert!(
        said.contains("serve --tls-listen") && said.contains("tls: "),
        "{said}"
    );
    let options = Options {
        args: &["--config", file.to_str().unwrap()],
        data: Some(&place.data),
        ..Options::default()
    };
    Server::with(&options).stop();
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn a_folder_in_which_no_certificate_can_be_made_is_refused_by_both() {
    let mut place = Place::new();
    place.user = Some(65534);
    std::os::unix::fs::chown(&place.data, place.user, place.user).unwrap();
    fs::create_dir(place.data.join("tls")).unwrap();
    let secure = format!("{FREE}\nhttps = \"127.0.0.1:0\"");
    place.refused("a folder of root for the certificate", &secure, 3);
    fs::remove_dir(place.data.join("tls")).unwrap();
    let file = place.home.path().join("groupshot.toml");
    let good = place.run(&["config", "check", file.to_str().unwrap()]);
    assert!(good.status.success(), "{}", text(&good.stderr));
}

#[test]
fn beside_a_running_server_its_own_address_is_no_mistake() {
    let server = Server::start(&["--engine", "sim"]);
    let file = server.data.join("../check.toml");
    let file = Path::new(&file).to_owned();
    fs::write(&file, format!("[listen]\nhttp = \"{}\"\n", server.address)).unwrap();
    let out = run_in(
        &server.data,
        &["config", "check", file.to_str().unwrap()],
        "",
    );
    fs::remove_file(&file).unwrap();
    let told = text(&out.stdout);
    assert_eq!(out.status.code(), Some(0), "{told}{}", text(&out.stderr));
    assert!(told.contains("warning: data directory"), "{told}");
    assert!(told.contains("is in use by process"), "{told}");
}
