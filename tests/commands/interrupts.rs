//! Ctrl-C: the first one asks for the end of the work, the second one ends the command, whatever that waits for.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::gate::Gate;
use crate::support::server::{Options, PASSWORD, Server, USER, binary};

use super::{json, ok};

/// A command that runs, and what it says.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let told = BufReader::new(child.stderr.take().unwrap()).lines();
        let (tell, lines) = mpsc::channel();
        std::thread::spawn(move || told.map_while(Result::ok).try_for_each(|l| tell.send(l)));
        Self { child, lines }
    }

    fn interrupt(&self) {
        send(self.child.id(), Signal::SIGINT);
    }

    /// SIGINT until a line holds the word: two that come before the first is taken up are heard as one.
    fn interrupt_until(&self, word: &str) {
        for _ in 0..60 {
            self.interrupt();
            while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(1)) {
                if line.contains(word) {
                    return;
                }
            }
        }
        panic!("it does not say: {word}");
    }

    /// The next line that holds the word.
    fn heard(&self, word: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(60));
            match line.expect(word) {
                line if line.contains(word) => return line,
                _ => {}
            }
        }
    }

    /// Its end, which is to come at once.
    fn end(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "it goes on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
}

#[test]
fn a_second_ctrl_c_ends_a_command_that_follows_a_job_also_where_the_server_hangs() {
    for hangs in [false, true] {
        let gate = Gate::new();
        let server = Server::with(&Options {
            args: &["--engine", "sim"],
            env: &[("GROUPSHOT_FAILPOINTS", &gate.at("create.prepare.after"))],
            ..Options::default()
        });
        ok(&server.cli(&["collection", "create", "web", "sim-000001"]));
        let mut create = Running::start(
            Command::new(binary())
                .args(["snapshot", "create", "web"])
                .env("GROUPSHOT_URL", server.url())
                .env("GROUPSHOT_USER", USER)
                .env("GROUPSHOT_PASSWORD", PASSWORD),
        );
        create.heard(" % ");
        let jobs = json(&server.cli(&["job", "list", "--json"]));
        let job = jobs["jobs"][0]["id"].as_str().unwrap().to_owned();
        if hangs {
            send(server.pid(), Signal::SIGSTOP);
        }
        create.interrupt();
        if !hangs {
            create.heard("cancelling");
        }
        create.interrupt_until(&format!("groupshot job show {job}"));
        assert_eq!(create.end().code(), Some(1), "{hangs}");
        send(server.pid(), Signal::SIGCONT);
        gate.open();
    }
}

#[test]
fn a_second_ctrl_c_ends_the_quickstart() {
    let (gate, folder) = (Gate::new(), tempfile::tempdir().unwrap());
    let mut story = Running::start(
        Command::new(binary())
            .args(["quickstart", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder.path().join("demo"))
            .env("GROUPSHOT_FAILPOINTS", gate.at("create.prepare.after")),
    );
    story.heard(" % ");
    story.interrupt();
    std::thread::sleep(Duration::from_secs(1));
    assert!(
        story.child.try_wait().unwrap().is_none(),
        "the job is waited for"
    );
    story.interrupt_until("second signal");
    assert_eq!(story.end().code(), Some(1));
    gate.open();
}
