//! An index of the files that each machine's snapshots name, shared by all open enumerations and rebuilt when sets
//! change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::id::{SetId, VmId};
use crate::inventory::SnapshotSet;
use crate::store::State;

type Sets = Arc<BTreeMap<SetId, Arc<SnapshotSet>>>;

/// The files by machine, as one revision of the store had them.
#[derive(Debug, Clone)]
struct Index {
    revision: u64,
    sets: Sets,
    files: Arc<BTreeMap<VmId, BTreeSet<PathBuf>>>,
}

/// The index of the newest revision that was asked for; made anew when sets have changed since.
#[derive(Debug, Default)]
pub struct Kept(Mutex<Option<Index>>);

impl Kept {
    /// Does a snapshot of the machine name the file, by its real path? For an older revision the answer is that of the
    /// newest: enumerations over old revisions need no index of their own.
    pub(super) fn has(&self, state: &State, machine: VmId, file: &Path) -> bool {
        let files = self.files(state);
        let own = files.get(&machine);
        own.is_some_and(|files| files.contains(file))
    }

    fn files(&self, state: &State) -> Arc<BTreeMap<VmId, BTreeSet<PathBuf>>> {
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = &*newest
            && (Arc::ptr_eq(&index.sets, &state.sets) || index.revision > state.revision)
        {
            return index.files.clone();
        }
        let mut files = BTreeMap::<_, BTreeSet<_>>::new();
        for snapshot in state.sets.values().flat_map(|set| &set.members) {
            let named = snapshot.disks.iter().filter_map(|d| d.sealed.first());
            let own = files.entry(snapshot.machine).or_default();
            own.extend(named.map(|s| s.file.clone()));
        }
        let files = Arc::new(files);
        *newest = Some(Index {
            revision: state.revision,
            sets: state.sets.clone(),
            files: files.clone(),
        });
        files
    }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::*;
    use crate::id::{JobId, SnapshotId};
    use crate::inventory::{Consistency, Format, Seal, Sealed, SetKind, Snapshot, SnapshotDisk};

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

    fn state(revision: u64, members: &[Snapshot]) -> State {
        let set = SnapshotSet {
            id: SetId::from_u128(1),
            name: "before".to_owned(),
            kind: SetKind::Standard,
            collection: None,
            created: Timestamp::UNIX_EPOCH,
            members: members.to_vec(),
            window: SignedDuration::ZERO,
            owner: "ann".to_owned(),
            job: JobId::from_u128(1),
        };
        State {
            revision,
            sets: Arc::new(BTreeMap::from([(set.id, Arc::new(set))])),
            ..State::default()
        }
    }

    #[test]
    fn snapshots_are_looked_through_once_for_all_that_is_open() {
        let first = [
            snapshot(1, &["/1/top", "/1/base"]),
            snapshot(1, &["/1/below"]),
            snapshot(2, &["/2/top"]),
        ];
        let kept = Kept::default();
        let has = |state: &State, machine, file: &str| {
            kept.has(state, VmId::from_u128(machine), Path::new(file))
        };
        let old = state(1, &first);
        assert!(has(&old, 1, "/1/top") && has(&old, 1, "/1/below") && has(&old, 2, "/2/top"));
        assert!(!has(&old, 1, "/1/base"), "it only lies under one");
        assert!(!has(&old, 1, "/2/top"), "of another machine");
        assert!(!has(&old, 3, "/1/top"));
        let index = kept.files(&old);
        // What another transaction leaves as it is.
        let later = State {
            revision: 2,
            ..old.clone()
        };
        assert!(Arc::ptr_eq(&index, &kept.files(&later)));
        let new = state(3, &first[..1]);
        assert!(!has(&new, 2, "/2/top"), "its set is gone");
        // Nobody has an index of what was before.
        assert!(Arc::ptr_eq(&kept.files(&new), &kept.files(&old)));
        assert_eq!(Arc::strong_count(&index), 1);
    }
}
