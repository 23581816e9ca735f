//! The heart: operations on the snapshot sets of many machines, all or nothing.
//!
//! ```text
//!  accept ─ resolve, lease, hold, plan ─▶ journal INTENT and job (4), both durable ─▶ answer
//!                                                             │ own task, `Kind::TAKE`, `Kind::FINISH`
//!   steps, each with its undo ▶ commit record ▶ tops ▶ publish (records, job 7) ▶ clear the journal
//!   └── any error, cancel: undo, job 10, 8, 9 ──┘  └───────── only forward, again and again ──────┘
//! ```
//!
//! The fsynced commit record is the point of no return. `accept` begins an operation, `members` says who
//! holds what, `kind` says what a kind of operation brings along (its step tables, what it works on),
//! `operation` runs it forward or back, `journal` records it, `recovery` finishes or undoes what a dead
//! process left, before the listener opens. `create`, `apply`, `export` and `destroy` are the kinds. `damage` knows whether
//! files are as they were captured, `copies` whether definitions are, `care` what the operator's check-up asks. Nothing here knows CIM or XML.

pub mod apply;
pub mod create;
pub mod destroy;
pub mod export;
pub mod saga;

mod care;
mod coordinator;
mod copies;
mod damage;
mod forgotten;
mod known;
mod meter;
mod orphans;
mod recorded;
mod tops;

pub use apply::ApplyRequest;
pub use care::{
    Journaled, OpenJournal, SetAside, move_to_orphans, named_by_journals, needing, removed,
};
pub use coordinator::Coordinator;
pub use copies::UnsoundCopy;
pub use create::{Checked, CheckedDisk, CreateRequest, machines_of};
pub use damage::{DamagedDisk, is_changed, of_each_disk, seal_open, shown};
pub use destroy::{DestroyRequest, Hidden};
pub use export::{ExportRefused, ExportRequest, Exports, Root};
pub use forgotten::Forgotten;
pub(crate) use recorded::is_gone;
pub use recorded::{Away, Differing, compare};
pub(crate) use saga::accept::{Unanswered, answered};
pub use saga::core::{Deps, Limits, Passage};
pub use saga::leases::{Busy, Holder, Lease, Leases, Mode, Resource, Stand};
pub use saga::recovery::{InFlight, Recovered, RecoveryError, Stuck};
pub use tops::RecordedSets;

use crate::id::{JobId, SetId};
use crate::text::Text;

/// Every fail point, by kind of operation; of each in the order in which they are passed, those of the
/// undo last.
pub const FAILPOINTS: &[&[&str]] = &[
    create::FAILPOINTS,
    apply::FAILPOINTS,
    export::FAILPOINTS,
    destroy::FAILPOINTS,
];

/// The job runs; both ids are durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// The job.
    pub job: JobId,
    /// The set that it will publish or works on.
    pub set: SetId,
}

/// Not even begun; nothing was changed. Each is one return value of the method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// 2: the store or the journal cannot be written.
    Failed(Text),
    /// 4: no such collection or set.
    InvalidParameter(Text),
    /// 5: an empty collection, a member or set that is busy or in the wrong state, a disk that cannot be
    /// worked on.
    InvalidState(Text),
}

impl Refused {
    /// Why.
    #[must_use]
    pub fn text(&self) -> &Text {
        match self {
            Self::Failed(text) | Self::InvalidParameter(text) | Self::InvalidState(text) => text,
        }
    }

    /// The same refusal in other words.
    pub(crate) fn saying(&self, text: Text) -> Self {
        match self {
            Self::Failed(_) => Self::Failed(text),
            Self::InvalidParameter(_) => Self::InvalidParameter(text),
            Self::InvalidState(_) => Self::InvalidState(text),
        }
    }
}
