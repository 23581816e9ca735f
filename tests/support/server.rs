//! The real `groupshot` as a child process on loopback, ended by pid when the test is over.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::unistd::Pid;

/// User and password of every test server.
pub(crate) const USER: &str = "admin";
/// See [`USER`].
pub(crate) const PASSWORD: &str = "correct horse";

/// A server under test.
pub(crate) struct Server {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Where it listens for HTTPS, if it was told to, and the fingerprint of its certificate.
    pub(crate) secure: Option<(SocketAddr, String)>,
    /// Its data directory.
    pub(crate) data: PathBuf,
    /// What it has logged.
    log: Arc<Mutex<String>>,
    _own: Option<tempfile::TempDir>,
}

/// How to start it.
#[derive(Default)]
pub(crate) struct Options<'a> {
    /// Further arguments of `serve`.
    pub(crate) args: &'a [&'a str],
    /// Environment.
    pub(crate) env: &'a [(&'a str, &'a str)],
    /// An existing data directory; a fresh one otherwise.
    pub(crate) data: Option<&'a Path>,
    /// The user and group that it runs as, if not the test's own.
    pub(crate) user: Option<u32>,
    /// Where its log goes, if a test reads it.
    pub(crate) log: Option<&'a Path>,
    /// In a pid namespace of its own: it sees no process outside. It is only killed then, and its guards with it.
    pub(crate) elsewhere: bool,
}

impl Server {
    /// Starts on a fresh data directory with the user [`USER`].
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::with(&Options {
            args,
            ..Options::default()
        })
    }

    /// Starts as told and waits until it listens.
    pub(crate) fn with(options: &Options<'_>) -> Self {
        Self::try_with(options).unwrap_or_else(|e| panic!("the server did not start: {e}"))
    }

    /// [`Server::with`] that hands the end of a server that did not come up to the test.
    pub(crate) fn try_with(options: &Options<'_>) -> Result<Self, String> {
        let own = options.data.is_none().then(|| tempfile::tempdir().unwrap());
        let data = options
            .data
            .map_or_else(|| own.as_ref().unwrap().path().to_owned(), Path::to_owned);
        if options.data.is_none() {
            add_user(&data);
        }
        let mut command = match options.elsewhere {
            true => Command::new("unshare"),
            false => Command::new(binary()),
        };
        if options.elsewhere {
            command
                .args(["--pid", "--fork", "--kill-child", "--"])
                .arg(binary());
        }
        if let Some(user) = options.user {
            command.uid(user).gid(user);
        }
        let mut child = command
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(&data)
            .args(options.args)
            .envs(options.env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(match options.log {
                Some(log) => File::create(log).unwrap().into(),
                None => Stdio::piped(),
            })
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut secure = None;
        let address = loop {
            match lines.next() {
                Some(Ok(line)) => {
                    if let Some((_, rest)) = line.split_once("listening on https://") {
                        let (address, rest) = rest.split_once('/').unwrap();
                        let fingerprint = rest.rsplit(' ').next().unwrap().to_owned();
                        secure = Some((address.parse().unwrap(), fingerprint));
                    }
                    if let Some((_, rest)) = line.split_once("listening on http://") {
                        break rest.split(['/', ' ']).next().unwrap().parse().unwrap();
                    }
                }
                _ => {
                    let out = child.wait_with_output().unwrap();
                    return Err(format!("{}: {}", out.status, text(&out.stderr)));
                }
            }
        };
        // Both pipes are drained for ever, or the server would stall when they are full.
        std::thread::spawn(move || lines.for_each(drop));
        let log = Arc::<Mutex<String>>::default();
        let logged = Arc::clone(&log);
        if let Some(stderr) = child.stderr.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    *logged.lock().unwrap() += &(line + "\n");
                }
            });
        }
        Ok(Self {
            child,
            address,
            secure,
            data,
            log,
            _own: own,
        })
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/wsman", self.address)
    }

    /// Its URL with TLS; by name, for which its own certificate is good.
    pub(crate) fn secure_url(&self) -> String {
        let (address, _) = self.secure.as_ref().unwrap();
        format!("https://localhost:{}/wsman", address.port())
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A client command of the program against this server.
    pub(crate) fn cli(&self, args: &[&str]) -> Output {
        Command::new(binary())
            .args(args)
            .env("GROUPSHOT_URL", self.url())
            .env("GROUPSHOT_USER", USER)
            .env("GROUPSHOT_PASSWORD", PASSWORD)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// A local command on this server's data directory.
    pub(crate) fn local(&self, args: &[&str]) -> Output {
        run_in(&self.data, args, "")
    }

    /// SIGTERM, and waits for the orderly end.
    pub(crate) fn stop(&mut self) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM).unwrap();
        let status = self
            .wait(Duration::from_secs(120))
            .expect("it ends when asked to");
        assert!(status.success(), "{status}");
    }

    /// SIGKILL, and the data directory stays.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for it to end by itself; `None` if it has not within `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) -> Option<std::process::ExitStatus> {
        let until = Instant::now() + limit;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The program under test.
pub(crate) fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_groupshot"))
}

/// Adds [`USER`], an administrator.
pub(crate) fn add_user(data: &Path) {
    let add = ["user", "add", USER, "--role", "administrator"];
    let out = run_in(data, &[&add[..], &["--password-stdin"]].concat(), PASSWORD);
    assert!(out.status.success(), "user add: {}", text(&out.stderr));
}

/// Runs a local command on a data directory, `input` on its standard input.
pub(crate) fn run_in(data: &Path, args: &[&str], input: &str) -> Output {
    let mut child = Command::new(binary())
        .args(args)
        .arg("--data-dir")
        .arg(data)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads no input may be gone before it is written.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// A shell's line on a terminal of its own. Who runs the tests may ignore signals, as shells do for what they start in
/// the background: there Ctrl-C and hanging up count.
pub(crate) fn terminal(line: &str) -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal=INT,QUIT,HUP", "script", "-q", "-e"]);
    command.args(["-c", line, "/dev/null"]);
    command
}

/// Runs a command on a terminal, with somebody who types one of `keys` at each question. Exit code and screen.
pub(crate) fn on_a_terminal(
    args: &[&str],
    env: &[(&str, &str)],
    keys: &[&str],
) -> (Option<i32>, String) {
    let quoted = args.iter().map(|a| format!(" '{a}'"));
    let command = format!("'{}'{}", binary().display(), quoted.collect::<String>());
    let mut child = terminal(&command)
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut hand = child.stdin.take().unwrap();
    let (mut said, mut screen) = (Vec::new(), child.stdout.take().unwrap());
    for (n, key) in keys.iter().enumerate() {
        while text(&said).matches("[y/N] ").count() <= n {
            let mut byte = [0];
            let read = screen.read(&mut byte).unwrap();
            assert_eq!(read, 1, "{}", text(&said));
            said.extend(byte);
        }
        hand.write_all(key.as_bytes()).unwrap();
    }
    screen.read_to_end(&mut said).unwrap();
    (child.wait().unwrap().code(), text(&said))
}

/// Bytes as text, for messages.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The guards that live and have a word of this data directory.
pub(crate) fn guards(root: &Path) -> Vec<Pid> {
    let root = root.canonicalize().unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|it| it.file_name().to_str()?.parse().ok());
    let is_guard = |pid: &i32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let files = fs::read_dir(format!("/proc/{pid}/fd"));
        let mut files = files.into_iter().flatten().flatten();
        words.ends_with(b"\0guard\0")
            && files.any(|it| fs::read_link(it.path()).is_ok_and(|it| it.starts_with(&root)))
    };
    pids.filter(is_guard).map(Pid::from_raw).collect()
}
