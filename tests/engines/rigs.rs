//! A driver with a machine of one disk, as the contract wants to handle it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use groupshot::engine::overlay::Overlay;
use groupshot::engine::reflink::Reflink;
use groupshot::engine::sim::{Sim, machine_id};
use groupshot::engine::space::Reserve;
use groupshot::engine::{Compute, Driver, Live, Plan, Top};
use groupshot::id::{SetId, VmId};
use groupshot::inventory::{self, Disk, Format, Machine};
use jiff::Timestamp;

use crate::support::tools::{self, Mount};

pub(super) const SIZE: u64 = 8 << 20;

/// What the contract asks of a driver's surroundings.
pub(super) trait Rig {
    fn storage(&self) -> &dyn Driver;
    fn machine(&self) -> Machine;
    /// What the machine is while its disk is captured, unless it is off.
    fn live(&self) -> Option<Live> {
        None
    }
    /// Whether the machine goes on with the new file itself, so that nothing is left to the driver.
    fn takes(&self) -> bool {
        false
    }
    /// The disk is captured, by whoever does it.
    fn capture(&self, plan: &Plan) {
        if !self.takes() {
            self.storage().cut(plan).unwrap();
        }
    }
    /// The machine writes: all of its disk is `pattern` afterwards.
    fn write(&self, top: &Top, pattern: u8);
    /// The capture holds `pattern` all over.
    fn assert_captured(&self, plan: &Plan, pattern: u8);
    /// The active file holds `pattern` all over.
    fn assert_top(&self, top: &Top, pattern: u8);
    /// A copy of a disk holds `pattern` all over.
    fn assert_content_of(&self, file: &Path, format: Format, pattern: u8);
    /// Everything that is on the disk beside the image and its chain.
    fn left_behind(&self) -> Vec<PathBuf>;
}

pub(super) struct SimRig {
    sim: Arc<Sim>,
    _dir: tempfile::TempDir,
}

impl SimRig {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sim = Sim::new(dir.path(), 1, Timestamp::UNIX_EPOCH).unwrap();
        Self { sim, _dir: dir }
    }
}

impl Rig for SimRig {
    fn storage(&self) -> &dyn Driver {
        &*self.sim
    }
    fn machine(&self) -> Machine {
        Machine::clone(&self.sim.machine(machine_id(1)).unwrap())
    }
    fn write(&self, _: &Top, pattern: u8) {
        self.sim.write(machine_id(1), "disk0", u64::from(pattern));
    }
    fn assert_captured(&self, plan: &Plan, pattern: u8) {
        let got = self
            .sim
            .captured_generation(plan.set, plan.machine, &plan.disk.id);
        assert_eq!(got, Some(u64::from(pattern)));
    }
    fn assert_top(&self, _: &Top, _: u8) {}
    fn assert_content_of(&self, _: &Path, _: Format, _: u8) {}
    fn left_behind(&self) -> Vec<PathBuf> {
        // A fresh capture of a set that nobody made finds nothing; the sim keeps no files.
        files(self._dir.path())
            .into_iter()
            .filter(|f| !f.ends_with("sim/machine.toml"))
            .collect()
    }
}

/// What an import records of the image of `disk0`, with those files under it that are there.
pub(super) fn imported(image: &Path, below: &[PathBuf]) -> BTreeMap<String, inventory::Image> {
    let record = |file: &Path| {
        let file = file.canonicalize().ok()?;
        let meta = fs::metadata(&file).ok()?;
        let born = meta.created().ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some(inventory::Image {
            named: file.clone(),
            inode: meta.ino(),
            born: i64::try_from(born.as_nanos()).ok().into(),
            owner: meta.uid(),
            mode: meta.mode() & 0o7777,
            links: meta.nlink(),
            below: None,
            file,
        })
    };
    let below: Vec<_> = below.iter().filter_map(|file| record(file)).collect();
    let image = record(image).map(|image| inventory::Image {
        below: Some(below),
        ..image
    });
    image
        .map(|image| ("disk0".to_owned(), image))
        .into_iter()
        .collect()
}

/// What the disk of a [`FileRig`] is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Image {
    Raw,
    /// btrfs: a file without copy-on-write.
    RawNoCow,
    Qcow2,
    /// A qcow2 image that names its backing file by a relative path.
    Chain,
}

/// Real files, on the file system of `place`.
pub(super) struct FileRig {
    storage: Box<dyn Driver>,
    image: Image,
    live: Option<Live>,
    images: PathBuf,
    data: PathBuf,
    _temp: Option<tempfile::TempDir>,
    _mount: Option<Mount>,
}

impl FileRig {
    /// Overlays in a directory of the host.
    pub(super) fn overlay(image: Image) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().to_owned();
        Self::new(&root, image, Some(temp), None, |data| {
            Box::new(Overlay::new(data, Reserve::default(), 32))
        })
    }

    /// Clones on a fresh file system.
    pub(super) fn reflink(kind: &str, image: Image) -> Self {
        let mount = Mount::file_system(kind);
        let root = mount.path().to_owned();
        Self::new(&root, image, None, Some(mount), |_| {
            Box::new(Reflink::new(Reserve::default()))
        })
    }

    fn new(
        root: &Path,
        image: Image,
        temp: Option<tempfile::TempDir>,
        mount: Option<Mount>,
        storage: impl FnOnce(&Path) -> Box<dyn Driver>,
    ) -> Self {
        let (images, data) = (root.join("images"), root.join("data"));
        fs::create_dir(&images).unwrap();
        fs::create_dir(&data).unwrap();
        let rig = Self {
            storage: storage(&data),
            image,
            live: None,
            images,
            data,
            _temp: temp,
            _mount: mount,
        };
        rig.make();
        rig
    }

    /// The same with a machine that is not off.
    pub(super) fn that_runs(self, live: Live) -> Self {
        let live = Some(live);
        Self { live, ..self }
    }

    fn make(&self) {
        let file = self.file();
        let name = file.to_str().unwrap();
        let size = SIZE.to_string();
        match self.image {
            Image::Raw => fs::write(&file, vec![1; SIZE as usize]).unwrap(),
            Image::RawNoCow => {
                fs::write(&file, "").unwrap();
                tools::run("chattr", &["+C", name]);
                fs::write(&file, vec![1; SIZE as usize]).unwrap();
            }
            Image::Qcow2 => {
                tools::run("qemu-img", &["create", "-q", "-f", "qcow2", name, &size]);
                tools::write(&file, "qcow2", 1, "0", &size);
            }
            Image::Chain => {
                let base = self.images.join("base.raw");
                fs::write(&base, vec![1; SIZE as usize]).unwrap();
                let make = [
                    "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "base.raw", name,
                ];
                tools::run("qemu-img", &make);
            }
        }
    }

    fn format(&self) -> Format {
        match self.image {
            Image::Raw | Image::RawNoCow => Format::Raw,
            Image::Qcow2 | Image::Chain => Format::Qcow2,
        }
    }

    fn file(&self) -> PathBuf {
        self.images.join(format!("web.{}", self.format().as_str()))
    }

    fn assert_content(&self, file: &Path, format: Format, pattern: u8) {
        if format == Format::Raw {
            let bytes = fs::read(file).unwrap();
            assert!(bytes.len() as u64 == SIZE && bytes.iter().all(|b| *b == pattern));
            return;
        }
        if self.image == Image::Raw && !tools::are_there() {
            return;
        }
        tools::assert_clean(file);
        let reference = tempfile::NamedTempFile::new().unwrap();
        fs::write(reference.path(), vec![pattern; SIZE as usize]).unwrap();
        tools::assert_equal((file, format.as_str()), (reference.path(), "raw"));
    }
}

impl Rig for FileRig {
    fn storage(&self) -> &dyn Driver {
        &*self.storage
    }
    fn live(&self) -> Option<Live> {
        self.live
    }
    fn takes(&self) -> bool {
        self.live.is_some() && self.storage.name() == "overlay"
    }
    fn machine(&self) -> Machine {
        let disk = Disk {
            id: "disk0".into(),
            file: self.file(),
            format: self.format(),
            size: SIZE,
        };
        Machine {
            id: VmId::from_u128(7),
            name: "web-1".into(),
            disks: vec![disk],
            directory: self.data.join("machines/7"),
            definition: self.data.join("vm.toml"),
            created: Timestamp::UNIX_EPOCH,
            overlay_ok: true,
            unmanaged_ok: false,
            no_flush_ok: false,
            images: imported(&self.file(), &[self.images.join("base.raw")]),
            relative: Default::default(),
            sockets: Default::default(),
        }
    }
    fn write(&self, top: &Top, pattern: u8) {
        if top.format == Format::Raw {
            use std::io::Write;
            let mut file = fs::File::options().write(true).open(&top.file).unwrap();
            file.write_all(&vec![pattern; SIZE as usize]).unwrap();
        } else if tools::are_there() {
            let size = SIZE.to_string();
            tools::write(&top.file, top.format.as_str(), pattern, "0", &size);
        }
    }
    fn assert_captured(&self, plan: &Plan, pattern: u8) {
        let captured = self.storage.captured(plan);
        self.assert_content(&captured.file, captured.format, pattern);
    }
    fn assert_top(&self, top: &Top, pattern: u8) {
        if top.format == Format::Raw || tools::are_there() {
            self.assert_content(&top.file, top.format, pattern);
        }
    }
    fn assert_content_of(&self, file: &Path, format: Format, pattern: u8) {
        self.assert_content(file, format, pattern);
    }
    fn left_behind(&self) -> Vec<PathBuf> {
        let ours = [
            self.file(),
            self.images.join("base.raw"),
            self.data.join("sets"),
        ];
        let mut all = files(&self.images);
        all.extend(files(&self.data));
        all.retain(|f| !ours.contains(f));
        all
    }
}

/// Every file and folder below `dir`.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path.clone());
            }
            out.push(path);
        }
    }
    out.retain(|p| !p.ends_with("sim"));
    out
}

/// A set id that no other test uses.
pub(super) fn set(number: u128) -> SetId {
    SetId::from_u128(number)
}
