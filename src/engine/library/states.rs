//! Which machines run: by what their monitors say, and by the locks on their active files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::engine::observed::{Conditions, Observed};
use crate::engine::qemu::live::Qemu;
use crate::engine::qemu::peer::FileId;
use crate::engine::qemu::watch::{Pace, Speaker, View, Watch, Watches};
use crate::engine::{Followed, Machines, Stopped};
use crate::id::VmId;
use crate::inventory::{Machine, RunState};

use super::entry::{Entry, chain_of, file_ids, is_written};

/// How long a monitor that nobody has asked yet is waited for.
const FIRST: Duration = Duration::from_millis(1500);

/// The monitors of machines that have one, which cost the others nothing, and what is shown of all machines.
pub(super) struct States {
    following: Arc<Following>,
    watched: Arc<ArcSwap<BTreeMap<VmId, Watched>>>,
    shown: watch::Sender<Arc<Observed>>,
}

/// Which monitors are watched.
struct Following {
    watches: Watches,
    watched: Arc<ArcSwap<BTreeMap<VmId, Watched>>>,
    wanted: Mutex<Wanted>,
}

#[derive(Default)]
struct Wanted {
    /// Those of the machines of the library.
    known: Monitored,
    /// The sockets that operations have written down, and how many of them.
    kept: BTreeMap<VmId, (Vec<PathBuf>, usize)>,
}

/// An operation needs the monitor of a machine.
struct Keep {
    machine: VmId,
    following: Weak<Following>,
}

impl Drop for Keep {
    fn drop(&mut self) {
        let Some(following) = self.following.upgrade() else {
            return;
        };
        let mut wanted = following.wanted();
        let is_last = wanted.kept.get_mut(&self.machine).is_none_or(|(_, keeps)| {
            *keeps = keeps.saturating_sub(1);
            *keeps == 0
        });
        if is_last {
            wanted.kept.remove(&self.machine);
        }
        following.renew(&wanted);
    }
}

impl Following {
    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an operation has written down comes before what a definition says by now.
    fn renew(&self, wanted: &Wanted) {
        let known = wanted.known.iter();
        let mut sockets: BTreeMap<_, _> = known.map(|(id, (it, _))| (*id, it.clone())).collect();
        let kept = wanted.kept.iter();
        sockets.extend(kept.map(|(id, (it, _))| (*id, it.clone())));
        let before = self.watched.load();
        if sockets.is_empty() && before.is_empty() {
            return;
        }
        let watched = self
            .watches
            .follow(&sockets)
            .into_iter()
            .map(|(id, watch)| {
                let files = wanted.known.get(&id).map(|(_, files)| files.clone());
                let files = files.unwrap_or_default();
                watch.keep(wanted.kept.contains_key(&id));
                if before.get(&id).is_some_and(|it| it.files != files) {
                    watch.look_again(); // what is seen by the names of disks alone may be others too
                }
                (id, Watched { watch, files })
            });
        self.watched.store(Arc::new(watched.collect()));
    }
}

/// The monitors of machines that have one, each with the active files.
pub(super) type Monitored = BTreeMap<VmId, (Vec<PathBuf>, Vec<FileId>)>;

/// Those of these machines that have one. Looks at no file.
pub(super) fn monitored(entries: &BTreeMap<VmId, Arc<Entry>>) -> Monitored {
    let monitored = entries.iter().filter_map(|(id, entry)| {
        let sockets = &entry.machine.as_deref()?.sockets.qmp;
        (!sockets.is_empty()).then(|| (*id, (sockets.clone(), entry.files())))
    });
    monitored.collect()
}

/// A machine that is watched.
#[derive(Clone)]
struct Watched {
    watch: Watch,
    /// Its active files.
    files: Vec<FileId>,
}

impl Default for States {
    fn default() -> Self {
        let (watched, shown) = (Arc::<ArcSwap<_>>::default(), watch::Sender::default());
        let (of, at) = (Arc::clone(&watched), shown.clone());
        let following = Following {
            watches: Watches::telling(Pace::default(), move || show(&at, &of, |_| false)),
            watched: Arc::clone(&watched),
            wanted: Mutex::default(),
        };
        Self {
            following: Arc::new(following),
            watched,
            shown,
        }
    }
}

/// Shows what `renew` and the monitors change, if that is anything new.
fn show(
    shown: &watch::Sender<Arc<Observed>>,
    watched: &ArcSwap<BTreeMap<VmId, Watched>>,
    renew: impl FnOnce(&mut Observed) -> bool,
) {
    shown.send_if_modified(|shown| {
        let mut now = Observed::clone(shown);
        let is_new = renew(&mut now);
        // Read in this turn, or an older state might have the last word.
        let watched = watched.load();
        let state = |(id, it): (&VmId, &Watched)| {
            let state = it.state(&it.watch.view(), || now.is_written(*id));
            (*id, state)
        };
        let states = watched.iter().map(state).collect();
        let is_new = now.renew_states(states) || is_new;
        if is_new {
            *shown = Arc::new(now);
        }
        is_new
    });
}

impl States {
    pub(super) fn observe(&self) -> watch::Receiver<Arc<Observed>> {
        self.shown.subscribe()
    }

    /// Shows these machines, where they are others, and what their files show.
    pub(super) fn renew(&self, machines: Option<Arc<Machines>>, conditions: Conditions) {
        let renew = |shown: &mut Observed| shown.renew(machines, conditions);
        show(&self.shown, &self.watched, renew);
    }

    /// Watches the monitors of these machines, and of no others but those that operations keep.
    pub(super) fn follow(&self, known: Monitored) {
        let mut wanted = self.following.wanted();
        wanted.known = known;
        self.following.renew(&wanted);
    }

    /// Watches the monitor of a machine by these sockets until what this gives is dropped.
    pub(super) fn keep(&self, machine: VmId, sockets: Vec<PathBuf>) -> Followed {
        if sockets.is_empty() {
            return None;
        }
        let mut wanted = self.following.wanted();
        wanted.kept.entry(machine).or_insert((sockets, 0)).1 += 1;
        self.following.renew(&wanted);
        Some(Arc::new(Keep {
            machine,
            following: Arc::downgrade(&self.following),
        }))
    }

    /// The state by the monitor, and where that says nothing by whether a file is `written`; a monitor that was never asked
    /// is waited for. Blocks.
    pub(super) fn now(&self, id: VmId, written: impl FnOnce() -> bool) -> RunState {
        let watched = self.watched.load().get(&id).cloned();
        match watched {
            Some(watched) => match &*watched.watch.known(FIRST) {
                // Somebody keeps who asks waiting.
                View::Unknown => RunState::Held,
                view => watched.state(view, written),
            },
            None => by_locks(written()),
        }
    }

    /// The same for an operation on the machine: a QEMU that does not answer just now, or has opened its files just now, is
    /// waited for a moment. Blocks.
    pub(super) fn settled(&self, id: VmId, written: impl Fn() -> bool) -> RunState {
        let state = self.now(id, &written);
        let watched = self.watched.load().get(&id).cloned();
        let Some(watched) = watched.filter(|_| state == RunState::Held) else {
            return state;
        };
        let speaks = |view: &View| matches!(view, View::Speaks(it) if watched.has_one(&it.files));
        match &*watched.watch.once(FIRST, speaks) {
            View::Unknown => RunState::Held,
            view => watched.state(view, written),
        }
    }

    /// The way to a machine whose monitor is that of a process with its disks. Looks at no file and waits for nobody.
    pub(super) fn way(&self, machine: Arc<Machine>) -> Option<Qemu> {
        let watched = self.watched.load().get(&machine.id).cloned()?;
        match &*watched.watch.view() {
            // One that is late for the moment may answer who waits for it.
            View::Speaks(Speaker { files, .. }) | View::Mute(_, Some(files))
                if watched.has_one(files) =>
            {
                Qemu::of(machine, watched.watch)
            }
            _ => None,
        }
    }

    /// The same for one that was stopped: also whoever is seen to be what ran it then, whatever it has open.
    pub(super) fn reached(&self, stopped: &Stopped, machine: Arc<Machine>) -> Option<Qemu> {
        let watched = self.watched.load().get(&stopped.machine).cloned()?;
        let is_it = watched.watch.runner()?;
        match stopped.runner.is(&is_it) {
            Some(true) => Qemu::of(machine, watched.watch),
            Some(false) | None => self.way(machine),
        }
    }

    /// Whether nobody listens at the monitor of a machine; also `false` where nobody has looked. Blocks.
    pub(super) fn is_absent(&self, id: VmId) -> bool {
        let watched = self.watched.load().get(&id).cloned();
        watched.is_some_and(|it| *it.watch.known(FIRST) == View::Absent)
    }
}

impl Watched {
    /// Whether one of these is an active file, or one with which its QEMU goes on before that is recorded.
    fn has_one(&self, files: &BTreeSet<FileId>) -> bool {
        self.files.iter().any(|id| files.contains(id)) || self.watch.has_attached(files)
    }

    fn state(&self, view: &View, written: impl FnOnce() -> bool) -> RunState {
        match view {
            View::Speaks(it) if self.has_one(&it.files) => RunState::of_status(&it.status),
            View::Speaks(_) => {
                // It is that of another machine; or it has opened the files since; or it goes on with others.
                self.watch.look_again();
                RunState::Held
            }
            // Whatever it has open: where that cannot be seen, no lock tells of one that only reads a file under its own.
            View::Mute(..) => RunState::Held,
            View::Absent | View::Unknown => by_locks(written()),
        }
    }
}

const fn by_locks(written: bool) -> RunState {
    match written {
        true => RunState::Held,
        false => RunState::Off,
    }
}

/// The state of each of these machines, by a look that is made now. Blocks.
#[must_use]
pub fn states<'a>(machines: impl IntoIterator<Item = &'a Machine>) -> BTreeMap<VmId, RunState> {
    let machines: Vec<_> = machines.into_iter().collect();
    let states = States::default();
    let monitored = machines.iter().filter(|m| !m.sockets.qmp.is_empty());
    let wanted = monitored.map(|m| (m.id, (m.sockets.qmp.clone(), file_ids(m))));
    // All at once: who is waited for first has given the others the time.
    states.follow(wanted.collect());
    let written = |m: &Machine| m.disks.iter().any(|disk| is_written(disk, &chain_of(disk)));
    let state = |m: &&Machine| (m.id, states.now(m.id, || written(m)));
    machines.iter().map(state).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use serde_json::{Value, json};

    use super::*;
    use crate::engine::observed::States as Shown;
    use crate::inventory::Sockets;

    fn watched(files: &[FileId]) -> Watched {
        Watched {
            watch: Watch::default(),
            files: files.to_vec(),
        }
    }

    /// A QEMU that runs on an overlay that nobody knows, or with `-snapshot`, takes no lock of a writer on the active file.
    #[test]
    fn a_machine_at_whose_monitor_somebody_is_is_never_off() {
        let own = (1, 2);
        let of = |files: &[FileId]| Some(Arc::new(files.iter().copied().collect::<BTreeSet<_>>()));
        let mute = |files| View::Mute("it does not greet".to_owned(), files);
        let speaks = |files| {
            View::Speaks(Speaker {
                peer: None,
                status: "running".to_owned(),
                files,
            })
        };
        let table = [
            (mute(None), RunState::Held),
            (mute(of(&[])), RunState::Held),
            (mute(of(&[(1, 3)])), RunState::Held),
            (mute(of(&[own])), RunState::Held),
            (speaks(of(&[]).unwrap()), RunState::Held),
            (speaks(of(&[own]).unwrap()), RunState::Running),
        ];
        for (view, expected) in table {
            for written in [true, false] {
                let state = watched(&[own]).state(&view, || written);
                assert_eq!(state, expected, "{view:?}");
            }
        }
        assert_eq!(
            watched(&[own]).state(&View::Absent, || false),
            RunState::Off
        );
        assert_eq!(
            watched(&[own]).state(&View::Absent, || true),
            RunState::Held
        );
    }

    #[test]
    fn monitors_that_keep_who_asks_waiting_say_that_somebody_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let sockets = ["1", "2"].map(|name| dir.path().join(name));
        let _silent = sockets.each_ref().map(|it| UnixListener::bind(it).unwrap());
        let id = VmId::from_u128(1);
        let states = States::default();
        states.follow([(id, (sockets.to_vec(), vec![(1, 2)]))].into());
        // Both together take longer than a first answer is waited for.
        assert_eq!(states.now(id, || false), RunState::Held);
        assert_eq!(states.settled(id, || false), RunState::Held);
        drop(dir);
        let is_off = || states.now(id, || false) == RunState::Off;
        assert!(soon(is_off), "nobody listens");
    }

    /// Greets whoever comes, and says that it runs; how many have come.
    fn serve(socket: &Path) -> Arc<AtomicUsize> {
        let (listener, came) = (UnixListener::bind(socket).unwrap(), Arc::default());
        let count = Arc::<AtomicUsize>::clone(&came);
        thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || {
                    client.write_all(b"{\"QMP\": {}}\n").unwrap();
                    let lines = BufReader::new(client.try_clone().unwrap()).lines();
                    for line in lines.map_while(Result::ok) {
                        let asked: Value = serde_json::from_str(&line).unwrap();
                        let said = match asked["execute"].as_str() {
                            Some("query-status") => json!({"status": "running"}),
                            _ => json!([]),
                        };
                        let said = json!({"return": said, "id": asked["id"]});
                        let _gone = client.write_all(format!("{said}\n").as_bytes());
                    }
                });
            }
        });
        came
    }

    fn machine(id: VmId, qmp: &Path) -> Arc<Machine> {
        Arc::new(Machine {
            id,
            name: "web".to_owned(),
            disks: Vec::new(),
            directory: PathBuf::new(),
            definition: PathBuf::new(),
            created: jiff::Timestamp::UNIX_EPOCH,
            overlay_ok: false,
            unmanaged_ok: false,
            no_flush_ok: false,
            images: BTreeMap::new(),
            relative: BTreeMap::new(),
            sockets: Sockets {
                qmp: vec![qmp.to_owned()],
                agent: None,
            },
        })
    }

    fn soon(is_it: impl Fn() -> bool) -> bool {
        let mut looks = (0..3000).map(|_| thread::park_timeout(Duration::from_millis(10)));
        looks.any(|()| is_it())
    }

    /// What was stopped is found again by its process or socket: which files it has open may not be seen, and its definition
    /// may be gone.
    #[test]
    fn the_monitor_of_a_stopped_machine_is_kept_and_found_without_its_files_and_definition() {
        let dir = tempfile::tempdir().unwrap();
        let (id, socket) = (VmId::from_u128(1), dir.path().join("qmp"));
        let came = serve(&socket);
        let states = States::default();
        // Its library has seen other files.
        states.follow([(id, (vec![socket.clone()], vec![(1, 2)]))].into());
        let watched = || states.watched.load().get(&id).cloned();
        assert!(soon(|| watched().unwrap().watch.runner().is_some()));
        let stopped = Stopped {
            machine: id,
            name: "web".to_owned(),
            sockets: machine(id, &socket).sockets.clone(),
            runner: watched().unwrap().watch.runner().unwrap(),
            files: Vec::new(),
            new_files: Vec::new(),
        };
        let machine = machine(id, &socket);
        assert!(states.way(Arc::clone(&machine)).is_none());
        let reached = || states.reached(&stopped, Arc::clone(&machine)).is_some();
        assert!(reached());
        let keeps = [(); 2].map(|()| states.keep(id, vec![socket.clone()]).unwrap());
        // It is named otherwise by now, or not at all.
        for known in [
            [(id, (vec![dir.path().join("other")], Vec::new()))].into(),
            Monitored::new(),
        ] {
            states.follow(known);
            assert!(reached());
        }
        let [first, last] = keeps;
        drop(first);
        assert!(reached());
        assert_eq!(came.load(Ordering::SeqCst), 1, "all over one connection");
        drop(last);
        assert!(watched().is_none() && !reached());
        // A process that has nobody told of it is asked for by what was written down.
        let again = states.keep(id, vec![socket.clone()]);
        assert!(soon(reached));
        let mut other = stopped.clone();
        let stamps = other.runner.sockets.values_mut();
        stamps.for_each(|stamp| stamp.inode += 1);
        other.runner.process = None;
        assert!(states.reached(&other, Arc::clone(&machine)).is_none());
        drop(again);
    }

    #[test]
    fn what_monitors_say_is_shown_of_the_machines_that_are_watched_at_that_moment() {
        let id = VmId::from_u128(1);
        let watches = Watches::telling(Pace::default(), || {});
        let sockets = BTreeMap::from([(id, vec![PathBuf::from("/nowhere/monitor")])]);
        let watch = watches.follow(&sockets).remove(&id).unwrap();
        let files = Vec::new();
        let of_one = BTreeMap::from([(id, Watched { watch, files })]);
        let (shown, watched) = (watch::Sender::default(), ArcSwap::default());
        // A look begins to follow a machine while another thread is about to show what monitors say.
        show(&shown, &watched, |_| {
            watched.store(Arc::new(of_one.clone()));
            false
        });
        let mut now = Observed::clone(&shown.borrow());
        let wanted = Shown::from([(id, RunState::Off)]);
        assert!(!now.renew_states(wanted), "it is shown");
    }
}
