//! Small files and folders of ours: in the data directory, and wherever only root and the server may write.

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Mode, OFlags, openat, renameat};
use rustix::io::Errno;

use super::folder::{FILE, Folder, Way, regular};
use super::identity::{FileKind, Foreign, Identity, foreign};
use crate::failpoint;

/// The folder of a data directory for what sets keep, with a record of each.
pub const SETS: &str = "sets";
/// Permission bits of folders that the server makes.
const MODE: u32 = 0o750;

/// A file was not replaced.
#[derive(Debug)]
pub enum NotReplaced {
    /// The old one stands.
    Refused(io::Error),
    /// A sync failed: nobody knows which of them the disk holds.
    Broken(io::Error),
}

impl From<NotReplaced> for io::Error {
    fn from(error: NotReplaced) -> Self {
        match error {
            NotReplaced::Refused(e) | NotReplaced::Broken(e) => e,
        }
    }
}

/// Replaces a file durably, whole or not at all: write beside it, fsync, rename, fsync of the folder. Makes it
/// if it is not there. Its folder must be ours: nobody else may write in it.
///
/// # Errors
/// [`NotReplaced`].
pub fn replace(file: &Path, bytes: &[u8], mode: u32) -> Result<(), NotReplaced> {
    replace_as(file, bytes, mode, |_| Ok(()))
}

/// [`replace`] where `dress` gives the new file owner, mode and attributes before anything is in it.
///
/// # Errors
/// [`NotReplaced`].
pub fn replace_as(
    file: &Path,
    bytes: &[u8],
    mode: u32,
    dress: impl FnOnce(&File) -> io::Result<()>,
) -> Result<(), NotReplaced> {
    let (folder, name) = Folder::of(file).map_err(NotReplaced::Refused)?;
    folder.replace_as(&name, bytes, mode, dress)
}

impl Folder {
    /// [`replace_as`] in a folder that is held.
    ///
    /// # Errors
    /// [`NotReplaced`].
    pub fn replace_as(
        &self,
        name: &OsStr,
        bytes: &[u8],
        mode: u32,
        dress: impl FnOnce(&File) -> io::Result<()>,
    ) -> Result<(), NotReplaced> {
        let mut new = OsString::from(name);
        new.push(".new");
        let refused = |e| {
            let _ = self.discard(&new);
            NotReplaced::Refused(e)
        };
        let written = self.discard(&new).and_then(|()| {
            let mut file = self.create_new(&new, mode)?;
            dress(&file)?;
            file.write_all(bytes)?;
            Ok(file)
        });
        let file = written.map_err(refused)?;
        let synced = failpoint::pass("replace.sync").map_err(io::Error::other);
        synced
            .and_then(|()| file.sync_all())
            .map_err(NotReplaced::Broken)?;
        renameat(self, new.as_os_str(), self, name).map_err(|e| refused(e.into()))?;
        self.sync().map_err(NotReplaced::Broken)
    }

    /// The file, unless somebody else may have given it this name: a second one of his choice, in a folder that is not
    /// private.
    pub(super) fn only_name(&self, file: File) -> io::Result<File> {
        let links = Identity::of(&file)?.links;
        match links > 1 && !self.identity()?.is_private() {
            true => Err(Foreign::Names(links).into()),
            false => Ok(file),
        }
    }

    /// Unlinks what an earlier attempt left under a name of ours; a link itself.
    fn discard(&self, name: &OsStr) -> io::Result<()> {
        match rustix::fs::unlinkat(self, name, rustix::fs::AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

/// Opens a file to be added to at its end, and makes it if it is not there. A link, a device or a pipe is only taken
/// where nobody but root and this process can have put it: in a private folder, as `/dev`.
///
/// # Errors
/// As [`super::open`]; [`Foreign::Names`] as [`Folder::open_or_create`].
pub fn append(file: &Path, mode: u32) -> io::Result<File> {
    let (folder, name) = Folder::of(file)?;
    let access = OFlags::WRONLY | OFlags::APPEND;
    let (create, mode) = (access | OFlags::CREATE, Mode::from_raw_mode(mode));
    match openat(
        &folder,
        name.as_os_str(),
        FILE | create | OFlags::EXCL,
        mode,
    ) {
        Err(Errno::EXIST) => {}
        made => {
            return Ok(made?.into());
        }
    }
    match regular(&folder, &name, access) {
        Err(e) if foreign(&e).is_some() && folder.require_private().is_ok() => {
            let flags = create | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            Ok(openat(&folder, name.as_os_str(), flags, mode)?.into())
        }
        opened => folder.only_name(opened?),
    }
}

/// Removes the regular file of that name, whichever it is, from a folder that is no link. `false` if nothing stands
/// there. The folder must be synced afterwards.
///
/// # Errors
/// As [`Folder::remove`].
pub fn remove_file(file: &Path) -> io::Result<bool> {
    let (folder, name) = place(file)?;
    folder.remove_file(name)
}

/// The folder of a file, which must be no link itself, and the file's name in it.
///
/// # Errors
/// As [`Folder::open`]; [`Foreign::NotRegular`] for a path without a last component.
pub fn place(file: &Path) -> io::Result<(Folder, OsString)> {
    let name = file.file_name().ok_or(Foreign::NotRegular)?;
    let folder = file.parent().ok_or(Foreign::NotRegular)?;
    Ok((Folder::open(folder)?, name.to_owned()))
}

/// Opens `folder` and makes, durably, what is missing of it. The last `own` components of the path are ours:
/// none of them may be a link, and nobody else may be able to exchange what is in them. Links above are followed.
///
/// # Errors
/// The I/O error; [`Foreign::Link`], [`Foreign::Shared`].
pub fn make_folders(folder: &Path, own: usize) -> io::Result<Folder> {
    if own == 0 {
        match Folder::follow(folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
    }
    let Some(name) = folder.file_name() else {
        return Folder::follow(folder);
    };
    let above = match folder.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
    let above = make_folders(above, own.saturating_sub(1))?;
    let made = make_child(&above, name)?;
    if own > 0 {
        made.require_private()?;
    }
    Ok(made)
}

/// The folder of that name, made durably if it is not there; never a link.
fn make_child(above: &Folder, name: &OsStr) -> io::Result<Folder> {
    match above.look(name)?.map(|it| it.kind) {
        Some(FileKind::Link) => Err(Foreign::Link.into()),
        Some(_) => above.child(name),
        None => {
            let made = above.make(name, MODE)?;
            above.sync()?;
            Ok(made)
        }
    }
}

/// Makes a folder where the operator wants one, and what is missing above it, with this mode, and opens it.
///
/// # Errors
/// The I/O error.
pub fn make_path(folder: &Path, mode: u32) -> io::Result<Folder> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(folder)?;
    Folder::follow(folder)
}

/// A folder of ours that is held from when it was first opened, by all who share this.
#[derive(Debug, Clone)]
pub struct First {
    held: Arc<Mutex<Option<Folder>>>,
    /// Whether what was opened is the folder that was meant.
    judge: fn(&Folder) -> io::Result<()>,
}

impl First {
    /// One that is not open yet; `judge` refuses another folder that stands under its name.
    #[must_use]
    pub fn new(judge: fn(&Folder) -> io::Result<()>) -> Self {
        let held = Arc::default();
        Self { held, judge }
    }

    fn open(&self, open: impl FnOnce() -> io::Result<Folder>) -> io::Result<Folder> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match &*held {
            // One that was removed has no name any more.
            Some(folder) if folder.identity()?.links > 0 => folder.again(),
            _ => {
                let folder = open()?;
                (self.judge)(&folder)?;
                let own = folder.again()?;
                *held = Some(folder);
                Ok(own)
            }
        }
    }
}

/// Where a file of ours is, or will be: below a folder that is held, by way of folders that are ours. None of those is
/// a link, and nobody else can exchange what is in them.
#[derive(Debug)]
pub struct Ours {
    root: Arc<Folder>,
    /// How the first of the folders that are ours is opened, if not as the others.
    first: Option<First>,
    /// The folders that are ours, from above.
    way: Vec<OsString>,
    name: OsString,
}

impl Ours {
    /// The file at that relative path below the held folder.
    ///
    /// # Errors
    /// It is no way down to a file.
    pub fn below(root: Arc<Folder>, file: &Path) -> io::Result<Self> {
        let names = file.components().map(|component| match component {
            Component::Normal(name) => Ok(name.to_owned()),
            _ => Err(io::Error::from(io::ErrorKind::InvalidInput)),
        });
        let mut way = names.collect::<io::Result<Vec<_>>>()?;
        let name = way.pop().ok_or(io::ErrorKind::InvalidInput)?;
        let first = None;
        Ok(Self {
            root,
            first,
            way,
            name,
        })
    }

    /// The file of that path, of which the last `levels` folders are ours. The folder above those is opened; links on
    /// the way to it are followed, or none is ([`Way::Straight`]).
    ///
    /// # Errors
    /// The I/O error; [`Foreign::Link`].
    pub fn of(file: &Path, levels: usize, way: Way) -> io::Result<Self> {
        let root = file.ancestors().nth(levels + 1).unwrap_or(Path::new("/"));
        let below = file.strip_prefix(root).unwrap_or(file);
        let root = match way {
            Way::Straight => Folder::straight(root)?,
            Way::Beneath => Folder::follow(root)?,
        };
        Self::below(Arc::new(root), below)
    }

    /// The file of that name in the same folder.
    #[must_use]
    pub fn named(&self, name: &OsStr) -> Self {
        Self {
            root: Arc::clone(&self.root),
            first: self.first.clone(),
            way: self.way.clone(),
            name: name.to_owned(),
        }
    }

    /// The first of its folders is held from when it was first opened, whatever its name leads to later.
    #[must_use]
    pub fn within(self, first: First) -> Self {
        let first = Some(first);
        Self { first, ..self }
    }

    /// One of its folders, opened by `open`.
    fn step(&self, depth: usize, open: impl FnOnce() -> io::Result<Folder>) -> io::Result<Folder> {
        match self.first.as_ref().filter(|_| depth == 0) {
            Some(first) => first.open(open),
            None => open(),
        }
    }

    /// Its name in its folder.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// The folder above those that are ours.
    #[must_use]
    pub fn root(&self) -> &Folder {
        &self.root
    }

    /// Its folder.
    ///
    /// # Errors
    /// The I/O error; [`Foreign::Link`], [`Foreign::Shared`].
    pub fn folder(&self) -> io::Result<Folder> {
        let mut folder = self.root.again()?;
        for (depth, step) in self.way.iter().enumerate() {
            folder = self.step(depth, || folder.child(step))?;
            folder.require_private()?;
        }
        Ok(folder)
    }

    /// Its folder; what is missing of it is made, durably.
    ///
    /// # Errors
    /// As [`Ours::folder`].
    pub fn make(&self) -> io::Result<Folder> {
        let mut folder = self.root.again()?;
        for (depth, step) in self.way.iter().enumerate() {
            folder = self.step(depth, || make_child(&folder, step))?;
            folder.require_private()?;
        }
        Ok(folder)
    }

    /// What stands there; `None` also where its folder is not there.
    ///
    /// # Errors
    /// As [`Ours::folder`].
    pub fn look(&self) -> io::Result<Option<Identity>> {
        match self.folder() {
            Err(e) if absent(&e) => Ok(None),
            folder => folder?.look(&self.name),
        }
    }

    /// Unlinks it, durably; it may be gone already, and its folders with it. With `inode`, only the file that has it.
    /// Whether it was there.
    ///
    /// # Errors
    /// As [`Ours::folder`] and [`Folder::remove`].
    pub fn discard(&self, inode: Option<u64>) -> io::Result<bool> {
        let folder = match self.folder() {
            Err(e) if absent(&e) => return Ok(false),
            found => found?,
        };
        let was_there = match inode {
            Some(inode) => folder.remove(&self.name, inode)?,
            None => folder.remove_ours(&self.name)?,
        };
        folder.sync()?;
        Ok(was_there)
    }

    /// Removes the last `levels` of its folders, as far as they are empty, durably. The file is gone, durably too
    /// ([`Ours::discard`]): of a folder that goes nothing need be synced but the one above it.
    ///
    /// # Errors
    /// The I/O error.
    pub fn remove_folders(&self, levels: usize) -> io::Result<()> {
        let mut above = vec![self.root.again()?];
        for (depth, step) in self.way.iter().enumerate() {
            let parent = above.last().map_or(&*self.root, |folder| folder);
            let child = self.step(depth, || parent.child(step));
            match child {
                Err(e) if absent(&e) => break,
                Err(e) if foreign(&e).is_some() => return Ok(()), // none of ours is there
                child => above.push(child?),
            }
        }
        let least = self.way.len().saturating_sub(levels);
        while above.len() > least + 1 {
            let Some(folder) = above.pop() else { break };
            let (Some(parent), Some(name)) = (above.last(), self.way.get(above.len() - 1)) else {
                break;
            };
            let there = parent.look(name)?;
            let is_it = there.is_some_and(|it| folder.identity().is_ok_and(|own| own.is_same(&it)));
            let is_gone = is_it && (parent.remove_folder(name)? || parent.look(name)?.is_none());
            // What goes from the deepest one is the file.
            if !is_gone && above.len() < self.way.len() {
                folder.sync()?;
            }
            if is_it && !is_gone {
                return Ok(());
            }
        }
        above.last().map_or(Ok(()), Folder::sync)
    }

    /// Makes what was done to names in its folders durable, and in the one above them.
    ///
    /// # Errors
    /// As [`Ours::folder`].
    pub fn sync(&self) -> io::Result<()> {
        let mut folder = self.root.again()?;
        folder.sync()?;
        for (depth, step) in self.way.iter().enumerate() {
            folder = self.step(depth, || folder.child(step))?;
            folder.require_private()?;
            folder.sync()?;
        }
        Ok(())
    }
}

/// [`Ours::folder`] of a path above whose own folders links are followed, and the name there.
///
/// # Errors
/// As [`Ours::of`] and [`Ours::folder`].
pub fn folder_of_ours(file: &Path, levels: usize) -> io::Result<(Folder, OsString)> {
    let ours = Ours::of(file, levels, Way::Beneath)?;
    Ok((ours.folder()?, ours.name))
}

/// [`Ours::discard`] of a path above whose own folders links are followed.
///
/// # Errors
/// As [`Ours::of`] and [`Ours::discard`].
pub fn discard(file: &Path, levels: usize, inode: Option<u64>) -> io::Result<()> {
    match Ours::of(file, levels, Way::Beneath) {
        Err(e) if absent(&e) => Ok(()),
        ours => ours?.discard(inode).map(|_| ()),
    }
}

/// [`Ours::remove_folders`] of a path, of which the folders that go are ours.
///
/// # Errors
/// As [`Ours::of`] and [`Ours::remove_folders`].
pub fn remove_folders(file: &Path, levels: usize) -> io::Result<()> {
    match Ours::of(file, levels, Way::Beneath) {
        Err(e) if absent(&e) => Ok(()),
        ours => ours?.remove_folders(levels),
    }
}

/// Makes what was done to names in a folder durable.
///
/// # Errors
/// The I/O error.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    Folder::follow(folder)?.sync()
}

fn absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
