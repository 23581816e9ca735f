//! One cause with many consequences is one finding: where a folder is away, so is every file that is named in it; where a
//! place does not answer, no file in it does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::doctor::look::{Ailment, ailment};
use crate::doctor::{Concerned, Doctor, Kind, Severity};
use crate::engine::EngineErrorKind;
use crate::held;

/// So many names are told in words; all of them stand in the finding.
const NAMED: usize = 3;

/// What became of the folder of a missing file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Away {
    /// It is not there.
    Gone,
    /// It is there, and nothing is in it.
    Empty,
}

/// What is known of a place that does not answer.
#[derive(Debug, Default)]
struct Quiet {
    /// The files that were asked for.
    files: BTreeSet<PathBuf>,
    /// A look at a file of a machine or a set was not answered.
    looked: bool,
    /// Sets may be exported there.
    root: bool,
    /// The jobs that wait there.
    jobs: BTreeSet<String>,
}

impl Doctor {
    /// The findings, with one for each folder in place of those of the files that are away with it.
    pub(super) fn folded(&self, found: Vec<Ailment>) -> Vec<Ailment> {
        let found = self.quiet(found);
        let mut folders: BTreeMap<PathBuf, (Away, BTreeSet<PathBuf>)> = BTreeMap::new();
        for it in found.iter().filter(|a| is_missing(a.finding.kind)) {
            let file = PathBuf::from(&it.finding.object);
            if let Some((folder, away)) = folder_away(&file) {
                let (_, files) = folders
                    .entry(folder)
                    .or_insert_with(|| (away, BTreeSet::new()));
                files.insert(file);
            }
        }
        folders.retain(|_, (_, files)| files.len() > 1);
        let follows = |it: &Ailment| {
            let finding = &it.finding;
            folders.keys().any(|folder| match finding.kind {
                kind if is_missing(kind) => Path::new(&finding.object).starts_with(folder),
                _ => it.is_below(folder, EngineErrorKind::Missing),
            })
        };
        let rest = found.into_iter().filter(|it| !follows(it));
        let mut all: Vec<Ailment> = rest.collect();
        let told = folders.iter();
        all.extend(told.map(|(folder, (away, files))| self.away(folder, *away, files)));
        all
    }

    /// The findings, with one for each place that does not answer: that of its one file that is asked for, or of the place.
    fn quiet(&self, found: Vec<Ailment>) -> Vec<Ailment> {
        let known: Vec<_> = held::silent_places().into_keys().collect();
        // A job may wait where others are answered, as on a file system that is frozen.
        let place = |file: &Path, stands: bool| {
            let mut over = known.iter().filter(|place| file.starts_with(place));
            over.next().cloned().unwrap_or_else(|| match stands {
                true if file.is_absolute() => held::place_of(file),
                _ => file.to_owned(),
            })
        };
        let mut places: BTreeMap<PathBuf, Quiet> = BTreeMap::new();
        for it in found.iter().filter(|a| a.finding.kind == Kind::Silent) {
            let file = PathBuf::from(&it.finding.object);
            let place = place(&file, it.stands.is_some());
            let quiet = places.entry(place).or_default();
            quiet.files.insert(file);
            quiet.looked |= it.stands.is_none() && !it.root;
            quiet.root |= it.root;
            quiet.jobs.extend(it.stands.clone());
        }
        let follows = |it: &Ailment| {
            let is_of = |place: &PathBuf| it.is_below(place, EngineErrorKind::Silent);
            it.finding.kind == Kind::Silent || places.keys().any(is_of)
        };
        let rest = found.into_iter().filter(|it| !follows(it));
        let mut all: Vec<Ailment> = rest.collect();
        all.extend(
            places
                .iter()
                .map(|(place, quiet)| self.silent(place, quiet)),
        );
        all
    }

    fn silent(&self, place: &Path, quiet: &Quiet) -> Ailment {
        let (machines, sets) = self.concerned(place);
        let files = &quiet.files;
        let mut text = "does not answer: the server or process behind it, or the connection to it, hangs, or its file system is frozen; repair, thaw or unmount it".to_owned();
        if quiet.looked {
            text.push_str(&format!(
                "; of {} and {}, which are shown as they were known last, and no operation on them begins until it does",
                listed(&machines, "machine", "machines"),
                listed(&sets, "snapshot set", "snapshot sets"),
            ));
        }
        if quiet.root {
            text.push_str("; no set is exported there until it does ([export] roots)");
        }
        for job in &quiet.jobs {
            text.push_str(&format!("; {job}"));
        }
        let object = match files.first() {
            Some(only) if files.len() == 1 => only,
            _ => place,
        };
        let mut one = ailment(
            Kind::Silent,
            Severity::Error,
            object.display().to_string(),
            text,
        );
        if files.len() > 1 {
            let files = files.iter().map(|f| f.display().to_string());
            one.finding.files = files.collect();
        }
        one.finding.machines = machines;
        one.finding.sets = sets;
        one
    }

    /// The machines and the sets that have files there.
    fn concerned(&self, folder: &Path) -> (Vec<Concerned>, Vec<Concerned>) {
        let known = self.deps.compute.machines();
        let machines = known.values().filter(|m| {
            let active = m.disks.iter().map(|d| &d.file);
            let mut all = active.chain(m.images.values().map(|i| &i.file));
            all.any(|f| f.starts_with(folder))
        });
        let machines = machines.map(|m| Concerned::new(&m.id, &m.name));
        let state = self.deps.store.state();
        let members = state.sets.values().flat_map(|set| &set.members);
        let away = members.filter(|m| self.home(m.machine).starts_with(folder));
        // By the name that it has now, not by those that it had at each cut.
        let away = away.map(|m| {
            let now = known.get(&m.machine).map(|machine| &machine.name);
            let name = now.unwrap_or(&m.machine_name);
            (m.machine, Concerned::new(&m.machine, name))
        });
        let away = away.collect::<BTreeMap<_, _>>().into_values();
        let machines = by_name(machines.chain(away));
        let sets = state.sets.values().filter(|set| {
            let mut members = set.members.iter();
            members.any(|m| {
                let disks = m.disks.iter();
                let files = disks.flat_map(|d| d.sealed.iter().map(|s| &s.file).chain([&d.file]));
                let own = [m.definition.clone(), self.home(m.machine)];
                let is_below = |f: &Path| f.starts_with(folder);
                files.map(PathBuf::as_path).any(is_below) || own.iter().any(|f| is_below(f))
            })
        });
        let sets = by_name(sets.map(|set| Concerned::new(&set.id, &set.name)));
        (machines, sets)
    }

    fn away(&self, folder: &Path, away: Away, files: &BTreeSet<PathBuf>) -> Ailment {
        let (machines, sets) = self.concerned(folder);
        let what = match away {
            Away::Gone => "the folder is not there",
            Away::Empty => "the folder is empty: is its file system mounted?",
        };
        let text = format!(
            "{what}; {} in it, of {} and {}",
            count(files.len(), "file is named", "files are named"),
            listed(&machines, "machine", "machines"),
            listed(&sets, "snapshot set", "snapshot sets"),
        );
        let object = folder.display().to_string();
        let mut one = ailment(Kind::FolderMissing, Severity::Error, object, text);
        let files = files.iter().map(|f| f.display().to_string());
        one.finding.files = files.collect();
        one.finding.machines = machines;
        one.finding.sets = sets;
        one
    }
}

/// Each once, by the name that it is told by first.
fn by_name(all: impl Iterator<Item = Concerned>) -> Vec<Concerned> {
    let mut ids = BTreeSet::new();
    let mut all: Vec<Concerned> = all.filter(|it| ids.insert(it.id.clone())).collect();
    all.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    all
}

fn is_missing(kind: Kind) -> bool {
    matches!(kind, Kind::ImageMissing | Kind::KeptMissing)
}

/// The highest folder above a missing file that is not there, or the one that is there and empty, as the place of a
/// file system that is not mounted; `None` if the folder of the file is there with something in it.
fn folder_away(file: &Path) -> Option<(PathBuf, Away)> {
    let mut lowest = None;
    for folder in file.ancestors().skip(1) {
        match held::ask(folder, || fs::read_dir(folder)) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                lowest = Some((folder.to_owned(), Away::Gone))
            }
            Ok(mut entries) => {
                return match entries.next() {
                    None => Some((folder.to_owned(), Away::Empty)),
                    Some(_) => lowest,
                };
            }
            Err(_) => return lowest,
        }
    }
    lowest
}

fn count(n: usize, one: &str, several: &str) -> String {
    match n {
        1 => format!("1 {one}"),
        n => format!("{n} {several}"),
    }
}

/// `2 machines (web, db)`, the first few by name.
fn listed(all: &[Concerned], one: &str, several: &str) -> String {
    let counted = count(all.len(), one, several);
    let names: Vec<_> = all.iter().take(NAMED).map(|c| c.name.as_str()).collect();
    match (names.is_empty(), all.len() > names.len()) {
        (true, _) => counted,
        (false, false) => format!("{counted} ({})", names.join(", ")),
        (false, true) => format!("{counted} ({}, …)", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_was_renamed_is_counted_once_by_its_name_of_now() {
        let named = |id: &str, name: &str| Concerned {
            id: id.to_owned(),
            name: name.to_owned(),
        };
        let known = [named("1", "www"), named("2", "db")];
        let at_cuts = [named("1", "web"), named("3", "mail"), named("2", "db")];
        let all = by_name(known.into_iter().chain(at_cuts));
        let expected = [named("2", "db"), named("3", "mail"), named("1", "www")];
        assert_eq!(all, expected);
    }

    #[test]
    fn the_folder_that_is_away_is_the_highest_one_or_that_where_nothing_is_mounted() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        let file = home.join("images/web/disk0.raw");
        assert_eq!(folder_away(&file), Some((home.to_owned(), Away::Empty)));
        fs::write(home.join("other"), "").unwrap();
        assert_eq!(folder_away(&file), Some((home.join("images"), Away::Gone)));
        fs::create_dir(home.join("images")).unwrap();
        assert_eq!(folder_away(&file), Some((home.join("images"), Away::Empty)));
        fs::create_dir(home.join("images/web")).unwrap();
        fs::write(home.join("images/web/disk1.raw"), "").unwrap();
        assert_eq!(folder_away(&file), None);
    }
}
