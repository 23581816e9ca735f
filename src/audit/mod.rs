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
//! the log as an error, whole, whatever the log is told to leave out; the call is not refused for it, for its effect is
//! already there. What the server itself finds (`set-damaged`) has no address.
//!
//! One thread writes, in the order in which things happened; no thread that serves waits for the disk (`desk`). Up
//! to `QUEUE` lines wait for it. Whoever has a line more waits, and what changes something has its place before it
//! begins, and with it room in the log: nothing is done of which no line can be kept.

mod about;
mod desk;
mod settings;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::timeout;

use crate::clock::SharedClock;
use crate::telemetry::{self, AUDIT, KEPT, Room};
use crate::text::Text;
use crate::text::catalog::operation as texts;

use desk::{Desk, Seat, Sheet};

pub use about::{About, Named, SHORTEST, names};
pub use desk::Written;
pub use settings::AuditTo;

/// Longest text of a line that a client has a say in, in characters.
const LONGEST: usize = 512;

/// How long an operator's wish waits for a place for its line.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the lines go. Cheap to clone.
#[derive(Clone, Default)]
pub struct Audit(Option<Arc<Book>>);

struct Book {
    clock: SharedClock,
    file: Option<Arc<Desk>>,
}

/// A line to come, and its place once that was waited for. Without one it goes to the log, if that has room.
pub struct Place {
    audit: Audit,
    free: Option<Free>,
}

/// A place.
enum Free {
    InFile(Seat),
    InLog(Room),
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
        /// So often since the line before about such a call of this user that was denied.
        #[serde(skip_serializing_if = "is_once")]
        times: u64,
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
    /// The guard of a window had to let machines go.
    GuardFired {
        /// Id of the set.
        set: String,
        /// Id of the job.
        job: String,
        /// `died` (the server), `late`
        cause: &'a str,
        /// The machines, by name.
        machines: Vec<String>,
        /// Those of them that have not told the guard that they go on and are thawed.
        left: Vec<String>,
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
        let file = Some(Desk::start(path, desk::open(path)?)?);
        Ok(Self(Some(Arc::new(Book { clock, file }))))
    }

    /// Writes a line; `address` is the client's. Without a place to write to it does nothing. The line is there at
    /// once: if its client hangs up before it has its place, it goes to the log.
    pub fn record(
        &self,
        address: &dyn std::fmt::Display,
        event: &Event<'_>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let sheet = self.sheet(address, event, None);
        async move {
            if let Some((sheet, written)) = sheet {
                sheet.send_in_turn().await;
                written.await;
            }
        }
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

    /// A place for the line about what an operator wishes, before that is done.
    ///
    /// # Errors
    /// There is none for a while: the file does not answer, or nobody reads the log.
    pub async fn reserve(&self) -> Result<Place, Text> {
        let mut place = self.place();
        let waited = timeout(PATIENCE, place.wait()).await;
        waited.map_err(|_| match self.desk().filter(|desk| desk.is_full()) {
            Some(desk) => texts::AUDIT_SILENT.with("file", desk.path.display()),
            None => texts::AUDIT_UNREAD.text(),
        })?;
        Ok(place)
    }

    /// Opens the file again, after it was renamed by a log rotation; if it cannot be, lines go to the old one and the
    /// log says so. Does not wait for it.
    pub fn reopen(&self) {
        self.desk().inspect(|desk| desk.reopen());
    }

    /// Waits until all that was recorded is written, not longer than `limit`; the rest is told in the log.
    pub async fn finish(&self, limit: Duration) {
        if let Some(desk) = self.desk() {
            desk.finish(limit).await;
        }
    }

    fn desk(&self) -> Option<&Arc<Desk>> {
        self.0.as_ref()?.file.as_ref()
    }

    /// A line for the file. What goes to the log is there; with room for it, nothing makes it lost.
    fn sheet(
        &self,
        address: &dyn std::fmt::Display,
        event: &Event<'_>,
        room: Option<Room>,
    ) -> Option<(Sheet, Written)> {
        let book = self.0.as_ref()?;
        let line = Line {
            time: format!("{:.3}", book.clock.now()),
            address: address.to_string(),
            event,
        };
        let told = |_: &_| tracing::error!(target: AUDIT, ?event, "an audit line cannot be written as JSON");
        let line = serde_json::to_string(&line).inspect_err(told).ok()?;
        match (&book.file, room) {
            (Some(desk), _) => return Some(desk.sheet(line)),
            (None, Some(_held)) => tracing::info!(name: KEPT, target: AUDIT, "{line}"),
            (None, None) => tracing::info!(target: AUDIT, "{line}"),
        }
        None
    }
}

impl Drop for Book {
    fn drop(&mut self) {
        self.file.iter().for_each(|desk| desk.close());
    }
}

impl Place {
    /// Comes back when there is one.
    pub async fn wait(&mut self) {
        self.free = match self.audit.0.as_ref().map(|book| &book.file) {
            None => None,
            Some(None) => Some(Free::InLog(telemetry::room().await)),
            Some(Some(desk)) => desk.place().await.map(Free::InFile),
        };
    }

    /// Writes the line; who waits for its end knows that it is written.
    pub fn record(self, address: &dyn std::fmt::Display, event: &Event<'_>) -> Written {
        let (seat, room) = match self.free {
            Some(Free::InFile(seat)) => (Some(seat), None),
            Some(Free::InLog(room)) => (None, Some(room)),
            None => (None, None),
        };
        let Some((sheet, written)) = self.audit.sheet(address, event, room) else {
            return Written::default();
        };
        sheet.send(seat);
        written
    }

    /// [`Place::record`] of something that no client has done.
    pub fn note(self, event: &Event<'_>) -> Written {
        self.record(&"", event)
    }
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
        let path = self.desk().map(|desk| &desk.path);
        f.debug_struct("Audit").field("file", &path).finish()
    }
}

#[cfg(test)]
pub(crate) mod tests;
