//! How trouble with a file becomes an [`EngineError`] that names machine, disk and file.

use std::fmt::Display;
use std::io;
use std::path::Path;

use crate::engine::{EngineError, EngineErrorKind, Plan, RevertPlan};
use crate::held;
use crate::inventory::{Disk, Machine};
use crate::text::catalog::engine as texts;
use crate::text::{Argument, Message, Text};

/// The machine and disk that a step works on, for its error texts.
#[derive(Debug, Clone)]
pub struct At {
    machine: String,
    disk: String,
}

impl At {
    /// Any machine and disk.
    #[must_use]
    pub fn new(machine: impl Display, disk: impl Display) -> Self {
        Self {
            machine: machine.to_string(),
            disk: disk.to_string(),
        }
    }

    /// A disk of a machine, named by the machine's name.
    #[must_use]
    pub fn disk(machine: &Machine, disk: &Disk) -> Self {
        Self::new(&machine.name, &disk.id)
    }

    /// The disk of a plan.
    #[must_use]
    pub fn plan(plan: &Plan) -> Self {
        Self::new(&plan.machine_name, &plan.disk.id)
    }

    /// The disk of a revert.
    #[must_use]
    pub fn revert(revert: &RevertPlan) -> Self {
        Self::new(&revert.machine_name, &revert.disk.id)
    }

    /// The message with `machine`, `disk` and `file` filled in.
    #[must_use]
    pub fn text(&self, message: Message, file: &Path) -> Text {
        self.text_at(message, file.display())
    }

    /// The same where clients are told a place in other words.
    #[must_use]
    pub fn text_at(&self, message: Message, place: impl Into<Argument>) -> Text {
        message
            .with("machine", &self.machine)
            .with("disk", &self.disk)
            .with("file", place)
    }

    /// An error of that kind with that message.
    #[must_use]
    pub fn error(&self, kind: EngineErrorKind, message: Message, file: &Path) -> EngineError {
        EngineError {
            kind,
            text: self.text(message, file),
        }
    }

    /// What an I/O error means for callers: no space, not there, not permitted, in use, or just failed.
    #[must_use]
    pub fn io(&self, file: &Path, error: &io::Error) -> EngineError {
        let kind = kind(error);
        let message = match kind {
            EngineErrorKind::Missing => texts::FILE_MISSING,
            EngineErrorKind::Full => texts::FILE_FULL,
            EngineErrorKind::Denied => texts::FILE_DENIED,
            EngineErrorKind::Silent => texts::FILE_SILENT,
            EngineErrorKind::Locked => texts::LOCKED,
            _ if held::foreign(error).is_some() => texts::FILE_SWAPPED,
            _ => texts::FILE_FAILED,
        };
        EngineError {
            kind,
            text: self.text(message, file).with("cause", error),
        }
    }
}

/// What an I/O error with a file means that the server keeps for the snapshot. The operator sees the disk,
/// the log has the path.
#[must_use]
pub fn ours(plan: &Plan, file: &Path, error: &io::Error) -> EngineError {
    tracing::warn!(file = %file.display(), %error, "A file of a snapshot set");
    let kind = kind(error);
    let message = match kind {
        EngineErrorKind::Full => texts::OURS_FULL,
        EngineErrorKind::Denied => texts::OURS_DENIED,
        _ => texts::OURS_FAILED,
    };
    EngineError {
        kind,
        text: At::plan(plan)
            .text(message, &plan.disk.file)
            .with("cause", error),
    }
}

/// The kind of trouble behind an I/O error.
#[must_use]
pub fn kind(error: &io::Error) -> EngineErrorKind {
    if held::foreign(error).is_some() {
        return EngineErrorKind::Unsupported;
    }
    if held::is_silence(error) {
        return EngineErrorKind::Silent;
    }
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => EngineErrorKind::Missing,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => EngineErrorKind::Full,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            EngineErrorKind::Denied
        }
        // A lock of another process, or its lease on the file.
        io::ErrorKind::WouldBlock => EngineErrorKind::Locked,
        _ => EngineErrorKind::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_os_error_has_one_kind_and_names_machine_disk_and_file() {
        let table = [
            (nix::libc::ENOSPC, EngineErrorKind::Full),
            (nix::libc::EDQUOT, EngineErrorKind::Full),
            (nix::libc::EACCES, EngineErrorKind::Denied),
            (nix::libc::EPERM, EngineErrorKind::Denied),
            (nix::libc::EROFS, EngineErrorKind::Denied),
            (nix::libc::ENOENT, EngineErrorKind::Missing),
            (nix::libc::ENOTDIR, EngineErrorKind::Missing),
            (nix::libc::EIO, EngineErrorKind::Failed),
            (nix::libc::EAGAIN, EngineErrorKind::Locked),
        ];
        for (errno, kind) in table {
            let error = io::Error::from_raw_os_error(errno);
            let it = At::new("web-1", "disk0").io(Path::new("/images/a.raw"), &error);
            assert_eq!(it.kind, kind, "{error}");
            let text = it.text.english();
            for part in ["web-1", "disk0", "/images/a.raw"] {
                assert!(text.contains(part), "{text}");
            }
        }
    }
}
