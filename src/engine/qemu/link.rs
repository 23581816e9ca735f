//! What is asked of a QEMU over the connection that its watch holds, as QEMU lets in one client at a time: requests wait for
//! their turn there, and what others do to the machine meanwhile is told apart from what was asked for.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::engine::{Event, Runner};

use super::answer::Answer;
use super::peer::Peer;
use super::qmp::{Command, Error, Monitor};

/// Most requests that are under way, and as many wait. Nobody of ours has more than a few for one machine.
const TURNS_MAX: usize = 16;

/// Commands of one request.
pub(super) struct Request {
    commands: Vec<Command>,
    answer: oneshot::Sender<Result<Vec<Answer>, Error>>,
}

/// The way to a QEMU, as long as its monitor is held.
#[derive(Debug)]
pub(crate) struct Link {
    requests: mpsc::Sender<Request>,
    own: OwnedFd,
    /// Its process, where the kernel tells.
    pub(super) peer: Option<Peer>,
    /// The same with the socket, as far as one connection tells.
    pub(super) runner: Runner,
    /// Where it was connected to.
    pub(super) socket: PathBuf,
}

impl Link {
    /// To this monitor, and what is asked of it.
    pub(super) fn of(
        monitor: &Monitor,
        socket: PathBuf,
    ) -> io::Result<(Self, mpsc::Receiver<Request>)> {
        let (requests, asked) = mpsc::channel(TURNS_MAX);
        let link = Self {
            requests,
            own: monitor.duplicate()?,
            peer: monitor.peer().cloned(),
            runner: Runner {
                process: monitor.peer().cloned(),
                has_disks: false,
                sockets: [(socket.clone(), monitor.stamp())].into(),
            },
            socket,
        };
        Ok((link, asked))
    }

    /// Has commands carried out one right after the other, sent in one piece; their answers in order. If this is given up
    /// before, they may be carried out all the same.
    ///
    /// # Errors
    /// The first that was refused, once all are answered; or [`Error::Late`], or the connection is gone.
    pub(super) async fn ask(
        &self,
        commands: Vec<Command>,
        limit: Duration,
    ) -> Result<Vec<Answer>, Error> {
        let first = commands.first().map_or("", |(name, _)| name);
        let (answer, answered) = oneshot::channel();
        let request = Request { commands, answer };
        let work = async {
            let sent = self.requests.send(request).await;
            sent.map_err(|_| Error::Closed)?;
            answered.await.unwrap_or(Err(Error::Closed))
        };
        let done = timeout(limit, work).await;
        done.unwrap_or(Err(Error::Late(first)))
    }

    /// Ends the connection for everybody who has it, so that QEMU lets in the next one.
    pub(super) fn end(&self) {
        let _gone = rustix::net::shutdown(&self.own, rustix::net::Shutdown::Both);
    }

    /// Another descriptor of the connection, which stays open as long as that does.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.own.try_clone()
    }
}

/// The requests that were sent and are not answered whole.
#[derive(Default)]
pub(super) struct Turns(VecDeque<Turn>);

struct Turn {
    /// The id of the command that is answered next.
    next: u64,
    /// Those that are not answered.
    left: VecDeque<&'static str>,
    /// What the next of them brings about has come.
    is_told: bool,
    answers: Vec<Answer>,
    refused: Option<Error>,
    answer: oneshot::Sender<Result<Vec<Answer>, Error>>,
}

impl Turns {
    /// Whether another request may be sent.
    pub(super) fn have_room(&self) -> bool {
        self.0.len() < TURNS_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether anybody waits for an answer.
    pub(super) fn are_awaited(&self) -> bool {
        self.0.iter().any(|turn| !turn.answer.is_closed())
    }

    /// Sends a request, unless nobody waits for it any more.
    ///
    /// # Errors
    /// The connection is gone.
    pub(super) async fn send(
        &mut self,
        monitor: &mut Monitor,
        request: Request,
    ) -> Result<(), Error> {
        if request.answer.is_closed() {
            return Ok(());
        }
        let next = monitor.tell(&request.commands).await?;
        let left: VecDeque<_> = request.commands.into_iter().map(|(name, _)| name).collect();
        self.0.push_back(Turn {
            next,
            left,
            is_told: false,
            answers: Vec::new(),
            refused: None,
            answer: request.answer,
        });
        Ok(())
    }

    /// Takes the answer to a command, which come in the order of the commands.
    ///
    /// # Errors
    /// One of those before is missing: somebody else who has the connection has read it.
    pub(super) fn take(&mut self, id: u64, answer: Result<Answer, String>) -> Result<(), Error> {
        let turn = match self.0.front_mut() {
            Some(turn) if turn.next == id => turn,
            Some(turn) if turn.next < id => return Err(Error::Closed),
            _ => return Ok(()),
        };
        turn.next += 1;
        turn.is_told = false;
        let name = turn.left.pop_front().unwrap_or_default();
        match answer {
            Ok(answer) => turn.answers.push(answer),
            Err(why) => {
                turn.refused.get_or_insert(Error::Refused(name, why));
            }
        }
        if turn.left.is_empty()
            && let Some(turn) = self.0.pop_front()
        {
            let done = turn.refused.map_or(Ok(turn.answers), Err);
            let _nobody_waits = turn.answer.send(done);
        }
        Ok(())
    }

    /// What somebody else has done to the machine, if it is that of which an event of this name tells. What a command brings
    /// about is told before it is answered, and after all that came before it.
    pub(super) fn foreign(&mut self, name: &str) -> Option<Event> {
        let event = match name {
            "STOP" => Event::Stopped,
            "RESUME" => Event::Resumed,
            "RESET" => Event::Reset,
            "SHUTDOWN" => Event::ShutDown,
            _ => return None,
        };
        let brings = |turn: &&mut Turn| {
            let next = turn.left.front();
            !turn.is_told && next.and_then(|next| brought_by(next)) == Some(name)
        };
        match self.0.front_mut().filter(brings) {
            Some(ours) => {
                ours.is_told = true;
                None
            }
            None => Some(event),
        }
    }
}

/// The event of what a command does.
fn brought_by(command: &str) -> Option<&'static str> {
    match command {
        "stop" => Some("STOP"),
        "cont" => Some("RESUME"),
        _ => None,
    }
}
