//! Taking a set: resolve, lease, hold, plan; then the steps.
//!
//! ```text
//!   define ▶ prepare ▶ PREPARED ▶ cut ▶ window ▶ settle ▶ CUT ▶ record ▶ tops ▶ publish (set, positions, job 7) ▶ clear
//! ```

mod check;
mod draft;
mod intent;
mod request;
mod running;
mod selection;
mod steps;
mod window;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::engine::{At, Compute, FileId, Followed, Plan, Stopped};
use crate::held;
use crate::id::{JobId, SetId, VmId};
use crate::inventory::{LeftOut, Position, SnapshotSet, What};
use crate::snapshot::damage;
use crate::snapshot::left_out::told_with;
use crate::snapshot::orphans;
use crate::snapshot::saga::core::Core;
use crate::snapshot::saga::guard::wire::Report;
use crate::snapshot::saga::kind::{Fate, Kind, Step, Words};
use crate::snapshot::saga::leases::{Mode, Resource};
use crate::snapshot::saga::plan::one;
use crate::snapshot::saga::window::Standing;
use crate::snapshot::saga::word::Note;
use crate::snapshot::stands::stands;
use crate::store::{Change, State, record};
use crate::text::Text;
use crate::text::catalog::snapshot as texts;

pub(crate) use check::check;
pub use check::{Checked, CheckedDisk};
pub use intent::{Digests, FileCopy, Intent, Made, Member, Record, Runs, Seals};
pub use request::CreateRequest;
pub(crate) use request::create;
pub use selection::machines_of;
pub use steps::FAILPOINTS;
pub use window::WINDOW_FAILPOINTS;

/// A set being taken.
pub(crate) struct Create {
    intent: Intent,
    /// When each machine was captured.
    times: Mutex<BTreeMap<VmId, Timestamp>>,
    /// What the captured files look like.
    seals: Mutex<Seals>,
    /// What stands in the copies of the definitions.
    digests: Mutex<Digests>,
    /// What the files are that machines have opened for it.
    made: Mutex<Made>,
    /// The machines of whose files it is recorded which may go.
    decided: Mutex<BTreeSet<VmId>>,
    /// Which machines may stand still for it.
    standing: Mutex<Standing>,
    /// Those that somebody else had stopped.
    stood: BTreeSet<VmId>,
    /// The disks whose old file something else may have written.
    stale: Mutex<BTreeSet<(VmId, String)>>,
    /// What has their monitors watched.
    followed: Mutex<BTreeMap<VmId, Followed>>,
    /// What the undo had to leave.
    left: Mutex<Vec<Text>>,
}

impl Create {
    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn times(&self) -> BTreeMap<VmId, Timestamp> {
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.clone()
    }

    fn seals(&self) -> MutexGuard<'_, Seals> {
        self.seals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn digests(&self) -> MutexGuard<'_, Digests> {
        self.digests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all_made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The new file of a plan, if it was made and its machine opens it itself.
    fn made(&self, plan: &Plan) -> Option<FileId> {
        let made = self.all_made();
        made.get(&plan.machine)?.get(&plan.disk.id).copied()
    }

    fn decided(&self) -> MutexGuard<'_, BTreeSet<VmId>> {
        self.decided.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stale(&self) -> MutexGuard<'_, BTreeSet<(VmId, String)>> {
        self.stale.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the monitor of a machine watched until the operation is over.
    fn follow(&self, compute: &dyn Compute, stopped: &Stopped) {
        let followed = self.followed.lock();
        let mut followed = followed.unwrap_or_else(PoisonError::into_inner);
        let new = || compute.follow(stopped);
        followed.entry(stopped.machine).or_insert_with(new);
    }

    /// Notes a file that the undo had to leave.
    fn stays(&self, text: Text) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if !left.contains(&text) {
            tracing::warn!(why = text.english(), "A file that was to be removed stays");
            left.push(text);
        }
    }

    /// The set as it is published.
    fn finished(&self) -> SnapshotSet {
        let (seals, digests) = (self.seals(), self.digests());
        self.intent.finished(&self.times(), &seals, &digests)
    }

    /// Notes that the machine's disks are captured now.
    fn captured(&self, machine: VmId, now: Timestamp) {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.insert(machine, now);
    }
}

impl Kind for Create {
    type Part = Member;
    type Guests = window::Guests;
    type Intent = Intent;
    type Record = Record;

    const NAME: &'static str = "create";
    const FATE: Fate = Fate::Made;
    const TAKE: &'static [Step<Self>] = steps::TAKE;
    const FINISH: &'static [Step<Self>] = steps::FINISH;
    const WORDS: Words = Words {
        failed: texts::STEP_FAILED,
        failed_undoing: Some(texts::STEP_FAILED_UNDOING),
        interrupted: texts::INTERRUPTED,
        interrupted_undoing: Some(texts::INTERRUPTED_UNDOING),
        undoing: texts::UNDOING,
        undo_waits: texts::UNDO_WAITS,
        finish_waits: texts::FINISH_WAITS,
        recovering: texts::STILL_RECOVERING,
    };

    fn new(intent: Intent) -> Self {
        Self {
            intent,
            times: Mutex::default(),
            seals: Mutex::default(),
            digests: Mutex::default(),
            made: Mutex::default(),
            decided: Mutex::default(),
            standing: Mutex::default(),
            stood: BTreeSet::new(),
            stale: Mutex::default(),
            followed: Mutex::default(),
            left: Mutex::default(),
        }
    }

    fn intent(&self) -> &Intent {
        &self.intent
    }

    fn commits(record: &Record) -> bool {
        matches!(record, Record::Cut { .. })
    }

    fn what(&self) -> What {
        What::Create
    }

    fn job(&self) -> JobId {
        self.intent.set.job
    }

    fn set(&self) -> SetId {
        self.intent.set.id
    }

    fn parts(&self) -> &[Member] {
        &self.intent.members
    }

    fn name(part: &Member) -> &str {
        &part.name
    }

    fn stops_in(&self) -> Option<&str> {
        self.intent.boot.as_deref()
    }

    fn recalls(&mut self, notes: &[Note]) {
        for (member, note) in self.intent.members.iter().zip(notes) {
            if let Some(captured) = note.captured {
                self.captured(member.machine, captured);
            }
            if note.stood {
                self.stood.insert(member.machine);
            }
        }
    }

    fn stands(&mut self, standing: Standing) {
        self.standing = Mutex::new(standing);
    }

    fn was_open(&mut self, guard: Option<&Report>, settled: bool) {
        let mut standing = Standing::default();
        for member in &self.intent.members {
            let Some(runs) = &member.runs else {
                continue;
            };
            // What the guard has let go may stand still again since, for somebody else.
            let freed = guard.map(|it| it.freed(member.machine)).unwrap_or_default();
            if freed.has_ended {
                continue;
            }
            let stood = self.stood.contains(&member.machine);
            if !settled && runs.goes_on && !freed.goes_on && !stood {
                standing.stopped.insert(member.machine);
            }
            if !member.taken().is_empty() {
                standing.blocked.insert(member.machine);
            }
            if !settled && runs.quiesces && !(freed.is_thawed && freed.was_frozen) {
                standing.frozen.insert(member.machine, freed.was_frozen);
            }
        }
        self.standing = Mutex::new(standing);
    }

    fn replay(&mut self, record: Record) {
        match record {
            Record::Prepared { made } => self.made = Mutex::new(made),
            Record::Decided { machine } => drop(self.decided().insert(machine)),
            Record::Stale { machine, disk } => drop(self.stale().insert((machine, disk))),
            Record::Cut {
                times,
                seals,
                definitions,
            } => {
                self.times = Mutex::new(times);
                self.seals = Mutex::new(seals);
                self.digests = Mutex::new(definitions);
            }
        }
    }

    fn resources(&self) -> Vec<(Resource, Mode)> {
        let machines = self.intent.members.iter();
        let machines = machines.map(|m| (Resource::Machine(m.machine), Mode::Exclusive));
        machines.collect()
    }

    fn shows_commit(&self, core: &Core) -> io::Result<bool> {
        record::is_there(&core.deps.data_dir, self.set())
    }

    fn fits(&self, core: &Core, committed: bool) -> bool {
        let seals = self.seals();
        let sealed = seals.values().flat_map(|disks| disks.values()).flatten();
        let gone = |file| held::symlink_metadata(file).is_err_and(|e| !held::is_silence(&e));
        let mut lost = sealed.filter(|s| damage::is_changed(s) || gone(&s.file));
        let mut members = self.intent.members.iter();
        let stands = members.all(|member| {
            let old = member.plans.iter().map(|plan| &plan.disk);
            let new = (committed || member.runs.is_some()).then_some(&member.tops);
            stands(core, member.machine, old, new)
        });
        let made = || {
            let members = self.intent.members.iter();
            members.flat_map(|member| {
                // What a machine went on with on its own has become its active file, perhaps.
                let runs = member.runs.as_ref();
                let machine = runs.and_then(|_| core.deps.compute.machine(member.machine));
                let tops = machine.map(|machine| machine.tops()).unwrap_or_default();
                let goes = move |plan: &&Plan| {
                    let top = tops.get(&plan.disk.id);
                    top.is_none_or(|top| Some(top) != member.tops.get(&plan.disk.id))
                };
                let files = member.plans.iter().filter(goes).flat_map(Plan::names);
                files.chain([member.definition.to.clone()])
            })
        };
        lost.next().is_none() && stands && (committed || !orphans::needs(core, made()))
    }

    fn names(&self, named: &mut BTreeSet<PathBuf>) {
        for member in &self.intent.members {
            named.insert(member.definition.to.clone());
            for plan in &member.plans {
                named.extend(plan.names());
                named.insert(plan.disk.file.clone());
            }
        }
    }

    fn keeps(&self) -> BTreeMap<PathBuf, At> {
        let members = self.intent.set.members.iter();
        let disks = members.flat_map(|m| m.disks.iter().map(move |d| (m, d)));
        let kept = disks.map(|(m, d)| (d.file.clone(), At::new(&m.machine_name, &d.id)));
        kept.collect()
    }

    fn left(&self) -> Option<Text> {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        one(left.iter().cloned())
    }

    fn publish(&self, state: &State) -> Option<(Text, Vec<Change>)> {
        if state.sets.contains_key(&self.set()) {
            return None;
        }
        let set = self.finished();
        let members = set.members.iter().map(|member| {
            let parent = Some(member.id);
            let old = state.position(member.machine);
            Change::PutPosition(member.machine, Position { parent, ..old })
        });
        let mut changes: Vec<_> = members.collect();
        let status = texts::COMPLETED.with("set", set.id);
        let status = status.with("of", set.members.len());
        let status = told_with(status, LeftOut::of(set.members.iter()));
        changes.push(Change::PutSet(set));
        Some((status, changes))
    }
}
