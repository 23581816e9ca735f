//! Which machines run: by what their monitors say, and by the locks on their active files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::engine::Machines;
use crate::engine::observed::{Conditions, Observed};
use crate::engine::qemu::live::Qemu;
use crate::engine::qemu::peer::FileId;
use crate::engine::qemu::watch::{Pace, Speaker, View, Watch, Watches};
use crate::id::VmId;
use crate::inventory::{Machine, RunState};

use super::entry::{Entry, chain_of, file_ids, is_written};

/// How long a monitor that nobody has asked yet is waited for.
const FIRST: Duration = Duration::from_millis(1500);

/// The monitors of machines that have one, which cost the others nothing, and what is shown of all machines.
pub(super) struct States {
    watches: Watches,
    watched: Arc<ArcSwap<BTreeMap<VmId, Watched>>>,
    shown: watch::Sender<Arc<Observed>>,
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
        Self {
            watches: Watches::telling(Pace::default(), move || show(&at, &of.load(), |_| false)),
            watched,
            shown,
        }
    }
}

/// Shows what `renew` and the monitors change, if that is anything new.
fn show(
    shown: &watch::Sender<Arc<Observed>>,
    watched: &BTreeMap<VmId, Watched>,
    renew: impl FnOnce(&mut Observed) -> bool,
) {
    shown.send_if_modified(|shown| {
        let mut now = Observed::clone(shown);
        let is_new = renew(&mut now);
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
        show(&self.shown, &self.watched.load(), renew);
    }

    /// Watches the monitors of these machines, and of no others.
    pub(super) fn follow(&self, wanted: Monitored) {
        if wanted.is_empty() && self.watched.load().is_empty() {
            return;
        }
        let sockets = wanted
            .iter()
            .map(|(id, (sockets, _))| (*id, sockets.clone()));
        let mut watches = self.watches.follow(&sockets.collect());
        let watched = wanted.into_iter().filter_map(|(id, (_, files))| {
            let watch = watches.remove(&id)?;
            Some((id, Watched { watch, files }))
        });
        self.watched.store(Arc::new(watched.collect()));
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
}

impl Watched {
    fn has_one(&self, files: &BTreeSet<FileId>) -> bool {
        self.files.iter().any(|id| files.contains(id))
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
    use std::os::unix::net::UnixListener;

    use super::*;

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
        let until = std::iter::repeat_with(|| states.now(id, || false));
        let mut looks = until.take(3000).inspect(|_| {
            std::thread::sleep(Duration::from_millis(10));
        });
        assert!(looks.any(|state| state == RunState::Off), "nobody listens");
    }
}
