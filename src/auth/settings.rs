//! `[auth]` and `[roles]` of the configuration.

use std::time::Duration;

use serde::Deserialize;

use crate::handler::Role;
use crate::settings::Senseless;

use super::certificate::{Mapping, Owner};
use super::lockout::Limit;
use super::users;

/// `[auth]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthSettings {
    /// Offer Basic.
    pub basic: bool,
    /// Offer it over plain HTTP to other hosts too (rule Q-10). Passwords can be read on the way then.
    pub allow_unencrypted: bool,
    /// Wrong passwords in a row that lock out a user name at an address, and ten times that an address (rule A-11);
    /// 0 for never.
    pub lockout_failures: u32,
    /// How long a lock-out lasts, in seconds.
    pub lockout_seconds: u64,
}

impl Default for AuthSettings {
    fn default() -> Self {
        Self {
            basic: true,
            allow_unencrypted: false,
            lockout_failures: 10,
            lockout_seconds: 300,
        }
    }
}

impl AuthSettings {
    /// When somebody is locked out.
    pub(super) const fn lockout(&self) -> Limit {
        Limit {
            failures: self.lockout_failures,
            time: Duration::from_secs(self.lockout_seconds),
        }
    }

    /// Values that make no sense.
    #[must_use]
    pub fn senseless(&self) -> Vec<Senseless> {
        // A lock-out of a year is no lock-out but a lost user.
        if (1..=366 * 86_400).contains(&self.lockout_seconds) {
            return Vec::new();
        }
        let reason = "must be between 1 and 31622400";
        vec![Senseless::new("auth.lockout_seconds", reason)]
    }
}

/// `[roles]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoleSettings {
    /// Which user a client certificate stands for (rule A-31).
    pub mappings: Vec<MappingEntry>,
}

/// One of `roles.mappings`: exactly one of the first three.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MappingEntry {
    /// The subject of the certificate, `CN=backup,O=Example`.
    pub subject: Option<String>,
    /// One of its alternative names, `upn:ann@example.com`.
    pub san: Option<String>,
    /// Its SHA-256 fingerprint.
    pub fingerprint: Option<String>,
    /// The user it stands for.
    pub user: String,
    /// What that user may do.
    pub role: Role,
}

impl MappingEntry {
    /// As `auth` takes it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn mapping(&self) -> Result<Mapping, String> {
        if !users::is_name(&self.user) {
            return Err(format!("`{}` is no user name", self.user));
        }
        let owner = match (&self.subject, &self.san, &self.fingerprint) {
            (Some(text), None, None) => Owner::subject(text),
            (None, Some(text), None) => Owner::name(text),
            (None, None, Some(text)) => Owner::fingerprint(text),
            _ => Err(format!(
                "the one of user `{}` must have one of subject, san and fingerprint",
                self.user
            )),
        }?;
        Ok(Mapping {
            owner,
            user: self.user.as_str().into(),
            role: self.role,
        })
    }
}

impl RoleSettings {
    /// As the authenticator takes them.
    ///
    /// # Errors
    /// What is wrong with the first that cannot be used.
    pub fn mappings(&self) -> Result<Vec<Mapping>, String> {
        self.mappings.iter().map(MappingEntry::mapping).collect()
    }

    /// Values that make no sense.
    #[must_use]
    pub fn senseless(&self) -> Vec<Senseless> {
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
            found.push(Senseless::new("roles.mappings", reason));
        }
        found
    }
}
