//! Who made the socket at the other end of a connection (`SO_PEERCRED`, unix(7)). A process of another pid namespace has the
//! pid 0, which the crates here either cannot represent or read on an asynchronous thread only.

#![expect(
    unsafe_code,
    reason = "SO_PEERCRED has no safe wrapper here that knows the pid 0"
)]

use std::os::fd::{AsFd, AsRawFd};

use nix::libc;

/// The pid of the process, if it has one here.
pub(super) fn pid(connection: impl AsFd) -> Option<i32> {
    let mut found = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut length = libc::socklen_t::try_from(size_of::<libc::ucred>()).ok()?;
    // SAFETY: the kernel writes `length` bytes at most, which is the size of `found`, and no more than the length says was
    // written; both outlive the call, and any bytes are a `ucred`.
    let failed = unsafe {
        libc::getsockopt(
            connection.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast(),
            &raw mut length,
        )
    };
    (failed == 0 && found.pid > 0).then_some(found.pid)
}
