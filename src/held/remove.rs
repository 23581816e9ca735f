//! Exchanging and removing: what Linux does by name only.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, RenameFlags, renameat_with, unlinkat};
use rustix::io::Errno;

use super::folder::{Folder, single};
use super::identity::{FileKind, Foreign, Identity, Keep, TRASH};
use super::made::Origin;

impl Folder {
    /// Exchanges what stands under `name` here with what stands under `other_name` in `other`, which must be
    /// private, and looks at what came out: `old` of here must lie there now, and `new` of there here. Else it
    /// is exchanged back.
    ///
    /// # Errors
    /// The I/O error; [`Foreign::Other`] if something else stood there, and is there again; [`Foreign::Kept`] if
    /// it could not be put back.
    pub fn exchange(
        &self,
        name: impl AsRef<OsStr>,
        old: u64,
        other: &Self,
        other_name: impl AsRef<OsStr>,
        new: u64,
    ) -> io::Result<()> {
        let (name, other_name) = (single(name.as_ref())?, single(other_name.as_ref())?);
        other.require_private()?;
        require(other, other_name, new, FileKind::File)?;
        require(self, name, old, FileKind::File)?;
        let swap = || renameat_with(other, other_name, self, name, RenameFlags::EXCHANGE);
        swap()?;
        let came = other.look(other_name)?;
        let found = came.map_or(0, |it| it.inode);
        if found == old && came.is_some_and(|it| it.kind == FileKind::File) {
            return Ok(());
        }
        swap()?;
        let expected = old;
        match other.look(other_name)? {
            Some(back) if back.inode == new => Err(Foreign::Other { expected, found }.into()),
            _ => Err(kept(found, Keep::There)),
        }
    }

    /// Removes the file with that inode. In a folder that is not private it is first moved into one that is, and
    /// looked at there: what is foreign is put back. `false` if nothing stood under that name.
    ///
    /// What a process that died meanwhile left in that folder goes at the next call. The folder must be synced
    /// afterwards.
    ///
    /// # Errors
    /// The I/O error; [`Foreign::Other`] if another file stands there, and is there again; [`Foreign::Kept`] if
    /// it could not be put back.
    pub fn remove(&self, name: impl AsRef<OsStr>, inode: u64) -> io::Result<bool> {
        self.remove_as(single(name.as_ref())?, inode, FileKind::File)
    }

    /// Removes the regular file of that name, whichever it is. `false` if nothing stands there; anything else that
    /// stands there stays.
    ///
    /// # Errors
    /// As [`Folder::remove`].
    pub fn remove_file(&self, name: impl AsRef<OsStr>) -> io::Result<bool> {
        let name = single(name.as_ref())?;
        match self.look(name)? {
            None => Ok(false),
            Some(it) => self.remove(name, it.inode),
        }
    }

    /// Removes what stands under that name if it is of this kind. `false` if nothing or something else stands there.
    pub(super) fn remove_any(&self, name: &OsStr, kind: FileKind) -> io::Result<bool> {
        let name = single(name)?;
        match self.look(name)?.filter(|it| it.kind == kind) {
            None => Ok(false),
            Some(it) => self.remove_as(name, it.inode, kind),
        }
    }

    /// [`Folder::remove`] of anything but a folder.
    pub(super) fn remove_as(&self, name: &OsStr, inode: u64, kind: FileKind) -> io::Result<bool> {
        if self.identity()?.is_private() {
            return match self.look(name)? {
                None => Ok(false),
                Some(_) => {
                    require(self, name, inode, kind)?;
                    self.unlink(name)?;
                    Ok(true)
                }
            };
        }
        if self.look(name)?.is_none() {
            self.remove_left(inode, kind)?;
            return Ok(false);
        }
        require(self, name, inode, kind)?;
        let (aside, trash) = self.make_aside()?;
        let done = self.through(&trash, name, inode, kind);
        let _not_empty = self.remove_folder(aside);
        done
    }

    /// [`Folder::remove`] by way of `trash`, which is new, and in which the file has its inode as its name.
    fn through(&self, trash: &Self, name: &OsStr, inode: u64, kind: FileKind) -> io::Result<bool> {
        let inside = inode.to_string();
        let inside = OsStr::new(&inside);
        self.rename_new(name, trash, inside)?;
        let came = trash.look(inside)?;
        let found = came.map_or(0, |it| it.inode);
        if found == inode && came.is_some_and(|it| it.kind == kind) {
            trash.unlink(inside)?;
            return Ok(true);
        }
        if trash.rename_new(inside, self, name).is_ok() {
            let expected = inode;
            return Err(Foreign::Other { expected, found }.into());
        }
        // Out of the way of a later file with the expected number.
        let _stays = trash.rename_new(inside, trash, format!("kept-{found}"));
        Err(kept(found, Keep::Trash))
    }

    /// Removes the file with that inode where a process that died had moved it to.
    fn remove_left(&self, inode: u64, kind: FileKind) -> io::Result<()> {
        let inside = inode.to_string();
        let names = self.names()?.into_iter();
        for aside in names.filter(|name| name.as_bytes().starts_with(TRASH.as_bytes())) {
            let Ok(trash) = self.child(&aside) else {
                continue;
            };
            let left = trash.look(&inside)?;
            let is_it = left.is_some_and(|it| it.inode == inode && it.kind == kind);
            if is_it && trash.identity()?.is_private() {
                trash.unlink(OsStr::new(&inside))?;
                self.remove_folder(aside)?;
            }
        }
        Ok(())
    }

    /// Moves what stands under a name here to a new name in `folder`, which must be private, and looks at what came
    /// out: what is not the expected one is put back. Never replaces anything.
    ///
    /// # Errors
    /// The I/O error, `EEXIST` if the new name is taken; [`Foreign::Other`] if something else stood there, and is
    /// there again; [`Foreign::Kept`] if it could not be put back.
    pub fn move_new(
        &self,
        name: impl AsRef<OsStr>,
        expected: &Identity,
        folder: &Self,
        to: impl AsRef<OsStr>,
    ) -> io::Result<()> {
        let (name, to) = (single(name.as_ref())?, single(to.as_ref())?);
        folder.require_private()?;
        self.rename_new(name, folder, to)?;
        let came = folder.look(to)?;
        if came.is_some_and(|it| it.is_same(expected)) {
            return Ok(());
        }
        let (expected, found) = (expected.inode, came.map_or(0, |it| it.inode));
        match folder.rename_new(to, self, name) {
            Ok(()) => Err(Foreign::Other { expected, found }.into()),
            Err(_) => Err(kept(found, Keep::There)),
        }
    }

    /// [`Folder::move_new`] under the first name that is free: `to`, `to.1`, `to.2` …; durable. Gives that name.
    ///
    /// # Errors
    /// As there, but for a name that is taken.
    pub fn move_numbered(
        &self,
        name: &OsStr,
        expected: &Identity,
        folder: &Self,
        to: &OsStr,
    ) -> io::Result<OsString> {
        let mut new = to.to_owned();
        let mut number = 0;
        loop {
            match self.move_new(name, expected, folder, &new) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    number += 1;
                    new = to.to_owned();
                    new.push(format!(".{number}"));
                }
                moved => break moved?,
            }
        }
        folder.sync()?;
        self.sync()?;
        Ok(new)
    }

    /// Removes whatever stands under that name in a private folder, if it is no folder; a link itself, not what it
    /// leads to. `false` if nothing stood there.
    ///
    /// # Errors
    /// The I/O error; [`Foreign::Shared`] if the folder is not private and something stands there.
    pub fn remove_ours(&self, name: impl AsRef<OsStr>) -> io::Result<bool> {
        let name = single(name.as_ref())?;
        if self.look(name)?.is_none() {
            return Ok(false);
        }
        self.require_private()?;
        self.unlink(name)
    }

    fn unlink(&self, name: &OsStr) -> io::Result<bool> {
        match unlinkat(self, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Removes an empty folder. `false` if it is not empty or nothing stands there.
    ///
    /// # Errors
    /// The I/O error.
    pub fn remove_folder(&self, name: impl AsRef<OsStr>) -> io::Result<bool> {
        match unlinkat(self, single(name.as_ref())?, AtFlags::REMOVEDIR) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Removes the folder of ours that was made there, with all that is in it; no link is followed. `false` if nothing
    /// stood there.
    ///
    /// # Errors
    /// The I/O error; [`Foreign::Link`]; [`Foreign::Other`] if it is not that of `made`; [`Foreign::Shared`] if it or a
    /// folder in it is not private.
    pub fn remove_tree(&self, name: impl AsRef<OsStr>, made: &Origin) -> io::Result<bool> {
        let name = single(name.as_ref())?;
        let tree = match self.child(name) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        tree.require(made)?;
        tree.empty()?;
        self.remove_folder(name)
    }

    /// Removes all that is in a folder of ours, wherever that lies; no link is followed.
    ///
    /// # Errors
    /// The I/O error; [`Foreign::Shared`] if it or a folder in it is not private.
    pub fn empty(&self) -> io::Result<()> {
        self.require_private()?;
        for name in self.names()? {
            match self.look(&name)? {
                Some(it) if it.kind == FileKind::Folder => {
                    self.child(&name)?.empty()?;
                    self.remove_folder(&name)?;
                }
                _ => {
                    self.unlink(&name)?;
                }
            }
        }
        Ok(())
    }
}

fn kept(found: u64, place: Keep) -> io::Error {
    Foreign::Kept { found, place }.into()
}

/// Refuses unless something of that kind and with that inode stands there.
fn require(folder: &Folder, name: &OsStr, inode: u64, kind: FileKind) -> io::Result<()> {
    let there = folder.look(name)?.ok_or(io::ErrorKind::NotFound)?;
    match there.kind {
        found if found == kind && there.inode == inode => Ok(()),
        FileKind::Link if kind != FileKind::Link => Err(Foreign::Link.into()),
        found if found == kind || kind != FileKind::File => Err(Foreign::Other {
            expected: inode,
            found: there.inode,
        }
        .into()),
        _ => Err(Foreign::NotRegular.into()),
    }
}
