//! What jobs promise, on a clock that stands still.

use jiff::Timestamp;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::id::{CollectionId, SetId, VmId};
use crate::inventory::{Collection, CollectionKind};
use crate::store::memory::MemoryStore;
use crate::text::catalog::job as texts;
use crate::text::catalog::store::FULL;

struct House {
    store: Arc<MemoryStore>,
    clock: Arc<ManualClock>,
    jobs: Arc<Jobs>,
}

impl House {
    fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let jobs = Jobs::new(store.clone(), clock.clone(), Duration::ZERO);
        Self { store, clock, jobs }
    }

    /// The same store under a new process.
    fn restart(&self) -> Arc<Jobs> {
        Jobs::new(self.store.clone(), self.clock.clone(), Duration::ZERO)
    }

    async fn start(&self) -> Worker {
        self.jobs.start(new_job(), Vec::new()).await.unwrap()
    }
}

fn new_job() -> NewJob {
    NewJob {
        id: JobId::random(),
        kind: JobKind::CreateSnapshotSet,
        service: Service::CollectionSnapshot,
        owner: "ann".to_owned(),
        affected: vec![Affected::Machine(VmId::from_u128(1))],
        about: About::default()
            .set(SetId::from_u128(9), "nightly")
            .machine(VmId::from_u128(1), "web"),
        set: Some(SetId::from_u128(9)),
        status: words("begun"),
    }
}

/// What the store has of a job in this state, which came to it when time began.
pub(super) fn record(state: JobState) -> Job {
    let new = new_job();
    let at = Timestamp::UNIX_EPOCH;
    Job {
        id: new.id,
        kind: new.kind,
        service: new.service,
        state,
        percent: 0,
        status: new.status,
        cancellable: false,
        owner: new.owner,
        affected: new.affected,
        about: new.about,
        set: new.set,
        error: None,
        cancel: None,
        submitted: at,
        started: at,
        changed: at,
    }
}

fn words(text: &str) -> Text {
    texts::CANCELLED.with("user", text)
}

fn error(code: u16) -> JobError {
    JobError {
        code,
        description: texts::WORKER_LOST.text(),
        details: vec![words("disk0")],
    }
}

fn collection() -> Collection {
    Collection {
        id: CollectionId::from_u128(5),
        name: "five".to_owned(),
        kind: CollectionKind::Machines,
        machines: Vec::new(),
        collections: Vec::new(),
        created: Timestamp::UNIX_EPOCH,
    }
}

#[tokio::test]
async fn a_job_completes_with_its_changes_and_its_set_in_one_commit() {
    let house = House::new();
    let worker = house.start().await;
    let id = worker.id();
    let running = house.jobs.get(id).unwrap();
    assert_eq!((running.state, running.percent), (JobState::Running, 0));
    assert!(running.cancellable && running.error.is_none());

    house.clock.advance(Duration::from_secs(3));
    assert!(worker.commit_point());
    assert!(!house.jobs.get(id).unwrap().cancellable);
    let before = house.store.state().revision;
    let change = Change::PutCollection(collection());
    worker.complete(words("done"), vec![change]).await.unwrap();

    let state = house.store.state();
    assert_eq!(state.revision, before + 1);
    assert!(state.collections.contains_key(&collection().id));
    let job = house.jobs.get(id).unwrap();
    assert_eq!((job.state, job.percent), (JobState::Completed, 100));
    assert_eq!((job.cancellable, &job.error), (false, &None));
    assert_eq!(
        job.affected.last(),
        Some(&Affected::Set(SetId::from_u128(9)))
    );
    assert_eq!(job.changed, house.clock.now());
    assert_eq!(job.submitted, Timestamp::UNIX_EPOCH);
}

#[tokio::test]
async fn a_job_that_is_taken_back_never_was() {
    let house = House::new();
    let worker = house.start().await;
    let id = worker.id();
    worker.withdraw(error(2)).await.unwrap();
    assert_eq!(house.jobs.get(id), None);
    house.jobs.sweep().await.unwrap();
    assert!(house.jobs.all().is_empty());
    assert!(house.jobs.wait(id, Duration::MAX).await.is_none());
}

#[tokio::test]
async fn a_job_that_cannot_be_taken_back_ends_10() {
    let house = House::new();
    let worker = house.start().await;
    let id = worker.id();
    house.store.fail_next(StoreError::Full(FULL.text()));
    worker.withdraw(error(2)).await.unwrap();
    assert_eq!(house.jobs.get(id).unwrap().state, JobState::Exception);
    house.jobs.sweep().await.unwrap();
    assert_eq!(house.jobs.get(id).unwrap().error, Some(error(2)));
}

#[tokio::test]
async fn a_failed_job_ends_10_below_100_percent_with_its_error() {
    let house = House::new();
    let worker = house.start().await;
    worker.progress(200, words("far"));
    worker.fail(error(5), Vec::new()).await.unwrap();
    let job = house.jobs.get(worker.id()).unwrap();
    assert_eq!((job.state, job.percent), (JobState::Exception, 99));
    assert_eq!(job.error, Some(error(5)));
    assert!(!job.affected.contains(&Affected::Set(SetId::from_u128(9))));
}

#[tokio::test]
async fn a_cancelled_job_ends_8_or_9_and_names_who_cancelled() {
    for (kind, end) in [
        (CancelKind::Terminate, JobState::Terminated),
        (CancelKind::Kill, JobState::Killed),
    ] {
        let house = House::new();
        let worker = house.start().await;
        let id = worker.id();
        worker.progress(40, words("on"));
        let answer = house.jobs.cancel(id, kind, "bob").await.unwrap();
        assert_eq!(answer, Cancelled::Accepted);
        assert_eq!(worker.cancelled(), Some((kind, "bob".to_owned())));
        assert_eq!(house.jobs.get(id).unwrap().state, JobState::Running);
        let stored = house.store.state().jobs[&id].percent;
        assert_eq!(stored, 40, "for the process that recovers it");
        worker.progress(90, words("undoing"));
        worker.fail(error(2), Vec::new()).await.unwrap();
        let job = house.jobs.get(id).unwrap();
        assert_eq!(job.percent, 40, "as far as it came");
        let error = job.error.unwrap();
        assert_eq!((job.state, error.code), (end, 32768));
        assert!(error.description.english().contains("bob"));
        assert_eq!(error.details.len(), 2, "what the worker said is kept");
    }
}

#[tokio::test]
async fn progress_never_goes_back_and_stays_below_100() {
    let house = House::new();
    let worker = house.start().await;
    for (shown, seen) in [(10, 10), (5, 10), (99, 99), (100, 99), (0, 99)] {
        worker.progress(shown, words("on"));
        assert_eq!(house.jobs.get(worker.id()).unwrap().percent, seen);
        assert_eq!(house.jobs.all()[0].percent, seen);
    }
    worker.complete(words("done"), Vec::new()).await.unwrap();
}

#[tokio::test]
async fn what_a_job_waits_for_is_its_status_until_it_waits_no_more() {
    let house = House::new();
    let worker = house.start().await;
    let shown = || house.jobs.get(worker.id()).unwrap();
    worker.progress(10, words("on"));
    worker.stands(Some(words("file")));
    worker.progress(20, words("further"));
    assert_eq!((shown().percent, shown().status), (20, words("file")));
    worker.stands(None);
    assert_eq!(shown().status, words("further"));
    worker.complete(words("done"), Vec::new()).await.unwrap();
}

#[tokio::test]
async fn what_a_job_waits_for_is_shown_and_not_stored() {
    let house = House::new();
    let worker = house.start().await;
    let id = worker.id();
    let stored = || house.store.state().jobs[&id].status.clone();
    worker.progress(50, words("on"));
    worker.stands(Some(words("file")));
    house.jobs.sweep().await.unwrap();
    assert_eq!(stored(), words("on"), "its progress");
    worker.progress(55, words("further"));
    let cancelled = house.jobs.cancel(id, CancelKind::Terminate, "admin").await;
    assert_eq!(cancelled.unwrap(), Cancelled::Accepted);
    assert_eq!(stored(), words("further"), "its cancel");
    assert_eq!(house.jobs.get(id).unwrap().status, words("file"));
    worker.fail_undoing(error(2)).await.unwrap();
    assert!(worker.has_ended());
    let undoing = texts::CANCELLED_UNDOING.with("user", "admin");
    assert_eq!(stored(), undoing);
}

#[tokio::test]
async fn a_cancel_after_the_commit_point_or_the_end_is_too_late() {
    let house = House::new();
    let worker = house.start().await;
    let id = worker.id();
    assert!(worker.commit_point());
    let cancel = || house.jobs.cancel(id, CancelKind::Kill, "bob");
    assert_eq!(cancel().await, Ok(Cancelled::TooLate));
    worker.complete(words("done"), Vec::new()).await.unwrap();
    assert_eq!(cancel().await, Ok(Cancelled::TooLate));
    let other = JobId::random();
    let unknown = house.jobs.cancel(other, CancelKind::Kill, "bob").await;
    assert_eq!(unknown, Ok(Cancelled::Unknown));
}

#[tokio::test]
async fn a_job_that_was_cancelled_before_its_commit_point_does_not_complete() {
    let house = House::new();
    let worker = house.start().await;
    let id = worker.id();
    house
        .jobs
        .cancel(id, CancelKind::Terminate, "bob")
        .await
        .unwrap();
    house
        .jobs
        .cancel(id, CancelKind::Kill, "eve")
        .await
        .unwrap();
    house
        .jobs
        .cancel(id, CancelKind::Terminate, "bob")
        .await
        .unwrap();
    assert!(!worker.commit_point());
    let refused = worker.complete(words("done"), Vec::new()).await;
    assert!(
        matches!(refused, Err(StoreError::Refused(_))),
        "{refused:?}"
    );
    worker.fail(error(2), Vec::new()).await.unwrap();
    assert_eq!(house.jobs.get(id).unwrap().state, JobState::Killed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cancel_that_races_with_the_end_has_one_winner() {
    for _ in 0..200 {
        let house = House::new();
        let worker = house.start().await;
        let id = worker.id();
        let jobs = house.jobs.clone();
        let cancel =
            tokio::spawn(async move { jobs.cancel(id, CancelKind::Terminate, "bob").await });
        let end = tokio::spawn(async move {
            if worker.complete(words("done"), Vec::new()).await.is_err() {
                worker.fail(error(2), Vec::new()).await.unwrap();
            }
        });
        let answer = cancel.await.unwrap().unwrap();
        end.await.unwrap();
        let state = house.jobs.get(id).unwrap().state;
        match answer {
            Cancelled::Accepted => assert_eq!(state, JobState::Terminated),
            Cancelled::TooLate => assert_eq!(state, JobState::Completed),
            Cancelled::Unknown => panic!("unknown"),
        }
    }
}

#[tokio::test]
async fn a_job_ends_once() {
    let house = House::new();
    let worker = house.start().await;
    worker.complete(words("done"), Vec::new()).await.unwrap();
    let change = Change::PutCollection(collection());
    let again = worker.fail(error(2), vec![change]).await;
    assert!(matches!(again, Err(StoreError::Refused(_))));
    assert!(house.store.state().collections.is_empty());
    let state = house.jobs.get(worker.id()).unwrap().state;
    assert_eq!(state, JobState::Completed);
}

#[tokio::test]
async fn a_worker_that_goes_away_leaves_an_exception() {
    let house = House::new();
    let worker = house.start().await;
    let id = worker.id();
    drop(worker);
    house.jobs.sweep().await.unwrap();
    let job = house.jobs.get(id).unwrap();
    assert_eq!(job.state, JobState::Exception);
    assert_eq!(job.error.unwrap().code, 2);
}

#[tokio::test]
async fn an_end_that_a_full_disk_refuses_is_written_later() {
    let house = House::new();
    let worker = house.start().await;
    let id = worker.id();
    house.store.fail_next(StoreError::Full(FULL.text()));
    let full = worker.complete(words("done"), Vec::new()).await;
    assert_eq!(full, Err(StoreError::Full(FULL.text())));
    house.store.fail_next(StoreError::Full(FULL.text()));
    worker.fail(error(2), Vec::new()).await.unwrap();
    drop(worker);
    // It has ended for whoever asks, waits or cancels.
    let held = house.jobs.wait(id, Duration::MAX).await.unwrap();
    assert_eq!(
        (held.state, &held.error),
        (JobState::Exception, &Some(error(2)))
    );
    assert_eq!(house.jobs.all(), std::slice::from_ref(&held));
    let late = house.jobs.cancel(id, CancelKind::Terminate, "ann").await;
    assert_eq!(late, Ok(Cancelled::TooLate));
    assert_eq!(house.store.state().jobs[&id].state, JobState::Running);
    house.clock.advance(Duration::from_secs(60));
    house.store.fail_next(StoreError::Full(FULL.text()));
    assert_eq!(house.jobs.sweep().await, Err(StoreError::Full(FULL.text())));
    assert_eq!(house.jobs.get(id), Some(held.clone()));
    house.jobs.sweep().await.unwrap();
    assert_eq!(*house.store.state().jobs[&id], held, "as it was told");
}

#[tokio::test]
async fn a_job_that_cannot_be_stored_does_not_exist() {
    let house = House::new();
    house.store.fail_next(StoreError::Full(FULL.text()));
    let failed = house.jobs.start(new_job(), Vec::new()).await;
    assert_eq!(failed.err(), Some(StoreError::Full(FULL.text())));
    assert!(house.jobs.all().is_empty());
}

#[tokio::test]
async fn a_refusal_that_a_full_disk_does_not_take_can_be_read_while_the_process_runs() {
    let house = House::new();
    house.store.fail_next(StoreError::Full(FULL.text()));
    let first = house
        .jobs
        .refused(new_job(), What::Create, true, error(2))
        .await
        .unwrap();
    let job = house.jobs.get(first).unwrap();
    assert_eq!(
        (job.state, job.error),
        (JobState::Exception, Some(error(2)))
    );
    assert!(house.restart().get(first).is_none());
    for _ in 0..REFUSED_PER_USER {
        house.store.fail_next(StoreError::Full(FULL.text()));
        house
            .jobs
            .refused(new_job(), What::Create, true, error(2))
            .await
            .unwrap();
    }
    assert!(house.jobs.get(first).is_none(), "64 are kept");
}

#[tokio::test]
async fn a_cancel_that_cannot_be_stored_was_not_asked() {
    let house = House::new();
    let worker = house.start().await;
    house.store.fail_next(StoreError::Full(FULL.text()));
    let failed = house
        .jobs
        .cancel(worker.id(), CancelKind::Kill, "bob")
        .await;
    assert_eq!(failed, Err(StoreError::Full(FULL.text())));
    assert_eq!(worker.cancelled(), None);
    worker.complete(words("done"), Vec::new()).await.unwrap();
}

#[tokio::test]
async fn after_a_restart_open_jobs_are_adopted_with_their_cancel() {
    let house = House::new();
    let (ended, open) = (house.start().await, house.start().await);
    let id = open.id();
    ended.complete(words("done"), Vec::new()).await.unwrap();
    open.progress(40, words("on"));
    house.jobs.sweep().await.unwrap();
    house
        .jobs
        .cancel(id, CancelKind::Terminate, "bob")
        .await
        .unwrap();
    assert!(house.jobs.open_jobs().is_empty(), "they have workers");

    let jobs = house.restart();
    let left: Vec<_> = jobs.open_jobs().iter().map(|j| (j.id, j.percent)).collect();
    assert_eq!(left, [(id, 40)]);
    assert!(jobs.adopt(ended.id()).is_none());
    let worker = jobs.adopt(id).unwrap();
    assert!(jobs.adopt(id).is_none(), "one worker only");
    assert_eq!(worker.cancelled().unwrap().1, "bob");
    worker.fail(error(2), Vec::new()).await.unwrap();
    assert_eq!(jobs.get(id).unwrap().state, JobState::Terminated);
    assert!(jobs.open_jobs().is_empty());
    open.live.end();
}

#[tokio::test]
async fn an_adopted_job_past_its_cut_completes_over_a_cancel() {
    let house = House::new();
    let worker = house.start().await;
    let id = worker.id();
    house
        .jobs
        .cancel(id, CancelKind::Terminate, "bob")
        .await
        .unwrap();
    let jobs = house.restart();
    let adopted = jobs.adopt(id).unwrap();
    adopted.complete(words("done"), Vec::new()).await.unwrap();
    let job = jobs.get(id).unwrap();
    assert_eq!((job.state, job.cancel), (JobState::Completed, None));
}

#[tokio::test]
async fn an_ended_job_is_kept_for_at_least_five_minutes() {
    let house = House::new();
    let (ended, open) = (house.start().await, house.start().await);
    ended.complete(words("done"), Vec::new()).await.unwrap();
    assert_eq!(house.jobs.keep(), Duration::from_secs(300));
    house.clock.advance(Duration::from_secs(299));
    house.jobs.sweep().await.unwrap();
    assert!(house.jobs.get(ended.id()).is_some());
    house.clock.advance(Duration::from_secs(1));
    house.jobs.sweep().await.unwrap();
    assert!(house.jobs.get(ended.id()).is_none());
    assert!(house.jobs.get(open.id()).is_some(), "a running job stays");
}

#[tokio::test]
async fn a_sweep_stores_coarse_progress_only() {
    let house = House::new();
    let worker = house.start().await;
    let stored = || house.store.state().jobs[&worker.id()].percent;
    worker.progress(9, words("on"));
    house.jobs.sweep().await.unwrap();
    assert_eq!(stored(), 0);
    worker.progress(10, words("on"));
    house.jobs.sweep().await.unwrap();
    assert_eq!(stored(), 10);
    let revision = house.store.state().revision;
    house.jobs.sweep().await.unwrap();
    assert_eq!(house.store.state().revision, revision);
}

#[tokio::test]
async fn refused_jobs_are_kept_up_to_a_quota_per_user() {
    let house = House::new();
    let mut ids = Vec::new();
    for _ in 0..=REFUSED_PER_USER {
        ids.push(
            house
                .jobs
                .refused(new_job(), What::Create, true, error(4))
                .await
                .unwrap(),
        );
    }
    let other = NewJob {
        owner: "bob".to_owned(),
        ..new_job()
    };
    house
        .jobs
        .refused(other, What::Create, true, error(4))
        .await
        .unwrap();
    assert!(house.jobs.get(ids[0]).is_none(), "the oldest made room");
    let newest = house.jobs.get(*ids.last().unwrap()).unwrap();
    assert_eq!(newest.state, JobState::Exception);
    assert_eq!(newest.error.unwrap().code, 4);
    assert_eq!(house.jobs.all().len(), REFUSED_PER_USER + 1);
}

#[tokio::test]
async fn wait_returns_at_the_end_or_at_the_limit() {
    let house = House::new();
    let worker = house.start().await;
    let id = worker.id();
    let early = house.jobs.wait(id, Duration::from_millis(1)).await.unwrap();
    assert_eq!(early.state, JobState::Running);
    let jobs = house.jobs.clone();
    let waiting = tokio::spawn(async move { jobs.wait(id, Duration::MAX).await });
    tokio::task::yield_now().await;
    worker.complete(words("done"), Vec::new()).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().state, JobState::Completed);
    assert!(
        house
            .jobs
            .wait(JobId::random(), Duration::MAX)
            .await
            .is_none()
    );
}
