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

mod about;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::clock::SharedClock;
use crate::held;

pub use about::{About, Named, names};

/// Longest text of a line that a client has a say in, in characters.
const LONGEST: usize = 512;

/// Where the lines go. Cheap to clone.
#[derive(Clone, Default)]
pub struct Audit(Option<Arc<Book>>);

struct Book {
    clock: SharedClock,
    file: Option<Paper>,
}

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
        let file = Some(Paper { path, open });
        Ok(Self(Some(Arc::new(Book { clock, file }))))
    }

    /// Writes a line; `address` is the client's. Without a place to write to it does nothing.
    pub fn record(&self, address: &dyn std::fmt::Display, event: &Event<'_>) {
        let Some(book) = &self.0 else {
            return;
        };
        let line = Line {
            time: format!("{:.3}", book.clock.now()),
            address: address.to_string(),
            event,
        };
        let Ok(mut line) = serde_json::to_string(&line) else {
            return tracing::error!(?event, "an audit line cannot be written as JSON");
        };
        let Some(file) = &book.file else {
            return tracing::info!(target: "audit", "{line}");
        };
        line.push('\n');
        if let Err(error) = file.write(line.as_bytes()) {
            let file = file.path.display();
            tracing::error!(%file, %error, line = line.trim_end(), "the audit line could not be written");
        }
    }

    /// Writes a line about something that no client has done.
    pub fn note(&self, event: &Event<'_>) {
        self.record(&"", event);
    }

    /// Opens the file again, after it was renamed by a log rotation.
    ///
    /// # Errors
    /// It cannot be; lines go to the old one from then on.
    pub fn reopen(&self) -> io::Result<()> {
        let Some(file) = self.0.as_ref().and_then(|book| book.file.as_ref()) else {
            return Ok(());
        };
        let fresh = open(&file.path)?;
        *file.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(fresh);
        Ok(())
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
        let path = file.map(|file| &file.path);
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
        }
    }

    #[test]
    fn a_line_is_one_object_whatever_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let audit = Audit::to_file(&path, clock()).unwrap();
        audit.record(&"192.0.2.1", &failed("a\n\"b\u{7f}"));
        audit.record(&"192.0.2.1", &failed("c"));
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

    #[test]
    fn a_rotated_file_is_left_when_told_and_lines_are_appended() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("audit.log"), dir.path().join("audit.log.1"));
        fs::write(&path, "before\n").unwrap();
        let audit = Audit::to_file(&path, clock()).unwrap();
        audit.record(&"a", &failed("1"));
        fs::rename(&path, &old).unwrap();
        audit.record(&"a", &failed("2"));
        audit.reopen().unwrap();
        audit.record(&"a", &failed("3"));
        let count = |file| fs::read_to_string(file).unwrap().lines().count();
        assert_eq!((count(&old), count(&path)), (3, 1));
    }

    #[test]
    fn a_file_that_cannot_be_written_stops_nothing_and_is_tried_again() {
        let full = Path::new("/dev/full");
        let audit = Audit::to_file(full, clock()).unwrap();
        audit.record(&"a", &failed("1"));
        let paper = audit.0.as_ref().unwrap().file.as_ref().unwrap();
        assert!(paper.open.lock().unwrap().is_none(), "to be opened again");
        audit.record(&"a", &failed("2"));
        assert!(Audit::to_file(Path::new("/nowhere/audit.log"), clock()).is_err());
        Audit::default().record(&"a", &failed("3"));
    }
}
