//! How operations ended, for those who look back: kept longer than jobs, and for the operator only.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::audit::{About, Named, SHORTEST, names};
use crate::id::{CollectionId, JobId};
use crate::inventory::{Collection, Job, JobKind, JobState, Snapshot, SnapshotSet};
use crate::text::Text;

use super::shown;

/// The most characters of a reason.
const REASON_MAX: usize = 4096;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A snapshot set was taken.
    Create,
    /// It was applied.
    Apply,
    /// It was destroyed, or the snapshot of one machine in it.
    Destroy,
    /// It was exported.
    Export,
    /// Hidden layers were merged.
    Merge,
    /// It was to be turned into a reference point.
    Convert,
    /// A collection was defined.
    DefineCollection,
    /// A collection was destroyed.
    DestroyCollection,
    /// A collection was renamed.
    RenameCollection,
    /// A member was added to a collection.
    AddMember,
    /// A member was removed from a collection.
    RemoveMember,
    /// A machine left the library.
    RemoveMachine,
    /// The doctor has repaired something.
    Repair,
    /// Something else that a client asked for.
    #[serde(other)]
    Other,
}

impl What {
    /// As it is written: `define-collection`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Apply => "apply",
            Self::Destroy => "destroy",
            Self::Export => "export",
            Self::Merge => "merge",
            Self::Convert => "convert",
            Self::DefineCollection => "define-collection",
            Self::DestroyCollection => "destroy-collection",
            Self::RenameCollection => "rename-collection",
            Self::AddMember => "add-member",
            Self::RemoveMember => "remove-member",
            Self::RemoveMachine => "remove-machine",
            Self::Repair => "repair",
            Self::Other => "other",
        }
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// Well.
    Completed,
    /// Badly.
    Failed,
    /// It never began.
    Refused,
    /// Somebody stopped it.
    Cancelled,
}

impl Ending {
    /// As it is written: `completed`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Cancelled => "cancelled",
        }
    }
}

/// How one operation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// What it was.
    pub what: What,
    /// How it ended.
    pub outcome: Ending,
    /// Its job; methods that are done when they answer have none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub job: Option<JobId>,
    /// Who asked for it.
    pub user: String,
    /// What it was about, by the names of that time.
    #[serde(flatten)]
    pub about: About,
    /// When it was accepted.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// Why it did not end well, or what its last status was.
    pub reason: String,
    /// The code of the error.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub code: Option<u16>,
    /// Another process had begun it, and the recovery after the start ended it.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub recovered: bool,
}

impl Ended {
    /// The end of a job that has ended. `recovered`: an earlier process had begun it.
    #[must_use]
    pub fn of(job: &Job, recovered: bool) -> Self {
        let outcome = match job.state {
            JobState::Completed => Ending::Completed,
            JobState::Terminated | JobState::Killed => Ending::Cancelled,
            JobState::Exception | JobState::Running => Ending::Failed,
        };
        let details = job.error.iter().flat_map(|error| &error.details);
        let mut reason = job.status.english();
        for detail in details.map(Text::english) {
            if !reason.contains(&detail) {
                reason.push_str("; ");
                reason.push_str(&detail);
            }
        }
        Self {
            what: What::of(job),
            outcome,
            job: Some(job.id),
            user: job.owner.clone(),
            about: job.about.clone(),
            started: job.submitted,
            ended: job.changed,
            reason: cut(reason),
            code: job.error.as_ref().map(|error| error.code),
            recovered,
        }
    }

    /// The same, for something that was refused before it began.
    #[must_use]
    pub fn refused(job: &Job, what: What) -> Self {
        Self {
            what,
            outcome: Ending::Refused,
            ..Self::of(job, false)
        }
    }

    /// How long it took, in seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.ended
            .duration_since(self.started)
            .as_secs_f64()
            .max(0.0)
    }

    /// Tells it in the log: what did not end well as a warning.
    pub fn tell(&self) {
        let about = self.about.brief();
        let machines = match about.more {
            0 => names(&about.machines),
            more => format!("{} and {more} more", names(&about.machines)),
        };
        let field = |list: String| (!list.is_empty()).then_some(list);
        let (set, collection) = (field(names(&about.sets)), field(names(&about.collections)));
        let ids = about.sets.iter().chain(&about.collections);
        let ids: Vec<_> = ids.map(|it| it.id.as_str()).collect();
        let ids = field(ids.join(" "));
        let machines = field(machines);
        let directory = about.directory;
        let job = self.job.map(|job| job.to_string());
        let (what, outcome) = (self.what.as_str(), self.outcome.as_str());
        let (user, reason) = (self.user.as_str(), self.reason.as_str());
        let seconds = (self.seconds() * 1000.0).round() / 1000.0;
        let recovered = self.recovered.then_some(true);
        macro_rules! tell {
            ($level:ident) => {
                tracing::$level!(
                    what,
                    outcome,
                    user,
                    seconds,
                    job,
                    set,
                    collection,
                    machines,
                    directory,
                    ids,
                    recovered,
                    reason,
                    "Operation ended"
                )
            };
        }
        match self.outcome {
            Ending::Completed => tell!(info),
            Ending::Failed | Ending::Refused | Ending::Cancelled => tell!(warn),
        }
    }
}

impl What {
    /// What a job does.
    #[must_use]
    pub fn of(job: &Job) -> Self {
        match job.kind {
            // The merge of what older sets have left is a destroy of no set.
            JobKind::DestroySnapshotSet
                if job.about.sets.is_empty() && !job.affected.is_empty() =>
            {
                Self::Merge
            }
            kind => Self::of_kind(kind),
        }
    }

    /// What jobs of this kind do.
    #[must_use]
    pub const fn of_kind(kind: JobKind) -> Self {
        match kind {
            JobKind::CreateSnapshotSet => Self::Create,
            JobKind::ApplySnapshotSet => Self::Apply,
            JobKind::DestroySnapshotSet => Self::Destroy,
            JobKind::ExportSnapshotSet => Self::Export,
            JobKind::DefineCollection => Self::DefineCollection,
            JobKind::DestroyCollection => Self::DestroyCollection,
            JobKind::RenameCollection => Self::RenameCollection,
            JobKind::AddMember => Self::AddMember,
            JobKind::RemoveMember => Self::RemoveMember,
            JobKind::Other => Self::Other,
        }
    }
}

impl SnapshotSet {
    /// The set, its collection, and the machines of those members.
    #[must_use]
    pub fn about(
        &self,
        collections: &BTreeMap<CollectionId, Arc<Collection>>,
        members: impl Fn(&Snapshot) -> bool,
    ) -> About {
        let mut about = About::default().set(self.id, &self.name);
        if let Some(id) = self.collection {
            let name = collections.get(&id).map(|c| c.name.as_str());
            about = about.collection(id, name.unwrap_or_default());
        }
        let members = self.members.iter().filter(|m| members(m));
        about.machines(members.map(|m| (m.machine, m.machine_name.clone())))
    }
}

fn cut(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(REASON_MAX) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Characters of an id.
const ID: usize = 36;

/// What is looked for in the history; without anything all of it, the newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Query {
    /// About this set: its id or its name then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// About this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// About this collection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collection: Option<String>,
    /// Asked for by this user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Ended at this time or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Only what did not end well.
    pub failed: bool,
    /// At most so many.
    pub limit: usize,
}

impl Query {
    /// Does it name something by what may be the beginning of an id? Then it must be known what else begins so.
    #[must_use]
    pub fn is_by_beginning(&self) -> bool {
        let wanted = [&self.set, &self.collection, &self.machine];
        let begins = |wanted: &String| {
            let id = wanted.trim_matches(['{', '}']);
            (SHORTEST..ID).contains(&id.len())
                && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
        };
        wanted.into_iter().flatten().any(begins)
    }

    /// Is it one of those that are looked for? What is a name begins no id.
    #[must_use]
    pub fn fits(&self, it: &Ended, by_name: ByName) -> bool {
        let lists = [
            (&self.set, &it.about.sets),
            (&self.collection, &it.about.collections),
            (&self.machine, &it.about.machines),
        ];
        let mut lists = lists.into_iter().zip(by_name.0);
        let named = lists.all(|((wanted, list), by_name)| {
            let is = |named: &Named, wanted: &String| {
                is_name(named, wanted) || !by_name && named.is(wanted)
            };
            let fits = |wanted: &String| list.iter().any(|named| is(named, wanted));
            wanted.as_ref().is_none_or(fits)
        });
        named
            && self.user.as_ref().is_none_or(|user| *user == it.user)
            && self.since.is_none_or(|since| it.ended >= since)
            && !(self.failed && it.outcome == Ending::Completed)
    }
}

/// Which of set, collection and machine are looked for by their names alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ByName([bool; 3]);

fn is_name(named: &Named, wanted: &str) -> bool {
    named.name == wanted || shown(&named.name) == *wanted
}

/// What the words of a query have met in the history: sets, collections, machines.
#[derive(Debug, Default)]
pub struct Met([Meeting; 3]);

#[derive(Debug, Default)]
struct Meeting {
    /// By its name. Several of one name are looked for together.
    by_name: bool,
    /// By the beginning of an id: which, with the names.
    begun: BTreeMap<String, String>,
}

impl Met {
    /// Takes up what one entry has of it.
    pub fn take_up(&mut self, query: &Query, it: &Ended, by_name: ByName) {
        let about = &it.about;
        let lists = [
            (&query.set, &about.sets),
            (&query.collection, &about.collections),
            (&query.machine, &about.machines),
        ];
        let meetings = self.0.iter_mut().zip(by_name.0);
        for ((wanted, list), (meeting, by_name)) in lists.into_iter().zip(meetings) {
            let Some(wanted) = wanted else { continue };
            let whole = wanted.trim_matches(['{', '}']);
            for named in list {
                if named.id.eq_ignore_ascii_case(whole) {
                    continue;
                }
                if is_name(named, wanted) {
                    meeting.by_name = true;
                } else if !by_name && named.is(wanted) {
                    let (id, name) = (named.id.clone(), shown(&named.name).into_owned());
                    meeting.begun.insert(id, name);
                }
            }
        }
    }

    /// What of the query is a name as well as the beginning of other ids: the name counts, so that is to be looked for
    /// again, by it alone.
    #[must_use]
    pub fn names(&self) -> Option<ByName> {
        let both = |met: &Meeting| met.by_name && !met.begun.is_empty();
        let any = self.0.iter().any(both);
        any.then(|| ByName(self.0.each_ref().map(|met| met.by_name)))
    }

    /// In words, that the beginning of an id in the query means several things, and which.
    #[must_use]
    pub fn several(&self, query: &Query) -> Option<String> {
        let words = [
            (&query.set, "snapshot sets"),
            (&query.collection, "collections"),
            (&query.machine, "machines"),
        ];
        let mut met = words.into_iter().zip(&self.0);
        met.find_map(|((wanted, word), met)| {
            if met.begun.len() < 2 {
                return None;
            }
            let wanted = shown(wanted.as_deref()?);
            let ids = met.begun.iter().map(|(id, name)| format!("{id} ({name})"));
            let ids = ids.collect::<Vec<_>>().join(", ");
            Some(format!(
                "`{wanted}` begins several ids of {word}; give a whole id: {ids}"
            ))
        })
    }
}
