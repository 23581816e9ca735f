//! How many parts of operations may stand on threads of their own while they wait for others: for the turn of the library
//! of machines, or until an export has read a file.
//!
//! There are some hundred threads that may wait for a disk, for all of the server. Operations queue for the library
//! without bound, so those that come later wait here, as tasks, in the order in which they came. One whose
//! client has paused it writes nothing big any more: it need not stand behind those that do. Nor need one that merges
//! nothing at all, while the machine that it works for waits for its images.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many that may merge wait, or work, on threads.
const INSIDE: usize = 128;
/// How many that merge nothing.
const SHORT: usize = 64;
/// How many more of those that were paused.
const PAUSED: usize = 32;
/// How often it is looked whether somebody has paused it.
const GLANCE: Duration = Duration::from_millis(500);

/// Behind whom a part waits for its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queue {
    /// Those that may merge, for as long as that takes.
    Long,
    /// Those that remove files and merge nothing.
    Short,
}

/// The places of all.
#[derive(Debug)]
pub(crate) struct Crowds {
    long: Crowd,
    short: Crowd,
}

impl Default for Crowds {
    fn default() -> Self {
        Self {
            long: Crowd::of(INSIDE, PAUSED),
            short: Crowd::of(SHORT, 0),
        }
    }
}

impl Crowds {
    /// [`Crowd::enter`] by this queue.
    pub(crate) async fn enter(
        &self,
        queue: Queue,
        is_paused: impl Fn() -> bool,
    ) -> Option<OwnedSemaphorePermit> {
        let crowd = match queue {
            Queue::Long => &self.long,
            Queue::Short => &self.short,
        };
        crowd.enter(is_paused).await
    }
}

/// The places of one queue.
#[derive(Debug)]
struct Crowd {
    all: Arc<Semaphore>,
    paused: Arc<Semaphore>,
}

impl Crowd {
    fn of(all: usize, paused: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            paused: Arc::new(Semaphore::new(paused)),
        }
    }

    /// A place, until dropped. `None` only if there are no places any more, which is never.
    async fn enter(&self, is_paused: impl Fn() -> bool) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.all).acquire_owned();
        tokio::pin!(place);
        loop {
            // It keeps its turn in the queue meanwhile.
            match tokio::time::timeout(GLANCE, &mut place).await {
                Ok(place) => return place.ok(),
                Err(_) if is_paused() => break,
                Err(_) => {}
            }
        }
        let other = Arc::clone(&self.paused).acquire_owned();
        tokio::select! {
            place = &mut place => place.ok(),
            place = other => place.ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::{Mutex, mpsc};

    use tokio::runtime::Builder;
    use tokio::task::JoinSet;

    use super::*;
    use crate::snapshot::apply::Apply;
    use crate::snapshot::destroy::Destroy;
    use crate::snapshot::saga::kind::Kind as _;

    /// Far more than there are threads wait for one thing, as deletes do for the library; whoever waits for none of it
    /// finds a thread, and each comes in its turn.
    #[test]
    fn any_number_of_parts_that_wait_leave_threads_to_others() {
        let threads = 8;
        let runtime = Builder::new_current_thread()
            .enable_time()
            .max_blocking_threads(threads)
            .build()
            .unwrap();
        runtime.block_on(async {
            let crowd = Arc::new(Crowd::of(threads / 2, 1));
            let (library, turn) = (
                Arc::new(Mutex::new(Vec::new())),
                Arc::new(AtomicUsize::new(0)),
            );
            let (open, opened) = mpsc::channel::<()>();
            let opened = Arc::new(Mutex::new(opened));
            let mut parts = JoinSet::new();
            for n in 0..100 {
                let (crowd, library) = (Arc::clone(&crowd), Arc::clone(&library));
                let (turn, opened) = (Arc::clone(&turn), Arc::clone(&opened));
                parts.spawn(async move {
                    let _place = crowd.enter(|| false).await;
                    let number = turn.fetch_add(1, Ordering::SeqCst);
                    assert_eq!(number, n, "in the order in which they came");
                    let waits = tokio::task::spawn_blocking(move || {
                        let _ends_when_it_is_closed = opened.lock().unwrap().recv();
                        library.lock().unwrap().push(n);
                    });
                    waits.await.unwrap();
                });
                tokio::task::yield_now().await;
            }
            let other = tokio::task::spawn_blocking(|| 7);
            let other = tokio::time::timeout(Duration::from_secs(60), other).await;
            assert!(other.is_ok_and(|done| done.is_ok()), "no thread was left");
            assert_eq!(turn.load(Ordering::SeqCst), threads / 2);
            drop(open);
            while let Some(done) = parts.join_next().await {
                done.unwrap();
            }
            let mut library = library.lock().unwrap();
            library.sort_unstable();
            assert_eq!(*library, (0..100).collect::<Vec<_>>());
        });
    }

    #[tokio::test(start_paused = true)]
    async fn an_apply_that_removes_what_was_active_stands_behind_no_merge() {
        let (crowds, mut merging) = (Crowds::default(), Vec::new());
        for (_, queue) in Destroy::WAITS {
            for _ in 0..INSIDE {
                merging.push(crowds.enter(*queue, || false).await);
            }
            let behind = crowds.enter(*queue, || false);
            assert!(tokio::time::timeout(4 * GLANCE, behind).await.is_err());
        }
        for (step, queue) in Apply::WAITS {
            let place = tokio::time::timeout(GLANCE, crowds.enter(*queue, || false));
            assert!(place.await.is_ok_and(|it| it.is_some()), "{step}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_is_paused_does_not_stand_behind_those_that_work() {
        let crowd = Crowd::of(1, 1);
        let works = crowd.enter(|| false).await;
        let paused = AtomicBool::new(false);
        let waits = crowd.enter(|| paused.load(Ordering::SeqCst));
        tokio::pin!(waits);
        assert!(tokio::time::timeout(4 * GLANCE, &mut waits).await.is_err());
        paused.store(true, Ordering::SeqCst);
        let place = tokio::time::timeout(4 * GLANCE, waits).await.unwrap();
        assert!(place.is_some());
        // No more of them than there are places, and the first place that comes free is as good.
        let third = crowd.enter(|| true);
        tokio::pin!(third);
        assert!(tokio::time::timeout(4 * GLANCE, &mut third).await.is_err());
        drop(works);
        assert!(tokio::time::timeout(GLANCE, third).await.unwrap().is_some());
    }
}
