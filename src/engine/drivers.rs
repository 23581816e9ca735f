//! Chooses the storage driver of a disk: the first that can capture it, in the order that `server` gave.

use std::path::Path;
use std::sync::Arc;

use crate::engine::failure::At;
use crate::engine::{EngineError, EngineErrorKind, Plan, Storage};
use crate::id::SetId;
use crate::inventory::{Disk, Machine};
use crate::text::catalog::engine as texts;

/// The storage drivers of this server, best first.
#[derive(Clone)]
pub struct Drivers {
    list: Vec<Arc<dyn Storage>>,
}

impl Drivers {
    /// These drivers, tried in this order. A configuration that forces one passes only that one.
    #[must_use]
    pub fn new(list: Vec<Arc<dyn Storage>>) -> Self {
        Self { list }
    }

    /// The plan of the first driver that can capture the disk. Leaves nothing behind.
    ///
    /// # Errors
    /// [`EngineErrorKind::Unsupported`] if none can: such a disk is "not snapshottable". Any other kind if it cannot be
    /// captured at present. An error of one driver ends the search.
    pub fn plan(&self, machine: &Machine, disk: &Disk, set: SetId) -> Result<Plan, EngineError> {
        for driver in &self.list {
            if let Some(plan) = driver.plan(machine, disk, set)? {
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

    /// Whether snapshots of this driver can be exported. A driver that is not configured here is assumed to allow it.
    #[must_use]
    pub fn has_content(&self, driver: &str) -> bool {
        let mut list = self.list.iter();
        list.find(|d| d.name() == driver)
            .is_none_or(|d| d.has_content())
    }

    /// The driver that made the plan.
    ///
    /// # Errors
    /// A plan of a driver that this server was not given (a journal of another configuration).
    pub fn of(&self, plan: &Plan) -> Result<&Arc<dyn Storage>, EngineError> {
        self.named(&plan.driver, || At::plan(plan))
    }

    /// The driver of that name.
    ///
    /// # Errors
    /// This server was not given one.
    pub fn named(
        &self,
        name: &str,
        at: impl FnOnce() -> At,
    ) -> Result<&Arc<dyn Storage>, EngineError> {
        let found = self.list.iter().find(|d| d.name() == name);
        found.ok_or_else(|| EngineError {
            kind: EngineErrorKind::Failed,
            text: at()
                .text(texts::UNKNOWN_DRIVER, Path::new(""))
                .with("driver", name),
        })
    }
}
