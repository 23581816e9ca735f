//! How an operation of any kind runs: begun durably, step by step, forward or back, also by another process.
//!
//! `accept` begins an operation, `leases` says who holds what, `claims` who uses which file, `kind` what a kind of
//! operation brings along (its step tables, what it works on), `operation` runs it forward or back, `journal` records it,
//! `recovery` finishes or undoes what a dead process left, before the listener opens. Nothing here names a kind.

pub(crate) mod accept;
pub mod claims;
pub(crate) mod core;
pub(crate) mod early;
pub mod journal;
pub(crate) mod kind;
pub(crate) mod leases;
pub(crate) mod operation;
pub(crate) mod recovery;
pub(crate) mod spares;
