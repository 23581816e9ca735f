//! Whether the terminal that a process was started from is still there.

use std::fs::{self, File};
use std::os::fd::AsFd;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::{Mode, OFlags, open};

/// The controlling terminal, held from the start: once it has hung up it cannot be opened any more.
#[derive(Debug)]
pub(super) struct Terminal(Option<File>);

impl Terminal {
    /// To be called before SIGHUP is listened for. Whoever ignores that signal (`nohup`) does not care for the
    /// terminal; without a controlling terminal (`setsid`, systemd) there is none to care for.
    pub(super) fn at_start() -> Self {
        if hangup_is_ignored() {
            return Self(None);
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let terminal = open("/dev/tty", flags, Mode::empty());
        Self(terminal.ok().map(File::from))
    }

    /// Is there one to care for?
    pub(super) fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// Has it hung up?
    pub(super) fn has_hung_up(&self) -> bool {
        let Some(terminal) = &self.0 else {
            return false;
        };
        let mut asked = [PollFd::new(terminal.as_fd(), PollFlags::empty())];
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
