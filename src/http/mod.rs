//! HTTP/1.1: listener, connections, and what is decided before a message reaches its [`Handler`].
//!
//! ```text
//!   listener ─▶ [handshake (TLS)] ─▶ serving (hyper, time limits)
//!                                                │ 431 by hyper
//!                                                ▼
//!            connection: framing, origin, Host, path, method, user, body, media type
//!                                                │ refusal: 400 401 403 404 405 413 415 500 503
//!                                                ▼
//!                                          Handler (Caller, Message) ─▶ Answer: 200 or 500
//! ```
//!
//! Nothing here knows SOAP. There is no HTTP/2 (T-11). Every request is authenticated by itself; only a client
//! certificate belongs to the connection.
//!
//! [`Handler`]: crate::handler::Handler

mod body;
mod connection;
mod follow;
mod handshake;
mod listener;
mod origin;
mod phase;
mod places;
mod refusal;
mod reply;
mod serving;
pub mod settings;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::audit::Audit;

pub use listener::{EXTRA_SOCKETS, Listener, serve, serve_all};
pub use origin::{NoOrigin, Origin};

/// What listeners are run with.
#[derive(Clone, Default)]
pub struct TransportSettings {
    /// How much a client may ask of the transport.
    pub limits: TransportLimits,
    /// Origins whose web pages may send requests; requests from pages of any other origin are refused.
    pub allowed_origins: Vec<Origin>,
    /// The audit log; records cross-site requests.
    pub audit: Audit,
}

impl From<TransportLimits> for TransportSettings {
    fn from(limits: TransportLimits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }
}

/// How much a client may ask of the transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransportLimits {
    /// Concurrent connections. One more evicts an unauthenticated connection, or one that a user has left idle or is slow
    /// on; if there is none it is answered 503 (Q-8), or just closed if it is TLS.
    pub connections: usize,
    /// Concurrent connections of one user; one more evicts an idle one of the same user, or is answered 503 (Q-22).
    pub user_connections: usize,
    /// Concurrent TLS handshakes; one more drops the oldest.
    pub handshakes: usize,
    /// From the connection's opening to the end of its TLS handshake.
    pub handshake: Duration,
    /// From the first byte of a request, or from the connection's opening, to the end of its header.
    pub header: Duration,
    /// From there to the end of the body: MaxPacketRetrievalTimeSeconds (T-13, Q-9).
    pub packet_retrieval: Duration,
    /// After that a body must have come at `rate`.
    pub grace: Duration,
    /// Octets a second.
    pub rate: u32,
    /// A kept-alive connection without a request, or one that takes its answer no sooner than at `rate` from then on.
    pub idle: Duration,
    /// What running requests get when the server stops.
    pub drain: Duration,
}

impl TransportLimits {
    /// How long a body may have taken of which so many octets are there.
    fn body(&self, octets: u64) -> Duration {
        let slowest = self.grace.saturating_add(self.at_rate(octets));
        slowest.min(self.packet_retrieval)
    }

    /// How long so many octets take at the lowest rate.
    fn at_rate(&self, octets: u64) -> Duration {
        let micros = octets.saturating_mul(1_000_000) / u64::from(self.rate.max(1));
        Duration::from_micros(micros)
    }
}

impl Default for TransportLimits {
    fn default() -> Self {
        Self {
            connections: 300,
            user_connections: 100,
            handshakes: 100,
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(30),
            packet_retrieval: Duration::from_secs(120),
            grace: Duration::from_secs(20),
            rate: 500,
            idle: Duration::from_secs(300),
            drain: Duration::from_secs(20),
        }
    }
}
