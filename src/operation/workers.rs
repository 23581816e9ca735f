//! Worker threads for CPU-bound evaluations, apart from the async threads that serve requests and at a lower priority
//! (`nice`). There are as many as there are permits in `share`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use super::share::{Evaluation, Place, Shares};

/// The `nice` value of the worker threads: requests are answered at once, and an evaluation still gets nearly all of an
/// idle processor.
const NICE: i32 = 10;

type Job = Box<dyn FnOnce() + Send>;

/// Runs evaluations, by turns and with a share for each user.
pub(super) struct Workers {
    shares: Arc<Shares>,
    jobs: Sender<Job>,
    queue: Arc<Mutex<Receiver<Job>>>,
    /// How many threads there may be, and how many there are.
    threads: Mutex<(usize, usize)>,
}

/// Why an evaluation gave nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failed {
    /// Its time was up before it got a permit.
    Late,
    /// It panicked, or there is no thread for it.
    Broken,
}

impl Workers {
    /// As many workers as there are processors, and two at least; half of them for one user. The threads are made when
    /// there is something to do.
    pub(super) fn new() -> Self {
        let processors = thread::available_parallelism().map_or(2, usize::from);
        let places = processors.max(2);
        let (jobs, queue) = mpsc::channel();
        Self {
            shares: Shares::new(places, places / 2),
            jobs,
            queue: Arc::new(Mutex::new(queue)),
            threads: Mutex::new((places, 0)),
        }
    }

    /// Begins an evaluation of the user.
    pub(super) fn begin(&self, user: &Arc<str>) -> Evaluation {
        self.shares.begin(user)
    }

    /// Has the user an evaluation that takes long?
    pub(super) fn has_long(&self, user: &str) -> bool {
        self.shares.has_long(user)
    }

    /// Waits for a place, for so long.
    pub(super) async fn place(
        &self,
        evaluation: &Evaluation,
        limit: Duration,
    ) -> Result<Place, Failed> {
        let place = tokio::time::timeout(limit, evaluation.place()).await;
        place.map_err(|_| Failed::Late)?.ok_or(Failed::Broken)
    }

    /// Has the work done on that place, also if nobody waits for it any more.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        place: Place,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failed> {
        let (told, result) = oneshot::channel();
        let job: Job = Box::new(move || {
            let done = catch_unwind(AssertUnwindSafe(work));
            drop(place);
            if let Ok(done) = done {
                let _nobody_waits = told.send(done);
            }
        });
        self.staff();
        self.jobs.send(job).map_err(|_| Failed::Broken)?;
        result.await.map_err(|_| Failed::Broken)
    }

    /// Makes the threads that are not there yet.
    fn staff(&self) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        while threads.1 < threads.0 {
            let queue = Arc::clone(&self.queue);
            let named = thread::Builder::new().name(format!("evaluate-{}", threads.1));
            match named.spawn(move || work(&queue)) {
                Ok(_) => threads.1 += 1,
                Err(error) => {
                    tracing::error!(%error, "No thread for evaluations");
                    return;
                }
            }
        }
    }
}

/// Takes one job after another, until the server is gone.
fn work(queue: &Mutex<Receiver<Job>>) {
    // Where it may not, it evaluates all the same.
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_ends_its_evaluation_and_no_thread() {
        let workers = Workers::new();
        let evaluation = workers.begin(&"ann".into());
        for _ in 0..8 {
            let place = workers.place(&evaluation, Duration::MAX).await.unwrap();
            let broken = workers.run(place, || panic!("on purpose")).await;
            assert_eq!(broken, Err(Failed::Broken));
        }
        let place = workers.place(&evaluation, Duration::MAX).await.unwrap();
        assert_eq!(workers.run(place, || 7).await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_no_place_in_time_is_late() {
        let workers = Workers::new();
        let evaluation = workers.begin(&"ann".into());
        let mut held = Vec::new();
        for _ in 0..workers.shares.most() {
            held.push(workers.place(&evaluation, Duration::MAX).await.unwrap());
        }
        let late = workers.place(&evaluation, Duration::from_secs(60)).await;
        assert_eq!(late.err(), Some(Failed::Late));
        drop(held);
        let limit = Duration::from_secs(60);
        assert!(workers.place(&evaluation, limit).await.is_ok());
    }
}
