//! The active files of a machine as its operator names them, where records and files do not tell.
//!
//! ```text
//!   what keeps the file, what lies on it ▶ leftovers ▶ a new overlay, if one is needed ▶ position ▶ tops.json ▶ history
//! ```
//!
//! A file that a set keeps, on which something lies or that is frozen is not written: the machine goes on in a new, empty
//! overlay over it. A later repair merges that into a file that no set keeps and nothing else lies on, so a frozen file of
//! which nothing tells why is not taken at all. So nothing that is there is lost by a wrong word, and killed at any moment
//! it may be given again.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::audit::About;
use crate::engine::definition::DiskEntry;
use crate::engine::failure::At;
use crate::engine::graph::{self, Graph};
use crate::engine::locks::{self, ImageLock};
use crate::engine::turn::{self, Turn};
use crate::engine::{EngineErrorKind, Top, overlay};
use crate::held;
use crate::id::{JobId, SetId, SnapshotId, VmId};
use crate::inventory::{Ended, Ending, Format, Position, What};
use crate::snapshot::coordinator::Coordinator;
use crate::snapshot::saga::core::Core;
use crate::snapshot::saga::leases::{Mode, Resource};
use crate::snapshot::tops::{Lost, id, is_gone};
use crate::store::{Change, State};
use crate::text::catalog::snapshot as texts;

/// As whose work it stands in the history.
const OWNER: &str = "vm set";

/// Which file it is: device, inode and time of birth.
type Which = (u64, u64, Option<i64>);

/// What becomes of the active files of a machine, as it is shown to its operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownTops {
    /// In sentences.
    pub told: Vec<String>,
    /// The files that it comes to, and which ones these are.
    files: Vec<(PathBuf, Option<Which>)>,
    stands_on: Option<SnapshotId>,
}

/// What is done with the files that an operator names.
#[derive(Debug, Clone)]
pub enum Choosing {
    /// It is only shown.
    Show,
    /// It is done, whatever it comes to.
    Do,
    /// It is done if it comes to what was shown.
    AsShown(ShownTops),
}

impl Coordinator {
    /// What becomes of the active files of a machine if these of its disks are what their operator names, and, unless it
    /// is only to be shown, makes it so, durably. Disks that are not named keep what is recorded, where that can be, or get
    /// what is found.
    ///
    /// # Errors
    /// In words what keeps it from being done; which files are active is recorded as before then.
    pub async fn choose_tops(
        &self,
        machine: VmId,
        named: BTreeMap<String, PathBuf>,
        what: Choosing,
    ) -> Result<ShownTops, String> {
        let held = [(Resource::Machine(machine), Mode::Exclusive)];
        let doing = texts::TOPS_ANEW.with("machine", machine);
        let lease = self.core.leases.lease(JobId::random(), doing, &held);
        let lease = lease.map_err(|busy| self.core.busy(&busy).english())?;
        let core = Arc::clone(&self.core);
        let chosen = tokio::task::spawn_blocking(move || {
            // Until it is written no machine comes whose image lies on one of these files, and nobody opens them.
            let turn = turn(&core)?;
            let chosen = choose(&core, machine, &named)?;
            let before = match what {
                Choosing::Show => return Ok((chosen.shown(), None)),
                Choosing::Do => None,
                Choosing::AsShown(before) => Some(before),
            };
            let locks: Result<Vec<_>, _> = chosen.disks.iter().filter_map(Choice::lock).collect();
            let (locks, shown) = (locks?, chosen.shown());
            if before.is_some_and(|before| before != shown) {
                return Err(format!(
                    "what was shown is not so any more, and nothing is changed; now: {}",
                    shown.told.join(" ")
                ));
            }
            Ok::<_, String>((shown, Some((chosen, locks, turn))))
        });
        let (shown, begun) = chosen.await.map_err(|e| e.to_string())??;
        let Some((chosen, locks, turn)) = begun else {
            return Ok(shown);
        };
        let store = &self.core.deps.store;
        let started = self.core.deps.clock.now();
        // Nothing that is to be removed gets anything on it.
        let before = chosen.clone();
        let changes = Box::new(move |state: &State| before.kept(state));
        store.transact(changes).await.map_err(|e| e.to_string())?;
        let made = tokio::task::spawn_blocking(move || {
            let made = chosen.disks.iter().try_for_each(Choice::make);
            made.map(|()| (chosen, (lease, locks, turn)))
        });
        let (chosen, held) = made.await.map_err(|e| e.to_string())??;
        let before = chosen.clone();
        let changes = Box::new(move |state: &State| before.stands(state));
        store.transact(changes).await.map_err(|e| e.to_string())?;
        let (core, name, done) = (
            Arc::clone(&self.core),
            chosen.name.clone(),
            shown.told.join(" "),
        );
        let written = tokio::task::spawn_blocking(move || {
            // Held until it is written, whoever waits for it.
            let _held = held;
            chosen.write(&core)
        });
        written.await.map_err(|e| e.to_string())??;
        let ended = Ended {
            what: What::Repair,
            outcome: Ending::Completed,
            job: None,
            user: OWNER.to_owned(),
            about: About::default().machine(machine, &name),
            started,
            ended: self.core.deps.clock.now(),
            reason: done,
            code: None,
            recovered: false,
        };
        let noted = store.transact(Box::new(move |_| vec![Change::Ended(ended)]));
        if let Err(error) = noted.await {
            tracing::warn!(%error, "The active files that were named are not in the history");
        }
        Ok(shown)
    }
}

/// The turn, with the machines as they are in it.
pub(super) fn turn(core: &Core) -> Result<Turn, String> {
    let data_dir = &core.deps.data_dir;
    let turn = turn::take(data_dir, turn::PATIENCE, &|| false).map_err(|e| e.to_string())?;
    let turn = turn.ok_or_else(|| {
        format!(
            "another command is changing the library of machines in {}; try again when it has ended",
            data_dir.display()
        )
    })?;
    match core.deps.compute.renew() {
        true => Ok(turn),
        false => Err(format!(
            "the library of machines in {} cannot be looked at to its end",
            data_dir.display()
        )),
    }
}

/// What the operator's word comes to.
#[derive(Clone)]
struct Chosen {
    machine: VmId,
    name: String,
    /// The disks that were named.
    disks: Vec<Choice>,
    /// The active files of the others, where nothing that is recorded counts any more.
    found: Option<BTreeMap<String, Top>>,
    /// The snapshot that all disks stand on, if it is one.
    stands_on: Option<SnapshotId>,
}

/// One disk.
#[derive(Clone)]
struct Choice {
    disk: String,
    machine: String,
    top: Top,
    /// The file that was named, if the active file becomes a new overlay over it.
    over: Option<Top>,
    named: PathBuf,
    told: String,
    stands_on: Option<SnapshotId>,
}

fn choose(core: &Core, machine: VmId, named: &BTreeMap<String, PathBuf>) -> Result<Chosen, String> {
    let lost = Lost::known(core, machine)?;
    lost.require_at_rest()?;
    let unknown = named.keys().find(|disk| lost.disk(disk).is_none());
    if let Some(disk) = unknown {
        return Err(format!("machine {} has no disk {disk}", lost.name()));
    }
    let (mut disks, mut found, mut stand) = (Vec::new(), BTreeMap::new(), Vec::new());
    for disk in lost.disks() {
        if let Some(file) = named.get(&disk.id) {
            let choice = choice(&lost, disk, file);
            let choice = choice.map_err(|why| format!("disk {}: {why}", disk.id))?;
            stand.push(choice.stands_on);
            disks.push(choice);
            continue;
        }
        let top = match lost.recorded_top(disk) {
            Some(top) => top,
            None => lost.found_top(disk)?,
        };
        let at = At::new(lost.name(), &disk.id);
        let graph = lost.graph(&at, &[(top.file.clone(), top.format)]);
        stand.push(
            graph
                .ok()
                .and_then(|graph| lost.stands_on(disk, &top.file, &graph)),
        );
        found.insert(disk.id.clone(), top);
    }
    let first = stand.first().copied().flatten();
    Ok(Chosen {
        machine,
        name: lost.name().to_owned(),
        disks,
        found: lost.is_lost().then_some(found),
        stands_on: first.filter(|first| stand.iter().all(|it| *it == Some(*first))),
    })
}

fn choice(lost: &Lost<'_>, disk: &DiskEntry, named: &Path) -> Result<Choice, String> {
    let candidates = lost.candidates(disk)?;
    let is_it = |file: &Path| file == named || (id(file).is_some() && id(file) == id(named));
    let Some((file, format)) = candidates.iter().find(|(file, _)| is_it(file)).cloned() else {
        let all: Vec<_> = candidates
            .iter()
            .map(|(f, _)| f.display().to_string())
            .collect();
        if let Ok(aside) = named.strip_prefix(lost.aside()) {
            return Err(format!(
                "{} was set aside: move it back to {} first",
                named.display(),
                lost.sets().join(aside).display()
            ));
        }
        return Err(format!(
            "{} is neither its image nor a file that was made for it here; there are: {}",
            named.display(),
            all.join(", ")
        ));
    };
    locks::is_written(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    // A machine that runs on another file of the disk would go on there.
    let is_written = |file: &&PathBuf| locks::is_written(file).unwrap_or(false);
    if let Some(written) = candidates.iter().map(|(file, _)| file).find(is_written) {
        return Err(format!(
            "another process has {} open for writing",
            written.display()
        ));
    }
    let at = At::new(lost.name(), &disk.id);
    let graph = Graph::read(&at, [(file.clone(), format)], []);
    let mut graph = graph.map_err(|e| e.to_string())?;
    let roots = lost.core().deps.compute.roots();
    for node in graph.chain(&file) {
        // What cannot be reached is nobody's to be opened.
        let real = held::canonicalize(&node.file);
        let inside = real.map_or(Ok(()), |real| roots.require(&real));
        inside.map_err(|e| format!("{}: {e}", node.file.display()))?;
    }
    // What cannot be read may lie on it.
    let mut is_seen = lost.lay(&at, &mut graph).is_ok();
    for (other, format) in candidates.iter().filter(|(other, _)| *other != file) {
        is_seen &= graph.follow(&at, other.clone(), *format).is_ok();
    }
    let above = graph.children(&file).first().map(|node| node.file.clone());
    let keeper = lost.keeper(&file, &graph);
    let ours = graph::is_ours(&lost.sets(), &file);
    let mode = held::metadata(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    let is_frozen = ours && mode.permissions().mode() & 0o222 == 0;
    let is_accounted = keeper.is_some() || lost.is_left(&file, &graph);
    if is_frozen && !is_accounted {
        return Err(format!(
            "{} is frozen, and nothing tells for whom: a set may have captured it that neither the database nor a record knows, and later the machine would be merged into it. Put the record of the set back from a backup and run `groupshot doctor --rebuild`, or copy the file and import the copy as a machine (`groupshot vm import`). If no set has captured it and somebody has closed it himself, `chmod u+w {0}` opens it again",
            file.display()
        ));
    }
    let why = match (&keeper, above) {
        (Some((_, set)), _) => Some(format!("snapshot set `{set}` keeps it")),
        (None, Some(above)) => Some(format!("{} lies on it", above.display())),
        (None, None) if !is_seen => Some("something that cannot be read may lie on it".to_owned()),
        (None, None) if is_frozen => Some("it is frozen".to_owned()),
        (None, None) => None,
    };
    let stands_on = lost.stands_on(disk, &file, &graph);
    let before = lost.recorded_file(disk);
    let before = match &before {
        Some(before) if *before == file => "as recorded".to_owned(),
        Some(before) => format!("where {} was recorded", before.display()),
        None => "where none was recorded".to_owned(),
    };
    let (shown, disk_id) = (file.display(), &disk.id);
    let Some(why) = why else {
        return Ok(Choice {
            disk: disk.id.clone(),
            machine: lost.name().to_owned(),
            told: format!("Disk {disk_id} runs on {shown}, {before}."),
            top: Top {
                file: file.clone(),
                format,
            },
            over: None,
            named: file,
            stands_on,
        });
    };
    if !lost.overlay_ok() {
        return Err(format!(
            "{shown} cannot become the active file itself, as {why}, and the definition allows no overlay over it: `groupshot vm set {} --overlay-ok` first, or [qemu] overlay_ok = true in vm.toml",
            lost.machine()
        ));
    }
    let folder = match (file.parent(), &keeper) {
        (Some(folder), _) if ours && !graph::is_clone(&file) => folder.to_owned(),
        (_, keeper) => {
            let set = keeper.as_ref().map_or_else(SetId::random, |(set, _)| *set);
            let set = lost.sets().join(set.to_string());
            set.join(lost.machine().to_string())
        }
    };
    let new = overlay::named(&folder, &disk.id, JobId::random());
    Ok(Choice {
        disk: disk.id.clone(),
        machine: lost.name().to_owned(),
        told: format!(
            "Disk {disk_id} runs on a new and empty overlay over {shown}, as {why}, {before}."
        ),
        top: Top {
            file: new,
            format: Format::Qcow2,
        },
        over: Some(Top {
            file: file.clone(),
            format,
        }),
        named: file,
        stands_on,
    })
}

impl Choice {
    /// The file, if it becomes the active one itself.
    fn lock(&self) -> Option<Result<ImageLock, String>> {
        let at = At::new(&self.machine, &self.disk);
        let lock = || ImageLock::take(&at, &self.top.file).map_err(|e| e.to_string());
        self.over.is_none().then(lock)
    }

    fn make(&self) -> Result<(), String> {
        let Some(base) = &self.over else {
            return Ok(());
        };
        let at = At::new(&self.machine, &self.disk);
        overlay::over(&at, base, &self.top.file).map_err(|e| e.to_string())
    }
}

impl Chosen {
    /// All of it, as it is shown.
    fn shown(&self) -> ShownTops {
        let which = |file: &Path| {
            let found = held::look_at(file).ok();
            found.map(|it| (it.device, it.inode, it.born))
        };
        let named = self.disks.iter().map(|it| it.named.as_path());
        let found = || self.found.iter().flatten();
        let others = found().map(|(_, top)| top.file.as_path());
        let told = self.disks.iter().map(|it| it.told.clone());
        let also = found().map(|(disk, top)| {
            format!(
                "Disk {disk} runs on {}, the one file that can be its active one.",
                top.file.display()
            )
        });
        ShownTops {
            told: told.chain(also).collect(),
            files: named
                .chain(others)
                .map(|file| (file.to_owned(), which(file)))
                .collect(),
            stands_on: self.stands_on,
        }
    }

    /// What was named waits no more to be removed.
    fn kept(&self, state: &State) -> Vec<Change> {
        let is_left = |it: &&Choice| state.leftovers.contains_key(&it.named);
        let left = self.disks.iter().filter(is_left);
        left.map(|it| Change::RemoveLeftover(it.named.clone()))
            .collect()
    }

    /// Where the machine stands.
    fn stands(&self, state: &State) -> Vec<Change> {
        let old = state.position(self.machine);
        let new = Position {
            parent: self.stands_on,
            last_applied: old.last_applied,
        };
        let changed = (new != old).then_some(Change::PutPosition(self.machine, new));
        changed.into_iter().collect()
    }

    fn write(&self, core: &Core) -> Result<(), String> {
        let compute = &core.deps.compute;
        let disks = self.disks.iter();
        let mut tops: BTreeMap<_, _> = disks.map(|it| (it.disk.clone(), it.top.clone())).collect();
        let written = match &self.found {
            None => compute.set_tops(self.machine, &tops),
            Some(found) => {
                tops.extend(found.clone());
                let lost = Lost::known(core, self.machine)?;
                compute.restore_tops(self.machine, &lost.recorded(&tops))
            }
        };
        written.map_err(|e| {
            if e.kind == EngineErrorKind::Broken {
                core.break_down(e.to_string());
            }
            e.to_string()
        })
    }
}

impl Lost<'_> {
    /// The recorded active file of the disk, if `tops.json` counts and the file is there.
    fn recorded_top(&self, disk: &DiskEntry) -> Option<Top> {
        let machine = self.core().deps.compute.machine(self.machine())?;
        let disk = machine.disks.iter().find(|d| d.id == disk.id)?;
        let (file, format) = (disk.file.clone(), disk.format);
        (!self.is_lost() && !is_gone(&file)).then_some(Top { file, format })
    }

    /// The set that keeps the file, or needs it under one that it keeps.
    fn keeper(&self, file: &Path, graph: &Graph) -> Option<(SetId, String)> {
        let mut sets = self.known_sets().filter(|set| {
            let disks = set.members.iter().flat_map(|m| &m.disks);
            let mut disks = disks.filter(|d| graph::is_file(d));
            disks.any(|disk| {
                let sealed = disk.sealed.iter().map(|s| &s.file);
                let mut files = sealed.chain([&disk.file]);
                files.any(|kept| graph.is_same(kept, file))
            })
        });
        sets.next().map(|set| (set.id, set.name.clone()))
    }

    /// The snapshot of the machine whose capture of the disk comes first in the chain of the file.
    fn stands_on(&self, disk: &DiskEntry, file: &Path, graph: &Graph) -> Option<SnapshotId> {
        let captured = |node: &Path| {
            let mut snapshots = self.snapshots().filter(|snapshot| {
                let mut disks = snapshot.disks.iter().filter(|d| d.id == disk.id);
                disks.any(|kept| graph.is_same(&kept.file, node))
            });
            snapshots.next().map(|snapshot| snapshot.id)
        };
        let chain = graph.chain(file);
        chain.iter().find_map(|node| captured(&node.file))
    }
}
