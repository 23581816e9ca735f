//! Time as an argument: wall clock and monotonic clock behind one trait, so that tests own both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// Where the program takes its time from.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock, UTC.
    fn now(&self) -> Timestamp;

    /// Time since some fixed moment; never goes back. For leases, timeouts and idle limits.
    fn elapsed(&self) -> Duration;
}

/// A clock that is shared.
pub type SharedClock = Arc<dyn Clock>;

/// The clocks of the host.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose [`Clock::elapsed`] begins now.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that asks the host"
    )]
    pub fn shared() -> SharedClock {
        Arc::new(Self {
            started: Instant::now(),
        })
    }
}

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that asks the host"
    )]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// A clock that stands still until it is told to go on.
#[derive(Debug)]
pub struct ManualClock {
    start: Timestamp,
    millis: AtomicU64,
}

impl ManualClock {
    /// A clock that shows `start`.
    #[must_use]
    pub fn at(start: Timestamp) -> Arc<Self> {
        Arc::new(Self {
            start,
            millis: AtomicU64::new(0),
        })
    }

    /// Moves both clocks on by `step`, to the millisecond.
    pub fn advance(&self, step: Duration) {
        let millis = u64::try_from(step.as_millis()).unwrap_or(u64::MAX);
        self.millis.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.start
            .saturating_add(self.elapsed())
            .unwrap_or(Timestamp::MAX)
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.millis.load(Ordering::SeqCst))
    }
}
