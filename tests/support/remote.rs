//! A file system of another process with one image, which leaves calls of one kind unanswered when it is told to.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Calls of the kernel's protocol (`enum fuse_opcode`) that can be left unanswered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// A name is looked up.
    Lookup = 1,
    /// An open file is read.
    Read = 15,
    /// Whatever it is.
    Any = 0,
}

const LENGTH: usize = 1 << 20;
const IMAGE: &[u8] = b"disk.raw\0";
const ROOT: u64 = 1;
const FILE: u64 = 2;
const NOT_FOUND: i32 = -2;
const NO_CALL: i32 = -38;

/// The file system, mounted until dropped.
pub(crate) struct Remote {
    /// Where.
    pub(crate) at: PathBuf,
    /// Its image, 1 MiB.
    pub(crate) image: PathBuf,
    kernel: Arc<Kernel>,
}

/// Calls are not answered.
pub(crate) struct Hung<'a>(&'a Remote);

impl Drop for Hung<'_> {
    fn drop(&mut self) {
        self.0.go_on();
    }
}

/// The kernel's side of it.
struct Kernel {
    line: File,
    state: Mutex<State>,
}

struct State {
    content: Vec<u8>,
    mode: u32,
    left: Option<Call>,
    stopped: bool,
    unanswered: BTreeMap<u64, Vec<u8>>,
}

impl Remote {
    /// Mounted at a new folder of that name in `folder`.
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let at = folder.join(name);
        std::fs::create_dir(&at).unwrap();
        let line = OpenOptions::new().read(true).write(true).open("/dev/fuse");
        let line = line.unwrap();
        rustix::io::fcntl_setfd(&line, rustix::io::FdFlags::empty()).unwrap();
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0",
            line.as_raw_fd()
        );
        let mounted = Command::new("mount")
            .args(["-i", "-t", "fuse", "-o", &options, "remote"])
            .arg(&at)
            .status()
            .unwrap();
        assert!(mounted.success());
        rustix::io::fcntl_setfd(&line, rustix::io::FdFlags::CLOEXEC).unwrap();
        let state = State {
            content: vec![7; LENGTH],
            mode: 0o644,
            left: None,
            stopped: false,
            unanswered: BTreeMap::new(),
        };
        let state = Mutex::new(state);
        let kernel = Arc::new(Kernel { line, state });
        let serving = Arc::clone(&kernel);
        std::thread::spawn(move || serving.serve());
        let image = at.join("disk.raw");
        Self { at, image, kernel }
    }

    /// Calls of this kind are answered no more, until what this gives is dropped: a process that stands at one cannot be
    /// killed.
    pub(crate) fn hang(&self, call: Call) -> Hung<'_> {
        self.kernel.state.lock().unwrap().left = Some(call);
        Hung(self)
    }

    /// Waits until such a call has come.
    pub(crate) fn hangs(&self) {
        let begun = Instant::now();
        while self.kernel.state.lock().unwrap().unanswered.is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(120), "nobody calls");
            std::thread::yield_now();
        }
    }

    /// No call is even read any more, until [`Remote::go_on`], as by a process that was stopped: whoever stands at one
    /// can be killed.
    pub(crate) fn stop(&self) {
        self.kernel.state.lock().unwrap().stopped = true;
    }

    /// All calls are answered again.
    pub(crate) fn go_on(&self) {
        let mut state = self.kernel.state.lock().unwrap();
        (state.left, state.stopped) = (None, false);
        for request in std::mem::take(&mut state.unanswered).into_values() {
            self.kernel.answer(&mut state, &request);
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.go_on();
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

impl Kernel {
    /// Waits for a call that may be read.
    fn waits(&self) -> bool {
        let mut calls = [PollFd::new(self.line.as_fd(), PollFlags::POLLIN)];
        if poll(&mut calls, PollTimeout::NONE).is_err() {
            return false;
        }
        while self.state.lock().unwrap().stopped {
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    fn serve(&self) {
        let mut request = vec![0; LENGTH + (64 << 10)];
        // Ends with the mount.
        while self.waits()
            && let Ok(length) = (&self.line).read(&mut request)
        {
            let request = &request[..length];
            let mut state = self.state.lock().unwrap();
            let is_left = |call| call == Call::Any || call as u32 == u32_at(request, 4);
            if state.left.is_some_and(is_left) {
                let unique = u64_at(request, 8);
                state.unanswered.insert(unique, request.to_owned());
            } else {
                self.answer(&mut state, request);
            }
        }
    }

    fn answer(&self, state: &mut State, request: &[u8]) {
        let Some(answer) = state.answer(request) else {
            return;
        };
        let (error, body) = match answer {
            Ok(body) => (0, body),
            Err(error) => (error, Vec::new()),
        };
        let length = u32::try_from(16 + body.len()).unwrap();
        let mut reply = Vec::from(length.to_ne_bytes());
        reply.extend(error.to_ne_bytes());
        reply.extend(&request[8..16]);
        reply.extend(body);
        // Whoever asked may be gone.
        let _ = (&self.line).write(&reply);
    }
}

impl State {
    /// What is answered, if anything is (`struct fuse_…` in `linux/fuse.h`, version 7.31).
    fn answer(&mut self, request: &[u8]) -> Option<Result<Vec<u8>, i32>> {
        let (node, body) = (u64_at(request, 16), &request[40..]);
        Some(Ok(match u32_at(request, 4) {
            1 if node == ROOT && body == IMAGE => {
                let mut entry = longs(&[FILE, 0, 0, 0, 0]);
                entry.extend(self.attributes(FILE));
                entry
            }
            1 => return Some(Err(NOT_FOUND)),
            2 | 36 | 42 => return None, // forget, interrupt
            call @ (3 | 4) => {
                if call == 4 {
                    self.change(body);
                }
                let mut attributes = longs(&[0, 0]);
                attributes.extend(self.attributes(node));
                attributes
            }
            14 => longs(&[0, 1]), // not from the cache
            27 => longs(&[0, 0]),
            15 => {
                let from = usize::try_from(u64_at(body, 8)).unwrap().min(LENGTH);
                let until = from + usize::try_from(u32_at(body, 16)).unwrap();
                self.content[from..until.min(self.content.len())].to_vec()
            }
            16 => {
                let from = usize::try_from(u64_at(body, 8)).unwrap();
                let bytes = &body[40..];
                self.content[from..from + bytes.len()].copy_from_slice(bytes);
                longs(&[u64::try_from(bytes.len()).unwrap()])
            }
            17 => {
                let mut room = longs(&[1 << 30, 1 << 29, 1 << 29, 1 << 20, 1 << 19]);
                room.extend(words(&[4096, 255, 4096, 0, 0, 0, 0, 0, 0, 0]));
                room
            }
            18 | 20 | 25 | 29 | 30 => Vec::new(),
            26 => words(&[7, 31, 0, 0, 0, 128 << 10, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            28 => Vec::new(),
            _ => return Some(Err(NO_CALL)),
        }))
    }

    /// Mode and length.
    fn change(&mut self, body: &[u8]) {
        if u32_at(body, 0) & 1 != 0 {
            self.mode = u32_at(body, 68) & 0o7777;
        }
        if u32_at(body, 0) & 8 != 0 {
            let length = usize::try_from(u64_at(body, 16)).unwrap();
            self.content.resize(length, 0);
        }
    }

    fn attributes(&self, node: u64) -> Vec<u8> {
        let (size, mode) = match node {
            ROOT => (0, 0o40_755),
            _ => (self.content.len(), 0o100_000 | self.mode),
        };
        let size = u64::try_from(size).unwrap();
        let mut all = longs(&[node, size, size / 512, 1, 1, 1]);
        all.extend(words(&[0, 0, 0, mode, 1, 0, 0, 0, 4096, 0]));
        all
    }
}

fn longs(all: &[u64]) -> Vec<u8> {
    all.iter().flat_map(|n| n.to_ne_bytes()).collect()
}

fn words(all: &[u32]) -> Vec<u8> {
    all.iter().flat_map(|n| n.to_ne_bytes()).collect()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}
