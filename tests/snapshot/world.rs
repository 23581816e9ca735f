//! A data directory with real files, a library of machines, a store in memory and a coordinator.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use groupshot::audit::Audit;
use groupshot::clock::{Clock, ManualClock};
use groupshot::engine::drivers::Drivers;
use groupshot::engine::import::{NewDisk, NewMachine, import};
use groupshot::engine::library::Library;
use groupshot::engine::overlay::Overlay;
use groupshot::engine::qcow2::chain::Roots;
use groupshot::engine::space::Reserve;
use groupshot::engine::{Compute, Machines};
use groupshot::id::{CollectionId, VmId};
use groupshot::inventory::{
    Collection, CollectionKind, Consistency, Format, Job, JobState, SetKind, SnapshotSet,
};
use groupshot::job::Jobs;
use groupshot::snapshot::{
    Accepted, Coordinator, CreateRequest, Deps, Exports, Limits, Passage, Refused,
};
use groupshot::store::memory::MemoryStore;
use groupshot::store::{Change, State, Store, record};
use jiff::Timestamp;
use serde_json::json;

use crate::support::journal;
use crate::support::site::is_spare;

/// Long enough for anything that ends at all.
const LIMIT: Duration = Duration::from_secs(60);

/// Everything of one process.
pub(super) struct World {
    pub(super) root: PathBuf,
    pub(super) store: Arc<MemoryStore>,
    pub(super) jobs: Arc<Jobs>,
    pub(super) library: Arc<Library>,
    pub(super) coordinator: Arc<Coordinator>,
}

/// The state on disk and in the store at one moment: what a killed process leaves.
pub(super) struct Left {
    files: BTreeMap<PathBuf, Vec<u8>>,
    times: BTreeMap<PathBuf, SystemTime>,
    folders: Vec<PathBuf>,
    pub(super) state: Arc<State>,
}

pub(super) fn group() -> CollectionId {
    CollectionId::from_u128(1)
}

/// `count` machines with one raw disk each, under `root`; the group of all of them.
pub(super) async fn furnish(root: &Path, count: u8) -> World {
    let (images, data) = (root.join("images"), root.join("data"));
    fs::create_dir_all(&images).unwrap();
    fs::create_dir_all(&data).unwrap();
    let mut machines = Vec::new();
    for n in 0..count {
        let file = images.join(format!("m{n}.raw"));
        fs::write(&file, vec![n; 64 << 10]).unwrap();
        machines.push(machine(&data, &format!("m{n}"), file));
    }
    let store = Arc::new(MemoryStore::new());
    put(
        &*store,
        vec![collection(
            group(),
            CollectionKind::Machines,
            machines,
            vec![],
        )],
    )
    .await;
    World::open(root, store, Box::new(groupshot::failpoint::pass))
}

/// A machine with that one raw image.
pub(super) fn machine(data: &Path, name: &str, file: PathBuf) -> VmId {
    let new = NewMachine {
        name: name.to_owned(),
        disks: vec![NewDisk {
            id: None,
            file,
            format: Some(Format::Raw),
        }],
        overlay_ok: true,
        accept_images: false,
        sockets: Default::default(),
        unmanaged_ok: false,
    };
    let roots = Roots::default();
    let machine = import(data, &new, &roots, Timestamp::UNIX_EPOCH);
    machine.unwrap().id
}

pub(super) fn collection(
    id: CollectionId,
    kind: CollectionKind,
    machines: Vec<VmId>,
    collections: Vec<CollectionId>,
) -> Change {
    Change::PutCollection(Collection {
        id,
        name: format!("group {:x}", id.as_u128()),
        kind,
        machines,
        collections,
        created: Timestamp::UNIX_EPOCH,
    })
}

pub(super) async fn put(store: &dyn Store, changes: Vec<Change>) {
    store.transact(Box::new(move |_| changes)).await.unwrap();
}

impl World {
    /// A process that starts over what is there.
    pub(super) fn open(root: &Path, store: Arc<MemoryStore>, passage: Passage) -> Self {
        Self::audited(root, store, passage, Audit::default())
    }

    /// [`World::open`] with an audit log.
    pub(super) fn audited(
        root: &Path,
        store: Arc<MemoryStore>,
        passage: Passage,
        audit: Audit,
    ) -> Self {
        Self::under(root, store, passage, audit, |library| library)
    }

    /// The same with whatever knows the machines of the library.
    pub(super) fn under(
        root: &Path,
        store: Arc<MemoryStore>,
        passage: Passage,
        audit: Audit,
        compute: impl FnOnce(Arc<Library>) -> Arc<dyn Compute>,
    ) -> Self {
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let clock: Arc<dyn Clock> = clock;
        let jobs = Jobs::new(store.clone(), clock.clone(), Duration::from_secs(300));
        let data = root.join("data");
        let library = Arc::new(Library::open(&data, clock.clone()).unwrap());
        let reserve = Reserve {
            bytes: 0,
            percent: 0,
        };
        let deps = Deps {
            store: store.clone(),
            jobs: jobs.clone(),
            compute: compute(library.clone()),
            storage: Drivers::new(vec![Arc::new(Overlay::new(&data, reserve, 32))]),
            frozen: Arc::default(),
            audit,
            clock,
            data_dir: data,
            exports: Exports::default(),
            limits: Limits {
                parallel: 1,
                ..Limits::default()
            },
            guard: env!("CARGO_BIN_EXE_groupshot").into(),
        };
        Self {
            root: root.to_owned(),
            store,
            jobs,
            library,
            coordinator: Coordinator::passing(deps, passage),
        }
    }

    /// The same process over again, with these fail points.
    pub(super) fn with(&self, passage: Passage) -> Self {
        Self::open(&self.root, self.store.clone(), passage)
    }

    pub(super) async fn create(&self, collection: CollectionId) -> Result<Accepted, Refused> {
        self.coordinator.create(request(collection)).await
    }

    pub(super) async fn end(&self, accepted: Accepted) -> Job {
        let job = self.jobs.wait(accepted.job, LIMIT).await.unwrap();
        assert!(job.state.is_terminal(), "{job:?}");
        tokio::time::timeout(LIMIT, self.coordinator.idle())
            .await
            .unwrap();
        job
    }

    pub(super) fn machines(&self) -> Arc<Machines> {
        self.library.machines()
    }

    pub(super) fn tops(&self) -> Vec<PathBuf> {
        let machines = self.machines();
        let disks = machines.values().flat_map(|m| &m.disks);
        disks.map(|d| d.file.clone()).collect()
    }

    /// All files below `data/sets` and `data/journal`, and folders in `sets`.
    pub(super) fn ours(&self) -> Vec<PathBuf> {
        let (mut files, mut folders) = (BTreeMap::new(), Vec::new());
        read(&self.root.join("data/sets"), &mut files, &mut folders);
        read(&self.root.join("data/journal"), &mut files, &mut folders);
        folders.retain(|f| !f.ends_with("sets") && !f.ends_with("journal"));
        folders.sort(); // a file system lists them in any order
        files.into_keys().chain(folders).collect()
    }

    /// Nothing of a set is there: no record, file, folder or top.
    pub(super) fn assert_untouched(&self, at: &str) {
        assert_eq!(self.ours(), Vec::<PathBuf>::new(), "{at}");
        assert!(self.store.state().sets.is_empty(), "{at}");
        assert!(self.store.state().positions.is_empty(), "{at}");
        for top in self.tops() {
            assert!(top.starts_with(self.root.join("images")), "{at}: {top:?}");
        }
    }

    /// The one set is whole: records, links, files and tops agree, and nothing else is there.
    pub(super) fn assert_whole(&self, at: &str) {
        let state = self.store.state();
        assert_eq!(state.sets.len(), 1, "{at}");
        let set = state.sets.values().next().unwrap();
        let machines = self.machines();
        assert_eq!(set.members.len(), machines.len(), "{at}");
        let mut expected = vec![self.root.join("data/sets").join(set.id.to_string())];
        for member in &set.members {
            let machine = &machines[&member.machine];
            assert_eq!(state.position(machine.id).parent, Some(member.id), "{at}");
            let original = fs::read(&machine.definition).unwrap();
            assert_eq!(fs::read(&member.definition).unwrap(), original, "{at}");
            let top = &machine.disks[0].file;
            assert!(top.starts_with(&expected[0]) && top.exists(), "{at}");
            assert!(member.disks[0].file.starts_with(self.root.join("images")));
            expected.push(member.definition.parent().unwrap().to_owned());
            expected.extend([member.definition.clone(), top.clone()]);
        }
        let record = record::path(&self.root.join("data"), set.id);
        expected.push(record);
        let recorded = record::read(&self.root.join("data"), set.id);
        let recorded = recorded.unwrap().unwrap().unwrap();
        assert_eq!(unsealed(&recorded.set), unsealed(set), "{at}");
        let mut groups = recorded.collections.iter();
        assert!(groups.any(|c| Some(c.id) == set.collection), "{at}");
        expected.sort();
        let mut ours = self.ours();
        ours.sort();
        assert_eq!(ours, expected, "{at}");
        assert_eq!(state.jobs[&set.job].state, JobState::Completed, "{at}");
    }
}

pub(super) fn request(collection: CollectionId) -> CreateRequest {
    CreateRequest {
        collection,
        name: None,
        kind: SetKind::Standard,
        consistency: Consistency::Application,
        ignore_non_snapshottable_disks: false,
        owner: "tester".into(),
    }
}

impl Left {
    pub(super) fn take(root: &Path, store: &dyn Store) -> Self {
        let (mut files, mut folders) = (BTreeMap::new(), Vec::new());
        read(root, &mut files, &mut folders);
        let time = |f: &PathBuf| fs::metadata(f).unwrap().modified().unwrap();
        let times = files.keys().map(|f| (f.clone(), time(f))).collect();
        Self {
            files,
            times,
            folders,
            state: store.state(),
        }
    }

    /// Puts it back at its place, and a store with its records.
    pub(super) async fn restore(&self, root: &Path) -> Arc<MemoryStore> {
        self.restore_below(root).await
    }

    /// The same for what is below a folder; the rest stays as it is now.
    pub(super) async fn restore_below(&self, root: &Path) -> Arc<MemoryStore> {
        fs::remove_dir_all(root).unwrap();
        fs::create_dir_all(root).unwrap();
        for folder in self.folders.iter().filter(|it| it.starts_with(root)) {
            fs::create_dir_all(folder).unwrap();
        }
        for (path, bytes) in self.files.iter().filter(|(it, _)| it.starts_with(root)) {
            fs::write(path, bytes).unwrap();
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_modified(self.times[path]).unwrap();
            if path.extension().is_some_and(|e| e == "log") {
                unseal(path);
            }
        }
        let store = Arc::new(MemoryStore::new());
        let state = &self.state;
        let mut changes = Vec::new();
        changes.extend(
            state
                .collections
                .values()
                .map(|c| Change::PutCollection((**c).clone())),
        );
        changes.extend(state.sets.values().map(|set| Change::PutSet(unsealed(set))));
        changes.extend(
            state
                .positions
                .iter()
                .map(|(v, p)| Change::PutPosition(*v, p.clone())),
        );
        changes.extend(state.jobs.values().map(|j| Change::PutJob((**j).clone())));
        put(&*store, changes).await;
        store
    }
}

/// The set without its seals: what was put back are other files.
fn unsealed(set: &SnapshotSet) -> SnapshotSet {
    let mut set = set.clone();
    let disks = set.members.iter_mut().flat_map(|m| &mut m.disks);
    disks.for_each(|disk| disk.sealed.clear());
    set
}

/// What is put back are other files than those that were sealed: takes seals and inodes out of a journal.
fn unseal(path: &Path) {
    let mut records = journal::read(&fs::read(path).unwrap());
    let Some(intent) = records.first_mut() else {
        return;
    };
    match intent.rest["kind"].as_str() {
        Some("destroy") => {
            let members = intent.rest["members"].as_array_mut().unwrap();
            members.iter_mut().for_each(|m| m["sealed"] = json!([]));
            for record in records.iter_mut().filter(|it| it.record == "merge") {
                let merge = record.rest["merge"].as_object_mut().unwrap();
                merge.remove("inodes");
            }
        }
        Some("create") => {
            for record in records.iter_mut().filter(|it| it.record == "prepared") {
                record.rest.remove("made");
            }
        }
        _ => return,
    }
    fs::remove_file(path).unwrap();
    journal::write(path.parent().unwrap(), records);
}

fn read(folder: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>, folders: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    folders.push(folder.to_owned());
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, files, folders);
        } else if !is_spare(&path) && !path.ends_with("groupshot.ballast") {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
}
