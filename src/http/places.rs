//! The places for connections: who has one, whose it is, and who gives way when all are taken.
//!
//! Whoever has not shown to be a user gives way to whoever comes new, first those of the network that has
//! most of them. So a flood from one place costs that place alone, and silence holds no place against
//! anybody. A user's connection gives way when it has waited for its next request for a while, or when the user has
//! more than a share of all and it is between two requests or slow. No request that is being answered is cut off.
//!
//! A share is that of one user where all users, and one who comes new, have equally many.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::auth;

use super::phase::Phase;

/// A user's connection that has waited for so long between two requests may be closed for another's sake.
const WAITED: Duration = Duration::from_secs(10);

/// A request that is being looked at for so long at most is not cut off for a new connection, if another
/// one can be. What a user sends or takes for longer is slow.
const LOOKED_AT: Duration = Duration::from_secs(5);

/// All places.
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
    /// Whose it is, once a request has shown it.
    user: Option<Arc<str>>,
    opened: Instant,
    phase: Arc<Phase>,
    leave: CancellationToken,
}

/// One connection's place, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    /// What the connection is doing.
    pub(super) phase: Arc<Phase>,
    /// The place is wanted for another connection.
    pub(super) leave: CancellationToken,
}

/// What came of asking for a place.
#[derive(Debug)]
pub(super) enum Entered {
    /// There was one.
    Free(Place),
    /// There is one, because another connection was told to leave.
    Instead(Place),
    /// All are taken by users at work.
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

    /// A place for a new connection.
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
    /// A request over this connection has shown to be this user's.
    ///
    /// # Errors
    /// [`TooMany`]; the connection is nobody's then.
    pub(super) fn belongs_to(&self, user: &Arc<str>) -> Result<(), TooMany> {
        let mut open = self.places.get();
        let Some(entry) = open.all.get_mut(&self.number) else {
            // Told to leave a moment ago: this request is the last one.
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
    /// Tells one connection of `total` to leave. `false`: none can be asked to.
    fn make_room(&mut self, total: usize) -> bool {
        let mut users = BTreeMap::<&str, usize>::new();
        for user in self.all.values().filter_map(|e| e.user.as_deref()) {
            *users.entry(user).or_default() += 1;
        }
        let share = total.div_ceil(users.len() + 1);
        let strangers = self.all.len() - users.values().sum::<usize>();
        let most = users.values().max().copied().unwrap_or_default();
        let slowest = self.all.iter().filter_map(|(number, entry)| {
            let taken = users.get(entry.user.as_deref()?);
            let pace = entry.phase.pace(LOOKED_AT)?;
            (taken == Some(&most)).then_some((pace, *number))
        });
        let slowest = slowest.min().map(|(_, number)| number);
        strangers > share && self.dismiss_stranger()
            || most > share && self.dismiss(slowest)
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

    /// The one that has waited longest, of that user or of all.
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
