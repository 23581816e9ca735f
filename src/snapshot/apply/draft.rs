//! How each disk of a member will go back, with all names, before anything is made.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::engine::{At, Census, Hold, RevertRequest, Uses};
use crate::inventory::{Disk, Machine, Snapshot};
use crate::snapshot::apply::Member;
use crate::snapshot::destroy;
use crate::snapshot::known::{self, Known};
use crate::snapshot::names::{self, Told};
use crate::snapshot::saga::answer::{Accepted, Refused};
use crate::snapshot::saga::core::Core;
use crate::snapshot::saga::plan::refused;
use crate::text::catalog::snapshot as texts;

/// Holds the machine and plans each disk of its snapshot. Disks that were left out keep their tops.
///
/// # Errors
/// A disk that is in use, that the machine no longer has, or of which something kept is missing.
pub(crate) fn plan_member(
    core: &Core,
    ids: Accepted,
    machine: Arc<Machine>,
    snapshot: &Snapshot,
    uses: &Uses,
) -> Result<(Member, Hold), Refused> {
    let hold = core.deps.compute.hold(&machine).map_err(refused)?;
    // What the definition said before the images were held may be old.
    let machine = core.deps.compute.machine(machine.id).unwrap_or(machine);
    // The simulation has no files.
    let mut disks = snapshot.disks.iter();
    let has_files = disks.any(|disk| core.deps.storage.in_files(disk));
    let layers =
        has_files.then(|| destroy::all_layers(core, machine.id, &machine.name, Vec::new()));
    let mut member = Member {
        machine: machine.id,
        name: machine.name.clone(),
        definition: machine.definition.clone(),
        snapshot: snapshot.id,
        reverts: Vec::new(),
        tops: BTreeMap::new(),
        layers: layers.unwrap_or_default(),
    };
    for kept in &snapshot.disks {
        let Some(disk) = machine.disks.iter().find(|d| d.id == kept.id) else {
            let text = texts::APPLY_DISK_GONE.with("machine", &machine.name);
            return Err(Refused::InvalidState(text.with("disk", &kept.id)));
        };
        let driver = core
            .deps
            .storage
            .named(&kept.driver, || At::disk(&machine, disk));
        let driver = driver.map_err(refused)?;
        let request = RevertRequest {
            job: ids.job,
            set: ids.set,
            machine: &machine,
            disk,
            kept,
            shared: uses.more_than(1, &disk.file), // itself counts once
        };
        let revert = driver.plan_revert(request).map_err(refused)?;
        let top = driver.top_reverted(&revert);
        member.tops.insert(disk.id.clone(), top);
        member.reverts.push(revert);
    }
    Ok((member, hold))
}

/// Who needs which file, but for the content that these snapshots replace.
pub(crate) fn uses(core: &Arc<Core>, members: &[Snapshot]) -> Uses {
    let shared = Arc::clone(core);
    let files = core.deps.storage.files();
    let mut uses = files.uses(Box::new(move || census(&shared)));
    let machines = core.deps.compute.machines();
    for snapshot in members {
        let Some(machine) = machines.get(&snapshot.machine) else {
            continue;
        };
        let replaced = |d: &&Disk| snapshot.disks.iter().any(|kept| kept.id == d.id);
        let disks = machine.disks.iter().filter(replaced);
        uses.give_up(disks.map(|disk| disk.file.as_path()));
    }
    uses
}

fn census(core: &Arc<Core>) -> Census {
    let compute = &core.deps.compute;
    let (known, machines) = (Known::of(core), compute.machines());
    let unsure = !known.unreadable.is_empty();
    let (asked, told) = (Arc::clone(core), Arc::clone(&machines));
    let untold = move || {
        let unread = known::unread(&asked, &told, None).ok()?.into_iter();
        Some(unread.map(|it| (it.top.file, it.below)).collect())
    };
    let mut named: Vec<_> = names::kept(&known).map(|(named, _)| named).collect();
    named.extend(names::active(&machines));
    Census {
        machines,
        named,
        untold: Box::new(untold),
        records: Arc::new(Told::of(known, compute)),
        unsure,
    }
}
