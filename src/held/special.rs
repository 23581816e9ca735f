//! Symbolic links and sockets of ours: what stands under a name and is not opened as a file.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{readlinkat, renameat, symlinkat};
use rustix::io::Errno;

use super::folder::{Folder, single};
use super::identity::{FileKind, Identity};

impl Folder {
    /// Where the link of that name leads; `None` if none stands there.
    ///
    /// # Errors
    /// The I/O error.
    pub fn read_link(&self, name: impl AsRef<OsStr>) -> io::Result<Option<PathBuf>> {
        match readlinkat(self, single(name.as_ref())?, Vec::new()) {
            Ok(to) => Ok(Some(OsString::from_vec(to.into_bytes()).into())),
            Err(Errno::INVAL | Errno::NOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Has a link of that name lead to `to`. One that is there is replaced in one step, by way of the name `aside`;
    /// anything else that stands there refuses it.
    ///
    /// # Errors
    /// The I/O error.
    pub fn set_link(
        &self,
        name: impl AsRef<OsStr>,
        to: &Path,
        aside: impl AsRef<OsStr>,
    ) -> io::Result<()> {
        let (name, aside) = (single(name.as_ref())?, single(aside.as_ref())?);
        let there = self.look(name)?.map(|it| it.kind);
        if there.is_some_and(|kind| kind != FileKind::Link) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.remove_link(aside)?;
        symlinkat(to, self, aside)?;
        let put = match there {
            None => self.rename_new(aside, self, name),
            Some(_) => renameat(self, aside, self, name).map_err(io::Error::from),
        };
        if put.is_err() {
            let _ = self.remove_link(aside);
        }
        put
    }

    /// Removes a link, not what it leads to. `false` if none stands there.
    ///
    /// # Errors
    /// The I/O error; as [`Folder::remove`].
    pub fn remove_link(&self, name: impl AsRef<OsStr>) -> io::Result<bool> {
        self.remove_any(name.as_ref(), FileKind::Link)
    }

    /// Opens a socket of that name and mode, and tells what it is. One that is there is of a dead process and goes;
    /// anything else that stands there refuses it.
    ///
    /// # Errors
    /// The I/O error.
    pub fn listen(
        &self,
        name: impl AsRef<OsStr>,
        mode: u32,
    ) -> io::Result<(UnixListener, Identity)> {
        let name = single(name.as_ref())?;
        self.remove_any(name, FileKind::Socket)?;
        let listener = UnixListener::bind(self.place(name))?;
        let made = self.look(name)?.ok_or(io::ErrorKind::NotFound)?;
        if made.kind != FileKind::Socket {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.set_mode_of(name, &made, mode)?;
        Ok((listener, made))
    }

    /// Removes the socket of that name, if it is this one.
    ///
    /// # Errors
    /// The I/O error; as [`Folder::remove`].
    pub fn remove_socket(&self, name: impl AsRef<OsStr>, made: &Identity) -> io::Result<bool> {
        self.remove_as(single(name.as_ref())?, made.inode, FileKind::Socket)
    }
}
