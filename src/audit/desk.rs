//! The thread that writes into an audit file, and the lines that wait for it.
//!
//! Only this thread touches the file: other threads leave a line or a request for it and go on.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::mem;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::held;
use crate::telemetry::{self, AUDIT, KEPT, Room};

/// So many lines wait to be written at most.
pub(crate) const QUEUE: usize = 4096;

/// The way to the thread.
pub(super) struct Desk {
    pub(super) path: PathBuf,
    places: Arc<Semaphore>,
    queue: Mutex<Queue>,
    /// There is something new in the queue.
    changed: Condvar,
    /// The lines that are neither written nor told, those that wait for a place too.
    lines: TaskTracker,
}

#[derive(Default)]
struct Queue {
    /// The first one is being written. Each has its place.
    lines: VecDeque<Sheet>,
    /// The file is to be opened again.
    stale: bool,
    /// No line is waited for any more.
    closed: bool,
    /// Nothing is left to the thread any more.
    given_up: bool,
}

/// A place in the queue, and room in the log: that is where the line goes which the file does not take.
pub(super) struct Seat {
    _turn: OwnedSemaphorePermit,
    room: Room,
}

/// A line on its way.
pub(super) struct Sheet {
    desk: Arc<Desk>,
    /// Empty once it is written, or told.
    line: String,
    place: Option<Seat>,
    /// Dropped with it.
    _written: oneshot::Sender<()>,
    _counted: TaskTrackerToken,
}

/// The end of the writing of a line. Who does not wait for it takes nothing from the line.
#[must_use]
#[derive(Default)]
pub struct Written(Option<oneshot::Receiver<()>>);

impl Desk {
    /// Starts the thread on an open file.
    pub(super) fn start(path: &Path, file: File) -> io::Result<Arc<Self>> {
        let desk = Arc::new(Self {
            path: path.to_owned(),
            places: Arc::new(Semaphore::new(QUEUE)),
            queue: Mutex::default(),
            changed: Condvar::new(),
            lines: TaskTracker::new(),
        });
        let thread = thread::Builder::new().name("audit".to_owned());
        thread.spawn({
            let desk = Arc::clone(&desk);
            move || desk.write_all(file)
        })?;
        Ok(desk)
    }

    /// A line to be [sent](Sheet::send).
    pub(super) fn sheet(self: &Arc<Self>, line: String) -> (Sheet, Written) {
        let (written, end) = oneshot::channel();
        let sheet = Sheet {
            desk: Arc::clone(self),
            line: line + "\n",
            place: None,
            _written: written,
            _counted: self.lines.token(),
        };
        (sheet, Written(Some(end)))
    }

    /// A place for a line; `None` if no line is written any more.
    pub(super) async fn place(&self) -> Option<Seat> {
        let turn = Arc::clone(&self.places).acquire_owned().await.ok()?;
        let room = telemetry::room().await;
        Some(Seat { _turn: turn, room })
    }

    /// Whether all places are taken.
    pub(super) fn is_full(&self) -> bool {
        self.places.available_permits() == 0
    }

    /// Has the file opened again.
    pub(super) fn reopen(&self) {
        self.queue().stale = true;
        self.changed.notify_one();
    }

    /// Has the thread end when all lines are written.
    pub(super) fn close(&self) {
        self.queue().closed = true;
        self.changed.notify_one();
    }

    /// Waits until all lines are written, not longer than `limit`; those that are not by then are told in the log.
    pub(super) async fn finish(&self, limit: Duration) {
        self.lines.close();
        if timeout(limit / 2, self.lines.wait()).await.is_ok() {
            return;
        }
        tracing::error!(
            file = %self.path.display(),
            "The last lines of the audit log are not written: its file does not answer. They follow here"
        );
        let left = {
            let mut queue = self.queue();
            queue.given_up = true;
            mem::take(&mut queue.lines)
        };
        drop(left);
        // Those that wait for a place are told by whoever waits with them.
        self.places.close();
        let _all_told = timeout(limit / 2, self.lines.wait()).await;
    }

    /// What the thread does.
    fn write_all(&self, file: File) {
        let mut file = Some(file);
        let mut queue = self.queue();
        loop {
            if mem::take(&mut queue.stale) {
                drop(queue);
                match open(&self.path) {
                    Ok(fresh) => file = Some(fresh),
                    Err(error) => {
                        tracing::error!(%error, "The audit file stays the one that it was");
                    }
                }
                queue = self.queue();
            } else if let Some(first) = queue.lines.front() {
                let line = first.line.clone();
                drop(queue);
                let done = write(&mut file, &self.path, line.as_bytes());
                // It is gone if it was told meanwhile.
                let sheet = self.queue().lines.pop_front();
                if let Some(mut sheet) = sheet {
                    match done {
                        Ok(()) => sheet.line.clear(),
                        Err(error) => sheet.tell(&error),
                    }
                }
                queue = self.queue();
            } else if queue.closed {
                return;
            } else {
                let waited = self.changed.wait(queue);
                queue = waited.unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sheet {
    /// Leaves it to the thread. Without a place it goes to the log.
    pub(super) fn send(mut self, place: Option<Seat>) {
        let desk = Arc::clone(&self.desk);
        self.place = place;
        let mut queue = desk.queue();
        if self.place.is_some() && !queue.given_up {
            queue.lines.push_back(self);
            desk.changed.notify_one();
        }
    }

    /// [`Sheet::send`] once there is a place. Of whom it is dropped meanwhile the line goes to the log.
    pub(super) async fn send_in_turn(self) {
        let place = self.desk.place().await;
        self.send(place);
    }

    fn tell(&mut self, error: &dyn std::fmt::Display) {
        let (file, line) = (self.desk.path.display(), mem::take(&mut self.line));
        let line = line.trim_end();
        match self.place.take() {
            Some(Seat { room: _held, .. }) => {
                tracing::error!(name: KEPT, target: AUDIT, %file, %error, line, "the audit line could not be written");
            }
            None => {
                tracing::error!(target: AUDIT, %file, %error, line, "the audit line could not be written");
            }
        }
    }
}

impl Drop for Sheet {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.tell(&"there was no place for it, or no end of its writing");
        }
    }
}

impl Future for Written {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Some(end) => Pin::new(end).poll(task).map(|_| ()),
            None => Poll::Ready(()),
        }
    }
}

/// Opens the file again if it could not be written last time.
fn write(slot: &mut Option<File>, path: &Path, line: &[u8]) -> io::Result<()> {
    let file = match slot {
        Some(file) => file,
        None => slot.insert(open(path)?),
    };
    let done = match file.write(line) {
        Ok(written) if written == line.len() => Ok(()),
        // The half that is there must not run into the next line.
        Ok(_) => file
            .write_all(b"\n")
            .and(Err(io::ErrorKind::WriteZero.into())),
        Err(error) => Err(error),
    };
    if done.is_err() {
        *slot = None;
    }
    done
}

pub(super) fn open(path: &Path) -> io::Result<File> {
    held::append(path, 0o640)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_that_could_not_be_written_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let mut file = Some(File::options().write(true).open("/dev/full").unwrap());
        assert!(write(&mut file, &path, b"1\n").is_err());
        write(&mut file, &path, b"2\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"2\n");
    }
}
