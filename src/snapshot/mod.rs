//! Operations on snapshot sets (create, apply, export, destroy): atomic over all machines, and crash-safe.
//!
//! ```text
//!  accept ─ resolve, lease, hold, plan ─▶ journal INTENT and job (4), both durable ─▶ answer
//!                                                             │ own task, `Kind::TAKE`, `Kind::FINISH`
//!   steps, each with its undo ▶ commit record ▶ set.json ▶ tops ▶ publish (records, job 7) ▶ clear the journal
//!   └── any error, cancel: undo, job 10, 8, 9 ──┘  └────────── only forward, retried until it is done ──────────┘
//! ```
//!
//! The fsynced commit record is the point of no return. `saga` runs an operation of any kind; `create`, `apply`, `export`
//! and `destroy` are the kinds, which `kinds` lists; `coordinator` is what others see of all this. What the kinds share:
//! `known` (the sets that there are), `damage` (whether files are as they were captured), `copies` (whether definitions
//! are), `orphans`, `forgotten`. Above them, for whoever asks: `care`, `recorded`, `tops`. Nothing here knows CIM or XML.

pub mod apply;
pub mod create;
pub mod destroy;
pub mod export;
pub mod settings;

mod care;
mod chosen;
mod coordinator;
mod copies;
mod damage;
mod directory;
mod forgotten;
mod kinds;
mod known;
mod left_out;
mod meter;
mod names;
mod orphans;
mod recorded;
mod saga;
mod spaces;
mod stands;
mod tops;
mod unreached;

pub use apply::ApplyRequest;
pub(crate) use care::in_flight;
pub use care::{
    Journaled, OpenJournal, SetAside, move_to_orphans, named_by_journals, needing, removed,
    require_journals,
};
pub use chosen::{Choosing, ShownTops};
pub use coordinator::Coordinator;
pub use copies::UnsoundCopy;
pub use create::{Checked, CheckedDisk, CreateRequest, machines_of};
pub use damage::{DamagedDisk, is_changed, of_each_disk, seal_open, shown};
pub use destroy::{DestroyRequest, Hidden};
pub use directory::{Exports, Root};
pub use export::{ExportRefused, ExportRequest};
pub use forgotten::Forgotten;
pub(crate) use recorded::is_gone;
pub use recorded::{Away, Differing, compare};
pub(crate) use saga::accept::{Unanswered, answered};
pub use saga::answer::{Accepted, Refused};
pub use saga::core::{Deps, Limits, Passage};
pub use saga::leases::{Busy, Holder, Lease, Leases, Mode, Resource, Stand};
pub use saga::recovery::{InFlight, Recovered, RecoveryError, Stuck};
pub(crate) use saga::spares::is_blank;
pub use saga::{claims, guard, journal};
pub use tops::RecordedSets;
