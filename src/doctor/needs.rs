//! What snapshot sets need beside their disks: the copies of definitions in them, and their machines in the library.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::doctor::look::{Ailment, ailment};
use crate::doctor::{Doctor, FindingKind, Severity};
use crate::engine::definition::{DEFINITION, MACHINES};
use crate::engine::graph;
use crate::id::VmId;
use crate::inventory::Snapshot;

impl Doctor {
    /// Copies of definitions that are gone or were changed.
    pub(super) fn copies(&self) -> Vec<Ailment> {
        let copies = self.deps.coordinator.unsound_copies().into_iter();
        let told = copies.map(|copy| {
            let kind = match copy.gone {
                true => FindingKind::KeptMissing,
                false => FindingKind::KeptChanged,
            };
            let object = copy.file.display().to_string();
            ailment(kind, Severity::Error, object, copy.text.english())
        });
        told.collect()
    }

    /// Machines that sets hold and the library does not.
    pub(super) fn strangers(&self) -> Vec<Ailment> {
        let (state, compute) = (self.deps.store.state(), &self.deps.compute);
        let mut last: BTreeMap<VmId, &Snapshot> = BTreeMap::new();
        let members = state.sets.values().flat_map(|set| &set.members);
        let is_gone = |id| compute.is_gone(id);
        // The simulation has no files.
        let has_files = |m: &&Snapshot| m.disks.iter().any(graph::is_file);
        for member in members.filter(has_files).filter(|m| is_gone(m.machine)) {
            let newest = last.entry(member.machine).or_insert(member);
            if newest.cut_at < member.cut_at {
                *newest = member;
            }
        }
        let told = last.into_iter().map(|(id, member)| {
            let text = format!(
                "machine {} is not in the library, and snapshot sets hold it: they are not applied to it; put its folder back from a backup; as it was at its last set, its definition is {}",
                member.machine_name,
                member.definition.display()
            );
            let file = self.home(id).join(DEFINITION);
            let object = file.display().to_string();
            ailment(FindingKind::KeptMissing, Severity::Error, object, text)
        });
        told.collect()
    }

    /// The folder of a machine in the library.
    pub(super) fn home(&self, machine: VmId) -> PathBuf {
        let machines = self.deps.data_dir.join(MACHINES);
        machines.join(machine.to_string())
    }
}
