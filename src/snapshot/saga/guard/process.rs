//! The guard itself: a process that waits for the end of a window, and lets machines go if that does not come.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::setsid;

use crate::clock::{Clock, SharedClock};
use crate::engine::{Dues, Fence, Freed};
use crate::held;
use crate::snapshot::saga::guard::is_readable;
use crate::snapshot::saga::guard::wire::{self, Cause, Reply, Report};
use crate::snapshot::saga::word::Word;

/// Gives one machine what it is owed; blocks.
pub type Release = fn(&Fence, Dues, &dyn Clock) -> Freed;

/// Among the last that the kernel ends for want of memory.
const SCORE: &[u8] = b"-900";
const SCORES: &str = "/proc/self/oom_score_adj";
/// What the work on one machine needs, bytes.
const STACK: usize = 256 << 10;

/// Guards the machines that are handed over on `pair`, and comes back when they need no guard any more.
///
/// # Errors
/// It cannot guard them; the server was told so, if there is one.
pub fn run(pair: &OwnedFd, release: Release, clock: &SharedClock) -> io::Result<()> {
    match begin(pair, release, clock) {
        Ok(guarding) => {
            wire::answer(pair, &Reply::Ready)?;
            guarding.watch(pair);
            Ok(())
        }
        Err(error) => {
            let _nobody_hears = wire::answer(pair, &Reply::Failed(error.to_string()));
            Err(error)
        }
    }
}

/// All that is done before it is ready, so that nothing can fail later.
struct Guarding {
    word: Word,
    patience: Duration,
    /// Whoever works on a machine waits there.
    gate: Arc<Barrier>,
    work: Vec<(wire::Ward, thread::JoinHandle<Freed>)>,
}

fn begin(pair: &OwnedFd, release: Release, clock: &SharedClock) -> io::Result<Guarding> {
    let handed = wire::take_over(pair)?;
    let word = Word::of(handed.word)?;
    word.hold()?;
    setsid()?; // who ends the server at its terminal does not end it
    let gate = Arc::new(Barrier::new(handed.wards.len() + 1));
    let mut work = Vec::new();
    for (ward, fence) in handed.wards {
        let (gate, clock, dues) = (Arc::clone(&gate), Arc::clone(clock), ward.dues);
        let thread = thread::Builder::new().stack_size(STACK);
        let thread = thread.spawn(move || {
            gate.wait();
            release(&fence, dues, &*clock)
        })?;
        work.push((ward, thread));
    }
    // Where it is permitted: without it, a host short of memory may take it, or have it wait for its disk.
    let _not_permitted = held::append(Path::new(SCORES), 0).and_then(|mut it| it.write_all(SCORE));
    let _not_permitted = mlockall(MlockAllFlags::CURRENT);
    Ok(Guarding {
        word,
        patience: handed.patience,
        gate,
        work,
    })
}

impl Guarding {
    fn watch(self, pair: &OwnedFd) {
        let cause = match is_readable(pair, self.patience) {
            Ok(true) if wire::is_done(pair) => return,
            Ok(true) => Cause::Died,
            _ => Cause::Late,
        };
        // Where it was CUT, the set stands, and the machines go on all the same.
        let _whose = self.word.fire_first();
        if self.word.is_free() {
            return;
        }
        self.gate.wait();
        let freed = |(ward, thread): (_, thread::JoinHandle<Freed>)| {
            (ward, thread.join().unwrap_or_default())
        };
        let wards = self.work.into_iter().map(freed).collect();
        self.word.report(&Report { cause, wards });
    }
}
