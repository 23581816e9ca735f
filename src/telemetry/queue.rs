//! The lines that wait to be written, and the one thread that writes them.
//!
//! Whoever logs leaves a line and goes on, so a reader of standard error that stands still keeps nobody. What it does
//! not take in time is lost, with a count. Lines of the audit log have more room, and what changes something takes a
//! [`Room`] before it begins: a line that has one is never lost. Rooms are apart from those of other lines, so nothing
//! waits because ordinary lines are not read.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::Notify;

/// So many lines wait at most; so many rooms there are beside them.
const LINES: usize = 4096;
/// So many octets wait at most. While so many wait of lines that had a room, no other is given.
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
    /// There may be a room again.
    freed: Notify,
}

/// How a line stands to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rank {
    Ordinary,
    /// Of the audit log.
    Audit,
    /// Of the audit log, by who holds a [`Room`]: it is never lost.
    Kept,
}

/// Room for one line of [`Rank::Kept`].
pub(super) struct Room(Queue);

struct Line {
    text: Vec<u8>,
    rank: Rank,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Line>,
    octets: usize,
    /// The rooms that are held, and those of lines that wait.
    rooms: usize,
    /// Of the lines that had a room.
    kept_octets: usize,
    /// Lost, and not told yet.
    lost: u64,
    /// One was taken out and is not written yet, or it is being told what was lost.
    is_writing: bool,
}

impl Waiting {
    fn takes(&self, rank: Rank) -> bool {
        let factor = match rank {
            Rank::Ordinary => 1,
            Rank::Audit => AUDIT_FACTOR,
            Rank::Kept => return true,
        };
        self.lines.len() < LINES * factor && self.octets < OCTETS * factor
    }

    fn has_room(&self) -> bool {
        self.rooms < LINES && self.kept_octets < OCTETS
    }
}

/// What the thread does next.
enum Next {
    Write(Line),
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
                        queue.written(None);
                    }
                    Next::Write(line) => {
                        // Where it cannot be written, as on a full disk, it is lost, and that is nothing to end for.
                        let _lost = out.write_all(&line.text).and_then(|()| out.flush());
                        queue.written(Some(&line));
                    }
                }
            }
        };
        let thread = thread::Builder::new().name("log".to_owned());
        thread.spawn(write).map(|_| ())
    }

    /// Leaves a line to the thread, or counts it as lost.
    pub(super) fn push(&self, text: &[u8], rank: Rank) {
        let mut waiting = self.waiting();
        if !waiting.takes(rank) {
            waiting.lost += 1;
            return;
        }
        waiting.octets += text.len();
        if rank == Rank::Kept {
            waiting.rooms += 1;
            waiting.kept_octets += text.len();
        }
        let text = text.to_owned();
        waiting.lines.push_back(Line { text, rank });
        self.0.changed.notify_all();
    }

    /// Comes back with room for one line once there is some.
    pub(super) async fn room(&self) -> Room {
        loop {
            let mut freed = std::pin::pin!(self.0.freed.notified());
            freed.as_mut().enable();
            {
                let mut waiting = self.waiting();
                if waiting.has_room() {
                    waiting.rooms += 1;
                    return Room(self.clone());
                }
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

    /// What was taken out is written; until then it counts.
    fn written(&self, line: Option<&Line>) {
        let mut waiting = self.waiting();
        waiting.is_writing = false;
        if let Some(line) = line {
            waiting.octets -= line.text.len();
            if line.rank == Rank::Kept {
                waiting.rooms -= 1;
                waiting.kept_octets -= line.text.len();
            }
        }
        drop(waiting);
        self.0.changed.notify_all();
        self.0.freed.notify_waiters();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.0.waiting().rooms -= 1;
        self.0.0.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver, Sender};

    use futures_util::FutureExt;

    use super::*;

    type Written = Arc<Mutex<Vec<u8>>>;

    /// Writes nothing before it is let go.
    struct Pipe {
        begun: Sender<()>,
        go: Receiver<()>,
        is_open: bool,
        written: Written,
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

    /// A pipe that is shut; where it tells that it is written to, what opens it, and what was written.
    fn pipe() -> (Pipe, Receiver<()>, Sender<()>, Written) {
        let (begun, first) = mpsc::channel();
        let (open, go) = mpsc::channel();
        let written = Written::default();
        let pipe = Pipe {
            begun,
            go,
            is_open: false,
            written: written.clone(),
        };
        (pipe, first, open, written)
    }

    #[test]
    fn a_reader_that_stands_still_keeps_nobody_and_hears_what_it_has_missed() {
        let queue = Queue::default();
        let (pipe, first, open, written) = pipe();
        let told = queue.clone();
        let tell = move |lost: u64| told.push(format!("lost {lost}\n").as_bytes(), Rank::Ordinary);
        queue.start(pipe, tell).unwrap();
        queue.push(b"first\n", Rank::Ordinary);
        first.recv().unwrap();

        // One stands in the pipe.
        for n in 0..LINES + 7 {
            queue.push(format!("{n}\n").as_bytes(), Rank::Ordinary);
        }
        assert_eq!(queue.waiting().lost, 7);
        queue.push(b"audit\n", Rank::Audit);
        assert_eq!(queue.waiting().lost, 7, "of the audit log none is lost");
        for _ in 0..2 * LINES {
            queue.push(b"logon\n", Rank::Audit);
        }
        assert_eq!(queue.waiting().lines.len(), 2 * LINES, "but it has an end");
        let lost = queue.waiting().lost;
        assert!(!queue.finish(Duration::ZERO));

        open.send(()).unwrap();
        assert!(queue.finish(Duration::from_secs(600)));
        let written = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        let expected: String = (0..LINES).map(|n| format!("{n}\n")).collect();
        let start = format!("first\n{expected}audit\nlogon\n");
        assert!(written.starts_with(&start));
        assert!(written.ends_with(&format!("logon\nlost {lost}\n")));
        assert_eq!(written.lines().count(), 1 + 2 * LINES + 1);
    }

    #[test]
    fn a_line_that_has_its_room_is_never_lost_and_no_more_begins_than_there_are_rooms() {
        let queue = Queue::default();
        let take = || queue.room().now_or_never();
        // What nobody reads keeps nothing from beginning.
        for _ in 0..3 * LINES {
            queue.push(b"logon\n", Rank::Audit);
        }
        let rooms: Vec<_> = (0..LINES).map(|_| take().unwrap()).collect();
        assert!(take().is_none(), "nothing more may begin");
        let lost = queue.waiting().lost;
        for room in rooms {
            queue.push(b"call\n", Rank::Kept);
            drop(room);
        }
        assert_eq!(queue.waiting().lost, lost);
        assert!(take().is_none(), "the lines have them now");

        let (pipe, _first, open, written) = pipe();
        open.send(()).unwrap();
        queue.start(pipe, |_| {}).unwrap();
        assert!(queue.finish(Duration::from_secs(600)));
        assert!(take().is_some());
        assert_eq!(queue.waiting().rooms, 0);
        let written = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        let calls = written.lines().filter(|line| *line == "call");
        assert_eq!(calls.count(), LINES);
    }

    #[test]
    fn long_lines_are_counted_by_their_octets() {
        let queue = Queue::default();
        let line = vec![b'x'; OCTETS / 4];
        for _ in 0..6 {
            queue.push(&line, Rank::Ordinary);
        }
        let waiting = queue.waiting();
        assert_eq!((waiting.lines.len(), waiting.lost), (4, 2));
        drop(waiting);
        let room = queue.room().now_or_never().unwrap();
        queue.push(&vec![b'x'; OCTETS], Rank::Kept);
        drop(room);
        assert!(queue.room().now_or_never().is_none());
    }
}
