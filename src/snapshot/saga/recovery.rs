//! Before the listener opens: finishes or undoes what a dead process left, ends the jobs nobody works on.
//!
//! The records decide, not what the disks look like: a commit record goes forward, anything else back; between the two the
//! commit word of a window decides. Machines that stand still are let go before anything else. All of it may be killed and
//! begun again at any point.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::watch;

use crate::held;
use crate::id::{JobId, SetId};
use crate::inventory::{JobError, JobState};
use crate::snapshot::saga::core::Core;
use crate::snapshot::saga::journal::{Journal, Unreadable};
use crate::snapshot::saga::kind::Kind;
use crate::snapshot::saga::operation::{GoOn, Operation, PATIENT, Verdict, failed};
use crate::snapshot::saga::spares::{WAY_OUT, is_blank_spare, is_ready, is_spare};
use crate::snapshot::saga::story::{self, Record, Story};
use crate::snapshot::saga::window::{self, Released};
use crate::snapshot::saga::word::{self, Word};
use crate::store::StoreError;
use crate::text::Text;
use crate::text::catalog::snapshot as texts;

/// How long the start waits for all operations together before it opens without those that are not done (`docs/cut.md`
/// §3).
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// What recovery found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Operations that were committed before the process died; they are finished now.
    pub finished: Vec<InFlight>,
    /// Operations that were not; they are undone now.
    pub undone: Vec<InFlight>,
    /// Operations that cannot be ended now; their members are held and it is tried again and again.
    pub stuck: Vec<Stuck>,
    /// Jobs that were open and had no journal; they ended as Exception.
    pub ended: Vec<JobId>,
    /// Files among ours that nothing names. They are left alone.
    pub orphans: Vec<PathBuf>,
}

/// In numbers, for the log.
impl fmt::Display for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "operations finished {}, undone {}, neither yet {}; lost jobs ended {}; files that nothing names {}",
            self.finished.len(),
            self.undone.len(),
            self.stuck.len(),
            self.ended.len(),
            self.orphans.len()
        )
    }
}

/// An operation that a dead process left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InFlight {
    /// Its kind, as in its fail points: `create`.
    pub kind: &'static str,
    /// The set.
    pub set: SetId,
    /// The job.
    pub job: JobId,
    /// Names of the machines that it works on.
    pub machines: Vec<String>,
    /// It may have stopped some of them.
    pub stops: bool,
}

impl InFlight {
    fn of<K: Kind>(kind: &K) -> Self {
        Self {
            kind: K::NAME,
            set: kind.set(),
            job: kind.job(),
            machines: kind.machines(),
            stops: kind.stops_in().is_some(),
        }
    }
}

/// An operation that cannot be ended now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// Which one.
    pub operation: InFlight,
    /// Why.
    pub why: Text,
}

/// The server must not open.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// A folder or file of the journal cannot be read or written.
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    /// A journal that cannot be understood.
    #[error("{0} {1}{way}", way = way_out(.0, *.1))]
    Unreadable(PathBuf, Unreadable),
    /// What stands under the name of a spare journal is neither empty nor a journal.
    #[error("{0} {1}; {WAY_OUT}")]
    Spare(PathBuf, String),
    /// A journal without the record of its commit, though what that commits is there.
    #[error(
        "{0} is damaged: its last record is missing, although what it commits has been done; {way}",
        way = put_back(.0)
    )]
    Shortened(PathBuf),
    /// A journal that the database knows nothing of, nor the machines.
    #[error(
        "{0} is of an operation that the database does not know, and the machines do not stand where it left them, or what it captured is gone, or others need what it made: it comes from an older copy; move it away (`mv {0} {here}/`) and start again",
        here = above(.0).display()
    )]
    Older(PathBuf),
    /// Two journals claim the same machine.
    #[error("{0}: another journal holds one of its machines")]
    Contradiction(PathBuf),
    /// The store or a journal broke down meanwhile.
    #[error("{0}")]
    Broken(String),
}

fn put_back(journal: &Path) -> String {
    let here = above(journal).display();
    format!(
        "put the journal back from a backup, or move it away and run `groupshot doctor --rebuild --data-dir {here}`"
    )
}

fn way_out(journal: &Path, what: Unreadable) -> String {
    match what {
        Unreadable::Version(_) => String::new(), // it says itself what to do
        Unreadable::Foreign | Unreadable::Damaged(_) => format!("; {}", put_back(journal)),
    }
}

/// The data directory of a journal.
fn above(journal: &Path) -> &Path {
    let folder = journal.parent().unwrap_or(journal);
    folder.parent().unwrap_or(folder)
}

/// A journal that a dead process left.
struct Left {
    journal: Journal,
    path: PathBuf,
    story: Arc<dyn Story>,
    past: Past,
    /// Its commit word, if that decides.
    word: Option<Word>,
}

/// What the database and its history know of the job of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Past {
    /// Nothing.
    Unknown,
    /// It failed or was cancelled, and only the history remembers it. Also the failed job of an operation that commits
    /// when it is accepted: it never was.
    Over,
    /// It is open, or it failed or was cancelled and is still kept.
    Known,
    /// It completed, so everything up to the publication is done.
    Published,
}

impl Left {
    /// Removes the journal of what was never begun. Blocks.
    fn drop(self) -> Result<(), RecoveryError> {
        let file = self.path.display();
        tracing::warn!(%file, "A journal of which there is nothing to be done is removed: nobody was told that its request was accepted, or it is long over");
        let removed = self.journal.remove();
        removed.map_err(|e| RecoveryError::Broken(e.to_string()))
    }
}

/// Checks a journal against what is recorded, before anything is touched. `None`: its operation is to be resumed.
/// `Some`: there is nothing to do, as intent and job are its commit, the job is unknown or over, and nothing shows that
/// it was begun (decision 55); the journal is dropped. Blocks.
///
/// # Errors
/// The journal `at` this path has no commit record although its commit shows on the disk or in the database
/// ([`RecoveryError::Shortened`]), or neither database nor files fit it ([`RecoveryError::Older`]), or a file cannot be
/// read.
pub(crate) fn require<K: Kind>(
    at: &Path,
    mut kind: K,
    records: &[Record<K::Record>],
    past: Past,
    core: &Core,
) -> Result<Option<InFlight>, RecoveryError> {
    let is_over = matches!(past, Past::Unknown | Past::Over);
    if K::TAKE.is_empty() && records.is_empty() && is_over {
        let begun = kind.shows_commit(core);
        let begun = begun.map_err(|e| RecoveryError::Io(core.sets(), e))?;
        let goes_on = begun && kind.fits(core, true);
        return Ok((!goes_on).then(|| InFlight::of(&kind)));
    }
    let commits = |record: &Record<K::Record>| match record {
        Record::Own(record) => K::commits(record),
        Record::Abort(_) => false,
    };
    let committed = K::TAKE.is_empty() || records.iter().any(commits);
    if !committed {
        let shown = kind.shows_commit(core);
        let shown = shown.map_err(|e| RecoveryError::Io(core.sets(), e))?;
        if shown || past == Past::Published {
            return Err(RecoveryError::Shortened(at.to_owned()));
        }
    }
    read_story(&mut kind, records.to_vec());
    let is_sure = match past {
        Past::Unknown => false,
        Past::Over => !committed, // its undo may wait since
        Past::Known | Past::Published => true,
    };
    let (fits, unseen) = held::failing(|| is_sure || kind.fits(core, committed));
    match unseen {
        _ if fits => Ok(None),
        // What cannot be seen now says nothing of the journal.
        Some(unseen) => {
            let cause = io::Error::new(unseen.kind, unseen.cause);
            Err(RecoveryError::Io(unseen.file, cause))
        }
        None => Err(RecoveryError::Older(at.to_owned())),
    }
}

/// Takes up every operation that a dead process left, and ends the jobs that nobody works on. Waits for all operations
/// together for `patience`; without that limit until each has ended or, if it has to wait for something, for 5 s more.
/// Also returns the files that they name.
///
/// # Errors
/// [`RecoveryError`]: someone has to look before the server may open.
pub(crate) async fn recover(
    core: &Arc<Core>,
    patience: Option<Duration>,
) -> Result<(Recovered, BTreeSet<PathBuf>), RecoveryError> {
    let panicked = |e: tokio::task::JoinError| RecoveryError::Broken(e.to_string());
    let mut released = window::release_all(core).await;
    let shared = Arc::clone(core);
    let read = tokio::task::spawn_blocking(move || read_all(&shared)).await;
    let (mut left, spares) = read.map_err(panicked)??;
    for one in &mut left {
        one.past = past(core, &*one.story).await?;
    }
    let told = left.iter();
    let told = told.map(|it| (it.path.clone(), Arc::clone(&it.story), it.past));
    let told: Vec<_> = told.collect();
    let core_of = Arc::clone(core);
    let required = tokio::task::spawn_blocking(move || {
        let core = core_of;
        let shared = Arc::clone(&core);
        let required = held::look(move || {
            let told = told.iter();
            let required = told.map(|(at, story, past)| story.require(at, *past, &shared));
            required.collect::<Result<Vec<_>, _>>()
        });
        let required = required.map_err(|e| RecoveryError::Io(core.journals(), e))??;
        if let Err(error) = core.spares.open(spares) {
            tracing::warn!(%error, "No spare journals can be made; requests take longer");
        }
        core.keep_room();
        Ok(required)
    });
    let required = required.await.map_err(panicked)??;
    let mut named = BTreeSet::new();
    let (mut resumed, mut dropped) = (Vec::new(), Vec::new());
    let mut recovered = Recovered::default();
    for (one, nothing) in left.into_iter().zip(required) {
        match nothing {
            None => {
                one.story.names(&mut named);
                let published = one.past == Past::Published;
                let released = released.remove(&one.story.job());
                let open = one.word.map(|word| (word, released));
                let story = &one.story;
                resumed.push(story.take_up(core, &one.path, one.journal, published, open)?);
            }
            Some(nothing) => {
                recovered.undone.push(nothing);
                dropped.push(one);
            }
        }
    }
    tokio::task::spawn_blocking(move || dropped.into_iter().try_for_each(Left::drop))
        .await
        .map_err(panicked)??;
    let deadline = patience.map(|time| tokio::time::Instant::now() + time);
    for one in resumed {
        outcome(core, one, deadline, &mut recovered).await?;
    }
    recovered.ended = end_lost_jobs(core).await?;
    Ok((recovered, named))
}

/// What is known of the job of an operation, if only by the history.
async fn past(core: &Core, story: &dyn Story) -> Result<Past, RecoveryError> {
    let (store, id) = (&core.deps.store, story.job());
    if let Some(job) = store.state().jobs.get(&id) {
        return Ok(match job.state {
            JobState::Completed => Past::Published,
            JobState::Exception if story.is_committed_at_once() => Past::Over,
            _ => Past::Known,
        });
    }
    let mut before = None;
    loop {
        let page = store.history(before).await;
        let page = page.map_err(|e| RecoveryError::Broken(e.to_string()))?;
        let Some((last, _)) = page.last() else {
            return Ok(Past::Unknown);
        };
        before = Some(*last);
        if let Some((_, it)) = page.iter().find(|(_, it)| it.job == Some(id)) {
            return Ok(story.past(it.outcome));
        }
    }
}

/// Takes up an operation where its records end.
///
/// # Errors
/// Another one holds what it works on.
pub(crate) fn take_up<K: Kind>(
    core: &Arc<Core>,
    at: &Path,
    journal: Journal,
    mut kind: K,
    records: Vec<Record<K::Record>>,
    published: bool,
    open: Option<(Word, Option<Released>)>,
) -> Result<Resumed, RecoveryError> {
    let (set, job) = (kind.set(), kind.job());
    let aborted = records.iter().any(|it| matches!(it, Record::Abort(_)));
    let back = read_story(&mut kind, records);
    let (word, released) = open.unzip();
    if let Some(word) = &word {
        kind.recalls(&word.notes());
        match released.flatten() {
            Some(released) => kind.stands(released.standing),
            None if word.is_free() => {}
            None => kind.was_open(word.reported().as_ref(), word.is_settled()),
        }
    }
    let is_cut = word.as_ref().is_some_and(Word::is_cut);
    let goes_on = match back {
        None => GoOn::Finish { published },
        Some(_) if is_cut && !aborted => GoOn::Window,
        Some(error) => GoOn::Back(error),
    };
    let operation = InFlight::of(&kind);
    let recovering = K::WORDS.recovering.with("set", set);
    let lease = core
        .leases
        .lease(job, recovering.clone(), &kind.resources());
    let lease = lease.map_err(|_| RecoveryError::Contradiction(at.to_owned()))?;
    lease.recovers(); // whoever asks meanwhile is told at once
    let worker = core.deps.jobs.adopt(job);
    if let (GoOn::Finish { .. }, Some(worker)) = (&goes_on, &worker) {
        worker.commit_point(); // it was passed before the process died
    }
    let resumed = Arc::new(Operation {
        core: Arc::clone(core),
        kind,
        journal: Mutex::new(journal),
        worker,
        verdict: watch::Sender::new(Verdict::Working),
        holds: Mutex::default(),
        lease,
        word: word
            .map(|word| OnceLock::from(Arc::new(word)))
            .unwrap_or_default(),
        guard: Mutex::default(),
        waited: AtomicU32::new(PATIENT),
    });
    let verdict = resumed.verdict.subscribe();
    let forward = !matches!(goes_on, GoOn::Back(_));
    tracing::info!(kind = K::NAME, %set, forward, "Recovering an operation");
    core.tasks.spawn(resumed.resume(goes_on));
    Ok(Resumed {
        operation,
        recovering,
        verdict,
    })
}

/// Waits for the end of one operation, or for what it waits for.
async fn outcome(
    core: &Core,
    mut resumed: Resumed,
    deadline: Option<tokio::time::Instant>,
    recovered: &mut Recovered,
) -> Result<(), RecoveryError> {
    let operation = resumed.operation;
    let verdict = tokio::select! {
        cause = core.fatal() => return Err(RecoveryError::Broken(cause)),
        verdict = known(&mut resumed.verdict, deadline) => verdict,
    };
    let lost = |_| RecoveryError::Broken(texts::INTERNAL.text().english());
    let why = match verdict.map_err(lost)? {
        Verdict::Done { forward } => {
            let list = if forward {
                &mut recovered.finished
            } else {
                &mut recovered.undone
            };
            list.push(operation);
            return Ok(());
        }
        Verdict::Waiting(why) => why,
        Verdict::Working => resumed.recovering,
    };
    let set = operation.set;
    tracing::error!(%set, why = why.english(), "An operation cannot be recovered now; its machines stay held");
    recovered.stuck.push(Stuck { operation, why });
    Ok(())
}

/// Ends what no journal tells of. Jobs of operations that are still at work have a worker.
async fn end_lost_jobs(core: &Core) -> Result<Vec<JobId>, RecoveryError> {
    let mut ended = Vec::new();
    for job in core.deps.jobs.open_jobs() {
        let Some(worker) = core.deps.jobs.adopt(job.id) else {
            continue;
        };
        let error = failed(texts::LOST.text(), Vec::new());
        match worker.fail(error, Vec::new()).await {
            Err(StoreError::Broken(cause)) => return Err(RecoveryError::Broken(cause)),
            _ => ended.push(job.id),
        }
    }
    Ok(ended)
}

/// An operation that was taken up.
pub(crate) struct Resumed {
    operation: InFlight,
    /// What it says of itself meanwhile.
    recovering: Text,
    verdict: watch::Receiver<Verdict>,
}

/// The verdict on an operation: as soon as it is no longer [`Verdict::Working`], or at the deadline. Without a deadline
/// an operation that waits has [`PATIENCE`] more to end.
async fn known(
    verdict: &mut watch::Receiver<Verdict>,
    deadline: Option<tokio::time::Instant>,
) -> Result<Verdict, watch::error::RecvError> {
    let told = |v: &Verdict| *v != Verdict::Working;
    match deadline {
        Some(deadline) => {
            if let Ok(known) = tokio::time::timeout_at(deadline, verdict.wait_for(told)).await {
                known?;
            }
        }
        None => {
            verdict.wait_for(told).await?;
            let done = verdict.wait_for(|v| matches!(v, Verdict::Done { .. }));
            if let Ok(done) = tokio::time::timeout(PATIENCE, done).await {
                done?;
            }
        }
    }
    Ok(verdict.borrow().clone())
}

/// Reads every journal, and returns the usable spares as the second value. A file whose first record never became
/// durable is kept as a spare if it still is one, else removed. Creates the folders `journal` and `sets`.
fn read_all(core: &Core) -> Result<(Vec<Left>, Vec<PathBuf>), RecoveryError> {
    let folder = core.journals();
    let io = |path: &Path| {
        let path = path.to_owned();
        move |e| RecoveryError::Io(path, e)
    };
    for folder in [&folder, &core.sets()] {
        held::make_folders(folder, 1).map_err(io(folder))?;
    }
    held::sync_folder(&core.deps.data_dir).map_err(io(&core.deps.data_dir))?;
    let (mut left, mut empty, mut words) = (Vec::new(), Vec::new(), Vec::new());
    for entry in fs::read_dir(&folder).map_err(io(&folder))? {
        let path = entry.map_err(io(&folder))?.path();
        words.extend(word::job_of(&path));
        if path.extension().is_none_or(|e| e != "log") {
            continue;
        }
        let opened = match Journal::open(&path) {
            Err(e) if is_spare(&path) && held::foreign(&e).is_some() => {
                return Err(RecoveryError::Spare(path, format!("is in the way: {e}")));
            }
            opened => opened.map_err(io(&path))?,
        };
        let (journal, records) = match opened {
            Ok(opened) => opened,
            // Whatever stands there, it is of no operation.
            Err(what) if is_blank_spare(&path) => {
                tracing::warn!(file = %path.display(), "A spare journal {what}: it is made anew");
                held::remove_file(&path).map_err(io(&path))?;
                continue;
            }
            Err(e) if is_spare(&path) => return Err(RecoveryError::Spare(path, e.to_string())),
            Err(e) => return Err(RecoveryError::Unreadable(path, e)),
        };
        if records.is_empty() {
            match is_ready(&path) {
                true => empty.push(path),
                false => journal
                    .remove()
                    .map_err(|e| RecoveryError::Broken(e.to_string()))?,
            }
            continue;
        }
        match story::read(core.kinds, &records) {
            Ok(story) => {
                let word = story.word(&folder).map_err(io(&path))?;
                left.push(Left {
                    journal,
                    path,
                    story,
                    past: Past::Unknown,
                    word,
                });
            }
            Err(e) if is_spare(&path) => return Err(RecoveryError::Spare(path, e.to_string())),
            Err(e) => return Err(RecoveryError::Unreadable(path, e)),
        }
    }
    let is_known = |job: &JobId| left.iter().any(|it: &Left| it.story.job() == *job);
    for job in words.into_iter().filter(|job| !is_known(job)) {
        Word::remove(&folder, job).map_err(io(&folder))?; // its journal went first
    }
    Ok((left, empty))
}

/// Takes up what the records tell. Where it goes from here: forward, or back with this error.
pub(crate) fn read_story<K: Kind>(
    kind: &mut K,
    records: Vec<Record<K::Record>>,
) -> Option<JobError> {
    let interrupted = K::WORDS.interrupted.with("set", kind.set());
    let mut back = (!K::TAKE.is_empty()).then(|| failed(interrupted, Vec::new()));
    for record in records {
        match record {
            Record::Abort(error) => back = Some(error),
            Record::Own(record) => {
                if K::commits(&record) {
                    back = None;
                }
                kind.replay(record);
            }
        }
    }
    back
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_out_of_a_journal_without_its_commit_can_be_typed_as_it_stands() {
        let told = RecoveryError::Shortened("/var/lib/g/journal/1.log".into()).to_string();
        assert!(
            told.contains("`groupshot doctor --rebuild --data-dir /var/lib/g`"),
            "{told}"
        );
    }
}
