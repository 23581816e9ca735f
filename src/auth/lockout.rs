//! Lock-out after too many failed logons: of users at an address, and of addresses, for a while.
//!
//! A wrong password counts for its pair of user name and address, whether there is such a user or not, so nobody
//! locks out a user who calls from elsewhere. Every failed logon counts for its address as well, which is locked out
//! at [`ADDRESS_FACTOR`] times the number; one that is refused without a look, as its pair is locked out, does not. The loopback address never is: all that goes through a proxy on this host
//! comes from it. An IPv6 address stands for its network of 64 bits, which one host has for itself.
//!
//! Of one user at one address one guess at a time is looked at (`basic`), so guesses that come at once are no more than
//! those that come in a row.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::clock::SharedClock;

/// Most pairs, and most addresses, that are remembered.
const REMEMBERED: usize = 4096;

/// Most pairs of one address among them.
const REMEMBERED_OF_ADDRESS: usize = 256;

/// So many times the failures of a pair lock out an address.
const ADDRESS_FACTOR: u32 = 10;

/// When a user or an address is locked out, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit {
    /// Wrong passwords in a row for one user from one address; 0 locks nobody out.
    pub(super) failures: u32,
    /// How long it lasts, and how long a failure counts.
    pub(super) time: Duration,
}

/// Counts failures.
pub(super) struct Lockout {
    limit: Limit,
    clock: SharedClock,
    tables: Mutex<Tables>,
}

/// A name as its digest, for names come from outside in any length.
type Name = [u8; 32];

/// One who logs on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Who {
    name: Name,
    network: IpAddr,
}

#[derive(Default)]
struct Tables {
    /// By address first, so that those of one address stand together.
    pairs: BTreeMap<(IpAddr, Name), Failures>,
    networks: BTreeMap<IpAddr, Failures>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Duration,
    /// There is such a user.
    known: bool,
}

/// What a failure has led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Locked {
    /// The user is locked out at this address from now on.
    pub(super) user: bool,
    /// The address is.
    pub(super) address: bool,
}

/// What counts as one client: an IPv4 address, or the network of 64 bits that one host of IPv6 has for itself. The
/// loopback addresses are one, for a program on this host may call from any of them.
#[must_use]
pub fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        host if host.is_loopback() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) => {
            let network = v6.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(network.into())
        }
        host => host,
    }
}

/// Those who share the turns at hashing passwords.
pub(super) type Share = (IpAddr, Option<Name>);

impl Who {
    /// An address shares; behind the loopback address, where a proxy may stand, each user.
    pub(super) fn share(&self) -> Share {
        let name = self.network.is_loopback().then_some(self.name);
        (self.network, name)
    }

    pub(super) fn new(name: &str, peer: IpAddr) -> Self {
        Self {
            name: digest(name),
            network: network(peer),
        }
    }
}

fn digest(name: &str) -> Name {
    Sha256::digest(name).into()
}

impl Failures {
    fn new(now: Duration, known: bool) -> Self {
        Self {
            count: 0,
            last: now,
            known,
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

    /// Is the user at this address, or the address, locked out now?
    pub(super) fn is_locked(&self, who: &Who) -> bool {
        let now = self.clock.elapsed();
        let tables = self.tables();
        let pair = tables.pairs.get(&(who.network, who.name));
        pair.is_some_and(|f| self.is_over(f, self.limit.failures, now))
            || self.is_over_at(&tables, who.network, now)
    }

    /// Is the address locked out now?
    pub(super) fn is_address_locked(&self, peer: IpAddr) -> bool {
        self.is_over_at(&self.tables(), network(peer), self.clock.elapsed())
    }

    fn is_over_at(&self, tables: &Tables, network: IpAddr, now: Duration) -> bool {
        let network = tables.networks.get(&network);
        network.is_some_and(|f| self.is_over(f, self.limit_of_address(), now))
    }

    /// A wrong password for a name; `known` if there is such a user.
    pub(super) fn failed(&self, who: &Who, known: bool) -> Locked {
        if self.limit.failures == 0 {
            return Locked::default();
        }
        let now = self.clock.elapsed();
        let mut tables = self.tables();
        let entry = self.pair(&mut tables, who, known, now);
        entry.count = entry.count.saturating_add(1);
        entry.last = now;
        let user = entry.count == self.limit.failures;
        Locked {
            user,
            address: self.count_address(&mut tables, who.network, now),
        }
    }

    /// A logon that failed for another reason: a certificate of nobody, credentials that are none.
    pub(super) fn failed_otherwise(&self, peer: IpAddr) -> bool {
        let now = self.clock.elapsed();
        let mut tables = self.tables();
        self.limit.failures > 0 && self.count_address(&mut tables, network(peer), now)
    }

    /// A right password: what this user has failed at this address is forgiven. What the address has failed with
    /// others is not, or one user of its own would let a guesser begin anew.
    pub(super) fn succeeded(&self, who: &Who) {
        self.tables().pairs.remove(&(who.network, who.name));
    }

    /// Forgets the failures of the user; the addresses at which it was locked out.
    pub(super) fn unlock(&self, name: &str) -> Vec<IpAddr> {
        let (name, now) = (digest(name), self.clock.elapsed());
        let mut tables = self.tables();
        let mut opened = Vec::new();
        tables.pairs.retain(|(network, of), failures| {
            if *of != name {
                return true;
            }
            if self.is_over(failures, self.limit.failures, now) {
                opened.push(*network);
            }
            false
        });
        opened
    }

    /// Forgets the failures of the address, and of every user at it; was it, or one of them, locked out?
    pub(super) fn unlock_address(&self, peer: IpAddr) -> bool {
        let (network, now) = (network(peer), self.clock.elapsed());
        let mut tables = self.tables();
        let gone = tables.networks.remove(&network);
        let mut over = gone.is_some_and(|f| self.is_over(&f, self.limit_of_address(), now));
        tables.pairs.retain(|(of, _), failures| {
            over |= *of == network && self.is_over(failures, self.limit.failures, now);
            *of != network
        });
        over
    }

    /// The entry of a pair, made if it is missing and begun anew if it counts no more.
    fn pair<'a>(
        &self,
        tables: &'a mut Tables,
        who: &Who,
        known: bool,
        now: Duration,
    ) -> &'a mut Failures {
        let key = (who.network, who.name);
        if !tables.pairs.contains_key(&key) {
            self.make_room(&mut tables.pairs, who.network, now);
        }
        let entry = tables.pairs.entry(key);
        let entry = entry.or_insert_with(|| Failures::new(now, known));
        entry.known = known;
        if !self.counts(entry, now) {
            entry.count = 0;
        }
        entry
    }

    /// Counts a failure of the address; `true` if it was the one too many.
    fn count_address(&self, tables: &mut Tables, network: IpAddr, now: Duration) -> bool {
        if network.is_loopback() {
            return false;
        }
        if !tables.networks.contains_key(&network) && tables.networks.len() >= REMEMBERED {
            tables.networks.retain(|_, f| self.counts(f, now));
            if tables.networks.len() >= REMEMBERED {
                let limit = self.limit_of_address();
                let oldest = oldest(tables.networks.iter(), limit);
                oldest.and_then(|key| tables.networks.remove(&key));
            }
        }
        let entry = tables.networks.entry(network);
        let entry = entry.or_insert_with(|| Failures::new(now, false));
        if !self.counts(entry, now) {
            entry.count = 0;
        }
        entry.count = entry.count.saturating_add(1);
        entry.last = now;
        entry.count == self.limit_of_address()
    }

    /// Makes room for one pair more. An address that has its share gives one of its own; else what counts no more
    /// goes, and then one of the address that has the most: a flood of names from one address evicts its own. Names of
    /// users go last, or made-up names would have their failures forgotten; then what is locked out.
    fn make_room(
        &self,
        pairs: &mut BTreeMap<(IpAddr, Name), Failures>,
        network: IpAddr,
        now: Duration,
    ) {
        let share = of(pairs, network).count();
        if share < REMEMBERED_OF_ADDRESS && pairs.len() < REMEMBERED {
            return;
        }
        pairs.retain(|_, failures| self.counts(failures, now));
        let from = match of(pairs, network).count() >= REMEMBERED_OF_ADDRESS {
            true => network,
            false if pairs.len() < REMEMBERED => return,
            false => most(pairs).unwrap_or(network),
        };
        let oldest = oldest(of(pairs, from), self.limit.failures);
        oldest.and_then(|key| pairs.remove(&key));
    }

    const fn limit_of_address(&self) -> u32 {
        self.limit.failures.saturating_mul(ADDRESS_FACTOR)
    }

    fn is_over(&self, failures: &Failures, limit: u32, now: Duration) -> bool {
        limit > 0 && failures.count >= limit && self.counts(failures, now)
    }

    fn counts(&self, failures: &Failures, now: Duration) -> bool {
        now < failures.last.saturating_add(self.limit.time)
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pairs of one address.
fn of(
    pairs: &BTreeMap<(IpAddr, Name), Failures>,
    network: IpAddr,
) -> impl Iterator<Item = (&(IpAddr, Name), &Failures)> {
    pairs.range((network, [0; 32])..=(network, [u8::MAX; 32]))
}

/// The address with the most pairs.
fn most(pairs: &BTreeMap<(IpAddr, Name), Failures>) -> Option<IpAddr> {
    let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for (network, _) in pairs.keys() {
        *counts.entry(*network).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    most.map(|(network, _)| network)
}

/// Who goes first: names of nobody, of these what is not locked, and of that the oldest.
fn oldest<'a, K: Copy + 'a>(
    table: impl Iterator<Item = (&'a K, &'a Failures)>,
    limit: u32,
) -> Option<K> {
    let oldest = table.min_by_key(|(_, f)| (f.known, f.count >= limit, f.last));
    oldest.map(|(key, _)| *key)
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

    fn fail(lockout: &Lockout, name: &str, peer: &str) -> Locked {
        lockout.failed(&who(name, peer), false)
    }

    #[test]
    fn a_11_the_third_failure_locks_the_user_at_that_address_and_nowhere_else() {
        let (lockout, clock) = lockout(3);
        let ann = who("ann", "192.0.2.1");
        for n in 1..=3 {
            assert!(!lockout.is_locked(&ann));
            let locked = lockout.failed(&ann, true);
            assert_eq!((locked.user, locked.address), (n == 3, false));
        }
        for (name, peer, locked) in [
            ("ann", "192.0.2.1", true),
            ("ann", "::ffff:192.0.2.1", true),
            ("ann", "192.0.2.2", false),
            ("bob", "192.0.2.1", false),
        ] {
            assert_eq!(lockout.is_locked(&who(name, peer)), locked, "{name} {peer}");
        }
        clock.advance(Duration::from_secs(59));
        assert!(lockout.is_locked(&ann));
        clock.advance(Duration::from_secs(1));
        assert!(!lockout.is_locked(&ann));
        assert_eq!(
            fail(&lockout, "ann", "192.0.2.1"),
            Locked::default(),
            "counted anew"
        );
    }

    #[test]
    fn an_address_is_locked_at_ten_times_the_number_of_failures_of_any_kind() {
        let (lockout, _clock) = lockout(3);
        let peer = "2001:db8::1";
        for n in 0..29 {
            let last = match n % 3 {
                0 => lockout.failed_otherwise(peer.parse().unwrap()),
                _ => fail(&lockout, &n.to_string(), peer).address,
            };
            assert!(!last);
        }
        assert!(!lockout.is_locked(&who("ann", "2001:db8::2")));
        assert!(fail(&lockout, "x", peer).address);
        assert!(lockout.is_locked(&who("ann", "2001:db8::2")));
        assert!(!lockout.is_locked(&who("ann", "2001:db8:0:1::2")));
        lockout.succeeded(&who("x", peer));
        assert!(
            lockout.is_locked(&who("ann", peer)),
            "a user of one's own forgives nothing"
        );
        assert!(lockout.unlock_address("2001:db8::3".parse().unwrap()));
        assert!(!lockout.is_locked(&who("ann", peer)));
    }

    #[test]
    fn the_loopback_address_is_never_locked_and_its_users_are() {
        let (lockout, _clock) = lockout(2);
        for peer in ["127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"] {
            for n in 0..50 {
                assert!(!fail(&lockout, &n.to_string(), peer).address, "{peer}");
                assert!(!lockout.failed_otherwise(peer.parse().unwrap()));
            }
            fail(&lockout, "ann", peer);
            fail(&lockout, "ann", peer);
            assert!(lockout.is_locked(&who("ann", peer)));
            assert!(!lockout.is_locked(&who("bob", peer)));
        }
    }

    #[test]
    fn no_flood_of_made_up_names_has_the_failures_of_a_user_forgotten() {
        let (lockout, _clock) = lockout(3);
        let ann = who("ann", "127.0.0.1");
        for round in 0..3 {
            assert!(!lockout.is_locked(&ann), "{round}");
            lockout.failed(&ann, true);
            for n in 0..2 * REMEMBERED_OF_ADDRESS {
                // Most of them are locked out themselves.
                for _ in 0..3 {
                    fail(&lockout, &format!("{round}-{n}"), "127.0.0.1");
                }
            }
        }
        assert!(lockout.is_locked(&ann));
    }

    #[test]
    fn whoever_calls_from_many_loopback_addresses_is_one() {
        let (lockout, _clock) = lockout(3);
        for n in 1..=3 {
            lockout.failed(&who("ann", &format!("127.0.0.{n}")), true);
        }
        assert!(lockout.is_locked(&who("ann", "127.9.9.9")));
        assert!(lockout.is_locked(&who("ann", "::1")));
    }

    #[test]
    fn failures_far_apart_and_failures_before_a_success_do_not_add_up() {
        let (lockout, clock) = lockout(2);
        let ann = who("ann", "192.0.2.1");
        let fail = || fail(&lockout, "ann", "192.0.2.1");
        fail();
        clock.advance(Duration::from_secs(60));
        assert_eq!(fail(), Locked::default());
        lockout.succeeded(&ann);
        assert_eq!(fail(), Locked::default());
        assert!(fail().user);
    }

    #[test]
    fn a_user_is_unlocked_wherever_it_was_locked() {
        let (lockout, _clock) = lockout(1);
        fail(&lockout, "ann", "192.0.2.1");
        fail(&lockout, "ann", "192.0.2.2");
        fail(&lockout, "bob", "192.0.2.2");
        let addresses = ["192.0.2.1", "192.0.2.2"].map(|a| a.parse::<IpAddr>().unwrap());
        assert_eq!(lockout.unlock("ann"), addresses);
        assert!(lockout.unlock("ann").is_empty());
        assert!(!lockout.is_locked(&who("ann", "192.0.2.1")));
        assert!(lockout.is_locked(&who("bob", "192.0.2.2")));
    }

    #[test]
    fn zero_failures_lock_nobody() {
        let (lockout, _clock) = lockout(0);
        for _ in 0..20 {
            assert_eq!(fail(&lockout, "ann", "192.0.2.1"), Locked::default());
            assert!(!lockout.failed_otherwise("192.0.2.1".parse().unwrap()));
        }
        assert!(!lockout.is_locked(&who("ann", "192.0.2.1")));
    }

    #[test]
    fn a_flood_of_names_from_one_address_pushes_out_its_own_and_no_lock_of_others() {
        let (lockout, clock) = lockout(2);
        fail(&lockout, "ann", "192.0.2.1");
        fail(&lockout, "bob", "192.0.2.2");
        fail(&lockout, "bob", "192.0.2.2");
        for n in 0..2 * REMEMBERED {
            clock.advance(Duration::from_millis(1));
            fail(&lockout, &n.to_string(), "198.51.100.1");
        }
        assert!(fail(&lockout, "ann", "192.0.2.1").user, "still counted");
        let bob = who("bob", "192.0.2.2");
        assert!(lockout.is_locked(&bob));
        assert_eq!(lockout.tables().pairs.len(), REMEMBERED_OF_ADDRESS + 2);
    }

    #[test]
    fn a_flood_from_many_addresses_fills_no_more_than_the_tables_and_opens_no_lock() {
        let (lockout, clock) = lockout(2);
        let ann = who("ann", "192.0.2.1");
        fail(&lockout, "ann", "192.0.2.1");
        fail(&lockout, "ann", "192.0.2.1");
        for n in 0..2 * REMEMBERED {
            clock.advance(Duration::from_millis(1));
            let peer = format!("198.{}.{}.1", n / 256, n % 256);
            fail(&lockout, &n.to_string(), &peer);
        }
        assert!(lockout.is_locked(&ann));
        let size = |lockout: &Lockout| {
            let tables = lockout.tables();
            (tables.pairs.len(), tables.networks.len())
        };
        assert_eq!(size(&lockout), (REMEMBERED, REMEMBERED));
        clock.advance(Duration::from_secs(60));
        fail(&lockout, "late", "192.0.2.9");
        assert_eq!(size(&lockout), (1, 1), "what counts no more makes room");
    }
}
