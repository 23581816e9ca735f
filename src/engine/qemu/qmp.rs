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
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::engine::Stamp;

use super::answer::Answer;
use super::peer::Peer;
use super::socket;

/// Longest line that is read. The description of 64 disks with 32 layers each takes less.
pub(super) const LINE_MAX: usize = 2 << 20;
/// Longest answer to commands that describe no disks but something else, and longest one to the rest; also to an event.
const LISTS_MAX: usize = 256 << 10;
const SHORT_MAX: usize = 64 << 10;
/// From this length on a line is looked at on a thread of its own: all monitors share theirs.
const APART: usize = 128 << 10;
/// How much is read at a time.
const PIECE: usize = 64 << 10;
/// How much may be said before the answer to a command: lines, and bytes.
const BEFORE_ANSWER: (u32, u64) = (10_000, 8 << 20);
/// Ends a command of which only a part was sent.
const BREAK: &[u8] = b"\xff\n";
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
    Reply(u64, Result<Answer, String>),
    /// Something has happened.
    Event(String),
    /// Nothing that is of use here: an answer to nobody, a member of a later version.
    Other,
}

/// A line, without what it returns, which whoever has asked reads.
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

impl Said {
    /// Takes a line for what it is. Only what answers one of the commands `awaited` is kept.
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
        match outer.returned {
            Some(_) => Self::Reply(id, Ok(Answer::of(line.to_vec()))),
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
    /// Adds what has arrived; whether the line that it belongs to may still become one of at most this length.
    pub(super) fn add(&mut self, bytes: &[u8], longest: usize) -> bool {
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
        self.buffer.len() <= longest || self.end().is_some()
    }

    fn end(&mut self) -> Option<usize> {
        let from = self.searched.max(self.given);
        let rest = self.buffer.get(from..).unwrap_or_default();
        let found = rest.iter().position(|byte| *byte == b'\n');
        self.searched = found.map_or(self.buffer.len(), |at| from + at);
        Some(from + found?)
    }

    /// The next whole line.
    pub(super) fn next(&mut self) -> Option<&[u8]> {
        let end = self.end()?;
        let begin = std::mem::replace(&mut self.given, end + 1);
        self.buffer.get(begin..end)
    }
}

/// A connection to a monitor that has greeted and takes commands.
#[derive(Debug)]
pub struct Monitor {
    stream: UnixStream,
    peer: Option<Peer>,
    /// What its socket looked like.
    stamp: Stamp,
    lines: Lines,
    last: u64,
    /// The commands that have not been answered yet, and how long an answer may be.
    awaited: Vec<(u64, usize)>,
    /// A long line that is looked at.
    looking: Option<JoinHandle<Said>>,
    /// Bytes that were read and were no answer that was awaited.
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
        let (stream, stamp) = socket::connect(socket).await.map_err(unreached)?;
        Ok(Self {
            peer: Peer::at(&stream),
            stamp,
            stream,
            lines: Lines::default(),
            last: 0,
            awaited: Vec::new(),
            looking: None,
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

    /// Ends what stands unfinished on the connection, and forgets what was asked over it.
    ///
    /// # Errors
    /// It has closed the connection.
    pub(super) async fn renew(&mut self) -> Result<(), Error> {
        (self.lines, self.awaited, self.looking) = (Lines::default(), Vec::new(), None);
        let written = self.stream.write_all(BREAK).await;
        written.map_err(|_| Error::Closed)
    }

    /// How much was read of it, in bytes, beside what was asked for.
    pub(super) const fn taken(&self) -> u64 {
        self.taken
    }

    /// Whether a long line is looked at by another thread.
    #[cfg(test)]
    pub(super) const fn is_looking(&self) -> bool {
        self.looking.is_some()
    }

    /// How long a line may be now: what is asked for has its room, and nothing else.
    pub(super) fn room(&self) -> usize {
        let rooms = self.awaited.iter().map(|(_, room)| *room);
        rooms.fold(SHORT_MAX, usize::max)
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

    /// What the socket looked like that it was reached by.
    pub(super) const fn stamp(&self) -> Stamp {
        self.stamp
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
    ) -> Result<Answer, Error> {
        let work = async {
            let asked = self.ask(command, arguments).await?;
            let (lines_max, bytes_max) = BEFORE_ANSWER;
            let (begun, mut lines) = (self.taken, 0);
            loop {
                lines += 1;
                if lines > lines_max || self.taken.saturating_sub(begun) > bytes_max {
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
            self.awaited.push((self.last, room_of(name)));
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
            // Who gives this up comes back to it.
            if let Some(looking) = &mut self.looking {
                let said = looking.await.unwrap_or(Said::Other);
                self.looking = None;
                return self.known(said);
            }
            if let Some(line) = self.lines.next() {
                let awaited: Vec<_> = self.awaited.iter().map(|(id, _)| *id).collect();
                if line.len() < APART {
                    let said = Said::of(line, &awaited);
                    return self.known(said);
                }
                let line = line.to_vec();
                let look = move || Said::of(&line, &awaited);
                self.looking = Some(tokio::task::spawn_blocking(look));
                continue;
            }
            // Who always has more to say keeps no clock from running, and nobody else on this thread from their turn.
            tokio::task::yield_now().await;
            self.stream.readable().await.map_err(|_| Error::Closed)?;
            let mut piece = Vec::with_capacity(PIECE);
            match self.stream.try_read_buf(&mut piece) {
                Ok(0) => return Err(Error::Closed),
                Ok(read) => {
                    self.taken += u64::try_from(read).unwrap_or(u64::MAX);
                    let room = self.room();
                    if !self.lines.add(&piece, room) {
                        return Err(Error::Foreign("a line of it does not end"));
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(Error::Closed),
            }
        }
    }

    /// Takes note of an answer; a second one is none.
    fn known(&mut self, said: Said) -> Result<Said, Error> {
        if let Said::Reply(id, answer) = &said {
            let mut awaited = self.awaited.iter();
            let room = awaited.find(|(awaited, _)| awaited == id).map(|it| it.1);
            self.awaited.retain(|(awaited, _)| awaited != id);
            let length = answer.as_ref().map_or(0, Answer::len);
            self.taken = (self.taken).saturating_sub(u64::try_from(length).unwrap_or(u64::MAX));
            if room.is_some_and(|room| length > room) {
                return Err(Error::Foreign("it answers with more than was asked for"));
            }
        }
        Ok(said)
    }
}

/// How long the answer to a command may be.
fn room_of(command: &str) -> usize {
    match command {
        "query-block" | "query-named-block-nodes" => LINE_MAX,
        "query-fdsets"
        | "query-chardev"
        | "query-jobs"
        | "query-block-jobs"
        | "query-block-exports" => LISTS_MAX,
        _ => SHORT_MAX,
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
    let said = |lines: &mut Lines| {
        let mut all = Vec::new();
        while let Some(line) = lines.next() {
            all.push(Said::of(line, &[1]));
        }
        all
    };
    let mut lines = Lines::default();
    let fits = lines.add(bytes, LINE_MAX);
    assert!(fits || bytes.len() > LINE_MAX);
    let whole = said(&mut lines);
    let mut lines = Lines::default();
    let mut pieces = Vec::new();
    for piece in bytes.chunks(7) {
        lines.add(piece, LINE_MAX);
        pieces.extend(said(&mut lines));
    }
    whole == pieces
}
