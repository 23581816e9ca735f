//! One connection: hyper reads and writes; here are its time limits, eviction and the stop of the server.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::TransportLimits;
use super::connection::Connection;
use super::phase::Watched;

/// Headers of a request; more are answered 431.
const HEADERS: usize = 64;

/// Octets of a request's header; more are answered 431. Kerberos tickets take up to 64 KiB as base64.
const BUFFER: usize = 96 << 10;

/// Request Timeout: what a closed connection counts as in the log. No client is told.
const SLOW: u16 = 408;

/// The two ways a connection is told to go: `stop` after the running request, `kill` at once.
#[derive(Debug, Clone)]
pub(super) struct Ends {
    pub(super) stop: CancellationToken,
    pub(super) kill: CancellationToken,
}

/// Serves the connection until either side closes it, it is evicted, or the server stops.
pub(super) async fn serve<S>(socket: S, it: Connection, ends: Ends)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = it.shared.limits;
    let phase = Arc::clone(&it.place.phase);
    let leave = it.place.leave.clone();
    let watched = Watched::new(socket, Arc::clone(&phase));
    let it = Arc::new(it);
    let told = Arc::clone(&it);
    let service = service_fn(move |request| {
        let it = Arc::clone(&it);
        async move { Ok::<_, Infallible>(it.answer(request).await) }
    });
    // Not `pipeline_flush`: with it hyper never sends its 400 to a header that it cannot parse.
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .half_close(true)
        .max_headers(HEADERS)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(watched), service);
    let mut connection = pin!(connection);
    let mut stop = pin!(ends.stop.cancelled());
    let mut kill = pin!(ends.kill.cancelled());
    let mut leave = pin!(leave.cancelled());
    let mut ticks = tokio::time::interval(tick(&limits));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stopping = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => return log(&told, ended),
            () = &mut stop, if !stopping => {
                stopping = true;
                // Nobody waits for a request that may never be complete.
                if phase.is_in_header() {
                    return;
                }
                connection.as_mut().graceful_shutdown();
            }
            () = &mut kill => return,
            () = &mut leave => return,
            _ = ticks.tick() => if phase.is_overdue(&limits) {
                if phase.is_in_header() {
                    told.tell_end(SLOW, &"its header takes too long");
                }
                return;
            },
        }
    }
}

/// How often the clocks are looked at: often enough to be right within a quarter of a limit.
fn tick(limits: &TransportLimits) -> Duration {
    (limits.header.min(limits.idle) / 4).max(Duration::from_millis(10))
}

/// A header that cannot be read is told of; a client that goes away is worth a line only to whoever looks for it.
fn log(it: &Connection, ended: hyper::Result<()>) {
    let Err(error) = ended else { return };
    match error {
        error if error.is_parse_too_large() => it.tell_end(431, &error),
        error if error.is_parse() => it.tell_end(400, &error),
        error => tracing::debug!(%error, "connection"),
    }
}
