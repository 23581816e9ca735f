//! New folders, and what proves later that a folder is the one that was made.
//!
//! Linux makes a folder by its name, and opens it by its name. Whoever may rename where that is done can put another
//! folder under the name in between. So a new folder is made inside of a private one, where nobody else can do that,
//! and renamed out of it: what is held then is what was made, whatever stands under its name.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, StatxFlags, fchmod, fchown, fremovexattr, mkdirat, statx};
use rustix::io::Errno;
use rustix::process::getegid;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::folder::{Folder, single};
use super::identity::{Foreign, Identity, TRASH, look_at};
use super::silence::Call;

/// The name of a new folder inside of a private one.
const NEW: &str = "new";

/// Which file or folder it is, for records: a number may be used again, and not at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Recorded")]
pub struct Origin {
    /// `st_ino`.
    inode: u64,
    /// When it was made, in seconds and nanoseconds, where the file system tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    born: Option<(i64, u32)>,
}

/// As records have it; those of an older version have the number of a file alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum Recorded {
    Number(u64),
    Whole {
        inode: u64,
        #[serde(default)]
        born: Option<(i64, u32)>,
    },
}

impl From<Recorded> for Origin {
    fn from(recorded: Recorded) -> Self {
        match recorded {
            Recorded::Number(inode) => Self::numbered(inode),
            Recorded::Whole { inode, born } => Self { inode, born },
        }
    }
}

impl From<Identity> for Origin {
    fn from(found: Identity) -> Self {
        const SECOND: i64 = 1_000_000_000;
        let part = |born: i64| u32::try_from(born.rem_euclid(SECOND)).unwrap_or_default();
        Self {
            inode: found.inode,
            born: found.born.map(|born| (born.div_euclid(SECOND), part(born))),
        }
    }
}

impl Origin {
    /// Of what nothing but its number is known.
    #[must_use]
    pub const fn numbered(inode: u64) -> Self {
        Self { inode, born: None }
    }

    /// `st_ino`.
    #[must_use]
    pub const fn inode(&self) -> u64 {
        self.inode
    }

    /// Refuses another one, as far as it is known when it was made.
    ///
    /// # Errors
    /// [`Foreign::Other`], [`Foreign::Later`].
    pub fn admit(&self, found: Identity) -> io::Result<()> {
        let (expected, found) = (self.inode, Self::from(found));
        if found.inode != expected {
            let found = found.inode;
            return Err(Foreign::Other { expected, found }.into());
        }
        match (self.born, found.born) {
            (Some(then), Some(now)) if then != now => Err(Foreign::Later(expected).into()),
            _ => Ok(()),
        }
    }
}

impl Folder {
    /// Which folder it is.
    ///
    /// # Errors
    /// The I/O error.
    pub fn origin(&self) -> io::Result<Origin> {
        let _call = Call::begin(self.path())?;
        let inode = Identity::of(self)?.inode;
        // A kernel or a filter that does not know the call tells no time.
        let told = statx(self, "", AtFlags::EMPTY_PATH, StatxFlags::BTIME).ok();
        let told = told.filter(|it| it.stx_mask & StatxFlags::BTIME.bits() != 0);
        let born = told.map(|it| (it.stx_btime.tv_sec, it.stx_btime.tv_nsec));
        Ok(Origin { inode, born })
    }

    /// Refuses unless it is that folder.
    ///
    /// # Errors
    /// [`Foreign::Other`]; the I/O error.
    pub fn require(&self, expected: &Origin) -> io::Result<()> {
        let found = self.origin()?;
        match found == *expected {
            true => Ok(()),
            false => Err(Foreign::Other {
                expected: expected.inode,
                found: found.inode,
            }
            .into()),
        }
    }

    /// Makes a folder and opens it; one that is there is opened, whoever has made it. A link is refused.
    ///
    /// # Errors
    /// The I/O error; [`Foreign::Link`].
    pub fn make(&self, name: impl AsRef<OsStr>, mode: u32) -> io::Result<Self> {
        let name = single(name.as_ref())?;
        if self.look(name)?.is_some() {
            return self.child(name);
        }
        match self.make_new(name, mode) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => self.child(name),
            made => made,
        }
    }

    /// Makes a private folder and opens it. What is held is the one that was made; anything that stands there refuses
    /// it.
    ///
    /// # Errors
    /// The I/O error; [`Foreign`] if somebody put another folder in the place of one that was made on the way.
    pub fn make_new(&self, name: impl AsRef<OsStr>, mode: u32) -> io::Result<Self> {
        let name = single(name.as_ref())?;
        if self.identity()?.is_private() {
            mkdirat(self, name, Mode::from_raw_mode(mode))?;
            let made = self.child(name)?;
            self.settle(&made, mode)?;
            made.require_private()?;
            return Ok(made);
        }
        let (aside, inner) = self.make_aside()?;
        let made = inner.make_new(NEW, mode).and_then(|made| {
            inner.rename_new(NEW, self, name)?;
            Ok(made)
        });
        if made.is_err() {
            let _not_there = inner.remove_folder(NEW);
        }
        let _taken_away = self.remove_folder(&aside);
        let path = self.path().join(name);
        made.map(|made| made.at_path(path))
    }

    /// Takes from a folder that was made here what it has of the one above: a group (by its setgid bit) and access lists,
    /// which whoever owns that has chosen.
    fn settle(&self, made: &Self, mode: u32) -> io::Result<()> {
        let (found, group) = (made.identity()?, getegid());
        // Where the file system gives a group of its own choice that one may do nothing.
        let mode = match found.group == group.as_raw() || fchown(made, None, Some(group)).is_ok() {
            true => mode & 0o777,
            false => mode & 0o707,
        };
        for list in ["system.posix_acl_default", "system.posix_acl_access"] {
            match fremovexattr(made, list) {
                Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // What the process masks out stays out.
        let mode = Mode::from_raw_mode(found.mode & mode);
        Ok(fchmod(made, mode)?)
    }

    /// Makes an empty folder in which nobody but root and this process can do anything, under a name that nobody can
    /// guess: that name, and the folder.
    ///
    /// # Errors
    /// The I/O error; [`Foreign`] if somebody put another folder in its place that is not such a one.
    pub(super) fn make_aside(&self) -> io::Result<(OsString, Self)> {
        let name = OsString::from(format!("{TRASH}-{}", Uuid::new_v4()));
        mkdirat(self, name.as_os_str(), Mode::from_raw_mode(0o700))?;
        let made = || {
            let aside = self.child(&name)?;
            aside.require_private()?;
            match aside.names()?.is_empty() {
                true => Ok(aside),
                false => Err(io::Error::from(Foreign::NotOurs)),
            }
        };
        match made() {
            Ok(aside) => Ok((name, aside)),
            Err(error) => {
                let _other = self.remove_folder(&name);
                Err(error)
            }
        }
    }
}

/// The nearest folder above a folder in which somebody else than root and the server's user may exchange what leads to
/// it, with its owner and mode. One that cannot be looked at is passed over.
#[must_use]
pub fn exposed_above(folder: &Path) -> Option<(PathBuf, u32, u32)> {
    let mut below = look_at(folder).ok()?;
    for above in folder.ancestors().skip(1) {
        let Ok(it) = look_at(above) else {
            continue;
        };
        if !it.keeps(&below) {
            return Some((above.to_owned(), it.owner, it.mode));
        }
        below = it;
    }
    None
}
