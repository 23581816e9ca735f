//! What one journal tells: the intent of a kind of operation and what came after it. Whoever does not know the kind finds
//! it here by its name.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::id::{JobId, SetId, VmId};
use crate::inventory::{Ending, JobError};
use crate::snapshot::saga::core::Core;
use crate::snapshot::saga::journal::{INTENT, Journal, Line, Unreadable, place_of};
use crate::snapshot::saga::kind::{Fate, Kind};
use crate::snapshot::saga::leases::Resource;
use crate::snapshot::saga::recovery::{InFlight, Past, RecoveryError, Resumed, require, take_up};
use crate::snapshot::saga::window::{Released, release_of};
use crate::snapshot::saga::word::{self, Word};

/// The kinds of operation that there are.
pub(crate) type Kinds = &'static [Registered];

/// A kind of operation, by its name in journals.
pub(crate) struct Registered {
    name: &'static str,
    read: fn(&[Line]) -> Understood,
}

/// What these records tell, or which of them is not of the form of the kind.
type Understood = Result<Arc<dyn Story>, usize>;

impl Registered {
    pub(crate) const fn of<K: Kind>() -> Self {
        Self {
            name: K::NAME,
            read: read_as::<K>,
        }
    }
}

/// What these records of one journal tell; the first of them is an intent.
///
/// # Errors
/// A record is of no kind, or not of the form of its kind.
pub(crate) fn read(kinds: Kinds, lines: &[Line]) -> Result<Arc<dyn Story>, Unreadable> {
    let name = lines.first().map_or("", Line::kind);
    let kind = kinds.iter().find(|kind| kind.name == name);
    let read = kind.map_or(Err(0), |kind| (kind.read)(lines));
    read.map_err(|n| Unreadable::Damaged(place_of(lines, n)))
}

fn read_as<K: Kind>(lines: &[Line]) -> Understood {
    let (first, later) = lines.split_first().ok_or(0_usize)?;
    let kind = K::new(first.read().map_err(|_| 0_usize)?);
    let later = later.iter().enumerate();
    let records = later.map(|(n, line)| Record::read(line).map_err(|_| n + 1));
    Ok(Arc::new(Told::<K> {
        kind,
        records: records.collect::<Result<_, _>>()?,
    }))
}

/// The first record of an operation of this kind.
///
/// # Errors
/// It cannot be written.
pub(crate) fn intent_of<K: Kind>(kind: &K) -> io::Result<Line> {
    #[derive(Serialize)]
    struct First<'a, I> {
        record: &'static str,
        kind: &'static str,
        /// Whether machines stand still for it: a journal that only a program can finish which knows how to let them go.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        window: bool,
        #[serde(flatten)]
        intent: &'a I,
    }
    Line::of(&First {
        record: INTENT,
        kind: K::NAME,
        window: kind.stops_in().is_some(),
        intent: kind.intent(),
    })
}

/// A later record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record<R> {
    /// The kind's own.
    Own(R),
    /// It will be undone; what the job will say.
    Abort(JobError),
}

/// The record of an operation that will be undone.
const ABORT: &str = "abort";

#[derive(Serialize, Deserialize)]
#[serde(tag = "record", rename = "abort")]
struct Abort {
    error: JobError,
}

impl<R: for<'de> Deserialize<'de>> Record<R> {
    pub(crate) fn read(line: &Line) -> serde_json::Result<Self> {
        match line.is(ABORT) {
            true => line.read().map(|Abort { error }| Self::Abort(error)),
            false => line.read().map(Self::Own),
        }
    }
}

/// The record that an operation will be undone because of this.
///
/// # Errors
/// It cannot be written.
pub(crate) fn abort(error: JobError) -> io::Result<Line> {
    Line::of(&Abort { error })
}

/// The content of a journal, of whatever kind of operation it is.
pub(crate) trait Story: Send + Sync {
    /// The job.
    fn job(&self) -> JobId;

    /// The set that it makes or works on, and what becomes of that.
    fn set(&self) -> (SetId, Fate);

    /// The machines that it works on.
    fn machines(&self) -> BTreeSet<VmId>;

    /// What the operation does, in words.
    fn told(&self) -> String;

    /// Adds the files that the operation may make, write or remove.
    fn names(&self, named: &mut BTreeSet<PathBuf>);

    /// Whether it commits when it is accepted, so that a failed job means that it never was.
    fn is_committed_at_once(&self) -> bool;

    /// What is left to do once the history tells of such an end.
    fn past(&self, outcome: Ending) -> Past;

    /// Its commit word, if it may have stopped machines in this run of the host, and no record says that it is committed.
    /// Blocks.
    ///
    /// # Errors
    /// It cannot be read.
    fn word(&self, journals: &Path) -> io::Result<Option<Word>>;

    /// Lets them go, but for what the guard of the dead process has done already.
    fn release<'a>(&'a self, core: &'a Core, word: Option<&'a Word>) -> BoxFuture<'a, Released>;

    /// Checks it against what is recorded, as [`require`] does. Blocks.
    ///
    /// # Errors
    /// As [`require`].
    fn require(
        &self,
        at: &Path,
        past: Past,
        core: &Core,
    ) -> Result<Option<InFlight>, RecoveryError>;

    /// Takes up the operation where its records end. `released` is what came of letting its machines go, if it may have
    /// stopped some.
    ///
    /// # Errors
    /// As [`take_up`].
    fn take_up(
        &self,
        core: &Arc<Core>,
        at: &Path,
        journal: Journal,
        published: bool,
        open: Option<(Word, Option<Released>)>,
    ) -> Result<Resumed, RecoveryError>;
}

/// The content of a journal of the kind `K`.
struct Told<K: Kind> {
    /// As it began.
    kind: K,
    /// What came after its intent.
    records: Vec<Record<K::Record>>,
}

impl<K: Kind> Told<K> {
    /// Another one, for what came later.
    fn anew(&self) -> K {
        K::new(self.kind.intent().clone())
    }
}

impl<K: Kind> Story for Told<K> {
    fn job(&self) -> JobId {
        self.kind.job()
    }

    fn set(&self) -> (SetId, Fate) {
        (self.kind.set(), K::FATE)
    }

    fn machines(&self) -> BTreeSet<VmId> {
        let held = self.kind.resources().into_iter();
        let machines = held.filter_map(|(resource, _)| match resource {
            Resource::Machine(id) => Some(id),
            _ => None,
        });
        machines.collect()
    }

    fn told(&self) -> String {
        self.kind.told()
    }

    fn names(&self, named: &mut BTreeSet<PathBuf>) {
        self.kind.names(named);
    }

    fn is_committed_at_once(&self) -> bool {
        K::TAKE.is_empty()
    }

    fn past(&self, outcome: Ending) -> Past {
        match outcome {
            Ending::Completed => Past::Published,
            // What it has left, it has left for later.
            Ending::Cancelled if K::DEFERS => Past::Published,
            _ => Past::Over,
        }
    }

    fn word(&self, journals: &Path) -> io::Result<Option<Word>> {
        let is_now = |stops_in| word::boot().is_ok_and(|boot| boot == stops_in);
        let is_committed = self.records.iter().any(|record| match record {
            Record::Own(record) => K::commits(record),
            Record::Abort(_) => false,
        });
        match self.kind.stops_in().is_some_and(is_now) && !is_committed {
            true => Word::open(journals, self.job()),
            false => Ok(None),
        }
    }

    fn release<'a>(&'a self, core: &'a Core, word: Option<&'a Word>) -> BoxFuture<'a, Released> {
        Box::pin(async move {
            let mut kind = self.anew();
            kind.recalls(&word.map(Word::notes).unwrap_or_default());
            let settled = word.is_some_and(Word::is_settled);
            kind.was_open(word.and_then(Word::reported).as_ref(), settled);
            release_of(core, &kind, &|_| {}).await
        })
    }

    fn require(
        &self,
        at: &Path,
        past: Past,
        core: &Core,
    ) -> Result<Option<InFlight>, RecoveryError> {
        require(at, self.anew(), &self.records, past, core)
    }

    fn take_up(
        &self,
        core: &Arc<Core>,
        at: &Path,
        journal: Journal,
        published: bool,
        open: Option<(Word, Option<Released>)>,
    ) -> Result<Resumed, RecoveryError> {
        let records = self.records.clone();
        take_up(core, at, journal, self.anew(), records, published, open)
    }
}
