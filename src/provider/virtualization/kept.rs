//! Which files the snapshots of each machine name, looked through once for one moment of everything.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::id::VmId;
use crate::inventory::Snapshot;

/// Found when it is first asked for. A clone knows what the other has found.
#[derive(Clone, Default)]
pub(super) struct Kept(Arc<OnceLock<BTreeMap<VmId, BTreeSet<PathBuf>>>>);

impl Kept {
    /// Does one of these snapshots, of that machine, name the file by its real path? The first who asks has them
    /// looked through.
    pub(super) fn has<'s, S: IntoIterator<Item = &'s Snapshot>>(
        &self,
        machine: VmId,
        file: &Path,
        snapshots: impl FnOnce() -> S,
    ) -> bool {
        let kept = self.0.get_or_init(|| {
            let mut kept = BTreeMap::<_, BTreeSet<_>>::new();
            for snapshot in snapshots() {
                let named = snapshot.disks.iter().filter_map(|d| d.sealed.first());
                let files = kept.entry(snapshot.machine).or_default();
                files.extend(named.map(|s| s.file.clone()));
            }
            kept
        });
        let own = kept.get(&machine);
        own.is_some_and(|files| files.contains(file))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use jiff::Timestamp;

    use super::*;
    use crate::id::SnapshotId;
    use crate::inventory::{Consistency, Format, Seal, Sealed, SnapshotDisk};

    fn snapshot(machine: u128, files: &[&str]) -> Snapshot {
        let seal = Seal {
            inode: 1,
            length: 1,
            modified: (0, 0),
            changed: (0, 0),
        };
        let sealed = |file: &&str| Sealed {
            file: file.into(),
            seal,
        };
        let disk = SnapshotDisk {
            id: "disk0".to_owned(),
            file: "/link".into(),
            format: Format::Qcow2,
            size: 1,
            driver: "overlay".to_owned(),
            sealed: files.iter().map(sealed).collect(),
            damage: None,
        };
        Snapshot {
            id: SnapshotId::from_u128(machine),
            machine: VmId::from_u128(machine),
            machine_name: "web".to_owned(),
            name: "before".to_owned(),
            parent: None,
            disks: vec![disk],
            left_out: Vec::new(),
            consistency: Consistency::Crash,
            definition: "/vm.toml".into(),
            definition_sha256: None,
            cut_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn snapshots_are_looked_through_once_for_all_files_of_a_walk() {
        let all = [
            snapshot(1, &["/1/top", "/1/base"]),
            snapshot(1, &["/1/below"]),
            snapshot(2, &["/2/top"]),
        ];
        let looked_at = Cell::new(0);
        let snapshots = || all.iter().inspect(|_| looked_at.set(looked_at.get() + 1));
        let kept = Kept::default();
        let other = kept.clone();
        let has = |kept: &Kept, machine, file: &str| {
            kept.has(VmId::from_u128(machine), Path::new(file), snapshots)
        };
        assert!(has(&kept, 1, "/1/top") && has(&kept, 1, "/1/below"));
        assert!(!has(&kept, 1, "/1/base"), "it only lies under one");
        assert!(!has(&kept, 1, "/2/top"), "of another machine");
        assert!(!has(&kept, 3, "/1/top"));
        assert!(has(&other, 2, "/2/top"));
        assert_eq!(looked_at.get(), all.len());
    }
}
