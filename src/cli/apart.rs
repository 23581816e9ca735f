//! Commands that look at files of machines, in a process that is left behind where such a look does not come back.
//!
//! A thread that stands in a call on a hung mount keeps its process, whatever that is told: it has printed its result and
//! is there until the mount answers, and so is whoever waits for it. So these commands are done in a process of their
//! own. It says that it is through and how, and is waited for a moment longer, for what it lets go when it ends.

use std::env;
use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, raise};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::set_parent_process_death_signal;

use crate::held;

/// Names the descriptor on which the process that does it says how it went.
const THROUGH: &str = "GROUPSHOT_THROUGH";
/// It, open.
static LINE: OnceLock<File> = OnceLock::new();
/// How long a process that is through may take to end.
const ENDING: Duration = Duration::from_secs(1);
/// What is opened is there.
const MODE: u32 = 0o600;
/// How often it is looked whether it has.
const GLANCE: Duration = Duration::from_millis(1);

/// Has the command that this process was started for done in another one, and gives its exit code; `None` in that
/// other one, and where there can be none. What was begun there is never begun here as well.
pub(super) fn done() -> Option<ExitCode> {
    if let Some(number) = number() {
        end_with_parent();
        // Whom this process is given to later may not open it.
        let line = PathBuf::from(format!("/proc/self/fd/{number}"));
        // Else it is waited for to its end.
        let _known = held::append(&line, MODE).map(|line| LINE.set(line));
        return None;
    }
    let (mut child, mut told) = begun().ok()?;
    Some(match heard(&mut told) {
        Some(code) => {
            leave(&mut child);
            ExitCode::from(code)
        }
        None => ended(&mut child).unwrap_or(ExitCode::FAILURE),
    })
}

/// What is left behind ends with who asked for it, as soon as it can.
pub(super) fn end_with_parent() {
    if number().is_some() {
        let _lives_longer = set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    }
}

/// The descriptor on which this process says how it went, if it does the work of another one.
fn number() -> Option<u32> {
    env::var(THROUGH).ok()?.parse().ok()
}

/// The other process, and where it says how it went.
fn begun() -> io::Result<(Child, PipeReader)> {
    let (told, tell) = io::pipe()?;
    fcntl_setfd(&tell, FdFlags::empty())?;
    let child = Command::new("/proc/self/exe")
        .args(env::args_os().skip(1))
        .env(THROUGH, tell.as_raw_fd().to_string())
        .spawn()?;
    Ok((child, told))
}

/// The exit code of a process that is through; `None` if it does not say.
fn heard(told: &mut impl Read) -> Option<u8> {
    let mut code = [0];
    told.read_exact(&mut code).ok()?;
    let [code] = code;
    Some(code)
}

/// Waits a moment for the end of a process that is through.
#[expect(
    clippy::disallowed_methods,
    reason = "this process does nothing else, and shows the time to nobody"
)]
fn leave(child: &mut Child) {
    let begun = Instant::now();
    while let Ok(None) = child.try_wait()
        && begun.elapsed() < ENDING
    {
        thread::sleep(GLANCE);
    }
}

/// The end of a process that has not said how it went, as an end of this one.
fn ended(child: &mut Child) -> io::Result<ExitCode> {
    let status = child.wait()?;
    if let Some(signal) = status.signal() {
        raise(Signal::try_from(signal)?)?;
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Says that the command is through with this exit code, if somebody waits for that. Nothing more can be printed.
pub(super) fn through(code: u8) {
    let Some(line) = LINE.get() else {
        return;
    };
    let said = || {
        // Whoever read it may have had enough (`| head`).
        let _nobody_reads = io::stdout().flush();
        // Whoever reads what was printed waits for its end, which a thread that stands would keep open.
        let null = held::append(Path::new("/dev/null"), MODE)?;
        dup2_stdin(&null)?;
        dup2_stdout(&null)?;
        dup2_stderr(&null)?;
        let mut line = line;
        line.write_all(&[code])
    };
    // Else it is waited for to its end.
    let _heard = said();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Is interrupted by a signal first.
    struct Interrupted(bool, &'static [u8]);

    impl Read for Interrupted {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            match std::mem::replace(&mut self.0, false) {
                true => Err(io::ErrorKind::Interrupted.into()),
                false => self.1.read(bytes),
            }
        }
    }

    #[test]
    fn a_signal_takes_nothing_from_what_is_said() {
        assert_eq!(heard(&mut Interrupted(true, &[3])), Some(3));
        assert_eq!(heard(&mut Interrupted(true, &[])), None);
    }
}
