//! What a machine's disk may hold, as its starter and whoever applies sets know it: a number of starts.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};

/// The disk of one machine, told of by two threads.
#[derive(Debug)]
pub(super) struct Disk(Mutex<Told>);

#[derive(Debug)]
struct Told {
    /// What it may hold, as far as the starter knows.
    possible: BTreeSet<u32>,
    /// What applies put there that have ended since the last start began.
    applied: Vec<u32>,
    /// What the apply that is at work puts there; whether a start has ended meanwhile.
    pending: Option<(u32, bool)>,
}

impl Disk {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Told {
            possible: BTreeSet::from([0]),
            applied: Vec::new(),
            pending: None,
        }))
    }

    /// A start begins: what was applied until now is there.
    pub(super) fn starting(&self) {
        let mut told = self.told();
        if let Some(count) = told.applied.pop() {
            told.possible = BTreeSet::from([count]);
            told.applied.clear();
        }
    }

    /// A start has ended; its guest found the number before this one. An apply that was asked for meanwhile came
    /// before it or after it, never beside it.
    pub(super) fn ran(&self, count: u32, name: &str) {
        let mut told = self.told();
        let mut applied: BTreeSet<_> = told.applied.drain(..).collect();
        if let Some((count, seen)) = &mut told.pending {
            *seen = true;
            applied.insert(*count);
        }
        let found = count - 1;
        assert!(
            told.possible.contains(&found) || applied.contains(&found),
            "{name} booted a stale disk: it found {found}; {:?} or {applied:?} may be there",
            told.possible
        );
        told.possible = applied;
        told.possible.insert(count);
    }

    /// A set that holds this number is applied.
    pub(super) fn applying(&self, count: u32) {
        self.told().pending = Some((count, false));
    }

    /// The apply has ended, or was refused.
    pub(super) fn applied(&self, done: bool) {
        let mut told = self.told();
        if let (Some((count, seen)), true) = (told.pending.take(), done) {
            match seen {
                true => told.possible.insert(count),
                false => {
                    told.applied.push(count);
                    true
                }
            };
        }
    }

    /// Whether it may hold this at the end.
    pub(super) fn may_hold(&self, count: u32) -> bool {
        self.starting();
        self.told().possible.contains(&count)
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        // One side has failed: that is told elsewhere.
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}
