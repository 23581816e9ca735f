//! Destroying a set, or the snapshot of one of its machines.
//!
//! ```text
//!   INTENT (the commit) ▶ unrecord ▶ forget (one transaction: gone for clients) ▶ clean ▶ publish (job 7) ▶ clear
//! ```
//!
//! `clean` unlinks what nothing lies on, and merges a layer that nothing names into the file under it. What
//! cannot be merged now stays as a hidden layer; the status of the job says how many and why. A cancel stops
//! the merges and leaves their layers; the next destroy on the machine goes on with them.

mod again;
mod clean;
mod files;
mod free;
mod hidden;
mod intent;
mod left;
mod relink;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use crate::engine::failure::{self, At};
use crate::engine::graph::{self, Whose, is_ours};
use crate::engine::{EngineErrorKind, Stamp, merge};
use crate::held;
use crate::id::{JobId, SetId, SnapshotId, VmId};
use crate::inventory::{Affected, Format, JobKind, Service, Snapshot, SnapshotSet, What};
use crate::job::NewJob;
use crate::snapshot::damage;
use crate::snapshot::known::Known;
use crate::snapshot::meter::Meter;
use crate::snapshot::saga::accept::{self, about, powered_off};
use crate::snapshot::saga::answer::{Accepted, Refused};
use crate::snapshot::saga::core::Core;
use crate::snapshot::saga::kind::{self, Fate, Kind, Step, Words, Work};
use crate::snapshot::saga::leases::{Mode, Resource};
use crate::snapshot::saga::plan::plan_each;
use crate::snapshot::saga::start::start;
use crate::store::{Change, State};
use crate::text::Text;
use crate::text::catalog::snapshot as texts;

pub(crate) use again::turn;
pub use free::FREE_FAILPOINTS;
pub(crate) use free::{Freed, after_apply, all_layers};
pub use hidden::Hidden;
pub(crate) use hidden::{hidden, leftovers, tidy};
pub use intent::{Intent, Layer, Member, Merge, Record};
pub(crate) use left::sweep;
pub(crate) use relink::removal;

/// A wish to destroy a set or a part of it.
#[derive(Debug, Clone)]
pub struct DestroyRequest {
    /// The set.
    pub set: SetId,
    /// Only this member snapshot of it; all of them if `None`.
    pub snapshot: Option<SnapshotId>,
    /// The service whose method was called.
    pub service: Service,
    /// The user who called.
    pub owner: String,
}

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
    type Intent = Intent;
    type Record = Record;

    const NAME: &'static str = "destroy";
    const FATE: Fate = Fate::Goes;
    const TAKE: &'static [Step<Self>] = &[];
    const FINISH: &'static [Step<Self>] = FINISH;
    const DEFERS: bool = true;
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
    fn fits(&self, _: &Core, _: bool) -> bool {
        let is_gone = |e: &io::Error| failure::kind(e) == EngineErrorKind::Missing;
        let is_there = |file: &PathBuf| !held::symlink_metadata(file).is_err_and(|e| is_gone(&e));
        let merges = self.merges();
        let fit = merges.iter().all(|(merge, merged)| {
            let inodes = merge.inodes;
            let of = |file, inode| match merge::expected(file, inode) {
                Err(e) if is_gone(&e) => Some(false),
                Err(e) if !held::is_silence(&e) => None,
                _ => Some(true),
            };
            let child = of(&merge.child, inodes.child);
            of(&merge.parent, inodes.parent) == Some(true)
                && child.is_some_and(|there| there || merged.is_some())
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

/// Checks the request against the state, locks the members and the set and starts the job. Answers once job and journal
/// are durable; from then on it goes forward.
///
/// # Errors
/// [`Refused`].
pub(crate) async fn destroy(core: Arc<Core>, request: DestroyRequest) -> Result<Accepted, Refused> {
    let ids = Accepted {
        job: JobId::random(),
        set: request.set,
    };
    let (set, only) = (request.set, request.snapshot);
    let doing = match only {
        None => texts::DESTROYING.with("set", set),
        Some(_) => texts::DESTROYING_MEMBER.with("set", set),
    };
    let machines = core.deps.store.state().sets.get(&set).map(machines);
    let machines = machines.unwrap_or_default();
    // Sets of the same machines share files with it.
    let concerns =
        move |set: &SnapshotSet| set.members.iter().any(|m| machines.contains(&m.machine));
    let noticed = damage::notice(&core, None, concerns).await;
    noticed.map_err(|e| core.store_failed(&e))?;
    let (snapshots, lease) = accept::lease(&core, ids.job, doing.clone(), move |state| {
        let found = state.sets.get(&set).map(|s| s.members.clone());
        let mut found = found.unwrap_or_default();
        found.retain(|m| only.is_none_or(|id| m.id == id));
        if found.is_empty() {
            return Err(Refused::InvalidParameter(texts::NO_SET.with("set", set)));
        }
        let machines = found.iter().map(|m| Resource::Machine(m.machine));
        let wanted = machines.chain([Resource::Set(set)]);
        let wanted = wanted.map(|r| (r, Mode::Exclusive)).collect();
        Ok((found, wanted))
    })
    .await?;
    let about = about(&core.deps.store.state(), set, &snapshots);
    let affected = snapshots.iter().map(|m| Affected::Machine(m.machine));
    let affected = affected.chain([Affected::Set(set)]).collect();
    accept::caught_up(&core).await?;
    let members = plan_each(&core, snapshots, draft).await?;
    let intent = Intent {
        job: ids.job,
        set,
        members,
        tidies: false,
    };
    let job = NewJob {
        id: ids.job,
        kind: JobKind::DestroySnapshotSet,
        service: request.service,
        owner: request.owner,
        affected,
        about,
        set: None,
        status: doing,
    };
    start(&core, Destroy::new(intent), job, BTreeMap::new(), lease).await?;
    Ok(ids)
}

fn machines(set: &Arc<SnapshotSet>) -> BTreeSet<VmId> {
    set.members.iter().map(|m| m.machine).collect()
}

/// Everything that will be looked at: after a death nothing else leads to a layer that nobody names.
fn draft(core: &Core, snapshot: Snapshot) -> Result<Member, Refused> {
    let compute = &core.deps.compute;
    if compute.machine(snapshot.machine).is_some() || compute.trouble(snapshot.machine).is_some() {
        let running = texts::DESTROY_RUNNING;
        powered_off(core, snapshot.machine, running.text(), running)?;
    }
    let seals = snapshot.disks.iter().flat_map(|d| d.sealed.clone());
    let damaged = snapshot.disks.iter().filter_map(|d| d.damage.clone());
    let own = snapshot.disks.iter().filter(|d| graph::is_file(d));
    let captured = own.clone().map(|d| d.file.clone()).collect();
    let own: Vec<_> = own
        .map(|d| (d.id.clone(), d.file.clone(), d.format))
        .collect();
    let active = !own.is_empty();
    Ok(Member {
        machine: snapshot.machine,
        layers: layers(core, snapshot.machine, &snapshot.machine_name, own, active),
        sealed: seals.collect::<BTreeSet<_>>().into_iter().collect(),
        damaged: damaged.flat_map(|d| d.files).collect(),
        name: snapshot.machine_name,
        snapshot: snapshot.id,
        parent: snapshot.parent,
        definition: snapshot.definition,
        captured,
    })
}

/// `own` and every other file of the machine (the active ones too if `active`), with everything under them.
fn layers(
    core: &Core,
    id: VmId,
    name: &str,
    own: Vec<(String, PathBuf, Format)>,
    active: bool,
) -> Vec<Layer> {
    let machine = core.deps.compute.machine(id);
    let (state, known) = (core.deps.store.state(), Known::of(core));
    let imported = machine.as_deref().map(graph::imported).unwrap_or_default();
    let left = left::of(&state, id).filter(|l| damage::is_left(l));
    let mut sources = own;
    sources.extend(left.map(|l| (l.disk.clone(), l.file.clone(), l.format)));
    let captured: BTreeSet<_> = sources.iter().map(|(_, file, _)| file.clone()).collect();
    // Layers that another destroy had to keep may lie under any file of the machine.
    for other in known.members().filter(|m| m.machine == id) {
        let disks = other.disks.iter().filter(|d| graph::is_file(d));
        sources.extend(disks.map(|d| (d.id.clone(), d.file.clone(), d.format)));
    }
    if active {
        let disks = machine.iter().flat_map(|m| &m.disks);
        sources.extend(disks.map(|d| (d.id.clone(), d.file.clone(), d.format)));
    }
    let mut layers: BTreeMap<PathBuf, Layer> = BTreeMap::new();
    let sets = core.sets();
    for (disk, file, format) in sources {
        let kept = known.disks().find(|kept| kept.file == file);
        let whose = Whose {
            machine: machine.as_deref(),
            disk: &disk,
            sealed: kept.map_or(&[], |kept| &kept.sealed),
        };
        // A file that cannot be read now is looked at again when it is its turn.
        let chain = graph::chain_of(&At::new(name, &disk), whose, &file, format);
        let below = chain.layers.into_iter().skip(1);
        let below = below.map(|layer| (layer.file, layer.format));
        // Of what the server made only what it made for this machine may go.
        let is_own = |file: &Path| !is_ours(&sets, file) || graph::is_made_for(&sets, id, file);
        let below = below.filter(|(file, _)| is_own(file));
        for (file, format) in [(file.clone(), format)].into_iter().chain(below) {
            let written = captured.contains(&file) || imported.contains(&file);
            layers.entry(file.clone()).or_insert_with(|| Layer {
                disk: disk.clone(),
                file,
                format,
                written,
            });
        }
    }
    layers.into_values().collect()
}
