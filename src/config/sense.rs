//! Values that have the right type and still make no sense, and keys that need each other.

use std::time::Duration;

use crate::telemetry;

use super::mistakes::Senseless;
use super::{Config, Limits, MACHINES_MAX, Roles, Tls};

/// No wait that is configured is longer.
const DAY: Duration = Duration::from_secs(86_400);
/// Nor is any number of things larger: what is counted fits into memory.
const COUNT_MAX: usize = 1_000_000_000;
/// More than any file system has.
const RESERVE_MAX: u64 = 1 << 50;

impl Config {
    /// Values that have the right type and still make no sense.
    pub(super) fn senseless(&self) -> Vec<Senseless> {
        let mut found = self.limits.senseless();
        let mut wrong = |key, other, reason| found.push(Senseless { key, other, reason });
        // Sockets of a port of our own are told apart by it; 0 is any free one.
        if self.listen.https == Some(self.listen.http) && self.listen.http.port() != 0 {
            let other = "listen.http";
            wrong(
                "listen.https",
                Some(other),
                format!("is the address of {other} as well"),
            );
        }
        if let Err(reason) = self.http.origins() {
            let reason = format!("cannot be read: {reason}");
            wrong("http.allowed_origins", None, reason);
        }
        if let Err(reason) = telemetry::check(&self.log.level) {
            wrong("log.level", None, format!("cannot be read: {reason}"));
        }
        // A lock-out of a year is no lock-out but a lost user.
        if !(1..=366 * 86_400).contains(&self.auth.lockout_seconds) {
            wrong(
                "auth.lockout_seconds",
                None,
                "must be between 1 and 31622400".into(),
            );
        }
        if !(Duration::from_secs(300)..=366 * DAY).contains(&self.job.keep) {
            wrong("job.keep", None, "must be between 5m and 8784h".into());
        }
        if self.snapshot.inline_wait > DAY {
            wrong("snapshot.inline_wait", None, "must be at most 24h".into());
        }
        if self.snapshot.reserve > RESERVE_MAX {
            wrong("snapshot.reserve", None, "must be at most 1024TiB".into());
        }
        for root in self.export.roots.iter().filter(|r| !r.is_absolute()) {
            let reason = format!("must hold absolute paths, not `{}`", root.display());
            wrong("export.roots", None, reason);
        }
        for root in self.engine.image_roots.iter().filter(|r| !r.is_absolute()) {
            let reason = format!("must hold absolute paths, not `{}`", root.display());
            wrong("engine.image_roots", None, reason);
        }
        if self.engine.machines > MACHINES_MAX {
            let reason = format!("must be at most {MACHINES_MAX}");
            wrong("engine.machines", None, reason);
        }
        if !(1..=COUNT_MAX).contains(&self.snapshot.chain_cap) {
            let reason = format!("must be between 1 and {COUNT_MAX}");
            wrong("snapshot.chain_cap", None, reason);
        }
        found.extend(self.lonely());
        found.extend(self.roles.senseless());
        found
    }

    /// Keys that need each other.
    fn lonely(&self) -> Vec<Senseless> {
        let Tls {
            certificate,
            key,
            client_ca,
            crl,
            ..
        } = &self.tls;
        let (certificate, key, ca) = (certificate.is_some(), key.is_some(), client_ca.is_some());
        let mappings = !self.roles.mappings.is_empty();
        let pairs = [
            ("tls.certificate", certificate, "tls.key", key),
            ("tls.key", key, "tls.certificate", certificate),
            ("tls.crl", crl.is_some(), "tls.client_ca", ca),
            ("roles.mappings", mappings, "tls.client_ca", ca),
        ];
        let alone = pairs
            .into_iter()
            .filter(|(_, given, _, needed)| *given && !needed);
        alone
            .map(|(key, _, other, _)| Senseless {
                key,
                other: Some(other),
                reason: format!("needs {other} beside it"),
            })
            .collect()
    }
}

impl Limits {
    fn senseless(&self) -> Vec<Senseless> {
        let mut found = Vec::new();
        let mut wrong = |key, reason: &str| {
            let reason = reason.to_owned();
            found.push(Senseless {
                key,
                other: None,
                reason,
            });
        };
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

impl Roles {
    fn senseless(&self) -> Vec<Senseless> {
        let mut found = Vec::new();
        let mut seen = Vec::new();
        for entry in &self.mappings {
            let reason = match entry.mapping() {
                Err(reason) => format!("cannot be used: {reason}"),
                Ok(mapping) if seen.contains(&mapping.owner) => {
                    format!("map the certificate of user `{}` twice", entry.user)
                }
                Ok(mapping) => {
                    seen.push(mapping.owner);
                    continue;
                }
            };
            found.push(Senseless {
                key: "roles.mappings",
                other: None,
                reason,
            });
        }
        found
    }
}
