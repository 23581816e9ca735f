//! The QEMU Machine Protocol, as far as it is used here: one JSON object a line each way, over a Unix socket.
//!
//! The other side is a process of somebody else, which may be of any version, stopped, or not QEMU at all. So every line
//! has a bound, every answer a time, and what is not understood is passed over. Errors are told apart by what state they
//! leave, never by their texts, which differ from version to version.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::peer::Peer;
use super::socket;

/// Longest line that is read. The description of 64 disks with 32 layers each takes less.
pub(super) const LINE_MAX: usize = 2 << 20;
/// How much is read at a time.
const PIECE: usize = 64 << 10;
/// How much may be said before the answer to a command: lines, and bytes.
const BEFORE_ANSWER: (u32, u64) = (10_000, 8 << 20);
/// Events that are kept for whoever asks for them next.
const EVENTS_MAX: usize = 256;

/// A command and its arguments.
pub type Command = (&'static str, Value);

/// How long a monitor is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Until it greets. One that serves another client never does.
    pub greeting: Duration,
    /// Until it answers a command.
    pub reply: Duration,
}

/// Why a monitor did not do what was asked.
#[derive(Debug)]
pub enum Error {
    /// There is no socket, or nobody listens at it.
    Absent,
    /// The socket cannot be used.
    Socket(io::Error),
    /// It does not greet: another client has it, or its process stands still.
    Busy,
    /// It has not answered this command in time.
    Late(&'static str),
    /// It has closed the connection.
    Closed,
    /// It speaks something else.
    Foreign(&'static str),
    /// It has refused this command.
    Refused(&'static str, String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("nobody listens there"),
            Self::Socket(error) => error.fmt(f),
            Self::Busy => {
                f.write_str("it does not greet: another client has it, or its process stands still")
            }
            Self::Late(command) => write!(f, "it does not answer {command}"),
            Self::Closed => f.write_str("it has closed the connection"),
            Self::Foreign(what) => write!(f, "it is no QMP monitor: {what}"),
            Self::Refused(command, why) => write!(f, "it refuses {command}: {why}"),
        }
    }
}

/// What a monitor says in one line.
#[derive(Debug, PartialEq)]
pub enum Said {
    /// It is ready for a client.
    Greeting,
    /// The answer to the command with this id; what it says of its error, if it is one.
    Reply(u64, Result<Value, String>),
    /// Something has happened.
    Event(String),
    /// Nothing that is of use here: an answer to nobody, a member of a later version.
    Other,
}

/// A line, without what it returns: a [`Value`] takes many times as much room as its text.
#[derive(Deserialize)]
struct Line {
    event: Option<String>,
    #[serde(rename = "QMP")]
    greeting: Option<IgnoredAny>,
    id: Option<u64>,
    error: Option<Fault>,
    #[serde(rename = "return")]
    returned: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Fault {
    desc: Option<String>,
}

/// The same line, once its answer is wanted.
#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "return")]
    returned: Value,
}

impl Said {
    /// Takes a line for what it is. Only what answers one of the commands `awaited` is read whole.
    pub(super) fn of(line: &[u8], awaited: &[u64]) -> Self {
        if !line.trim_ascii_start().starts_with(b"{") {
            return Self::Other;
        }
        let Ok(outer) = serde_json::from_slice::<Line>(line) else {
            return Self::Other;
        };
        if let Some(name) = outer.event {
            return Self::Event(name);
        }
        if outer.greeting.is_some() {
            return Self::Greeting;
        }
        let Some(id) = outer.id.filter(|id| awaited.contains(id)) else {
            return Self::Other;
        };
        if let Some(error) = outer.error {
            return Self::Reply(id, Err(error.desc.unwrap_or_default()));
        }
        let answer = outer
            .returned
            .and_then(|_| serde_json::from_slice(line).ok());
        match answer {
            Some(Answer { returned }) => Self::Reply(id, Ok(returned)),
            None => Self::Other,
        }
    }
}

/// Cuts what arrives into lines of a bounded length.
#[derive(Debug, Default)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    /// How much of it was given out.
    given: usize,
    /// How much of it holds no end of a line.
    searched: usize,
}

impl Lines {
    /// Adds what has arrived; whether the line that it belongs to may still become one.
    pub(super) fn add(&mut self, bytes: &[u8]) -> bool {
        if self.given > 0 {
            self.buffer.drain(..self.given);
            self.searched = self.searched.saturating_sub(self.given);
            self.given = 0;
            // Not for ever as much as the longest line took.
            if self.buffer.len() < PIECE {
                self.buffer.shrink_to(2 * PIECE);
            }
        }
        self.buffer.extend_from_slice(bytes);
        self.buffer.len() <= LINE_MAX || self.end().is_some()
    }

    fn end(&mut self) -> Option<usize> {
        let from = self.searched.max(self.given);
        let rest = self.buffer.get(from..).unwrap_or_default();
        let found = rest.iter().position(|byte| *byte == b'\n');
        self.searched = found.map_or(self.buffer.len(), |at| from + at);
        Some(from + found?)
    }

    /// The next whole line, while these answers are awaited.
    pub(super) fn next(&mut self, awaited: &[u64]) -> Option<Said> {
        let end = self.end()?;
        let line = self.buffer.get(self.given..end).unwrap_or_default();
        let said = Said::of(line, awaited);
        self.given = end + 1;
        Some(said)
    }
}

/// A connection to a monitor that has greeted and takes commands.
#[derive(Debug)]
pub struct Monitor {
    stream: UnixStream,
    peer: Option<Peer>,
    lines: Lines,
    last: u64,
    /// The commands that have not been answered yet.
    awaited: Vec<u64>,
    /// Bytes that were read.
    taken: u64,
    events: VecDeque<String>,
}

impl Monitor {
    /// Connects and has the monitor take commands.
    ///
    /// # Errors
    /// It does not.
    pub async fn connect(socket: &Path, patience: Patience) -> Result<Self, Error> {
        let reached = Self::reach(socket, patience).await;
        reached.map_err(|(error, _)| error)
    }

    /// The same; with an error, who was there.
    pub(super) async fn reach(
        socket: &Path,
        patience: Patience,
    ) -> Result<Self, (Error, Option<Peer>)> {
        let mut it = Self::open(socket).await.map_err(|error| (error, None))?;
        match it.begin(patience).await {
            Ok(()) => Ok(it),
            Err(error) => Err((error, it.peer)),
        }
    }

    async fn open(socket: &Path) -> Result<Self, Error> {
        let stream = socket::connect(socket).await.map_err(unreached)?;
        Ok(Self {
            peer: Peer::of(&stream),
            stream,
            lines: Lines::default(),
            last: 0,
            awaited: Vec::new(),
            taken: 0,
            events: VecDeque::new(),
        })
    }

    async fn begin(&mut self, patience: Patience) -> Result<(), Error> {
        match timeout(patience.greeting, self.greeted()).await {
            Ok(greeted) => greeted?,
            Err(_) => return Err(Error::Busy),
        }
        let able = self.execute("qmp_capabilities", json!({}), patience.reply);
        able.await.map(|_| ())
    }

    async fn greeted(&mut self) -> Result<(), Error> {
        match self.read().await? {
            Said::Greeting => Ok(()),
            _ => Err(Error::Foreign(
                "it begins with something else than a greeting",
            )),
        }
    }

    /// How much was read of it, in bytes.
    pub(super) const fn taken(&self) -> u64 {
        self.taken
    }

    /// Another descriptor of the connection.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.stream.as_fd().try_clone_to_owned()
    }

    /// Who listens at the other end, if the kernel tells.
    pub(crate) fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref()
    }

    /// Has a command carried out, and keeps the events that come meanwhile. Not to be called again after
    /// [`Error::Late`]: the answer may still come.
    ///
    /// # Errors
    /// It refuses, is late, or is no monitor any more.
    pub async fn execute(
        &mut self,
        command: &'static str,
        arguments: Value,
        limit: Duration,
    ) -> Result<Value, Error> {
        let work = async {
            let asked = self.ask(command, arguments).await?;
            let (lines_max, bytes_max) = BEFORE_ANSWER;
            let (begun, mut lines) = (self.taken, 0);
            loop {
                lines += 1;
                if lines > lines_max || self.taken - begun > bytes_max {
                    return Err(Error::Foreign("it says too much that nobody has asked for"));
                }
                match self.read().await? {
                    Said::Reply(id, done) if id == asked => {
                        return done.map_err(|why| Error::Refused(command, why));
                    }
                    Said::Event(name) => self.keep(name),
                    Said::Reply(..) | Said::Greeting | Said::Other => {}
                }
            }
        };
        let done = timeout(limit, work).await;
        done.unwrap_or(Err(Error::Late(command)))
    }

    /// Sends a command; its id.
    pub(super) async fn ask(&mut self, name: &'static str, arguments: Value) -> Result<u64, Error> {
        self.tell(&[(name, arguments)]).await?;
        Ok(self.last)
    }

    /// Sends these commands in one piece, each to be carried out right after the one before; the id of the first. The
    /// others have the numbers that follow.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn tell(&mut self, commands: &[Command]) -> Result<u64, Error> {
        let first = self.last + 1;
        let mut lines = String::new();
        for (name, arguments) in commands {
            self.last += 1;
            self.awaited.push(self.last);
            let line = json!({"execute": name, "arguments": arguments, "id": self.last});
            lines += &format!("{line}\n");
        }
        let written = self.stream.write_all(lines.as_bytes()).await;
        written.map_err(|_| Error::Closed)?;
        Ok(first)
    }

    /// What it says next, events that were kept first. May be given up at any time.
    ///
    /// # Errors
    /// The connection is gone, or speaks something else.
    pub async fn said(&mut self) -> Result<Said, Error> {
        match self.events.pop_front() {
            Some(name) => Ok(Said::Event(name)),
            None => self.read().await,
        }
    }

    /// Of more than are kept the oldest are as good as any: whoever takes one asks for the state.
    fn keep(&mut self, name: String) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(name);
        }
    }

    async fn read(&mut self) -> Result<Said, Error> {
        loop {
            if let Some(said) = self.lines.next(&self.awaited) {
                if let Said::Reply(id, _) = said {
                    self.awaited.retain(|awaited| *awaited != id); // a second one is none
                }
                return Ok(said);
            }
            // Who always has more to say keeps no clock from running, and nobody else on this thread from their turn.
            tokio::task::yield_now().await;
            self.stream.readable().await.map_err(|_| Error::Closed)?;
            let mut piece = Vec::with_capacity(PIECE);
            match self.stream.try_read_buf(&mut piece) {
                Ok(0) => return Err(Error::Closed),
                Ok(read) => {
                    self.taken += u64::try_from(read).unwrap_or(u64::MAX);
                    if !self.lines.add(&piece) {
                        return Err(Error::Foreign("a line of it does not end"));
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(Error::Closed),
            }
        }
    }
}

fn unreached(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Error::Absent,
        // So many wait there that nobody else may.
        io::ErrorKind::WouldBlock => Error::Busy,
        _ => Error::Socket(error),
    }
}

/// What a hostile monitor sends, in pieces: for the fuzz target.
#[must_use]
pub fn fuzz(bytes: &[u8]) -> bool {
    let whole: Vec<_> = {
        let mut lines = Lines::default();
        let fits = lines.add(bytes);
        assert!(fits || bytes.len() > LINE_MAX);
        std::iter::from_fn(|| lines.next(&[1])).collect()
    };
    let mut lines = Lines::default();
    let mut pieces = Vec::new();
    for piece in bytes.chunks(7) {
        lines.add(piece);
        pieces.extend(std::iter::from_fn(|| lines.next(&[1])));
    }
    whole == pieces
}
