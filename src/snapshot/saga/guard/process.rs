//! The guard itself: a process that waits for the end of a window, and lets machines go if that does not come.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::setsid;

use crate::clock::{Clock, SharedClock};
use crate::engine::{Dues, Fence, Freed};
use crate::held;
use crate::id::VmId;
use crate::snapshot::saga::guard::is_readable;
use crate::snapshot::saga::guard::wire::{self, Cause, Reply, Report};
use crate::snapshot::saga::word::Word;

/// Gives one machine what it is owed; blocks.
pub type Release = fn(&Fence, Dues, &dyn Clock) -> Freed;

/// Among the last that the kernel ends for want of memory.
const SCORE: &[u8] = b"-900";
const SCORES: &str = "/proc/self/oom_score_adj";
/// What the work on one machine needs, bytes.
const STACK: usize = 1 << 20;

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
    until: Duration,
    clock: SharedClock,
    /// The machines that are owed nothing any more.
    free: Arc<Mutex<BTreeSet<VmId>>>,
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
    let until = clock.elapsed().saturating_add(handed.patience);
    let free = Arc::new(Mutex::new(BTreeSet::new()));
    let mut work = Vec::new();
    for (ward, fence) in handed.wards {
        let (gate, clock, dues) = (Arc::clone(&gate), Arc::clone(clock), ward.dues);
        let (free, machine) = (Arc::clone(&free), ward.machine);
        let thread = thread::Builder::new().stack_size(STACK);
        let thread = thread.spawn(move || {
            gate.wait();
            let is_free = free.lock().unwrap_or_else(PoisonError::into_inner);
            let is_free = is_free.contains(&machine);
            match is_free {
                true => Freed {
                    goes_on: dues.goes_on,
                    was_frozen: dues.thaws,
                    is_thawed: dues.thaws,
                    ended: false,
                },
                false => release(&fence, dues, &*clock),
            }
        })?;
        work.push((ward, thread));
    }
    // Where it is permitted: without it, a host short of memory may take it, or have it wait for its disk.
    let _not_permitted = held::append(Path::new(SCORES), 0).and_then(|mut it| it.write_all(SCORE));
    let _not_permitted = mlockall(MlockAllFlags::CURRENT);
    Ok(Guarding {
        word,
        until,
        clock: Arc::clone(clock),
        free,
        gate,
        work,
    })
}

impl Guarding {
    fn watch(self, pair: &OwnedFd) {
        let cause = loop {
            let left = self.until.saturating_sub(self.clock.elapsed());
            match is_readable(pair, left) {
                Ok(true) => match wire::said(pair) {
                    Some(wire::Word::Done) => return,
                    Some(wire::Word::Free(machine)) => {
                        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
                        free.insert(machine);
                    }
                    None => break Cause::Died,
                },
                _ => break Cause::Late,
            }
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
