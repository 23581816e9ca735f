//! Applying a set: every disk of every member goes back to what its snapshot keeps.
//!
//! ```text
//!   prepare ▶ APPLIED ▶ revert ▶ tops ▶ publish (positions, job 7) ▶ tidy (old tops of ours) ▶ clear
//! ```

mod draft;
mod intent;
mod request;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::engine::Prepared;
use crate::id::{JobId, SetId, VmId};
use crate::inventory::{Image, LeftOut, Position, Snapshot, What};
use crate::snapshot::left_out::told_with;
use crate::snapshot::orphans;
use crate::snapshot::saga::core::Core;
use crate::snapshot::saga::crowd::Queue;
use crate::snapshot::saga::kind::{Fate, Kind, Step, Words};
use crate::snapshot::saga::leases::{Mode, Resource};
use crate::snapshot::stands::stands;
use crate::store::{Change, State};
use crate::text::catalog::snapshot as texts;
use crate::text::{Argument, Text};

pub use intent::{Intent, Made, Member, Record};
pub use request::ApplyRequest;
pub(crate) use request::apply;
pub use steps::FAILPOINTS;

/// A set being applied.
pub(crate) struct Apply {
    intent: Intent,
    noted: Mutex<Noted>,
}

/// What was noted of new files when they were made.
#[derive(Debug, Default)]
struct Noted {
    /// What they do not keep of the old ones beside their content.
    lost: Vec<Argument>,
    made: Made,
}

impl Apply {
    /// Notes what the new file of a disk does not keep, and which file it is.
    fn note(&self, member: &Member, disk: &str, prepared: Prepared) {
        let mut noted = self.noted();
        if !prepared.lost.is_empty() {
            let lost: Argument = prepared.lost.into_iter().collect();
            let told = texts::LOST_OF.with("lost", lost).with("disk", disk);
            let told = told.with("machine", &member.name).into();
            // A step may be done again.
            if !noted.lost.contains(&told) {
                noted.lost.push(told);
            }
        }
        if let Some(made) = prepared.made {
            let own = noted.made.entry(member.machine).or_default();
            own.insert(disk.to_owned(), made);
        }
    }

    fn record(&self) -> Record {
        let noted = self.noted();
        Record::Applied {
            lost: noted.lost.clone(),
            made: noted.made.clone(),
        }
    }

    /// The files of this machine that were made to take the place of its images.
    fn made(&self, machine: VmId) -> BTreeMap<String, Image> {
        self.noted().made.get(&machine).cloned().unwrap_or_default()
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kind for Apply {
    type Part = Member;
    type Guests = ();
    type Intent = Intent;
    type Record = Record;

    const NAME: &'static str = "apply";
    const FATE: Fate = Fate::Stays;
    const TAKE: &'static [Step<Self>] = steps::TAKE;
    const FINISH: &'static [Step<Self>] = steps::FINISH;
    const WAITS: &'static [(&'static str, Queue)] = &[("discard", Queue::Short)];
    const WORDS: Words = Words {
        failed: texts::APPLY_FAILED,
        failed_undoing: Some(texts::APPLY_FAILED_UNDOING),
        interrupted: texts::APPLY_INTERRUPTED,
        interrupted_undoing: Some(texts::APPLY_INTERRUPTED_UNDOING),
        undoing: texts::APPLY_UNDOING,
        undo_waits: texts::APPLY_UNDO_WAITS,
        finish_waits: texts::APPLY_FINISH_WAITS,
        recovering: texts::APPLY_RECOVERING,
    };

    fn new(intent: Intent) -> Self {
        let noted = Mutex::default();
        Self { intent, noted }
    }

    fn intent(&self) -> &Intent {
        &self.intent
    }

    fn commits(Record::Applied { .. }: &Record) -> bool {
        true
    }

    fn what(&self) -> What {
        What::Apply
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

    fn replay(&mut self, record: Record) {
        let Record::Applied { lost, made } = record;
        let mut noted = self.noted();
        noted.lost.extend(lost);
        noted.made.extend(made);
    }

    fn resources(&self) -> Vec<(Resource, Mode)> {
        let machines = self.intent.members.iter().map(|m| m.machine);
        resources(self.intent.set, machines)
    }

    fn shows_commit(&self, core: &Core) -> io::Result<bool> {
        let mut members = self.intent.members.iter();
        Ok(members.any(|member| {
            let machine = core.deps.compute.machine(member.machine);
            let now = machine.map(|m| m.tops()).unwrap_or_default();
            let mut moved = member.reverts.iter();
            moved.any(|r| {
                let active = now.get(&r.disk.id).map(|top| &top.file);
                let is_active = active.is_some_and(|active| active == r.made());
                r.is_exchanged() || (r.made() != r.disk.file && is_active)
            })
        }))
    }

    fn fits(&self, core: &Core, committed: bool) -> bool {
        let stands = self.intent.members.iter().all(|member| {
            let old = member.reverts.iter().map(|r| &r.disk);
            let new = committed.then_some(&member.tops);
            stands(core, member.machine, old, new)
        });
        // The new files of a machine that is gone are removed after the commit too.
        let is_gone = |m: &&Member| !committed || core.deps.compute.machine(m.machine).is_none();
        let goes = self.intent.members.iter().filter(is_gone);
        let made = goes.flat_map(|m| m.reverts.iter().map(|r| r.made().to_owned()));
        stands && !orphans::needs(core, made)
    }

    fn names(&self, named: &mut BTreeSet<PathBuf>) {
        for revert in self.intent.members.iter().flat_map(|m| &m.reverts) {
            named.insert(revert.made().to_owned());
            named.insert(revert.disk.file.clone());
        }
        let layers = self.intent.members.iter().flat_map(|m| &m.layers);
        named.extend(layers.map(|l| l.file.clone()));
    }

    fn publish(&self, state: &State) -> Option<(Text, Vec<Change>)> {
        if ended(state, self.intent.job) {
            return None;
        }
        let changes = self.intent.members.iter().map(|member| {
            let position = Position {
                parent: Some(member.snapshot),
                last_applied: Some(member.snapshot),
            };
            Change::PutPosition(member.machine, position)
        });
        let status = texts::APPLIED.with("set", self.intent.set);
        let status = status.with("of", self.intent.members.len());
        let applied = |s: &&Snapshot| self.intent.members.iter().any(|m| m.snapshot == s.id);
        let set = state.sets.get(&self.intent.set);
        let snapshots = set.into_iter().flat_map(|set| &set.members).filter(applied);
        let mut status = told_with(status, LeftOut::of(snapshots));
        let noted = self.noted();
        if !noted.lost.is_empty() {
            let text = texts::APPLIED_LOST.with("status", status);
            status = text.with("lost", noted.lost.iter().collect::<Argument>());
        }
        Some((status, changes.collect()))
    }
}

fn ended(state: &State, job: JobId) -> bool {
    state.jobs.get(&job).is_some_and(|j| j.state.is_terminal())
}

fn resources(set: SetId, machines: impl Iterator<Item = VmId>) -> Vec<(Resource, Mode)> {
    let machines = machines.map(|m| (Resource::Machine(m), Mode::Exclusive));
    let set = (Resource::Set(set), Mode::Exclusive);
    std::iter::once(set).chain(machines).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SnapshotId;
    use crate::text::catalog::engine;

    fn apply() -> Apply {
        Apply::new(Intent {
            job: JobId::from_u128(1),
            set: SetId::from_u128(2),
            members: Vec::new(),
        })
    }

    fn status(apply: &Apply) -> String {
        let (status, _) = apply.publish(&State::default()).unwrap();
        status.english()
    }

    #[test]
    fn what_new_files_do_not_keep_is_told_at_the_end_in_another_process_too() {
        let first = apply();
        let plain = status(&first);
        let member = Member {
            machine: VmId::from_u128(3),
            name: "web".into(),
            definition: PathBuf::new(),
            snapshot: SnapshotId::from_u128(4),
            reverts: Vec::new(),
            tops: BTreeMap::new(),
            layers: Vec::new(),
        };
        let note = |lost: &[Text]| {
            let lost = lost.to_vec();
            first.note(&member, "disk0", Prepared { lost, made: None });
        };
        note(&[]);
        assert_eq!(status(&first), plain);
        let lost = [
            engine::FLAG_DATA_JOURNAL.text(),
            engine::MODE_LOST.with("mode", "4755"),
        ];
        // A step that is done again.
        note(&lost);
        note(&lost);
        let told = status(&first);
        let wanted = "machine web, disk disk0 (flag j (data journal), mode 4755)";
        assert!(told.starts_with(&plain) && told.ends_with(wanted), "{told}");
        let record = serde_json::to_string(&first.record()).unwrap();
        let mut second = apply();
        second.replay(serde_json::from_str(&record).unwrap());
        assert_eq!(status(&second), told);
        // As older versions have written it.
        let replayed = |record: &str| {
            let mut old = apply();
            old.replay(serde_json::from_str(record).unwrap());
            status(&old)
        };
        assert_eq!(replayed(r#"{"record":"applied"}"#), plain);
        let told = replayed(r#"{"record":"applied","lost":["machine web, disk a: mode 4755"]}"#);
        assert!(told.ends_with(": machine web, disk a: mode 4755"), "{told}");
    }
}
