//! The audit log: who has changed something, who could not log on, which web page tried to. One JSON object a
//! line, each with the time, the client's address and an `event`; never a password, a parameter or a text that quotes one.
//!
//! ```json
//! {"time":"2026-01-02T03:04:05.678Z","event":"call","address":"192.0.2.7:50123","user":"otto","role":"operator",
//!  "method":"Msvm_CollectionSnapshotService.CreateSnapshot","object":"…","result":4096,"job":"8B58…",
//!  "sets":[{"id":"5C0E…","name":"nightly"}],"collections":[{"id":"…","name":"all"}],"machines":[…]}
//! {"time":"…","event":"logon-failed","address":"192.0.2.7","user":"otto","scheme":"basic","reason":"wrong-password"}
//! {"time":"…","event":"locked-out","address":"192.0.2.7","user":"otto","what":"user"}
//! {"time":"…","event":"cross-site","address":"192.0.2.7:50123","origin":"https://pages.example","method":"POST","path":"/wsman"}
//! ```
//!
//! A line is written with one `write` before the client has its answer. One that cannot be written goes to
//! the log as an error, whole; the call is not refused for it, for its effect is already there. What the
//! server itself finds (`set-damaged`) has no address.
//!
//! One thread writes, in the order in which things happened; no thread that serves waits for the disk. Up to
//! `QUEUE` lines wait for it. Whoever has a line more waits, and a call that changes something has its place
//! before it begins: nothing is done of which no line can be kept.

mod about;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::clock::SharedClock;
use crate::held;
use crate::telemetry;

pub use about::{About, Named, names};

/// Longest text of a line that a client has a say in, in characters.
const LONGEST: usize = 512;

/// So many lines wait to be written at most.
const QUEUE: usize = 4096;

/// Where the lines go. Cheap to clone.
#[derive(Clone, Default)]
pub struct Audit(Option<Arc<Book>>);

struct Book {
    clock: SharedClock,
    file: Option<Desk>,
}

/// A file, and the way to the thread that writes into it.
struct Desk {
    paper: Arc<Paper>,
    queue: mpsc::Sender<Sheet>,
}

/// A line on its way.
struct Sheet {
    paper: Arc<Paper>,
    /// Empty once it is written, or told.
    line: String,
    /// Dropped with it.
    _written: Option<oneshot::Sender<()>>,
}

/// A line to come, and its place in the queue once that was waited for. Without one it goes to the log.
pub struct Place {
    audit: Audit,
    free: Option<mpsc::OwnedPermit<Sheet>>,
}

/// The end of the writing of a line. Who does not wait for it takes nothing from the line.
#[must_use]
pub struct Written(Option<oneshot::Receiver<()>>);

/// A file that is opened again when told to, or when it could not be written.
struct Paper {
    path: PathBuf,
    open: Mutex<Option<File>>,
}

/// What has happened.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event<'a> {
    /// A method that may change something was called, or was denied.
    Call {
        /// Who called.
        user: &'a str,
        /// The role of the caller.
        role: &'a str,
        /// `class.method`
        method: String,
        /// The path of the object.
        object: String,
        /// The return value.
        #[serde(skip_serializing_if = "Option::is_none")]
        result: Option<u64>,
        /// Or why there is none.
        #[serde(skip_serializing_if = "Option::is_none")]
        fault: Option<String>,
        /// The id of the job that works on it or tells why not.
        #[serde(skip_serializing_if = "Option::is_none")]
        job: Option<String>,
        /// What it is about: `sets`, `collections`, `machines`, `directory`.
        #[serde(flatten)]
        about: About,
    },
    /// Credentials that prove nothing.
    LogonFailed {
        /// The name, if there is a user of that name: others may be passwords in the wrong field.
        #[serde(skip_serializing_if = "Option::is_none")]
        user: Option<&'a str>,
        /// `basic`, `certificate`
        scheme: &'a str,
        /// `wrong-password`, `unknown-user`, `locked-out`, `locked-out-right-password`, `malformed`, `nobody` (a
        /// certificate that is no user's).
        reason: &'a str,
        /// So often since the line before about such a logon of this client.
        #[serde(skip_serializing_if = "is_once")]
        times: u64,
    },
    /// Too many of them.
    LockedOut {
        /// As above.
        #[serde(skip_serializing_if = "Option::is_none")]
        user: Option<&'a str>,
        /// `user` (at this address), `address`
        what: &'a str,
    },
    /// A request that a web page sent which may not.
    CrossSite {
        /// The origin of the page, or how its site belongs to this server's: `cross-site`, `same-site`.
        origin: &'a str,
        /// The method of HTTP.
        method: &'a str,
        /// The path.
        path: &'a str,
        /// So often since the line before about such a request of this client.
        #[serde(skip_serializing_if = "is_once")]
        times: u64,
    },
    /// Files that a snapshot set keeps were changed by somebody else.
    SetDamaged {
        /// Id of the set.
        set: String,
        /// Name of the machine.
        machine: String,
        /// Id of the disk.
        disk: String,
        /// The changed files.
        files: Vec<PathBuf>,
    },
    /// The operator has ended lock-outs.
    Unlocked {
        /// Of this user.
        #[serde(skip_serializing_if = "Option::is_none")]
        user: Option<&'a str>,
        /// Of this address.
        #[serde(skip_serializing_if = "Option::is_none")]
        of: Option<String>,
    },
    /// The operator has taken a machine out of the library.
    MachineRemoved {
        /// Its id.
        machine: String,
        /// Its name.
        name: &'a str,
    },
    /// The operator said that such a disk is good as it is.
    DamageAccepted {
        /// Id of the set.
        set: String,
        /// Name of the machine.
        machine: String,
        /// Id of the disk.
        disk: String,
    },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_once(times: &u64) -> bool {
    *times == 1
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    address: String,
    #[serde(flatten)]
    event: &'a Event<'a>,
}

impl Audit {
    /// Into the log of the server, with the target `audit`.
    #[must_use]
    pub fn to_log(clock: SharedClock) -> Self {
        Self(Some(Arc::new(Book { clock, file: None })))
    }

    /// Into a file, at its end; made with mode 0640 if it is missing.
    ///
    /// # Errors
    /// The file cannot be opened for writing.
    pub fn to_file(path: &Path, clock: SharedClock) -> io::Result<Self> {
        let open = Mutex::new(Some(open(path)?));
        let path = path.to_owned();
        let paper = Arc::new(Paper { path, open });
        let (queue, mut lines) = mpsc::channel::<Sheet>(QUEUE);
        let thread = thread::Builder::new().name("audit".to_owned());
        thread.spawn(move || {
            while let Some(sheet) = lines.blocking_recv() {
                sheet.write();
            }
        })?;
        let file = Some(Desk { paper, queue });
        Ok(Self(Some(Arc::new(Book { clock, file }))))
    }

    /// Writes a line; `address` is the client's. Without a place to write to it does nothing.
    pub async fn record(&self, address: &(dyn std::fmt::Display + Sync), event: &Event<'_>) {
        let (Some(book), Some(line)) = (&self.0, self.line(address, event)) else {
            return;
        };
        let Some(desk) = &book.file else {
            return tracing::info!(target: "audit", "{line}");
        };
        // If its client hangs up before there is a place for it, it is told in the log.
        let (sheet, written) = desk.sheet(line);
        if let Ok(free) = desk.queue.reserve().await {
            free.send(sheet);
        }
        written.await;
    }

    /// Writes a line about something that no client has done.
    pub async fn note(&self, event: &Event<'_>) {
        self.record(&"", event).await;
    }

    /// For a line about what is only begun when there is a place for it.
    #[must_use]
    pub fn place(&self) -> Place {
        let audit = self.clone();
        Place { audit, free: None }
    }

    /// Comes back when all that was recorded is written.
    pub async fn flush(&self) {
        if let Some(desk) = self.0.as_ref().and_then(|book| book.file.as_ref()) {
            let (nothing, written) = desk.sheet(String::new());
            let _gone = desk.queue.send(nothing).await;
            written.await;
        }
    }

    /// The line, without its end.
    fn line(&self, address: &dyn std::fmt::Display, event: &Event<'_>) -> Option<String> {
        let book = self.0.as_ref()?;
        let line = Line {
            time: format!("{:.3}", book.clock.now()),
            address: address.to_string(),
            event,
        };
        let line = serde_json::to_string(&line);
        let told = |_: &_| tracing::error!(?event, "an audit line cannot be written as JSON");
        line.inspect_err(told).ok()
    }

    /// Opens the file again, after it was renamed by a log rotation.
    ///
    /// # Errors
    /// It cannot be; lines go to the old one from then on.
    pub fn reopen(&self) -> io::Result<()> {
        let Some(desk) = self.0.as_ref().and_then(|book| book.file.as_ref()) else {
            return Ok(());
        };
        let fresh = open(&desk.paper.path)?;
        *desk
            .paper
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(fresh);
        Ok(())
    }
}

impl Place {
    /// Comes back when there is one.
    pub async fn wait(&mut self) {
        let book = self.audit.0.as_ref();
        if let Some(desk) = book.and_then(|book| book.file.as_ref()) {
            self.free = desk.queue.clone().reserve_owned().await.ok();
        } else if book.is_some() {
            telemetry::room().await;
        }
    }

    /// Writes the line; who waits for its end knows that it is written.
    pub fn record(self, address: &dyn std::fmt::Display, event: &Event<'_>) -> Written {
        let (Some(book), Some(line)) = (&self.audit.0, self.audit.line(address, event)) else {
            return Written(None);
        };
        let Some(desk) = &book.file else {
            tracing::info!(target: "audit", "{line}");
            return Written(None);
        };
        let (sheet, written) = desk.sheet(line);
        if let Some(free) = self.free {
            free.send(sheet);
        }
        written
    }
}

impl Future for Written {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Some(end) => Pin::new(end).poll(task).map(|_| ()),
            None => Poll::Ready(()),
        }
    }
}

impl Desk {
    fn sheet(&self, mut line: String) -> (Sheet, Written) {
        if !line.is_empty() {
            line.push('\n');
        }
        let (written, end) = oneshot::channel();
        let sheet = Sheet {
            paper: Arc::clone(&self.paper),
            line,
            _written: Some(written),
        };
        (sheet, Written(Some(end)))
    }
}

impl Sheet {
    fn write(mut self) {
        if self.line.is_empty() {
            return;
        }
        match self.paper.write(self.line.as_bytes()) {
            Ok(()) => self.line.clear(),
            Err(error) => self.tell(&error),
        }
    }

    fn tell(&mut self, error: &dyn std::fmt::Display) {
        let (file, line) = (self.paper.path.display(), std::mem::take(&mut self.line));
        tracing::error!(%file, %error, line = line.trim_end(), "the audit line could not be written");
    }
}

impl Drop for Sheet {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.tell(&"there was no place for it");
        }
    }
}

impl Paper {
    fn write(&self, line: &[u8]) -> io::Result<()> {
        let mut slot = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match slot.as_mut() {
            Some(file) => file,
            None => slot.insert(open(&self.path)?),
        };
        let done = match file.write(line) {
            Ok(written) if written == line.len() => Ok(()),
            // The half that is there must not run into the next line.
            Ok(_) => file
                .write_all(b"\n")
                .and(Err(io::ErrorKind::WriteZero.into())),
            Err(error) => Err(error),
        };
        if done.is_err() {
            *slot = None;
        }
        done
    }
}

fn open(path: &Path) -> io::Result<File> {
    held::append(path, 0o640)
}

/// A text of a client's, of a length that cannot flood the log.
#[must_use]
pub fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let file = self.0.as_ref().and_then(|book| book.file.as_ref());
        let path = file.map(|desk| &desk.paper.path);
        f.debug_struct("Audit").field("file", &path).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::clock::ManualClock;

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
        audit.reopen().unwrap();
        audit.record(&"a", &failed("3")).await;
        let count = |file| fs::read_to_string(file).unwrap().lines().count();
        assert_eq!((count(&old), count(&path)), (3, 1));
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_written_stops_nothing_and_is_tried_again() {
        let full = Path::new("/dev/full");
        let audit = Audit::to_file(full, clock()).unwrap();
        audit.record(&"a", &failed("1")).await;
        let desk = audit.0.as_ref().unwrap().file.as_ref().unwrap();
        assert!(
            desk.paper.open.lock().unwrap().is_none(),
            "to be opened again"
        );
        audit.record(&"a", &failed("2")).await;
        assert!(Audit::to_file(Path::new("/nowhere/audit.log"), clock()).is_err());
        Audit::default().record(&"a", &failed("3")).await;
    }

    /// A disk that does not take a line: a pipe that is full.
    fn hung() -> (tempfile::TempDir, File, Audit) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let audit = Audit::to_file(&path, clock()).unwrap();
        let (reader, writer) = io::pipe().unwrap();
        let desk = audit.0.as_ref().unwrap().file.as_ref().unwrap();
        let writer = File::from(std::os::fd::OwnedFd::from(writer));
        *desk.paper.open.lock().unwrap() = Some(writer);
        (dir, File::from(std::os::fd::OwnedFd::from(reader)), audit)
    }

    /// With one thread, which must not be kept by a file that takes nothing.
    #[tokio::test]
    async fn a_file_that_does_not_answer_keeps_no_thread_and_no_line_is_lost_or_out_of_turn() {
        let (_dir, mut reader, audit) = hung();
        let names: Vec<_> = (0..QUEUE + 512)
            .map(|n| format!("{n}{}", "x".repeat(LONGEST)))
            .collect();
        let mut waiting = Vec::new();
        for name in &names {
            let (audit, name) = (audit.clone(), name.clone());
            waiting.push(tokio::spawn(async move {
                audit.record(&"a", &failed(&name)).await
            }));
            tokio::task::yield_now().await;
        }
        let mut place = audit.place();
        let soon = tokio::time::timeout(std::time::Duration::from_millis(50), place.wait());
        assert!(soon.await.is_err(), "it is full");
        assert!(!waiting.last().unwrap().is_finished());
        let flushed = tokio::spawn({
            let audit = audit.clone();
            async move { audit.flush().await }
        });
        let last = names.last().unwrap().clone();
        let read = tokio::task::spawn_blocking(move || {
            let (mut text, mut some) = (String::new(), [0; 4096]);
            while !text.contains(&last) || !text.ends_with('\n') {
                let n = io::Read::read(&mut reader, &mut some).unwrap();
                text.push_str(std::str::from_utf8(&some[..n]).unwrap());
            }
            text
        });
        let text = read.await.unwrap();
        flushed.await.unwrap();
        for one in waiting {
            one.await.unwrap();
        }
        let told = text.lines().map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["user"].as_str().unwrap().to_owned()
        });
        assert!(told.eq(names));
    }

    #[tokio::test]
    async fn who_has_a_place_is_not_kept_by_what_comes_after() {
        let (_dir, mut reader, audit) = hung();
        let mut place = audit.place();
        place.wait().await;
        let written = place.record(&"a", &failed("first"));
        written.await;
        let mut some = [0; 4096];
        let n = io::Read::read(&mut reader, &mut some).unwrap();
        assert!(std::str::from_utf8(&some[..n]).unwrap().contains("first"));
        let mut unused = audit.place();
        unused.wait().await;
        drop(unused);
        audit.flush().await;
    }
}
