//! Crowds that want nothing but places: silent connections, dripping headers and bodies, handshakes that
//! never end. A client that wants something is served meanwhile, and afterwards everything is given back.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use groupshot::tls::Trust;

use super::*;

const CROWD: usize = 1000;

/// How many descriptors the server has open, and its resident memory in MiB.
fn held(pid: u32) -> (usize, usize) {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    (files, kib / 1024)
}

/// One of the crowd: what it says at first, and then again and again.
type Manner = (&'static [u8], &'static [u8]);

const MANNERS: [Manner; 4] = [
    (b"", b""),
    (b"POST /wsman HTTP/1.1\r\nHost: h\r\nX: ", b"x"),
    (
        b"POST /wsman-anon/identify HTTP/1.1\r\nHost: h\r\nContent-Length: 30000\r\n\r\n",
        b" ",
    ),
    // The first bytes of a handshake.
    (b"\x16\x03\x01\x01\x00\x01", b"\x00"),
];

/// Keeps `CROWD` connections open, each in that manner; one that was closed is opened anew.
fn crowd(address: SocketAddr, manner: Manner, over: &AtomicBool) {
    let mut all: Vec<Option<TcpStream>> = (0..CROWD).map(|_| None).collect();
    while !over.load(Ordering::SeqCst) {
        for place in &mut all {
            let alive = place.as_mut().is_some_and(|s| {
                // A closed socket is noticed by the second write, as in life.
                manner.1.is_empty() || s.write_all(manner.1).is_ok()
            });
            if !alive && let Ok(mut socket) = TcpStream::connect(address) {
                let _ = socket.write_all(manner.0);
                *place = Some(socket);
            }
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// The answer to somebody who has no place yet. On a machine so slow that three hundred others come before his
/// first word is read he is taken for one of them; as any client does, he comes again.
fn served(open: &dyn Fn() -> Connection, body: &str) -> Response {
    let mut tries = (0..5).map(|_| open().try_post(USER, PASSWORD, body.as_bytes()));
    tries.find_map(|answer| answer).expect("one of five tries")
}

#[test]
fn a_thousand_silent_and_a_thousand_slow_connections_harm_nobody() {
    let begun = Instant::now();
    let mut server = Run::start("", |command| {
        command.args(["--tls-listen", "127.0.0.1:0"]);
    });
    let (plain, secure) = (server.address("http"), server.address("https"));
    let pid = server.child.id();
    let get = enumerate("Msvm_ComputerSystem");
    let trust = Trust {
        insecure: true,
        ..Trust::default()
    };
    let both = || {
        let begun = Instant::now();
        for open in [
            &(|| Connection::open(plain)) as &dyn Fn() -> Connection,
            &|| Connection::secure(secure, &trust),
        ] {
            let reply = served(open, &get);
            assert_eq!(reply.status, 200, "{}", reply.text());
        }
        begun.elapsed()
    };
    both();
    let (files, _) = held(pid);
    let mut kept = Connection::open(plain);
    assert_eq!(kept.post(USER, PASSWORD, get.as_bytes()).status, 200);
    for (number, manner) in MANNERS.into_iter().enumerate() {
        let address = if number == 3 { secure } else { plain };
        let over = Arc::new(AtomicBool::new(false));
        let flag = over.clone();
        let flood = thread::spawn(move || crowd(address, manner, &flag));
        thread::sleep(Duration::from_millis(700));
        let mut slowest = Duration::ZERO;
        for _ in 0..10 {
            slowest = slowest.max(both());
        }
        // 300 places, the spare sockets, what it had before.
        let (open, memory) = held(pid);
        over.store(true, Ordering::SeqCst);
        flood.join().unwrap();
        eprintln!(
            "manner {number}: slowest two requests {slowest:?}, {open} descriptors, {memory} MiB"
        );
        assert!(
            open <= files + 300 + 64 + 8,
            "{open} descriptors, {files} before"
        );
        assert!(memory < 100, "{memory} MiB");
        assert!(slowest < Duration::from_secs(30), "{slowest:?}");
        // A user's connection was open all the time.
        assert_eq!(kept.post(USER, PASSWORD, get.as_bytes()).status, 200);
    }
    until("the descriptors come back", || held(pid).0 <= files + 8);
    let lines = server
        .said()
        .lines()
        .filter(|l| l.contains("too many"))
        .count();
    // Of two kinds, each once in 10 s.
    let most = 4 + 2 * usize::try_from(begun.elapsed().as_secs() / 10).unwrap();
    assert!((1..=most).contains(&lines), "{lines} lines in the log");
    server.signal(Signal::SIGTERM);
    assert!(server.wait(Duration::from_secs(60)).unwrap().success());
}

#[test]
fn too_few_open_files_stop_the_start_with_one_line() {
    let mut server = Run::start("", |command| {
        let program = command.get_program().to_owned();
        let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let folder = Path::new(args.last().unwrap()).parent().unwrap().to_owned();
        let mut shell = Command::new("bash");
        shell
            .args(["-c", "ulimit -n 256; exec \"$0\" \"$@\""])
            .arg(program)
            .args(args)
            .stderr(File::create(folder.join("log")).unwrap())
            .stdout(Stdio::null());
        *command = shell;
    });
    let status = server.wait(Duration::from_secs(60)).unwrap();
    assert_eq!(status.code(), Some(3), "{}", server.said());
    let said = server.said();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains("limits.connections = 300 needs 492 open files"),
        "{said}"
    );
    assert!(said.contains("may have 256"), "{said}");
}
