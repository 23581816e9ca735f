//! What stands in the file, and what happens when it takes nothing.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;

use futures_util::FutureExt;
use nix::fcntl::{FcntlArg, fcntl};
use tempfile::TempDir;

pub(crate) use super::desk::QUEUE;
use super::*;
use crate::clock::ManualClock;

/// How much the pipe holds that stands for a file.
const PIPE: usize = 4096;

fn clock() -> SharedClock {
    ManualClock::at("2026-01-02T03:04:05.678Z".parse().unwrap())
}

fn failed(user: &str) -> Event<'_> {
    Event::LogonFailed {
        user: Some(user),
        scheme: "basic",
        reason: "wrong-password",
        times: 1,
    }
}

#[tokio::test]
async fn a_line_is_one_object_whatever_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let audit = Audit::to_file(&path, clock()).unwrap();
    audit.record(&"192.0.2.1", &failed("a\n\"b\u{7f}")).await;
    audit.record(&"192.0.2.1", &failed("c")).await;
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(
        lines[1],
        r#"{"time":"2026-01-02T03:04:05.678Z","address":"192.0.2.1","event":"logon-failed","user":"c","scheme":"basic","reason":"wrong-password"}"#
    );
    let first: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
    assert_eq!(first["user"], "a\n\"b\u{7f}");
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777 & !0o640, 0, "{mode:o}");
    assert_eq!(shortened(&"ä".repeat(600)).chars().count(), LONGEST + 1);
}

#[tokio::test]
async fn a_rotated_file_is_left_when_told_and_lines_are_appended() {
    let dir = tempfile::tempdir().unwrap();
    let (path, old) = (dir.path().join("audit.log"), dir.path().join("audit.log.1"));
    fs::write(&path, "before\n").unwrap();
    let audit = Audit::to_file(&path, clock()).unwrap();
    audit.record(&"a", &failed("1")).await;
    fs::rename(&path, &old).unwrap();
    audit.record(&"a", &failed("2")).await;
    audit.reopen();
    audit.record(&"a", &failed("3")).await;
    let count = |file| fs::read_to_string(file).unwrap().lines().count();
    assert_eq!((count(&old), count(&path)), (3, 1));
}

#[tokio::test]
async fn a_file_that_cannot_be_written_stops_nothing() {
    let audit = Audit::to_file(Path::new("/dev/full"), clock()).unwrap();
    audit.record(&"a", &failed("1")).await;
    audit.record(&"a", &failed("2")).await;
    assert!(Audit::to_file(Path::new("/proc/nowhere/audit.log"), clock()).is_err());
    Audit::default().record(&"a", &failed("3")).await;
}

/// A log whose file takes no line until somebody reads what is in it: a pipe that is full. Its path is that of none.
pub(crate) struct Hung {
    pub(crate) audit: Audit,
    path: PathBuf,
    reader: BufReader<File>,
    _dir: TempDir,
}

pub(crate) fn hung() -> Hung {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let (reader, mut writer) = io::pipe().unwrap();
    let size = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    assert_eq!(size, 4096);
    writer.write_all(&[b' '; PIPE]).unwrap();
    let writer = File::from(OwnedFd::from(writer));
    let file = Some(Desk::start(&path, writer).unwrap());
    let audit = Audit(Some(Arc::new(Book {
        clock: clock(),
        file,
    })));
    Hung {
        audit,
        path,
        reader: BufReader::new(File::from(OwnedFd::from(reader))),
        _dir: dir,
    }
}

impl Hung {
    /// Takes so many places until what this gives is dropped.
    pub(crate) async fn fill(&self, count: usize) -> Vec<Place> {
        let mut places = Vec::new();
        for _ in 0..count {
            let mut place = self.audit.place();
            place.wait().await;
            places.push(place);
        }
        places
    }

    /// The users of the next lines that come out of the pipe.
    fn told(mut self, count: usize) -> Vec<String> {
        let lines = std::iter::repeat_with(|| {
            let mut line = String::new();
            self.reader.read_line(&mut line).unwrap();
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            line["user"].as_str().unwrap().to_owned()
        });
        lines.take(count).collect()
    }
}

/// With one thread, which must not be kept by a file that takes nothing.
#[tokio::test]
async fn a_file_that_does_not_answer_keeps_no_thread_and_no_line_is_lost_or_out_of_turn() {
    let hung = hung();
    let audit = hung.audit.clone();
    let names: Vec<_> = (0..QUEUE + 512)
        .map(|n| format!("{n}{}", "x".repeat(LONGEST)))
        .collect();
    let mut waiting = Vec::new();
    for name in &names {
        waiting.push(tokio::spawn(audit.record(&"a", &failed(name))));
        tokio::task::yield_now().await;
    }
    let mut place = audit.place();
    assert!(place.wait().now_or_never().is_none(), "it is full");
    assert!(!waiting.iter().any(|line| line.is_finished()));
    let count = names.len();
    let read = tokio::task::spawn_blocking(move || hung.told(count));
    for one in waiting {
        one.await.unwrap();
    }
    assert!(read.await.unwrap() == names);
}

#[tokio::test]
async fn who_has_a_place_is_not_kept_by_what_comes_after() {
    let hung = hung();
    let mut place = hung.audit.place();
    place.wait().await;
    let _others = hung.fill(QUEUE - 1).await;
    let written = place.record(&"a", &failed("first"));
    let read = tokio::task::spawn_blocking(move || hung.told(1));
    written.await;
    assert_eq!(read.await.unwrap(), ["first"]);
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_wishes_is_refused_where_no_line_of_it_can_be_kept() {
    let hung = hung();
    let places = hung.fill(QUEUE).await;
    let refused = hung.audit.reserve().await.err().unwrap();
    assert_eq!(
        refused,
        texts::AUDIT_SILENT.with("file", hung.path.display())
    );
    drop(places);
    assert!(hung.audit.reserve().await.is_ok());
}

#[tokio::test]
async fn a_file_that_does_not_answer_keeps_nobody_who_wants_it_opened_again() {
    let mut hung = hung();
    let audit = hung.audit.clone();
    let first = format!("first{}", "x".repeat(4 * PIPE));
    let first = tokio::spawn(audit.record(&"a", &failed(&first)));
    tokio::task::yield_now().await;
    // The thread stands in the middle of the line.
    let (blanks, begun) = (&mut [0; PIPE], &mut [0]);
    hung.reader.get_mut().read_exact(blanks).unwrap();
    hung.reader.get_mut().read_exact(begun).unwrap();
    assert_eq!(begun, b"{");
    audit.reopen();
    assert!(!hung.path.exists() && !first.is_finished());
    let read = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        hung.reader.read_line(&mut line).unwrap();
        (line, hung)
    });
    first.await.unwrap();
    let (line, hung) = read.await.unwrap();
    assert!(line.contains("first"), "{line}");
    audit.record(&"a", &failed("second")).await;
    let fresh = fs::read_to_string(&hung.path).unwrap();
    assert!(fresh.contains("second") && !fresh.contains("first"));
}

#[tokio::test(start_paused = true)]
async fn lines_that_are_not_written_when_the_server_stops_are_told_in_the_log() {
    let (log, _heard) = telemetry::heard();
    let hung = hung();
    let audit = hung.audit.clone();
    let names: Vec<_> = (0..QUEUE + 2).map(|n| format!("user {n}.")).collect();
    for name in &names {
        tokio::spawn(audit.record(&"a", &failed(name)));
        tokio::task::yield_now().await;
    }
    audit.finish(Duration::from_secs(1)).await;
    let told = log.told();
    let told = told.lines().filter(|line| line.contains("user "));
    let told: Vec<_> = told.collect();
    assert_eq!(told.len(), names.len());
    // In their order.
    for (line, name) in told.iter().zip(&names) {
        assert!(line.contains(name.as_str()), "{name}: {line}");
    }
    // What comes after is told there too, and does not wait.
    audit.record(&"a", &failed("a late one")).await;
    assert!(log.told().contains("a late one"));
}
