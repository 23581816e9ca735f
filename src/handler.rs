//! The border between HTTP and everything behind it: who calls, with which bytes; what goes back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

/// What a user may do. Each role includes the ones before it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads.
    Reader,
    /// Takes snapshot sets and manages collections.
    Operator,
    /// Everything.
    Administrator,
}

impl crate::text::Word for Role {}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Reader => "reader",
            Self::Operator => "operator",
            Self::Administrator => "administrator",
        })
    }
}

/// An authenticated user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The name it is known by; also the owner of its enumeration contexts and jobs.
    pub user: Arc<str>,
    /// What it may do.
    pub role: Role,
}

/// Who sent a request, and how.
#[derive(Debug, Clone)]
pub struct Caller {
    /// `None` only where the endpoint asks for no authentication (anonymous Identify).
    pub identity: Option<Identity>,
    /// The address of the client.
    pub peer: SocketAddr,
    /// Did it come through TLS?
    pub secure: bool,
    /// How long ago the head of their request was there; it counts against the time of their operation.
    pub waited: Duration,
    /// The `User-Agent` header, empty if absent.
    pub user_agent: Arc<str>,
    /// The `Host` header, empty if absent.
    pub host: Arc<str>,
}

/// A request body as it came, after content decoding.
#[derive(Debug, Clone)]
pub struct Message {
    /// The `Content-Type` header as sent, if any.
    pub content_type: Option<String>,
    /// The bytes.
    pub body: Bytes,
}

/// An answer that carries an envelope.
#[derive(Debug, Clone)]
pub struct Answer {
    /// 200 or 500.
    pub status: u16,
    /// The whole `Content-Type` header; empty where the body is.
    pub content_type: &'static str,
    /// The bytes; empty for `End` and the like.
    pub body: Bytes,
}

/// Answers messages. `operation` implements it, `http` calls it.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Answers one message. Never fails: what goes wrong is a fault envelope.
    async fn handle(&self, caller: Caller, message: Message) -> Answer;

    /// The largest request body that is read, in bytes; more is answered 413.
    fn body_limit(&self) -> usize;
}
