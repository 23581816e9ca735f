//! QEMU's image locks: open-file-description locks on single bytes far into the file (QEMU
//! `block/file-posix.c`, "image locking").
//!
//! Byte `100 + p` is held by everyone who uses permission `p`, byte `200 + p` by everyone who does not
//! share it with others. All hold read locks; a conflict is found by asking whether a write lock could be
//! had. So QEMU and we see each other, whoever came first. `locking=off` and file systems without locks
//! are out of our reach.
//!
//! Two further bytes, which QEMU does not use, tell all processes of ours that one of them holds an image: the first
//! is locked from before the others until after them, the second while all of them are.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use tokio::sync::Notify;

use crate::engine::failure::{At, kind};
use crate::engine::hold::{self, Guard, Hold};
use crate::engine::{EngineError, EngineErrorKind};
use crate::held;
use crate::inventory::Machine;
use crate::text::Message;
use crate::text::catalog::engine as texts;

const USES: i64 = 100;
const UNSHARED: i64 = 200;

/// One of ours is about to hold the image, or holds it, or lets it go.
const OURS_WANTS: i64 = 300;
/// One of ours holds the image, so nobody else writes it.
const OURS_HAS: i64 = 301;

/// Looks at an image that one of ours is about to hold, and the pause between two: it knows in a moment.
const LOOKS: u32 = 200;
const PAUSE: Duration = Duration::from_millis(1);

const CONSISTENT_READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;

/// What a machine that runs holds: it reads, writes and resizes, and lets nobody else write or resize.
const OWNER_USES: &[i64] = &[CONSISTENT_READ, WRITE, RESIZE];
const OWNER_UNSHARED: &[i64] = &[WRITE, RESIZE];

/// Device and inode of every image that this process holds, or is about to.
static HELD: Mutex<BTreeMap<(u64, u64), Hand>> = Mutex::new(BTreeMap::new());

/// How far this process has an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hand {
    /// It tries to get it, or lets it go.
    Reaches,
    /// Nobody else writes it.
    Has,
}

/// An image held as a running machine holds it. Dropping it lets it go.
#[derive(Debug)]
pub struct ImageLock {
    file: File,
    id: (u64, u64),
    path: PathBuf,
    /// Byte that stays locked: the file lives on in a [`FrozenLock`].
    stays: Option<i64>,
}

impl ImageLock {
    /// Takes the image.
    ///
    /// # Errors
    /// [`EngineErrorKind::Locked`] naming the file if anyone else writes or reads it, or if this process
    /// holds it already; else what opening it said.
    pub fn take(at: &At, path: &Path) -> Result<Self, EngineError> {
        let file = open(path).map_err(|e| at.io(path, &e))?;
        Self::of(at, path, file)
    }

    /// [`ImageLock::take`] of an image that is open, whatever its path leads to.
    ///
    /// # Errors
    /// As there.
    pub fn of(at: &At, path: &Path, file: File) -> Result<Self, EngineError> {
        let id = id(&file).map_err(|e| at.io(path, &e))?;
        match held().entry(id) {
            Entry::Occupied(_) => {
                return Err(at.error(EngineErrorKind::Locked, texts::LOCKED_HERE, path));
            }
            Entry::Vacant(place) => place.insert(Hand::Reaches),
        };
        let lock = Self {
            file,
            id,
            path: path.to_owned(),
            stays: None,
        };
        let claimed = || {
            let file = &lock.file;
            lock_byte(file, OURS_WANTS)?;
            if !claim(file, OWNER_USES, OWNER_UNSHARED)? {
                return Ok(Err(by_whom(file)?));
            }
            lock_byte(file, OURS_HAS)?;
            Ok(Ok(()))
        };
        match held::ask(path, claimed) {
            Ok(Ok(())) => {
                held().insert(id, Hand::Has);
                Ok(lock)
            }
            Ok(Err(by)) => Err(at.error(EngineErrorKind::Locked, by, path)),
            Err(e) => Err(unavailable(at, path, &e)),
        }
    }

    /// The same; nothing if this process has it already.
    ///
    /// # Errors
    /// As there.
    pub fn unless_held(at: &At, path: &Path, file: File) -> Result<Option<Self>, EngineError> {
        let id = id(&file).map_err(|e| at.io(path, &e))?;
        match has(id) {
            true => Ok(None),
            false => Self::of(at, path, file).map(Some),
        }
    }

    /// The image, open for reading as long as it is held.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Guard for ImageLock {
    fn of(&self) -> &Path {
        &self.path
    }

    fn freeze(mut self: Box<Self>) -> io::Result<Box<dyn hold::Frozen>> {
        // The same description, and so the same locks.
        let file = self.file.try_clone()?;
        self.stays = Some(UNSHARED + WRITE);
        Ok(Box::new(FrozenLock { file }))
    }
}

impl Drop for ImageLock {
    fn drop(&mut self) {
        held().insert(self.id, Hand::Reaches);
        // What says that it is ours goes last, or `is_written` could take our lock for another's.
        let all = bytes(OWNER_USES, OWNER_UNSHARED).into_iter();
        let all = all.filter(|b| Some(*b) != self.stays);
        for byte in all.chain([OURS_HAS, OURS_WANTS]) {
            let _ = fcntl(
                &self.file,
                FcntlArg::F_OFD_SETLK(&range(libc::F_UNLCK, byte)),
            );
        }
        held().remove(&self.id);
    }
}

/// Keeps QEMU and its tools from opening a frozen file for writing; reading stays open to all.
#[derive(Debug)]
pub struct FrozenLock {
    file: File,
}

impl FrozenLock {
    /// Freezes the file against writers; one that an operation of this process writes, against all others.
    ///
    /// # Errors
    /// [`EngineErrorKind::Locked`] if another process writes it now; else what opening it said.
    pub fn take(at: &At, path: &Path) -> Result<Self, EngineError> {
        let file = open(path).map_err(|e| at.io(path, &e))?;
        let frozen = Self { file };
        let id = id(&frozen.file).map_err(|e| at.io(path, &e))?;
        let claimed = || {
            // From here on nobody begins to write it; what this process holds, no other writes.
            if claim(&frozen.file, &[], &[WRITE])? || has(id) {
                return Ok(Ok(()));
            }
            match is_taken(&frozen.file, USES + WRITE)? {
                true => Ok(Err(by_whom(&frozen.file)?)),
                false => Ok(Ok(())),
            }
        };
        match held::ask(path, claimed) {
            Ok(Ok(())) => Ok(frozen),
            Ok(Err(by)) => Err(at.error(EngineErrorKind::Locked, by, path)),
            Err(e) => Err(unavailable(at, path, &e)),
        }
    }
}

fn unavailable(at: &At, path: &Path, error: &io::Error) -> EngineError {
    if held::is_silence(error) || kind(error) == EngineErrorKind::Locked {
        return at.io(path, error);
    }
    EngineError {
        kind: EngineErrorKind::Failed,
        text: at.text(texts::LOCK_UNAVAILABLE, path).with("cause", error),
    }
}

/// Whether this process holds the image. While it only reaches for it, that is waited for.
fn has(id: (u64, u64)) -> bool {
    for _ in 0..LOOKS {
        match held().get(&id) {
            Some(Hand::Has) => return true,
            None => return false,
            Some(Hand::Reaches) => pause(),
        }
    }
    false
}

/// What to say of whoever holds an image that this process does not: one of ours has locked its byte.
fn by_whom(file: &File) -> io::Result<Message> {
    Ok(match is_taken(file, OURS_HAS)? {
        true => texts::LOCKED_OURS,
        false => texts::LOCKED,
    })
}

fn id(file: &File) -> io::Result<(u64, u64)> {
    let meta = file.metadata()?;
    Ok((meta.dev(), meta.ino()))
}

#[expect(
    clippy::disallowed_methods,
    reason = "on a blocking thread, for as long as a few calls of the kernel take"
)]
fn pause() {
    thread::sleep(PAUSE);
}

impl hold::Frozen for FrozenLock {}

impl Drop for FrozenLock {
    fn drop(&mut self) {
        // A child process may have the description for a moment; closing ours alone would not unlock then.
        let byte = range(libc::F_UNLCK, UNSHARED + WRITE);
        let _ = fcntl(&self.file, FcntlArg::F_OFD_SETLK(&byte));
    }
}

/// The frozen files of all snapshot sets, kept frozen while the server runs. Each costs one open file.
#[derive(Debug, Default)]
pub struct FrozenFiles {
    known: Mutex<Known>,
    let_go: Notify,
}

/// What is frozen. No file is opened, locked or let go while this is locked.
#[derive(Debug, Default)]
struct Known {
    files: BTreeMap<PathBuf, Frozen>,
    /// The newest renewal: one that stands at a file changes nothing any more.
    renewal: u64,
    /// Let go since it began.
    released: BTreeSet<PathBuf>,
}

impl Known {
    /// Whether the renewal is to freeze the file.
    fn lacks(&self, file: &Path, renewal: u64) -> bool {
        self.renewal == renewal && !self.files.contains_key(file) && !self.released.contains(file)
    }
}

#[derive(Debug)]
struct Frozen {
    _lock: Box<dyn hold::Frozen>,
    /// Some set names the file, or has named it.
    named: bool,
}

impl FrozenFiles {
    /// Freezes exactly the files that `names` tells from now on: takes what is new, lets go what is no
    /// longer named. `names` is asked when nobody else can change what is frozen; it reads the newest
    /// state. Files that cannot be frozen are tried again at the next call.
    ///
    /// # Errors
    /// One [`EngineError`] for each file that someone writes or that cannot be opened; the others are
    /// frozen.
    pub fn renew(&self, names: impl FnOnce() -> BTreeMap<PathBuf, At>) -> Vec<EngineError> {
        let mut known = self.known();
        let files = names();
        known.renewal += 1;
        let renewal = known.renewal;
        known.released.clear();
        let mut gone = Vec::new();
        for (file, mut frozen) in std::mem::take(&mut known.files) {
            let named = files.contains_key(&file);
            if named || !frozen.named {
                frozen.named |= named;
                known.files.insert(file, frozen);
            } else {
                gone.push(frozen);
            }
        }
        drop(known);
        drop(gone);
        let mut errors = Vec::new();
        for (file, at) in files {
            if !self.known().lacks(&file, renewal) {
                continue;
            }
            match FrozenLock::take(&at, &file) {
                Ok(lock) => {
                    let frozen = Frozen {
                        _lock: Box::new(lock),
                        named: true,
                    };
                    let mut known = self.known();
                    let too_late = match known.lacks(&file, renewal) {
                        true => known.files.insert(file, frozen),
                        false => Some(frozen),
                    };
                    drop(known);
                    drop(too_late);
                }
                Err(e) => errors.push(e),
            }
        }
        errors
    }

    /// Lets the images go, but for those of `files`, which a set is about to name: they pass from held to
    /// frozen without a moment in which a writer could open them. The rest of `files` is frozen as far as
    /// it can be; [`FrozenFiles::renew`] tries again. Blocks.
    pub fn take_over(&self, holds: impl IntoIterator<Item = Hold>, files: &BTreeMap<PathBuf, At>) {
        let freeze = |path: PathBuf, lock: Box<dyn hold::Frozen>| {
            let named = false;
            let frozen = Frozen { _lock: lock, named };
            let before = self.known().files.insert(path, frozen);
            drop(before);
        };
        for guard in holds.into_iter().flat_map(Hold::into_guards) {
            let path = guard.of().to_owned();
            if files.contains_key(&path)
                && let Ok(lock) = guard.freeze()
            {
                freeze(path, lock);
            }
        }
        for (path, at) in files {
            if let Ok(lock) = FrozenLock::take(at, path) {
                freeze(path.clone(), Box::new(lock));
            }
        }
    }

    /// Whether the file is kept frozen now.
    #[must_use]
    pub fn holds(&self, file: &Path) -> bool {
        self.known().files.contains_key(file)
    }

    /// The files that are frozen now.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        self.known().files.keys().cloned().collect()
    }

    /// Lets these files go at once: no set names them any more.
    pub fn release<'a>(&self, files: impl IntoIterator<Item = &'a Path>) {
        let mut known = self.known();
        let mut gone = Vec::new();
        for file in files {
            gone.extend(known.files.remove(file));
            known.released.insert(file.to_owned());
        }
        drop(known);
        drop(gone);
        self.let_go.notify_one();
    }

    /// Waits until any file was let go by [`FrozenFiles::release`] since this was waited for last. For one who follows.
    pub async fn let_go(&self) {
        self.let_go.notified().await;
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hold {
    /// Takes the active file of every disk of the machine.
    ///
    /// # Errors
    /// As [`ImageLock::take`]; what was taken is let go.
    pub fn of(machine: &Machine) -> Result<Self, EngineError> {
        let mut hold = Self::default();
        for disk in &machine.disks {
            let lock = ImageLock::take(&At::disk(machine, disk), &disk.file)?;
            hold.join(Self::on(lock));
        }
        Ok(hold)
    }
}

/// Whether something that is not of ours has the image open for writing: it runs. Whatever process of ours holds it,
/// for a merge or a set, is none.
///
/// # Errors
/// The image cannot be opened or has no locks.
pub fn is_written(path: &Path) -> io::Result<bool> {
    // All of it: a network file system may open from what it knows, and ask for locks far away.
    held::ask(path, || is_open_for_writing(path))
}

fn is_open_for_writing(path: &Path) -> io::Result<bool> {
    let file = open(path)?;
    for _ in 0..LOOKS {
        if !is_taken(&file, USES + WRITE)? || is_taken(&file, OURS_HAS)? {
            return Ok(false);
        }
        if !is_taken(&file, OURS_WANTS)? {
            break;
        }
        pause();
    }
    // It may have been ours that let go between two questions.
    is_taken(&file, USES + WRITE)
}

/// That no process of ours holds the file, for a merge or an operation on whoever has it, and that it is the one with
/// this device and inode. One that only reaches for it is waited for.
///
/// # Errors
/// [`EngineErrorKind::Locked`] naming the file; [`EngineErrorKind::Unsupported`] if it is another one by now; else what
/// opening it said.
pub fn require_idle(at: &At, path: &Path, expected: (u64, u64)) -> Result<(), EngineError> {
    let look = || {
        let file = open(path)?;
        Ok((id(&file)?, is_ours(&file)?))
    };
    match held::ask(path, look).map_err(|e| at.io(path, &e))? {
        (found, _) if found != expected => {
            Err(at.error(EngineErrorKind::Unsupported, texts::REPLACED, path))
        }
        (_, true) => Err(at.error(EngineErrorKind::Locked, texts::LOCKED_OURS, path)),
        (_, false) => Ok(()),
    }
}

/// Where there are no locks nobody holds an image: neither is a merge begun there.
fn is_ours(file: &File) -> io::Result<bool> {
    let none = [libc::EINVAL, libc::ENOLCK, libc::ENOSYS, libc::EOPNOTSUPP];
    for _ in 0..LOOKS {
        match is_taken(file, OURS_WANTS) {
            Ok(true) => {}
            Err(e) if !e.raw_os_error().is_some_and(|e| none.contains(&e)) => return Err(e),
            Ok(false) | Err(_) => return Ok(false),
        }
        if is_taken(file, OURS_HAS)? {
            break;
        }
        pause();
    }
    Ok(true)
}

/// Opens what stands there itself, and without waiting.
fn open(path: &Path) -> io::Result<File> {
    held::open(path, false)
}

fn held() -> std::sync::MutexGuard<'static, BTreeMap<(u64, u64), Hand>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks first and looks afterwards, as QEMU does: of two at the same time at least one sees the other.
fn claim(file: &File, uses: &[i64], unshared: &[i64]) -> io::Result<bool> {
    for byte in bytes(uses, unshared) {
        lock_byte(file, byte)?;
    }
    let conflicts = bytes(unshared, uses);
    for byte in conflicts {
        if is_taken(file, byte)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn lock_byte(file: &File, byte: i64) -> io::Result<()> {
    fcntl(file, FcntlArg::F_OFD_SETLK(&range(libc::F_RDLCK, byte)))?;
    Ok(())
}

fn bytes(uses: &[i64], unshared: &[i64]) -> Vec<i64> {
    let uses = uses.iter().map(|p| USES + p);
    uses.chain(unshared.iter().map(|p| UNSHARED + p)).collect()
}

fn is_taken(file: &File, byte: i64) -> io::Result<bool> {
    let mut asked = range(libc::F_WRLCK, byte);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut asked))?;
    Ok(libc::c_int::from(asked.l_type) != libc::F_UNLCK)
}

fn range(kind: libc::c_int, byte: i64) -> libc::flock {
    libc::flock {
        l_type: libc::c_short::try_from(kind).unwrap_or_default(),
        l_whence: libc::c_short::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    }
}

/// What a machine that runs on this file holds, until it is dropped.
#[cfg(test)]
pub(super) fn as_a_machine(path: &Path) -> File {
    let machine = File::open(path).unwrap();
    assert!(claim(&machine, OWNER_USES, OWNER_UNSHARED).unwrap());
    machine
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        file
    }

    /// By a call, not by closing it: a process that another test is about to start may have it open still.
    fn let_go(file: &File) {
        let all = libc::flock {
            l_len: 0,
            ..range(libc::F_UNLCK, 0)
        };
        fcntl(file, FcntlArg::F_OFD_SETLK(&all)).unwrap();
    }

    #[test]
    fn an_image_is_held_once_and_let_go_on_drop() {
        let image = image();
        let at = At::new("m", "disk0");
        let first = ImageLock::take(&at, image.path()).unwrap();
        let second = ImageLock::take(&at, image.path()).unwrap_err();
        assert_eq!(second.kind, EngineErrorKind::Locked);
        assert!(
            !is_written(image.path()).unwrap(),
            "our own lock is no machine"
        );
        drop(first);
        drop(ImageLock::take(&at, image.path()).unwrap());
    }

    #[test]
    fn the_locks_of_another_description_are_seen() {
        let image = image();
        let at = At::new("m", "disk0");
        // As QEMU does for a machine that runs.
        let other = File::open(image.path()).unwrap();
        assert!(claim(&other, OWNER_USES, OWNER_UNSHARED).unwrap());
        assert!(is_written(image.path()).unwrap());
        for error in [
            ImageLock::take(&at, image.path()).unwrap_err(),
            FrozenLock::take(&at, image.path()).unwrap_err(),
        ] {
            assert_eq!(error.kind, EngineErrorKind::Locked);
            assert!(
                error
                    .text
                    .english()
                    .contains(&image.path().display().to_string())
            );
        }
        let_go(&other);
        drop(ImageLock::take(&at, image.path()).unwrap());
    }

    #[test]
    fn what_one_of_ours_holds_is_in_use_by_no_machine() {
        let image = image();
        // As another process of ours does, `groupshot vm list` sees it.
        let other = File::open(image.path()).unwrap();
        lock_byte(&other, OURS_WANTS).unwrap();
        assert!(claim(&other, OWNER_USES, OWNER_UNSHARED).unwrap());
        lock_byte(&other, OURS_HAS).unwrap();
        assert!(!is_written(image.path()).unwrap());
        for error in [
            ImageLock::take(&at(), image.path()).unwrap_err(),
            FrozenLock::take(&at(), image.path()).unwrap_err(),
        ] {
            assert_eq!(error.kind, EngineErrorKind::Locked);
            assert!(
                error.text.english().contains("another Groupshot"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_process_of_ours_that_only_reaches_for_an_image_is_waited_for() {
        let image = image();
        let machine = File::open(image.path()).unwrap();
        assert!(claim(&machine, OWNER_USES, OWNER_UNSHARED).unwrap());
        let ours = File::open(image.path()).unwrap();
        lock_byte(&ours, OURS_WANTS).unwrap();
        assert!(!claim(&ours, OWNER_USES, OWNER_UNSHARED).unwrap());
        thread::scope(|scope| {
            let looks = scope.spawn(|| is_written(image.path()).unwrap());
            let_go(&ours);
            assert!(
                looks.join().unwrap(),
                "the machine runs, whoever else tries"
            );
        });
    }

    #[test]
    fn a_file_is_idle_unless_one_of_ours_holds_it_or_another_is_in_its_place() {
        let (image, other) = (image(), image());
        let [this, that] = [&image, &other].map(|it| id(it.as_file()).unwrap());
        let idle = |expected| require_idle(&at(), image.path(), expected).map_err(|e| e.kind);
        // A machine that runs on it is no process of ours.
        let machine = File::open(image.path()).unwrap();
        assert!(claim(&machine, OWNER_USES, OWNER_UNSHARED).unwrap());
        assert_eq!(idle(this), Ok(()));
        assert_eq!(idle(that), Err(EngineErrorKind::Unsupported));
        let_go(&machine);
        let merge = ImageLock::take(&at(), image.path()).unwrap();
        assert_eq!(idle(this), Err(EngineErrorKind::Locked));
        drop(merge);
        let _frozen = FrozenLock::take(&at(), image.path()).unwrap();
        assert_eq!(idle(this), Ok(()));
    }

    #[test]
    fn who_asks_for_locks_stands_where_everybody_sees_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.raw");
        std::fs::write(&path, [1; 512]).unwrap();
        // While one of ours reaches for an image, whoever asks waits for it with the image open.
        let ours = File::open(&path).unwrap();
        lock_byte(&ours, OURS_WANTS).unwrap();
        lock_byte(&ours, USES + WRITE).unwrap();
        thread::scope(|scope| {
            // Whoever looks may be held up for as long as it stands there.
            let sees = |_| {
                let asks = scope.spawn(|| is_written(&path));
                let mut seen = 0;
                while !asks.is_finished() {
                    seen += u32::from(held::give_up(&path) && held::is_silent(&path));
                    pause();
                }
                assert!(asks.join().unwrap().unwrap());
                seen > LOOKS / 20
            };
            assert!((0..50).any(sees), "it is seen");
        });
    }

    #[test]
    fn what_an_operation_here_writes_is_frozen_against_all_others() {
        let image = image();
        let merge = ImageLock::take(&at(), image.path()).unwrap();
        let frozen = FrozenFiles::default();
        assert_eq!(frozen.renew(|| named(&[image.path()])), []);
        drop(merge);
        let machine = File::open(image.path()).unwrap();
        assert!(!claim(&machine, OWNER_USES, OWNER_UNSHARED).unwrap());
    }

    #[test]
    fn frozen_files_are_those_that_were_named_last() {
        let (one, two, gone) = (image(), image(), PathBuf::from("/nowhere/a.raw"));
        let named = |files: &[&Path]| named(files);
        let frozen = FrozenFiles::default();
        assert_eq!(frozen.renew(|| named(&[one.path(), &gone])).len(), 1);
        assert!(ImageLock::take(&at(), one.path()).is_err());
        assert_eq!(frozen.renew(|| named(&[one.path(), two.path()])), []);
        assert_eq!(frozen.renew(|| named(&[two.path()])), []);
        drop(ImageLock::take(&at(), one.path()).unwrap());
        assert!(ImageLock::take(&at(), two.path()).is_err());
    }

    #[test]
    fn a_file_that_does_not_answer_keeps_nobody_from_what_is_frozen() {
        let (other, third) = (image(), image());
        let dir = tempfile::tempdir().unwrap();
        let (hung, stands) = (dir.path().join("a.raw"), dir.path().join("stands"));
        std::fs::write(&hung, [1; 512]).unwrap();
        let frozen = FrozenFiles::default();
        assert_eq!(frozen.renew(|| named(&[other.path()])), []);
        let (go, gate) = std::sync::mpsc::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            let at = &stands;
            scope.spawn(move || held::ask(at, || Ok(gate.recv().is_ok())));
            while !held::slow_down(&stands) {
                thread::yield_now();
            }
            let renewing = scope.spawn(|| frozen.renew(|| named(&[&hung, other.path()])));
            while frozen.known.try_lock().is_ok_and(|k| k.renewal < 2) {
                thread::yield_now();
            }
            scope.spawn(|| {
                let held = frozen.holds(other.path());
                frozen.take_over([], &named(&[third.path()]));
                frozen.release([&*hung]);
                tell.send(held && frozen.holds(third.path())).unwrap();
            });
            let answered = told.recv_timeout(Duration::from_secs(120));
            let waits = !renewing.is_finished();
            go.send(()).unwrap();
            assert_eq!(renewing.join().unwrap(), []);
            assert!(answered.unwrap() && waits);
        });
        assert!(!frozen.holds(&hung), "it was let go meanwhile");
        drop(ImageLock::take(&at(), &hung).unwrap());
        assert_eq!(frozen.renew(|| named(&[&hung])), []);
        assert!(frozen.holds(&hung) && !frozen.holds(other.path()));
    }

    #[test]
    fn a_held_image_that_is_kept_stays_closed_to_writers_until_it_is_released() {
        let (kept, other) = (image(), image());
        let frozen = FrozenFiles::default();
        let take = |file: &tempfile::NamedTempFile| ImageLock::take(&at(), file.path()).unwrap();
        let mut hold = Hold::on(take(&kept));
        hold.join(Hold::on(take(&other)));
        assert!(hold.covers(other.path()));
        frozen.take_over([hold], &named(&[kept.path()]));
        assert!(ImageLock::take(&at(), kept.path()).is_err());
        drop(take(&other));
        // The set is not published yet.
        assert_eq!(frozen.renew(BTreeMap::new), []);
        assert!(ImageLock::take(&at(), kept.path()).is_err());
        let reader = File::open(kept.path()).unwrap();
        assert!(
            claim(&reader, &[CONSISTENT_READ], &[]).unwrap(),
            "readers may"
        );
        drop(reader);
        assert_eq!(frozen.renew(|| named(&[kept.path()])), []);
        frozen.release([kept.path()]);
        drop(take(&kept));
    }

    /// A write lock, which neither QEMU nor we take.
    #[test]
    fn what_another_process_has_locked_as_nobody_should_is_in_use() {
        for byte in [OURS_WANTS, OURS_HAS, USES + WRITE] {
            let image = image();
            let other = File::options().write(true).open(image.path()).unwrap();
            let lock = range(libc::F_WRLCK, byte);
            fcntl(&other, FcntlArg::F_OFD_SETLK(&lock)).unwrap();
            let error = ImageLock::take(&at(), image.path()).unwrap_err();
            assert_eq!(error.kind, EngineErrorKind::Locked, "{byte}: {error}");
            assert!(error.text.english().contains("in use by another process"));
        }
    }

    fn at() -> At {
        At::new("m", "disk0")
    }

    fn named(files: &[&Path]) -> BTreeMap<PathBuf, At> {
        files.iter().map(|f| (f.to_path_buf(), at())).collect()
    }

    #[test]
    fn a_pipe_in_place_of_an_image_makes_nobody_wait() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("a.raw");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _ = ImageLock::take(&At::new("m", "disk0"), &pipe);
        let _ = is_written(&pipe);
    }

    #[test]
    fn a_frozen_file_refuses_writers_and_admits_more_freezers() {
        let image = image();
        let at = At::new("m", "disk0");
        let _one = FrozenLock::take(&at, image.path()).unwrap();
        let _two = FrozenLock::take(&at, image.path()).unwrap();
        assert!(ImageLock::take(&at, image.path()).is_err());
        assert!(!is_written(image.path()).unwrap());
    }
}
