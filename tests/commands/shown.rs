//! The commands of README and of the pages that `docs/operating.md` lists, run as they are written and in their order,
//! by root, with the default data directory and ports: in namespaces of their own, so that nothing of the host is
//! touched.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::gate::Gate;
use crate::support::pages;
use crate::support::server::{PASSWORD, binary};
use crate::support::tools::{self, Mount};

use super::{code, ok, said};

/// What the documents leave to the reader, with the tools that do not act here. `/srv`, `/var/lib` and the folder of
/// units are empty and go with the last process.
const NAMESPACES: &str = "set -e
ip link set lo up
for folder in /srv /var/lib /etc/systemd/system; do mount -t tmpfs tmpfs $folder; done
echo ready
cat >/dev/null";

/// cargo starts the program that is built already; systemctl knows whether there is a unit.
const STUBS: [(&str, &str); 2] = [
    (
        "cargo",
        "[ \"$1 $2 $3\" = 'run --release --' ] && shift 3 && exec groupshot \"$@\"",
    ),
    (
        "systemctl",
        "[ \"$1\" = daemon-reload ] || [ -f /etc/systemd/system/\"${!#}\".service ]",
    ),
];

/// How long a server may take to listen or to end, and a job to end.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn every_command_of_the_documents_runs_as_it_is_written() {
    let mut shell = Shell::open();
    let mut count = 0;
    for file in pages::for_operators() {
        for line in shown(&file) {
            eprintln!("{file}: {line}");
            shell.line(&line);
            count += 1;
        }
    }
    shell.stop();
    assert!(count >= 75, "{count} lines");
}

/// The lines of the blocks of shell commands.
fn shown(file: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join(file)).unwrap();
    let blocks = text.split("```").skip(1).step_by(2);
    let blocks = blocks.filter_map(|b| b.strip_prefix("sh\n"));
    let lines = blocks.flat_map(str::lines).filter(|l| !l.is_empty());
    lines.map(str::to_owned).collect()
}

/// A shell in a folder of its own, on a file system that clones.
struct Shell {
    mount: Mount,
    holder: Child,
    server: Option<Child>,
    /// Holds the first set of the server, for `job cancel`.
    gate: Option<Gate>,
    /// What stands in place of what the documents leave open.
    places: BTreeMap<&'static str, String>,
}

impl Shell {
    fn open() -> Self {
        let mount = Mount::file_system("xfs");
        furnish(mount.path());
        let mut holder = Command::new("unshare")
            .args(["--mount", "--net", "--propagation", "private"])
            .args(["bash", "-c", NAMESPACES])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        let mut out = BufReader::new(holder.stdout.take().unwrap());
        out.read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n", "no namespaces");
        Self {
            mount,
            holder,
            server: None,
            gate: None,
            places: BTreeMap::from([("--data-dir …", "--data-dir ./other".to_owned())]),
        }
    }

    /// One line of a document, with what has to be there for it.
    fn line(&mut self, line: &str) {
        self.prepare(line);
        let mut command = line.to_owned();
        for (place, with) in &self.places {
            command = command.replace(place, with);
        }
        if command.starts_with("groupshot doctor --fix") && !command.contains("--yes") {
            command = format!("script -qec '{command}' /dev/null"); // on a terminal, where it may ask
        }
        let stays = command.starts_with("groupshot serve") || command.starts_with("cargo run");
        match stays {
            true => self.serve(&command),
            false if command.starts_with("groupshot job cancel") => self.cancel(&command),
            false => {
                let out = self.run(&command);
                assert_eq!(code(&out), 0, "{line}: {}", said(&out));
            }
        }
        if command.starts_with("groupshot snapshot") {
            self.wait_for_jobs();
        }
    }

    /// The command waits for the end of the job, which stands at the gate: it is opened once the command has told
    /// how far the job is, which is after the cancel was accepted.
    fn cancel(&mut self, command: &str) {
        let mut child = self
            .command(command)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let first = lines.next();
        self.gate = None;
        lines.for_each(drop);
        let status = child.wait().unwrap();
        assert!(status.success(), "{command}: {status}, {first:?}");
    }

    fn prepare(&mut self, line: &str) {
        let words: Vec<_> = line.split_whitespace().collect();
        match words.as_slice() {
            ["groupshot", "job", "cancel", id] => {
                let gate = Gate::new();
                self.serve_with("groupshot serve", &gate.at("create.prepare.before"));
                self.gate = Some(gate);
                let begun = self.json("snapshot create nightly --no-wait");
                let job = begun["job"].as_str().unwrap().to_owned();
                // Any id is as good as this one.
                let id: &'static str = Box::leak(id.to_string().into_boxed_str());
                self.places.insert(id, job);
            }
            ["groupshot", "snapshot", "export", name, ..] => {
                self.serve("groupshot serve --config groupshot.toml");
                self.must("mkdir -p /srv/exports/definitions");
                let set = self.json(&format!("snapshot show {name}"));
                let set = set["id"].as_str().unwrap().to_owned();
                let machine = self.json("vm show web-1");
                let machine = machine["id"].as_str().unwrap().to_owned();
                self.places.extend([("<set>", set), ("<machine>", machine)]);
            }
            ["groupshot", "collection" | "snapshot" | "job", ..]
            | ["groupshot", "user", "unlock", ..]
                if self.server.is_none() =>
            {
                self.serve("groupshot serve");
            }
            ["groupshot", "rescue" | "relocate", ..] | ["groupshot", "doctor", "--rebuild", ..] => {
                self.stop()
            }
            _ => {}
        }
        self.move_folders(&words);
    }

    /// Moves what the documents say was moved before.
    fn move_folders(&self, words: &[&str]) {
        match words {
            ["groupshot", "relocate", "--data-dir", new, "--from", old] => {
                self.must(&format!("mv {old} {new}"));
            }
            ["groupshot", "relocate", "--from", "/srv/images", ..] => {
                self.must("mv /srv/groupshot /var/lib/groupshot");
                self.must("groupshot relocate --from /srv/groupshot --apply");
                self.must("mkdir -p /srv/pool/images /srv/pool/more");
            }
            ["groupshot", "relocate", "--apply", ..] => {
                self.must("mv /var/lib/groupshot /srv/groupshot");
                self.must("groupshot relocate --data-dir /srv/groupshot --from /var/lib/groupshot --apply");
                self.must("mv /srv/groupshot /var/lib/groupshot");
                let dies = "GROUPSHOT_FAILPOINTS=relocate.planned.after=abort";
                let out = self.run(&format!(
                    "{dies} groupshot relocate --from /srv/groupshot --apply"
                ));
                assert!(!out.status.success(), "{}", said(&out));
            }
            _ => {}
        }
    }

    /// Starts a server in place of the one that runs, and waits until it listens.
    fn serve(&mut self, command: &str) {
        self.serve_with(command, "");
    }

    fn serve_with(&mut self, command: &str, failpoints: &str) {
        self.stop();
        let mut child = self
            .command(&format!("exec {command}"))
            .env("GROUPSHOT_FAILPOINTS", failpoints)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let up = |line: &String| line.contains("listening on http:") || line.contains("Ctrl-C");
        let found = lines.by_ref().map_while(Result::ok).any(|l| up(&l));
        std::thread::spawn(move || lines.for_each(drop));
        self.server = Some(child);
        assert!(found, "{command} does not come up");
    }

    /// Ends the server in order.
    fn stop(&mut self) {
        self.gate = None;
        let Some(mut server) = self.server.take() else {
            return;
        };
        let pid = nix::unistd::Pid::from_raw(server.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM).unwrap();
        let began = Instant::now();
        loop {
            if let Some(status) = server.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                return;
            }
            assert!(began.elapsed() < PATIENCE, "the server does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The documents speak of one thing after another: nobody reads so fast that a job still runs.
    fn wait_for_jobs(&self) {
        let began = Instant::now();
        loop {
            let jobs = self.json("job list");
            let jobs = jobs["jobs"].as_array().unwrap().iter();
            if jobs.clone().all(|job| job["state"] != "running") {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{jobs:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn json(&self, command: &str) -> serde_json::Value {
        super::json(&self.run(&format!("groupshot {command} --json")))
    }

    fn must(&self, command: &str) {
        ok(&self.run(command));
    }

    fn run(&self, command: &str) -> Output {
        self.command(command).output().unwrap()
    }

    fn command(&self, line: &str) -> Command {
        let folder = self.mount.path().display();
        let process = format!("/proc/{}/ns", self.holder.id());
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--mount={process}/mnt"))
            .arg(format!("--net={process}/net"))
            .args(["bash", "-c", &format!("cd '{folder}' && {line}")])
            .env("PATH", format!("{folder}/bin:{path}"))
            .env("GROUPSHOT_PASSWORD", PASSWORD)
            .env("GROUPSHOT_NEW_PASSWORD", PASSWORD)
            .stdin(Stdio::null());
        for name in ["URL", "USER", "CA", "DATA_DIR", "FAILPOINTS"] {
            command.env_remove(format!("GROUPSHOT_{name}"));
        }
        command
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// The files that the documents name, and the programs of the stubs.
fn furnish(folder: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (images, bin) = (folder.join("images"), folder.join("bin"));
    fs::create_dir(&images).unwrap();
    fs::create_dir(&bin).unwrap();
    for name in ["db-1.raw", "db-1-data.raw", "old.img"] {
        fs::write(images.join(name), vec![1; 1 << 20]).unwrap();
    }
    for name in ["web-1.qcow2", "spare.qcow2"] {
        let image = images.join(name);
        let args = ["create", "-q", "-f", "qcow2", image.to_str().unwrap(), "1M"];
        tools::run("qemu-img", &args);
    }
    let config = "[export]\nroots = [\"/srv/exports\"]\n";
    fs::write(folder.join("groupshot.toml"), config).unwrap();
    symlink(binary(), bin.join("groupshot")).unwrap();
    for (name, text) in STUBS {
        executable(&bin.join(name), text);
    }
    // It runs this test; that it is there is enough.
    assert!(root.join("check").is_file());
    executable(&folder.join("check"), "true");
    let units = folder.join("contrib");
    fs::create_dir(&units).unwrap();
    for entry in fs::read_dir(root.join("contrib")).unwrap() {
        let from: PathBuf = entry.unwrap().path();
        fs::copy(&from, units.join(from.file_name().unwrap())).unwrap();
    }
}

fn executable(file: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(file, format!("#!/usr/bin/env bash\n{text}\n")).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
}
