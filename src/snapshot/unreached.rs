//! Files that an operation has made beside an image and cannot reach any more when they are to go.

use std::path::PathBuf;

use crate::engine::EngineError;
use crate::id::VmId;
use crate::inventory::{Format, Leftover};
use crate::snapshot::saga::core::Core;
use crate::store::Change;

/// A file that an operation has made beside an image, and can not reach any more when it is to go.
pub(crate) struct Unreached<'a> {
    /// The machine.
    pub(crate) machine: VmId,
    /// Its name.
    pub(crate) machine_name: &'a str,
    /// The disk.
    pub(crate) disk: &'a str,
    /// The file.
    pub(crate) file: PathBuf,
}

impl Unreached<'_> {
    /// Remembers it, durably. Nothing in it is looked at later, as it may be half a file.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn remember(self, core: &Core) -> Result<(), EngineError> {
        tracing::warn!(machine = self.machine_name, file = %self.file.display(), "Its folder is away; it stays until that is back");
        let left = Leftover {
            machine: self.machine,
            machine_name: self.machine_name.to_owned(),
            disk: self.disk.to_owned(),
            file: self.file,
            format: Format::Raw,
            sealed: None,
        };
        core.transact(move |_| vec![Change::PutLeftover(left)])
    }
}
