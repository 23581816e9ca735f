//! Threads whose work stands at a file that does not answer.
//!
//! Work on files is many system calls of all kinds, and any of them may not come back: a look, a read, a write, an fsync,
//! a rename, a close. So it is not the calls that are watched but the thread that makes them: one that has hardly run for
//! the time after which a place [is silent](super::silence), and waits for nothing but a file, stands. What it waits for
//! is what it looks at, or else the descriptors of its system call (`proc_pid_syscall(5)`). An fsync that takes long and
//! goes on wakes its thread again and again; it does not stand.
//!
//! Nothing is refused for that: a file system that is frozen is read all the same, and whether a place answers to others
//! they find out by themselves.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use nix::libc;
use rustix::thread::gettid;

use super::silence::{self, SILENT_AFTER};

/// So many times may a thread that stands wake within a tick, as to look whether a server is back.
const WAKES: u64 = 2;

/// The threads that are watched, by their number in `/proc`.
static WATCHED: Mutex<BTreeMap<i32, Post>> = Mutex::new(BTreeMap::new());

/// Where a thread stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// At one of these files; none is known of one that is being closed.
    pub files: Vec<PathBuf>,
}

/// Whether a thread at work stands, for whoever waits for it.
#[derive(Debug, Clone, Default)]
pub struct Post(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    thread: Option<ThreadId>,
    /// How often it was put to sleep.
    sleeps: u64,
    /// For so many ticks it has hardly run.
    ticks: u64,
    standing: Option<Standing>,
}

impl Post {
    /// Does the work on this thread, and has it watched meanwhile.
    pub fn attend<T>(&self, work: impl FnOnce() -> T) -> T {
        silence::attend();
        let number = gettid().as_raw_nonzero().get();
        self.state().thread = Some(thread::current().id());
        watched().insert(number, self.clone());
        let _watched = Watched(number);
        work()
    }

    /// Where it stands, if it does.
    #[must_use]
    pub fn standing(&self) -> Option<Standing> {
        self.state().standing.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up what its thread does at this tick.
    fn tick(&self, number: i32) {
        let task = PathBuf::from(format!("/proc/self/task/{number}"));
        let Some((sleeps, sleeping)) = sleeps(&task) else {
            return;
        };
        let mut state = self.state();
        if state.thread.is_none() {
            return; // its work has ended since, and the thread has other work perhaps
        }
        let rests = sleeping && sleeps.saturating_sub(state.sleeps) <= WAKES;
        state.sleeps = sleeps;
        state.ticks = if rests { state.ticks + 1 } else { 0 };
        state.standing = match state.ticks > SILENT_AFTER {
            true => standing(&task, state.thread),
            false => None,
        };
    }
}

struct Watched(i32);

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(post) = watched().remove(&self.0) {
            *post.state() = State::default();
        }
        silence::leave();
    }
}

fn watched() -> MutexGuard<'static, BTreeMap<i32, Post>> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks at all that are watched.
pub(super) fn tick() {
    for (number, post) in watched().clone() {
        post.tick(number);
    }
}

/// How often a thread was put to sleep, and whether it sleeps now (`proc_pid_status(5)`).
fn sleeps(task: &Path) -> Option<(u64, bool)> {
    let status = fs::read_to_string(task.join("status")).ok()?;
    let field = |name| status.lines().find_map(|line| line.strip_prefix(name));
    let sleeping = matches!(field("State:\t")?.chars().next()?, 'S' | 'D');
    let times = field("voluntary_ctxt_switches:\t")?.parse().ok()?;
    Some((times, sleeping))
}

/// What a thread that sleeps waits for, if that is a file.
fn standing(task: &Path, thread: Option<ThreadId>) -> Option<Standing> {
    if let Some(file) = thread.and_then(silence::under_way) {
        return Some(Standing { files: vec![file] });
    }
    let call = fs::read_to_string(task.join("syscall")).ok()?;
    let mut fields = call.split_whitespace();
    let number: libc::c_long = fields.next()?.parse().ok()?;
    let descriptors: &[usize] = match number {
        // Not in a system call; or it waits for another thread, or for time to pass.
        ..0 | libc::SYS_futex | libc::SYS_nanosleep | libc::SYS_clock_nanosleep => return None,
        // Its number may be that of another file already.
        libc::SYS_close => &[],
        libc::SYS_copy_file_range => &[0, 2],
        _ => &[0],
    };
    let arguments: Vec<_> = fields.collect();
    let file = |n: &usize| {
        let number = arguments.get(*n)?.strip_prefix("0x")?;
        let number = u32::from_str_radix(number, 16).ok()?;
        fs::read_link(format!("/proc/self/fd/{number}")).ok()
    };
    let files = descriptors.iter().filter_map(file).collect();
    Some(Standing { files })
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::mpsc;

    use super::*;

    /// The watch has taken a list of the threads before the work ended, and looks after that.
    #[test]
    fn what_a_thread_does_after_its_work_is_no_stand_of_that() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let post = Post::default();
        let at = post.clone();
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            tell.send(at.attend(|| gettid().as_raw_nonzero().get()))
                .unwrap();
            reader.read(&mut [0]).unwrap()
        });
        let number = told.recv().unwrap();
        let task = PathBuf::from(format!("/proc/self/task/{number}"));
        while standing(&task, None).is_none() {
            thread::yield_now();
        }
        for _ in 0..=SILENT_AFTER + 1 {
            post.tick(number);
        }
        assert_eq!(post.standing(), None);
        drop(writer);
        assert_eq!(thread.join().unwrap(), 0);
    }

    #[test]
    fn a_thread_that_waits_for_a_file_stands_and_one_that_waits_for_another_does_not() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let (go, gate) = mpsc::channel::<()>();
        let (reading, waiting) = (Post::default(), Post::default());
        let [at, beside] = [&reading, &waiting].map(Post::clone);
        let reader = thread::spawn(move || at.attend(|| reader.read(&mut [0]).unwrap()));
        let other = thread::spawn(move || beside.attend(|| gate.recv().is_ok()));
        while reading.standing().is_none() {
            tick();
            thread::yield_now();
        }
        let files = reading.standing().unwrap().files;
        assert!(files[0].to_string_lossy().starts_with("pipe:"), "{files:?}");
        for _ in 0..=SILENT_AFTER + 1 {
            tick();
        }
        assert_eq!(waiting.standing(), None);
        drop(writer);
        assert_eq!(reader.join().unwrap(), 0);
        assert_eq!(reading.standing(), None, "it has come back");
        go.send(()).unwrap();
        assert!(other.join().unwrap());
    }
}
