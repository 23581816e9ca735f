//! What a connection is doing and since when, so that one that does nothing can be closed.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::TransportLimits;
use super::follow::Follower;

/// Octets a second that a user's client takes or sends at the least, unless it is slow.
const SLOW: u64 = 4096;
/// Between two requests for so long, a connection is idle; before, the next request may be on its way.
const RESTS: Duration = Duration::from_secs(1);

/// How readily a connection gives way to others: the first is the one that goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pace {
    /// It sends or takes so many octets a second, fewer than [`SLOW`].
    Slow(u64),
    /// Between two requests for a while.
    Idle,
    /// It sends or takes so many octets a second.
    Moving(u64),
    /// Between two requests since a moment ago.
    JustIdle,
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// Between two requests.
    Idle,
    /// In the header of a request; a new connection is here too.
    Header,
    /// In the body of a request, which is waited for; that has limits of its own.
    Body,
    /// At the answer to a request.
    Busy,
    /// Sending an answer.
    Answer,
    /// In the body of a request that has its answer.
    Rest,
}

/// Shared by the connection's socket and its requests.
#[derive(Debug)]
pub(super) struct Phase {
    now: Mutex<Now>,
}

#[derive(Debug)]
struct Now {
    doing: Doing,
    since: Instant,
    /// Octets that have come since then, of an answer those that have gone.
    moved: u64,
    follower: Follower,
    /// Requests that have been looked at.
    requests: u64,
}

impl Now {
    fn set(&mut self, doing: Doing) {
        (self.doing, self.since, self.moved) = (doing, Instant::now(), 0);
    }

    /// Behind what `Doing` was: whatever the octets that have come say.
    fn next(&mut self) {
        let between = self.follower.is_between();
        self.set(if between { Doing::Idle } else { Doing::Header });
    }
}

impl Phase {
    pub(super) fn new() -> Self {
        Self {
            now: Mutex::new(Now {
                doing: Doing::Header,
                since: Instant::now(),
                moved: 0,
                follower: Follower::default(),
                requests: 0,
            }),
        }
    }

    /// A request's header is complete.
    pub(super) fn begin(&self) {
        let mut now = self.get();
        now.requests = now.requests.saturating_add(1);
        now.set(Doing::Busy);
    }

    /// Its body is waited for.
    pub(super) fn reading(&self) {
        self.get().set(Doing::Body);
    }

    /// The body is there.
    pub(super) fn working(&self) {
        self.get().set(Doing::Busy);
    }

    /// A request has its answer; of its body something may still be to come.
    pub(super) fn answering(&self) {
        let mut now = self.get();
        let left = now.follower.is_in_body();
        now.set(if left { Doing::Rest } else { Doing::Answer });
    }

    /// Has it been at this for too long?
    pub(super) fn is_overdue(&self, limits: &TransportLimits) -> bool {
        let now = self.get();
        let most = match now.doing {
            Doing::Idle => limits.idle,
            Doing::Header => limits.header,
            Doing::Rest => limits.body(now.moved),
            // What goes on as slowly as a body may come is not taken.
            Doing::Answer => limits.idle.saturating_add(limits.at_rate(now.moved)),
            Doing::Body | Doing::Busy => return false,
        };
        now.since.elapsed() >= most
    }

    /// Before the end of a request's header?
    pub(super) fn is_in_header(&self) -> bool {
        self.get().doing == Doing::Header
    }

    /// In a request that has been looked at for no longer than this?
    pub(super) fn is_busy_since(&self, most: Duration) -> bool {
        let now = self.get();
        matches!(now.doing, Doing::Busy | Doing::Body) && now.since.elapsed() <= most
    }

    /// How readily it gives way to others, and since when it is so. `None` of one that the server itself keeps waiting, or
    /// that has sent or taken something for no longer than `most`.
    pub(super) fn pace(&self, most: Duration) -> Option<(Pace, Instant)> {
        let now = self.get();
        let lasts = now.since.elapsed();
        let pace = match now.doing {
            Doing::Idle if lasts >= RESTS => Some(Pace::Idle),
            Doing::Idle => Some(Pace::JustIdle),
            Doing::Busy => None,
            Doing::Header | Doing::Body | Doing::Answer | Doing::Rest => {
                (lasts > most).then(|| match now.moved / lasts.as_secs().max(1) {
                    rate if rate < SLOW => Pace::Slow(rate),
                    rate => Pace::Moving(rate),
                })
            }
        };
        pace.map(|pace| (pace, now.since))
    }

    /// How long it has waited between two requests, if it does.
    pub(super) fn idle_for(&self) -> Option<Duration> {
        let now = self.get();
        (now.doing == Doing::Idle).then(|| now.since.elapsed())
    }

    /// Does the header of the request that is looked at say in two ways how long the body is?
    pub(super) fn has_two_lengths(&self) -> bool {
        let now = self.get();
        now.follower.is_bad(now.requests)
    }

    /// These octets came.
    pub(super) fn received(&self, octets: &[u8]) {
        let mut now = self.get();
        now.follower.take(octets);
        match now.doing {
            Doing::Idle => now.set(Doing::Header),
            Doing::Rest if !now.follower.is_in_body() => now.next(),
            Doing::Answer => return,
            Doing::Rest | Doing::Header | Doing::Body | Doing::Busy => {}
        }
        now.moved = now.moved.saturating_add(number(octets.len()));
    }

    fn sent(&self, octets: usize) {
        let mut now = self.get();
        match now.doing {
            Doing::Idle => now.since = Instant::now(),
            Doing::Answer => now.moved = now.moved.saturating_add(number(octets)),
            Doing::Header | Doing::Body | Doing::Busy | Doing::Rest => {}
        }
    }

    /// Nothing is left to be sent.
    pub(super) fn flushed(&self) {
        let mut now = self.get();
        if now.doing == Doing::Answer {
            now.next();
        }
    }

    fn get(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn number(octets: usize) -> u64 {
    u64::try_from(octets).unwrap_or(u64::MAX)
}

/// A socket that reports its traffic to the phase.
#[derive(Debug)]
pub(super) struct Watched<S> {
    socket: S,
    phase: Arc<Phase>,
}

impl<S> Watched<S> {
    pub(super) fn new(socket: S, phase: Arc<Phase>) -> Self {
        Self { socket, phase }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        if let Some(octets) = buf.filled().get(before..).filter(|o| !o.is_empty()) {
            self.phase.received(octets);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.socket).poll_write(cx, buf))?;
        self.phase.sent(n);
        Poll::Ready(Ok(n))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.socket).poll_write_vectored(cx, bufs))?;
        self.phase.sent(n);
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        // hyper has written all that it had when it asks for this.
        self.phase.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
