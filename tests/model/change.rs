//! Changes of the sets and exports, as clients ask for them; also by a server that dies meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use groupshot::client::Error;
use groupshot::snapshot::{apply, create, destroy, export};

use crate::support::site::{assert_holds, content};
use crate::support::wire::{Created, Job, STARTED, Shown};

use super::step::{Change, Death, Disks, Set};
use super::world::{SETS, World};

/// How long a server may take to pass a fail point that lies behind the end of its job.
const BEHIND: Duration = Duration::from_millis(300);

/// What a change leaves if it is done.
pub(super) enum Outcome {
    There(Set),
    Gone(String, Vec<String>),
    Applied(BTreeMap<String, Disks>),
    Exported(Set),
}

/// What was asked for, and what the server said, if it lived to say it.
type Asked = (Result<Created, Error>, Outcome);

impl World {
    /// Asks for the change; `None` if there is nothing to be changed.
    fn ask(&mut self, change: &Change, name: &str) -> Option<Asked> {
        let wire = &self.wire;
        Some(match change {
            Change::Create => {
                if self.sets.len() == SETS {
                    return None;
                }
                let members = self.machines.iter();
                let members = members.map(|m| (m.id.clone(), m.content.clone())).collect();
                let (id, name) = (String::new(), name.to_owned());
                let asked = wire.create(&self.group, &name);
                (asked, Outcome::There(Set { id, name, members }))
            }
            Change::Apply { set } => {
                let set = self.set(*set)?;
                (wire.apply(&set.id), Outcome::Applied(set.members.clone()))
            }
            Change::ApplyMember { set, member } => {
                let set = self.set(*set)?;
                let (machine, disks) = set.members.iter().nth(member % set.members.len())?;
                let members = [(machine.clone(), disks.clone())].into();
                let asked = wire.apply_member(&set.id, machine);
                (asked, Outcome::Applied(members))
            }
            Change::Destroy { set } => {
                let set = self.set(*set)?;
                let members = set.members.keys().cloned().collect();
                (
                    wire.destroy(&set.id),
                    Outcome::Gone(set.id.clone(), members),
                )
            }
            Change::DestroyMember { set, member } => {
                let set = self.set(*set)?;
                let machine = set.members.keys().nth(member % set.members.len())?.clone();
                let asked = wire.destroy_member(&set.id, &machine);
                (asked, Outcome::Gone(set.id.clone(), vec![machine]))
            }
            Change::Export { set } => {
                let set = self.set(*set)?.clone();
                self.make_room();
                if self.root.join(&set.id).exists() {
                    return None; // a machine lives on it
                }
                let asked = self.wire.export(&set.id, self.root.to_str().unwrap(), None);
                (asked, Outcome::Exported(set))
            }
        })
    }

    /// One of the sets that are there.
    fn set(&self, number: usize) -> Option<&Set> {
        self.sets.get(number.checked_rem(self.sets.len())?)
    }

    /// Removes the last export unless machines have their disks in it: it makes place for another one.
    fn make_room(&mut self) {
        if let Some((folder, _)) = self.exported.last.take()
            && !self.exported.imported.contains(&folder)
        {
            fs::remove_dir_all(folder).unwrap();
        }
    }

    pub(super) fn change(&mut self, change: &Change, name: &str, what: &str) {
        let Some((asked, outcome)) = self.ask(change, name) else {
            return;
        };
        let job = self.accepted(asked.unwrap(), what);
        let job = self.wire.end(&job).unwrap();
        assert_eq!((job.state, job.code), (7, 0), "{what}: {job:?}");
        let shown = self.wire.shown().unwrap();
        assert!(self.is_done(&outcome, Some(&job), &shown), "{what}");
        self.take_over(outcome, &shown);
    }

    /// The job of a change; nothing that is asked for here may be refused.
    fn accepted(&self, asked: Created, what: &str) -> String {
        assert_eq!(asked.value, STARTED, "{what}: {}", self.wire.why(&asked));
        asked.job.unwrap()
    }

    /// The server dies at or after the change and starts again: it is done or it never was.
    pub(super) fn killed(&mut self, change: &Change, name: &str, death: &Death, what: &str) {
        if let Death::At(n) = death {
            let points = points(change);
            self.server.stop();
            self.start(&format!("{}=abort", points[n % points.len()]));
        }
        let asked = self.ask(change, name);
        let mut job = None;
        if let Some((Ok(asked), _)) = &asked {
            let id = self.accepted(asked.clone(), what);
            job = Some(id);
        }
        match death {
            Death::After(millis) => std::thread::sleep(Duration::from_millis(*millis)),
            Death::At(_) => {
                // Its end, or that of the server.
                let _ = job.as_ref().map(|id| self.wire.end(id));
                self.server.wait(BEHIND);
            }
        }
        self.server.kill();
        self.start("");
        let Some((_, outcome)) = asked else {
            return;
        };
        let job = job.map(|id| self.wire.end(&id).unwrap());
        self.site.wait_for_journals();
        let shown = self.wire.shown().unwrap();
        let done = self.is_done(&outcome, job.as_ref(), &shown);
        if let Some(job) = job {
            assert_eq!(done, job.state == 7, "{what}: {job:?}");
        }
        if done {
            self.take_over(outcome, &shown);
        }
    }

    /// Whether the change is to be seen. What it then holds is for the check of everything.
    fn is_done(&self, outcome: &Outcome, job: Option<&Job>, shown: &Shown) -> bool {
        match (outcome, job) {
            (Outcome::There(set), _) => shown.sets.values().any(|s| s.name == set.name),
            (Outcome::Gone(set, machines), _) => shown
                .sets
                .get(set)
                .is_none_or(|s| !s.members.iter().any(|m| machines.contains(&m.machine))),
            (Outcome::Exported(set), _) => self.root.join(&set.id).exists(),
            (Outcome::Applied(_), Some(job)) => job.state == 7,
            // Nobody knows its job. Had only some gone back, the check would find the others.
            (Outcome::Applied(members), None) => {
                let machines = self.machines.iter();
                let mut found = machines.filter_map(|m| Some((m, members.get(&m.id)?)));
                found.all(|(machine, disks)| {
                    let mut disks = disks.iter().enumerate();
                    disks.all(|(n, expected)| content(&self.site.top(machine, n)) == *expected)
                })
            }
        }
    }

    fn take_over(&mut self, outcome: Outcome, shown: &Shown) {
        match outcome {
            Outcome::There(mut set) => {
                let mut found = shown.sets.iter().filter(|(_, s)| s.name == set.name);
                set.id.clone_from(found.next().unwrap().0);
                self.sets.push(set);
            }
            Outcome::Gone(id, machines) => {
                for set in self.sets.iter_mut().filter(|s| s.id == id) {
                    set.members.retain(|machine, _| !machines.contains(machine));
                }
                self.sets.retain(|set| !set.members.is_empty());
            }
            Outcome::Applied(members) => {
                for machine in &mut self.machines {
                    if let Some(disks) = members.get(&machine.id) {
                        machine.content.clone_from(disks);
                    }
                }
            }
            Outcome::Exported(set) => {
                let folder = self.root.join(&set.id);
                for (machine, disks) in &set.members {
                    for (n, expected) in disks.iter().enumerate() {
                        let file = folder.join(machine).join(format!("disk{n}.qcow2"));
                        assert_holds(&file, expected, &format!("export of {}", set.name));
                    }
                }
                self.exported.last = Some((folder, set.members));
            }
        }
    }
}

/// The fail points that the change may pass.
fn points(change: &Change) -> Vec<&'static str> {
    match change {
        Change::Create => create::FAILPOINTS.to_vec(),
        Change::Apply { .. } | Change::ApplyMember { .. } => {
            [apply::FAILPOINTS.as_slice(), free_of("apply").as_slice()].concat()
        }
        Change::Destroy { .. } | Change::DestroyMember { .. } => [
            destroy::FAILPOINTS.as_slice(),
            destroy::MERGE_FAILPOINTS,
            free_of("destroy").as_slice(),
        ]
        .concat(),
        Change::Export { .. } => export::FAILPOINTS.to_vec(),
    }
}

/// Those around the removal of a file, of this kind of operation.
fn free_of(kind: &str) -> Vec<&'static str> {
    let all = destroy::FREE_FAILPOINTS.iter().copied();
    all.filter(|point| point.starts_with(kind)).collect()
}
