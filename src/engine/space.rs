//! Free space: `prepare` writes nothing onto a file system that is nearly full.

use std::io;
use std::path::Path;

use crate::engine::failure::{At, kind};
use crate::engine::{EngineError, EngineErrorKind};
use crate::held;
use crate::text::Argument;
use crate::text::catalog::engine as texts;

/// What must stay free on every file system that a snapshot set writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserve {
    /// At least so many bytes.
    pub bytes: u64,
    /// And at least so many hundredths of the file system.
    pub percent: u64,
}

impl Default for Reserve {
    /// 64 MiB and 5 % (`docs/cut.md` §6).
    fn default() -> Self {
        Self {
            bytes: 64 << 20,
            percent: 5,
        }
    }
}

/// Magic numbers of file systems that images lie on (`linux/magic.h`).
const FILE_SYSTEMS: &[(u64, &str)] = &[
    (0x5846_5342, "xfs"),
    (0x9123_683E, "btrfs"),
    (0xEF53, "ext4"), // and its forerunners
    (0x0102_1994, "tmpfs"),
    (0x794C_7630, "overlayfs"),
    (0x2FC1_2FC1, "zfs"),
    (0xCA45_1A4E, "bcachefs"),
    (0xF2F5_2010, "f2fs"),
    (0x6969, "nfs"),
    (0xFF53_4D42, "cifs"),
    (0x00C3_6400, "ceph"),
];

/// The type of the file system that a file lies on; its magic number if it has no name here, nothing if it cannot
/// be asked.
#[must_use]
pub fn file_system(file: &Path) -> String {
    let Ok(stat) = held::ask(file, || Ok(rustix::fs::statfs(file)?)) else {
        return String::new();
    };
    // The kernel's field is signed and of the machine's width; the numbers have 32 bits.
    let magic = u64::try_from(stat.f_type).unwrap_or(0) & 0xFFFF_FFFF;
    let known = FILE_SYSTEMS.iter().find(|(number, _)| *number == magic);
    known.map_or_else(|| format!("{magic:#x}"), |(_, name)| (*name).to_owned())
}

/// Magic numbers of file systems whose files are made by the kernel when they are read (`linux/magic.h`).
const PSEUDO: &[u64] = &[
    0x9FA0,      // proc
    0x6265_6572, // sysfs
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0x6369_6C62, // configfs, as some kernels have it
    0x6265_6570, // configfs
    0x0027_E0EB, // cgroup
    0x6367_7270, // cgroup2
    0xCAFE_4A11, // bpf
    0xDE5E_81E4, // efivarfs
    0x6165_676C, // pstore
    0xF97C_FF8C, // selinuxfs
    0x4353_415D, // smackfs
    0x1CD1,      // devpts
    0x1980_0202, // mqueue
    0x4249_4E4D, // binfmt_misc
    0x6C6F_6F70, // binderfs
    0x6E73_6673, // nsfs
    0x5049_5045, // pipefs
    0x534F_434B, // sockfs
    0x6573_5543, // fusectl
    0x0765_5821, // resctrl
    0x6E66_7364, // nfsd
    0x6759_6969, // rpc_pipefs
    0x5A3C_69F0, // apparmorfs
    0xABBA_1974, // xenfs
    0x0000_9FA1, // openprom
    0x0000_9FA2, // usbdevfs
    0x0904_1934, // anon_inodefs
    0x444D_4142, // dma-buf
    0x454D_444D, // devmem
    0x5345_434D, // secretmem
];

/// Whether the file lies on a file system of the kernel: it is no image, whatever it reads as. Reading it may already do
/// something.
#[must_use]
pub fn is_pseudo(file: &std::fs::File) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|stat| is_of_the_kernel(&stat))
}

/// Refuses such a file, before anything of it is read.
///
/// # Errors
/// In words what it is.
pub(crate) fn require_stored(file: &std::fs::File) -> io::Result<()> {
    match is_pseudo(file) {
        false => Ok(()),
        true => Err(io::Error::other(
            "it lies on a file system of the kernel (such as /proc or /sys) and is no disk image",
        )),
    }
}

/// Whether what stands at the path lies there.
///
/// # Errors
/// What the system said.
pub fn is_on_pseudo(path: &Path) -> io::Result<bool> {
    let stat = held::ask(path, || Ok(rustix::fs::statfs(path)?))?;
    Ok(is_of_the_kernel(&stat))
}

fn is_of_the_kernel(stat: &rustix::fs::StatFs) -> bool {
    let magic = u64::try_from(stat.f_type).unwrap_or(0) & 0xFFFF_FFFF;
    PSEUDO.contains(&magic)
}

impl Reserve {
    /// Refuses if less than the reserve is free on the file system that holds `path`; clients are told
    /// `place`.
    ///
    /// # Errors
    /// [`EngineErrorKind::Full`] naming the place and both amounts; another kind if it cannot be read.
    pub fn require(
        &self,
        at: &At,
        path: &Path,
        place: impl Into<Argument>,
    ) -> Result<(), EngineError> {
        self.require_room(at, path, place, 0)
    }

    /// The same if `room` bytes are to be written there: the reserve must be free after that.
    ///
    /// # Errors
    /// As [`Reserve::require`].
    pub fn require_room(
        &self,
        at: &At,
        path: &Path,
        place: impl Into<Argument>,
        room: u64,
    ) -> Result<(), EngineError> {
        let (free, reserve) = match self.state(path) {
            Ok(room) => room,
            Err(e) => {
                let (kind, text) = (kind(&e), at.text_at(texts::SPACE_UNKNOWN, place));
                let text = text.with("cause", e);
                return Err(EngineError { kind, text });
            }
        };
        let needed = reserve.saturating_add(room);
        if free >= needed {
            return Ok(());
        }
        Err(EngineError {
            kind: EngineErrorKind::Full,
            text: at
                .text_at(texts::SPACE_LOW, place)
                .with("free", free)
                .with("needed", needed),
        })
    }

    /// What is free and what must be, in bytes, where that is less than it must be.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn shortage(&self, path: &Path) -> io::Result<Option<(u64, u64)>> {
        let (free, reserve) = self.state(path)?;
        Ok((free < reserve).then_some((free, reserve)))
    }

    /// What is free, and the reserve, in bytes.
    fn state(&self, path: &Path) -> io::Result<(u64, u64)> {
        let stat = held::ask(path, || Ok(rustix::fs::statvfs(path)?))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let total = stat.f_blocks.saturating_mul(stat.f_frsize);
        let reserve = self.bytes.max((total / 100).saturating_mul(self.percent));
        Ok((free, reserve))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_space_names_path_and_both_amounts() {
        let dir = tempfile::tempdir().unwrap();
        let at = At::new("web-1", "disk0");
        let none = Reserve {
            bytes: 0,
            percent: 0,
        };
        assert_eq!(none.require(&at, dir.path(), ""), Ok(()));
        let room = none.require_room(&at, dir.path(), "", u64::MAX);
        assert_eq!(room.unwrap_err().kind, EngineErrorKind::Full);
        let all = Reserve {
            bytes: u64::MAX,
            percent: 0,
        };
        let error = all
            .require(&at, dir.path(), dir.path().display())
            .unwrap_err();
        assert_eq!(error.kind, EngineErrorKind::Full);
        let text = error.text.english();
        assert!(text.contains(&dir.path().display().to_string()), "{text}");
        assert!(
            text.contains("16 EiB (18446744073709551615 bytes) must stay free"),
            "{text}"
        );
    }
}
