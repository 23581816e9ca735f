//! What a connection is doing and since when, so that one that does nothing can be closed.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::Limits;
use super::lengths::Lengths;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// Between two requests, or sending an answer.
    Idle,
    /// In the header of a request; a new connection is here too.
    Header,
    /// In the body of a request or at its answer; that has limits of its own.
    Busy,
}

/// Shared by the connection's socket and its requests.
#[derive(Debug)]
pub(super) struct Phase {
    now: Mutex<(Doing, Instant)>,
    /// The header of this request has two lengths.
    two_lengths: AtomicBool,
}

impl Phase {
    pub(super) fn new() -> Self {
        Self {
            now: Mutex::new((Doing::Header, Instant::now())),
            two_lengths: AtomicBool::new(false),
        }
    }

    /// A request's header is complete.
    pub(super) fn busy(&self) {
        *self.get() = (Doing::Busy, Instant::now());
    }

    /// A request has its answer.
    pub(super) fn idle(&self) {
        *self.get() = (Doing::Idle, Instant::now());
    }

    /// Has it been at this for too long?
    pub(super) fn is_overdue(&self, limits: &Limits) -> bool {
        let (doing, since) = *self.get();
        match doing {
            Doing::Idle => since.elapsed() >= limits.idle,
            Doing::Header => since.elapsed() >= limits.header,
            Doing::Busy => false,
        }
    }

    /// Before the end of a request's header?
    pub(super) fn is_in_header(&self) -> bool {
        self.get().0 == Doing::Header
    }

    /// In a request that has been looked at for no longer than this?
    pub(super) fn is_busy_since(&self, most: Duration) -> bool {
        let (doing, since) = *self.get();
        doing == Doing::Busy && since.elapsed() <= most
    }

    /// How long it has waited between two requests, if it does.
    pub(super) fn idle_for(&self) -> Option<Duration> {
        let (doing, since) = *self.get();
        (doing == Doing::Idle).then(|| since.elapsed())
    }

    /// Does the request's header say in two ways how long the body is? Seen where the header did not come
    /// together with the request before it.
    pub(super) fn has_two_lengths(&self) -> bool {
        self.two_lengths.load(Ordering::SeqCst)
    }

    /// These octets came; `lengths` are of the header that is read.
    fn received(&self, octets: &[u8], lengths: &mut Lengths) {
        let mut now = self.get();
        if now.0 == Doing::Idle {
            *now = (Doing::Header, Instant::now());
            *lengths = Lengths::default();
        }
        if now.0 == Doing::Header {
            let two = lengths.are_two(octets);
            self.two_lengths.store(two, Ordering::SeqCst);
        }
    }

    fn sent(&self) {
        let mut now = self.get();
        if now.0 == Doing::Idle {
            now.1 = Instant::now();
        }
    }

    fn get(&self) -> MutexGuard<'_, (Doing, Instant)> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket that reports its traffic to the phase.
#[derive(Debug)]
pub(super) struct Watched<S> {
    socket: S,
    phase: Arc<Phase>,
    lengths: Lengths,
}

impl<S> Watched<S> {
    pub(super) fn new(socket: S, phase: Arc<Phase>) -> Self {
        Self {
            socket,
            phase,
            lengths: Lengths::default(),
        }
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
        let this = &mut *self;
        if let Some(octets) = buf.filled().get(before..).filter(|o| !o.is_empty()) {
            this.phase.received(octets, &mut this.lengths);
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
