//! How long an evaluation may go on before it gives its place up, and when it is too late for it altogether.
//!
//! Two moments of the monotonic clock: at the end of its turn an evaluation stops between two instances, at its
//! deadline also within one. What has stopped goes on later where it stood: no instance is left out or told twice.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::cim::Instance;
use crate::cim::query::{Effort, Filter, Stopped};
use crate::clock::SharedClock;

use super::{Error, Instances};

/// After so many steps within one instance the clock is looked at: well below a millisecond of work.
const STEPS: usize = 4096;

/// The time of one evaluation, shared by all that works for it. Without a clock it has no end.
#[derive(Clone, Default)]
pub struct Pace(Option<Arc<Inner>>);

struct Inner {
    clock: SharedClock,
    /// The end of the turn, nanoseconds.
    turn: AtomicU64,
    /// The deadline, nanoseconds.
    deadline: AtomicU64,
    /// Since the clock was looked at.
    steps: AtomicUsize,
}

impl Pace {
    /// A pace by this clock, without a limit yet.
    #[must_use]
    pub fn by(clock: SharedClock) -> Self {
        Self(Some(Arc::new(Inner {
            clock,
            turn: AtomicU64::new(u64::MAX),
            deadline: AtomicU64::new(u64::MAX),
            steps: AtomicUsize::new(0),
        })))
    }

    /// From now on the turn ends at the moment `turn`, and nothing goes on after `deadline`.
    pub fn allow(&self, turn: Duration, deadline: Duration) {
        if let Some(inner) = &self.0 {
            let (turn, deadline) = (nanos(turn), nanos(deadline));
            inner.turn.store(turn.min(deadline), Ordering::Relaxed);
            inner.deadline.store(deadline, Ordering::Relaxed);
        }
    }

    /// Is the turn over?
    #[must_use]
    pub fn is_over(&self) -> bool {
        let over = |inner: &Inner| inner.is_past(&inner.turn);
        self.0.as_deref().is_some_and(over)
    }
}

impl Inner {
    fn is_past(&self, moment: &AtomicU64) -> bool {
        nanos(self.clock.elapsed()) >= moment.load(Ordering::Relaxed)
    }
}

impl Effort for Pace {
    fn spend(&self, steps: usize) -> Result<(), Stopped> {
        let Some(inner) = &self.0 else {
            return Ok(());
        };
        let sum = inner.steps.load(Ordering::Relaxed).saturating_add(steps);
        if sum < STEPS {
            inner.steps.store(sum, Ordering::Relaxed);
            return Ok(());
        }
        inner.steps.store(0, Ordering::Relaxed);
        match inner.is_past(&inner.deadline) {
            true => Err(Stopped),
            false => Ok(()),
        }
    }
}

impl fmt::Debug for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pace").field(&self.0.is_some()).finish()
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The instances, none of them begun after the turn is over: [`Error::paused`] comes in its place, and the next call
/// goes on.
pub(super) fn paced(pace: &Pace, mut instances: Instances) -> Instances {
    let pace = pace.clone();
    Box::new(std::iter::from_fn(move || match pace.is_over() {
        true => Some(Err(Error::paused())),
        false => instances.next(),
    }))
}

/// The instances that the filter lets through. One that was not judged to its end for want of time is judged anew by
/// the next call.
pub(super) fn filtered(pace: &Pace, filter: Filter, mut all: Instances) -> Instances {
    let pace = pace.clone();
    let mut unjudged: Option<Instance> = None;
    Box::new(std::iter::from_fn(move || {
        loop {
            let instance = match unjudged.take() {
                Some(instance) => instance,
                None => match all.next()? {
                    Ok(instance) => instance,
                    Err(error) => return Some(Err(error)),
                },
            };
            match filter.judge(&instance, &pace) {
                Ok(true) => return Some(Ok(instance)),
                Ok(false) => {}
                Err(Stopped) => {
                    unjudged = Some(instance);
                    return Some(Err(Error::paused()));
                }
            }
        }
    }))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::cim::Schema;
    use crate::cim::query::{Language, Query, Scope};
    use crate::cim::schema::VIRTUALIZATION_V2;
    use crate::clock::Clock;

    /// A clock that goes on by a millisecond whenever it is looked at.
    #[derive(Default)]
    struct Looked(AtomicU64);

    impl Clock for Looked {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }

        fn elapsed(&self) -> Duration {
            Duration::from_millis(self.0.fetch_add(1, Ordering::SeqCst))
        }
    }

    fn systems(names: usize) -> Instances {
        let schema = Schema::builtin();
        let class = schema
            .class(VIRTUALIZATION_V2, "Msvm_ComputerSystem")
            .unwrap();
        let (class, mut n) = (class.clone(), 0);
        Box::new(std::iter::from_fn(move || {
            n += 1;
            let instance = Instance::new(&class)
                .with("ElementName", format!("{n}{}", "a".repeat(1000)).as_str());
            (n <= names).then(|| instance.map_err(Error::from))
        }))
    }

    fn filter(condition: &str) -> Filter {
        let schema = Schema::builtin();
        let scope = Scope {
            schema: &schema,
            namespace: VIRTUALIZATION_V2,
            host: "H",
        };
        let text = format!("SELECT * FROM Msvm_ComputerSystem WHERE {condition}");
        match Query::read(Language::Wql, &text, &scope).unwrap() {
            Query::Select(select) => select.filter,
            Query::Related(_) => panic!("a SELECT"),
        }
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn the_deadline_is_looked_at_within_one_instance() {
        let clock = Arc::new(Looked::default());
        let pace = Pace::by(clock.clone());
        let long = vec!["ElementName LIKE '%b%'"; 500].join(" OR ");
        let mut found = filtered(&pace, filter(&long), systems(1));
        pace.allow(ms(1_000_000), ms(3));
        assert!(found.next().unwrap().unwrap_err().is_paused());
        assert!(
            clock.0.load(Ordering::SeqCst) <= 5,
            "it went on after its deadline"
        );
        pace.allow(ms(1_000_000), ms(1_000_000));
        assert!(found.next().is_none(), "judged anew, and to its end");
    }

    #[test]
    fn what_was_stopped_is_told_once_when_it_goes_on() {
        let clock = Arc::new(Looked::default());
        let pace = Pace::by(clock.clone());
        let all = paced(&pace, systems(40));
        let found = filtered(
            &pace,
            filter("ElementName LIKE '%1a%' OR ElementName LIKE '%b%'"),
            all,
        );
        let (mut names, mut pauses) = (Vec::new(), 0);
        pace.allow(ms(5), ms(5));
        for next in found {
            match next {
                Ok(instance) => names.extend(
                    instance
                        .get("ElementName")
                        .and_then(|v| v.as_str())
                        .map(|n| n.replace('a', "")),
                ),
                Err(error) => {
                    assert!(error.is_paused());
                    pauses += 1;
                    let now = clock.elapsed();
                    pace.allow(now + ms(5), now + ms(5));
                }
            }
        }
        assert_eq!(names, ["1", "11", "21", "31"]);
        assert!(pauses > 5, "{pauses}");
    }

    #[test]
    fn without_a_clock_nothing_ends() {
        let mut all = paced(&Pace::default(), systems(2));
        assert!(all.next().unwrap().is_ok() && all.next().unwrap().is_ok() && all.next().is_none());
    }
}
