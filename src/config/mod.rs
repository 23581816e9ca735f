//! `groupshot.toml`: every key optional, an unknown key is an error that names key and line.
//!
//! ```toml
//! [listen]
//! http = "127.0.0.1:5985"
//! # https = "[::]:5986"        # without it there is no TLS
//! [http]
//! allowed_origins = []         # whose web pages may send requests, as "https://console.example"; none: no page may
//! [tls]                        # all files are PEM, their paths relative to this file
//! # certificate = "server.pem" # the server's, then those between it and its CA; without it one is made
//! # key = "server.key"
//! # client_ca = "clients.pem"  # CAs whose certificates users may log on with
//! # crl = "revoked.pem"        # revocation lists of these CAs
//! min_version = "1.2"          # or "1.3"
//! [auth]
//! basic = true                 # offer Basic
//! allow_unencrypted = false    # … also over plain HTTP from other hosts than this one
//! lockout_failures = 10        # wrong passwords in a row that lock out a user at an address, ten times that the address; 0: never
//! lockout_seconds = 300        # … and for how long
//! [roles]
//! mappings = []                # which client certificate is which user
//! # mappings = [
//! #   { subject = "CN=backup,O=Example", user = "backup", role = "operator" },
//! #   { san = "upn:ann@example.com", user = "ann", role = "administrator" },  # or dns: email: uri:
//! #   { fingerprint = "<SHA-256>", user = "monitor", role = "reader" },
//! # ]
//! [limits]
//! envelope = "500KiB"          # largest request and largest answer
//! connections = 300            # of all together
//! user_connections = 100       # of one user
//! user_requests = 100          # under way, of one user
//! per_user = 1500              # open enumerations of one user
//! contexts = 10000             # open enumerations of all users
//! operation_timeout = "60s"    # default and ceiling of w:OperationTimeout
//! enumeration_timeout = "60s"  # an enumeration that nobody pulls for so long is forgotten
//! header_timeout = "30s"       # from a connection's opening, or a request's first byte, to the end of its header
//! packet_timeout = "120s"      # from there to the end of its body, operation_timeout at most; after 20 s it must have come at 500 bytes a second
//! idle_timeout = "300s"        # a kept-alive connection waits so long for the next request, and an answer to be taken
//! stop_timeout = "20s"         # requests and operations that run may take so long when the server stops
//! [snapshot]
//! inline_wait = "0s"           # CreateSnapshot waits so long for its own job before it answers 4096
//! chain_cap = 32               # deepest chain of files under a disk
//! clone_extents = 20000        # a disk image in more pieces is captured by an overlay, not by a clone
//! reserve = "64MiB"            # space that must stay free on every file system (at least 5 % anyway)
//! [job]
//! keep = "1h"                  # ended jobs are shown for so long, at least 5 minutes
//! [export]
//! roots = []                   # folders of this host below which sets may be exported; none: no export
//! [engine]
//! default = "library"          # or "sim"
//! machines = 3                 # of the simulation, at most 100000
//! image_roots = []             # folders that disk images and their backing files must lie in; empty: anywhere
//! [log]
//! level = "info"
//! format = "text"              # or "json"
//! audit = true                 # who changed what, in the log; false: nowhere; or a file, relative to this one
//! ```

mod limits;
mod log;
mod mistakes;

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::auth::settings::{AuthSettings, RoleSettings};
use crate::engine::settings::EngineSettings;
use crate::held;
use crate::http::settings::{HttpSettings, ListenSettings};
use crate::job::settings::JobSettings;
use crate::settings::Senseless;
use crate::snapshot::settings::{ExportSettings, SnapshotSettings};
use crate::text::{Language, reader};
use crate::tls::settings::TlsSettings;

pub use limits::LimitSettings;
pub use log::LogSettings;
pub use mistakes::Mistake;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where to listen.
    pub listen: ListenSettings,
    /// What is taken of browsers.
    pub http: HttpSettings,
    /// Certificates and keys.
    pub tls: TlsSettings,
    /// How users prove who they are.
    pub auth: AuthSettings,
    /// Which user a client certificate stands for.
    pub roles: RoleSettings,
    /// What clients may use up.
    pub limits: LimitSettings,
    /// Taking snapshot sets.
    pub snapshot: SnapshotSettings,
    /// Jobs.
    pub job: JobSettings,
    /// Exporting snapshot sets.
    pub export: ExportSettings,
    /// Which engine runs the machines.
    pub engine: EngineSettings,
    /// Log lines.
    pub log: LogSettings,
}

/// The file cannot be used. One line, with the place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{}: {reason}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// It is not what it should be.
    #[error("{}", first(file, mistakes))]
    Wrong {
        /// The file.
        file: PathBuf,
        /// All that is wrong, in the order of the lines; at least one.
        mistakes: Vec<Mistake>,
    },
}

/// The first mistake with its place, and whether there are more.
fn first(file: &Path, mistakes: &[Mistake]) -> String {
    let mut told = file.display().to_string();
    if let Some(Mistake { line, text, .. }) = mistakes.first() {
        told.push_str(&format!(":{line}: {text}"));
    }
    if mistakes.len() > 1 {
        let more = mistakes.len() - 1;
        told.push_str(&format!(" (and {more} more; see `groupshot config check`)"));
    }
    told
}

impl Config {
    /// Reads the file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = held::read_named(file).and_then(|text| std::io::read_to_string(&*text));
        let text = text.map_err(|e| ConfigError::Unreadable {
            file: file.to_owned(),
            reason: reader::told_of_file(&e).render(Language::EnUs),
        })?;
        let mut config = Self::parse(&text).map_err(|mistakes| ConfigError::Wrong {
            file: file.to_owned(),
            mistakes,
        })?;
        config.tls.stand_beside(file);
        config.log.stand_beside(file);
        Ok(config)
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// What is wrong, in the order of the lines.
    pub fn parse(text: &str) -> Result<Self, Vec<Mistake>> {
        mistakes::read(text)
    }

    /// Values that have the right type and still make no sense, and keys that need each other.
    fn senseless(&self) -> Vec<Senseless> {
        let mut found = [
            self.listen.senseless(),
            self.http.senseless(),
            self.tls.senseless(),
            self.auth.senseless(),
            self.roles.senseless(),
            self.limits.senseless(),
            self.snapshot.senseless(),
            self.job.senseless(),
            self.export.senseless(),
            self.engine.senseless(),
            self.log.senseless(),
        ]
        .concat();
        if !self.roles.mappings.is_empty() && self.tls.client_ca.is_none() {
            found.push(Senseless::alone("roles.mappings", "tls.client_ca"));
        }
        found
    }
}

#[cfg(test)]
mod tests;
