//! One view of all machines, for those who must not wait for a file.
//!
//! An engine keeps it by observers of its own, of which there are no more than it has bounds for, however many machines
//! there are, and publishes each change of it ([`Compute::observe`](super::Compute::observe)).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::id::VmId;
use crate::inventory::RunState;
use crate::text::Text;

use super::Machines;

/// All machines as they were observed last. To clone it costs three counters.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// The machines with their active files, by id.
    pub machines: Arc<Machines>,
    conditions: Arc<Conditions>,
    states: Arc<States>,
}

/// What their files show, of those alone of which they show anything.
pub(in crate::engine) type Conditions = BTreeMap<VmId, Condition>;

/// What the machines do, as those say that run them.
pub(in crate::engine) type States = BTreeMap<VmId, RunState>;

/// What the files of a machine show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::engine) struct Condition {
    /// A process that is not ours has an active file open for writing.
    pub(in crate::engine) written: bool,
    /// See [`Observed::is_ailing`].
    pub(in crate::engine) ailing: bool,
    /// See [`Observed::trouble`].
    pub(in crate::engine) trouble: Option<Text>,
}

impl Observed {
    /// Of these machines nothing is known but what they are: they are off and well.
    #[must_use]
    pub fn of(machines: Arc<Machines>) -> Self {
        Self {
            machines,
            ..Self::default()
        }
    }

    /// What the machine does. Who runs it counts more than who has its files open.
    #[must_use]
    pub fn state(&self, id: VmId) -> RunState {
        let by_files = || match self.is_written(id) {
            true => RunState::Held,
            false => RunState::Off,
        };
        self.states.get(&id).copied().unwrap_or_else(by_files)
    }

    /// Whether the active file of one of its disks is away, cannot be read, lies where it must not, or does not answer.
    #[must_use]
    pub fn is_ailing(&self, id: VmId) -> bool {
        self.conditions.get(&id).is_some_and(|it| it.ailing)
    }

    /// Why a machine that is there is not among [`Observed::machines`]: what describes it cannot be read, or tells of
    /// active files that cannot be the active ones.
    #[must_use]
    pub fn trouble(&self, id: VmId) -> Option<&Text> {
        self.conditions.get(&id)?.trouble.as_ref()
    }

    pub(in crate::engine) fn is_written(&self, id: VmId) -> bool {
        self.conditions.get(&id).is_some_and(|it| it.written)
    }

    /// Takes up what the files show now; whether that is anything new. No new machines: those of before.
    pub(in crate::engine) fn renew(
        &mut self,
        machines: Option<Arc<Machines>>,
        conditions: Conditions,
    ) -> bool {
        // Those that a look has found as they were stay the same to whoever has made something of them.
        let machines = machines.filter(|machines| **machines != *self.machines);
        let is_new = machines.is_some() || *self.conditions != conditions;
        if let Some(machines) = machines {
            self.machines = machines;
        }
        self.conditions = Arc::new(conditions);
        is_new
    }

    /// Takes up what those say who run machines; whether that is anything new.
    pub(in crate::engine) fn renew_states(&mut self, states: States) -> bool {
        let is_new = *self.states != states;
        self.states = Arc::new(states);
        is_new
    }

    /// For engines that know of each change by itself.
    pub(in crate::engine) fn put_state(&mut self, id: VmId, state: RunState) {
        Arc::make_mut(&mut self.states).insert(id, state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_runs_a_machine_counts_more_than_who_has_its_files_open() {
        let [one, two, three] = [1, 2, 3].map(VmId::from_u128);
        let mut seen = Observed::default();
        let written = || Condition {
            written: true,
            ..Condition::default()
        };
        let conditions = Conditions::from([(one, written()), (two, written())]);
        assert!(seen.renew(None, conditions.clone()));
        assert!(!seen.renew(None, conditions.clone()));
        let machines = Arc::clone(&seen.machines);
        assert!(!seen.renew(Some(Arc::default()), conditions));
        assert!(Arc::ptr_eq(&machines, &seen.machines));
        let states = States::from([(one, RunState::Paused)]);
        assert!(seen.renew_states(states.clone()));
        assert!(!seen.renew_states(states));
        let states = [one, two, three].map(|id| seen.state(id));
        assert_eq!(states, [RunState::Paused, RunState::Held, RunState::Off]);
    }
}
