//! Whether the terminal that a process was started from is still there.

use std::fs::{self, File};
use std::future::pending;
use std::os::fd::AsFd;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::{Mode, OFlags, open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The controlling terminal, held from the start: once it has hung up it cannot be opened any more.
#[derive(Debug)]
pub(super) struct Terminal(Option<AsyncFd<File>>);

impl Terminal {
    /// To be called within the runtime, and before SIGHUP is listened for. Whoever ignores that signal (`nohup`) does not
    /// care for the terminal; without a controlling terminal (`setsid`, systemd) there is none to care for.
    pub(super) fn at_start() -> Self {
        if hangup_is_ignored() {
            return Self(None);
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let Ok(terminal) = open("/dev/tty", flags, Mode::empty()) else {
            return Self(None);
        };
        #[expect(
            deprecated,
            reason = "its successor is unsafe, for descriptors that others may close; this one is ours"
        )]
        let watched = AsyncFd::with_interest(File::from(terminal), Interest::READABLE);
        match watched {
            Ok(terminal) => Self(Some(terminal)),
            Err(error) => {
                tracing::warn!(%error, "That the terminal hangs up is told by a signal alone");
                Self(None)
            }
        }
    }

    /// Comes back once it has hung up. The kernel tells it: nobody looks.
    pub(super) async fn hang_up(&self) {
        let Some(terminal) = &self.0 else {
            return pending().await;
        };
        loop {
            // Whatever somebody types wakes it too.
            let Ok(mut told) = terminal.readable().await else {
                return pending().await; // the process ends
            };
            if told.ready().is_read_closed() || self.has_hung_up() {
                return;
            }
            told.clear_ready();
        }
    }

    /// Has it hung up?
    pub(super) fn has_hung_up(&self) -> bool {
        let Some(terminal) = &self.0 else {
            return false;
        };
        let mut asked = [PollFd::new(terminal.get_ref().as_fd(), PollFlags::empty())];
        let told = poll(&mut asked, PollTimeout::ZERO);
        let events = asked.iter().filter_map(PollFd::revents);
        told.is_ok()
            && events
                .fold(PollFlags::empty(), |a, b| a | b)
                .contains(PollFlags::POLLHUP)
    }
}

/// Was this process started with SIGHUP ignored?
fn hangup_is_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let bit = u32::try_from(libc::SIGHUP)
        .unwrap_or_default()
        .saturating_sub(1);
    mask.is_some_and(|mask| mask >> bit & 1 == 1)
}
