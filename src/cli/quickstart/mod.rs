//! `groupshot quickstart`: the main job in one command, on a fresh machine.
//!
//! Three machines with real disks, a server on loopback, a collection, two snapshot sets over WS-Management,
//! every captured disk compared by bytes with what the machine held at the cut. Then the first set is applied,
//! and every disk is compared again. Then it stays up.

mod disks;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::audit::AuditTo;
use crate::auth::users;
use crate::client::Credentials;
use crate::config::Config;
use crate::handler::Role;
use crate::held;
use crate::id::WireId;
use crate::server::{self, Server};

use super::failure::Failure;
use super::local::listen_address;
use super::output::{Output, print};
use super::serve::start_logging;
use super::stop;
use disks::{Expected, Pattern};
use wire::Wire;

#[derive(Debug, Args)]
pub(super) struct Quickstart {
    /// Where everything goes; used again if an earlier quickstart made it.
    #[arg(long, default_value = "groupshot-demo")]
    data_dir: PathBuf,
    /// Where to listen for plain HTTP; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", value_parser = listen_address, default_value = "127.0.0.1:5985")]
    listen: SocketAddr,
    /// Password of the user `admin`; made up and printed if left out.
    #[arg(long)]
    password: Option<String>,
    /// Stop after the demonstration.
    #[arg(long)]
    exit: bool,
}

const USER: &str = "admin";
/// Marks a data directory that quickstart made.
const MARK: &str = ".groupshot-quickstart";
/// How long the second call waits for its own job.
const INLINE_WAIT: Duration = Duration::from_secs(30);

pub(super) fn run(command: &Quickstart, output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return Err(Failure::usage(
            "quickstart tells its story to people; --json does not go with it",
        ));
    }
    if command.password.as_deref() == Some("") {
        return Err(Failure::usage("the password is empty"));
    }
    // One watch for the whole run: a signal between two steps must not be lost.
    let stop = stop::listen(Config::default().limits.stop_timeout, *output)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(demonstrate(command, &stop, output))
}

async fn demonstrate(
    command: &Quickstart,
    stop: &CancellationToken,
    output: &Output,
) -> Result<(), Failure> {
    let mut config = Config::default();
    config.listen.http = command.listen;
    config.log.level = "warn".to_owned();
    config.log.audit = AuditTo::Off;
    start_logging(&config)?;

    let data_dir = own_directory(&command.data_dir)?;
    // A quickstart that still runs here must keep its disks and its password.
    let held = server::hold_data_dir(&data_dir)?;
    let machines = disks::machines(&data_dir)?;
    let names: Vec<&str> = machines.iter().map(|m| m.name.as_str()).collect();
    say(format_args!(
        "Groupshot {} in {}",
        env!("CARGO_PKG_VERSION"),
        data_dir.display()
    ))?;
    say(format_args!(
        "Machines, powered off, with real disks: {}",
        names.join(", ")
    ))?;
    if machines.iter().all(|m| m.overlay_ok) {
        say(
            "They are imported with --overlay-ok: where a file system cannot clone, an overlay becomes the active file.",
        )?;
    }
    let password = set_user(&data_dir, command.password.as_deref())?;
    let credentials = Credentials {
        user: USER.to_owned(),
        password,
    };
    let run = Pattern {
        run: WireId::random()
            .as_u128()
            .to_le_bytes()
            .iter()
            .fold(0, |n, b| n << 7 ^ u64::from(*b)),
        letter: 'A',
    };
    let mut before = Expected::new();
    disks::write(&data_dir, run, true, &mut before)?;
    go_on(stop)?;
    say("Every disk holds pattern A now.")?;
    drop(held);

    let server = Server::start(&data_dir, &config).await?;
    config.listen.http = server.address();
    let wire = Wire::new(server.address(), &credentials, *output)?;
    let first = while_serving(server, stop, async {
        say(format_args!(
            "\nThe server listens on {}, user {USER}.",
            wire.url()
        ))?;
        wire.identify().await?;
        let collection = wire.collection("quickstart", &machines).await?;
        wire.create(&collection, "before").await
    })
    .await?;

    let pattern = Pattern { letter: 'B', ..run };
    let mut after = before.clone();
    let held = server::hold_data_dir(&data_dir)?;
    disks::write(&data_dir, pattern, false, &mut after)?;
    go_on(stop)?;
    say("Half of every disk holds pattern B now.")?;
    drop(held);

    say(
        "\nThe server is started again with [snapshot] inline_wait = \"30s\": a call may wait for its own job.",
    )?;
    config.snapshot.inline_wait = INLINE_WAIT;
    let server = Server::start(&data_dir, &config).await?;
    let wire = Wire::new(server.address(), &credentials, *output)?;
    while_serving(server, stop, async {
        let collection = wire.collection("quickstart", &machines).await?;
        let second = wire.create(&collection, "after").await?;
        let sets = async || {
            compare(&wire, &first, &before, "before").await?;
            compare(&wire, &second, &after, "after").await
        };
        sets().await?;
        compare_active(&data_dir, &after, "as the machine left it").await?;
        wire.apply(&first, "before").await?;
        compare_active(&data_dir, &before, "as at the cut of `before`").await?;
        sets().await
    })
    .await?;
    if command.exit {
        return Ok(());
    }
    stay(&data_dir, config, &credentials, stop).await
}

fn go_on(stop: &CancellationToken) -> Result<(), Failure> {
    match stop.is_cancelled() {
        true => Err(interrupted()),
        false => Ok(()),
    }
}

fn interrupted() -> Failure {
    Failure::failed("interrupted")
}

/// Runs `work` while the server serves, then stops the server in order.
async fn while_serving<T>(
    server: Server,
    stop: &CancellationToken,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let (done, finished) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(async move {
        let over = async {
            // A dropped sender means the same as a message: the work is over.
            let _ = finished.await;
        };
        server.run_until(over).await
    });
    let result = tokio::select! {
        result = work => result,
        () = stop.cancelled() => Err(interrupted()),
    };
    drop(done);
    let served = serving.await.map_err(Failure::failed)?;
    let result = result?;
    served?;
    Ok(result)
}

/// Compares every disk that a set holds with what the machines held at its cut.
async fn compare(wire: &Wire, set: &str, expected: &Expected, name: &str) -> Result<(), Failure> {
    say(format_args!("Set `{name}`, compared by bytes:"))?;
    for (machine, file) in wire.captured(set).await? {
        let bytes = compare_disk(&file, &machine, expected).await?;
        say(format_args!(
            "  {machine}: {} holds {bytes} bytes, all as at the cut",
            file.display()
        ))?;
    }
    Ok(())
}

/// [`disks::compare`] on a thread that may block.
async fn compare_disk(file: &Path, machine: &str, expected: &Expected) -> Result<u64, Failure> {
    let (file, machine, expected) = (file.to_owned(), machine.to_owned(), expected.clone());
    let compared =
        tokio::task::spawn_blocking(move || disks::compare(&file, &machine, &expected)).await;
    compared.map_err(Failure::failed)?
}

/// Compares every disk that the machines run on.
async fn compare_active(data_dir: &Path, expected: &Expected, words: &str) -> Result<(), Failure> {
    say("Active disks, compared by bytes:")?;
    for (machine, file) in disks::active(data_dir)? {
        let bytes = compare_disk(&file, &machine, expected).await?;
        say(format_args!(
            "  {machine}: {} holds {bytes} bytes, {words}",
            file.display()
        ))?;
    }
    Ok(())
}

/// Serves as `groupshot serve` would, until SIGTERM or SIGINT.
async fn stay(
    data_dir: &Path,
    mut config: Config,
    credentials: &Credentials,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    config.snapshot.inline_wait = Duration::ZERO;
    let server = Server::start(data_dir, &config).await?;
    let (address, password) = (server.address(), &credentials.password);
    say(format_args!(
        "\nReady. The server stays up until Ctrl-C: listening on http://{address}/wsman, user {USER}, password {password}"
    ))?;
    say(format_args!(
        "\n{}",
        wire::ready_lines(address, USER, password)
    ))?;
    Ok(server.run_until(stop.cancelled()).await?)
}

/// The directory, if quickstart made it or makes it now.
fn own_directory(directory: &Path) -> Result<PathBuf, Failure> {
    let made_before = directory.join(MARK).is_file();
    if directory.exists() && !made_before {
        return Err(Failure::usage(format_args!(
            "{} exists and was not made by quickstart; give another --data-dir",
            directory.display()
        )));
    }
    let directory = server::make_data_dir(directory)?;
    let text = "made by groupshot quickstart; may be deleted with all of its directory\n";
    held::replace(&directory.join(MARK), text.as_bytes(), 0o640).map_err(io::Error::from)?;
    Ok(directory)
}

/// The user `admin` with that password, or with a fresh one.
fn set_user(data_dir: &Path, password: Option<&str>) -> Result<String, Failure> {
    let password = match password {
        Some(password) => password.to_owned(),
        None => WireId::random().to_string().to_lowercase(),
    };
    if users::list(data_dir)?.iter().any(|u| u.name == USER) {
        users::set_password(data_dir, USER, &password)?;
    } else {
        users::add(data_dir, USER, Role::Administrator, &password)?;
    }
    Ok(password)
}

/// Tells the story, on standard output. That nobody listens any more is no failure.
fn say(line: impl std::fmt::Display) -> Result<(), Failure> {
    print(format!("{line}\n").as_bytes())
}
