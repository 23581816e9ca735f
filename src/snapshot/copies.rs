//! The copies of definitions that sets keep: whether they are as they were written when the sets were taken.

use std::io::{self, Read};
use std::path::PathBuf;

use crate::document;
use crate::engine::EngineErrorKind;
use crate::held;
use crate::id::VmId;
use crate::inventory::Snapshot;
use crate::snapshot::saga::core::Core;
use crate::text::Text;
use crate::text::catalog::snapshot as texts;

/// The name of the copy of a definition, in the folder of its machine.
pub(crate) const COPY: &str = "vm.toml";

/// A copy that is not what its set needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsoundCopy {
    /// The file.
    pub file: PathBuf,
    /// The machine that it defines.
    pub machine: VmId,
    /// It is not there.
    pub gone: bool,
    /// In words, with the file.
    pub text: Text,
}

/// What stands in the copy of a definition.
///
/// # Errors
/// It cannot be read, or was changed.
pub(crate) fn read(member: &Snapshot) -> Result<String, UnsoundCopy> {
    let file = &member.definition;
    let unsound = |gone, text: Text| UnsoundCopy {
        file: file.clone(),
        machine: member.machine,
        gone,
        text: text
            .with("machine", &member.machine_name)
            .with("file", file.display()),
    };
    let unreadable = |e: io::Error| {
        let gone = EngineErrorKind::of(&e) == EngineErrorKind::Missing;
        unsound(gone, texts::COPY_UNREADABLE.with("cause", e))
    };
    let bytes = || {
        let (folder, name) = held::folder_of_ours(file, 3)?;
        let mut bytes = Vec::new();
        folder.open_file(name, false)?.read_to_end(&mut bytes)?;
        io::Result::Ok(bytes)
    };
    let bytes = bytes().map_err(unreadable)?;
    // None is known of a set of an older version.
    let written = member.definition_sha256.as_ref();
    if written.is_some_and(|written| *written != document::sha256(&bytes)) {
        return Err(unsound(false, texts::COPY_CHANGED.text()));
    }
    let text = String::from_utf8(bytes);
    text.map_err(|e| unreadable(io::Error::new(io::ErrorKind::InvalidData, e)))
}

/// The copies of all sets that are not what these need.
pub(crate) fn unsound(core: &Core) -> Vec<UnsoundCopy> {
    let sets = || core.deps.store.state().sets.clone();
    let mut found = Vec::new();
    for set in sets().values() {
        // The simulation has no files.
        let has_files = |m: &&Snapshot| m.disks.iter().any(|d| core.deps.storage.in_files(d));
        let members = set.members.iter().filter(has_files);
        found.extend(members.filter_map(|m| Some((m.id, read(m).err()?))));
    }
    // What was destroyed meanwhile has none.
    let (sets, mut all) = (sets(), Vec::new());
    for (id, copy) in found {
        let mut members = sets.values().flat_map(|set| &set.members);
        all.extend(members.any(|m| m.id == id).then_some(copy));
    }
    all
}

#[cfg(test)]
mod tests {
    use std::fs;

    use jiff::Timestamp;

    use super::*;
    use crate::id::SnapshotId;
    use crate::inventory::Consistency;

    #[test]
    fn a_copy_without_a_digest_is_read_as_it_is() {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join("sets/set/machine");
        fs::create_dir_all(&folder).unwrap();
        let mut member = Snapshot {
            id: SnapshotId::from_u128(1),
            machine: VmId::from_u128(1),
            machine_name: "web".to_owned(),
            name: String::new(),
            parent: None,
            disks: Vec::new(),
            left_out: Vec::new(),
            consistency: Consistency::Crash,
            definition: folder.join("vm.toml"),
            definition_sha256: None,
            cut_at: Timestamp::UNIX_EPOCH,
        };
        assert!(read(&member).unwrap_err().gone);
        fs::write(&member.definition, "format = 1\n").unwrap();
        assert_eq!(read(&member).unwrap(), "format = 1\n");
        member.definition_sha256 = Some(document::sha256(b"format = 1\n"));
        assert_eq!(read(&member).unwrap(), "format = 1\n");
        fs::write(&member.definition, "format = 3\n").unwrap();
        let changed = read(&member).unwrap_err();
        assert!(!changed.gone);
        let told = changed.text.english();
        assert!(told.contains("vm.toml") && told.contains("web"), "{told}");
    }
}
