//! A command of root on the data directory of another user is done as that user. What stands there that user may have
//! written, and root would follow it with rights that the user has not.

use std::ffi::CString;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, User, getgrouplist, initgroups, setgid, setgroups, setuid};

use super::apart;
use super::failure::{Exit, Failure};

/// Gives up the rights of root for good, in favour of the owner of the data directory. Before anything of that is opened.
pub(super) fn become_owner(data_dir: &Path) -> Result<(), Failure> {
    // One that cannot be looked at is told where it is opened.
    let Ok(found) = data_dir.metadata() else {
        return Ok(());
    };
    let (owner, group) = (Uid::from_raw(found.uid()), Gid::from_raw(found.gid()));
    if owner.is_root() || !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let became = become_user(owner, group);
    became.map_err(|error| {
        let text = format!(
            "data directory {} belongs to user {owner}, and this command cannot go on as that user: {error}",
            data_dir.display()
        );
        Failure::new(Exit::Busy, text)
    })?;
    // The kernel has forgotten it.
    apart::end_with_parent();
    Ok(())
}

/// The process cannot be traced by that user either: the kernel marks it so until it runs another program.
fn become_user(user: Uid, group: Gid) -> Result<(), Errno> {
    let group = match User::from_uid(user)? {
        Some(known) => {
            let name = CString::new(known.name).map_err(|_| Errno::EINVAL)?;
            // A folder gets its group from the one above it also where its owner is not in that.
            let groups = getgrouplist(&name, known.gid)?;
            let group = Some(group).filter(|group| groups.contains(group));
            let group = group.unwrap_or(known.gid);
            initgroups(&name, group)?;
            group
        }
        None => {
            let group = Gid::from_raw(user.as_raw());
            setgroups(&[group])?;
            group
        }
    };
    setgid(group)?;
    setuid(user)
}
