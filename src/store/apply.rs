//! How one change turns a state into the next; the same for every store.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::id::{SetId, SnapshotId};
use crate::inventory::SnapshotSet;

use super::{Change, State};

impl State {
    /// The state after `changes`, one revision later; `self` if there are none.
    pub(super) fn after(&self, changes: &[Change]) -> Self {
        let mut next = self.clone();
        if !changes.is_empty() {
            next.revision += 1;
        }
        for change in changes {
            next.apply(change);
        }
        next
    }

    /// Makes one change. Maps that readers still hold are copied, never altered.
    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::PutCollection(c) => {
                Arc::make_mut(&mut self.collections).insert(c.id, Arc::new(c.clone()));
            }
            Change::RemoveCollection(id) => {
                Arc::make_mut(&mut self.collections).remove(id);
            }
            Change::PutSet(set) => self.put_set(set),
            Change::RemoveSet(id) => {
                if let Some(old) = Arc::make_mut(&mut self.sets).remove(id) {
                    forget_members(Arc::make_mut(&mut self.snapshots), &old);
                }
            }
            Change::PutPosition(machine, position) => {
                Arc::make_mut(&mut self.positions).insert(*machine, position.clone());
            }
            Change::RemovePosition(machine) => {
                Arc::make_mut(&mut self.positions).remove(machine);
            }
            Change::PutLeftover(it) => {
                Arc::make_mut(&mut self.leftovers).insert(it.file.clone(), it.clone());
            }
            Change::RemoveLeftover(file) => {
                Arc::make_mut(&mut self.leftovers).remove(file);
            }
            Change::PutJob(job) => {
                Arc::make_mut(&mut self.jobs).insert(job.id, Arc::new(job.clone()));
            }
            Change::RemoveJob(id) => {
                Arc::make_mut(&mut self.jobs).remove(id);
            }
            Change::Ended(_) => {}
        }
    }

    fn put_set(&mut self, set: &SnapshotSet) {
        let index = Arc::make_mut(&mut self.snapshots);
        if let Some(old) = Arc::make_mut(&mut self.sets).insert(set.id, Arc::new(set.clone())) {
            forget_members(index, &old);
        }
        let members = set.members.iter().enumerate();
        index.extend(members.map(|(place, member)| (member.id, (set.id, place))));
    }
}

/// Takes the members of a set out of the index, except those that another set has taken over.
fn forget_members(index: &mut BTreeMap<SnapshotId, (SetId, usize)>, old: &SnapshotSet) {
    for member in &old.members {
        if index.get(&member.id).is_some_and(|(set, _)| *set == old.id) {
            index.remove(&member.id);
        }
    }
}
