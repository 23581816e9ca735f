//! SIGTERM: what runs may end, for so long; then the next start goes on with it.

use super::*;
use crate::support::server::terminal;

/// A server in which a job stands in the middle, until the gate is opened.
fn with_a_job(config: &str) -> (Run, SocketAddr, Gate) {
    let gate = Gate::new();
    let server = Run::start(config, |command| {
        command.env("GROUPSHOT_FAILPOINTS", gate.at("create.prepared.after"));
    });
    let address = server.address("http");
    let url = format!("http://{address}/wsman");
    let cli = |args: &[&str]| {
        let out = Command::new(binary())
            .args(args)
            .env("GROUPSHOT_URL", &url)
            .env("GROUPSHOT_USER", USER)
            .env("GROUPSHOT_PASSWORD", PASSWORD)
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8(out.stdout).unwrap()
    };
    let machines = enumerate("Msvm_ComputerSystem");
    assert_eq!(ask(address, USER, &machines).status, 200);
    cli(&["collection", "create", "all", "sim-000001"]);
    cli(&["snapshot", "create", "all", "--no-wait"]);
    gate.reached();
    (server, address, gate)
}

#[test]
fn a_job_that_runs_is_waited_for_and_told_of() {
    let (mut server, address, gate) = with_a_job("");
    server.signal(Signal::SIGTERM);
    until("it says what it waits for", || {
        server.said().contains("and 1 job")
    });
    assert!(
        std::net::TcpStream::connect(address).is_err(),
        "nobody is let in"
    );
    gate.open();
    let status = server.wait(Duration::from_secs(60)).expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", server.said());
    assert!(
        !server.said().contains("Left to the next start"),
        "{}",
        server.said()
    );
}

#[test]
fn a_job_that_takes_too_long_is_left_to_the_next_start() {
    let (mut server, _, _gate) = with_a_job("[limits]\nstop_timeout = \"1s\"\n");
    let begun = Instant::now();
    server.signal(Signal::SIGINT);
    let status = server.wait(Duration::from_secs(60)).expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", server.said());
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert!(
        server.said().contains("Left to the next start"),
        "{}",
        server.said()
    );
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let (mut server, _, _gate) = with_a_job("[limits]\nstop_timeout = \"10m\"\n");
    server.signal(Signal::SIGTERM);
    until("it stops", || server.said().contains("Waiting for"));
    server.signal(Signal::SIGTERM);
    let status = server.wait(Duration::from_secs(60)).expect("it ends");
    assert_eq!(status.code(), Some(1), "{}", server.said());
    assert!(server.said().contains("second signal"), "{}", server.said());
}

/// `serve` on a terminal of its own, which `script` makes and which hangs up when that is killed.
struct OnTerminal {
    folder: tempfile::TempDir,
    script: Child,
}

impl OnTerminal {
    fn start(prefix: &str) -> Self {
        Self::by(|serve| format!("echo $$ > pid.part; mv pid.part pid; exec {prefix} {serve}"))
    }

    /// In a process group that is not the one in the foreground: a terminal that hangs up sends it no signal.
    fn in_background() -> Self {
        Self::by(|serve| format!("set -m; {serve} & echo $! > pid.part; mv pid.part pid; wait"))
    }

    /// By that line of a shell around the command.
    fn by(line: impl Fn(&str) -> String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let serve = format!(
            "'{}' serve --engine sim --listen 127.0.0.1:0 --data-dir data > out 2> log",
            binary().display()
        );
        let line = format!("cd '{}'; {}", folder.path().display(), line(&serve));
        let script = terminal(&line)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let this = Self { folder, script };
        until("it listens", || {
            this.read("out").contains("listening on http://")
        });
        this
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.read("pid").trim().parse().unwrap())
    }

    fn lives(&self) -> bool {
        kill(self.pid(), None).is_ok()
    }

    fn reloads(&self) -> usize {
        self.read("log").matches("Nothing to read again").count()
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        if self.lives() {
            let _ = kill(self.pid(), Signal::SIGKILL);
        }
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

#[test]
fn serve_ends_when_its_terminal_has_hung_up_and_reads_files_again_while_it_has_not() {
    let mut server = OnTerminal::start("");
    kill(server.pid(), Signal::SIGHUP).unwrap();
    until("it has read its files", || server.reloads() == 1);
    assert!(server.lives());
    server.script.kill().unwrap();
    server.script.wait().unwrap();
    until("it ends", || !server.lives());
    let log = server.read("log");
    assert!(
        log.contains("terminal has hung up") && log.contains("Stopping"),
        "{log}"
    );
}

#[test]
fn serve_in_the_background_ends_with_its_terminal_too() {
    let mut server = OnTerminal::in_background();
    server.script.kill().unwrap();
    server.script.wait().unwrap();
    until("it ends", || !server.lives());
    let log = server.read("log");
    assert!(log.contains("terminal has hung up"), "{log}");
}

/// Nor does the terminal itself have to be looked at.
#[test]
fn a_server_on_a_terminal_with_nothing_to_do_does_not_wake() {
    let server = OnTerminal::start("");
    let tasks = format!("/proc/{}/task", server.pid());
    let wakes = || -> u64 {
        let tasks = fs::read_dir(&tasks).unwrap().flatten();
        let of = |task: fs::DirEntry| {
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            let mut lines = status.lines();
            let count = lines.find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"));
            count.map_or(0, |count| count.trim().parse::<u64>().unwrap())
        };
        tasks.map(of).sum()
    };
    // What begins with it ends within some seconds.
    until("nothing wakes it for five seconds", || {
        let before = wakes();
        std::thread::sleep(Duration::from_secs(5));
        wakes() == before
    });
    assert!(server.lives());
}

#[test]
fn serve_outlives_a_terminal_that_it_was_told_not_to_care_for() {
    let mut server = OnTerminal::start("nohup");
    server.script.kill().unwrap();
    server.script.wait().unwrap();
    let seen = server.reloads();
    kill(server.pid(), Signal::SIGHUP).unwrap();
    until("it has read its files", || server.reloads() > seen);
    assert!(server.lives() && !server.read("log").contains("hung up"));
}
