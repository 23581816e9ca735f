//! Row 10: how long machines stand still for a set, from the first that stops to the last that goes on, over a bare client
//! that sends the same commands with the same code, and keeps no journal, word or guard. Both by QEMU's own clock.
//!
//! A set is made to fail once its machines go on, and so undone: each round begins with disks of one layer. The server
//! stands still while the bare client is at work.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command as Program, Stdio};
use std::thread;
use std::time::Duration;

use futures_util::future;
use groupshot::cim::schema::VIRTUALIZATION_V2;
use groupshot::cim::{self, Value as Cim};
use groupshot::client::Client;
use groupshot::engine::content;
use groupshot::engine::qcow2::writer::NewImage;
use groupshot::engine::qemu::qmp::{Command, Monitor, Patience, Said};
use groupshot::inventory::Format;
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::process::Process;
use crate::qemu::{Qemu, Sockets};
use crate::{median, spread, subject, verdict};

/// With 4 and 16 machines.
const TARGET: f64 = 1.15;
const DISKS: usize = 2;
const SIZE: u64 = 16 << 20;
const PATIENCE: Patience = Patience {
    greeting: Duration::from_secs(10),
    reply: Duration::from_secs(10),
};
/// For firmware to find that there is nothing to boot.
const QUIET: Duration = Duration::from_secs(3);

pub(crate) fn run(short: bool) {
    let there = Program::new("qemu-system-x86_64")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    if !there.is_ok_and(|status| status.success()) {
        println!("not measured: no qemu-system-x86_64");
        return;
    }
    let (counts, rounds): (&[usize], _) = if short {
        (&[1, 4], 3)
    } else {
        (&[1, 4, 16], 51)
    };
    for count in counts {
        let mut rig = Rig::new(*count, rounds);
        let (mut ours, mut bare, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..rounds {
            // Whoever is first finds other things in the caches.
            let (set, alone);
            if round % 2 == 0 {
                set = rig.set();
                alone = rig.bare(round);
            } else {
                alone = rig.bare(round);
                set = rig.set();
            }
            ours.push(set);
            bare.push(alone);
            ratios.push(set / alone);
        }
        let (low, high) = spread(ratios.clone());
        let ratio = median(ratios);
        let end = match count {
            1 => "told".to_owned(),
            _ => format!("target <= {TARGET}: {}", verdict(ratio <= TARGET)),
        };
        println!(
            "{count:2} machines by overlays stand still {:.2} ms, for the bare client {:.2} ms, ratio {ratio:.2} \
             ({low:.2}..{high:.2}), {end}",
            median(ours),
            median(bare)
        );
    }
}

/// A machine that runs, seen by a second monitor and commanded by a third.
struct Machine {
    images: PathBuf,
    events: BufReader<UnixStream>,
    monitor: Monitor,
    _qemu: Qemu,
    _sockets: Sockets,
}

struct Rig {
    machines: Vec<Machine>,
    runtime: Runtime,
    client: Client,
    group: cim::Path,
    journals: PathBuf,
    server: Process,
    _images: tempfile::TempDir,
}

impl Rig {
    fn new(count: usize, rounds: usize) -> Self {
        let (data, images) = (subject::data_dir(), tempfile::tempdir().unwrap());
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let mut machines = Vec::new();
        let mut ids = Vec::new();
        for n in 0..count {
            let folder = images.path().join(format!("machine-{n}"));
            std::fs::create_dir(&folder).unwrap();
            let sockets = Sockets::new();
            ids.push(import(data.path(), &folder, &sockets));
            machines.push(Machine::start(&runtime, folder, sockets));
        }
        thread::sleep(QUIET);
        let journals = data.path().join("journal");
        let fails = (1..=rounds).map(|n| format!("create.settle.before#{n}=error"));
        let fails = fails.collect::<Vec<_>>().join(",");
        let server = Process::serving_in(data, &[], &[("GROUPSHOT_FAILPOINTS", &fails)]);
        let mut create = vec!["collection", "create", "bench"];
        create.extend(ids.iter().map(String::as_str));
        let made = subject::command(server.address, &create);
        Self {
            machines,
            runtime,
            client: subject::client(server.address),
            group: object("Msvm_VirtualSystemCollection")
                .key("CollectionID", made["id"].as_str().unwrap()),
            journals,
            server,
            _images: images,
        }
    }

    /// Milliseconds of a set.
    fn set(&mut self) -> f64 {
        let settings = "<INSTANCE CLASSNAME=\"Msvm_VirtualSystemSnapshotSettingData\"><PROPERTY NAME=\"ConsistencyLevel\" \
                        TYPE=\"string\"><VALUE>2</VALUE></PROPERTY></INSTANCE>";
        let arguments = [
            ("Collection", Cim::from(self.group.clone())),
            ("SnapshotSettings", settings.into()),
            ("SnapshotType", "1".into()),
        ];
        let service = object("Msvm_CollectionSnapshotService");
        // Right after a start not all machines are known.
        let job = loop {
            let asked = self.client.invoke(&service, "CreateSnapshot", &arguments);
            let answer = self.runtime.block_on(asked).unwrap();
            if answer.number("ReturnValue") == Some(4096) {
                let job = answer.get("Job").as_reference().unwrap();
                let id = job.text("InstanceID").unwrap();
                break object("Msvm_ConcreteJob").key("InstanceID", id);
            }
            thread::sleep(Duration::from_millis(100));
        };
        let stood = self.stood();
        loop {
            let job = self.runtime.block_on(self.client.get(&job)).unwrap();
            if job.number("JobState").unwrap() > 6 {
                // On order, and for nothing else.
                let why = job.text("ErrorDescription").to_owned();
                assert!(why.contains("create.settle.before"), "{why}");
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let is_open = |file: std::fs::DirEntry| {
            let name = file.file_name().into_string().unwrap();
            !name.starts_with("spare-")
        };
        while std::fs::read_dir(&self.journals)
            .unwrap()
            .flatten()
            .any(is_open)
        {
            thread::sleep(Duration::from_millis(20));
        }
        stood
    }

    /// Milliseconds of a bare client.
    fn bare(&mut self, round: usize) -> f64 {
        kill(self.server.pid(), Signal::SIGSTOP).unwrap();
        let each = self.machines.iter_mut();
        self.runtime.block_on(async {
            let mut each: Vec<_> = each
                .map(|it| (&mut it.monitor, it.images.as_path()))
                .collect();
            for (monitor, images) in &mut each {
                attach(monitor, images, round).await;
            }
            let mut monitors: Vec<_> = each.iter_mut().map(|(monitor, _)| &mut **monitor).collect();
            window(&mut monitors, round).await;
        });
        let stood = self.stood();
        self.runtime.block_on(async {
            for machine in &mut self.machines {
                detach(&mut machine.monitor, &machine.images, round).await;
            }
        });
        kill(self.server.pid(), Signal::SIGCONT).unwrap();
        // What it missed meanwhile.
        thread::sleep(Duration::from_millis(300));
        stood
    }

    /// Milliseconds from the first machine that has stopped to the last that has gone on, of which nothing was told yet.
    fn stood(&mut self) -> f64 {
        let told = self.machines.iter_mut().map(Machine::stood);
        let (stops, resumes): (Vec<_>, Vec<_>) = told.unzip();
        (resumes.into_iter().max().unwrap() - stops.into_iter().min().unwrap()) as f64 / 1e3
    }
}

impl Machine {
    fn start(runtime: &Runtime, images: PathBuf, sockets: Sockets) -> Self {
        let commanded = format!(
            "socket,id=bare,path={},server=on,wait=off",
            sockets.path().join("bare").display()
        );
        let mut args = vec!["-chardev".to_owned(), commanded];
        args.extend(["-mon", "chardev=bare,mode=control"].map(str::to_owned));
        for disk in 0..DISKS {
            let node = json!({
                "driver": "qcow2",
                "node-name": format!("disk{disk}"),
                "file": {"driver": "file", "filename": image(&images, disk)},
            });
            args.extend(["-blockdev".to_owned(), node.to_string()]);
            args.extend([
                "-device".to_owned(),
                format!("virtio-blk-pci,drive=disk{disk}"),
            ]);
        }
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let qemu = sockets.start(&args);
        let bare = sockets.path().join("bare");
        Self {
            images,
            events: events(&sockets.path().join("test")),
            monitor: runtime.block_on(Monitor::connect(&bare, PATIENCE)).unwrap(),
            _qemu: qemu,
            _sockets: sockets,
        }
    }

    /// When it has stopped and when it has gone on, microseconds.
    fn stood(&mut self) -> (u64, u64) {
        let mut times = BTreeMap::new();
        while !times.contains_key("RESUME") {
            let mut line = String::new();
            assert!(
                self.events.read_line(&mut line).unwrap() > 0,
                "QEMU is gone"
            );
            let told: Value = serde_json::from_str(&line).unwrap();
            let Some(event) = told["event"].as_str() else {
                continue;
            };
            let part = |name: &str| told["timestamp"][name].as_u64().unwrap();
            let time = part("seconds") * 1_000_000 + part("microseconds");
            times.insert(event.to_owned(), time);
        }
        (times["STOP"], times["RESUME"])
    }
}

/// A monitor that only listens. QEMU may still be busy with the end of the client before.
fn events(socket: &Path) -> BufReader<UnixStream> {
    for _ in 0..100 {
        thread::sleep(Duration::from_millis(50));
        let mut to = UnixStream::connect(socket).unwrap();
        to.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut from = BufReader::new(to.try_clone().unwrap());
        let mut said = String::new();
        if from.read_line(&mut said).is_err() || said.is_empty() {
            continue;
        }
        to.write_all(b"{\"execute\": \"qmp_capabilities\"}\n")
            .unwrap();
        said.clear();
        if from.read_line(&mut said).is_ok() && said.contains("return") {
            to.set_read_timeout(None).unwrap();
            return from;
        }
    }
    panic!("QEMU does not greet");
}

fn import(data: &Path, folder: &Path, sockets: &Sockets) -> String {
    let name = folder.file_name().unwrap().to_str().unwrap();
    let images: Vec<_> = (0..DISKS).map(|disk| image(folder, disk)).collect();
    let qmp = sockets.qmp(1);
    let mut args = vec!["vm", "import", "--overlay-ok", name];
    for image in &images {
        content::create(image, Format::Qcow2, SIZE).unwrap();
        args.push(image.to_str().unwrap());
    }
    args.extend(["--qmp", qmp.to_str().unwrap()]);
    let imported = subject::local(data, &args);
    imported["id"].as_str().unwrap().to_owned()
}

fn image(folder: &Path, disk: usize) -> PathBuf {
    folder.join(format!("disk{disk}.qcow2"))
}

fn overlay(folder: &Path, disk: usize) -> PathBuf {
    folder.join(format!("overlay{disk}.qcow2"))
}

fn node(round: usize, disk: usize) -> String {
    format!("bare-{round}-{disk}")
}

/// What a set prepares: an overlay for each disk.
async fn attach(monitor: &mut Monitor, images: &Path, round: usize) {
    for disk in 0..DISKS {
        let (base, file) = (image(images, disk), overlay(images, disk));
        let new = NewImage {
            size: SIZE,
            backing: Some((&base, Format::Qcow2)),
        };
        let made = File::create(&file).unwrap();
        new.write(&made).unwrap();
        made.sync_all().unwrap();
        let add = json!({
            "driver": "qcow2",
            "node-name": node(round, disk),
            "backing": null,
            "discard": "unmap",
            "file": {"driver": "file", "filename": file},
        });
        tell(monitor, "blockdev-add", add).await;
    }
}

/// The window of a set, as `docs/cut.md` §2 has it, and nothing beside it.
async fn window(monitors: &mut [&mut Monitor], round: usize) {
    let none = || json!({});
    all(monitors, || {
        vec![
            ("query-status", none()),
            ("stop", none()),
            ("query-block", none()),
            ("query-jobs", none()),
        ]
    })
    .await;
    let actions = (0..DISKS).map(|disk| {
        let data = json!({"node": format!("disk{disk}"), "overlay": node(round, disk)});
        json!({"type": "blockdev-snapshot", "data": data})
    });
    let transaction = json!({"actions": actions.collect::<Vec<_>>()});
    all(monitors, || vec![("transaction", transaction.clone())]).await;
    all(monitors, || vec![("query-status", none())]).await;
    let go_on = monitors.iter_mut().map(|monitor| async {
        ask(monitor, vec![("cont", none())]).await;
        ask(monitor, vec![("query-status", none())]).await;
    });
    future::join_all(go_on).await;
}

/// Has all do this, and waits until all have.
async fn all(monitors: &mut [&mut Monitor], commands: impl Fn() -> Vec<Command>) {
    let each = monitors.iter_mut().map(|monitor| ask(monitor, commands()));
    future::join_all(each).await;
}

async fn ask(monitor: &mut Monitor, commands: Vec<Command>) -> Vec<Value> {
    let first = monitor.tell(&commands).await.unwrap();
    let mut answers = Vec::new();
    while answers.len() < commands.len() {
        match monitor.said().await.unwrap() {
            Said::Reply(id, answer) if id >= first => answers.push(answer.unwrap()),
            _ => {}
        }
    }
    answers
}

/// What an undone set does: the machine is back on its old files.
async fn detach(monitor: &mut Monitor, images: &Path, round: usize) {
    for disk in 0..DISKS {
        let (job, node) = (format!("undo-{disk}"), node(round, disk));
        let base = format!("disk{disk}");
        let commit = json!({"job-id": job, "device": node, "base-node": base});
        tell(monitor, "block-commit", commit).await;
        loop {
            let jobs = tell(monitor, "query-jobs", json!({})).await;
            match jobs[0]["status"].as_str() {
                None => break,
                Some("ready") => drop(tell(monitor, "job-complete", json!({"id": job})).await),
                Some(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tell(monitor, "blockdev-del", json!({"node-name": node})).await;
        std::fs::remove_file(overlay(images, disk)).unwrap();
    }
}

async fn tell(monitor: &mut Monitor, command: &'static str, arguments: Value) -> Value {
    let told = monitor.execute(command, arguments, PATIENCE.reply).await;
    told.unwrap()
}

fn object(class: &str) -> cim::Path {
    cim::Path::new(VIRTUALIZATION_V2, class)
}
