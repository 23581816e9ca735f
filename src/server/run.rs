//! The server: recovers, listens, and stops in order.
//!
//! ```text
//!   data directory locked ▶ store ▶ engine, drivers ▶ jobs ▶ coordinator ▶ recovery
//!     ▶ providers ▶ operation ▶ listener open … SIGTERM ▶ no new requests, open ones end ▶ store closed
//! ```
//!
//! `groupshot serve` closes nothing else itself: closing a file can stand as any look at it (`held`). The kernel does it when the
//! process is gone, and lets the data directory go at the very end.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::Audit;
use crate::auth::Authenticator;
use crate::auth::users::{self, Users};
use crate::cim::Schema;
use crate::clock::SharedClock;
use crate::config::{Config, LimitSettings};
use crate::doctor::line::Socket;
use crate::engine::locks::FrozenFiles;
use crate::held;
use crate::http::{self, Listener};
use crate::id::JobId;
use crate::job::Jobs;
use crate::operation;
use crate::provider::virtualization;
use crate::snapshot::{Coordinator, Recovered};
use crate::store::sqlite::SqliteStore;
use crate::tls::Live;
use crate::wsman::request::RequestLimits;

use super::parts::Parts;
use super::systemd::{Notify, Sockets};
use super::{
    StartError, checkup, enough_files, fitness, frozen, identity, machines, make_data_dir,
    raise_open_files, records, relocate,
};

/// What the parts of the server get beyond the time of requests and operations to end when it stops.
const REST: Duration = Duration::from_secs(2);

/// How long it may take to close the store, and to find out which mounts do not answer.
const CLOSING: Duration = Duration::from_secs(1);

/// How often it is looked what a stopping server waits for.
const WATCH: Duration = Duration::from_secs(1);

/// How often enumerations that nobody pulls are looked for.
const SWEEP: Duration = Duration::from_secs(5);

/// A running server.
pub struct Server {
    address: SocketAddr,
    secure_address: Option<SocketAddr>,
    tls: Option<Arc<Live>>,
    audit: Audit,
    stop_timeout: Duration,
    notify: Arc<Notify>,
    operation: Arc<operation::Server>,
    clock: SharedClock,
    stop: CancellationToken,
    tasks: TaskTracker,
    jobs: Arc<Jobs>,
    store: Arc<SqliteStore>,
    coordinator: Arc<Coordinator>,
    frozen: Arc<FrozenFiles>,
}

impl Server {
    /// Opens the data directory (made if missing), joins the parts, recovers what a dead process left,
    /// and listens.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(data_dir: &Path, config: &Config) -> Result<Self, StartError> {
        Self::start_with(data_dir, config, Sockets::default(), Arc::default(), false).await
    }

    /// [`Server::start`] under a service manager: on its sockets, if it has opened some, and telling it. The data
    /// directory is this process's until it is gone.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start_on(
        data_dir: &Path,
        config: &Config,
        sockets: Sockets,
        notify: Arc<Notify>,
    ) -> Result<Self, StartError> {
        Self::start_with(data_dir, config, sockets, notify, true).await
    }

    async fn start_with(
        data_dir: &Path,
        config: &Config,
        sockets: Sockets,
        notify: Arc<Notify>,
        for_life: bool,
    ) -> Result<Self, StartError> {
        enough_files(config.limits.connections, raise_open_files()).map_err(StartError::Config)?;
        fitness::require(config, data_dir, &sockets)?;
        let data_dir = make_data_dir(data_dir)?;
        let sqlite = records::open_store(&data_dir)?;
        if for_life {
            sqlite.keep_directory(&data_dir)?;
        }
        records::require_known(&data_dir, &sqlite)?;
        relocate::writable(&data_dir)?;
        machines::require_unmoved(&data_dir)?;
        let parts = Parts::open(&data_dir, config, sqlite)?;
        warn(&fitness::exposed_roots(config));
        relocate::in_place(&parts, &data_dir).await?;
        let store = parts.store.clone();
        let auth = authenticator(&data_dir, config, &parts)?;
        let doctor = checkup::doctor(&parts, &data_dir, config, Some(auth.clone()));
        let Parts {
            clock,
            sqlite,
            compute,
            jobs,
            audit,
            frozen,
            coordinator,
            library,
            ..
        } = parts;
        // What fails now is told and tried again by the task that follows the store.
        let _later = frozen::renew(&store, &frozen).await;
        let recovered = coordinator.recover().await;
        let recovered = recovered.map_err(|e| StartError::recovery(&data_dir, e))?;
        records::settle(&data_dir, &sqlite).await?;
        if recovered != Recovered::default() {
            tracing::info!("Recovered: {recovered}");
        }
        if let Err(error) = identity::settle(&data_dir) {
            tracing::warn!(%error, "A copy of the data directory cannot be told from it yet");
        }
        if let Some(library) = &library {
            library.record_images();
        }
        coordinator
            .resolve_links()
            .await
            .map_err(StartError::failed)?;
        coordinator
            .look_at_files()
            .await
            .map_err(StartError::failed)?;
        coordinator.tell_of_copies();
        let host: Arc<str> = host_name().into();
        let registry = virtualization::registry(virtualization::Deps {
            schema: Arc::new(Schema::builtin()),
            store,
            jobs: jobs.clone(),
            machines: compute.observe(),
            coordinator: coordinator.clone(),
            clock: clock.clone(),
            host: host.clone(),
            inline_wait: config.snapshot.inline_wait,
            kept: Arc::default(),
        })
        .map_err(StartError::failed)?
        .with_ready(Box::new(move || compute.looked()));
        let settings = settings(config, &host, &audit);
        let operation = operation::Server::new(Arc::new(registry), settings, clock.clone());
        let listeners = listeners(&data_dir, config, sockets, &clock).await?;
        let address = |secure: bool| {
            let mut all = listeners.iter().filter(|l| l.tls.is_some() == secure);
            let found = all.next().map(|l| l.socket.local_addr());
            found.transpose().map_err(StartError::failed)
        };
        let server = Self {
            address: address(false)?.ok_or_else(|| StartError::failed("nowhere to listen"))?,
            secure_address: address(true)?,
            tls: listeners.iter().find_map(|l| l.tls.clone()),
            audit,
            stop_timeout: config.limits.stop_timeout,
            notify,
            operation: operation.clone(),
            clock,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            jobs,
            store: sqlite,
            coordinator,
            frozen,
        };
        server.spawn(listeners, operation, auth, config);
        match Socket::open(&data_dir) {
            Ok(socket) => {
                let stop = server.stop.clone();
                server
                    .tasks
                    .spawn(async move { socket.serve(doctor, stop).await });
            }
            Err(error) => tracing::warn!(%error, "`groupshot doctor` cannot ask this server"),
        }
        Ok(server)
    }

    /// Where it listens for plain HTTP; the port is the real one.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens for HTTPS, if it does.
    #[must_use]
    pub fn secure_address(&self) -> Option<SocketAddr> {
        self.secure_address
    }

    /// What exchanges the certificates while the server runs.
    #[must_use]
    pub fn reload(&self) -> Reload {
        Reload {
            tls: self.tls.clone(),
            audit: self.audit.clone(),
            clock: self.clock.clone(),
        }
    }

    /// Comes back when it stops, whyever.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + use<> {
        self.stop.clone().cancelled_owned()
    }

    /// Serves until `signal`, then stops in order: no new connections, requests and operations that run may
    /// end within `limits.stop_timeout`, the store is closed. A job that still runs then is finished or
    /// undone by the next start.
    ///
    /// # Errors
    /// [`StartError::Failed`] if something could not be made durable; the process must end and recover.
    pub async fn run_until(&self, signal: impl Future<Output = ()>) -> Result<(), StartError> {
        let work = async {
            let broken = tokio::select! {
                () = signal => None,
                cause = self.store.broken() => Some(cause),
                cause = self.coordinator.fatal() => Some(cause),
            };
            self.drain(broken.is_none()).await;
            broken
        };
        let broken = tokio::select! {
            broken = work => broken,
            () = self.notify.keep_alive() => None,
        };
        match broken {
            Some(cause) => Err(StartError::Failed(cause)),
            None => Ok(()),
        }
    }

    /// Lets what runs come to its end, and says what that is. Operations are waited for only if their ends
    /// can be made durable.
    async fn drain(&self, durable: bool) {
        let limit = self.stop_timeout;
        tracing::info!(?limit, "Stopping");
        self.stop.cancel();
        self.tasks.close();
        let parts = timeout(limit + REST, self.tasks.wait());
        let operations = async {
            if durable {
                let _late = timeout(limit, self.coordinator.idle()).await;
            }
        };
        let mut ended = pin!(join(parts, operations));
        let mut ticks = tokio::time::interval(WATCH);
        let mut said = String::new();
        loop {
            let waits = self.under_way();
            if waits != said {
                tracing::info!("Waiting for {waits}");
                self.notify.stopping(&format!("Waiting for {waits}"));
                said = waits;
            }
            tokio::select! {
                _ = &mut ended => break,
                _ = ticks.tick() => {}
            }
        }
        // What is still open then is closed by the guard.
        let _late = timeout(REST, self.coordinator.windows()).await;
        self.coordinator.close();
        let left: Vec<_> = self.running_jobs().map(|id| id.to_string()).collect();
        if !left.is_empty() {
            tracing::warn!(
                jobs = left.join(" "),
                "Left to the next start, which finishes or undoes them"
            );
        }
        if left.is_empty() && self.operation.requests() == 0 {
            let store = Arc::clone(&self.store);
            let closed = tokio::task::spawn_blocking(move || store.close());
            let _late = timeout(CLOSING, closed).await;
        }
        self.audit.finish(CLOSING).await;
        self.tell_what_is_silent().await;
    }

    /// Names the mounts that keep the kernel from closing files there.
    async fn tell_what_is_silent(&self) {
        let files = self.frozen.files();
        let asking = tokio::task::spawn_blocking(move || held::unanswered(files, CLOSING));
        let silent = asking.await.unwrap_or_default();
        if !silent.is_empty() {
            let places: Vec<_> = silent.iter().map(|p| p.display().to_string()).collect();
            tracing::warn!(
                places = places.join(", "),
                "Not waited for: they do not answer. The kernel may keep this process, which does nothing any more, and with it the lock of the data directory until they do; mend them or unmount them by force"
            );
        }
    }

    fn running_jobs(&self) -> impl Iterator<Item = JobId> {
        let all = self.jobs.all().into_iter();
        all.filter(|job| !job.state.is_terminal()).map(|job| job.id)
    }

    /// What a stopping server waits for.
    fn under_way(&self) -> String {
        let count = |n: usize, one: &str| match n {
            1 => format!("1 {one}"),
            n => format!("{n} {one}s"),
        };
        let requests = count(self.operation.requests(), "request");
        format!(
            "{requests} and {}",
            count(self.running_jobs().count(), "job")
        )
    }

    fn spawn(
        &self,
        listeners: Vec<Listener>,
        operation: Arc<operation::Server>,
        auth: Arc<Authenticator>,
        config: &Config,
    ) {
        let settings = http::TransportSettings {
            limits: transport(&config.limits),
            // What is no origin was refused when the file was read.
            allowed_origins: config.http.origins().unwrap_or_default(),
            audit: self.audit.clone(),
        };
        let stop = self.stop.clone();
        let serve = http::serve_all(listeners, operation.clone(), auth, settings, stop);
        self.tasks.spawn(serve);
        let (jobs, stop) = (self.jobs.clone(), self.stop.clone());
        self.tasks.spawn(async move { jobs.run(stop).await });
        let (store, frozen) = (self.store.clone(), self.frozen.clone());
        self.tasks
            .spawn(frozen::follow(store, frozen, self.stop.clone()));
        let (coordinator, stop) = (self.coordinator.clone(), self.stop.clone());
        self.tasks
            .spawn(async move { coordinator.watch_files(stop).await });
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let due = || async {
                operation.enumerates().await;
                tokio::time::sleep(SWEEP).await;
            };
            while stop.run_until_cancelled(due()).await.is_some() {
                operation.sweep();
            }
        });
    }
}

/// Takes up changed certificates, keys and revocation lists.
#[derive(Clone)]
pub struct Reload {
    tls: Option<Arc<Live>>,
    audit: Audit,
    clock: SharedClock,
}

impl Reload {
    /// SHA-256 fingerprint of the certificate that is shown now, if TLS is spoken.
    #[must_use]
    pub fn fingerprint(&self) -> Option<String> {
        Some(self.tls.as_ref()?.shown().fingerprint.clone())
    }

    /// Reads the files again and logs what came of it: the new ones, or the old ones and why. The audit
    /// file is opened again.
    pub fn now(&self) {
        self.audit.reopen();
        let Some(tls) = &self.tls else {
            tracing::info!("Nothing to read again: no TLS");
            return;
        };
        match tls.reload(self.clock.now()) {
            Ok(shown) => {
                tracing::info!(fingerprint = %shown.fingerprint, "TLS files read again");
                warn(&shown.warnings);
            }
            Err(error) => tracing::error!(%error, "TLS stays as it was"),
        }
    }
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

/// Plain HTTP first, then HTTPS if it is configured or a socket for it was handed over.
async fn listeners(
    data_dir: &Path,
    config: &Config,
    handed: Sockets,
    clock: &SharedClock,
) -> Result<Vec<Listener>, StartError> {
    let mut all = Vec::new();
    for socket in sockets(handed.http, Some(config.listen.http)).await? {
        all.push(Listener { socket, tls: None });
    }
    let secure = sockets(handed.https, config.listen.https).await?;
    if secure.is_empty() {
        return Ok(all);
    }
    let directory = data_dir.join("tls");
    let tls = Live::load(config.tls.files(), &directory, &host(), clock.now())?;
    warn(&tls.shown().warnings);
    let tls = Arc::new(tls);
    for socket in secure {
        let tls = Some(tls.clone());
        all.push(Listener { socket, tls });
    }
    Ok(all)
}

/// Those that were handed over, or else one at the address.
async fn sockets(
    handed: Vec<std::net::TcpListener>,
    address: Option<SocketAddr>,
) -> Result<Vec<TcpListener>, StartError> {
    match (handed.is_empty(), address) {
        (true, Some(address)) => Ok(vec![listen(address).await?]),
        _ => {
            let taken = handed.into_iter().map(TcpListener::from_std);
            taken.collect::<Result<_, _>>().map_err(StartError::failed)
        }
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|e| fitness::cannot_listen(address, &e))
}

fn authenticator(
    data_dir: &Path,
    config: &Config,
    parts: &Parts,
) -> Result<Arc<Authenticator>, StartError> {
    let clock = parts.clock.clone();
    let users = Users::follow(data_dir, clock.clone())?;
    if let Err(error) = users::vouch(data_dir) {
        tracing::warn!(%error, "The users file gets no checksum");
    }
    if let Some(text) = checkup::gone(data_dir, config, &parts.store.state()) {
        tracing::error!("{text}");
    } else if users.is_empty() && config.roles.mappings.is_empty() {
        tracing::warn!(
            "No users, so nobody can log on; add one: groupshot user add NAME --role administrator --data-dir {}",
            data_dir.display()
        );
    }
    let auth = Authenticator::new(users, config.auth, clock).map_err(StartError::Failed)?;
    let mappings = config.roles.mappings().map_err(StartError::Config)?;
    Ok(Arc::new(
        auth.with_mappings(mappings).with_audit(parts.audit.clone()),
    ))
}

/// How much a client may ask of the transport.
fn transport(limits: &LimitSettings) -> http::TransportLimits {
    http::TransportLimits {
        connections: limits.connections,
        header: limits.header_timeout,
        // The time of the operation counts from there too: what comes later can only be late.
        packet_retrieval: limits.packet_timeout.min(limits.operation_timeout),
        idle: limits.idle_timeout,
        user_connections: limits.user_connections,
        drain: limits.stop_timeout,
        ..http::TransportLimits::default()
    }
}

fn settings(config: &Config, host: &str, audit: &Audit) -> operation::ProtocolSettings {
    let limits = &config.limits;
    operation::ProtocolSettings {
        limits: RequestLimits {
            max_envelope_size: usize::try_from(limits.envelope).unwrap_or(usize::MAX),
            timeout: limits.operation_timeout,
            host: host.to_owned(),
            ..RequestLimits::default()
        },
        contexts: operation::ContextLimits {
            per_user: limits.per_user,
            total: limits.contexts,
            idle: limits.enumeration_timeout,
            ..operation::ContextLimits::default()
        },
        basic: config.auth.basic,
        allow_unencrypted: config.auth.allow_unencrypted,
        https: config.listen.https.is_some(),
        client_certificates: config.listen.https.is_some() && !config.roles.mappings.is_empty(),
        user_requests: Some(limits.user_requests),
        audit: audit.clone(),
        connections: limits.connections,
        machine: host.to_owned(),
    }
}

/// The name of this host; empty if it has none.
fn host() -> String {
    let name = nix::unistd::gethostname().ok();
    name.and_then(|n| n.into_string().ok()).unwrap_or_default()
}

/// The name of this host, upper case, as Hyper-V shows it.
fn host_name() -> String {
    let name = host();
    let short = name.split('.').next().unwrap_or_default().to_uppercase();
    if short.is_empty() {
        "LOCALHOST".to_owned()
    } else {
        short
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_not_taken_beyond_the_time_of_its_operation() {
        let seconds = |packet, operation| {
            let limits = LimitSettings {
                packet_timeout: Duration::from_secs(packet),
                operation_timeout: Duration::from_secs(operation),
                ..LimitSettings::default()
            };
            transport(&limits).packet_retrieval.as_secs()
        };
        assert_eq!(seconds(120, 60), 60);
        assert_eq!(seconds(30, 60), 30);
        let as_they_are = transport(&LimitSettings::default());
        assert_eq!(as_they_are.packet_retrieval.as_secs(), 60);
    }
}
