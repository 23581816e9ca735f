//! Access control lists of folders: one more user may pass through, and nobody else gets anything by that.
//!
//! The format of `system.posix_acl_access` is the kernel's (`include/uapi/linux/posix_acl_xattr.h`): a version, then
//! entries of tag, permissions and id, all little-endian.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::fs::fgetxattr;
use rustix::io::Errno;

use crate::held::{self, Folder};

/// The extended attribute.
pub(crate) const NAME: &str = "system.posix_acl_access";

const VERSION: u32 = 2;
const HEAD: usize = 4;
const ENTRY: usize = 8;
/// The kernel's limit for the value of an attribute.
const LONGEST: usize = 64 << 10;

const OWNER: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP: u16 = 0x04;
const NAMED_GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHERS: u16 = 0x20;
/// The id of entries that name nobody.
const NOBODY: u32 = u32::MAX;
/// The right to pass through a folder.
const SEARCH: u16 = 1;

/// Lists are read and written back as a whole, and folders are shared by machines of one set.
static WRITING: Mutex<()> = Mutex::new(());

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    tag: u16,
    id: u32,
    may: u16,
}

/// Lets a user pass through a folder, if he cannot yet. What others may do stays as it is.
///
/// # Errors
/// The I/O error: the file system has no such lists, or the folder is not this process's.
pub(crate) fn let_pass(folder: &Folder, user: u32) -> io::Result<()> {
    let _alone = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let found = folder.identity()?;
    let by_owner = found.owner == user && found.mode & 0o100 != 0;
    if user == 0 || by_owner {
        return Ok(());
    }
    let list = read(folder)?;
    if list.is_none() && found.mode & 0o011 == 0o011 {
        return Ok(()); // everybody passes, whatever his groups
    }
    let old = match &list {
        Some(bytes) => decoded(bytes)?,
        None => of_mode(found.mode),
    };
    match with_user(&old, user) {
        Some(new) => held::set_attribute(folder, NAME, &encoded(&new)),
        None => Ok(()),
    }
}

/// Whether the file system of a folder knows such lists.
///
/// # Errors
/// The I/O error.
pub(crate) fn is_known(folder: &Path) -> io::Result<bool> {
    match read(Folder::follow(folder)?) {
        Err(e) if e.kind() == io::ErrorKind::Unsupported => Ok(false),
        list => list.map(|_| true),
    }
}

fn read(folder: impl AsFd) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; LONGEST];
    match fgetxattr(folder, NAME, value.as_mut_slice()) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(Errno::NODATA) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// The list that says what these permission bits say.
fn of_mode(mode: u32) -> Vec<Entry> {
    let may = |shift: u32| u16::try_from(mode >> shift & 7).unwrap_or(0);
    let entry = |tag, shift| Entry {
        tag,
        id: NOBODY,
        may: may(shift),
    };
    vec![entry(OWNER, 6), entry(GROUP, 3), entry(OTHERS, 0)]
}

/// The list with a user who may pass; none if he may already. A mask that has to be widened is narrowed in the
/// entries that it covers.
fn with_user(old: &[Entry], user: u32) -> Option<Vec<Entry>> {
    let mask = old.iter().find(|entry| entry.tag == MASK);
    let mask = mask.map(|entry| entry.may);
    let is_user = |entry: &Entry| entry.tag == USER && entry.id == user;
    let has = old.iter().find(|entry| is_user(entry));
    let has = has.map_or(0, |entry| entry.may & mask.unwrap_or(7));
    if has & SEARCH != 0 {
        return None;
    }
    let is_masked = |tag| [USER, GROUP, NAMED_GROUP].contains(&tag);
    let others = old.iter().filter(|e| e.tag != MASK && !is_user(e));
    let mut new: Vec<_> = others
        .map(|entry| match is_masked(entry.tag) {
            true => Entry {
                may: entry.may & mask.unwrap_or(7),
                ..*entry
            },
            false => *entry,
        })
        .collect();
    new.push(Entry {
        tag: USER,
        id: user,
        may: has | SEARCH,
    });
    let masked = new.iter().filter(|entry| is_masked(entry.tag));
    let may = masked.fold(0, |all, entry| all | entry.may);
    new.push(Entry {
        tag: MASK,
        id: NOBODY,
        may,
    });
    new.sort_unstable(); // the order that the kernel asks for: by tag, then by id
    Some(new)
}

fn decoded(bytes: &[u8]) -> io::Result<Vec<Entry>> {
    let damaged = || io::Error::from(io::ErrorKind::InvalidData);
    let (head, entries) = bytes.split_at_checked(HEAD).ok_or_else(damaged)?;
    let (entries, rest) = entries.as_chunks::<ENTRY>();
    if head != VERSION.to_le_bytes() || !rest.is_empty() {
        return Err(damaged());
    }
    let entries = entries.iter().map(|[t0, t1, p0, p1, id @ ..]| Entry {
        tag: u16::from_le_bytes([*t0, *t1]),
        id: u32::from_le_bytes(*id),
        may: u16::from_le_bytes([*p0, *p1]),
    });
    Ok(entries.collect())
}

fn encoded(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = VERSION.to_le_bytes().to_vec();
    for entry in entries {
        bytes.extend(entry.tag.to_le_bytes());
        bytes.extend(entry.may.to_le_bytes());
        bytes.extend(entry.id.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn entry(tag: u16, id: u32, may: u16) -> Entry {
        Entry { tag, id, may }
    }

    #[test]
    fn one_user_more_passes_and_nobody_else_gets_anything() {
        let private = with_user(&of_mode(0o750), 107).unwrap();
        let wanted = [
            entry(OWNER, NOBODY, 7),
            entry(USER, 107, 1),
            entry(GROUP, NOBODY, 5),
            entry(MASK, NOBODY, 5),
            entry(OTHERS, NOBODY, 0),
        ];
        assert_eq!(private, wanted);
        assert_eq!(with_user(&private, 107), None, "he may already");
        let two = with_user(&private, 7).unwrap();
        let users = two.iter().filter(|e| e.tag == USER).map(|e| e.id);
        assert_eq!(users.collect::<Vec<_>>(), [7, 107], "by their ids");
        // A mask that kept a group and a user out keeps them out.
        let masked = [
            entry(OWNER, NOBODY, 7),
            entry(USER, 5, 7),
            entry(GROUP, NOBODY, 5),
            entry(MASK, NOBODY, 0),
            entry(OTHERS, NOBODY, 0),
        ];
        let widened = with_user(&masked, 107).unwrap();
        let may = |tag, id| {
            widened
                .iter()
                .find(|e| (e.tag, e.id) == (tag, id))
                .unwrap()
                .may
        };
        assert_eq!((may(USER, 5), may(GROUP, NOBODY)), (0, 0));
        assert_eq!((may(USER, 107), may(MASK, NOBODY)), (1, 1));
        assert_eq!(decoded(&encoded(&widened)).unwrap(), widened);
        for bad in [&[][..], &[1, 0, 0, 0], &[2, 0, 0, 0, 1]] {
            assert!(decoded(bad).is_err());
        }
    }

    #[test]
    fn a_folder_keeps_its_mode_for_all_but_the_user_who_passes() {
        let folder = tempfile::tempdir().unwrap();
        if !is_known(folder.path()).unwrap() {
            return; // nothing can be tried here
        }
        let held = Folder::open(folder.path()).unwrap();
        for (mode, listed) in [(0o755, false), (0o700, true)] {
            fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
            for _ in 0..2 {
                let_pass(&held, 12345).unwrap();
            }
            let list = read(&held).unwrap();
            assert_eq!(list.is_some(), listed, "{mode:o}");
        }
        let list = decoded(&read(&held).unwrap().unwrap()).unwrap();
        assert!(list.contains(&entry(USER, 12345, SEARCH)));
        assert!(list.contains(&entry(GROUP, NOBODY, 0)));
        let_pass(&held, 0).unwrap();
        assert_eq!(decoded(&read(&held).unwrap().unwrap()).unwrap(), list);
    }
}
