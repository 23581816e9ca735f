//! `groupshot guard`: the process that lets machines go if the server dies while they stand still. A server starts it.

use std::io;
use std::os::fd::AsFd;

use crate::clock::SystemClock;
use crate::engine::qemu::release::release;
use crate::snapshot::guard::process;

/// Guards the machines that the server hands over on standard input.
///
/// # Errors
/// Nobody hands over any, or they cannot be guarded.
pub fn guard() -> io::Result<()> {
    let pair = io::stdin().as_fd().try_clone_to_owned()?;
    process::run(&pair, release, &SystemClock::shared())
}
