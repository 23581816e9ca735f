//! Connection slots, and eviction when all are taken.
//!
//! A new connection evicts an unauthenticated one, the oldest of the client network that has the most of them; one
//! whose current request began less than 5 s ago is evicted only if that network has no other. So a flood from one
//! network evicts only its own connections. An authenticated connection is evicted if it has been idle for 10 s, or if
//! its user has more than a share and it is between two requests or slow. No request that is being answered is cut off.
//! If nothing can be evicted the new connection is refused.
//!
//! A share is what each has when all users, and the newcomer, have equally many.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::auth;

use super::phase::Phase;

/// An authenticated connection that has been idle for this long may be evicted.
const WAITED: Duration = Duration::from_secs(10);

/// A connection whose current request is younger than this is evicted only if its network has no other candidate. What
/// a user takes longer to send or to receive is slow.
const LOOKED_AT: Duration = Duration::from_secs(5);

/// All slots.
#[derive(Debug)]
pub(super) struct Places {
    total: usize,
    per_user: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    last: u64,
    all: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    network: IpAddr,
    /// The user, once a request has been authenticated.
    user: Option<Arc<str>>,
    opened: Instant,
    phase: Arc<Phase>,
    leave: CancellationToken,
}

/// The slot of one connection, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    /// What the connection is doing.
    pub(super) phase: Arc<Phase>,
    /// Cancelled when the connection is evicted.
    pub(super) leave: CancellationToken,
}

/// The result of asking for a slot.
#[derive(Debug)]
pub(super) enum Entered {
    /// One was free.
    Free(Place),
    /// One was freed by evicting another connection.
    Instead(Place),
    /// All are taken by users who are not idle.
    Full,
}

/// The user has as many connections as one may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany;

impl Places {
    pub(super) fn new(total: usize, per_user: usize) -> Arc<Self> {
        Arc::new(Self {
            total,
            per_user,
            open: Mutex::default(),
        })
    }

    /// A slot for a new connection.
    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr) -> Entered {
        let mut open = self.get();
        let full = open.all.len() >= self.total;
        if full && !open.make_room(self.total) {
            return Entered::Full;
        }
        open.last += 1;
        let place = Place {
            places: Arc::clone(self),
            number: open.last,
            phase: Arc::new(Phase::new()),
            leave: CancellationToken::new(),
        };
        let entry = Entry {
            network: auth::network(peer),
            user: None,
            opened: Instant::now(),
            phase: Arc::clone(&place.phase),
            leave: place.leave.clone(),
        };
        open.all.insert(place.number, entry);
        match full {
            true => Entered::Instead(place),
            false => Entered::Free(place),
        }
    }

    fn get(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// A request over this connection was authenticated as this user.
    ///
    /// # Errors
    /// [`TooMany`]; the connection counts as unauthenticated then.
    pub(super) fn belongs_to(&self, user: &Arc<str>) -> Result<(), TooMany> {
        let mut open = self.places.get();
        let Some(entry) = open.all.get_mut(&self.number) else {
            // Evicted a moment ago: this request is the last one.
            return Ok(());
        };
        if entry.user.as_ref() == Some(user) {
            return Ok(());
        }
        entry.user = None;
        let has = |e: &&Entry| e.user.as_ref() == Some(user);
        let taken = open.all.values().filter(has).count();
        if taken >= self.places.per_user && !open.dismiss_idle(Some(user)) {
            return Err(TooMany);
        }
        if let Some(entry) = open.all.get_mut(&self.number) {
            entry.user = Some(Arc::clone(user));
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.get().all.remove(&self.number);
    }
}

impl Open {
    /// Evicts one connection of `total`. `false` if none can be evicted.
    fn make_room(&mut self, total: usize) -> bool {
        let mut users = BTreeMap::<&str, usize>::new();
        for user in self.all.values().filter_map(|e| e.user.as_deref()) {
            *users.entry(user).or_default() += 1;
        }
        let share = total.div_ceil(users.len() + 1);
        let strangers = self.all.len() - users.values().sum::<usize>();
        // Of those with more than a share the one with most, as far as it has one that can go.
        let candidates = self.all.iter().filter_map(|(number, entry)| {
            let taken = *users.get(entry.user.as_deref()?)?;
            let pace = entry.phase.pace(LOOKED_AT)?;
            (taken > share).then_some((Reverse(taken), pace, *number))
        });
        let first = candidates.min().map(|(_, _, number)| number);
        strangers > share && self.dismiss_stranger()
            || self.dismiss(first)
            || self.dismiss_stranger()
            || self.dismiss_idle(None)
    }

    fn dismiss_stranger(&mut self) -> bool {
        let strangers = || self.all.iter().filter(|(_, e)| e.user.is_none());
        let mut networks = BTreeMap::<IpAddr, usize>::new();
        for (_, entry) in strangers() {
            *networks.entry(entry.network).or_default() += 1;
        }
        let Some(most) = networks.values().max().copied() else {
            return false;
        };
        let found = strangers()
            .filter(|(_, e)| networks.get(&e.network) == Some(&most))
            .min_by_key(|(number, e)| (e.phase.is_busy_since(LOOKED_AT), e.opened, **number))
            .map(|(number, _)| *number);
        self.dismiss(found)
    }

    /// Evicts the authenticated connection that has been idle longest, of that user or of all.
    fn dismiss_idle(&mut self, user: Option<&Arc<str>>) -> bool {
        let found = self
            .all
            .iter()
            .filter(|(_, e)| e.user.is_some() && (user.is_none() || e.user.as_ref() == user))
            .filter_map(|(number, e)| Some((e.phase.idle_for()?, *number)))
            .filter(|(waited, _)| *waited >= WAITED)
            .max()
            .map(|(_, number)| number);
        self.dismiss(found)
    }

    fn dismiss(&mut self, number: Option<u64>) -> bool {
        let entry = number.and_then(|number| self.all.remove(&number));
        entry.map(|entry| entry.leave.cancel()).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(places: &Arc<Places>, peer: &str) -> Option<Place> {
        match places.enter(peer.parse().unwrap()) {
            Entered::Free(place) | Entered::Instead(place) => Some(place),
            Entered::Full => None,
        }
    }

    fn of(user: &str, place: &Place) -> Result<(), TooMany> {
        place.belongs_to(&Arc::from(user))
    }

    fn answered(place: &Place) {
        place.phase.answering();
        place.phase.flushed();
    }

    /// Three users who send bodies octet by octet, or ask something now and then, hold no table against a fourth.
    #[tokio::test(start_paused = true)]
    async fn who_has_more_than_a_share_gives_way_the_slowest_first() {
        let places = Places::new(12, 4);
        let mut held: Vec<_> = (0..12).map(|_| enter(&places, "::1").unwrap()).collect();
        for (n, place) in held.iter().enumerate() {
            place.phase.begin();
            of(["ann", "bob", "cid"][n / 4], place).unwrap();
            place.phase.reading();
        }
        assert!(enter(&places, "::2").is_none(), "they have only begun");
        tokio::time::advance(LOOKED_AT).await;
        held[..4].iter().for_each(|place| place.phase.working());
        held[4..8]
            .iter()
            .for_each(|place| place.phase.received(&[b'x'; 100]));
        answered(&held[4]);
        tokio::time::advance(Duration::from_millis(1)).await;
        let gone = |places: &[Place]| -> Vec<_> {
            let gone = places
                .iter()
                .enumerate()
                .filter(|(_, p)| p.leave.is_cancelled());
            gone.map(|(n, _)| n).collect()
        };
        // A share is three places: of each user one may go, and who is at work keeps all.
        let fourth = enter(&places, "::2").unwrap();
        assert_eq!(gone(&held), [8]);
        of("dan", &fourth).unwrap();
        let fifth = enter(&places, "::2").unwrap();
        assert_eq!(gone(&held), [5, 8]);
        // Whoever comes then takes the place of the stranger.
        let sixth = enter(&places, "::2").unwrap();
        assert!(fifth.leave.is_cancelled());
        of("eve", &sixth).unwrap();
        held[..4].iter().for_each(answered);
        let seventh = enter(&places, "::2").unwrap();
        assert_eq!(gone(&held), [0, 5, 8], "between two requests");
        assert!(!seventh.leave.is_cancelled());
        held.clear();
    }

    /// A user who is at work shields nobody else, and what moves goes after what is idle.
    #[tokio::test(start_paused = true)]
    async fn who_is_at_work_shields_no_slow_connection_of_another() {
        let places = Places::new(12, 9);
        let held: Vec<_> = (0..12).map(|_| enter(&places, "::1").unwrap()).collect();
        for (n, place) in held.iter().enumerate() {
            place.phase.begin();
            of(if n < 5 { "ann" } else { "bob" }, place).unwrap();
            place.phase.reading();
        }
        held[..5].iter().for_each(|place| place.phase.working());
        answered(&held[5]);
        held[6].phase.received(&[b'x'; 100_000]);
        tokio::time::advance(2 * LOOKED_AT).await;
        let mut gone = Vec::new();
        let mut new = Vec::new();
        for n in 0..3 {
            let place = enter(&places, "::2").unwrap();
            of(&format!("user-{n}"), &place).unwrap();
            place.phase.begin();
            new.push(place);
            let now = (0..12).filter(|n| held[*n].leave.is_cancelled());
            gone.push(now.collect::<Vec<_>>());
        }
        assert_eq!(gone, [vec![7], vec![7, 8], vec![7, 8, 9]]);
        assert!(!held[..5].iter().any(|place| place.leave.is_cancelled()));
        held[10..].iter().for_each(|place| place.phase.working());
        enter(&places, "::2").unwrap();
        assert!(held[5].leave.is_cancelled(), "idle goes before moving");
        assert!(!held[6].leave.is_cancelled());
    }

    /// However many networks they come from.
    #[tokio::test(start_paused = true)]
    async fn strangers_who_have_more_than_a_share_cost_no_user_a_place() {
        let places = Places::new(8, 9);
        let users: Vec<_> = (0..4).map(|_| enter(&places, "::1").unwrap()).collect();
        for place in &users {
            place.phase.begin();
            of("ann", place).unwrap();
            answered(place);
        }
        let mut strangers = Vec::new();
        for n in 0..20 {
            strangers.push(enter(&places, &format!("192.0.2.{n}")).unwrap());
        }
        assert!(users.iter().all(|place| !place.leave.is_cancelled()));
    }

    #[tokio::test]
    async fn strangers_of_the_largest_crowd_give_way_oldest_first() {
        let places = Places::new(4, 9);
        let lone = enter(&places, "192.0.2.1").unwrap();
        let crowd: Vec<_> = (0..3)
            .map(|_| enter(&places, "192.0.2.2").unwrap())
            .collect();
        let fifth = enter(&places, "192.0.2.3").unwrap();
        assert!(!lone.leave.is_cancelled(), "older, and alone");
        let left: Vec<_> = crowd.iter().map(|p| p.leave.is_cancelled()).collect();
        assert_eq!(left, [true, false, false]);
        of("ann", &crowd[1]).unwrap();
        let _sixth = enter(&places, "192.0.2.3").unwrap();
        assert!(!crowd[1].leave.is_cancelled(), "a user's");
        assert!(
            fifth.leave.is_cancelled()
                || lone.leave.is_cancelled()
                || crowd[2].leave.is_cancelled()
        );
        assert_eq!(places.get().all.len(), 4);
    }

    #[tokio::test]
    async fn one_ipv6_network_is_one_crowd() {
        let places = Places::new(3, 9);
        let lone = enter(&places, "2001:db8:0:2::1").unwrap();
        let _a = enter(&places, "2001:db8:0:1::1").unwrap();
        let _b = enter(&places, "2001:db8:0:1::2").unwrap();
        enter(&places, "192.0.2.1").unwrap();
        assert!(!lone.leave.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn users_give_way_only_when_they_have_waited() {
        let places = Places::new(2, 9);
        let busy = enter(&places, "192.0.2.1").unwrap();
        let idle = enter(&places, "192.0.2.1").unwrap();
        for (user, place) in [("ann", &busy), ("bob", &idle)] {
            place.phase.begin();
            of(user, place).unwrap();
        }
        answered(&idle);
        assert!(enter(&places, "192.0.2.2").is_none());
        tokio::time::advance(WAITED).await;
        let third = enter(&places, "192.0.2.2").unwrap();
        assert!(idle.leave.is_cancelled() && !busy.leave.is_cancelled());
        drop(third);
        assert!(enter(&places, "192.0.2.2").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_has_so_many_and_another_user_is_not_concerned() {
        let places = Places::new(9, 2);
        let all: Vec<_> = (0..4).map(|_| enter(&places, "::1").unwrap()).collect();
        for place in &all {
            place.phase.begin();
        }
        of("ann", &all[0]).unwrap();
        of("ann", &all[1]).unwrap();
        of("ann", &all[1]).unwrap();
        assert_eq!(of("ann", &all[2]), Err(TooMany));
        of("bob", &all[2]).unwrap();
        // A connection may change hands, and then counts for the new one.
        of("bob", &all[1]).unwrap();
        of("ann", &all[3]).unwrap();
        assert_eq!(of("bob", &all[0]), Err(TooMany));
        answered(&all[3]);
        tokio::time::advance(WAITED).await;
        let mut more = Vec::new();
        for _ in 0..2 {
            let place = enter(&places, "::1").unwrap();
            of("ann", &place).unwrap();
            more.push(place);
        }
        assert!(all[3].leave.is_cancelled(), "its own idle one gave way");
    }
}
