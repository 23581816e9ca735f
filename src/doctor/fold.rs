//! One cause with many consequences is one finding: where a folder is away or closed, so is every file that is named in
//! it; where a place does not answer, no file in it does; what lies on a file that is not there, or is not what it should
//! be, cannot be used either.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::doctor::look::{Ailment, ailment};
use crate::doctor::{Concerned, Doctor, FindingKind, Severity};
use crate::engine::EngineErrorKind;
use crate::held;
use crate::inventory::Image;

/// So many names are told in words; all of them stand in the finding.
const NAMED: usize = 3;

/// What became of the folder of a missing file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Away {
    /// It is not there.
    Gone,
    /// It is there, and nothing is in it.
    Empty,
    /// It is there, and this process may not go into it.
    Closed,
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
    /// The findings, with one for each cause that several have.
    pub(super) fn folded(&self, found: Vec<Ailment>) -> Vec<Ailment> {
        let found = self.folders(self.quiet(found));
        self.outside(self.files(found))
    }

    /// The findings, with one for each folder in place of those of the files that are away with it.
    fn folders(&self, found: Vec<Ailment>) -> Vec<Ailment> {
        let mut folders: BTreeMap<PathBuf, (Away, BTreeSet<PathBuf>)> = BTreeMap::new();
        for it in &found {
            let is_named = is_missing(it.finding.kind);
            let missing = || is_named.then(|| PathBuf::from(&it.finding.object));
            let denied = it
                .cause
                .as_ref()
                .filter(|(why, _)| *why == EngineErrorKind::Denied);
            let denied = denied.map(|(_, file)| file.clone());
            let Some(file) = denied.or_else(missing) else {
                continue;
            };
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
            folders.iter().any(|(folder, (away, _))| match away {
                Away::Closed => it.is_below(folder, EngineErrorKind::Denied),
                Away::Gone | Away::Empty if is_missing(finding.kind) => {
                    Path::new(&finding.object).starts_with(folder)
                }
                Away::Gone | Away::Empty => it.is_below(folder, EngineErrorKind::Missing),
            })
        };
        let rest = found.into_iter().filter(|it| !follows(it));
        let mut all: Vec<Ailment> = rest.collect();
        let told = folders.iter();
        all.extend(told.map(|(folder, (away, files))| self.away(folder, *away, files)));
        all
    }

    /// The findings, with one for each file for whose sake there are several.
    fn files(&self, found: Vec<Ailment>) -> Vec<Ailment> {
        let (mut all, causes) = by_file(found);
        let several = causes.into_iter();
        all.extend(several.map(|(file, of_file)| self.of_file(&file, of_file)));
        all
    }

    /// One finding about a file: what is told of the file itself, or of the first thing that needs it, and of what else
    /// it is so.
    fn of_file(&self, file: &Path, found: Vec<Ailment>) -> Ailment {
        let object = file.display().to_string();
        let is_missing = |a: &Ailment| a.is_of(EngineErrorKind::Missing);
        let missing = found.iter().any(is_missing);
        let severity = found.iter().map(|a| a.finding.severity).min();
        let (machines, sets) = self.concerned(file);
        let reasons = reasons(&found);
        let own = found.iter().filter_map(|a| a.machine.clone());
        let machines = by_name(machines.into_iter().chain(own));
        // Of those that are about the file what is kept counts most.
        let lead = found.into_iter().min_by_key(|a| {
            let is_own = a.finding.object == object;
            (
                !is_own,
                a.finding.kind != FindingKind::KeptMissing,
                a.finding.kind,
            )
        });
        let Some(mut one) = lead else {
            return ailment(FindingKind::Unknown, Severity::Warning, object, "");
        };
        if one.finding.object != object {
            one.finding.kind = match missing {
                true => FindingKind::ImageMissing,
                false => FindingKind::ImageUnreadable,
            };
            one.finding.object = object;
        }
        one.finding.severity = severity.unwrap_or(one.finding.severity);
        let of_lead = one.cause.as_ref().map(|(kind, _)| *kind);
        for (_, text) in reasons.into_iter().filter(|(of, _)| Some(*of) != of_lead) {
            one.finding.text.push_str(&format!("; {text}"));
        }
        if machines.len() + sets.len() > 1 {
            let needed = [machines.len(), sets.len()]
                .into_iter()
                .zip([self::machines(&machines), self::sets(&sets)]);
            let needed: Vec<_> = needed
                .filter_map(|(n, told)| (n > 0).then_some(told))
                .collect();
            let needed = needed.join(" and ");
            one.finding.text.push_str(&format!("; needed by {needed}"));
            (one.finding.machines, one.finding.sets) = (machines, sets);
        }
        one
    }

    /// The findings, with one for all images outside the roots: that these are too narrow is one cause.
    fn outside(&self, found: Vec<Ailment>) -> Vec<Ailment> {
        let is_outside = |a: &Ailment| a.finding.kind == FindingKind::ImageOutsideRoots;
        let (outside, mut all): (Vec<_>, Vec<_>) = found.into_iter().partition(is_outside);
        if outside.len() < 2 {
            all.extend(outside);
            return all;
        }
        let files: BTreeSet<_> = outside.into_iter().map(|a| a.finding.object).collect();
        let machines = files
            .iter()
            .flat_map(|file| self.concerned(Path::new(file)).0);
        let machines = by_name(machines);
        let text = format!(
            "{} outside `[engine] image_roots`, of {}",
            count(files.len(), "active file lies", "active files lie"),
            self::machines(&machines),
        );
        let object = "[engine] image_roots";
        let mut one = ailment(
            FindingKind::ImageOutsideRoots,
            Severity::Error,
            object,
            text,
        );
        one.finding.files = files.into_iter().collect();
        one.finding.machines = machines;
        all.push(one);
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
        for it in found
            .iter()
            .filter(|a| a.finding.kind == FindingKind::Silent)
        {
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
            it.finding.kind == FindingKind::Silent || places.keys().any(is_of)
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
                self::machines(&machines),
                self::sets(&sets),
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
            FindingKind::Silent,
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
            let images = m.images.values().flat_map(Image::chain);
            let mut all = active.chain(images.map(|i| &i.file));
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
            Away::Closed => {
                "the user of the server may not go into the folder (no permission); let it in with `chmod` or `chown`, or run the server as its owner"
            }
        };
        let kind = match away {
            Away::Gone | Away::Empty => FindingKind::FolderMissing,
            Away::Closed => FindingKind::FolderUnreadable,
        };
        let text = format!(
            "{what}; {} in it, of {} and {}",
            count(files.len(), "file is named", "files are named"),
            self::machines(&machines),
            self::sets(&sets),
        );
        let object = folder.display().to_string();
        let mut one = ailment(kind, Severity::Error, object, text);
        let files = files.iter().map(|f| f.display().to_string());
        one.finding.files = files.collect();
        one.finding.machines = machines;
        one.finding.sets = sets;
        one
    }
}

/// Those that share no file with another, and the others by their file.
fn by_file(found: Vec<Ailment>) -> (Vec<Ailment>, BTreeMap<PathBuf, Vec<Ailment>>) {
    let mut causes: BTreeMap<PathBuf, Vec<Ailment>> = BTreeMap::new();
    let mut alone = Vec::new();
    for it in found {
        match it.file() {
            Some(file) => causes.entry(file).or_default().push(it),
            None => alone.push(it),
        }
    }
    let mut several = BTreeMap::new();
    for (file, of_file) in causes {
        match of_file.len() {
            1 => alone.extend(of_file),
            _ => drop(several.insert(file, of_file)),
        }
    }
    (alone, several)
}

/// The kinds of trouble with a file, each in the words of the first that tells of it.
fn reasons(found: &[Ailment]) -> Vec<(EngineErrorKind, String)> {
    let mut told: Vec<(EngineErrorKind, String)> = Vec::new();
    for it in found {
        if let Some((kind, _)) = &it.cause
            && told.iter().all(|(known, _)| known != kind)
        {
            told.push((*kind, it.finding.text.clone()));
        }
    }
    told
}

/// Each once, by the name that it is told by first.
pub(super) fn by_name(all: impl Iterator<Item = Concerned>) -> Vec<Concerned> {
    let mut ids = BTreeSet::new();
    let mut all: Vec<Concerned> = all.filter(|it| ids.insert(it.id.clone())).collect();
    all.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    all
}

fn is_missing(kind: FindingKind) -> bool {
    matches!(kind, FindingKind::ImageMissing | FindingKind::KeptMissing)
}

/// The highest folder above a missing file that is not there, or the one that is there and empty, as the place of a
/// file system that is not mounted, or the one that this process may not go into; `None` if the file is looked for where
/// there is something else.
fn folder_away(file: &Path) -> Option<(PathBuf, Away)> {
    if is_denied(held::metadata(file)) {
        let mut above = file.ancestors().skip(1);
        let closed = above.find(|folder| !is_denied(held::metadata(folder)))?;
        return Some((closed.to_owned(), Away::Closed));
    }
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

fn is_denied<T>(looked: io::Result<T>) -> bool {
    looked.is_err_and(|e| e.kind() == ErrorKind::PermissionDenied)
}

pub(super) fn machines(all: &[Concerned]) -> String {
    listed(all, "machine", "machines")
}

pub(super) fn sets(all: &[Concerned]) -> String {
    listed(all, "snapshot set", "snapshot sets")
}

pub(super) fn count(n: usize, one: &str, several: &str) -> String {
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
    fn of_findings_that_share_a_file_none_is_lost_nor_any_reason() {
        let found = |kind, file: &str, text| {
            let mut one = ailment(FindingKind::ImageUnreadable, Severity::Error, text, text);
            one.cause = Some((kind, PathBuf::from(file)));
            one
        };
        let all = vec![
            found(EngineErrorKind::Denied, "/shared", "first"),
            found(EngineErrorKind::Denied, "/shared", "second"),
            found(EngineErrorKind::Unsupported, "/shared", "third"),
            found(EngineErrorKind::Denied, "/own", "fourth"),
            ailment(FindingKind::Orphan, Severity::Warning, "/shared", "fifth"),
        ];
        let (alone, several) = by_file(all);
        let texts = |all: &[Ailment]| -> Vec<String> {
            all.iter().map(|a| a.finding.text.clone()).collect()
        };
        assert_eq!(texts(&alone), ["fifth", "fourth"]);
        let shared = &several[Path::new("/shared")];
        assert_eq!(texts(shared), ["first", "second", "third"]);
        let told = reasons(shared).into_iter().map(|(_, text)| text);
        assert_eq!(told.collect::<Vec<_>>(), ["first", "third"]);
    }

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
