//! Connections to the sockets of a machine.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use tokio::net::UnixStream;

use crate::engine::Stamp;
use crate::held;

/// Connects to what listens there; with what the socket looked like.
///
/// # Errors
/// It is no socket, nobody listens, or so many wait there that nobody else may ([`io::ErrorKind::WouldBlock`]).
pub(super) async fn connect(socket: &Path) -> io::Result<(UnixStream, Stamp)> {
    let path = socket.to_owned();
    let held = tokio::task::spawn_blocking(move || hold(&path)).await;
    let held = held.map_err(io::Error::other)??;
    // By the descriptor: what was looked at is what is connected to, and its path may be of any length.
    let place = format!("/proc/self/fd/{}", held.as_raw_fd());
    let stamp = stamp(&held)?;
    Ok((UnixStream::connect(place).await?, stamp))
}

/// What a socket looks like: one that is bound anew is another file.
pub(super) fn stamp(socket: impl AsFd) -> io::Result<Stamp> {
    let socket = File::from(socket.as_fd().try_clone_to_owned()?);
    Ok(Stamp::of(&socket.metadata()?))
}

/// The socket itself, through no symbolic link in its place: who may write into the folder could lead us elsewhere.
pub(super) fn hold(socket: &Path) -> io::Result<OwnedFd> {
    held::ask(socket, || {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = rustix::fs::open(socket, flags, Mode::empty())?;
        match FileType::from_raw_mode(rustix::fs::fstat(&open)?.st_mode) {
            FileType::Socket => Ok(open),
            FileType::Symlink => Err(io::Error::other(
                "it is a symbolic link: name the socket itself",
            )),
            _ => Err(io::Error::other("it is no socket")),
        }
    })
}
