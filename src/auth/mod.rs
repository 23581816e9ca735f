//! Authentication: users and their roles, and the schemes by which a caller proves its identity.
//!
//! ```text
//!   Authorization header ──▶ Authenticator ──▶ basic ──▶ users.json
//!   TLS certificate ─────────────▶│            certificate ──▶ mappings of the configuration
//!                                │                ├ cache of verified credentials
//!                                │                └ lockout: who has guessed too often
//!                                ▼
//!                         Identity, or the challenges of a 401
//! ```
//!
//! A user is an operator's decision, not a record of the inventory, so the users stand in a file of their
//! own beside the database: `users.json` in the data directory, replaced whole by `groupshot user …`,
//! taken up by a running server within a second.

mod basic;
pub mod certificate;
mod lockout;
mod password;
pub mod settings;
pub mod throttle;
pub mod users;

use std::net::IpAddr;
use std::sync::Arc;

use crate::audit::{Audit, Event};
use crate::clock::SharedClock;
use crate::handler::Identity;
use crate::text::Text;

pub use lockout::network;

use basic::Basic;
use certificate::{Certificate, Mapping};
use settings::AuthSettings;
use users::Users;

/// What clients with a certificate send as `Authorization`. It proves nothing by itself (A-30).
const MUTUAL: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/secprofile/https/mutual";

/// The connection that a request came over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channel<'a> {
    /// The client.
    pub peer: IpAddr,
    /// Is it TLS?
    pub secure: bool,
    /// The client's certificate, verified in the handshake.
    pub certificate: Option<&'a Certificate>,
}

/// Judges `Authorization` headers and client certificates.
#[derive(Debug)]
pub struct Authenticator {
    basic: Arc<Basic>,
    mappings: Vec<Mapping>,
    audit: Audit,
    settings: AuthSettings,
}

impl Authenticator {
    /// Judges by the users of that file.
    ///
    /// # Errors
    /// The system's words, if it has no random numbers to give.
    pub fn new(users: Users, settings: AuthSettings, clock: SharedClock) -> Result<Self, String> {
        Ok(Self {
            basic: Arc::new(Basic::new(users, settings.lockout(), clock)?),
            mappings: Vec::new(),
            audit: Audit::default(),
            settings,
        })
    }

    /// Lets the owners of these certificates in as well.
    #[must_use]
    pub fn with_mappings(mut self, mappings: Vec<Mapping>) -> Self {
        self.mappings = mappings;
        self
    }

    /// Tells there who could not log on.
    #[must_use]
    pub fn with_audit(mut self, audit: Audit) -> Self {
        self.audit = audit;
        self
    }

    /// Values of the `WWW-Authenticate` headers of a 401, one header each, Basic last (A-2, WinRb reads
    /// the last). Empty if no scheme is open on this channel.
    #[must_use]
    pub fn challenges(&self, channel: Channel<'_>) -> &'static [&'static str] {
        if self.basic_is_open(channel) {
            &[r#"Basic realm="WSMAN""#]
        } else {
            &[]
        }
    }

    /// The caller that the header or, without one, the certificate proves; `None` for a 401. Tells nobody
    /// why (A-11). Whoever gives a name and a password is judged by them alone.
    pub async fn check(
        &self,
        channel: Channel<'_>,
        authorization: Option<&[u8]>,
    ) -> Option<Identity> {
        let Some(authorization) = authorization else {
            return self.by_certificate(channel).await;
        };
        let Ok(text) = std::str::from_utf8(authorization) else {
            let scheme = authorization.get(..6);
            if scheme.is_some_and(|s| s.eq_ignore_ascii_case(b"basic ")) {
                let (peer, audit) = (channel.peer, &self.audit);
                self.basic.failed_otherwise("malformed", peer, audit).await;
            }
            return None;
        };
        let text = text.trim();
        if text.eq_ignore_ascii_case(MUTUAL) {
            return self.by_certificate(channel).await;
        }
        let (scheme, credentials) = text.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("Basic") || !self.basic_is_open(channel) {
            return None;
        }
        let credentials = credentials.trim();
        Basic::verify(&self.basic, channel.peer, credentials, &self.audit).await
    }

    /// Forgets the failures of a user, and those of an address with all users at it; the addresses (of networks, as
    /// failures are counted) at which something was locked out.
    ///
    /// # Errors
    /// The audit log takes no line for one of both, and nothing is done.
    pub async fn unlock(
        &self,
        user: Option<&str>,
        address: Option<IpAddr>,
    ) -> Result<Vec<IpAddr>, Text> {
        let of_user = match user {
            Some(user) => Some((user, self.audit.reserve().await?)),
            None => None,
        };
        let of_address = match address {
            Some(peer) => Some((peer, self.audit.reserve().await?)),
            None => None,
        };
        let (mut all, mut lines) = (Vec::new(), Vec::new());
        if let Some((user, line)) = of_user {
            let opened = self.basic.lockout().unlock(user);
            tracing::info!(user, ?opened, "Unlocked");
            all.extend(opened);
            let event = Event::Unlocked {
                user: Some(user),
                of: None,
            };
            lines.push(line.note(&event));
        }
        if let Some((peer, line)) = of_address {
            let opened = self.basic.lockout().unlock_address(peer);
            tracing::info!(%peer, opened, "Unlocked");
            all.extend(opened.then(|| network(peer)));
            let event = Event::Unlocked {
                user: None,
                of: Some(peer.to_string()),
            };
            lines.push(line.note(&event));
        }
        for line in lines {
            line.await;
        }
        Ok(all)
    }

    async fn by_certificate(&self, channel: Channel<'_>) -> Option<Identity> {
        let found = certificate::identify(&self.mappings, channel.certificate?);
        if found.is_none() {
            let (peer, audit) = (channel.peer, &self.audit);
            self.basic.failed_otherwise("nobody", peer, audit).await;
        }
        found
    }

    /// A-3: over TLS, on this host, or by the operator's leave.
    fn basic_is_open(&self, channel: Channel<'_>) -> bool {
        let private = channel.secure || channel.peer.to_canonical().is_loopback();
        self.settings.basic && (private || self.settings.allow_unencrypted)
    }
}

#[cfg(test)]
mod tests;
