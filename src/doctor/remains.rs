//! What operations have left: hidden layers, files that could not be removed, and files that nothing names.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::doctor::cure::Cure;
use crate::doctor::look::{Ailment, ailment, object_of, unknown};
use crate::doctor::{Doctor, Finding, FindingKind, Severity};
use crate::engine::qcow2::chain;
use crate::held;
use crate::id::VmId;
use crate::inventory::Machine;

impl Doctor {
    /// Without what was found of images that are `refused`: what those hold says nothing.
    pub(super) fn hidden(&self, refused: &[Finding]) -> Vec<Ailment> {
        let (mut found, mut unseen) = (Vec::new(), Vec::new());
        let machines = self.deps.compute.machines();
        // The simulation has no files.
        let has_files = |m: &&Arc<Machine>| m.disks.iter().any(|d| held::is_file(&d.file));
        let is_taken = |m: &&Arc<Machine>| {
            let mut disks = m.disks.iter().map(|d| object_of(m, &d.id));
            !disks.any(|disk| refused.iter().any(|f| f.object == disk))
        };
        for machine in machines.values().filter(has_files).filter(is_taken) {
            let hidden = match self.deps.coordinator.hidden(machine) {
                Ok(hidden) => hidden,
                Err(_) if self.is_at_work(machine.id) => continue,
                Err(error) if refused.iter().any(|f| f.text == error.to_string()) => continue,
                // The same file may keep more than one machine from being looked at.
                Err(error) => {
                    if !unseen.contains(&error) {
                        found.push(unknown("hidden layers", &error).for_the_sake(&error));
                        unseen.push(error);
                    }
                    continue;
                }
            };
            for layer in hidden {
                let object = layer.file.display().to_string();
                let of = format!(
                    "no snapshot names it; machine {}, disk {}",
                    machine.name, layer.disk
                );
                // What whoever works there does to the files is no reason.
                let work = self.deps.coordinator.at_work(machine.id);
                found.push(match (work, layer.why) {
                    (Some(work), _) => {
                        let by = format!("{}, job {}", work.told().english(), work.job);
                        let text = format!("{of} still needs it; at work there: {by}");
                        ailment(FindingKind::HiddenLayer, Severity::Info, object, text)
                    }
                    (None, None) => {
                        let fix = "merge what lies on it into it";
                        let text = format!("{of} still needs it until it is merged");
                        ailment(FindingKind::PendingMerge, Severity::Warning, object, text)
                            .cured(fix, Cure::Tidy(machine.id))
                    }
                    (None, Some(why)) => {
                        let text = format!("{of} still needs it: {}", why.english());
                        ailment(FindingKind::HiddenLayer, Severity::Info, object, text)
                    }
                });
            }
        }
        found
    }

    pub(super) fn leftovers(&self) -> Vec<Ailment> {
        let left = self.deps.coordinator.leftovers().into_iter();
        // Whoever works there removes it, or it is told afterwards.
        let left = left.filter(|(left, _)| !self.is_at_work(left.machine));
        let told = left.map(|(left, why)| {
            let object = left.file.display().to_string();
            let of = format!(
                "nothing needs it any more, and it could not be removed; machine {}, disk {}",
                left.machine_name, left.disk
            );
            match why {
                None => ailment(FindingKind::Leftover, Severity::Warning, object, of)
                    .cured("remove it", Cure::Tidy(left.machine)),
                Some(why) => {
                    let text = format!("{of}; {}", why.english());
                    ailment(FindingKind::Leftover, Severity::Warning, object, text)
                }
            }
        });
        told.collect()
    }

    pub(super) fn orphans(&self) -> Vec<Ailment> {
        let missing = self.deps.coordinator.missing().into_iter().next();
        let orphans = self.deps.coordinator.orphans().into_iter();
        let forgotten = self.deps.coordinator.forgotten().unwrap_or_default();
        let may_be_kept = |id: VmId| forgotten.iter().any(|set| set.machines.contains(&id));
        // Which of its files are active is told with the machine.
        let known = |file: &PathBuf| {
            let lost = |id: &VmId| self.without_tops(&self.tops(*id)).is_some();
            let ailing = |id: &VmId| matches!(self.deps.compute.known(*id), Err(Some(_)));
            owner(file).filter(ailing).filter(lost).is_none()
        };
        let told = orphans.filter(known).map(|file| {
            let object = file.display().to_string();
            let whole = |id: VmId| self.deps.compute.machine(id).is_some();
            if !self.deps.coordinator.is_in_sets(&file) {
                let text = "nothing here names it; it may be of another data directory";
                ailment(FindingKind::Orphan, Severity::Info, object, text)
            } else if is_frozen(&file) {
                let text = "nothing names it, and it is frozen: a set has captured it that neither the database nor a record knows, or one that is deleted has left it; put the record of the set back from a backup and run `groupshot doctor --rebuild`, or move the file away yourself";
                ailment(FindingKind::Orphan, Severity::Warning, object, text)
            } else if owner(&file).is_some_and(|id| !whole(id)) {
                let text = "nothing names it, but its machine cannot be read or is away: it may be the active file; mend the machine first";
                ailment(FindingKind::Orphan, Severity::Warning, object, text)
            } else if owner(&file).is_some_and(may_be_kept) {
                let text = "nothing names it, but it may be what a set kept that nothing knows any more; see to that first";
                ailment(FindingKind::Orphan, Severity::Warning, object, text)
            } else if let Some(missing) = &missing {
                let text = format!("nothing names it, but {} is named and not there: what was moved or is away may need it; mend that first", missing.display());
                ailment(FindingKind::Orphan, Severity::Warning, object, text)
            } else {
                let text = "no machine, set or journal names it";
                let fix = "move it into orphans/ of the data directory";
                ailment(FindingKind::Orphan, Severity::Warning, object, text)
                    .cured(fix, Cure::SetAside(file))
            }
        });
        told.collect()
    }
}

/// Whether it is a disk file that is closed to writers, as those are that sets keep.
fn is_frozen(file: &Path) -> bool {
    let found = held::symlink_metadata(file);
    let closed = found.is_ok_and(|m| m.is_file() && m.mode() & 0o222 == 0);
    closed && chain::by_suffix(file).is_some()
}

/// The machine that a file of ours was made for: that of its folder, or with whose id its name begins.
fn owner(file: &Path) -> Option<VmId> {
    let folder = file.parent().and_then(Path::file_name);
    let folder = folder.and_then(|name| name.to_str()?.parse::<VmId>().ok());
    let named = || {
        let name = file.file_name()?.to_str()?;
        name.get(..36)?.parse::<VmId>().ok()
    };
    folder.or_else(named)
}
