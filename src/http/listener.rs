//! Accepts connections up to a limit, and drains them at shutdown.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::Authenticator;
use crate::auth::throttle::{ByKey, ByNetwork, Throttle};
use crate::handler::Handler;
use crate::tls::Live;

use super::TransportSettings;
use super::connection::{Connection, Shared};
use super::handshake::{Handshakes, Peer};
use super::places::{Entered, Places};
use super::refusal;
use super::serving::{self, Ends};

/// Connections over the limit that are answered 503 at one time; further ones are just closed.
const APOLOGIES: usize = 32;

/// Descriptors beyond those of the slots: connections that are being answered 503, and evicted ones that are closing.
pub const EXTRA_SOCKETS: usize = 2 * APOLOGIES;

/// How long a connection over the limit may take to read the 503.
const APOLOGY_TIME: Duration = Duration::from_secs(1);

/// What to wait after accept failed (no file descriptors left, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A place to listen at.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// HTTPS with what it shows; plain HTTP without.
    pub tls: Option<Arc<Live>>,
}

/// Serves plain HTTP on `listener`, as [`serve_all`] does.
pub async fn serve(
    listener: TcpListener,
    handler: Arc<dyn Handler>,
    auth: Arc<Authenticator>,
    settings: impl Into<TransportSettings>,
    stop: CancellationToken,
) {
    let plain = Listener {
        socket: listener,
        tls: None,
    };
    serve_all(vec![plain], handler, auth, settings, stop).await;
}

/// Serves on all of them until `stop`; then accepts no more, lets running requests end within
/// `limits.drain` and returns. Never fails: what goes wrong with one client is that client's matter. The
/// limits are those of all together.
pub async fn serve_all(
    listeners: Vec<Listener>,
    handler: Arc<dyn Handler>,
    auth: Arc<Authenticator>,
    settings: impl Into<TransportSettings>,
    stop: CancellationToken,
) {
    let TransportSettings {
        limits,
        allowed_origins,
        audit,
    } = settings.into();
    let shared = Arc::new(Shared {
        handler,
        auth,
        limits,
        allowed_origins,
        audit,
        crowded_users: Throttle::default(),
        refused: ByKey::default(),
        cross_site: ByNetwork::default(),
        tasks: TaskTracker::new(),
    });
    let ends = Ends {
        stop: stop.clone(),
        kill: CancellationToken::new(),
    };
    let door = Door {
        places: Places::new(limits.connections, limits.user_connections),
        sockets: Arc::new(Semaphore::new(
            limits.connections.saturating_add(EXTRA_SOCKETS),
        )),
        lines: Lines::default(),
        apologies: Arc::new(Semaphore::new(APOLOGIES)),
        handshakes: Arc::default(),
        shared: Arc::clone(&shared),
        ends: ends.clone(),
    };
    join_all(listeners.into_iter().map(|l| accept(l, &door, &stop))).await;
    shared.tasks.close();
    if timeout(limits.drain, shared.tasks.wait()).await.is_err() {
        tracing::warn!(left = shared.tasks.len(), "requests cut off at shutdown");
        ends.kill.cancel();
    }
}

async fn accept(listener: Listener, door: &Door, stop: &CancellationToken) {
    let next = async || {
        // No more are taken from the system than there are descriptors for.
        let held = Arc::clone(&door.sockets).acquire_owned().await;
        let held = held.map_err(io::Error::other)?;
        let (socket, peer) = listener.socket.accept().await?;
        Ok::<_, io::Error>((Held { socket, held }, peer))
    };
    while let Some(accepted) = stop.run_until_cancelled(next()).await {
        match accepted {
            Ok((socket, peer)) => door.admit(socket, peer, listener.tls.as_ref()),
            Err(error) => {
                if let Some(times) = door.lines.accept.happened() {
                    tracing::warn!(%error, times, "accept");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Lets connections in.
struct Door {
    places: Arc<Places>,
    /// Descriptors: places, apologies, and connections that were told to leave and have not yet.
    sockets: Arc<Semaphore>,
    lines: Lines,
    apologies: Arc<Semaphore>,
    handshakes: Arc<Handshakes>,
    shared: Arc<Shared>,
    ends: Ends,
}

/// Rate limits of log lines.
#[derive(Debug, Default)]
struct Lines {
    accept: Throttle,
    turned_away: Throttle,
    dismissed: Throttle,
}

/// An accepted socket and its permit of [`Door::sockets`].
struct Held {
    socket: TcpStream,
    held: OwnedSemaphorePermit,
}

impl Door {
    fn admit(&self, socket: Held, peer: SocketAddr, tls: Option<&Arc<Live>>) {
        let place = match self.places.enter(peer.ip()) {
            Entered::Free(place) => place,
            Entered::Instead(place) => {
                if let Some(times) = self.lines.dismissed.happened() {
                    let limit = self.shared.limits.connections;
                    tracing::warn!(
                        limit,
                        times,
                        "too many connections: one that was idle, slow or nobody's was closed"
                    );
                }
                place
            }
            Entered::Full => return self.turn_away(socket, peer, tls.is_some()),
        };
        let Held { socket, held } = socket;
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, %peer, "TCP_NODELAY");
        }
        let shared = Arc::clone(&self.shared);
        let ends = self.ends.clone();
        let Some(tls) = tls else {
            self.shared.tasks.spawn(async move {
                serving::serve(socket, Connection::plain(shared, peer, place), ends).await;
                drop(held);
            });
            return;
        };
        let tls = Arc::clone(tls);
        let shown = tls.shown();
        let handshakes = Arc::clone(&self.handshakes);
        self.shared.tasks.spawn(async move {
            let done = handshakes.shake(socket, shown.acceptor(), &shared.limits, &ends.stop);
            let leave = place.leave.clone();
            if let Some(Some(stream)) = leave.run_until_cancelled(done).await {
                let certificate = Peer::of(&stream, tls, shown);
                let connection = Connection::secure(shared, peer, place, certificate);
                serving::serve(stream, connection, ends).await;
            }
            drop(held);
        });
    }

    /// Refuses a connection over the limit: 503 in plain HTTP; a TLS connection is just closed, as saying so would cost a
    /// handshake.
    fn turn_away(&self, socket: Held, peer: SocketAddr, secure: bool) {
        if let Some(times) = self.lines.turned_away.happened() {
            let limit = self.shared.limits.connections;
            tracing::warn!(%peer, limit, times, "too many connections: turned away");
        }
        if secure {
            return;
        }
        if let Ok(turn) = Arc::clone(&self.apologies).try_acquire_owned() {
            tokio::spawn(async move {
                let Held { socket, held } = socket;
                let _ = timeout(APOLOGY_TIME, apologise(socket)).await;
                drop((turn, held));
            });
        }
    }
}

/// Says 503 and reads on until the client closes: closing first, with its request unread, would reset the
/// connection and lose the answer.
async fn apologise(mut socket: TcpStream) -> io::Result<()> {
    socket.write_all(&refusal::overload()).await?;
    socket.shutdown().await?;
    let mut unread = [0; 4096];
    while socket.read(&mut unread).await? > 0 {}
    Ok(())
}
