//! Whether machines stand where an operation that a journal tells of may have left them.

use std::collections::BTreeMap;

use crate::engine::Top;
use crate::id::VmId;
use crate::inventory::Disk;
use crate::snapshot::known;
use crate::snapshot::saga::core::Core;

/// Whether each of these disks still has its old active file, or already the new one if `new` is given. For a machine
/// whose definition cannot be read, `tops.json` decides; one that is gone for good always fits.
pub(crate) fn stands<'a>(
    core: &Core,
    machine: VmId,
    mut old: impl Iterator<Item = &'a Disk>,
    new: Option<&BTreeMap<String, Top>>,
) -> bool {
    let now = match core.deps.compute.machine(machine) {
        Some(machine) => machine.tops(),
        None => match core.deps.compute.recorded_of(machine) {
            Some(recorded) => match recorded.active {
                Some(actives) => {
                    let all = actives.all.into_iter();
                    all.map(|it| (it.disk, it.top)).collect()
                }
                None => return false,
            },
            None => return known::is_gone_for_good(core, machine),
        },
    };
    old.all(|disk| {
        let now = now.get(&disk.id);
        let new = new.and_then(|new| new.get(&disk.id));
        now.is_some_and(|now| now.file == disk.file || Some(now) == new)
    })
}
