//! What a guard does at one machine when the process that has stopped it cannot: the machine goes on, then its guest is
//! thawed (`docs/cut.md` §2).
//!
//! It blocks, by `poll`, and needs little memory. The connections are shared with the process that made them, and so is
//! whether they block: that is never changed. A command goes in band first, on the connection that is there: whoever
//! reaches a monitor anew lets in first who waits there already, and the machine would go on standing.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType,
    connect, recv, send, shutdown, socket_with,
};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::clock::Clock;
use crate::engine::{Dues, Fence, Freed, Runner};

use super::peer::Peer;
use super::qmp::LINE_MAX;
use super::socket;

/// Longest line of an agent: it answers little, and whoever is root in its guest says what.
const AGENT_LINE_MAX: usize = 16 << 10;
/// How much is read at a time.
const PIECE: usize = 16 << 10;
/// Ends whatever stands unfinished on a connection, on both kinds of it.
const BREAK: &[u8] = b"\xff\n";
const CAPABLE: &[u8] = b"{\"execute\":\"qmp_capabilities\"}\n";
const CONT: &[u8] = b"{\"execute\":\"cont\",\"id\":\"guard\"}\n";
const STATUS: &[u8] = b"{\"execute\":\"guest-fsfreeze-status\"}\n";
const THAW: &[u8] = b"{\"execute\":\"guest-fsfreeze-thaw\"}\n";

/// How long a guard tries.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// For an answer on the connection that is there.
    in_band: Duration,
    /// For a greeting and the answer on a new one.
    anew: Duration,
    /// Between two attempts.
    pause: Duration,
    /// For the machine to go on; the same again for its guest.
    limit: Duration,
}

const PACE: Pace = Pace {
    in_band: Duration::from_secs(1),
    anew: Duration::from_secs(1),
    pause: Duration::from_millis(50),
    limit: Duration::from_secs(8),
};

/// Gives a machine what it is owed.
#[must_use]
pub fn release(fence: &Fence, dues: Dues, clock: &dyn Clock) -> Freed {
    at_pace(fence, dues, clock, PACE)
}

fn at_pace(fence: &Fence, dues: Dues, clock: &dyn Clock, pace: Pace) -> Freed {
    let mut freed = Freed::default();
    if dues.goes_on {
        go_on(fence, clock, pace, &mut freed);
    }
    if dues.thaws && !freed.ended {
        let until = clock.elapsed() + pace.limit;
        thaw(fence, clock, pace, until, &mut freed);
    }
    freed
}

/// Has the machine go on: in band, which nobody else hears, then by each of its monitors in turn.
fn go_on(fence: &Fence, clock: &dyn Clock, pace: Pace, freed: &mut Freed) {
    let until = clock.elapsed() + pace.limit;
    let mut talk = Talk::over(&fence.monitor, clock, pace.in_band);
    let in_band = talk.send(&[BREAK, CONT].concat());
    match in_band.and_then(|()| talk.answer()) {
        Ok(done) => {
            freed.goes_on = done;
            return;
        }
        Err(_) => fence_off(&fence.monitor),
    }
    let mut sockets = fence.monitor_sockets.iter().cycle();
    while clock.elapsed() < until
        && let Some(socket) = sockets.next()
    {
        let reached = reach(socket, &fence.runner).and_then(|reached| {
            let Reached::It(connection) = reached else {
                return Ok(None);
            };
            let mut talk = Talk::over(&connection, clock, pace.anew);
            talk.greeting()?;
            talk.send(&[CAPABLE, CONT].concat())?;
            talk.answer().map(Some)
        });
        match reached {
            Ok(Some(done)) => {
                freed.goes_on = done;
                return;
            }
            Ok(None) => {
                freed.ended = true;
                return;
            }
            Err(_) => rest(pace.pause),
        }
    }
}

/// Thaws the guest, and waits until it says that it is.
fn thaw(fence: &Fence, clock: &dyn Clock, pace: Pace, until: Duration, freed: &mut Freed) {
    let half = pace.limit / 2; // a freeze that nobody has heard of may still be under way
    if let Some(agent) = &fence.agent {
        match thaw_on(&mut Talk::over(agent, clock, half), freed) {
            Ok(()) => return,
            Err(_) => fence_off(agent),
        }
    }
    while let Some(socket) = &fence.agent_socket
        && let Some(left) = until.checked_sub(clock.elapsed())
    {
        let thawed = reach(socket, &fence.runner).and_then(|reached| match reached {
            Reached::It(connection) => thaw_on(&mut Talk::over(&connection, clock, left), freed),
            Reached::Ended => {
                freed.ended = true;
                Ok(())
            }
        });
        match thawed {
            Ok(()) => return,
            Err(_) => rest(pace.pause),
        }
    }
}

fn thaw_on(talk: &mut Talk<'_>, freed: &mut Freed) -> io::Result<()> {
    talk.sync()?;
    let is_frozen = |talk: &mut Talk<'_>| -> io::Result<bool> {
        match talk.ask(STATUS)?.as_str() {
            Some("frozen") => Ok(true),
            Some("thawed") => Ok(false),
            _ => Err(ErrorKind::InvalidData.into()),
        }
    };
    while is_frozen(talk)? {
        // One that says so and then that it cannot be thawed was not held until now (Windows).
        freed.was_frozen = talk.ask(THAW).is_ok();
    }
    freed.is_thawed = true;
    Ok(())
}

/// Nothing that a slow process still writes arrives any more, and who is at the other end turns to the next client.
fn fence_off(connection: &OwnedFd) {
    let _gone = shutdown(connection, Shutdown::Both);
}

/// What came of an attempt to reach what was stopped.
enum Reached {
    /// It, by this connection, which does not block.
    It(OwnedFd),
    /// It has ended, whoever is there now.
    Ended,
}

/// A new connection to what was stopped.
fn reach(socket: &Path, stopped: &Runner) -> io::Result<Reached> {
    if stopped.has_ended() {
        return Ok(Reached::Ended);
    }
    let held = socket::hold(socket)?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let connection = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let place = format!("/proc/self/fd/{}", held.as_raw_fd());
    connect(&connection, &SocketAddrUnix::new(place.as_str())?)?;
    let found = Runner {
        process: Peer::at(&connection),
        has_disks: false,
        sockets: [(socket.to_owned(), socket::stamp(&held)?)].into(),
    };
    match stopped.is(&found) {
        // It lives on, and another one has bound its socket anew.
        Some(false) if stopped.lives() => Err(ErrorKind::AddrInUse.into()),
        Some(false) => Ok(Reached::Ended),
        Some(true) | None => Ok(Reached::It(connection)),
    }
}

fn rest(pause: Duration) {
    let _interrupted = poll(&mut [], Timespec::try_from(pause).ok().as_ref());
}

/// What is said on a connection, until a moment.
struct Talk<'a> {
    connection: BorrowedFd<'a>,
    clock: &'a dyn Clock,
    until: Duration,
    read: Vec<u8>,
}

/// What a line tells.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "QMP")]
    greeting: Option<IgnoredAny>,
    id: Option<Value>,
    #[serde(rename = "return")]
    returned: Option<IgnoredAny>,
    error: Option<IgnoredAny>,
}

/// What an agent answers.
#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "return")]
    returned: Value,
}

impl<'a> Talk<'a> {
    fn over(connection: &'a OwnedFd, clock: &'a dyn Clock, limit: Duration) -> Self {
        Self {
            connection: connection.as_fd(),
            clock,
            until: clock.elapsed() + limit,
            read: Vec::with_capacity(PIECE),
        }
    }

    /// Waits until it can be read or written.
    fn wait(&self, what: PollFlags) -> io::Result<()> {
        let left = self.until.checked_sub(self.clock.elapsed());
        let left = left.filter(|left| !left.is_zero());
        let left = left.ok_or(ErrorKind::TimedOut)?;
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut ready = [PollFd::from_borrowed_fd(self.connection, what)];
        match poll(&mut ready, Some(&left)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn send(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match send(
                self.connection,
                bytes,
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            ) {
                Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The next line.
    fn line(&mut self, longest: usize) -> io::Result<Vec<u8>> {
        let mut searched = 0;
        loop {
            let new = self.read.get(searched..).unwrap_or_default();
            if let Some(end) = new.iter().position(|byte| *byte == b'\n') {
                return Ok(self.read.drain(..=searched + end).collect());
            }
            searched = self.read.len();
            if searched > longest {
                return Err(ErrorKind::InvalidData.into());
            }
            self.wait(PollFlags::IN)?;
            let mut piece = [0; PIECE];
            match recv(self.connection, &mut piece, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok((read, _)) => self.read.extend(piece.iter().take(read)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Passes over everything up to the greeting.
    fn greeting(&mut self) -> io::Result<()> {
        loop {
            let line = self.line(LINE_MAX)?;
            if serde_json::from_slice(&line).is_ok_and(|line: Line| line.greeting.is_some()) {
                return Ok(());
            }
        }
    }

    /// Whether the machine goes on; it has answered then.
    fn answer(&mut self) -> io::Result<bool> {
        loop {
            let line = self.line(LINE_MAX)?;
            let Ok(line) = serde_json::from_slice::<Line>(&line) else {
                continue;
            };
            if line.id.as_ref().is_some_and(|id| id == "guard")
                && (line.returned.is_some() || line.error.is_some())
            {
                return Ok(line.error.is_none());
            }
        }
    }

    /// From here on each line answers a command of this conversation.
    fn sync(&mut self) -> io::Result<()> {
        // One that nobody else asks for; no agent takes more than 53 bits.
        let id = u64::from(process::id()) << 20 | u64::from(self.clock.elapsed().subsec_micros());
        let command = "guest-sync-delimited";
        let command = format!("{{\"execute\":\"{command}\",\"arguments\":{{\"id\":{id}}}}}\n");
        self.send(&[BREAK, command.as_bytes()].concat())?;
        loop {
            let line = self.line(AGENT_LINE_MAX)?;
            let Some(line) = line.strip_prefix(b"\xff") else {
                continue;
            };
            let answer = serde_json::from_slice::<Answer>(line);
            if answer.is_ok_and(|answer| answer.returned == id) {
                return Ok(());
            }
        }
    }

    /// What the agent answers; an error if that is one.
    fn ask(&mut self, command: &[u8]) -> io::Result<Value> {
        self.send(command)?;
        let line = self.line(AGENT_LINE_MAX)?;
        let answer = serde_json::from_slice::<Answer>(&line)?;
        Ok(answer.returned)
    }
}

#[cfg(test)]
mod tests;
