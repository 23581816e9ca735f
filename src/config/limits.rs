//! `[limits]`: what clients may use up, of the transport and of the protocol. No module alone has them.

use std::time::Duration;

use serde::Deserialize;

use crate::settings::{COUNT_MAX, DAY, Senseless, duration, size};

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitSettings {
    /// Largest request and answer in octets (rule Q-1).
    #[serde(deserialize_with = "size")]
    pub envelope: u64,
    /// Open connections (rule Q-8).
    pub connections: usize,
    /// Open connections of one user (rule Q-22).
    pub user_connections: usize,
    /// Requests of one user that are under way (rule Q-22).
    pub user_requests: usize,
    /// Open enumerations of one user (rule Q-6).
    pub per_user: usize,
    /// Open enumerations of all users (rule Q-5).
    pub contexts: usize,
    /// Default and ceiling of `w:OperationTimeout` (rule Q-2).
    #[serde(deserialize_with = "duration")]
    pub operation_timeout: Duration,
    /// Idle limit of an enumeration (rule Q-7).
    #[serde(deserialize_with = "duration")]
    pub enumeration_timeout: Duration,
    /// From the opening of a connection, or the first byte of a request, to the end of its header.
    #[serde(deserialize_with = "duration")]
    pub header_timeout: Duration,
    /// From there to the end of the body (rule Q-9).
    #[serde(deserialize_with = "duration")]
    pub packet_timeout: Duration,
    /// How long a kept-alive connection waits for its next request.
    #[serde(deserialize_with = "duration")]
    pub idle_timeout: Duration,
    /// How long requests and operations that run may take when the server stops.
    #[serde(deserialize_with = "duration")]
    pub stop_timeout: Duration,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            envelope: 500 * 1024,
            connections: 300,
            user_connections: 100,
            user_requests: 100,
            per_user: 1500,
            contexts: 10_000,
            operation_timeout: Duration::from_secs(60),
            enumeration_timeout: Duration::from_secs(60),
            header_timeout: Duration::from_secs(30),
            packet_timeout: Duration::from_secs(120),
            idle_timeout: Duration::from_secs(300),
            stop_timeout: Duration::from_secs(20),
        }
    }
}

impl LimitSettings {
    /// Values that make no sense.
    pub(super) fn senseless(&self) -> Vec<Senseless> {
        let mut found = Vec::new();
        let mut wrong = |key, reason: &str| found.push(Senseless::new(key, reason));
        // Rule Q-1 names 32 KiB as the least, H-20 lets no client ask for less than 8 KiB.
        if !(32 * 1024..=64 << 20).contains(&self.envelope) {
            wrong("limits.envelope", "must be between 32KiB and 64MiB");
        }
        for (key, value) in [
            ("limits.connections", self.connections),
            ("limits.user_connections", self.user_connections),
            ("limits.user_requests", self.user_requests),
            ("limits.per_user", self.per_user),
            ("limits.contexts", self.contexts),
        ] {
            if !(1..=COUNT_MAX).contains(&value) {
                wrong(key, &format!("must be between 1 and {COUNT_MAX}"));
            }
        }
        for (key, value) in [
            ("limits.operation_timeout", self.operation_timeout),
            ("limits.enumeration_timeout", self.enumeration_timeout),
            ("limits.header_timeout", self.header_timeout),
            ("limits.packet_timeout", self.packet_timeout),
            ("limits.idle_timeout", self.idle_timeout),
            ("limits.stop_timeout", self.stop_timeout),
        ] {
            if !(Duration::from_millis(500)..=DAY).contains(&value) {
                wrong(key, "must be between 500ms and 24h");
            }
        }
        found
    }
}
