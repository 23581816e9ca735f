//! Which machines run: by what their monitors say, and by the locks on their active files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::engine::Machines;
use crate::engine::observed::{Conditions, Observed};
use crate::engine::qemu::peer::FileId;
use crate::engine::qemu::watch::{Pace, View, Watch, Watches};
use crate::id::VmId;
use crate::inventory::{Machine, RunState};

use super::entry::{Entry, file_ids, is_written};

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
            watches: Watches::telling(Pace::default(), move || show(&at, &of, |_| false)),
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
            Some(watched) => watched.state(&watched.watch.known(FIRST), written),
            None => by_locks(written()),
        }
    }
}

impl Watched {
    fn state(&self, view: &View, written: impl FnOnce() -> bool) -> RunState {
        let has_one = |files: &BTreeSet<FileId>| self.files.iter().any(|id| files.contains(id));
        match view {
            View::Speaks(it) if has_one(&it.files) => RunState::of_status(&it.status),
            View::Speaks(_) => {
                // It is that of another machine; or it has opened the files since.
                self.watch.look_again();
                by_locks(written())
            }
            View::Mute(_, Some(files)) if has_one(files) => RunState::Held,
            View::Mute(..) | View::Absent | View::Unknown => by_locks(written()),
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
    let state = |m: &&Machine| (m.id, states.now(m.id, || m.disks.iter().any(is_written)));
    machines.iter().map(state).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::observed::States as Shown;

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
