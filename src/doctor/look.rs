//! What is found: each check on its own, none of them changes anything but the marks of damaged sets.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::doctor::cure::{Cure, actives};
use crate::doctor::fold;
use crate::doctor::{Concerned, Doctor, Finding, FindingKind, Severity};
use crate::engine::definition;
use crate::engine::failure::{self, At};
use crate::engine::graph;
use crate::engine::image;
use crate::engine::links;
use crate::engine::locks;
use crate::engine::qcow2::chain::{self, Roots};
use crate::engine::{EngineError, EngineErrorKind};
use crate::held;
use crate::id::VmId;
use crate::inventory::{Image, Machine, RunState, Snapshot, SnapshotDisk};
use crate::snapshot::{DamagedDisk, Forgotten, OpenJournal, Resource, Root, shown};
use crate::text::{Argument, size_exactly};

/// So many files below the cap a chain is told of.
const NEAR: usize = 4;

/// A finding with its repair.
pub(super) struct Ailment {
    pub(super) finding: Finding,
    pub(super) cure: Option<Cure>,
    /// The trouble with a file that it is so for, and the file.
    pub(super) cause: Option<(EngineErrorKind, PathBuf)>,
    /// The job that waits for that file.
    pub(super) stands: Option<String>,
    /// It is a folder to which sets may be exported.
    pub(super) root: bool,
    /// The machine that it keeps from work.
    pub(super) machine: Option<Concerned>,
    /// The image that is not taken, if it is so because of one.
    refused: Option<PathBuf>,
}

impl Doctor {
    /// Everything that is found now, in the order in which it is best repaired.
    pub async fn look(self: &Arc<Self>) -> Vec<Finding> {
        let all = self.ailments().await;
        all.into_iter().map(|a| a.finding).collect()
    }

    /// [`Doctor::look`] with the repairs.
    pub(super) async fn ailments(self: &Arc<Self>) -> Vec<Ailment> {
        let (mut found, estranged) = match self.looking(Self::first).await {
            Ok(Ok(first)) => first,
            Ok(Err(copied)) => return copied,
            Err(unknown) => return vec![unknown],
        };
        // Where nobody works on an operation, nobody knows what of its files is its own doing.
        let at_rest = self.deps.frozen.is_some() || found.is_empty();
        // What a look at files notes would go over what the database has lost, or is of a copy.
        let is_own = estranged.is_empty();
        found.extend(estranged);
        if at_rest
            && is_own
            && let Err(error) = self.deps.coordinator.look_at_files().await
        {
            found.push(unknown("the database", &error));
        }
        // What folds them looks at folders.
        let rest = self.looking(move |it| it.folded(it.rest(at_rest))).await;
        match rest {
            Ok(rest) => found.extend(rest),
            Err(unknown) => found.push(unknown),
        }
        if !is_own {
            for one in &mut found {
                (one.finding.fix, one.cure) = (None, None);
            }
        }
        leave_out_what_a_move_explains(&mut found, &self.deps.data_dir);
        found.sort_by(|a, b| {
            let key = |a: &Ailment| (a.finding.kind, a.finding.object.clone());
            key(a).cmp(&key(b))
        });
        found
    }

    /// What is found by a look at files, away from the threads that serve; begun again where one does not answer.
    async fn looking<T: Send + 'static>(
        self: &Arc<Self>,
        look: impl Fn(&Self) -> T + Send + Sync + 'static,
    ) -> Result<T, Ailment> {
        let doctor = Arc::clone(self);
        let look = move || held::look(move || look(&doctor));
        match tokio::task::spawn_blocking(look).await {
            Ok(found) => found.map_err(|error| unknown("the check-up", &error)),
            Err(error) => Err(unknown("the check-up", &error)),
        }
    }

    /// Blocks.
    fn rest(&self, at_rest: bool) -> Vec<Ailment> {
        let mut found = self.forgotten();
        found.extend(self.users());
        found.extend(self.stuck());
        found.extend(self.roots());
        found.extend(self.library());
        found.extend(self.exposed());
        found.extend(self.exposed_roots());
        found.extend(self.kept());
        found.extend(self.copies());
        found.extend(self.strangers());
        let (machines, lie_on) = self.machines();
        found.extend(self.damaged(&lie_on));
        found.extend(self.gone());
        found.extend(machines);
        // Why an image is not taken says more than that it cannot be read.
        let images = found.iter().filter_map(|a| a.refused.as_ref());
        let images: BTreeSet<_> = images.map(|file| file.display().to_string()).collect();
        found.retain(|a| {
            let is_told = || images.contains(&a.finding.object);
            a.finding.kind != FindingKind::ImageUnreadable || a.refused.is_some() || !is_told()
        });
        if at_rest {
            let refused = found.iter().filter(|a| a.refused.is_some());
            let refused: Vec<_> = refused.map(|a| a.finding.clone()).collect();
            found.extend(self.hidden(&refused));
            found.extend(self.leftovers());
        }
        found.extend(self.orphans());
        found.extend(self.space());
        let warnings = (self.deps.certificates)().into_iter();
        found.extend(
            warnings.map(|w| ailment(FindingKind::Certificate, Severity::Warning, "tls", w)),
        );
        found
    }

    /// A running server works on every journal; those that it cannot end are `stuck`.
    fn journals(&self) -> Vec<Ailment> {
        if self.deps.frozen.is_some() {
            return Vec::new();
        }
        let journals = match self.deps.coordinator.open_journals() {
            Ok(journals) => journals,
            Err(error) => return vec![unknown("journal/", &error)],
        };
        let told = |journal: OpenJournal| {
            let file = journal.file.display().to_string();
            match journal.told {
                Ok((what, job)) => {
                    let mut text = format!("the {what} (job {job}) has not ended");
                    let (let_go, left) = journal.let_go;
                    if !let_go.is_empty() {
                        let names = let_go.join(", ");
                        text += &format!("; the server died or hung, and its guard let {names} go");
                    }
                    if !left.is_empty() {
                        let names = left.join(", ");
                        text += &format!("; {names}: stuck, not known to go on");
                    }
                    let fix = "finish or undo it, as the start of the server does";
                    ailment(FindingKind::OpenJournal, Severity::Warning, file, text)
                        .cured(fix, Cure::Recover)
                }
                Err(why) => {
                    let text = format!("the journal {why}; the server does not start, keep a copy");
                    ailment(FindingKind::JournalUnreadable, Severity::Error, file, text)
                }
            }
        };
        journals.into_iter().map(told).collect()
    }

    /// The journals, and why database and files are not of each other, so that no start would go on with them: nothing
    /// is repaired, and nothing noted, before that is. Blocks.
    ///
    /// # Errors
    /// That it is a copy, where no server runs: it names the files of another directory, and nothing but that is to be
    /// told of it.
    fn first(&self) -> Result<(Vec<Ailment>, Vec<Ailment>), Vec<Ailment>> {
        let mut estranged = self.copied();
        if self.deps.frozen.is_none() && !estranged.is_empty() {
            return Err(estranged);
        }
        estranged.extend(self.moved());
        estranged.extend(self.records());
        Ok((self.journals(), estranged))
    }

    fn moved(&self) -> Vec<Ailment> {
        let data_dir = self.deps.data_dir.display();
        let told = self.deps.coordinator.moved_from().into_iter().map(|from| {
            let from = from.display().to_string();
            let text = format!(
                "recorded paths lie there, and their files are here: the data directory was moved; no server starts and no orphan is moved before `groupshot relocate --data-dir {data_dir} --from {from} --apply`"
            );
            ailment(FindingKind::DataDirectoryMoved, Severity::Error, from, text)
        });
        told.collect()
    }

    fn copied(&self) -> Vec<Ailment> {
        let object = self.deps.data_dir.display().to_string();
        let told = (self.deps.directory)().map(|text| {
            ailment(
                FindingKind::DataDirectoryCopied,
                Severity::Error,
                object,
                text,
            )
        });
        told.into_iter().collect()
    }

    fn records(&self) -> Vec<Ailment> {
        let object = self.deps.data_dir.join(held::SETS).display().to_string();
        let told = (self.deps.records)()
            .map(|text| ailment(FindingKind::SetRecords, Severity::Error, object, text));
        told.into_iter().collect()
    }

    fn forgotten(&self) -> Vec<Ailment> {
        let told = |set: Forgotten| {
            let object = set.folder.display().to_string();
            let text = set.told(&self.deps.data_dir);
            let mut one = ailment(FindingKind::SetUnknown, Severity::Error, object, text);
            let name = |id| self.deps.compute.machine(id).map(|m| m.name.clone());
            let machines = set.machines.iter();
            let machines = machines.map(|id| Concerned::new(id, &name(*id).unwrap_or_default()));
            one.finding.machines = machines.collect();
            one.finding.sets = vec![Concerned::new(&set.set, "")];
            one
        };
        match self.deps.coordinator.forgotten() {
            Ok(sets) => sets.into_iter().map(told).collect(),
            Err(error) => vec![unknown("sets/", &error)],
        }
    }

    fn users(&self) -> Vec<Ailment> {
        let object = self.deps.data_dir.join("users.json").display().to_string();
        let told = (self.deps.users)()
            .map(|text| ailment(FindingKind::UsersUnreadable, Severity::Error, object, text));
        told.into_iter().collect()
    }

    fn stuck(&self) -> Vec<Ailment> {
        let stuck = self.deps.coordinator.stuck().into_iter();
        let told = stuck.flat_map(|(holder, held)| {
            let machines = held.iter().filter_map(|resource| match resource {
                Resource::Machine(id) => Some(*id),
                Resource::Set(_) | Resource::Collection(_) | Resource::Export(..) => None,
            });
            let name = |id| {
                let machine = self.deps.compute.machine(id);
                machine.map_or_else(|| id.to_string(), |m| m.name.clone())
            };
            let machines: Vec<_> = machines.map(name).collect();
            let held = match machines.is_empty() {
                true => String::new(),
                false => format!("; held: {}", machines.join(", ")),
            };
            let (doing, job) = (holder.doing.english(), format!("job {}", holder.job));
            if holder.stands.is_empty() {
                let text =
                    format!("{doing}{held}; it is tried again by itself until its cause is gone");
                return vec![ailment(FindingKind::Stuck, Severity::Error, job, text)];
            }
            let files = holder.stands.values().flat_map(|stand| &stand.files);
            let mut objects: BTreeSet<_> = files.map(|f| f.display().to_string()).collect();
            if objects.is_empty() {
                objects.insert(job.clone()); // it closes one
            }
            let stands = format!("{job} waits for it ({doing}){held}");
            let told = objects.into_iter().map(|object| {
                let mut one = ailment(FindingKind::Silent, Severity::Error, object, "");
                one.stands = Some(stands.clone());
                one
            });
            told.collect()
        });
        told.collect()
    }

    /// The folders to which sets may be exported that do not answer.
    fn roots(&self) -> Vec<Ailment> {
        let hangs = |root: &&PathBuf| held::metadata(root).is_err_and(|e| held::is_silence(&e));
        let roots = self.deps.export_roots.iter().filter(hangs);
        let told = roots.map(|root| {
            let mut one = ailment(
                FindingKind::Silent,
                Severity::Error,
                root.display().to_string(),
                "",
            );
            one.root = true;
            one
        });
        told.collect()
    }

    fn library(&self) -> Vec<Ailment> {
        let problems = (self.deps.library)().into_iter();
        let told = problems.map(|p| {
            let object = p.file.display().to_string();
            if p.kind == FindingKind::PathIdle {
                return ailment(p.kind, Severity::Warning, object, p.text);
            }
            let Some(machine) = self.without_tops(&p.file) else {
                let mut one = ailment(p.kind, Severity::Error, object, p.text);
                if matches!(
                    p.kind,
                    FindingKind::ImageMissing | FindingKind::ImageUnreadable
                ) {
                    let why = held::metadata(&p.file).err();
                    let why = why.map_or(EngineErrorKind::Unsupported, |e| failure::kind(&e));
                    one.cause = Some((why, p.file));
                }
                return one;
            };
            match self.deps.coordinator.lost_tops(machine) {
                Ok(tops) => {
                    let fix = format!("make it anew: {}", actives(&tops));
                    let found = ailment(p.kind, Severity::Error, object, p.text);
                    found.cured(&fix, Cure::Tops(machine))
                }
                Err(why) => {
                    let text = format!("{}; it cannot be made anew: {why}", p.text);
                    ailment(p.kind, Severity::Error, object, text)
                }
            }
        });
        told.collect()
    }

    /// The machine whose `tops.json` this is, if it is not there, damaged or not its own.
    pub(super) fn without_tops(&self, file: &Path) -> Option<VmId> {
        let machine = file.parent().and_then(Path::file_name)?.to_str()?;
        let machine = machine.parse().ok()?;
        let is_away = || file.try_exists().is_ok_and(|there| !there);
        let gone = || is_away() || definition::is_damaged(file);
        let gone =
            file.ends_with(definition::TOPS) && (gone() || self.deps.compute.is_doubtful(machine));
        gone.then_some(machine)
    }

    pub(super) fn tops(&self, machine: VmId) -> PathBuf {
        self.home(machine).join(definition::TOPS)
    }

    /// Folders in which somebody else may exchange images, with the machines that have some there.
    fn exposed(&self) -> Vec<Ailment> {
        let mut folders: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
        for machine in self.deps.compute.machines().values() {
            let images = machine.images.values().flat_map(Image::chain);
            for folder in images.flat_map(|it| image::exposed(&it.file)) {
                let names = folders.entry(folder).or_default();
                names.insert(machine.name.clone());
            }
        }
        let told = folders.into_iter().map(|(it, names)| {
            let (owner, mode) = (it.owner, it.mode);
            let names: Vec<_> = names.into_iter().collect();
            let text = format!(
                "others than root and the server can exchange images in it: it belongs to user {owner} and has the mode {mode:o}; machines: {}; what is put there later is refused unless it is a file of the same owner and nobody else could have put it there",
                names.join(", ")
            );
            let folder = it.folder.display().to_string();
            ailment(FindingKind::ImageExposed, Severity::Info, folder, text)
        });
        told.collect()
    }

    /// Folders for exports that somebody else may exchange.
    fn exposed_roots(&self) -> Vec<Ailment> {
        let roots = self.deps.export_roots.iter();
        let told = roots.filter_map(|root| {
            let text = Root::resolve(root).exposed()?;
            let object = root.display().to_string();
            Some(ailment(
                FindingKind::ExportExposed,
                Severity::Warning,
                object,
                text,
            ))
        });
        told.collect()
    }

    /// The files that sets keep: there, closed to writers, locked.
    fn kept(&self) -> Vec<Ailment> {
        let state = self.deps.store.state();
        let members = state.sets.values().flat_map(|set| &set.members);
        let disks = members.flat_map(|m| m.disks.iter().map(move |d| (m, d)));
        let mut files: BTreeMap<&Path, (&Snapshot, &SnapshotDisk)> = BTreeMap::new();
        let mut named = BTreeSet::new();
        for (member, disk) in disks.filter(|(_, d)| graph::is_file(d)) {
            named.insert(disk.file.as_path());
            let below = disk.sealed.iter().skip(1).map(|s| s.file.as_path());
            for file in below.chain([disk.file.as_path()]) {
                files.entry(file).or_insert((member, disk));
            }
        }
        let frozen = self.deps.frozen.as_ref().map(|freeze| freeze());
        let mut found = Vec::new();
        for (file, (member, disk)) in &files {
            let (object, of) = (file.display().to_string(), &member.machine_name);
            if let Err(error) = held::metadata(file) {
                // A merge removes what it has merged, and seals anew at its end.
                if self.is_at_work(member.machine) {
                    continue;
                }
                let text = format!(
                    "a snapshot of machine {of}, disk {} needs it: {error}",
                    disk.id
                );
                let kind = match error.kind() {
                    _ if held::is_silence(&error) => FindingKind::Silent,
                    ErrorKind::NotFound | ErrorKind::NotADirectory => FindingKind::KeptMissing,
                    _ => FindingKind::Unknown,
                };
                let mut one = ailment(kind, Severity::Error, object, text);
                one.cause = Some((failure::kind(&error), file.to_path_buf()));
                found.push(one);
                continue;
            }
            if locks::is_written(file).unwrap_or(false) {
                let text = format!(
                    "another process has it open for writing; a snapshot of machine {of} needs it as it is"
                );
                found.push(ailment(
                    FindingKind::FrozenOpen,
                    Severity::Error,
                    object.clone(),
                    text,
                ));
            }
            if named.contains(file) && frozen.as_ref().is_some_and(|f| !f.holds(file)) {
                let text = "it is not locked against writers; the server tries again by itself";
                found.push(ailment(
                    FindingKind::FrozenUnlocked,
                    Severity::Warning,
                    object,
                    text,
                ));
            }
        }
        for (file, machine) in self.deps.coordinator.writable() {
            let object = file.display().to_string();
            let text = "a snapshot keeps it, and its mode lets it be written";
            let cure = Cure::Mode(file, machine);
            let ailment = ailment(FindingKind::FrozenWritable, Severity::Warning, object, text);
            found.push(ailment.cured("take its write bits", cure));
        }
        found
    }

    /// One for the disks of which the same files were changed, with the machines that [lie on them](Self::machines).
    fn damaged(&self, lie_on: &BTreeMap<PathBuf, Vec<Concerned>>) -> Vec<Ailment> {
        let mut causes: BTreeMap<Vec<PathBuf>, Vec<DamagedDisk>> = BTreeMap::new();
        for disk in self.deps.coordinator.damaged() {
            let mut files = disk.files.clone();
            files.sort();
            causes.entry(files).or_default().push(disk);
        }
        let told = causes.into_iter().map(|(files, disks)| {
            let shown: Vec<_> = files.iter().map(|f| shown(f)).collect();
            let changed = format!("changed after it was captured: {}", shown.join(", "));
            let on = files.iter().filter_map(|file| lie_on.get(file)).flatten();
            let on = fold::by_name(on.cloned());
            let on = match on.len() {
                0 => String::new(),
                n => format!(
                    "; {} on it",
                    match n {
                        1 => format!("the active file of {} lies", fold::machines(&on)),
                        _ => format!("the active files of {} lie", fold::machines(&on)),
                    }
                ),
            };
            if let [disk] = disks.as_slice() {
                let object = of_disk(disk);
                let name = &disk.set_name;
                let text = format!("{changed}; set `{name}` is neither applied nor exported{on}");
                let fix = "accept the disk as it is now";
                return ailment(FindingKind::Damaged, Severity::Error, object, text)
                    .cured(fix, Cure::Accept(disks));
            }
            let machines = disks
                .iter()
                .map(|d| Concerned::new(&d.machine, &d.machine_name));
            let machines = fold::by_name(machines);
            let sets = disks.iter().map(|d| Concerned::new(&d.set, &d.set_name));
            let sets = fold::by_name(sets);
            let text = format!(
                "{changed}; {} of {} need it, and {} neither applied nor exported{on}",
                fold::count(disks.len(), "disk", "disks"),
                fold::machines(&machines),
                match sets.len() {
                    1 => format!("{} is", fold::sets(&sets)),
                    _ => format!("{} are", fold::sets(&sets)),
                },
            );
            let files: Vec<_> = files.iter().map(|f| f.display().to_string()).collect();
            let object = disks.first().map(of_files).unwrap_or_default();
            let mut one = ailment(FindingKind::Damaged, Severity::Error, object, text);
            if files.len() > 1 {
                one.finding.files = files;
            }
            (one.finding.machines, one.finding.sets) = (machines, sets);
            one.cured("accept the disks as they are now", Cure::Accept(disks))
        });
        told.collect()
    }

    /// Members of collections that are in the library no more.
    fn gone(&self) -> Vec<Ailment> {
        let (state, compute) = (self.deps.store.state(), &self.deps.compute);
        let is_gone = |id: &&VmId| compute.is_gone(**id);
        let told = state.collections.values().filter_map(|collection| {
            let gone = collection.machines.iter().filter(is_gone);
            let gone: Vec<_> = gone.map(|id| Concerned::new(id, "")).collect();
            let ids: Vec<_> = gone.iter().map(|c| c.id.as_str()).collect();
            let first = ids.first()?;
            let text = format!(
                "{} in the library any more, so no set of it is taken: {}; `groupshot collection remove {} {first}` takes one out",
                match ids.len() {
                    1 => "a member is not".to_owned(),
                    n => format!("{n} members are not"),
                },
                ids.join(", "),
                collection.id,
            );
            let object = format!("collection {}", collection.name);
            let mut one = ailment(FindingKind::MemberGone, Severity::Warning, object, text);
            one.finding.machines = gone;
            Some(one)
        });
        told.collect()
    }

    /// What of machines is at work, or deep; and the machines of which an active file lies on a changed file.
    fn machines(&self) -> (Vec<Ailment>, BTreeMap<PathBuf, Vec<Concerned>>) {
        let mut lie_on: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let changed = self.deps.coordinator.damaged();
        let changed: BTreeSet<_> = changed.into_iter().flat_map(|d| d.files).collect();
        let mut found = Vec::new();
        for machine in self.deps.compute.machines().values() {
            if let Some(file) = self.deps.compute.silent(machine.id) {
                // In words once it is known what else is there.
                let object = file.display().to_string();
                found.push(ailment(FindingKind::Silent, Severity::Error, object, ""));
                continue;
            }
            if self.deps.compute.state(machine.id) != RunState::Off {
                let text = "another process has a disk image of it open for writing: it runs";
                let object = format!("machine {}", machine.name);
                found.push(ailment(FindingKind::Running, Severity::Info, object, text));
            }
            let (told, on) = self.disks(machine, &changed);
            found.extend(told);
            for file in on {
                let machine = Concerned::new(&machine.id, &machine.name);
                lie_on.entry(file).or_default().push(machine);
            }
        }
        (found, lie_on)
    }

    /// With the changed files that its active files lie on.
    fn disks(
        &self,
        machine: &Machine,
        changed: &BTreeSet<PathBuf>,
    ) -> (Vec<Ailment>, BTreeSet<PathBuf>) {
        let (mut found, mut lies_on) = (Vec::new(), BTreeSet::new());
        // Of one that runs no set is taken, and what is written just now is not whole.
        let is_off = self.deps.compute.state(machine.id) == RunState::Off;
        for disk in machine.disks.iter().filter(|d| held::is_file(&d.file)) {
            let at = At::disk(machine, disk);
            let object = object_of(machine, &disk.id);
            if let Some(below) = machine.relative.get(&disk.id) {
                // Whoever allows overlays starts the machine by the link.
                let severity = match machine.overlay_ok {
                    true => Severity::Warning,
                    false => Severity::Info,
                };
                let text = links::unlinked(disk, below);
                found.push(ailment(
                    FindingKind::Unlinked,
                    severity,
                    object.clone(),
                    text,
                ));
            }
            // As the refusal of a set does.
            let within = (&Roots::default(), None);
            let opened = image::open(&at, machine, disk, &disk.file, within);
            let whole = opened.and_then(|layers| {
                if is_off {
                    chain::require_whole(&at, &layers)?;
                }
                Ok(layers)
            });
            let layers = match whole {
                Ok(layers) => layers,
                // A merge gives its files other names.
                Err(_) if self.is_at_work(machine.id) => continue,
                Err(error) => {
                    let (kind, text) = (FindingKind::ImageUnreadable, error.to_string());
                    let mut unreadable = ailment(kind, Severity::Error, object, text);
                    unreadable.machine = Some(Concerned::new(&machine.id, &machine.name));
                    let refused = error.kind == EngineErrorKind::Unsupported;
                    unreadable.refused = refused.then(|| disk.file.clone());
                    found.push(unreadable.for_the_sake(&error));
                    continue;
                }
            };
            // How deep a chain was imported is nobody's fault; that no set can be taken is told by the refusal.
            let files = layers.iter().map(|l| l.file.as_path());
            let own = files.filter(|f| self.deps.coordinator.is_of_sets(f));
            let own = own.count();
            if own.saturating_add(NEAR) > self.deps.chain_cap {
                let text = format!(
                    "{own} files of snapshot sets lie on each other, and chain_cap is {}: delete older sets",
                    self.deps.chain_cap
                );
                found.push(ailment(
                    FindingKind::ChainDeep,
                    Severity::Warning,
                    object,
                    text,
                ));
            }
            let below = layers.iter().skip(1);
            let below = below.filter_map(|l| held::canonicalize(&l.file).ok());
            lies_on.extend(below.filter(|f| changed.contains(f)));
        }
        (found, lies_on)
    }

    pub(super) fn is_at_work(&self, machine: VmId) -> bool {
        self.deps.coordinator.at_work(machine).is_some()
    }

    /// The file systems that sets are written to.
    fn space(&self) -> Vec<Ailment> {
        let machines = self.deps.compute.machines();
        let files = machines.values().flat_map(|m| &m.disks).map(|d| &d.file);
        let folders = files.filter_map(|f| f.parent()).map(Path::to_owned);
        let folders: BTreeSet<_> = folders.chain([self.deps.data_dir.clone()]).collect();
        // One file system is one finding.
        let mut systems: BTreeMap<u64, Vec<PathBuf>> = BTreeMap::new();
        for folder in folders {
            if let Some(meta) = held::metadata(&folder).ok().filter(Metadata::is_dir) {
                systems.entry(meta.dev()).or_default().push(folder);
            }
        }
        let told = systems.into_values().filter_map(|folders| {
            let folder = folders.first()?;
            let object = folder.display().to_string();
            let short = self.deps.reserve.shortage(folder).transpose()?;
            Some(match short {
                Ok((free, needed)) => {
                    let (free, needed) = (size_exactly(free), size_exactly(needed));
                    let text = format!("free on its file system: {free}, and {needed} must stay free: no set can be taken there");
                    let mut low = ailment(FindingKind::SpaceLow, Severity::Warning, object, text);
                    if folders.len() > 1 {
                        let all = folders.iter().map(|f| f.display().to_string());
                        low.finding.files = all.collect();
                    }
                    low
                }
                Err(error) => unknown(object, &error),
            })
        });
        told.collect()
    }
}

/// What a finding about one damaged disk is called.
pub(super) fn of_disk(disk: &DamagedDisk) -> String {
    let (set, machine, id) = (&disk.set, &disk.machine_name, &disk.disk);
    format!("set {set}, machine {machine}, disk {id}")
}

/// What one about several is called that were damaged by the same files.
pub(super) fn of_files(disk: &DamagedDisk) -> String {
    let files: BTreeSet<_> = disk.files.iter().map(|f| f.display().to_string()).collect();
    Vec::from_iter(files).join(", ")
}

pub(super) fn object_of(machine: &Machine, disk: &str) -> String {
    format!("machine {}, disk {disk}", machine.name)
}

impl Ailment {
    /// It is so for this trouble with a file.
    pub(super) fn for_the_sake(mut self, error: &EngineError) -> Self {
        let file = error.text.arg("file").and_then(Argument::plain);
        self.cause = file.map(|file| (error.kind, PathBuf::from(file)));
        self
    }

    /// The file for whose sake it is so, if it is a finding about a file that is needed.
    pub(super) fn file(&self) -> Option<PathBuf> {
        let is_about_files = matches!(
            self.finding.kind,
            FindingKind::ImageMissing
                | FindingKind::ImageUnreadable
                | FindingKind::KeptMissing
                | FindingKind::Unknown
        );
        let (_, file) = self.cause.as_ref().filter(|_| is_about_files)?;
        Some(file.clone())
    }

    /// Whether it is so for such a trouble.
    pub(super) fn is_of(&self, kind: EngineErrorKind) -> bool {
        self.cause.as_ref().is_some_and(|(of, _)| *of == kind)
    }

    /// Whether it is so for such a trouble with a file below that folder, or with that file.
    pub(super) fn is_below(&self, folder: &Path, kind: EngineErrorKind) -> bool {
        let cause = self.cause.as_ref().filter(|_| self.is_of(kind));
        cause.is_some_and(|(_, file)| file.starts_with(folder))
    }

    pub(super) fn cured(mut self, fix: &str, cure: Cure) -> Self {
        self.finding.fix = Some(fix.to_owned());
        self.cure = Some(cure);
        self
    }
}

pub(super) fn ailment(
    kind: FindingKind,
    severity: Severity,
    object: impl Into<String>,
    text: impl Into<String>,
) -> Ailment {
    let finding = Finding {
        kind,
        severity,
        object: object.into(),
        text: text.into(),
        fix: None,
        files: Vec::new(),
        machines: Vec::new(),
        sets: Vec::new(),
    };
    Ailment {
        finding,
        cure: None,
        cause: None,
        stands: None,
        root: false,
        machine: None,
        refused: None,
    }
}

/// Where the data directory was moved, nothing else is told of what is named in the folder that it was in: there is one
/// way out, and any other would be wrong. That folder may be above the one that it is in now: what only names the latter has
/// another reason.
fn leave_out_what_a_move_explains(found: &mut Vec<Ailment>, data_dir: &Path) {
    let moved = |a: &&Ailment| a.finding.kind == FindingKind::DataDirectoryMoved;
    let from: Vec<_> = found
        .iter()
        .filter(moved)
        .map(|a| a.finding.object.clone())
        .collect();
    let here = format!("{}/", data_dir.display());
    found.retain(|a| match a.finding.kind {
        FindingKind::FolderMissing => !from.contains(&a.finding.object),
        FindingKind::DefinitionUnreadable => {
            let text = &a.finding.text;
            let names = |from: &String| match from.starts_with(&here) {
                true => text.contains(&format!("{from}/")),
                false => text.replace(&here, "").contains(&format!("{from}/")),
            };
            !from.iter().any(names)
        }
        _ => true,
    });
}

pub(super) fn unknown(object: impl Into<String>, error: &impl ToString) -> Ailment {
    let text = format!("it could not be looked at: {}", error.to_string());
    ailment(FindingKind::Unknown, Severity::Warning, object, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_in_a_directory_that_was_moved_below_its_old_place_is_told() {
        for (here, there) in [
            ("/data/new", "/data"),
            ("/data", "/data/old"),
            ("/new", "/old"),
        ] {
            let unreadable = |text: String| {
                let object = format!("{here}/machines/1/vm.toml");
                ailment(
                    FindingKind::DefinitionUnreadable,
                    Severity::Error,
                    object,
                    text,
                )
            };
            let moved = ailment(
                FindingKind::DataDirectoryMoved,
                Severity::Error,
                there,
                "it was moved",
            );
            let damaged = unreadable(format!("{here}/machines/1/vm.toml: expected a key"));
            let explained = unreadable(format!(
                "{here}/machines/1/tops.json: {there}/sets/1/1/disk0.qcow2 is not there"
            ));
            let mut found = vec![moved, damaged, explained];
            leave_out_what_a_move_explains(&mut found, Path::new(here));
            let told: Vec<_> = found.iter().map(|a| a.finding.text.as_str()).collect();
            assert_eq!(told.len(), 2, "{told:?}");
            assert!(told[1].ends_with("expected a key"), "{told:?}");
        }
    }
}
