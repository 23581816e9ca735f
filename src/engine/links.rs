//! Stable paths to active files, for whoever starts a machine: symbolic links that follow `tops.json`.
//!
//! ```text
//!   machines/<id>/disks/<disk> ──▶ the active file
//!   machines/by-name/<name>    ──▶ ../<id>/disks      so machines/by-name/<name>/<disk> leads to it too
//! ```
//!
//! An active file that names the file under it from its own folder has no link: QEMU would look for that file in the
//! folder of the link.
//!
//! Each link is made aside and renamed into place. A machine whose name another one has, or whose encoded name no
//! folder can hold, is reached by its id only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::held;
use crate::id::VmId;
use crate::inventory::{Disk, Machine, Relative};
use crate::text::{self, Text};

/// The folder of links by name, among the folders of machines.
pub const BY_NAME: &str = "by-name";
/// The folder of links to active files, in the folder of a machine.
const DISKS: &str = "disks";
/// How a link is called until it is in its place.
const ASIDE: &str = ".new-";
/// Longest name of a file, bytes.
const LONGEST: usize = 255;

/// Where each name leads.
pub(crate) type Names = BTreeMap<String, VmId>;

/// Why there is no path by name to a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoLink {
    /// The encoded name has so many bytes.
    TooLong(usize),
    /// Other machines have the name too.
    Ambiguous(Vec<VmId>),
    /// The active file cannot be opened by any link, for it names this from its own folder.
    Relative(Relative),
    /// The link at this path is not there, or leads elsewhere.
    Astray(PathBuf),
}

/// A name as a file may be called: `/`, `%`, a leading dot and whatever a terminal would obey are percent-encoded, so
/// that the path can be copied from where it is shown.
#[must_use]
pub fn encoded(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for (at, c) in name.char_indices() {
        match text::is_obeyed(c) || matches!(c, '/' | '%') || (at == 0 && c == '.') {
            true => {
                for byte in c.to_string().bytes() {
                    out.push_str(&format!("%{byte:02X}"));
                }
            }
            false => out.push(c),
        }
    }
    out
}

/// The path by name to the active file of a disk, if it leads there.
///
/// # Errors
/// [`NoLink`].
pub fn by_name<'a>(
    machine: &Machine,
    disk: &str,
    all: impl IntoIterator<Item = &'a Machine>,
) -> Result<PathBuf, NoLink> {
    if let Some(below) = machine.relative.get(disk) {
        return Err(NoLink::Relative(below.clone()));
    }
    let name = encoded(&machine.name);
    if name.len() > LONGEST {
        return Err(NoLink::TooLong(name.len()));
    }
    let same = all.into_iter().filter(|m| m.name == machine.name);
    let others: Vec<_> = same.map(|m| m.id).filter(|id| *id != machine.id).collect();
    if !others.is_empty() {
        return Err(NoLink::Ambiguous(others));
    }
    let link = folder_by_name(machine, &name);
    let leads = fs::read_link(&link).is_ok_and(|to| to == target(machine.id));
    let path = link.join(disk);
    let active = machine.disks.iter().find(|d| d.id == disk);
    let arrives = active.is_some_and(|d| fs::read_link(&path).is_ok_and(|to| to == d.file));
    match leads && arrives {
        true => Ok(path),
        false => Err(NoLink::Astray(path)),
    }
}

/// Why no link leads to the active file, and what to do: for an active file that names `below` from its own folder.
#[must_use]
pub fn unlinked(disk: &Disk, below: &Relative) -> String {
    let (active, file) = (disk.file.display(), below.file.display());
    let (active, file) = (active.to_string(), file.to_string());
    let (active, file) = (text::word(&active), text::word(&file));
    format!(
        "{active} names the file under it from its own folder, as `{}`, and QEMU would look for that in the folder of a \
         link, so no link leads to it: start it by its own path, or, while nothing runs it, `qemu-img rebase -u -f {} -F \
         {} -b {file} {active}`, and a server makes the link",
        below.name,
        disk.format.as_str(),
        below.format.as_str(),
    )
}

/// The path to the active file of a disk by the id of its machine.
#[must_use]
pub fn by_id(machine: &Machine, disk: &str) -> PathBuf {
    machine.directory.join(DISKS).join(disk)
}

/// The path to start the machine by: by its name where that leads to it, else by its id.
#[must_use]
pub fn to_start(machine: &Machine, disk: &str) -> PathBuf {
    let link = folder_by_name(machine, &encoded(&machine.name));
    match fs::read_link(&link) {
        Ok(to) if to == target(machine.id) => link.join(disk),
        _ => by_id(machine, disk),
    }
}

/// Adds to a refusal of overlays what allows them, and by which path the machine is started then.
pub(crate) fn allowing(text: Text, machine: &Machine, disk: &Disk) -> Text {
    let link = to_start(machine, &disk.id);
    let text = text.with("word", machine.word());
    let text = text.with("definition", machine.definition.display());
    text.with("link", link.display())
}

fn folder_by_name(machine: &Machine, encoded: &str) -> PathBuf {
    let above = machine.directory.parent().unwrap_or(&machine.directory);
    above.join(BY_NAME).join(encoded)
}

fn target(id: VmId) -> PathBuf {
    Path::new("..").join(id.to_string()).join(DISKS)
}

/// Where the links of a machine are to lead, by disk id.
pub(crate) fn wanted(machine: &Machine) -> BTreeMap<String, PathBuf> {
    let disks = machine.disks.iter();
    let disks = disks.filter(|d| !machine.relative.contains_key(&d.id));
    disks.map(|d| (d.id.clone(), d.file.clone())).collect()
}

/// Has the links of a machine lead to its active files, and takes those of former disks away.
///
/// # Errors
/// The first link that could not be made; the others are.
pub(crate) fn follow(machine: &Machine) -> io::Result<()> {
    let folder = machine.directory.join(DISKS);
    set(&folder, &wanted(machine), &BTreeSet::new())
}

/// Which names lead to a machine: those that one machine alone has, and that a folder can hold.
pub(crate) fn names<'a>(machines: impl IntoIterator<Item = &'a Machine>) -> Names {
    let mut found: BTreeMap<String, Vec<VmId>> = BTreeMap::new();
    for machine in machines {
        let name = encoded(&machine.name);
        found.entry(name).or_default().push(machine.id);
    }
    let one = |(name, ids): (String, Vec<VmId>)| match ids.as_slice() {
        [id] if name.len() <= LONGEST => Some((name, *id)),
        _ => None,
    };
    found.into_iter().filter_map(one).collect()
}

/// Has the names in the folder of machines lead to them. Of a machine that cannot be read now, what leads to it
/// stays.
///
/// # Errors
/// The first link that could not be made; the others are.
pub(crate) fn name(directory: &Path, names: &Names, unreadable: &[VmId]) -> io::Result<()> {
    let wanted = names.iter().map(|(name, id)| (name.clone(), target(*id)));
    let keep = unreadable.iter().map(|id| target(*id)).collect();
    set(&directory.join(BY_NAME), &wanted.collect(), &keep)
}

/// Makes the links of a folder those that are wanted: what leads elsewhere is taken away first, but for what leads to
/// `keep`. What is no link is left.
fn set(
    folder: &Path,
    wanted: &BTreeMap<String, PathBuf>,
    keep: &BTreeSet<PathBuf>,
) -> io::Result<()> {
    let (above, name) = held::place(folder)?;
    let folder = above.make(name, 0o750)?;
    let turn = Flock::lock(
        folder.as_fd().try_clone_to_owned()?,
        FlockArg::LockExclusive,
    );
    let _turn = turn.map_err(|(_, e)| io::Error::from(e))?;
    let mut stands = BTreeMap::new();
    for file in folder.names()? {
        let Some(to) = folder.read_link(&file)? else {
            continue;
        };
        let name = file.to_str().filter(|name| wanted.contains_key(*name));
        match name {
            Some(name) => drop(stands.insert(name.to_owned(), to)),
            None if keep.contains(&to) => {}
            None => drop(folder.remove_link(&file)?),
        }
    }
    let mut failed = Ok(());
    for (name, to) in wanted
        .iter()
        .filter(|(name, to)| stands.get(*name) != Some(to))
    {
        // The name of a link that is as long as a name may be has no room for more.
        let aside = format!("{ASIDE}{}", std::process::id());
        failed = failed.and(folder.set_link(name, to, aside));
    }
    failed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_one_that_a_folder_can_hold_and_no_two_become_one() {
        let table = [
            ("web-1", "web-1"),
            ("a b", "a b"),
            (".", "%2E"),
            ("..", "%2E."),
            (".hidden", "%2Ehidden"),
            ("a/b", "a%2Fb"),
            ("50%", "50%25"),
            ("a%2Fb", "a%252Fb"),
            ("a\nb", "a%0Ab"),
            ("\u{85}", "%C2%85"),
            ("Büro", "Büro"),
            ("a\u{202E}b\u{2028}", "a%E2%80%AEb%E2%80%A8"),
        ];
        for (name, file) in table {
            assert_eq!(encoded(name), file);
        }
    }

    #[test]
    fn links_are_replaced_in_place_and_nothing_else_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("links");
        let link = |name: &str, to: &str| (name.to_owned(), PathBuf::from(to));
        let none = BTreeSet::new();
        set(
            &folder,
            &BTreeMap::from([link("a", "/1"), link("b", "/2")]),
            &none,
        )
        .unwrap();
        fs::write(folder.join("note"), "mine").unwrap();
        fs::write(folder.join("c"), "mine too").unwrap();
        let keep = BTreeSet::from([PathBuf::from("/2")]);
        let wanted = BTreeMap::from([link("a", "/3")]);
        set(&folder, &wanted, &keep).unwrap();
        assert_eq!(fs::read_link(folder.join("a")).unwrap(), Path::new("/3"));
        assert_eq!(fs::read_link(folder.join("b")).unwrap(), Path::new("/2"));
        set(&folder, &wanted, &none).unwrap();
        let mut left: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["a", "c", "note"]);
    }
}
