//! What can go wrong when asking a server, in words for the person at the terminal.

use std::fmt;

use crate::tls::TlsError;

/// A call did not give its result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL cannot be used.
    #[error(
        "`{url}` is not a URL of the form http://host:5985/wsman or https://host:5986/wsman: {reason}"
    )]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate or key of ours cannot be used.
    #[error(transparent)]
    Files(#[from] TlsError),
    /// No connection, or it broke.
    #[error("cannot reach {url}: {reason}")]
    Unreachable {
        /// The server.
        url: String,
        /// Why.
        reason: String,
    },
    /// No answer in time.
    #[error("{url} did not answer within {seconds} seconds")]
    Timeout {
        /// The server.
        url: String,
        /// How long was waited.
        seconds: u64,
    },
    /// 401: user or password are not right, or Basic is not offered here.
    #[error("{url} does not accept user `{user}`: {reason}")]
    Unauthorized {
        /// The server.
        url: String,
        /// The user.
        user: String,
        /// What the server would accept.
        reason: String,
    },
    /// An HTTP answer without envelope.
    #[error("{url} answered HTTP {status}: {reason}")]
    Http {
        /// The server.
        url: String,
        /// The status code.
        status: u16,
        /// What the server says, or else what that means.
        reason: String,
    },
    /// The answer is not what it should be.
    #[error("{url} sent something that is no answer: {reason}")]
    Malformed {
        /// The server.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The server refused or failed.
    #[error("{0}")]
    Fault(Box<Fault>),
}

/// A SOAP fault.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fault {
    /// The sentence for people.
    pub reason: String,
    /// Local part of the subcode: `DestinationUnreachable`, `TimedOut`, …
    pub subcode: String,
    /// Last part of the `w:FaultDetail` URI, if there is one.
    pub detail: Option<String>,
    /// Code of `f:WSManFault`, if there is one.
    pub code: Option<u32>,
    /// Message of `f:WSManFault`, if there is one.
    pub message: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.trim())?;
        if let Some(message) = &self.message
            && message.trim() != self.reason.trim()
            && !message.trim().is_empty()
        {
            write!(f, ": {}", message.trim())?;
        }
        write!(f, " ({}", self.subcode)?;
        if let Some(detail) = &self.detail {
            write!(f, "/{detail}")?;
        }
        f.write_str(")")
    }
}
