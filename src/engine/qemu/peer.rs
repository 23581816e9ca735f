//! Who is at the other end of a monitor, and which files that process has open.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags};
use tokio::net::UnixStream;

use crate::engine::Process;
use crate::held;

/// Most descriptors of a process that are looked at.
const FILES_MAX: usize = 16 << 10;

/// A file by device and inode.
pub(crate) type FileId = (u64, u64);

/// The process that listens at a socket, as the kernel tells it. Its pid may be given to another process later; with the
/// start time, and within one boot of the host, it is its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its pid. That of who has made the socket, where a manager hands it down.
    pub(crate) pid: i32,
    /// When it was started, in ticks since the boot.
    pub(crate) started: u64,
    /// Which boot that was.
    pub(crate) boot: String,
}

impl Peer {
    /// Of this connection; `None` for a process of another pid namespace, or one that has ended.
    pub(super) fn of(stream: &UnixStream) -> Option<Self> {
        let pid = stream.peer_cred().ok()?.pid()?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(Self {
            pid: (pid > 0).then_some(pid)?,
            started: started(pid)?,
            boot: boot.trim().to_owned(),
        })
    }

    /// Whether it still lives.
    pub(crate) fn lives(&self) -> bool {
        lives(self.process())
    }

    /// The same for other processes of ours in this run of the host.
    pub(super) const fn process(&self) -> Process {
        Process {
            pid: self.pid,
            started: self.started,
        }
    }

    /// The user id whose rights count when it opens a file, if the kernel tells.
    pub(super) fn user(&self) -> Option<u32> {
        let status = fs::read_to_string(self.folder().join("status")).ok()?;
        let mut lines = status.lines();
        let ids = lines.find_map(|line| line.strip_prefix("Uid:"))?;
        ids.split_ascii_whitespace().nth(3)?.parse().ok()
    }

    /// The files that it has open. Blocks.
    ///
    /// # Errors
    /// It has ended, or this process may not see them.
    pub(crate) fn files(&self) -> io::Result<BTreeSet<FileId>> {
        let folder = self.folder().join("fd");
        let mut files = BTreeSet::new();
        for entry in fs::read_dir(&folder)?.take(FILES_MAX) {
            // What is closed meanwhile is none of them.
            if let Ok((id, FileType::RegularFile)) = seen(&entry?.path()) {
                files.insert(id);
            }
        }
        match self.lives() {
            true => Ok(files),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// The file that it means by this name, in its own folder and its own mounts. Blocks.
    ///
    /// # Errors
    /// There is none, or this process may not see it.
    pub(crate) fn named(&self, name: &Path) -> io::Result<FileId> {
        let place = match name.strip_prefix("/") {
            Ok(rest) => self.folder().join("root").join(rest),
            Err(_) => self.folder().join("cwd").join(name),
        };
        seen(&place).map(|(id, _)| id)
    }

    /// The file behind a descriptor of it. Blocks.
    ///
    /// # Errors
    /// As [`Peer::named`].
    pub(crate) fn descriptor(&self, number: u64) -> io::Result<FileId> {
        let place = self.folder().join("fd").join(number.to_string());
        seen(&place).map(|(id, _)| id)
    }

    fn folder(&self) -> PathBuf {
        Path::new("/proc").join(self.pid.to_string())
    }
}

/// Whether the character device that QEMU calls by this name is at this socket, with a client or without. Blocks.
pub(super) fn is_at(peer: Option<&Peer>, name: &str, socket: &Path) -> bool {
    let name = name.strip_prefix("disconnected:").unwrap_or(name);
    let Some(path) = name.strip_prefix("unix:") else {
        return false;
    };
    let path = Path::new(path.split(",server=").next().unwrap_or(path));
    let found = peer.and_then(|peer| peer.named(path).ok());
    match (found, id(socket).ok()) {
        (Some(found), Some(meant)) => found == meant,
        // Its folder cannot be seen from here.
        _ => path.file_name() == socket.file_name(),
    }
}

/// Device and inode of what stands there, links followed. Blocks.
pub(super) fn id(file: &Path) -> io::Result<FileId> {
    held::metadata(file).map(|it| (it.dev(), it.ino()))
}

/// The same through the folder of a process, from what the kernel has in memory where it can: nobody is asked for the size
/// of a file. Where that takes for ever all the same, it is not the folder of processes that does not answer.
fn seen(place: &Path) -> io::Result<(FileId, FileType)> {
    let wanted = StatxFlags::TYPE | StatxFlags::INO;
    let it = rustix::fs::statx(CWD, place, AtFlags::STATX_DONT_SYNC, wanted)?;
    let device = rustix::fs::makedev(it.stx_dev_major, it.stx_dev_minor);
    let kind = FileType::from_raw_mode(it.stx_mode.into());
    Ok(((device, it.stx_ino), kind))
}

/// Whether a process still lives.
pub(super) fn lives(process: Process) -> bool {
    started(process.pid) == Some(process.started)
}

/// The start time of a process: the 22nd field of its line, counted behind its name, which may hold anything. One that has
/// ended has a line until its parent has asked for it.
fn started(pid: i32) -> Option<u64> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, behind) = line.rsplit_once(')')?;
    let mut fields = behind.split_ascii_whitespace();
    let has_ended = matches!(fields.next()?, "Z" | "X");
    fields.nth(18).filter(|_| !has_ended)?.parse().ok()
}
