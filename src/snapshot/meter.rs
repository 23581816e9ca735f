//! Work that is counted in bytes: how far it is, how fast it goes, how long it takes still.
//!
//! Several threads may tell of their parts at the same time. Time comes in as an argument.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::id::VmId;
use crate::text::Text;
use crate::text::catalog::snapshot as texts;

/// The speed is that of the last so long a time.
const WINDOW: Duration = Duration::from_secs(10);
/// No speed is told before so long a time: it would be a guess.
const SOONEST: Duration = Duration::from_secs(1);
/// Moments that are remembered within the window.
const SAMPLES: u32 = 40;
const MIB: u64 = 1 << 20;

/// What an operation has to do, by machine, and how far it is.
#[derive(Debug, Default)]
pub(crate) struct Meter(Mutex<Work>);

#[derive(Debug, Default)]
struct Work {
    /// Of each machine that has begun, bytes done and to do, by file.
    machines: BTreeMap<VmId, BTreeMap<PathBuf, Bytes>>,
    /// When how many bytes were done, the oldest first.
    samples: VecDeque<(Duration, u64)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bytes {
    done: u64,
    of: u64,
}

/// How fast it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Bytes a second.
    pub(crate) rate: u64,
    /// How long it takes still at that speed.
    pub(crate) left: Duration,
}

impl Meter {
    /// What the machine has to do, as far as it is known: a file and its bytes. What has been done of it stays.
    pub(crate) fn plan(&self, machine: VmId, files: impl IntoIterator<Item = (PathBuf, u64)>) {
        let mut work = self.work();
        let known = work.machines.entry(machine).or_default();
        for (file, of) in files {
            known.entry(file).or_insert(Bytes { done: 0, of });
        }
    }

    /// The work begins, as far as it has not: the speed is told from here on.
    pub(crate) fn begin(&self, now: Duration) {
        let mut work = self.work();
        if work.samples.is_empty() {
            work.sample(now);
        }
    }

    /// Takes up that `done` of `of` bytes of a file are done at the moment `now`.
    pub(crate) fn step(&self, machine: VmId, file: &Path, (done, of): (u64, u64), now: Duration) {
        let mut work = self.work();
        let known = work.machines.entry(machine).or_default();
        let bytes = known.entry(file.to_owned()).or_default();
        *bytes = Bytes {
            done: done.min(of),
            of,
        };
        work.sample(now);
    }

    /// Nothing more is done of what is left of the file.
    pub(crate) fn leave(&self, machine: VmId, file: &Path) {
        if let Some(known) = self.work().machines.get_mut(&machine)
            && let Some(bytes) = known.get_mut(file)
        {
            bytes.of = bytes.done;
        }
    }

    /// How far it is, from `from` to `to`, where `machines` have to be done in all: those that have not begun count as
    /// much as the others on average. `None` if nothing is counted in bytes.
    pub(crate) fn percent(&self, (from, to): (u8, u8), machines: usize) -> Option<u8> {
        let (done, all) = self.work().sums(machines);
        let span = u128::from(to.saturating_sub(from));
        let part = (u128::from(done) * span).checked_div(u128::from(all))?;
        Some(from.saturating_add(u8::try_from(part).unwrap_or(0)))
    }

    /// How fast it goes, once that is known.
    pub(crate) fn pace(&self, machines: usize) -> Option<Pace> {
        let work = self.work();
        let (done, all) = work.sums(machines);
        let ((began, first), (now, last)) = (work.samples.front()?, work.samples.back()?);
        let time = now.saturating_sub(*began);
        let bytes = last.saturating_sub(*first);
        if time < SOONEST || bytes == 0 {
            return None;
        }
        let rate = u128::from(bytes) * 1000 / time.as_millis().max(1);
        let rate = u64::try_from(rate).unwrap_or(u64::MAX).max(1);
        Some(Pace {
            rate,
            left: Duration::from_secs(all.saturating_sub(done).div_ceil(rate)),
        })
    }

    /// The text, with the speed once it is known.
    pub(crate) fn told(&self, doing: Text, machines: usize) -> Text {
        match self.pace(machines) {
            None => doing,
            Some(pace) => texts::PACED
                .with("doing", doing)
                .with("rate", rate(pace.rate))
                .with("left", time(pace.left)),
        }
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Work {
    /// Bytes done and bytes in all.
    fn sums(&self, machines: usize) -> (u64, u64) {
        let each = self.machines.values().flat_map(BTreeMap::values);
        let (done, known) = each.fold((0_u64, 0_u64), |(done, of), bytes| {
            (done.saturating_add(bytes.done), of.saturating_add(bytes.of))
        });
        let [begun, machines] =
            [self.machines.len(), machines].map(|n| u64::try_from(n).unwrap_or(0));
        let waiting = machines.saturating_sub(begun);
        let average = known.checked_div(begun).unwrap_or(0);
        (done, known.saturating_add(average.saturating_mul(waiting)))
    }

    fn sample(&mut self, now: Duration) {
        let (done, _) = self.sums(0);
        // The newest one moves along until it is far enough from the one before it; that one stays.
        let before = self.samples.iter().rev().nth(1);
        if before.is_some_and(|(at, _)| now.saturating_sub(*at) < WINDOW / SAMPLES) {
            self.samples.pop_back();
        }
        self.samples.push_back((now, done));
        let old = |(at, _): &(Duration, u64)| now.saturating_sub(*at) > WINDOW;
        while self.samples.len() > 2 && self.samples.get(1).is_some_and(old) {
            self.samples.pop_front();
        }
    }
}

/// In MiB a second, tenths below ten.
fn rate(bytes: u64) -> String {
    let tenths = u128::from(bytes) * 10 / u128::from(MIB);
    match tenths {
        0..100 => format!("{}.{}", tenths / 10, tenths % 10),
        _ => (tenths / 10).to_string(),
    }
}

/// `40 s`, `3 min`, `2 h 10 min`; rounded up, so that nobody waits longer than was told.
fn time(left: Duration) -> String {
    let seconds = left.as_secs();
    match seconds {
        0..=90 => format!("{seconds} s"),
        91..=5400 => format!("{} min", seconds.div_ceil(60)),
        _ => {
            let minutes = seconds.div_ceil(60);
            format!("{} h {} min", minutes / 60, minutes % 60)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn the_percent_is_of_bytes_and_those_that_wait_count_as_the_others() {
        let (meter, [one, two]) = (Meter::default(), [VmId::random(), VmId::random()]);
        assert_eq!(meter.percent((5, 97), 2), None);
        meter.plan(one, [("/a".into(), 60 * MIB), ("/b".into(), 40 * MIB)]);
        assert_eq!(meter.percent((0, 100), 2), Some(0));
        meter.step(one, Path::new("/a"), (60 * MIB, 60 * MIB), seconds(1));
        assert_eq!(meter.percent((0, 100), 1), Some(60));
        assert_eq!(meter.percent((0, 100), 2), Some(30), "of 100 MiB twice");
        meter.plan(two, [("/c".into(), 900 * MIB)]);
        assert_eq!(meter.percent((0, 100), 2), Some(6), "of 1000 MiB");
        // Done again after a retry: what was planned does not count twice.
        meter.plan(one, [("/a".into(), 60 * MIB)]);
        meter.leave(two, Path::new("/c"));
        assert_eq!(meter.percent((0, 100), 2), Some(60));
        meter.step(one, Path::new("/b"), (40 * MIB, 40 * MIB), seconds(2));
        assert_eq!(meter.percent((5, 97), 2), Some(97));
    }

    #[test]
    fn the_speed_is_that_of_the_last_ten_seconds_and_gives_the_time_left() {
        let (meter, vm, file) = (Meter::default(), VmId::random(), Path::new("/a"));
        let of = 1000 * MIB;
        meter.plan(vm, [(file.to_owned(), of)]);
        meter.step(vm, file, (0, of), seconds(100));
        meter.step(vm, file, (MIB, of), Duration::from_millis(100_900));
        assert_eq!(meter.pace(1), None, "too soon");
        // However often it is told.
        for n in 1..=2000 {
            let now = seconds(100) + Duration::from_millis(n * 10);
            meter.step(vm, file, (n * MIB / 10, of), now);
        }
        assert!(meter.work().samples.len() <= 50);
        let pace = meter.pace(1).unwrap();
        assert_eq!(
            pace,
            Pace {
                rate: 10 * MIB,
                left: seconds(80)
            }
        );
        // Now faster: the slow part is forgotten.
        for n in 1..=20 {
            meter.step(vm, file, (200 * MIB + n * 20 * MIB, of), seconds(120 + n));
        }
        let pace = meter.pace(1).unwrap();
        assert_eq!(
            pace,
            Pace {
                rate: 20 * MIB,
                left: seconds(20)
            }
        );
        let told = meter.told(texts::CLEANING.text(), 1).english();
        assert!(told.ends_with(", 20 MiB/s, 20 s left"), "{told}");
    }

    #[test]
    fn a_time_is_told_as_people_do() {
        let table = [
            (0, "0 s"),
            (90, "90 s"),
            (91, "2 min"),
            (5400, "90 min"),
            (5401, "1 h 31 min"),
            (86_400, "24 h 0 min"),
        ];
        for (left, told) in table {
            assert_eq!(time(seconds(left)), told);
        }
        let table = [(MIB / 2, "0.5"), (10 * MIB, "10"), (MIB * 1234 / 100, "12")];
        for (bytes, told) in table {
            assert_eq!(rate(bytes), told);
        }
    }
}
