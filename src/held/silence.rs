//! File systems that do not answer.
//!
//! A system call on a hung mount (NFS without its server, FUSE whose process stands still) comes back when the mount
//! does, and takes its thread along until then; nothing can call it off. So every look at a file of others is entered
//! in one table while it is under way. One that stands for [`SILENT_AFTER`] ticks makes its place silent: from then on
//! nobody else begins a look there, whoever waits to do so gets an error at once, and all goes on without it until that
//! call comes back. While one stands for a tick already, others wait for it instead of standing beside it. So each
//! place that hangs takes hardly more than one thread.
//!
//! A place is the mount where it is one of a network or of another process, else the folder.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use nix::sys::signal::SigSet;
use rustix::io::Errno;

use crate::text::catalog::held as texts;
use crate::text::{Reason, Text, told_by_text};

use super::folder::{MOST, whole};

/// How often calls that are under way are looked through.
const TICK: Duration = Duration::from_secs(1);
/// A call that has stood for so many ticks makes its place silent.
pub(super) const SILENT_AFTER: u64 = 5;
/// Others wait for a call that has stood for so many.
const SLOW_AFTER: u64 = 2;

/// Types of file systems, as the kernel names them, whose files somebody else serves; `fuse.*` and `nfs*` as well.
const SERVED: &[&str] = &[
    "fuse", "fuseblk", "cifs", "smb3", "ceph", "9p", "virtiofs", "afs", "lustre", "gfs2", "ocfs2",
    "beegfs",
];

static TABLE: Mutex<Table> = Mutex::new(Table {
    calls: BTreeMap::new(),
    next: 0,
    tick: 0,
    attended: 0,
    resting: false,
});
static CHANGED: Condvar = Condvar::new();
/// Something is under way again.
static BEGUN: Condvar = Condvar::new();

/// Calls that are under way.
struct Table {
    calls: BTreeMap<u64, Standing>,
    next: u64,
    tick: u64,
    /// Threads that are [watched](super::standing).
    attended: usize,
    /// Nothing is under way, and nobody ticks.
    resting: bool,
}

struct Standing {
    file: PathBuf,
    thread: ThreadId,
    since: u64,
    /// Known once it is slow.
    place: Option<PathBuf>,
    silent: bool,
}

impl Table {
    /// Has somebody tick from now on, as long as anything is under way.
    fn wake(&mut self) {
        if std::mem::take(&mut self.resting) {
            BEGUN.notify_all();
        }
    }

    /// The call that stands where a look at the file would.
    fn before(&self, file: &Path) -> Option<&Standing> {
        // Nobody waits for themselves.
        let own = thread::current().id();
        let mut slow = self.calls.values().filter(|call| call.thread != own);
        slow.find(|call| call.place.as_ref().is_some_and(|p| file.starts_with(p)))
    }

    fn silent(&self, file: &Path) -> Option<&Standing> {
        let mut silent = self.calls.values().filter(|call| call.silent);
        silent.find(|call| call.place.as_ref().is_some_and(|p| file.starts_with(p)))
    }
}

fn table() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file that cannot be looked at now, for a call where it lies does not come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silent(pub PathBuf);

impl Silent {
    /// In words.
    #[must_use]
    pub fn text(&self) -> Text {
        texts::SILENT.with("place", self.0.display())
    }

    pub(super) fn error(self) -> io::Error {
        io::Error::new(io::ErrorKind::TimedOut, Reason::new(self.text(), self))
    }
}

told_by_text!(Silent);

/// Whether the error tells of a [`Silent`] place.
#[must_use]
pub fn is_silence(error: &io::Error) -> bool {
    Reason::of(error).is_some_and(|reason| reason.told::<Silent>().is_some())
}

/// Whether any place is silent.
#[must_use]
pub fn is_any_silent() -> bool {
    table().calls.values().any(|call| call.silent)
}

/// Whether a look at the file would not come back. Looks at nothing.
#[must_use]
pub fn is_silent(file: &Path) -> bool {
    table().silent(file).is_some()
}

/// The file at which a thread stands, if that is silent.
#[must_use]
pub fn silent_at(thread: ThreadId) -> Option<PathBuf> {
    let table = table();
    let mut own = table.calls.values().filter(|c| c.thread == thread);
    own.find(|c| c.silent).map(|c| c.file.clone())
}

/// The file at which a thread looks just now.
pub(super) fn under_way(thread: ThreadId) -> Option<PathBuf> {
    let table = table();
    let mut own = table.calls.values().filter(|c| c.thread == thread);
    own.next_back().map(|c| c.file.clone())
}

/// The places that do not answer, each with the file that showed it.
#[must_use]
pub fn silent_places() -> BTreeMap<PathBuf, PathBuf> {
    let table = table();
    let silent = table.calls.values().filter(|c| c.silent);
    let told = silent.filter_map(|c| Some((c.place.clone()?, c.file.clone())));
    told.collect()
}

/// How often it is looked whether work on a thread of its own stands.
const SLICE: Duration = Duration::from_millis(20);
/// How often work is begun again, each time without one more place that does not answer.
const TRIES: usize = 16;

/// Does `work`, which changes nothing, on a thread of its own. Where it stands at a place that does not answer, it is
/// left behind and begun again: that place fails at once then.
///
/// # Errors
/// [`Silent`] where more and more places do not answer; no thread can be made.
pub fn look<T: Send + 'static>(work: impl Fn() -> T + Send + Sync + 'static) -> io::Result<T> {
    let work = Arc::new(work);
    let mut silent = None;
    for _ in 0..TRIES {
        let work = Arc::clone(&work);
        match bounded(move || work()) {
            Err(error) if is_silence(&error) => silent = Some(error),
            done => return done,
        }
    }
    Err(silent.unwrap_or_else(|| io::ErrorKind::TimedOut.into()))
}

/// Does `work` on a thread of its own, and does not wait for it where it stands at a place that does not answer: it
/// goes on when that does, if the process lives so long.
///
/// # Errors
/// [`Silent`]; no thread can be made.
pub fn bounded<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    watch();
    let (done, end) = mpsc::channel();
    let thread = thread::Builder::new().name("look".to_owned());
    let thread = thread.spawn(move || {
        leave_signals_to_others();
        let _left_behind = done.send(work());
    })?;
    loop {
        match end.recv_timeout(SLICE) {
            Ok(value) => return Ok(value),
            Err(RecvTimeoutError::Disconnected) => {
                let panic = thread
                    .join()
                    .err()
                    .unwrap_or_else(|| Box::new("it has ended"));
                std::panic::resume_unwind(panic)
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Some(file) = silent_at(thread.thread().id()) {
            return Err(Silent(file).error());
        }
    }
}

/// The mounts with files of these, or with files at which somebody looks just now, that do not answer within `limit`.
/// Only those are asked that somebody else serves.
pub fn unanswered(files: impl IntoIterator<Item = PathBuf>, limit: Duration) -> Vec<PathBuf> {
    let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let looked_at: Vec<_> = table().calls.values().map(|c| c.file.clone()).collect();
    let folders = files.into_iter().chain(looked_at).map(|file| {
        // A mount may be one file.
        (file.parent().unwrap_or(&file).to_owned(), file)
    });
    let mut asked = BTreeMap::new();
    for (_, file) in folders.collect::<BTreeMap<_, _>>() {
        if let Some((mount, _)) = mount_of(&mounts, &file).filter(|(_, kind)| is_served(kind)) {
            asked.insert(mount, file);
        }
    }
    let (answer, answers) = mpsc::channel();
    for (mount, file) in asked.clone() {
        let answer = answer.clone();
        // Its thread goes with the process.
        thread::spawn(move || {
            // What is remembered of a file is no answer.
            if !ask(&file, || Ok(rustix::fs::statfs(&file)?)).is_err_and(|e| is_silence(&e)) {
                let _ = answer.send(mount);
            }
        });
    }
    drop(answer);
    while let Ok(mount) = answers.recv_timeout(limit) {
        asked.remove(&mount);
    }
    asked.into_keys().collect()
}

/// Looks at a file by a system call that may not come back.
///
/// # Errors
/// What `look` says; [`Silent`] where another look has not come back, and this one was not begun.
pub fn ask<T>(file: &Path, look: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let _call = Call::begin(file)?;
    look().inspect_err(|error| note(file, error))
}

/// A look at a file that has failed, and found nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unseen {
    /// The file.
    pub file: PathBuf,
    /// What the system said.
    pub kind: io::ErrorKind,
    /// The same in words.
    pub cause: String,
}

thread_local! {
    /// The first such look of the thread.
    static UNSEEN: RefCell<Option<Unseen>> = const { RefCell::new(None) };
}

fn note(file: &Path, error: &io::Error) {
    if is_finding(error) {
        return;
    }
    UNSEEN.with_borrow_mut(|unseen| {
        unseen.get_or_insert_with(|| Unseen {
            file: file.to_owned(),
            kind: error.kind(),
            cause: error.to_string(),
        });
    });
}

/// Whether the error tells what stands there. Any other (no file descriptor or memory left, an I/O error, an interrupted
/// call, permissions) may be that of a moment.
fn is_finding(error: &io::Error) -> bool {
    match Errno::from_io_error(error) {
        Some(errno) => matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP),
        None => !is_silence(error),
    }
}

/// Does `work`, and gives with it the first look of this thread at any file that has failed meanwhile without finding out
/// what stands there: what `work` concludes may be wrong a moment later, though no file has changed.
pub fn failing<T>(work: impl FnOnce() -> T) -> (T, Option<Unseen>) {
    let before = UNSEEN.take();
    let done = work();
    let unseen = UNSEEN.take();
    UNSEEN.set(before.or_else(|| unseen.clone()));
    (done, unseen)
}

/// All of a file of any kind that a person names: one that a shell hands over (`<(…)`) once its command has written it,
/// any other within the time of a look.
///
/// # Errors
/// The I/O error; [`Silent`].
pub fn read_named(file: &Path) -> io::Result<Vec<u8>> {
    if ["/dev/fd", "/proc/self/fd"]
        .iter()
        .any(|handed| file.starts_with(handed))
    {
        return whole(fs::File::open(file)?, MOST);
    }
    let file = file.to_owned();
    bounded(move || ask(&file, || whole(fs::File::open(&file)?, MOST))).flatten()
}

/// What stands there, links followed.
///
/// # Errors
/// As [`ask`].
pub fn metadata(file: &Path) -> io::Result<Metadata> {
    ask(file, || fs::metadata(file))
}

/// What stands there itself.
///
/// # Errors
/// As [`ask`].
pub fn symlink_metadata(file: &Path) -> io::Result<Metadata> {
    ask(file, || fs::symlink_metadata(file))
}

/// Whether a regular file can be seen there, links followed.
#[must_use]
pub fn is_file(file: &Path) -> bool {
    metadata(file).is_ok_and(|m| m.is_file())
}

/// Whether a folder can be seen there, links followed.
#[must_use]
pub fn is_folder(folder: &Path) -> bool {
    metadata(folder).is_ok_and(|m| m.is_dir())
}

/// Where the path leads.
///
/// # Errors
/// As [`ask`].
pub fn canonicalize(file: &Path) -> io::Result<PathBuf> {
    ask(file, || file.canonicalize())
}

/// The path of a file with links above it resolved; what stands there itself is not followed. As it is where that cannot
/// be seen.
#[must_use]
pub fn resolve_above(file: &Path) -> PathBuf {
    let above = file.parent().and_then(|folder| canonicalize(folder).ok());
    match (above, file.file_name()) {
        (Some(above), Some(name)) => above.join(name),
        _ => file.to_owned(),
    }
}

/// A look that is under way.
pub(super) struct Call(u64);

impl Call {
    /// Enters it in the table.
    ///
    /// # Errors
    /// [`Silent`].
    pub(super) fn begin(file: &Path) -> io::Result<Self> {
        let mut table = table();
        while let Some(before) = table.before(file) {
            if before.silent {
                let place = before.place.clone().unwrap_or_else(|| file.to_owned());
                let silent = Silent(place).error();
                note(file, &silent);
                return Err(silent);
            }
            table = CHANGED.wait(table).unwrap_or_else(PoisonError::into_inner);
        }
        let (id, since) = (table.next, table.tick);
        table.next += 1;
        let call = Standing {
            file: file.to_owned(),
            thread: thread::current().id(),
            since,
            place: None,
            silent: false,
        };
        table.calls.insert(id, call);
        table.wake();
        Ok(Self(id))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let ended = table().calls.remove(&self.0);
        if let Some(Standing {
            place: Some(place),
            silent,
            ..
        }) = ended
        {
            CHANGED.notify_all();
            if silent {
                tracing::info!(place = %place.display(), "It answers again");
            }
        }
    }
}

/// Has calls that stand be noticed, from now on and as long as the process lives.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let watching = thread::Builder::new().name("silence".to_owned());
        if let Err(error) = watching.spawn(watching_ticks) {
            tracing::error!(%error, "File systems that hang will not be noticed");
        }
    });
}

/// A signal must reach a thread that knows what to do first: at a password's prompt it ends the process only after the
/// terminal shows again what is typed.
fn leave_signals_to_others() {
    let _ = SigSet::all().thread_block();
}

#[expect(
    clippy::disallowed_methods,
    reason = "a thread of its own that does nothing else"
)]
fn watching_ticks() {
    leave_signals_to_others();
    loop {
        rest();
        thread::sleep(TICK);
        judge(|table| {
            table.tick += 1;
            let now = table.tick;
            let slow = |call: &&mut Standing| now.saturating_sub(call.since) >= SLOW_AFTER;
            let slow = table.calls.values_mut().filter(slow);
            let stand =
                |call: &mut Standing| stand(call, now.saturating_sub(call.since) >= SILENT_AFTER);
            slow.filter_map(stand).collect()
        });
        super::standing::tick();
    }
}

/// Waits until anything is under way.
fn rest() {
    let mut table = table();
    table.resting = table.calls.is_empty() && table.attended == 0;
    let resting = |table: &mut Table| table.resting;
    drop(BEGUN.wait_while(table, resting));
}

/// A thread is to be watched from now on.
pub(super) fn attend() {
    watch();
    let mut table = table();
    table.attended += 1;
    table.wake();
}

/// It is not to be watched any more.
pub(super) fn leave() {
    table().attended -= 1;
}

/// Has `stand` say which places have become silent. They are told when the table is free again: nobody may wait there
/// for the log.
fn judge(stand: impl FnOnce(&mut Table) -> Vec<Fallen>) {
    let fallen = stand(&mut table());
    fallen.iter().for_each(Fallen::tell);
}

/// Counts a look at this file that is under way as one that does not come back, without waiting for its time; whether
/// there is one.
pub fn give_up(file: &Path) -> bool {
    let mut found = false;
    judge(|table| {
        let standing = table.calls.values_mut().find(|call| call.file == file);
        let fallen = standing.map(|call| stand(call, true));
        found = fallen.is_some();
        fallen.flatten().into_iter().collect()
    });
    found
}

/// Has others wait for a look at this file that is under way, as for one that is slow and is never given up for its time;
/// whether there is one.
#[cfg(test)]
pub(crate) fn slow_down(file: &Path) -> bool {
    let mut table = table();
    let standing = table.calls.values_mut().find(|call| call.file == file);
    let slowed = standing.map(|call| {
        call.since = u64::MAX;
        stand(call, false)
    });
    slowed.is_some()
}

/// A place that has just become silent.
#[must_use]
struct Fallen {
    place: PathBuf,
    file: PathBuf,
}

impl Fallen {
    fn tell(&self) {
        let (place, file) = (self.place.display(), self.file.display());
        tracing::warn!(%place, %file, "It does not answer; machines with files there are shown as they were known last, and operations on them are refused");
    }
}

fn stand(call: &mut Standing, silent: bool) -> Option<Fallen> {
    let place = call.place.get_or_insert_with(|| place_of(&call.file));
    if !silent || call.silent {
        return None;
    }
    call.silent = true;
    CHANGED.notify_all();
    let (place, file) = (place.clone(), call.file.clone());
    Some(Fallen { place, file })
}

/// Where else a look would stand too. Asks the kernel's own list of mounts only.
#[must_use]
pub fn place_of(file: &Path) -> PathBuf {
    let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
    match mount_of(&mounts, file) {
        Some((mount, kind)) if is_served(&kind) => mount,
        _ => file.parent().unwrap_or(file).to_owned(),
    }
}

fn is_served(kind: &str) -> bool {
    SERVED.contains(&kind) || kind.starts_with("fuse.") || kind.starts_with("nfs")
}

/// The last mount that hides the others at this path, and its type (`proc_pid_mountinfo(5)`).
fn mount_of(mounts: &[u8], file: &Path) -> Option<(PathBuf, String)> {
    let lines = mounts.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let point = PathBuf::from(std::ffi::OsString::from_vec(unescaped(fields.nth(4)?)));
        let mut rest = fields.skip_while(|field| *field != b"-");
        let kind = String::from_utf8_lossy(rest.nth(1)?).into_owned();
        Some((point, kind))
    });
    let over = lines.filter(|(point, _)| file.starts_with(point));
    over.max_by_key(|(point, _)| point.as_os_str().len())
}

/// `\040` is a space; so are written what would break the line.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::with_capacity(field.len()), field);
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| byte == b'\\');
        let octal = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry;

    #[test]
    fn where_one_look_stands_no_other_is_begun_until_it_comes_back() {
        let file = Path::new("/nowhere/silence/a.raw");
        let beside = Path::new("/nowhere/silence/deeper/b.raw");
        let other = Path::new("/nowhere/else/c.raw");
        assert!(!give_up(file), "nobody looks");
        let (go, gate) = mpsc::channel::<()>();
        let standing = thread::spawn(move || {
            ask(file, || {
                let _ = gate.recv();
                Ok(())
            })
        });
        while !give_up(file) {
            thread::yield_now();
        }
        let thread = standing.thread().id();
        assert_eq!(silent_at(thread).as_deref(), Some(file));
        assert_eq!(silent_at(thread::current().id()), None);
        let place = Path::new("/nowhere/silence");
        assert_eq!(silent_places().get(place).map(PathBuf::as_path), Some(file));
        for file in [file, beside] {
            assert!(is_silent(file));
            let error = ask(file, || -> io::Result<()> { panic!("begun") }).unwrap_err();
            assert!(is_silence(&error), "{error}");
            assert!(
                error
                    .to_string()
                    .contains("/nowhere/silence does not answer")
            );
        }
        assert!(!is_silent(other));
        assert!(ask(other, || Ok(())).is_ok());
        go.send(()).unwrap();
        assert!(standing.join().unwrap().is_ok());
        assert!(!is_silent(file) && ask(file, || Ok(())).is_ok());
    }

    #[test]
    fn whoever_begins_to_work_on_files_has_somebody_tick() {
        let ticks = || !table().resting;
        table().resting = true;
        assert!(ask(Path::new("/nowhere/ticks/a.raw"), || Ok(ticks())).unwrap());
        table().resting = true;
        assert!(super::super::standing::Post::default().attend(ticks));
    }

    /// Whoever logs may be kept by the log.
    #[test]
    fn what_is_told_of_a_place_is_told_when_the_table_is_free() {
        struct Looking(mpsc::Sender<bool>);
        impl io::Write for Looking {
            #[expect(clippy::disallowed_methods, reason = "a bound for a test that fails")]
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                // Others have it for a moment only.
                let begun = std::time::Instant::now();
                let mut free = false;
                while !free && begun.elapsed() < Duration::from_secs(60) {
                    thread::yield_now();
                    free = TABLE.try_lock().is_ok();
                }
                self.0.send(free).unwrap();
                Ok(bytes.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let file = Path::new("/nowhere/told/a.raw");
        let (go, gate) = mpsc::channel::<()>();
        let standing = thread::spawn(move || {
            ask(file, || {
                let _ = gate.recv();
                Ok(())
            })
        });
        let (free, was_free) = mpsc::channel();
        let _heard = telemetry::heard_by(move || Box::new(Looking(free.clone())));
        while !slow_down(file) {
            thread::yield_now(); // the time of the watch does not count for it then
        }
        assert!(give_up(file));
        assert!(was_free.recv().unwrap());
        go.send(()).unwrap();
        assert!(standing.join().unwrap().is_ok());
    }

    #[test]
    fn work_that_stands_is_begun_again_without_the_place_or_given_up() {
        let file = Path::new("/nowhere/begun/a.raw");
        let (go, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let stand = move || {
            ask(file, || {
                let _ = gate.lock().unwrap().recv();
                Ok(())
            })
        };
        let looking = thread::spawn(move || look(stand));
        while !give_up(file) {
            thread::yield_now();
        }
        let looked = looking.join().unwrap().unwrap();
        assert!(is_silence(&looked.unwrap_err()), "the second time");
        let other = Path::new("/nowhere/given up/a.raw");
        let (open, shut) = mpsc::channel::<()>();
        let once = move || {
            ask(other, || {
                let _ = shut.recv();
                Ok(())
            })
        };
        let working = thread::spawn(move || bounded(once));
        while !give_up(other) {
            thread::yield_now();
        }
        assert!(is_silence(&working.join().unwrap().unwrap_err()));
        for gate in [go, open] {
            gate.send(()).unwrap();
        }
        assert_eq!(bounded(|| 7).unwrap(), 7);
    }

    #[test]
    fn who_comes_while_a_look_is_slow_waits_and_is_told_once_it_is_given_up() {
        let file = Path::new("/nowhere/slow/a.raw");
        let (go, gate) = mpsc::channel::<()>();
        let standing = thread::spawn(move || {
            ask(file, || {
                let _ = gate.recv();
                Ok(())
            })
        });
        while !slow_down(file) {
            thread::yield_now();
        }
        let waiting = thread::spawn(move || ask(file, || Ok(())));
        assert!(give_up(file));
        assert!(is_silence(&waiting.join().unwrap().unwrap_err()));
        go.send(()).unwrap();
        assert!(standing.join().unwrap().is_ok());
    }

    #[test]
    fn a_place_is_a_mount_that_somebody_else_serves_or_the_folder() {
        let mounts = b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            30 22 0:40 / /mnt/a\\040b rw,relatime shared:7 master:1 - nfs4 host:/x rw\n\
            31 22 0:41 / /srv/one.raw rw - fuse /dev/fuse rw\n\
            32 22 0:42 / /mnt/local rw - xfs /dev/sdb rw\n";
        let of = |file: &str| {
            let (mount, kind) = mount_of(mounts, Path::new(file)).unwrap();
            (mount.to_str().unwrap().to_owned(), is_served(&kind))
        };
        assert_eq!(of("/mnt/a b/c/d.raw"), ("/mnt/a b".to_owned(), true));
        assert_eq!(of("/mnt/a/d.raw"), ("/".to_owned(), false));
        assert_eq!(of("/srv/one.raw"), ("/srv/one.raw".to_owned(), true));
        assert_eq!(of("/mnt/local/x"), ("/mnt/local".to_owned(), false));
        assert_eq!(place_of(Path::new("/proc/self/x")), Path::new("/proc/self"));
    }
}
