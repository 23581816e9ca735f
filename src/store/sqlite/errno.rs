//! The one call into SQLite that `rusqlite` does not wrap: what the operating system said.

#![expect(
    unsafe_code,
    reason = "the only way to tell a quota from a broken disk"
)]

use std::io;

use rusqlite::{Connection, ffi};

/// The error of the operating system behind the last `SQLITE_IOERR` of this connection.
pub(super) fn last(connection: &Connection) -> io::Error {
    // SAFETY: the handle is valid as long as the connection lives, which is longer than this call; the
    // function only reads a number from it.
    io::Error::from_raw_os_error(unsafe { ffi::sqlite3_system_errno(connection.handle()) })
}
