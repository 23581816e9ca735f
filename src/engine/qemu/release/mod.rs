//! What a guard does at one machine when the process that has stopped it cannot: the machine goes on, then its guest is
//! thawed (`docs/cut.md` §2).
//!
//! It blocks, by `poll`, and needs little memory. The connections are shared with the process that made them, and so is
//! whether they block: that is never changed. A command goes in band first, on the connection that is there: whoever
//! reaches a monitor anew lets in first who waits there already, and the machine would go on standing.
//!
//! It goes on until the machine has said that it runs and its guest that it is thawed, however long that takes, unless the
//! process of the machine ends or it is not needed any more. A machine that runs while a job of ours waits for its last
//! step does not go on either: nothing is written to its disk.

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
use serde_json::{Value, json};

use crate::clock::Clock;
use crate::engine::{Dues, Fence, Freed, PutBack, Runner};
use crate::inventory::{RunState, Trouble};

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
/// What a command and its answer are called.
const GO_ON: &str = "guard-cont";
const STATE: &str = "guard-status";
const JOBS: &str = "guard-jobs";
const JOB: &str = "guard-job";
const STATUS: &[u8] = b"{\"execute\":\"guest-fsfreeze-status\"}\n";
const THAW: &[u8] = b"{\"execute\":\"guest-fsfreeze-thaw\"}\n";

/// Waits so long, at most, and tells whether the machine is still owed anything by this process.
pub type Needed<'a> = &'a dyn Fn(Duration) -> bool;

/// How patiently a guard tries.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// For an answer on the connection that is there.
    in_band: Duration,
    /// For a greeting and the answer on a new one.
    anew: Duration,
    /// For a guest: a freeze that nobody has heard of may still be under way.
    guest: Duration,
    /// Between two attempts: the first pause, and the longest.
    pause: (Duration, Duration),
}

const PACE: Pace = Pace {
    in_band: Duration::from_secs(1),
    anew: Duration::from_secs(1),
    guest: Duration::from_secs(4),
    pause: (Duration::from_millis(50), Duration::from_secs(1)),
};

/// Gives a machine what it is owed.
#[must_use]
pub fn release(fence: &Fence, dues: Dues, clock: &dyn Clock, needed: Needed<'_>) -> Freed {
    at_pace(fence, dues, clock, needed, PACE)
}

fn at_pace(fence: &Fence, dues: Dues, clock: &dyn Clock, needed: Needed<'_>, pace: Pace) -> Freed {
    let mut freed = Freed::default();
    let mut work = Work {
        fence,
        clock,
        needed,
        pace,
        is_closed: false,
        refused: 0,
        has_ended: false,
    };
    if dues.goes_on || !fence.jobs.is_empty() {
        work.go_on(dues.goes_on, &mut freed);
    }
    if dues.thaws && !work.has_ended {
        work.thaw(&mut freed);
    }
    freed.has_ended = !work.lives();
    freed
}

/// What a machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// It goes on.
    Runs,
    /// Not yet.
    Waits,
    /// It stands still for a reason of its own.
    Stands,
    /// Nothing any more.
    Ended,
}

/// The work on one machine.
struct Work<'a> {
    fence: &'a Fence,
    clock: &'a dyn Clock,
    needed: Needed<'a>,
    pace: Pace,
    /// The connection that was there had been closed by the other side.
    is_closed: bool,
    /// So many attempts in a row found nobody at a socket.
    refused: usize,
    /// What was stopped has ended, whoever is at its sockets now.
    has_ended: bool,
}

impl Work<'_> {
    /// Has the machine go on: in band, then by each of its monitors in turn.
    fn go_on(&mut self, resumes: bool, freed: &mut Freed) {
        let mut sockets = self.fence.monitor_sockets.iter().cycle();
        let (mut is_in_band, mut pause) = (true, self.pace.pause.0);
        loop {
            let seen = if is_in_band {
                let mut talk = Talk::over(&self.fence.monitor, self.clock, self.pace.in_band);
                let seen = talk
                    .send(BREAK)
                    .and_then(|()| talk.have_go_on(resumes, &self.fence.jobs, freed));
                if let Err(error) = &seen {
                    self.is_closed = is_end(error);
                    is_in_band = false;
                    fence_off(&self.fence.monitor);
                }
                seen
            } else {
                let Some(socket) = sockets.next() else {
                    return;
                };
                let reached = reach(socket, &self.fence.runner);
                self.note(&reached);
                reached.and_then(|reached| {
                    let Reached::It(connection) = reached else {
                        return Ok(Seen::Ended);
                    };
                    let mut talk = Talk::over(&connection, self.clock, self.pace.anew);
                    talk.greeting()?;
                    talk.send(CAPABLE)?;
                    talk.have_go_on(resumes, &self.fence.jobs, freed)
                })
            };
            match seen {
                Ok(Seen::Runs) => {
                    freed.goes_on = resumes;
                    return;
                }
                Ok(Seen::Stands) => return,
                Ok(Seen::Ended) => {
                    self.has_ended = true;
                    return;
                }
                Ok(Seen::Waits) | Err(_) => {}
            }
            if !self.rest(&mut pause) {
                return;
            }
        }
    }

    /// Thaws the guest, and waits until it says that it is.
    fn thaw(&mut self, freed: &mut Freed) {
        let mut pause = self.pace.pause.0;
        let mut in_band = self.fence.agent.as_ref();
        loop {
            let thawed = match (in_band.take(), &self.fence.agent_socket) {
                (Some(agent), _) => {
                    let thawed = self.thaw_on(agent, freed);
                    if thawed.is_err() {
                        fence_off(agent);
                    }
                    thawed
                }
                (None, Some(socket)) => match reach(socket, &self.fence.runner) {
                    Ok(Reached::It(connection)) => self.thaw_on(&connection, freed),
                    Ok(Reached::Ended) => {
                        self.has_ended = true;
                        return;
                    }
                    Err(error) => Err(error),
                },
                (None, None) => return,
            };
            if thawed.is_ok() || !self.rest(&mut pause) {
                return;
            }
        }
    }

    fn thaw_on(&self, agent: &OwnedFd, freed: &mut Freed) -> io::Result<()> {
        let mut talk = Talk::over(agent, self.clock, self.pace.guest);
        talk.sync()?;
        let mut pause = self.pace.pause.0;
        while talk.is_frozen()? {
            // One that says so and then that it cannot be thawed was not held until now (Windows).
            freed.was_frozen = talk.ask(THAW).is_ok();
            if !talk.is_frozen()? {
                break;
            }
            if !self.rest(&mut pause) {
                return Err(ErrorKind::Interrupted.into());
            }
            talk.until = self.clock.elapsed() + self.pace.guest;
        }
        freed.is_thawed = true;
        Ok(())
    }

    /// Waits before the next attempt, longer each time; whether there is to be one.
    fn rest(&self, pause: &mut Duration) -> bool {
        let goes_on = self.lives() && (self.needed)(*pause);
        *pause = (*pause * 2).min(self.pace.pause.1);
        goes_on
    }

    fn note(&mut self, reached: &io::Result<Reached>) {
        let nobody = [ErrorKind::NotFound, ErrorKind::ConnectionRefused];
        match reached {
            Err(error) if nobody.contains(&error.kind()) => self.refused += 1,
            _ => self.refused = 0,
        }
    }

    /// Whether anything may still run the machine. The process that the kernel tells may be that of a manager, which has
    /// made the socket.
    fn lives(&self) -> bool {
        let runner = &self.fence.runner;
        if self.has_ended || runner.has_ended() {
            return false;
        }
        let is_left = self.refused >= self.fence.monitor_sockets.len();
        match &runner.process {
            _ if runner.lives() => true,
            Some(process) if process.lives() => !(self.is_closed && is_left),
            _ => !is_left || (self.refused == 0 && !self.is_closed),
        }
    }
}

/// Whether the other side has closed the connection.
fn is_end(error: &io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionReset, NotConnected, UnexpectedEof};
    [UnexpectedEof, BrokenPipe, ConnectionReset, NotConnected].contains(&error.kind())
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
    id: Option<String>,
    #[serde(rename = "return")]
    returned: Option<IgnoredAny>,
    error: Option<IgnoredAny>,
}

/// What a monitor answers.
#[derive(Deserialize)]
struct Told<T> {
    #[serde(rename = "return")]
    returned: T,
}

#[derive(Deserialize)]
struct Status {
    status: String,
}

#[derive(Deserialize)]
struct Job {
    id: String,
    status: String,
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

    /// The answer to the command of this name; nothing if it was refused.
    fn answer(&mut self, id: &str) -> io::Result<Option<Vec<u8>>> {
        loop {
            let bytes = self.line(LINE_MAX)?;
            let Ok(line) = serde_json::from_slice::<Line>(&bytes) else {
                continue;
            };
            if line.id.as_deref() != Some(id) {
                continue;
            }
            match (line.error, line.returned) {
                (Some(_), _) => return Ok(None),
                (None, Some(_)) => return Ok(Some(bytes)),
                (None, None) => {}
            }
        }
    }

    /// Has the machine go on, and asks what it does then.
    fn have_go_on(
        &mut self,
        resumes: bool,
        jobs: &[PutBack],
        freed: &mut Freed,
    ) -> io::Result<Seen> {
        let mut asked = String::new();
        if resumes {
            asked += &command("cont", GO_ON);
        }
        asked += &command("query-status", STATE);
        if !jobs.is_empty() {
            asked += &command("query-jobs", JOBS);
        }
        self.send(asked.as_bytes())?; // in one piece
        let state = self.answer(STATE)?.as_deref().map(told::<Status>);
        let state = state.transpose()?.map(|it| RunState::of_status(&it.status));
        let is_blocked = !jobs.is_empty() && self.unblock(jobs, freed)?;
        Ok(match state {
            _ if is_blocked => Seen::Waits, // it is looked at once more
            Some(RunState::Running) => Seen::Runs,
            _ if !resumes => Seen::Runs, // it is owed nothing else
            Some(RunState::Troubled(trouble)) if trouble != Trouble::Prelaunch => Seen::Stands,
            _ => Seen::Waits,
        })
    }

    /// Ends those of these jobs that wait for their last step, by what is noted of each; whether there were any.
    fn unblock(&mut self, jobs: &[PutBack], freed: &mut Freed) -> io::Result<bool> {
        let all = self.answer(JOBS)?.as_deref().map(told::<Vec<Job>>);
        let all = all.transpose()?.unwrap_or_default();
        let pending = |it: &&PutBack| {
            let mut all = all.iter();
            all.any(|job| job.id == it.job && job.status == "pending")
        };
        let mut found = false;
        for job in jobs.iter().filter(pending) {
            let verb = match job.is_noted()? {
                true => "job-finalize",
                false => "job-cancel",
            };
            let line = json!({"execute": verb, "arguments": {"id": job.job}, "id": JOB});
            self.send(format!("{line}\n").as_bytes())?;
            self.answer(JOB)?; // one that is refused is not where it was
            (found, freed.was_blocked) = (true, true);
        }
        Ok(found)
    }

    fn is_frozen(&mut self) -> io::Result<bool> {
        match self.ask(STATUS)?.as_str() {
            Some("frozen") => Ok(true),
            Some("thawed") => Ok(false),
            _ => Err(ErrorKind::InvalidData.into()),
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

/// A command without arguments, by this name.
fn command(execute: &str, id: &str) -> String {
    format!("{}\n", json!({"execute": execute, "id": id}))
}

/// What an answer tells.
fn told<T: serde::de::DeserializeOwned>(line: &[u8]) -> io::Result<T> {
    let told = serde_json::from_slice::<Told<T>>(line);
    Ok(told.map_err(|_| ErrorKind::InvalidData)?.returned)
}

#[cfg(test)]
mod tests;
