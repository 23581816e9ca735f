//! A fair scheduler for evaluations: one permit (place) for each worker thread, handed out round-robin among users, with
//! a cap for each user.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// The permits, and who waits for one.
#[derive(Debug)]
pub(super) struct Shares {
    /// The most permits of one user.
    most: usize,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    free: usize,
    /// INVARIANT: for each user who has a permit or waits for one; no others.
    users: BTreeMap<Arc<str>, Share>,
    /// Users who wait, the next one first, each once.
    order: VecDeque<Arc<str>>,
}

#[derive(Debug, Default)]
struct Share {
    /// Evaluations of the user that have had a whole turn and are not ended.
    long: usize,
    placed: usize,
    waiting: VecDeque<oneshot::Sender<Place>>,
}

/// A permit, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    /// `None` once it is given back.
    from: Option<(Arc<Shares>, Arc<str>)>,
}

/// An evaluation from its beginning to its end.
#[derive(Debug)]
pub(super) struct Evaluation {
    shares: Arc<Shares>,
    user: Arc<str>,
    is_long: bool,
}

impl Shares {
    /// A scheduler with `places` permits, of which one user may have `most`.
    pub(super) fn new(places: usize, most: usize) -> Arc<Self> {
        Arc::new(Self {
            most: most.max(1),
            table: Mutex::new(Table {
                free: places.max(1),
                users: BTreeMap::new(),
                order: VecDeque::new(),
            }),
        })
    }

    /// Begins an evaluation of the user.
    pub(super) fn begin(self: &Arc<Self>, user: &Arc<str>) -> Evaluation {
        Evaluation {
            shares: Arc::clone(self),
            user: Arc::clone(user),
            is_long: false,
        }
    }

    /// Has the user an evaluation that takes long?
    pub(super) fn has_long(&self, user: &str) -> bool {
        let table = self.table();
        table.users.get(user).is_some_and(|share| share.long > 0)
    }

    fn queue(self: &Arc<Self>, user: &Arc<str>) -> oneshot::Receiver<Place> {
        let (sender, receiver) = oneshot::channel();
        let mut table = self.table();
        let share = table.users.entry(Arc::clone(user)).or_default();
        share.waiting.push_back(sender);
        if !table.order.contains(user) {
            table.order.push_back(Arc::clone(user));
        }
        self.give(&mut table);
        receiver
    }

    /// Gives free places to those who wait: each user in turn, as long as they have less than their share.
    fn give(self: &Arc<Self>, table: &mut Table) {
        let mut passed = 0;
        while table.free > 0 && passed < table.order.len() {
            let Some(user) = table.order.pop_front() else {
                return;
            };
            let Some(share) = table.users.get_mut(&user) else {
                continue;
            };
            share.waiting.retain(|waits| !waits.is_closed());
            if share.placed >= self.most && !share.waiting.is_empty() {
                table.order.push_back(user);
                passed += 1;
                continue;
            }
            let Some(next) = share.waiting.pop_front() else {
                continue;
            };
            let place = Place {
                from: Some((Arc::clone(self), Arc::clone(&user))),
            };
            match next.send(place) {
                Ok(()) => {
                    share.placed += 1;
                    table.free -= 1;
                    passed = 0;
                }
                // Gave up at this very moment: it must not be given back by its own end.
                Err(mut place) => place.from = None,
            }
            if !share.waiting.is_empty() {
                table.order.push_back(user);
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn most(&self) -> usize {
        self.most
    }

    #[cfg(test)]
    fn is_at_rest(&self) -> bool {
        let table = self.table();
        table.users.is_empty() && table.order.is_empty()
    }
}

impl Evaluation {
    /// Waits for a place. Whoever stops waiting is passed over.
    pub(super) async fn place(&self) -> Option<Place> {
        self.shares.queue(&self.user).await.ok()
    }

    /// It has had a whole turn.
    pub(super) fn takes_long(&mut self) {
        if !std::mem::replace(&mut self.is_long, true) {
            let mut table = self.shares.table();
            let share = table.users.entry(Arc::clone(&self.user)).or_default();
            share.long += 1;
        }
    }
}

impl Drop for Evaluation {
    fn drop(&mut self) {
        if !self.is_long {
            return;
        }
        let mut table = self.shares.table();
        if let Some(share) = table.users.get_mut(&self.user) {
            share.long = share.long.saturating_sub(1);
        }
        table.forget(&self.user);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((shares, user)) = self.from.take() else {
            return;
        };
        let mut table = shares.table();
        table.free += 1;
        if let Some(share) = table.users.get_mut(&user) {
            share.placed = share.placed.saturating_sub(1);
        }
        table.forget(&user);
        shares.give(&mut table);
    }
}

impl Table {
    /// Forgets the user of whom nothing is left.
    fn forget(&mut self, user: &Arc<str>) {
        if let Some(share) = self.users.get_mut(user) {
            share.waiting.retain(|waits| !waits.is_closed());
            if share.long == 0 && share.placed == 0 && share.waiting.is_empty() {
                self.users.remove(user);
                self.order.retain(|other| other != user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> (Arc<str>, Arc<str>) {
        ("ann".into(), "bob".into())
    }

    fn placed(waits: &mut oneshot::Receiver<Place>) -> Option<Place> {
        waits.try_recv().ok()
    }

    #[test]
    fn users_take_turns_however_many_wait_of_one() {
        let (ann, bob) = users();
        let shares = Shares::new(1, 1);
        let mut first = shares.queue(&ann);
        let mut anns: Vec<_> = (0..40).map(|_| shares.queue(&ann)).collect();
        let mut bobs = shares.queue(&bob);
        let place = placed(&mut first).unwrap();
        assert!(placed(&mut bobs).is_none());
        drop(place);
        let next = placed(&mut anns[0]).expect("ann was there first");
        assert!(placed(&mut bobs).is_none());
        drop(next);
        let place = placed(&mut bobs).expect("one turn of ann later");
        assert!(placed(&mut anns[1]).is_none());
        drop(place);
        assert!(placed(&mut anns[1]).is_some());
    }

    #[test]
    fn no_user_has_more_than_their_share() {
        let (ann, bob) = users();
        let shares = Shares::new(4, 2);
        let mut anns: Vec<_> = (0..4).map(|_| shares.queue(&ann)).collect();
        let had: Vec<_> = anns.iter_mut().map(placed).collect();
        assert_eq!(had.iter().flatten().count(), 2);
        let mut bobs = shares.queue(&bob);
        assert!(placed(&mut bobs).is_some(), "a place is left for others");
        drop(had);
        assert!(placed(&mut anns[2]).is_some() && placed(&mut anns[3]).is_some());
    }

    #[test]
    fn who_gives_up_waiting_costs_nobody_a_place() {
        let (ann, bob) = users();
        let shares = Shares::new(1, 1);
        let mut first = shares.queue(&ann);
        let gone: Vec<_> = (0..3).map(|_| shares.queue(&ann)).collect();
        let mut bobs = shares.queue(&bob);
        let place = placed(&mut first).unwrap();
        drop(gone);
        drop(place);
        let place = placed(&mut bobs).unwrap();
        drop(place);
        drop((first, bobs));
        assert!(shares.is_at_rest());
    }

    #[test]
    fn a_place_that_was_given_and_never_taken_comes_back() {
        let (ann, bob) = users();
        let shares = Shares::new(1, 1);
        drop(shares.queue(&ann));
        let mut bobs = shares.queue(&bob);
        assert!(placed(&mut bobs).is_some());
        assert!(shares.is_at_rest());
    }

    #[test]
    fn it_is_known_who_evaluates_something_long() {
        let (ann, bob) = users();
        let shares = Shares::new(1, 1);
        let mut one = shares.begin(&ann);
        assert!(!shares.has_long(&ann));
        one.takes_long();
        one.takes_long();
        assert!(shares.has_long(&ann) && !shares.has_long(&bob));
        drop(one);
        assert!(!shares.has_long(&ann));
        assert!(shares.is_at_rest());
    }
}
