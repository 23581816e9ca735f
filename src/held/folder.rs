//! Open folders, and opening what is in them.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, ResolveFlags, linkat, openat, openat2,
    renameat_with,
};
use rustix::io::Errno;

use super::identity::{FileKind, Foreign, Identity};
use super::silence::{Call, ask};
use crate::text::catalog::held as texts;
use crate::text::{Reason, size};

/// The most that is read of a file that somebody else may write, octets: far beyond a long revocation list.
pub(super) const MOST: u64 = 128 << 20;
/// The most of a file that only this program writes: its length goes with the number of machines and sets.
const OWN_MOST: u64 = 1 << 30;

/// How a regular file is opened: where another process has a lease on it, nothing waits for that.
pub(super) const FILE: OFlags = OFlags::NONBLOCK
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);
const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// What a link on the way below a root does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// No link is followed.
    Straight,
    /// A link is followed as far as it stays below the root. Where the kernel lacks `openat2`, none is.
    Beneath,
}

/// An open directory. Names in it are single components, and mean what is in this very directory, whatever
/// happens to its own name.
#[derive(Debug)]
pub struct Folder {
    descriptor: File,
    /// The name by which it was opened, for messages.
    path: PathBuf,
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Folder {
    /// Opens a folder. A link in its last component is refused; links above it are followed.
    ///
    /// # Errors
    /// The I/O error; [`Foreign::Link`].
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::at(CWD, path, path, OFlags::NOFOLLOW)
    }

    /// Opens a folder wherever the name leads; for names that only root and the operator can change.
    ///
    /// # Errors
    /// The I/O error.
    pub fn follow(path: &Path) -> io::Result<Self> {
        Self::at(CWD, path, path, OFlags::empty())
    }

    /// The folder that a file lies in, links followed, and the file's name in it.
    ///
    /// # Errors
    /// The I/O error; [`Foreign::NotRegular`] for a path without a last component.
    pub fn of(file: &Path) -> io::Result<(Self, OsString)> {
        // `/` and `..` are folders.
        let name = file.file_name().ok_or(Foreign::NotRegular)?;
        let above = match file.parent() {
            Some(above) if !above.as_os_str().is_empty() => above,
            _ => Path::new("."),
        };
        Ok((Self::follow(above)?, name.to_owned()))
    }

    /// Resolves the links that the operator has in a path, once, and opens what they lead to: every component
    /// of the resolved path, which [`Folder::path`] tells, is a real folder.
    ///
    /// # Errors
    /// The I/O error; somebody put a link in the way while it was resolved.
    pub fn resolve(path: &Path) -> io::Result<Self> {
        let real = super::canonicalize(path)?;
        let root = Self::follow(Path::new("/"))?;
        let below = real.strip_prefix("/").unwrap_or(&real);
        let found = root.beneath(below, Way::Straight)?;
        Ok(Self {
            path: real,
            ..found
        })
    }

    /// Opens a folder by a way on which there is no link at all, for paths that were recorded with links resolved.
    ///
    /// # Errors
    /// The I/O error; [`Foreign::Link`].
    pub fn straight(path: &Path) -> io::Result<Self> {
        let _call = Call::begin(path)?;
        let below = path.strip_prefix("/").unwrap_or(path);
        let root = Self::at(CWD, "/", Path::new("/"), OFlags::empty())?;
        let found = root.beneath(below, Way::Straight)?;
        Ok(Self {
            path: path.to_owned(),
            ..found
        })
    }

    /// The folder at a relative path below this one (`openat2` with `RESOLVE_BENEATH` and
    /// `RESOLVE_NO_MAGICLINKS`); the folder itself for an empty path.
    ///
    /// # Errors
    /// The I/O error: `EXDEV` where the way leads out; [`Foreign::Link`] at a link that is not followed.
    pub fn beneath(&self, below: &Path, way: Way) -> io::Result<Self> {
        let path = self.path.join(below);
        let below = match below.as_os_str().is_empty() {
            true => Path::new("."),
            false => below,
        };
        let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        if way == Way::Straight {
            resolve |= ResolveFlags::NO_SYMLINKS;
        }
        let open = || match openat2(self, below, FOLDER, Mode::empty(), resolve) {
            Ok(descriptor) => Ok(Some(descriptor)),
            // An older kernel, or a filter that does not know the call.
            Err(Errno::NOSYS | Errno::PERM) => Ok(None),
            Err(Errno::LOOP) if way == Way::Straight => Err(Foreign::Link.into()),
            Err(e) => Err(e.into()),
        };
        match ask(&path, open)? {
            Some(descriptor) => Ok(Self {
                descriptor: descriptor.into(),
                path,
            }),
            None => self.walk(below, path),
        }
    }

    /// [`Folder::beneath`] one component after the other.
    pub(super) fn walk(&self, below: &Path, path: PathBuf) -> io::Result<Self> {
        let mut here = self.again()?;
        let mut components = below.components().peekable();
        while let Some(component) = components.next() {
            here = match component {
                Component::CurDir => continue,
                Component::Normal(name) if components.peek().is_some() => here.passing(name)?,
                Component::Normal(name) => here.child(name)?,
                _ => return Err(Errno::XDEV.into()),
            };
        }
        Ok(Self { path, ..here })
    }

    /// The folder of that name in this one; never a link.
    ///
    /// # Errors
    /// The I/O error; [`Foreign::Link`].
    pub fn child(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        let name = single(name.as_ref())?;
        Self::at(self, name, &self.path.join(name), OFlags::NOFOLLOW)
    }

    /// [`Folder::child`] on the way to another folder: it need not be readable, and cannot be listed or synced.
    ///
    /// # Errors
    /// As there.
    pub fn passing(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        let name = single(name.as_ref())?;
        let more = OFlags::NOFOLLOW | OFlags::PATH;
        Self::at(self, name, &self.path.join(name), more)
    }

    fn at(from: impl AsFd, name: impl AsRef<Path>, path: &Path, more: OFlags) -> io::Result<Self> {
        let name = name.as_ref();
        let open = || match openat(&from, name, FOLDER | more, Mode::empty()) {
            Ok(descriptor) => Ok(Self {
                descriptor: descriptor.into(),
                path: path.to_owned(),
            }),
            // The kernel tells a link by either, depending on its mood about O_DIRECTORY.
            Err(Errno::LOOP | Errno::NOTDIR)
                if more.contains(OFlags::NOFOLLOW) && is_link(&from, name) =>
            {
                Err(Foreign::Link.into())
            }
            Err(e) => Err(e.into()),
        };
        ask(path, open)
    }

    /// The same folder by a descriptor of its own.
    ///
    /// # Errors
    /// No more files can be opened.
    pub fn again(&self) -> io::Result<Self> {
        Ok(Self {
            descriptor: self.descriptor.try_clone()?,
            path: self.path.clone(),
        })
    }

    /// It under the name that it has now.
    pub(super) fn at_path(self, path: PathBuf) -> Self {
        Self { path, ..self }
    }

    /// The name by which it was opened: for messages and records, not for opening.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path to a name in this very folder (`/proc/self/fd/…`), good while the folder is held; for libraries
    /// that open by path. The last component may be a link.
    #[must_use]
    pub fn place(&self, name: impl AsRef<Path>) -> PathBuf {
        let own = self.descriptor.as_raw_fd().to_string();
        Path::new("/proc/self/fd").join(own).join(name)
    }

    /// What it is itself.
    ///
    /// # Errors
    /// The I/O error.
    pub fn identity(&self) -> io::Result<Identity> {
        ask(&self.path, || Identity::of(self))
    }

    /// Refuses unless nobody but root and this process can exchange what is in it.
    ///
    /// # Errors
    /// [`Foreign::Shared`]; the I/O error.
    pub fn require_private(&self) -> io::Result<()> {
        let own = self.identity()?;
        match own.is_private() {
            true => Ok(()),
            false => Err(Foreign::Shared {
                owner: own.owner,
                mode: own.mode,
            }
            .into()),
        }
    }

    /// What stands under that name, not following a link; `None` if nothing does. For a look; what is used is
    /// [opened](Folder::open_file) and compared.
    ///
    /// # Errors
    /// The I/O error.
    pub fn look(&self, name: impl AsRef<OsStr>) -> io::Result<Option<Identity>> {
        let name = single(name.as_ref())?;
        let look = || Identity::at(self, Path::new(name), AtFlags::SYMLINK_NOFOLLOW);
        match ask(&self.path.join(name), look) {
            Ok(it) => Ok(Some(it)),
            Err(e) if Errno::from_io_error(&e) == Some(Errno::NOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The names in it, sorted.
    ///
    /// # Errors
    /// The I/O error.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        let read = || {
            for entry in Dir::read_from(self)? {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if name != b"." && name != b".." {
                    names.push(OsString::from_vec(name.to_vec()));
                }
            }
            Ok(())
        };
        ask(&self.path, read)?;
        names.sort_unstable();
        Ok(names)
    }

    /// Opens a regular file for reading; `write`: for both.
    ///
    /// # Errors
    /// The I/O error; [`Foreign::Link`], [`Foreign::NotRegular`].
    pub fn open_file(&self, name: impl AsRef<OsStr>, write: bool) -> io::Result<File> {
        let name = single(name.as_ref())?;
        let file = self.path.join(name);
        ask(&file, || regular(self, name, access(write)))
    }

    /// All of a regular file that people write too, and that is short.
    ///
    /// # Errors
    /// As [`Folder::open_file`]; `FileTooLarge`.
    pub fn read_short(&self, name: impl AsRef<OsStr>) -> io::Result<Vec<u8>> {
        let name = single(name.as_ref())?;
        let read = || whole(self.open_file(name, false)?, MOST);
        ask(&self.path.join(name), read)
    }

    /// Opens a regular file for reading and writing, and makes it, empty, if it is not there.
    ///
    /// # Errors
    /// As [`Folder::open_file`]; [`Foreign::Names`] if it has other names in a folder that is not private.
    pub fn open_or_create(&self, name: impl AsRef<OsStr>, mode: u32) -> io::Result<File> {
        let name = single(name.as_ref())?;
        let _call = Call::begin(&self.path.join(name))?;
        match self.create_new(name, mode) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                self.only_name(self.open_file(name, true)?)
            }
            made => made,
        }
    }

    /// Makes a new, empty file, open for reading and writing. Anything that stands there refuses it.
    ///
    /// # Errors
    /// The I/O error.
    pub fn create_new(&self, name: impl AsRef<OsStr>, mode: u32) -> io::Result<File> {
        let flags = FILE | OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let name = single(name.as_ref())?;
        let made = openat(self, name, flags, Mode::from_raw_mode(mode))?;
        Ok(made.into())
    }

    /// A file without a name on the folder's file system: gone once closed, unless [`Folder::link_in`] names it.
    ///
    /// # Errors
    /// The I/O error; the file system may lack such files.
    pub fn nameless(&self, mode: u32) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let made = openat(self, ".", flags, Mode::from_raw_mode(mode))?;
        Ok(made.into())
    }

    /// Gives an open file a name here. Anything that stands there refuses it.
    ///
    /// # Errors
    /// The I/O error.
    pub fn link_in(&self, file: &File, name: impl AsRef<OsStr>) -> io::Result<()> {
        let name = single(name.as_ref())?;
        let held = format!("/proc/self/fd/{}", file.as_raw_fd());
        Ok(linkat(CWD, held, self, name, AtFlags::SYMLINK_FOLLOW)?)
    }

    /// Gives what stands under `from` the name `to` in another folder. Never replaces anything.
    ///
    /// # Errors
    /// The I/O error.
    pub fn rename_new(
        &self,
        from: impl AsRef<OsStr>,
        folder: &Self,
        to: impl AsRef<OsStr>,
    ) -> io::Result<()> {
        let (from, to) = (single(from.as_ref())?, single(to.as_ref())?);
        Ok(renameat_with(
            self,
            from,
            folder,
            to,
            RenameFlags::NOREPLACE,
        )?)
    }

    /// Makes what was done to names in it durable.
    ///
    /// # Errors
    /// The I/O error.
    pub fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        SYNCED.with_borrow_mut(|synced| synced.extend(self.path.file_name().map(OsStr::to_owned)));
        self.descriptor.sync_all()
    }
}

#[cfg(test)]
thread_local! {
    /// The names of the folders that this thread has synced.
    static SYNCED: std::cell::RefCell<Vec<OsString>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// The names of the folders that this thread has synced since the last time it asked.
#[cfg(test)]
pub(crate) fn synced() -> Vec<OsString> {
    SYNCED.take()
}

/// Opens a regular file for reading; `write`: for both. A link in its last component is refused, links above it
/// are followed; nothing waits, whatever stands there.
///
/// # Errors
/// The I/O error; [`Foreign::Link`], [`Foreign::NotRegular`].
pub fn open(file: &Path, write: bool) -> io::Result<File> {
    ask(file, || regular(CWD, file, access(write)))
}

/// [`open`] by a way on which there is no link at all: whoever may rename in folders cannot lead it to another file
/// system, where another file may have the same inode number. For paths that were recorded with links resolved.
///
/// # Errors
/// As [`open`].
pub fn open_straight(file: &Path, write: bool) -> io::Result<File> {
    let name = file.file_name().ok_or(Foreign::NotRegular)?;
    let above = file.parent().unwrap_or(Path::new("/"));
    Folder::straight(above)?.open_file(name, write)
}

/// All of a regular file, which no link stands in the place of.
///
/// # Errors
/// As [`open`].
pub fn read(file: &Path) -> io::Result<Vec<u8>> {
    ask(file, || whole(open(file, false)?, OWN_MOST))
}

/// [`read`] of a file that people write too, and that is short.
///
/// # Errors
/// As [`open`]; `FileTooLarge`.
pub fn read_short(file: &Path) -> io::Result<Vec<u8>> {
    ask(file, || whole(open(file, false)?, MOST))
}

/// [`read_short`] of a text.
///
/// # Errors
/// As there; `InvalidData` if it is not UTF-8.
pub fn read_text(file: &Path) -> io::Result<String> {
    text(read_short(file)?)
}

/// All of a regular file, wherever a link leads; nothing that stands in its place holds the reader up.
///
/// # Errors
/// As [`open_any`].
pub fn read_any(file: &Path) -> io::Result<Vec<u8>> {
    ask(file, || whole(open_any(file)?, MOST))
}

/// All of what stands there, of so many octets at most.
///
/// # Errors
/// The I/O error; `FileTooLarge`.
pub(super) fn whole(file: impl Read, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= most) {
        return Ok(bytes);
    }
    let text = texts::TOO_LONG.with("most", size(most));
    Err(io::Error::new(
        io::ErrorKind::FileTooLarge,
        Reason::new(text, ()),
    ))
}

/// [`read_any`] of a text.
///
/// # Errors
/// As [`open_any`]; `InvalidData` if it is not UTF-8.
pub fn read_any_text(file: &Path) -> io::Result<String> {
    text(read_any(file)?)
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    let invalid = |e| io::Error::new(io::ErrorKind::InvalidData, e);
    String::from_utf8(bytes).map_err(invalid)
}

/// [`open`] for reading, wherever a link leads.
///
/// # Errors
/// The I/O error; [`Foreign::NotRegular`].
pub fn open_any(file: &Path) -> io::Result<File> {
    ask(file, || opened(CWD, file, OFlags::empty(), OFlags::RDONLY))
}

fn access(write: bool) -> OFlags {
    match write {
        true => OFlags::RDWR,
        false => OFlags::RDONLY,
    }
}

/// Opens a regular file, which is no link itself.
pub(super) fn regular(from: impl AsFd, name: impl AsRef<Path>, access: OFlags) -> io::Result<File> {
    opened(from, name.as_ref(), OFlags::NOFOLLOW, access)
}

/// Opens what stands under a name, once it is seen to be a regular file: to open a device or a pipe does something to
/// it, or to whoever has its other end, however soon it is closed.
fn opened(from: impl AsFd, name: &Path, link: OFlags, access: OFlags) -> io::Result<File> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | link;
    let held = openat(from, name, flags, Mode::empty())?;
    match Identity::of(&held)?.kind {
        FileKind::File => again(&held, access),
        FileKind::Link => Err(Foreign::Link.into()),
        _ => Err(Foreign::NotRegular.into()),
    }
}

/// The same file, opened anew.
pub(super) fn again(held: impl AsFd, access: OFlags) -> io::Result<File> {
    let own = format!("/proc/self/fd/{}", held.as_fd().as_raw_fd());
    Ok(openat(CWD, own, FILE | access, Mode::empty())?.into())
}

fn is_link(from: impl AsFd, name: &Path) -> bool {
    let it = Identity::at(from, name, AtFlags::SYMLINK_NOFOLLOW);
    it.is_ok_and(|it| it.kind == FileKind::Link)
}

/// A name that stands for itself: one component, not `.` or `..`.
pub(super) fn single(name: &OsStr) -> io::Result<&OsStr> {
    let bytes = name.as_bytes();
    let bad = bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/');
    match bad {
        true => Err(io::ErrorKind::InvalidInput.into()),
        false => Ok(name),
    }
}
