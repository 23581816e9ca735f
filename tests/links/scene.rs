//! A server that runs as root, an image folder that belongs to another user, and a file that he may not touch.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::fs::{CWD, Gid, RenameFlags, Uid, renameat_with};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::support::gate::Gate;
use crate::support::server::{Options, Server};
use crate::support::site::{Ground, Image, Machine, SIZE, Site};
use crate::support::tools::run;
use crate::support::wire::{Created, STARTED, Wire};

/// The second user.
const OTHER: u32 = 65_534;

pub(super) const COMPLETED: u64 = 7;
pub(super) const INVALID_STATE: u64 = 5;

/// What stands in the place of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Swap {
    /// A symbolic link to the victim.
    Link,
    /// A second name of the victim.
    HardLink,
    /// A pipe.
    Pipe,
    /// A folder.
    Folder,
    /// A file of root.
    Foreign,
    /// The folder is a link to another one, in which a file of root has the image's name.
    FolderLink,
}

pub(super) const SWAPS: &[Swap] = &[
    Swap::Link,
    Swap::HardLink,
    Swap::Pipe,
    Swap::Folder,
    Swap::Foreign,
    Swap::FolderLink,
];

/// A file as it must stay: content, mode, owner, names and times.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Untouched(Vec<u8>, [u64; 5], [i64; 4]);

pub(super) struct Scene {
    pub(super) site: Site,
    pub(super) machine: Machine,
    pub(super) image: PathBuf,
    /// A file of root that others may not read, as long as a disk.
    pub(super) victim: PathBuf,
}

impl Scene {
    /// A machine `web` on one disk in a folder of the second user.
    pub(super) fn new(ground: Ground, kind: Image, more: &[&str]) -> Self {
        let site = Site::new(ground);
        for folder in site.images.ancestors().take_while(|f| *f != Path::new("/")) {
            let mode = fs::metadata(folder).unwrap().mode();
            fs::set_permissions(folder, fs::Permissions::from_mode(mode | 0o055)).unwrap();
        }
        let pool = site.images.join("pool");
        fs::create_dir_all(pool.join("of-web")).unwrap();
        let made = site.image("web", kind, 1);
        let image = pool.join("of-web").join(made.file_name().unwrap());
        fs::rename(made, &image).unwrap();
        for it in [pool.as_path(), &pool.join("of-web"), &image] {
            chown(it, Some(OTHER), Some(OTHER)).unwrap();
        }
        let victim = site.images.join("victim.raw");
        fs::write(&victim, vec![9; SIZE]).unwrap();
        fs::set_permissions(&victim, fs::Permissions::from_mode(0o600)).unwrap();
        let args = [more, &[image.to_str().unwrap()]].concat();
        let machine = site.import("web", &args, vec![vec![1; SIZE]]);
        Self {
            site,
            machine,
            image,
            victim,
        }
    }

    /// A server that exports below `root`, with these fail points.
    pub(super) fn serve_exporting(&self, root: &Path, orders: &str) -> Server {
        let config = format!("[export]\nroots = [{:?}]\n", root.to_str().unwrap());
        let config = self.site.configuration(&config);
        Server::with(&Options {
            args: &["--config", config.to_str().unwrap()],
            env: &[("GROUPSHOT_FAILPOINTS", orders)],
            data: Some(&self.site.data),
            ..Options::default()
        })
    }

    /// A client of the server, and the first set of the machine.
    pub(super) fn with_a_set(&self, server: &Server) -> (Wire, String) {
        let wire = Wire::new(server);
        let set = wire.take(&self.group(&wire), "one");
        self.site.wait_for_journals();
        (wire, set)
    }

    /// What was begun comes to the gate.
    pub(super) fn is_at_the_gate(&self, wire: &Wire, (begun, gate): (&Created, &Gate), what: &str) {
        assert_eq!(begun.value, STARTED, "{what}: {}", wire.why(begun));
        gate.reached();
    }

    /// The second user does this; it must go well.
    pub(super) fn other(&self, command: &[&dyn AsRef<OsStr>]) {
        let user = OTHER.to_string();
        let become_other = ["--reuid", &user, "--regid", &user, "--clear-groups"].map(OsStr::new);
        let command = command.iter().map(|part| part.as_ref());
        let args: Vec<_> = become_other.into_iter().chain(command).collect();
        run("setpriv", &args);
    }

    /// Puts `swap` in the place of `file`; what stood there lies aside.
    pub(super) fn swap(&self, file: &Path, swap: Swap) {
        if swap == Swap::FolderLink {
            let folder = file.parent().unwrap();
            let trap = folder.with_file_name("trap");
            fs::create_dir(&trap).unwrap();
            fs::copy(&self.victim, trap.join(file.file_name().unwrap())).unwrap();
            self.other(&[&"mv", &folder, &aside(folder)]);
            self.other(&[&"ln", &"-s", &trap, &folder]);
            return;
        }
        self.other(&[&"mv", &file, &aside(file)]);
        match swap {
            Swap::Link => self.other(&[&"ln", &"-s", &self.victim, &file]),
            Swap::Pipe => self.other(&[&"mkfifo", &file]),
            Swap::Folder => self.other(&[&"mkdir", &file]),
            // The kernel lets nobody but the owner do so, unless told otherwise (fs.protected_hardlinks).
            Swap::HardLink => fs::hard_link(&self.victim, file).unwrap(),
            Swap::Foreign => {
                fs::copy(&self.victim, file).unwrap();
            }
            Swap::FolderLink => {}
        }
    }

    /// As it was before [`Scene::swap`].
    pub(super) fn swap_back(&self, file: &Path, swap: Swap) {
        if swap == Swap::FolderLink {
            let folder = file.parent().unwrap();
            fs::remove_file(folder).unwrap();
            fs::rename(aside(folder), folder).unwrap();
            fs::remove_dir_all(folder.with_file_name("trap")).unwrap();
            return;
        }
        match swap {
            Swap::Folder => fs::remove_dir(file).unwrap(),
            _ => fs::remove_file(file).unwrap(),
        }
        fs::rename(aside(file), file).unwrap();
    }

    /// The victim, and what else the swap has put in reach.
    pub(super) fn guarded(&self, file: &Path, swap: Swap) -> Vec<Untouched> {
        let mut files = vec![self.victim.clone()];
        if matches!(swap, Swap::Foreign | Swap::FolderLink) {
            files.push(file.to_owned());
        }
        files.iter().map(|file| seen(file)).collect()
    }

    pub(super) fn group(&self, wire: &Wire) -> String {
        wire.define("all", &[&self.machine.id]).unwrap()
    }

    /// Lets the machine write `byte` into its active file.
    pub(super) fn writes(&mut self, byte: u8) {
        let top = self.site.top(&self.machine, 0);
        let at = usize::from(byte) * 8192;
        self.machine.write(&top, 0, at, 8192, byte);
    }

    pub(super) fn doctor(&self, args: &[&str]) -> String {
        let args = [&["doctor"], args].concat();
        let out = crate::support::server::run_in(&self.site.data, &args, "");
        let text = crate::support::server::text;
        text(&out.stdout) + &text(&out.stderr)
    }
}

/// This thread, and it alone, is the second user's from now on.
pub(super) fn become_other() {
    let (user, group) = (Uid::from_raw(OTHER), Gid::from_raw(OTHER));
    set_thread_groups(&[]).unwrap();
    set_thread_res_gid(group, group, group).unwrap();
    set_thread_res_uid(user, user, user).unwrap();
}

/// The second user exchanges two names without a pause, until it is stopped.
pub(super) struct Exchange {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Exchange {
    pub(super) fn start(a: &Path, b: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, a, b) = (Arc::clone(&stop), a.to_owned(), b.to_owned());
        let (tell, began) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            become_other();
            let exchange = || renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE);
            tell.send(exchange()).unwrap();
            while !stopped.load(Ordering::Relaxed) {
                let _gone = exchange();
                std::thread::yield_now();
            }
        });
        began.recv().unwrap().unwrap();
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// Exchanges them once, as root.
    pub(super) fn once(a: &Path, b: &Path) {
        renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).unwrap();
    }

    pub(super) fn stop(self) {
        drop(self);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

pub(super) fn seen(file: &Path) -> Untouched {
    let it = fs::metadata(file).unwrap();
    let ids = [
        it.ino(),
        it.mode().into(),
        it.uid().into(),
        it.gid().into(),
        it.nlink(),
    ];
    let times = [it.mtime(), it.mtime_nsec(), it.ctime(), it.ctime_nsec()];
    Untouched(fs::read(file).unwrap(), ids, times)
}

fn aside(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap().to_owned();
    name.push(".aside");
    file.with_file_name(name)
}

/// Return value 5 with a text that names machine, disk and file.
pub(super) fn assert_refused(wire: &Wire, answer: &Created, file: &Path, what: &str) {
    let why = wire.why(answer);
    assert_eq!(answer.value, INVALID_STATE, "{what}: {why}");
    for part in ["web", "disk0", file.to_str().unwrap()] {
        assert!(why.contains(part), "{what}: {part}: {why}");
    }
}

/// The end of a job that was started.
pub(super) fn end(wire: &Wire, answer: &Created, what: &str) -> crate::support::wire::Job {
    let job = answer.job.as_deref();
    let job = job.unwrap_or_else(|| panic!("{what}: {}", wire.why(answer)));
    wire.end(job).unwrap()
}

/// A configuration that admits images below the site's folder alone, as an operator would write it.
pub(super) fn roots(scene: &Scene) -> String {
    let pool = scene.site.images.join("pool");
    format!("[engine]\nimage_roots = [{:?}]\n", pool.to_str().unwrap())
}

pub(super) fn serve(scene: &Scene, with_roots: bool) -> Server {
    match with_roots {
        true => scene.site.serve_configured(&roots(scene)),
        false => scene.site.serve(),
    }
}
