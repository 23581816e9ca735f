//! The server as a process of its own, for its memory.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use crate::subject;

/// A running `groupshot serve`; killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
    _data: tempfile::TempDir,
}

impl Process {
    /// Serves so many simulated machines, with room for large answers and many connections.
    pub(crate) fn start(machines: u32) -> Self {
        let machines = machines.to_string();
        Self::serving(
            subject::data_dir(),
            &["--engine", "sim", "--machines", &machines],
        )
    }

    /// Serves what is in a data directory.
    pub(crate) fn serving(data: tempfile::TempDir, args: &[&str]) -> Self {
        Self::serving_in(data, args, &[])
    }

    /// The same in this environment.
    pub(crate) fn serving_in(data: tempfile::TempDir, args: &[&str], env: &[(&str, &str)]) -> Self {
        let config = data.path().join("bench.toml");
        let audit = data.path().join("audit.log");
        let text = "[limits]\nenvelope = \"16MiB\"\nconnections = 1100\nuser_connections = 1100\nuser_requests = 1100\n";
        // What fails on order is no news.
        let level = if env.is_empty() { "warn" } else { "error" };
        let log = format!("[log]\nlevel = {level:?}\naudit = {audit:?}\n");
        std::fs::write(&config, text.to_owned() + &log).unwrap();
        let mut child = Command::new("sh")
            .args([
                "-c",
                "ulimit -n 4096; exec \"$0\" \"$@\"",
                env!("CARGO_BIN_EXE_groupshot"),
            ])
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(args)
            .arg("--config")
            .arg(&config)
            .arg("--data-dir")
            .arg(data.path())
            .envs(env.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line
            .split_once("http://")
            .and_then(|(_, rest)| rest.trim().strip_suffix("/wsman"))
            .unwrap_or_else(|| panic!("the server says: {line}"));
        Self {
            child,
            address: address.parse().unwrap(),
            _data: data,
        }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap())
    }

    /// Resident memory now, in MiB.
    pub(crate) fn resident(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
        let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib / 1024.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
