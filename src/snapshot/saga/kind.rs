//! What a kind of operation brings along: its steps, its words, what it works on and what it publishes.
//!
//! `TAKE` ends with the commit record, and one of its steps may be a window, in which machines stand still (`window`). Any
//! of its steps may fail, and then every undo runs, last step first. A kind
//! that is committed by its intent together with its job (decision 55) has an empty `TAKE`. `FINISH` goes forward only
//! and is tried until it is done. Every step may be repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::engine::{At, EngineError, Fence};
use crate::id::{JobId, SetId, VmId};
use crate::inventory::What;
use crate::snapshot::saga::core::Core;
use crate::snapshot::saga::crowd::Queue;
use crate::snapshot::saga::guard::wire::{Report, Ward};
use crate::snapshot::saga::leases::{Mode, Resource};
use crate::snapshot::saga::operation::Operation;
use crate::snapshot::saga::window::{Frame, Released, Standing};
use crate::snapshot::saga::word::Note;
use crate::store::{Change, State};
use crate::text::{Message, Text};

/// A kind of operation: its intent, and what it learned since.
pub(crate) trait Kind: Send + Sync + Sized + 'static {
    /// What its steps work on, several at a time: one machine, usually.
    type Part: Send + Sync + 'static;
    /// What its window goes through with: the machines, as they were found before it.
    type Guests: Send + 'static;
    /// The first record of its journal: all that recovery needs to know, before anything is made.
    type Intent: Clone + Serialize + DeserializeOwned + Send + Sync + 'static;
    /// What its journal tells later, tagged with a name of its own: `record`.
    type Record: Clone + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Its name in journals, and the prefix of its fail points: `create`.
    const NAME: &'static str;
    /// What becomes of its set.
    const FATE: Fate;
    /// Up to and including the commit record, which is the last step; empty if intent and job are the commit.
    const TAKE: &'static [Step<Self>];
    /// After the commit point. Holds a `Publish` and ends with `Clear`.
    const FINISH: &'static [Step<Self>];
    /// ErrorCode of its job when it failed: "Failed" among the return values of its method.
    const FAILED: u16 = 2;
    /// The same when something else stood in the place of a file or folder: "Invalid State" among those values.
    const INVALID_STATE: u16 = 5;
    /// A cancel after the commit point is accepted: work that can be deferred is left for later, and the job ends as
    /// cancelled. Nothing is undone.
    const DEFERS: bool = false;
    /// The steps whose parts may wait for the library or for readers of a file: not all at once on threads.
    const WAITS: &'static [(&'static str, Queue)] = &[];
    /// How it speaks.
    const WORDS: Words;

    /// As it begins, or as its journal tells that it began.
    fn new(intent: Self::Intent) -> Self;

    /// What it began with.
    fn intent(&self) -> &Self::Intent;

    /// Does it give room back? What is kept for that is let go where it finds none.
    fn frees(&self) -> bool {
        false
    }

    /// Is it a commit point, from where it only goes forward?
    fn commits(record: &Self::Record) -> bool;

    /// What it does, for the history.
    fn what(&self) -> What;

    /// What it does, in words.
    fn told(&self) -> String {
        format!("{} of snapshot set {}", Self::NAME, self.set())
    }

    /// Its job.
    fn job(&self) -> JobId;

    /// The set that it makes or works on; texts name it.
    fn set(&self) -> SetId;

    /// What the steps work on.
    fn parts(&self) -> &[Self::Part];

    /// How texts name a part; empty if it is no machine.
    fn name(part: &Self::Part) -> &str;

    /// The machines that it works on, by name.
    fn machines(&self) -> Vec<String> {
        let names = self.parts().iter().map(|part| Self::name(part).to_owned());
        names.collect()
    }

    /// How far a step that goes from `span.0` to `span.1` percent is, once `count` of its parts are done.
    fn percent(&self, span: (u8, u8), count: usize) -> u8 {
        of_parts(span, count, self.parts().len())
    }

    /// The run of the host in which it stops machines, if it does: its journal is of another version then, and the commit
    /// word counts in that run only.
    fn stops_in(&self) -> Option<&str> {
        None
    }

    /// What a dead process has noted of its parts beside the word.
    fn recalls(&mut self, _: &[Note]) {}

    /// A dead process may have stopped any of its machines, unless they are `settled` since, and have begun to undo what it
    /// did; what its guard has done since, if it had to.
    fn was_open(&mut self, _guard: Option<&Report>, _settled: bool) {}

    /// Where its machines stand since they were let go for it.
    fn stands(&mut self, _: Standing) {}

    /// Takes up what a later record of its journal tells.
    fn replay(&mut self, record: Self::Record);

    /// What recovery leases for it. Acceptance may lease more, such as collections, which matter only until the members
    /// are fixed.
    fn resources(&self) -> Vec<(Resource, Mode)>;

    /// Whether the disk or the store shows that it was committed, even if the journal has no commit record: a record
    /// cut off from the end of a journal looks as if it had never been written. Blocks.
    fn shows_commit(&self, _: &Core) -> io::Result<bool> {
        Ok(false)
    }

    /// Whether this journal can belong to the present state (decision 51). Asked only if the database does not show
    /// that the operation is open: it may have ended long ago. The machines must have the active files from before it
    /// or, if it is `committed`, those that it gave them. What a `committed` one captured must still be there; of one
    /// that is not, nobody may need what the undo would remove. Blocks.
    fn fits(&self, _: &Core, _committed: bool) -> bool {
        true
    }

    /// Adds every file that it makes or keeps, by every name that the file may have meanwhile.
    fn names(&self, named: &mut BTreeSet<PathBuf>);

    /// The files that the set keeps once it is published: their locks go from *held* to *frozen* without a gap in which
    /// somebody could open them for writing.
    fn keeps(&self) -> BTreeMap<PathBuf, At> {
        BTreeMap::new()
    }

    /// A text about files that the undo could not remove, if there are any.
    fn left(&self) -> Option<Text> {
        None
    }

    /// The final status of the job, and the changes that are committed together with its end. `None` if they are
    /// committed already, by this process or by one that died.
    fn publish(&self, state: &State) -> Option<(Text, Vec<Change>)>;
}

/// The percent within `span` at which `count` of `of` parts are done.
pub(crate) fn of_parts((from, to): (u8, u8), count: usize, of: usize) -> u8 {
    let [count, of] = [count, of.max(1)].map(|n| u128::try_from(n).unwrap_or(1));
    let part = u128::from(to.saturating_sub(from)) * count / of.max(1);
    from.saturating_add(u8::try_from(part).unwrap_or(0)).min(to)
}

/// What becomes of the set of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is made.
    Made,
    /// It stays what it is.
    Stays,
    /// It goes, or a part of it.
    Goes,
}

/// How a kind speaks of itself. Each text takes the argument `set`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Words {
    /// A step failed and everything was undone: `doing`, `cause`.
    pub(crate) failed: Message,
    /// The same, and the undo is still to come; none if it says so itself.
    pub(crate) failed_undoing: Option<Message>,
    /// The server stopped before the commit point.
    pub(crate) interrupted: Message,
    /// The same, and the undo is still to come.
    pub(crate) interrupted_undoing: Option<Message>,
    /// Status of the job while it is undone.
    pub(crate) undoing: Message,
    /// The undo waits: `cause`.
    pub(crate) undo_waits: Message,
    /// It is committed and waits: `cause`.
    pub(crate) finish_waits: Message,
    /// A recovery is at work on it.
    pub(crate) recovering: Message,
}

/// One step.
pub(crate) struct Step<K: Kind> {
    /// Its name in fail points: `<kind>.<name>.before`, `<kind>.<name>.after`.
    pub(crate) name: &'static str,
    /// Progress when it begins.
    pub(crate) percent: u8,
    /// What it does, for the job's status.
    pub(crate) doing: Message,
    /// The work.
    pub(crate) work: Work<K>,
}

/// Work on one part; blocks.
pub(crate) type PartWork<K> = fn(&Operation<K>, &<K as Kind>::Part) -> Result<(), EngineError>;

/// Work on everything at once, after the commit point; blocks.
pub(crate) type WholeWork<K> = fn(&Operation<K>) -> Result<(), EngineError>;

/// Work on all parts at once while machines stand still; gives back once they were asked to go on.
pub(crate) type WindowWork<K> =
    fn(Frame<K>, <K as Kind>::Guests) -> BoxFuture<'static, Result<(), EngineError>>;

/// Finds the machines that will stand still, once for all that comes.
pub(crate) type Fences<K> =
    for<'a> fn(&'a Core, &'a K) -> BoxFuture<'a, Result<Fenced<K>, EngineError>>;

/// The machines of a window.
pub(crate) struct Fenced<K: Kind> {
    /// By what a guard reaches those that outlive this process, and what each is owed.
    pub(crate) wards: Vec<(Ward, Fence)>,
    /// The same machines, for the window itself.
    pub(crate) guests: K::Guests,
}

/// Closes the files of those that end meanwhile; goes on beside the window until that is over.
pub(crate) type Keep<K> = fn(Arc<Operation<K>>, &<K as Kind>::Guests) -> BoxFuture<'static, ()>;

/// Is told of each machine that is owed nothing any more, at once.
pub(crate) type Freeing<'a> = &'a (dyn Fn(VmId) + Sync);

/// Lets every machine go on that stands still for it. May be repeated.
pub(crate) type Release<K> = for<'a> fn(&'a Core, &'a K, Freeing<'a>) -> BoxFuture<'a, Released>;

/// The kinds of work.
pub(crate) enum Work<K: Kind> {
    /// On each part, several at a time.
    Parts {
        /// Does it.
        run: PartWork<K>,
        /// Undoes it, also if it was never or half done.
        undo: Option<PartWork<K>>,
    },
    /// What machines that run stand still for; nothing if [none do](Kind::stops_in). One at most, before the commit record.
    Window {
        /// Does it, and swaps the commit word.
        run: WindowWork<K>,
        /// Comes before it: what it and the guard are given.
        fences: Fences<K>,
        /// Runs beside it.
        keep: Keep<K>,
        /// Its undo, before anything is written; and the rest of it, where some machine did not go on at once.
        release: Release<K>,
        /// Where a process died after the word: whether what was captured of a part is still as it was, which is kept so
        /// from now on.
        again: PartWork<K>,
    },
    /// One thing for all parts.
    Whole(WholeWork<K>),
    /// A journal record.
    Record(fn(&K) -> K::Record),
    /// The one commit that makes the result visible and ends the job. What was held is let go before.
    Publish,
    /// The journal is removed.
    Clear,
}

/// The fail points of a kind in the order in which they are passed; those of the undo last. For tests, which ask once and
/// keep them.
pub(crate) fn points<K: Kind>() -> Vec<&'static str> {
    let point = |name: &str, side: &str| -> &'static str {
        String::leak(format!("{}.{name}.{side}", K::NAME))
    };
    let of = |name: &str| ["before", "after"].map(|side| point(name, side));
    let mut points: Vec<_> = of("intent").into();
    points.push(point("job", "after"));
    points.extend(K::TAKE.iter().chain(K::FINISH).flat_map(|s| of(s.name)));
    if !K::TAKE.is_empty() {
        points.extend(of("abort"));
        points.extend(of("undone"));
    }
    points
}
