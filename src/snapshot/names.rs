//! Who names which file, and what is recorded of it: what the drivers are told before they look at files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::engine::{Compute, Machines, Named, Records};
use crate::id::{SetId, SnapshotId};
use crate::inventory::{Seal, Sealed, Snapshot, SnapshotDisk};
use crate::snapshot::damage;
use crate::snapshot::known::Known;

/// Every name that one of these machines has for an active file.
pub(crate) fn active(machines: &Machines) -> impl Iterator<Item = Named> {
    machines.values().flat_map(|machine| {
        machine.disks.iter().map(|disk| Named {
            machine: machine.id,
            machine_name: machine.name.clone(),
            disk: disk.id.clone(),
            file: disk.file.clone(),
            format: disk.format,
            by: None,
        })
    })
}

/// Every name that a set has for a file that it keeps.
pub(crate) fn kept(known: &Known) -> impl Iterator<Item = (Named, &SnapshotDisk)> {
    known.sets().flat_map(|set| {
        set.members.iter().flat_map(|snapshot| {
            snapshot.disks.iter().map(|disk| {
                let named = Named {
                    machine: snapshot.machine,
                    machine_name: snapshot.machine_name.clone(),
                    disk: disk.id.clone(),
                    file: disk.file.clone(),
                    format: disk.format,
                    by: Some((set.id, snapshot.id)),
                };
                (named, disk)
            })
        })
    })
}

/// What records tell of the files that these names are of.
pub(crate) struct Told {
    known: Known,
    places: Places,
    compute: Arc<dyn Compute>,
    sealed: Vec<Sealed>,
    damaged: BTreeSet<PathBuf>,
}

impl Told {
    /// By these sets.
    pub(crate) fn of(known: Known, compute: &Arc<dyn Compute>) -> Self {
        Self {
            places: Places::of(&known),
            known,
            compute: Arc::clone(compute),
            sealed: Vec::new(),
            damaged: BTreeSet::new(),
        }
    }

    /// And by what is noted of a snapshot that goes: as what its files were frozen, and which somebody else has changed.
    pub(crate) fn and(self, sealed: &[Sealed], damaged: &BTreeSet<PathBuf>) -> Self {
        Self {
            sealed: sealed.to_vec(),
            damaged: damaged.clone(),
            ..self
        }
    }

    /// What is kept of the disk by whoever names it.
    fn disk(&self, named: &Named) -> Option<&SnapshotDisk> {
        let mut disks = self.places.member(&self.known, named.by?)?.disks.iter();
        disks.find(|d| d.id == named.disk)
    }
}

/// Where each snapshot stands in its set. Two sets may name one snapshot: a record may be a copy of another.
struct Places(BTreeMap<(SetId, SnapshotId), usize>);

impl Places {
    fn of(known: &Known) -> Self {
        let members = known.sets().flat_map(|set| {
            let members = set.members.iter().enumerate();
            members.map(|(n, member)| ((set.id, member.id), n))
        });
        Self(members.collect())
    }

    fn member<'a>(&self, known: &'a Known, by: (SetId, SnapshotId)) -> Option<&'a Snapshot> {
        known.set(by.0)?.members.get(*self.0.get(&by)?)
    }
}

impl Records for Told {
    fn sealed(&self, named: &Named) -> &[Sealed] {
        self.disk(named).map_or(&[], |disk| &disk.sealed)
    }

    fn below(&self, named: &Named) -> Option<Vec<PathBuf>> {
        match named.by {
            None => self.compute.below(named.machine, &named.disk),
            Some(_) => self.disk(named)?.known_below(),
        }
    }

    fn seals(&self, file: &Path) -> Vec<Seal> {
        let all = self.known.disks().flat_map(|d| &d.sealed);
        let own = damage::of_file(all.chain(&self.sealed), file);
        own.map(|s| s.seal).collect()
    }

    fn is_marked(&self, file: &Path) -> bool {
        let mut marks = self.known.disks().filter_map(|d| d.damage.as_ref());
        let place = damage::place(file);
        let is_one = |marked: &Path| marked == file || *marked == place;
        self.damaged.contains(file)
            || self.damaged.contains(&place)
            || marks.any(|damage| damage.files.iter().any(|marked| is_one(marked)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{JobId, VmId};
    use crate::inventory::{Consistency, SetKind, SnapshotSet};

    fn set(id: u128, members: &[u128]) -> SnapshotSet {
        let member = |n: &u128| Snapshot {
            id: SnapshotId::from_u128(*n),
            machine: VmId::from_u128(*n),
            machine_name: "web".to_owned(),
            name: format!("of {id}"),
            parent: None,
            disks: Vec::new(),
            left_out: Vec::new(),
            consistency: Consistency::Crash,
            definition: "/vm.toml".into(),
            definition_sha256: None,
            cut_at: jiff::Timestamp::UNIX_EPOCH,
        };
        SnapshotSet {
            id: SetId::from_u128(id),
            name: "before".to_owned(),
            kind: SetKind::Standard,
            collection: None,
            created: jiff::Timestamp::UNIX_EPOCH,
            members: members.iter().map(member).collect(),
            window: jiff::SignedDuration::ZERO,
            owner: "ann".to_owned(),
            job: JobId::from_u128(1),
        }
    }

    #[test]
    fn a_snapshot_that_two_sets_name_is_found_in_each() {
        let known = Known::of_sets([set(1, &[7, 8]), set(2, &[8])]);
        let places = Places::of(&known);
        let found = |set, snapshot| {
            let by = (SetId::from_u128(set), SnapshotId::from_u128(snapshot));
            let member = places.member(&known, by)?;
            Some((member.id, member.name.as_str()))
        };
        let it = |snapshot, name| Some((SnapshotId::from_u128(snapshot), name));
        assert_eq!(found(1, 7), it(7, "of 1"));
        assert_eq!(found(1, 8), it(8, "of 1"));
        assert_eq!(found(2, 8), it(8, "of 2"));
        assert_eq!(found(2, 7), None);
    }
}
