//! Who names which file, and what is recorded of it: what the drivers are told before they look at files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::engine::{Compute, Machines, Named, Records};
use crate::id::SnapshotId;
use crate::inventory::{Seal, Sealed, SnapshotDisk};
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
    /// Where each snapshot stands in its set.
    places: BTreeMap<SnapshotId, usize>,
    compute: Arc<dyn Compute>,
    sealed: Vec<Sealed>,
    damaged: BTreeSet<PathBuf>,
}

impl Told {
    /// By these sets.
    pub(crate) fn of(known: Known, compute: &Arc<dyn Compute>) -> Self {
        let members = known.sets().flat_map(|set| set.members.iter().enumerate());
        Self {
            places: members.map(|(n, member)| (member.id, n)).collect(),
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
        let (set, snapshot) = named.by?;
        let member = *self.places.get(&snapshot)?;
        let mut disks = self.known.set(set)?.members.get(member)?.disks.iter();
        disks.find(|d| d.id == named.disk)
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
