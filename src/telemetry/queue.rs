//! The lines that wait to be written, and the one thread that writes them.
//!
//! Whoever logs leaves a line and goes on, so a reader of standard error that stands still keeps nobody. What it does
//! not take in time is lost, with a count; lines of the audit log have more room, and what changes something waits
//! for [room](Queue::room) before it begins.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::Notify;

/// So many lines wait at most.
const LINES: usize = 4096;
/// So many octets wait at most.
const OCTETS: usize = 4 << 20;
/// Lines of the audit log find room among so many times as much.
const AUDIT_FACTOR: usize = 2;

/// The way to the thread. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Queue(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// A line came, or was written.
    changed: Condvar,
    /// There is room again.
    room: Notify,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    octets: usize,
    /// Lost, and not told yet.
    lost: u64,
    /// One was taken out and is not written yet, or it is being told what was lost.
    is_writing: bool,
}

impl Waiting {
    fn has_room(&self, factor: usize) -> bool {
        self.lines.len() < LINES * factor && self.octets < OCTETS * factor
    }
}

/// What the thread does next.
enum Next {
    Write(Vec<u8>),
    /// So many lines are lost.
    Tell(u64),
}

impl Queue {
    /// Starts the thread, which has `tell` log how many lines were lost.
    pub(super) fn start(
        &self,
        mut out: impl Write + Send + 'static,
        tell: impl Fn(u64) + Send + 'static,
    ) -> io::Result<()> {
        let queue = self.clone();
        let write = move || {
            loop {
                match queue.next() {
                    Next::Tell(lost) => {
                        tell(lost);
                        queue.written(0);
                    }
                    Next::Write(line) => {
                        // Where it cannot be written, as on a full disk, it is lost, and that is nothing to end for.
                        let _lost = out.write_all(&line).and_then(|()| out.flush());
                        queue.written(line.len());
                    }
                }
            }
        };
        let thread = thread::Builder::new().name("log".to_owned());
        thread.spawn(write).map(|_| ())
    }

    /// Leaves a line to the thread, or counts it as lost.
    pub(super) fn push(&self, line: &[u8], is_audit: bool) {
        let mut waiting = self.waiting();
        if waiting.has_room(if is_audit { AUDIT_FACTOR } else { 1 }) {
            waiting.octets += line.len();
            waiting.lines.push_back(line.to_owned());
            self.0.changed.notify_all();
        } else {
            waiting.lost += 1;
        }
    }

    /// Comes back when there is room for a line of any kind.
    pub(super) async fn room(&self) {
        loop {
            let mut freed = std::pin::pin!(self.0.room.notified());
            freed.as_mut().enable();
            if self.waiting().has_room(1) {
                return;
            }
            freed.await;
        }
    }

    /// Waits until all lines are written, not longer than `limit`; whether they are.
    pub(super) fn finish(&self, limit: Duration) -> bool {
        let is_busy = |w: &mut Waiting| w.is_writing || !w.lines.is_empty() || w.lost > 0;
        let changed = &self.0.changed;
        let waited = changed.wait_timeout_while(self.waiting(), limit, is_busy);
        let (_waiting, end) = waited.unwrap_or_else(PoisonError::into_inner);
        !end.timed_out()
    }

    fn next(&self) -> Next {
        let mut waiting = self.waiting();
        loop {
            // Not before half of it is written, or it would be the next to be lost.
            if waiting.lost > 0 && waiting.lines.len() <= LINES / 2 && waiting.octets <= OCTETS / 2
            {
                waiting.is_writing = true;
                return Next::Tell(std::mem::take(&mut waiting.lost));
            }
            if let Some(line) = waiting.lines.pop_front() {
                waiting.is_writing = true;
                return Next::Write(line);
            }
            let waited = self.0.changed.wait(waiting);
            waiting = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What was taken out is written; until then its octets count.
    fn written(&self, octets: usize) {
        let mut waiting = self.waiting();
        waiting.is_writing = false;
        waiting.octets -= octets;
        drop(waiting);
        self.0.changed.notify_all();
        self.0.room.notify_waiters();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_util::FutureExt;

    use super::*;

    /// Writes nothing before it is let go.
    struct Pipe {
        begun: mpsc::Sender<()>,
        go: mpsc::Receiver<()>,
        is_open: bool,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.begun.send(());
            if !self.is_open {
                self.is_open = true;
                self.go.recv().unwrap();
            }
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stands_still_keeps_nobody_and_hears_what_it_has_missed() {
        let queue = Queue::default();
        let (begun, first) = mpsc::channel();
        let (open, go) = mpsc::channel();
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let pipe = Pipe {
            begun,
            go,
            is_open: false,
            written: written.clone(),
        };
        let told = queue.clone();
        let tell = move |lost: u64| told.push(format!("lost {lost}\n").as_bytes(), false);
        queue.start(pipe, tell).unwrap();
        queue.push(b"first\n", false);
        first.recv().unwrap();

        // One stands in the pipe.
        for n in 0..LINES + 7 {
            queue.push(format!("{n}\n").as_bytes(), false);
        }
        assert_eq!(queue.waiting().lost, 7);
        assert!(queue.room().now_or_never().is_none(), "nothing may begin");
        queue.push(b"audit\n", true);
        assert_eq!(queue.waiting().lost, 7, "of the audit log none is lost");
        for _ in 0..2 * LINES {
            queue.push(b"logon\n", true);
        }
        assert_eq!(queue.waiting().lines.len(), 2 * LINES, "but it has an end");
        let lost = queue.waiting().lost;
        assert!(!queue.finish(Duration::ZERO));

        open.send(()).unwrap();
        assert!(queue.finish(Duration::from_secs(600)));
        assert!(queue.room().now_or_never().is_some());
        let written = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        let expected: String = (0..LINES).map(|n| format!("{n}\n")).collect();
        let start = format!("first\n{expected}audit\nlogon\n");
        assert!(written.starts_with(&start));
        assert!(written.ends_with(&format!("logon\nlost {lost}\n")));
        assert_eq!(written.lines().count(), 1 + 2 * LINES + 1);
    }

    #[test]
    fn long_lines_are_counted_by_their_octets() {
        let queue = Queue::default();
        let line = vec![b'x'; OCTETS / 4];
        for _ in 0..6 {
            queue.push(&line, false);
        }
        let waiting = queue.waiting();
        assert_eq!((waiting.lines.len(), waiting.lost), (4, 2));
    }
}
