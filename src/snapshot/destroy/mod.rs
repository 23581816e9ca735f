//! Destroying a set, or the snapshot of one of its machines.
//!
//! ```text
//!   INTENT, job (the commit) ▶ unrecord ▶ forget (one transaction: gone for clients) ▶ clean ▶ publish (job 7) ▶ clear
//! ```
//!
//! `clean` unlinks what nothing lies on, and merges a layer that nothing names into the file under it. What
//! cannot be merged now stays as a hidden layer; the status of the job says how many and why. A cancel stops
//! the merges and leaves their layers; the next destroy on the machine goes on with them.

mod again;
mod clean;
mod draft;
mod free;
mod hidden;
mod intent;
mod left;
mod look;
mod relink;
mod request;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use crate::engine::{EngineErrorKind, Merge, Stamp, Stands};
use crate::held;
use crate::id::{JobId, SetId};
use crate::inventory::What;
use crate::snapshot::known::Known;
use crate::snapshot::meter::Meter;
use crate::snapshot::saga::core::Core;
use crate::snapshot::saga::crowd::Queue;
use crate::snapshot::saga::kind::{self, Fate, Kind, Step, Words, Work};
use crate::snapshot::saga::leases::{Mode, Resource};
use crate::store::{Change, State};
use crate::text::Text;
use crate::text::catalog::snapshot as texts;

pub(crate) use again::turn;
pub use free::FREE_FAILPOINTS;
pub(crate) use free::{Freed, after_apply, all_layers};
pub use hidden::Hidden;
pub(crate) use hidden::{hidden, leftovers, tidy};
pub use intent::{Intent, Member, Record};
pub(crate) use left::sweep;
pub(crate) use relink::removal;
pub use request::DestroyRequest;
pub(crate) use request::destroy;

/// A set being destroyed.
pub(crate) struct Destroy {
    intent: Intent,
    /// Merges that the journal tells of; both files as they were when the lower one had the content.
    merges: Mutex<Vec<(Merge, Option<Ended>)>>,
    /// Why layers were kept.
    kept: Mutex<Vec<Text>>,
    /// How far the merges are.
    meter: Meter,
}

/// The files of a merge as they were when the lower one had the content.
#[derive(Debug, Clone, Copy)]
struct Ended {
    child: Stamp,
    /// `None` from an older version.
    parent: Option<Stamp>,
}

impl Destroy {
    /// Notes what a record tells of a merge.
    fn take_up(&self, record: Record) {
        match record {
            Record::Merge { merge } => self.merges().push((merge, None)),
            Record::Merged {
                child,
                seen,
                parent,
            } => {
                let mut merges = self.merges();
                for (_, merged) in merges.iter_mut().filter(|(m, _)| m.child == child) {
                    *merged = Some(Ended {
                        child: seen,
                        parent,
                    });
                }
            }
        }
    }

    fn merges(&self) -> MutexGuard<'_, Vec<(Merge, Option<Ended>)>> {
        self.merges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The merges, and whether each has the content in the lower file.
    fn written(&self) -> Vec<(Merge, bool)> {
        let merges = self.merges();
        let written = merges
            .iter()
            .map(|(merge, ended)| (merge.clone(), ended.is_some()));
        written.collect()
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Text>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Progress when the files begin to be removed and merged, and when that is done.
const CLEAN: (u8, u8) = (5, 97);

const FINISH: &[Step<Destroy>] = &[
    Step {
        name: "unrecord",
        percent: 1,
        doing: texts::SET_UNRECORDING,
        work: Work::Whole(relink::unrecord),
    },
    Step {
        name: "forget",
        percent: 2,
        doing: texts::FORGETTING,
        work: Work::Whole(relink::forget),
    },
    Step {
        name: "clean",
        percent: CLEAN.0,
        doing: texts::CLEANING,
        work: Work::Parts {
            run: clean::clean,
            undo: None,
        },
    },
    Step {
        name: "publish",
        percent: CLEAN.1,
        doing: texts::DESTROY_ENDING,
        work: Work::Publish,
    },
    Step {
        name: "clear",
        percent: 99,
        doing: texts::CLEARING,
        work: Work::Clear,
    },
];

/// Every fail point of a destroy, in the order in which they are passed.
pub static FAILPOINTS: LazyLock<Vec<&'static str>> = LazyLock::new(kind::points::<Destroy>);

/// The fail points within the cleaning of one member: passed once for each merge.
pub const MERGE_FAILPOINTS: &[&str] = &[
    "destroy.merge.before",
    "destroy.merge.after",
    "destroy.named.before",
    "destroy.named.after",
    "destroy.tops.after",
    "destroy.records.after",
    "destroy.unlink.after",
];

impl Kind for Destroy {
    type Part = Member;
    type Guests = ();
    type Intent = Intent;
    type Record = Record;

    const NAME: &'static str = "destroy";
    const FATE: Fate = Fate::Goes;
    const TAKE: &'static [Step<Self>] = &[];
    const FINISH: &'static [Step<Self>] = FINISH;
    const DEFERS: bool = true;
    const WAITS: &'static [(&'static str, Queue)] = &[("clean", Queue::Long)];
    const WORDS: Words = Words {
        failed: texts::DESTROY_WAITS,
        failed_undoing: None,
        interrupted: texts::DESTROY_RECOVERING,
        interrupted_undoing: None,
        undoing: texts::DESTROY_RECOVERING,
        undo_waits: texts::DESTROY_WAITS,
        finish_waits: texts::DESTROY_WAITS,
        recovering: texts::DESTROY_RECOVERING,
    };

    fn new(intent: Intent) -> Self {
        Self {
            intent,
            merges: Mutex::default(),
            kept: Mutex::default(),
            meter: Meter::default(),
        }
    }

    fn intent(&self) -> &Intent {
        &self.intent
    }

    /// A merge alone wants room before it gives any.
    fn frees(&self) -> bool {
        !self.intent.tidies
    }

    fn commits(_: &Record) -> bool {
        false // the intent was the commit
    }

    fn what(&self) -> What {
        match self.intent.tidies {
            true => What::Merge,
            false => What::Destroy,
        }
    }

    fn told(&self) -> String {
        match self.intent.tidies {
            true => "merge of hidden layers".to_owned(),
            false => format!("{} of snapshot set {}", Self::NAME, self.intent.set),
        }
    }

    fn job(&self) -> JobId {
        self.intent.job
    }

    fn set(&self) -> SetId {
        self.intent.set
    }

    fn parts(&self) -> &[Member] {
        &self.intent.members
    }

    fn name(part: &Member) -> &str {
        &part.name
    }

    /// In bytes that are merged, if any are.
    fn percent(&self, span: (u8, u8), count: usize) -> u8 {
        let of = self.parts().len();
        let merged = self.meter.percent(span, of).filter(|_| count < of);
        merged.unwrap_or_else(|| kind::of_parts(span, count, of))
    }

    fn replay(&mut self, record: Record) {
        self.take_up(record);
    }

    fn resources(&self) -> Vec<(Resource, Mode)> {
        let machines = self.intent.members.iter();
        let machines = machines.map(|m| (Resource::Machine(m.machine), Mode::Exclusive));
        let set = (Resource::Set(self.intent.set), Mode::Exclusive);
        machines.chain([set]).collect()
    }

    /// A snapshot is known by nothing any more: its records go first.
    fn shows_commit(&self, core: &Core) -> io::Result<bool> {
        let known = Known::of(core);
        let is_known = |m: &Member| known.members().any(|snapshot| snapshot.id == m.snapshot);
        let is_whole = self.intent.members.iter().all(is_known);
        Ok(!is_whole && !self.intent.tidies && known.unreadable.is_empty())
    }

    /// The files of each merge are those that its records tell, a child is only gone once it is merged, and not all is
    /// done: the copy of a definition goes last. What does not answer is judged by the merge itself.
    fn fits(&self, core: &Core, _: bool) -> bool {
        let is_gone = |e: &io::Error| EngineErrorKind::of(e) == EngineErrorKind::Missing;
        let is_there = |file: &PathBuf| !held::symlink_metadata(file).is_err_and(|e| is_gone(&e));
        let merges = self.merges();
        let files = core.deps.storage.files();
        let fit = merges
            .iter()
            .all(|(merge, merged)| match files.stands(merge) {
                [Stands::There, Stands::There] => true,
                [Stands::There, Stands::Gone] => merged.is_some(),
                _ => false,
            });
        let mut copies = self.intent.members.iter().map(|m| &m.definition);
        let mut children = merges.iter().map(|(merge, _)| &merge.child);
        fit && (copies.any(is_there) || children.any(is_there))
    }

    fn names(&self, named: &mut BTreeSet<PathBuf>) {
        for member in &self.intent.members {
            named.insert(member.definition.clone());
            named.extend(member.layers.iter().map(|l| l.file.clone()));
        }
    }

    fn publish(&self, state: &State) -> Option<(Text, Vec<Change>)> {
        let set = self.intent.set;
        let done = match self.intent.members.first() {
            Some(member) if state.sets.contains_key(&set) => {
                let text = texts::DESTROYED_MEMBER.with("set", set);
                text.with("machine", &member.name)
            }
            _ => texts::DESTROYED.with("set", set),
        };
        let kept = self.kept();
        if let (true, Some(member)) = (self.intent.tidies, self.intent.members.first()) {
            let status = match (kept.first(), self.merges().len()) {
                (None, 0) => texts::TIDIED_NOTHING.with("machine", &member.name),
                (None, count) => texts::TIDIED
                    .with("machine", &member.name)
                    .with("count", count),
                (Some(first), _) => texts::TIDIED_KEPT
                    .with("machine", &member.name)
                    .with("count", kept.len())
                    .with("cause", first),
            };
            return Some((status, Vec::new()));
        }
        let status = match kept.first() {
            None => done,
            Some(first) => texts::DESTROYED_KEPT
                .with("done", done)
                .with("count", kept.len())
                .with("cause", first),
        };
        Some((status, Vec::new()))
    }
}
