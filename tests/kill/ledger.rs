//! What clients were told and what the machines wrote, and the comparison of that with what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use groupshot::client::Error;

use crate::support::site::{Machine, Site, assert_holds};
use crate::support::wire::{Job, Set, Shown, Wire};

/// What a set must hold if it is there: for each machine the content of each disk.
type Content = BTreeMap<String, Vec<Vec<u8>>>;

/// A CreateSnapshot that was answered with 4096.
#[derive(Debug, Clone)]
struct Acknowledged {
    job: String,
    set: String,
    name: String,
    /// The end, if a client saw it.
    ended: Option<Job>,
}

/// Everything that was asked for and everything that was answered.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    collections: BTreeMap<String, String>,
    /// By name; names sort in the order of the wishes for one group.
    wishes: BTreeMap<String, Arc<Content>>,
    acknowledged: Vec<Acknowledged>,
    pub(super) machines: Vec<Machine>,
}

impl Ledger {
    pub(super) fn new(machines: Vec<Machine>) -> Self {
        Self {
            machines,
            ..Self::default()
        }
    }

    /// All of what another client noted.
    pub(super) fn absorb(&mut self, other: Self) {
        self.collections.extend(other.collections);
        self.wishes.extend(other.wishes);
        self.acknowledged.extend(other.acknowledged);
        self.machines.extend(other.machines);
    }

    /// Defines a group of all machines.
    pub(super) fn define(&mut self, wire: &Wire, name: &str) -> Result<String, Error> {
        let machines: Vec<_> = self.machines.iter().map(|m| m.id.as_str()).collect();
        let id = wire.define(name, &machines)?;
        self.collections.insert(id.clone(), name.to_owned());
        Ok(id)
    }

    /// Every machine writes to every disk: `byte`, somewhere.
    pub(super) fn write(&mut self, site: &Site, offset: usize, length: usize, byte: u8) {
        for machine in &mut self.machines {
            for disk in 0..machine.images.len() {
                let top = site.top(machine, disk);
                machine.write(&top, disk, offset, length, byte);
            }
        }
    }

    /// Takes a set and waits for its end, however that is.
    pub(super) fn take(&mut self, wire: &Wire, group: &str, name: &str) -> Result<(), Refusal> {
        self.wish(name);
        let job = self.ask(wire, group, name)?;
        self.see_the_end(wire, &job)
    }

    /// Notes what a set of this name must hold: what the machines hold now.
    pub(super) fn wish(&mut self, name: &str) {
        let content = |m: &Machine| (m.id.clone(), m.content.clone());
        let content = Arc::new(self.machines.iter().map(content).collect());
        self.wishes.insert(name.to_owned(), content);
    }

    /// Asks for the set that was wished for; its job.
    pub(super) fn ask(&mut self, wire: &Wire, group: &str, name: &str) -> Result<String, Refusal> {
        let created = wire.create(group, name)?;
        let (Some(job), Some(set), 4096) = (&created.job, &created.set, created.value) else {
            let why = match &created.job {
                Some(job) => wire.job(job)?.error,
                None => String::new(),
            };
            return Err(Refusal::Value(created.value, why));
        };
        self.acknowledged.push(Acknowledged {
            job: job.clone(),
            set: set.clone(),
            name: name.to_owned(),
            ended: None,
        });
        Ok(job.clone())
    }

    /// Waits for the end of the job that was acknowledged last.
    pub(super) fn see_the_end(&mut self, wire: &Wire, job: &str) -> Result<(), Refusal> {
        let ended = wire.end(job)?;
        if let Some(last) = self.acknowledged.last_mut() {
            last.ended = Some(ended);
        }
        Ok(())
    }

    /// Asks for the end of a set; its job. A set that is asked away is nothing that must be there.
    pub(super) fn destroy(&mut self, wire: &Wire, name: &str) -> Result<String, Refusal> {
        let at = self.acknowledged.iter().position(|it| it.name == name);
        let it = self.acknowledged.remove(at.unwrap());
        let destroyed = wire.destroy(&it.set)?;
        match (destroyed.value, destroyed.job) {
            (4096, Some(job)) => Ok(job),
            (value, _) => Err(Refusal::Value(value, it.name)),
        }
    }

    /// What must hold of a disk image taken between two moments: everything that was told before the
    /// first, and of what is there nothing that nobody had wished for at the second.
    pub(super) fn between(before: &Self, after: &Self) -> Self {
        Self {
            wishes: after.wishes.clone(),
            ..before.clone()
        }
    }

    /// The promises, after a start.
    pub(super) fn check(&self, site: &Site, wire: &Wire, what: &str) -> Shown {
        let shown = self.check_all_but_tops(site, wire, what);
        self.check_tops(site, &shown, what);
        shown
    }

    /// The promises without what the machines wrote since their last set.
    pub(super) fn check_all_but_tops(&self, site: &Site, wire: &Wire, what: &str) -> Shown {
        let shown = wire.shown().unwrap();
        for job in shown.jobs.values() {
            assert!(job.state > 6, "{what}: open: {job:?}");
        }
        assert_eq!(site.journals(), [] as [PathBuf; 0], "{what}: journals");
        for (id, name) in &self.collections {
            let (found, members) = shown
                .collections
                .get(id)
                .unwrap_or_else(|| panic!("{what}: {name} is lost"));
            assert_eq!(found, name, "{what}");
            assert!(!members.is_empty(), "{what}: members of {name}");
        }
        self.check_acknowledged(&shown, what);
        for set in shown.sets.values() {
            assert!(!set.is_damaged(), "{what}: {set:?}");
            self.check_set(set, what);
        }
        check_files(site, &shown, what);
        shown
    }

    fn check_acknowledged(&self, shown: &Shown, what: &str) {
        for it in &self.acknowledged {
            let job = shown
                .jobs
                .get(&it.job)
                .unwrap_or_else(|| panic!("{what}: lost: {it:?}"));
            if let Some(seen) = &it.ended {
                assert_eq!(
                    job.state, seen.state,
                    "{what}: a client saw another end of {job:?}"
                );
            }
            let set = shown.sets.get(&it.set);
            match job.state {
                7 => {
                    let set =
                        set.unwrap_or_else(|| panic!("{what}: completed without its set: {it:?}"));
                    assert_eq!(set.name, it.name, "{what}");
                    assert_eq!((job.code, job.percent), (0, 100), "{what}: {job:?}");
                }
                _ => {
                    assert!(
                        set.is_none(),
                        "{what}: failed, and the set is there: {job:?}"
                    );
                    assert!(job.code != 0 && !job.error.is_empty(), "{what}: {job:?}");
                }
            }
        }
    }

    fn check_set(&self, set: &Set, what: &str) {
        let content = self.wishes.get(&set.name);
        let content = content.unwrap_or_else(|| panic!("{what}: nobody asked for {}", set.name));
        assert_eq!(
            set.members.len(),
            content.len(),
            "{what}: members of {}",
            set.name
        );
        for member in &set.members {
            let disks = &content[&member.machine];
            assert_eq!(member.disks.len(), disks.len(), "{what}");
            for (n, expected) in disks.iter().enumerate() {
                let file = &member.disks[&format!("disk{n}")];
                assert_holds(file, expected, &format!("{what}: {}", set.name));
            }
        }
    }

    /// The active files hold what was written last, whichever files they are.
    pub(super) fn check_content(&self, site: &Site, shown: &Shown, what: &str) {
        for machine in &self.machines {
            for (n, expected) in machine.content.iter().enumerate() {
                let top = &shown.tops[&(machine.id.clone(), format!("disk{n}"))];
                assert_eq!(*top, site.top(machine, n), "{what}: what the server shows");
                assert_holds(top, expected, &format!("{what}: active, {}", machine.name));
            }
        }
    }

    /// The active files are those of the last set, and hold what was written last.
    pub(super) fn check_tops(&self, site: &Site, shown: &Shown, what: &str) {
        for machine in &self.machines {
            let sets = shown
                .sets
                .iter()
                .filter(|(_, s)| s.members.iter().any(|m| m.machine == machine.id));
            let last = sets.max_by_key(|(_, set)| &set.name).map(|(id, _)| id);
            for (n, expected) in machine.content.iter().enumerate() {
                let top = &shown.tops[&(machine.id.clone(), format!("disk{n}"))];
                assert_eq!(*top, site.top(machine, n), "{what}: what the server shows");
                if *top != machine.images[n] {
                    let last = last.unwrap_or_else(|| panic!("{what}: an overlay without a set"));
                    let folder = site.data.join("sets").join(last).join(&machine.id);
                    assert!(
                        top.starts_with(&folder),
                        "{what}: {} after {last}",
                        top.display()
                    );
                }
                assert_holds(top, expected, &format!("{what}: active, {}", machine.name));
            }
        }
    }

    /// Whether the set of that name is there.
    pub(super) fn is_there(shown: &Shown, name: &str) -> bool {
        shown.sets.values().any(|set| set.name == name)
    }
}

/// Why a set was not taken.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The server is gone, as the client says it.
    Gone(String),
    /// A return value, with its reason.
    Value(u64, String),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        assert!(
            matches!(error, Error::Unreachable { .. } | Error::Malformed { .. }),
            "a server that dies says nothing: {error}"
        );
        Self::Gone(error.to_string())
    }
}

/// Every file and folder that sets may leave is named by a set or is an active file.
fn check_files(site: &Site, shown: &Shown, what: &str) {
    let members = shown.sets.values().flat_map(|set| &set.members);
    let mut named: BTreeSet<&Path> = shown.tops.values().map(PathBuf::as_path).collect();
    let records = shown.sets.keys();
    let records = records.map(|set| site.data.join("sets").join(set).join("set.json"));
    let records: Vec<_> = records.collect();
    named.extend(records.iter().map(PathBuf::as_path));
    for member in members {
        named.insert(&member.definition);
        named.extend(member.disks.values().map(PathBuf::as_path));
    }
    for name in site.beside_definitions() {
        assert!(
            ["vm.toml", "tops.json"].contains(&name.as_str()),
            "{what}: {name} is left"
        );
    }
    for path in site.kept() {
        let known = match fs::metadata(&path).unwrap().is_dir() {
            true => named.iter().any(|file| file.starts_with(&path)),
            false => named.contains(path.as_path()),
        };
        assert!(known, "{what}: {} belongs to nothing", path.display());
    }
    for file in named {
        assert!(file.is_file(), "{what}: {} is not there", file.display());
    }
}
