//! Why a command did not do what it should, and the exit code that scripts see.

use std::fmt::Display;
use std::process::ExitCode;

use crate::client;
use crate::config::ConfigError;

/// Exit codes; part of the contract with scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// The server or the work failed.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// The configuration file is wrong, or the data directory is not the one that it was.
    Config = 3,
    /// Data directory in use, port taken, no permission.
    Busy = 4,
    /// User or password are not accepted.
    Authentication = 5,
    /// The job ended badly.
    Job = 6,
    /// No server there.
    Unreachable = 7,
}

/// What exit code 0 means.
pub(super) const DONE: &str = "Done.";

impl Exit {
    /// In the order of their codes.
    pub(super) const ALL: [Self; 7] = [
        Self::Failed,
        Self::Usage,
        Self::Config,
        Self::Busy,
        Self::Authentication,
        Self::Job,
        Self::Unreachable,
    ];

    pub(super) fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Config => 3,
            Self::Busy => 4,
            Self::Authentication => 5,
            Self::Job => 6,
            Self::Unreachable => 7,
        }
    }

    /// What it means, whatever the command.
    pub(super) fn meaning(self) -> &'static str {
        match self {
            Self::Failed => "Failed: the work, a look-up, or a refusal by the server.",
            Self::Usage => "The command line makes no sense.",
            Self::Config => {
                "The configuration file is missing or wrong; key and line are named. Or a certificate, key or revocation \
                 list that it names cannot be used. Or the data directory is not the one that it was. Or its database is \
                 damaged, is missing while there are sets, or does not know them. Or users.json makes no sense."
            }
            Self::Busy => {
                "The data directory is in use, there is no permission (a read-only file system gives none; root has none \
                 to a data directory of another user), a port is taken, or an address is not this host's."
            }
            Self::Authentication => {
                "The user, the password or the certificate is not accepted, or HTTP 403: no way to log on is offered \
                 there."
            }
            Self::Job => "The job ended badly or was cancelled.",
            Self::Unreachable => {
                "No server answers at that address, or its certificate is not trusted. Or it died while a job was \
                 followed: the ids of job and set are printed (with --json as an object with error too), and job show \
                 tells the end once the server is back."
            }
        }
    }

    /// As JSON names it.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Config => "config",
            Self::Busy => "busy",
            Self::Authentication => "authentication",
            Self::Job => "job",
            Self::Unreachable => "unreachable",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// One line for the person at the terminal, and the exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(exit: Exit, message: impl Display) -> Self {
        Self {
            exit,
            message: message.to_string(),
        }
    }

    pub(super) fn failed(message: impl Display) -> Self {
        Self::new(Exit::Failed, message)
    }

    pub(super) fn usage(message: impl Display) -> Self {
        Self::new(Exit::Usage, message)
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        let exit = match &error {
            client::Error::Url { .. } | client::Error::Files(_) => Exit::Usage,
            client::Error::Unreachable { .. } | client::Error::Timeout { .. } => Exit::Unreachable,
            client::Error::Unauthorized { .. } | client::Error::Http { status: 403, .. } => {
                Exit::Authentication
            }
            client::Error::Http { .. } | client::Error::Malformed { .. } => Exit::Failed,
            client::Error::Fault(_) => Exit::Failed,
        };
        Self::new(exit, error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(Exit::Config, error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::failed(error)
    }
}
