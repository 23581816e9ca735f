//! The turn of whoever changes the library of machines, or relies on what it holds: as long as it is held no machine comes.
//!
//! Processes keep each other away by a lock on `machines/.lock`, which knows no order. Those of one process that want it
//! stand in a queue, and only its head asks for the lock. Each waits as long as the queue moves; what counts against
//! their patience is the time in which nobody of it got a turn or ended one: then another process has the lock, or
//! whoever has the turn stands at a place that does not answer.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::clock::{SharedClock, SystemClock};
use crate::engine::library::machines_directory;
use crate::held::Folder;

/// The file that is locked.
const LOCK: &str = ".lock";
/// The pause between two looks whether the lock is free.
const PAUSE: Duration = Duration::from_millis(20);
/// How long it may be before whoever stands further behind hears that it is given up.
const GLANCE: Duration = Duration::from_millis(100);
/// So many turns in a row, and the queue lets other processes come first for a moment.
const ROW: u32 = 8;
/// So long since it has done so, and it does as well.
const OWN: Duration = Duration::from_millis(500);
/// After a turn longer than that it always does.
const LONG: Duration = Duration::from_millis(100);
/// How long nothing may move before others count as hung.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A turn, until dropped.
#[derive(Debug)]
pub struct Turn {
    /// Let go before the place in the queue is.
    _lock: Flock<File>,
    place: Place,
}

/// The turn; `None` if nothing has moved for so long, or it is given up. Blocks.
///
/// # Errors
/// The lock cannot be made.
pub fn take(
    data_dir: &Path,
    patience: Duration,
    given_up: &dyn Fn() -> bool,
) -> io::Result<Option<Turn>> {
    take_in(&machines_directory(data_dir), patience, given_up)
}

/// [`take`] for the folder of machines.
///
/// # Errors
/// As there.
pub(super) fn take_in(
    machines: &Path,
    patience: Duration,
    given_up: &dyn Fn() -> bool,
) -> io::Result<Option<Turn>> {
    static QUEUES: Mutex<BTreeMap<(u64, u64), Arc<Queue>>> = Mutex::new(BTreeMap::new());
    let folder = Folder::open(machines)?;
    let identity = folder.identity()?;
    let mut queues = QUEUES.lock().unwrap_or_else(PoisonError::into_inner);
    // Nobody stands in the others.
    queues.retain(|_, queue| Arc::strong_count(queue) > 1);
    let queue = queues.entry((identity.device, identity.inode));
    let queue = Arc::clone(queue.or_insert_with(|| {
        Queue::new(Time {
            clock: SystemClock::shared(),
            pause: Box::new(pause),
        })
    }));
    drop(queues);
    queue.turn(&folder, patience, given_up)
}

/// Those of this process that want a turn at one library, in the order in which they came.
#[derive(Debug)]
struct Queue {
    time: Time,
    line: Mutex<Line>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct Line {
    /// The first has the turn or asks for the lock.
    waiting: VecDeque<u64>,
    next: u64,
    /// When somebody got a turn or ended one, on the queue's clock.
    moved: Duration,
    /// Turns since other processes could come first.
    row: u32,
    /// When they could.
    gave_way: Duration,
    /// The last turn was a long one.
    long: bool,
}

impl Line {
    /// Whether other processes are to come first now.
    fn is_due(&self, now: Duration) -> bool {
        let own = now.saturating_sub(self.gave_way);
        self.row >= ROW || self.row > 0 && (self.long || own >= OWN)
    }

    fn give_way(&mut self, now: Duration) {
        (self.row, self.gave_way, self.long) = (0, now, false);
    }
}

/// A place in the queue, until dropped.
#[derive(Debug)]
struct Place {
    queue: Arc<Queue>,
    number: u64,
}

impl Queue {
    fn new(time: Time) -> Arc<Self> {
        Arc::new(Self {
            time,
            line: Mutex::default(),
            moved: Condvar::new(),
        })
    }

    fn turn(
        self: &Arc<Self>,
        folder: &Folder,
        patience: Duration,
        given_up: &dyn Fn() -> bool,
    ) -> io::Result<Option<Turn>> {
        let came = self.time.clock.elapsed();
        let place = self.stand();
        let mut file = folder.open_or_create(LOCK, 0o640)?;
        loop {
            if place.is_first() {
                match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                    Ok(lock) => {
                        let mut line = self.line();
                        line.moved = self.time.clock.elapsed();
                        line.row += 1;
                        drop(line);
                        return Ok(Some(Turn { _lock: lock, place }));
                    }
                    Err((again, Errno::EWOULDBLOCK)) => file = again,
                    Err((_, error)) => return Err(error.into()),
                }
            }
            let since = self.line().moved.max(came);
            if given_up() || self.time.clock.elapsed().saturating_sub(since) >= patience {
                return Ok(None);
            }
            place.pause();
        }
    }

    fn stand(self: &Arc<Self>) -> Place {
        let mut line = self.line();
        let number = line.next;
        line.next += 1;
        if line.waiting.is_empty() {
            line.give_way(self.time.clock.elapsed()); // nobody had it
        }
        line.waiting.push_back(number);
        Place {
            queue: Arc::clone(self),
            number,
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Whether it is the head. One that comes to be it after a long row gives way first.
    fn is_first(&self) -> bool {
        let mut line = self.queue.line();
        let is_first = line.waiting.front() == Some(&self.number);
        let now = self.queue.time.clock.elapsed();
        let gives_way = is_first && line.is_due(now);
        if gives_way {
            line.give_way(now);
        }
        drop(line);
        if gives_way {
            (self.queue.time.pause)(2 * PAUSE);
        }
        is_first
    }

    /// Until it is worth another look.
    fn pause(&self) {
        let line = self.queue.line();
        if line.waiting.front() == Some(&self.number) {
            drop(line);
            (self.queue.time.pause)(PAUSE);
            return;
        }
        let behind = |line: &mut Line| line.waiting.front() != Some(&self.number);
        let _looks_again = self.queue.moved.wait_timeout_while(line, GLANCE, behind);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let queue = &self.place.queue;
        let (mut line, now) = (queue.line(), queue.time.clock.elapsed());
        line.long = now.saturating_sub(line.moved) > LONG;
        line.moved = now;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queue.line().waiting.retain(|it| *it != self.number);
        self.queue.moved.notify_all();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "on a blocking thread, for as long as another process takes; a lock that is waited for could not be given up"
)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// What time it is, and how it passes.
struct Time {
    clock: SharedClock,
    pause: Box<dyn Fn(Duration) + Send + Sync>,
}

impl std::fmt::Debug for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Time")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use jiff::Timestamp;

    use super::*;
    use crate::clock::ManualClock;

    fn queue() -> (tempfile::TempDir, Folder, Arc<ManualClock>, Arc<Queue>) {
        let home = tempfile::tempdir().unwrap();
        let folder = Folder::open(home.path()).unwrap();
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let queue = Queue::new(Time {
            clock: clock.clone(),
            pause: Box::new(pause),
        });
        (home, folder, clock, queue)
    }

    /// As another process has it.
    fn taken(folder: &Folder) -> Flock<File> {
        let file = folder.open_or_create(LOCK, 0o640).unwrap();
        Flock::lock(file, FlockArg::LockExclusiveNonblock).unwrap()
    }

    #[test]
    fn each_gets_its_turn_in_order_however_long_all_before_it_take() {
        let (_home, folder, clock, queue) = queue();
        let first = queue.turn(&folder, PATIENCE, &|| false).unwrap();
        let done = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for n in 0..30 {
                let (queue, clock, folder, done) = (&queue, &clock, &folder, &done);
                scope.spawn(move || {
                    let turn = queue.turn(folder, PATIENCE, &|| false).unwrap();
                    let _turn = turn.unwrap_or_else(|| panic!("{n} got none"));
                    clock.advance(PATIENCE - Duration::from_secs(10)); // a slow survey
                    done.lock().unwrap().push(n);
                });
                while queue.line().waiting.len() < n + 2 {
                    thread::yield_now();
                }
            }
            drop(first);
        });
        let done = done.into_inner().unwrap();
        assert_eq!(done, (0..30).collect::<Vec<_>>());
        drop(taken(&folder));
    }

    #[test]
    fn another_process_that_has_it_for_too_long_and_whoever_gives_up_get_none() {
        let (_home, folder, clock, queue) = queue();
        let other = taken(&folder);
        // Those behind do not begin to count when the head has given up.
        let looks = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let passes = || {
                        looks.fetch_add(1, Ordering::SeqCst);
                        clock.advance(PATIENCE / 8);
                        false
                    };
                    assert!(queue.turn(&folder, PATIENCE, &passes).unwrap().is_none());
                });
            }
        });
        assert!(looks.load(Ordering::SeqCst) <= 3 * 9, "{looks:?}");
        assert!(queue.turn(&folder, PATIENCE, &|| true).unwrap().is_none());
        drop(other);
        let turn = queue.turn(&folder, Duration::ZERO, &|| false).unwrap();
        assert!(turn.is_some());
        // One of this process that stands somewhere is no different.
        let passes = || {
            clock.advance(PATIENCE / 8);
            false
        };
        assert!(queue.turn(&folder, PATIENCE, &passes).unwrap().is_none());
        drop(turn);
        assert!(queue.line().waiting.is_empty());
    }

    /// A local command waits 3 s only.
    #[test]
    fn others_may_come_first_after_a_long_turn_after_half_a_second_and_after_eight_turns() {
        let (_home, folder, clock, queue) = queue();
        let take = || queue.turn(&folder, PATIENCE, &|| false).unwrap().unwrap();
        for (each, expected) in [(120, 1), (101, 1), (90, 6), (10, 8)] {
            let mut turn = take();
            let mut turns = 0;
            loop {
                turns += 1;
                turn = thread::scope(|scope| {
                    let next = scope.spawn(take);
                    while queue.line().waiting.len() < 2 {
                        thread::yield_now();
                    }
                    clock.advance(Duration::from_millis(each));
                    drop(turn);
                    next.join().unwrap()
                });
                if queue.line().row == 1 {
                    break;
                }
            }
            assert_eq!(turns, expected, "turns of {each} ms");
            drop(turn);
        }
    }

    /// Another process looks every 20 ms, and the queue is never empty: between two turns that follow at once it sees
    /// the lock taken, however often it looks.
    #[test]
    fn another_process_gets_the_lock_beside_a_queue_that_never_ends() {
        let home = tempfile::tempdir().unwrap();
        let folder = Folder::open(home.path()).unwrap();
        let (turns, got) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
        let (there, gets) = (folder.again().unwrap(), Arc::clone(&got));
        let queue = Queue::new(Time {
            clock: ManualClock::at(Timestamp::UNIX_EPOCH),
            pause: Box::new(move |time| {
                // Whoever looks every so often has looked before this ends.
                if time > PAUSE {
                    drop(taken(&there));
                    gets.fetch_add(1, Ordering::SeqCst);
                }
            }),
        });
        let goes_on = || got.load(Ordering::SeqCst) == 0 && turns.load(Ordering::SeqCst) < 100;
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while goes_on() {
                        let turn = queue.turn(&folder, PATIENCE, &|| false).unwrap();
                        turns.fetch_add(1, Ordering::SeqCst);
                        while queue.line().waiting.len() < 2 && goes_on() {
                            thread::yield_now();
                        }
                        drop(turn);
                    }
                });
            }
        });
        let turns = turns.into_inner();
        assert!(got.load(Ordering::SeqCst) > 0, "it starves: {turns} turns");
        assert!(turns <= 8 + 3, "{turns} turns come before it");
    }
}
