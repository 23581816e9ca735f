//! What a connection is doing and since when, so that one that does nothing can be closed.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::Limits;
use super::follow::Follower;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// Between two requests, or sending an answer.
    Idle,
    /// In the header of a request; a new connection is here too.
    Header,
    /// In the body of a request or at its answer; that has limits of its own.
    Busy,
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
    follower: Follower,
    /// Requests that have been looked at.
    requests: u64,
}

impl Now {
    fn set(&mut self, doing: Doing) {
        (self.doing, self.since) = (doing, Instant::now());
    }
}

impl Phase {
    pub(super) fn new() -> Self {
        Self {
            now: Mutex::new(Now {
                doing: Doing::Header,
                since: Instant::now(),
                follower: Follower::default(),
                requests: 0,
            }),
        }
    }

    /// A request's header is complete.
    pub(super) fn busy(&self) {
        let mut now = self.get();
        now.requests = now.requests.saturating_add(1);
        now.set(Doing::Busy);
    }

    /// A request has its answer; of its body something may still be to come.
    pub(super) fn idle(&self) {
        let mut now = self.get();
        let left = now.follower.is_in_body();
        now.set(if left { Doing::Rest } else { Doing::Idle });
    }

    /// Has it been at this for too long?
    pub(super) fn is_overdue(&self, limits: &Limits) -> bool {
        let now = self.get();
        let most = match now.doing {
            Doing::Idle => limits.idle,
            Doing::Header => limits.header,
            Doing::Rest => limits.packet_retrieval,
            Doing::Busy => return false,
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
        now.doing == Doing::Busy && now.since.elapsed() <= most
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
    fn received(&self, octets: &[u8]) {
        let mut now = self.get();
        now.follower.take(octets);
        match now.doing {
            Doing::Idle => now.set(Doing::Header),
            Doing::Rest if now.follower.is_between() => now.set(Doing::Idle),
            Doing::Rest if !now.follower.is_in_body() => now.set(Doing::Header),
            Doing::Rest | Doing::Header | Doing::Busy => {}
        }
    }

    fn sent(&self) {
        let mut now = self.get();
        if now.doing == Doing::Idle {
            now.since = Instant::now();
        }
    }

    fn get(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        self.phase.sent();
        Poll::Ready(Ok(n))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.socket).poll_write_vectored(cx, bufs))?;
        self.phase.sent();
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
