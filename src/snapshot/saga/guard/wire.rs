//! What a server and its guard say to each other: a message each, JSON and descriptors.

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::engine::{Dues, Fence, Freed, PutBack, Runner};
use crate::id::VmId;

/// The longest message: a machine with its sockets and jobs.
const LONGEST: usize = 128 << 10;
/// Descriptors in one message.
const FILES: usize = 2;

/// A machine under guard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ward {
    /// Which one.
    pub(crate) machine: VmId,
    /// Its name, for texts.
    pub(crate) name: String,
    /// What it is owed.
    pub(crate) dues: Dues,
}

/// The first message; with it goes the file of the word.
#[derive(Serialize, Deserialize)]
struct Opening {
    /// Milliseconds.
    patience: u64,
    wards: usize,
}

/// One for each machine; with it go the connections to its monitor and, if there is one, to its agent.
#[derive(Serialize, Deserialize)]
struct Handed {
    ward: Ward,
    monitor_sockets: Vec<PathBuf>,
    agent_socket: Option<PathBuf>,
    runner: Runner,
    jobs: Vec<PutBack>,
}

/// What the guard answers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// It has all, and waits.
    Ready,
    /// Why it cannot be.
    Failed(String),
}

/// What the server says later.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) enum Word {
    /// This machine is owed nothing any more.
    Free(VmId),
    /// There are no more milliseconds than this from now on.
    Within(u64),
    /// Whatever time there was, there are so many milliseconds from now on.
    Longer(u64),
    /// Time does not matter any more, only whether the server lives.
    Waits,
    /// Nor is any other: the guard is not needed any more.
    Done,
}

/// What a guard has been given.
pub(crate) struct HandedOver {
    pub(crate) word: File,
    pub(crate) patience: Duration,
    pub(crate) wards: Vec<(Ward, Fence)>,
}

/// Why a guard has let machines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Cause {
    /// The server has died.
    Died,
    /// It took too long.
    Late,
}

impl Cause {
    /// As logs tell it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Died => "died",
            Self::Late => "late",
        }
    }
}

/// What a guard has done, as it leaves it with the word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Why.
    pub(crate) cause: Cause,
    /// What came of it.
    pub(crate) wards: Vec<(Ward, Freed)>,
}

impl Report {
    /// What came of it at this machine.
    pub(crate) fn freed(&self, machine: VmId) -> Freed {
        let mut wards = self.wards.iter();
        let found = wards.find(|(ward, _)| ward.machine == machine);
        found.map(|(_, freed)| *freed).unwrap_or_default()
    }

    /// Whether the guest of the machine was seen frozen when it went on.
    pub(crate) fn was_frozen(&self, machine: VmId) -> bool {
        self.freed(machine).was_frozen
    }

    /// The machines that are stuck: they live, and have not said that they have all they are owed; by name.
    pub(crate) fn left(&self) -> Vec<String> {
        let is_left = |(ward, freed): &&(Ward, Freed)| {
            let is_owed =
                (ward.dues.goes_on && !freed.goes_on) || (ward.dues.thaws && !freed.is_thawed);
            is_owed && !freed.has_ended
        };
        let left = self.wards.iter().filter(is_left);
        left.map(|(ward, _)| ward.name.clone()).collect()
    }

    /// All of them that had not ended, by name.
    pub(crate) fn machines(&self) -> Vec<String> {
        let wards = self.wards.iter().filter(|(_, freed)| !freed.has_ended);
        wards.map(|(ward, _)| ward.name.clone()).collect()
    }
}

/// Gives the guard all that it needs. Blocks.
///
/// # Errors
/// It does not take it.
pub(super) fn hand_over(
    pair: &OwnedFd,
    word: &File,
    patience: Duration,
    wards: &[(Ward, Fence)],
) -> io::Result<()> {
    let opening = Opening {
        patience: u64::try_from(patience.as_millis()).map_err(io::Error::other)?,
        wards: wards.len(),
    };
    tell(pair, &opening, &[word.as_fd()])?;
    for (ward, fence) in wards {
        let handed = Handed {
            ward: ward.clone(),
            monitor_sockets: fence.monitor_sockets.clone(),
            agent_socket: fence.agent_socket.clone(),
            runner: fence.runner.clone(),
            jobs: fence.jobs.clone(),
        };
        let connections = [Some(&fence.monitor), fence.agent.as_ref()];
        let connections: Vec<_> = connections.iter().flatten().map(|it| it.as_fd()).collect();
        tell(pair, &handed, &connections)?;
    }
    Ok(())
}

/// Takes it.
///
/// # Errors
/// It is not all there.
pub(super) fn take_over(pair: &OwnedFd) -> io::Result<HandedOver> {
    let (opening, files): (Opening, _) = heard(pair)?;
    let word = files.into_iter().next().ok_or(ErrorKind::InvalidData)?;
    let mut wards = Vec::new();
    for _ in 0..opening.wards {
        let (handed, connections): (Handed, _) = heard(pair)?;
        let mut connections = connections.into_iter();
        let fence = Fence {
            monitor: connections.next().ok_or(ErrorKind::InvalidData)?,
            monitor_sockets: handed.monitor_sockets,
            agent: connections.next(),
            agent_socket: handed.agent_socket,
            runner: handed.runner,
            jobs: handed.jobs,
        };
        wards.push((handed.ward, fence));
    }
    Ok(HandedOver {
        word: word.into(),
        patience: Duration::from_millis(opening.patience),
        wards,
    })
}

/// Answers.
///
/// # Errors
/// Nobody is there.
pub(super) fn answer(pair: &OwnedFd, reply: &Reply) -> io::Result<()> {
    tell(pair, reply, &[])
}

/// What it has answered. Blocks.
///
/// # Errors
/// It is gone.
pub(super) fn reply(pair: &OwnedFd) -> io::Result<Reply> {
    heard(pair).map(|(reply, _)| reply)
}

/// Says so, and waits for nobody.
///
/// # Errors
/// It is gone, or does not listen.
pub(super) fn say(pair: &OwnedFd, word: &Word) -> io::Result<()> {
    tell_by(pair, word, &[], SendFlags::DONTWAIT)
}

/// What is said; nothing if the server is gone. Blocks.
pub(super) fn said(pair: &OwnedFd) -> Option<Word> {
    heard(pair).ok().map(|(word, _)| word)
}

fn tell(pair: &OwnedFd, message: &impl Serialize, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    tell_by(pair, message, files, SendFlags::empty())
}

fn tell_by(
    pair: &OwnedFd,
    message: &impl Serialize,
    files: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<()> {
    let message = serde_json::to_vec(message)?;
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(ErrorKind::InvalidInput.into());
    }
    let message = [IoSlice::new(&message)];
    let flags = flags | SendFlags::NOSIGNAL;
    let sent = rustix::io::retry_on_intr(|| sendmsg(pair, &message, &mut control, flags));
    sent.map(drop).map_err(io::Error::from)
}

fn heard<T: DeserializeOwned>(pair: &OwnedFd) -> io::Result<(T, Vec<OwnedFd>)> {
    let mut message = vec![0; LONGEST];
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let length = {
        let mut into = [IoSliceMut::new(&mut message)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let got = rustix::io::retry_on_intr(|| recvmsg(pair, &mut into, &mut control, flags));
        got?.bytes
    };
    let files = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    let files = files.flatten().collect();
    if length == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let message = message.get(..length).unwrap_or_default();
    Ok((serde_json::from_slice(message)?, files))
}
