//! Who holds which machine, set or collection in this process: exclusive or shared leases. There is no queue: a
//! conflict is refused, except that `accept` retries for up to 5 s while the holder is about to let go.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::id::{CollectionId, JobId, SetId, VmId};
use crate::text::Text;

/// Something that an operation may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// A machine: exclusively by create, apply and destroy.
    Machine(VmId),
    /// A set: shared by export, exclusively by apply and destroy.
    Set(SetId),
    /// A collection: shared by every operation that works on its members; its owner's edits wait.
    Collection(CollectionId),
    /// The place of a set in a directory, this by device and inode: exclusively by the export to it.
    Export(SetId, (u64, u64)),
}

/// Who holds something, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The job.
    pub job: JobId,
    /// What it is doing; for an operation that cannot be finished now, why not.
    pub doing: Text,
    /// A dead process left it, and this one is ending it.
    pub recovering: bool,
    /// Its undo failed at the last attempt: nobody knows when it can be finished.
    pub stuck: bool,
    /// Something it has to do failed and is tried again.
    pub waits: bool,
    /// It only looks, and is done in a moment.
    pub brief: bool,
    /// Files that do not answer and that it waits for, each by a number of its own.
    pub stands: BTreeMap<u64, Stand>,
}

impl Holder {
    /// Nobody knows when it can end.
    #[must_use]
    pub fn cannot_end(&self) -> bool {
        self.stuck || self.waits || !self.stands.is_empty()
    }

    /// Nothing keeps one that has ended for its client from closing its journal soon; also of one that a start has taken up.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        !self.waits && self.stands.is_empty()
    }

    /// What it is doing, or the file that it waits for.
    #[must_use]
    pub fn told(&self) -> &Text {
        let first = self.stands.values().next();
        first.map_or(&self.doing, |stand| &stand.text)
    }
}

/// A wait for a file that does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stand {
    /// The files, one of which it is; none is known of one that is being closed.
    pub files: Vec<PathBuf>,
    /// In words.
    pub text: Text,
}

/// Something that a lease was refused for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Busy {
    /// What is held.
    pub resource: Resource,
    /// By whom.
    pub holder: Box<Holder>,
}

/// How a resource is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Alone.
    Exclusive,
    /// Beside other sharers.
    Shared,
    /// Alone, and for a moment: who wants it meanwhile waits.
    Brief,
}

/// The table of leases. Cloned handles share it.
#[derive(Debug, Clone, Default)]
pub struct Leases {
    table: Arc<Mutex<Table>>,
    /// Counts leases given back.
    released: Arc<watch::Sender<u64>>,
}

#[derive(Debug, Default)]
struct Table {
    held: BTreeMap<Resource, BTreeMap<JobId, Mode>>,
    jobs: BTreeMap<JobId, Holder>,
}

impl Leases {
    /// Takes every resource for `job`, or none.
    ///
    /// # Errors
    /// Every resource that another job holds in a way that excludes this one, at least one.
    pub fn lease(
        &self,
        job: JobId,
        doing: Text,
        wanted: &[(Resource, Mode)],
    ) -> Result<Lease, Vec<Busy>> {
        let mut table = self.lock();
        let busy = wanted.iter().filter_map(|(resource, mode)| {
            let holder = table.conflict(*resource, *mode, job)?;
            let (resource, holder) = (*resource, Box::new(holder));
            Some(Busy { resource, holder })
        });
        let busy: Vec<_> = busy.collect();
        if !busy.is_empty() {
            return Err(busy);
        }
        for (resource, mode) in wanted {
            table.held.entry(*resource).or_default().insert(job, *mode);
        }
        let holder = Holder {
            job,
            doing,
            recovering: false,
            stuck: false,
            waits: false,
            brief: wanted.iter().any(|(_, mode)| *mode == Mode::Brief),
            stands: BTreeMap::new(),
        };
        table.jobs.insert(job, holder);
        Ok(Lease {
            members: self.clone(),
            job,
        })
    }

    /// Who holds it, if anyone does.
    #[must_use]
    pub fn holder(&self, resource: Resource) -> Option<Holder> {
        let table = self.lock();
        let job = *table.held.get(&resource)?.keys().next()?;
        table.jobs.get(&job).cloned()
    }

    /// Everyone who cannot end now, or waits for a file that does not answer, each with what it holds.
    #[must_use]
    pub fn stuck(&self) -> Vec<(Holder, Vec<Resource>)> {
        let table = self.lock();
        let held = |job: &JobId| {
            let of = table.held.iter().filter(|(_, by)| by.contains_key(job));
            of.map(|(resource, _)| *resource).collect()
        };
        let stuck = table.jobs.iter();
        stuck
            .filter(|(_, h)| h.cannot_end())
            .map(|(job, holder)| (holder.clone(), held(job)))
            .collect()
    }

    /// Sees every lease that is given back from now on.
    #[must_use]
    pub fn released(&self) -> watch::Receiver<u64> {
        self.released.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn conflict(&self, resource: Resource, mode: Mode, job: JobId) -> Option<Holder> {
        let (other, _) = self.held.get(&resource)?.iter().find(|(other, held)| {
            **other != job && (mode != Mode::Shared || **held != Mode::Shared)
        })?;
        self.jobs.get(other).cloned()
    }
}

/// Holds what it was given until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it gives everything back"]
pub struct Lease {
    members: Leases,
    job: JobId,
}

impl Lease {
    /// Says what the holder is doing now; refusals quote it.
    pub fn doing(&self, doing: Text) {
        self.says(doing, false);
    }

    /// Says that something failed that the holder tries again.
    pub fn waits(&self, why: Text) {
        self.says(why, true);
    }

    fn says(&self, doing: Text, waits: bool) {
        if let Some(holder) = self.members.lock().jobs.get_mut(&self.job) {
            holder.doing = doing;
            holder.waits = waits;
            holder.stuck &= waits;
        }
    }

    /// Says that the holder waits for a file that does not answer, under a number of this wait, or that it does no more.
    /// What it is told to wait for since, if for anything.
    pub fn stands(&self, number: u64, stand: Option<Stand>) -> Option<Text> {
        let mut table = self.members.lock();
        let holder = table.jobs.get_mut(&self.job)?;
        match stand {
            Some(stand) => drop(holder.stands.insert(number, stand)),
            None => drop(holder.stands.remove(&number)),
        }
        holder.stands.values().next().map(|s| s.text.clone())
    }

    /// The file that it is told to wait for, in words.
    #[must_use]
    pub fn standing(&self) -> Option<Text> {
        let table = self.members.lock();
        let stands = &table.jobs.get(&self.job)?.stands;
        stands.values().next().map(|s| s.text.clone())
    }

    /// Says that a dead process left what the holder does.
    pub fn recovers(&self) {
        if let Some(holder) = self.members.lock().jobs.get_mut(&self.job) {
            holder.recovering = true;
        }
    }

    /// Says that the holder cannot end now, and why.
    pub fn stuck(&self, why: Text) {
        if let Some(holder) = self.members.lock().jobs.get_mut(&self.job) {
            holder.doing = why;
            holder.stuck = true;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut table = self.members.lock();
        table.jobs.remove(&self.job);
        table.held.retain(|_, holders| {
            holders.remove(&self.job);
            !holders.is_empty()
        });
        drop(table);
        self.members.released.send_modify(|n| *n += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::catalog::snapshot::{FILE_SILENT, WORKING};

    fn job(n: u128) -> JobId {
        JobId::from_u128(n)
    }

    fn machine(n: u128) -> Resource {
        Resource::Machine(VmId::from_u128(n))
    }

    #[test]
    fn an_exclusive_lease_excludes_and_ends_with_its_drop() {
        let members = Leases::default();
        let wanted = [(machine(1), Mode::Exclusive), (machine(2), Mode::Exclusive)];
        let first = members.lease(job(1), WORKING.text(), &wanted).unwrap();
        let overlapping = [(machine(3), Mode::Exclusive), (machine(2), Mode::Exclusive)];
        let busy = members
            .lease(job(2), WORKING.text(), &overlapping)
            .unwrap_err();
        let [busy] = busy.as_slice() else {
            panic!("{busy:?}");
        };
        assert_eq!((busy.resource, busy.holder.job), (machine(2), job(1)));
        assert_eq!(members.holder(machine(3)), None, "all or none");
        drop(first);
        assert!(members.lease(job(2), WORKING.text(), &overlapping).is_ok());
    }

    #[test]
    fn a_refused_lease_names_all_that_is_held_and_by_whom() {
        let members = Leases::default();
        let of = |n| (machine(n), Mode::Exclusive);
        let first = members.lease(job(1), WORKING.text(), &[of(1), of(2)]);
        let second = members.lease(job(2), WORKING.text(), &[of(4)]);
        let all = [1, 2, 3, 4].map(of);
        let busy = members.lease(job(3), WORKING.text(), &all).unwrap_err();
        let busy: Vec<_> = busy.iter().map(|b| (b.resource, b.holder.job)).collect();
        let expected = [(1, 1), (2, 1), (4, 2)].map(|(m, j)| (machine(m), job(j)));
        assert_eq!(busy, expected);
        assert_eq!(members.holder(machine(3)), None, "all or none");
        drop((first, second));
        assert!(members.lease(job(3), WORKING.text(), &all).is_ok());
    }

    #[test]
    fn sharers_stand_side_by_side_and_keep_the_exclusive_out() {
        let members = Leases::default();
        let set = Resource::Set(SetId::from_u128(7));
        let shared = [(set, Mode::Shared)];
        let a = members.lease(job(1), WORKING.text(), &shared).unwrap();
        let b = members.lease(job(2), WORKING.text(), &shared).unwrap();
        let exclusive = [(set, Mode::Exclusive)];
        assert!(members.lease(job(3), WORKING.text(), &exclusive).is_err());
        drop(a);
        assert!(members.lease(job(3), WORKING.text(), &exclusive).is_err());
        drop(b);
        let _c = members.lease(job(3), WORKING.text(), &exclusive).unwrap();
        assert!(members.lease(job(1), WORKING.text(), &shared).is_err());
    }

    #[test]
    fn a_brief_lease_stands_alone_and_says_so() {
        let members = Leases::default();
        let wanted = [(machine(1), Mode::Brief)];
        let looking = members.lease(job(1), WORKING.text(), &wanted).unwrap();
        for mode in [Mode::Brief, Mode::Shared, Mode::Exclusive] {
            let busy = members.lease(job(2), WORKING.text(), &[(machine(1), mode)]);
            assert!(busy.unwrap_err()[0].holder.brief, "{mode:?}");
        }
        drop(looking);
        let wanted = [(machine(1), Mode::Shared)];
        let shared = members.lease(job(1), WORKING.text(), &wanted).unwrap();
        let wanted = [(machine(1), Mode::Brief)];
        assert!(members.lease(job(2), WORKING.text(), &wanted).is_err());
        drop(shared);
    }

    #[test]
    fn one_that_is_recovered_is_stuck_only_while_it_cannot_go_on() {
        let members = Leases::default();
        let wanted = [(machine(1), Mode::Exclusive)];
        let lease = members.lease(job(1), WORKING.text(), &wanted).unwrap();
        lease.recovers();
        assert!(members.holder(machine(1)).unwrap().recovering);
        assert!(members.stuck().is_empty(), "at its first attempt");
        lease.waits(WORKING.text());
        assert_eq!(members.stuck().len(), 1);
        lease.doing(WORKING.text());
        assert!(members.stuck().is_empty(), "it goes on");
        lease.stuck(WORKING.text());
        lease.waits(WORKING.text());
        assert!(members.holder(machine(1)).unwrap().stuck);
        lease.doing(WORKING.text());
        assert!(members.stuck().is_empty(), "its undo goes on");
    }

    #[test]
    fn a_refusal_quotes_what_the_holder_does_now_or_waits_for() {
        let members = Leases::default();
        let lease = members
            .lease(job(1), WORKING.text(), &[(machine(1), Mode::Exclusive)])
            .unwrap();
        let text = crate::text::Message {
            id: "x",
            en_us: "x",
        }
        .text();
        lease.doing(text.clone());
        let told = || members.holder(machine(1)).unwrap().told().clone();
        assert_eq!(told(), text);
        let stand = |text: Text| {
            let files = vec!["/images/a.raw".into()];
            Some(Stand { files, text })
        };
        let [first, second] = ["a", "b"].map(|file| FILE_SILENT.with("file", file));
        lease.stands(7, stand(second.clone()));
        assert_eq!(lease.stands(5, stand(first.clone())), Some(first.clone()));
        assert_eq!((told(), members.stuck().len()), (first, 1));
        assert_eq!(lease.stands(5, None), Some(second));
        assert_eq!(lease.stands(7, None), None);
        assert_eq!((told(), members.stuck().len()), (text, 0));
    }
}
