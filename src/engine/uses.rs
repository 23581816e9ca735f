//! Who needs which file: counted for whoever is to replace one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::engine::failure::At;
use crate::engine::graph;
use crate::engine::retain::{Census, Named};
use crate::engine::whose::{Key, Under, Whose, key};
use crate::held::{self, Identity};
use crate::inventory::Format;

/// How many snapshots and machines need each file, by device and inode: as what they name or below it.
#[derive(Debug, Default)]
pub struct Uses {
    counts: BTreeMap<Key, usize>,
    /// What each of those needs whose chain is not whole.
    under: Vec<Under>,
    /// Files that cannot be read: each may need any other.
    unreadable: BTreeSet<Key>,
    /// Something below another file is not there; it may need any file.
    unsure: bool,
    /// The files that one of these is said of.
    doubts: BTreeSet<PathBuf>,
}

/// So often it is looked again before what is doubtful each time in another way is taken as it is.
const LOOKS: u32 = 20;

impl Uses {
    /// As it is now; what lies where nothing answers counts as lying on all that it lay on. Operations on other machines
    /// may remove files while it is looked: they name nothing that they have removed, so what is doubtful in two looks,
    /// each from its beginning, is doubtful.
    pub(crate) fn of(census: Box<dyn Fn() -> Census + Send + Sync>) -> Self {
        let looked = held::look(move || Self::sure(|| Self::look(&census())));
        looked.unwrap_or_else(|error| {
            tracing::warn!(%error, "What machines and snapshots need cannot be seen");
            Self {
                unsure: true,
                ..Self::default()
            }
        })
    }

    fn sure(mut look: impl FnMut() -> Self) -> Self {
        let mut uses = look();
        for _ in 0..LOOKS {
            if uses.doubts.is_empty() {
                break;
            }
            let before = std::mem::replace(&mut uses, look());
            if uses.doubts == before.doubts {
                break;
            }
        }
        uses
    }

    fn look(census: &Census) -> Self {
        let mut uses = Self {
            unsure: census.unsure,
            ..Self::default()
        };
        let (kept, active): (Vec<_>, Vec<_>) = census.named.iter().partition(|n| n.by.is_some());
        for named in kept {
            uses.add_named(census, named);
        }
        match (census.untold)() {
            Some(untold) => {
                for (file, below) in &untold {
                    uses.add_untold(std::iter::once(file).chain(below));
                }
            }
            None => uses.unsure = true,
        }
        for named in active {
            uses.add_named(census, named);
        }
        uses
    }

    fn add_named(&mut self, census: &Census, named: &Named) {
        let records = &census.records;
        let whose = Whose {
            machine: census.machines.get(&named.machine).map(AsRef::as_ref),
            disk: &named.disk,
            sealed: records.sealed(named),
        };
        let file = (named.file.as_path(), named.format);
        self.add(whose, file, || records.below(named));
    }

    /// Counts a file of a machine that cannot be read with all that it is recorded to lie on.
    fn add_untold<'a>(&mut self, files: impl Iterator<Item = &'a PathBuf>) {
        let ids: BTreeSet<_> = files.filter_map(|file| key(file)).collect();
        for id in ids {
            *self.counts.entry(id).or_default() += 1;
        }
    }

    /// Counts a file with all under it; where that cannot be read, or is not what is recorded, with what it is known to
    /// have lain on.
    fn add(
        &mut self,
        whose: Whose<'_>,
        (file, format): (&Path, Format),
        known: impl FnOnce() -> Option<Vec<PathBuf>>,
    ) {
        let chain = graph::chain_of(&At::new("", whose.disk), whose, file, format);
        self.doubts.extend(chain.unreadable.clone());
        let is_refused = chain.refused.is_some();
        if !chain.is_whole() {
            if let Some(known) = known() {
                let mut under = whose.under(&chain, &known);
                // What stands in the place of a file that is refused is somebody else's.
                under.keys.extend(key(file).filter(|_| !is_refused));
                under.keys.extend(chain.layers.first().map(|top| top.id));
                self.under.push(under);
                return;
            }
            if is_refused {
                // What is raw lies on nothing.
                if format != Format::Raw {
                    self.unsure = true;
                    self.doubts.insert(file.to_owned());
                }
                return;
            }
        }
        let (layers, unreadable) = (chain.layers, chain.unreadable);
        if held::metadata(file).is_err_and(|e| !held::is_silence(&e)) {
            return; // a simulated one, or lost already
        }
        let unreadable = unreadable.map(|file| key(&file));
        self.unsure |= unreadable == Some(None);
        let unreadable = unreadable.flatten();
        self.unreadable.extend(unreadable);
        for id in layers.iter().map(|l| l.id).chain(unreadable) {
            *self.counts.entry(id).or_default() += 1;
        }
    }

    /// The content of these active files is given up, so what cannot be read of it keeps no other file from being
    /// replaced, unless a second one lies on it.
    pub fn give_up<'a>(&mut self, files: impl IntoIterator<Item = &'a Path>) {
        for file in files.into_iter().flat_map(held::look_at) {
            if self.count(&file) <= 1 {
                self.unreadable.remove(&(file.device, file.inode));
            }
        }
    }

    /// Do more than `known` need the file? Whether it can be read itself does not matter.
    #[must_use]
    pub fn more_than(&self, known: usize, file: &Path) -> bool {
        let Ok(file) = held::look_at(file) else {
            return false;
        };
        let id = (file.device, file.inode);
        let unsure = self.unsure || self.unreadable.iter().any(|other| *other != id);
        unsure || self.count(&file) > known
    }

    fn count(&self, file: &Identity) -> usize {
        let count = self.counts.get(&(file.device, file.inode));
        let under = self.under.iter().filter(|under| under.has(file));
        under.count().saturating_add(count.copied().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::engine::qcow2::writer::NewImage;
    use crate::engine::retain::Records;
    use crate::id::{SetId, SnapshotId, VmId};
    use crate::inventory::{Seal, Sealed};

    /// Notes that a kept file was looked at.
    #[derive(Default)]
    struct Noting(AtomicBool);

    impl Records for Noting {
        fn sealed(&self, _: &Named) -> &[Sealed] {
            self.0.store(true, Ordering::Relaxed);
            &[]
        }

        fn below(&self, _: &Named) -> Option<Vec<PathBuf>> {
            None
        }

        fn seals(&self, _: &Path) -> Vec<Seal> {
            Vec::new()
        }

        fn is_marked(&self, _: &Path) -> bool {
            false
        }
    }

    #[test]
    fn a_machine_that_comes_while_kept_files_are_looked_at_needs_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.raw");
        fs::write(&file, [1; 512]).unwrap();
        let looked = Arc::new(Noting::default());
        let kept = Named {
            machine: VmId::from_u128(1),
            machine_name: "m".into(),
            disk: "disk0".into(),
            file: file.clone(),
            format: Format::Raw,
            by: Some((SetId::from_u128(1), SnapshotId::from_u128(1))),
        };
        let uses = Uses::of(Box::new(move || {
            let (records, file) = (Arc::clone(&looked), file.clone());
            let imported = move || match records.0.load(Ordering::Relaxed) {
                true => vec![(file.clone(), Vec::new())],
                false => Vec::new(),
            };
            Census {
                machines: Arc::default(),
                named: vec![kept.clone()],
                untold: Box::new(move || Some(imported())),
                records: looked.clone(),
                unsure: false,
            }
        }));
        let file = folder.path().join("a.raw");
        assert!(uses.more_than(1, &file) && !uses.more_than(2, &file));
    }

    #[test]
    fn what_another_operation_removes_meanwhile_is_no_doubt() {
        let doubtful = |file: &str| Uses {
            unsure: true,
            doubts: BTreeSet::from([file.into()]),
            ..Uses::default()
        };
        let mut looks = [doubtful("one"), doubtful("another"), Uses::default()].into_iter();
        let uses = Uses::sure(|| looks.next().unwrap());
        assert!(!uses.unsure && looks.next().is_none());
        let mut looks = 0;
        let uses = Uses::sure(|| {
            looks += 1;
            doubtful("away")
        });
        assert!(uses.unsure, "it is away");
        assert_eq!(looks, 2);
    }

    const NOBODYS: Whose<'static> = Whose {
        machine: None,
        disk: "disk0",
        sealed: &[],
    };

    #[test]
    fn an_unreadable_file_is_needed_by_those_that_lie_on_it_only() {
        let folder = tempfile::tempdir().unwrap();
        let [own, other, above] = ["own", "other", "above"].map(|f| folder.path().join(f));
        fs::write(&own, []).unwrap();
        fs::write(&other, [1; 512]).unwrap();
        let mut uses = Uses::default();
        uses.add(NOBODYS, (&own, Format::Qcow2), || None);
        uses.add(NOBODYS, (&other, Format::Raw), || None);
        assert!(!uses.more_than(1, &own), "only itself cannot be read");
        assert!(uses.more_than(1, &other), "the unreadable one may need it");

        let on_it = NewImage {
            size: 1 << 20,
            backing: Some((&own, Format::Qcow2)),
        };
        on_it.write(&File::create(&above).unwrap()).unwrap();
        uses.add(NOBODYS, (&above, Format::Qcow2), || None);
        assert!(uses.more_than(1, &own), "one lies on it");

        let mut uses = Uses::default();
        uses.add(NOBODYS, (&own, Format::Qcow2), || Some(vec![above.clone()]));
        uses.add(NOBODYS, (&other, Format::Raw), || None);
        assert!(!uses.more_than(1, &other), "it never lay on it");
        assert!(uses.more_than(0, &above), "it lay on it");
    }
}
