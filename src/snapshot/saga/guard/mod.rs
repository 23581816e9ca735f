//! The guard of a window: a process of its own that lets machines go if this one dies, or stands still, while they do
//! (`docs/cut.md` §2).
//!
//! ```text
//!   server ── socket pair: word, connections, what each is owed ──▶ guard
//!          ◀─ ready ──
//!          ── done ──▶ it ends     or   end of the pair, or its time is up ──▶ word FIRED, unless CUT; all go on
//! ```
//!
//! Once it has fired it goes on until each machine has what it is owed or has ended, the server is done, or a later process
//! has taken the rest over by the word.
//!
//! This is the side of the server; `process` is the other one, `wire` what is said between the two. The guard holds a
//! lock on the file of the word as long as it lives: who recovers waits for that.

pub mod process;
pub(crate) mod wire;

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::engine::Fence;
use crate::id::VmId;
use crate::snapshot::saga::guard::wire::{Reply, Ward};
use crate::snapshot::saga::word::Word;

/// How long it may take to be ready.
const READY: Duration = Duration::from_secs(10);
/// How long it may take to end, once it is not needed any more: it may be at work, and what it hears meanwhile counts.
const ENDING: Duration = Duration::from_secs(5);
/// What the program is called with to be one.
const COMMAND: &str = "guard";

/// A guard that is ready. Dropping it has it let all machines go.
#[derive(Debug)]
pub(crate) struct Guard {
    child: Child,
    pair: OwnedFd,
    /// The machines, and whether an undo may leave a job at one.
    machines: Vec<VmId>,
    has_jobs: bool,
}

impl Guard {
    /// Has `program` be the guard of these machines for so long. Blocks until it is ready.
    ///
    /// # Errors
    /// It does not get ready; why.
    pub(crate) fn start(
        program: &Path,
        word: &Word,
        patience: Duration,
        wards: &[(Ward, Fence)],
    ) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let (pair, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let child = Command::new(program)
            .arg(COMMAND)
            .current_dir("/") // it keeps no folder in use
            .stdin(other)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut guard = Self {
            child,
            pair,
            machines: wards.iter().map(|(ward, _)| ward.machine).collect(),
            has_jobs: wards.iter().any(|(_, fence)| !fence.jobs.is_empty()),
        };
        let ready = guard.hand_over(word, patience, wards);
        if let Err(error) = ready {
            guard.end();
            return Err(error);
        }
        Ok(guard)
    }

    fn hand_over(
        &self,
        word: &Word,
        patience: Duration,
        wards: &[(Ward, Fence)],
    ) -> io::Result<()> {
        wire::hand_over(&self.pair, word.file(), patience, wards)?;
        if !is_readable(&self.pair, READY)? {
            return Err(ErrorKind::TimedOut.into());
        }
        match wire::reply(&self.pair)? {
            Reply::Ready => Ok(()),
            Reply::Failed(cause) => Err(io::Error::other(cause)),
        }
    }

    /// Whether it has ended, by itself or by another one's hand.
    pub(crate) fn is_gone(&mut self) -> bool {
        // It is a child of this process, so nobody else has its pid until it is asked for.
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// There is no more time than this from now on.
    pub(crate) fn within(&self, patience: Duration) {
        let patience = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        let _gone = wire::say(&self.pair, &wire::Word::Within(patience));
    }

    /// All machines go on, and what was made for them is about to be undone: if this process dies meanwhile, it is left to
    /// end what an undo has at work. Whether there can be anything.
    pub(crate) fn watches_undo(&self) -> bool {
        if self.has_jobs {
            self.free(self.machines.iter().copied());
            let _gone = wire::say(&self.pair, &wire::Word::Waits);
        }
        self.has_jobs
    }

    /// These machines are owed nothing any more, whatever becomes of the others.
    pub(crate) fn free(&self, machines: impl IntoIterator<Item = VmId>) {
        for machine in machines {
            let _gone = wire::say(&self.pair, &wire::Word::Free(machine));
        }
    }

    /// The window has failed, and this process lets machines go itself: it has so much time for that from now on.
    pub(crate) fn longer(&self, patience: Duration) {
        let patience = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        let _gone = wire::say(&self.pair, &wire::Word::Longer(patience));
    }

    /// It is not needed any more. Blocks until it has ended.
    pub(crate) fn disarm(mut self) {
        let _gone = wire::say(&self.pair, &wire::Word::Done);
        let ended = is_readable(&self.pair, ENDING); // it has closed its end
        if !matches!(ended, Ok(true)) {
            tracing::warn!(pid = self.child.id(), "The guard does not end by itself");
        }
        self.end();
    }

    fn end(&mut self) {
        let killed = self.child.kill();
        if let Err(error) = killed.and_then(|()| self.child.wait()) {
            tracing::warn!(%error, "The guard cannot be ended");
        }
    }
}

/// Whether something can be read, or it has ended, within this time.
fn is_readable(pair: &OwnedFd, limit: Duration) -> io::Result<bool> {
    let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
    loop {
        match poll(&mut [PollFd::new(pair, PollFlags::IN)], Some(&limit)) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
