//! How `serve` and `quickstart` end: in order, or at once by a second signal, and never later than they may. How Ctrl-C
//! ends a command that follows a job: the first asks for the end of the job, the second ends the command.
//!
//! A thread of its own hears the signals, for a disk or a server that hangs may hold any other.

use std::io;
use std::process;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::held;
use crate::telemetry;

use super::failure::Failure;
use super::output::Output;

/// What an orderly end may take beyond the time of requests and operations.
const ORDERLY: Duration = Duration::from_secs(10);
/// How long a reader of standard error is waited for after that.
const LAST_WORD: Duration = Duration::from_secs(5);

/// Cancelled with the first SIGTERM or SIGINT. The process ends with the second one, and when it still lives `limit` and
/// [`ORDERLY`] after the first, or after somebody else has cancelled it. Either takes up to [`LAST_WORD`].
pub(super) fn listen(limit: Duration, output: Output) -> io::Result<CancellationToken> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _in_it = runtime.enter();
        Signals::listen()?
    };
    let stop = CancellationToken::new();
    let told = stop.clone();
    let named = thread::Builder::new().name("stop".to_owned());
    named.spawn(move || {
        let why = runtime.block_on(too_late(async || signals.next().await, &told, limit));
        let next = "the next start finishes or undoes what was under way";
        at_once(Failure::failed(format_args!("{why}; {next}")), output)
    })?;
    Ok(stop)
}

/// Comes back with why the process is to end at once, if it still lives then.
async fn too_late(
    mut signal: impl AsyncFnMut(),
    told: &CancellationToken,
    limit: Duration,
) -> String {
    tokio::select! {
        () = signal() => told.cancel(),
        () = told.cancelled() => {}
    }
    tokio::select! {
        () = signal() => "stopped at once by a second signal".to_owned(),
        () = tokio::time::sleep(limit + ORDERLY) => overdue(limit),
    }
}

/// What has kept the process from an orderly end.
fn overdue(limit: Duration) -> String {
    let places = held::silent_places().into_keys();
    let places: Vec<_> = places.map(|p| p.display().to_string()).collect();
    let what = match places.is_empty() {
        true => "work on disks that has not come to its end".to_owned(),
        false => format!("{}, which does not answer", places.join(", ")),
    };
    format!(
        "stopped {} s late, without waiting for {what}",
        ORDERLY.as_secs()
    ) + &format!(" (limits.stop_timeout is {} s)", limit.as_secs_f32())
}

fn at_once(failure: Failure, output: Output) -> ! {
    let exit = i32::from(failure.exit.code());
    let (said, heard) = mpsc::channel();
    thread::spawn(move || {
        telemetry::finish(LAST_WORD / 2);
        output.error(&failure);
        let _nobody_waits = said.send(());
    });
    let _nobody_reads = heard.recv_timeout(LAST_WORD);
    process::exit(exit)
}

/// SIGTERM and SIGINT, heard from the moment that this is made.
struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    /// Must be called within the runtime.
    fn listen() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    /// Comes back with the next of them.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// Ctrl-C in a command that follows a job.
pub(super) struct Interrupts {
    /// Cancelled with the first one.
    pub(super) asked: CancellationToken,
    over: CancellationToken,
}

/// From now on the first Ctrl-C means the job, and the second one ends the process at once, which says `goes_on` then;
/// so does the first once what this gives is dropped.
pub(super) fn interrupts(goes_on: String, output: Output) -> io::Result<Interrupts> {
    let (asked, over) = (CancellationToken::new(), CancellationToken::new());
    let given = Interrupts {
        asked: asked.clone(),
        over: over.clone(),
    };
    let (ready, is_ready) = mpsc::channel();
    let named = thread::Builder::new().name("stop".to_owned());
    named.spawn(move || {
        let listening = Builder::new_current_thread().enable_all().build();
        let listening = listening.and_then(|runtime| {
            let heard = {
                let _in_it = runtime.enter();
                signal(SignalKind::interrupt())?
            };
            Ok((runtime, heard))
        });
        let (runtime, mut heard) = match listening {
            Ok(listening) => listening,
            Err(error) => return drop(ready.send(Err(error))),
        };
        let _waits = ready.send(Ok(()));
        let interrupt = async || {
            let _signal = heard.recv().await;
        };
        runtime.block_on(enough(interrupt, &asked, &over));
        let why = match over.is_cancelled() {
            true => "interrupted".to_owned(),
            false => goes_on,
        };
        at_once(Failure::failed(why), output)
    })?;
    let gone = |_| Err(io::ErrorKind::BrokenPipe.into());
    is_ready.recv().unwrap_or_else(gone)?;
    Ok(given)
}

/// Comes back when the process is to end at once.
async fn enough(
    mut interrupt: impl AsyncFnMut(),
    asked: &CancellationToken,
    over: &CancellationToken,
) {
    tokio::select! {
        () = interrupt() => asked.cancel(),
        () = over.cancelled() => {}
    }
    interrupt().await;
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        self.over.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use tokio::time::Instant;

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_process_that_does_not_end_in_order_is_ended_15_s_after_its_time() {
        let told = Duration::from_secs(15) - LAST_WORD;
        let (began, mut signals) = (Instant::now(), 0);
        let stop = CancellationToken::new();
        let signal = async || {
            signals += 1;
            match signals {
                1 => tokio::time::sleep(Duration::from_secs(7)).await,
                _ => std::future::pending().await,
            }
        };
        let why = too_late(signal, &stop, LIMIT).await;
        assert!(stop.is_cancelled());
        assert_eq!(began.elapsed(), Duration::from_secs(7 + 30) + told);
        assert!(why.starts_with("stopped 10 s late"), "{why}");

        // Also where no signal has ended it; a second one ends it at once.
        let began = Instant::now();
        let why = too_late(async || std::future::pending().await, &stop, LIMIT).await;
        assert_eq!(began.elapsed(), LIMIT + told, "{why}");
        let why = too_late(async || {}, &CancellationToken::new(), LIMIT).await;
        assert!(why.contains("second signal"), "{why}");
    }
    #[test]
    fn the_first_ctrl_c_means_the_job_and_the_next_the_command() {
        let (asked, over) = (CancellationToken::new(), CancellationToken::new());
        let mut signals = 0;
        let once = async || {
            signals += 1;
            if signals > 1 {
                std::future::pending::<()>().await;
            }
        };
        assert!(enough(once, &asked, &over).now_or_never().is_none());
        assert!(asked.is_cancelled());
        assert!(enough(async || {}, &asked, &over).now_or_never().is_some());

        // Once no job is followed any more, the first one ends it.
        over.cancel();
        let asked = CancellationToken::new();
        let never = async || std::future::pending::<()>().await;
        assert!(enough(never, &asked, &over).now_or_never().is_none());
        assert!(!asked.is_cancelled());
    }
}
