//! The service manager: what it hears, the sockets that it hands over, the unit files that are shipped.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as Name, UnixDatagram};

use super::*;

/// A manager that listens.
struct Manager(UnixDatagram);

impl Manager {
    fn at(address: &Name) -> Self {
        let socket = UnixDatagram::bind_addr(address).unwrap();
        let limit = Some(Duration::from_secs(60));
        socket.set_read_timeout(limit).unwrap();
        Self(socket)
    }

    /// The next message that is no sign of life.
    fn hears(&self) -> String {
        loop {
            let message = self.anything();
            if message != "WATCHDOG=1" {
                return message;
            }
        }
    }

    fn anything(&self) -> String {
        let mut bytes = [0; 4096];
        let size = self.0.recv(&mut bytes).expect("the server tells");
        String::from_utf8(bytes[..size].to_vec()).unwrap()
    }
}

#[test]
fn the_manager_hears_of_start_reload_life_and_stop() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let hidden = format!("groupshot-test-{}", std::process::id());
    for (name, address) in [
        (
            path.to_str().unwrap().to_owned(),
            Name::from_pathname(&path).unwrap(),
        ),
        (
            format!("@{hidden}"),
            Name::from_abstract_name(&hidden).unwrap(),
        ),
    ] {
        let manager = Manager::at(&address);
        let mut server = Run::start("", |command| {
            command
                .env("NOTIFY_SOCKET", &name)
                .env("WATCHDOG_USEC", "4000000");
        });
        let ready = manager.hears();
        assert!(
            ready.starts_with("READY=1\nSTATUS=Listening on 127.0.0.1:"),
            "{ready}"
        );
        // It serves already when it says so.
        assert_eq!(
            ask(
                server.address("http"),
                USER,
                &enumerate("Msvm_ComputerSystem")
            )
            .status,
            200
        );
        assert_eq!(manager.anything(), "WATCHDOG=1");
        server.signal(Signal::SIGHUP);
        let reloading = manager.hears();
        assert!(
            reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
            "{reloading}"
        );
        assert!(manager.hears().starts_with("READY=1\n"));
        server.signal(Signal::SIGTERM);
        assert!(
            manager
                .hears()
                .starts_with("STOPPING=1\nSTATUS=Waiting for ")
        );
        assert!(server.wait(Duration::from_secs(60)).unwrap().success());
    }
}

/// Starts the server behind a shell that puts `sockets` where a manager would: from descriptor 3 on.
fn handed(sockets: &[&TcpListener], names: &str) -> Run {
    // Copies that exec does not close, away from the descriptors that the shell is to use.
    let copies: Vec<_> = sockets
        .iter()
        .map(|socket| nix::fcntl::fcntl(socket, nix::fcntl::FcntlArg::F_DUPFD(600)).unwrap())
        .collect();
    let moves: String = (3..)
        .zip(&copies)
        .map(|(to, copy)| format!(" {to}<&{copy}"))
        .collect();
    let run = Run::start("", |command| {
        let program = command.get_program().to_owned();
        let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let folder = Path::new(args.last().unwrap()).parent().unwrap().to_owned();
        let mut shell = Command::new("bash");
        shell
            .arg("-c")
            .arg(format!("LISTEN_PID=$$ exec \"$0\" \"$@\"{moves}"))
            .arg(program)
            .args(args)
            .env("LISTEN_FDS", sockets.len().to_string())
            .env("LISTEN_FDNAMES", names)
            .stdin(Stdio::null())
            .stdout(File::create(folder.join("out")).unwrap())
            .stderr(File::create(folder.join("log")).unwrap());
        *command = shell;
    });
    for copy in copies {
        nix::unistd::close(copy).unwrap();
    }
    run
}

#[test]
fn sockets_that_are_handed_over_are_told_apart_by_name() {
    let (plain, secure) = (
        TcpListener::bind("127.0.0.1:0").unwrap(),
        TcpListener::bind("127.0.0.1:0").unwrap(),
    );
    let mut server = handed(&[&secure, &plain], "https:http");
    assert_eq!(server.address("http"), plain.local_addr().unwrap());
    assert_eq!(server.address("https"), secure.local_addr().unwrap());
    let get = enumerate("Msvm_ComputerSystem");
    assert_eq!(ask(plain.local_addr().unwrap(), USER, &get).status, 200);
    let trust = groupshot::tls::Trust {
        insecure: true,
        ..groupshot::tls::Trust::default()
    };
    let mut inside = Connection::secure(secure.local_addr().unwrap(), &trust);
    assert_eq!(inside.post(USER, PASSWORD, get.as_bytes()).status, 200);
    server.signal(Signal::SIGTERM);
    assert!(server.wait(Duration::from_secs(60)).unwrap().success());
    // The manager still has it: clients wait for the next start instead of being refused.
    std::net::TcpStream::connect(plain.local_addr().unwrap()).unwrap();
}

#[test]
fn a_socket_of_an_unknown_name_stops_the_start() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut server = handed(&[&socket], "wsman");
    let status = server.wait(Duration::from_secs(60)).unwrap();
    assert_eq!(status.code(), Some(3), "{}", server.said());
    assert!(
        server
            .said()
            .contains("`wsman`; FileDescriptorName must be http or https")
    );
}

#[test]
fn the_units_are_sound() {
    let contrib = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib");
    let read = |name: &str| fs::read_to_string(contrib.join(name)).unwrap();
    let service = read("groupshot.service");
    for line in [
        "Type=notify",
        "KillMode=process",
        "OOMPolicy=continue",
        "NoNewPrivileges=yes",
    ] {
        assert!(service.lines().any(|l| l == line), "{line}");
    }
    let folder = tempfile::tempdir().unwrap();
    let here = binary().to_str().unwrap().to_owned();
    let mut names = Vec::new();
    for name in [
        "groupshot.service",
        "groupshot.socket",
        "groupshot-https.socket",
    ] {
        let file = folder.path().join(name);
        fs::write(&file, read(name).replace("/usr/local/bin/groupshot", &here)).unwrap();
        names.push(file);
    }
    let Ok(out) = Command::new("systemd-analyze")
        .arg("verify")
        .arg("--man=no")
        .args(&names)
        .output()
    else {
        eprintln!("skipped: no systemd-analyze");
        return;
    };
    let said = String::from_utf8_lossy(&out.stderr);
    let ours = said.lines().filter(|l| l.contains("groupshot"));
    assert_eq!(ours.collect::<Vec<_>>(), [] as [&str; 0]);
}
