//! What a service manager hands over and wants to hear: sockets that it has opened (`LISTEN_FDS`), and how
//! the server is (`NOTIFY_SOCKET`, `WATCHDOG_USEC`). Without a manager none of this does anything.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use listenfd::ListenFd;
use nix::time::{ClockId, clock_gettime};

use super::StartError;

/// Name of a socket for plain HTTP; `FileDescriptorName=` in a socket unit.
const HTTP: &str = "http";

/// Name of a socket for HTTPS.
const HTTPS: &str = "https";

/// Listening sockets that were opened before the server started.
#[derive(Debug, Default)]
pub struct Sockets {
    /// For plain HTTP, in the place of `listen.http`.
    pub(super) http: Vec<TcpListener>,
    /// For HTTPS, in the place of `listen.https`.
    pub(super) https: Vec<TcpListener>,
}

impl Sockets {
    /// Takes them over. To be called while the process has one thread: the environment changes.
    ///
    /// # Errors
    /// [`StartError::Config`] for one without a name that is known, or that is no TCP listener.
    pub fn from_environment() -> Result<Self, StartError> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut handed = ListenFd::from_env();
        let mut sockets = Self::default();
        for number in 0..handed.len() {
            let name = names.next().unwrap_or_default();
            let place = match name {
                HTTP => &mut sockets.http,
                HTTPS => &mut sockets.https,
                _ => {
                    let text = format!(
                        "socket {number} of LISTEN_FDS is named `{name}`; FileDescriptorName must be {HTTP} or {HTTPS}"
                    );
                    return Err(StartError::Config(text));
                }
            };
            let wrong = |e| StartError::Config(format!("socket `{name}` of LISTEN_FDS: {e}"));
            if let Some(socket) = handed.take_tcp_listener(number).map_err(wrong)? {
                socket.set_nonblocking(true).map_err(wrong)?;
                place.push(socket);
            }
        }
        Ok(sockets)
    }
}

/// Tells the service manager.
#[derive(Debug, Default)]
pub struct Notify {
    socket: Option<UnixDatagram>,
    /// It takes the server for dead when it has heard nothing for so long.
    watchdog: Option<Duration>,
}

impl Notify {
    /// The manager that started this process, if there is one.
    #[must_use]
    pub fn from_environment() -> Self {
        let Ok(path) = std::env::var("NOTIFY_SOCKET") else {
            return Self::default();
        };
        let socket = connect(&path)
            .inspect_err(|error| tracing::warn!(%error, path, "NOTIFY_SOCKET"))
            .ok();
        let variable = |name| std::env::var(name).ok()?.parse::<u64>().ok();
        let ours = variable("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let period = variable("WATCHDOG_USEC").filter(|usec| ours && *usec > 0);
        Self {
            socket,
            watchdog: period.map(Duration::from_micros),
        }
    }

    /// It serves.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    /// It reads its files again; [`Notify::ready`] follows.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
        let now = now.unwrap_or_default().as_micros();
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={now}"));
    }

    /// It ends, and waits for what is told.
    pub fn stopping(&self, status: &str) {
        self.send(&format!("STOPPING=1\nSTATUS={status}"));
    }

    /// Says that it lives, for as long as it is awaited.
    pub async fn keep_alive(&self) {
        let Some(period) = self.watchdog else {
            return std::future::pending().await;
        };
        let mut ticks = tokio::time::interval(period / 2);
        loop {
            ticks.tick().await;
            self.send("WATCHDOG=1");
        }
    }

    /// A manager that does not listen is its own matter.
    fn send(&self, text: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(text.as_bytes())
        {
            tracing::debug!(%error, "NOTIFY_SOCKET");
        }
    }
}

/// A name with `@` is one of the abstract namespace.
fn connect(path: &str) -> std::io::Result<UnixDatagram> {
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
