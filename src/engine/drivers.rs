//! The storage drivers of a server, and the choice of one for a disk: the first that can capture it, in the order that
//! `server` gave.

use std::path::Path;
use std::sync::Arc;

use crate::engine::failure::At;
use crate::engine::files::Chains;
use crate::engine::graph;
use crate::engine::qcow2::chain::Roots;
use crate::engine::{
    Capture, EngineError, EngineErrorKind, Live, Plan, Read, Retain, Revert, RevertPlan,
};
use crate::id::SetId;
use crate::inventory::{Disk, Machine, SnapshotDisk};
use crate::text::catalog::engine as texts;

/// What is done to disks, by one way of doing it.
pub trait Driver: Capture + Revert {
    /// `overlay`, `reflink`, `sim`. Recorded in plans and snapshots, so it must never change.
    fn name(&self) -> &'static str;

    /// How what its snapshots keep in files is held on to and given up; `None` if they keep nothing in files.
    fn retain(&self) -> Option<&dyn Retain> {
        None
    }

    /// How what its snapshots keep is read; `None` if that has no content.
    fn read(&self) -> Option<&dyn Read> {
        None
    }
}

/// The storage drivers of this server, best first.
#[derive(Clone)]
pub struct Drivers {
    list: Vec<Arc<dyn Driver>>,
    /// Looks after files, also of drivers that are not among these.
    others: Arc<Chains>,
}

impl Drivers {
    /// These drivers, tried in this order. A configuration that forces one passes only that one.
    #[must_use]
    pub fn new(list: Vec<Arc<dyn Driver>>) -> Self {
        let others = Arc::default();
        Self { list, others }
    }

    /// Reads no file outside `roots`, also where it was kept by a driver that is not among these.
    #[must_use]
    pub fn within(self, roots: Roots) -> Self {
        let others = Arc::new(Chains::within(roots));
        Self { others, ..self }
    }

    /// The plan of the first driver that can capture the disk. Leaves nothing behind.
    ///
    /// # Errors
    /// [`EngineErrorKind::Unsupported`] if none can: such a disk is "not snapshottable". Any other kind if it cannot be
    /// captured at present. An error of one driver ends the search.
    pub fn plan(
        &self,
        machine: &Machine,
        disk: &Disk,
        set: SetId,
        live: Option<Live>,
    ) -> Result<Plan, EngineError> {
        for driver in &self.list {
            if let Some(plan) = driver.plan(machine, disk, set, live)? {
                return Ok(plan);
            }
        }
        let tried: Vec<_> = self.list.iter().map(|d| d.name()).collect();
        Err(EngineError {
            kind: EngineErrorKind::Unsupported,
            text: At::disk(machine, disk)
                .text(texts::NO_DRIVER, &disk.file)
                .with("drivers", tried.join(", ")),
        })
    }

    /// The driver of what a snapshot keeps of a disk; `None` if this server was not given it.
    fn keeping(&self, disk: &SnapshotDisk) -> Option<&dyn Driver> {
        let mut list = self.list.iter();
        list.find(|d| d.name() == disk.driver).map(|d| &**d)
    }

    /// Whether a snapshot keeps the disk in files; also of a driver that this server was not given.
    #[must_use]
    pub fn in_files(&self, disk: &SnapshotDisk) -> bool {
        let driver = self.keeping(disk);
        driver.map_or_else(|| graph::is_file(disk), |driver| driver.retain().is_some())
    }

    /// How what a snapshot keeps of a disk is read; `None` if that has no content. What a driver has made that this server
    /// was not given is taken for files.
    #[must_use]
    pub fn reader(&self, disk: &SnapshotDisk) -> Option<&dyn Read> {
        let driver = self.keeping(disk);
        driver.map_or(Some(&*self.others), |driver| driver.read())
    }

    /// Looks after the files of all drivers that keep something in chains of files, whichever of them this server was given:
    /// a chain may be of several.
    #[must_use]
    pub fn files(&self) -> &dyn Retain {
        &*self.others
    }

    /// The driver that made the plan.
    ///
    /// # Errors
    /// A plan of a driver that this server was not given (a journal of another configuration).
    pub fn of(&self, plan: &Plan) -> Result<&Arc<dyn Driver>, EngineError> {
        self.named(&plan.driver, || At::plan(plan))
    }

    /// The driver that made the plan of a revert.
    ///
    /// # Errors
    /// As [`Drivers::of`].
    pub fn of_revert(&self, plan: &RevertPlan) -> Result<&dyn Driver, EngineError> {
        let named = self.named(&plan.driver, || At::revert(plan));
        named.map(|driver| &**driver)
    }

    /// The driver of that name.
    ///
    /// # Errors
    /// This server was not given one.
    pub fn named(
        &self,
        name: &str,
        at: impl FnOnce() -> At,
    ) -> Result<&Arc<dyn Driver>, EngineError> {
        let found = self.list.iter().find(|d| d.name() == name);
        found.ok_or_else(|| EngineError {
            kind: EngineErrorKind::Failed,
            text: at()
                .text(texts::UNKNOWN_DRIVER, Path::new(""))
                .with("driver", name),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::engine::Kept;
    use crate::inventory::Format;

    #[test]
    fn what_a_driver_that_is_not_given_has_kept_is_read_within_the_roots_only() {
        let folder = tempfile::tempdir().unwrap();
        let [inside, outside] = ["inside", "outside"].map(|f| folder.path().join(f));
        for folder in [&inside, &outside] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("a.raw"), [1; 512]).unwrap();
        }
        let sources = |drivers: &Drivers, folder: &Path| {
            let disk = SnapshotDisk {
                id: "disk0".into(),
                file: folder.join("a.raw"),
                format: Format::Raw,
                size: 512,
                driver: "another".into(),
                sealed: Vec::new(),
                damage: None,
            };
            let kept = Kept {
                at: &At::new("m", "disk0"),
                machine: None,
                disk: &disk,
            };
            let reader = drivers.reader(&disk).unwrap();
            reader.sources(kept).map(|files| files.len())
        };
        let anywhere = Drivers::new(Vec::new());
        assert_eq!(sources(&anywhere, &outside), Ok(1));
        let within = anywhere.within(Roots::new(std::slice::from_ref(&inside)));
        assert_eq!(sources(&within, &inside), Ok(1));
        assert!(sources(&within, &outside).is_err());
    }
}
