//! The QEMU guest agent, as far as it is used here: one JSON object a line each way, over a Unix socket that QEMU passes on
//! to a port of the guest.
//!
//! At the other end is the guest, which may be of any kind and say anything. The agent does one thing after the other, and
//! answers in that order; no id in an answer can be relied on, and what it says may have been meant for somebody who is
//! gone. So each exchange begins with a byte that ends whatever it has heard of a command, and a number that it repeats
//! behind such a byte. A freeze that was given up is still in its way then: who thaws waits for its end, or does not thaw.
//!
//! QEMU serves one client a socket; who comes second gets no answer as long as the first is there. A guest has one agent,
//! and others may have a use for it, so the connection is held from before a freeze until the thaw, and no longer
//! (`docs/decisions/0089-an-agent-is-held-while-its-guest-is-frozen.md`).

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::engine::running::{QuiesceError, Quiesced, ThawError};
use crate::engine::{EngineError, EngineErrorKind};
use crate::text::Text;
use crate::text::catalog::engine as texts;

use super::answer::{Chardev, List};
use super::peer::Peer;
use super::socket;

/// Longest line that is kept. An answer that is wanted here has some hundred bytes.
const LINE_MAX: usize = 64 << 10;
/// How much is read at a time.
const PIECE: usize = 16 << 10;
/// How much may be said before an answer, bytes.
const BEFORE_ANSWER: u64 = 8 << 20;
/// Begins an exchange, and the line that answers its number. In no JSON text.
const DELIMITER: u8 = 0xff;
/// Most of what the guest says of an error that is passed on, characters.
const WHY_MAX: usize = 200;
/// How long the writers of Windows may be kept from writing, with what the way to their end may take: it lets them go by
/// itself after 10 s.
const WINDOWS: Duration = Duration::from_secs(8);
/// How often a guest is asked to thaw in one call, and how long it is left alone in between.
const THAWS: (u32, Duration) = (20, Duration::from_millis(100));

/// How long an agent is waited for.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// Until it answers, except:
    reply: Duration,
    /// until it has frozen the file systems.
    freeze: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            reply: Duration::from_secs(5),
            freeze: Duration::from_secs(30),
        }
    }
}

/// Why an agent did not do what was asked.
#[derive(Debug)]
enum Error {
    /// The socket cannot be used.
    Socket(io::Error),
    /// It has not answered this command in time.
    Late(&'static str),
    /// QEMU has closed the connection.
    Closed,
    /// It answers this command as no agent does.
    Foreign(&'static str),
    /// Another process than that at the monitor has made its socket.
    Other(i32),
    /// It says more than anybody has asked for.
    Flood,
    /// It has refused this command, and why in its own words.
    Refused(&'static str, String),
}

impl Error {
    fn text(&self) -> Text {
        match self {
            Self::Socket(error) if is_nobody(error) => texts::AGENT_NOBODY.text(),
            Self::Socket(error) => texts::AGENT_SOCKET.with("cause", error),
            Self::Late(command) => texts::AGENT_LATE.with("command", *command),
            Self::Closed => texts::AGENT_CLOSED.text(),
            Self::Foreign(command) => texts::AGENT_FOREIGN.with("command", *command),
            Self::Other(pid) => texts::AGENT_OTHER.with("pid", i64::from(*pid)),
            Self::Flood => texts::AGENT_FLOOD.text(),
            Self::Refused(command, why) => texts::AGENT_REFUSED
                .with("command", *command)
                .with("cause", why),
        }
    }
}

fn is_nobody(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, NotFound};
    [NotFound, ConnectionRefused].contains(&error.kind())
}

/// The agent of one machine.
#[derive(Debug)]
pub struct Agent {
    machine: String,
    socket: PathBuf,
    patience: Patience,
    /// One exchange at a time.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The connection. As a descriptor, for a window has a runtime of its own, and streams end with theirs.
    held: Option<OwnedFd>,
    /// The process at the monitor: with no other one there is anything to be said.
    of: Option<Peer>,
    /// Somebody has a duplicate of it, for a freeze to come.
    is_shared: bool,
    asked: Asked,
}

impl State {
    /// The connection, and all that was asked.
    fn forget(&mut self) {
        *self = Self {
            of: self.of.take(),
            ..Self::default()
        };
    }
}

/// The connection while it is used: closed afterwards, also by who is given up meanwhile, unless it is to be kept, or the
/// guest may be frozen.
struct Held<'a> {
    state: &'a mut State,
    is_kept: bool,
}

impl<'a> Held<'a> {
    fn of(state: &'a mut State) -> Self {
        let is_kept = state.asked == Asked::Freeze;
        Self { state, is_kept }
    }

    const fn keep(&mut self) {
        self.is_kept = true;
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            (self.state.held, self.state.is_shared) = (None, false);
        }
    }
}

/// What was asked of the guest since it was last seen thawed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Asked {
    /// Nothing, or by an earlier process.
    #[default]
    Unknown,
    /// It is being asked whether it is frozen; no freeze yet.
    Status,
    /// To freeze. It may have done so, do so later, or refuse.
    Freeze,
}

impl Agent {
    /// The agent of the machine with this name, behind this socket. Connects to nobody yet.
    pub fn new(machine: impl Into<String>, socket: PathBuf) -> Self {
        Self {
            machine: machine.into(),
            socket,
            patience: Patience::default(),
            state: Mutex::default(),
        }
    }

    /// It is that of this process, from the next connection on; of any, where none is named.
    pub(super) async fn is_of(&self, process: Option<&Peer>) {
        self.state.lock().await.of = process.cloned();
    }

    /// A duplicate of the connection, for who thaws if this process does not. Held from now on, until
    /// [`Agent::is_frozen`] denies it after a thaw. The descriptor does not block, and must stay so.
    ///
    /// # Errors
    /// There is no agent, or it does not answer.
    pub async fn duplicate(&self) -> Result<OwnedFd, EngineError> {
        let mut state = self.state.lock().await;
        let state = &mut *state;
        let done = async {
            let mut held = Held::of(state);
            self.synced(held.state).await?;
            let own = held.state.held.as_ref().ok_or(Error::Closed)?;
            let own = own.try_clone().map_err(Error::Socket)?;
            held.keep();
            Ok::<_, Error>(own)
        };
        let done = done.await;
        state.is_shared |= done.is_ok();
        done.map_err(|error| self.failed(&error))
    }

    /// Leaves the socket to others, unless the guest was asked to freeze and has not said since that it is thawed. The end
    /// of everything that began with [`Agent::duplicate`]; may be repeated.
    pub async fn leave(&self) {
        let mut state = self.state.lock().await;
        if state.asked != Asked::Freeze {
            state.forget();
        }
    }

    /// Freezes the file systems of the guest. Holds the connection from now on, as [`Agent::duplicate`] does.
    ///
    /// # Errors
    /// Those of the port.
    pub async fn quiesce(&self) -> Result<Quiesced, QuiesceError> {
        let mut state = self.state.lock().await;
        let state = &mut *state;
        if state.asked == Asked::Unknown {
            state.asked = Asked::Status;
        }
        let looked = self.looked(state).await;
        let (mut session, is_windows) = match looked {
            Ok(looked) => looked,
            Err(error) => {
                if state.asked == Asked::Status {
                    state.forget();
                }
                return Err(QuiesceError::Untouched(error));
            }
        };
        state.asked = Asked::Freeze;
        let command = "guest-fsfreeze-freeze";
        let frozen = session.command(command, self.patience.freeze);
        let frozen = frozen.await.and_then(|count| {
            let count = count.as_u64().and_then(|count| count.try_into().ok());
            count.ok_or(Error::Foreign(command))
        });
        match frozen {
            Ok(count) => Ok(Quiesced {
                count,
                limit: is_windows.then_some(WINDOWS),
            }),
            Err(error) => Err(QuiesceError::Failed(self.failed(&error))),
        }
    }

    /// A session with a guest that is not frozen, and whether it is Windows.
    async fn looked(&self, state: &mut State) -> Result<(Session, bool), EngineError> {
        let looked = async {
            let mut session = self.synced(state).await?;
            let frozen = session.is_frozen(self.patience).await?;
            let is_windows = !frozen && session.is_windows(self.patience).await?;
            Ok((session, frozen, is_windows))
        };
        match looked.await {
            Ok((_, true, _)) => Err(refused(texts::FROZEN_BEFORE.with("machine", &self.machine))),
            Ok((session, false, is_windows)) => Ok((session, is_windows)),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Whether file systems of the guest are frozen. If a freeze was given up before it was sent, not by us: nobody is
    /// asked then.
    ///
    /// # Errors
    /// The agent does not tell.
    pub async fn is_frozen(&self) -> Result<bool, EngineError> {
        let mut state = self.state.lock().await;
        let state = &mut *state;
        if state.asked == Asked::Status {
            return Ok(false);
        }
        let is_shared = state.is_shared;
        let told = async {
            // Whoever else has frozen it needs the socket to thaw it.
            let mut held = Held::of(state);
            if is_shared {
                held.keep();
            }
            let mut session = self.synced(held.state).await?;
            session.is_frozen(self.patience).await
        };
        let told = told.await;
        told.map_err(|error| self.failed(&error))
    }

    /// Thaws what was frozen, and waits until the guest says that it is: also what it was asked to freeze, and does later
    /// than anybody has waited for. If a freeze was given up before it was sent, nothing is done.
    ///
    /// # Errors
    /// Those of the port.
    pub async fn thaw(&self) -> Result<(), ThawError> {
        let mut state = self.state.lock().await;
        let state = &mut *state;
        if state.asked == Asked::Status {
            state.forget();
            return Ok(());
        }
        let thawed = async {
            let mut session = self.synced(state).await?;
            session.thaw(self.patience).await
        };
        let thawed = thawed.await;
        if thawed.is_ok() {
            (state.asked, state.is_shared) = (Asked::Unknown, false);
        }
        match thawed {
            Ok(None) => Ok(()),
            Ok(Some(why)) => {
                let text = texts::NOT_HELD.with("machine", &self.machine);
                Err(ThawError::NotHeld(refused(text.with("cause", why))))
            }
            Err(error) => Err(ThawError::Frozen(self.failed(&error))),
        }
    }

    /// A session in which the next line answers the next command, on the connection that is held; on another one if there is
    /// none, or QEMU has closed it.
    async fn synced(&self, state: &mut State) -> Result<Session, Error> {
        if let Some(connection) = state.held.as_ref() {
            let synced = Session::begin(connection, self.patience).await;
            if !matches!(synced, Err(Error::Closed)) {
                return synced;
            }
        }
        let (stream, _) = socket::connect(&self.socket).await.map_err(Error::Socket)?;
        if let (Some(wanted), Some(found)) = (&state.of, Peer::at(&stream))
            && *wanted != found
        {
            return Err(Error::Other(found.pid));
        }
        let stream = stream.into_std().map_err(Error::Socket)?;
        let connection = state.held.insert(stream.into());
        Session::begin(connection, self.patience).await
    }

    fn failed(&self, error: &Error) -> EngineError {
        let text = texts::AGENT_FAILED.with("machine", &self.machine);
        let text = text.with("file", self.socket.display());
        refused(text.with("cause", error.text()))
    }
}

fn refused(text: Text) -> EngineError {
    EngineError {
        kind: EngineErrorKind::Failed,
        text,
    }
}

/// An exchange that has begun.
#[derive(Debug)]
struct Session {
    stream: UnixStream,
    lines: Lines,
    /// Bytes that were read since the last answer.
    taken: u64,
}

impl Session {
    /// Begins one on this connection.
    async fn begin(connection: &OwnedFd, patience: Patience) -> Result<Self, Error> {
        let own = connection.try_clone().map_err(Error::Socket)?;
        let stream = UnixStream::from_std(own.into()).map_err(Error::Socket)?;
        let mut it = Self {
            stream,
            lines: Lines::default(),
            taken: 0,
        };
        let command = "guest-sync-delimited";
        // One that nobody has asked for before. No agent takes more than 63 bits, and some take them through a double.
        let id = Uuid::new_v4().as_u64_pair().0 & ((1 << 53) - 1);
        let line = json!({"execute": command, "arguments": {"id": id}});
        let sync = async {
            // What ends an unfinished command is answered by an error.
            it.send(&[&[DELIMITER][..], format!("{line}\n").as_bytes()].concat())
                .await?;
            loop {
                let line = it.line().await?;
                if line.is_delimited
                    && matches!(line.said(), Said::Done(value) if value.as_u64() == Some(id))
                {
                    it.taken = 0;
                    return Ok(());
                }
            }
        };
        match timeout(patience.reply, sync).await {
            Ok(synced) => synced.map(|()| it),
            Err(_) => Err(Error::Late(command)),
        }
    }

    /// What it answers. The session is of no use after [`Error::Late`].
    async fn command(&mut self, command: &'static str, limit: Duration) -> Result<Value, Error> {
        let work = async {
            let line = json!({"execute": command});
            self.send(format!("{line}\n").as_bytes()).await?;
            loop {
                match self.line().await?.said() {
                    Said::Done(value) => return Ok(value),
                    Said::Refused(why) => return Err(Error::Refused(command, why)),
                    Said::Other => {}
                }
            }
        };
        let done = timeout(limit, work).await;
        self.taken = 0;
        done.unwrap_or(Err(Error::Late(command)))
    }

    async fn is_frozen(&mut self, patience: Patience) -> Result<bool, Error> {
        let command = "guest-fsfreeze-status";
        let status = self.command(command, patience.reply).await?;
        match status.as_str() {
            Some("frozen") => Ok(true),
            Some("thawed") => Ok(false),
            _ => Err(Error::Foreign(command)),
        }
    }

    async fn is_windows(&mut self, patience: Patience) -> Result<bool, Error> {
        match self.command("guest-get-osinfo", patience.reply).await {
            Ok(told) => Ok(told.get("id").and_then(Value::as_str) == Some("mswindows")),
            // One that is older than the command, or may not tell.
            Err(Error::Refused(..)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Thaws until it says that it is; why it was none of its own doing, if it says so.
    async fn thaw(&mut self, patience: Patience) -> Result<Option<String>, Error> {
        let command = "guest-fsfreeze-thaw";
        let mut last = None;
        for _ in 0..THAWS.0 {
            if !self.is_frozen(patience).await? {
                return Ok(last);
            }
            last = match self.command(command, patience.reply).await {
                Ok(_) => None,
                Err(Error::Refused(_, why)) => Some(why),
                Err(error) => return Err(error),
            };
            match self.is_frozen(patience).await? {
                true => sleep(THAWS.1).await,
                false => return Ok(last),
            }
        }
        let still = "it still says that it is frozen".to_owned();
        Err(Error::Refused(command, last.unwrap_or(still)))
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = self.stream.write_all(bytes).await;
        written.map_err(|_| Error::Closed)
    }

    async fn line(&mut self) -> Result<Line, Error> {
        loop {
            if let Some(line) = self.lines.next() {
                return Ok(line);
            }
            if self.taken > BEFORE_ANSWER {
                return Err(Error::Flood);
            }
            // Who always has more to say keeps no clock from running, and nobody else on this thread from their turn.
            tokio::task::yield_now().await;
            self.stream.readable().await.map_err(|_| Error::Closed)?;
            let mut piece = Vec::with_capacity(PIECE);
            match self.stream.try_read_buf(&mut piece) {
                Ok(0) => return Err(Error::Closed),
                Ok(read) => {
                    self.taken += u64::try_from(read).unwrap_or(u64::MAX);
                    self.lines.add(&piece);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(Error::Closed),
            }
        }
    }
}

/// A line of an agent.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    bytes: Vec<u8>,
    /// It stands behind a delimiter.
    is_delimited: bool,
}

/// What an agent says in one line.
#[derive(Debug, PartialEq)]
enum Said {
    /// What a command has returned.
    Done(Value),
    /// Why it was not carried out.
    Refused(String),
    /// Nothing that is of use here.
    Other,
}

#[derive(Deserialize)]
struct Answer {
    error: Option<Fault>,
    #[serde(rename = "return")]
    returned: Option<Value>,
}

#[derive(Deserialize)]
struct Fault {
    desc: Option<String>,
}

impl Line {
    fn said(&self) -> Said {
        let text = self.bytes.trim_ascii_start();
        let answer = text.starts_with(b"{").then(|| serde_json::from_slice(text));
        let Some(Ok(Answer { error, returned })) = answer else {
            return Said::Other;
        };
        match (error, returned) {
            (Some(fault), _) => {
                // It ends up in texts and logs of this host.
                let why = fault.desc.unwrap_or_default();
                let why = why.chars().filter(|c| !c.is_control()).take(WHY_MAX);
                Said::Refused(why.collect())
            }
            (None, Some(value)) => Said::Done(value),
            (None, None) => Said::Other,
        }
    }
}

/// Cuts what arrives into lines. One that is too long is passed over, and memory for it is bounded.
#[derive(Debug, Default)]
struct Lines {
    ready: VecDeque<Line>,
    rest: Vec<u8>,
    is_delimited: bool,
    is_too_long: bool,
}

impl Lines {
    fn add(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| [DELIMITER, b'\n'].contains(byte)) {
            match part.split_last() {
                Some((b'\n', part)) => {
                    self.keep(part);
                    let line = Line {
                        bytes: std::mem::take(&mut self.rest),
                        is_delimited: std::mem::take(&mut self.is_delimited),
                    };
                    if !std::mem::take(&mut self.is_too_long) {
                        self.ready.push_back(line);
                    }
                }
                Some((&DELIMITER, _)) => {
                    self.rest.clear();
                    (self.is_delimited, self.is_too_long) = (true, false);
                }
                _ => self.keep(part),
            }
        }
    }

    fn keep(&mut self, part: &[u8]) {
        if self.is_too_long || self.rest.len() + part.len() > LINE_MAX {
            self.is_too_long = true;
            self.rest.clear();
        } else {
            self.rest.extend_from_slice(part);
        }
    }

    fn next(&mut self) -> Option<Line> {
        self.ready.pop_front()
    }
}

/// Whether an agent listens in the guest, by the answer to `query-chardev` of its QEMU, which knows that without asking the
/// guest: also while it is stopped or frozen. Just after a reset nobody does. Which device is that of the agent is told by
/// the name that QEMU has for it.
pub fn listens(chardevs: &List<Chardev>, is_agent: impl Fn(&str) -> bool) -> bool {
    let mut devices = chardevs.iter();
    devices.any(|device| device.frontend_open.is_so() && is_agent(device.filename.text()))
}

/// What a hostile guest sends, in pieces: for the fuzz target. Whether it is cut in the same way however it arrives, and
/// within bounds.
#[must_use]
pub fn fuzz(bytes: &[u8]) -> bool {
    let mut whole = Lines::default();
    whole.add(bytes);
    let mut lines = Lines::default();
    for piece in bytes.chunks(7) {
        lines.add(piece);
        assert!(lines.rest.len() <= LINE_MAX);
    }
    for line in &lines.ready {
        if let Said::Refused(why) = line.said() {
            assert!(why.chars().count() <= WHY_MAX);
        }
    }
    whole.ready == lines.ready
}

#[cfg(test)]
mod tests;
