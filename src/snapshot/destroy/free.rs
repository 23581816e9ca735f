//! What nothing needs any more: removed by whoever takes away the last thing that lay on it, or remembered.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::engine::{At, EngineError, Layer, Survey};
use crate::id::{JobId, SnapshotId, VmId};
use crate::inventory::Format;
use crate::snapshot::destroy::draft::layers;
use crate::snapshot::destroy::left::Left;
use crate::snapshot::destroy::look;
use crate::snapshot::destroy::relink::error;
use crate::snapshot::destroy::{Member, again};
use crate::snapshot::saga::claims::{FileGuard, FileUser, InUse};
use crate::snapshot::saga::core::Core;
use crate::text::Text;
use crate::text::catalog::snapshot as texts;

/// The fail points around each file that is removed so, by the kind of operation.
pub const FREE_FAILPOINTS: &[&str] = &[
    "apply.free.before",
    "apply.free.after",
    "destroy.free.before",
    "destroy.free.after",
];

/// Who removes.
pub(super) struct Remover<'a> {
    pub(super) core: &'a Arc<Core>,
    /// The kind of operation, as in its fail points.
    pub(super) kind: &'static str,
    /// Name of the machine, for texts.
    pub(super) name: &'a str,
    /// Waits until nobody reads one of the files.
    pub(super) alone: &'a dyn Fn(&[PathBuf]) -> Option<FileGuard>,
    /// Takes the reason why a file stays.
    pub(super) keep: &'a dyn Fn(Text),
}

impl Remover<'_> {
    /// Unlinks what nothing needs, from above, once nobody reads it and it is still so; notes in `left` what cannot be.
    /// Whether there was anything: then it is to be looked again.
    ///
    /// # Errors
    /// A fail point was ordered to fail.
    pub(super) fn sweep(
        &self,
        member: &Member,
        survey: &dyn Survey,
        left: &mut Left,
    ) -> Result<bool, EngineError> {
        let free = survey.free(&left.files).into_iter();
        let free: Vec<_> = free.map(|layer| layer.file).collect();
        let Some(first) = free.first() else {
            return Ok(false);
        };
        let _alone = (self.alone)(&free);
        let (survey, _turn) = match again::in_turn(self.core, member, first) {
            Ok(seen) => seen,
            Err(why) => {
                (self.keep)(why);
                left.files.extend(free);
                return Ok(true);
            }
        };
        // What is under a file that is free only now is needed until that is gone.
        let still = survey.free(&left.files).into_iter();
        for layer in still.take_while(|layer| free.contains(&layer.file)) {
            self.pass("before")?;
            self.core.deps.frozen.release([layer.file.as_path()]);
            let inode = survey.frozen_inode(&layer.file);
            let files = self.core.deps.storage.files();
            let gone = match files.unlink(&self.core.sets(), &layer.file, inode) {
                Ok(true) => Ok(()),
                // It was there a moment ago: another folder is in the place of its own.
                Ok(false) => Err(io::ErrorKind::NotFound.into()),
                Err(e) => Err(e),
            };
            if let Err(e) = gone {
                let at = At::new(self.name, &layer.disk);
                (self.keep)(at.io(&layer.file, &e).text);
                left.files.insert(layer.file.clone());
                left.free.insert(layer.file.clone());
                break; // what is under it is needed on
            }
            left.removed.insert(layer.file.clone());
            self.pass("after")?;
        }
        Ok(true)
    }

    fn pass(&self, side: &str) -> Result<(), EngineError> {
        let passed = self.core.pass(self.kind, "free", side);
        passed.map_err(|e| error(texts::ORDERED.with("cause", e)))
    }
}

/// What an operation leaves of a machine's disks that it has switched to others.
pub(crate) struct Freed<'a> {
    /// The machine.
    pub(crate) machine: VmId,
    /// Its name, for texts.
    pub(crate) name: &'a str,
    /// The files that were active.
    pub(crate) tops: BTreeSet<PathBuf>,
    /// Every file that the machine had, with everything under it.
    pub(crate) layers: Vec<Layer>,
}

/// Removes those of the old files that nothing needs any more. What cannot be seen or removed now is remembered,
/// durably, for the next operation on the machine.
///
/// # Errors
/// The store's.
pub(crate) fn after_apply(
    core: &Arc<Core>,
    freed: Freed<'_>,
    job: JobId,
    waiting: &dyn Fn(&InUse),
) -> Result<(), EngineError> {
    let (name, layers) = (freed.name, freed.layers);
    let member = bare(core, freed.machine, name, freed.tops, layers);
    let remover = Remover {
        core,
        kind: "apply",
        name,
        alone: &|files| {
            let doing = texts::APPLY_TIDYING.text();
            let user = FileUser { job, doing };
            core.claims.write(files, user, |in_use| {
                waiting(in_use);
                std::ops::ControlFlow::Continue(())
            })
        },
        keep: &|why| {
            tracing::info!(
                machine = name,
                why = why.english(),
                "A file that was active stays for now"
            )
        },
    };
    let mut left = Left::default();
    loop {
        match look::survey(core, &member) {
            Ok(survey) if remover.sweep(&member, &*survey, &mut left)? => {}
            Ok(survey) => {
                left.files.extend(survey.doubtful());
                left.files.extend(survey.astray(&left.removed));
                break;
            }
            Err(e) => {
                (remover.keep)(e.text);
                left.blind = true;
                break;
            }
        }
    }
    left.remember(core, &member)
}

/// All files of a machine: those that it runs on, those that its snapshots keep, what deleted sets have left, and
/// everything under them.
pub(crate) fn all_layers(
    core: &Core,
    machine: VmId,
    name: &str,
    also: Vec<(String, PathBuf, Format)>,
) -> Vec<Layer> {
    layers(core, machine, name, also, true)
}

/// The machine with files of it, and no snapshot that goes.
pub(super) fn bare(
    core: &Core,
    machine: VmId,
    name: &str,
    captured: BTreeSet<PathBuf>,
    layers: Vec<Layer>,
) -> Member {
    let snapshot = SnapshotId::random();
    // No such copy of a definition exists, so none is removed.
    let definition = core.sets().join(snapshot.to_string()).join("none/vm.toml");
    Member {
        machine,
        name: name.to_owned(),
        snapshot,
        parent: None,
        definition,
        captured,
        layers,
        sealed: Vec::new(),
        damaged: BTreeSet::new(),
    }
}
