//! Machines that a QEMU runs, by its QMP monitors: their state, and whether they have the disks that the library says.
//!
//! ```text
//!   vm.toml [qemu] ─▶ section     admit ◀─ vm import       library: states
//!                                   │                        │
//!                                inspect (one look)        watch (a task a machine)
//!                                   ├───────── blocks ───────┤
//!                                   └──── qmp, answer, peer ─┘ ─▶ socket, /proc      agent ─▶ socket
//! ```
//!
//! The process at the other end is not trusted further than to tell of its own machine: it may be another one's, of
//! another version, stopped, or say what is not true. What it says is bounded in length, time and number, and which file
//! it means is compared with what it has open, by device and inode (`docs/threat-model.md`).

pub(crate) mod admit;
pub mod agent;
pub mod answer;
pub mod blocks;
mod credentials;
mod inspect;
mod link;
pub(crate) mod live;
pub(crate) mod peer;
pub mod qmp;
pub mod release;
pub(crate) mod section;
mod socket;
pub(crate) mod watch;

#[cfg(test)]
mod tests;
