//! Machines with real disks on a chosen file system, beside a data directory; what their disks must hold.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::server::{Options, Server, add_user, run_in, text};
use super::tools::{self, Mount};

/// Virtual size of every disk.
pub(crate) const SIZE: usize = 1 << 20;

/// How long an operation may take to close its journal.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where the images are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ground {
    /// The file system of temporary directories; nothing is cloned there as a rule.
    Host,
    /// Loop-mounted XFS.
    Xfs,
    /// Loop-mounted btrfs.
    Btrfs,
    /// Loop-mounted ext4; nothing is cloned there.
    Ext4,
}

/// What an image is before we come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Image {
    Raw,
    Qcow2,
    /// qcow2 over a raw file that it names by a relative path.
    Chain,
}

/// Images, a data directory with a user, and the machines imported so far.
pub(crate) struct Site {
    pub(crate) images: PathBuf,
    pub(crate) data: PathBuf,
    _home: tempfile::TempDir,
    mount: Option<Arc<Mount>>,
}

/// A machine.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) id: String,
    pub(crate) name: String,
    /// The operator's images, one a disk: `disk0`, `disk1`, …
    pub(crate) images: Vec<PathBuf>,
    /// What each disk must hold now.
    pub(crate) content: Vec<Vec<u8>>,
}

/// What can be seen of a file without knowing what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    /// Hash of the content; 0 for a folder.
    pub(crate) content: u64,
}

impl Site {
    pub(crate) fn new(ground: Ground) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mount = match ground {
            Ground::Host => None,
            Ground::Xfs => Some(Mount::file_system("xfs")),
            Ground::Btrfs => Some(Mount::file_system("btrfs")),
            Ground::Ext4 => Some(Mount::file_system("ext4")),
        };
        let data = home.path().join("data");
        let images = mount
            .as_ref()
            .map_or(home.path(), Mount::path)
            .join("images");
        Self::at(home, mount.map(Arc::new), images, data)
    }

    /// Another one with its images on the same file system.
    pub(crate) fn beside(&self, number: usize) -> Self {
        let home = tempfile::tempdir().unwrap();
        let (images, data) = (
            self.images.join(number.to_string()),
            home.path().join("data"),
        );
        Self::at(home, self.mount.clone(), images, data)
    }

    /// With the images on `images` and the data directory on `data`, which the caller keeps.
    pub(crate) fn on(images: &Mount, data: &Mount) -> Self {
        let (images, data) = (images.path().join("images"), data.path().join("data"));
        Self::at(tempfile::tempdir().unwrap(), None, images, data)
    }

    /// With the data directory on `mount` and the images on the host's file system.
    pub(crate) fn with_data_on(mount: Mount) -> Self {
        let data = mount.path().join("data");
        let home = tempfile::tempdir().unwrap();
        let images = home.path().join("images");
        Self::at(home, Some(Arc::new(mount)), images, data)
    }

    /// All of it on `mount`, which the caller keeps.
    pub(crate) fn whole_on(mount: &Mount) -> Self {
        let (data, images) = (mount.path().join("data"), mount.path().join("images"));
        Self::at(tempfile::tempdir().unwrap(), None, images, data)
    }

    fn at(
        home: tempfile::TempDir,
        mount: Option<Arc<Mount>>,
        images: PathBuf,
        data: PathBuf,
    ) -> Self {
        fs::create_dir(&images).unwrap();
        fs::create_dir(&data).unwrap();
        add_user(&data);
        Self {
            images,
            data,
            _home: home,
            mount,
        }
    }

    /// The server on this site.
    pub(crate) fn serve(&self) -> Server {
        self.serve_with(&[])
    }

    /// The server with these fail points.
    pub(crate) fn serve_with(&self, failpoints: &[&str]) -> Server {
        self.try_serve(failpoints)
            .unwrap_or_else(|e| panic!("the server did not start: {e}"))
    }

    /// [`Site::serve_with`], which may end at a fail point of its recovery.
    pub(crate) fn try_serve(&self, failpoints: &[&str]) -> Result<Server, String> {
        let orders = failpoints.join(",");
        match failpoints {
            [] => self.serve_in(&[]),
            _ => self.serve_in(&[("GROUPSHOT_FAILPOINTS", &orders)]),
        }
    }

    /// The server with this configuration.
    pub(crate) fn serve_configured(&self, config: &str) -> Server {
        let file = self.configuration(config);
        let args = ["--config", file.to_str().unwrap()];
        Server::with(&Options {
            args: &args,
            data: Some(&self.data),
            ..Options::default()
        })
    }

    /// The server with this configuration file and fail point.
    pub(crate) fn serve_at(&self, config: &str, failpoint: &str) -> Result<Server, String> {
        Server::try_with(&Options {
            args: &["--config", config],
            env: &[("GROUPSHOT_FAILPOINTS", failpoint)],
            data: Some(&self.data),
            ..Options::default()
        })
    }

    /// A configuration file that holds `text`.
    pub(crate) fn configuration(&self, text: &str) -> PathBuf {
        let file = self._home.path().join("groupshot.toml");
        fs::write(&file, text).unwrap();
        file
    }

    /// The server with this environment.
    pub(crate) fn serve_in(&self, env: &[(&str, &str)]) -> Result<Server, String> {
        Server::try_with(&Options {
            env,
            data: Some(&self.data),
            ..Options::default()
        })
    }

    /// A machine with one disk for each of `kinds`, each filled with `byte`.
    pub(crate) fn machine(&self, name: &str, kinds: &[Image], byte: u8) -> Machine {
        let images: Vec<_> = kinds
            .iter()
            .enumerate()
            .map(|(n, kind)| self.image(&format!("{name}-{n}"), *kind, byte))
            .collect();
        let mut args = vec!["--overlay-ok"];
        args.extend(images.iter().map(|i| i.to_str().unwrap()));
        let content = vec![vec![byte; SIZE]; images.len()];
        self.import(name, &args, content)
    }

    /// The machine of an export as a new one; its disks hold `content`.
    pub(crate) fn import_exported(
        &self,
        name: &str,
        definition: &Path,
        content: Vec<Vec<u8>>,
    ) -> Machine {
        let args = ["--definition", definition.to_str().unwrap()];
        self.import(name, &args, content)
    }

    /// A machine by `vm import`; its disks hold `content`.
    pub(crate) fn import(&self, name: &str, args: &[&str], content: Vec<Vec<u8>>) -> Machine {
        let args = [&["--json", "vm", "import", name], args].concat();
        let out = run_in(&self.data, &args, "");
        assert!(out.status.success(), "vm import: {}", text(&out.stderr));
        let shown: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        let disks = shown["disks"].as_array().unwrap().iter();
        Machine {
            id: shown["id"].as_str().unwrap().to_owned(),
            name: name.to_owned(),
            images: disks.map(|d| d["file"].as_str().unwrap().into()).collect(),
            content,
        }
    }

    /// Makes an image that holds `byte` all over.
    pub(crate) fn image(&self, name: &str, kind: Image, byte: u8) -> PathBuf {
        let size = SIZE.to_string();
        let at = |suffix: &str| self.images.join(format!("{name}{suffix}"));
        let image = at(if kind == Image::Raw { ".raw" } else { ".qcow2" });
        let file = image.to_str().unwrap();
        match kind {
            Image::Raw => fs::write(&image, vec![byte; SIZE]).unwrap(),
            Image::Qcow2 => {
                tools::run("qemu-img", &["create", "-q", "-f", "qcow2", file, &size]);
                tools::write(&image, "qcow2", byte, "0", &size);
            }
            Image::Chain => {
                let base = format!("{name}-base.raw");
                fs::write(self.images.join(&base), vec![byte; SIZE]).unwrap();
                let make = [
                    "create", "-q", "-f", "qcow2", "-F", "raw", "-b", &base, file,
                ];
                tools::run("qemu-img", &make);
            }
        }
        image
    }

    /// Every file and folder of the site but the database and its helpers, by path.
    pub(crate) fn tree(&self) -> BTreeMap<PathBuf, Seen> {
        let mut tree = BTreeMap::new();
        for root in [&self.images, &self.data] {
            walk(root, &mut tree);
        }
        tree.retain(|path, _| {
            let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
            !name.starts_with("groupshot.") && name != "users.json" && !is_spare(path)
        });
        tree
    }

    /// The files that snapshot sets may leave: all below `sets/` and `.groupshot/`, folders too.
    pub(crate) fn kept(&self) -> Vec<PathBuf> {
        let mut kept = BTreeMap::new();
        walk(&self.data.join("sets"), &mut kept);
        walk(&self.images.join(".groupshot"), &mut kept);
        kept.into_keys().collect()
    }

    /// A file in the folder of a machine of that id: `vm.toml`, `tops.json`.
    pub(crate) fn file_of(&self, machine: &str, name: &str) -> PathBuf {
        self.data.join("machines").join(machine).join(name)
    }

    /// The active file of a disk as the machine's folder names it.
    pub(crate) fn top(&self, machine: &Machine, disk: usize) -> PathBuf {
        let file = self.file_of(&machine.id, "tops.json");
        let tops: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        let top = tops["tops"][format!("disk{disk}")]["file"].as_str();
        top.map_or_else(|| machine.images[disk].clone(), PathBuf::from)
    }

    /// Waits until no operation is in flight: a job ends for its client a moment before its journal does.
    pub(crate) fn wait_for_journals(&self) {
        let began = Instant::now();
        while !self.journals().is_empty() {
            assert!(began.elapsed() < PATIENCE, "left: {:?}", self.journals());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The names of all files in the folders of the machines.
    pub(crate) fn beside_definitions(&self) -> Vec<String> {
        let mut found = BTreeMap::new();
        walk(&self.data.join("machines"), &mut found);
        let files = found
            .into_keys()
            .filter(|f| f.is_file() && !f.is_symlink() && !f.ends_with(".lock"));
        let name = |f: PathBuf| f.file_name().unwrap().to_str().unwrap().to_owned();
        files.map(name).collect()
    }

    /// The journals of operations in flight.
    pub(crate) fn journals(&self) -> Vec<PathBuf> {
        let mut journals = BTreeMap::new();
        walk(&self.data.join("journal"), &mut journals);
        journals.into_keys().filter(|j| !is_spare(j)).collect()
    }
}

impl Machine {
    /// The machine writes to its disk: `length` times `byte` at `offset`, into the active file.
    pub(crate) fn write(
        &mut self,
        top: &Path,
        disk: usize,
        offset: usize,
        length: usize,
        byte: u8,
    ) {
        tools::write(
            top,
            format(top),
            byte,
            &offset.to_string(),
            &length.to_string(),
        );
        self.content[disk][offset..offset + length].fill(byte);
    }

    /// The machine zeroes a part of its disk, as an image can hold it without data.
    pub(crate) fn zero(&mut self, top: &Path, disk: usize, offset: usize, length: usize) {
        let command = format!("write -z {offset} {length}");
        let image = top.to_str().unwrap();
        let said = tools::run("qemu-io", &["-f", format(top), "-c", &command, image]);
        assert!(said.contains("wrote"), "{said}");
        self.content[disk][offset..offset + length].fill(0);
    }
}

/// The database of a data directory that no server has, as a version that had no checksums left it.
pub(crate) fn older_database(data: &Path) -> rusqlite::Connection {
    let database = rusqlite::Connection::open(data.join("groupshot.db")).unwrap();
    for table in ["collections", "sets", "positions", "leftovers", "jobs"] {
        let plain = format!("ALTER TABLE {table} DROP COLUMN sum");
        database.execute(&plain, []).unwrap();
    }
    database
        .execute_batch("DROP TABLE commits; DROP TABLE history; DROP TABLE marks")
        .unwrap();
    database.pragma_update(None, "user_version", 2).unwrap();
    fs::remove_file(data.join("groupshot.commits")).unwrap();
    for folder in fs::read_dir(data.join("sets")).into_iter().flatten() {
        let _none_of_a_set_that_is_gone = fs::remove_file(folder.unwrap().path().join("set.json"));
    }
    database
}

/// An empty file for a journal to come, which the server keeps ready.
pub(crate) fn is_spare(file: &Path) -> bool {
    let name = file.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let is_blank = |bytes: Vec<u8>| bytes.iter().all(|byte| *byte == 0);
    name.starts_with("spare-") && fs::read(file).is_ok_and(is_blank)
}

/// The format of an image, which here is always its suffix.
pub(crate) fn format(image: &Path) -> &str {
    image.extension().and_then(OsStr::to_str).unwrap()
}

/// What a machine would read from the image.
pub(crate) fn content(image: &Path) -> Vec<u8> {
    if format(image) == "raw" {
        return fs::read(image).unwrap();
    }
    let out = tempfile::NamedTempFile::new().unwrap();
    let (from, to) = (image.to_str().unwrap(), out.path().to_str().unwrap());
    tools::run(
        "qemu-img",
        &["convert", "-U", "-f", format(image), "-O", "raw", from, to],
    );
    fs::read(out.path()).unwrap()
}

/// The image holds exactly this, and `qemu-img check` has nothing to say about it.
pub(crate) fn assert_holds(image: &Path, expected: &[u8], what: &str) {
    let got = content(image);
    if got != expected {
        let at = got.iter().zip(expected).position(|(a, b)| a != b);
        let (is, should) = at.map_or((0, 0), |n| (got[n], expected[n]));
        panic!(
            "{what}: {} differs (length {}, expected {}; first at {at:?}: {is} for {should})",
            image.display(),
            got.len(),
            expected.len()
        );
    }
    if format(image) == "qcow2" {
        let args = ["check", "-U", "-f", "qcow2", image.to_str().unwrap()];
        let said = tools::run("qemu-img", &args);
        assert!(said.contains("No errors were found"), "{what}: {said}");
    }
}

fn walk(folder: &Path, tree: &mut BTreeMap<PathBuf, Seen>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        // The server may be at work: what goes meanwhile is not there.
        let Ok(meta) = fs::symlink_metadata(&path) else {
            continue;
        };
        if meta.is_dir() {
            walk(&path, tree);
        }
        let content = if meta.is_file() { hash(&path) } else { 0 };
        let owner = (meta.uid(), meta.gid());
        tree.insert(
            path,
            Seen {
                mode: meta.mode() & 0o7777,
                owner,
                content,
            },
        );
    }
}

fn hash(file: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    fs::read(file).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}
