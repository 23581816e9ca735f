//! A password that is typed at the terminal. It is not shown, and what is typed later is shown again however the
//! question ends: by a signal too.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::fs::{Mode, OFlags, open};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// What ends a process at a terminal, or stops it for a while.
const SIGNALS: [Signal; 5] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGTSTP,
];

/// How a question ended.
enum Told {
    Line(Vec<u8>),
    Signal(Signal),
}

/// Asks at the terminal, whatever the standard streams are. A signal does what it does elsewhere, once what is typed is
/// shown again; a process that goes on after it asks again.
///
/// # Errors
/// There is no terminal; nothing was typed before its end; it is no UTF-8.
pub(super) fn password(prompt: &str) -> io::Result<String> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let terminal = File::from(open("/dev/tty", flags, Mode::empty())?);
    loop {
        match ask(&terminal, prompt)? {
            Told::Signal(signal) => raise(signal)?,
            Told::Line(line) => {
                return String::from_utf8(line).map_err(|_| {
                    io::Error::new(io::ErrorKind::InvalidData, "the password is not UTF-8")
                });
            }
        }
    }
}

fn ask(mut terminal: &File, prompt: &str) -> io::Result<Told> {
    let held = Held::new()?;
    // Dropped first: no signal counts before what is typed is shown again.
    let _hidden = Hidden::new(terminal)?;
    terminal.write_all(prompt.as_bytes())?;
    let mut line = Vec::new();
    loop {
        let mut asked = [
            PollFd::new(held.told.as_fd(), PollFlags::POLLIN),
            PollFd::new(terminal.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut asked, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            ready => ready?,
        };
        if let Some(signal) = held.told.read_signal()? {
            let number = i32::try_from(signal.ssi_signo).map_err(io::Error::other)?;
            terminal.write_all(b"\n")?;
            return Ok(Told::Signal(Signal::try_from(number)?));
        }
        // The terminal gives whole lines, or parts of one that end where Ctrl-D was typed. Of one byte it is asked at a
        // time, as a signal may come instead of the next.
        let mut byte = [0];
        match (terminal.read(&mut byte)?, byte) {
            (0, _) if line.is_empty() => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "no password was typed",
                ));
            }
            (0, _) | (_, [b'\n']) => return Ok(Told::Line(line)),
            (_, [other]) => line.push(other),
        }
    }
}

/// Signals that wait until they are read, or this is dropped.
struct Held {
    told: SignalFd,
    before: SigSet,
}

impl Held {
    fn new() -> io::Result<Self> {
        let signals: SigSet = SIGNALS.into_iter().collect();
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let told = SignalFd::with_flags(&signals, flags)?;
        let before = signals.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        Ok(Self { told, before })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.before.thread_set_mask();
    }
}

/// A terminal that does not show what is typed, but the end of the line.
struct Hidden<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Hidden<'a> {
    fn new(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut now = before.clone();
        now.local_modes.remove(LocalModes::ECHO);
        now.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(terminal, OptionalActions::Now, &now)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}
