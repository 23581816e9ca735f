//! Exporting a set: every disk as a stand-alone file, the definitions and a manifest, in one new directory.
//!
//! ```text
//!   read (lease of every file) ▶ copy ▶ manifest ▶ reveal (rename) ▶ commit ▶ publish (job 7) ▶ clear
//! ```
//!
//! All of it is written under a name of its own beside the target, which appears whole by one rename. The journal tells
//! which folder was made for it before anything is in it; the undo takes back and removes that one, wherever its name
//! leads to, and of anything else nothing that is not empty.

mod intent;
mod manifest;
mod request;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::held::{self, Folder, Origin};
use crate::id::{JobId, SetId, VmId};
use crate::inventory::{SnapshotSet, What};
use crate::snapshot::meter::Meter;
use crate::snapshot::saga::claims::FileGuard;
use crate::snapshot::saga::core::Core;
use crate::snapshot::saga::kind::{Fate, Kind, Step, Words};
use crate::snapshot::saga::leases::{Mode, Resource};
use crate::store::{Change, State};
use crate::text::Text;
use crate::text::catalog::snapshot as texts;

pub use intent::{Intent, Record};
pub(crate) use request::export;
pub use request::{ExportRefused, ExportRequest};
pub use steps::FAILPOINTS;

use manifest::Written;

/// A set being exported.
pub(crate) struct Export {
    intent: Intent,
    /// The one part that its steps work on.
    part: [(); 1],
    reading: Mutex<Reading>,
    written: Mutex<BTreeMap<VmId, Written>>,
    /// The folder that was made for it.
    made: Mutex<Made>,
    /// What the undo had to leave.
    left: Mutex<Option<Text>>,
    /// How far the copy is.
    meter: Meter,
}

/// What the copy reads.
#[derive(Debug, Default)]
struct Reading {
    /// The set with the files that its disks have now.
    set: Option<SnapshotSet>,
    /// Keeps those files as they are.
    _guard: Option<FileGuard>,
}

/// The folder of an export.
#[derive(Debug, Default)]
struct Made {
    /// Which one it is, as the journal tells.
    origin: Option<Origin>,
    /// It, in the process that made it.
    held: Option<Folder>,
}

impl Export {
    fn reading(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn left_behind(&self) -> MutexGuard<'_, Option<Text>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn written(&self) -> MutexGuard<'_, BTreeMap<VmId, Written>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kind for Export {
    type Part = ();
    type Guests = ();
    type Intent = Intent;
    type Record = Record;

    const NAME: &'static str = "export";
    const FATE: Fate = Fate::Stays;
    const TAKE: &'static [Step<Self>] = steps::TAKE;
    const FINISH: &'static [Step<Self>] = steps::FINISH;
    const FAILED: u16 = 32768;
    const INVALID_STATE: u16 = 32775;
    const WORDS: Words = Words {
        failed: texts::EXPORT_FAILED,
        failed_undoing: None,
        interrupted: texts::EXPORT_INTERRUPTED,
        interrupted_undoing: None,
        undoing: texts::EXPORT_UNDOING,
        undo_waits: texts::EXPORT_UNDO_WAITS,
        finish_waits: texts::EXPORT_FINISH_WAITS,
        recovering: texts::EXPORT_RECOVERING,
    };

    fn new(intent: Intent) -> Self {
        Self {
            intent,
            part: [()],
            reading: Mutex::default(),
            written: Mutex::default(),
            made: Mutex::default(),
            left: Mutex::default(),
            meter: Meter::default(),
        }
    }

    fn intent(&self) -> &Intent {
        &self.intent
    }

    fn commits(record: &Record) -> bool {
        *record == Record::Exported
    }

    fn what(&self) -> What {
        What::Export
    }

    fn job(&self) -> JobId {
        self.intent.job
    }

    fn set(&self) -> SetId {
        self.intent.set.id
    }

    fn parts(&self) -> &[()] {
        &self.part
    }

    fn name((): &()) -> &str {
        ""
    }

    fn machines(&self) -> Vec<String> {
        let members = self.intent.set.members.iter();
        members.map(|m| m.machine_name.clone()).collect()
    }

    fn replay(&mut self, record: Record) {
        if let Record::Made { folder } = record {
            self.made().origin = Some(folder);
        }
    }

    fn resources(&self) -> Vec<(Resource, Mode)> {
        vec![(Resource::Set(self.intent.set.id), Mode::Shared)]
    }

    /// What stands under its last name is somebody's.
    fn fits(&self, _: &Core, committed: bool) -> bool {
        let Some(made) = self.made().origin.filter(|_| !committed) else {
            return true;
        };
        let place = self.intent.directory.held();
        let revealed = place.and_then(|place| place.is(&self.intent.target(), &made));
        match revealed {
            Ok(revealed) => !revealed,
            Err(error) => !held::is_silence(&error),
        }
    }

    fn names(&self, _: &mut BTreeSet<PathBuf>) {}

    fn left(&self) -> Option<Text> {
        self.left_behind().clone()
    }

    fn publish(&self, _: &State) -> Option<(Text, Vec<Change>)> {
        let status = texts::EXPORT_COMPLETED.with("set", self.intent.set.id);
        let target = self.intent.directory.path().join(self.intent.target());
        Some((status.with("target", target.display()), Vec::new()))
    }
}

fn set_of(state: &State, id: SetId) -> Result<SnapshotSet, Text> {
    let set = state.sets.get(&id).map(|set| SnapshotSet::clone(set));
    set.ok_or_else(|| texts::EXPORT_NO_SET.with("set", id))
}
