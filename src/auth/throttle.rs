//! Log lines that a client can cause as often as it likes are written seldom, with a count.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::lockout::network;

/// From one line to the next.
const PAUSE: Duration = Duration::from_secs(10);

/// Most that have a line of their own; the others share one.
const OWN: usize = 256;

/// A line of its own for each of many.
#[derive(Debug)]
pub struct ByKey<K> {
    own: Mutex<BTreeMap<K, Arc<Throttle>>>,
    others: Throttle,
}

impl<K> Default for ByKey<K> {
    fn default() -> Self {
        Self {
            own: Mutex::default(),
            others: Throttle::default(),
        }
    }
}

impl<K: Ord> ByKey<K> {
    /// As [`Throttle::happened`], for what this one alone has caused.
    pub fn happened(&self, key: K) -> Option<u64> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if own.len() >= OWN && !own.contains_key(&key) {
            own.retain(|_, line| line.is_pausing());
        }
        let is_full = own.len() >= OWN && !own.contains_key(&key);
        let line = (!is_full).then(|| Arc::clone(own.entry(key).or_default()));
        drop(own);
        line.as_deref().unwrap_or(&self.others).happened()
    }
}

/// A line of its own for each client: an address, or the network of 64 bits that one host of IPv6 has for itself.
#[derive(Debug, Default)]
pub struct ByNetwork(ByKey<IpAddr>);

impl ByNetwork {
    /// As [`Throttle::happened`], for what this client alone has caused.
    pub fn happened(&self, peer: IpAddr) -> Option<u64> {
        self.0.happened(network(peer))
    }
}

/// One kind of line.
#[derive(Debug, Default)]
pub struct Throttle(Mutex<(Option<Instant>, u64)>);

impl Throttle {
    /// Is it time for a line? Then how often this has happened since the last one, this time included.
    pub fn happened(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, times) = &mut *state;
        *times += 1;
        if last.is_some_and(|last| last.elapsed() < PAUSE) {
            return None;
        }
        *last = Some(Instant::now());
        Some(std::mem::take(times))
    }

    /// Is it not yet time for the next line?
    fn is_pausing(&self) -> bool {
        let (last, _) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|last| last.elapsed() < PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_thousand_are_one_line_and_the_next_one_counts_them() {
        let line = Throttle::default();
        let said: Vec<_> = (0..1000).filter_map(|_| line.happened()).collect();
        assert_eq!(said, [1]);
        tokio::time::advance(PAUSE).await;
        assert_eq!(line.happened(), Some(1000));
        assert_eq!(line.happened(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn each_network_has_a_line_and_a_flood_of_them_shares_one() {
        let lines = ByNetwork::default();
        let peer = |n: u32| IpAddr::from(std::net::Ipv4Addr::from_bits(0xC000_0200 + n));
        let six = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(lines.happened(six("2001:db8::1")), Some(1));
        assert_eq!(lines.happened(six("2001:db8::2")), None, "the same host");
        let flood = || (0..10_000).filter_map(|n| lines.happened(peer(n))).count();
        assert_eq!(flood(), OWN - 1 + 1);
        assert_eq!(flood(), 0);
        tokio::time::advance(PAUSE).await;
        assert_eq!(lines.happened(six("2001:db8::1")), Some(2));
        assert_eq!(flood(), OWN - 1 + 1);
    }
}
