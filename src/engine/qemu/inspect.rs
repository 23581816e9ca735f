//! One look at a QEMU: its state, its disks, and who else has it. For `vm import`, which must know what it takes in.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::inventory::Sockets;

use super::agent;
use super::answer::{Answer, Chardev, Job, List};
use super::blocks::{self, Device, Finder};
use super::peer::{self, FileId, Peer};
use super::qmp::{Command, Error, Monitor, Patience};

/// One who waits at a shell has so much of it.
const PATIENCE: Patience = Patience {
    greeting: Duration::from_secs(2),
    reply: Duration::from_secs(5),
};

/// What was found at the monitors of a machine.
#[derive(Debug)]
pub(crate) enum Asked {
    /// Nobody listens: it is off, or somebody else runs it.
    Nobody,
    /// It runs.
    Runs(Box<Found>),
    /// There is somebody at this socket, and nothing can be learnt.
    Mute(PathBuf, Error),
}

/// A QEMU that runs.
#[derive(Debug)]
pub(crate) struct Found {
    /// Its disks, each with its file, or why that cannot be told.
    pub(crate) disks: Vec<(Device, io::Result<FileId>)>,
    /// Files were found by their names, for its process cannot be looked at.
    pub(crate) by_name: bool,
    /// Who else has a monitor of it just now, as QEMU names them.
    pub(crate) others: Vec<String>,
    /// Jobs at work on its disks.
    pub(crate) jobs: Vec<String>,
    /// An agent listens in its guest.
    pub(crate) agent: bool,
    /// A socket of the machine that is not one of this process.
    pub(crate) apart: Option<PathBuf>,
}

/// Looks at the QEMU behind these monitors. Blocks.
///
/// # Errors
/// No runtime can be made.
pub(crate) fn inspect(sockets: &Sockets) -> io::Result<Asked> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let told = runtime.block_on(ask(&sockets.qmp));
    runtime.shutdown_background();
    Ok(match told {
        Ok(Some(told)) => Asked::Runs(Box::new(told.found(sockets))),
        Ok(None) => Asked::Nobody,
        Err((socket, error)) => Asked::Mute(socket, error),
    })
}

/// What QEMU has said.
pub(super) struct Told {
    socket: PathBuf,
    peer: Option<Peer>,
    /// To the [`questions`], in their order.
    answers: Vec<Answer>,
    apart: Option<PathBuf>,
}

/// What it is asked for that; more may be asked behind.
pub(super) fn questions() -> Vec<Command> {
    vec![
        ("query-block", json!({})),
        ("query-named-block-nodes", json!({"flat": true})),
        ("query-fdsets", json!({})),
        ("query-chardev", json!({})),
        ("query-block-jobs", json!({})),
        ("query-jobs", json!({})),
    ]
}

async fn ask(sockets: &[PathBuf]) -> Result<Option<Told>, (PathBuf, Error)> {
    let mut told: Option<Told> = None;
    let mut silent = None;
    for socket in sockets {
        match Monitor::connect(socket, PATIENCE).await {
            Ok(mut monitor) => match &mut told {
                None => {
                    let all = told_by(&mut monitor, socket).await;
                    told = Some(all.map_err(|e| (socket.clone(), e))?);
                }
                Some(first) if monitor.peer() != first.peer.as_ref() => {
                    first.apart.get_or_insert_with(|| socket.clone());
                }
                Some(_) => {}
            },
            Err(Error::Absent) => {}
            // Somebody else has it: QEMU tells who, below.
            Err(error) => silent = Some((socket.clone(), error)),
        }
    }
    match (told, silent) {
        (None, Some(silent)) => Err(silent),
        (told, _) => Ok(told),
    }
}

async fn told_by(monitor: &mut Monitor, socket: &Path) -> Result<Told, Error> {
    let mut answers = Vec::new();
    for (command, arguments) in questions() {
        let answer = monitor.execute(command, arguments, PATIENCE.reply).await;
        answers.push(answer?);
    }
    let peer = monitor.peer().cloned();
    Ok(Told::of(answers, peer, socket))
}

impl Told {
    /// What the process has answered to the [`questions`], at this socket.
    pub(super) fn of(answers: Vec<Answer>, peer: Option<Peer>, socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            peer,
            answers,
            apart: None,
        }
    }

    /// Compares what was said with the process. Blocks.
    pub(super) fn found(self, sockets: &Sockets) -> Found {
        let open = self.peer.as_ref().and_then(|peer| peer.files().ok());
        // The socket of a manager may be made by the manager's process: what that has open is none of QEMU's.
        let open = open.filter(|open| !open.is_empty());
        let [blocks, nodes, sets, chardevs, jobs @ ..] = &self.answers[..] else {
            return self.nothing(open.is_none());
        };
        let (sets, chardevs) = (sets.read(), chardevs.read());
        let finder = Finder {
            peer: self.peer.as_ref(),
            open: open.as_ref(),
            sets: &sets,
        };
        let disks = blocks::devices(&blocks.read(), &nodes.read());
        let disks = disks.into_iter().map(|device| {
            let file = match &device.file {
                Some(name) => finder.find(name),
                None => Err(io::Error::other("it is no file of this host")),
            };
            (device, file)
        });
        Found {
            disks: disks.collect(),
            by_name: open.is_none(),
            others: self.others(&chardevs),
            jobs: names(jobs),
            agent: sockets.agent.as_ref().is_some_and(|socket| {
                let is_agent = |name: &str| peer::is_at(self.peer.as_ref(), name, socket);
                agent::listens(&chardevs, is_agent)
            }),
            apart: (self.apart.clone()).or_else(|| self.missing(&chardevs, sockets)),
        }
    }

    /// It has answered less than was asked.
    fn nothing(&self, by_name: bool) -> Found {
        Found {
            disks: Vec::new(),
            by_name,
            others: Vec::new(),
            jobs: Vec::new(),
            agent: false,
            apart: self.apart.clone(),
        }
    }

    /// The first of the sockets at which this process has no character device.
    fn missing(&self, chardevs: &List<Chardev>, sockets: &Sockets) -> Option<PathBuf> {
        let is_at = |device: &Chardev, socket: &Path| {
            peer::is_at(self.peer.as_ref(), device.filename.text(), socket)
        };
        let mut all = sockets.qmp.iter().chain(&sockets.agent);
        all.find(|socket| !chardevs.iter().any(|device| is_at(device, socket)))
            .cloned()
    }

    /// The monitors of the process that a client has, but for the one that was asked. A monitor is told by the name of
    /// its character device: QEMU's own for `-qmp` and `-monitor`, libvirt's, and such as say so.
    fn others(&self, chardevs: &List<Chardev>) -> Vec<String> {
        let others = chardevs.iter().filter_map(|device| {
            let (label, name) = (
                device.label.text().to_ascii_lowercase(),
                device.filename.text(),
            );
            let is_monitor = label.contains("mon") || label.contains("qmp");
            let is_own = || peer::is_at(self.peer.as_ref(), name, &self.socket);
            if !is_monitor || !is_connected(name) || is_own() {
                return None;
            }
            Some(name.to_owned())
        });
        others.collect()
    }
}

/// Jobs by their names: those of the first list are called by their device.
fn names(lists: &[Answer]) -> Vec<String> {
    let lists = lists.iter().map(Answer::read::<List<Job>>);
    let mut found = BTreeSet::new();
    for list in lists {
        found.extend(list.iter().map(|job| {
            let mut names = [&job.id, &job.device].into_iter();
            let name = names.find_map(|name| name.0.clone());
            name.unwrap_or_else(|| "a job without a name".to_owned())
        }));
    }
    found.into_iter().collect()
}

/// Whether a character device is a socket with somebody at its other end.
fn is_connected(name: &str) -> bool {
    let kinds = [
        "unix:",
        "tcp:",
        "telnet:",
        "tn3270:",
        "websocket:",
        "vsock:",
        "fd:",
    ];
    kinds.iter().any(|kind| name.starts_with(kind))
}
