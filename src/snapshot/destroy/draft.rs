//! What is known of a snapshot that goes, and of every file of its machine, before anything is done.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::engine::{At, Layer, Whose};
use crate::id::VmId;
use crate::inventory::{Format, RunState, Snapshot, SnapshotDisk};
use crate::snapshot::damage;
use crate::snapshot::destroy::{Member, left};
use crate::snapshot::known::Known;
use crate::snapshot::saga::accept::{Needs, admit};
use crate::snapshot::saga::answer::Refused;
use crate::snapshot::saga::core::Core;
use crate::text::Text;
use crate::text::catalog::snapshot as texts;

/// What a destroy with something to merge and a tidy need of a machine: that nothing runs it. `gone` is said if
/// it is not there.
pub(super) fn needs(gone: Text) -> Needs {
    Needs::new(gone, |state| {
        (state != RunState::Off).then_some(texts::DESTROY_RUNNING)
    })
}

/// What a destroy needs where there is nothing to merge: the machine may run.
fn needs_of_unused(gone: Text) -> Needs {
    Needs::new(gone, |state| {
        (state == RunState::Held).then_some(texts::DESTROY_RUNNING)
    })
}

/// Whether the active files of the machine lie on nothing that the snapshot keeps, as far as is known of each.
fn is_unused(core: &Core, snapshot: &Snapshot) -> bool {
    let compute = &core.deps.compute;
    let Some(machine) = compute.machine(snapshot.machine) else {
        return false;
    };
    let mut disks = machine.disks.iter();
    disks.all(|active| {
        let below = compute.below(machine.id, &active.id);
        let is_apart = |file: &PathBuf| {
            let below = below.as_ref();
            *file != active.file && below.is_some_and(|below| !below.contains(file))
        };
        snapshot.disks.iter().all(|kept| is_apart(&kept.file))
    })
}

/// Everything that will be looked at: after a death nothing else leads to a layer that nobody names.
pub(super) fn draft(core: &Core, snapshot: Snapshot) -> Result<Member, Refused> {
    if !core.deps.compute.is_gone(snapshot.machine) {
        let gone = texts::DESTROY_RUNNING.text();
        let needs = match is_unused(core, &snapshot) {
            true => needs_of_unused(gone),
            false => needs(gone),
        };
        admit(core, snapshot.machine, needs)?;
    }
    let seals = snapshot.disks.iter().flat_map(|d| d.sealed.clone());
    let damaged = snapshot.disks.iter().filter_map(|d| d.damage.clone());
    let in_files = |disk: &SnapshotDisk| core.deps.storage.in_files(disk);
    let own = snapshot.disks.iter().filter(|d| in_files(d));
    let captured = own.clone().map(|d| d.file.clone()).collect();
    let own: Vec<_> = own
        .map(|d| (d.id.clone(), d.file.clone(), d.format))
        .collect();
    let active = !own.is_empty();
    Ok(Member {
        machine: snapshot.machine,
        layers: layers(core, snapshot.machine, &snapshot.machine_name, own, active),
        sealed: seals.collect::<BTreeSet<_>>().into_iter().collect(),
        damaged: damaged.flat_map(|d| d.files).collect(),
        name: snapshot.machine_name,
        snapshot: snapshot.id,
        parent: snapshot.parent,
        definition: snapshot.definition,
        captured,
    })
}

/// `own` and every other file of the machine (the active ones too if `active`), with everything under them.
pub(super) fn layers(
    core: &Core,
    id: VmId,
    name: &str,
    own: Vec<(String, PathBuf, Format)>,
    active: bool,
) -> Vec<Layer> {
    let machine = core.deps.compute.machine(id);
    let (state, known) = (core.deps.store.state(), Known::of(core));
    let files = core.deps.storage.files();
    let imported = machine.as_deref().map(|machine| files.imported(machine));
    let imported = imported.unwrap_or_default();
    let left = left::of(&state, id).filter(|l| damage::is_left(l));
    let mut sources = own;
    sources.extend(left.map(|l| (l.disk.clone(), l.file.clone(), l.format)));
    let captured: BTreeSet<_> = sources.iter().map(|(_, file, _)| file.clone()).collect();
    // Layers that another destroy had to keep may lie under any file of the machine.
    for other in known.members().filter(|m| m.machine == id) {
        let disks = other.disks.iter();
        let disks = disks.filter(|d| core.deps.storage.in_files(d));
        sources.extend(disks.map(|d| (d.id.clone(), d.file.clone(), d.format)));
    }
    if active {
        let disks = machine.iter().flat_map(|m| &m.disks);
        sources.extend(disks.map(|d| (d.id.clone(), d.file.clone(), d.format)));
    }
    let mut layers: BTreeMap<PathBuf, Layer> = BTreeMap::new();
    let sets = core.sets();
    for (disk, file, format) in sources {
        let kept = known.disks().find(|kept| kept.file == file);
        let whose = Whose {
            machine: machine.as_deref(),
            disk: &disk,
            sealed: kept.map_or(&[], |kept| &kept.sealed),
        };
        // A file that cannot be read now is looked at again when it is its turn.
        let chain = files.chain(&At::new(name, &disk), whose, (&file, format));
        let below = chain.files.into_iter().skip(1);
        // Of what the server made only what it made for this machine may go.
        let is_own =
            |file: &Path| !files.is_ours(&sets, file) || files.is_made_for(&sets, id, file);
        let below = below.filter(|(file, _)| is_own(file));
        for (file, format) in [(file.clone(), format)].into_iter().chain(below) {
            let written = captured.contains(&file) || imported.contains(&file);
            layers.entry(file.clone()).or_insert_with(|| Layer {
                disk: disk.clone(),
                file,
                format,
                written,
            });
        }
    }
    layers.into_values().collect()
}
