//! Who has guessed too often: users and addresses that are not listened to for a while.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::clock::SharedClock;

/// Most names, and most addresses, that are remembered.
const REMEMBERED: usize = 4096;

/// When a user or an address is locked out, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Wrong passwords in a row; 0 locks nobody out.
    pub failures: u32,
    /// How long it lasts, and how long a failure counts.
    pub time: Duration,
}

impl Default for Limit {
    fn default() -> Self {
        Self {
            failures: 10,
            time: Duration::from_secs(300),
        }
    }
}

/// Counts failures, of each user name (whether there is such a user or not) and of each address.
pub(super) struct Lockout {
    limit: Limit,
    clock: SharedClock,
    tables: Mutex<Tables>,
}

/// One who logs on: a name as its digest, for names come from outside in any length; an IPv6 address as
/// the network of 64 bits that one host has for itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Who {
    name: [u8; 32],
    network: IpAddr,
}

#[derive(Default)]
struct Tables {
    names: BTreeMap<[u8; 32], Failures>,
    networks: BTreeMap<IpAddr, Failures>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Duration,
}

/// What a failure has led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Locked {
    /// The user is locked out from now on.
    pub(super) user: bool,
    /// The address is.
    pub(super) address: bool,
}

/// What counts as one client: an IPv4 address, or the network of 64 bits that one host of IPv6 has for itself.
#[must_use]
pub fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        // The loopback address is a host, not a network.
        IpAddr::V6(v6) if !v6.is_loopback() => {
            let network = v6.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(network.into())
        }
        host => host,
    }
}

impl Who {
    pub(super) fn new(name: &str, peer: IpAddr) -> Self {
        Self {
            name: Sha256::digest(name).into(),
            network: network(peer),
        }
    }
}

impl Lockout {
    pub(super) fn new(limit: Limit, clock: SharedClock) -> Self {
        Self {
            limit,
            clock,
            tables: Mutex::default(),
        }
    }

    /// Is the name or the address locked out now?
    pub(super) fn is_locked(&self, who: &Who) -> bool {
        let now = self.clock.elapsed();
        let locked = |f: Option<&Failures>| f.is_some_and(|f| self.locks(f) && self.counts(f, now));
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        locked(tables.names.get(&who.name)) || locked(tables.networks.get(&who.network))
    }

    /// A wrong password.
    pub(super) fn failed(&self, who: &Who) -> Locked {
        if self.limit.failures == 0 {
            return Locked::default();
        }
        let now = self.clock.elapsed();
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        Locked {
            user: self.count(&mut tables.names, who.name, now),
            address: self.count(&mut tables.networks, who.network, now),
        }
    }

    /// A right password: everything before it is forgiven.
    pub(super) fn succeeded(&self, who: &Who) {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.names.remove(&who.name);
        tables.networks.remove(&who.network);
    }

    /// Counts one; `true` if it was the one too many.
    fn count<K: Ord + Copy>(
        &self,
        table: &mut BTreeMap<K, Failures>,
        key: K,
        now: Duration,
    ) -> bool {
        if !table.contains_key(&key) && table.len() >= REMEMBERED {
            self.make_room(table, now);
        }
        let entry = table.entry(key).or_insert(Failures {
            count: 0,
            last: now,
        });
        if !self.counts(entry, now) {
            entry.count = 0;
        }
        entry.count = entry.count.saturating_add(1);
        entry.last = now;
        entry.count == self.limit.failures
    }

    /// Forgets what counts no more; if that is nothing, the oldest that is not locked out, so that a flood
    /// of invented names opens no lock before it has filled the table with locks.
    fn make_room<K: Ord + Copy>(&self, table: &mut BTreeMap<K, Failures>, now: Duration) {
        table.retain(|_, failures| self.counts(failures, now));
        if table.len() < REMEMBERED {
            return;
        }
        let oldest = table.iter().min_by_key(|(_, f)| (self.locks(f), f.last));
        if let Some(key) = oldest.map(|(key, _)| *key) {
            table.remove(&key);
        }
    }

    fn locks(&self, failures: &Failures) -> bool {
        self.limit.failures > 0 && failures.count >= self.limit.failures
    }

    fn counts(&self, failures: &Failures, now: Duration) -> bool {
        now < failures.last + self.limit.time
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::clock::ManualClock;

    fn lockout(failures: u32) -> (Lockout, Arc<ManualClock>) {
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let time = Duration::from_secs(60);
        let limit = Limit { failures, time };
        (Lockout::new(limit, clock.clone()), clock)
    }

    fn who(name: &str, peer: &str) -> Who {
        Who::new(name, peer.parse().unwrap())
    }

    #[test]
    fn a_11_the_third_failure_locks_the_name_everywhere_and_the_address_for_all() {
        let (lockout, clock) = lockout(3);
        let ann = who("ann", "192.0.2.1");
        for n in 1..=3 {
            assert!(!lockout.is_locked(&ann));
            let locked = lockout.failed(&ann);
            assert_eq!((locked.user, locked.address), (n == 3, n == 3));
        }
        for (name, peer, locked) in [
            ("ann", "192.0.2.2", true),
            ("bob", "192.0.2.1", true),
            ("bob", "::ffff:192.0.2.1", true),
            ("bob", "192.0.2.2", false),
        ] {
            assert_eq!(lockout.is_locked(&who(name, peer)), locked, "{name} {peer}");
        }
        clock.advance(Duration::from_secs(59));
        assert!(lockout.is_locked(&ann));
        clock.advance(Duration::from_secs(1));
        assert!(!lockout.is_locked(&ann));
        assert_eq!(lockout.failed(&ann), Locked::default(), "counted anew");
    }

    #[test]
    fn failures_far_apart_and_failures_before_a_success_do_not_add_up() {
        let (lockout, clock) = lockout(2);
        let ann = who("ann", "192.0.2.1");
        lockout.failed(&ann);
        clock.advance(Duration::from_secs(60));
        assert_eq!(lockout.failed(&ann), Locked::default());
        lockout.succeeded(&ann);
        assert_eq!(lockout.failed(&ann), Locked::default());
        assert!(lockout.failed(&ann).user);
    }

    #[test]
    fn an_ipv6_network_is_one_address_and_the_loopback_address_is_itself() {
        let (lockout, _clock) = lockout(1);
        lockout.failed(&who("a", "2001:db8:0:1::1"));
        assert!(lockout.is_locked(&who("b", "2001:db8:0:1:ffff::2")));
        assert!(!lockout.is_locked(&who("b", "2001:db8:0:2::1")));
        lockout.failed(&who("c", "::1"));
        assert!(!lockout.is_locked(&who("d", "::2")));
    }

    #[test]
    fn zero_failures_lock_nobody() {
        let (lockout, _clock) = lockout(0);
        let ann = who("ann", "192.0.2.1");
        for _ in 0..20 {
            assert_eq!(lockout.failed(&ann), Locked::default());
        }
        assert!(!lockout.is_locked(&ann));
    }

    #[test]
    fn a_flood_of_names_fills_no_more_than_the_table_and_opens_no_lock() {
        let (lockout, clock) = lockout(2);
        let ann = who("ann", "192.0.2.1");
        lockout.failed(&ann);
        lockout.failed(&ann);
        for n in 0..2 * REMEMBERED {
            clock.advance(Duration::from_millis(1));
            lockout.failed(&who(
                &n.to_string(),
                &format!("198.{}.{}.1", n / 256, n % 256),
            ));
        }
        assert!(lockout.is_locked(&ann));
        let size = |lockout: &Lockout| {
            let tables = lockout.tables.lock().unwrap();
            (tables.names.len(), tables.networks.len())
        };
        assert_eq!(size(&lockout), (REMEMBERED, REMEMBERED));
        clock.advance(Duration::from_secs(60));
        lockout.failed(&who("late", "192.0.2.9"));
        assert_eq!(size(&lockout), (1, 1), "what counts no more makes room");
    }
}
