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
//! folder can hold, is reached by its id only. One that cannot be read has its name all the same, and what leads to it
//! stays: nobody who starts it by that shall start another one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::held::{self, Folder};
use crate::id::VmId;
use crate::inventory::{Disk, Machine, Relative};
use crate::text::catalog::engine as texts;
use crate::text::{self, Text};

/// The folder of links by name, among the folders of machines.
pub const BY_NAME: &str = "by-name";
/// The folder of links to active files, in the folder of a machine.
pub(crate) const DISKS: &str = "disks";
/// How a link is called until it is in its place.
const ASIDE: &str = ".new-";
/// Longest name of a file, bytes.
const LONGEST: usize = 255;

/// Why links are not as they are wanted.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", link.display())]
pub struct Unmade {
    /// One that is not.
    pub link: PathBuf,
    /// What keeps it from that.
    pub error: io::Error,
    /// One may be left that leads where none should.
    pub astray: bool,
}

impl Unmade {
    /// What that means to whoever starts machines by their links.
    #[must_use]
    pub fn text(&self) -> Text {
        let text = texts::LINK_UNMADE.with("link", self.link.display());
        text.with("cause", &self.error)
    }
}

/// A machine and the name that its definition gives, if it gives one.
pub type Named = (VmId, Option<String>);

/// Where each name leads, and what is left alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Names {
    lead: BTreeMap<String, VmId>,
    /// Machines that cannot be read now, and whether their names are known.
    unreadable: BTreeMap<VmId, bool>,
}

/// Why there is no path by name to a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoLink {
    /// The encoded name has so many bytes.
    TooLong(usize),
    /// Other machines have the name too, which may be some that cannot be read.
    Ambiguous(Vec<VmId>),
    /// The link leads to this machine, whose definition gives no name that could be read.
    Kept(VmId),
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
pub fn by_name(machine: &Machine, disk: &str, all: &[Named]) -> Result<PathBuf, NoLink> {
    if let Some(below) = machine.relative.get(disk) {
        return Err(NoLink::Relative(below.clone()));
    }
    let name = encoded(&machine.name);
    if name.len() > LONGEST {
        return Err(NoLink::TooLong(name.len()));
    }
    let others = all.iter().filter(|(id, _)| *id != machine.id);
    let same = others.filter(|(_, name)| name.as_ref() == Some(&machine.name));
    let same: Vec<_> = same.map(|(id, _)| *id).collect();
    if !same.is_empty() {
        return Err(NoLink::Ambiguous(same));
    }
    let leads = leading(above(machine), &machine.name);
    if let Some((other, None)) = all.iter().find(|(id, _)| leads == Some(*id)) {
        return Err(NoLink::Kept(*other));
    }
    let leads = leads == Some(machine.id);
    let path = folder_by_name(machine, &name).join(disk);
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

/// The machine that a name leads to in this folder of machines.
#[must_use]
pub fn leading(machines: &Path, name: &str) -> Option<VmId> {
    let to = fs::read_link(machines.join(BY_NAME).join(encoded(name))).ok()?;
    let id = to.parent()?.file_name()?.to_str()?.parse().ok()?;
    (to == target(id)).then_some(id)
}

/// The folder of machines.
fn above(machine: &Machine) -> &Path {
    machine.directory.parent().unwrap_or(&machine.directory)
}

fn folder_by_name(machine: &Machine, encoded: &str) -> PathBuf {
    above(machine).join(BY_NAME).join(encoded)
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
/// [`Unmade`]; the others are.
pub(crate) fn follow(machine: &Machine) -> Result<(), Unmade> {
    let folder = machine.directory.join(DISKS);
    set(&folder, &wanted(machine), &BTreeMap::new())
}

/// Takes the links of a machine away of whose active files nobody knows, where they lead to what is not there any more, or
/// is somebody else's. Gives them.
///
/// # Errors
/// [`Unmade`]: one may be left.
pub(crate) fn forget(
    machine: &Path,
    is_moved: &dyn Fn(&Path) -> bool,
) -> Result<Vec<PathBuf>, Unmade> {
    let path = machine.join(DISKS);
    let mut gone = Vec::new();
    let forget = |gone: &mut Vec<PathBuf>| {
        let folder = match Folder::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        for file in folder.names()? {
            let to = folder.read_link(&file)?;
            if to.is_some_and(|to| is_moved(&to)) && folder.remove_link(&file)? {
                gone.push(path.join(file));
            }
        }
        Ok(())
    };
    match forget(&mut gone) {
        Ok(()) => Ok(gone),
        Err(error) => Err(Unmade {
            link: path,
            error,
            astray: true,
        }),
    }
}

/// Which names lead to a machine: those that one machine alone has, and that a folder can hold. With each goes whether
/// it can be read.
pub(crate) fn names(machines: impl IntoIterator<Item = (Named, bool)>) -> Names {
    let mut found: BTreeMap<String, Vec<(VmId, bool)>> = BTreeMap::new();
    let mut unreadable = BTreeMap::new();
    for ((id, name), is_readable) in machines {
        if !is_readable {
            unreadable.insert(id, name.is_some());
        }
        if let Some(name) = name {
            let same = found.entry(encoded(&name)).or_default();
            same.push((id, is_readable));
        }
    }
    let one = |(name, same): (String, Vec<(VmId, bool)>)| match same.as_slice() {
        [(id, true)] if name.len() <= LONGEST => Some((name, *id)),
        _ => None,
    };
    Names {
        lead: found.into_iter().filter_map(one).collect(),
        unreadable,
    }
}

/// Has the names in the folder of machines lead to them.
///
/// # Errors
/// [`Unmade`]; the others are.
pub(crate) fn name(directory: &Path, names: &Names) -> Result<(), Unmade> {
    let wanted = names.lead.iter();
    let wanted = wanted.map(|(name, id)| (name.clone(), target(*id)));
    let keep = names.unreadable.iter();
    let keep = keep.map(|(id, is_named)| (target(*id), *is_named));
    set(&directory.join(BY_NAME), &wanted.collect(), &keep.collect())
}

/// Makes the links of a folder those that are wanted: what leads elsewhere is taken away first, but for what leads to
/// `keep`. That gives way to what is wanted only if it is known that it has another name. What is no link is left. One
/// that cannot be led to where it should leads nowhere: by it a machine would be started from a stale file.
fn set(
    folder: &Path,
    wanted: &BTreeMap<String, PathBuf>,
    keep: &BTreeMap<PathBuf, bool>,
) -> Result<(), Unmade> {
    let unopened = |error: io::Error| Unmade {
        link: folder.to_owned(),
        // Where links in a folder lead that cannot be opened is not known.
        astray: !is_gone(folder),
        error,
    };
    let (held, _turn) = opened(folder).map_err(unopened)?;
    let (mut stands, mut kept) = (BTreeMap::new(), BTreeSet::new());
    let mut unmade: Option<Unmade> = None;
    let mut fails = |name: &Path, error: io::Error, astray: bool| {
        // One that leads elsewhere is told before one that is only missing.
        if unmade.as_ref().is_none_or(|first| astray && !first.astray) {
            let link = folder.join(name);
            unmade = Some(Unmade {
                link,
                error,
                astray,
            });
        }
    };
    for file in held.names().map_err(unopened)? {
        let to = match held.read_link(&file) {
            Ok(Some(to)) => to,
            Ok(None) => continue,
            Err(e) => {
                fails(Path::new(&file), e, true);
                continue;
            }
        };
        let name = file.to_str().filter(|name| wanted.contains_key(*name));
        match (name, keep.get(&to)) {
            (Some(name), Some(false)) => drop(kept.insert(name.to_owned())),
            (Some(name), _) => drop(stands.insert(name.to_owned(), to)),
            (None, Some(_)) => {}
            (None, None) => {
                if let Err(e) = held.remove_link(&file) {
                    fails(Path::new(&file), e, true);
                }
            }
        }
    }
    let missing = wanted.iter().filter(|(name, _)| !kept.contains(*name));
    for (name, to) in missing.filter(|(name, to)| stands.get(*name) != Some(to)) {
        // The name of a link that is as long as a name may be has no room for more.
        let aside = format!("{ASIDE}{}", std::process::id());
        if let Err(error) = held.set_link(name, to, aside) {
            let left = stands.contains_key(name) && held.remove_link(name).is_err();
            fails(Path::new(name), error, left);
        }
    }
    unmade.map_or(Ok(()), Err)
}

/// The folder of links, made if it is not there, for one at a time.
fn opened(folder: &Path) -> io::Result<(Folder, Flock<OwnedFd>)> {
    let (above, name) = held::place(folder)?;
    let folder = above.make(name, 0o750)?;
    folder.require_private()?;
    let turn = Flock::lock(
        folder.as_fd().try_clone_to_owned()?,
        FlockArg::LockExclusive,
    );
    let turn = turn.map_err(|(_, e)| io::Error::from(e))?;
    Ok((folder, turn))
}

fn is_gone(folder: &Path) -> bool {
    let found = folder.symlink_metadata();
    found.is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

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
    fn a_name_leads_to_the_one_machine_that_has_it_and_can_be_read() {
        let ids = [(); 5].map(|()| VmId::random());
        let [a, b, c, d, e] = ids;
        let named = |id, name: &str, is_readable| ((id, Some(name.to_owned())), is_readable);
        let found = names([
            named(a, "web", true),
            named(b, "web", false),
            named(c, "db", true),
            named(d, "mail", false),
            ((e, None), false),
        ]);
        assert_eq!(found.lead, BTreeMap::from([("db".to_owned(), c)]));
        let unreadable = BTreeMap::from([(b, true), (d, true), (e, false)]);
        assert_eq!(found.unreadable, unreadable);
    }

    #[test]
    fn links_are_replaced_in_place_and_nothing_else_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("links");
        let link = |name: &str, to: &str| (name.to_owned(), PathBuf::from(to));
        let none = BTreeMap::new();
        set(
            &folder,
            &BTreeMap::from([link("a", "/1"), link("b", "/2")]),
            &none,
        )
        .unwrap();
        fs::write(folder.join("note"), "mine").unwrap();
        fs::write(folder.join("c"), "mine too").unwrap();
        let leads = |name: &str| fs::read_link(folder.join(name)).unwrap();
        let wanted = BTreeMap::from([link("a", "/3")]);
        // What leads there stays; where it has another name for certain, another machine gets this one.
        for (is_named, becomes) in [(false, "/1"), (true, "/3")] {
            let keep = ["/1", "/2"].map(|to| (PathBuf::from(to), is_named));
            set(&folder, &wanted, &keep.into()).unwrap();
            assert_eq!(leads("a"), Path::new(becomes));
            assert_eq!(leads("b"), Path::new("/2"));
        }
        set(&folder, &wanted, &none).unwrap();
        // Where one cannot be led elsewhere it leads nowhere.
        let aside = folder.join(format!("{ASIDE}{}", std::process::id()));
        fs::create_dir(&aside).unwrap();
        let other = BTreeMap::from([link("a", "/4"), link("d", "/5")]);
        let unmade = set(&folder, &other, &none).unwrap_err();
        assert_eq!((unmade.link, unmade.astray), (folder.join("a"), false));
        assert!(!folder.join("a").is_symlink());
        fs::remove_dir(&aside).unwrap();
        set(&folder, &wanted, &none).unwrap();
        // Others may put there what they wish.
        let mode = |mode| fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
        mode(0o777);
        assert!(set(&folder, &other, &none).unwrap_err().astray);
        mode(0o750);
        assert_eq!(leads("a"), Path::new("/3"));
        let mut left: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["a", "c", "note"]);
    }
}
