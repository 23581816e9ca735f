//! Machines that a real QEMU runs.

mod agent;
mod cut;
mod import;
mod states;
mod unseen;
