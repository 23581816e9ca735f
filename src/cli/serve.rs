//! `groupshot serve`: the server, until SIGTERM or SIGINT. SIGHUP reads certificates again, or ends it if the
//! terminal that it was started from is gone.

use std::mem::{self, ManuallyDrop};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::engine::settings::{EngineKind, MACHINES_MAX};
use crate::server::{Notify, Reload, Server, Sockets};
use crate::telemetry;

use super::failure::Failure;
use super::local::{ConfigFile, DataDir, listen_address};
use super::output::{Output, print};
use super::stop;
use super::terminal::Terminal;

#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    data: DataDir,
    /// Where to listen for plain HTTP; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", value_parser = listen_address)]
    listen: Option<SocketAddr>,
    /// Where to listen for HTTPS; port 0 takes a free one. Without a configured certificate the server
    /// makes one for itself, in tls/ of the data directory.
    #[arg(long, value_name = "ADDR", value_parser = listen_address)]
    tls_listen: Option<SocketAddr>,
    /// The engine that runs the machines.
    #[arg(long)]
    engine: Option<EngineKind>,
    /// How many machines the simulation has.
    #[arg(long, value_parser = machines)]
    machines: Option<u32>,
}

fn machines(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|n| *n <= MACHINES_MAX);
    number.ok_or_else(|| format!("expected a whole number from 0 to {MACHINES_MAX}"))
}

pub(super) fn run(command: &Serve, output: &Output) -> Result<(), Failure> {
    let mut config = command.config.load()?;
    if let Some(address) = command.listen {
        config.listen.http = address;
    }
    if let Some(address) = command.tls_listen {
        config.listen.https = Some(address);
    }
    if let Some(engine) = command.engine {
        config.engine.default = engine;
    }
    if let Some(machines) = command.machines {
        config.engine.machines = machines;
    }
    let data_dir = command.data.named()?;
    // Before there are other threads: it changes the environment.
    let sockets = Sockets::from_environment()?;
    start_logging(&config)?;
    let notify = Notify::from_environment();
    // Before the lines that say the server is there: whoever reads them may send a signal.
    let stop = stop::listen(config.limits.stop_timeout, *output)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(serve(&data_dir, &config, sockets, notify, stop));
    // Work that is left to the next start must not keep this process from ending; nor must its files, which the kernel
    // closes.
    mem::forget(runtime);
    result
}

async fn serve(
    data_dir: &Path,
    config: &Config,
    sockets: Sockets,
    notify: Notify,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let terminal = Terminal::at_start();
    let hangup = signal(SignalKind::hangup())?;
    let notify = Arc::new(notify);
    let server = Server::start_on(data_dir, config, sockets, notify.clone()).await?;
    let server = ManuallyDrop::new(server);
    let reload = reload_on_hangup(hangup, terminal, server.reload(), notify.clone());
    let (gone, stopping) = (stop.clone(), server.stopping());
    tokio::spawn(async move {
        tokio::select! {
            () = reload => tracing::info!("The terminal has hung up"),
            () = stopping => {}
        }
        gone.cancel();
    });
    announce(&server);
    notify.ready(&status(&server));
    Ok(server.run_until(stop.cancelled()).await?)
}

/// One line for the service manager.
fn status(server: &Server) -> String {
    match server.secure_address() {
        Some(secure) => format!("Listening on {} and {secure} (TLS)", server.address()),
        None => format!("Listening on {}", server.address()),
    }
}

/// Whoever started us may wait for these lines; that they cannot be written is told, and ends no server.
fn announce(server: &Server) {
    let version = env!("CARGO_PKG_VERSION");
    let mut lines = String::new();
    if let (Some(address), Some(fingerprint)) =
        (server.secure_address(), server.reload().fingerprint())
    {
        lines = format!(
            "groupshot {version} listening on https://{address}/wsman, certificate SHA-256 {fingerprint}\n"
        );
    }
    let address = server.address();
    lines += &format!("groupshot {version} listening on http://{address}/wsman\n");
    if let Err(failure) = print(lines.as_bytes()) {
        tracing::warn!(
            why = failure.message,
            "Nobody was told on standard output that the server is there"
        );
    }
}

/// Comes back when the terminal has hung up. Not every process on it is sent a SIGHUP then: one in the background is
/// not.
async fn reload_on_hangup(
    mut hangup: Signal,
    terminal: Terminal,
    reload: Reload,
    notify: Arc<Notify>,
) {
    loop {
        tokio::select! {
            Some(()) = hangup.recv() => {}
            () = terminal.hang_up() => return,
        }
        if terminal.has_hung_up() {
            return;
        }
        notify.reloading();
        let reload = reload.clone();
        let _ = tokio::task::spawn_blocking(move || reload.now()).await;
        notify.ready("Files read again");
    }
}

pub(super) fn start_logging(config: &Config) -> Result<(), Failure> {
    telemetry::start(&config.log.level, config.log.format).map_err(Failure::usage)
}
