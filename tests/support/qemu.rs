//! A QEMU whose guest is its firmware, with monitors, ended by pid when the test is over.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long it may take to start.
const START: Duration = Duration::from_secs(120);

/// A QEMU that runs.
pub(crate) struct Qemu {
    child: Child,
    home: PathBuf,
}

/// The folder of its sockets, which outlives it as those of a real machine do.
pub(crate) struct Sockets(TempDir);

impl Sockets {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Of this monitor: the first or the second.
    pub(crate) fn qmp(&self, number: usize) -> PathBuf {
        self.0.path().join(format!("qmp{number}"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Starts a QEMU with two monitors here, one for the test, and these arguments.
    pub(crate) fn start(&self, args: &[&str]) -> Qemu {
        let monitors: Vec<_> = ["qmp1", "qmp2"]
            .into_iter()
            .map(|name| self.monitor(name))
            .collect();
        let monitors = monitors.iter().flat_map(|it| ["-qmp", it.as_str()]);
        self.start_with(&[&monitors.collect::<Vec<_>>()[..], args].concat())
    }

    /// The same with those monitors only that the arguments name.
    pub(crate) fn start_with(&self, args: &[&str]) -> Qemu {
        let own = self.monitor("test");
        let child = Command::new("qemu-system-x86_64")
            .args(["-M", "q35", "-accel", "tcg", "-m", "32"])
            .args(["-nodefaults", "-display", "none", "-no-user-config"])
            .args([
                "-chardev",
                &format!("socket,id=own,path={own}"),
                "-mon",
                "chardev=own,mode=control",
            ])
            .args(args)
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("QEMU cannot run ({e}); install qemu-system-x86"));
        let qemu = Qemu {
            child,
            home: self.path().to_owned(),
        };
        let until = Instant::now() + START;
        while qemu.connect().is_none() {
            assert!(Instant::now() < until, "QEMU did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        qemu
    }

    /// The argument of a monitor by this name.
    pub(crate) fn monitor(&self, name: &str) -> String {
        let socket = self.path().join(name);
        format!(
            "{}{},server=on,wait=off",
            if name == "test" { "" } else { "unix:" },
            socket.display()
        )
    }
}

impl Qemu {
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// A client of the monitor of the test. QEMU may still be busy with the end of the one before.
    fn connect(&self) -> Option<Client> {
        let to = UnixStream::connect(self.home.join("test")).ok()?;
        to.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let from = BufReader::new(to.try_clone().ok()?);
        let mut client = Client { to, from };
        let mut line = String::new();
        client
            .from
            .read_line(&mut line)
            .ok()
            .filter(|read| *read > 0)?;
        client.ask("qmp_capabilities", &json!({}))?;
        // One that comes right after another may be cut off with it.
        client.ask("query-version", &json!({}))?;
        client.to.set_read_timeout(None).ok()?;
        Some(client)
    }

    /// A client that keeps all others out, the next of the test too, until it is dropped.
    pub(crate) fn client(&self) -> Client {
        let client = (0..50).find_map(|_| {
            std::thread::sleep(Duration::from_millis(20));
            self.connect()
        });
        client.unwrap()
    }

    /// Has it carry out a command, at the monitor of the test.
    pub(crate) fn tell(&self, command: &str, arguments: &Value) -> Value {
        self.client().tell(command, arguments)
    }

    /// Has it end, and waits for that.
    pub(crate) fn quit(mut self) {
        while self.child.try_wait().unwrap().is_none() {
            if let Some(mut client) = self.connect() {
                client.ask("quit", &json!({})); // it may be gone before it answers
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A client of the monitor of the test.
pub(crate) struct Client {
    to: UnixStream,
    from: BufReader<UnixStream>,
}

impl Client {
    /// What QEMU answers; `None` if it hangs up.
    fn ask(&mut self, command: &str, arguments: &Value) -> Option<Value> {
        let asked = json!({"execute": command, "arguments": arguments, "id": "test"});
        writeln!(self.to, "{asked}").ok()?;
        loop {
            let mut line = String::new();
            self.from
                .read_line(&mut line)
                .ok()
                .filter(|read| *read > 0)?;
            let said: Value = serde_json::from_str(&line).unwrap();
            if said["id"] == "test" {
                return Some(said);
            }
        }
    }

    /// Has QEMU carry out a command.
    pub(crate) fn tell(&mut self, command: &str, arguments: &Value) -> Value {
        let said = self.ask(command, arguments);
        let said = said.unwrap_or_else(|| panic!("{command}: QEMU is gone"));
        assert!(said.get("error").is_none(), "{command}: {said}");
        said["return"].clone()
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
