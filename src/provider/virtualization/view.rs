//! A consistent read view (the store's state and what is observed of machines, of one moment), and lazy iterators over its
//! elements.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use crate::engine::Observed;
use crate::id::{SnapshotId, VmId};
use crate::inventory::{CollectionKind, Position, Service, Snapshot, SnapshotSet};
use crate::store::State;

use super::element::{Element, Owner};
use super::kept::Kept;

/// Elements one after another.
pub(super) type Elements = Box<dyn Iterator<Item = Element> + Send>;

/// The store's state and what is observed of machines, of the moment at which the view was taken.
#[derive(Clone)]
pub(super) struct View {
    /// Collections, sets, positions, jobs.
    pub(super) state: Arc<State>,
    /// Machines.
    pub(super) observed: Arc<Observed>,
    /// Name of the host.
    pub(super) host: Arc<str>,
    /// The files that snapshots name.
    pub(super) kept: Arc<Kept>,
}

impl View {
    /// Is the element there?
    pub(super) fn has(&self, element: &Element) -> bool {
        match element {
            Element::Host | Element::Service(_) | Element::SnapshotCheck => true,
            Element::Machine(id) | Element::ActiveSettings(id) => {
                self.observed.machines.contains_key(id)
            }
            Element::SnapshotSettings(id) => self.state.snapshots.contains_key(id),
            Element::Disk(owner, disk) => self.disk_ids(*owner).iter().any(|d| d == disk),
            Element::Group(id, kind) => {
                let found = self.state.collections.get(id);
                found.is_some_and(|c| c.kind == *kind)
            }
            Element::Set(id) => self.state.sets.contains_key(id),
            Element::Job(id) => self.state.jobs.contains_key(id),
        }
    }

    /// The machines.
    pub(super) fn machines(&self) -> Elements {
        Box::new(walk(self.observed.machines.clone()).map(|(id, _)| Element::Machine(id)))
    }

    /// The machines that ever had a snapshot and still exist.
    pub(super) fn positioned(&self) -> impl Iterator<Item = (VmId, Position)> + Send + use<> {
        let machines = self.observed.machines.clone();
        walk(self.state.positions.clone()).filter(move |(id, _)| machines.contains_key(id))
    }

    /// Active settings of all machines.
    pub(super) fn active_settings(&self) -> Elements {
        Box::new(walk(self.observed.machines.clone()).map(|(id, _)| Element::ActiveSettings(id)))
    }

    /// Every snapshot with its set, set by set.
    pub(super) fn snapshots(
        &self,
    ) -> impl Iterator<Item = (Arc<SnapshotSet>, SnapshotId)> + Send + use<> {
        walk(self.state.sets.clone()).flat_map(|(_, set)| {
            let ids: Vec<SnapshotId> = set.members.iter().map(|m| m.id).collect();
            ids.into_iter().map(move |id| (set.clone(), id))
        })
    }

    /// Settings of all snapshots.
    pub(super) fn snapshot_settings(&self) -> Elements {
        Box::new(
            self.snapshots()
                .map(|(_, id)| Element::SnapshotSettings(id)),
        )
    }

    /// The snapshots of one machine.
    pub(super) fn snapshots_of(&self, machine: VmId) -> Elements {
        let one = move |set: &Arc<SnapshotSet>| {
            let member = set.members.iter().find(|m| m.machine == machine)?;
            Some(Element::SnapshotSettings(member.id))
        };
        Box::new(walk(self.state.sets.clone()).filter_map(move |(_, set)| one(&set)))
    }

    /// Does a snapshot of the machine name the file, by its real path?
    pub(super) fn keeps(&self, machine: VmId, file: &Path) -> bool {
        self.kept.has(&self.state, machine, file)
    }

    /// Settings of all machines, then of all snapshots.
    pub(super) fn settings(&self) -> Elements {
        Box::new(self.active_settings().chain(self.snapshot_settings()))
    }

    /// The collections of one kind.
    pub(super) fn groups(&self, kind: CollectionKind) -> Elements {
        let groups = walk(self.state.collections.clone());
        Box::new(
            groups
                .filter(move |(_, c)| c.kind == kind)
                .map(move |(id, _)| Element::Group(id, kind)),
        )
    }

    /// All collections.
    pub(super) fn all_groups(&self) -> Elements {
        let groups = walk(self.state.collections.clone());
        Box::new(groups.map(|(id, c)| Element::Group(id, c.kind)))
    }

    /// The snapshot sets.
    pub(super) fn sets(&self) -> Elements {
        Box::new(walk(self.state.sets.clone()).map(|(id, _)| Element::Set(id)))
    }

    /// The jobs.
    pub(super) fn jobs(&self) -> Elements {
        Box::new(walk(self.state.jobs.clone()).map(|(id, _)| Element::Job(id)))
    }

    /// The services.
    pub(super) fn services() -> Elements {
        let all = [
            Service::CollectionSnapshot,
            Service::CollectionManagement,
            Service::VirtualSystemSnapshot,
        ];
        Box::new(all.into_iter().map(Element::Service))
    }

    /// The snapshot.
    pub(super) fn snapshot(&self, id: SnapshotId) -> Option<&Snapshot> {
        self.state.snapshot(id).map(|(_, snapshot)| snapshot)
    }

    /// The snapshot that these settings grew from, if it is still there.
    pub(super) fn parent(&self, settings: &Element) -> Option<SnapshotId> {
        let parent = match settings {
            Element::ActiveSettings(id) => self.state.position(*id).parent,
            Element::SnapshotSettings(id) => self.snapshot(*id)?.parent,
            _ => None,
        }?;
        self.state.snapshots.contains_key(&parent).then_some(parent)
    }

    /// Ids of the disks that a machine has or a snapshot keeps.
    pub(super) fn disk_ids(&self, owner: Owner) -> Vec<String> {
        match owner {
            Owner::Machine(id) => self
                .observed
                .machines
                .get(&id)
                .map_or_else(Vec::new, |machine| {
                    machine.disks.iter().map(|d| d.id.clone()).collect()
                }),
            Owner::Snapshot(id) => self.snapshot(id).map_or_else(Vec::new, |snapshot| {
                snapshot.disks.iter().map(|d| d.id.clone()).collect()
            }),
        }
    }
}

/// The entries of a shared map in order. Each step is a lookup, so the walk needs no copy of the map and
/// may outlive whoever lent it.
fn walk<K, V>(map: Arc<BTreeMap<K, V>>) -> impl Iterator<Item = (K, V)> + Send
where
    K: Ord + Copy + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    let mut last = None;
    std::iter::from_fn(move || {
        let after = last.map_or(Bound::Unbounded, Bound::Excluded);
        let (key, value) = map.range((after, Bound::Unbounded)).next()?;
        last = Some(*key);
        Some((*key, value.clone()))
    })
}
