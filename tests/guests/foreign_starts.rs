//! QEMU is started on members in a loop while sets are taken, applied and destroyed (`docs/cut.md` §5). Each start is
//! refused or boots the right active file: no write of a guest is ever lost, but to an apply, which puts there
//! exactly what its set holds; and no snapshot ever changes.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::gate::Gate;
use crate::support::site::{Ground, Image, Machine, Site, content};
use crate::support::wire::{Created, STARTED, Set, Wire};

use super::disk::Disk;
use super::guest::{self, Start};

/// How long the two sides work against each other.
const TIME: Duration = Duration::from_secs(14);

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn over_overlays_no_write_is_lost_and_no_snapshot_changes() {
    against_each_other(Ground::Host);
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn over_clones_no_write_is_lost_and_no_snapshot_changes() {
    against_each_other(Ground::Xfs);
}

/// Whoever read the name of the active file before an apply and starts the machine after it meets no stale disk.
#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_old_name_boots_nothing_once_the_apply_is_told() {
    let site = Site::new(Ground::Host);
    let machine = site.machine("m", &[Image::Qcow2], 0);
    guest::install(&machine.images[0]);
    // The job has ended, its last steps have not.
    let gate = Gate::new();
    let server = site.serve_with(&[&gate.at("apply.publish.after")]);
    let wire = Wire::new(&server);
    let group = wire.define("all", &[&machine.id]).unwrap();
    let set = wire.take(&group, "set");
    site.wait_for_journals();
    let old = site.top(&machine, 0);
    assert_eq!(guest::start(&old), Start::Ran(1));
    assert!(ended(&wire, &wire.apply(&set).unwrap()));
    let stale = guest::start(&old);
    assert!(!site.journals().is_empty(), "it is too late to tell");
    assert!(matches!(stale, Start::Refused(_)), "{stale:?}");
    assert_eq!(guest::start(&site.top(&machine, 0)), Start::Ran(1));
    gate.open();
    site.wait_for_journals();
}

/// What a snapshot's file held when its job had ended.
#[derive(Debug, PartialEq, Eq)]
struct Kept {
    hash: u64,
    count: u32,
}

/// What is kept of each machine, by its id.
type Snapshots = BTreeMap<String, Kept>;

/// The two machines, and what their disks may hold.
struct Rig {
    site: Site,
    machines: Vec<Machine>,
    disks: Vec<Disk>,
    done: AtomicBool,
}

fn against_each_other(ground: Ground) {
    let site = Site::new(ground);
    let machines: Vec<_> = [Image::Qcow2, Image::Raw]
        .into_iter()
        .map(|kind| site.machine(&format!("{kind:?}"), &[kind], 0))
        .collect();
    machines.iter().for_each(|m| guest::install(&m.images[0]));
    let rig = Rig {
        disks: machines.iter().map(|_| Disk::new()).collect(),
        site,
        machines,
        done: AtomicBool::new(false),
    };
    let server = rig.site.serve();
    let kept = std::thread::scope(|scope| {
        let starter = scope.spawn(|| {
            // The other side ends also if this one fails.
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| rig.start_all()));
            rig.done.store(true, Ordering::SeqCst);
            ended.unwrap()
        });
        let kept = rig.change_sets(&Wire::new(&server));
        rig.done.store(true, Ordering::SeqCst);
        starter.join().unwrap();
        kept
    });
    for (machine, disk) in rig.machines.iter().zip(&rig.disks) {
        let now = guest::count(&content(&rig.site.top(machine, 0)));
        assert!(disk.may_hold(now), "{} holds {now}: {disk:?}", machine.name);
    }
    let sets = Wire::new(&server).shown().unwrap().sets;
    for (set, then) in &kept {
        let now = look_at(&sets[set]);
        assert_eq!(now, *then, "{set} changed after its job had ended");
    }
}

impl Rig {
    /// Takes sets of all machines until time is up, applies some and destroys others; what those hold that are
    /// left.
    fn change_sets(&self, wire: &Wire) -> BTreeMap<String, Snapshots> {
        let ids: Vec<_> = self.machines.iter().map(|m| m.id.as_str()).collect();
        let group = wire.define("all", &ids).unwrap();
        let began = Instant::now();
        let mut kept: BTreeMap<String, Snapshots> = BTreeMap::new();
        let (mut taken, mut applied, mut destroyed) = ([0, 0], [0, 0], [0, 0]);
        let mut round = 0;
        // A slow machine may need longer for one of each.
        let enough = |done: [[u32; 2]; 3]| done.iter().all(|d| d[1] > 0);
        while !self.done.load(Ordering::SeqCst) {
            let time = began.elapsed();
            if time > TIME && (enough([taken, applied, destroyed]) || time > TIME * 6) {
                break;
            }
            round += 1;
            let oldest = kept.keys().next().cloned();
            match (round % 3, oldest) {
                (0, Some(set)) if kept.len() > 1 => {
                    let gone = ended(wire, &wire.destroy(&set).unwrap());
                    destroyed[usize::from(gone)] += 1;
                    if gone {
                        kept.remove(&set);
                    }
                }
                (2, Some(set)) => {
                    let done = self.apply(wire, &set, &kept[&set]);
                    applied[usize::from(done)] += 1;
                }
                _ => {
                    let created = wire.create(&group, &format!("set {round}")).unwrap();
                    let done = ended(wire, &created);
                    taken[usize::from(done)] += 1;
                    if done {
                        let set = created.set.unwrap();
                        let holds = look_at(&wire.shown().unwrap().sets[&set]);
                        kept.insert(set, holds);
                    }
                }
            }
        }
        eprintln!(
            "refused and done: {taken:?} taken, {applied:?} applied, {destroyed:?} destroyed"
        );
        assert!(
            self.done.load(Ordering::SeqCst) || enough([taken, applied, destroyed]),
            "something was never done at all"
        );
        kept
    }

    /// Whether the set was applied.
    fn apply(&self, wire: &Wire, set: &str, kept: &Snapshots) -> bool {
        for (machine, disk) in self.machines.iter().zip(&self.disks) {
            disk.applying(kept[&machine.id].count);
        }
        let done = ended(wire, &wire.apply(set).unwrap());
        self.disks.iter().for_each(|disk| disk.applied(done));
        done
    }

    /// Starts the machines in turn until told to stop.
    fn start_all(&self) {
        let mut counts = vec![0; self.machines.len()];
        let mut refused = 0;
        while !self.done.load(Ordering::SeqCst) {
            for ((machine, disk), count) in self.machines.iter().zip(&self.disks).zip(&mut counts) {
                disk.starting();
                match guest::start(&self.site.top(machine, 0)) {
                    Start::Ran(told) => {
                        *count += 1;
                        disk.ran(told, &machine.name);
                    }
                    Start::Refused(_) => refused += 1,
                }
            }
        }
        eprintln!("started {counts:?} times, refused {refused} times");
        assert!(counts.iter().all(|c| *c > 0), "a machine never ran");
    }
}

/// Whether the operation was accepted; then it must have gone well.
fn ended(wire: &Wire, asked: &Created) -> bool {
    if asked.value != STARTED {
        let why = wire.why(asked);
        assert_eq!(asked.value, 5, "{why}");
        return false;
    }
    let job = wire.end(asked.job.as_ref().unwrap()).unwrap();
    assert_eq!(job.state, 7, "{job:?}");
    true
}

fn look_at(set: &Set) -> Snapshots {
    let members = set.members.iter();
    members
        .map(|m| (m.machine.clone(), look(&m.disks["disk0"])))
        .collect()
}

fn look(file: &Path) -> Kept {
    let content = content(file);
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    Kept {
        hash: hasher.finish(),
        count: guest::count(&content),
    }
}
