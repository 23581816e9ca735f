//! What the commands that act on a data directory share: where it is, which configuration.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::Args;

use crate::config::Config;
use crate::server::{self, StartError};

use super::failure::{Exit, Failure};
use super::output::Output;
use super::owner;

/// Where the server keeps everything.
#[derive(Debug, Clone, Args)]
pub(super) struct DataDir {
    /// The data directory: /var/lib/groupshot for root, else ~/.local/state/groupshot.
    #[arg(long, env = "GROUPSHOT_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

/// Whether root has started this process, whoever it is by now.
static IS_ROOTS: LazyLock<bool> = LazyLock::new(|| nix::unistd::geteuid().is_root());

impl DataDir {
    /// Where it is, for a command that acts on it: from here on this process is its owner's.
    pub(super) fn path(&self) -> Result<PathBuf, Failure> {
        let path = self.named()?;
        server::require_answer(&path)?;
        owner::become_owner(&path)?;
        Ok(path)
    }

    /// [`DataDir::path`] for a command that only reads it: that it is not the one that it was is told.
    pub(super) fn to_read(&self, output: &Output) -> Result<PathBuf, Failure> {
        let path = self.path()?;
        if let Some(told) = server::not_own(&path) {
            output.note(told);
        }
        Ok(path)
    }

    /// Where it is.
    pub(super) fn named(&self) -> Result<PathBuf, Failure> {
        let is_roots = *IS_ROOTS;
        if let Some(path) = &self.data_dir {
            return Ok(path.clone());
        }
        if is_roots {
            return Ok(PathBuf::from("/var/lib/groupshot"));
        }
        let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
        let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state"));
        state
            .filter(|path| path.is_absolute())
            .or_else(home)
            .map(|state| state.join("groupshot"))
            .ok_or_else(|| Failure::usage("no home directory; give --data-dir"))
    }
}

/// Where to listen, from an address or a name with a port. Of the addresses of a name the first of IPv4 is
/// taken, which is where clients look for it, or else the first.
pub(super) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let form = "expected ADDRESS:PORT, as 127.0.0.1:5985, [::1]:5985 or localhost:5985";
    let found: Vec<SocketAddr> = match text.to_socket_addrs() {
        Ok(found) => found.collect(),
        Err(error) => return Err(format!("{error}; {form}")),
    };
    let first = found.iter().find(|a| a.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| form.to_owned())
}

/// Which configuration file.
#[derive(Debug, Clone, Args)]
pub(super) struct ConfigFile {
    /// The configuration file; every key has a default.
    #[arg(long)]
    config: Option<PathBuf>,
}

impl ConfigFile {
    pub(super) fn load(&self) -> Result<Config, Failure> {
        match &self.config {
            Some(file) => Ok(Config::load(file)?),
            None => Ok(Config::default()),
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let exit = match &error {
            StartError::Busy(_) | StartError::Denied(_) => Exit::Busy,
            StartError::Config(_) | StartError::Refused(_) => Exit::Config,
            StartError::Failed(_) => Exit::Failed,
        };
        Self::new(exit, error)
    }
}
