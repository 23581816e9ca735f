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

mod http;
mod mistakes;
mod sense;
mod values;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::auth::certificate::{Mapping, Owner};
use crate::auth::users;
use crate::handler::Role;
use crate::held;
use crate::telemetry;
use crate::text::{Language, reader};
use crate::tls;

use values::{audit_to, duration, size};

pub use http::Http;
pub use mistakes::Mistake;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where to listen.
    pub listen: Listen,
    /// What is taken of browsers.
    pub http: Http,
    /// Certificates and keys.
    pub tls: Tls,
    /// How users prove who they are.
    pub auth: Auth,
    /// Which user a client certificate stands for.
    pub roles: Roles,
    /// What clients may use up.
    pub limits: Limits,
    /// Taking snapshot sets.
    pub snapshot: Snapshot,
    /// Jobs.
    pub job: Job,
    /// Exporting snapshot sets.
    pub export: Export,
    /// Which engine runs the machines.
    pub engine: Engine,
    /// Log lines.
    pub log: Log,
}

/// `[listen]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// Address and port for plain HTTP.
    pub http: SocketAddr,
    /// Address and port for HTTPS; none without it.
    pub https: Option<SocketAddr>,
}

/// `[tls]`; the paths are relative to the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// The server's certificate and those between it and its CA.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// CAs whose certificates users may log on with (rule A-30).
    pub client_ca: Option<PathBuf>,
    /// Revocation lists of these CAs.
    pub crl: Option<PathBuf>,
    /// Refuses older versions (rule T-15).
    pub min_version: tls::Version,
}

/// `[roles]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Roles {
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

/// `[auth]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
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

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
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

/// `[snapshot]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Snapshot {
    /// How long a call waits for its own job before it answers 4096.
    #[serde(deserialize_with = "duration")]
    pub inline_wait: Duration,
    /// Deepest chain of files under a disk.
    pub chain_cap: usize,
    /// An image of more extents is not cloned.
    pub clone_extents: u64,
    /// Octets that must stay free.
    #[serde(deserialize_with = "size")]
    pub reserve: u64,
}

/// `[job]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Job {
    /// How long an ended job is kept.
    #[serde(deserialize_with = "duration")]
    pub keep: Duration,
}

/// `[export]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Export {
    /// Folders below which sets may be exported; absolute.
    pub roots: Vec<PathBuf>,
}

/// `[engine]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Engine {
    /// The engine.
    pub default: EngineKind,
    /// How many machines the simulation has.
    pub machines: u32,
    /// Folders that disk images and their backing files must lie in; empty allows all.
    pub image_roots: Vec<PathBuf>,
}

/// The most machines of the simulation: so many have been tried, and each costs memory.
pub const MACHINES_MAX: u32 = 100_000;

/// The engines that can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// Machines of the data directory.
    Library,
    /// Machines that exist in memory only.
    Sim,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Filter as `tracing` reads it: `info`, `groupshot=debug,warn`, …
    pub level: String,
    /// Text or JSON.
    pub format: telemetry::Format,
    /// Where it is written who has changed what and who could not log on.
    #[serde(deserialize_with = "audit_to")]
    pub audit: AuditTo,
}

/// `log.audit`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditTo {
    /// Nowhere.
    Off,
    /// In the log, with the target `audit`.
    Log,
    /// In a file, relative to the configuration file.
    File(PathBuf),
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            http: SocketAddr::from(([127, 0, 0, 1], 5985)),
            https: None,
        }
    }
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            basic: true,
            allow_unencrypted: false,
            lockout_failures: 10,
            lockout_seconds: 300,
        }
    }
}

impl Default for Limits {
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

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            inline_wait: Duration::ZERO,
            chain_cap: 32,
            clone_extents: 20_000,
            reserve: 64 << 20,
        }
    }
}

impl Default for Job {
    fn default() -> Self {
        Self {
            keep: Duration::from_secs(3600),
        }
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            default: EngineKind::Library,
            machines: 3,
            image_roots: Vec::new(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: telemetry::Format::Text,
            audit: AuditTo::Log,
        }
    }
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
        if let AuditTo::File(path) = &mut config.log.audit {
            *path = file.parent().unwrap_or(Path::new("")).join(&path);
        }
        Ok(config)
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// What is wrong, in the order of the lines.
    pub fn parse(text: &str) -> Result<Self, Vec<Mistake>> {
        mistakes::read(text)
    }
}

impl Tls {
    /// The files that it names.
    #[must_use]
    pub fn files(&self) -> tls::Files {
        tls::Files {
            pair: self.certificate.clone().zip(self.key.clone()),
            client_ca: self.client_ca.clone(),
            crl: self.crl.clone(),
            min_version: self.min_version,
        }
    }

    fn stand_beside(&mut self, config: &Path) {
        let directory = config.parent().unwrap_or(Path::new(""));
        let files = [
            &mut self.certificate,
            &mut self.key,
            &mut self.client_ca,
            &mut self.crl,
        ];
        for path in files.into_iter().flatten() {
            *path = directory.join(&path);
        }
    }
}

#[cfg(test)]
mod tests;
