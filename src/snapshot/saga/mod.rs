//! How an operation of any kind runs: begun durably, step by step, forward or back, also by another process.
//!
//! `accept` leases what a request is about, `plan` finds out what is done to each part, `start` makes intent and job
//! durable. `kind` says what a kind of operation brings along: its intent and records, its step tables, what it works on.
//! `operation` runs the steps, `undo` is the way back, `journal` and `spares` are the files, `story` what a
//! journal tells, `window` the part in which machines stand still, `word` how that part commits, `guard` who lets machines go if this process cannot, `recovery` finishes or undoes what a dead process left, `journals` asks without doing so. `leases` says
//! who holds what, `claims` who uses which file. Nothing here names a kind.

pub(crate) mod accept;
pub(crate) mod answer;
pub mod claims;
pub(crate) mod core;
pub(crate) mod crowd;
pub mod guard;
pub mod journal;
pub(crate) mod journals;
pub(crate) mod kind;
pub(crate) mod leases;
pub(crate) mod operation;
pub(crate) mod plan;
pub(crate) mod recovery;
pub(crate) mod spares;
pub(crate) mod start;
pub(crate) mod story;
pub(crate) mod undo;
pub(crate) mod window;
pub(crate) mod word;
