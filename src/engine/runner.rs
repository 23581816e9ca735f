//! Which process runs a machine: written down before it is stopped, so that later nobody else is taken for it. Another one
//! may have its pid, or listen at its sockets.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};

use crate::engine::Stamp;

/// A process. Its pid may be given to another one later; with the start time, and within one boot of the host, it is its
/// name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its pid. That of who has made the socket, where a manager hands it down.
    pub pid: i32,
    /// When it was started, in ticks since the boot.
    pub started: u64,
    /// Which boot that was.
    pub boot: String,
    /// Where the pid counts: the inode of the pid namespace.
    pub namespace: u64,
}

impl Process {
    /// The one with this pid; `None` if it has ended, or nothing of it can be seen.
    pub(in crate::engine) fn of(pid: i32) -> Option<Self> {
        Some(Self {
            pid,
            started: started(pid).ok()??,
            boot: boot()?,
            namespace: namespace()?,
        })
    }

    /// Whether it still lives, as far as can be seen.
    pub(in crate::engine) fn lives(&self) -> bool {
        started(self.pid).is_ok_and(|started| started == Some(self.started))
    }

    /// Whether it certainly lives no more.
    fn has_ended(&self) -> bool {
        if boot().is_some_and(|boot| boot != self.boot) {
            return true;
        }
        if namespace() != Some(self.namespace) {
            return false; // its pid means nothing here
        }
        match started(self.pid) {
            Ok(started) => started != Some(self.started),
            // Others may be hidden from this process.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Pid::from_raw(self.pid).is_none_or(|pid| test_kill_process(pid) == Err(Errno::SRCH))
            }
            Err(_) => false,
        }
    }

    /// Whether it is this one; `None` if the pids are of different namespaces.
    fn is(&self, other: &Self) -> Option<bool> {
        match self.boot == other.boot && self.namespace != other.namespace {
            true => None,
            false => Some(self == other),
        }
    }
}

/// What runs a machine, as far as that can be told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runner {
    /// Its process; none where that is of another pid namespace, or may not be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// The process has files of the machine open: it is no manager that has made the sockets for others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_disks: bool,
    /// Its sockets as they stood: who binds one anew makes another file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sockets: BTreeMap<PathBuf, Stamp>,
}

impl Runner {
    /// Whether what was found at one of the sockets is this one: by the process, and where that does not tell, by the
    /// socket. `None` if neither does.
    #[must_use]
    pub fn is(&self, found: &Self) -> Option<bool> {
        let mut stamps = found.sockets.iter();
        let stands = stamps.find_map(|(socket, now)| Some(self.sockets.get(socket)? == now));
        let processes = self.process.as_ref().zip(found.process.as_ref());
        match processes.and_then(|(then, now)| then.is(now)) {
            Some(true) if !self.has_disks => stands,
            Some(is_it) => Some(is_it),
            None => stands,
        }
    }

    /// Whether it certainly lives no more.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.has_disks && self.process.as_ref().is_some_and(Process::has_ended)
    }

    /// Whether it is seen to live, whoever is at its sockets.
    #[must_use]
    pub fn lives(&self) -> bool {
        self.has_disks && self.process.as_ref().is_some_and(Process::lives)
    }
}

/// The run of the host.
fn boot() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(boot.trim().to_owned())
}

fn namespace() -> Option<u64> {
    fs::metadata("/proc/self/ns/pid").ok().map(|it| it.ino())
}

/// The start time of a process, the 22nd field of its line, counted behind its name, which may hold anything; `None` for one
/// that has ended and was not asked for yet.
fn started(pid: i32) -> io::Result<Option<u64>> {
    let line = match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Err(e) if e.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => return Ok(None),
        line => line?,
    };
    let fields = line.rsplit_once(')').map_or("", |(_, behind)| behind);
    let field = |number: usize| fields.split_ascii_whitespace().nth(number);
    // The first thread of one may end before the others, which have its files open still.
    let is_over = matches!(field(0), Some("Z" | "X" | "x"));
    if is_over && matches!(field(17), Some("0" | "1")) {
        return Ok(None);
    }
    let started = field(19).and_then(|it| it.parse().ok());
    started.map(Some).ok_or(io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn child() -> std::process::Child {
        let mut child = Command::new("cat");
        child.stdin(Stdio::piped()).stdout(Stdio::null());
        child.spawn().unwrap()
    }

    fn by(process: Option<&Process>, has_disks: bool, inode: u64) -> Runner {
        let stamp = Stamp {
            inode,
            ..Stamp::default()
        };
        Runner {
            process: process.cloned(),
            has_disks,
            sockets: [("/run/qmp".into(), stamp)].into(),
        }
    }

    #[test]
    fn a_process_has_ended_once_it_is_a_zombie_and_another_start_or_boot_is_another_one() {
        let mut child = child();
        let process = Process::of(child.id().try_into().unwrap()).unwrap();
        let runner = by(Some(&process), true, 1);
        assert!(runner.lives() && !runner.has_ended());
        child.kill().unwrap();
        // It stays a zombie until it is asked for.
        for _ in 0..1000 {
            if runner.has_ended() {
                break;
            }
            std::thread::park_timeout(std::time::Duration::from_millis(10));
        }
        assert!(runner.has_ended() && !runner.lives());
        child.wait().unwrap();
        assert!(runner.has_ended() && !runner.lives());
        let own = Process::of(std::process::id().try_into().unwrap()).unwrap();
        let of = |own: Process| by(Some(&own), true, 1);
        assert!(of(own.clone()).lives());
        let recycled = Process {
            started: own.started + 1,
            ..own.clone()
        };
        assert!(of(recycled).has_ended());
        let rebooted = Process {
            boot: "another".to_owned(),
            ..own.clone()
        };
        assert!(of(rebooted).has_ended());
        // Its pid means nothing here.
        let elsewhere = Process {
            namespace: own.namespace + 1,
            pid: i32::MAX,
            ..own.clone()
        };
        assert!(!of(elsewhere).has_ended());
        // Whoever has made the sockets need not be what runs the machine.
        let manager = by(Some(&process), false, 1);
        assert!(!manager.has_ended());
    }

    #[test]
    fn who_is_at_a_socket_is_told_by_the_process_and_else_by_the_socket() {
        let own = Process::of(std::process::id().try_into().unwrap()).unwrap();
        let other = Process {
            started: own.started + 1,
            ..own.clone()
        };
        let elsewhere = Process {
            namespace: own.namespace + 1,
            ..other.clone()
        };
        let seen = by(Some(&own), true, 1);
        for (found, expected) in [
            (by(Some(&own), false, 1), Some(true)),
            (by(Some(&own), false, 2), Some(true)), // it has bound it anew
            (by(Some(&other), false, 1), Some(false)),
            (by(Some(&elsewhere), false, 1), Some(true)),
            (by(Some(&elsewhere), false, 2), Some(false)),
            (by(None, false, 1), Some(true)),
            (by(None, false, 2), Some(false)),
            (Runner::default(), None),
        ] {
            assert_eq!(seen.is(&found), expected, "{found:?}");
        }
        // A manager makes sockets for one process after the other.
        let managed = by(Some(&own), false, 1);
        assert_eq!(managed.is(&by(Some(&own), false, 2)), Some(false));
        assert_eq!(managed.is(&by(Some(&own), false, 1)), Some(true));
        // What an older version has written down tells nothing.
        let older: Runner = serde_json::from_str("{}").unwrap();
        assert_eq!(older.is(&seen), None);
        assert!(!older.has_ended() && !older.lives());
    }
}
