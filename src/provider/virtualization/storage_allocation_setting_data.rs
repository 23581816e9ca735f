//! `Msvm_StorageAllocationSettingData`: each disk of the active settings and of each snapshot.
//!
//! Of a captured disk `PoolID` is the storage driver that captured it, `Reservation` the space that its file takes.

use std::path::Path as FilePath;
use std::sync::Arc;

use async_trait::async_trait;

use crate::cim::{Class, Instance, Path};
use crate::provider::{Context, Error, Instances, Provider};

use super::deps::Deps;
use super::element::{DISK, Element, Owner, disk_id};
use super::view::View;

/// `ResourceType` 31: Logical Disk.
const LOGICAL_DISK: u16 = 31;
/// `Access` 1: a snapshot's disk is only read.
const READABLE: u16 = 1;
/// `Access` 3.
const READ_WRITE: u16 = 3;

/// Serves `Msvm_StorageAllocationSettingData`.
pub(super) struct Disks(pub(super) Deps);

#[async_trait]
impl Provider for Disks {
    fn classes(&self) -> &'static [&'static str] {
        &[DISK]
    }

    fn enumerate(&self, _ctx: &Context, class: &Arc<Class>) -> Result<Instances, Error> {
        let view = self.0.view();
        let owners = view.settings().filter_map(|settings| match settings {
            Element::ActiveSettings(id) => Some(Owner::Machine(id)),
            Element::SnapshotSettings(id) => Some(Owner::Snapshot(id)),
            _ => None,
        });
        let (deps, class) = (self.0.clone(), class.clone());
        Ok(Box::new(owners.flat_map(move |owner| {
            let disks = view.disk_ids(owner).into_iter();
            let made =
                disks.filter_map(|disk| instance(&deps, &view, &class, owner, &disk).transpose());
            made.collect::<Vec<_>>()
        })))
    }

    fn get(
        &self,
        _ctx: &Context,
        class: &Arc<Class>,
        path: &Path,
    ) -> Result<Option<Instance>, Error> {
        let view = self.0.view();
        match Element::find(&view, DISK, path) {
            Some(Element::Disk(owner, disk)) => instance(&self.0, &view, class, owner, &disk),
            _ => Ok(None),
        }
    }
}

fn instance(
    deps: &Deps,
    view: &View,
    class: &Arc<Class>,
    owner: Owner,
    disk: &str,
) -> Result<Option<Instance>, Error> {
    let Some((file, size)) = file_and_size(view, owner, disk) else {
        return Ok(None);
    };
    let kept = match owner {
        Owner::Machine(_) => None,
        Owner::Snapshot(id) => {
            let disks = view.snapshot(id).map(|s| s.disks.as_slice());
            disks.unwrap_or_default().iter().find(|d| d.id == disk)
        }
    };
    let access = match owner {
        Owner::Machine(_) => READ_WRITE,
        Owner::Snapshot(_) => READABLE,
    };
    let space = kept.and_then(|d| deps.coordinator.space_of(&d.sealed.first()?.file));
    let made = Instance::new(class)
        .with("InstanceID", disk_id(owner, disk))?
        .with("Caption", "Hard Disk Image")?
        .with("ElementName", disk)?
        .with("ResourceType", LOGICAL_DISK)?
        .with("ResourceSubType", "Microsoft:Hyper-V:Virtual Hard Disk")?
        .with("HostResource", vec![file.to_string_lossy().into_owned()])?
        .with("Access", access)?
        .with("PoolID", kept.map(|d| d.driver.as_str()))?
        .with("Reservation", space)?
        .with("AllocationUnits", kept.map(|_| "byte"))?
        .with("VirtualQuantity", size)?
        .with("VirtualQuantityUnits", "byte")?;
    Ok(Some(made))
}

/// The file and the virtual size in bytes.
fn file_and_size<'a>(view: &'a View, owner: Owner, disk: &str) -> Option<(&'a FilePath, u64)> {
    match owner {
        Owner::Machine(id) => {
            let mut disks = view.observed.machines.get(&id)?.disks.iter();
            let found = disks.find(|d| d.id == disk)?;
            Some((&found.file, found.size))
        }
        Owner::Snapshot(id) => {
            let mut disks = view.snapshot(id)?.disks.iter();
            let found = disks.find(|d| d.id == disk)?;
            Some((&found.file, found.size))
        }
    }
}
